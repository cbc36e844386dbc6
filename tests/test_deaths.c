/*
 * test_deaths.c - processes that die, sleep or stand still: at every operation, at random ones, at
 * random moments. What holds for those who live on: no row is torn, rows accepted + rows lost =
 * rows written, nobody waits for the dead.
 *
 * CBUF_KILLS (environment): how many random deaths there are; 400 if it is not set.
 */
#define CBUF_ACCESS_HEADER "kill_access.h"
#include "process.h"

/* ---- rows that tell whether they are whole, and who wrote them ---- */

struct row {
    uint64_t sequence, words[4];
    uint32_t writer, padding; /* no column: room for the row's number on every machine */
};
typedef struct row a_row;
static const cbuf_column row_columns[] = {
    CBUF_COLUMN(a_row, sequence), { "words", CBUF_BYTES(32), (uint32_t)offsetof(a_row, words) },
    CBUF_COLUMN(a_row, writer) };
/* With delta columns: one whose values fit in most rows, one in none. */
static const cbuf_column delta_columns[] = { CBUF_COLUMN(a_row, sequence),
    { "random", CBUF_UINT64, (uint32_t)offsetof(a_row, words) },
    { "words", CBUF_BYTES(24), (uint32_t)offsetof(a_row, words) + 8 },
    CBUF_COLUMN(a_row, writer) };
static const cbuf_delta row_deltas[] = {
    { "sequence", 8, 0 }, { "random", 16, 0 }, { "writer", 8, 0 } };

static struct row row_of(uint64_t sequence, uint32_t writer)
{
    struct row made;
    uint64_t seed = sequence * 31 + writer;
    memset(&made, 0, sizeof made);
    made.sequence = sequence;
    made.writer = writer;
    for (int k = 0; k < 4; k++) made.words[k] = next_random(&seed);
    return made;
}
static void check_row(const struct row *is, uint64_t sequence)
{
    struct row wanted = row_of(sequence, is->writer);
    CHECK_IS(is->sequence, sequence);
    CHECK(!memcmp(is->words, wanted.words, sizeof is->words));
}

/* ---- what the processes of a test share ---- */

enum variant { SHARED_TAIL, IN_PLACE, DENSE, DELTA, DELTA_DENSE, VARIANTS };
#define POLICIES 3
#define CAPACITY 16
#define LARGE_CAPACITY 256

struct stage {
    char name[64];
    int variant;
    uint8_t on_full, existing;
    int64_t block_ns, demote_ns;
    uint32_t max_readers;
    uint64_t capacity;
    uint64_t countdown; /* what kill_countdown is set to */
    uint64_t seed;
    uint32_t writer;              /* of the rows */
    uint64_t resumed_at;          /* UINT64_MAX: the producer did not come so far */
    uint64_t confirmed, attempted; /* rows: that writes returned for; that they were begun for */
    struct cue ready, go;
};

