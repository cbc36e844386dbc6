/* delta.c: delta columns. Rows are stored as differences to the base of their block, or in the
 * escape plane; a reader decodes only what was validated, and gets whole rows, the right ones, and
 * the exact count of those it lost: while bases and escapes are overwritten, and also after a
 * producer died in the middle of a block. Only escapes that are there are looked for.
 *
 * Values of neighbouring rows are 256 apart (model_value): 16 bits hold them, 8 bits only those of
 * a block's first row. From row FAR on also 16 bits do not.
 */
#define CBUF_NO_OS
#define MODEL_LOADS
#define MODEL_NUMBER(sequence) number_of(sequence)
#include <stdint.h>
static uint64_t number_of(uint64_t sequence);
#include "model_ring.h"

struct setting {
    uint32_t capacity, block;
    uint8_t layout;
    uint32_t bits[2]; /* of the two columns; 0: no delta column */
    uint64_t before;  /* rows written at first ... */
    uint64_t rows;    /* ... and then by a producer ... */
    uint32_t batch;   /* ... so many in a call; 0: by cbuf_write */
    uint64_t after;   /* who is mortal then, if a second one follows, with so many rows */
    uint64_t start;   /* where the reader begins */
    uint32_t reads, max; /* its calls, for so many rows */
    bool observe;        /* by cbuf_snapshot */
    uint8_t on_full;
    uint64_t far; /* 0: never */
};

static const struct setting *setting;
static cbuf_ring successors[2];
static struct model_reader reader;
static uint64_t refused;

static uint64_t number_of(uint64_t sequence)
{
    bool far = setting->far && sequence >= setting->far && sequence % 2 == 1;
    return sequence + 1 + (far ? 4096 : 0);
}

/* In a file the page of an escape that was never written may not be there. */
static void model_loaded(const void *word, uint64_t value)
{
    const cbuf__word *at = word, *plane = model_ring.codec.plane;
    uint64_t words = model_ring.codec.deltas * model_ring.capacity;
    if (!model_ring.delta || at < plane || at >= plane + words)
        return;
    bool an_escape_is_looked_for_only_where_one_was_written = value != 0;
    checker_assert(an_escape_is_looked_for_only_where_one_was_written);
}

static void produce(void *unused)
{
    (void)unused;
    model_write(&model_ring, setting->before, 0, 1);
    checker_set_mortal(setting->after != 0);
    if (setting->on_full == CBUF_OVERWRITE) {
        model_write(&model_ring, setting->rows, setting->batch, 1);
        return;
    }
    for (uint64_t i = 0; i < setting->rows; i++) {
        uint64_t row[MODEL_WORDS];
        model_fill(row, model_ring.next, 1);
        int written = cbuf_write(&model_ring, row);
        checker_assert(written >= 0);
        refused += written == 0;
    }
}

static void succeed(void *unused)
{
    (void)unused;
    if (!checker_wait_end(0))
        return;
    cbuf__take_over(&successors[0]);
    checker_assert(successors[0].next >= setting->before);
    model_write(&successors[0], setting->after, 0, 2);
}

static void observe(void)
{
    uint64_t rows[MODEL_ROWS * MODEL_WORDS], first = 0, head = cbuf_head(&model_ring);
    int64_t n = cbuf_snapshot(&model_ring, rows, setting->max, &first);
    bool newest_row_is_there = head == 0 || n > 0;
    checker_assert(newest_row_is_there);
    for (int64_t i = 0; i < n; i++)
        model_check(rows + i * model_shape.words, first + (uint64_t)i);
}

static void consume(void *unused)
{
    (void)unused;
    for (uint32_t i = 0; i < setting->reads; i++) {
        if (setting->observe)
            observe();
        else
            model_read(&reader, setting->max);
    }
    if (setting->on_full != CBUF_OVERWRITE)
        checker_assert(cbuf_lost(&reader.reader) == 0);
}

