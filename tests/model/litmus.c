/* litmus.c: tests of the checker itself.
 *
 * The classic litmus tests, each with the exact set of outcomes that the model allows; both the
 * reduced and the unreduced search must find that set. Then random small programs, for which both
 * searches must find the same set. An outcome is written as the final registers of each thread, a
 * group per thread; then, where a test asks for it, the final memory. A thread's group is K if it
 * was killed (what it had read concerns nobody), and ends in Z if it sleeps for ever.
 */
#include "checker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, STEPS = 10, REGISTERS = 4, WORDS = 3, OUTCOMES = 4000, OUTCOME_BYTES = 40 };

enum word { X, Y, Z };

enum action {
    END,
    LOAD,
    STORE,
    EXCHANGE,
    ADD,
    COMPARE, /* from 0 to VALUE; the register gets what was read */
    FENCE,
    BARRIER,
    WAIT, /* while the word is VALUE; the register gets 1 if it slept, 2 if it timed out */
    WAKE,
    WAKE_IF, /* if the last register is not 0 */
    MORTAL,
    AWAIT,  /* the end of thread VALUE; the register gets 1 if it was killed */
    ASSUME, /* that the last register is VALUE */
    READ,   /* plain */
    WRITE,  /* plain */
};

struct step {
    enum action action;
    enum word word;
    uint64_t value;
    enum checker_order order;
};

enum { SHOW_MEMORY = 1, ALLOW_SLEEP = 2, ALLOW_TIMEOUTS = 4, REFUSE_BARRIERS = 8 };

struct program {
    const char *name;
    unsigned flags;
    struct step threads[THREADS][STEPS];
    const char *outcomes; /* separated by |; NULL: a violation must be found */
};

/* ------------------------------------------------------------------------------ the interpreter */

static uint64_t words[WORDS] __attribute__((aligned(64)));
static const struct program *running_program;
static struct {
    uint64_t registers[REGISTERS];
    unsigned count;
} states[THREADS];

static uint64_t do_step(const struct step *s, uint64_t last)
{
    uint64_t *word = &words[s->word], expected = 0;
    switch (s->action) {
    case LOAD:
        return checker_load(word, s->order);
    case STORE:
        checker_store(word, s->value, s->order);
        break;
    case EXCHANGE:
        return checker_exchange(word, s->value, s->order);
    case ADD:
        return checker_fetch_add(word, s->value, s->order);
    case COMPARE:
        checker_compare_exchange(word, &expected, s->value, s->order);
        return expected;
    case FENCE:
        checker_fence(s->order);
        break;
    case BARRIER:
        return checker_barrier_all();
    case WAIT:
        switch (checker_futex_wait(word, (uint32_t)s->value)) {
        case 0:
            return 1;
        case 110: /* ETIMEDOUT */
            return 2;
        default:
            return 0;
        }
    case WAKE_IF:
        if (last == 0)
            break;
        checker_futex_wake(word);
        break;
    case WAKE:
        checker_futex_wake(word);
        break;
    case MORTAL:
        checker_set_mortal(s->value == 0);
        break;
    case AWAIT:
        return checker_wait_end((unsigned)s->value);
    case ASSUME:
        checker_assume(last == s->value);
        break;
    case READ:
        return checker_load_plain(word);
    case WRITE:
        checker_store_plain(word, s->value);
        break;
    case END:
        break;
    }
    return 0;
}

static bool gives_value(enum action action)
{
    switch (action) {
    case LOAD:
    case EXCHANGE:
    case ADD:
    case COMPARE:
    case WAIT:
    case AWAIT:
    case READ:
        return true;
    default:
        return false;
    }
}

static void run_thread(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    const struct step *s = running_program->threads[me];
    uint64_t last = 0;
    for (; s < running_program->threads[me] + STEPS && s->action != END; s++) {
        uint64_t value = do_step(s, last);
        if (!gives_value(s->action))
            continue;
        last = value;
        if (states[me].count == REGISTERS)
            abort();
        states[me].registers[states[me].count++] = value;
    }
}

