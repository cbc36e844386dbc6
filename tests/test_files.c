/*
 * test_files.c - rings as files: how they are made, found, replaced and removed; whose they are;
 * what a damaged, foreign or full one does; memory, fork and users. Some tests need root, and are
 * skipped for others.
 */
#include "process.h"

struct tick {
    int64_t time;
    double bid;
    uint32_t size, padding; /* no column: room for the row's number on every machine */
};
typedef struct tick a_tick;
#define TICK_COLUMNS 3
static const cbuf_column tick_columns[TICK_COLUMNS] = {
    CBUF_COLUMN_AS(a_tick, time, CBUF_TIMESTAMP_NS), CBUF_COLUMN(a_tick, bid),
    CBUF_COLUMN(a_tick, size) };

#define USER 12345 /* somebody, whose group has the same number; and somebody else */
#define OTHER 12346

static cbuf_options tick_options(const char *name)
{
    cbuf_options options;
    memset(&options, 0, sizeof options);
    options.name = name;
    options.capacity = 64;
    options.columns = tick_columns;
    options.column_count = TICK_COLUMNS;
    options.reserve_step = 8;
    options.row_bytes = sizeof(struct tick);
    options.max_readers = 4;
    return options;
}
static int create_as(cbuf_ring *ring, const char *name, uint8_t existing)
{
    cbuf_options options = tick_options(name);
    options.existing = existing;
    return cbuf_create(ring, &options);
}
static void create(cbuf_ring *ring, const char *name)
{
    int error = create_as(ring, name, CBUF_RESUME);
    CHECK_IS_FOR(cbuf_error(ring), error, 0);
}
static void attach(cbuf_ring *ring, const char *name)
{
    int error = cbuf_attach(ring, name, NULL);
    CHECK_IS_FOR(cbuf_error(ring), error, 0);
}
static int attach_as_observer(cbuf_ring *ring, const char *name, bool any_owner)
{
    cbuf_attach_options options;
    memset(&options, 0, sizeof options);
    options.observer = true;
    options.any_owner = any_owner;
    return cbuf_attach(ring, name, &options);
}
static int open_anonymous(cbuf_reader *reader, const cbuf_ring *ring)
{
    cbuf_reader_options options;
    memset(&options, 0, sizeof options);
    options.anonymous = true;
    return cbuf_reader_open(reader, ring, &options);
}

/* Each row tells its sequence number, `size`. */
static void write_ticks(cbuf_ring *ring, int n)
{
    for (int k = 0; k < n; k++) {
        struct tick tick;
        memset(&tick, 0, sizeof tick);
        tick.size = (uint32_t)cbuf_head(ring);
        tick.time = tick.size;
        tick.bid = tick.size;
        CHECK_IS(cbuf_write(ring, &tick), 1);
    }
}
/* Reads all that is there; how many rows that was. */
static int64_t read_ticks(cbuf_reader *reader)
{
    struct tick ticks[64];
    int64_t n, all = 0;
    for (; (n = cbuf_read(reader, ticks, 64)) > 0; all += n)
        for (int64_t k = 0; k < n; k++) CHECK_IS(ticks[k].size, cbuf_first(reader) + (uint64_t)k);
    return n < 0 ? n : all;
}
/* Attaches to the ring of that name, reads what is there, and says how many rows that was. */
static int64_t rows_of(const char *name)
{
    cbuf_ring ring;
    cbuf_reader reader;
    attach(&ring, name);
    CHECK_IS(open_anonymous(&reader, &ring), 0);
    int64_t n = read_ticks(&reader);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    return n;
}

static bool says(const cbuf_ring *ring, const char *text)
{
    return strstr(cbuf_error(ring), text) != NULL;
}
static bool says_number(const cbuf_ring *ring, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    return says(ring, text);
}
static mode_t mode_of(const char *path)
{
    struct stat file;
    CHECK_FOR(path, !lstat(path, &file));
    return file.st_mode & 07777;
}
static bool exists(const char *path)
{
    struct stat file;
    return !lstat(path, &file);
}

/* ---- names ---- */

static void an_automatic_name_is_the_process_and_a_number(void **state)
{
    cbuf_ring rings[3];
    (void)state;
    for (int k = 0; k < 3; k++) {
        create(&rings[k], NULL);
        char wanted[64];
        snprintf(wanted, sizeof wanted, "/dev/shm/cbuf_%d_%d", (int)getpid(), k);
        CHECK_FOR(cbuf_path(&rings[k]), !strcmp(cbuf_path(&rings[k]), wanted));
        write_ticks(&rings[k], k + 1);
        CHECK_IS(rows_of(wanted), k + 1);
    }
    for (int k = 0; k < 3; k++) cbuf_close(&rings[k]);
}

static void an_automatic_name_never_takes_a_ring_that_is_there(void **state)
{
    cbuf_ring ring;
    (void)state;
    /* Closed, not removed: as of an earlier process of the same number. */
    for (int k = 0; k < 3; k++) {
        create(&ring, NULL);
        CHECK_IS(cbuf_head(&ring), 0);
        write_ticks(&ring, 1);
        cbuf_close(&ring);
    }
}

static void a_ring_lives_at_any_absolute_path(void **state)
{
    struct traces before;
    cbuf_ring ring;
    (void)state;
    char full[200];
    snprintf(full, sizeof full, "%s", file_of(new_name(), ""));
    const char *names[] = { new_name(), new_path(), full };
    traces_now(&before);
    for (int k = 0; k < 3; k++) {
        create(&ring, names[k]);
        CHECK(!strcmp(cbuf_path(&ring), file_of(names[k], "")));
        write_ticks(&ring, 5);
        CHECK_IS(rows_of(names[k]), 5);
        cbuf_close(&ring);
        CHECK_IS(rows_of(names[k]), 5); /* the ring outlives its producer */
        CHECK(exists(file_of(names[k], "")) && exists(file_of(names[k], ".readers")));
        CHECK_IS(cbuf_remove(names[k]), 0);
        check_traces(&before, 64, names[k]);
    }
}

static void a_bad_name_is_refused(void **state)
{
    static char long_name[400], long_path[400];
    const char *bad[] = { "", ".", "..", ".hidden", "a/b", "a/", "../x", long_name, long_path };
    struct traces before;
    cbuf_ring ring;
    (void)state;
    memset(long_name, 'x', sizeof long_name - 1);
    snprintf(long_path, sizeof long_path, "/dev/shm/%.300s", long_name);
    traces_now(&before);
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        CHECK_IS_FOR(bad[k], create_as(&ring, bad[k], CBUF_RESUME), CBUF_EINVAL);
        CHECK_FOR(bad[k], says(&ring, "name"));
        CHECK_IS_FOR(bad[k], cbuf_attach(&ring, bad[k], NULL), CBUF_EINVAL);
        CHECK_IS_FOR(bad[k], cbuf_remove(bad[k]), CBUF_EINVAL);
    }
    CHECK_IS(cbuf_attach(&ring, NULL, NULL), CBUF_EINVAL);
    CHECK_IS(cbuf_remove(NULL), CBUF_EINVAL);
    check_traces(&before, 64, "bad names");
}

static void a_name_is_a_ring_or_nothing_at_any_length(void **state)
{
    struct traces before;
    cbuf_ring ring;
    char name[300];
    int made = 0, refused = 0;
    (void)state;
    traces_now(&before);
    /* Its companions' names are longer by up to 12. */
    for (size_t length = 225; length < 262; length++) {
        memset(name, 'n', sizeof name);
        memcpy(name, scene.prefix, strlen(scene.prefix));
        name[length] = 0;
        if (create_as(&ring, name, CBUF_RESUME) == 0) {
            made++;
            CHECK_IS(rows_of(name), 0);
            cbuf_close(&ring);
            CHECK_IS(cbuf_remove(name), 0);
        } else {
            refused++;
            CHECK(*cbuf_error(&ring));
        }
        check_traces(&before, 64, name);
    }
    CHECK(made > 0 && refused > 0);
}

static void what_is_not_there_is_not_found(void **state)
{
    struct traces before;
    cbuf_ring ring;
    char path[200];
    (void)state;
    snprintf(path, sizeof path, "%s/no/such/directory", scene.directory);
    const char *names[] = { new_name(), new_path(), path };
    traces_now(&before);
    for (int k = 0; k < 3; k++) {
        CHECK_IS_FOR(names[k], cbuf_attach(&ring, names[k], NULL), CBUF_ENOENT);
        CHECK_FOR(cbuf_error(&ring), says(&ring, file_of(names[k], "")));
        CHECK_IS_FOR(names[k], cbuf_remove(names[k]), CBUF_ENOENT);
    }
    CHECK_IS(create_as(&ring, path, CBUF_RESUME), CBUF_ENOENT);
    check_traces(&before, 64, "no such ring");
}

/* ---- failures leave nothing behind ---- */

/* Makes one thing wrong; the error that it should give, or 0 if there are no more. *told: what the
 * text should name. */
static int spoil(cbuf_options *options, int which, const char **told)
{
    static cbuf_column columns[3];
    memcpy(columns, tick_columns, sizeof columns);
    options->columns = columns;
    *told = "";
    switch (which) {
    case 0: return options->columns = NULL, *told = "column_count", CBUF_EINVAL;
    case 1: return options->column_count = 0, *told = "the least is 1", CBUF_EINVAL;
    case 2: return options->column_count = 513, *told = "513, the limit is 512", CBUF_EINVAL;
    case 3: return options->row_bytes = 10, *told = "row_bytes is 10", CBUF_EINVAL;
    case 4: return options->row_bytes = CBUF_MAX_ROW_BYTES + 8, *told = "1048584", CBUF_EINVAL;
    case 5: return options->capacity = CBUF_MAX_CAPACITY + 1, *told = "2147483649", CBUF_EINVAL;
    case 6: return options->reserve_step = 33, *told = "reserve_step is 33", CBUF_EINVAL;
    case 7: return options->max_readers = CBUF_MAX_READERS + 1, *told = "1025", CBUF_EINVAL;
    case 8: return options->layout = 2, *told = "layout is 2, the limit is 1", CBUF_EINVAL;
    case 9: return options->on_full = 4, *told = "on_full is 4", CBUF_EINVAL;
    case 10: return options->existing = 3, *told = "existing is 3", CBUF_EINVAL;
    case 11: return options->block_ns = -1, *told = "block_ns", CBUF_EINVAL;
    case 12: return options->demote_ns = -1, *told = "demote_ns", CBUF_EINVAL;
    case 13: return columns[1].name[0] = 0, *told = "name", CBUF_ESCHEMA;
    case 14: return memset(columns[1].name, 'x', CBUF_NAME_BYTES), *told = "name", CBUF_ESCHEMA;
    case 15: return columns[1].name[0] = '"', *told = "name", CBUF_ESCHEMA;
    case 16: return columns[1].type = 77, *told = "type", CBUF_ESCHEMA;
    case 17: return columns[1].offset = 4, *told = "overlap", CBUF_ESCHEMA;
    case 18: return memcpy(columns[1].name, "time", 5), *told = "twice", CBUF_ESCHEMA;
    case 19: return columns[1].offset = UINT32_MAX - 7, *told = "offset", CBUF_ESCHEMA;
    default: return 0;
    }
}

static void a_bad_option_leaves_nothing_behind(void **state)
{
    struct traces before;
    cbuf_ring ring;
    const char *told, *places[] = { new_name(), new_path() };
    (void)state;
    traces_now(&before);
    for (int place = 0; place < 2; place++) {
        for (int which = 0;; which++) {
            cbuf_options options = tick_options(places[place]);
            int wanted = spoil(&options, which, &told);
            if (!wanted) break;
            int error = cbuf_create(&ring, &options);
            CHECK_IS_FOR(cbuf_error(&ring), error, wanted);
            CHECK_FOR(
                cbuf_error(&ring), says(&ring, told) && says(&ring, file_of(places[place], "")));
            check_traces(&before, 64, cbuf_error(&ring));
        }
    }
}

