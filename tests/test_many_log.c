/*
 * test_many_log.c - several producers, threads and processes, that spill into one file, or log
 * every row in one. What holds: every row that a write said was taken comes out once, each
 * producer's in their order, whoever is killed at whatever operation; what is missing is counted.
 *
 * CBUF_MANY_LOG_KILLS (environment): how many random deaths there are; 60 if it is not set.
 */
#define CBUF_ACCESS_HEADER "kill_access.h"
#include "process.h"
#include <pthread.h>

static bool torn_writes; /* a write to the file comes in two halves: there can be a death between */
static int failing; /* the errno of the next write, of which a half is done; or 0 */

static ssize_t write_in_halves(int fd, const struct iovec *parts, int n, off_t at)
{
    unsigned char all[8192];
    size_t total = parts[0].iov_len + parts[1].iov_len, half = total / 2;
    if ((!torn_writes && !failing) || total > sizeof all) return pwritev(fd, parts, n, at);
    memcpy(all, parts[0].iov_base, parts[0].iov_len);
    memcpy(all + parts[0].iov_len, parts[1].iov_base, parts[1].iov_len);
    CHECK_IS(pwrite(fd, all, half, at), half);
    if (failing) return errno = failing, failing = 0, -1;
    CHECK_IS(pwrite(fd, all + half, total - half, at + (off_t)half), total - half);
    return (ssize_t)total;
}
#undef pwritev
#define pwritev(fd, parts, n, at) write_in_halves(fd, parts, n, at)
#include <cbuf_log.h>

/* ---- rows: whose they are, and which of his ---- */

#define CAPACITY 16u
#define MOST 64u
enum { LIVES = 1 << 16, KEPT = 1 << 16 };

struct row {
    uint64_t life, number, check;
    uint32_t tail, padding;
};
typedef struct row a_row;
static const cbuf_column row_columns[] = { CBUF_COLUMN(a_row, life), CBUF_COLUMN(a_row, number),
    CBUF_COLUMN(a_row, check), CBUF_COLUMN(a_row, tail) };

static struct row row_of(uint64_t life, uint64_t number)
{
    struct row made;
    uint64_t seed = life << 40 ^ number;
    memset(&made, 0, sizeof made);
    made.life = life;
    made.number = number;
    made.check = next_random(&seed);
    made.tail = (uint32_t)next_random(&seed);
    return made;
}

static bool is_same(const struct row *a, const struct row *b)
{
    return a->life == b->life && a->number == b->number && a->check == b->check &&
        a->tail == b->tail;
}

/* What a producer, from its start to its end, has tried to write, and what was taken. */
struct life {
    uint64_t attempted, confirmed;
};
struct stage { /* shared by all processes */
    char name[64], path[128];
    bool in_place, every_row;
    int on_full;
    uint64_t capacity, max_bytes, lives, countdown, seed, total, episodes, appended;
    struct cue ready, go;
    struct life life[LIVES];
};
static struct stage *new_stage(int on_full, bool every_row)
{
    struct stage *stage = (struct stage *)shared_memory(sizeof *stage);
    snprintf(stage->name, sizeof stage->name, "%s", new_name());
    snprintf(stage->path, sizeof stage->path, "%s", new_path());
    stage->on_full = on_full;
    stage->every_row = every_row;
    stage->ready = new_cue();
    stage->go = new_cue();
    return stage;
}
static void end_stage(struct stage *stage)
{
    end_cue(&stage->ready);
    end_cue(&stage->go);
    munmap(stage, sizeof *stage);
}

