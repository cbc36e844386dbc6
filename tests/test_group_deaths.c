/*
 * test_group_deaths.c - workers that die, at every operation and at random: their rows go to the
 * others, all of them, and to nobody else; nobody waits for the dead.
 *
 * CBUF_KILLS (environment): how many random deaths there are; 150 if it is not set.
 */
#define CBUF_ACCESS_HEADER "kill_access.h"
#include "process.h"
#include "group.h"

static const cbuf_reader_options from_oldest = { NULL, CBUF_OLDEST, CBUF_SLEEP, false, false, 0, 0,
    10 };

static void open_taker(struct taker *taker, struct ledger *ledger, const cbuf_ring *ring)
{
    int error = taker_open(taker, ledger, ring, &from_oldest);
    CHECK_IS_FOR(cbuf_worker_error(&taker->worker), error, 0);
}
static int64_t take(struct taker *taker, uint32_t max, int64_t timeout_ns)
{
    const char *fault;
    int64_t n = taker_take(taker, max, timeout_ns, &fault);
    CHECK_FOR(fault ? fault : "", !fault);
    return n;
}
static void done(struct taker *taker)
{
    const char *fault = taker_done(taker);
    CHECK_FOR(fault ? fault : "", !fault);
}

/* ---- at every operation ---- */

struct life { /* of a worker that dies */
    struct ledger *ledger;
    uint64_t countdown;
    uint64_t seed;
    uint32_t run; /* 0: it did not come so far */
    bool closes;
};

static int live_and_stop(void *argument)
{
    struct life *life = (struct life *)argument;
    struct taker taker;
    cbuf_ring ring;
    group_attach(&ring, life->ledger);
    kill_signal = SIGSTOP;
    kill_countdown = life->countdown;
    open_taker(&taker, life->ledger, &ring);
    take(&taker, 3, 0), done(&taker);
    take(&taker, 2, 0);
    take(&taker, 4, 0), done(&taker);
    take(&taker, 2, 0);
    if (life->closes) taker_close(&taker);
    kill_countdown = 0;
    return raise(SIGKILL);
}
static int take_and_die(void *argument)
{
    struct life *life = (struct life *)argument;
    struct taker taker;
    cbuf_ring ring;
    group_attach(&ring, life->ledger);
    open_taker(&taker, life->ledger, &ring);
    take(&taker, 6, 0);
    return raise(SIGKILL);
}

enum beside { A_SIBLING, NOBODY, A_SIBLING_AND_ONE_DEAD, BESIDES };

/* One worker, which is stopped before its operation `n`; others move on; it is killed. False if it
 * has not so many operations. */
static bool kill_one_at(uint64_t n, int beside, int layout)
{
    struct ledger *ledger = new_ledger(CBUF_BLOCK, 1, 40);
    struct life *life = (struct life *)shared_memory(sizeof *life);
    struct taker taker;
    cbuf_ring ring, watch;
    int status = 0;
    ledger->max_readers = 5;
    ledger->in_order = true;
    ledger->layout = (uint8_t)layout;
    life->ledger = ledger;
    life->countdown = n;
    life->closes = beside != NOBODY; /* the group would end, and another would begin */
    group_create(&ring, ledger);
    group_attach(&watch, ledger);
    group_write(&ring, 0, 0, 40);
    cbuf_close(&ring); /* from here on it is full of rows, and no more will come */
    if (beside != NOBODY) open_taker(&taker, ledger, &watch);
    if (beside == A_SIBLING_AND_ONE_DEAD) CHECK_IS(finish(start(take_and_die, life)), -SIGKILL);
    pid_t child = start(live_and_stop, life);
    CHECK_IS(waitpid(child, &status, WUNTRACED), child);
    bool stopped = WIFSTOPPED(status);
    if (stopped) {
        if (beside != NOBODY) take(&taker, 2, 0), done(&taker), take(&taker, 1, 0);
        CHECK_IS(end_by(child, SIGKILL), -SIGKILL);
    } else {
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        forget(child);
    }
    if (beside == NOBODY) open_taker(&taker, ledger, &watch);
    taker_drain(&taker, 5, CBUF_FOREVER);
    check_all_came(ledger, 40);
    taker_close(&taker);
    CHECK_IS(ledger->lost + ledger->skipped, 0);
    cbuf_close(&watch);
    munmap(life, sizeof *life);
    end_ledger(ledger);
    return stopped;
}

static void a_worker_may_die_at_any_operation(void **state)
{
    (void)state;
    for (int beside = 0; beside < BESIDES; beside++) {
        uint64_t n = 1, step = CHECK_SANITIZED || is_emulated() ? 5 : 1;
        while (kill_one_at(n, beside, n % 2 ? CBUF_NUMBERED : CBUF_DENSE)) n += step;
        CHECK(n > 80);
    }
}

