/*
 * cbuf_delta.h - delta columns, stored in 8, 16 or 32 bits and read back bit for bit: the codec.
 *
 * Put it beside cbuf.h, which takes it in at its section [delta]; including either gives both. How
 * to ask for such columns stands there (options.deltas), how to choose them in cbuf_advise.h. Where
 * the file has room for them is agreed on by all, and checked, in cbuf.h.
 *
 * DELTA COLUMNS. Rows come in blocks of block_rows. A block has a base for each delta column; a row
 * stores the difference to it, wrapping on the column's width. A float is a whole number of steps
 * first: the one of which the quotient (n * multiple) / divisor is that very double. What does not
 * fit, or is not exactly so many steps (also NaN, -0.0, infinity), stores the escape code, the
 * smallest number of its bits, and its bytes go to the row's word in the escape plane.
 *
 *   | facts ... gates | counts, pages | rows | bases | escape plane, sparse . . . |
 *                          |       |       |      |        |
 *     of escapes: a word --+       |       |      |        +- 8 bytes a row and delta column,
 *     for each delta column        |       |      |           column by column; a page is made
 *     a bit for each page of the --+       |      |           before the first escape in it
 *     plane that was made                  |      +- 8 bytes a block and delta column, likewise
 *                                          |
 *     +------------+------------+-----------+---------------+-----+--------+
 *     | 32 bits .. | 16 bits .. | 8 bits .. | other columns | pad | number |
 *     +------------+------------+-----------+---------------+-----+--------+
 *       differences, the widest first         as they are           (numbered)
 *
 * Bases and escapes are words like those of rows, stored between W1 and W2, loaded between R2 and
 * R1. As one base serves a whole block, `reserve` moves in whole blocks: no base is overwritten as
 * long as a row that it decodes may be trusted. A reader decodes only what was validated, so that
 * it looks for no escape that is not there (its page might not be either), and validates again
 * after it looked. A successor goes on in the middle of a block with that block's base.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_H
#include "cbuf.h" /* which includes this file in its place */
#elif !defined CBUF_DELTA_H
#define CBUF_DELTA_H

#if !defined __i386__ || defined __SSE2_MATH__
#define CBUF__SSE2
#elif defined __clang__ /* the 387 would round quotients twice, and to others than elsewhere */
#define CBUF__SSE2 __attribute__((target("sse2")))
#else
#define CBUF__SSE2 __attribute__((target("sse2,fpmath=sse")))
#endif

enum { CBUF__CHUNK = 64 }; /* rows done at a time */
#define CBUF__KIND_CODE(real, bytes, bits) ((real) * 1024u + (bytes) * 64u + (bits))

/* A decimal step as a quotient of whole numbers. */
CBUF__SLOW CBUF__SSE2 bool cbuf__fraction_of(const double *of, double *multiple, double *divisor)
{
    const double step = *of; /* by pointers: registers differ without SSE2 */
    if (!(step > 0 && step <= 1e15)) return false;
    for (*divisor = 1; *divisor <= 1e15 && step * *divisor <= 1e15; *divisor *= 10) {
        *multiple = CBUF__AS(double, CBUF__AS(int64_t, step * *divisor + 0.5));
        if (*multiple >= 1 && *multiple / *divisor >= step && *multiple / *divisor <= step)
            return true;
    }
    return false;
}
CBUF__SLOW CBUF__SSE2 void cbuf__quotient(
    const double *multiple, const double *divisor, double *step)
{
    *step = *multiple / *divisor;
}

/* Adds the next column in the order of the offsets; `delta` is NULL if it is none. Its fault, or
 * NULL. */
