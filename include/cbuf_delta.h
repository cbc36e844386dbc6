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
 *     word 0          word 1          word 2
 *     +---------------+---------------+-----    PACKED: dense rows have neither, and follow each
 *     | row 0             | row 1                other by the byte (pad_rows makes them whole
 *     +-------------------+-----------------     words, as those of the numbered layout are)
 *
 * Bases and escapes are words like those of rows, stored between W1 and W2, loaded between R2 and
 * R1. As one base serves a whole block, `reserve` moves in whole blocks: no base is overwritten as
 * long as a row that it decodes may be trusted. A reader decodes only what was validated, so that
 * it looks for no escape that is not there (its page might not be either), and validates again
 * after it looked. A successor goes on in the middle of a block with that block's base.
 *
 * Of a word that two rows share each is stored with the other's bytes unchanged, so that the older
 * one stays readable: its readers see one of two words with the same bytes.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_H
#include "cbuf.h" /* which includes this file in its place */
#elif !defined CBUF_DELTA_H && !defined CBUF_NO_DELTA
#define CBUF_DELTA_H

#if !defined __i386__ || defined __SSE2_MATH__
#define CBUF__SSE2
#elif defined __clang__ /* the 387 would round quotients twice, and to others than elsewhere */
#define CBUF__SSE2 __attribute__((target("sse2")))
#else
#define CBUF__SSE2 __attribute__((target("sse2,fpmath=sse")))
#endif

enum { CBUF__CHUNK = 64 }; /* rows done at a time */
#define CBUF__KIND_CODE(real, bytes, bits) (((real) * 5u + (bytes) / 2u) * 3u + (bits) / 16u)

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

CBUF__SLOW bool cbuf__rounds_well(void);

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
    if (!whole && !cbuf__rounds_well())
        return "compiled with -ffast-math or a part of it, which rounds quotients in other ways";
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

/* Two floats at once. These types are of every compiler; where the processor has no such registers,
 * they are done one after the other. */
typedef double cbuf__reals __attribute__((vector_size(16)));
typedef uint64_t cbuf__wholes __attribute__((vector_size(16)));

CBUF__INLINE CBUF__SSE2 double cbuf__get_real(const unsigned char *from)
{
    double value;
    memcpy(&value, from, 8);
    return value;
}

/* n doubles, an even number of them, as cbuf__pack_as does it. What fits is within 2^31 of the
 * base, so that a look at the base is one at all of them: whole numbers below 2^51. */
