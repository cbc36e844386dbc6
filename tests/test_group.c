/* test_group.c - groups of workers that share a ring's rows: who gets what, what the producer waits
 * for, how a group is found, begun and left; between threads and processes. Deaths are in
 * test_group_deaths.c. */
#include "process.h"
#include "group.h"

#include <pthread.h>

static const cbuf_reader_options from_oldest = { NULL, CBUF_OLDEST, CBUF_SLEEP, false, false, 0, 0,
    10 };

static void open_taker(struct taker *taker, struct ledger *ledger, const cbuf_ring *ring)
{
    int error = taker_open(taker, ledger, ring, &from_oldest);
    CHECK_IS_FOR(cbuf_worker_error(&taker->worker), error, 0);
}
static int64_t take(struct taker *taker, uint32_t max)
{
    const char *fault;
    int64_t n = taker_take(taker, max, 0, &fault);
    CHECK_FOR(fault ? fault : "", !fault);
    return n;
}
static void done(struct taker *taker)
{
    const char *fault = taker_done(taker);
    CHECK_FOR(fault ? fault : "", !fault);
}
static uint32_t slots_taken(const cbuf_ring *ring)
{
    cbuf_stats stats;
    memset(&stats, 0, sizeof stats);
    CHECK_IS(cbuf_stats_get(ring, &stats), 0);
    return (uint32_t)stats.readers;
}

/* ---- in one thread ---- */

static void rows_go_round_in_order_and_each_to_one(void **state)
{
    (void)state;
    for (int layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++)
        for (int locked = 0; locked < 2; locked++) {
            struct ledger *ledger = new_ledger(CBUF_OVERWRITE, 1, 60);
            struct taker a, b;
            cbuf_ring ring;
            ledger->layout = (uint8_t)layout;
            ledger->locked = locked != 0;
            ledger->in_order = true;
            group_create(&ring, ledger);
            group_write(&ring, 0, 0, 30);
            open_taker(&a, ledger, &ring);
            open_taker(&b, ledger, &ring);
            CHECK_IS(take(&a, 4), 4), CHECK_IS(cbuf_taken_first(&a.worker), 0);
            CHECK_IS(take(&b, 3), 3), CHECK_IS(cbuf_taken_first(&b.worker), 4);
            CHECK_IS(take(&b, 1), 1), CHECK_IS(cbuf_taken_first(&b.worker), 7);
            CHECK_IS(take(&a, 2), 2), CHECK_IS(cbuf_taken_first(&a.worker), 8);
            CHECK_IS(take(&a, 0), 0);
            CHECK(taker_drain(&a, 7, 0) == 20);
            group_write(&ring, 0, 30, 30);
            CHECK(taker_drain(&b, 64, 0) == 30);
            check_all_came(ledger, 60);
            CHECK_IS(ledger->taken, 60);
            CHECK_IS(ledger->again, 0);
            taker_close(&a), taker_close(&b);
            CHECK_IS(ledger->lost + ledger->skipped, 0);
            CHECK_IS(slots_taken(&ring), 0);
            cbuf_close(&ring);
            end_ledger(ledger);
        }
}

