/* Block and drop newest: what a gate has not read is not overwritten, and what is refused is
 * counted. */
#define CBUF_ACCESS_HEADER "hook_access.h"
#include "check.h"

static cbuf_options gated(uint64_t capacity, enum cbuf_on_full on_full)
{
    cbuf_options options = options_of(capacity, NULL, 0);
    options.on_full = (uint8_t)on_full;
    options.block_ns = 1; /* as good as none: it looks, and gives up */
    return options;
}
static uint64_t dropped_of(const cbuf_ring *ring)
{
    cbuf_stats stats;
    assert_int_equal(cbuf_stats_get(ring, &stats), 0);
    return stats.dropped;
}
static cbuf_reader_options named(const char *name, enum cbuf_start start)
{
    cbuf_reader_options options = reader_options(start);
    options.name = name;
    return options;
}

/* ---- full means full ---- */

TEST(a_full_ring_drops_the_newest_rows_and_counts_each)
{
    for (size_t k = 0; k < COUNT_OF(shapes) * 4; k++) {
        struct pair pair;
        struct follower gate;
        cbuf_options options = gated(8, CBUF_DROP_NEWEST);
        unsigned char row[ROW] = { 0 };
        uint64_t dropped = 0;
        int64_t granted = 0;
        options.reserve_step = (uint32_t)(1 + k / COUNT_OF(shapes));
        open_shape_with(&pair, &shapes[k % COUNT_OF(shapes)], options);
        write_rows(&pair.ring, 21); /* nobody to wait for */
        follow_with(&gate, &pair.consumer, reader_options(CBUF_NEWEST));
        for (uint32_t i = 0; i < 8; i++) assert_int_equal(try_rows(&pair.ring, 1), 1);
        for (uint32_t free = 0; free <= 8; free++) {
            for (uint32_t i = 0; i < free; i++) assert_int_equal(read_checked(&gate, 1), 1);
            assert_int_equal(try_rows(&pair.ring, 6), free < 6 ? free : 6);
            dropped += free < 6 ? 6 - free : 0;
            assert_int_equal(dropped_of(&pair.consumer), dropped);
            assert_int_equal(try_rows(&pair.ring, 8), free < 6 ? 0 : free - 6);
            dropped += free < 6 ? 8 : 14 - free;
            assert_int_equal(cbuf_write(&pair.ring, row), 0);
            dropped++;
            if (cbuf_claim(&pair.ring, 3, &granted)) fail();
            if (granted == 0) dropped += 3;
            else assert_int_equal(granted, CBUF_ELAYOUT);
            assert_int_equal(dropped_of(&pair.consumer), dropped);
        }
        cbuf_column column = bytes_column(12);
        cbuf_array array = { &column, row };
        assert_int_equal(cbuf_write_columns(&pair.ring, &array, 1, 1), 0);
        assert_int_equal(read_checked(&gate, 1), 1);
        assert_int_equal(dropped_of(&pair.consumer), dropped + 1);
        read_all(&gate);
        assert_int_equal(gate.lost, 0);
        cbuf_reader_close(&gate.reader);
        close_pair(&pair);
    }
}

TEST(a_column_write_that_fits_in_part_says_how_many_rows_and_drops_the_others)
{
    struct pair pair;
    struct follower gate;
    unsigned char values[10 * 16];
    cbuf_column column = bytes_column(16);
    cbuf_array array = { &column, values };
    for (uint64_t i = 0; i < 10; i++) fill_row(values + i * 16, 16, i);
    open_shape_with(&pair, &shapes[0], gated(8, CBUF_DROP_NEWEST));
    follow_with(&gate, &pair.consumer, reader_options(CBUF_OLDEST));
    assert_int_equal(cbuf_write_columns(&pair.ring, &array, 1, 10), 8);
    assert_int_equal(dropped_of(&pair.ring), 2);
    assert_int_equal(cbuf_write_columns(&pair.ring, &array, 1, 10), 0);
    assert_int_equal(dropped_of(&pair.ring), 12);
    read_all(&gate);
    assert_int_equal(gate.next, 8);
    cbuf_reader_close(&gate.reader);
    close_pair(&pair);
}

