/*
 * cbuf_columns.h - a ring by its columns: rows written from one array per column, and the row found
 * whose column has a value. A companion that cbuf.h takes in where it lies beside it; including
 * either gives both.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_H
#include "cbuf.h" /* which includes this file at its end */
#elif !defined CBUF_COLUMNS_H
#define CBUF_COLUMNS_H

typedef struct cbuf_array { /* the values of one column, as a plain array */
    const cbuf_column *column;
    const void *values;
} cbuf_array;
/* Writes n rows from one array per column; the bytes of other columns are zero. Rows of up to
 * 4,096 bytes. Returns as cbuf_write_n does. */
static inline int64_t cbuf_write_columns(
    cbuf_ring *ring, const cbuf_array *arrays, uint32_t count, uint64_t n);

/* Moves the reader's cursor to the first row that is still there and whose column is >= *value, a
 * value of the column's numeric type; the column must ascend over the rows. What is skipped does
 * not count as lost. 0, or CBUF_EINVAL. */
static inline int cbuf_seek_value(
    cbuf_reader *reader, const cbuf_column *column, const void *value);

/* ---- how ---- */

static inline int64_t cbuf_write_columns(
    cbuf_ring *ring, const cbuf_array *arrays, uint32_t count, uint64_t n)
{
    unsigned char row[4096];
    if (ring->row_bytes > sizeof row) return CBUF_EINVAL;
    for (uint32_t k = 0; k < count; k++) {
        const cbuf_column *column = arrays[k].column;
        uint64_t end = CBUF__AS(uint64_t, column->offset) + CBUF_TYPE_BYTES(column->type);
        if (end > ring->row_bytes) return CBUF_EINVAL;
    }
    memset(row, 0, ring->row_bytes);
    for (uint64_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < count; k++) {
            uint32_t bytes = CBUF_TYPE_BYTES(arrays[k].column->type);
            const unsigned char *values = CBUF__AS(const unsigned char *, arrays[k].values);
            memcpy(row + arrays[k].column->offset, values + cbuf__span(i, bytes), bytes);
        }
        int written = cbuf_write(ring, row);
        if (written > 0) continue;
        if (written == 0) cbuf__tally(ring, &ring->file->dropped, n - i - 1);
        return i ? CBUF__AS(int64_t, i) : written;
    }
    return CBUF__AS(int64_t, n);
}

/* A numeric value as an integer whose unsigned order is the type's order. Floats: the bits of all
 * negative ones turned round, the sign bit of the others set; NaN lies at the ends. */
CBUF__SLOW uint64_t cbuf__order_of(uint32_t type, const void *value)
{
    unsigned char wide[8] = { 0 };
    uint32_t bytes = CBUF_TYPE_BYTES(type), kind = type >> 24;
    memcpy(wide + (CBUF__LITTLE ? 0 : 8 - bytes), value, bytes);
    uint64_t bits = cbuf__get(wide), sign = CBUF__AS(uint64_t, 1) << (8 * bytes - 1);
    if (kind == 3 && bits == sign) bits = 0;
    if (kind == 3) return bits & sign ? ~bits & (sign | (sign - 1)) : bits | sign;
    return kind == 1 || kind == 5 ? bits ^ sign : bits;
}

static inline int cbuf_seek_value(
    cbuf_reader *reader, const cbuf_column *column, const void *value)
{
    const cbuf_ring *ring = reader->ring;
    uint32_t bytes = CBUF_TYPE_BYTES(column->type), kind = column->type >> 24;
    int error = cbuf__usable(ring, ring->row_bytes);
    if (error) return error;
    uint64_t end = CBUF__AS(uint64_t, column->offset) + bytes;
    if (kind < 1 || kind > 5 || bytes < 1 || bytes > 8 || end > ring->row_bytes)
        return CBUF_EINVAL;
    uint64_t low = cbuf_oldest(ring), high = cbuf_head(ring), wanted;
    wanted = cbuf__order_of(column->type, value);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2, row = middle;
        unsigned char field[8] = { 0 };
        while (ring->many && row < high && cbuf__is_aborted(ring, row)) row++;
        bool whole = row < high && cbuf__field(ring, row, column->offset, bytes, field);
        bool before = row < high && (!whole || cbuf__order_of(column->type, field) < wanted);
        if (before) low = row + 1;
        else high = middle;
    }
    return cbuf_seek(reader, low);
}

#endif /* CBUF_COLUMNS_H */