static void groups_readers_and_the_group_itself_have_slots_and_names(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_BLOCK, 1, 64);
    struct taker a, b, other;
    cbuf_ring ring;
    cbuf_reader reader;
    cbuf_reader_stats stats;
    cbuf_reader_options named = from_oldest;
    named.name = "workers"; /* a reader of a group's name is no group */
    group_create(&ring, ledger);
    CHECK_IS(cbuf_reader_open(&reader, &ring, &named), 0);
    open_taker(&a, ledger, &ring);
    named.name = "the second";
    CHECK_IS(taker_open(&b, ledger, &ring, &named), 0);
    memset(&other, 0, sizeof other);
    CHECK_IS(cbuf_worker_open(&other.worker, &ring, "others", NULL), 0);
    CHECK_IS(slots_taken(&ring), 6);
    static const char *const names[] = { "workers", "workers", "workers", "the second", "others",
        "others" };
    for (uint32_t k = 0; k < 6; k++) {
        CHECK_IS(cbuf_reader_stats_get(&ring, k, &stats), 1);
        CHECK_FOR(stats.name, !strcmp(stats.name, names[k]));
        CHECK(stats.gate && stats.pid == (uint32_t)getpid());
    }
    group_write(&ring, 0, 0, 10);
    struct group_row rows[8];
    CHECK_IS(take(&a, 8), 8); /* each group gets all rows */
    CHECK_IS(cbuf_take(&other.worker, rows, 8), 8);
    CHECK_IS(cbuf_read(&reader, rows, 8), 8);
    CHECK_IS(take(&b, 8), 2);
    CHECK_IS(cbuf_take(&other.worker, rows, 8), 2);
    cbuf_worker_close(&other.worker), taker_close(&a), taker_close(&b);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    end_ledger(ledger);
}

static void a_worker_that_stands_still_is_seen(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_DROP_NEWEST, 1, 64);
    struct taker a, b;
    cbuf_ring ring;
    cbuf_reader_stats stats;
    group_create(&ring, ledger);
    open_taker(&a, ledger, &ring);
    open_taker(&b, ledger, &ring);
    group_write(&ring, 0, 0, 20);
    CHECK_IS(take(&a, 5), 5);
    CHECK_IS(take(&b, 5), 5), done(&b);
    CHECK_IS(cbuf_reader_stats_get(&ring, 0, &stats), 1); /* the group's: what nobody took */
    CHECK_IS(stats.cursor, 10), CHECK_IS(stats.lag_rows, 10);
    CHECK_IS(cbuf_reader_stats_get(&ring, 1, &stats), 1);
    CHECK_IS(stats.cursor, 0), CHECK_IS(stats.lag_rows, 20);
    CHECK_IS(cbuf_reader_stats_get(&ring, 2, &stats), 1); /* holds nothing */
    CHECK_IS(stats.lag_rows, 0);
    taker_close(&a), taker_close(&b);
    cbuf_close(&ring);
    end_ledger(ledger);
}

static void nothing_is_overwritten_before_it_was_acknowledged(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_DROP_NEWEST, 1, 64);
    struct taker a, b;
    cbuf_ring ring;
    struct group_row row = group_row_of(0, 0);
    ledger->capacity = 8;
    group_create(&ring, ledger);
    open_taker(&a, ledger, &ring);
    open_taker(&b, ledger, &ring);
    group_write(&ring, 0, 0, 8);
    CHECK_IS(cbuf_write(&ring, &row), 0);
    CHECK_IS(take(&a, 3), 3);
    CHECK_IS(cbuf_write(&ring, &row), 0); /* they are taken, not done */
    CHECK_IS(take(&b, 3), 3), done(&b);
    CHECK_IS(cbuf_write(&ring, &row), 0); /* done, but behind those */
    done(&a);
    group_write(&ring, 0, 8, 6);
    CHECK_IS(cbuf_write(&ring, &row), 0); /* the rest is nobody's yet */
    CHECK_IS(take(&b, 64), 8);
    CHECK_IS(cbuf_write(&ring, &row), 0);
    CHECK_IS(take(&b, 64), 0); /* says that these are done */
    group_write(&ring, 0, 14, 8);
    taker_close(&a), taker_close(&b);
    group_write(&ring, 0, 22, 30); /* and nobody is a gate any more */
    cbuf_close(&ring);
    end_ledger(ledger);
}

