/*
 * log.h - what a row costs its producer when it goes to a file: spilled because the ring is full, moved back into the ring,
 * logged before it is published. For cbuf.c alone, by its own calls; bare.c has write(2) of the same bytes. Needs CAN_LOG.
 *
 * The file is in TMPDIR, or /tmp: on whatever is mounted there.
 */
#include <fcntl.h>
enum { LOG_PLAIN, LOG_SPILL, LOG_DRAIN, LOG_EVERY_ROW, LOG_SYNC };

UNUSED static const char *log_path(void)
{
    static char path[200];
    const char *directory = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/cbuf_bench_%d_log", directory && *directory == '/' ? directory : "/tmp", (int)getpid());
    return path;
}

#ifdef CAN_LOG
static struct { cbuf_ring ring; cbuf_log log; cbuf_reader reader; } logged;

static void log_setup(void)
{
    bool spills = setup.mode == LOG_SPILL || setup.mode == LOG_DRAIN;
    cbuf_options ring = shared->options;
    cbuf_log_options log = { .path = log_path(), .every_row = !spills, .max_bytes = 8ull << 30,
        .sync_ns = setup.mode == LOG_SYNC ? 10000000 : CBUF_FOREVER };
    ring.on_full = spills ? CBUF_SPILL : CBUF_OVERWRITE;
    if (cbuf_create(&logged.ring, &ring) < 0) die("cbuf_create", cbuf_error(&logged.ring));
    if (setup.mode != LOG_PLAIN && cbuf_log_open(&logged.log, &logged.ring, &log) < 0) die("cbuf_log_open", cbuf_log_error(&logged.log));
    if (spills && cbuf_reader_open(&logged.reader, &logged.ring, NULL) < 0) die("cbuf_reader_open", "failed");
}
INLINE uint64_t log_some(uint64_t i, const int batch)
{
    row rows[256];
    for (int k = 0; k < batch; k++) row_fill(&rows[k], i + (uint64_t)k);
    int64_t n = batch == 1 ? row_write(&logged.ring, rows) : row_write_n(&logged.ring, rows, (uint64_t)batch);
    if (n != batch) die("cbuf_write", cbuf_strerror(n));
    return i + (uint64_t)n;
}

/* Writes for a while, with nobody reading. */
static void log_write(struct side *s)
{
    uint64_t i = 0;
    while (i < 2 * setup.capacity) i = log_some(i, setup.batch);
    s->begin_rows = i;
    side_begin(s);
    uint64_t deadline = deadline_in_ticks();
    struct window window;
    window_begin(&window, i);
    do {
        for (uint64_t until = i + WINDOW_ROWS; i < until;) i = log_some(i, setup.batch);
        window_pass(&window, i);
    } while (ticks() < deadline);
    side_end(s);
    report_rate((double)(i - s->begin_rows), (double)(s->end_ns - s->begin_ns), true);
}

/* What was spilled goes back, a quarter of the ring at a time; only that is timed. */
static void log_drain(struct side *s)
{
    static row rows[16384];
    uint64_t i = 0, spent = 0, deadline = deadline_in_ticks();
    while (ticks() < deadline) i = log_some(i, setup.batch);
    uint64_t before = cbuf_head(&logged.ring), next = 0;
    side_begin(s);
    for (int drained = 0; !drained;) {
        int64_t n = row_read(&logged.reader, rows, sizeof rows / sizeof *rows);
        for (int64_t k = 0; k < n; k++, next++)
            if (!row_whole(&rows[k]) || (uint64_t)rows[k].time != next) die("drain", "a row is wrong");
        uint64_t began = ticks();
        drained = cbuf_log_drain(&logged.log, 0);
        spent += ticks() - began;
        if (drained < 0) die("cbuf_log_drain", cbuf_strerror(drained));
    }
    side_end(s);
    double moved = (double)(cbuf_head(&logged.ring) - before);
    if (moved < 1) die("drain", "nothing was spilled");
    report("ns_per_row", (double)spent * control->ns_per_tick / moved);
}

static void log_run(void)
{
    struct side *s = &control->sides[0];
    log_setup();
    if (setup.mode == LOG_DRAIN) log_drain(s);
    else log_write(s);
    report_disturbance(1);
    cbuf_reader_close(&logged.reader);
    cbuf_log_close(&logged.log);
    cbuf_close(&logged.ring);
    unlink(log_path());
}
#endif