static void failures_do_not_add_up(void **state)
{
    struct traces before;
    cbuf_ring ring, other;
    const char *name = new_name(), *told;
    (void)state;
    create(&ring, name);
    for (int round = 0; round < 2; round++) { /* once to warm up */
        traces_now(&before);
        for (int k = 0; k < 200; k++) {
            cbuf_options options = tick_options(new_path());
            spoil(&options, 17, &told);
            CHECK_IS(cbuf_create(&other, &options), CBUF_ESCHEMA);
            CHECK_IS(cbuf_attach(&other, options.name, NULL), CBUF_ENOENT);
            CHECK_IS(create_as(&other, name, CBUF_RESUME), CBUF_EBUSY);
            CHECK_IS(cbuf_remove(name), CBUF_EBUSY);
            attach(&other, name);
            cbuf_close(&other);
        }
    }
    check_traces(&before, 64, "200 failures");
    cbuf_close(&ring);
}

/* ---- what is there already ---- */

static void resume_continues_where_the_last_producer_ended(void **state)
{
    cbuf_ring ring;
    cbuf_reader reader;
    cbuf_stats stats;
    (void)state;
    const char *names[] = { new_name(), new_path() };
    for (int k = 0; k < 2; k++) {
        create(&ring, names[k]);
        write_ticks(&ring, 10);
        cbuf_close(&ring);
        create(&ring, names[k]);
        CHECK_IS(cbuf_head(&ring), 10);
        write_ticks(&ring, 90);
        CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
        CHECK_IS(stats.epoch, 2);
        CHECK_IS(stats.producer_pid, getpid());
        CHECK(!stats.closed);
        CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), 0);
        CHECK(read_ticks(&reader) > 30 && cbuf_available(&reader) == 0);
        cbuf_reader_close(&reader);
        cbuf_close(&ring);
    }
}

static void new_refuses_a_ring_that_is_there(void **state)
{
    cbuf_ring ring;
    struct traces before;
    const char *name = new_name();
    (void)state;
    CHECK_IS(create_as(&ring, name, CBUF_NEW), 0);
    write_ticks(&ring, 3);
    cbuf_close(&ring);
    traces_now(&before);
    CHECK_IS(create_as(&ring, name, CBUF_NEW), CBUF_EEXIST);
    CHECK_FOR(cbuf_error(&ring), says(&ring, name));
    check_traces(&before, 64, "CBUF_NEW");
    CHECK_IS(rows_of(name), 3);
}

static void replace_makes_a_new_ring_and_retires_the_old_one(void **state)
{
    cbuf_ring ring, old, unread;
    cbuf_reader reader, slow;
    cbuf_stats stats;
    const char *name = new_name();
    (void)state;
    create(&ring, name);
    write_ticks(&ring, 3);
    attach(&old, name);
    attach(&unread, name);
    CHECK_IS(cbuf_reader_open(&reader, &old, NULL), 0);
    CHECK_IS(cbuf_reader_open(&slow, &unread, NULL), 0);
    CHECK_IS(read_ticks(&reader), 3);
    cbuf_close(&ring);
    cbuf_options options = tick_options(name);
    options.existing = CBUF_REPLACE;
    options.capacity = 128; /* of another make, too */
    CHECK_IS(cbuf_create(&ring, &options), 0);
    CHECK_IS(cbuf_head(&ring), 0);
    CHECK_IS(cbuf_wait(&reader, 1, CBUF_FOREVER), CBUF_ERETIRED);
    CHECK_IS(cbuf_wait(&slow, 1, CBUF_FOREVER), 1); /* first what is there */
    CHECK_IS(read_ticks(&slow), 3);
    CHECK_IS(cbuf_wait(&slow, 1, CBUF_FOREVER), CBUF_ERETIRED);
    CHECK_IS(cbuf_stats_get(&old, &stats), 0);
    CHECK(stats.retired && !stats.closed);
    write_ticks(&ring, 2);
    CHECK_IS(rows_of(name), 2);
    cbuf_reader_close(&reader);
    /* The readers' file is the new ring's. */
    CHECK_IS(cbuf_reader_open(&reader, &old, NULL), CBUF_ERETIRED);
    cbuf_reader_close(&slow);
    cbuf_close(&old);
    cbuf_close(&unread);
    cbuf_close(&ring);
}

/* Makes the options those of another ring; false if there are no more such changes. */
static bool change_make(
    cbuf_options *options, int which, const char **what, uint64_t *is, uint64_t *wanted)
{
    static cbuf_column columns[4];
    memcpy(columns, tick_columns, sizeof tick_columns);
    options->columns = columns;
    *is = *wanted = 1; /* a digit that every path has */
    switch (which) {
    case 0: return options->capacity = 128, *what = "capacity", *is = 64, *wanted = 128, true;
    case 1: return options->row_bytes = 48, *what = "row_bytes", *is = 24, *wanted = 48, true;
    case 2: return options->layout = CBUF_DENSE, *what = "features", true;
    case 3: return options->max_readers = 5, *what = "max_readers", *is = 4, *wanted = 5, true;
    case 4: return options->reserve_step = 4, *what = "reserve_step", *is = 8, *wanted = 4, true;
    case 5: return options->on_full = CBUF_BLOCK, *what = "on_full", *is = 0, true;
    case 6: return options->column_count = 2, *what = "column_count", *is = 3, *wanted = 2, true;
    case 7: return columns[1].type = CBUF_UINT64, *what = "bid", true;
    case 8: return memcpy(columns[1].name, "ask", 4), *what = "ask", true;
    case 9: return options->locked = true, *what = "features", true;
    default: return false;
    }
}

static void a_mismatch_names_the_file_the_value_and_the_limit(void **state)
{
    cbuf_ring ring;
    struct traces before;
    const char *names[] = { new_name(), new_path() }, *what;
    uint64_t is, wanted;
    (void)state;
    for (int place = 0; place < 2; place++) {
        create(&ring, names[place]);
        write_ticks(&ring, 3);
        cbuf_close(&ring);
        traces_now(&before);
        for (int which = 0;; which++) {
            cbuf_options options = tick_options(names[place]);
            if (!change_make(&options, which, &what, &is, &wanted)) break;
            CHECK_IS_FOR(what, cbuf_create(&ring, &options), CBUF_EMISMATCH);
            CHECK_FOR(
                cbuf_error(&ring), says(&ring, file_of(names[place], "")) && says(&ring, what));
            CHECK_FOR(cbuf_error(&ring), says_number(&ring, is) && says_number(&ring, wanted));
            check_traces(&before, 64, what);
        }
        CHECK_IS(rows_of(names[place]), 3);
    }
}

static int replace_without_space(void *argument)
{
    const char *name = (const char *)argument;
    cbuf_ring ring;
    cbuf_reader reader;
    cbuf_stats stats;
    struct traces before;
    struct rlimit limit = { 65536, 65536 };
    create(&ring, name);
    write_ticks(&ring, 3);
    CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), 0);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    traces_now(&before);
    signal(SIGXFSZ, SIG_IGN);
    CHECK_IS(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cbuf_options options = tick_options(name);
    options.existing = CBUF_REPLACE;
    options.capacity = 1 << 20;
    CHECK_IS(cbuf_create(&ring, &options), CBUF_ENOSPACE);
    check_traces(&before, 64, "replacing");
    attach(&ring, name);
    CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
    CHECK(!stats.retired);
    cbuf_close(&ring);
    return rows_of(name) == 3 ? 0 : 1;
}
static void a_replacement_that_cannot_be_made_leaves_the_old_ring(void **state)
{
    (void)state;
    CHECK_IS(finish(start(replace_without_space, (void *)(uintptr_t)new_name())), 0);
    CHECK_IS(finish(start(replace_without_space, (void *)(uintptr_t)new_path())), 0);
}

static void only_a_ring_without_a_producer_is_removed(void **state)
{
    cbuf_ring ring, other;
    struct traces before;
    const char *name = new_name();
    (void)state;
    traces_now(&before);
    create(&ring, name);
    CHECK_IS(cbuf_remove(name), CBUF_EBUSY);
    attach(&other, name);
    cbuf_close(&ring);
    CHECK_IS(cbuf_remove(name), 0);
    CHECK_IS(cbuf_remove(name), CBUF_ENOENT);
    cbuf_close(&other);
    check_traces(&before, 64, "removing");
}

/* ---- what is no ring ---- */

enum thing {
    EMPTY, RUBBISH, SHORT, SPARSE, READERS,   /* files */
    DIRECTORY, LINK, DANGLING, FIFO, DEVICE, THINGS
};

/* Puts something else where a ring would be; false if this user may not. `ring` is the path of a
 * real one. */
static bool make_thing(int thing, const char *path, const char *ring)
{
    char bytes[8192];
    uint64_t seed = 1;
    for (size_t k = 0; k < sizeof bytes; k++) bytes[k] = (char)next_random(&seed);
    if (thing == DIRECTORY) return !mkdir(path, 0700);
    if (thing == LINK) return !symlink(file_of(ring, ""), path);
    if (thing == DANGLING) return !symlink(file_of(ring, ".nothing"), path);
    if (thing == FIFO) return !mkfifo(path, 0600);
    if (thing == DEVICE) return !mknod(path, S_IFCHR | 0600, makedev(1, 3));
    if (thing == READERS) return !link(file_of(ring, ".readers"), path);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
    CHECK(fd >= 0);
    if (thing == RUBBISH) CHECK_IS(write(fd, bytes, sizeof bytes), sizeof bytes);
    if (thing == SHORT) CHECK_IS(write(fd, "cbuf\r\n\032", 8), 8);
    if (thing == SPARSE) CHECK_IS(ftruncate(fd, 1 << 30), 0);
    close(fd);
    return true;
}

static void what_is_no_ring_is_refused_and_left_alone(void **state)
{
    cbuf_ring ring;
    struct traces before;
    struct stat was, is;
    const char *real = new_path(); /* in one file system with what links to it */
    (void)state;
    create(&ring, real);
    cbuf_close(&ring);
    for (int thing = 0; thing < THINGS; thing++) {
        char text[40];
        snprintf(text, sizeof text, "thing %d", thing);
        const char *path = new_path();
        if (!make_thing(thing, path, real)) continue;
        CHECK_IS(lstat(path, &was), 0);
        traces_now(&before);
        int error = cbuf_attach(&ring, path, NULL);
        bool followed = thing != LINK && thing != DANGLING;
        CHECK_FOR(cbuf_error(&ring), error == (followed ? CBUF_EFORMAT : CBUF_EACCES) ||
                (thing == DEVICE && error == CBUF_EACCES)); /* on a file system without them */
        CHECK_FOR(cbuf_error(&ring), says(&ring, path));
        CHECK_FOR(text, create_as(&ring, path, CBUF_RESUME) < 0);
        CHECK_FOR(cbuf_error(&ring), says(&ring, path));
        CHECK_FOR(text, create_as(&ring, path, CBUF_REPLACE) < 0);
        CHECK_IS_FOR(text, create_as(&ring, path, CBUF_NEW), CBUF_EEXIST);
        CHECK_FOR(text, cbuf_remove(path) < 0);
        CHECK_IS(lstat(path, &is), 0);
        CHECK_FOR(text,
            was.st_ino == is.st_ino && was.st_size == is.st_size &&
                was.st_mtim.tv_nsec == is.st_mtim.tv_nsec);
        check_traces(&before, 64, text);
    }
    CHECK_IS(rows_of(real), 0);
}