static void what_is_overwritten_is_counted_once(void **state)
{
    (void)state;
    for (int taken = 0; taken < 2; taken++) {
        struct ledger *ledger = new_ledger(CBUF_OVERWRITE, 1, 200);
        struct taker a, b;
        cbuf_ring ring;
        ledger->in_order = true;
        group_create(&ring, ledger);
        open_taker(&a, ledger, &ring);
        open_taker(&b, ledger, &ring);
        group_write(&ring, 0, 0, 10);
        if (taken) CHECK_IS(take(&a, 4), 4);
        group_write(&ring, 0, 10, 190);
        taker_drain(&b, 5, 0), taker_drain(&a, 5, 0);
        taker_close(&a), taker_close(&b);
        CHECK_IS(ledger->taken + ledger->lost, 200);
        CHECK_IS(ledger->lost, cbuf_oldest(&ring) - (taken ? 4 : 0));
        cbuf_close(&ring);
        end_ledger(ledger);
    }
}

static void rows_that_were_given_up_are_skipped_and_counted_once(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_DROP_NEWEST, 2, 4096);
    struct taker a, b;
    cbuf_ring ring;
    cbuf_options options = ledger_options(ledger);
    options.in_place = true;
    CHECK_IS(cbuf_create(&ring, &options), 0);
    open_taker(&a, ledger, &ring);
    open_taker(&b, ledger, &ring);
    for (uint64_t i = 0; i < 512; i++) {
        int64_t granted;
        struct group_row *row = (struct group_row *)cbuf_claim(&ring, 4, &granted);
        CHECK(row && granted > 0);
        bool some = i % 16 != 0;
        if (some) *row = group_row_of(0, i);
        CHECK_IS(cbuf_publish(&ring, some), some);
        if (i % 8 == 7) taker_drain(i % 16 == 7 ? &a : &b, 3, 0);
    }
    taker_close(&a), taker_close(&b);
    CHECK_IS(ledger->taken, 512 - 512 / 16);
    CHECK_IS(ledger->taken + ledger->skipped, cbuf_head(&ring));
    CHECK_IS(ledger->lost, 0);
    cbuf_close(&ring);
    end_ledger(ledger);
}

static void a_ring_of_rows_given_up_does_not_wedge(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_DROP_NEWEST, 2, 4096);
    struct taker a;
    cbuf_ring ring;
    cbuf_options options = ledger_options(ledger);
    options.in_place = true;
    CHECK_IS(cbuf_create(&ring, &options), 0);
    open_taker(&a, ledger, &ring);
    uint64_t skipped = 0;
    for (uint64_t i = 0; i < 64; i++) {
        int64_t granted;
        while (cbuf_claim(&ring, 16, &granted)) {
            CHECK_IS(cbuf_publish(&ring, 0), 0);
            skipped += (uint64_t)granted;
        }
        CHECK_IS(granted, 0); /* full */
        CHECK_IS(take(&a, 64), 0);
        CHECK_IS(cbuf_worker_skipped(&a.worker), skipped);
    }
    taker_close(&a);
    cbuf_close(&ring);
    end_ledger(ledger);
}

/* ---- opening and closing ---- */

