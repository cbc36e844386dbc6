/*
 * test_many.c - several producers of one ring, as threads and as processes: what each of them wrote
 * comes once, whole, and in its own order, whatever the policy; and what they owe each other.
 * Deaths are in test_many_deaths.c, orders of memory in model/many.c.
 *
 * CBUF_MANY_ROWS (environment): how many rows the producers write together in the lossless runs; 2
 * million if it is not set.
 */
#include "many_rows.h"

#include <pthread.h>

enum { PRODUCERS = 4, BATCH = 64 };

CBUF_TYPED(row, a_row);

static cbuf_reader_options reads_from(uint8_t start)
{
    cbuf_reader_options options;
    memset(&options, 0, sizeof options);
    options.start = start;
    options.spins = 100;
    return options;
}
static void open_reader(cbuf_reader *reader, const cbuf_ring *ring, uint8_t start)
{
    cbuf_reader_options options = reads_from(start);
    CHECK_IS(cbuf_reader_open(reader, ring, &options), 0);
}

/* ---- a run: four producers and a reader that checks everything ---- */

enum way { ONE, TYPED, COLUMNS, SOME, IN_PLACE, FEWER, WAYS };
enum place { MEMORY, FILE_THREADS, PROCESSES, PLACES };

struct run;
struct account { /* of a producer: rows that it tried to write, that it wrote, that it gave up */
    struct run *run;
    uint32_t number;
    uint64_t tried, written, given_up;
    int64_t error;
};
struct run { /* shared by those who take part */
    cbuf_options options;
    char name[64];
    void *memory;
    size_t bytes;
    uint64_t each; /* rows that each producer writes */
    bool one_way;  /* all in the same way: `way` */
    int way;
    struct account accounts[PRODUCERS];
    cbuf__word joined;
};

/* Writes up to `left` of the producer's next rows; how many it tried, or an error. */
static int64_t write_some(struct account *account, cbuf_ring *ring, int way, uint64_t left)
{
    struct row rows[BATCH];
    uint64_t next = account->tried, n = 1 + next % BATCH;
    int64_t done = 0;
    if (way == ONE || way == TYPED) n = 1;
    if (n > left) n = left;
    for (uint64_t k = 0; k < n; k++) rows[k] = row_of(account->number, next + k);
    if (way == ONE) done = cbuf_write(ring, rows);
    if (way == TYPED) done = row_write(ring, rows);
    if (way == SOME) done = next % 2 ? cbuf_write_n(ring, rows, n) : row_write_n(ring, rows, n);
    if (way == COLUMNS) {
        uint64_t numbers[BATCH], words[BATCH][3];
        uint32_t producers[BATCH];
        for (uint64_t k = 0; k < n; k++) {
            numbers[k] = rows[k].n;
            memcpy(words[k], rows[k].words, sizeof words[k]);
            producers[k] = rows[k].producer;
        }
        cbuf_array arrays[] = { { &row_columns[0], numbers }, { &row_columns[1], words },
            { &row_columns[2], producers } };
        done = cbuf_write_columns(ring, arrays, 3, n);
    }
    if (way == IN_PLACE || way == FEWER) {
        int64_t granted;
        unsigned char *to = (unsigned char *)cbuf_claim(ring, (uint32_t)n, &granted);
        int64_t keep = way == FEWER ? granted / 2 : granted;
        for (int64_t k = 0; to && k < keep; k++, to += cbuf_stride(ring)) {
            rows[k].left = (uint32_t)(keep - 1 - k);
            void *place = to, *row = &rows[k]; /* in words: a reader may look at it meanwhile */
            cbuf__words_in((cbuf__word *)place, (unsigned char *)row, sizeof *rows / 8);
        }
        if (granted > 0) done = cbuf_publish(ring, (uint32_t)keep);
        if (granted > 0) account->given_up += (uint64_t)(granted - keep);
        else done = granted;
        if (granted > 0) n = (uint64_t)granted; /* the others are not tried yet */
    }
    if (done < 0) return done;
    account->written += (uint64_t)done;
    account->tried += n;
    return (int64_t)n;
}

static void join_run(struct run *run, cbuf_ring *ring)
{
    if (!run->memory) create(ring, &run->options);
    else CHECK_IS(cbuf_join_in(ring, run->memory, run->bytes), 0);
}
static int produce(struct account *account)
{
    struct run *run = account->run;
    cbuf_ring ring;
    uint64_t seed = 1 + account->number;
    join_run(run, &ring);
    __atomic_fetch_add(&run->joined, 1, __ATOMIC_SEQ_CST);
    while (account->tried < run->each && account->error >= 0) {
        int way = run->one_way ? run->way : (int)(next_random(&seed) % WAYS);
        account->error = write_some(account, &ring, way, run->each - account->tried);
    }
    cbuf_close(&ring);
    return account->error < 0;
}
static void *produce_in_thread(void *argument)
{
    produce((struct account *)argument);
    return NULL;
}
static int produce_in_process(void *argument) { return produce((struct account *)argument); }

struct seen {
    uint64_t rows, next[PRODUCERS]; /* which row of each producer may come */
    bool gaps;                      /* and whether others may be missing before it */
    struct row before;              /* the row before, if none was lost since */
};
static void check_seen(struct seen *seen, const struct row *row)
{
    CHECK(row->producer < PRODUCERS);
    CHECK(is_whole(row));
    uint64_t *next = &seen->next[row->producer];
    if (seen->gaps) CHECK(row->n >= *next);
    else CHECK_IS(row->n, *next);
    *next = row->n + 1;
    if (seen->before.left) { /* what was claimed at once lies together */
        CHECK_IS(row->producer, seen->before.producer);
        CHECK_IS(row->left, seen->before.left - 1);
    }
    seen->before = *row;
    seen->rows++;
}

