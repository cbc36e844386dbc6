/* Readers get every row or its number: cursors, exact loss, laps, wrapped numbers, searching,
 * snapshots, peeking. */
#define CBUF_ACCESS_HEADER "hook_access.h"
#include "check.h"

#include <math.h> /* HUGE_VAL */

/* ---- cursors ---- */

static void write_rows_singly(cbuf_ring *ring, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) write_rows(ring, 1);
}

TEST(a_reader_starts_at_the_oldest_row_the_next_one_or_a_given_one)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++) {
        struct pair pair;
        struct follower given;
        cbuf_reader oldest, newest;
        cbuf_reader_options options = reader_options(CBUF_NEWEST);
        unsigned char row[ROW];
        open_shape(&pair, &shapes[k], 8, 2);
        assert_int_equal(cbuf_reader_open(&oldest, &pair.consumer, NULL), 0);
        assert_int_equal(cbuf_available(&oldest), 0);
        assert_int_equal(cbuf_read(&oldest, row, 1), 0);
        cbuf_reader_close(&oldest);
        write_rows_singly(&pair.ring, 21); /* reserve is 22 */
        assert_int_equal(cbuf_oldest(&pair.consumer), 14);
        assert_int_equal(cbuf_reader_open(&oldest, &pair.consumer, NULL), 0);
        assert_int_equal(cbuf_available(&oldest), 7);
        assert_int_equal(cbuf_read(&oldest, row, 1), 1);
        assert_int_equal(cbuf_first(&oldest), 14);
        assert_int_equal(cbuf_lost(&oldest), 0);
        assert_int_equal(cbuf_reader_open(&newest, &pair.consumer, &options), 0);
        assert_int_equal(cbuf_read(&newest, row, 1), 0);
        write_rows(&pair.ring, 1);
        assert_int_equal(cbuf_read(&newest, row, 1), 1);
        assert_int_equal(cbuf_first(&newest), 21);
        follow(&given, &pair.consumer, 17);
        read_all(&given);
        assert_int_equal(given.lost, 0);
        cbuf_reader_close(&given.reader);
        follow(&given, &pair.consumer, 3); /* gone: what was asked for and is not there is lost */
        read_all(&given);
        assert_int_equal(given.lost, 14 - 3);
        cbuf_reader_close(&given.reader);
        cbuf_reader_close(&newest);
        cbuf_reader_close(&oldest);
        close_pair(&pair);
    }
}

TEST(a_reader_gets_at_least_half_of_what_is_there_and_at_most_what_it_asked_for)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++)
        for (uint32_t there = 0; there <= 12; there++)
            for (uint32_t max = 0; max <= 20; max++) {
                struct pair pair;
                struct follower follower;
                open_shape(&pair, &shapes[k], 16, 1);
                age_ring(&pair.ring, 1000);
                write_rows(&pair.ring, 9);
                follow(&follower, &pair.consumer, 1009);
                write_rows(&pair.ring, there);
                int64_t n = read_checked(&follower, max), most = there < max ? there : max;
                assert_in_range(n, (most + 1) / 2, most);
                if (max) read_all(&follower);
                cbuf_reader_close(&follower.reader);
                close_pair(&pair);
            }
}

TEST(what_a_reader_read_and_what_it_lost_is_what_was_written)
{
    uint64_t seed = 0x5eed0001;
    for (int run = 0; run < 200; run++) {
        struct pair pair;
        struct follower slow, fast;
        uint64_t read[2] = { 0, 0 };
        open_shape(&pair, &shapes[run % (int)COUNT_OF(shapes)], 2u << random_below(&seed, 6), 1);
        follow(&slow, &pair.consumer, 0);
        follow(&fast, &pair.ring, 0); /* through the producer's own handle */
        for (int i = 0; i < 100; i++) {
            write_rows(&pair.ring, (uint32_t)random_below(&seed, MOST));
            read[0] += (uint64_t)read_checked(&fast, (uint32_t)random_below(&seed, MOST));
            if (!random_below(&seed, 8))
                read[1] += (uint64_t)read_checked(&slow, (uint32_t)random_below(&seed, MOST));
        }
        for (int64_t n; (n = read_checked(&fast, MOST)) > 0;) read[0] += (uint64_t)n;
        for (int64_t n; (n = read_checked(&slow, MOST)) > 0;) read[1] += (uint64_t)n;
        assert_int_equal(read[0] + cbuf_lost(&fast.reader), cbuf_head(&pair.ring));
        assert_int_equal(read[1] + cbuf_lost(&slow.reader), cbuf_head(&pair.ring));
        cbuf_reader_close(&slow.reader);
        cbuf_reader_close(&fast.reader);
        close_pair(&pair);
    }
}

TEST(the_mark_moves_in_steps_and_tells_what_is_still_to_be_trusted)
{
    for (uint32_t step = 1; step <= 8; step++) {
        struct pair pair;
        open_shape(&pair, &shapes[0], 16, step);
        for (uint64_t head = 1; head < 100; head++) {
            write_rows(&pair.ring, 1);
            uint64_t reserve = (head + step - 1) / step * step;
            assert_int_equal(reserve_of(&pair.ring), reserve);
            assert_int_equal(cbuf_oldest(&pair.consumer), reserve > 16 ? reserve - 16 : 0);
        }
        close_pair(&pair);
    }
}

/* ---- laps ---- */

