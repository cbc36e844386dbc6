/*
 * Replays a recorded log into a ring, at the pace of its own times, and decodes it in a second
 * process. No message is lost: the policy is to block, and the ring is smaller than the log.
 *
 *   cc -std=c11 -O2 -Iinclude examples/replay.c -o replay
 *   ./replay [--speed N] [FILE]
 *
 * N is 1 for the recorded speed (the default), 10 for ten times as fast, 0 for no waiting at all.
 * FILE is an NMEA 2000 log, by default examples/data/nmea2000.data, 82 seconds of a sailing boat.
 * A line is "time,priority,PGN,source,destination,length,data bytes in hexadecimal", or a comment
 * that begins with '#'. Lines that are neither are reported and skipped.
 *
 * Exit status: 0; 1 after an error; 2 if lines were skipped.
 *
 * SPDX-License-Identifier: MIT
 */
#include <cbuf.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define DATA_BYTES 223 /* the longest message of NMEA 2000 (a "fast packet") */
struct message {
    int64_t time;
    uint32_t pgn; /* parameter group number: the kind of message */
    uint8_t priority, source, destination, length;
    uint8_t data[DATA_BYTES]; /* `length` bytes, then zeros */
};
static const cbuf_column columns[] = {
    CBUF_COLUMN_AS(struct message, time, CBUF_TIMESTAMP_NS), CBUF_COLUMN(struct message, pgn),
    CBUF_COLUMN(struct message, priority),                   CBUF_COLUMN(struct message, source),
    CBUF_COLUMN(struct message, destination),                CBUF_COLUMN(struct message, length),
    CBUF_COLUMN_AS(struct message, data, CBUF_BYTES(DATA_BYTES)),
};
CBUF_TYPED(message, struct message);

static volatile sig_atomic_t stop;
static void on_signal(int number) { (void)number, stop = 1; }

/* ---- one line of the log ---- */

/* Reads digits up to the character `end`. False if there are none, or their value is too large. */
static bool number(const char **at, uint32_t base, uint32_t most, char end, uint32_t *value)
{
    const char *p = *at;
    uint64_t sum = 0;
    for (;; p++) {
        uint32_t digit = base;
        if (*p >= '0' && *p <= '9') digit = (uint32_t)(*p - '0');
        if (*p >= 'a' && *p <= 'f') digit = (uint32_t)(*p - 'a') + 10;
        if (*p >= 'A' && *p <= 'F') digit = (uint32_t)(*p - 'A') + 10;
        if (digit >= base) break;
        sum = sum * base + digit;
        if (sum > most) return false;
    }
    if (p == *at || *p != end) return false;
    *at = end ? p + 1 : p;
    *value = (uint32_t)sum;
    return true;
}

static bool parse_time(const char **at, int64_t *time)
{
    uint32_t year, month, day, hour, minute, second, milli;
    if (!number(at, 10, 2261, '-', &year) || !number(at, 10, 12, '-', &month) ||
        !number(at, 10, 31, 'T', &day) || !number(at, 10, 23, ':', &hour) ||
        !number(at, 10, 59, ':', &minute) || !number(at, 10, 59, '.', &second) ||
        !number(at, 10, 999, 'Z', &milli) || (*at)[-5] != '.' || year < 1970 || month < 1 ||
        day < 1 || **at != ',')
        return false;
    struct tm tm = { .tm_year = (int)year - 1900, .tm_mon = (int)month - 1, .tm_mday = (int)day,
                     .tm_hour = (int)hour, .tm_min = (int)minute, .tm_sec = (int)second };
    *time = timegm(&tm) * INT64_C(1000000000) + milli * INT64_C(1000000);
    ++*at;
    return tm.tm_mon == (int)month - 1; /* timegm turns February 30 into March */
}