CBUF__SLOW const char *cbuf__add_column(
    cbuf__codec *codec, const cbuf_column *column, uint32_t index, const cbuf_delta *delta)
{
    uint32_t bytes = CBUF_TYPE_BYTES(column->type), kind = column->type >> 24;
    if (!delta) {
        cbuf__run *run = codec->run + codec->runs;
        bool more = codec->runs && run[-1].offset + run[-1].bytes == column->offset;
        if (!more && codec->runs == 2 * CBUF_MAX_DELTAS) return "too many gaps between columns";
        if (more) run[-1].bytes += bytes;
        else run->offset = column->offset, run->bytes = bytes, codec->runs++;
        return NULL;
    }
    bool whole = kind == 1 || kind == 2 || kind == 5;
    if (codec->deltas == CBUF_MAX_DELTAS) return "more delta columns than CBUF_MAX_DELTAS";
    if (!whole && kind != 3) return "a delta column is neither an integer nor a float";
    if ((delta->bits != 8 && delta->bits != 16 && delta->bits != 32) || delta->bits > 8 * bytes)
        return "a delta column's bits are not 8, 16 or 32, or more than the column has";
    cbuf__packed *d = codec->delta + codec->deltas;
    if (whole ? delta->step < 0 || delta->step > 0
              : !cbuf__fraction_of(&delta->step, &d->multiple, &d->divisor))
        return "a float's step is no decimal number, or an integer has a step";
#ifdef __FAST_MATH__
    if (!whole) return "compiled with -ffast-math, which rounds quotients in other ways";
#endif
    d->index = index;
    d->offset = column->offset;
    d->bytes = bytes;
    d->bits = delta->bits;
    d->real = !whole;
    d->kind = CBUF__KIND_CODE(d->real, d->bytes, d->bits);
    if (d->real) d->inverse = d->divisor / d->multiple;
    codec->deltas++;
    return NULL;
}

/* Gives all columns their places in the stored row. */
CBUF__SLOW void cbuf__place_columns(cbuf__codec *codec)
{
    uint32_t end = 0;
    for (uint32_t bits = 32; bits >= 8; bits /= 2) {
        for (uint32_t k = 0; k < codec->deltas; k++) {
            if (codec->delta[k].bits != bits) continue;
            codec->delta[k].stored = end;
            end += bits / 8;
        }
    }
    for (uint32_t r = 0; r < codec->runs; r++) {
        codec->run[r].stored = end;
        end += codec->run[r].bytes;
    }
    codec->stored_bytes = end;
}

/* The delta column there, or NULL. */
CBUF__SLOW const cbuf__packed *cbuf__delta_of(
    const cbuf__codec *codec, const cbuf_column *column)
{
    for (uint32_t k = 0; k < codec->deltas; k++)
        if (codec->delta[k].offset == column->offset) return codec->delta + k;
    return NULL;
}
CBUF__SLOW uint32_t cbuf__stored_at(const cbuf__codec *codec, const cbuf_column *column)
{
    const cbuf__packed *delta = cbuf__delta_of(codec, column);
    uint32_t r = 0;
    if (delta) return delta->stored;
    while (r + 1 < codec->runs && codec->run[r + 1].offset <= column->offset) r++;
    return codec->run[r].stored + column->offset - codec->run[r].offset;
}

/* A value of so many bytes as a word, and back. */
CBUF__INLINE uint64_t cbuf__load_part(const unsigned char *from, const uint32_t bytes)
{
    uint16_t half;
    uint32_t word;
    if (bytes == 1) return *from;
    if (bytes == 2) return memcpy(&half, from, 2), half;
    if (bytes == 4) return memcpy(&word, from, 4), word;
    return cbuf__get(from);
}
CBUF__INLINE void cbuf__store_part(unsigned char *to, uint64_t value, const uint32_t bytes)
{
    uint16_t half = CBUF__AS(uint16_t, value);
    uint32_t word = CBUF__AS(uint32_t, value);
    if (bytes == 1) *to = CBUF__AS(unsigned char, value & 255);
    if (bytes == 2) memcpy(to, &half, 2);
    if (bytes == 4) memcpy(to, &word, 4);
    if (bytes == 8) memcpy(to, &value, 8);
}
/* Its lowest bits as a signed number. */
CBUF__INLINE uint64_t cbuf__extend(uint64_t value, const uint32_t bits)
{
    return CBUF__AS(uint64_t, CBUF__AS(int64_t, value << (64 - bits)) >> (64 - bits));
}

/* A double in whose lowest bits stand whole numbers up to 2^51: adding it rounds, and converts. */
#define CBUF__ROUND 6755399441055744.0 /* 1.5 * 2^52 */
#define CBUF__ROUND_BITS 0x4338000000000000u

