/* Delta columns: every value comes back bit for bit, whatever it is, by every way to write and to
 * read, over laps and successions; what does not fit is in the escape plane, and is counted. */
#include "check.h"

#include "cbuf_advise.h"

#include <float.h>
#include <pthread.h>

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
        return (float)((int64_t)((double)before * 10) + (int64_t)random_below(seed, 7) - 3) / 10;
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

struct follower_of_all {
    cbuf_reader reader;
    uint64_t next;
};
struct scene {
    cbuf_delta deltas[DELTAS];
    cbuf_options options;
    struct pair pair;
    struct follower_of_all readers[2];
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
        if (random_below(&scene->seed, 64) == 0) { /* a successor, who knows nothing */
            for (uint32_t k = 0; k < DELTAS; k++) scene->pair.ring.codec.delta[k].base = 77;
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
    for (uint64_t i = 0; i < scaled(600); i++)
        play_ring(i + 1, i % 2, i / 2 % 2 ? CBUF_DROP_NEWEST : CBUF_OVERWRITE);
}

/* ---- ticks: what is stored where, and what is counted ---- */

static const cbuf_delta tick_deltas[] = { { "time", 32, 0 }, { "bid", 16, 0.01 },
    { "ask", 8, 0.01 }, { "size", 8, 0 } };
static cbuf_options delta_options(uint64_t capacity)
{
    cbuf_options options = tick_options(capacity);
    options.deltas = tick_deltas;
    options.delta_count = (uint32_t)COUNT_OF(tick_deltas);
    return options;
}
static struct tick cents(uint64_t sequence)
{
    struct tick tick;
    memset(&tick, 0, sizeof tick);
    tick.time = 1700000000000000000 + (int64_t)sequence * 1000000;
    tick.bid = (double)(10000 + (int64_t)sequence % 50) / 100;
    tick.ask = (double)(10001 + (int64_t)sequence % 50) / 100;
    tick.size = (int32_t)(sequence % 100);
    return tick;
}
static bool same_tick(const struct tick *a, const struct tick *b)
{
    return !memcmp(a, b, offsetof(struct tick, size) + sizeof a->size);
}
static uint64_t escapes_of(const cbuf_ring *ring, uint32_t index)
{
    uint64_t escapes = UINT64_MAX;
    assert_int_equal(cbuf_delta_at(ring, index, NULL, &escapes), 0);
    return escapes;
}

TEST(ticks_take_half_the_space_and_escapes_are_counted_by_column)
{
    struct pair pair;
    cbuf_delta delta;
    cbuf_options options = delta_options(256);
    open_pair(&pair, &options);
    assert_int_equal(cbuf_stride(&pair.ring), 16);
    assert_int_equal(cbuf_resolved(&pair.consumer)->row_bytes, sizeof(struct tick));
    assert_int_equal(cbuf_resolved(&pair.consumer)->block_rows, 64);
    for (uint32_t k = 0; k < 4; k++) {
        assert_int_equal(cbuf_delta_at(&pair.consumer, k, &delta, NULL), 0);
        assert_string_equal(delta.name, tick_deltas[k].name);
        assert_int_equal(delta.bits, tick_deltas[k].bits);
        assert_memory_equal(&delta.step, &tick_deltas[k].step, sizeof delta.step);
    }
    assert_int_equal(cbuf_delta_at(&pair.consumer, 4, &delta, NULL), CBUF_EINVAL);
    for (uint64_t i = 0; i < 1000; i++) {
        struct tick tick = cents(i), back;
        if (i % 10 == 5) tick.ask = 100.005; /* no whole number of cents */
        if (i % 100 == 7) tick.bid = 1000000;
        if (i == 77) tick.time = 0;
        assert_int_equal(cbuf_write(&pair.ring, &tick), 1);
        assert_int_equal(cbuf_latest(&pair.consumer, &back, NULL), 1);
        assert_true(same_tick(&tick, &back));
    }
    assert_int_equal(escapes_of(&pair.consumer, 0), 1);
    assert_int_equal(escapes_of(&pair.consumer, 1), 10);
    assert_int_equal(escapes_of(&pair.consumer, 2), 100);
    assert_int_equal(escapes_of(&pair.consumer, 3), 0);
    close_pair(&pair);
}

/* A row of a column of 8 bits and `text` bytes more, whose neighbours have other bytes. */
static void narrow_row(unsigned char *row, uint64_t sequence, uint32_t text)
{
    for (uint32_t k = 0; k <= text; k++) row[k] = (unsigned char)(sequence * 7 + k + 1);
}
static void check_narrow(uint64_t capacity, uint32_t block_rows, uint32_t text, uint64_t batch)
{
    struct pair pair;
    unsigned char rows[64 * 8], wanted[8];
    uint64_t first, sequence = 0;
    const cbuf_column narrow[] = { { "a", CBUF_UINT8, 0 }, { "b", CBUF_BYTES(text), 1 } };
    const cbuf_delta delta = { "a", 8, 0 };
    cbuf_options options = options_of(capacity, narrow, text ? 2 : 1);
    options.row_bytes = 1 + text;
    options.layout = CBUF_DENSE;
    options.deltas = &delta;
    options.delta_count = 1;
    options.block_rows = block_rows;
    open_pair(&pair, &options);
    while (sequence < 3 * capacity + 5) {
        for (uint64_t i = 0; i < batch; i++) narrow_row(rows + i * (1 + text), sequence + i, text);
        assert_int_equal(cbuf_write_n(&pair.ring, rows, batch), batch);
        sequence += batch;
        int64_t n = cbuf_snapshot(&pair.consumer, rows, 64, &first);
        assert_int_equal(first + (uint64_t)n, sequence);
        for (uint64_t i = 0; i < (uint64_t)n; i++) {
            narrow_row(wanted, first + i, text);
            assert_memory_equal(rows + i * (1 + text), wanted, 1 + text);
        }
    }
    close_pair(&pair);
}
TEST(a_row_leaves_the_bytes_of_other_blocks_in_its_word_as_they_are)
{
    for (uint64_t capacity = 2; capacity <= 64; capacity *= 2)
        for (uint32_t block_rows = 1; block_rows <= capacity / 2; block_rows *= 2)
            for (uint32_t text = 0; text < 7; text++)
                for (uint64_t batch = 1; batch <= 3; batch++)
                    check_narrow(capacity, block_rows, text, batch);
}

/* The bytes of a row, and what the file says of them. */
static void check_stride(const cbuf_options *options, uint32_t stride)
{
    struct pair pair;
    struct tick ticks[300], back[300];
    uint64_t first;
    open_pair(&pair, options);
    uint64_t features = pair.ring.file->facts.features;
    assert_int_equal(cbuf_stride(&pair.consumer), stride);
    assert_int_equal((features & CBUF__PACKED) != 0, stride % 8 != 0);
    for (uint64_t i = 0; i < 300; i++) ticks[i] = cents(i);
    for (uint64_t i = 0, n = 1; i < 300; i += n, n = n % 7 + 1)
        assert_int_equal(cbuf_write_n(&pair.ring, ticks + i, n < 300 - i ? n : 300 - i),
            n < 300 - i ? n : 300 - i);
    int64_t n = cbuf_snapshot(&pair.consumer, back, 300, &first);
    assert_true(n >= 128);
    for (int64_t i = 0; i < n; i++)
        assert_true(same_tick(&back[i], &ticks[first + (uint64_t)i]));
    const uint32_t end = stride - (pair.ring.dense ? 0 : 4);
    for (uint32_t row = 0; row < 256; row++) /* what nobody wrote on the way came from nowhere */
        for (uint32_t at = pair.ring.codec.stored_bytes; at < end; at++)
            assert_int_equal(pair.ring.rows[row * stride + at], 0);
    close_pair(&pair);
}
TEST(dense_rows_take_the_bytes_of_their_columns_and_whole_words_if_padded)
{
    cbuf_options options = delta_options(256);
    cbuf_delta narrow[] = { { "time", 32, 0 }, { "bid", 8, 0.01 }, { "ask", 8, 0.01 },
        { "size", 16, 0 } };
    check_stride(&options, 16);
    options.layout = CBUF_DENSE;
    check_stride(&options, 4 + 2 + 1 + 1);
    options.deltas = narrow;
    narrow[1].bits = 16;
    check_stride(&options, 4 + 2 + 1 + 2);
    narrow[1].bits = 8;
    options.delta_count = 3;
    check_stride(&options, 4 + 1 + 1 + 4);
    options.pad_rows = true; /* these, and those of the numbered layout, are as they ever were */
    check_stride(&options, 16);
    options.delta_count = 4;
    narrow[0].bits = narrow[3].bits = 8;
    check_stride(&options, 8);
    options.pad_rows = false;
    check_stride(&options, 1 + 1 + 1 + 1);
}

TEST(a_stride_and_what_is_said_of_it_go_with_each_other_or_the_ring_is_refused)
{
    static unsigned char memory[1 << 16] __attribute__((aligned(128)));
    cbuf_ring ring;
    cbuf_options options = delta_options(64);
    for (int way = 0; way < 6; way++) {
        options.delta_count = way == 4 ? 4 : 3;
        options.layout = way == 5 ? CBUF_NUMBERED : CBUF_DENSE;
        memset(memory, 0, sizeof memory);
        assert_int_equal(cbuf_create_in(&ring, memory, sizeof memory, &options), 0);
        cbuf__facts *facts = &ring.file->facts;
        cbuf_close(&ring);
        if (way == 1) facts->features &= ~(uint64_t)CBUF__PACKED;
        if (way == 2) facts->features &= ~(uint64_t)CBUF__DENSE;
        if (way == 3) facts->stride = 16;
        if (way >= 4) facts->features |= CBUF__PACKED;
        if (way == 5) facts->stride = 13;
        int error = cbuf_attach_in(&ring, memory, sizeof memory);
        assert_int_equal(error, way == 0 ? 0 : CBUF_EFORMAT);
        cbuf_close(&ring);
    }
}

/* What is stored is the difference of whole numbers, also for readers who compute in other ways:
 * beyond 2^51 steps there are none. */
TEST(floats_of_too_many_steps_are_escapes)
{
    struct row { double x; };
    typedef struct row a_row;
    const cbuf_column one[] = { CBUF_COLUMN(a_row, x) };
    const cbuf_delta deltas[] = { { "x", 16, 1 } };
    const double edge = 2251799813685248.0; /* 2^51 */
    for (uint64_t batch = 1; batch <= 8; batch++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            struct row rows[16], back[16];
            struct pair pair;
            uint64_t beyond = 0;
            cbuf_options options = options_of(64, one, 1);
            options.deltas = deltas;
            options.delta_count = 1;
            for (int i = 0; i < 16; i++) {
                rows[i].x = sign * (edge + 2 * (i - 8));
                beyond += i > 8 || (i == 8 && sign > 0);
            }
            open_pair(&pair, &options);
            for (uint64_t i = 0; i < 16; i += batch) {
                uint64_t n = i + batch < 16 ? batch : 16 - i;
                assert_int_equal(cbuf_write_n(&pair.ring, rows + i, n), n);
            }
            assert_int_equal(cbuf_snapshot(&pair.consumer, back, 16, NULL), 16);
            assert_memory_equal(rows, back, sizeof rows);
            assert_int_equal(escapes_of(&pair.ring, 0), beyond);
            close_pair(&pair);
        }
    }
}

