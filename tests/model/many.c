/* many.c: several producers in one ring, any of which may be killed before any of its operations, a
 * sweeper, and a reader beside them. Readers get whole rows, the same under one number, and each
 * producer's in its order; rows read, lost and skipped are all that the cursor passed; a row that a
 * producer finished is never given up; and after the sweep nothing is wedged.
 *
 * Who is dead is the kernel's affair (a lock): here the sweeper waits for the end of a thread.
 */
#define CBUF_NO_OS
#include "model_ring.h"

enum { PRODUCERS = 2, HANDLES = 3, EACH = 8 };

struct setting {
    uint32_t capacity, step;
    uint8_t on_full;
    uint32_t rows[PRODUCERS]; /* that each tries to write ... */
    uint32_t batch;           /* ... so many in a call; 0: one */
    bool mortal[PRODUCERS];
    bool sweeper;             /* a thread sweeps as soon as the first has died ... */
    bool sweeps_both;         /* ... and the second has ended too */
    uint32_t after;           /* rows that it writes then */
    bool in_place;            /* by cbuf_claim, of which the last row is given up */
    uint32_t before;          /* rows in the ring at the start */
    uint32_t reads, max;
    bool registers;           /* the reader stands at the gate, from some moment of the run on */
    bool observes;            /* it looks at `head` and what is below it */
};

static const struct setting *setting;
static cbuf_ring handles[HANDLES]; /* the producers' and the sweeper's */
static struct model_reader reader;
static bool reader_is_open;
static unsigned finished[HANDLES]; /* rows that were written, as far as a call has said so */
static unsigned seen[MODEL_SEQUENCES]; /* which row readers found under each number */

/* Word W of the Nth row of producer P. */
static uint64_t value_of(unsigned p, unsigned n, uint32_t w) { return (p + 1) << 8 | n << 4 | w; }

static void fill(uint64_t *row, unsigned p, unsigned n)
{
    for (uint32_t w = 0; w < model_shape.words; w++)
        row[w] = value_of(p, n, w);
}

static void write_rows(unsigned p, uint32_t rows, uint32_t batch)
{
    uint64_t some[EACH * MODEL_WORDS];
    for (uint32_t done = 0; done < rows; done += batch) {
        for (uint32_t i = 0; i < batch; i++)
            fill(some + i * model_shape.words, p, done + i);
        int64_t written = cbuf_write_n(&handles[p], some, batch);
        checker_assume(written > 0); /* else it would wait, or was refused */
        finished[p] += (unsigned)written;
        if (written < batch)
            return;
    }
}

static void write_in_place(unsigned p, uint32_t rows)
{
    uint64_t row[MODEL_WORDS];
    int64_t granted;
    cbuf__word *place = cbuf_claim(&handles[p], rows + 1, &granted);
    checker_assume(granted > 0);
    uint32_t n = (uint32_t)granted < rows ? (uint32_t)granted : rows;
    for (uint32_t i = 0; i < n; i++) {
        fill(row, p, i);
        for (uint32_t w = 0; w < model_shape.words; w++)
            cbuf__store_relaxed(place + i * (cbuf_stride(&handles[p]) / 8) + w, row[w]);
    }
    checker_assert(cbuf_publish(&handles[p], n) == n);
    finished[p] += n;
}

static void produce(void *argument)
{
    unsigned p = (unsigned)(uintptr_t)argument;
    checker_set_mortal(setting->mortal[p]);
    if (setting->in_place)
        write_in_place(p, setting->rows[p]);
    else
        write_rows(p, setting->rows[p],
                   setting->batch && setting->rows[p] > 1 ? setting->batch : 1);
}

/* What cbuf__sweep_dead does with the kernel's locks. */
static void sweep(const bool *dead)
{
    cbuf__sweep(&handles[2], dead);
}

static void sweeper(void *unused)
{
    bool dead[CBUF_MAX_PRODUCERS] = { false };
    (void)unused;
    dead[0] = checker_wait_end(0);
    if (setting->sweeps_both)
        dead[1] = checker_wait_end(1);
    if (!dead[0] && !dead[1])
        return;
    sweep(dead);
    for (unsigned p = 0; p < PRODUCERS; p++)
        checker_assume(!dead[p] || !cbuf__load_acquire(&handles[p].pen->owned)); /* else again */
    write_rows(2, setting->after, 1);
}