static void set_up(const void *arguments)
{
    static const char *const names[THREADS] = { "P0", "P1", "P2", "P3" };
    running_program = arguments;
    memset(words, 0, sizeof words);
    memset(states, 0, sizeof states);
    for (unsigned i = 0; i < WORDS; i++)
        checker_name(&words[i], "%c", "xyz"[i]);
    for (unsigned i = 0; i < THREADS && running_program->threads[i][0].action != END; i++)
        checker_spawn(names[i], run_thread, (void *)(uintptr_t)i);
    if (running_program->flags & ALLOW_SLEEP)
        checker_allow_sleep();
    if (running_program->flags & ALLOW_TIMEOUTS)
        checker_allow_timeouts();
    if (running_program->flags & REFUSE_BARRIERS)
        checker_refuse_barriers();
}

/* ----------------------------------------------------------------------------- sets of outcomes */

struct outcome_set {
    char text[OUTCOMES][OUTCOME_BYTES];
    unsigned count;
};

static struct outcome_set *collected; /* by the search that runs */

static void add_outcome(struct outcome_set *set, const char *text)
{
    for (unsigned i = 0; i < set->count; i++)
        if (strcmp(set->text[i], text) == 0)
            return;
    if (set->count == OUTCOMES || strlen(text) >= OUTCOME_BYTES) {
        puts("too many outcomes");
        exit(CHECKER_LIMIT);
    }
    strcpy(set->text[set->count++], text);
}

static void collect(const void *arguments)
{
    const struct program *p = arguments;
    char text[200];
    size_t length = 0;
    for (unsigned i = 0; i < THREADS && p->threads[i][0].action != END; i++) {
        if (i > 0)
            text[length++] = ' ';
        for (unsigned r = 0; r < states[i].count && !checker_killed(i); r++)
            text[length++] = (char)('0' + states[i].registers[r] % 10);
        if (checker_killed(i))
            text[length++] = 'K';
        if (checker_asleep(i))
            text[length++] = 'Z';
    }
    text[length] = '\0';
    if (p->flags & SHOW_MEMORY)
        snprintf(text + length, sizeof text - length, " ; %u%u%u", (unsigned)words[X] % 10,
                 (unsigned)words[Y] % 10, (unsigned)words[Z] % 10);
    add_outcome(collected, text);
}

static bool contains(const struct outcome_set *set, const char *text)
{
    for (unsigned i = 0; i < set->count; i++)
        if (strcmp(set->text[i], text) == 0)
            return true;
    return false;
}

/* Prints what is in A and not in B; true if nothing is. */
static bool is_subset(const struct outcome_set *a, const struct outcome_set *b, const char *what)
{
    bool all = true;
    for (unsigned i = 0; i < a->count; i++) {
        if (contains(b, a->text[i]))
            continue;
        printf("  %s: %s\n", what, a->text[i]);
        all = false;
    }
    return all;
}

static void parse_outcomes(struct outcome_set *set, const char *text)
{
    char one[OUTCOME_BYTES];
    set->count = 0;
    for (;;) {
        size_t length = strcspn(text, "|");
        snprintf(one, sizeof one, "%.*s", (int)length, text);
        add_outcome(set, one);
        if (text[length] == '\0')
            return;
        text += length + 1;
    }
}

static struct checker_result search(const struct program *p, struct outcome_set *set,
                                    bool unreduced)
{
    struct checker_test test = { .name = p->name, .setup = set_up, .check = collect,
                                 .arguments = p };
    struct checker_options options = { .unreduced = unreduced, .quiet = true };
    set->count = 0;
    collected = set;
    return checker_explore(&test, &options);
}

/* ----------------------------------------------------------------------------- the litmus tests */

#define LD(word, order) { LOAD, word, 0, CHECKER_##order }
#define ST(word, value, order) { STORE, word, value, CHECKER_##order }
#define XCHG(word, value, order) { EXCHANGE, word, value, CHECKER_##order }
#define FADD(word, order) { ADD, word, 1, CHECKER_##order }
#define CAS(word, value, order) { COMPARE, word, value, CHECKER_##order }
#define FN(order) { FENCE, X, 0, CHECKER_##order }
#define DO(action, word, value) { action, word, value, CHECKER_RELAXED }

