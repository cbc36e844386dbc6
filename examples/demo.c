/*
 * What `make demo` runs: one producer, one ring, and four readers of different kinds, on this
 * machine's own figures.
 *
 *   cc -std=c11 -O2 -Iinclude examples/demo.c -o demo && ./demo [-s seconds]
 *
 *   producer   reads /proc/stat, softirqs, meminfo, self/schedstat and pressure/cpu a thousand
 *              times a second, and writes a row each time
 *   live       sleeps until a row is there, draws what it says
 *   logger     joins after three seconds (a half in a short run), at the oldest row, and catches up
 *   observer   registers nowhere, needs read permission only, and takes snapshots of the last
 *              thousand rows
 *   numpy      examples/numpy_reader.py, where a Python with NumPy is found; for its sake run the
 *              demo from the project's directory
 *
 * Each is a process of its own. At the end it prints what each of them got. Ctrl-C ends it early.
 * Nothing stays in /dev/shm, whichever of the processes is killed. Exit status 0: every part ran,
 * and no row was lost.
 *
 * SPDX-License-Identifier: MIT
 */
#include <cbuf.h>

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define SECOND INT64_C(1000000000)
#define MILLISECOND INT64_C(1000000)

struct sample {
    int64_t time;                            /* when the row was written */
    uint64_t number;                         /* by the producer's own count: the readers check it */
    int64_t late_ns;                         /* how much too late the producer woke */
    uint64_t switches, interrupts, softirqs; /* of the machine, since it started */
    uint64_t received;                       /* those softirqs that brought network packets */
    uint64_t pressure_us;                    /* time in which some task waited for a processor */
    uint64_t run_ns, queue_ns;               /* the producer: on a processor, waiting for one */
    int64_t available;                       /* bytes of memory */
    double cpu_percent;                      /* of all processors, over the last 200 ms */
    uint32_t running;                        /* tasks that run or could */
}; /* 4 bytes of padding follow, where the ring keeps each row's sequence number */
static const cbuf_column columns[] = {
    CBUF_COLUMN_AS(struct sample, time, CBUF_TIMESTAMP_NS), CBUF_COLUMN(struct sample, number),
    CBUF_COLUMN(struct sample, late_ns),                    CBUF_COLUMN(struct sample, switches),
    CBUF_COLUMN(struct sample, interrupts),                 CBUF_COLUMN(struct sample, softirqs),
    CBUF_COLUMN(struct sample, received),                   CBUF_COLUMN(struct sample, pressure_us),
    CBUF_COLUMN(struct sample, run_ns),                     CBUF_COLUMN(struct sample, queue_ns),
    CBUF_COLUMN(struct sample, available),                  CBUF_COLUMN(struct sample, cpu_percent),
    CBUF_COLUMN(struct sample, running),
};
CBUF_TYPED(sample, struct sample);

