/* Pools in memory: classes, references, refusals; a random walk beside a naive model; rings whose
 * rows own references; threads. What files and deaths add is in test_pool_deaths.c. */
#include "check.h"

#include <cbuf_pool.h>
#include <pthread.h>

enum { HANDLES = 4, MOST_HANDLES = 7, ROWS = 8 };

/* ---- pools ---- */

struct pools { /* handles of one pool, and the memory that ends where the pool ends */
    cbuf_pool pools[MOST_HANDLES];
    void *memory;
    size_t bytes;
};
static cbuf_pool_options pool_options(
    uint32_t xs, uint32_t s, uint32_t m, uint32_t xl, uint32_t xxl)
{
    cbuf_pool_options options;
    memset(&options, 0, sizeof options);
    options.count[CBUF_XS] = xs;
    options.count[CBUF_S] = s;
    options.count[CBUF_M] = m;
    options.count[CBUF_XL] = xl;
    options.count[CBUF_XXL] = xxl;
    return options;
}
static struct pools *open_pools(const cbuf_pool_options *options, int handles)
{
    struct pools *p = (struct pools *)calloc(1, sizeof *p);
    int64_t needed = cbuf_pool_memory_needed(options);
    assert_non_null(p);
    assert_true(needed > 0);
    p->bytes = (size_t)needed;
    assert_int_equal(posix_memalign(&p->memory, 64, p->bytes), 0);
    if (cbuf_pool_create_in(&p->pools[0], p->memory, p->bytes, options))
        fail_msg("%s", cbuf_pool_error(&p->pools[0]));
    for (int k = 1; k < handles; k++)
        if (cbuf_pool_attach_in(&p->pools[k], p->memory, p->bytes, "another"))
            fail_msg("%s", cbuf_pool_error(&p->pools[k]));
    return p;
}
static void close_pools(struct pools *p)
{
    for (int k = 0; k < MOST_HANDLES; k++) cbuf_pool_close(&p->pools[k]);
    free(p->memory);
    free(p);
}
static cbuf_ref allocate(cbuf_pool *pool, uint64_t bytes)
{
    cbuf_ref ref;
    int error = cbuf_pool_allocate(pool, bytes, 7, &ref);
    if (error) fail_msg("%s", cbuf_pool_error(pool));
    assert_true(ref != 0);
    return ref;
}
static enum cbuf_pool_class kind_of(cbuf_ref ref)
{
    return (enum cbuf_pool_class)((ref >> 24 & 255) - 1);
}
/* free + held = count in each class; -> how many are held in all */
static uint64_t held(const cbuf_pool *pool)
{
    uint64_t all = 0, listed = 0;
    uint32_t holders;
    for (int kind = 0; kind < CBUF_POOL_CLASSES; kind++) {
        cbuf_pool_stats stats;
        assert_int_equal(cbuf_pool_stats_get(pool, (enum cbuf_pool_class)kind, &stats), 0);
        assert_int_equal(stats.free + stats.held, stats.count);
        all += stats.held;
    }
    for (cbuf_ref ref = 0; (ref = cbuf_pool_next_held(pool, ref, &holders)) != 0;) listed++;
    assert_int_equal(listed, all);
    return all;
}
static uint64_t held_by(const cbuf_pool *pool, uint32_t index)
{
    cbuf_pool_holder holder;
    return cbuf_pool_holder_get(pool, index, &holder) == 1 ? holder.slots : UINT64_MAX;
}

/* ---- one handle ---- */

TEST(a_payload_is_in_the_smallest_class_that_takes_it_64_byte_aligned)
{
    static const struct { size_t bytes; enum cbuf_pool_class kind; } cases[] = { { 0, CBUF_XS },
        { 1, CBUF_XS }, { 64, CBUF_XS }, { 65, CBUF_S }, { 256, CBUF_S }, { 257, CBUF_M },
        { 1024, CBUF_M }, { 1025, CBUF_L }, { 4096, CBUF_L }, { 4097, CBUF_XL },
        { 16384, CBUF_XL }, { 16385, CBUF_XXL }, { 1000000, CBUF_XXL } };
    static const uint64_t counts[] = { 2000, 1000, 300, 60, 15, 64 };
    cbuf_pool_options options;
    memset(&options, 0, sizeof options);
    struct pools *p = open_pools(&options, 1);
    for (int kind = 0; kind < CBUF_POOL_CLASSES; kind++) {
        cbuf_pool_stats stats;
        assert_int_equal(cbuf_pool_stats_get(p->pools, (enum cbuf_pool_class)kind, &stats), 0);
        assert_int_equal(stats.count, counts[kind]);
    }
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        cbuf_ref ref;
        unsigned char *from = (unsigned char *)malloc(cases[k].bytes + 1);
        assert_non_null(from);
        fill_row(from, cases[k].bytes, k);
        assert_int_equal(cbuf_pool_put(p->pools, from, cases[k].bytes, 40 + (uint32_t)k, &ref), 0);
        const void *data = cbuf_pool_data(p->pools, ref);
        assert_int_equal(cbuf_pool_class_of(p->pools, cases[k].bytes), cases[k].kind);
        assert_int_equal(kind_of(ref), cases[k].kind);
        assert_non_null(data);
        assert_int_equal((uintptr_t)data % 64, 0);
        assert_true(is_row(data, cases[k].bytes, k));
        assert_int_equal(cbuf_pool_length(p->pools, ref), cases[k].bytes);
        assert_int_equal(cbuf_pool_type(p->pools, ref), 40 + k);
        free(from);
    }
    assert_int_equal(held(p->pools), COUNT_OF(cases));
    close_pools(p);
}

TEST(an_empty_class_falls_back_to_the_next_and_an_empty_pool_is_an_error)
{
    cbuf_pool_options options = pool_options(2, 1, 0, 1, 1);
    struct pools *p = open_pools(&options, 2);
    static const enum cbuf_pool_class order[] = { CBUF_XS, CBUF_XS, CBUF_S, CBUF_XL, CBUF_XXL };
    cbuf_ref refs[5], none = 1;
    for (size_t k = 0; k < 5; k++) {
        refs[k] = allocate(&p->pools[k % 2], 10);
        assert_int_equal(kind_of(refs[k]), order[k]);
    }
    assert_int_equal(cbuf_pool_allocate(p->pools, 10, 0, &none), CBUF_EEMPTY);
    assert_int_equal(none, 0);
    assert_non_null(strstr(cbuf_pool_error(p->pools), "size is 10"));
    assert_non_null(strstr(cbuf_pool_error(p->pools), "all held: 5"));
    assert_int_equal(cbuf_pool_release(&p->pools[0], refs[2]), 1);
    assert_int_equal(kind_of(allocate(&p->pools[1], 10)), CBUF_S);
    assert_int_equal(cbuf_pool_release(&p->pools[1], refs[1]), 1);
    assert_int_equal(cbuf_pool_allocate(p->pools, 100, 0, &none), CBUF_EEMPTY);
    assert_int_equal(kind_of(allocate(&p->pools[0], 64)), CBUF_XS);
    close_pools(p);
}

TEST(every_slot_can_be_had_and_no_slot_twice)
{
    cbuf_pool_options options = pool_options(100, 50, 25, 0, 0);
    struct pools *p = open_pools(&options, HANDLES);
    static bool seen[CBUF_POOL_CLASSES][100];
    memset(seen, 0, sizeof seen);
    for (int k = 0; k < 175; k++) {
        cbuf_ref ref = allocate(&p->pools[k % HANDLES], 1);
        bool *slot = &seen[kind_of(ref)][ref & 0xffffff];
        assert_false(*slot);
        *slot = true;
        memset(cbuf_pool_data(&p->pools[k % HANDLES], ref), k, 64);
    }
    assert_int_equal(held(p->pools), 175);
    close_pools(p);
}

