/*
 * test_pool_deaths.c - pools in files: processes that share one, and those that die at every
 * operation, at random ones, at random moments. What holds for those who live on: what the dead
 * held is free again and nothing else is; no payload changes under who holds it; free + held is all
 * there is.
 *
 * CBUF_POOL_KILLS (environment): how many random deaths there are; 300 if it is not set.
 */
#define CBUF_ACCESS_HEADER "kill_access.h"
#include "process.h"

#include <cbuf_pool.h>

enum { SMALL = 40, LARGE = 5000, MAX_LARGE = 3, ROWS = 8 }; /* bytes of XS, of XXL payloads */

/* ---- payloads that tell whether they are whole, and whose they are ---- */

static void fill(void *to, uint64_t bytes, uint64_t seed)
{
    unsigned char *at = (unsigned char *)to;
    for (uint64_t k = 0; k < bytes; k++) at[k] = (unsigned char)((seed >> 32) * 31 + seed + k);
}
static bool is_filled(const void *from, uint64_t bytes, uint64_t seed)
{
    const unsigned char *at = (const unsigned char *)from;
    for (uint64_t k = 0; k < bytes; k++)
        if (at[k] != (unsigned char)((seed >> 32) * 31 + seed + k)) return false;
    return true;
}
static void check_payload(cbuf_pool *pool, cbuf_ref ref)
{
    uint64_t bytes = cbuf_pool_length(pool, ref);
    CHECK(bytes == SMALL || bytes == LARGE);
    CHECK(cbuf_pool_data(pool, ref) != NULL);
    CHECK_FOR("a payload changed under its holder",
        is_filled(cbuf_pool_data(pool, ref), bytes, ref));
}
static int try_payload(cbuf_pool *pool, uint64_t bytes, cbuf_ref *ref)
{
    int error = cbuf_pool_allocate(pool, bytes, 1, ref);
    CHECK_FOR(cbuf_pool_error(pool), error == 0 || error == CBUF_EEMPTY);
    if (!error) fill(cbuf_pool_data(pool, *ref), bytes, *ref);
    return error;
}
static cbuf_ref new_payload(cbuf_pool *pool, uint64_t bytes)
{
    cbuf_ref ref;
    CHECK_IS_FOR(cbuf_pool_error(pool), try_payload(pool, bytes, &ref), 0);
    return ref;
}

/* ---- what the processes of a test share ---- */

typedef struct payload_row {
    uint64_t number;
    cbuf_ref payload, another;
} payload_row;
static const cbuf_column columns[] = { CBUF_COLUMN(payload_row, number),
    CBUF_COLUMN_AS(payload_row, payload, CBUF_REF),
    CBUF_COLUMN_AS(payload_row, another, CBUF_REF) };

struct stage {
    char pool[64], ring[64], path[128];
    uint64_t countdown, seed, done, rows;
    uint32_t producers, max_holders;
    uint8_t on_full;
    cbuf_ref given; /* to the child */
    int act;
    struct cue ready, go;
};
static struct stage *new_stage(void)
{
    struct stage *stage = (struct stage *)shared_memory(sizeof *stage);
    snprintf(stage->pool, sizeof stage->pool, "%s", new_name());
    snprintf(stage->ring, sizeof stage->ring, "%s", new_name());
    stage->max_holders = 8;
    stage->ready = new_cue();
    stage->go = new_cue();
    return stage;
}
static void end_stage(struct stage *stage)
{
    end_cue(&stage->ready);
    end_cue(&stage->go);
    munmap(stage, sizeof *stage);
}
static cbuf_pool_options pool_options(const struct stage *stage)
{
    cbuf_pool_options options;
    memset(&options, 0, sizeof options);
    options.name = stage->pool;
    options.holder = "test";
    options.count[CBUF_XS] = 24;
    options.count[CBUF_XXL] = MAX_LARGE;
    for (uint32_t k = 1; k < CBUF_XXL; k++) options.bytes[k] = 64 + 64 * k;
    options.max_holders = stage->max_holders;
    return options;
}
static void create(cbuf_pool *pool, const struct stage *stage)
{
    cbuf_pool_options options = pool_options(stage);
    int error = cbuf_pool_create(pool, &options);
    CHECK_IS_FOR(cbuf_pool_error(pool), error, 0);
}
static void attach(cbuf_pool *pool, const struct stage *stage)
{
    int error = cbuf_pool_attach(pool, stage->pool, NULL);
    CHECK_IS_FOR(cbuf_pool_error(pool), error, 0);
}
static cbuf_options ring_options(const struct stage *stage)
{
    cbuf_options options;
    memset(&options, 0, sizeof options);
    options.name = stage->ring;
    options.capacity = ROWS;
    options.columns = columns;
    options.column_count = 3;
    options.row_bytes = sizeof(payload_row);
    options.producers = stage->producers;
    options.on_full = stage->on_full;
    options.block_ns = stage->producers ? 1000000 : 0;
    return options;
}
static void produce_into(cbuf_ring *ring, const struct stage *stage)
{
    cbuf_options options = ring_options(stage);
    int error = cbuf_create(ring, &options);
    CHECK_IS_FOR(cbuf_error(ring), error, 0);
}
static void own_rows(cbuf_pool_ring *rows, cbuf_pool *pool, cbuf_ring *ring)
{
    int error = cbuf_pool_ring_open(rows, pool, ring);
    CHECK_IS_FOR(cbuf_pool_error(pool), error, 0);
}
/* Slots that somebody holds; free + held = all. */
static uint64_t held(const cbuf_pool *pool)
{
    uint64_t all = 0;
    for (int kind = 0; kind < CBUF_POOL_CLASSES; kind++) {
        cbuf_pool_stats stats;
        CHECK_IS(cbuf_pool_stats_get(pool, (enum cbuf_pool_class)kind, &stats), 0);
        CHECK_IS(stats.free + stats.held, stats.count);
        all += stats.held;
    }
    return all;
}
static uint64_t large_files(const struct stage *stage)
{
    uint64_t n = 0;
    char suffix[16];
    for (int k = 0; k < MAX_LARGE; k++) {
        snprintf(suffix, sizeof suffix, ".xxl%d", k);
        n += access(file_of(stage->pool, suffix), F_OK) == 0;
    }
    return n;
}

/* ---- files ---- */

