/* Delta columns: every value comes back bit for bit, whatever it is, by every way to write and to
 * read, over laps and successions; what does not fit is in the escape plane, and is counted. */
#include "check.h"

/* ---- rows of every type, beside columns that are no delta columns ---- */

struct all {
    int64_t time, i64;
    uint64_t u64;
    double price, other;
    char text[5];
    int8_t i8;
    uint8_t u8;
    bool flag;
    float small;
    int16_t i16;
    uint16_t u16;
    int32_t i32;
    uint32_t u32;
    int32_t plain;
};
static const cbuf_column columns[] = { CBUF_COLUMN_AS(struct all, time, CBUF_TIMESTAMP_NS),
    CBUF_COLUMN(struct all, i64), CBUF_COLUMN(struct all, u64), CBUF_COLUMN(struct all, price),
    CBUF_COLUMN(struct all, other), CBUF_COLUMN(struct all, text), CBUF_COLUMN(struct all, i8),
    CBUF_COLUMN(struct all, u8), CBUF_COLUMN(struct all, flag), CBUF_COLUMN(struct all, small),
    CBUF_COLUMN(struct all, i16), CBUF_COLUMN(struct all, u16), CBUF_COLUMN(struct all, i32),
    CBUF_COLUMN(struct all, u32), CBUF_COLUMN(struct all, plain) };

enum { DELTAS = 11, MODEL = 4096 };
static const char *const delta_names[DELTAS] = { "time", "i64", "u64", "price", "i8", "u8", "small",
    "i16", "u16", "i32", "u32" };
static const uint32_t widest[DELTAS] = { 32, 32, 32, 32, 8, 8, 32, 16, 16, 32, 32 };
static const double steps[] = { 0.01, 0.1, 1, 0.25, 1e-8, 0.0025, 5, 100, 0.05 };

/* Some of the columns as delta columns of some widths, in some order. */
static uint32_t choose_deltas(cbuf_delta *deltas, uint64_t *seed)
{
    uint32_t count = 0;
    for (uint32_t k = 0, start = (uint32_t)random_below(seed, DELTAS); k < DELTAS; k++) {
        uint32_t which = (start + k) % DELTAS;
        cbuf_delta *d = deltas + count;
        if (random_below(seed, 4) == 0) continue;
        memset(d, 0, sizeof *d);
        snprintf(d->name, sizeof d->name, "%s", delta_names[which]);
        do d->bits = 8u << random_below(seed, 3);
        while (d->bits > widest[which]);
        if (which == 3 || which == 6) d->step = steps[random_below(seed, COUNT_OF(steps))];
        count++;
    }
    if (!count) return choose_deltas(deltas, seed);
    return count;
}

/* What a value may do from row to row: walk a little, jump, be an extreme of its type, be any. */
static uint64_t next_value(uint64_t before, uint32_t bits, uint64_t *seed, int temper)
{
    static const uint64_t extremes[] = { 0, UINT64_MAX, 1, 1ull << 63, (1ull << 63) - 1, 1ull << 31,
        (1ull << 31) - 1, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 1ull << 7, 1ull << 15,
        1ull << 32 };
    uint64_t dice = random_below(seed, 100);
    if (temper == 0 || (temper == 1 && dice < 97)) return before + random_below(seed, 9) - 4;
    if (temper == 2 && dice < 50) return before + (1ull << random_below(seed, bits)) - dice;
    if (dice % 3 == 0) return extremes[random_below(seed, COUNT_OF(extremes))];
    if (dice % 3 == 1) return before + extremes[random_below(seed, COUNT_OF(extremes))];
    return next_random(seed);
}

