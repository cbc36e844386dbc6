/* checker.c: see checker.h for what it does, and for the semantics it plays.
 *
 * THE SEARCH. An execution is fixed by the choices made on its way: which message a load reads,
 * where a store goes in its location's order, whether a mortal thread dies here, in which order
 * seq_cst fences come. The walk is depth first: run, then change the last choice that has an
 * alternative left, and run again from the start.
 *
 * Interleavings as such are no choice. In the machine of views a thread's step touches nothing but
 * its own views and one location's messages, so that most steps commute, and the search needs only
 * one order of each pair that does:
 *
 *   1. A store commutes to the left over every step of another thread: that step could have run
 *      after the store with the same result, since a reader may still read what is older, and all
 *      free times on the line remain free (a store only never comes between a read-modify-write
 *      and what it read, whichever ran first). So a thread that arrives at a store just does it,
 *      and chooses among all places. Likewise a plain access (if a conflicting access is not
 *      ordered before it, it is a race, found at the later of the two), the wait for a thread that
 *      has ended, and a death: whether a mortal thread dies before an operation is chosen once, on
 *      arrival there, and only if the others can have noticed something of it since the last time.
 *   2. A load of a message that exists commutes with every step of another thread, in both
 *      directions. So a thread that arrives at a load takes one of the messages there are, or is
 *      *deferred*: it gives way, and may then read only a message made later. Every pair of a load
 *      and a message is met once. A read-modify-write is the same: of two that read one message,
 *      the second must read another. A seq_cst fence is taken now or deferred until another one
 *      was executed; a futex wait until a wake or a new message, a wake until a wait.
 *      If no thread can go on and one is still deferred, what it waited for did not come: the
 *      execution is abandoned, as *pruned*.
 *   3. Deferring is tried only if it can matter. While the other choices of a load are explored,
 *      the search sees whether another thread ever writes that location (or tries a
 *      read-modify-write on it) after the load. If none does, deferring it cannot end well. This
 *      is the backtracking of dynamic partial-order reduction (Flanagan and Godefroid, POPL 2005).
 *      Why it misses nothing: let G be an execution in which load r must be deferred, to read from
 *      the store w; let P be all that happens before w in G (program order, reads-from, the order
 *      of fences). P does not contain r, and r disturbs none of P, so "r reads something old, then
 *      P, then w" is possible, and by induction on the height of the tree the search below r gets
 *      to w: it can follow P step by step, deferring whoever would read too early (by induction
 *      those deferrals were found), and the other threads cannot prevent it. They could by taking
 *      a message first that a read-modify-write of P wants, or a place before a seq_cst fence of
 *      P; but then that operation of P is executed later, which is seen in the same way and makes
 *      the search defer the intruder.
 *      This argument needs that a thread stopped by an assumption does not stop the others.
 *   4. A seq_cst fence that would add nothing to the global view is not deferred at all: by coming
 *      later it helps nobody. Other fences touch the thread's own views only: no choice.
 *
 * An asymmetric barrier makes every other thread execute a seq_cst fence. Its place is chosen by
 * that thread, before each of its operations while the request is open. As the request may come
 * later in this execution than the operation it should precede, a thread may also be deferred
 * until a request comes (with rule 3: only if one does). Threads that are asleep or have ended
 * need no point of their own: their fence is part of the end of the barrier. Two points are not
 * tried, as the one before forbids less: right after a load that could have read the same after the
 * fence (the others see less of this thread), and right after a seq_cst fence of the thread's own
 * (which could have come as late as the one asked for).
 *
 * With `unreduced` none of this is used: before each operation any thread may be next, die, or
 * execute a requested fence. litmus.c compares the two on random programs.
 */
#include "checker.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

enum {
    THREADS = 8,
    LOCATIONS = 96,
    MESSAGES = 2000,   /* in one execution */
    CHOICES = 4000,    /* in one execution */
    OPERATIONS = 4000, /* in one execution */
    NAMES = 256,
    NAME_BYTES = 40,
    HASH_SLOTS = 512, /* a power of two, well above LOCATIONS */
    STACK_BYTES = 256 * 1024,
};

/* Distance of two stores at the end of a time line; a store in between takes the middle, so that 20
 * fit one inside the other, and 2^12 one after the other. */
#define TIME_STEP ((uint32_t)1 << 20)

/* ---------------------------------------------------------------------------------------- types */

/* What a thread (or the reader of a message) must respect: the oldest message of each location that
 * may still be read, and how much of each thread happened before (for data races only). */
struct view {
    uint32_t time[LOCATIONS];
    uint32_t clock[THREADS];
};

struct message {
    uint64_t value;
    uint32_t time;
    unsigned event;      /* the operation that made it; 0: the initial value */
    bool follows_source; /* a read-modify-write: right after what it read, for ever */
    struct view view;
};

enum access { PLAIN_LOAD, PLAIN_STORE, ATOMIC_LOAD, ATOMIC_STORE, ACCESSES };

/* A word that some thread touched. Numbers and addresses last for the whole search, the rest for
 * one execution. Message number L is the initial one of location L. */
struct location {
    uintptr_t address;
    bool touched;
    unsigned count;                     /* messages on its time line ... */
    uint16_t order[MESSAGES];           /* ... oldest first */
    uint32_t last[ACCESSES][THREADS];   /* clock of each thread's last access of each kind */
    unsigned waits, wakes;              /* futex operations so far */
    struct view woken;                  /* what its wakes have shown to later waits */
};

enum operation_kind {
    START,
    LOAD,
    MODIFY, /* read-modify-write */
    STORE,
    PLAIN,
    SC_FENCE,
    BARRIER,
    WAIT,
    WAKE,
    WOKEN,
    WAIT_END,
};

/* The operation a thread is about to execute. */
struct operation {
    enum operation_kind kind;
    unsigned location;
    bool compares; /* MODIFY: only if the value is EXPECTED */
    uint64_t expected;
    unsigned target; /* WAIT_END; a fence for a barrier: whose */
};

enum thread_state { RUNNING, ENDED, KILLED, STUCK, ASLEEP };

struct thread {
    const char *name;
    void (*function)(void *argument);
    void *argument;
    unsigned number;
    enum thread_state state;
    bool mortal;
    bool left_mark; /* others may have noticed it since a death was last considered */
    unsigned pauses;
    struct operation op;
    bool deferred;         /* gave way: only what is new since then counts */
    unsigned new_messages; /* since: messages with this number or a higher one are new */
    unsigned seen_fences, seen_waits, seen_wakes;
    unsigned requests; /* bit I: a barrier of thread I asks for a fence */
    unsigned declined; /* likewise: the fence asked for comes after this operation */
    bool serving;      /* is executing such a fence */
    bool just_fenced;  /* its last operation was a seq_cst fence of its own */
    bool just_loaded;  /* its last operation was a load, of a message of this place and time */
    unsigned loaded_location;
    uint32_t loaded_time;
    struct view current, acquired, released;
};