/* NULL, or what is wrong with the line. */
static const char *parse(const char *line, struct message *message)
{
    uint32_t priority, source, destination, length, byte;
    memset(message, 0, sizeof *message);
    if (!parse_time(&line, &message->time)) return "no time such as 2014-08-15T19:08:38.598Z";
    if (!number(&line, 10, 7, ',', &priority)) return "the priority is not 0 to 7";
    if (!number(&line, 10, 0xffffff, ',', &message->pgn)) return "the PGN is not 0 to 16,777,215";
    if (!number(&line, 10, 255, ',', &source)) return "the source is not 0 to 255";
    if (!number(&line, 10, 255, ',', &destination)) return "the destination is not 0 to 255";
    if (!number(&line, 10, DATA_BYTES, ',', &length) || !length)
        return "the length is not 1 to 223";
    for (uint32_t i = 0; i < length; i++) {
        if (!number(&line, 16, 255, i + 1 < length ? ',' : '\0', &byte))
            return "the data are not as many bytes as the length says";
        message->data[i] = (uint8_t)byte;
    }
    message->priority = (uint8_t)priority;
    message->source = (uint8_t)source;
    message->destination = (uint8_t)destination;
    message->length = (uint8_t)length;
    return NULL;
}

/* ---- the producer ---- */

struct log {
    const char *name;
    FILE *file;
    unsigned long line, skipped, written;
};

/* Reads lines until one is a message. */
static bool next_message(struct log *log, struct message *message)
{
    char line[1024];
    while (fgets(line, sizeof line, log->file)) {
        size_t length = strcspn(line, "\r\n");
        const char *fault = NULL;
        log->line++;
        if (length == sizeof line - 1) {
            int c;
            fault = "longer than any message";
            while ((c = getc(log->file)) != EOF && c != '\n') {}
        }
        line[length] = 0;
        if (line[0] == '#') continue;
        if (!fault && !(fault = parse(line, message))) return true;
        fprintf(stderr, "%s:%lu: skipped: %s\n", log->name, log->line, fault);
        log->skipped++;
    }
    return false;
}

/* Writes the log's messages, each at its time. 0, or an error of cbuf. */
static int produce(cbuf_ring *ring, struct log *log, double speed)
{
    struct message message;
    struct timespec clock;
    int64_t first = 0;
    clock_gettime(CLOCK_MONOTONIC, &clock);
    const int64_t start = clock.tv_sec * INT64_C(1000000000) + clock.tv_nsec;
    while (!stop && next_message(log, &message)) {
        if (!log->written) first = message.time;
        if (speed > 0 && message.time > first) {
            int64_t due = start + (int64_t)((double)(message.time - first) / speed);
            clock.tv_sec = (time_t)(due / 1000000000);
            clock.tv_nsec = (long)(due % 1000000000);
            while (!stop &&
                   clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &clock, NULL) == EINTR) {}
        }
        int result = CBUF_ETIMEDOUT;
        while (!stop && result == CBUF_ETIMEDOUT) result = message_write(ring, &message);
        if (result == 1)
            log->written++;
        else if (!stop)
            return result;
    }
    return 0;
}

/* ---- the consumer ---- */

#define DEGREES (1e-4 * 180 / 3.14159265358979)
#define KNOTS (0.01 * 3600 / 1852)
static const struct field { /* what is decoded, by the kind of message */
    uint32_t pgn, offset, bytes;
    bool with_sign;
    double scale; /* of one unit in the message */
    const char *name, *unit;
} fields[] = {
    { 127250, 1, 2, false, DEGREES, "heading", "deg" },
    { 127508, 1, 2, true, 0.01, "battery", "V" },
    { 128259, 1, 2, false, KNOTS, "speed through water", "kn" },
    { 128267, 1, 4, false, 0.01, "depth", "m" },
    { 129025, 0, 4, true, 1e-7, "latitude", "deg" },
    { 129025, 4, 4, true, 1e-7, "longitude", "deg" },
    { 129026, 2, 2, false, DEGREES, "course over ground", "deg" },
    { 129026, 4, 2, false, KNOTS, "speed over ground", "kn" },
    { 130306, 1, 2, false, KNOTS, "apparent wind", "kn" },
    { 130306, 3, 2, false, DEGREES, "its angle", "deg" },
};
enum { FIELDS = sizeof fields / sizeof fields[0], KINDS = 256 };

static struct seen { /* of each field */
    uint64_t count;
    double least, most, sum, last;
} seen[FIELDS];

static struct kind { /* of message */
    uint32_t pgn;
    uint64_t count;
} kinds[KINDS];
static uint32_t kind_count;

