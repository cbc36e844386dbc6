/*
 * test_log.c - spilling, the log of every row, and what a death, a full disk or damage leaves of
 * their file. What holds: the rows that come out are those that went in, each once, in order; and
 * what is missing is counted.
 *
 * CBUF_LOG_KILLS (environment): how many random deaths there are; 60 if it is not set.
 */
#define CBUF_ACCESS_HEADER "kill_access.h"
#include "process.h"

/* ---- faults of the file's system calls ---- */

enum fault { NO_FAULT, FULL, BROKEN, SHORT, INTERRUPTED };
static struct {
    int kind;
    uint64_t after; /* so many calls that are well */
    size_t part;    /* bytes written before the fault */
    bool torn;      /* writes come in two halves: there can be a death between them */
    int sync;       /* the errno of fdatasync, or 0 */
    uint64_t syncs;
} faults;

static ssize_t faulty_pwritev(int fd, const struct iovec *parts, int n, off_t at)
{
    size_t total = parts[0].iov_len + parts[1].iov_len, part = total / 2;
    unsigned char all[8192];
    bool now = faults.kind && faults.after-- == 0;
    if (!now && !(faults.torn && total <= sizeof all)) return pwritev(fd, parts, n, at);
    if (now && faults.part < total) part = faults.part;
    CHECK(total <= sizeof all);
    memcpy(all, parts[0].iov_base, parts[0].iov_len);
    memcpy(all + parts[0].iov_len, parts[1].iov_base, parts[1].iov_len);
    if (part) CHECK_IS(pwrite(fd, all, part, at), part);
    if (!now) { /* the second half */
        CHECK_IS(pwrite(fd, all + part, total - part, at + (off_t)part), total - part);
        return (ssize_t)total;
    }
    int kind = faults.kind;
    faults.kind = kind == SHORT && part ? FULL : NO_FAULT; /* and the rest does not fit */
    faults.after = 0;
    faults.part = 0;
    if (kind == SHORT && part) return (ssize_t)part;
    errno = kind == INTERRUPTED ? EINTR : kind == BROKEN ? EIO : ENOSPC;
    return -1;
}
static int faulty_fdatasync(int fd)
{
    faults.syncs++;
    if (!faults.sync) return fdatasync(fd);
    errno = faults.sync;
    return -1;
}
#undef pwritev
#undef fdatasync
#define pwritev(fd, parts, n, at) faulty_pwritev(fd, parts, n, at)
#define fdatasync(fd) faulty_fdatasync(fd)
#include <cbuf_log.h>

/* ---- rows ---- */

struct row {
    uint64_t sequence, words[2];
    uint32_t tail, padding;
};
typedef struct row a_row;
static const cbuf_column row_columns[] = {
    CBUF_COLUMN(a_row, sequence), { "words", CBUF_BYTES(16), (uint32_t)offsetof(a_row, words) },
    CBUF_COLUMN(a_row, tail) };

static struct row row_of(uint64_t sequence)
{
    struct row made;
    uint64_t seed = sequence * 31 + 7;
    memset(&made, 0, sizeof made);
    made.sequence = sequence;
    made.words[0] = next_random(&seed);
    made.words[1] = next_random(&seed);
    made.tail = (uint32_t)next_random(&seed);
    return made;
}
static void check_row(const struct row *is, uint64_t sequence)
{
    struct row wanted = row_of(sequence);
    CHECK_IS(is->sequence, sequence);
    CHECK(!memcmp(is->words, wanted.words, sizeof is->words) && is->tail == wanted.tail);
}

enum variant { SHARED_TAIL, IN_PLACE, DENSE, VARIANTS };
#define CAPACITY 16

static cbuf_options ring_options(const char *name, int variant, int on_full)
{
    cbuf_options options;
    memset(&options, 0, sizeof options);
    options.name = name;
    options.capacity = CAPACITY;
    options.reserve_step = 2;
    options.columns = row_columns;
    options.column_count = 3;
    options.row_bytes = sizeof(struct row);
    options.max_readers = 4;
    options.layout = variant == DENSE ? CBUF_DENSE : CBUF_NUMBERED;
    options.in_place = variant == IN_PLACE;
    options.on_full = (uint8_t)on_full;
    return options;
}
static cbuf_log_options log_options(const char *path, bool every_row)
{
    cbuf_log_options options;
    memset(&options, 0, sizeof options);
    options.path = path;
    options.every_row = every_row;
    options.sync_ns = CBUF_FOREVER;
    return options;
}
static void create(cbuf_ring *ring, const char *name, int variant, int on_full)
{
    cbuf_options options = ring_options(name, variant, on_full);
    int error = cbuf_create(ring, &options);
    CHECK_IS_FOR(cbuf_error(ring), error, 0);
}
static void open_log(cbuf_log *log, cbuf_ring *ring, cbuf_log_options options)
{
    int error = cbuf_log_open(log, ring, &options);
    CHECK_IS_FOR(cbuf_log_error(log), error, 0);
}

/* The producer's side: writes rows number `next` on. How many were accepted, or an error. */
enum way { ONE, BATCH, COLUMNS, WAYS };
static int64_t produce(cbuf_ring *ring, uint64_t next, int way, uint32_t n)
{
    struct row rows[64];
    uint64_t sequences[64];
    unsigned char words[64][16];
    uint32_t tails[64];
    CHECK(n <= 64);
    for (uint32_t k = 0; k < n; k++) rows[k] = row_of(next + k);
    if (way == ONE) return cbuf_write(ring, rows);
    if (way == BATCH) return cbuf_write_n(ring, rows, n);
    for (uint32_t k = 0; k < n; k++) {
        sequences[k] = rows[k].sequence;
        memcpy(words[k], rows[k].words, 16);
        tails[k] = rows[k].tail;
    }
    cbuf_array arrays[3] = { { &row_columns[0], sequences }, { &row_columns[1], words },
        { &row_columns[2], tails } };
    return cbuf_write_columns(ring, arrays, 3, n);
}

/* The reader's: all that it gets is the next row, whole. */
struct follower {
    cbuf_ring ring;
    cbuf_reader reader;
    uint64_t next;
};
static void follow_from(struct follower *follower, const char *name)
{
    cbuf_reader_options options;
    memset(&options, 0, sizeof options);
    options.spins = 10;
    memset(follower, 0, sizeof *follower);
    int error = cbuf_attach(&follower->ring, name, NULL);
    CHECK_IS_FOR(cbuf_error(&follower->ring), error, 0);
    CHECK_IS(cbuf_reader_open(&follower->reader, &follower->ring, &options), 0);
    follower->next = cbuf_first(&follower->reader);
}
static int64_t follow(struct follower *follower, uint32_t n)
{
    struct row rows[64];
    int64_t got = cbuf_read(&follower->reader, rows, n < 64 ? n : 64);
    CHECK(got >= 0);
    CHECK_IS(cbuf_lost(&follower->reader), 0);
    for (int64_t k = 0; k < got; k++) check_row(&rows[k], follower->next++);
    return got;
}
static void follow_to_end(struct follower *follower)
{
    while (follow(follower, 64) > 0) {}
}
static void end_follower(struct follower *follower)
{
    cbuf_reader_close(&follower->reader);
    cbuf_close(&follower->ring);
}

/* ---- files as byte strings ---- */

struct bytes {
    unsigned char at[65536];
    size_t n;
};
static void load(struct bytes *bytes, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    ssize_t got = read(fd, bytes->at, sizeof bytes->at);
    CHECK(got >= 0 && (size_t)got < sizeof bytes->at);
    bytes->n = (size_t)got;
    close(fd);
}
static void store(const struct bytes *bytes, size_t n, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_IS(write(fd, bytes->at, n), n);
    close(fd);
}
static uint64_t size_of(const char *path)
{
    struct stat file;
    return stat(path, &file) ? UINT64_MAX : (uint64_t)file.st_size;
}
/* The rows of a log, each checked: how many there are from number 0 on. */
static uint64_t rows_of(const char *path)
{
    cbuf_log_scan scan;
    const void *rows;
    uint64_t first, next = 0;
    int64_t n;
    CHECK_IS(cbuf_log_scan_open(&scan, path), 0);
    while ((n = cbuf_log_next(&scan, &rows, &first, NULL)) > 0) {
        CHECK_IS(first, next);
        for (int64_t k = 0; k < n; k++) {
            struct row row;
            memcpy(&row, (const unsigned char *)rows + (size_t)k * sizeof row, sizeof row);
            check_row(&row, next++);
        }
    }
    CHECK_IS(n, 0);
    cbuf_log_scan_close(&scan);
    return next;
}

/* ---- the checksum ---- */