TEST(a_blocking_ring_writes_what_fits_and_times_out_only_if_nothing_does)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++) {
        struct pair pair;
        struct follower gate;
        cbuf_stats stats;
        int64_t granted = 0;
        open_shape_with(&pair, &shapes[k], gated(8, CBUF_BLOCK));
        follow_with(&gate, &pair.consumer, reader_options(CBUF_OLDEST));
        assert_int_equal(try_rows(&pair.ring, 11), 8);
        for (uint32_t free = 0; free <= 8; free++) {
            for (uint32_t i = 0; i < free; i++) assert_int_equal(read_checked(&gate, 1), 1);
            assert_int_equal(try_rows(&pair.ring, 9), free ? (int)free : (int)CBUF_ETIMEDOUT);
            assert_int_equal(try_rows(&pair.ring, 1), CBUF_ETIMEDOUT);
            if (cbuf_claim(&pair.ring, 1, &granted)) fail();
            assert_true(granted == CBUF_ETIMEDOUT || granted == CBUF_ELAYOUT);
        }
        assert_int_equal(cbuf_stats_get(&pair.consumer, &stats), 0);
        assert_int_equal(stats.dropped, 0);
        assert_true(stats.waits >= 10);
        read_all(&gate);
        assert_int_equal(gate.lost, 0);
        cbuf_reader_close(&gate.reader);
        close_pair(&pair);
    }
}

TEST(a_blocked_write_waits_as_long_as_it_was_told_and_no_shorter)
{
    static const int64_t times[] = { 200000, 3000000 };
    for (size_t k = 0; k < COUNT_OF(times); k++) {
        struct pair pair;
        struct follower gate;
        cbuf_options options = gated(4, CBUF_BLOCK);
        options.block_ns = times[k];
        open_shape_with(&pair, &shapes[0], options);
        follow_with(&gate, &pair.consumer, reader_options(CBUF_OLDEST));
        write_rows(&pair.ring, 4);
        int64_t start = cbuf__now_ns(CBUF__MONOTONIC);
        assert_int_equal(try_rows(&pair.ring, 1), CBUF_ETIMEDOUT);
        assert_true(cbuf__now_ns(CBUF__MONOTONIC) - start >= times[k]);
        start = cbuf__now_ns(CBUF__MONOTONIC);
        assert_int_equal(cbuf_wait_room(&pair.ring, 1, times[k]), 0);
        assert_true(cbuf__now_ns(CBUF__MONOTONIC) - start >= times[k]);
        cbuf_reader_close(&gate.reader);
        close_pair(&pair);
    }
}

static uint64_t sleeps; /* of the producer, when there was room */
static void read_one(void *follower)
{
    assert_int_equal(read_checked((struct follower *)follower, 1), 1);
    sleeps = hook_sleeps;
}
static void close_gate(void *follower)
{
    cbuf_reader_close(&((struct follower *)follower)->reader);
    sleeps = hook_sleeps;
}

/* The producer waits without limit; before any access of its waiting there is room: it goes on,
 * without a sleep. */
TEST(a_blocked_write_goes_on_whenever_a_gate_reads_or_closes)
{
    static void (*const deeds[])(void *) = { read_one, close_gate };
    for (size_t k = 0; k < COUNT_OF(shapes) * COUNT_OF(deeds); k++) /* it polls 1,000 times first */
        for (uint64_t n = 0; n < 1100; n += n < 60 || n >= 990 ? 1 : 31) {
            struct pair pair;
            struct follower gate;
            cbuf_options options = gated(4, CBUF_BLOCK);
            options.block_ns = 0;
            open_shape_with(&pair, &shapes[k % COUNT_OF(shapes)], options);
            follow_with(&gate, &pair.consumer, reader_options(CBUF_OLDEST));
            write_rows(&pair.ring, 4);
            hook_at(n, deeds[k / COUNT_OF(shapes)], &gate);
            write_rows(&pair.ring, 1);
            assert_true(hook_end());
            assert_int_equal(hook_sleeps, sleeps);
            if (deeds[k / COUNT_OF(shapes)] == read_one) {
                read_all(&gate);
                assert_int_equal(gate.lost, 0);
                cbuf_reader_close(&gate.reader);
            }
            close_pair(&pair);
        }
}

TEST(the_slowest_of_several_gates_holds_the_producer_up)
{
    uint64_t seed = 0x5eed0002;
    for (size_t k = 0; k < COUNT_OF(shapes) * 2; k++) {
        struct pair pair;
        struct follower gates[4];
        open_shape_with(&pair, &shapes[k / 2], gated(16, k % 2 ? CBUF_BLOCK : CBUF_DROP_NEWEST));
        for (size_t g = 0; g < COUNT_OF(gates); g++)
            follow_with(&gates[g], &pair.consumer, reader_options(CBUF_OLDEST));
        for (int i = 0; i < 400; i++) {
            uint64_t slowest = UINT64_MAX, head = cbuf_head(&pair.ring);
            read_checked(
                &gates[random_below(&seed, COUNT_OF(gates))], (uint32_t)random_below(&seed, 12));
            for (size_t g = 0; g < COUNT_OF(gates); g++)
                if (gates[g].next < slowest) slowest = gates[g].next;
            uint32_t n = (uint32_t)random_below(&seed, 6);
            uint64_t room = slowest + 16 - head;
            int64_t none = n && k % 2 ? (int64_t)CBUF_ETIMEDOUT : 0;
            assert_int_equal(
                try_rows(&pair.ring, n), !room ? none : (int64_t)(n < room ? n : room));
        }
        for (size_t g = 0; g < COUNT_OF(gates); g++) {
            read_all(&gates[g]);
            assert_int_equal(gates[g].lost, 0);
            cbuf_reader_close(&gates[g].reader);
        }
        close_pair(&pair);
    }
}

