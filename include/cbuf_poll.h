/*
 * cbuf_poll.h - waiting for a ring in an event loop: a file descriptor for epoll, poll, libuv or
 * asyncio. A companion of cbuf.h; Linux.
 *
 *   int fd = cbuf_rows_fd(&ring);                          once; close(fd) is not enough, see below
 *   for (;;) {
 *       n = cbuf_rows_arm(&reader, fd, 1);                 rows there? else: wake me when they come
 *       if (n > 0) cbuf_read(&reader, ...);                read until it returns 0, then arm again
 *       else if (n == 0) epoll_wait(...);                  fd is readable as soon as it is time
 *       else break;                                        CBUF_ECLOSED: no more will come
 *   }
 *   cbuf_rows_fd_close(&ring, fd);
 *
 * The descriptor is one of inotify(7). Who moves a ring on looks, at no cost, whether anybody
 * wishes to be woken ([publish] in cbuf.h), and only then wakes: those who sleep in cbuf_wait, and,
 * by a change of the file's times, those who watch such a descriptor. No wake-up is lost: a wish is
 * made before the last look at the ring. A descriptor may become readable though there is nothing
 * to do: arm again. A producer that was killed wakes nobody, and neither does a reader that was
 * killed at the gate: let the loop look at cbuf_producer_alive, or arm for room again, at times of
 * its own.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_POLL_H
#define CBUF_POLL_H

#include "cbuf.h"

#ifndef CBUF_NO_OS
#include <sys/inotify.h>

#ifdef __cplusplus
extern "C++" {
#endif

/* A descriptor that becomes readable when rows come, after cbuf_rows_arm. CBUF_EACCES for one who
 * may only observe, CBUF_EINVAL for a ring in memory. Not to be read from; any thread, but one
 * reader for each. */
static inline int cbuf_rows_fd(const cbuf_ring *ring);
static inline void cbuf_rows_fd_close(const cbuf_ring *ring, int fd);

/* How many rows can be read now, if that is n (1 to capacity / 2) or if no more will come; 0: fd
 * becomes readable when n may be there. CBUF_ECLOSED or CBUF_ERETIRED as cbuf_wait; CBUF_EACCES for
 * an anonymous reader; CBUF_ESYSTEM where the system has no membarrier(2), and a wake-up might be
 * lost: use cbuf_wait there. By the reader's thread. */
static inline int64_t cbuf_rows_arm(cbuf_reader *reader, int fd, uint32_t n);

/* The same for a producer of a ring with gates: 1 if n rows can be written now; 0: fd becomes
 * readable when they may. With several producers another may be faster. */
static inline int cbuf_room_fd(const cbuf_ring *ring);
static inline void cbuf_room_fd_close(const cbuf_ring *ring, int fd);
static inline int cbuf_room_arm(cbuf_ring *ring, int fd, uint32_t n);

/* ---- no more to know for who uses it ---- */

CBUF__SLOW int cbuf__watch(const cbuf_ring *ring, int file, cbuf__event *event)
{
    char path[40];
    cbuf__text text = { path, path + sizeof path, false };
    if (file < 0) return ring->file ? CBUF_EINVAL : CBUF_ENOTOPEN;
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) return CBUF_ESYSTEM;
    cbuf__say_number(&text, "/proc/self/fd/", CBUF__AS(uint64_t, file));
    if (inotify_add_watch(fd, path, IN_ATTRIB) < 0) return close(fd), CBUF_ESYSTEM;
    cbuf__fetch_add_acq_rel(&event->watchers, 1);
    return fd;
}

CBUF__SLOW void cbuf__unwatch(cbuf__event *event, int fd)
{
    if (fd < 0) return;
    cbuf__fetch_add_acq_rel(&event->watchers, UINT64_MAX); /* one less */
    close(fd);
}

CBUF__SLOW void cbuf__drain(int fd)
{
    char events[1024];
    while (read(fd, events, sizeof events) > 0) {}
}

static inline int cbuf_rows_fd(const cbuf_ring *ring)
{
    if (ring->file && !ring->readers) return CBUF_EACCES;
    return cbuf__watch(ring, ring->fd, ring->file ? &ring->readers->rows : NULL);
}
static inline void cbuf_rows_fd_close(const cbuf_ring *ring, int fd)
{
    cbuf__unwatch(&ring->readers->rows, fd);
}

static inline int64_t cbuf_rows_arm(cbuf_reader *reader, int fd, uint32_t n)
{
    cbuf__drain(fd); /* before the look at the ring, so that what comes after it stays */
    for (;;) {
        bool sure = true;
        uint64_t count;
        int64_t there = cbuf_wait(reader, n, 0);
        bool last = cbuf__load_acquire(&reader->ring->file->state) != CBUF__OPEN;
        if (there < 0 || there >= n || (there && last)) return there;
        if (!reader->slot) return CBUF_EACCES;
        if (!cbuf__wish_rows(reader->ring, reader->cursor + n, &count, &sure)) continue;
        return sure ? 0 : CBUF_ESYSTEM;
    }
}

static inline int cbuf_room_fd(const cbuf_ring *ring)
{
    if (ring->file && !ring->producer) return CBUF_EROLE;
    return cbuf__watch(ring, ring->readers_fd, ring->file ? &ring->readers->room : NULL);
}
static inline void cbuf_room_fd_close(const cbuf_ring *ring, int fd)
{
    cbuf__unwatch(&ring->readers->room, fd);
}

static inline int cbuf_room_arm(cbuf_ring *ring, int fd, uint32_t n)
{
    bool sure = true;
    cbuf__drain(fd);
    int room = cbuf_wait_room(ring, n, 0);
    if (room) return room;
    cbuf__wish(&ring->readers->room, cbuf__room_at(ring, n), &sure);
    room = cbuf_wait_room(ring, n, 0); /* E4: the second look */
    return room || sure ? room : CBUF_ESYSTEM;
}

#ifdef __cplusplus
}
#endif
#endif
#endif /* CBUF_POLL_H */