/* The bits of the float that is so many steps, and the whole number of steps next to a float; *bad
 * is 0 if that is the very float. */
CBUF__INLINE CBUF__SSE2 uint64_t cbuf__float_of(
    uint64_t steps, const cbuf__packed *d, const uint32_t bytes)
{
    double value;
    uint32_t word;
    steps += CBUF__ROUND_BITS;
    memcpy(&value, &steps, 8);
    value = (value - CBUF__ROUND) * d->multiple / d->divisor;
    float single = CBUF__AS(float, value);
    memcpy(&word, &single, 4);
    memcpy(&steps, &value, 8);
    return bytes == 4 ? word : steps;
}
CBUF__INLINE CBUF__SSE2 uint64_t cbuf__steps_of(
    uint64_t bits, const cbuf__packed *d, const uint32_t bytes, uint64_t *bad)
{
    uint32_t word = CBUF__AS(uint32_t, bits);
    float single;
    double value;
    uint64_t steps;
    memcpy(&single, &word, 4);
    memcpy(&value, &bits, 8);
    value = (bytes == 4 ? CBUF__AS(double, single) : value) * d->inverse + CBUF__ROUND;
    memcpy(&steps, &value, 8);
    steps -= CBUF__ROUND_BITS;
    *bad = (cbuf__float_of(steps, d, bytes) ^ bits) | (steps + (CBUF__AS(uint64_t, 1) << 51)) >> 52;
    return steps;
}

/* n values, so many bytes apart, to their differences from the base, and back. Not 0 if there are
 * escapes among them: values that do not fit, or are not so many steps; escape codes. */
CBUF__INLINE CBUF__SSE2 uint64_t cbuf__pack_as(unsigned char *to, size_t apart,
    const unsigned char *from, size_t from_apart, uint32_t n, const cbuf__packed *d,
    const bool real, const uint32_t bytes, const uint32_t bits)
{
    const uint64_t one = 1, base = d->base;
    uint64_t any = 0, bad = 0;
    for (uint32_t i = 0; i < n; i++, to += apart, from += from_apart) {
        uint64_t value = cbuf__load_part(from, bytes);
        if (real) value = cbuf__steps_of(value, d, bytes, &bad);
        value = cbuf__extend(value - base, real ? 64 : 8 * bytes);
        any |= bad | (value + (one << (bits - 1)) - 1 > (one << bits) - 2);
        cbuf__store_part(to, value, bits / 8);
    }
    return any;
}
CBUF__INLINE CBUF__SSE2 uint64_t cbuf__unpack_as(unsigned char *to, size_t apart,
    const unsigned char *from, size_t from_apart, uint32_t n, const cbuf__packed *d,
    const uint64_t base, const bool real, const uint32_t bytes, const uint32_t bits)
{
    uint64_t any = 0;
    for (uint32_t i = 0; i < n; i++, to += apart, from += from_apart) {
        uint64_t value = cbuf__load_part(from, bits / 8);
        any |= value == CBUF__AS(uint64_t, 1) << (bits - 1);
        value = cbuf__extend(value, bits) + base;
        cbuf__store_part(to, real ? cbuf__float_of(value, d, bytes) : value, bytes);
    }
    return any;
}
#define CBUF__KINDS(X)                                                                             \
    X(false, 1, 8) X(false, 2, 8) X(false, 2, 16) X(false, 4, 8) X(false, 4, 16) X(false, 4, 32)   \
    X(false, 8, 8) X(false, 8, 16) X(false, 8, 32) X(true, 4, 8) X(true, 4, 16) X(true, 4, 32)     \
    X(true, 8, 8) X(true, 8, 16) X(true, 8, 32)