static void what_a_group_cannot_be_on_is_said(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_OVERWRITE, 1, 8);
    static unsigned char memory[1 << 16] __attribute__((aligned(128)));
    static const char long_name[] = "a name of forty-eight characters, which is one more";
    cbuf_ring ring, in_memory, observer, closed;
    cbuf_worker worker;
    cbuf_attach_options observes;
    memset(&observes, 0, sizeof observes);
    observes.observer = true;
    cbuf_options options = ledger_options(ledger);
    group_create(&ring, ledger);
    CHECK_IS(cbuf_create_in(&in_memory, memory, sizeof memory, &options), 0);
    CHECK_IS(cbuf_attach(&observer, ledger->name, &observes), 0);
    CHECK_IS(cbuf_worker_open(&worker, &in_memory, "g", NULL), CBUF_EINVAL);
    CHECK(strstr(cbuf_worker_error(&worker), "file"));
    CHECK_IS(cbuf_worker_open(&worker, &observer, "g", NULL), CBUF_EACCES);
    CHECK(strstr(cbuf_worker_error(&worker), "observe"));
    group_attach(&closed, ledger), cbuf_close(&closed);
    CHECK_IS(cbuf_worker_open(&worker, &closed, "g", NULL), CBUF_ENOTOPEN);
    CHECK_IS(cbuf_worker_open(&worker, &ring, NULL, NULL), CBUF_EINVAL);
    CHECK_IS(cbuf_worker_open(&worker, &ring, "", NULL), CBUF_EINVAL);
    CHECK_IS(cbuf_worker_open(&worker, &ring, long_name, NULL), CBUF_EINVAL);
    CHECK(strstr(cbuf_worker_error(&worker), "47"));
    cbuf_reader_options wrong = from_oldest;
    wrong.anonymous = true;
    CHECK_IS(cbuf_worker_open(&worker, &ring, "g", &wrong), CBUF_EINVAL);
    wrong = from_oldest, wrong.prefetch = 1;
    CHECK_IS(cbuf_worker_open(&worker, &ring, "g", &wrong), CBUF_EINVAL);
    wrong = from_oldest, wrong.start = CBUF_AT + 1;
    CHECK_IS(cbuf_worker_open(&worker, &ring, "g", &wrong), CBUF_EINVAL);
    wrong = from_oldest, wrong.start = CBUF_AT, wrong.sequence = UINT64_MAX;
    CHECK_IS(cbuf_worker_open(&worker, &ring, "g", &wrong), CBUF_EINVAL);
    struct group_row row;
    CHECK_IS(cbuf_take(&worker, &row, 1), CBUF_ENOTOPEN); /* none of them is open */
    cbuf_done(&worker), cbuf_worker_close(&worker), cbuf_worker_close(&worker);
    CHECK_IS(slots_taken(&ring), 0);
    cbuf_close(&observer), cbuf_close(&in_memory), cbuf_close(&ring);
    end_ledger(ledger);
}

static void there_are_as_many_workers_as_slots_behind_the_groups(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_OVERWRITE, 1, 8);
    cbuf_ring ring;
    cbuf_reader first;
    cbuf_worker workers[4];
    ledger->max_readers = 4;
    group_create(&ring, ledger);
    CHECK_IS(cbuf_reader_open(&first, &ring, NULL), 0);
    CHECK_IS(cbuf_worker_open(&workers[0], &ring, "g", NULL), 0);
    CHECK_IS(cbuf_worker_open(&workers[1], &ring, "g", NULL), 0);
    CHECK_IS(cbuf_worker_open(&workers[2], &ring, "g", NULL), CBUF_ESLOTS);
    CHECK(strstr(cbuf_worker_error(&workers[2]), "max_readers"));
    cbuf_reader_close(&first); /* its slot lies before the group's */
    CHECK_IS(cbuf_worker_open(&workers[2], &ring, "g", NULL), CBUF_ESLOTS);
    CHECK_IS(cbuf_worker_open(&workers[2], &ring, "h", NULL), CBUF_ESLOTS); /* a group alone */
    CHECK_IS(slots_taken(&ring), 3);
    cbuf_worker_close(&workers[0]);
    CHECK_IS(cbuf_worker_open(&workers[2], &ring, "g", NULL), 0);
    cbuf_worker_close(&workers[1]), cbuf_worker_close(&workers[2]);
    CHECK_IS(slots_taken(&ring), 0);
    cbuf_close(&ring);
    end_ledger(ledger);
}

