/* A ring with delta columns as a library, for test_delta.py: rows come as bytes and are written by cbuf.h.
 *
 *   make_ring(path, dense, capacity, block, bits)   dense: 0 or 1, or 2 with rows padded to 64 bytes; bits: of all delta
 *                                                   columns, or as many as the column has
 *   write_rows(ring, rows, n)                       n, or what cbuf says
 *   end_ring(ring) */
#include <cbuf.h>

#include <stdlib.h>

enum { PADDED = 2 };
struct row {
    int64_t time, i64;
    uint64_t u64;
    double price;
    char text[5];
    int8_t i8;
    uint8_t u8;
    int16_t i16;
    uint16_t u16;
    int32_t i32;
    uint32_t u32;
    float small;
    double other;
};
static const cbuf_column columns[] = { CBUF_COLUMN_AS(struct row, time, CBUF_TIMESTAMP_NS), CBUF_COLUMN(struct row, i64),
    CBUF_COLUMN(struct row, u64), CBUF_COLUMN(struct row, price), CBUF_COLUMN(struct row, text), CBUF_COLUMN(struct row, i8),
    CBUF_COLUMN(struct row, u8), CBUF_COLUMN(struct row, i16), CBUF_COLUMN(struct row, u16), CBUF_COLUMN(struct row, i32),
    CBUF_COLUMN(struct row, u32), CBUF_COLUMN(struct row, small), CBUF_COLUMN(struct row, other) };

void *make_ring(const char *path, int dense, unsigned capacity, unsigned block, unsigned bits);
int64_t write_rows(void *ring, const void *rows, uint64_t n);
void end_ring(void *ring);

void *make_ring(const char *path, int dense, unsigned capacity, unsigned block, unsigned bits)
{
    cbuf_ring *ring = malloc(sizeof *ring);
    cbuf_delta deltas[13] = { 0 };
    uint32_t count = 0;
    for (size_t k = 0; k < 13; k++) {
        uint32_t bytes = CBUF_TYPE_BYTES(columns[k].type);
        if (!strcmp(columns[k].name, "text") || !strcmp(columns[k].name, "other")) continue;
        memcpy(deltas[count].name, columns[k].name, CBUF_NAME_BYTES);
        deltas[count].bits = bits < 8 * bytes ? bits : 8 * bytes;
        deltas[count++].step = !strcmp(columns[k].name, "price") ? 0.01 : !strcmp(columns[k].name, "small") ? 0.5 : 0;
    }
    cbuf_options options = { .name = path, .capacity = capacity, .columns = columns, .column_count = 13,
        .row_bytes = sizeof(struct row), .layout = dense ? CBUF_DENSE : CBUF_NUMBERED, .reserve_step = 1, .deltas = deltas,
        .pad_rows = dense == PADDED, .delta_count = count, .block_rows = block, .existing = CBUF_REPLACE };
    if (!cbuf_create(ring, &options)) return ring;
    fprintf(stderr, "%s\n", cbuf_error(ring));
    return free(ring), NULL;
}
int64_t write_rows(void *ring, const void *rows, uint64_t n) { return cbuf_write_n(ring, rows, n); }
void end_ring(void *ring)
{
    cbuf_close(ring);
    free(ring);
}