/* ---- who is a gate ---- */

TEST(lossy_and_anonymous_readers_do_not_gate_and_lose_what_is_overwritten)
{
    for (int kind = 0; kind < 2; kind++) {
        struct pair pair;
        struct follower reader;
        cbuf_reader_options options = reader_options(CBUF_OLDEST);
        options.lossy = kind == 0;
        options.anonymous = kind == 1;
        open_shape_with(&pair, &shapes[0], gated(8, CBUF_DROP_NEWEST));
        follow_with(&reader, &pair.consumer, options);
        write_rows(&pair.ring, 30);
        assert_int_equal(dropped_of(&pair.ring), 0);
        read_all(&reader);
        assert_int_equal(reader.lost, cbuf_oldest(&pair.consumer));
        cbuf_reader_close(&reader.reader);
        close_pair(&pair);
    }
}

TEST(nobody_is_a_gate_where_rows_are_overwritten)
{
    struct pair pair;
    struct follower reader;
    cbuf_reader_stats stats;
    open_shape_with(&pair, &shapes[0], gated(8, CBUF_OVERWRITE));
    follow_with(&reader, &pair.consumer, reader_options(CBUF_OLDEST));
    write_rows(&pair.ring, 30);
    assert_int_equal(cbuf_reader_stats_get(&pair.ring, 0, &stats), 1);
    assert_false(stats.gate);
    assert_int_equal(cbuf_wait_room(&pair.ring, 4, 0), 1);
    cbuf_reader_close(&reader.reader);
    close_pair(&pair);
}

TEST(closing_a_gate_lets_the_producer_go_on)
{
    struct pair pair;
    struct follower slow, fast;
    open_shape_with(&pair, &shapes[0], gated(8, CBUF_DROP_NEWEST));
    follow_with(&slow, &pair.consumer, reader_options(CBUF_OLDEST));
    follow_with(&fast, &pair.consumer, reader_options(CBUF_OLDEST));
    write_rows(&pair.ring, 8);
    read_all(&fast);
    assert_int_equal(try_rows(&pair.ring, 1), 0);
    cbuf_reader_close(&slow.reader);
    assert_int_equal(try_rows(&pair.ring, 9), 8);
    cbuf_reader_close(&fast.reader);
    write_rows(&pair.ring, 40);
    close_pair(&pair);
}

TEST(a_gate_keeps_the_rows_from_where_it_starts)
{
    for (size_t k = 0; k < COUNT_OF(shapes); k++)
        for (uint64_t start = 0; start <= 5; start++) {
            struct pair pair;
            struct follower gate;
            cbuf_reader_options options = reader_options(CBUF_AT);
            options.sequence = start;
            if (start == 0) options.start = CBUF_OLDEST;
            if (start == 5) options.start = CBUF_NEWEST;
            open_shape_with(&pair, &shapes[k], gated(8, CBUF_DROP_NEWEST));
            write_rows(&pair.ring, 5);
            follow_with(&gate, &pair.consumer, options);
            assert_int_equal(gate.next, start);
            assert_int_equal(try_rows(&pair.ring, 20), 3 + start);
            read_all(&gate);
            assert_int_equal(gate.lost, 0);
            cbuf_reader_close(&gate.reader);
            close_pair(&pair);
        }
}

/* ---- registering in mid-stream ---- */

static struct {
    cbuf_ring *ring;
    uint32_t rows;
} burst;
static void write_burst(void *unused)
{
    (void)unused;
    (void)try_rows(burst.ring, burst.rows);
}
/* Until nothing more fits: then the reader is at the oldest row that is still there. */
static void fill_up(cbuf_ring *ring)
{
    for (int i = 0; i < 100; i++) (void)try_rows(ring, 3);
    assert_int_equal(try_rows(ring, 1), 0);
}

/* The producer writes a burst before one of the accesses of cbuf_reader_open, wherever its own
 * cached limit stands. */