/* A row that a reader got: whole, the same that others got under this number. */
static void check_row(const uint64_t *row, uint64_t sequence)
{
    unsigned name = (unsigned)row[0] >> 4;
    for (uint32_t w = 0; w < model_shape.words; w++) {
        bool narrow = model_shape.shared && w + 1 == model_shape.words;
        uint64_t value = narrow ? (uint32_t)row[w] : row[w];
        checker_note("row %u word %u: %#llx", (unsigned)sequence, w, (unsigned long long)value);
        bool row_is_whole = value == (uint64_t)(name << 4 | w) && name >> 4 <= HANDLES;
        checker_assert(row_is_whole);
    }
    bool same_row_for_all = seen[sequence] == 0 || seen[sequence] == name;
    checker_assert(same_row_for_all);
    for (uint64_t i = 0; i < MODEL_SEQUENCES; i++) {
        bool same_producer = seen[i] != 0 && seen[i] >> 4 == name >> 4;
        bool in_the_producers_order = !same_producer || (i < sequence) == (seen[i] < name);
        if (i != sequence)
            checker_assert(in_the_producers_order);
    }
    seen[sequence] = name;
}

static int64_t read_rows(struct model_reader *r, uint32_t max)
{
    uint64_t rows[MODEL_ROWS * MODEL_WORDS];
    int64_t n = cbuf_read(&r->reader, rows, max);
    checker_assert(n >= 0);
    for (int64_t i = 0; i < n; i++)
        check_row(rows + i * model_shape.words, cbuf_first(&r->reader) + (uint64_t)i);
    r->delivered += (uint64_t)n;
    uint64_t passed = r->reader.cursor - r->start;
    bool all_accounted_for =
        r->delivered + cbuf_lost(&r->reader) + cbuf_skipped(&r->reader) == passed;
    checker_assert(all_accounted_for);
    return n;
}

static void observe(void)
{
    uint64_t rows[MODEL_ROWS * MODEL_WORDS], first, head = cbuf_head(&model_ring);
    for (uint64_t i = cbuf_oldest(&model_ring); i < head; i++) {
        bool rows_below_head_are_there = !cbuf__is_pending(&model_ring, i);
        checker_assert(rows_below_head_are_there);
    }
    int64_t n = cbuf_snapshot(&model_ring, rows, setting->max, &first);
    checker_assert(n >= 0);
    for (int64_t i = 0; i < n; i++)
        check_row(rows + i * model_shape.words, first + (uint64_t)i);
}

static void consume(void *unused)
{
    (void)unused;
    if (setting->registers)
        model_open(&reader, &handles[2], &(cbuf_reader_options){ .start = CBUF_NEWEST });
    reader_is_open = true;
    for (uint32_t i = 0; i < setting->reads; i++) {
        if (setting->observes)
            observe();
        else
            read_rows(&reader, setting->max);
    }
    if (setting->registers) {
        bool nothing_lost = cbuf_lost(&reader.reader) == 0;
        checker_assert(nothing_lost);
    }
}

static void set_up(const void *arguments)
{
    setting = arguments;
    cbuf_options options = { .capacity = setting->capacity, .reserve_step = setting->step,
                             .on_full = setting->on_full, .producers = HANDLES,
                             .in_place = setting->in_place };
    model_make_ring(arguments, &options, (struct model_shape){ 2, !setting->in_place });
    memset(finished, 0, sizeof finished);
    memset(seen, 0, sizeof seen);
    model_join(handles, HANDLES, arguments);
    model_ring = handles[2];
    model_ring.local = &model_ring.in_handle;
    model_ring.wake_at = &model_ring.local->never;
    model_name_words();
    checker_name(&model_ring.file->claim, "claim");
    checker_name(&model_ring.file->aborted, "aborted");
    checker_name(&model_ring.file->pens_high, "pens_high");
    for (unsigned p = 0; p < HANDLES; p++) {
        checker_name(&handles[p].pen->begin, "pen[%u].begin", p);
        checker_name(&handles[p].pen->end, "pen[%u].end", p);
        checker_name(&handles[p].pen->owned, "pen[%u].owned", p);
    }
    write_rows(2, setting->before, 1);
    finished[2] = 0;
    for (unsigned p = 0; p < PRODUCERS; p++)
        cbuf__scan_gates(&handles[p]); /* what they know of room; the next look is theirs */
    model_open(&reader, &handles[2], &(cbuf_reader_options){ .anonymous = true });
    reader_is_open = !setting->registers;
    checker_spawn("first", produce, (void *)0);
    checker_spawn("second", produce, (void *)1);
    if (setting->sweeper)
        checker_spawn("sweeper", sweeper, NULL);
    if (setting->reads)
        checker_spawn("reader", consume, NULL);
}