static struct {
    cbuf_ring *ring;
    uint32_t rows;
} burst;
static void write_burst(void *unused)
{
    (void)unused;
    write_rows(burst.ring, burst.rows);
}
static void move_reserve(void *ring)
{
    struct cbuf__file *file = ((cbuf_ring *)ring)->file;
    cbuf__store_relaxed(&file->reserve, cbuf__load_relaxed(&file->reserve) + burst.rows);
}

/* The mark is moved by hand when 16 rows are copied and not yet validated. */
TEST(a_lapped_reader_keeps_the_good_tail_of_its_batch_and_counts_the_rest)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++)
        for (burst.rows = 0; burst.rows < 16; burst.rows++) {
            struct pair pair;
            struct follower follower;
            open_shape(&pair, &shapes[k], 16, 1);
            write_rows(&pair.ring, 16);
            follow(&follower, &pair.consumer, 0);
            hook_at_word(&pair.consumer.file->reserve, 0, move_reserve, &pair.ring);
            assert_int_equal(read_checked(&follower, 16), 16 - burst.rows);
            assert_true(hook_end());
            assert_int_equal(cbuf_lost(&follower.reader), burst.rows);
            assert_int_equal(cbuf_first(&follower.reader), burst.rows);
            cbuf_reader_close(&follower.reader);
            close_pair(&pair);
        }
}

TEST(a_reader_whose_whole_batch_was_overwritten_goes_on_with_the_oldest_good_row)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++)
        for (burst.rows = 16; burst.rows < 40; burst.rows++) {
            struct pair pair;
            struct follower follower;
            open_shape(&pair, &shapes[k], 16, 1);
            write_rows(&pair.ring, 16);
            follow(&follower, &pair.consumer, 0);
            burst.ring = &pair.ring;
            hook_at_word(&pair.consumer.file->reserve, 0, write_burst, NULL);
            assert_int_equal(read_checked(&follower, 16), 16);
            assert_true(hook_end());
            assert_int_equal(cbuf_lost(&follower.reader), burst.rows);
            cbuf_reader_close(&follower.reader);
            close_pair(&pair);
        }
}

/* What a reader may do while the producer acts. */
static void one_read(struct follower *follower) { read_checked(follower, 1); }
static void batch_read(struct follower *follower) { read_checked(follower, 16); }
static void wait_and_read(struct follower *follower)
{
    int64_t there = cbuf_wait(&follower->reader, 2, 0);
    assert_in_range(there, 0, 2);
    if (there) assert_true(read_checked(follower, (uint32_t)there) > 0);
}
static void peek_and_advance(struct follower *follower)
{
    unsigned char rows[MOST * ROW];
    const void *from = NULL;
    const cbuf_ring *ring = follower->reader.ring;
    int64_t n = cbuf_peek(&follower->reader, 16, &from);
    assert_in_range(n, 0, 16);
    for (int64_t i = 0; i < n; i++) { /* word by word, with hooks between */
        const unsigned char *row = (const unsigned char *)from + (size_t)i * cbuf_stride(ring);
        const void *words = row;
        cbuf__words_out(rows + i * ROW, (const cbuf__word *)words, 1);
        uint64_t rest = cbuf__load_relaxed((const cbuf__word *)words + 1);
        memcpy(rows + i * ROW + 8, &rest, ring->row_bytes - 8);
    }
    if (!n || !cbuf_still_valid(&follower->reader)) return;
    cbuf_advance(&follower->reader, (uint32_t)n);
    check_rows(follower, rows, n, ROW);
}

/* A ring of 4 in which the reader stands `behind` rows behind; before each single access of what it
 * does the producer writes some rows: whatever comes out is whole, in order, and counted. */
TEST(whenever_the_producer_laps_a_reader_rows_are_whole_and_the_loss_is_exact)
{
    static void (*const deeds[])(
        struct follower *) = { one_read, batch_read, wait_and_read, peek_and_advance };
    static const uint32_t bursts[] = { 1, 2, 3, 4, 5, 9 };
    for (size_t k = 0; k < COUNT_OF(shapes) * COUNT_OF(deeds) * COUNT_OF(bursts) * 6 * 2; k++) {
        size_t rest = k;
        const struct shape *shape = &shapes[rest % COUNT_OF(shapes)];
        rest /= COUNT_OF(shapes);
        void (*deed)(struct follower *) = deeds[rest % COUNT_OF(deeds)];
        rest /= COUNT_OF(deeds);
        burst.rows = bursts[rest % COUNT_OF(bursts)];
        rest /= COUNT_OF(bursts);
        uint64_t behind = rest % 6;
        uint32_t step = (uint32_t)(1 + rest / 6);
        bool called = true;
        for (uint64_t n = 0; called; n++) {
            struct pair pair;
            struct follower follower;
            open_shape(&pair, shape, 4, step);
            write_rows(&pair.ring, 7);
            follow(&follower, &pair.consumer, 7 - behind);
            burst.ring = &pair.ring;
            hook_at(n, write_burst, NULL);
            deed(&follower);
            called = hook_end();
            read_all(&follower);
            assert_true(n < 1000);
            cbuf_reader_close(&follower.reader);
            close_pair(&pair);
        }
    }
}