static int lend(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_pool pool;
    attach(&pool, stage);
    stage->given = new_payload(&pool, stage->rows);
    give_cue(&stage->ready);
    await_cue(&stage->go);
    cbuf_pool_close(&pool);
    return 0;
}
static void a_payload_is_the_same_in_every_process_and_outlives_who_made_it(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool pool;
    create(&pool, stage);
    for (stage->rows = SMALL; stage->rows <= LARGE; stage->rows += LARGE - SMALL) {
        pid_t child = start(lend, stage);
        await_cue(&stage->ready);
        CHECK(cbuf_pool_data(&pool, stage->given) == NULL);
        CHECK_IS(cbuf_pool_retain(&pool, stage->given), 0);
        check_payload(&pool, stage->given);
        give_cue(&stage->go);
        CHECK_IS(finish(child), 0);
        check_payload(&pool, stage->given);
        CHECK_IS(held(&pool), 1);
        CHECK_IS(large_files(stage), stage->rows == LARGE);
        CHECK_IS(cbuf_pool_release(&pool, stage->given), 1);
        CHECK_IS(large_files(stage), 0);
    }
    cbuf_pool_close(&pool);
    end_stage(stage);
}

static void a_pool_is_joined_or_refused_as_the_options_say(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool_options options = pool_options(stage);
    static struct traces before;
    cbuf_pool first, second;
    traces_now(&before);
    CHECK_IS(cbuf_pool_attach(&first, stage->pool, NULL), CBUF_ENOENT);
    CHECK(strstr(cbuf_pool_error(&first), stage->pool) != NULL);
    CHECK_IS(cbuf_pool_attach(&first, "a/b", NULL), CBUF_EINVAL);
    CHECK_IS(cbuf_pool_remove(stage->pool), CBUF_ENOENT);
    check_traces(&before, 64, "no such pool");
    create(&first, stage);
    struct stat file;
    CHECK_IS(stat(file_of(stage->pool, ""), &file), 0);
    CHECK_IS(file.st_mode & 0777, 0600);
    cbuf_ref ref = new_payload(&first, LARGE);
    traces_now(&before);
    options.existing = CBUF_NEW;
    CHECK_IS(cbuf_pool_create(&second, &options), CBUF_EEXIST);
    options.existing = CBUF_REPLACE;
    CHECK_IS(cbuf_pool_create(&second, &options), CBUF_EINUSE);
    CHECK(strstr(cbuf_pool_error(&second), "living holder") != NULL);
    options.existing = 9;
    CHECK_IS(cbuf_pool_create(&second, &options), CBUF_EINVAL);
    options = pool_options(stage);
    options.count[CBUF_XS]++;
    CHECK_IS(cbuf_pool_create(&second, &options), CBUF_EMISMATCH);
    CHECK(strstr(cbuf_pool_error(&second), "is 24, wanted is 25") != NULL);
    options = pool_options(stage);
    options.max_holders--;
    CHECK_IS(cbuf_pool_create(&second, &options), CBUF_EMISMATCH);
    CHECK_IS(cbuf_pool_remove(stage->pool), CBUF_EINUSE);
    check_traces(&before, 256, "refused");
    create(&second, stage); /* of the same make: joins */
    CHECK_IS(cbuf_pool_retain(&second, ref), 0);
    check_payload(&second, ref);
    cbuf_pool_close(&first);
    check_payload(&second, ref);
    cbuf_pool_close(&second);
    end_stage(stage);
}

static void a_pool_that_nobody_uses_is_replaced_and_removed_with_its_files(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool_options options = pool_options(stage);
    struct stat file;
    cbuf_pool first, second;
    create(&first, stage);
    new_payload(&first, LARGE);
    cbuf_pool_close(&first);
    options.existing = CBUF_REPLACE;
    options.group = true;
    options.count[CBUF_XS] = 7;
    CHECK_IS(cbuf_pool_create(&second, &options), 0);
    CHECK_IS(stat(file_of(stage->pool, ""), &file), 0);
    CHECK_IS(file.st_mode & 0777, 0660);
    new_payload(&second, LARGE);
    cbuf_pool_close(&second);
    CHECK_IS(cbuf_pool_remove(stage->pool), 0);
    CHECK(access(file_of(stage->pool, ""), F_OK) != 0);
    CHECK(access(file_of(stage->pool, ".lock"), F_OK) != 0);
    end_stage(stage);
}

static void what_is_no_pool_is_refused_and_left_alone(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool_options options = pool_options(stage);
    cbuf_pool pool;
    cbuf_ring ring;
    produce_into(&ring, stage);
    cbuf_close(&ring);
    options.name = stage->ring;
    options.existing = CBUF_REPLACE;
    CHECK_IS(cbuf_pool_attach(&pool, stage->ring, NULL), CBUF_EFORMAT);
    CHECK_IS(cbuf_pool_create(&pool, &options), CBUF_EFORMAT);
    CHECK_IS(cbuf_pool_remove(stage->ring), CBUF_EFORMAT);
    CHECK_IS(cbuf_attach(&ring, stage->ring, NULL), 0);
    cbuf_close(&ring);
    create(&pool, stage);
    CHECK_IS(cbuf_attach(&ring, stage->pool, NULL), CBUF_EFORMAT);
    cbuf_pool_close(&pool);
    CHECK_IS(truncate(file_of(stage->pool, ""), 5000), 0);
    CHECK_IS(cbuf_pool_attach(&pool, stage->pool, NULL), CBUF_EFORMAT);
    CHECK_IS(mkdir(file_of(stage->pool, "d"), 0700), 0);
    CHECK_IS(cbuf_pool_attach(&pool, file_of(stage->pool, "d"), NULL), CBUF_ESYSTEM);
    CHECK_IS(symlink(stage->pool, file_of(stage->pool, "s")), 0);
    CHECK_IS(cbuf_pool_attach(&pool, file_of(stage->pool, "s"), NULL), CBUF_EACCES);
    end_stage(stage);
}

static int use_parents_handle(void *argument)
{
    cbuf_pool *pool = (cbuf_pool *)argument;
    cbuf_ref ref;
    CHECK_IS(cbuf_pool_allocate(pool, 1, 0, &ref), CBUF_EFORKED);
    CHECK_IS(cbuf_pool_retain(pool, 1), CBUF_EFORKED);
    CHECK_IS(cbuf_pool_release(pool, 1), CBUF_EFORKED);
    CHECK_IS(cbuf_pool_reclaim(pool), CBUF_EFORKED);
    cbuf_pool_close(pool); /* gives nothing back */
    return 0;
}
static void a_forked_child_cannot_use_the_handle(void **state)
{
    (void)state;
    if (!fork_wipes()) skip();
    struct stage *stage = new_stage();
    cbuf_pool pool;
    create(&pool, stage);
    cbuf_ref ref = new_payload(&pool, SMALL);
    CHECK_IS(finish(start(use_parents_handle, &pool)), 0);
    check_payload(&pool, ref);
    CHECK_IS(cbuf_pool_release(&pool, ref), 1);
    cbuf_pool_close(&pool);
    end_stage(stage);
}

