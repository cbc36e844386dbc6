/* hook_access.h: the functions of cbuf.h's section [access] with a hook before each, for tests in
 * one thread.
 *
 *   #define CBUF_ACCESS_HEADER "hook_access.h"
 *   #include "check.h"
 *
 *   hook_at(n, act, context);       before the access number n from here on (0: the next one), call
 * act(context), once cbuf_read(&reader, ...); if (!hook_end()) ...            it had fewer accesses
 *
 * So another thread's deed is put between any two accesses of a call, and a loop over n tries all
 * the places that there are. Loads and stores of the words of rows count too: a row can be
 * overwritten when half of it is copied. hook_at_word counts the accesses to one word only. While
 * act runs there is no hook. What a processor's reordering does cannot be shown so: that is for
 * tests/model. */
#ifndef HOOK_ACCESS_H
#define HOOK_ACCESS_H

static struct {
    void (*act)(void *);
    void *context;
    const cbuf__word *word; /* NULL: any */
    uint64_t left;
} hook;

static inline void hook_at_word(
    const cbuf__word *word, uint64_t n, void (*act)(void *), void *context)
{
    hook.act = act;
    hook.context = context;
    hook.word = word;
    hook.left = n;
}
static inline void hook_at(uint64_t n, void (*act)(void *), void *context)
{
    hook_at_word(NULL, n, act, context);
}

/* Takes the hook away. Whether it was called. */
static inline bool hook_end(void)
{
    bool called = !hook.act;
    hook.act = NULL;
    return called;
}
static inline void hook__before(const cbuf__word *word)
{
    if (!hook.act || (hook.word && hook.word != word) || hook.left--) return;
    void (*act)(void *) = hook.act;
    hook.act = NULL;
    act(hook.context);
}

#define HOOKED(...) (hook__before(word), __VA_ARGS__)

CBUF__INLINE uint64_t cbuf__load_relaxed(const cbuf__word *word)
{
    return HOOKED(__atomic_load_n(word, __ATOMIC_RELAXED));
}
CBUF__INLINE uint64_t cbuf__load_acquire(const cbuf__word *word)
{
    return HOOKED(__atomic_load_n(word, __ATOMIC_ACQUIRE));
}
CBUF__INLINE void cbuf__store_relaxed(cbuf__word *word, uint64_t value)
{
    HOOKED(__atomic_store_n(word, value, __ATOMIC_RELAXED));
}
CBUF__INLINE void cbuf__store_release(cbuf__word *word, uint64_t value)
{
    HOOKED(__atomic_store_n(word, value, __ATOMIC_RELEASE));
}
CBUF__INLINE void cbuf__store_half_release(cbuf__word *word, uint32_t value)
{
    HOOKED(__atomic_store_n((cbuf__half *)(void *)word + 1, value, __ATOMIC_RELEASE));
}
CBUF__INLINE uint64_t cbuf__exchange_acq_rel(cbuf__word *word, uint64_t value)
{
    return HOOKED(__atomic_exchange_n(word, value, __ATOMIC_ACQ_REL));
}
CBUF__INLINE uint64_t cbuf__fetch_add_acq_rel(cbuf__word *word, uint64_t value)
{
    return HOOKED(__atomic_fetch_add(word, value, __ATOMIC_ACQ_REL));
}
CBUF__INLINE bool cbuf__compare_exchange_acq_rel(
    cbuf__word *word, uint64_t *expected, uint64_t desired)
{
    return HOOKED(__atomic_compare_exchange_n(
        word, expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
}
CBUF__INLINE void cbuf__fence_acquire(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
} /* there is one thread */
CBUF__INLINE void cbuf__fence_release(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
CBUF__INLINE void cbuf__fence_seq_cst(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
CBUF__INLINE void cbuf__fence_compiler(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
CBUF__INLINE void cbuf__pause(void) {}
CBUF__INLINE void cbuf__back_off(uint32_t turns) { (void)turns; }

/* A sleep would be for ever, as the only one who could end it sleeps: it ends at once, as if
 * somebody had woken it too early, and is counted if nobody had. What should happen just before a
 * sleep is done by a hook. */
static uint64_t hook_sleeps;

CBUF__INLINE bool cbuf__barrier_all(void) { return hook__before(NULL), true; }
CBUF__INLINE int cbuf__futex_wait(const cbuf__word *word, uint32_t seen, int64_t ns)
{
    (void)ns;
    hook__before(word);
    hook_sleeps += (uint32_t)__atomic_load_n(word, __ATOMIC_RELAXED) == seen;
    return 0;
}
CBUF__INLINE void cbuf__futex_wake(cbuf__word *word) { hook__before(word); }

#undef HOOKED
#endif
