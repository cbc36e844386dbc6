/* Several producers of one ring, told what to do line by line, for test_many.py:
 *
 *   many_writer PATH CAPACITY PRODUCERS ON_FULL
 *
 * Joins the ring, or makes it, with two handles, 0 and 1. Each line of its input is a command, answered by a line with a number:
 *
 *   w K N    handle K writes N rows: how many it wrote      c K N    it claims N rows and fills them in: how many
 *   p K N    it publishes N rows of its claim               r P N    P threads, each with a handle of its own, write N rows
 *   q        closes all, and ends                                    each: how many were claimed in all */
#include <cbuf.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct row {
    int64_t time;
    uint64_t n, mixed;
    uint32_t producer;
};
static const cbuf_column columns[] = { CBUF_COLUMN_AS(struct row, time, CBUF_TIMESTAMP_NS), CBUF_COLUMN(struct row, n),
                                       CBUF_COLUMN(struct row, mixed), CBUF_COLUMN(struct row, producer) };
static cbuf_options options;

struct producer {
    cbuf_ring ring;
    uint32_t number;
    uint64_t next, count, claimed;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "many_writer: %s: %s\n", what, why);
    exit(1);
}
static struct row next_row(struct producer *p)
{
    struct row row = { (int64_t)p->next * 1000, p->next, 0, p->number };
    row.mixed = (p->next * 256 + p->number + 1) * 0x9e3779b97f4a7c15u;
    p->next++;
    return row;
}
static void join(struct producer *p, uint32_t number)
{
    p->number = number;
    p->next = 0;
    if (cbuf_create(&p->ring, &options)) fail("create", cbuf_error(&p->ring));
}
static int64_t write_rows(struct producer *p, uint64_t n)
{
    struct row rows[64];
    int64_t written = 0, done = 1;
    while (n && done > 0) {
        uint64_t some = n < 64 ? n : 64;
        for (uint64_t k = 0; k < some; k++) rows[k] = next_row(p);
        done = cbuf_write_n(&p->ring, rows, some);
        written += done;
        n -= some;
    }
    return done < 0 ? done : written;
}
static int64_t claim(struct producer *p, uint32_t n)
{
    int64_t granted;
    char *to = cbuf_claim(&p->ring, n, &granted);
    for (int64_t k = 0; to && k < granted; k++) {
        struct row row = next_row(p);
        memcpy(to + (size_t)k * cbuf_stride(&p->ring), &row, sizeof row);
    }
    return granted;
}
/* Batches of growing size, of which each third is a claim that is published in part. */
static void *run(void *argument)
{
    struct producer *p = argument;
    for (uint64_t round = 0; p->claimed < p->count; round++) {
        uint64_t n = 1 + round % 50;
        if (round % 3 == 0) {
            int64_t granted = claim(p, (uint32_t)n);
            if (granted <= 0 || cbuf_publish(&p->ring, (uint32_t)granted / 2) < 0) fail("claim", cbuf_strerror(granted));
            p->claimed += (uint64_t)granted;
        } else {
            int64_t written = write_rows(p, n);
            if (written < 0) fail("write", cbuf_strerror(written));
            p->claimed += (uint64_t)written;
        }
    }
    cbuf_close(&p->ring);
    return NULL;
}
static long long run_all(uint32_t producers, uint64_t count)
{
    static struct producer all[64];
    pthread_t threads[64];
    long long claimed = 0;
    for (uint32_t k = 0; k < producers; k++) {
        join(&all[k], 2 + k);
        all[k].count = count;
        all[k].claimed = 0;
    }
    for (uint32_t k = 0; k < producers; k++) pthread_create(&threads[k], NULL, run, &all[k]);
    for (uint32_t k = 0; k < producers; k++) pthread_join(threads[k], NULL), claimed += (long long)all[k].claimed;
    return claimed;
}

int main(int argc, char **argv)
{
    static struct producer own[2];
    char command;
    if (argc != 5) fail("usage", "many_writer PATH CAPACITY PRODUCERS ON_FULL");
    options = (cbuf_options){ .name = argv[1], .capacity = strtoull(argv[2], NULL, 10), .columns = columns, .column_count = 4,
                              .row_bytes = sizeof(struct row), .in_place = true };
    options.producers = (uint32_t)strtoul(argv[3], NULL, 10);
    options.on_full = (uint8_t)strtoul(argv[4], NULL, 10);
    join(&own[0], 0);
    join(&own[1], 1);
    printf("0\n"), fflush(stdout);
    while (scanf(" %c", &command) == 1 && command != 'q') {
        unsigned k, n;
        if (scanf("%u %u", &k, &n) != 2) fail("command", "is not one");
        long long result = 0;
        if (command == 'w') result = write_rows(&own[k], n);
        if (command == 'c') result = claim(&own[k], n);
        if (command == 'p') result = cbuf_publish(&own[k].ring, n);
        if (command == 'r') result = run_all(k, n);
        printf("%lld\n", result), fflush(stdout);
    }
    cbuf_close(&own[0].ring);
    cbuf_close(&own[1].ring);
    printf("0\n");
    return 0;
}
