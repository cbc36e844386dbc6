/*
 * cbuf_log.h - the file beside a ring: rows that found the ring full (spill), or every row (a
 * write-ahead log). Checksummed, append-only, in the rows' order. Companion of cbuf.h.
 *
 *   cbuf_options options = { .name = "ticks", .on_full = CBUF_SPILL, ... };
 *   if (cbuf_create(&ring, &options) < 0) die(cbuf_error(&ring));
 *   cbuf_log log;                                                             spill
 *   cbuf_log_options spill = { .path = "/var/spool/ticks.spill", .max_bytes = 1 << 30 };
 *   if (cbuf_log_open(&log, &ring, &spill) < 0) die(cbuf_log_error(&log));
 *   cbuf_write(&ring, &tick);        never waits for a reader: into the ring, or into the file
 *   cbuf_log_close(&log); cbuf_close(&ring);
 *
 *   cbuf_log_options wal = { .path = "/var/log/ticks.log", .every_row = true,
 *                            .sync_ns = 10000000 };                           write-ahead log
 *   cbuf_log_replay("/var/log/ticks.log", &ring, &options, &report);          after a reboot
 *
 * Readers know nothing of it: they get all rows from the ring, in order, with the same sequence
 * numbers. Open a log right after the ring was created and before its first write, at each start of
 * the producer; include this file in the producer only.
 *
 * WHAT DOES NOT HOLD, FIRST
 *
 *   - A row that goes to the file costs a system call for each call that writes: write batches.
 *   - What was moved gives its disk blocks back, a mebibyte at a time, where the file system can
 *     punch holes; the file's length shrinks only when the readers have caught up. At max_bytes, or
 *     when the disk is full, rows are refused (or the producer waits, at_limit).
 *   - Rows move from the file into the ring inside the producer's own calls: each write,
 *     cbuf_log_drain, cbuf_log_close. A producer that is idle while its readers catch up should
 *     call cbuf_log_drain. What is still in the file at the close is moved by the next producer
 *     that opens the log; until one does, the ring refuses all rows (CBUF_ENOSPILL).
 *   - A spill is not synced to the disk: it outlives a killed producer, not a power failure, which
 *     the ring in /dev/shm does not outlive either. A log of every row is as durable as sync_ns
 *     says; while nothing is written nothing is synced: cbuf_log_sync. It never shrinks.
 *   - Rows go in as the caller has them, with their padding. cbuf_claim is refused (CBUF_ELOGGED).
 *   - What was written to a ring without its log is not in the log, and is no error.
 *   - The checksum finds damage, not malice: who may write the file may put rows into the ring.
 *   - Several producers that log every row wait for one another at each call: see below.
 *
 * WHAT HOLDS
 *
 *   - A write that said so has its rows in the ring or in the file; a SIGKILL at any instruction
 *     loses none of them, doubles none, and puts none out of order (tests/test_log.c).
 *   - Whatever happens to the file, no row comes out of it that did not go in: it counts up to the
 *     first byte that is not as it was written; the rest is cut, and cbuf_log_report says so. Rows
 *     that were accepted and are gone with it are counted, exactly, as long as the ring is there.
 *
 * THE FILE, in the byte order of its machine
 *
 *   +--------+--------+-------+-------+---------------------------------+---------------------+---
 *   | header | schema | zeros | marks | record: check, sequence, count, | count rows, one     | ..
 *   |   64   |  JSON  |       | 4096  |         zero          (24 bytes)| behind another      |
 *   +--------+--------+-------+-------+---------------------------------+---------------------+---
 *   0        64                    header_bytes, a multiple of 4096
 *
 *   check = XXH64(rows, XXH64(sequence count zero, check of the record before)), and before the
 *   first record is the header's check, which covers header and schema, with the ring's id. So a
 *   record counts only behind the one that it was written behind, and in this file: bytes of an
 *   earlier episode, or of another log, never do. A record holds at most 256 KiB of rows, or one.
 *   The two marks, 512 bytes apart and written in turn, say where a record begins before which all
 *   were moved, and what it follows; space is given back up to the older one. A scan begins at the
 *   mark furthest on at which there is a whole record, or behind the header: so a mark that is
 *   torn, damaged, or of an earlier episode is passed over.
 *   XXH64: Yann Collet, xxHash, github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md.
 *
 * WHERE AN EPISODE STANDS, AND WHAT A DEATH LEAVES
 *
 *   `sequence` is the number that the first row of a record has, or will have, in the ring. So a
 *   row of the log with a number below the ring's head has been moved and one from head on has not;
 *   nothing else needs to be remembered. The ring's one word for it, spill_end, is 0, or a promise:
 *   rows below it were accepted. A producer without a log does not write while it is above head.
 *
 *   killed                                  the next producer, who has recovered head first, finds
 *   before spill_end = all ones             nothing begun
 *   then, before the record is whole        a torn record, or none: cuts it. The write had not
 *                                           returned, so its rows were never accepted
 *   then, before spill_end = end of record  a whole record: moves it. (The write had not returned:
 *                                           its rows may come or not, and come, all of the record)
 *   while rows are moved                    head somewhere in the log: goes on there
 *   a mark is written, or space given back  the older mark, or both
 *   all moved, before the file is cut       no row from head on: cuts the file now
 *   cut, before spill_end = 0               the same; spill_end is not above head
 *   every_row: appended, not yet published  rows from head on: moves them
 *   a failed append, before it is cut back  a torn record
 *
 *   A log that begins beyond head (the ring went back, as a ring on a disk may after a power
 *   failure) is refused and left as it is: its numbers are not this ring's any more; replay it.
 *
 * SEVERAL PRODUCERS of one ring each open the same log, with the same every_row. Outside of an
 * episode rows go straight into the ring, as without a log. For all else, and with every_row for
 * each call, a producer takes the lock of the file's first byte for the length of its call: one who
 * is stopped there (not dead) holds up all who need the file, also in cbuf_log_open and _close.
 *
 *   - While an episode lasts the top bit of the ring's `claim` is set, and nobody but the lock's
 *     holder claims rows (section [many] of cbuf.h). The others append: so each producer's rows are
 *     in its order, and all in one. With every_row a call is an episode: the bit, append, move.
 *   - Who gives the lock back leaves notes behind the marks, with a checksum: where the records end
 *     and what has been moved. Who gets it next believes them, reads what stands behind that end
 *     (somebody died there), and cuts what is not whole.
 *   - Rows that a dead mover had claimed and not published stay in its pen, and readers wait; the
 *     next who gets the lock writes them again from the file. If none lives it is the next one to
 *     open the log; a reader waits until then, and no row of the file is lost.
 *   - A producer without the log gets CBUF_ENOSPILL while the bit is set: let all open it.
 *   - Rows of an OVERWRITE or BLOCK ring with every_row that meet a producer without a log in the
 *     middle of its own rows wait, in naps of 50 us.
 *   - The last one to close a spill removes its file. CBUF_EBUSY: others have another log, or this
 *     one (CBUF_REPLACE). A ring of several producers in memory has no log.
 *
 * SECTIONS  [api] [format] [scan] [append] [move] [many] [write] [open] [replay]
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_LOG_H
#define CBUF_LOG_H

#include "cbuf.h"
#ifndef CBUF_NO_OS /* without files there is no log */
#include <sys/uio.h>