TEST(a_clone_is_one_more_reference_and_the_last_release_frees)
{
    cbuf_pool_options options = pool_options(2, 0, 0, 0, 0);
    struct pools *p = open_pools(&options, 2);
    cbuf_pool *a = &p->pools[0], *b = &p->pools[1];
    cbuf_ref ref = allocate(a, 8);
    assert_int_equal(cbuf_pool_retain(a, ref), 0);
    assert_int_equal(cbuf_pool_retain(b, ref), 0);
    assert_int_equal(cbuf_pool_release(a, ref), 0);
    assert_non_null(cbuf_pool_data(a, ref));
    assert_int_equal(cbuf_pool_release(a, ref), 0);
    assert_null(cbuf_pool_data(a, ref));
    assert_int_equal(cbuf_pool_length(a, ref), 0);
    assert_int_equal(held(a), 1);
    assert_non_null(cbuf_pool_data(b, ref));
    assert_int_equal(cbuf_pool_release(b, ref), 1);
    assert_int_equal(held(a), 0);
    close_pools(p);
}

TEST(a_double_release_is_refused_and_changes_nothing)
{
    cbuf_pool_options options = pool_options(1, 0, 0, 0, 0);
    struct pools *p = open_pools(&options, 2);
    cbuf_pool *a = &p->pools[0], *b = &p->pools[1];
    cbuf_ref old = allocate(a, 8);
    assert_int_equal(cbuf_pool_release(b, old), CBUF_ENOTHELD); /* never had it */
    assert_int_equal(cbuf_pool_release(a, old), 1);
    assert_int_equal(cbuf_pool_release(a, old), CBUF_ENOTHELD);
    cbuf_ref newer = allocate(a, 8); /* the same slot, by the same holder */
    assert_int_equal((uint32_t)newer, (uint32_t)old);
    assert_int_equal(cbuf_pool_release(a, old), CBUF_ENOTHELD);
    assert_null(cbuf_pool_data(a, old));
    assert_int_equal(held(a), 1);
    assert_int_equal(cbuf_pool_retain(b, newer), 0);
    assert_int_equal(cbuf_pool_release(b, newer), 0);
    assert_int_equal(cbuf_pool_release(b, newer), CBUF_ENOTHELD); /* while a has it */
    assert_non_null(cbuf_pool_data(a, newer));
    assert_int_equal(cbuf_pool_release(a, newer), 1);
    close_pools(p);
}

TEST(a_recycled_slot_cannot_be_retained)
{
    cbuf_pool_options options = pool_options(1, 0, 0, 0, 0);
    struct pools *p = open_pools(&options, 2);
    cbuf_pool *a = &p->pools[0], *b = &p->pools[1];
    cbuf_ref old = allocate(a, 8);
    assert_int_equal(cbuf_pool_release(a, old), 1);
    assert_int_equal(cbuf_pool_retain(b, old), CBUF_ESTALE); /* free */
    assert_int_equal(cbuf_pool_retain(b, old + (1ull << 32)), CBUF_ESTALE); /* nobody's yet */
    cbuf_ref newer = allocate(a, 8);
    assert_int_equal(cbuf_pool_retain(b, old), CBUF_ESTALE); /* used again */
    assert_int_equal(cbuf_pool_retain(a, old), CBUF_ESTALE);
    assert_int_equal(cbuf_pool_retain(b, newer), 0);
    close_pools(p);
}

TEST(no_number_is_taken_for_a_ref_unless_the_pool_has_that_slot)
{
    cbuf_pool_options options = pool_options(3, 1, 0, 0, 1);
    struct pools *p = open_pools(&options, 1);
    uint64_t seed = 0x5eed0301;
    for (int k = 0; k < 200000; k++) {
        cbuf_ref ref = next_random(&seed);
        if (k % 2) ref &= 0x0000000307000007u; /* the neighbourhood of what there is */
        bool there = (ref >> 24 & 255) == 1 ? (ref & 0xffffff) < 3
            : (ref >> 24 & 255) == 2 || (ref >> 24 & 255) == 6 ? (ref & 0xffffff) < 1 : false;
        assert_int_equal(cbuf_pool_retain(p->pools, ref), there ? CBUF_ESTALE : CBUF_EINVAL);
        assert_int_equal(cbuf_pool_release(p->pools, ref), there ? CBUF_ENOTHELD : CBUF_EINVAL);
        assert_null(cbuf_pool_data(p->pools, ref));
        assert_int_equal(cbuf_pool_length(p->pools, ref), 0);
        assert_int_equal(cbuf_pool_type(p->pools, ref), 0);
    }
    assert_int_equal(held(p->pools), 0);
    close_pools(p);
}

TEST(a_length_that_was_tampered_with_stays_inside_its_slot)
{
    cbuf_pool_options options = pool_options(1, 0, 0, 0, 0);
    struct pools *p = open_pools(&options, 1);
    uint32_t number;
    cbuf_ref ref = allocate(p->pools, 10);
    struct cbuf__pool_slot *slot = cbuf__slot_of(p->pools, ref, &number);
    assert_non_null(slot);
    if (slot) cbuf__store_relaxed(&slot->length, UINT64_MAX);
    assert_int_equal(cbuf_pool_length(p->pools, ref), 64);
    close_pools(p);
}

TEST(closing_gives_back_all_that_a_handle_holds_and_its_place)
{
    cbuf_pool_options options = pool_options(10, 0, 0, 0, 2);
    options.max_holders = 2;
    struct pools *p = open_pools(&options, 2);
    cbuf_pool third;
    for (int k = 0; k < 12; k++) allocate(&p->pools[k % 2], 1);
    assert_int_equal(cbuf_pool_attach_in(&third, p->memory, p->bytes, NULL), CBUF_ESLOTS);
    assert_int_equal(held_by(p->pools, 0), 6);
    cbuf_pool_close(&p->pools[1]);
    assert_int_equal(held(p->pools), 6);
    assert_int_equal(held_by(p->pools, 1), UINT64_MAX);
    assert_int_equal(cbuf_pool_attach_in(&third, p->memory, p->bytes, "third"), 0);
    assert_int_equal(held_by(p->pools, 1), 0);
    cbuf_pool_close(&third);
    cbuf_pool_close(&third); /* twice, and after it everything is an error */
    cbuf_ref ref;
    assert_int_equal(cbuf_pool_allocate(&third, 1, 0, &ref), CBUF_ENOTOPEN);
    assert_int_equal(cbuf_pool_retain(&third, 1), CBUF_ENOTOPEN);
    assert_int_equal(cbuf_pool_release(&third, 1), CBUF_ENOTOPEN);
    close_pools(p);
}

TEST(options_out_of_range_are_errors_that_name_value_and_limit)
{
    cbuf_pool pool;
    unsigned char *memory = NULL;
    cbuf_pool_options options = pool_options(1, 0, 0, 0, 65);
    assert_int_equal(posix_memalign((void **)&memory, 64, 65536), 0);
    assert_int_equal(cbuf_pool_memory_needed(&options), CBUF_EINVAL);
    assert_int_equal(cbuf_pool_create_in(&pool, memory, 65536, &options), CBUF_EINVAL);
    assert_non_null(strstr(cbuf_pool_error(&pool), "is 65, the limit is 64"));
    options = pool_options(1, 0, 0, 0, 0);
    options.max_holders = 32;
    assert_int_equal(cbuf_pool_create_in(&pool, memory, 65536, &options), CBUF_EINVAL);
    options.max_holders = 2;
    options.bytes[CBUF_S] = 64;
    assert_int_equal(cbuf_pool_create_in(&pool, memory, 65536, &options), CBUF_EINVAL);
    options.bytes[CBUF_S] = 0;
    options.bytes[CBUF_XL] = (1u << 30) + 1;
    assert_int_equal(cbuf_pool_create_in(&pool, memory, 65536, &options), CBUF_EINVAL);
    options.bytes[CBUF_XL] = 0;
    options.count[CBUF_XS] = (1u << 24) + 1;
    assert_int_equal(cbuf_pool_create_in(&pool, memory, 65536, &options), CBUF_EINVAL);
    options.count[CBUF_XS] = 1;
    assert_int_equal(cbuf_pool_create_in(&pool, memory + 8, 65000, &options), CBUF_EINVAL);
    assert_int_equal(cbuf_pool_create_in(&pool, memory, 100, &options), CBUF_ENOSPACE);
    assert_non_null(strstr(cbuf_pool_error(&pool), "is 100, needed are "));
    assert_int_equal(cbuf_pool_create_in(&pool, memory, 65536, &options), 0);
    cbuf_pool_close(&pool);
    free(memory);
}

