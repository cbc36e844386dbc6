/* many_spill.c: an episode of spilling among several producers: one, the mover, logs rows and moves
 * them into the ring, and may be killed before any of its operations; another writes meanwhile, and
 * may be killed too; one sweeps up after the dead; and the next mover, who has got the log's lock,
 * makes whole what the first left, and moves the rest. Every row of the log comes, once, under its
 * number; the other's rows come or are given up; nobody sees a row that is not there.
 *
 * The log is an array here: only who has its lock touches it, which the end of a thread hands over.
 */
#define CBUF_NO_OS
#include "model_ring.h"

enum { HANDLES = 3, MOVER = 0, WRITER = 1, NEXT = 2 };

struct setting {
    uint32_t capacity, before; /* rows; and in the ring at the start */
    uint32_t logs, moves, at_once; /* rows: of the log; that the first mover moves; in one step */
    uint32_t writes;           /* rows, of the other producer, one by one */
    uint32_t most;             /* rows of the writer's that there is room for as far as it knows */
    bool mortal[2];
    bool sweeps, goes_on;      /* threads: one that sweeps; the next mover */
    uint32_t reads, max;
    bool observes;
};

static const struct setting *setting;
static cbuf_ring handles[HANDLES + 1]; /* the last one sweeps */
static struct model_reader reader;
static uint64_t logged_from, logged_end; /* numbers of the rows in the log */
static unsigned finished;                /* rows of the writer's that were taken */
static unsigned seen[MODEL_SEQUENCES];

/* Word W of the Nth row of producer P; of the log, N is the row's number. */
static uint64_t value_of(unsigned p, uint64_t n, uint32_t w) { return (p + 1) << 8 | n << 4 | w; }
static void fill(uint64_t *row, unsigned p, uint64_t n)
{
    for (uint32_t w = 0; w < model_shape.words; w++)
        row[w] = value_of(p, n, w);
}

/* Moves up to `rows` rows of the log, as far as there is room; ends the episode if that was all. */
static void move(cbuf_ring *ring, uint32_t rows, uint32_t at_once)
{
    uint64_t some[MODEL_ROWS * MODEL_WORDS];
    while (ring->next < logged_end && rows > 0) {
        uint64_t n = logged_end - ring->next < at_once ? logged_end - ring->next : at_once;
        if (ring->limit < ring->next + n)
            cbuf__scan_gates(ring);
        checker_assume(ring->limit >= ring->next + n); /* else later */
        for (uint64_t i = 0; i < n; i++)
            fill(some + i * model_shape.words, MOVER, ring->next + i);
        const void *bytes = some;
        cbuf__write_spilled(ring, bytes, n);
        rows -= (uint32_t)n;
    }
    if (ring->next == logged_end)
        cbuf__spill_end(ring);
}
static void first_mover(void *unused)
{
    (void)unused;
    checker_set_mortal(setting->mortal[MOVER]);
    cbuf__spill_begin(&handles[MOVER]);
    logged_from = handles[MOVER].next;
    logged_end = logged_from + setting->logs;
    move(&handles[MOVER], setting->moves, setting->at_once);
}
static void writer(void *unused)
{
    uint64_t row[MODEL_WORDS];
    (void)unused;
    checker_set_mortal(setting->mortal[WRITER]);
    for (uint32_t i = 0; i < setting->writes; i++) {
        fill(row, WRITER, i);
        int written = cbuf_write(&handles[WRITER], row);
        checker_assert(written == 1 || written == CBUF_ENOSPILL);
        if (written < 0)
            return;
        finished++;
    }
}

