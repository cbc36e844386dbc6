/* pingpong.h - one row there and one back over two channels: the round trip in ns. Needs CAN_STREAM. */

INLINE void pingpong_send(struct producer *p, uint64_t i)
{
    row r;
    row_fill(&r, i);
    while (push(p, &r, 1) == 0) {}
}

INLINE void pingpong_receive(struct consumer *c, uint64_t i)
{
    row r;
    tally t = { 0, 0, 0 };
    while (pop(c, &r, 1) == 0) {}
    row_take(&t, &r, i);
    if (t.wrong) die("round trip", "a row is missing");
}

enum { PINGPONG_LAST = 1 << 30 }; /* the row that ends the run */

static void pingpong_side(int side)
{
    static struct { struct producer p; unsigned char apart[LINE]; struct consumer c; } ends[2] __attribute__((aligned(LINE)));
    struct producer *p = &ends[side].p;
    struct consumer *c = &ends[side].c;
    struct side *s = &control->sides[side];
    producer_open(p, &shared[side]);
    opened();
    open_turn(2);
    consumer_open(c, &shared[1 - side]);
    start_together(2);
    uint64_t i = 0, deadline = deadline_in_ticks(), late = deadline + 20 * (deadline - ticks());
    side_begin(s);
    if (side == 0) {
        for (; ticks() < deadline || (i < 20000 && ticks() < late); i++) {
            uint64_t sent = ticks();
            pingpong_send(p, i);
            pingpong_receive(c, i);
            uint64_t took = ticks() - sent;
            if (i >= 2000) histogram_add(&control->latency, took);
        }
        pingpong_send(p, PINGPONG_LAST);
    } else {
        for (;; i++) {
            row r;
            while (pop(c, &r, 1) == 0) {}
            if (r.time == PINGPONG_LAST) break;
            pingpong_send(p, (uint64_t)r.time);
        }
    }
    side_end(s);
    producer_close(p);
    consumer_close(c);
}

static void pingpong_run(void)
{
    run_sides(2, pingpong_side);
    report_latency();
    report_disturbance(2);
}