CBUF__SLOW CBUF__SSE2 uint64_t cbuf__pack(unsigned char *to, size_t apart,
    const unsigned char *from, size_t from_apart, uint32_t n, const cbuf__packed *d)
{
#define CBUF__CASE(real, bytes, bits)                                                              \
    case CBUF__KIND_CODE(real, bytes, bits):                                                       \
        return cbuf__pack_as(to, apart, from, from_apart, n, d, real, bytes, bits);
    switch (d->kind) { CBUF__KINDS(CBUF__CASE) default: return 0; }
#undef CBUF__CASE
}
CBUF__SLOW CBUF__SSE2 uint64_t cbuf__unpack(unsigned char *to, size_t apart,
    const unsigned char *from, size_t from_apart, uint32_t n, const cbuf__packed *d, uint64_t base)
{
#define CBUF__CASE(real, bytes, bits)                                                              \
    case CBUF__KIND_CODE(real, bytes, bits):                                                       \
        return cbuf__unpack_as(to, apart, from, from_apart, n, d, base, real, bytes, bits);
    switch (d->kind) { CBUF__KINDS(CBUF__CASE) default: return 0; }
#undef CBUF__CASE
}

/* Where the base of column k is for the block of a row, and the row's word in the escape plane. */
CBUF__INLINE cbuf__word *cbuf__base_at(const cbuf_ring *ring, uint32_t k, uint64_t sequence)
{
    uint64_t rows = k * ring->capacity + (sequence & ring->mask);
    return ring->codec.bases + CBUF__AS(size_t, rows >> ring->codec.block_bits);
}
CBUF__INLINE cbuf__word *cbuf__escape_at(const cbuf_ring *ring, uint32_t k, uint64_t sequence)
{
    return ring->codec.plane + CBUF__AS(size_t, k * ring->capacity + (sequence & ring->mask));
}

CBUF__INLINE uint64_t cbuf__plane_offset(const cbuf_ring *ring)
{
    return CBUF__ADDRESS(ring->codec.plane) - CBUF__ADDRESS(ring->file);
}

/* Sees to it that the word's page is really there; in memory all are. */
CBUF__SLOW bool cbuf__have_page(cbuf_ring *ring, const cbuf__word *word)
{
#ifndef CBUF_NO_OS
    size_t page = CBUF__AS(size_t, word - ring->codec.plane) / 512;
    cbuf__word *pages = ring->codec.pages + page / 64;
    uint64_t bit = CBUF__AS(uint64_t, 1) << page % 64, there = cbuf__load_relaxed(pages);
    if (ring->fd < 0 || there & bit) return true;
    off_t at = CBUF__AS(off_t, cbuf__plane_offset(ring) + page * 4096);
    int error;
    do error = posix_fallocate(ring->fd, at, 4096);
    while (error == EINTR);
    if (error) return false;
    cbuf__store_relaxed(pages, there | bit);
#endif
    return (void)ring, (void)word, true;
}

/* Puts the values of n rows that do not fit into the escape plane. How many rows can be published:
 * all, or those before the first that the disk has no room for. */
CBUF__SLOW uint32_t cbuf__put_escapes(cbuf_ring *ring, uint32_t k, uint64_t sequence,
    unsigned char *to, const unsigned char *from, uint32_t n)
{
    const cbuf__packed *d = ring->codec.delta + k;
    cbuf__word *escapes = ring->codec.escapes + k;
    uint32_t i = 0;
    for (; i < n; i++, to += ring->stride, from += ring->row_bytes) {
        cbuf__word *place = cbuf__escape_at(ring, k, sequence + i);
        if (!cbuf__pack(to, 0, from, 0, 1, d)) continue;
        if (!cbuf__have_page(ring, place)) break;
        cbuf__store_relaxed(place, cbuf__load_part(from, d->bytes));
        cbuf__store_part(to, CBUF__AS(uint64_t, 1) << (d->bits - 1), d->bits / 8);
        cbuf__store_relaxed(escapes, cbuf__load_relaxed(escapes) + 1);
    }
    return i;
}

/* A block's base is its first value that can be one, or that of the block before. */
CBUF__SLOW CBUF__SSE2 void cbuf__put_base(cbuf_ring *ring, uint32_t k, uint64_t sequence,
    const unsigned char *from, uint32_t n)
{
    cbuf__packed *d = ring->codec.delta + k;
    uint64_t bad = 1;
    for (uint32_t i = 0; bad && i < n; i++, from += ring->row_bytes) {
        uint64_t value = cbuf__load_part(from, d->bytes);
        if (d->real) value = cbuf__steps_of(value, d, d->bytes, &bad);
        else bad = 0;
        if (!bad) d->base = value;
    }
    cbuf__store_relaxed(cbuf__base_at(ring, k, sequence), d->base);
}

