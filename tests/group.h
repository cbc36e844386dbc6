/* group.h - what the tests of groups of workers share: rows that tell who wrote them, and a ledger
 * in shared memory of which worker was given which row. Include process.h before. */
#ifndef GROUP_H
#define GROUP_H

#include <cbuf_group.h>

enum { LEDGER_ROWS = 1 << 17, LEDGER_RUNS = 1 << 15, TAKE_MOST = 64 };

struct group_row {
    uint64_t producer, number, mix, more;
};
static const cbuf_column group_columns[] = { CBUF_COLUMN(struct group_row, producer),
    CBUF_COLUMN(struct group_row, number), CBUF_COLUMN(struct group_row, mix),
    CBUF_COLUMN(struct group_row, more) };

static inline struct group_row group_row_of(uint64_t producer, uint64_t number)
{
    struct group_row row;
    uint64_t seed = producer << 32 | number;
    row.producer = producer;
    row.number = number;
    row.mix = next_random(&seed);
    row.more = next_random(&seed);
    return row;
}

/* What happened to the rows: each worker that is opened is a run, with a number from 1. */
struct ledger {
    char name[64];
    uint64_t capacity, rows; /* of each producer */
    uint32_t producers, max_readers;
    uint8_t on_full, layout;
    bool in_order, locked;
    uint64_t runs, taken, lost, skipped, again;
    uint32_t holder[LEDGER_ROWS]; /* the run that was given this row last; 0: none */
    uint8_t done[LEDGER_ROWS];    /* 1: it has been acknowledged, and the call has returned */
    uint8_t came[LEDGER_ROWS];    /* 1: this producer's row of that number was given out */
    uint8_t robbed[LEDGER_RUNS];  /* 1: another run was given a row of this one's */
    struct cue ready, go;
};

static inline struct ledger *new_ledger(uint8_t on_full, uint32_t producers, uint64_t rows)
{
    struct ledger *ledger = (struct ledger *)shared_memory(sizeof *ledger);
    snprintf(ledger->name, sizeof ledger->name, "%s", new_name());
    ledger->on_full = on_full;
    ledger->producers = producers;
    ledger->rows = rows;
    ledger->capacity = 64;
    ledger->max_readers = 16;
    CHECK(rows * producers <= LEDGER_ROWS);
    return ledger;
}
static inline void end_ledger(struct ledger *ledger)
{
    cbuf_remove(ledger->name);
    munmap(ledger, sizeof *ledger);
}
static inline cbuf_options ledger_options(const struct ledger *ledger)
{
    cbuf_options options;
    memset(&options, 0, sizeof options);
    options.name = ledger->name;
    options.capacity = ledger->capacity;
    options.columns = group_columns;
    options.column_count = 4;
    options.row_bytes = sizeof(struct group_row);
    options.max_readers = ledger->max_readers;
    options.producers = ledger->producers;
    options.on_full = ledger->on_full;
    options.layout = ledger->layout;
    options.locked = ledger->locked;
    return options;
}
static inline void group_create(cbuf_ring *ring, const struct ledger *ledger)
{
    cbuf_options options = ledger_options(ledger);
    int error = cbuf_create(ring, &options);
    CHECK_IS_FOR(cbuf_error(ring), error, 0);
}
static inline void group_attach(cbuf_ring *ring, const struct ledger *ledger)
{
    int error = cbuf_attach(ring, ledger->name, NULL);
    CHECK_IS_FOR(cbuf_error(ring), error, 0);
}
static inline void group_write(cbuf_ring *ring, uint64_t producer, uint64_t from, uint64_t n)
{
    for (uint64_t i = from; i < from + n; i++) {
        struct group_row row = group_row_of(producer, i);
        CHECK_IS(cbuf_write(ring, &row), 1);
    }
}

/* A worker, and what must be true of what it is given. */
struct taker {
    cbuf_worker worker;
    struct ledger *ledger;
    uint64_t next; /* the rows of it alone come in this order */
    uint64_t first, count;
    uint32_t run;
    struct group_row rows[TAKE_MOST];
};
static inline int taker_open(struct taker *taker, struct ledger *ledger, const cbuf_ring *ring,
    const cbuf_reader_options *options)
{
    memset(taker, 0, sizeof *taker);
    taker->ledger = ledger;
    taker->run = (uint32_t)__atomic_add_fetch(&ledger->runs, 1, __ATOMIC_ACQ_REL);
    CHECK(taker->run < LEDGER_RUNS);
    return cbuf_worker_open(&taker->worker, ring, "workers", options);
}