TEST(every_multiple_of_a_decimal_step_fits)
{
    static const struct { double step; int64_t multiple, divisor; } cases[] = { { 0.01, 1, 100 },
        { 0.05, 5, 100 }, { 1e-8, 1, 100000000 }, { 0.25, 25, 100 }, { 0.0025, 25, 10000 },
        { 3, 3, 1 }, { 1000, 1000, 1 } };
    struct row { double x; float y; } __attribute__((aligned(8)));
    typedef struct row a_row;
    const cbuf_column two[] = { CBUF_COLUMN(a_row, x), CBUF_COLUMN(a_row, y) };
    const bool rounds_once = FLT_EVAL_METHOD == 0;
    for (size_t c = 0; c < COUNT_OF(cases); c++) {
        const cbuf_delta deltas[] = { { "x", 32, cases[c].step }, { "y", 32, cases[c].step } };
        cbuf_options options = options_of(64, two, 2);
        struct pair pair;
        options.row_bytes = sizeof(struct row);
        options.deltas = deltas;
        options.delta_count = 2;
        open_pair(&pair, &options);
        for (int64_t i = -20000; i < 20000; i++) {
            double value = (double)(i * cases[c].multiple) / (double)cases[c].divisor;
            struct row row[4] = { { value, (float)value } }, back[4];
            const uint64_t n = i % 2 ? 4 : 1; /* four times, or once */
            if (i == 0) row[0].x = 0, row[0].y = 0;
            for (uint64_t k = 1; k < n; k++) row[k] = row[0];
            assert_int_equal(cbuf_write_n(&pair.ring, row, n), n);
            assert_int_equal(cbuf_snapshot(&pair.consumer, back, (uint32_t)n, NULL), n);
            for (uint64_t k = 0; k < n; k++) {
                assert_memory_equal(&row[k].x, &back[k].x, sizeof row[k].x);
                assert_memory_equal(&row[k].y, &back[k].y, sizeof row[k].y);
            }
        }
        /* where this test itself rounds twice (the 387 does) some are no multiples */
        assert_true(escapes_of(&pair.ring, 0) <= (rounds_once ? 0 : 1000));
        assert_true(escapes_of(&pair.ring, 1) <= (rounds_once ? 0 : 1000));
        close_pair(&pair);
    }
}

