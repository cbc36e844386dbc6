/* checker.h: an exhaustive checker for lock-free code, which runs the code itself.
 *
 * A test gives a setup function and a few threads. The checker runs the threads one at a time, in
 * every order and with every value that a load may return, and reports the first execution that
 * breaks an assertion, with its trace. Nothing is sampled: "verified" means that no execution of
 * that test, however unlikely on a real machine, breaks it.
 *
 *     static uint64_t data, flag;
 *     static void writer(void *unused) { (void)unused; checker_store(&data, 1, CHECKER_RELAXED);
 *                                        checker_store(&flag, 1, CHECKER_RELEASE); }
 *     static void reader(void *unused) { (void)unused; if (checker_load(&flag, CHECKER_ACQUIRE))
 *                                        checker_assert(checker_load(&data, CHECKER_RELAXED)); }
 *     static void setup(const void *unused) { (void)unused; data = flag = 0;
 *                         checker_spawn("writer", writer, NULL);
 *                         checker_spawn("reader", reader, NULL); }
 *     int main(int argc, char **argv) {
 *         static const struct checker_test tests[] = { { .name = "pass", .setup = setup } };
 *         return checker_main(argc, argv, tests, 1); }
 *
 * THE MEMORY MODEL is C11's as repaired by RC11, without seq_cst accesses (seq_cst fences are
 * there), played as a machine of views. The machine is the one of Kang, Hur, Lahav, Vafeiadis and
 * Dreyer, "A promising semantics for relaxed-memory concurrency" (POPL 2017), without its
 * promises; that what remains is RC11 is in the same paper's terms, see Lahav, Vafeiadis, Kang,
 * Hur and Dreyer, "Repairing sequential consistency in C/C++11" (PLDI 2017). The rules:
 *
 *   - Memory is a set of messages. A message is a location, a value, a time on that location's own
 *     time line (its modification order) and a view. A view is a time for every location: "what is
 *     older than this may no longer be read".
 *   - A thread has three views: `current`, what it must respect now; `acquired`, what an acquire
 *     fence would add to it; `released`, what its last release fence gives to its later stores.
 *   - A load may read any message that is not older than `current` says. Its time enters `current`;
 *     its view enters `current` if the load is an acquire, and `acquired` in any case.
 *   - A store may take any free time later than `current` says: it need not become the newest. The
 *     message carries `current` if the store is a release, else `released`.
 *   - A read-modify-write takes the time right after the message it read (nothing may ever come
 *     between the two) and hands that message's view on: release sequences, as in C++20. (C11 also
 *     continued them by the same thread's plain stores: leaving that out allows more, so what is
 *     verified here holds there too.)
 *   - An acquire fence adds `acquired` to `current`; a release fence sets `released` to `current`.
 *     A seq_cst fence is both, and exchanges views with one global view: all of them are ordered.
 *   - Plain accesses (checker_load_plain, checker_store_plain) must be ordered by happens-before
 *     with every conflicting access, which vector clocks decide; if not, that is a violation.
 *
 * BEYOND THE LANGUAGE, the rules of the operating system that cbuf builds on:
 *
 *   - Kill. A mortal thread may die before any of its operations, or after its last one. What it
 *     stored stays.
 *   - The end of a thread (a lock of the kernel that it held is free) shows whoever waits for it
 *     everything it did.
 *   - futex. A wait reads the word like a relaxed load, but sees what was visible to every earlier
 *     wake on that word; if the low 32 bits are as expected it sleeps until a later wake. The two
 *     are totally ordered (futex(2) promises no more). By default sleeping for ever is a violation.
 *   - checker_barrier_all, membarrier(2): every other thread executes a seq_cst fence at one point
 *     of its own while the caller is inside the call, and the caller one at its end. The points
 *     need not lie on one consistent cut: the kernel interrupts one processor after another.
 *
 * WHAT IT FINDS: stale, torn and reordered values, wrong or missing fences (also those that x86
 * hides), data races on plain accesses, lost wake-ups, what a death at any point leaves behind.
 * WHAT IT CANNOT FIND: load buffering (a load that reads a store which depends on it, or which
 * comes later in program order: RC11 forbids it, ARM and POWER show it between relaxed accesses);
 * starvation and termination in general (a thread that would spin is stopped, see
 * checker_assume); accesses of mixed sizes; anything beyond the sizes of the test.
 *
 * THE SEARCH is a depth-first walk of a tree of choices, each execution replayed from the start;
 * the essay in checker.c says which executions need not be visited, and why. The test must be
 * deterministic: the same choices, the same operations.
 *
 * OUTSIDE simulated threads (setup, check) all operations act on memory directly. Inside, stores
 * live in messages, and memory stays as setup left it; what it holds is the initial value of each
 * location. Before the check function runs, memory gets the newest value of every location.
 */
#ifndef CHECKER_H
#define CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum checker_order {
    CHECKER_RELAXED,
    CHECKER_ACQUIRE,
    CHECKER_RELEASE,
    CHECKER_ACQ_REL,
    CHECKER_SEQ_CST, /* fences only */
};

