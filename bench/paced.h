/*
 * paced.h - one row every `interval` ns: how long after it was due the consumer has it. Needs CAN_STREAM, or CAN_SLEEP.
 *
 * Counted from when the row was due, not from when it was sent, so that a producer which is held up cannot hide it. The clocks
 * of the processors are taken to be one, as those of a machine with an invariant time stamp counter are.
 */

#include <linux/futex.h>
#include <sys/syscall.h>

enum { PACED_WARM = 1000 }; /* rows before the first that counts, if nobody sleeps */

struct pace {
    uint64_t due, step, end;
};
INLINE struct pace pace_begin(void)
{
    struct pace pace;
    pace.step = (uint64_t)(setup.interval_ns / control->ns_per_tick);
    pace.due = ticks() + 10 * pace.step;
    pace.end = deadline_in_ticks();
    return pace;
}
/* Waits for the next row's time, and returns it; 0 at the end. */
INLINE uint64_t pace_next(struct pace *pace)
{
    if (pace->due > pace->end) return 0;
    pace->due += pace->step;
    while (ticks() < pace->due) {}
    return pace->due;
}
INLINE uint64_t elapsed_since(uint64_t due)
{
    uint64_t now = ticks();
    return now > due ? now - due : 0;
}

/* The median of costs[k], in units of so many ns. */
UNUSED static void report_cost(const char *metric, int k, double unit_ns)
{
    if (control->costs[k].total) report(metric, histogram_at(&control->costs[k], .5) * control->ns_per_tick / unit_ns);
}

#if defined CAN_STREAM || defined CAN_SLEEP
INLINE int paced_take(struct consumer *c, row *r)
{
#if defined CAN_SLEEP && defined CAN_STREAM
    return setup.sleeping ? pop_wait(c, r, 1) : pop(c, r, 1);
#elif defined CAN_SLEEP
    return pop_wait(c, r, 1);
#else
    return pop(c, r, 1);
#endif
}

static void paced_side(int side)
{
    struct side *s = &control->sides[side];
    if (side == 0) {
        static struct producer p __attribute__((aligned(LINE)));
        producer_open(&p, &shared[0]);
        opened();
        start_together(2);
        side_begin(s);
        struct pace pace = pace_begin();
        uint64_t due;
        do {
            row r;
            due = pace_next(&pace);
            row_fill(&r, due);
            uint64_t began = ticks();
            while (push(&p, &r, 1) == 0) {}
            if (due) histogram_add(&control->costs[0], ticks() - began);
        } while (due);
        side_end(s);
        producer_close(&p);
    } else {
        static struct consumer c __attribute__((aligned(LINE)));
        row r;
        open_turn(1);
        consumer_open(&c, &shared[0]);
        start_together(2);
        side_begin(s);
        for (uint64_t i = 0;; i++) {
            while (paced_take(&c, &r) == 0) {}
            if (!row_whole(&r)) die("paced", "a torn row");
            if (!r.time) break;
            if (setup.sleeping || i >= PACED_WARM) histogram_add(&control->latency, elapsed_since((uint64_t)r.time));
        }
        side_end(s);
        consumer_close(&c);
    }
}

static void paced_run(void)
{
    run_sides(2, paced_side);
    report_latency();
    report_cost("call_ns", 0, 1);
    report_disturbance(setup.sleeping ? 1 : 2); /* the producer never sleeps */
}
#endif