/* Each fact in turn takes many values: none is believed that leads outside of the memory. */
TEST(a_pool_whose_facts_are_damaged_is_refused_or_harmless)
{
    cbuf_pool_options options = pool_options(3, 2, 0, 0, 1);
    options.max_holders = 3;
    struct pools *p = open_pools(&options, 1);
    cbuf_pool other;
    uint64_t seed = 0x5eed0302, accepted = 0;
    unsigned char *bytes = (unsigned char *)p->memory, kept[sizeof(cbuf__pool_facts)];
    memcpy(kept, bytes, sizeof kept);
    for (int k = 0; k < 20000; k++) {
        size_t at = (size_t)random_below(&seed, sizeof kept);
        if (k % 2) bytes[at] ^= (unsigned char)(1u << random_below(&seed, 8));
        else
            for (size_t n = at & ~7u; n < sizeof kept && n < (at & ~7u) + 8; n++)
                bytes[n] = (unsigned char)next_random(&seed);
        if (!cbuf_pool_attach_in(&other, p->memory, p->bytes, NULL)) {
            cbuf_ref ref;
            for (int n = 0; n < 8 && !cbuf_pool_allocate(&other, 1, 0, &ref); n++) {
                void *data = cbuf_pool_data(&other, ref);
                if (data) memset(data, 1, (size_t)cbuf_pool_length(&other, ref));
            }
            cbuf_pool_close(&other);
            accepted++;
        } else {
            assert_non_null(strchr(cbuf_pool_error(&other), ':'));
        }
        memcpy(bytes, kept, sizeof kept);
    }
    assert_true(accepted > 0 && accepted < 10000); /* created_ns, minor, unused are free */
    for (int kind = 0; kind < CBUF_POOL_CLASSES; kind++) { /* slots in the place of holders */
        cbuf__pool_facts *facts = (cbuf__pool_facts *)p->memory;
        facts->regions[kind].offset = facts->holders_offset;
        assert_int_equal(cbuf_pool_attach_in(&other, p->memory, p->bytes, NULL), CBUF_EFORMAT);
        facts->regions[kind].offset = facts->counts_offset + 128;
        assert_int_equal(cbuf_pool_attach_in(&other, p->memory, p->bytes, NULL), CBUF_EFORMAT);
        memcpy(bytes, kept, sizeof kept);
    }
    assert_int_equal(cbuf_pool_attach_in(&other, p->memory, p->bytes - 64, NULL), CBUF_EFORMAT);
    assert_int_equal(cbuf_pool_attach_in(&other, p->memory, 100, NULL), CBUF_EFORMAT);
    close_pools(p);
}

/* ---- beside a naive model ---- */

enum { ITEMS = 64 };
static struct model { /* of payloads that somebody holds, or that were held */
    cbuf_ref ref;
    uint64_t bytes, value;
    uint32_t counts[HANDLES];
} items[ITEMS];

static bool is_live(const struct model *item)
{
    for (int h = 0; h < HANDLES; h++)
        if (item->counts[h]) return true;
    return false;
}
static void random_step(struct pools *p, uint64_t *seed)
{
    struct model *item = &items[random_below(seed, ITEMS)];
    uint32_t h = (uint32_t)random_below(seed, HANDLES);
    cbuf_pool *pool = &p->pools[h];
    bool live = is_live(item), mine = live && item->counts[h];
    switch (random_below(seed, 4)) {
    case 0:
        if (live) break;
        item->bytes = random_below(seed, 3) ? random_below(seed, 300) : random_below(seed, 40000);
        item->value = next_random(seed);
        if (cbuf_pool_allocate(pool, item->bytes, (uint32_t)item->value, &item->ref)) {
            assert_int_equal(item->ref, 0);
            break;
        }
        fill_row(cbuf_pool_data(pool, item->ref), (size_t)item->bytes, item->value);
        item->counts[h] = 1;
        break;
    case 1:
        if (!item->ref) break;
        assert_int_equal(cbuf_pool_retain(pool, item->ref), live ? 0 : CBUF_ESTALE);
        item->counts[h] += live;
        break;
    case 2:
        if (!item->ref) break;
        if (mine) item->counts[h]--;
        assert_int_equal(cbuf_pool_release(pool, item->ref),
            !mine ? CBUF_ENOTHELD : is_live(item) ? 0 : 1);
        break;
    default:
        if (!item->ref) break;
        assert_int_equal(cbuf_pool_data(pool, item->ref) != NULL, mine);
        assert_int_equal(cbuf_pool_length(pool, item->ref), mine ? item->bytes : 0);
        assert_int_equal(cbuf_pool_type(pool, item->ref), mine ? (uint32_t)item->value : 0);
        if (!mine) break;
        assert_true(is_row(cbuf_pool_data(pool, item->ref), (size_t)item->bytes, item->value));
    }
}

TEST(a_million_random_steps_agree_with_a_naive_model)
{
    cbuf_pool_options options = pool_options(20, 10, 0, 4, 3);
    struct pools *p = open_pools(&options, HANDLES);
    uint64_t seed = 0x5eed0303;
    memset(items, 0, sizeof items);
    for (uint64_t k = 0, steps = scaled(1000000); k < steps; k++) {
        random_step(p, &seed);
        if (k % 1000) continue;
        uint64_t live = 0, of[HANDLES] = { 0 };
        for (int i = 0; i < ITEMS; i++) {
            live += is_live(&items[i]);
            for (int h = 0; h < HANDLES; h++) of[h] += items[i].counts[h] > 0;
        }
        assert_int_equal(held(p->pools), live);
        for (uint32_t h = 0; h < HANDLES; h++) assert_int_equal(held_by(p->pools, h), of[h]);
    }
    for (int h = 0; h < HANDLES; h++) {
        if (h < HANDLES - 1) cbuf_pool_close(&p->pools[h]);
    }
    for (int i = 0; i < ITEMS; i++)
        for (uint32_t n = items[i].counts[HANDLES - 1]; n > 0; n--)
            assert_int_equal(cbuf_pool_release(&p->pools[HANDLES - 1], items[i].ref), n == 1);
    assert_int_equal(held(&p->pools[HANDLES - 1]), 0);
    close_pools(p);
}

/* ---- rows that own references ---- */

struct row {
    int64_t time;
    cbuf_ref frame, sound;
    uint32_t size;
} __attribute__((aligned(8)));
static const cbuf_column row_columns[] = { CBUF_COLUMN_AS(struct row, time, CBUF_TIMESTAMP_NS),
    CBUF_COLUMN_AS(struct row, frame, CBUF_REF), CBUF_COLUMN_AS(struct row, sound, CBUF_REF),
    CBUF_COLUMN(struct row, size) };

static cbuf_options row_options(uint64_t capacity, uint8_t on_full, uint8_t layout)
{
    cbuf_options options = options_of(capacity, row_columns, (uint32_t)COUNT_OF(row_columns));
    options.row_bytes = sizeof(struct row);
    options.on_full = on_full;
    options.layout = layout;
    options.reserve_step = 1;
    return options;
}
static struct row row_with(cbuf_ref frame, cbuf_ref sound)
{
    struct row row;
    memset(&row, 0, sizeof row);
    row.frame = frame;
    row.sound = sound;
    return row;
}