TEST(rows_with_delta_columns_are_not_used_in_place)
{
    struct pair pair;
    cbuf_reader reader;
    const void *rows = &pair;
    int64_t granted = 1;
    struct tick tick = cents(0);
    cbuf_options options = delta_options(64);
    open_pair(&pair, &options);
    assert_int_equal(cbuf_write(&pair.ring, &tick), 1);
    assert_null(cbuf_claim(&pair.ring, 1, &granted));
    assert_int_equal(granted, CBUF_EDELTA);
    assert_int_equal(cbuf_publish(&pair.ring, 1), CBUF_EINVAL);
    assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
    assert_int_equal(cbuf_peek(&reader, 1, &rows), CBUF_EDELTA);
    assert_null(rows);
    cbuf_reader_close(&reader);
    close_pair(&pair);
}

TEST(a_value_is_sought_and_the_newest_ones_age_is_known)
{
    for (uint8_t layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++) {
        struct pair pair;
        cbuf_reader reader;
        cbuf_stats stats;
        cbuf_options options = delta_options(1024);
        options.layout = layout;
        open_pair(&pair, &options);
        assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
        for (uint64_t i = 0; i < 5000; i++) {
            struct tick tick = cents(i);
            if (i < 4500) tick.time -= 1000000000000; /* a jump, which no block has a base for */
            assert_int_equal(cbuf_write(&pair.ring, &tick), 1);
        }
        for (uint64_t i = cbuf_oldest(&pair.ring); i < 5000; i += 7) {
            struct tick tick = cents(i), back;
            if (i < 4500) tick.time -= 1000000000000;
            int64_t between = tick.time - 1;
            assert_int_equal(cbuf_seek_value(&reader, &tick_columns[0], &between), 0);
            assert_int_equal(cbuf_read(&reader, &back, 1), 1);
            assert_int_equal(cbuf_first(&reader), i);
            assert_true(same_tick(&tick, &back));
        }
        assert_int_equal(cbuf_stats_get(&pair.consumer, &stats), 0);
        assert_int_not_equal(stats.newest_age_ns, -1);
        cbuf_reader_close(&reader);
        close_pair(&pair);
    }
}

