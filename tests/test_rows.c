/* What goes in comes out: every column type, row size, layout, way to write and way to read; and
 * where the bytes lie. */
#include "check.h"

/* ---- what the file's format says, beyond what cbuf.h asserts itself ---- */

#define AT(type, field, offset)                                                                    \
    CBUF__STATIC_ASSERT(offsetof(type, field) == (offset), "the layout is frozen")
AT(cbuf__facts, magic, 0);
AT(cbuf__facts, byte_order, 8);
AT(cbuf__facts, major, 12);
AT(cbuf__facts, minor, 14);
AT(cbuf__facts, features, 16);
AT(cbuf__facts, ring_id, 24);
AT(cbuf__facts, file_bytes, 32);
AT(cbuf__facts, rows_offset, 40);
AT(cbuf__facts, capacity, 48);
AT(cbuf__facts, readers_offset, 56);
AT(cbuf__facts, row_bytes, 64);
AT(cbuf__facts, stride, 68);
AT(cbuf__facts, schema_offset, 72);
AT(cbuf__facts, schema_bytes, 76);
AT(cbuf__facts, gates_offset, 80);
AT(cbuf__facts, max_readers, 84);
AT(cbuf__facts, reserve_step, 88);
AT(cbuf__facts, column_count, 92);
AT(cbuf__facts, on_full, 96);
AT(cbuf__facts, created_ns, 104);
AT(struct cbuf__file, epoch, 520);
AT(struct cbuf__file, producer_pid, 528);
AT(struct cbuf__file, producer_started_ns, 536);
AT(struct cbuf__file, wake_fence, 544);
AT(struct cbuf__file, waits, 648);
AT(struct cbuf__file, wakes, 656);
AT(struct cbuf__file, demotions, 664);
AT(struct cbuf__readers, ring_id, 8);
AT(struct cbuf__readers, max_readers, 16);
AT(struct cbuf__readers, high, 24);
AT(struct cbuf__readers, rows, 128);
AT(struct cbuf__readers, room, 384);
AT(cbuf__event, wanted, 0);
AT(cbuf__event, count, 128);
AT(struct cbuf__slot, cursor, 0);
AT(struct cbuf__slot, lost, 8);
AT(struct cbuf__slot, active_ns, 16);
AT(struct cbuf__slot, waits, 24);
AT(struct cbuf__slot, gate, 32);
AT(struct cbuf__slot, incarnation, 40);
AT(struct cbuf__slot, owned, 48);
AT(struct cbuf__slot, pid, 128);
AT(struct cbuf__slot, started_ns, 136);
AT(struct cbuf__slot, name, 144);
CBUF__STATIC_ASSERT(
    CBUF__DENSE == 1 && CBUF__SHARED_TAIL == 2 && CBUF__LOCKED == 4, "the feature bits are frozen");
CBUF__STATIC_ASSERT(
    CBUF__OPEN == 0 && CBUF__CLOSED == 1 && CBUF__RETIRED == 2, "the states are frozen");

/* ---- ways to write and to read ---- */

enum write_path { WRITE_ONE, WRITE_MANY, WRITE_COLUMNS, CLAIM_ONE, CLAIM_MANY };
enum read_path { READ_ONE, READ_MANY, PEEK, SNAPSHOT, LATEST };
enum { WRITE_PATHS = 5, READ_PATHS = 5 };

static void write_in_place(
    cbuf_ring *ring, const unsigned char *rows, uint32_t row_bytes, uint32_t n, uint32_t most)
{
    for (uint32_t done = 0; done < n;) {
        int64_t granted = 0;
        unsigned char *to = (unsigned char *)cbuf_claim(
            ring, n - done < most ? n - done : most, &granted);
        assert_non_null(to);
        assert_in_range(granted, 1, n - done);
        for (uint32_t i = 0; i < granted; i++, done++)
            memcpy(to + i * cbuf_stride(ring), rows + done * row_bytes, row_bytes);
        assert_int_equal(cbuf_publish(ring, (uint32_t)granted), granted);
    }
}

static void write_columns(
    cbuf_ring *ring, const unsigned char *rows, uint32_t row_bytes, uint32_t n)
{
    unsigned char values[4096];
    cbuf_column columns[16];
    cbuf_array arrays[16];
    uint32_t count = cbuf_resolved(ring)->column_count;
    size_t filled = 0;
    /* from the last to the first: their order does not matter */
    for (uint32_t k = 0; k < count; k++) {
        assert_int_equal(cbuf_column_at(ring, count - 1 - k, &columns[k]), 0);
        uint32_t bytes = CBUF_TYPE_BYTES(columns[k].type);
        arrays[k].column = &columns[k];
        arrays[k].values = values + filled;
        assert_true(filled + n * bytes <= sizeof values);
        for (uint32_t i = 0; i < n; i++, filled += bytes)
            memcpy(values + filled, rows + i * row_bytes + columns[k].offset, bytes);
    }
    assert_int_equal(cbuf_write_columns(ring, arrays, count, n), n);
}