static int take_all_and_stop(void *argument)
{
    struct life *life = (struct life *)argument;
    struct taker taker;
    cbuf_ring ring;
    group_attach(&ring, life->ledger);
    open_taker(&taker, life->ledger, &ring);
    kill_countdown = life->countdown;
    take(&taker, TAKE_MOST, 0);
    done(&taker);
    kill_countdown = 0;
    return 0;
}

/* All rows were taken, but the group's cursor may still stand before them. */
static void who_dies_before_it_moved_the_gate_holds_no_producer_up(void **state)
{
    (void)state;
    int how = -SIGKILL;
    for (uint64_t n = 1; how == -SIGKILL; n++) {
        struct ledger *ledger = new_ledger(CBUF_DROP_NEWEST, 1, 64);
        struct life *life = (struct life *)shared_memory(sizeof *life);
        struct taker taker;
        cbuf_ring ring;
        ledger->capacity = 8;
        life->ledger = ledger;
        life->countdown = n;
        group_create(&ring, ledger);
        open_taker(&taker, ledger, &ring);
        group_write(&ring, 0, 0, 8);
        how = finish(start(take_all_and_stop, life));
        while (take(&taker, 8, 3000000) > 0) done(&taker); /* it looks each millisecond */
        group_write(&ring, 0, 8, 8);
        taker_drain(&taker, 8, 0);
        check_all_came(ledger, 16);
        taker_close(&taker);
        cbuf_close(&ring);
        munmap(life, sizeof *life);
        end_ledger(ledger);
        CHECK(how == -SIGKILL || n > 40);
    }
    CHECK_IS(how, 0);
}

/* ---- at random ---- */

enum { WORKERS = 3, PRODUCERS = 3, ROUND_KILLS = 100 };

static struct stop {
    bool now;
} *stop;

static int work(void *argument)
{
    struct life *life = (struct life *)argument;
    struct taker taker;
    cbuf_ring ring;
    uint64_t seed = life->seed;
    int64_t n;
    group_attach(&ring, life->ledger);
    kill_countdown = life->countdown;
    int error = taker_open(&taker, life->ledger, &ring, &from_oldest);
    CHECK_IS_FOR(cbuf_worker_error(&taker.worker), error, 0);
    life->run = taker.run;
    do {
        uint64_t chance = next_random(&seed);
        n = take(&taker, 1 + (uint32_t)(chance % 9), CBUF_FOREVER);
        CHECK_FOR(cbuf_strerror(n), n > 0 || n == CBUF_ECLOSED);
        if (n > 0 && chance >> 32 & 1) done(&taker);
    } while (n > 0);
    kill_countdown = 0;
    taker_close(&taker);
    return 0;
}

struct source {
    struct ledger *ledger;
    uint32_t number;
};
static int produce(void *argument)
{
    struct source *source = (struct source *)argument;
    cbuf_ring ring;
    group_create(&ring, source->ledger);
    if (source->ledger->producers == 1)
        give_cue(&source->ledger->ready), await_cue(&source->ledger->go);
    for (uint64_t i = 0; i < source->ledger->rows; i++) {
        struct group_row row = group_row_of(source->number, i);
        int written;
        if (__atomic_load_n(&stop->now, __ATOMIC_RELAXED)) break;
        while ((written = cbuf_write(&ring, &row)) == 0) sched_yield();
        CHECK_IS(written, 1);
    }
    cbuf_close(&ring);
    return 0;
}

/* A worker's process, and what must be so when it has ended: 1: it was killed, 0: it lives, -1: it
 * has ended by itself. */
struct side {
    struct life *life;
    pid_t child;
    uint64_t patience; /* looks at it before it is killed; 0: it is killed by its countdown */
};
static void start_worker(struct side *side, struct ledger *ledger, uint64_t *seed, bool dies)
{
    memset(side->life, 0, sizeof *side->life);
    side->life->ledger = ledger;
    side->life->seed = next_random(seed);
    side->patience = dies && next_random(seed) % 4 == 0 ? 1 + next_random(seed) % 2000 : 0;
    side->life->countdown = dies && !side->patience ? 1 + next_random(seed) % 1500 : 0;
    side->child = start(work, side->life);
}
static int look_at_worker(struct side *side, uint8_t *died)
{
    int status;
    if (side->patience && !--side->patience) kill(side->child, SIGKILL);
    if (!waitpid(side->child, &status, WNOHANG)) return 0;
    forget(side->child);
    side->child = 0;
    if (WIFEXITED(status)) return CHECK_IS(WEXITSTATUS(status), 0), -1;
    CHECK_IS(WTERMSIG(status), SIGKILL);
    died[side->life->run] = 1; /* 0: of none that was robbed */
    return 1;
}

