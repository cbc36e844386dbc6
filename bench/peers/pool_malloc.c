/* pool_malloc.c - malloc and free of the C library; no references. */
#include "../bench.h"
struct user { int none; };
#define CAN_POOL
#define CAN_HOLD 0
static void user_open(UNUSED struct user *u, UNUSED int side) {}
static void user_close(UNUSED struct user *u) {}
INLINE void *take(UNUSED struct user *u, uint64_t *token)
{
    void *at = malloc(ROW_BYTES);
    if (!at) die("malloc", "failed");
    return *token = (uint64_t)(uintptr_t)at, at;
}
INLINE void *payload(UNUSED struct user *u, uint64_t token) { return (void *)(uintptr_t)token; }
INLINE void hold(UNUSED struct user *u, UNUSED uint64_t token) {}
INLINE void drop(UNUSED struct user *u, uint64_t token) { free((void *)(uintptr_t)token); }
#include "../main.h"
