/*
 * test_many_deaths.c - several producers of one ring, of which some are killed or stopped: at each
 * of their operations, at random ones, at random moments. What holds for those who live on: no row
 * is torn, none comes twice, each producer's come in its order, nobody waits for the dead, nobody
 * writes under the pen of one who lives.
 *
 * CBUF_KILLS (environment): how many random deaths there are; 400 if it is not set.
 */
#define CBUF_ACCESS_HEADER "kill_access.h"
#include "many_rows.h"

enum { CAPACITY = 16, LIVES = 1 << 20, POLICIES = 3 };
enum { STRIDE = CHECK_SANITIZED ? 5 : 1 }; /* from operation to operation */

/* ---- what the processes of a test share ---- */

struct life { /* of a producer: its rows have its number */
    uint64_t seed;
    uint32_t number;
    int deeds;
    uint64_t confirmed, attempted; /* rows: that calls returned for; that they were begun for */
};
struct stage {
    char name[64];
    cbuf_options options;
    uint64_t countdown; /* what kill_countdown is set to */
    struct life lives[4];
    struct cue ready, go;
};

static struct stage *new_stage(uint8_t on_full)
{
    struct stage *stage = (struct stage *)shared_memory(sizeof *stage);
    snprintf(stage->name, sizeof stage->name, "%s", new_name());
    stage->options = options_of(stage->name, on_full, CAPACITY);
    stage->options.in_place = true;
    stage->options.reserve_step = 1;
    stage->options.block_ns = 1000000;
    stage->ready = new_cue();
    stage->go = new_cue();
    return stage;
}
static void end_stage(struct stage *stage)
{
    int error = cbuf_remove(stage->name);
    CHECK(error == 0 || error == CBUF_ENOENT);
    end_cue(&stage->ready);
    end_cue(&stage->go);
    munmap(stage, sizeof *stage);
}
static void new_life(struct life *life, uint32_t number)
{
    memset(life, 0, sizeof *life);
    life->number = number;
}

/* ---- writing ---- */

enum way { ONE, SOME, IN_PLACE, FEWER, WAYS };

/* Writes up to 4 rows of that life, and keeps account. How many were written, or an error. */
static int64_t produce(struct life *life, cbuf_ring *ring, int way, uint32_t n)
{
    struct row rows[4];
    uint64_t next = life->confirmed;
    int64_t done = 0, granted;
    if (way == ONE) n = 1;
    for (uint32_t k = 0; k < n; k++) rows[k] = row_of(life->number, next + k);
    __atomic_store_n(&life->attempted, next + n, __ATOMIC_RELAXED);
    if (way == ONE) done = cbuf_write(ring, rows);
    if (way == SOME) done = cbuf_write_n(ring, rows, n);
    if (way == IN_PLACE || way == FEWER) {
        unsigned char *to = (unsigned char *)cbuf_claim(ring, n, &granted);
        for (int64_t k = 0; to && k < granted; k++, to += cbuf_stride(ring))
            memcpy(to, &rows[k], sizeof rows[k]);
        done = granted > 0 ? cbuf_publish(ring, (uint32_t)(way == FEWER ? 1 : granted)) : granted;
    }
    if (done > 0) life->confirmed = next + (uint64_t)done;
    __atomic_store_n(&life->attempted, life->confirmed, __ATOMIC_RELAXED);
    return done;
}

/* ---- following: a reader that was there all along ---- */

struct follower {
    cbuf_ring ring;
    cbuf_reader reader;
    uint64_t started, accepted, ranges, skipped;
    uint32_t *received, *next; /* by life: how many of its rows; which may come */
};