TEST(bad_choices_of_delta_columns_are_refused_and_named)
{
    static const struct { cbuf_delta delta; int error; } cases[] = {
        { { "none", 8, 0 }, CBUF_ESCHEMA }, { { "time", 0, 0 }, CBUF_ESCHEMA },
        { { "time", 64, 0 }, CBUF_ESCHEMA }, { { "time", 12, 0 }, CBUF_ESCHEMA },
        { { "i8", 16, 0 }, CBUF_ESCHEMA }, { { "time", 8, 0.01 }, CBUF_ESCHEMA },
        { { "price", 8, 0 }, CBUF_ESCHEMA }, { { "price", 8, -0.01 }, CBUF_ESCHEMA },
        { { "price", 8, 1.0 / 3 }, CBUF_ESCHEMA }, { { "price", 8, 1e300 }, CBUF_ESCHEMA },
        { { "text", 8, 0 }, CBUF_ESCHEMA }, { { "flag", 8, 0 }, CBUF_ESCHEMA },
        { { "i8", 8, 0 }, 0 }, { { "price", 32, 0.01 }, 0 } };
    static unsigned char memory[1 << 16] __attribute__((aligned(128)));
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        cbuf_ring ring;
        cbuf_options options = options_of(16, columns, (uint32_t)COUNT_OF(columns));
        options.row_bytes = sizeof(struct all);
        options.deltas = &cases[k].delta;
        options.delta_count = 1;
        assert_int_equal(cbuf_create_in(&ring, memory, sizeof memory, &options), cases[k].error);
        if (cases[k].error) assert_true(strlen(cbuf_error(&ring)) > 20);
        cbuf_close(&ring);
        options.block_rows = 9; /* becomes 16, more than half of 16 */
        assert_int_not_equal(cbuf_create_in(&ring, memory, sizeof memory, &options), 0);
        options.block_rows = 0;
        options.in_place = true;
        assert_int_not_equal(cbuf_create_in(&ring, memory, sizeof memory, &options), 0);
    }
    const cbuf_delta twice[] = { { "time", 8, 0 }, { "time", 16, 0 } };
    cbuf_ring ring;
    cbuf_options options = tick_options(16);
    options.deltas = twice;
    options.delta_count = 2;
    assert_int_equal(cbuf_create_in(&ring, memory, sizeof memory, &options), CBUF_ESCHEMA);
    options.deltas = NULL;
    assert_int_equal(cbuf_create_in(&ring, memory, sizeof memory, &options), CBUF_ESCHEMA);
    assert_non_null(strstr(cbuf_error(&ring), "NULL"));
}

