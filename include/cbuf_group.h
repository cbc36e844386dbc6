/*
 * cbuf_group.h - workers that share a ring's rows: each row goes to exactly one. A companion of
 * cbuf.h, for rings in files; workers are threads or processes.
 *
 *   cbuf_ring ring; cbuf_worker worker; struct tick ticks[64];              each worker the same
 *   if (cbuf_attach(&ring, "ticks", NULL) < 0) die(cbuf_error(&ring));
 *   if (cbuf_worker_open(&worker, &ring, "pricing", NULL) < 0) die(cbuf_worker_error(&worker));
 *   while ((n = cbuf_take_wait(&worker, ticks, 64, CBUF_FOREVER)) > 0)
 *       work(ticks, n);                  the next take says that these are done; so does cbuf_done
 *
 * WHAT HOLDS, AND WHAT DOES NOT
 *
 *   - Of the workers that live, each row is given to one. A worker gets its rows in their order;
 *     between workers there is none.
 *   - A worker that dies, or is closed with rows that it has not acknowledged, leaves these to the
 *     others, who get them again: it may have worked on them. So a row is given out once while
 *     nobody dies, and otherwise at least once; cbuf_taken_again tells which rows these are. That a
 *     worker is dead the kernel says, and no timeout.
 *   - Under the policies block and drop newest the group is a gate like a reader: no row is
 *     overwritten before a worker has acknowledged it. A worker that stands still holds the
 *     producer up a lap later, and cbuf_reader_stats_get shows it: its slot's cursor stands.
 *   - Under overwrite, or where the producer has demoted a slot, rows may be gone before they are
 *     taken: the worker that finds out counts them. Taken + lost + skipped, of all workers, is what
 *     was published since the group began, while no worker dies; what one had counted goes with it.
 *   - The group begins with its first worker, who says where, and ends when the last one is closed.
 *     If all die it stays: the next cbuf_worker_open of that name goes on with it, unless its slots
 *     were freed meanwhile, by a producer whom they held up or by readers who found no other.
 *   - It takes a reader's slot for itself, and one for each worker, at a higher place than its own:
 *     make the ring with enough max_readers, and open a group before many readers.
 *   - One row that comes wakes all workers that wait. Take many rows a call: a take costs 20 ns or
 *     so, and more where the producer looks at the gates often.
 *   - Whoever may write .readers can have rows skipped or given out twice; never a torn one.
 *
 * Include it where cbuf.h would be; with CBUF_NO_OS there is nothing in it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_GROUP_H
#define CBUF_GROUP_H

#include "cbuf.h"

#ifndef CBUF_NO_OS
#ifdef __cplusplus
extern "C++" {
#endif

/* ================================================================================= [api] ==== */

typedef struct cbuf_worker { /* the caller's memory, private contents; not to be copied or moved */
    cbuf_reader reader;      /* its look at the ring, and its slot */
    struct cbuf__slot *group;
    uint64_t group_word;    /* what stands in `group` of all its workers' slots */
    uint64_t first, held;   /* of the rows taken last: the first; where they end, 0: acknowledged */
    uint64_t lost, skipped; /* as counted; the reader's may be of a try that failed */
    uint64_t heir_end;      /* where the rows end of */
    uint32_t heir_of;       /* the dead worker's slot whose rows it delivers, or CBUF__NO_SLOT */
    uint32_t group_index, takes;
    bool again;
    int64_t looked_ns; /* when it last looked for dead workers */
    const char *why;
} cbuf_worker;

/* Joins the group of that name (1 to 47 bytes) of the ring's readers, or begins it. `options` may
 * be NULL; of them `start`, `sequence` and `lossy` count for who begins a group; `name` is the
 * worker's own, for monitors, by default the group's; `anonymous` and `prefetch` must be zero. A
 * group whose workers died goes on where they were. 0; CBUF_ESLOTS: no slot behind the group's is
 * free; CBUF_EINVAL, also for a ring in memory; or what cbuf_reader_open says. The handle `ring`
 * must stay open as long; several workers may share one. One thread at a time uses a worker. */
static inline int cbuf_worker_open(cbuf_worker *worker, const cbuf_ring *ring, const char *group,
    const cbuf_reader_options *options);
/* Why that failed. */
static inline const char *cbuf_worker_error(const cbuf_worker *worker);
/* Leaves the group. Rows that were taken and not acknowledged go to the others, or wait for the
 * next who joins. */
