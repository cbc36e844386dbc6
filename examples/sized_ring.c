/*
 * Rings of one size in static memory, as types: SIZED_RING(ticks, 64, 1000) is what rusted-ring
 * calls RingBuffer<64, 1000>, with its Writer, its Readers and its guard: a ring that is too large
 * for the memory that was allowed to it does not compile.
 *
 *   cc -std=c11 -O2 -Iinclude examples/sized_ring.c -o sized_ring
 *   ./sized_ring
 *
 * No file, no allocation, no system call. The output is the same at every run.
 *
 * SPDX-License-Identifier: MIT
 */
#include <cbuf.h>

#include <inttypes.h>
#include <stdio.h>

#define MAX_STATIC_BYTES (1u << 20)
#define MAX_READERS 4

/* What a ring takes: its head, a row with its number for each place, the readers' table. */
#define SIZED_RING_BYTES(size, capacity) (4096u + (capacity) * ((size) + 16u) + 256u * MAX_READERS)

/* Defines name_event, name_ring, name_open, and by CBUF_TYPED name_write and name_read. The
 * capacity is a power of two. */
#define SIZED_RING(name, size, capacity_)                                                          \
    typedef struct name##_event {                                                                  \
        char data[size];                                                                           \
        uint32_t len, event_type;                                                                  \
    } name##_event;                                                                                \
    typedef struct name##_ring {                                                                   \
        cbuf_ring ring;                                                                            \
        _Alignas(128) unsigned char memory[SIZED_RING_BYTES(size, capacity_)];                     \
    } name##_ring;                                                                                 \
    _Static_assert(SIZED_RING_BYTES(size, capacity_) <= MAX_STATIC_BYTES,                          \
        "the ring is too large for static memory");                                                \
    _Static_assert((capacity_) > 1 && !((capacity_) & ((capacity_) - 1)), "a power of two");       \
    _Static_assert((size) % 8 == 0, "the size is a multiple of 8");                                \
    CBUF_TYPED(name, name##_event);                                                                \
    static int name##_open(name##_ring *r)                                                         \
    {                                                                                              \
        static const cbuf_column columns[] = {                                                     \
            CBUF_COLUMN_AS(name##_event, data, CBUF_BYTES(size)),                                  \
            CBUF_COLUMN(name##_event, len), CBUF_COLUMN(name##_event, event_type) };               \
        cbuf_options options = { .capacity = capacity_, .row_bytes = sizeof(name##_event),         \
            .columns = columns, .column_count = 3, .max_readers = MAX_READERS };                   \
        return cbuf_create_in(&r->ring, r->memory, sizeof r->memory, &options);                    \
    }

SIZED_RING(pulses, 64, 1024)
SIZED_RING(edits, 1024, 512)
#ifdef TOO_LARGE /* -DTOO_LARGE: does not compile */
SIZED_RING(films, 16384, 64)
#endif

static pulses_ring pulses;
static edits_ring edits;

int main(void)
{
    cbuf_ring attached;
    cbuf_reader keeps_up, falls_behind;
    pulses_event event;
    if (pulses_open(&pulses) || edits_open(&edits))
        return fprintf(stderr, "%s%s\n", cbuf_error(&pulses.ring), cbuf_error(&edits.ring)), 1;
    printf("static memory: pulses %zu bytes, edits %zu bytes\n", sizeof pulses, sizeof edits);

    /* a reader's side, in a thread of its own or here */
    int error = cbuf_attach_in(&attached, pulses.memory, sizeof pulses.memory);
    if (!error) error = cbuf_reader_open(&keeps_up, &attached, NULL);
    if (!error) error = cbuf_reader_open(&falls_behind, &attached, NULL);
    if (error) return fprintf(stderr, "%s\n", cbuf_strerror(error)), 1;

    uint64_t got[2] = { 0, 0 }, wrong = 0;
    for (uint32_t k = 0; k < 5000; k++) {
        pulses_event pulse = { .event_type = k % 7 };
        pulse.len = (uint32_t)snprintf(pulse.data, sizeof pulse.data, "pulse %" PRIu32, k);
        pulses_write(&pulses.ring, &pulse);
        while (pulses_read(&keeps_up, &event, 1) == 1)
            got[0]++, wrong += event.event_type != k % 7 || event.len != pulse.len;
    }
    while (pulses_read(&falls_behind, &event, 1) == 1) got[1]++;
    printf("5000 pulses: one reader got %" PRIu64 ", the other %" PRIu64 " and lost %" PRIu64
           "; the last one says \"%.*s\"; %" PRIu64 " wrong\n",
        got[0], got[1], cbuf_lost(&falls_behind), (int)event.len, event.data, wrong);
    cbuf_reader_close(&keeps_up);
    cbuf_reader_close(&falls_behind);
    return got[0] == 5000 && got[1] + cbuf_lost(&falls_behind) == 5000 && !wrong ? 0 : 1;
}
