/*
 * cbuf_advise.h - which columns to store in fewer bits, from a sample of rows: for cbuf_options
 * `deltas`, `delta_count`, `block_rows` and `layout`. Takes cbuf.h with it; C11 and C++11.
 *
 *   cbuf_advice advice;
 *   if (cbuf_advise(columns, 4, sizeof(struct tick), ticks, 10000, &advice) == 0)
 *       options.deltas = advice.deltas, options.delta_count = advice.delta_count,
 *       options.block_rows = advice.block_rows, options.layout = advice.layout;
 *
 * `python3 -m cbuf advise` proposes the same from a ring or a file. Take rows as they will be: a
 * calm hour says nothing of a wild one. Later, cbuf_delta_at counts the escapes.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef CBUF_ADVISE_H
#define CBUF_ADVISE_H

#include "cbuf_delta.h"
#ifdef CBUF_DELTA_H

typedef struct cbuf_advice {
    cbuf_delta deltas[CBUF_MAX_DELTAS];
    double escapes[CBUF_MAX_DELTAS]; /* the part of the values, 0 to 1, that would not fit */
    uint32_t delta_count, block_rows;
    uint8_t layout; /* CBUF_DENSE: no number, no padding; CBUF_NUMBERED if none is proposed */
    double stored_bytes, plain_bytes; /* a row, with its bases and pages of escapes; numbered */
} cbuf_advice;

/* Proposes the columns and the block length that take the fewest bytes for n rows (2 at least)
 * like these; none (delta_count is 0) if that saves less than a tenth of plain numbered rows, or
 * if a ring with them is refused: rows of more than 4,096 bytes, or with too many gaps. At most
 * CBUF_MAX_DELTAS columns. 0, or CBUF_EINVAL. Looks at each value some 40 times. */
static inline int cbuf_advise(const cbuf_column *columns, uint32_t column_count,
    uint32_t row_bytes, const void *rows, uint64_t n, cbuf_advice *advice);

/* ---- private from here on ---- */

typedef struct cbuf__sample { /* a column of the sample */
    const unsigned char *first;
    uint64_t n;
    uint32_t apart, bytes;
    bool real;
    double multiple, divisor, step;
} cbuf__sample;

typedef struct cbuf__choice { /* bits 0: as it is; stored and further bytes a row */
    uint32_t bits, stored;
    double escapes, more;
} cbuf__choice;

CBUF__SLOW uint64_t cbuf__sample_word(const cbuf__sample *sample, uint64_t i)
{
    const unsigned char *from = sample->first + cbuf__span(i, sample->apart);
    uint64_t word = 0;
    memcpy(CBUF__LITTLE ? CBUF__AS(void *, &word)
                        : CBUF__AS(unsigned char *, CBUF__AS(void *, &word)) + 8 - sample->bytes,
        from, sample->bytes);
    return word;
}

/* Value i as a whole number; false if it is none. */
CBUF__SLOW bool cbuf__sample_whole(const cbuf__sample *sample, uint64_t i, int64_t *whole)
{
    uint64_t word = cbuf__sample_word(sample, i), again = 0;
    uint32_t low = CBUF__AS(uint32_t, word);
    float single;
    double value;
    *whole = CBUF__AS(int64_t, word);
    if (!sample->real) return true;
    memcpy(&single, &low, 4);
    memcpy(&value, &word, 8);
    if (sample->bytes == 4) value = CBUF__AS(double, single);
    value = value * sample->divisor / sample->multiple;
    if (!(value > -2251799813685248.0 && value < 2251799813685248.0)) return false; /* 2^51 */
    *whole = CBUF__AS(int64_t, value + (value < 0 ? -0.5 : 0.5));
    value = CBUF__AS(double, *whole) * sample->multiple / sample->divisor;
    single = CBUF__AS(float, value);
    memcpy(&again, &value, 8);
    if (sample->bytes == 4) memcpy(&low, &single, 4), again = low;
    return again == word;
}

