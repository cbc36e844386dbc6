/* The same properties between real threads. They meet through the ring alone: nobody waits for a
 * time, and whoever stops too early closes what the others wait for. cmocka's checks may only fail
 * in the main thread: a thread keeps its first fault. */
#include "check.h"

#include <pthread.h>

enum { BATCH = 64, WIDE = 32 }; /* rows at once, bytes of a row */
enum write_how { ONE_BY_ONE, IN_BATCHES, IN_PLACE };

/* ---- a producer, and consumers that check every row ---- */

struct producer {
    pthread_t thread;
    cbuf_ring *ring;
    enum write_how how;
    uint64_t attempts, written; /* rows that it tries to write; that it wrote */
    const char *fault;
};

static int64_t write_batch(struct producer *p, uint32_t n)
{
    unsigned char rows[BATCH * WIDE];
    int64_t granted = n;
    unsigned char *to = p->how == IN_PLACE ? (unsigned char *)cbuf_claim(p->ring, n, &granted)
                                           : rows;
    size_t stride = p->how == IN_PLACE ? cbuf_stride(p->ring) : p->ring->row_bytes;
    for (int64_t i = 0; to && i < granted; i++)
        fill_row(to + (size_t)i * stride, p->ring->row_bytes, p->written + (uint64_t)i);
    if (p->how == IN_PLACE) return to ? cbuf_publish(p->ring, (uint32_t)granted) : granted;
    return p->how == ONE_BY_ONE ? cbuf_write(p->ring, rows) : cbuf_write_n(p->ring, rows, n);
}
static void *produce(void *argument)
{
    struct producer *p = (struct producer *)argument;
    uint64_t seed = 0x5eed0003;
    for (uint64_t tried = 0; tried < p->attempts;) {
        uint64_t left = p->attempts - tried,
                 n = p->how == ONE_BY_ONE ? 1 : 1 + random_below(&seed, BATCH);
        n = n < left ? n : left;
        int64_t done = write_batch(p, (uint32_t)n);
        if (done < 0) {
            p->fault = cbuf_strerror(done);
            break;
        }
        /* a refused claim drops all of it */
        tried += p->how == IN_PLACE && done ? (uint64_t)done : n;
        p->written += (uint64_t)done;
    }
    cbuf_close(p->ring);
    return NULL;
}

struct consumer {
    pthread_t thread;
    cbuf_reader reader;
    uint32_t batch; /* rows that it asks for; waits for a quarter of them */
    bool peeks;
    uint32_t covered;
    uint64_t next, lost, accepted;
    const char *fault;
};

/* n rows from the reader's first on. */
static void accept_rows(struct consumer *c, const unsigned char *rows, int64_t n, size_t stride)
{
    uint64_t first = cbuf_first(&c->reader);
    if (n <= 0) c->fault = "rows that were there could not be read";
    if (first < c->next) c->fault = "the reader went back";
    for (int64_t i = 0; i < n && !c->fault; i++)
        if (!is_row(rows + (size_t)i * stride, c->covered, first + (uint64_t)i))
            c->fault = "a row is torn, or in the wrong place";
    c->lost += first - c->next;
    c->next = first + (uint64_t)n;
    c->accepted += (uint64_t)n;
    if (cbuf_lost(&c->reader) != c->lost) c->fault = "the loss is not what is missing";
}
/* Looks at rows where they are, as words: a plain look is right as well, and a race for the
 * checkers of races. */
static int64_t peek_rows(struct consumer *c, unsigned char *rows)
{
    const void *from;
    int64_t n = cbuf_peek(&c->reader, c->batch, &from);
    size_t stride = cbuf_stride(c->reader.ring);
    for (int64_t i = 0; i < n; i++) {
        const void *row = (const unsigned char *)from + (size_t)i * stride;
        cbuf__words_out(rows + i * WIDE, (const cbuf__word *)row, WIDE / 8);
    }
    if (!cbuf_still_valid(&c->reader)) return 0;
    cbuf_advance(&c->reader, (uint32_t)n);
    return n;
}
static void *consume(void *argument)
{
    struct consumer *c = (struct consumer *)argument;
    unsigned char rows[BATCH * WIDE];
    int64_t there = 1;
    while (!c->fault && (there = cbuf_wait(&c->reader, 1 + c->batch / 4, CBUF_FOREVER)) > 0) {
        int64_t n = c->peeks ? peek_rows(c, rows) : cbuf_read(&c->reader, rows, c->batch);
        if (n || !c->peeks) accept_rows(c, rows, n, WIDE);
    }
    if (!c->fault && there != CBUF_ECLOSED) c->fault = cbuf_strerror(there);
    cbuf_reader_close(&c->reader); /* so that nobody waits for it */
    return NULL;
}

