/* check.h: what the tests share. A test file includes it first: it brings cbuf.h, then cmocka.
 * Valid C11 and C++17.
 *
 * Rows are functions of their sequence number, so that a torn, lost, doubled or displaced one is
 * seen at once. Whatever is random comes from a seed that is part of the test. Races are not
 * provoked but played: the shared counters are set by hand, or hook_access.h lets the other side
 * act between two given accesses. */
#ifndef CHECK_H
#define CHECK_H

#include <cbuf.h>

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __cplusplus
extern "C" {
#endif
#include <cmocka.h>
#ifdef __cplusplus
}
#endif

#define TEST(name) static void name(__attribute__((unused)) void **state)
#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

#include "sanitized.h"

/* `n` where programs run at full speed, a part of it under an emulator or a sanitizer. */
static inline uint64_t scaled(uint64_t n)
{
    const char *runner = getenv("CBUF_TEST_RUNNER");
    if (runner && *runner) n /= 16;
    return CHECK_SANITIZED ? n / 8 : n;
}

/* ---- chance ---- */

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled"
 * (2016). The seed may not be 0. */
static inline uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * 0x2545f4914f6cdd1du;
}
static inline uint64_t random_below(uint64_t *seed, uint64_t limit)
{
    return (next_random(seed) >> 16) % limit;
}

/* ---- rows ---- */

/* A row as users have them; 4 bytes of padding at its end, on 32-bit machines as well. */
struct tick {
    int64_t time;
    double bid, ask;
    int32_t size;
} __attribute__((aligned(8)));
static const cbuf_column tick_columns[] = { CBUF_COLUMN_AS(struct tick, time, CBUF_TIMESTAMP_NS),
    CBUF_COLUMN(struct tick, bid), CBUF_COLUMN(struct tick, ask), CBUF_COLUMN(struct tick, size) };

static inline struct tick tick_of(uint64_t sequence)
{
    struct tick tick;
    memset(&tick, 0, sizeof tick);
    tick.time = (int64_t)sequence * 1000;
    tick.bid = (double)sequence * 0.25;
    tick.ask = (double)sequence * 0.25 + 1;
    tick.size = (int32_t)(uint32_t)(sequence * 2654435761u);
    return tick;
}
static inline bool is_tick(const struct tick *tick, uint64_t sequence)
{
    struct tick wanted = tick_of(sequence);
    return !memcmp(tick, &wanted, offsetof(struct tick, size) + sizeof wanted.size);
}

/* A row of any size: 8 bytes after another, each of them a mix of the sequence number and its place
 * (splitmix64). */
static inline uint64_t row_word(uint64_t sequence, size_t word)
{
    uint64_t x = (sequence + 1) * 0x9e3779b97f4a7c15u + word * 0xd1b54a32d192ed03u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
static inline void fill_row(void *row, size_t bytes, uint64_t sequence)
{
    unsigned char *to = (unsigned char *)row;
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word = row_word(sequence, at / 8);
        memcpy(to + at, &word, bytes - at < 8 ? bytes - at : 8);
    }
}
static inline bool is_row(const void *row, size_t bytes, uint64_t sequence)
{
    const unsigned char *from = (const unsigned char *)row;
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word = row_word(sequence, at / 8);
        if (memcmp(from + at, &word, bytes - at < 8 ? bytes - at : 8)) return false;
    }
    return true;
}

/* The column that covers the first `bytes` bytes of a row. */
static inline cbuf_column bytes_column(uint32_t bytes)
{
    cbuf_column column;
    memset(&column, 0, sizeof column);
    memcpy(column.name, "bytes", 6);
    column.type = CBUF_BYTES(bytes);
    return column;
}

/* ---- rings ---- */

static inline cbuf_options options_of(
    uint64_t capacity, const cbuf_column *columns, uint32_t column_count)
{
    cbuf_options options;
    memset(&options, 0, sizeof options);
    options.capacity = capacity;
    options.columns = columns;
    options.column_count = column_count;
    return options;
}
static inline cbuf_options tick_options(uint64_t capacity)
{
    cbuf_options options = options_of(capacity, tick_columns, (uint32_t)COUNT_OF(tick_columns));
    options.row_bytes = sizeof(struct tick);
    return options;
}
static inline cbuf_reader_options reader_options(enum cbuf_start start)
{
    cbuf_reader_options options;
    memset(&options, 0, sizeof options);
    options.start = (uint8_t)start;
    options.spins = 1;
    return options;
}

/* A producer's and a consumer's handle of one ring, in memory that ends where the ring ends. */
struct pair {
    cbuf_ring ring, consumer;
    void *memory;
    size_t bytes;
};
static inline void open_pair(struct pair *pair, const cbuf_options *options)
{
    int64_t needed = cbuf_memory_needed(options);
    assert_true(needed > 0);
    pair->bytes = (size_t)needed;
    assert_int_equal(posix_memalign(&pair->memory, 128, pair->bytes), 0);
    if (cbuf_create_in(&pair->ring, pair->memory, pair->bytes, options))
        fail_msg("%s", cbuf_error(&pair->ring));
    if (cbuf_attach_in(&pair->consumer, pair->memory, pair->bytes))
        fail_msg("%s", cbuf_error(&pair->consumer));
}
static inline void close_pair(struct pair *pair)
{
    cbuf_close(&pair->ring);
    cbuf_close(&pair->consumer);
    free(pair->memory);
}

