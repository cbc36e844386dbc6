/* group.c: workers that share the rows of a ring (cbuf_group.h). Each row goes to one of them; of a
 * worker that is killed at any operation another one gets the rows that it had taken and not
 * acknowledged, these and no others; and a producer overwrites no row before it was acknowledged.
 *
 * The kernel's locks are played here: the lock of a slot's byte can be had once its worker's thread
 * has ended and the one who asks has waited for that. In the cases called "plain" the rows count as
 * plain memory: there what is overwritten must, by happens-before, have been read.
 */
#define MODEL_PLAIN_ROWS
#include "checker.h"

#include <fcntl.h>

static int model_fcntl(int fd, int operation, const struct flock *lock);
#define fcntl(fd, operation, lock) model_fcntl(fd, operation, lock)
#include "model_os.h"
#include "cbuf_group.h"
#undef fcntl

enum { WORKERS = 2, GROUPS = 2 };

struct setting {
    uint32_t capacity, before; /* rows in the ring at the start */
    uint8_t on_full;
    uint32_t rows;           /* that the producer tries to write beside them */
    uint32_t takes[WORKERS]; /* calls of cbuf_take ... */
    uint32_t max;            /* ... for so many rows at most */
    bool done;               /* each is followed by cbuf_done */
    bool mortal;             /* the first worker may die; then the second delivers its rows */
    bool heir_dies;          /* the second may die too: the end of the run delivers what is left */
    bool beside;             /* a third one delivers them, while the second goes on */
    bool joins;              /* the second takes its slot in its thread */
    bool changes;            /* the first leaves and joins another group, and takes there */
    bool plain;
};

static const struct setting *setting;
static cbuf_ring handle; /* of the workers' process */
static cbuf_worker workers[WORKERS], last;
static bool is_dead[MODEL_SEQUENCES];        /* by slot: its lock can be had */
static unsigned given[WORKERS + 1][MODEL_SEQUENCES];
static bool maybe[WORKERS + 1][MODEL_SEQUENCES], surely[WORKERS + 1][MODEL_SEQUENCES]; /* done */
static struct {
    uint64_t first, count;
} held[WORKERS + 1];

static bool model_is_plain(const void *word)
{
    uintptr_t at = (uintptr_t)word, rows = (uintptr_t)model_ring.rows;
    return setting->plain && at >= rows && at < rows + model_ring.capacity * model_ring.stride;
}

static int model_fcntl(int fd, int operation, const struct flock *lock)
{
    (void)fd, (void)operation;
    bool had = lock->l_type == F_UNLCK || is_dead[lock->l_start];
    errno = EAGAIN;
    return had ? 0 : -1;
}

/* That a worker of the first group acknowledges what it has, before and after it does. */
static void begin_to_acknowledge(unsigned w)
{
    for (uint64_t i = 0; i < held[w].count; i++)
        maybe[w][held[w].first + i] = true;
}
static void has_acknowledged(unsigned w)
{
    for (uint64_t i = 0; i < held[w].count; i++)
        surely[w][held[w].first + i] = true;
    held[w].count = 0;
}
static void acknowledge(unsigned w)
{
    begin_to_acknowledge(w);
    cbuf_done(&workers[w]);
    has_acknowledged(w);
}

/* Takes once: how many rows came. */
static int64_t take(cbuf_worker *worker, unsigned w)
{
    uint64_t rows[MODEL_ROWS * MODEL_WORDS];
    begin_to_acknowledge(w);
    int64_t n = cbuf_take(worker, rows, setting->max);
    has_acknowledged(w);
    uint64_t first = cbuf_taken_first(worker);
    checker_assert(n >= 0 && n <= setting->max);
    for (int64_t i = 0; i < n; i++)
        model_check(rows + i * model_shape.words, first + (uint64_t)i);
    if (worker->group_index != 0)
        return n;
    for (int64_t i = 0; i < n; i++)
        given[w][first + (uint64_t)i]++;
    held[w].first = first;
    held[w].count = (uint64_t)n;
    if (setting->done && w < WORKERS)
        acknowledge(w);
    return n;
}

static void produce(void *unused)
{
    uint64_t row[MODEL_WORDS];
    (void)unused;
    for (uint64_t i = 0; i < setting->rows; i++) {
        model_fill(row, model_ring.next, 1);
        checker_assume(cbuf_write(&model_ring, row) == 1);
    }
}