/* The part of the values that are no whole numbers of steps; *distinct: how often they change. */
CBUF__SLOW double cbuf__sample_misfits(const cbuf__sample *sample, uint64_t *changes)
{
    uint64_t misfits = 0;
    int64_t before = 0, whole;
    *changes = 0;
    for (uint64_t i = 0; i < sample->n; i++) {
        bool fits = cbuf__sample_whole(sample, i, &whole);
        misfits += !fits;
        *changes += fits && i && whole != before;
        if (fits) before = whole;
    }
    return CBUF__AS(double, misfits) / CBUF__AS(double, sample->n);
}

/* Finds the step of floats: the largest power of ten that at most 1 in 100 values is no multiple
 * of, then a multiple of it if all others are. */
CBUF__SLOW bool cbuf__sample_step(cbuf__sample *sample)
{
    static const double multiples[] = { 1000, 500, 250, 200, 100, 50, 25, 20, 10, 5, 2, 1 };
    uint64_t changes;
    double misfits = 1;
    sample->multiple = sample->divisor = 1;
    for (int power = 0; power < 11; power++, sample->divisor *= 10)
        if ((misfits = cbuf__sample_misfits(sample, &changes)) <= 0.01) break;
    if (misfits > 0.01) return false;
    for (size_t k = 0; k < sizeof multiples / sizeof multiples[0]; k++) {
        sample->multiple = multiples[k];
        if (cbuf__sample_misfits(sample, &changes) <= misfits && (changes >= 8 || k == 11)) break;
    }
    cbuf__quotient(&sample->multiple, &sample->divisor, &sample->step);
    return true;
}

/* What the column takes with so many bits. Pages of the escape plane have 512 rows of a column, and
 * once made they stay: those that the sample would need are a tenth of what the ring will need. */
CBUF__SLOW cbuf__choice cbuf__sample_try(const cbuf__sample *sample, uint32_t bits, uint64_t block)
{
    const uint64_t code = CBUF__AS(uint64_t, 1) << (bits - 1), n = sample->n;
    uint64_t escapes = 0, pages = 0, page = UINT64_MAX;
    int64_t whole, base = 0;
    bool found = false;
    for (uint64_t i = 0; i < n; i++) {
        bool fits = cbuf__sample_whole(sample, i, &whole);
        if (i % block == 0) {
            found = false;
            for (uint64_t j = i; !found && j < n && j < i + block; j++)
                found = cbuf__sample_whole(sample, j, &base);
        }
        uint64_t difference = CBUF__AS(uint64_t, whole) - CBUF__AS(uint64_t, base);
        difference = cbuf__extend(difference, sample->real ? 64 : 8 * sample->bytes);
        if (fits && difference + code - 1 <= 2 * code - 2) continue;
        escapes++;
        pages += page != i / 512;
        page = i / 512;
    }
    double made = 10 * CBUF__AS(double, pages) / CBUF__AS(double, (n + 511) / 512);
    cbuf__choice choice = { bits, bits / 8, CBUF__AS(double, escapes) / CBUF__AS(double, n),
        8 / CBUF__AS(double, block) + 8 * (made < 1 ? made : 1) };
    return choice;
}

/* The best for one block length: each column at its cheapest. */
CBUF__SLOW void cbuf__advise_blocks(const cbuf_column *columns, uint32_t column_count,
    const cbuf__sample *samples, const bool *possible, uint32_t block, cbuf_advice *advice)
{
    uint32_t used = 0;
    memset(advice, 0, sizeof *advice);
    advice->block_rows = block;
    advice->layout = CBUF_DENSE;
    for (uint32_t c = 0; c < column_count; c++) {
        if (!possible[c] || used == CBUF_MAX_DELTAS) {
            advice->stored_bytes += CBUF_TYPE_BYTES(columns[c].type);
            continue;
        }
        const cbuf__sample *sample = samples + used++;
        cbuf__choice best = { 0, sample->bytes, 0, 0 };
        for (uint32_t bits = 8; bits <= 32 && bits < 8 * sample->bytes; bits *= 2) {
            cbuf__choice choice = cbuf__sample_try(sample, bits, block);
            if (choice.stored + choice.more < best.stored + best.more) best = choice;
        }
        advice->stored_bytes += best.stored + best.more;
        if (!best.bits) continue;
        cbuf_delta *delta = advice->deltas + advice->delta_count;
        memcpy(delta->name, columns[c].name, sizeof delta->name);
        delta->bits = best.bits;
        delta->step = sample->real ? sample->step : 0;
        advice->escapes[advice->delta_count++] = best.escapes;
    }
}

