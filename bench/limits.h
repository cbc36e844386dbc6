/* limits.h - bare.c's cases: what no queue can beat. */

#include <fcntl.h>
#ifndef MADV_POPULATE_READ /* Linux 5.14 */
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

/* A file in /dev/shm with the bytes of a ring, and nothing in it: the least that a ring which others can open costs. */
static const char *bare_path(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/dev/shm/cbuf_bench_%d_0", (int)getpid());
    return path;
}
/* At a 2 MiB boundary, so that there can be huge pages. */
static unsigned char *bare_map(int fd, size_t bytes, int protection, bool populate)
{
    const size_t huge = 2u << 20;
    unsigned char *at = (unsigned char *)mmap(NULL, bytes + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) die("mmap", strerror(errno));
    munmap(at, bytes + huge); /* a place was found; nobody else maps anything now */
    unsigned char *aligned = at + (huge - (uintptr_t)at % huge) % huge;
    if (mmap(aligned, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) die("mmap", strerror(errno));
    int collapsed = setup.huge ? -1 : 0;
    for (int tries = 0; collapsed && tries < 10; tries++)
        if (!(collapsed = madvise(aligned, bytes, MADV_COLLAPSE)) || errno != EAGAIN) break;
    if (collapsed) die("MADV_COLLAPSE", strerror(errno));
    if (populate) madvise(aligned, bytes, protection & PROT_WRITE ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    close(fd);
    return aligned;
}
static int bare_file(size_t bytes)
{
    int fd = open(bare_path(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || posix_fallocate(fd, 0, (off_t)bytes)) die(bare_path(), "cannot be made");
    return fd;
}

/* Each row's fields stored in its place in a ring; nothing tells anyone. */
static void bare_write(void)
{
    size_t bytes = setup.capacity * sizeof(row);
    row *rows = (row *)(void *)bare_map(bare_file(bytes), bytes, PROT_READ | PROT_WRITE, true);
    unlink(bare_path());
    struct side *s = &control->sides[0];
    uint64_t i = 0, mask = setup.capacity - 1;
    for (; i < 2 * setup.capacity; i++) row_fill(&rows[i & mask], i);
    s->begin_rows = i;
    side_begin(s);
    uint64_t deadline = deadline_in_ticks();
    struct window window;
    window_begin(&window, i);
    do {
        for (uint64_t until = i + WINDOW_ROWS; i < until; i++) {
            row_fill(&rows[i & mask], i);
            __asm__ volatile("" ::: "memory"); /* each row by itself: stores are not merged over rows */
        }
        window_pass(&window, i);
    } while (ticks() < deadline);
    side_end(s);
    report_rate((double)(i - s->begin_rows), (double)(s->end_ns - s->begin_ns), true);
    report_disturbance(1);
}

/* Each side stores a number in a line of its own when it sees it in the other's; then both go to their next line, as in a
 * ring: how far a line is from both processors differs from line to line. */
enum { BARE_LINES = 1024 };
static long bare_step = 64; /* the fastest of 0 to 128 here; variant step=N */
static unsigned char *bare_lines; /* number i of side s at s * BARE_LINES * LINE + i * step */
INLINE uint64_t *bare_line(uint64_t i, int side)
{
    return (uint64_t *)(void *)(bare_lines + (uint64_t)side * BARE_LINES * LINE + i % BARE_LINES * (uint64_t)bare_step);
}
static void bare_pingpong_side(int side)
{
    struct side *s = &control->sides[side];
    start_together(2);
    uint64_t i = 1, deadline = deadline_in_ticks(), late = deadline + 20 * (deadline - ticks());
    const uint64_t last = ~0ull;
    side_begin(s);
    if (side == 0) {
        for (; ticks() < deadline || (i < 20000 && ticks() < late); i++) {
            uint64_t sent = ticks();
            __atomic_store_n(bare_line(i, 0), i, __ATOMIC_RELEASE);
            while (__atomic_load_n(bare_line(i, 1), __ATOMIC_ACQUIRE) != i) {}
            uint64_t took = ticks() - sent;
            if (i >= 2000) histogram_add(&control->latency, took);
        }
        __atomic_store_n(bare_line(i, 0), last, __ATOMIC_RELEASE);
    } else {
        for (uint64_t now = 0; now != last; i++) {
            do now = __atomic_load_n(bare_line(i, 0), __ATOMIC_ACQUIRE);
            while (now != i && now != last);
            __atomic_store_n(bare_line(i, 1), i, __ATOMIC_RELEASE);
        }
    }
    side_end(s);
}
static void bare_pingpong(void)
{
    bare_step = variant_number(&setup, "step", bare_step);
    bare_lines = (unsigned char *)shared_memory(2 * LINE * (size_t)BARE_LINES);
    run_sides(2, bare_pingpong_side);
    report_latency();
    report_disturbance(2);
}

/* paced.h with a line in the place of a queue: when the number was due is in it. */
static void bare_paced_side(int side)
{
    struct side *s = &control->sides[side];
    const uint64_t last = ~0ull;
    start_together(2);
    side_begin(s);
    if (side == 0) {
        struct pace pace = pace_begin();
        uint64_t i = 0, due;
        while ((due = pace_next(&pace)) != 0) __atomic_store_n(bare_line(i++, 0), due, __ATOMIC_RELEASE);
        __atomic_store_n(bare_line(i, 0), last, __ATOMIC_RELEASE);
    } else {
        for (uint64_t i = 0, seen = 0, now;; i++, seen = now) {
            do now = __atomic_load_n(bare_line(i, 0), __ATOMIC_ACQUIRE);
            while (now <= seen); /* a line of the lap before, if the producer was a lap ahead */
            if (now == last) break;
            if (i >= PACED_WARM) histogram_add(&control->latency, elapsed_since(now));
        }
    }
    side_end(s);
}
static void bare_paced(void)
{
    bare_lines = (unsigned char *)shared_memory(2 * LINE * (size_t)BARE_LINES);
    run_sides(2, bare_paced_side);
    report_latency();
    report_disturbance(2);
}

/* paced.h with a sleeping reader: a word, and the kernel's wait for it. */
static void bare_sleep_side(int side)
{
    uint32_t *word = (uint32_t *)(void *)bare_lines;
    uint64_t *due_at = (uint64_t *)(void *)(bare_lines + LINE);
    struct side *s = &control->sides[side];
    start_together(2);
    side_begin(s);
    if (side == 0) {
        struct pace pace = pace_begin();
        uint64_t due;
        do {
            due = pace_next(&pace);
            uint64_t began = ticks();
            __atomic_store_n(due_at, due, __ATOMIC_RELAXED);
            __atomic_fetch_add(word, 1, __ATOMIC_RELEASE);
            syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
            if (due) histogram_add(&control->costs[0], ticks() - began);
        } while (due);
    } else
        for (uint32_t seen = 0, now;; seen = now) {
            while ((now = __atomic_load_n(word, __ATOMIC_ACQUIRE)) == seen) syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
            uint64_t due = __atomic_load_n(due_at, __ATOMIC_RELAXED);
            if (!due) break;
            histogram_add(&control->latency, elapsed_since(due));
        }
    side_end(s);
}
static void bare_sleep(void)
{
    bare_lines = (unsigned char *)shared_memory(2 * LINE);
    run_sides(2, bare_sleep_side);
    report_latency();
    report_cost("call_ns", 0, 1);
    report_disturbance(1);
}

/* One core copies `batch` rows at a time from its cache into a ring, and out again. */
static void bare_memcpy(void)
{
    unsigned char *ring = (unsigned char *)shared_memory(setup.capacity * sizeof(row));
    size_t bytes = (size_t)setup.batch * sizeof(row), end = setup.capacity * sizeof(row);
    static row rows[256];
    struct side *s = &control->sides[0];
    uint64_t copied = 0;
    memset(rows, 0, sizeof rows);
    side_begin(s);
    uint64_t deadline = deadline_in_ticks();
    struct window window;
    window_begin(&window, 0);
    do
        for (size_t at = 0; at + bytes <= end; at += bytes, copied += (uint64_t)setup.batch) {
            window_pass(&window, copied);
            memcpy(ring + at, rows, bytes);
            __asm__ volatile("" ::: "memory");
            memcpy(rows, ring + at, bytes);
            __asm__ volatile("" ::: "memory");
        }
    while (ticks() < deadline);
    side_end(s);
    report_rate((double)copied, (double)(s->end_ns - s->begin_ns), true);
    report_disturbance(1);
}

static void bare_open(void)
{
    size_t bytes = setup.capacity * sizeof(row);
    bool populate = setup.capacity > 65536;
    side_begin(&control->sides[0]);
    for (uint64_t i = 0, deadline = deadline_in_ticks(); i < 3 || (ticks() < deadline && i < 1000); i++) {
        uint64_t t0 = ticks();
        unsigned char *made = bare_map(bare_file(bytes), bytes, PROT_READ | PROT_WRITE, populate);
        uint64_t t1 = ticks();
        unsigned char *attached = bare_map(open(bare_path(), O_RDONLY | O_CLOEXEC), bytes, PROT_READ, populate);
        histogram_add(&control->costs[0], t1 - t0);
        histogram_add(&control->costs[1], ticks() - t1);
        munmap(made, bytes), munmap(attached, bytes), unlink(bare_path());
    }
    report_cost("create_us", 0, 1e3);
    side_end(&control->sides[0]);
    report_cost("attach_us", 1, 1e3);
    report_disturbance(1);
}

/* write(2) of the same bytes, a call for each `batch` rows. */
static void bare_log(void)
{
    row rows[256];
    size_t bytes = (size_t)setup.batch * sizeof(row);
    struct side *s = &control->sides[0];
    int fd = open(log_path(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) die(log_path(), strerror(errno));
    unlink(log_path());
    side_begin(s);
    uint64_t i = 0, deadline = deadline_in_ticks();
    struct window window;
    window_begin(&window, i);
    do {
        for (uint64_t until = i + WINDOW_ROWS; i < until; i += (uint64_t)setup.batch) {
            for (int k = 0; k < setup.batch; k++) row_fill(&rows[k], i + (uint64_t)k);
            if (write(fd, rows, bytes) != (ssize_t)bytes) die("write", strerror(errno));
        }
        window_pass(&window, i);
    } while (ticks() < deadline);
    side_end(s);
    close(fd);
    report_rate((double)i, (double)(s->end_ns - s->begin_ns), true);
    report_disturbance(1);
}

static bool limits_run(const char *shape)
{
    if (!strcmp(shape, "write")) bare_write();
    else if (!strcmp(shape, "pingpong")) bare_pingpong();
    else if (!strcmp(shape, "memcpy")) bare_memcpy();
    else if (!strcmp(shape, "open")) bare_open();
    else if (!strcmp(shape, "log")) bare_log();
    else if (!strcmp(shape, "paced") && setup.sleeping) bare_sleep();
    else if (!strcmp(shape, "paced")) bare_paced();
    else return false;
    return true;
}