#ifdef __cplusplus
extern "C++" {
#define CBUF__UNCONST(pointer) const_cast<void *>(pointer)
#else
#define CBUF__UNCONST(pointer) ((void *)CBUF__ADDRESS(pointer))
#endif

/* ================================================================================= [api] ==== */

enum cbuf_log_limit { CBUF_LOG_REFUSE = 0, CBUF_LOG_WAIT = 1 };

typedef struct cbuf_log_options { /* zero is the default everywhere */
    const char *path;   /* absolute, or a name in /dev/shm; NULL: the ring's with .spill, which
                           cbuf_remove takes away, or .log if every_row, which it does not */
    bool every_row;     /* append each row before it is published; or else only what is spilled */
    uint8_t existing;   /* enum cbuf_existing: CBUF_RESUME is for a log of this very ring */
    uint8_t at_limit;   /* enum cbuf_log_limit: refuse the row, counted as dropped; or wait until
                           readers have read and there is space again */
    uint64_t max_bytes; /* of the file, less what it gave back; 0: 1 GiB */
    int64_t block_ns;   /* how long CBUF_LOG_WAIT waits; 0: without limit */
    int64_t sync_ns;    /* with every_row, fdatasync in a write if the last one is so long ago; 0:
                           in each, before its rows are published; CBUF_FOREVER: never */
} cbuf_log_options;

typedef struct cbuf_log_report { /* what was found in a log; and what became of it since */
    uint64_t rows;         /* whole rows */
    uint64_t recovered;    /* of these, rows that were yet to be moved into the ring */
    uint64_t bytes_cut;    /* at the end: torn, damaged, or no record */
    uint64_t rows_missing; /* accepted, and gone with what was cut; also counted as dropped */
    const char *why;       /* it was cut; NULL: it was not */
} cbuf_log_report;

typedef struct cbuf_log_stats {
    uint64_t bytes, pending;            /* as max_bytes counts; rows that the ring has not yet */
    uint64_t appended, refused;         /* rows, since it was opened */
    uint64_t episodes, syncs, failures; /* of spilling; of fdatasync; appends that failed */
    int last_errno;                     /* of the last failure, or 0 */
} cbuf_log_stats;

/* Reads a log from its beginning; private but for what the calls return. */
typedef struct cbuf_log_scan {
    cbuf_ring file; /* for its path, descriptor and error text only */
    uint64_t id, at, limit, chain, sequence, start_chain;
    uint32_t row_bytes, header_bytes, schema_bytes, flags, most, next_mark;
    unsigned char *memory, *buffer;
    size_t memory_bytes, room, filled;
    uint64_t buffer_at;
} cbuf_log_scan;

typedef struct cbuf_log { /* private; it stays where it was opened, as a ring's handle does */
    struct cbuf_hook hook;
    cbuf_ring *ring;
    cbuf_log_options options; /* as resolved */
    cbuf_log_report report;
    cbuf_log_stats stats;
    uint64_t bytes, chain, end; /* place of the next record; what it follows; number of its row */
    const unsigned char *rows;  /* of the record that is being moved: these numbers */
    uint64_t rows_begin, rows_end;
    uint64_t from, from_chain;       /* that record's place, and what it follows */
    uint64_t marked, hole, hole_end; /* the last mark's place; bytes given back, up to where */
    uint64_t noted;                  /* the check of the notes that this handle knows */
    int64_t synced_ns;
    bool unsynced, limited, lent, alone; /* lent: rows are the caller's */
    cbuf_log_scan scan;
} cbuf_log;

/* Opens the log of a ring that this handle produces into, and continues it: cuts what is not whole,
 * and begins to move what is not in the ring yet. From then on the ring's writes go through it.
 * `options` may be NULL. 0, or an error: CBUF_EROLE; CBUF_EINVAL, also for a log that would do
 * nothing (on_full is not CBUF_SPILL, and not every_row); CBUF_EMISMATCH: it holds another ring's
 * rows; CBUF_EBUSY: another has it, or the ring's other producers have another; CBUF_EFORMAT: it is
 * no log, or begins beyond head. After an error the file is as it was, and cbuf_log_error tells
 * why. */
static inline int cbuf_log_open(
    cbuf_log *log, cbuf_ring *ring, const cbuf_log_options *options);

/* Ends it: moves what there is room for, syncs (unless sync_ns is CBUF_FOREVER), and removes a
 * spill's file if it is empty and no other producer has it. Before cbuf_close, which does it too.
 * 0, or CBUF_ESYSTEM if the sync failed. */
static inline int cbuf_log_close(cbuf_log *log);

/* Moves rows into the ring, and waits for room for them, at most timeout_ns (0: not at all;
 * CBUF_FOREVER). 1: none is left; 0: not in time; or an error. */
static inline int cbuf_log_drain(cbuf_log *log, int64_t timeout_ns);

/* fdatasync now. 0, or CBUF_ESYSTEM. */
static inline int cbuf_log_sync(cbuf_log *log);

static inline const char *cbuf_log_error(const cbuf_log *log); /* why cbuf_log_open failed */
static inline const char *cbuf_log_path(const cbuf_log *log);
static inline cbuf_log_report cbuf_log_report_get(const cbuf_log *log);
static inline cbuf_log_stats cbuf_log_stats_get(const cbuf_log *log);

/* Makes a ring, and writes all rows of a log into it, in order, from sequence number 0 on. Columns
 * and row_bytes come from the log, all else from the options, which may be NULL; a ring that is
 * there is CBUF_EEXIST unless `existing` is CBUF_REPLACE. Returns how many rows it were; *report
 * (may be NULL) tells what was not whole, which is left alone. After an error there is no ring, and
 * cbuf_error(ring) tells why. */
static inline int64_t cbuf_log_replay(
    const char *path, cbuf_ring *ring, const cbuf_options *options, cbuf_log_report *report);

/* Reads a log, without changing it: also one that is being written, up to where it is now. 0, or an
 * error and cbuf_log_scan_error. */
static inline int cbuf_log_scan_open(cbuf_log_scan *scan, const char *path);
/* The rows of the next record, until the next call; *sequence is the first one's number. How many;
 * 0: there is no further whole record, and *why (may be NULL) tells what stands there instead, or
 * is NULL; or an error. */
static inline int64_t cbuf_log_next(
    cbuf_log_scan *scan, const void **rows, uint64_t *sequence, const char **why);
static inline void cbuf_log_scan_close(cbuf_log_scan *scan);
static inline const char *cbuf_log_scan_error(const cbuf_log_scan *scan);
static inline uint32_t cbuf_log_scan_row_bytes(const cbuf_log_scan *scan);
static inline const char *cbuf_log_scan_schema(const cbuf_log_scan *scan, size_t *bytes);

/* ============================================================================== [format] ==== */

#define CBUF__LOG_MAGIC "cbuflog\n"
#define CBUF__LOG_MAJOR 1
#define CBUF__LOG_RECORD 262144u /* bytes of rows in one, at most; or one row */
#define CBUF__LOG_MARKS 4096u
#define CBUF__LOG_NOTES 1024u /* their place behind the marks' */
enum { CBUF__LOG_EVERY_ROW = 1 };

struct cbuf_log__header { /* never changes */
    char magic[8];
    uint32_t byte_order;
    uint16_t major, minor;
    uint64_t id; /* the ring's */
    uint32_t row_bytes, header_bytes, schema_bytes, flags;
    int64_t created_ns;
    uint64_t zero, check;
};
struct cbuf_log__record {
    uint64_t check, sequence;
    uint32_t count, zero;
};
struct cbuf_log__mark { /* a record's place, the checksum that it follows, its least sequence */
    uint64_t check, at, chain, sequence;
};
CBUF__FROZEN(sizeof(struct cbuf_log__header) == 64 && sizeof(struct cbuf_log__record) == 24);
struct cbuf_log__notes { /* of many producers: where all stands; as in cbuf_log */
    uint64_t check, bytes, chain, end, from, from_chain, marked, hole, hole_end;
    uint32_t next_mark, zero;
};
CBUF__FROZEN(sizeof(struct cbuf_log__mark) == 32 && sizeof(struct cbuf_log__notes) == 80);
CBUF__FROZEN(offsetof(struct cbuf_log__header, check) == 56);

#define CBUF__XXH_1 0x9e3779b185ebca87u
#define CBUF__XXH_2 0xc2b2ae3d27d4eb4fu
#define CBUF__XXH_3 0x165667b19e3779f9u
#define CBUF__XXH_4 0x85ebca77c2b2ae63u
#define CBUF__XXH_5 0x27d4eb2f165667c5u

CBUF__INLINE uint64_t cbuf__rotl(uint64_t x, int by) { return x << by | x >> (64 - by); }
CBUF__INLINE uint64_t cbuf__xxh_get(const unsigned char *from)
{
    uint64_t word = cbuf__get(from);
    return CBUF__LITTLE ? word : __builtin_bswap64(word);
}
CBUF__INLINE uint64_t cbuf__xxh_round(uint64_t lane, uint64_t word)
{
    return cbuf__rotl(lane + word * CBUF__XXH_2, 31) * CBUF__XXH_1;
}
CBUF__INLINE uint64_t cbuf__xxh_merge(uint64_t hash, uint64_t lane)
{
    return (hash ^ cbuf__xxh_round(0, lane)) * CBUF__XXH_1 + CBUF__XXH_4;
}
/* What is less than 32 bytes, and the last mixing. */
CBUF__INLINE uint64_t cbuf__xxh_finish(uint64_t hash, const unsigned char *at, size_t left)
{
    for (; left >= 8; at += 8, left -= 8) {
        hash ^= cbuf__xxh_round(0, cbuf__xxh_get(at));
        hash = cbuf__rotl(hash, 27) * CBUF__XXH_1 + CBUF__XXH_4;
    }
    if (left >= 4) {
        uint64_t low = CBUF__AS(uint64_t, at[0]) | CBUF__AS(uint64_t, at[1]) << 8 |
            CBUF__AS(uint64_t, at[2]) << 16 | CBUF__AS(uint64_t, at[3]) << 24;
        hash = cbuf__rotl(hash ^ low * CBUF__XXH_1, 23) * CBUF__XXH_2 + CBUF__XXH_3;
        at += 4;
        left -= 4;
    }
    for (; left; at++, left--) hash = cbuf__rotl(hash ^ *at * CBUF__XXH_5, 11) * CBUF__XXH_1;
    hash = (hash ^ hash >> 33) * CBUF__XXH_2;
    hash = (hash ^ hash >> 29) * CBUF__XXH_3;
    return hash ^ hash >> 32;
}
CBUF__SLOW uint64_t cbuf__xxh64(const void *from, size_t bytes, uint64_t seed)
{
    const unsigned char *at = CBUF__AS(const unsigned char *, from);
    uint64_t hash = seed + CBUF__XXH_5;
    size_t left = bytes;
    if (bytes >= 32) {
        uint64_t a = seed + CBUF__XXH_1 + CBUF__XXH_2, b = seed + CBUF__XXH_2;
        uint64_t c = seed, d = seed - CBUF__XXH_1;
        for (; left >= 32; at += 32, left -= 32) {
            a = cbuf__xxh_round(a, cbuf__xxh_get(at));
            b = cbuf__xxh_round(b, cbuf__xxh_get(at + 8));
            c = cbuf__xxh_round(c, cbuf__xxh_get(at + 16));
            d = cbuf__xxh_round(d, cbuf__xxh_get(at + 24));
        }
        hash = cbuf__rotl(a, 1) + cbuf__rotl(b, 7) + cbuf__rotl(c, 12) + cbuf__rotl(d, 18);
        hash = cbuf__xxh_merge(cbuf__xxh_merge(hash, a), b);
        hash = cbuf__xxh_merge(cbuf__xxh_merge(hash, c), d);
    }
    return cbuf__xxh_finish(hash + bytes, at, left);
}

CBUF__SLOW uint64_t cbuf_log__check_of(const struct cbuf_log__record *record, const void *rows,
    size_t bytes, uint64_t chain)
{
    uint64_t seed = cbuf__xxh64(&record->sequence, 16, chain);
    return cbuf__xxh64(rows, bytes, seed);
}
/* Of the header and the `rest` bytes behind it. */
CBUF__SLOW uint64_t cbuf_log__header_check(
    const struct cbuf_log__header *header, const void *rest, size_t bytes)
{
    uint64_t seed = cbuf__xxh64(header, offsetof(struct cbuf_log__header, check), 0);
    return cbuf__xxh64(rest, bytes, seed);
}
CBUF__SLOW uint64_t cbuf_log__mark_check(const struct cbuf_log__mark *mark, uint64_t chain)
{
    return cbuf__xxh64(&mark->at, 24, chain);
}
CBUF__SLOW uint32_t cbuf_log__header_bytes(uint64_t schema_bytes)
{
    uint64_t used = sizeof(struct cbuf_log__header) + schema_bytes;
    return CBUF__AS(uint32_t, cbuf__round_up(used, 4096) + CBUF__LOG_MARKS);
}

/* ================================================================================ [scan] ==== */

/* Reads bytes of the file: how many there are, or -1 and errno. */
CBUF__SLOW ssize_t cbuf_log__get(int fd, void *to, size_t bytes, uint64_t at)
{
    unsigned char *start = CBUF__AS(unsigned char *, to);
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(fd, start + done, bytes - done, CBUF__AS(off_t, at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) break;
        done += CBUF__AS(size_t, got);
    }
    return CBUF__AS(ssize_t, done);
}

/* Memory for the header, the schema and one record at least. */
CBUF__SLOW int cbuf_log__allocate(cbuf_log_scan *scan)
{
    size_t row = scan->row_bytes;
    if (scan->memory) munmap(scan->memory, scan->memory_bytes);
    scan->memory = NULL;
    scan->most = CBUF__LOG_RECORD > scan->row_bytes ? CBUF__LOG_RECORD : scan->row_bytes;
    scan->room = (row > CBUF__LOG_RECORD ? row : CBUF__LOG_RECORD) + 4096;
    scan->memory_bytes = scan->header_bytes + scan->room;
    void *memory = mmap(NULL, scan->memory_bytes, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return cbuf__fail_errno(&scan->file, "memory", errno);
    scan->memory = CBUF__AS(unsigned char *, memory);
    scan->buffer = scan->memory + scan->header_bytes;
    scan->filled = 0;
    return 0;
}

/* What is wrong with the fixed part of a header, or NULL. */
CBUF__SLOW const char *cbuf_log__fault(const struct cbuf_log__header *header, uint64_t bytes)
{
    if (header->row_bytes < 1 || header->row_bytes > CBUF_MAX_ROW_BYTES) return "its row size";
    if (header->schema_bytes > CBUF_MAX_SCHEMA_BYTES) return "the size of its schema";
    if (header->header_bytes != cbuf_log__header_bytes(header->schema_bytes))
        return "the size of its header";
    if (header->header_bytes > bytes) return "it is shorter than its header";
    return header->flags > CBUF__LOG_EVERY_ROW || header->zero ? "its flags" : NULL;
}

CBUF__SLOW int cbuf_log__find_start(cbuf_log_scan *scan);

/* Reads and checks the header and the schema of the open file, of `bytes` bytes. */
CBUF__SLOW int cbuf_log__read_header(cbuf_log_scan *scan, uint64_t bytes)
{
    struct cbuf_log__header header;
    cbuf_ring *file = &scan->file;
    cbuf__query query;
    memset(&header, 0, sizeof header);
    memset(&query, 0, sizeof query);
    ssize_t got = cbuf_log__get(file->fd, &header, sizeof header, 0);
    if (got < 0) return cbuf__fail_errno(file, "reading", errno);
    if (CBUF__AS(size_t, got) < sizeof header || memcmp(header.magic, CBUF__LOG_MAGIC, 8))
        return cbuf__fail(file, CBUF_EFORMAT, "it does not begin with a log's mark");
    if (header.byte_order == 0x04030201u) return cbuf__fail(file, CBUF_EBYTEORDER, "its mark");
    if (header.byte_order == CBUF__BYTE_ORDER && header.major != CBUF__LOG_MAJOR)
        return cbuf__fail_with(file, CBUF_EVERSION, "its major version", header.major,
            "this program knows ", CBUF__LOG_MAJOR);
    const char *fault = cbuf_log__fault(&header, bytes);
    if (header.byte_order != CBUF__BYTE_ORDER) fault = "its byte order mark";
    if (fault) return cbuf__fail(file, CBUF_EFORMAT, fault);
    scan->id = header.id;
    scan->row_bytes = header.row_bytes;
    scan->header_bytes = header.header_bytes;
    scan->schema_bytes = header.schema_bytes;
    scan->flags = header.flags;
    scan->at = header.header_bytes;
    scan->limit = bytes;
    scan->chain = scan->start_chain = header.check;
    int error = cbuf_log__allocate(scan);
    if (error) return error;
    size_t rest = header.header_bytes - CBUF__LOG_MARKS - sizeof header;
    got = cbuf_log__get(file->fd, scan->memory, rest, sizeof header);
    if (got < 0) return cbuf__fail_errno(file, "reading", errno);
    if (CBUF__AS(size_t, got) < rest ||
        cbuf_log__header_check(&header, scan->memory, rest) != header.check)
        return cbuf__fail(file, CBUF_EFORMAT, "the checksum of its header");
    const void *schema = scan->memory;
    const char *text = CBUF__AS(const char *, schema);
    if (!cbuf__read_schema(text, scan->schema_bytes, scan->row_bytes, &query))
        return cbuf__fail(file, CBUF_ESCHEMA, query.why);
    return cbuf_log__find_start(scan);
}

CBUF__SLOW void cbuf_log__begin_scan(cbuf_log_scan *scan)
{
    memset(scan, 0, sizeof *scan);
    cbuf__begin(&scan->file);
}
static inline void cbuf_log_scan_close(cbuf_log_scan *scan)
{
    if (scan->memory) munmap(scan->memory, scan->memory_bytes);
    if (scan->file.local && scan->file.fd >= 0) close(scan->file.fd);
    scan->memory = NULL;
    scan->filled = 0;
    scan->file.fd = -1;
}
static inline int cbuf_log_scan_open(cbuf_log_scan *scan, const char *path)
{
    uint64_t bytes = 0;
    cbuf_log__begin_scan(scan);
    int error = cbuf__set_path(&scan->file, path ? path : "", 0);
    if (error) return error;
    int fd = cbuf__open_owned(&scan->file, scan->file.path, O_RDONLY, false, &bytes);
    if (fd < 0) return fd;
    scan->file.fd = fd;
    error = cbuf_log__read_header(scan, bytes);
    if (error) cbuf_log_scan_close(scan);
    return error;
}
static inline const char *cbuf_log_scan_error(const cbuf_log_scan *scan)
{
    return scan->file.error;
}
static inline uint32_t cbuf_log_scan_row_bytes(const cbuf_log_scan *scan)
{
    return scan->row_bytes;
}
static inline const char *cbuf_log_scan_schema(const cbuf_log_scan *scan, size_t *bytes)
{
    const void *schema = scan->memory;
    *bytes = scan->schema_bytes;
    return CBUF__AS(const char *, schema);
}

/* Brings `need` bytes from place scan->at on into the buffer: where they are; NULL: there are not
 * so many, or *error. */
CBUF__SLOW const unsigned char *cbuf_log__look(cbuf_log_scan *scan, uint64_t need, int *error)
{
    uint64_t left = scan->limit - scan->at;
    *error = 0;
    if (need > left) return NULL;
    if (scan->at < scan->buffer_at || scan->at + need > scan->buffer_at + scan->filled) {
        size_t want = left < scan->room ? CBUF__AS(size_t, left) : scan->room;
        ssize_t got = cbuf_log__get(scan->file.fd, scan->buffer, want, scan->at);
        scan->filled = got < 0 ? 0 : CBUF__AS(size_t, got);
        scan->buffer_at = scan->at;
        if (got < 0) *error = cbuf__fail_errno(&scan->file, "reading", errno);
        if (scan->filled < need) return NULL;
    }
    return scan->buffer + (scan->at - scan->buffer_at);
}

static inline int64_t cbuf_log_next(
    cbuf_log_scan *scan, const void **rows, uint64_t *sequence, const char **why)
{
    struct cbuf_log__record record;
    const char *ignored, **fault = why ? why : &ignored;
    int error;
    *rows = NULL;
    *sequence = 0;
    *fault = scan->at == scan->limit ? NULL : "a record is torn";
    const unsigned char *place = cbuf_log__look(scan, sizeof record, &error);
    if (!place) return error;
    memcpy(&record, place, sizeof record);
    uint64_t bytes = CBUF__AS(uint64_t, record.count) * scan->row_bytes;
    if (!record.count || record.zero || bytes > scan->most) {
        *fault = "there is no record where one should be";
        return 0;
    }
    place = cbuf_log__look(scan, sizeof record + bytes, &error);
    if (!place) return error;
    place += sizeof record;
    uint64_t check = cbuf_log__check_of(&record, place, CBUF__AS(size_t, bytes), scan->chain);
    *fault = "a record's checksum is wrong";
    if (check != record.check) return 0;
    *fault = "a record's sequence number is wrong";
    if (record.sequence < scan->sequence || record.sequence > UINT64_MAX / 2) return 0;
    *fault = NULL;
    *rows = place;
    *sequence = record.sequence;
    scan->sequence = record.sequence + record.count;
    scan->chain = record.check;
    scan->at += sizeof record + bytes;
    return record.count;
}

/* Reads mark k, or what stands there: whether it is one, of a place inside the file. */
CBUF__SLOW bool cbuf_log__get_mark(
    const cbuf_log_scan *scan, uint32_t k, struct cbuf_log__mark *mark)
{
    uint64_t place = scan->header_bytes - CBUF__LOG_MARKS + 512 * k;
    bool got = cbuf_log__get(scan->file.fd, mark, sizeof *mark, place) == sizeof *mark;
    return got && cbuf_log__mark_check(mark, scan->start_chain) == mark->check &&
        mark->at >= scan->header_bytes && mark->at < scan->limit;
}
CBUF__SLOW void cbuf_log__begin_at(
    cbuf_log_scan *scan, uint64_t at, uint64_t chain, uint64_t sequence)
{
    scan->at = at;
    scan->chain = chain;
    scan->sequence = sequence;
}

/* Puts the scan where the records begin. 0, or an error. */
CBUF__SLOW int cbuf_log__find_start(cbuf_log_scan *scan)
{
    struct cbuf_log__mark marks[2];
    bool there[2] = { false, false };
    const void *rows;
    uint64_t first;
    for (uint32_t k = 0; k < 2; k++) there[k] = cbuf_log__get_mark(scan, k, &marks[k]);
    uint32_t later = there[1] && (!there[0] || marks[1].at > marks[0].at);
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t k = later ^ i;
        if (!there[k]) continue;
        cbuf_log__begin_at(scan, marks[k].at, marks[k].chain, marks[k].sequence);
        int64_t n = cbuf_log_next(scan, &rows, &first, NULL);
        if (n < 0) return CBUF__AS(int, n);
        if (!n) continue;
        cbuf_log__begin_at(scan, marks[k].at, marks[k].chain, marks[k].sequence);
        scan->next_mark = k ^ 1;
        return 0;
    }
    cbuf_log__begin_at(scan, scan->header_bytes, scan->start_chain, 0);
    return 0;
}

/* ============================================================================== [append] ==== */

CBUF__INLINE bool cbuf_log__is_pending(const cbuf_log *log) { return log->end > log->ring->next; }

/* Writes a record at its place, in one call if the system lets it. 0, or the errno. */
CBUF__SLOW int cbuf_log__put(int fd, const struct cbuf_log__record *record,
    const unsigned char *rows, size_t bytes, uint64_t at)
{
    const void *from = record;
    const unsigned char *head = CBUF__AS(const unsigned char *, from);
    size_t done = 0, head_bytes = sizeof *record, total = head_bytes + bytes;
    while (done < total) {
        size_t of_head = done < head_bytes ? done : head_bytes, of_rows = done - of_head;
        struct iovec parts[2];
        parts[0].iov_base = CBUF__UNCONST(CBUF__AS(const void *, head + of_head));
        parts[0].iov_len = head_bytes - of_head;
        parts[1].iov_base = CBUF__UNCONST(CBUF__AS(const void *, rows + of_rows));
        parts[1].iov_len = bytes - of_rows;
        ssize_t put = pwritev(fd, parts, 2, CBUF__AS(off_t, at + done));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return put ? errno : ENOSPC;
        done += CBUF__AS(size_t, put);
    }
    return 0;
}

static inline int cbuf_log_sync(cbuf_log *log)
{
    if (!log->ring) return CBUF_ENOTOPEN;
    if (fdatasync(log->scan.file.fd)) {
        log->stats.failures++;
        log->stats.last_errno = errno;
        return CBUF_ESYSTEM;
    }
    log->stats.syncs++;
    log->unsynced = false;
    log->synced_ns = cbuf__now_ns(CBUF__MONOTONIC);
    return 0;
}
CBUF__SLOW int cbuf_log__sync_if_due(cbuf_log *log)
{
    int64_t every = log->options.sync_ns;
    log->unsynced = true;
    if (!log->options.every_row || every < 0) return 0;
    if (every && cbuf__now_ns(CBUF__MONOTONIC) - log->synced_ns < every) return 0;
    return cbuf_log_sync(log);
}

/* Takes back what was put behind the last whole record. What cannot be cut is overwritten by the
 * next one, and until then is behind the end for whoever reads. */
CBUF__SLOW int cbuf_log__cut(cbuf_log *log, uint64_t bytes)
{
    return ftruncate(log->scan.file.fd, CBUF__AS(off_t, bytes)) ? -errno : 0;
}

/* Appends up to n rows as one record. How many; 0: the limit is reached; or an error, and then the
 * file is as it was. */
CBUF__SLOW int64_t cbuf_log__append(cbuf_log *log, const unsigned char *rows, uint64_t n)
{
    struct cbuf_log__record record;
    uint32_t row = log->scan.row_bytes;
    uint64_t most = log->scan.most / row, max = log->options.max_bytes;
    uint64_t used = log->bytes - log->hole, left = max > used ? max - used : 0;
    uint64_t last = sizeof(off_t) == 4 ? INT32_MAX : INT64_MAX; /* place that a file can have */
    if (left > last - log->bytes) left = last - log->bytes;
    uint64_t fit = left > sizeof record ? (left - sizeof record) / row : 0;
    if (most > fit) most = fit;
    if (n > most) n = most;
    if (!n) return 0;
    size_t bytes = cbuf__span(n, row);
    record.sequence = log->end > log->ring->next ? log->end : log->ring->next;
    record.count = CBUF__AS(uint32_t, n);
    record.zero = 0;
    record.check = cbuf_log__check_of(&record, rows, bytes, log->chain);
    int failed = cbuf_log__put(log->scan.file.fd, &record, rows, bytes, log->bytes);
    bool full = failed == ENOSPC || failed == EDQUOT || failed == EFBIG;
    if (failed) log->stats.last_errno = failed, log->stats.failures++;
    if (!failed) failed = cbuf_log__sync_if_due(log);
    if (failed) {
        cbuf_log__cut(log, log->bytes);
        return full ? CBUF_ENOSPACE : CBUF_ESYSTEM;
    }
    log->bytes += sizeof record + bytes;
    log->chain = record.check;
    log->end = record.sequence + n;
    log->scan.limit = log->bytes;
    log->stats.appended += n;
    return CBUF__AS(int64_t, n);
}

/* ================================================================================ [move] ==== */

/* The next record that the scan finds is the one that is appended next. */
CBUF__SLOW void cbuf_log__scan_from_here(cbuf_log *log)
{
    log->scan.at = log->bytes;
    log->scan.chain = log->chain;
    log->scan.filled = 0;
    log->rows_begin = log->rows_end = 0;
    log->lent = false;
}

CBUF__SLOW struct cbuf_log__notes cbuf_log__notes_of(const cbuf_log *log)
{
    struct cbuf_log__notes notes;
    bool in_hand = log->rows_end > log->ring->next;
    memset(&notes, 0, sizeof notes);
    notes.bytes = log->bytes;
    notes.chain = log->chain;
    notes.end = log->end;
    notes.from = in_hand ? log->from : log->scan.at;
    notes.from_chain = in_hand ? log->from_chain : log->scan.chain;
    notes.marked = log->marked;
    notes.hole = log->hole;
    notes.hole_end = log->hole_end;
    notes.next_mark = log->scan.next_mark;
    return notes;
}
CBUF__SLOW uint64_t cbuf_log__notes_check(
    const cbuf_log *log, const struct cbuf_log__notes *notes)
{
    return cbuf__xxh64(&notes->bytes, sizeof *notes - 8, log->scan.start_chain);
}
/* Says in the file where all stands, for the next who gets its lock: when it is given back, and
 * before anything is taken away that the last notes speak of. A death in between leaves older ones,
 * and records behind what they call the end. True if it is said, or there is only one producer. */
CBUF__SLOW bool cbuf_log__note(cbuf_log *log, struct cbuf_log__notes notes)
{
    if (!log->ring->many) return true;
    notes.check = cbuf_log__notes_check(log, &notes);
    if (notes.check == log->noted) return true;
    uint64_t place = log->scan.header_bytes - CBUF__LOG_MARKS + CBUF__LOG_NOTES;
    ssize_t put = pwrite(log->scan.file.fd, &notes, sizeof notes, CBUF__AS(off_t, place));
    if (put != sizeof notes) return false;
    log->noted = notes.check;
    return true;
}
CBUF__SLOW void cbuf_log__adopt(cbuf_log *log, const struct cbuf_log__notes *notes)
{
    log->bytes = notes->bytes;
    log->chain = notes->chain;
    log->end = notes->end;
    log->marked = notes->marked;
    log->hole = notes->hole;
    log->hole_end = notes->hole_end;
    log->rows_begin = log->rows_end = 0;
    cbuf_log__begin_at(&log->scan, notes->from, notes->from_chain, 0);
    log->scan.filled = 0;
    log->scan.next_mark = notes->next_mark;
}

/* All rows are in the ring. */
CBUF__SLOW void cbuf_log__end_episode(cbuf_log *log)
{
    struct cbuf_log__notes empty = cbuf_log__notes_of(log);
    empty.bytes = empty.from = empty.marked = empty.hole_end = log->scan.header_bytes;
    empty.chain = empty.from_chain = log->scan.start_chain;
    empty.hole = 0;
    if (!log->options.every_row && cbuf_log__note(log, empty) &&
        !cbuf_log__cut(log, log->scan.header_bytes))
        cbuf_log__adopt(log, &empty);
    cbuf_log__scan_from_here(log);
    cbuf__spill_end(log->ring);
}

/* Gives disk blocks back that lie before `end` and behind what was given back already. By madvise:
 * fallocate() is hidden from who does not ask for all of GNU. Where it cannot be, nothing is. */
CBUF__SLOW void cbuf_log__give_back(cbuf_log *log, uint64_t end)
{
    const uint64_t page = CBUF__AS(uint64_t, sysconf(_SC_PAGESIZE));
    uint64_t from = cbuf__round_up(log->hole_end, page), to = end / page * page;
    if (to <= from || to - from > SIZE_MAX / 2) return;
    size_t bytes = CBUF__AS(size_t, to - from);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, log->scan.file.fd,
        CBUF__AS(off_t, from));
    if (base == MAP_FAILED) return;
    bool removed = !madvise(base, bytes, 9 /* MADV_REMOVE */);
    munmap(base, bytes);
    if (removed) log->hole += bytes, log->hole_end = to;
}