static void a_holders_entry_tells_who_it_is_what_it_holds_and_whether_it_lives(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool pool;
    cbuf_pool_holder info;
    create(&pool, stage);
    stage->rows = SMALL;
    pid_t child = start(lend, stage);
    await_cue(&stage->ready);
    CHECK_IS(cbuf_pool_holder_get(&pool, 0, &info), 1);
    CHECK(!strcmp(info.name, "test") && info.pid == (uint32_t)getpid() && info.alive);
    CHECK_IS(info.slots, 0);
    CHECK_IS(cbuf_pool_holder_get(&pool, 1, &info), 1);
    CHECK(!strcmp(info.name, "holder") && info.pid == (uint32_t)child && info.alive);
    CHECK(!info.ring && info.slots == 1 && info.bytes == SMALL);
    CHECK_IS(cbuf_pool_holder_get(&pool, 2, &info), 0);
    CHECK_IS(cbuf_pool_holder_get(&pool, 31, &info), CBUF_EINVAL);
    CHECK_IS(end_by(child, SIGKILL), -SIGKILL);
    CHECK_IS(cbuf_pool_holder_get(&pool, 1, &info), 1);
    CHECK(!info.alive && info.slots == 1);
    CHECK_IS(cbuf_pool_reclaim(&pool), 1);
    CHECK_IS(cbuf_pool_holder_get(&pool, 1, &info), 0);
    CHECK_IS(held(&pool), 0);
    cbuf_pool_close(&pool);
    end_stage(stage);
}

static void an_empty_pool_looks_for_the_dead_before_it_says_so(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool pool;
    cbuf_ref ref;
    create(&pool, stage);
    stage->rows = SMALL;
    pid_t child = start(lend, stage);
    await_cue(&stage->ready);
    for (int k = 0; k < 23 + MAX_LARGE; k++) new_payload(&pool, SMALL);
    CHECK_IS(try_payload(&pool, SMALL, &ref), CBUF_EEMPTY);
    CHECK_IS(end_by(child, SIGKILL), -SIGKILL);
    pool.reclaimed_ns = 0; /* a millisecond later */
    CHECK_IS(try_payload(&pool, SMALL, &ref), 0);
    CHECK_IS((uint32_t)ref, (uint32_t)stage->given);
    cbuf_pool_close(&pool);
    end_stage(stage);
}

static void a_payload_of_no_bytes_may_be_in_any_class(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool pool, other;
    cbuf_ref ref = 0;
    create(&pool, stage);
    attach(&other, stage);
    for (int k = 0; k < 24 + MAX_LARGE; k++) {
        CHECK_IS_FOR(cbuf_pool_error(&pool), cbuf_pool_allocate(&pool, 0, 1, &ref), 0);
        CHECK_IS(cbuf_pool_retain(&other, ref), 0);
        CHECK(cbuf_pool_data(&pool, ref) != NULL && cbuf_pool_data(&other, ref) != NULL);
        CHECK_IS(cbuf_pool_length(&other, ref), 0);
    }
    cbuf_pool_close(&pool);
    cbuf_pool_close(&other);
    CHECK_IS(large_files(stage), 0);
    end_stage(stage);
}

/* Whether a page is mapped, without a look at it. */
static bool is_mapped(void *page) { return !msync(page, 1, MS_ASYNC); }

static void an_xxl_payload_stays_in_its_place_until_its_row_is_written(void **state)
{
    (void)state;
    for (uint32_t producers = 0; producers <= 2; producers += 2) {
        struct stage *stage = new_stage();
        cbuf_pool pool;
        cbuf_ring ring, consumer;
        cbuf_reader gate;
        cbuf_pool_ring rows;
        payload_row row = { 0, 0, 0 };
        stage->producers = producers;
        stage->on_full = CBUF_DROP_NEWEST;
        create(&pool, stage);
        produce_into(&ring, stage);
        CHECK_IS(cbuf_attach(&consumer, stage->ring, NULL), 0);
        CHECK_IS(cbuf_reader_open(&gate, &consumer, NULL), 0);
        own_rows(&rows, &pool, &ring);
        for (int k = 0; k < ROWS; k++) CHECK_IS(cbuf_pool_write(&rows, &row), 1);
        row.payload = new_payload(&pool, LARGE);
        void *place = cbuf_pool_data(&pool, row.payload);
        CHECK_IS(cbuf_pool_write(&rows, &row), 0); /* full */
        CHECK(is_mapped(place) && is_filled(place, LARGE, row.payload));
        row.another = UINT64_MAX; /* no ref: the row is refused with its first in hand */
        CHECK_IS(cbuf_pool_write(&rows, &row), CBUF_EINVAL);
        CHECK(is_mapped(place) && is_filled(place, LARGE, row.payload));
        row.another = 0;
        cbuf_reader_close(&gate);
        CHECK_IS(cbuf_pool_write(&rows, &row), 1);
        CHECK(is_emulated() || !is_mapped(place)); /* qemu may keep the addresses */
        CHECK_IS(large_files(stage), 1);
        CHECK(cbuf_pool_ring_drop(&rows) == 1);
        CHECK_IS(large_files(stage), 0);
        cbuf_close(&consumer);
        cbuf_close(&ring);
        cbuf_pool_close(&pool);
        end_stage(stage);
    }
}

static void a_ring_is_opened_for_refs_once(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool pool, other;
    cbuf_ring ring;
    cbuf_pool_ring rows, again;
    create(&pool, stage);
    attach(&other, stage);
    produce_into(&ring, stage);
    own_rows(&rows, &pool, &ring);
    CHECK_IS(cbuf_pool_ring_open(&again, &pool, &ring), CBUF_EBUSY);
    CHECK_IS(cbuf_pool_ring_open(&again, &other, &ring), CBUF_EBUSY);
    cbuf_pool_ring_close(&rows);
    own_rows(&again, &other, &ring);
    cbuf_pool_ring_close(&again);
    cbuf_close(&ring);
    cbuf_pool_close(&other);
    cbuf_pool_close(&pool);
    end_stage(stage);
}