/* ---- files ---- */

static uint64_t blocks_of(const char *name)
{
    char path[128];
    struct stat file;
    snprintf(path, sizeof path, "/dev/shm/%s", name);
    assert_int_equal(stat(path, &file), 0);
    return (uint64_t)file.st_blocks;
}

TEST(the_escape_plane_takes_no_space_until_it_is_needed_and_then_by_pages)
{
    cbuf_ring ring;
    cbuf_options options = delta_options(65536);
    options.name = unique_name();
    options.memory.populate = CBUF_REQUIRE;
    assert_int_equal(cbuf_create(&ring, &options), 0);
    uint64_t before = blocks_of(options.name);
    assert_true(before * 512 < 65536 * 17 + 16384);
    for (uint64_t i = 0; i < 3000; i++) {
        struct tick tick = cents(i), back;
        if (i >= 1024) assert_int_equal(cbuf_write(&ring, &tick), 1);
        else tick.size += 1000 * (int32_t)(i % 2), assert_int_equal(cbuf_write(&ring, &tick), 1);
        assert_int_equal(cbuf_latest(&ring, &back, NULL), 1);
        assert_true(same_tick(&tick, &back));
    }
    assert_int_equal(blocks_of(options.name) - before, 2 * 8); /* 1,024 rows of one column */
    cbuf_close(&ring);
    assert_int_equal(cbuf_remove(options.name), 0);
}