/* How a search ended; also the exit status of checker_main. */
enum checker_status {
    CHECKER_VERIFIED = 0,
    CHECKER_VIOLATION = 1,
    CHECKER_LIMIT = 2, /* a table is full, or wrong usage */
    CHECKER_BOUND = 3, /* the bound on executions or time came first: nothing is proved */
};

/* One test: SETUP makes memory and spawns threads, at the start of every execution; CHECK, if not
 * NULL, runs at the end of every execution in which all threads ended or died. Both get ARGUMENTS,
 * so that one pair of functions serves several cases. */
struct checker_test {
    const char *name;
    void (*setup)(const void *arguments);
    void (*check)(const void *arguments);
    const void *arguments;
};

/* Bounds and the way of searching; zero everywhere is right for verification. */
struct checker_options {
    uint64_t executions; /* stop after so many, 0: no bound */
    double seconds;      /* stop after so long, 0: no bound */
    bool unreduced;      /* visit every interleaving: slow, there to check the reduction itself */
    bool quiet;          /* print no trace */
};

struct checker_result {
    enum checker_status status;
    uint64_t executions; /* complete ones */
    uint64_t blocked;    /* stopped by an assumption */
    uint64_t pruned;     /* abandoned: the same was, or will be, visited in another order */
    double seconds;
};

/* Explores TEST and returns how it ended; a violation is printed with its trace. Ends the program
 * with status 2 if a table is full. Not reentrant. */
struct checker_result checker_explore(const struct checker_test *test,
                                      const struct checker_options *options);

/* A whole program: explores the COUNT tests, or those named on the command line, one line of
 * output each; options --executions N, --seconds S, --unreduced, --list. Returns the exit status:
 * the first that is not 0, and no test is run after a violation. */
int checker_main(int argc, char **argv, const struct checker_test *tests, size_t count);

/* ------------------------------------------------------------------ what a setup function calls */

/* Adds a thread (at most 8) and returns its number, from 0. Put writers first: the search is
 * shorter. NAME must outlive the test. */
unsigned checker_spawn(const char *name, void (*function)(void *argument), void *argument);

/* Gives the word at ADDRESS a name for traces. */
void checker_name(const volatile void *address, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Makes sleeping for ever an outcome (see checker_asleep) in place of a violation. */
void checker_allow_sleep(void);

/* Lets futex waits that would sleep time out instead, as a further choice. */
void checker_allow_timeouts(void);

/* Makes checker_barrier_all do nothing and return false, as on a kernel that lacks it. */
void checker_refuse_barriers(void);
bool checker_has_barriers(void); /* they were not refused */

/* Lets every thread pass checker_pause COUNT times before the next one stops it (default 0). */
void checker_allow_pauses(unsigned count);

/* -------------------------------------------------------------------------- what a thread calls */

/* From now on the calling thread may die before any of its operations and at its end (or no
 * longer). */
void checker_set_mortal(bool mortal);

/* Waits until THREAD has ended, then sees all it did; true if it was killed. */
bool checker_wait_end(unsigned thread);

/* Stops the calling thread for ever unless CONDITION; the others go on, and the execution counts
 * as blocked. For what would be a spin: a turn of the loop that changes nothing need not be seen
 * twice, for the turn that finds what it waits for could have come first. */
void checker_assume(bool condition);

/* A violation, with the trace of this execution, unless CONDITION. Also for setup and check. */
#define checker_assert(condition) \
    ((condition) ? (void)0 : checker_fail(__FILE__, __LINE__, #condition))
_Noreturn void checker_fail(const char *file, int line, const char *text);

/* Writes a line of the test's own into the trace, if one is being made. */
void checker_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ------------------------------------------------------------------ what a check function calls */

/* True if THREAD was killed. */
bool checker_killed(unsigned thread);

/* True if THREAD sleeps, and nobody is left to wake it. */
bool checker_asleep(unsigned thread);

/* ----------------------------------------------------------------------------------- operations */
/* On words of 8 bytes, aligned. */

uint64_t checker_load(const void *address, enum checker_order order);
void checker_store(void *address, uint64_t value, enum checker_order order);

/* Read-modify-writes; they return the value before. */
uint64_t checker_exchange(void *address, uint64_t value, enum checker_order order);
uint64_t checker_fetch_add(void *address, uint64_t value, enum checker_order order);

/* Strong. On failure *EXPECTED is what was read, relaxed. */
bool checker_compare_exchange(void *address, uint64_t *expected, uint64_t desired,
                              enum checker_order order);

void checker_fence(enum checker_order order);

/* A seq_cst fence in every thread; false (and nothing done) after checker_refuse_barriers. */
bool checker_barrier_all(void);

/* Not atomic: a data race is a violation. */
uint64_t checker_load_plain(const void *address);
void checker_store_plain(void *address, uint64_t value);

/* Sleeps while the low 32 bits at ADDRESS are EXPECTED. 0: woken; EAGAIN: they differ; ETIMEDOUT
 * only after checker_allow_timeouts. */
int checker_futex_wait(const void *address, uint32_t expected);

/* Wakes all who sleep on ADDRESS. */
void checker_futex_wake(void *address);

/* A turn of a spinning loop, see checker_allow_pauses and checker_assume. */
void checker_pause(void);

#endif