/* The other way round: before each access of a write a reader reads all that it can get. */
static struct {
    struct follower *near, *far;
    const cbuf_ring *ring;
} onlookers;
static void look_on(void *unused)
{
    unsigned char rows[MOST * ROW];
    uint64_t first = 0;
    (void)unused;
    read_checked(onlookers.near, MOST);
    read_checked(onlookers.far, MOST);
    int64_t n = cbuf_snapshot(onlookers.ring, rows, MOST, &first);
    for (int64_t i = 0; i < n; i++)
        assert_true(shape_row(
            onlookers.ring, rows + (size_t)i * onlookers.ring->row_bytes, first + (uint64_t)i));
}
static void write_one_row(cbuf_ring *ring) { write_rows(ring, 1); }
static void write_five_rows(cbuf_ring *ring) { write_rows(ring, 5); }
static void write_in_place(cbuf_ring *ring)
{
    int64_t granted = 0;
    unsigned char *rows = (unsigned char *)cbuf_claim(ring, 3, &granted);
    if (!rows) return; /* CBUF_ELAYOUT */
    for (int64_t i = 0; i < granted; i++)
        fill_row(rows + (size_t)i * cbuf_stride(ring), ring->row_bytes, ring->next + (uint64_t)i);
    cbuf_publish(ring, (uint32_t)granted);
}

TEST(whenever_a_reader_looks_at_a_row_being_written_it_gets_whole_rows_only)
{
    static void (*const deeds[])(cbuf_ring *) = { write_one_row, write_five_rows, write_in_place };
    for (size_t k = 0; k < COUNT_OF(shapes) * COUNT_OF(deeds) * 10 * 2; k++) {
        void (*deed)(cbuf_ring *) = deeds[k / COUNT_OF(shapes) % COUNT_OF(deeds)];
        uint64_t before = k / COUNT_OF(shapes) / COUNT_OF(deeds) % 10;
        uint32_t step = k < COUNT_OF(shapes) * COUNT_OF(deeds) * 10 ? 1 : 2;
        bool called = true;
        for (uint64_t n = 0; called; n++) {
            struct pair pair;
            struct follower near_follower, far_follower;
            open_shape(&pair, &shapes[k % COUNT_OF(shapes)], 4, step);
            write_rows(&pair.ring, (uint32_t)before);
            follow(&near_follower, &pair.consumer, before);
            follow(&far_follower, &pair.consumer, before > 4 ? before - 4 : 0);
            onlookers.near = &near_follower;
            onlookers.far = &far_follower;
            onlookers.ring = &pair.consumer;
            hook_at(n, look_on, NULL);
            deed(&pair.ring);
            called = hook_end();
            read_all(&near_follower);
            read_all(&far_follower);
            cbuf_reader_close(&near_follower.reader);
            cbuf_reader_close(&far_follower.reader);
            close_pair(&pair);
        }
    }
}

/* ---- numbers ---- */

TEST(rows_go_on_when_the_32_bits_of_their_numbers_wrap)
{
    const uint64_t turn = UINT64_C(1) << 32;
    for (size_t k = 0; k < COUNT_OF(shapes); k++)
        for (uint64_t laps = 1; laps <= 3; laps++) {
            struct pair pair;
            struct follower near_follower, far_follower;
            unsigned char row[ROW];
            uint64_t sequence;
            open_shape(&pair, &shapes[k], 8, 2);
            age_ring(&pair.ring, laps * turn - 24);
            write_rows(&pair.ring, 8); /* so that every place has the number that it would have */
            follow(&near_follower, &pair.consumer, cbuf_head(&pair.ring));
            follow(&far_follower, &pair.consumer, cbuf_head(&pair.ring));
            for (uint64_t i = 0; i < 40; i++) {
                assert_int_equal(read_checked(&near_follower, 8), 0);
                write_rows(&pair.ring, 1);
                assert_int_equal(read_checked(&near_follower, 8), 1);
                assert_int_equal(cbuf_first(&near_follower.reader), laps * turn - 16 + i);
                assert_int_equal(cbuf_latest(&pair.consumer, row, &sequence), 1);
                assert_int_equal(sequence, laps * turn - 16 + i);
                if (i % 7 == 6) read_all(&far_follower); /* 7 rows: not lapped */
            }
            read_all(&far_follower);
            assert_int_equal(near_follower.lost, 0);
            assert_int_equal(far_follower.lost, 0);
            cbuf_reader_close(&near_follower.reader);
            cbuf_reader_close(&far_follower.reader);
            close_pair(&pair);
        }
}

/* The numbers in the rows tell one lap from another as long as a reader is not 2^32 rows behind;
 * then `reserve` does. When it was lapped by 2^32 rows to within one lap, its place looks as if the
 * row were still to come: then a read alone may say "nothing yet" until the producer has gone on,
 * but cbuf_wait, which looks at head, finds out at once. */
TEST(a_reader_lapped_by_more_than_2_to_the_32_rows_loses_exactly_what_is_gone)
{
    const uint64_t turn = UINT64_C(1) << 32;
    for (size_t k = 0; k < COUNT_OF(shapes); k++)
        for (uint64_t cursor = 5; cursor <= 13; cursor += 8)
            for (uint64_t ahead = turn - 20; ahead <= turn + 20; ahead++) {
                struct pair pair;
                struct follower follower;
                open_shape(&pair, &shapes[k], 8, 1);
                write_rows(&pair.ring, (uint32_t)cursor);
                follow(&follower, &pair.consumer, cursor);
                age_ring(&pair.ring, cursor + ahead - 8);
                write_rows(&pair.ring, 8);
                bool blind = shapes[k].layout == CBUF_NUMBERED && ahead > turn - 8 && ahead <= turn;
                if (!blind) assert_true(read_checked(&follower, 8) > 0);
                assert_int_equal(
                    cbuf_wait(&follower.reader, 1, 0), blind || follower.next < cursor + ahead);
                read_all(&follower);
                assert_int_equal(follower.lost, ahead - 8);
                cbuf_reader_close(&follower.reader);
                close_pair(&pair);
            }
}