struct producer {
    struct stage *stage;
    cbuf_ring ring;
    cbuf_log log;
    uint64_t life;
};
static cbuf_options ring_options(const struct stage *stage)
{
    cbuf_options options;
    memset(&options, 0, sizeof options);
    options.name = stage->name;
    options.capacity = stage->capacity ? stage->capacity : CAPACITY;
    options.reserve_step = 2;
    options.columns = row_columns;
    options.column_count = 4;
    options.row_bytes = sizeof(struct row);
    options.max_readers = 4;
    options.producers = 6;
    options.in_place = stage->in_place;
    options.on_full = (uint8_t)stage->on_full;
    return options;
}
static cbuf_log_options log_options(const struct stage *stage)
{
    cbuf_log_options options;
    memset(&options, 0, sizeof options);
    options.path = stage->path;
    options.every_row = stage->every_row;
    options.sync_ns = CBUF_FOREVER;
    options.max_bytes = stage->max_bytes;
    options.at_limit = CBUF_LOG_WAIT;
    return options;
}
static void join_ring(struct producer *p, struct stage *stage)
{
    cbuf_options options = ring_options(stage);
    p->stage = stage;
    p->life = __atomic_fetch_add(&stage->lives, 1, __ATOMIC_RELAXED);
    CHECK(p->life < LIVES);
    int error = cbuf_create(&p->ring, &options);
    CHECK_IS_FOR(cbuf_error(&p->ring), error, 0);
}
static void join_with_log(struct producer *p, struct stage *stage)
{
    cbuf_log_options options = log_options(stage);
    join_ring(p, stage);
    int error = cbuf_log_open(&p->log, &p->ring, &options);
    CHECK_IS_FOR(cbuf_log_error(&p->log), error, 0);
    CHECK_IS(cbuf_log_report_get(&p->log).rows_missing, 0);
}
static int64_t try_produce(struct producer *p, uint32_t n)
{
    struct row rows[MOST];
    struct life *life = &p->stage->life[p->life];
    CHECK(n <= MOST);
    for (uint32_t k = 0; k < n; k++) rows[k] = row_of(p->life, life->confirmed + k);
    __atomic_store_n(&life->attempted, life->confirmed + n, __ATOMIC_RELEASE);
    int64_t put = n == 1 ? cbuf_write(&p->ring, rows) : cbuf_write_n(&p->ring, rows, n);
    uint64_t taken = put > 0 ? (uint64_t)put : 0;
    __atomic_store_n(&life->confirmed, life->confirmed + taken, __ATOMIC_RELEASE);
    return put;
}
static void produce(struct producer *p, uint32_t n) { CHECK_IS(try_produce(p, n), n); }

/* The reader: each life's rows come whole, each once, from number 0 on. */
struct follower {
    struct stage *stage;
    cbuf_ring ring;
    cbuf_reader reader;
    uint64_t rows;
    uint64_t next[LIVES];
    struct row kept[KEPT]; /* the first of all rows, and their numbers in the ring */
    uint64_t sequence[KEPT];
};
static void follow_from(struct follower *follower, struct stage *stage)
{
    cbuf_reader_options options;
    memset(&options, 0, sizeof options);
    options.spins = 10;
    memset(follower, 0, sizeof *follower);
    follower->stage = stage;
    int error = cbuf_attach(&follower->ring, stage->name, NULL);
    CHECK_IS_FOR(cbuf_error(&follower->ring), error, 0);
    CHECK_IS(cbuf_reader_open(&follower->reader, &follower->ring, &options), 0);
}
static int64_t follow(struct follower *follower, uint32_t n)
{
    struct row rows[MOST];
    int64_t got = cbuf_read(&follower->reader, rows, n < MOST ? n : MOST);
    CHECK(got >= 0);
    CHECK_IS(cbuf_lost(&follower->reader), 0);
    for (int64_t k = 0; k < got; k++) {
        CHECK(rows[k].life < LIVES);
        struct row wanted = row_of(rows[k].life, follower->next[rows[k].life]++);
        CHECK_IS(rows[k].number, wanted.number);
        CHECK(rows[k].check == wanted.check && rows[k].tail == wanted.tail);
        if (follower->rows < KEPT) {
            follower->kept[follower->rows] = rows[k];
            follower->sequence[follower->rows] = cbuf_first(&follower->reader) + (uint64_t)k;
        }
        follower->rows++;
    }
    return got;
}
static void follow_to_end(struct follower *follower)
{
    while (follow(follower, MOST) > 0) {}
}
static void end_follower(struct follower *follower)
{
    cbuf_reader_close(&follower->reader);
    cbuf_close(&follower->ring);
}
/* No accepted row is missing, and none is there that was not tried. */
static void check_lives(const struct follower *follower)
{
    const struct stage *stage = follower->stage;
    for (uint64_t k = 0; k < stage->lives; k++) {
        const struct life *life = &stage->life[k];
        char text[120];
        snprintf(text, sizeof text, "life %d of %d: %d came, %d taken, %d tried", (int)k,
            (int)stage->lives, (int)follower->next[k], (int)life->confirmed, (int)life->attempted);
        CHECK_FOR(text, follower->next[k] >= life->confirmed);
        CHECK_FOR(text, follower->next[k] <= life->attempted);
    }
}
static void drain(struct producer *p, struct follower *follower)
{
    do follow_to_end(follower);
    while (cbuf_log_drain(&p->log, 0) == 0);
    cbuf__sweep_dead(&p->ring); /* what was claimed and is in no file; as a reader's wait does */
    follow_to_end(follower);
    CHECK_IS(cbuf_log_stats_get(&p->log).pending, 0);
}
/* A log of every row has those that came from producers with a log, and no others: under the same
 * numbers. */