/* Who joins a group's pool makes XXL payloads for the group too. */
static void a_groups_pool_has_payloads_for_the_group(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool_options options = pool_options(stage);
    cbuf_pool pool, other;
    struct stat file;
    options.group = true;
    CHECK_IS(cbuf_pool_create(&pool, &options), 0);
    if (geteuid() == 0) CHECK_IS(chown(file_of(stage->pool, ""), 0, 12345), 0);
    attach(&other, stage);
    new_payload(&other, LARGE);
    CHECK_IS(stat(file_of(stage->pool, ".xxl0"), &file), 0);
    CHECK_IS(file.st_mode & 0777, 0660);
    if (geteuid() == 0) CHECK_IS(file.st_gid, 12345);
    cbuf_pool_close(&other);
    cbuf_pool_close(&pool);
    end_stage(stage);
}

/* ---- deaths at every operation ---- */

/* Takes, keeps and gives back payloads of every kind, and lets rows own some. */
static int live_and_die(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_pool pool;
    cbuf_ring ring;
    cbuf_pool_ring rows;
    cbuf_ref refs[6];
    kill_countdown = stage->countdown;
    attach(&pool, stage);
    CHECK_IS(cbuf_pool_retain(&pool, stage->given), 0);
    produce_into(&ring, stage);
    own_rows(&rows, &pool, &ring);
    for (int k = 0; k < 6; k++) refs[k] = new_payload(&pool, k % 3 ? SMALL : LARGE);
    for (int k = 0; k < ROWS + 3; k++) {
        payload_row row = { cbuf_head(&ring), k < 2 ? refs[k] : new_payload(&pool, SMALL), 0 };
        CHECK_IS(cbuf_pool_write(&rows, &row), 1);
    }
    for (int k = 2; k < 4; k++) CHECK_IS(cbuf_pool_release(&pool, refs[k]), 1);
    CHECK_IS(cbuf_pool_release(&pool, stage->given), 0);
    cbuf_pool_ring_close(&rows);
    cbuf_close(&ring);
    cbuf_pool_close(&pool);
    stage->done++;
    return 0;
}
/* Every slot has the holders that it must have: the test's own payload, and what the places of the
 * ring say. */
static void check_accounts(cbuf_pool *pool, const struct stage *stage, cbuf_ref own)
{
    cbuf_ring ring;
    cbuf_pool_ring rows;
    uint64_t owned = 0;
    check_payload(pool, own);
    produce_into(&ring, stage);
    own_rows(&rows, pool, &ring);
    for (uint64_t k = 0; k < ROWS; k++) {
        cbuf_ref ref = cbuf__ref_at(&rows, k, 0);
        if (!ref || cbuf_pool_retain(pool, ref)) continue;
        check_payload(pool, ref);
        owned++;
    }
    CHECK_IS(held(pool), 1 + owned);
    payload_row none = { 0, 0, 0 };
    for (int k = 0; k < ROWS; k++) CHECK_IS(cbuf_pool_write(&rows, &none), 1);
    CHECK_IS(cbuf_pool_ring_drop(&rows), 0);
    cbuf_close(&ring);
    CHECK_IS(held(pool), 1 + owned); /* the test retained them all */
    cbuf_pool_holder info;
    CHECK_IS(cbuf_pool_holder_get(pool, pool->self.index, &info), 1);
    CHECK_IS(info.slots, 1 + owned);
    CHECK_IS(cbuf_remove(stage->ring), 0);
}
static void a_holder_may_die_at_any_operation(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    for (stage->countdown = 1; !stage->done; stage->countdown += CHECK_SANITIZED ? 7 : 1) {
        cbuf_pool pool;
        create(&pool, stage);
        stage->given = new_payload(&pool, SMALL);
        int status = finish(start(live_and_die, stage));
        CHECK(status == 0 || status == -SIGKILL);
        cbuf_pool_reclaim(&pool);
        CHECK_IS(cbuf_pool_reclaim(&pool), 0); /* once is enough */
        check_accounts(&pool, stage, stage->given);
        cbuf_pool_close(&pool);
        create(&pool, stage);
        CHECK_IS(held(&pool), 0);
        CHECK_IS(large_files(stage), 0);
        cbuf_pool_close(&pool);
    }
    CHECK(stage->countdown > 300 / (CHECK_SANITIZED ? 7 : 1));
    CHECK_IS(cbuf_pool_remove(stage->pool), 0);
    end_stage(stage);
}

static int hold_and_die(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_pool pool;
    attach(&pool, stage);
    CHECK_IS(cbuf_pool_retain(&pool, stage->given), 0);
    for (int k = 0; k < 4; k++) new_payload(&pool, k % 2 ? SMALL : LARGE);
    raise(SIGKILL);
    return 0;
}
static void who_joins_where_no_entry_is_free_sweeps_a_dead_one(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool pool, other;
    create(&pool, stage);
    stage->given = new_payload(&pool, SMALL);
    for (int k = 1; k < 8; k++) {
        stage->rows = SMALL;
        pid_t child = start(lend, stage);
        await_cue(&stage->ready);
        CHECK_IS(end_by(child, SIGKILL), -SIGKILL);
    }
    CHECK_IS(held(&pool), 8);
    attach(&other, stage);
    CHECK_IS(held(&pool), 7);
    CHECK_IS(cbuf_pool_retain(&other, stage->given), 0); /* the last one's */
    cbuf_pool_close(&other);
    CHECK_IS(cbuf_pool_reclaim(&pool), 6);
    CHECK_IS(held(&pool), 1);
    cbuf_pool_close(&pool);
    end_stage(stage);
}
static int reclaim_and_die(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_pool pool;
    kill_countdown = stage->countdown;
    attach(&pool, stage);
    cbuf_pool_reclaim(&pool);
    cbuf_pool_close(&pool);
    stage->done++;
    return 0;
}
static void who_reclaims_may_die_at_any_operation_too(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    for (stage->countdown = 1; !stage->done; stage->countdown += CHECK_SANITIZED ? 7 : 1) {
        cbuf_pool pool;
        create(&pool, stage);
        stage->given = new_payload(&pool, SMALL);
        CHECK_IS(finish(start(hold_and_die, stage)), -SIGKILL);
        CHECK_IS(held(&pool), 5);
        int status = finish(start(reclaim_and_die, stage));
        CHECK(status == 0 || status == -SIGKILL);
        cbuf_pool_reclaim(&pool);
        CHECK_IS(held(&pool), 1);
        CHECK_IS(large_files(stage), 0);
        check_payload(&pool, stage->given);
        CHECK_IS(cbuf_pool_release(&pool, stage->given), 1);
        cbuf_pool_close(&pool);
    }
    end_stage(stage);
}

