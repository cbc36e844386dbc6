/*
 * A whole consumer: reads the ring /dev/shm/ticks from its oldest row on, until the producer closes
 * it. It sleeps while there is nothing to read. Start producer first.
 *
 *   cc -std=c11 -O2 -Iinclude examples/consumer.c -o consumer && ./consumer
 *
 * SPDX-License-Identifier: MIT
 */
#include <cbuf.h>
#include <stdio.h>

struct tick { int64_t time; double bid, ask; int32_t size; };
CBUF_TYPED(tick, struct tick);

int main(void)
{
    cbuf_ring ring;
    cbuf_reader reader;
    struct tick ticks[256];
    int error = cbuf_attach(&ring, "ticks", NULL);
    if (error < 0) return fprintf(stderr, "consumer: %s\n", cbuf_error(&ring)), 1;
    error = cbuf_reader_open(&reader, &ring, &(cbuf_reader_options){ .name = "consumer" });
    if (error < 0) return fprintf(stderr, "consumer: %s\n", cbuf_strerror(error)), 1;

    while (cbuf_wait(&reader, 1, CBUF_FOREVER) > 0) {
        int64_t n = tick_read(&reader, ticks, 256);
        if (n < 0) return fprintf(stderr, "consumer: %s\n", cbuf_strerror(n)), 1;
        for (int64_t i = 0; i < n; i++)
            printf("bid %.2f  ask %.2f  size %d\n", ticks[i].bid, ticks[i].ask, ticks[i].size);
    }
    unsigned long long lost = cbuf_lost(&reader);
    fprintf(stderr, "consumer: the producer is done; %llu rows were lost\n", lost);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    return 0;
}