/* Floats: whole numbers of some step, what is almost one, and everything that a float can be. */
static double next_price(double before, uint64_t *seed, int temper)
{
    static const uint64_t special[] = { 0x7ff0000000000000u, 0xfff0000000000000u,
        0x7ff0000000000001u, 0xfff8dead0000beefu, 0x8000000000000000u, 1, 0x8000000000000001u,
        0x000fffffffffffffu, 0x7fefffffffffffffu, 0x4330000000000000u, 0x4340000000000000u,
        0x4320000000000000u, 0x431fffffffffffffu, 0xc330000000000000u, 0xc31fffffffffffffu };
    uint64_t dice = random_below(seed, 100), bits;
    double value;
    if (before > -1e12 && before < 1e12 && (temper == 0 || dice < 90)) {
        double hundreds = (double)(int64_t)(before * 100);
        return (hundreds + (double)random_below(seed, 7) - 3) / 100;
    }
    if (dice < 93) return (double)(int64_t)random_below(seed, 2000000) / 100 - 10000;
    if (dice < 94) return (double)(int64_t)random_below(seed, 2000000) * 0.01;
    bits = dice < 98 ? special[random_below(seed, COUNT_OF(special))] : next_random(seed);
    memcpy(&value, &bits, 8);
    return value;
}
static float next_small(float before, uint64_t *seed, int temper)
{
    uint64_t dice = random_below(seed, 100);
    uint32_t bits = (uint32_t)next_random(seed);
    float value;
    if (before > -1e5f && before < 1e5f && (temper == 0 || dice < 90))
        return (float)((double)(int64_t)((double)before * 10) + (double)random_below(seed, 7) - 3) / 10;
    if (dice < 95) return (float)random_below(seed, 1000) / 10;
    memcpy(&value, &bits, 4);
    return value;
}

static void next_row(struct all *row, uint64_t *seed, int temper)
{
    row->time = (int64_t)next_value((uint64_t)row->time, 64, seed, temper);
    row->i64 = (int64_t)next_value((uint64_t)row->i64, 64, seed, temper);
    row->u64 = next_value(row->u64, 64, seed, temper);
    row->price = next_price(row->price, seed, temper);
    row->small = next_small(row->small, seed, temper);
    row->other = (double)next_random(seed);
    memcpy(row->text, &row->other, sizeof row->text);
    row->i8 = (int8_t)next_value((uint64_t)row->i8, 8, seed, temper);
    row->u8 = (uint8_t)next_value(row->u8, 8, seed, temper);
    row->flag = random_below(seed, 2) == 1;
    row->i16 = (int16_t)next_value((uint64_t)row->i16, 16, seed, temper);
    row->u16 = (uint16_t)next_value(row->u16, 16, seed, temper);
    row->i32 = (int32_t)next_value((uint64_t)row->i32, 32, seed, temper);
    row->u32 = (uint32_t)next_value(row->u32, 32, seed, temper);
    row->plain = (int32_t)next_random(seed);
}

static void check_row(const struct all *is, const struct all *wanted, uint64_t sequence)
{
    for (size_t k = 0; k < COUNT_OF(columns); k++)
        if (memcmp((const char *)is + columns[k].offset, (const char *)wanted + columns[k].offset,
                CBUF_TYPE_BYTES(columns[k].type)))
            fail_msg("row %llu, column %s", (unsigned long long)sequence, columns[k].name);
}

/* ---- a ring and a naive model of it ---- */

struct scene {
    cbuf_delta deltas[DELTAS];
    cbuf_options options;
    struct pair pair;
    struct follower_of_all {
        cbuf_reader reader;
        uint64_t next;
    } readers[2];
    struct all written[MODEL], row; /* row i is written[i % MODEL] */
    uint64_t seed;
    int temper;
};

static cbuf_options all_options(struct scene *scene, uint64_t capacity)
{
    cbuf_options options = options_of(capacity, columns, (uint32_t)COUNT_OF(columns));
    options.row_bytes = sizeof(struct all);
    options.deltas = scene->deltas;
    options.delta_count = choose_deltas(scene->deltas, &scene->seed);
    return options;
}

static void write_some(struct scene *scene, cbuf_ring *ring)
{
    struct all rows[300];
    uint64_t head = cbuf_head(ring), n = 1;
    if (random_below(&scene->seed, 2)) n = 1 + random_below(&scene->seed, COUNT_OF(rows));
    memset(rows, 0, sizeof rows);
    for (uint64_t i = 0; i < n; i++) {
        next_row(&scene->row, &scene->seed, scene->temper);
        rows[i] = scene->row;
    }
    int64_t written = n == 1 ? cbuf_write(ring, rows) : cbuf_write_n(ring, rows, n);
    assert_true(written >= 0 && (uint64_t)written <= n);
    assert_int_equal(cbuf_head(ring), head + (uint64_t)written);
    for (uint64_t i = 0; i < (uint64_t)written; i++) scene->written[(head + i) % MODEL] = rows[i];
    if (ring->options.on_full == CBUF_OVERWRITE) assert_int_equal(written, n);
}