TEST(a_ring_is_continued_if_its_delta_columns_are_the_same)
{
    cbuf_ring ring;
    cbuf_delta other[4];
    cbuf_options options = delta_options(256);
    options.name = unique_name();
    assert_int_equal(cbuf_create(&ring, &options), 0);
    for (uint64_t i = 0; i < 1000; i++) {
        struct tick tick = cents(i);
        assert_int_equal(cbuf_write(&ring, &tick), 1);
        if (i * 7 % 5) continue; /* another producer */
        cbuf_close(&ring);
        assert_int_equal(cbuf_create(&ring, &options), 0);
    }
    struct tick rows[256];
    uint64_t first;
    int64_t n = cbuf_snapshot(&ring, rows, 256, &first);
    assert_true(n > 128);
    for (int64_t i = 0; i < n; i++) {
        struct tick tick = cents(first + (uint64_t)i);
        assert_true(same_tick(&tick, &rows[i]));
    }
    cbuf_close(&ring);
    for (int way = 0; way < 5; way++) {
        cbuf_options wanted = options;
        memcpy(other, tick_deltas, sizeof other);
        wanted.deltas = other;
        if (way == 0) wanted.delta_count = 0;
        if (way == 1) wanted.block_rows = 32;
        if (way == 2) other[1].bits = 8, other[2].bits = 16;
        if (way == 3) other[1].step = 0.001;
        if (way == 4) wanted.delta_count = 3;
        assert_int_equal(cbuf_create(&ring, &wanted), CBUF_EMISMATCH);
    }
    assert_int_equal(cbuf_create(&ring, &options), 0);
    cbuf_close(&ring);
    assert_int_equal(cbuf_remove(options.name), 0);
}

TEST(a_locked_ring_has_delta_columns_too)
{
    cbuf_ring ring, consumer;
    cbuf_reader reader;
    cbuf_options options = delta_options(64);
    options.name = unique_name();
    options.locked = true;
    assert_int_equal(cbuf_create(&ring, &options), 0);
    assert_int_equal(cbuf_attach(&consumer, options.name, NULL), 0);
    assert_int_equal(cbuf_reader_open(&reader, &consumer, NULL), 0);
    for (uint64_t i = 0; i < 300; i++) {
        struct tick tick = cents(i), back;
        if (i % 5 == 0) tick.ask = -0.0;
        assert_int_equal(cbuf_write_n(&ring, &tick, 1), 1);
        assert_int_equal(cbuf_read(&reader, &back, 1), 1);
        assert_true(same_tick(&tick, &back));
    }
    cbuf_reader_close(&reader);
    cbuf_close(&consumer);
    cbuf_close(&ring);
    assert_int_equal(cbuf_remove(options.name), 0);
}

/* ---- threads ---- */

struct race {
    struct pair pair;
    uint64_t rows;
    bool over; /* atomic */
};
/* Values that walk, and that jump now and then, so that bases and escapes are overwritten. */
static struct tick racing(uint64_t sequence)
{
    struct tick tick = cents(sequence);
    if (sequence % 7 == 3) tick.ask = -(double)sequence;
    if (sequence % 64 > 40) tick.size = (int32_t)sequence;
    return tick;
}
static void *read_racing(void *argument)
{
    struct race *race = (struct race *)argument;
    cbuf_reader reader;
    struct tick rows[50];
    uint64_t got = 0;
    bool over = false;
    if (cbuf_reader_open(&reader, &race->pair.consumer, NULL)) abort();
    uint64_t began = reader.cursor, start = 0;
    for (;;) {
        over = __atomic_load_n(&race->over, __ATOMIC_ACQUIRE);
        int64_t n = cbuf_read(&reader, rows, 1 + (uint32_t)(got % 50));
        for (int64_t i = 0; i < n; i++) {
            struct tick wanted = racing(cbuf_first(&reader) + (uint64_t)i);
            if (!same_tick(&rows[i], &wanted)) abort();
        }
        got += (uint64_t)n;
        n = cbuf_snapshot(&race->pair.consumer, rows, 50, &start);
        for (int64_t i = 0; i < n; i++) {
            struct tick wanted = racing(start + (uint64_t)i);
            if (!same_tick(&rows[i], &wanted)) abort();
        }
        if (over && !cbuf_available(&reader)) break;
    }
    if (got + cbuf_lost(&reader) != race->rows - began) abort();
    cbuf_reader_close(&reader);
    return NULL;
}

