/* Makes a pool and a ring whose rows own payloads, for test_pool.py:
 *
 *   pool_writer POOL RING
 *
 * The ring has 4 rows. Each line of the input is an order, each gets a line of output:
 *   w BYTES TYPE   write a row with a new payload, byte k of which is (TYPE + k) mod 256: its ref
 *   h              how many slots are held
 *   r              give back what the dead held: how many references
 *   q              remove both */
#include <cbuf_pool.h>

#include <stdio.h>
#include <stdlib.h>

struct row {
    uint64_t number;
    cbuf_ref payload;
};
static const cbuf_column columns[] = { CBUF_COLUMN(struct row, number), CBUF_COLUMN_AS(struct row, payload, CBUF_REF) };

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "pool_writer: %s: %s\n", what, why);
    exit(1);
}

static void write_row(cbuf_pool *pool, cbuf_pool_ring *rows, uint64_t bytes, uint32_t type)
{
    struct row row = { cbuf_head(rows->ring), 0 };
    if (cbuf_pool_allocate(pool, bytes, type, &row.payload)) fail("allocate", cbuf_pool_error(pool));
    unsigned char *data = cbuf_pool_data(pool, row.payload);
    for (uint64_t k = 0; k < bytes; k++) data[k] = (unsigned char)(type + k);
    if (cbuf_pool_write(rows, &row) != 1) fail("write", "refused");
    printf("%llu\n", (unsigned long long)row.payload);
}
static void print_held(const cbuf_pool *pool)
{
    uint32_t holders;
    int held = 0;
    for (cbuf_ref ref = 0; (ref = cbuf_pool_next_held(pool, ref, &holders)) != 0;) held++;
    printf("%d\n", held);
}

int main(int argc, char **argv)
{
    static cbuf_pool pool;
    static cbuf_ring ring;
    static cbuf_pool_ring rows;
    char line[100];
    if (argc != 3) fail("usage", "pool_writer POOL RING");
    cbuf_pool_options options = { .name = argv[1], .holder = "camera", .count = { 8, 4, 0, 0, 2, 3 }, .max_holders = 4 };
    cbuf_options ring_options = { .name = argv[2], .capacity = 4, .columns = columns, .column_count = 2, .row_bytes = sizeof(struct row) };
    if (cbuf_pool_create(&pool, &options)) fail("pool", cbuf_pool_error(&pool));
    if (cbuf_create(&ring, &ring_options)) fail("ring", cbuf_error(&ring));
    if (cbuf_pool_ring_open(&rows, &pool, &ring)) fail("rows", cbuf_pool_error(&pool));
    printf("ready\n"), fflush(stdout);
    while (fgets(line, sizeof line, stdin) && line[0] != 'q') {
        char *at = line + 1;
        uint64_t bytes = strtoull(at, &at, 10);
        if (line[0] == 'w') write_row(&pool, &rows, bytes, (uint32_t)strtoul(at, NULL, 10));
        if (line[0] == 'h') print_held(&pool);
        if (line[0] == 'r') printf("%d\n", (int)cbuf_pool_reclaim(&pool));
        fflush(stdout);
    }
    cbuf_pool_ring_close(&rows);
    cbuf_close(&ring);
    cbuf_pool_close(&pool);
    cbuf_remove(argv[2]);
    cbuf_pool_remove(argv[1]);
    return 0;
}