TEST(a_reader_that_registers_while_the_producer_writes_loses_nothing_from_then_on)
{
    for (size_t k = 0; k < COUNT_OF(shapes) * 2 * 3 * 9; k++) {
        const struct shape *shape = &shapes[k % COUNT_OF(shapes)];
        size_t rest = k / COUNT_OF(shapes);
        bool called = true;
        for (uint64_t n = 0; called; n++) {
            struct pair pair;
            struct follower gate;
            cbuf_options options = gated(4, CBUF_DROP_NEWEST);
            options.reserve_step = (uint32_t)(1 + rest % 2);
            open_shape_with(&pair, shape, options);
            write_rows(&pair.ring, 6 + (uint32_t)(rest / 2 % 3));
            burst.ring = &pair.ring;
            burst.rows = (uint32_t)(rest / 6);
            hook_at(n, write_burst, NULL);
            follow_with(
                &gate, &pair.consumer, reader_options(rest % 2 ? CBUF_NEWEST : CBUF_OLDEST));
            called = hook_end();
            uint64_t head = cbuf_head(&pair.ring), start = gate.next;
            fill_up(&pair.ring);
            read_all(&gate);
            /* from the oldest row on: as far as the producer had not been allowed to go on
             * before */
            assert_in_range(gate.lost, 0, rest % 2 ? 0 : head - start);
            cbuf_reader_close(&gate.reader);
            close_pair(&pair);
        }
    }
}

static struct {
    struct follower *follower;
    const cbuf_ring *ring;
    bool opened;
} newcomer;
static void register_newcomer(void *unused)
{
    (void)unused;
    follow_with(newcomer.follower, newcomer.ring, reader_options(CBUF_NEWEST));
    newcomer.opened = true;
}

/* The other way round: a reader registers before one of the accesses of a write. */
TEST(a_reader_that_registers_during_a_write_is_waited_for)
{
    for (size_t k = 0; k < COUNT_OF(shapes) * 2 * 9 * 2; k++) {
        size_t rest = k / COUNT_OF(shapes);
        newcomer.opened = true;
        for (uint64_t n = 0; newcomer.opened; n++) {
            struct pair pair;
            struct follower slow, gate;
            cbuf_options options = gated(4, CBUF_DROP_NEWEST);
            options.reserve_step = (uint32_t)(1 + rest % 2);
            open_shape_with(&pair, &shapes[k % COUNT_OF(shapes)], options);
            if (rest / 18) follow_with(&slow, &pair.consumer, reader_options(CBUF_OLDEST));
            (void)try_rows(&pair.ring, (uint32_t)(rest / 2 % 9));
            if (rest / 18) read_checked(&slow, 2);
            newcomer.follower = &gate;
            newcomer.ring = &pair.consumer;
            newcomer.opened = false;
            hook_at(n, register_newcomer, NULL);
            (void)try_rows(&pair.ring, 3);
            hook_end();
            if (rest / 18) cbuf_reader_close(&slow.reader);
            if (newcomer.opened) {
                fill_up(&pair.ring);
                read_all(&gate);
                assert_int_equal(gate.lost, 0);
                cbuf_reader_close(&gate.reader);
            }
            close_pair(&pair);
        }
    }
}

/* ---- demotion ---- */

static cbuf_stats write_until_demoted(cbuf_ring *ring)
{
    cbuf_stats stats;
    int64_t start = cbuf__now_ns(CBUF__MONOTONIC);
    do {
        (void)try_rows(ring, 1);
        assert_int_equal(cbuf_stats_get(ring, &stats), 0);
        assert_true(cbuf__now_ns(CBUF__MONOTONIC) - start < 10000000000);
    } while (!stats.demotions);
    return stats;
}

TEST(a_gate_that_stands_still_is_demoted_and_the_next_reader_of_its_slot_is_a_gate_again)
{
    for (int on_full = CBUF_BLOCK; on_full <= CBUF_DROP_NEWEST; on_full++) {
        struct pair pair;
        struct follower stuck, next;
        cbuf_reader_stats seen;
        cbuf_options options = gated(8, (enum cbuf_on_full)on_full);
        options.demote_ns = 1000;
        options.max_readers = 1;
        open_shape_with(&pair, &shapes[0], options);
        follow_with(&stuck, &pair.consumer, reader_options(CBUF_OLDEST));
        write_rows(&pair.ring, 8);
        assert_int_equal(cbuf_reader_stats_get(&pair.consumer, 0, &seen), 1);
        assert_true(seen.gate && !seen.demoted);
        write_until_demoted(&pair.ring);
        write_rows(&pair.ring, 20);
        assert_int_equal(cbuf_reader_stats_get(&pair.consumer, 0, &seen), 1);
        assert_true(seen.gate && seen.demoted);
        read_all(&stuck); /* lossy now, and exactly */
        assert_int_equal(stuck.lost, cbuf_oldest(&pair.consumer));
        cbuf_reader_close(&stuck.reader);
        follow_with(&next, &pair.consumer, reader_options(CBUF_NEWEST));
        assert_int_equal(cbuf_reader_stats_get(&pair.consumer, 0, &seen), 1);
        assert_true(seen.gate && !seen.demoted);
        assert_int_equal(try_rows(&pair.ring, 9), 8);
        read_all(&next);
        assert_int_equal(next.lost, 0);
        cbuf_reader_close(&next.reader);
        close_pair(&pair);
    }
}

