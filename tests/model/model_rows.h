/* model_rows.h: one producer that overwrites and one reader, for both layouts. A case is a struct
 * setting; row_numbered.c and dense.c are tables of cases. The property: the reader gets only whole
 * rows, the right ones, and the exact count of those it lost.
 */
#ifndef MODEL_ROWS_H
#define MODEL_ROWS_H

#include "model_ring.h"

struct setting {
    uint32_t capacity, step;
    uint8_t layout;
    struct model_shape shape;
    uint64_t rows;  /* that the producer writes */
    uint32_t batch; /* in one call, 0: by cbuf_write */
    uint64_t start; /* where the reader begins ... */
    bool from_head; /* ... or at the oldest row, as seen during the run */
    uint32_t reads; /* calls of cbuf_read ... */
    uint32_t max;   /* ... for so many rows */
    bool in_place;  /* by cbuf_claim and cbuf_publish, cbuf_peek and cbuf_still_valid */
    bool observe;   /* by cbuf_snapshot */
    bool typed;     /* by the functions of CBUF_TYPED */
};

struct model_row { /* as MODEL_SHARED has it */
    uint64_t a;
    uint32_t b;
};
CBUF_TYPED(model_row, struct model_row);

static const struct setting *setting;
static struct model_reader reader;

/* Writes one row in place. */
static void write_in_place(uint64_t sequence)
{
    uint64_t row[MODEL_WORDS];
    model_fill(row, sequence, 1);
    cbuf__word *place = cbuf_claim(&model_ring, 1, NULL);
    checker_assert(place != NULL);
    for (uint32_t w = 0; w < model_shape.words; w++)
        cbuf__store_relaxed(place + w, row[w]);
    checker_assert(cbuf_publish(&model_ring, 1) == 1);
}

static void produce(void *unused)
{
    (void)unused;
    if (!setting->in_place)
        model_write(&model_ring, setting->rows, setting->batch, 1);
    else
        for (uint64_t i = 0; i < setting->rows; i++)
            write_in_place(i);
}

/* Looks at rows in the ring, then asks whether they were whole. */
static void peek(void)
{
    uint64_t copies[MODEL_ROWS][MODEL_WORDS];
    const void *rows;
    int64_t n = cbuf_peek(&reader.reader, setting->max, &rows);
    for (int64_t i = 0; i < n; i++)
        for (uint32_t w = 0; w < model_shape.words; w++) {
            const cbuf__word *row = (const cbuf__word *)rows + i * (cbuf_stride(&model_ring) / 8);
            copies[i][w] = cbuf__load_relaxed(row + w);
        }
    if (n > 0 && !cbuf_still_valid(&reader.reader))
        n = 0;
    for (int64_t i = 0; i < n; i++)
        model_check(copies[i], reader.reader.cursor + (uint64_t)i);
    if (n > 0)
        cbuf_advance(&reader.reader, (uint32_t)n);
    model_account(&reader, n);
}

/* Reads one row into a struct. */
static void read_typed(void)
{
    struct model_row row;
    uint64_t words[2];
    int64_t n = model_row_read(&reader.reader, &row, 1);
    words[0] = row.a;
    words[1] = row.b;
    if (n > 0)
        model_check(words, cbuf_first(&reader.reader));
    model_account(&reader, n);
}

static void observe(void)
{
    uint64_t rows[MODEL_ROWS * MODEL_WORDS], first = 0;
    uint64_t head = cbuf_head(&model_ring);
    int64_t n = cbuf_snapshot(&model_ring, rows, setting->max, &first);
    bool newest_row_is_there = head == 0 || n > 0;
    checker_assert(newest_row_is_there);
    checker_assert(n >= 0 && n <= (int64_t)setting->max);
    for (int64_t i = 0; i < n; i++)
        model_check(rows + i * model_shape.words, first + (uint64_t)i);
}

static void consume(void *unused)
{
    (void)unused;
    if (setting->from_head)
        model_open(&reader, &model_ring, &(cbuf_reader_options){ .anonymous = true });
    for (uint32_t i = 0; i < setting->reads; i++) {
        if (setting->in_place)
            peek();
        else if (setting->observe)
            observe();
        else if (setting->typed)
            read_typed();
        else
            model_read(&reader, setting->max);
    }
}

static void set_up(const void *arguments)
{
    setting = arguments;
    cbuf_options options = { .capacity = setting->capacity, .reserve_step = setting->step,
                             .layout = setting->layout, .in_place = setting->in_place };
    model_make_ring(setting, &options, setting->shape);
    model_name_words();
    model_open(&reader, &model_ring,
               &(cbuf_reader_options){ .anonymous = true, .start = CBUF_AT,
                                       .sequence = setting->start });
    checker_spawn("producer", produce, NULL);
    checker_spawn("reader", consume, NULL);
}

static void check(const void *unused)
{
    (void)unused;
    checker_assert(cbuf_head(&model_ring) == setting->rows);
    model_read_rest(&reader, setting->rows);
}

#endif