static void a_lock_or_readers_file_that_is_none_is_an_error(void **state)
{
    cbuf_ring ring;
    const char *real = new_path();
    (void)state;
    create(&ring, real);
    cbuf_close(&ring);
    for (int thing = 0; thing < THINGS; thing++) {
        if (thing <= READERS) continue;
        const char *suffixes[] = { ".lock", ".readers" };
        for (int k = 0; k < 2; k++) {
            const char *path = new_path();
            create(&ring, path);
            cbuf_close(&ring);
            unlink(file_of(path, suffixes[k]));
            if (!make_thing(thing, file_of(path, suffixes[k]), real)) continue;
            int error = create_as(&ring, path, CBUF_RESUME);
            if (!error) cbuf_close(&ring); /* a new .readers was made */
            CHECK_FOR(suffixes[k], k == 1 || error < 0);
            error = cbuf_attach(&ring, path, NULL);
            if (!error) cbuf_close(&ring);
            CHECK_IS(attach_as_observer(&ring, path, false), 0);
            cbuf_close(&ring);
        }
    }
}

/* ---- damage ---- */

static void read_file(const char *path, void *bytes, size_t n)
{
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    CHECK_IS(pread(fd, bytes, n, 0), n);
    close(fd);
}
static void write_file(const char *path, size_t at, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0);
    CHECK_IS(pwrite(fd, bytes, n, (off_t)at), n);
    close(fd);
}

/* Whatever a ring's bytes say, these calls come back and stay within the mapping. */
static void use(cbuf_ring *ring)
{
    static unsigned char rows[4u << 20];
    const unsigned char *base = (const unsigned char *)(const void *)ring->file;
    const unsigned char *end = base + ring->file_bytes;
    const void *peeked;
    cbuf_reader reader;
    cbuf_stats stats;
    cbuf_reader_stats reader_stats;
    cbuf_column column;
    size_t bytes;
    uint32_t most = (uint32_t)(sizeof rows / ring->row_bytes);
    CHECK(ring->rows >= base && ring->rows <= end &&
        ring->capacity * ring->stride <= (uint64_t)(end - ring->rows));
    const cbuf_options *o = cbuf_resolved(ring);
    const unsigned char *schema = (const unsigned char *)cbuf_schema(ring, &bytes);
    const unsigned char *gates = (const unsigned char *)(const void *)ring->gates;
    CHECK(schema >= base && schema + bytes <= end && gates + 8u * o->max_readers <= ring->rows);
    CHECK(o->capacity >= 2 && !(o->capacity & (o->capacity - 1)) && o->reserve_step >= 1 &&
        o->reserve_step <= o->capacity / 2);
    CHECK(o->on_full <= CBUF_DROP_NEWEST && o->layout <= CBUF_DENSE && o->max_readers >= 1 &&
        o->max_readers <= CBUF_MAX_READERS);
    uint32_t columns = 0;
    for (; cbuf_column_at(ring, columns, &column) == 0; columns++)
        CHECK(column.offset + CBUF_TYPE_BYTES(column.type) <= ring->row_bytes);
    CHECK_IS(columns, o->column_count);
    cbuf_latest(ring, rows, NULL);
    cbuf_snapshot(ring, rows, most < 64 ? most : 64, NULL);
    cbuf_snapshot(ring, rows, most, NULL);
    cbuf_stats_get(ring, &stats);
    for (uint32_t k = 0; k < cbuf_resolved(ring)->max_readers && k < 16; k++)
        cbuf_reader_stats_get(ring, k, &reader_stats);
    for (int kind = 0; kind < 2; kind++) {
        if ((kind ? open_anonymous(&reader, ring) : cbuf_reader_open(&reader, ring, NULL)) != 0)
            continue;
        for (int k = 0; k < 4; k++) cbuf_read(&reader, rows, most < 32 ? most : 32);
        const void *first = ring->rows, *last = end - ring->stride;
        CHECK(cbuf_peek(&reader, 1, &peeked) <= 0 || (peeked >= first && peeked <= last));
        cbuf_seek(&reader, 0);
        cbuf_wait(&reader, 1, 0);
        cbuf_read(&reader, rows, 1);
        cbuf_reader_close(&reader);
    }
}

struct damage {
    const char *name;
    unsigned char whole[16384], readers[4096], damaged[16384];
    size_t bytes, first_bytes; /* of the file; of what stands before the rows */
    uint64_t worked, refused, resumed;
};

/* What a small ring, which wrapped, is made with to be damaged; some have delta columns. */
static cbuf_options options_to_damage(const char *name, uint8_t layout, bool delta)
{
    static const cbuf_delta deltas[] = { { "time", 8, 0 }, { "bid", 16, 0.5 }, { "size", 8, 0 } };
    cbuf_options options = tick_options(name);
    options.capacity = 8;
    options.reserve_step = 1;
    options.layout = layout;
    options.max_readers = 2;
    options.deltas = deltas;
    options.delta_count = delta ? 3 : 0;
    options.block_rows = 2;
    return options;
}
static void make_whole(struct damage *damage, const char *name, uint8_t layout, bool delta)
{
    cbuf_ring ring;
    struct stat file;
    cbuf_options options = options_to_damage(name, layout, delta);
    CHECK_IS(cbuf_create(&ring, &options), 0);
    write_ticks(&ring, 13);
    damage->first_bytes = (size_t)(ring.rows - (unsigned char *)(void *)ring.file);
    cbuf_close(&ring);
    damage->name = name;
    CHECK_IS(stat(file_of(name, ""), &file), 0);
    damage->bytes = (size_t)file.st_size;
    CHECK(damage->bytes <= sizeof damage->whole);
    read_file(file_of(name, ""), damage->whole, damage->bytes);
    read_file(file_of(name, ".readers"), damage->readers, sizeof damage->readers);
}

/* Attaches to the damaged ring, and continues it, and puts all back. */
static void try_damaged(struct damage *damage, bool resume)
{
    cbuf_ring ring;
    struct tick tick;
    write_file(file_of(damage->name, ""), 0, damage->damaged, damage->bytes);
    int error = resume ? cbuf_attach(&ring, damage->name, NULL)
                       : attach_as_observer(&ring, damage->name, false);
    CHECK_FOR(cbuf_error(&ring),
        error == 0 ||
            (error < 0 && says(&ring, damage->name) &&
                strlen(cbuf_error(&ring)) > strlen(damage->name) + 12));
    if (error) damage->refused++;
    else use(&ring), cbuf_close(&ring), damage->worked++;
    if (!resume) return;
    unsigned features = damage->whole[offsetof(cbuf__facts, features)];
    cbuf_options options = options_to_damage(damage->name,
        features & CBUF__DENSE ? CBUF_DENSE : CBUF_NUMBERED, (features & CBUF__DELTA) != 0);
    if (cbuf_create(&ring, &options) != 0) return;
    damage->resumed++;
    memset(&tick, 0, sizeof tick);
    for (int k = 0; k < 20; k++) CHECK_IS(cbuf_write(&ring, &tick), 1);
    use(&ring);
    cbuf_close(&ring);
    write_file(file_of(damage->name, ".readers"), 0, damage->readers, sizeof damage->readers);
}

/* Each bit of each byte before the rows, and each byte replaced by another. */
static int damage_each_byte(void *argument)
{
    struct damage *damage = (struct damage *)argument;
    alarm(100); /* none may wait for ever either */
    uint64_t seed = 11;
    size_t end = sizeof(struct cbuf__file);
    while (end < damage->first_bytes && damage->whole[end]) end++; /* the schema's end, and */
    end += damage->first_bytes - end > 64 ? 64 : damage->first_bytes - end; /* some of the rest */
    for (size_t at = 0; at < end; at++) {
        for (int way = 0; way < 10; way++) {
            memcpy(damage->damaged, damage->whole, damage->bytes);
            if (way < 8) damage->damaged[at] ^= (unsigned char)(1 << way);
            else damage->damaged[at] = way == 8 ? 0xff : (unsigned char)next_random(&seed);
            try_damaged(damage, way >= 7);
        }
    }
    return 0;
}
/* A few bytes at once, also among the rows. */
static int damage_some_bytes(void *argument)
{
    struct damage *damage = (struct damage *)argument;
    alarm(100); /* none may wait for ever either */
    uint64_t seed = 12;
    for (int k = 0; k < 3000; k++) {
        memcpy(damage->damaged, damage->whole, damage->bytes);
        for (uint64_t n = 1 + next_random(&seed) % 4; n; n--) {
            uint64_t place = next_random(&seed) % 4;
            const size_t from[] = { 0, 256, sizeof(struct cbuf__file), damage->first_bytes };
            const size_t bytes[] = { sizeof(cbuf__facts), 768, 512, 512 };
            size_t at = from[place] + (size_t)next_random(&seed) % bytes[place];
            if (at >= damage->bytes) continue;
            if (next_random(&seed) % 2) damage->damaged[at] = (unsigned char)next_random(&seed);
            else memset(damage->damaged + at / 8 * 8, next_random(&seed) % 2 ? 0xff : 0x7f, 8);
        }
        try_damaged(damage, true);
    }
    return 0;
}
/* Counters that no producer would have left. */
static int damage_counters(void *argument)
{
    struct damage *damage = (struct damage *)argument;
    alarm(100); /* none may wait for ever either */
    const uint64_t odd[] = { 0, 1, 7, 8, 9, 12, 14, 20, 22, 1u << 31, UINT32_MAX, 1ull << 32,
        1ull << 62, 1ull << 63, UINT64_MAX - 8, UINT64_MAX };
    const size_t n = sizeof odd / sizeof odd[0];
    for (size_t k = 0; k < n * n; k++) {
        memcpy(damage->damaged, damage->whole, damage->bytes);
        memcpy(damage->damaged + offsetof(struct cbuf__file, head), &odd[k / n], 8);
        memcpy(damage->damaged + offsetof(struct cbuf__file, reserve), &odd[k % n], 8);
        try_damaged(damage, true);
    }
    return 0;
}

static void a_damaged_ring_gives_an_error_or_works(void **state)
{
    (void)state;
    struct damage *damage = (struct damage *)shared_memory(sizeof *damage);
    for (int kind = 0; kind < 4; kind++) {
        make_whole(damage, new_name(), (uint8_t)(kind % 2), kind > 1);
        CHECK_IS(finish(start(damage_each_byte, damage)), 0);
        CHECK_IS(finish(start(damage_some_bytes, damage)), 0);
        CHECK_IS(finish(start(damage_counters, damage)), 0);
    }
    print_message("damage: %llu refused, %llu worked, %llu resumed\n",
        (unsigned long long)damage->refused, (unsigned long long)damage->worked,
        (unsigned long long)damage->resumed);
    CHECK(damage->refused > 1000 && damage->worked > 1000 && damage->resumed > 100);
    munmap(damage, sizeof *damage);
}

static int cut_at_each_length(void *argument)
{
    struct damage *damage = (struct damage *)argument;
    alarm(100); /* none may wait for ever either */
    const char *path = file_of(damage->name, "");
    cbuf_ring ring;
    struct traces before;
    traces_now(&before);
    for (size_t length = 0; length < damage->bytes;
         length += length < damage->first_bytes ? 1 : 61) {
        CHECK_IS(truncate(path, (off_t)length), 0);
        CHECK_IS(cbuf_attach(&ring, damage->name, NULL), CBUF_EFORMAT);
        if (length % 16 == 0) CHECK(create_as(&ring, damage->name, CBUF_RESUME) < 0);
        CHECK_IS(truncate(path, (off_t)damage->bytes), 0);
        write_file(path, 0, damage->whole, damage->bytes);
    }
    CHECK_IS(truncate(path, (off_t)damage->bytes + 1), 0);
    CHECK_IS(cbuf_attach(&ring, damage->name, NULL), CBUF_EFORMAT);
    CHECK_FOR(cbuf_error(&ring), says(&ring, damage->name));
    CHECK_IS(truncate(path, (off_t)damage->bytes), 0);
    check_traces(&before, 64, "cut");
    return rows_of(damage->name) > 0 ? 0 : 1;
}
static void a_ring_cut_at_any_length_is_refused(void **state)
{
    (void)state;
    struct damage *damage = (struct damage *)shared_memory(sizeof *damage);
    make_whole(damage, new_name(), CBUF_NUMBERED, false);
    CHECK_IS(finish(start(cut_at_each_length, damage)), 0);
    munmap(damage, sizeof *damage);
}