static const struct program programs[] = {
    { "store buffering, relaxed", 0,
      { { ST(X, 1, RELAXED), LD(Y, RELAXED) }, { ST(Y, 1, RELAXED), LD(X, RELAXED) } },
      "0 0|0 1|1 0|1 1" },
    { "store buffering, release and acquire", 0,
      { { ST(X, 1, RELEASE), LD(Y, ACQUIRE) }, { ST(Y, 1, RELEASE), LD(X, ACQUIRE) } },
      "0 0|0 1|1 0|1 1" },
    { "store buffering, seq_cst fences", 0,
      { { ST(X, 1, RELAXED), FN(SEQ_CST), LD(Y, RELAXED) },
        { ST(Y, 1, RELAXED), FN(SEQ_CST), LD(X, RELAXED) } },
      "0 1|1 0|1 1" },
    { "store buffering, one seq_cst fence", 0,
      { { ST(X, 1, RELAXED), FN(SEQ_CST), LD(Y, RELAXED) },
        { ST(Y, 1, RELAXED), FN(ACQ_REL), LD(X, RELAXED) } },
      "0 0|0 1|1 0|1 1" },
    { "store buffering, barrier in all threads", 0,
      { { ST(X, 1, RELAXED), DO(BARRIER, X, 0), LD(Y, RELAXED) },
        { ST(Y, 1, RELAXED), LD(X, RELAXED) } },
      "0 1|1 0|1 1" },
    { "store buffering, barrier that is refused", REFUSE_BARRIERS,
      { { ST(X, 1, RELAXED), DO(BARRIER, X, 0), LD(Y, RELAXED) },
        { ST(Y, 1, RELAXED), LD(X, RELAXED) } },
      "0 0|0 1|1 0|1 1" },
    { "two barriers in all threads at once, a third thread between them", SHOW_MEMORY,
      { { ST(Y, 2, RELEASE), DO(BARRIER, X, 0) }, { DO(BARRIER, X, 0), FADD(Y, ACQ_REL) },
        { LD(Y, RELAXED) } },
      " 0 0 ; 020| 0 1 ; 020| 0 2 ; 020| 2 0 ; 030| 2 2 ; 030| 2 3 ; 030" },
    { "message passing, relaxed", 0,
      { { ST(X, 1, RELAXED), ST(Y, 1, RELAXED) }, { LD(Y, RELAXED), LD(X, RELAXED) } },
      " 00| 01| 10| 11" },
    { "message passing, release and acquire", 0,
      { { ST(X, 1, RELAXED), ST(Y, 1, RELEASE) }, { LD(Y, ACQUIRE), LD(X, RELAXED) } },
      " 00| 01| 11" },
    { "message passing, release only", 0,
      { { ST(X, 1, RELAXED), ST(Y, 1, RELEASE) }, { LD(Y, RELAXED), LD(X, RELAXED) } },
      " 00| 01| 10| 11" },
    { "message passing, fences", 0,
      { { ST(X, 1, RELAXED), FN(RELEASE), ST(Y, 1, RELAXED) },
        { LD(Y, RELAXED), FN(ACQUIRE), LD(X, RELAXED) } },
      " 00| 01| 11" },
    { "message passing, the release fence after", 0,
      { { ST(X, 1, RELAXED), ST(Y, 1, RELAXED), FN(RELEASE) },
        { LD(Y, RELAXED), FN(ACQUIRE), LD(X, RELAXED) } },
      " 00| 01| 10| 11" },
    { "message passing, the reader's barrier in all threads", 0,
      { { ST(X, 1, RELAXED), ST(Y, 1, RELAXED) },
        { LD(Y, RELAXED), DO(BARRIER, X, 0), LD(X, RELAXED) } },
      " 00| 01| 11" },
    { "seqlock writer, a release store as the mark is not enough", 0,
      { { ST(Y, 1, RELEASE), ST(X, 1, RELAXED) },
        { LD(X, RELAXED), FN(ACQUIRE), LD(Y, RELAXED) } },
      " 00| 01| 10| 11" },
    { "seqlock writer, a release fence after the mark", 0,
      { { ST(Y, 1, RELAXED), FN(RELEASE), ST(X, 1, RELAXED) },
        { LD(X, RELAXED), FN(ACQUIRE), LD(Y, RELAXED) } },
      " 00| 01| 11" },
    { "load buffering is not found", 0,
      { { LD(X, RELAXED), ST(Y, 1, RELAXED) }, { LD(Y, RELAXED), ST(X, 1, RELAXED) } },
      "0 0|0 1|1 0" },
    { "independent reads of independent writes, acquire", 0,
      { { ST(X, 1, RELEASE) }, { ST(Y, 1, RELEASE) },
        { LD(X, ACQUIRE), LD(Y, ACQUIRE) }, { LD(Y, ACQUIRE), LD(X, ACQUIRE) } },
      "  00 00|  00 01|  00 10|  00 11|  01 00|  01 01|  01 10|  01 11|"
      "  10 00|  10 01|  10 10|  10 11|  11 00|  11 01|  11 10|  11 11" },
    { "independent reads of independent writes, seq_cst fences", 0,
      { { ST(X, 1, RELAXED) }, { ST(Y, 1, RELAXED) },
        { LD(X, RELAXED), FN(SEQ_CST), LD(Y, RELAXED) },
        { LD(Y, RELAXED), FN(SEQ_CST), LD(X, RELAXED) } },
      "  00 00|  00 01|  00 10|  00 11|  01 00|  01 01|  01 10|  01 11|"
      "  10 00|  10 01|  10 11|  11 00|  11 01|  11 10|  11 11" },
    { "coherence of two reads", 0,
      { { ST(X, 1, RELAXED), ST(X, 2, RELAXED) }, { LD(X, RELAXED), LD(X, RELAXED) } },
      " 00| 01| 02| 11| 12| 22" },
    { "coherence of two writers", SHOW_MEMORY,
      { { ST(X, 1, RELAXED) }, { ST(X, 2, RELAXED) }, { LD(X, RELAXED), LD(X, RELAXED) } },
      "  00 ; 100|  00 ; 200|  01 ; 100|  01 ; 200|  02 ; 100|  02 ; 200|"
      "  11 ; 100|  11 ; 200|  12 ; 200|  21 ; 100|  22 ; 100|  22 ; 200" },
    { "coherence of a write after a read", SHOW_MEMORY,
      { { LD(X, RELAXED), ST(X, 1, RELAXED) }, { ST(X, 2, RELAXED) } },
      "0  ; 100|0  ; 200|2  ; 100" },
    { "2+2W, relaxed", SHOW_MEMORY,
      { { ST(X, 1, RELAXED), ST(Y, 2, RELAXED) }, { ST(Y, 1, RELAXED), ST(X, 2, RELAXED) } },
      "  ; 110|  ; 120|  ; 210|  ; 220" },
    { "2+2W, seq_cst fences", SHOW_MEMORY,
      { { ST(X, 1, RELAXED), FN(SEQ_CST), ST(Y, 2, RELAXED) },
        { ST(Y, 1, RELAXED), FN(SEQ_CST), ST(X, 2, RELAXED) } },
      "  ; 120|  ; 210|  ; 220" },
    { "S, release and acquire", SHOW_MEMORY,
      { { ST(X, 2, RELAXED), ST(Y, 1, RELEASE) }, { LD(Y, ACQUIRE), ST(X, 1, RELAXED) } },
      " 0 ; 110| 0 ; 210| 1 ; 110" },
    { "R, seq_cst fences", SHOW_MEMORY,
      { { ST(X, 1, RELAXED), FN(SEQ_CST), ST(Y, 1, RELAXED) },
        { ST(Y, 2, RELAXED), FN(SEQ_CST), LD(X, RELAXED) } },
      " 0 ; 110| 1 ; 110| 1 ; 120" },
    { "causality through a third thread, release and acquire", 0,
      { { ST(X, 1, RELAXED), ST(Y, 1, RELEASE) }, { LD(Y, ACQUIRE), ST(Z, 1, RELEASE) },
        { LD(Z, ACQUIRE), LD(X, RELAXED) } },
      " 0 00| 0 01| 0 10| 0 11| 1 00| 1 01| 1 11" },
    { "atomicity of read-modify-writes", SHOW_MEMORY,
      { { FADD(X, RELAXED) }, { FADD(X, RELAXED) }, { FADD(X, RELAXED) } },
      "0 1 2 ; 300|0 2 1 ; 300|1 0 2 ; 300|2 0 1 ; 300|1 2 0 ; 300|2 1 0 ; 300" },
    { "exactly one compare-exchange wins", SHOW_MEMORY,
      { { CAS(X, 1, ACQ_REL) }, { CAS(X, 2, ACQ_REL) } },
      "0 1 ; 100|2 0 ; 200" },
    { "a store does not split a read-modify-write", SHOW_MEMORY,
      { { FADD(X, RELAXED) }, { ST(X, 5, RELAXED) } },
      "0  ; 500|5  ; 600" },
    { "store buffering, read-modify-writes are no fences", 0,
      { { XCHG(X, 1, ACQ_REL), LD(Y, ACQUIRE) }, { XCHG(Y, 1, ACQ_REL), LD(X, ACQUIRE) } },
      "00 00|00 01|01 00|01 01" },
    { "a release sequence goes on through a relaxed read-modify-write", 0,
      { { ST(X, 1, RELAXED), ST(Y, 1, RELEASE) }, { FADD(Y, RELAXED) },
        { LD(Y, ACQUIRE), DO(ASSUME, Y, 2), LD(X, RELAXED) } },
      " 1 21" },
    { "a release sequence ends at a relaxed store", 0,
      { { ST(X, 1, RELAXED), ST(Y, 1, RELEASE), ST(Y, 2, RELAXED) },
        { LD(Y, ACQUIRE), DO(ASSUME, Y, 2), LD(X, RELAXED) } },
      " 20| 21" },
    { "an acquire fence takes up earlier relaxed loads", 0,
      { { ST(X, 1, RELAXED), ST(Y, 1, RELEASE) },
        { LD(Y, RELAXED), FN(ACQUIRE), LD(X, RELAXED) } },
      " 00| 01| 11" },
    { "a killed thread leaves what it stored", SHOW_MEMORY,
      { { DO(MORTAL, X, 0), ST(X, 1, RELAXED), ST(Y, 1, RELAXED) } },
      "K ; 000|K ; 100|K ; 110| ; 110" },
    { "a killed thread's stores may be seen in any order, but not after its end", 0,
      { { DO(MORTAL, X, 0), ST(X, 1, RELAXED), ST(Y, 1, RELAXED) },
        { LD(Y, RELAXED), LD(X, RELAXED), DO(AWAIT, X, 0), LD(X, RELAXED) } },
      " 0001| 0101| 1001| 1101|K 0010|K 0011|K 0111|K 1011|K 1111" },
    { "futex, the wake is unconditional", 0,
      { { ST(X, 1, RELAXED), DO(WAKE, X, 0) }, { DO(WAIT, X, 0) } },
      " 0| 1" },
    { "futex, the waker asks without a fence: a wake-up is lost", ALLOW_SLEEP,
      { { ST(X, 1, RELAXED), LD(Y, RELAXED), DO(WAKE_IF, X, 0) },
        { ST(Y, 1, RELAXED), DO(WAIT, X, 0) } },
      "0 0|0 Z|1 0|1 1" },
    { "futex, one fence only: a wake-up is lost", ALLOW_SLEEP,
      { { ST(X, 1, RELAXED), LD(Y, RELAXED), DO(WAKE_IF, X, 0) },
        { ST(Y, 1, RELAXED), FN(SEQ_CST), DO(WAIT, X, 0) } },
      "0 0|0 Z|1 0|1 1" },
    { "futex, both fences: none is lost", 0,
      { { ST(X, 1, RELAXED), FN(SEQ_CST), LD(Y, RELAXED), DO(WAKE_IF, X, 0) },
        { ST(Y, 1, RELAXED), FN(SEQ_CST), DO(WAIT, X, 0) } },
      "0 0|1 0|1 1" },
    { "futex, the sleeper's barrier in all threads: none is lost", 0,
      { { ST(X, 1, RELAXED), LD(Y, RELAXED), DO(WAKE_IF, X, 0) },
        { ST(Y, 1, RELAXED), DO(BARRIER, X, 0), DO(WAIT, X, 0) } },
      "0 0|1 0|1 1" },
    { "futex, a lost wake-up is a violation", 0,
      { { ST(X, 1, RELAXED), LD(Y, RELAXED), DO(WAKE_IF, X, 0) },
        { ST(Y, 1, RELAXED), DO(WAIT, X, 0) } },
      NULL },
    { "futex, a sleeper may time out", ALLOW_TIMEOUTS | ALLOW_SLEEP,
      { { ST(X, 1, RELAXED) }, { DO(WAIT, X, 0) } },
      " 0| 2| Z" },
    { "plain accesses, ordered by release and acquire", 0,
      { { DO(WRITE, X, 1), ST(Y, 1, RELEASE) },
        { LD(Y, ACQUIRE), DO(ASSUME, Y, 1), DO(READ, X, 0) } },
      " 11" },
    { "plain accesses, a race", 0,
      { { DO(WRITE, X, 1), ST(Y, 1, RELAXED) },
        { LD(Y, ACQUIRE), DO(ASSUME, Y, 1), DO(READ, X, 0) } },
      NULL },
    { "plain accesses, a read and a later write race", 0,
      { { DO(READ, X, 0), ST(Y, 1, RELAXED) },
        { LD(Y, ACQUIRE), DO(ASSUME, Y, 1), DO(WRITE, X, 1) } },
      NULL },
    { "plain accesses, two reads do not race", 0,
      { { DO(READ, X, 0) }, { DO(READ, X, 0) } },
      "0 0" },
    { "plain accesses, seq_cst fences alone order nothing", 0,
      { { DO(WRITE, X, 1), FN(SEQ_CST) }, { FN(SEQ_CST), DO(READ, X, 0) } },
      NULL },
};