/* Pools, and a ring whose producer, the first pool's holder, owns the rows' references. */
static struct pools *open_rows(cbuf_pool_ring *rows, struct pair *pair, const cbuf_options *options,
    const cbuf_pool_options *some, int handles)
{
    struct pools *p = open_pools(some, handles);
    open_pair(pair, options);
    if (cbuf_pool_ring_open(rows, p->pools, &pair->ring)) fail_msg("%s", cbuf_pool_error(p->pools));
    return p;
}

TEST(a_column_of_type_ref_stands_in_the_schema)
{
    cbuf_options options = row_options(ROWS, CBUF_OVERWRITE, CBUF_NUMBERED);
    struct pair pair;
    cbuf_column column;
    open_pair(&pair, &options);
    assert_int_equal(cbuf_column_find(&pair.consumer, "frame", &column), 0);
    assert_int_equal(column.type, CBUF_REF);
    assert_non_null(strstr(pair.consumer.schema, "\"type\":\"ref\""));
    close_pair(&pair);
}

TEST(a_row_owns_its_references_until_it_is_overwritten)
{
    for (int layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++) {
        cbuf_options options = row_options(ROWS, CBUF_OVERWRITE, (uint8_t)layout);
        cbuf_pool_options some = pool_options(40, 0, 0, 0, 0);
        struct pair pair;
        cbuf_pool_ring rows;
        struct pools *p = open_rows(&rows, &pair, &options, &some, 2);
        cbuf_ref refs[100][2];
        for (int k = 0; k < 100; k++) {
            refs[k][0] = allocate(p->pools, 8);
            refs[k][1] = k % 3 ? allocate(p->pools, 8) : 0;
            struct row row = row_with(refs[k][0], refs[k][1]);
            assert_int_equal(cbuf_pool_write(&rows, &row), 1);
            assert_null(cbuf_pool_data(p->pools, refs[k][0])); /* it is the row's now */
            uint64_t owned = 0;
            for (int i = 0; i <= k; i++) {
                bool there = i > k - ROWS;
                int found = cbuf_pool_retain(&p->pools[1], refs[i][0]);
                assert_int_equal(found, there ? 0 : CBUF_ESTALE);
                if (there) assert_int_equal(cbuf_pool_release(&p->pools[1], refs[i][0]), 0);
                if (there) owned += refs[i][1] ? 2 : 1;
            }
            assert_int_equal(held(p->pools), owned);
        }
        assert_true(cbuf_pool_ring_drop(&rows) > 0);
        assert_int_equal(held(p->pools), 0);
        close_pair(&pair);
        close_pools(p);
    }
}

TEST(one_payload_may_be_in_many_rows_and_a_producer_may_keep_it)
{
    cbuf_options options = row_options(4, CBUF_OVERWRITE, CBUF_NUMBERED);
    cbuf_pool_options some = pool_options(4, 0, 0, 0, 2);
    struct pair pair;
    cbuf_pool_ring rows;
    struct pools *p = open_rows(&rows, &pair, &options, &some, 2);
    for (uint64_t bytes = 8; bytes < 100000; bytes += 90000) { /* XS, XXL */
        cbuf_ref ref = allocate(p->pools, bytes);
        for (int k = 0; k < 20; k++) {
            struct row row = row_with(ref, ref);
            assert_int_equal(cbuf_pool_retain(p->pools, ref), 0);
            assert_int_equal(cbuf_pool_retain(p->pools, ref), 0);
            assert_int_equal(cbuf_pool_write(&rows, &row), 1);
            assert_int_equal(held(p->pools), 1);
        }
        assert_int_equal(cbuf_pool_release(p->pools, ref), 0);
        assert_null(cbuf_pool_data(p->pools, ref));
        struct row none = row_with(0, 0);
        for (int k = 0; k < 4; k++) {
            assert_int_equal(held(p->pools), 1);
            assert_int_equal(cbuf_pool_write(&rows, &none), 1);
        }
        assert_int_equal(held(p->pools), 0);
    }
    cbuf_pool_ring_close(&rows);
    close_pair(&pair);
    close_pools(p);
}

TEST(a_row_that_is_not_written_leaves_its_references_where_they_were)
{
    cbuf_options options = row_options(4, CBUF_DROP_NEWEST, CBUF_NUMBERED);
    cbuf_pool_options some = pool_options(10, 0, 0, 0, 0);
    struct pair pair;
    cbuf_reader gate;
    cbuf_pool_ring rows;
    struct pools *p = open_rows(&rows, &pair, &options, &some, 2);
    assert_int_equal(cbuf_reader_open(&gate, &pair.consumer, NULL), 0);
    struct row row = row_with(0, 0);
    while (row = row_with(allocate(p->pools, 8), 0), cbuf_pool_write(&rows, &row) == 1) {}
    assert_int_equal(held(p->pools), 5);
    assert_int_equal(held_by(p->pools, 0), 1);
    assert_int_equal(cbuf_pool_release(p->pools, row.frame), 1);
    cbuf_ref mine = allocate(p->pools, 8), others = allocate(&p->pools[1], 8);
    row = row_with(mine, others); /* the second is not the producer's to give */
    uint64_t head = cbuf_head(&pair.ring);
    assert_int_equal(cbuf_pool_write(&rows, &row), CBUF_ENOTHELD);
    row = row_with(mine, mine); /* two references, of which it has one */
    assert_int_equal(cbuf_pool_write(&rows, &row), CBUF_ENOTHELD);
    row = row_with(mine, 0x77777777);
    assert_int_equal(cbuf_pool_write(&rows, &row), CBUF_EINVAL);
    assert_int_equal(cbuf_head(&pair.ring), head);
    assert_int_equal(held_by(p->pools, 0), 1);
    assert_int_equal(cbuf_pool_release(p->pools, mine), 1);
    cbuf_reader_close(&gate);
    cbuf_pool_ring_close(&rows);
    close_pair(&pair);
    close_pools(p);
}

TEST(a_row_read_without_a_pool_is_an_error_and_stays_the_next_one)
{
    cbuf_options options = row_options(4, CBUF_BLOCK, CBUF_NUMBERED);
    cbuf_pool_options some = pool_options(4, 0, 0, 0, 0);
    struct pair pair;
    cbuf_reader gate;
    cbuf_pool_ring rows;
    struct pools *p = open_rows(&rows, &pair, &options, &some, 2);
    assert_int_equal(cbuf_reader_open(&gate, &pair.consumer, NULL), 0);
    struct row row = row_with(allocate(p->pools, 8), 0), copy = row;
    assert_int_equal(cbuf_pool_write(&rows, &row), 1);
    cbuf_pool_close(&p->pools[1]);
    assert_int_equal(cbuf_pool_read(&p->pools[1], &gate, &copy, offsetof(struct row, frame)),
        CBUF_ENOTOPEN);
    assert_int_equal(cbuf_pool_attach_in(&p->pools[1], p->memory, p->bytes, "again"), 0);
    assert_int_equal(cbuf_pool_read(&p->pools[1], &gate, &copy, offsetof(struct row, frame)), 1);
    assert_true(copy.frame == row.frame);
    assert_int_equal(cbuf_pool_release(&p->pools[1], copy.frame), 0);
    cbuf_reader_close(&gate);
    cbuf_pool_ring_close(&rows);
    close_pair(&pair);
    close_pools(p);
}

TEST(a_ring_without_refs_or_one_only_read_cannot_own)
{
    cbuf_options options = tick_options(4);
    cbuf_pool_options some = pool_options(4, 0, 0, 0, 0);
    struct pools *p = open_pools(&some, 1);
    struct pair pair;
    cbuf_pool_ring rows;
    open_pair(&pair, &options);
    assert_int_equal(cbuf_pool_ring_open(&rows, p->pools, &pair.consumer), CBUF_EROLE);
    assert_int_equal(cbuf_pool_ring_open(&rows, p->pools, &pair.ring), CBUF_ESCHEMA);
    assert_int_equal(cbuf_pool_write(&rows, &options), CBUF_ENOTOPEN);
    close_pair(&pair);
    close_pools(p);
}