static void follow_from(struct follower *follower, const struct stage *stage, uint8_t start)
{
    cbuf_reader_options options;
    memset(follower, 0, sizeof *follower);
    memset(&options, 0, sizeof options);
    options.start = start;
    options.spins = 10;
    int error = cbuf_attach(&follower->ring, stage->name, NULL);
    CHECK_IS_FOR(cbuf_error(&follower->ring), error, 0);
    CHECK_IS(cbuf_reader_open(&follower->reader, &follower->ring, &options), 0);
    follower->started = cbuf_first(&follower->reader);
    follower->received = (uint32_t *)calloc(LIVES, sizeof(uint32_t));
    follower->next = (uint32_t *)calloc(LIVES, sizeof(uint32_t));
    CHECK(follower->received && follower->next);
}
static void end_follower(struct follower *follower)
{
    cbuf_reader_close(&follower->reader);
    cbuf_close(&follower->ring);
    free(follower->received);
    free(follower->next);
}
/* Reads what there is, at most `n` rows; how many those were. */
static int64_t follow(struct follower *follower, uint32_t n)
{
    struct row rows[64];
    int64_t got = cbuf_read(&follower->reader, rows, n < 64 ? n : 64);
    CHECK(got >= 0);
    for (int64_t k = 0; k < got; k++) {
        CHECK(rows[k].producer < LIVES && is_whole(&rows[k]));
        CHECK(rows[k].n >= follower->next[rows[k].producer]); /* in order, and none twice */
        follower->next[rows[k].producer] = (uint32_t)rows[k].n + 1;
        follower->received[rows[k].producer]++;
    }
    follower->accepted += (uint64_t)got;
    uint64_t skipped = cbuf_skipped(&follower->reader);
    follower->ranges += skipped > follower->skipped; /* exact for one row at a time */
    follower->skipped = skipped;
    CHECK_IS(follower->accepted + cbuf_lost(&follower->reader) + skipped,
        follower->reader.cursor - follower->started);
    return got;
}
static void follow_to_end(struct follower *follower)
{
    while (follow(follower, 1) > 0) {}
}
/* Writes a row of that life, and reads on as long as there is no room. */
static void write_row(struct life *life, cbuf_ring *ring, struct follower *follower)
{
    int64_t began = now_ns();
    for (int64_t done; (done = produce(life, ring, ONE, 1)) != 1; follow(follower, 1)) {
        CHECK(done == 0 || done == CBUF_ETIMEDOUT);
        CHECK(now_ns() - began < 20000000000);
    }
}
/* More than a lap: whatever stands in the way is met. Then all is read. */
static void write_a_lap(struct life *life, cbuf_ring *ring, struct follower *follower)
{
    for (int k = 0; k < CAPACITY + 3; k++) {
        write_row(life, ring, follower);
        follow(follower, 1);
        follow(follower, 1);
    }
    follow_to_end(follower);
    CHECK_IS(follower->reader.cursor, cbuf_head(ring));
    CHECK_IS(cbuf_head(ring), cbuf__load_relaxed(&ring->file->claim));
}
/* A life is over, and all of its rows that will come have come. */
static void check_life(const struct life *life, const struct follower *follower, uint64_t lost)
{
    CHECK(follower->received[life->number] + lost >= life->confirmed);
    CHECK(follower->next[life->number] <= life->attempted);
}

/* ---- killed at each operation ---- */

