"""A ring's file, made and written by hand as the format says, for tests without C.

The writer is a chain of single steps (one store each), so that a test can put them anywhere between
the steps of a reader. It follows the header's protocol, not the package: nothing of cbuf is used.
"""
import json
import mmap
import struct

PAGE = 4096
FACTS = ("magic", "byte_order", "major", "minor", "features", "ring_id", "file_bytes", "rows_offset",
         "capacity", "readers_offset", "row_bytes", "stride", "schema_offset", "schema_bytes",
         "gates_offset", "max_readers", "reserve_step", "column_count", "on_full", "producers", "created_ns")
FACTS_FORMAT = "<8sIHHQQQQQQIIIIIIIIIIq"
HEAD, RESERVE, STATE, EPOCH, PID = 256, 384, 512, 520, 528
DROPPED = 640
SPILL_END = 672
SIZES = {"int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
         "float32": 4, "float64": 8, "bool": 1, "timestamp[ns]": 8, "ref": 8}

# The kinds of rows that there are: dense; numbered with the number behind the row; numbered with the
# number in the row's own padding.
LAYOUTS = ("dense", "numbered", "shared")


def size_of(type_name):
    return SIZES[type_name] if type_name in SIZES else int(type_name[1:])


def columns_of(*types):
    """Columns a, b, c ... of these types, each at the place where a C struct has it."""
    columns, end = [], 0
    for name, type_name in zip("abcdefghijklmnopqrstuvwxyz", types):
        size = size_of(type_name)
        alignment = 1 if type_name[0] == "S" else size
        end = (end + alignment - 1) // alignment * alignment
        columns.append({"name": name, "type": type_name, "offset": end})
        end += size
    return columns, end


class RingFile:
    def __init__(self, path, types=("int64",), layout="numbered", capacity=8, step=1,
                 facts=(), schema=None, room=1024):
        """`facts` replace the right ones in the header; schema(the right one, a dict) gives a dict or
        bytes, for which there is `room`."""
        self.path = str(path)
        self.columns, end = columns_of(*types)
        self.layout, self.capacity, self.step = layout, capacity, step
        if layout == "dense":
            row_bytes, stride = end, (end + 7) // 8 * 8
        elif layout == "numbered":
            row_bytes, stride = end, (end + 4 + 7) // 8 * 8
        else:
            row_bytes = stride = (end + 4 + 7) // 8 * 8
        self.stride = stride
        gates = 1024 + room
        rows = gates + PAGE
        self.facts = dict(
            magic=b"cbuf\r\n\x1a\0", byte_order=0x01020304, major=1, minor=0,
            features={"dense": 1, "numbered": 0, "shared": 2}[layout], ring_id=77,
            file_bytes=(rows + capacity * stride + PAGE - 1) // PAGE * PAGE, rows_offset=rows,
            capacity=capacity, readers_offset=0, row_bytes=row_bytes, stride=stride, schema_offset=1024,
            schema_bytes=0, gates_offset=gates, max_readers=4, reserve_step=step,
            column_count=len(self.columns), on_full=0, producers=0, created_ns=1)
        self.rows_offset, self.gates_offset = rows, gates
        text = schema(self.schema()) if schema else self.schema()
        if isinstance(text, dict):
            text = json.dumps(text).encode()
        size = self.facts["file_bytes"]
        self.facts.update(schema_bytes=len(text))
        self.facts.update(facts)
        with open(self.path, "wb") as file:
            file.write(struct.pack(FACTS_FORMAT, *(self.facts[name] for name in FACTS)))
            file.seek(1024)
            file.write(text)
            file.truncate(size)
        with open(self.path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.head = self.reserve = self.reserved = 0

    def schema(self):
        return {"format": "cbuf 1.0", "layout": "dense" if self.layout == "dense" else "numbered",
                "capacity": self.capacity, "row_bytes": self.facts["row_bytes"],
                "stride": self.facts["stride"], "rows_offset": self.facts["rows_offset"],
                "head_offset": HEAD, "reserve_offset": RESERVE, "columns": self.columns}

    def put(self, offset, value):
        struct.pack_into("<Q", self.memory, offset, value)

    # ---- the writer, in single steps ----

    def steps(self, rows):
        """Writes rows (a list of bytes) in one call: a generator that stops after each store."""
        rows = list(rows)
        if self.head + len(rows) > self.reserved:
            self.reserved = self.head + max(len(rows), self.step)
            self.reserve = max(self.reserve, self.reserved)  # it never goes down
            self.put(RESERVE, self.reserve)
            yield
        for i, row in enumerate(rows, self.head):
            place = self.rows_offset + i % self.capacity * self.stride
            row = bytearray(row.ljust(self.stride, b"\0"))
            if self.layout != "dense":
                row[-4:] = struct.pack("<I", (i + 1) % (1 << 32))
            for word in range(0, self.stride, 8):
                self.memory[place + word:place + word + 8] = bytes(row[word:word + 8])
                yield
        self.head += len(rows)
        self.put(HEAD, self.head)
        yield

    def write(self, rows):
        for _ in self.steps(rows):
            pass

    def close(self):
        self.put(STATE, 1)

    def retire(self):
        self.put(STATE, 2)

    # ---- rows that tell their number ----

    def row(self, i):
        """Row i of a ring of int64 columns: each column tells i in its own way."""
        assert all(column["type"] == "int64" for column in self.columns)
        return struct.pack("<%dq" % len(self.columns), *(value(i, k) for k in range(len(self.columns))))

    def write_to(self, end, batch=1):
        """Writes rows up to number `end`, without it."""
        while self.head < end:
            n = min(batch, end - self.head)
            self.write(self.row(i) for i in range(self.head, self.head + n))

    def endless(self, batch=1):
        """The steps of a writer that never stops."""
        while True:
            yield from self.steps(self.row(i) for i in range(self.head, self.head + batch))


def value(i, k):
    """Column k of row i: no two rows share a value in any column, and none is 0 (never written)."""
    return (i + 1) * (k + 3) ** 7


def whole(rows, first):
    """Whether these are the rows from number `first` on, each with all its columns."""
    return all([int(row[name]) for row in rows] == [value(i, k) for i in range(first, first + len(rows))]
               for k, name in enumerate(rows.dtype.names))