static void a_group_begins_where_its_first_worker_says_and_ends_with_its_last(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_OVERWRITE, 1, 64);
    struct taker a, b;
    cbuf_ring ring;
    cbuf_reader_options at = from_oldest, newest = from_oldest;
    at.start = CBUF_AT, at.sequence = 7;
    newest.start = CBUF_NEWEST;
    group_create(&ring, ledger);
    group_write(&ring, 0, 0, 20);
    CHECK_IS(taker_open(&a, ledger, &ring, &at), 0);
    CHECK_IS(taker_open(&b, ledger, &ring, &newest), 0); /* too late to say */
    CHECK_IS(take(&b, 2), 2), CHECK_IS(cbuf_taken_first(&b.worker), 7);
    done(&b), taker_close(&b);
    CHECK_IS(take(&a, 2), 2), CHECK_IS(cbuf_taken_first(&a.worker), 9);
    done(&a), taker_close(&a);
    memset(ledger->holder, 0, sizeof ledger->holder);
    memset(ledger->done, 0, sizeof ledger->done);
    memset(ledger->came, 0, sizeof ledger->came);
    CHECK_IS(taker_open(&a, ledger, &ring, &newest), 0); /* a new group */
    CHECK_IS(take(&a, 2), 0);
    group_write(&ring, 0, 20, 5);
    CHECK_IS(take(&a, 5), 5), CHECK_IS(cbuf_taken_first(&a.worker), 20);
    taker_close(&a);
    cbuf_close(&ring);
    end_ledger(ledger);
}

static void rows_not_acknowledged_at_close_go_to_the_others(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_BLOCK, 1, 64);
    struct taker a, b;
    cbuf_ring ring;
    group_create(&ring, ledger);
    group_write(&ring, 0, 0, 20);
    open_taker(&a, ledger, &ring);
    open_taker(&b, ledger, &ring);
    CHECK_IS(take(&a, 5), 5);
    taker_close(&a);
    CHECK_IS(taker_drain(&b, 6, 100000000), 20);
    CHECK_IS(ledger->again, 5);
    check_all_came(ledger, 20);
    CHECK_IS(slots_taken(&ring), 2);
    taker_close(&b);
    CHECK_IS(slots_taken(&ring), 0);
    cbuf_close(&ring);
    end_ledger(ledger);
}

static void rows_not_acknowledged_wait_for_the_next_worker(void **state)
{
    (void)state;
    for (int partly = 0; partly < 2; partly++) {
        struct ledger *ledger = new_ledger(CBUF_BLOCK, 1, 64);
        struct taker a, b, c;
        cbuf_ring ring;
        group_create(&ring, ledger);
        group_write(&ring, 0, 0, 20);
        open_taker(&a, ledger, &ring);
        CHECK_IS(take(&a, 5), 5);
        taker_close(&a);
        open_taker(&b, ledger, &ring);
        CHECK_IS(take(&b, 3), 3);
        CHECK(cbuf_taken_again(&b.worker) && cbuf_taken_first(&b.worker) == 0);
        if (partly) done(&b);
        taker_close(&b); /* with two more to deliver, or all */
        open_taker(&c, ledger, &ring);
        CHECK_IS(take(&c, 9), partly ? 2 : 5);
        CHECK(cbuf_taken_again(&c.worker));
        CHECK_IS(cbuf_taken_first(&c.worker), partly ? 3 : 0);
        done(&c);
        CHECK_IS(taker_drain(&c, 64, 0), 15);
        check_all_came(ledger, 20);
        CHECK_IS(slots_taken(&ring), 2);
        taker_close(&c);
        CHECK_IS(slots_taken(&ring), 0);
        cbuf_close(&ring);
        end_ledger(ledger);
    }
}

static void a_closed_ring_ends_when_all_is_acknowledged(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_BLOCK, 1, 64);
    struct taker a, b;
    cbuf_ring ring, watch;
    const char *fault;
    group_create(&ring, ledger);
    group_attach(&watch, ledger);
    open_taker(&a, ledger, &watch);
    open_taker(&b, ledger, &watch);
    CHECK_IS(taker_take(&a, 8, 2000000, &fault), 0); /* open, and nothing there */
    group_write(&ring, 0, 0, 8);
    CHECK_IS(taker_take(&a, 8, CBUF_FOREVER, &fault), 8);
    cbuf_close(&ring);
    CHECK_IS(taker_take(&b, 8, 3000000, &fault), 0); /* they may still become b's */
    CHECK_IS(taker_take(&b, 8, 0, &fault), 0);
    done(&a);
    CHECK_IS(taker_take(&b, 8, CBUF_FOREVER, &fault), CBUF_ECLOSED);
    CHECK_IS(taker_take(&a, 8, CBUF_FOREVER, &fault), CBUF_ECLOSED);
    taker_close(&a), taker_close(&b);
    cbuf_close(&watch);
    end_ledger(ledger);
}

