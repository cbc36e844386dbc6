/*
 * The RFC's telemetry buffer (telemetry.h) under its four policies: a producer that is faster than
 * its consumer, in a buffer of 1,024 events, and what becomes of each event. Then two threads, as
 * fast as they go.
 *
 *   cc -std=c11 -O2 -pthread -Iinclude examples/telemetry.c -o telemetry && ./telemetry
 *
 * Exit status: 0 if every event is accounted for and came in order; else 1.
 *
 * SPDX-License-Identifier: MIT
 */
#include "telemetry.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { CAPACITY = 1024, EVENTS = 20000, MANY = 4000000 };

static struct telemetry buffer;
static struct telemetry_event taken_events[CAPACITY];

struct account {
    uint64_t pushed, refused, taken, wrong, last; /* last: number of the last event taken, + 1 */
};

static struct telemetry_event numbered(uint64_t number)
{
    char text[32];
    snprintf(text, sizeof text, "event %" PRIu64, number);
    return telemetry_event_now(number % 100 ? TELEMETRY_INFO : TELEMETRY_WARN, "example", text);
}
static void count(struct account *account, int64_t n)
{
    for (int64_t k = 0; k < n; k++) {
        uint64_t number = strtoull(taken_events[k].message + strlen("event "), NULL, 10);
        account->wrong += number < account->last || strcmp(taken_events[k].target, "example");
        account->last = number + 1;
    }
    if (n > 0) account->taken += (uint64_t)n;
}

/* Three pushes, one take, over and over; then all that is left. */
static int try_policy(const char *name, enum telemetry_policy policy)
{
    struct account account = { 0, 0, 0, 0, 0 };
    cbuf_log_stats file;
    uint64_t most = 0;
    char ring[64];
    snprintf(ring, sizeof ring, "cbuf_telemetry_%ld", (long)getpid());
    if (telemetry_open(&buffer, ring, CAPACITY, policy, NULL) < 0)
        return fprintf(stderr, "telemetry: %s\n", telemetry_error(&buffer)), 1;
    for (uint64_t number = 0; number < EVENTS; number++) {
        struct telemetry_event event = numbered(number);
        int pushed = telemetry_try_push(&buffer, &event);
        if (pushed < 0) return fprintf(stderr, "telemetry: %s\n", cbuf_strerror(pushed)), 1;
        account.pushed += pushed == 1;
        account.refused += pushed == 0;
        if (number % 3 == 0) count(&account, telemetry_take_batch(&buffer, taken_events, 1));
        file = cbuf_log_stats_get(&buffer.log);
        if (file.pending > most) most = file.pending;
    }
    do count(&account, telemetry_take_snapshot(&buffer, taken_events));
    while (telemetry_flush(&buffer, 0) == 0);
    count(&account, telemetry_take_snapshot(&buffer, taken_events));
    printf("%-14s %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %14" PRIu64 "\n", name,
        account.pushed, account.refused, account.taken, telemetry_lost(&buffer), most);
    bool right = account.taken + telemetry_lost(&buffer) == account.pushed && !account.wrong &&
        account.pushed + account.refused == EVENTS;
    telemetry_close(&buffer);
    cbuf_remove(ring);
    return !right;
}

static void *push_many(void *unused)
{
    struct telemetry_event events[32];
    (void)unused;
    for (uint64_t k = 0; k < 32; k++) events[k] = numbered(k);
    for (uint64_t number = 0; number < MANY; number += 32)
        telemetry_push_batch(&buffer, events, 32);
    return NULL;
}
static int try_threads(void)
{
    pthread_t producer;
    struct timespec from, to;
    int64_t n, taken = 0;
    char ring[64];
    snprintf(ring, sizeof ring, "cbuf_telemetry_%ld", (long)getpid());
    if (telemetry_open(&buffer, ring, 65536, TELEMETRY_BLOCK, NULL) < 0)
        return fprintf(stderr, "telemetry: %s\n", telemetry_error(&buffer)), 1;
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (pthread_create(&producer, NULL, push_many, NULL)) return 1;
    while (taken < MANY && (n = telemetry_take_batch(&buffer, taken_events, 256)) >= 0) {
        if (!n) cbuf_wait(&buffer.reader, 1, 1000000);
        taken += n;
    }
    pthread_join(producer, NULL);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double seconds = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
    printf("\ntwo threads, 32 events a push, none lost: %.1f million events a second\n",
        1e-6 * MANY / seconds);
    telemetry_close(&buffer);
    cbuf_remove(ring);
    return taken != MANY;
}

int main(void)
{
    printf("%d events, one taken for three pushed, room for %d; and what is left, at the end\n\n",
        EVENTS, CAPACITY);
    printf("policy           pushed  refused    taken     lost  most in a file\n");
    return try_policy("block (try)", TELEMETRY_BLOCK) |
        try_policy("drop oldest", TELEMETRY_DROP_OLDEST) |
        try_policy("drop newest", TELEMETRY_DROP_NEWEST) |
        try_policy("spill to disk", TELEMETRY_SPILL_TO_DISK) | try_threads();
}
