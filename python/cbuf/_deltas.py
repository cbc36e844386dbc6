# SPDX-License-Identifier: MIT
"""Decodes rows with delta columns: what include/cbuf.h describes in its section [delta].

A column's value is its block's base plus the stored difference, wrapping on 64 bits and cut to the
column's width; a float is that whole number times `multiple`, by `divisor`. The smallest number of
the stored bits says that the value's bytes stand in the escape plane.
"""
import numpy as np


class Decoder:
    """dtype   of the rows as they are stored"""

    def __init__(self, facts, dtype, stored, memory):
        self._stored, self._memory, self._facts = stored, memory, facts
        self._capacity, self._block = facts.capacity, facts.block_rows
        self.dtype = np.dtype({
            "names": [column.name for column in stored],
            "formats": ["i%d" % (column.bits // 8) if column.bits else dtype[column.name]
                        for column in stored],
            "offsets": [column.place for column in stored], "itemsize": facts.stride})
        shape = facts.delta_count, facts.capacity
        self._bases = self._words(facts.bases_offset, (shape[0], shape[1] // self._block), np.int64)
        self._plane = self._words(facts.plane_offset, shape, np.uint64)
        self._counts = self._words(facts.escapes_offset, shape[:1], np.uint64)
        self._pages = self._words(facts.escapes_offset + 8 * shape[0],
                                  (shape[0] * shape[1] // (512 * 64) + 1,), np.uint64)

    def _words(self, offset, shape, dtype):
        return np.frombuffer(self._memory, dtype, int(np.prod(shape)), offset).reshape(shape)

    def escapes(self):
        names = [column.name for column in self._stored if column.bits]
        return dict(zip(names, self._counts.tolist()))

    def pages(self):
        """How many pages of the escape plane were made."""
        return int(np.unpackbits(self._pages.copy().view(np.uint8)).sum())

    def bases(self, first, end):
        """A copy of the bases of the rows from `first` up to `end`: for each delta column one for
        each block."""
        blocks = np.arange(first // self._block, -(-end // self._block))
        return self._bases[:, blocks % self._bases.shape[1]], first

    def decode(self, rows, stored, first, bases):
        """Fills `rows` from stored rows that are whole, of which the first has that number. ->
        whether escapes were looked up, which count only if the rows are still whole after."""
        words, start = bases
        words = words[:, first // self._block - start // self._block:]
        n, skip, k, escaped = len(rows), first % self._block, 0, False
        for column in self._stored:
            if not column.bits:
                rows[column.name] = stored[column.name]
                continue
            differences = stored[column.name]
            values = np.repeat(words[k], self._block)[skip:skip + n]
            values += differences
            rows[column.name] = _as_column(values, column, rows.dtype[column.name])
            codes = np.flatnonzero(differences == np.iinfo(differences.dtype).min)
            if len(codes):
                whole = self._plane[k, (first + codes) % self._capacity]
                rows[column.name][codes] = _cut(whole, rows.dtype[column.name])
                escaped = True
            k += 1
        return escaped


def _as_column(values, column, dtype):
    if column.multiple is None:
        return _cut(values, dtype)
    steps = values.astype(np.float64)
    if column.multiple != 1:
        steps *= float(column.multiple)
    steps /= float(column.divisor)
    with np.errstate(over="ignore"):  # of what stands in the place of escapes
        return steps.astype(dtype, copy=False)


def _cut(words, dtype):
    """The low bytes of words, as values of that type."""
    return words.astype("u%d" % dtype.itemsize).view(dtype)