/* ---- times, and how they are told ---- */

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static int sleep_until(int64_t monotonic_ns)
{
    struct timespec until = { (time_t)(monotonic_ns / SECOND), (long)(monotonic_ns % SECOND) };
    return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/* Counts of durations in classes that are 3 % wide: 32 to each power of two. */
struct histogram {
    uint64_t total, most, classes[60 * 32];
};

static void add(struct histogram *h, int64_t ns)
{
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;
    uint32_t shift = value < 64 ? 0 : 58 - (uint32_t)__builtin_clzll(value);
    h->classes[shift * 32 + (value >> shift)]++;
    if (value > h->most) h->most = value;
    h->total++;
}

/* The upper end of the class below which a share of all durations lies. */
static uint64_t quantile(const struct histogram *h, double share)
{
    uint64_t seen = 0, rank = (uint64_t)(share * (double)h->total);
    for (uint64_t k = 0; k < 60 * 32; k++) {
        uint64_t shift = k < 64 ? 0 : k / 32 - 1, end = ((k - shift * 32 + 1) << shift) - 1;
        if ((seen += h->classes[k]) > rank) return end < h->most ? end : h->most;
    }
    return h->most;
}

/* The texts below are good until sixteen more were made. */
static char *text_buffer(void)
{
    static char texts[16][32];
    static unsigned next;
    return texts[next++ % 16];
}

static const char *commas(uint64_t n)
{
    char *text = text_buffer(), *to = text + 31;
    int digits = 0;
    for (*to = 0; digits == 0 || n; n /= 10, digits++) {
        if (digits && digits % 3 == 0) *--to = ',';
        *--to = (char)('0' + n % 10);
    }
    return to;
}

static const char *duration(uint64_t ns)
{
    char *text = text_buffer();
    const char *unit = ns < 1000 ? "ns" : ns < 1000000 ? "us" : ns < 1000000000 ? "ms" : "s";
    double value = (double)ns / (ns < 1000 ? 1 : ns < 1000000 ? 1e3 : ns < 1000000000 ? 1e6 : 1e9);
    snprintf(text, 32, value < 99.95 && ns >= 1000 ? "%.1f %s" : "%.0f %s", value, unit);
    return text;
}

static const char *size(uint64_t bytes)
{
    char *text = text_buffer();
    bool large = bytes >= 1u << 30;
    snprintf(text, 32, "%.1f %s", (double)bytes / (large ? 1073741824 : 1048576),
             large ? "GiB" : "MiB");
    return text;
}

/* ---- what the processes share beside the ring: their results ---- */

enum part { PRODUCER, LIVE, LOGGER, OBSERVER, NUMPY, PARTS };
static const char *const names[PARTS] = { "producer", "live", "logger", "observer", "numpy" };

struct result {
    bool ran; /* to the end, and found nothing wrong */
    uint64_t rows, lost, wrong;
    struct histogram times; /* write to read; producer: too late; observer: for a snapshot */
    uint64_t backlog;       /* rows that were there when the reader came */
    int64_t joined_ns, caught_up_ns;
    double cpu_mean, cpu_most;
    char fault[320];
};

struct shared {
    volatile sig_atomic_t stop;
    pid_t parent;
    char path[256];
    int seconds;
    int64_t started; /* monotonic */
    struct result results[PARTS];
    struct histogram sampling;
    cbuf_stats stats;
    cbuf_memory_info memory;
};
static struct shared *shared;

static void on_signal(int number) { (void)number, shared->stop = 1; }

static int fail(struct result *result, const char *why)
{
    snprintf(result->fault, sizeof result->fault, "%s", why);
    return 1;
}

/* ---- producer ---- */

static struct source {
    const char *path;
    int fd;
    uint64_t every; /* ms; more than 1 where reading it takes more than 0.1 ms (large machines) */
    char text[65536];
} sources[] = { { .path = "/proc/stat" },
                { .path = "/proc/softirqs" },
                { .path = "/proc/meminfo" },
                { .path = "/proc/self/schedstat" },
                { .path = "/proc/pressure/cpu" } };
enum { STAT, SOFTIRQS, MEMINFO, SCHEDSTAT, PRESSURE, SOURCES };

static void refresh(struct source *source)
{
    ssize_t n = source->fd < 0 ? 0 : pread(source->fd, source->text, sizeof source->text - 1, 0);
    source->text[n > 0 ? n : 0] = 0;
}

static void open_sources(void)
{
    for (struct source *s = sources; s < sources + SOURCES; s++) {
        s->fd = open(s->path, O_RDONLY | O_CLOEXEC); /* what is not there stays 0 */
        int64_t least = SECOND;
        for (int i = 0; i < 5; i++) {
            int64_t start = now_ns(CLOCK_MONOTONIC);
            refresh(s);
            int64_t took = now_ns(CLOCK_MONOTONIC) - start;
            if (took < least) least = took;
        }
        s->every = 1 + (uint64_t)least / 100000;
    }
}

/* The sum of the first `most` numbers behind `label`, which begins a line; 0 if none does. */
static uint64_t numbers(const char *text, const char *label, int most)
{
    uint64_t sum = 0;
    const char *at = text;
    size_t length = strlen(label);
    while (at && strncmp(at += strspn(at, "\n "), label, length)) at = strchr(at, '\n');
    for (at = at ? at + length : ""; most-- > 0; sum += strtoull(at, (char **)&at, 10)) {
        at += strspn(at, " ");
        if (*at < '0' || *at > '9') break;
    }
    return sum;
}

static void sample_machine(struct sample *row, uint64_t tick)
{
    static uint64_t total_before, busy_before;
    for (struct source *s = sources; s < sources + SOURCES; s++)
        if (tick % s->every == 0) refresh(s);
    const char *stat = sources[STAT].text, *own = sources[SCHEDSTAT].text;
    const char *pressure = strstr(sources[PRESSURE].text, "total=");
    row->switches = numbers(stat, "ctxt", 1);
    row->interrupts = numbers(stat, "intr", 1);
    row->softirqs = numbers(stat, "softirq", 1);
    row->running = (uint32_t)numbers(stat, "procs_running", 1);
    row->received = numbers(sources[SOFTIRQS].text, "NET_RX:", 4096);
    row->available = (int64_t)numbers(sources[MEMINFO].text, "MemAvailable:", 1) * 1024;
    row->run_ns = numbers(own, "", 1);
    row->queue_ns = numbers(own, "", 2) - row->run_ns;
    row->pressure_us = pressure ? strtoull(pressure + 6, NULL, 10) : 0;
    if (tick % 200) return;
    uint64_t total = numbers(stat, "cpu ", 8); /* user, nice, system, idle, I/O wait ... */
    uint64_t busy = total - numbers(stat, "cpu ", 5) + numbers(stat, "cpu ", 3);
    if (total > total_before) {
        double share = (double)(busy - busy_before) / (double)(total - total_before);
        row->cpu_percent = share < 1 ? 100 * share : 100; /* I/O wait may have shrunk */
    }
    total_before = total;
    busy_before = busy;
}

static int produce(struct result *result, int ready)
{
    cbuf_ring ring;
    struct sample row = { 0 };
    cbuf_options options = {
        .row_bytes = sizeof row,
        .columns = columns,
        .column_count = sizeof columns / sizeof columns[0],
        .memory = { .populate = CBUF_WANT, .huge = CBUF_WANT, .lock = CBUF_WANT },
    };
    if (cbuf_create(&ring, &options) < 0) return fail(result, cbuf_error(&ring));
    snprintf(shared->path, sizeof shared->path, "%s", cbuf_path(&ring));
    open_sources();
    sample_machine(&row, 0);
    int64_t due = shared->started = now_ns(CLOCK_MONOTONIC), end = due + shared->seconds * SECOND;
    int error = write(ready, "", 1) == 1 ? 0 : CBUF_ESYSTEM;

    while (error >= 0 && (due += MILLISECOND) <= end && !shared->stop &&
           getppid() == shared->parent) {
        sleep_until(due);
        int64_t woke = now_ns(CLOCK_MONOTONIC);
        row.late_ns = woke - due;
        sample_machine(&row, row.number + 1);
        row.time = now_ns(CLOCK_REALTIME);
        error = sample_write(&ring, &row);
        row.number++;
        add(&result->times, row.late_ns);
        add(&shared->sampling, now_ns(CLOCK_MONOTONIC) - woke);
    }
    result->joined_ns = now_ns(CLOCK_MONOTONIC) - shared->started;
    cbuf_stats_get(&ring, &shared->stats);
    cbuf_memory_info_get(&ring, &shared->memory);
    result->rows = shared->stats.written;
    cbuf_close(&ring); /* the readers get what is left, then CBUF_ECLOSED */
    if (getppid() != shared->parent) cbuf_remove(shared->path); /* it was killed, and cannot */
    if (error < 0) return fail(result, cbuf_strerror(error));
    if ((double)result->rows * (double)SECOND < 900 * (double)result->joined_ns)
        return fail(result, "could not keep 1 kHz");
    return 0;
}

/* ---- live: what the screen shows ---- */

enum { CPU, SWITCHES, INTERRUPTS, SOFTIRQ, SERIES, CELLS = 40 };

static struct screen {
    bool terminal, utf8;
    int lines; /* drawn before, to be drawn over */
    int64_t next;
    struct sample now, then; /* the newest row, and the one at the last cell */
    uint64_t rows_a_second;
    double series[SERIES][CELLS];
} screen;

/* A cell of the small diagrams is 250 ms. */
static void update_series(void)
{
    const struct sample *now = &screen.now, *then = &screen.then;
    double seconds = (double)(now->time - then->time) / 1e9;
    if (seconds < 0.25) return;
    if (then->time) {
        memmove(&screen.series[0][0], &screen.series[0][1], sizeof screen.series - sizeof(double));
        screen.series[CPU][CELLS - 1] = now->cpu_percent;
        screen.series[SWITCHES][CELLS - 1] = (double)(now->switches - then->switches) / seconds;
        screen.series[INTERRUPTS][CELLS - 1] =
            (double)(now->interrupts - then->interrupts) / seconds;
        screen.series[SOFTIRQ][CELLS - 1] = (double)(now->softirqs - then->softirqs) / seconds;
        screen.rows_a_second = (uint64_t)((double)(now->number - then->number) / seconds + 0.5);
    }
    screen.then = *now;
}

static void line(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\033[K\n");
    screen.lines++;
}

static void draw_series(const char *label, int k, const char *value)
{
    static const char *const bars[2][9] = { { " ", ".", ",", ":", "-", "=", "+", "*", "#" },
                                            { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" } };
    char diagram[4 * CELLS + 1] = "";
    double most = k == CPU ? 100 : 1e-9;
    for (int i = 0; i < CELLS; i++) most = screen.series[k][i] > most ? screen.series[k][i] : most;
    for (int i = 0; i < CELLS; i++) {
        double height = screen.series[k][i] / most;
        strcat(diagram, bars[screen.utf8][height > 0 ? 1 + (int)(7 * height) : 0]);
    }
    line("  \033[2m%-11s\033[0m%12s   \033[36m%s\033[0m", label, value, diagram);
}

static const char *per_second(int k)
{
    char *text = text_buffer();
    snprintf(text, 32, "%s /s", commas((uint64_t)screen.series[k][CELLS - 1]));
    return text;
}

/* Who is registered, and how far behind; the observer and NumPy are not. */
static void draw_readers(const cbuf_ring *ring)
{
    char text[512] = "";
    cbuf_stats stats = { 0 };
    cbuf_reader_stats reader;
    cbuf_stats_get(ring, &stats);
    for (uint32_t k = 0; k < cbuf_resolved(ring)->max_readers && strlen(text) < 300; k++)
        if (cbuf_reader_stats_get(ring, k, &reader) == 1)
            snprintf(text + strlen(text), 100, "%s%s %s behind", *text ? ", " : "", reader.name,
                     commas(reader.lag_rows));
    line("  \033[2mreaders\033[0m %15s   %s", commas(stats.readers), text);
}

static void draw(const cbuf_reader *reader, const struct result *result, double seconds)
{
    uint64_t lag = cbuf_available(reader);
    const char *typical = duration(quantile(&result->times, 0.5));
    const char *slow = duration(quantile(&result->times, 0.99));
    if (!screen.terminal) {
        printf("%3.0f s: %s rows, %s /s, lag %s, lost %s, latency p50 %s, p99 %s", seconds,
               commas(result->rows), commas(screen.rows_a_second), commas(lag),
               commas(result->lost), typical, slow);
        printf("; cpu %.0f %%, switches %s\n", screen.now.cpu_percent, per_second(SWITCHES));
        return;
    }
    char percent[32];
    snprintf(percent, sizeof percent, "%.1f %%", screen.now.cpu_percent);
    if (screen.lines) printf("\033[%dA", screen.lines);
    screen.lines = 0;
    printf("\033[?7l\033[?25l"); /* neither wrap lines nor show the cursor */
    line("  \033[2mrows\033[0m %18s   %s /s, lag %s, %slost %s\033[0m", commas(result->rows),
         commas(screen.rows_a_second), commas(lag), result->lost ? "\033[31m" : "\033[32m",
         commas(result->lost));
    line("  \033[2mlatency\033[0m %15s   p50, from write to read; p99 %s", typical, slow);
    draw_series("cpu", CPU, percent);
    draw_series("switches", SWITCHES, per_second(SWITCHES));
    draw_series("interrupts", INTERRUPTS, per_second(INTERRUPTS));
    draw_series("softirqs", SOFTIRQ, per_second(SOFTIRQ));
    draw_readers(reader->ring);
    line("  \033[2mmemory\033[0m %16s   available, %" PRIu32 " tasks running",
         size((uint64_t)screen.now.available), screen.now.running);
    line("  \033[2mtime\033[0m %16.1f s   of %d", seconds, shared->seconds);
    printf("\033[?7h\033[?25h");
}

static void show(const cbuf_reader *reader, const struct result *result, bool last)
{
    int64_t now = now_ns(CLOCK_MONOTONIC);
    update_series();
    if (now < screen.next && !(last && screen.terminal)) return;
    screen.next = now + (screen.terminal ? SECOND / 10 : SECOND);
    draw(reader, result, (double)(now - shared->started) / 1e9);
    fflush(stdout);
}

/* ---- live and logger: registered readers ---- */

/* Checks a row, and notes how long it took to come here unless it was there before the reader. */
static void check_row(struct result *result, const struct sample *row, uint64_t sequence)
{
    result->wrong += row->number != sequence;
    if (sequence >= result->backlog) add(&result->times, now_ns(CLOCK_REALTIME) - row->time);
}

/* Reads all rows from the oldest on until the producer closes the ring. */
static int follow(struct result *result, const char *name, bool shown)
{
    static struct sample batch[256];
    cbuf_ring ring;
    cbuf_reader reader;
    int64_t n, joined = now_ns(CLOCK_MONOTONIC);
    if (cbuf_attach(&ring, shared->path, NULL) < 0) return fail(result, cbuf_error(&ring));
    cbuf_reader_options options = { .name = name, .start = CBUF_OLDEST, .wait = CBUF_SLEEP };
    int error = cbuf_reader_open(&reader, &ring, &options);
    if (error < 0) return fail(result, cbuf_strerror(error));
    result->backlog = cbuf_head(&ring);
    result->joined_ns = joined - shared->started;
    while ((n = cbuf_wait(&reader, 1, SECOND / 10)) >= 0) {
        if (n == 0 && getppid() != shared->parent) break;
        if ((n = sample_read(&reader, batch, 256)) < 0) break;
        for (int64_t i = 0; i < n; i++)
            check_row(result, &batch[i], cbuf_first(&reader) + (uint64_t)i);
        result->rows += (uint64_t)n;
        result->lost = cbuf_lost(&reader);
        if (!result->caught_up_ns && result->rows + result->lost >= result->backlog)
            result->caught_up_ns = now_ns(CLOCK_MONOTONIC) - joined;
        if (n) screen.now = batch[n - 1];
        if (shown) show(&reader, result, false);
    }
    if (shown) show(&reader, result, true);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    return n == CBUF_ECLOSED ? 0 : fail(result, n < 0 ? cbuf_strerror(n) : "the parent is gone");
}

static int live(struct result *result)
{
    const char *locale = getenv("LC_ALL");
    if (!locale || !*locale) locale = getenv("LC_CTYPE");
    if (!locale || !*locale) locale = getenv("LANG");
    screen.terminal = isatty(STDOUT_FILENO);
    screen.utf8 = locale && (strstr(locale, "UTF-8") || strstr(locale, "utf8"));
    screen.next = shared->started + (screen.terminal ? SECOND / 4 : SECOND);
    return follow(result, "live", true);
}

static int logger(struct result *result)
{
    int64_t join = shared->started + (shared->seconds > 5 ? 3 * SECOND : SECOND / 2);
    while (!shared->stop && now_ns(CLOCK_MONOTONIC) < join)
        sleep_until(now_ns(CLOCK_MONOTONIC) + 20 * MILLISECOND);
    return follow(result, "logger", false);
}

/* ---- observer ---- */

static int observe(struct result *result)
{
    enum { LAST = 1000 };
    static struct sample rows[LAST];
    cbuf_ring ring;
    cbuf_stats stats = { 0 };
    double sum = 0;
    uint64_t first = 0, counted = 0;
    if (cbuf_attach(&ring, shared->path, &(cbuf_attach_options){ .observer = true }) < 0)
        return fail(result, cbuf_error(&ring));
    while (!stats.closed && !stats.retired && getppid() == shared->parent) {
        sleep_until(now_ns(CLOCK_MONOTONIC) + SECOND / 5);
        cbuf_stats_get(&ring, &stats);
        int64_t start = now_ns(CLOCK_MONOTONIC), n = cbuf_snapshot(&ring, rows, LAST, &first);
        add(&result->times, now_ns(CLOCK_MONOTONIC) - start);
        if (n < 0) return fail(result, cbuf_strerror(n));
        for (int64_t i = 0; i < n; i++, counted++) {
            result->wrong += rows[i].number != first + (uint64_t)i;
            sum += rows[i].cpu_percent;
            if (rows[i].cpu_percent > result->cpu_most) result->cpu_most = rows[i].cpu_percent;
        }
        result->rows++; /* here: snapshots */
    }
    if (counted) result->cpu_mean = sum / (double)counted;
    cbuf_close(&ring);
    return stats.closed && counted ? 0 : fail(result, "the ring was not closed");
}

/* ---- numpy ---- */

enum { NO_NUMPY = 77 };

static bool has_numpy(const char *python)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        execlp(python, python, "-c", "import numpy", (char *)NULL);
        _exit(1);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* Becomes a Python that reads the ring; its words go to the parent through a pipe. */
static int become_numpy(int words)
{
    const char *const pythons[] = { "python3", "/usr/bin/python3" }, *before = getenv("PYTHONPATH");
    const char *const script = "examples/numpy_reader.py";
    char modules[4096];
    snprintf(modules, sizeof modules, "python%s%s", before ? ":" : "", before ? before : "");
    setenv("PYTHONPATH", modules, 1);
    dup2(words, STDOUT_FILENO);
    dup2(words, STDERR_FILENO);
    if (access(script, R_OK)) return printf("not run: %s is not here\n", script), NO_NUMPY;
    for (int i = 0; i < 2; i++)
        if (has_numpy(pythons[i]))
            execlp(pythons[i], pythons[i], script, shared->path, (char *)NULL);
    return puts("not run: there is no Python with NumPy"), NO_NUMPY;
}

/* ---- the parent ---- */

static pid_t start(enum part part, int channel)
{
    struct result *result = &shared->results[part];
    fflush(stdout);
    pid_t child = fork();
    if (child) return child;
    int status = 1;
    switch (part) {
    case PRODUCER: status = produce(result, channel); break;
    case LIVE: status = live(result); break;
    case LOGGER: status = logger(result); break;
    case OBSERVER: status = observe(result); break;
    default: status = become_numpy(channel);
    }
    result->ran = status == 0;
    exit(status);
}

/* Waits until all children are gone. If the producer died without closing the ring it is removed:
 * that tells the others. */
static void wait_for_all(const pid_t *children, int *statuses)
{
    int64_t give_up = INT64_MAX;
    for (int left = PARTS; left > 0;) {
        int status;
        pid_t child = waitpid(-1, &status, WNOHANG);
        if (child < 0) return;
        if (child == 0) sleep_until(now_ns(CLOCK_MONOTONIC) + 10 * MILLISECOND);
        for (int part = 0; part < PARTS; part++) {
            if (child > 0 && child == children[part]) {
                statuses[part] = status, left--;
                if (part == PRODUCER) give_up = now_ns(CLOCK_MONOTONIC) + 10 * SECOND;
                if (part == PRODUCER && status) cbuf_remove(shared->path);
            }
            if (now_ns(CLOCK_MONOTONIC) > give_up && statuses[part] < 0 && children[part] > 0)
                kill(children[part], SIGKILL);
        }
    }
}

static bool report_reader(enum part part)
{
    struct result *r = &shared->results[part];
    if (r->ran && r->rows + r->lost != shared->stats.written)
        r->ran = !fail(r, "rows + lost is not what was written");
    printf("  %-9s%9s%6s%7s", names[part], commas(r->rows), commas(r->lost), commas(r->wrong));
    printf("%14s%9s%9s%9s\n", duration(quantile(&r->times, 0.5)),
           duration(quantile(&r->times, 0.99)), duration(quantile(&r->times, 0.999)),
           duration(r->times.most));
    if (part == LOGGER && r->joined_ns)
        printf("  %-10sjoined after %s, read the %s rows already there in %s\n", "",
               duration((uint64_t)r->joined_ns), commas(r->backlog),
               duration((uint64_t)r->caught_up_ns));
    return r->ran && !r->lost && !r->wrong;
}

static bool report_observer(void)
{
    const struct result *r = &shared->results[OBSERVER];
    printf("  %-10s%s snapshots of 1,000 rows in %s each; cpu mean %.0f %%, max %.0f %%\n",
           names[OBSERVER], commas(r->rows), duration(quantile(&r->times, 0.5)), r->cpu_mean,
           r->cpu_most);
    return r->ran && !r->wrong;
}

/* The last line that came from there, and whether it means well. A machine without NumPy does. */
static bool report_numpy(int words, int status)
{
    static char text[65536];
    ssize_t n = read(words, text, sizeof text - 1);
    while (n > 0 && text[n - 1] == '\n') text[--n] = 0;
    const char *last = strrchr(text, '\n');
    printf("  %-10s%s\n", names[NUMPY], last ? last + 1 : text);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_NUMPY) return true;
    const char *expected = commas(shared->stats.written); /* "10,000 rows in ..." */
    return status == 0 && !strncmp(text, expected, strlen(expected)) &&
           text[strlen(expected)] == ' ';
}

static bool report_producer(void)
{
    const struct result *r = &shared->results[PRODUCER];
    const cbuf_memory_info *m = &shared->memory;
    printf("\n  %-10s%s rows in %.1f s, %s wake-ups sent, %s overwritten, %s dropped\n",
           names[PRODUCER], commas(r->rows), (double)r->joined_ns / 1e9,
           commas(shared->stats.wakes), commas(shared->stats.overwritten),
           commas(shared->stats.dropped));
    printf("  %-10swoke late by %s (p50), %s (p99), %s (max)\n", "",
           duration(quantile(&r->times, 0.5)), duration(quantile(&r->times, 0.99)),
           duration(r->times.most));
    printf("  %-10sreading /proc and writing the row took %s (p50), %s (p99)\n", "",
           duration(quantile(&shared->sampling, 0.5)), duration(quantile(&shared->sampling, 0.99)));
    printf("  %-10s%s mapped, %s in RAM, %s locked, %s huge", "memory", size(m->bytes),
           size(m->resident), size(m->locked), size(m->huge));
    if (m->numa_node >= 0) printf(", node %d", m->numa_node);
    if (m->populate_errno) printf("; populating: %s", strerror(m->populate_errno));
    if (m->lock_errno) printf("; locking: %s", strerror(m->lock_errno));
    if (m->huge_errno) printf("; huge pages: %s", strerror(m->huge_errno));
    printf("\n\n");
    return r->ran;
}

static int report(const int *statuses, int words)
{
    printf("\n  %18s%6s%7s%14s%9s%9s%9s\n", "rows", "lost", "wrong", "latency: p50", "p99", "p99.9",
           "max");
    bool good[PARTS];
    good[LIVE] = report_reader(LIVE);
    good[LOGGER] = report_reader(LOGGER);
    good[OBSERVER] = report_observer();
    good[NUMPY] = report_numpy(words, statuses[NUMPY]);
    good[PRODUCER] = report_producer();
    bool all = true;
    fflush(stdout);
    for (int part = 0; part < PARTS; part++) {
        const char *fault = shared->results[part].fault;
        if (WIFSIGNALED(statuses[part])) fault = "was killed";
        if (!good[part]) fprintf(stderr, "demo: %s: %s\n", names[part], *fault ? fault : "failed");
        all = all && good[part];
    }
    if (all)
        printf("  %s, and no row was lost.\n", shared->stop ? "Ended early" : "Every part ran");
    return all ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
    int seconds = 10, ready[2], words[2], statuses[PARTS] = { -1, -1, -1, -1, -1 };
    char *end = "", begun;
    pid_t children[PARTS];
    if (argc == 3 && !strcmp(argv[1], "-s")) seconds = (int)strtol(argv[2], &end, 10);
    else if (argc != 1) seconds = 0;
    if (*end || seconds < 1 || seconds > 3600)
        return fprintf(stderr, "usage: demo [-s seconds]     1 to 3600, 10 by default\n"), 1;

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || pipe(ready) || pipe(words)) return perror("demo"), 1;
    shared->parent = getpid();
    shared->seconds = seconds;
    for (int i = 0; i < 4; i++) signal(signals[i], SIG_IGN); /* the children end with the ring */
    children[PRODUCER] = start(PRODUCER, ready[1]);
    close(ready[1]);
    if (children[PRODUCER] < 0 || read(ready[0], &begun, 1) != 1) {
        waitpid(children[PRODUCER], NULL, 0);
        if (*shared->path) cbuf_remove(shared->path);
        return fprintf(stderr, "demo: producer: %s\n", shared->results[PRODUCER].fault), 1;
    }
    printf("\n  /proc at 1 kHz through %s, %d columns, rows of %zu bytes\n\n", shared->path,
           (int)(sizeof columns / sizeof columns[0]), sizeof(struct sample));
    for (int part = LIVE; part < PARTS; part++) children[part] = start((enum part)part, words[1]);
    close(words[1]);
    for (int i = 0; i < 4; i++) signal(signals[i], on_signal);
    wait_for_all(children, statuses);
    cbuf_remove(shared->path);
    if (isatty(STDOUT_FILENO)) printf("\033[?7h\033[?25h");
    return report(statuses, words[0]);
}