/* Attaches to the ring with `n` bytes of its facts changed, and puts them back. */
static int attach_with(
    cbuf_ring *ring, const struct damage *damage, size_t at, const void *bytes, size_t n)
{
    write_file(file_of(damage->name, ""), at, bytes, n);
    int error = cbuf_attach(ring, damage->name, NULL);
    CHECK(create_as(ring, damage->name, CBUF_RESUME) < 0); /* of another make, if nothing else */
    if (error) CHECK_IS(cbuf_attach(ring, damage->name, NULL), error);
    write_file(file_of(damage->name, ""), at, damage->whole + at, n);
    return error;
}

static void another_format_is_told_from_a_damaged_one(void **state)
{
    (void)state;
    struct damage *damage = (struct damage *)shared_memory(sizeof *damage);
    cbuf_ring ring;
    uint16_t version = 2;
    uint32_t swapped = __builtin_bswap32(CBUF__BYTE_ORDER), rubbish = 0x12345678;
    make_whole(damage, new_name(), CBUF_NUMBERED, false);
    CHECK_IS(attach_with(&ring, damage, offsetof(cbuf__facts, major), &version, 2), CBUF_EVERSION);
    CHECK_FOR(cbuf_error(&ring),
        says(&ring, damage->name) && says(&ring, "version") && says_number(&ring, 2));
    CHECK_IS(attach_with(&ring, damage, offsetof(cbuf__facts, byte_order), &swapped, 4),
        CBUF_EBYTEORDER);
    CHECK_IS(
        attach_with(&ring, damage, offsetof(cbuf__facts, byte_order), &rubbish, 4), CBUF_EFORMAT);
    CHECK_IS(attach_with(&ring, damage, 0, "CBUF", 4), CBUF_EFORMAT);
    for (int bit = 0; bit < 64; bit++) {
        uint64_t features = 1ull << bit;
        if (features & CBUF__KNOWN) continue;
        CHECK_IS(attach_with(&ring, damage, offsetof(cbuf__facts, features), &features, 8),
            CBUF_EFEATURE);
        CHECK_FOR(cbuf_error(&ring), says(&ring, damage->name) && says_number(&ring, features));
    }
    version = 77; /* a newer minor version is read */
    write_file(file_of(damage->name, ""), offsetof(cbuf__facts, minor), &version, 2);
    CHECK_IS(rows_of(damage->name), 8);
    munmap(damage, sizeof *damage);
}

static void a_ring_larger_than_the_address_space_is_refused(void **state)
{
    (void)state;
    struct damage *damage = (struct damage *)shared_memory(sizeof *damage);
    cbuf_ring ring;
    cbuf__facts facts;
    struct tick tick;
    if (sizeof(off_t) < 8) skip(); /* such a file cannot be opened */
    make_whole(damage, new_name(), CBUF_NUMBERED, false);
    memcpy(&facts, damage->whole, sizeof facts);
    facts.capacity = 1 << 28; /* times 24 bytes; a sparse file */
    facts.file_bytes = facts.rows_offset + facts.capacity * facts.stride;
    CHECK_IS(truncate(file_of(damage->name, ""), (off_t)facts.file_bytes), 0);
    write_file(file_of(damage->name, ""), 0, &facts, sizeof facts);
    int error = attach_as_observer(&ring, damage->name, false);
    CHECK_IS_FOR(cbuf_error(&ring), error != 0, sizeof(void *) < 8);
    if (!error) CHECK(cbuf_latest(&ring, &tick, NULL) >= 0);
    cbuf_close(&ring);
    munmap(damage, sizeof *damage);
}

/* ---- the readers' file ---- */

/* What a ring with a lost or foreign readers' file still does: rows can be seen, and its next
 * producer makes another. */
static void check_readers_file(const char *name, int attach_gives, const char *detail)
{
    cbuf_ring ring;
    cbuf_reader reader;
    int error = cbuf_attach(&ring, name, NULL);
    CHECK_IS_FOR(detail, error, attach_gives);
    if (error) CHECK_FOR(cbuf_error(&ring), says(&ring, name) && says(&ring, ".readers"));
    if (!error) CHECK_IS_FOR(detail, cbuf_reader_open(&reader, &ring, NULL), CBUF_EACCES);
    if (!error) cbuf_close(&ring);
    CHECK_IS(attach_as_observer(&ring, name, false), 0);
    CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), CBUF_EACCES);
    CHECK_IS(open_anonymous(&reader, &ring), 0);
    CHECK_IS(read_ticks(&reader), 3);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    create(&ring, name);
    CHECK_IS_FOR(detail, cbuf_reader_open(&reader, &ring, NULL), 0);
    CHECK_IS(read_ticks(&reader), 3);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    attach(&ring, name);
    CHECK_IS_FOR(detail, cbuf_reader_open(&reader, &ring, NULL), 0);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
}

static void a_lost_or_foreign_readers_file_hides_no_row_and_is_made_again(void **state)
{
    cbuf_ring ring, other;
    (void)state;
    const char *names[] = { new_name(), new_path() };
    for (int k = 0; k < 2; k++) {
        const char *readers = file_of(names[k], ".readers"), *foreign = k ? new_path() : new_name();
        uint64_t odd = 5;
        create(&ring, names[k]);
        write_ticks(&ring, 3);
        cbuf_close(&ring);
        create(&other, foreign);
        cbuf_close(&other);
        CHECK_IS(unlink(readers), 0);
        check_readers_file(names[k], 0, "missing");
        CHECK_IS(truncate(readers, 0), 0);
        check_readers_file(names[k], CBUF_EFORMAT, "empty");
        CHECK_IS(truncate(readers, 1000), 0);
        check_readers_file(names[k], CBUF_EFORMAT, "cut");
        write_file(readers, 0, "xx", 2);
        check_readers_file(names[k], CBUF_EFORMAT, "no mark");
        write_file(readers, offsetof(struct cbuf__readers, max_readers), &odd, 8);
        check_readers_file(names[k], CBUF_EFORMAT, "slots");
        CHECK_IS(rename(file_of(foreign, ".readers"), readers), 0);
        check_readers_file(names[k], CBUF_EFORMAT, "another ring's");
    }
}

static int write_past_rubbish(void *argument)
{
    const char *name = (const char *)argument;
    uint64_t seed = 5;
    for (int round = 0; round < 200; round++) {
        unsigned char rubbish[640 + 4 * 256];
        cbuf_ring ring;
        cbuf_reader reader;
        cbuf_reader_stats stats;
        cbuf_options options = tick_options(name);
        options.existing = CBUF_REPLACE;
        options.on_full = (uint8_t)(round % 3);
        options.block_ns = 100000;
        CHECK_IS(cbuf_create(&ring, &options), 0);
        int opened = cbuf_reader_open(&reader, &ring, NULL);
        CHECK_IS(opened, 0);
        for (size_t k = 0; k < sizeof rubbish; k++)
            rubbish[k] = round % 2 ? (unsigned char)next_random(&seed) : 0xff;
        for (int k = 0; k < 200; k++) {
            struct tick tick;
            memset(&tick, 0, sizeof tick);
            tick.size = (uint32_t)cbuf_head(&ring);
            int written = cbuf_write(&ring, &tick);
            CHECK(written == 1 || written == (options.on_full == CBUF_BLOCK ? CBUF_ETIMEDOUT : 0));
            /* Its mark stays. */
            if (k == 20)
                write_file(file_of(name, ".readers"), 24, rubbish + 24, sizeof rubbish - 24);
            if (k % 50 == 49) CHECK(read_ticks(&reader) >= 0);
            if (written != 1) break;
        }
        for (uint32_t k = 0; k < 4; k++) CHECK(cbuf_reader_stats_get(&ring, k, &stats) >= 0);
        cbuf_reader_close(&reader);
        cbuf_close(&ring);
    }
    return 0;
}
static void rubbish_in_the_readers_file_changes_no_row_and_crashes_nobody(void **state)
{
    (void)state;
    CHECK_IS(finish(start(write_past_rubbish, (void *)(uintptr_t)new_name())), 0);
}

/* ---- rings that go away ---- */

static void a_reader_notices_that_its_ring_is_gone(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) { /* removed, unlinked by hand, cut by hand */
        for (int observer = 0; observer < 2; observer++) {
            const char *name = new_name();
            cbuf_ring ring, mine;
            cbuf_reader reader;
            cbuf_reader_options options;
            memset(&options, 0, sizeof options);
            options.anonymous = observer;
            options.wait = CBUF_YIELD;
            create(&ring, name);
            write_ticks(&ring, 3);
            attach(&mine, name);
            CHECK_IS(cbuf_reader_open(&reader, &mine, &options), 0);
            if (way == 0) cbuf_close(&ring);
            if (way == 0) CHECK_IS(cbuf_remove(name), 0);
            if (way == 1) CHECK_IS(unlink(file_of(name, "")), 0);
            if (way == 2) CHECK_IS(truncate(file_of(name, ""), (off_t)ring.file_bytes - 1), 0);
            /* What is there comes first. */
            CHECK_IS(cbuf_wait(&reader, 4, 10000000000), way == 2 ? CBUF_EFORMAT : 3);
            CHECK_IS(read_ticks(&reader), 3);
            CHECK_IS(cbuf_wait(&reader, 1, 10000000000), way == 2 ? CBUF_EFORMAT : CBUF_ERETIRED);
            cbuf_reader_close(&reader);
            cbuf_close(&mine);
            if (way) cbuf_close(&ring);
        }
    }
}

static void a_removed_ring_takes_no_new_readers(void **state)
{
    cbuf_ring ring, mine;
    cbuf_reader reader;
    const char *name = new_name();
    (void)state;
    create(&ring, name);
    attach(&mine, name);
    cbuf_close(&ring);
    CHECK_IS(cbuf_remove(name), 0);
    CHECK_IS(cbuf_reader_open(&reader, &mine, NULL), CBUF_ERETIRED);
    cbuf_close(&mine);
}

struct race {
    const char *name;
    uint64_t inside, created, refused;
};
static int race_to_produce(void *argument)
{
    struct race *race = (struct race *)argument;
    uint64_t seed = (uint64_t)getpid();
    for (int k = 0; k < 300; k++) {
        cbuf_ring ring;
        uint8_t existing = (uint8_t)(next_random(&seed) % 3);
        int error = create_as(&ring, race->name, existing);
        if (!error) {
            CHECK_IS(__atomic_exchange_n(&race->inside, 1, __ATOMIC_SEQ_CST), 0);
            __atomic_add_fetch(&race->created, 1, __ATOMIC_SEQ_CST);
            write_ticks(&ring, 1);
            if (k % 8 == 0) sched_yield();
            __atomic_store_n(&race->inside, 0, __ATOMIC_SEQ_CST);
            cbuf_close(&ring);
        } else {
            CHECK_FOR(cbuf_error(&ring),
                error == CBUF_EBUSY || (error == CBUF_EEXIST && existing == CBUF_NEW));
            __atomic_add_fetch(&race->refused, 1, __ATOMIC_SEQ_CST);
        }
        if (next_random(&seed) % 4 == 0) error = cbuf_remove(race->name);
        CHECK(error == 0 || error == CBUF_EBUSY || error == CBUF_ENOENT || error == CBUF_EEXIST);
    }
    return 0;
}
static void however_many_try_at_once_one_is_the_producer(void **state)
{
    pid_t children[4];
    struct traces before;
    (void)state;
    struct race *race = (struct race *)shared_memory(sizeof *race);
    race->name = new_name();
    traces_now(&before);
    for (int k = 0; k < 4; k++) children[k] = start(race_to_produce, race);
    for (int k = 0; k < 4; k++) CHECK_IS(finish(children[k]), 0);
    CHECK(race->created > 0 && race->refused > 0);
    int error = cbuf_remove(race->name);
    CHECK(error == 0 || error == CBUF_ENOENT);
    check_traces(&before, 64, "a race");
    munmap(race, sizeof *race);
}