static void open_run(struct run *run, int place, cbuf_ring *keeper)
{
    if (place == MEMORY) {
        int64_t needed = cbuf_memory_needed(&run->options);
        CHECK(needed > 0);
        run->bytes = (size_t)needed;
        CHECK_IS(posix_memalign(&run->memory, 128, run->bytes), 0);
        CHECK_IS(cbuf_create_in(keeper, run->memory, run->bytes, &run->options), 0);
    } else {
        snprintf(run->name, sizeof run->name, "%s", new_name());
        run->options.name = run->name;
        create(keeper, &run->options);
    }
}

/* Plays a run to its end; what holds under every policy is checked here. */
static void play(struct run *run, int place, struct seen *seen)
{
    static struct row rows[1024];
    cbuf_ring keeper, consumer;
    cbuf_reader reader;
    pthread_t threads[PRODUCERS];
    pid_t children[PRODUCERS];
    int64_t there;
    uint64_t lost = 0;
    run->options.producers = PRODUCERS + 1; /* one keeps it open until all the others are there */
    open_run(run, place, &keeper);
    if (place == MEMORY) CHECK_IS(cbuf_attach_in(&consumer, run->memory, run->bytes), 0);
    else CHECK_IS(cbuf_attach(&consumer, run->name, NULL), 0);
    open_reader(&reader, &consumer, CBUF_OLDEST);
    for (uint32_t k = 0; k < PRODUCERS; k++) {
        run->accounts[k].run = run;
        run->accounts[k].number = k;
        if (place == PROCESSES) children[k] = start(produce_in_process, &run->accounts[k]);
        else CHECK_IS(pthread_create(&threads[k], NULL, produce_in_thread, &run->accounts[k]), 0);
    }
    while (__atomic_load_n(&run->joined, __ATOMIC_SEQ_CST) < PRODUCERS) sched_yield();
    cbuf_close(&keeper);
    uint32_t some = run->options.capacity > 512 ? 256 : (uint32_t)run->options.capacity / 2;
    while ((there = cbuf_wait(&reader, some, CBUF_FOREVER)) > 0) {
        uint64_t cursor = reader.cursor;
        int64_t got = cbuf_read(&reader, rows, 1024);
        CHECK(got > 0 || (got == 0 && seen->gaps && !run->options.on_full)); /* or was lapped */
        CHECK(seen->gaps || cbuf_first(&reader) >= cursor);
        if (cbuf_lost(&reader) != lost) seen->before.left = 0;
        lost = cbuf_lost(&reader);
        for (int64_t k = 0; k < got; k++) check_seen(seen, &rows[k]);
        CHECK_IS(seen->rows + cbuf_lost(&reader) + cbuf_skipped(&reader), reader.cursor);
    }
    CHECK_IS(there, CBUF_ECLOSED);
    uint64_t written = 0, given_up = 0, tried = 0;
    for (int k = 0; k < PRODUCERS; k++) {
        if (place == PROCESSES) CHECK_IS(finish(children[k]), 0);
        else CHECK_IS(pthread_join(threads[k], NULL), 0);
        CHECK(run->accounts[k].error >= 0);
        written += run->accounts[k].written;
        given_up += run->accounts[k].given_up;
        tried += run->accounts[k].tried;
    }
    cbuf_stats stats = stats_of(&consumer);
    CHECK(stats.closed);
    CHECK_IS(stats.written, written + given_up);
    CHECK_IS(stats.aborted, given_up);
    CHECK_IS(stats.dropped + written + given_up, tried);
    CHECK_IS(seen->rows + cbuf_lost(&reader) + cbuf_skipped(&reader), written + given_up);
    if (run->options.on_full != CBUF_OVERWRITE) CHECK_IS(seen->rows, written);
    cbuf_reader_close(&reader);
    cbuf_close(&consumer);
    if (place != MEMORY) CHECK_IS(cbuf_remove(run->name), 0);
    free(run->memory);
    run->memory = NULL;
}
static struct run *new_run(uint8_t on_full, uint64_t capacity, uint64_t each)
{
    struct run *run = (struct run *)shared_memory(sizeof *run);
    run->options = options_of(NULL, on_full, capacity);
    run->options.in_place = true;
    run->each = each;
    return run;
}
static void end_run(struct run *run) { munmap(run, sizeof *run); }

static uint64_t scaled(uint64_t n) { return is_emulated() || CHECK_SANITIZED ? n / 64 : n; }

