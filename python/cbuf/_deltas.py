# SPDX-License-Identifier: MIT
"""Decodes rows with delta columns: what include/cbuf.h describes in its section [delta].

A column's value is its block's base plus the stored difference, wrapping on 64 bits and cut to the
column's width; a float is that whole number times `multiple`, by `divisor`. The smallest number of
the stored bits says that the value's bytes stand in the escape plane.
"""
import numpy as np

_PART_ROWS = 8192  # decoded at a time, so that they and what they pass through stay in the cache


class Decoder:
    """dtype   of the rows as they are stored"""

    def __init__(self, facts, dtype, stored, memory):
        self._stored, self._memory, self._facts = stored, memory, facts
        self._capacity, self._block = facts.capacity, facts.block_rows
        self._part = max(1, _PART_ROWS // self._block)
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
        blocks = np.arange(-(-end // self._block) - first // self._block)
        blocks += first % self._capacity // self._block  # `first` may be any 64 bits
        return self._bases[:, blocks % self._bases.shape[1]], first

    def decode(self, rows, stored, first, bases):
        """Fills `rows` from stored rows that are whole, of which the first has that number. ->
        whether escapes were looked up, which count only if the rows are still whole after."""
        words, start = bases
        words = words[:, first // self._block - start // self._block:, None]
        skip, escaped = first % self._block, False
        values = np.empty((self._part, self._block), np.int64)
        for block in range(0, words.shape[1], self._part):
            begin = max(0, block * self._block - skip)
            part = slice(begin, (block + self._part) * self._block - skip)
            if self._decode_part(rows[part], stored[part], first + begin,
                                 words[:, block:block + self._part], values):
                escaped = True
        return escaped

    def _decode_part(self, rows, stored, first, words, values):
        """The same for a few blocks' rows; these are their bases. values: room for as many."""
        values = values[:words.shape[1]]
        skip, k, escaped = first % self._block, 0, False
        each = values.reshape(-1)[skip:skip + len(rows)]
        for column in self._stored:
            to = rows[column.name]
            if not column.bits:
                to[...] = stored[column.name]
                continue
            each[...] = stored[column.name]
            codes = (each == -1 << column.bits - 1).nonzero()[0]
            values += words[k]
            _store(to, each, column)
            if len(codes):
                places = (first % self._capacity + codes) % self._capacity
                to[codes] = _cut(self._plane[k, places], to.dtype)
                escaped = True
            k += 1
        return escaped


def _store(to, values, column):
    """Puts whole numbers into a delta column. No float overflows: multiple is 10^15 at most."""
    if column.multiple is None:
        to[...] = values.view(to.dtype) if to.dtype.kind == "M" else values
        return
    if column.multiple != 1:
        values = values * float(column.multiple)
    np.divide(values, float(column.divisor), out=to)


def _cut(words, dtype):
    """The low bytes of words, as values of that type."""
    return words.astype("u%d" % dtype.itemsize).view(dtype)
