/* Waiting in an event loop: the descriptors of cbuf_poll.h. Whoever waits here waits for ever, so
 * that a lost wake-up is a test that does not end. */
#include "check.h"

#include <cbuf_poll.h>

#include <poll.h>
#include <pthread.h>

static bool is_readable(int fd)
{
    struct pollfd asked = { fd, POLLIN, 0 };
    return poll(&asked, 1, 0) == 1;
}
static void await(int fd)
{
    struct pollfd asked = { fd, POLLIN, 0 };
    while (poll(&asked, 1, -1) != 1) {}
}

struct scene { /* a ring with two producers at most, and a reader of it */
    cbuf_ring producers[2], consumer;
    cbuf_reader reader;
    uint32_t count;
    uint64_t rows; /* of each producer */
    const char *fault;
};

static void open_scene(struct scene *s, uint64_t capacity, enum cbuf_on_full on_full, uint32_t count)
{
    cbuf_options options = tick_options(capacity);
    memset(s, 0, sizeof *s);
    options.name = unique_name();
    options.on_full = (uint8_t)on_full;
    options.producers = s->count = count;
    for (uint32_t p = 0; p < count; p++)
        assert_int_equal(cbuf_create(&s->producers[p], &options), 0);
    assert_int_equal(cbuf_attach(&s->consumer, options.name, NULL), 0);
    assert_int_equal(cbuf_reader_open(&s->reader, &s->consumer, NULL), 0);
}
static void close_scene(struct scene *s)
{
    cbuf_reader_close(&s->reader);
    cbuf_close(&s->consumer);
    for (uint32_t p = 0; p < s->count; p++) cbuf_close(&s->producers[p]);
}
static void write_tick(cbuf_ring *ring, uint64_t sequence)
{
    struct tick tick = tick_of(sequence);
    assert_int_equal(cbuf_write(ring, &tick), 1);
}

TEST(a_descriptor_becomes_readable_when_the_rows_that_were_asked_for_are_there)
{
    struct scene s;
    open_scene(&s, 64, CBUF_OVERWRITE, 1);
    int fd = cbuf_rows_fd(&s.consumer);
    assert_true(fd >= 0);
    write_tick(&s.producers[0], 0);
    assert_false(is_readable(fd)); /* nobody asked */
    assert_int_equal(cbuf_rows_arm(&s.reader, fd, 1), 1);
    assert_int_equal(cbuf_rows_arm(&s.reader, fd, 3), 0);
    write_tick(&s.producers[0], 1);
    assert_false(is_readable(fd));
    write_tick(&s.producers[0], 2);
    assert_true(is_readable(fd));
    assert_int_equal(cbuf_rows_arm(&s.reader, fd, 3), 3);
    assert_false(is_readable(fd)); /* what was told is taken away */
    cbuf_rows_fd_close(&s.consumer, fd);
    assert_int_equal(s.consumer.readers->rows.watchers, 0);
    close_scene(&s);
}

TEST(a_descriptor_becomes_readable_when_the_producer_closes)
{
    struct scene s;
    open_scene(&s, 64, CBUF_OVERWRITE, 1);
    int fd = cbuf_rows_fd(&s.consumer);
    assert_int_equal(cbuf_rows_arm(&s.reader, fd, 1), 0);
    cbuf_close(&s.producers[0]);
    assert_true(is_readable(fd));
    assert_int_equal(cbuf_rows_arm(&s.reader, fd, 1), CBUF_ECLOSED);
    cbuf_rows_fd_close(&s.consumer, fd);
    close_scene(&s);
}

TEST(a_descriptor_becomes_readable_when_there_is_room)
{
    struct tick tick = tick_of(0), ticks[8];
    struct scene s;
    open_scene(&s, 8, CBUF_DROP_NEWEST, 1);
    int fd = cbuf_room_fd(&s.producers[0]);
    assert_true(fd >= 0);
    assert_int_equal(cbuf_room_arm(&s.producers[0], fd, 1), 1);
    while (cbuf_write(&s.producers[0], &tick) == 1) {}
    assert_int_equal(cbuf_room_arm(&s.producers[0], fd, 2), 0);
    assert_int_equal(cbuf_read(&s.reader, ticks, 1), 1);
    assert_false(is_readable(fd));
    assert_int_equal(cbuf_read(&s.reader, ticks, 1), 1);
    assert_true(is_readable(fd));
    assert_int_equal(cbuf_room_arm(&s.producers[0], fd, 2), 1);
    cbuf_room_fd_close(&s.producers[0], fd);
    close_scene(&s);
}