CBUF__INLINE CBUF__SSE2 uint64_t cbuf__pack_pairs(unsigned char *to, size_t apart,
    const unsigned char *from, size_t from_apart, uint32_t n, const cbuf__packed *d,
    const uint32_t bits)
{
    const uint64_t one = 1, half = one << (bits - 1), low = d->base + CBUF__ROUND_BITS - half;
    const cbuf__wholes lows = { low, low }, halves = { half, half }, ones = { 1, 1 };
    const cbuf__reals round = { CBUF__ROUND, CBUF__ROUND }, inverse = { d->inverse, d->inverse };
    const cbuf__reals multiple = { d->multiple, d->multiple }, divisor = { d->divisor, d->divisor };
    cbuf__wholes bad = { 0, 0 }, any = bad;
    uint64_t wide[CBUF__CHUNK];
    _Pragma("GCC unroll 4") for (uint32_t i = 0; i < n; i += 2, from += 2 * from_apart) {
        cbuf__reals value = { cbuf__get_real(from), cbuf__get_real(from + from_apart) };
        cbuf__reals rounded = value * inverse + round;
        cbuf__reals again = (rounded - round) * multiple / divisor;
        cbuf__wholes is, was, steps;
        memcpy(&is, &again, 16);
        memcpy(&was, &value, 16);
        memcpy(&steps, &rounded, 16);
        steps -= lows;
        bad |= is ^ was;
        any |= steps | (steps - ones);
        steps ^= halves;
        memcpy(wide + i, &steps, 16);
    }
    _Pragma("GCC unroll 4") for (uint32_t i = 0; i < n; i++, to += apart)
        cbuf__store_part(to, wide[i], bits / 8);
    return bad[0] | bad[1] | (any[0] | any[1]) >> bits | (d->base + (one << 50)) >> 51;
}
CBUF__INLINE CBUF__SSE2 uint64_t cbuf__unpack_pairs(unsigned char *to, size_t apart,
    const unsigned char *from, size_t from_apart, uint32_t n, const cbuf__packed *d,
    const uint64_t base, const uint32_t bits)
{
    const uint64_t most = (CBUF__AS(uint64_t, 1) << (bits - 1)) - 1, low = base + CBUF__ROUND_BITS;
    const cbuf__wholes lows = { low, low };
    const cbuf__reals round = { CBUF__ROUND, CBUF__ROUND };
    const cbuf__reals multiple = { d->multiple, d->multiple }, divisor = { d->divisor, d->divisor };
    uint64_t any = 0;
    _Pragma("GCC unroll 4") for (uint32_t i = 0; i < n; i += 2, from += 2 * from_apart) {
        uint64_t one = cbuf__extend(cbuf__load_part(from, bits / 8), bits);
        uint64_t other = cbuf__extend(cbuf__load_part(from + from_apart, bits / 8), bits);
        cbuf__wholes steps = { one, other };
        cbuf__reals value;
        any |= (one + most) | (other + most); /* negative if there is a code */
        steps += lows;
        memcpy(&value, &steps, 16);
        value = (value - round) * multiple / divisor;
        double first = value[0], second = value[1];
        memcpy(to, &first, 8);
        memcpy(to + apart, &second, 8);
        to += 2 * apart;
    }
    return any;
}

/* A value as it is stored: its difference from the base. It fits if, half the range added and cut
 * to the column's width, it is above 0 and below 2^bits: then *bad stays 0 and *any below that. */
CBUF__INLINE CBUF__SSE2 uint64_t cbuf__difference(const unsigned char *from, const cbuf__packed *d,
    const bool real, const uint32_t bytes, const uint32_t bits, uint64_t *any, uint64_t *bad)
{
    const uint64_t half = CBUF__AS(uint64_t, 1) << (bits - 1);
    uint64_t value = cbuf__load_part(from, bytes), misfit = 0;
    if (real) value = cbuf__steps_of(value, d, bytes, &misfit);
    value = (value - (d->base - half)) & UINT64_MAX >> (real ? 0 : 64 - 8 * bytes);
    *any |= value | (value - 1);
    *bad |= misfit;
    return value ^ half;
}
/* The value of a difference; *any is negative if it is the code. */
CBUF__INLINE CBUF__SSE2 uint64_t cbuf__value_of(const unsigned char *from, const cbuf__packed *d,
    uint64_t base, const bool real, const uint32_t bytes, const uint32_t bits, uint64_t *any)
{
    uint64_t value = cbuf__extend(cbuf__load_part(from, bits / 8), bits);
    *any |= value + (CBUF__AS(uint64_t, 1) << (bits - 1)) - 1;
    return real ? cbuf__float_of(value + base, d, bytes) : value + base;
}

/* n values, so many bytes apart, to their differences from the base, and back. Not 0 if there are,
 * or might be, escapes among them: values that do not fit, or are not so many steps; codes. */
