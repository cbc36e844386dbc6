/*
 * Many producers: four processes write into one ring, and one reads, once under each policy.
 *
 *   cc -std=c11 -O2 -Iinclude examples/many.c -o many && ./many
 *
 * A producer joins by cbuf_create with the same options as the others; each needs a handle of its
 * own, in a process or a thread of its own. Every row is delivered in its producer's order, and
 * what is not delivered is counted: lost (overwritten), dropped (refused), or given up: the fourth
 * process is killed with three rows claimed and not published, if there was room for them, and the
 * others give these up for it.
 *
 * SPDX-License-Identifier: MIT
 */
#include <cbuf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

enum { PRODUCERS = 4, EACH = 100000 };

struct event { uint64_t number; double value; uint32_t producer; };
CBUF_TYPED(event, struct event);
static const cbuf_column columns[] = { CBUF_COLUMN(struct event, number),
    CBUF_COLUMN(struct event, value), CBUF_COLUMN(struct event, producer) };

static void end(const char *what, const char *why)
{
    fprintf(stderr, "many: %s: %s\n", what, why);
    exit(1);
}

static void produce(const cbuf_options *options, uint32_t producer)
{
    cbuf_ring ring;
    if (cbuf_create(&ring, options) < 0) end("a producer", cbuf_error(&ring));
    for (uint64_t i = 0; i < EACH; i++) {
        struct event event = { i, (double)i / 2, producer };
        int written = event_write(&ring, &event); /* 0: dropped, and counted */
        if (written < 0) end("a write", cbuf_strerror(written));
        if (producer == 3 && i == EACH / 2) {
            cbuf_claim(&ring, 3, &(int64_t){ 0 });
            raise(SIGKILL);
        }
    }
    cbuf_close(&ring); /* the last one to do so tells the reader that no more will come */
}

/* Reads until the last producer has closed the ring, or died: then it is open, and another could
 * join. Returns how many rows. */
static uint64_t consume(const cbuf_ring *ring, cbuf_reader *reader)
{
    static struct event events[256];
    uint64_t next[PRODUCERS] = { 0 }, rows = 0;
    for (;;) {
        int alive = cbuf_producer_alive(ring); /* before the wait: what it wrote is seen after it */
        int64_t there = cbuf_wait(reader, 1, 1000000000);
        if (there < 0 || (!there && !alive)) break;
        int64_t n = event_read(reader, events, 256);
        for (int64_t i = 0; i < n; i++) {
            uint64_t *expected = &next[events[i].producer % PRODUCERS];
            if (events[i].number < *expected) end("a row", "out of its producer's order");
            *expected = events[i].number + 1;
        }
        if (n < 0) end("a read", cbuf_strerror(n));
        rows += (uint64_t)n;
    }
    return rows;
}

static void run(const char *policy, uint8_t on_full)
{
    cbuf_ring keeper, ring;
    cbuf_reader reader;
    cbuf_stats stats;
    cbuf_options options = { .name = "many_example", .capacity = 1024, .columns = columns,
        .column_count = 3, .row_bytes = sizeof(struct event), .in_place = true,
        .on_full = on_full, .producers = PRODUCERS + 1, .existing = CBUF_REPLACE };
    if (cbuf_create(&keeper, &options) < 0) end("create", cbuf_error(&keeper));
    options.existing = CBUF_RESUME; /* the others join */
    if (cbuf_attach(&ring, "many_example", NULL) < 0) end("attach", cbuf_error(&ring));
    if (cbuf_reader_open(&reader, &ring, NULL) < 0) end("reader", "not opened");
    for (uint32_t k = 0; k < PRODUCERS; k++)
        if (!fork()) {
            cbuf_close(&keeper); /* the parent's: a child must not keep its locks alive */
            produce(&options, k);
            _exit(0);
        }
    do cbuf_stats_get(&ring, &stats);
    while (stats.epoch < PRODUCERS + 1 && !sched_yield()); /* until all have joined */
    cbuf_close(&keeper);
    unsigned long long rows = consume(&ring, &reader);
    while (wait(NULL) > 0) {}
    cbuf_stats_get(&ring, &stats);
    printf("%-12s %7llu read, %6llu lost, %6llu dropped, %llu given up\n", policy, rows,
        (unsigned long long)cbuf_lost(&reader), (unsigned long long)stats.dropped,
        (unsigned long long)cbuf_skipped(&reader));
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    cbuf_remove("many_example");
}

int main(void)
{
    run("overwrite:", CBUF_OVERWRITE);     /* a slow reader loses the oldest rows */
    run("block:", CBUF_BLOCK);             /* the producers wait for it: nothing is lost */
    run("drop newest:", CBUF_DROP_NEWEST); /* rows for which there is no place are refused */
    return 0;
}