/* Lets an empty ring in memory look as if `head` rows had been written and read long ago. */
static inline void age_ring(cbuf_ring *ring, uint64_t head)
{
    cbuf__store_relaxed(&ring->file->reserve, head);
    cbuf__store_relaxed(&ring->file->head, head);
    ring->next = ring->reserved = ring->limit = head;
}
static inline uint64_t reserve_of(const cbuf_ring *ring)
{
    return cbuf__load_relaxed(&ring->file->reserve);
}

/* ---- rings of small rows, and readers that check all they get ---- */

enum { MOST = 64, ROW = 16 }; /* rows in a batch, bytes of a row at most */

/* The ways in which rows lie: with the number in a word of its own, beside columns, in the padding;
 * dense. */
static const struct shape {
    uint32_t row_bytes, covered;
    uint8_t layout;
} shapes[] = { { 16, 16, CBUF_NUMBERED }, { 12, 12, CBUF_NUMBERED }, { 16, 12, CBUF_NUMBERED },
    { 16, 16, CBUF_DENSE }, { 12, 12, CBUF_DENSE } };

/* Opens a ring of such rows; `options` gives what the shape does not. */
static inline void open_shape_with(
    struct pair *pair, const struct shape *shape, cbuf_options options)
{
    cbuf_column column = bytes_column(shape->covered);
    options.columns = &column;
    options.column_count = 1;
    options.row_bytes = shape->row_bytes;
    options.layout = shape->layout;
    open_pair(pair, &options);
}
static inline void open_shape(
    struct pair *pair, const struct shape *shape, uint64_t capacity, uint32_t reserve_step)
{
    cbuf_options options = options_of(capacity, NULL, 0);
    options.reserve_step = reserve_step;
    open_shape_with(pair, shape, options);
}

/* Row i is a function of i; what of it the columns carry is compared. */
static inline bool shape_row(const cbuf_ring *ring, const unsigned char *row, uint64_t sequence)
{
    return is_row(row, ring->shared_tail ? ring->row_bytes - 4 : ring->row_bytes, sequence);
}
/* Writes up to n rows; how many, or an error. */
static inline int64_t try_rows(cbuf_ring *ring, uint32_t n)
{
    unsigned char rows[MOST * ROW];
    uint64_t head = cbuf_head(ring);
    assert_true(n <= MOST);
    for (uint32_t i = 0; i < n; i++)
        fill_row(rows + i * ring->row_bytes, ring->row_bytes, head + i);
    return cbuf_write_n(ring, rows, n);
}
static inline void write_rows(cbuf_ring *ring, uint32_t n)
{
    assert_int_equal(try_rows(ring, n), n);
}

/* A reader, and what must be true of its next result. */
struct follower {
    cbuf_reader reader;
    uint64_t next, lost; /* the row that comes next; what was lost so far */
};
static inline void follow_with(
    struct follower *follower, const cbuf_ring *ring, cbuf_reader_options options)
{
    memset(follower, 0, sizeof *follower);
    assert_int_equal(cbuf_reader_open(&follower->reader, ring, &options), 0);
    follower->next = cbuf_first(&follower->reader);
}
static inline void follow(struct follower *follower, const cbuf_ring *ring, uint64_t sequence)
{
    cbuf_reader_options options = reader_options(CBUF_AT);
    options.sequence = sequence;
    follow_with(follower, ring, options);
}
/* n rows from the reader's first on: whole, in order, and what lies before them counted as lost,
 * exactly. */
static inline void check_rows(
    struct follower *follower, const unsigned char *rows, int64_t n, uint32_t stride)
{
    uint64_t first = cbuf_first(&follower->reader);
    assert_true(n >= 0);
    if (!n) return;
    assert_true(first >= follower->next);
    for (int64_t i = 0; i < n; i++)
        if (!shape_row(follower->reader.ring, rows + (size_t)i * stride, first + (uint64_t)i))
            fail_msg("row %llu is not what was written", (unsigned long long)first + (uint64_t)i);
    follower->lost += first - follower->next;
    follower->next = first + (uint64_t)n;
    assert_int_equal(cbuf_lost(&follower->reader), follower->lost);
}
static inline int64_t read_checked(struct follower *follower, uint32_t max)
{
    unsigned char rows[MOST * ROW];
    int64_t n = cbuf_read(&follower->reader, rows, max < MOST ? max : (uint32_t)MOST);
    check_rows(follower, rows, n, follower->reader.ring->row_bytes);
    assert_true(n <= max);
    return n;
}
static inline void read_all(struct follower *follower)
{
    while (read_checked(follower, MOST) > 0) {}
    assert_int_equal(follower->next, cbuf_head(follower->reader.ring));
    assert_int_equal(cbuf_available(&follower->reader), 0);
}

/* ---- files ---- */

/* A name for a ring in a file that nobody else uses; its files are removed at the end, however the
 * test ends. */
static char check__names[64][64];
static inline void check__remove_files(void)
{
    static const char *const suffixes[] = { "", ".readers", ".lock", ".new", ".readers.new" };
    char path[128];
    for (size_t k = 0; k < COUNT_OF(check__names) && check__names[k][0]; k++)
        for (size_t s = 0; s < COUNT_OF(suffixes); s++) {
            snprintf(path, sizeof path, "/dev/shm/%.63s%.15s", check__names[k], suffixes[s]);
            unlink(path);
        }
}
static inline const char *unique_name(void)
{
    static size_t used;
    if (!used && atexit(check__remove_files)) abort();
    assert_true(used < COUNT_OF(check__names));
    char *name = check__names[used];
    snprintf(name, sizeof check__names[0], "cbuf_test_%ld_%zu", (long)getpid(), used++);
    return name;
}

#endif