static inline void cbuf_worker_close(cbuf_worker *worker);

/* Acknowledges what was taken last, then takes up to `max` rows that no other worker gets, oldest
 * first, and copies them. Returns how many; 0: none is there. They are this worker's until it takes
 * again, calls cbuf_done, is closed, or dies. */
static inline int64_t cbuf_take(cbuf_worker *worker, void *rows, uint32_t max);
/* The same, and waits for a row for at most timeout_ns (0: not at all; CBUF_FOREVER). 0: none came
 * in time. CBUF_ECLOSED once the producer has closed the ring, and all rows were taken and
 * acknowledged: until then another worker may die. CBUF_ERETIRED and others as cbuf_wait. The rows
 * of a worker that dies reach one that waits within some 10 ms. */
static inline int64_t cbuf_take_wait(
    cbuf_worker *worker, void *rows, uint32_t max, int64_t timeout_ns);
/* Acknowledges what was taken last: the producer may overwrite it, and nobody gets it again. */
static inline void cbuf_done(cbuf_worker *worker);

static inline uint64_t cbuf_taken_first(const cbuf_worker *worker); /* sequence of the first row */
/* Whether a worker that died, or was closed, had taken these rows before and not acknowledged. */
static inline bool cbuf_taken_again(const cbuf_worker *worker);
/* Rows that this worker found gone, and rows given up by one of many producers, since it opened. */
static inline uint64_t cbuf_worker_lost(const cbuf_worker *worker);
static inline uint64_t cbuf_worker_skipped(const cbuf_worker *worker);

/* =============================================================================== [group] ==== */

/* A GROUP has a slot among the readers', whose cursor is the gate of the rows that nobody has taken
 * yet, and each worker has one of a higher index, whose cursor is the gate of what it holds.
 *
 *              held by A       by B   nobody's yet
 *              4 5 6 7         8 9    10 11 12 ... head
 *      A: cursor     held_end         ^ turn: 10, and B took last
 *
 * `turn`, in the group's slot, is the next row and the index of the worker who took last, in one
 * word. A worker takes rows with one compare-exchange of it. Before, it says in its own slot which
 * rows these would be, cursor to held_end; after, it moves the group's cursor. So each row stands
 * in the slot of its holder or behind the group's cursor, and a producer that sees the cursor moved
 * sees the holder too: its slot is looked at later (G3, cbuf__scan_gates).
 *
 * WHO DIES between may have taken the rows that stand in its slot, or not. It has if `turn` still
 * says so. Who moves `turn` on writes down before, in the slot of the worker who took last, up to
 * where that one's takes went through: `granted` (T2). So a dead worker's rows are its own exactly
 * if `granted` or `turn` says so, and otherwise somebody else's. The one who finds it dead, by the
 * lock of its byte, keeps this lock and delivers the rows out of the dead one's slot, whose cursor
 * moves as they are acknowledged: should it die too, all is as it was, and the next one finds both.
 *
 * Below 10 bits for the index `turn` has 54 for the row: 5 years at 100 million rows a second. In
 * `granted` these bits count the slot's owners, so that one who helps a worker, and is stopped in
 * the middle until the slot is another's, does not help that one. */
#define CBUF__TURN_BITS 10
#define CBUF__NO_SLOT UINT32_MAX
CBUF__STATIC_ASSERT(CBUF_MAX_READERS <= 1 << CBUF__TURN_BITS, "an index must fit below a row");

CBUF__INLINE uint64_t cbuf__turn_of(uint64_t sequence, uint64_t index)
{
    return sequence << CBUF__TURN_BITS | (index & ((1u << CBUF__TURN_BITS) - 1));
}
CBUF__INLINE struct cbuf__slot *cbuf__nth_slot(const cbuf_worker *worker, uint32_t index)
{
    return &worker->reader.ring->readers->slots[index];
}
CBUF__INLINE bool cbuf__is_sibling(const cbuf_worker *worker, uint32_t index)
{
    return cbuf__load_acquire(&cbuf__nth_slot(worker, index)->group) == worker->group_word;
}
/* One more than the last slot that a sibling may have. */
CBUF__INLINE uint32_t cbuf__siblings_end(const cbuf_worker *worker)
{
    const cbuf_ring *ring = worker->reader.ring;
    uint64_t high = cbuf__load_relaxed(&ring->readers->high), most = ring->options.max_readers;
    return CBUF__AS(uint32_t, high < most ? high : most);
}

