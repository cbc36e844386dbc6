/* Random operations on a ring and on a naive model of it: an array of all rows ever written, a
 * cursor for each reader, and the rule by which `reserve` moves. Every result is the model's, to
 * the row; where the ring is free in what it returns, it is within bounds that are said here.
 *
 * A failure names its seed: CBUF_TEST_SEED=<seed> plays that run alone. */
#include "check.h"

enum { READERS = 6, MOST_ROWS = 256, LARGEST = 48 };

struct written {
    int64_t time; /* ascending, with repetitions */
    uint64_t key; /* what else is in the row */
};

struct model_reader {
    cbuf_reader reader;
    bool open, gate;
    int slot;                /* -1: anonymous */
    uint64_t cursor, shared; /* where it is, and where the producer thinks that it is */
    uint64_t lost;
};

struct model {
    uint64_t seed, random, operation; /* of this run */
    cbuf_options options;             /* resolved by the model */
    cbuf_column columns[2];
    uint32_t covered; /* bytes of a row that columns name */
    bool has_time, in_file, numbered, shared_tail, producing;
    uint64_t capacity, base; /* base: the number of the first row ever written */
    uint64_t next, reserve, reserved, limit, dropped, epoch;
    struct written *rows;
    size_t room_for_rows;
    struct model_reader readers[READERS];
    cbuf_ring ring, consumer;
    void *memory;
    const char *name;
};