/* All that a producer does; at most half a lap, as nobody reads meanwhile. */
static int live_as_producer(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    struct life *life = &stage->lives[1];
    cbuf_ring ring;
    kill_countdown = stage->countdown;
    create(&ring, &stage->options);
    produce(life, &ring, ONE, 1);
    produce(life, &ring, SOME, 3);
    produce(life, &ring, IN_PLACE, 3);
    if (life->deeds) {
        produce(life, &ring, FEWER, 2);
        CHECK(cbuf_claim(&ring, 1, NULL)); /* which a second one gives up, and that the close */
        CHECK(cbuf_claim(&ring, 1, NULL));
    }
    cbuf_close(&ring);
    return 0;
}
static void a_producer_may_die_at_any_operation_beside_others(void **state)
{
    uint64_t deaths = 0;
    (void)state;
    for (int kind = 0; kind < 2 * POLICIES; kind++) {
        struct stage *stage = new_stage((uint8_t)(kind / 2));
        struct follower follower;
        cbuf_ring ring;
        int ended = -SIGKILL;
        create(&ring, &stage->options);
        follow_from(&follower, stage, CBUF_OLDEST);
        new_life(&stage->lives[0], 0);
        for (stage->countdown = 1; ended != 0; stage->countdown += STRIDE) {
            uint64_t ranges = follower.ranges, skipped = follower.skipped;
            uint64_t lost = cbuf_lost(&follower.reader);
            new_life(&stage->lives[1], (uint32_t)stage->countdown);
            stage->lives[1].deeds = kind % 2;
            ended = finish(start(live_as_producer, stage));
            CHECK(ended == 0 || ended == -SIGKILL);
            deaths += ended != 0;
            write_a_lap(&stage->lives[0], &ring, &follower);
            lost = cbuf_lost(&follower.reader) - lost;
            if (stage->options.on_full) CHECK_IS(lost, 0);
            check_life(&stage->lives[1], &follower, lost);
            check_life(&stage->lives[0], &follower, cbuf_lost(&follower.reader));
            if (!stage->lives[1].deeds) {
                CHECK(follower.ranges - ranges <= 1);
                CHECK(follower.skipped - skipped <= 3);
                CHECK(stats_of(&ring).aborted >= follower.skipped);
            }
        }
        CHECK(stage->countdown > 100);
        end_follower(&follower);
        cbuf_close(&ring);
        end_stage(stage);
    }
    print_message("deaths of producers: %llu\n", (unsigned long long)deaths);
}

/* Claims rows, fills them in, and dies. */
static int die_with_rows(void *argument)
{
    struct life *life = (struct life *)argument;
    struct stage *stage = (struct stage *)(void *)((char *)life - life->seed);
    cbuf_ring ring;
    int64_t granted;
    create(&ring, &stage->options);
    CHECK(cbuf_claim(&ring, 3, &granted));
    life->attempted = (uint64_t)granted;
    return raise(SIGKILL);
}
static void let_die_with_rows(struct stage *stage, int which)
{
    struct life *life = &stage->lives[which];
    life->seed = (uint64_t)((char *)life - (char *)stage);
    CHECK_IS(finish(start(die_with_rows, life)), -SIGKILL);
}
static int live_as_sweeper(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    kill_countdown = stage->countdown;
    create(&ring, &stage->options); /* which sweeps up */
    produce(&stage->lives[1], &ring, ONE, 1);
    cbuf_close(&ring);
    return 0;
}
static void who_sweeps_up_may_die_at_any_operation(void **state)
{
    uint64_t deaths = 0;
    (void)state;
    for (int on_full = 0; on_full < POLICIES; on_full++) {
        struct stage *stage = new_stage((uint8_t)on_full);
        struct follower follower;
        cbuf_ring ring;
        int ended = -SIGKILL;
        stage->options.producers = 4;
        stage->options.capacity = 64; /* so that nobody but the sweeper meets the rows */
        create(&ring, &stage->options);
        follow_from(&follower, stage, CBUF_OLDEST);
        new_life(&stage->lives[0], 0);
        for (stage->countdown = 1; ended != 0; stage->countdown += STRIDE) {
            uint64_t skipped = follower.skipped, lost = cbuf_lost(&follower.reader);
            new_life(&stage->lives[1], (uint32_t)stage->countdown);
            let_die_with_rows(stage, 2);
            uint64_t left = stage->lives[2].attempted;
            write_row(&stage->lives[0], &ring, &follower);
            ended = finish(start(live_as_sweeper, stage));
            CHECK(ended == 0 || ended == -SIGKILL);
            deaths += ended != 0;
            for (int lap = 0; lap < 4; lap++) {
                for (int k = 0; k < CAPACITY + 1; k++) {
                    write_row(&stage->lives[0], &ring, &follower);
                    follow(&follower, 1);
                }
                follow_to_end(&follower);
            }
            CHECK_IS(follower.reader.cursor, cbuf_head(&ring));
            lost = cbuf_lost(&follower.reader) - lost;
            CHECK(lost <= (on_full ? 0 : 4));
            skipped = follower.skipped - skipped;
            CHECK(skipped + lost >= left && skipped <= left + 1); /* and what the sweeper began */
            check_life(&stage->lives[1], &follower, lost);
            CHECK(follower.received[0] + cbuf_lost(&follower.reader) >= stage->lives[0].confirmed);
        }
        CHECK(stage->countdown > 60);
        end_follower(&follower);
        cbuf_close(&ring);
        end_stage(stage);
    }
    print_message("deaths of sweepers: %llu\n", (unsigned long long)deaths);
}