/* A gate moved: whichever producer sleeps for room looks again. How far the gates are now is not
 * asked: rows that another worker is done with may count, and this one need not know of them. */
CBUF__INLINE void cbuf__tell_producer(cbuf_worker *worker)
{
    const cbuf_ring *ring = worker->reader.ring;
    cbuf__fence_compiler(); /* E4 */
    if (CBUF__UNLIKELY(cbuf__load_relaxed(worker->reader.room_at) < CBUF__FREE))
        cbuf__wake(&ring->readers->room, CBUF__FREE - 1, ring->readers_fd);
}

/* Who took last, according to `turn`, has taken up to there: says so in its slot. False if `turn`
 * has moved on: then the slot may be another's. */
CBUF__INLINE bool cbuf__grant(cbuf_worker *worker, uint64_t turn)
{
    uint32_t last = CBUF__AS(uint32_t, turn & ((1u << CBUF__TURN_BITS) - 1));
    uint64_t sequence = turn >> CBUF__TURN_BITS;
    if (last == worker->reader.index || last == worker->group_index) return true; /* it knows */
    if (last >= worker->reader.ring->options.max_readers) return true;
    cbuf__word *word = &cbuf__nth_slot(worker, last)->granted;
    for (;;) {
        uint64_t granted = cbuf__load_acquire(word); /* T3: a later owner's: then `turn` changed */
        if (granted >> CBUF__TURN_BITS >= sequence) return true;
        if (cbuf__load_relaxed(&worker->group->turn) != turn) return false; /* T3 */
        uint64_t now = cbuf__turn_of(sequence, granted);
        if (cbuf__compare_exchange_acq_rel(word, &granted, now)) return true; /* T2 */
    }
}

/* Moves the group's gate up to a row below which all were taken; false if it stood there. */
CBUF__INLINE bool cbuf__raise_group(cbuf_worker *worker, uint64_t sequence)
{
    cbuf__word *cursor = &worker->group->cursor;
    uint64_t standing = cbuf__load_relaxed(cursor);
    if (standing >= sequence) return false;
    while (standing < sequence &&
           !cbuf__compare_exchange_acq_rel(cursor, &standing, sequence)) {} /* G3 */
    return true;
}

/* How many rows are there from `start` on, up to `want`; the reader's cursor goes behind those that
 * are gone or were given up. Whom the producer laps at one try after another looks further on at
 * each. */
CBUF__INLINE uint64_t cbuf__look_from(
    cbuf_worker *worker, uint64_t start, uint64_t want, uint32_t tries)
{
    cbuf_reader *reader = &worker->reader;
    reader->cursor = start;
    reader->published = 0;
    reader->lost = worker->lost;
    reader->skipped = worker->skipped;
    uint64_t n = cbuf__ready(reader, want);
    while (!n && cbuf__resync(reader)) n = cbuf__ready(reader, want);
    if (CBUF__LIKELY(!tries || reader->lost == worker->lost)) return n;
    cbuf__lose(reader, reader->cursor + reader->ring->capacity / 64 * (tries < 32 ? tries : 32));
    return cbuf__ready(reader, want);
}

CBUF__SLOW void cbuf__count_taken(cbuf_worker *worker, uint64_t lost, uint64_t skipped)
{
    worker->lost = lost;
    worker->skipped = skipped;
    cbuf__store_relaxed(&worker->reader.slot->lost, lost);
}