CBUF__INLINE CBUF__SSE2 uint64_t cbuf__pack_as(unsigned char *to, size_t apart,
    const unsigned char *from, size_t from_apart, uint32_t n, const cbuf__packed *d,
    const bool real, const uint32_t bytes, const uint32_t bits)
{
    const uint32_t paired = real && bytes == 8 ? n / 2 * 2 : 0;
    uint64_t any = 0, bad = 0;
    if (paired) bad = cbuf__pack_pairs(to, apart, from, from_apart, paired, d, bits);
    to += paired * apart;
    from += paired * from_apart;
    _Pragma("GCC unroll 4") for (uint32_t i = paired; i < n; i++, to += apart, from += from_apart)
        cbuf__store_part(to, cbuf__difference(from, d, real, bytes, bits, &any, &bad), bits / 8);
    return bad | any >> bits;
}
CBUF__INLINE CBUF__SSE2 uint64_t cbuf__unpack_as(unsigned char *to, size_t apart,
    const unsigned char *from, size_t from_apart, uint32_t n, const cbuf__packed *d,
    const uint64_t base, const bool real, const uint32_t bytes, const uint32_t bits)
{
    const uint32_t paired = real && bytes == 8 ? n / 2 * 2 : 0;
    uint64_t any = 0;
    if (paired) any = cbuf__unpack_pairs(to, apart, from, from_apart, paired, d, base, bits);
    to += paired * apart;
    from += paired * from_apart;
    _Pragma("GCC unroll 4") for (uint32_t i = paired; i < n; i++, to += apart, from += from_apart)
        cbuf__store_part(to, cbuf__value_of(from, d, base, real, bytes, bits, &any), bytes);
    return any >> 63;
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

/* The same for one value: whether it is an escape. */
CBUF__INLINE CBUF__SSE2 bool cbuf__pack_one(
    unsigned char *to, const unsigned char *from, const cbuf__packed *d)
{
    uint64_t any = 0, bad = 0;
#define CBUF__CASE(real, bytes, bits)                                                              \
    case CBUF__KIND_CODE(real, bytes, bits):                                                       \
        cbuf__store_part(to, cbuf__difference(from, d, real, bytes, bits, &any, &bad), bits / 8);  \
        return (bad | any >> bits) != 0;
    switch (d->kind) { CBUF__KINDS(CBUF__CASE) default: return false; }
#undef CBUF__CASE
}
CBUF__INLINE CBUF__SSE2 bool cbuf__unpack_one(
    unsigned char *to, const unsigned char *from, const cbuf__packed *d, uint64_t base)
{
    uint64_t any = 0;
#define CBUF__CASE(real, bytes, bits)                                                              \
    case CBUF__KIND_CODE(real, bytes, bits):                                                       \
        cbuf__store_part(to, cbuf__value_of(from, d, base, real, bytes, bits, &any), bytes);       \
        return any >> 63 != 0;
    switch (d->kind) { CBUF__KINDS(CBUF__CASE) default: return false; }
#undef CBUF__CASE
}

/* Whether this program's floats are those of IEEE 754. -ffast-math says so; its parts may not, such
 * as -fassociative-math, which takes a + b - b for a: no float would be an escape. */
CBUF__SLOW CBUF__SSE2 bool cbuf__rounds_well(void)
{
    static const double cents[9] = { 0.35, 0.57, 0.7, 1.13, 1.14, 1.15, 2.26, 4.35, 0.29 };
    double values[9], again[9];
    const void *from = values, *back = again;
    void *to = again;
    unsigned char steps[18];
    bool well = true;
    cbuf__packed d;
    memset(&d, 0, sizeof d);
    d.multiple = 1;
    d.divisor = d.inverse = 100;
    d.kind = CBUF__KIND_CODE(1u, 8u, 16u);
#ifdef __FAST_MATH__
    well = false;
#endif
    for (uint32_t n = 1; well && n <= 9; n++) { /* with what is done one by one, and unrolled */
        memcpy(values, cents, sizeof cents);
        memset(again, 0, sizeof again);
        well = !cbuf__pack(steps, 2, CBUF__AS(const unsigned char *, from), 8, n, &d) &&
            !cbuf__unpack(CBUF__AS(unsigned char *, to), 8, steps, 2, n, &d, 0) &&
            !memcmp(back, from, 8 * n);
        values[n - 1] += 0.005;
        well = well && cbuf__pack(steps, 2, CBUF__AS(const unsigned char *, from), 8, n, &d);
    }
    return well;
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

/* Puts a value into the escape plane. False if the disk has no room for it. */
CBUF__SLOW bool cbuf__put_escape(cbuf_ring *ring, uint32_t k, uint64_t sequence, uint64_t value)
{
    cbuf__word *place = cbuf__escape_at(ring, k, sequence), *escapes = ring->codec.escapes + k;
    if (!cbuf__have_page(ring, place)) return false;
    cbuf__store_relaxed(place, value);
    cbuf__store_relaxed(escapes, cbuf__load_relaxed(escapes) + 1);
    return true;
}

/* Stores column k of one row. False if the disk has no room for its escape. */
CBUF__INLINE CBUF__SSE2 bool cbuf__encode_one(cbuf_ring *ring, uint32_t k, uint64_t sequence,
    unsigned char *stored, const unsigned char *row)
{
    const cbuf__packed *d = ring->codec.delta + k;
    const unsigned char *from = row + d->offset;
    if (CBUF__LIKELY(!cbuf__pack_one(stored + d->stored, from, d))) return true;
    cbuf__store_part(stored + d->stored, CBUF__AS(uint64_t, 1) << (d->bits - 1), d->bits / 8);
    return cbuf__put_escape(ring, k, sequence, cbuf__load_part(from, d->bytes));
}

/* Stores column k of n rows once more, of which some do not fit. How many rows can be published:
 * all, or those before the first that the disk has no room for. */
CBUF__SLOW CBUF__SSE2 uint32_t cbuf__put_escapes(cbuf_ring *ring, uint32_t k, uint64_t sequence,
    unsigned char *stored, const unsigned char *rows, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && cbuf__encode_one(ring, k, sequence + i, stored, rows))
        i++, stored += ring->stride, rows += ring->row_bytes;
    return i;
}

/* A block's base is its first value that can be one, or that of the block before. */
CBUF__SLOW CBUF__SSE2 void cbuf__put_base(cbuf_ring *ring, uint32_t k, uint64_t sequence,
    const unsigned char *rows, uint32_t n)
{
    cbuf__packed *d = ring->codec.delta + k;
    uint64_t bad = 1;
    for (uint32_t i = 0; bad && i < n; i++, rows += ring->row_bytes) {
        uint64_t value = cbuf__load_part(rows + d->offset, d->bytes);
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
    if (!(sequence & ~ring->blocks)) cbuf__put_base(ring, k, sequence, rows, n);
    uint64_t escapes = cbuf__pack(to, ring->stride, from, ring->row_bytes, n, d);
    return CBUF__LIKELY(!escapes) ? n : cbuf__put_escapes(ring, k, sequence, stored, rows, n);
}

CBUF__SLOW void cbuf__get_escape(
    const cbuf_ring *ring, uint32_t k, uint64_t sequence, unsigned char *row)
{
    const cbuf__packed *d = ring->codec.delta + k;
    uint64_t value = cbuf__load_relaxed(cbuf__escape_at(ring, k, sequence));
    cbuf__store_part(row + d->offset, value, d->bytes);
}

/* Gives column k of n validated rows back. Whether escapes were read, which need a look more. */
CBUF__INLINE bool cbuf__decode(const cbuf_ring *ring, uint32_t k, uint64_t sequence,
    unsigned char *rows, const unsigned char *stored, uint32_t n, uint64_t base)
{
    const cbuf__packed *d = ring->codec.delta + k;
    const unsigned char *from = stored + d->stored;
    unsigned char *to = rows + d->offset;
    if (!cbuf__unpack(to, ring->row_bytes, from, ring->stride, n, d, base)) return false;
    for (uint32_t i = 0; i < n; i++, from += ring->stride) {
        if (cbuf__load_part(from, d->bits / 8) != CBUF__AS(uint64_t, 1) << (d->bits - 1)) continue;
        cbuf__get_escape(ring, k, sequence + i, rows + i * ring->row_bytes);
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
    _Pragma("GCC unroll 4") for (uint32_t i = 0; i < n; i++, to += apart, from += from_apart)
        memcpy(to, from, bytes);
}
/* A run's first and last `part` bytes, which are all of it: they overlap, or are the same. */
CBUF__INLINE void cbuf__copy_ends(unsigned char *to, size_t apart, const unsigned char *from,
    size_t from_apart, uint32_t n, size_t bytes, const size_t part)
{
    cbuf__copy_each(to, apart, from, from_apart, n, part);
    if (bytes == part) return;
    cbuf__copy_each(to + bytes - part, apart, from + bytes - part, from_apart, n, part);
}
CBUF__INLINE void cbuf__copy_run(unsigned char *to, size_t apart, const unsigned char *from,
    size_t from_apart, uint32_t n, size_t bytes)
{
    if (bytes == 1) cbuf__copy_each(to, apart, from, from_apart, n, 1);
    else if (bytes < 4) cbuf__copy_ends(to, apart, from, from_apart, n, bytes, 2);
    else if (bytes < 8) cbuf__copy_ends(to, apart, from, from_apart, n, bytes, 4);
    else if (bytes <= 16) cbuf__copy_ends(to, apart, from, from_apart, n, bytes, 8);
    else cbuf__copy_each(to, apart, from, from_apart, n, bytes);
}
/* Copies the other columns of n rows: in, or out. */
CBUF__SLOW void cbuf__copy_runs(const cbuf_ring *ring, unsigned char *to, size_t apart_to,
    const unsigned char *from, size_t apart_from, uint32_t n, bool in)
{
    for (uint32_t r = 0; r < ring->codec.runs; r++) {
        const cbuf__run *run = ring->codec.run + r;
        unsigned char *put = to + (in ? run->stored : run->offset);
        const unsigned char *get = from + (in ? run->offset : run->stored);
        cbuf__copy_run(put, apart_to, get, apart_from, n, run->bytes);
    }
}
/* Stores them, and zero in what no column fills, of rows of whole words only. */
CBUF__INLINE void cbuf__put_others(
    const cbuf_ring *ring, unsigned char *stored, const unsigned char *rows, uint32_t n)
{
    const uint64_t zero = 0;
    const uint32_t stride = ring->stride, filled = ring->codec.stored_bytes;
    for (size_t end = filled / 8 * 8; filled < stride && end < stride; end += 8)
        for (uint32_t i = 0; i < n; i++) memcpy(stored + cbuf__span(i, stride) + end, &zero, 8);
    if (ring->codec.runs) cbuf__copy_runs(ring, stored, stride, rows, ring->row_bytes, n, true);
}
CBUF__INLINE void cbuf__take_others(
    const cbuf_ring *ring, unsigned char *rows, const unsigned char *stored, uint32_t n)
{
    if (!ring->codec.runs) return;
    cbuf__copy_runs(ring, rows, ring->row_bytes, stored, ring->stride, n, false);
}

/* Where a row begins: its word, and how many bytes of that belong to the row before it. */
CBUF__INLINE cbuf__word *cbuf__stored_word(const cbuf_ring *ring, uint64_t sequence, size_t *skip)
{
    size_t at = cbuf__span(sequence & ring->mask, ring->stride);
    void *word = ring->rows + at / 8 * 8;
    *skip = at % 8;
    return CBUF__AS(cbuf__word *, word);
}

/* The bytes of a word from there on, 0 to 7. */
CBUF__INLINE uint64_t cbuf__bytes_from(size_t byte)
{
    return CBUF__LITTLE ? UINT64_MAX << 8 * byte : UINT64_MAX >> 8 * byte;
}

/* Copies the next n rows in, of one block, which begin `skip` bytes behind `stored`. A word that
 * also has bytes of other rows is stored with these unchanged. Those of the row before are in
 * `joint` (to load the word would be to wait for its line); of those behind only another block's
 * are worth anything. */
CBUF__INLINE void cbuf__put_stored(
    cbuf_ring *ring, uint64_t sequence, const unsigned char *stored, uint32_t n)
{
    if (!ring->dense) {
        if (ring->stride == 16) cbuf__put_rows(ring, sequence, stored, n, 16); /* unrolled */
        else cbuf__put_rows(ring, sequence, stored, n, ring->stride);
        return;
    }
    size_t skip, bytes = cbuf__span(n, ring->stride);
    cbuf__word *to = cbuf__stored_word(ring, sequence, &skip);
    size_t words = (skip + bytes) / 8, rest = (skip + bytes) % 8;
    uint64_t own = cbuf__bytes_from(skip), behind = cbuf__bytes_from(rest);
    uint64_t first = (cbuf__get(stored) & own) | (ring->codec.joint & ~own), last = first;
    if (words) {
        cbuf__store_relaxed(to, first);
        if (CBUF_BULK_COPY && words > 32) cbuf__copy(to + 1, stored + 8, 8 * (words - 1));
        else cbuf__words_in(to + 1, stored + 8, words - 1);
        last = cbuf__get(stored + 8 * words);
    }
    if (!rest) return;
    uint64_t left = (0 - sequence - n) & ~ring->blocks; /* rows of the block */
    bool beyond = cbuf__span(left, ring->stride) < 8 - rest;
    last = (last & ~behind) | (beyond ? cbuf__load_relaxed(to + words) & behind : 0);
    cbuf__store_relaxed(to + words, last);
    ring->codec.joint = last;
}
CBUF__INLINE size_t cbuf__take_stored(
    const cbuf_ring *ring, uint64_t sequence, unsigned char *stored, uint32_t n)
{
    size_t skip, bytes = cbuf__span(n, ring->stride);
    const cbuf__word *from = cbuf__stored_word(ring, sequence, &skip);
    cbuf__bulk_out(stored, from, (skip + bytes + 7) / 8 * 8);
    return skip;
}

/* Stores the next row. 1, or 0 if the disk has no room for its escapes. */
CBUF__SLOW CBUF__SSE2 uint64_t cbuf__put_delta(cbuf_ring *ring, const unsigned char *row)
{
    unsigned char stored[CBUF__BUFFER / 2 + 16];
    const uint32_t deltas = ring->codec.deltas;
    uint64_t sequence = ring->next;
    size_t skip;
    cbuf__stored_word(ring, sequence, &skip);
    cbuf__put_others(ring, stored + skip, row, 1);
    for (uint32_t k = 0; !(sequence & ~ring->blocks) && k < deltas; k++)
        cbuf__put_base(ring, k, sequence, row, 1);
    for (uint32_t k = 0; k < deltas; k++)
        if (!cbuf__encode_one(ring, k, sequence, stored + skip, row)) return 0;
    cbuf__put_stored(ring, sequence, stored, 1);
    return 1;
}

CBUF__SLOW uint64_t cbuf__put_batch(cbuf_ring *ring, const unsigned char *rows, uint64_t n)
{
    unsigned char stored[CBUF__BUFFER + 16];
    uint64_t done = 0;
    while (done < n) {
        uint64_t sequence = ring->next + done;
        uint32_t most = cbuf__chunk(ring, sequence, n - done), count = most;
        size_t skip;
        cbuf__stored_word(ring, sequence, &skip);
        cbuf__put_others(ring, stored + skip, rows, most);
        for (uint32_t k = 0; k < ring->codec.deltas; k++)
            count = cbuf__encode(ring, k, sequence, rows, stored + skip, count);
        if (count) cbuf__put_stored(ring, sequence, stored, count);
        done += count;
        rows += cbuf__span(count, ring->row_bytes);
        if (count < most) break;
    }
    return done;
}

/* Stores n rows from `next` on. How many can be published. */
CBUF__SLOW uint64_t cbuf__put_deltas(cbuf_ring *ring, const unsigned char *rows, uint64_t n)
{
    return n == 1 ? cbuf__put_delta(ring, rows) : cbuf__put_batch(ring, rows, n);
}

/* Copies and decodes one row; false if it is not whole. */
CBUF__SLOW CBUF__SSE2 bool cbuf__take_delta(
    const cbuf_ring *ring, uint64_t sequence, unsigned char *row)
{
    unsigned char buffer[CBUF__BUFFER / 2 + 16];
    uint64_t bases[CBUF_MAX_DELTAS];
    bool escapes = false;
    for (uint32_t k = 0; k < ring->codec.deltas; k++)
        bases[k] = cbuf__load_relaxed(cbuf__base_at(ring, k, sequence));
    const unsigned char *stored = buffer + cbuf__take_stored(ring, sequence, buffer, 1);
    if (!cbuf__is_whole(ring, sequence)) return false;
    for (uint32_t k = 0; k < ring->codec.deltas; k++) {
        const cbuf__packed *d = ring->codec.delta + k;
        bool code = cbuf__unpack_one(row + d->offset, stored + d->stored, d, bases[k]);
        if (code) cbuf__get_escape(ring, k, sequence, row);
        escapes |= code;
    }
    cbuf__take_others(ring, row, stored, 1);
    return !escapes || cbuf__is_whole(ring, sequence);
}

CBUF__SLOW uint64_t cbuf__take_batch(
    const cbuf_ring *ring, uint64_t first, unsigned char *rows, uint64_t n)
{
    unsigned char buffer[CBUF__BUFFER + 16];
    uint64_t bases[CBUF_MAX_DELTAS], good = first;
    for (uint64_t at = first; at < first + n;) {
        uint32_t count = cbuf__chunk(ring, at, first + n - at);
        unsigned char *to = rows + cbuf__span(at - first, ring->row_bytes);
        bool escapes = false;
        for (uint32_t k = 0; k < ring->codec.deltas; k++)
            bases[k] = cbuf__load_relaxed(cbuf__base_at(ring, k, at));
        const unsigned char *stored = buffer + cbuf__take_stored(ring, at, buffer, count);
        uint64_t oldest = cbuf__validate(ring);
        for (uint32_t k = 0; oldest <= at && k < ring->codec.deltas; k++)
            escapes |= cbuf__decode(ring, k, at, to, stored, count, bases[k]);
        if (escapes) oldest = cbuf__validate(ring);
        if (oldest > at) {
            good = at = oldest;
            continue;
        }
        cbuf__take_others(ring, to, stored, count);
        at += count;
    }
    return good;
}

/* Copies n rows from `first` on, and validates them. The first from which on all are whole. */
CBUF__SLOW uint64_t cbuf__take_deltas(
    const cbuf_ring *ring, uint64_t first, unsigned char *rows, uint64_t n)
{
    if (n == 1 && cbuf__take_delta(ring, first, rows)) return first;
    return cbuf__take_batch(ring, first, rows, n);
}

/* What a producer must know of the last block to go on in it, or behind it. */
CBUF__SLOW void cbuf__take_over_deltas(cbuf_ring *ring)
{
    uint64_t last = ring->next ? ring->next - 1 : 0;
    for (uint32_t k = 0; k < ring->codec.deltas; k++)
        ring->codec.delta[k].base = cbuf__load_relaxed(cbuf__base_at(ring, k, last));
    size_t skip;
    ring->codec.joint = cbuf__load_relaxed(cbuf__stored_word(ring, ring->next, &skip));
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
    if (!options->deltas) return "delta_count is not 0, and deltas is NULL";
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
        memset(&there, 0, sizeof there);
        while (!cbuf_delta_at(ring, i, &there, NULL) && strcmp(there.name, wants->name)) i++;
        if (i == options->delta_count || there.bits != wants->bits ||
            memcmp(&there.step, &wants->step, 8))
            return wants->name;
    }
    return NULL;
}
#endif /* CBUF_DELTA_H */