static void check_log(const struct follower *follower, const bool *without_log)
{
    cbuf_log_scan scan;
    const void *at;
    uint64_t first, k = 0;
    CHECK(follower->rows <= KEPT);
    CHECK_IS(cbuf_log_scan_open(&scan, follower->stage->path), 0);
    for (int64_t n; (n = cbuf_log_next(&scan, &at, &first, NULL)) > 0;) {
        const struct row *row = (const struct row *)at;
        for (int64_t i = 0; i < n; i++, k++) {
            while (without_log && k < follower->rows && without_log[follower->kept[k].life]) k++;
            CHECK(k < follower->rows);
            CHECK_IS(follower->sequence[k], first + (uint64_t)i);
            CHECK(is_same(&row[i], &follower->kept[k]));
        }
    }
    while (without_log && k < follower->rows && without_log[follower->kept[k].life]) k++;
    CHECK_IS(k, follower->rows);
    cbuf_log_scan_close(&scan);
}
static uint64_t size_of(const char *path)
{
    struct stat file;
    return stat(path, &file) ? UINT64_MAX : (uint64_t)file.st_size;
}
static uint64_t blocks_of(const char *path)
{
    struct stat file;
    return stat(path, &file) ? 0 : (uint64_t)file.st_blocks;
}
static struct follower *new_follower(struct stage *stage)
{
    struct follower *follower = (struct follower *)calloc(1, sizeof *follower);
    CHECK(follower != NULL);
    follow_from(follower, stage);
    return follower;
}

/* ---- order, through many episodes ---- */

static void add_up(const struct producer *p)
{
    cbuf_log_stats stats = cbuf_log_stats_get(&p->log);
    __atomic_fetch_add(&p->stage->episodes, stats.episodes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&p->stage->appended, stats.appended, __ATOMIC_RELAXED);
}
static int produce_many(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    static __thread struct producer p;
    join_with_log(&p, stage);
    uint64_t seed = 91 + p.life, left = stage->total;
    while (left) {
        uint64_t chance = next_random(&seed);
        uint32_t n = chance % 3 ? 1 + (uint32_t)(chance / 4 % 12) : 1;
        if (n > left) n = (uint32_t)left;
        produce(&p, n);
        left -= n;
        int64_t most = chance / 2048 % 2 ? 20000 : (int64_t)CBUF_FOREVER;
        if (chance / 64 % 16 == 0) cbuf_log_drain(&p.log, most);
        if (chance / 1024 % 256 == 0) { /* leaves, and comes again as another */
            add_up(&p);
            CHECK_IS(cbuf_log_close(&p.log), 0);
            cbuf_close(&p.ring);
            join_with_log(&p, stage);
        }
    }
    add_up(&p);
    cbuf_close(&p.ring);
    return 0;
}
static void *run_thread(void *stage) { return produce_many(stage), (void *)NULL; }
static struct producer founder; /* makes the ring */
static int run_process(void *stage)
{
    cbuf_close(&founder.ring); /* or its locks live on here */
    return produce_many(stage);
}

