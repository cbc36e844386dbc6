/* model_os.h: model_ring.h for tests that take cbuf.h with its operating system part, on a ring in
 * memory. Sleeping, waking and the barrier are the checker's; time stands still. */
#ifndef MODEL_OS_H
#define MODEL_OS_H

#include "checker.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline int model_clock_gettime(clockid_t clock, struct timespec *now)
{
    (void)clock;
    *now = (struct timespec){ .tv_sec = 1000000 };
    return 0;
}

/* Of system calls made by number only the one by which a process takes part in the barriers. */
static inline long model_syscall(long number, ...)
{
    return number == SYS_membarrier && checker_has_barriers() ? 0 : -1;
}

#define clock_gettime(clock, now) model_clock_gettime(clock, now)
#define syscall(...) model_syscall(__VA_ARGS__)
#define getpid() 1

#include "model_ring.h"

#endif
