/*
 * A pipeline of processes that pass payloads of any size without copying them: ingest takes events
 * in; three actors get each of them: one chains hashes, one packs segments, one indexes words; all
 * three emit events of their own into one ring, and a collector gets these derived events. Fixed
 * rows go through rings, what they carry lies in a pool, and a slot is free again when the last of
 * them has given it back.
 * After rusted-ring's example of multi-actor event processing.
 *
 *   cc -std=c11 -O2 -Iinclude examples/pipeline.c -o pipeline
 *   ./pipeline
 *
 * Nothing is lost: the rings block. At the end every slot of the pool is free.
 *
 * SPDX-License-Identifier: MIT
 */
#include <cbuf_pool.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { EVENTS = 20000, SEGMENT = 32, ACTORS = 3 };
enum { TEXT, HASHES, SEGMENTS, WORDS }; /* types of payloads: of ingest, and of each actor */

struct event {
    int64_t time;
    uint64_t number;
    cbuf_ref payload;
    uint32_t actor;
};
static const cbuf_column columns[] = { CBUF_COLUMN_AS(struct event, time, CBUF_TIMESTAMP_NS),
    CBUF_COLUMN(struct event, number), CBUF_COLUMN_AS(struct event, payload, CBUF_REF),
    CBUF_COLUMN(struct event, actor) };
static char pool_name[64], events_name[64], derived_name[64];

static _Noreturn void fail(const char *what, const char *why)
{
    fprintf(stderr, "pipeline: %s: %s\n", what, why);
    _exit(1);
}
static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- what every process needs ---- */

struct source { /* a ring that is read, with the payloads of its rows */
    cbuf_pool pool;
    cbuf_ring ring;
    cbuf_reader reader;
};
static void open_source(struct source *s, const char *ring, const char *name)
{
    cbuf_pool_attach_options holder = { .holder = name };
    cbuf_reader_options options = { .name = name };
    if (cbuf_pool_attach(&s->pool, pool_name, &holder)) fail(name, cbuf_pool_error(&s->pool));
    while (cbuf_attach(&s->ring, ring, NULL) == CBUF_ENOENT) sched_yield(); /* made by an actor */
    int error = cbuf_reader_open(&s->reader, &s->ring, &options);
    if (error) fail(name, cbuf_strerror(error));
}
/* The next event, its payload held. False at the end. */
static bool next(struct source *s, struct event *event)
{
    const size_t at = offsetof(struct event, payload);
    int64_t ready = cbuf_wait(&s->reader, 1, CBUF_FOREVER);
    if (ready == CBUF_ECLOSED) return false;
    if (ready < 1 || cbuf_pool_read(&s->pool, &s->reader, event, at) != 1 || !event->payload)
        fail("reading", ready < 0 ? cbuf_strerror(ready) : "an event is missing");
    return true;
}
static void close_source(struct source *s)
{
    cbuf_reader_close(&s->reader);
    cbuf_close(&s->ring);
    cbuf_pool_close(&s->pool);
}

struct sink { /* a ring that is written; its rows own payloads */
    cbuf_ring ring;
    cbuf_pool_ring rows;
};
static void open_sink(struct sink *s, cbuf_pool *pool, const char *name, uint32_t producers)
{
    cbuf_options options = { .name = name, .capacity = 256, .row_bytes = sizeof(struct event),
        .columns = columns, .column_count = 4, .on_full = CBUF_BLOCK, .producers = producers };
    if (cbuf_create(&s->ring, &options)) fail(name, cbuf_error(&s->ring));
    if (cbuf_pool_ring_open(&s->rows, pool, &s->ring)) fail(name, cbuf_pool_error(pool));
}
static void await_readers(const struct sink *s, uint64_t n)
{
    cbuf_stats stats;
    do sched_yield();
    while (!cbuf_stats_get(&s->ring, &stats) && stats.readers < n);
}
/* What an actor derives goes to the collector, among what the others do. */
static void open_derived(struct sink *s, struct source *in)
{
    open_sink(s, &in->pool, derived_name, ACTORS);
    await_readers(s, 1);
}
/* Emits an event whose payload the caller holds, and gives away. */
static void emit(struct sink *s, uint64_t number, cbuf_ref payload, uint32_t actor)
{
    struct event event = { .time = now_ns(), .number = number, .payload = payload, .actor = actor };
    int written = cbuf_pool_write(&s->rows, &event);
    if (written != 1) fail("writing", cbuf_strerror(written));
}
/* Emits a number, in a payload of its own. */
static void derive(struct sink *s, cbuf_pool *pool, uint64_t number, uint64_t value, uint32_t type)
{
    cbuf_ref derived;
    if (cbuf_pool_put(pool, &value, sizeof value, type, &derived))
        fail("derive", cbuf_pool_error(pool));
    emit(s, number, derived, type);
}
static void close_sink(struct sink *s)
{
    cbuf_pool_ring_close(&s->rows); /* the rows keep their payloads, for who reads late */
    cbuf_close(&s->ring);
}

