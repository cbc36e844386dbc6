/*
 * cbuf_stats.h - looking at a ring from outside: counters, readers and producers for monitors; what
 * memory and threads really got. A companion that cbuf.h takes in where it lies beside it;
 * including either gives both.
 *
 * Any thread or process may call these at any time, unless they say otherwise. They read what the
 * ring's processes store anyway, and cost those nothing.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_H
#include "cbuf.h" /* which includes this file at its end */
#elif !defined CBUF_STATS_H
#define CBUF_STATS_H

typedef struct cbuf_stats {
    uint64_t written, overwritten, dropped; /* rows: published, gone, refused */
    uint64_t capacity, readers;             /* rows; slots taken */
    uint64_t waits, wakes, demotions;       /* the producer's waits for room, wake-ups sent ... */
    uint64_t aborted;                       /* rows that were claimed and given up */
    uint64_t epoch;                         /* how many producers the ring has had */
    uint64_t spilled;                       /* rows accepted that are still in the log */
    int64_t newest_age_ns;                  /* by the first timestamp[ns] column; -1: unknown */
    uint32_t producer_pid;
    bool closed, retired;
} cbuf_stats;
static inline int cbuf_stats_get(const cbuf_ring *ring, cbuf_stats *stats);

typedef struct cbuf_reader_stats {
    char name[CBUF_NAME_BYTES];
    uint64_t cursor, lost, lag_rows, waits;
    int64_t lag_ns; /* newest row's time less the next row's; -1: unknown */
    int64_t started_ns, active_ns; /* since 1970: opened; last stamped, at times, while in use */
    uint32_t pid;
    bool gate, demoted;
} cbuf_reader_stats;
/* Slot `index`, below cbuf_resolved()->max_readers: 1 if a reader has it, 0 if not, or an error. */
static inline int cbuf_reader_stats_get(
    const cbuf_ring *ring, uint32_t index, cbuf_reader_stats *stats);

typedef struct cbuf_producer_stats {
    uint64_t begin, end; /* the rows that it has claimed and not yet published: none if equal */
    uint64_t behind;     /* rows published behind the first of these, where no reader gets yet */
    int64_t started_ns;  /* since 1970 */
    uint32_t pid;
} cbuf_producer_stats;
/* Slot `index`, below cbuf_resolved()->producers: 1 if a producer has it, or had it when it was
 * killed; 0 if not; or an error. While readers wait, the one with the smallest `begin` of those
 * with rows behind them is whom they wait for. May look at each row of the ring. */
static inline int cbuf_producer_stats_get(
    const cbuf_ring *ring, uint32_t index, cbuf_producer_stats *stats);

#ifndef CBUF_NO_OS
/* What this process's mapping really got; asked of the kernel, in some 100 us. */
typedef struct cbuf_memory_info {
    uint64_t bytes, resident, locked, huge; /* of the mapping; in RAM, locked, in huge pages */
    uint64_t page_size;
    int numa_node;                                          /* of the first row; -1: unknown */
    int numa_errno, populate_errno, huge_errno, lock_errno; /* of what was asked and failed, or 0 */
} cbuf_memory_info;
static inline int cbuf_memory_info_get(const cbuf_ring *ring, cbuf_memory_info *info);

/* The calling thread: 0, or -errno. */
static inline int cbuf_pin_thread(uint32_t cpu);
static inline int cbuf_realtime_thread(int priority); /* SCHED_FIFO, 1 to 99 */
static inline int cbuf_lock_memory(void);             /* the whole process's, now and later: also
                                                         escape planes, which are made by that */
#endif

/* ---- how ---- */

/* The time of a row by the first timestamp column, or INT64_MIN. */
CBUF__SLOW int64_t cbuf__time_of(const cbuf_ring *ring, uint64_t sequence)
{
    int64_t time;
    if (ring->time_offset == UINT32_MAX) return INT64_MIN;
    if (ring->many && cbuf__is_aborted(ring, sequence)) return INT64_MIN;
    return cbuf__field(ring, sequence, ring->time_offset, 8, &time) ? time : INT64_MIN;
}

/* Times come from rows, whatever these say: this wraps. */
CBUF__INLINE int64_t cbuf__between(int64_t from, int64_t to)
{
    return CBUF__AS(int64_t, CBUF__AS(uint64_t, to) - CBUF__AS(uint64_t, from));
}

