/* model_pool.h: what the model tests of cbuf_pool.h share: a pool and a ring in static memory, and
 * payloads of one word, the ref itself. Payloads are plain memory: whoever fills one must come, by
 * happens-before, after all who read what was there before, or it is a data race.
 */
#ifndef MODEL_POOL_H
#define MODEL_POOL_H

#define CBUF_NO_OS
#define CBUF_ACCESS_HEADER "model_access.h"
#include "cbuf_pool.h"

enum { HOLDERS = 4 };

static uint64_t memory[2048] __attribute__((aligned(128)));
static uint64_t ring_memory[1024] __attribute__((aligned(128)));
static cbuf_pool pools[HOLDERS];

/* ---- payloads ---- */

static inline void *data_of(cbuf_pool *pool, cbuf_ref ref)
{
    void *data = cbuf_pool_data(pool, ref);
    bool what_is_held_can_be_used = data != NULL;
    checker_assert(what_is_held_can_be_used);
    return data;
}
static inline void fill(cbuf_pool *pool, cbuf_ref ref)
{
    checker_store_plain(data_of(pool, ref), ref);
}
static inline void check_payload(cbuf_pool *pool, cbuf_ref ref)
{
    bool payload_is_that_of_the_ref = checker_load_plain(data_of(pool, ref)) == ref;
    checker_assert(payload_is_that_of_the_ref);
}
static inline void release(cbuf_pool *pool, cbuf_ref ref)
{
    checker_assert(cbuf_pool_release(pool, ref) >= 0);
}

/* ---- set-up ---- */

/* All slots are of the smallest class. */
static inline void make_pools(uint32_t slots)
{
    cbuf_pool_options options = { .count = { slots }, .max_holders = HOLDERS + 1 };
    for (uint32_t k = 0; k < 5; k++)
        options.bytes[k] = 64 * (k + 1);
    memset(memory, 0, sizeof memory);
    checker_assert(cbuf_pool_create_in(&pools[0], memory, sizeof memory, &options) == 0);
    for (int k = 1; k < HOLDERS; k++)
        checker_assert(cbuf_pool_attach_in(&pools[k], memory, sizeof memory, "holder") == 0);
}
static inline void name_pool(uint32_t slots)
{
    for (uint32_t k = 0; k < slots; k++) {
        struct cbuf__pool_slot *slot = cbuf__slot_at(&pools[0].classes[CBUF_XS], k);
        checker_name(&slot->state, "slot[%u].state", k);
        checker_name(&slot->length, "slot[%u].length", k);
        checker_name(&slot->type, "slot[%u].type", k);
        checker_name(slot + 1, "slot[%u].payload", k);
    }
    for (uint32_t k = 0; k <= HOLDERS; k++)
        checker_name(&cbuf__holder_at(&pools[0], k)->owned, "holder[%u].owned", k);
}

struct model_part { /* of a test's memory */
    void *at;
    size_t bytes;
};
/* Makes the test's memory be as MAKE leaves it for the case KEY. Making takes long against an
 * execution, so it is done once a case and kept. */
static inline void make_once(const void *key, void (*make)(void), const struct model_part *parts)
{
    static const void *kept_key;
    static char kept[1 << 17];
    bool known = kept_key == key;
    size_t used = 0;
    if (!known) make();
    kept_key = key;
    for (; parts->at != NULL; used += parts++->bytes) {
        checker_assert(parts->bytes <= sizeof kept - used);
        memcpy(known ? parts->at : kept + used, known ? kept + used : parts->at, parts->bytes);
    }
}

#endif
