# SPDX-License-Identifier: MIT
"""The file beside a ring that include/cbuf_log.h describes: spilled rows, or every row.

As in _format, nothing in the file is believed before it was checked: rows count up to the first
record whose checksum, sequence number or size is not as it should be.
"""
import collections
import json
import os
import struct
import types

import numpy as np

from ._format import (BYTE_ORDER, MAX_ROW_BYTES, MAX_SCHEMA_BYTES, ByteOrderError, Error,
                      FormatError, SchemaError, VersionError, _dtype, _within)
from ._ring import _check_file, _open_file

try:
    from xxhash import xxh64_intdigest as _xxh64
except ImportError:
    _xxh64 = None

MAGIC = b"cbuflog\n"
MAJOR = 1
EVERY_ROW = 1
RECORD_ROWS_BYTES = 262144  # in one record, at most; or one row
HEADER = struct.Struct("=8sIHHQ4Iq2Q")
RECORD = struct.Struct("=QQII")
HEAD_BYTES = 24
MARK = struct.Struct("=4Q")
MARKS_BYTES = 4096

Header = collections.namedtuple("Header", (
    "magic byte_order major minor ring_id row_bytes header_bytes schema_bytes flags created_ns "
    "zero check"))

Log = collections.namedtuple("Log", (
    "path rows sequences records bytes cut why every_row created_ns schema"))
Log.__doc__ = """What is in a log: rows (a structured array), their sequence numbers in the ring,
how many records and bytes those are, and how many bytes behind them are cut off, and why (None: it
ends with a whole record)."""