TEST(a_ring_opened_again_owns_what_its_places_say_and_no_more)
{
    cbuf_options options = row_options(4, CBUF_OVERWRITE, CBUF_NUMBERED);
    cbuf_pool_options some = pool_options(20, 0, 0, 0, 0);
    struct pair pair;
    cbuf_pool_ring rows;
    struct pools *p = open_rows(&rows, &pair, &options, &some, 2);
    struct row row = row_with(0, 0);
    for (int k = 0; k < 6; k++) {
        row = row_with(allocate(p->pools, 8), 0);
        assert_int_equal(cbuf_pool_write(&rows, &row), 1);
    }
    struct row none = row_with(0, 0);
    assert_int_equal(cbuf_write(&pair.ring, &none), 1); /* past the pool: a place is forgotten */
    cbuf_ref lost = allocate(p->pools, 8);              /* handed over, and then it died */
    assert_int_equal(cbuf__hand_over(p->pools, &p->pools[0].self, &rows.self, lost), 0);
    assert_int_equal(held(p->pools), 5);
    cbuf_pool_ring_close(&rows);
    assert_int_equal(held(p->pools), 5);
    assert_int_equal(cbuf_pool_ring_open(&rows, p->pools, &pair.ring), 0);
    assert_int_equal(held(p->pools), 3);
    assert_int_equal(cbuf_pool_retain(&p->pools[1], row.frame), 0);
    for (int k = 0; k < 4; k++) assert_int_equal(cbuf_pool_write(&rows, &none), 1);
    assert_int_equal(held(p->pools), 1);
    cbuf_pool_ring_close(&rows);
    close_pair(&pair);
    close_pools(p);
}

TEST(a_ring_that_may_spill_or_has_a_log_cannot_own)
{
    cbuf_options options = row_options(4, CBUF_SPILL, CBUF_NUMBERED);
    cbuf_pool_options some = pool_options(4, 0, 0, 0, 0);
    struct pools *p = open_pools(&some, 1);
    struct pair pair;
    cbuf_pool_ring rows;
    open_pair(&pair, &options);
    assert_int_equal(cbuf_pool_ring_open(&rows, p->pools, &pair.ring), CBUF_EFEATURE);
    assert_non_null(strstr(cbuf_pool_error(p->pools), "log"));
    close_pair(&pair);
    for (uint32_t producers = 1; producers < 3; producers++) {
        struct cbuf_hook log = { NULL, NULL, NULL };
        struct row row = row_with(0, 0);
        options.on_full = CBUF_OVERWRITE;
        options.producers = producers;
        open_pair(&pair, &options);
        pair.ring.hook = &log;
        assert_int_equal(cbuf_pool_ring_open(&rows, p->pools, &pair.ring), CBUF_EFEATURE);
        pair.ring.hook = NULL;
        assert_int_equal(cbuf_pool_ring_open(&rows, p->pools, &pair.ring), 0);
        pair.ring.hook = &log;
        row.frame = allocate(p->pools, 1);
        assert_int_equal(cbuf_pool_write(&rows, &row), CBUF_ELOGGED);
        assert_int_equal(cbuf_pool_release(p->pools, row.frame), 1);
        pair.ring.hook = NULL;
        cbuf_pool_ring_drop(&rows);
        close_pair(&pair);
    }
    close_pools(p);
}

/* ---- several producers ---- */

enum { PRODUCERS = 3 };
struct team { /* producers of one ring, each with its own handles; and whose rows these are */
    struct pools *p;
    struct pair pair;
    cbuf_ring others[PRODUCERS - 1];
    cbuf_pool_ring rows[PRODUCERS];
};
static cbuf_ring *ring_of(struct team *team, int producer)
{
    return producer ? &team->others[producer - 1] : &team->pair.ring;
}
static cbuf_options team_options(uint64_t capacity, uint8_t on_full)
{
    cbuf_options options = row_options(capacity, on_full, CBUF_NUMBERED);
    options.producers = PRODUCERS;
    return options;
}
static void open_team(
    struct team *team, const cbuf_options *options, const cbuf_pool_options *some, int handles)
{
    team->p = open_pools(some, handles);
    open_pair(&team->pair, options);
    for (int k = 1; k < PRODUCERS; k++)
        assert_int_equal(cbuf_join_in(ring_of(team, k), team->pair.memory, team->pair.bytes), 0);
    for (int k = 0; k < PRODUCERS; k++)
        if (cbuf_pool_ring_open(&team->rows[k], &team->p->pools[k], ring_of(team, k)))
            fail_msg("%s", cbuf_pool_error(&team->p->pools[k]));
}
/* The last of them gives back what the rows own. */
static void close_team(struct team *team, uint64_t owned)
{
    assert_int_equal(held(team->p->pools), owned);
    assert_int_equal(cbuf_pool_ring_drop(&team->rows[0]), CBUF_EINUSE);
    for (int k = 1; k < PRODUCERS; k++) cbuf_pool_ring_close(&team->rows[k]);
    assert_int_equal(held(team->p->pools), owned);
    assert_int_equal(cbuf_pool_ring_drop(&team->rows[0]), owned);
    assert_int_equal(held(team->p->pools), 0);
    for (int k = 1; k < PRODUCERS; k++) cbuf_close(ring_of(team, k));
    close_pair(&team->pair);
    close_pools(team->p);
}

TEST(rows_of_several_producers_own_what_a_naive_model_says)
{
    enum { STEPS = 20000 };
    cbuf_options options = team_options(ROWS, CBUF_OVERWRITE);
    cbuf_pool_options some = pool_options(30, 0, 0, 0, 20);
    static cbuf_ref owned[ROWS][2]; /* by the last rows */
    struct team team;
    uint64_t seed = 0x5eed0305, written = 0;
    memset(owned, 0, sizeof owned);
    open_team(&team, &options, &some, HANDLES);
    for (int k = 0; k < STEPS; k++) {
        int by = (int)random_below(&seed, PRODUCERS);
        cbuf_pool *pool = &team.p->pools[by];
        cbuf_ref refs[2] = { 0, 0 }, *old = owned[written % ROWS];
        for (int c = 0; c < 2; c++)
            if (random_below(&seed, 4))
                refs[c] = allocate(pool, random_below(&seed, 16) ? 8 : 5000);
        struct row row = row_with(refs[0], refs[1]);
        cbuf_ref again = owned[random_below(&seed, ROWS)][0];
        bool keeps = again && random_below(&seed, 2) && cbuf_pool_retain(pool, again) == 0;
        if (keeps) { /* what a row has already */
            struct row second = row_with(refs[1], again);
            assert_int_equal(cbuf_pool_write(&team.rows[by], &second), CBUF_EINUSE);
            assert_true(!refs[1] || cbuf_pool_data(pool, refs[1]));
        }
        assert_int_equal(cbuf_pool_write(&team.rows[by], &row), 1);
        for (int c = 0; c < 2; c++)
            if (old[c] && (!keeps || old[c] != again))
                assert_int_equal(cbuf_pool_retain(pool, old[c]), CBUF_ESTALE);
        if (keeps) assert_true(cbuf_pool_release(pool, again) >= 0);
        memcpy(old, refs, sizeof refs);
        written++;
        uint64_t n = 0;
        for (int i = 0; i < 2 * ROWS; i++) n += owned[i / 2][i % 2] != 0;
        assert_int_equal(held(pool), n);
        for (int h = 0; h < PRODUCERS; h++) assert_int_equal(held_by(pool, (uint32_t)h), 0);
        cbuf_ref any = owned[random_below(&seed, ROWS)][random_below(&seed, 2)];
        if (!any) continue;
        assert_int_equal(cbuf_pool_retain(&team.p->pools[PRODUCERS], any), 0);
        assert_int_equal(cbuf_pool_release(&team.p->pools[PRODUCERS], any), 0);
    }
    close_team(&team, held(team.p->pools));
}

