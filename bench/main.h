/* main.h - the last include of an adapter: one run of one case. */

UNUSED static struct shared *shared; /* [2]; channel 1 is the way back of a round trip */
#ifdef CAN_WRITE
#include "write.h"
#endif
#include "paced.h"
#ifdef CAN_STREAM
#include "pingpong.h"
#include "stream.h"
#endif
#ifdef CAN_FREE
#include "free.h"
#endif
#ifdef CAN_PRODUCERS
#include "producers.h"
#endif
#ifdef CAN_OPEN
#include "open.h"
#endif
#if defined CAN_LIMITS || defined CAN_LOG
#include "log.h"
#endif
#ifdef CAN_GROUPS
#include "workers.h"
#endif
#ifdef CAN_LIMITS
#include "limits.h"
#endif
#ifdef CAN_POOL
#include "pool.h"
#endif

enum { NOT_FOR_ME = 77 };

/* Whether this program has all that the options ask for. */
UNUSED static bool can_do(UNUSED bool batches)
{
#ifndef CAN_IN_PLACE
    if (setup.in_place) return false;
#endif
#ifndef CAN_PROCESSES
    if (setup.processes) return false;
#endif
#ifndef CAN_READERS
    if (setup.readers > 1) return false;
#endif
#ifndef CAN_PRODUCERS
    if (setup.producers > 1) return false;
#endif
#ifndef CAN_SLEEP
    if (setup.sleeping) return false;
#endif
#ifndef CAN_HUGE
    if (setup.huge) return false;
#endif
#ifdef ROW_BY_ROW
    if (batches || setup.max > 1) return false;
#endif
#ifndef ANY_CAPACITY
    if (setup.capacity > 65536) return false;
#endif
    return true;
}

#ifdef CAN_POOL /* and nothing else */
static bool run_shape(const char *shape) { return pool_run(shape); }
#else
static bool run_shape(const char *shape)
{
    UNUSED int channels = strcmp(shape, "pingpong") ? 1 : 2;
    void (*run)(void) = NULL;
#ifdef CAN_LIMITS
    if (limits_run(shape)) return true;
#endif
    if (!can_do(setup.batch > 1)) return false;
#ifdef CAN_WRITE
    if (!strcmp(shape, "write")) run = write_run;
#endif
#ifdef CAN_FREE
    if (!strcmp(shape, "free")) run = free_run;
#endif
#ifdef CAN_OPEN
    if (!strcmp(shape, "open")) run = open_run;
#endif
#ifdef CAN_LOG
    if (!strcmp(shape, "log")) run = log_run;
#endif
#ifdef CAN_SLEEP
    if (!strcmp(shape, "paced") && setup.sleeping) setup.lossless = true, run = paced_run;
#endif
#ifdef CAN_STREAM
    if (!strcmp(shape, "paced") && !setup.sleeping) setup.lossless = true, run = paced_run;
    if (!strcmp(shape, "stream")) setup.lossless = true, run = stream_run;
    if (!strcmp(shape, "pingpong")) run = pingpong_run;
#endif
#ifdef CAN_GROUPS
    if (!strcmp(shape, "workers")) setup.lossless = true, run = workers_run;
#endif
#ifdef CAN_PRODUCERS
    if (!strcmp(shape, "producers")) setup.lossless = true, run = producers_run;
#endif
    if (!run) return false;
#ifndef CAN_LIMITS
    shared = (struct shared *)shared_memory(2 * sizeof *shared);
    for (int k = 0; k < channels; k++) shared_open(&shared[k], &setup, k);
    run();
    for (int k = 0; k < channels; k++) shared_close(&shared[k]);
#endif
    return true;
}
#endif

/* The processors of this process, of which sides 0 and 1 get the first two. */
static void find_cpus(void)
{
    cpu_set_t set;
    setup.cpus = 0;
    if (sched_getaffinity(0, sizeof set, &set)) die("sched_getaffinity", strerror(errno));
    for (int k = 0; k < CPU_SETSIZE && setup.cpus < MAX_SIDES; k++)
        if (CPU_ISSET((unsigned)k, &set)) setup.cpu[setup.cpus++] = k;
    if (setup.cpus < 2) die("cpus", "two are needed");
}

int main(int argc, char **argv)
{
    setup.shape = argc > 1 ? argv[1] : "";
    setup.batch = 1, setup.capacity = 65536, setup.milliseconds = 60, setup.pause = true;
    setup.readers = setup.producers = 1, setup.interval_ns = 1000, setup.variant = "";
    find_cpus();
    for (int i = 2; i + 1 < argc; i += 2) {
        long number = strtol(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "batch")) setup.batch = (int)number;
        else if (!strcmp(argv[i], "max")) setup.max = (int)number;
        else if (!strcmp(argv[i], "capacity")) setup.capacity = (uint64_t)number;
        else if (!strcmp(argv[i], "in-place")) setup.in_place = number != 0;
        else if (!strcmp(argv[i], "processes")) setup.processes = number != 0;
        else if (!strcmp(argv[i], "readers")) setup.readers = (int)number;
        else if (!strcmp(argv[i], "producers")) setup.producers = (int)number;
        else if (!strcmp(argv[i], "sleeping")) setup.sleeping = number != 0;
        else if (!strcmp(argv[i], "huge")) setup.huge = number != 0;
        else if (!strcmp(argv[i], "mode")) setup.mode = (int)number;
        else if (!strcmp(argv[i], "interval")) setup.interval_ns = (int)number;
        else if (!strcmp(argv[i], "pause")) setup.pause = number != 0;
        else if (!strcmp(argv[i], "ms")) setup.milliseconds = (int)number;
        else if (!strcmp(argv[i], "cpu0")) setup.cpu[0] = (int)number;
        else if (!strcmp(argv[i], "cpu1")) setup.cpu[1] = (int)number;
        else if (!strcmp(argv[i], "variant")) setup.variant = argv[i + 1];
        else die(argv[i], "is no option");
    }
    if (!setup.max) setup.max = setup.batch;
    if (setup.readers < 1 || setup.producers < 1 || setup.readers + setup.producers > MAX_SIDES) die("sides", "too many, or none");
    if (!setup.huge) prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* all queues on 4 KiB pages */
    control = (struct control *)shared_memory(sizeof *control);
    pin(setup.cpu[0]);
    calibrate();
    if (!run_shape(setup.shape)) return NOT_FOR_ME;
#ifdef LEAVE
    LEAVE;
#endif
    return 0;
}
