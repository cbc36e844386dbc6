/* model_ring.h: what the model tests of cbuf.h share: a small ring in static memory, rows whose
 * every word tells which row it belongs to, and a reader that checks all that cbuf_read promises.
 * The accesses of cbuf.h go to the checker (model_access.h); otherwise it is the shipping header.
 */
#ifndef MODEL_RING_H
#define MODEL_RING_H

#define CBUF_ACCESS_HEADER "model_access.h"
#include "cbuf.h"

#include <stdio.h>

enum { MODEL_WORDS = 3, MODEL_ROWS = 4, MODEL_SEQUENCES = 32 };

/* Rows of one to three 8-byte columns; in the numbered layout each is followed by a word with its
 * number. With `shared` the last column has 4 bytes, and the row's number stands in the padding
 * behind it. */
struct model_shape {
    uint32_t words;
    bool shared;
};

static uint64_t model_memory[1024] __attribute__((aligned(128)));
static cbuf_ring model_ring;        /* the producer's handle */
static struct model_shape model_shape;
static unsigned model_tags[MODEL_SEQUENCES]; /* whose row was accepted under each number; 0: none */

/* A ring of that make, fresh. Making it takes long against an execution, so that what was made
 * first is kept and copied back: KEY tells one make from another. */
static inline void model_make_ring(const void *key, const cbuf_options *make,
                                   struct model_shape shape)
{
    static uint64_t kept_memory[1024];
    static cbuf_ring kept_ring;
    static const void *kept;
    cbuf_column columns[MODEL_WORDS] = { { .name = "a", .type = CBUF_UINT64, .offset = 0 },
                                         { .name = "b", .type = CBUF_UINT64, .offset = 8 },
                                         { .name = "c", .type = CBUF_UINT64, .offset = 16 } };
    memset(model_tags, 0, sizeof model_tags);
    if (kept != key) {
        cbuf_options options = *make;
        if (shape.shared)
            columns[shape.words - 1].type = CBUF_UINT32;
        options.columns = columns;
        options.column_count = shape.words;
        options.row_bytes = 8 * shape.words;
        if (options.max_readers == 0)
            options.max_readers = 1;
        memset(model_memory, 0, sizeof model_memory);
        int error = cbuf_create_in(&model_ring, model_memory, sizeof model_memory, &options);
        if (error != 0)
            puts(cbuf_error(&model_ring));
        checker_assert(error == 0);
        kept_ring = model_ring;
        memcpy(kept_memory, model_memory, sizeof kept_memory);
        kept = key;
    }
    model_ring = kept_ring;
    memcpy(model_memory, kept_memory, sizeof kept_memory);
    model_shape = shape;
}

/* Gives two handles of other processes on the same memory; KEY as above. */
static inline void model_attach(cbuf_ring handles[2], const void *key)
{
    static cbuf_ring kept[2];
    static const void *kept_key;
    for (int i = 0; i < 2; i++) {
        if (kept_key != key)
            checker_assert(cbuf_attach_in(&kept[i], model_memory, sizeof model_memory) == 0);
        handles[i] = kept[i];
        handles[i].local = &handles[i].in_handle;
        handles[i].wake_at = &handles[i].local->never;
    }
    kept_key = key;
}

/* Gives COUNT handles of producers, the first of them the one that made the ring; KEY as above. */
static inline void model_join(cbuf_ring *handles, unsigned count, const void *key)
{
    static cbuf_ring kept[4];
    static uint64_t kept_memory[sizeof model_memory / 8];
    static const void *kept_key;
    checker_assert(count <= sizeof kept / sizeof kept[0]);
    if (kept_key != key) {
        kept[0] = model_ring;
        kept[0].local = &kept[0].in_handle;
        for (unsigned p = 1; p < count; p++)
            checker_assert(cbuf_join_in(&kept[p], model_memory, sizeof model_memory) == 0);
        memcpy(kept_memory, model_memory, sizeof kept_memory);
        kept_key = key;
    }
    memcpy(model_memory, kept_memory, sizeof kept_memory);
    for (unsigned p = 0; p < count; p++) {
        handles[p] = kept[p];
        handles[p].local = &handles[p].in_handle;
        handles[p].wake_at = &handles[p].local->never;
    }
}

/* Names for traces. */
static inline void model_name_words(void)
{
    const struct cbuf__file *file = model_ring.file;
    const struct cbuf__readers *readers = model_ring.readers;
    checker_name(&file->head, "head");
    checker_name(&file->reserve, "reserve");
    checker_name(&file->state, "state");
    checker_name(&file->dropped, "dropped");
    checker_name(&file->wakes, "wakes");
    checker_name(&file->waits, "waits");
    checker_name(&file->epoch, "epoch");
    checker_name(&readers->high, "high");
    checker_name(&readers->rows.wanted, "rows.wanted");
    checker_name(&readers->rows.count, "rows.count");
    checker_name(&readers->room.wanted, "room.wanted");
    checker_name(&readers->room.count, "room.count");
    checker_name(&model_ring.local->never, "never");
    checker_name(&model_ring.local->always, "always");
    for (unsigned k = 0; k < cbuf_resolved(&model_ring)->max_readers; k++) {
        const struct cbuf__slot *slot = &readers->slots[k];
        checker_name(&slot->cursor, "slot[%u].cursor", k);
        checker_name(&slot->gate, "slot[%u].gate", k);
        checker_name(&slot->incarnation, "slot[%u].incarnation", k);
        checker_name(&slot->owned, "slot[%u].owned", k);
        checker_name(&slot->lost, "slot[%u].lost", k);
        checker_name(&slot->waits, "slot[%u].waits", k);
        checker_name(&slot->active_ns, "slot[%u].active_ns", k);
        checker_name(&slot->started_ns, "slot[%u].started_ns", k);
        checker_name(&slot->pid, "slot[%u].pid", k);
        for (unsigned w = 0; w < CBUF_NAME_BYTES / 8; w++)
            checker_name(&slot->name[w], "slot[%u].name[%u]", k, w);
        checker_name(model_ring.gates + k, "gates[%u]", k);
    }
    if (model_ring.stride % 8) { /* words of several rows */
        for (uint64_t at = 0; at < model_ring.capacity * model_ring.stride; at += 8)
            checker_name(model_ring.rows + at, "rows+%u", (unsigned)at);
        return;
    }
    for (uint64_t i = 0; i < model_ring.capacity; i++)
        for (uint32_t w = 0; w < model_ring.stride / 8; w++)
            checker_name(model_ring.rows + i * model_ring.stride + 8 * w, "row[%u].%u", (unsigned)i,
                         (unsigned)w);
}