/* All before the scan's place was moved. Says so in the file, now and then, and gives back what
 * lies before the mark that stays beside this one. */
CBUF__SLOW void cbuf_log__mark_if_due(cbuf_log *log)
{
    struct cbuf_log__mark mark;
    cbuf_log_scan *scan = &log->scan;
    uint64_t step = (log->options.max_bytes - scan->header_bytes) / 8;
    if (step > 1u << 20) step = 1u << 20;
    if (log->options.every_row || scan->at < log->marked + step) return;
    mark.at = scan->at;
    mark.chain = scan->chain;
    mark.sequence = scan->sequence;
    mark.check = cbuf_log__mark_check(&mark, scan->start_chain);
    uint32_t place = scan->header_bytes - CBUF__LOG_MARKS + 512 * scan->next_mark;
    if (pwrite(scan->file.fd, &mark, sizeof mark, CBUF__AS(off_t, place)) != sizeof mark) return;
    uint64_t before = log->marked;
    log->marked = mark.at;
    scan->next_mark ^= 1;
    if (cbuf_log__note(log, cbuf_log__notes_of(log))) cbuf_log__give_back(log, before);
}

/* The file was damaged while it was open: what cannot be had any more is counted. */
CBUF__SLOW void cbuf_log__give_up(cbuf_log *log, const char *why)
{
    cbuf_ring *ring = log->ring;
    if (ring->many) ring->next = cbuf__claimed(ring); /* what is claimed counts as given up */
    uint64_t missing = log->end > ring->next ? log->end - ring->next : 0;
    log->report.why = why ? why : "a record is gone";
    log->report.rows_missing += missing;
    log->report.bytes_cut += log->bytes - log->scan.at;
    cbuf__tally(ring, &ring->file->dropped, missing);
    log->end = log->ring->next;
    log->bytes = log->scan.at;
    log->chain = log->scan.chain;
    cbuf_log__cut(log, log->bytes);
    cbuf_log__end_episode(log);
}

