/*
 * A whole producer: ten thousand ticks, one a millisecond, into the ring /dev/shm/ticks.
 *
 *   cc -std=c11 -O2 -Iinclude examples/producer.c -o producer && ./producer
 *
 * Start consumer (or `python3 -m cbuf tail -f ticks`) beside it, as many as you like, at any time.
 * Interrupted or killed, it leaves the ring where it is: the consumers wait, and the next producer
 * goes on where this one stopped.
 *
 * SPDX-License-Identifier: MIT
 */
#include <cbuf.h>
#include <stdio.h>

struct tick { int64_t time; double bid, ask; int32_t size; };
CBUF_TYPED(tick, struct tick);
static const cbuf_column columns[] = {
    CBUF_COLUMN_AS(struct tick, time, CBUF_TIMESTAMP_NS), CBUF_COLUMN(struct tick, bid),
    CBUF_COLUMN(struct tick, ask),                        CBUF_COLUMN(struct tick, size) };

int main(void)
{
    cbuf_ring ring;
    cbuf_options options = { .name = "ticks", .row_bytes = sizeof(struct tick),
                             .columns = columns, .column_count = 4 };
    int error = cbuf_create(&ring, &options);
    if (error < 0) return fprintf(stderr, "producer: %s\n", cbuf_error(&ring)), 1;

    for (int i = 0; i < 10000; i++) {
        struct timespec now, millisecond = { 0, 1000000 };
        nanosleep(&millisecond, NULL);
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t time = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
        struct tick tick = { time, 100 + i % 7, 101 + i % 5, i };
        tick_write(&ring, &tick);
    }
    cbuf_close(&ring);    /* the consumers get the rows that are left, then CBUF_ECLOSED */
    cbuf_remove("ticks"); /* without this the ring stays, with its rows */
    return 0;
}