static int join_with_a_stop(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    close(stage->lives[1].deeds); /* the sweeper's */
    kill_signal = SIGSTOP;
    kill_countdown = stage->countdown;
    create(&ring, &stage->options);
    cbuf_close(&ring);
    return 0;
}
/* Its lock is the sweeper's until the joiner has come to one of its operations. */
static void who_joins_waits_for_a_place_that_is_being_swept_up(void **state)
{
    (void)state;
    struct stage *stage = new_stage(CBUF_OVERWRITE);
    cbuf_ring ring;
    stage->options.producers = 2;
    create(&ring, &stage->options);
    for (stage->countdown = 1; stage->countdown < 150; stage->countdown += 7) {
        int status = 0;
        let_die_with_rows(stage, 2);
        int sweeper = open(file_of(stage->name, ".lock"), O_RDWR | O_CLOEXEC);
        CHECK_IS(cbuf__lock(sweeper, CBUF__EXCLUSIVE, 2, false), 0);
        stage->lives[1].deeds = sweeper;
        pid_t child = start(join_with_a_stop, stage);
        CHECK_IS(waitpid(child, &status, WUNTRACED), child);
        CHECK(WIFSTOPPED(status));
        close(sweeper);
        CHECK_IS(finish_stopping(child), 0);
    }
    cbuf_close(&ring);
    end_stage(stage);
}

/* ---- all dead: the reader mends; the gate is not in the way of those who sweep ---- */

static int write_and_die(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    create(&ring, &stage->options);
    for (int k = 0; k < 3; k++) CHECK_IS(produce(&stage->lives[1], &ring, ONE, 1), 1);
    return raise(SIGKILL);
}
static int hold_rows(void *argument) /* claims two, and lives until it is killed */
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    int64_t granted;
    create(&ring, &stage->options);
    CHECK(cbuf_claim(&ring, 2, &granted));
    give_cue(&stage->ready);
    return live_on();
}
static void a_waiting_reader_gets_the_rows_behind_one_of_the_dead(void **state)
{
    (void)state;
    for (int patient = 0; patient < 2; patient++) {
        struct stage *stage = new_stage(CBUF_OVERWRITE);
        struct follower follower;
        new_life(&stage->lives[1], 1);
        pid_t holder = start(hold_rows, stage);
        await_cue(&stage->ready);
        CHECK_IS(finish(start(write_and_die, stage)), -SIGKILL);
        follow_from(&follower, stage, CBUF_OLDEST);
        CHECK_IS(cbuf_wait(&follower.reader, 1, 700000000), 0); /* the holder lives */
        CHECK_IS(end_by(holder, SIGKILL), -SIGKILL);
        int64_t began = now_ns(), there = 0;
        while (!there) {
            there = cbuf_wait(&follower.reader, 3, patient ? CBUF_FOREVER : 20000000);
            CHECK(now_ns() - began < 20000000000);
        }
        CHECK_IS(there, 3);
        follow_to_end(&follower);
        CHECK_IS(follower.received[1], 3);
        CHECK_IS(cbuf_skipped(&follower.reader), 2);
        CHECK_IS(cbuf_producer_alive(&follower.ring), 0);
        CHECK_IS(stats_of(&follower.ring).closed, false); /* nobody said so */
        end_follower(&follower);
        end_stage(stage);
    }
}
static int poll_for_rows(void *argument) /* a gate that never waits, so that it never mends */
{
    struct stage *stage = (struct stage *)argument;
    struct follower follower;
    follow_from(&follower, stage, CBUF_OLDEST);
    give_cue(&stage->ready);
    while (follower.received[0] < CAPACITY + 4) follow(&follower, 4), sched_yield();
    CHECK_IS(cbuf_lost(&follower.reader), 0);
    CHECK_IS(cbuf_skipped(&follower.reader), 2);
    end_follower(&follower);
    return 0;
}
static void a_row_of_the_dead_before_a_gate_wedges_no_producer(void **state)
{
    (void)state;
    for (uint8_t on_full = CBUF_BLOCK; on_full <= CBUF_DROP_NEWEST; on_full++) {
        struct stage *stage = new_stage(on_full);
        cbuf_ring ring;
        stage->options.block_ns = 0;
        create(&ring, &stage->options);
        new_life(&stage->lives[0], 0);
        pid_t gate = start(poll_for_rows, stage);
        await_cue(&stage->ready);
        pid_t holder = start(hold_rows, stage);
        await_cue(&stage->ready);
        for (int k = 0; k < CAPACITY - 2; k++)
            CHECK_IS(produce(&stage->lives[0], &ring, ONE, 1), 1);
        if (on_full) CHECK_IS(end_by(holder, SIGKILL), -SIGKILL);
        CHECK_IS(cbuf_wait_room(&ring, 4, 20000000000), 1);
        while (stage->lives[0].confirmed < CAPACITY + 4)
            CHECK(produce(&stage->lives[0], &ring, ONE, 1) >= 0);
        CHECK_IS(finish(gate), 0);
        cbuf_close(&ring);
        end_stage(stage);
    }
}

