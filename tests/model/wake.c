/* wake.c: no wake-up is lost, though the one who wakes executes no fence: a reader that sleeps for
 * rows is woken when they are there. Timeouts never come in the model, so that a lost wake-up is a
 * sleep for ever, which is a violation. (room.c has the producer that sleeps for room.)
 *
 * This test takes the header with its operating system part, on a ring in memory: sleeping, waking
 * and the barrier are the checker's.
 */
#include "model_os.h"

struct setting {
    uint64_t rows;    /* that the producer writes */
    uint32_t readers; /* each sleeps until it has read all */
    uint32_t want;    /* each time for so many rows */
    uint64_t wish;    /* another reader wishes to be woken at this head, and does not sleep */
    bool no_barriers; /* a kernel without membarrier: everyone fences */
    bool closes;      /* the producer closes the ring; the readers wait for that too */
    bool bare;        /* they do what is in the heart of cbuf_wait only, and read nothing */
    uint32_t capacity;
};

static const struct setting *setting;
static cbuf_ring handles[2]; /* of the readers */
static struct model_reader readers[2];

static void produce(void *unused)
{
    (void)unused;
    model_write(&model_ring, setting->rows, 0, 1);
    if (setting->closes)
        cbuf_close(&model_ring);
}

static void wish(void *unused)
{
    bool sure = true;
    (void)unused;
    cbuf__wish(&handles[1].readers->rows, setting->wish, &sure);
}

/* Sleeps until there are so many rows. */
static void sleep_for(const cbuf_ring *ring, uint64_t rows)
{
    cbuf__event *event = &ring->readers->rows;
    while (cbuf_head(ring) < rows) {
        bool sure = true;
        uint64_t count = cbuf__wish(event, rows, &sure);
        if (cbuf_head(ring) >= rows)
            break;
        cbuf__futex_wait(&event->count, (uint32_t)count, CBUF_FOREVER);
    }
}

static void consume(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    struct model_reader *r = &readers[me];
    if (setting->bare) {
        for (uint64_t rows = setting->want; rows <= setting->rows; rows += setting->want)
            sleep_for(&handles[me], rows);
        return;
    }
    while (r->reader.cursor < setting->rows) {
        uint64_t left = setting->rows - r->reader.cursor;
        uint32_t want = left < setting->want ? (uint32_t)left : setting->want;
        checker_assert(cbuf_wait(&r->reader, want, CBUF_FOREVER) >= (int64_t)want);
        checker_assert(model_read(r, want) > 0);
    }
    if (setting->closes)
        checker_assert(cbuf_wait(&r->reader, 1, CBUF_FOREVER) == CBUF_ECLOSED);
}

static void set_up(const void *arguments)
{
    static const char *const names[] = { "reader 0", "reader 1" };
    setting = arguments;
    cbuf_options options = { .capacity = setting->capacity,
                             .reserve_step = 1,
                             .max_readers = setting->readers };
    if (setting->no_barriers)
        checker_refuse_barriers();
    checker_allow_pauses(20);
    model_make_ring(setting, &options, (struct model_shape){ .words = 1 });
    model_name_words();
    model_attach(handles, setting);
    for (uint32_t i = 0; i < setting->readers; i++)
        model_open(&readers[i], &handles[i], &(cbuf_reader_options){ .spins = 1 });
    checker_spawn("producer", produce, NULL);
    for (uintptr_t i = 0; i < setting->readers; i++)
        checker_spawn(names[i], consume, (void *)i);
    if (setting->wish != 0)
        checker_spawn("wisher", wish, NULL);
}

static void check(const void *unused)
{
    (void)unused;
    for (uint32_t i = 0; i < setting->readers && !setting->bare; i++)
        checker_assert(readers[i].reader.cursor == setting->rows);
}

static const struct checker_test tests[] = {
    MODEL_CASE("one-row", .capacity = 4, .rows = 1, .readers = 1, .want = 1),
    MODEL_CASE("one-row-fenced", .capacity = 4, .rows = 1, .readers = 1, .want = 1,
               .no_barriers = true),
    MODEL_CASE("two-rows", .capacity = 4, .rows = 2, .readers = 1, .want = 1, .bare = true),
    MODEL_CASE("two-rows-fenced", .capacity = 4, .rows = 2, .readers = 1, .want = 1,
               .no_barriers = true),
    MODEL_CASE("two-rows-at-once", .capacity = 4, .rows = 2, .readers = 1, .want = 2),
    MODEL_CASE("two-readers", .capacity = 4, .rows = 1, .readers = 2, .want = 1, .bare = true),
    MODEL_CASE("two-readers-fenced", .capacity = 4, .rows = 1, .readers = 2, .want = 1,
               .bare = true, .no_barriers = true),
    MODEL_CASE("another-wish", .capacity = 4, .rows = 1, .readers = 1, .want = 1, .wish = 2,
               .bare = true),
    MODEL_CASE("another-wish-fenced", .capacity = 4, .rows = 1, .readers = 1, .want = 1, .wish = 2,
               .bare = true, .no_barriers = true),
    MODEL_CASE("closing", .capacity = 4, .rows = 1, .readers = 1, .want = 1, .closes = true),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
