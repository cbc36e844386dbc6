/* Makes a pool and a ring whose rows own payloads, for test_pool.py:
 *
 *   pool_writer POOL RING [PRODUCERS]
 *
 * The ring has 4 rows; of several producers each writes a row in turn. Each line of the input is an order, each gets a line of output:
 *   w BYTES TYPE   write a row with a new payload, byte k of which is (TYPE + k) mod 256: its ref
 *   h              how many slots are held
 *   d              a process begins to write a row of several producers, and dies: its entry
 *   r              give back what the dead held: how many references
 *   q              remove both */
#include <cbuf_pool.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

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
static uint32_t begin_to_write_and_die(const char *pool_name, const char *ring_name)
{
    static cbuf_pool pool;
    static cbuf_ring ring;
    static cbuf_pool_ring rows;
    cbuf_options options = { .name = ring_name, .capacity = 4, .columns = columns, .column_count = 2, .row_bytes = sizeof(struct row), .producers = 4 };
    cbuf_ref ref;
    int status;
    pid_t child = fork();
    if (child) return waitpid(child, &status, 0) == child && WIFEXITED(status) ? (uint32_t)WEXITSTATUS(status) : 255;
    if (cbuf_pool_attach(&pool, pool_name, NULL) || cbuf_create(&ring, &options) || cbuf_pool_ring_open(&rows, &pool, &ring)) _exit(254);
    if (cbuf_pool_allocate(&pool, 5, 1, &ref) || cbuf__give_in(&rows, ref)) _exit(253);
    _exit((int)pool.self.index);
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
    enum { MOST = 3 };
    static cbuf_pool pools[MOST], *pool = pools;
    static cbuf_ring rings[MOST];
    static cbuf_pool_ring rows[MOST];
    char line[100];
    unsigned producers = argc == 4 ? (unsigned)atoi(argv[3]) : 1, turn = 0;
    if (argc < 3 || producers < 1 || producers > MOST) fail("usage", "pool_writer POOL RING [PRODUCERS]");
    cbuf_pool_options options = { .name = argv[1], .holder = "camera", .count = { 8, 4, 0, 0, 2, 3 }, .max_holders = 3 + producers };
    cbuf_options ring_options = { .name = argv[2], .capacity = 4, .columns = columns, .column_count = 2, .row_bytes = sizeof(struct row), .producers = producers > 1 ? 4 : 0 };
    for (unsigned p = 0; p < producers; p++) {
        if (cbuf_pool_create(&pools[p], &options)) fail("pool", cbuf_pool_error(&pools[p]));
        if (cbuf_create(&rings[p], &ring_options)) fail("ring", cbuf_error(&rings[p]));
        if (cbuf_pool_ring_open(&rows[p], &pools[p], &rings[p])) fail("rows", cbuf_pool_error(&pools[p]));
    }
    printf("ready\n"), fflush(stdout);
    while (fgets(line, sizeof line, stdin) && line[0] != 'q') {
        char *at = line + 1;
        uint64_t bytes = strtoull(at, &at, 10);
        unsigned p = turn++ % producers;
        if (line[0] == 'w') write_row(&pools[p], &rows[p], bytes, (uint32_t)strtoul(at, NULL, 10));
        if (line[0] == 'h') print_held(pool);
        if (line[0] == 'd') printf("%u\n", begin_to_write_and_die(argv[1], argv[2]));
        if (line[0] == 'r') printf("%d\n", (int)cbuf_pool_reclaim(pool));
        fflush(stdout);
    }
    for (unsigned p = 0; p < producers; p++) {
        cbuf_pool_ring_close(&rows[p]);
        cbuf_close(&rings[p]);
        cbuf_pool_close(&pools[p]);
    }
    cbuf_remove(argv[2]);
    cbuf_pool_remove(argv[1]);
    return 0;
}