static void bind(cbuf_worker *worker, unsigned group)
{
    memset(worker, 0, sizeof *worker);
    worker->reader.ring = &handle;
    worker->reader.room_at = &handle.local->never;
    worker->reader.shared_cursor = &worker->reader.unused;
    worker->reader.fd = 1; /* none that is used */
    worker->reader.stamp_at = UINT64_MAX;
    worker->heir_of = CBUF__NO_SLOT;
    worker->looked_ns = 1000000 * INT64_C(1000000000); /* time stands still: it never looks */
    cbuf__bind_group(worker, group);
}
static void occupy(cbuf_worker *worker, unsigned slot)
{
    cbuf_reader_options none = { .name = NULL };
    cbuf__occupy(worker, slot, false, &none);
    worker->reader.stamp_at = UINT64_MAX;
}

static void work(void *argument)
{
    unsigned w = (unsigned)(uintptr_t)argument;
    cbuf_worker *worker = &workers[w];
    checker_set_mortal(w == 0 ? setting->mortal : setting->heir_dies);
    if (w == 1 && setting->joins)
        occupy(worker, GROUPS + w);
    for (uint32_t i = 0; i < setting->takes[w]; i++)
        take(worker, w);
    if (w == 0 && setting->changes) {
        acknowledge(0);
        cbuf__free_worker(worker, worker->reader.index);
        bind(worker, 1);
        occupy(worker, GROUPS);
        take(worker, 0);
    }
    if (w == 1 && setting->mortal && !setting->changes && !setting->beside) {
        is_dead[GROUPS] = checker_wait_end(setting->rows != 0);
        worker->looked_ns = 0;
        while (take(worker, w) > 0) {}
    }
}

static void inherit(void *unused)
{
    (void)unused;
    is_dead[GROUPS] = checker_wait_end(0);
    last.takes = 15; /* with this take it is time to look */
    take(&last, WORKERS);
}

/* A worker in a slot where nobody looks: the second group's. */
static void bind_last(void)
{
    bind(&last, 0);
    last.looked_ns = 0;
    last.reader.slot = &model_ring.readers->slots[1];
    last.reader.index = 1;
    last.reader.stamp_at = UINT64_MAX;
}

static void begin_group(unsigned g, uint64_t at)
{
    cbuf_reader reader;
    cbuf_reader_options options = { .start = CBUF_AT, .sequence = at };
    cbuf_worker worker;
    checker_assert(cbuf_reader_open(&reader, &model_ring, &options) == 0);
    checker_assert(reader.index == g);
    bind(&worker, g);
    worker.group->turn = cbuf__turn_of(at, g);
    worker.group->group = worker.group_word;
}

static void set_up(const void *arguments)
{
    static cbuf_ring kept[2];
    static cbuf_worker kept_workers[WORKERS];
    static uint64_t kept_memory[sizeof model_memory / 8];
    static const void *kept_key;
    setting = arguments;
    cbuf_options options = { .capacity = setting->capacity, .reserve_step = 1,
                             .layout = setting->plain ? CBUF_DENSE : CBUF_NUMBERED,
                             .on_full = setting->on_full, .max_readers = GROUPS + WORKERS };
    checker_allow_pauses(1000);
    model_make_ring(arguments, &options, (struct model_shape){ 2, !setting->plain });
    memset(is_dead, 0, sizeof is_dead);
    memset(given, 0, sizeof given);
    memset(maybe, 0, sizeof maybe);
    memset(surely, 0, sizeof surely);
    memset(held, 0, sizeof held);
    if (kept_key != arguments) {
        handle = model_ring;
        handle.local = &handle.in_handle;
        begin_group(0, 0);
        begin_group(1, 0);
        if (!setting->changes) { /* the second group is there for that only */
            model_ring.readers->slots[1].cursor = CBUF__FREE;
            model_ring.readers->slots[1].gate = 0;
        }
        for (unsigned w = 0; w < WORKERS; w++) {
            bind(&workers[w], 0);
            if (w == 0 || !setting->joins)
                occupy(&workers[w], GROUPS + w);
        }
        model_write(&model_ring, setting->before, 0, 1);
        kept[0] = model_ring, kept[1] = handle;
        memcpy(kept_workers, workers, sizeof workers);
        memcpy(kept_memory, model_memory, sizeof kept_memory);
        kept_key = arguments;
    }
    model_ring = kept[0], handle = kept[1];
    model_ring.local = &model_ring.in_handle;
    model_ring.wake_at = &model_ring.local->never;
    handle.local = &handle.in_handle;
    memcpy(workers, kept_workers, sizeof workers);
    memcpy(model_memory, kept_memory, sizeof kept_memory);
    model_name_words();
    for (unsigned k = 0; k < GROUPS + WORKERS; k++) {
        const struct cbuf__slot *slot = &model_ring.readers->slots[k];
        checker_name(&slot->turn, "slot[%u].turn", k);
        checker_name(&slot->granted, "slot[%u].granted", k);
        checker_name(&slot->held_end, "slot[%u].held_end", k);
        checker_name(&slot->group, "slot[%u].group", k);
    }
    if (setting->rows)
        checker_spawn("producer", produce, NULL);
    checker_spawn("first", work, (void *)0);
    checker_spawn("second", work, (void *)1);
    bind_last();
    if (setting->beside)
        checker_spawn("heir", inherit, NULL);
}