TEST(only_the_gate_in_the_way_is_demoted)
{
    struct pair pair;
    struct follower stuck, good;
    cbuf_reader_stats seen;
    cbuf_options options = gated(8, CBUF_DROP_NEWEST);
    options.demote_ns = 1000;
    open_shape_with(&pair, &shapes[0], options);
    follow_with(&good, &pair.consumer, reader_options(CBUF_OLDEST));
    follow_with(&stuck, &pair.consumer, reader_options(CBUF_OLDEST));
    write_rows(&pair.ring, 8);
    read_checked(&good, 5);
    assert_int_equal(write_until_demoted(&pair.ring).demotions, 1);
    uint64_t room = good.next + 8 - cbuf_head(&pair.ring);
    assert_int_equal(try_rows(&pair.ring, 20), room);
    assert_int_equal(cbuf_reader_stats_get(&pair.consumer, 0, &seen), 1);
    assert_false(seen.demoted);
    read_all(&good);
    assert_int_equal(good.lost, 0);
    cbuf_reader_close(&good.reader);
    cbuf_reader_close(&stuck.reader);
    close_pair(&pair);
}

/* However long it takes: between any two looks at it the gate has moved. */
TEST(a_gate_that_moves_is_not_demoted)
{
    struct pair pair;
    struct follower gate;
    cbuf_stats stats;
    cbuf_options options = gated(8, CBUF_DROP_NEWEST);
    options.demote_ns = 1;
    open_shape_with(&pair, &shapes[0], options);
    follow_with(&gate, &pair.consumer, reader_options(CBUF_OLDEST));
    write_rows(&pair.ring, 8);
    for (int64_t start = cbuf__now_ns(CBUF__MONOTONIC);
         cbuf__now_ns(CBUF__MONOTONIC) - start < 20000000;) {
        assert_int_equal(try_rows(&pair.ring, 1), 0);
        assert_int_equal(read_checked(&gate, 1), 1);
        assert_int_equal(try_rows(&pair.ring, 1), 1);
    }
    assert_int_equal(cbuf_stats_get(&pair.ring, &stats), 0);
    assert_int_equal(stats.demotions, 0);
    assert_int_equal(gate.lost, 0);
    cbuf_reader_close(&gate.reader);
    close_pair(&pair);
}

TEST(without_demote_ns_a_gate_may_stand_for_ever)
{
    struct pair pair;
    struct follower gate;
    cbuf_stats stats;
    open_shape_with(&pair, &shapes[0], gated(8, CBUF_DROP_NEWEST));
    follow_with(&gate, &pair.consumer, reader_options(CBUF_OLDEST));
    write_rows(&pair.ring, 8);
    for (int64_t start = cbuf__now_ns(CBUF__MONOTONIC);
         cbuf__now_ns(CBUF__MONOTONIC) - start < 20000000;)
        assert_int_equal(try_rows(&pair.ring, 1), 0);
    assert_int_equal(cbuf_stats_get(&pair.ring, &stats), 0);
    assert_int_equal(stats.demotions, 0);
    read_all(&gate);
    assert_int_equal(gate.lost, 0);
    cbuf_reader_close(&gate.reader);
    close_pair(&pair);
}

/* ---- waiting for room ---- */