TEST(a_payload_is_in_one_row_of_several_producers_at_a_time)
{
    cbuf_options options = team_options(4, CBUF_OVERWRITE);
    cbuf_pool_options some = pool_options(10, 0, 0, 0, 1);
    struct row none = row_with(0, 0);
    struct team team;
    open_team(&team, &options, &some, HANDLES);
    for (uint64_t bytes = 8; bytes < 100000; bytes += 90000) { /* XS, XXL */
        cbuf_pool *a = &team.p->pools[0], *b = &team.p->pools[1];
        cbuf_ref ref = allocate(a, bytes);
        struct row row = row_with(ref, 0), twice = row_with(ref, ref);
        assert_int_equal(cbuf_pool_retain(a, ref), 0);
        assert_int_equal(cbuf_pool_retain(b, ref), 0);
        assert_int_equal(cbuf_pool_write(&team.rows[0], &twice), CBUF_EINUSE);
        assert_int_equal(cbuf_pool_write(&team.rows[0], &row), 1);
        assert_int_equal(cbuf_pool_write(&team.rows[0], &row), CBUF_EINUSE);
        assert_int_equal(cbuf_pool_write(&team.rows[1], &row), CBUF_EINUSE);
        for (int k = 0; k < 4; k++) assert_int_equal(cbuf_pool_write(&team.rows[2], &none), 1);
        assert_int_equal(cbuf_pool_write(&team.rows[1], &row), 1);
        assert_int_equal(cbuf_pool_release(b, ref), CBUF_ENOTHELD);
        assert_int_equal(cbuf_pool_release(a, ref), 0);
        assert_int_equal(held(a), 1);
        for (int k = 0; k < 4; k++) assert_int_equal(cbuf_pool_write(&team.rows[0], &none), 1);
        assert_int_equal(held(a), 0);
    }
    close_team(&team, 0);
}

TEST(a_row_that_one_of_several_does_not_write_leaves_its_references)
{
    cbuf_options options = team_options(4, CBUF_DROP_NEWEST);
    cbuf_pool_options some = pool_options(10, 0, 0, 0, 0);
    struct team team;
    cbuf_reader gate;
    open_team(&team, &options, &some, HANDLES);
    assert_int_equal(cbuf_reader_open(&gate, &team.pair.consumer, NULL), 0);
    for (int k = 0; k < 4; k++) {
        struct row row = row_with(allocate(&team.p->pools[k % 2], 8), 0);
        assert_int_equal(cbuf_pool_write(&team.rows[k % 2], &row), 1);
    }
    cbuf_pool *pool = &team.p->pools[2];
    cbuf_ref mine = allocate(pool, 8), others = allocate(&team.p->pools[1], 8);
    struct row row = row_with(mine, 0);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(cbuf_pool_write(&team.rows[2], &row), 0);
        assert_non_null(cbuf_pool_data(pool, mine));
        assert_int_equal(held_by(pool, 2), 1);
    }
    row = row_with(mine, others);
    assert_int_equal(cbuf_pool_write(&team.rows[2], &row), CBUF_ENOTHELD);
    row = row_with(mine, 0x77777777);
    assert_int_equal(cbuf_pool_write(&team.rows[2], &row), CBUF_EINVAL);
    assert_int_equal(cbuf_pool_release(pool, mine), 1);
    assert_int_equal(cbuf_pool_release(&team.p->pools[1], others), 1);
    assert_int_equal(cbuf_pool_read(pool, &gate, &row, offsetof(struct row, frame)), 1);
    assert_int_equal(cbuf_pool_release(pool, row.frame), 0);
    cbuf_reader_close(&gate);
    close_team(&team, 4);
}

TEST(a_ring_that_the_last_of_several_closed_owns_what_its_places_say)
{
    cbuf_options options = team_options(4, CBUF_OVERWRITE);
    cbuf_pool_options some = pool_options(20, 0, 0, 0, 0);
    struct row none = row_with(0, 0);
    struct team team;
    cbuf_pool_ring twice;
    options.in_place = true;
    open_team(&team, &options, &some, HANDLES);
    assert_int_equal(
        cbuf_pool_ring_open(&twice, &team.p->pools[1], ring_of(&team, 1)), CBUF_EBUSY);
    for (int k = 0; k < 6; k++) {
        struct row row = row_with(allocate(&team.p->pools[k % 3], 8), 0);
        assert_int_equal(cbuf_pool_write(&team.rows[k % 3], &row), 1);
    }
    assert_int_equal(cbuf_write(ring_of(&team, 1), &none), 1); /* past the pool */
    assert_int_equal(cbuf_pool_write(&team.rows[0], &none), 1);
    assert_non_null(cbuf_claim(ring_of(&team, 1), 1, NULL)); /* a row that is given up, too */
    assert_int_equal(cbuf_publish(ring_of(&team, 1), 0), 0);
    for (int k = 0; k < PRODUCERS; k++) {
        assert_int_equal(held(team.p->pools), 3);
        cbuf_pool_ring_close(&team.rows[k]);
    }
    for (int k = PRODUCERS; k-- > 0;) {
        assert_int_equal(cbuf_pool_ring_open(&team.rows[k], &team.p->pools[k], ring_of(&team, k)),
            0);
        assert_int_equal(held(team.p->pools), 1);
    }
    for (int k = 0; k < 4; k++) assert_int_equal(cbuf_pool_write(&team.rows[k % 3], &none), 1);
    close_team(&team, 0);
}

/* ---- threads ---- */

enum { THREADS = 4, SLOTS = 24 };
static struct crowd {
    struct pools *pools;
    cbuf__word published[8]; /* refs that come and go */
    uint64_t steps;
} crowd;
struct worker {
    pthread_t thread;
    cbuf_pool *pool;
    uint64_t seed, retained, stale, fault;
};

/* Takes the ref out of a place and puts its own there, or looks at what somebody put there. */
static void *work(void *argument)
{
    struct worker *w = (struct worker *)argument;
    for (uint64_t k = 0; k < crowd.steps && !w->fault; k++) {
        cbuf__word *place = &crowd.published[random_below(&w->seed, 8)];
        cbuf_ref ref;
        if (random_below(&w->seed, 2)) {
            if (cbuf_pool_allocate(w->pool, 32, 0, &ref)) continue;
            fill_row(cbuf_pool_data(w->pool, ref), 32, ref);
            uint64_t none = 0;
            if (cbuf__compare_exchange_acq_rel(place, &none, ref)) {
                for (int spin = 0; spin < 20; spin++) cbuf__pause();
                cbuf__exchange_acq_rel(place, 0);
            }
            w->fault |= !is_row(cbuf_pool_data(w->pool, ref), 32, ref);
            w->fault |= cbuf_pool_release(w->pool, ref) < 0;
            w->fault |= cbuf_pool_release(w->pool, ref) != CBUF_ENOTHELD;
        } else {
            ref = cbuf__load_acquire(place);
            if (!ref) continue;
            if (cbuf_pool_retain(w->pool, ref)) {
                w->stale++;
                continue;
            }
            w->retained++;
            w->fault |= !is_row(cbuf_pool_data(w->pool, ref), 32, ref);
            w->fault |= cbuf_pool_release(w->pool, ref) < 0;
        }
    }
    return NULL;
}

TEST(threads_that_share_payloads_see_them_whole_and_leave_nothing_held)
{
    cbuf_pool_options options = pool_options(SLOTS, 0, 0, 0, 0);
    struct worker workers[THREADS];
    memset(workers, 0, sizeof workers);
    memset(&crowd, 0, sizeof crowd);
    crowd.pools = open_pools(&options, HANDLES);
    crowd.steps = scaled(400000);
    for (int k = 0; k < THREADS; k++) {
        workers[k].pool = &crowd.pools->pools[k];
        workers[k].seed = 0x5eed0304u + (uint64_t)k;
        assert_int_equal(pthread_create(&workers[k].thread, NULL, work, &workers[k]), 0);
    }
    for (int k = 0; k < THREADS; k++) pthread_join(workers[k].thread, NULL);
    for (int k = 0; k < THREADS; k++) assert_int_equal(workers[k].fault, 0);
    assert_int_equal(held(crowd.pools->pools), 0);
    close_pools(crowd.pools);
}