static void under_block_every_row_comes_once_and_in_its_producers_order(void **state)
{
    const char *wanted = getenv("CBUF_MANY_ROWS");
    uint64_t rows = wanted ? strtoull(wanted, NULL, 10) : scaled(2000000);
    (void)state;
    for (int place = 0; place < PLACES; place++) {
        struct run *run = new_run(CBUF_BLOCK, 4096, rows / PRODUCERS / PLACES);
        struct seen seen;
        memset(&seen, 0, sizeof seen);
        run->one_way = true;
        run->way = SOME;
        int64_t began = now_ns();
        play(run, place, &seen);
        CHECK_IS(seen.rows, PRODUCERS * run->each);
        for (int k = 0; k < PRODUCERS; k++) CHECK_IS(seen.next[k], run->each);
        static const char *const names[] = { "threads, memory", "threads, file", "processes" };
        print_message("%s: %llu rows, each once, in %.1f s\n", names[place],
            (unsigned long long)seen.rows, (double)(now_ns() - began) / 1e9);
        end_run(run);
    }
}
static void the_same_in_every_way_of_writing(void **state)
{
    (void)state;
    for (int way = 0; way < WAYS; way++)
        for (int place = 0; place < PLACES; place++) {
            bool small = way % 2 != 0;
            struct run *run = new_run(CBUF_BLOCK, small ? 16 : 256, scaled(small ? 5000 : 40000));
            struct seen seen;
            memset(&seen, 0, sizeof seen);
            seen.gaps = way == FEWER;
            run->one_way = true;
            run->way = way;
            run->options.in_place = way == IN_PLACE || way == FEWER || place == FILE_THREADS;
            play(run, place, &seen);
            if (way != FEWER) CHECK_IS(seen.rows, PRODUCERS * run->each);
            end_run(run);
        }
}
static void under_overwrite_read_and_lost_and_skipped_are_all_that_was_claimed(void **state)
{
    (void)state;
    for (int place = 0; place < PLACES; place++)
        for (uint64_t capacity = 2; capacity <= 2048; capacity *= 32) {
            struct run *run = new_run(CBUF_OVERWRITE, capacity, scaled(200000));
            struct seen seen;
            memset(&seen, 0, sizeof seen);
            seen.gaps = true;
            play(run, place, &seen);
            end_run(run);
        }
}
static void under_drop_newest_written_and_dropped_are_all_that_was_tried(void **state)
{
    (void)state;
    for (int place = 0; place < PLACES; place++)
        for (uint64_t capacity = 2; capacity <= 2048; capacity *= 32) {
            struct run *run = new_run(CBUF_DROP_NEWEST, capacity, scaled(200000));
            struct seen seen;
            memset(&seen, 0, sizeof seen);
            seen.gaps = true;
            play(run, place, &seen);
            end_run(run);
        }
}

/* ---- the ring alone, in one thread: several handles are several producers ---- */

struct pair {
    cbuf_ring a, b, consumer;
    cbuf_reader reader;
    uint64_t next[2];
    char name[64];
};
static void open_pair(struct pair *pair, cbuf_options options)
{
    memset(pair, 0, sizeof *pair);
    snprintf(pair->name, sizeof pair->name, "%s", new_name());
    options.name = pair->name;
    create(&pair->a, &options);
    create(&pair->b, &options);
    CHECK_IS(cbuf_attach(&pair->consumer, pair->name, NULL), 0);
    open_reader(&pair->reader, &pair->consumer, CBUF_OLDEST);
}
static void close_pair(struct pair *pair)
{
    cbuf_reader_close(&pair->reader);
    cbuf_close(&pair->consumer);
    cbuf_close(&pair->a);
    cbuf_close(&pair->b);
    CHECK_IS(cbuf_remove(pair->name), 0);
}
static void write_rows(struct pair *pair, int which, uint32_t n)
{
    cbuf_ring *ring = which ? &pair->b : &pair->a;
    for (uint32_t k = 0; k < n; k++) {
        struct row row = row_of((uint32_t)which, pair->next[which]++);
        CHECK_IS(cbuf_write(ring, &row), 1);
    }
}
/* Claims n rows and fills them in. */
static void claim_rows(struct pair *pair, int which, uint32_t n)
{
    cbuf_ring *ring = which ? &pair->b : &pair->a;
    int64_t granted;
    unsigned char *to = (unsigned char *)cbuf_claim(ring, n, &granted);
    CHECK_IS(granted, n);
    for (uint32_t k = 0; k < n; k++, to += cbuf_stride(ring)) {
        struct row row = row_of((uint32_t)which, pair->next[which]++);
        memcpy(to, &row, sizeof row);
    }
}
/* The next row must be that one. */
static void check_next(struct pair *pair, uint32_t producer, uint64_t n)
{
    struct row row;
    CHECK_IS(cbuf_read(&pair->reader, &row, 1), 1);
    CHECK_IS(row.producer, producer);
    CHECK_IS(row.n, n);
    CHECK(is_whole(&row));
}
static void check_nothing(struct pair *pair)
{
    struct row row;
    CHECK_IS(cbuf_read(&pair->reader, &row, 1), 0);
    CHECK_IS(cbuf_available(&pair->reader), 0);
}
static cbuf_options in_place_options(uint8_t on_full, uint64_t capacity)
{
    cbuf_options options = options_of(NULL, on_full, capacity);
    options.in_place = true;
    return options;
}

