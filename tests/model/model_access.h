/* model_access.h: cbuf.h's access functions, played by the checker. Compile a model test with
 * -DCBUF_ACCESS_HEADER='"model_access.h"'; cbuf.h then includes this in place of its own. And the
 * macro for a case, which all these tests have in common. */
#ifndef MODEL_ACCESS_H
#define MODEL_ACCESS_H

#include "checker.h"

/* A test of that name, with set_up and check of its program; the fields of its struct setting
 * follow. */
#define MODEL_CASE(text, ...)                               \
    {                                                       \
        .name = text, .setup = set_up, .check = check,      \
        .arguments = &(const struct setting){ __VA_ARGS__ } \
    }

/* With MODEL_PLAIN_ROWS the test says which words count as plain memory: then each access must be
 * ordered by happens-before, and not only give the right value. */
#ifdef MODEL_PLAIN_ROWS
static bool model_is_plain(const void *word);
#else
static inline bool model_is_plain(const void *word)
{
    return (void)word, false;
}
#endif

/* With MODEL_LOADS the test sees what relaxed loads find. */
#ifdef MODEL_LOADS
static void model_loaded(const void *word, uint64_t value);
#else
static inline void model_loaded(const void *word, uint64_t value) { (void)word, (void)value; }
#endif

static inline uint64_t cbuf__load_relaxed(const cbuf__word *word)
{
    if (model_is_plain(word))
        return checker_load_plain(word);
    uint64_t value = checker_load(word, CHECKER_RELAXED);
    model_loaded(word, value);
    return value;
}

static inline uint64_t cbuf__load_acquire(const cbuf__word *word)
{
    return checker_load(word, CHECKER_ACQUIRE);
}

static inline void cbuf__store_relaxed(cbuf__word *word, uint64_t value)
{
    if (model_is_plain(word))
        checker_store_plain(word, value);
    else
        checker_store(word, value, CHECKER_RELAXED);
}

static inline void cbuf__store_release(cbuf__word *word, uint64_t value)
{
    checker_store(word, value, CHECKER_RELEASE);
}

static inline void cbuf__store_half_release(cbuf__word *word, uint32_t value)
{
    uint64_t first = (uint32_t)checker_load(word, CHECKER_RELAXED);
    checker_store(word, first | (uint64_t)value << 32, CHECKER_RELEASE);
}

static inline uint64_t cbuf__exchange_acq_rel(cbuf__word *word, uint64_t value)
{
    return checker_exchange(word, value, CHECKER_ACQ_REL);
}

static inline uint64_t cbuf__fetch_add_acq_rel(cbuf__word *word, uint64_t value)
{
    return checker_fetch_add(word, value, CHECKER_ACQ_REL);
}

static inline bool cbuf__compare_exchange_acq_rel(cbuf__word *word, uint64_t *expected,
                                                  uint64_t desired)
{
    return checker_compare_exchange(word, expected, desired, CHECKER_ACQ_REL);
}

static inline void cbuf__fence_acquire(void) { checker_fence(CHECKER_ACQUIRE); }
static inline void cbuf__fence_release(void) { checker_fence(CHECKER_RELEASE); }
static inline void cbuf__fence_seq_cst(void) { checker_fence(CHECKER_SEQ_CST); }
static inline void cbuf__fence_compiler(void) {}
static inline void cbuf__pause(void) { checker_pause(); }
static inline void cbuf__back_off(uint32_t turns) { (void)turns; }

static inline bool cbuf__barrier_all(void) { return checker_barrier_all(); }

/* Time does not pass in the model: a wait without limit and one with are the same. */
static inline int cbuf__futex_wait(const cbuf__word *word, uint32_t seen, int64_t ns)
{
    (void)ns;
    return checker_futex_wait(word, seen);
}

static inline void cbuf__futex_wake(cbuf__word *word) { checker_futex_wake(word); }

#endif
