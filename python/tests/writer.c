/* Writes rows that tell their sequence number, for test_live.py:
 *
 *   writer PATH LAYOUT CAPACITY BATCH COUNT
 *
 * LAYOUT is shared, numbered or dense; BATCH rows go into one call; COUNT rows are written, without end if it is 0. Makes
 * the ring or continues the one that is there, registers a reader named "risk" that has read 10 rows if there are so many,
 * prints a line, waits for one, writes, closes, and prints how many rows the ring has had. */
#include <cbuf.h>

#include <stdio.h>
#include <stdlib.h>

struct row {
    int64_t time;
    double price;
    uint64_t mixed;
    int32_t size;
};
static const cbuf_column columns[] = { CBUF_COLUMN_AS(struct row, time, CBUF_TIMESTAMP_NS), CBUF_COLUMN(struct row, price),
                                       CBUF_COLUMN(struct row, mixed), CBUF_COLUMN(struct row, size) };

static struct row row_of(uint64_t sequence)
{
    struct row row = { (int64_t)sequence * 1000, (double)sequence / 4, (sequence + 1) * 0x9e3779b97f4a7c15u, 0 };
    row.size = (int32_t)(row.mixed >> 32);
    return row;
}

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "writer: %s: %s\n", what, why);
    exit(1);
}

static void register_reader(const char *path, cbuf_ring *ring, cbuf_reader *reader)
{
    cbuf_reader_options options = { .name = "risk", .lossy = true };
    struct row rows[10];
    int error = cbuf_attach(ring, path, NULL);
    if (error) fail("attach", cbuf_error(ring));
    error = cbuf_reader_open(reader, ring, &options);
    if (error) fail("reader", cbuf_strerror(error));
    cbuf_read(reader, rows, 10);
}

int main(int argc, char **argv)
{
    static cbuf_ring ring, attached;
    static cbuf_reader reader;
    static struct row rows[65536];
    if (argc != 6) fail("usage", "writer PATH LAYOUT CAPACITY BATCH COUNT");
    uint64_t batch = strtoull(argv[4], NULL, 10), count = strtoull(argv[5], NULL, 10);
    cbuf_options options = { .name = argv[1], .capacity = strtoull(argv[3], NULL, 10), .columns = columns, .column_count = 4,
                             .row_bytes = sizeof(struct row) };
    options.layout = strcmp(argv[2], "dense") ? CBUF_NUMBERED : CBUF_DENSE;
    options.in_place = !strcmp(argv[2], "numbered");
    if (batch < 1 || batch > 65536) fail("batch", "must be 1 to 65536");
    if (cbuf_create(&ring, &options)) fail("create", cbuf_error(&ring));
    register_reader(argv[1], &attached, &reader);
    printf("ready\n"), fflush(stdout);
    if (getchar() == EOF) return 1;
    uint64_t next = cbuf_head(&ring), end = count ? next + count : UINT64_MAX;
    while (next < end) {
        uint64_t n = end - next < batch ? end - next : batch;
        for (uint64_t i = 0; i < n; i++) rows[i] = row_of(next + i);
        int64_t written = batch == 1 ? cbuf_write(&ring, rows) : cbuf_write_n(&ring, rows, n);
        if (written != (int64_t)n) fail("write", cbuf_strerror(written));
        next += n;
    }
    cbuf_reader_close(&reader);
    cbuf_close(&attached);
    cbuf_close(&ring);
    printf("%llu\n", (unsigned long long)next);
    return 0;
}