TEST(a_reader_ahead_of_the_head_gets_nothing_until_its_row_comes)
{
    const uint64_t turn = UINT64_C(1) << 32;
    const uint64_t aheads[] = { 1, 7, 8, 9, 17, turn - 9, turn - 8, turn - 1, turn, turn + 1,
        turn + 8, 5 * turn - 3, 5 * turn };
    for (size_t k = 0; k < COUNT_OF(shapes) * COUNT_OF(aheads) * 12; k++) {
        struct pair pair;
        struct follower follower;
        cbuf_reader_options options = reader_options(CBUF_AT);
        unsigned char row[ROW];
        uint64_t head = k / COUNT_OF(shapes) / COUNT_OF(aheads),
                 ahead = aheads[k / COUNT_OF(shapes) % COUNT_OF(aheads)];
        open_shape(&pair, &shapes[k % COUNT_OF(shapes)], 8, 1);
        write_rows(&pair.ring, (uint32_t)head);
        follow(&follower, &pair.consumer, 0);
        if (ahead < 20) {
            assert_int_equal(cbuf_seek(&follower.reader, head + ahead), 0);
            for (uint64_t i = 0; i <= ahead; i++) {
                assert_int_equal(cbuf_available(&follower.reader), 0);
                assert_int_equal(read_checked(&follower, 8), 0);
                write_rows(&pair.ring, 1);
            }
            follower.next = head + ahead;
            assert_int_equal(read_checked(&follower, 8), 1);
            assert_int_equal(follower.lost, 0);
        } else { /* so far ahead it may as well be refused */
            if (cbuf_seek(&follower.reader, head + ahead) == 0)
                assert_int_equal(cbuf_read(&follower.reader, row, 1), 0);
            cbuf_reader_close(&follower.reader);
            options.sequence = head + ahead;
            if (cbuf_reader_open(&follower.reader, &pair.consumer, &options) == 0)
                assert_int_equal(cbuf_read(&follower.reader, row, 1), 0);
        }
        cbuf_reader_close(&follower.reader);
        close_pair(&pair);
    }
}

/* ---- seeking ---- */

TEST(seeking_skips_rows_without_counting_them_and_goes_back_to_rows_that_are_still_there)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++) {
        struct pair pair;
        struct follower follower;
        open_shape(&pair, &shapes[k], 16, 1);
        write_rows(&pair.ring, 40);
        follow(&follower, &pair.consumer, 30);
        read_all(&follower);
        for (uint64_t to = 24; to <= 40; to++) { /* 24 is the oldest */
            assert_int_equal(cbuf_seek(&follower.reader, to), 0);
            assert_int_equal(cbuf_available(&follower.reader), 40 - to);
            follower.next = to;
            read_all(&follower);
            assert_int_equal(cbuf_lost(&follower.reader), 0);
        }
        assert_int_equal(cbuf_seek(&follower.reader, 20), 0);
        follower.next = 20;
        read_all(&follower);
        assert_int_equal(cbuf_lost(&follower.reader), 4);
        assert_int_equal(cbuf_seek(&follower.reader, UINT64_C(1) << 63), CBUF_EINVAL);
        assert_int_equal(cbuf_seek(&follower.reader, UINT64_MAX), CBUF_EINVAL);
        write_rows(&pair.ring, 1);
        read_all(&follower); /* a refused seek leaves the cursor */
        cbuf_reader_close(&follower.reader);
        close_pair(&pair);
    }
}

/* Value number `rank` of a type, 0 to 10: ascending from the smallest that there is to the
 * largest. */
enum { RANKS = 11 };
static void value_of(uint32_t type, uint64_t rank, void *to)
{
    static const double wide[RANKS] = { -HUGE_VAL, -1e300, -1.5, -4.9e-324, 0, 4.9e-324, 1, 1.5,
        9007199254740993.0, 1e300, HUGE_VAL };
    static const float narrow[RANKS] = { -HUGE_VALF, -1e38f, -1.5f, -1.4e-45f, 0, 1.4e-45f, 1, 1.5f,
        16777217.0f, 1e38f, HUGE_VALF };
    uint32_t kind = type >> 24, bytes = CBUF_TYPE_BYTES(type);
    uint64_t span = UINT64_MAX >> (64 - 8 * bytes),
             low = kind == 2 ? 0 : UINT64_C(1) << (8 * bytes - 1);
    uint64_t value = low + span / (RANKS - 1) * rank + (rank == RANKS - 1 ? span % (RANKS - 1) : 0);
    uint8_t v8 = (uint8_t)(kind == 4 ? rank > RANKS / 2 : value);
    uint16_t v16 = (uint16_t)value;
    uint32_t v32 = (uint32_t)value;
    if (kind == 3)
        memcpy(to, bytes == 8 ? (const void *)&wide[rank] : (const void *)&narrow[rank], bytes);
    else
        memcpy(to,
            bytes == 1       ? (const void *)&v8
                : bytes == 2 ? (const void *)&v16
                : bytes == 4 ? (const void *)&v32
                             : (const void *)&value,
            bytes);
}
static uint64_t key_of(uint32_t type, uint64_t rank)
{
    return type == CBUF_BOOL ? rank > RANKS / 2 : rank;
}

