/*
 * A telemetry buffer with the calls of the RFC "Lock-Free Ring Buffer for High-Performance
 * Telemetry": push, try_push, push_batch, take_batch, take_snapshot, and its four policies. Thin
 * names over a ring: what they cost and guarantee is cbuf's.
 *
 *   struct telemetry buffer;
 *   if (telemetry_open(&buffer, "app", 65536, TELEMETRY_DROP_OLDEST, NULL) < 0)
 *       die(telemetry_error(&buffer));
 *   struct telemetry_event event = telemetry_event_now(TELEMETRY_INFO, "net", "connected");
 *   telemetry_push(&buffer, &event);
 *   n = telemetry_take_batch(&buffer, events, 64);
 *   telemetry_close(&buffer);
 *
 * Whoever opens it pushes, and one thread takes, at the same time. Other threads and processes push
 * through telemetry_join, as many as 64, take through telemetry_attach, or look on with anything that
 * reads a ring (python3 -m cbuf tail app). Texts are cut to the width of their column.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TELEMETRY_H
#define TELEMETRY_H

#include <cbuf.h>
#include <cbuf_log.h>

enum telemetry_level { TELEMETRY_TRACE, TELEMETRY_DEBUG, TELEMETRY_INFO, TELEMETRY_WARN,
                       TELEMETRY_ERROR };
enum telemetry_policy {
    TELEMETRY_DROP_OLDEST = CBUF_OVERWRITE,
    TELEMETRY_BLOCK = CBUF_BLOCK,
    TELEMETRY_DROP_NEWEST = CBUF_DROP_NEWEST,
    TELEMETRY_SPILL_TO_DISK = CBUF_SPILL
};

struct telemetry_event { /* 128 bytes, two cache lines */
    int64_t time;        /* ns since 1970 */
    uint8_t level;       /* enum telemetry_level */
    char target[31], message[84];
    uint32_t unused; /* no column: the row's number lies there */
};
static const cbuf_column telemetry_columns[] = {
    CBUF_COLUMN_AS(struct telemetry_event, time, CBUF_TIMESTAMP_NS),
    CBUF_COLUMN(struct telemetry_event, level), CBUF_COLUMN(struct telemetry_event, target),
    CBUF_COLUMN(struct telemetry_event, message) };
CBUF_TYPED(telemetry__row, struct telemetry_event);

struct telemetry {
    cbuf_ring ring;
    cbuf_reader reader;
    cbuf_log log;
};

static inline struct telemetry_event telemetry_event_now(
    enum telemetry_level level, const char *target, const char *message)
{
    struct telemetry_event event;
    struct timespec now;
    memset(&event, 0, sizeof event);
    clock_gettime(CLOCK_REALTIME, &now);
    event.time = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    event.level = (uint8_t)level;
    memcpy(event.target, target, strnlen(target, sizeof event.target));
    memcpy(event.message, message, strnlen(message, sizeof event.message));
    return event;
}

static inline void telemetry_close(struct telemetry *buffer)
{
    cbuf_reader_close(&buffer->reader);
    cbuf_log_close(&buffer->log);
    cbuf_close(&buffer->ring);
}
/* Why telemetry_open or telemetry_attach failed. */
static inline const char *telemetry_error(const struct telemetry *buffer)
{
    const char *of_log = cbuf_log_error(&buffer->log);
    return *of_log ? of_log : cbuf_error(&buffer->ring);
}

/* One more producer, in a thread or process of its own; otherwise as telemetry_open. */
static inline int telemetry_join(struct telemetry *buffer, const char *name, uint64_t capacity,
    enum telemetry_policy policy, const char *spill)
{
    cbuf_options options;
    cbuf_log_options log;
    memset(&options, 0, sizeof options);
    memset(&log, 0, sizeof log);
    memset(buffer, 0, sizeof *buffer);
    options.name = name;
    options.capacity = capacity;
    options.columns = telemetry_columns;
    options.column_count = sizeof telemetry_columns / sizeof telemetry_columns[0];
    options.row_bytes = sizeof(struct telemetry_event);
    options.on_full = (uint8_t)policy;
    options.producers = 64;
    log.path = spill;
    int error = cbuf_create(&buffer->ring, &options);
    if (!error && policy == TELEMETRY_SPILL_TO_DISK)
        error = cbuf_log_open(&buffer->log, &buffer->ring, &log);
    return error;
}