/* Stores column k of n rows of one block. How many can be published. */
CBUF__INLINE uint32_t cbuf__encode(cbuf_ring *ring, uint32_t k, uint64_t sequence,
    const unsigned char *rows, unsigned char *stored, uint32_t n)
{
    cbuf__packed *d = ring->codec.delta + k;
    const unsigned char *from = rows + d->offset;
    unsigned char *to = stored + d->stored;
    if (!(sequence & ~ring->blocks)) cbuf__put_base(ring, k, sequence, from, n);
    uint64_t escapes = cbuf__pack(to, ring->stride, from, ring->row_bytes, n, d);
    return CBUF__LIKELY(!escapes) ? n : cbuf__put_escapes(ring, k, sequence, to, from, n);
}

/* Gives column k of n validated rows back. Whether escapes were read, which need a look more. */
CBUF__INLINE bool cbuf__decode(const cbuf_ring *ring, uint32_t k, uint64_t sequence,
    unsigned char *rows, const unsigned char *stored, uint32_t n, uint64_t base)
{
    const cbuf__packed *d = ring->codec.delta + k;
    const unsigned char *from = stored + d->stored;
    unsigned char *to = rows + d->offset;
    if (!cbuf__unpack(to, ring->row_bytes, from, ring->stride, n, d, base)) return false;
    for (uint32_t i = 0; i < n; i++, from += ring->stride, to += ring->row_bytes) {
        if (cbuf__load_part(from, d->bits / 8) != CBUF__AS(uint64_t, 1) << (d->bits - 1)) continue;
        cbuf__store_part(to, cbuf__load_relaxed(cbuf__escape_at(ring, k, sequence + i)), d->bytes);
    }
    return true;
}

/* How many of n rows lie in one block and in one buffer. */
CBUF__INLINE uint32_t cbuf__chunk(const cbuf_ring *ring, uint64_t sequence, uint64_t n)
{
    uint64_t rest = (sequence | ring->blocks) * UINT64_MAX; /* to the end of the block */
    uint64_t most = rest < ring->codec.chunk ? rest : ring->codec.chunk;
    return CBUF__AS(uint32_t, n < most ? n : most);
}

CBUF__INLINE void cbuf__copy_each(unsigned char *to, size_t apart, const unsigned char *from,
    size_t from_apart, uint32_t n, const size_t bytes)
{
    for (uint32_t i = 0; i < n; i++, to += apart, from += from_apart) memcpy(to, from, bytes);
}
/* Copies the other columns of n rows: in, or out. In, what no column fills is zero. */
CBUF__SLOW void cbuf__copy_others(const cbuf_ring *ring, unsigned char *to, size_t apart_to,
    const unsigned char *from, size_t apart_from, uint32_t n, bool in)
{
    const uint64_t zero = 0;
    for (size_t end = ring->codec.stored_bytes / 8 * 8; in && end < apart_to; end += 8)
        for (uint32_t i = 0; i < n; i++) memcpy(to + i * apart_to + end, &zero, 8);
    for (uint32_t r = 0; r < ring->codec.runs; r++) {
        const cbuf__run *run = ring->codec.run + r;
        unsigned char *put = to + (in ? run->stored : run->offset);
        const unsigned char *get = from + (in ? run->offset : run->stored);
        if (run->bytes == 4) cbuf__copy_each(put, apart_to, get, apart_from, n, 4);
        else if (run->bytes == 8) cbuf__copy_each(put, apart_to, get, apart_from, n, 8);
        else cbuf__copy_each(put, apart_to, get, apart_from, n, run->bytes);
    }
}