/* Rows came: what is wrong with that, or NULL. */
static inline const char *taker_fault(struct taker *taker)
{
    struct ledger *ledger = taker->ledger;
    bool again = cbuf_taken_again(&taker->worker);
    bool back = taker->count && !again && taker->first < taker->next;
    if (back) return "a worker's rows do not ascend";
    for (uint64_t i = 0; i < taker->count; i++) {
        const struct group_row *row = &taker->rows[i];
        uint64_t at = taker->first + i, name = row->producer * ledger->rows + row->number;
        struct group_row wanted = group_row_of(row->producer, row->number);
        if (memcmp(row, &wanted, sizeof wanted)) return "a row is torn";
        if (row->producer >= ledger->producers || row->number >= ledger->rows || at >= LEDGER_ROWS)
            return "nobody wrote that row";
        if (ledger->in_order && row->number != at) return "a row under another's number";
        if (__atomic_load_n(&ledger->done[at], __ATOMIC_ACQUIRE)) return "a row came after its end";
        uint32_t before = __atomic_exchange_n(&ledger->holder[at], taker->run, __ATOMIC_ACQ_REL);
        if (before && !again) return "a row was given to two workers";
        if (before) __atomic_store_n(&ledger->robbed[before], 1, __ATOMIC_RELEASE);
        if (__atomic_exchange_n(&ledger->came[name], 1, __ATOMIC_ACQ_REL) && !before)
            return "a row came under two numbers";
    }
    if (taker->count && !again) taker->next = taker->first + taker->count;
    __atomic_add_fetch(&ledger->taken, taker->count, __ATOMIC_RELAXED);
    if (again) __atomic_add_fetch(&ledger->again, taker->count, __ATOMIC_RELAXED);
    return NULL;
}

/* Takes rows once, and waits for them at most that long: how many came. */
static inline int64_t taker_take(
    struct taker *taker, uint32_t max, int64_t timeout_ns, const char **fault)
{
    int64_t n = cbuf_take_wait(&taker->worker, taker->rows, max, timeout_ns);
    taker->first = cbuf_taken_first(&taker->worker);
    taker->count = n > 0 ? (uint64_t)n : 0;
    *fault = n > (int64_t)max ? "more than was asked for" : taker_fault(taker);
    return n;
}
static inline const char *taker_done(struct taker *taker)
{
    const cbuf_ring *ring = taker->worker.reader.ring;
    bool gone = taker->count && cbuf_oldest(ring) > taker->first;
    if (taker->ledger->on_full != CBUF_OVERWRITE && gone) return "overwritten before its end";
    cbuf_done(&taker->worker);
    for (uint64_t i = 0; i < taker->count; i++)
        __atomic_store_n(&taker->ledger->done[taker->first + i], 1, __ATOMIC_RELEASE);
    taker->count = 0;
    return NULL;
}
static inline void taker_close(struct taker *taker)
{
    struct ledger *ledger = taker->ledger;
    __atomic_add_fetch(&ledger->lost, cbuf_worker_lost(&taker->worker), __ATOMIC_RELAXED);
    __atomic_add_fetch(&ledger->skipped, cbuf_worker_skipped(&taker->worker), __ATOMIC_RELAXED);
    cbuf_worker_close(&taker->worker);
}

/* Takes and acknowledges until nothing is there, or the ring is closed; how many rows. */
static inline uint64_t taker_drain(struct taker *taker, uint32_t max, int64_t timeout_ns)
{
    const char *fault = NULL;
    uint64_t rows = 0;
    for (int64_t n; (n = taker_take(taker, max, timeout_ns, &fault)) != 0 && !fault;) {
        if (n == CBUF_ECLOSED) break;
        CHECK_FOR(cbuf_strerror(n), n > 0);
        rows += (uint64_t)n;
        fault = taker_done(taker);
        if (fault) break;
    }
    CHECK_FOR(fault ? fault : "", !fault);
    return rows;
}

/* Each row below `end` was given out. */
static inline void check_all_came(const struct ledger *ledger, uint64_t end)
{
    for (uint64_t i = 0; i < end; i++) {
        char text[40];
        snprintf(text, sizeof text, "row %llu", (unsigned long long)i);
        CHECK_FOR(text, ledger->holder[i] != 0);
    }
}

#endif