/* What cbuf_log__go_on does with the log's lock. */
static void go_on(cbuf_ring *ring)
{
    uint64_t claim = cbuf__load_relaxed(&ring->file->claim);
    if (!(claim & CBUF__SPILLING))
        return;
    ring->next = claim & ~CBUF__SPILLING;
    for (uint64_t i = cbuf__load_relaxed(&ring->file->spill_from); i < ring->next; i++) {
        uint64_t row[MODEL_WORDS];
        const void *bytes = row;
        bool it_is_in_the_log = i >= logged_from && i < logged_end;
        if (cbuf__is_pending(ring, i))
            checker_assert(it_is_in_the_log);
        fill(row, MOVER, i);
        cbuf__write_again(ring, i, bytes);
    }
    if (logged_end < ring->next)
        logged_from = logged_end = ring->next; /* it died before it logged */
    move(ring, UINT32_MAX, 1);
}
static void next_mover(void *unused)
{
    bool dead[CBUF_MAX_PRODUCERS] = { false };
    (void)unused;
    dead[MOVER] = checker_wait_end(MOVER);
    go_on(&handles[NEXT]);
    if (dead[MOVER])
        cbuf__sweep(&handles[NEXT], dead);
}
static void sweeper(void *unused)
{
    bool dead[CBUF_MAX_PRODUCERS] = { false };
    (void)unused;
    dead[MOVER] = checker_wait_end(MOVER);
    if (setting->mortal[WRITER])
        dead[WRITER] = checker_wait_end(WRITER);
    if (dead[MOVER] || dead[WRITER])
        cbuf__sweep(&handles[HANDLES], dead);
}

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
    bool under_its_number = name >> 4 != MOVER + 1 || (name & 15) == sequence;
    checker_assert(under_its_number);
    bool same_row_for_all = seen[sequence] == 0 || seen[sequence] == name;
    checker_assert(same_row_for_all);
    seen[sequence] = name;
}
static int64_t read_rows(uint32_t max)
{
    uint64_t rows[MODEL_ROWS * MODEL_WORDS];
    int64_t n = cbuf_read(&reader.reader, rows, max);
    checker_assert(n >= 0);
    for (int64_t i = 0; i < n; i++)
        check_row(rows + i * model_shape.words, cbuf_first(&reader.reader) + (uint64_t)i);
    return n;
}
static void consume(void *unused)
{
    (void)unused;
    for (uint32_t k = 0; k < setting->reads; k++) {
        if (!setting->observes) {
            read_rows(setting->max);
            continue;
        }
        uint64_t head = cbuf_head(&model_ring);
        for (uint64_t i = cbuf_oldest(&model_ring); i < head; i++) {
            bool rows_below_head_are_there = !cbuf__is_pending(&model_ring, i);
            checker_assert(rows_below_head_are_there);
        }
    }
}

static void set_up(const void *arguments)
{
    setting = arguments;
    cbuf_options options = { .capacity = setting->capacity, .reserve_step = 1,
                             .on_full = CBUF_SPILL, .producers = HANDLES };
    model_make_ring(arguments, &options, (struct model_shape){ 2, true });
    memset(seen, 0, sizeof seen);
    logged_from = logged_end = finished = 0;
    model_join(handles, HANDLES, arguments);
    handles[HANDLES] = handles[NEXT];
    handles[HANDLES].local = &handles[HANDLES].in_handle;
    handles[HANDLES].wake_at = &handles[HANDLES].local->never;
    model_ring = handles[HANDLES];
    model_ring.local = &model_ring.in_handle;
    model_ring.wake_at = &model_ring.local->never;
    model_name_words();
    checker_name(&model_ring.file->claim, "claim");
    checker_name(&model_ring.file->spill_from, "spill_from");
    checker_name(&model_ring.file->spill_end, "spill_end");
    checker_name(&model_ring.file->aborted, "aborted");
    for (unsigned p = 0; p < HANDLES; p++) {
        checker_name(&handles[p].pen->begin, "pen[%u].begin", p);
        checker_name(&handles[p].pen->end, "pen[%u].end", p);
        checker_name(&handles[p].pen->owned, "pen[%u].owned", p);
    }
    for (uint32_t i = 0; i < setting->before; i++) {
        uint64_t row[MODEL_WORDS];
        fill(row, NEXT, i);
        checker_assert(cbuf_write(&handles[NEXT], row) == 1);
    }
    for (unsigned p = 0; p <= HANDLES; p++)
        cbuf__scan_gates(&handles[p]); /* what they know of room */
    handles[WRITER].limit = setting->before + setting->most;
    model_open(&reader, &handles[HANDLES], &(cbuf_reader_options){ .anonymous = true });
    checker_spawn("mover", first_mover, NULL);
    checker_spawn("writer", writer, NULL);
    if (setting->sweeps)
        checker_spawn("sweeper", sweeper, NULL);
    if (setting->goes_on)
        checker_spawn("next", next_mover, NULL);
    if (setting->reads)
        checker_spawn("reader", consume, NULL);
}