/* Opens a ring of that name and capacity, or continues it, to push and to take. `spill` is the path
 * of the file that TELEMETRY_SPILL_TO_DISK writes to, NULL: beside the ring. 0, or an error of
 * cbuf's. */
static inline int telemetry_open(struct telemetry *buffer, const char *name, uint64_t capacity,
    enum telemetry_policy policy, const char *spill)
{
    int error = telemetry_join(buffer, name, capacity, policy, spill);
    return error ? error : cbuf_reader_open(&buffer->reader, &buffer->ring, NULL);
}

/* Opens it in another process, to take. */
static inline int telemetry_attach(struct telemetry *buffer, const char *name)
{
    memset(buffer, 0, sizeof *buffer);
    int error = cbuf_attach(&buffer->ring, name, NULL);
    return error ? error : cbuf_reader_open(&buffer->reader, &buffer->ring, NULL);
}

/* 1; 0: dropped, the buffer is full (DROP_NEWEST; SPILL_TO_DISK at its limit); or an error, after
 * which the event was not taken. TELEMETRY_BLOCK waits. */
static inline int telemetry_push(struct telemetry *buffer, const struct telemetry_event *event)
{
    return telemetry__row_write(&buffer->ring, event);
}
/* The same, but under TELEMETRY_BLOCK too it never waits: 0 if the buffer is full. */
static inline int telemetry_try_push(struct telemetry *buffer, const struct telemetry_event *event)
{
    bool blocks = buffer->ring.options.on_full == CBUF_BLOCK;
    int room = blocks ? cbuf_wait_room(&buffer->ring, 1, 0) : 1;
    return room > 0 ? telemetry_push(buffer, event) : room;
}
/* How many of n events were pushed, from the first on; or an error if none was. */
static inline int64_t telemetry_push_batch(
    struct telemetry *buffer, const struct telemetry_event *events, uint64_t n)
{
    return telemetry__row_write_n(&buffer->ring, events, n);
}

/* Takes up to `max` events, oldest first. How many; 0: there is none; or an error. */
static inline int64_t telemetry_take_batch(
    struct telemetry *buffer, struct telemetry_event *events, uint32_t max)
{
    return telemetry__row_read(&buffer->reader, events, max);
}
/* Takes all events that are there now; `events` has room for as many as the buffer. */
static inline int64_t telemetry_take_snapshot(
    struct telemetry *buffer, struct telemetry_event *events)
{
    uint64_t there = cbuf_available(&buffer->reader), most = buffer->ring.capacity;
    uint32_t want = (uint32_t)(there < most ? there : most);
    int64_t taken = 0, n = 1;
    while (taken < want && n > 0) {
        n = telemetry_take_batch(buffer, events + taken, want - (uint32_t)taken);
        if (n > 0) taken += n;
    }
    return taken || n > 0 ? taken : n;
}
/* Events that were overwritten before they were taken (DROP_OLDEST). */
static inline uint64_t telemetry_lost(const struct telemetry *buffer)
{
    return cbuf_lost(&buffer->reader);
}
/* SPILL_TO_DISK: events go from the file into the ring when the producer calls, here at the latest:
 * it waits for the consumer, at most timeout_ns. 1: none is left there; 0: some are; or an error. */
static inline int telemetry_flush(struct telemetry *buffer, int64_t timeout_ns)
{
    return buffer->log.ring ? cbuf_log_drain(&buffer->log, timeout_ns) : 1;
}

#endif