static void write_by(enum write_path path, cbuf_ring *ring, const unsigned char *rows,
    uint32_t row_bytes, uint32_t n)
{
    switch (path) {
    case WRITE_ONE:
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(cbuf_write(ring, rows + i * row_bytes), 1);
        break;
    case WRITE_MANY: assert_int_equal(cbuf_write_n(ring, rows, n), n); break;
    case WRITE_COLUMNS: write_columns(ring, rows, row_bytes, n); break;
    case CLAIM_ONE:
    default: write_in_place(ring, rows, row_bytes, n, path == CLAIM_ONE ? 1 : n); break;
    }
}

/* Reads the n rows that the reader has before it; LATEST the last of them only, at its place. */
static void read_by(
    enum read_path path, cbuf_reader *reader, unsigned char *rows, uint32_t row_bytes, uint32_t n)
{
    const cbuf_ring *ring = reader->ring;
    const uint64_t head = cbuf_head(ring);
    uint64_t first = 0;
    assert_int_equal(cbuf_available(reader), n);
    for (uint32_t done = 0; (path == READ_ONE || path == READ_MANY) && done < n;) {
        uint32_t most = path == READ_ONE ? 1 : n - done;
        int64_t got = cbuf_read(reader, rows + done * row_bytes, most);
        assert_in_range(got, (most + 1) / 2, most);
        assert_int_equal(cbuf_first(reader), head - n + done);
        done += (uint32_t)got;
    }
    for (uint32_t done = 0; path == PEEK && done < n;) {
        const void *from = NULL;
        int64_t got = cbuf_peek(reader, n - done, &from);
        assert_in_range(got, 1, n - done);
        for (uint32_t i = 0; i < got; i++)
            memcpy(rows + (done + i) * row_bytes,
                (const unsigned char *)from + i * cbuf_stride(ring), row_bytes);
        assert_true(cbuf_still_valid(reader));
        cbuf_advance(reader, (uint32_t)got);
        done += (uint32_t)got;
    }
    if (path == SNAPSHOT) {
        assert_int_equal(cbuf_snapshot(ring, rows, n, &first), n);
        assert_int_equal(first, head - n);
    }
    if (path == LATEST) {
        assert_int_equal(cbuf_latest(ring, rows + (n - 1) * row_bytes, &first), 1);
        assert_int_equal(first, head - 1);
    }
    if (path == SNAPSHOT || path == LATEST) assert_int_equal(cbuf_seek(reader, head), 0);
    assert_int_equal(cbuf_available(reader), 0);
    assert_int_equal(cbuf_lost(reader), 0);
}

/* ---- every column type ---- */

struct everything {
    bool flag;
    int64_t when, i64;
    int8_t i8;
    uint64_t u64;
    uint8_t u8;
    double f64;
    int16_t i16;
    float f32;
    uint16_t u16;
    char text[13];
    int32_t i32;
    char letter;
    uint32_t u32;
};
static const cbuf_column every_column[] = { CBUF_COLUMN(struct everything, flag),
    CBUF_COLUMN_AS(struct everything, when, CBUF_TIMESTAMP_NS), CBUF_COLUMN(struct everything, i64),
    CBUF_COLUMN(struct everything, i8), CBUF_COLUMN(struct everything, u64),
    CBUF_COLUMN(struct everything, u8), CBUF_COLUMN(struct everything, f64),
    CBUF_COLUMN(struct everything, i16), CBUF_COLUMN(struct everything, f32),
    CBUF_COLUMN(struct everything, u16), CBUF_COLUMN(struct everything, text),
    CBUF_COLUMN(struct everything, i32), CBUF_COLUMN(struct everything, letter),
    CBUF_COLUMN(struct everything, u32) };
CBUF_TYPED(everything, struct everything);

/* All bits 0; all bits 1; NaNs that carry something, of both kinds; and any bits at all. A bool is
 * 0 or 1. */
static struct everything everything_of(uint64_t sequence)
{
    static const uint64_t nan64[] = { 0x7ff0000000000001u, 0xfff8dead0000beefu };
    static const uint32_t nan32[] = { 0x7f800001u, 0xffc0beefu };
    struct everything row;
    uint64_t kind = sequence % 5;
    if (kind == 0) memset(&row, 0, sizeof row);
    else if (kind == 1) memset(&row, 0xff, sizeof row);
    else fill_row(&row, sizeof row, sequence);
    if (kind == 2 || kind == 3) {
        memcpy(&row.f64, &nan64[kind - 2], 8);
        memcpy(&row.f32, &nan32[kind - 2], 4);
    }
    row.flag = kind % 2;
    return row;
}