static int replace_again_and_again(void *argument)
{
    for (int k = 0; k < 400; k++) {
        cbuf_ring ring;
        CHECK_IS(create_as(&ring, (const char *)argument, CBUF_REPLACE), 0);
        write_ticks(&ring, 1);
        cbuf_close(&ring);
    }
    return 0;
}
/* Only who stands still just where one file is new and the other is not can keep others from
 * attaching. */
static void a_ring_that_is_being_replaced_can_be_attached(void **state)
{
    const char *name = new_name();
    cbuf_ring ring;
    siginfo_t end;
    uint64_t attached = 0, failed = 0;
    (void)state;
    create(&ring, name);
    cbuf_close(&ring);
    pid_t child = start(replace_again_and_again, (void *)(uintptr_t)name);
    for (memset(&end, 0, sizeof end); !end.si_pid;) {
        int error = cbuf_attach(&ring, name, NULL);
        CHECK_FOR(
            cbuf_error(&ring), error == 0 || (error == CBUF_EFORMAT && says(&ring, ".readers")));
        CHECK(error || ring.readers != NULL);
        attached += error == 0;
        failed += error != 0;
        cbuf_close(&ring);
        CHECK_IS(waitid(P_PID, (id_t)child, &end, WEXITED | WNOHANG | WNOWAIT), 0);
    }
    CHECK_IS(finish(child), 0);
    CHECK(attached > failed);
}

/* ---- space ---- */

static int fill_the_ring(cbuf_ring *ring)
{
    write_ticks(ring, 2 * (int)ring->capacity);
    cbuf_close(ring);
    return 0;
}
/* With files of at most so many bytes. */
static int create_within_limit(void *argument)
{
    signal(SIGXFSZ, SIG_IGN);
    const char *name = (const char *)argument;
    int made = 0, refused = 0;
    struct traces before;
    traces_now(&before);
    for (rlim_t bytes = 0; bytes <= 256 * 1024; bytes += 4096) {
        struct rlimit limit = { bytes, RLIM_INFINITY };
        cbuf_ring ring;
        cbuf_options options = tick_options(name);
        options.capacity = 4096;
        options.max_readers = 600;
        CHECK_IS(setrlimit(RLIMIT_FSIZE, &limit), 0);
        int error = cbuf_create(&ring, &options);
        CHECK_FOR(cbuf_error(&ring), error == 0 || error == CBUF_ENOSPACE);
        if (error)
            CHECK_FOR(
                cbuf_error(&ring), says(&ring, file_of(name, "")) && says(&ring, "bytes wanted"));
        if (!error) CHECK_IS(fill_the_ring(&ring), 0);
        if (!error) CHECK_IS(cbuf_remove(name), 0);
        made += !error;
        refused += error != 0;
        check_traces(&before, 64, "a limit");
    }
    return made > 0 && refused > 30 ? 0 : 1;
}
static void a_limit_of_file_size_is_an_error_at_create(void **state)
{
    (void)state;
    CHECK_IS(finish(start(create_within_limit, (void *)(uintptr_t)new_name())), 0);
    CHECK_IS(finish(start(create_within_limit, (void *)(uintptr_t)new_path())), 0);
}

/* Mounts a tmpfs that only this process and its children see; false if it may not. */
static bool mount_small(const char *path, const char *options, bool again)
{
    if (again) return !mount("none", path, "tmpfs", MS_REMOUNT, options);
    mkdir(path, 0700);
    return !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
        !mount("none", path, "tmpfs", 0, options);
}

#define SKIPPED 77
static int create_on_full(void *argument)
{
    char path[200], options_text[64], left[512];
    int made = 0, refused = 0;
    (void)argument;
    snprintf(path, sizeof path, "%s/full", scene.directory);
    if (!mount_small(path, "size=4k", false)) return SKIPPED;
    for (int pages = 1; pages < 100; pages++) {
        char name[220];
        cbuf_ring ring;
        snprintf(name, sizeof name, "%s/r", path);
        snprintf(options_text, sizeof options_text, "size=%dk,nr_inodes=%d", pages * 4,
            made < 20 ? 1000 : 2 + pages % 5);
        CHECK(mount_small(path, options_text, true));
        cbuf_options options = tick_options(name);
        options.capacity = 2048;
        options.max_readers = 100;
        int error = cbuf_create(&ring, &options);
        CHECK_FOR(cbuf_error(&ring), error == 0 || error == CBUF_ENOSPACE);
        if (error) CHECK_FOR(cbuf_error(&ring), says(&ring, name));
        if (!error) CHECK_IS(fill_the_ring(&ring), 0); /* all of it is there: no SIGBUS */
        if (!error) CHECK_IS(cbuf_remove(name), 0);
        made += !error;
        refused += error != 0;
        *left = 0;
        list_directory(path, "", left, sizeof left);
        CHECK_FOR(left, !*left);
    }
    return made > 0 && refused > 20 ? 0 : 1;
}
static void a_full_file_system_is_an_error_at_create(void **state)
{
    (void)state;
    int result = finish(start(create_on_full, NULL));
    if (result == SKIPPED) skip();
    CHECK_IS(result, 0);
}

/* Rows whose values do not fit: as many of them are refused as the disk has no room for, no other
 * row is lost, and the ring goes on where there is room again. */
static int escape_on_full(void *argument)
{
    static const cbuf_delta deltas[] = { { "time", 8, 0 }, { "size", 8, 0 } };
    char path[200], name[220];
    cbuf_ring ring;
    uint64_t written = 0, escapes = 0;
    (void)argument;
    snprintf(path, sizeof path, "%s/full", scene.directory);
    if (!mount_small(path, "size=1m", false)) return SKIPPED;
    snprintf(name, sizeof name, "%s/r", path);
    cbuf_options options = tick_options(name);
    options.capacity = 8192;
    options.deltas = deltas;
    options.delta_count = 2;
    CHECK_IS(cbuf_create(&ring, &options), 0);
    for (int refused = 0, pages = 0; refused < 4;) {
        struct tick ticks[7], back[7];
        memset(ticks, 0, sizeof ticks);
        for (uint32_t k = 0; k < 7; k++) {
            ticks[k].time = (int64_t)(written + k) << 20;
            ticks[k].size = (uint32_t)(written + k);
        }
        int64_t n = cbuf_write_n(&ring, ticks, 7);
        CHECK(n == CBUF_ENOSPACE || (n > 0 && n <= 7));
        if (n == CBUF_ENOSPACE) { /* nothing was lost: a little more room, and again */
            char room[64];
            CHECK_IS(cbuf_head(&ring), written);
            CHECK_IS(cbuf_write(&ring, ticks), CBUF_ENOSPACE);
            ticks[0].time = ticks[1].time = 0;
            snprintf(room, sizeof room, "size=%dk", 184 + 4 * ++pages);
            refused++;
            CHECK(mount_small(path, refused == 4 ? "size=64m" : room, true));
            continue;
        }
        written += (uint64_t)n;
        CHECK(written < options.capacity);
        CHECK_IS(cbuf_head(&ring), written);
        if (written == 7) CHECK(mount_small(path, "size=184k", true));
        uint64_t first;
        CHECK_IS(cbuf_snapshot(&ring, back, (uint32_t)n, &first), n);
        for (int64_t k = 0; k < n; k++) {
            CHECK_IS(back[k].time, (int64_t)(first + (uint64_t)k) << 20);
            CHECK_IS(back[k].size, first + (uint64_t)k);
        }
    }
    CHECK_IS(cbuf_delta_at(&ring, 0, NULL, &escapes), 0);
    CHECK(escapes > written / 2 && written > 512);
    cbuf_close(&ring);
    CHECK_IS(cbuf_create(&ring, &options), 0);
    CHECK_IS(cbuf_head(&ring), written);
    cbuf_close(&ring);
    return cbuf_remove(name);
}
static void escapes_on_a_full_file_system_are_refused_and_nothing_else_is_lost(void **state)
{
    (void)state;
    int result = finish(start(escape_on_full, NULL));
    if (result == SKIPPED) skip();
    CHECK_IS(result, 0);
}

static int create_without_proc(void *argument)
{
    const char *name = (const char *)argument;
    cbuf_ring ring;
    cbuf_memory_info info;
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", "/proc", "tmpfs", 0, "size=4k"))
        return SKIPPED;
    create(&ring, name);
    write_ticks(&ring, 3);
    CHECK_IS(cbuf_memory_info_get(&ring, &info), CBUF_ESYSTEM);
    cbuf_close(&ring);
    CHECK_IS(create_as(&ring, name, CBUF_NEW), CBUF_EEXIST);
    CHECK_IS(rows_of(name), 3);
    CHECK_IS(create_as(&ring, name, CBUF_REPLACE), 0);
    cbuf_close(&ring);
    CHECK_IS(rows_of(name), 0);
    CHECK_IS(cbuf_remove(name), 0);
    return 0;
}
static void a_ring_can_be_made_without_proc(void **state)
{
    struct traces before;
    (void)state;
    const char *names[] = { new_name(), new_path() };
    traces_now(&before);
    for (int k = 0; k < 2; k++) {
        int result = finish(start(create_without_proc, (void *)(uintptr_t)names[k]));
        if (result == SKIPPED) skip();
        CHECK_IS(result, 0);
    }
    check_traces(&before, 64, "without /proc");
}

/* ---- memory ---- */

static cbuf_options large_options(const char *name)
{
    cbuf_options options = tick_options(name);
    options.capacity = 1 << 18; /* 6 MiB */
    return options;
}
static uint64_t locked_bytes_of_process(void)
{
    char line[200];
    unsigned long long kilobytes = 0;
    FILE *status = fopen("/proc/self/status", "r");
    CHECK(status);
    while (fgets(line, sizeof line, status)) sscanf(line, "VmLck: %llu", &kilobytes);
    fclose(status);
    return kilobytes * 1024;
}

/* Not under a sanitizer, whose mlock does nothing and says that it did. */
static bool memory_can_be_locked(void)
{
    uint64_t before = locked_bytes_of_process();
    void *page = shared_memory(4096);
    bool locked = !is_emulated() && (mlock(page, 4096) != 0 || locked_bytes_of_process() > before);
    munmap(page, 4096);
    return locked;
}

