/*
 * cbuf_pool.h - payloads of any size beside a ring's fixed rows: pools of reference-counted slots
 * in shared memory, used by threads and processes without a copy.
 *
 * Include it anywhere; it brings cbuf.h. Nothing to link.
 *
 *   cbuf_pool pool; cbuf_ref ref;                                                 any process
 *   cbuf_pool_options options = { .name = "frames", .holder = "camera" };
 *   if (cbuf_pool_create(&pool, &options) < 0) die(cbuf_pool_error(&pool));
 *   if (cbuf_pool_allocate(&pool, 700, FRAME, &ref) < 0) die(cbuf_pool_error(&pool));
 *   fill(cbuf_pool_data(&pool, ref), 700);
 *
 *   struct row { int64_t time; cbuf_ref frame; } row = { now, ref };              the producer
 *   cbuf_pool_ring rows;                                     a column CBUF_COLUMN_AS(struct row,
 *   cbuf_pool_ring_open(&rows, &pool, &ring);                             frame, CBUF_REF)
 *   cbuf_pool_write(&rows, &row);                            the row owns the reference now
 *
 *   while (cbuf_wait(&reader, 1, CBUF_FOREVER) > 0)                               a consumer
 *       if (cbuf_pool_read(&pool, &reader, &row, offsetof(struct row, frame)) == 1 && row.frame) {
 *           look_at(cbuf_pool_data(&pool, row.frame), cbuf_pool_length(&pool, row.frame));
 *           cbuf_pool_release(&pool, row.frame);
 *       }
 *
 * WHAT IS WHERE
 *
 *   /dev/shm/frames        written by all who attached
 *   +-------+---------+--------+------+-----------------------+----------------------+-----
 *   | facts | holders | counts | XXL  | XS slot 0 | 1 | 2 ... | S slot 0 | 1 | 2 ... | M ...
 *   +-------+---------+--------+------+-----------------------+----------------------+-----
 *    never   who they  of each         |
 *    change  are       holder          +- 64 bytes: state, length, type; then the payload
 *   /dev/shm/frames.xxl7   the payload of XXL slot 7 while it is in use
 *
 *   state: | generation, 32 bits | going | a bit for each of 31 holders |      0 bits: the slot
 *                                                                              is free
 *   ref:   | generation, 32 bits | class + 1, 8 bits | index, 24 bits |        0: no payload
 *
 * GLOSSARY
 *
 *   payload     what a slot carries: bytes, their length, a number for their type
 *   ref         a payload's handle, 8 bytes, valid in every process that attached
 *   holder      one cbuf_pool handle (of a thread or a process), or a ring; it holds a slot if its
 *               bit stands in the slot's state
 *   stale       said of a ref whose payload was given back by all; the generation tells
 *
 * WHAT HOLDS, AND WHAT DOES NOT
 *
 *   - The state word is the whole truth, and one atomic operation changes it: there is no list and
 *     no count that a death could leave half done. A dead holder's bits are cleared exactly, and
 *     as often as somebody likes: by whoever attaches, by allocation when nothing is free, and by
 *     cbuf_pool_reclaim. The kernel, by the lock of an open file, says who is dead.
 *   - A release that goes too far is refused (CBUF_ENOTHELD), as is the use of a ref that is not
 *     held. That cannot help against two places of one program that share one reference.
 *   - All who attach trust each other not to write into what they do not hold. A ref, an index or a
 *     length that comes from shared memory is checked before use: a damaged pool cannot make
 *     anybody read or write outside of it.
 *   - At most 31 holders. A class that has no free slot is looked through from end to end (1 ns
 *     a slot) before allocation goes on to the next one: give it more slots than are in use.
 *   - A ring keeps the payloads of all its rows, so the pool needs more slots than the ring has
 *     rows. Rows with refs are written by cbuf_pool_write only, one at a time; what cbuf_write
 *     leaves behind is found when the ring is next opened for refs and nobody else has it so.
 *   - Of several producers each has its own handle of pool and ring. A payload is in one row of
 *     such a ring at a time. A row that was given up for a dead producer owns its payloads like
 *     any other, until it is overwritten.
 *   - One thread at a time uses a handle; give each thread its own. Handles do not survive fork()
 *     (CBUF_EFORKED), and a child that lives on keeps its parent's locks alive.
 *
 * For those who know rusted-ring: EventAllocator is cbuf_pool, RingPtr is cbuf_ref; clone and
 * inc_ref_count are cbuf_pool_retain, drop and dec_ref_count _release, deref and get_slot_data
 * _data and _length, event_type _type, PoolId::from_size _class_of. RingBuffer<SIZE, CAPACITY> is
 * in examples/sized_ring.c, its actors in examples/pipeline.c.
 *
 * CONFIGURATION as in cbuf.h. With CBUF_NO_OS there are no files and no XXL.
 *
 * SECTIONS  [pool-api] [pool-format] [pool-slots] [pool-large] [pool-holders] [pool-use]
 *           [pool-make] [pool-memory] [pool-files] [pool-rows] [pool-observe]
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_POOL_H
#define CBUF_POOL_H

#include "cbuf.h"
#ifndef CBUF_NO_OS
#include <stdlib.h> /* malloc: XXL payloads of a pool in memory */
#endif

