/* restart.c: a producer is killed before any of its operations, and another one takes the ring
 * over. Readers get whole rows only, no two readers get different rows under one number, `head`
 * never goes back, and rows read and rows lost are all that the cursor passed.
 */
#define CBUF_NO_OS
#include "model_ring.h"

struct setting {
    uint32_t capacity, step;
    uint8_t layout;
    uint64_t before;     /* rows written by a producer that is not mortal yet */
    uint64_t rows;       /* rows that it then tries to write ... */
    uint32_t batch;      /* ... so many in a call; 0: by cbuf_write */
    bool twice;          /* the second producer is mortal too, and a third one follows */
    uint64_t after;      /* rows of the last producer */
    uint32_t reads, max; /* of the reader, who begins at row START or at the oldest */
    uint64_t start;
    bool from_head;
};

static const struct setting *setting;
static cbuf_ring successors[2];
static struct model_reader reader;

static void first(void *unused)
{
    (void)unused;
    model_write(&model_ring, setting->before, 0, 1);
    checker_set_mortal(true);
    model_write(&model_ring, setting->rows, setting->batch, 1);
}

/* Continues the ring, as cbuf_create does when the kernel says that nobody has it. */
static void succeed(cbuf_ring *ring, unsigned tag)
{
    cbuf__take_over(ring);
    checker_assert(ring->next >= setting->before);
    model_write(ring, setting->after, 0, tag);
}

static void second(void *unused)
{
    (void)unused;
    if (!checker_wait_end(0))
        return;
    checker_set_mortal(setting->twice);
    succeed(&successors[0], 2);
}

static void third(void *unused)
{
    (void)unused;
    if (checker_wait_end(1))
        succeed(&successors[1], 3);
}

static void consume(void *unused)
{
    uint64_t head = 0;
    (void)unused;
    if (setting->from_head)
        model_open(&reader, &model_ring, &(cbuf_reader_options){ .anonymous = true });
    for (uint32_t i = 0; i < setting->reads; i++) {
        uint64_t seen = cbuf_head(&model_ring);
        bool head_does_not_go_back = seen >= head;
        checker_assert(head_does_not_go_back);
        head = seen;
        model_read(&reader, setting->max);
    }
}

static void set_up(const void *arguments)
{
    setting = arguments;
    cbuf_options options = { .capacity = setting->capacity,
                             .reserve_step = setting->step,
                             .layout = setting->layout };
    struct model_shape shape = { .words = 2, .shared = setting->layout == CBUF_NUMBERED };
    model_make_ring(setting, &options, shape);
    model_name_words();
    model_attach(successors, setting);
    model_open(
        &reader, &model_ring,
        &(cbuf_reader_options){ .anonymous = true, .start = CBUF_AT, .sequence = setting->start });
    checker_spawn("first", first, NULL);
    checker_spawn("second", second, NULL);
    if (setting->twice)
        checker_spawn("third", third, NULL);
    checker_spawn("reader", consume, NULL);
}

static void check(const void *unused)
{
    (void)unused;
    uint64_t head = cbuf_head(&model_ring);
    if (!checker_killed(0))
        checker_assert(head == setting->before + setting->rows);
    else
        checker_assert(head >= setting->before + setting->after);
    model_read_rest(&reader, head);
}

#define NUMBERED .layout = CBUF_NUMBERED
#define DENSE    .layout = CBUF_DENSE

static const struct checker_test tests[] = {
    MODEL_CASE("numbered", .capacity = 2, .step = 1, NUMBERED, .before = 1, .rows = 2, .after = 2,
               .reads = 2, .max = 2),
    MODEL_CASE("numbered-from-head", .capacity = 2, .step = 1, NUMBERED, .before = 2, .rows = 2,
               .after = 1, .reads = 1, .max = 2, .from_head = true),
    MODEL_CASE("numbered-step-2", .capacity = 4, .step = 2, NUMBERED, .before = 3, .rows = 3,
               .after = 2, .reads = 2, .max = 3),
    MODEL_CASE("numbered-batch", .capacity = 8, .step = 2, NUMBERED, .before = 7, .rows = 2,
               .batch = 2, .after = 1, .reads = 1, .max = 2, .start = 6),
    MODEL_CASE("numbered-twice", .capacity = 2, .step = 1, NUMBERED, .before = 2, .rows = 1,
               .after = 1, .reads = 1, .max = 2, .twice = true),
    MODEL_CASE("dense", .capacity = 2, .step = 1, DENSE, .before = 1, .rows = 2, .after = 2,
               .reads = 2, .max = 2),
    MODEL_CASE("dense-batch", .capacity = 8, .step = 1, DENSE, .before = 7, .rows = 2, .batch = 2,
               .after = 1, .reads = 1, .max = 2),
    MODEL_CASE("dense-from-head", .capacity = 4, .step = 2, DENSE, .before = 4, .rows = 2,
               .after = 1, .reads = 1, .max = 3, .from_head = true),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