/* ---- between threads, and between processes ---- */

struct scene_of_workers {
    struct ledger *ledger;
    pthread_t thread;
    const char *fault;
    uint32_t number;
};

static const char *work(struct scene_of_workers *w, cbuf_ring *ring)
{
    struct taker taker;
    const char *fault = NULL;
    uint64_t seed = w->number + 77;
    if (taker_open(&taker, w->ledger, ring, &from_oldest)) return "a worker does not open";
    while (!fault) {
        uint32_t max = 1 + (uint32_t)(next_random(&seed) % 20);
        int64_t n = taker_take(&taker, max, CBUF_FOREVER, &fault);
        if (n == CBUF_ECLOSED) break;
        if (n <= 0 && !fault) fault = "no rows without a reason";
        if (!fault && max % 4) fault = taker_done(&taker); /* else the next take does */
    }
    taker_close(&taker);
    return fault;
}
static void *work_in_thread(void *argument)
{
    struct scene_of_workers *w = (struct scene_of_workers *)argument;
    cbuf_ring ring;
    if (cbuf_attach(&ring, w->ledger->name, NULL)) return w->fault = "no ring", (void *)NULL;
    w->fault = work(w, &ring);
    cbuf_close(&ring);
    return NULL;
}
static int work_in_process(void *argument)
{
    struct scene_of_workers *w = (struct scene_of_workers *)argument;
    work_in_thread(w);
    CHECK_FOR(w->fault ? w->fault : "", !w->fault);
    return 0;
}
static const char *produce_into(struct scene_of_workers *w, cbuf_ring *ring)
{
    for (uint64_t i = 0; i < w->ledger->rows; i++) {
        struct group_row row = group_row_of(w->number, i);
        int written;
        while ((written = cbuf_write(ring, &row)) == 0) sched_yield(); /* refused: once more */
        if (written < 0) return cbuf_strerror(written);
    }
    return NULL;
}
static void *produce_in_thread(void *argument)
{
    struct scene_of_workers *w = (struct scene_of_workers *)argument;
    cbuf_ring ring;
    cbuf_options options = ledger_options(w->ledger);
    if (cbuf_create(&ring, &options)) return w->fault = "no ring to write to", (void *)NULL;
    w->fault = produce_into(w, &ring);
    cbuf_close(&ring);
    return NULL;
}
static int produce_in_process(void *argument)
{
    struct scene_of_workers *w = (struct scene_of_workers *)argument;
    produce_in_thread(w);
    CHECK_FOR(w->fault ? w->fault : "", !w->fault);
    return 0;
}

enum { WORKERS = 3, PRODUCERS = 4 };
struct side {
    struct scene_of_workers scene;
    pid_t child;
    bool is_process;
};
static void start_side(struct side *side, struct ledger *ledger, uint32_t number, bool produces,
    bool is_process)
{
    memset(side, 0, sizeof *side);
    side->scene.ledger = ledger;
    side->scene.number = number;
    side->is_process = is_process;
    if (is_process) {
        side->child = start(produces ? produce_in_process : work_in_process, &side->scene);
    } else {
        void *(*run)(void *) = produces ? produce_in_thread : work_in_thread;
        CHECK_IS(pthread_create(&side->scene.thread, NULL, run, &side->scene), 0);
    }
}
static void end_side(struct side *side)
{
    const char *fault = NULL;
    if (side->is_process) CHECK_IS(finish(side->child), 0);
    else pthread_join(side->scene.thread, NULL), fault = side->scene.fault;
    CHECK_FOR(fault ? fault : "", !fault);
}

