/* lim.c - the limit: the simplest ring for batches. Two counters, a memcpy on each side, nothing checked. */
#include "../bench.h"

struct shared {
    uint64_t head __attribute__((aligned(LINE)));
    uint64_t tail __attribute__((aligned(LINE)));
    row *rows __attribute__((aligned(LINE)));
    uint64_t mask;
};
struct producer { struct shared *s; row *rows; uint64_t mask, head, tail; };
struct consumer { struct shared *s; const row *rows; uint64_t mask, head, tail; };
#define CAN_STREAM
#define CAN_PROCESSES
#define CAN_IN_PLACE
#define ANY_CAPACITY

static void shared_open(struct shared *s, const struct setup *o, int channel)
{
    (void)channel;
    s->rows = (row *)shared_memory(o->capacity * sizeof(row));
    s->mask = o->capacity - 1;
}
static void producer_open(struct producer *p, struct shared *s) { *p = (struct producer){ s, s->rows, s->mask, 0, 0 }; }
static void consumer_open(struct consumer *c, struct shared *s) { *c = (struct consumer){ s, s->rows, s->mask, 0, 0 }; }
static void producer_close(struct producer *p) { (void)p; }
static void consumer_close(struct consumer *c) { (void)c; }
static void shared_close(struct shared *s) { (void)s; }

/* Room for up to n rows, in one piece. */
INLINE int claim(struct producer *p, int n, void **base)
{
    uint64_t capacity = p->mask + 1, at = p->head & p->mask, most = (uint64_t)n < capacity - at ? (uint64_t)n : capacity - at;
    if (p->head - p->tail + most > capacity) {
        p->tail = __atomic_load_n(&p->s->tail, __ATOMIC_ACQUIRE);
        if (p->head - p->tail + most > capacity) return 0;
    }
    *base = p->rows + at;
    return (int)most;
}
INLINE void publish(struct producer *p, int n)
{
    p->head += (uint64_t)n;
    __atomic_store_n(&p->s->head, p->head, __ATOMIC_RELEASE);
}
INLINE int peek(struct consumer *c, int max, const void **base)
{
    uint64_t at = c->tail & c->mask;
    if (c->head - c->tail < (uint64_t)max) c->head = __atomic_load_n(&c->s->head, __ATOMIC_ACQUIRE);
    uint64_t n = c->head - c->tail, left = c->mask + 1 - at;
    if (n > (uint64_t)max) n = (uint64_t)max;
    *base = c->rows + at;
    return (int)(n < left ? n : left);
}
INLINE bool release(struct consumer *c, int n)
{
    c->tail += (uint64_t)n;
    __atomic_store_n(&c->s->tail, c->tail, __ATOMIC_RELEASE);
    return true;
}
#define row_at(handle, base, i) ((row *)(base) + (i))

INLINE int push(struct producer *p, const row *rows, int n)
{
    void *base;
    n = claim(p, n, &base);
    if (!n) return 0;
    memcpy(base, rows, (size_t)n * sizeof(row));
    publish(p, n);
    return n;
}
INLINE int pop(struct consumer *c, row *rows, int max)
{
    const void *base;
    int n = peek(c, max, &base);
    if (!n) return 0;
    memcpy(rows, base, (size_t)n * sizeof(row));
    release(c, n);
    return n;
}

#include "../main.h"