TEST(seeking_by_value_finds_the_first_row_that_is_not_less_for_every_numeric_type)
{
    static const uint32_t types[] = { CBUF_INT8, CBUF_INT16, CBUF_INT32, CBUF_INT64, CBUF_UINT8,
        CBUF_UINT16, CBUF_UINT32, CBUF_UINT64, CBUF_FLOAT32, CBUF_FLOAT64, CBUF_BOOL,
        CBUF_TIMESTAMP_NS };
    static const uint8_t rows[][24] = { /* with duplicates */
        { 0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 4, 4, 5, 6, 6, 7, 7, 7, 8, 9, 9, 9, 10 },
        /* and gaps; none least, none greatest */
        { 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 8, 8, 8, 8, 8, 8, 8, 8, 9 },
        { 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5 }
    };
    for (size_t k = 0; k < COUNT_OF(types) * COUNT_OF(rows) * 2; k++) {
        const uint8_t *ranks = rows[k / 2 / COUNT_OF(types)];
        /* at an odd offset, across words */
        cbuf_column columns[2] = { { "x", 0, 5 }, { "s", CBUF_BYTES(5), 0 } }, found;
        struct pair pair;
        cbuf_reader reader;
        columns[0].type = types[k / 2 % COUNT_OF(types)];
        cbuf_options options = options_of(16, columns, 2);
        options.layout = k % 2;
        options.reserve_step = 1;
        open_pair(&pair, &options);
        assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
        assert_int_equal(cbuf_column_find(&pair.consumer, "x", &found), 0);
        for (uint64_t n = 0; n <= 24; n++) {
            uint64_t oldest = cbuf_oldest(&pair.consumer);
            for (uint64_t probe = 0; probe < RANKS; probe++) {
                unsigned char value[8];
                uint64_t wanted = oldest;
                while (wanted < n && key_of(found.type, ranks[wanted]) < key_of(found.type, probe))
                    wanted++;
                value_of(found.type, probe, value);
                assert_int_equal(cbuf_seek_value(&reader, &found, value), 0);
                assert_int_equal(cbuf_available(&reader), n - wanted);
                assert_int_equal(cbuf_lost(&reader), 0);
            }
            unsigned char row[16] = { 0 };
            if (n < 24) value_of(found.type, ranks[n], row + 5);
            if (n < 24) assert_int_equal(cbuf_write(&pair.ring, row), 1);
        }
        /* bytes have no order */
        assert_int_equal(cbuf_seek_value(&reader, &columns[1], "abcde"), CBUF_EINVAL);
        found.offset = pair.ring.row_bytes - 1 + (CBUF_TYPE_BYTES(found.type) == 1);
        assert_int_equal(cbuf_seek_value(&reader, &found, "abcdefgh"), CBUF_EINVAL);
        found.offset = UINT32_MAX;
        assert_int_equal(cbuf_seek_value(&reader, &found, "abcdefgh"), CBUF_EINVAL);
        cbuf_reader_close(&reader);
        close_pair(&pair);
    }
}

static void write_values(cbuf_ring *ring, uint32_t n)
{
    while (n--) {
        int64_t value = (int64_t)(cbuf_head(ring) / 3 * 10); /* each value three times */
        assert_int_equal(cbuf_write(ring, &value), 1);
    }
}
static void write_value_burst(void *unused)
{
    (void)unused;
    write_values(burst.ring, burst.rows);
}

TEST(seeking_by_value_stays_right_when_rows_are_overwritten_during_the_search)
{
    static const cbuf_column column = { "x", CBUF_INT64, 0 };
    static const uint32_t bursts[] = { 1, 3, 5, 8, 9, 30 };
    for (size_t k = 0; k < COUNT_OF(bursts) * 2 * 12; k++) {
        int64_t value = (int64_t)(k / COUNT_OF(bursts) / 2) * 10 - 5;
        /* the first row that is not less */
        uint64_t lower = value < 0 ? 0 : (uint64_t)(value + 9) / 10 * 3;
        bool called = true;
        for (uint64_t n = 0; called; n++) {
            cbuf_options options = options_of(8, &column, 1);
            struct pair pair;
            cbuf_reader reader;
            options.layout = k / COUNT_OF(bursts) % 2;
            options.reserve_step = 1;
            open_pair(&pair, &options);
            write_values(&pair.ring, 20);
            assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
            burst.ring = &pair.ring;
            burst.rows = bursts[k % COUNT_OF(bursts)];
            hook_at(n, write_value_burst, NULL);
            assert_int_equal(cbuf_seek_value(&reader, &column, &value), 0);
            called = hook_end();
            if (!called) burst.rows = 0;
            uint64_t at = cbuf_head(&pair.consumer) - cbuf_available(&reader);
            /* as of before the burst, and as of after it */
            uint64_t least = lower < 12 ? 12 : lower, most = lower;
            if (least > 20) least = 20;
            if (most < 12 + burst.rows) most = 12 + burst.rows;
            if (most > 20 + burst.rows) most = 20 + burst.rows;
            assert_in_range(at, least, most);
            cbuf_reader_close(&reader);
            close_pair(&pair);
        }
    }
}

