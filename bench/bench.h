/*
 * bench.h - what every measured program shares: the row, the clock, the histogram, pinned sides, the report.
 *
 * A program is one adapter (peers/NAME.c or .cpp), which binds a queue's operations to the names below, then includes
 * main.h. The drivers (write.h, stream.h, pingpong.h) are compiled into each program, so that the operations inline
 * into their loops: no function pointer stands between a driver and a queue. A program makes one run of one case and prints
 * "metric,value" lines; bench/run interleaves the programs and writes the CSV.
 *
 * An adapter says what it can by macros, and leaves out the rest:
 *
 *   struct shared     what both sides see, in zeroed shared memory; channel 0 or 1
 *   struct producer   one side's handle       struct consumer   the other's
 *   shared_open(s, setup, channel)   before the sides start
 *   producer_open(p, s)       by the producer's thread or process, before any consumer_open
 *   consumer_open(c, s)       by the consumer's; what is written from then on is for it
 *   producer_close(p), consumer_close(c), shared_close(s)
 *
 *   CAN_WRITE      push works with nobody reading         CAN_STREAM     push and pop, lossless
 *   CAN_PROCESSES  the sides may be processes             CAN_IN_PLACE   claim, publish, peek, release
 *   CAN_READERS    each of several consumers gets all     CAN_FREE       push never waits; consumer_lost counts
 *   CAN_PRODUCERS  several producers; push_many           CAN_SLEEP      pop_wait
 *   CAN_OPEN       open_create, open_attach, open_register, open_close; then CAN_HUGE too: setup.huge is heeded
 *   CAN_LOG        cbuf's log: see log.h
 *   ROW_BY_ROW     there are no calls for several rows    ANY_CAPACITY   setup.capacity is heeded beyond 65,536
 *
 *   int push(struct producer *, const row *rows, int n)   copies up to n rows in, returns how many; 0: full
 *   int pop(struct consumer *, row *rows, int max)         copies up to max rows out; 0: empty
 *   int claim(struct producer *, int n, void **base)       room for up to n rows; 0: full
 *   void publish(struct producer *, int n)
 *   int peek(struct consumer *, int max, const void **base)
 *   bool release(struct consumer *, int n)                 false: what was seen may have been torn
 *   row *row_at(handle, void *base, int i)                 row i of a claim or a peek
 *   uint64_t consumer_lost(struct consumer *)              rows it missed since it was opened
 *   int push_many(struct producer *, rows, n)              as push, where others push too
 *   int pop_wait(struct consumer *, rows, max)             as pop, but sleeps, for 10 ms at most, while there is nothing
 */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define INLINE static inline __attribute__((always_inline))
#define UNUSED __attribute__((unused))
#define LINE 128 /* two cache lines: processors fetch them in pairs */

/* ---- the row: what a feed handler would publish, filled field by field ---- */

#ifndef ROW_BYTES
#define ROW_BYTES 32
#endif
#define LEVELS ((ROW_BYTES - 32) / 8)
typedef struct row {
    int64_t time;
    double bid, ask;
#if ROW_BYTES > 32
    double level[LEVELS];
#endif
    int32_t size; /* and 4 bytes of padding */
} row;

INLINE void row_fill(row *r, uint64_t i)
{
    double price = (double)(int64_t)i;
    r->time = (int64_t)i;
    r->bid = price;
    r->ask = price + 0.5;
#if ROW_BYTES > 32
    for (int k = 0; k < LEVELS; k++) r->level[k] = price;
#endif
    r->size = (int32_t)i;
}

typedef struct tally { /* what a consumer did */
    uint64_t rows, sum, wrong;
} tally;

INLINE void row_take(tally *t, const row *r, uint64_t expected)
{
    t->wrong |= (uint64_t)r->time ^ expected;
    t->sum += (uint32_t)r->size;
}

/* Whether all fields come from one writing. */
INLINE bool row_whole(const row *r)
{
    double price = (double)r->time;
    bool whole = r->bid == price && r->ask == price + 0.5 && r->size == (int32_t)r->time;
#if ROW_BYTES > 32
    for (int k = 0; k < LEVELS; k++) whole &= r->level[k] == price;
#endif
    return whole;
}

/* ---- options of a run ---- */

enum { MAX_SIDES = 72 };
struct setup {
    const char *shape, *variant; /* variant: the adapter's affair */
    int batch, max;              /* rows a call: the producer's, the consumer's */
    int readers, producers;
    bool in_place, processes, lossless, sleeping, huge;
    bool pause;                  /* a pause instruction when empty or full, as a well-behaved spin loop has */
    bool yield;                  /* more sides than processors: give the processor away instead */
    int milliseconds, interval_ns, cpu[MAX_SIDES], cpus;
    int mode;                    /* of the log's cases: see log.h */
    uint64_t capacity;
};

