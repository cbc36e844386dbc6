/*
 * cbuf in a firmware, simulated: an interrupt handler stores readings, a main loop takes them. The
 * ring itself is in embedded_ring.c, which needs no operating system; this file plays the hardware,
 * and prints.
 *
 *   cc -std=c11 -O2 -Iinclude examples/embedded.c examples/embedded_ring.c -o embedded
 *   ./embedded
 *
 * Mostly the main loop keeps up. Every 500 rounds it is busy for 100 ticks of the timer, longer
 * than the ring is (64): it gets the readings that are still good, and knows how many it missed.
 * The output is the same at every run.
 *
 * SPDX-License-Identifier: MIT
 */
#include "embedded_ring.h"

#include <inttypes.h>
#include <stdio.h>

static uint32_t ticks; /* since the start */

/* What the sensor measures at a tick: a saw tooth for each of four channels. */
static int16_t measured(uint32_t tick) { return (int16_t)((int32_t)(tick * 37 % 2000) - 1000); }

static void timer_fires(void)
{
    readings_interrupt(ticks, measured(ticks), (uint16_t)(ticks % 4));
    ticks++;
}

int main(void)
{
    static struct reading batch[16];
    uint64_t taken = 0, wrong = 0;
    uint32_t expected = 0, most = 0, of, used = readings_memory(&of);
    const char *fault = readings_start();
    if (fault) return fprintf(stderr, "embedded: %s\n", fault), 1;
    printf("the ring takes %" PRIu32 " of %" PRIu32 " bytes of static memory\n", used, of);

    for (uint32_t round = 1; round <= 2000; round++) {
        uint32_t busy = round % 500 ? round % 7 : 100;
        uint64_t lost = readings_lost();
        int32_t n;
        while (busy--) timer_fires(); /* while the main loop does other work */
        if (ticks - expected > most) most = ticks - expected;
        while ((n = readings_take(batch, 16)) > 0) {
            if (readings_lost() != lost)
                printf("tick %6" PRIu32 ": %" PRIu64
                       " readings lost, goes on with the one of tick %" PRIu32 "\n",
                       ticks, readings_lost() - lost, batch[0].tick);
            expected += (uint32_t)(readings_lost() - lost);
            lost = readings_lost();
            for (int32_t i = 0; i < n; i++, expected++)
                wrong += batch[i].tick != expected || batch[i].value != measured(expected) ||
                         batch[i].channel != expected % 4;
            taken += (uint64_t)n;
        }
        if (n < 0) return fprintf(stderr, "embedded: reading fails with %" PRId32 "\n", n), 1;
    }
    printf("%" PRIu32 " readings stored = %" PRIu64 " taken + %" PRIu64 " lost; %" PRIu64
           " wrong; at most %" PRIu32 " waiting\n",
           ticks, taken, readings_lost(), wrong, most);
    return taken + readings_lost() == ticks && !wrong ? 0 : 1;
}