TEST(room_that_was_waited_for_is_there)
{
    for (int on_full = CBUF_BLOCK; on_full <= CBUF_DROP_NEWEST; on_full++)
        for (uint32_t read = 0; read <= 8; read++)
            for (uint32_t n = 1; n <= 4; n++) {
                struct pair pair;
                struct follower gate;
                open_shape_with(&pair, &shapes[0], gated(8, (enum cbuf_on_full)on_full));
                assert_int_equal(cbuf_wait_room(&pair.ring, 0, 0), CBUF_EINVAL);
                /* more than half */
                assert_int_equal(cbuf_wait_room(&pair.ring, 5, 0), CBUF_EINVAL);
                assert_int_equal(cbuf_wait_room(&pair.consumer, 1, 0), CBUF_EROLE);
                follow_with(&gate, &pair.consumer, reader_options(CBUF_OLDEST));
                write_rows(&pair.ring, 8);
                for (uint32_t i = 0; i < read; i++) read_checked(&gate, 1);
                assert_int_equal(cbuf_wait_room(&pair.ring, n, 0), n <= read);
                if (n > read) { /* the rest comes while it waits */
                    for (uint32_t i = read + 1; i < n; i++) read_checked(&gate, 1);
                    hook_at(100 * n, read_one, &gate);
                    assert_int_equal(cbuf_wait_room(&pair.ring, n, CBUF_FOREVER), 1);
                    assert_true(hook_end());
                }
                write_rows(&pair.ring, n);
                read_all(&gate);
                assert_int_equal(gate.lost, 0);
                assert_int_equal(dropped_of(&pair.ring), 0);
                cbuf_reader_close(&gate.reader);
                close_pair(&pair);
            }
}

/* ---- slots ---- */

TEST(slots_run_out_and_come_back_and_the_mark_of_used_ones_never_falls)
{
    for (int in_file = 0; in_file < 2; in_file++) {
        struct pair pair;
        cbuf_reader readers[4];
        cbuf_reader_options anonymous = reader_options(CBUF_OLDEST);
        cbuf_column column = bytes_column(8);
        cbuf_options options = options_of(8, &column, 1);
        cbuf_stats stats;
        options.max_readers = 3;
        anonymous.anonymous = true;
        if (in_file) {
            options.name = unique_name();
            assert_int_equal(cbuf_create(&pair.ring, &options), 0);
            assert_int_equal(cbuf_attach(&pair.consumer, options.name, NULL), 0);
        } else {
            open_pair(&pair, &options);
        }
        for (uint32_t k = 0; k < 3; k++) {
            assert_int_equal(cbuf__load_relaxed(&pair.ring.readers->high), k);
            assert_int_equal(cbuf_reader_open(&readers[k], &pair.consumer, NULL), 0);
            assert_int_equal(cbuf_stats_get(&pair.consumer, &stats), 0);
            assert_int_equal(stats.readers, k + 1);
        }
        for (int round = 0; round < 9; round++) {
            assert_int_equal(cbuf_reader_open(&readers[3], &pair.consumer, NULL), CBUF_ESLOTS);
            cbuf_reader_close(&readers[3]); /* closing what did not open does nothing */
            assert_int_equal(cbuf_reader_open(&readers[3], &pair.consumer, &anonymous), 0);
            cbuf_reader_close(&readers[3]);
            cbuf_reader_close(&readers[round % 3]);
            cbuf_reader_close(&readers[round % 3]); /* nor does closing twice */
            assert_int_equal(cbuf_stats_get(&pair.ring, &stats), 0);
            assert_int_equal(stats.readers, 2);
            assert_int_equal(cbuf_reader_open(&readers[round % 3], &pair.ring, NULL), 0);
        }
        assert_int_equal(cbuf__load_relaxed(&pair.ring.readers->high), 3);
        for (uint32_t k = 0; k < 3; k++) cbuf_reader_close(&readers[k]);
        assert_int_equal(cbuf__load_relaxed(&pair.ring.readers->high), 3);
        assert_int_equal(cbuf_stats_get(&pair.ring, &stats), 0);
        assert_int_equal(stats.readers, 0);
        if (in_file) {
            cbuf_close(&pair.ring);
            cbuf_close(&pair.consumer);
            assert_int_equal(cbuf_remove(options.name), 0);
        } else {
            close_pair(&pair);
        }
    }
}

TEST(a_gate_in_the_last_slot_is_seen_when_those_before_it_are_empty)
{
    struct pair pair;
    struct follower gates[5];
    cbuf_options options = gated(8, CBUF_DROP_NEWEST);
    options.max_readers = 5;
    open_shape_with(&pair, &shapes[0], options);
    for (size_t k = 0; k < COUNT_OF(gates); k++)
        follow_with(&gates[k], &pair.consumer, reader_options(CBUF_OLDEST));
    for (size_t k = 0; k + 1 < COUNT_OF(gates); k++) cbuf_reader_close(&gates[k].reader);
    assert_int_equal(try_rows(&pair.ring, 20), 8);
    read_all(&gates[4]);
    assert_int_equal(gates[4].lost, 0);
    cbuf_reader_close(&gates[4].reader);
    close_pair(&pair);
}