static int make_and_remove(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    cbuf_pool_options options = pool_options(stage);
    cbuf_pool pool;
    kill_countdown = stage->countdown;
    options.existing = (uint8_t)stage->act;
    CHECK_IS(cbuf_pool_create(&pool, &options), 0);
    cbuf_pool_close(&pool);
    CHECK_IS(cbuf_pool_remove(stage->pool), 0);
    stage->done++;
    return 0;
}
static void a_pool_is_made_whole_or_not_at_all_and_removed_likewise(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    for (stage->act = CBUF_RESUME; stage->act <= CBUF_REPLACE; stage->act++) {
        stage->done = 0;
        for (stage->countdown = 1; !stage->done; stage->countdown += CHECK_SANITIZED ? 5 : 1) {
            cbuf_pool pool;
            if (stage->countdown % 2) create(&pool, stage), cbuf_pool_close(&pool);
            int status = finish(start(make_and_remove, stage));
            CHECK(status == 0 || status == -SIGKILL);
            int error = cbuf_pool_attach(&pool, stage->pool, NULL);
            CHECK_FOR(cbuf_pool_error(&pool), error == 0 || error == CBUF_ENOENT);
            cbuf_pool_close(&pool);
            create(&pool, stage);
            new_payload(&pool, SMALL);
            cbuf_pool_close(&pool);
            CHECK_IS(cbuf_pool_remove(stage->pool), 0);
            CHECK(access(file_of(stage->pool, ".new"), F_OK) != 0);
            CHECK(access(file_of(stage->pool, ".lock"), F_OK) != 0);
        }
    }
    end_stage(stage);
}

static void a_removed_rings_payloads_are_given_back(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    cbuf_pool pool, other;
    cbuf_ring ring;
    cbuf_pool_ring rows;
    create(&pool, stage);
    attach(&other, stage);
    produce_into(&ring, stage);
    own_rows(&rows, &pool, &ring);
    for (int k = 0; k < 3; k++) {
        payload_row row = { 0, new_payload(&pool, k == 1 ? LARGE : SMALL), 0 };
        CHECK_IS(cbuf_pool_write(&rows, &row), 1);
    }
    CHECK_IS(cbuf_pool_reclaim(&other), 0); /* its producer lives */
    cbuf_pool_ring_close(&rows);
    cbuf_close(&ring);
    CHECK_IS(cbuf_pool_reclaim(&other), 0); /* its file is there */
    CHECK_IS(held(&pool), 3);
    CHECK_IS(cbuf_remove(stage->ring), 0);
    CHECK_IS(cbuf_pool_reclaim(&other), 3);
    CHECK_IS(held(&pool), 0);
    CHECK_IS(large_files(stage), 0);
    cbuf_pool_close(&other);
    cbuf_pool_close(&pool);
    end_stage(stage);
}

/* ---- several producers ---- */

enum { MOST_PRODUCERS = 6 };
struct author { /* all that a producer needs */
    cbuf_pool pool;
    cbuf_ring ring;
    cbuf_pool_ring rows;
};
static void open_author(struct author *a, const struct stage *stage)
{
    attach(&a->pool, stage);
    produce_into(&a->ring, stage);
    own_rows(&a->rows, &a->pool, &a->ring);
}
static void close_author(struct author *a)
{
    cbuf_pool_ring_close(&a->rows);
    cbuf_close(&a->ring);
    cbuf_pool_close(&a->pool);
}
/* A pool beside a ring of that many producers, a payload that nobody writes, and, where A is one,
 * the first producer. */
static void open_company(cbuf_pool *pool, struct author *a, struct stage *stage, uint32_t producers)
{
    stage->producers = producers;
    create(pool, stage);
    stage->given = new_payload(pool, SMALL);
    if (a) open_author(a, stage);
}
static void close_company(cbuf_pool *pool, struct author *a, struct stage *stage)
{
    close_author(a);
    cbuf_pool_close(pool);
    end_stage(stage);
}
/* Writes a row with up to two payloads; what is not written is given back. */
static int write_payloads(struct author *a, uint64_t first, uint64_t second)
{
    payload_row row = { 0, 0, 0 };
    if (first && try_payload(&a->pool, first, &row.payload)) row.payload = 0;
    if (second && try_payload(&a->pool, second, &row.another)) row.another = 0;
    row.number = (row.payload != 0) + (row.another ? 2u : 0);
    int written = cbuf_pool_write(&a->rows, &row);
    CHECK_IS_FOR(cbuf_strerror(written), written == 1 || written == 0 || written == CBUF_ETIMEDOUT,
        true);
    if (written == 1) return 1;
    if (row.payload) CHECK_IS(cbuf_pool_release(&a->pool, row.payload), 1);
    if (row.another) CHECK_IS(cbuf_pool_release(&a->pool, row.another), 1);
    return written;
}
static uint64_t owner_of(const struct author *a, uint32_t number)
{
    return cbuf__load_relaxed(cbuf__owner_at(a->rows.self.held, number));
}
static uint32_t number_of(const struct author *a, cbuf_ref ref)
{
    uint32_t number = 0;
    CHECK(cbuf__slot_of(&a->pool, ref, &number) != NULL);
    return number;
}
/* Once none of the others is in the middle of a row: each slot that the ring holds is one place's,
 * whose row names it, or was given up; and a row that is there has its payloads. How many slots the
 * ring holds. */
static uint64_t check_owners(struct author *a)
{
    uint64_t claim = cbuf__claimed(&a->ring), owned = 0, owners = 0;
    uint32_t holders;
    for (cbuf_ref ref = 0; (ref = cbuf_pool_next_held(&a->pool, ref, &holders)) != 0;) {
        if (!(holders & a->rows.self.bit)) continue;
        uint64_t owner = owner_of(a, number_of(a, ref)), place = owner % ROWS;
        CHECK_IS(owner, cbuf__owner(ref, CBUF__OWNED, 0, place));
        uint64_t s = claim - 1 - ((claim - 1 - place) & (ROWS - 1)); /* the place's last row */
        CHECK(!cbuf__is_published(&a->ring, s) || cbuf__row_owns(&a->rows, place, ref));
        owned++;
    }
    for (uint32_t k = 0; k < a->pool.slots; k++) owners += owner_of(a, k) != 0;
    CHECK_IS(owners, owned);
    for (uint64_t s = claim > ROWS ? claim - ROWS : 0; s < claim; s++)
        for (uint32_t c = 0; c < 2 && cbuf__is_published(&a->ring, s); c++) {
            cbuf_ref ref = cbuf__ref_at(&a->rows, s, c);
            if (!ref) continue;
            CHECK_IS(owner_of(a, number_of(a, ref)), cbuf__owner(ref, CBUF__OWNED, 0, s % ROWS));
            CHECK_IS(cbuf_pool_retain(&a->pool, ref), 0);
            check_payload(&a->pool, ref);
            CHECK_IS(cbuf_pool_release(&a->pool, ref), 0);
        }
    return owned;
}
/* A lap of rows without payloads gives back all that the ring holds. */
static void check_a_lap(struct author *a, uint64_t others)
{
    for (int k = 0; k < ROWS; k++)
        while (write_payloads(a, 0, 0) != 1) {} /* until the dead one's rows are given up */
    CHECK_IS(check_owners(a), 0);
    CHECK_IS(held(&a->pool), others);
}