static int wait_behind_rows_given_up(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    int64_t granted;
    endless_naps = true; /* who is not woken sleeps for ever */
    create(&ring, &stage->options);
    for (int k = 0; k < 4; k++) {
        CHECK(cbuf_claim(&ring, CAPACITY / 4, &granted));
        CHECK_IS(granted, CAPACITY / 4);
        CHECK_IS(cbuf_publish(&ring, 0), 0);
    }
    CHECK_IS(produce(&stage->lives[1], &ring, ONE, 1), 1);
    cbuf_close(&ring);
    return 0;
}
static void a_gate_that_only_passes_over_rows_wakes_who_waits_for_room(void **state)
{
    (void)state;
    struct stage *stage = new_stage(CBUF_BLOCK);
    struct follower follower;
    cbuf_ring ring;
    siginfo_t end;
    stage->options.block_ns = 0;
    create(&ring, &stage->options);
    follow_from(&follower, stage, CBUF_OLDEST);
    new_life(&stage->lives[1], 1);
    pid_t child = start(wait_behind_rows_given_up, stage);
    while (!stats_of(&ring).waits) sched_yield();
    await_rest(child);
    follow(&follower, 1);
    CHECK_IS(cbuf_skipped(&follower.reader), CAPACITY);
    memset(&end, 0, sizeof end);
    for (int64_t began = now_ns(); !end.si_pid && now_ns() - began < 20000000000; sched_yield())
        CHECK_IS(waitid(P_PID, (id_t)child, &end, WEXITED | WNOHANG | WNOWAIT), 0);
    CHECK_IS(end.si_pid, child);
    CHECK_IS(finish(child), 0);
    follow_to_end(&follower);
    CHECK_IS(follower.received[1], 1);
    end_follower(&follower);
    cbuf_close(&ring);
    end_stage(stage);
}

/* ---- stopped at each operation, and going on ---- */