struct scene {
    uint32_t covered; /* of the WIDE bytes of a row */
    uint8_t layout;
    enum cbuf_on_full on_full;
    enum write_how how;
    uint64_t capacity, rows;
    int readers;
    bool locked, spin;
};

/* Plays a scene to its end and checks the sums; what is said of all scenes is said here. */
static void play(const struct scene *scene)
{
    struct pair pair;
    struct producer producer;
    struct consumer consumers[4];
    cbuf_stats stats;
    cbuf_column column = bytes_column(scene->covered);
    cbuf_options options = options_of(scene->capacity, &column, 1);
    options.row_bytes = WIDE;
    options.layout = scene->layout;
    options.on_full = (uint8_t)scene->on_full;
    options.in_place = scene->how == IN_PLACE;
    options.locked = scene->locked;
    options.block_ns = 60000000000; /* the readers are gone: an error is better than silence */
    if (scene->locked) {
        options.name = unique_name();
        assert_int_equal(cbuf_create(&pair.ring, &options), 0);
        assert_int_equal(cbuf_attach(&pair.consumer, options.name, NULL), 0);
    } else {
        open_pair(&pair, &options);
    }
    memset(&producer, 0, sizeof producer);
    producer.ring = &pair.ring;
    producer.how = scene->how;
    producer.attempts = scene->rows;
    memset(consumers, 0, sizeof consumers);
    for (int k = 0; k < scene->readers; k++) {
        cbuf_reader_options reader = reader_options(CBUF_OLDEST);
        reader.wait = scene->spin ? CBUF_SPIN : k % 2 ? CBUF_YIELD : CBUF_SLEEP;
        reader.anonymous = k == 2 && scene->on_full == CBUF_OVERWRITE;
        reader.prefetch = (uint32_t)k;
        consumers[k].batch = k == 1 ? 1 : k == 0 ? 16 : BATCH;
        if (consumers[k].batch > scene->capacity) consumers[k].batch = 1;
        consumers[k].peeks = k == 3 || (k == 1 && scene->how == IN_BATCHES);
        consumers[k].covered = scene->covered;
        assert_int_equal(cbuf_reader_open(&consumers[k].reader, &pair.consumer, &reader), 0);
    }
    for (int k = 0; k < scene->readers; k++)
        assert_int_equal(pthread_create(&consumers[k].thread, NULL, consume, &consumers[k]), 0);
    assert_int_equal(pthread_create(&producer.thread, NULL, produce, &producer), 0);
    pthread_join(producer.thread, NULL);
    for (int k = 0; k < scene->readers; k++) pthread_join(consumers[k].thread, NULL);

    assert_int_equal(cbuf_stats_get(&pair.consumer, &stats), 0);
    if (producer.fault) fail_msg("the producer: %s", producer.fault);
    assert_int_equal(stats.written, producer.written);
    assert_int_equal(stats.written + stats.dropped, scene->rows);
    if (scene->on_full != CBUF_DROP_NEWEST) assert_int_equal(stats.dropped, 0);
    for (int k = 0; k < scene->readers; k++) {
        if (consumers[k].fault) fail_msg("reader %d: %s", k, consumers[k].fault);
        assert_int_equal(consumers[k].accepted + consumers[k].lost, stats.written);
        if (scene->on_full != CBUF_OVERWRITE) assert_int_equal(consumers[k].lost, 0);
    }
    cbuf_close(&pair.consumer);
    if (scene->locked) assert_int_equal(cbuf_remove(options.name), 0);
    else free(pair.memory);
}

/* The number in the padding, in a word of its own, and none. */
static const struct {
    uint32_t covered;
    uint8_t layout;
} layouts[] = { { 28, CBUF_NUMBERED }, { 32, CBUF_NUMBERED }, { 32, CBUF_DENSE } };