/* The number behind "name=" in the variant, or `otherwise`. */
UNUSED static long variant_number(const struct setup *s, const char *name, long otherwise)
{
    size_t length = strlen(name);
    for (const char *at = s->variant; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, name, length) && at[length] == '=') return strtol(at + length + 1, NULL, 10);
    return otherwise;
}

__attribute__((noreturn, cold, unused)) static void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* ---- clock ---- */

INLINE uint64_t nanoseconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
INLINE uint64_t now_ns(void) { return nanoseconds_of(CLOCK_MONOTONIC); }

INLINE uint64_t ticks(void)
{
#if defined __x86_64__
    return __builtin_ia32_rdtsc();
#elif defined __aarch64__
    uint64_t t;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return now_ns();
#endif
}

INLINE void cpu_pause(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("isb");
#endif
}
INLINE void idle(const struct setup *s)
{
    if (s->yield) sched_yield();
    else if (s->pause) cpu_pause();
}

/* ---- histogram: 128 linear steps in each power of two, so within 0.8 % ---- */

enum { STEPS = 128, OCTAVES = 40 };
typedef struct histogram {
    uint64_t count[STEPS * OCTAVES], total, most;
} histogram;

INLINE void histogram_add(histogram *h, uint64_t value)
{
    int octave = value < STEPS ? 0 : 57 - __builtin_clzll(value); /* 128 to 255: octave 1 */
    uint64_t step = octave ? (value >> (octave - 1)) - STEPS : value;
    h->count[(uint64_t)octave * STEPS + step]++;
    h->total++;
    if (value > h->most) h->most = value;
}

/* The middle of bin i. */
UNUSED static double histogram_value(int i)
{
    int octave = i / STEPS, step = i % STEPS;
    return octave ? ((double)(STEPS + step) + 0.5) * (double)(1ull << (octave - 1)) : step + 0.5;
}

UNUSED static double histogram_at(const histogram *h, double part)
{
    uint64_t before = 0, rank = (uint64_t)(part * (double)h->total);
    for (int i = 0; i < STEPS * OCTAVES; i++) {
        before += h->count[i];
        if (before > rank) return histogram_value(i);
    }
    return (double)h->most;
}

UNUSED static double histogram_mean_below(const histogram *h, double limit)
{
    double sum = 0, count = 0;
    for (int i = 0; i < STEPS * OCTAVES && histogram_value(i) < limit; i++) {
        sum += (double)h->count[i] * histogram_value(i);
        count += (double)h->count[i];
    }
    return sum / (count > 0 ? count : 1);
}

/* ---- memory that both sides see: pages of shared memory as a ring in /dev/shm has them, present already ---- */

UNUSED static void *shared_memory(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (at == MAP_FAILED) die("mmap", strerror(errno));
    return at;
}

/* ---- sides: pinned threads or processes ---- */

enum { WINDOW_ROWS = 16384 };
struct side { /* one thread or process of a run, and what it found */
    uint64_t begin_ns, begin_cpu_ns, end_ns, end_cpu_ns;
    struct tally tally;
    uint64_t begin_rows, lost;
    unsigned char apart[LINE];
};
struct control { /* of a run */
    uint32_t opened;
    unsigned char apart0[LINE];
    uint32_t ready;
    unsigned char apart1[LINE];
    uint64_t total; /* rows sent, when all are; 0 before */
    unsigned char apart2[LINE];
    struct side sides[MAX_SIDES];
    histogram latency; /* in ticks */
    histogram costs[3]; /* in ticks, of calls */
    histogram windows; /* ticks for each WINDOW_ROWS rows */
    double ns_per_tick;
};
static struct control *control;
static struct setup setup;

UNUSED static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) die("sched_setaffinity", strerror(errno));
}

/* Lets the sides open their handles one after the other: waits for `turn`. */
UNUSED static void open_turn(uint32_t turn)
{
    while (__atomic_load_n(&control->opened, __ATOMIC_ACQUIRE) != turn) sched_yield();
}
UNUSED static void opened(void) { __atomic_fetch_add(&control->opened, 1, __ATOMIC_ACQ_REL); }

/* All sides start within some 100 ns. */
UNUSED static void start_together(uint32_t sides)
{
    __atomic_fetch_add(&control->ready, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&control->ready, __ATOMIC_ACQUIRE) != sides) cpu_pause();
}

INLINE void side_begin(struct side *s)
{
    s->begin_cpu_ns = nanoseconds_of(CLOCK_THREAD_CPUTIME_ID);
    s->begin_ns = now_ns();
}
INLINE void side_end(struct side *s)
{
    s->end_ns = now_ns();
    s->end_cpu_ns = nanoseconds_of(CLOCK_THREAD_CPUTIME_ID);
}