static int write_with_a_stop(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    create(&ring, &stage->options);
    ring.options.block_ns = 20000000000; /* the time of standing still counts */
    kill_signal = SIGSTOP;
    kill_countdown = stage->countdown;
    int64_t done = produce(&stage->lives[1], &ring, stage->lives[1].deeds, 3);
    kill_countdown = 0;
    CHECK(done > 0);
    cbuf_close(&ring);
    return 0;
}
static void who_stands_still_in_the_middle_is_never_overwritten(void **state)
{
    uint64_t held = 0, stops = 0;
    (void)state;
    for (int kind = 0; kind < 2 * POLICIES; kind++) {
        struct stage *stage = new_stage((uint8_t)(kind / 2));
        struct follower follower;
        cbuf_ring ring;
        bool stopped = true;
        create(&ring, &stage->options);
        follow_from(&follower, stage, CBUF_OLDEST);
        new_life(&stage->lives[0], 0);
        for (stage->countdown = 1; stopped; stage->countdown += STRIDE) {
            int status = 0;
            new_life(&stage->lives[1], (uint32_t)stage->countdown);
            stage->lives[1].deeds = kind % 2 ? SOME : IN_PLACE;
            pid_t child = start(write_with_a_stop, stage);
            CHECK_IS(waitpid(child, &status, WUNTRACED), child);
            stopped = WIFSTOPPED(status);
            stops += stopped;
            int64_t done = 1;
            for (int k = 0; stopped && done > 0 && k < 3 * CAPACITY; k++) {
                done = produce(&stage->lives[0], &ring, ONE, 1);
                follow(&follower, 2);
            }
            if (done <= 0) { /* up to its rows, a lap further on, and no further */
                CHECK_IS(done, stage->options.on_full == CBUF_DROP_NEWEST ? 0 : CBUF_ETIMEDOUT);
                cbuf_producer_stats stats;
                CHECK_IS(cbuf_producer_stats_get(&ring, 1, &stats), 1);
                CHECK_IS(stats.pid, child);
                CHECK(stats.end > stats.begin && stats.behind > 0);
                CHECK(follower.reader.cursor >= stats.begin && follower.reader.cursor < stats.end);
                held++;
            }
            if (stopped) CHECK_IS(finish_stopping(child), 0);
            else forget(child);
            if (stopped) follow_to_end(&follower);
            write_a_lap(&stage->lives[0], &ring, &follower); /* they go on */
            CHECK_IS(follower.skipped, 0);
            CHECK_IS(cbuf_lost(&follower.reader), 0);
            CHECK_IS(follower.received[stage->countdown], stage->lives[1].confirmed);
            CHECK_IS(follower.received[0], stage->lives[0].confirmed);
        }
        CHECK(stage->countdown > 12);
        end_follower(&follower);
        cbuf_close(&ring);
        end_stage(stage);
    }
    CHECK(held > stops / 4);
    print_message("stops: %llu, of which %llu in a claim\n", (unsigned long long)stops,
        (unsigned long long)held);
}

static int close_with_a_stop(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    create(&ring, &stage->options);
    for (int k = 0; k < 3; k++) CHECK_IS(produce(&stage->lives[1], &ring, ONE, 1), 1);
    kill_signal = SIGSTOP;
    kill_countdown = stage->countdown;
    cbuf_close(&ring);
    return 0;
}
/* While one stands still at each operation of its close the other one leaves, by a close or by
 * death with rows in its pen; then the first goes on, and is the last. */