/* The next record with rows that the ring does not have. 1; 0: there is none, given up; or an
 * error. */
CBUF__SLOW int cbuf_log__load(cbuf_log *log)
{
    while (log->rows_end <= log->ring->next) {
        const void *rows;
        const char *why;
        uint64_t first;
        cbuf_log__mark_if_due(log);
        log->lent = false;
        log->from = log->scan.at;
        log->from_chain = log->scan.chain;
        int64_t n = cbuf_log_next(&log->scan, &rows, &first, &why);
        if (n < 0) return CBUF__AS(int, n);
        if (!n || first > log->ring->next) return cbuf_log__give_up(log, why), 0;
        log->rows = CBUF__AS(const unsigned char *, rows);
        log->rows_begin = first;
        log->rows_end = first + CBUF__AS(uint64_t, n);
    }
    return 1;
}

/* Whether a producer among many that is in the middle of its rows stands in the way. */
CBUF__SLOW bool cbuf_log__is_penned(const cbuf_ring *ring)
{
    return ring->many && cbuf__many_head(ring) + ring->capacity <= ring->next;
}

/* How many rows can go into the ring now, without waiting. */
CBUF__SLOW uint64_t cbuf_log__room(cbuf_ring *ring)
{
    if (!ring->gated && !ring->many) return ring->capacity;
    if (ring->limit <= ring->next) cbuf__scan_gates(ring);
    if (ring->limit <= ring->next) {
        bool pen = cbuf_log__is_penned(ring);
        if (pen ? cbuf__sweep_if_due(ring) : cbuf__mind_slowest(ring)) cbuf__scan_gates(ring);
    }
    uint64_t room = ring->limit > ring->next ? ring->limit - ring->next : 0;
    uint64_t most = ring->many ? ring->capacity / 4 : room; /* as cbuf__claim_rows */
    return room > most && most ? most : room;
}

