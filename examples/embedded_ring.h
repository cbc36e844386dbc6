/*
 * The ring of embedded.c as the rest of a firmware sees it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef EMBEDDED_RING_H
#define EMBEDDED_RING_H

#include <stdint.h>

struct reading {
    uint32_t tick; /* of the sampling timer */
    int16_t value;
    uint16_t channel;
};

/* Makes the ring and its reader, in static memory. NULL, or what is wrong. */
const char *readings_start(void);

/* The interrupt handler: stores one reading. Never waits; the oldest gives way to it. */
void readings_interrupt(uint32_t tick, int16_t value, uint16_t channel);

/* The main loop's side: takes up to `max` readings, oldest first, and returns how many. */
int32_t readings_take(struct reading *to, uint32_t max);

/* How many readings were overwritten before readings_take came to them. */
uint64_t readings_lost(void);

/* Bytes that the ring takes of its static memory, and how many it has. */
uint32_t readings_memory(uint32_t *of);

#endif