/* Word W of row SEQUENCE, written by producer TAG (1 to 15). */
#ifndef MODEL_NUMBER
#define MODEL_NUMBER(sequence) ((sequence) + 1)
#endif
static inline uint64_t model_value(uint64_t sequence, uint32_t w, unsigned tag)
{
    return MODEL_NUMBER(sequence) << 8 | tag << 4 | w;
}

static inline void model_fill(uint64_t *row, uint64_t sequence, unsigned tag)
{
    for (uint32_t w = 0; w < model_shape.words; w++)
        row[w] = model_value(sequence, w, tag);
}

/* A violation unless ROW is row SEQUENCE, whole, and the same that was accepted as such before. */
static inline void model_check(const uint64_t *row, uint64_t sequence)
{
    unsigned tag = row[0] >> 4 & 15;
    for (uint32_t w = 0; w < model_shape.words; w++) {
        bool narrow = model_shape.shared && w + 1 == model_shape.words;
        uint64_t value = narrow ? (uint32_t)row[w] : row[w];
        checker_note("row %u word %u: %#llx", (unsigned)sequence, w, (unsigned long long)value);
        bool row_is_whole = value == model_value(sequence, w, tag);
        checker_assert(row_is_whole);
    }
    bool same_row_for_all = model_tags[sequence] == 0 || model_tags[sequence] == tag;
    checker_assert(same_row_for_all);
    model_tags[sequence] = tag;
}

/* Writes so many rows, BATCH in a call, or by cbuf_write if BATCH is 0. */
static inline void model_write(cbuf_ring *ring, uint64_t rows, uint32_t batch, unsigned tag)
{
    uint64_t some[MODEL_ROWS * MODEL_WORDS];
    for (uint64_t done = 0; done < rows; done += batch ? batch : 1) {
        for (uint32_t i = 0; i < (batch ? batch : 1); i++)
            model_fill(some + i * model_shape.words, ring->next + i, tag);
        if (batch != 0)
            checker_assert(cbuf_write_n(ring, some, batch) == batch);
        else
            checker_assert(cbuf_write(ring, some) == 1);
    }
}

/* A reader and what it should have counted. */
struct model_reader {
    cbuf_reader reader;
    uint64_t start, delivered, lost;
    uint64_t lost_below; /* all rows that it lost have smaller numbers */
};

static inline void model_open(struct model_reader *r, const cbuf_ring *ring,
                              const cbuf_reader_options *options)
{
    checker_assert(cbuf_reader_open(&r->reader, ring, options) == 0);
    r->start = r->reader.cursor;
    r->delivered = r->lost = r->lost_below = 0;
}

/* N rows more came: rows delivered and rows lost together are all that the cursor passed. */
static inline void model_account(struct model_reader *r, int64_t n)
{
    checker_assert(n >= 0);
    r->delivered += (uint64_t)n;
    if (n > 0)
        checker_assert(cbuf_first(&r->reader) + (uint64_t)n == r->reader.cursor);
    uint64_t passed = r->reader.cursor - r->start;
    checker_assert(r->delivered + cbuf_lost(&r->reader) == passed);
    if (cbuf_lost(&r->reader) > r->lost)
        r->lost_below = r->reader.cursor - (uint64_t)n;
    r->lost = cbuf_lost(&r->reader);
}

/* Reads up to MAX rows: each must be whole and the right one. Returns how many came. */
static inline int64_t model_read(struct model_reader *r, uint32_t max)
{
    uint64_t rows[MODEL_ROWS * MODEL_WORDS], before = r->reader.cursor;
    int64_t n = cbuf_read(&r->reader, rows, max);
    checker_assert(n <= (int64_t)max);
    if (n > 0)
        checker_assert(cbuf_first(&r->reader) >= before);
    for (int64_t i = 0; i < n; i++)
        model_check(rows + i * model_shape.words, cbuf_first(&r->reader) + (uint64_t)i);
    model_account(r, n);
    return n;
}

/* After everything: reads what is left. All rows up to END are accounted for, and those counted as
 * lost are really gone. */
static inline void model_read_rest(struct model_reader *r, uint64_t end)
{
    while (model_read(r, MODEL_ROWS) > 0) {}
    bool every_row_read_or_lost = r->reader.cursor == end || r->start > end;
    checker_assert(every_row_read_or_lost);
    checker_assert(r->lost_below <= cbuf_oldest(r->reader.ring));
}

#endif
