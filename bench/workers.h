/* workers.h - one producer, and `readers` workers that share its rows, each row to one of them: rows a second of all together.
 * Needs CAN_GROUPS. */

static void workers_take(struct worker *w, struct side *s)
{
    row rows[256];
    tally t = { 0, 0, 0 };
    uint64_t next = 0;
    side_begin(s);
    for (;;) {
        bool all_sent = __atomic_load_n(&control->total, __ATOMIC_ACQUIRE) != 0;
        int n = worker_take(w, rows, setup.max);
        for (int k = 0; k < n; k++) {
            uint64_t number = (uint64_t)rows[k].time;
            t.wrong |= number < next || !row_whole(&rows[k]);
            t.sum += number;
            next = number + 1;
        }
        t.rows += (uint64_t)n;
        if (n) continue;
        if (all_sent) break; /* and what was sent was there before this look */
        idle(&setup);
    }
    side_end(s);
    s->tally = t;
}

static void workers_side(int side)
{
    struct side *s = &control->sides[side];
    uint32_t sides = 1 + (uint32_t)setup.readers;
    if (side == 0) {
        static struct producer p __attribute__((aligned(LINE)));
        producer_open(&p, &shared[0]);
        opened();
        start_together(sides);
        if (setup.batch == 1) stream_producer(&p, s, 1, false);
        else if (setup.batch == 32) stream_producer(&p, s, 32, false);
        else die("batch", "1 or 32");
        producer_close(&p);
    } else {
        static struct { struct worker w; unsigned char apart[LINE]; } workers[MAX_SIDES] __attribute__((aligned(LINE)));
        struct worker *w = &workers[side].w;
        open_turn((uint32_t)side);
        worker_open(w, &shared[0]);
        opened();
        start_together(sides);
        workers_take(w, s);
        worker_close(w);
    }
}

static void workers_run(void)
{
    run_sides(1 + setup.readers, workers_side);
    uint64_t rows = control->total, sum = 0, taken = 0, wrong = 0, end = 0;
    for (int k = 1; k <= setup.readers; k++) {
        struct side *s = &control->sides[k];
        taken += s->tally.rows, sum += s->tally.sum, wrong |= s->tally.wrong;
        if (s->end_ns > end) end = s->end_ns;
    }
    if (wrong || taken != rows || sum != rows / 2 * (rows - 1)) /* rows is even */
        die("workers", "rows are missing, given out twice or damaged");
    report("Mrows_per_s", 1e3 * (double)rows / (double)(end - control->sides[1].begin_ns));
    report_disturbance(1 + setup.readers);
}