/* ---- the actors ---- */

static uint64_t hash_of(uint64_t hash, const unsigned char *data, uint64_t bytes) /* FNV-1a */
{
    for (uint64_t k = 0; k < bytes; k++) hash = (hash ^ data[k]) * 0x100000001b3u;
    return hash;
}

/* Chains hashes, and emits each. */
static int chain(void)
{
    static struct source in;
    static struct sink out;
    struct event event;
    uint64_t hash = 0xcbf29ce484222325u, n = 0;
    open_source(&in, events_name, "chain");
    open_derived(&out, &in);
    while (next(&in, &event)) {
        hash = hash_of(hash, cbuf_pool_data(&in.pool, event.payload),
            cbuf_pool_length(&in.pool, event.payload));
        cbuf_pool_release(&in.pool, event.payload);
        derive(&out, &in.pool, n++, hash, HASHES);
    }
    printf("chain:     %" PRIu64 " events, the last hash is %016" PRIx64 "\n", n, hash);
    close_sink(&out);
    close_source(&in);
    return n == EVENTS ? 0 : 1;
}

/* Packs events into segments; a segment keeps its payloads until it is full. Emits its size. */
static int segment(void)
{
    static struct source in;
    static struct sink out;
    struct event event, kept[SEGMENT];
    uint64_t n = 0, segments = 0, bytes = 0;
    open_source(&in, events_name, "segment");
    open_derived(&out, &in);
    while (next(&in, &event)) {
        kept[n++ % SEGMENT] = event;
        if (n % SEGMENT) continue;
        for (int k = 0; k < SEGMENT; k++) {
            bytes += cbuf_pool_length(&in.pool, kept[k].payload);
            cbuf_pool_release(&in.pool, kept[k].payload);
        }
        derive(&out, &in.pool, segments++, bytes, SEGMENTS);
    }
    printf("segment:   %" PRIu64 " segments of %d events, %" PRIu64 " bytes\n", segments,
        SEGMENT, bytes);
    close_sink(&out);
    close_source(&in); /* gives back what an unfinished segment has */
    return n == EVENTS ? 0 : 1;
}

/* Counts words, and emits the count of each event. */
static int words(void)
{
    static struct source in;
    static struct sink out;
    struct event event;
    uint64_t n = 0, found = 0;
    open_source(&in, events_name, "index");
    open_derived(&out, &in);
    while (next(&in, &event)) {
        const char *text = cbuf_pool_data(&in.pool, event.payload);
        uint64_t length = cbuf_pool_length(&in.pool, event.payload), here = 0;
        for (uint64_t k = 0; k < length; k++) here += text[k] == ' ';
        cbuf_pool_release(&in.pool, event.payload);
        derive(&out, &in.pool, n++, here, WORDS);
        found += here;
    }
    printf("index:     %" PRIu64 " events, %" PRIu64 " words\n", n, found);
    close_sink(&out);
    close_source(&in);
    return n == EVENTS ? 0 : 1;
}

