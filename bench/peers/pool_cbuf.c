/* pool_cbuf.c - cbuf_pool.h by its public calls: the default pool, in a file; passed on by rows of a ring that blocks. */
#define _GNU_SOURCE 1
#include "../../include/cbuf_pool.h"
#include "../bench.h"

struct user { cbuf_pool pool; cbuf_ring ring; cbuf_reader reader; cbuf_pool_ring rows; };
typedef struct ref_row { cbuf_ref payload; uint32_t size; } ref_row;
static const cbuf_column columns[] = { CBUF_COLUMN_AS(ref_row, payload, CBUF_REF), CBUF_COLUMN(ref_row, size) };
#define CAN_POOL
#define CAN_HOLD 1
#define CAN_PASS

static const char *name_of(int which)
{
    static char names[2][64];
    snprintf(names[which], sizeof names[0], "cbuf_bench_%d_%d", (int)getpid(), which);
    return names[which];
}
static void user_open(struct user *u, int side)
{
    cbuf_pool_options options = { .name = name_of(0), .memory = { .populate = CBUF_REQUIRE } };
    cbuf_options ring = { .name = name_of(1), .capacity = 256, .row_bytes = sizeof(ref_row), .columns = columns, .column_count = 2,
        .on_full = CBUF_BLOCK, .memory = { .populate = CBUF_REQUIRE } };
    if (cbuf_pool_create(&u->pool, &options)) die("cbuf_pool_create", cbuf_pool_error(&u->pool));
    if (strcmp(setup.shape, "pool-pass")) return;
    if (side == 0 && cbuf_create(&u->ring, &ring)) die("cbuf_create", cbuf_error(&u->ring));
    if (side == 0 && cbuf_pool_ring_open(&u->rows, &u->pool, &u->ring)) die("cbuf_pool_ring_open", cbuf_pool_error(&u->pool));
    if (side == 1 && cbuf_attach(&u->ring, name_of(1), NULL)) die("cbuf_attach", cbuf_error(&u->ring));
    if (side == 1 && cbuf_reader_open(&u->reader, &u->ring, NULL)) die("cbuf_reader_open", "failed");
}
static void user_close(struct user *u)
{
    cbuf_reader_close(&u->reader);
    if (u->rows.pool) cbuf_pool_ring_drop(&u->rows);
    cbuf_close(&u->ring);
    cbuf_pool_close(&u->pool);
    cbuf_remove(name_of(1)); /* whoever is last */
    cbuf_pool_remove(name_of(0));
}
INLINE void *take(struct user *u, uint64_t *token)
{
    if (cbuf_pool_allocate(&u->pool, ROW_BYTES, 0, token)) die("cbuf_pool_allocate", cbuf_pool_error(&u->pool));
    return cbuf_pool_data(&u->pool, *token);
}
INLINE void hold(struct user *u, uint64_t token)
{
    if (cbuf_pool_retain(&u->pool, token)) die("cbuf_pool_retain", "refused");
}
INLINE void drop(struct user *u, uint64_t token)
{
    if (cbuf_pool_release(&u->pool, token) < 0) die("cbuf_pool_release", "refused");
}
INLINE void send(struct user *u, uint64_t token)
{
    ref_row one = { token, ROW_BYTES };
    if (cbuf_pool_write(&u->rows, &one) != 1) die("cbuf_pool_write", "refused");
}
INLINE void *receive(struct user *u, uint64_t *token)
{
    ref_row one;
    if (cbuf_pool_read(&u->pool, &u->reader, &one, offsetof(ref_row, payload)) != 1) return NULL;
    *token = one.payload;
    return cbuf_pool_data(&u->pool, one.payload);
}
#include "../main.h"