static void rows_wait_for_those_claimed_before_them(void **state)
{
    struct pair pair;
    (void)state;
    open_pair(&pair, in_place_options(CBUF_OVERWRITE, 16));
    claim_rows(&pair, 0, 2);
    write_rows(&pair, 1, 3);
    CHECK_IS(cbuf_head(&pair.consumer), 0);
    check_nothing(&pair);
    CHECK_IS(cbuf_wait(&pair.reader, 1, 1000000), 0);
    CHECK_IS(cbuf_publish(&pair.a, 2), 2);
    CHECK_IS(cbuf_head(&pair.consumer), 5);
    CHECK_IS(cbuf_wait(&pair.reader, 5, 0), 5);
    for (uint64_t n = 0; n < 2; n++) check_next(&pair, 0, n);
    for (uint64_t n = 0; n < 3; n++) check_next(&pair, 1, n);
    check_nothing(&pair);
    close_pair(&pair);
}
static void a_batch_written_at_once_stays_together(void **state)
{
    struct pair pair;
    struct row rows[4];
    (void)state;
    open_pair(&pair, in_place_options(CBUF_OVERWRITE, 16));
    for (uint32_t round = 0; round < 20; round++) { /* at every place of the ring */
        for (uint64_t k = 0; k < 4; k++) rows[k] = row_of(0, pair.next[0]++);
        CHECK_IS(cbuf_write_n(&pair.a, rows, 4), 4);
        write_rows(&pair, 1, round % 3);
        for (uint64_t k = 4; k > 0; k--) check_next(&pair, 0, pair.next[0] - k);
        for (uint64_t k = round % 3; k > 0; k--) check_next(&pair, 1, pair.next[1] - k);
    }
    close_pair(&pair);
}
static void what_is_claimed_and_not_published_is_skipped_and_counted(void **state)
{
    struct pair pair;
    (void)state;
    open_pair(&pair, in_place_options(CBUF_BLOCK, 16));
    claim_rows(&pair, 0, 3);
    write_rows(&pair, 1, 1);
    CHECK_IS(cbuf_publish(&pair.a, 4), CBUF_EINVAL);
    CHECK_IS(cbuf_publish(&pair.a, 1), 1); /* two are given up */
    CHECK_IS(cbuf_publish(&pair.a, 1), CBUF_EINVAL);
    CHECK_IS(stats_of(&pair.consumer).aborted, 2);
    check_next(&pair, 0, 0);
    CHECK_IS(cbuf_wait(&pair.reader, 1, 0), 1);
    check_next(&pair, 1, 0);
    CHECK_IS(cbuf_skipped(&pair.reader), 2);
    CHECK_IS(cbuf_lost(&pair.reader), 0);
    claim_rows(&pair, 0, 2);
    CHECK_IS(cbuf_publish(&pair.a, 0), 0);
    check_nothing(&pair);
    CHECK_IS(cbuf_skipped(&pair.reader), 4);
    claim_rows(&pair, 0, 1); /* the second claim gives the first up, and so does a write */
    claim_rows(&pair, 0, 1);
    write_rows(&pair, 0, 1);
    check_next(&pair, 0, pair.next[0] - 1);
    CHECK_IS(cbuf_skipped(&pair.reader), 6);
    CHECK_IS(stats_of(&pair.consumer).aborted, 6);
    CHECK_IS(cbuf_publish(&pair.consumer, 0), 0); /* who only reads has nothing to give up */
    CHECK_IS(cbuf_publish(&pair.consumer, 1), CBUF_EINVAL);
    close_pair(&pair);
}
static void a_close_gives_an_open_claim_up(void **state)
{
    struct pair pair;
    (void)state;
    open_pair(&pair, in_place_options(CBUF_OVERWRITE, 16));
    claim_rows(&pair, 0, 3);
    write_rows(&pair, 1, 1);
    cbuf_close(&pair.a);
    check_next(&pair, 1, 0);
    CHECK_IS(cbuf_skipped(&pair.reader), 3);
    CHECK_IS(stats_of(&pair.consumer).aborted, 3);
    close_pair(&pair);
}
/* What cbuf_wait promises can be read: not rows that were given up. */
static void a_wait_does_not_count_what_was_given_up(void **state)
{
    struct pair pair;
    struct row rows[16];
    (void)state;
    open_pair(&pair, in_place_options(CBUF_OVERWRITE, 64));
    write_rows(&pair, 0, 1);
    claim_rows(&pair, 0, 4);
    CHECK_IS(cbuf_publish(&pair.a, 0), 0);
    CHECK_IS(cbuf_wait(&pair.reader, 3, 0), 1);
    CHECK_IS(cbuf_wait(&pair.reader, 8, 0), 1);
    write_rows(&pair, 1, 5);
    CHECK_IS(cbuf_wait(&pair.reader, 3, 0), 1); /* up to the gap */
    CHECK_IS(cbuf_read(&pair.reader, rows, 16), 1);
    CHECK_IS(cbuf_wait(&pair.reader, 3, 0), 3);
    CHECK_IS(cbuf_read(&pair.reader, rows, 16), 5);
    claim_rows(&pair, 0, 4);
    CHECK_IS(cbuf_publish(&pair.a, 0), 0);
    CHECK_IS(cbuf_wait(&pair.reader, 2, 0), 0);
    claim_rows(&pair, 0, 4);
    CHECK_IS(cbuf_publish(&pair.a, 0), 0);
    cbuf_close(&pair.a);
    cbuf_close(&pair.b);
    CHECK_IS(cbuf_wait(&pair.reader, 1, 0), CBUF_ECLOSED);
    CHECK_IS(cbuf_skipped(&pair.reader), 12);
    CHECK_IS(cbuf_wait(&pair.reader, 1, CBUF_FOREVER), CBUF_ECLOSED);
    close_pair(&pair);
}

