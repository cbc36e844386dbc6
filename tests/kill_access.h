/*
 * kill_access.h - the functions of cbuf.h's section [access], for a process that dies at one of
 * them, and the system calls of [files], likewise. For CBUF_ACCESS_HEADER; include process.h, which
 * brings in the system's headers before.
 *
 * With kill_countdown = n the process is killed just before its n-th operation: what it did up to
 * there, and nothing of what follows, is what others find. With another kill_signal it can be
 * stopped there. Spinning on a word counts once.
 */
#ifndef KILL_ACCESS_H
#define KILL_ACCESS_H

static uint64_t kill_countdown; /* 0: live on */
static int kill_signal = SIGKILL;
/* No sleep ends by itself: who sleeps through a wake-up sleeps for ever. */
static bool endless_naps;

/* The process may die here. */
static inline void kill_point(void)
{
    if (kill_countdown != 0 && --kill_countdown == 0) raise(kill_signal);
}
static inline void kill_point_of_load(const cbuf__word *word)
{
    static __thread const cbuf__word *last;
    if (word != last) kill_point();
    last = word;
}

static inline void kill__now(int signal_number)
{
    (void)signal_number;
    kill(getpid(), SIGKILL);
}
/* Dies after a random number of operations, or after a random time. */
static inline void be_mortal(uint64_t chance)
{
    uint64_t exponent = chance >> 32;
    if (chance % 2) {
        kill_countdown = 1 + (chance >> 1) % (4ull << exponent % 13);
        return;
    }
    struct itimerval at;
    memset(&at, 0, sizeof at);
    at.it_value.tv_usec = (int)(1 + (chance >> 1) % (4u << exponent % 10));
    signal(SIGALRM, kill__now);
    setitimer(ITIMER_REAL, &at, NULL);
}

static inline uint64_t cbuf__load_relaxed(const cbuf__word *word)
{
    return kill_point_of_load(word), __atomic_load_n(word, __ATOMIC_RELAXED);
}
static inline uint64_t cbuf__load_acquire(const cbuf__word *word)
{
    return kill_point_of_load(word), __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
static inline void cbuf__store_relaxed(cbuf__word *word, uint64_t value)
{
    kill_point(), __atomic_store_n(word, value, __ATOMIC_RELAXED);
}
static inline void cbuf__store_release(cbuf__word *word, uint64_t value)
{
    kill_point(), __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
static inline void cbuf__store_half_release(cbuf__word *word, uint32_t value)
{
    kill_point(), __atomic_store_n((cbuf__half *)(void *)word + 1, value, __ATOMIC_RELEASE);
}
static inline uint64_t cbuf__exchange_acq_rel(cbuf__word *word, uint64_t value)
{
    return kill_point(), __atomic_exchange_n(word, value, __ATOMIC_ACQ_REL);
}
static inline uint64_t cbuf__fetch_add_acq_rel(cbuf__word *word, uint64_t value)
{
    return kill_point(), __atomic_fetch_add(word, value, __ATOMIC_ACQ_REL);
}
static inline bool cbuf__compare_exchange_acq_rel(
    cbuf__word *word, uint64_t *expected, uint64_t desired)
{
    return kill_point(),
           __atomic_compare_exchange_n(
               word, expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
#ifdef __SANITIZE_THREAD__ /* gcc's thread sanitizer refuses fences */
static inline void cbuf__fence_acquire(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
static inline void cbuf__fence_release(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
#else
static inline void cbuf__fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
static inline void cbuf__fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
#endif
static inline void cbuf__fence_seq_cst(void) { __sync_synchronize(); }
static inline void cbuf__fence_compiler(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
static inline void cbuf__pause(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
static inline void cbuf__back_off(uint32_t turns) { (void)turns; }

static inline bool cbuf__barrier_all(void)
{
    return kill_point(), syscall(SYS_membarrier, 1 << 1, 0) == 0;
}
static inline bool cbuf__barrier_join(void)
{
    return kill_point(), syscall(SYS_membarrier, 1 << 2, 0) == 0;
}
static inline uint32_t *kill_futex_of(const cbuf__word *word)
{
    return (uint32_t *)(uintptr_t)word + (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : 1);
}
#ifdef SYS_futex_time64
#define KILL_SYS_FUTEX SYS_futex_time64
#else
#define KILL_SYS_FUTEX SYS_futex
#endif
static inline int cbuf__futex_wait(const cbuf__word *word, uint32_t seen, int64_t ns)
{
    struct { int64_t seconds, nanoseconds; } limit = { ns / 1000000000, ns % 1000000000 };
    kill_point();
    return (int)syscall(KILL_SYS_FUTEX, kill_futex_of(word), 0 /* FUTEX_WAIT */, seen,
        ns < 0 || endless_naps ? NULL : &limit, NULL, 0);
}
static inline void cbuf__futex_wake(cbuf__word *word)
{
    kill_point();
    syscall(KILL_SYS_FUTEX, kill_futex_of(word), 1 /* FUTEX_WAKE */, INT32_MAX, NULL, NULL, 0);
}

/* What [files], and a log, ask of the system. A macro's own name within it is not expanded again. */
#define open(...) (kill_point(), open(__VA_ARGS__))
#define close(fd) (kill_point(), close(fd))
#define fcntl(...) (kill_point(), fcntl(__VA_ARGS__))
#define access(path, mode) (kill_point(), access(path, mode))
#define lstat(path, to) (kill_point(), lstat(path, to))
#define fstat(fd, to) (kill_point(), fstat(fd, to))
#define fchmod(fd, mode) (kill_point(), fchmod(fd, mode))
#define posix_fallocate(fd, from, bytes) (kill_point(), posix_fallocate(fd, from, bytes))
#define ftruncate(fd, bytes) (kill_point(), ftruncate(fd, bytes))
#define pread(fd, to, bytes, from) (kill_point(), pread(fd, to, bytes, from))
#define pwrite(fd, from, bytes, at) (kill_point(), pwrite(fd, from, bytes, at))
#define pwritev(fd, parts, n, at) (kill_point(), pwritev(fd, parts, n, at))
#define ftruncate(fd, bytes) (kill_point(), ftruncate(fd, bytes))
#define fdatasync(fd) (kill_point(), fdatasync(fd))
#define mmap(...) (kill_point(), mmap(__VA_ARGS__))
#define munmap(at, bytes) (kill_point(), munmap(at, bytes))
#define linkat(a, b, c, d, e) (kill_point(), linkat(a, b, c, d, e))
#define nanosleep(time, left) (kill_point(), nanosleep(time, left))
#define rename(from, to) (kill_point(), rename(from, to))
#define unlink(path) (kill_point(), unlink(path))

#endif