static void memory_is_reported_as_the_kernel_has_it(void **state)
{
    cbuf_ring ring;
    cbuf_memory_info info;
    (void)state;
    if (!memory_can_be_locked()) skip();
    for (int want = 0; want < 16; want++) {
        cbuf_options options = large_options(new_name());
        options.memory.populate = want & 1 ? CBUF_WANT : 0;
        options.memory.lock = want & 2 ? CBUF_WANT : 0;
        options.memory.huge = want & 4 ? CBUF_WANT : 0;
        options.memory.numa = want & 8 ? CBUF_WANT : 0;
        uint64_t locked_before = locked_bytes_of_process();
        CHECK_IS(cbuf_create(&ring, &options), 0);
        CHECK_IS(cbuf_memory_info_get(&ring, &info), 0);
        CHECK_IS(info.bytes, ring.file_bytes);
        CHECK(info.resident <= info.bytes && info.locked <= info.resident &&
            info.huge <= info.resident);
        CHECK(info.page_size >= 4096 && (info.page_size & (info.page_size - 1)) == 0);
        CHECK_IS(info.locked, locked_bytes_of_process() - locked_before);
        if (want == 0) CHECK(info.resident < info.bytes && !info.locked);
        if (want & 1 && !info.populate_errno) CHECK(info.resident == info.bytes);
        CHECK(want & 1 || !info.populate_errno);
        CHECK(want & 2 ? (info.lock_errno == 0) == (info.locked == info.bytes)
                       : !info.lock_errno && !info.locked);
        if (want & 4 && !info.huge_errno) CHECK(info.huge >= 4u << 20);
        CHECK(want & 4 || !info.huge_errno);
        CHECK(want & 8 ? info.numa_errno != 0 || info.numa_node == 0 : !info.numa_errno);
        write_ticks(&ring, 10);
        cbuf_close(&ring);
        CHECK_IS(cbuf_remove(options.name), 0);
    }
}

static int lock_nothing(void *argument)
{
    const char *name = (const char *)argument;
    struct rlimit none = { 0, 0 };
    struct traces before;
    cbuf_ring ring;
    cbuf_memory_info info;
    cbuf_attach_options attach_options;
    if (geteuid() == 0) become(USER, USER);
    CHECK_IS(setrlimit(RLIMIT_MEMLOCK, &none), 0);
    traces_now(&before);
    cbuf_options options = large_options(name);
    options.memory.lock = CBUF_REQUIRE;
    CHECK_IS(cbuf_create(&ring, &options), CBUF_EMEMORY);
    CHECK_FOR(cbuf_error(&ring), says(&ring, name) && says(&ring, "lock") && says(&ring, "errno"));
    check_traces(&before, 64, "locking");
    options.memory.lock = CBUF_WANT;
    CHECK_IS(cbuf_create(&ring, &options), 0);
    CHECK_IS(cbuf_memory_info_get(&ring, &info), 0);
    CHECK(info.lock_errno == ENOMEM || info.lock_errno == EPERM);
    CHECK_IS(info.locked, 0);
    write_ticks(&ring, 3);
    memset(&attach_options, 0, sizeof attach_options);
    attach_options.memory.lock = CBUF_REQUIRE;
    cbuf_ring other;
    traces_now(&before);
    CHECK_IS(cbuf_attach(&other, name, &attach_options), CBUF_EMEMORY);
    check_traces(&before, 64, "locking at attach");
    cbuf_close(&ring);
    options.memory.lock = CBUF_REQUIRE; /* a resume that fails leaves the ring as it was */
    CHECK_IS(cbuf_create(&ring, &options), CBUF_EMEMORY);
    attach(&ring, name);
    cbuf_stats stats;
    CHECK_IS(cbuf_stats_get(&ring, &stats), 0);
    CHECK(stats.closed && stats.epoch == 1 && stats.written == 3);
    cbuf_close(&ring);
    return 0;
}
static void what_is_required_and_refused_is_an_error_and_what_is_wanted_is_told(void **state)
{
    cbuf_ring ring;
    cbuf_memory_info info;
    struct traces before;
    (void)state;
    if (!memory_can_be_locked()) skip();
    CHECK_IS(finish(start(lock_nothing, (void *)(uintptr_t)new_name())), 0);
    traces_now(&before);
    cbuf_options options = large_options(new_name());
    options.memory.numa = CBUF_REQUIRE;
    options.memory.numa_node = 1000;
    CHECK_IS(cbuf_create(&ring, &options), CBUF_EMEMORY);
    CHECK_FOR(cbuf_error(&ring), says(&ring, options.name) && says(&ring, "numa"));
    check_traces(&before, 64, "NUMA node");
    options.memory.numa = CBUF_WANT;
    CHECK_IS(cbuf_create(&ring, &options), 0);
    CHECK_IS(cbuf_memory_info_get(&ring, &info), 0);
    CHECK(info.numa_errno != 0);
    cbuf_close(&ring);
}

static void options_can_be_read_back(void **state)
{
    cbuf_ring ring, other;
    const char *name = new_name();
    (void)state;
    cbuf_options options = tick_options(name);
    create(&ring, name);
    const cbuf_options *is = cbuf_resolved(&ring);
    CHECK(is->capacity == 64 && is->row_bytes == sizeof(struct tick) && is->column_count == 3 &&
        is->reserve_step == 8);
    CHECK(is->max_readers == 4 && is->layout == CBUF_NUMBERED && is->on_full == CBUF_OVERWRITE &&
        !is->name && !is->columns);
    cbuf_close(&ring);
    options.reserve_step = 0; /* whatever it is, where a ring is continued */
    CHECK_IS(cbuf_create(&ring, &options), 0);
    CHECK_IS(cbuf_resolved(&ring)->reserve_step, 8);
    cbuf_close(&ring);
    options.name = name = new_name();
    options.capacity = 1000;
    options.row_bytes = 40;
    options.reserve_step = 5;
    options.max_readers = 7;
    options.layout = CBUF_DENSE;
    options.on_full = CBUF_DROP_NEWEST;
    options.existing = CBUF_NEW;
    options.in_place = options.pad_rows = options.locked = options.group_read =
        options.group_register = true;
    options.block_ns = 11;
    options.demote_ns = 12;
    options.memory.populate = CBUF_WANT;
    CHECK_IS(cbuf_create(&ring, &options), 0);
    attach(&other, name);
    is = cbuf_resolved(&ring);
    CHECK(is->existing == CBUF_NEW && is->in_place && is->pad_rows && is->group_read &&
        is->group_register);
    CHECK(is->block_ns == 11 && is->demote_ns == 12 && is->memory.populate == CBUF_WANT);
    for (int k = 0; k < 2; k++, is = cbuf_resolved(&other)) {
        CHECK(is->capacity == 1024 && is->row_bytes == 40 && is->column_count == 3 &&
            is->reserve_step == 5);
        CHECK(is->max_readers == 7 && is->layout == CBUF_DENSE && is->on_full == CBUF_DROP_NEWEST &&
            is->locked);
        CHECK(!is->name && !is->columns);
    }
    cbuf_close(&other);
    cbuf_close(&ring);
}

/* ---- fork ---- */

struct forked {
    cbuf_ring ring, mine;
    cbuf_reader reader;
    struct cue done;
};
#define CHECK_FORKED(call) CHECK_IS(call, CBUF_EFORKED)

/* A child that uses what its parent opened. */
static int use_the_parents(void *argument)
{
    struct forked *forked = (struct forked *)argument;
    cbuf_ring *ring = &forked->ring;
    cbuf_reader *reader = &forked->reader, another;
    struct tick ticks[4];
    const void *peeked;
    int64_t granted = 0;
    cbuf_stats stats;
    cbuf_reader_stats reader_stats;
    cbuf_array array = { &tick_columns[1], ticks };
    memset(ticks, 0, sizeof ticks);
    CHECK_FORKED(cbuf_publish(ring, 1)); /* what the parent claimed */
    CHECK_FORKED(cbuf_write(ring, ticks));
    CHECK_FORKED(cbuf_write_n(ring, ticks, 4));
    CHECK_FORKED(cbuf_write_columns(ring, &array, 1, 2));
    CHECK(cbuf_claim(ring, 1, &granted) == NULL);
    CHECK_FORKED(granted);
    CHECK_FORKED(cbuf_wait_room(ring, 1, 0));
    CHECK_FORKED(cbuf_read(reader, ticks, 4));
    CHECK_FORKED(cbuf_peek(reader, 1, &peeked));
    CHECK_FORKED(cbuf_wait(reader, 1, 0));
    CHECK_FORKED(cbuf_seek(reader, 3));
    CHECK_FORKED(cbuf_seek_value(reader, &tick_columns[0], &ticks[0].time));
    cbuf_advance(reader, 1);
    CHECK_FORKED(cbuf_reader_open(&another, ring, NULL));
    CHECK_FORKED(cbuf_latest(ring, ticks, NULL));
    CHECK_FORKED(cbuf_snapshot(ring, ticks, 4, NULL));
    CHECK_FORKED(cbuf_stats_get(ring, &stats));
    CHECK_FORKED(cbuf_reader_stats_get(ring, 0, &reader_stats));
    CHECK_FORKED(cbuf_producer_alive(ring));
    cbuf_reader_close(reader);
    cbuf_close(&forked->mine);
    cbuf_close(ring);
    give_cue(&forked->done);
    return live_on();
}

static void a_forked_child_can_use_and_disturb_nothing(void **state)
{
    static struct forked forked;
    cbuf_ring other;
    cbuf_reader_stats stats;
    const char *name = new_name();
    (void)state;
    if (!fork_wipes()) skip();
    cbuf_options options = tick_options(name);
    options.in_place = true;
    options.on_full = CBUF_BLOCK;
    CHECK_IS(cbuf_create(&forked.ring, &options), 0);
    attach(&forked.mine, name);
    CHECK_IS(cbuf_reader_open(&forked.reader, &forked.mine, NULL), 0);
    write_ticks(&forked.ring, 5);
    struct tick *claimed = (struct tick *)cbuf_claim(&forked.ring, 1, NULL);
    CHECK(claimed);
    memset(claimed, 0, sizeof *claimed);
    claimed->size = 5;
    forked.done = new_cue();
    pid_t child = start(use_the_parents, &forked);
    await_cue(&forked.done);
    cbuf_stats ring_stats;
    CHECK_IS(cbuf_stats_get(&forked.ring, &ring_stats), 0);
    CHECK(ring_stats.written == 5 && ring_stats.readers == 1 && !ring_stats.closed);
    CHECK_IS(cbuf_publish(&forked.ring, 1), 1);
    CHECK_IS(cbuf_reader_stats_get(&forked.ring, 0, &stats), 1);
    CHECK_IS(stats.cursor, 0);
    CHECK(stats.gate);
    CHECK_IS(create_as(&other, name, CBUF_RESUME), CBUF_EBUSY);
    CHECK_IS(cbuf_wait(&forked.reader, 6, 0), 6);
    CHECK_IS(read_ticks(&forked.reader), 6);
    write_ticks(&forked.ring, 64);
    CHECK_IS(end_by(child, SIGKILL), -SIGKILL);
    CHECK_IS(create_as(&other, name, CBUF_RESUME), CBUF_EBUSY);
    CHECK_IS(read_ticks(&forked.reader), 64);
    cbuf_reader_close(&forked.reader);
    cbuf_close(&forked.mine);
    cbuf_close(&forked.ring);
    end_cue(&forked.done);
}

static int make_its_own(void *argument)
{
    cbuf_ring ring;
    create(&ring, (const char *)argument);
    write_ticks(&ring, 3);
    cbuf_close(&ring);
    return 0;
}
static void a_forked_child_can_open_its_own(void **state)
{
    cbuf_ring ring;
    const char *name = new_name();
    (void)state;
    create(&ring, name);
    write_ticks(&ring, 2);
    cbuf_close(&ring);
    CHECK_IS(finish(start(make_its_own, (void *)(uintptr_t)name)), 0);
    CHECK_IS(rows_of(name), 5);
}

/* ---- users and permissions ---- */