static void the_last_to_leave_closes_the_ring_and_leaves_no_row_behind(void **state)
{
    (void)state;
    for (int dies = 0; dies < 2; dies++) {
        bool stopped = true;
        uint64_t countdown = 1, closes = 0; /* not by one who had left before the other died */
        uint64_t late = 0; /* these were; some of them are enough, as each takes half a second */
        for (; stopped && late < 4; countdown += STRIDE) {
            struct stage *stage = new_stage(CBUF_BLOCK);
            struct follower follower;
            cbuf_ring ring;
            pid_t holder = 0;
            int status = 0;
            stage->countdown = countdown;
            new_life(&stage->lives[1], 1);
            if (dies) holder = start(hold_rows, stage), await_cue(&stage->ready);
            else create(&ring, &stage->options);
            pid_t child = start(close_with_a_stop, stage);
            CHECK_IS(waitpid(child, &status, WUNTRACED), child);
            stopped = WIFSTOPPED(status);
            if (!stopped) forget(child);
            follow_from(&follower, stage, CBUF_OLDEST);
            if (dies) CHECK_IS(end_by(holder, SIGKILL), -SIGKILL);
            else cbuf_close(&ring);
            if (stopped) CHECK_IS(finish_stopping(child), 0);
            int64_t there = 1, began = now_ns();
            while (there > 0 || (!there && follower.received[1] < 3)) {
                there = cbuf_wait(&follower.reader, 1, 1000000);
                if (there > 0) follow(&follower, 1);
                CHECK(now_ns() - began < 20000000000);
            }
            CHECK_IS(follower.received[1], 3);
            if (there) CHECK_IS(there, CBUF_ECLOSED);
            if (!dies) CHECK_IS(there, CBUF_ECLOSED);
            closes += there != 0;
            late += there == 0;
            end_follower(&follower);
            end_stage(stage);
        }
        CHECK(countdown > 10 && closes > 5 / STRIDE);
    }
}

/* ---- random deaths ---- */

static int produce_until_death(void *argument)
{
    struct life *life = (struct life *)argument;
    struct stage *stage = (struct stage *)(void *)((char *)life -
        (size_t)life->deeds * sizeof *life - offsetof(struct stage, lives));
    uint64_t seed = life->seed;
    cbuf_ring ring;
    be_mortal(next_random(&seed));
    create(&ring, &stage->options);
    for (uint64_t chance; (chance = next_random(&seed)) != 0;) { /* for ever */
        produce(life, &ring, (int)(chance % WAYS), 1 + (uint32_t)(chance / WAYS % 4));
        if (chance % 1024 == 0) cbuf_close(&ring), create(&ring, &stage->options);
    }
    return 1;
}
static int read_until_death(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    uint64_t seed = stage->countdown;
    struct follower follower;
    be_mortal(next_random(&seed));
    for (uint64_t chance; (chance = next_random(&seed)) != 0;) { /* for ever */
        follow_from(&follower, stage, CBUF_NEWEST);
        for (uint64_t n = chance % 10000; n; n--)
            if (!follow(&follower, 1 + (uint32_t)next_random(&seed) % 20))
                cbuf_wait(&follower.reader, 1 + (uint32_t)n % 3, 1000000);
        if (stage->options.on_full) CHECK_IS(cbuf_lost(&follower.reader), 0);
        end_follower(&follower);
    }
    return 1;
}

struct totals {
    uint64_t producers, readers, rows, accepted, skipped, lost;
};

/* So many deaths under one policy, three producers and a reader at a time, while one reader lives
 * through them all. */