TEST(readers_in_other_threads_get_every_row_whole_or_counted)
{
    for (uint8_t layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++) {
        static struct race race;
        pthread_t readers[2];
        cbuf_options options = delta_options(512);
        memset(&race, 0, sizeof race);
        options.layout = layout;
        options.block_rows = 16;
        race.rows = scaled(1000000);
        open_pair(&race.pair, &options);
        for (int k = 0; k < 2; k++)
            assert_int_equal(pthread_create(&readers[k], NULL, read_racing, &race), 0);
        for (uint64_t i = 0; i < race.rows;) {
            struct tick rows[20];
            uint64_t n = 1 + i % 20;
            if (n > race.rows - i) n = race.rows - i;
            for (uint64_t k = 0; k < n; k++) rows[k] = racing(i + k);
            assert_int_equal(cbuf_write_n(&race.pair.ring, rows, n), n);
            i += n;
        }
        __atomic_store_n(&race.over, true, __ATOMIC_RELEASE);
        for (int k = 0; k < 2; k++) pthread_join(readers[k], NULL);
        close_pair(&race.pair);
    }
}

/* ---- advice ---- */

TEST(advice_finds_steps_and_widths_and_a_ring_made_so_takes_what_was_promised)
{
    enum { N = 8192 };
    static struct tick rows[N];
    uint64_t seed = 5, escapes = 0;
    int64_t price = 10000;
    const double cent = 0.01, nickel = 0.05;
    cbuf_advice advice;
    struct pair pair;
    memset(rows, 0, sizeof rows);
    for (int i = 0; i < N; i++) {
        rows[i].time = 1700000000000000000 + (int64_t)i * 1000000;
        rows[i].time += (int64_t)random_below(&seed, 1000);
        price += (int64_t)random_below(&seed, 3) - 1;
        rows[i].bid = (double)price / 100;
        rows[i].ask = (double)(price / 5 * 5 + 5) / 100; /* steps of 0.05 */
        rows[i].size = (int32_t)random_below(&seed, 100);
    }
    assert_int_equal(
        cbuf_advise(tick_columns, 4, sizeof(struct tick), rows, N, &advice), 0);
    assert_true(advice.stored_bytes < 9 && advice.plain_bytes > 31);
    cbuf_options options = tick_options(N);
    options.deltas = advice.deltas;
    options.delta_count = advice.delta_count;
    options.block_rows = advice.block_rows;
    options.layout = advice.layout;
    open_pair(&pair, &options);
    assert_int_equal(cbuf_write_n(&pair.ring, rows, N), N);
    for (uint32_t k = 0; k < advice.delta_count; k++) {
        escapes += escapes_of(&pair.ring, k);
        assert_true(escapes_of(&pair.ring, k) == (uint64_t)(advice.escapes[k] * (double)N + 0.5));
        if (!strcmp(advice.deltas[k].name, "bid"))
            assert_memory_equal(&advice.deltas[k].step, &cent, sizeof cent);
        if (!strcmp(advice.deltas[k].name, "ask"))
            assert_memory_equal(&advice.deltas[k].step, &nickel, sizeof nickel);
    }
    assert_true(escapes < N / 100);
    assert_true(cbuf_stride(&pair.ring) <= advice.stored_bytes);
    close_pair(&pair);
    assert_int_equal(
        cbuf_advise(tick_columns, 4, sizeof(struct tick), rows, 1, &advice), CBUF_EINVAL);
}