/* Reads, now slowly and now fast, until `total` rows came; a producer moves what others left. */
static void follow_all(struct follower *follower, uint64_t total)
{
    static struct producer last;
    uint64_t seed = 5, turns = 0;
    bool joined = false;
    while (follower->rows < total) {
        uint64_t chance = next_random(&seed);
        int64_t got = follow(follower, turns++ / 64 % 2 ? MOST : 1 + (uint32_t)(chance % 3));
        if (!got && cbuf_wait(&follower->reader, 1, 1000000) == CBUF_ECLOSED && !joined) {
            join_with_log(&last, follower->stage);
            joined = true;
        }
        if (joined) cbuf_log_drain(&last.log, 0);
        if (turns / 64 % 2 == 0) sched_yield();
    }
    if (joined) cbuf_close(&last.ring);
    CHECK_IS(follower->rows, total);
    CHECK_IS(cbuf_skipped(&follower->reader), 0);
}
static void play(bool threads, int on_full, bool every_row, bool in_place, uint32_t count)
{
    if (!threads && !fork_wipes()) return; /* a child could not tell the handle from its own */
    struct stage *stage = new_stage(on_full, every_row);
    pthread_t thread[4];
    pid_t process[4];
    stage->in_place = in_place;
    stage->total = CHECK_SANITIZED || is_emulated() ? 300 : 2000;
    join_with_log(&founder, stage);
    struct follower *follower = new_follower(stage);
    for (uint32_t k = 0; k < count; k++) {
        if (threads) CHECK_IS(pthread_create(&thread[k], NULL, run_thread, stage), 0);
        else process[k] = start(run_process, stage);
    }
    cbuf_close(&founder.ring);
    follow_all(follower, count * stage->total);
    for (uint32_t k = 0; k < count; k++) {
        if (threads) CHECK_IS(pthread_join(thread[k], NULL), 0);
        else CHECK_IS(finish(process[k]), 0);
    }
    check_lives(follower);
    print_message("%u producers: %llu episodes, %llu rows in the file\n", count,
        (unsigned long long)stage->episodes, (unsigned long long)stage->appended);
    if (every_row) check_log(follower, NULL);
    else CHECK_IS(size_of(stage->path), UINT64_MAX); /* the last one took it away */
    cbuf_stats stats;
    CHECK_IS(cbuf_stats_get(&follower->ring, &stats), 0);
    CHECK_IS(stats.dropped + stats.aborted + stats.spilled, 0);
    end_follower(follower);
    CHECK_IS(cbuf_remove(stage->name), 0);
    free(follower);
    end_stage(stage);
}
static void threads_spill_in_one_order(void **state)
{
    (void)state;
    for (uint32_t count = 2; count <= 4; count++) play(true, CBUF_SPILL, false, count == 3, count);
}
static void processes_spill_in_one_order(void **state)
{
    (void)state;
    for (uint32_t count = 2; count <= 4; count++) play(false, CBUF_SPILL, false, count == 2, count);
}
static void threads_and_processes_log_every_row(void **state)
{
    (void)state;
    play(true, CBUF_SPILL, true, false, 3);
    play(false, CBUF_SPILL, true, true, 2);
    play(true, CBUF_BLOCK, true, false, 3);
    play(false, CBUF_BLOCK, true, false, 2);
}

/* ---- deaths ---- */

