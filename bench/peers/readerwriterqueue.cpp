/* readerwriterqueue.cpp - moodycamel's ReaderWriterQueue; -DBLOCKING: its blocking one, for sleeping readers. */
#include "../bench.h"
#include <readerwriterqueue/readerwriterqueue.h>

#ifdef BLOCKING
typedef moodycamel::BlockingReaderWriterQueue<row> queue;
#define CAN_SLEEP
#else
typedef moodycamel::ReaderWriterQueue<row> queue;
#define CAN_STREAM
#endif
struct shared { queue *q; };
struct producer { queue *q; };
struct consumer { queue *q; };
#define ROW_BY_ROW
#define ANY_CAPACITY

static void shared_open(struct shared *s, const struct setup *o, int) { s->q = new queue(o->capacity); }
static void producer_open(struct producer *p, struct shared *s) { p->q = s->q; }
static void consumer_open(struct consumer *c, struct shared *s) { c->q = s->q; }
static void producer_close(struct producer *) {}
static void consumer_close(struct consumer *) {}
static void shared_close(struct shared *s) { delete s->q; }

INLINE int push(struct producer *p, const row *rows, int) { return p->q->try_enqueue(*rows); }
#ifdef BLOCKING
INLINE int pop_wait(struct consumer *c, row *rows, int) { return c->q->wait_dequeue_timed(*rows, 10000); }
#else
INLINE int pop(struct consumer *c, row *rows, int) { return c->q->try_dequeue(*rows); }
#endif
#include "../main.h"