/* ---- snapshots ---- */

TEST(a_snapshot_is_the_last_rows_as_they_were_at_one_moment)
{
    static const uint32_t bursts[] = { 1, 2, 3, 4, 5, 9 };
    for (size_t k = 0; k < COUNT_OF(shapes) * COUNT_OF(bursts) * 6 * 2; k++) {
        const struct shape *shape = &shapes[k % COUNT_OF(shapes)];
        uint32_t asked = (uint32_t)(k / COUNT_OF(shapes) / COUNT_OF(bursts) % 6);
        uint32_t step = k < COUNT_OF(shapes) * COUNT_OF(bursts) * 6 ? 1 : 2;
        bool called = true;
        for (uint64_t n = 0; called; n++) {
            struct pair pair;
            unsigned char rows[6 * ROW];
            uint64_t first = 0;
            open_shape(&pair, shape, 4, step);
            write_rows(&pair.ring, 7);
            burst.ring = &pair.ring;
            burst.rows = bursts[k / COUNT_OF(shapes) % COUNT_OF(bursts)];
            uint64_t heads[2] = { 7, 7 + burst.rows }, oldest[2] = { cbuf_oldest(&pair.ring), 0 };
            hook_at(n, write_burst, NULL);
            int64_t got = cbuf_snapshot(&pair.consumer, rows, asked, &first);
            called = hook_end();
            oldest[1] = cbuf_oldest(&pair.ring);
            bool same = false;
            for (int moment = 0; moment < 2; moment++) {
                uint64_t there = heads[moment] - oldest[moment];
                int64_t wanted = there < asked ? (int64_t)there : asked;
                same = same || (got == wanted && (!got || first + (uint64_t)got == heads[moment]));
            }
            /* a burst between the loads of head and reserve takes rows away, but never all of
             * them */
            same = same ||
                (called && got > 0 && got < asked && first + (uint64_t)got == heads[0] &&
                    first <= oldest[1]);
            assert_true(same);
            for (int64_t i = 0; i < got; i++)
                assert_true(shape_row(
                    &pair.ring, rows + (size_t)i * shape->row_bytes, first + (uint64_t)i));
            close_pair(&pair);
        }
    }
}

TEST(a_snapshot_of_few_rows_is_all_of_them)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++) {
        struct pair pair;
        unsigned char rows[MOST * ROW];
        uint64_t first = 99;
        open_shape(&pair, &shapes[k], 8, 1);
        assert_int_equal(cbuf_snapshot(&pair.consumer, rows, 8, &first), 0);
        assert_int_equal(cbuf_latest(&pair.consumer, rows, &first), 0);
        for (uint32_t n = 1; n <= 20; n++) {
            write_rows(&pair.ring, 1);
            uint32_t there = n < 8 ? n : 8;
            for (uint32_t asked = 0; asked <= 10; asked++) {
                uint32_t wanted = asked < there ? asked : there;
                assert_int_equal(cbuf_snapshot(&pair.consumer, rows, asked, &first), wanted);
                if (wanted) assert_int_equal(first, n - wanted);
                for (uint32_t i = 0; i < wanted; i++)
                    assert_true(shape_row(&pair.ring, rows + i * pair.ring.row_bytes, first + i));
            }
            assert_int_equal(cbuf_snapshot(&pair.consumer, rows, UINT32_MAX, NULL), there);
            assert_int_equal(cbuf_latest(&pair.consumer, rows, NULL), 1);
            assert_true(shape_row(&pair.ring, rows, n - 1));
        }
        close_pair(&pair);
    }
}

/* A producer that laps the snapshot each time that it is validated: it must come to an end, with
 * the rows that are left. */
static void lap_again(void *ring)
{
    write_rows((cbuf_ring *)ring, 2);
    hook_at_word(&((cbuf_ring *)ring)->file->reserve, 1, lap_again, ring);
}
TEST(a_snapshot_under_a_producer_that_never_rests_still_ends)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++) {
        struct pair pair;
        unsigned char rows[8 * ROW];
        uint64_t first = 0;
        open_shape(&pair, &shapes[k], 8, 1);
        write_rows(&pair.ring, 8);
        /* its second load validates */
        hook_at_word(&pair.ring.file->reserve, 1, lap_again, &pair.ring);
        int64_t n = cbuf_snapshot(&pair.consumer, rows, 8, &first);
        hook_end();
        assert_int_equal(n, 6);
        for (int64_t i = 0; i < n; i++)
            assert_true(
                shape_row(&pair.ring, rows + (size_t)i * pair.ring.row_bytes, first + (uint64_t)i));
        close_pair(&pair);
    }
}

/* ---- peeking ---- */

TEST(peeked_rows_are_valid_until_the_producer_may_overwrite_them)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++)
        for (uint32_t step = 1; step <= 4; step++)
            for (uint32_t more = 0; more <= 12; more++) {
                struct pair pair;
                struct follower follower;
                const void *rows = NULL, *again = NULL;
                open_shape(&pair, &shapes[k], 8, step);
                write_rows(&pair.ring, 10);
                follow(&follower, &pair.consumer, 8);
                assert_int_equal(cbuf_peek(&follower.reader, 2, &rows), 2);
                /* peeking does not move */
                assert_int_equal(cbuf_peek(&follower.reader, 1, &again), 1);
                assert_ptr_equal(rows, again);
                assert_true(cbuf_still_valid(&follower.reader));
                write_rows_singly(&pair.ring, more);
                bool valid = cbuf_oldest(&pair.consumer) <= 8;
                assert_int_equal(cbuf_still_valid(&follower.reader), valid);
                assert_true(valid || more > 6 - step);
                if (valid) assert_true(shape_row(&pair.ring, (const unsigned char *)rows, 8));
                read_all(&follower);
                cbuf_reader_close(&follower.reader);
                close_pair(&pair);
            }
}