/* Whether a ring is made as advised, whatever its capacity. */
CBUF__SLOW bool cbuf__advice_holds(const cbuf_column *columns, uint32_t column_count,
    uint32_t row_bytes, const cbuf_advice *advice)
{
    cbuf__codec codec;
    cbuf__facts facts;
    cbuf_options options;
    memset(&codec, 0, sizeof codec);
    memset(&facts, 0, sizeof facts);
    memset(&options, 0, sizeof options);
    facts.capacity = CBUF_MAX_CAPACITY;
    options.columns = columns;
    options.column_count = column_count;
    options.deltas = advice->deltas;
    options.delta_count = advice->delta_count;
    return row_bytes <= CBUF__BUFFER / 2 && !cbuf__plan_deltas(&codec, &options, &facts);
}

static inline int cbuf_advise(const cbuf_column *columns, uint32_t column_count,
    uint32_t row_bytes, const void *rows, uint64_t n, cbuf_advice *advice)
{
    static const uint32_t blocks[] = { 64, 16, 32, 128, 256, 512 }; /* the default first */
    cbuf__sample samples[CBUF_MAX_DELTAS];
    bool possible[CBUF_MAX_COLUMNS];
    uint32_t used = 0, end = 0;
    cbuf_advice other;
    if (n < 2 || !column_count || column_count > CBUF_MAX_COLUMNS) return CBUF_EINVAL;
    memset(samples, 0, sizeof samples);
    for (uint32_t c = 0; c < column_count; c++) {
        uint32_t bytes = CBUF_TYPE_BYTES(columns[c].type), kind = columns[c].type >> 24;
        if (cbuf__column_fault(columns + c)) return CBUF_EINVAL;
        possible[c] = kind == 1 || kind == 2 || kind == 3 || kind == 5;
        if (CBUF__AS(uint64_t, columns[c].offset) + bytes > row_bytes) return CBUF_EINVAL;
        if (columns[c].offset + bytes > end) end = columns[c].offset + bytes;
        if (!possible[c] || used == CBUF_MAX_DELTAS) continue;
        cbuf__sample sample = { CBUF__AS(const unsigned char *, rows) + columns[c].offset, n,
            row_bytes, bytes, kind == 3, 1, 1, 0 };
        samples[used] = sample;
        possible[c] = kind != 3 || cbuf__sample_step(&samples[used]);
        used += possible[c];
    }
    for (size_t k = 0; k < sizeof blocks / sizeof blocks[0]; k++) {
        cbuf__advise_blocks(columns, column_count, samples, possible, blocks[k], &other);
        if (!k || other.stored_bytes < 0.99 * advice->stored_bytes) *advice = other;
    }
    bool padded = row_bytes % 8 == 0 && end + 4 <= row_bytes; /* there the number is */
    advice->plain_bytes = CBUF__AS(double, (row_bytes + (padded ? 0u : 4u) + 7) / 8 * 8);
    if (advice->delta_count && advice->stored_bytes <= 0.9 * advice->plain_bytes &&
        cbuf__advice_holds(columns, column_count, row_bytes, advice)) return 0;
    advice->stored_bytes = advice->plain_bytes;
    advice->delta_count = 0;
    advice->layout = CBUF_NUMBERED;
    return 0;
}

#endif /* CBUF_DELTA_H */
#endif /* CBUF_ADVISE_H */