/* Stores n rows from `next` on. How many can be published. */
CBUF__SLOW uint64_t cbuf__put_deltas(cbuf_ring *ring, const unsigned char *rows, uint64_t n)
{
    unsigned char stored[CBUF__BUFFER];
    uint64_t done = 0;
    while (done < n) {
        uint64_t sequence = ring->next + done;
        uint32_t most = cbuf__chunk(ring, sequence, n - done), count = most;
        cbuf__copy_others(ring, stored, ring->stride, rows, ring->row_bytes, most, true);
        for (uint32_t k = 0; k < ring->codec.deltas; k++)
            count = cbuf__encode(ring, k, sequence, rows, stored, count);
        cbuf__put_rows(ring, sequence, stored, count, ring->stride);
        done += count;
        rows += cbuf__span(count, ring->row_bytes);
        if (count < most) break;
    }
    return done;
}

/* Copies n rows from `first` on, and validates them. The first from which on all are whole. */
CBUF__SLOW uint64_t cbuf__take_deltas(
    const cbuf_ring *ring, uint64_t first, unsigned char *rows, uint64_t n)
{
    unsigned char stored[CBUF__BUFFER];
    uint64_t bases[CBUF_MAX_DELTAS], good = first;
    for (uint64_t at = first; at < first + n;) {
        uint32_t count = cbuf__chunk(ring, at, first + n - at);
        unsigned char *to = rows + cbuf__span(at - first, ring->row_bytes);
        bool escapes = false;
        for (uint32_t k = 0; k < ring->codec.deltas; k++)
            bases[k] = cbuf__load_relaxed(cbuf__base_at(ring, k, at));
        cbuf__take_rows(ring, at, stored, count, ring->stride);
        uint64_t oldest = cbuf__validate(ring);
        for (uint32_t k = 0; oldest <= at && k < ring->codec.deltas; k++)
            escapes |= cbuf__decode(ring, k, at, to, stored, count, bases[k]);
        if (escapes) oldest = cbuf__validate(ring);
        if (oldest > at) {
            good = at = oldest;
            continue;
        }
        cbuf__copy_others(ring, to, ring->row_bytes, stored, ring->stride, count, false);
        at += count;
    }
    return good;
}

/* What a producer must know of the last block to go on in it, or behind it. */
CBUF__SLOW void cbuf__take_over_deltas(cbuf_ring *ring)
{
    uint64_t last = ring->next ? ring->next - 1 : 0;
    for (uint32_t k = 0; k < ring->codec.deltas; k++)
        ring->codec.delta[k].base = cbuf__load_relaxed(cbuf__base_at(ring, k, last));
}

/* ---- what the schema says, and what it leads to ---- */

/* What other languages need to decode. The C side finds the stored places itself, and compares. */
CBUF__SLOW void cbuf__write_delta(
    cbuf__text *text, const cbuf__codec *codec, const cbuf_column *column)
{
    const cbuf__packed *d = cbuf__delta_of(codec, column);
    if (d) cbuf__say_number(text, ",\"delta\":", d->bits);
    if (d && d->real) {
        cbuf__say_number(text, ",\"step\":[", CBUF__AS(uint64_t, d->multiple));
        cbuf__say_number(text, ",", CBUF__AS(uint64_t, d->divisor));
        cbuf__say(text, "]");
    }
    cbuf__say_number(text, ",\"stored\":", cbuf__stored_at(codec, column));
}

/* [multiple, divisor] */
CBUF__SLOW double cbuf__json_step(cbuf__json *json)
{
    double parts[2], step;
    for (int i = 0; i < 2; i++) {
        cbuf__json_need(json, i ? ',' : '[', "a step is not [multiple, divisor]");
        uint64_t part = cbuf__json_number(json, 100000000000000u);
        parts[i] = CBUF__AS(double, CBUF__AS(int64_t, part));
    }
    cbuf__json_need(json, ']', "a step is not [multiple, divisor]");
    if (!(parts[1] > 0)) parts[1] = 1;
    cbuf__quotient(parts, parts + 1, &step);
    return step;
}

/* Adds a column that the schema has to the codec; or, once all have their places, compares its own
 * with the one that is written there. The fault, or NULL. */
CBUF__SLOW const char *cbuf__check_delta(cbuf__codec *codec, const cbuf_column *column,
    uint32_t index, const cbuf_delta *delta, uint32_t stored)
{
    if (!codec->stored_bytes) return cbuf__add_column(codec, column, index, delta);
    return cbuf__stored_at(codec, column) == stored ? NULL : "a column's stored place";
}

