/*
 * cbuf.h - typed rows shared between processes: producers, readers, and a file in /dev/shm.
 *
 * Include it anywhere, in any number of translation units, from C11 or C++11 on. Nothing to link.
 *
 *   #include <cbuf.h>
 *   struct tick { int64_t time; double bid, ask; int32_t size; };
 *   static const cbuf_column columns[] = {
 *       CBUF_COLUMN_AS(struct tick, time, CBUF_TIMESTAMP_NS), CBUF_COLUMN(struct tick, bid),
 *       CBUF_COLUMN(struct tick, ask),                        CBUF_COLUMN(struct tick, size) };
 *
 *   cbuf_ring ring;                                                              producer
 *   cbuf_options options = { .name = "ticks", .row_bytes = sizeof(struct tick),
 *                            .columns = columns, .column_count = 4 };
 *   if (cbuf_create(&ring, &options) < 0) die(cbuf_error(&ring));
 *   cbuf_write(&ring, &tick);
 *
 *   cbuf_ring ring; cbuf_reader reader; struct tick ticks[256];                  consumer
 *   if (cbuf_attach(&ring, "ticks", NULL) < 0) die(cbuf_error(&ring));
 *   if (cbuf_reader_open(&reader, &ring, NULL) < 0) die(...);
 *   while (cbuf_wait(&reader, 1, CBUF_FOREVER) > 0)
 *       n = cbuf_read(&reader, ticks, 256);         cbuf_lost(&reader) counts what it missed
 *
 * WHAT IS WHERE
 *
 *   /dev/shm/ticks          written by the producer, mapped read-only by everyone else
 *   +-------+------+---------+-------+-------+--------+-------+-------+-------+-----+------------+
 *   | facts | head | reserve | state | stats | schema | gates | row 0 | row 1 | ... | capacity-1 |
 *   +-------+------+---------+-------+-------+--------+-------+-------+-------+-----+------------+
 *    never   rows   rows <    closed, counts  JSON     who was  |
 *    change  pub-   reserve-  retired                  demoted  +- columns, number   (numbered)
 *            lished capacity                                    +- columns           (dense)
 *                   may be under the pen
 *   /dev/shm/ticks.readers  written by registered readers: a cursor for each, the sleepers' words
 *   /dev/shm/ticks.lock     empty; the producer locks it, and the kernel unlocks it when it dies
 *   ticks.spill, ticks.log  the producer's own (cbuf_log.h): rows that found the ring full, or all
 *
 * GLOSSARY
 *
 *   row       a fixed number of bytes, described by columns; a plain C struct can be the row
 *   sequence  the number of a row since the ring was made, from 0; its place is sequence % capacity
 *   head      how many rows have been published; the next row gets this sequence number
 *   reserve   the producer's mark: it may be writing any row below it, so rows below
 *             reserve - capacity are not to be trusted; it moves by the reserve step
 *   reader    a consumer with its own cursor, the sequence it reads next; observers have none
 *   lapped    said of a reader whose next row was overwritten; what it missed is counted as lost
 *   gate      a reader that the producer does not overwrite (policies block, drop newest, spill)
 *   spill     to keep rows that find the ring full in a file, in their order (cbuf_log.h)
 *   drop      a row refused because the ring was full; counted
 *   demote    to make a gate lossy because its reader stood still too long
 *   claim     to take room for rows, to be filled in place and then published
 *   retired   said of a ring that was removed or replaced while mapped
 *   delta     a column stored as its difference from its block's base; what does not fit, an
 *             escape, stands whole in the escape plane: see [delta]
 *
 * WHAT HOLDS, AND WHAT DOES NOT
 *
 *   - A row is delivered whole or not at all, on every processor that C11 atomics know: the place
 *     of each fence is checked exhaustively, on this file (tests/model). Read + lost = written.
 *   - The producer may die at any instruction. The next one takes the ring over and continues it.
 *   - A reader may die at any instruction. The producer frees its slot when it stands in the way:
 *     the kernel, not a timeout, says that it is dead.
 *   - Under block and drop newest a reader that stops holds the producer up: that is what they are
 *     for. Prefer overwrite, and a long ring, where losing old rows is better than being late.
 *   - Whoever may write .readers can hold the producer up or wake it needlessly, and can never
 *     change a row. The file's owner can truncate it under a reader, who then gets SIGBUS.
 *   - A handle stays where it was opened (no copies, no moves) and does not survive fork(): the
 *     child gets CBUF_EFORKED. A child that lives on without exec keeps its parent's locks alive:
 *     let it close the parent's handles first thing.
 *   - A field of a struct that no column names is not carried.
 *
 * CONFIGURATION, before the first include
 *
 *   CBUF_NO_OS          leave out files, sleeping, clocks and all system calls: rings live in the
 *                       caller's memory, CBUF_BLOCK is a try. Needs mem*, strlen, strcmp, strchr.
 *   CBUF_BULK_COPY      1: batches move by memcpy between the same fences; 0: by relaxed atomic
 *                       words, formally free of data races, about half as fast for large batches.
 *                       Default 1, 0 under sanitizers.
 *   CBUF_MAX_DELTAS     delta columns that a handle has room for, at some 100 bytes each: 32.
 *   CBUF_NO_DELTA       leave cbuf_delta.h out, as if it did not lie beside this file.
 *   CBUF_ACCESS_HEADER  a header that supplies the functions of section [access]; for tests.
 *
 * SECTIONS  [api] [access] [format] [rows] [publish] [gates] [many] [write] [read] [observe]
 *           [text] [delta] [schema] [memory-ring] [resident] [files] [wait]
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_H
#define CBUF_H

#if !defined _DEFAULT_SOURCE && !defined _GNU_SOURCE
#define _DEFAULT_SOURCE 1 /* what -std=c11 hides: mmap, syscall, clock_gettime ... */
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifndef CBUF_NO_OS
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h> /* rename */
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if !defined MAP_ANONYMOUS || !defined O_NOFOLLOW
#error "cbuf.h: include it before any system header, or use -std=gnu11 or -D_DEFAULT_SOURCE"
#endif
#endif

#if !defined __GCC_ATOMIC_LLONG_LOCK_FREE || __GCC_ATOMIC_LLONG_LOCK_FREE != 2
#error "cbuf.h: no lock-free 64-bit atomics here (a lock private to each process would stand in)"
#endif

#define CBUF_VERSION "1.0.0"

#if !defined CBUF_BULK_COPY && defined __has_feature
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define CBUF_BULK_COPY 0
#endif
#endif
#ifndef CBUF_BULK_COPY
#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__ || defined CBUF_ACCESS_HEADER
#define CBUF_BULK_COPY 0
#else
#define CBUF_BULK_COPY 1
#endif
#endif