/* A producer that stands in the middle of its claim for as long as it likes. */
static void rows_under_the_pen_are_never_overwritten(void **state)
{
    (void)state;
    for (uint8_t on_full = CBUF_OVERWRITE; on_full <= CBUF_DROP_NEWEST; on_full++) {
        struct pair pair;
        struct row row = row_of(1, 0), rows[16];
        cbuf_options options = in_place_options(on_full, 16);
        cbuf_producer_stats producer;
        uint64_t first;
        options.block_ns = 3000000;
        options.reserve_step = 8;
        open_pair(&pair, options);
        write_rows(&pair, 0, 16);
        for (uint64_t n = 0; n < 16; n++) check_next(&pair, 0, n);
        claim_rows(&pair, 0, 2);
        write_rows(&pair, 1, 14);
        int64_t refused = on_full == CBUF_DROP_NEWEST ? 0 : CBUF_ETIMEDOUT;
        for (int k = 0; k < 3; k++) CHECK_IS(cbuf_write(&pair.b, &row), refused);
        CHECK_IS(cbuf_write_n(&pair.b, &row, 1), refused);
        CHECK(!cbuf_claim(&pair.b, 1, NULL));
        CHECK_IS(stats_of(&pair.b).dropped, on_full == CBUF_DROP_NEWEST ? 5 : 0);
        /* all of the ring is behind the pen; nobody is told otherwise, and nobody hangs */
        CHECK_IS(cbuf_head(&pair.consumer), 16);
        CHECK_IS(cbuf_available(&pair.reader), 0);
        CHECK_IS(cbuf_wait(&pair.reader, 1, 1000000), 0);
        CHECK(cbuf_snapshot(&pair.consumer, rows, 16, &first) <= 16);
        CHECK(cbuf_latest(&pair.consumer, &row, NULL) >= 0);
        CHECK_IS(cbuf_producer_stats_get(&pair.consumer, 0, &producer), 1);
        CHECK_IS(producer.begin, 16);
        CHECK_IS(producer.end, 18);
        CHECK_IS(producer.behind, 14);
        CHECK_IS(cbuf_publish(&pair.a, 2), 2);
        CHECK_IS(cbuf_producer_stats_get(&pair.consumer, 0, &producer), 1);
        CHECK(producer.begin == producer.end && producer.behind == 0);
        uint64_t lost = cbuf_oldest(&pair.consumer) > 16 ? cbuf_oldest(&pair.consumer) - 16 : 0;
        if (on_full != CBUF_OVERWRITE) CHECK_IS(lost, 0);
        for (uint64_t n = lost; n < 16; n++)
            check_next(&pair, n < 2 ? 0 : 1, n < 2 ? 16 + n : n - 2);
        CHECK_IS(cbuf_lost(&pair.reader), lost);
        write_rows(&pair, 1, 1); /* and they go on */
        check_next(&pair, 1, 14);
        close_pair(&pair);
    }
}

/* ---- joining, leaving, and what does not go together ---- */

static void refuse(const cbuf_options *options, int wanted, const char *word)
{
    cbuf_ring ring;
    CHECK_IS(cbuf_create(&ring, options), wanted);
    CHECK_FOR(cbuf_error(&ring), strstr(cbuf_error(&ring), word));
    cbuf_close(&ring);
}
static void what_does_not_go_together_is_refused_with_a_text(void **state)
{
    struct traces before;
    (void)state;
    traces_now(&before);
    const char *name = new_name();
    cbuf_options dense = options_of(name, 0, 16), locked = dense, large = dense, many = dense;
    dense.layout = CBUF_DENSE;
    locked.locked = true;
    large.capacity = (1ull << 30) + 1;
    many.producers = CBUF_MAX_PRODUCERS + 1;
    refuse(&dense, CBUF_EINVAL, "numbered layout");
    refuse(&locked, CBUF_EINVAL, "no lock");
    refuse(&large, CBUF_EINVAL, "2^30");
    refuse(&many, CBUF_EINVAL, "producers is 257, the limit is 256");
    CHECK_IS(cbuf_memory_needed(&dense), CBUF_EINVAL);
    CHECK_IS(cbuf_memory_needed(&many), CBUF_EINVAL);
    check_traces(&before, 8, "wrong combinations");
}
static void one_more_than_the_ring_was_made_for_is_refused(void **state)
{
    cbuf_ring rings[PRODUCERS + 1];
    struct row row = row_of(0, 0);
    (void)state;
    cbuf_options options = options_of(new_name(), CBUF_OVERWRITE, 16);
    for (int k = 0; k < PRODUCERS; k++) create(&rings[k], &options);
    refuse(&options, CBUF_ESLOTS, "producers is 4, the limit is 4");
    cbuf_close(&rings[1]);
    create(&rings[1], &options); /* a place that came free */
    refuse(&options, CBUF_ESLOTS, "producers");
    for (int k = 0; k < PRODUCERS; k++) CHECK_IS(cbuf_write(&rings[k], &row), 1);
    CHECK_IS(stats_of(&rings[0]).epoch, PRODUCERS + 1);
    for (int k = 0; k < PRODUCERS; k++) cbuf_close(&rings[k]);
    CHECK_IS(cbuf_remove(options.name), 0);
}
static void rings_of_one_and_of_many_do_not_mix(void **state)
{
    cbuf_ring ring;
    (void)state;
    cbuf_options one = options_of(new_name(), CBUF_OVERWRITE, 16), many = one, five = one;
    one.producers = 1;
    five.producers = 5;
    create(&ring, &one);
    refuse(&many, CBUF_EBUSY, "locked"); /* after a second: it might be being made */
    cbuf_close(&ring);
    refuse(&many, CBUF_EMISMATCH, "features");
    CHECK_IS(cbuf_remove(one.name), 0);
    create(&ring, &many);
    refuse(&one, CBUF_EBUSY, "locked");
    refuse(&five, CBUF_EMISMATCH, "producers is 4, wanted is 5");
    many.existing = CBUF_REPLACE;
    refuse(&many, CBUF_EBUSY, "other producers");
    many.existing = CBUF_NEW;
    refuse(&many, CBUF_EEXIST, "existing");
    CHECK_IS(cbuf_remove(one.name), CBUF_EBUSY);
    CHECK_IS(stats_of(&ring).closed, false);
    cbuf_close(&ring);
    refuse(&one, CBUF_EMISMATCH, "features");
    CHECK_IS(cbuf_remove(one.name), 0);
}
static void a_ring_is_closed_when_the_last_producer_has_closed_it(void **state)
{
    struct pair pair;
    (void)state;
    for (int first = 0; first < 2; first++) {
        cbuf_options options = in_place_options(CBUF_BLOCK, 16);
        open_pair(&pair, options);
        options.name = pair.name;
        write_rows(&pair, 0, 1);
        CHECK_IS(cbuf_producer_alive(&pair.consumer), 1);
        CHECK_IS(cbuf_remove(pair.name), CBUF_EBUSY);
        cbuf_close(first ? &pair.a : &pair.b);
        CHECK_IS(stats_of(&pair.consumer).closed, false);
        CHECK_IS(cbuf_producer_alive(&pair.consumer), 1);
        CHECK_IS(cbuf_remove(pair.name), CBUF_EBUSY);
        check_next(&pair, 0, 0);
        CHECK_IS(cbuf_wait(&pair.reader, 1, 1000000), 0);
        cbuf_close(first ? &pair.b : &pair.a);
        CHECK_IS(stats_of(&pair.consumer).closed, true);
        CHECK_IS(cbuf_producer_alive(&pair.consumer), 0);
        CHECK_IS(cbuf_wait(&pair.reader, 1, CBUF_FOREVER), CBUF_ECLOSED);
        create(&pair.a, &options); /* and opened again: it goes on */
        CHECK_IS(stats_of(&pair.consumer).closed, false);
        write_rows(&pair, 0, 1);
        check_next(&pair, 0, 1);
        CHECK_IS(cbuf_first(&pair.reader), 1);
        close_pair(&pair);
    }
}