TEST(a_lapped_reader_peeks_at_the_oldest_good_row_and_counts_the_loss)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++)
        for (uint32_t lapped = 1; lapped <= 20; lapped++) {
            struct pair pair;
            struct follower follower;
            const void *rows = NULL;
            open_shape(&pair, &shapes[k], 8, 1);
            write_rows(&pair.ring, 5);
            follow(&follower, &pair.consumer, 3);
            write_rows(&pair.ring, 6 + lapped);
            int64_t n = cbuf_peek(&follower.reader, 8, &rows);
            assert_true(n > 0);
            assert_int_equal(cbuf_lost(&follower.reader), lapped);
            assert_true(cbuf_still_valid(&follower.reader));
            assert_true(shape_row(&pair.ring, (const unsigned char *)rows, 3 + lapped));
            cbuf_reader_close(&follower.reader);
            close_pair(&pair);
        }
}

TEST(peeking_stops_at_the_ring_s_end_and_advancing_at_what_was_peeked)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++) {
        struct pair pair;
        struct follower follower;
        const void *rows = &pair;
        open_shape(&pair, &shapes[k], 8, 1);
        follow(&follower, &pair.consumer, 0);
        assert_int_equal(cbuf_peek(&follower.reader, 8, &rows), 0);
        assert_null(rows);
        cbuf_advance(&follower.reader, 3); /* nothing was peeked */
        write_rows(&pair.ring, 13);
        follower.next = 0;
        assert_int_equal(cbuf_seek(&follower.reader, 5), 0);
        assert_int_equal(cbuf_peek(&follower.reader, 0, &rows), 0);
        assert_int_equal(cbuf_peek(&follower.reader, 8, &rows), 3); /* rows 5 to 7 */
        cbuf_advance(&follower.reader, 2);
        assert_int_equal(cbuf_first(&follower.reader), 5);
        cbuf_advance(&follower.reader, 2); /* these were not peeked */
        assert_int_equal(cbuf_available(&follower.reader), 6);
        assert_int_equal(cbuf_peek(&follower.reader, 8, &rows), 1);
        cbuf_advance(&follower.reader, 100);
        assert_int_equal(cbuf_available(&follower.reader), 5);
        for (uint64_t done = 0; done < 5;) {
            int64_t n = cbuf_peek(&follower.reader, 8, &rows);
            assert_in_range(n, 1, 5 - done);
            for (int64_t i = 0; i < n; i++)
                assert_true(shape_row(&pair.ring,
                    (const unsigned char *)rows + (size_t)i * cbuf_stride(&pair.ring), 8 + done++));
            cbuf_advance(&follower.reader, (uint32_t)n);
        }
        assert_int_equal(cbuf_lost(&follower.reader), 0);
        cbuf_reader_close(&follower.reader);
        close_pair(&pair);
    }
}

/* ---- how to read ---- */

TEST(ways_to_read_that_there_are_not_are_refused)
{
    struct pair pair;
    cbuf_reader reader;
    open_shape(&pair, &shapes[0], 16, 1);
    cbuf_reader_options good = reader_options(CBUF_OLDEST), wrong = good;
    good.prefetch = 1024;
    assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, &good), 0);
    cbuf_reader_close(&reader);
    wrong.prefetch = 1025;
    assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, &wrong), CBUF_EINVAL);
    wrong = good, wrong.start = 3;
    assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, &wrong), CBUF_EINVAL);
    wrong = good, wrong.wait = 3;
    assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, &wrong), CBUF_EINVAL);
    wrong = good, wrong.start = CBUF_AT, wrong.sequence = UINT64_C(1) << 31;
    assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, &wrong), CBUF_EINVAL);
    close_pair(&pair);
}

TEST(a_reader_fetches_a_power_of_two_of_rows_ahead_and_at_most_an_eighth_of_the_ring)
{
    for (uint64_t capacity = 2; capacity <= 16384; capacity *= 2)
        for (uint32_t wanted = 0; wanted <= 1024; wanted = 2 * wanted + 1) {
            struct pair pair;
            open_shape(&pair, &shapes[0], capacity, 1);
            uint64_t rows = cbuf__rows_ahead(&pair.consumer, wanted);
            assert_true(rows && !(rows & (rows - 1)));
            if (wanted < 2 && wanted) assert_int_equal(rows, 4096); /* none */
            if (rows != 4096) assert_true(rows <= capacity / 8);
            if (wanted > 1 && wanted <= capacity / 8)
                assert_true(rows <= wanted && wanted < 2 * rows);
            close_pair(&pair);
        }
}

/* ---- waiting without sleeping ---- */

