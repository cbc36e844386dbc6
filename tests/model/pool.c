/* pool.c: slots of a pool of cbuf_pool.h, taken, retained, given back and used again by holders of
 * whom some are killed before any of their operations. What the dead held is free at the end, and
 * nothing else is.
 *
 * In place of the kernel's lock of a dead holder stands the wait for its thread's end.
 */
#include "model_pool.h"

struct setting {
    void (*threads[HOLDERS])(void *); /* thread k uses pools[k] */
    uint32_t slots;
    uint32_t turns;     /* of each that takes slots */
    uint32_t rows;      /* that a producer writes, into a ring of 2 */
};

static cbuf_ring producer, successor, reading;
static cbuf_reader reader;
static cbuf_pool_ring rows, rows_after;
static const struct setting *setting;
static cbuf__word published; /* a ref */
static unsigned retained;

static void look_at(cbuf_pool *pool, cbuf_ref ref)
{
    if (!ref) return;
    int error = cbuf_pool_retain(pool, ref);
    checker_assert(error == 0 || error == CBUF_ESTALE);
    if (error) return;
    retained++;
    check_payload(pool, ref);
    release(pool, ref);
}

/* ---- what threads do ---- */

/* Takes, fills, gives back; gives back too much. */
static void take(void *pool)
{
    cbuf_ref ref;
    for (uint32_t k = 0; k < setting->turns; k++) {
        if (cbuf_pool_allocate(pool, 8, 0, &ref)) continue;
        fill(pool, ref);
        check_payload(pool, ref);
        release(pool, ref);
        checker_assert(cbuf_pool_release(pool, ref) == CBUF_ENOTHELD);
    }
}
/* Takes, fills, and lets others know. */
static void publish(void *pool)
{
    cbuf_ref ref;
    for (uint32_t k = 0; k < setting->turns; k++) {
        if (cbuf_pool_allocate(pool, 8, 0, &ref)) continue;
        fill(pool, ref);
        cbuf__store_release(&published, ref);
        release(pool, ref);
    }
}
static void publish_mortal(void *pool)
{
    checker_set_mortal(true);
    publish(pool);
}
static void take_mortal(void *pool)
{
    checker_set_mortal(true);
    take(pool);
}
static void look(void *pool)
{
    look_at(pool, cbuf__load_acquire(&published));
}
static void look_mortal(void *pool)
{
    checker_set_mortal(true);
    look(pool);
}
/* Gives back what holder 0 held, if it is dead; and takes a slot itself. */
static void reclaim(void *pool)
{
    if (checker_wait_end(0)) cbuf__dismiss(pool, 0);
    take(pool);
}
static void reclaim_mortal(void *pool)
{
    checker_set_mortal(true);
    if (checker_wait_end(0)) cbuf__dismiss(pool, 0);
}
/* Follows it: all that both of them held. */
static void reclaim_after(void *pool)
{
    bool first = checker_wait_end(0), second = checker_wait_end(1);
    if (first) cbuf__dismiss(pool, 0);
    if (second) cbuf__dismiss(pool, 1);
}

/* ---- a ring whose rows own payloads ---- */

static void write_rows(cbuf_pool_ring *to, cbuf_pool *pool, uint32_t n)
{
    cbuf_ref ref;
    for (uint32_t k = 0; k < n; k++) {
        if (cbuf_pool_allocate(pool, 8, 0, &ref)) continue; /* a reader has the last one */
        fill(pool, ref);
        checker_assert(cbuf_pool_write(to, &ref) == 1);
    }
}
static void produce(void *pool)
{
    write_rows(&rows, pool, setting->rows);
}
static void produce_mortal(void *pool)
{
    checker_set_mortal(true);
    produce(pool);
}
static void read_rows(void *pool)
{
    cbuf_ref ref;
    for (uint32_t k = 0; k < setting->turns; k++)
        if (cbuf_read(&reader, &ref, 1) == 1) look_at(pool, ref);
}
static void succeed(void *pool)
{
    if (!checker_wait_end(0)) return;
    cbuf__dismiss(pool, 0);
    cbuf__take_over(&successor);
    checker_assert(cbuf_pool_ring_open(&rows_after, pool, &successor) == 0);
    write_rows(&rows_after, pool, 1);
}

/* ---- set-up ---- */

