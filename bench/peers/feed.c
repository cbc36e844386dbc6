/* feed.c - the producer of the Python cases: `feed NAME CAPACITY MS` fills a ring of 4 float64 with rows and then, when it reads
 * a byte, goes on in calls of 256 rows for MS ms, as fast as it can; it prints how many rows there were, and removes the ring
 * when its input ends. */
#define _GNU_SOURCE 1
#include "../../include/cbuf.h"
#include <stdio.h>
#include <stdlib.h>

struct values { double a, b, c, d; };

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t write_some(cbuf_ring *ring, uint64_t i)
{
    struct values rows[256];
    for (int k = 0; k < 256; k++) rows[k].a = rows[k].b = rows[k].c = rows[k].d = (double)(i + (uint64_t)k);
    if (cbuf_write_n(ring, rows, 256) != 256) exit(1);
    return i + 256;
}

int main(int argc, char **argv)
{
    static const cbuf_column columns[] = { CBUF_COLUMN(struct values, a), CBUF_COLUMN(struct values, b),
        CBUF_COLUMN(struct values, c), CBUF_COLUMN(struct values, d) };
    static cbuf_ring ring;
    uint64_t i = 0, capacity = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    int64_t milliseconds = argc > 3 ? strtoll(argv[3], NULL, 10) : 0;
    cbuf_options options = { .name = argc > 1 ? argv[1] : NULL, .capacity = capacity, .row_bytes = sizeof(struct values),
        .columns = columns, .column_count = 4, .layout = CBUF_DENSE, .existing = CBUF_REPLACE };
    if (cbuf_create(&ring, &options) < 0) return fprintf(stderr, "%s\n", cbuf_error(&ring)), 1;
    while (i < 2 * capacity) i = write_some(&ring, i);
    printf("%llu\n", (unsigned long long)i), fflush(stdout);
    while (getchar() != EOF) {
        for (int64_t end = now_ns() + milliseconds * 1000000; now_ns() < end;) i = write_some(&ring, i);
        printf("%llu\n", (unsigned long long)i), fflush(stdout);
    }
    cbuf_close(&ring);
    cbuf_remove(options.name);
    return 0;
}
