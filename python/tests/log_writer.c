/* Logs every row of a ring in memory, for test_log.py; or spills, to a reader that lags by 200 rows:
 *
 *   log_writer LOG ROWS [spill]
 *
 * The n-th call writes 1, 2, 3 ... 7, 1, 2 ... rows; row i is i, i / 4.0, and the text "row i". */
#include <cbuf_log.h>

#include <stdio.h>
#include <stdlib.h>

struct row {
    int64_t time;
    double price;
    char text[13]; /* and the row is 29 bytes, no multiple of anything */
} __attribute__((packed));
static const cbuf_column columns[] = { CBUF_COLUMN_AS(struct row, time, CBUF_TIMESTAMP_NS), CBUF_COLUMN(struct row, price),
                                       CBUF_COLUMN(struct row, text) };

int main(int argc, char **argv)
{
    static cbuf_ring ring;
    static cbuf_log log;
    static cbuf_reader reader;
    cbuf_options options = { .capacity = 64, .columns = columns, .column_count = 3, .row_bytes = sizeof(struct row) };
    cbuf_log_options every = { .every_row = true, .sync_ns = CBUF_FOREVER };
    struct row rows[7], read[7];
    if (argc != 3 && argc != 4) return fprintf(stderr, "usage: log_writer LOG ROWS [spill]\n"), 2;
    if (argc == 4) options.on_full = CBUF_SPILL, every.every_row = false, every.max_bytes = 32768;
    size_t bytes = (size_t)cbuf_memory_needed(&options);
    if (cbuf_create_in(&ring, aligned_alloc(128, (bytes + 127) / 128 * 128), bytes, &options))
        return fprintf(stderr, "%s\n", cbuf_error(&ring)), 1;
    every.path = argv[1];
    if (cbuf_log_open(&log, &ring, &every)) return fprintf(stderr, "%s\n", cbuf_log_error(&log)), 1;
    if (argc == 4 && cbuf_reader_open(&reader, &ring, NULL)) return 1;
    int64_t next = 0, end = atoll(argv[2]);
    for (int64_t call = 0; next < end; call++) {
        int64_t n = call % 7 + 1 < end - next ? call % 7 + 1 : end - next;
        for (int64_t k = 0; k < n; k++) {
            memset(&rows[k], 0, sizeof rows[k]);
            rows[k].time = next + k;
            rows[k].price = (double)(next + k) / 4;
            snprintf(rows[k].text, sizeof rows[k].text, "row %u", (unsigned)(next + k) % 10000000u);
        }
        if (cbuf_write_n(&ring, rows, (uint64_t)n) != n) return 1;
        next += n;
        if (argc == 4 && next > 200 && cbuf_read(&reader, read, (uint32_t)n) != n) return 1;
    }
    return cbuf_log_close(&log) ? 1 : 0;
}
