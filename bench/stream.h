/*
 * stream.h - one producer to one consumer, or to several that each get all; nothing lost: rows a second. Needs CAN_STREAM,
 * and CAN_READERS for several, and CAN_SLEEP for a consumer that sleeps when there is nothing to read.
 *
 * The producer fills rows field by field and sends them `batch` a call; the consumer takes up to `max` a call, checks that
 * none is missing, and adds a field up. Time is the first consumer's, from two laps after the start (the ring is warm, and full if
 * it ever fills) to the last row.
 */

INLINE uint64_t stream_send(struct producer *p, uint64_t i, const int batch, const bool in_place)
{
    if (in_place) {
#ifdef CAN_IN_PLACE
        void *base;
        int n = claim(p, batch, &base);
        for (int k = 0; k < n; k++) row_fill(row_at(p, base, k), i + (uint64_t)k);
        if (n) publish(p, n);
        else idle(&setup);
        return i + (uint64_t)n;
#endif
    }
    row rows[256];
    for (int k = 0; k < batch; k++) row_fill(&rows[k], i + (uint64_t)k);
    for (int done = 0; done < batch;) {
        int n = push(p, rows + done, batch - done);
        if (!n) idle(&setup);
        done += n;
    }
    return i + (uint64_t)batch;
}

INLINE void stream_producer(struct producer *p, struct side *s, const int batch, const bool in_place)
{
    uint64_t i = 0, deadline = deadline_in_ticks();
    side_begin(s);
    do
        for (uint64_t until = i + 1024; i < until;) i = stream_send(p, i, batch, in_place);
    while (ticks() < deadline || i < 4 * setup.capacity);
    __atomic_store_n(&control->total, i, __ATOMIC_RELEASE);
    side_end(s);
}

INLINE int stream_take(struct consumer *c, tally *t, const int max, const bool in_place)
{
    if (in_place) {
#ifdef CAN_IN_PLACE
        const void *base;
        tally saw = *t;
        int n = peek(c, max, &base);
        if (!n) return 0;
        for (int k = 0; k < n; k++) row_take(&saw, row_at(c, (void *)base, k), saw.rows + (uint64_t)k);
        saw.rows += (uint64_t)n;
        if (!release(c, n)) saw.wrong = ~0ull;
        *t = saw;
        return n;
#endif
    }
    row rows[256];
#ifdef CAN_SLEEP
    int n = setup.sleeping ? pop_wait(c, rows, max) : pop(c, rows, max);
#else
    int n = pop(c, rows, max);
#endif
    for (int k = 0; k < n; k++) row_take(t, &rows[k], t->rows + (uint64_t)k);
    t->rows += (uint64_t)n;
    return n;
}

INLINE void stream_consumer(struct consumer *c, struct side *s, const int max, const bool in_place)
{
    bool windows = s == &control->sides[1]; /* one thread fills the histogram */
    tally t = { 0, 0, 0 };
    uint64_t warm = 2 * setup.capacity;
    side_begin(s);
    while (t.rows < warm)
        if (!stream_take(c, &t, max, in_place)) idle(&setup);
    s->begin_rows = t.rows;
    side_begin(s);
    struct window window;
    window_begin(&window, t.rows);
    for (;;) {
        if (stream_take(c, &t, max, in_place)) {
            if (windows) window_pass(&window, t.rows);
            continue;
        }
        uint64_t total = __atomic_load_n(&control->total, __ATOMIC_ACQUIRE);
        if (total && total == t.rows) break;
        idle(&setup);
    }
    side_end(s);
    s->tally = t;
}

static void stream_side(int side)
{
    struct side *s = &control->sides[side];
    uint32_t sides = 1 + (uint32_t)setup.readers;
    if (side == 0) {
        static struct producer p __attribute__((aligned(LINE)));
        producer_open(&p, &shared[0]);
        opened();
        start_together(sides);
        if (setup.batch == 1 && !setup.in_place) stream_producer(&p, s, 1, false);
        else if (setup.batch == 32 && !setup.in_place) stream_producer(&p, s, 32, false);
        else if (setup.batch == 256 && !setup.in_place) stream_producer(&p, s, 256, false);
        else if (setup.batch == 1) stream_producer(&p, s, 1, true);
        else if (setup.batch == 32) stream_producer(&p, s, 32, true);
        else if (setup.batch == 256) stream_producer(&p, s, 256, true);
        else die("batch", "1, 32 or 256");
        producer_close(&p);
    } else {
        static struct { struct consumer c; unsigned char apart[LINE]; } consumers[MAX_SIDES] __attribute__((aligned(LINE)));
        struct consumer *c = &consumers[side].c;
        open_turn((uint32_t)side);
        consumer_open(c, &shared[0]);
        opened();
        start_together(sides);
        if (setup.max == 1 && !setup.in_place) stream_consumer(c, s, 1, false);
        else if (setup.max == 32 && !setup.in_place) stream_consumer(c, s, 32, false);
        else if (setup.max == 256 && !setup.in_place) stream_consumer(c, s, 256, false);
        else if (setup.max == 1) stream_consumer(c, s, 1, true);
        else if (setup.max == 32) stream_consumer(c, s, 32, true);
        else if (setup.max == 256) stream_consumer(c, s, 256, true);
        else die("max", "1, 32 or 256");
        consumer_close(c);
    }
}

static void stream_run(void)
{
    run_sides(1 + setup.readers, stream_side);
    struct side *s = &control->sides[1];
    uint64_t rows = s->tally.rows, sum = 0;
    for (uint64_t i = 0; i < rows; i++) sum += (uint32_t)i;
    for (int k = 1; k <= setup.readers; k++) {
        tally *t = &control->sides[k].tally;
        if (t->wrong || t->sum != sum || t->rows != rows) die("stream", "rows are missing, repeated or damaged");
    }
    report_rate((double)(rows - s->begin_rows), (double)(s->end_ns - s->begin_ns), false);
    if (!setup.sleeping) report_disturbance(1 + setup.readers);
}
