/* ck.c - ConcurrencyKit's ck_ring, its memory shared: one producer, and several. */
#include "../bench.h"
#include <ck_ring.h>
CK_RING_PROTOTYPE(row, row)

struct shared { ck_ring_t ring; row *rows; };
struct producer { struct shared *s; ck_ring_t *ring; row *rows; };
struct consumer { struct shared *s; ck_ring_t *ring; row *rows; };
#define CAN_STREAM
#define CAN_PROCESSES
#define CAN_PRODUCERS
#define ROW_BY_ROW
#define ANY_CAPACITY

static void shared_open(struct shared *s, const struct setup *o, int channel)
{
    (void)channel;
    s->rows = (row *)shared_memory(o->capacity * sizeof(row));
    ck_ring_init(&s->ring, (unsigned)o->capacity);
}
static void producer_open(struct producer *p, struct shared *s) { *p = (struct producer){ s, &s->ring, s->rows }; }
static void consumer_open(struct consumer *c, struct shared *s) { *c = (struct consumer){ s, &s->ring, s->rows }; }
static void producer_close(struct producer *p) { (void)p; }
static void consumer_close(struct consumer *c) { (void)c; }
static void shared_close(struct shared *s) { (void)s; }

INLINE int push(struct producer *p, const row *rows, int n)
{
    row one = *rows;
    (void)n;
    return ck_ring_enqueue_spsc_row(p->ring, p->rows, &one);
}
INLINE int push_many(struct producer *p, const row *rows, int n)
{
    row one = *rows;
    (void)n;
    return ck_ring_enqueue_mpsc_row(p->ring, p->rows, &one);
}
INLINE int pop(struct consumer *c, row *rows, int max)
{
    (void)max;
    return ck_ring_dequeue_spsc_row(c->ring, c->rows, rows); /* the same for many producers */
}
#include "../main.h"