static struct scene scene_of(
    size_t layout, enum cbuf_on_full on_full, uint64_t capacity, uint64_t rows, int readers)
{
    struct scene scene;
    memset(&scene, 0, sizeof scene);
    scene.covered = layouts[layout].covered;
    scene.layout = layouts[layout].layout;
    scene.on_full = on_full;
    scene.capacity = capacity;
    scene.rows = scaled(rows);
    scene.readers = readers;
    return scene;
}

/* ---- the scenes ---- */

TEST(no_reader_of_a_producer_that_waits_for_nobody_gets_a_torn_row_or_miscounts)
{
    for (size_t layout = 0; layout < COUNT_OF(layouts); layout++)
        for (int readers = 1; readers <= 4; readers++)
            for (int how = ONE_BY_ONE; how <= IN_PLACE; how++) {
                struct scene scene = scene_of(
                    layout, CBUF_OVERWRITE, readers == 2 ? 8 : 1024, 1000000, readers);
                scene.how = (enum write_how)how;
                scene.spin = readers == 1;
                /* the user's stores race, as they may */
                if (how == IN_PLACE && CHECK_SANITIZED) continue;
                play(&scene);
            }
}

TEST(a_large_ring_of_many_rows_is_read_without_a_torn_row)
{
    for (size_t layout = 0; layout < COUNT_OF(layouts); layout++) {
        struct scene scene = scene_of(layout, CBUF_OVERWRITE, 16384, 4000000, 1);
        scene.how = IN_BATCHES;
        play(&scene);
    }
}

TEST(a_blocking_producer_loses_nothing_to_any_reader)
{
    for (size_t layout = 0; layout < COUNT_OF(layouts); layout++)
        for (int readers = 1; readers <= 4; readers += 3)
            for (int how = ONE_BY_ONE; how <= IN_PLACE; how++) {
                struct scene scene = scene_of(
                    layout, CBUF_BLOCK, 256, readers == 1 ? 500000 : 40000, readers);
                scene.how = (enum write_how)how;
                play(&scene);
            }
}

TEST(a_dropping_producer_counts_each_row_that_it_refused)
{
    for (size_t layout = 0; layout < COUNT_OF(layouts); layout++)
        for (int how = ONE_BY_ONE; how <= IN_BATCHES; how++) {
            struct scene scene = scene_of(layout, CBUF_DROP_NEWEST, 128, 1500000, 2);
            scene.how = (enum write_how)how;
            play(&scene);
        }
}

/* Two rows and sleepers on both sides: for each row the producer must be woken by the slowest
 * reader, and wakes them. A lost wake-up costs a second here, or 10 ms there: with many of them
 * this does not end in time. */
TEST(producer_and_readers_that_sleep_for_each_row_wake_each_other)
{
    for (size_t layout = 0; layout < COUNT_OF(layouts); layout++)
        for (int readers = 1; readers <= 3; readers++) {
            struct scene scene = scene_of(layout, CBUF_BLOCK, 2, 3000, readers);
            play(&scene);
        }
}

TEST(readers_and_writers_that_lock_the_ring_come_to_the_same_sums)
{
    for (size_t layout = 0; layout < COUNT_OF(layouts); layout++)
        for (int on_full = CBUF_OVERWRITE; on_full <= CBUF_BLOCK; on_full++)
            for (int how = ONE_BY_ONE; how <= IN_PLACE; how++) {
                struct scene scene = scene_of(layout, (enum cbuf_on_full)on_full, 64, 12000, 2);
                scene.how = (enum write_how)how;
                scene.locked = true;
                if (how == IN_PLACE && CHECK_SANITIZED && on_full == CBUF_OVERWRITE) continue;
                play(&scene);
            }
}

/* ---- wake-ups, one at a time ---- */

struct echo {
    pthread_t thread;
    cbuf_ring *out;
    cbuf_reader in;
    uint64_t rounds, slow;
    bool calls, one_processor;
    const char *fault;
};
/* The caller writes a number, the other sends it back, and so on. Nobody stays when the other has
 * gone. */