static void check(const void *unused)
{
    (void)unused;
    bool dead[CBUF_MAX_PRODUCERS] = { checker_killed(MOVER), checker_killed(WRITER) };
    cbuf_ring *ring = &handles[NEXT];
    go_on(ring);
    cbuf__sweep(ring, dead);
    for (unsigned p = 0; p < NEXT; p++) {
        bool the_dead_are_swept_up = !dead[p] || !handles[p].pen->owned;
        checker_assert(the_dead_are_swept_up);
    }
    uint64_t claim = model_ring.file->claim;
    bool the_episode_is_over = !(claim & CBUF__SPILLING);
    checker_assert(the_episode_is_over);
    bool all_is_published_or_given_up = cbuf_head(&model_ring) == claim;
    checker_assert(all_is_published_or_given_up);
    for (uint64_t i = logged_from; i < logged_end; i++) {
        bool what_is_in_the_log_is_not_given_up = !cbuf__is_aborted(&model_ring, i);
        checker_assert(what_is_in_the_log_is_not_given_up);
    }
    while (read_rows(MODEL_ROWS) > 0) {}
    bool every_row_read_lost_or_skipped = reader.reader.cursor == claim;
    checker_assert(every_row_read_lost_or_skipped);
    unsigned found = 0;
    for (uint64_t i = 0; i < claim; i++) {
        bool the_logs = i >= logged_from && i < logged_end;
        bool from_the_log = seen[i] >> 4 == MOVER + 1;
        bool logged_rows_and_no_others_came = !seen[i] || the_logs == from_the_log;
        checker_assert(logged_rows_and_no_others_came);
        found += seen[i] >> 4 == WRITER + 1;
    }
    bool what_was_taken_came = found + cbuf_lost(&reader.reader) >= finished;
    checker_assert(what_was_taken_came);
}

#define BASIC .capacity = 4, .logs = 3, .at_once = 2
#define SMALL .capacity = 4, .logs = 2, .moves = 2, .at_once = 2

static const struct checker_test tests[] = {
    MODEL_CASE("begins-against-claims", BASIC, .moves = 3, .writes = 2, .most = 2),
    MODEL_CASE("read", SMALL, .writes = 2, .most = 2, .reads = 2, .max = 3),
    MODEL_CASE("head", SMALL, .writes = 1, .most = 1, .reads = 1, .observes = true),
    MODEL_CASE("handed-over", BASIC, .moves = 1, .writes = 2, .most = 1, .goes_on = true),
    MODEL_CASE("handed-over-and-read", .capacity = 2, .before = 1, .logs = 2, .moves = 1,
               .at_once = 1, .goes_on = true, .reads = 1, .max = 2),
    MODEL_CASE("killed", BASIC, .moves = 3, .mortal = { true }, .writes = 2, .most = 2,
               .goes_on = true),
    MODEL_CASE("killed-and-swept", SMALL, .mortal = { true }, .sweeps = true, .goes_on = true,
               .writes = 1, .most = 1),
    MODEL_CASE("swept-before-anybody-goes-on", BASIC, .moves = 3, .mortal = { true }, .writes = 2,
               .most = 2, .sweeps = true),
    MODEL_CASE("both-killed", SMALL, .mortal = { true, true }, .writes = 2, .most = 2,
               .sweeps = true),
    MODEL_CASE("killed-and-read", .capacity = 2, .before = 2, .logs = 2, .moves = 2, .at_once = 1,
               .mortal = { true }, .goes_on = true, .reads = 1, .max = 2),
    MODEL_CASE("killed-swept-and-read", .capacity = 4, .before = 1, .logs = 2, .moves = 2,
               .at_once = 2, .mortal = { true }, .sweeps = true, .goes_on = true, .reads = 1,
               .max = 2),
    MODEL_CASE("killed-and-observed", .capacity = 4, .logs = 2, .moves = 2, .at_once = 2,
               .mortal = { true }, .sweeps = true, .reads = 1, .observes = true),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