static void differs(
    const struct model *m, const char *what, int64_t is, int64_t least, int64_t most, int line)
{
    fail_msg("line %d: %s is %lld, and should be %lld to %lld; CBUF_TEST_SEED=%llu, operation "
             "%llu: capacity %llu, "
             "step %u, rows of %u bytes, %s, policy %u, next %llu, reserve %llu",
        line, what, (long long)is, (long long)least, (long long)most, (unsigned long long)m->seed,
        (unsigned long long)m->operation, (unsigned long long)m->capacity, m->options.reserve_step,
        m->options.row_bytes, m->numbered ? "numbered" : "dense", m->options.on_full,
        (unsigned long long)m->next, (unsigned long long)m->reserve);
}
static void within(
    const struct model *m, const char *what, int64_t is, int64_t least, int64_t most, int line)
{
    if (is < least || is > most) differs(m, what, is, least, most, line);
}
#define WITHIN(m, what, least, most)                                                               \
    within(m, #what, (int64_t)(what), (int64_t)(least), (int64_t)(most), __LINE__)
#define IS(m, what, wanted) WITHIN(m, what, wanted, wanted)

static uint64_t below(struct model *m, uint64_t limit) { return random_below(&m->random, limit); }
static bool one_in(struct model *m, uint64_t n) { return below(m, n) == 0; }
static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* ---- rows ---- */

static void make_row(const struct model *m, const struct written *written, unsigned char *row)
{
    fill_row(row, m->options.row_bytes, written->key);
    if (m->has_time) memcpy(row, &written->time, 8);
}
static void check_row(const struct model *m, const unsigned char *row, uint64_t sequence, int line)
{
    unsigned char wanted[LARGEST];
    make_row(m, &m->rows[sequence - m->base], wanted);
    if (memcmp(row, wanted, m->covered))
        differs(m, "a row's number, by its bytes,", -1, (int64_t)sequence, (int64_t)sequence, line);
}
static void check_rows_at(const struct model *m, const unsigned char *rows, uint64_t first,
    int64_t n, uint32_t stride, int line)
{
    for (int64_t i = 0; i < n; i++)
        check_row(m, rows + (size_t)i * stride, first + (uint64_t)i, line);
}
/* n rows that might be written next. */
static void draft_rows(struct model *m, struct written *drafts, unsigned char *rows, uint64_t n)
{
    int64_t time = m->next > m->base ? m->rows[m->next - m->base - 1].time : -40;
    for (uint64_t i = 0; i < n; i++) {
        time += (int64_t)(one_in(m, 2) ? below(m, 6) : 0);
        drafts[i].time = time;
        drafts[i].key = next_random(&m->random);
        make_row(m, &drafts[i], rows + i * m->options.row_bytes);
    }
}
static void append_rows(struct model *m, const struct written *drafts, uint64_t n)
{
    size_t used = (size_t)(m->next - m->base);
    if (used + n > m->room_for_rows) {
        m->room_for_rows = 2 * (used + (size_t)n);
        void *more = realloc(m->rows, m->room_for_rows * sizeof *m->rows);
        assert_non_null(more);
        m->rows = (struct written *)more;
    }
    if (n) memcpy(m->rows + used, drafts, (size_t)n * sizeof *drafts);
    m->next += n;
}

/* ---- what the producer may write ---- */

static uint64_t oldest_of(const struct model *m)
{
    return m->reserve > m->capacity ? m->reserve - m->capacity : 0;
}

/* The ring looks at its gates only when it has used up what they allowed at the last look. */
static void look_at_gates(struct model *m)
{
    uint64_t oldest = m->next;
    for (int k = 0; k < READERS; k++)
        if (m->readers[k].open && m->readers[k].gate)
            oldest = smaller(oldest, m->readers[k].shared);
    m->limit = oldest + m->capacity;
}
/* Of n rows those that may be written now. `reserve` moves when what it promised is used up: by the
 * step, or by the rows that are there, a quarter of the ring at a time; not beyond the gates. */
static uint64_t room_for(struct model *m, uint64_t n)
{
    if (m->next + n <= m->reserved) return n;
    n = smaller(n, m->capacity < 4 ? 1 : m->capacity / 4);
    uint64_t end = m->next + n,
             mark = m->next + (n > m->options.reserve_step ? n : m->options.reserve_step);
    if (m->options.on_full != CBUF_OVERWRITE) {
        if (end > m->limit) look_at_gates(m);
        if (m->limit <= m->next) return 0;
        end = smaller(end, m->limit);
        mark = smaller(mark, m->limit);
    }
    m->reserved = mark;
    if (mark > m->reserve) m->reserve = mark;
    return end - m->next;
}
static uint64_t accept_rows(struct model *m, const struct written *drafts, uint64_t n)
{
    uint64_t done = 0;
    for (uint64_t granted; done < n && (granted = room_for(m, n - done)) > 0; done += granted)
        append_rows(m, drafts + done, granted);
    if (m->options.on_full == CBUF_DROP_NEWEST) m->dropped += n - done;
    return done;
}
/* What a write of n rows returns if `done` of them were accepted. */
static int64_t result_of(const struct model *m, uint64_t done, uint64_t n)
{
    if (!done && n && m->options.on_full == CBUF_BLOCK) return CBUF_ETIMEDOUT;
    if (!done && n && m->options.on_full == CBUF_SPILL) return CBUF_ENOSPILL; /* there is no log */
    return (int64_t)done;
}

/* ---- operations: the producer's ---- */

static void write_n(struct model *m)
{
    struct written drafts[MOST_ROWS];
    unsigned char rows[MOST_ROWS * LARGEST];
    uint64_t n = one_in(m, 2) ? 1
                              : below(m, one_in(m, 4) ? 3 * m->capacity + 1 : m->capacity / 2 + 2);
    draft_rows(m, drafts, rows, n);
    if (!m->producing) {
        if (n) IS(m, cbuf_write_n(&m->ring, rows, n), CBUF_ENOTOPEN);
        return;
    }
    int64_t wanted = result_of(m, accept_rows(m, drafts, n), n);
    if (n == 1 && one_in(m, 2)) IS(m, cbuf_write(&m->ring, rows), wanted);
    else IS(m, cbuf_write_n(&m->ring, rows, n), wanted);
}

static void write_columns(struct model *m)
{
    struct written drafts[MOST_ROWS];
    unsigned char rows[MOST_ROWS * LARGEST], values[2][MOST_ROWS * LARGEST];
    cbuf_array arrays[2];
    uint64_t n = below(m, m->capacity + 2), done = 0;
    if (!m->producing) return;
    draft_rows(m, drafts, rows, n);
    for (uint32_t k = 0; k < m->options.column_count; k++) {
        uint32_t bytes = CBUF_TYPE_BYTES(m->columns[k].type);
        for (uint64_t i = 0; i < n; i++)
            memcpy(values[k] + i * bytes, rows + i * m->options.row_bytes + m->columns[k].offset,
                bytes);
        arrays[k].column = &m->columns[k];
        arrays[k].values = values[k];
    }
    while (done < n && room_for(m, 1)) append_rows(m, drafts + done++, 1); /* one after another */
    if (m->options.on_full == CBUF_DROP_NEWEST) m->dropped += n - done;
    IS(m, cbuf_write_columns(&m->ring, arrays, m->options.column_count, n), result_of(m, done, n));
}

static void claim_and_publish(struct model *m)
{
    struct written drafts[MOST_ROWS];
    unsigned char rows[MOST_ROWS * LARGEST];
    uint32_t n = (uint32_t)(1 + below(m, one_in(m, 4) ? m->capacity + 3 : m->capacity / 4 + 2));
    int64_t granted = 0;
    if (!m->producing) {
        IS(m, cbuf_claim(&m->ring, n, &granted) != NULL, 0);
        IS(m, granted, CBUF_ENOTOPEN);
        return;
    }
    unsigned char *to = (unsigned char *)cbuf_claim(&m->ring, n, &granted);
    IS(m, to != NULL, granted > 0);
    if (m->shared_tail) {
        IS(m, granted, CBUF_ELAYOUT);
        return;
    }
    /* to the ring's end at most */
    uint64_t room = room_for(m, smaller(n, m->capacity - m->next % m->capacity));
    IS(m, granted, result_of(m, room, n));
    if (!room && m->options.on_full == CBUF_DROP_NEWEST) m->dropped += n;
    draft_rows(m, drafts, rows, room);
    for (uint64_t i = 0; i < room; i++)
        memcpy(
            to + i * cbuf_stride(&m->ring), rows + i * m->options.row_bytes, m->options.row_bytes);
    if (one_in(m, 8)) return; /* given up */
    uint64_t published = one_in(m, 3) ? below(m, room + 1) : room;
    if (one_in(m, 4)) IS(m, cbuf_publish(&m->ring, (uint32_t)room + 1), CBUF_EINVAL);
    IS(m, cbuf_publish(&m->ring, (uint32_t)published), published);
    append_rows(m, drafts, published);
}

static void wait_room(struct model *m)
{
    uint32_t n = (uint32_t)below(m, m->capacity / 2 + 2);
    bool valid = n && n <= m->capacity / 2;
    if (!m->producing) return;
    if (valid && m->options.on_full != CBUF_OVERWRITE) look_at_gates(m);
    bool there = m->options.on_full == CBUF_OVERWRITE || m->limit >= m->next + n;
    IS(m, cbuf_wait_room(&m->ring, n, 0), valid ? there : (int)CBUF_EINVAL);
}

/* ---- operations: a reader's ---- */

static struct model_reader *any_reader(struct model *m)
{
    struct model_reader *reader = &m->readers[below(m, READERS)];
    return reader->open ? reader : NULL;
}
/* The reader finds out that it was lapped. */
static void lose_rows(struct model *m, struct model_reader *r)
{
    if (oldest_of(m) <= r->cursor) return;
    r->lost += oldest_of(m) - r->cursor;
    r->cursor = oldest_of(m);
}
/* How many rows a reader gets that wants so many and is not lapped: all, or if there are fewer at
 * least half of these, in the dense layout all of these. */
static void check_count(
    struct model *m, const struct model_reader *r, uint64_t want, int64_t n, int line)
{
    uint64_t there = m->next > r->cursor ? m->next - r->cursor : 0, most = smaller(want, there);
    uint64_t least = most == want || !m->numbered ? most : (most + 1) / 2;
    if (n < (int64_t)least || n > (int64_t)most)
        differs(m, "the number of rows", n, (int64_t)least, (int64_t)most, line);
}

static void read_rows(struct model *m)
{
    unsigned char rows[MOST_ROWS * LARGEST];
    struct model_reader *r = any_reader(m);
    uint64_t max = one_in(m, 3) ? 1 : below(m, m->capacity + 6), want = smaller(max, m->capacity);
    if (!r) return;
    int64_t n = cbuf_read(&r->reader, rows, (uint32_t)max);
    uint64_t before = r->cursor;
    if (want) lose_rows(m, r);
    if (r->cursor == before) {
        check_count(m, r, want, n, __LINE__);
    } else { /* what is left of a batch that began with rows now lost */
        uint64_t batch = smaller(want, m->next - before),
                 there = smaller(want, m->next - r->cursor);
        if (m->numbered) WITHIN(m, n, 1, there);
        else IS(m, n, before + batch > r->cursor ? before + batch - r->cursor : there);
    }
    IS(m, cbuf_lost(&r->reader), r->lost);
    if (!n) return;
    IS(m, cbuf_first(&r->reader), r->cursor);
    check_rows_at(m, rows, r->cursor, n, m->options.row_bytes, __LINE__);
    r->shared = r->cursor += (uint64_t)n;
}

static void peek_rows(struct model *m)
{
    struct model_reader *r = any_reader(m);
    const void *rows = NULL;
    uint32_t max = (uint32_t)below(m, m->capacity + 6);
    if (!r) return;
    int64_t n = cbuf_peek(&r->reader, max, &rows);
    if (max) lose_rows(m, r);
    check_count(m, r, smaller(max, m->capacity - r->cursor % m->capacity), n, __LINE__);
    IS(m, rows != NULL, n > 0);
    IS(m, cbuf_lost(&r->reader), r->lost);
    check_rows_at(
        m, (const unsigned char *)rows, r->cursor, n, cbuf_stride(&m->consumer), __LINE__);
    IS(m, cbuf_still_valid(&r->reader), oldest_of(m) <= r->cursor);
    if (one_in(m, 3)) {
        write_n(m);
        IS(m, cbuf_still_valid(&r->reader), oldest_of(m) <= r->cursor);
    }
    if (one_in(m, 4)) return; /* a peek moves nothing */
    uint64_t step = below(m, (uint64_t)n + 3);
    cbuf_advance(&r->reader, (uint32_t)step);
    IS(m, cbuf_first(&r->reader), r->cursor);
    r->shared = r->cursor += smaller(step, (uint64_t)n);
}

static void seek_row(struct model *m)
{
    struct model_reader *r = any_reader(m);
    uint64_t low = oldest_of(m) > 3 * m->capacity ? oldest_of(m) - 3 * m->capacity : 0;
    uint64_t to = low + below(m, m->next - low + 2 * m->capacity);
    if (!r) return;
    if (one_in(m, 8)) IS(m, cbuf_seek(&r->reader, UINT64_MAX - to), CBUF_EINVAL);
    IS(m, cbuf_seek(&r->reader, to), 0);
    r->shared = r->cursor = to;
}

static void seek_value(struct model *m)
{
    struct model_reader *r = any_reader(m);
    uint64_t to = oldest_of(m);
    if (!r || !m->has_time || m->next == m->base) return;
    int64_t first = m->rows[to - m->base].time, last = m->rows[m->next - m->base - 1].time;
    int64_t value = first - 3 + (int64_t)below(m, (uint64_t)(last - first) + 7);
    while (to < m->next && m->rows[to - m->base].time < value) to++;
    IS(m, cbuf_seek_value(&r->reader, &m->columns[0], &value), 0);
    r->shared = r->cursor = to;
}

static void wait_rows(struct model *m)
{
    struct model_reader *r = any_reader(m);
    uint32_t n = (uint32_t)below(m, m->capacity / 2 + 2);
    if (!r) return;
    int64_t there = cbuf_wait(&r->reader, n, 0);
    if (!n || n > m->capacity / 2) {
        IS(m, there, CBUF_EINVAL);
        return;
    }
    uint64_t available = m->next > r->cursor ? m->next - r->cursor : 0;
    IS(m, there,
        available || m->producing ? (int64_t)smaller(n, available) : (int64_t)CBUF_ECLOSED);
    /* it may find out now or when it reads; its slot's cursor stays */
    if (cbuf_lost(&r->reader) != r->lost) lose_rows(m, r);
    IS(m, cbuf_lost(&r->reader), r->lost);
}

/* ---- operations: anybody's ---- */

static void observe(struct model *m)
{
    unsigned char rows[MOST_ROWS * LARGEST];
    const cbuf_ring *ring = m->producing && one_in(m, 2) ? &m->ring : &m->consumer;
    uint64_t first = 0, asked = below(m, m->capacity + 4), oldest = smaller(oldest_of(m), m->next);
    uint64_t start = m->next - oldest < asked ? oldest : m->next - asked;
    IS(m, cbuf_head(ring), m->next);
    IS(m, cbuf_oldest(ring), oldest_of(m));
    IS(m, cbuf_latest(ring, rows, &first), m->next > m->base);
    if (m->next > m->base) IS(m, first, m->next - 1);
    if (m->next > m->base) check_row(m, rows, first, __LINE__);
    IS(m, cbuf_snapshot(ring, rows, (uint32_t)asked, &first), m->next - start);
    if (m->next > start) IS(m, first, start);
    check_rows_at(m, rows, start, (int64_t)(m->next - start), m->options.row_bytes, __LINE__);
}

static void look_at_stats(struct model *m)
{
    cbuf_stats stats;
    cbuf_reader_stats seen;
    uint64_t readers = 0;
    memset(&stats, 0, sizeof stats);
    const cbuf_ring *ring = m->producing && one_in(m, 2) ? &m->ring : &m->consumer;
    for (int k = 0; k < READERS; k++) {
        const struct model_reader *r = &m->readers[k];
        if (!r->open) continue;
        IS(m, cbuf_available(&r->reader), m->next > r->cursor ? m->next - r->cursor : 0);
        IS(m, cbuf_lost(&r->reader), r->lost);
        if (r->slot < 0) continue;
        readers++;
        IS(m, cbuf_reader_stats_get(ring, (uint32_t)r->slot, &seen), 1);
        IS(m, seen.cursor, r->shared);
        IS(m, seen.lost, r->lost);
        IS(m, seen.gate, r->gate);
        IS(m, seen.demoted, false);
        IS(m, seen.lag_rows, m->next > r->shared ? m->next - r->shared : 0);
    }
    IS(m, cbuf_stats_get(ring, &stats), 0);
    IS(m, stats.written, m->next);
    IS(m, stats.overwritten, smaller(oldest_of(m), m->next));
    IS(m, stats.dropped, m->dropped);
    IS(m, stats.capacity, m->capacity);
    IS(m, stats.readers, readers);
    IS(m, stats.epoch, m->epoch);
    IS(m, stats.demotions, 0);
    IS(m, stats.closed, !m->producing);
    IS(m, stats.retired, false);
}

/* Opens a closed reader, or closes an open one. */
static void turn_reader(struct model *m)
{
    struct model_reader *r = &m->readers[below(m, READERS)];
    cbuf_reader_options options = reader_options((enum cbuf_start)below(m, 3));
    if (r->open) {
        cbuf_reader_close(&r->reader);
        r->open = false;
        return;
    }
    options.anonymous = one_in(m, 4);
    options.lossy = one_in(m, 4);
    options.prefetch = (uint32_t)below(m, 40);
    options.sequence = oldest_of(m) + below(m, 2 * m->capacity);
    int slot = 0;
    for (int k = 0; k < READERS; k++) /* the lowest that is free */
        if (m->readers[k].open && m->readers[k].slot == slot) slot++, k = -1;
    bool full = !options.anonymous && slot == (int)m->options.max_readers;
    const cbuf_ring *ring = !m->in_file && one_in(m, 2) ? &m->ring : &m->consumer;
    IS(m, cbuf_reader_open(&r->reader, ring, &options), full ? (int)CBUF_ESLOTS : 0);
    if (full) return;
    r->open = true;
    r->slot = options.anonymous ? -1 : slot;
    r->gate = !options.anonymous && !options.lossy && m->options.on_full != CBUF_OVERWRITE;
    r->lost = 0;
    r->cursor = options.start == CBUF_NEWEST ? m->next
        : options.start == CBUF_AT           ? options.sequence
                                             : smaller(oldest_of(m), m->next);
    r->shared = r->cursor;
}

/* The producer leaves a ring in a file, or another one continues it. */
static void turn_producer(struct model *m)
{
    cbuf_ring other;
    if (!m->in_file || !one_in(m, 4)) return;
    if (m->producing) {
        IS(m, cbuf_create(&other, &m->options), CBUF_EBUSY);
        cbuf_close(&m->ring);
        m->producing = false;
        return;
    }
    cbuf_options options = m->options;
    options.row_bytes += 8;
    IS(m, cbuf_create(&other, &options), CBUF_EMISMATCH);
    IS(m, cbuf_create(&m->ring, &m->options), 0);
    m->producing = true;
    m->epoch++;
    m->reserved = m->limit = m->next; /* `reserve` stays where it is */
}

/* ---- runs ---- */

static void choose_options(struct model *m)
{
    cbuf_options *o = &m->options;
    uint32_t row_bytes = (uint32_t)(1 + below(m, LARGEST));
    uint32_t uncovered = one_in(m, 2) && row_bytes > 8 ? (uint32_t)below(m, 8) : 0;
    /* more of those whose number can stand in the padding */
    if (one_in(m, 3)) row_bytes = (row_bytes + 7) / 8 * 8;
    m->covered = row_bytes - uncovered;
    m->has_time = m->covered > 8;
    *o = options_of(2 + below(m, 63), m->columns, m->has_time ? 2 : 1);
    m->columns[0] = bytes_column(m->covered);
    if (m->has_time) {
        m->columns[1] = bytes_column(m->covered - 8);
        m->columns[1].offset = 8;
        memcpy(m->columns[0].name, "time", 5);
        m->columns[0].type = one_in(m, 2) ? CBUF_INT64 : CBUF_TIMESTAMP_NS;
    }
    o->row_bytes = row_bytes;
    o->layout = (uint8_t)below(m, 2);
    o->on_full = (uint8_t)below(m, 4);
    o->in_place = one_in(m, 2);
    o->pad_rows = one_in(m, 3);
    o->max_readers = (uint32_t)(1 + below(m, READERS));
    o->block_ns = 1;
    for (m->capacity = 2; m->capacity < o->capacity;) m->capacity *= 2;
    o->reserve_step = (uint32_t)below(m, m->capacity / 2 + 1); /* 0: the default */
    m->in_file = one_in(m, 6);
    m->numbered = o->layout == CBUF_NUMBERED;
}

static void open_model(struct model *m, uint64_t seed)
{
    static const uint64_t bases[] = { 0, 0, 0, (UINT64_C(1) << 32) - 300,
        (UINT64_C(1) << 33) - 1000, (UINT64_C(1) << 40) - 5 };
    memset(m, 0, sizeof *m);
    m->seed = m->random = seed;
    choose_options(m);
    if (m->in_file) {
        static const char *name;
        if (!name) name = unique_name();
        m->options.name = m->name = name;
        IS(m, cbuf_create(&m->ring, &m->options), 0);
        IS(m, cbuf_attach(&m->consumer, m->name, NULL), 0);
    } else {
        int64_t needed = cbuf_memory_needed(&m->options);
        WITHIN(m, needed, 1, 1 << 20);
        assert_int_equal(posix_memalign(&m->memory, 128, (size_t)needed), 0);
        IS(m, cbuf_create_in(&m->ring, m->memory, (size_t)needed, &m->options), 0);
        IS(m, cbuf_attach_in(&m->consumer, m->memory, (size_t)needed), 0);
    }
    m->producing = true;
    m->epoch = 1;
    if (!m->options.reserve_step)
        m->options.reserve_step = m->capacity < 16 ? 1 : (uint32_t)m->capacity / 16;
    IS(m, cbuf_resolved(&m->ring)->reserve_step, m->options.reserve_step);
    IS(m, cbuf_resolved(&m->ring)->capacity, m->capacity);
    m->shared_tail = m->numbered && !m->options.in_place && m->options.row_bytes % 8 == 0 &&
        m->covered + 4 <= m->options.row_bytes && cbuf_stride(&m->ring) == m->options.row_bytes;
    m->base = m->in_file ? 0 : bases[below(m, COUNT_OF(bases))];
    if (m->base) age_ring(&m->ring, m->base);
    m->next = m->reserve = m->reserved = m->limit = m->base;
    /* each place gets its number */
    while (m->base && m->next < m->base + 2 * m->capacity) write_n(m);
}

static void close_model(struct model *m)
{
    for (int k = 0; k < READERS; k++)
        if (m->readers[k].open) cbuf_reader_close(&m->readers[k].reader);
    cbuf_close(&m->ring);
    cbuf_close(&m->consumer);
    if (m->in_file) IS(m, cbuf_remove(m->name), 0);
    free(m->memory);
    free(m->rows);
}

static void run_model(uint64_t seed, uint64_t operations)
{
    static void (*const all[])(struct model *) = { write_n, write_n, write_n, claim_and_publish,
        write_columns, read_rows, read_rows, read_rows, read_rows, peek_rows, peek_rows, seek_row,
        seek_value, wait_rows, wait_room, observe, look_at_stats, turn_reader, turn_reader,
        turn_producer };
    static struct model m;
    open_model(&m, seed);
    for (m.operation = 1; m.operation <= operations; m.operation++)
        all[below(&m, COUNT_OF(all))](&m);
    observe(&m);
    look_at_stats(&m);
    close_model(&m);
}

TEST(a_ring_does_what_an_array_of_all_rows_would)
{
    const char *only = getenv("CBUF_TEST_SEED");
    if (only) {
        run_model(strtoull(only, NULL, 0), 1000);
        return;
    }
    for (uint64_t run = 1; run <= scaled(1000); run++) run_model(run * 0x9e3779b97f4a7c15u, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(
        a_ring_does_what_an_array_of_all_rows_would) };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