/* Takes up to `want` rows that nobody has yet: how many, from the reader's cursor on. */
CBUF__INLINE uint64_t cbuf__take_turn(cbuf_worker *worker, uint64_t want, uint32_t tries)
{
    cbuf_reader *reader = &worker->reader;
    struct cbuf__slot *slot = reader->slot;
    uint64_t start;
    bool says = false, skipped = false; /* its slot says something; rows went to nobody */
    for (;;) {
        uint64_t turn = cbuf__load_acquire(&worker->group->turn); /* T1 */
        start = turn >> CBUF__TURN_BITS;
        uint64_t n = cbuf__look_from(worker, start, want, tries), end = reader->cursor + n;
        if (end == start) break;
        if (!cbuf__grant(worker, turn)) continue;
        if (n) {
            cbuf__store_relaxed(&slot->held_end, end);
            cbuf__store_release(&slot->cursor, reader->cursor); /* G3: before the exchange */
            says = true;
        }
        uint64_t next = cbuf__turn_of(end, n ? reader->index : worker->group_index);
        if (!cbuf__compare_exchange_acq_rel(&worker->group->turn, &turn, next)) continue; /* T1 */
        if (CBUF__UNLIKELY(reader->cursor != start))
            cbuf__count_taken(worker, reader->lost, reader->skipped);
        cbuf__raise_group(worker, end);
        skipped = skipped || reader->cursor != start;
        if (!n) continue;
        worker->held = end;
        if (CBUF__UNLIKELY(skipped)) cbuf__tell_producer(worker);
        return n;
    }
    if (says) cbuf__store_release(&slot->cursor, CBUF__FREE); /* others had been faster */
    /* Who took last may have died before it moved the gate. */
    if (cbuf__raise_group(worker, start) || says || skipped) cbuf__tell_producer(worker);
    return 0;
}

/* Frees the slot of a worker that holds no rows: this one's, or a dead one's whose lock it has.
 * From here on `turn` does not speak of it. */
CBUF__SLOW void cbuf__free_worker(cbuf_worker *worker, uint32_t index)
{
    struct cbuf__slot *slot = cbuf__nth_slot(worker, index);
    cbuf__word *word = &worker->group->turn;
    const uint64_t mask = (1u << CBUF__TURN_BITS) - 1;
    uint64_t turn = cbuf__load_acquire(word);
    cbuf__store_release(&slot->cursor, CBUF__FREE); /* G2 */
    while ((turn & mask) == index) {
        uint64_t nobodys = cbuf__turn_of(turn >> CBUF__TURN_BITS, worker->group_index);
        if (cbuf__compare_exchange_acq_rel(word, &turn, nobodys)) break; /* T3 */
    }
    cbuf__store_release(&slot->gate, 0); /* G2 */
    cbuf__store_relaxed(&slot->group, 0);
    cbuf__store_release(&slot->owned, 0);
}

/* Whether the rows in a dead worker's slot were its own; then this worker delivers them. The caller
 * has the lock of the slot's byte. */
CBUF__SLOW bool cbuf__inherit_rows(cbuf_worker *worker, uint32_t index)
{
    struct cbuf__slot *slot = cbuf__nth_slot(worker, index);
    uint64_t turn = cbuf__load_acquire(&worker->group->turn); /* T2: before `granted` */
    uint64_t first = cbuf__load_acquire(&slot->cursor), end = cbuf__load_relaxed(&slot->held_end);
    bool won = turn == cbuf__turn_of(end, index) ||
        cbuf__load_acquire(&slot->granted) >> CBUF__TURN_BITS >= end; /* T2 */
    bool sane = end <= turn >> CBUF__TURN_BITS && end - first <= worker->reader.ring->capacity;
    if (first >= end || !won || !sane) return false;
    worker->heir_of = index;
    worker->heir_end = end;
    return true;
}

/* Looks for dead workers of the group, once a millisecond at most. True if one left rows. */
CBUF__SLOW bool cbuf__look_for_dead(cbuf_worker *worker)
{
    int64_t now = cbuf__now_ns(CBUF__MONOTONIC);
    int fd = worker->reader.fd;
    if (worker->looked_ns && now - worker->looked_ns < 1000000) return false;
    worker->looked_ns = now;
    for (uint32_t k = worker->group_index + 1; k < cbuf__siblings_end(worker); k++) {
        if (k == worker->reader.index || !cbuf__is_sibling(worker, k)) continue;
        if (cbuf__lock(fd, CBUF__EXCLUSIVE, k, false)) continue; /* it lives */
        if (cbuf__is_sibling(worker, k)) {
            worker->looked_ns = 0; /* where one died there may be another */
            if (cbuf__inherit_rows(worker, k)) return true;
            cbuf__free_worker(worker, k);
            cbuf__tell_producer(worker);
        }
        cbuf__lock(fd, CBUF__UNLOCK, k, false);
    }
    return false;
}