struct meeting {
    struct run *run;
    pthread_barrier_t *barrier;
    int rounds;
};
static void *join_and_leave(void *argument)
{
    struct meeting *meeting = (struct meeting *)argument;
    for (int round = 0; round < meeting->rounds; round++) {
        cbuf_ring ring;
        join_run(meeting->run, &ring);
        pthread_barrier_wait(meeting->barrier);
        cbuf_close(&ring);
        pthread_barrier_wait(meeting->barrier); /* all have left; one looks */
        pthread_barrier_wait(meeting->barrier);
    }
    return NULL;
}
static void of_several_that_leave_at_once_one_is_the_last(void **state)
{
    (void)state;
    for (int place = MEMORY; place <= FILE_THREADS; place++) {
        struct run *run = new_run(CBUF_OVERWRITE, 16, 0);
        pthread_t threads[PRODUCERS];
        pthread_barrier_t barrier;
        struct meeting meeting = { run, &barrier, place == MEMORY ? 2000 : 300 };
        cbuf_ring keeper, watch;
        open_run(run, place, &keeper);
        if (place == MEMORY) CHECK_IS(cbuf_attach_in(&watch, run->memory, run->bytes), 0);
        else CHECK_IS(cbuf_attach(&watch, run->name, NULL), 0);
        cbuf_close(&keeper);
        CHECK_IS(pthread_barrier_init(&barrier, NULL, PRODUCERS + 1), 0);
        for (int k = 0; k < PRODUCERS; k++)
            CHECK_IS(pthread_create(&threads[k], NULL, join_and_leave, &meeting), 0);
        int open_rings = 0;
        for (int round = 0; round < meeting.rounds; round++) {
            pthread_barrier_wait(&barrier);
            pthread_barrier_wait(&barrier);
            open_rings += !stats_of(&watch).closed;
            pthread_barrier_wait(&barrier);
        }
        for (int k = 0; k < PRODUCERS; k++) CHECK_IS(pthread_join(threads[k], NULL), 0);
        CHECK_IS(open_rings, 0);
        pthread_barrier_destroy(&barrier);
        cbuf_close(&watch);
        free(run->memory);
        end_run(run);
    }
}

static int use_the_parents_handle(void *argument)
{
    struct pair *pair = (struct pair *)argument;
    struct row row = row_of(0, 0);
    CHECK_IS(cbuf_write(&pair->a, &row), CBUF_EFORKED);
    CHECK(!cbuf_claim(&pair->a, 1, NULL));
    CHECK_IS(cbuf_publish(&pair->a, 1), CBUF_EFORKED);
    cbuf_close(&pair->a); /* which takes nothing from the parent */
    cbuf_close(&pair->b);
    cbuf_options options = in_place_options(CBUF_OVERWRITE, 16);
    cbuf_ring own;
    options.name = pair->name;
    create(&own, &options); /* a producer of its own */
    row = row_of(2, 0);
    CHECK_IS(cbuf_write(&own, &row), 1);
    cbuf_close(&own);
    return 0;
}
static void a_forked_child_joins_with_a_handle_of_its_own(void **state)
{
    struct pair pair;
    (void)state;
    if (!fork_wipes()) skip();
    open_pair(&pair, in_place_options(CBUF_OVERWRITE, 16));
    claim_rows(&pair, 0, 1);
    CHECK_IS(finish(start(use_the_parents_handle, &pair)), 0);
    write_rows(&pair, 1, 1);
    check_nothing(&pair);
    CHECK_IS(cbuf_publish(&pair.a, 1), 1);
    check_next(&pair, 0, 0);
    check_next(&pair, 2, 0);
    check_next(&pair, 1, 0);
    close_pair(&pair);
}