/* A reader dies: the kernel closes its files. Nothing else is left of it than what it wrote in its
 * slot. */
TEST(a_dead_gate_is_swept_when_it_stands_in_the_way_and_its_slot_can_be_had)
{
    for (int on_full = CBUF_BLOCK; on_full <= CBUF_DROP_NEWEST; on_full++) {
        cbuf_ring ring, consumer;
        struct follower dead, alive;
        cbuf_stats stats;
        cbuf_column column = bytes_column(16);
        cbuf_options options = gated(8, (enum cbuf_on_full)on_full);
        options.columns = &column;
        options.column_count = 1;
        options.max_readers = 1;
        options.block_ns = 0;
        options.name = unique_name();
        assert_int_equal(cbuf_create(&ring, &options), 0);
        assert_int_equal(cbuf_attach(&consumer, options.name, NULL), 0);

        follow_with(&dead, &consumer, reader_options(CBUF_OLDEST));
        write_rows(&ring, 8);
        close(dead.reader.fd);
        write_rows(&ring, 20);
        assert_int_equal(cbuf_stats_get(&ring, &stats), 0);
        assert_int_equal(stats.readers, 0);

        follow_with(&dead, &consumer, reader_options(CBUF_OLDEST));
        close(dead.reader.fd); /* and not in the way: the next reader takes its slot over */
        follow_with(&alive, &consumer, reader_options(CBUF_NEWEST));
        assert_int_equal(cbuf_stats_get(&ring, &stats), 0);
        assert_int_equal(stats.readers, 1);
        write_rows(&ring, 8);
        read_all(&alive);
        assert_int_equal(alive.lost, 0);
        cbuf_reader_close(&alive.reader);
        cbuf_close(&ring);
        cbuf_close(&consumer);
        assert_int_equal(cbuf_remove(options.name), 0);
    }
}

/* Two gates, both dead: after the first was freed the time that is left counts. Under a sanitizer
 * an overflow ends the test. */
TEST(a_time_limit_may_be_the_largest_there_is)
{
    for (uint32_t producers = 1; producers <= 2; producers++) {
        cbuf_ring ring, consumer;
        cbuf_reader dead[2], alive;
        struct tick tick = tick_of(0), ticks[8];
        cbuf_options options = gated(8, CBUF_BLOCK);
        options.columns = tick_columns;
        options.column_count = COUNT_OF(tick_columns);
        options.row_bytes = sizeof tick;
        options.producers = producers;
        options.block_ns = INT64_MAX;
        options.name = unique_name();
        assert_int_equal(cbuf_create(&ring, &options), 0);
        assert_int_equal(cbuf_attach(&consumer, options.name, NULL), 0);
        for (int k = 0; k < 2; k++)
            assert_int_equal(cbuf_reader_open(&dead[k], &consumer, NULL), 0);
        for (int k = 0; k < 8; k++) assert_int_equal(cbuf_write(&ring, &tick), 1);
        for (int k = 0; k < 2; k++) close(dead[k].fd);
        assert_int_equal(cbuf_write(&ring, &tick), 1);
        assert_int_equal(cbuf_wait_room(&ring, 1, INT64_MAX), 1);
        assert_int_equal(cbuf_reader_open(&alive, &consumer, NULL), 0);
        while (cbuf_read(&alive, ticks, 8) > 0) {}
        cbuf_close(&ring);
        assert_int_equal(cbuf_wait(&alive, 1, INT64_MAX), CBUF_ECLOSED);
        cbuf_reader_close(&alive);
        cbuf_close(&consumer);
        assert_int_equal(cbuf_remove(options.name), 0);
    }
}

/* In steps that never meet a multiple of the rows that it would fetch ahead. */
TEST(a_reader_that_is_lapped_at_each_read_shows_that_it_is_active)
{
    struct pair pair;
    struct tick tick = tick_of(0), ticks[16];
    cbuf_reader reader;
    cbuf_reader_stats seen;
    cbuf_options options = tick_options(1024);
    open_pair(&pair, &options);
    assert_int_equal(cbuf_reader_open(&reader, &pair.consumer, NULL), 0);
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < 8192; i++) assert_int_equal(cbuf_write(&pair.ring, &tick), 1);
        cbuf__store_relaxed(&reader.slot->active_ns, 0);
        assert_int_equal(cbuf_read(&reader, ticks, 16), 16);
        assert_int_equal(cbuf_reader_stats_get(&pair.ring, 0, &seen), 1);
        assert_true(seen.active_ns > 0);
    }
    cbuf_reader_close(&reader);
    close_pair(&pair);
}

