/* many_close.c: producers of a ring in memory that close it at once, one of them perhaps with an
 * open claim. Whoever is the last says that no more will come, and who is told so gets all rows.
 */
#define CBUF_NO_OS
#include "model_ring.h"

enum { PRODUCERS = 2 };

struct setting {
    bool claims; /* the first has claimed a row, which its close gives up */
};

static const struct setting *setting;
static cbuf_ring handles[PRODUCERS];
static struct model_reader reader;

static void leave(void *argument)
{
    cbuf_ring *ring = &handles[(uintptr_t)argument];
    uint64_t row = 5;
    if (ring->claimed == 0)
        checker_assert(cbuf_write(ring, &row) == 1);
    cbuf_close(ring);
}

static void consume(void *unused)
{
    uint64_t rows[PRODUCERS];
    (void)unused;
    if (cbuf__load_acquire(&model_ring.file->state) != CBUF__CLOSED)
        return;
    for (int64_t n; (n = cbuf_read(&reader.reader, rows, PRODUCERS)) > 0;)
        reader.delivered += (uint64_t)n;
    bool all_is_there_once_it_is_closed =
        reader.delivered + cbuf_skipped(&reader.reader) == PRODUCERS;
    checker_assert(all_is_there_once_it_is_closed);
}

static void set_up(const void *arguments)
{
    setting = arguments;
    cbuf_options options = { .capacity = 8, .reserve_step = 4, .producers = PRODUCERS,
                             .in_place = true };
    model_make_ring(arguments, &options, (struct model_shape){ .words = 1 });
    model_join(handles, PRODUCERS, arguments);
    if (setting->claims)
        checker_assert(cbuf_claim(&handles[0], 1, NULL) != NULL);
    model_name_words();
    checker_name(&model_ring.file->state, "state");
    checker_name(&model_ring.file->claim, "claim");
    for (unsigned p = 0; p < PRODUCERS; p++)
        checker_name(&handles[p].pen->owned, "pen[%u].owned", p);
    model_open(&reader, &model_ring, &(cbuf_reader_options){ .anonymous = true });
    checker_spawn("first", leave, (void *)0);
    checker_spawn("second", leave, (void *)1);
    checker_spawn("reader", consume, NULL);
}

static void check(const void *unused)
{
    (void)unused;
    bool the_last_one_closed_it = model_ring.file->state == CBUF__CLOSED;
    checker_assert(the_last_one_closed_it);
    consume(NULL);
}

static const struct checker_test tests[] = {
    MODEL_CASE("both", .claims = false),
    MODEL_CASE("with-a-claim", .claims = true),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