static int write_and_die(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    static struct author a;
    if (stage->act != SIGSTOP) kill_countdown = stage->countdown;
    open_author(&a, stage);
    if (stage->act == SIGSTOP) kill_signal = SIGSTOP, kill_countdown = stage->countdown;
    CHECK_IS(cbuf_pool_retain(&a.pool, stage->given), 0);
    for (uint64_t k = 0; k < stage->rows; k++)
        write_payloads(&a, k % 4 == 1 ? LARGE : SMALL, k % 3 ? SMALL : 0);
    CHECK_IS(cbuf_pool_release(&a.pool, stage->given), 0);
    stage->seed = 1; /* all is written */
    close_author(&a);
    stage->done++;
    return 0;
}
/* `act`: 1: another producer lives all the time; 0: nobody else has the ring, and then it is opened
 * again. */
static void one_of_several_producers_may_die_at_any_operation(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    static struct author a;
    cbuf_pool pool;
    open_company(&pool, NULL, stage, 3);
    for (stage->act = 0; stage->act < 2; stage->act++) {
        stage->rows = stage->act ? 3 : ROWS + 2;
        stage->done = 0;
        for (stage->countdown = 1; !stage->done; stage->countdown += CHECK_SANITIZED ? 11 : 1) {
            if (stage->act && stage->countdown == 1) open_author(&a, stage);
            for (int k = 0; stage->act && k < ROWS; k++)
                while (write_payloads(&a, SMALL, k % 2 ? SMALL : 0) != 1) {}
            int status = finish(start(write_and_die, stage));
            CHECK(status == 0 || status == -SIGKILL);
            cbuf_pool_reclaim(&pool);
            CHECK_IS(cbuf_pool_reclaim(&pool), 0); /* once is enough */
            if (!stage->act) open_author(&a, stage);
            CHECK_IS(held(&pool), 1 + check_owners(&a));
            check_a_lap(&a, 1);
            CHECK_IS(large_files(stage), 0);
            check_payload(&pool, stage->given);
            if (!stage->act) close_author(&a);
        }
        CHECK(stage->countdown > 200 / (CHECK_SANITIZED ? 11 : 1));
    }
    close_company(&pool, &a, stage);
}

static void who_settles_what_a_dead_producer_had_in_hand_may_die_too(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    static struct author a;
    uint64_t seed = 0x5eed0403, first = 0;
    cbuf_pool pool;
    open_company(&pool, &a, stage, 3);
    for (stage->rows = 100; first < (CHECK_SANITIZED ? 6 : 40); first++) {
        stage->done = 0;
        for (uint64_t at = 1; !stage->done; at += 1 + next_random(&seed) % 30) {
            stage->countdown = 300 + next_random(&seed) % 2000; /* in the middle of its rows */
            CHECK_IS(finish(start(write_and_die, stage)), -SIGKILL);
            stage->countdown = at;
            int status = finish(start(reclaim_and_die, stage));
            CHECK(status == 0 || status == -SIGKILL);
            if (next_random(&seed) % 2) write_payloads(&a, SMALL, LARGE);
            cbuf_pool_reclaim(&pool);
            CHECK_IS(held(&pool), 1 + check_owners(&a));
        }
        check_a_lap(&a, 1);
    }
    close_company(&pool, &a, stage);
}

static void who_takes_a_dead_producers_entry_settles_it_first(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    static struct author a;
    uint64_t seed = 0x5eed0405;
    cbuf_pool pool, other;
    stage->max_holders = 4; /* the test's two, the ring, the child */
    stage->rows = 100;
    open_company(&pool, &a, stage, 3);
    for (int k = 0; k < (CHECK_SANITIZED ? 20 : 100); k++) {
        stage->countdown = 300 + next_random(&seed) % 2000;
        CHECK_IS(finish(start(write_and_die, stage)), -SIGKILL);
        attach(&other, stage);
        CHECK_IS(held(&pool), 1 + check_owners(&a));
        cbuf_pool_close(&other);
    }
    check_a_lap(&a, 1);
    close_company(&pool, &a, stage);
}

/* One that is stopped at an operation, and goes on after others have written, reclaimed and opened
 * the ring. */
static void a_producer_may_stand_still_at_any_operation(void **state)
{
    (void)state;
    struct stage *stage = new_stage();
    static struct author a, third;
    cbuf_pool pool;
    stage->act = SIGSTOP;
    stage->rows = 4;
    open_company(&pool, &a, stage, 4);
    bool stopped = true;
    for (stage->countdown = 1; stopped; stage->countdown += CHECK_SANITIZED ? 7 : 1) {
        int status;
        stage->seed = 0;
        pid_t child = start(write_and_die, stage);
        CHECK_IS(waitpid(child, &status, WUNTRACED), child);
        stopped = WIFSTOPPED(status);
        CHECK(stopped || (WIFEXITED(status) && !WEXITSTATUS(status)));
        for (int k = 0, late = 0; k < 2 * ROWS && !late; k++)
            late = write_payloads(&a, SMALL, k % 2 ? SMALL : 0) != 1; /* it stands in the way */
        if (!stage->seed && stage->countdown % 4 == 0) {
            CHECK_IS(cbuf_pool_reclaim(&pool), 0);
            open_author(&third, stage);
            write_payloads(&third, SMALL, SMALL);
            close_author(&third);
        }
        if (stopped) CHECK_IS(finish_stopping(child), 0);
        forget(child);
        CHECK_IS(held(&pool), 1 + check_owners(&a));
        check_a_lap(&a, 1);
    }
    CHECK(stage->countdown > 100 / (CHECK_SANITIZED ? 7 : 1));
    close_company(&pool, &a, stage);
}

/* ---- random deaths ---- */

enum { CAST = 3, MOST_CAST = 6 }; /* a producer and two consumers, on two processors; or three of
                                     each */