/* Made with xxhash 0.8.1 over the bytes (7 i + 3) mod 256. */
static void the_checksum_is_xxh64(void **state)
{
    static const struct { size_t n; uint64_t plain, seeded; } known[] = {
        { 0, 0xef46db3751d8e999u, 0xac75fda2929b17efu },
        { 1, 0x1f25c8d0bc1f4bb6u, 0x79cf94f5ace37fe1u },
        { 3, 0x31d2363f52e564c9u, 0x96d2a5e583ddd738u },
        { 4, 0x9bb64b7d66ee9fdau, 0x4a862fbb4b73776eu },
        { 7, 0x9a7b149959ce60d8u, 0xddc5cf71d37a6368u },
        { 8, 0xdab99d95c6f90092u, 0xc6e75e2cbd8e07eeu },
        { 14, 0xc7f1d4d0acfa5a14u, 0x51341a138b098941u },
        { 31, 0xa2aa5f33cc4a6119u, 0x381822f33376d6b6u },
        { 32, 0x23c3c17ef790fd97u, 0x9abd315470ac276au },
        { 33, 0x50a7cfc7ba588784u, 0x72cdd3262f467933u },
        { 63, 0x5e3e54b431c7493cu, 0x634da7d265979e61u },
        { 64, 0x0eb64b3ef6eeb01fu, 0xbcb3847d70525180u },
        { 101, 0xbad4d3bf033bda4cu, 0x6c892ceebbc660aau } };
    unsigned char bytes[101];
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 7 + 3);
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
        CHECK_IS(cbuf__xxh64(bytes, known[k].n, 0), known[k].plain);
        CHECK_IS(cbuf__xxh64(bytes, known[k].n, 0x9e3779b1u), known[k].seeded);
    }
    CHECK_IS(cbuf__xxh64("abc", 3, 0), 0x44bc2cf5ad770999u);
}

/* ---- order, through many episodes ---- */

static void rows_come_once_and_in_order_through_many_episodes(void **state)
{
    (void)state;
    for (int kind = 0; kind < VARIANTS * 2; kind++) {
        const char *name = new_name(), *path = new_path();
        struct follower follower;
        cbuf_ring ring;
        cbuf_log log;
        cbuf_stats stats;
        uint64_t seed = 1 + (uint64_t)kind, next = 0, most = 0;
        create(&ring, name, kind % VARIANTS, CBUF_SPILL);
        open_log(&log, &ring, log_options(path, kind >= VARIANTS));
        follow_from(&follower, name);
        for (int round = 0; round < 20000; round++) {
            uint64_t chance = next_random(&seed);
            /* Now the one is faster and now the other. */
            bool writes = chance / 4 % 16 < (round / 50 % 4 ? 5u : 13u);
            uint32_t n = 1 + (uint32_t)(chance / 64 % 8);
            int way = (int)(chance / 1024 % WAYS);
            if (way == ONE) n = 1;
            if (!writes) follow(&follower, 2 * n);
            else CHECK_IS(produce(&ring, next, way, n), n);
            if (writes) next += n;
            CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
            CHECK_IS(stats.written + stats.spilled, next);
            CHECK_IS(cbuf_log_stats_get(&log).pending, stats.spilled);
            CHECK(stats.written >= follower.next && stats.written <= follower.next + CAPACITY);
            if (stats.spilled > most) most = stats.spilled;
        }
        do follow_to_end(&follower);
        while (cbuf_log_drain(&log, 0) == 0);
        follow_to_end(&follower);
        CHECK_IS(follower.next, next);
        cbuf_log_stats ends = cbuf_log_stats_get(&log);
        CHECK(ends.episodes > 50 && most > 50);
        CHECK_IS(ends.pending + ends.refused + ends.failures, 0);
        CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
        CHECK_IS(stats.dropped, 0);
        CHECK_IS(cbuf_log_close(&log), 0);
        if (kind < VARIANTS) CHECK_IS(size_of(path), UINT64_MAX); /* nothing is in it */
        else CHECK_IS(rows_of(path), next);
        CHECK_IS(produce(&ring, next, BATCH, 5), 5); /* the ring goes on without */
        follow_to_end(&follower);
        CHECK_IS(follower.next, next + 5);
        cbuf_close(&ring);
        end_follower(&follower);
        CHECK_IS(cbuf_remove(name), 0);
    }
}

static void a_batch_larger_than_a_record_is_split(void **state)
{
    (void)state;
    const char *name = new_name();
    static struct row rows[20000];
    struct follower follower;
    cbuf_ring ring;
    cbuf_log log;
    create(&ring, name, SHARED_TAIL, CBUF_SPILL);
    open_log(&log, &ring, log_options(NULL, false));
    follow_from(&follower, name);
    for (uint64_t k = 0; k < 20000; k++) rows[k] = row_of(k);
    CHECK_IS(cbuf_write_n(&ring, rows, 20000), 20000);
    CHECK(size_of(file_of(name, ".spill")) > (20000 - CAPACITY) * sizeof rows[0]);
    do follow_to_end(&follower);
    while (cbuf_log_drain(&log, 0) == 0);
    follow_to_end(&follower);
    CHECK_IS(follower.next, 20000);
    CHECK_IS(cbuf_log_stats_get(&log).bytes, log.scan.header_bytes);
    cbuf_close(&ring); /* and the log with it */
    CHECK(!log.ring);
    end_follower(&follower);
}

static int read_slowly(void *name)
{
    struct follower follower;
    follow_from(&follower, (const char *)name);
    while (follower.next < 2000)
        if (!follow(&follower, 5)) cbuf_wait(&follower.reader, 1, 1000000);
    end_follower(&follower);
    return 0;
}
static void a_drain_waits_for_readers(void **state)
{
    (void)state;
    char name[64];
    cbuf_ring ring;
    cbuf_log log;
    struct follower standing;
    snprintf(name, sizeof name, "%s", new_name());
    create(&ring, name, DENSE, CBUF_SPILL);
    open_log(&log, &ring, log_options(NULL, false));
    follow_from(&standing, name);
    for (uint64_t next = 0; next < 2000; next += 50)
        CHECK_IS(produce(&ring, next, BATCH, 50), 50);
    CHECK_IS(cbuf_log_drain(&log, 0), 0);
    int64_t began = now_ns();
    CHECK_IS(cbuf_log_drain(&log, 3000000), 0);
    CHECK(now_ns() - began >= 3000000);
    pid_t reader = start(read_slowly, name); /* has its gate at the oldest row */
    cbuf_stats stats;
    do CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
    while (stats.readers < 2 && !sched_yield());
    end_follower(&standing);
    CHECK_IS(cbuf_log_drain(&log, CBUF_FOREVER), 1);
    CHECK_IS(cbuf_head(&ring), 2000);
    CHECK_IS(finish(reader), 0);
    cbuf_log_close(&log);
    cbuf_close(&ring);
}

/* ---- deaths ---- */

