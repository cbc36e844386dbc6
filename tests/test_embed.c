/*
 * test_embed.c - the header without an operating system (CBUF_NO_OS): it needs no system header and
 * no function but those that move and compare bytes, and it agrees with the whole header about a
 * ring in memory.
 *
 * As it is, this is a test program of the embedded header. With TEST_EMBED_BARE only the part that
 * would be embedded is left, to be looked at with nm and linked to this file compiled with
 * TEST_EMBED_LINKED, which has the whole header:
 *
 *   cc -Iinclude -DTEST_EMBED_BARE -c tests/test_embed.c -o bare.o
 *   nm -u bare.o      memcpy memmove memset memcmp strlen strcmp strchr; clang: bcmp, memchr too
 *   cc -Iinclude -DTEST_EMBED_LINKED tests/test_embed.c bare.o -lcmocka
 */
#ifndef TEST_EMBED_LINKED
#define CBUF_NO_OS
#endif
#include <cbuf.h>

#if defined CBUF_NO_OS &&                                                                          \
    (defined O_RDONLY || defined MAP_SHARED || defined EINVAL || defined SYS_futex ||              \
        defined CLOCK_REALTIME || defined S_ISREG || defined EOF)
#error "cbuf.h with CBUF_NO_OS brings in a header of the operating system"
#endif

struct sample {
    uint64_t number;
    float volts;
    uint16_t flags;
};
typedef struct sample a_sample;
#define SAMPLE_COLUMNS 3
#define NUMBER_COLUMN CBUF_COLUMN(a_sample, number)
#define VOLTS_COLUMN CBUF_COLUMN(a_sample, volts)
#define FLAGS_COLUMN CBUF_COLUMN(a_sample, flags)

/* ---- the embedded part ---- */

#ifdef __cplusplus
extern "C" {
#endif
int embedded_create(cbuf_ring *ring, void *memory, size_t bytes, uint8_t layout, uint8_t on_full);
int embedded_attach(cbuf_ring *ring, void *memory, size_t bytes);
int64_t embedded_needed(void);
int embedded_write(cbuf_ring *ring, uint64_t number);
int embedded_open(cbuf_reader *reader, const cbuf_ring *ring);
int64_t embedded_read(cbuf_reader *reader, struct sample *samples, uint32_t n);
size_t embedded_sizes(int which);
extern void (*const embedded_functions[])(void);
#ifdef __cplusplus
}
#endif

#ifdef CBUF_NO_OS
CBUF_TYPED(samples, a_sample);

static const cbuf_column sample_columns[SAMPLE_COLUMNS] = { NUMBER_COLUMN, VOLTS_COLUMN,
    FLAGS_COLUMN };

static cbuf_options sample_options(uint8_t layout, uint8_t on_full)
{
    cbuf_options options;
    memset(&options, 0, sizeof options);
    options.capacity = 16;
    options.columns = sample_columns;
    options.column_count = SAMPLE_COLUMNS;
    options.row_bytes = sizeof(struct sample);
    options.max_readers = 2;
    options.layout = layout;
    options.on_full = on_full;
    return options;
}
int64_t embedded_needed(void)
{
    cbuf_options options = sample_options(CBUF_NUMBERED, CBUF_OVERWRITE);
    return cbuf_memory_needed(&options);
}
int embedded_create(cbuf_ring *ring, void *memory, size_t bytes, uint8_t layout, uint8_t on_full)
{
    cbuf_options options = sample_options(layout, on_full);
    return cbuf_create_in(ring, memory, bytes, &options);
}
int embedded_attach(cbuf_ring *ring, void *memory, size_t bytes)
{
    return cbuf_attach_in(ring, memory, bytes);
}
int embedded_write(cbuf_ring *ring, uint64_t number)
{
    struct sample sample;
    memset(&sample, 0, sizeof sample);
    sample.number = number;
    sample.volts = (float)number;
    sample.flags = (uint16_t)number;
    return samples_write(ring, &sample);
}
int embedded_open(cbuf_reader *reader, const cbuf_ring *ring)
{
    return cbuf_reader_open(reader, ring, NULL);
}
int64_t embedded_read(cbuf_reader *reader, struct sample *samples, uint32_t n)
{
    return samples_read(reader, samples, n);
}
size_t embedded_sizes(int which)
{
    static const size_t sizes[] = { sizeof(cbuf_ring), sizeof(cbuf_reader), sizeof(cbuf_options),
        offsetof(cbuf_ring, error) };
    return sizes[which];
}