/* Lets the parent's reader, and its producer, do a little. */
static void pause_for_parent(struct stage *stage)
{
    give_cue(&stage->ready);
    await_cue(&stage->go);
}
static int live_as_victim(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    static struct producer p;
    torn_writes = true;
    kill_countdown = stage->countdown;
    join_with_log(&p, stage);
    for (int round = 0; round < 2; round++) {
        produce(&p, stage->on_full == CBUF_SPILL ? 10 : 3);
        produce(&p, 1);
        pause_for_parent(stage);
        produce(&p, 5);
        pause_for_parent(stage);
    }
    for (int tries = 0; tries < 8 && cbuf_log_drain(&p.log, 0) == 0; tries++)
        pause_for_parent(stage);
    produce(&p, 2);
    CHECK_IS(cbuf_log_close(&p.log), 0);
    cbuf_close(&p.ring);
    return 0;
}
/* Whether the child gave its cue; or else it is dead. */
static bool hear(struct stage *stage)
{
    struct pollfd awaited = { stage->ready.heard, POLLIN, 0 };
    char byte;
    for (;;) {
        siginfo_t end;
        memset(&end, 0, sizeof end);
        waitid(P_ALL, 0, &end, WEXITED | WNOHANG | WNOWAIT);
        if (poll(&awaited, 1, end.si_pid ? 0 : 1) > 0)
            return read(stage->ready.heard, &byte, 1) == 1;
        if (end.si_pid) return false;
    }
}
/* One without a log sweeps; it is let in if nothing is in the file only. */
static uint64_t meddle(struct stage *stage)
{
    static struct producer p;
    join_ring(&p, stage);
    int64_t put = try_produce(&p, 1);
    CHECK(put == 1 || put == CBUF_ENOSPILL);
    cbuf_close(&p.ring);
    return p.life;
}
static void one_may_die_at_any_operation_while_others_live(void **state)
{
    static const struct {
        int on_full;
        bool every_row, in_place, alone;
        uint32_t stride, backlog; /* rows in the file at the start: enough for holes in it */
    } kinds[] = { { CBUF_SPILL, false, false, false, 1, 0 },
        { CBUF_SPILL, false, true, true, 2, 0 },
        { CBUF_SPILL, true, false, false, 3, 0 }, { CBUF_BLOCK, true, false, false, 3, 0 },
        { CBUF_SPILL, true, true, true, 5, 0 }, { CBUF_SPILL, false, false, false, 3, 550 } };
    uint64_t deaths = 0, waiting = 0, holes = 0;
    static bool without_log[LIVES];
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct stage *stage = new_stage(kinds[k].on_full, kinds[k].every_row);
        static struct producer p, q;
        int ended = -SIGKILL;
        stage->in_place = kinds[k].in_place;
        if (!stage->every_row) stage->max_bytes = 8192 + 6400; /* a mark for each 800 bytes */
        if (kinds[k].backlog) { /* where there can be holes in a file */
            stage->capacity = 256;
            stage->max_bytes = 8192 + 16000; /* a mark at each record of the backlog */
            snprintf(stage->path, sizeof stage->path, "%s", file_of(new_name(), ".file"));
        }
        memset(without_log, 0, sizeof without_log);
        join_with_log(&p, stage);
        if (kinds[k].backlog) join_with_log(&q, stage);
        struct follower *follower = new_follower(stage);
        uint32_t stride = kinds[k].stride * (CHECK_SANITIZED || is_emulated() ? 16 : 1);
        for (stage->countdown = 1; ended != 0; stage->countdown += stride) {
            for (uint32_t n = 0; n < kinds[k].backlog; n += 50) produce(&p, 50);
            if (kinds[k].alone) cbuf_close(&p.ring);
            pid_t child = start(live_as_victim, stage);
            for (uint32_t n = 3; hear(stage); n += 5) {
                if (!kinds[k].alone && stage->on_full == CBUF_SPILL) produce(&p, 3);
                if (stage->on_full == CBUF_SPILL && !kinds[k].backlog) follow(follower, n);
                else follow_to_end(follower);
                give_cue(&stage->go);
            }
            ended = finish(child);
            CHECK(ended == 0 || ended == -SIGKILL);
            deaths += ended != 0;
            waiting += cbuf__claimed(&follower->ring) != cbuf_head(&follower->ring);
            uint64_t blocks = size_of(stage->path) / 512;
            holes += size_of(stage->path) != UINT64_MAX && blocks_of(stage->path) < blocks;
            if (stage->countdown % 2) without_log[meddle(stage)] = true;
            if (stage->on_full != CBUF_SPILL) follow_to_end(follower);
            if (kinds[k].alone) join_with_log(&p, stage);
            if (kinds[k].backlog) produce(&q, 2); /* who has to believe the notes */
            produce(&p, 2);
            drain(&p, follower);
            check_lives(follower);
            CHECK_IS(cbuf__claimed(&p.ring), cbuf_head(&p.ring));
        }
        CHECK(stage->countdown > 100);
        if (kinds[k].backlog && !CHECK_SANITIZED && !is_emulated()) CHECK(holes > 10);
        if (stage->every_row) check_log(follower, without_log);
        cbuf_close(&p.ring);
        if (kinds[k].backlog) cbuf_close(&q.ring);
        end_follower(follower);
        CHECK_IS(cbuf_remove(stage->name), 0);
        free(follower);
        end_stage(stage);
    }
    print_message("deaths: %llu; with claimed rows that were not published: %llu\n",
        (unsigned long long)deaths, (unsigned long long)waiting);
    if (!CHECK_SANITIZED && !is_emulated()) CHECK(waiting > 10);
}