TEST(what_cannot_be_watched_is_an_error)
{
    static unsigned char memory[1 << 16] __attribute__((aligned(128)));
    struct scene s;
    cbuf_ring ring;
    cbuf_reader anonymous;
    cbuf_options options = tick_options(16);
    cbuf_reader_options as = reader_options(CBUF_OLDEST);
    as.anonymous = true;
    assert_int_equal(cbuf_create_in(&ring, memory, sizeof memory, &options), 0);
    assert_int_equal(cbuf_rows_fd(&ring), CBUF_EINVAL);
    cbuf_close(&ring);
    assert_int_equal(cbuf_rows_fd(&ring), CBUF_ENOTOPEN);
    open_scene(&s, 16, CBUF_OVERWRITE, 1);
    assert_int_equal(cbuf_room_fd(&s.consumer), CBUF_EROLE);
    assert_int_equal(cbuf_reader_open(&anonymous, &s.consumer, &as), 0);
    int fd = cbuf_rows_fd(&s.consumer);
    assert_int_equal(cbuf_rows_arm(&anonymous, fd, 1), CBUF_EACCES);
    assert_int_equal(cbuf_rows_arm(&s.reader, fd, 9), CBUF_EINVAL);
    cbuf_rows_fd_close(&s.consumer, fd);
    cbuf_reader_close(&anonymous);
    close_scene(&s);
}

/* ---- threads that wait for each other by descriptors alone, in a ring of a few rows ---- */

struct writer {
    pthread_t thread;
    struct scene *scene;
    uint32_t index;
    const char *fault;
};

static void *produce(void *argument)
{
    struct writer *w = (struct writer *)argument;
    cbuf_ring *ring = &w->scene->producers[w->index];
    int fd = cbuf_room_fd(ring);
    for (uint64_t i = 0; i < w->scene->rows && fd >= 0;) {
        struct tick tick = tick_of(i);
        int written = cbuf_write(ring, &tick), room = 1;
        i += written == 1;
        if (written == 0) room = cbuf_room_arm(ring, fd, 1);
        if (written < 0 || room < 0) w->fault = "an error";
        if (w->fault) break;
        if (!room) await(fd);
    }
    if (fd < 0) w->fault = "no descriptor";
    else cbuf_room_fd_close(ring, fd);
    cbuf_close(ring);
    return NULL;
}

static void play(uint32_t producers, uint32_t want, uint64_t rows)
{
    struct scene s;
    struct writer writers[2];
    struct tick ticks[64];
    uint64_t read = 0;
    open_scene(&s, 16, CBUF_DROP_NEWEST, producers);
    s.rows = scaled(rows);
    int fd = cbuf_rows_fd(&s.consumer);
    assert_true(fd >= 0);
    for (uint32_t p = 0; p < producers; p++) {
        memset(&writers[p], 0, sizeof writers[p]);
        writers[p].scene = &s;
        writers[p].index = p;
        assert_int_equal(pthread_create(&writers[p].thread, NULL, produce, &writers[p]), 0);
    }
    for (;;) {
        int64_t there = cbuf_rows_arm(&s.reader, fd, want);
        if (there == CBUF_ECLOSED) break;
        assert_true(there >= 0);
        if (!there) await(fd);
        else read += (uint64_t)cbuf_read(&s.reader, ticks, 64);
    }
    for (uint32_t p = 0; p < producers; p++) {
        pthread_join(writers[p].thread, NULL);
        if (writers[p].fault) fail_msg("producer %u: %s", p, writers[p].fault);
    }
    assert_int_equal(read, producers * s.rows);
    assert_int_equal(cbuf_lost(&s.reader) + cbuf_skipped(&s.reader), 0);
    cbuf_rows_fd_close(&s.consumer, fd);
    cbuf_reader_close(&s.reader);
    cbuf_close(&s.consumer);
}

TEST(no_wake_up_is_lost_between_threads_that_wait_by_descriptors)
{
    play(1, 1, 40000);
    play(1, 4, 40000);
}

TEST(no_wake_up_is_lost_among_several_producers)
{
    play(2, 1, 20000);
    play(2, 5, 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            a_descriptor_becomes_readable_when_the_rows_that_were_asked_for_are_there),
        cmocka_unit_test(a_descriptor_becomes_readable_when_the_producer_closes),
        cmocka_unit_test(a_descriptor_becomes_readable_when_there_is_room),
        cmocka_unit_test(what_cannot_be_watched_is_an_error),
        cmocka_unit_test(no_wake_up_is_lost_between_threads_that_wait_by_descriptors),
        cmocka_unit_test(no_wake_up_is_lost_among_several_producers),
    };
    alarm(240); /* what waits for ever is a failure */
    return cmocka_run_group_tests_name("poll", tests, NULL, NULL);
}