/* All there is without an operating system, so that nm sees what each of them needs. */
#define EMBEDDED(function) (void (*)(void))function
void (*const embedded_functions[])(void) = {
    EMBEDDED(cbuf_strerror), EMBEDDED(cbuf_memory_needed), EMBEDDED(cbuf_create_in),
    EMBEDDED(cbuf_attach_in), EMBEDDED(cbuf_close), EMBEDDED(cbuf_path), EMBEDDED(cbuf_error),
    EMBEDDED(cbuf_resolved), EMBEDDED(cbuf_schema), EMBEDDED(cbuf_column_at),
    EMBEDDED(cbuf_column_find), EMBEDDED(cbuf_write), EMBEDDED(cbuf_write_n),
    EMBEDDED(cbuf_write_columns), EMBEDDED(cbuf_claim), EMBEDDED(cbuf_publish),
    EMBEDDED(cbuf_stride), EMBEDDED(cbuf_reader_open), EMBEDDED(cbuf_reader_close),
    EMBEDDED(cbuf_read), EMBEDDED(cbuf_first), EMBEDDED(cbuf_lost), EMBEDDED(cbuf_available),
    EMBEDDED(cbuf_peek), EMBEDDED(cbuf_still_valid), EMBEDDED(cbuf_advance), EMBEDDED(cbuf_seek),
    EMBEDDED(cbuf_seek_value), EMBEDDED(cbuf_head), EMBEDDED(cbuf_oldest), EMBEDDED(cbuf_latest),
    EMBEDDED(cbuf_snapshot), EMBEDDED(cbuf_stats_get), EMBEDDED(cbuf_reader_stats_get),
    EMBEDDED(cbuf_join_in), EMBEDDED(cbuf_skipped), EMBEDDED(cbuf_producer_stats_get),
    EMBEDDED(samples_write), EMBEDDED(samples_write_n), EMBEDDED(samples_read),
    EMBEDDED(samples_latest), EMBEDDED(samples_claim)
};
#endif

/* ---- its tests ---- */

#ifndef TEST_EMBED_BARE
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#ifdef __cplusplus
extern "C" {
#endif
#include <cmocka.h>
#ifdef __cplusplus
}
#endif

static union {
    unsigned char bytes[8192];
    cbuf__word words[1024];
} memory; /* of a device: no allocation */

static void a_ring_lives_in_a_static_buffer(void **state)
{
    cbuf_ring ring;
    cbuf_reader reader;
    struct sample samples[16];
    (void)state;
    assert_in_range(embedded_needed(), 1024, sizeof memory);
    for (uint8_t layout = CBUF_NUMBERED; layout <= CBUF_DENSE; layout++) {
        uint64_t next = 0;
        assert_int_equal(
            embedded_create(&ring, memory.bytes, sizeof memory, layout, CBUF_OVERWRITE), 0);
        assert_int_equal(embedded_open(&reader, &ring), 0);
        for (uint64_t number = 0; number < 1000; number++) {
            assert_int_equal(embedded_write(&ring, number), 1);
            if (number % 23) continue;
            for (int64_t n; (n = embedded_read(&reader, samples, 16)) > 0;
                 next = cbuf_first(&reader) + (uint64_t)n)
                for (int64_t k = 0; k < n; k++) {
                    assert_int_equal(samples[k].number, cbuf_first(&reader) + (uint64_t)k);
                    assert_true(samples[k].volts == (float)samples[k].number &&
                        samples[k].flags == samples[k].number);
                }
            assert_int_equal(next, number + 1);
        }
        assert_true(cbuf_lost(&reader) > 0);
        cbuf_reader_close(&reader);
        cbuf_close(&ring);
    }
}

