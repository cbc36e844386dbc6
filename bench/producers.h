/* producers.h - several producers to one consumer, nothing lost: rows a second. Needs CAN_PRODUCERS. */

enum { PRODUCER_SHIFT = 40 }; /* a row's number: its producer's above, its own below */

INLINE void producers_send(struct producer *p, struct side *s, uint64_t producer, const int batch)
{
    row rows[256];
    uint64_t i = 0, deadline = deadline_in_ticks();
    do {
        for (int k = 0; k < batch; k++) row_fill(&rows[k], producer << PRODUCER_SHIFT | (i + (uint64_t)k));
        for (int done = 0; done < batch;) {
            int n = push_many(p, rows + done, batch - done);
            if (!n) idle(&setup);
            done += n;
        }
        i += (uint64_t)batch;
    } while (i % 1024 || ticks() < deadline);
    s->tally.rows = i;
    __atomic_fetch_add(&control->total, 1, __ATOMIC_RELEASE); /* producers that are done */
}

static void producers_receive(struct consumer *c, struct side *s)
{
    row rows[256];
    uint64_t expected[MAX_SIDES] = { 0 }, wrong = 0, got = 0, producers = (uint64_t)setup.producers;
    int max = setup.max;
    struct window window;
    side_begin(s);
    window_begin(&window, 0);
    for (;;) {
        bool all_sent = __atomic_load_n(&control->total, __ATOMIC_ACQUIRE) == producers;
        int n = pop(c, rows, max);
        for (int k = 0; k < n; k++) {
            uint64_t number = (uint64_t)rows[k].time, producer = number >> PRODUCER_SHIFT;
            if (producer >= producers) die("producers", "a damaged row");
            wrong |= (number & ((1ull << PRODUCER_SHIFT) - 1)) ^ expected[producer]++;
        }
        got += (uint64_t)n;
        window_pass(&window, got);
        if (n) continue;
        if (all_sent) break; /* and what they sent was there before this look */
        idle(&setup);
    }
    side_end(s);
    s->tally.rows = got;
    s->tally.wrong = wrong;
}

static void producers_side(int side)
{
    struct side *s = &control->sides[side];
    uint32_t sides = 1 + (uint32_t)setup.producers;
    if (side < setup.producers) {
        static struct { struct producer p; unsigned char apart[LINE]; } producers[MAX_SIDES] __attribute__((aligned(LINE)));
        struct producer *p = &producers[side].p;
        open_turn((uint32_t)side);
        producer_open(p, &shared[0]);
        opened();
        start_together(sides);
        if (setup.batch == 1) producers_send(p, s, (uint64_t)side, 1);
        else if (setup.batch == 32) producers_send(p, s, (uint64_t)side, 32);
        else die("batch", "1 or 32");
        producer_close(p);
    } else {
        static struct consumer c __attribute__((aligned(LINE)));
        open_turn((uint32_t)setup.producers);
        consumer_open(&c, &shared[0]);
        start_together(sides);
        producers_receive(&c, s);
        consumer_close(&c);
    }
}

static void producers_run(void)
{
    run_sides(1 + setup.producers, producers_side);
    struct side *s = &control->sides[setup.producers];
    uint64_t sent = 0;
    for (int k = 0; k < setup.producers; k++) sent += control->sides[k].tally.rows;
    if (s->tally.wrong || s->tally.rows != sent) die("producers", "rows are missing, repeated or out of order");
    report_rate((double)s->tally.rows, (double)(s->end_ns - s->begin_ns), false);
    report_disturbance(1 + setup.producers);
}