TEST(a_wait_tells_how_many_rows_are_there_and_the_end_only_after_the_last_row)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++) {
        struct pair pair;
        struct follower follower;
        open_shape(&pair, &shapes[k], 16, 1);
        follow(&follower, &pair.consumer, 0);
        assert_int_equal(cbuf_wait(&follower.reader, 0, 0), CBUF_EINVAL);
        /* more than half the ring */
        assert_int_equal(cbuf_wait(&follower.reader, 9, 0), CBUF_EINVAL);
        for (uint32_t there = 0; there <= 12; there++) {
            for (uint32_t n = 1; n <= 8; n++)
                assert_int_equal(cbuf_wait(&follower.reader, n, 0), n < there ? n : there);
            write_rows(&pair.ring, 1);
        }
        cbuf_close(&pair.ring);
        for (uint32_t there = 13; there; there--) {
            assert_int_equal(cbuf_wait(&follower.reader, 8, CBUF_FOREVER), there < 8 ? there : 8);
            assert_int_equal(read_checked(&follower, 1), 1);
        }
        assert_int_equal(cbuf_wait(&follower.reader, 1, CBUF_FOREVER), CBUF_ECLOSED);
        assert_int_equal(cbuf_read(&follower.reader, NULL, 1), 0);
        cbuf_reader_close(&follower.reader);
        cbuf_close(&pair.consumer);
        free(pair.memory);
    }
}

/* What a sleeping reader waits for comes before any access of its waiting: having come, it ends the
 * wait without a sleep. */
static struct {
    cbuf_ring *ring;
    uint64_t sleeps;
} event;
static void a_row_comes(void *unused)
{
    (void)unused;
    write_rows(event.ring, 1);
    event.sleeps = hook_sleeps;
}
static void the_end_comes(void *unused)
{
    (void)unused;
    cbuf_close(event.ring);
    event.sleeps = hook_sleeps;
}

TEST(a_reader_about_to_sleep_does_not_miss_what_it_waits_for)
{
    static void (*const comes[])(void *) = { a_row_comes, the_end_comes };
    for (size_t k = 0; k < COUNT_OF(shapes) * COUNT_OF(comes); k++)
        for (uint64_t n = 0; n < 100; n++) { /* it goes to sleep some times meanwhile */
            struct pair pair;
            struct follower follower;
            open_shape(&pair, &shapes[k % COUNT_OF(shapes)], 8, 1);
            write_rows(&pair.ring, 13);
            follow(&follower, &pair.consumer, 12);
            event.ring = &pair.ring;
            hook_at(n, comes[k / COUNT_OF(shapes)], NULL);
            int64_t there = cbuf_wait(&follower.reader, 2, CBUF_FOREVER);
            assert_true(hook_end());
            assert_int_equal(hook_sleeps, event.sleeps);
            assert_int_equal(there, comes[k / COUNT_OF(shapes)] == a_row_comes ? 2 : 1);
            cbuf_reader_close(&follower.reader);
            close_pair(&pair);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_starts_at_the_oldest_row_the_next_one_or_a_given_one),
        cmocka_unit_test(
            a_reader_gets_at_least_half_of_what_is_there_and_at_most_what_it_asked_for),
        cmocka_unit_test(what_a_reader_read_and_what_it_lost_is_what_was_written),
        cmocka_unit_test(the_mark_moves_in_steps_and_tells_what_is_still_to_be_trusted),
        cmocka_unit_test(a_lapped_reader_keeps_the_good_tail_of_its_batch_and_counts_the_rest),
        cmocka_unit_test(
            a_reader_whose_whole_batch_was_overwritten_goes_on_with_the_oldest_good_row),
        cmocka_unit_test(whenever_the_producer_laps_a_reader_rows_are_whole_and_the_loss_is_exact),
        cmocka_unit_test(whenever_a_reader_looks_at_a_row_being_written_it_gets_whole_rows_only),
        cmocka_unit_test(rows_go_on_when_the_32_bits_of_their_numbers_wrap),
        cmocka_unit_test(a_reader_lapped_by_more_than_2_to_the_32_rows_loses_exactly_what_is_gone),
        cmocka_unit_test(a_reader_ahead_of_the_head_gets_nothing_until_its_row_comes),
        cmocka_unit_test(
            seeking_skips_rows_without_counting_them_and_goes_back_to_rows_that_are_still_there),
        cmocka_unit_test(
            seeking_by_value_finds_the_first_row_that_is_not_less_for_every_numeric_type),
        cmocka_unit_test(seeking_by_value_stays_right_when_rows_are_overwritten_during_the_search),
        cmocka_unit_test(a_snapshot_is_the_last_rows_as_they_were_at_one_moment),
        cmocka_unit_test(a_snapshot_of_few_rows_is_all_of_them),
        cmocka_unit_test(a_snapshot_under_a_producer_that_never_rests_still_ends),
        cmocka_unit_test(peeked_rows_are_valid_until_the_producer_may_overwrite_them),
        cmocka_unit_test(a_lapped_reader_peeks_at_the_oldest_good_row_and_counts_the_loss),
        cmocka_unit_test(peeking_stops_at_the_ring_s_end_and_advancing_at_what_was_peeked),
        cmocka_unit_test(ways_to_read_that_there_are_not_are_refused),
        cmocka_unit_test(
            a_reader_fetches_a_power_of_two_of_rows_ahead_and_at_most_an_eighth_of_the_ring),
        cmocka_unit_test(a_reader_about_to_sleep_does_not_miss_what_it_waits_for),
        cmocka_unit_test(a_wait_tells_how_many_rows_are_there_and_the_end_only_after_the_last_row),
    };
    return cmocka_run_group_tests_name("reading", tests, NULL, NULL);
}