/* Does one search of P give the EXPECTED set, or a violation where there is none? */
static bool search_gives(const struct program *p, const struct outcome_set *expected,
                         bool unreduced)
{
    static struct outcome_set found;
    const char *way = unreduced ? "unreduced search" : "reduced search";
    struct checker_result r = search(p, &found, unreduced);
    if (p->outcomes == NULL) {
        if (r.status == CHECKER_VIOLATION)
            return true;
        printf("  %s: no violation found\n", way);
        return false;
    }
    if (r.status != CHECKER_VERIFIED) {
        printf("  %s: a violation\n", way);
        return false;
    }
    bool same = is_subset(&found, expected, "not allowed, but found");
    return is_subset(expected, &found, "allowed, but not found") && same;
}

static bool run_program(const struct program *p)
{
    static struct outcome_set expected;
    if (p->outcomes != NULL)
        parse_outcomes(&expected, p->outcomes);
    bool reduced = search_gives(p, &expected, false), unreduced = search_gives(p, &expected, true);
    printf("%-6s %s\n", reduced && unreduced ? "ok" : "FAILED", p->name);
    return reduced && unreduced;
}

/* ------------------------------------------------------------------------------ random programs */

static uint64_t random_state;

/* xorshift64*, Vigna 2016: from 0 to LIMIT - 1. */
static unsigned random_below(unsigned limit)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (unsigned)((random_state * 2685821657736338717u) >> 40) % limit;
}