static void files_have_the_modes_that_were_asked_for_under_any_umask(void **state)
{
    static const mode_t masks[] = { 0, 022, 077, 0777, 0111, 0200, 0400 };
    (void)state;
    for (size_t k = 0; k < sizeof masks / sizeof masks[0]; k++) {
        for (int group = 0; group < 4; group++) {
            const char *name = k % 2 ? new_name() : new_path();
            cbuf_ring ring;
            cbuf_options options = tick_options(name);
            options.group_read = group & 1;
            options.group_register = group & 2;
            mode_t old = umask(masks[k]);
            int error = cbuf_create(&ring, &options);
            umask(old);
            CHECK_IS(error, 0);
            CHECK_IS(mode_of(file_of(name, "")), group ? 0640 : 0600);
            CHECK_IS(mode_of(file_of(name, ".readers")), group & 2 ? 0660 : 0600);
            CHECK_IS(mode_of(file_of(name, ".lock")), 0600);
            cbuf_close(&ring);
        }
    }
}

struct owned {
    char name[64];
    struct cue made, done;
    bool group_read, group_register;
};
static struct owned *new_owned(bool group_read, bool group_register)
{
    struct owned *owned = (struct owned *)shared_memory(sizeof *owned);
    snprintf(owned->name, sizeof owned->name, "%s", new_name());
    owned->made = new_cue();
    owned->done = new_cue();
    owned->group_read = group_read;
    owned->group_register = group_register;
    return owned;
}
static void end_owned(struct owned *owned)
{
    end_cue(&owned->made);
    end_cue(&owned->done);
    munmap(owned, sizeof *owned);
}
static int produce_as_user(void *argument)
{
    struct owned *owned = (struct owned *)argument;
    cbuf_ring ring;
    become(USER, USER);
    cbuf_options options = tick_options(owned->name);
    options.group_read = owned->group_read;
    options.group_register = owned->group_register;
    CHECK_IS(cbuf_create(&ring, &options), 0);
    write_ticks(&ring, 3);
    give_cue(&owned->made);
    await_cue(&owned->done);
    cbuf_close(&ring);
    return 0;
}
/* Another user of the group. */
static int look_from_the_group(void *argument)
{
    struct owned *owned = (struct owned *)argument;
    cbuf_ring ring;
    cbuf_reader reader;
    cbuf_attach_options options;
    become(OTHER, USER);
    if (!owned->group_read && !owned->group_register) {
        CHECK_IS(attach_as_observer(&ring, owned->name, true), CBUF_EACCES);
        return 0;
    }
    CHECK_IS(cbuf_attach(&ring, owned->name, NULL), CBUF_EACCES);
    CHECK_FOR(cbuf_error(&ring),
        says(&ring, owned->name) && says_number(&ring, USER) && says_number(&ring, OTHER));
    memset(&options, 0, sizeof options);
    options.any_owner = true;
    CHECK_IS(cbuf_attach(&ring, owned->name, &options), 0);
    CHECK_IS(open_anonymous(&reader, &ring), 0);
    CHECK_IS(read_ticks(&reader), 3);
    cbuf_reader_close(&reader);
    CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), owned->group_register ? 0 : CBUF_EACCES);
    if (owned->group_register) CHECK_IS(read_ticks(&reader), 3);
    cbuf_reader_close(&reader);
    CHECK_IS(cbuf_producer_alive(&ring), CBUF_EACCES);
    cbuf_close(&ring);
    CHECK_IS(create_as(&ring, owned->name, CBUF_RESUME), CBUF_EACCES);
    CHECK_IS(create_as(&ring, owned->name, CBUF_REPLACE), CBUF_EACCES);
    CHECK_IS(cbuf_remove(owned->name), CBUF_EACCES);
    return 0;
}
static int look_from_outside(void *argument)
{
    struct owned *owned = (struct owned *)argument;
    cbuf_ring ring;
    become(OTHER, OTHER);
    CHECK_IS(attach_as_observer(&ring, owned->name, true), CBUF_EACCES);
    CHECK_FOR(cbuf_error(&ring), says(&ring, owned->name));
    return 0;
}

static void another_users_ring_is_open_to_whom_its_owner_lets(void **state)
{
    (void)state;
    if (geteuid() != 0) skip();
    for (int group = 0; group < 4; group++) {
        struct owned *owned = new_owned(group & 1, group & 2);
        cbuf_ring ring;
        pid_t child = start(produce_as_user, owned);
        await_cue(&owned->made);
        CHECK_IS(cbuf_attach(&ring, owned->name, NULL), CBUF_EACCES); /* root trusts only its own */
        CHECK_FOR(cbuf_error(&ring), says(&ring, owned->name) && says_number(&ring, USER));
        CHECK_IS(attach_as_observer(&ring, owned->name, true), 0);
        cbuf_close(&ring);
        CHECK_IS(finish(start(look_from_the_group, owned)), 0);
        CHECK_IS(finish(start(look_from_outside, owned)), 0);
        give_cue(&owned->done);
        CHECK_IS(finish(child), 0);
        end_owned(owned);
    }
}

static int look_at_roots(void *argument)
{
    struct owned *owned = (struct owned *)argument;
    cbuf_ring ring;
    cbuf_reader reader;
    become(OTHER, getgid());
    attach(&ring, owned->name);
    CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), owned->group_register ? 0 : CBUF_EACCES);
    cbuf_reader_close(&reader);
    CHECK_IS(open_anonymous(&reader, &ring), 0);
    CHECK_IS(read_ticks(&reader), 3);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    CHECK_IS(create_as(&ring, owned->name, CBUF_RESUME), CBUF_EACCES);
    return 0;
}
static void roots_ring_is_trusted_by_those_who_may_read_it(void **state)
{
    (void)state;
    if (geteuid() != 0) skip();
    for (int group = 1; group < 4; group++) {
        struct owned *owned = new_owned(group & 1, group & 2);
        cbuf_ring ring;
        cbuf_options options = tick_options(owned->name);
        options.group_read = owned->group_read;
        options.group_register = owned->group_register;
        CHECK_IS(cbuf_create(&ring, &options), 0);
        write_ticks(&ring, 3);
        cbuf_close(&ring);
        CHECK_IS(finish(start(look_at_roots, owned)), 0);
        end_owned(owned);
    }
}

static int create_under_tight_umask(void *argument)
{
    cbuf_ring ring;
    if (geteuid() == 0) become(USER, USER);
    umask(0777);
    for (int k = 0; k < 3; k++) {
        create(&ring, (const char *)argument);
        write_ticks(&ring, 1);
        cbuf_close(&ring);
    }
    return cbuf_remove((const char *)argument);
}
static void a_ring_made_under_a_tight_umask_can_be_opened_again(void **state)
{
    (void)state;
    CHECK_IS(finish(start(create_under_tight_umask, (void *)(uintptr_t)new_name())), 0);
}

/* Locks what it may open, in every way there is, and stays. */
static int lock_all_it_may(void *argument)
{
    struct owned *owned = (struct owned *)argument;
    const char *suffixes[] = { "", ".readers", ".lock", ".new", ".readers.new" };
    become(OTHER, getgid());
    await_cue(&owned->made);
    for (int k = 0; k < 5; k++) {
        for (int way = 0; way < 2; way++) {
            int fd = open(file_of(owned->name, suffixes[k]), way ? O_RDWR : O_RDONLY);
            if (fd < 0) continue;
            CHECK(k < 2); /* no other is open to it */
            for (int type = 0; type < 2; type++) {
                struct flock lock;
                memset(&lock, 0, sizeof lock);
                lock.l_type = type ? F_WRLCK : F_RDLCK; /* every byte */
                fcntl(fd, F_OFD_SETLK, &lock);
                fcntl(fd, F_SETLK, &lock);
                flock(fd, (type ? LOCK_EX : LOCK_SH) | LOCK_NB);
            }
        }
    }
    give_cue(&owned->done);
    return live_on();
}

static void no_observer_can_keep_a_producer_from_starting(void **state)
{
    (void)state;
    if (geteuid() != 0) skip();
    for (int group = 1; group < 4; group++) {
        struct owned *owned = new_owned(group & 1, group & 2);
        cbuf_ring ring, other;
        cbuf_reader reader;
        cbuf_options options = tick_options(owned->name);
        options.group_read = group & 1;
        options.group_register = group & 2;
        pid_t child = start(lock_all_it_may, owned); /* before: it must not inherit a lock */
        CHECK_IS(cbuf_create(&ring, &options), 0);
        give_cue(&owned->made);
        await_cue(&owned->done);
        cbuf_close(&ring);
        for (int existing = CBUF_RESUME; existing <= CBUF_REPLACE; existing++) {
            options.existing = (uint8_t)existing;
            int error = cbuf_create(&ring, &options);
            CHECK_IS_FOR(cbuf_error(&ring), error, 0);
            write_ticks(&ring, 200);
            attach(&other, owned->name);
            /* Whom the owner lets register may take all slots; in a replaced ring it did not. */
            bool taken = existing == CBUF_RESUME && group & 2;
            CHECK_IS(cbuf_reader_open(&reader, &other, NULL), taken ? CBUF_ESLOTS : 0);
            cbuf_reader_close(&reader);
            CHECK_IS(open_anonymous(&reader, &other), 0);
            CHECK(read_ticks(&reader) > 0);
            cbuf_close(&other);
            cbuf_close(&ring);
        }
        CHECK_IS(cbuf_remove(owned->name), 0);
        CHECK_IS(end_by(child, SIGKILL), -SIGKILL);
        end_owned(owned);
    }
}

static int take_all_slots(void *argument)
{
    struct owned *owned = (struct owned *)argument;
    static cbuf_reader readers[5];
    cbuf_reader_options options;
    cbuf_ring ring;
    memset(&options, 0, sizeof options);
    options.name = "greedy";
    attach(&ring, owned->name);
    for (int k = 0; k < 4; k++) CHECK_IS(cbuf_reader_open(&readers[k], &ring, &options), 0);
    CHECK_IS(cbuf_reader_open(&readers[4], &ring, &options), CBUF_ESLOTS);
    give_cue(&owned->done);
    return live_on();
}
static void who_takes_all_slots_is_named_and_limited_to_that(void **state)
{
    (void)state;
    for (int on_full = CBUF_OVERWRITE; on_full <= CBUF_DROP_NEWEST; on_full++) {
        struct owned *owned = new_owned(false, false);
        cbuf_ring ring;
        cbuf_reader reader;
        cbuf_reader_stats stats;
        cbuf_options options = tick_options(owned->name);
        options.on_full = (uint8_t)on_full;
        options.demote_ns = 1000000; /* an owner who does not trust its gates says so */
        CHECK_IS(cbuf_create(&ring, &options), 0);
        pid_t child = start(take_all_slots, owned);
        await_cue(&owned->done);
        CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), CBUF_ESLOTS);
        CHECK_IS(cbuf_reader_stats_get(&ring, 2, &stats), 1);
        CHECK(stats.pid == (uint32_t)child && !strcmp(stats.name, "greedy"));
        CHECK_IS(open_anonymous(&reader, &ring), 0);
        for (int64_t began = now_ns(); cbuf_head(&ring) < 200 && now_ns() - began < 20000000000;) {
            struct tick tick;
            memset(&tick, 0, sizeof tick);
            tick.size = (uint32_t)cbuf_head(&ring);
            CHECK(cbuf_write(&ring, &tick) >= 0);
        }
        CHECK_IS(cbuf_head(&ring), 200);
        CHECK(read_ticks(&reader) > 0);
        CHECK_IS(end_by(child, SIGKILL), -SIGKILL);
        cbuf_reader readers[4];
        for (int k = 0; k < 4; k++) CHECK_IS(cbuf_reader_open(&readers[k], &ring, NULL), 0);
        for (int k = 0; k < 4; k++) cbuf_reader_close(&readers[k]);
        cbuf_close(&ring);
        end_owned(owned);
    }
}

/* ---- producers ---- */