/* To be called now and then with the rows done so far. */
struct window {
    uint64_t end_rows, begin;
};
INLINE void window_begin(struct window *w, uint64_t rows)
{
    w->end_rows = rows + WINDOW_ROWS;
    w->begin = ticks();
}
INLINE void window_pass(struct window *w, uint64_t rows)
{
    if (__builtin_expect(rows < w->end_rows, 1)) return;
    uint64_t now = ticks(), more = rows + WINDOW_ROWS - w->end_rows; /* more than WINDOW_ROWS by part of a batch */
    histogram_add(&control->windows, (now - w->begin) * WINDOW_ROWS / more);
    w->begin = now;
    w->end_rows = rows + WINDOW_ROWS;
}

/* Several readers leave the producer a processor of its own; several producers are spread over all of them. */
UNUSED static int cpu_of(int side)
{
    int k = setup.producers > 1 || side < 2 ? side % setup.cpus : 1 + (side - 1) % (setup.cpus - 1);
    return setup.cpu[k];
}

typedef void side_function(int side);
struct started {
    side_function *run;
    int side;
};
UNUSED static void *side_thread(void *argument)
{
    struct started *s = (struct started *)argument;
    pin(cpu_of(s->side));
    s->run(s->side);
    return NULL;
}

/* Runs sides 0 to n-1, side 0 here. */
UNUSED static void run_sides(int n, side_function *run)
{
    setup.yield = n > setup.cpus;
    struct started started[MAX_SIDES];
    pthread_t threads[MAX_SIDES];
    pid_t children[MAX_SIDES] = { 0 };
    for (int k = n - 1; k >= 0; k--) {
        started[k].run = run;
        started[k].side = k;
        if (k == 0)
            side_thread(&started[k]);
        else if (setup.processes) {
            if ((children[k] = fork()) < 0) die("fork", strerror(errno));
            if (!children[k]) side_thread(&started[k]), _exit(0);
        } else if (pthread_create(&threads[k], NULL, side_thread, &started[k]))
            die("pthread_create", "failed");
    }
    for (int k = 1; k < n; k++) {
        int status = 0;
        if (!setup.processes) pthread_join(threads[k], NULL);
        else if (waitpid(children[k], &status, 0) < 0 || status) die("side", "failed");
    }
}

/* ---- report ---- */

UNUSED static void report(const char *metric, double value) { printf("%s,%.6g\n", metric, value); }

/* The part of the time in which a side that never sleeps did not run: someone else had its processor. Unknown where sides
 * have to share processors. */
UNUSED static void report_disturbance(int sides)
{
    double worst = 0;
    if (sides > setup.cpus) return;
    for (int k = 0; k < sides; k++) {
        struct side *s = &control->sides[k];
        double wall = (double)(s->end_ns - s->begin_ns), ran = (double)(s->end_cpu_ns - s->begin_cpu_ns);
        if (wall > 0 && 1 - ran / wall > worst) worst = 1 - ran / wall;
    }
    report("away", worst);
}

/* Rates: of the whole run; and of its windows without those that took ten times the median, in which a side was away from its
 * processor. Where sides have to share processors being away belongs to it, and the two are the same. */
UNUSED static void report_rate(double rows, double ns, bool as_time)
{
    double window = ns / rows;
    if (!setup.yield && control->windows.total) window = histogram_mean_below(&control->windows, 10 * histogram_at(&control->windows, .5)) * control->ns_per_tick / WINDOW_ROWS;
    report(as_time ? "mean_ns_per_row" : "mean_Mrows_per_s", as_time ? ns / rows : 1e3 * rows / ns);
    report(as_time ? "ns_per_row" : "Mrows_per_s", as_time ? window : 1e3 / window);
}

/* The mean is of all but what took ten times the median: being away from the processor. */
UNUSED static void report_latency(void)
{
    report("mean_ns", histogram_mean_below(&control->latency, 10 * histogram_at(&control->latency, .5)) * control->ns_per_tick);
    static const struct { const char *name; double part; } points[] = {
        { "p50_ns", .5 }, { "p90_ns", .9 }, { "p99_ns", .99 }, { "p99.9_ns", .999 }, { "p99.99_ns", .9999 } };
    if (!control->latency.total) return;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        report(points[i].name, histogram_at(&control->latency, points[i].part) * control->ns_per_tick);
    report("max_ns", (double)control->latency.most * control->ns_per_tick);
    report("count", (double)control->latency.total);
}

UNUSED static void calibrate(void)
{
    uint64_t ns = now_ns(), t = ticks();
    while (now_ns() - ns < 10000000) {}
    uint64_t ns1 = now_ns(), t1 = ticks();
    control->ns_per_tick = (double)(ns1 - ns) / (double)(t1 - t);
}

INLINE uint64_t deadline_in_ticks(void)
{
    return ticks() + (uint64_t)((double)setup.milliseconds * 1e6 / control->ns_per_tick);
}

#endif
