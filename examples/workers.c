/*
 * Several processes share the work on one ring: each row goes to one of them, and what a worker
 * had not finished when it died goes to the others.
 *
 *   cc -std=c11 -O2 -Iinclude examples/workers.c -o workers && ./workers
 *
 * Four workers take jobs in batches; the first of them is killed in the middle of its work. The
 * producer never overwrites a job that nobody has finished (CBUF_BLOCK). At the end every job was
 * worked on; what the dead worker had begun may have been worked on twice.
 *
 * SPDX-License-Identifier: MIT
 */
#include <cbuf_group.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

struct job { uint64_t id, number; };
static const cbuf_column columns[] = { CBUF_COLUMN(struct job, id),
                                       CBUF_COLUMN(struct job, number) };

enum { WORKERS = 4, JOBS = 50000, BATCH = 32 };
static const char name[] = "cbuf_workers_example";
static uint32_t *results; /* in memory that all share; a job done twice gives the same result */

/* How many steps it takes from n to 1: halve it, or, if it is odd, three times it and one more. */
static uint32_t collatz(uint64_t n)
{
    uint32_t steps = 0;
    for (; n > 1; steps++) n = n % 2 ? 3 * n + 1 : n / 2;
    return steps;
}

static int worker(int number)
{
    cbuf_ring ring;
    cbuf_worker worker;
    struct job jobs[BATCH];
    int64_t n = 0, done = 0, again = 0;
    if (cbuf_attach(&ring, name, NULL) < 0) return fprintf(stderr, "%s\n", cbuf_error(&ring)), 1;
    if (cbuf_worker_open(&worker, &ring, "collatz", NULL) < 0)
        return fprintf(stderr, "%s\n", cbuf_worker_error(&worker)), 1;
    while ((n = cbuf_take_wait(&worker, jobs, BATCH, CBUF_FOREVER)) > 0) {
        if (number == 0 && done >= 100) raise(SIGKILL); /* with jobs in its hands */
        for (int64_t i = 0; i < n; i++) results[jobs[i].id] = collatz(jobs[i].number);
        done += n;
        if (cbuf_taken_again(&worker)) again += n;
    } /* each take says that what was taken before is done */
    printf("worker %d: %d jobs, %d of them from one that died\n", number, (int)done, (int)again);
    cbuf_worker_close(&worker);
    cbuf_close(&ring);
    return n == CBUF_ECLOSED ? 0 : (fprintf(stderr, "%s\n", cbuf_strerror(n)), 1);
}

static cbuf_ring ring, watch;
static cbuf_worker keeper; /* begins the group before the first job is there; takes none itself */

static pid_t start(int number)
{
    pid_t child = fork();
    if (child) return child;
    cbuf_worker_close(&keeper); /* these are the parent's: what the child has of them */
    cbuf_close(&watch);         /* would keep the parent's locks alive */
    cbuf_close(&ring);
    exit(worker(number));
}

static void write_jobs(uint64_t from, uint64_t end)
{
    for (uint64_t id = from; id < end; id++) {
        struct job job = { id, id + 1 };
        cbuf_write(&ring, &job);
    }
}

int main(void)
{
    int status, failed, wrong = 0;
    pid_t children[WORKERS];
    cbuf_options options = { .name = name, .capacity = 1024, .columns = columns, .column_count = 2,
                             .row_bytes = sizeof(struct job), .on_full = CBUF_BLOCK,
                             .existing = CBUF_REPLACE };
    results = mmap(NULL, JOBS * sizeof *results, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results == MAP_FAILED) return perror("mmap"), 1;
    if (cbuf_create(&ring, &options) < 0) return fprintf(stderr, "%s\n", cbuf_error(&ring)), 1;
    if (cbuf_attach(&watch, name, NULL) < 0) return fprintf(stderr, "%s\n", cbuf_error(&watch)), 1;
    if (cbuf_worker_open(&keeper, &watch, "collatz", NULL) < 0)
        return fprintf(stderr, "%s\n", cbuf_worker_error(&keeper)), 1;
    write_jobs(0, 1000);
    children[0] = start(0);
    waitpid(children[0], &status, 0);
    failed = !WIFSIGNALED(status);
    for (int i = 1; i < WORKERS; i++) children[i] = start(i);
    write_jobs(1000, JOBS);
    cbuf_close(&ring); /* no more jobs: the workers finish what there is, and end */
    for (int i = 1; i < WORKERS; i++) {
        waitpid(children[i], &status, 0);
        failed += !WIFEXITED(status) || WEXITSTATUS(status);
    }
    cbuf_worker_close(&keeper);
    cbuf_close(&watch);
    cbuf_remove(name);
    for (uint64_t id = 0; id < JOBS; id++) wrong += results[id] != collatz(id + 1);
    printf("%d jobs, %d of them not done or done wrong\n", JOBS, wrong);
    return failed || wrong;
}
