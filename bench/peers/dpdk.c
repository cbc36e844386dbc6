/* dpdk.c - DPDK's rte_ring in shared memory; copying, in place by its zero-copy calls, and with several producers (plain, or
 * HTS: -DHTS). No EAL: a ring needs none. */
#include "../bench.h"
#define ALLOW_EXPERIMENTAL_API
#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <rte_ring_peek_zc.h>

struct shared { struct rte_ring *ring; };
struct producer { struct rte_ring *ring; };
struct consumer { struct rte_ring *ring; };
#define CAN_PRODUCERS
#define ANY_CAPACITY
#ifdef HTS
#define MANY RING_F_MP_HTS_ENQ
#else
#define MANY 0
#define CAN_STREAM
#define CAN_PROCESSES
#define CAN_IN_PLACE
#endif

static void shared_open(struct shared *s, const struct setup *o, int channel)
{
    (void)channel;
    s->ring = (struct rte_ring *)shared_memory(sizeof *s->ring + o->capacity * sizeof(row));
    unsigned flags = o->producers > 1 ? MANY | RING_F_SC_DEQ : RING_F_SP_ENQ | RING_F_SC_DEQ;
    if (rte_ring_init(s->ring, "bench", (unsigned)o->capacity, flags)) die("rte_ring_init", "failed");
}
static void producer_open(struct producer *p, struct shared *s) { p->ring = s->ring; }
static void consumer_open(struct consumer *c, struct shared *s) { c->ring = s->ring; }
static void producer_close(struct producer *p) { (void)p; }
static void consumer_close(struct consumer *c) { (void)c; }
static void shared_close(struct shared *s) { (void)s; }

INLINE int push_many(struct producer *p, const row *rows, int n)
{
#ifdef HTS
    return (int)rte_ring_mp_hts_enqueue_burst_elem(p->ring, rows, sizeof(row), (unsigned)n, NULL);
#else
    return (int)rte_ring_mp_enqueue_burst_elem(p->ring, rows, sizeof(row), (unsigned)n, NULL);
#endif
}
INLINE int pop(struct consumer *c, row *rows, int max)
{
    return (int)rte_ring_sc_dequeue_burst_elem(c->ring, rows, sizeof(row), (unsigned)max, NULL);
}
#ifndef HTS
INLINE int push(struct producer *p, const row *rows, int n)
{
    return (int)rte_ring_sp_enqueue_burst_elem(p->ring, rows, sizeof(row), (unsigned)n, NULL);
}
INLINE int claim(struct producer *p, int n, void **base) /* up to the ring's end */
{
    struct rte_ring_zc_data at;
    unsigned got = rte_ring_enqueue_zc_burst_elem_start(p->ring, sizeof(row), (unsigned)n, &at, NULL);
    *base = at.ptr1;
    return got ? (int)at.n1 : 0;
}
INLINE void publish(struct producer *p, int n) { rte_ring_enqueue_zc_elem_finish(p->ring, (unsigned)n); }
INLINE int peek(struct consumer *c, int max, const void **base)
{
    struct rte_ring_zc_data at;
    unsigned got = rte_ring_dequeue_zc_burst_elem_start(c->ring, sizeof(row), (unsigned)max, &at, NULL);
    *base = at.ptr1;
    return got ? (int)at.n1 : 0;
}
INLINE bool release(struct consumer *c, int n)
{
    rte_ring_dequeue_zc_elem_finish(c->ring, (unsigned)n);
    return true;
}
#define row_at(handle, base, i) ((row *)(base) + (i))
#endif
#include "../main.h"