#ifdef __cplusplus
#define CBUF__AS(type, value) static_cast<type>(value)
#define CBUF__ADDRESS(pointer) reinterpret_cast<uintptr_t>(pointer)
#define CBUF__STATIC_ASSERT(what, why) static_assert(what, why)
extern "C++" {
#else
#define CBUF__AS(type, value) ((type)(value))
#define CBUF__ADDRESS(pointer) ((uintptr_t)(pointer))
#define CBUF__STATIC_ASSERT(what, why) _Static_assert(what, why)
#endif
#define CBUF__INLINE static inline __attribute__((always_inline))
#define CBUF__SLOW static __attribute__((noinline, unused))
#define CBUF__TYPED static inline __attribute__((always_inline, unused))
#define CBUF__LIKELY(condition) __builtin_expect(!!(condition), 1)
#define CBUF__UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/* ================================================================================= [api] ==== */

/* What calls that fail return, negative; 0 and above are results: "nothing to read" is 0. */
#define CBUF_ERRORS(X)                                                                             \
    X(CBUF_EINVAL, -1, "an argument or option is out of range")                                    \
    X(CBUF_ENOENT, -2, "there is no such ring or pool")                                            \
    X(CBUF_EEXIST, -3, "a ring or pool of that name exists")                                       \
    X(CBUF_EACCES, -4, "not permitted, or not owned by the expected user")                         \
    X(CBUF_EBUSY, -5, "another producer has the ring")                                             \
    X(CBUF_EFORMAT, -6, "not what it should be, or damaged")                                       \
    X(CBUF_EVERSION, -7, "written in a newer format than this program knows")                      \
    X(CBUF_EFEATURE, -8, "uses a feature that this program does not know")                         \
    X(CBUF_EBYTEORDER, -9, "written on a machine with the other byte order")                       \
    X(CBUF_ESCHEMA, -10, "the schema is not valid")                                                \
    X(CBUF_EMISMATCH, -11, "the existing one has another schema, size or option")                  \
    X(CBUF_ENOSPACE, -12, "no space left")                                                         \
    X(CBUF_EMEMORY, -13, "a required memory property was not obtained")                            \
    X(CBUF_ETIMEDOUT, -14, "the time is over, and nothing was written")                            \
    X(CBUF_ERETIRED, -15, "it was removed or replaced; attach again")                              \
    X(CBUF_ECLOSED, -16, "the producer closed the ring, and everything in it was read")            \
    X(CBUF_EFORKED, -17, "this handle belongs to the parent process")                              \
    X(CBUF_EROLE, -18, "only the producer may do that")                                            \
    X(CBUF_EROWSIZE, -19, "the row size differs from the ring's")                                  \
    X(CBUF_ELAYOUT, -20, "rows carry their number in the struct's padding: use in_place")          \
    X(CBUF_ESLOTS, -21, "all slots for readers, producers or holders are taken")                   \
    X(CBUF_ENOTOPEN, -22, "the handle is not open")                                                \
    X(CBUF_ESYSTEM, -23, "a system call failed")                                                   \
    X(CBUF_ENOSPILL, -24, "the ring is full, or has spilled, and no log is open: cbuf_log_open")   \
    X(CBUF_ELOGGED, -25, "rows of a ring with a log are written by copy, not claimed")             \
    X(CBUF_EDELTA, -26, "rows with delta columns are written and read by copying only")            \
    X(CBUF_ESTALE, -40, "the payload is gone: all who held it gave it back")                       \
    X(CBUF_ENOTHELD, -41, "not held by this handle; was it given back twice?")                     \
    X(CBUF_EEMPTY, -42, "no slot of the pool is free")                                             \
    X(CBUF_EINUSE, -43, "others use it")
#define CBUF__ENUMERATE(name, value, text) name = value,
enum cbuf_error_code { CBUF_ERRORS(CBUF__ENUMERATE) CBUF_OK = 0 };
#undef CBUF__ENUMERATE
static inline const char *cbuf_strerror(int64_t code); /* "no error" for 0 and above */

/* A column type is a kind and a size in bytes. Named in the schema int8..int64, uint8..uint64,
 * float32, float64, bool, timestamp[ns] (int64 since 1970 UTC), S<n> (n bytes of text), ref (a
 * payload in a pool, see cbuf_pool.h). */
#define CBUF__KIND(kind) ((kind) << 24)
enum cbuf_type {
    CBUF_INT8 = CBUF__KIND(1) | 1,
    CBUF_INT16 = CBUF__KIND(1) | 2,
    CBUF_INT32 = CBUF__KIND(1) | 4,
    CBUF_INT64 = CBUF__KIND(1) | 8,
    CBUF_UINT8 = CBUF__KIND(2) | 1,
    CBUF_UINT16 = CBUF__KIND(2) | 2,
    CBUF_UINT32 = CBUF__KIND(2) | 4,
    CBUF_UINT64 = CBUF__KIND(2) | 8,
    CBUF_FLOAT32 = CBUF__KIND(3) | 4,
    CBUF_FLOAT64 = CBUF__KIND(3) | 8,
    CBUF_BOOL = CBUF__KIND(4) | 1,
    CBUF_TIMESTAMP_NS = CBUF__KIND(5) | 8,
    CBUF_REF = CBUF__KIND(7) | 8
};
#define CBUF_BYTES(n) (CBUF__KIND(6) | (n))
#define CBUF_TYPE_BYTES(type) ((type) & 0xffffffu) /* the size of a value of that type */

#define CBUF_NAME_BYTES 48 /* of a column's or a reader's name, with its final NUL */
#define CBUF_MAX_COLUMNS 512
#define CBUF_MAX_READERS 1024
#define CBUF_MAX_PRODUCERS 256
#define CBUF_MAX_ROW_BYTES (1u << 20)
#define CBUF_MAX_CAPACITY (1ull << 31)
#define CBUF_MAX_SCHEMA_BYTES 65536u
#define CBUF_FOREVER (-1)

typedef struct cbuf_column {
    char name[CBUF_NAME_BYTES]; /* printable ASCII, no quote or backslash; unique in its ring */
    uint32_t type;              /* enum cbuf_type or CBUF_BYTES(n) */
    uint32_t offset;            /* in the row; columns may not overlap */
} cbuf_column;

/* A column from a field of a struct: its name, offset and type; a char array becomes bytes. The
 * second form says the type, of the field's size (an int64_t is a CBUF_TIMESTAMP_NS). */
#define CBUF_COLUMN(row, field)                                                                    \
    CBUF__COLUMN(row, field, CBUF__KIND_OF(row, field) | sizeof(CBUF__FIELD(row, field)))
#define CBUF_COLUMN_AS(row, field, type)                                                           \
    CBUF__COLUMN(row, field, (type) + 0 * sizeof(char[CBUF_TYPE_BYTES(type) ==                     \
                                            sizeof(CBUF__FIELD(row, field)) ? 1 : -1]))
#define CBUF__COLUMN(row, field, type)                                                             \
    { #field, CBUF__AS(uint32_t, type), CBUF__AS(uint32_t, offsetof(row, field)) }

/* A column that is stored in fewer bits, losslessly whatever its values: see [delta]. cbuf_advise.h
 * proposes some from a sample of rows. */
typedef struct cbuf_delta {
    char name[CBUF_NAME_BYTES]; /* the column's: of integers, timestamps or floats */
    uint32_t bits;              /* 8, 16 or 32, and not more than the column's own */
    double step;                /* of floats: a decimal, such as 0.01; integers: 0 */
} cbuf_delta;

/* ---- options: zero is the default everywhere ---- */

enum cbuf_layout {
    CBUF_NUMBERED = 0, /* each row carries its number, and a reader at the live edge touches one
                          cache line: best row by row */
    CBUF_DENSE = 1     /* rows exactly as the columns say, a plain matrix: best for batches */
};
enum cbuf_on_full {
    CBUF_OVERWRITE = 0,
    CBUF_BLOCK = 1,
    CBUF_DROP_NEWEST = 2,
    CBUF_SPILL = 3 /* to the file of a cbuf_log; CBUF_ENOSPILL while there is none */
};
enum cbuf_existing {
    CBUF_RESUME = 0,  /* continue a ring of the same make; otherwise CBUF_EMISMATCH */
    CBUF_REPLACE = 1, /* retire what is there and make a new one */
    CBUF_NEW = 2      /* CBUF_EEXIST if there is one */
};
enum cbuf_request { CBUF_WANT = 1, CBUF_REQUIRE = 2 }; /* want: try, and report; require: or fail */

typedef struct cbuf_memory_options {
    uint8_t lock;       /* enum cbuf_request: keep the ring in RAM */
    uint8_t huge;       /* 2 MiB pages (a file on a hugetlbfs mount has them anyway) */
    uint8_t populate;   /* take the page faults now */
    uint8_t numa;       /* put it on node `numa_node` */
    uint32_t numa_node;
} cbuf_memory_options;

typedef struct cbuf_options {
    const char *name;           /* "ticks": /dev/shm/ticks; or an absolute path;
                                   NULL: /dev/shm/cbuf_<pid>_<n> */
    uint64_t capacity;          /* rows, rounded up to a power of two, 2 to 2^31; 0: 65,536 */
    const cbuf_column *columns; /* in any order; used during the call only */
    uint32_t column_count;      /* 1 to CBUF_MAX_COLUMNS */
    uint32_t row_bytes;         /* sizeof(struct row), to 2^20; 0: where the last column ends */
    uint32_t reserve_step;      /* 1 to capacity / 2 rows; 0: capacity / 16, at most 1,024 */
    uint32_t max_readers;       /* 1 to CBUF_MAX_READERS; 0: 64 */
    uint32_t producers;         /* how many at a time, to CBUF_MAX_PRODUCERS, each with a handle of
                                   its own; 0: one; more need the numbered layout, no delta, not
                                   `locked`, and a capacity of at most 2^30 */
    uint8_t layout;             /* enum cbuf_layout */
    uint8_t on_full;            /* enum cbuf_on_full */
    uint8_t existing;           /* enum cbuf_existing */
    bool in_place;              /* numbers outside the struct, so that cbuf_claim works */
    bool pad_rows;              /* to 8, 16, 32 or 64 bytes: no such row straddles a cache line */
    bool locked;                /* writers and readers exclude each other by file locks: slow */
    bool group_read;            /* file mode 0640; 0600 without */
    bool group_register;        /* and .readers 0660: the group's readers may register, and gate */
    int64_t block_ns;           /* how long CBUF_BLOCK waits for room, and one of many producers
                                   for another who is in the middle; 0: without limit */
    int64_t demote_ns;          /* a gate in the way that has not moved for so long turns lossy;
                                   0: never */
    const cbuf_delta *deltas;   /* columns to be stored in fewer bits; used during the call only */
    uint32_t delta_count;       /* 0 to CBUF_MAX_DELTAS; with some, rows are 4,096 bytes at most */
    uint32_t block_rows;        /* rows with a common base, 1 to capacity / 2, rounded up to a power
                                   of two; 0: 64, at most capacity / 2 */
    cbuf_memory_options memory;
} cbuf_options;

typedef struct cbuf_attach_options {
    bool observer;              /* map the rows only: needs no permission but to read them */
    bool any_owner;             /* accept a file that is neither this user's nor root's */
    cbuf_memory_options memory; /* for this process's mapping */
} cbuf_attach_options;

enum cbuf_start { CBUF_OLDEST = 0, CBUF_NEWEST = 1, CBUF_AT = 2 };
enum cbuf_wait_mode { CBUF_SLEEP = 0, CBUF_SPIN = 1, CBUF_YIELD = 2 };

typedef struct cbuf_reader_options {
    const char *name;  /* for the monitors; NULL: "reader" */
    uint8_t start;     /* enum cbuf_start: oldest row, next row to be written, or `sequence` */
    uint8_t wait;      /* enum cbuf_wait_mode, of cbuf_wait */
    bool anonymous;    /* take no slot: never a gate, not seen; needs read permission only */
    bool lossy;        /* registered, but never a gate */
    uint64_t sequence; /* with CBUF_AT; at most 2^31 - 1 rows ahead of head */
    uint32_t prefetch; /* rows fetched ahead while it lags, to 1,024; 0: some KiB; 1: none */
    uint32_t spins;    /* polls before sleeping or yielding; 0: 1,000 */
} cbuf_reader_options;

/* ---- handles: the caller's memory, private contents ---- */

typedef uint64_t cbuf__word __attribute__((aligned(8), may_alias));
typedef uint32_t cbuf__half __attribute__((may_alias));
struct cbuf__file;
struct cbuf__readers;
struct cbuf__slot;
struct cbuf__pen;

struct cbuf_hook { /* what takes the producer's rows in the ring's place; see cbuf_log.h */
    int64_t (*take)(void *self, const void *rows, uint64_t n);
    void (*end)(void *self);
    void *self;
};

#ifndef CBUF_MAX_DELTAS
#define CBUF_MAX_DELTAS 32
#endif
typedef struct cbuf__packed { /* a delta column, see [delta] */
    uint32_t index, offset, stored, bytes, bits; /* column; places and sizes, plain and stored */
    uint32_t kind, real;                         /* real: a float, */
    double multiple, divisor, inverse;           /* as a whole number times this, by that */
    uint64_t base;                               /* of the block under the producer's pen */
} cbuf__packed;
typedef struct cbuf__run { /* columns without a gap or a delta column between, copied as they are */
    uint32_t offset, stored, bytes;
} cbuf__run;
typedef struct cbuf__codec { /* how a ring with delta columns stores its rows */
    uint32_t deltas, runs, stored_bytes, block_bits, chunk; /* chunk: rows done at a time */
    cbuf__packed delta[CBUF_MAX_DELTAS];
    cbuf__run run[2 * CBUF_MAX_DELTAS];
    cbuf__word *escapes, *pages, *bases, *plane;
    uint64_t joint; /* the word in which the producer's next row begins */
} cbuf__codec;

struct cbuf__local {      /* words of this process alone; a fork() clears them in the child */
    cbuf__word row_bytes; /* the ring's row size; 0 in the locked mode and with delta columns */
    cbuf__word plain;     /* the same for rows whose words are those of the struct, else 0, */
    cbuf__word other;     /* the same for all other rows, else 0; both 0 while there is a hook */
    cbuf__word always, never;
};

typedef struct cbuf_ring {
    unsigned char *rows;
    uint64_t capacity, mask, blocks; /* blocks: what `reserve` is cut to, a mask */
    uint32_t row_bytes, stride, last; /* last: index of the row's last word */
    bool delta, dense, shared_tail, producer, locked, gated, many, lock_is_new, joins;
    struct cbuf__local *local;
    struct cbuf__file *file;
    struct cbuf__readers *readers;
    cbuf__word *gates;
    struct cbuf__pen *pens;
    const char *schema;
    size_t schema_bytes;
    const cbuf__word *wake_at; /* publish up to here without a thought of sleepers */
    uint32_t time_offset;
    int fd, readers_fd, lock_fd;
    struct cbuf_hook *hook;
    unsigned char apart[128]; /* the producer changes what follows at each write: other lines */
    uint64_t next, reserved, limit, claimed; /* its head and reserve; the gates' end; the claim */
    struct cbuf__pen *pen;                   /* of many producers: this one's slot; */
    uint32_t contention;                     /* up to 320 if its claims often fail */
    uint32_t slowest;                        /* the slot that holds it up, */
    uint64_t stuck_cursor;                   /* where its reader stands, */
    int64_t stuck_since_ns, minded_ns;       /* since when, and when that was looked at */
    int64_t swept_ns;                        /* when it last looked for dead producers */
    size_t file_bytes, readers_bytes;
    uint64_t ring_id;
    cbuf_options options; /* as resolved; no name, no columns */
    int memory_errno[4];  /* numa, populate, huge, lock */
    struct cbuf__local in_handle;
    char path[256], error[320];
    cbuf__codec codec;
} cbuf_ring;

typedef struct cbuf_reader {
    const cbuf_ring *ring;
    uint64_t cursor, published, first, lost, skipped, peeked, stamp_at, ahead;
    cbuf__word *shared_cursor;
    const cbuf__word *room_at; /* read up to here without a thought of the producer */
    struct cbuf__slot *slot;
    uint32_t index, spins;
    uint8_t wait;
    int fd;
    int64_t mended_ns; /* when it last looked for dead producers */
    cbuf__word unused;
} cbuf_reader;

/* ---- a ring ---- */

#ifndef CBUF_NO_OS
/* Makes a ring, or continues an existing one, and becomes its producer: one at a time, in one
 * thread at a time. 0 or an error, among them CBUF_EBUSY while another producer lives,
 * CBUF_EMISMATCH if the ring there is of another make, CBUF_ENOSPACE if the file system is full.
 * After an error nothing is left behind, and cbuf_error tells the file, the value and the limit. */
static inline int cbuf_create(cbuf_ring *ring, const cbuf_options *options);

/* Opens a ring to read, by the name or path it was made with. Several threads may read through one
 * handle, each with a cbuf_reader of its own. `options` may be NULL. What the file says is checked
 * before it is used. */
static inline int cbuf_attach(
    cbuf_ring *ring, const char *name, const cbuf_attach_options *options);

/* Removes a ring: marks it retired for all who have it mapped, then deletes its files. CBUF_EBUSY
 * while its producer lives, CBUF_EFORMAT if the file is not a ring. */
static inline int cbuf_remove(const char *name);
#endif

/* The bytes that cbuf_create_in needs for these options, or an error. */
static inline int64_t cbuf_memory_needed(const cbuf_options *options);
/* Makes a ring in the caller's memory (8-byte aligned, better 128), for threads, or for processors
 * that share it. No file, no allocation, no system call; `name`, modes, `existing` and `memory` do
 * not apply, `locked` is refused, and dead readers are not noticed. */
static inline int cbuf_create_in(
    cbuf_ring *ring, void *memory, size_t bytes, const cbuf_options *options);
/* Opens a ring that another program or processor made in this memory. */
static inline int cbuf_attach_in(cbuf_ring *ring, void *memory, size_t bytes);
/* Becomes one more producer of a ring that was made there for several; not while the last of the
 * others closes it. CBUF_ESLOTS if there are as many as it was made for. */
static inline int cbuf_join_in(cbuf_ring *ring, void *memory, size_t bytes);

/* Ends the use of a handle, also one that is all zero or failed to open, and of its log; close its
 * readers first. A producer's close tells them that no more will come; the ring stays, for the next
 * producer. */
static inline void cbuf_close(cbuf_ring *ring);

static inline const char *cbuf_path(const cbuf_ring *ring);  /* "" for a ring in memory */
static inline const char *cbuf_error(const cbuf_ring *ring); /* why create or attach failed */
/* The options in force, defaults put in; without columns and name. */
static inline const cbuf_options *cbuf_resolved(const cbuf_ring *ring);

/* The schema: JSON text of *bytes bytes inside the ring. */
static inline const char *cbuf_schema(const cbuf_ring *ring, size_t *bytes);
/* Column `index` in the order of the offsets, or the column of that name. 0, or CBUF_EINVAL. */
static inline int cbuf_column_at(const cbuf_ring *ring, uint32_t index, cbuf_column *column);
static inline int cbuf_column_find(const cbuf_ring *ring, const char *name, cbuf_column *column);

/* ---- writing: the producer's thread only ---- */

/* Writes one row of the ring's row_bytes. 1: written; 0: dropped (CBUF_DROP_NEWEST);
 * CBUF_ETIMEDOUT (CBUF_BLOCK, and any ring of many producers: block_ns); CBUF_ENOSPILL (CBUF_SPILL
 * with no log); CBUF_ENOSPACE: the disk has no room for its escapes. */
static inline int cbuf_write(cbuf_ring *ring, const void *row);
/* Writes n rows that lie one behind the other. Returns how many were: fewer than n if the policy
 * refused the rest; CBUF_ETIMEDOUT or CBUF_ENOSPILL if none could be. */
static inline int64_t cbuf_write_n(cbuf_ring *ring, const void *rows, uint64_t n);

/* Room for up to n rows, to be filled in place, cbuf_stride bytes apart; *granted (may be NULL if
 * n is 1) says for how many: fewer at the ring's end, or for more than a quarter of it. NULL if
 * the policy refuses (*granted is 0), or with an error code in *granted; a ring whose rows carry
 * their number in the struct's padding must be made with in_place (CBUF_ELAYOUT), and one with
 * delta columns has nothing to fill (CBUF_EDELTA). Readers see nothing before cbuf_publish; a
 * second claim replaces the first. */
static inline void *cbuf_claim(cbuf_ring *ring, uint32_t n, int64_t *granted);
/* Publishes the first n rows of the claim and ends it; 0 gives it up. n, or CBUF_EINVAL if fewer
 * were claimed. */
static inline int64_t cbuf_publish(cbuf_ring *ring, uint32_t n);
static inline uint32_t cbuf_stride(const cbuf_ring *ring);

/* ---- reading: one thread per reader ---- */

/* Opens a reader. `options` may be NULL. 0; CBUF_EINVAL; CBUF_ESLOTS; CBUF_ERETIRED; CBUF_EACCES if
 * this process may only observe (say anonymous). Under a gating policy no row from head on is
 * overwritten before it was read, and no older one once the producer has seen the reader. */
static inline int cbuf_reader_open(
    cbuf_reader *reader, const cbuf_ring *ring, const cbuf_reader_options *options);
static inline void cbuf_reader_close(cbuf_reader *reader);

/* Copies up to `max` rows, oldest first, and moves the cursor. Returns how many; 0: nothing new. A
 * lapped reader gets the rows that are still good, and cbuf_lost grows by exactly those that are
 * not. Padding behind a struct's last column may come back as anything. */
static inline int64_t cbuf_read(cbuf_reader *reader, void *rows, uint32_t max);
static inline uint64_t cbuf_first(const cbuf_reader *reader); /* sequence of its first row */
static inline uint64_t cbuf_lost(const cbuf_reader *reader);  /* rows lost since it was opened */
static inline uint64_t cbuf_skipped(const cbuf_reader *reader); /* given up: of many producers,
    one died or published less than it had claimed. Read + lost + skipped = the cursor's way. */
static inline uint64_t cbuf_available(const cbuf_reader *reader); /* published, not read; or lost */

/* Zero copy: points *rows at up to `max` rows in the ring, cbuf_stride bytes apart, and returns how
 * many. Use them, then ask cbuf_still_valid: only a yes says that what was seen was whole. Then
 * cbuf_advance past n of them; a reader that gets a no reads or peeks again instead. */
static inline int64_t cbuf_peek(cbuf_reader *reader, uint32_t max, const void **rows);
static inline bool cbuf_still_valid(const cbuf_reader *reader);
static inline void cbuf_advance(cbuf_reader *reader, uint32_t n);

/* Moves the cursor to a sequence number, at most 2^31 - 1 rows ahead of head; what is skipped does
 * not count as lost. 0, or CBUF_EINVAL. */
static inline int cbuf_seek(cbuf_reader *reader, uint64_t sequence);

#ifndef CBUF_NO_OS
/* Waits until n rows (1 to capacity / 2) can be read, for at most timeout_ns (0: not at all;
 * CBUF_FOREVER), and returns how many can be, up to n; 0: none came in time. CBUF_ECLOSED or
 * CBUF_ERETIRED once all was read and no more will come, CBUF_EFORMAT if the file was cut; a
 * producer that was killed says nothing, ask cbuf_producer_alive. A larger n lets one wake-up
 * serve many rows. Of many producers it may be fewer than n, up to a row that was given up; and
 * twice a second it gives up, for those who were killed, the rows that it waits for, if this
 * process may write the ring. */
static inline int64_t cbuf_wait(cbuf_reader *reader, uint32_t n, int64_t timeout_ns);
/* Waits until the gates leave room for n rows (1 to capacity / 2). 1, at once where there are none
 * (CBUF_OVERWRITE); 0: not in time; or an error, CBUF_EINVAL for one of several producers that has
 * a claim to publish. */
static inline int cbuf_wait_room(cbuf_ring *ring, uint32_t n, int64_t timeout_ns);
#endif

/* ---- observing: any thread or process, at any time ---- */

static inline uint64_t cbuf_head(const cbuf_ring *ring);   /* rows published since it was made */
static inline uint64_t cbuf_oldest(const cbuf_ring *ring); /* the oldest row that can be read */
/* Copies the newest row; *sequence (may be NULL) is its number. 1, or 0 if there is none yet, or,
 * of many producers, none before one that is not finished. */
static inline int cbuf_latest(const cbuf_ring *ring, void *row, uint64_t *sequence);
/* Copies the last n rows as they were at one moment, oldest first; *first (may be NULL) is the
 * number of the first. Returns how many: fewer if there are fewer, or if a fast producer took the
 * oldest of them away meanwhile. */
static inline int64_t cbuf_snapshot(
    const cbuf_ring *ring, void *rows, uint32_t n, uint64_t *first);

#ifndef CBUF_NO_OS
/* Whether a producer has the ring now, by the kernel's word: 1, 0; CBUF_EACCES if the lock file is
 * another user's, CBUF_EINVAL for who does not produce into it if it is in memory. */
static inline int cbuf_producer_alive(const cbuf_ring *ring);
#endif

/* Defines prefix_write, _write_n, _read, _latest and _claim for rows of that type. The compiler
 * then knows the row's size, and one write is a handful of stores. A ring of another row size gives
 * CBUF_EROWSIZE. */
#define CBUF_TYPED(prefix, type)                                                                   \
    CBUF__TYPED int prefix##_write(cbuf_ring *ring_, const type *row_)                             \
    {                                                                                              \
        if (CBUF__LIKELY(cbuf__write_row(ring_, row_, sizeof *row_))) return 1;                    \
        enum { small_ = sizeof(type) <= 256, bytes_ = small_ ? sizeof(type) : 1 };                 \
        cbuf__word copy_[(bytes_ + 7) / 8]; /* what row_ points at may stay in registers */        \
        const void *from_ = small_ ? cbuf__copy_fresh(copy_, row_, bytes_) : row_;                 \
        return cbuf__write_slowly(ring_, from_, sizeof *row_);                                     \
    }                                                                                              \
    CBUF__SLOW int64_t prefix##_write_n(cbuf_ring *ring_, const type *rows_, uint64_t n_)          \
    {                                                                                              \
        return cbuf__write_rows(ring_, rows_, n_, sizeof *rows_);                                  \
    }                                                                                              \
    CBUF__SLOW int64_t prefix##__read_n(cbuf_reader *reader_, type *rows_, uint32_t max_)          \
    {                                                                                              \
        return cbuf__read_rows(reader_, rows_, max_, sizeof *rows_);                               \
    }                                                                                              \
    CBUF__TYPED int64_t prefix##_read(cbuf_reader *reader_, type *rows_, uint32_t max_)            \
    {                                                                                              \
        bool one_ = max_ == 1 && cbuf__read_row(reader_, rows_, sizeof *rows_);                    \
        return one_ ? 1 : prefix##__read_n(reader_, rows_, max_);                                  \
    }                                                                                              \
    CBUF__TYPED int prefix##_latest(const cbuf_ring *ring_, type *row_, uint64_t *sequence_)       \
    {                                                                                              \
        bool same_ = ring_->row_bytes == sizeof *row_;                                             \
        return same_ ? cbuf_latest(ring_, row_, sequence_) : CBUF_EROWSIZE;                        \
    }                                                                                              \
    CBUF__TYPED type *prefix##_claim(cbuf_ring *ring_)                                             \
    {                                                                                              \
        bool same_ = ring_->row_bytes == sizeof(type);                                             \
        return same_ ? CBUF__AS(type *, cbuf_claim(ring_, 1, NULL)) : NULL;                        \
    }                                                                                              \
    CBUF__STATIC_ASSERT(sizeof(type) <= CBUF_MAX_ROW_BYTES, "the row is too large")

/* The kind of a struct's field, for CBUF_COLUMN. */
#ifdef __cplusplus
#define CBUF__FIELD(row, field) static_cast<row *>(nullptr)->field
#define CBUF__KIND_OF(row, field) cbuf__kind_of(cbuf__type<decltype(CBUF__FIELD(row, field))>())
template <typename T> struct cbuf__type {};
template <typename T> constexpr uint32_t cbuf__kind_of(cbuf__type<T>)
{
    static_assert(T(-1) < T(1) || T(-1) > T(0), "not a column type");
    return T(3) / T(2) != T(1) ? 3u << 24 : T(-1) < T(0) ? 1u << 24 : 2u << 24;
}
constexpr uint32_t cbuf__kind_of(cbuf__type<bool>) { return 4u << 24; }
constexpr uint32_t cbuf__kind_of(cbuf__type<char>) { return 6u << 24; }
template <size_t N> constexpr uint32_t cbuf__kind_of(cbuf__type<char[N]>) { return 6u << 24; }
#else
#define CBUF__FIELD(row, field) (((row *)0)->field)
#define CBUF__KIND_OF(row, field)                                                                  \
    (_Generic(CBUF__FIELD(row, field), bool: 4u, float: 3u, double: 3u, char: 6u, char *: 6u,      \
              signed char: 1u, short: 1u, int: 1u, long: 1u, long long: 1u, unsigned char: 2u,     \
              unsigned short: 2u, unsigned int: 2u, unsigned long: 2u, unsigned long long: 2u)     \
     << 24)
#endif

/* ============================================================================== [access] ==== */

/* Every access to bytes that another thread or process may touch goes through these functions; the
 * order stands in the name. CBUF_ACCESS_HEADER puts others in their place: a model checker, a test
 * that kills or delays at each of them. The compiler's builtins serve C and C++ alike; C's
 * <stdatomic.h> is not there in C++11, and would need casts of row memory to _Atomic types. */
#ifdef CBUF_ACCESS_HEADER
#include CBUF_ACCESS_HEADER
#else
CBUF__INLINE uint64_t cbuf__load_relaxed(const cbuf__word *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}
CBUF__INLINE uint64_t cbuf__load_acquire(const cbuf__word *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
CBUF__INLINE void cbuf__store_relaxed(cbuf__word *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}
CBUF__INLINE void cbuf__store_release(cbuf__word *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
#ifdef __SANITIZE_THREAD__
#define CBUF__TSAN
#elif defined __has_feature
#if __has_feature(thread_sanitizer)
#define CBUF__TSAN
#endif
#endif
CBUF__INLINE void cbuf__store_half_release(cbuf__word *word, uint32_t value) /* the second */
{
#ifdef CBUF__TSAN /* which knows of no release of half a word */
    uint64_t whole = cbuf__load_relaxed(word);
    void *half = &whole;
    CBUF__AS(cbuf__half *, half)[1] = value;
    cbuf__store_release(word, whole);
#else
    void *half = word;
    __atomic_store_n(CBUF__AS(cbuf__half *, half) + 1, value, __ATOMIC_RELEASE);
#endif
}
CBUF__INLINE uint64_t cbuf__exchange_acq_rel(cbuf__word *word, uint64_t value)
{
    return __atomic_exchange_n(word, value, __ATOMIC_ACQ_REL);
}
CBUF__INLINE uint64_t cbuf__fetch_add_acq_rel(cbuf__word *word, uint64_t value)
{
    return __atomic_fetch_add(word, value, __ATOMIC_ACQ_REL);
}
CBUF__INLINE bool cbuf__compare_exchange_acq_rel(
    cbuf__word *word, uint64_t *expected, uint64_t desired)
{
    return __atomic_compare_exchange_n(
        word, expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
CBUF__INLINE void cbuf__fence_compiler(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
#ifdef __SANITIZE_THREAD__ /* gcc's refuses fences; what stands around them is atomic anyway */
CBUF__INLINE void cbuf__fence_acquire(void) { __sync_synchronize(); }
CBUF__INLINE void cbuf__fence_release(void) { __sync_synchronize(); }
CBUF__INLINE void cbuf__fence_seq_cst(void) { __sync_synchronize(); }
#else
CBUF__INLINE void cbuf__fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
CBUF__INLINE void cbuf__fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
CBUF__INLINE void cbuf__fence_seq_cst(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
#endif
CBUF__INLINE void cbuf__pause(void)
{
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("isb");
#else
    cbuf__fence_compiler();
#endif
}
CBUF__INLINE void cbuf__back_off(uint32_t turns)
{
    while (turns--) cbuf__pause();
}
#ifdef CBUF_NO_OS
CBUF__INLINE bool cbuf__barrier_all(void) { return false; }
CBUF__INLINE int cbuf__futex_wait(const cbuf__word *word, uint32_t seen, int64_t ns)
{
    return (void)word, (void)seen, (void)ns, 0;
}
CBUF__INLINE void cbuf__futex_wake(cbuf__word *word) { (void)word; }
#else
/* A full fence in every running thread of every process that joined: membarrier(2). */
CBUF__SLOW bool cbuf__barrier_all(void) { return !syscall(SYS_membarrier, 1 << 1, 0); }
#ifdef SYS_futex_time64
#define CBUF__SYS_FUTEX SYS_futex_time64
#else
#define CBUF__SYS_FUTEX SYS_futex
#endif
/* The futex is the low half of the word. Not private: other processes wait on the same page. */
CBUF__INLINE const uint32_t *cbuf__futex_of(const cbuf__word *word)
{
    const void *half = word;
    return CBUF__AS(const uint32_t *, half) + (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__);
}
/* Sleeps while that half is `seen`, at most ns (negative: without limit). */
CBUF__SLOW int cbuf__futex_wait(const cbuf__word *word, uint32_t seen, int64_t ns)
{
    struct { int64_t seconds, nanoseconds; } limit = { ns / 1000000000, ns % 1000000000 };
    void *until = ns < 0 ? NULL : &limit;
    return CBUF__AS(int, syscall(CBUF__SYS_FUTEX, cbuf__futex_of(word), 0 /* FUTEX_WAIT */, seen,
                             until, NULL, 0));
}
CBUF__SLOW void cbuf__futex_wake(cbuf__word *word)
{
    syscall(CBUF__SYS_FUTEX, cbuf__futex_of(word), 1 /* FUTEX_WAKE */, INT32_MAX, NULL, NULL, 0);
}
#endif
#endif

/* Changes a file's times, which inotify(7) tells its watchers. */
#ifdef CBUF_NO_OS
CBUF__INLINE void cbuf__touch(int fd) { (void)fd; }
#else
CBUF__SLOW void cbuf__touch(int fd) { futimens(fd, NULL); }
#endif

/* ============================================================================== [format] ==== */

/* Version 1.0: all that two processes agree on; the same bytes for every compiler, 32 and 64 bit,
 * C and C++. Where the parts behind the schema lie follows from the facts: see cbuf__place. A newer
 * minor version may say more in the schema, and give a meaning to what is zero today; what an older
 * program must not overlook is a feature bit. */
#define CBUF__MAGIC "cbuf\r\n\032"
#define CBUF__MAGIC_READERS "cbufrdr"
#define CBUF__MAJOR 1
#define CBUF__MINOR 0
#define CBUF__BYTE_ORDER 0x01020304u
#define CBUF__LINE 128 /* two cache lines: processors fetch them in pairs */
#define CBUF__FREE UINT64_MAX

enum { /* feature bits; a program refuses a ring that has one it does not know */
    CBUF__DENSE = 1 << 0,
    CBUF__SHARED_TAIL = 1 << 1, /* the number stands in the last 4 bytes of the struct */
    CBUF__LOCKED = 1 << 2,
    CBUF__DELTA = 1 << 3, /* columns; see [delta] */
    CBUF__MANY = 1 << 4,  /* producers; see [many] */
    CBUF__PACKED = 1 << 5, /* dense rows of delta columns, and the stride is no multiple of 8 */
    CBUF__KNOWN_ALONE = CBUF__DENSE | CBUF__SHARED_TAIL | CBUF__LOCKED | CBUF__MANY
};
enum { CBUF__OPEN = 0, CBUF__CLOSED = 1, CBUF__RETIRED = 2 }; /* `state` */

typedef struct cbuf__facts { /* never change once the file is there */
    char magic[8];
    uint32_t byte_order;
    uint16_t major, minor;
    uint64_t features;
    uint64_t ring_id; /* random; .readers carries it too */
    uint64_t file_bytes, rows_offset, capacity;
    uint64_t readers_offset; /* of the readers' table of a ring in memory; 0: in its own file */
    uint32_t row_bytes, stride, schema_offset, schema_bytes, gates_offset;
    uint32_t max_readers, reserve_step, column_count, on_full;
    uint32_t producers; /* how many at a time; 0: one */
    int64_t created_ns;
    uint32_t delta_count, block_rows; /* of CBUF__DELTA only, as all that follows */
    uint64_t escapes_offset, bases_offset, plane_offset;
} cbuf__facts;

struct cbuf__file { /* written by producers alone */
    cbuf__facts facts;
    unsigned char pad0[256 - sizeof(cbuf__facts)];
    cbuf__word head; /* of many producers nobody stores it: see cbuf__many_head */
    unsigned char pad1[CBUF__LINE - 8];
    cbuf__word reserve;
    unsigned char pad2[CBUF__LINE - 8];
    cbuf__word state, epoch, producer_pid, producer_started_ns;
    cbuf__word wake_fence; /* 1: this producer has no membarrier and fences at each publication */
    unsigned char pad3[CBUF__LINE - 5 * 8];
    cbuf__word dropped, waits, wakes, demotions;
    cbuf__word spill_end; /* rows below it were accepted; above head: the rest is in the log */
    cbuf__word aborted;
    cbuf__word spill_from; /* many producers: rows from here on come from the log, see [many] */
    unsigned char pad4[CBUF__LINE - 7 * 8];
    cbuf__word claim; /* many producers: the next row to be claimed; CBUF__SPILLING or 0 */
    unsigned char pad5[CBUF__LINE - 8];
    cbuf__word pens_high; /* no pen from this one on was ever taken */
    unsigned char pad6[CBUF__LINE - 8];
}; /* then: schema, gates (a word per reader slot), pens (of many producers), rows */

struct cbuf__pen { /* one of many producers' slot: the rows that it may be writing */
    cbuf__word begin; /* CBUF__FREE: none */
    cbuf__word end;
    cbuf__word owned; /* 1: taken */
    cbuf__word pid, started_ns;
    cbuf__word log; /* which log file it has open; 0: none */
    unsigned char pad[CBUF__LINE - 6 * 8];
};

typedef struct cbuf__event { /* see [publish] */
    cbuf__word wanted;       /* wake when the counter gets here; CBUF__FREE: nobody sleeps */
    cbuf__word watchers;     /* descriptors to be woken too, see cbuf_poll.h, */
    cbuf__word watched;      /* or 1 for those who cannot count them */
    unsigned char pad0[CBUF__LINE - 3 * 8];
    cbuf__word count; /* of wake-ups; sleepers sleep until it changes */
    unsigned char pad1[CBUF__LINE - 8];
} cbuf__event;

struct cbuf__slot {    /* a registered reader's, who alone writes it but for `turn`, `granted` */
    cbuf__word cursor; /* CBUF__FREE: not reading */
    cbuf__word lost, active_ns, waits;
    cbuf__word gate;        /* 1: wants to be waited for */
    cbuf__word incarnation; /* how many readers this slot has had */
    cbuf__word owned;       /* 1: taken */
    cbuf__word group;       /* of workers that share rows: see cbuf__free_dead; 0: of none */
    cbuf__word held_end, granted, turn; /* cbuf_group.h explains them */
    unsigned char pad0[CBUF__LINE - 11 * 8];
    cbuf__word pid, started_ns, name[CBUF_NAME_BYTES / 8];
    unsigned char pad1[CBUF__LINE - 2 * 8 - CBUF_NAME_BYTES];
};

struct cbuf__readers {
    char magic[8];
    uint64_t ring_id, max_readers;
    cbuf__word high; /* no slot from this one on was ever taken */
    unsigned char pad[CBUF__LINE - 4 * 8];
    cbuf__event rows, room; /* what readers and the producer wait for */
    struct cbuf__slot slots[1];
};

CBUF__INLINE uint64_t cbuf__round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}
/* The first of least, 2 least, 4 least ... that is not below the value. */
CBUF__INLINE uint64_t cbuf__power_from(uint64_t least, uint64_t value)
{
    while (least < value) least *= 2;
    return least;
}
CBUF__INLINE bool cbuf__has(const cbuf__facts *facts, uint64_t feature)
{
    return (facts->features & feature) != 0;
}
CBUF__INLINE uint64_t cbuf__pens_offset(const cbuf__facts *facts) /* behind the gates */
{
    return cbuf__round_up(facts->gates_offset + 8ull * facts->max_readers, CBUF__LINE);
}
CBUF__INLINE uint64_t cbuf__pens_end(const cbuf__facts *facts)
{
    return cbuf__pens_offset(facts) + 1ull * facts->producers * sizeof(struct cbuf__pen);
}

#define CBUF__FROZEN(what) CBUF__STATIC_ASSERT(what, "the layout of the file is frozen")
CBUF__FROZEN(sizeof(cbuf__facts) == 144 && sizeof(struct cbuf__file) == 1024);
CBUF__FROZEN(offsetof(cbuf__facts, row_bytes) == 64 && offsetof(cbuf__facts, created_ns) == 104);
CBUF__FROZEN(offsetof(struct cbuf__file, head) == 256);
CBUF__FROZEN(offsetof(struct cbuf__file, reserve) == 384);
CBUF__FROZEN(offsetof(struct cbuf__file, state) == 512);
CBUF__FROZEN(offsetof(struct cbuf__file, dropped) == 640);
CBUF__FROZEN(offsetof(struct cbuf__file, claim) == 768 && sizeof(struct cbuf__pen) == 128);
CBUF__FROZEN(sizeof(struct cbuf__slot) == 256 && offsetof(struct cbuf__slot, pid) == 128);
CBUF__FROZEN(offsetof(struct cbuf__slot, group) == 56 && offsetof(struct cbuf__slot, turn) == 80);
CBUF__FROZEN(offsetof(struct cbuf__readers, rows) == 128);
CBUF__FROZEN(offsetof(struct cbuf__readers, slots) == 640);

/* ================================================================================ [rows] ==== */

#define CBUF__LITTLE (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)

CBUF__INLINE size_t cbuf__span(uint64_t rows, uint32_t row_bytes)
{
    return CBUF__AS(size_t, rows) * row_bytes;
}
CBUF__INLINE cbuf__word *cbuf__at(const cbuf_ring *ring, uint64_t sequence)
{
    void *row = ring->rows + cbuf__span(sequence & ring->mask, ring->stride);
    return CBUF__AS(cbuf__word *, row);
}
/* Asks for a line that is to be written: a store to one that another processor has waits for it,
 * and all stores behind it wait too. The builtin asks x86-64 for a line to be read, which is worse
 * than nothing (93 against 230 M rows/s). */
CBUF__INLINE void cbuf__fetch_to_write(const unsigned char *place)
{
#ifdef __x86_64__
    __asm__ volatile("prefetchw %0" : : "m"(*place));
#else
    __builtin_prefetch(place, 1);
#endif
}
/* The row some KiB further on (of most its first line), if it comes before `end`: readers may still
 * be at those behind. Rings of a million rows take 240 instead of 76 M rows/s that are written one
 * by one and read in batches, and 310 instead of 120 in batches both ways. */
CBUF__INLINE void cbuf__fetch_row(
    const cbuf_ring *ring, uint64_t sequence, uint64_t end, uint32_t row_bytes, uint32_t stride)
{
    uint64_t ahead = sequence + (row_bytes < 64 ? 32 : row_bytes < 512 ? 16 : 4);
    if (ahead >= end) return;
    const unsigned char *place = ring->rows + cbuf__span(ahead & ring->mask, stride);
    for (uint32_t line = 0; line < (row_bytes < 512 ? 64 : row_bytes); line += 64)
        cbuf__fetch_to_write(place + line);
}

/* How many of n rows from `sequence` on lie before the ring's end. */
CBUF__INLINE uint64_t cbuf__until_end(const cbuf_ring *ring, uint64_t sequence, uint64_t n)
{
    uint64_t room = ring->capacity - (sequence & ring->mask);
    return n < room ? n : room;
}

/* A row's last word: 4 bytes of columns (or of nothing), then the low half of sequence + 1. */
CBUF__INLINE uint64_t cbuf__seal(uint64_t tail, uint64_t number)
{
    const uint64_t low = UINT32_MAX;
    return CBUF__LITTLE ? (tail & low) | number << 32 : (tail & ~low) | (number & low);
}
CBUF__INLINE uint32_t cbuf__number_of(uint64_t word)
{
    return CBUF__AS(uint32_t, CBUF__LITTLE ? word >> 32 : word);
}

#define CBUF__ABORTED 0x80000000u /* in the number of a row that was given up: see [many] */

/* Whether row `sequence` is still to come to its place, which has the row a lap before or none:
 * `word` is the last one there. */
CBUF__INLINE bool cbuf__awaits(const cbuf_ring *ring, uint64_t sequence, uint64_t word)
{
    uint32_t number = cbuf__number_of(word);
    if (sequence < ring->capacity) return number == 0;
    uint32_t before = CBUF__AS(uint32_t, sequence + 1 - ring->capacity);
    return number == before || (ring->many && number == (before ^ CBUF__ABORTED));
}
CBUF__INLINE bool cbuf__is_pending(const cbuf_ring *ring, uint64_t sequence)
{
    const cbuf__word *last = cbuf__at(ring, sequence) + ring->last;
    return cbuf__awaits(ring, sequence, cbuf__load_acquire(last)); /* P1 <- W2 */
}
CBUF__INLINE bool cbuf__is_aborted(const cbuf_ring *ring, uint64_t sequence)
{
    uint64_t word = cbuf__load_acquire(cbuf__at(ring, sequence) + ring->last); /* R2 <- W2 */
    return cbuf__number_of(word) == (CBUF__AS(uint32_t, sequence + 1) ^ CBUF__ABORTED);
}

/* Whether row `sequence` is in its place. Who sees its number sees its words: R2 <- W2. */
CBUF__INLINE bool cbuf__is_published(const cbuf_ring *ring, uint64_t sequence)
{
    uint64_t word = cbuf__load_acquire(cbuf__at(ring, sequence) + ring->last); /* R2 <- W2 */
    return cbuf__number_of(word) == CBUF__AS(uint32_t, sequence + 1);
}

CBUF__INLINE uint64_t cbuf__get(const unsigned char *from)
{
    uint64_t word;
    memcpy(&word, from, 8);
    return word;
}
CBUF__INLINE void cbuf__word_out(unsigned char *to, const cbuf__word *from)
{
    uint64_t word = cbuf__load_relaxed(from);
    memcpy(to, &word, 8);
}
/* Word by word: also the fast way for a row whose fields were just stored, which a wider copy would
 * have to wait for (170 against 22 M rows/s). Unrolled where the compiler knows the row's size. */
CBUF__INLINE void cbuf__words_in(cbuf__word *to, const unsigned char *from, size_t words)
{
    if (__builtin_constant_p(words) && words <= 16) {
        _Pragma("GCC unroll 16") for (size_t w = 0; w < words; w++)
            cbuf__store_relaxed(to + w, cbuf__get(from + 8 * w));
    } else {
        _Pragma("GCC unroll 8") for (size_t w = 0; w < words; w++)
            cbuf__store_relaxed(to + w, cbuf__get(from + 8 * w));
    }
}
CBUF__INLINE void cbuf__words_out(unsigned char *to, const cbuf__word *from, size_t words)
{
    if (__builtin_constant_p(words) && words <= 16) {
        _Pragma("GCC unroll 16") for (size_t w = 0; w < words; w++)
            cbuf__word_out(to + 8 * w, from + w);
    } else {
        _Pragma("GCC unroll 8") for (size_t w = 0; w < words; w++)
            cbuf__word_out(to + 8 * w, from + w);
    }
}

/* The same for many rows that lie alike on both sides. What memcpy tears, validation finds, as it
 * finds everything else; a call of its own keeps the compiler from knowing anything about it. */
CBUF__SLOW void cbuf__copy(void *to, const void *from, size_t bytes)
{
    cbuf__fence_compiler();
    memcpy(to, from, bytes);
    cbuf__fence_compiler();
}
/* Copies into the ring, a KiB at a time, and asks for what lies 2 KiB further on (a million rows
 * deep, 360 against 197 M rows/s). */
CBUF__SLOW void cbuf__copy_in(void *to, const unsigned char *from, size_t bytes, size_t room)
{
    unsigned char *place = CBUF__AS(unsigned char *, to);
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done < 1024 ? bytes - done : 1024;
        for (size_t line = done + 2048; line < done + 2048 + n && line < room; line += 64)
            cbuf__fetch_to_write(place + line);
        cbuf__copy(place + done, from + done, n);
    }
}
CBUF__INLINE void cbuf__bulk_in(
    const cbuf_ring *ring, uint64_t sequence, const unsigned char *from, size_t bytes)
{
    cbuf__word *to = cbuf__at(ring, sequence);
    uint64_t rows = cbuf__until_end(ring, sequence, ring->reserved - sequence);
    bool large = CBUF_BULK_COPY && bytes > 2048; /* others were just filled */
    if (large) cbuf__copy_in(to, from, bytes, cbuf__span(rows, ring->stride));
    else cbuf__words_in(to, from, bytes / 8);
}
CBUF__INLINE void cbuf__bulk_out(unsigned char *to, const cbuf__word *from, size_t bytes)
{
    if (CBUF_BULK_COPY && bytes >= 256) cbuf__copy(to, from, bytes);
    else cbuf__words_out(to, from, bytes / 8);
}

/* Writes row `sequence` to its place and publishes it with its last word, which is the struct's:
 * its first half, loaded alone, and the number. */
CBUF__INLINE void cbuf__put_plain(
    cbuf__word *to, uint64_t sequence, const unsigned char *row, uint32_t row_bytes)
{
    uint32_t half;
    size_t last = row_bytes / 8 - 1;
    cbuf__words_in(to, row, last);
    memcpy(&half, row + 8 * last, 4);
    uint64_t tail = CBUF__LITTLE ? half : CBUF__AS(uint64_t, half) << 32;
    cbuf__store_release(to + last, cbuf__seal(tail, sequence + 1)); /* W2 */
}
/* Copies a row whose fields were just stored, in parts that are not larger than these, to memory of
 * the caller's own. Its padding may be anything. */
#if defined __GNUC__ && !defined __clang__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
CBUF__INLINE const void *cbuf__copy_fresh(void *copy, const void *from, uint32_t row_bytes)
{
    const char *row = CBUF__AS(const char *, from);
    char *to = CBUF__AS(char *, copy);
    size_t words = (row_bytes - 1) / 8, rest = row_bytes - 8 * words, half = rest < 4 ? rest : 4;
    _Pragma("GCC unroll 32") for (size_t w = 0; w < words; w++)
    {
        memcpy(to + 8 * w, row + 8 * w, 8);
        cbuf__fence_compiler(); /* not two in one */
    }
    memcpy(to + 8 * words, row + 8 * words, half);
    cbuf__fence_compiler();
    memcpy(to + 8 * words + half, row + 8 * words + half, rest - half);
    return copy;
}
#if defined __GNUC__ && !defined __clang__
#pragma GCC diagnostic pop
#endif

/* Writes any other row `sequence` and, in the numbered layout, publishes it. */
CBUF__INLINE void cbuf__put_other(
    const cbuf_ring *ring, uint64_t sequence, const unsigned char *row, uint32_t row_bytes)
{
    cbuf__word *to = cbuf__at(ring, sequence);
    uint64_t tail = 0;
    size_t words = row_bytes / 8, rest = row_bytes % 8;
    cbuf__words_in(to, row, words);
    if (rest) memcpy(&tail, row + 8 * words, rest);
    if (rest && (ring->dense || ring->last > words)) { /* not the word with the number */
        cbuf__store_relaxed(to + words, tail);
        tail = 0;
    }
    if (!ring->dense) cbuf__store_release(to + ring->last, cbuf__seal(tail, sequence + 1)); /* W2 */
}

/* Copies row `sequence` out; nothing is known of its worth before validation. */
CBUF__INLINE void cbuf__take(
    const cbuf_ring *ring, uint64_t sequence, unsigned char *row, uint32_t row_bytes)
{
    const cbuf__word *from = cbuf__at(ring, sequence);
    size_t words = row_bytes / 8, rest = row_bytes % 8;
    cbuf__words_out(row, from, words);
    if (rest) {
        uint64_t tail = cbuf__load_relaxed(from + words);
        memcpy(row + 8 * words, &tail, rest);
    }
}

/* Publishes rows that were filled in place: each gets its number, with `mark` turned round. Their
 * words are not loaded for it: that would wait until the fields just stored are in the cache. */
CBUF__INLINE void cbuf__number_rows(
    const cbuf_ring *ring, uint64_t sequence, uint64_t end, uint32_t mark)
{
    for (; sequence < end; sequence++) {
        uint32_t number = CBUF__AS(uint32_t, sequence + 1) ^ mark;
        cbuf__store_half_release(cbuf__at(ring, sequence) + ring->last, number); /* W2 */
    }
}

CBUF__INLINE void cbuf__put_rows(const cbuf_ring *ring, uint64_t sequence,
    const unsigned char *rows, uint64_t n, uint32_t row_bytes)
{
    if (ring->dense && row_bytes % 8 == 0 && ring->stride == row_bytes && n > 1) {
        uint64_t first = cbuf__until_end(ring, sequence, n);
        size_t bytes = cbuf__span(first, row_bytes), rest = cbuf__span(n - first, row_bytes);
        cbuf__bulk_in(ring, sequence, rows, bytes);
        if (rest) cbuf__bulk_in(ring, sequence + first, rows + bytes, rest);
        return;
    }
    bool near = cbuf__span(ring->capacity, ring->stride) < 128u << 10; /* they stay in a cache */
    uint64_t end = sequence + n, reserved = near ? 0 : ring->many ? end : ring->reserved;
    for (; sequence < end; sequence++, rows += row_bytes) {
        if (row_bytes >= 8 && ring->shared_tail) {
            cbuf__fetch_row(ring, sequence, reserved, row_bytes, row_bytes);
            cbuf__put_plain(cbuf__at(ring, sequence), sequence, rows, row_bytes);
        } else {
            cbuf__fetch_row(ring, sequence, reserved, row_bytes, ring->stride);
            cbuf__put_other(ring, sequence, rows, row_bytes);
        }
    }
}

CBUF__INLINE void cbuf__take_rows(const cbuf_ring *ring, uint64_t sequence, unsigned char *rows,
    uint64_t n, uint32_t row_bytes)
{
    if (row_bytes % 8 == 0 && ring->stride == row_bytes && n > 1) {
        uint64_t first = cbuf__until_end(ring, sequence, n);
        size_t bytes = cbuf__span(first, row_bytes), rest = cbuf__span(n - first, row_bytes);
        cbuf__bulk_out(rows, cbuf__at(ring, sequence), bytes);
        if (rest) cbuf__bulk_out(rows + bytes, cbuf__at(ring, 0), rest);
        return;
    }
    for (uint64_t i = 0; i < n; i++, rows += row_bytes)
        cbuf__take(ring, sequence + i, rows, row_bytes);
}

/* Rows below this may be under the pen when `reserve` is that. */
CBUF__INLINE uint64_t cbuf__oldest_at(const cbuf_ring *ring, uint64_t reserve)
{
    return reserve > ring->capacity ? reserve - ring->capacity : 0;
}

/* After a copy: the oldest of the copied rows that is whole. A torn copy has seen a word written
 * after the fence W1 of its reservation; by the fence here the load sees that reservation too. */
CBUF__INLINE uint64_t cbuf__validate(const cbuf_ring *ring)
{
    cbuf__fence_acquire();                                                  /* R1 <- W1 */
    return cbuf__oldest_at(ring, cbuf__load_relaxed(&ring->file->reserve)); /* R1 <- W1 */
}
CBUF__INLINE bool cbuf__is_whole(const cbuf_ring *ring, uint64_t sequence) /* the same, for one */
{
    cbuf__fence_acquire();                                                        /* R1 */
    return cbuf__load_relaxed(&ring->file->reserve) <= sequence + ring->capacity; /* R1 <- W1 */
}

/* Of rows with delta columns, see [delta]: puts n into the ring from `next` on and returns how many
 * the disk had room for; copies n out and returns the first of them that is good. */
enum { CBUF__BUFFER = 8192 }; /* bytes of stored rows at a time */
CBUF__SLOW uint64_t cbuf__put_deltas(cbuf_ring *ring, const unsigned char *rows, uint64_t n);
CBUF__SLOW uint64_t cbuf__take_deltas(
    const cbuf_ring *ring, uint64_t first, unsigned char *rows, uint64_t n);

/* ============================================================================= [publish] ==== */

/* SLEEPING at no cost to those who wake. An event has the counter value that the most modest
 * sleeper wants, and a count of wake-ups to sleep on. Who moves the counter stores it, then loads
 * `wanted`, with no fence between (a fence would cost 6 ns of a 2 ns write). That the load may
 * overtake the store is the sleeper's affair: having stored `wanted` it runs a barrier in all
 * running threads (membarrier: 20 us, at a moment when it is giving time up anyway) and looks at
 * the counter again. Then either the mover loads `wanted` after the barrier, and wakes; or its
 * store came before it, and the sleeper sees it. Who takes `wanted` away raises `count` after, so
 * that a sleeper whose wish went with another's finds it changed. A process without membarrier
 * fences at each move instead. Who waits in an event loop watches a file for a change of its times
 * (that of the rows, or .readers for room), which the waker makes where there is such a watcher.
 * After the event count of ConcurrencyKit (ck_ec.h) and Dice, Huang,
 * Yang: Asymmetric Dekker Synchronization (2001). */
CBUF__SLOW bool cbuf__wake(cbuf__event *event, uint64_t reached, int fd)
{
    cbuf__fence_seq_cst(); /* E1: for those without membarrier, who come here at each move */
    if (cbuf__load_relaxed(&event->wanted) > reached) return false;
    cbuf__exchange_acq_rel(&event->wanted, CBUF__FREE); /* E2 */
    cbuf__fetch_add_acq_rel(&event->count, 1);          /* E3 */
    cbuf__futex_wake(&event->count);
    if (cbuf__load_relaxed(&event->watchers) || cbuf__load_relaxed(&event->watched))
        cbuf__touch(fd);
    return true;
}

/* A wish to be woken when the counter reaches `wanted`. Then look at the counter once more, and
 * sleep while `count` is what this returns. *sure, where that is asked for: no wake-up can be lost;
 * else sleep briefly. */
CBUF__SLOW uint64_t cbuf__wish(cbuf__event *event, uint64_t wanted, bool *sure)
{
    uint64_t count = cbuf__load_acquire(&event->count); /* E3: before the wish */
    uint64_t standing = cbuf__load_relaxed(&event->wanted);
    while (standing > wanted &&
           !cbuf__compare_exchange_acq_rel(&event->wanted, &standing, wanted)) {} /* E2 */
    cbuf__fence_seq_cst();       /* E1: with a mover that fences */
    *sure = *sure && cbuf__barrier_all(); /* E4: with one that does not */
    return count;
}

CBUF__INLINE void cbuf__count(cbuf__word *counter, uint64_t n) /* by its only writer */
{
    cbuf__store_relaxed(counter, cbuf__load_relaxed(counter) + n);
}

CBUF__INLINE void cbuf__tally(cbuf_ring *ring, cbuf__word *counter, uint64_t n) /* by producers */
{
    if (ring->many) cbuf__fetch_add_acq_rel(counter, n);
    else cbuf__count(counter, n);
}

CBUF__SLOW void cbuf__wake_readers(cbuf_ring *ring, uint64_t head)
{
    if (cbuf__wake(&ring->readers->rows, head, ring->fd)) cbuf__tally(ring, &ring->file->wakes, 1);
}

CBUF__INLINE void cbuf__publish(cbuf_ring *ring, uint64_t head)
{
    ring->next = head;
    cbuf__store_release(&ring->file->head, head); /* W2 of dense rows, and for who starts at head */
    cbuf__fence_compiler();                       /* E4 */
    if (CBUF__UNLIKELY(cbuf__load_relaxed(ring->wake_at) <= head)) cbuf__wake_readers(ring, head);
}

/* =============================================================================== [gates] ==== */

#ifdef CBUF_NO_OS
CBUF__INLINE int64_t cbuf__now_ns(int clock) { return (void)clock, 0; }
CBUF__INLINE int cbuf__lock(int fd, int type, uint32_t byte, bool wait)
{
    return (void)fd, (void)type, (void)byte, (void)wait, -1;
}
CBUF__INLINE bool cbuf__rest(int64_t waited) { return (void)waited, false; }
enum { CBUF__MONOTONIC, CBUF__REALTIME, CBUF__UNLOCK, CBUF__SHARED, CBUF__EXCLUSIVE };
#else
enum { CBUF__MONOTONIC = CLOCK_MONOTONIC, CBUF__REALTIME = CLOCK_REALTIME };
enum { CBUF__UNLOCK = F_UNLCK, CBUF__SHARED = F_RDLCK, CBUF__EXCLUSIVE = F_WRLCK };
CBUF__INLINE int64_t cbuf__now_ns(int clock)
{
    struct timespec now;
    clock_gettime(CBUF__AS(clockid_t, clock), &now);
    return CBUF__AS(int64_t, now.tv_sec) * 1000000000 + now.tv_nsec;
}
/* Locks one byte of an open file: an open-file-description lock, which the kernel drops when the
 * last descriptor of that open() is closed, also by death. 0, or -errno. */
CBUF__SLOW struct flock cbuf__flock(int type, uint32_t byte)
{
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = CBUF__AS(short, type);
    lock.l_whence = SEEK_SET;
    lock.l_start = CBUF__AS(off_t, byte);
    lock.l_len = 1;
    return lock;
}
CBUF__SLOW int cbuf__lock(int fd, int type, uint32_t byte, bool wait)
{
    struct flock lock = cbuf__flock(type, byte);
    while (fcntl(fd, wait ? 38 /* F_OFD_SETLKW */ : 37 /* F_OFD_SETLK */, &lock) != 0)
        if (errno != EINTR) return -errno;
    return 0;
}
/* Lets others run: `waited` ns tell for how long. False where there is no such thing. */
CBUF__SLOW bool cbuf__rest(int64_t waited)
{
    struct timespec moment = { 0, 50000 };
    return waited < 1000000 ? !sched_yield() : !nanosleep(&moment, NULL) || errno == EINTR;
}
#endif
#define CBUF__ROWS_BYTE (1u << 30) /* of .readers, for the locked mode; byte k is slot k's, the */
#define CBUF__JOIN_BYTE (CBUF__ROWS_BYTE + 1) /* next one is for those who join a group */

#define CBUF__SPILLING (CBUF__AS(uint64_t, 1) << 63) /* in `claim`: an episode lasts, see [many] */

/* Of many producers: the next row to be claimed. */
CBUF__INLINE uint64_t cbuf__claimed(const cbuf_ring *ring)
{
    return cbuf__load_acquire(&ring->file->claim) & ~CBUF__SPILLING; /* C1 */
}

/* Up to where every row is published or given up, or a little less. */
CBUF__SLOW uint64_t cbuf__many_head(const cbuf_ring *ring)
{
    uint64_t claim = cbuf__claimed(ring), head = claim; /* C1 */
    uint64_t high = cbuf__load_relaxed(&ring->file->pens_high);
    for (uint64_t k = 0; k < high && k < ring->options.producers; k++) {
        uint64_t begin = cbuf__load_acquire(&ring->pens[k].begin); /* C2 */
        if (begin < head) head = begin;
    }
    uint64_t lap = cbuf__oldest_at(ring, claim); /* below this all is there, by P1: */
    if (head < lap) head = lap;                  /* a pen there is of one that only tried */
    while (head < claim && !cbuf__is_pending(ring, head)) head++;
    return head;
}

/* Where the gates end: the oldest row that a gate has not read yet, plus the capacity. A reader
 * that registers stores its cursor, fences, then loads head and stores its cursor again; here the
 * fence comes before the loads. So either this scan sees the cursor, or the reader sees a head
 * from which the limit found here cannot overrun it. Slots are looked at in their order: a worker
 * that took rows from its group's cursor has a later slot, so that it is seen with them (G3). Of
 * many producers' rows none that is not finished may be overwritten either. */
CBUF__SLOW void cbuf__scan_gates(cbuf_ring *ring)
{
    uint64_t oldest = ring->many ? cbuf__many_head(ring) : ring->next; /* P1 <- C2 */
    cbuf__fence_seq_cst(); /* G1 */
    for (uint32_t k = 0; ring->gated && k < ring->options.max_readers; k++) {
        struct cbuf__slot *slot = &ring->readers->slots[k];
        if (k >= cbuf__load_relaxed(&ring->readers->high)) break; /* G3: at each turn */
        uint64_t cursor = cbuf__load_acquire(&slot->cursor); /* G2: done with rows before; G3 */
        if (cursor >= oldest || !cbuf__load_acquire(&slot->gate)) continue; /* G2 */
        uint64_t demoted = cbuf__load_relaxed(ring->gates + k);
        if (demoted && demoted == cbuf__load_relaxed(&slot->incarnation)) continue;
        oldest = cursor;
        ring->slowest = k;
    }
    ring->limit = oldest + ring->capacity;
    ring->limit &= ring->blocks;
}

/* Frees slot k, of a dead reader: its byte is locked through `fd`. A worker's (`group` is the index
 * of its group's slot + 1, and that slot's incarnation above) stays, for the others of its group to
 * deliver its rows, while one of them lives: they share the lock of the group's byte. */
CBUF__SLOW bool cbuf__free_dead(const cbuf_ring *ring, int fd, uint32_t k)
{
    struct cbuf__slot *slot = &ring->readers->slots[k];
    uint64_t group = cbuf__load_acquire(&slot->group), g = (group & UINT16_MAX) - 1;
    bool member = group && g != k && g < ring->options.max_readers &&
        cbuf__load_acquire(&ring->readers->slots[g].incarnation) == group >> 16;
    if (member && cbuf__lock(fd, CBUF__EXCLUSIVE, CBUF__AS(uint32_t, g), false)) return false;
    cbuf__store_release(&slot->gate, 0); /* G2: for other producers */
    cbuf__store_relaxed(&slot->group, 0);
    cbuf__store_release(&slot->cursor, CBUF__FREE);
    cbuf__store_release(&slot->owned, 0);
    if (member) cbuf__lock(fd, CBUF__UNLOCK, CBUF__AS(uint32_t, g), false);
    return true;
}

/* The ring is full: looks after the slot that holds it up, once a millisecond at most. Frees it if
 * its reader is dead, which the kernel says: its lock can be had. Demotes a gate that stands. True
 * if it did either. */
CBUF__SLOW bool cbuf__mind_slowest(cbuf_ring *ring)
{
    int64_t now = cbuf__now_ns(CBUF__MONOTONIC);
    struct cbuf__slot *slot = &ring->readers->slots[ring->slowest];
    uint64_t cursor = cbuf__load_relaxed(&slot->cursor);
    if (ring->minded_ns && now - ring->minded_ns < 1000000) return false;
    ring->minded_ns = now;
    if (ring->readers_fd >= 0 &&
        !cbuf__lock(ring->readers_fd, CBUF__EXCLUSIVE, ring->slowest, false)) {
        bool freed = cbuf__free_dead(ring, ring->readers_fd, ring->slowest);
        cbuf__lock(ring->readers_fd, CBUF__UNLOCK, ring->slowest, false);
        if (freed) return true;
    }
    if (cursor != ring->stuck_cursor || !ring->stuck_since_ns) {
        ring->stuck_cursor = cursor;
        ring->stuck_since_ns = now;
    }
    if (!ring->options.demote_ns || now - ring->stuck_since_ns < ring->options.demote_ns)
        return false;
    cbuf__store_relaxed(ring->gates + ring->slowest, cbuf__load_relaxed(&slot->incarnation));
    cbuf__tally(ring, &ring->file->demotions, 1);
    ring->stuck_since_ns = 0;
    return true;
}

/* The cursor to wish for when there is no room for `rows` rows. Among many producers a pen may be
 * in the way: then whoever lifts it wakes. */
CBUF__SLOW uint64_t cbuf__room_at(const cbuf_ring *ring, uint64_t rows)
{
    uint64_t wanted = (ring->next + rows - ring->capacity + ~ring->blocks) & ring->blocks;
    uint64_t head = ring->many ? cbuf__many_head(ring) : wanted;
    return head < wanted ? head + 1 : wanted;
}

/* Waits until the gates leave room for `rows` rows, at most ns (negative: without limit). Where
 * there is no clock and no sleep it looks once. The first nap may last, for a millisecond, until
 * there is room for `extra` rows more. */
CBUF__SLOW bool cbuf__await_gates(cbuf_ring *ring, uint64_t rows, uint64_t extra, int64_t ns)
{
    int64_t start = cbuf__now_ns(CBUF__MONOTONIC), left = ns;
    cbuf__tally(ring, &ring->file->waits, 1);
    for (;;) {
        struct cbuf__slot *slot = &ring->readers->slots[ring->slowest];
        uint64_t wanted = cbuf__room_at(ring, rows);
        for (int i = 0; i < 1000 && cbuf__load_relaxed(&slot->cursor) < wanted; i++) cbuf__pause();
        cbuf__scan_gates(ring);
        if (ring->limit < ring->next + rows && cbuf__mind_slowest(ring)) cbuf__scan_gates(ring);
        if (ring->limit >= ring->next + rows) return true;
        if (ns >= 0 && (left = ns - (cbuf__now_ns(CBUF__MONOTONIC) - start)) <= 0) return false;
        bool sure = !extra; /* a barrier costs more than that nap if it should be in vain */
        wanted = cbuf__room_at(ring, rows + extra);
        uint64_t count = cbuf__wish(&ring->readers->room, wanted, &sure);
        cbuf__scan_gates(ring); /* E4: the second look */
        if (ring->limit >= ring->next + rows) return true;
        int64_t nap = sure && !extra ? 10000000 : 1000000; /* a dead gate wakes nobody */
        extra = 0;
        if (ns >= 0 && left < nap) nap = left;
        cbuf__futex_wait(&ring->readers->room.count, CBUF__AS(uint32_t, count), nap);
    }
}

/* There is some room: waits a little longer while it grows. A producer that went on at the first
 * free row would scan the gates again for the next one (46 against 70 M rows/s). */
CBUF__SLOW void cbuf__let_grow(cbuf_ring *ring)
{
    uint64_t aim = ring->next + (ring->capacity < 8192 ? ring->capacity / 8 : 1024);
    for (uint64_t before = ring->next; ring->limit > before && ring->limit < aim;) {
        before = ring->limit;
        for (int i = 0; i < 40; i++) cbuf__pause();
        cbuf__scan_gates(ring);
    }
}

/* An episode of spilling: while it lasts rows come into the ring from the log only, in their order.
 * The first call stops other writes; the first row to be spilled is ring->next then. */
CBUF__SLOW void cbuf__spill_begin(cbuf_ring *ring)
{
    if (!ring->many) {
        cbuf__store_relaxed(&ring->file->spill_end, CBUF__FREE);
        return;
    }
    uint64_t at = cbuf__load_relaxed(&ring->file->claim);
    do cbuf__store_release(&ring->file->spill_from, at); /* S1: before the mark */
    while (!cbuf__compare_exchange_acq_rel(&ring->file->claim, &at, at | CBUF__SPILLING)); /* S1 */
    ring->next = at;
}
CBUF__SLOW void cbuf__spill_end(cbuf_ring *ring)
{
    cbuf__store_relaxed(&ring->file->spill_end, 0);
    if (!ring->many || !(cbuf__load_relaxed(&ring->file->claim) & CBUF__SPILLING)) return;
    cbuf__fetch_add_acq_rel(&ring->file->claim, CBUF__SPILLING); /* S2: turns the mark round */
}

/* The ring is full as far as known: waits up to `most` ns if the policy waits. 1: there is room
 * now; 0: refused; or an error. */
CBUF__SLOW int cbuf__pass_gates(cbuf_ring *ring, int64_t most)
{
    if (!ring->hook && cbuf__load_relaxed(&ring->file->spill_end) > ring->next)
        return CBUF_ENOSPILL;
    cbuf__scan_gates(ring);
    if (ring->limit > ring->next) {
        if (ring->options.on_full == CBUF_BLOCK) cbuf__let_grow(ring);
        return 1;
    }
    if (ring->options.on_full >= CBUF_DROP_NEWEST) {
        if (cbuf__mind_slowest(ring)) cbuf__scan_gates(ring);
        if (ring->limit > ring->next) return 1;
        return ring->options.on_full == CBUF_SPILL && !ring->hook ? CBUF_ENOSPILL : 0;
    }
#ifndef CBUF_NO_OS
    uint64_t half = ring->capacity < 256 ? 0 : ring->capacity / 2; /* not for a few rows: */
    if (!cbuf__await_gates(ring, 1, half, most)) return CBUF_ETIMEDOUT; /* 115, not 80 M rows/s */
    cbuf__let_grow(ring);
    return 1;
#else
    return (void)most, CBUF_ETIMEDOUT;
#endif
}

/* ================================================================================ [many] ==== */

/* MANY PRODUCERS share one order of rows. Each takes the numbers of its rows with one
 * compare-exchange of `claim`, writes them, and publishes each by its own number, as one producer
 * does; readers stop at the first row that is not there yet.
 *
 *           published   0 1 2 3 4 5     8 9
 *           pen of A                6 7                  claimed 6 and 7, is writing them
 *           pen of B                        10 11 12     claimed these; 8 and 9 were faster
 *                                   ^ head           ^ claim
 *
 * Before it claims, a producer says in its own slot, its pen, which rows these would be, and takes
 * the word back when they are published. So a row that is claimed and not published is in the pen
 * of its owner, and whoever finds it in no pen but those of dead producers (the kernel tells: the
 * lock of the pen's byte in .lock can be had) gives it up for them: its number is stored with the
 * top bit turned round, and readers skip it. That is why the pen is written before the claim (C1),
 * emptied after the rows (C2), and read between two looks at the row (cbuf__give_up). `head`, up to
 * where all is published, follows from claim and pens: there is no shared word for it to fight for.
 *
 * A row is claimed only once the row a lap before is published or given up (P1): nothing is written
 * under another's pen, and a producer that was stopped in the middle holds the others up, by their
 * policy, until it goes on or dies. Each producer knows how far that is from its last look at all
 * pens, which it takes once in a lap.
 *
 * AN EPISODE OF SPILLING, see cbuf_log.h, is the top bit of `claim`. While it is set no row lies
 * below any producer's limit, so that none is claimed but by the one who holds the log's lock, the
 * mover. Rows from spill_from on (S1: stored before the bit) are in the log. So a mover's death
 * costs none of them: while the bit is set nobody gives such a row up; the next who gets the log's
 * lock, and knows by it that no mover lives, writes those that are claimed and not published again,
 * under their numbers. The bit is taken away when all is published (S2). */

/* Claims up to n rows, as far as there is room; with `whole` only up to the ring's end. How many,
 * from ring->next on; 0: there is no room. While two processors claim at once the lines travel at
 * each row (87 ns); where one leaves the other alone for a while they do not (11 ns). So who fails
 * pauses, the longer the more often it did: 4 producers row by row 42 against 17 M rows/s. */
CBUF__INLINE uint64_t cbuf__claim_rows(cbuf_ring *ring, uint64_t n, bool whole)
{
    uint64_t most = ring->capacity < 4 ? 1 : ring->capacity / 4;
    uint64_t at = cbuf__load_relaxed(&ring->file->claim);
    if (n > most) n = most;
    for (;;) {
        uint64_t count = ring->limit > at ? ring->limit - at : 0; /* P1 */
        if (count > n) count = n;
        if (whole) count = cbuf__until_end(ring, at, count);
        if (!count) return 0;
        cbuf__store_relaxed(&ring->pen->end, at + count);
        cbuf__store_release(&ring->pen->begin, at); /* C1: both before the claim; C2 */
        if (cbuf__compare_exchange_acq_rel(&ring->file->claim, &at, at + count)) { /* C1 */
            ring->next = at;
            if (ring->contention) ring->contention--;
            return count;
        }
        ring->contention = ring->contention < 160 ? 2 * ring->contention + 16 : 320;
        cbuf__back_off(ring->contention / 4);
        at = cbuf__load_relaxed(&ring->file->claim);
    }
}

/* What one producer does in cbuf__make_room: rows up to `end` are about to be written. */
CBUF__INLINE void cbuf__raise_reserve(cbuf_ring *ring, uint64_t end)
{
    uint64_t standing = cbuf__load_relaxed(&ring->file->reserve), mark = end;
    if (CBUF__UNLIKELY(standing < end)) {
        mark += ring->options.reserve_step - 1;
        if (mark > ring->limit) mark = ring->limit > end ? ring->limit : end;
        while (standing < mark && !cbuf__compare_exchange_acq_rel(
                                      &ring->file->reserve, &standing, mark)) {} /* W1, O1 */
    }
    cbuf__fence_release(); /* W1 */
}

/* All rows below `end` that this producer had claimed are published or given up. */
CBUF__INLINE void cbuf__lift_pen(cbuf_ring *ring, uint64_t end)
{
    cbuf__store_release(&ring->pen->begin, CBUF__FREE); /* C2 */
    cbuf__fence_compiler();                             /* E4 */
    if (CBUF__UNLIKELY(cbuf__load_relaxed(ring->wake_at) <= end)) cbuf__wake_readers(ring, end);
    if (!ring->gated || cbuf__load_relaxed(&ring->readers->room.wanted) > end) return; /* E4 */
    cbuf__wake(&ring->readers->room, end, ring->readers_fd);
}

/* Ends the producer's own claim: publishes its first n rows, and gives the others up. */
CBUF__SLOW int64_t cbuf__publish_many(cbuf_ring *ring, uint64_t n)
{
    uint64_t end = ring->next + ring->claimed;
    cbuf__number_rows(ring, ring->next, ring->next + n, 0);
    if (n < ring->claimed) {
        cbuf__tally(ring, &ring->file->aborted, ring->claimed - n);
        cbuf__number_rows(ring, ring->next + n, end, CBUF__ABORTED);
    }
    ring->claimed = 0;
    cbuf__lift_pen(ring, end);
    return CBUF__AS(int64_t, n);
}

/* Gives row `sequence` of a dead producer's pen up, unless it is published or somebody else's.
 * False if it is in the pen of one who lives: then it may be his. */
CBUF__SLOW bool cbuf__give_up(cbuf_ring *ring, uint64_t sequence, const bool *dead)
{
    cbuf__word *last = cbuf__at(ring, sequence) + ring->last;
    if (!cbuf__is_pending(ring, sequence)) return true;
    for (uint32_t k = 0; k < ring->options.producers; k++) {
        if (dead[k]) continue;
        uint64_t begin = cbuf__load_relaxed(&ring->pens[k].begin); /* C1: of the claim or later */
        uint64_t end = cbuf__load_relaxed(&ring->pens[k].end);
        if (begin <= sequence && sequence < end) return false;
    }
    uint64_t word = cbuf__load_acquire(last); /* if this is old, the exchange fails */
    if (!cbuf__awaits(ring, sequence, word)) return true; /* its pen was lifted meanwhile */
    cbuf__raise_reserve(ring, sequence + 1);
    uint64_t given_up = cbuf__seal(word, (sequence + 1) ^ CBUF__ABORTED);
    if (cbuf__compare_exchange_acq_rel(last, &word, given_up)) /* W2; else another sweeper did */
        cbuf__tally(ring, &ring->file->aborted, 1);
    return true;
}

/* Gives up what the producers marked in `dead` had claimed, but for what is in the log; their pens
 * are free then, but for those whose rows may still be somebody else's, or come from the log. The
 * caller has their locks. */
CBUF__SLOW void cbuf__sweep(cbuf_ring *ring, const bool *dead)
{
    uint64_t claim = cbuf__load_acquire(&ring->file->claim), logged = CBUF__FREE; /* C1, S1, S2 */
    if (claim & CBUF__SPILLING) logged = cbuf__load_acquire(&ring->file->spill_from); /* S1, S2 */
    claim &= ~CBUF__SPILLING;
    for (uint32_t k = 0; k < ring->options.producers; k++) {
        struct cbuf__pen *pen = ring->pens + k;
        if (!dead[k]) continue;
        uint64_t i = cbuf__load_relaxed(&pen->begin), end = cbuf__load_relaxed(&pen->end);
        bool swept = true;
        if (end > claim) end = claim; /* it died before it claimed them */
        if (i < end && claim - i > ring->capacity) i = claim - ring->capacity; /* overwritten */
        for (; i < end && i < logged; i++) swept = cbuf__give_up(ring, i, dead) && swept;
        for (; i < end; i++) swept = !cbuf__is_pending(ring, i) && swept;
        if (!swept) continue;
        cbuf__store_release(&pen->begin, CBUF__FREE);
        cbuf__store_release(&pen->owned, 0);
    }
}

/* Looks for dead producers, and sweeps up after them. */
CBUF__SLOW void cbuf__sweep_dead(cbuf_ring *ring)
{
    bool dead[CBUF_MAX_PRODUCERS] = { false }, any = false;
    if (ring->lock_fd < 0) return; /* in memory nobody knows */
    for (uint32_t k = 0; k < ring->options.producers; k++) {
        struct cbuf__pen *pen = ring->pens + k;
        if (pen == ring->pen || !cbuf__load_acquire(&pen->owned)) continue;
        dead[k] = !cbuf__lock(ring->lock_fd, CBUF__EXCLUSIVE, 1 + k, false);
        any = any || dead[k];
    }
    if (!any) return;
    cbuf__sweep(ring, dead);
    for (uint32_t k = 0; k < ring->options.producers; k++)
        if (dead[k]) cbuf__lock(ring->lock_fd, CBUF__UNLOCK, 1 + k, false);
    cbuf__wake(&ring->readers->rows, CBUF__FREE, ring->fd);
    cbuf__wake(&ring->readers->room, CBUF__FREE, ring->readers_fd);
}

/* The same, once a millisecond at most; whether it did. */
CBUF__SLOW bool cbuf__sweep_if_due(cbuf_ring *ring)
{
    int64_t now = cbuf__now_ns(CBUF__MONOTONIC);
    if (now - ring->swept_ns <= 1000000) return false;
    ring->swept_ns = now;
    cbuf__sweep_dead(ring);
    return true;
}

/* cbuf__pass_gates in spells, between which to look for dead producers: a reader may be waiting for
 * one's row, and its gate for the reader. */
CBUF__SLOW int cbuf__pass_gates_for_a_while(cbuf_ring *ring, int64_t most)
{
    const int64_t spell = 100000000;
    bool longer = most < 0 || most > spell;
    int passed = cbuf__pass_gates(ring, longer ? spell : most);
    return passed == CBUF_ETIMEDOUT && longer && cbuf__rest(0) ? 1 : passed;
}

/* There was no place for a row: waits for one as the policy says. 1: try again; 0: refused; or
 * CBUF_ETIMEDOUT or CBUF_ENOSPILL. *since is when the call began to wait, 0 at first. */
CBUF__SLOW int cbuf__wait_to_claim(cbuf_ring *ring, int64_t *since)
{
    bool spills = ring->options.on_full == CBUF_SPILL;
    bool drops = ring->options.on_full >= CBUF_DROP_NEWEST;
    cbuf__store_release(&ring->pen->begin, CBUF__FREE); /* C2: it has claimed nothing */
    uint64_t claim = cbuf__load_acquire(&ring->file->claim), at = claim & ~CBUF__SPILLING;
    ring->next = at;
    if (claim & CBUF__SPILLING) return ring->hook ? 0 : CBUF_ENOSPILL;
    int64_t now = cbuf__now_ns(CBUF__MONOTONIC), left = CBUF_FOREVER;
    if (!*since) *since = now;
    if (ring->options.block_ns) left = ring->options.block_ns - (now - *since);
    if (ring->options.block_ns && left <= 0) return CBUF_ETIMEDOUT;
    bool no_pen = cbuf__many_head(ring) + ring->capacity > at; /* is in the way */
    if (no_pen && !ring->gated) return cbuf__scan_gates(ring), 1;
    for (int i = 0; i < 100 && !no_pen; i++) {
        if (cbuf__is_pending(ring, at)) return 1; /* the row a lap before is finished */
        cbuf__pause();
    }
    bool swept = cbuf__sweep_if_due(ring); /* a dead one's row may be in its way, or the gates' */
    if (no_pen) return cbuf__pass_gates_for_a_while(ring, left);
    if (!swept && drops) return spills && !ring->hook ? CBUF_ENOSPILL : 0;
    return cbuf__rest(now - *since) ? 1 : CBUF_ETIMEDOUT;
}

/* Whether pen k was free, and is this producer's now. */
CBUF__SLOW bool cbuf__take_free_pen(cbuf_ring *ring, uint32_t k)
{
    struct cbuf__pen *pen = ring->pens + k;
    cbuf__word *pens_high = &ring->file->pens_high;
    uint64_t owned = cbuf__load_acquire(&pen->owned), high = k;
    if (owned) return false;
    bool in_file = ring->lock_fd >= 0;
    if (in_file && cbuf__lock(ring->lock_fd, CBUF__EXCLUSIVE, 1 + k, false)) return false;
    if (!cbuf__compare_exchange_acq_rel(&pen->owned, &owned, 1)) return false;
    while (high <= k && !cbuf__compare_exchange_acq_rel(pens_high, &high, k + 1)) {}
    cbuf__store_relaxed(&pen->log, 0);
    ring->pen = pen;
    ring->limit = 0;
    return true;
}

/* Takes a pen, after sweeping up after the dead. 0, or CBUF_ESLOTS, but not while somebody else may
 * be sweeping one up: that is over soon. */
CBUF__SLOW int cbuf__take_pen(cbuf_ring *ring)
{
    for (int tries = 0; tries < (ring->lock_fd >= 0 ? 1000 : 1); tries++) {
        if (tries) cbuf__rest(1000000);
        cbuf__sweep_dead(ring);
        for (uint32_t k = 0; k < ring->options.producers; k++)
            if (cbuf__take_free_pen(ring, k)) return 0;
    }
    return CBUF_ESLOTS;
}

CBUF__SLOW int64_t cbuf__claim_many(cbuf_ring *ring, uint64_t n)
{
    int64_t since = 0;
    int again = ring->pen ? 1 : CBUF_EROLE;
    if (ring->claimed) cbuf__publish_many(ring, 0);
    while (again > 0 && !ring->claimed) {
        ring->claimed = cbuf__claim_rows(ring, n, true);
        if (!ring->claimed) again = cbuf__wait_to_claim(ring, &since);
    }
    if (!again) cbuf__tally(ring, &ring->file->dropped, n);
    if (!ring->claimed) return again;
    cbuf__raise_reserve(ring, ring->next + ring->claimed);
    return CBUF__AS(int64_t, ring->claimed);
}

CBUF__INLINE int64_t cbuf__write_many(
    cbuf_ring *ring, const void *from, uint64_t n, uint32_t row_bytes)
{
    const unsigned char *rows = CBUF__AS(const unsigned char *, from);
    int64_t since = 0;
    if (!ring->pen) return CBUF_EROLE;
    if (ring->claimed) cbuf__publish_many(ring, 0);
    for (uint64_t left = n; left;) {
        uint64_t count = cbuf__claim_rows(ring, left, false);
        if (CBUF__UNLIKELY(!count)) {
            int again = cbuf__wait_to_claim(ring, &since);
            if (again > 0) continue;
            if (!again && !ring->hook) cbuf__tally(ring, &ring->file->dropped, left);
            return left < n ? CBUF__AS(int64_t, n - left) : again;
        }
        cbuf__raise_reserve(ring, ring->next + count);
        cbuf__put_rows(ring, ring->next, rows, count, row_bytes);
        cbuf__lift_pen(ring, ring->next + count);
        rows += cbuf__span(count, row_bytes);
        left -= count;
    }
    return CBUF__AS(int64_t, n);
}

/* What the mover does: writes rows of the log into the ring, from ring->next on, which is where
 * `claim` stands, since nobody else moves it. n is at most ring->limit - ring->next. */
CBUF__SLOW void cbuf__write_spilled(cbuf_ring *ring, const unsigned char *rows, uint64_t n)
{
    uint64_t end = ring->next + n;
    cbuf__store_relaxed(&ring->pen->end, end);
    cbuf__store_release(&ring->pen->begin, ring->next); /* C1, C2 */
    cbuf__fetch_add_acq_rel(&ring->file->claim, n);     /* C1 */
    cbuf__raise_reserve(ring, end);
    cbuf__put_rows(ring, ring->next, rows, n, ring->row_bytes);
    cbuf__lift_pen(ring, end);
    ring->next = end;
}

/* The next mover: writes a row again that a dead one had claimed. Its pen stays until then. */
CBUF__SLOW void cbuf__write_again(cbuf_ring *ring, uint64_t sequence, const unsigned char *row)
{
    if (!cbuf__is_pending(ring, sequence)) return;
    cbuf__raise_reserve(ring, sequence + 1);
    cbuf__put_rows(ring, sequence, row, 1, ring->row_bytes);
}

/* =============================================================================== [write] ==== */

/* Makes rows from `next` on writable, at most n: how many, 0 if the policy refuses, or an error.
 * `reserve` moves in steps, so that readers, who load it after each copy, mostly find its line in
 * their cache (steps of 16, 64 and 128 rows, one by one: 94, 136 and 159 M rows/s). It never goes
 * down, also not after a predecessor died ahead of its last row. Its store is a release (O1) for
 * those who begin at the oldest row: they see a head beyond that. */
CBUF__SLOW int64_t cbuf__make_room(cbuf_ring *ring, uint64_t n)
{
    if (!ring->producer) return ring->file ? CBUF_EROLE : CBUF_ENOTOPEN;
    uint64_t most = ring->capacity < 4 ? 1 : ring->capacity / 4, step = ring->options.reserve_step;
    if (n > most) n = most;
    uint64_t end = ring->next + n, mark = ring->next + (n > step ? n : step);
    mark = (mark + ~ring->blocks) & ring->blocks;
    if (ring->gated) {
        int64_t ns = ring->options.block_ns ? ring->options.block_ns : CBUF_FOREVER;
        int passed = end > ring->limit ? cbuf__pass_gates(ring, ns) : 1;
        if (passed <= 0) return passed;
        if (end > ring->limit) end = ring->limit;
        if (mark > ring->limit) mark = ring->limit;
    }
    uint64_t standing = cbuf__load_relaxed(&ring->file->reserve);
    ring->reserved = mark;
    cbuf__store_release(&ring->file->reserve, standing > mark ? standing : mark); /* W1, O1 */
    cbuf__fence_release();                                                         /* W1 */
    return CBUF__AS(int64_t, end - ring->next);
}

/* Why the short path may not be taken; 0 if it is for the locked mode only. */
CBUF__SLOW int cbuf__unusable(const cbuf_ring *ring, uint32_t row_bytes)
{
    if (!ring->file) return CBUF_ENOTOPEN;
    if (ring->local->never != UINT64_MAX) return CBUF_EFORKED;
    return row_bytes == ring->row_bytes ? 0 : CBUF_EROWSIZE;
}
CBUF__INLINE int cbuf__usable(const cbuf_ring *ring, uint32_t row_bytes) /* 0, or the error */
{
    return CBUF__LIKELY(ring->local->row_bytes == row_bytes) ? 0 : cbuf__unusable(ring, row_bytes);
}

/* `plain`: neither locked nor with delta columns, as the caller knows. */
CBUF__INLINE int64_t cbuf__write_loop(
    cbuf_ring *ring, const void *from, uint64_t n, uint32_t row_bytes, const bool plain)
{
    const unsigned char *rows = CBUF__AS(const unsigned char *, from);
    for (uint64_t left = n; left;) {
        uint64_t count = left;
        if (ring->next + left > ring->reserved) {
            int64_t granted = cbuf__make_room(ring, left);
            if (granted == 0 && !ring->hook) cbuf__tally(ring, &ring->file->dropped, left);
            if (granted <= 0) return left < n ? CBUF__AS(int64_t, n - left) : granted;
            count = CBUF__AS(uint64_t, granted);
        }
        bool locked = !plain && ring->locked, delta = !plain && ring->delta;
        if (locked) cbuf__lock(ring->readers_fd, CBUF__EXCLUSIVE, CBUF__ROWS_BYTE, true);
        uint64_t done = delta ? cbuf__put_deltas(ring, rows, count) : count;
        if (!delta) cbuf__put_rows(ring, ring->next, rows, count, row_bytes);
        cbuf__publish(ring, ring->next + done);
        if (locked) cbuf__lock(ring->readers_fd, CBUF__UNLOCK, CBUF__ROWS_BYTE, true);
        rows += cbuf__span(done, row_bytes);
        left -= done;
        if (done < count && left == n) return CBUF_ENOSPACE;
        if (done < count) return CBUF__AS(int64_t, n - left);
    }
    return CBUF__AS(int64_t, n);
}
CBUF__SLOW int64_t cbuf__write_specially(
    cbuf_ring *ring, const void *rows, uint64_t n, uint32_t row_bytes)
{
    int error = cbuf__unusable(ring, row_bytes);
    return error ? error : cbuf__write_loop(ring, rows, n, row_bytes, false);
}
/* Writes n rows into the ring proper. What is refused counts as dropped, unless there is a hook,
 * which then knows better. */
CBUF__INLINE int64_t cbuf__write_through(
    cbuf_ring *ring, const void *rows, uint64_t n, uint32_t row_bytes)
{
    if (CBUF__UNLIKELY(ring->local->row_bytes != row_bytes))
        return cbuf__write_specially(ring, rows, n, row_bytes);
    if (ring->many) return cbuf__write_many(ring, rows, n, row_bytes);
    return cbuf__write_loop(ring, rows, n, row_bytes, true);
}

CBUF__SLOW int64_t cbuf__write_hooked(
    cbuf_ring *ring, const void *rows, uint64_t n, uint32_t row_bytes)
{
    int error = cbuf__usable(ring, row_bytes);
    return error ? error : ring->hook->take(ring->hook->self, rows, n);
}
CBUF__INLINE int64_t cbuf__write_rows(
    cbuf_ring *ring, const void *rows, uint64_t n, uint32_t row_bytes)
{
    if (CBUF__UNLIKELY(ring->hook)) return cbuf__write_hooked(ring, rows, n, row_bytes);
    return cbuf__write_through(ring, rows, n, row_bytes);
}

CBUF__SLOW int cbuf__write_slowly(cbuf_ring *ring, const void *row, uint32_t row_bytes)
{
    return CBUF__AS(int, cbuf__write_rows(ring, row, 1, row_bytes));
}

/* The shortest way for one row: the 5 cycles from `next` to `next` bound it, so that nothing else
 * may take longer. False if it takes more. */
CBUF__INLINE bool cbuf__write_row(cbuf_ring *ring, const void *from, uint32_t row_bytes)
{
    const unsigned char *row = CBUF__AS(const unsigned char *, from);
    uint64_t sequence = ring->next;
    if (CBUF__UNLIKELY(sequence >= ring->reserved)) return false;
    if (row_bytes >= 8 && CBUF__LIKELY(ring->local->plain == row_bytes)) {
        void *place = ring->rows + cbuf__span(sequence & ring->mask, row_bytes);
        cbuf__fetch_row(ring, sequence, ring->reserved, row_bytes, row_bytes);
        cbuf__put_plain(CBUF__AS(cbuf__word *, place), sequence, row, row_bytes);
    } else if (CBUF__LIKELY(ring->local->other == row_bytes)) {
        cbuf__fetch_row(ring, sequence, ring->reserved, row_bytes, ring->stride);
        cbuf__put_other(ring, sequence, row, row_bytes);
    } else {
        return false;
    }
    cbuf__publish(ring, sequence + 1);
    return true;
}

static inline int cbuf_write(cbuf_ring *ring, const void *row)
{
    bool written = cbuf__write_row(ring, row, ring->row_bytes);
    return written ? 1 : cbuf__write_slowly(ring, row, ring->row_bytes);
}
static inline int64_t cbuf_write_n(cbuf_ring *ring, const void *rows, uint64_t n)
{
    return cbuf__write_rows(ring, rows, n, ring->row_bytes);
}

CBUF__SLOW void *cbuf__claim_slowly(cbuf_ring *ring, uint32_t n, int64_t *granted)
{
    int64_t ignored, *result = granted ? granted : &ignored;
    *result = cbuf__usable(ring, ring->row_bytes);
    if (!*result && !n) *result = CBUF_EINVAL;
    if (!*result && ring->delta) *result = CBUF_EDELTA;
    if (!*result && ring->shared_tail) *result = CBUF_ELAYOUT;
    if (!*result && ring->hook) *result = CBUF_ELOGGED;
    if (*result) return NULL;
    if (ring->many) *result = cbuf__claim_many(ring, n);
    if (ring->many) return *result > 0 ? cbuf__at(ring, ring->next) : NULL;
    ring->claimed = 0;
    uint64_t room = cbuf__until_end(ring, ring->next, n);
    *result = CBUF__AS(int64_t, room);
    if (ring->next + room > ring->reserved) *result = cbuf__make_room(ring, room);
    if (*result == 0) cbuf__tally(ring, &ring->file->dropped, n);
    if (*result <= 0) return NULL;
    ring->claimed = CBUF__AS(uint64_t, *result);
    return cbuf__at(ring, ring->next);
}

static inline void *cbuf_claim(cbuf_ring *ring, uint32_t n, int64_t *granted)
{
    uint64_t place = ring->next & ring->mask;
    bool here = ring->local->other == ring->row_bytes && n && place + n <= ring->capacity;
    if (CBUF__UNLIKELY(!here || ring->next + n > ring->reserved))
        return cbuf__claim_slowly(ring, n, granted);
    ring->claimed = n;
    if (granted) *granted = n;
    return ring->rows + cbuf__span(place, ring->stride);
}

CBUF__SLOW int64_t cbuf__publish_slowly(cbuf_ring *ring, uint32_t n)
{
    int error = cbuf__usable(ring, ring->row_bytes);
    if (!error && n > ring->claimed) error = CBUF_EINVAL;
    if (error) return error;
    if (ring->many) return ring->claimed ? cbuf__publish_many(ring, n) : 0;
    ring->claimed = 0;
    if (!n) return 0;
    if (ring->locked) cbuf__lock(ring->readers_fd, CBUF__EXCLUSIVE, CBUF__ROWS_BYTE, true);
    if (!ring->dense) cbuf__number_rows(ring, ring->next, ring->next + n, 0);
    cbuf__publish(ring, ring->next + n);
    if (ring->locked) cbuf__lock(ring->readers_fd, CBUF__UNLOCK, CBUF__ROWS_BYTE, true);
    return n;
}

static inline int64_t cbuf_publish(cbuf_ring *ring, uint32_t n)
{
    if (n != 1 || CBUF__UNLIKELY(ring->local->other != ring->row_bytes || !ring->claimed))
        return cbuf__publish_slowly(ring, n);
    ring->claimed = 0;
    if (!ring->dense) cbuf__number_rows(ring, ring->next, ring->next + 1, 0);
    cbuf__publish(ring, ring->next + 1);
    return 1;
}

static inline uint32_t cbuf_stride(const cbuf_ring *ring) { return ring->stride; }

/* ================================================================================ [read] ==== */

CBUF__SLOW void cbuf__stamp(cbuf_reader *reader)
{
    reader->stamp_at = reader->cursor + 4096;
    if (!reader->slot) return;
    int64_t now = cbuf__now_ns(CBUF__REALTIME);
    cbuf__store_relaxed(&reader->slot->active_ns, CBUF__AS(uint64_t, now));
}

/* The reader was lapped: its next row is `oldest` now, and the rows before that are lost. */
CBUF__SLOW void cbuf__lose(cbuf_reader *reader, uint64_t oldest)
{
    reader->lost += oldest - reader->cursor;
    reader->cursor = oldest;
    if (reader->slot) cbuf__store_relaxed(&reader->slot->lost, reader->lost);
    if (reader->cursor >= reader->stamp_at) cbuf__stamp(reader); /* no turn may be met */
}

CBUF__SLOW void cbuf__wake_producer(cbuf_reader *reader)
{
    const cbuf_ring *ring = reader->ring;
    cbuf__wake(&ring->readers->room, reader->cursor, ring->readers_fd);
}
CBUF__SLOW void cbuf__skip(cbuf_reader *reader)
{
    reader->skipped++;
    cbuf__store_release(reader->shared_cursor, ++reader->cursor); /* G2 */
    cbuf__fence_compiler();                                       /* E4 */
    if (cbuf__load_relaxed(reader->room_at) <= reader->cursor) cbuf__wake_producer(reader);
}

/* The cursor's row is not in its place: false if it is still to come; true if the reader was lapped
 * and stands on the oldest good row now, or its row was given up and it stands on the next. While a
 * row is to come its place holds the one a lap before, or nothing; `reserve` settles the rest. */
CBUF__INLINE bool cbuf__resync(cbuf_reader *reader)
{
    const cbuf_ring *ring = reader->ring;
    uint64_t cursor = reader->cursor;
    if (!ring->dense && cbuf__is_pending(ring, cursor)) return false;
    bool aborted = ring->many && cbuf__is_aborted(ring, cursor);
    uint64_t oldest = cbuf__validate(ring);
    if (oldest > cursor) cbuf__lose(reader, oldest);
    else if (aborted) cbuf__skip(reader);
    return oldest > cursor || aborted;
}

/* Of many producers each row is looked at: the last one says nothing of those before it. */
CBUF__SLOW uint64_t cbuf__ready_of_many(cbuf_reader *reader, uint64_t want)
{
    uint64_t end = reader->cursor + 1;
    while (end < reader->cursor + want && cbuf__is_published(reader->ring, end)) end++;
    reader->published = end;
    return end - reader->cursor;
}

/* How many rows from the cursor on are published, up to `want`; at least half of them if there are
 * fewer. In one producer's order a row that is published says that all before it are, so a batch
 * needs a look at its ends and not at each row. The numbered layout never looks at `head`, whose
 * line the producer needs for itself. */
CBUF__INLINE uint64_t cbuf__ready(cbuf_reader *reader, uint64_t want)
{
    const cbuf_ring *ring = reader->ring;
    uint64_t cursor = reader->cursor;
    if (reader->published >= cursor + want) return want;
    if (ring->dense) {
        uint64_t head = reader->published = cbuf__load_acquire(&ring->file->head); /* R2 <- W2 */
        return head < cursor ? 0 : head - cursor < want ? head - cursor : want;
    }
    if (!cbuf__is_published(ring, cursor)) return 0;
    if (ring->many) return cbuf__ready_of_many(reader, want);
    while (want > 1 && !cbuf__is_published(ring, cursor + want - 1)) want /= 2;
    reader->published = cursor + want;
    return want;
}

/* At each multiple of `ahead` rows. A reader that lags has the processor fetch as many rows, some
 * way ahead, and need not wait for one line after another: 250 against 175 M rows/s row by row, 410
 * against 220 by 32. Where not all are there yet, their producer still needs the lines; where the
 * last n rows were far more, the processor sees the way by itself (540 against 460, in place). */
CBUF__SLOW void cbuf__turn(cbuf_reader *reader, uint64_t n)
{
    const cbuf_ring *ring = reader->ring;
    if (reader->cursor >= reader->stamp_at) cbuf__stamp(reader);
    if (reader->ahead > 1024 || n > 2 * reader->ahead) return;
    uint64_t last = (reader->cursor | (reader->ahead - 1)) + 2 * reader->ahead;
    if (ring->dense ? last >= reader->published : !cbuf__is_published(ring, last)) return;
    const void *rows = cbuf__at(ring, last + 1 - reader->ahead);
    const char *line = CBUF__AS(const char *, rows);
    const char *end = line + cbuf__span(reader->ahead, ring->stride);
    for (; line < end; line += 64) __builtin_prefetch(line);
}
/* How many rows that is: a power of two, and at most an eighth of the ring. More than 1,024 are not
 * fetched. Rings that no near cache holds take longer: 180 against 97 M rows/s with 4 KiB. */
CBUF__SLOW uint64_t cbuf__rows_ahead(const cbuf_ring *ring, uint32_t wanted)
{
    bool far = cbuf__span(ring->capacity, ring->stride) > 8u << 20;
    uint64_t most = wanted ? wanted : (far ? 4096u : 1024u) / ring->stride, rows = 1;
    if (most > ring->capacity / 8) most = ring->capacity / 8;
    while (2 * rows <= most) rows *= 2;
    return rows > 1 ? rows : 4096;
}
CBUF__INLINE void cbuf__move_cursor(cbuf_reader *reader, uint64_t cursor)
{
    uint64_t before = reader->cursor;
    reader->cursor = cursor;
    cbuf__store_release(reader->shared_cursor, cursor); /* G2 */
    if (CBUF__UNLIKELY((before ^ cursor) >= reader->ahead)) cbuf__turn(reader, cursor - before);
    cbuf__fence_compiler(); /* E4 */
    if (CBUF__UNLIKELY(cbuf__load_relaxed(reader->room_at) <= cursor)) cbuf__wake_producer(reader);
}

/* Of n rows copied from the cursor on only those from `oldest` on are good: keeps these, counts the
 * others as lost, and returns how many are left. If none is, a reader that is lapped at one try
 * after another starts further on at each. */
CBUF__SLOW uint64_t cbuf__keep_tail(cbuf_reader *reader, unsigned char *rows, uint64_t n,
    uint64_t oldest, uint32_t row_bytes, uint32_t tries)
{
    uint64_t end = reader->cursor + n, bad = oldest - reader->cursor;
    if (oldest < end)
        memmove(rows, rows + cbuf__span(bad, row_bytes), cbuf__span(n - bad, row_bytes));
    else
        oldest += reader->ring->capacity / 64 * (tries < 32 ? tries : 32);
    cbuf__lose(reader, oldest);
    return oldest < end ? end - oldest : 0;
}

CBUF__INLINE int64_t cbuf__read_open(
    cbuf_reader *reader, void *to, uint32_t max, uint32_t row_bytes, const bool plain)
{
    const cbuf_ring *ring = reader->ring;
    unsigned char *rows = CBUF__AS(unsigned char *, to);
    uint64_t want = max < ring->capacity ? max : ring->capacity;
    for (uint32_t tries = 0; want; tries++) {
        uint64_t n = cbuf__ready(reader, want);
        if (!n && !cbuf__resync(reader)) return 0;
        if (!n) continue;
        uint64_t oldest;
        if (plain || !ring->delta) {
            cbuf__take_rows(ring, reader->cursor, rows, n, row_bytes);
            oldest = cbuf__validate(ring);
        } else {
            oldest = cbuf__take_deltas(ring, reader->cursor, rows, n);
        }
        if (CBUF__UNLIKELY(oldest > reader->cursor))
            n = cbuf__keep_tail(reader, rows, n, oldest, row_bytes, tries);
        if (!n) continue;
        reader->first = reader->cursor;
        cbuf__move_cursor(reader, reader->cursor + n);
        return CBUF__AS(int64_t, n);
    }
    return 0;
}

CBUF__SLOW int64_t cbuf__read_slowly(
    cbuf_reader *reader, void *rows, uint32_t max, uint32_t row_bytes)
{
    int error = cbuf__unusable(reader->ring, row_bytes);
    if (error) return error;
    bool locked = reader->ring->locked && reader->fd >= 0;
    if (locked) cbuf__lock(reader->fd, CBUF__SHARED, CBUF__ROWS_BYTE, true);
    int64_t n = cbuf__read_open(reader, rows, max, row_bytes, false);
    if (locked) cbuf__lock(reader->fd, CBUF__UNLOCK, CBUF__ROWS_BYTE, true);
    return n;
}

/* The shortest way for one row with its number in its padding, whose last word is data and the word
 * that publishes it in one. False if it takes more. */
CBUF__INLINE bool cbuf__read_row(cbuf_reader *reader, void *to, uint32_t row_bytes)
{
    const cbuf_ring *ring = reader->ring;
    unsigned char *row = CBUF__AS(unsigned char *, to);
    uint64_t cursor = reader->cursor;
    size_t last = row_bytes / 8 - 1;
    if (row_bytes < 8 || CBUF__UNLIKELY(ring->local->plain != row_bytes)) return false;
    const void *place = ring->rows + cbuf__span(cursor & ring->mask, row_bytes);
    const cbuf__word *from = CBUF__AS(const cbuf__word *, place);
    uint64_t word = cbuf__load_acquire(from + last); /* R2 <- W2 */
    if (cbuf__number_of(word) != CBUF__AS(uint32_t, cursor + 1)) return false;
    cbuf__words_out(row, from, last);
    memcpy(row + 8 * last, &word, 8);
    if (CBUF__UNLIKELY(!cbuf__is_whole(ring, cursor))) return false;
    reader->first = cursor;
    cbuf__move_cursor(reader, cursor + 1);
    return true;
}

CBUF__INLINE int64_t cbuf__read_rows(
    cbuf_reader *reader, void *rows, uint32_t max, uint32_t row_bytes)
{
    if (CBUF__UNLIKELY(reader->ring->local->row_bytes != row_bytes))
        return cbuf__read_slowly(reader, rows, max, row_bytes);
    return cbuf__read_open(reader, rows, max, row_bytes, true);
}

static inline int64_t cbuf_read(cbuf_reader *reader, void *rows, uint32_t max)
{
    return cbuf__read_rows(reader, rows, max, reader->ring->row_bytes);
}

static inline uint64_t cbuf_first(const cbuf_reader *reader) { return reader->first; }
static inline uint64_t cbuf_lost(const cbuf_reader *reader) { return reader->lost; }
static inline uint64_t cbuf_skipped(const cbuf_reader *reader) { return reader->skipped; }
static inline uint64_t cbuf_available(const cbuf_reader *reader)
{
    uint64_t head = cbuf_head(reader->ring);
    return head > reader->cursor ? head - reader->cursor : 0;
}

static inline int64_t cbuf_peek(cbuf_reader *reader, uint32_t max, const void **rows)
{
    const cbuf_ring *ring = reader->ring;
    int error = cbuf__usable(ring, ring->row_bytes);
    if (!error && ring->delta) error = CBUF_EDELTA;
    *rows = NULL;
    reader->peeked = 0;
    while (!error && max) {
        uint64_t n = cbuf__ready(reader, cbuf__until_end(ring, reader->cursor, max));
        if (!n && !cbuf__resync(reader)) return 0;
        uint64_t oldest = cbuf__validate(ring);
        if (oldest > reader->cursor) {
            cbuf__lose(reader, oldest);
        } else if (n) {
            *rows = cbuf__at(ring, reader->cursor);
            reader->peeked = n;
            return CBUF__AS(int64_t, n);
        }
    }
    return error;
}

static inline bool cbuf_still_valid(const cbuf_reader *reader)
{
    return cbuf__is_whole(reader->ring, reader->cursor);
}

static inline void cbuf_advance(cbuf_reader *reader, uint32_t n)
{
    uint64_t step = n < reader->peeked ? n : reader->peeked;
    reader->first = reader->cursor;
    reader->peeked = 0;
    cbuf__move_cursor(reader, reader->cursor + step);
}

/* A row far ahead has the number of one that is there: 32 bits tell 2^31 rows apart. */
CBUF__INLINE bool cbuf__too_far(const cbuf_ring *ring, uint64_t sequence)
{
    uint64_t head = cbuf_head(ring);
    return sequence > head && sequence - head > INT32_MAX;
}

static inline int cbuf_seek(cbuf_reader *reader, uint64_t sequence)
{
    int error = cbuf__usable(reader->ring, reader->ring->row_bytes);
    if (!error && cbuf__too_far(reader->ring, sequence)) error = CBUF_EINVAL;
    if (error) return error;
    reader->published = 0;
    cbuf__move_cursor(reader, sequence);
    return 0;
}

/* Takes a slot: by the lock of its byte in a file, by a compare-exchange in memory. Free ones
 * first, then those of the dead. */
CBUF__SLOW int cbuf__take_slot(cbuf_reader *reader)
{
    const cbuf_ring *ring = reader->ring;
    bool in_file = reader->fd >= 0;
    for (uint32_t i = 0; i < (in_file ? 2 : 1) * ring->options.max_readers; i++) {
        uint32_t k = i % ring->options.max_readers;
        struct cbuf__slot *slot = &ring->readers->slots[k];
        uint64_t owned = cbuf__load_acquire(&slot->owned);
        if (owned && i == k) continue;
        if (in_file && cbuf__lock(reader->fd, CBUF__EXCLUSIVE, k, false)) continue;
        if (in_file && !cbuf__free_dead(ring, reader->fd, k)) {
            cbuf__lock(reader->fd, CBUF__UNLOCK, k, false);
            continue;
        }
        if (!in_file && !cbuf__compare_exchange_acq_rel(&slot->owned, &owned, 1)) continue;
        cbuf__store_relaxed(&slot->owned, 1);
        reader->slot = slot;
        reader->index = k;
        return 0;
    }
    return CBUF_ESLOTS;
}

/* The next row that anybody may begin to write. */
CBUF__INLINE uint64_t cbuf__edge(const cbuf_ring *ring)
{
    return ring->many ? cbuf__claimed(ring) : cbuf__load_acquire(&ring->file->head);
}

/* Says in the slot whose it is now. */
CBUF__SLOW void cbuf__introduce(cbuf_reader *reader, const cbuf_reader_options *options)
{
    const cbuf_ring *ring = reader->ring;
    struct cbuf__slot *slot = reader->slot;
    unsigned char name[CBUF_NAME_BYTES] = "reader";
    size_t length = options->name ? strlen(options->name) : 0;
    if (options->name) memset(name, 0, sizeof name);
    if (options->name) memcpy(name, options->name, length < sizeof name ? length : sizeof name - 1);
    cbuf__count(&slot->incarnation, 1);
    cbuf__store_relaxed(&slot->lost, 0);
    cbuf__store_relaxed(&slot->waits, 0);
#ifndef CBUF_NO_OS
    cbuf__store_relaxed(&slot->pid, CBUF__AS(uint64_t, getpid()));
#endif
    cbuf__store_relaxed(&slot->started_ns, CBUF__AS(uint64_t, cbuf__now_ns(CBUF__REALTIME)));
    cbuf__words_in(slot->name, name, sizeof name / 8);
    uint64_t high = cbuf__load_relaxed(&ring->readers->high), own = reader->index + 1;
    while (high < own && !cbuf__compare_exchange_acq_rel(&ring->readers->high, &high, own)) {}
}

/* Fills the slot in, and stands at the gate: see cbuf__scan_gates. */
CBUF__SLOW void cbuf__register(cbuf_reader *reader, const cbuf_reader_options *options)
{
    const cbuf_ring *ring = reader->ring;
    struct cbuf__slot *slot = reader->slot;
    cbuf__store_release(&slot->cursor, CBUF__FREE);
    cbuf__store_relaxed(&slot->group, 0);
    cbuf__store_relaxed(&slot->gate, ring->gated && !options->lossy);
    cbuf__introduce(reader, options);
    reader->shared_cursor = &slot->cursor;
    cbuf__store_release(&slot->cursor, cbuf__edge(ring)); /* G1 */
    cbuf__fence_seq_cst(); /* G1; the second look at the edge follows in cbuf__begin_reading */
}

/* Goes to the first row; after the slot is filled in. */
CBUF__SLOW void cbuf__begin_reading(cbuf_reader *reader, const cbuf_reader_options *options)
{
    const cbuf_ring *ring = reader->ring;
    uint64_t head = cbuf__edge(ring), oldest = cbuf_oldest(ring); /* G1 */
    if (oldest > head) oldest = head; /* a producer died that far ahead of its last row */
    uint64_t start = options->start == CBUF_NEWEST ? head : oldest;
    if (options->start == CBUF_AT) start = options->sequence;
    cbuf__store_release(reader->shared_cursor, start);
    reader->cursor = reader->first = start;
    cbuf__stamp(reader);
}

CBUF__SLOW int cbuf__open_slot(cbuf_reader *reader, const cbuf_reader_options *options);

static inline int cbuf_reader_open(
    cbuf_reader *reader, const cbuf_ring *ring, const cbuf_reader_options *options)
{
    cbuf_reader_options chosen;
    memset(&chosen, 0, sizeof chosen);
    memset(reader, 0, sizeof *reader);
    if (options) chosen = *options;
    reader->fd = -1;
    int error = cbuf__usable(ring, ring->row_bytes);
    if (error) return error;
    bool at = chosen.start == CBUF_AT;
    if (chosen.start > CBUF_AT || chosen.wait > CBUF_YIELD || chosen.prefetch > 1024 ||
        (at && cbuf__too_far(ring, chosen.sequence)))
        return CBUF_EINVAL;
    reader->ring = ring;
    reader->shared_cursor = &reader->unused;
    reader->room_at = &ring->local->never;
    reader->ahead = cbuf__rows_ahead(ring, chosen.prefetch);
    reader->spins = chosen.spins ? chosen.spins : 1000;
    reader->wait = chosen.wait;
    reader->mended_ns = cbuf__now_ns(CBUF__MONOTONIC);
    if (!chosen.anonymous && (error = cbuf__open_slot(reader, &chosen)) != 0) return error;
    cbuf__begin_reading(reader, &chosen);
    return 0;
}

static inline void cbuf_reader_close(cbuf_reader *reader)
{
    if (!reader->ring) return;
    if (reader->slot && reader->ring->local->never == UINT64_MAX) { /* a forked child's is not */
        bool gate = cbuf__load_relaxed(&reader->slot->gate) != 0;
        cbuf__store_release(&reader->slot->gate, 0); /* G2 */
        cbuf__store_release(&reader->slot->cursor, CBUF__FREE);
        cbuf__store_release(&reader->slot->owned, 0);
        const cbuf_ring *ring = reader->ring;
        if (gate) cbuf__wake(&ring->readers->room, CBUF__FREE, ring->readers_fd);
    }
#ifndef CBUF_NO_OS
    if (reader->fd >= 0) close(reader->fd);
#endif
    reader->fd = -1;
    reader->slot = NULL;
    reader->shared_cursor = &reader->unused;
}

/* ============================================================================= [observe] ==== */

static inline uint64_t cbuf_head(const cbuf_ring *ring)
{
    return ring->many ? cbuf__many_head(ring) : cbuf__load_acquire(&ring->file->head);
}
static inline uint64_t cbuf_oldest(const cbuf_ring *ring)
{
    return cbuf__oldest_at(ring, cbuf__load_acquire(&ring->file->reserve));
}

/* The same of many producers, row by row, without the rows that were given up. Each try starts
 * further on, as far as half of what there is. */
CBUF__SLOW int64_t cbuf__snapshot_many(
    const cbuf_ring *ring, unsigned char *rows, uint32_t n, uint64_t *first)
{
    for (uint64_t tries = 0;; tries++) {
        uint64_t oldest = cbuf_oldest(ring), head = cbuf_head(ring), start = head; /* O1 */
        uint32_t wanted = 0, count = 0;
        *first = head;
        if (oldest >= head) return 0; /* all behind a row that is not finished */
        oldest += (head - oldest) * (tries < 32 ? tries : 32) / 64;
        while (start > oldest && wanted < n) wanted += !cbuf__is_aborted(ring, --start);
        *first = start;
        for (uint64_t i = start; i < head && count < wanted; i++) {
            if (cbuf__is_aborted(ring, i)) continue;
            if (!count) *first = i;
            cbuf__take(ring, i, rows + cbuf__span(count++, ring->row_bytes), ring->row_bytes);
        }
        if (cbuf__validate(ring) <= start && count == wanted) return count;
    }
}

static inline int64_t cbuf_snapshot(const cbuf_ring *ring, void *to, uint32_t n, uint64_t *first)
{
    unsigned char *rows = CBUF__AS(unsigned char *, to);
    int error = cbuf__usable(ring, ring->row_bytes);
    uint64_t ignored;
    if (!first) first = &ignored;
    *first = 0;
    if (error) return error;
    if (ring->many) return cbuf__snapshot_many(ring, rows, n, first);
    for (int tries = 0;; tries++) {
        uint64_t start = cbuf_oldest(ring), head = cbuf_head(ring); /* O1: so start < head */
        uint64_t most = n < ring->capacity ? n : ring->capacity;
        if (head > most && start < head - most) start = head - most;
        uint64_t count = head > start ? head - start : 0;
        *first = start;
        if (!count) return 0;
        uint64_t oldest = start;
        if (ring->delta) oldest = cbuf__take_deltas(ring, start, rows, count);
        else cbuf__take_rows(ring, start, rows, count, ring->row_bytes);
        if (!ring->delta) oldest = cbuf__validate(ring);
        if (oldest <= start) return CBUF__AS(int64_t, count);
        if (tries < 8 || oldest >= head) continue;
        size_t bad = cbuf__span(oldest - start, ring->row_bytes);
        memmove(rows, rows + bad, cbuf__span(head - oldest, ring->row_bytes));
        *first = oldest;
        return CBUF__AS(int64_t, head - oldest);
    }
}

static inline int cbuf_latest(const cbuf_ring *ring, void *row, uint64_t *sequence)
{
    return CBUF__AS(int, cbuf_snapshot(ring, row, 1, sequence));
}

/* One field of at most 8 bytes of one row; false if the row is not to be trusted. */
CBUF__SLOW bool cbuf__field(
    const cbuf_ring *ring, uint64_t sequence, uint32_t offset, size_t bytes, void *value)
{
    unsigned char words[16], row[CBUF__BUFFER / 2];
    if (ring->delta) {
        bool whole = cbuf__take_deltas(ring, sequence, row, 1) <= sequence;
        return memcpy(value, row + offset, bytes), whole;
    }
    cbuf__words_out(words, cbuf__at(ring, sequence) + offset / 8, (offset % 8 + bytes + 7) / 8);
    memcpy(value, words + offset % 8, bytes);
    return cbuf__is_whole(ring, sequence);
}

/* ================================================================================ [text] ==== */

/* Text put together piece by piece, cut off at `end`. */
typedef struct cbuf__text {
    char *at, *end;
    bool full;
} cbuf__text;

CBUF__SLOW void cbuf__say(cbuf__text *text, const char *words)
{
    for (; *words; words++) {
        if (text->at + 1 < text->end) *text->at++ = *words;
        else text->full = true;
    }
    if (text->at < text->end) *text->at = 0;
}
CBUF__SLOW void cbuf__say_number(cbuf__text *text, const char *words, uint64_t number)
{
    char digits[24], *p = digits + sizeof digits;
    *--p = 0;
    do *--p = CBUF__AS(char, '0' + number % 10);
    while (number /= 10);
    cbuf__say(text, words);
    cbuf__say(text, p);
}

static inline const char *cbuf_strerror(int64_t code)
{
#define CBUF__TEXT(name, value, text) case value: return text;
    switch (code) {
        CBUF_ERRORS(CBUF__TEXT)
    default: return code < 0 ? "unknown error" : "no error";
    }
#undef CBUF__TEXT
}

/* Says in the handle why a call fails, "path: what the code says: detail", and returns the code. */
CBUF__SLOW int cbuf__fail(cbuf_ring *ring, int code, const char *detail)
{
    cbuf__text text = { ring->error, ring->error + sizeof ring->error, false };
    if (ring->path[0]) cbuf__say(&text, ring->path), cbuf__say(&text, ": ");
    cbuf__say(&text, cbuf_strerror(code));
    cbuf__say(&text, ": ");
    cbuf__say(&text, detail);
    return code;
}
CBUF__SLOW cbuf__text cbuf__more(cbuf_ring *ring) /* to go on at the end of that */
{
    char *end = ring->error + strlen(ring->error);
    cbuf__text text = { end, ring->error + sizeof ring->error, false };
    return text;
}
CBUF__SLOW int cbuf__fail_with(cbuf_ring *ring, int code, const char *what, uint64_t value,
    const char *limit_is, uint64_t limit)
{
    cbuf__fail(ring, code, what);
    cbuf__text text = cbuf__more(ring);
    cbuf__say_number(&text, " is ", value);
    cbuf__say(&text, ", ");
    cbuf__say_number(&text, limit_is, limit);
    return code;
}

typedef struct cbuf__limit { /* a number, and what it must lie between */
    const char *what;
    uint64_t is, least, most;
} cbuf__limit;
#define CBUF__COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
/* 0, or `code` and the first of the numbers that does not. */
CBUF__SLOW int cbuf__check_limits(
    cbuf_ring *ring, int code, const cbuf__limit *limits, size_t count)
{
    for (const cbuf__limit *l = limits; l < limits + count; l++) {
        bool low = l->is < l->least;
        if (!low && l->is <= l->most) continue;
        return cbuf__fail_with(ring, code, l->what, l->is,
            l->least == l->most ? "wanted is " : low ? "the least is " : "the limit is ",
            low ? l->least : l->most);
    }
    return 0;
}

CBUF__SLOW void cbuf__say_type(cbuf__text *text, uint32_t type)
{
    static const char *const kinds[] = { "", "int", "uint", "float", "bool", "timestamp[ns]", "S",
        "ref" };
    uint32_t kind = type >> 24, bytes = CBUF_TYPE_BYTES(type);
    if (kind == 4 || kind == 5 || kind == 7) cbuf__say(text, kinds[kind]);
    else cbuf__say_number(text, kinds[kind], kind == 6 ? bytes : 8 * bytes);
}

CBUF__SLOW bool cbuf__is_type(uint32_t type)
{
    uint32_t kind = type >> 24, bytes = CBUF_TYPE_BYTES(type);
    bool power = bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
    return (kind == 1 || kind == 2) ? power
        : kind == 3 ? bytes == 4 || bytes == 8
        : kind == 6 ? bytes >= 1 && bytes <= CBUF_MAX_ROW_BYTES
                    : type == CBUF_BOOL || type == CBUF_TIMESTAMP_NS || type == CBUF_REF;
}

/* The type of that name, or 0. */
CBUF__SLOW uint32_t cbuf__type_of(const char *name)
{
    char known[24];
    for (uint32_t kind = 1; kind < 8; kind += kind == 5 ? 2 : 1) {
        for (uint32_t bytes = 1; bytes <= 8; bytes *= 2) {
            cbuf__text text = { known, known + sizeof known, false };
            uint32_t type = kind << 24 | bytes;
            cbuf__say_type(&text, type);
            if (cbuf__is_type(type) && !strcmp(name, known)) return type;
        }
    }
    uint32_t n = 0;
    if (*name++ != 'S' || *name == '0') return 0;
    for (; *name >= '0' && *name <= '9' && n <= CBUF_MAX_ROW_BYTES; name++)
        n = 10 * n + CBUF__AS(uint32_t, *name - '0');
    return *name || !n || n > CBUF_MAX_ROW_BYTES ? 0 : CBUF_BYTES(n);
}

CBUF__SLOW const char *cbuf__column_fault(const cbuf_column *column) /* or NULL */
{
    size_t n = 0;
    for (; n < sizeof column->name && column->name[n]; n++)
        if (column->name[n] < ' ' || column->name[n] > '~' || strchr("\"\\", column->name[n]))
            return "a column's name has a quote, a backslash or what is not printable ASCII";
    if (!n || n == sizeof column->name) return "a column's name is empty or too long";
    if (!cbuf__is_type(column->type)) return "a column has an unknown type";
    return column->offset > CBUF_MAX_ROW_BYTES ? "a column's offset is missing or too large" : NULL;
}

/* The column that follows `after` in the order of offsets; NULL: the first, or there is no more. */
CBUF__SLOW const cbuf_column *cbuf__next_column(
    const cbuf_options *options, const cbuf_column *after)
{
    const cbuf_column *next = NULL;
    for (uint32_t k = 0; k < options->column_count; k++) {
        const cbuf_column *c = options->columns + k;
        bool behind = !after || c->offset > after->offset;
        if (after && c->offset == after->offset) behind = c > after;
        if (behind && (!next || c->offset < next->offset)) next = c;
    }
    return next;
}

/* A strict reader of JSON (RFC 8259) that allocates nothing and believes nothing: whatever the
 * bytes are, and also while they change, it stays between `at` and `end` and comes to an end. `why`
 * is set at the first fault; from then on nothing is taken. */
typedef struct cbuf__json {
    const char *at, *end, *why;
    int depth;
} cbuf__json;

CBUF__SLOW void cbuf__json_fault(cbuf__json *json, const char *why)
{
    if (!json->why) json->why = why;
    json->end = json->at; /* nothing more is read */
}
CBUF__SLOW char cbuf__json_peek(cbuf__json *json) /* the next character but space, or 0 */
{
    while (json->at < json->end && *json->at && strchr(" \t\n\r", *json->at)) json->at++;
    return json->at < json->end ? *json->at : CBUF__AS(char, 0);
}
CBUF__SLOW bool cbuf__json_take(cbuf__json *json, char wanted)
{
    bool there = cbuf__json_peek(json) == wanted;
    json->at += there;
    return there;
}
CBUF__SLOW void cbuf__json_need(cbuf__json *json, char wanted, const char *why)
{
    if (!cbuf__json_take(json, wanted)) cbuf__json_fault(json, why);
}
/* A string, copied to `to` of CBUF_NAME_BYTES if there is one; then it may have no escapes. */
CBUF__SLOW void cbuf__json_string(cbuf__json *json, char *to)
{
    size_t n = 0;
    cbuf__json_need(json, '"', "a string is missing");
    while (!json->why) {
        char c = json->at < json->end ? *json->at++ : CBUF__AS(char, 0);
        if (c == '"') break;
        if (CBUF__AS(unsigned char, c) < ' ') cbuf__json_fault(json, "a string does not end");
        if (c == '\\' && to) cbuf__json_fault(json, "a name, type or key has an escape");
        if (c == '\\' && json->at < json->end) json->at++;
        if (to && n == CBUF_NAME_BYTES - 1)
            cbuf__json_fault(json, "a name, type or key is too long");
        if (to && !json->why) to[n++] = c;
    }
    if (to) to[n] = 0;
}
CBUF__SLOW uint64_t cbuf__json_number(cbuf__json *json, uint64_t most)
{
    uint64_t number = 0;
    char c = cbuf__json_peek(json);
    if (c < '0' || c > '9') cbuf__json_fault(json, "a whole number is missing");
    for (; json->at < json->end && (c = *json->at) >= '0' && c <= '9'; json->at++) {
        if (number > most) cbuf__json_fault(json, "a number is too large");
        else number = 10 * number + CBUF__AS(uint32_t, c - '0');
    }
    return number;
}
/* The next member of an object ('{'; its key is copied to `key` if there is one) or element of an
 * array ('['); *first: its first one. False at its end. */
CBUF__SLOW bool cbuf__json_next(cbuf__json *json, char open, bool *first, char *key)
{
    if (*first) cbuf__json_need(json, open, "an object or array is missing");
    if (json->why || cbuf__json_take(json, open == '{' ? '}' : ']')) return false;
    if (!*first) cbuf__json_need(json, ',', "a comma is missing");
    if (open == '{') cbuf__json_string(json, key);
    if (open == '{') cbuf__json_need(json, ':', "a colon is missing");
    *first = false;
    return !json->why;
}
CBUF__SLOW void cbuf__json_skip(cbuf__json *json) /* any value */
{
    char open = cbuf__json_peek(json);
    const char *start = json->at;
    bool first = true;
    if (open == '"') {
        cbuf__json_string(json, NULL);
    } else if (open == '{' || open == '[') {
        if (++json->depth > 8) cbuf__json_fault(json, "nested too deeply");
        while (cbuf__json_next(json, open, &first, NULL)) cbuf__json_skip(json);
        json->depth--;
    } else { /* a number, true, false, null */
        while (json->at < json->end && *json->at && strchr("+-.0123456789Eaeflnrstu", *json->at))
            json->at++;
        if (json->at == start) cbuf__json_fault(json, "a value is missing");
    }
}

/* =============================================================================== [delta] ==== */

/* Columns that are stored as small differences: cbuf_delta.h, which is taken in where it lies
 * beside this file. Without it a ring that has such columns is refused. */
#if defined __has_include && !defined CBUF_NO_DELTA
#if __has_include("cbuf_delta.h")
#include "cbuf_delta.h"
#endif
#endif
#ifdef CBUF_DELTA_H
#define CBUF__KNOWN (CBUF__KNOWN_ALONE | CBUF__DELTA | CBUF__PACKED)
#else
#define CBUF__KNOWN CBUF__KNOWN_ALONE
#define CBUF__NO_DELTAS "cbuf_delta.h is not beside cbuf.h"
CBUF__SLOW const char *cbuf__plan_deltas(
    cbuf__codec *codec, const cbuf_options *options, cbuf__facts *facts)
{
    return (void)codec, (void)options, (void)facts, CBUF__NO_DELTAS;
}
CBUF__SLOW const char *cbuf__bind_deltas(
    cbuf_ring *ring, unsigned char *base, const cbuf__facts *facts)
{
    return (void)ring, (void)base, (void)facts, CBUF__NO_DELTAS;
}
CBUF__SLOW const char *cbuf__check_delta(cbuf__codec *codec, const cbuf_column *column,
    uint32_t index, const cbuf_delta *delta, uint32_t stored)
{
    return (void)codec, (void)column, (void)index, (void)delta, (void)stored, CBUF__NO_DELTAS;
}
CBUF__SLOW const char *cbuf__other_delta(const cbuf_ring *ring, const cbuf_options *options)
{
    return (void)ring, (void)options, CBUF__NO_DELTAS;
}
CBUF__SLOW double cbuf__json_step(cbuf__json *json) { return (void)json, 0; }
CBUF__SLOW void cbuf__write_delta(
    cbuf__text *text, const cbuf__codec *codec, const cbuf_column *column)
{
    (void)text, (void)codec, (void)column;
}
CBUF__SLOW uint64_t cbuf__put_deltas(cbuf_ring *ring, const unsigned char *rows, uint64_t n)
{
    return (void)ring, (void)rows, (void)n, 0;
}
CBUF__SLOW uint64_t cbuf__take_deltas(
    const cbuf_ring *ring, uint64_t first, unsigned char *rows, uint64_t n)
{
    return (void)ring, (void)rows, first + n;
}
CBUF__INLINE void cbuf__take_over_deltas(cbuf_ring *ring) { (void)ring; }
CBUF__INLINE uint64_t cbuf__plane_offset(const cbuf_ring *ring) { return ring->file_bytes; }
#endif

/* ============================================================================== [schema] ==== */

CBUF__SLOW void cbuf__write_schema(cbuf__text *text, const cbuf__facts *facts,
    const cbuf_options *options, const cbuf__codec *codec)
{
    cbuf__say(text, "{\"format\":\"cbuf 1.0\",\"layout\":");
    cbuf__say(text, cbuf__has(facts, CBUF__DENSE) ? "\"dense\"" : "\"numbered\"");
    cbuf__say_number(text, ",\"capacity\":", facts->capacity);
    cbuf__say_number(text, ",\"row_bytes\":", facts->row_bytes);
    cbuf__say_number(text, ",\"stride\":", facts->stride);
    cbuf__say_number(text, ",\"rows_offset\":", facts->rows_offset);
    cbuf__say_number(text, ",\"head_offset\":", offsetof(struct cbuf__file, head));
    cbuf__say_number(text, ",\"reserve_offset\":", offsetof(struct cbuf__file, reserve));
    if (facts->producers) {
        cbuf__say_number(text, ",\"producers\":", facts->producers);
        cbuf__say_number(text, ",\"claim_offset\":", offsetof(struct cbuf__file, claim));
        cbuf__say_number(text, ",\"pens_offset\":", cbuf__pens_offset(facts));
    }
    if (codec->deltas) {
        cbuf__say_number(text, ",\"block_rows\":", facts->block_rows);
        cbuf__say_number(text, ",\"escapes_offset\":", facts->escapes_offset);
        cbuf__say_number(text, ",\"bases_offset\":", facts->bases_offset);
        cbuf__say_number(text, ",\"plane_offset\":", facts->plane_offset);
    }
    const char *before = ",\"columns\":[\n{\"name\":\"";
    for (const cbuf_column *c = NULL; (c = cbuf__next_column(options, c)) != NULL;) {
        cbuf__say(text, before);
        cbuf__say(text, c->name);
        cbuf__say(text, "\",\"type\":\"");
        cbuf__say_type(text, c->type);
        cbuf__say_number(text, "\",\"offset\":", c->offset);
        if (codec->deltas) cbuf__write_delta(text, codec, c);
        before = "},\n{\"name\":\"";
    }
    cbuf__say(text, "}\n]}\n");
}

/* What is asked of a schema: the column of that index, or of that name, or the first of a type; and
 * how columns are stored: a codec to be filled in, or one that is, to be compared. */
typedef struct cbuf__query {
    const char *name;
    uint32_t type, index;
    cbuf__codec *codec; /* or NULL */
    cbuf_column found; /* its type is 0 if there is none */
    const char *why;   /* the schema's fault, or NULL */
    uint32_t end;      /* where the last column ends */
} cbuf__query;

/* Checks a column against those before it: in the order of their offsets, none named twice. The
 * fault, or NULL. */
CBUF__SLOW const char *cbuf__check_column(cbuf__query *query, const cbuf_column *column,
    const char **names, uint32_t index, uint32_t row_bytes)
{
    size_t length = strlen(column->name) + 1; /* with the quote behind it */
    const char *fault = cbuf__column_fault(column);
    if (fault) return fault;
    for (uint32_t k = 0; k < index; k++)
        if (!memcmp(names[k], names[index], length)) return "a name stands twice";
    if (column->offset < query->end) return "columns overlap or are out of order";
    query->end = column->offset + CBUF_TYPE_BYTES(column->type);
    if (query->end > row_bytes) return "a column ends beyond the row";
    bool hit = query->name ? !strcmp(query->name, column->name)
        : query->type      ? query->type == column->type && !query->found.type
                           : query->index == index;
    if (hit) query->found = *column;
    return NULL;
}

/* Reads a column, where its name stands, and how it is stored. */
CBUF__SLOW void cbuf__read_column(cbuf__query *query, cbuf__json *json, const char **names,
    uint32_t index, uint32_t row_bytes)
{
    char key[CBUF_NAME_BYTES], type[CBUF_NAME_BYTES] = "";
    cbuf_column column = { "", 0, UINT32_MAX };
    cbuf_delta delta = { "", 0, 0 };
    uint32_t stored = UINT32_MAX;
    bool first = true;
    names[index] = json->at;
    while (cbuf__json_next(json, '{', &first, key)) {
        if (!strcmp(key, "name")) {
            cbuf__json_string(json, column.name);
            names[index] = json->at - strlen(column.name) - 1;
        } else if (!strcmp(key, "type")) {
            cbuf__json_string(json, type);
        } else if (!strcmp(key, "offset")) {
            column.offset = CBUF__AS(uint32_t, cbuf__json_number(json, CBUF_MAX_ROW_BYTES));
        } else if (!strcmp(key, "delta")) {
            delta.bits = CBUF__AS(uint32_t, cbuf__json_number(json, CBUF_MAX_ROW_BYTES));
        } else if (!strcmp(key, "step")) {
            delta.step = cbuf__json_step(json);
        } else if (!strcmp(key, "stored")) {
            stored = CBUF__AS(uint32_t, cbuf__json_number(json, CBUF_MAX_ROW_BYTES));
        } else {
            cbuf__json_skip(json);
        }
    }
    if (json->why) return;
    column.type = cbuf__type_of(type);
    const char *fault = cbuf__check_column(query, &column, names, index, row_bytes);
    const cbuf_delta *is = delta.bits || delta.step > 0 ? &delta : NULL;
    if (!fault && query->codec)
        fault = cbuf__check_delta(query->codec, &column, index, is, stored);
    if (fault) cbuf__json_fault(json, fault);
}

/* Reads the whole schema and checks it: how many columns there are; 0 and query->why if it is not
 * valid. Keys that are not known are passed over. */
CBUF__SLOW uint32_t cbuf__read_schema(
    const char *text, size_t bytes, uint32_t row_bytes, cbuf__query *query)
{
    cbuf__json json = { text, text + bytes, NULL, 0 };
    const char *names[CBUF_MAX_COLUMNS];
    char key[CBUF_NAME_BYTES];
    uint32_t count = 0;
    bool first = true, none = true;
    memset(&query->found, 0, sizeof query->found);
    query->end = 0;
    while (cbuf__json_next(&json, '{', &first, key)) {
        if (strcmp(key, "columns")) {
            cbuf__json_skip(&json);
            continue;
        }
        if (!none) cbuf__json_fault(&json, "\"columns\" stands twice");
        while (cbuf__json_next(&json, '[', &none, NULL)) {
            if (count == CBUF_MAX_COLUMNS) cbuf__json_fault(&json, "too many columns");
            else cbuf__read_column(query, &json, names, count++, row_bytes);
        }
    }
    if (!count) cbuf__json_fault(&json, "no columns");
    cbuf__json_peek(&json);
    if (json.at < json.end) cbuf__json_fault(&json, "text behind the end");
    query->why = json.why;
    return json.why ? 0 : count;
}

static inline const char *cbuf_schema(const cbuf_ring *ring, size_t *bytes)
{
    *bytes = ring->schema_bytes;
    return ring->schema;
}
CBUF__SLOW int cbuf__find_column(
    const cbuf_ring *ring, const char *name, uint32_t index, cbuf_column *column)
{
    cbuf__query query;
    memset(&query, 0, sizeof query);
    query.name = name;
    query.index = index;
    if (!ring->file) return CBUF_ENOTOPEN;
    if (!cbuf__read_schema(ring->schema, ring->schema_bytes, ring->row_bytes, &query))
        return CBUF_ESCHEMA;
    *column = query.found;
    return column->type ? 0 : CBUF_EINVAL;
}
static inline int cbuf_column_at(const cbuf_ring *ring, uint32_t index, cbuf_column *column)
{
    return cbuf__find_column(ring, NULL, index, column);
}
static inline int cbuf_column_find(const cbuf_ring *ring, const char *name, cbuf_column *column)
{
    return cbuf__find_column(ring, name, 0, column);
}

/* ========================================================================= [memory-ring] ==== */

/* Checks the columns one by one, and finds where the last one ends. */
CBUF__SLOW int cbuf__check_columns(cbuf_ring *ring, const cbuf_options *o, uint32_t *end)
{
    *end = 0;
    for (uint32_t k = 0; k < o->column_count; k++) {
        const char *fault = cbuf__column_fault(o->columns + k);
        if (fault) return cbuf__fail(ring, CBUF_ESCHEMA, fault);
        uint32_t ends = o->columns[k].offset + CBUF_TYPE_BYTES(o->columns[k].type);
        if (ends > *end) *end = ends;
    }
    if (!o->row_bytes || *end <= o->row_bytes) return 0;
    return cbuf__fail_with(
        ring, CBUF_EINVAL, "row_bytes", o->row_bytes, "the last column ends at ", *end);
}

CBUF__INLINE size_t cbuf__readers_size(uint64_t slots)
{
    return offsetof(struct cbuf__readers, slots) + cbuf__span(slots, sizeof(struct cbuf__slot));
}

/* Finds where the parts behind the schema go: gates, pens, counters of escapes with a bit for each
 * page of their plane; rows; bases, plane; in memory the readers' table. */
CBUF__SLOW void cbuf__place(cbuf__facts *f, bool in_file)
{
    const uint64_t page = in_file ? 4096 : CBUF__LINE, words = f->delta_count * f->capacity;
    uint64_t end = cbuf__pens_end(f);
    if (f->delta_count) {
        f->escapes_offset = f->gates_offset + 8ull * f->max_readers;
        end = f->escapes_offset + 8 * (f->delta_count + words / (512 * 64) + 1);
    }
    f->rows_offset = cbuf__round_up(end, page);
    end = f->rows_offset + f->capacity * f->stride;
    if (f->delta_count) {
        f->bases_offset = cbuf__round_up(end, 8);
        end = f->bases_offset + 8 * (words / f->block_rows);
        f->plane_offset = cbuf__round_up(end, page);
        end = f->plane_offset + 8 * words;
    }
    f->file_bytes = cbuf__round_up(end, page);
    if (in_file) return;
    f->readers_offset = f->file_bytes;
    f->file_bytes += cbuf__readers_size(f->max_readers);
}

/* Whether what begins with these facts is a ring that this program knows. */
CBUF__SLOW int cbuf__check_mark(
    cbuf_ring *ring, const cbuf__facts *f, uint64_t bytes, bool in_file)
{
    const uint64_t known = CBUF__KNOWN;
    if (bytes < sizeof(struct cbuf__file) || memcmp(f->magic, CBUF__MAGIC, 8))
        return cbuf__fail(ring, CBUF_EFORMAT, "it does not begin with a ring's mark");
    if (f->byte_order != CBUF__BYTE_ORDER)
        return cbuf__fail(ring, f->byte_order == 0x04030201u ? CBUF_EBYTEORDER : CBUF_EFORMAT,
            "its byte order mark");
    if (f->major != CBUF__MAJOR)
        return cbuf__fail_with(ring, CBUF_EVERSION, "its major version", f->major,
            "this program knows ", CBUF__MAJOR);
    if (f->features & ~known)
        return cbuf__fail_with(ring, CBUF_EFEATURE, "its word of features", f->features,
            "this program knows ", known);
    if (in_file == !f->readers_offset) return 0;
    return cbuf__fail(
        ring, CBUF_EFORMAT, in_file ? "it was made in memory" : "it was made in a file");
}

/* Whether the facts of a ring of so many bytes make sense, alone and together: 0, or `code` and
 * why. No ring is made, and nothing of a ring believed, whose facts have not passed here. */
CBUF__SLOW int cbuf__check_facts(cbuf_ring *ring, const cbuf__facts *f, uint64_t bytes, int code)
{
    bool dense = cbuf__has(f, CBUF__DENSE), shared = cbuf__has(f, CBUF__SHARED_TAIL);
    bool many = cbuf__has(f, CBUF__MANY), locked = cbuf__has(f, CBUF__LOCKED);
    bool delta = cbuf__has(f, CBUF__DELTA), packed = cbuf__has(f, CBUF__PACKED);
    const uint64_t row_bytes = f->row_bytes, half = f->capacity / 2, end = f->schema_offset;
    const cbuf__limit limits[] = { { "its size", bytes, f->file_bytes, f->file_bytes },
        { "row_bytes", row_bytes, 1, delta ? CBUF__BUFFER / 2 : CBUF_MAX_ROW_BYTES },
        { "the rows' stride", f->stride, delta ? 1 : row_bytes + (dense || shared ? 0u : 4u),
            delta ? CBUF__BUFFER / 2 : shared ? row_bytes : CBUF_MAX_ROW_BYTES + 16 },
        { "capacity", f->capacity, 2, CBUF_MAX_CAPACITY },
        { "reserve_step", f->reserve_step, 1, half },
        { "max_readers", f->max_readers, 1, CBUF_MAX_READERS },
        { "producers", f->producers, many ? 2u : 0u, many ? CBUF_MAX_PRODUCERS : 1u },
        { "on_full", f->on_full, 0, CBUF_SPILL },
        { "delta_count", f->delta_count, delta, delta ? CBUF_MAX_DELTAS : 0u },
        { "block_rows", f->block_rows, delta, delta ? half : UINT32_MAX },
        { "schema_bytes", f->schema_bytes, 0, CBUF_MAX_SCHEMA_BYTES },
        { "schema_offset", end, sizeof(struct cbuf__file), UINT32_MAX },
        { "gates_offset", f->gates_offset, end + f->schema_bytes, UINT32_MAX } };
    int error = cbuf__check_limits(ring, code, limits, CBUF__COUNT_OF(limits));
    if (error) return error;
    const char *fault = NULL;
    cbuf__facts placed = *f;
    cbuf__place(&placed, !f->readers_offset);
    if (placed.file_bytes <= bytes) placed.file_bytes = bytes; /* it was made of large pages */
    if (memcmp(&placed, f, sizeof placed)) fault = "the place of its rows, or of what lies around";
    bool whole = f->stride % 8 == 0;
    if (whole == packed || f->gates_offset % 8 || f->capacity & (f->capacity - 1))
        fault = "its stride, capacity or gates";
    if (delta && f->block_rows & (f->block_rows - 1)) fault = "block_rows is no power of two";
    if (shared ? dense : delta && !dense) fault = "its layout";
    if (packed && !(delta && dense)) fault = "its layout";
    if (locked && f->readers_offset) fault = "a ring in memory cannot be locked";
    if (many && (dense || locked || delta || f->capacity > 1u << 30))
        fault = "many producers need the numbered layout, no lock, no delta columns, and a "
                "capacity of at most 2^30";
    if (fault) return cbuf__fail(ring, code, fault);
    return bytes <= SIZE_MAX / 2 ? 0 : cbuf__fail_with(ring, code, "its size", bytes,
        "the limit is ", SIZE_MAX / 2);
}

/* How rows lie: their stride, and where their numbers are. The columns end at `end`. */
CBUF__SLOW void cbuf__shape_rows(
    const cbuf_options *o, const cbuf__codec *codec, uint32_t end, cbuf__facts *f)
{
    bool dense = o->layout == CBUF_DENSE, delta = o->delta_count > 0;
    bool fits = !o->in_place && f->row_bytes % 8 == 0 && end + 4 <= f->row_bytes; /* the number */
    uint64_t bytes = delta ? codec->stored_bytes : f->row_bytes;
    if (!dense && (delta || !fits)) bytes += 4;
    uint64_t stride = delta && dense && !o->pad_rows ? bytes : cbuf__round_up(bytes, 8);
    if (o->pad_rows && stride <= 64) stride = cbuf__power_from(8, stride);
    f->stride = CBUF__AS(uint32_t, stride);
    if (stride % 8) f->features |= CBUF__PACKED;
    if (dense) f->features |= CBUF__DENSE;
    else if (delta || (fits && stride == f->row_bytes)) f->features |= CBUF__SHARED_TAIL;
}

/* The facts of the ring that the options ask for, with the defaults put in. */
CBUF__SLOW int cbuf__resolve(
    cbuf_ring *ring, const cbuf_options *o, bool in_file, cbuf__facts *f)
{
    const cbuf__limit limits[] = {
        { "column_count", o->columns ? o->column_count : 0u, 1, CBUF_MAX_COLUMNS },
        { "layout", o->layout, 0, CBUF_DENSE }, { "existing", o->existing, 0, CBUF_NEW },
        { "block_ns", CBUF__AS(uint64_t, o->block_ns), 0, INT64_MAX },
        { "demote_ns", CBUF__AS(uint64_t, o->demote_ns), 0, INT64_MAX } };
    uint32_t end;
    ring->options = *o;
    memset(f, 0, sizeof *f);
    int error = cbuf__check_limits(ring, CBUF_EINVAL, limits, CBUF__COUNT_OF(limits));
    if (!error) error = cbuf__check_columns(ring, o, &end);
    if (error) return error;
    memcpy(f->magic, CBUF__MAGIC, 8);
    f->byte_order = CBUF__BYTE_ORDER;
    f->major = CBUF__MAJOR;
    f->minor = CBUF__MINOR;
    f->capacity = o->capacity ? o->capacity : 65536;
    if (f->capacity <= CBUF_MAX_CAPACITY) f->capacity = cbuf__power_from(2, f->capacity);
    uint64_t half = f->capacity / 2, step = half < 8192 ? half / 8 : 1024;
    if (o->reserve_step) step = o->reserve_step;
    f->reserve_step = step ? CBUF__AS(uint32_t, step) : 1;
    f->max_readers = o->max_readers ? o->max_readers : 64;
    f->producers = o->producers > 1 ? o->producers : 0;
    f->row_bytes = o->row_bytes ? o->row_bytes : end;
    f->on_full = o->on_full;
    f->column_count = o->column_count;
    if (o->locked) f->features |= CBUF__LOCKED;
    if (f->producers) f->features |= CBUF__MANY;
    const char *fault = o->delta_count ? cbuf__plan_deltas(&ring->codec, o, f) : NULL;
    if (fault) return cbuf__fail(ring, CBUF_ESCHEMA, fault);
    cbuf__shape_rows(o, &ring->codec, end, f);
    f->schema_offset = sizeof(struct cbuf__file);
    uint64_t schema = 512u + 112u * f->column_count; /* at the most */
    if (f->delta_count) schema += 16u * f->column_count + 64u * f->delta_count;
    schema = cbuf__round_up(f->schema_offset + schema, CBUF__LINE);
    f->gates_offset = CBUF__AS(uint32_t, schema);
    cbuf__place(f, in_file);
    return cbuf__check_facts(ring, f, f->file_bytes, CBUF_EINVAL);
}

/* Gives the handle what the checked facts say. */
CBUF__SLOW void cbuf__take_facts(cbuf_ring *ring, const cbuf__facts *f)
{
    cbuf_options *o = &ring->options;
    o->name = NULL;
    o->columns = NULL;
    o->deltas = NULL;
    ring->capacity = o->capacity = f->capacity;
    ring->row_bytes = o->row_bytes = f->row_bytes;
    o->layout = ring->dense = cbuf__has(f, CBUF__DENSE);
    o->locked = ring->locked = cbuf__has(f, CBUF__LOCKED);
    o->reserve_step = f->reserve_step;
    o->max_readers = f->max_readers;
    o->producers = f->producers ? f->producers : 1;
    o->on_full = CBUF__AS(uint8_t, f->on_full);
    ring->ring_id = f->ring_id;
    ring->schema_bytes = f->schema_bytes;
    ring->mask = f->capacity - 1;
    ring->stride = f->stride;
    ring->last = f->stride / 8 - 1;
    ring->shared_tail = cbuf__has(f, CBUF__SHARED_TAIL);
    ring->delta = cbuf__has(f, CBUF__DELTA);
    o->delta_count = f->delta_count;
    o->block_rows = ring->delta ? f->block_rows : 0;
    ring->blocks = ring->delta ? ~(CBUF__AS(uint64_t, f->block_rows) - 1) : UINT64_MAX;
    ring->many = o->producers > 1;
    ring->gated = o->on_full != CBUF_OVERWRITE;
    ring->local->row_bytes = ring->locked || ring->delta ? 0 : ring->row_bytes;
    uint64_t short_way = ring->many ? 0 : ring->local->row_bytes;
    ring->local->plain = ring->shared_tail ? short_way : 0;
    ring->local->other = ring->shared_tail ? 0 : short_way;
    ring->local->always = 0;
    ring->local->never = UINT64_MAX;
    ring->wake_at = &ring->local->never;
}

/* The same, and where all is in the ring at `base`, whose schema it checks. */
CBUF__SLOW int cbuf__bind(cbuf_ring *ring, void *base, const cbuf__facts *facts)
{
    unsigned char *bytes = CBUF__AS(unsigned char *, base);
    void *gates = bytes + facts->gates_offset, *schema = bytes + facts->schema_offset;
    void *pens = bytes + cbuf__pens_offset(facts), *readers = bytes + facts->readers_offset;
    const char *fault = NULL;
    cbuf__query query;
    cbuf__take_facts(ring, facts);
    ring->file = CBUF__AS(struct cbuf__file *, base);
    ring->rows = bytes + facts->rows_offset;
    ring->gates = CBUF__AS(cbuf__word *, gates);
    ring->pens = CBUF__AS(struct cbuf__pen *, pens);
    ring->schema = CBUF__AS(const char *, schema);
    if (facts->readers_offset) ring->readers = CBUF__AS(struct cbuf__readers *, readers);
    memset(&ring->codec, 0, sizeof ring->codec);
    memset(&query, 0, sizeof query);
    query.type = CBUF_TIMESTAMP_NS;
    query.codec = ring->delta ? &ring->codec : NULL;
    uint32_t columns =
        cbuf__read_schema(ring->schema, ring->schema_bytes, ring->row_bytes, &query);
    if (columns && ring->delta) fault = cbuf__bind_deltas(ring, bytes, facts);
    if (columns && ring->delta && !fault) /* its columns have their places now */
        cbuf__read_schema(ring->schema, ring->schema_bytes, ring->row_bytes, &query);
    if (query.why) fault = query.why;
    else if (!ring->delta && ring->shared_tail && query.end + 4 > ring->row_bytes)
        fault = "a column lies where the rows' numbers are";
    ring->options.column_count = columns;
    ring->time_offset = query.found.type ? query.found.offset : UINT32_MAX;
    return fault ? cbuf__fail(ring, CBUF_ESCHEMA, fault) : 0;
}

CBUF__SLOW void cbuf__init_readers(struct cbuf__readers *readers, uint64_t ring_id, uint32_t slots)
{
    memcpy(readers->magic, CBUF__MAGIC_READERS, 8);
    readers->ring_id = ring_id;
    readers->max_readers = slots;
    readers->rows.wanted = readers->room.wanted = CBUF__FREE;
    for (uint32_t k = 0; k < slots; k++) readers->slots[k].cursor = CBUF__FREE;
}

/* Fills in a ring's first part, in memory that is zero, and its mark last. */
CBUF__SLOW void cbuf__init_file(void *base, cbuf__facts *facts, const cbuf_options *options,
    const cbuf__codec *codec)
{
    char *start = CBUF__AS(char *, base), *schema = start + facts->schema_offset;
    cbuf__text text = { schema, start + facts->gates_offset, false };
    const void *from = facts;
    uint64_t magic;
    void *pens = start + cbuf__pens_offset(facts), *readers = start + facts->readers_offset;
    if (facts->readers_offset)
        cbuf__init_readers(CBUF__AS(struct cbuf__readers *, readers), 0, facts->max_readers);
    for (uint32_t k = 0; k < facts->producers; k++)
        cbuf__store_relaxed(&(CBUF__AS(struct cbuf__pen *, pens) + k)->begin, CBUF__FREE);
    cbuf__write_schema(&text, facts, options, codec);
    facts->schema_bytes = CBUF__AS(uint32_t, text.at - schema);
    facts->created_ns = cbuf__now_ns(CBUF__REALTIME);
    memcpy(&magic, from, 8);
    memcpy(start + 8, CBUF__AS(const char *, from) + 8, sizeof *facts - 8);
    cbuf__store_release(CBUF__AS(cbuf__word *, base), magic);
}

/* Rows that a predecessor published and did not count in `head` before it died are counted now;
 * what it had begun beyond them is written anew. The caller knows that it is the only producer. */
CBUF__SLOW void cbuf__continue(cbuf_ring *ring)
{
    struct cbuf__file *file = ring->file;
    uint64_t head = cbuf__load_relaxed(&file->head), reserve = cbuf__load_relaxed(&file->reserve);
    while (!ring->dense && head < reserve && cbuf__is_published(ring, head)) head++;
    cbuf__store_release(&file->head, head);
    ring->next = ring->reserved = ring->limit = head;
    if (ring->delta) cbuf__take_over_deltas(ring);
}

/* Becomes the ring's producer, or one of them. */
CBUF__SLOW int cbuf__take_over(cbuf_ring *ring)
{
    struct cbuf__file *file = ring->file;
    uint64_t now = CBUF__AS(uint64_t, cbuf__now_ns(CBUF__REALTIME));
    uint32_t most = ring->options.producers;
    if (!ring->many) cbuf__continue(ring);
    else if (cbuf__take_pen(ring))
        return cbuf__fail_with(ring, CBUF_ESLOTS, "producers", most, "the limit is ", most);
    cbuf__tally(ring, &file->epoch, 1);
    cbuf__store_relaxed(&file->state, CBUF__OPEN);
    cbuf__store_relaxed(&file->producer_started_ns, now);
    if (ring->many) cbuf__store_relaxed(&ring->pen->started_ns, now);
    ring->producer = true;
#ifndef CBUF_NO_OS
    bool fence = syscall(SYS_membarrier, 1 << 2 /* join the barriers of sleepers */, 0) != 0;
    uint64_t pid = CBUF__AS(uint64_t, getpid());
    cbuf__store_relaxed(&file->producer_pid, pid);
    if (ring->many) cbuf__store_relaxed(&ring->pen->pid, pid);
    if (fence || !ring->many) cbuf__store_relaxed(&file->wake_fence, fence);
    ring->wake_at = fence ? &ring->local->always : &ring->readers->rows.wanted;
#endif
    return 0;
}

CBUF__SLOW bool cbuf__any_pen(const cbuf_ring *ring)
{
    uint64_t owned = 0;
    for (uint32_t k = 0; k < ring->options.producers; k++)
        owned |= cbuf__load_acquire(&ring->pens[k].owned);
    return owned != 0;
}

/* One producer, or the last one of many, leaves: whether no more will come. Of several that leave
 * at once the last to let go finds nobody; it sweeps up after all who died before that. */
CBUF__SLOW bool cbuf__leave(cbuf_ring *ring)
{
    if (!ring->many) return true;
    if (ring->claimed) cbuf__publish_many(ring, 0);
    cbuf__sweep_dead(ring);
    cbuf__store_release(&ring->pen->begin, CBUF__FREE);
    cbuf__store_release(&ring->pen->owned, 0);
    cbuf__fence_seq_cst(); /* L1: between giving one's own pen back and looking at the others' */
    if (ring->lock_fd < 0) return !cbuf__any_pen(ring);
    cbuf__lock(ring->lock_fd, CBUF__UNLOCK, 0, false);
    if (cbuf__lock(ring->lock_fd, CBUF__EXCLUSIVE, 0, false)) return false;
    for (int i = 0; i < 1000 && cbuf__any_pen(ring); i++) { /* a reader may be mending it too */
        cbuf__sweep_dead(ring);
        if (i) cbuf__rest(1000000);
    }
    return true;
}

/* What an open handle has and one that is not does not; the error text and the path stay. */
CBUF__SLOW int cbuf__not_open(cbuf_ring *ring, int error)
{
    ring->file = NULL;
    ring->readers = NULL;
    ring->pen = NULL;
    ring->producer = ring->many = false;
    ring->local = &ring->in_handle;
    ring->local->row_bytes = CBUF__FREE; /* no row's size */
    ring->fd = ring->readers_fd = ring->lock_fd = -1;
    ring->file_bytes = ring->readers_bytes = 0;
    return error;
}
CBUF__SLOW void cbuf__begin(cbuf_ring *ring)
{
    memset(ring, 0, sizeof *ring);
    cbuf__not_open(ring, 0);
}

static inline int64_t cbuf_memory_needed(const cbuf_options *options)
{
    cbuf_ring ring;
    cbuf__facts facts;
    cbuf__begin(&ring);
    int error = cbuf__resolve(&ring, options, false, &facts);
    return error ? error : CBUF__AS(int64_t, facts.file_bytes);
}

static inline int cbuf_create_in(
    cbuf_ring *ring, void *memory, size_t bytes, const cbuf_options *options)
{
    cbuf__facts facts;
    cbuf__begin(ring);
    int error = cbuf__resolve(ring, options, false, &facts);
    if (error) return error;
    if (CBUF__ADDRESS(memory) % 8) return cbuf__fail(ring, CBUF_EINVAL, "not 8-byte aligned");
    if (bytes < facts.file_bytes)
        return cbuf__fail_with(ring, CBUF_ENOSPACE, "the memory's size", bytes, "needed are ",
            facts.file_bytes);
    memset(memory, 0, CBUF__AS(size_t, facts.file_bytes));
    cbuf__init_file(memory, &facts, options, &ring->codec);
    error = cbuf__bind(ring, memory, &facts);
    return error ? cbuf__not_open(ring, error) : cbuf__take_over(ring);
}

static inline int cbuf_attach_in(cbuf_ring *ring, void *memory, size_t bytes)
{
    cbuf__facts facts;
    cbuf__begin(ring);
    if (CBUF__ADDRESS(memory) % 8) return cbuf__fail(ring, CBUF_EINVAL, "not 8-byte aligned");
    memset(&facts, 0, sizeof facts);
    if (bytes >= sizeof facts) {
        cbuf__load_acquire(CBUF__AS(cbuf__word *, memory));
        memcpy(&facts, memory, sizeof facts);
    }
    uint64_t used = facts.file_bytes < bytes ? facts.file_bytes : bytes;
    int error = cbuf__check_mark(ring, &facts, bytes, false);
    if (!error) error = cbuf__check_facts(ring, &facts, used, CBUF_EFORMAT);
    if (!error) error = cbuf__bind(ring, memory, &facts);
    return error ? cbuf__not_open(ring, error) : 0;
}

static inline int cbuf_join_in(cbuf_ring *ring, void *memory, size_t bytes)
{
    int error = cbuf_attach_in(ring, memory, bytes);
    if (!error && !ring->many) error = cbuf__fail(ring, CBUF_EBUSY, "it has one producer only");
    if (!error) error = cbuf__take_over(ring);
    return error ? cbuf__not_open(ring, error) : 0;
}

#ifdef CBUF_NO_OS
CBUF__SLOW void cbuf__release(cbuf_ring *ring) { (void)ring; }
CBUF__SLOW int cbuf__open_slot(cbuf_reader *reader, const cbuf_reader_options *options)
{
    int error = cbuf__take_slot(reader);
    if (!error) cbuf__register(reader, options);
    return error;
}
#else
CBUF__SLOW void cbuf__release(cbuf_ring *ring); /* in [files] */
#endif

static inline void cbuf_close(cbuf_ring *ring)
{
    if (!ring->local) return; /* all zero, never opened */
    if (ring->hook) ring->hook->end(ring->hook->self);
    if (ring->file && ring->producer && ring->local->never == UINT64_MAX) {
        if (cbuf__leave(ring)) cbuf__store_release(&ring->file->state, CBUF__CLOSED);
        cbuf__wake(&ring->readers->rows, CBUF__FREE, ring->fd);
    }
    cbuf__release(ring);
    cbuf__begin(ring);
}

static inline const char *cbuf_path(const cbuf_ring *ring) { return ring->path; }
static inline const char *cbuf_error(const cbuf_ring *ring) { return ring->error; }
static inline const cbuf_options *cbuf_resolved(const cbuf_ring *ring) { return &ring->options; }

#ifndef CBUF_NO_OS

/* ============================================================================ [resident] ==== */

/* Asks the kernel for what the options want of the mapping and keeps each errno. 0, or CBUF_EMEMORY
 * if something required was refused. In this order: the node before pages are touched, the lock
 * when they are huge. MADV_COLLAPSE is what makes huge pages on tmpfs whatever its mode. */
CBUF__SLOW int cbuf__make_resident(cbuf_ring *ring, bool writable, const cbuf_memory_options *want)
{
    static const char *const names[] = { "numa", "populate", "huge", "lock" };
    const uint8_t asked[] = { want->numa, want->populate, want->huge, want->lock };
    unsigned long nodes[16] = { 0 }, bits = 8 * sizeof nodes[0];
    void *base = ring->file;
    size_t bytes = ring->file_bytes; /* but for the escape plane: it would be made */
    struct stat file;
    if (ring->delta) bytes = CBUF__AS(size_t, cbuf__plane_offset(ring));
    if (want->numa_node < 16 * bits) nodes[want->numa_node / bits] = 1ul << want->numa_node % bits;
    for (int i = 0; i < 4; i++) {
        long failed = 0;
        if (!asked[i]) continue;
        if (i == 0) failed = syscall(SYS_mbind, base, bytes, 2 /* BIND */, nodes, 16 * bits, 2u);
        if (i == 1) failed = madvise(base, bytes, writable ? 23 : 22 /* MADV_POPULATE_... */);
        for (int tries = 0; i == 2 && tries < 10; tries++) /* while a page was just in use */
            if (!(failed = madvise(base, bytes, 25 /* MADV_COLLAPSE */)) || errno != EAGAIN) break;
        if (i == 3) failed = syscall(SYS_mlock, base, bytes); /* sanitizers only say it was done */
        ring->memory_errno[i] = failed ? errno : 0;
        if (i == 2 && failed && !fstat(ring->fd, &file) && file.st_blksize >= 1 << 21)
            ring->memory_errno[i] = 0; /* hugetlbfs: its pages are huge */
        if (ring->memory_errno[i] && asked[i] == CBUF_REQUIRE)
            return cbuf__fail_with(ring, CBUF_EMEMORY, names[i], bytes, "bytes; the errno is ",
                CBUF__AS(uint64_t, ring->memory_errno[i]));
    }
    return 0;
}

/* =============================================================================== [files] ==== */

CBUF__SLOW int cbuf__fail_errno(cbuf_ring *ring, const char *what, int error)
{
    int code = CBUF_ESYSTEM;
    if (error == ENOENT) code = CBUF_ENOENT;
    if (error == EACCES || error == EPERM || error == ELOOP) code = CBUF_EACCES;
    if (error == ENOSPC || error == EDQUOT || error == EFBIG || error == ENOMEM)
        code = CBUF_ENOSPACE;
    cbuf__fail(ring, code, what);
    cbuf__text text = cbuf__more(ring);
    cbuf__say_number(&text, ": errno ", CBUF__AS(uint64_t, error));
    cbuf__say(&text, ", ");
    cbuf__say(&text, strerror(error));
    return code;
}

/* ring->path with a suffix. */
typedef struct cbuf__path {
    char text[280];
} cbuf__path;
CBUF__SLOW cbuf__path cbuf__path_of(const cbuf_ring *ring, const char *suffix)
{
    cbuf__path path;
    cbuf__text text = { path.text, path.text + sizeof path.text, false };
    cbuf__say(&text, ring->path);
    cbuf__say(&text, suffix);
    return path;
}

CBUF__SLOW int cbuf__set_path(cbuf_ring *ring, const char *name, uint32_t n)
{
    cbuf__text text = { ring->path, ring->path + sizeof ring->path, false };
    if (name && *name != '/' && (!*name || *name == '.' || strchr(name, '/')))
        return cbuf__fail(ring, CBUF_EINVAL, "a name has no slash in it and no dot in front");
    if (!name || *name != '/') cbuf__say(&text, "/dev/shm/");
    if (name) cbuf__say(&text, name);
    if (!name) cbuf__say_number(&text, "cbuf_", CBUF__AS(uint64_t, getpid()));
    if (!name) cbuf__say_number(&text, "_", n);
    if (!text.full) return 0;
    ring->path[0] = 0;
    return cbuf__fail_with(ring, CBUF_EINVAL, "the name's length", strlen(name),
        "the limit with /dev/shm/ is ", sizeof ring->path - 1);
}

/* Opens a file that must be a regular one of this user or of root, or of anyone. The descriptor, or
 * an error. */
CBUF__SLOW int cbuf__open_owned(
    cbuf_ring *ring, const char *path, int flags, bool any_owner, uint64_t *bytes)
{
    struct stat file;
    int fd = open(path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600), error = 0;
    if (fd < 0) return cbuf__fail_errno(ring, "opening", errno);
    if (fstat(fd, &file)) error = cbuf__fail_errno(ring, "fstat", errno);
    else if (!S_ISREG(file.st_mode)) error = cbuf__fail(ring, CBUF_EFORMAT, "not a regular file");
    else if (!any_owner && file.st_uid != geteuid() && file.st_uid != 0)
        error = cbuf__fail_with(ring, CBUF_EACCES, "its owner", file.st_uid,
            "this process runs as ", geteuid());
    *bytes = CBUF__AS(uint64_t, file.st_size);
    if (!error) return fd;
    close(fd);
    return error;
}

/* Becomes the only one who may produce into, replace or remove the ring of this path, or, of many
 * producers, one more that does (ring->joins); these wait a second for one who is making it. The
 * lock is on a file that only the owner can open: who can read a file can keep others from locking
 * it. Byte 0 is the ring's, byte 1 + k the pen's of that number. */
CBUF__SLOW int cbuf__lock_producer(cbuf_ring *ring, bool many)
{
    struct timespec moment = { 0, 1000000 };
    cbuf__path path = cbuf__path_of(ring, ".lock");
    for (int tries = 0;; tries++) {
        uint64_t bytes;
        struct stat mine, there;
        ring->lock_is_new = access(path.text, F_OK) != 0;
        int fd = cbuf__open_owned(ring, path.text, O_RDWR | O_CREAT, false, &bytes);
        if (fd < 0) return fd;
        int error = cbuf__lock(fd, CBUF__EXCLUSIVE, 0, false);
        ring->joins = error && many;
        if (ring->joins) error = cbuf__lock(fd, CBUF__SHARED, 0, false);
        bool known = !error && !fchmod(fd, 0600) && !fstat(fd, &mine) && !stat(path.text, &there);
        if (known && mine.st_ino == there.st_ino) {
            ring->lock_fd = fd;
            if (ring->joins) return 0;
            unlink(cbuf__path_of(ring, ".new").text); /* left where a producer was killed */
            unlink(cbuf__path_of(ring, ".readers.new").text);
            return 0;
        }
        close(fd); /* its last holder removed it between the open and the lock: once more */
        bool held = error == -EAGAIN || error == -EACCES;
        if (held && (!many || tries == 1000)) return cbuf__fail(ring, CBUF_EBUSY, "locked");
        if (error && !held) return cbuf__fail_errno(ring, "locking", -error);
        if (held) nanosleep(&moment, NULL);
    }
}

/* Maps a file; for huge pages at a multiple of 2 MiB, as far as the kernel follows the hint. NULL,
 * and errno, if it cannot. */
CBUF__SLOW void *cbuf__map(int fd, uint64_t size, bool writable, bool huge)
{
    const size_t bytes = CBUF__AS(size_t, size), align = huge ? 1u << 21 : 0;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *hint = NULL, *space = MAP_FAILED;
    if (size > SIZE_MAX / 2) return errno = EFBIG, hint; /* more than 32 bits can address */
    if (huge) space = mmap(NULL, bytes + align, PROT_NONE, flags, -1, 0);
    if (space != MAP_FAILED) {
        size_t before = align - CBUF__ADDRESS(space) % align;
        hint = CBUF__AS(unsigned char *, space) + before;
        munmap(space, bytes + align);
    }
    void *base = mmap(hint, bytes, protection, MAP_SHARED, fd, 0);
    return base == MAP_FAILED ? NULL : base;
}

/* A new file of at least *bytes bytes, under no name yet, or under `path`
 * where the system cannot do that. The descriptor, or an error. *bytes becomes a whole number of
 * the file system's blocks, which are 2 MiB on hugetlbfs. `solid` of them are really there. */
CBUF__SLOW int cbuf__new_file(
    cbuf_ring *ring, const char *path, mode_t mode, uint64_t *bytes, uint64_t solid)
{
    struct stat file;
    cbuf__path directory = { { 0 } };
    const int unnamed = 020000000 /* __O_TMPFILE */ | O_DIRECTORY | O_RDWR | O_CLOEXEC;
    size_t length = CBUF__AS(size_t, strrchr(path, '/') - path);
    memcpy(directory.text, path, length ? length : 1);
    int error = 0, fd = access("/proc/self/fd", X_OK) ? -1 : open(directory.text, unnamed, 0600);
    if (fd < 0) fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return cbuf__fail_errno(ring, "making a file", errno);
    if (fstat(fd, &file) || fchmod(fd, mode)) error = errno;
    else if (file.st_blksize > 4096)
        *bytes = cbuf__round_up(*bytes, CBUF__AS(uint64_t, file.st_blksize));
    if (solid > *bytes) solid = *bytes;
    if (!error && solid < *bytes && ftruncate(fd, CBUF__AS(off_t, *bytes))) error = errno;
    if (!error) do error = posix_fallocate(fd, 0, CBUF__AS(off_t, solid));
        while (error == EINTR);
    if (!error) return fd;
    close(fd);
    unlink(path);
    error = cbuf__fail_errno(ring, "reserving space", error);
    cbuf__text text = cbuf__more(ring);
    cbuf__say_number(&text, "; bytes wanted: ", *bytes);
    return error;
}

/* Gives a new file its name, in place of what had it. */
CBUF__SLOW int cbuf__name_file(cbuf_ring *ring, int fd, const char *temporary, const char *path)
{
    char self[40];
    cbuf__text text = { self, self + sizeof self, false };
    struct stat file;
    cbuf__say_number(&text, "/proc/self/fd/", CBUF__AS(uint64_t, fd));
    if (!fstat(fd, &file) && file.st_nlink == 0) {
        if (!linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW)) return 0;
        if (linkat(AT_FDCWD, self, AT_FDCWD, temporary, AT_SYMLINK_FOLLOW))
            return cbuf__fail_errno(ring, "linking", errno);
    }
    if (!rename(temporary, path)) return 0;
    int error = errno;
    unlink(temporary);
    return cbuf__fail_errno(ring, "renaming", error);
}

/* Opens and maps the ring at ring->path, after its facts were read, once, and checked. */
CBUF__SLOW int cbuf__open_ring(cbuf_ring *ring, bool writable, bool any_owner)
{
    uint64_t bytes;
    cbuf__facts facts;
    int fd = cbuf__open_owned(ring, ring->path, writable ? O_RDWR : O_RDONLY, any_owner, &bytes);
    if (fd < 0) return fd;
    ring->fd = fd;
    memset(&facts, 0, sizeof facts);
    if (pread(fd, &facts, sizeof facts, 0) < 0) return cbuf__fail_errno(ring, "reading", errno);
    int error = cbuf__check_mark(ring, &facts, bytes, true);
    if (!error) error = cbuf__check_facts(ring, &facts, bytes, CBUF_EFORMAT);
    if (error) return error;
    ring->file_bytes = CBUF__AS(size_t, bytes);
    void *base = cbuf__map(fd, bytes, writable, ring->options.memory.huge != 0);
    if (!base) return cbuf__fail_errno(ring, "mapping", errno);
    ring->file = CBUF__AS(struct cbuf__file *, base);
    return cbuf__bind(ring, base, &facts);
}

/* Opens and maps the readers' file of this ring; CBUF_EFORMAT: another ring's, or damaged. */
CBUF__SLOW int cbuf__open_readers(cbuf_ring *ring, bool any_owner)
{
    uint64_t bytes;
    cbuf__path path = cbuf__path_of(ring, ".readers");
    int fd = cbuf__open_owned(ring, path.text, O_RDWR, any_owner, &bytes);
    if (fd < 0) return fd;
    bool whole = bytes >= cbuf__readers_size(ring->options.max_readers);
    void *base = whole ? cbuf__map(fd, bytes, true, false) : NULL;
    struct cbuf__readers *readers = CBUF__AS(struct cbuf__readers *, base);
    if (!readers || memcmp(readers->magic, CBUF__MAGIC_READERS, 8) ||
        readers->ring_id != ring->ring_id || readers->max_readers != ring->options.max_readers) {
        if (base) munmap(base, CBUF__AS(size_t, bytes));
        close(fd);
        return cbuf__fail(ring, CBUF_EFORMAT, "its .readers file is damaged or another ring's");
    }
    ring->readers = readers;
    ring->readers_fd = fd;
    ring->readers_bytes = CBUF__AS(size_t, bytes);
    return 0;
}

/* A new readers' file, without its name; nobody in it was demoted. */
CBUF__SLOW int cbuf__make_readers(cbuf_ring *ring)
{
    const uint32_t slots = ring->options.max_readers;
    cbuf__path new_path = cbuf__path_of(ring, ".readers.new");
    uint64_t bytes = cbuf__round_up(cbuf__readers_size(slots), 4096);
    mode_t mode = ring->options.group_register ? 0660 : 0600;
    int fd = cbuf__new_file(ring, new_path.text, mode, &bytes, UINT64_MAX);
    if (fd < 0) return fd;
    void *base = cbuf__map(fd, bytes, true, false);
    ring->readers_fd = fd;
    if (!base) return unlink(new_path.text), cbuf__fail_errno(ring, "mapping", errno);
    ring->readers_bytes = CBUF__AS(size_t, bytes);
    ring->readers = CBUF__AS(struct cbuf__readers *, base);
    cbuf__init_readers(ring->readers, ring->ring_id, slots);
    for (uint32_t k = 0; k < slots; k++) cbuf__store_relaxed(ring->gates + k, 0);
    return 0;
}

/* Lets go of all that the handle holds. */
CBUF__SLOW void cbuf__release(cbuf_ring *ring)
{
    if (ring->file && ring->file_bytes) munmap(ring->file, ring->file_bytes);
    if (ring->readers && ring->readers_bytes) munmap(ring->readers, ring->readers_bytes);
    if (ring->local != &ring->in_handle) munmap(ring->local, 4096);
    if (ring->fd >= 0) close(ring->fd);
    if (ring->readers_fd >= 0) close(ring->readers_fd);
    if (ring->lock_fd >= 0) close(ring->lock_fd);
    cbuf__not_open(ring, 0);
}

/* Puts the words that a fork() must clear on a page that it does clear. */
CBUF__SLOW void cbuf__guard(cbuf_ring *ring)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return;
    madvise(page, 4096, 18 /* MADV_WIPEONFORK */);
    ring->local = CBUF__AS(struct cbuf__local *, page);
}

/* Whether there is a ring of this user at this path; and marks it retired, for those who have it
 * mapped, and wakes them. */
CBUF__SLOW int cbuf__retire(const char *path, bool mark)
{
    cbuf_ring old;
    cbuf__begin(&old);
    int error = cbuf__set_path(&old, path, 0);
    if (!error) error = cbuf__open_ring(&old, true, false);
    if (error == CBUF_ESCHEMA) error = 0;
    if (!error && mark) {
        cbuf__store_release(&old.file->state, CBUF__RETIRED);
        if (!cbuf__open_readers(&old, false))
            cbuf__wake(&old.readers->rows, CBUF__FREE, old.fd);
    }
    cbuf__release(&old);
    return error;
}

/* A new ring under ring->path, whole or not at all; what it replaces stays until it is there. */
CBUF__SLOW int cbuf__make_ring(
    cbuf_ring *ring, const cbuf_options *options, cbuf__facts *facts, bool replaces)
{
    cbuf__path new_path = cbuf__path_of(ring, ".new");
    cbuf__path new_readers = cbuf__path_of(ring, ".readers.new");
    bool group = options->group_read || options->group_register;
    uint64_t clock = CBUF__AS(uint64_t, cbuf__now_ns(CBUF__REALTIME));
    facts->ring_id = (clock ^ CBUF__AS(uint64_t, getpid()) << 40) * 0x9e3779b97f4a7c15u;
    uint64_t solid = facts->delta_count ? facts->plane_offset : UINT64_MAX;
    int error =
        cbuf__new_file(ring, new_path.text, group ? 0640 : 0600, &facts->file_bytes, solid);
    if (error < 0) return error;
    ring->fd = error;
    void *base = cbuf__map(ring->fd, facts->file_bytes, true, options->memory.huge != 0);
    if (!base) return unlink(new_path.text), cbuf__fail_errno(ring, "mapping", errno);
    ring->file = CBUF__AS(struct cbuf__file *, base);
    ring->file_bytes = CBUF__AS(size_t, facts->file_bytes);
    cbuf__init_file(base, facts, options, &ring->codec);
    error = cbuf__bind(ring, base, facts);
    if (!error) error = cbuf__make_resident(ring, true, &options->memory);
    if (!error) error = cbuf__make_readers(ring);
    if (!error) error = cbuf__take_over(ring);
    if (!error && replaces) cbuf__retire(ring->path, true);
    cbuf__path path = cbuf__path_of(ring, ".readers");
    if (!error) error = cbuf__name_file(ring, ring->readers_fd, new_readers.text, path.text);
    if (!error) error = cbuf__name_file(ring, ring->fd, new_path.text, ring->path);
    if (error) unlink(new_path.text), unlink(new_readers.text);
    return error;
}

/* Whether the ring that is there is the one that the options would make. */
CBUF__SLOW int cbuf__compare(
    cbuf_ring *ring, const cbuf_options *options, const cbuf__facts *wanted)
{
    const cbuf__facts *is = &ring->file->facts;
    const struct { const char *what; uint64_t is, wanted; } facts[] = {
        { "capacity", is->capacity, wanted->capacity },
        { "row_bytes", is->row_bytes, wanted->row_bytes },
        { "the rows' stride", is->stride, wanted->stride },
        { "the word of features", is->features, wanted->features },
        { "max_readers", is->max_readers, wanted->max_readers },
        { "reserve_step", is->reserve_step,
            options->reserve_step ? wanted->reserve_step : is->reserve_step },
        { "on_full", is->on_full, wanted->on_full },
        { "producers", is->producers, wanted->producers },
        { "column_count", ring->options.column_count, wanted->column_count },
        { "delta_count", is->delta_count, wanted->delta_count },
        { "block_rows", is->block_rows, wanted->block_rows } };
    for (size_t k = 0; k < CBUF__COUNT_OF(facts); k++)
        if (facts[k].is != facts[k].wanted)
            return cbuf__fail_with(ring, CBUF_EMISMATCH, facts[k].what, facts[k].is,
                "wanted is ", facts[k].wanted);
    for (uint32_t k = 0; k < options->column_count; k++) {
        const cbuf_column *c = options->columns + k;
        cbuf_column there;
        int missing = cbuf_column_find(ring, c->name, &there);
        if (missing || there.type != c->type || there.offset != c->offset)
            return cbuf__fail(ring, CBUF_EMISMATCH, c->name);
    }
    const char *other = ring->delta ? cbuf__other_delta(ring, options) : NULL;
    if (other) return cbuf__fail(ring, CBUF_EMISMATCH, other);
    return 0;
}

/* Continues the ring at ring->path. */
CBUF__SLOW int cbuf__resume(
    cbuf_ring *ring, const cbuf_options *options, const cbuf__facts *wanted)
{
    int error = cbuf__open_ring(ring, true, false);
    if (!error) error = cbuf__compare(ring, options, wanted);
    if (!error) error = cbuf__make_resident(ring, true, &options->memory);
    if (error) return error;
    error = cbuf__open_readers(ring, false);
    if (!ring->joins && (error == CBUF_ENOENT || error == CBUF_EFORMAT)) { /* lost, or rubbish */
        cbuf__path path = cbuf__path_of(ring, ".readers");
        cbuf__path new_path = cbuf__path_of(ring, ".readers.new");
        error = cbuf__make_readers(ring);
        if (!error) error = cbuf__name_file(ring, ring->readers_fd, new_path.text, path.text);
    }
    return error ? error : cbuf__take_over(ring);
}

CBUF__SLOW int cbuf__create_at(
    cbuf_ring *ring, const cbuf_options *options, cbuf__facts *facts)
{
    struct stat file;
    int error = cbuf__lock_producer(ring, facts->producers > 1);
    if (error) return error;
    cbuf__guard(ring);
    bool there = !lstat(ring->path, &file);
    if (there && (!options->name || options->existing == CBUF_NEW)) error = CBUF_EEXIST;
    if (error) return cbuf__fail(ring, error, "existing is CBUF_NEW");
    if (ring->joins && (!there || options->existing != CBUF_RESUME))
        return cbuf__fail(ring, CBUF_EBUSY, "other producers have it");
    if (there && options->existing == CBUF_RESUME) {
        error = cbuf__resume(ring, options, facts);
    } else {
        if (there && (error = cbuf__retire(ring->path, false)) != 0)
            return cbuf__fail(ring, error, "only a ring of this user is replaced");
        error = cbuf__make_ring(ring, options, facts, there);
    }
    if (!error && ring->many) cbuf__lock(ring->lock_fd, CBUF__SHARED, 0, false); /* with others */
    return error;
}

static inline int cbuf_create(cbuf_ring *ring, const cbuf_options *options)
{
    cbuf__facts facts;
    int error = CBUF_EEXIST;
    for (uint32_t n = 0; n < (options->name ? 1 : 10000); n++) {
        if (error != CBUF_EEXIST && error != CBUF_EBUSY) break; /* an automatic name that is free */
        cbuf__begin(ring);
        error = cbuf__set_path(ring, options->name, n);
        if (!error) error = cbuf__resolve(ring, options, true, &facts);
        if (!error) error = cbuf__create_at(ring, options, &facts);
        if (!error) break;
        if (ring->lock_fd >= 0 && !ring->joins && (ring->lock_is_new || access(ring->path, F_OK)))
            unlink(cbuf__path_of(ring, ".lock").text);
        cbuf__release(ring);
    }
    return error;
}

static inline int cbuf_attach(
    cbuf_ring *ring, const char *name, const cbuf_attach_options *options)
{
    cbuf_attach_options chosen;
    struct timespec moment = { 0, 100000 };
    memset(&chosen, 0, sizeof chosen);
    if (options) chosen = *options;
    for (int tries = 0;; tries++) {
        cbuf__begin(ring);
        int error = cbuf__set_path(ring, name ? name : "", 0), readers = 0;
        if (error) return error;
        cbuf__guard(ring);
        ring->options.memory = chosen.memory;
        error = cbuf__open_ring(ring, false, chosen.any_owner);
        if (!error && !chosen.observer) readers = cbuf__open_readers(ring, chosen.any_owner);
        if (readers == CBUF_EACCES || readers == CBUF_ENOENT) readers = 0; /* may only observe */
        if (!error) error = readers;
        if (!error) error = cbuf__make_resident(ring, false, &chosen.memory);
        if (!error) ring->error[0] = 0;
        else cbuf__release(ring);
        if (readers != CBUF_EFORMAT || tries == 100) return error;
        nanosleep(&moment, NULL); /* the ring is being replaced, and has one of its new files */
    }
}

static inline int cbuf_remove(const char *name)
{
    cbuf_ring ring;
    struct stat file;
    cbuf__begin(&ring);
    int error = cbuf__set_path(&ring, name ? name : "", 0);
    if (!error) error = cbuf__lock_producer(&ring, false);
    if (error) return error;
    bool there = !lstat(ring.path, &file);
    if (there) error = cbuf__retire(ring.path, true);
    if (!error && there && unlink(ring.path)) error = CBUF_EACCES;
    if (!error) unlink(cbuf__path_of(&ring, ".readers").text);
    if (!error) unlink(cbuf__path_of(&ring, ".spill").text);
    if (!error || ring.lock_is_new) unlink(cbuf__path_of(&ring, ".lock").text);
    cbuf__release(&ring);
    return error ? error : there ? 0 : CBUF_ENOENT;
}

/* Each reader opens the readers' file for itself: its slot's lock belongs to that open file, so it
 * goes with the reader and not with the handle, and a producer in the same process must win it like
 * any other. */
CBUF__SLOW int cbuf__open_table(cbuf_reader *reader)
{
    const cbuf_ring *ring = reader->ring;
    struct stat mine, rings;
    if (!ring->readers) return CBUF_EACCES;
    if (ring->readers_fd < 0) return 0;
    cbuf__path path = cbuf__path_of(ring, ".readers");
    reader->fd = open(path.text, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (reader->fd < 0) return errno == ENOENT ? CBUF_ERETIRED : CBUF_EACCES;
    bool known = !fstat(reader->fd, &mine) && !fstat(ring->readers_fd, &rings);
    return known && mine.st_ino == rings.st_ino ? 0 : CBUF_ERETIRED;
}
/* Its progress may have to wake the producer. */
CBUF__SLOW void cbuf__wakes_producer(cbuf_reader *reader)
{
    const cbuf_ring *ring = reader->ring;
    bool fence = syscall(SYS_membarrier, 1 << 2 /* join the barriers of sleepers */, 0) != 0;
    reader->room_at = fence ? &ring->local->always : &ring->readers->room.wanted;
}
CBUF__SLOW int cbuf__open_slot(cbuf_reader *reader, const cbuf_reader_options *options)
{
    int error = cbuf__open_table(reader);
    if (!error) error = cbuf__take_slot(reader);
    if (error) {
        if (reader->fd >= 0) close(reader->fd);
        reader->fd = -1;
        return error;
    }
    cbuf__register(reader, options);
    if (cbuf__load_relaxed(&reader->slot->gate)) cbuf__wakes_producer(reader);
    return 0;
}

static inline int cbuf_producer_alive(const cbuf_ring *ring)
{
    struct flock lock = cbuf__flock(CBUF__EXCLUSIVE, 0);
    if (!ring->file) return CBUF_ENOTOPEN;
    if (ring->producer) return ring->local->never == UINT64_MAX ? 1 : CBUF_EFORKED;
    if (!ring->path[0]) return CBUF_EINVAL; /* it has no lock: nobody knows */
    int fd = open(cbuf__path_of(ring, ".lock").text, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return errno == ENOENT ? 0 : CBUF_EACCES;
    int failed = fcntl(fd, 36 /* F_OFD_GETLK: asks, and is not in a producer's way */, &lock);
    close(fd);
    if (failed) return CBUF_ESYSTEM;
    return lock.l_type != CBUF__UNLOCK;
}

/* ================================================================================ [wait] ==== */

/* What nobody announces, looked for now and then by those who wait: the file is gone from its
 * directory, or was cut. */
CBUF__SLOW int cbuf__look_after_file(const cbuf_ring *ring)
{
    struct stat file;
    if (ring->fd < 0 || fstat(ring->fd, &file)) return 0;
    if (file.st_nlink == 0) return CBUF_ERETIRED;
    return CBUF__AS(uint64_t, file.st_size) < ring->file_bytes ? CBUF_EFORMAT : 0;
}

/* Sweeps up after dead producers whose rows stand in the way, while no other producer is there to
 * do it: as far as this process may open the ring to write. The lock file is opened first: while a
 * ring is there, it is the same. */
CBUF__SLOW void cbuf__mend(const cbuf_ring *ring)
{
    cbuf_ring helper;
    uint64_t bytes;
    if (cbuf_head(ring) == cbuf__edge(ring) || !ring->path[0]) return;
    cbuf__begin(&helper);
    cbuf__set_path(&helper, ring->path, 0);
    int fd = cbuf__open_owned(
        &helper, cbuf__path_of(&helper, ".lock").text, O_RDWR, false, &bytes);
    if (fd >= 0) helper.lock_fd = fd;
    bool open = fd >= 0 && !cbuf__open_ring(&helper, true, false) &&
        helper.ring_id == ring->ring_id && !cbuf__open_readers(&helper, false);
    if (open) cbuf__sweep_dead(&helper);
    cbuf__release(&helper);
}

/* What to wish for, to be woken when row `wanted - 1` comes. Of many producers' rows it may be
 * claimed, and published before one that stands in the way: then this one's publication counts. */
CBUF__SLOW uint64_t cbuf__next_wake(const cbuf_ring *ring, uint64_t head, uint64_t wanted)
{
    bool claimed = ring->many && cbuf__claimed(ring) >= wanted;
    return claimed && head + 1 < wanted ? head + 1 : wanted;
}

/* Wishes to be woken when row `wanted - 1` may have come. False if it may have already, or the ring
 * is no longer open: then nobody need wake. */
CBUF__SLOW bool cbuf__wish_rows(
    const cbuf_ring *ring, uint64_t wanted, uint64_t *count, bool *sure)
{
    wanted = cbuf__next_wake(ring, cbuf_head(ring), wanted);
    *count = cbuf__wish(&ring->readers->rows, wanted, sure);
    *sure = *sure || cbuf__load_relaxed(&ring->file->wake_fence);
    uint64_t head = cbuf_head(ring); /* E4: the second look */
    if (head >= wanted || cbuf__next_wake(ring, head, wanted) < wanted) return false;
    return cbuf__load_acquire(&ring->file->state) == CBUF__OPEN;
}

/* Sleeps until row `wanted - 1` may have come, at most `left` ns. Who has no slot cannot wish to be
 * woken, and sleeps briefly instead. */
CBUF__SLOW void cbuf__nap(cbuf_reader *reader, uint64_t wanted, int64_t left, int64_t *brief)
{
    const cbuf_ring *ring = reader->ring;
    if (!reader->slot) {
        struct timespec pause = { 0, CBUF__AS(long, *brief < left ? *brief : left) };
        nanosleep(&pause, NULL);
        if (*brief < 1000000) *brief *= 2;
        return;
    }
    bool sure = true;
    uint64_t count;
    if (!cbuf__wish_rows(ring, wanted, &count, &sure)) return;
    int64_t most = sure ? 1000000000 : 1000000;
    cbuf__count(&reader->slot->waits, 1);
    cbuf__futex_wait(
        &ring->readers->rows.count, CBUF__AS(uint32_t, count), left < most ? left : most);
}

CBUF__SLOW int64_t cbuf__wait_slowly(cbuf_reader *reader, uint32_t n, int64_t timeout_ns)
{
    const cbuf_ring *ring = reader->ring;
    int64_t start = cbuf__now_ns(CBUF__MONOTONIC), checked = start, brief = 50000;
    for (;;) {
        for (uint32_t spin = 0; spin < reader->spins; spin++) {
            if (cbuf__ready(reader, n) >= n) return n;
            cbuf__pause();
        }
        if (cbuf__resync(reader)) continue;
        uint64_t state = cbuf__load_acquire(&ring->file->state), there = cbuf_available(reader);
        if (there >= n && !ring->many) reader->published = reader->cursor + there;
        if (there && ring->many) { /* up to a row that was given up: those behind it are next */
            uint64_t ready = cbuf__ready(reader, n);
            if (there >= n && ready) return CBUF__AS(int64_t, ready);
            there = ready;
            if (!ready) continue;
        }
        if (there >= n) return n;
        int64_t some = CBUF__AS(int64_t, there), now = cbuf__now_ns(CBUF__MONOTONIC);
        int64_t left = timeout_ns < 0 ? INT64_MAX : timeout_ns - (now - start);
        int gone = 0;
        if (state == CBUF__CLOSED) gone = CBUF_ECLOSED;
        if (state == CBUF__RETIRED) gone = CBUF_ERETIRED;
        if (!gone && now - checked > 500000000) {
            gone = cbuf__look_after_file(ring);
            checked = now;
            cbuf__stamp(reader);
        }
        if (!gone && ring->many && now - reader->mended_ns > 500000000) {
            reader->mended_ns = now;
            cbuf__mend(ring);
        }
        if (gone) return some && gone != CBUF_EFORMAT ? some : gone;
        if (left <= 0) return some;
        if (reader->wait == CBUF_YIELD) sched_yield();
        if (reader->wait == CBUF_SLEEP) cbuf__nap(reader, reader->cursor + n, left, &brief);
    }
}

static inline int64_t cbuf_wait(cbuf_reader *reader, uint32_t n, int64_t timeout_ns)
{
    int error = cbuf__usable(reader->ring, reader->ring->row_bytes);
    if (error) return error;
    if (!n || n > reader->ring->capacity / 2) return CBUF_EINVAL;
    if (cbuf__ready(reader, n) >= n) return n;
    return cbuf__wait_slowly(reader, n, timeout_ns);
}

static inline int cbuf_wait_room(cbuf_ring *ring, uint32_t n, int64_t timeout_ns)
{
    const int64_t spell = 100000000; /* of many: between two looks for dead producers */
    int error = cbuf__usable(ring, ring->row_bytes);
    if (!error && !ring->producer) error = CBUF_EROLE;
    if (!error && (!n || n > ring->capacity / 2)) error = CBUF_EINVAL;
    if (error) return error;
    if (!ring->gated) return 1;
    if (ring->many && ring->claimed) return CBUF_EINVAL;
    for (int64_t start = 0, left = timeout_ns;;) {
        if (ring->many) cbuf__sweep_if_due(ring), ring->next = cbuf__edge(ring);
        cbuf__scan_gates(ring);
        if (ring->limit >= ring->next + n) return 1;
        int64_t now = cbuf__now_ns(CBUF__MONOTONIC);
        if (!start) start = now;
        if (timeout_ns >= 0 && (left = timeout_ns - (now - start)) <= 0) return 0;
        bool longer = ring->many && (left < 0 || left > spell);
        if (cbuf__await_gates(ring, n, 0, longer ? spell : left)) return 1;
    }
}
#endif /* CBUF_NO_OS */

#ifdef __has_include /* arrays of columns; metrics, and what memory and threads really got */
#if __has_include("cbuf_columns.h")
#include "cbuf_columns.h"
#endif
#if __has_include("cbuf_stats.h")
#include "cbuf_stats.h"
#endif
#endif

#ifdef __cplusplus
}
#endif
#endif /* CBUF_H */