static void *play_ball(void *argument)
{
    struct echo *e = (struct echo *)argument;
    int64_t before = cbuf__now_ns(CBUF__MONOTONIC);
    uint32_t cpu = 0; /* the first that we may have */
    while (e->one_processor && cpu < 1024 && cbuf_pin_thread(cpu)) cpu++;
    for (uint64_t round = 0, row = 0; round < e->rounds && e->slow < 3 && !e->fault; round++) {
        if (e->calls && cbuf_write(e->out, &round) != 1) e->fault = "a number could not be written";
        int64_t there = cbuf_wait(&e->in, 1, CBUF_FOREVER);
        if (there == CBUF_ECLOSED) break;
        if (there != 1 || cbuf_read(&e->in, &row, 1) != 1 || row != round)
            e->fault = "a wrong number came";
        if (!e->calls && cbuf_write(e->out, &row) != 1)
            e->fault = "a number could not be sent back";
        int64_t now = cbuf__now_ns(CBUF__MONOTONIC);
        e->slow += now - before > 900000000; /* once: a busy machine may do that */
        before = now;
    }
    cbuf_close(e->out);
    return NULL;
}

/* A ball between two threads that both sleep at once: whoever misses a wake-up sleeps for a second.
 * On one processor each has to sleep before the other can go on; on two they mostly meet while one
 * of them is about to. */
TEST(no_wake_up_is_lost_between_two_threads_that_sleep_for_each_other)
{
    for (int k = 0; k < 4; k++) {
        struct pair pairs[2];
        struct echo echoes[2];
        cbuf_column column = bytes_column(8);
        cbuf_options options = options_of(4, &column, 1);
        cbuf_reader_options reader = reader_options(CBUF_OLDEST);
        options.layout = k % 2 ? CBUF_DENSE : CBUF_NUMBERED;
        memset(echoes, 0, sizeof echoes);
        for (int e = 0; e < 2; e++) open_pair(&pairs[e], &options);
        for (int e = 0; e < 2; e++) {
            echoes[e].out = &pairs[e].ring;
            echoes[e].rounds = scaled(30000);
            echoes[e].calls = e == 0;
            echoes[e].one_processor = k / 2;
            assert_int_equal(cbuf_reader_open(&echoes[e].in, &pairs[!e].consumer, &reader), 0);
        }
        for (int e = 0; e < 2; e++)
            assert_int_equal(pthread_create(&echoes[e].thread, NULL, play_ball, &echoes[e]), 0);
        for (int e = 0; e < 2; e++) pthread_join(echoes[e].thread, NULL);
        for (int e = 0; e < 2; e++) {
            if (echoes[e].fault) fail_msg("%s", echoes[e].fault);
            assert_in_range(echoes[e].slow, 0, 2);
            cbuf_reader_close(&echoes[e].in);
        }
        for (int e = 0; e < 2; e++) close_pair(&pairs[e]);
    }
}

/* ---- observers, and readers that come and go ---- */

struct observer {
    pthread_t thread;
    const cbuf_ring *ring;
    uint64_t looks;
    const char *fault;
};
static void *observe(void *argument)
{
    struct observer *o = (struct observer *)argument;
    unsigned char rows[BATCH * WIDE];
    uint64_t last = 0, first = 0;
    cbuf_stats stats;
    memset(&stats, 0, sizeof stats);
    for (uint64_t seed = 0x5eed0004; !o->fault && !stats.closed; o->looks++) {
        uint32_t asked = (uint32_t)random_below(&seed, BATCH + 1);
        int64_t n = o->looks % 2 ? cbuf_latest(o->ring, rows, &first)
                                 : cbuf_snapshot(o->ring, rows, asked, &first);
        if (n < 0 || n > (o->looks % 2 ? 1 : asked))
            o->fault = "not as many rows as were asked for";
        if (n > 0 && first + (uint64_t)n < last) o->fault = "the newest row went back";
        if (n > 0) last = first + (uint64_t)n;
        if (!n && last && o->looks % 2) o->fault = "there was a row, and now there is none";
        for (int64_t i = 0; i < n; i++)
            if (!is_row(rows + i * WIDE, 28, first + (uint64_t)i)) o->fault = "a row is torn";
        if (cbuf_stats_get(o->ring, &stats) || stats.overwritten > stats.written)
            o->fault = "the counts make no sense";
    }
    return NULL;
}