/* Up to `want` rows of the dead worker's: how many, from the reader's cursor on. */
CBUF__SLOW uint64_t cbuf__take_heritage(cbuf_worker *worker, uint64_t want)
{
    uint64_t first = cbuf__load_relaxed(&cbuf__nth_slot(worker, worker->heir_of)->cursor);
    uint64_t n = worker->heir_end - first;
    if (n > want) n = want;
    worker->reader.cursor = first;
    worker->held = first + n;
    return n;
}

CBUF__SLOW void cbuf__acknowledge_heritage(cbuf_worker *worker)
{
    uint32_t k = worker->heir_of;
    struct cbuf__slot *slot = cbuf__nth_slot(worker, k);
    if (worker->held < worker->heir_end) {
        cbuf__store_release(&slot->cursor, worker->held); /* G2 */
        return;
    }
    worker->heir_of = CBUF__NO_SLOT;
    if (k == worker->reader.index) {
        cbuf__store_release(&slot->cursor, CBUF__FREE); /* G2 */
    } else {
        cbuf__free_worker(worker, k);
        cbuf__lock(worker->reader.fd, CBUF__UNLOCK, k, false);
    }
}

CBUF__INLINE void cbuf__acknowledge(cbuf_worker *worker)
{
    if (CBUF__UNLIKELY(worker->heir_of != CBUF__NO_SLOT)) cbuf__acknowledge_heritage(worker);
    else cbuf__store_release(&worker->reader.slot->cursor, CBUF__FREE); /* G2 */
    worker->held = 0;
    cbuf__tell_producer(worker);
}

/* Copies n rows that were taken: how many of them are still good; the others are counted. */
CBUF__INLINE uint64_t cbuf__copy_taken(cbuf_worker *worker, unsigned char *rows, uint64_t n)
{
    const cbuf_ring *ring = worker->reader.ring;
    uint64_t first = worker->reader.cursor, bad = 0;
    if (!ring->delta) cbuf__take_rows(ring, first, rows, n, ring->row_bytes);
    uint64_t oldest =
        ring->delta ? cbuf__take_deltas(ring, first, rows, n) : cbuf__validate(ring);
    if (CBUF__UNLIKELY(oldest > first)) {
        bad = oldest - first < n ? oldest - first : n;
        size_t skip = cbuf__span(bad, ring->row_bytes), rest = cbuf__span(n - bad, ring->row_bytes);
        memmove(rows, rows + skip, rest);
        cbuf__count_taken(worker, worker->lost + bad, worker->skipped);
    }
    worker->first = first + bad;
    if (CBUF__UNLIKELY(worker->held >= worker->reader.stamp_at)) cbuf__stamp(&worker->reader);
    return n - bad;
}

CBUF__INLINE int64_t cbuf__take_some(cbuf_worker *worker, unsigned char *rows, uint64_t want)
{
    for (uint32_t tries = 0;; tries++) {
        bool looks = worker->heir_of == CBUF__NO_SLOT && !(++worker->takes % 16);
        if (CBUF__UNLIKELY(looks)) cbuf__look_for_dead(worker);
        worker->again = worker->heir_of != CBUF__NO_SLOT;
        uint64_t n = CBUF__UNLIKELY(worker->again) ? cbuf__take_heritage(worker, want)
                                                   : cbuf__take_turn(worker, want, tries);
        if (!n && !cbuf__look_for_dead(worker)) return 0;
        if (!n) continue;
        n = cbuf__copy_taken(worker, rows, n);
        if (CBUF__LIKELY(n)) return CBUF__AS(int64_t, n);
        cbuf__acknowledge(worker);
    }
}

static inline void cbuf_done(cbuf_worker *worker)
{
    if (worker->held && worker->reader.ring->local->never == UINT64_MAX) cbuf__acknowledge(worker);
}

static inline int64_t cbuf_take(cbuf_worker *worker, void *rows, uint32_t max)
{
    const cbuf_ring *ring = worker->reader.ring;
    int error = ring ? cbuf__usable(ring, ring->row_bytes) : CBUF_ENOTOPEN, fd = worker->reader.fd;
    if (error) return error;
    cbuf_done(worker);
    if (!max) return 0;
    if (ring->locked) cbuf__lock(fd, CBUF__SHARED, CBUF__ROWS_BYTE, true);
    uint64_t want = max < ring->capacity ? max : ring->capacity;
    int64_t n = cbuf__take_some(worker, CBUF__AS(unsigned char *, rows), want);
    if (ring->locked) cbuf__lock(fd, CBUF__UNLOCK, CBUF__ROWS_BYTE, true);
    return n;
}