/* Puts the columns that a new ring is to have into the codec, in the order of their offsets, and
 * what follows into the facts. The fault, or NULL. */
CBUF__SLOW const char *cbuf__plan_deltas(
    cbuf__codec *codec, const cbuf_options *options, cbuf__facts *facts)
{
    uint64_t half = facts->capacity / 2, block = options->block_rows;
    uint32_t index = 0;
    if (!block) block = half < 64 ? half : 64;
    if (block < half) block = cbuf__power_from(1, block);
    facts->block_rows = CBUF__AS(uint32_t, block);
    facts->delta_count = options->delta_count;
    facts->features |= CBUF__DELTA;
    for (const cbuf_column *c = NULL; (c = cbuf__next_column(options, c)) != NULL; index++) {
        const cbuf_delta *delta = NULL;
        for (uint32_t k = 0; k < options->delta_count && !delta; k++)
            if (!strcmp(c->name, options->deltas[k].name)) delta = options->deltas + k;
        const char *fault = cbuf__add_column(codec, c, index, delta);
        if (fault) return fault;
    }
    cbuf__place_columns(codec);
    if (codec->deltas < options->delta_count)
        return "a delta names no column, or one that another names";
    return options->in_place ? "rows with delta columns cannot be in_place" : NULL;
}

/* Gives the handle, whose codec has the columns of the schema, the rest. The fault, or NULL. */
CBUF__SLOW const char *cbuf__bind_deltas(
    cbuf_ring *ring, unsigned char *base, const cbuf__facts *facts)
{
    cbuf__codec *codec = &ring->codec;
    void *escapes = base + facts->escapes_offset, *bases = base + facts->bases_offset;
    void *plane = base + facts->plane_offset;
    cbuf__place_columns(codec);
    if (codec->deltas != facts->delta_count) return "it has another number of delta columns";
    if (codec->stored_bytes + (ring->dense ? 0u : 4u) > ring->stride)
        return "its stored columns end beyond the stride";
    codec->escapes = CBUF__AS(cbuf__word *, escapes);
    codec->pages = codec->escapes + codec->deltas;
    codec->bases = CBUF__AS(cbuf__word *, bases);
    codec->plane = CBUF__AS(cbuf__word *, plane);
    while (facts->block_rows >> codec->block_bits > 1) codec->block_bits++;
    codec->chunk = CBUF__BUFFER / ring->stride;
    if (codec->chunk > CBUF__CHUNK) codec->chunk = CBUF__CHUNK;
    return NULL;
}

/* Delta column `index` in the order of the offsets, and how many of its values were escapes since
 * the ring was made; either may be NULL. 0, or CBUF_EINVAL if there are not so many. */
static inline int cbuf_delta_at(
    const cbuf_ring *ring, uint32_t index, cbuf_delta *delta, uint64_t *escapes)
{
    cbuf_column column;
    if (!ring->file) return CBUF_ENOTOPEN;
    if (!ring->delta || index >= ring->codec.deltas) return CBUF_EINVAL;
    const cbuf__packed *d = ring->codec.delta + index;
    if (escapes) *escapes = cbuf__load_relaxed(ring->codec.escapes + index);
    if (!delta) return 0;
    int error = cbuf_column_at(ring, d->index, &column);
    memcpy(delta->name, column.name, sizeof delta->name);
    delta->bits = d->bits;
    delta->step = 0;
    if (d->real) cbuf__quotient(&d->multiple, &d->divisor, &delta->step);
    return error;
}

/* The name of a delta column that is wanted and is not the ring's, or NULL. */
CBUF__SLOW const char *cbuf__other_delta(const cbuf_ring *ring, const cbuf_options *options)
{
    for (uint32_t k = 0; k < options->delta_count; k++) {
        const cbuf_delta *wants = options->deltas + k;
        cbuf_delta there;
        uint32_t i = 0;
        while (!cbuf_delta_at(ring, i, &there, NULL) && strcmp(there.name, wants->name)) i++;
        if (i == options->delta_count || there.bits != wants->bits ||
            memcmp(&there.step, &wants->step, 8))
            return wants->name;
    }
    return NULL;
}
#endif /* CBUF_DELTA_H */