/* A producer that waits for nobody, and consumers: one keeps up, one is slow, one is lapped all the
 * time, and one stops in the middle with payloads in its hands. */
static struct stage {
    struct pools *pools;
    struct pair pair;
    uint64_t rows;
} stage;
struct consumer {
    pthread_t thread;
    cbuf_pool *pool;
    cbuf_reader reader;
    uint64_t slow, stops_at, got, stale, fault;
};

static void *consume(void *argument)
{
    struct consumer *c = (struct consumer *)argument;
    cbuf_ref kept[4] = { 0 };
    struct row row;
    while (cbuf_wait(&c->reader, 1, CBUF_FOREVER) > 0 && c->got < c->stops_at) {
        if (cbuf_read(&c->reader, &row, 1) != 1) continue;
        for (uint64_t k = 0; k < c->slow; k++) cbuf__pause();
        if (cbuf_pool_retain(c->pool, row.frame)) {
            c->stale++;
            continue;
        }
        uint64_t bytes = cbuf_pool_length(c->pool, row.frame);
        c->fault |= bytes != row.size ||
            !is_row(cbuf_pool_data(c->pool, row.frame), row.size, (uint64_t)row.time);
        cbuf_ref *place = &kept[c->got++ % 4]; /* keeps each for a while */
        if (*place) c->fault |= cbuf_pool_release(c->pool, *place) < 0;
        *place = row.frame;
    }
    for (int k = 0; k < 4 && c->stops_at == UINT64_MAX; k++)
        if (kept[k]) c->fault |= cbuf_pool_release(c->pool, kept[k]) < 0;
    return NULL;
}

/* Under a policy that waits for readers none of the payloads is missed, however few rows and slots
 * there are. */
static void *read_every_payload(void *argument)
{
    struct consumer *c = (struct consumer *)argument;
    struct row row;
    while (!c->fault && cbuf_wait(&c->reader, 1, CBUF_FOREVER) > 0) {
        int n = cbuf_pool_read(c->pool, &c->reader, &row, offsetof(struct row, frame));
        c->fault |= n != 1 || !row.frame || (uint64_t)row.time != c->got;
        if (c->fault) break;
        c->fault |= !is_row(cbuf_pool_data(c->pool, row.frame), row.size, (uint64_t)row.time);
        c->fault |= cbuf_pool_release(c->pool, row.frame) < 0;
        c->got++;
    }
    cbuf_reader_close(&c->reader); /* or the producer would wait for it */
    return NULL;
}
TEST(a_gate_that_holds_each_payload_before_it_moves_on_misses_none)
{
    cbuf_options options = row_options(4, CBUF_BLOCK, CBUF_NUMBERED);
    cbuf_pool_options some = pool_options(6, 0, 0, 0, 0);
    struct consumer consumer;
    cbuf_pool_ring rows;
    memset(&consumer, 0, sizeof consumer);
    struct pair pair;
    struct pools *p = open_rows(&rows, &pair, &options, &some, 2);
    consumer.pool = &p->pools[1];
    assert_int_equal(cbuf_reader_open(&consumer.reader, &pair.consumer, NULL), 0);
    assert_int_equal(cbuf_pool_read(consumer.pool, &consumer.reader, &options, 0), 0);
    assert_int_equal(cbuf_pool_read(consumer.pool, &consumer.reader, &options,
                         sizeof(struct row) - 7), CBUF_EINVAL);
    assert_int_equal(pthread_create(&consumer.thread, NULL, read_every_payload, &consumer), 0);
    uint64_t n = scaled(100000);
    for (uint64_t k = 0; k < n; k++) {
        struct row row = row_with(allocate(p->pools, 64), 0);
        row.time = (int64_t)k;
        row.size = 64;
        fill_row(cbuf_pool_data(p->pools, row.frame), 64, k);
        assert_int_equal(cbuf_pool_write(&rows, &row), 1);
    }
    cbuf__store_release(&pair.ring.file->state, CBUF__CLOSED);
    cbuf__wake(&pair.ring.readers->rows, CBUF__FREE, -1);
    pthread_join(consumer.thread, NULL);
    assert_int_equal(consumer.fault, 0);
    assert_int_equal(consumer.got, n);
    assert_int_equal(held(p->pools), 4);
    cbuf_pool_ring_drop(&rows);
    close_pair(&pair);
    close_pools(p);
}

TEST(publish_to_a_fast_a_slow_and_a_lapped_consumer_leaks_nothing)
{
    cbuf_options options = row_options(16, CBUF_OVERWRITE, CBUF_NUMBERED);
    cbuf_pool_options some = pool_options(40, 40, 0, 0, 0);
    struct consumer consumers[3];
    cbuf_pool_ring rows;
    memset(consumers, 0, sizeof consumers);
    stage.pools = open_rows(&rows, &stage.pair, &options, &some, HANDLES);
    for (int k = 0; k < 3; k++) {
        consumers[k].pool = &stage.pools->pools[k + 1];
        consumers[k].slow = k == 0 ? 0 : k == 1 ? 200 : 20000;
        consumers[k].stops_at = k == 1 ? 50 : UINT64_MAX;
        assert_int_equal(
            cbuf_reader_open(&consumers[k].reader, &stage.pair.consumer, NULL), 0);
        assert_int_equal(pthread_create(&consumers[k].thread, NULL, consume, &consumers[k]), 0);
    }
    uint64_t written = 0;
    for (uint64_t n = scaled(100000); written < n; written++) {
        struct row row = row_with(0, 0);
        row.time = (int64_t)written;
        row.size = 8 + (uint32_t)(written % 100);
        row.frame = allocate(stage.pools->pools, row.size);
        fill_row(cbuf_pool_data(stage.pools->pools, row.frame), row.size, written);
        assert_int_equal(cbuf_pool_write(&rows, &row), 1);
        for (int k = 0; k < 100; k++) cbuf__pause();
    }
    cbuf__store_release(&stage.pair.ring.file->state, CBUF__CLOSED);
    cbuf__wake(&stage.pair.ring.readers->rows, CBUF__FREE, -1);
    for (int k = 0; k < 3; k++) pthread_join(consumers[k].thread, NULL);
    for (int k = 0; k < 3; k++) assert_int_equal(consumers[k].fault, 0);
    assert_true(consumers[0].got > 0 && consumers[1].got <= 50);
    assert_int_equal(held_by(stage.pools->pools, 1), 0);
    uint64_t stopped = held_by(stage.pools->pools, 2); /* what it kept when it stopped */
    assert_true(stopped <= 4);
    cbuf_pool_close(&stage.pools->pools[2]);
    assert_int_equal(held(stage.pools->pools), 16);
    assert_int_equal(cbuf_pool_ring_drop(&rows), 16);
    assert_int_equal(held(stage.pools->pools), 0);
    for (int k = 0; k < 3; k++) cbuf_reader_close(&consumers[k].reader);
    close_pair(&stage.pair);
    close_pools(stage.pools);
}

