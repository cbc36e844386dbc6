/* pool_many.c: several producers in a ring whose rows own payloads of a pool, some of them killed
 * before any of their operations; who sweeps up after them, in the ring and in the pool; a reader.
 * A payload that is held is whole; a row that is published has its payload; at the end the ring
 * holds what its places own, each slot is one place's, and a lap of empty rows gives all back.
 *
 * In place of the kernel's locks stands the wait for a thread's end.
 */
#include "model_pool.h"

enum { PRODUCERS = 3, CAPACITY = 2, EACH = 3 };

struct setting {
    uint32_t rows[PRODUCERS]; /* that each writes */
    bool mortal[PRODUCERS];
    uint32_t before;          /* rows in the ring at the start */
    uint32_t slots;
    bool fresh;               /* payloads are allocated by their writers, and not before */
    bool again;               /* the second writes the first one's payload once more, if it can */
    uint32_t sweeps;          /* a thread sweeps up after the first; 1: ring, 2: pool, 3: both */
    bool gives_up_later;      /* in the other order */
    uint32_t reads;
    bool gate;
};

static cbuf_ring rings[PRODUCERS], reading;
static cbuf_pool_ring rows[PRODUCERS];
static cbuf_reader reader;
static cbuf_ref refs[PRODUCERS][EACH];
static const struct setting *setting;

/* ---- what threads do ---- */

static void write_row(unsigned p, cbuf_ref ref)
{
    int written = cbuf_pool_write(&rows[p], &ref);
    if (setting->again && written == CBUF_EINUSE) return;
    bool no_other_has_a_new_payload = written != CBUF_EINUSE && written != CBUF_ENOTHELD;
    checker_assert(no_other_has_a_new_payload);
    checker_assume(written == 1); /* else it would wait */
}
static void produce(void *argument)
{
    unsigned p = (unsigned)(uintptr_t)argument;
    checker_set_mortal(setting->mortal[p]);
    for (uint32_t k = 0; k < setting->rows[p]; k++) {
        if (setting->fresh) {
            checker_assume(cbuf_pool_allocate(&pools[p], 8, 0, &refs[p][k]) == 0);
            fill(&pools[p], refs[p][k]);
        }
        write_row(p, refs[p][k]);
    }
}
/* Writes a payload that the first producer has written, or is writing, into the same ring. */
static void produce_again(void *unused)
{
    (void)unused;
    for (uint32_t k = 0; k < setting->rows[1]; k++) {
        int written = cbuf_pool_write(&rows[1], &refs[1][k]);
        checker_assert(written == 1 || written == CBUF_EINUSE || written == CBUF_ETIMEDOUT);
        check_payload(written == 1 ? &pools[2] : &pools[1], refs[1][k]);
    }
}
static void sweep_ring(const bool *dead) { cbuf__sweep(&rings[2], dead); }
static void sweep_pool(const bool *dead)
{
    for (unsigned p = 0; p < 2; p++)
        if (dead[p] && cbuf__kind_of_holder(cbuf__holder_at(&pools[2], pools[p].self.index)))
            cbuf__dismiss(&pools[2], pools[p].self.index);
}
static void sweep(void *unused)
{
    bool dead[CBUF_MAX_PRODUCERS] = { checker_wait_end(0) };
    (void)unused;
    checker_set_mortal(setting->mortal[2]);
    if (!dead[0]) return;
    if (setting->gives_up_later) sweep_pool(dead);
    if (setting->sweeps & 1) sweep_ring(dead);
    if (setting->sweeps & 2 && !setting->gives_up_later) sweep_pool(dead);
    for (uint32_t k = 0; k < setting->rows[2]; k++) write_row(2, refs[2][k]);
}
static void read_rows(void *unused)
{
    cbuf_ref ref;
    (void)unused;
    for (uint32_t k = 0; k < setting->reads; k++) {
        if (cbuf_pool_read(&pools[3], &reader, &ref, 0) != 1) continue;
        bool no_payload_is_missed = ref || !setting->gate;
        checker_assert(no_payload_is_missed);
        if (!ref) continue;
        check_payload(&pools[3], ref);
        release(&pools[3], ref);
    }
}

/* ---- set-up ---- */

