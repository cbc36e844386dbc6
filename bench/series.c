/* series.c - one series of rows, plain and with the delta columns that cbuf_advise proposes, in rings of the same capacity:
 * what a row costs to write and to read, one by one and 256 a call; interleaved, the median of many passes. bench/series calls
 * it:
 *
 *   series NAME FILE ROW_BYTES COLUMN,TYPE,OFFSET...     FILE: rows, as they lie in memory
 *
 * prints "metric,value" lines, checks that all rows come back, and leaves the rings NAME_plain and NAME_delta for NumPy. */
#define _GNU_SOURCE 1
#include "../include/cbuf.h"
#include "../include/cbuf_advise.h"
#include <stdio.h>
#include <stdlib.h>

enum { PASSES = 21, BATCH = 256, KINDS = 4 };
static const char *const kinds[KINDS] = { "write_1", "write_256", "read_1", "read_256" };
static const struct { const char *name; uint32_t type; } types[] = { { "int8", CBUF_INT8 }, { "int16", CBUF_INT16 },
    { "int32", CBUF_INT32 }, { "int64", CBUF_INT64 }, { "uint8", CBUF_UINT8 }, { "uint16", CBUF_UINT16 },
    { "uint32", CBUF_UINT32 }, { "uint64", CBUF_UINT64 }, { "float32", CBUF_FLOAT32 }, { "float64", CBUF_FLOAT64 },
    { "timestamp", CBUF_TIMESTAMP_NS } };

static cbuf_column columns[64];
static uint32_t column_count, row_bytes;
static unsigned char *rows, back[BATCH * 4096];
static uint64_t row_count;

__attribute__((noreturn)) static void die(const char *what, const char *why)
{
    fprintf(stderr, "series: %s: %s\n", what, why);
    exit(1);
}
static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void add_column(const char *text)
{
    char type[32] = "";
    cbuf_column *column = &columns[column_count++];
    if (column_count > 64 || sscanf(text, "%47[^,],%31[^,],%u", column->name, type, &column->offset) != 3) die("column", text);
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++)
        if (!strcmp(type, types[k].name)) column->type = types[k].type;
    if (!column->type) die("type", type);
}

static void load(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) die(path, "cannot be read");
    row_count = (uint64_t)ftell(file) / row_bytes / 512 * 512; /* whole blocks: its repetition is no jump within one */
    rows = malloc((size_t)row_count * row_bytes);
    rewind(file);
    if (row_count < BATCH || !rows || fread(rows, row_bytes, (size_t)row_count, file) != row_count) die(path, "too short");
    fclose(file);
}

/* A ring that holds all rows, in a file of its own. */
static void make(cbuf_ring *ring, const char *name, const char *suffix, const cbuf_advice *advice)
{
    char path[64];
    snprintf(path, sizeof path, "%s_%s", name, suffix);
    cbuf_options options = { .name = path, .capacity = row_count * 9 / 8, .columns = columns, .column_count = column_count,
        .row_bytes = row_bytes, .existing = CBUF_REPLACE, .memory = { .populate = CBUF_WANT } };
    if (advice) options.deltas = advice->deltas, options.delta_count = advice->delta_count;
    if (advice) options.block_rows = advice->block_rows, options.layout = advice->layout;
    if (cbuf_create(ring, &options) < 0) die(path, cbuf_error(ring));
}

static void same(uint64_t i, uint64_t n)
{
    for (uint64_t k = 0; k < n; k++)
        for (uint32_t c = 0; c < column_count; c++)
            if (memcmp(back + k * row_bytes + columns[c].offset, rows + (i + k) % row_count * row_bytes + columns[c].offset,
                    CBUF_TYPE_BYTES(columns[c].type)))
                die("a row", "came back as another");
}

/* One pass of a kind over all rows: ns a row. */
static double pass(cbuf_ring *ring, int kind, bool check)
{
    cbuf_reader reader;
    cbuf_reader_options options = { .anonymous = true, .start = CBUF_AT, .sequence = cbuf_head(ring) - row_count };
    uint64_t done = 0, most = kind % 2 ? BATCH : 1;
    if (kind >= 2 && cbuf_reader_open(&reader, ring, &options)) die("reader", "failed");
    double begin = now_ns();
    while (done < row_count) {
        uint64_t n = row_count - done < most ? row_count - done : most;
        int64_t got = kind >= 2 ? cbuf_read(&reader, back, (uint32_t)n)
            : kind == 1         ? cbuf_write_n(ring, rows + done * row_bytes, n)
                                : cbuf_write(ring, rows + done * row_bytes);
        if (got <= 0) die(kinds[kind], cbuf_strerror(got));
        if (check && kind >= 2) same(done, (uint64_t)got);
        done += (uint64_t)got;
    }
    double ns = (now_ns() - begin) / (double)row_count;
    if (kind >= 2) cbuf_reader_close(&reader);
    return ns;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static cbuf_ring rings[2];
    static double ns[2][KINDS][PASSES];
    cbuf_advice advice;
    uint64_t escapes = 0;
    if (argc < 5) die("usage", "series NAME FILE ROW_BYTES COLUMN,TYPE,OFFSET...");
    row_bytes = (uint32_t)strtoul(argv[3], NULL, 10);
    for (int k = 4; k < argc; k++) add_column(argv[k]);
    load(argv[2]);
    if (cbuf_advise(columns, column_count, row_bytes, rows, row_count, &advice)) die("advice", "failed");
    if (!advice.delta_count) return printf("rows,%llu\nplain_bytes,%g\n", (unsigned long long)row_count, advice.plain_bytes), 0;
    make(&rings[0], argv[1], "plain", NULL);
    make(&rings[1], argv[1], "delta", &advice);
    for (int p = 0; p < PASSES + 2; p++)
        for (int kind = 0; kind < KINDS; kind++)
            for (int r = 0; r < 2; r++) {
                double once = pass(&rings[r], kind, p == 1);
                if (p >= 2) ns[r][kind][p - 2] = once;
            }
    for (uint32_t k = 0; k < advice.delta_count; k++) {
        cbuf_delta delta;
        uint64_t count = 0;
        cbuf_delta_at(&rings[1], k, &delta, &count);
        escapes += count;
        fprintf(stderr, "%s %s: %u bits, step %g, %.3g %% escapes\n", argv[1], delta.name, delta.bits, delta.step,
            100 * (double)count / (double)cbuf_head(&rings[1]));
    }
    printf("rows,%llu\nplain_bytes,%u\npromised_bytes,%.2f\nblock_rows,%u\n", (unsigned long long)row_count,
        cbuf_stride(&rings[0]), advice.stored_bytes, advice.block_rows);
    printf("escapes_percent,%.4g\n",
        100 * (double)escapes / (double)cbuf_head(&rings[1]) / (double)advice.delta_count);
    for (int kind = 0; kind < KINDS; kind++)
        for (int r = 0; r < 2; r++) {
            qsort(ns[r][kind], PASSES, sizeof ns[r][kind][0], compare);
            printf("%s_%s_ns,%.3g\n", r ? "delta" : "plain", kinds[kind], ns[r][kind][PASSES / 2]);
        }
    for (int r = 0; r < 2; r++) cbuf_close(&rings[r]);
    return 0;
}
