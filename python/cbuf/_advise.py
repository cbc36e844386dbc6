# SPDX-License-Identifier: MIT
"""Proposes delta columns from a sample of rows: the same as include/cbuf_advise.h does in C."""
import collections
import os
import warnings

import numpy as np

from . import _format, _ring

BLOCKS = (64, 16, 32, 128, 256, 512)  # the default first: another one must be better
MULTIPLES = (1000, 500, 250, 200, 100, 50, 25, 20, 10, 5, 2)
PAGE_ROWS = 512  # of one column, whose escapes share a page
MAX_DELTAS = 32  # columns, as CBUF_MAX_DELTAS is by default

# escapes: the part of the values that would not fit; bytes: what a dense row would take for the
# column, bases and pages of escapes included. bits is 0 where the column is better stored as it is.
Column = collections.namedtuple("Column", "name bits step escapes bytes")
Advice = collections.namedtuple("Advice", "columns block_rows bytes plain worth")


def load(source):
    """The rows of a ring, a .npy or a .csv file, as a structured array."""
    try:
        if source.endswith(".npy"):
            rows = np.load(source, allow_pickle=False)
        elif source.endswith(".csv"):
            with warnings.catch_warnings():  # what it warns of fails below
                warnings.simplefilter("ignore")
                rows = np.genfromtxt(source, delimiter=",", names=True, dtype=None,
                                     encoding="utf-8")
        else:
            with _ring.Ring(source) as ring:
                rows = ring.to_numpy()
    except _format.Error:
        raise
    except Exception as error:  # NumPy has many for files that are not what they should be
        raise _format.Error("%s: cannot be read: %s" % (source, error)) from None
    named = isinstance(rows, np.ndarray) and rows.dtype.names is not None
    if not named or rows.ndim != 1 or len(rows) < 2:
        raise _format.Error("%s: has no two rows with named columns" % os.path.basename(source))
    return rows


def advise(rows):
    """-> Advice for rows like these, a structured array of at least two."""
    whole = {name: _whole(rows[name]) for name in rows.dtype.names}
    for name in [name for name in whole if whole[name] is not None][MAX_DELTAS:]:
        whole[name] = None
    best = None
    for block in BLOCKS:
        advice = _with_blocks(rows, whole, block)
        if best is None or advice.bytes < 0.99 * best.bytes:
            best = advice
    if best.worth:
        return best
    return best._replace(bytes=float(best.plain), columns=[
        Column(name, 0, 0.0, 0.0, float(rows.dtype[name].itemsize)) for name in rows.dtype.names])


def _with_blocks(rows, whole, block):
    choices = {name: _choices(rows.dtype[name], whole[name], block) for name in rows.dtype.names}
    chosen = {name: min(options, key=lambda one: one[2]) for name, options in choices.items()}
    columns = [Column(name, bits, whole[name][3] if bits else 0.0, escapes, bytes_)
               for name, (bits, escapes, bytes_) in chosen.items()]
    total = sum(one.bytes for one in columns)
    size = rows.dtype.itemsize
    end = max(kind.itemsize + offset for kind, offset in rows.dtype.fields.values())
    padded = size % 8 == 0 and end + 4 <= size  # there the row's number is
    plain = -(-(size + (0 if padded else 4)) // 8) * 8
    worth = (total <= 0.9 * plain and any(one.bits for one in columns)
             and not _is_refused(rows.dtype, columns))
    return Advice(columns, block, total, plain, worth)


def _is_refused(dtype, columns):
    """Whether no ring is made so: with more runs of plain columns, without a gap or a delta column
    between, than a codec has room for, or of longer rows than it has."""
    runs, end = 0, None
    for column in sorted(columns, key=lambda one: dtype.fields[one.name][1]):
        kind, offset = dtype.fields[column.name][:2]
        if not column.bits:
            runs += offset != end
            end = offset + kind.itemsize
    return runs > 2 * MAX_DELTAS or dtype.itemsize > _format.MAX_DELTA_ROW_BYTES


def _choices(dtype, whole, block):
    """(bits, escapes, bytes with those of bases and escapes), as it is and narrower."""
    size = dtype.itemsize
    options = [(0, 0.0, float(size))]
    if whole is None:
        return options
    values, bad, width, _ = whole
    good = np.where(bad, np.iinfo(np.int64).max, np.arange(len(values)))
    starts = np.arange(0, len(values), block)
    first = np.minimum.reduceat(good, starts)
    first = np.where(first < np.minimum(starts + block, len(values)), first, starts)
    differences = values - np.repeat(values[first], block)[:len(values)]
    differences = differences << (64 - width) >> (64 - width)
    for bits in (8, 16, 32):
        if bits >= 8 * size:
            break
        most = (1 << (bits - 1)) - 1
        escapes = bad | (differences > most) | (differences < -most)
        pages = np.logical_or.reduceat(escapes, np.arange(0, len(escapes), PAGE_ROWS)).mean()
        more = 8 / block + 8 * min(1, 10 * pages)  # once made they stay: a ring needs ten times
        options.append((bits, float(escapes.mean()), float(bits // 8 + more)))
    return options


def _whole(column):
    """A column as whole numbers: (values, which are none, bits, step); None if it is none."""
    if column.ndim > 1:
        return None
    if column.dtype.kind in "iuM":
        return (column.astype(np.int64, casting="unsafe") if column.dtype.kind != "M"
                else column.view(np.int64)), np.zeros(len(column), bool), \
            8 * column.dtype.itemsize, 0.0
    if column.dtype.kind != "f" or column.dtype.itemsize not in (4, 8):
        return None
    for power in range(11):
        steps, bad = _steps(column, 10.0 ** power)
        if bad.mean() <= 0.01:
            good = np.unique(steps[~bad])
            multiple = next((m for m in MULTIPLES if len(good) >= 8 and not (good % m).any()), 1)
            return steps // multiple, bad, 64, multiple / 10.0 ** power
    return None


def _steps(column, divisor):
    with np.errstate(all="ignore"):
        steps = np.rint(column.astype(np.float64) * divisor)
        bad = ~(np.abs(steps) <= 2.0 ** 51)
        steps[bad] = 0
        again = (steps.astype(np.int64).astype(np.float64) / divisor).astype(column.dtype)
    word = "u%d" % column.dtype.itemsize
    bad |= again.view(word) != np.ascontiguousarray(column).view(word)
    return steps.astype(np.int64), bad