static inline int cbuf_stats_get(const cbuf_ring *ring, cbuf_stats *stats)
{
    const struct cbuf__file *file = ring->file;
    int error = cbuf__usable(ring, ring->row_bytes);
    if (error) return error;
    uint64_t state = cbuf__load_relaxed(&file->state), oldest = cbuf_oldest(ring);
    memset(stats, 0, sizeof *stats);
    stats->written = cbuf_head(ring);
    stats->overwritten = oldest < stats->written ? oldest : stats->written;
    stats->dropped = cbuf__load_relaxed(&file->dropped);
    stats->capacity = ring->capacity;
    stats->waits = cbuf__load_relaxed(&file->waits);
    stats->wakes = cbuf__load_relaxed(&file->wakes);
    stats->demotions = cbuf__load_relaxed(&file->demotions);
    stats->aborted = cbuf__load_relaxed(&file->aborted);
    stats->epoch = cbuf__load_relaxed(&file->epoch);
    uint64_t spill_end = cbuf__load_relaxed(&file->spill_end);
    if (spill_end > stats->written && spill_end != CBUF__FREE)
        stats->spilled = spill_end - stats->written;
    stats->producer_pid = CBUF__AS(uint32_t, cbuf__load_relaxed(&file->producer_pid));
    stats->closed = state == CBUF__CLOSED;
    stats->retired = state == CBUF__RETIRED;
    int64_t newest = stats->written ? cbuf__time_of(ring, stats->written - 1) : INT64_MIN;
    stats->newest_age_ns =
        newest == INT64_MIN ? -1 : cbuf__between(newest, cbuf__now_ns(CBUF__REALTIME));
    for (uint32_t k = 0; ring->readers && k < ring->options.max_readers; k++)
        stats->readers += cbuf__load_relaxed(&ring->readers->slots[k].owned) != 0;
    return 0;
}

static inline int cbuf_reader_stats_get(
    const cbuf_ring *ring, uint32_t index, cbuf_reader_stats *stats)
{
    int error = cbuf__usable(ring, ring->row_bytes);
    memset(stats, 0, sizeof *stats);
    if (!error && !ring->readers) error = CBUF_EACCES;
    if (!error && index >= ring->options.max_readers) error = CBUF_EINVAL;
    if (error) return error;
    const struct cbuf__slot *slot = &ring->readers->slots[index];
    if (!cbuf__load_acquire(&slot->owned)) return 0;
    unsigned char name[CBUF_NAME_BYTES];
    cbuf__words_out(name, slot->name, sizeof name / 8);
    memcpy(stats->name, name, sizeof name - 1);
    uint64_t head = cbuf_head(ring), oldest = cbuf_oldest(ring);
    stats->cursor = cbuf__load_relaxed(&slot->cursor);
    stats->lost = cbuf__load_relaxed(&slot->lost);
    stats->waits = cbuf__load_relaxed(&slot->waits);
    stats->lag_rows = head > stats->cursor ? head - stats->cursor : 0;
    stats->started_ns = CBUF__AS(int64_t, cbuf__load_relaxed(&slot->started_ns));
    stats->active_ns = CBUF__AS(int64_t, cbuf__load_relaxed(&slot->active_ns));
    stats->pid = CBUF__AS(uint32_t, cbuf__load_relaxed(&slot->pid));
    stats->gate = cbuf__load_relaxed(&slot->gate) != 0;
    uint64_t demoted = cbuf__load_relaxed(ring->gates + index);
    stats->demoted = demoted && demoted == cbuf__load_relaxed(&slot->incarnation);
    uint64_t next = stats->cursor > oldest ? stats->cursor : oldest;
    int64_t newest = head ? cbuf__time_of(ring, head - 1) : INT64_MIN;
    int64_t behind = next < head ? cbuf__time_of(ring, next) : newest;
    stats->lag_ns =
        newest == INT64_MIN || behind == INT64_MIN ? -1 : cbuf__between(behind, newest);
    return 1;
}