/* ---- observing ---- */

static void observers_pass_over_what_was_given_up(void **state)
{
    struct pair pair;
    struct row rows[16], row;
    uint64_t first = 99;
    (void)state;
    open_pair(&pair, in_place_options(CBUF_OVERWRITE, 16));
    CHECK_IS(cbuf_snapshot(&pair.consumer, rows, 16, &first), 0);
    CHECK_IS(cbuf_latest(&pair.consumer, &row, NULL), 0);
    claim_rows(&pair, 0, 3);
    CHECK_IS(cbuf_publish(&pair.a, 0), 0);
    CHECK_IS(cbuf_latest(&pair.consumer, &row, NULL), 0);
    pair.next[0] = 0;
    write_rows(&pair, 0, 2);  /* 3 and 4 */
    claim_rows(&pair, 1, 3);
    CHECK_IS(cbuf_publish(&pair.b, 1), 1); /* 5; 6 and 7 are given up */
    write_rows(&pair, 0, 1);  /* 8 */
    claim_rows(&pair, 1, 2);
    CHECK_IS(cbuf_publish(&pair.b, 0), 0); /* 9 and 10 */
    CHECK_IS(cbuf_latest(&pair.consumer, &row, &first), 1);
    CHECK(first == 8 && row.producer == 0 && row.n == 2);
    CHECK_IS(cbuf_snapshot(&pair.consumer, rows, 16, &first), 4);
    CHECK_IS(first, 3);
    CHECK(rows[0].n == 0 && rows[1].n == 1 && rows[2].producer == 1 && rows[3].n == 2);
    CHECK_IS(cbuf_snapshot(&pair.consumer, rows, 2, &first), 2);
    CHECK_IS(first, 5);
    CHECK(rows[0].producer == 1 && rows[1].n == 2);
    CHECK_IS(cbuf_seek(&pair.reader, 6), 0);
    check_next(&pair, 0, 2);
    CHECK_IS(cbuf_first(&pair.reader), 8);
    CHECK_IS(cbuf_skipped(&pair.reader), 2);
    close_pair(&pair);
}
static void seek_value_finds_rows_between_those_given_up(void **state)
{
    struct pair pair;
    struct row row;
    int64_t granted;
    (void)state;
    open_pair(&pair, in_place_options(CBUF_OVERWRITE, 64));
    for (int k = 0; k < 12; k++) { /* values 0 to 11, with gaps of 0, 1, 2, 3 before each */
        if (k % 4) {
            CHECK(cbuf_claim(&pair.b, (uint32_t)k % 4, &granted));
            CHECK_IS(cbuf_publish(&pair.b, 0), 0);
        }
        write_rows(&pair, 0, 1);
    }
    for (uint64_t value = 0; value < 12; value++) {
        CHECK_IS(cbuf_seek_value(&pair.reader, &row_columns[0], &value), 0);
        check_next(&pair, 0, value);
    }
    uint64_t beyond = 12;
    CHECK_IS(cbuf_seek_value(&pair.reader, &row_columns[0], &beyond), 0);
    CHECK_IS(cbuf_read(&pair.reader, &row, 1), 0);
    close_pair(&pair);
}
static void stats_tell_who_the_producers_are(void **state)
{
    struct pair pair;
    cbuf_producer_stats stats;
    (void)state;
    open_pair(&pair, in_place_options(CBUF_OVERWRITE, 16));
    for (uint32_t k = 0; k < 2; k++) {
        CHECK_IS(cbuf_producer_stats_get(&pair.consumer, k, &stats), 1);
        CHECK_IS(stats.pid, getpid());
        CHECK(stats.started_ns > 0 && stats.begin == stats.end && stats.behind == 0);
    }
    CHECK_IS(cbuf_producer_stats_get(&pair.consumer, 2, &stats), 0);
    CHECK_IS(cbuf_producer_stats_get(&pair.consumer, PRODUCERS, &stats), CBUF_EINVAL);
    write_rows(&pair, 0, 1);
    claim_rows(&pair, 1, 2);
    write_rows(&pair, 0, 3);
    claim_rows(&pair, 0, 1);
    CHECK_IS(cbuf_producer_stats_get(&pair.consumer, 1, &stats), 1);
    CHECK(stats.begin == 1 && stats.end == 3 && stats.behind == 3);
    CHECK_IS(cbuf_producer_stats_get(&pair.consumer, 0, &stats), 1);
    CHECK(stats.begin == 6 && stats.end == 7 && stats.behind == 0);
    close_pair(&pair);
    cbuf_ring one;
    cbuf_options options = options_of(new_name(), CBUF_OVERWRITE, 16);
    options.producers = 1;
    create(&one, &options);
    CHECK_IS(cbuf_producer_stats_get(&one, 0, &stats), 1);
    CHECK(stats.pid == (uint32_t)getpid() && stats.begin == stats.end && !stats.behind);
    CHECK_IS(cbuf_producer_stats_get(&one, 1, &stats), CBUF_EINVAL);
    cbuf_close(&one);
    CHECK_IS(cbuf_remove(options.name), 0);
}
/* Its words are whatever lay there. */
static void a_row_given_up_has_no_time(void **state)
{
    static const cbuf_column columns[] = { { "time", CBUF_TIMESTAMP_NS, 0 } };
    cbuf_ring ring;
    int64_t now = (int64_t)time(NULL) * 1000000000;
    (void)state;
    cbuf_options options = options_of(new_name(), CBUF_OVERWRITE, 16);
    options.columns = columns;
    options.column_count = 1;
    options.row_bytes = 8;
    options.in_place = true;
    create(&ring, &options);
    CHECK_IS(cbuf_write(&ring, &now), 1);
    CHECK(stats_of(&ring).newest_age_ns >= 0);
    CHECK(stats_of(&ring).newest_age_ns < 1000000000ll * 3600);
    CHECK(cbuf_claim(&ring, 1, NULL));
    CHECK_IS(cbuf_publish(&ring, 0), 0);
    CHECK_IS(stats_of(&ring).newest_age_ns, -1);
    cbuf_close(&ring);
    CHECK_IS(cbuf_remove(options.name), 0);
}
static void a_ring_in_memory_takes_so_many_and_no_more(void **state)
{
    static cbuf__word memory[2048] __attribute__((aligned(128)));
    cbuf_ring rings[PRODUCERS + 1];
    struct row row = row_of(0, 0);
    (void)state;
    cbuf_options options = options_of(NULL, CBUF_OVERWRITE, 16);
    options.max_readers = 1;
    CHECK_IS_FOR(cbuf_error(&rings[0]),
        cbuf_create_in(&rings[0], memory, sizeof memory, &options), 0);
    for (int k = 1; k < PRODUCERS; k++)
        CHECK_IS(cbuf_join_in(&rings[k], memory, sizeof memory), 0);
    CHECK_IS(cbuf_join_in(&rings[4], memory, sizeof memory), CBUF_ESLOTS);
    CHECK_FOR(cbuf_error(&rings[4]), strstr(cbuf_error(&rings[4]), "the limit is 4"));
    for (int k = 0; k < PRODUCERS; k++) CHECK_IS(row_write(&rings[k], &row), 1);
    CHECK_IS(row_latest(&rings[0], &row, NULL), 1);
    CHECK(!row_claim(&rings[0])); /* the number stands in the padding */
    cbuf_close(&rings[2]);
    CHECK_IS(cbuf_join_in(&rings[2], memory, sizeof memory), 0);
    for (int k = 0; k < PRODUCERS; k++) CHECK(!stats_of(&rings[k]).closed), cbuf_close(&rings[k]);
    CHECK_IS(cbuf_attach_in(&rings[4], memory, sizeof memory), 0);
    CHECK_IS(cbuf_producer_alive(&rings[4]), CBUF_EINVAL); /* no lock in memory tells */
    CHECK(stats_of(&rings[4]).closed);
    CHECK_IS(cbuf_write(&rings[4], &row), CBUF_EROLE);
    cbuf_close(&rings[4]);
    options.producers = 1;
    CHECK_IS(cbuf_create_in(&rings[0], memory, sizeof memory, &options), 0);
    CHECK_IS(cbuf_join_in(&rings[1], memory, sizeof memory), CBUF_EBUSY);
    CHECK_FOR(cbuf_error(&rings[1]), strstr(cbuf_error(&rings[1]), "one producer"));
    cbuf_close(&rings[0]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_begin, scene_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(under_block_every_row_comes_once_and_in_its_producers_order),
        TEST(the_same_in_every_way_of_writing),
        TEST(under_overwrite_read_and_lost_and_skipped_are_all_that_was_claimed),
        TEST(under_drop_newest_written_and_dropped_are_all_that_was_tried),
        TEST(rows_wait_for_those_claimed_before_them),
        TEST(a_batch_written_at_once_stays_together),
        TEST(what_is_claimed_and_not_published_is_skipped_and_counted),
        TEST(a_close_gives_an_open_claim_up),
        TEST(a_wait_does_not_count_what_was_given_up),
        TEST(rows_under_the_pen_are_never_overwritten),
        TEST(what_does_not_go_together_is_refused_with_a_text),
        TEST(one_more_than_the_ring_was_made_for_is_refused),
        TEST(rings_of_one_and_of_many_do_not_mix),
        TEST(a_ring_is_closed_when_the_last_producer_has_closed_it),
        TEST(of_several_that_leave_at_once_one_is_the_last),
        TEST(a_forked_child_joins_with_a_handle_of_its_own),
        TEST(observers_pass_over_what_was_given_up),
        TEST(seek_value_finds_rows_between_those_given_up),
        TEST(stats_tell_who_the_producers_are),
        TEST(a_row_given_up_has_no_time),
        TEST(a_ring_in_memory_takes_so_many_and_no_more),
    };
    const char *rows = getenv("CBUF_MANY_ROWS");
    scene_open(300 + (unsigned)((rows ? strtoull(rows, NULL, 10) : 0) / 100000));
    return scene_close(cmocka_run_group_tests(tests, NULL, NULL));
}