static void die_now(int signal_number)
{
    (void)signal_number;
    kill(getpid(), SIGKILL);
}
static int produce_until_death(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    static struct producer p;
    uint64_t seed = stage->seed;
    struct itimerval at;
    memset(&at, 0, sizeof at);
    at.it_value.tv_usec = (int)(1 + next_random(&seed) % (8u << next_random(&seed) % 12));
    torn_writes = seed % 2;
    signal(SIGALRM, die_now);
    setitimer(ITIMER_REAL, &at, NULL);
    join_with_log(&p, stage);
    for (uint64_t chance; (chance = next_random(&seed)) != 0;) { /* for ever */
        produce(&p, 1 + (uint32_t)(chance % 20));
        if (chance / 128 % 64 == 0) cbuf_log_drain(&p.log, 100000);
        if (chance / 8192 % 512 == 0) cbuf_close(&p.ring), join_with_log(&p, stage);
    }
    return 1;
}
static void random_deaths_lose_and_double_no_row(void **state)
{
    enum { AT_ONCE = 3 };
    const char *wanted = getenv("CBUF_MANY_LOG_KILLS");
    uint64_t kills = wanted ? strtoull(wanted, NULL, 10) : 60;
    uint64_t seed = 20240607, rows = 0, skipped = 0;
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct stage *stage = new_stage(CBUF_SPILL, kind == 2);
        static struct producer p;
        pid_t child[AT_ONCE] = { 0 };
        uint64_t begun = 0, dead = 0;
        stage->in_place = kind == 1;
        if (kind < 2) stage->max_bytes = 64 << 10;
        join_with_log(&p, stage);
        struct follower *follower = new_follower(stage);
        cbuf_close(&p.ring);
        while (dead < kills / 3 + AT_ONCE) {
            for (int k = 0; k < AT_ONCE; k++) {
                siginfo_t end;
                memset(&end, 0, sizeof end);
                if (child[k])
                    CHECK_IS(waitid(P_PID, (id_t)child[k], &end, WEXITED | WNOHANG | WNOWAIT), 0);
                if (end.si_pid) {
                    CHECK_IS(finish(child[k]), -SIGKILL);
                    child[k] = 0;
                    dead++;
                }
                if (child[k] || begun >= kills / 3 + AT_ONCE) continue;
                stage->seed = next_random(&seed);
                child[k] = start(produce_until_death, stage);
                begun++;
            }
            if (!follow(follower, 1 + (uint32_t)(next_random(&seed) % 30)))
                cbuf_wait(&follower->reader, 1, 50000);
        }
        join_with_log(&p, stage);
        drain(&p, follower);
        check_lives(follower);
        CHECK_IS(cbuf__claimed(&p.ring), cbuf_head(&p.ring));
        if (stage->every_row && follower->rows <= KEPT) check_log(follower, NULL);
        rows += follower->rows;
        skipped += cbuf_skipped(&follower->reader);
        cbuf_close(&p.ring);
        end_follower(follower);
        CHECK_IS(cbuf_remove(stage->name), 0);
        free(follower);
        end_stage(stage);
    }
    print_message("random deaths: %llu; rows: %llu, given up: %llu\n", (unsigned long long)kills,
        (unsigned long long)rows, (unsigned long long)skipped);
}

/* ---- together ---- */

