/* gate.c: with the policies block and drop newest a reader that stands at the gate loses nothing,
 * wherever in the producer's run it registers; rows written and rows refused are all that were
 * tried.
 *
 * In the cases called "plain" the rows count as plain memory: there the producer may touch a row
 * only after, by happens-before, the reader is done with it. That is more than the right values,
 * and shows what the checker cannot show in values, as it finds no load buffering.
 */
#define CBUF_NO_OS
#define MODEL_PLAIN_ROWS
#include "model_ring.h"

struct setting {
    uint32_t capacity, step;
    uint8_t layout, on_full;
    uint64_t rows;    /* that the producer tries to write */
    uint32_t readers; /* one, or two of which the second has registered before; 0: one */
    uint32_t reads;   /* calls of cbuf_read, for two rows each */
    bool plain;
    bool oldest;     /* the reader begins at the oldest row: it may lose some, but knows how many */
    bool comes_back; /* it leaves after its reads, and does all again */
};

static const struct setting *setting;
static struct model_reader readers[2];
static uint64_t refused;

static bool model_is_plain(const void *word)
{
    uintptr_t at = (uintptr_t)word, rows = (uintptr_t)model_ring.rows;
    return setting->plain && at >= rows && at < rows + model_ring.capacity * model_ring.stride;
}

static void produce(void *unused)
{
    uint64_t row[MODEL_WORDS];
    (void)unused;
    for (uint64_t i = 0; i < setting->rows; i++) {
        model_fill(row, model_ring.next, 1);
        int written = cbuf_write(&model_ring, row);
        checker_assert(written == 1 || setting->on_full != CBUF_DROP_NEWEST || written == 0);
        checker_assume(written >= 0); /* CBUF_BLOCK would wait */
        refused += written == 0;
    }
}

static uint32_t reader_count(void) { return setting->readers ? setting->readers : 1; }

static void consume(void *argument)
{
    struct model_reader *reader = argument;
    for (int visit = 0; visit < 1 + setting->comes_back; visit++) {
        cbuf_reader_options options = { .start = setting->oldest ? CBUF_OLDEST : CBUF_NEWEST };
        if (reader == &readers[0])
            model_open(reader, &model_ring, &options);
        for (uint32_t i = 0; i < setting->reads; i++)
            model_read(reader, 2);
        bool nothing_lost = setting->oldest || cbuf_lost(&reader->reader) == 0;
        checker_assert(nothing_lost);
        if (setting->comes_back)
            cbuf_reader_close(&reader->reader);
    }
}

static void set_up(const void *arguments)
{
    setting = arguments;
    refused = 0;
    cbuf_options options = { .capacity = setting->capacity,
                             .reserve_step = setting->step,
                             .layout = setting->layout,
                             .on_full = setting->on_full,
                             .max_readers = reader_count() };
    struct model_shape shape = { .words = 2, .shared = setting->layout == CBUF_NUMBERED };
    model_make_ring(setting, &options, shape);
    model_name_words();
    if (reader_count() == 2)
        model_open(&readers[1], &model_ring, NULL);
    checker_spawn("producer", produce, NULL);
    for (uint32_t i = 0; i < reader_count(); i++)
        checker_spawn(i == 0 ? "reader" : "reader 2", consume, &readers[i]);
}

static void check(const void *unused)
{
    (void)unused;
    cbuf_stats stats;
    checker_assert(cbuf_stats_get(&model_ring, &stats) == 0);
    checker_assert(stats.dropped == refused);
    checker_assert(stats.written + stats.dropped == setting->rows);
    for (uint32_t i = 0; i < reader_count() && !setting->comes_back; i++) {
        model_read_rest(&readers[i], stats.written);
        bool nothing_lost = setting->oldest || cbuf_lost(&readers[i].reader) == 0;
        checker_assert(nothing_lost);
    }
}

#define NUMBERED .layout = CBUF_NUMBERED
#define DENSE    .layout = CBUF_DENSE

static const struct checker_test tests[] = {
    MODEL_CASE("block", .capacity = 2, .step = 1, NUMBERED, .on_full = CBUF_BLOCK, .rows = 4,
               .reads = 2),
    MODEL_CASE("block-plain", .capacity = 2, .step = 1, DENSE, .on_full = CBUF_BLOCK, .rows = 4,
               .reads = 2, .plain = true),
    MODEL_CASE("block-plain-step-2", .capacity = 4, .step = 2, DENSE, .on_full = CBUF_BLOCK,
               .rows = 7, .reads = 2, .plain = true),
    MODEL_CASE("block-comes-back", .capacity = 2, .step = 1, DENSE, .on_full = CBUF_BLOCK,
               .rows = 4, .reads = 1, .comes_back = true, .plain = true),
    MODEL_CASE("block-two-gates", .capacity = 2, .step = 1, DENSE, .on_full = CBUF_BLOCK, .rows = 4,
               .readers = 2, .reads = 2, .plain = true),
    MODEL_CASE("drop", .capacity = 2, .step = 1, NUMBERED, .on_full = CBUF_DROP_NEWEST, .rows = 4,
               .reads = 2),
    MODEL_CASE("drop-plain", .capacity = 2, .step = 1, DENSE, .on_full = CBUF_DROP_NEWEST,
               .rows = 4, .reads = 2, .plain = true),
    MODEL_CASE("drop-from-oldest", .capacity = 2, .step = 1, NUMBERED, .on_full = CBUF_DROP_NEWEST,
               .rows = 4, .reads = 2, .oldest = true),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
