/*
 * free.h - a producer that waits for nobody, and `readers` consumers that get what they can. Needs CAN_FREE.
 *
 * Every row that a consumer gets is checked to be whole and newer than the one before; what it got and what it was told it
 * lost must add up to what was written. Its cost is the producer's, and the part of the rows that arrived is the consumers'.
 */

INLINE void free_producer(struct producer *p, struct side *s, const int batch)
{
    uint64_t i = 0;
    side_begin(s);
    uint64_t deadline = deadline_in_ticks();
    struct window window;
    window_begin(&window, 0);
    do {
        for (uint64_t until = i + WINDOW_ROWS; i < until;) i = write_some(p, i, batch, false);
        window_pass(&window, i);
    } while (ticks() < deadline);
    side_end(s);
    s->tally.rows = i;
    __atomic_store_n(&control->total, i, __ATOMIC_RELEASE);
}

static void free_consumer(struct consumer *c, struct side *s)
{
    static __thread row rows[256];
    uint64_t next = 0, got = 0, wrong = 0;
    side_begin(s);
    for (;;) {
        int n = pop(c, rows, 256);
        for (int k = 0; k < n; k++) {
            uint64_t sequence = (uint64_t)rows[k].time;
            wrong += !row_whole(&rows[k]) || sequence < next;
            next = sequence + 1;
        }
        got += (uint64_t)n;
        if (n) continue;
        uint64_t total = __atomic_load_n(&control->total, __ATOMIC_ACQUIRE);
        if (total && got + consumer_lost(c) >= total) break;
        idle(&setup);
    }
    side_end(s);
    s->tally.rows = got;
    s->tally.wrong = wrong;
    s->lost = consumer_lost(c);
}

static void free_side(int side)
{
    struct side *s = &control->sides[side];
    uint32_t sides = 1 + (uint32_t)setup.readers;
    if (side == 0) {
        static struct producer p __attribute__((aligned(LINE)));
        producer_open(&p, &shared[0]);
        opened();
        start_together(sides);
        if (setup.batch == 1) free_producer(&p, s, 1);
        else if (setup.batch == 32) free_producer(&p, s, 32);
        else if (setup.batch == 256) free_producer(&p, s, 256);
        else die("batch", "1, 32 or 256");
        producer_close(&p);
    } else {
        static struct { struct consumer c; unsigned char apart[LINE]; } consumers[MAX_SIDES] __attribute__((aligned(LINE)));
        struct consumer *c = &consumers[side].c;
        open_turn((uint32_t)side);
        consumer_open(c, &shared[0]);
        opened();
        start_together(sides);
        free_consumer(c, s);
        consumer_close(c);
    }
}

static void free_run(void)
{
    run_sides(1 + setup.readers, free_side);
    struct side *s = &control->sides[0];
    uint64_t total = s->tally.rows, got = 0, lost = 0, torn = 0;
    for (int k = 1; k <= setup.readers; k++) {
        struct side *reader = &control->sides[k];
        if (reader->tally.rows + reader->lost != total) die("free", "read + lost is not what was written");
        got += reader->tally.rows, lost += reader->lost, torn += reader->tally.wrong;
    }
    setup.yield = false; /* the producer has a processor of its own */
    report_rate((double)total, (double)(s->end_ns - s->begin_ns), true);
    report("delivered_percent", 100 * (double)got / (double)total / setup.readers);
    report("lost_percent", 100 * (double)lost / (double)total / setup.readers);
    report("torn", (double)torn);
    report("delivered_Mrows_per_s", 1e3 * (double)got / (double)(s->end_ns - s->begin_ns));
    report_disturbance(setup.readers == 1 ? 2 : 1); /* several readers may share processors */
    if (torn) die("free", "torn rows");
}