/* The same with several producers, each of which lets the others overwrite what it writes. */
struct author {
    pthread_t thread;
    struct team *team;
    int number;
    uint64_t rows, pauses, fault;
};
static void *publish(void *argument)
{
    struct author *a = (struct author *)argument;
    cbuf_pool *pool = &a->team->p->pools[a->number];
    for (uint64_t k = 0; k < a->rows && !a->fault; k++) {
        struct row row = row_with(0, 0);
        row.time = (int64_t)(k * PRODUCERS + (uint64_t)a->number);
        row.size = 8 + (uint32_t)(k % 100);
        if (cbuf_pool_allocate(pool, row.size, 0, &row.frame) ||
            (k % 3 && cbuf_pool_allocate(pool, 8, 0, &row.sound))) {
            a->fault = 1;
            break;
        }
        fill_row(cbuf_pool_data(pool, row.frame), row.size, (uint64_t)row.time);
        a->fault |= cbuf_pool_write(&a->team->rows[a->number], &row) != 1;
        for (uint64_t i = 0; i < a->pauses; i++) cbuf__pause();
    }
    return NULL;
}
static void run_authors(struct team *team, struct author *authors, uint64_t rows, uint64_t pauses)
{
    for (int k = 0; k < PRODUCERS; k++) {
        struct author author = { 0, team, k, rows, pauses, 0 };
        authors[k] = author;
        assert_int_equal(pthread_create(&authors[k].thread, NULL, publish, &authors[k]), 0);
    }
    for (int k = 0; k < PRODUCERS; k++) pthread_join(authors[k].thread, NULL);
    for (int k = 0; k < PRODUCERS; k++) assert_int_equal(authors[k].fault, 0);
    cbuf__store_release(&team->pair.ring.file->state, CBUF__CLOSED);
    cbuf__wake(&team->pair.ring.readers->rows, CBUF__FREE, -1);
}
TEST(several_producers_publish_to_a_fast_a_stopped_and_a_lapped_consumer_and_leak_nothing)
{
    cbuf_options options = team_options(16, CBUF_OVERWRITE);
    cbuf_pool_options some = pool_options(80, 80, 0, 0, 0);
    struct team team;
    struct author authors[PRODUCERS];
    struct consumer consumers[3];
    memset(consumers, 0, sizeof consumers);
    open_team(&team, &options, &some, MOST_HANDLES - 1);
    for (int k = 0; k < 3; k++) {
        consumers[k].pool = &team.p->pools[PRODUCERS + k];
        consumers[k].slow = k == 0 ? 0 : k == 1 ? 200 : 20000;
        consumers[k].stops_at = k == 1 ? 50 : UINT64_MAX;
        assert_int_equal(cbuf_reader_open(&consumers[k].reader, &team.pair.consumer, NULL), 0);
        assert_int_equal(pthread_create(&consumers[k].thread, NULL, consume, &consumers[k]), 0);
    }
    run_authors(&team, authors, scaled(40000), 100);
    for (int k = 0; k < 3; k++) pthread_join(consumers[k].thread, NULL);
    for (int k = 0; k < 3; k++) assert_int_equal(consumers[k].fault, 0);
    assert_true(consumers[0].got > 0 && consumers[1].got <= 50);
    for (uint32_t k = 0; k < PRODUCERS; k++) assert_int_equal(held_by(team.p->pools, k), 0);
    assert_true(held_by(team.p->pools, PRODUCERS + 2) <= 4); /* what it kept when it stopped */
    for (int k = 0; k < 3; k++) cbuf_pool_close(consumers[k].pool);
    for (int k = 0; k < 3; k++) cbuf_reader_close(&consumers[k].reader);
    uint64_t owned = held(team.p->pools);
    assert_true(owned >= 16 && owned <= 32);
    close_team(&team, owned);
}

/* Each payload of each producer, in its order. */
static void *read_every_payload_of_many(void *argument)
{
    struct consumer *c = (struct consumer *)argument;
    uint64_t next[PRODUCERS] = { 0 };
    struct row row;
    while (!c->fault && cbuf_wait(&c->reader, 1, CBUF_FOREVER) > 0) {
        int n = cbuf_pool_read(c->pool, &c->reader, &row, offsetof(struct row, frame));
        uint64_t by = (uint64_t)row.time % PRODUCERS;
        c->fault |= n != 1 || !row.frame || (uint64_t)row.time / PRODUCERS != next[by]++;
        if (c->fault) break;
        c->fault |= !is_row(cbuf_pool_data(c->pool, row.frame), row.size, (uint64_t)row.time);
        c->fault |= cbuf_pool_release(c->pool, row.frame) < 0;
        c->got++;
    }
    cbuf_reader_close(&c->reader);
    return NULL;
}
TEST(a_gate_misses_no_payload_of_several_producers)
{
    cbuf_options options = team_options(8, CBUF_BLOCK);
    cbuf_pool_options some = pool_options(20, 20, 0, 0, 0);
    struct team team;
    struct author authors[PRODUCERS];
    struct consumer consumer;
    uint64_t rows = scaled(20000);
    memset(&consumer, 0, sizeof consumer);
    open_team(&team, &options, &some, HANDLES);
    consumer.pool = &team.p->pools[PRODUCERS];
    assert_int_equal(cbuf_reader_open(&consumer.reader, &team.pair.consumer, NULL), 0);
    assert_int_equal(
        pthread_create(&consumer.thread, NULL, read_every_payload_of_many, &consumer), 0);
    run_authors(&team, authors, rows, 0);
    pthread_join(consumer.thread, NULL);
    assert_int_equal(consumer.fault, 0);
    assert_int_equal(consumer.got, PRODUCERS * rows);
    close_team(&team, held(team.p->pools));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_payload_is_in_the_smallest_class_that_takes_it_64_byte_aligned),
        cmocka_unit_test(an_empty_class_falls_back_to_the_next_and_an_empty_pool_is_an_error),
        cmocka_unit_test(every_slot_can_be_had_and_no_slot_twice),
        cmocka_unit_test(a_clone_is_one_more_reference_and_the_last_release_frees),
        cmocka_unit_test(a_double_release_is_refused_and_changes_nothing),
        cmocka_unit_test(a_recycled_slot_cannot_be_retained),
        cmocka_unit_test(no_number_is_taken_for_a_ref_unless_the_pool_has_that_slot),
        cmocka_unit_test(a_length_that_was_tampered_with_stays_inside_its_slot),
        cmocka_unit_test(closing_gives_back_all_that_a_handle_holds_and_its_place),
        cmocka_unit_test(options_out_of_range_are_errors_that_name_value_and_limit),
        cmocka_unit_test(a_pool_whose_facts_are_damaged_is_refused_or_harmless),
        cmocka_unit_test(a_million_random_steps_agree_with_a_naive_model),
        cmocka_unit_test(a_column_of_type_ref_stands_in_the_schema),
        cmocka_unit_test(a_row_owns_its_references_until_it_is_overwritten),
        cmocka_unit_test(one_payload_may_be_in_many_rows_and_a_producer_may_keep_it),
        cmocka_unit_test(a_row_that_is_not_written_leaves_its_references_where_they_were),
        cmocka_unit_test(a_row_read_without_a_pool_is_an_error_and_stays_the_next_one),
        cmocka_unit_test(a_ring_without_refs_or_one_only_read_cannot_own),
        cmocka_unit_test(a_ring_opened_again_owns_what_its_places_say_and_no_more),
        cmocka_unit_test(a_ring_that_may_spill_or_has_a_log_cannot_own),
        cmocka_unit_test(rows_of_several_producers_own_what_a_naive_model_says),
        cmocka_unit_test(a_payload_is_in_one_row_of_several_producers_at_a_time),
        cmocka_unit_test(a_row_that_one_of_several_does_not_write_leaves_its_references),
        cmocka_unit_test(a_ring_that_the_last_of_several_closed_owns_what_its_places_say),
        cmocka_unit_test(threads_that_share_payloads_see_them_whole_and_leave_nothing_held),
        cmocka_unit_test(a_gate_that_holds_each_payload_before_it_moves_on_misses_none),
        cmocka_unit_test(publish_to_a_fast_a_slow_and_a_lapped_consumer_leaks_nothing),
        cmocka_unit_test(
            several_producers_publish_to_a_fast_a_stopped_and_a_lapped_consumer_and_leak_nothing),
        cmocka_unit_test(a_gate_misses_no_payload_of_several_producers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