def read_log(path, any_owner=False):
    """Reads a whole log; -> Log. Raises an Error if there is no log or its header is damaged."""
    data = np.frombuffer(_read(path, any_owner), dtype=np.uint8)
    header = _header(data, path)
    try:
        schema = json.loads(data[64:64 + header.schema_bytes].tobytes().decode("ascii"))
        columns = schema["columns"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SchemaError("%s: the schema is not valid: %s" % (path, error)) from None
    facts = types.SimpleNamespace(column_count=len(columns), row_bytes=header.row_bytes,
                                  features=0, stride=header.row_bytes)
    dtype = _dtype(columns, facts, path)
    for start, chain, sequence in _starts(data, header):
        records, end, why = _records(data, header, start, sequence)
        good = _verified(data, records, header, chain)
        if good < len(records):
            why = "a record's checksum is wrong"
            end = records[good][0] - HEAD_BYTES
            del records[good:]
        if records:
            break
    return Log(path, _rows(data, records, dtype), _sequences(records), len(records),
               end - start, len(data) - end, why,
               bool(header.flags & EVERY_ROW), header.created_ns, schema)


def _read(path, any_owner):
    fd = _open_file(path)
    try:
        _check_file(path, os.fstat(fd), any_owner)
        with open(fd, "rb", closefd=False) as file:
            return file.read()
    except Error:
        raise
    except OSError as error:
        raise Error("%s: cannot be read: %s" % (path, error.strerror)) from None
    finally:
        os.close(fd)


def _header(data, path):
    if len(data) < HEADER.size or data[:8].tobytes() != MAGIC:
        raise FormatError("%s: does not start like a log" % path)
    header = Header._make(HEADER.unpack_from(data))
    if header.byte_order == int.from_bytes(BYTE_ORDER.to_bytes(4, "little"), "big"):
        raise ByteOrderError("%s: written on a machine with the other byte order" % path)
    _within(path, "the byte order mark", header.byte_order, BYTE_ORDER, BYTE_ORDER)
    if header.major != MAJOR:
        raise VersionError("%s: written in format %d, this package knows %d"
                           % (path, header.major, MAJOR))
    _within(path, "row_bytes", header.row_bytes, 1, MAX_ROW_BYTES)
    _within(path, "schema_bytes", header.schema_bytes, 2, MAX_SCHEMA_BYTES)
    whole = (HEADER.size + header.schema_bytes + 4095) // 4096 * 4096 + MARKS_BYTES
    _within(path, "header_bytes", header.header_bytes, whole, whole)
    _within(path, "the size of the file", len(data), header.header_bytes, 1 << 63)
    seed = xxh64(data[None, :56], np.zeros(1, np.uint64))
    if int(xxh64(data[None, 64:header.header_bytes - MARKS_BYTES], seed)[0]) != header.check:
        raise FormatError("%s: the checksum of its header is wrong" % path)
    return header


def _starts(data, header):
    """Where the records may begin: (place, check before it, least sequence number). At a mark, the
    one furthest on first, if there is a whole record at it; else behind the header."""
    starts = []
    for place in (header.header_bytes - MARKS_BYTES, header.header_bytes - MARKS_BYTES + 512):
        check, at, chain, sequence = MARK.unpack_from(data, place)
        seed = np.array([header.check], np.uint64)
        right = int(xxh64(data[None, place + 8:place + MARK.size], seed)[0]) == check
        if right and header.header_bytes <= at < len(data):
            starts.append((at, chain, sequence))
    return sorted(starts, reverse=True) + [(header.header_bytes, header.check, 0)]


def _records(data, header, at, sequence):
    """What look like records: (place of its rows, count, sequence, check); their end, and why."""
    records = []
    most = max(RECORD_ROWS_BYTES, header.row_bytes)
    while at < len(data):
        if at + HEAD_BYTES > len(data):
            return records, at, "a record is torn"
        check, first, count, zero = RECORD.unpack_from(data, at)
        size = count * header.row_bytes
        if not count or zero or size > most:
            return records, at, "there is no record where one should be"
        if at + HEAD_BYTES + size > len(data):
            return records, at, "a record is torn"
        if not sequence <= first < 1 << 63:
            return records, at, "a record's sequence number is wrong"
        records.append((at + HEAD_BYTES, count, first, check))
        at += HEAD_BYTES + size
        sequence = first + count
    return records, at, None


def _verified(data, records, header, chain):
    """How many records, from the first on, have the right checksum. Those of one size together, as
    NumPy then computes them side by side."""
    chain = np.array([chain] + [record[3] for record in records], dtype=np.uint64)
    places = np.array([record[0] for record in records], dtype=np.int64)
    counts = np.array([record[1] for record in records], dtype=np.int64)
    good = len(records)
    for count in np.unique(counts):
        size = int(count) * header.row_bytes
        indices = np.flatnonzero(counts == count)
        step = max(1, (1 << 24) // size)
        for start in range(0, len(indices), step):
            some = indices[start:start + step]
            heads = np.stack([data[p - 16:p] for p in places[some]])
            rows = np.stack([data[p:p + size] for p in places[some]])
            wrong = some[xxh64(rows, xxh64(heads, chain[some])) != chain[some + 1]]
            if len(wrong):
                good = min(good, int(wrong[0]))
    return good


def _rows(data, records, dtype):
    size = dtype.itemsize
    parts = [data[place:place + count * size] for place, count, _, _ in records]
    return np.concatenate(parts + [np.empty(0, np.uint8)]).view(dtype)


def _sequences(records):
    parts = [np.arange(first, first + count) for _, count, first, _ in records]
    return np.concatenate(parts + [np.empty(0, np.int64)])


# XXH64: Yann Collet, github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
_1, _2, _3, _4, _5 = (np.uint64(prime) for prime in (
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5))


def xxh64(texts, seeds):
    """XXH64 of each row of a two-dimensional array of bytes, with a seed for each."""
    if _xxh64:
        return np.array([_xxh64(text.tobytes(), int(seed)) for text, seed in zip(texts, seeds)],
                        dtype=np.uint64)
    with np.errstate(over="ignore"):
        return _xxh64_side_by_side(np.ascontiguousarray(texts), seeds)


def _rotated(x, by):
    return x << np.uint64(by) | x >> np.uint64(64 - by)


def _round(lane, word):
    return _rotated(lane + word * _2, 31) * _1


def _xxh64_side_by_side(texts, seeds):
    size, at = texts.shape[1], 0
    words = np.ascontiguousarray(texts[:, :size // 8 * 8]).view("<u8").astype(np.uint64)
    zero = np.zeros_like(seeds)
    if size >= 32:
        lanes = [seeds + _1 + _2, seeds + _2, seeds, seeds - _1]
        for at in range(0, size // 32 * 4, 4):
            lanes = [_round(lane, words[:, at + k]) for k, lane in enumerate(lanes)]
        at += 4
        h = sum((_rotated(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18))), zero)
        for lane in lanes:
            h = (h ^ _round(zero, lane)) * _1 + _4
    else:
        h = seeds + _5
    h = h + np.uint64(size)
    for k in range(at, size // 8):
        h = _rotated(h ^ _round(zero, words[:, k]), 27) * _1 + _4
    at = size // 8 * 8
    if size - at >= 4:
        half = np.ascontiguousarray(texts[:, at:at + 4]).view("<u4")[:, 0].astype(np.uint64)
        h = _rotated(h ^ half * _1, 23) * _2 + _3
        at += 4
    for k in range(at, size):
        h = _rotated(h ^ texts[:, k].astype(np.uint64) * _5, 11) * _1
    h = (h ^ h >> np.uint64(33)) * _2
    h = (h ^ h >> np.uint64(29)) * _3
    return h ^ h >> np.uint64(32)