static void make_ring(void)
{
    static const cbuf_column column = { "payload", CBUF_REF, 0 };
    cbuf_options options = { .capacity = CAPACITY, .reserve_step = 1, .columns = &column,
                             .column_count = 1, .max_readers = 1, .producers = PRODUCERS,
                             .on_full = setting->gate ? CBUF_DROP_NEWEST : CBUF_OVERWRITE };
    memset(ring_memory, 0, sizeof ring_memory);
    checker_assert(cbuf_create_in(&rings[0], ring_memory, sizeof ring_memory, &options) == 0);
    for (int p = 1; p < PRODUCERS; p++)
        checker_assert(cbuf_join_in(&rings[p], ring_memory, sizeof ring_memory) == 0);
    checker_assert(cbuf_attach_in(&reading, ring_memory, sizeof ring_memory) == 0);
    checker_assert(cbuf_reader_open(&reader, &reading,
                       &(cbuf_reader_options){ .anonymous = !setting->gate }) == 0);
}
static void make(void)
{
    make_pools(setting->slots);
    make_ring();
    for (int p = 0; p < PRODUCERS; p++)
        checker_assert(cbuf_pool_ring_open(&rows[p], &pools[p], &rings[p]) == 0);
    for (uint32_t k = 0; k < setting->before; k++) {
        cbuf_ref ref;
        checker_assert(cbuf_pool_allocate(&pools[2], 8, 0, &ref) == 0);
        fill(&pools[2], ref);
        write_row(2, ref);
        if (setting->gate) checker_assert(cbuf_pool_read(&pools[3], &reader, &ref, 0) == 1);
        if (setting->gate) release(&pools[3], ref);
    }
    for (unsigned p = 0; p < PRODUCERS && !setting->fresh; p++)
        for (uint32_t k = 0; k < setting->rows[p]; k++) {
            bool again = setting->again && p == 1 && k < setting->rows[0];
            if (again) refs[p][k] = refs[0][k];
            int error = again ? cbuf_pool_retain(&pools[p], refs[p][k])
                              : cbuf_pool_allocate(&pools[p], 8, 0, &refs[p][k]);
            checker_assert(error == 0);
            if (!again) fill(&pools[p], refs[p][k]);
            if (again) checker_assert(cbuf_pool_retain(&pools[2], refs[p][k]) == 0);
        }
    for (unsigned p = 0; p < PRODUCERS; p++) cbuf__scan_gates(&rings[p]);
}
static void name_words(void)
{
    name_pool(setting->slots);
    for (uint32_t k = 0; k < setting->slots; k++)
        checker_name(cbuf__owner_at(rows[0].self.held, pools[0].classes[CBUF_XS].first + k),
                     "slot[%u].owner", k);
    for (uint32_t p = 0; p < PRODUCERS; p++) {
        checker_name(&rings[p].pen->begin, "pen[%u].begin", p);
        checker_name(&rings[p].pen->end, "pen[%u].end", p);
        checker_name(&rings[p].pen->owned, "pen[%u].owned", p);
    }
    checker_name(&rings[0].file->claim, "claim");
    checker_name(&rings[0].file->reserve, "reserve");
    checker_name(&rings[0].file->aborted, "aborted");
    for (uint32_t k = 0; k < 2 * CAPACITY; k++)
        checker_name(rings[0].rows + 8 * k, "row[%u].%u", k / 2, k % 2);
}
static void set_up(const void *arguments)
{
    static const struct model_part parts[] = {
        { memory, sizeof memory }, { ring_memory, sizeof ring_memory }, { pools, sizeof pools },
        { rings, sizeof rings }, { &reading, sizeof reading }, { &reader, sizeof reader },
        { rows, sizeof rows }, { refs, sizeof refs }, { NULL, 0 } };
    setting = arguments;
    make_once(arguments, make, parts);
    name_words();
    checker_spawn("first", produce, (void *)0);
    if (setting->rows[1]) checker_spawn("second", setting->again ? produce_again : produce,
                                        (void *)1);
    if (setting->sweeps) checker_spawn("sweeper", sweep, NULL);
    if (setting->reads) checker_spawn("reader", read_rows, NULL);
}

