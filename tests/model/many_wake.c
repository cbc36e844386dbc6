/* many_wake.c: no wake-up is lost among several producers, though a row that a reader sleeps for may
 * be published before one that stands in its way, and though none of them executes a fence. With
 * barriers, which make many executions, the one that stands in the way is alone still to come.
 */
#include "model_os.h"

enum { PRODUCERS = 2 };

struct setting {
    uint32_t want;      /* the reader sleeps for so many rows, of the one that each producer has */
    bool second_claims; /* in its thread; otherwise both have claimed theirs before */
    bool second_is_done; /* and has published its row before too */
    bool no_barriers;
};

static const struct setting *setting;
static cbuf_ring handles[PRODUCERS];
static struct model_reader reader;

static void produce(void *argument)
{
    cbuf_ring *ring = &handles[(uintptr_t)argument];
    if (ring->claimed == 0)
        checker_assert(cbuf_claim(ring, 1, NULL) != NULL);
    checker_assert(cbuf_publish(ring, 1) == 1);
}

/* The heart of cbuf_wait. */
static void consume(void *unused)
{
    int64_t brief = 1;
    (void)unused;
    for (uint64_t rows = setting->want; rows <= PRODUCERS; rows += setting->want)
        while (cbuf_head(&handles[0]) < rows)
            cbuf__nap(&reader.reader, rows, INT64_MAX, &brief);
}

static void set_up(const void *arguments)
{
    setting = arguments;
    cbuf_options options = { .capacity = 8, .reserve_step = 4, .producers = PRODUCERS,
                             .in_place = true };
    if (setting->no_barriers)
        checker_refuse_barriers();
    checker_allow_pauses(20);
    model_make_ring(arguments, &options, (struct model_shape){ .words = 1 });
    model_join(handles, PRODUCERS, arguments);
    for (unsigned p = 0; p < PRODUCERS; p++) {
        handles[p].wake_at = setting->no_barriers ? &handles[p].local->always
                                                  : &handles[p].readers->rows.wanted;
        cbuf__scan_gates(&handles[p]);
    }
    checker_assert(cbuf_claim(&handles[0], 1, NULL) != NULL);
    if (!setting->second_claims)
        checker_assert(cbuf_claim(&handles[1], 1, NULL) != NULL);
    model_name_words();
    checker_name(&model_ring.file->claim, "claim");
    for (unsigned p = 0; p < PRODUCERS; p++)
        checker_name(&handles[p].pen->begin, "pen[%u].begin", p);
    model_open(&reader, &handles[0], &(cbuf_reader_options){ .spins = 1 });
    checker_spawn("first", produce, (void *)0);
    if (setting->second_is_done)
        checker_assert(cbuf_publish(&handles[1], 1) == 1);
    else
        checker_spawn("second", produce, (void *)1);
    checker_spawn("reader", consume, NULL);
}

static void check(const void *unused)
{
    (void)unused;
    checker_assert(cbuf_head(&handles[0]) == PRODUCERS);
}

static const struct checker_test tests[] = {
    MODEL_CASE("hole", .want = 2, .second_is_done = true),
    MODEL_CASE("for-both-fenced", .want = 2, .no_barriers = true),
    MODEL_CASE("for-one-to-be-claimed", .want = 2, .second_claims = true, .no_barriers = true),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
