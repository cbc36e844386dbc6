/* pool_bare.c - what a pool cannot beat: one word, taken and given back by a compare-exchange each, or counted up and down. */
#include "../bench.h"
struct user { int none; };
#define CAN_POOL
#define CAN_HOLD 1
#define ONE_THREAD 1
static struct { uint64_t state, apart[15]; unsigned char data[ROW_BYTES]; } slots[32] __attribute__((aligned(LINE)));
static void user_open(UNUSED struct user *u, UNUSED int side) {}
static void user_close(UNUSED struct user *u) {}
static int next_slot;
INLINE void *take(UNUSED struct user *u, uint64_t *token)
{
    uint64_t none = 0;
    *token = (uint64_t)(setup.batch == 1 ? 0 : next_slot++ % 32);
    if (!__atomic_compare_exchange_n(&slots[*token].state, &none, 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) die("slot", "taken");
    return slots[*token].data;
}
INLINE void *payload(UNUSED struct user *u, uint64_t token) { return slots[token].data; }
INLINE void hold(UNUSED struct user *u, uint64_t token) { __atomic_fetch_add(&slots[token].state, 1, __ATOMIC_ACQ_REL); }
INLINE void drop(UNUSED struct user *u, uint64_t token)
{
    uint64_t one = 1;
    if (setup.shape[5] == 'r') __atomic_fetch_sub(&slots[token].state, 1, __ATOMIC_ACQ_REL);
    else __atomic_compare_exchange_n(&slots[token].state, &one, 0, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
#include "../main.h"