static struct step random_step(bool kernel)
{
    static const enum checker_order load_orders[] = { CHECKER_RELAXED, CHECKER_ACQUIRE };
    static const enum checker_order store_orders[] = { CHECKER_RELAXED, CHECKER_RELEASE };
    static const enum checker_order fences[] = { CHECKER_ACQUIRE, CHECKER_RELEASE,
                                                 CHECKER_SEQ_CST, CHECKER_SEQ_CST };
    struct step s = { .word = random_below(2) ? X : Y, .value = 1 + random_below(2) };
    unsigned dice = random_below(kernel ? 20 : 13);
    if (dice < 5) {
        s.action = LOAD;
        s.order = load_orders[random_below(2)];
    } else if (dice < 9) {
        s.action = STORE;
        s.order = store_orders[random_below(2)];
    } else if (dice < 11) {
        s.action = FENCE;
        s.order = fences[random_below(4)];
    } else if (dice < 13) {
        s.action = (enum action)(EXCHANGE + random_below(3));
        s.order = random_below(2) ? CHECKER_ACQ_REL : CHECKER_RELAXED;
    } else if (dice < 16) {
        s.action = BARRIER;
    } else if (dice < 18) {
        s.action = random_below(2) ? WAKE : WAKE_IF;
    } else {
        s.action = WAIT;
        s.value = random_below(2);
    }
    return s;
}

