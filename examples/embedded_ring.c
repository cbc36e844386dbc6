/*
 * A ring between an interrupt handler and a main loop, in static memory: no files, no mmap, no
 * allocation, no system calls. The handler may interrupt readings_take at any instruction: a
 * reading is delivered whole or counted as lost, and interrupts need never be switched off.
 *
 * Of a C library it needs some mem... and str... functions. This lists what else the object file
 * wants; it prints nothing:
 *
 *   cc -std=c11 -O2 -ffreestanding -fno-stack-protector -U_FORTIFY_SOURCE -Iinclude \
 *      -c examples/embedded_ring.c
 *   nm -u embedded_ring.o | grep -vE ' (mem|str)[a-z]+$'
 *
 * The processor must have lock-free 64-bit atomics: Cortex-A and RV64 do, Cortex-M does not.
 *
 * SPDX-License-Identifier: MIT
 */
#define CBUF_NO_OS
#include <cbuf.h>

#include "embedded_ring.h"

static const cbuf_column columns[] = {
    CBUF_COLUMN(struct reading, tick),
    CBUF_COLUMN(struct reading, value),
    CBUF_COLUMN(struct reading, channel),
};
CBUF_TYPED(reading, struct reading);

static const cbuf_options options = {
    .capacity = 64,
    .max_readers = 1,
    .row_bytes = sizeof(struct reading),
    .columns = columns,
    .column_count = sizeof columns / sizeof columns[0],
};
static _Alignas(128) unsigned char memory[5 * 1024]; /* 64 readings, and the ring around them */
static cbuf_ring ring;
static cbuf_reader reader;

const char *readings_start(void)
{
    if (cbuf_create_in(&ring, memory, sizeof memory, &options) < 0) return cbuf_error(&ring);
    int error = cbuf_reader_open(&reader, &ring, NULL);
    return error < 0 ? cbuf_strerror(error) : NULL;
}

void readings_interrupt(uint32_t tick, int16_t value, uint16_t channel)
{
    struct reading row = { tick, value, channel };
    reading_write(&ring, &row);
}

int32_t readings_take(struct reading *to, uint32_t max)
{
    return (int32_t)reading_read(&reader, to, max);
}

uint64_t readings_lost(void) { return cbuf_lost(&reader); }

uint32_t readings_memory(uint32_t *of)
{
    *of = sizeof memory;
    return (uint32_t)cbuf_memory_needed(&options);
}