static void let_die(uint8_t on_full, uint64_t kills, uint64_t seed, struct totals *totals)
{
    struct stage *stage = new_stage(on_full);
    struct follower follower;
    pid_t mortals[4] = { 0 };
    cbuf_ring ring;
    uint32_t numbers = 0;
    uint64_t deaths = 0, *confirmed = (uint64_t *)calloc(LIVES, sizeof *confirmed);
    CHECK(confirmed);
    if (seed % 2) stage->options.capacity = 256;
    stage->options.producers = 3;
    create(&ring, &stage->options);
    follow_from(&follower, stage, CBUF_OLDEST);
    cbuf_close(&ring);
    while (deaths < kills) {
        for (int k = 0; k < 4; k++) {
            if (mortals[k]) continue;
            struct life *life = &stage->lives[k];
            stage->countdown = next_random(&seed);
            if (k < 3) new_life(life, ++numbers);
            life->seed = next_random(&seed);
            life->deeds = k;
            mortals[k] = k < 3 ? start(produce_until_death, life) : start(read_until_death, stage);
        }
        for (int k = 0; k < 20; k++)
            if (!follow(&follower, 1 + (uint32_t)next_random(&seed) % 40))
                cbuf_wait(&follower.reader, 1, 100000);
        if (on_full) CHECK_IS(cbuf_lost(&follower.reader), 0);
        for (int k = 0; k < 4; k++) {
            siginfo_t end;
            memset(&end, 0, sizeof end);
            CHECK_IS(waitid(P_PID, (id_t)mortals[k], &end, WEXITED | WNOHANG | WNOWAIT), 0);
            if (!end.si_pid) continue;
            int ended = finish(mortals[k]);
            CHECK_IS(ended, -SIGKILL);
            if (k < 3) confirmed[stage->lives[k].number] = stage->lives[k].confirmed;
            mortals[k] = 0;
            deaths++;
            totals->producers += k < 3;
            totals->readers += k == 3;
        }
    }
    for (int k = 0; k < 4; k++) {
        if (!mortals[k]) continue;
        CHECK_IS(end_by(mortals[k], SIGKILL), -SIGKILL);
        if (k < 3) confirmed[stage->lives[k].number] = stage->lives[k].confirmed;
    }
    create(&ring, &stage->options);
    new_life(&stage->lives[0], 0);
    for (int k = 0; k < 2 * 256 / CAPACITY; k++) /* two laps of the longer ring */
        for (int n = 0; n < CAPACITY; n++) write_row(&stage->lives[0], &ring, &follower);
    follow_to_end(&follower);
    CHECK_IS(follower.reader.cursor, cbuf_head(&ring));
    CHECK_IS(cbuf_head(&ring), cbuf__load_relaxed(&ring.file->claim));
    for (uint32_t k = 1; k <= numbers && on_full; k++)
        CHECK(follower.received[k] >= confirmed[k]); /* a gate misses nothing */
    totals->rows += cbuf_head(&ring);
    totals->accepted += follower.accepted;
    totals->skipped += cbuf_skipped(&follower.reader);
    totals->lost += cbuf_lost(&follower.reader);
    end_follower(&follower);
    cbuf_close(&ring);
    free(confirmed);
    end_stage(stage);
}
static void random_deaths_tear_double_and_wedge_nothing(void **state)
{
    const char *wanted = getenv("CBUF_KILLS");
    uint64_t kills = wanted ? strtoull(wanted, NULL, 10) : 400, seed = 20240229;
    struct totals totals;
    (void)state;
    CHECK(kills < LIVES / 2);
    memset(&totals, 0, sizeof totals);
    for (int kind = 0; kind < 2 * POLICIES; kind++) /* both capacities of each */
        let_die((uint8_t)(kind / 2), (kills + 5) / 6,
            next_random(&seed) / 2 * 2 + (uint64_t)kind % 2, &totals);
    print_message("random deaths: %llu producers, %llu readers; rows: %llu claimed, ",
        (unsigned long long)totals.producers, (unsigned long long)totals.readers,
        (unsigned long long)totals.rows);
    print_message("%llu accepted, %llu given up, %llu lost\n",
        (unsigned long long)totals.accepted, (unsigned long long)totals.skipped,
        (unsigned long long)totals.lost);
    CHECK(totals.producers + totals.readers >= kills);
    CHECK_IS(totals.accepted + totals.skipped + totals.lost, totals.rows);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_begin, scene_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_producer_may_die_at_any_operation_beside_others),
        TEST(who_sweeps_up_may_die_at_any_operation),
        TEST(who_joins_waits_for_a_place_that_is_being_swept_up),
        TEST(a_waiting_reader_gets_the_rows_behind_one_of_the_dead),
        TEST(a_row_of_the_dead_before_a_gate_wedges_no_producer),
        TEST(a_gate_that_only_passes_over_rows_wakes_who_waits_for_room),
        TEST(who_stands_still_in_the_middle_is_never_overwritten),
        TEST(the_last_to_leave_closes_the_ring_and_leaves_no_row_behind),
        TEST(random_deaths_tear_double_and_wedge_nothing),
    };
    const char *kills = getenv("CBUF_KILLS");
    scene_open(300 + (unsigned)((kills ? strtoull(kills, NULL, 10) : 0) / 10));
    return scene_close(cmocka_run_group_tests(tests, NULL, NULL));
}