struct produced {
    char name[64];
    struct cue made, done;
};
static int produce_until_told(void *argument)
{
    struct produced *produced = (struct produced *)argument;
    cbuf_ring ring;
    create(&ring, produced->name);
    give_cue(&produced->made);
    await_cue(&produced->done);
    cbuf_close(&ring);
    return 0;
}
static void check_is_busy(const char *name)
{
    cbuf_ring ring;
    for (uint8_t existing = CBUF_RESUME; existing <= CBUF_NEW; existing++) {
        CHECK_IS(create_as(&ring, name, existing), CBUF_EBUSY);
        CHECK_FOR(cbuf_error(&ring), says(&ring, name));
    }
    CHECK_IS(cbuf_remove(name), CBUF_EBUSY);
}

static void a_second_producer_is_refused_while_the_first_lives(void **state)
{
    struct produced produced;
    cbuf_ring ring, watcher;
    siginfo_t end;
    (void)state;
    snprintf(produced.name, sizeof produced.name, "%s", new_name());
    produced.made = new_cue();
    produced.done = new_cue();
    create(&ring, produced.name); /* from the same process */
    attach(&watcher, produced.name);
    CHECK_IS(cbuf_producer_alive(&ring), 1);
    CHECK_IS(cbuf_producer_alive(&watcher), 1);
    check_is_busy(produced.name);
    write_ticks(&ring, 3); /* which the first did not feel */
    cbuf_close(&ring);
    CHECK_IS(cbuf_producer_alive(&watcher), 0);
    for (int killed = 0; killed < 2; killed++) { /* from another */
        pid_t child = start(produce_until_told, &produced);
        await_cue(&produced.made);
        CHECK_IS(cbuf_producer_alive(&watcher), 1);
        check_is_busy(produced.name);
        if (killed) kill(child, SIGKILL);
        else give_cue(&produced.done);
        /* A zombie now: dead, though its number lives. */
        CHECK_IS(waitid(P_PID, (id_t)child, &end, WEXITED | WNOWAIT), 0);
        CHECK_IS(cbuf_producer_alive(&watcher), 0);
        create(&ring, produced.name);
        CHECK_IS(cbuf_head(&ring), 3);
        cbuf_close(&ring);
        CHECK_IS(finish(child), killed ? -SIGKILL : 0);
    }
    cbuf_close(&watcher);
    end_cue(&produced.made);
    end_cue(&produced.done);
}

static void a_reader_may_not_write(void **state)
{
    cbuf_ring ring, mine;
    struct tick tick;
    int64_t granted = 0;
    const char *name = new_name();
    (void)state;
    memset(&tick, 0, sizeof tick);
    cbuf_options options = tick_options(name);
    options.in_place = true;
    CHECK_IS(cbuf_create(&ring, &options), 0);
    attach(&mine, name);
    CHECK_IS(cbuf_write(&mine, &tick), CBUF_EROLE);
    CHECK_IS(cbuf_write_n(&mine, &tick, 1), CBUF_EROLE);
    CHECK(!cbuf_claim(&mine, 1, &granted));
    CHECK_IS(granted, CBUF_EROLE);
    CHECK_IS(cbuf_wait_room(&mine, 1, 0), CBUF_EROLE);
    CHECK(cbuf_publish(&mine, 1) < 0);
    cbuf_close(&mine);
    cbuf_close(&ring);
}

/* A handle after its close, and after a create and an attach that failed. */
static void a_handle_that_is_not_open_says_so(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        cbuf_ring ring, other;
        cbuf_reader reader;
        cbuf_stats stats;
        cbuf_reader_stats reader_stats;
        cbuf_memory_info info;
        struct tick ticks[2];
        int64_t granted = 0;
        uint64_t sequence;
        const char *name = new_name();
        cbuf_array array = { &tick_columns[1], ticks };
        memset(ticks, 0, sizeof ticks);
        create(&other, name);
        if (way == 0) attach(&ring, name), cbuf_close(&ring);
        if (way == 1) CHECK(create_as(&ring, name, CBUF_RESUME) < 0);
        if (way == 2) CHECK(cbuf_attach(&ring, new_name(), NULL) < 0);
        cbuf_close(&other);
        if (way == 3) {
            cbuf_options options = tick_options(name);
            options.capacity = 128;
            CHECK_IS(cbuf_create(&ring, &options), CBUF_EMISMATCH);
        }
        CHECK_IS(cbuf_write(&ring, ticks), CBUF_ENOTOPEN);
        CHECK_IS(cbuf_write_n(&ring, ticks, 2), CBUF_ENOTOPEN);
        CHECK(cbuf_write_columns(&ring, &array, 1, 2) < 0); /* its row has no such column */
        CHECK(!cbuf_claim(&ring, 1, &granted));
        CHECK_IS(granted, CBUF_ENOTOPEN);
        CHECK(cbuf_publish(&ring, 1) < 0);
        CHECK_IS(cbuf_wait_room(&ring, 1, 0), CBUF_ENOTOPEN);
        CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), CBUF_ENOTOPEN);
        CHECK_IS(open_anonymous(&reader, &ring), CBUF_ENOTOPEN);
        CHECK_IS(cbuf_latest(&ring, ticks, &sequence), CBUF_ENOTOPEN);
        CHECK_IS(cbuf_snapshot(&ring, ticks, 2, NULL), CBUF_ENOTOPEN);
        CHECK_IS(cbuf_stats_get(&ring, &stats), CBUF_ENOTOPEN);
        CHECK_IS(cbuf_reader_stats_get(&ring, 0, &reader_stats), CBUF_ENOTOPEN);
        CHECK_IS(cbuf_memory_info_get(&ring, &info), CBUF_ENOTOPEN);
        CHECK_IS(cbuf_producer_alive(&ring), CBUF_ENOTOPEN);
        cbuf_close(&ring); /* once more is nothing */
        cbuf_close(&ring);
    }
}

/* ---- threads ---- */

/* The sleep itself, which test_deaths replaces. */
static int sleep_on_word(void *argument)
{
    cbuf__word *word = (cbuf__word *)argument;
    cbuf__futex_wait(word, 7, -1);
    return (int)cbuf__load_acquire(word);
}
static void a_wake_up_reaches_all_who_sleep_on_a_word(void **state)
{
    pid_t children[3];
    (void)state;
    cbuf__word *word = (cbuf__word *)shared_memory(4096);
    cbuf__store_release(word, 5ull << 32 | 7);
    for (int k = 0; k < 3; k++) children[k] = start(sleep_on_word, word);
    for (int k = 0; k < 3; k++) CHECK_IS(await_rest(children[k]), 'S');
    cbuf__store_release(word, 8);
    cbuf__futex_wake(word);
    for (int k = 0; k < 3; k++) CHECK_IS(finish(children[k]), 8);
    int64_t began = now_ns();
    cbuf__futex_wait(word, 7, -1); /* another value: no sleep */
    cbuf__futex_wait(word, 8, 2000000);
    CHECK(now_ns() - began >= 2000000);
    munmap((void *)word, 4096);
}

static int try_thread_helpers(void *argument)
{
    cpu_set_t allowed;
    struct rlimit none = { 0, 0 };
    size_t cpu = 0;
    (void)argument;
    CPU_ZERO(&allowed);
    CHECK_IS(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    while (!CPU_ISSET(cpu, &allowed)) cpu++;
    CHECK_IS(cbuf_pin_thread((uint32_t)cpu), 0);
    CHECK_IS(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    CHECK(CPU_COUNT(&allowed) == 1 && CPU_ISSET(cpu, &allowed));
    CHECK_IS(cbuf_pin_thread(1000000), -EINVAL);
    CHECK_IS(cbuf_pin_thread(UINT32_MAX), -EINVAL);
    CHECK_IS(cbuf_realtime_thread(1000), -EINVAL);
    int error = cbuf_realtime_thread(1);
    CHECK(error == 0 || error == -EPERM);
    CHECK_IS(syscall(SYS_sched_getscheduler, 0), error ? SCHED_OTHER : SCHED_FIFO);
    bool can_lock = memory_can_be_locked();
    if (can_lock) {
        error = cbuf_lock_memory();
        CHECK(error == 0 || error == -EPERM || error == -ENOMEM);
        CHECK(CHECK_SANITIZED || (locked_bytes_of_process() > 0) == (error == 0));
    }
    if (geteuid() == 0) {
        munlockall();
        CHECK_IS(setrlimit(RLIMIT_MEMLOCK, &none), 0);
        CHECK_IS(setrlimit(RLIMIT_RTPRIO, &none), 0);
        become(USER, USER);
        CHECK_IS(cbuf_realtime_thread(2), -EPERM);
        if (can_lock) CHECK(cbuf_lock_memory() < 0);
    }
    return 0;
}
static void thread_helpers_do_it_or_say_why_not(void **state)
{
    (void)state;
    CHECK_IS(finish(start(try_thread_helpers, NULL)), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_begin, scene_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_automatic_name_is_the_process_and_a_number),
        TEST(an_automatic_name_never_takes_a_ring_that_is_there),
        TEST(a_ring_lives_at_any_absolute_path),
        TEST(a_bad_name_is_refused),
        TEST(a_name_is_a_ring_or_nothing_at_any_length),
        TEST(what_is_not_there_is_not_found),
        TEST(a_bad_option_leaves_nothing_behind),
        TEST(failures_do_not_add_up),
        TEST(resume_continues_where_the_last_producer_ended),
        TEST(new_refuses_a_ring_that_is_there),
        TEST(replace_makes_a_new_ring_and_retires_the_old_one),
        TEST(a_mismatch_names_the_file_the_value_and_the_limit),
        TEST(a_replacement_that_cannot_be_made_leaves_the_old_ring),
        TEST(only_a_ring_without_a_producer_is_removed),
        TEST(what_is_no_ring_is_refused_and_left_alone),
        TEST(a_lock_or_readers_file_that_is_none_is_an_error),
        TEST(a_damaged_ring_gives_an_error_or_works),
        TEST(a_ring_cut_at_any_length_is_refused),
        TEST(a_ring_larger_than_the_address_space_is_refused),
        TEST(another_format_is_told_from_a_damaged_one),
        TEST(a_lost_or_foreign_readers_file_hides_no_row_and_is_made_again),
        TEST(rubbish_in_the_readers_file_changes_no_row_and_crashes_nobody),
        TEST(a_reader_notices_that_its_ring_is_gone),
        TEST(a_removed_ring_takes_no_new_readers),
        TEST(however_many_try_at_once_one_is_the_producer),
        TEST(a_ring_that_is_being_replaced_can_be_attached),
        TEST(a_limit_of_file_size_is_an_error_at_create),
        TEST(a_full_file_system_is_an_error_at_create),
        TEST(escapes_on_a_full_file_system_are_refused_and_nothing_else_is_lost),
        TEST(a_ring_can_be_made_without_proc),
        TEST(memory_is_reported_as_the_kernel_has_it),
        TEST(what_is_required_and_refused_is_an_error_and_what_is_wanted_is_told),
        TEST(options_can_be_read_back),
        TEST(a_forked_child_can_use_and_disturb_nothing),
        TEST(a_forked_child_can_open_its_own),
        TEST(files_have_the_modes_that_were_asked_for_under_any_umask),
        TEST(another_users_ring_is_open_to_whom_its_owner_lets),
        TEST(roots_ring_is_trusted_by_those_who_may_read_it),
        TEST(a_ring_made_under_a_tight_umask_can_be_opened_again),
        TEST(no_observer_can_keep_a_producer_from_starting),
        TEST(who_takes_all_slots_is_named_and_limited_to_that),
        TEST(a_second_producer_is_refused_while_the_first_lives),
        TEST(a_reader_may_not_write),
        TEST(a_handle_that_is_not_open_says_so),
        TEST(a_wake_up_reaches_all_who_sleep_on_a_word),
        TEST(thread_helpers_do_it_or_say_why_not),
    };
    scene_open(300);
    return scene_close(cmocka_run_group_tests(tests, NULL, NULL));
}