static void decode(const struct field *f, struct seen *to, const struct message *message)
{
    if (f->pgn != message->pgn || f->offset + f->bytes > message->length) return;
    uint64_t raw = 0, limit = (UINT64_C(1) << (8 * f->bytes - f->with_sign)) - 1;
    for (uint32_t i = 0; i < f->bytes; i++) raw |= (uint64_t)message->data[f->offset + i] << 8 * i;
    if (raw == limit || raw == limit - 1) return; /* "not available", "error" */
    int64_t value = raw > limit ? (int64_t)raw - (INT64_C(1) << 8 * f->bytes) : (int64_t)raw;
    to->last = (double)value * f->scale;
    if (!to->count || to->last < to->least) to->least = to->last;
    if (!to->count || to->last > to->most) to->most = to->last;
    to->sum += to->last;
    to->count++;
}

/* Counts the message under its kind; `kinds` is sorted. */
static void count(const struct message *message)
{
    uint32_t k = 0, end = kind_count;
    while (k < end && kinds[k].pgn < message->pgn) k++;
    if (k == end || kinds[k].pgn != message->pgn) {
        if (end == KINDS) return;
        memmove(kinds + k + 1, kinds + k, (end - k) * sizeof kinds[0]);
        kinds[k] = (struct kind){ .pgn = message->pgn };
        kind_count++;
    }
    kinds[k].count++;
}

static void print_now(int64_t time)
{
    time_t seconds = (time_t)(time / 1000000000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    printf("%02d:%02d:%02d", tm.tm_hour, tm.tm_min, tm.tm_sec);
    for (int i = 0; i < FIELDS; i++)
        if (seen[i].count && fields[i].pgn != 127508 && fields[i].pgn != 129025)
            printf("  %s %.1f %s", fields[i].name, seen[i].last, fields[i].unit);
    printf("\n");
    fflush(stdout);
}

static void print_field(const struct field *f, const struct seen *s, int indent)
{
    int digits = f->scale < 1e-6 ? 5 : 2;
    char mean[32] = "-"; /* of directions: 180 is not the mean of 359 and 1 */
    if (f->scale != DEGREES) snprintf(mean, sizeof mean, "%.*f", digits, s->sum / (double)s->count);
    printf("%*s%-20s %-3s %9.*f  %9s  %9.*f\n", indent, "", f->name, f->unit, digits, s->least,
           mean, digits, s->most);
}

static void print_summary(double seconds)
{
    printf("\n   PGN  messages  per s  field                      least       mean       most\n");
    for (const struct kind *k = kinds; k < kinds + kind_count; k++) {
        int lines = 0;
        printf("%6" PRIu32 "  %8" PRIu64 "  %5.1f", k->pgn, k->count,
               seconds > 0 ? (double)k->count / seconds : 0.0);
        for (int i = 0; i < FIELDS; i++)
            if (fields[i].pgn == k->pgn && seen[i].count)
                print_field(&fields[i], &seen[i], lines++ ? 25 : 2);
        if (!lines) printf("\n");
    }
}

/* Reads all messages and prints what they say. 0 if none was lost. */
static int consume(cbuf_reader *reader, const cbuf_ring *ring)
{
    static struct message batch[256];
    int64_t n, first = 0, last = 0, rows = 0;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_t told = now.tv_sec;
    for (;;) {
        n = cbuf_wait(reader, 1, 500000000);
        if (n == 0 && cbuf_producer_alive(ring) == 1) continue;
        if (n == 0) n = cbuf_wait(reader, 1, 0); /* what came between those two questions */
        if (n <= 0) break;
        if ((n = message_read(reader, batch, 256)) < 0) break;
        for (int64_t i = 0; i < n; i++) {
            for (int f = 0; f < FIELDS; f++) decode(&fields[f], &seen[f], &batch[i]);
            count(&batch[i]);
        }
        if (!rows && n) first = batch[0].time;
        if (n) last = batch[n - 1].time;
        rows += n;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec != told) print_now(last);
        told = now.tv_sec;
    }
    print_summary((double)(last - first) / 1e9);
    printf("\nread %" PRId64 " messages, lost %" PRIu64 "\n", rows, cbuf_lost(reader));
    fflush(stdout);
    if (n != CBUF_ECLOSED)
        fprintf(stderr, "replay: the ring was not closed: %s\n",
                n ? cbuf_strerror(n) : "its producer died");
    return n != CBUF_ECLOSED || cbuf_lost(reader);
}