static void make(void)
{
    static const cbuf_column column = { "payload", CBUF_REF, 0 };
    make_pools(setting->slots);
    if (setting->rows != 0) {
        cbuf_options ring = { .capacity = 2, .reserve_step = 1, .columns = &column,
                              .column_count = 1, .max_readers = 1 };
        memset(ring_memory, 0, sizeof ring_memory);
        checker_assert(cbuf_create_in(&producer, ring_memory, sizeof ring_memory, &ring) == 0);
        checker_assert(cbuf_attach_in(&successor, ring_memory, sizeof ring_memory) == 0);
        checker_assert(cbuf_attach_in(&reading, ring_memory, sizeof ring_memory) == 0);
        checker_assert(cbuf_reader_open(&reader, &reading,
                           &(cbuf_reader_options){ .anonymous = true }) == 0);
        checker_assert(cbuf_pool_ring_open(&rows, &pools[0], &producer) == 0);
    }
}
static void name_words(void)
{
    name_pool(setting->slots);
    checker_name(&published, "published");
    if (setting->rows != 0) {
        checker_name(&producer.file->head, "head");
        checker_name(&producer.file->reserve, "reserve");
        for (uint32_t k = 0; k < 4; k++)
            checker_name(producer.rows + 8 * k, "row[%u].%u", k / 2, k % 2);
    }
}
static void set_up(const void *arguments)
{
    static const char *const names[] = { "first", "second", "third", "fourth" };
    static const struct model_part parts[] = {
        { memory, sizeof memory }, { ring_memory, sizeof ring_memory }, { pools, sizeof pools },
        { &producer, sizeof producer }, { &successor, sizeof successor },
        { &reading, sizeof reading }, { &reader, sizeof reader }, { &rows, sizeof rows },
        { NULL, 0 } };
    setting = arguments;
    make_once(arguments, make, parts);
    published = retained = 0;
    name_words();
    for (unsigned k = 0; k < HOLDERS && setting->threads[k] != NULL; k++)
        checker_spawn(names[k], setting->threads[k], &pools[k]);
}

/* At the end nobody holds anything but the ring, and the ring what its places say. */
static void check(const void *unused)
{
    uint32_t holders, ring_bit = (uint32_t)rows.self.bit;
    uint64_t held = 0, owned = 0, places = 0;
    (void)unused;
    for (uint32_t place = 0; setting->rows != 0 && place < 2; place++)
        places += cbuf__ref_at(&rows, place, 0) != 0;
    for (cbuf_ref ref = 0; (ref = cbuf_pool_next_held(&pools[3], ref, &holders)) != 0; held++) {
        bool only_the_ring_holds = setting->rows != 0 && holders == ring_bit;
        checker_assert(only_the_ring_holds);
        for (uint32_t place = 0; setting->rows != 0 && place < 2; place++)
            owned += cbuf__ref_at(&rows, place, 0) == ref;
    }
    bool each_place_owns_what_it_says = held == owned && held == places;
    checker_assert(each_place_owns_what_it_says);
}

static const struct checker_test tests[] = {
    MODEL_CASE("take-the-same", .threads = { take, take }, .slots = 1, .turns = 2),
    MODEL_CASE("take-two-of-three", .threads = { take, take, take }, .slots = 2, .turns = 1),
    MODEL_CASE("look", .threads = { publish, look }, .slots = 1, .turns = 2),
    MODEL_CASE("look-while-taken", .threads = { publish, take, look }, .slots = 1, .turns = 1),
    MODEL_CASE("look-twice", .threads = { publish, look, look }, .slots = 1, .turns = 2),
    MODEL_CASE("killed", .threads = { take_mortal, reclaim }, .slots = 1, .turns = 1),
    MODEL_CASE("killed-and-taken", .threads = { take_mortal, reclaim, take }, .slots = 1,
               .turns = 1),
    MODEL_CASE("killed-publishing", .threads = { publish_mortal, look, reclaim }, .slots = 1,
               .turns = 1),
    MODEL_CASE("killed-looking", .threads = { look_mortal, publish, reclaim_after }, .slots = 1,
               .turns = 2),
    MODEL_CASE("killed-reclaiming",
               .threads = { publish_mortal, reclaim_mortal, reclaim_after, look }, .slots = 1,
               .turns = 1),
    MODEL_CASE("rows", .threads = { produce, read_rows }, .slots = 3, .turns = 2, .rows = 3),
    MODEL_CASE("rows-beside-another", .threads = { produce, take }, .slots = 2, .turns = 1,
               .rows = 1),
    MODEL_CASE("rows-used-again", .threads = { produce, read_rows }, .slots = 3, .turns = 1,
               .rows = 4),
    MODEL_CASE("rows-killed", .threads = { produce_mortal, succeed, read_rows }, .slots = 3,
               .turns = 1, .rows = 3),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