#ifdef __cplusplus
#define CBUF__POINTER(address) reinterpret_cast<void *>(CBUF__AS(uintptr_t, address))
extern "C++" {
#else
#define CBUF__POINTER(address) ((void *)CBUF__AS(uintptr_t, address))
#endif

/* ============================================================================ [pool-api] ==== */

typedef uint64_t cbuf_ref; /* 0: no payload */

enum cbuf_pool_class { CBUF_XS, CBUF_S, CBUF_M, CBUF_L, CBUF_XL, CBUF_XXL };
#define CBUF_POOL_CLASSES 6
#define CBUF_MAX_HOLDERS 31
#define CBUF_MAX_XXL 64
#define CBUF_MAX_SLOTS (1u << 24) /* of a class */
#define CBUF_MAX_SLOT_BYTES (1u << 30)
#define CBUF_MAX_REF_COLUMNS 8
#define CBUF_HOLDER_BYTES 192 /* of a holder's name, with its final NUL */

/* Zero is the default everywhere; but if one count is given all are as given, and 0 means none. */
typedef struct cbuf_pool_options {
    const char *name;           /* "frames": /dev/shm/frames; or an absolute path */
    const char *holder;         /* this holder's name, for those who look; NULL: "holder" */
    uint32_t bytes[CBUF_XXL];   /* of a slot of each class, ascending, rounded up to 64; 0: 64, 256,
                                   1,024, 4,096, 16,384 */
    uint32_t count[CBUF_POOL_CLASSES]; /* of slots; 2,000, 1,000, 300, 60, 15, 64 XXL (the most) */
    uint32_t max_holders;       /* 1 to 31; 0: 31 */
    uint8_t existing;           /* enum cbuf_existing; CBUF_RESUME joins a pool of the same make */
    bool group;                 /* file mode 0660; 0600 without. Of several users one cannot delete
                                   the other's XXL payloads from a directory like /dev/shm: keep
                                   such a pool elsewhere, or without XXL */
    cbuf_memory_options memory; /* for this process's mapping */
} cbuf_pool_options;

typedef struct cbuf_pool_attach_options {
    const char *holder;
    bool any_owner; /* accept files that are neither this user's nor root's */
    cbuf_memory_options memory;
} cbuf_pool_attach_options;

/* ---- handles: the caller's memory, private contents ---- */

struct cbuf__pool_file;
struct cbuf__pool_slot;

typedef struct cbuf__keeper { /* a holder as its owner knows it */
    uint64_t bit;
    uint64_t *held; /* for each slot the generation, 32 bits, and how often it is held; in the
                       file, for nobody else's eyes */
    uint32_t index;
} cbuf__keeper;

typedef struct cbuf__pool_class {
    unsigned char *slots;
    uint64_t bytes;
    uint32_t count, stride, first; /* first: number of its slot 0 among all slots of the pool */
    uint32_t hot, next;            /* the slot that was freed last; where the search goes on */
} cbuf__pool_class;

typedef struct cbuf__large { /* an XXL payload that this process has mapped */
    void *base;
    uint64_t length, bytes;
    uint32_t generation;
} cbuf__large;

typedef struct cbuf_pool {
    struct cbuf__pool_file *file;
    cbuf__pool_class classes[CBUF_POOL_CLASSES];
    cbuf__keeper self;
    uint64_t guess; /* never 0: the holders that a payload had when it was retained last */
    uint32_t max_holders, slots, mine; /* slots: of all classes; mine: entries of this handle */
    bool in_memory, any_owner;
    int64_t reclaimed_ns;
    cbuf_ring carrier; /* of path, error text, file, mapping and the words that a fork() clears */
    cbuf__large large[CBUF_MAX_XXL];
} cbuf_pool;

typedef struct cbuf_pool_ring { /* a ring whose rows own references */
    cbuf_pool *pool;
    cbuf_ring *ring;
    cbuf__keeper self;
    uint32_t columns, words[CBUF_MAX_REF_COLUMNS]; /* ref columns; the word of the row of each */
} cbuf_pool_ring;

/* ---- a pool ---- */

#ifndef CBUF_NO_OS
/* Makes a pool, or joins the one of that name and make, and becomes one of its holders. 0 or an
 * error: CBUF_EMISMATCH if it is of another make, CBUF_ESLOTS if there are too many holders,
 * CBUF_ENOSPACE if the file system is full, CBUF_EINUSE if it is to be replaced and has holders.
 * After an error nothing is left behind, and cbuf_pool_error tells file, value and limit. */
static inline int cbuf_pool_create(cbuf_pool *pool, const cbuf_pool_options *options);
/* Joins a pool by its name or path; `options` may be NULL. Everything in the file is checked before
 * it is used. What the holders that have died held is given back when one of their places is
 * taken. */
static inline int cbuf_pool_attach(
    cbuf_pool *pool, const char *name, const cbuf_pool_attach_options *options);
/* Deletes a pool that nobody uses and its XXL payloads: CBUF_EINUSE while a holder lives. */
static inline int cbuf_pool_remove(const char *name);
/* Gives back what dead holders held, and what rings held whose file is gone. How many references;
 * 0 for a pool in memory, where nobody knows who is dead. Anyone may call it at any time. */
static inline int64_t cbuf_pool_reclaim(cbuf_pool *pool);
#endif

/* The bytes that cbuf_pool_create_in needs for these options, or an error. */
static inline int64_t cbuf_pool_memory_needed(const cbuf_pool_options *options);
/* Makes a pool in the caller's memory, 64-byte aligned, for the threads of one process. XXL
 * payloads come from malloc. `name`, `existing`, `group` and `memory` do not apply. */
static inline int cbuf_pool_create_in(
    cbuf_pool *pool, void *memory, size_t bytes, const cbuf_pool_options *options);
/* Another thread's handle of it. */
static inline int cbuf_pool_attach_in(
    cbuf_pool *pool, void *memory, size_t bytes, const char *holder);

/* Gives back all that this handle holds and ends its use; also one that is all zero or failed to
 * open. Close its cbuf_pool_rings first. The pool stays. */
static inline void cbuf_pool_close(cbuf_pool *pool);
static inline const char *cbuf_pool_error(const cbuf_pool *pool); /* why the last call failed */
static inline const char *cbuf_pool_path(const cbuf_pool *pool);  /* "" for one in memory */

/* ---- payloads: one thread at a time for each handle ---- */

/* The class that payloads of so many bytes belong to, whether it has a free slot or not. */
static inline enum cbuf_pool_class cbuf_pool_class_of(const cbuf_pool *pool, uint64_t bytes);
/* Takes a slot for `bytes` bytes, of their class or the next larger one that has a free slot, and
 * holds it. Its bytes are what they were. 0, with the handle in *ref; or an error, with 0 in *ref:
 * CBUF_EEMPTY if no class has a slot, CBUF_ERETIRED if the pool was removed. No system call up to
 * XL; an XXL payload is a new file, some 20 us. */
static inline int cbuf_pool_allocate(
    cbuf_pool *pool, uint64_t bytes, uint32_t type, cbuf_ref *ref);
/* The same with a copy of `data` in it. */
static inline int cbuf_pool_put(
    cbuf_pool *pool, const void *data, uint64_t bytes, uint32_t type, cbuf_ref *ref);

/* The payload, 64-byte aligned, for as long as this handle holds it; NULL if it does not. Who
 * allocated it may write it until others know the ref; from then on it is read only. */
static inline void *cbuf_pool_data(cbuf_pool *pool, cbuf_ref ref);
static inline uint64_t cbuf_pool_length(cbuf_pool *pool, cbuf_ref ref); /* bytes; 0 if not held */
static inline uint32_t cbuf_pool_type(const cbuf_pool *pool, cbuf_ref ref); /* likewise */

/* Holds the payload of a ref that came from somewhere, or holds it once more. 0; CBUF_ESTALE if all
 * have given it back, whatever its slot is used for now; CBUF_EINVAL if it is no ref of this pool.
 * What the one who allocated it wrote is seen if the ref came by way of a ring, or of any other
 * acquire of a release. */
static inline int cbuf_pool_retain(cbuf_pool *pool, cbuf_ref ref);
/* Gives one reference back. 1 if it was the last one of all, and the slot is free; 0; CBUF_ENOTHELD
 * if this handle does not hold it; CBUF_EINVAL. */
static inline int cbuf_pool_release(cbuf_pool *pool, cbuf_ref ref);

/* ---- rings whose rows own references: a producer's thread, with its own handles ---- */

/* Lets the ring (open to write, with 1 to 8 columns of type CBUF_REF at offsets that 8 divides) be
 * a holder of the pool; each of several producers does so, by the same path, with a pool handle of
 * its own. A ring that was one before, by the same path, goes on: the first to open it counts anew
 * what its rows own, and gives back what none of them owns. 0 or an error, see cbuf_pool_error:
 * CBUF_EBUSY if it is open already, by the one producer or with this handle; CBUF_EFEATURE for
 * delta columns, CBUF_SPILL and rings with a log: a row that waits in a file, or is written again
 * from it, could not tell what it owns. `pool` and `ring` stay open and where they are. */
static inline int cbuf_pool_ring_open(cbuf_pool_ring *rows, cbuf_pool *pool, cbuf_ring *ring);
/* Writes a row like cbuf_write. Each ref in it (0: none) must be held by the pool's handle, whose
 * reference goes to the row; what the row that is overwritten owned is given back. 1; if it
 * returns anything else (0, CBUF_ETIMEDOUT, CBUF_ENOTHELD ...) nothing has changed hands. In a ring
 * of several producers CBUF_EINUSE: another row has the payload, or one that is being overwritten,
 * or a dead producer had it in hand, until cbuf_pool_reclaim. */
static inline int cbuf_pool_write(cbuf_pool_ring *rows, const void *row);
/* Reads the next row like cbuf_read, for one reader of any process, and holds the payload of the
 * ref at `offset` in it before the cursor moves on: under CBUF_BLOCK and CBUF_DROP_NEWEST none is
 * missed that way. Where the payload is gone all the same (the reader was lapped) the ref in the
 * copy is 0. 1; 0: nothing new; or an error. */
static inline int cbuf_pool_read(
    cbuf_pool *pool, cbuf_reader *reader, void *row, size_t offset);
/* Ends the use; the rows keep what they own. */
static inline void cbuf_pool_ring_close(cbuf_pool_ring *rows);
/* Gives back what all rows own, and ends the use: for a ring in memory, or one to be removed. How
 * many references; CBUF_EINUSE, and nothing done, while others of several producers have it open.
 * (cbuf_pool_reclaim does it for rings whose file is gone.) */
static inline int64_t cbuf_pool_ring_drop(cbuf_pool_ring *rows);

/* ---- observing ---- */

typedef struct cbuf_pool_stats {
    uint64_t bytes; /* of a slot; 0 for XXL */
    uint64_t count, free, held; /* slots: free + held = count */
} cbuf_pool_stats;
static inline int cbuf_pool_stats_get(
    const cbuf_pool *pool, enum cbuf_pool_class kind, cbuf_pool_stats *stats);

typedef struct cbuf_pool_holder {
    char name[CBUF_HOLDER_BYTES];
    uint64_t slots, bytes; /* that it holds; bytes of their payloads */
    int64_t started_ns;
    uint32_t pid;
    bool ring;  /* a ring's rows, not a process */
    bool alive; /* by the kernel's word; in memory: always; a ring: it has a producer */
} cbuf_pool_holder;
/* Entry `index`, from 0 to 30: 1 if there is a holder, 0 if not, or an error. */
static inline int cbuf_pool_holder_get(
    const cbuf_pool *pool, uint32_t index, cbuf_pool_holder *holder);
/* The first ref after `after` (0: of all) whose slot is held, with bit k in *holders for holder k;
 * 0: there is no more. */
static inline cbuf_ref cbuf_pool_next_held(
    const cbuf_pool *pool, cbuf_ref after, uint32_t *holders);

/* ========================================================================= [pool-format] ==== */

#define CBUF__MAGIC_POOL "cbufpool"
enum { CBUF__POOL_LINE = 64 }; /* the alignment of payloads */
enum { CBUF__NOBODY = 0, CBUF__PROCESS = 1, CBUF__RING = 2, CBUF__RING_OF_MANY = 3 }; /* `kind` */

typedef struct cbuf__pool_region {
    uint64_t offset, bytes; /* of its slot 0 in the file; of a payload */
    uint32_t count, stride;
} cbuf__pool_region;

typedef struct cbuf__pool_facts { /* never change once the file is there */
    char magic[8];
    uint32_t byte_order;
    uint16_t major, minor;
    uint64_t features; /* none yet; a program refuses a pool that has one it does not know */
    uint64_t file_bytes, holders_offset, counts_offset;
    uint32_t max_holders, slots;
    int64_t created_ns;
    uint32_t in_memory, unused;
    cbuf__pool_region regions[CBUF_POOL_CLASSES];
} cbuf__pool_facts;

struct cbuf__pool_file {
    cbuf__pool_facts facts;
    unsigned char pad0[256 - sizeof(cbuf__pool_facts)];
    cbuf__word state; /* CBUF__OPEN or CBUF__RETIRED */
    cbuf__word rings; /* in memory: 1: locked, see cbuf__lock_rings */
    unsigned char pad1[256 - 2 * 8];
}; /* then: holders, counts (8 bytes for each holder and slot; of a ring of many producers: owners,
      see [pool-rows]), XXL, XS, S, M, L, XL */

struct cbuf__holder {
    cbuf__word owned; /* 1: taken; written by who has the lock of its byte of the file */
    cbuf__word kind, pid, started_ns;
    cbuf__word users; /* of a ring of many producers, in memory: how many have it open */
    cbuf__word unused[3];
    cbuf__word name[CBUF_HOLDER_BYTES / 8];
};

struct cbuf__pool_slot {
    cbuf__word state, length, type;
    cbuf__word address; /* of an XXL payload of a pool in memory */
    cbuf__word unused[4];
}; /* then the payload */

CBUF__FROZEN(sizeof(cbuf__pool_facts) == 216 && sizeof(struct cbuf__pool_file) == 512);
CBUF__FROZEN(offsetof(cbuf__pool_facts, regions) == 72 && sizeof(cbuf__pool_region) == 24);
CBUF__FROZEN(offsetof(struct cbuf__pool_file, state) == 256);
CBUF__FROZEN(sizeof(struct cbuf__holder) == 256 && sizeof(struct cbuf__pool_slot) == 64);

/* ========================================================================== [pool-slots] ==== */

/* A slot's state. WHO MAY DO WHAT: who finds no bit in it may set its own, with the next
 * generation, and so allocates: every older ref is stale from then on, as it was while there was no
 * bit. Who finds a bit and the generation of its ref may add its own (retain). Each takes its own
 * away, which is sure to be there and needs no look: a subtraction does. A payload is filled after
 * P1 and last read before P2, so whoever allocates next comes after all who read. Going: the last
 * holder removes an XXL payload before the slot is free; it cannot be retained. */
#define CBUF__HOLDERS 0x7fffffffu
#define CBUF__GOING 0x80000000u

CBUF__INLINE uint32_t cbuf__generation(uint64_t word) { return CBUF__AS(uint32_t, word >> 32); }
CBUF__INLINE uint64_t cbuf__free_state(uint64_t state) { return state >> 32 << 32; }
CBUF__INLINE cbuf_ref cbuf__ref_of(uint64_t state, uint32_t kind, uint32_t index)
{
    return (state >> 32 << 32) | CBUF__AS(uint64_t, kind + 1) << 24 | index;
}
/* Class and index of a ref, which may be any number; to be checked. */
CBUF__INLINE uint32_t cbuf__ref_kind(cbuf_ref ref)
{
    return CBUF__AS(uint32_t, ref >> 24 & 255) - 1;
}
CBUF__INLINE uint32_t cbuf__ref_index(cbuf_ref ref) { return CBUF__AS(uint32_t, ref & 0xffffff); }

/* An owner's word, see [pool-rows]:
 *   | generation mod 2^26, 26 bits | step, 3 | holder, 5 | place, 30 |       0: nobody */
enum { CBUF__TAKEN = 1, CBUF__WRITING = 2, CBUF__OWNED = 3, CBUF__DROPPING = 4 }; /* steps */
CBUF__INLINE uint64_t cbuf__owner(uint64_t ref, uint64_t step, uint64_t holder, uint64_t place)
{
    return (ref >> 32) << 38 | step << 35 | holder << 30 | place;
}
CBUF__INLINE uint64_t cbuf__step_of(uint64_t owner) { return owner >> 35 & 7; }
CBUF__INLINE bool cbuf__is_in_hand(uint64_t owner, uint64_t holder)
{
    uint64_t step = cbuf__step_of(owner);
    return step && step != CBUF__OWNED && (owner >> 30 & 31) == holder;
}
CBUF__INLINE bool cbuf__is_of_place(uint64_t owner, uint64_t place)
{
    uint64_t step = cbuf__step_of(owner);
    bool placed = step == CBUF__WRITING || step == CBUF__OWNED;
    return placed && (owner & 0x3fffffff) == place;
}
CBUF__INLINE bool cbuf__speaks_of(uint64_t owner, uint64_t ref_or_state)
{
    return owner >> 38 == (ref_or_state >> 32 & 0x3ffffff);
}

CBUF__INLINE struct cbuf__pool_slot *cbuf__slot_at(const cbuf__pool_class *c, uint32_t index)
{
    void *slot = c->slots + CBUF__AS(size_t, index) * c->stride;
    return CBUF__AS(struct cbuf__pool_slot *, slot);
}
/* The slot of a ref, and its number among all; NULL if the pool has no such slot. */
CBUF__INLINE struct cbuf__pool_slot *cbuf__slot_of(
    const cbuf_pool *pool, cbuf_ref ref, uint32_t *number)
{
    uint32_t kind = cbuf__ref_kind(ref), index = cbuf__ref_index(ref);
    if (CBUF__UNLIKELY(kind >= CBUF_POOL_CLASSES || index >= pool->classes[kind].count))
        return NULL;
    *number = pool->classes[kind].first + index;
    return cbuf__slot_at(&pool->classes[kind], index);
}

/* Takes slot `index` if it is free; `state` is its state, or a guess. */
CBUF__INLINE bool cbuf__claim_slot(
    cbuf_pool *pool, uint32_t kind, uint32_t index, uint64_t state, cbuf_ref *ref)
{
    cbuf__pool_class *c = &pool->classes[kind];
    struct cbuf__pool_slot *slot = cbuf__slot_at(c, index);
    uint64_t taken;
    do {
        if (CBUF__AS(uint32_t, state)) return false;
        taken = (CBUF__AS(uint64_t, cbuf__generation(state) + 1) << 32) | pool->self.bit;
    } while (!cbuf__compare_exchange_acq_rel(&slot->state, &state, taken)); /* P1 <- P2 */
    pool->self.held[c->first + index] = cbuf__free_state(taken) | 1;
    *ref = cbuf__ref_of(taken, kind, index);
    return true;
}
/* Takes a free slot of a class: the one that was freed here last, whose lines are at hand and whose
 * state need not be loaded if nobody has had it since (16 against 21 ns); or the next one in turn,
 * which is mostly free: slots are given back in the order they were taken. */
CBUF__INLINE bool cbuf__take_free(cbuf_pool *pool, uint32_t kind, cbuf_ref *ref)
{
    cbuf__pool_class *c = &pool->classes[kind];
    uint32_t hot = c->hot;
    if (hot < c->count) {
        uint64_t guess = cbuf__free_state(pool->self.held[c->first + hot]);
        c->hot = UINT32_MAX;
        if (cbuf__claim_slot(pool, kind, hot, guess, ref)) return true;
    }
    for (uint32_t n = 0; n < c->count; n++) {
        uint32_t index = c->next;
        uint64_t state = cbuf__load_relaxed(&cbuf__slot_at(c, index)->state);
        c->next = index + 1 < c->count ? index + 1 : 0;
        if (cbuf__claim_slot(pool, kind, index, state, ref)) return true;
    }
    return false;
}

CBUF__SLOW void cbuf__unmake_large(cbuf_pool *pool, uint32_t index);
CBUF__SLOW void cbuf__unmap_large(cbuf_pool *pool, uint32_t index);

/* The last holder of an XXL slot, or who acts for it, frees payload and slot. Until the last store
 * the slot is the holder's, so that a death in between leaves it to be done again. */
CBUF__SLOW void cbuf__free_large(cbuf_pool *pool, uint32_t index, uint64_t state)
{
    struct cbuf__pool_slot *slot = cbuf__slot_at(&pool->classes[CBUF_XXL], index);
    cbuf__unmake_large(pool, index);
    cbuf__store_release(&slot->state, cbuf__free_state(state)); /* P2 */
}
/* Takes a holder's bit away, if it is there and the payload is the one that an owner's word speaks
 * of (0: any). 1: it was the last; 0; or CBUF_ENOTHELD. */
CBUF__SLOW int cbuf__clear_bit(
    cbuf_pool *pool, uint32_t kind, uint32_t index, uint64_t bit, uint64_t owner)
{
    struct cbuf__pool_slot *slot = cbuf__slot_at(&pool->classes[kind], index);
    uint64_t state = cbuf__load_relaxed(&slot->state), left;
    bool last;
    do {
        if (!(state & bit) || (owner && !cbuf__speaks_of(owner, state))) return CBUF_ENOTHELD;
        left = state & ~bit;
        last = !(left & CBUF__HOLDERS);
        if (last && kind == CBUF_XXL) left = state | CBUF__GOING;
    } while (!cbuf__compare_exchange_acq_rel(&slot->state, &state, left)); /* P2 */
    if (last && kind == CBUF_XXL) cbuf__free_large(pool, index, left);
    return last;
}

/* The same for a bit that is sure to be there. */
CBUF__INLINE int cbuf__drop_bit(cbuf_pool *pool, uint32_t kind, uint32_t index, uint64_t bit)
{
    if (CBUF__UNLIKELY(kind == CBUF_XXL)) return cbuf__clear_bit(pool, kind, index, bit, 0);
    cbuf__word *state = &cbuf__slot_at(&pool->classes[kind], index)->state;
    uint64_t before = cbuf__fetch_add_acq_rel(state, 0 - bit); /* P2 */
    if ((before & CBUF__HOLDERS) != bit) return 0;
    pool->classes[kind].hot = index;
    return 1;
}

/* Whether a keeper holds the payload of a ref: 0 with its slot's number, or an error. */
CBUF__INLINE int cbuf__is_held(
    const cbuf_pool *pool, const cbuf__keeper *keeper, cbuf_ref ref, uint32_t *number)
{
    if (CBUF__UNLIKELY(!cbuf__slot_of(pool, ref, number))) return CBUF_EINVAL;
    uint64_t held = keeper->held[*number];
    bool yes = cbuf__generation(held) == cbuf__generation(ref) && CBUF__AS(uint32_t, held);
    return CBUF__LIKELY(yes) ? 0 : CBUF_ENOTHELD;
}
/* Gives back one of a keeper's references. */
CBUF__INLINE int cbuf__give_back(cbuf_pool *pool, cbuf__keeper *keeper, cbuf_ref ref)
{
    uint32_t number;
    int error = cbuf__is_held(pool, keeper, ref, &number);
    if (CBUF__UNLIKELY(error)) return error;
    if (CBUF__AS(uint32_t, --keeper->held[number])) return 0;
    return cbuf__drop_bit(pool, cbuf__ref_kind(ref), cbuf__ref_index(ref), keeper->bit);
}

/* Unmaps an XXL payload that this handle holds no longer. */
CBUF__INLINE void cbuf__forget_large(cbuf_pool *pool, cbuf_ref ref)
{
    uint32_t number;
    if (CBUF__LIKELY(cbuf__ref_kind(ref) != CBUF_XXL) || !cbuf__slot_of(pool, ref, &number)) return;
    if (!CBUF__AS(uint32_t, pool->self.held[number])) cbuf__unmap_large(pool, cbuf__ref_index(ref));
}

/* Moves a reference from one keeper to another, both of the calling thread, in one step: at no
 * moment has the payload one holder fewer. */
CBUF__INLINE int cbuf__hand_over(
    cbuf_pool *pool, cbuf__keeper *from, cbuf__keeper *to, cbuf_ref ref)
{
    uint32_t number;
    int error = cbuf__is_held(pool, from, ref, &number);
    if (CBUF__UNLIKELY(error)) return error;
    struct cbuf__pool_slot *slot = cbuf__slot_of(pool, ref, &number);
    bool first = !CBUF__AS(uint32_t, to->held[number]);
    bool last = !CBUF__AS(uint32_t, --from->held[number]);
    to->held[number] = first ? cbuf__free_state(ref) | 1 : to->held[number] + 1;
    if (first || last)
        cbuf__fetch_add_acq_rel(&slot->state, (first ? to->bit : 0) - (last ? from->bit : 0));
    return 0;
}

/* Clears a dead or closing holder's bit wherever it stands. How often it did. */
CBUF__SLOW int64_t cbuf__pool_sweep(cbuf_pool *pool, uint32_t holder)
{
    uint64_t bit = CBUF__AS(uint64_t, 1) << holder;
    int64_t cleared = 0;
    for (uint32_t kind = 0; kind < CBUF_POOL_CLASSES; kind++)
        for (uint32_t i = 0; i < pool->classes[kind].count; i++)
            if (cbuf__load_relaxed(&cbuf__slot_at(&pool->classes[kind], i)->state) & bit)
                cleared += cbuf__clear_bit(pool, kind, i, bit, 0) >= 0;
    return cleared;
}

/* ========================================================================== [pool-large] ==== */

/* XXL payloads: a file each, named after its slot, or memory from malloc. The name is free again
 * before the slot is, so a slot's holders all open the same file. */
#ifdef CBUF_NO_OS
CBUF__SLOW void cbuf__unmap_large(cbuf_pool *pool, uint32_t index) { (void)pool, (void)index; }
CBUF__SLOW void cbuf__unmake_large(cbuf_pool *pool, uint32_t index) { (void)pool, (void)index; }
CBUF__SLOW int cbuf__make_large(cbuf_pool *pool, uint32_t index, uint64_t bytes)
{
    return (void)pool, (void)index, (void)bytes, CBUF_EEMPTY;
}
CBUF__SLOW void *cbuf__map_large(cbuf_pool *pool, uint32_t index)
{
    return (void)pool, (void)index, CBUF__AS(void *, NULL);
}
#else
CBUF__SLOW int cbuf__fail_errno(cbuf_ring *ring, const char *what, int error);

CBUF__SLOW cbuf__path cbuf__large_path(const cbuf_pool *pool, uint32_t index, const char *suffix)
{
    char end[32];
    cbuf__text text = { end, end + sizeof end, false };
    cbuf__say_number(&text, ".xxl", index);
    cbuf__say(&text, suffix);
    return cbuf__path_of(&pool->carrier, end);
}

CBUF__SLOW void cbuf__unmap_large(cbuf_pool *pool, uint32_t index)
{
    cbuf__large *large = &pool->large[index];
    if (large->base && !pool->in_memory) munmap(large->base, CBUF__AS(size_t, large->bytes));
    large->base = NULL;
}

CBUF__SLOW void cbuf__unmake_large(cbuf_pool *pool, uint32_t index)
{
    struct cbuf__pool_slot *slot = cbuf__slot_at(&pool->classes[CBUF_XXL], index);
    cbuf__unmap_large(pool, index);
    if (pool->in_memory) {
        free(CBUF__POINTER(cbuf__exchange_acq_rel(&slot->address, 0)));
    } else {
        unlink(cbuf__large_path(pool, index, "").text);
    }
}

/* Makes the payload of an XXL slot that this handle has just claimed. */
CBUF__SLOW int cbuf__make_large(cbuf_pool *pool, uint32_t index, uint64_t bytes)
{
    struct cbuf__pool_slot *slot = cbuf__slot_at(&pool->classes[CBUF_XXL], index);
    uint64_t size = cbuf__round_up(bytes ? bytes : 1, 4096);
    void *base = NULL;
    if (pool->in_memory) {
        if (posix_memalign(&base, CBUF__POOL_LINE, CBUF__AS(size_t, size)))
            return cbuf__fail_with(&pool->carrier, CBUF_ENOSPACE, "an XXL payload's size", bytes,
                "more than malloc has; XXL slots: ", pool->classes[CBUF_XXL].count);
        cbuf__store_relaxed(&slot->address, CBUF__ADDRESS(base));
    } else {
        cbuf__path path = cbuf__large_path(pool, index, "");
        cbuf__path new_path = cbuf__large_path(pool, index, ".new");
        struct stat file;
        unlink(new_path.text);
        bool group = !fstat(pool->carrier.fd, &file) && (file.st_mode & S_IWGRP);
        mode_t mode = group ? 0660 : 0600;
        int fd = cbuf__new_file(&pool->carrier, new_path.text, mode, &size, UINT64_MAX), error;
        if (fd < 0) return fd;
        base = cbuf__map(fd, size, true, false);
        if (!base || (group && fchown(fd, CBUF__AS(uid_t, -1), file.st_gid)))
            error = cbuf__fail_errno(&pool->carrier, "an XXL payload", errno);
        else error = cbuf__name_file(&pool->carrier, fd, new_path.text, path.text);
        close(fd);
        if (error && base) munmap(base, CBUF__AS(size_t, size));
        if (error) return unlink(new_path.text), error;
    }
    cbuf__large large = { base, bytes, size, 0 };
    pool->large[index] = large;
    return 0;
}

/* Maps what somebody else made, for a slot that this handle holds. NULL if it is not there. */
CBUF__SLOW void *cbuf__map_large(cbuf_pool *pool, uint32_t index)
{
    struct cbuf__pool_slot *slot = cbuf__slot_at(&pool->classes[CBUF_XXL], index);
    uint64_t length = cbuf__load_relaxed(&slot->length), bytes = 0;
    void *base = NULL;
    if (pool->in_memory) {
        base = CBUF__POINTER(cbuf__load_acquire(&slot->address));
    } else {
        cbuf__path path = cbuf__large_path(pool, index, "");
        int fd = cbuf__open_owned(&pool->carrier, path.text, O_RDWR, pool->any_owner, &bytes);
        if (fd < 0) return NULL;
        if (bytes && length <= bytes) base = cbuf__map(fd, bytes, true, false);
        close(fd);
    }
    cbuf__large large = { base, length, bytes, 0 };
    pool->large[index] = large;
    return base;
}
#endif

/* ======================================================================== [pool-holders] ==== */

CBUF__INLINE struct cbuf__holder *cbuf__holder_at(const cbuf_pool *pool, uint32_t index)
{
    void *first = CBUF__AS(unsigned char *, CBUF__AS(void *, pool->file)) + sizeof *pool->file;
    return CBUF__AS(struct cbuf__holder *, first) + index;
}
/* What an entry is; certain only for who has its lock. */
CBUF__SLOW uint64_t cbuf__kind_of_holder(const struct cbuf__holder *holder)
{
    return cbuf__load_acquire(&holder->owned) ? cbuf__load_relaxed(&holder->kind) : 0;
}
CBUF__SLOW void cbuf__name_of(const struct cbuf__holder *holder, char name[CBUF_HOLDER_BYTES])
{
    unsigned char bytes[CBUF_HOLDER_BYTES];
    cbuf__words_out(bytes, holder->name, sizeof bytes / 8);
    bytes[sizeof bytes - 1] = 0;
    memcpy(name, bytes, sizeof bytes);
}
CBUF__SLOW bool cbuf__has_name(const struct cbuf__holder *holder, const char *wanted)
{
    char name[CBUF_HOLDER_BYTES];
    cbuf__name_of(holder, name);
    return !strcmp(name, wanted);
}

CBUF__INLINE bool cbuf__lock_holder(const cbuf_pool *pool, uint32_t index)
{
    return !cbuf__lock(pool->carrier.fd, CBUF__EXCLUSIVE, index, false);
}
CBUF__INLINE void cbuf__unlock_holder(const cbuf_pool *pool, uint32_t index)
{
    if (!pool->in_memory) cbuf__lock(pool->carrier.fd, CBUF__UNLOCK, index, false);
}

CBUF__SLOW bool cbuf__is_ring(const struct cbuf__holder *holder)
{
    return cbuf__kind_of_holder(holder) >= CBUF__RING;
}
CBUF__SLOW bool cbuf__is_the_ring(const struct cbuf__holder *holder, const char *name)
{
    return cbuf__is_ring(holder) && cbuf__has_name(holder, name);
}

/* Only one at a time lets a ring be a holder, or ends one, or settles what a dead producer had in
 * hand of any: who has this lock, for some microseconds. Who is stopped then holds up others who
 * want it, and nobody who writes or reads. `tries`: 50 us apart. */
CBUF__SLOW bool cbuf__lock_rings(cbuf_pool *pool, int tries)
{
    for (uint64_t nobody = 0; tries-- > 0; nobody = 0) {
        bool locked = pool->in_memory
            ? cbuf__compare_exchange_acq_rel(&pool->file->rings, &nobody, 1)
            : !cbuf__lock(pool->carrier.fd, CBUF__EXCLUSIVE, CBUF_MAX_HOLDERS, false);
        if (locked) return true;
        if (tries && !cbuf__rest(1000000)) cbuf__pause();
    }
    return false;
}
CBUF__SLOW void cbuf__unlock_rings(cbuf_pool *pool)
{
    if (pool->in_memory) cbuf__store_release(&pool->file->rings, 0);
    else cbuf__lock(pool->carrier.fd, CBUF__UNLOCK, CBUF_MAX_HOLDERS, false);
}

/* What an entry has for each slot: how often a holder holds it, or a ring's owner of it. */
CBUF__INLINE uint64_t *cbuf__counts_of(const cbuf_pool *pool, uint32_t index)
{
    void *counts = CBUF__AS(unsigned char *, CBUF__AS(void *, cbuf__holder_at(pool, 0))) +
        CBUF__AS(size_t, pool->max_holders) * sizeof(struct cbuf__holder) +
        CBUF__AS(size_t, pool->slots) * 8 * index;
    return CBUF__AS(uint64_t *, counts);
}
CBUF__INLINE cbuf__word *cbuf__owner_at(uint64_t *owners, uint32_t number)
{
    void *word = owners + number;
    return CBUF__AS(cbuf__word *, word);
}

/* Ends what a dead producer had begun with a slot of a ring of many: what is on the way in or out
 * goes back, what it was writing is the place's. Somebody may be overwriting that and take it. How
 * many references it gave back. */
CBUF__SLOW int64_t cbuf__settle(
    cbuf_pool *pool, uint32_t ring, uint32_t kind, uint32_t index, uint32_t dead)
{
    cbuf__word *owner =
        cbuf__owner_at(cbuf__counts_of(pool, ring), pool->classes[kind].first + index);
    uint64_t was = cbuf__load_acquire(owner), left = 0;
    bool given_back = false;
    if (!cbuf__is_in_hand(was, dead)) return 0;
    if (cbuf__step_of(was) == CBUF__WRITING)
        left = (was & ~cbuf__owner(0, 7, 31, 0)) | cbuf__owner(0, CBUF__OWNED, 0, 0);
    else
        given_back = cbuf__clear_bit(pool, kind, index, CBUF__AS(uint64_t, 1) << ring, was) >= 0;
    cbuf__compare_exchange_acq_rel(owner, &was, left);
    return given_back;
}
/* Gives back all that a dead holder held, and what it had in hand of rings before that. The caller
 * has its lock, and that of the rings. */
CBUF__SLOW int64_t cbuf__bury(cbuf_pool *pool, uint32_t dead)
{
    int64_t given_back = 0;
    for (uint32_t ring = 0; ring < pool->max_holders; ring++) {
        if (cbuf__kind_of_holder(cbuf__holder_at(pool, ring)) != CBUF__RING_OF_MANY) continue;
        for (uint32_t kind = 0; kind < CBUF_POOL_CLASSES; kind++)
            for (uint32_t i = 0; i < pool->classes[kind].count; i++)
                given_back += cbuf__settle(pool, ring, kind, i, dead);
    }
    return given_back + cbuf__pool_sweep(pool, dead);
}

/* Takes entry `index` if it is of that kind, or a ring's of that name: by the lock of its byte
 * in a file, whose owner may be dead; by a compare-exchange in memory. */
CBUF__SLOW bool cbuf__enter(cbuf_pool *pool, uint32_t index, uint64_t kind, const char *name)
{
    struct cbuf__holder *holder = cbuf__holder_at(pool, index);
    uint64_t nobody = 0, is = cbuf__kind_of_holder(holder);
    bool ring = kind == CBUF__RING;
    if (pool->mine >> index & 1 || (ring ? !cbuf__is_the_ring(holder, name) : is != kind))
        return false;
    if (pool->in_memory && ring) return is == kind || !cbuf__load_acquire(&holder->users);
    if (pool->in_memory)
        return !kind && cbuf__compare_exchange_acq_rel(&holder->owned, &nobody, 1);
    if (!cbuf__lock_holder(pool, index)) return false;
    if (cbuf__kind_of_holder(holder) == is) return true; /* still, and now it stays so */
    cbuf__unlock_holder(pool, index);
    return false;
}
/* The same for a dead one's, which is swept: all of it, before the entry is anyone's again. */
CBUF__SLOW bool cbuf__inherit(cbuf_pool *pool, uint32_t index, bool has_rings_lock)
{
    if (!cbuf__enter(pool, index, CBUF__PROCESS, NULL)) return false;
    bool locked = has_rings_lock || cbuf__lock_rings(pool, 1000);
    if (locked) cbuf__bury(pool, index);
    if (locked) cbuf__store_release(&cbuf__holder_at(pool, index)->owned, 0);
    if (locked && !has_rings_lock) cbuf__unlock_rings(pool);
    if (!locked) cbuf__unlock_holder(pool, index);
    return locked;
}

/* Finds an entry for a holder: its number, or an error. A ring's own entry is taken up again; else
 * one that is free; else one whose holder has died. */
CBUF__SLOW int cbuf__find_entry(cbuf_pool *pool, uint64_t kind, const char *name)
{
    bool ring = kind != CBUF__PROCESS;
    int last = CBUF__AS(int, pool->max_holders);
    for (int k = 0; ring && k < last; k++) {
        uint32_t index = CBUF__AS(uint32_t, k);
        if (cbuf__enter(pool, index, CBUF__RING, name)) return k;
        if (cbuf__is_the_ring(cbuf__holder_at(pool, index), name))
            return cbuf__fail(&pool->carrier, CBUF_EBUSY, "the ring is open for refs already");
    }
    for (int k = 0; k < last; k++)
        if (cbuf__enter(pool, CBUF__AS(uint32_t, k), CBUF__NOBODY, NULL)) return k;
    for (int k = 0; k < last; k++)
        if (cbuf__inherit(pool, CBUF__AS(uint32_t, k), ring)) return k;
    return cbuf__fail_with(&pool->carrier, CBUF_ESLOTS, "the number of holders",
        pool->max_holders, "the limit is ", pool->max_holders);
}
CBUF__SLOW void cbuf__keep(cbuf_pool *pool, uint32_t index, cbuf__keeper *keeper)
{
    keeper->bit = CBUF__AS(uint64_t, 1) << index;
    keeper->index = index;
    keeper->held = cbuf__counts_of(pool, index);
    pool->mine |= 1u << index;
}

/* Becomes a holder: 0, with *keeper filled in, or an error. The owners of a ring of many producers
 * are kept: some may be in the hands of the dead. */
CBUF__SLOW int cbuf__join(cbuf_pool *pool, uint64_t kind, const char *name, cbuf__keeper *keeper)
{
    unsigned char text[CBUF_HOLDER_BYTES] = { 0 };
    size_t length = strlen(name);
    int k = cbuf__find_entry(pool, kind, name);
    if (k < 0) return k;
    cbuf__keep(pool, CBUF__AS(uint32_t, k), keeper);
    struct cbuf__holder *holder = cbuf__holder_at(pool, keeper->index);
    if (kind != CBUF__RING_OF_MANY || cbuf__kind_of_holder(holder) != kind)
        memset(keeper->held, 0, CBUF__AS(size_t, pool->slots) * 8);
    memcpy(text, name, length < sizeof text ? length : sizeof text - 1);
    cbuf__words_in(holder->name, text, sizeof text / 8);
#ifndef CBUF_NO_OS
    cbuf__store_relaxed(&holder->pid, CBUF__AS(uint64_t, getpid()));
#endif
    cbuf__store_relaxed(&holder->started_ns, CBUF__AS(uint64_t, cbuf__now_ns(CBUF__REALTIME)));
    cbuf__store_relaxed(&holder->kind, kind);
    cbuf__store_relaxed(&holder->users, 0);
    cbuf__store_release(&holder->owned, 1);
    return 0;
}

/* Gives back all that an entry holds, and then the entry. The caller has its lock, and that of the
 * rings unless the entry is its own, and has nothing in hand. */
CBUF__SLOW int64_t cbuf__dismiss(cbuf_pool *pool, uint32_t index)
{
    struct cbuf__holder *holder = cbuf__holder_at(pool, index);
    bool own = pool->mine >> index & 1;
    int64_t given_back = own ? cbuf__pool_sweep(pool, index) : cbuf__bury(pool, index);
    cbuf__store_relaxed(&holder->kind, CBUF__NOBODY);
    cbuf__store_release(&holder->owned, 0);
    return given_back;
}
CBUF__SLOW int64_t cbuf__pool_leave(cbuf_pool *pool, uint32_t index)
{
    int64_t given_back = cbuf__dismiss(pool, index);
    cbuf__unlock_holder(pool, index);
    pool->mine &= ~(1u << index);
    return given_back;
}

#ifndef CBUF_NO_OS
/* Whether an entry's holder can be no more: a process's lock tells, for a ring its file too. */
CBUF__SLOW bool cbuf__may_be_gone(const struct cbuf__holder *holder)
{
    char name[CBUF_HOLDER_BYTES];
    struct stat file;
    if (!cbuf__is_ring(holder)) return cbuf__kind_of_holder(holder) == CBUF__PROCESS;
    cbuf__name_of(holder, name);
    return name[0] == '/' && lstat(name, &file) && errno == ENOENT;
}
CBUF__SLOW int64_t cbuf__reclaim(cbuf_pool *pool, int tries)
{
    int64_t given_back = 0;
    for (uint32_t k = 0; !pool->in_memory && k < pool->max_holders; k++) {
        struct cbuf__holder *holder = cbuf__holder_at(pool, k);
        if (pool->mine >> k & 1 || !cbuf__may_be_gone(holder) || !cbuf__lock_holder(pool, k))
            continue;
        if (cbuf__may_be_gone(holder) && cbuf__lock_rings(pool, tries)) {
            given_back += cbuf__dismiss(pool, k);
            cbuf__unlock_rings(pool);
        }
        cbuf__unlock_holder(pool, k);
    }
    return given_back;
}
#else
CBUF__SLOW int64_t cbuf__reclaim(cbuf_pool *pool, int tries)
{
    return (void)pool, (void)tries, 0;
}
#endif

/* ============================================================================ [pool-use] ==== */

CBUF__SLOW int cbuf__pool_unusable(const cbuf_pool *pool)
{
    return pool->file ? CBUF_EFORKED : CBUF_ENOTOPEN;
}
CBUF__INLINE int cbuf__pool_usable(const cbuf_pool *pool) /* 0, or the error */
{
    return CBUF__LIKELY(pool->carrier.local->never == UINT64_MAX) ? 0 : cbuf__pool_unusable(pool);
}

static inline enum cbuf_pool_class cbuf_pool_class_of(const cbuf_pool *pool, uint64_t bytes)
{
    int kind = CBUF_XS;
    while (kind < CBUF_XXL && bytes > pool->classes[kind].bytes) kind++;
    return CBUF__AS(enum cbuf_pool_class, kind);
}

CBUF__INLINE bool cbuf__allocate(cbuf_pool *pool, uint64_t bytes, uint32_t type, cbuf_ref *ref)
{
    for (uint32_t kind = cbuf_pool_class_of(pool, bytes); kind < CBUF_XXL; kind++) {
        if (!cbuf__take_free(pool, kind, ref)) continue;
        struct cbuf__pool_slot *slot = cbuf__slot_at(&pool->classes[kind], cbuf__ref_index(*ref));
        cbuf__store_relaxed(&slot->length, bytes);
        cbuf__store_relaxed(&slot->type, type);
        return true;
    }
    return false;
}
CBUF__SLOW int cbuf__allocate_large(
    cbuf_pool *pool, uint64_t bytes, uint32_t type, cbuf_ref *ref)
{
    if (bytes > SIZE_MAX / 2)
        return cbuf__fail_with(&pool->carrier, CBUF_EINVAL, "a payload's size", bytes,
            "the limit is ", SIZE_MAX / 2);
    if (!cbuf__take_free(pool, CBUF_XXL, ref)) return CBUF_EEMPTY;
    uint32_t index = cbuf__ref_index(*ref);
    struct cbuf__pool_slot *slot = cbuf__slot_at(&pool->classes[CBUF_XXL], index);
    int error = cbuf__make_large(pool, index, bytes);
    pool->large[index].generation = cbuf__generation(*ref);
    cbuf__store_relaxed(&slot->length, bytes);
    cbuf__store_relaxed(&slot->type, type);
    if (error) cbuf__give_back(pool, &pool->self, *ref);
    return error;
}
/* No class up to XL has a slot. Once a millisecond at most it looks whether the dead have. */
CBUF__SLOW int cbuf__allocate_slowly(
    cbuf_pool *pool, uint64_t bytes, uint32_t type, cbuf_ref *ref)
{
    int error = cbuf__allocate_large(pool, bytes, type, ref);
    int64_t now = cbuf__now_ns(CBUF__MONOTONIC);
    if (error == CBUF_EEMPTY && (!pool->reclaimed_ns || now - pool->reclaimed_ns >= 1000000)) {
        pool->reclaimed_ns = now;
        if (cbuf__reclaim(pool, 1) && cbuf__allocate(pool, bytes, type, ref)) return 0;
        error = cbuf__allocate_large(pool, bytes, type, ref);
    }
    if (error) *ref = 0;
    if (error != CBUF_EEMPTY) return error;
    uint64_t slots = 0;
    for (uint32_t kind = cbuf_pool_class_of(pool, bytes); kind < CBUF_POOL_CLASSES; kind++)
        slots += pool->classes[kind].count;
    return cbuf__fail_with(&pool->carrier, error, "the payload's size", bytes,
        "slots that could take it, all held: ", slots);
}

static inline int cbuf_pool_allocate(
    cbuf_pool *pool, uint64_t bytes, uint32_t type, cbuf_ref *ref)
{
    int error = cbuf__pool_usable(pool);
    *ref = 0;
    if (!error && CBUF__UNLIKELY(cbuf__load_relaxed(&pool->file->state) != CBUF__OPEN))
        error = CBUF_ERETIRED;
    if (CBUF__UNLIKELY(error)) return error;
    if (CBUF__LIKELY(cbuf__allocate(pool, bytes, type, ref))) return 0;
    return cbuf__allocate_slowly(pool, bytes, type, ref);
}

static inline void *cbuf_pool_data(cbuf_pool *pool, cbuf_ref ref)
{
    uint32_t number, kind = cbuf__ref_kind(ref), index = cbuf__ref_index(ref);
    if (cbuf__pool_usable(pool) || cbuf__is_held(pool, &pool->self, ref, &number)) return NULL;
    if (CBUF__LIKELY(kind != CBUF_XXL)) return cbuf__slot_at(&pool->classes[kind], index) + 1;
    cbuf__large *large = &pool->large[index];
    if (large->base && large->generation == cbuf__generation(ref)) return large->base;
    cbuf__unmap_large(pool, index);
    void *base = cbuf__map_large(pool, index);
    large->generation = cbuf__generation(ref);
    return base;
}

static inline int cbuf_pool_put(
    cbuf_pool *pool, const void *data, uint64_t bytes, uint32_t type, cbuf_ref *ref)
{
    int error = cbuf_pool_allocate(pool, bytes, type, ref);
    if (!error && bytes) memcpy(cbuf_pool_data(pool, *ref), data, CBUF__AS(size_t, bytes));
    return error;
}

static inline uint64_t cbuf_pool_length(cbuf_pool *pool, cbuf_ref ref)
{
    uint32_t number, kind = cbuf__ref_kind(ref), index = cbuf__ref_index(ref);
    if (cbuf__pool_usable(pool) || cbuf__is_held(pool, &pool->self, ref, &number)) return 0;
    if (kind == CBUF_XXL) return cbuf_pool_data(pool, ref) ? pool->large[index].length : 0;
    uint64_t length = cbuf__load_relaxed(&cbuf__slot_at(&pool->classes[kind], index)->length);
    return length < pool->classes[kind].bytes ? length : pool->classes[kind].bytes;
}

static inline uint32_t cbuf_pool_type(const cbuf_pool *pool, cbuf_ref ref)
{
    uint32_t number;
    if (cbuf__pool_usable(pool) || cbuf__is_held(pool, &pool->self, ref, &number)) return 0;
    return CBUF__AS(uint32_t, cbuf__load_relaxed(&cbuf__slot_of(pool, ref, &number)->type));
}

/* The payloads that a handle retains mostly come from one ring and have the same holders: with a
 * guess in place of a load, one step does it, and the line moves between processors once. */
static inline int cbuf_pool_retain(cbuf_pool *pool, cbuf_ref ref)
{
    uint32_t number;
    int error = cbuf__pool_usable(pool);
    struct cbuf__pool_slot *slot = error ? NULL : cbuf__slot_of(pool, ref, &number);
    if (CBUF__UNLIKELY(!slot)) return error ? error : CBUF_EINVAL;
    uint64_t *held = &pool->self.held[number];
    if (CBUF__AS(uint32_t, *held) && cbuf__generation(*held) == cbuf__generation(ref))
        return CBUF__AS(uint32_t, *held + 1) ? (++*held, 0) : CBUF_EINVAL;
    uint64_t state = cbuf__free_state(ref) | pool->guess;
    while (!cbuf__compare_exchange_acq_rel(&slot->state, &state, state | pool->self.bit)) {
        if (cbuf__generation(state) != cbuf__generation(ref)) return CBUF_ESTALE;
        if (!(state & CBUF__HOLDERS) || state & CBUF__GOING) return CBUF_ESTALE;
        pool->guess = state & CBUF__HOLDERS;
    }
    *held = cbuf__free_state(ref) | 1;
    return 0;
}

static inline int cbuf_pool_release(cbuf_pool *pool, cbuf_ref ref)
{
    int error = cbuf__pool_usable(pool);
    if (CBUF__UNLIKELY(error)) return error;
    int last = cbuf__give_back(pool, &pool->self, ref);
    if (last >= 0) cbuf__forget_large(pool, ref);
    return last;
}

/* =========================================================================== [pool-make] ==== */

/* A class as the options want it, or with the defaults; `before`: the size of the one before. */
CBUF__SLOW int cbuf__resolve_class(cbuf_pool *pool, const cbuf_pool_options *options, uint32_t k,
    uint64_t before, cbuf__pool_region *r)
{
    static const uint32_t bytes[] = { 64, 256, 1024, 4096, 16384, 0 };
    static const uint32_t counts[] = { 2000, 1000, 300, 60, 15, CBUF_MAX_XXL };
    uint32_t most = k == CBUF_XXL ? CBUF_MAX_XXL : CBUF_MAX_SLOTS, given = 0;
    for (uint32_t i = 0; i < CBUF_POOL_CLASSES; i++) given |= options->count[i];
    r->count = given ? options->count[k] : counts[k];
    r->bytes = k < CBUF_XXL && options->bytes[k] ? options->bytes[k] : bytes[k];
    const cbuf__limit limits[] = { { "a class's count", r->count, 0, most },
        { "a class's size", r->bytes, k < CBUF_XXL ? before + 1 : 0, CBUF_MAX_SLOT_BYTES } };
    int error = cbuf__check_limits(&pool->carrier, CBUF_EINVAL, limits, CBUF__COUNT_OF(limits));
    if (error) return error;
    r->bytes = cbuf__round_up(r->bytes, CBUF__POOL_LINE);
    r->stride = CBUF__AS(uint32_t, sizeof(struct cbuf__pool_slot) + r->bytes);
    return 0;
}
/* Checks the options against the limits, puts the defaults in, and finds where everything goes. */
CBUF__SLOW int cbuf__resolve_pool(
    cbuf_pool *pool, const cbuf_pool_options *options, uint64_t page, cbuf__pool_facts *f)
{
    memset(f, 0, sizeof *f);
    memcpy(f->magic, CBUF__MAGIC_POOL, 8);
    f->byte_order = CBUF__BYTE_ORDER;
    f->major = CBUF__MAJOR;
    f->minor = CBUF__MINOR;
    f->max_holders = options->max_holders ? options->max_holders : CBUF_MAX_HOLDERS;
    const cbuf__limit limit = { "max_holders", f->max_holders, 1, CBUF_MAX_HOLDERS };
    int error = cbuf__check_limits(&pool->carrier, CBUF_EINVAL, &limit, 1);
    if (error) return error;
    for (uint32_t k = 0; k < CBUF_POOL_CLASSES; k++) {
        uint64_t before = k ? f->regions[k - 1].bytes : 0;
        error = cbuf__resolve_class(pool, options, k, before, &f->regions[k]);
        if (error) return error;
        f->slots += f->regions[k].count;
    }
#ifdef CBUF_NO_OS
    f->slots -= f->regions[CBUF_XXL].count;
    f->regions[CBUF_XXL].count = 0;
#endif
    f->holders_offset = sizeof(struct cbuf__pool_file);
    f->counts_offset = f->holders_offset + f->max_holders * sizeof(struct cbuf__holder);
    uint64_t end = f->counts_offset + 8ull * f->max_holders * f->slots;
    for (uint32_t i = 0; i < CBUF_POOL_CLASSES; i++) { /* XXL, which has no payloads here, first */
        cbuf__pool_region *r = &f->regions[(i + CBUF_XXL) % CBUF_POOL_CLASSES];
        r->offset = cbuf__round_up(end, CBUF__LINE);
        end = r->offset + CBUF__AS(uint64_t, r->count) * r->stride;
    }
    f->file_bytes = cbuf__round_up(end, page);
    return f->file_bytes <= SIZE_MAX / 2 ? 0 : cbuf__fail_with(&pool->carrier, CBUF_EINVAL,
        "the pool's size", f->file_bytes, "the limit is ", SIZE_MAX / 2);
}

/* Whether the facts of a file or memory of `size` bytes make sense: 0, or an error and *why.
 * Nothing of it is used that has not passed here. */
CBUF__SLOW int cbuf__check_pool(const cbuf__pool_facts *f, uint64_t size, const char **why)
{
    uint64_t slots = 0;
    *why = "it does not begin with a pool's mark";
    if (size < sizeof(struct cbuf__pool_file) || memcmp(f->magic, CBUF__MAGIC_POOL, 8))
        return CBUF_EFORMAT;
    *why = "its byte order mark";
    if (f->byte_order == 0x04030201u) return CBUF_EBYTEORDER;
    if (f->byte_order != CBUF__BYTE_ORDER) return CBUF_EFORMAT;
    *why = "its major version is not 1";
    if (f->major != CBUF__MAJOR) return CBUF_EVERSION;
    *why = "it has feature bits that are not known";
    if (f->features) return CBUF_EFEATURE;
    *why = "its size is not the one that it was made with";
    if (f->file_bytes != size) return CBUF_EFORMAT;
    *why = "the place, size or number of its slots";
    for (uint32_t k = 0; k < CBUF_POOL_CLASSES; k++) {
        const cbuf__pool_region *r = &f->regions[k];
        uint32_t most = k == CBUF_XXL ? CBUF_MAX_XXL : CBUF_MAX_SLOTS;
        bool sane = k == CBUF_XXL ? !r->bytes : r->bytes && r->bytes <= CBUF_MAX_SLOT_BYTES;
        if (!sane || r->count > most || r->bytes % CBUF__POOL_LINE ||
            r->stride != sizeof(struct cbuf__pool_slot) + r->bytes || r->offset % CBUF__POOL_LINE ||
            r->offset > size || CBUF__AS(uint64_t, r->count) * r->stride > size - r->offset)
            return CBUF_EFORMAT;
        if (k && k < CBUF_XXL && r->bytes <= r[-1].bytes) return CBUF_EFORMAT;
        slots += r->count;
    }
    *why = "the place or number of its holders";
    if (f->max_holders < 1 || f->max_holders > CBUF_MAX_HOLDERS || f->slots != slots ||
        f->holders_offset != sizeof(struct cbuf__pool_file) ||
        f->counts_offset != f->holders_offset + f->max_holders * sizeof(struct cbuf__holder) ||
        f->counts_offset + 8ull * f->max_holders * slots > f->regions[CBUF_XXL].offset)
        return CBUF_EFORMAT;
    for (uint32_t k = 0; k < CBUF_POOL_CLASSES; k++)
        if (f->regions[k].offset < f->regions[CBUF_XXL].offset) return CBUF_EFORMAT;
    *why = NULL;
    return 0;
}

CBUF__SLOW void cbuf__begin_pool(cbuf_pool *pool)
{
    memset(pool, 0, sizeof *pool);
    cbuf__begin(&pool->carrier);
}

/* Gives the handle what the checked facts say of the pool at `base`, and joins. */
CBUF__SLOW int cbuf__bind_pool(
    cbuf_pool *pool, void *base, const cbuf__pool_facts *facts, const char *holder)
{
    pool->file = CBUF__AS(struct cbuf__pool_file *, base);
    pool->max_holders = facts->max_holders;
    pool->in_memory = facts->in_memory != 0;
    pool->slots = 0;
    for (uint32_t k = 0; k < CBUF_POOL_CLASSES; k++) {
        const cbuf__pool_region *r = &facts->regions[k];
        cbuf__pool_class *c = &pool->classes[k];
        c->slots = CBUF__AS(unsigned char *, base) + CBUF__AS(size_t, r->offset);
        c->bytes = r->bytes;
        c->count = r->count;
        c->stride = r->stride;
        c->first = pool->slots;
        pool->slots += r->count;
    }
    int error = cbuf__join(pool, CBUF__PROCESS, holder ? holder : "holder", &pool->self);
    if (!error && cbuf__load_acquire(&pool->file->state) != CBUF__OPEN) {
        cbuf__pool_leave(pool, pool->self.index);
        error = cbuf__fail(&pool->carrier, CBUF_ERETIRED, "it was being removed");
    }
    for (uint32_t k = 0; k < CBUF_POOL_CLASSES; k++) { /* holders begin at different places */
        cbuf__pool_class *c = &pool->classes[k];
        uint64_t start = CBUF__AS(uint64_t, c->count) * pool->self.index / pool->max_holders;
        c->next = CBUF__AS(uint32_t, start);
        c->hot = UINT32_MAX;
    }
    pool->guess = pool->self.bit == 1 ? 2 : 1;
    if (!error) pool->carrier.local->never = UINT64_MAX;
    if (error) pool->file = NULL;
    return error;
}

/* Fills in a pool's first part, in memory that is zero, and its mark last. */
CBUF__SLOW void cbuf__init_pool(void *base, cbuf__pool_facts *facts)
{
    const void *from = facts;
    uint64_t magic;
    facts->created_ns = cbuf__now_ns(CBUF__REALTIME);
    memcpy(&magic, from, 8);
    memcpy(CBUF__AS(char *, base) + 8, CBUF__AS(const char *, from) + 8, sizeof *facts - 8);
    cbuf__store_release(CBUF__AS(cbuf__word *, base), magic);
}

static inline const char *cbuf_pool_error(const cbuf_pool *pool) { return pool->carrier.error; }
static inline const char *cbuf_pool_path(const cbuf_pool *pool) { return pool->carrier.path; }

static inline void cbuf_pool_close(cbuf_pool *pool)
{
    if (!pool->carrier.local) return; /* all zero, never opened */
    if (pool->file && !cbuf__pool_usable(pool)) cbuf__pool_leave(pool, pool->self.index);
    for (uint32_t k = 0; k < CBUF_MAX_XXL; k++) cbuf__unmap_large(pool, k);
    cbuf__release(&pool->carrier);
    cbuf__begin_pool(pool);
}

/* ========================================================================= [pool-memory] ==== */

static inline int64_t cbuf_pool_memory_needed(const cbuf_pool_options *options)
{
    cbuf_pool pool;
    cbuf__pool_facts facts;
    cbuf__begin_pool(&pool);
    int error = cbuf__resolve_pool(&pool, options, CBUF__LINE, &facts);
    return error ? error : CBUF__AS(int64_t, facts.file_bytes);
}

static inline int cbuf_pool_create_in(
    cbuf_pool *pool, void *memory, size_t bytes, const cbuf_pool_options *options)
{
    cbuf__pool_facts facts;
    cbuf__begin_pool(pool);
    int error = cbuf__resolve_pool(pool, options, CBUF__LINE, &facts);
    if (error) return error;
    if (CBUF__ADDRESS(memory) % CBUF__POOL_LINE)
        return cbuf__fail(&pool->carrier, CBUF_EINVAL, "not 64-byte aligned");
    if (bytes < facts.file_bytes)
        return cbuf__fail_with(&pool->carrier, CBUF_ENOSPACE, "the memory's size", bytes,
            "needed are ", facts.file_bytes);
    memset(memory, 0, CBUF__AS(size_t, facts.file_bytes));
    facts.in_memory = 1;
    cbuf__init_pool(memory, &facts);
    return cbuf__bind_pool(pool, memory, &facts, options->holder);
}

static inline int cbuf_pool_attach_in(
    cbuf_pool *pool, void *memory, size_t bytes, const char *holder)
{
    cbuf__pool_facts facts;
    const char *why = "it was made in a file";
    cbuf__begin_pool(pool);
    if (CBUF__ADDRESS(memory) % CBUF__POOL_LINE)
        return cbuf__fail(&pool->carrier, CBUF_EINVAL, "not 64-byte aligned");
    memset(&facts, 0, sizeof facts);
    if (bytes >= sizeof facts) {
        cbuf__load_acquire(CBUF__AS(cbuf__word *, memory));
        memcpy(&facts, memory, sizeof facts);
    }
    uint64_t used = facts.file_bytes < bytes ? facts.file_bytes : bytes;
    int error = cbuf__check_pool(&facts, used, &why);
    if (!error && !facts.in_memory) error = CBUF_EFORMAT, why = "it was made in a file";
    if (error) return cbuf__fail(&pool->carrier, error, why);
    return cbuf__bind_pool(pool, memory, &facts, holder);
}

/* ========================================================================== [pool-files] ==== */

#ifndef CBUF_NO_OS
static inline int64_t cbuf_pool_reclaim(cbuf_pool *pool)
{
    int error = cbuf__pool_usable(pool);
    return error ? error : cbuf__reclaim(pool, 1000);
}

/* Opens and maps the pool at the carrier's path, after its facts were read, once, and checked. */
CBUF__SLOW int cbuf__open_pool(cbuf_pool *pool, cbuf__pool_facts *facts)
{
    uint64_t bytes;
    const char *why;
    cbuf_ring *carrier = &pool->carrier;
    int fd = cbuf__open_owned(carrier, carrier->path, O_RDWR, pool->any_owner, &bytes);
    if (fd < 0) return fd;
    carrier->fd = fd;
    memset(facts, 0, sizeof *facts);
    ssize_t got = pread(fd, facts, sizeof *facts, 0);
    if (got < 0) return cbuf__fail_errno(carrier, "reading", errno);
    int error = cbuf__check_pool(facts, CBUF__AS(size_t, got) == sizeof *facts ? bytes : 0, &why);
    if (!error && facts->in_memory) error = CBUF_EFORMAT, why = "it was made in memory";
    if (error) return cbuf__fail(carrier, error, why);
    void *base = cbuf__map(fd, bytes, true, carrier->options.memory.huge != 0);
    if (!base) return cbuf__fail_errno(carrier, "mapping", errno);
    carrier->file = CBUF__AS(struct cbuf__file *, base);
    carrier->file_bytes = CBUF__AS(size_t, bytes);
    return cbuf__make_resident(carrier, true, &carrier->options.memory);
}

/* The end of each way of opening: what is open stays so, or all is let go. */
CBUF__SLOW int cbuf__end_opening(cbuf_pool *pool, int error)
{
    if (error) {
        cbuf__release(&pool->carrier);
        pool->file = NULL;
    } else {
        pool->carrier.error[0] = 0;
    }
    return error;
}

static inline int cbuf_pool_attach(
    cbuf_pool *pool, const char *name, const cbuf_pool_attach_options *options)
{
    cbuf__pool_facts facts;
    cbuf__begin_pool(pool);
    int error = cbuf__set_path(&pool->carrier, name ? name : "", 0);
    if (options) pool->any_owner = options->any_owner;
    if (options) pool->carrier.options.memory = options->memory;
    if (error) return error;
    cbuf__guard(&pool->carrier);
    error = cbuf__open_pool(pool, &facts);
    if (!error)
        error = cbuf__bind_pool(pool, pool->carrier.file, &facts, options ? options->holder : NULL);
    return cbuf__end_opening(pool, error);
}

/* Only one at a time makes, replaces or removes the pool of a path: who has its .lock, for some
 * microseconds. The lock file goes with the lock. */
CBUF__SLOW int cbuf__lock_name(cbuf_pool *pool)
{
    struct timespec moment = { 0, 1000000 };
    int error = CBUF_EBUSY;
    for (int tries = 0; error == CBUF_EBUSY && tries < 1000; tries++) {
        if (tries) nanosleep(&moment, NULL);
        error = cbuf__lock_producer(&pool->carrier, false);
    }
    return error;
}
CBUF__SLOW void cbuf__unlock_name(cbuf_pool *pool)
{
    if (pool->carrier.lock_fd < 0) return;
    unlink(cbuf__path_of(&pool->carrier, ".lock").text);
    close(pool->carrier.lock_fd);
    pool->carrier.lock_fd = -1;
}

/* Deletes the files of the pool at the handle's path, which must have no living holder, and marks
 * it for those who have opened it and not joined yet: all holders' bytes are locked meanwhile. */
CBUF__SLOW int cbuf__delete_pool(cbuf_pool *pool)
{
    cbuf__pool_facts facts;
    cbuf_pool old;
    cbuf__begin_pool(&old);
    memcpy(old.carrier.path, pool->carrier.path, sizeof old.carrier.path);
    int error = cbuf__open_pool(&old, &facts);
    for (uint32_t k = 0; !error && k < facts.max_holders; k++)
        if (!cbuf__lock_holder(&old, k))
            error = cbuf__fail_with(&old.carrier, CBUF_EINUSE, "a living holder's number", k,
                "the last is ", facts.max_holders - 1);
    if (!error) {
        void *base = old.carrier.file;
        for (uint32_t k = 0; k < facts.regions[CBUF_XXL].count; k++)
            unlink(cbuf__large_path(&old, k, "").text);
        if (unlink(old.carrier.path)) error = cbuf__fail_errno(&old.carrier, "deleting", errno);
        else cbuf__store_release(&CBUF__AS(struct cbuf__pool_file *, base)->state, CBUF__RETIRED);
    }
    if (error) memcpy(pool->carrier.error, old.carrier.error, sizeof old.carrier.error);
    cbuf__release(&old.carrier);
    return error;
}

static inline int cbuf_pool_remove(const char *name)
{
    cbuf_pool pool;
    cbuf__begin_pool(&pool);
    int error = cbuf__set_path(&pool.carrier, name ? name : "", 0);
    if (!error) error = cbuf__lock_name(&pool);
    if (!error) error = cbuf__delete_pool(&pool);
    cbuf__unlock_name(&pool);
    cbuf__release(&pool.carrier);
    return error;
}

CBUF__SLOW int cbuf__make_pool(
    cbuf_pool *pool, const cbuf_pool_options *options, cbuf__pool_facts *facts)
{
    cbuf_ring *carrier = &pool->carrier;
    cbuf__path new_path = cbuf__path_of(carrier, ".new");
    mode_t mode = options->group ? 0660 : 0600;
    int fd = cbuf__new_file(carrier, new_path.text, mode, &facts->file_bytes, UINT64_MAX);
    if (fd < 0) return fd;
    carrier->fd = fd;
    void *base = cbuf__map(fd, facts->file_bytes, true, options->memory.huge != 0);
    if (!base) return unlink(new_path.text), cbuf__fail_errno(carrier, "mapping", errno);
    carrier->file = CBUF__AS(struct cbuf__file *, base);
    carrier->file_bytes = CBUF__AS(size_t, facts->file_bytes);
    cbuf__init_pool(base, facts);
    int error = cbuf__make_resident(carrier, true, &options->memory);
    if (!error) error = cbuf__bind_pool(pool, base, facts, options->holder);
    if (!error) error = cbuf__name_file(carrier, fd, new_path.text, carrier->path);
    if (error) unlink(new_path.text);
    return error;
}

/* Joins the pool that is there if it is the one that the options would make. */
CBUF__SLOW int cbuf__join_pool(
    cbuf_pool *pool, const cbuf_pool_options *options, const cbuf__pool_facts *wanted)
{
    cbuf__pool_facts is;
    int error = cbuf__open_pool(pool, &is);
    if (error) return error;
    if (is.max_holders != wanted->max_holders)
        return cbuf__fail_with(&pool->carrier, CBUF_EMISMATCH, "max_holders", is.max_holders,
            "wanted is ", wanted->max_holders);
    for (uint32_t k = 0; k < CBUF_POOL_CLASSES; k++) {
        const cbuf__pool_region *a = &is.regions[k], *b = &wanted->regions[k];
        if (a->bytes != b->bytes)
            return cbuf__fail_with(&pool->carrier, CBUF_EMISMATCH, "a class's size", a->bytes,
                "wanted is ", b->bytes);
        if (a->count != b->count)
            return cbuf__fail_with(&pool->carrier, CBUF_EMISMATCH, "a class's count", a->count,
                "wanted is ", b->count);
    }
    return cbuf__bind_pool(pool, pool->carrier.file, &is, options->holder);
}

static inline int cbuf_pool_create(cbuf_pool *pool, const cbuf_pool_options *options)
{
    cbuf__pool_facts facts;
    struct stat file;
    cbuf__begin_pool(pool);
    pool->carrier.options.memory = options->memory;
    int error = cbuf__set_path(&pool->carrier, options->name ? options->name : "", 0);
    if (!error && options->existing > CBUF_NEW)
        error = cbuf__fail(&pool->carrier, CBUF_EINVAL, "existing has no such value");
    if (!error) error = cbuf__resolve_pool(pool, options, 4096, &facts);
    if (error) return error;
    cbuf__guard(&pool->carrier);
    error = cbuf__lock_name(pool);
    bool there = !error && !lstat(pool->carrier.path, &file), joins = false;
    if (there && options->existing == CBUF_NEW)
        error = cbuf__fail(&pool->carrier, CBUF_EEXIST, "existing is CBUF_NEW");
    if (there && options->existing == CBUF_REPLACE) error = cbuf__delete_pool(pool);
    if (there && options->existing == CBUF_RESUME) joins = true;
    if (!error) error = joins ? cbuf__join_pool(pool, options, &facts)
                              : cbuf__make_pool(pool, options, &facts);
    cbuf__unlock_name(pool);
    return cbuf__end_opening(pool, error);
}
#endif

/* =========================================================================== [pool-rows] ==== */

/* A PLACE OF THE RING OWNS what its ref columns say, whatever row is in it, published or not. So:
 * before the pen comes to a place read its refs; hand the new row's refs to the ring; write; give
 * the old ones back. Wherever a producer dies, each reference that the ring holds is in a place, or
 * in none: cbuf_pool_ring_open counts the places' anew and gives the others back.
 *
 * MANY PRODUCERS cannot stop for a count when one of them has died. So there is none: a payload is
 * in one row at a time, for which the ring's bit stands in its state, and a word for each slot, its
 * owner, says in whose hands that is. It goes round like this; the bit is set and cleared by who
 * has the word in hand.
 *
 *       owner                                                                            the bit
 *       nobody
 *   H1  taken: by producer h, of its own references; then h claims a row                 gets set
 *   H2  writing: by h, to place p, whose old payloads are dropped by then; then h writes
 *       the row and publishes it
 *   H3  owned: by place p
 *   H4  dropping: by producer k, who has claimed the next row of place p; from H3, or      gets
 *       from H2, as h may not have come to H3 yet                                          cleared
 *       nobody
 *
 * A claimed place is its claimer's, who finds what it owns by the ref columns if its row was
 * published (P1 of [many]: all of it is seen), and by a look at all owners if it was given up. When
 * h dies, whoever has the lock of its entry goes on for it (cbuf__settle): from H1, H4 to nobody,
 * from H2 to H3: the row is published, or will be given up, and owns its payloads either way. h may
 * also be slow, and find at H3 that the payload was dropped, or after H4 that its slot is free and
 * was taken again, which the generation in the word tells: hence the compare-exchanges. At H2 and
 * H4 nobody else may change the word. Nobody waits for another. */
#define CBUF__REF_RINGS (CBUF__DENSE | CBUF__SHARED_TAIL | CBUF__LOCKED | CBUF__MANY)

CBUF__INLINE cbuf_ref cbuf__ref_at(const cbuf_pool_ring *rows, uint64_t place, uint32_t column)
{
    return cbuf__load_relaxed(cbuf__at(rows->ring, place) + rows->words[column]);
}

/* Finds the ref columns. */
CBUF__SLOW int cbuf__find_refs(cbuf_pool_ring *rows)
{
    cbuf_column column;
    cbuf_ring *ring = rows->ring, *errors = &rows->pool->carrier;
    for (uint32_t k = 0; k < ring->options.column_count; k++) {
        int error = cbuf_column_at(ring, k, &column);
        if (error) return error;
        if (column.type != CBUF_REF) continue;
        if (column.offset % 8)
            return cbuf__fail_with(errors, CBUF_ESCHEMA, "a ref column's offset", column.offset,
                "it must be a multiple of ", 8);
        if (rows->columns == CBUF_MAX_REF_COLUMNS)
            return cbuf__fail_with(errors, CBUF_ESCHEMA, "the number of ref columns",
                rows->columns + 1, "the limit is ", CBUF_MAX_REF_COLUMNS);
        rows->words[rows->columns++] = column.offset / 8;
    }
    return rows->columns ? 0 : cbuf__fail(errors, CBUF_ESCHEMA, "the ring has no ref column");
}

/* Counts what the places own, and gives back what the ring holds beyond that. */
CBUF__SLOW void cbuf__recount(cbuf_pool_ring *rows)
{
    cbuf_pool *pool = rows->pool;
    cbuf__keeper *self = &rows->self;
    uint32_t number;
    for (uint64_t place = 0; place < rows->ring->capacity; place++) {
        for (uint32_t c = 0; c < rows->columns; c++) {
            cbuf_ref ref = cbuf__ref_at(rows, place, c);
            const struct cbuf__pool_slot *slot = cbuf__slot_of(pool, ref, &number);
            uint64_t state = slot ? cbuf__load_relaxed(&slot->state) : 0;
            if (state & self->bit && cbuf__generation(state) == cbuf__generation(ref))
                self->held[number] =
                    cbuf__free_state(ref) | (CBUF__AS(uint32_t, self->held[number]) + 1);
        }
    }
    for (uint32_t kind = 0; kind < CBUF_POOL_CLASSES; kind++)
        for (uint32_t i = 0; i < pool->classes[kind].count; i++)
            if (!self->held[pool->classes[kind].first + i])
                cbuf__clear_bit(pool, kind, i, self->bit, 0);
}

/* Gives back what a place owns in a slot, for who has claimed that place. */
CBUF__INLINE void cbuf__drop_owned(
    cbuf_pool_ring *rows, uint32_t kind, uint32_t index, uint64_t place)
{
    cbuf_pool *pool = rows->pool;
    cbuf__word *owner = cbuf__owner_at(rows->self.held, pool->classes[kind].first + index);
    uint64_t was = cbuf__load_acquire(owner);
    if (!cbuf__is_of_place(was, place)) return;
    uint64_t mine = cbuf__owner(was >> 6, CBUF__DROPPING, pool->self.index, 0);
    cbuf__store_release(owner, mine); /* H4: the place is its claimer's */
    cbuf__drop_bit(pool, kind, index, rows->self.bit);
    cbuf__compare_exchange_acq_rel(owner, &mine, 0); /* unless it is used again */
}

/* Whether the row in a place owns a payload as its columns say. */
CBUF__SLOW bool cbuf__row_owns(const cbuf_pool_ring *rows, uint64_t place, cbuf_ref ref)
{
    uint64_t claim = cbuf__claimed(rows->ring), ago = (claim - 1 - place) & rows->ring->mask;
    if (ago >= claim || cbuf__is_aborted(rows->ring, claim - 1 - ago)) return false;
    for (uint32_t c = 0; c < rows->columns; c++)
        if (cbuf__ref_at(rows, place, c) == ref) return true;
    return false;
}
/* Gives back what the ring holds beyond what its places own, while nobody else has it open. What a
 * dead producer had in hand stays there. */
CBUF__SLOW void cbuf__recount_owners(cbuf_pool_ring *rows)
{
    for (uint32_t kind = 0; kind < CBUF_POOL_CLASSES; kind++) {
        cbuf__pool_class *c = &rows->pool->classes[kind];
        for (uint32_t i = 0; i < c->count; i++) {
            cbuf__word *owner = cbuf__owner_at(rows->self.held, c->first + i);
            uint64_t is = cbuf__load_acquire(owner);
            uint64_t state = cbuf__load_relaxed(&cbuf__slot_at(c, i)->state);
            if (is && cbuf__step_of(is) != CBUF__OWNED) continue;
            if (is && cbuf__row_owns(rows, is & 0x3fffffff, cbuf__ref_of(state, kind, i))) continue;
            cbuf__clear_bit(rows->pool, kind, i, rows->self.bit, 0);
            cbuf__store_release(owner, 0);
        }
    }
}

/* Takes part in the entry of a ring of many that other producers have open for refs. */
CBUF__SLOW bool cbuf__share_ring(cbuf_pool_ring *rows, const char *name)
{
    cbuf_pool *pool = rows->pool;
    for (uint32_t k = 0; k < pool->max_holders; k++) {
        const struct cbuf__holder *holder = cbuf__holder_at(pool, k);
        if (pool->mine >> k & 1 || cbuf__kind_of_holder(holder) != CBUF__RING_OF_MANY ||
            !cbuf__has_name(holder, name)) continue;
        if (pool->in_memory && !cbuf__load_acquire(&holder->users)) return false;
        if (!pool->in_memory && (cbuf__lock(pool->carrier.fd, CBUF__SHARED, k, false) ||
                                    cbuf__lock_holder(pool, k))) {
            cbuf__unlock_holder(pool, k);
            return false;
        }
        cbuf__keep(pool, k, &rows->self);
        return true;
    }
    return false;
}
/* Lets a ring be a holder. The caller has the lock of the rings. */
CBUF__SLOW int cbuf__join_ring(cbuf_pool_ring *rows, const char *name)
{
    cbuf_pool *pool = rows->pool;
    bool many = rows->ring->many, alone = !many || !cbuf__share_ring(rows, name);
    uint64_t kind = many ? CBUF__RING_OF_MANY : CBUF__RING;
    int error = alone ? cbuf__join(pool, kind, name, &rows->self) : 0;
    if (error) return error;
    if (!many) cbuf__recount(rows);
    else if (alone) cbuf__recount_owners(rows);
    if (many && pool->in_memory)
        cbuf__fetch_add_acq_rel(&cbuf__holder_at(pool, rows->self.index)->users, 1);
    else if (many) cbuf__lock(pool->carrier.fd, CBUF__SHARED, rows->self.index, false);
    return 0;
}

static inline int cbuf_pool_ring_open(cbuf_pool_ring *rows, cbuf_pool *pool, cbuf_ring *ring)
{
    char name[CBUF_HOLDER_BYTES];
    cbuf__text text = { name, name + sizeof name, false };
    int error = cbuf__pool_usable(pool);
    memset(rows, 0, sizeof *rows);
    if (!error) error = cbuf__usable(ring, ring->row_bytes);
    if (!error && !ring->producer) error = CBUF_EROLE;
    if (error) return error;
    if (ring->file->facts.features & ~CBUF__AS(uint64_t, CBUF__REF_RINGS))
        return cbuf__fail_with(&pool->carrier, CBUF_EFEATURE, "the ring's word of features",
            ring->file->facts.features, "refs are known with ", CBUF__REF_RINGS);
    if (ring->hook || ring->options.on_full == CBUF_SPILL)
        return cbuf__fail(&pool->carrier, CBUF_EFEATURE, "rows in a log can own nothing");
    rows->pool = pool;
    rows->ring = ring;
    error = cbuf__find_refs(rows);
    if (ring->path[0]) cbuf__say(&text, ring->path);
    else cbuf__say_number(&text, "memory ", CBUF__ADDRESS(ring->file));
    if (!error && text.full)
        error = cbuf__fail_with(&pool->carrier, CBUF_EINVAL, "the length of the ring's path",
            strlen(ring->path), "the limit is ", sizeof name - 1);
    if (!error && !cbuf__lock_rings(pool, 1000))
        error = cbuf__fail(&pool->carrier, CBUF_EBUSY, "somebody else is opening a ring");
    else if (!error) {
        error = cbuf__join_ring(rows, name);
        cbuf__unlock_rings(pool);
    }
    if (error) rows->pool = NULL;
    return error;
}

/* Hands the refs of a row's first n columns to the ring, or takes them back; which error stops it,
 * with *done of them handed over. */
CBUF__INLINE int cbuf__hand_row(
    cbuf_pool_ring *rows, const unsigned char *row, uint32_t n, bool back, uint32_t *done)
{
    cbuf__keeper *mine = &rows->pool->self, *rings = &rows->self;
    for (*done = 0; *done < n; ++*done) {
        cbuf_ref ref = cbuf__get(row + 8 * CBUF__AS(size_t, rows->words[*done]));
        int error = ref ? cbuf__hand_over(rows->pool, back ? rings : mine, back ? mine : rings, ref)
                        : 0;
        if (CBUF__UNLIKELY(error)) return error;
    }
    return 0;
}

/* The same for a ring of many producers. */
CBUF__INLINE int cbuf__give_in(cbuf_pool_ring *rows, cbuf_ref ref)
{
    cbuf_pool *pool = rows->pool;
    uint32_t number;
    int error = cbuf__is_held(pool, &pool->self, ref, &number);
    if (CBUF__UNLIKELY(error)) return error;
    cbuf__word *owner = cbuf__owner_at(rows->self.held, number);
    uint64_t was = cbuf__load_acquire(owner);
    do {
        if (was && cbuf__speaks_of(was, ref)) return CBUF_EINUSE;
    } while (!cbuf__compare_exchange_acq_rel(
        owner, &was, cbuf__owner(ref, CBUF__TAKEN, pool->self.index, 0))); /* H1 */
    bool last = !CBUF__AS(uint32_t, --pool->self.held[number]);
    cbuf__fetch_add_acq_rel(&cbuf__slot_of(pool, ref, &number)->state,
        rows->self.bit - (last ? pool->self.bit : 0));
    return 0;
}
CBUF__SLOW void cbuf__take_out(cbuf_pool_ring *rows, cbuf_ref ref)
{
    cbuf__keeper *self = &rows->pool->self;
    uint32_t number;
    struct cbuf__pool_slot *slot = cbuf__slot_of(rows->pool, ref, &number);
    if (!slot) return;
    bool first = !CBUF__AS(uint32_t, self->held[number]);
    self->held[number] = first ? cbuf__free_state(ref) | 1 : self->held[number] + 1;
    cbuf__fetch_add_acq_rel(&slot->state, (first ? self->bit : 0) - rows->self.bit);
    cbuf__store_release(cbuf__owner_at(rows->self.held, number), 0);
}

/* Gives back what the row a lap before the claimed one owns. */
CBUF__INLINE void cbuf__drop_row(cbuf_pool_ring *rows, uint64_t sequence)
{
    const cbuf_ring *ring = rows->ring;
    uint64_t place = sequence & ring->mask;
    uint32_t number;
    if (sequence < ring->capacity) return;
    if (CBUF__LIKELY(!cbuf__is_aborted(ring, sequence - ring->capacity))) { /* [many]'s P1 */
        for (uint32_t c = 0; c < rows->columns; c++) {
            cbuf_ref ref = cbuf__ref_at(rows, place, c);
            if (cbuf__slot_of(rows->pool, ref, &number))
                cbuf__drop_owned(rows, cbuf__ref_kind(ref), cbuf__ref_index(ref), place);
        }
        return;
    }
    for (uint32_t kind = 0; kind < CBUF_POOL_CLASSES; kind++)
        for (uint32_t i = 0; i < rows->pool->classes[kind].count; i++)
            cbuf__drop_owned(rows, kind, i, place);
}

/* Says of a row's refs, in this producer's hands, that they are being written to a place; or that
 * they are the place's: unless whoever overwrites the row has taken them already. */
CBUF__INLINE void cbuf__place_refs(
    cbuf_pool_ring *rows, const cbuf_ref *refs, uint64_t place, const bool written)
{
    uint32_t number;
    for (uint32_t c = 0; c < rows->columns; c++) {
        if (!refs[c] || !cbuf__slot_of(rows->pool, refs[c], &number)) continue;
        cbuf__word *owner = cbuf__owner_at(rows->self.held, number);
        uint64_t writing = cbuf__owner(refs[c], CBUF__WRITING, rows->pool->self.index, place);
        uint64_t owned = cbuf__owner(refs[c], CBUF__OWNED, 0, place);
        if (!written) cbuf__store_release(owner, writing); /* H2 */
        else cbuf__compare_exchange_acq_rel(owner, &writing, owned); /* H3 */
    }
}

CBUF__SLOW int cbuf__write_among_many(cbuf_pool_ring *rows, const unsigned char *row)
{
    cbuf_ring *ring = rows->ring;
    cbuf_ref refs[CBUF_MAX_REF_COLUMNS];
    uint32_t done = 0;
    int64_t result = cbuf__usable(ring, ring->row_bytes);
    while (!result && done < rows->columns) {
        cbuf_ref ref = cbuf__get(row + 8 * CBUF__AS(size_t, rows->words[done]));
        if (ref) result = cbuf__give_in(rows, ref);
        if (!result) refs[done++] = ref;
    }
    if (CBUF__LIKELY(!result)) result = cbuf__claim_many(ring, 1);
    if (CBUF__UNLIKELY(result <= 0)) {
        while (done--)
            if (refs[done]) cbuf__take_out(rows, refs[done]);
        return CBUF__AS(int, result);
    }
    uint64_t sequence = ring->next, place = sequence & ring->mask;
    cbuf__drop_row(rows, sequence);
    cbuf__place_refs(rows, refs, place, false); /* H2 */
    cbuf__put_rows(ring, sequence, row, 1, ring->row_bytes);
    ring->claimed = 0;
    cbuf__lift_pen(ring, sequence + 1);
    cbuf__place_refs(rows, refs, place, true); /* H3 */
    for (uint32_t c = 0; c < rows->columns; c++) cbuf__forget_large(rows->pool, refs[c]);
    return 1;
}

static inline int cbuf_pool_write(cbuf_pool_ring *rows, const void *from)
{
    const unsigned char *row = CBUF__AS(const unsigned char *, from);
    cbuf_ref old[CBUF_MAX_REF_COLUMNS];
    uint32_t done, columns = rows->columns;
    int result = rows->pool ? cbuf__pool_usable(rows->pool) : CBUF_ENOTOPEN;
    if (CBUF__UNLIKELY(result)) return result;
    if (CBUF__UNLIKELY(rows->ring->hook)) return CBUF_ELOGGED;
    if (rows->ring->many) return cbuf__write_among_many(rows, row);
    for (uint32_t c = 0; c < columns; c++) old[c] = cbuf__ref_at(rows, rows->ring->next, c);
    result = cbuf__hand_row(rows, row, columns, false, &done);
    if (CBUF__LIKELY(!result)) result = cbuf_write(rows->ring, row);
    if (CBUF__UNLIKELY(result <= 0)) {
        cbuf__hand_row(rows, row, done, true, &done);
        return result;
    }
    for (uint32_t c = 0; c < columns; c++) {
        if (old[c]) cbuf__give_back(rows->pool, &rows->self, old[c]);
        cbuf__forget_large(rows->pool, cbuf__get(row + 8 * CBUF__AS(size_t, rows->words[c])));
    }
    return result;
}

static inline int cbuf_pool_read(cbuf_pool *pool, cbuf_reader *reader, void *to, size_t offset)
{
    const cbuf_ring *ring = reader->ring;
    unsigned char *row = CBUF__AS(unsigned char *, to);
    const void *place;
    int error = cbuf__pool_usable(pool);
    if (CBUF__UNLIKELY(error)) return error;
    if (offset > ring->row_bytes || ring->row_bytes - offset < sizeof(cbuf_ref)) return CBUF_EINVAL;
    for (;;) {
        int64_t n = cbuf_peek(reader, 1, &place);
        if (n <= 0) return CBUF__AS(int, n);
        cbuf__take(ring, reader->cursor, row, ring->row_bytes);
        cbuf_ref ref = cbuf__get(row + offset);
        bool valid = cbuf_still_valid(reader);
        bool holds = valid && ref && cbuf_pool_retain(pool, ref) == 0;
        if (!valid) continue; /* lapped, which the next peek counts */
        if (!holds) memset(row + offset, 0, sizeof ref);
        cbuf_advance(reader, 1);
        return 1;
    }
}

static inline void cbuf_pool_ring_close(cbuf_pool_ring *rows)
{
    cbuf_pool *pool = rows->pool;
    rows->pool = NULL;
    if (!pool || cbuf__pool_usable(pool)) return;
    if (pool->in_memory && rows->ring->many)
        cbuf__fetch_add_acq_rel(&cbuf__holder_at(pool, rows->self.index)->users, UINT64_MAX);
    cbuf__unlock_holder(pool, rows->self.index);
    pool->mine &= ~(1u << rows->self.index);
}
static inline int64_t cbuf_pool_ring_drop(cbuf_pool_ring *rows)
{
    cbuf_pool *pool = rows->pool;
    int64_t result = pool ? cbuf__pool_usable(pool) : CBUF_ENOTOPEN;
    if (!result && !cbuf__lock_rings(pool, 1000)) result = CBUF_EBUSY;
    if (result) return result;
    bool alone = pool->in_memory
        ? cbuf__load_acquire(&cbuf__holder_at(pool, rows->self.index)->users) <= 1
        : cbuf__lock_holder(pool, rows->self.index);
    if (alone) result = cbuf__pool_leave(pool, rows->self.index);
    if (alone) rows->pool = NULL;
    cbuf__unlock_rings(pool);
    return alone ? result : CBUF__AS(int64_t, CBUF_EINUSE);
}

/* ======================================================================== [pool-observe] ==== */

static inline int cbuf_pool_stats_get(
    const cbuf_pool *pool, enum cbuf_pool_class kind, cbuf_pool_stats *stats)
{
    int error = cbuf__pool_usable(pool);
    memset(stats, 0, sizeof *stats);
    if (!error && CBUF__AS(uint32_t, kind) >= CBUF_POOL_CLASSES) error = CBUF_EINVAL;
    if (error) return error;
    const cbuf__pool_class *c = &pool->classes[kind];
    stats->bytes = c->bytes;
    stats->count = c->count;
    for (uint32_t i = 0; i < c->count; i++)
        stats->held += CBUF__AS(uint32_t, cbuf__load_relaxed(&cbuf__slot_at(c, i)->state)) != 0;
    stats->free = stats->count - stats->held;
    return 0;
}

static inline cbuf_ref cbuf_pool_next_held(
    const cbuf_pool *pool, cbuf_ref after, uint32_t *holders)
{
    uint32_t kind = after ? cbuf__ref_kind(after) : 0;
    uint32_t index = after ? cbuf__ref_index(after) + 1 : 0;
    *holders = 0;
    if (cbuf__pool_usable(pool)) return 0;
    for (; kind < CBUF_POOL_CLASSES; kind++, index = 0) {
        for (; index < pool->classes[kind].count; index++) {
            uint64_t state = cbuf__load_relaxed(&cbuf__slot_at(&pool->classes[kind], index)->state);
            *holders = CBUF__AS(uint32_t, state) & CBUF__HOLDERS;
            if (*holders) return cbuf__ref_of(state, kind, index);
        }
    }
    return 0;
}

static inline int cbuf_pool_holder_get(
    const cbuf_pool *pool, uint32_t index, cbuf_pool_holder *info)
{
    uint32_t holders, number;
    int error = cbuf__pool_usable(pool);
    memset(info, 0, sizeof *info);
    if (!error && index >= CBUF_MAX_HOLDERS) error = CBUF_EINVAL;
    if (error) return error;
    if (index >= pool->max_holders) return 0;
    const struct cbuf__holder *holder = cbuf__holder_at(pool, index);
    uint64_t kind = cbuf__kind_of_holder(holder);
    if (!kind) return 0;
    cbuf__name_of(holder, info->name);
    info->pid = CBUF__AS(uint32_t, cbuf__load_relaxed(&holder->pid));
    info->started_ns = CBUF__AS(int64_t, cbuf__load_relaxed(&holder->started_ns));
    info->ring = kind >= CBUF__RING;
    info->alive = true;
#ifndef CBUF_NO_OS
    if (!pool->in_memory && !(pool->mine >> index & 1)) {
        struct flock lock = cbuf__flock(CBUF__EXCLUSIVE, index);
        int asked = fcntl(pool->carrier.fd, 36 /* F_OFD_GETLK */, &lock);
        info->alive = !asked && lock.l_type != CBUF__UNLOCK;
    }
#endif
    for (cbuf_ref ref = 0; (ref = cbuf_pool_next_held(pool, ref, &holders)) != 0;) {
        if (!(holders >> index & 1)) continue;
        info->slots++;
        info->bytes += cbuf__load_relaxed(&cbuf__slot_of(pool, ref, &number)->length);
    }
    return 1;
}

#ifdef __cplusplus
}
#endif
#endif /* CBUF_POOL_H */