TEST(a_slot_shows_who_reads_and_how_far_it_is)
{
    struct pair pair;
    struct follower long_name, lossy;
    cbuf_reader_stats seen;
    cbuf_reader_options options;
    cbuf_options ring_options = tick_options(16);
    struct tick tick;
    const char *name = "a name of more than 47 characters, of which the rest is cut off";
    ring_options.on_full = CBUF_DROP_NEWEST;
    open_pair(&pair, &ring_options);
    options = named(name, CBUF_OLDEST);
    follow_with(&long_name, &pair.consumer, options);
    options = named(NULL, CBUF_OLDEST);
    options.lossy = true;
    follow_with(&lossy, &pair.consumer, options);
    for (uint64_t i = 0; i < 10; i++) {
        tick = tick_of(i);
        assert_int_equal(cbuf_write(&pair.ring, &tick), 1);
    }
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(cbuf_read(&lossy.reader, &tick, 1), 1);
        assert_true(is_tick(&tick, i));
    }
    assert_int_equal(cbuf_reader_stats_get(&pair.ring, 0, &seen), 1);
    assert_memory_equal(seen.name, name, 47);
    assert_int_equal(seen.name[47], 0);
    assert_true(seen.gate);
    assert_int_equal(seen.cursor, 0);
    assert_int_equal(seen.lag_rows, 10);
    assert_int_equal(seen.lag_ns, 9000);
    assert_int_equal(seen.pid, getpid());
    assert_true(seen.started_ns > 0 && seen.active_ns >= seen.started_ns);
    assert_int_equal(cbuf_reader_stats_get(&pair.consumer, 1, &seen), 1);
    assert_string_equal(seen.name, "reader");
    assert_false(seen.gate);
    assert_int_equal(seen.cursor, 4);
    assert_int_equal(seen.lag_rows, 6);
    assert_int_equal(seen.lag_ns, 5000);
    assert_int_equal(cbuf_reader_stats_get(&pair.consumer, 2, &seen), 0);
    assert_int_equal(cbuf_reader_stats_get(&pair.consumer, 64, &seen), CBUF_EINVAL);
    cbuf_reader_close(&long_name.reader);
    assert_int_equal(cbuf_reader_stats_get(&pair.consumer, 0, &seen), 0);
    cbuf_reader_close(&lossy.reader);
    close_pair(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_ring_drops_the_newest_rows_and_counts_each),
        cmocka_unit_test(a_column_write_that_fits_in_part_says_how_many_rows_and_drops_the_others),
        cmocka_unit_test(a_blocking_ring_writes_what_fits_and_times_out_only_if_nothing_does),
        cmocka_unit_test(a_blocked_write_waits_as_long_as_it_was_told_and_no_shorter),
        cmocka_unit_test(a_blocked_write_goes_on_whenever_a_gate_reads_or_closes),
        cmocka_unit_test(the_slowest_of_several_gates_holds_the_producer_up),
        cmocka_unit_test(lossy_and_anonymous_readers_do_not_gate_and_lose_what_is_overwritten),
        cmocka_unit_test(nobody_is_a_gate_where_rows_are_overwritten),
        cmocka_unit_test(closing_a_gate_lets_the_producer_go_on),
        cmocka_unit_test(a_gate_keeps_the_rows_from_where_it_starts),
        cmocka_unit_test(
            a_reader_that_registers_while_the_producer_writes_loses_nothing_from_then_on),
        cmocka_unit_test(a_reader_that_registers_during_a_write_is_waited_for),
        cmocka_unit_test(
            a_gate_that_stands_still_is_demoted_and_the_next_reader_of_its_slot_is_a_gate_again),
        cmocka_unit_test(only_the_gate_in_the_way_is_demoted),
        cmocka_unit_test(a_gate_that_moves_is_not_demoted),
        cmocka_unit_test(without_demote_ns_a_gate_may_stand_for_ever),
        cmocka_unit_test(room_that_was_waited_for_is_there),
        cmocka_unit_test(slots_run_out_and_come_back_and_the_mark_of_used_ones_never_falls),
        cmocka_unit_test(a_gate_in_the_last_slot_is_seen_when_those_before_it_are_empty),
        cmocka_unit_test(a_dead_gate_is_swept_when_it_stands_in_the_way_and_its_slot_can_be_had),
        cmocka_unit_test(a_time_limit_may_be_the_largest_there_is),
        cmocka_unit_test(a_reader_that_is_lapped_at_each_read_shows_that_it_is_active),
        cmocka_unit_test(a_slot_shows_who_reads_and_how_far_it_is),
    };
    return cmocka_run_group_tests_name("gates", tests, NULL, NULL);
}