static void a_log_of_every_row_is_replayed_in_the_rings_order(void **state)
{
    (void)state;
    struct stage *stage = new_stage(CBUF_OVERWRITE, true);
    struct producer *some = (struct producer *)calloc(3, sizeof *some);
    static struct row rows[MOST];
    uint64_t seed = 12, total = 0, first;
    cbuf_ring copy;
    cbuf_log_report report;
    CHECK(some != NULL);
    stage->capacity = 256;
    for (uint32_t k = 0; k < 3; k++) join_with_log(&some[k], stage);
    struct follower *follower = new_follower(stage);
    for (uint32_t n; total < 3000; total += n) {
        uint64_t chance = next_random(&seed);
        n = 1 + (uint32_t)(chance / 4 % 40);
        produce(&some[chance % 3], n);
        follow_to_end(follower);
    }
    CHECK_IS(follower->rows, total);
    check_log(follower, NULL);
    cbuf_options options = ring_options(stage);
    options.name = new_name();
    options.columns = NULL;
    options.column_count = 0;
    CHECK_IS(cbuf_log_replay(stage->path, &copy, &options, &report), total);
    CHECK(!report.why && report.rows == total);
    CHECK_IS(cbuf_snapshot(&copy, rows, MOST, &first), MOST);
    for (uint64_t k = 0; k < MOST; k++)
        CHECK(is_same(&rows[k], &follower->kept[first + k]));
    cbuf_close(&copy);
    for (uint32_t k = 0; k < 3; k++) CHECK_IS(cbuf_log_close(&some[k].log), 0);
    for (uint32_t k = 0; k < 30; k++) produce(&some[k % 3], 1 + k % 5); /* and on without */
    for (uint32_t k = 0; k < 3; k++) cbuf_close(&some[k].ring);
    follow_to_end(follower);
    check_lives(follower);
    end_follower(follower);
    free(follower);
    free(some);
    end_stage(stage);
}
static void who_has_no_log_waits_for_the_end_of_an_episode(void **state)
{
    (void)state;
    struct stage *stage = new_stage(CBUF_SPILL, false);
    static struct producer with, without;
    cbuf_stats stats;
    join_with_log(&with, stage);
    join_ring(&without, stage);
    struct follower *follower = new_follower(stage);
    produce(&without, 6);
    produce(&with, 20);
    CHECK_IS(try_produce(&without, 1), CBUF_ENOSPILL);
    CHECK_IS(cbuf_stats_get(&without.ring, &stats), 0);
    CHECK(stats.spilled == 10 && stats.written == CAPACITY && stats.dropped == 0);
    CHECK_IS(cbuf_log_stats_get(&with.log).pending, 10);
    follow_to_end(follower);
    CHECK_IS(try_produce(&without, 1), CBUF_ENOSPILL); /* they are not moved yet */
    drain(&with, follower);
    produce(&without, 3);
    produce(&with, 3);
    CHECK_IS(cbuf_log_close(&with.log), 0);
    produce(&with, 3);
    produce(&without, 3);
    follow_to_end(follower);
    check_lives(follower);
    cbuf_close(&with.ring);
    cbuf_close(&without.ring);
    end_follower(follower);
    free(follower);
    end_stage(stage);
}
static int open_with(struct producer *p, cbuf_log_options options)
{
    struct traces before;
    traces_now(&before);
    int error = cbuf_log_open(&p->log, &p->ring, &options);
    CHECK(error < 0 && *cbuf_log_error(&p->log) && !p->ring.hook);
    check_traces(&before, 64, cbuf_log_error(&p->log));
    return error;
}
static void all_have_the_same_file(void **state)
{
    (void)state;
    struct stage *stage = new_stage(CBUF_SPILL, false), *other = new_stage(CBUF_SPILL, false);
    static struct producer p, q, foreign;
    cbuf_log_options options = log_options(stage), bad = options;
    join_with_log(&p, stage);
    join_ring(&q, stage);
    bad.path = new_path();
    CHECK_IS(open_with(&q, bad), CBUF_EBUSY);
    CHECK(strstr(cbuf_log_error(&q.log), "another log"));
    bad.every_row = true;
    CHECK_IS(open_with(&q, bad), CBUF_EBUSY);
    bad = options, bad.existing = CBUF_REPLACE;
    CHECK_IS(open_with(&q, bad), CBUF_EBUSY);
    bad = options, bad.existing = CBUF_NEW;
    CHECK_IS(open_with(&q, bad), CBUF_EEXIST);
    join_ring(&foreign, other); /* another ring's: there is nothing in it, but it is in use */
    CHECK_IS(open_with(&foreign, options), CBUF_EBUSY);
    bad = options, bad.existing = CBUF_REPLACE;
    CHECK_IS(open_with(&foreign, bad), CBUF_EBUSY);
    CHECK_IS(cbuf_log_open(&q.log, &q.ring, &options), 0);
    CHECK_IS(cbuf_log_close(&p.log), 0);
    CHECK(size_of(stage->path) != UINT64_MAX); /* q has it */
    CHECK_IS(cbuf_log_close(&q.log), 0);
    CHECK_IS(size_of(stage->path), UINT64_MAX);
    bad.existing = CBUF_REPLACE;
    CHECK_IS(cbuf_log_open(&q.log, &q.ring, &bad), 0);
    cbuf_close(&p.ring);
    cbuf_close(&q.ring);
    cbuf_close(&foreign.ring);
    end_stage(stage);
    end_stage(other);
}
static void at_its_limit_rows_are_refused_and_counted(void **state)
{
    (void)state;
    struct stage *stage = new_stage(CBUF_SPILL, false);
    static struct producer p, q;
    cbuf_stats stats;
    uint64_t refused = 0;
    cbuf_log_options options = log_options(stage);
    options.max_bytes = 8192 + 24 * 5 + 40 * sizeof(struct row);
    options.at_limit = CBUF_LOG_REFUSE;
    join_ring(&p, stage);
    join_ring(&q, stage);
    CHECK_IS(cbuf_log_open(&p.log, &p.ring, &options), 0);
    CHECK_IS(cbuf_log_open(&q.log, &q.ring, &options), 0);
    struct follower *follower = new_follower(stage);
    for (uint32_t k = 0; k < 20; k++) {
        int64_t put = try_produce(k % 2 ? &p : &q, 10);
        CHECK(put >= 0);
        refused += 10 - (uint64_t)put;
        struct life *life = &stage->life[k % 2 ? p.life : q.life];
        life->attempted = life->confirmed;
    }
    CHECK(refused >= 200 - CAPACITY - 45 && refused <= 200 - CAPACITY - 40);
    CHECK_IS(cbuf_stats_get(&p.ring, &stats), 0);
    CHECK_IS(stats.dropped, refused);
    drain(&q, follower);
    CHECK_IS(follower->rows + refused, 200);
    produce(&p, 10);
    drain(&p, follower);
    check_lives(follower);
    cbuf_close(&p.ring);
    cbuf_close(&q.ring);
    end_follower(follower);
    free(follower);
    end_stage(stage);
}
static void a_write_that_fails_costs_its_own_rows_only(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct stage *stage = new_stage(CBUF_SPILL, kind / 2 != 0);
        static struct producer p, q;
        cbuf_log_options options = log_options(stage);
        int error = kind % 2 ? ENOSPC : EIO;
        options.at_limit = CBUF_LOG_REFUSE;
        join_ring(&p, stage);
        join_ring(&q, stage);
        CHECK_IS(cbuf_log_open(&p.log, &p.ring, &options), 0);
        CHECK_IS(cbuf_log_open(&q.log, &q.ring, &options), 0);
        struct follower *follower = new_follower(stage);
        for (uint32_t k = 0; k < 60; k++) {
            struct producer *one = k % 3 ? &p : &q;
            struct life *life = &stage->life[one->life];
            if (k == 8 || k % 7 == 0) failing = error; /* once it is the first that is spilled */
            bool full = cbuf_head(&p.ring) >= follower->reader.cursor + CAPACITY;
            bool fails = failing && (stage->every_row || full);
            int64_t put = try_produce(one, 2);
            if (fails) CHECK(put == (error == EIO ? CBUF_ESYSTEM : CBUF_ENOSPACE) && !failing);
            else CHECK_IS(put, 2);
            failing = 0;
            life->attempted = life->confirmed;
            if (k == 40) drain(&q, follower);
        }
        drain(&p, follower);
        check_lives(follower);
        CHECK_IS(cbuf_log_stats_get(&p.log).failures + cbuf_log_stats_get(&q.log).failures > 5, 1);
        if (stage->every_row) check_log(follower, NULL);
        cbuf_close(&p.ring);
        cbuf_close(&q.ring);
        end_follower(follower);
        free(follower);
        end_stage(stage);
    }
}
static void damage_while_it_is_open_is_counted_and_stops_nobody(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct stage *stage = new_stage(CBUF_SPILL, false);
        static struct producer p, q;
        cbuf_stats stats;
        char byte = 'x';
        join_with_log(&p, stage);
        join_with_log(&q, stage);
        struct follower *follower = new_follower(stage);
        for (uint32_t k = 0; k < 6; k++) produce(k % 2 ? &p : &q, 10);
        int fd = open(stage->path, O_WRONLY | O_CLOEXEC);
        if (kind == 0) CHECK_IS(ftruncate(fd, (off_t)size_of(stage->path) - 100), 0);
        if (kind == 1) CHECK_IS(pwrite(fd, &byte, 1, 8192 + 24 + 14 * 40 + 24 + 30), 1);
        if (kind == 2) CHECK_IS(pwrite(fd, &byte, 1, 4096 + 1024 + 20), 1); /* the notes */
        close(fd);
        do {
            follow_to_end(follower);
            CHECK_IS(cbuf_log_drain(&q.log, 0) >= 0, 1);
        } while (cbuf_log_drain(&p.log, 0) == 0);
        follow_to_end(follower);
        CHECK_IS(cbuf_stats_get(&p.ring, &stats), 0);
        CHECK_IS(stats.aborted + stats.spilled, 0);
        CHECK_IS(follower->rows + stats.dropped, 60);
        CHECK(kind == 2 ? stats.dropped == 0 : stats.dropped > 0);
        memset(follower->next, 0, sizeof follower->next);
        uint64_t before = follower->rows;
        for (uint32_t k = 0; k < 2; k++) { /* they go on, as new ones */
            struct producer *one = k ? &p : &q;
            one->life = stage->lives++;
            produce(one, 30);
        }
        drain(&p, follower);
        CHECK_IS(follower->rows, before + 60);
        cbuf_close(&p.ring);
        cbuf_close(&q.ring);
        end_follower(follower);
        free(follower);
        end_stage(stage);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_begin, scene_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(threads_spill_in_one_order),
        TEST(processes_spill_in_one_order),
        TEST(threads_and_processes_log_every_row),
        TEST(one_may_die_at_any_operation_while_others_live),
        TEST(random_deaths_lose_and_double_no_row),
        TEST(a_log_of_every_row_is_replayed_in_the_rings_order),
        TEST(who_has_no_log_waits_for_the_end_of_an_episode),
        TEST(all_have_the_same_file),
        TEST(at_its_limit_rows_are_refused_and_counted),
        TEST(a_write_that_fails_costs_its_own_rows_only),
        TEST(damage_while_it_is_open_is_counted_and_stops_nobody),
    };
    const char *kills = getenv("CBUF_MANY_LOG_KILLS");
    scene_open(300 + (unsigned)((kills ? strtoull(kills, NULL, 10) : 0) / 5));
    return scene_close(cmocka_run_group_tests(tests, NULL, NULL));
}
