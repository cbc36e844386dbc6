/* room.c: as wake.c, for a producer that sleeps until the gates leave room: it is woken when a
 * reader moves on or leaves.
 *
 * Before it sleeps the producer polls some 1,000 times, which is far too long for an exhaustive
 * search; so this test runs on a variant of the header that polls once (see the table).
 */
#include "model_os.h"

struct setting {
    uint32_t capacity;
    uint64_t rows;    /* that the producer writes */
    uint64_t reads;   /* that the reader reads ... */
    bool leaves;      /* ... before it leaves, or else reads no more */
    bool no_barriers; /* a kernel without membarrier: everyone fences */
};

static const struct setting *setting;
static cbuf_ring handles[2];
static struct model_reader reader;

static void produce(void *unused)
{
    (void)unused;
    model_write(&model_ring, setting->rows, 0, 1);
}

static void consume(void *unused)
{
    (void)unused;
    while (reader.delivered < setting->reads)
        checker_assume(model_read(&reader, 1) > 0);
    if (setting->leaves)
        cbuf_reader_close(&reader.reader);
}

static void set_up(const void *arguments)
{
    setting = arguments;
    cbuf_options options = { .capacity = setting->capacity,
                             .reserve_step = 1,
                             .on_full = CBUF_BLOCK };
    if (setting->no_barriers)
        checker_refuse_barriers();
    checker_allow_pauses(1000);
    model_make_ring(setting, &options, (struct model_shape){ .words = 1 });
    model_name_words();
    model_attach(handles, setting);
    model_open(&reader, &handles[0], NULL);
    checker_spawn("producer", produce, NULL);
    checker_spawn("reader", consume, NULL);
}

static void check(const void *unused)
{
    (void)unused;
    checker_assert(cbuf_head(&model_ring) == setting->rows);
}

static const struct checker_test tests[] = {
    MODEL_CASE("leaves", .capacity = 2, .rows = 3, .leaves = true),
    MODEL_CASE("leaves-fenced", .capacity = 2, .rows = 3, .leaves = true, .no_barriers = true),
    MODEL_CASE("reads", .capacity = 2, .rows = 3, .reads = 1),
    MODEL_CASE("reads-fenced", .capacity = 2, .rows = 3, .reads = 1, .no_barriers = true),
    MODEL_CASE("reads-twice", .capacity = 2, .rows = 4, .reads = 2),
    MODEL_CASE("reads-and-leaves", .capacity = 2, .rows = 4, .reads = 1, .leaves = true),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