static inline int cbuf_producer_stats_get(
    const cbuf_ring *ring, uint32_t index, cbuf_producer_stats *stats)
{
    int error = cbuf__usable(ring, ring->row_bytes);
    memset(stats, 0, sizeof *stats);
    if (!error && index >= ring->options.producers) error = CBUF_EINVAL;
    if (error) return error;
    const struct cbuf__pen *pen = ring->pens + index;
    const struct cbuf__file *file = ring->file;
    uint64_t claim = cbuf__edge(ring), began = cbuf__load_relaxed(&file->producer_started_ns);
    uint64_t pid = cbuf__load_relaxed(&file->producer_pid);
    stats->begin = stats->end = claim;
    if (ring->many) {
        if (!cbuf__load_acquire(&pen->owned)) return 0;
        began = cbuf__load_relaxed(&pen->started_ns);
        pid = cbuf__load_relaxed(&pen->pid);
        uint64_t i = cbuf__load_acquire(&pen->begin), end = cbuf__load_relaxed(&pen->end);
        uint64_t lap = cbuf__oldest_at(ring, claim);
        if (end > claim) end = claim;
        if (i < lap) i = lap;
        while (i < end && !cbuf__is_pending(ring, i)) i++; /* published, or of a claim it tried */
        if (i < end) stats->begin = i, stats->end = end;
        for (i = stats->end; i < claim; i++) stats->behind += !cbuf__is_pending(ring, i);
    } else if (cbuf__load_relaxed(&file->state) != CBUF__OPEN) {
        return 0;
    }
    stats->started_ns = CBUF__AS(int64_t, began);
    stats->pid = CBUF__AS(uint32_t, pid);
    return 1;
}

#ifndef CBUF_NO_OS
/* A line of /proc/self/smaps: "start-end ..." begins a mapping, "Name: number kB" belongs to it. */
CBUF__SLOW void cbuf__smaps_line(
    const char *line, uintptr_t from, uintptr_t to, bool *inside, cbuf_memory_info *info)
{
    uint64_t start = 0, number = 0;
    const char *p = line;
    for (; (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f'); p++)
        start = start << 4 | CBUF__AS(uint64_t, *p <= '9' ? *p - '0' : *p - 'a' + 10);
    if (p > line && *p == '-') *inside = start >= from && start < to;
    if (!*inside) return;
    for (; *p && (*p < '0' || *p > '9'); p++) {}
    for (; *p >= '0' && *p <= '9'; p++) number = 10 * number + CBUF__AS(uint64_t, *p - '0');
    bool hugetlb = !strncmp(line, "Shared_Hugetlb:", 15) || !strncmp(line, "Private_Hugetlb:", 16);
    bool pmd = !strncmp(line, "ShmemPmdMapped:", 15) || !strncmp(line, "FilePmdMapped:", 14);
    if (!strncmp(line, "Rss:", 4) || hugetlb) info->resident += number * 1024;
    if (pmd || hugetlb) info->huge += number * 1024;
    if (!strncmp(line, "KernelPageSize:", 15)) info->page_size = number * 1024;
    if (!strncmp(line, "VmFlags:", 8) && strstr(line, " lo")) info->locked = info->resident;
}

static inline int cbuf_memory_info_get(const cbuf_ring *ring, cbuf_memory_info *info)
{
    char buffer[4096], line[160];
    size_t filled = 0;
    ssize_t got;
    bool inside = false;
    uintptr_t base = CBUF__ADDRESS(ring->file);
    memset(info, 0, sizeof *info);
    if (!ring->file_bytes) return ring->file ? CBUF_EINVAL : CBUF_ENOTOPEN;
    info->bytes = ring->file_bytes;
    info->numa_errno = ring->memory_errno[0];
    info->populate_errno = ring->memory_errno[1];
    info->huge_errno = ring->memory_errno[2];
    info->lock_errno = ring->memory_errno[3];
    const unsigned long of_address = 3; /* MPOL_F_NODE | MPOL_F_ADDR */
    if (syscall(SYS_get_mempolicy, &info->numa_node, NULL, 0ul, ring->rows, of_address))
        info->numa_node = -1;
    int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return CBUF_ESYSTEM;
    while ((got = read(fd, buffer, sizeof buffer)) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            if (buffer[i] != '\n' && filled + 1 < sizeof line) line[filled++] = buffer[i];
            if (buffer[i] != '\n') continue;
            line[filled] = 0;
            filled = 0;
            cbuf__smaps_line(line, base, base + ring->file_bytes, &inside, info);
        }
    }
    close(fd);
    return 0;
}

static inline int cbuf_pin_thread(uint32_t cpu)
{
    unsigned long mask[16] = { 0 }, bits = 8 * sizeof mask[0];
    if (cpu >= 16 * bits) return -EINVAL;
    mask[cpu / bits] = 1ul << cpu % bits;
    return syscall(SYS_sched_setaffinity, 0, sizeof mask, mask) < 0 ? -errno : 0;
}
static inline int cbuf_realtime_thread(int priority) /* by syscall: musl's own says ENOSYS */
{
    return syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &priority) < 0 ? -errno : 0;
}
static inline int cbuf_lock_memory(void) { return mlockall(MCL_CURRENT | MCL_FUTURE) ? -errno : 0; }
#endif
#endif /* CBUF_STATS_H */