/* What is written down of a worker in the slot is of the group that it is in now. */
static void check_granted(void)
{
    const struct cbuf__slot *slot = &model_ring.readers->slots[GROUPS];
    const struct cbuf__slot *group = &model_ring.readers->slots[1];
    if (slot->group != group->group)
        return;
    bool granted_by_its_group = slot->granted >> CBUF__TURN_BITS <= group->turn >> CBUF__TURN_BITS;
    checker_assert(granted_by_its_group);
}

/* Every row was given to one worker, or again after one who had it died or left. */
static void check(const void *unused)
{
    (void)unused;
    check_granted();
    uint64_t head = cbuf_head(&model_ring);
    unsigned dead = 0, base = setting->rows != 0;
    for (unsigned w = 0; w < WORKERS; w++) {
        is_dead[GROUPS + w] = true; /* they are all gone, by death or by leaving */
        dead |= (unsigned)checker_killed(base + w) << w;
    }
    last.looked_ns = 0;
    while (take(&last, WORKERS) > 0) {}
    for (uint64_t i = 0; i < head; i++) {
        unsigned all = 0, living = 0;
        bool acknowledged = false;
        for (unsigned w = 0; w <= WORKERS; w++) {
            bool kept = w == WORKERS || surely[w][i] || (!(dead >> w & 1) && maybe[w][i]);
            bool once_to_each = given[w][i] <= 1;
            checker_assert(once_to_each);
            all += given[w][i];
            living += given[w][i] && kept; /* the others left it to the next one */
            acknowledged = acknowledged || (w < WORKERS && maybe[w][i]);
        }
        bool no_row_is_lost = all >= 1 && (living == 1 || (living == 0 && acknowledged));
        bool to_one_who_lives = living <= 1;
        checker_assert(no_row_is_lost);
        checker_assert(to_one_who_lives);
    }
    checker_assert(last.lost + workers[0].lost + workers[1].lost == 0);
}

#define RING .capacity = 4, .before = 3, .max = 1, .done = true
#define GATE .capacity = 2, .before = 2, .max = 1, .done = true, .on_full = CBUF_DROP_NEWEST, \
             .plain = true

static const struct checker_test tests[] = {
    MODEL_CASE("two", RING, .takes = { 2, 2 }),
    MODEL_CASE("two-batches", .capacity = 4, .before = 4, .max = 2, .done = true,
               .takes = { 2, 2 }),
    MODEL_CASE("killed", RING, .takes = { 2, 1 }, .mortal = true),
    MODEL_CASE("killed-of-two", RING, .takes = { 2, 2 }, .mortal = true),
    MODEL_CASE("killed-beside", RING, .takes = { 1, 1 }, .mortal = true, .beside = true),
    MODEL_CASE("killed-batch", .capacity = 4, .before = 4, .max = 2, .done = true,
               .takes = { 1, 1 }, .mortal = true),
    MODEL_CASE("killed-not-done", .capacity = 4, .before = 3, .max = 1, .takes = { 2, 1 },
               .mortal = true),
    MODEL_CASE("heir-killed", .capacity = 4, .before = 2, .max = 1, .done = true,
               .takes = { 1, 1 }, .mortal = true, .heir_dies = true),
    MODEL_CASE("another-group", .capacity = 4, .before = 2, .max = 1, .done = true,
               .takes = { 1, 1 }, .mortal = true, .changes = true),
    MODEL_CASE("gate", GATE, .rows = 2, .takes = { 1, 1 }),
    MODEL_CASE("gate-more", GATE, .rows = 1, .takes = { 2, 1 }),
    MODEL_CASE("gate-finds-nothing", .capacity = 2, .before = 2, .max = 2, .done = true,
               .on_full = CBUF_DROP_NEWEST, .plain = true, .rows = 1, .takes = { 1, 1 }),
    MODEL_CASE("gate-numbered", .capacity = 2, .before = 2, .max = 2, .done = true,
               .on_full = CBUF_DROP_NEWEST, .rows = 1, .takes = { 1, 1 }),
    MODEL_CASE("gate-killed", GATE, .rows = 1, .takes = { 1, 1 }, .mortal = true),
    MODEL_CASE("gate-joins", GATE, .rows = 1, .takes = { 0, 1 }, .joins = true),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