/* Who owns what the ring holds; and what nobody but the ring holds is all there is. */
static void check_slots(void)
{
    for (uint32_t i = 0; i < setting->slots; i++) {
        const cbuf__pool_class *c = &pools[3].classes[CBUF_XS];
        uint64_t state = cbuf__slot_at(c, i)->state;
        uint64_t owner = *cbuf__owner_at(rows[0].self.held, c->first + i);
        bool the_ring_holds = (uint32_t)state & rows[0].self.bit;
        bool others_hold = (uint32_t)state & ~rows[0].self.bit;
        bool nobody_else_holds = !others_hold || setting->again;
        checker_assert(nobody_else_holds);
        bool a_place_is_owner = owner == cbuf__owner(state, CBUF__OWNED, 0, owner % CAPACITY);
        checker_assert(the_ring_holds ? a_place_is_owner : owner == 0);
    }
}
static void check_places(void)
{
    uint64_t claim = rings[0].file->claim;
    for (uint64_t s = claim > CAPACITY ? claim - CAPACITY : 0; s < claim; s++) {
        bool published = cbuf__is_published(&reading, s), aborted = cbuf__is_aborted(&reading, s);
        checker_assert(published || aborted);
        cbuf_ref ref = cbuf__ref_at(&rows[0], s % CAPACITY, 0);
        uint32_t number;
        if (!published || !ref) continue;
        const struct cbuf__pool_slot *slot = cbuf__slot_of(&pools[3], ref, &number);
        bool a_published_row_has_its_payload = slot && slot->state >> 32 == ref >> 32 &&
            *cbuf__owner_at(rows[0].self.held, number) ==
                cbuf__owner(ref, CBUF__OWNED, 0, s % CAPACITY);
        checker_assert(a_published_row_has_its_payload);
    }
}
static void check(const void *unused)
{
    bool dead[CBUF_MAX_PRODUCERS] = { checker_killed(0) };
    unsigned second = setting->rows[1] != 0;
    cbuf_ref none = 0;
    (void)unused;
    dead[1] = second && checker_killed(1);
    sweep_ring(dead);
    sweep_pool(dead);
    for (unsigned p = 0; p < PRODUCERS; p++) /* what was not written any more */
        for (uint32_t k = 0; k < setting->rows[p]; k++)
            if ((p > 1 || !dead[p]) && cbuf_pool_data(&pools[p], refs[p][k]))
                release(&pools[p], refs[p][k]);
    check_slots();
    check_places();
    if (setting->gate) return;
    rings[2].limit = 0;
    for (uint32_t k = 0; k < CAPACITY; k++) checker_assert(cbuf_pool_write(&rows[2], &none) == 1);
    for (uint32_t i = 0; i < setting->slots && !setting->again; i++) {
        uint32_t holders = (uint32_t)cbuf__slot_at(&pools[3].classes[CBUF_XS], i)->state;
        bool a_lap_gives_all_back = holders == 0;
        checker_assert(a_lap_gives_all_back);
    }
}

static const struct checker_test tests[] = {
    MODEL_CASE("one", .rows = { 1 }, .before = 2, .slots = 4, .reads = 1),
    MODEL_CASE("two", .rows = { 1, 1 }, .before = 2, .slots = 5),
    MODEL_CASE("lapping", .rows = { 1, 2 }, .before = 2, .slots = 6),
    MODEL_CASE("lapping-one-another", .rows = { 2, 2 }, .before = 1, .slots = 6),
    MODEL_CASE("fresh", .rows = { 1, 2 }, .before = 1, .slots = 3, .fresh = true),
    MODEL_CASE("fresh-lapping", .rows = { 1, 2 }, .before = 2, .slots = 4, .fresh = true),
    MODEL_CASE("fresh-killed", .rows = { 1, 1 }, .before = 2, .slots = 3, .fresh = true,
               .mortal = { true }, .sweeps = 2),
    MODEL_CASE("again", .rows = { 1, 1 }, .before = 1, .slots = 4, .again = true),
    MODEL_CASE("again-lapping", .rows = { 2, 1 }, .before = 2, .slots = 5, .again = true),
    MODEL_CASE("read", .rows = { 1, 1 }, .before = 1, .slots = 4, .reads = 1),
    MODEL_CASE("read-lapped", .rows = { 2, 1 }, .before = 1, .slots = 5, .reads = 1),
    MODEL_CASE("gate", .rows = { 1, 1 }, .before = 1, .slots = 4, .reads = 2, .gate = true),
    MODEL_CASE("killed", .rows = { 1, 1 }, .before = 2, .slots = 5, .mortal = { true }),
    MODEL_CASE("killed-lapped", .rows = { 1, 2 }, .before = 2, .slots = 6, .mortal = { true },
               .sweeps = 1),
    MODEL_CASE("killed-lapped-settled", .rows = { 1, 2 }, .before = 2, .slots = 6,
               .mortal = { true }, .sweeps = 2),
    MODEL_CASE("killed-swept", .rows = { 1, 1 }, .before = 2, .slots = 5, .mortal = { true },
               .sweeps = 3),
    MODEL_CASE("killed-swept-pool-first", .rows = { 1, 1 }, .before = 2, .slots = 5,
               .mortal = { true }, .sweeps = 3, .gives_up_later = true),
    MODEL_CASE("killed-then-a-lap", .rows = { 1, 0, 2 }, .before = 2, .slots = 6,
               .mortal = { true }, .sweeps = 3),
    MODEL_CASE("killed-then-a-lap-then-settled", .rows = { 1, 0, 2 }, .before = 2, .slots = 6,
               .mortal = { true }, .sweeps = 1),
    MODEL_CASE("both-killed", .rows = { 1, 2 }, .before = 2, .slots = 6, .mortal = { true, true },
               .sweeps = 1),
    MODEL_CASE("sweeper-killed", .rows = { 1, 1 }, .before = 2, .slots = 5,
               .mortal = { true, false, true }, .sweeps = 3),
    MODEL_CASE("killed-gate", .rows = { 1, 1 }, .before = 1, .slots = 4, .mortal = { true },
               .sweeps = 3, .reads = 2, .gate = true),
    MODEL_CASE("killed-read", .rows = { 1, 1 }, .before = 1, .slots = 4, .mortal = { true },
               .sweeps = 2, .reads = 1),
};

int main(int argc, char **argv)
{
    return checker_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
