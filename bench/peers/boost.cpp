/* boost.cpp - boost::lockfree::spsc_queue, its memory shared. */
#include "../bench.h"
#include <boost/lockfree/spsc_queue.hpp>

template <typename T> struct shared_allocator {
    typedef T value_type;
    template <typename U> struct rebind { typedef shared_allocator<U> other; };
    shared_allocator() {}
    template <typename U> shared_allocator(const shared_allocator<U> &) {}
    T *allocate(size_t n) { return static_cast<T *>(shared_memory(n * sizeof(T))); }
    void deallocate(T *, size_t) {}
};
typedef boost::lockfree::spsc_queue<row, boost::lockfree::allocator<shared_allocator<row>>> queue;

struct shared { queue *q; };
struct producer { queue *q; };
struct consumer { queue *q; };
#define CAN_STREAM
#define CAN_PROCESSES
#define ANY_CAPACITY

static void shared_open(struct shared *s, const struct setup *o, int) { s->q = new (shared_memory(sizeof(queue))) queue(o->capacity); }
static void producer_open(struct producer *p, struct shared *s) { p->q = s->q; }
static void consumer_open(struct consumer *c, struct shared *s) { c->q = s->q; }
static void producer_close(struct producer *) {}
static void consumer_close(struct consumer *) {}
static void shared_close(struct shared *) {}

INLINE int push(struct producer *p, const row *rows, int n)
{
    if (__builtin_constant_p(n) && n == 1) return p->q->push(*rows);
    return (int)p->q->push(rows, (size_t)n);
}
INLINE int pop(struct consumer *c, row *rows, int max)
{
    if (__builtin_constant_p(max) && max == 1) return c->q->pop(*rows);
    return (int)c->q->pop(rows, (size_t)max);
}
#include "../main.h"
