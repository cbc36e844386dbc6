/* dense.c: the dense layout, where `head` publishes; the property stands in model_rows.h. */
#define CBUF_NO_OS
#include "model_rows.h"

#define DENSE .layout = CBUF_DENSE, .shape = { .words = 2 }

static const struct checker_test tests[] = {
    MODEL_CASE("capacity-2", .capacity = 2, .step = 1, DENSE, .rows = 5, .reads = 2, .max = 2),
    MODEL_CASE("start-1", .capacity = 2, .step = 1, DENSE, .rows = 5, .start = 1, .reads = 2,
               .max = 2),
    MODEL_CASE("from-head", .capacity = 2, .step = 1, DENSE, .rows = 5, .from_head = true,
               .reads = 2, .max = 2),
    MODEL_CASE("capacity-4-step-1", .capacity = 4, .step = 1, DENSE, .rows = 7, .reads = 2,
               .max = 3),
    MODEL_CASE("capacity-4-step-2", .capacity = 4, .step = 2, DENSE, .rows = 7, .reads = 2,
               .max = 3),
    MODEL_CASE("batches", .capacity = 8, .step = 2, DENSE, .rows = 12, .batch = 2, .reads = 2,
               .max = 3),
    MODEL_CASE("in-place", .capacity = 2, .step = 1, DENSE, .rows = 5, .reads = 2, .max = 2,
               .in_place = true),
    MODEL_CASE("snapshot", .capacity = 2, .step = 1, DENSE, .rows = 5, .reads = 2, .max = 2,
               .observe = true),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