static void set_up(const void *arguments)
{
    cbuf_delta deltas[2];
    uint32_t count = 0;
    setting = arguments;
    refused = 0;
    for (uint32_t k = 0; k < 2; k++)
        if (setting->bits[k])
            deltas[count++] = (cbuf_delta){ .name = { (char)('a' + k) }, .bits = setting->bits[k] };
    cbuf_options options = { .capacity = setting->capacity,
                             .reserve_step = 1,
                             .layout = setting->layout,
                             .on_full = setting->on_full,
                             .deltas = deltas,
                             .delta_count = count,
                             .block_rows = setting->block };
    model_make_ring(setting, &options, (struct model_shape){ .words = 2 });
    model_name_words();
    for (uint32_t k = 0; k < count; k++) {
        checker_name(model_ring.codec.escapes + k, "escapes[%u]", k);
        for (uint64_t i = 0; i < setting->capacity; i += setting->block)
            checker_name(cbuf__base_at(&model_ring, k, i), "base[%u].%u", k, (unsigned)i);
        for (uint64_t i = 0; i < setting->capacity; i++)
            checker_name(cbuf__escape_at(&model_ring, k, i), "escape[%u].%u", k, (unsigned)i);
    }
    model_attach(successors, setting);
    model_open(&reader, &model_ring,
               &(cbuf_reader_options){ .anonymous = setting->on_full == CBUF_OVERWRITE,
                                       .start = CBUF_AT,
                                       .sequence = setting->start });
    checker_spawn("producer", produce, NULL);
    if (setting->after)
        checker_spawn("successor", succeed, NULL);
    checker_spawn("reader", consume, NULL);
}

static void check(const void *unused)
{
    (void)unused;
    uint64_t head = cbuf_head(&model_ring);
    if (!setting->after)
        checker_assert(head + refused == setting->before + setting->rows);
    else
        checker_assert(head >= setting->before + (checker_killed(0) ? setting->after : 0));
    if (!setting->observe)
        model_read_rest(&reader, head);
}

#define NUMBERED .layout = CBUF_NUMBERED, .capacity = 4, .block = 2
#define DENSE    .layout = CBUF_DENSE, .capacity = 4, .block = 2
#define FIT      .bits = { 16, 0 }
#define ESCAPE   .bits = { 8, 0 }

static const struct checker_test tests[] = {
    MODEL_CASE("fit", NUMBERED, FIT, .rows = 8, .reads = 2, .max = 3),
    MODEL_CASE("fit-both", NUMBERED, .bits = { 16, 32 }, .rows = 8, .reads = 2, .max = 3),
    MODEL_CASE("fit-dense", DENSE, FIT, .rows = 8, .reads = 2, .max = 3),
    MODEL_CASE("small-dense", DENSE, .bits = { 16, 8 }, .rows = 8, .reads = 2, .max = 3),
    MODEL_CASE("fit-batch-dense", DENSE, FIT, .rows = 8, .batch = 2, .reads = 2, .max = 3),
    MODEL_CASE("fit-batch", NUMBERED, FIT, .rows = 8, .batch = 2, .reads = 2, .max = 3),
    MODEL_CASE("blocks-of-one", .layout = CBUF_NUMBERED, .capacity = 2, .block = 1, FIT,
               .rows = 5, .reads = 2, .max = 2),
    MODEL_CASE("escape", NUMBERED, ESCAPE, .rows = 8, .reads = 2, .max = 3),
    MODEL_CASE("escape-start-3", NUMBERED, ESCAPE, .before = 5, .rows = 4, .start = 3, .reads = 2,
               .max = 2),
    MODEL_CASE("escape-dense", DENSE, ESCAPE, .rows = 8, .reads = 2, .max = 3),
    MODEL_CASE("escape-later", NUMBERED, FIT, .rows = 8, .reads = 2, .max = 3, .far = 4),
    MODEL_CASE("escape-later-dense", DENSE, FIT, .rows = 8, .reads = 2, .max = 3, .far = 4),
    MODEL_CASE("snapshot", NUMBERED, ESCAPE, .rows = 6, .reads = 2, .max = 2, .observe = true),
    MODEL_CASE("snapshot-dense", DENSE, ESCAPE, .rows = 6, .reads = 2, .max = 2, .observe = true),
    MODEL_CASE("gate", NUMBERED, FIT, .rows = 8, .reads = 3, .max = 1,
               .on_full = CBUF_DROP_NEWEST),
    MODEL_CASE("restart", NUMBERED, ESCAPE, .before = 2, .rows = 3, .after = 2, .reads = 2,
               .max = 2),
    MODEL_CASE("restart-dense", DENSE, FIT, .before = 2, .rows = 3, .after = 2, .reads = 2,
               .max = 2),
    MODEL_CASE("restart-small-dense", DENSE, .bits = { 16, 8 }, .before = 1, .rows = 1, .after = 1,
               .reads = 2, .max = 2),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