TEST(advice_is_never_a_ring_that_is_refused)
{
    enum { N = 20, BYTES = 6000, COLUMNS = 140 };
    static unsigned char rows[N * BYTES];
    static cbuf_column some[COLUMNS];
    static const uint32_t gaps[] = { 0, 3 };
    for (size_t way = 0; way < 2 * COUNT_OF(gaps); way++) {
        uint32_t end = 0, gap = gaps[way / 2], last = way % 2 ? 4000 : 1;
        cbuf_advice advice;
        struct pair pair;
        for (uint32_t k = 0; k < COLUMNS; k++) {
            snprintf(some[k].name, sizeof some[k].name, "c%u", k);
            some[k].type = k < COLUMNS / 2 ? (uint32_t)CBUF_INT64 : (uint32_t)CBUF_BOOL;
            if (k == COLUMNS - 1) some[k].type = CBUF_BYTES(last);
            some[k].offset = end;
            end += CBUF_TYPE_BYTES(some[k].type) + gap;
        }
        assert_int_equal(cbuf_advise(some, COLUMNS, end, rows, N, &advice), 0);
        assert_int_equal(advice.delta_count, way == 0 ? CBUF_MAX_DELTAS : 0);
        cbuf_options options = options_of(1024, some, COLUMNS);
        options.row_bytes = end;
        options.deltas = advice.deltas;
        options.delta_count = advice.delta_count;
        options.block_rows = advice.block_rows;
        options.layout = advice.layout;
        open_pair(&pair, &options);
        close_pair(&pair);
    }
    cbuf_advice advice;
    some[0].type = CBUF_INT64 + 8; /* of 16 bytes: no type */
    assert_int_equal(cbuf_advise(some, 1, 16, rows, N, &advice), CBUF_EINVAL);
}
TEST(advice_against_noise_is_to_leave_it_as_it_is)
{
    enum { N = 2048 };
    static struct tick rows[N];
    uint64_t seed = 6;
    cbuf_advice advice;
    for (int i = 0; i < N; i++) {
        uint64_t bits = next_random(&seed) >> 2;
        memcpy(&rows[i].bid, &bits, 8);
        rows[i].ask = rows[i].bid / 3;
        rows[i].time = (int64_t)next_random(&seed);
        rows[i].size = (int32_t)next_random(&seed);
    }
    assert_int_equal(cbuf_advise(tick_columns, 4, sizeof(struct tick), rows, N, &advice), 0);
    assert_int_equal(advice.delta_count, 0);
    static const cbuf_column text = { "text", CBUF_BYTES(12), 0 }; /* dense it would be shorter */
    assert_int_equal(cbuf_advise(&text, 1, 12, rows, N, &advice), 0);
    assert_int_equal(advice.layout, CBUF_NUMBERED);
    assert_true(advice.stored_bytes >= 16 && advice.plain_bytes <= 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_comes_back_bit_for_bit),
        cmocka_unit_test(ticks_take_half_the_space_and_escapes_are_counted_by_column),
        cmocka_unit_test(a_row_leaves_the_bytes_of_other_blocks_in_its_word_as_they_are),
        cmocka_unit_test(dense_rows_take_the_bytes_of_their_columns_and_whole_words_if_padded),
        cmocka_unit_test(a_stride_and_what_is_said_of_it_go_with_each_other_or_the_ring_is_refused),
        cmocka_unit_test(floats_of_too_many_steps_are_escapes),
        cmocka_unit_test(every_multiple_of_a_decimal_step_fits),
        cmocka_unit_test(rows_with_delta_columns_are_not_used_in_place),
        cmocka_unit_test(a_value_is_sought_and_the_newest_ones_age_is_known),
        cmocka_unit_test(bad_choices_of_delta_columns_are_refused_and_named),
        cmocka_unit_test(the_escape_plane_takes_no_space_until_it_is_needed_and_then_by_pages),
        cmocka_unit_test(a_ring_is_continued_if_its_delta_columns_are_the_same),
        cmocka_unit_test(a_locked_ring_has_delta_columns_too),
        cmocka_unit_test(readers_in_other_threads_get_every_row_whole_or_counted),
        cmocka_unit_test(advice_finds_steps_and_widths_and_a_ring_made_so_takes_what_was_promised),
        cmocka_unit_test(advice_is_never_a_ring_that_is_refused),
        cmocka_unit_test(advice_against_noise_is_to_leave_it_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
