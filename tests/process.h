/*
 * process.h - what the tests of files and deaths share: processes that meet, die and are waited
 * for; a scene of names and a directory, which is empty again after each test, whatever becomes of
 * it; what a failed call must not leave behind.
 *
 * Include it first: it brings in the system's headers, cmocka and cbuf.h, in the order in which
 * they bear each other.
 */
#ifndef PROCESS_H
#define PROCESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __cplusplus
extern "C" {
#endif
#include <cmocka.h>
#ifdef __cplusplus
}
#endif
#include "sanitized.h"
#include <cbuf.h>

/* ---- checks that hold in children too ---- */

static bool process_is_child;

/* Ends the test, or the child, whose parent then sees it. */
static inline void check_failed(const char *what, const char *detail, const char *file, int line)
{
    fprintf(stderr, "%s:%d: %s%s: %s%s%s\n", file, line, process_is_child ? "in a child: " : "",
        "not so", what, *detail ? ": " : "", detail);
    if (process_is_child) _exit(99);
    _fail(file, line);
}
static inline void check_values(
    int64_t is, int64_t wanted, const char *what, const char *detail, const char *file, int line)
{
    char text[600];
    if (is == wanted) return;
    snprintf(text, sizeof text, "%lld, wanted %lld%s%.400s", (long long)is, (long long)wanted,
        *detail ? ": " : "", detail);
    check_failed(what, text, file, line);
}
#define CHECK(condition) ((condition) ? (void)0 : check_failed(#condition, "", __FILE__, __LINE__))
#define CHECK_IS(value, wanted)                                                                    \
    check_values((int64_t)(value), (int64_t)(wanted), #value, "", __FILE__, __LINE__)
/* The same with a text that tells which of many cases it is, or what the ring says. */
#define CHECK_FOR(detail, condition)                                                               \
    ((condition) ? (void)0 : check_failed(#condition, detail, __FILE__, __LINE__))
#define CHECK_IS_FOR(detail, value, wanted)                                                        \
    check_values((int64_t)(value), (int64_t)(wanted), #value, detail, __FILE__, __LINE__)

/* ---- the scene ---- */

static struct {
    char directory[64]; /* on disk, this program's own */
    char prefix[32];    /* of its rings in /dev/shm, automatic names included */
    unsigned names;     /* given out */
    pid_t children[64]; /* 0: no child */
    int alive;          /* the janitor sees its end closed when this process is gone */
    pid_t janitor;
} scene;

/* A ring's name that was not used before; of the last 16 the text stays. */
static inline const char *new_name(void)
{
    static char names[16][64];
    char *name = names[scene.names % 16];
    snprintf(name, sizeof names[0], "%st%u", scene.prefix, scene.names);
    scene.names++;
    return name;
}
/* The same as a path in the scene's directory. */
static inline const char *new_path(void)
{
    static char paths[16][128];
    char *path = paths[scene.names % 16];
    snprintf(path, sizeof paths[0], "%s/r%u", scene.directory, scene.names);
    scene.names++;
    return path;
}
/* Path of a file of the ring of that name. The text stays until the eighth call from here. */
static inline const char *file_of(const char *name, const char *suffix)
{
    static char paths[8][400];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s%s%s", *name == '/' ? "" : "/dev/shm/", name, suffix);
    return path;
}

/* The entries of a directory, sorted by name; asked of the kernel itself, as 32-bit libraries
 * cannot read every directory. */
struct entry {
    uint64_t inode;
    char name[256];
};
static inline int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}
static inline size_t entries_of(const char *path, const char *prefix, struct entry **entries)
{
    unsigned char buffer[4096];
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long got = 0;
    size_t n = 0, room = 0;
    *entries = NULL;
    while (fd >= 0 && (got = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0) {
        /* Inode: 8 bytes, offset: 8, length of the entry: 2, type: 1, name. */
        for (long at = 0; at < got;) {
            uint16_t length;
            const char *name = (const char *)buffer + at + 19;
            memcpy(&length, buffer + at + 16, 2);
            if (n == room)
                *entries =
                    (struct entry *)realloc(*entries, (room = 2 * room + 16) * sizeof **entries);
            if (!*entries) abort();
            memcpy(&(*entries)[n].inode, buffer + at, 8);
            snprintf((*entries)[n].name, sizeof (*entries)[n].name, "%s", name);
            if (strcmp(name, ".") && strcmp(name, "..") && !strncmp(name, prefix, strlen(prefix)))
                n++;
            at += length;
        }
    }
    if (fd >= 0) close(fd);
    if (n) qsort(*entries, n, sizeof **entries, compare_entries);
    return n;
}

/* Appends the directory's names to a text, each with its inode number, which tells a new file from
 * an old one. */
static inline void list_directory(const char *path, const char *prefix, char *text, size_t room)
{
    struct entry *entries;
    size_t n = entries_of(path, prefix, &entries);
    for (size_t k = 0; k < n; k++) {
        size_t length = strlen(text);
        snprintf(text + length, room - length, "%s(%llu) ", entries[k].name,
            (unsigned long long)entries[k].inode);
    }
    free(entries);
}

static inline void remove_tree(const char *path, const char *prefix)
{
    struct entry *entries;
    size_t n = entries_of(path, prefix, &entries);
    for (size_t k = 0; k < n; k++) {
        char name[512];
        snprintf(name, sizeof name, "%.250s/%.250s", path, entries[k].name);
        if (!unlink(name) || errno != EISDIR) continue;
        remove_tree(name, "");
        rmdir(name);
    }
    free(entries);
}

/* What a failed call must not leave behind: files, descriptors, mappings. */
struct traces {
    char files[8192];
    char descriptors[2048];
    long pages;
};
static inline void traces_now(struct traces *traces)
{
    FILE *statm = fopen("/proc/self/statm", "r");
    memset(traces, 0, sizeof *traces);
    if (!statm || fscanf(statm, "%ld", &traces->pages) != 1) traces->pages = 0;
    if (statm) fclose(statm);
    list_directory("/dev/shm", scene.prefix, traces->files, sizeof traces->files);
    list_directory(scene.directory, "", traces->files, sizeof traces->files);
    for (int fd = 0; fd < 256; fd++) {
        size_t length = strlen(traces->descriptors);
        if (fcntl(fd, F_GETFD) >= 0)
            snprintf(traces->descriptors + length, sizeof traces->descriptors - length, "%d ", fd);
    }
}
/* `detail` says after what. Files must be the same ones; the address space may have grown by
 * `pages` pages. */
static inline void check_traces(const struct traces *before, long pages, const char *detail)
{
    static struct traces now;
    traces_now(&now);
    char text[2600];
    snprintf(
        text, sizeof text, "%.400s: before %.1000s, now %.1000s", detail, before->files, now.files);
    CHECK_FOR(text, !strcmp(now.files, before->files));
    snprintf(text, sizeof text, "%.400s: before %.1000s, now %.1000s", detail, before->descriptors,
        now.descriptors);
    CHECK_FOR(text, !strcmp(now.descriptors, before->descriptors));
    snprintf(text, sizeof text, "%.400s: before %ld, now %ld", detail, before->pages, now.pages);
    if (CHECK_SANITIZED) pages += 8192; /* for the sanitizer's own books */
    CHECK_FOR(text, now.pages <= before->pages + pages);
}

/* ---- processes ---- */

/* A process must not outlive the one that started it; to be said again after a change of user,
 * which takes it back. */
static inline void die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(98);
}

/* Starts a process that does run(argument) and exits with what that returns. */
static inline pid_t start(int (*run)(void *), void *argument)
{
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        process_is_child = true;
        memset(scene.children, 0, sizeof scene.children);
        die_with(parent);
        _exit(run(argument));
    }
    for (size_t k = 0; k < sizeof scene.children / sizeof scene.children[0]; k++)
        if (!scene.children[k]) return scene.children[k] = child;
    kill(child, SIGKILL);
    check_failed("room for another child", "", __FILE__, __LINE__);
    return 0;
}
static inline void forget(pid_t child)
{
    for (size_t k = 0; k < sizeof scene.children / sizeof scene.children[0]; k++)
        if (scene.children[k] == child) scene.children[k] = 0;
}
/* Waits for a child's end: its exit status, or minus the signal that ended it. */
static inline int finish(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -1000;
    forget(child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
static inline int end_by(pid_t child, int signal_number)
{
    if (child > 0) kill(child, signal_number);
    return finish(child);
}

/* Until it is killed. */
static inline int live_on(void)
{
    for (int calls = 0; calls >= 0;) calls = pause() < 0;
    return 1;
}

/* Whether a process runs ('R'), sleeps ('S'), is stopped ('T') or dead and not waited for ('Z'):
 * the kernel's word. */
static inline char state_of(pid_t process)
{
    char path[40], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)process);
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    CHECK(got > 0);
    text[got] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end ? name_end[2] : '?';
}
/* Waits until it sleeps or is stopped; which of these. */
static inline char await_rest(pid_t process)
{
    char state;
    while ((state = state_of(process)) != 'S' && state != 'T') {
        CHECK(state != 'Z');
        sched_yield();
    }
    return state;
}
/* Waits for a child's end, as finish does, and lets it go on wherever it is stopped. */
static inline int finish_stopping(pid_t child)
{
    int status = 0;
    do kill(child, SIGCONT);
    while (waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    forget(child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* A meeting of two processes: one gives the cue, the other waits for it. */
struct cue {
    int heard, given;
};
static inline struct cue new_cue(void)
{
    int ends[2];
    struct cue cue;
    CHECK_IS(pipe(ends), 0);
    cue.heard = ends[0];
    cue.given = ends[1];
    return cue;
}
static inline void give_cue(const struct cue *cue) { CHECK_IS(write(cue->given, "x", 1), 1); }
static inline void await_cue(const struct cue *cue)
{
    char byte;
    siginfo_t end;
    struct pollfd awaited = { cue->heard, POLLIN, 0 };
    while (poll(&awaited, 1, 100) == 0) {
        memset(&end, 0, sizeof end);
        waitid(P_ALL, 0, &end, WEXITED | WNOHANG | WNOWAIT);
        CHECK(end.si_pid == 0 || end.si_status != 99); /* or a child failed, and gives none */
    }
    CHECK_IS(read(cue->heard, &byte, 1), 1);
}
static inline void end_cue(const struct cue *cue)
{
    close(cue->heard);
    close(cue->given);
}

/* Zeroed memory that this process shares with those that it starts. */
static inline void *shared_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static inline int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
static inline uint64_t next_random(uint64_t *seed) /* splitmix64 */
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Becomes another user, for good; a child of root's does. */
static inline void become(uid_t user, gid_t group)
{
    pid_t parent = getppid();
    CHECK_IS(setgroups(0, NULL), 0);
    CHECK_IS(setresgid(group, group, group), 0);
    CHECK_IS(setresuid(user, user, user), 0);
    die_with(parent);
}

/* qemu-user follows some system calls by name only; what they do cannot be tested there. */
static inline bool is_emulated(void)
{
    const char *runner = getenv("CBUF_TEST_RUNNER");
    return runner && *runner;
}
/* Whether a fork clears the pages that ask for it. */
static inline bool fork_wipes(void)
{
    bool wiped = false;
    unsigned char *page = (unsigned char *)mmap(
        NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    if (!madvise(page, 4096, 18 /* MADV_WIPEONFORK */)) {
        *page = 1;
        pid_t child = fork();
        if (child == 0) _exit(*page);
        int status = 1;
        waitpid(child, &status, 0);
        wiped = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    munmap(page, 4096);
    return wiped;
}

/* ---- setting up and clearing away ---- */

static inline void scene_clear(void)
{
    for (size_t k = 0; k < sizeof scene.children / sizeof scene.children[0]; k++)
        if (scene.children[k]) end_by(scene.children[k], SIGKILL);
    remove_tree("/dev/shm", scene.prefix);
    remove_tree(scene.directory, "");
    rmdir(scene.directory);
}
/* cmocka's setup and teardown of each test. */
static inline int scene_begin(void **state)
{
    (void)state;
    return mkdir(scene.directory, 0700);
}
static inline int scene_end(void **state)
{
    (void)state;
    scene_clear();
    return 0;
}

/* Call first. A janitor clears the scene when this process is gone, also by a signal; SIGALRM ends
 * it after `seconds`. */
static inline void scene_open(unsigned seconds)
{
    const char *temporary = getenv("TMPDIR");
    int ends[2];
    snprintf(scene.directory, sizeof scene.directory, "%.30s/cbuf_%d_XXXXXX",
        temporary && *temporary == '/' ? temporary : "/tmp", (int)getpid());
    snprintf(scene.prefix, sizeof scene.prefix, "cbuf_%d_", (int)getpid());
    if (!mkdtemp(scene.directory) || rmdir(scene.directory) || pipe2(ends, O_CLOEXEC)) abort();
    scene.janitor = fork();
    if (scene.janitor == 0) {
        char byte;
        setsid();
        close(ends[1]);
        while (read(ends[0], &byte, 1) < 0 && errno == EINTR) {}
        scene_clear();
        _exit(0);
    }
    close(ends[0]);
    scene.alive = ends[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(seconds);
}
/* Call last; passes the program's result on. */
static inline int scene_close(int result)
{
    close(scene.alive);
    waitpid(scene.janitor, NULL, 0);
    return result;
}

#endif
