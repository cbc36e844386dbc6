# SPDX-License-Identifier: MIT
"""The file format, version 1.0: what include/cbuf.h describes in its section [format].

Everything here is a pure function of bytes that were copied out of the file once. A ring's file may
be written by anybody whom its mode lets in, so nothing in it is believed before it was checked, and
nothing that fails a check gets further than an exception that names file, value and limit.
"""
import collections
import json
import re
import struct
import sys

import numpy as np

HEADER_BYTES = 1024
MAGIC = b"cbuf\r\n\x1a\0"
MAJOR = 1
BYTE_ORDER = 0x01020304
DENSE, SHARED_TAIL, LOCKED, DELTA, MANY, PACKED = 1, 2, 4, 8, 16, 32  # the feature bits
KNOWN_FEATURES = DENSE | SHARED_TAIL | LOCKED | DELTA | MANY | PACKED

# Places in the header, as indices of 8-byte words.
HEAD, RESERVE = 256 // 8, 384 // 8
STATE, EPOCH, PRODUCER_PID, PRODUCER_STARTED, WAKE_FENCE = range(512 // 8, 512 // 8 + 5)
DROPPED, WAITS, WAKES, DEMOTIONS, SPILL_END, ABORTED = range(640 // 8, 640 // 8 + 6)
CLAIM, PENS_HIGH = 768 // 8, 896 // 8
SPILLING = 1 << 63  # in the claim: rows go through the log
STATES = {0: "open", 1: "closed", 2: "retired"}

MAX_CAPACITY = 1 << 31
MAX_ROW_BYTES = 1 << 20
MAX_DELTA_ROW_BYTES = 4096
MAX_COLUMNS = 512
MAX_READERS = 1024
MAX_PRODUCERS = 256
MAX_SCHEMA_BYTES = 65536
NAME_BYTES = 48  # with a final NUL

# NAME.readers: a head of 640 bytes, then one slot of 256 bytes for each reader.
READERS_MAGIC = b"cbufrdr\0"
READERS_BYTES = 640
SLOT_BYTES = 256
FREE = (1 << 64) - 1

# Many producers: a pen for each behind the gates, and a bit in the number of a row given up.
PEN_BYTES = 128
GIVEN_UP = 1 << 31


class Error(Exception):
    """Whatever can be wrong with a ring. The text names the file, the value and the limit."""


class NotFound(Error, FileNotFoundError):
    """There is no such ring."""


class NotPermitted(Error, PermissionError):
    """The file may not be read, or belongs neither to this user nor to root."""


class FormatError(Error, ValueError):
    """The file is not a ring, or a damaged one."""


class VersionError(FormatError):
    """The ring was written in a newer format than this package knows."""


class FeatureError(FormatError):
    """The ring uses a feature that this package does not know."""


class ByteOrderError(FormatError):
    """The ring was written on a machine with the other byte order."""


class SchemaError(FormatError):
    """The ring's schema is not valid."""


class ProcessorError(Error, NotImplementedError):
    """On this processor plain loads cannot tell whole rows from torn ones."""


class NotOpen(Error, ValueError):
    """The Ring was closed by its user."""


class Lapped(Error, IndexError):
    """The producer has overwritten the rows. `oldest` is the first one that was still there."""

    def __init__(self, text, oldest):
        super().__init__(text, oldest)
        self.oldest = oldest

    def __str__(self):
        return self.args[0]


class Stale(Error, LookupError):
    """The payload is gone: all who held it gave it back."""


class Retired(Error):
    """The ring was removed or replaced while it was open, and all that was in it is read."""


Facts = collections.namedtuple("Facts", (
    "magic byte_order major minor features ring_id file_bytes rows_offset capacity readers_offset "
    "row_bytes stride schema_offset schema_bytes gates_offset max_readers reserve_step "
    "column_count on_full producers created_ns delta_count block_rows escapes_offset bases_offset "
    "plane_offset"))
FACTS = struct.Struct("=8sIHH6Q10Iq2I3Q")
# How a column of a ring with delta columns is stored: `bits` is None if as it is, and `multiple`,
# `divisor` are None if it is no float.
Stored = collections.namedtuple("Stored", "name place bits multiple divisor")

_TYPES = {"int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8",
          "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8",
          "float32": "f4", "float64": "f8", "bool": "?", "timestamp[ns]": "M8[ns]",
          "ref": "u8"}


def _within(path, what, value, low, high):
    if not low <= value <= high:
        raise FormatError("%s: %s is %d, must be %d to %d" % (path, what, value, low, high))


def parse_header(header, file_bytes, path):
    """Checks a header, the file's first HEADER_BYTES bytes, against the file's size; -> Facts.

    After this every region lies inside the file, behind the header, and overlaps no other.
    """
    if len(header) < HEADER_BYTES:
        raise FormatError("%s: has %d bytes, a ring has at least %d"
                          % (path, len(header), HEADER_BYTES))
    facts = Facts._make(FACTS.unpack_from(header))
    if facts.magic != MAGIC:
        raise FormatError("%s: does not start like a ring (%r, not %r)"
                          % (path, facts.magic, MAGIC))
    if facts.byte_order == int.from_bytes(BYTE_ORDER.to_bytes(4, "little"), "big"):
        raise ByteOrderError("%s: written on a machine that is not %s-endian, as this one is"
                             % (path, sys.byteorder))
    if facts.byte_order != BYTE_ORDER:
        raise FormatError("%s: the byte order mark is %#x, must be %#x"
                          % (path, facts.byte_order, BYTE_ORDER))
    if facts.major > MAJOR:
        raise VersionError("%s: written in format %d.%d, this package knows %d"
                           % (path, facts.major, facts.minor, MAJOR))
    _within(path, "the format's major version", facts.major, MAJOR, MAJOR)
    if facts.features & ~KNOWN_FEATURES:
        raise FeatureError("%s: uses features %#x, this package knows %#x"
                           % (path, facts.features, KNOWN_FEATURES))
    _check_sizes(facts, path)
    _check_regions(facts, file_bytes, path)
    return facts


def _check_sizes(facts, path):
    _within(path, "capacity", facts.capacity, 2, MAX_CAPACITY)
    if facts.capacity & (facts.capacity - 1):
        raise FormatError("%s: capacity is %d, must be a power of two" % (path, facts.capacity))
    _within(path, "row_bytes", facts.row_bytes, 1, MAX_ROW_BYTES)
    if facts.features & DELTA:
        _check_delta_sizes(facts, path)
    number = 0 if facts.features & (DENSE | SHARED_TAIL) else 4
    stored_bytes = 1 if facts.features & DELTA else facts.row_bytes
    _within(path, "stride", facts.stride, stored_bytes + number, MAX_ROW_BYTES + 16)
    packed = bool(facts.features & PACKED)
    if packed != bool(facts.stride % 8):
        raise FormatError("%s: stride is %d with features %#x, must be a multiple of 8 if and only "
                          "if rows are not packed" % (path, facts.stride, facts.features))
    if packed and facts.features & (DENSE | DELTA) != DENSE | DELTA:
        raise FormatError("%s: features %#x: only dense rows with delta columns are packed"
                          % (path, facts.features))
    if facts.features & SHARED_TAIL and (
            facts.features & DENSE
            or not facts.features & DELTA and facts.row_bytes != facts.stride):
        raise FormatError("%s: features %#x do not go with each other and rows of %d bytes, %d "
                          "apart" % (path, facts.features, facts.row_bytes, facts.stride))
    _within(path, "max_readers", facts.max_readers, 1, MAX_READERS)
    _within(path, "reserve_step", facts.reserve_step, 1, facts.capacity // 2)
    _within(path, "column_count", facts.column_count, 1, MAX_COLUMNS)
    _within(path, "on_full", facts.on_full, 0, 3)
    if facts.features & MANY:
        _within(path, "producers", facts.producers, 2, MAX_PRODUCERS)
        _within(path, "capacity", facts.capacity, 2, 1 << 30)
        if facts.features & (DENSE | LOCKED | DELTA):
            raise FormatError("%s: features %#x do not go with many producers"
                              % (path, facts.features))
    else:
        _within(path, "producers", facts.producers, 0, 1)


def _check_delta_sizes(facts, path):
    _within(path, "row_bytes of rows with delta columns", facts.row_bytes, 1, MAX_DELTA_ROW_BYTES)
    _within(path, "the number of delta columns", facts.delta_count, 1, MAX_COLUMNS)
    _within(path, "block_rows", facts.block_rows, 1, facts.capacity // 2)
    if facts.block_rows & (facts.block_rows - 1):
        raise FormatError("%s: block_rows is %d, must be a power of two" % (path, facts.block_rows))
    if not facts.features & (DENSE | SHARED_TAIL):
        raise FormatError("%s: features %#x do not go with each other" % (path, facts.features))


def _delta_regions(facts):
    """The counters with the map of the plane's pages; the bases; the escape plane."""
    if not facts.features & DELTA:
        return (), ()
    words = facts.delta_count * facts.capacity
    counters = 8 * (facts.delta_count + words // (512 * 64) + 1)
    return ((("the counters of escapes", facts.escapes_offset, counters, 8),),
            (("the bases", facts.bases_offset, 8 * (words // facts.block_rows), 8),
             ("the escape plane", facts.plane_offset, 8 * words, 4096)))


def _check_regions(facts, file_bytes, path):
    """Header, schema, gates, pens and rows, and what delta columns need, follow each other to the file's
    end."""
    if facts.file_bytes != file_bytes:
        raise FormatError("%s: has %d bytes, its header says %d"
                          % (path, file_bytes, facts.file_bytes))
    _within(path, "schema_bytes", facts.schema_bytes, 2, MAX_SCHEMA_BYTES)
    if facts.readers_offset:
        raise FormatError("%s: was made in memory: its readers' table is at %d, must be 0"
                          % (path, facts.readers_offset))
    end = HEADER_BYTES
    before, behind = _delta_regions(facts)
    for what, offset, size, alignment in (
            ("the schema", facts.schema_offset, facts.schema_bytes, 1),
            ("the gates", facts.gates_offset, 8 * facts.max_readers, 8),
            ("the pens", *pens_of(facts), 1), *before,
            ("the rows", facts.rows_offset, facts.capacity * facts.stride, 8), *behind):
        _within(path, "the size of " + what, size, 0, facts.file_bytes)
        _within(path, "the place of " + what, offset, end, facts.file_bytes - size)
        if offset % alignment:
            raise FormatError("%s: the place of %s is %d, must be a multiple of %d"
                              % (path, what, offset, alignment))
        end = offset + size


def pens_of(facts):
    """Where the producers' pens are: -> offset, bytes. Of one producer there are none."""
    if not facts.features & MANY:
        return facts.gates_offset + 8 * facts.max_readers, 0
    end = facts.gates_offset + 8 * facts.max_readers
    return (end + PEN_BYTES - 1) // PEN_BYTES * PEN_BYTES, PEN_BYTES * facts.producers


def parse_schema(text, facts, path):
    """Checks the schema's JSON text (bytes) against the facts; -> (schema, dtype of the rows as
    they are read, how their columns are stored: a list of Stored, or None)."""
    try:
        schema = json.loads(text.decode("ascii"), object_pairs_hook=_unique,
                            parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SchemaError("%s: the schema is not valid JSON: %s" % (path, error)) from None
    if not isinstance(schema, dict):
        raise SchemaError("%s: the schema is %s, must be an object" % (path, _show(schema)))
    if not re.fullmatch(r"cbuf %d\.[0-9]+" % MAJOR, str(schema.get("format"))):
        raise SchemaError("%s: the schema's format is %s, must be \"cbuf %d.x\""
                          % (path, _show(schema.get("format")), MAJOR))
    expected = {"layout": "dense" if facts.features & DENSE else "numbered",
                "capacity": facts.capacity, "row_bytes": facts.row_bytes, "stride": facts.stride,
                "rows_offset": facts.rows_offset, "head_offset": 8 * HEAD,
                "reserve_offset": 8 * RESERVE}
    if facts.features & DELTA:
        expected.update(block_rows=facts.block_rows, escapes_offset=facts.escapes_offset,
                        bases_offset=facts.bases_offset, plane_offset=facts.plane_offset)
    if facts.features & MANY:
        expected.update(producers=facts.producers, claim_offset=8 * CLAIM,
                        pens_offset=pens_of(facts)[0])
    for key, value in expected.items():
        if type(schema.get(key)) is not type(value) or schema[key] != value:
            raise SchemaError("%s: the schema's %s is %s, the header's %s"
                              % (path, key, _show(schema.get(key)), _show(value)))
    dtype = _dtype(schema.get("columns"), facts, path)
    if not facts.features & DELTA:
        return schema, dtype, None
    return schema, dtype, _stored(schema["columns"], dtype, facts, path)


def _stored(columns, dtype, facts, path):
    """How the columns are stored, in the order of their offsets."""
    stored, taken = [], []
    for column in columns:
        name, bits, step = column["name"], column.get("delta"), column.get("step")
        field = dtype[name]
        size = field.itemsize
        if "delta" in column:
            if field.kind not in "iumMf" or type(bits) is not int or bits not in (8, 16, 32) \
                    or bits > 8 * size:
                raise SchemaError("%s: column %s of type %s has delta %s, must be 8, 16 or 32 and "
                                  "not more than its own bits" % (path, name, column["type"],
                                                                  _show(bits)))
            size = bits // 8
        if (field.kind == "f" and "delta" in column) != ("step" in column):
            raise SchemaError("%s: column %s has the step %s, must have one if and only if it is a "
                              "float with a delta" % (path, name, _show(step)))
        if "step" in column and not (
                isinstance(step, list) and len(step) == 2
                and all(type(part) is int and 1 <= part <= 10**15 for part in step)):
            raise SchemaError("%s: column %s has the step %s, must be two numbers of 1 to 10^15"
                              % (path, name, _show(step)))
        place = column.get("stored")
        end = facts.stride - (0 if facts.features & DENSE else 4)
        if type(place) is not int or not 0 <= place <= end - size:
            raise SchemaError("%s: column %s of %d stored bytes is stored at %s, must end by %d"
                              % (path, name, size, _show(place), end))
        taken.append((place, place + size, name))
        stored.append(Stored(name, place, bits, *(step or (None, None))))
    taken.sort()
    for (_, end, name), (place, _, other) in zip(taken, taken[1:]):
        if place < end:
            raise SchemaError("%s: columns %s and %s are stored in the same place"
                              % (path, name, other))
    deltas = sum(column.bits is not None for column in stored)
    if deltas != facts.delta_count:
        raise SchemaError("%s: the schema has %d delta columns, the header says %d"
                          % (path, deltas, facts.delta_count))
    return stored


def _unique(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(text):
    raise ValueError("%s is no JSON" % text)


def _show(value):
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _dtype(columns, facts, path):
    """The rows as a structured dtype of the stride's size (of row_bytes where there are delta
    columns); what no column names is padding."""
    if not isinstance(columns, list) or not all(isinstance(column, dict) for column in columns):
        raise SchemaError("%s: the schema's columns are no list of objects" % path)
    if len(columns) != facts.column_count:
        raise SchemaError("%s: the schema has %d columns, the header says %d"
                          % (path, len(columns), facts.column_count))
    delta = bool(facts.features & DELTA)
    limit = facts.row_bytes - (4 if facts.features & SHARED_TAIL and not delta else 0)
    names, formats, offsets = [], [], []
    end = 0
    for column in columns:
        name, offset = column.get("name"), column.get("offset")
        if not _is_name(name) or name in names:
            raise SchemaError("%s: a column is named %s, must be unique and 1 to %d printable "
                              "ASCII characters without quote and backslash"
                              % (path, _show(name), NAME_BYTES - 1))
        kind = _format_of(column.get("type"))
        if kind is None:
            raise SchemaError("%s: column %s has the unknown type %s"
                              % (path, name, _show(column.get("type"))))
        size = np.dtype(kind).itemsize
        if type(offset) is not int or not end <= offset <= limit - size:
            raise SchemaError("%s: column %s of %d bytes has the offset %s, must begin at %d or "
                              "later, where the one before ends, and end by %d"
                              % (path, name, size, _show(offset), end, limit))
        end = offset + size
        names.append(name)
        formats.append(kind)
        offsets.append(offset)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets,
                     "itemsize": facts.row_bytes if delta else facts.stride})


def _is_name(name):
    return (isinstance(name, str) and 0 < len(name) < NAME_BYTES
            and all(" " <= c <= "~" and c not in '"\\' for c in name))


def _format_of(type_name):
    """NumPy's name for a type of the schema, or None."""
    if not isinstance(type_name, str):
        return None
    if type_name in _TYPES:
        return _TYPES[type_name]
    digits = type_name[1:]
    if type_name[:1] != "S" or not (digits.isascii() and digits.isdigit()) or len(digits) > 7:
        return None
    return type_name if digits[0] != "0" and int(digits) <= MAX_ROW_BYTES else None


Producer = collections.namedtuple("Producer", "pid alive started_ns begin end behind")
Reader = collections.namedtuple("Reader", (
    "name cursor lag lost waits pid gate demoted started_ns active_ns"))


def parse_readers(table, gates, facts, head, path):
    """The readers registered in a .readers file; `gates`: who was demoted; -> a list of Reader.

    Whoever may register can write anything there: the numbers are the readers' own words.
    """
    if len(table) < READERS_BYTES + SLOT_BYTES * facts.max_readers:
        raise FormatError("%s: has %d bytes, %d readers need %d" % (
            path, len(table), facts.max_readers, READERS_BYTES + SLOT_BYTES * facts.max_readers))
    magic, ring_id, max_readers = struct.unpack_from("=8sQQ", table)
    if magic != READERS_MAGIC or ring_id != facts.ring_id or max_readers != facts.max_readers:
        raise FormatError("%s: not this ring's table of readers" % path)
    readers = []
    for k in range(facts.max_readers):
        start = READERS_BYTES + SLOT_BYTES * k
        cursor, lost, active_ns, waits, gate, incarnation, owned = struct.unpack_from(
            "=QQqQQQQ", table, start)
        pid, started_ns, name = struct.unpack_from("=Qq%ds" % NAME_BYTES, table, start + 128)
        if not owned:
            continue
        demoted = bool(gate) and struct.unpack_from("=Q", gates, 8 * k)[0] == incarnation
        readers.append(Reader(
            name=printable(name.split(b"\0")[0]), cursor=None if cursor == FREE else cursor,
            lag=None if cursor == FREE else max(0, head - cursor), lost=lost, waits=waits, pid=pid,
            gate=bool(gate), demoted=demoted, started_ns=started_ns, active_ns=active_ns))
    return readers


def printable(text):
    """Bytes that anybody may have written, as text that a terminal takes no harm from."""
    return "".join(chr(c) if 32 <= c < 127 and c != 92 else "\\x%02x" % c for c in text)