/* The one producer is this thread; of several each is a side, and this one has a handle too, which
 * keeps the ring open until all of them are done. */
static void play(uint8_t on_full, uint32_t producers, uint8_t layout, bool processes)
{
    uint64_t rows = (CHECK_SANITIZED || is_emulated() ? 1500u : 12000u) / producers;
    struct ledger *ledger = new_ledger(on_full, producers > 1 ? producers + 1 : 1, rows);
    struct side workers[WORKERS], others[PRODUCERS];
    struct taker keeps; /* the group, from before the first row on */
    cbuf_ring ring, watch;
    ledger->layout = layout;
    group_create(&ring, ledger);
    group_attach(&watch, ledger);
    open_taker(&keeps, ledger, &watch);
    for (uint32_t k = 0; k < WORKERS; k++) start_side(&workers[k], ledger, k, false, processes);
    if (producers == 1) {
        struct scene_of_workers here;
        memset(&here, 0, sizeof here);
        here.ledger = ledger;
        const char *fault = produce_into(&here, &ring);
        CHECK_FOR(fault ? fault : "", !fault);
    } else {
        for (uint32_t k = 0; k < producers; k++)
            start_side(&others[k], ledger, k, true, processes);
        for (uint32_t k = 0; k < producers; k++) end_side(&others[k]);
    }
    uint64_t head = cbuf_head(&ring);
    cbuf_close(&ring);
    for (uint32_t k = 0; k < WORKERS; k++) end_side(&workers[k]);
    taker_close(&keeps);
    cbuf_close(&watch);
    CHECK_IS(head, rows * producers);
    CHECK_IS(ledger->taken + ledger->lost, head);
    CHECK_IS(ledger->again + ledger->skipped, 0);
    if (on_full != CBUF_OVERWRITE) check_all_came(ledger, head);
    end_ledger(ledger);
}

static void each_row_goes_to_one_of_several_threads(void **state)
{
    (void)state;
    for (uint8_t policy = CBUF_OVERWRITE; policy <= CBUF_DROP_NEWEST; policy++) {
        play(policy, 1, CBUF_NUMBERED, false);
        play(policy, 1, CBUF_DENSE, false);
        play(policy, PRODUCERS, CBUF_NUMBERED, false);
    }
}
static void each_row_goes_to_one_of_several_processes(void **state)
{
    (void)state;
    for (uint8_t policy = CBUF_OVERWRITE; policy <= CBUF_DROP_NEWEST; policy++) {
        play(policy, 1, CBUF_NUMBERED, true);
        play(policy, 1, CBUF_DENSE, true);
        play(policy, PRODUCERS, CBUF_NUMBERED, true);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_begin, scene_end)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rows_go_round_in_order_and_each_to_one),
        TEST(groups_readers_and_the_group_itself_have_slots_and_names),
        TEST(a_worker_that_stands_still_is_seen),
        TEST(nothing_is_overwritten_before_it_was_acknowledged),
        TEST(what_is_overwritten_is_counted_once),
        TEST(rows_that_were_given_up_are_skipped_and_counted_once),
        TEST(a_ring_of_rows_given_up_does_not_wedge),
        TEST(what_a_group_cannot_be_on_is_said),
        TEST(there_are_as_many_workers_as_slots_behind_the_groups),
        TEST(a_group_begins_where_its_first_worker_says_and_ends_with_its_last),
        TEST(rows_not_acknowledged_at_close_go_to_the_others),
        TEST(rows_not_acknowledged_wait_for_the_next_worker),
        TEST(a_closed_ring_ends_when_all_is_acknowledged),
        TEST(each_row_goes_to_one_of_several_threads),
        TEST(each_row_goes_to_one_of_several_processes),
    };
    scene_open(120);
    return scene_close(cmocka_run_group_tests(tests, NULL, NULL));
}