static int produce_at_random(struct stage *stage, uint64_t *seed)
{
    cbuf_pool pool;
    cbuf_ring ring;
    cbuf_pool_ring rows;
    attach(&pool, stage);
    produce_into(&ring, stage);
    own_rows(&rows, &pool, &ring);
    for (int k = 0; k < 60; k++) {
        cbuf_ref ref = 0;
        bool large = next_random(seed) % 16 == 0;
        if (try_payload(&pool, large ? LARGE : SMALL, &ref)) ref = 0;
        payload_row row = { cbuf_head(&ring), ref, 0 };
        if (ref && next_random(seed) % 4 == 0) {
            CHECK_IS(cbuf_pool_retain(&pool, ref), 0);
            CHECK_IS(cbuf_pool_write(&rows, &row), 1);
            check_payload(&pool, ref);
            CHECK(cbuf_pool_release(&pool, ref) >= 0);
        } else {
            CHECK_IS(cbuf_pool_write(&rows, &row), 1);
        }
        stage->done++;
    }
    cbuf_pool_ring_close(&rows);
    cbuf_close(&ring);
    cbuf_pool_close(&pool);
    return 0;
}
/* A fast consumer, or a slow one that keeps more than it should; both are lapped. */
static int consume_at_random(struct stage *stage, uint64_t *seed)
{
    cbuf_pool pool;
    cbuf_ring ring;
    cbuf_reader reader;
    cbuf_reader_options options;
    payload_row row;
    cbuf_ref kept[5] = { 0 };
    memset(&options, 0, sizeof options);
    options.anonymous = true;
    attach(&pool, stage);
    if (cbuf_attach(&ring, stage->ring, NULL)) return 0; /* not made yet */
    CHECK_IS(cbuf_reader_open(&reader, &ring, &options), 0);
    for (int k = 0; k < 200; k++) {
        if (cbuf_read(&reader, &row, 1) != 1) {
            sched_yield();
            continue;
        }
        if (!row.payload || cbuf_pool_retain(&pool, row.payload)) continue;
        check_payload(&pool, row.payload);
        stage->done++;
        cbuf_ref *place = &kept[next_random(seed) % 5];
        if (*place) {
            check_payload(&pool, *place);
            CHECK(cbuf_pool_release(&pool, *place) >= 0);
        }
        *place = row.payload;
    }
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    cbuf_pool_close(&pool);
    return 0;
}
static int act_at_random(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    uint64_t seed = stage->seed;
    kill_countdown = stage->countdown;
    int result = stage->act ? consume_at_random(stage, &seed) : produce_at_random(stage, &seed);
    return stage->countdown ? result : live_on(); /* until it is killed from outside */
}
static void open_cast(struct stage **stages, int n, const struct stage *stage)
{
    for (int k = 0; k < n; k++) {
        stages[k] = (struct stage *)shared_memory(sizeof *stage);
        *stages[k] = *stage;
        stages[k]->act = k;
    }
}
static void close_cast(struct stage **stages, int n)
{
    for (int k = 0; k < n; k++) munmap(stages[k], sizeof *stages[k]);
}
/* Lets n players act, each to be killed before a random operation or from outside at a random
 * moment of the first 500 us. How many were. */
static uint64_t kill_cast(
    struct stage **stages, int n, int (*play)(void *), cbuf_pool *pool, uint64_t *seed)
{
    pid_t cast[MOST_CAST];
    uint64_t kills = 0;
    for (int k = 0; k < n; k++) {
        stages[k]->seed = next_random(seed);
        stages[k]->countdown = next_random(seed) % 4 ? 1 + next_random(seed) % 2500 : 0;
        cast[k] = start(play, stages[k]);
    }
    for (int64_t until = now_ns() + (int64_t)(next_random(seed) % 500000); now_ns() < until;)
        if (next_random(seed) % 8 == 0) cbuf_pool_reclaim(pool); /* while others act */
    for (int k = 0; k < n; k++) {
        int status = stages[k]->countdown ? finish(cast[k]) : end_by(cast[k], SIGKILL);
        CHECK(status == 0 || status == -SIGKILL);
        kills += status != 0;
        if (next_random(seed) % 2) cbuf_pool_reclaim(pool);
    }
    return kills;
}
/* After the deaths of all: only the test itself and the ring hold anything. */
static void check_survivors(cbuf_pool *pool, const struct stage *stage)
{
    uint32_t holders;
    cbuf_pool_reclaim(pool);
    check_payload(pool, stage->given);
    for (cbuf_ref ref = 0; (ref = cbuf_pool_next_held(pool, ref, &holders)) != 0;)
        for (uint32_t k = 0; k < 8; k++) {
            cbuf_pool_holder info;
            if (!(holders >> k & 1) || k == pool->self.index) continue;
            CHECK_IS(cbuf_pool_holder_get(pool, k, &info), 1);
            CHECK(info.ring);
        }
}
static void check_nothing_is_left(cbuf_pool *pool, const struct stage *stage)
{
    cbuf_ring ring;
    cbuf_pool_ring rows;
    produce_into(&ring, stage);
    own_rows(&rows, pool, &ring);
    cbuf_pool_ring_drop(&rows);
    cbuf_close(&ring);
    CHECK_IS(held(pool), 1);
    CHECK_IS(large_files(stage), 0);
    CHECK_IS(cbuf_remove(stage->ring), 0);
}

static uint64_t kills_wanted(void)
{
    const char *wanted = getenv("CBUF_POOL_KILLS");
    uint64_t all = wanted ? strtoull(wanted, NULL, 10) : 300;
    if (is_emulated()) all /= 8;
    return CHECK_SANITIZED && !wanted ? all / 2 : all;
}
static void random_deaths_give_back_exactly_what_the_dead_held(void **state)
{
    (void)state;
    const char *wanted = getenv("CBUF_POOL_KILLS");
    uint64_t kills = 0, all = kills_wanted(), seed = 0x5eed0401;
    struct stage *stages[CAST], *stage = new_stage();
    cbuf_pool pool;
    create(&pool, stage);
    stage->given = new_payload(&pool, SMALL);
    open_cast(stages, CAST, stage);
    for (uint64_t round = 1; kills < all; round++) {
        kills += kill_cast(stages, CAST, act_at_random, &pool, &seed);
        check_survivors(&pool, stage);
        if (round % 16 == 0 || kills >= all) check_nothing_is_left(&pool, stage);
    }
    CHECK(stages[0]->done > all && stages[1]->done > all / 4); /* rows written, payloads seen */
    if (wanted)
        printf("%llu deaths in %llu rows and %llu payloads held by others: all accounted for\n",
            (unsigned long long)kills, (unsigned long long)stages[0]->done,
            (unsigned long long)(stages[1]->done + stages[2]->done));
    close_cast(stages, CAST);
    cbuf_pool_close(&pool);
    end_stage(stage);
}