/* 2 or 3 threads, 7 or 8 operations together; with the KERNEL's part too, or without. */
static void make_random_program(struct program *p, bool kernel)
{
    unsigned threads = 2 + random_below(2), steps = threads == 2 ? 4 : kernel ? 2 : 3;
    memset(p, 0, sizeof *p);
    p->name = "random";
    p->flags = SHOW_MEMORY | ALLOW_SLEEP;
    for (unsigned i = 0; i < threads; i++) {
        unsigned at = 0;
        if (kernel && random_below(4) == 0)
            p->threads[i][at++] = (struct step){ .action = MORTAL };
        for (unsigned n = 0; n < steps; n++)
            p->threads[i][at++] = random_step(kernel);
    }
    if (kernel && random_below(4) == 0)
        p->threads[threads - 1][1] = (struct step){ .action = AWAIT };
}

static void print_program(const struct program *p)
{
    static const char *const actions[] = { "end", "load", "store", "exchange", "add", "compare",
                                           "fence", "barrier", "wait", "wake", "wake_if", "mortal",
                                           "await", "assume", "read", "write" };
    static const char *const orders[] = { "relaxed", "acquire", "release", "acq_rel", "seq_cst" };
    for (unsigned i = 0; i < THREADS; i++)
        for (const struct step *s = p->threads[i]; s->action != END; s++)
            printf("    P%u: %s %c %u %s\n", i, actions[s->action], "xyz"[s->word],
                   (unsigned)s->value, orders[s->order]);
}