static struct stage *new_stage(int variant, int on_full)
{
    struct stage *stage = (struct stage *)shared_memory(sizeof *stage);
    snprintf(stage->name, sizeof stage->name, "%s", new_name());
    stage->variant = variant;
    stage->on_full = (uint8_t)on_full;
    stage->max_readers = 4;
    stage->capacity = CAPACITY;
    stage->writer = 1;
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
static cbuf_options options_of(const struct stage *stage)
{
    cbuf_options options;
    memset(&options, 0, sizeof options);
    options.name = stage->name;
    options.capacity = stage->capacity;
    options.reserve_step = (uint32_t)stage->capacity / 8;
    options.columns = row_columns;
    options.column_count = 3;
    options.row_bytes = sizeof(struct row);
    options.max_readers = stage->max_readers;
    options.layout = CBUF_NUMBERED;
    if (stage->variant == DENSE || stage->variant == DELTA_DENSE) options.layout = CBUF_DENSE;
    if (stage->variant >= DELTA) {
        options.columns = delta_columns;
        options.column_count = 4;
        options.deltas = row_deltas;
        options.delta_count = 3;
        options.block_rows = 2;
    }
    options.in_place = stage->variant == IN_PLACE;
    options.on_full = stage->on_full;
    options.existing = stage->existing;
    options.block_ns = stage->block_ns;
    options.demote_ns = stage->demote_ns;
    return options;
}
static void create(cbuf_ring *ring, const struct stage *stage)
{
    cbuf_options options = options_of(stage);
    int error = cbuf_create(ring, &options);
    CHECK_IS_FOR(cbuf_error(ring), error, 0);
}
static void attach(cbuf_ring *ring, const struct stage *stage)
{
    int error = cbuf_attach(ring, stage->name, NULL);
    CHECK_IS_FOR(cbuf_error(ring), error, 0);
}
static void open_reader(cbuf_reader *reader, const cbuf_ring *ring, uint8_t start)
{
    cbuf_reader_options options;
    memset(&options, 0, sizeof options);
    options.start = start;
    options.spins = 10;
    CHECK_IS(cbuf_reader_open(reader, ring, &options), 0);
}
static void remove_ring(const struct stage *stage)
{
    int error = cbuf_remove(stage->name);
    CHECK(error == 0 || error == CBUF_ENOENT);
}

/* ---- writing ---- */

enum way { ONE, BATCH, COLUMNS, CLAIM, WAYS };

static int64_t write_claimed(cbuf_ring *ring, const struct row *rows, uint32_t n)
{
    int64_t granted;
    unsigned char *to = (unsigned char *)cbuf_claim(ring, n, &granted);
    for (int64_t k = 0; to && k < granted; k++, to += cbuf_stride(ring))
        memcpy(to, &rows[k], sizeof *rows);
    return granted > 0 ? cbuf_publish(ring, (uint32_t)granted) : granted;
}
static int64_t write_columns(cbuf_ring *ring, const struct row *rows, uint32_t n)
{
    uint64_t sequences[8];
    unsigned char words[8][32];
    uint32_t writers[8];
    for (uint32_t k = 0; k < n; k++) {
        sequences[k] = rows[k].sequence;
        writers[k] = rows[k].writer;
        memcpy(words[k], rows[k].words, 32);
    }
    cbuf_array arrays[3] = { { &row_columns[0], sequences }, { &row_columns[1], words },
        { &row_columns[2], writers } };
    return cbuf_write_columns(ring, arrays, 3, n);
}
/* Writes up to 8 rows, and keeps account. How many were written, or an error. */
static int64_t produce(struct stage *stage, cbuf_ring *ring, int way, uint32_t n)
{
    struct row rows[8];
    uint64_t next = stage->confirmed;
    int64_t written = 0;
    if (way == ONE) n = 1;
    if (way == CLAIM && stage->variant != IN_PLACE && stage->variant != DENSE) way = BATCH;
    for (uint32_t k = 0; k < n; k++) rows[k] = row_of(next + k, stage->writer);
    stage->attempted = next + n;
    if (way == ONE) written = cbuf_write(ring, rows);
    if (way == BATCH) written = cbuf_write_n(ring, rows, n);
    if (way == COLUMNS) written = write_columns(ring, rows, n);
    if (way == CLAIM) written = write_claimed(ring, rows, n);
    if (written > 0) stage->confirmed = next + (uint64_t)written;
    stage->attempted = stage->confirmed;
    return written;
}
/* Becomes the producer, in whatever state the last one left the ring. */
static void resume(struct stage *stage, cbuf_ring *ring)
{
    create(ring, stage);
    uint64_t head = cbuf_head(ring);
    CHECK(head >= stage->confirmed && head <= stage->attempted);
    stage->confirmed = stage->attempted = stage->resumed_at = head;
}

/* ---- following: a reader that was there all along ---- */

struct follower {
    cbuf_ring ring;
    cbuf_reader reader;
    uint64_t started, next, accepted;
    uint32_t writers[256]; /* of the rows accepted, by sequence number modulo 256 */
};

static void follow_from(struct follower *follower, const struct stage *stage, uint8_t start)
{
    memset(follower, 0, sizeof *follower);
    attach(&follower->ring, stage);
    open_reader(&follower->reader, &follower->ring, start);
    follower->started = follower->next = cbuf_first(&follower->reader);
}
/* Takes `n` rows that were read, the first of them being number `first`. */
static void accept_rows(struct follower *follower, const unsigned char *rows, uint32_t stride,
    int64_t n, uint64_t first)
{
    uint64_t lost = cbuf_lost(&follower->reader);
    /* What is neither accepted nor lost is missing. */
    CHECK_IS(first, follower->started + follower->accepted + lost);
    for (int64_t k = 0; k < n; k++) {
        struct row row;
        memcpy(&row, rows + (uint64_t)k * stride, sizeof row);
        check_row(&row, first + (uint64_t)k);
        follower->writers[row.sequence % 256] = row.writer;
    }
    follower->accepted += (uint64_t)n;
    follower->next = first + (uint64_t)n;
}
/* Reads what there is, at most `n` rows; how many those were. */
static int64_t follow(struct follower *follower, uint32_t n, bool in_place)
{
    struct row rows[64];
    const void *seen;
    if (!in_place || follower->ring.delta) {
        int64_t got = cbuf_read(&follower->reader, rows, n < 64 ? n : 64);
        CHECK(got >= 0);
        if (got)
            accept_rows(
                follower, (unsigned char *)rows, sizeof *rows, got, cbuf_first(&follower->reader));
        return got;
    }
    int64_t got = cbuf_peek(&follower->reader, n < 8 ? n : 8, &seen);
    CHECK(got >= 0);
    uint32_t stride = cbuf_stride(&follower->ring);
    uint64_t copies[8 * 8];
    CHECK(stride * (uint64_t)got <= sizeof copies);
    if (got) memcpy(copies, seen, (size_t)got * stride);
    if (!got || !cbuf_still_valid(&follower->reader)) return 0; /* torn, and known to be */
    uint64_t first = follower->reader.cursor;
    cbuf_advance(&follower->reader, (uint32_t)got);
    accept_rows(follower, (unsigned char *)copies, stride, got, first);
    return got;
}
static void follow_to_end(struct follower *follower)
{
    while (follow(follower, 7, false) > 0 || follow(follower, 3, true) > 0) {}
}
/* What must hold when all was read and no producer is at work. */
static void check_account(const struct follower *follower, uint64_t head)
{
    CHECK_IS(follower->accepted + cbuf_lost(&follower->reader), head - follower->started);
    CHECK_IS(cbuf_available(&follower->reader), 0);
}
static void end_follower(struct follower *follower)
{
    cbuf_reader_close(&follower->reader);
    cbuf_close(&follower->ring);
}
/* One who comes late sees the rows that the follower saw, from the same writers. */
static void check_late_comer(const struct follower *follower, const cbuf_ring *ring)
{
    struct row rows[CAPACITY];
    uint64_t first = 0;
    int64_t n = cbuf_snapshot(ring, rows, CAPACITY, &first);
    CHECK(n >= 0);
    for (int64_t k = 0; k < n; k++) {
        uint64_t sequence = first + (uint64_t)k;
        check_row(&rows[k], sequence);
        uint32_t writer = follower->writers[sequence % 256];
        if (sequence >= follower->started && sequence < follower->next && writer)
            CHECK_IS(rows[k].writer, writer);
    }
}

/* ---- (1) a producer killed at each operation ---- */

/* All that a producer does; no more rows at a time than the gates of a reader that waits leave room
 * for. */
static int live_as_producer(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    kill_countdown = stage->countdown;
    resume(stage, &ring);
    for (int round = 0; round < (stage->on_full == CBUF_BLOCK ? 1 : 2); round++) {
        produce(stage, &ring, ONE, 1);
        produce(stage, &ring, BATCH, 5);
        produce(stage, &ring, ONE, 1);
        produce(stage, &ring, COLUMNS, 2);
        produce(stage, &ring, CLAIM, 3);
        produce(stage, &ring, ONE, 1);
    }
    /* Nobody makes room: it waits, in vain. */
    if (stage->on_full == CBUF_BLOCK) CHECK(produce(stage, &ring, BATCH, 8) < 8);
    cbuf_close(&ring);
    return 0;
}

static void check_after_producer(struct stage *stage, struct follower *follower, bool resumes)
{
    cbuf_ring ring;
    uint64_t before = follower->next;
    /* No row that was seen is written again. */
    if (stage->resumed_at != UINT64_MAX) CHECK(stage->resumed_at >= before);
    follow_to_end(follower);
    CHECK(follower->next <= stage->attempted);
    if (stage->on_full != CBUF_OVERWRITE) CHECK_IS(cbuf_lost(&follower->reader), 0);
    if (!resumes) return; /* the next victim has to */
    stage->writer++;
    resume(stage, &ring);
    CHECK(stage->resumed_at >= follower->next);
    check_late_comer(follower, &ring);
    CHECK_IS(produce(stage, &ring, BATCH, 3), 3);
    follow_to_end(follower);
    check_account(follower, cbuf_head(&ring));
    check_late_comer(follower, &ring);
    cbuf_close(&ring);
}

static void a_producer_may_die_at_any_operation(void **state)
{
    uint64_t deaths = 0;
    (void)state;
    for (int kind = 0; kind < VARIANTS * POLICIES; kind++) {
        struct stage *stage = new_stage(kind % VARIANTS, kind / VARIANTS);
        struct follower follower;
        cbuf_ring ring;
        int ended = -SIGKILL;
        stage->block_ns = 100000;
        resume(stage, &ring);
        cbuf_close(&ring);
        follow_from(&follower, stage, CBUF_OLDEST);
        for (stage->countdown = 1; ended != 0; stage->countdown++) {
            stage->writer++;
            stage->resumed_at = UINT64_MAX;
            ended = finish(start(live_as_producer, stage));
            CHECK(ended == 0 || ended == -SIGKILL);
            deaths += ended != 0;
            check_after_producer(stage, &follower, ended == 0 || stage->countdown % 3 != 0);
        }
        CHECK(stage->countdown > 100);
        end_follower(&follower);
        end_stage(stage);
    }
    print_message("deaths of producers: %llu\n", (unsigned long long)deaths);
}

static int live_as_creator(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    kill_countdown = stage->countdown;
    create(&ring, stage);
    cbuf_close(&ring);
    return 0;
}
/* After any death there is a ring or none, and the next producer makes one; nothing remains when
 * that is removed. */
static void a_ring_is_made_whole_or_not_at_all(void **state)
{
    struct traces before;
    (void)state;
    for (int place = 0; place < 2; place++) {
        struct stage *stage = new_stage(SHARED_TAIL, CBUF_OVERWRITE);
        if (place) snprintf(stage->name, sizeof stage->name, "%s", new_path());
        int ended = -SIGKILL;
        traces_now(&before);
        for (stage->countdown = 1; ended != 0; stage->countdown++) {
            cbuf_ring ring;
            ended = finish(start(live_as_creator, stage));
            CHECK(ended == 0 || ended == -SIGKILL);
            int error = cbuf_attach(&ring, stage->name, NULL);
            CHECK_FOR(cbuf_error(&ring), error == 0 || error == CBUF_ENOENT);
            if (!error) CHECK_IS(cbuf_head(&ring), 0);
            if (!error) cbuf_close(&ring);
            if (stage->countdown % 2) {
                stage->confirmed = stage->attempted = 0;
                resume(stage, &ring);
                CHECK_IS(produce(stage, &ring, BATCH, 5), 5);
                cbuf_close(&ring);
            }
            remove_ring(stage);
            check_traces(&before, 64, "a death while creating");
        }
        CHECK(stage->countdown > 30);
        end_stage(stage);
    }
}

static int live_as_remover(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    kill_countdown = stage->countdown;
    return cbuf_remove(stage->name);
}
/* The victim replaces or removes a ring that has a reader. */
static void who_dies_replacing_or_removing_leaves_a_ring_or_none(void **state)
{
    struct traces before;
    (void)state;
    for (int removes = 0; removes < 2; removes++) {
        struct stage *stage = new_stage(DENSE, CBUF_OVERWRITE);
        int ended = -SIGKILL;
        traces_now(&before);
        for (stage->countdown = 1; ended != 0; stage->countdown++) {
            struct follower follower;
            cbuf_ring ring;
            stage->existing = CBUF_NEW;
            stage->confirmed = stage->attempted = 0;
            resume(stage, &ring);
            produce(stage, &ring, BATCH, 5);
            follow_from(&follower, stage, CBUF_OLDEST);
            cbuf_close(&ring);
            stage->existing = CBUF_REPLACE;
            ended = finish(start(removes ? live_as_remover : live_as_creator, stage));
            CHECK(ended == 0 || ended == -SIGKILL);
            int error = cbuf_attach(&ring, stage->name, NULL);
            /* CBUF_EFORMAT: the readers' file was already the new ring's. */
            CHECK_FOR(
                cbuf_error(&ring), error == 0 || error == (removes ? CBUF_ENOENT : CBUF_EFORMAT));
            if (!error) CHECK(cbuf_head(&ring) == 5 || cbuf_head(&ring) == 0);
            if (!error) cbuf_close(&ring);
            follow_to_end(&follower);
            CHECK_IS(follower.accepted, 5);
            if (stage->countdown % 2) create(&ring, stage), cbuf_close(&ring);
            remove_ring(stage);
            CHECK_IS(cbuf_wait(&follower.reader, 1, 10000000000), CBUF_ERETIRED);
            end_follower(&follower);
            check_traces(&before, 64, "a death while replacing");
        }
        CHECK(stage->countdown > 15);
        end_stage(stage);
    }
}

enum deed { RESUME, REPLACE, REMOVE, REMAKE, DEEDS };

static int do_deed(const struct stage *stage, int deed)
{
    cbuf_ring ring;
    cbuf_options options = options_of(stage);
    int removed = deed == REMOVE || deed == REMAKE ? cbuf_remove(stage->name) : 0;
    if (deed == REMOVE || removed == CBUF_EBUSY) return removed;
    options.existing = deed == REPLACE ? CBUF_REPLACE : CBUF_RESUME;
    int error = cbuf_create(&ring, &options);
    cbuf_ring second;
    if (!error) CHECK_IS(cbuf_create(&second, &options), CBUF_EBUSY); /* it is the only one */
    cbuf_close(&ring);
    return error;
}
static bool is_allowed(int deed, int result)
{
    return result == 0 || result == CBUF_EBUSY || (deed == REMOVE && result == CBUF_ENOENT);
}
static int do_deed_with_a_stop(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    kill_signal = SIGSTOP;
    kill_countdown = stage->countdown;
    return is_allowed((int)stage->seed, do_deed(stage, (int)stage->seed)) ? 0 : 1;
}
/* While one process stands still at each of its operations another does its deed, and then the
 * first goes on. */
static void what_is_made_and_removed_at_the_same_time_is_whole_or_gone(void **state)
{
    struct traces before;
    (void)state;
    traces_now(&before);
    for (int pair = 0; pair < DEEDS * DEEDS; pair++) {
        struct stage *stage = new_stage(SHARED_TAIL, CBUF_OVERWRITE);
        bool stopped = true;
        for (stage->countdown = 1; stopped; stage->countdown++) {
            cbuf_ring ring;
            cbuf_reader reader;
            int status = 0, other = pair % DEEDS;
            stage->seed = (uint64_t)(pair / DEEDS);
            /* Or it starts with no ring. */
            if (stage->countdown % 4 < 3) CHECK_IS(do_deed(stage, RESUME), 0);
            pid_t child = start(do_deed_with_a_stop, stage);
            CHECK_IS(waitpid(child, &status, WUNTRACED), child);
            stopped = WIFSTOPPED(status);
            if (stopped) CHECK(is_allowed(other, do_deed(stage, other)));
            if (stopped) CHECK_IS(finish_stopping(child), 0);
            if (!stopped) CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            forget(child);
            if (!access(file_of(stage->name, ""), F_OK)) {
                attach(&ring, stage);
                CHECK(ring.readers);
                open_reader(&reader, &ring, CBUF_OLDEST);
                cbuf_reader_close(&reader);
                cbuf_close(&ring);
            } else {
                CHECK(access(file_of(stage->name, ".readers"), F_OK));
            }
            remove_ring(stage);
            CHECK(access(file_of(stage->name, ".lock"), F_OK) &&
                access(file_of(stage->name, ".readers"), F_OK));
        }
        CHECK(stage->countdown > 10);
        end_stage(stage);
    }
    check_traces(&before, 64, "deeds at the same time");
}

static int attach_with_a_stop(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    kill_signal = SIGSTOP;
    kill_countdown = stage->countdown;
    int error = cbuf_attach(&ring, stage->name, NULL);
    CHECK_FOR(cbuf_error(&ring), error == 0 || error == CBUF_EFORMAT);
    return error ? 1 : 0;
}
/* A producer that stands still while it replaces the ring. */
static pid_t start_stopped_replacer(struct stage *stage, uint64_t countdown)
{
    int status = 0;
    stage->seed = REPLACE;
    stage->countdown = countdown;
    pid_t child = start(do_deed_with_a_stop, stage);
    CHECK_IS(waitpid(child, &status, WUNTRACED), child);
    if (WIFSTOPPED(status)) return child;
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    forget(child);
    return 0;
}
/* Who finds one file of the new ring and one of the old has it, as soon as the other file is there
 * too. */
static void an_attach_waits_while_its_ring_is_being_replaced(void **state)
{
    uint64_t windows = 0, attaches = 0;
    (void)state;
    struct stage *stage = new_stage(SHARED_TAIL, CBUF_OVERWRITE);
    CHECK_IS(do_deed(stage, RESUME), 0);
    pid_t replacer = 0;
    for (uint64_t at = 1; at == 1 || replacer; at++) {
        cbuf_ring ring;
        bool in_window = false, stopped = true;
        if ((replacer = start_stopped_replacer(stage, at)) == 0) break;
        in_window = cbuf_attach(&ring, stage->name, NULL) == CBUF_EFORMAT;
        if (!in_window) cbuf_close(&ring);
        CHECK_IS(finish_stopping(replacer), 0);
        windows += in_window;
        for (uint64_t n = 1; in_window && stopped && n < 150; n++, attaches++) {
            int status = 0;
            replacer = start_stopped_replacer(stage, at);
            CHECK(replacer);
            stage->countdown = n;
            pid_t reader = start(attach_with_a_stop, stage);
            CHECK_IS(waitpid(reader, &status, WUNTRACED), reader);
            stopped = WIFSTOPPED(status);
            CHECK_IS(finish_stopping(replacer), 0);
            if (stopped) CHECK_IS(finish_stopping(reader), 0);
            else forget(reader);
        }
    }
    CHECK(windows == 0 || attaches > 20);
    end_stage(stage);
}

/* ---- (1) a reader killed, or stopped, at each operation ---- */

static int live_as_reader(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    struct follower follower;
    cbuf_reader_stats stats;
    cbuf_stats ring_stats;
    kill_countdown = stage->countdown;
    follow_from(&follower, stage, CBUF_OLDEST);
    CHECK_IS(follow(&follower, 3, false), 3);
    CHECK(follow(&follower, 2, true) > 0);
    CHECK_IS(cbuf_wait(&follower.reader, 1, 0), 1);
    follow_to_end(&follower);
    /* Asleep for a while, unless the producer is gone. */
    int64_t waited = cbuf_wait(&follower.reader, 1, 50000);
    CHECK(waited == 0 || waited == CBUF_ECLOSED);
    CHECK_IS(cbuf_seek(&follower.reader, follower.next), 0);
    CHECK_IS(cbuf_reader_stats_get(&follower.ring, 0, &stats), 1);
    CHECK_IS(cbuf_stats_get(&follower.ring, &ring_stats), 0);
    end_follower(&follower);
    follow_from(&follower, stage, CBUF_NEWEST); /* and one that stands at the gate */
    end_follower(&follower);
    return 0;
}
/* Writes rows for more than a lap, whatever gates there were. */
static void write_a_lap(struct stage *stage, cbuf_ring *ring)
{
    int64_t began = now_ns();
    for (uint64_t end = stage->confirmed + CAPACITY + 5; stage->confirmed < end;) {
        CHECK(produce(stage, ring, (int)(stage->confirmed % WAYS), 3) >= 0);
        CHECK(now_ns() - began < 20000000000);
    }
}

static void a_gate_may_die_at_any_operation(void **state)
{
    uint64_t deaths = 0;
    (void)state;
    for (int kind = 0; kind < VARIANTS * 2; kind++) {
        struct stage *stage = new_stage(kind % VARIANTS, 1 + kind / VARIANTS);
        cbuf_ring ring;
        cbuf_reader reader;
        int ended = -SIGKILL;
        stage->max_readers = 1; /* so that a slot that does not come free is missed */
        stage->block_ns = 20000000000;
        create(&ring, stage);
        write_a_lap(stage, &ring);
        for (stage->countdown = 1; ended != 0; stage->countdown++) {
            ended = finish(start(live_as_reader, stage));
            CHECK(ended == 0 || ended == -SIGKILL);
            deaths += ended != 0;
            if (stage->countdown % 2)
                open_reader(&reader, &ring, CBUF_OLDEST), cbuf_reader_close(&reader);
            write_a_lap(stage, &ring);
        }
        CHECK(stage->countdown > 60);
        open_reader(&reader, &ring, CBUF_OLDEST);
        cbuf_reader_close(&reader);
        cbuf_close(&ring);
        end_stage(stage);
    }
    print_message("deaths of gates: %llu\n", (unsigned long long)deaths);
}

static int live_as_watcher(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    kill_signal = SIGSTOP;
    kill_countdown = stage->countdown;
    cbuf_ring ring;
    attach(&ring, stage);
    CHECK(cbuf_producer_alive(&ring) == 0);
    cbuf_close(&ring);
    kill_countdown = kill_countdown ? kill_countdown : UINT64_MAX;
    return live_as_reader(stage);
}
/* Reading, watching and asking take no lock that a producer needs. */
static void a_reader_that_stands_still_anywhere_keeps_no_producer_from_starting(void **state)
{
    (void)state;
    struct stage *stage = new_stage(SHARED_TAIL, CBUF_OVERWRITE);
    cbuf_ring ring;
    stage->max_readers = 1;
    resume(stage, &ring);
    write_a_lap(stage, &ring);
    cbuf_close(&ring);
    for (stage->countdown = 1;; stage->countdown++) {
        int status = 0;
        pid_t child = start(live_as_watcher, stage);
        CHECK_IS(waitpid(child, &status, WUNTRACED), child);
        if (!WIFSTOPPED(status)) {
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            forget(child);
            break;
        }
        resume(stage, &ring);
        write_a_lap(stage, &ring);
        cbuf_close(&ring);
        CHECK_IS(end_by(child, SIGKILL), -SIGKILL);
    }
    CHECK(stage->countdown > 60);
    end_stage(stage);
}

/* ---- (2) random deaths ---- */

static int produce_until_death(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    uint64_t seed = stage->seed;
    cbuf_ring ring;
    be_mortal(next_random(&seed));
    resume(stage, &ring);
    for (uint64_t chance; (chance = next_random(&seed)) != 0;) { /* for ever */
        CHECK(produce(stage, &ring, (int)(chance % WAYS), 1 + (uint32_t)(chance / WAYS % 8)) >= 0);
        if (chance % 1024 == 0) cbuf_close(&ring), resume(stage, &ring);
    }
    return 1;
}
static int read_until_death(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    uint64_t seed = stage->seed;
    struct follower follower;
    be_mortal(next_random(&seed));
    for (uint64_t chance; (chance = next_random(&seed)) != 0;) { /* for ever */
        bool newest = chance % 2;
        follow_from(&follower, stage, newest ? CBUF_NEWEST : CBUF_OLDEST);
        for (uint64_t n = chance / 2 % 10000; n; n--) {
            bool in_place = next_random(&seed) % 4 == 0;
            if (!follow(&follower, 1 + (uint32_t)next_random(&seed) % 20, in_place))
                CHECK(cbuf_wait(&follower.reader, 1 + (uint32_t)n % 3, 1000000) != CBUF_EFORMAT);
            if (newest && stage->on_full != CBUF_OVERWRITE)
                CHECK_IS(cbuf_lost(&follower.reader), 0);
        }
        end_follower(&follower);
    }
    return 1;
}

struct totals {
    uint64_t producers, gates, rows, accepted, lost;
};
#define MORTALS 3 /* a producer and two readers at a time */

/* So many deaths of one kind of ring, while one reader lives through them all. */
static void let_die(int variant, int on_full, uint64_t kills, uint64_t seed, struct totals *totals)
{
    struct stage *stage = new_stage(variant, on_full);
    struct follower follower;
    pid_t mortals[MORTALS] = { 0 };
    cbuf_ring ring;
    if (seed % 2) stage->capacity = LARGE_CAPACITY;
    resume(stage, &ring);
    cbuf_close(&ring);
    follow_from(&follower, stage, CBUF_OLDEST);
    for (uint64_t deaths = 0; deaths < kills;) {
        for (int k = 0; k < MORTALS; k++) {
            stage->seed = next_random(&seed);
            if (mortals[k]) continue;
            stage->writer += k == 0;
            mortals[k] = start(k ? read_until_death : produce_until_death, stage);
        }
        for (int k = 0; k < 20; k++) {
            bool in_place = next_random(&seed) % 4 == 0;
            if (!follow(&follower, 1 + (uint32_t)next_random(&seed) % 40, in_place))
                cbuf_wait(&follower.reader, 1, 100000);
        }
        /* A gate loses nothing. */
        if (on_full != CBUF_OVERWRITE) CHECK_IS(cbuf_lost(&follower.reader), 0);
        for (int k = 0; k < MORTALS; k++) {
            siginfo_t end;
            memset(&end, 0, sizeof end);
            CHECK_IS(waitid(P_PID, (id_t)mortals[k], &end, WEXITED | WNOHANG | WNOWAIT), 0);
            if (!end.si_pid) continue;
            CHECK_IS(finish(mortals[k]), -SIGKILL);
            mortals[k] = 0;
            deaths++;
            totals->producers += k == 0;
            totals->gates += k != 0;
        }
    }
    for (int k = 0; k < MORTALS; k++)
        if (mortals[k]) CHECK_IS(end_by(mortals[k], SIGKILL), -SIGKILL);
    follow_to_end(&follower); /* whose gate would hold its successor up */
    stage->writer++;
    stage->block_ns = 20000000000;
    resume(stage, &ring);
    for (int64_t began = now_ns(); produce(stage, &ring, BATCH, 3) <= 0;)
        CHECK(now_ns() - began < 20000000000);
    follow_to_end(&follower);
    check_account(&follower, cbuf_head(&ring));
    totals->rows += cbuf_head(&ring);
    totals->accepted += follower.accepted;
    totals->lost += cbuf_lost(&follower.reader);
    end_follower(&follower);
    cbuf_close(&ring);
    end_stage(stage);
}

static void random_deaths_tear_and_lose_no_row_unaccounted(void **state)
{
    const char *wanted = getenv("CBUF_KILLS");
    uint64_t kills = wanted ? strtoull(wanted, NULL, 10) : 400, seed = 20240229;
    uint64_t each = (kills + VARIANTS * POLICIES - 1) / (VARIANTS * POLICIES);
    struct totals totals;
    (void)state;
    memset(&totals, 0, sizeof totals);
    for (int kind = 0; kind < VARIANTS * POLICIES; kind++)
        let_die(kind % VARIANTS, kind / VARIANTS, each, next_random(&seed), &totals);
    print_message("random deaths: %llu producers, %llu readers; ",
        (unsigned long long)totals.producers, (unsigned long long)totals.gates);
    print_message("rows: %llu written, %llu accepted, %llu lost\n", (unsigned long long)totals.rows,
        (unsigned long long)totals.accepted, (unsigned long long)totals.lost);
    CHECK(totals.producers + totals.gates >= kills);
    CHECK_IS(totals.accepted + totals.lost, totals.rows);
}

/* ---- (3) sleepers ---- */

/* Sleeps for `countdown` rows, without an end of its own: who is not woken sleeps for ever. The
 * answer is its exit status. With `seed` it is stopped at that operation of its wait. */
static int sleep_for_rows(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    struct follower follower;
    uint32_t n = (uint32_t)stage->countdown;
    endless_naps = true;
    follow_from(&follower, stage, CBUF_NEWEST);
    give_cue(&stage->ready);
    kill_signal = SIGSTOP;
    kill_countdown = stage->seed;
    int64_t result = cbuf_wait(&follower.reader, n, CBUF_FOREVER);
    kill_countdown = 0;
    if (result > 0) follow_to_end(&follower);
    end_follower(&follower);
    return result < 0 ? (int)(40 - result) : (int)result;
}
/* Starts one that is asleep when this returns. */
static pid_t start_sleeper(struct stage *stage, const cbuf_ring *ring, uint32_t slot, uint32_t rows)
{
    cbuf_reader_stats stats;
    stage->countdown = rows;
    pid_t child = start(sleep_for_rows, stage);
    await_cue(&stage->ready);
    do CHECK_IS(cbuf_reader_stats_get(ring, slot, &stats), 1);
    while (!stats.waits && !sched_yield());
    await_rest(child);
    return child;
}

static void a_sleeper_is_woken_by_rows(void **state)
{
    (void)state;
    for (int variant = 0; variant < VARIANTS; variant++) {
        struct stage *stage = new_stage(variant, CBUF_OVERWRITE);
        cbuf_ring ring;
        resume(stage, &ring);
        for (int round = 0; round < 20; round++) {
            uint32_t n = 1 + (uint32_t)round % 8;
            pid_t child = start_sleeper(stage, &ring, 0, n);
            for (uint32_t k = 1; k < n; k++) CHECK_IS(produce(stage, &ring, ONE, 1), 1);
            CHECK_IS(produce(stage, &ring, round % WAYS, 3) > 0, 1);
            CHECK_IS(finish(child), n);
        }
        cbuf_close(&ring);
        end_stage(stage);
    }
}

static void the_most_modest_sleeper_is_woken_first(void **state)
{
    (void)state;
    struct stage *stage = new_stage(SHARED_TAIL, CBUF_OVERWRITE);
    cbuf_ring ring;
    resume(stage, &ring);
    for (int round = 0; round < 10; round++) { /* whichever of them came first */
        pid_t one = start_sleeper(stage, &ring, 0, round % 2 ? 5 : 1);
        pid_t two = start_sleeper(stage, &ring, 1, round % 2 ? 1 : 5);
        CHECK_IS(produce(stage, &ring, ONE, 1), 1);
        CHECK_IS(finish(round % 2 ? two : one), 1);
        CHECK_IS(produce(stage, &ring, BATCH, 4), 4);
        CHECK_IS(finish(round % 2 ? one : two), 5);
    }
    cbuf_close(&ring);
    end_stage(stage);
}

/* The rows come while the reader stands still at one of its operations, on its way to sleep. */
static void who_is_about_to_sleep_misses_no_wake_up(void **state)
{
    (void)state;
    struct stage *stage = new_stage(DENSE, CBUF_OVERWRITE);
    cbuf_ring ring;
    char rest = 'T';
    resume(stage, &ring);
    stage->countdown = 2;
    for (stage->seed = 1; rest == 'T'; stage->seed++) {
        pid_t child = start(sleep_for_rows, stage);
        await_cue(&stage->ready);
        rest = await_rest(child);
        CHECK_IS(produce(stage, &ring, BATCH, 3), 3);
        CHECK_IS(finish_stopping(child), 2);
    }
    CHECK(stage->seed > 8);
    cbuf_close(&ring);
    end_stage(stage);
}

static void a_sleeper_killed_asleep_takes_no_wake_up_with_it(void **state)
{
    (void)state;
    struct stage *stage = new_stage(SHARED_TAIL, CBUF_BLOCK);
    cbuf_ring ring;
    resume(stage, &ring);
    for (int round = 0; round < 20; round++) {
        pid_t victim = start_sleeper(stage, &ring, 0, 1 + (uint32_t)round % 3);
        pid_t other = start_sleeper(stage, &ring, 1, 2);
        CHECK_IS(end_by(victim, SIGKILL), -SIGKILL);
        if (round % 2) CHECK_IS(produce(stage, &ring, ONE, 1), 1);
        CHECK_IS(produce(stage, &ring, BATCH, 8), 8);
        CHECK_IS(finish(other), 2);
        CHECK_IS(produce(stage, &ring, BATCH, 8), 8);
        write_a_lap(stage, &ring); /* past the dead one's gate */
    }
    cbuf_close(&ring);
    end_stage(stage);
}

static void a_clean_close_wakes_sleepers(void **state)
{
    (void)state;
    struct stage *stage = new_stage(DENSE, CBUF_OVERWRITE);
    for (int round = 0; round < 10; round++) {
        cbuf_ring ring;
        resume(stage, &ring);
        produce(stage, &ring, BATCH, 3);
        pid_t one = start_sleeper(stage, &ring, 0, 1), two = start_sleeper(stage, &ring, 1, 5);
        /* Too few for the second, who gets them in the end. */
        if (round % 2) produce(stage, &ring, ONE, 1);
        cbuf_close(&ring);
        CHECK_IS(finish(one), round % 2 ? 1 : 40 - CBUF_ECLOSED);
        CHECK_IS(finish(two), round % 2 ? 1 : 40 - CBUF_ECLOSED);
    }
    end_stage(stage);
}

static int produce_and_die(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    resume(stage, &ring);
    produce(stage, &ring, BATCH, 3);
    return raise(SIGKILL);
}
static void a_ring_that_is_retired_wakes_sleepers(void **state)
{
    (void)state;
    for (int round = 0; round < 10; round++) {
        struct stage *stage = new_stage(SHARED_TAIL, CBUF_OVERWRITE);
        cbuf_ring ring, watch;
        CHECK_IS(finish(start(produce_and_die, stage)), -SIGKILL); /* without a close */
        attach(&watch, stage);
        pid_t one = start_sleeper(stage, &watch, 0, 1), two = start_sleeper(stage, &watch, 1, 2);
        stage->existing = CBUF_REPLACE;
        if (round % 2) create(&ring, stage), cbuf_close(&ring);
        else CHECK_IS(cbuf_remove(stage->name), 0);
        CHECK_IS(finish(one), 40 - CBUF_ERETIRED);
        CHECK_IS(finish(two), 40 - CBUF_ERETIRED);
        cbuf_close(&watch);
        end_stage(stage);
    }
}

/* Fills the ring and waits for room, for ever if it is not woken. With `seed` it is stopped at that
 * operation of its wait. */
static int wait_for_room(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_ring ring;
    endless_naps = stage->demote_ns == 0;
    resume(stage, &ring);
    give_cue(&stage->ready);
    kill_signal = SIGSTOP;
    while (stage->confirmed - stage->resumed_at < CAPACITY + 1) {
        if (stage->confirmed - stage->resumed_at == CAPACITY) kill_countdown = stage->seed;
        CHECK_IS(produce(stage, &ring, ONE, 1), 1);
    }
    kill_countdown = 0;
    cbuf_close(&ring);
    return 0;
}
static pid_t start_waiting_producer(struct stage *stage, const cbuf_ring *watch)
{
    cbuf_stats before, stats;
    CHECK_IS(cbuf_stats_get(watch, &before), 0);
    pid_t child = start(wait_for_room, stage);
    await_cue(&stage->ready);
    do CHECK_IS(cbuf_stats_get(watch, &stats), 0);
    while (stats.waits == before.waits && !sched_yield());
    await_rest(child);
    return child;
}

static void a_producer_killed_waiting_for_room_wedges_nobody(void **state)
{
    (void)state;
    for (int variant = 0; variant < VARIANTS; variant++) {
        struct stage *stage = new_stage(variant, CBUF_BLOCK);
        struct follower follower;
        cbuf_ring ring;
        resume(stage, &ring);
        cbuf_close(&ring);
        follow_from(&follower, stage, CBUF_OLDEST);
        for (int round = 0; round < 10; round++) {
            pid_t child = start_waiting_producer(stage, &follower.ring);
            CHECK_IS(end_by(child, SIGKILL), -SIGKILL);
            stage->writer++;
            CHECK_IS(follow(&follower, 1 + (uint32_t)round % 3, false) > 0, 1); /* wakes nobody */
            child = start_waiting_producer(stage, &follower.ring);
            do follow_to_end(&follower); /* its successor is woken by what is read */
            while (follower.next < stage->resumed_at + CAPACITY + 1);
            CHECK_IS(finish(child), 0);
            CHECK_IS(cbuf_lost(&follower.reader), 0);
        }
        resume(stage, &ring);
        check_account(&follower, cbuf_head(&ring));
        end_follower(&follower);
        cbuf_close(&ring);
        end_stage(stage);
    }
}

/* The room comes while the producer stands still at one of its operations, on its way to wait for
 * it. */
static void who_is_about_to_wait_for_room_misses_no_wake_up(void **state)
{
    (void)state;
    struct stage *stage = new_stage(IN_PLACE, CBUF_BLOCK);
    struct follower follower;
    cbuf_ring ring;
    char rest = 'T';
    resume(stage, &ring);
    cbuf_close(&ring);
    follow_from(&follower, stage, CBUF_OLDEST);
    for (stage->seed = 1; rest == 'T'; stage->seed++) {
        pid_t child = start(wait_for_room, stage);
        await_cue(&stage->ready);
        rest = await_rest(child);
        follow_to_end(&follower); /* once */
        CHECK_IS(finish_stopping(child), 0);
        follow_to_end(&follower);
    }
    CHECK(stage->seed > 8);
    end_follower(&follower);
    end_stage(stage);
}

static int stand_at_the_gate(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    struct follower follower;
    follow_from(&follower, stage, CBUF_OLDEST);
    give_cue(&stage->ready);
    await_cue(&stage->go); /* stopped or killed here; or it goes on */
    follow_to_end(&follower);
    CHECK(cbuf_lost(&follower.reader) > 0);
    check_account(&follower, stage->confirmed);
    end_follower(&follower);
    return 0;
}
static pid_t start_gate(struct stage *stage)
{
    pid_t child = start(stand_at_the_gate, stage);
    await_cue(&stage->ready);
    return child;
}

static void a_gate_killed_while_the_producer_waits_for_it_lets_it_go_on(void **state)
{
    (void)state;
    for (int round = 0; round < 10; round++) {
        struct stage *stage = new_stage(round % VARIANTS, CBUF_BLOCK);
        cbuf_ring ring, watch;
        stage->demote_ns = INT64_MAX; /* naps that end: a dead gate wakes nobody */
        resume(stage, &ring);
        cbuf_close(&ring);
        attach(&watch, stage);
        pid_t gate = start_gate(stage);
        pid_t producer = start_waiting_producer(stage, &watch);
        CHECK_IS(end_by(gate, SIGKILL), -SIGKILL);
        CHECK_IS(finish(producer), 0);
        CHECK_IS(cbuf_head(&watch), CAPACITY + 1);
        cbuf_close(&watch);
        end_stage(stage);
    }
}

static void fill(struct stage *stage, cbuf_ring *ring)
{
    while (stage->confirmed < CAPACITY) CHECK_IS(produce(stage, ring, ONE, 1), 1);
}
static void a_stopped_reader_is_not_dead(void **state)
{
    (void)state;
    for (int on_full = CBUF_BLOCK; on_full <= CBUF_DROP_NEWEST; on_full++) {
        struct stage *stage = new_stage(SHARED_TAIL, on_full);
        cbuf_ring ring;
        cbuf_reader reader;
        cbuf_reader_stats stats;
        int status;
        stage->max_readers = 1;
        stage->block_ns = 5000000;
        resume(stage, &ring);
        pid_t gate = start_gate(stage);
        kill(gate, SIGSTOP);
        CHECK_IS(waitpid(gate, &status, WUNTRACED), gate);
        fill(stage, &ring);
        /* More than a look at it each millisecond. */
        for (int64_t began = now_ns(); now_ns() - began < 20000000;)
            CHECK_IS(produce(stage, &ring, ONE, 1), on_full == CBUF_BLOCK ? CBUF_ETIMEDOUT : 0);
        CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), CBUF_ESLOTS);
        CHECK_IS(cbuf_reader_stats_get(&ring, 0, &stats), 1);
        CHECK(stats.gate && !stats.demoted && stats.pid == (uint32_t)gate);
        CHECK_IS(end_by(gate, SIGKILL), -SIGKILL); /* but now it is */
        for (int64_t began = now_ns(); produce(stage, &ring, ONE, 1) != 1;)
            CHECK(now_ns() - began < 20000000000);
        cbuf_close(&ring);
        end_stage(stage);
    }
}
/* The ring's one reader, at the newest row, holds the producer up. */
static void check_is_gate(struct stage *stage, cbuf_ring *ring)
{
    ring->options.block_ns = 1;
    ring->options.demote_ns = 0;
    int rows = stage->variant >= DELTA ? CAPACITY - 1 : CAPACITY; /* or one more, by whole blocks */
    for (int k = 0; k < rows; k++) CHECK_IS(produce(stage, ring, ONE, 1), 1);
    if (rows < CAPACITY) produce(stage, ring, ONE, 1);
    CHECK(produce(stage, ring, ONE, 1) <= 0);
}
static void a_stopped_reader_is_demoted_where_the_owner_says_so(void **state)
{
    (void)state;
    for (int kind = 0; kind < VARIANTS * 2; kind++) {
        struct stage *stage = new_stage(kind % VARIANTS, 1 + kind / VARIANTS);
        cbuf_ring ring;
        cbuf_reader reader;
        cbuf_stats ring_stats;
        cbuf_reader_stats stats;
        int status;
        stage->max_readers = 1;
        stage->block_ns = 20000000000;
        stage->demote_ns = 3000000;
        resume(stage, &ring);
        pid_t gate = start_gate(stage);
        kill(gate, SIGSTOP);
        CHECK_IS(waitpid(gate, &status, WUNTRACED), gate);
        fill(stage, &ring);
        int64_t began = now_ns();
        write_a_lap(stage, &ring);
        CHECK(now_ns() - began >= stage->demote_ns); /* not before its time */
        CHECK_IS(cbuf_stats_get(&ring, &ring_stats), 0);
        CHECK_IS(ring_stats.demotions, 1);
        CHECK_IS(cbuf_reader_stats_get(&ring, 0, &stats), 1);
        CHECK(stats.gate && stats.demoted);
        CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), CBUF_ESLOTS); /* its slot is its own */
        kill(gate, SIGCONT);
        give_cue(&stage->go);
        CHECK_IS(finish(gate), 0); /* having read the rest and counted what it lost */
        open_reader(&reader, &ring, CBUF_NEWEST); /* the next in that slot is a gate again */
        CHECK_IS(cbuf_reader_stats_get(&ring, 0, &stats), 1);
        CHECK(stats.gate && !stats.demoted);
        check_is_gate(stage, &ring);
        cbuf_reader_close(&reader);
        cbuf_close(&ring);
        end_stage(stage);
    }
}