static inline uint64_t cbuf_taken_first(const cbuf_worker *worker) { return worker->first; }
static inline bool cbuf_taken_again(const cbuf_worker *worker) { return worker->again; }
static inline uint64_t cbuf_worker_lost(const cbuf_worker *worker) { return worker->lost; }
static inline uint64_t cbuf_worker_skipped(const cbuf_worker *worker) { return worker->skipped; }
static inline const char *cbuf_worker_error(const cbuf_worker *worker)
{
    return worker->why ? worker->why : "";
}

/* ================================================================================ [join] ==== */

/* Workers join and leave one after the other: the lock of a byte of its own, in .readers. Each has
 * a lock of its slot's byte, as readers have, and shares the one of the group's byte with the
 * others: while it is held nobody frees the group's slot, nor a dead worker's (cbuf__free_dead). */

CBUF__SLOW int cbuf__refuse(cbuf_worker *worker, int error, const char *why)
{
    worker->why = why ? why : cbuf_strerror(error);
    return error;
}

/* The slot of the group of that name, or CBUF__NO_SLOT. */
CBUF__SLOW uint32_t cbuf__find_group(const cbuf_worker *worker, const char *name)
{
    for (uint32_t k = 0; k < cbuf__siblings_end(worker); k++) {
        const struct cbuf__slot *slot = cbuf__nth_slot(worker, k);
        unsigned char there[CBUF_NAME_BYTES];
        uint64_t group = cbuf__load_acquire(&slot->group);
        if ((group & UINT16_MAX) != k + 1 || !cbuf__load_acquire(&slot->owned)) continue;
        cbuf__words_out(there, slot->name, sizeof there / 8);
        if (!memcmp(there, name, strlen(name) + 1)) return k;
    }
    return CBUF__NO_SLOT;
}

CBUF__SLOW void cbuf__bind_group(cbuf_worker *worker, uint32_t index)
{
    worker->group = cbuf__nth_slot(worker, index);
    worker->group_index = index;
    worker->group_word = (index + 1) | cbuf__load_relaxed(&worker->group->incarnation) << 16;
}

/* Begins a group: a reader that is not read through. It keeps a shared lock of its byte. */
CBUF__SLOW int cbuf__make_group(
    cbuf_worker *worker, const char *name, const cbuf_reader_options *options)
{
    cbuf_reader *reader = &worker->reader;
    cbuf_reader_options chosen = *options;
    int error = cbuf__take_slot(reader);
    if (error) return cbuf__refuse(worker, error, "no slot is free for the group");
    chosen.name = name;
    cbuf__register(reader, &chosen);
    cbuf__begin_reading(reader, &chosen);
    cbuf__bind_group(worker, reader->index);
    cbuf__store_relaxed(&worker->group->turn, cbuf__turn_of(reader->cursor, reader->index));
    cbuf__store_release(&worker->group->group, worker->group_word);
    cbuf__lock(reader->fd, CBUF__SHARED, reader->index, false);
    return 0;
}

/* Shares the group's lock, with one that is there or that this makes. A producer that looks whether
 * a group is dead has its lock for a moment. */
CBUF__SLOW int cbuf__join_group(
    cbuf_worker *worker, const char *name, const cbuf_reader_options *options)
{
    int64_t since = cbuf__now_ns(CBUF__MONOTONIC);
    int fd = worker->reader.fd;
    for (;;) {
        uint32_t k = cbuf__find_group(worker, name);
        if (k == CBUF__NO_SLOT) return cbuf__make_group(worker, name, options);
        if (!cbuf__lock(fd, CBUF__SHARED, k, false)) {
            if (cbuf__find_group(worker, name) == k) return cbuf__bind_group(worker, k), 0;
            cbuf__lock(fd, CBUF__UNLOCK, k, false); /* freed meanwhile */
        }
        int64_t waited = cbuf__now_ns(CBUF__MONOTONIC) - since;
        if (waited > 1000000000)
            return cbuf__refuse(worker, CBUF_ESLOTS, "the group's slot is locked by another");
        cbuf__rest(waited);
    }
}

/* Makes slot `index`, whose byte is locked, this worker's; with `heir` it is a dead one's of the
 * same group, and what stands in it is left as it is. */