/* One of several producers: rows with payloads, some of which it keeps for a moment. */
static int produce_among_others(struct stage *stage, uint64_t *seed)
{
    static struct author a;
    open_author(&a, stage);
    for (int k = 0; k < 60; k++) {
        uint64_t chance = next_random(seed);
        cbuf_ref ref;
        if (chance % 4) {
            write_payloads(&a, chance % 8 ? SMALL : 0, chance % 16 == 1 ? LARGE : 0);
        } else if (!try_payload(&a.pool, SMALL, &ref)) {
            payload_row row = { 1, ref, 0 };
            CHECK_IS(cbuf_pool_retain(&a.pool, ref), 0);
            int written = cbuf_pool_write(&a.rows, &row);
            check_payload(&a.pool, ref);
            for (int n = written == 1 ? 1 : 2; n > 0; n--)
                CHECK(cbuf_pool_release(&a.pool, ref) >= 0);
        }
        stage->done++;
    }
    close_author(&a);
    return 0;
}
/* A gate: no row's payload is gone before it is read. It keeps the last three. */
static int consume_all(struct stage *stage)
{
    cbuf_pool pool;
    cbuf_ring ring;
    cbuf_reader reader;
    payload_row row;
    cbuf_ref kept[3] = { 0 };
    attach(&pool, stage);
    if (cbuf_attach(&ring, stage->ring, NULL)) return 0; /* not made yet */
    CHECK_IS(cbuf_reader_open(&reader, &ring, NULL), 0);
    uint64_t edge = cbuf__claimed(&ring); /* older rows may go before the producers see the gate */
    for (int k = 0; k < 400; k++) {
        const size_t at = offsetof(payload_row, payload);
        if (cbuf_pool_read(&pool, &reader, &row, at) != 1) {
            sched_yield();
            continue;
        }
        CHECK((row.payload != 0) == row.number % 2 || cbuf_first(&reader) < edge);
        if (!row.payload) continue;
        check_payload(&pool, row.payload);
        if (kept[k % 3]) CHECK(cbuf_pool_release(&pool, kept[k % 3]) >= 0);
        kept[k % 3] = row.payload;
        stage->done++;
    }
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    cbuf_pool_close(&pool);
    return 0;
}
static int play_at_random(void *argument)
{
    struct stage *stage = (struct stage *)argument;
    uint64_t seed = stage->seed;
    kill_countdown = stage->countdown;
    int result = stage->act < 3 ? produce_among_others(stage, &seed)
        : stage->on_full == CBUF_OVERWRITE ? consume_at_random(stage, &seed)
                                           : consume_all(stage);
    return stage->countdown ? result : live_on();
}
/* In every other round another producer lives all the time; in the others all of them die, and the
 * ring is opened again. */
static void random_deaths_among_several_producers_leave_each_slot_accounted_for(void **state)
{
    (void)state;
    uint64_t kills = 0, all = kills_wanted(), seed = 0x5eed0404, rows = 0, seen = 0, round = 0;
    struct stage *stages[MOST_CAST], *stage = new_stage();
    static struct author a;
    cbuf_pool pool;
    stage->producers = MOST_PRODUCERS;
    stage->max_holders = 12;
    create(&pool, stage);
    stage->given = new_payload(&pool, SMALL);
    for (; stage->on_full <= CBUF_DROP_NEWEST; stage->on_full += CBUF_DROP_NEWEST) {
        open_cast(stages, MOST_CAST, stage);
        for (uint64_t end = all / (stage->on_full ? 1 : 2); kills < end; round++) {
            if (round % 2) open_author(&a, stage);
            kills += kill_cast(stages, MOST_CAST, play_at_random, &pool, &seed);
            if (round % 2 == 0) open_author(&a, stage);
            cbuf_pool_reclaim(&pool);
            CHECK_IS(held(&pool), 1 + check_owners(&a));
            if (next_random(&seed) % 4 == 0 || kills >= end) check_a_lap(&a, 1);
            check_payload(&pool, stage->given);
            close_author(&a);
        }
        for (int k = 0; k < MOST_CAST; k++) *(k < 3 ? &rows : &seen) += stages[k]->done;
        CHECK_IS(large_files(stage), 0);
        CHECK_IS(cbuf_remove(stage->ring), 0);
        cbuf_pool_reclaim(&pool);
        CHECK_IS(held(&pool), 1);
        close_cast(stages, MOST_CAST);
    }
    CHECK(rows > all && seen > all / 8);
    if (getenv("CBUF_POOL_KILLS"))
        printf("%llu deaths in %llu rows of several producers and %llu payloads held by others: "
               "all accounted for\n", (unsigned long long)kills, (unsigned long long)rows,
            (unsigned long long)seen);
    cbuf_pool_close(&pool);
    end_stage(stage);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_begin, scene_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_payload_is_the_same_in_every_process_and_outlives_who_made_it),
        TEST(a_pool_is_joined_or_refused_as_the_options_say),
        TEST(a_pool_that_nobody_uses_is_replaced_and_removed_with_its_files),
        TEST(what_is_no_pool_is_refused_and_left_alone),
        TEST(a_forked_child_cannot_use_the_handle),
        TEST(a_holders_entry_tells_who_it_is_what_it_holds_and_whether_it_lives),
        TEST(an_empty_pool_looks_for_the_dead_before_it_says_so),
        TEST(a_payload_of_no_bytes_may_be_in_any_class),
        TEST(an_xxl_payload_stays_in_its_place_until_its_row_is_written),
        TEST(a_ring_is_opened_for_refs_once),
        TEST(a_groups_pool_has_payloads_for_the_group),
        TEST(who_joins_where_no_entry_is_free_sweeps_a_dead_one),
        TEST(a_holder_may_die_at_any_operation),
        TEST(who_reclaims_may_die_at_any_operation_too),
        TEST(a_pool_is_made_whole_or_not_at_all_and_removed_likewise),
        TEST(a_removed_rings_payloads_are_given_back),
        TEST(one_of_several_producers_may_die_at_any_operation),
        TEST(who_settles_what_a_dead_producer_had_in_hand_may_die_too),
        TEST(who_takes_a_dead_producers_entry_settles_it_first),
        TEST(a_producer_may_stand_still_at_any_operation),
        TEST(random_deaths_give_back_exactly_what_the_dead_held),
        TEST(random_deaths_among_several_producers_leave_each_slot_accounted_for),
    };
    const char *kills = getenv("CBUF_POOL_KILLS");
    scene_open(300 + (unsigned)((kills ? strtoull(kills, NULL, 10) : 0) / 50));
    return scene_close(cmocka_run_group_tests(tests, NULL, NULL));
}