static void a_buffer_that_is_too_small_is_refused(void **state)
{
    cbuf_ring ring;
    (void)state;
    memset(memory.bytes, 0x5a, sizeof memory);
    assert_int_equal(embedded_create(&ring, memory.bytes, (size_t)embedded_needed() - 1,
                         CBUF_NUMBERED, CBUF_OVERWRITE),
        CBUF_ENOSPACE);
    assert_non_null(strstr(cbuf_error(&ring), cbuf_strerror(CBUF_ENOSPACE)));
    assert_int_equal(
        embedded_create(&ring, memory.bytes + 4, sizeof memory - 4, CBUF_NUMBERED, CBUF_OVERWRITE),
        CBUF_EINVAL);
    for (size_t k = 0; k < sizeof memory; k++) assert_int_equal(memory.bytes[k], 0x5a);
    assert_int_equal(embedded_attach(&ring, memory.bytes, sizeof memory), CBUF_EFORMAT);
    assert_int_equal(embedded_create(&ring, memory.bytes, (size_t)embedded_needed(), CBUF_NUMBERED,
                         CBUF_OVERWRITE),
        0);
    for (size_t k = (size_t)embedded_needed(); k < sizeof memory; k++)
        assert_int_equal(memory.bytes[k], 0x5a);
}

static void a_full_ring_refuses_at_once(void **state)
{
    cbuf_ring ring;
    cbuf_reader reader;
    struct sample samples[16];
    (void)state;
    for (uint8_t on_full = CBUF_BLOCK; on_full <= CBUF_DROP_NEWEST; on_full++) {
        assert_int_equal(
            embedded_create(&ring, memory.bytes, sizeof memory, CBUF_NUMBERED, on_full), 0);
        assert_int_equal(embedded_open(&reader, &ring), 0);
        for (uint64_t number = 0; number < 16; number++)
            assert_int_equal(embedded_write(&ring, number), 1);
        assert_int_equal(embedded_write(&ring, 16), on_full == CBUF_BLOCK ? CBUF_ETIMEDOUT : 0);
        assert_int_equal(embedded_read(&reader, samples, 1), 1);
        assert_int_equal(embedded_write(&ring, 16), 1);
        for (uint64_t number = 1; embedded_read(&reader, samples, 1) == 1; number++)
            assert_int_equal(samples[0].number, number);
        assert_int_equal(cbuf_lost(&reader), 0);
        cbuf_reader_close(&reader);
        cbuf_close(&ring);
    }
}

#ifdef CBUF_NO_OS
/* Here nobody can wait: who meets a row that another has not finished is told so at once. */
static void a_producer_in_the_middle_of_its_claim_holds_nobody_up(void **state)
{
    (void)state;
    for (uint8_t on_full = CBUF_OVERWRITE; on_full <= CBUF_DROP_NEWEST; on_full++) {
        cbuf_ring one, other;
        cbuf_reader reader;
        struct sample sample, *claimed;
        cbuf_options options = sample_options(CBUF_NUMBERED, on_full);
        options.producers = 2;
        assert_int_equal(cbuf_create_in(&one, memory.bytes, sizeof memory, &options), 0);
        assert_int_equal(cbuf_join_in(&other, memory.bytes, sizeof memory), 0);
        assert_int_equal(embedded_open(&reader, &one), 0);
        assert_non_null(claimed = samples_claim(&one));
        claimed->number = 100;
        for (uint64_t number = 0; number < 15; number++)
            assert_int_equal(embedded_write(&other, number), 1);
        int64_t refused = on_full == CBUF_DROP_NEWEST ? 0 : CBUF_ETIMEDOUT, granted;
        for (int k = 0; k < 3; k++) assert_int_equal(embedded_write(&other, 15), refused);
        assert_null(cbuf_claim(&other, 1, &granted));
        assert_int_equal(granted, refused);
        assert_int_equal(embedded_read(&reader, &sample, 1), 0);
        assert_int_equal(cbuf_publish(&one, 1), 1);
        assert_int_equal(embedded_read(&reader, &sample, 1), 1);
        assert_int_equal(sample.number, 100);
        assert_int_equal(embedded_write(&other, 15), 1);
        for (uint64_t number = 0; number < 16; number++) {
            assert_int_equal(embedded_read(&reader, &sample, 1), 1);
            assert_int_equal(sample.number, number);
        }
        cbuf_close(&other);
        cbuf_reader_close(&reader);
        cbuf_close(&one);
    }
}
#endif