static bool same_columns(const void *a, const void *b)
{
    for (size_t k = 0; k < COUNT_OF(every_column); k++)
        if (memcmp((const char *)a + every_column[k].offset,
                (const char *)b + every_column[k].offset, CBUF_TYPE_BYTES(every_column[k].type)))
            return false;
    return true;
}

static cbuf_options everything_options(uint8_t layout)
{
    cbuf_options options = options_of(16, every_column, (uint32_t)COUNT_OF(every_column));
    options.row_bytes = sizeof(struct everything);
    options.layout = layout;
    options.in_place = true;
    return options;
}

TEST(every_column_type_comes_back_bit_for_bit_by_every_path)
{
    enum { batch = 5 };
    struct everything in[batch], out[batch];
    for (uint8_t layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++) {
        struct pair pair;
        cbuf_reader reader;
        cbuf_options options = everything_options(layout);
        open_pair(&pair, &options);
        assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
        for (int paths = 0; paths < WRITE_PATHS * READ_PATHS; paths++) {
            enum read_path read_path = (enum read_path)(paths % READ_PATHS);
            for (uint32_t i = 0; i < batch; i++) in[i] = everything_of(cbuf_head(&pair.ring) + i);
            memset(out, 0x5a, sizeof out);
            write_by((enum write_path)(paths / READ_PATHS), &pair.ring, (const unsigned char *)in,
                sizeof in[0], batch);
            read_by(read_path, &reader, (unsigned char *)out, sizeof out[0], batch);
            for (uint32_t i = read_path == LATEST ? batch - 1 : 0; i < batch; i++)
                assert_true(same_columns(&in[i], &out[i]));
        }
        cbuf_reader_close(&reader);
        close_pair(&pair);
    }
}

TEST(typed_calls_carry_every_column_type_bit_for_bit)
{
    for (uint8_t layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++) {
        struct pair pair;
        cbuf_reader reader;
        cbuf_options options = everything_options(layout);
        open_pair(&pair, &options);
        assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
        for (uint64_t i = 0; i < 60;) {
            struct everything in[3], out[3];
            uint64_t sequence;
            for (uint32_t k = 0; k < 3; k++) in[k] = everything_of(i + k);
            uint32_t n = 1;
            if (i % 4 == 0) {
                assert_int_equal(everything_write(&pair.ring, in), 1);
            } else if (i % 4 == 1) {
                n = 3;
                assert_int_equal(everything_write_n(&pair.ring, in, n), n);
            } else {
                struct everything *row = everything_claim(&pair.ring);
                assert_non_null(row);
                memcpy(row, in, sizeof *row);
                assert_int_equal(cbuf_publish(&pair.ring, 1), 1);
            }
            assert_int_equal(everything_latest(&pair.consumer, out, &sequence), 1);
            assert_int_equal(sequence, i + n - 1);
            assert_true(same_columns(out, &in[n - 1]));
            for (uint32_t done = 0; done < n;) {
                int64_t got = everything_read(&reader, out, 3);
                assert_true(got > 0);
                for (int64_t k = 0; k < got; k++) assert_true(same_columns(&out[k], &in[done++]));
            }
            i += n;
        }
        cbuf_reader_close(&reader);
        close_pair(&pair);
    }
}

/* ---- every row size ---- */

/* Writes and reads a few rows by each pair of paths, in one ring, so that each of them crosses the
 * ring's end. */
static void rows_come_back(const cbuf_options *options, uint32_t row_bytes, uint32_t covered)
{
    enum { batch = 5, most = 48 };
    unsigned char in[batch * most + 1], out[batch * most + 8];
    struct pair pair;
    cbuf_reader reader;
    open_pair(&pair, options);
    assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
    for (int paths = 0; paths < WRITE_PATHS * READ_PATHS; paths++) {
        enum write_path write_path = (enum write_path)(paths / READ_PATHS);
        enum read_path read_path = (enum read_path)(paths % READ_PATHS);
        uint64_t head = cbuf_head(&pair.ring);
        if (write_path >= CLAIM_ONE && pair.ring.shared_tail) continue;
        /* from an odd address */
        for (uint32_t i = 0; i < batch; i++) fill_row(in + 1 + i * row_bytes, row_bytes, head + i);
        memset(out, 0x5a, sizeof out);
        write_by(write_path, &pair.ring, in + 1, row_bytes, batch);
        read_by(read_path, &reader, out, row_bytes, batch);
        for (uint32_t i = read_path == LATEST ? batch - 1 : 0; i < batch; i++)
            if (!is_row(out + i * row_bytes, covered, head + i))
                fail_msg("row %u of %u bytes, %s%s%s, written by path %d, read by path %d", i,
                    row_bytes, options->layout == CBUF_DENSE ? "dense" : "numbered",
                    options->in_place ? ", in place" : "", options->pad_rows ? ", padded" : "",
                    write_path, read_path);
        for (uint32_t i = batch * row_bytes; i < sizeof out; i++) assert_int_equal(out[i], 0x5a);
    }
    cbuf_reader_close(&reader);
    close_pair(&pair);
}