struct stage {
    char name[64], path[128];
    int variant, on_full;
    bool every_row, torn;
    uint64_t countdown, seed, max_bytes;
    uint64_t confirmed, attempted; /* rows: that writes returned for; that they were begun for */
    uint64_t missing;
    struct cue ready, go;
};
static struct stage *new_stage(int variant, int on_full, bool every_row)
{
    struct stage *stage = (struct stage *)shared_memory(sizeof *stage);
    snprintf(stage->name, sizeof stage->name, "%s", new_name());
    snprintf(stage->path, sizeof stage->path, "%s", new_path());
    stage->variant = variant;
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
/* Becomes the producer, whatever the last one left: no accepted row is missing, none is there that
 * was not tried. */
static void resume(struct stage *stage, cbuf_ring *ring, cbuf_log *log)
{
    create(ring, stage->name, stage->variant, stage->on_full);
    cbuf_log_options options = log_options(stage->path, stage->every_row);
    options.max_bytes = stage->max_bytes;
    options.at_limit = CBUF_LOG_WAIT;
    open_log(log, ring, options);
    uint64_t next = cbuf_head(ring) + cbuf_log_stats_get(log).pending;
    CHECK_IS(cbuf_log_report_get(log).rows_missing, 0);
    CHECK(next >= stage->confirmed && next <= stage->attempted);
    stage->confirmed = stage->attempted = next;
}
/* Becomes it, and waits until all is read. */
static void drain(struct stage *stage, struct follower *follower)
{
    cbuf_ring ring;
    cbuf_log log;
    resume(stage, &ring, &log);
    do follow_to_end(follower);
    while (cbuf_log_drain(&log, 0) == 0);
    follow_to_end(follower);
    cbuf_close(&ring);
}
static void produce_more(struct stage *stage, cbuf_ring *ring, int way, uint32_t n)
{
    if (way == ONE) n = 1;
    stage->attempted = stage->confirmed + n;
    CHECK_IS(produce(ring, stage->confirmed, way, n), n);
    stage->confirmed = stage->attempted;
}
/* Lets the parent's reader read. */
static void let_read(struct stage *stage)
{
    give_cue(&stage->ready);
    await_cue(&stage->go);
}

/* Fills the ring, spills, moves some, spills again, moves all, and goes on without a spill. */
static int live_as_producer(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    cbuf_log log;
    faults.torn = stage->torn;
    kill_countdown = stage->countdown;
    resume(stage, &ring, &log);
    bool waits = stage->on_full != CBUF_SPILL;
    for (int round = 0; round < 2; round++) {
        produce_more(stage, &ring, BATCH, waits ? 3 : 14);
        produce_more(stage, &ring, ONE, 1);
        produce_more(stage, &ring, COLUMNS, 2);
        produce_more(stage, &ring, BATCH, 5);
        let_read(stage);
    }
    while (cbuf_log_drain(&log, 0) == 0) let_read(stage);
    produce_more(stage, &ring, BATCH, 3);
    cbuf_log_close(&log);
    cbuf_close(&ring);
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
/* The parent's part; a little at each cue. */
static int follow_child(struct stage *stage, struct follower *follower, pid_t child)
{
    uint32_t n = 7;
    while (hear(stage)) {
        if (stage->on_full == CBUF_SPILL) follow(follower, n);
        else follow_to_end(follower);
        n += 13;
        give_cue(&stage->go);
    }
    return finish(child);
}

/* Where the log that a dead producer left ends; 0 if there is none. */
static uint64_t end_of(const char *path)
{
    cbuf_log_scan scan;
    const void *rows;
    uint64_t first, end = 0;
    if (access(path, F_OK)) return 0;
    CHECK_IS(cbuf_log_scan_open(&scan, path), 0);
    for (int64_t n; (n = cbuf_log_next(&scan, &rows, &first, NULL)) > 0;)
        end = first + (uint64_t)n;
    cbuf_log_scan_close(&scan);
    return end;
}
/* While rows wait in the log, who has none may not write. */
static void check_without_log(const struct stage *stage)
{
    cbuf_ring ring;
    uint64_t end = end_of(stage->path);
    create(&ring, stage->name, stage->variant, stage->on_full);
    if (end > cbuf_head(&ring)) CHECK_IS(produce(&ring, 0, ONE, 1), CBUF_ENOSPILL);
    cbuf_close(&ring);
}

static void a_producer_may_die_at_any_operation_of_a_spill_or_a_log(void **state)
{
    static const struct { int variant, on_full; bool every_row, torn; uint32_t stride; } kinds[] = {
        { SHARED_TAIL, CBUF_SPILL, false, true, 1 }, { DENSE, CBUF_SPILL, true, true, 3 },
        { IN_PLACE, CBUF_SPILL, false, false, 5 }, { SHARED_TAIL, CBUF_OVERWRITE, true, true, 3 },
        { DENSE, CBUF_SPILL, false, true, 5 }, { IN_PLACE, CBUF_BLOCK, true, true, 5 } };
    uint64_t deaths = 0;
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct stage *stage = new_stage(kinds[k].variant, kinds[k].on_full, kinds[k].every_row);
        struct follower follower;
        cbuf_ring ring;
        cbuf_log log;
        int ended = -SIGKILL;
        stage->torn = kinds[k].torn;
        if (!stage->every_row) stage->max_bytes = 8192 + 6400; /* a mark for each 800 bytes */
        resume(stage, &ring, &log);
        cbuf_close(&ring);
        follow_from(&follower, stage->name);
        uint32_t stride = kinds[k].stride * (CHECK_SANITIZED || is_emulated() ? 8 : 1);
        for (stage->countdown = 1; ended != 0; stage->countdown += stride) {
            ended = follow_child(stage, &follower, start(live_as_producer, stage));
            CHECK(ended == 0 || ended == -SIGKILL);
            deaths += ended != 0;
            if (kinds[k].on_full == CBUF_SPILL && !kinds[k].every_row) check_without_log(stage);
            if (kinds[k].on_full != CBUF_SPILL) follow_to_end(&follower);
            else if (deaths % 2) drain(stage, &follower); /* or the next victim has to */
        }
        CHECK(stage->countdown > 100);
        drain(stage, &follower);
        CHECK_IS(follower.next, stage->confirmed);
        if (stage->every_row) CHECK_IS(rows_of(stage->path), stage->confirmed);
        end_follower(&follower);
        end_stage(stage);
    }
    print_message("deaths at operations: %llu\n", (unsigned long long)deaths);
}

static void die_now(int signal_number)
{
    (void)signal_number;
    kill(getpid(), SIGKILL);
}
static int produce_until_death(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    uint64_t seed = stage->seed;
    struct itimerval at;
    cbuf_ring ring;
    cbuf_log log;
    memset(&at, 0, sizeof at);
    at.it_value.tv_usec = (int)(1 + next_random(&seed) % (4u << next_random(&seed) % 13));
    faults.torn = stage->torn;
    signal(SIGALRM, die_now);
    setitimer(ITIMER_REAL, &at, NULL);
    resume(stage, &ring, &log);
    for (uint64_t chance; (chance = next_random(&seed)) != 0;) { /* for ever */
        produce_more(stage, &ring, (int)(chance % WAYS), 1 + (uint32_t)(chance / 4 % 20));
        if (chance / 128 % 64 == 0) cbuf_log_drain(&log, 100000);
        if (chance / 8192 % 512 == 0) cbuf_close(&ring), resume(stage, &ring, &log);
    }
    return 1;
}
static void random_deaths_lose_and_double_no_row(void **state)
{
    const char *wanted = getenv("CBUF_LOG_KILLS");
    uint64_t kills = wanted ? strtoull(wanted, NULL, 10) : 60, seed = 20240301, rows = 0, cuts = 0;
    (void)state;
    for (int kind = 0; kind < VARIANTS; kind++) {
        struct stage *stage = new_stage(kind, CBUF_SPILL, false);
        struct follower follower;
        cbuf_ring ring;
        cbuf_log log;
        stage->max_bytes = 64 << 10;
        resume(stage, &ring, &log);
        cbuf_close(&ring);
        follow_from(&follower, stage->name);
        for (uint64_t death = 0; death < (kills + 2) / VARIANTS; death++) {
            siginfo_t end;
            stage->seed = next_random(&seed);
            stage->torn = death % 2;
            pid_t child = start(produce_until_death, stage);
            do { /* now slowly and now fast */
                if (!follow(&follower, 1 + (uint32_t)(next_random(&seed) % 30)))
                    cbuf_wait(&follower.reader, 1, 50000);
                memset(&end, 0, sizeof end);
                CHECK_IS(waitid(P_PID, (id_t)child, &end, WEXITED | WNOHANG | WNOWAIT), 0);
            } while (!end.si_pid);
            CHECK_IS(finish(child), -SIGKILL);
            create(&ring, stage->name, kind, CBUF_SPILL);
            open_log(&log, &ring, log_options(stage->path, false));
            cuts += cbuf_log_report_get(&log).bytes_cut > 0;
            cbuf_close(&ring);
        }
        drain(stage, &follower);
        CHECK_IS(follower.next, stage->confirmed);
        rows += follower.next;
        end_follower(&follower);
        end_stage(stage);
    }
    print_message("random deaths: %llu, %llu in the middle of a record; rows: %llu\n",
        (unsigned long long)kills, (unsigned long long)cuts, (unsigned long long)rows);
}

/* ---- damage ---- */

/* A ring that is full, with its reader, and 6 records of a spill, of a producer that was killed. */
static int spill_and_die(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    cbuf_log log;
    resume(stage, &ring, &log);
    produce_more(stage, &ring, BATCH, CAPACITY);
    for (uint32_t k = 0; k < 6; k++) produce_more(stage, &ring, BATCH, 1 + k % 3);
    return raise(SIGKILL);
}
struct wreck {
    struct stage *stage;
    struct follower follower;
    struct bytes file;
    size_t header;
    uint64_t accepted;
};
static void new_wreck(struct wreck *wreck)
{
    cbuf_ring ring;
    wreck->stage = new_stage(SHARED_TAIL, CBUF_SPILL, false);
    snprintf(wreck->stage->path, sizeof wreck->stage->path, "%s", file_of(new_name(), ".file"));
    create(&ring, wreck->stage->name, SHARED_TAIL, CBUF_SPILL);
    cbuf_close(&ring);
    follow_from(&wreck->follower, wreck->stage->name);
    CHECK_IS(finish(start(spill_and_die, wreck->stage)), -SIGKILL);
    load(&wreck->file, wreck->stage->path);
    wreck->header = 8192;
    wreck->accepted = wreck->stage->confirmed;
    CHECK_IS(wreck->accepted, CAPACITY + 12);
    CHECK_IS(wreck->file.n, 8192 + 6 * 24 + 12 * sizeof(struct row));
}
static void end_wreck(struct wreck *wreck)
{
    end_follower(&wreck->follower);
    end_stage(wreck->stage);
}
/* How many rows the first `n` bytes have in whole records; and where those end. */
static uint64_t rows_in(size_t n, size_t *end)
{
    uint64_t rows = 0;
    *end = 8192;
    for (uint32_t k = 0; k < 6; k++) {
        size_t next = *end + 24 + (1 + k % 3) * sizeof(struct row);
        if (next > n) break;
        *end = next;
        rows += 1 + k % 3;
    }
    return rows;
}
/* What is recovered of a damaged file: exactly `rows` rows, and the account is right. */
static void check_recovery(struct wreck *wreck, uint64_t rows, size_t end, size_t bytes)
{
    cbuf_ring ring;
    cbuf_log log;
    cbuf_log_scan scan;
    const void *at;
    uint64_t first, next = CAPACITY;
    cbuf_stats before, after;
    create(&ring, wreck->stage->name, SHARED_TAIL, CBUF_SPILL);
    cbuf__store_relaxed(&ring.file->spill_end, wreck->accepted);
    CHECK_IS(cbuf_stats_get(&ring, &before), 0);
    open_log(&log, &ring, log_options(wreck->stage->path, false));
    cbuf_log_report report = cbuf_log_report_get(&log);
    CHECK_IS(size_of(wreck->stage->path), rows ? end : wreck->header);
    CHECK_IS(report.rows, rows);
    CHECK_IS(report.recovered, rows);
    CHECK_IS(report.rows_missing, wreck->accepted - CAPACITY - rows);
    CHECK_IS(report.bytes_cut, rows ? bytes - end : report.bytes_cut);
    CHECK((report.why != NULL) == (report.bytes_cut != 0));
    CHECK_IS(cbuf_stats_get(&ring, &after), 0);
    CHECK_IS(after.dropped - before.dropped, report.rows_missing);
    CHECK_IS(after.spilled, rows);
    CHECK_IS(cbuf_log_scan_open(&scan, wreck->stage->path), 0);
    for (int64_t n; (n = cbuf_log_next(&scan, &at, &first, NULL)) != 0; next += (uint64_t)n) {
        CHECK(n > 0);
        CHECK_IS(first, next);
        for (int64_t k = 0; k < n; k++)
            check_row((const struct row *)at + k, next + (uint64_t)k);
    }
    CHECK_IS(next, CAPACITY + rows);
    cbuf_log_scan_close(&scan);
    cbuf_close(&ring);
}
/* A file whose header is not whole is refused, and left as it is. */
static void check_refusal(struct wreck *wreck, size_t bytes)
{
    struct bytes now;
    cbuf_ring ring;
    cbuf_log log;
    cbuf_log_options options = log_options(wreck->stage->path, false);
    create(&ring, wreck->stage->name, SHARED_TAIL, CBUF_SPILL);
    int error = cbuf_log_open(&log, &ring, &options);
    CHECK(error == CBUF_EFORMAT || error == CBUF_EVERSION || error == CBUF_EBYTEORDER);
    CHECK(strstr(cbuf_log_error(&log), wreck->stage->path));
    CHECK(!ring.hook);
    load(&now, wreck->stage->path);
    CHECK_IS(now.n, bytes);
    cbuf_close(&ring);
}

static void truncated_at_any_byte_it_yields_the_whole_records_before(void **state)
{
    static struct wreck wreck;
    (void)state;
    new_wreck(&wreck);
    size_t step = CHECK_SANITIZED || is_emulated() ? 7 : 1;
    for (size_t n = 1; n <= wreck.file.n; n += n < wreck.header ? 17 : step) {
        size_t end;
        uint64_t rows = rows_in(n, &end);
        store(&wreck.file, n, wreck.stage->path);
        if (n < wreck.header) check_refusal(&wreck, n);
        else check_recovery(&wreck, rows, end, n);
    }
    end_wreck(&wreck);
}
/* What was cut off is not taken for what is written in its place, though it begins alike. */
static void a_record_in_the_place_of_a_torn_one_is_read_as_it_is(void **state)
{
    static struct wreck wreck;
    cbuf_ring ring;
    cbuf_log log;
    (void)state;
    new_wreck(&wreck);
    store(&wreck.file, wreck.file.n - 2 * sizeof(struct row), wreck.stage->path); /* of its three */
    create(&ring, wreck.stage->name, SHARED_TAIL, CBUF_SPILL);
    cbuf__store_relaxed(&ring.file->spill_end, wreck.accepted - 3);
    open_log(&log, &ring, log_options(wreck.stage->path, false));
    CHECK_IS(cbuf_log_report_get(&log).bytes_cut, 24 + sizeof(struct row));
    CHECK_IS(produce(&ring, wreck.accepted - 3, ONE, 1), 1);
    CHECK_IS(produce(&ring, wreck.accepted - 2, BATCH, 6), 6);
    do follow_to_end(&wreck.follower);
    while (cbuf_log_drain(&log, 0) == 0);
    follow_to_end(&wreck.follower);
    CHECK_IS(wreck.follower.next, wreck.accepted + 4);
    CHECK_IS(cbuf_log_report_get(&log).rows_missing, 0);
    cbuf_close(&ring);
    end_wreck(&wreck);
}
static void with_any_byte_changed_it_yields_the_records_before_that(void **state)
{
    static struct wreck wreck;
    static const unsigned char masks[] = { 0x01, 0x80, 0xff };
    (void)state;
    new_wreck(&wreck);
    size_t step = CHECK_SANITIZED || is_emulated() ? 7 : 1;
    for (size_t at = 0; at < wreck.file.n; at += at >= wreck.header ? step : at < 512 ? 1 : 61) {
        for (size_t m = 0; m < sizeof masks; m++) {
            size_t end;
            uint64_t rows = rows_in(at, &end);
            wreck.file.at[at] ^= masks[m];
            store(&wreck.file, wreck.file.n, wreck.stage->path);
            if (at < wreck.header - 4096) check_refusal(&wreck, wreck.file.n);
            else if (at < wreck.header) check_recovery(&wreck, 12, wreck.file.n, wreck.file.n);
            else check_recovery(&wreck, rows, end, wreck.file.n);
            wreck.file.at[at] ^= masks[m];
        }
    }
    end_wreck(&wreck);
}
/* The state of a spill that gave space back: both marks stand. */
static int spill_long_and_die(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    cbuf_log log;
    resume(stage, &ring, &log);
    for (int k = 0; k < 30; k++) produce_more(stage, &ring, BATCH, 4);
    for (int k = 0; k < 60; k++) {
        let_read(stage);
        produce_more(stage, &ring, BATCH, 4);
    }
    return raise(SIGKILL);
}
static void a_damaged_mark_loses_no_row(void **state)
{
    struct bytes file;
    cbuf_ring ring;
    cbuf_log log;
    struct follower follower;
    (void)state;
    struct stage *stage = new_stage(DENSE, CBUF_SPILL, false);
    create(&ring, stage->name, DENSE, CBUF_SPILL);
    cbuf_close(&ring);
    follow_from(&follower, stage->name);
    stage->max_bytes = 32 << 10;
    pid_t child = start(spill_long_and_die, stage);
    while (hear(stage)) {
        follow(&follower, 4);
        give_cue(&stage->go);
    }
    CHECK_IS(finish(child), -SIGKILL);
    load(&file, stage->path);
    uint64_t zeros = 0, at[2];
    for (int k = 0; k < 2; k++) memcpy(&at[k], file.at + 4096 + 512 * k + 8, 8);
    CHECK(at[0] > 8192 && at[1] > 8192 && at[0] != at[1]);
    for (size_t k = 8192; k < 8192 + 4096; k++) zeros += file.at[k] == 0;
    if (!is_emulated()) CHECK(zeros == 4096 || at[0] < 16384 || at[1] < 16384);
    for (size_t k = 0; k < 64; k++) { /* each byte of both; then nothing is damaged */
        size_t place = 4096 + k % 32 + 512 * (k / 32);
        file.at[place] ^= 0x10;
        store(&file, file.n, stage->path);
        file.at[place] ^= 0x10;
        resume(stage, &ring, &log);
        cbuf_close(&ring);
    }
    store(&file, file.n, stage->path);
    resume(stage, &ring, &log);
    CHECK_IS(cbuf_log_report_get(&log).recovered, 360 - follower.next - CAPACITY);
    do follow_to_end(&follower);
    while (cbuf_log_drain(&log, 0) == 0);
    follow_to_end(&follower);
    CHECK_IS(follower.next, 360);
    cbuf_close(&ring);
    end_follower(&follower);
    end_stage(stage);
}

static void marks_of(const char *path, uint64_t at[2])
{
    static struct bytes file;
    load(&file, path);
    for (int k = 0; k < 2; k++) memcpy(&at[k], file.at + 4096 + 512 * k + 8, 8);
}
/* The marks that an earlier episode left do not count; the older of two is the next to go. */
static void a_mark_counts_for_its_episode_and_gives_way_to_newer_ones(void **state)
{
    (void)state;
    const char *name = new_name(), *path = file_of(new_name(), ".file");
    struct follower follower;
    cbuf_ring ring;
    cbuf_log log;
    uint64_t next = 0, before[2], after[2];
    cbuf_log_options options = log_options(path, false);
    options.max_bytes = 64 << 10; /* a mark each seven kilobytes */
    create(&ring, name, SHARED_TAIL, CBUF_SPILL);
    open_log(&log, &ring, options);
    follow_from(&follower, name);
    for (int episode = 0; episode < 2; episode++) {
        for (; next < (episode ? 2000u : 1000u); next += 5) {
            CHECK_IS(produce(&ring, next, BATCH, 5), 5);
            if (!episode && next > 200) CHECK_IS(follow(&follower, 5), 5);
        }
        if (episode) break;
        do follow_to_end(&follower);
        while (cbuf_log_drain(&log, 0) == 0);
    }
    marks_of(path, before);
    CHECK(before[0] > 8192 && before[1] > 8192);
    CHECK(before[0] < size_of(path) && before[1] < size_of(path)); /* and look as if they did */
    cbuf_close(&ring);
    create(&ring, name, SHARED_TAIL, CBUF_SPILL);
    open_log(&log, &ring, options);
    CHECK_IS(cbuf_head(&ring) + cbuf_log_report_get(&log).recovered, next);
    for (int k = 0; k < 60; k++) CHECK(follow(&follower, 7) >= 0 && cbuf_log_drain(&log, 0) == 0);
    cbuf_close(&ring);
    for (int round = 0; round < 2; round++) { /* in each of the two places */
        if (round) cbuf_close(&ring);
        marks_of(path, before);
        bool later = before[1] > before[0];
        create(&ring, name, SHARED_TAIL, CBUF_SPILL);
        open_log(&log, &ring, options);
        do {
            follow(&follower, 7);
            CHECK_IS(cbuf_log_drain(&log, 0), 0);
            marks_of(path, after);
        } while (after[0] == before[0] && after[1] == before[1]);
        CHECK(after[later] == before[later] && after[!later] > before[later]);
    }
    do follow_to_end(&follower);
    while (cbuf_log_drain(&log, 0) == 0);
    follow_to_end(&follower);
    CHECK_IS(follower.next, next);
    cbuf_close(&ring);
    end_follower(&follower);
}

/* A spill that never ends: what was moved is given back, and the limit is on the rest. */
static void a_reader_that_lags_costs_the_disk_its_lag_only(void **state)
{
    (void)state;
    const char *name = new_name();
    struct follower follower;
    struct stat file;
    cbuf_ring ring;
    cbuf_log log;
    cbuf_log_options options = log_options(NULL, false);
    options.max_bytes = 96 << 10;
    create(&ring, name, SHARED_TAIL, CBUF_SPILL);
    open_log(&log, &ring, options);
    follow_from(&follower, name);
    uint64_t next = 0;
    for (; next < 300; next += 5) CHECK_IS(produce(&ring, next, BATCH, 5), 5);
    for (; next < 50000; next += 5) {
        CHECK_IS(follow(&follower, 5), 5);
        CHECK_IS(produce(&ring, next, BATCH, 5), 5);
        CHECK(cbuf_log_stats_get(&log).bytes <= options.max_bytes);
    }
    CHECK_IS(cbuf_log_stats_get(&log).episodes, 1);
    CHECK(!stat(file_of(name, ".spill"), &file));
    CHECK(file.st_size > 1 << 20);
    if (!is_emulated()) CHECK((uint64_t)file.st_blocks * 512 <= options.max_bytes + 131072);
    cbuf_close(&ring); /* and the next one goes on */
    create(&ring, name, SHARED_TAIL, CBUF_SPILL);
    open_log(&log, &ring, options);
    CHECK_IS(cbuf_head(&ring) + cbuf_log_stats_get(&log).pending, next);
    do follow_to_end(&follower);
    while (cbuf_log_drain(&log, 0) == 0);
    follow_to_end(&follower);
    CHECK_IS(follower.next, next);
    cbuf_close(&ring);
    CHECK_IS(size_of(file_of(name, ".spill")), UINT64_MAX);
    end_follower(&follower);
}

/* Two whole records in each other's place, a record again, one of another log: none counts. */
static void records_of_another_place_or_log_do_not_count(void **state)
{
    static struct wreck wreck, other;
    struct bytes swapped;
    (void)state;
    new_wreck(&wreck);
    new_wreck(&other);
    size_t first, second, end, row = sizeof(struct row);
    rows_in(8192 + 24 + row, &first); /* record 0 has one row, record 3 too */
    rows_in(8192 + 24 * 3 + row * 6, &second);
    swapped = wreck.file;
    memcpy(swapped.at + 8192, wreck.file.at + second, 24 + row);
    store(&swapped, swapped.n, wreck.stage->path);
    check_recovery(&wreck, 0, 8192, swapped.n);
    swapped = wreck.file;
    memcpy(swapped.at + second, wreck.file.at + 8192, 24 + row);
    store(&swapped, swapped.n, wreck.stage->path);
    check_recovery(&wreck, rows_in(second, &end), second, swapped.n);
    swapped = other.file; /* the same rows, another ring's header before them */
    memcpy(swapped.at, wreck.file.at, 8192);
    store(&swapped, swapped.n, wreck.stage->path);
    check_recovery(&wreck, 0, 8192, swapped.n);
    (void)first;
    end_wreck(&wreck);
    end_wreck(&other);
}

static void damage_while_it_is_open_is_counted_and_does_not_stop_the_producer(void **state)
{
    (void)state;
    for (int every_row = 0; every_row < 2; every_row++) {
        const char *name = new_name(), *path = new_path();
        struct follower follower;
        cbuf_ring ring;
        cbuf_log log;
        cbuf_stats stats;
        create(&ring, name, SHARED_TAIL, CBUF_SPILL);
        open_log(&log, &ring, log_options(path, every_row != 0));
        follow_from(&follower, name);
        for (uint64_t next = 0; next < 40; next += 4) CHECK_IS(produce(&ring, next, BATCH, 4), 4);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        off_t place = (off_t)(size_of(path) - 24 - 4 * sizeof(struct row));
        CHECK_IS(pwrite(fd, "x", 1, place - 30), 1); /* in the last record but one */
        close(fd);
        follow_to_end(&follower);
        CHECK_IS(cbuf_log_drain(&log, 0), 0);
        follow_to_end(&follower);
        while (cbuf_log_drain(&log, 0) == 0) follow_to_end(&follower);
        follow_to_end(&follower);
        CHECK_IS(follower.next, 32);
        CHECK_IS(cbuf_log_report_get(&log).rows_missing, 8);
        CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
        CHECK_IS(stats.dropped, 8);
        for (uint64_t next = 32; next < 90; next += 2) {
            CHECK_IS(produce(&ring, next, BATCH, 2), 2);
            follow(&follower, 1);
        }
        while (cbuf_log_drain(&log, 0) == 0) follow_to_end(&follower);
        follow_to_end(&follower);
        CHECK_IS(follower.next, 90);
        cbuf_close(&ring);
        if (every_row) CHECK_IS(rows_of(path), 90);
        end_follower(&follower);
    }
}

/* ---- limits ---- */

static void at_its_limit_a_spill_refuses_rows_and_counts_them(void **state)
{
    (void)state;
    const char *name = new_name();
    struct follower follower;
    cbuf_ring ring;
    cbuf_log log;
    cbuf_stats stats;
    cbuf_log_options options = log_options(NULL, false);
    options.max_bytes = 8192 + 24 + 5 * sizeof(struct row) + 23; /* a record of five */
    create(&ring, name, DENSE, CBUF_SPILL);
    open_log(&log, &ring, options);
    follow_from(&follower, name);
    CHECK_IS(produce(&ring, 0, BATCH, 14), 14);
    CHECK_IS(produce(&ring, 14, BATCH, 10), 7); /* two in the ring, five in the file */
    CHECK_IS(produce(&ring, 21, ONE, 1), 0);
    CHECK_IS(produce(&ring, 21, COLUMNS, 3), 0);
    CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
    CHECK_IS(stats.dropped, 7);
    CHECK_IS(cbuf_log_stats_get(&log).refused, 5); /* two of the columns' were not tried */
    CHECK(size_of(file_of(name, ".spill")) <= options.max_bytes);
    follow(&follower, 3);
    CHECK_IS(produce(&ring, 21, ONE, 1), 0); /* three were moved; the file is as long as it was */
    follow(&follower, 3);
    CHECK_IS(produce(&ring, 21, BATCH, 2), 2); /* all were: it is empty again */
    follow_to_end(&follower);
    CHECK_IS(cbuf_log_drain(&log, 0), 1);
    follow_to_end(&follower);
    CHECK_IS(follower.next, 23);
    cbuf_close(&ring);
    end_follower(&follower);
}

static int read_until_full_stop(void *name)
{
    struct follower follower;
    follow_from(&follower, (const char *)name);
    while (follower.next < 3000)
        if (!follow(&follower, 3)) cbuf_wait(&follower.reader, 1, 1000000);
    end_follower(&follower);
    return 0;
}
static void at_its_limit_a_spill_can_wait(void **state)
{
    (void)state;
    char name[64];
    struct follower follower;
    cbuf_ring ring;
    cbuf_log log;
    cbuf_stats stats;
    cbuf_log_options options = log_options(NULL, false);
    snprintf(name, sizeof name, "%s", new_name());
    options.max_bytes = 8192 + 1000;
    options.at_limit = CBUF_LOG_WAIT;
    options.block_ns = 3000000;
    create(&ring, name, SHARED_TAIL, CBUF_SPILL);
    open_log(&log, &ring, options);
    follow_from(&follower, name);
    uint64_t next = 0;
    int64_t put;
    while ((put = produce(&ring, next, BATCH, 4)) == 4) next += 4;
    if (put > 0) next += (uint64_t)put;
    int64_t began = now_ns();
    CHECK_IS(produce(&ring, next, BATCH, 4), CBUF_ETIMEDOUT);
    CHECK(now_ns() - began >= options.block_ns);
    log.options.block_ns = 0;
    pid_t reader = start(read_until_full_stop, name);
    do CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
    while (stats.readers < 2 && !sched_yield());
    end_follower(&follower);
    for (; next < 3000; next++) CHECK_IS(produce(&ring, next, ONE, 1), 1);
    CHECK_IS(cbuf_log_drain(&log, CBUF_FOREVER), 1);
    CHECK_IS(finish(reader), 0);
    CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
    CHECK_IS(stats.dropped, 0);
    CHECK(cbuf_log_stats_get(&log).episodes > 0);
    cbuf_close(&ring);
}

static void a_log_of_every_row_refuses_what_is_beyond_its_limit(void **state)
{
    (void)state;
    for (int on_full = CBUF_OVERWRITE; on_full <= CBUF_SPILL; on_full++) {
        const char *name = new_name(), *path = new_path();
        cbuf_ring ring;
        cbuf_log log;
        cbuf_stats stats;
        cbuf_log_options options = log_options(path, true);
        options.max_bytes = 8192 + 3 * 24 + 10 * sizeof(struct row);
        options.at_limit = CBUF_LOG_WAIT; /* there is nothing to wait for */
        create(&ring, name, SHARED_TAIL, on_full);
        open_log(&log, &ring, options);
        CHECK_IS(produce(&ring, 0, BATCH, 4), 4);
        CHECK_IS(produce(&ring, 4, BATCH, 4), 4);
        CHECK_IS(produce(&ring, 8, BATCH, 4), 2);
        CHECK_IS(produce(&ring, 10, ONE, 1), 0);
        CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
        CHECK_IS(stats.dropped, 3);
        CHECK_IS(stats.written, 10);
        cbuf_close(&ring);
        CHECK_IS(rows_of(path), 10);
    }
}

/* Whatever a failing write leaves in the file, earlier rows are there and later ones come. */
static void a_disk_that_is_full_or_broken_loses_no_earlier_row(void **state)
{
    (void)state;
    for (int kind = FULL; kind <= INTERRUPTED; kind++) {
        for (int every_row = 0; every_row < 2; every_row++) {
            for (size_t part = 0; part < 24 + 3 * sizeof(struct row); part += 13) {
                const char *name = new_name(), *path = new_path();
                struct follower follower;
                cbuf_ring ring;
                cbuf_log log;
                int64_t wanted = kind == BROKEN ? CBUF_ESYSTEM : CBUF_ENOSPACE;
                if (kind == INTERRUPTED || (kind == SHORT && !part)) wanted = 3;
                if (kind == SHORT && !part) continue;
                create(&ring, name, SHARED_TAIL, CBUF_SPILL);
                open_log(&log, &ring, log_options(path, every_row != 0));
                follow_from(&follower, name);
                CHECK_IS(produce(&ring, 0, BATCH, CAPACITY), CAPACITY);
                CHECK_IS(produce(&ring, 16, BATCH, 2), 2);
                uint64_t before = size_of(path), next = 18;
                memset(&faults, 0, sizeof faults);
                faults.kind = kind;
                faults.part = part;
                int64_t put = produce(&ring, next, BATCH, 3);
                CHECK_IS(put, wanted);
                faults.kind = NO_FAULT;
                if (put > 0) next += 3;
                else CHECK_IS(size_of(path), before);
                if (wanted < 0) CHECK_IS(cbuf_log_stats_get(&log).failures, 1);
                CHECK_IS(cbuf_log_stats_get(&log).refused, wanted == CBUF_ENOSPACE ? 3 : 0);
                CHECK_IS(produce(&ring, next, BATCH, 3), 3);
                do follow_to_end(&follower);
                while (cbuf_log_drain(&log, 0) == 0);
                follow_to_end(&follower);
                CHECK_IS(follower.next, next + 3);
                cbuf_close(&ring);
                if (every_row) CHECK_IS(rows_of(path), next + 3);
                end_follower(&follower);
                CHECK_IS(cbuf_remove(name), 0);
            }
        }
    }
}

static int fill_the_disk(void *argument)
{
    const char *path = (const char *)argument;
    char name[64];
    struct follower follower;
    cbuf_ring ring;
    cbuf_log log;
    uint64_t next = 0;
    int64_t put = 0;
    snprintf(name, sizeof name, "%s", new_name());
    create(&ring, name, DENSE, CBUF_SPILL);
    open_log(&log, &ring, log_options(path, false));
    follow_from(&follower, name);
    for (int round = 0; round < 3; round++) {
        while ((put = produce(&ring, next, BATCH, 50)) == 50) next += 50;
        if (put > 0) next += (uint64_t)put, put = produce(&ring, next, BATCH, 50);
        CHECK_IS(put, CBUF_ENOSPACE);
        CHECK(cbuf_log_stats_get(&log).pending > 100);
        CHECK(cbuf_log_stats_get(&log).last_errno);
        do follow_to_end(&follower);
        while (cbuf_log_drain(&log, 0) == 0);
        follow_to_end(&follower);
        CHECK_IS(follower.next, next);
    }
    cbuf_log_close(&log);
    cbuf_close(&ring);
    end_follower(&follower);
    return 0;
}
static int with_a_file_size_limit(void *path)
{
    struct rlimit limit = { 30000, 30000 };
    signal(SIGXFSZ, SIG_IGN);
    CHECK_IS(setrlimit(RLIMIT_FSIZE, &limit), 0);
    return fill_the_disk(path);
}
static void a_disk_that_is_really_full_is_the_limit(void **state)
{
    char place[128], path[200];
    (void)state;
    if (!is_emulated()) {
        snprintf(path, sizeof path, "%s", new_path());
        CHECK_IS(finish(start(with_a_file_size_limit, path)), 0);
    }
    snprintf(place, sizeof place, "%s", new_path());
    CHECK_IS(mkdir(place, 0700), 0);
    if (mount("tmpfs", place, "tmpfs", 0, "size=64k")) return; /* not permitted here */
    snprintf(path, sizeof path, "%s/spill", place);
    int ended = finish(start(fill_the_disk, path));
    umount2(place, MNT_DETACH);
    CHECK_IS(ended, 0);
}

/* ---- the log of every row ---- */

static void a_replay_gives_the_ring_that_was_logged(void **state)
{
    (void)state;
    for (int kind = 0; kind < VARIANTS * 2; kind++) {
        const char *name = new_name(), *again = new_name(), *path = new_path();
        struct row rows[64], replayed[64];
        cbuf_ring ring, copy;
        cbuf_log log;
        cbuf_log_report report;
        uint64_t next = 0, seed = 77, first, first_again;
        cbuf_options options = ring_options(again, (kind + 1) % VARIANTS, CBUF_OVERWRITE);
        create(&ring, name, kind % VARIANTS, kind < VARIANTS ? CBUF_OVERWRITE : CBUF_BLOCK);
        open_log(&log, &ring, log_options(path, true));
        while (next < 300) {
            uint32_t n = 1 + (uint32_t)(next_random(&seed) % 30);
            int64_t put = produce(&ring, next, (int)(next_random(&seed) % WAYS), n);
            CHECK(put == n || put == 1);
            next += (uint64_t)put;
            if (next > 100 && seed % 8 == 0) { /* it is closed and opened again */
                CHECK_IS(cbuf_log_close(&log), 0);
                open_log(&log, &ring, log_options(path, true));
                CHECK_IS(cbuf_log_report_get(&log).rows, next);
            }
        }
        CHECK_IS(rows_of(path), next); /* also while it is open */
        options.columns = NULL;
        options.column_count = options.row_bytes = 0;
        int64_t got = cbuf_log_replay(path, &copy, &options, &report);
        CHECK_IS_FOR(cbuf_error(&copy), got, next);
        CHECK(report.rows == next && !report.why && !report.bytes_cut);
        CHECK_IS(cbuf_head(&copy), next);
        CHECK_IS(copy.options.column_count, 3);
        for (uint32_t k = 0; k < 3; k++) {
            cbuf_column column, wanted;
            CHECK_IS(cbuf_column_at(&copy, k, &column), 0);
            CHECK_IS(cbuf_column_at(&ring, k, &wanted), 0);
            CHECK(!memcmp(&column, &wanted, sizeof column));
        }
        int64_t n = cbuf_snapshot(&ring, rows, 8, &first);
        CHECK_IS(cbuf_snapshot(&copy, replayed, 8, &first_again), n);
        CHECK_IS(first, first_again);
        for (int64_t k = 0; k < n; k++) check_row(&replayed[k], first + (uint64_t)k);
        cbuf_close(&copy);
        /* Not over a ring that is there, unless it is to be replaced. */
        CHECK_IS(cbuf_log_replay(path, &copy, &options, NULL), CBUF_EEXIST);
        options.existing = CBUF_REPLACE;
        CHECK_IS(truncate(path, (off_t)size_of(path) - 1), 0);
        got = cbuf_log_replay(path, &copy, &options, &report);
        CHECK(got < (int64_t)next && got >= (int64_t)next - 30);
        CHECK(report.why && report.bytes_cut > 0 && report.bytes_cut == size_of(path) - log.bytes +
            24 + (next - (uint64_t)got) * sizeof(struct row));
        cbuf_close(&copy);
        cbuf_close(&ring);
        CHECK_IS(cbuf_remove(name), 0);
        CHECK_IS(cbuf_remove(again), 0);
    }
}
static void a_replay_that_fails_leaves_no_ring(void **state)
{
    (void)state;
    const char *name = new_name();
    struct bytes nothing;
    cbuf_ring ring;
    cbuf_options options = ring_options(name, DENSE, CBUF_OVERWRITE);
    char path[128];
    snprintf(path, sizeof path, "%s", new_path());
    CHECK_IS(cbuf_log_replay(path, &ring, &options, NULL), CBUF_ENOENT);
    memset(&nothing, 'x', sizeof nothing);
    store(&nothing, 5000, path);
    CHECK_IS(cbuf_log_replay(path, &ring, &options, NULL), CBUF_EFORMAT);
    CHECK(strstr(cbuf_error(&ring), path));
    CHECK(access(file_of(name, ""), F_OK));
    cbuf_close(&ring);
}

static void syncs_come_when_they_are_asked_for(void **state)
{
    (void)state;
    static const int64_t intervals[] = { 0, CBUF_FOREVER, INT64_MAX, 1 };
    static const uint64_t wanted[] = { 11, 0, 1, 11 }; /* ten writes, and the close */
    for (size_t k = 0; k < 4; k++) {
        cbuf_ring ring;
        cbuf_log log;
        cbuf_log_options options = log_options(new_path(), true);
        options.sync_ns = intervals[k];
        memset(&faults, 0, sizeof faults);
        create(&ring, new_name(), DENSE, CBUF_OVERWRITE);
        open_log(&log, &ring, options);
        for (uint64_t next = 0; next < 30; next += 3)
            CHECK_IS(produce(&ring, next, BATCH, 3), 3);
        uint64_t before_close = faults.syncs;
        cbuf_close(&ring);
        CHECK(faults.syncs == wanted[k] || faults.syncs == before_close);
        CHECK_IS(before_close, wanted[k] == 11 ? 10 : 0);
        CHECK_IS(faults.syncs, wanted[k] == 1 ? 1 : before_close);
    }
}
static void a_row_that_could_not_be_synced_is_not_written(void **state)
{
    (void)state;
    const char *name = new_name(), *path = new_path();
    cbuf_ring ring;
    cbuf_log log;
    cbuf_log_options options = log_options(path, true);
    options.sync_ns = 0;
    memset(&faults, 0, sizeof faults);
    create(&ring, name, SHARED_TAIL, CBUF_OVERWRITE);
    open_log(&log, &ring, options);
    CHECK_IS(produce(&ring, 0, BATCH, 3), 3);
    faults.sync = EIO;
    CHECK_IS(produce(&ring, 3, BATCH, 3), CBUF_ESYSTEM);
    CHECK_IS(cbuf_log_sync(&log), CBUF_ESYSTEM);
    CHECK_IS(cbuf_head(&ring), 3);
    CHECK_IS(rows_of(path), 3);
    CHECK_IS(cbuf_log_stats_get(&log).last_errno, EIO);
    faults.sync = 0;
    CHECK_IS(produce(&ring, 3, ONE, 1), 1);
    CHECK_IS(rows_of(path), 4);
    cbuf_close(&ring);
}

/* ---- without a log ---- */

static void a_ring_that_spills_has_to_have_a_log(void **state)
{
    (void)state;
    const char *name = new_name();
    struct stage *stage = new_stage(SHARED_TAIL, CBUF_SPILL, false);
    struct follower follower;
    cbuf_ring ring;
    cbuf_log log;
    cbuf_stats stats;
    create(&ring, name, SHARED_TAIL, CBUF_SPILL);
    follow_from(&follower, name);
    CHECK_IS(produce(&ring, 0, BATCH, 14), 14);
    CHECK_IS(produce(&ring, 14, BATCH, 5), 2);
    CHECK_IS(produce(&ring, 16, ONE, 1), CBUF_ENOSPILL);
    CHECK_IS(produce(&ring, 16, BATCH, 2), CBUF_ENOSPILL);
    CHECK_IS(produce(&ring, 16, COLUMNS, 2), CBUF_ENOSPILL);
    CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
    CHECK_IS(stats.dropped, 0);
    /* What is in the log comes before what is written: not a row without it. */
    open_log(&log, &ring, log_options(stage->path, false));
    CHECK_IS(produce(&ring, 16, BATCH, 4), 4);
    CHECK_IS(cbuf_log_close(&log), 0);
    CHECK_IS(size_of(stage->path), 8192 + 24 + 4 * sizeof(struct row));
    follow_to_end(&follower);
    CHECK_IS(produce(&ring, 20, ONE, 1), CBUF_ENOSPILL);
    cbuf_close(&ring);
    create(&ring, name, SHARED_TAIL, CBUF_SPILL);
    CHECK_IS(produce(&ring, 20, ONE, 1), CBUF_ENOSPILL);
    open_log(&log, &ring, log_options(stage->path, false));
    CHECK_IS(cbuf_log_report_get(&log).recovered, 4);
    CHECK_IS(produce(&ring, 20, ONE, 1), 1);
    follow_to_end(&follower);
    CHECK_IS(follower.next, 21);
    cbuf_close(&ring);
    end_follower(&follower);
    end_stage(stage);
}
static void a_spill_that_was_deleted_is_missed(void **state)
{
    static struct wreck wreck;
    cbuf_ring ring;
    cbuf_log log;
    (void)state;
    new_wreck(&wreck);
    CHECK_IS(unlink(wreck.stage->path), 0);
    create(&ring, wreck.stage->name, SHARED_TAIL, CBUF_SPILL);
    open_log(&log, &ring, log_options(wreck.stage->path, false));
    CHECK_IS(cbuf_log_report_get(&log).rows_missing, 12);
    CHECK_IS(produce(&ring, CAPACITY, ONE, 1), 1);
    cbuf_close(&ring);
    end_wreck(&wreck);
}
static void a_ring_is_removed_with_its_spill_and_without_its_log(void **state)
{
    (void)state;
    for (int every_row = 0; every_row < 2; every_row++) {
        const char *name = new_name(), *file = every_row ? ".log" : ".spill";
        struct follower follower;
        cbuf_ring ring;
        cbuf_log log;
        create(&ring, name, SHARED_TAIL, CBUF_SPILL);
        open_log(&log, &ring, log_options(NULL, every_row != 0));
        CHECK(!strcmp(cbuf_log_path(&log), file_of(name, file)));
        follow_from(&follower, name);
        CHECK_IS(produce(&ring, 0, BATCH, 20), 20);
        cbuf_close(&ring);
        CHECK(!access(file_of(name, file), F_OK));
        CHECK_IS(cbuf_remove(name), 0);
        CHECK_IS(access(file_of(name, file), F_OK), every_row - 1);
        end_follower(&follower);
    }
}

/* ---- bad input ---- */

static int open_with(cbuf_log *log, cbuf_ring *ring, cbuf_log_options options)
{
    struct traces before;
    traces_now(&before);
    int error = cbuf_log_open(log, ring, &options);
    CHECK(error < 0 && *cbuf_log_error(log) && !log->ring);
    check_traces(&before, 64, cbuf_log_error(log));
    CHECK_IS(cbuf_log_close(log), 0);
    return error;
}
static void what_cannot_be_is_refused_with_a_reason(void **state)
{
    (void)state;
    const char *name = new_name(), *path = new_path(), *other = new_name();
    cbuf_ring ring, second, reader, none;
    cbuf_log log, busy;
    cbuf_log_options good = log_options(path, true), bad;
    memset(&none, 0, sizeof none);
    CHECK_IS(open_with(&log, &none, good), CBUF_ENOTOPEN);
    create(&ring, name, IN_PLACE, CBUF_OVERWRITE);
    CHECK_IS(cbuf_attach(&reader, name, NULL), 0);
    CHECK_IS(open_with(&log, &reader, good), CBUF_EROLE);
    bad = good, bad.every_row = false;
    CHECK_IS(open_with(&log, &ring, bad), CBUF_EINVAL);
    bad = good, bad.existing = 3;
    CHECK_IS(open_with(&log, &ring, bad), CBUF_EINVAL);
    bad = good, bad.at_limit = 2;
    CHECK_IS(open_with(&log, &ring, bad), CBUF_EINVAL);
    bad = good, bad.sync_ns = -2;
    CHECK_IS(open_with(&log, &ring, bad), CBUF_EINVAL);
    bad = good, bad.block_ns = -1;
    CHECK_IS(open_with(&log, &ring, bad), CBUF_EINVAL);
    bad = good, bad.max_bytes = 8192;
    CHECK_IS(open_with(&log, &ring, bad), CBUF_EINVAL);
    bad = good, bad.path = "/nowhere/at/all";
    CHECK_IS(open_with(&log, &ring, bad), CBUF_ENOENT);
    bad = good, bad.path = scene.directory;
    CHECK(open_with(&log, &ring, bad) < 0);
    open_log(&log, &ring, good);
    CHECK_IS(open_with(&busy, &ring, good), CBUF_EBUSY);
    create(&second, other, IN_PLACE, CBUF_OVERWRITE);
    CHECK_IS(open_with(&busy, &second, good), CBUF_EBUSY);
    int64_t granted;
    CHECK(!cbuf_claim(&ring, 1, &granted));
    CHECK_IS(granted, CBUF_ELOGGED);
    CHECK_IS(produce(&ring, 0, BATCH, 3), 3);
    CHECK_IS(cbuf_log_close(&log), 0);
    CHECK(cbuf_claim(&ring, 1, &granted) && granted == 1);
    bad = good, bad.existing = CBUF_NEW;
    CHECK_IS(open_with(&log, &ring, bad), CBUF_EEXIST);
    CHECK_IS(open_with(&log, &second, good), CBUF_EMISMATCH);
    CHECK_IS(rows_of(path), 3);
    bad = good, bad.existing = CBUF_REPLACE;
    open_log(&log, &second, bad);
    CHECK_IS(rows_of(path), 0);
    cbuf_log_close(&log);
    CHECK(cbuf_claim(&ring, 1, &granted));
    open_log(&log, &ring, good); /* there is nothing in it that could be another's */
    CHECK_IS(cbuf_publish(&ring, 1), CBUF_EINVAL); /* nor is what was claimed before logged */
    cbuf_close(&ring);
    cbuf_close(&second);
    cbuf_close(&reader);
}
static void only_a_log_is_replaced(void **state)
{
    (void)state;
    struct bytes text;
    cbuf_ring ring;
    cbuf_log log;
    char path[128];
    snprintf(path, sizeof path, "%s", new_path());
    cbuf_log_options options = log_options(path, true);
    options.existing = CBUF_REPLACE;
    memset(&text, 'a', sizeof text);
    store(&text, 100, path);
    create(&ring, new_name(), DENSE, CBUF_OVERWRITE);
    CHECK_IS(open_with(&log, &ring, options), CBUF_EFORMAT);
    CHECK_IS(size_of(path), 100);
    store(&text, 0, path); /* nor is there anything in an empty file */
    open_log(&log, &ring, options);
    cbuf_close(&ring);
}
/* A ring that went back, as one on a disk may after a power failure. */
static void a_log_that_is_ahead_of_its_ring_is_refused_and_kept(void **state)
{
    static struct wreck wreck;
    struct bytes now;
    cbuf_ring ring;
    cbuf_log log;
    (void)state;
    new_wreck(&wreck);
    create(&ring, wreck.stage->name, SHARED_TAIL, CBUF_SPILL);
    ring.next = ring.limit = ring.reserved = 10;
    cbuf_log_options options = log_options(wreck.stage->path, false);
    CHECK_IS(open_with(&log, &ring, options), CBUF_EFORMAT);
    load(&now, wreck.stage->path);
    CHECK(now.n == wreck.file.n && !memcmp(now.at, wreck.file.at, now.n));
    cbuf_close(&ring);
    end_wreck(&wreck);
}
static int use_after_fork(void *argument)
{
    cbuf_log *log = (cbuf_log *)argument;
    CHECK_IS(cbuf_log_drain(log, 0), CBUF_EFORKED);
    CHECK_IS(produce(log->ring, 0, ONE, 1), CBUF_EFORKED);
    cbuf_close(log->ring);
    return 0;
}
static void a_forked_child_cannot_use_it(void **state)
{
    (void)state;
    const char *name = new_name(), *path = new_path();
    struct follower follower;
    cbuf_ring ring;
    cbuf_log log;
    if (!fork_wipes()) return;
    create(&ring, name, DENSE, CBUF_SPILL);
    open_log(&log, &ring, log_options(path, false));
    follow_from(&follower, name);
    CHECK_IS(finish(start(use_after_fork, &log)), 0);
    CHECK_IS(produce(&ring, 0, BATCH, 20), 20);
    CHECK_IS(size_of(path), 8192 + 24 + 4 * sizeof(struct row));
    cbuf_close(&ring);
    end_follower(&follower);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_begin, scene_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_checksum_is_xxh64),
        TEST(rows_come_once_and_in_order_through_many_episodes),
        TEST(a_batch_larger_than_a_record_is_split),
        TEST(a_drain_waits_for_readers),
        TEST(a_producer_may_die_at_any_operation_of_a_spill_or_a_log),
        TEST(random_deaths_lose_and_double_no_row),
        TEST(truncated_at_any_byte_it_yields_the_whole_records_before),
        TEST(a_record_in_the_place_of_a_torn_one_is_read_as_it_is),
        TEST(with_any_byte_changed_it_yields_the_records_before_that),
        TEST(a_damaged_mark_loses_no_row),
        TEST(a_mark_counts_for_its_episode_and_gives_way_to_newer_ones),
        TEST(a_reader_that_lags_costs_the_disk_its_lag_only),
        TEST(records_of_another_place_or_log_do_not_count),
        TEST(damage_while_it_is_open_is_counted_and_does_not_stop_the_producer),
        TEST(at_its_limit_a_spill_refuses_rows_and_counts_them),
        TEST(at_its_limit_a_spill_can_wait),
        TEST(a_log_of_every_row_refuses_what_is_beyond_its_limit),
        TEST(a_disk_that_is_full_or_broken_loses_no_earlier_row),
        TEST(a_disk_that_is_really_full_is_the_limit),
        TEST(a_replay_gives_the_ring_that_was_logged),
        TEST(a_replay_that_fails_leaves_no_ring),
        TEST(syncs_come_when_they_are_asked_for),
        TEST(a_row_that_could_not_be_synced_is_not_written),
        TEST(a_ring_that_spills_has_to_have_a_log),
        TEST(a_spill_that_was_deleted_is_missed),
        TEST(a_ring_is_removed_with_its_spill_and_without_its_log),
        TEST(what_cannot_be_is_refused_with_a_reason),
        TEST(only_a_log_is_replaced),
        TEST(a_log_that_is_ahead_of_its_ring_is_refused_and_kept),
        TEST(a_forked_child_cannot_use_it),
    };
    const char *kills = getenv("CBUF_LOG_KILLS");
    scene_open(300 + (unsigned)((kills ? strtoull(kills, NULL, 10) : 0) / 10));
    return scene_close(cmocka_run_group_tests(tests, NULL, NULL));
}
