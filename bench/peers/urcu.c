/* urcu.c - liburcu's wfcqueue, a list of nodes without an end: each producer has a ring of them, and the consumer tells it how
 * many it may use again, which bounds the queue. */
#define _LGPL_SOURCE
#include "../bench.h"
#include <urcu/wfcqueue.h>

struct node { struct cds_wfcq_node link; row row; uint32_t producer; };
struct shared {
    struct __cds_wfcq_head head __attribute__((aligned(LINE)));
    struct cds_wfcq_tail tail __attribute__((aligned(LINE)));
    struct { uint64_t freed __attribute__((aligned(LINE))); } of[MAX_SIDES];
    uint32_t producers __attribute__((aligned(LINE)));
    struct node *nodes[MAX_SIDES];
    uint64_t capacity;
};
struct producer { struct shared *s; struct node *nodes; uint64_t sent, freed, capacity; uint32_t number; };
struct consumer { struct shared *s; uint64_t got[MAX_SIDES]; };
#define CAN_STREAM
#define CAN_PRODUCERS
#define CAN_PROCESSES
#define ROW_BY_ROW
#define ANY_CAPACITY

static void shared_open(struct shared *s, const struct setup *o, int channel)
{
    (void)channel;
    s->capacity = o->capacity;
    __cds_wfcq_init(&s->head, &s->tail);
    for (int k = 0; k < o->producers; k++) s->nodes[k] = (struct node *)shared_memory(o->capacity * sizeof(struct node));
}
static void producer_open(struct producer *p, struct shared *s)
{
    uint32_t number = s->producers++;
    *p = (struct producer){ s, s->nodes[number], 0, 0, s->capacity, number };
}
static void consumer_open(struct consumer *c, struct shared *s) { *c = (struct consumer){ s, { 0 } }; }
static void producer_close(struct producer *p) { (void)p; }
static void consumer_close(struct consumer *c) { (void)c; }
static void shared_close(struct shared *s) { (void)s; }

INLINE int push(struct producer *p, const row *rows, int n)
{
    (void)n;
    if (p->sent - p->freed == p->capacity) {
        p->freed = __atomic_load_n(&p->s->of[p->number].freed, __ATOMIC_ACQUIRE);
        if (p->sent - p->freed == p->capacity) return 0;
    }
    struct node *node = &p->nodes[p->sent++ & (p->capacity - 1)];
    node->row = *rows, node->producer = p->number;
    cds_wfcq_node_init(&node->link);
    cds_wfcq_enqueue(&p->s->head, &p->s->tail, &node->link);
    return 1;
}
INLINE int push_many(struct producer *p, const row *rows, int n) { return push(p, rows, n); }
INLINE int pop(struct consumer *c, row *rows, int max)
{
    (void)max;
    struct cds_wfcq_node *link = __cds_wfcq_dequeue_nonblocking(&c->s->head, &c->s->tail);
    if (!link || link == CDS_WFCQ_WOULDBLOCK) return 0;
    struct node *node = caa_container_of(link, struct node, link);
    *rows = node->row;
    __atomic_store_n(&c->s->of[node->producer].freed, ++c->got[node->producer], __ATOMIC_RELEASE);
    return 1;
}
#include "../main.h"