static void check(const void *unused)
{
    (void)unused;
    bool dead[CBUF_MAX_PRODUCERS] = { checker_killed(0), checker_killed(1) };
    sweep(dead);
    for (unsigned p = 0; p < PRODUCERS; p++) {
        bool the_dead_are_swept_up = !dead[p] || !handles[p].pen->owned;
        checker_assert(the_dead_are_swept_up);
    }
    uint64_t claim = model_ring.file->claim;
    bool all_is_published_or_given_up = cbuf_head(&model_ring) == claim;
    checker_assert(all_is_published_or_given_up);
    while (read_rows(&reader, MODEL_ROWS) > 0) {}
    bool every_row_read_lost_or_skipped = reader.reader.cursor == claim;
    checker_assert(every_row_read_lost_or_skipped);

    unsigned found[HANDLES] = { 0 }, lost = (unsigned)cbuf_lost(&reader.reader);
    for (uint64_t i = 0; i < claim; i++)
        if (seen[i] && !(seen[i] >> 4 == HANDLES && i < setting->before))
            found[(seen[i] >> 4) - 1]++;
    for (unsigned p = 0; p < HANDLES && reader_is_open && !setting->registers; p++) {
        bool what_was_finished_came_or_was_lost = found[p] + lost >= finished[p];
        checker_assert(what_was_finished_came_or_was_lost);
        unsigned most = p < PRODUCERS ? setting->rows[p] : setting->after + setting->before;
        bool nothing_came_twice = found[p] <= most;
        checker_assert(nothing_came_twice);
    }
    if (!dead[0] && !dead[1] && !setting->in_place)
        checker_assert(model_ring.file->aborted == 0);
    checker_assert(cbuf_skipped(&reader.reader) <= model_ring.file->aborted);

    if (setting->on_full == CBUF_OVERWRITE) /* not wedged: a lap can be written and read */
        for (uint64_t i = 0; i < setting->capacity; i++) {
            uint64_t row[MODEL_WORDS];
            fill(row, 2, 8 + (unsigned)i);
            checker_assert(cbuf_write(&handles[2], row) == 1);
            checker_assert(read_rows(&reader, 1) == 1);
        }
}

#define RUN .capacity = 2, .step = 1

static const struct checker_test tests[] = {
    MODEL_CASE("two", RUN, .rows = { 2, 1 }, .before = 1, .reads = 2, .max = 2),
    MODEL_CASE("step-2", .capacity = 4, .step = 2, .rows = { 2, 1 }, .before = 3, .reads = 1,
               .max = 2),
    MODEL_CASE("batches", .capacity = 8, .step = 2, .rows = { 2, 2 }, .batch = 2, .before = 6,
               .reads = 1, .max = 3),
    MODEL_CASE("killed", RUN, .rows = { 2, 1 }, .mortal = { true }, .sweeper = true),
    MODEL_CASE("killed-read", RUN, .rows = { 1, 1 }, .mortal = { true }, .sweeper = true,
               .before = 1, .reads = 1, .max = 2),
    MODEL_CASE("killed-then-a-lap", RUN, .rows = { 1, 1 }, .mortal = { true }, .sweeper = true,
               .after = 2),
    MODEL_CASE("both-killed", RUN, .rows = { 2, 1 }, .mortal = { true, true }, .sweeper = true,
               .sweeps_both = true, .after = 1),
    MODEL_CASE("killed-and-swept-later", RUN, .rows = { 2, 1 }, .mortal = { true, true }),
    MODEL_CASE("batch-meets-a-pen", .capacity = 8, .step = 1, .rows = { 1, 8 }, .batch = 2,
               .before = 7),
    MODEL_CASE("in-place", .capacity = 8, .step = 1, .in_place = true, .rows = { 1, 1 },
               .before = 7, .reads = 2, .max = 2),
    MODEL_CASE("in-place-killed", .capacity = 8, .step = 1, .in_place = true, .rows = { 1, 1 },
               .mortal = { true }, .sweeper = true, .before = 1),
    MODEL_CASE("head", RUN, .rows = { 1, 1 }, .before = 1, .reads = 1, .max = 1, .observes = true),
    MODEL_CASE("head-of-two-rows", RUN, .rows = { 2 }, .reads = 1, .max = 1, .observes = true),
    MODEL_CASE("head-killed", RUN, .rows = { 1, 1 }, .mortal = { true }, .sweeper = true,
               .reads = 1, .max = 2, .observes = true),
    MODEL_CASE("drop", RUN, .on_full = CBUF_DROP_NEWEST, .rows = { 1, 1 }, .before = 1,
               .reads = 1, .max = 2, .registers = true),
    MODEL_CASE("block", RUN, .on_full = CBUF_BLOCK, .rows = { 2, 1 }, .before = 1, .reads = 1,
               .max = 2, .registers = true),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