static uint32_t play_round(uint8_t on_full, uint32_t producers, uint64_t *seed, uint32_t most)
{
    static uint8_t died[LEDGER_RUNS];
    struct ledger *ledger = new_ledger(on_full, producers > 1 ? producers + 1 : 1, 20000);
    struct side sides[WORKERS];
    struct source *sources = (struct source *)shared_memory(PRODUCERS * sizeof *sources);
    struct life *lives = (struct life *)shared_memory(WORKERS * sizeof *lives);
    pid_t writers[PRODUCERS];
    struct taker taker; /* this process lives, and works too */
    cbuf_ring ring, watch;
    uint32_t kills = 0, ended = 0, writing = producers;
    memset(died, 0, sizeof died);
    ledger->ready = new_cue(), ledger->go = new_cue();
    stop = (struct stop *)shared_memory(sizeof *stop);
    if (producers > 1) group_create(&ring, ledger);
    for (uint32_t k = 0; k < producers; k++) {
        sources[k].ledger = ledger, sources[k].number = k;
        if (producers == 1) writers[k] = start(produce, &sources[k]);
    }
    if (producers == 1) await_cue(&ledger->ready);
    group_attach(&watch, ledger);
    open_taker(&taker, ledger, &watch);
    for (uint32_t k = 0; k < producers && producers > 1; k++)
        writers[k] = start(produce, &sources[k]);
    if (producers == 1) give_cue(&ledger->go);
    for (uint32_t k = 0; k < WORKERS; k++) {
        sides[k].life = &lives[k];
        start_worker(&sides[k], ledger, seed, true);
    }
    while (ended < WORKERS) {
        const bool enough = kills >= most || !writing;
        if (enough) __atomic_store_n(&stop->now, true, __ATOMIC_RELAXED);
        for (uint32_t k = 0; k < WORKERS; k++) {
            int how = sides[k].child ? look_at_worker(&sides[k], died) : 0;
            kills += how > 0;
            ended += how < 0;
            if (how > 0) start_worker(&sides[k], ledger, seed, !enough);
        }
        for (uint32_t k = 0; k < producers && writing; k++) {
            int status;
            if (!writers[k] || !waitpid(writers[k], &status, WNOHANG)) continue;
            forget(writers[k]);
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            writers[k] = 0;
            if (!--writing && producers > 1) cbuf_close(&ring);
        }
        int64_t n = take(&taker, 2, 100000);
        CHECK(n >= 0 || n == CBUF_ECLOSED);
        done(&taker);
    }
    taker_drain(&taker, 7, CBUF_FOREVER);
    uint64_t head = cbuf_head(&watch);
    taker_close(&taker);
    if (on_full != CBUF_OVERWRITE) check_all_came(ledger, head);
    if (on_full != CBUF_OVERWRITE) CHECK_IS(ledger->lost, 0);
    for (uint32_t run = 1; run <= ledger->runs; run++) CHECK(!ledger->robbed[run] || died[run]);
    cbuf_close(&watch);
    end_cue(&ledger->ready), end_cue(&ledger->go);
    munmap(stop, sizeof *stop);
    munmap(sources, PRODUCERS * sizeof *sources), munmap(lives, WORKERS * sizeof *lives);
    end_ledger(ledger);
    return kills;
}

static uint32_t kills_wanted(void)
{
    const char *kills = getenv("CBUF_KILLS");
    if (kills) return (uint32_t)strtoul(kills, NULL, 10);
    return CHECK_SANITIZED || is_emulated() ? 40 : 150;
}

static void random_deaths_lose_no_row_and_give_none_to_two(void **state)
{
    (void)state;
    uint64_t seed = 0x5eed0077;
    uint32_t wanted = kills_wanted(), kills = 0;
    for (uint32_t round = 0; kills < wanted || round < 6; round++) {
        uint32_t most = wanted / 6 + 1;
        if (most > ROUND_KILLS) most = ROUND_KILLS;
        uint8_t policy = (uint8_t)(round % 3);
        kills += play_round(policy, round / 3 % 2 ? PRODUCERS : 1, &seed, most);
    }
    printf("%u deaths\n", kills);
}

/* ---- who waits for whom ---- */

static int fill_and_write_on(void *argument)
{
    struct ledger *ledger = (struct ledger *)argument;
    cbuf_ring ring;
    group_create(&ring, ledger);
    give_cue(&ledger->ready);
    await_cue(&ledger->go);
    group_write(&ring, 0, 0, ledger->rows);
    cbuf_close(&ring);
    return 0;
}

