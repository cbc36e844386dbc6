/* concurrentqueue.cpp - moodycamel's ConcurrentQueue, with tokens. -DBLOCKING: its blocking one, for sleeping readers.
 *
 * It has no bound; here a producer first gets itself blocks for the ring's capacity, and then uses only the calls that allocate
 * nothing. */
#include "../bench.h"
#include <concurrentqueue/blockingconcurrentqueue.h>
#include <new>

struct traits : moodycamel::ConcurrentQueueDefaultTraits {
    static const size_t EXPLICIT_INITIAL_INDEX_SIZE = 65536 / 32; /* blocks that a producer can have without more allocation */
};
#ifdef BLOCKING
typedef moodycamel::BlockingConcurrentQueue<row, traits> queue;
#define CAN_SLEEP
#else
typedef moodycamel::ConcurrentQueue<row, traits> queue;
#define CAN_STREAM
#define CAN_PRODUCERS
#endif
struct shared { queue *q; };
struct producer { queue *q; alignas(moodycamel::ProducerToken) char token[sizeof(moodycamel::ProducerToken)]; };
struct consumer { queue *q; alignas(moodycamel::ConsumerToken) char token[sizeof(moodycamel::ConsumerToken)]; };
#define TOKEN(kind, handle) (*reinterpret_cast<moodycamel::kind *>((handle)->token))

static void shared_open(struct shared *s, const struct setup *o, int)
{
    s->q = new queue(o->capacity, (size_t)o->producers, 0);
}
static void producer_open(struct producer *p, struct shared *s)
{
    p->q = s->q;
    moodycamel::ProducerToken *token = new (p->token) moodycamel::ProducerToken(*s->q);
#ifndef BLOCKING
    row r = row();
    for (uint64_t i = 0; i < setup.capacity; i++) p->q->enqueue(*token, r);
    while (p->q->try_dequeue_from_producer(*token, r)) {}
#else
    (void)token;
#endif
}
static void consumer_open(struct consumer *c, struct shared *s) { c->q = s->q, new (c->token) moodycamel::ConsumerToken(*s->q); }
static void producer_close(struct producer *) {}
static void consumer_close(struct consumer *) {}
static void shared_close(struct shared *) {}

INLINE int push(struct producer *p, const row *rows, int n)
{
    if (__builtin_constant_p(n) && n == 1) return p->q->try_enqueue(TOKEN(ProducerToken, p), *rows);
    return p->q->try_enqueue_bulk(TOKEN(ProducerToken, p), rows, (size_t)n) ? n : 0;
}
INLINE int push_many(struct producer *p, const row *rows, int n) { return push(p, rows, n); }
#ifdef BLOCKING
INLINE int pop_wait(struct consumer *c, row *rows, int max)
{
    return (int)c->q->wait_dequeue_bulk_timed(TOKEN(ConsumerToken, c), rows, (size_t)max, 10000);
}
#else
INLINE int pop(struct consumer *c, row *rows, int max)
{
    if (__builtin_constant_p(max) && max == 1) return c->q->try_dequeue(TOKEN(ConsumerToken, c), *rows);
    return (int)c->q->try_dequeue_bulk(TOKEN(ConsumerToken, c), rows, (size_t)max);
}
#endif
#include "../main.h"
