/*
 * open.h - what it costs to make a ring, to open it a second time, and to register as a reader; in us. Needs CAN_OPEN.
 *
 *   void open_create(struct shared *, const struct setup *)   the ring's memory is there and its pages are mapped
 *   void open_attach(struct shared *)                         another mapping of it, as another process would have it
 *   bool open_register(struct shared *)                       false: there is nothing to register
 *   void open_close(struct shared *)
 */

static void open_run(void)
{
    struct shared *s = &shared[0];
    side_begin(&control->sides[0]);
    for (uint64_t i = 0, deadline = deadline_in_ticks(); i < 3 || (ticks() < deadline && i < 1000); i++) {
        uint64_t t0 = ticks();
        open_create(s, &setup);
        uint64_t t1 = ticks();
        open_attach(s);
        uint64_t t2 = ticks();
        bool registered = open_register(s);
        uint64_t t3 = ticks();
        open_close(s);
        histogram_add(&control->costs[0], t1 - t0);
        histogram_add(&control->costs[1], t2 - t1);
        if (registered) histogram_add(&control->costs[2], t3 - t2);
    }
    side_end(&control->sides[0]);
    report_cost("create_us", 0, 1e3);
    report_cost("attach_us", 1, 1e3);
    report_cost("register_us", 2, 1e3);
    report_disturbance(1);
}