CBUF__SLOW int cbuf_log__enter(cbuf_log *log); /* in [many] */
CBUF__SLOW void cbuf_log__leave(cbuf_log *log);

/* Moves rows into the ring while there is room. 0, or an error. */
CBUF__SLOW int cbuf_log__move(cbuf_log *log)
{
    cbuf_ring *ring = log->ring;
    while (cbuf_log__is_pending(log)) {
        uint64_t room = cbuf_log__room(ring);
        if (!room) return 0;
        int loaded = cbuf_log__load(log);
        if (loaded <= 0) return loaded;
        uint64_t n = log->rows_end - ring->next;
        const unsigned char *rows =
            log->rows + cbuf__span(ring->next - log->rows_begin, ring->row_bytes);
        if (n > room) n = room;
        int64_t put = 0;
        if (ring->many) cbuf__write_spilled(ring, rows, n);
        else put = cbuf__write_through(ring, rows, n, ring->row_bytes);
        if (put < 0) return CBUF__AS(int, put);
        if (!cbuf_log__is_pending(log)) cbuf_log__end_episode(log);
    }
    return 0;
}

/* Moves what there is room for, with the lock if there are many producers. 0, or an error. */
CBUF__SLOW int cbuf_log__move_now(cbuf_log *log)
{
    if (!log->ring->many) return cbuf_log__move(log);
    int error = cbuf_log__enter(log);
    if (!error) cbuf_log__leave(log);
    return error;
}

/* Waits until some of the rows could be moved, and moves them. 1; 0: not in time; or an error. */
CBUF__SLOW int cbuf_log__wait(cbuf_log *log, int64_t until_ns)
{
    cbuf_ring *ring = log->ring;
    if (ring->many) ring->next = cbuf__claimed(ring);
    uint64_t some = cbuf_log__is_pending(log) ? log->end - ring->next : 1;
    int64_t left = CBUF_FOREVER;
    if (some > ring->capacity / 4) some = ring->capacity < 4 ? 1 : ring->capacity / 4;
    if (until_ns >= 0 && (left = until_ns - cbuf__now_ns(CBUF__MONOTONIC)) <= 0) return 0;
    bool room = !ring->gated;
    if (cbuf_log__is_penned(ring)) cbuf__sweep_if_due(ring), room = cbuf__rest(1000000);
    else if (!room) room = cbuf__await_gates(ring, some, 0, left);
    int error = cbuf_log__move_now(log); /* what there is, also if it is less */
    return error ? error : room || !cbuf_log__is_pending(log);
}
CBUF__SLOW int64_t cbuf_log__until(int64_t ns) /* the moment that is so far ahead */
{
    return ns < 0 || ns > INT64_MAX / 2 ? CBUF_FOREVER : cbuf__now_ns(CBUF__MONOTONIC) + ns;
}

static inline int cbuf_log_drain(cbuf_log *log, int64_t timeout_ns)
{
    if (!log->ring) return CBUF_ENOTOPEN;
    int error = cbuf__usable(log->ring, log->ring->row_bytes);
    int64_t until = cbuf_log__until(timeout_ns);
    if (!error) error = cbuf_log__move_now(log);
    while (!error && cbuf_log__is_pending(log)) {
        int moved = cbuf_log__wait(log, until);
        if (moved <= 0) return moved < 0 ? moved : !cbuf_log__is_pending(log);
    }
    return error ? error : 1;
}

/* ================================================================================ [many] ==== */

CBUF__SLOW bool cbuf_log__is_spilling(const cbuf_ring *ring)
{
    return ring->many && cbuf__load_relaxed(&ring->file->claim) & CBUF__SPILLING;
}

/* The first row that the ring may not have. */
CBUF__SLOW uint64_t cbuf_log__head(const cbuf_ring *ring)
{
    if (!cbuf_log__is_spilling(ring)) return ring->next;
    uint64_t head = cbuf__many_head(ring), from = cbuf__load_acquire(&ring->file->spill_from);
    return head > from ? head : from;
}

/* Reads the log from the scan's place on; finds its end, and where the ring's head is in it. */
CBUF__SLOW int cbuf_log__recover(cbuf_log *log)
{
    cbuf_log_scan *scan = &log->scan;
    cbuf_ring *ring = log->ring;
    uint64_t at = scan->at, chain = scan->chain, file_end = scan->limit, rows_found = 0;
    uint64_t head = cbuf_log__head(ring), first = 0;
    uint64_t accepted = cbuf__load_relaxed(&ring->file->spill_end), missing = 0;
    const void *rows;
    const char *why;
    int64_t n;
    log->end = 0;
    while ((n = cbuf_log_next(scan, &rows, &first, &why)) > 0) {
        bool beyond = log->end <= head && first > head;
        if (ring->many && !cbuf_log__is_spilling(ring)) beyond = true;
        if (beyond && scan->sequence > head)
            return cbuf__fail_with(&scan->file, CBUF_EFORMAT, "it goes on at row", first,
                "the ring's head is ", head);
        rows_found += CBUF__AS(uint64_t, n);
        log->end = scan->sequence;
        if (log->end <= head) at = scan->at, chain = scan->chain;
    }
    if (n < 0) return CBUF__AS(int, n);
    log->bytes = scan->at;
    log->chain = scan->chain;
    log->report.bytes_cut += file_end - scan->at;
    if (why) log->report.why = why;
    if (scan->at < file_end && cbuf_log__cut(log, scan->at))
        return cbuf__fail_errno(&scan->file, "truncating", errno);
    scan->limit = scan->at;
    log->marked = log->hole_end = at;
    log->hole = 0;
    cbuf_log__begin_at(scan, at, chain, 0); /* the record that holds head */
    scan->filled = 0; /* it may hold what was cut */
    log->rows_begin = log->rows_end = 0;
    uint64_t end = log->end > ring->next ? log->end : ring->next;
    if (!ring->hook) log->report.rows = rows_found, log->report.recovered = end - head;
    if (accepted != CBUF__FREE && accepted > end) missing = accepted - end;
    log->report.rows_missing += missing;
    cbuf__tally(ring, &ring->file->dropped, missing);
    if (missing && ring->many) cbuf__store_relaxed(&ring->file->spill_end, end);
    return 0;
}