static void read_some(struct scene *scene, struct follower_of_all *follower)
{
    struct all rows[300];
    cbuf_reader *reader = &follower->reader;
    uint32_t most = 1 + (uint32_t)random_below(&scene->seed, COUNT_OF(rows));
    uint64_t lost = cbuf_lost(reader);
    int64_t n = cbuf_read(reader, rows, most);
    assert_true(n >= 0 && n <= most);
    if (!n) return;
    assert_int_equal(cbuf_first(reader), follower->next + (cbuf_lost(reader) - lost));
    assert_true(cbuf_lost(reader) == lost || cbuf_first(reader) == cbuf_oldest(reader->ring));
    for (int64_t i = 0; i < n; i++) {
        uint64_t sequence = cbuf_first(reader) + (uint64_t)i;
        check_row(&rows[i], &scene->written[sequence % MODEL], sequence);
    }
    follower->next = cbuf_first(reader) + (uint64_t)n;
}

static void observe_some(struct scene *scene, const cbuf_ring *ring)
{
    struct all rows[300];
    uint64_t first, head = cbuf_head(ring), oldest = cbuf_oldest(ring);
    uint32_t most = (uint32_t)random_below(&scene->seed, COUNT_OF(rows));
    int64_t n = cbuf_snapshot(ring, rows, most, &first);
    uint64_t there = head > oldest ? head - oldest : 0;
    assert_int_equal(n, there < most ? there : most);
    for (int64_t i = 0; i < n; i++)
        check_row(&rows[i], &scene->written[(first + (uint64_t)i) % MODEL], first + (uint64_t)i);
    if (!there) return;
    assert_int_equal(cbuf_latest(ring, rows, &first), 1);
    assert_int_equal(first, head - 1);
    check_row(rows, &scene->written[first % MODEL], first);
}

/* `operations` random ones on one ring. */
static void play(struct scene *scene, uint64_t operations)
{
    for (uint64_t i = 0; i < operations; i++) {
        uint64_t dice = random_below(&scene->seed, 8);
        if (dice < 3) write_some(scene, &scene->pair.ring);
        else if (dice < 6) read_some(scene, &scene->readers[dice & 1]);
        else observe_some(scene, &scene->pair.consumer);
        if (random_below(&scene->seed, 64) == 0) scene->temper = (int)random_below(&scene->seed, 4);
        if (random_below(&scene->seed, 64) == 0) { /* another producer */
            cbuf__take_over(&scene->pair.consumer);
            cbuf_ring ring = scene->pair.ring;
            (void)ring;
            scene->pair.consumer.producer = false;
            cbuf__take_over(&scene->pair.ring);
        }
    }
}

static void play_ring(uint64_t seed, uint8_t layout, uint8_t on_full)
{
    static struct scene scene;
    memset(&scene, 0, sizeof scene);
    scene.seed = seed;
    uint64_t capacity = 2ull << random_below(&scene.seed, 11);
    cbuf_options options = all_options(&scene, capacity);
    options.layout = layout;
    options.on_full = on_full;
    options.pad_rows = random_below(&scene.seed, 3) == 0;
    options.block_rows = 1 + (uint32_t)random_below(&scene.seed, capacity / 2);
    if (random_below(&scene.seed, 2)) options.block_rows = 0;
    open_pair(&scene.pair, &options);
    for (int k = 0; k < 2; k++)
        assert_int_equal(
            cbuf_reader_open(&scene.readers[k].reader, &scene.pair.consumer, NULL), 0);
    play(&scene, scaled(200));
    for (int k = 0; k < 2; k++) cbuf_reader_close(&scene.readers[k].reader);
    close_pair(&scene.pair);
}

TEST(every_value_comes_back_bit_for_bit)
{
    for (uint64_t i = 0; i < scaled(600); i++) play_ring(i + 1, i % 2, i / 2 % 2 ? CBUF_DROP_NEWEST : 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_comes_back_bit_for_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