static void a_new_readers_file_forgets_who_was_demoted(void **state)
{
    (void)state;
    struct stage *stage = new_stage(SHARED_TAIL, CBUF_BLOCK);
    cbuf_ring ring;
    cbuf_reader reader;
    cbuf_reader_stats stats;
    stage->demote_ns = 1;
    resume(stage, &ring);
    open_reader(&reader, &ring, CBUF_OLDEST);
    write_a_lap(stage, &ring);
    CHECK_IS(cbuf_reader_stats_get(&ring, 0, &stats), 1);
    CHECK(stats.demoted);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    CHECK_IS(unlink(file_of(stage->name, ".readers")), 0);
    resume(stage, &ring);
    open_reader(&reader, &ring, CBUF_NEWEST);
    CHECK_IS(cbuf_reader_stats_get(&ring, 0, &stats), 1);
    CHECK(stats.gate && !stats.demoted);
    check_is_gate(stage, &ring);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    end_stage(stage);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_begin, scene_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_producer_may_die_at_any_operation),
        TEST(a_ring_is_made_whole_or_not_at_all),
        TEST(who_dies_replacing_or_removing_leaves_a_ring_or_none),
        TEST(what_is_made_and_removed_at_the_same_time_is_whole_or_gone),
        TEST(an_attach_waits_while_its_ring_is_being_replaced),
        TEST(a_gate_may_die_at_any_operation),
        TEST(a_reader_that_stands_still_anywhere_keeps_no_producer_from_starting),
        TEST(random_deaths_tear_and_lose_no_row_unaccounted),
        TEST(a_sleeper_is_woken_by_rows),
        TEST(the_most_modest_sleeper_is_woken_first),
        TEST(who_is_about_to_sleep_misses_no_wake_up),
        TEST(a_sleeper_killed_asleep_takes_no_wake_up_with_it),
        TEST(a_clean_close_wakes_sleepers),
        TEST(a_ring_that_is_retired_wakes_sleepers),
        TEST(a_producer_killed_waiting_for_room_wedges_nobody),
        TEST(who_is_about_to_wait_for_room_misses_no_wake_up),
        TEST(a_gate_killed_while_the_producer_waits_for_it_lets_it_go_on),
        TEST(a_stopped_reader_is_not_dead),
        TEST(a_stopped_reader_is_demoted_where_the_owner_says_so),
        TEST(a_new_readers_file_forgets_who_was_demoted),
    };
    const char *kills = getenv("CBUF_KILLS");
    scene_open(300 + (unsigned)((kills ? strtoull(kills, NULL, 10) : 0) / 10));
    return scene_close(cmocka_run_group_tests(tests, NULL, NULL));
}