/* A place where the search can go several ways. */
struct choice {
    uint16_t base;   /* ways known on arrival */
    uint16_t count;  /* the same, or one more: deferring */
    uint16_t chosen;
    uint16_t thread; /* who might be deferred */
    int next;        /* in the list of its cause */
};

/* Causes to defer that may turn up later: a write to (or wake on) the location with that number, a
 * wait on it, a fence, a request for a fence. */
enum { CAUSE_WAIT = LOCATIONS, CAUSE_FENCE = 2 * LOCATIONS, CAUSE_REQUEST, CAUSES };

enum deferral { NEVER, IF_CAUSED, ALWAYS };

enum outcome { COMPLETE, BLOCKED, PRUNED, VIOLATION, RESTART };

enum stop { NOT_STOPPED, FAILED, REDUNDANT, FIRST_BARRIER };

/* ---------------------------------------------------------------------------------------- state */

/* Lasts for one search. */
static struct {
    struct choice path[CHOICES];
    unsigned length;
    bool unreduced;
    bool tracing;
    bool barriers; /* the test uses asymmetric barriers */
    struct checker_result result;
} search;

/* Lasts for one execution, but for the numbers of locations. */
static struct {
    struct thread threads[THREADS];
    struct location locations[LOCATIONS];
    struct message messages[LOCATIONS + MESSAGES];
    struct view fenced; /* the global view of the seq_cst fences */
    unsigned thread_count, location_count, message_count;
    unsigned events, fences;
    unsigned depth;            /* choices made so far */
    int causes[CAUSES];        /* heads of lists of choices that may yet be deferred */
    struct thread *running;    /* NULL: setup, check or the scheduler */
    enum stop stop;            /* set: this execution ends here */
    bool allow_sleep, allow_timeouts, refuse_barriers;
    unsigned pauses;
} machine;

static uint16_t location_of_slot[HASH_SLOTS]; /* number + 1; 0: free */

static struct {
    uintptr_t address;
    char text[NAME_BYTES];
} names[NAMES];
static unsigned name_count;

/* One fiber for each thread; the scheduler, and the test's setup and check, run on the program's
 * own stack. */
static struct {
    ucontext_t scheduler, thread[THREADS];
    jmp_buf callback; /* the way out of setup and check when they fail */
    char stacks[THREADS][STACK_BYTES] __attribute__((aligned(64)));
} fibers;

/* --------------------------------------------------------------------------- fibers and failing */

/* Ends the program: the test does not fit the checker. */
_Noreturn static void fail_limit(const char *what, unsigned limit)
{
    printf("limit: %s (%u)\n", what, limit);
    exit(CHECKER_LIMIT);
}

static struct thread *next_runnable(void);

/* Leaves the running thread's fiber for the next one, or for the scheduler if there is none.
 * Returns when the thread is resumed, if ever. */
static void leave(void)
{
    struct thread *t = machine.running, *next = NULL;
    if (machine.stop == NOT_STOPPED && !search.unreduced)
        next = next_runnable();
    if (next == t)
        return;
    machine.running = next;
    swapcontext(&fibers.thread[t->number],
                next ? &fibers.thread[next->number] : &fibers.scheduler);
}

/* The execution, or this thread's part in it, is over. */
_Noreturn static void leave_for_good(void)
{
    if (machine.running == NULL)
        longjmp(fibers.callback, 1);
    leave();
    abort();
}