/* Learns what others did since this handle had the lock: from the notes of the last one, and if
 * that one died, from the records behind what it calls the end. */
CBUF__SLOW int cbuf_log__catch_up(cbuf_log *log)
{
    struct cbuf_log__notes notes;
    struct stat file;
    cbuf_log_scan *scan = &log->scan;
    uint64_t place = scan->header_bytes - CBUF__LOG_MARKS + CBUF__LOG_NOTES;
    if (fstat(scan->file.fd, &file)) return CBUF_ESYSTEM;
    uint64_t bytes = CBUF__AS(uint64_t, file.st_size);
    bool got = cbuf_log__get(scan->file.fd, &notes, sizeof notes, place) == sizeof notes &&
        notes.check == cbuf_log__notes_check(log, &notes) && notes.bytes <= bytes;
    log->ring->next = cbuf__claimed(log->ring);
    scan->limit = bytes > scan->header_bytes ? bytes : scan->header_bytes;
    if (!got) {
        scan->filled = 0;
        log->noted = 0;
        int error = cbuf_log__find_start(scan);
        return error ? error : cbuf_log__recover(log);
    }
    if (notes.check != log->noted) cbuf_log__adopt(log, &notes);
    log->noted = notes.check;
    if (log->bytes == bytes) return 0;
    uint64_t marked = log->marked, hole = log->hole, hole_end = log->hole_end;
    notes = cbuf_log__notes_of(log);
    cbuf_log__begin_at(scan, notes.from, notes.from_chain, 0);
    scan->filled = 0;
    int error = cbuf_log__recover(log);
    log->marked = marked;
    log->hole = hole;
    log->hole_end = hole_end;
    return error;
}

/* Writes again what a mover that died had claimed and not published, and frees its pen. */
CBUF__SLOW int cbuf_log__mend(cbuf_log *log)
{
    cbuf_ring *ring = log->ring;
    uint64_t claim = ring->next, at = cbuf_log__head(ring);
    while (at < claim && !cbuf__is_pending(ring, at)) at++;
    if (at >= claim) return 0;
    for (ring->next = at; ring->next < claim && log->end > ring->next;) {
        int loaded = cbuf_log__load(log);
        if (loaded <= 0) return ring->next = claim, loaded;
        for (; ring->next < claim && ring->next < log->rows_end; ring->next++)
            cbuf__write_again(ring, ring->next,
                log->rows + cbuf__span(ring->next - log->rows_begin, ring->row_bytes));
    }
    ring->next = claim;
    cbuf__wake(&ring->readers->rows, CBUF__FREE, ring->fd);
    cbuf__sweep_dead(ring);
    return 0;
}

/* Of an episode: makes whole what a dead one left, moves what there is room for, and ends it if
 * that was all. 0, or an error. */
CBUF__SLOW int cbuf_log__go_on(cbuf_log *log)
{
    if (!cbuf_log__is_spilling(log->ring)) return 0;
    int error = cbuf_log__mend(log);
    if (!error && cbuf_log__is_pending(log)) {
        cbuf__store_relaxed(&log->ring->file->spill_end, log->end);
        return cbuf_log__move(log);
    }
    if (error || !cbuf_log__is_spilling(log->ring)) return error;
    cbuf_log__end_episode(log);
    cbuf__sweep_dead(log->ring); /* what is claimed and not in the log is given up */
    return 0;
}

/* Many producers: gets the lock of the file, which says that no other moves or appends, and does
 * what is to be done first. 0, or an error and the lock is free. */
CBUF__SLOW int cbuf_log__enter(cbuf_log *log)
{
    int failed = cbuf__lock(log->scan.file.fd, CBUF__EXCLUSIVE, 0, true);
    if (failed) log->stats.last_errno = -failed, log->stats.failures++;
    if (failed) return CBUF_ESYSTEM;
    int error = cbuf_log__catch_up(log);
    if (error) { /* it knows nothing that it could note */
        log->noted = 0;
        cbuf__lock(log->scan.file.fd, CBUF__UNLOCK, 0, false);
        return error;
    }
    error = cbuf_log__go_on(log);
    if (error) cbuf_log__leave(log);
    return error;
}
CBUF__SLOW void cbuf_log__leave(cbuf_log *log)
{
    if (log->lent) { /* the caller's rows are read from the file when they are wanted again */
        if (log->rows_end > log->ring->next)
            cbuf_log__begin_at(&log->scan, log->from, log->from_chain, 0);
        log->rows_begin = log->rows_end = 0;
        log->lent = false;
    }
    cbuf_log__note(log, cbuf_log__notes_of(log));
    cbuf__lock(log->scan.file.fd, CBUF__UNLOCK, 0, false);
}

/* After an append to a log of which all else was moved: what was appended is moved from where the
 * caller has it. */
CBUF__SLOW void cbuf_log__lend(cbuf_log *log, const unsigned char *rows, uint64_t n)
{
    log->rows = rows;
    log->rows_begin = log->end - n;
    log->rows_end = log->end;
    log->from = log->scan.at;
    log->from_chain = log->scan.chain;
    cbuf_log__begin_at(&log->scan, log->bytes, log->chain, 0);
    log->lent = true;
}

/* As cbuf_log__try, with the lock. */
CBUF__SLOW int64_t cbuf_log__try_locked(cbuf_log *log, const unsigned char *rows, uint64_t n)
{
    cbuf_ring *ring = log->ring;
    bool every = log->options.every_row, spills = ring->options.on_full == CBUF_SPILL;
    bool begins = !cbuf_log__is_spilling(ring);
    int64_t put = 0;
    if (begins && !every) put = cbuf__write_through(ring, rows, n, ring->row_bytes);
    if (put || (!begins && !spills)) return put; /* or first what is there already */
    if (begins) cbuf__spill_begin(ring);
    if (begins) cbuf_log__scan_from_here(log);
    if (!spills) {
        uint64_t room = cbuf_log__room(ring);
        if (n > room) n = room;
    }
    if (n) put = cbuf_log__append(log, rows, n);
    if (n) log->limited = put == 0 || put == CBUF_ENOSPACE;
    if (put > 0) cbuf__store_relaxed(&ring->file->spill_end, log->end);
    if (put > 0 && begins) cbuf_log__lend(log, rows, CBUF__AS(uint64_t, put));
    if (put > 0) cbuf_log__move(log); /* they are accepted: an error shows at the next write */
    else if (begins) cbuf__spill_end(ring);
    log->stats.episodes += begins && put > 0 && (!every || cbuf_log__is_pending(log));
    return put;
}
CBUF__SLOW int64_t cbuf_log__try_of_many(cbuf_log *log, const unsigned char *rows, uint64_t n)
{
    int64_t put = 0;
    log->limited = false;
    if (!log->options.every_row)
        put = cbuf__write_through(log->ring, rows, n, log->ring->row_bytes);
    if (put) return put;
    put = cbuf_log__enter(log);
    if (put) return put;
    put = cbuf_log__try_locked(log, rows, n);
    cbuf_log__leave(log);
    return put;
}

/* =============================================================================== [write] ==== */

/* Appends rows that the ring has no room for; the first of them begin an episode. As append. */
CBUF__SLOW int64_t cbuf_log__spill(cbuf_log *log, const unsigned char *rows, uint64_t n)
{
    bool begins = !cbuf_log__is_pending(log);
    if (begins) cbuf_log__scan_from_here(log);
    if (begins) cbuf__spill_begin(log->ring);
    int64_t put = cbuf_log__append(log, rows, n);
    if (put > 0) cbuf__store_relaxed(&log->ring->file->spill_end, log->end);
    else if (begins) cbuf__spill_end(log->ring);
    log->stats.episodes += begins && put > 0;
    log->limited = put == 0 || put == CBUF_ENOSPACE;
    return put;
}

/* Writes rows into the ring, after they were logged if every row is. How many; 0: refused; or an
 * error. */
CBUF__SLOW int64_t cbuf_log__pass(cbuf_log *log, const unsigned char *rows, uint64_t n)
{
    cbuf_ring *ring = log->ring;
    if (!log->options.every_row) return cbuf__write_through(ring, rows, n, ring->row_bytes);
    int64_t room = CBUF__AS(int64_t, n);
    if (ring->next + n > ring->reserved) room = cbuf__make_room(ring, n);
    if (room <= 0) return room;
    room = cbuf_log__append(log, rows, CBUF__AS(uint64_t, room));
    log->limited = room == 0 || room == CBUF_ENOSPACE;
    if (room <= 0) return room;
    return cbuf__write_through(ring, rows, CBUF__AS(uint64_t, room), ring->row_bytes);
}

/* One try. How many rows were written; 0: refused; or an error. */
CBUF__SLOW int64_t cbuf_log__try(cbuf_log *log, const unsigned char *rows, uint64_t n)
{
    bool spills = log->ring->options.on_full == CBUF_SPILL;
    int64_t put = 0;
    if (log->ring->many) return cbuf_log__try_of_many(log, rows, n);
    log->limited = false;
    if (!cbuf_log__is_pending(log)) put = cbuf_log__pass(log, rows, n);
    if (!put && spills) put = cbuf_log__spill(log, rows, n);
    return put;
}

/* Whether a refused write waits until rows could be moved, and how long; a ring that blocks does it
 * for the rows of a predecessor. */