struct guest {
    pthread_t thread;
    const cbuf_ring *ring;
    uint64_t visits;
    const char *fault;
};
/* Registers, reads some rows, and leaves, over and over. */
static void *visit(void *argument)
{
    struct guest *guest = (struct guest *)argument;
    int64_t there = 1;
    for (uint64_t seed = 0x5eed0005; !guest->fault && there >= 0; guest->visits++) {
        struct consumer c;
        unsigned char rows[BATCH * WIDE];
        cbuf_reader_options options = reader_options(CBUF_NEWEST);
        memset(&c, 0, sizeof c);
        c.covered = 28;
        if (cbuf_reader_open(&c.reader, guest->ring, &options)) {
            guest->fault = "no reader could be opened";
            break;
        }
        c.next = cbuf_first(&c.reader);
        for (uint64_t k = random_below(&seed, 20); k && there >= 0 && !c.fault; k--)
            if ((there = cbuf_wait(&c.reader, 1, CBUF_FOREVER)) > 0)
                accept_rows(&c, rows, cbuf_read(&c.reader, rows, BATCH), WIDE);
        guest->fault = c.fault                   ? c.fault
            : c.lost                             ? "a gate lost rows"
            : there < 0 && there != CBUF_ECLOSED ? "the wait failed"
                                                 : NULL;
        cbuf_reader_close(&c.reader);
    }
    return NULL;
}

static void play_with_guests(uint8_t layout, enum cbuf_on_full on_full, uint64_t rows)
{
    struct pair pair;
    struct producer producer;
    struct observer observer;
    struct guest guests[2];
    cbuf_column column = bytes_column(28);
    cbuf_options options = options_of(64, &column, 1);
    options.row_bytes = WIDE;
    options.layout = layout;
    options.on_full = (uint8_t)on_full;
    options.block_ns = 60000000000;
    open_pair(&pair, &options);
    memset(&producer, 0, sizeof producer);
    memset(&observer, 0, sizeof observer);
    memset(guests, 0, sizeof guests);
    producer.ring = &pair.ring;
    producer.how = IN_BATCHES;
    producer.attempts = scaled(rows);
    observer.ring = guests[0].ring = guests[1].ring = &pair.consumer;
    assert_int_equal(pthread_create(&observer.thread, NULL, observe, &observer), 0);
    for (size_t k = 0; k < COUNT_OF(guests) && on_full != CBUF_OVERWRITE; k++)
        assert_int_equal(pthread_create(&guests[k].thread, NULL, visit, &guests[k]), 0);
    assert_int_equal(pthread_create(&producer.thread, NULL, produce, &producer), 0);
    pthread_join(producer.thread, NULL);
    pthread_join(observer.thread, NULL);
    for (size_t k = 0; k < COUNT_OF(guests) && on_full != CBUF_OVERWRITE; k++) {
        pthread_join(guests[k].thread, NULL);
        if (guests[k].fault) fail_msg("guest %zu: %s", k, guests[k].fault);
        assert_true(guests[k].visits > 0);
    }
    if (producer.fault) fail_msg("the producer: %s", producer.fault);
    if (observer.fault) fail_msg("the observer: %s", observer.fault);
    assert_true(observer.looks > 0);
    cbuf_close(&pair.consumer);
    free(pair.memory);
}

TEST(whoever_only_looks_sees_whole_rows_and_never_older_ones_than_before)
{
    for (uint8_t layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++)
        play_with_guests(layout, CBUF_OVERWRITE, 3000000);
}

TEST(gates_that_come_and_go_lose_nothing_while_they_are_there)
{
    for (uint8_t layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++)
        for (int on_full = CBUF_BLOCK; on_full <= CBUF_DROP_NEWEST; on_full++)
            play_with_guests(layout, (enum cbuf_on_full)on_full, 400000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            no_reader_of_a_producer_that_waits_for_nobody_gets_a_torn_row_or_miscounts),
        cmocka_unit_test(a_large_ring_of_many_rows_is_read_without_a_torn_row),
        cmocka_unit_test(a_blocking_producer_loses_nothing_to_any_reader),
        cmocka_unit_test(a_dropping_producer_counts_each_row_that_it_refused),
        cmocka_unit_test(producer_and_readers_that_sleep_for_each_row_wake_each_other),
        cmocka_unit_test(readers_and_writers_that_lock_the_ring_come_to_the_same_sums),
        cmocka_unit_test(no_wake_up_is_lost_between_two_threads_that_sleep_for_each_other),
        cmocka_unit_test(whoever_only_looks_sees_whole_rows_and_never_older_ones_than_before),
        cmocka_unit_test(gates_that_come_and_go_lose_nothing_while_they_are_there),
    };
    alarm(240); /* what waits for ever is a failure */
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