/* The trace goes to standard output while a violation is replayed. */
static void trace(const struct thread *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void trace(const struct thread *t, const char *format, ...)
{
    if (!search.tracing)
        return;
    va_list arguments;
    printf("  %3u  %-10s ", machine.events, t ? t->name : "");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

/* The execution is a violation; also where no fiber runs. */
static void set_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void set_failed(const char *format, ...)
{
    machine.stop = FAILED;
    if (!search.tracing)
        return;
    va_list arguments;
    printf("VIOLATION: ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

void checker_fail(const char *file, int line, const char *text)
{
    const char *who = machine.running ? machine.running->name : "outside threads";
    set_failed("%s:%d: %s (%s)", file, line, text, who);
    leave_for_good();
}

void checker_note(const char *format, ...)
{
    char text[200];
    va_list arguments;
    if (!search.tracing)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    trace(machine.running, "-- %s", text);
}

void checker_name(const volatile void *address, const char *format, ...)
{
    if (!search.tracing)
        return;
    if (name_count == NAMES)
        fail_limit("names", NAMES);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(names[name_count].text, NAME_BYTES, format, arguments);
    va_end(arguments);
    names[name_count++].address = (uintptr_t)address;
}

/* For traces; valid until the next call but one. */
static const char *name_of(unsigned location)
{
    static char unnamed[2][NAME_BYTES];
    static unsigned turn;
    uintptr_t address = machine.locations[location].address;
    if (!search.tracing)
        return "";
    for (unsigned i = name_count; i-- > 0;)
        if (names[i].address == address)
            return names[i].text;
    turn ^= 1;
    snprintf(unnamed[turn], NAME_BYTES, "word %u (%#llx)", location, (unsigned long long)address);
    return unnamed[turn];
}

/* -------------------------------------------------------------------------- the tree of choices */

/* The choice at this depth of the path: an old one when replaying, else a new one. */
static struct choice *next_choice(unsigned base, unsigned count)
{
    if (machine.depth == CHOICES)
        fail_limit("choices in one execution (a loop without bound?)", CHOICES);
    struct choice *c = &search.path[machine.depth];
    if (machine.depth == search.length) {
        *c = (struct choice){ .base = (uint16_t)base, .count = (uint16_t)count, .next = -1 };
        search.length++;
    } else if (c->base != base) {
        fail_limit("the test is not deterministic, at choice", machine.depth);
    }
    machine.depth++;
    return c;
}

/* Which of COUNT ways to go, from 0. */
static unsigned choose(unsigned count)
{
    return count == 1 ? 0 : next_choice(count, count)->chosen;
}

/* Which of COUNT ways THREAD goes, or COUNT: it is deferred. With IF_CAUSED that way is opened when
 * another thread turns out to do what CAUSE stands for. */
static unsigned choose_or_defer(const struct thread *t, unsigned count, enum deferral deferral,
                                unsigned cause)
{
    struct choice *c = next_choice(count, count + (deferral == ALWAYS));
    if (deferral == IF_CAUSED && c->count == count) {
        c->thread = (uint16_t)t->number;
        c->next = machine.causes[cause];
        machine.causes[cause] = (int)(c - search.path);
    }
    return c->chosen;
}

/* THREAD did what CAUSE stands for: whoever chose before it might have been deferred until then. */
static void open_deferrals(unsigned cause, const struct thread *t)
{
    int *link = &machine.causes[cause];
    while (*link >= 0) {
        struct choice *c = &search.path[*link];
        if (c->thread == t->number) {
            link = &c->next;
        } else {
            c->count = (uint16_t)(c->base + 1);
            *link = c->next;
        }
    }
}

/* Moves to the next path; false if there is none. */
static bool advance_path(void)
{
    while (search.length > 0) {
        struct choice *last = &search.path[search.length - 1];
        if (++last->chosen < last->count)
            return true;
        search.length--;
    }
    return false;
}

/* --------------------------------------------------------------------------- views and messages */

static void join_times(struct view *into, const struct view *from)
{
    for (unsigned i = 0; i < LOCATIONS; i++)
        into->time[i] = into->time[i] > from->time[i] ? into->time[i] : from->time[i];
}

static void join(struct view *into, const struct view *from)
{
    join_times(into, from);
    for (unsigned i = 0; i < THREADS; i++)
        into->clock[i] = into->clock[i] > from->clock[i] ? into->clock[i] : from->clock[i];
}

/* What THREAD learns from the kernel it may use at once. */
static void learn(struct thread *t, const struct view *from)
{
    join(&t->current, from);
    join(&t->acquired, from);
}

static uint64_t read_memory(const void *address)
{
    uint64_t value;
    memcpy(&value, address, sizeof value);
    return value;
}

static void write_memory(void *address, uint64_t value)
{
    memcpy(address, &value, sizeof value);
}

/* The number of the word at ADDRESS, a new one if it was never touched. */
static unsigned find_location(uintptr_t address)
{
    unsigned slot = (unsigned)(address >> 3) * 2654435761u >> 16;
    for (;; slot++) {
        uint16_t *entry = &location_of_slot[slot % HASH_SLOTS];
        if (*entry != 0 && machine.locations[*entry - 1].address == address)
            return *entry - 1u;
        if (*entry != 0)
            continue;
        if (machine.location_count == LOCATIONS)
            fail_limit("locations", LOCATIONS);
        machine.locations[machine.location_count].address = address;
        *entry = (uint16_t)++machine.location_count;
        return *entry - 1u;
    }
}

/* The number of the word at ADDRESS, with its initial message made. */
static unsigned touch(const void *address)
{
    unsigned number = find_location((uintptr_t)address);
    struct location *l = &machine.locations[number];
    if (((uintptr_t)address & 7) != 0)
        fail_limit("a word is not aligned to", 8);
    if (!l->touched) {
        l->touched = true;
        l->count = 1;
        l->order[0] = (uint16_t)number;
        machine.messages[number].value = read_memory(address);
    }
    return number;
}

/* Makes a message of LOCATION at index AT of its order. */
static struct message *insert_message(unsigned location, unsigned at, uint64_t value)
{
    struct location *l = &machine.locations[location];
    uint32_t before = machine.messages[l->order[at - 1]].time, time = before + TIME_STEP;
    if (machine.message_count == LOCATIONS + MESSAGES)
        fail_limit("messages in one execution", MESSAGES);
    if (at < l->count)
        time = before + (machine.messages[l->order[at]].time - before) / 2;
    if (time <= before)
        fail_limit("stores to one word, one inside the other", 20);
    memmove(&l->order[at + 1], &l->order[at], (l->count - at) * sizeof l->order[0]);
    l->order[at] = (uint16_t)machine.message_count;
    l->count++;
    struct message *m = &machine.messages[machine.message_count++];
    m->value = value;
    m->time = time;
    m->event = machine.events;
    m->follows_source = false;
    return m;
}

/* Fails if an access of kind MINE to LOCATION races with one of kind THEIRS. */
static void check_race(const struct thread *t, unsigned location, enum access theirs)
{
    const uint32_t *last = machine.locations[location].last[theirs];
    for (unsigned u = 0; u < machine.thread_count; u++)
        if (u != t->number && last[u] > t->current.clock[u])
            checker_fail(name_of(location), 0, "data race on a plain access");
}

/* Notes an access, and fails on a data race. */
static void note_access(struct thread *t, unsigned location, enum access mine)
{
    bool writes = mine == PLAIN_STORE || mine == ATOMIC_STORE;
    bool plain = mine == PLAIN_LOAD || mine == PLAIN_STORE;
    check_race(t, location, PLAIN_STORE);
    if (writes)
        check_race(t, location, PLAIN_LOAD);
    if (plain)
        check_race(t, location, ATOMIC_STORE);
    if (plain && writes)
        check_race(t, location, ATOMIC_LOAD);
    machine.locations[location].last[mine][t->number] = t->current.clock[t->number];
}

static bool acquires(enum checker_order order)
{
    return order != CHECKER_RELAXED && order != CHECKER_RELEASE;
}

static bool releases(enum checker_order order)
{
    return order != CHECKER_RELAXED && order != CHECKER_ACQUIRE;
}

/* THREAD has read M. */
static void did_read(struct thread *t, unsigned location, const struct message *m,
                     enum checker_order order)
{
    if (t->current.time[location] < m->time)
        t->current.time[location] = m->time;
    if (t->acquired.time[location] < m->time)
        t->acquired.time[location] = m->time;
    join(&t->acquired, &m->view);
    if (acquires(order))
        join(&t->current, &m->view);
    note_access(t, location, ATOMIC_LOAD);
}

/* THREAD has made M, and had read SOURCE for it if that is not NULL. */
static void did_write(struct thread *t, unsigned location, struct message *m,
                      enum checker_order order, const struct message *source)
{
    t->current.time[location] = t->acquired.time[location] = m->time;
    m->view = releases(order) ? t->current : t->released;
    m->view.time[location] = m->time;
    if (source != NULL) {
        m->follows_source = true;
        join(&m->view, &source->view);
    }
    note_access(t, location, ATOMIC_STORE);
    open_deferrals(location, t);
    t->left_mark = true;
}

/* A seq_cst fence of THREAD. What it learns from other fences are times, not happens-before. */
static void exchange_views(struct thread *t)
{
    join(&t->current, &t->acquired);
    join_times(&t->current, &machine.fenced);
    join_times(&machine.fenced, &t->current);
    join(&t->acquired, &t->current);
    t->released = t->current;
    machine.fences++;
    open_deferrals(CAUSE_FENCE, t);
}

/* ------------------------------------------------------------------ which ways an operation has */

static bool finished(const struct thread *t)
{
    return t->state == ENDED || t->state == KILLED || t->state == STUCK;
}

/* May the message at INDEX be read by a read-modify-write? Not if it succeeds and another one sits
 * right behind that message already. */
static bool can_modify(const struct operation *op, const struct location *l, unsigned index)
{
    if (op->compares && machine.messages[l->order[index]].value != op->expected)
        return true;
    return index + 1 == l->count || !machine.messages[l->order[index + 1]].follows_source;
}

/* The indices that THREAD may read, newest first: how many, and which if FOUND is not NULL. */
static unsigned readable(const struct thread *t, uint16_t *found)
{
    const struct location *l = &machine.locations[t->op.location];
    uint32_t oldest = t->current.time[t->op.location];
    bool only_new = t->deferred;
    unsigned count = 0;
    if (t->op.kind == WAIT) {
        if (oldest < l->woken.time[t->op.location])
            oldest = l->woken.time[t->op.location];
        only_new = only_new && l->wakes == t->seen_wakes;
    }
    for (unsigned i = l->count; i-- > 0 && machine.messages[l->order[i]].time >= oldest;) {
        if (only_new && l->order[i] < t->new_messages)
            continue;
        if (t->op.kind == MODIFY && !can_modify(&t->op, l, i))
            continue;
        if (found != NULL)
            found[count] = (uint16_t)i;
        count++;
    }
    return count;
}

/* The indices where THREAD's store may be put, newest first. */
static unsigned placeable(const struct thread *t, uint16_t *found)
{
    const struct location *l = &machine.locations[t->op.location];
    uint32_t oldest = t->current.time[t->op.location];
    unsigned count = 0;
    for (unsigned i = l->count; machine.messages[l->order[i - 1]].time >= oldest; i--) {
        if (i == l->count || !machine.messages[l->order[i]].follows_source) {
            if (found != NULL)
                found[count] = (uint16_t)i;
            count++;
        }
        if (i == 1)
            break;
    }
    return count;
}

/* Has every thread executed the fence that T's barrier asked for, or sleeps, or is gone? */
static bool barrier_served(const struct thread *t)
{
    for (unsigned u = 0; u < machine.thread_count; u++) {
        const struct thread *other = &machine.threads[u];
        bool asked = other->requests >> t->number & 1;
        if (asked && (search.unreduced || other->state == RUNNING))
            return false;
    }
    return true;
}

/* How many ways THREAD's operation has now; 0: it must wait. FOUND gets the indices of messages or
 * places. */
static unsigned ways(const struct thread *t, uint16_t *found)
{
    const struct location *l = &machine.locations[t->op.location];
    switch (t->op.kind) {
    case LOAD:
    case MODIFY:
    case WAIT:
        return readable(t, found);
    case STORE:
        return placeable(t, found);
    case SC_FENCE:
        return !t->deferred || machine.fences != t->seen_fences;
    case BARRIER:
        return barrier_served(t) && (!t->deferred || machine.fences != t->seen_fences);
    case WAKE:
        return !t->deferred || l->waits != t->seen_waits;
    case WAIT_END:
        return finished(&machine.threads[t->op.target]) &&
               machine.threads[t->op.target].state != STUCK;
    case START:
    case PLAIN:
    case WOKEN:
        break;
    }
    return 1;
}

/* Has the global view of the fences all that VIEW has? */
static bool nothing_to_publish(const struct view *view)
{
    for (unsigned i = 0; i < LOCATIONS; i++)
        if (view->time[i] > machine.fenced.time[i])
            return false;
    return true;
}

/* When is it worth to defer T's fence, or the end of its barrier? Not if it publishes nothing: then
 * it hinders nobody, and by coming later it could only be hindered more itself. */
static enum deferral deferral_of_fence(const struct thread *t)
{
    bool nothing = nothing_to_publish(&t->acquired); /* which holds all of `current` */
    if (t->serving && !nothing_to_publish(&machine.threads[t->op.target].current))
        nothing = false;
    for (unsigned u = 0; t->op.kind == BARRIER && u < machine.thread_count; u++) {
        const struct thread *other = &machine.threads[u];
        if ((other->requests >> t->number & 1) == 0)
            continue;
        if (other->state == ASLEEP) /* it may wake up first and execute its fence later */
            return ALWAYS;
        nothing = false;
    }
    return nothing ? NEVER : IF_CAUSED;
}

/* The same for any operation. */
static enum deferral deferral_of(const struct thread *t)
{
    switch (t->op.kind) {
    case SC_FENCE:
    case BARRIER:
        return deferral_of_fence(t);
    case LOAD:
    case MODIFY:
    case WAIT:
    case WAKE:
        return IF_CAUSED;
    case START:
    case STORE:
    case PLAIN:
    case WOKEN:
    case WAIT_END:
        break;
    }
    return NEVER;
}

/* What another thread must do later to make deferring this worth while. */
static unsigned cause_of(const struct operation *op)
{
    if (op->kind == SC_FENCE || op->kind == BARRIER)
        return CAUSE_FENCE;
    return op->kind == WAKE ? CAUSE_WAIT + op->location : op->location;
}

static bool runnable(const struct thread *t)
{
    if (t->state != RUNNING)
        return false;
    return ((t->requests & ~t->declined) != 0 && !t->serving) || ways(t, NULL) > 0;
}

static bool others_can_run(const struct thread *t)
{
    for (unsigned u = 0; u < machine.thread_count; u++)
        if (u != t->number && runnable(&machine.threads[u]))
            return true;
    return false;
}

/* --------------------------------------------------------------------- the life of an operation */

_Noreturn static void finish(struct thread *t, enum thread_state state)
{
    static const char *const words[] = { [ENDED] = "ends", [KILLED] = "is killed",
                                         [STUCK] = "is stopped by an assumption" };
    trace(t, "%s", words[state]);
    t->state = state;
    leave_for_good();
}

static unsigned take_turn(struct thread *t, uint16_t *found);

/* Would the fence for INITIATOR's barrier better have come before T's last load? Yes if the load
 * could have read the same after it: then that order forbids the others less. */
static bool comes_too_late(const struct thread *t, const struct thread *initiator)
{
    unsigned location = t->loaded_location;
    return t->just_loaded && t->loaded_time >= machine.fenced.time[location] &&
           t->loaded_time >= initiator->current.time[location];
}

/* Executes the fence that the barrier of thread INITIATOR asked for. */
static void serve(struct thread *t, unsigned initiator)
{
    struct operation interrupted = t->op;
    t->op = (struct operation){ .kind = SC_FENCE, .target = initiator };
    bool just_loaded = t->just_loaded;
    t->serving = true;
    t->deferred = false;
    take_turn(t, NULL);
    t->serving = false;
    t->just_loaded = just_loaded;
    t->deferred = false; /* the interrupted operation is after a fence now: all ways are new */
    t->op = interrupted;
    if (comes_too_late(t, &machine.threads[initiator])) {
        machine.stop = REDUNDANT;
        leave_for_good();
    }
    t->just_loaded = false;
    t->requests &= ~(1u << initiator);
    t->declined = 0; /* each other one can come after this fence */
    trace(t, "fence for the barrier of %s", machine.threads[initiator].name);
    join_times(&machine.fenced, &machine.threads[initiator].current);
    exchange_views(t);
}

/* Is it the newest message that T's last operation, a load, has read? */
static bool loaded_newest(const struct thread *t)
{
    const struct location *l = &machine.locations[t->loaded_location];
    return t->just_loaded && machine.messages[l->order[l->count - 1]].time == t->loaded_time;
}

/* Does the fence that a barrier asked for come before the next operation? */
static bool fence_comes_now(const struct thread *t)
{
    if (t->just_fenced)
        return false;
    if (!loaded_newest(t))
        return choose(2) == 1;
    /* before the load was better, unless what it read becomes stale before the fence */
    return choose_or_defer(t, 1, IF_CAUSED, t->loaded_location) == 1;
}

/* Executes fences that barriers asked for, or chooses that they come later; true if any. */
static bool serve_some(struct thread *t)
{
    bool any = false;
    while ((t->requests & ~t->declined) != 0 && !t->serving) {
        unsigned initiator = (unsigned)__builtin_ctz(t->requests & ~t->declined);
        if (fence_comes_now(t)) {
            serve(t, initiator);
            any = true;
        } else {
            t->declined |= 1u << initiator;
        }
    }
    return any;
}

/* In a test with barriers: shall the operation wait for a request that should precede it? */
static bool waits_for_request(const struct thread *t)
{
    if (!search.barriers || search.unreduced || t->just_fenced || !others_can_run(t))
        return false;
    unsigned cause = loaded_newest(t) ? t->loaded_location : (unsigned)CAUSE_REQUEST;
    return choose_or_defer(t, 1, IF_CAUSED, cause) == 1;
}

static void park_until_request(struct thread *t)
{
    struct operation interrupted = t->op;
    bool was_deferred = t->deferred;
    t->op = (struct operation){ .kind = WAIT_END, .target = t->number }; /* which never comes */
    t->deferred = true;
    leave();
    t->op = interrupted;
    t->deferred = was_deferred;
}

/* Before an operation: what barriers ask for, now or, if FRESH, later. After each fence a further
 * request may still come before the operation. */
static void settle(struct thread *t, bool fresh)
{
    for (bool waits = false;;) {
        if (serve_some(t) || fresh)
            waits = waits_for_request(t);
        if (!waits)
            return;
        fresh = false;
        park_until_request(t);
    }
}

/* A mortal thread may die here. To die before a load or a fence is to die before what comes next:
 * the others notice nothing but stores and wakes. */
static void consider_death(struct thread *t)
{
    bool pointless = !t->left_mark;
    t->left_mark = false;
    if (t->mortal && !pointless && choose(2) == 1)
        finish(t, KILLED);
}

/* THREAD arrives at an operation. */
static void arrive(struct thread *t, struct operation op)
{
    t->op = op;
    t->deferred = false;
    t->declined = 0;
    if (search.unreduced) {
        leave();
        return;
    }
    consider_death(t);
    settle(t, true);
}

/* Chooses a way of the operation; comes back when it is its turn. */
static unsigned take_turn(struct thread *t, uint16_t *found)
{
    unsigned way;
    for (;;) {
        unsigned count = ways(t, found);
        if (count > 0) {
            enum deferral deferral = search.unreduced ? NEVER : deferral_of(t);
            if (deferral == NEVER || !others_can_run(t))
                way = choose(count);
            else
                way = choose_or_defer(t, count, deferral, cause_of(&t->op));
            if (way < count)
                break;
            t->deferred = true;
            t->new_messages = machine.message_count;
            t->seen_fences = machine.fences;
            t->seen_waits = machine.locations[t->op.location].waits;
            t->seen_wakes = machine.locations[t->op.location].wakes;
        }
        leave();
        settle(t, false);
    }
    if (++machine.events > OPERATIONS)
        fail_limit("operations in one execution (a loop without bound?)", OPERATIONS);
    t->current.clock[t->number]++;
    t->just_loaded = t->just_fenced = false;
    return way;
}

/* ----------------------------------------------------------------------------------- operations */

static const char *const order_names[] = { "relaxed", "acquire", "release", "acq_rel", "seq_cst" };

uint64_t checker_load(const void *address, enum checker_order order)
{
    struct thread *t = machine.running;
    uint16_t found[MESSAGES + 1];
    if (t == NULL)
        return read_memory(address);
    unsigned location = touch(address);
    arrive(t, (struct operation){ .kind = LOAD, .location = location });
    unsigned way = take_turn(t, found);
    const struct message *m = &machine.messages[machine.locations[location].order[found[way]]];
    trace(t, "load %-9s %-18s -> %#llx   (from %u)", order_names[order], name_of(location),
          (unsigned long long)m->value, m->event);
    did_read(t, location, m, order);
    t->just_loaded = true;
    t->loaded_location = location;
    t->loaded_time = m->time;
    return m->value;
}

void checker_store(void *address, uint64_t value, enum checker_order order)
{
    struct thread *t = machine.running;
    uint16_t found[MESSAGES + 1];
    if (t == NULL) {
        write_memory(address, value);
        return;
    }
    unsigned location = touch(address);
    arrive(t, (struct operation){ .kind = STORE, .location = location });
    unsigned at = found[take_turn(t, found)];
    bool newest = at == machine.locations[location].count;
    struct message *m = insert_message(location, at, value);
    trace(t, "store %-8s %-18s <- %#llx%s", order_names[order], name_of(location),
          (unsigned long long)value, newest ? "" : "   (not the newest)");
    did_write(t, location, m, order, NULL);
}

/* What a read-modify-write does to the value it reads. */
struct modification {
    const char *name;
    bool adds, compares;
    uint64_t operand, expected;
};

/* Returns the value before. */
static uint64_t modify(void *address, const struct modification *what, enum checker_order order)
{
    struct thread *t = machine.running;
    uint16_t found[MESSAGES + 1];
    unsigned location = touch(address);
    arrive(t, (struct operation){ .kind = MODIFY, .location = location,
                                  .compares = what->compares, .expected = what->expected });
    unsigned index = found[take_turn(t, found)];
    const struct message *source = &machine.messages[machine.locations[location].order[index]];
    uint64_t old = source->value, new = what->operand + (what->adds ? old : 0);
    bool fails = what->compares && old != what->expected;
    trace(t, "%s %s %s  %#llx %s %#llx   (from %u)", what->name, order_names[order],
          name_of(location), (unsigned long long)old, fails ? "is not" : "becomes",
          (unsigned long long)(fails ? what->expected : new), source->event);
    did_read(t, location, source, fails ? CHECKER_RELAXED : order);
    open_deferrals(location, t);
    if (!fails)
        did_write(t, location, insert_message(location, index + 1, new), order, source);
    return old;
}

uint64_t checker_exchange(void *address, uint64_t value, enum checker_order order)
{
    struct modification what = { .name = "exchange", .operand = value };
    uint64_t old = read_memory(address);
    if (machine.running != NULL)
        return modify(address, &what, order);
    write_memory(address, value);
    return old;
}

uint64_t checker_fetch_add(void *address, uint64_t value, enum checker_order order)
{
    struct modification what = { .name = "fetch_add", .adds = true, .operand = value };
    uint64_t old = read_memory(address);
    if (machine.running != NULL)
        return modify(address, &what, order);
    write_memory(address, old + value);
    return old;
}

bool checker_compare_exchange(void *address, uint64_t *expected, uint64_t desired,
                              enum checker_order order)
{
    struct modification what = { .name = "compare_exchange", .compares = true,
                                 .operand = desired, .expected = *expected };
    uint64_t old = read_memory(address), wanted = *expected;
    if (machine.running != NULL)
        old = modify(address, &what, order);
    else if (old == wanted)
        write_memory(address, desired);
    *expected = old;
    return old == wanted;
}

void checker_fence(enum checker_order order)
{
    struct thread *t = machine.running;
    if (t == NULL)
        return;
    if (order == CHECKER_SEQ_CST) {
        arrive(t, (struct operation){ .kind = SC_FENCE });
        take_turn(t, NULL);
    }
    trace(t, "fence %s", order_names[order]);
    if (acquires(order))
        join(&t->current, &t->acquired);
    if (releases(order))
        t->released = t->current;
    if (order == CHECKER_SEQ_CST) {
        exchange_views(t);
        t->just_fenced = true;
    }
}

/* Asks every other thread for a fence. */
static void request_fences(const struct thread *t)
{
    if (!search.barriers) { /* the threads did not reckon with it: start the search again */
        search.barriers = true;
        machine.stop = FIRST_BARRIER;
        leave_for_good();
    }
    for (unsigned u = 0; u < machine.thread_count; u++) {
        if (u == t->number)
            continue;
        machine.threads[u].requests |= 1u << t->number;
        machine.threads[u].declined &= ~(1u << t->number);
    }
    open_deferrals(CAUSE_REQUEST, t);
}

bool checker_barrier_all(void)
{
    struct thread *t = machine.running;
    if (machine.refuse_barriers || t == NULL)
        return !machine.refuse_barriers;
    arrive(t, (struct operation){ .kind = BARRIER });
    trace(t, "barrier in all threads: begins");
    request_fences(t);
    if (search.unreduced)
        leave();
    take_turn(t, NULL);
    for (unsigned u = 0; u < machine.thread_count; u++) {
        struct thread *other = &machine.threads[u];
        if ((other->requests >> t->number & 1) != 0) { /* asleep or gone */
            other->requests &= ~(1u << t->number);
            exchange_views(other);
        }
    }
    trace(t, "barrier in all threads: ends");
    exchange_views(t);
    t->left_mark = true;
    return true;
}

uint64_t checker_load_plain(const void *address)
{
    struct thread *t = machine.running;
    if (t == NULL)
        return read_memory(address);
    unsigned location = touch(address);
    arrive(t, (struct operation){ .kind = PLAIN, .location = location });
    take_turn(t, NULL);
    const struct location *l = &machine.locations[location];
    const struct message *m = &machine.messages[l->order[l->count - 1]];
    trace(t, "load plain     %-18s -> %#llx   (from %u)", name_of(location),
          (unsigned long long)m->value, m->event);
    note_access(t, location, PLAIN_LOAD);
    return m->value;
}

void checker_store_plain(void *address, uint64_t value)
{
    struct thread *t = machine.running;
    if (t == NULL) {
        write_memory(address, value);
        return;
    }
    unsigned location = touch(address);
    arrive(t, (struct operation){ .kind = PLAIN, .location = location });
    take_turn(t, NULL);
    trace(t, "store plain    %-18s <- %#llx", name_of(location), (unsigned long long)value);
    note_access(t, location, PLAIN_STORE);
    struct message *m = insert_message(location, machine.locations[location].count, value);
    t->current.time[location] = t->acquired.time[location] = m->time;
    m->view = t->released;
    m->view.time[location] = m->time;
    open_deferrals(location, t);
    t->left_mark = true;
}

/* Sleeps until somebody wakes T. */
static void sleep_on(struct thread *t, const char *name)
{
    trace(t, "futex wait     %-18s sleeps", name);
    t->state = ASLEEP;
    t->left_mark = true;
    if (!search.unreduced)
        consider_death(t);
    leave();
    trace(t, "is awake");
}

int checker_futex_wait(const void *address, uint32_t expected)
{
    struct thread *t = machine.running;
    uint16_t found[MESSAGES + 1];
    if (t == NULL) {
        if ((uint32_t)read_memory(address) == expected)
            checker_fail(__FILE__, __LINE__, "a futex wait outside threads would never end");
        return EAGAIN;
    }
    unsigned location = touch(address);
    struct location *l = &machine.locations[location];
    arrive(t, (struct operation){ .kind = WAIT, .location = location });
    unsigned way = take_turn(t, found);
    const struct message *m = &machine.messages[l->order[found[way]]];
    trace(t, "futex wait     %-18s -> %#llx   (from %u)", name_of(location),
          (unsigned long long)m->value, m->event);
    l->waits++;
    open_deferrals(CAUSE_WAIT + location, t);
    learn(t, &l->woken);
    did_read(t, location, m, CHECKER_RELAXED);
    if ((uint32_t)m->value != expected)
        return EAGAIN;
    if (machine.allow_timeouts && choose(2) == 1) {
        trace(t, "futex wait     %-18s times out", name_of(location));
        return ETIMEDOUT;
    }
    sleep_on(t, name_of(location));
    return 0;
}

void checker_futex_wake(void *address)
{
    struct thread *t = machine.running;
    if (t == NULL)
        return;
    unsigned location = touch(address);
    arrive(t, (struct operation){ .kind = WAKE, .location = location });
    take_turn(t, NULL);
    trace(t, "futex wake     %-18s", name_of(location));
    machine.locations[location].wakes++;
    open_deferrals(location, t);
    t->left_mark = true;
    join(&machine.locations[location].woken, &t->current);
    for (unsigned u = 0; u < machine.thread_count; u++) {
        struct thread *other = &machine.threads[u];
        if (other->state == ASLEEP && other->op.location == location) {
            other->state = RUNNING;
            other->op.kind = WOKEN;
            learn(other, &t->current);
        }
    }
}

void checker_pause(void)
{
    struct thread *t = machine.running;
    checker_assume(t == NULL || t->pauses++ < machine.pauses);
}

/* ------------------------------------------------------------------------- threads and settings */

unsigned checker_spawn(const char *name, void (*function)(void *argument), void *argument)
{
    if (machine.thread_count == THREADS)
        fail_limit("threads", THREADS);
    unsigned number = machine.thread_count++;
    machine.threads[number] = (struct thread){ .name = name, .function = function,
                                               .argument = argument, .number = number };
    return number;
}

void checker_allow_sleep(void) { machine.allow_sleep = true; }
void checker_allow_timeouts(void) { machine.allow_timeouts = true; }
void checker_refuse_barriers(void) { machine.refuse_barriers = true; }
bool checker_has_barriers(void) { return !machine.refuse_barriers; }
void checker_allow_pauses(unsigned count) { machine.pauses = count; }

void checker_set_mortal(bool mortal)
{
    machine.running->mortal = machine.running->left_mark = mortal;
}

bool checker_killed(unsigned thread) { return machine.threads[thread].state == KILLED; }
bool checker_asleep(unsigned thread) { return machine.threads[thread].state == ASLEEP; }

bool checker_wait_end(unsigned thread)
{
    struct thread *t = machine.running;
    arrive(t, (struct operation){ .kind = WAIT_END, .target = thread });
    take_turn(t, NULL);
    trace(t, "saw the end of %s", machine.threads[thread].name);
    learn(t, &machine.threads[thread].current);
    return checker_killed(thread);
}

void checker_assume(bool condition)
{
    if (condition)
        return;
    if (machine.running == NULL)
        checker_fail(__FILE__, __LINE__, "an assumption outside threads does not hold");
    finish(machine.running, STUCK);
}

/* -------------------------------------------------------------------------------- the scheduler */

static void thread_fiber(void)
{
    struct thread *t = machine.running;
    t->function(t->argument);
    t->left_mark = true;
    consider_death(t); /* the last moment */
    finish(t, ENDED);
}

static void make_fiber(unsigned thread)
{
    static bool known[THREADS];
    ucontext_t *context = &fibers.thread[thread];
    if (!known[thread]) /* a system call that need not be repeated */
        getcontext(context);
    known[thread] = true;
    context->uc_stack.ss_sp = fibers.stacks[thread];
    context->uc_stack.ss_size = STACK_BYTES;
    context->uc_link = NULL;
    makecontext(context, thread_fiber, 0);
}

/* Runs a function of the test outside simulated threads; false if it failed. */
static bool call_back(void (*function)(const void *arguments), const void *arguments)
{
    if (setjmp(fibers.callback) == 0)
        function(arguments);
    return machine.stop == NOT_STOPPED;
}

static void resume(struct thread *t)
{
    machine.running = t;
    swapcontext(&fibers.scheduler, &fibers.thread[t->number]);
}

static struct thread *next_runnable(void)
{
    for (unsigned u = 0; u < machine.thread_count; u++)
        if (runnable(&machine.threads[u]))
            return &machine.threads[u];
    return NULL;
}

/* A step of the unreduced search: thread THREAD goes on, dies, or executes the fence that the
 * barrier of thread INITIATOR asked for; or nothing more happens, as no thread can go on. */
struct step {
    enum { GO_ON, DIE, SERVE, STOP } kind;
    unsigned thread, initiator;
};

/* All steps that are possible now; returns how many. */
static unsigned list_steps(struct step *steps)
{
    unsigned count = 0;
    bool goes_on = false;
    for (unsigned u = 0; u < machine.thread_count; u++) {
        const struct thread *t = &machine.threads[u];
        if (t->state == RUNNING && ways(t, NULL) > 0) {
            steps[count++] = (struct step){ .kind = GO_ON, .thread = u };
            goes_on = true;
        }
        if (t->mortal && (t->state == RUNNING || t->state == ASLEEP))
            steps[count++] = (struct step){ .kind = DIE, .thread = u };
        for (unsigned i = 0; i < machine.thread_count; i++)
            if ((t->requests >> i & 1) != 0)
                steps[count++] = (struct step){ .kind = SERVE, .thread = u, .initiator = i };
    }
    if (!goes_on)
        steps[count++] = (struct step){ .kind = STOP };
    return count;
}

/* The unreduced search's choice of a thread; takes the steps that no thread needs to run for. */
static struct thread *any_runnable(void)
{
    struct step steps[THREADS * (THREADS + 2) + 1];
    for (;;) {
        unsigned count = list_steps(steps);
        struct step s = { .kind = STOP };
        if (count > 0)
            s = steps[choose(count)];
        if (s.kind == STOP)
            return NULL;
        struct thread *t = &machine.threads[s.thread];
        if (s.kind == GO_ON)
            return t;
        trace(t, s.kind == DIE ? "is killed" : "fence for a barrier");
        if (s.kind == DIE) {
            t->state = KILLED;
            continue;
        }
        t->requests &= ~(1u << s.initiator);
        join_times(&machine.fenced, &machine.threads[s.initiator].current);
        exchange_views(t);
    }
}

/* No thread can go on: why? */
static enum outcome classify(void)
{
    unsigned stuck = 0, asleep = 0, waiting = 0;
    for (unsigned u = 0; u < machine.thread_count; u++) {
        const struct thread *t = &machine.threads[u];
        if (t->state == RUNNING && (t->deferred || t->op.kind != WAIT_END))
            return PRUNED;
        stuck += t->state == STUCK;
        asleep += t->state == ASLEEP;
        waiting += t->state == RUNNING;
    }
    if (stuck > 0)
        return BLOCKED;
    if (waiting + asleep == 0 || (asleep > 0 && machine.allow_sleep))
        return COMPLETE;
    for (unsigned u = 0; u < machine.thread_count; u++)
        if (machine.threads[u].state == ASLEEP || machine.threads[u].state == RUNNING)
            set_failed("%s sleeps for ever", machine.threads[u].name);
    return VIOLATION;
}

static void reset_machine(void)
{
    for (unsigned i = 0; i < machine.location_count; i++) {
        struct location *l = &machine.locations[i];
        l->touched = false;
        l->waits = l->wakes = 0;
        memset(l->last, 0, sizeof l->last);
        memset(&l->woken, 0, sizeof l->woken);
    }
    for (unsigned i = 0; i < CAUSES; i++)
        machine.causes[i] = -1;
    memset(&machine.fenced, 0, sizeof machine.fenced);
    machine.thread_count = machine.events = machine.fences = machine.depth = machine.pauses = 0;
    machine.message_count = LOCATIONS;
    machine.running = NULL;
    machine.stop = NOT_STOPPED;
    machine.allow_sleep = machine.allow_timeouts = machine.refuse_barriers = false;
    name_count = 0;
}

static enum outcome run_threads(void)
{
    static const enum outcome outcomes[] = { [FAILED] = VIOLATION, [REDUNDANT] = PRUNED,
                                             [FIRST_BARRIER] = RESTART };
    struct thread *t;
    for (unsigned u = 0; u < machine.thread_count; u++)
        make_fiber(u);
    for (unsigned u = 0; search.unreduced && u < machine.thread_count; u++)
        resume(&machine.threads[u]); /* to its first operation */
    while (machine.stop == NOT_STOPPED) {
        t = search.unreduced ? any_runnable() : next_runnable();
        if (t == NULL)
            return classify();
        resume(t);
    }
    return outcomes[machine.stop];
}

/* Gives memory the newest value of every location. */
static void write_back(void)
{
    for (unsigned i = 0; i < machine.location_count; i++) {
        const struct location *l = &machine.locations[i];
        if (l->touched && l->count > 1)
            write_memory((void *)l->address, machine.messages[l->order[l->count - 1]].value);
    }
}

/* One execution, along the path and beyond it. */
static enum outcome execute(const struct checker_test *test)
{
    reset_machine();
    if (!call_back(test->setup, test->arguments))
        return VIOLATION;
    enum outcome outcome = run_threads();
    if (outcome != COMPLETE)
        return outcome;
    write_back();
    if (test->check != NULL && !call_back(test->check, test->arguments))
        return VIOLATION;
    return COMPLETE;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static bool out_of_bounds(const struct checker_options *options, double start)
{
    uint64_t runs = search.result.executions + search.result.blocked + search.result.pruned;
    if (options->executions != 0 && search.result.executions >= options->executions)
        return true;
    return options->seconds > 0 && runs % 1024 == 0 && seconds_now() - start > options->seconds;
}

/* Counts an execution; true if the search ends with it. */
static bool count_outcome(enum outcome outcome)
{
    struct checker_result *r = &search.result;
    switch (outcome) {
    case COMPLETE:
        r->executions++;
        break;
    case BLOCKED:
        r->blocked++;
        break;
    case PRUNED:
        r->pruned++;
        break;
    case RESTART:
        r->executions = r->blocked = r->pruned = 0;
        search.length = 0;
        break;
    case VIOLATION:
        r->executions++;
        r->status = CHECKER_VIOLATION;
        break;
    }
    return outcome == VIOLATION;
}

static void forget_locations(void)
{
    memset(location_of_slot, 0, sizeof location_of_slot);
    machine.location_count = 0;
}

struct checker_result checker_explore(const struct checker_test *test,
                                      const struct checker_options *options)
{
    double start = seconds_now();
    memset(&search.result, 0, sizeof search.result);
    search.length = 0;
    search.unreduced = options->unreduced;
    search.barriers = search.tracing = false;
    reset_machine();
    forget_locations();
    for (;;) {
        enum outcome outcome = execute(test);
        if (count_outcome(outcome))
            break;
        if (outcome != RESTART && !advance_path())
            break;
        if (out_of_bounds(options, start)) {
            search.result.status = CHECKER_BOUND;
            break;
        }
    }
    if (search.result.status == CHECKER_VIOLATION && !options->quiet) {
        printf("%s: a violation in execution %llu:\n", test->name,
               (unsigned long long)search.result.executions);
        search.tracing = true;
        execute(test);
        search.tracing = false;
    }
    search.result.seconds = seconds_now() - start;
    return search.result;
}

/* ------------------------------------------------------------------------------------ a program */

static void print_result(const struct checker_test *test, const struct checker_result *r)
{
    static const char *const words[] = { "verified", "VIOLATION", "limit", "NOT EXHAUSTED" };
    printf("%-30s %s: %llu executions, %llu blocked, %llu pruned, %.2f s\n", test->name,
           words[r->status], (unsigned long long)r->executions, (unsigned long long)r->blocked,
           (unsigned long long)r->pruned, r->seconds);
    fflush(stdout);
}

static int usage(const char *program)
{
    fprintf(stderr, "usage: %s [--executions N] [--seconds S] [--unreduced] [--list] [TEST]...\n",
            program);
    return CHECKER_LIMIT;
}

/* Reads the options; returns the index of the first argument that is none, or -1. */
static int read_options(int argc, char **argv, struct checker_options *options, bool *list)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        char *end = NULL;
        if (strcmp(argv[i], "--unreduced") == 0)
            options->unreduced = true;
        else if (strcmp(argv[i], "--list") == 0)
            *list = true;
        else if (i + 1 < argc && strcmp(argv[i], "--executions") == 0)
            options->executions = strtoull(argv[++i], &end, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--seconds") == 0)
            options->seconds = strtod(argv[++i], &end);
        else
            return -1;
        if (end != NULL && (*end != '\0' || end == argv[i]))
            return -1;
    }
    return i;
}

/* Is TEST among the names, or are there none? */
static bool selected(const struct checker_test *test, char **wanted, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(wanted[i], test->name) == 0)
            return true;
    return count == 0;
}

int checker_main(int argc, char **argv, const struct checker_test *tests, size_t count)
{
    struct checker_options options = { 0 };
    bool list = false;
    int worst = CHECKER_VERIFIED, ran = 0;
    int first = read_options(argc, argv, &options, &list);
    if (first < 0)
        return usage(argv[0]);
    for (size_t i = 0; i < count && worst != CHECKER_VIOLATION; i++) {
        if (!selected(&tests[i], argv + first, argc - first))
            continue;
        ran++;
        if (list) {
            puts(tests[i].name);
            continue;
        }
        struct checker_result r = checker_explore(&tests[i], &options);
        print_result(&tests[i], &r);
        if (r.status == CHECKER_VIOLATION || worst == CHECKER_VERIFIED)
            worst = (int)r.status;
    }
    return ran == 0 ? usage(argv[0]) : worst;
}
