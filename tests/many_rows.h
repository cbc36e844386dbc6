/* many_rows.h - what the tests of several producers share: rows that tell who wrote them, and which
 * of his they are; rings of such rows. */
#ifndef MANY_ROWS_H
#define MANY_ROWS_H

#include "process.h"

struct row {
    uint64_t n, words[3];
    uint32_t producer, left; /* left: of a claim, so many rows behind this one */
    uint32_t padding[2];     /* no column: room for the row's number on every machine */
};
typedef struct row a_row;
static const cbuf_column row_columns[] = { CBUF_COLUMN(a_row, n),
    { "words", CBUF_BYTES(24), (uint32_t)offsetof(a_row, words) }, CBUF_COLUMN(a_row, producer),
    CBUF_COLUMN(a_row, left) };

static inline struct row row_of(uint32_t producer, uint64_t n)
{
    struct row made;
    uint64_t seed = n * 31 + producer;
    memset(&made, 0, sizeof made);
    made.n = n;
    for (int k = 0; k < 3; k++) made.words[k] = next_random(&seed);
    made.producer = producer;
    return made;
}
static inline bool is_whole(const struct row *row)
{
    struct row wanted = row_of(row->producer, row->n);
    return !memcmp(row->words, wanted.words, sizeof wanted.words);
}

/* Of a ring for four producers. */
static inline cbuf_options options_of(const char *name, uint8_t on_full, uint64_t capacity)
{
    cbuf_options options;
    memset(&options, 0, sizeof options);
    options.name = name;
    options.capacity = capacity;
    options.columns = row_columns;
    options.column_count = 4;
    options.row_bytes = sizeof(struct row);
    options.on_full = on_full;
    options.producers = 4;
    return options;
}
static inline void create(cbuf_ring *ring, const cbuf_options *options)
{
    int error = cbuf_create(ring, options);
    CHECK_IS_FOR(cbuf_error(ring), error, 0);
}
static inline cbuf_stats stats_of(const cbuf_ring *ring)
{
    cbuf_stats stats;
    CHECK_IS(cbuf_stats_get(ring, &stats), 0);
    return stats;
}

#endif
