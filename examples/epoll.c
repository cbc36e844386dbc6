/*
 * A consumer in an event loop: reads the ring /dev/shm/ticks as rows come, and tells once a second
 * how many there were, with one epoll for both. Start producer first.
 *
 *   cc -std=c11 -O2 -Iinclude examples/epoll.c -o epoll && ./epoll
 *
 * SPDX-License-Identifier: MIT
 */
#include <cbuf.h>
#include <cbuf_poll.h>

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

struct tick { int64_t time; double bid, ask; int32_t size; };
CBUF_TYPED(tick, struct tick);

static void watch(int loop, int fd)
{
    struct epoll_event event = { .events = EPOLLIN, .data = { .fd = fd } };
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

/* Reads all that is there. False when no more will come; otherwise `fd` is readable when there is
 * more. */
static int read_all(cbuf_reader *reader, int fd, long *count)
{
    struct tick ticks[256];
    int64_t there;
    while ((there = cbuf_rows_arm(reader, fd, 1)) > 0) *count += tick_read(reader, ticks, 256);
    if (there < 0 && there != CBUF_ECLOSED) fprintf(stderr, "epoll: %s\n", cbuf_strerror(there));
    return there == 0;
}

int main(void)
{
    cbuf_ring ring;
    cbuf_reader reader;
    long count = 0;
    if (cbuf_attach(&ring, "ticks", NULL) < 0)
        return fprintf(stderr, "epoll: %s\n", cbuf_error(&ring)), 1;
    int error = cbuf_reader_open(&reader, &ring, &(cbuf_reader_options){ .name = "epoll" });
    int rows = error < 0 ? error : cbuf_rows_fd(&ring);
    if (rows < 0) return fprintf(stderr, "epoll: %s\n", cbuf_strerror(rows)), 1;

    int loop = epoll_create1(EPOLL_CLOEXEC), second = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    timerfd_settime(second, 0, &(struct itimerspec){ { 1, 0 }, { 1, 0 } }, NULL);
    watch(loop, rows);
    watch(loop, second);

    while (read_all(&reader, rows, &count)) { /* before each wait: it asks to be woken */
        struct epoll_event event;
        if (epoll_wait(loop, &event, 1, -1) != 1 || event.data.fd != second) continue;
        uint64_t times;
        if (read(second, &times, sizeof times) == sizeof times)
            printf("%ld rows\n", count), fflush(stdout);
    }
    printf("%ld rows, %llu lost; the producer is done\n", count,
           (unsigned long long)cbuf_lost(&reader));
    cbuf_rows_fd_close(&ring, rows);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    return 0;
}