/* Gets what all three derive, each in its order. */
static int collect(void)
{
    static struct source in;
    struct event event;
    uint64_t n[ACTORS + 1] = { 0 }, last[ACTORS + 1] = { 0 };
    open_source(&in, derived_name, "collector");
    while (next(&in, &event)) {
        uint32_t type = cbuf_pool_type(&in.pool, event.payload);
        if (type < HASHES || type > WORDS || event.actor != type || event.number != n[type]++)
            fail("collector", "not the event that was to come");
        memcpy(&last[type], cbuf_pool_data(&in.pool, event.payload), sizeof last[type]);
        cbuf_pool_release(&in.pool, event.payload);
    }
    printf("collector: %" PRIu64 " derived events, the last hash is %016" PRIx64 ", %" PRIu64
           " bytes in segments\n",
        n[HASHES] + n[SEGMENTS] + n[WORDS], last[HASHES], last[SEGMENTS]);
    close_source(&in);
    return n[HASHES] == EVENTS && n[SEGMENTS] == EVENTS / SEGMENT && n[WORDS] == EVENTS ? 0 : 1;
}

/* ---- ingest ---- */

/* Texts of 20 to 1,000 bytes; every 100th of 10,000, every 1,000th of 50,000. */
static uint64_t text_of(char *to, uint64_t number)
{
    uint64_t bytes = 20 + number * 7919 % 981;
    if (number % 100 == 99) bytes = 10000;
    if (number % 1000 == 999) bytes = 50000;
    for (uint64_t k = 0; k < bytes; k++)
        to[k] = k % 6 == 5 ? ' ' : (char)('a' + (number + k) % 26);
    return bytes;
}
static void ingest(cbuf_pool *pool)
{
    static struct sink out;
    static char text[50000];
    open_sink(&out, pool, events_name, 1);
    await_readers(&out, ACTORS);
    for (uint64_t number = 0; number < EVENTS; number++) {
        cbuf_ref payload;
        uint64_t bytes = text_of(text, number);
        int error;
        while ((error = cbuf_pool_put(pool, text, bytes, TEXT, &payload)) == CBUF_EEMPTY)
            sched_yield(); /* until the actors have given something back */
        if (error) fail("ingest", cbuf_pool_error(pool));
        emit(&out, number, payload, 0);
    }
    close_sink(&out);
}

/* What is still held, once the rings are gone. */
static uint64_t left_over(cbuf_pool *pool)
{
    uint64_t held = 0;
    cbuf_remove(events_name);
    cbuf_remove(derived_name);
    cbuf_pool_reclaim(pool); /* what their rows owned */
    for (int kind = CBUF_XS; kind <= CBUF_XXL; kind++) {
        cbuf_pool_stats stats;
        cbuf_pool_stats_get(pool, (enum cbuf_pool_class)kind, &stats);
        held += stats.held;
    }
    return held;
}

int main(void)
{
    static cbuf_pool pool;
    int (*const actors[])(void) = { chain, segment, words, collect };
    int failed = 0, status;
    snprintf(pool_name, sizeof pool_name, "cbuf_pipeline_%d", (int)getpid());
    snprintf(events_name, sizeof events_name, "cbuf_pipeline_%d_events", (int)getpid());
    snprintf(derived_name, sizeof derived_name, "cbuf_pipeline_%d_derived", (int)getpid());
    cbuf_pool_options options = { .name = pool_name, .holder = "ingest" };
    pid_t ours = getpid(), child;
    if (cbuf_pool_create(&pool, &options)) fail("pool", cbuf_pool_error(&pool));
    cbuf_pool_close(&pool); /* what is open would be open in the actors too */
    for (int k = 0; k < 4; k++) {
        if ((child = fork()) < 0) fail("fork", "failed");
        if (child) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        status = getppid() == ours ? actors[k]() : 1;
        fflush(stdout);
        _exit(status);
    }
    if (cbuf_pool_create(&pool, &options)) fail("pool", cbuf_pool_error(&pool));
    ingest(&pool);
    while (wait(&status) > 0) failed |= status;
    uint64_t held = left_over(&pool);
    printf("ingest:    %d events; %" PRIu64 " slots of the pool are still held\n", EVENTS, held);
    cbuf_pool_close(&pool);
    cbuf_pool_remove(pool_name);
    return failed || held ? 1 : 0;
}