static void two_parties_share_the_buffer(void **state)
{
    cbuf_ring ring, other;
    cbuf_reader reader;
    cbuf_stats stats;
    struct sample sample;
    (void)state;
    assert_int_equal(
        embedded_create(&ring, memory.bytes, sizeof memory, CBUF_NUMBERED, CBUF_OVERWRITE), 0);
    /* By the whole header, where there is one. */
    assert_int_equal(cbuf_attach_in(&other, memory.bytes, sizeof memory), 0);
    assert_int_equal(cbuf_reader_open(&reader, &other, NULL), 0);
    for (uint64_t number = 0; number < 5; number++)
        assert_int_equal(embedded_write(&ring, number), 1);
    for (uint64_t number = 0; number < 5; number++) {
        assert_int_equal(cbuf_read(&reader, &sample, 1), 1);
        assert_int_equal(sample.number, number);
    }
    assert_int_equal(cbuf_stats_get(&other, &stats), 0);
    assert_int_equal(stats.written, 5);
    assert_int_equal(stats.readers, 1);
    cbuf_reader_close(&reader);
    cbuf_close(&ring);
    assert_int_equal(cbuf_stats_get(&other, &stats), 0);
    assert_true(stats.closed);
    cbuf_close(&other);
}

#ifdef TEST_EMBED_LINKED
static void both_translation_units_have_the_same_types(void **state)
{
    (void)state;
    assert_int_equal(embedded_sizes(0), sizeof(cbuf_ring));
    assert_int_equal(embedded_sizes(1), sizeof(cbuf_reader));
    assert_int_equal(embedded_sizes(2), sizeof(cbuf_options));
    assert_int_equal(embedded_sizes(3), offsetof(cbuf_ring, error));
}

/* The whole header makes the ring, the embedded one writes and reads it, and one in a file works
 * beside it. */
static void the_embedded_part_uses_a_ring_that_the_whole_header_made(void **state)
{
    static const cbuf_column columns[SAMPLE_COLUMNS] = { NUMBER_COLUMN, VOLTS_COLUMN,
        FLAGS_COLUMN };
    cbuf_ring ring, other, file;
    cbuf_reader reader;
    cbuf_options options;
    struct sample sample;
    (void)state;
    memset(&options, 0, sizeof options);
    options.capacity = 16;
    options.columns = columns;
    options.column_count = SAMPLE_COLUMNS;
    options.row_bytes = sizeof(struct sample);
    assert_int_equal(cbuf_create(&file, &options), 0);
    options.max_readers = 2;
    assert_int_equal(cbuf_create_in(&ring, memory.bytes, sizeof memory, &options), 0);
    assert_int_equal(embedded_attach(&other, memory.bytes, sizeof memory), 0);
    assert_int_equal(embedded_open(&reader, &other), 0);
    for (uint64_t number = 0; number < 7; number++)
        assert_int_equal(embedded_write(&ring, number), 1);
    for (uint64_t number = 0; number < 7; number++) {
        assert_int_equal(embedded_read(&reader, &sample, 1), 1);
        assert_int_equal(sample.number, number);
        assert_int_equal(cbuf_write(&file, &sample), 1);
    }
    assert_int_equal(cbuf_head(&file), 7);
    char path[256];
    strcpy(path, cbuf_path(&file));
    cbuf_reader_close(&reader);
    cbuf_close(&other);
    cbuf_close(&ring);
    cbuf_close(&file);
    assert_int_equal(cbuf_remove(path), 0);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_lives_in_a_static_buffer),
        cmocka_unit_test(a_buffer_that_is_too_small_is_refused),
        cmocka_unit_test(a_full_ring_refuses_at_once),
        cmocka_unit_test(two_parties_share_the_buffer),
#ifdef CBUF_NO_OS
        cmocka_unit_test(a_producer_in_the_middle_of_its_claim_holds_nobody_up),
#endif
#ifdef TEST_EMBED_LINKED
        cmocka_unit_test(both_translation_units_have_the_same_types),
        cmocka_unit_test(the_embedded_part_uses_a_ring_that_the_whole_header_made),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
