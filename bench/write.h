/* write.h - nobody reads: what a row costs its producer, in calls of `batch` rows. Needs CAN_WRITE. */

/* Rows are filled field by field, in the caller's memory and then pushed, or in place. */
INLINE uint64_t write_some(struct producer *p, uint64_t i, const int batch, const bool in_place)
{
    if (in_place) {
#ifdef CAN_IN_PLACE
        void *base;
        int n = claim(p, batch, &base);
        for (int k = 0; k < n; k++) row_fill(row_at(p, base, k), i + (uint64_t)k);
        if (n) publish(p, n);
        return i + (uint64_t)n;
#endif
    }
    row rows[256];
    for (int k = 0; k < batch; k++) row_fill(&rows[k], i + (uint64_t)k);
    return i + (uint64_t)push(p, rows, batch);
}

INLINE void write_loop(struct producer *p, struct side *s, const int batch, const bool in_place)
{
    uint64_t i = 0, warm = 2 * setup.capacity < 1u << 22 ? 2 * setup.capacity : 1u << 22;
    while (i < warm) i = write_some(p, i, batch, in_place);
    s->begin_rows = i;
    side_begin(s);
    uint64_t deadline = deadline_in_ticks();
    struct window window;
    window_begin(&window, i);
    do {
        for (uint64_t until = i + WINDOW_ROWS; i < until;) i = write_some(p, i, batch, in_place);
        window_pass(&window, i);
    } while (ticks() < deadline);
    side_end(s);
    s->tally.rows = i;
}

static void write_side(int side)
{
    static struct producer p __attribute__((aligned(LINE)));
    struct side *s = &control->sides[side];
    producer_open(&p, &shared[0]);
    if (setup.batch == 1 && !setup.in_place) write_loop(&p, s, 1, false);
    else if (setup.batch == 32 && !setup.in_place) write_loop(&p, s, 32, false);
    else if (setup.batch == 256 && !setup.in_place) write_loop(&p, s, 256, false);
    else if (setup.batch == 1) write_loop(&p, s, 1, true);
    else if (setup.batch == 32) write_loop(&p, s, 32, true);
    else if (setup.batch == 256) write_loop(&p, s, 256, true);
    else die("batch", "1, 32 or 256");
    producer_close(&p);
}

static void write_run(void)
{
    run_sides(1, write_side);
    struct side *s = &control->sides[0];
    report_rate((double)(s->tally.rows - s->begin_rows), (double)(s->end_ns - s->begin_ns), true);
    report_disturbance(1);
}