CBUF__SLOW bool cbuf_log__waits(const cbuf_log *log, int64_t *ns)
{
    const cbuf_options *ring = &log->ring->options;
    bool blocks = ring->on_full == CBUF_BLOCK;
    *ns = blocks ? ring->block_ns : log->options.block_ns;
    if (!*ns) *ns = CBUF_FOREVER;
    if (log->ring->many && !log->limited) return blocks || ring->on_full == CBUF_OVERWRITE;
    return cbuf_log__is_pending(log) &&
        (blocks || (log->limited && log->options.at_limit == CBUF_LOG_WAIT));
}

/* The hook: all that the producer writes comes here. */
CBUF__SLOW int64_t cbuf_log__write(void *self, const void *from, uint64_t n)
{
    cbuf_log *log = CBUF__AS(cbuf_log *, self);
    const unsigned char *rows = CBUF__AS(const unsigned char *, from);
    int64_t until = 0, ns, put = log->ring->many ? 0 : cbuf_log__move(log);
    uint64_t done = 0;
    while (put >= 0 && done < n) {
        put = cbuf_log__try(log, rows + cbuf__span(done, log->ring->row_bytes), n - done);
        if (put > 0) done += CBUF__AS(uint64_t, put);
        if (put > 0 || (put < 0 && put != CBUF_ENOSPACE)) continue;
        if (!cbuf_log__waits(log, &ns)) break;
        if (!until) until = cbuf_log__until(ns);
        put = cbuf_log__wait(log, until);
        if (!put) put = CBUF_ETIMEDOUT;
    }
    if (done < n && (put == 0 || put == CBUF_ENOSPACE)) {
        cbuf__tally(log->ring, &log->ring->file->dropped, n - done);
        log->stats.refused += n - done;
    }
    return done || put > 0 ? CBUF__AS(int64_t, done) : put;
}

/* ================================================================================ [open] ==== */

CBUF__SLOW void cbuf_log__end(void *self) { cbuf_log_close(CBUF__AS(cbuf_log *, self)); }

CBUF__SLOW void cbuf_log__attach(cbuf_log *log)
{
    cbuf_ring *ring = log->ring;
    log->hook.take = cbuf_log__write;
    log->hook.end = cbuf_log__end;
    log->hook.self = log;
    ring->hook = &log->hook;
    if (ring->many && ring->claimed) cbuf__publish_many(ring, 0);
    ring->claimed = 0;
    ring->local->plain = ring->local->other = 0;
}
/* After it the ring's writes go the short ways again, and look at spill_end first. */
CBUF__SLOW void cbuf_log__detach(cbuf_log *log)
{
    cbuf_ring *ring = log->ring;
    ring->hook = NULL;
    ring->local->plain = ring->shared_tail ? ring->local->row_bytes : 0;
    ring->local->other = ring->shared_tail ? 0 : ring->local->row_bytes;
    if (!ring->many) ring->reserved = ring->limit = ring->next;
}

/* What tells a ring from another: a ring in memory has no random number. */
CBUF__SLOW uint64_t cbuf_log__id_of(const cbuf_ring *ring)
{
    const cbuf__facts *facts = &ring->file->facts;
    return facts->ring_id ? facts->ring_id : CBUF__AS(uint64_t, facts->created_ns);
}

CBUF__SLOW int cbuf_log__resolve(
    cbuf_log *log, cbuf_ring *ring, const cbuf_log_options *options)
{
    cbuf_log_options *o = &log->options;
    cbuf_ring *file = &log->scan.file;
    if (options) *o = *options;
    if (!ring->file || !ring->local) return cbuf__fail(file, CBUF_ENOTOPEN, "the ring");
    int error = cbuf__usable(ring, ring->row_bytes);
    if (error) return cbuf__fail(file, error, "the ring");
    if (!ring->producer) return cbuf__fail(file, CBUF_EROLE, "open a log");
    if (ring->hook) return cbuf__fail(file, CBUF_EBUSY, "the ring has a log");
    if (ring->many && ring->lock_fd < 0)
        return cbuf__fail(file, CBUF_EINVAL, "a ring of many producers in memory has no log");
    if (!o->every_row && ring->options.on_full != CBUF_SPILL)
        return cbuf__fail(file, CBUF_EINVAL, "on_full is not CBUF_SPILL, and not every_row");
    if (o->existing > CBUF_NEW || o->at_limit > CBUF_LOG_WAIT || o->block_ns < 0 || o->sync_ns < -1)
        return cbuf__fail(
            file, CBUF_EINVAL, "existing, at_limit, block_ns or sync_ns has no such value");
    if (!o->path && !ring->path[0])
        return cbuf__fail(file, CBUF_EINVAL, "a ring in memory has no place beside it");
    cbuf__path beside = cbuf__path_of(ring, o->every_row ? ".log" : ".spill");
    error = cbuf__set_path(file, o->path ? o->path : beside.text, 0);
    if (error) return error;
    if (!o->max_bytes) o->max_bytes = 1u << 30;
    if (sizeof(off_t) == 4 && o->max_bytes > INT32_MAX) o->max_bytes = INT32_MAX;
    if (o->max_bytes > INT64_MAX) o->max_bytes = INT64_MAX;
    uint64_t least = cbuf_log__header_bytes(ring->schema_bytes);
    least += sizeof(struct cbuf_log__record) + ring->row_bytes;
    if (o->max_bytes < least)
        return cbuf__fail_with(file, CBUF_EINVAL, "max_bytes", o->max_bytes,
            "a header and one row take ", least);
    return 0;
}

/* Takes the locks of the file, which the kernel drops with the descriptor. Byte 1 says that it is
 * in use, and many producers' handles share it; byte 0 is theirs for a moment, and kept by who is
 * the only one. */
CBUF__SLOW int cbuf_log__lock(cbuf_log *log, int fd)
{
    bool many = log->ring->many;
    int failed = cbuf__lock(fd, CBUF__EXCLUSIVE, 1, false);
    log->alone = !failed;
    if (failed && many) failed = cbuf__lock(fd, CBUF__SHARED, 1, false);
    if (!failed) failed = cbuf__lock(fd, CBUF__EXCLUSIVE, 0, many);
    if (failed == -EAGAIN || failed == -EACCES)
        return cbuf__fail(&log->scan.file, CBUF_EBUSY, "another handle has the log");
    return failed ? cbuf__fail_errno(&log->scan.file, "locking", -failed) : 0;
}

CBUF__SLOW int cbuf_log__write_header(cbuf_log *log, int fd)
{
    struct cbuf_log__header header;
    const cbuf_ring *ring = log->ring;
    cbuf_log_scan *scan = &log->scan;
    memset(&header, 0, sizeof header);
    memcpy(header.magic, CBUF__LOG_MAGIC, 8);
    header.byte_order = CBUF__BYTE_ORDER;
    header.major = CBUF__LOG_MAJOR;
    header.id = cbuf_log__id_of(ring);
    header.row_bytes = ring->row_bytes;
    header.schema_bytes = CBUF__AS(uint32_t, ring->schema_bytes);
    header.header_bytes = cbuf_log__header_bytes(ring->schema_bytes);
    header.flags = log->options.every_row ? CBUF__LOG_EVERY_ROW : 0;
    header.created_ns = cbuf__now_ns(CBUF__REALTIME);
    scan->row_bytes = header.row_bytes;
    scan->header_bytes = header.header_bytes;
    scan->schema_bytes = header.schema_bytes;
    int error = cbuf_log__allocate(scan);
    if (error) return error;
    size_t rest = header.header_bytes - CBUF__LOG_MARKS - sizeof header;
    memcpy(scan->memory, ring->schema, ring->schema_bytes);
    header.check = cbuf_log__header_check(&header, scan->memory, rest);
    memmove(scan->memory + sizeof header, scan->memory, rest);
    memcpy(scan->memory, &header, sizeof header);
    for (size_t done = 0; done < header.header_bytes;) {
        ssize_t put = pwrite(fd, scan->memory + done, header.header_bytes - done,
            CBUF__AS(off_t, done));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return cbuf__fail_errno(&scan->file, "writing", put ? errno : ENOSPC);
        done += CBUF__AS(size_t, put);
    }
    return 0;
}

/* A new log, whole or not at all, in place of what had the name. */
CBUF__SLOW int cbuf_log__make(cbuf_log *log)
{
    cbuf_ring *file = &log->scan.file;
    cbuf__path new_path = cbuf__path_of(file, ".new");
    uint64_t bytes;
    unlink(new_path.text); /* left where a producer was killed */
    int fd = cbuf__open_owned(file, new_path.text, O_RDWR | O_CREAT | O_EXCL, false, &bytes);
    if (fd < 0) return fd;
    int error = cbuf_log__lock(log, fd);
    if (!error) error = cbuf_log__write_header(log, fd);
    cbuf_log_scan_close(&log->scan); /* also what is replaced */
    if (!error && rename(new_path.text, file->path))
        error = cbuf__fail_errno(file, "renaming", errno);
    if (error) unlink(new_path.text);
    file->fd = fd;
    return error ? error : cbuf_log__read_header(&log->scan, log->scan.header_bytes);
}

