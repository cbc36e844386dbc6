/* cbuf.c - cbuf by its public calls. Variants: dense=1 delta=1 step=N pad=1 slots=N prefetch=N. */
#define _GNU_SOURCE 1
#ifdef CBUF_HEADER /* another state of the header, to be compared with this one */
#include CBUF_HEADER
#else
#include "../../include/cbuf.h"
#include "../../include/cbuf_group.h"
#define CAN_GROUPS
#endif
#ifndef CBUF_HEADER /* which may be one that knows no log */
#include "../../include/cbuf_log.h"
#define CAN_LOG
#endif
#include "../bench.h"

struct shared { char name[48]; cbuf_options options; };
struct producer { cbuf_ring ring; };
struct consumer { cbuf_ring ring; cbuf_reader reader; };
#define CAN_WRITE
#define CAN_STREAM
#define CAN_PROCESSES
#define CAN_IN_PLACE
#define CAN_READERS
#define CAN_PRODUCERS
#define CAN_FREE
#define CAN_SLEEP
#define CAN_OPEN
#define CAN_HUGE
#define ANY_CAPACITY

CBUF_TYPED(row, struct row);
static const cbuf_column columns[] = {
    CBUF_COLUMN_AS(row, time, CBUF_TIMESTAMP_NS), CBUF_COLUMN(row, bid), CBUF_COLUMN(row, ask),
#if ROW_BYTES > 32
    { "level", CBUF_BYTES(8 * LEVELS), offsetof(row, level) },
#endif
    CBUF_COLUMN(row, size) };

static void shared_open(struct shared *s, const struct setup *o, int channel)
{
    snprintf(s->name, sizeof s->name, "cbuf_bench_%d_%d", (int)getpid(), channel);
    s->options = (cbuf_options){ .name = s->name, .capacity = o->capacity, .row_bytes = sizeof(row),
        .columns = columns, .column_count = sizeof columns / sizeof *columns, .in_place = o->in_place,
        .layout = variant_number(o, "dense", 0) ? CBUF_DENSE : CBUF_NUMBERED,
        .on_full = o->lossless ? CBUF_BLOCK : CBUF_OVERWRITE, .pad_rows = variant_number(o, "pad", 0) != 0,
        .producers = (uint32_t)o->producers,
        .reserve_step = (uint32_t)variant_number(o, "step", 0), .max_readers = (uint32_t)variant_number(o, "slots", 0),
        .memory = { .populate = CBUF_REQUIRE, .huge = o->huge ? CBUF_REQUIRE : 0 } };
#ifdef CBUF_MAX_DELTAS /* not in every state of the header */
    static const cbuf_delta deltas[] = { { "time", 32, 0 }, { "bid", 16, 0.5 }, { "ask", 16, 0.5 }, { "size", 16, 0 } };
    s->options.deltas = deltas;
    s->options.delta_count = variant_number(o, "delta", 0) ? 4 : 0;
#endif
}
static void producer_open(struct producer *p, struct shared *s)
{
    if (cbuf_create(&p->ring, &s->options) < 0) die("cbuf_create", cbuf_error(&p->ring));
}
static void consumer_open(struct consumer *c, struct shared *s)
{
    cbuf_reader_options options = { .prefetch = (uint32_t)variant_number(&setup, "prefetch", 0),
        .spins = setup.sleeping ? 1 : 0 };
    cbuf_attach_options here = { .memory = s->options.memory };
    if (cbuf_attach(&c->ring, s->name, &here) < 0) die("cbuf_attach", cbuf_error(&c->ring));
    if (cbuf_reader_open(&c->reader, &c->ring, &options) < 0) die("cbuf_reader_open", "failed");
}
static void producer_close(struct producer *p) { cbuf_close(&p->ring); }
static void consumer_close(struct consumer *c) { cbuf_reader_close(&c->reader), cbuf_close(&c->ring); }
static void shared_close(struct shared *s) { cbuf_remove(s->name); }

INLINE int checked(int64_t n)
{
    if (__builtin_expect(n < 0, 0)) die("cbuf", cbuf_strerror(n));
    return (int)n;
}
INLINE int push(struct producer *p, const row *rows, int n)
{
    if (__builtin_constant_p(n) && n == 1) return checked(row_write(&p->ring, rows));
    return checked(row_write_n(&p->ring, rows, (uint64_t)n));
}
INLINE int push_many(struct producer *p, const row *rows, int n) { return push(p, rows, n); }
INLINE int pop(struct consumer *c, row *rows, int max) { return checked(row_read(&c->reader, rows, (uint32_t)max)); }
INLINE int claim(struct producer *p, int n, void **base)
{
    int64_t granted;
    *base = cbuf_claim(&p->ring, (uint32_t)n, &granted);
    return checked(granted);
}
INLINE void publish(struct producer *p, int n) { cbuf_publish(&p->ring, (uint32_t)n); }
INLINE int peek(struct consumer *c, int max, const void **base) 
{
    return checked(cbuf_peek(&c->reader, (uint32_t)max, base));
}
INLINE bool release(struct consumer *c, int n)
{
    bool valid = cbuf_still_valid(&c->reader);
    cbuf_advance(&c->reader, (uint32_t)n);
    return valid;
}
#ifdef CAN_GROUPS
struct worker { cbuf_ring ring; cbuf_worker worker; };
static void worker_open(struct worker *w, struct shared *s)
{
    cbuf_attach_options here = { .memory = s->options.memory };
    if (cbuf_attach(&w->ring, s->name, &here) < 0) die("cbuf_attach", cbuf_error(&w->ring));
    if (cbuf_worker_open(&w->worker, &w->ring, "bench", NULL) < 0) die("cbuf_worker_open", cbuf_worker_error(&w->worker));
}
INLINE int worker_take(struct worker *w, row *rows, int max) { return checked(cbuf_take(&w->worker, rows, (uint32_t)max)); }
static void worker_close(struct worker *w) { cbuf_worker_close(&w->worker), cbuf_close(&w->ring); }
#endif
INLINE uint64_t consumer_lost(struct consumer *c) { return cbuf_lost(&c->reader); }
INLINE int pop_wait(struct consumer *c, row *rows, int max)
{
    int n = pop(c, rows, max);
    return n || cbuf_wait(&c->reader, 1, 10000000) <= 0 ? n : pop(c, rows, max);
}

static struct { cbuf_ring made, attached; cbuf_reader reader; } open_handles;
static void open_create(struct shared *s, const struct setup *o)
{
    cbuf_options options = s->options;
    if (o->capacity <= 65536) options.memory.populate = 0; /* as by default */
    if (cbuf_create(&open_handles.made, &options) < 0) die("cbuf_create", cbuf_error(&open_handles.made));
}
static void open_attach(struct shared *s)
{
    cbuf_attach_options here = { .memory = cbuf_resolved(&open_handles.made)->memory };
    if (cbuf_attach(&open_handles.attached, s->name, &here) < 0) die("cbuf_attach", cbuf_error(&open_handles.attached));
}
static bool open_register(struct shared *s)
{
    (void)s;
    if (cbuf_reader_open(&open_handles.reader, &open_handles.attached, NULL) < 0) die("cbuf_reader_open", "failed");
    return true;
}
static void open_close(struct shared *s)
{
    cbuf_reader_close(&open_handles.reader);
    cbuf_close(&open_handles.attached), cbuf_close(&open_handles.made);
    cbuf_remove(s->name);
}

#define row_at(handle, base, i) ((row *)(void *)((char *)(base) + (size_t)(i) * cbuf_stride(&(handle)->ring)))

#include "../main.h"