CBUF__SLOW void cbuf__occupy(
    cbuf_worker *worker, uint32_t index, bool heir, const cbuf_reader_options *options)
{
    cbuf_reader *reader = &worker->reader;
    struct cbuf__slot *slot = reader->slot = cbuf__nth_slot(worker, index);
    reader->index = index;
    reader->shared_cursor = &reader->unused;
    cbuf__store_relaxed(&slot->owned, 1);
    cbuf__introduce(reader, options);
    if (!heir) {
        uint64_t row = cbuf__load_acquire(&worker->group->turn) >> CBUF__TURN_BITS;
        uint64_t owners = cbuf__load_relaxed(&slot->incarnation);
        cbuf__store_relaxed(&slot->held_end, 0);
        cbuf__store_release(&slot->granted, cbuf__turn_of(row, owners)); /* T3 */
        cbuf__store_relaxed(&slot->gate, cbuf__load_relaxed(&worker->group->gate));
        cbuf__store_release(&slot->group, worker->group_word);
    } else if (!cbuf__inherit_rows(worker, index)) {
        cbuf__store_release(&slot->cursor, CBUF__FREE);
    }
    if (cbuf__load_relaxed(&slot->gate)) cbuf__wakes_producer(reader);
    cbuf__tell_producer(worker);
    cbuf__stamp(reader);
}

/* Takes a slot behind the group's: a dead worker's of the group, else a free one, else another
 * dead reader's. */
CBUF__SLOW int cbuf__take_worker_slot(cbuf_worker *worker, const cbuf_reader_options *options)
{
    const cbuf_ring *ring = worker->reader.ring;
    int fd = worker->reader.fd;
    for (int kind = 0; kind < 3; kind++) {
        for (uint32_t k = worker->group_index + 1; k < ring->options.max_readers; k++) {
            bool owned = cbuf__load_acquire(&cbuf__nth_slot(worker, k)->owned) != 0;
            if (owned == (kind == 1) || (kind == 0 && !cbuf__is_sibling(worker, k))) continue;
            if (cbuf__lock(fd, CBUF__EXCLUSIVE, k, false)) continue;
            bool heir = cbuf__is_sibling(worker, k);
            if (heir || cbuf__free_dead(ring, fd, k))
                return cbuf__occupy(worker, k, heir, options), 0;
            cbuf__lock(fd, CBUF__UNLOCK, k, false);
        }
    }
    return cbuf__refuse(worker, CBUF_ESLOTS, "no slot behind the group's is free: max_readers");
}

/* Frees the group's slot if nobody else has it, and no dead worker's rows wait. */
CBUF__SLOW void cbuf__leave_group(cbuf_worker *worker)
{
    if (cbuf__lock(worker->reader.fd, CBUF__EXCLUSIVE, worker->group_index, false)) return;
    for (uint32_t k = worker->group_index + 1; k < cbuf__siblings_end(worker); k++)
        if (cbuf__is_sibling(worker, k)) return;
    cbuf__store_release(&worker->group->gate, 0); /* G2 */
    cbuf__store_relaxed(&worker->group->group, 0);
    cbuf__store_release(&worker->group->cursor, CBUF__FREE);
    cbuf__store_release(&worker->group->owned, 0);
    cbuf__tell_producer(worker);
}

static inline void cbuf_worker_close(cbuf_worker *worker)
{
    cbuf_reader *reader = &worker->reader;
    if (!reader->ring) return;
    if (reader->ring->local->never == UINT64_MAX) { /* a forked child's is not */
        bool heir = worker->heir_of != CBUF__NO_SLOT;
        cbuf__lock(reader->fd, CBUF__EXCLUSIVE, CBUF__JOIN_BYTE, true);
        if (heir ? worker->heir_of != reader->index : !worker->held)
            cbuf__free_worker(worker, reader->index);
        cbuf__leave_group(worker);
    }
    close(reader->fd); /* and with it go all locks */
    memset(worker, 0, sizeof *worker);
}

CBUF__SLOW int cbuf__join_as_worker(
    cbuf_worker *worker, const char *name, const cbuf_reader_options *options)
{
    cbuf_reader_options own = *options;
    if (!own.name) own.name = name;
    int error = cbuf__join_group(worker, name, options);
    if (error) return error;
    error = cbuf__take_worker_slot(worker, &own);
    if (error) cbuf__leave_group(worker);
    return error;
}