/* The second process: attaches to the ring whose path comes over the socket, and says so. */
static int consumer(int socket)
{
    cbuf_ring ring;
    cbuf_reader reader;
    char path[256] = "";
    signal(SIGINT, SIG_IGN); /* the end of the ring is its end */
    if (read(socket, path, sizeof path - 1) <= 0) return 1;
    int error = cbuf_attach(&ring, path, NULL);
    if (error < 0) return fprintf(stderr, "replay: %s\n", cbuf_error(&ring)), 1;
    error = cbuf_reader_open(&reader, &ring, &(cbuf_reader_options){ .name = "decoder" });
    if (error < 0) return fprintf(stderr, "replay: %s: %s\n", path, cbuf_strerror(error)), 1;
    if (write(socket, "r", 1) != 1) return 1;
    int status = consume(&reader, &ring);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    if (status) cbuf_remove(path); /* nobody else may be left to do it; CBUF_EBUSY if somebody is */
    return status;
}

static int replay(struct log *log, double speed, int socket)
{
    cbuf_ring ring;
    char path[256], ready;
    cbuf_options options = {
        .capacity = 1024,
        .row_bytes = sizeof(struct message),
        .columns = columns,
        .column_count = sizeof columns / sizeof columns[0],
        .on_full = CBUF_BLOCK,
        .block_ns = 500000000, /* a look at `stop` now and then */
    };
    if (cbuf_create(&ring, &options) < 0)
        return fprintf(stderr, "replay: %s\n", cbuf_error(&ring)), 1;
    snprintf(path, sizeof path, "%s", cbuf_path(&ring));
    printf("%s into %s\n", log->name, path);
    fflush(stdout);
    bool met = write(socket, path, strlen(path)) > 0 && read(socket, &ready, 1) == 1;
    int error = met ? produce(&ring, log, speed) : 0;
    if (error < 0) fprintf(stderr, "replay: %s: %s\n", path, cbuf_strerror(error));
    cbuf_stats stats = { 0 };
    cbuf_stats_get(&ring, &stats);
    cbuf_close(&ring);
    int status = 0;
    wait(&status);
    cbuf_remove(path);
    printf("wrote %lu messages, skipped %lu lines of %lu; waited for room %" PRIu64 " times\n",
           log->written, log->skipped, log->line, stats.waits);
    if (ferror(log->file))
        fprintf(stderr, "replay: %s: cannot be read\n", log->name);
    else if (!stop && met && !log->written)
        fprintf(stderr, "replay: %s: there is no message in it\n", log->name);
    if (stop) fprintf(stderr, "replay: interrupted\n");
    return status || error || stop || !log->written || ferror(log->file) ? 1 : log->skipped ? 2 : 0;
}

int main(int argc, char **argv)
{
    struct log log = { .name = "examples/data/nmea2000.data" };
    double speed = 1;
    int sockets[2], arg = 1;
    if (arg + 1 < argc && !strcmp(argv[arg], "--speed")) {
        char *end;
        speed = strtod(argv[arg + 1], &end);
        if (end == argv[arg + 1] || *end || !(speed == 0 || (speed >= 0.001 && speed <= 1e6)))
            return fprintf(stderr, "replay: --speed must be 0, or 0.001 to 1000000\n"), 1;
        arg += 2;
    }
    if (argc > arg + 1 || (arg < argc && argv[arg][0] == '-'))
        return fprintf(stderr, "usage: replay [--speed N] [FILE]\n"), 1;
    if (arg < argc) log.name = argv[arg];
    if (!(log.file = fopen(log.name, "r")))
        return fprintf(stderr, "replay: %s: %s\n", log.name, strerror(errno)), 1;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) return perror("replay: socketpair"), 1;
    signal(SIGPIPE, SIG_IGN);

    pid_t child = fork(); /* before a ring is opened: a handle is of one process */
    if (child < 0) return perror("replay: fork"), 1;
    if (child == 0) {
        fclose(log.file);
        close(sockets[0]);
        return consumer(sockets[1]);
    }
    close(sockets[1]);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    int status = replay(&log, speed, sockets[0]);
    fclose(log.file);
    return status;
}