/* Do both searches find the same outcomes of a random program? */
static bool run_random(uint64_t seed, bool kernel)
{
    static struct outcome_set reduced, unreduced;
    struct program p;
    random_state = seed * 2654435761u + 88172645463325252u;
    for (unsigned i = 0; i < 10; i++)
        random_below(2);
    make_random_program(&p, kernel);
    struct checker_result r = search(&p, &reduced, false);
    search(&p, &unreduced, true);
    bool same = is_subset(&reduced, &unreduced, "only in the reduced search");
    same = is_subset(&unreduced, &reduced, "only in the unreduced search") && same;
    if (!same || r.status != CHECKER_VERIFIED) {
        printf("FAILED random program, seed %llu%s:\n", (unsigned long long)seed,
               kernel ? ", with kernel" : "");
        print_program(&p);
    }
    return same;
}

int main(int argc, char **argv)
{
    unsigned failed = 0, randoms = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 40;
    setvbuf(stdout, NULL, _IOLBF, 0);
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++)
        failed += !run_program(&programs[i]);
    for (uint64_t seed = first; seed < first + randoms; seed++)
        failed += !run_random(seed, seed % 2 == 0);
    printf("%zu litmus tests, %u random programs, %u failed\n",
           sizeof programs / sizeof programs[0], randoms, failed);
    return failed == 0 ? CHECKER_VERIFIED : CHECKER_VIOLATION;
}