static inline int cbuf_worker_open(cbuf_worker *worker, const cbuf_ring *ring, const char *group,
    const cbuf_reader_options *options)
{
    cbuf_reader *reader = &worker->reader;
    cbuf_reader_options o;
    size_t length = group ? strlen(group) : 0;
    memset(&o, 0, sizeof o);
    memset(worker, 0, sizeof *worker);
    if (options) o = *options;
    int error = cbuf__usable(ring, ring->row_bytes);
    if (error) return cbuf__refuse(worker, error, NULL);
    if (!length || length >= CBUF_NAME_BYTES)
        return cbuf__refuse(worker, CBUF_EINVAL, "a group's name has 1 to 47 bytes");
    if (o.anonymous || o.prefetch || o.start > CBUF_AT || o.wait > CBUF_YIELD ||
        (o.start == CBUF_AT && cbuf__too_far(ring, o.sequence)))
        return cbuf__refuse(worker, CBUF_EINVAL, "an option of a worker is out of range");
    if (!ring->readers) return cbuf__refuse(worker, CBUF_EACCES, "this process may only observe");
    if (ring->readers_fd < 0)
        return cbuf__refuse(worker, CBUF_EINVAL, "a group needs a ring in a file, for its locks");
    reader->ring = ring;
    reader->shared_cursor = &reader->unused;
    reader->room_at = &ring->local->never;
    reader->spins = o.spins ? o.spins : 1000;
    reader->wait = o.wait;
    reader->fd = -1;
    worker->heir_of = CBUF__NO_SLOT;
    error = cbuf__open_table(reader);
    if (!error && cbuf__lock(reader->fd, CBUF__EXCLUSIVE, CBUF__JOIN_BYTE, true))
        error = CBUF_ESYSTEM;
    if (!error) error = cbuf__join_as_worker(worker, group, &o);
    if (!error) return cbuf__lock(reader->fd, CBUF__UNLOCK, CBUF__JOIN_BYTE, false), 0;
    if (reader->fd >= 0) close(reader->fd);
    reader->ring = NULL;
    return cbuf__refuse(worker, error, worker->why);
}

/* ================================================================================ [wait] ==== */

CBUF__SLOW bool cbuf__others_hold(const cbuf_worker *worker)
{
    for (uint32_t k = worker->group_index + 1; k < cbuf__siblings_end(worker); k++)
        if (k != worker->reader.index && cbuf__is_sibling(worker, k) &&
            cbuf__load_acquire(&cbuf__nth_slot(worker, k)->cursor) != CBUF__FREE)
            return true;
    return false;
}

/* Waits for rows that nobody has yet. What the reader passes and counts meanwhile is not taken. */
CBUF__SLOW int64_t cbuf__wait_for_turn(cbuf_worker *worker, int64_t ns)
{
    int64_t there = cbuf_wait(&worker->reader, 1, ns);
    if (worker->reader.lost != worker->lost)
        cbuf__store_relaxed(&worker->reader.slot->lost, worker->lost);
    if (there != CBUF_ECLOSED || !cbuf__others_hold(worker)) return there;
    struct timespec moment = { 0, CBUF__AS(long, ns < 1000000 ? ns : 1000000) };
    nanosleep(&moment, NULL); /* until they are done with them, or dead */
    return 0;
}

static inline int64_t cbuf_take_wait(
    cbuf_worker *worker, void *rows, uint32_t max, int64_t timeout_ns)
{
    const int64_t spell = 10000000; /* a dead worker wakes nobody */
    int64_t start = 0, left = timeout_ns;
    for (;;) {
        int64_t n = cbuf_take(worker, rows, max), now = 0;
        if (n || !max || !timeout_ns) return n;
        if (timeout_ns > 0) now = cbuf__now_ns(CBUF__MONOTONIC);
        if (!start) start = now;
        if (timeout_ns > 0 && (left = timeout_ns - (now - start)) <= 0) return 0;
        n = cbuf__wait_for_turn(worker, left < 0 || left > spell ? spell : left);
        if (n < 0) return n;
    }
}

#ifdef __cplusplus
}
#endif
#endif /* CBUF_NO_OS */
#endif /* CBUF_GROUP_H */