/* Opens the log that is there; *replace if there is nothing in it to keep. */
CBUF__SLOW int cbuf_log__open_existing(cbuf_log *log, bool *replace)
{
    cbuf_log_scan *scan = &log->scan;
    uint64_t bytes = 0;
    char magic[8] = { 0 };
    int fd = cbuf__open_owned(&scan->file, scan->file.path, O_RDWR, false, &bytes);
    if (fd < 0) return fd;
    scan->file.fd = fd;
    int error = cbuf_log__lock(log, fd);
    if (error) return error;
    if (log->options.existing == CBUF_NEW)
        return cbuf__fail(&scan->file, CBUF_EEXIST, "existing is CBUF_NEW");
    if (log->options.existing == CBUF_REPLACE && !log->alone)
        return cbuf__fail(&scan->file, CBUF_EBUSY, "other producers have the log");
    struct stat file;
    if (!fstat(fd, &file)) bytes = CBUF__AS(uint64_t, file.st_size); /* now that it stands still */
    *replace = bytes == 0;
    if (*replace) return 0;
    if (log->options.existing == CBUF_REPLACE && cbuf_log__get(fd, magic, 8, 0) == 8)
        *replace = !memcmp(magic, CBUF__LOG_MAGIC, 8);
    if (*replace) return 0;
    error = cbuf_log__read_header(scan, bytes);
    if (error) return error;
    bool same = scan->id == cbuf_log__id_of(log->ring) && scan->row_bytes == log->ring->row_bytes &&
        log->options.every_row == (scan->flags == CBUF__LOG_EVERY_ROW);
    *replace = !same && bytes == scan->header_bytes && log->alone;
    if (same || *replace) return 0;
    if (!log->alone) return cbuf__fail(&scan->file, CBUF_EBUSY, "another ring's producers have it");
    return cbuf__fail(&scan->file, CBUF_EMISMATCH,
        "it holds rows of another ring, or was made with another every_row: replay or remove it");
}

/* Many producers: whether another that lives has a log open, and not this one. */
CBUF__SLOW bool cbuf_log__has_other(const cbuf_log *log, uint64_t this_one)
{
    const cbuf_ring *ring = log->ring;
    for (uint32_t k = 0; k < ring->options.producers; k++) {
        const struct cbuf__pen *pen = ring->pens + k;
        uint64_t other = cbuf__load_acquire(&pen->log);
        if (pen == ring->pen || !other || other == this_one) continue;
        if (cbuf__lock(ring->lock_fd, CBUF__EXCLUSIVE, 1 + k, false)) return true;
        cbuf__lock(ring->lock_fd, CBUF__UNLOCK, 1 + k, false);
    }
    return false;
}

/* Opens the file, or makes it: the only step that one of many producers takes by itself. */
CBUF__SLOW int cbuf_log__open_file(cbuf_log *log)
{
    struct stat file;
    bool replace = true, many = log->ring->many;
    int error = 0;
    if (!lstat(log->scan.file.path, &file)) error = cbuf_log__open_existing(log, &replace);
    if (!error && many && cbuf_log__has_other(log, replace ? 0 : log->scan.start_chain))
        return cbuf__fail(&log->scan.file, CBUF_EBUSY, "other producers have another log");
    if (!error && replace) error = cbuf_log__make(log);
    if (many) log->ring->next = cbuf__claimed(log->ring);
    return error ? error : cbuf_log__recover(log);
}

/* One at a time opens and closes: a lock of the ring's says who. */
CBUF__SLOW void cbuf_log__gather(const cbuf_ring *ring, int type)
{
    if (ring->many) cbuf__lock(ring->lock_fd, type, 1 + CBUF_MAX_PRODUCERS, true);
}

static inline int cbuf_log_open(cbuf_log *log, cbuf_ring *ring, const cbuf_log_options *options)
{
    memset(log, 0, sizeof *log);
    cbuf_log__begin_scan(&log->scan);
    int error = cbuf_log__resolve(log, ring, options);
    if (error) return error;
    log->ring = ring;
    log->options.path = NULL;
    cbuf_log__gather(ring, CBUF__EXCLUSIVE);
    error = cbuf_log__open_file(log);
    if (error) {
        cbuf_log_scan_close(&log->scan);
        cbuf_log__gather(ring, CBUF__UNLOCK);
        log->ring = NULL;
        return error;
    }
    log->synced_ns = cbuf__now_ns(CBUF__MONOTONIC);
    cbuf_log__attach(log);
    if (ring->many) {
        cbuf__store_release(&ring->pen->log, log->scan.start_chain);
        cbuf_log__go_on(log); /* an error shows at the next write */
        cbuf_log__leave(log);
        cbuf__lock(log->scan.file.fd, CBUF__SHARED, 1, false);
        cbuf_log__gather(ring, CBUF__UNLOCK);
        return 0;
    }
    if (!cbuf_log__is_pending(log)) return cbuf_log__end_episode(log), 0;
    cbuf__store_relaxed(&ring->file->spill_end, log->end);
    cbuf_log__move(log); /* as above */
    return 0;
}

/* Whether a spill's file can go: nothing is in it, and nobody else has it. */
CBUF__SLOW bool cbuf_log__is_done_with(const cbuf_log *log)
{
    if (log->options.every_row || cbuf_log__is_pending(log)) return false;
    return !log->ring->many || (!cbuf_log__is_spilling(log->ring) &&
                                   !cbuf__lock(log->scan.file.fd, CBUF__EXCLUSIVE, 1, false));
}

static inline int cbuf_log_close(cbuf_log *log)
{
    cbuf_ring *ring = log->ring;
    int error = 0;
    if (!ring) return 0;
    if (ring->local->never == UINT64_MAX) { /* not in a forked child */
        cbuf_log__gather(ring, CBUF__EXCLUSIVE);
        bool done = !cbuf_log__move_now(log) && cbuf_log__is_done_with(log);
        if (log->options.every_row && log->unsynced && log->options.sync_ns >= 0)
            error = cbuf_log_sync(log);
        cbuf_log__detach(log);
        if (done) unlink(log->scan.file.path);
        cbuf_log_scan_close(&log->scan); /* before another looks whether it is the last one */
        if (ring->many) cbuf__store_release(&ring->pen->log, 0);
        cbuf_log__gather(ring, CBUF__UNLOCK);
    }
    ring->hook = NULL;
    log->ring = NULL;
    cbuf_log_scan_close(&log->scan);
    return error;
}

static inline const char *cbuf_log_error(const cbuf_log *log) { return log->scan.file.error; }
static inline const char *cbuf_log_path(const cbuf_log *log) { return log->scan.file.path; }
static inline cbuf_log_report cbuf_log_report_get(const cbuf_log *log) { return log->report; }
static inline cbuf_log_stats cbuf_log_stats_get(const cbuf_log *log)
{
    cbuf_log_stats stats = log->stats;
    stats.bytes = log->bytes - log->hole;
    stats.pending = log->ring && cbuf_log__is_pending(log) ? log->end - log->ring->next : 0;
    if (!log->ring || !log->ring->many) return stats;
    uint64_t end = cbuf__load_relaxed(&log->ring->file->spill_end);
    uint64_t claim = cbuf__claimed(log->ring);
    stats.pending = end > claim ? end - claim : 0;
    return stats;
}

/* ============================================================================== [replay] ==== */

/* The columns that the log's schema names: how many, or 0. */
CBUF__SLOW uint32_t cbuf_log__columns(const cbuf_log_scan *scan, cbuf_column *columns)
{
    size_t bytes;
    const char *schema = cbuf_log_scan_schema(scan, &bytes);
    cbuf__query query;
    memset(&query, 0, sizeof query);
    uint32_t count = 1;
    for (uint32_t k = 0; k < count; k++) {
        query.index = k;
        count = cbuf__read_schema(schema, bytes, scan->row_bytes, &query);
        if (count) columns[k] = query.found;
    }
    return count;
}

CBUF__SLOW int cbuf_log__create(cbuf_log_scan *scan, cbuf_ring *ring, const cbuf_options *options)
{
    cbuf_column columns[CBUF_MAX_COLUMNS];
    cbuf_options chosen;
    memset(&chosen, 0, sizeof chosen);
    if (options) chosen = *options;
    chosen.columns = columns;
    chosen.column_count = cbuf_log__columns(scan, columns);
    chosen.row_bytes = scan->row_bytes;
    if (chosen.existing != CBUF_REPLACE) chosen.existing = CBUF_NEW;
    return cbuf_create(ring, &chosen);
}

/* Writes all rows of the scan into the ring. 0, or an error. */
CBUF__SLOW int64_t cbuf_log__copy(cbuf_log_scan *scan, cbuf_ring *ring, cbuf_log_report *report)
{
    const void *rows;
    uint64_t first;
    int64_t n;
    while ((n = cbuf_log_next(scan, &rows, &first, &report->why)) > 0) {
        int64_t put = cbuf__write_through(ring, rows, CBUF__AS(uint64_t, n), ring->row_bytes);
        if (put > 0) report->rows += CBUF__AS(uint64_t, put);
        if (put < 0) return put;
        if (put < n) return CBUF_ETIMEDOUT; /* a reader came, and stands still */
    }
    report->bytes_cut = scan->limit - scan->at;
    return n;
}

static inline int64_t cbuf_log_replay(
    const char *path, cbuf_ring *ring, const cbuf_options *options, cbuf_log_report *report)
{
    cbuf_log_scan scan;
    cbuf_log_report found;
    memset(&found, 0, sizeof found);
    cbuf__begin(ring);
    int64_t error = cbuf_log_scan_open(&scan, path);
    bool opened = !error;
    if (opened) error = cbuf_log__create(&scan, ring, options);
    if (opened && !error && (error = cbuf_log__copy(&scan, ring, &found)) != 0) {
        cbuf__path made = cbuf__path_of(ring, "");
        cbuf_close(ring);
        cbuf_remove(made.text);
        cbuf__fail(&scan.file, CBUF__AS(int, error), "replaying");
        opened = false; /* the text is the scan's */
    }
    if (error && !opened) memcpy(ring->error, scan.file.error, sizeof ring->error);
    cbuf_log_scan_close(&scan);
    if (report) *report = found;
    return error ? error : CBUF__AS(int64_t, found.rows);
}

#ifdef __cplusplus
}
#endif
#endif /* CBUF_NO_OS */
#endif /* CBUF_LOG_H */