/* The producer waits for a dead worker's rows: a sibling delivers them, or, if all are dead, the
 * producer frees their slots and goes on. */
static void a_producer_does_not_wait_for_a_dead_group(void **state)
{
    (void)state;
    for (int alone = 0; alone < 2; alone++) {
        struct ledger *ledger = new_ledger(CBUF_BLOCK, 1, 600);
        struct life *life = (struct life *)shared_memory(sizeof *life);
        struct taker taker;
        cbuf_ring watch;
        cbuf_stats stats;
        memset(&stats, 0, sizeof stats);
        ledger->ready = new_cue(), ledger->go = new_cue();
        pid_t producer = start(fill_and_write_on, ledger);
        await_cue(&ledger->ready);
        group_attach(&watch, ledger);
        open_taker(&taker, ledger, &watch);
        give_cue(&ledger->go);
        while (cbuf_head(&watch) < 6) sched_yield();
        life->ledger = ledger;
        CHECK_IS(finish(start(take_and_die, life)), -SIGKILL);
        if (alone) {
            CHECK_IS(take(&taker, 2, 0), 2);
            taker_close(&taker); /* as if it had died */
            CHECK_IS(finish(producer), 0);
            CHECK_IS(cbuf_head(&watch), 600);
            CHECK_IS(cbuf_stats_get(&watch, &stats), 0);
            CHECK_IS(stats.readers, 0);
        } else {
            taker_drain(&taker, 9, CBUF_FOREVER);
            CHECK_IS(finish(producer), 0);
            check_all_came(ledger, 600);
            CHECK_IS(ledger->again, 6);
            taker_close(&taker);
        }
        cbuf_close(&watch);
        end_cue(&ledger->ready), end_cue(&ledger->go);
        munmap(life, sizeof *life);
        end_ledger(ledger);
    }
}

/* No slot is free for the next worker but the dead one's. */
static void the_next_worker_may_take_the_place_of_a_dead_one(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_BLOCK, 1, 64);
    struct life *life = (struct life *)shared_memory(sizeof *life);
    struct taker taker, next;
    cbuf_ring ring;
    cbuf_reader reader;
    ledger->max_readers = 3;
    ledger->in_order = true;
    life->ledger = ledger;
    group_create(&ring, ledger);
    group_write(&ring, 0, 0, 30);
    open_taker(&taker, ledger, &ring);
    for (int i = 0; i < 3; i++) CHECK_IS(finish(start(take_and_die, life)), -SIGKILL);
    CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), CBUF_ESLOTS); /* its rows are wanted */
    open_taker(&next, ledger, &ring);
    CHECK_IS(take(&next, 9, 0), 6); /* in the dead one's slot */
    CHECK(cbuf_taken_again(&next.worker));
    CHECK_IS(next.first, 0);
    done(&next);
    CHECK_IS(taker_drain(&next, 9, 0), 24);
    check_all_came(ledger, 30);
    taker_close(&next), taker_close(&taker);
    cbuf_close(&ring);
    munmap(life, sizeof *life);
    end_ledger(ledger);
}

static void a_forked_child_cannot_take(void **state)
{
    (void)state;
    struct ledger *ledger = new_ledger(CBUF_BLOCK, 1, 64);
    struct taker taker;
    cbuf_ring ring;
    if (!fork_wipes()) skip();
    group_create(&ring, ledger);
    group_write(&ring, 0, 0, 30);
    open_taker(&taker, ledger, &ring);
    CHECK_IS(take(&taker, 3, 0), 3);
    pid_t child = fork();
    if (child == 0) {
        bool refused = cbuf_take(&taker.worker, taker.rows, 1) == CBUF_EFORKED;
        cbuf_done(&taker.worker);
        cbuf_worker_close(&taker.worker);
        _exit(!refused);
    }
    int status;
    CHECK_IS(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_IS(taker_drain(&taker, 9, 0), 27);
    check_all_came(ledger, 30);
    taker_close(&taker);
    cbuf_close(&ring);
    end_ledger(ledger);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_begin, scene_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_worker_may_die_at_any_operation),
        TEST(who_dies_before_it_moved_the_gate_holds_no_producer_up),
        TEST(random_deaths_lose_no_row_and_give_none_to_two),
        TEST(a_producer_does_not_wait_for_a_dead_group),
        TEST(the_next_worker_may_take_the_place_of_a_dead_one),
        TEST(a_forked_child_cannot_take),
    };
    scene_open(300 + kills_wanted() / 10);
    return scene_close(cmocka_run_group_tests(tests, NULL, NULL));
}