TEST(rows_of_every_size_come_back_in_every_layout_by_every_path)
{
    for (uint32_t row_bytes = 1; row_bytes <= 41; row_bytes++)
        for (unsigned kind = 0; kind < 8; kind++)
            for (uint32_t uncovered = 0; uncovered <= 4 && uncovered < row_bytes; uncovered += 4) {
                cbuf_column column = bytes_column(row_bytes - uncovered);
                cbuf_options options = options_of(8, &column, 1);
                options.row_bytes = row_bytes;
                options.layout = kind & 1;
                options.in_place = (kind & 2) != 0;
                options.pad_rows = (kind & 4) != 0;
                rows_come_back(&options, row_bytes, row_bytes - uncovered);
            }
}

/* The same with the size known to the compiler. */
#define SIZED(n)                                                                                   \
    typedef struct sized_##n {                                                                     \
        unsigned char bytes[n];                                                                    \
    } sized_##n;                                                                                   \
    CBUF_TYPED(sized_##n, sized_##n);                                                              \
    static void typed_rows_come_back_##n(cbuf_ring *ring, cbuf_reader *reader, uint32_t covered)   \
    {                                                                                              \
        sized_##n in[7], out[7];                                                                   \
        for (uint64_t i = 0; i < 100; i += 8) {                                                    \
            for (uint32_t k = 0; k < 7; k++) fill_row(&in[k], n, i + k);                           \
            assert_int_equal(sized_##n##_write_n(ring, in, 7), 7);                                 \
            for (int64_t k = 0, got; k < 7; k += got) {                                            \
                assert_true((got = sized_##n##_read(reader, out, 7)) > 0);                         \
                for (int64_t r = 0; r < got; r++)                                                  \
                    assert_true(is_row(&out[r], covered, i + (uint64_t)(k + r)));                  \
            }                                                                                      \
            fill_row(&in[0], n, i + 7);                                                            \
            assert_int_equal(sized_##n##_write(ring, &in[0]), 1);                                  \
            assert_int_equal(sized_##n##_read(reader, out, 1), 1);                                 \
            assert_true(is_row(&out[0], covered, i + 7));                                          \
            assert_int_equal(sized_##n##_latest(ring, out, NULL), 1);                              \
            assert_true(is_row(&out[0], covered, i + 7));                                          \
        }                                                                                          \
    }
SIZED(1)
SIZED(2)
SIZED(3)
SIZED(4)
SIZED(5)
SIZED(7)
SIZED(8)
SIZED(9)
SIZED(12)
SIZED(13)
SIZED(15)
SIZED(16)
SIZED(20)
SIZED(23)
SIZED(24)
SIZED(32)
SIZED(36)
SIZED(40)
SIZED(41)

TEST(typed_rows_of_every_size_come_back_in_every_layout)
{
#define ROW(n)                                                                                     \
    {                                                                                              \
        n, typed_rows_come_back_##n                                                                \
    }
    static const struct {
        uint32_t row_bytes;
        void (*come_back)(cbuf_ring *, cbuf_reader *, uint32_t);
    } sizes[] = { ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(7), ROW(8), ROW(9), ROW(12), ROW(13),
        ROW(15), ROW(16), ROW(20), ROW(23), ROW(24), ROW(32), ROW(36), ROW(40), ROW(41) };
#undef ROW
    for (size_t k = 0; k < COUNT_OF(sizes); k++)
        for (unsigned kind = 0; kind < 8; kind++) {
            uint32_t covered = kind & 4 && sizes[k].row_bytes > 4 ? sizes[k].row_bytes - 4
                                                                  : sizes[k].row_bytes;
            cbuf_column column = bytes_column(covered);
            cbuf_options options = options_of(16, &column, 1);
            struct pair pair;
            cbuf_reader reader;
            options.row_bytes = sizes[k].row_bytes;
            options.layout = kind & 1;
            options.pad_rows = (kind & 2) != 0;
            open_pair(&pair, &options);
            assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
            sizes[k].come_back(&pair.ring, &reader, covered);
            cbuf_reader_close(&reader);
            close_pair(&pair);
        }
}

TEST(rows_up_to_the_largest_come_back_and_larger_ones_are_refused)
{
    static const uint32_t sizes[] = { 255, 256, 4095, 4096, 4097, 65536, CBUF_MAX_ROW_BYTES - 1,
        CBUF_MAX_ROW_BYTES };
    unsigned char *in = (unsigned char *)malloc(3 * CBUF_MAX_ROW_BYTES),
                  *out = (unsigned char *)malloc(3 * CBUF_MAX_ROW_BYTES);
    assert_true(in && out);
    for (size_t k = 0; k < 2 * COUNT_OF(sizes); k++) {
        uint32_t bytes = sizes[k / 2];
        cbuf_column column = bytes_column(bytes);
        cbuf_options options = options_of(4, &column, 1);
        cbuf_array array = { &column, in };
        struct pair pair;
        cbuf_reader reader;
        options.layout = k % 2;
        open_pair(&pair, &options);
        assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
        for (uint64_t sequence = 0; sequence < 9; sequence += 3) {
            for (uint32_t i = 0; i < 3; i++) fill_row(in + (size_t)i * bytes, bytes, sequence + i);
            assert_int_equal(cbuf_write_n(&pair.ring, in, 3), 3);
            for (uint64_t done = 0; done < 3;) {
                int64_t got = cbuf_read(&reader, out, 3);
                assert_true(got > 0);
                for (int64_t i = 0; i < got; i++)
                    assert_true(is_row(out + (size_t)i * bytes, bytes, sequence + done++));
            }
        }
        fill_row(in, bytes, 9);
        assert_int_equal(
            cbuf_write_columns(&pair.ring, &array, 1, 1), bytes <= 4096 ? 1 : CBUF_EINVAL);
        if (bytes <= 4096) assert_true(cbuf_read(&reader, out, 1) == 1 && is_row(out, bytes, 9));
        cbuf_reader_close(&reader);
        close_pair(&pair);
    }
    cbuf_column column = bytes_column(4);
    cbuf_options options = options_of(4, &column, 1);
    options.row_bytes = CBUF_MAX_ROW_BYTES + 1;
    assert_int_equal(cbuf_memory_needed(&options), CBUF_EINVAL);
    free(in);
    free(out);
}

/* ---- where the bytes lie ---- */

TEST(strides_and_the_place_of_the_number_are_frozen)
{
    enum { IN_PLACE = 1, PAD = 2, SHARED = 4 };
    static const struct {
        uint32_t row_bytes, covered, kind, numbered, dense;
    } facts[] = {
        { 1, 1, 0, 8, 8 },                { 4, 4, 0, 8, 8 },             { 5, 5, 0, 16, 8 },
        { 8, 8, 0, 16, 8 },               { 8, 5, 0, 16, 8 },            { 8, 4, SHARED, 8, 8 },
        { 8, 4, IN_PLACE, 16, 8 },        { 12, 12, 0, 16, 16 },         { 12, 8, 0, 16, 16 },
        { 13, 13, 0, 24, 16 },            { 16, 12, SHARED, 16, 16 },    { 20, 20, 0, 24, 24 },
        { 24, 24, 0, 32, 24 },            { 32, 28, SHARED, 32, 32 },    { 32, 29, 0, 40, 32 },
        { 32, 28, IN_PLACE, 40, 32 },     { 64, 60, SHARED, 64, 64 },    { 64, 64, 0, 72, 64 },
        { 1, 1, PAD, 8, 8 },              { 9, 9, PAD, 16, 16 },         { 16, 16, PAD, 32, 16 },
        { 20, 20, PAD, 32, 32 },          { 24, 24, PAD, 32, 32 },       { 24, 20, PAD, 32, 32 },
        { 32, 28, PAD | SHARED, 32, 32 }, { 33, 33, PAD, 64, 64 },       { 60, 60, PAD, 64, 64 },
        { 61, 61, PAD, 72, 64 },          { 64, 64, PAD, 72, 64 },
        { 32, 28, PAD | IN_PLACE, 64, 32 }
    };
    for (size_t k = 0; k < COUNT_OF(facts); k++)
        for (uint8_t layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++) {
            cbuf_column column = bytes_column(facts[k].covered);
            cbuf_options options = options_of(4, &column, 1);
            struct pair pair;
            unsigned char row[64];
            uint32_t number;
            options.row_bytes = facts[k].row_bytes;
            options.layout = layout;
            options.in_place = (facts[k].kind & IN_PLACE) != 0;
            options.pad_rows = (facts[k].kind & PAD) != 0;
            open_pair(&pair, &options);
            uint32_t stride = layout == CBUF_DENSE ? facts[k].dense : facts[k].numbered;
            assert_int_equal(cbuf_stride(&pair.ring), stride);
            assert_int_equal(cbuf_stride(&pair.consumer), stride);
            unsigned features = layout == CBUF_DENSE ? CBUF__DENSE : 0;
            if (layout == CBUF_NUMBERED && facts[k].kind & SHARED) features = CBUF__SHARED_TAIL;
            assert_int_equal(pair.ring.file->facts.features, features);
            for (uint64_t sequence = 0; sequence < 6; sequence++) {
                const unsigned char *place = (const unsigned char *)pair.memory +
                    pair.ring.file->facts.rows_offset + sequence % 4 * stride;
                fill_row(row, sizeof row, sequence);
                assert_int_equal(cbuf_write(&pair.ring, row), 1);
                assert_true(is_row(place, facts[k].covered, sequence));
                memcpy(&number, place + stride - 4, 4); /* in either byte order */
                if (layout == CBUF_NUMBERED) assert_int_equal(number, sequence + 1);
            }
            close_pair(&pair);
        }
}

TEST(the_parts_of_a_ring_lie_where_the_format_says)
{
    cbuf_options options = tick_options(100);
    struct pair pair;
    options.max_readers = 17;
    open_pair(&pair, &options);
    const cbuf__facts *facts = &pair.ring.file->facts;
    assert_memory_equal(pair.memory, "cbuf\r\n\032", 8);
    assert_int_equal(facts->byte_order, 0x01020304);
    assert_int_equal(facts->major, 1);
    assert_int_equal(facts->minor, 0);
    assert_int_equal(facts->capacity, 128);
    assert_int_equal(facts->row_bytes, 32);
    assert_int_equal(facts->reserve_step, 8);
    assert_int_equal(facts->column_count, 4);
    assert_int_equal(facts->schema_offset, 1024);
    /* 1024 + 512 + 4 * 112, rounded up to a line of 128 */
    assert_int_equal(facts->gates_offset, 2048);
    assert_int_equal(facts->rows_offset, 2304); /* 17 gates of 8 bytes, rounded up */
    assert_int_equal(facts->readers_offset, 2304 + 128 * 32);
    assert_int_equal(facts->file_bytes, 2304 + 128 * 32 + 640 + 17 * 256);
    assert_int_equal(facts->file_bytes, pair.bytes);
    assert_memory_equal((char *)pair.memory + facts->readers_offset, "cbufrdr", 8);
    close_pair(&pair);

    cbuf_ring ring;
    options.name = unique_name();
    assert_int_equal(cbuf_create(&ring, &options), 0);
    assert_int_equal(ring.file->facts.rows_offset, 4096); /* whole pages in a file */
    assert_int_equal(ring.file->facts.file_bytes, 8192);
    assert_int_equal(ring.file->facts.readers_offset, 0);
    cbuf_close(&ring);
    assert_int_equal(cbuf_remove(options.name), 0);
}

TEST(a_dense_ring_of_doubles_is_a_plain_matrix)
{
    static const cbuf_column columns[] = { { "a", CBUF_FLOAT64, 0 }, { "b", CBUF_FLOAT64, 8 },
        { "c", CBUF_FLOAT64, 16 } };
    cbuf_options options = options_of(8, columns, 3);
    struct pair pair;
    double rows[8][3];
    options.layout = CBUF_DENSE;
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 3; k++) rows[i][k] = i + 0.125 * k;
    open_pair(&pair, &options);
    assert_int_equal(cbuf_write_n(&pair.ring, rows, 8), 8);
    assert_memory_equal((char *)pair.memory + pair.ring.file->facts.rows_offset, rows, sizeof rows);
    close_pair(&pair);
}

TEST(a_column_may_lie_at_any_offset_and_bytes_between_columns_need_not_be_carried)
{
    static const cbuf_column columns[] = { { "late", CBUF_INT64, 17 }, { "early", CBUF_INT16, 1 },
        { "middle", CBUF_FLOAT32, 7 } };
    for (uint8_t layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++) {
        cbuf_options options = options_of(8, columns, 3);
        struct pair pair;
        int64_t late[20];
        int16_t early[20];
        cbuf_array arrays[] = { { &columns[1], early }, { &columns[0], late } };
        options.layout = layout;
        open_pair(&pair, &options);
        assert_int_equal(cbuf_resolved(&pair.ring)->row_bytes, 25); /* where the last column ends */
        for (int i = 0; i < 20; i++) late[i] = INT64_MIN + i, early[i] = (int16_t)(-i);
        assert_int_equal(cbuf_write_columns(&pair.ring, arrays, 2, 20), 20);
        for (uint64_t sequence = cbuf_oldest(&pair.ring); sequence < 20; sequence++) {
            cbuf_reader reader;
            unsigned char row[25], wanted[25] = { 0 };
            assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
            assert_int_equal(cbuf_seek(&reader, sequence), 0);
            assert_int_equal(cbuf_read(&reader, row, 1), 1);
            memcpy(wanted + 17, &late[sequence], 8);
            memcpy(wanted + 1, &early[sequence], 2);
            assert_memory_equal(row, wanted, 25); /* what no array named is zero */
            cbuf_reader_close(&reader);
        }
        close_pair(&pair);
    }
}

TEST(columns_beyond_the_row_are_not_written)
{
    static const uint32_t offsets[] = { 9, 16, UINT32_MAX - 7, UINT32_MAX };
    cbuf_column column = bytes_column(16);
    cbuf_options options = options_of(4, &column, 1);
    struct pair pair;
    uint64_t value = 0;
    open_pair(&pair, &options);
    for (size_t k = 0; k < COUNT_OF(offsets); k++) {
        cbuf_column beyond = { "x", CBUF_UINT64, offsets[k] };
        cbuf_array array = { &beyond, &value };
        assert_int_equal(cbuf_write_columns(&pair.ring, &array, 1, 1), CBUF_EINVAL);
    }
    assert_int_equal(cbuf_head(&pair.ring), 0);
    close_pair(&pair);
}

/* ---- claims, and what is refused ---- */

TEST(what_is_claimed_is_not_seen_before_it_is_published)
{
    for (uint8_t layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++) {
        cbuf_column column = bytes_column(12);
        cbuf_options options = options_of(16, &column, 1);
        struct pair pair;
        cbuf_reader reader;
        unsigned char rows[16][12];
        int64_t granted = 0;
        options.layout = layout;
        open_pair(&pair, &options);
        assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
        for (uint64_t sequence = 0; sequence < 14; sequence++) {
            fill_row(rows[0], 12, sequence);
            assert_int_equal(cbuf_write(&pair.ring, rows[0]), 1);
        }
        assert_int_equal(cbuf_seek(&reader, 14), 0);

        unsigned char *claim = (unsigned char *)cbuf_claim(&pair.ring, 4, &granted);
        assert_int_equal(granted, 2); /* as far as the ring's end */
        for (uint32_t i = 0; i < 2; i++) fill_row(claim + i * cbuf_stride(&pair.ring), 12, 100 + i);
        assert_int_equal(cbuf_read(&reader, rows, 16), 0);
        assert_int_equal(cbuf_head(&pair.consumer), 14);
        assert_int_equal(cbuf_publish(&pair.ring, 3), CBUF_EINVAL);
        assert_int_equal(cbuf_publish(&pair.ring, 1), 1); /* fewer than were claimed */
        assert_int_equal(cbuf_read(&reader, rows, 16), 1);
        assert_true(is_row(rows[0], 12, 100));
        assert_int_equal(cbuf_publish(&pair.ring, 1), CBUF_EINVAL); /* the rest was given up */

        claim = (unsigned char *)cbuf_claim(&pair.ring, 1, NULL);
        fill_row(claim, 12, 200);
        assert_ptr_equal(cbuf_claim(&pair.ring, 1, &granted), claim); /* replaces the first */
        fill_row(claim, 12, 300);
        assert_int_equal(cbuf_publish(&pair.ring, 1), 1);
        assert_int_equal(cbuf_read(&reader, rows, 16), 1);
        assert_true(is_row(rows[0], 12, 300));

        assert_null(cbuf_claim(&pair.ring, 0, &granted));
        assert_int_equal(granted, CBUF_EINVAL);
        assert_null(cbuf_claim(&pair.consumer, 1, &granted));
        assert_int_equal(granted, CBUF_EROLE);
        cbuf_reader_close(&reader);
        close_pair(&pair);
    }
}

TEST(rows_with_their_number_in_the_padding_cannot_be_claimed_unless_made_in_place)
{
    for (int in_place = 0; in_place < 2; in_place++) {
        cbuf_options options = tick_options(8);
        struct pair pair;
        int64_t granted = 0;
        struct tick row;
        options.in_place = in_place;
        open_pair(&pair, &options);
        struct tick *claim = (struct tick *)cbuf_claim(&pair.ring, 1, &granted);
        assert_int_equal(granted, in_place ? 1 : CBUF_ELAYOUT);
        assert_int_equal(claim != NULL, in_place);
        if (in_place) {
            memset(claim, 0xff, sizeof *claim); /* its padding too: the number is not there */
            *claim = tick_of(7);
            assert_int_equal(cbuf_publish(&pair.ring, 1), 1);
            assert_int_equal(cbuf_latest(&pair.consumer, &row, NULL), 1);
            assert_true(is_tick(&row, 7));
        }
        close_pair(&pair);
    }
}

TEST(typed_calls_refuse_a_ring_of_another_row_size)
{
    cbuf_options options = tick_options(8);
    struct pair pair;
    cbuf_reader reader;
    struct everything row = everything_of(0);
    open_pair(&pair, &options);
    assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
    assert_int_equal(everything_write(&pair.ring, &row), CBUF_EROWSIZE);
    assert_int_equal(everything_write_n(&pair.ring, &row, 1), CBUF_EROWSIZE);
    assert_int_equal(everything_read(&reader, &row, 1), CBUF_EROWSIZE);
    assert_int_equal(everything_latest(&pair.consumer, &row, NULL), CBUF_EROWSIZE);
    assert_null(everything_claim(&pair.ring));
    assert_int_equal(cbuf_head(&pair.ring), 0);
    cbuf_reader_close(&reader);
    close_pair(&pair);
}

/* Every call that changes a ring, on a handle that may not: none may crash, and each says why. */
static void refuses_to_write(cbuf_ring *ring, int error)
{
    struct tick row = tick_of(0);
    cbuf_array array = { &tick_columns[1], &row.bid };
    int64_t granted = 0;
    assert_int_equal(cbuf_write(ring, &row), error);
    assert_int_equal(cbuf_write_n(ring, &row, 1), error);
    assert_true(cbuf_write_columns(ring, &array, 1, 1) < 0);
    assert_null(cbuf_claim(ring, 1, &granted));
    assert_int_equal(granted, error);
    assert_true(cbuf_publish(ring, 1) < 0);
    assert_int_equal(cbuf_wait_room(ring, 1, 0), error);
}

TEST(a_consumer_s_handle_cannot_write)
{
    cbuf_options options = tick_options(8);
    struct pair pair;
    struct tick row = tick_of(0);
    options.in_place = true;
    open_pair(&pair, &options);
    assert_int_equal(cbuf_write(&pair.ring, &row), 1);
    refuses_to_write(&pair.consumer, CBUF_EROLE);
    assert_true(cbuf_publish(&pair.consumer, 0) <= 0);
    assert_int_equal(cbuf_head(&pair.ring), 1);
    assert_int_equal(reserve_of(&pair.ring), 1);
    close_pair(&pair);
}

/* Handles whose create or attach failed late: the columns overlap. */
static void unmade_pair(struct pair *pair)
{
    static uint64_t memory[4096];
    cbuf_column columns[] = { bytes_column(8), bytes_column(8) };
    cbuf_options options = options_of(2, columns, 2);
    assert_int_equal(cbuf_create_in(&pair->ring, memory, sizeof memory, &options), CBUF_ESCHEMA);
    assert_int_equal(cbuf_attach_in(&pair->consumer, memory, sizeof memory), CBUF_ESCHEMA);
}

TEST(a_handle_that_is_not_open_refuses_every_call)
{
    cbuf_options options = tick_options(8);
    struct pair pair;
    static struct pair pair_that_failed;
    cbuf_ring never;
    cbuf_reader reader;
    cbuf_stats stats;
    cbuf_reader_stats reader_stats;
    struct tick row;
    uint64_t first;
    open_pair(&pair, &options);
    close_pair(&pair);
    assert_int_equal(cbuf_create_in(&never, &row, sizeof row, &options), CBUF_ENOSPACE);
    unmade_pair(&pair_that_failed);
    cbuf_ring *const handles[] = { &pair.ring, &pair.consumer, &never, &pair_that_failed.ring,
        &pair_that_failed.consumer };
    for (size_t k = 0; k < COUNT_OF(handles); k++) {
        refuses_to_write(handles[k], CBUF_ENOTOPEN);
        assert_int_equal(cbuf_reader_open(&reader, handles[k], NULL), CBUF_ENOTOPEN);
        cbuf_reader_close(&reader);
        assert_int_equal(cbuf_latest(handles[k], &row, &first), CBUF_ENOTOPEN);
        assert_int_equal(cbuf_snapshot(handles[k], &row, 1, &first), CBUF_ENOTOPEN);
        assert_int_equal(cbuf_stats_get(handles[k], &stats), CBUF_ENOTOPEN);
        assert_int_equal(cbuf_reader_stats_get(handles[k], 0, &reader_stats), CBUF_ENOTOPEN);
        cbuf_close(handles[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_column_type_comes_back_bit_for_bit_by_every_path),
        cmocka_unit_test(typed_calls_carry_every_column_type_bit_for_bit),
        cmocka_unit_test(rows_of_every_size_come_back_in_every_layout_by_every_path),
        cmocka_unit_test(typed_rows_of_every_size_come_back_in_every_layout),
        cmocka_unit_test(rows_up_to_the_largest_come_back_and_larger_ones_are_refused),
        cmocka_unit_test(strides_and_the_place_of_the_number_are_frozen),
        cmocka_unit_test(the_parts_of_a_ring_lie_where_the_format_says),
        cmocka_unit_test(a_dense_ring_of_doubles_is_a_plain_matrix),
        cmocka_unit_test(
            a_column_may_lie_at_any_offset_and_bytes_between_columns_need_not_be_carried),
        cmocka_unit_test(columns_beyond_the_row_are_not_written),
        cmocka_unit_test(what_is_claimed_is_not_seen_before_it_is_published),
        cmocka_unit_test(
            rows_with_their_number_in_the_padding_cannot_be_claimed_unless_made_in_place),
        cmocka_unit_test(typed_calls_refuse_a_ring_of_another_row_size),
        cmocka_unit_test(a_consumer_s_handle_cannot_write),
        cmocka_unit_test(a_handle_that_is_not_open_refuses_every_call),
    };
    return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
