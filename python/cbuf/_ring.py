# SPDX-License-Identifier: MIT
"""Ring: a ring opened to be read.

HOW A COPY IS KNOWN TO BE WHOLE. The producer raises `reserve` before it touches a row, and `head`
after. So: load head; copy rows below it; load reserve; what lies below reserve - capacity may have
been overwritten meanwhile, the rest is whole. C orders these three steps with acquire loads and a
fence. Python has neither, but an x86-64 processor does not reorder loads (TSO), the interpreter
runs one call after the other, and no compiler sees two of them at once; hence plain loads serve
there, and only there: see _require_ordered_loads.

MANY PRODUCERS share no `head`: it is how far every row below `claim` is in its place, which
follows from the pens, where each producer says which rows it may be writing, and from the rows'
numbers; section [many] of cbuf.h. A row that its producer gave up has a number of its own kind: it
is left out, and counted as skipped.

WHICH LOADS ARE SINGLE. A counter must be read whole. numpy.ndarray.item() of an aligned uint64
array in the machine's byte order is one C load of a uint64 (`*((npy_ulong *)ip)` in
arraytypes.c.src, one `mov` in the machine code, seen with a hardware watchpoint). memoryview and
struct go through memcpy or byte by byte and promise nothing of the kind.

WHY ROWS ARE COPIED AS BYTES. NumPy copies structured arrays field by field, 2 to 3 times slower
than the memory; an array of bytes is one memmove. The bytes are then viewed as rows.
"""
import fcntl
import mmap
import operator
import os
import platform
import stat
import struct
import sys
import time

import numpy as np

from . import _deltas, _format, _watch
from ._format import (Error, FormatError, Lapped, NotFound, NotOpen, NotPermitted, ProcessorError,
                      Retired)

SHM = "/dev/shm"
_TRIES = 16
_SHORTEST_NAP = 50e-6


class Rows(np.ndarray):
    """Consecutive rows of a ring: a structured array of the caller's own, oldest first.

    first     the sequence number of rows[0]
    lost      how many rows just before it were asked for, or were next, but are overwritten
    skipped   how many rows before and between them were given up by one of many producers; only
              then are they not consecutive
    sequence  the sequence numbers of all rows, as an array
    A slice of Rows with step 1 knows its `first`; anything else (a column, a mask, a sorted copy)
    is a plain array. `first` is None where NumPy makes Rows that are no longer consecutive.
    """

    first = None
    lost = skipped = 0
    _sequence = None  # where rows between them were given up

    @classmethod
    def _of(cls, array, first, lost, skipped=0, sequence=None):
        rows = array.view(cls)
        rows.first = first
        rows.lost = lost
        rows.skipped = skipped
        rows._sequence = sequence
        return rows

    @property
    def sequence(self):
        if self._sequence is not None:
            return self._sequence.copy()
        return np.arange(self.first, self.first + len(self), dtype=np.int64)

    def __getitem__(self, key):
        part = np.asarray(self)[key]
        if isinstance(key, slice) and self.first is not None and self.ndim == 1:
            start, stop, step = key.indices(len(self))
            if step == 1 and self._sequence is None:
                return Rows._of(part, self.first + start, 0 if start else self.lost,
                                0 if start else self.skipped)
            if step == 1:
                return self._of_sequence(part, start)
        return part

    def _of_sequence(self, part, start):
        sequence = self._sequence[start:start + len(part)]
        first = int(sequence[0]) if len(part) else self.first
        between = int(sequence[-1]) + 1 - first - len(part) if len(part) else 0
        before = 0 if start else self.skipped - (
            int(self._sequence[-1]) + 1 - self.first - len(self))
        return Rows._of(part, first, 0 if start else self.lost, before + between, sequence)

    def __reduce__(self):
        return Rows._of, (np.array(self), self.first, self.lost, self.skipped, self._sequence)


class View:
    """The last rows of a ring in place, not copied: what Ring.view gives.

        with ring.view(1000) as view:
            highest = max(part["bid"].max() for part in view.parts)

    The producer does not wait, so what was computed counts only if the rows were still there after
    it was. Leaving the `with` block checks that, and raises Lapped if not, unless the block has
    asked valid() itself.

    parts    the rows as one read-only array, or two if they go round the ring's end; more if some
             between them were given up by one of many producers
    first    the sequence number of the first row; len(view) is how many they are
    lost     how many rows were asked for but are overwritten
    skipped  how many were given up
    """

    def __init__(self, ring, parts, first, lost, skipped):
        self.parts, self.first, self.lost, self.skipped = parts, first, lost, skipped
        self._ring, self._asked = ring, False

    def __len__(self):
        return sum(len(part) for part in self.parts)

    def valid(self):
        """Whether all rows are still as they were: what was computed from them before counts."""
        self._asked = True
        return self._ring._oldest() <= self.first or not len(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None and not self._asked and not self.valid():
            oldest = self._ring._oldest()
            raise Lapped("%s: the view began at row %d, the oldest one now is %d: what was "
                         "computed may be wrong" % (self._ring.path, self.first, oldest), oldest)


class Ring:
    """A ring opened to be read. Read-only, takes no reader slot, and no producer waits for it.

    path      of the file
    schema    the schema, a dict
    dtype     of the rows: a structured NumPy dtype whose itemsize is the ring's stride, or with
              delta columns, whose rows are stored in another way, the row's plain size
    offset    of the rows in the file, in bytes
    capacity  in rows

    Rows have sequence numbers, from 0 on since the ring was created; row i lies in place
    i % capacity. So numpy.memmap(ring.path, dtype=ring.dtype, mode="r", offset=ring.offset,
    shape=ring.capacity) has the same rows, unchecked.

    ring[i] is row i, ring[-1] the newest; ring[a:b] are the rows from a up to b, without b, as far
    as they are there. A Ring may be used by several threads. Arrays taken from it outlive it.
    """

    def __init__(self, name, any_owner=False):
        _require_ordered_loads()
        self.path = path_of(name)
        fd = _open_file(self.path)
        try:
            status = os.fstat(fd)
            _check_file(self.path, status, any_owner)
            self._identity = status.st_dev, status.st_ino
            facts = _format.parse_header(
                os.pread(fd, _format.HEADER_BYTES, 0), status.st_size, self.path)
            text = os.pread(fd, facts.schema_bytes, facts.schema_offset)
            if len(text) != facts.schema_bytes:
                raise FormatError("%s: was truncated" % self.path)
            self.schema, self.dtype, self._stored = _format.parse_schema(text, facts, self.path)
            try:
                memory = mmap.mmap(fd, facts.file_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
            except (OSError, ValueError) as error:
                raise Error("%s: cannot be mapped: %s" % (self.path, error)) from None
        except Error:
            raise
        except OSError as error:
            raise Error("%s: cannot be read: %s" % (self.path, error.strerror)) from None
        finally:
            os.close(fd)
        self.facts = facts
        self.offset = facts.rows_offset
        self.capacity = facts.capacity
        self._stride = facts.stride
        self._memory = memory
        self._load = np.frombuffer(memory, np.uint64, _format.HEADER_BYTES // 8).item
        self._bytes = np.frombuffer(memory, np.uint8, facts.capacity * facts.stride, self.offset)
        self._deltas = _deltas.Decoder(facts, self.dtype, self._stored, memory) \
            if self._stored else None
        self._many = bool(facts.features & _format.MANY)
        if self._many:
            pens, size = _format.pens_of(facts)
            self._pen = np.frombuffer(memory, np.uint64, size // 8, pens).item
            self._numbers = self._bytes.view(np.uint32).reshape(facts.capacity, -1)[:, -1]

    def close(self):
        """Ends the use of the ring. Views and their arrays keep its memory as long as they live."""
        self._memory = self._bytes = self._numbers = self._deltas = None
        self._load = self._copy = self._pen = self._not_open

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    def _not_open(self, *arguments):
        raise NotOpen("%s: this Ring was closed" % self.path)

    # ---- what it is and how it stands ----

    @property
    def head(self):
        """How many rows have been published since the ring was created; of many producers, up to
        the first one that is not."""
        return self._head()

    def _claim(self):
        return self._load(_format.CLAIM) & ~_format.SPILLING

    def _head(self):
        if not self._many:
            return self._load(_format.HEAD)
        claim = self._claim()  # before the pens, and they before the rows' numbers
        high = min(self._load(_format.PENS_HIGH), self.facts.producers)
        words = _format.PEN_BYTES // 8
        head = min([claim] + [self._pen(k * words) for k in range(high)])
        return self._first_pending(max(head, claim - self.capacity), claim)

    def _pending(self, first, end):
        """Of each row from `first` on up to `end`, at most a lap: whether its place still has the
        one of the lap before, published or given up, or none."""
        sequence = np.arange(first, end)
        numbers = self._numbers[sequence % self.capacity]
        before = (sequence + 1 - self.capacity).astype(np.uint32)
        late = (numbers == before) | (numbers == before ^ np.uint32(_format.GIVEN_UP))
        return np.where(sequence < self.capacity, numbers == 0, late)

    def _first_pending(self, first, claim):
        size = 16
        while first < claim:
            end = min(first + size, claim)
            pending = self._pending(first, end)
            if pending.any():
                return first + int(pending.argmax())
            first, size = end, 4 * size
        return first

    def _given_up(self, numbers, first):
        """Of rows that are in their places, by their numbers: which were given up."""
        wanted = np.arange(first + 1, first + 1 + len(numbers)).astype(np.uint32)
        return numbers == wanted ^ np.uint32(_format.GIVEN_UP)

    def _rows(self, rows, first, lost, skipped=0):
        """Rows of what was copied from row `first` on, without those that were given up."""
        if not self._many or not len(rows):
            return Rows._of(rows, first, lost, skipped)
        gone = self._given_up(rows.view(np.uint32).reshape(len(rows), -1)[:, -1], first)
        if not gone.any():
            return Rows._of(rows, first, lost, skipped)
        kept = np.flatnonzero(~gone)
        sequence = first + kept
        return Rows._of(rows[kept], int(sequence[0]) if len(kept) else first + len(rows), lost,
                        skipped + len(rows) - len(kept), sequence)

    @property
    def oldest(self):
        """The sequence number of the oldest row that can be read; head if there is none."""
        head = self.head
        return min(head, self._oldest())

    @property
    def state(self):
        """How it is: "open"; "closed" by its producer, though another may go on; "retired", that
        is removed or replaced."""
        state = self._load(_format.STATE)
        return _format.STATES.get(state, "unknown (%d)" % state)

    @property
    def epoch(self):
        """How many producers the ring has had."""
        return self._load(_format.EPOCH)

    def __len__(self):
        """How many rows can be read now; of many producers, with those that were given up."""
        head = self.head
        return head - min(head, max(self._oldest(), head - self.capacity))

    def _fate(self):
        """What became of the file without the producer's word: None, "removed" or "replaced"."""
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return "removed"
        except OSError:
            return None
        return None if (status.st_dev, status.st_ino) == self._identity else "replaced"

    def __bool__(self):
        return True  # an empty ring is a ring

    def __repr__(self):
        layout = "%s, %d rows of %d bytes" % (
            self.schema["layout"], self.capacity, self._stride)
        if self._memory is None:
            return "<cbuf.Ring %s, not open: %s>" % (self.path, layout)
        return "<cbuf.Ring %s, %s: %s, head %d>" % (self.path, self.state, layout, self.head)

    def stats(self):
        """The ring's counters, a dict: rows written, overwritten, dropped (refused because the ring
        was full), spilled (accepted, and still in the log), aborted (claimed and given up); the
        producer's waits for room, wake-ups sent and gates demoted; how many producers there may be,
        and the last one's pid."""
        spill_end = self._load(_format.SPILL_END)
        written = self.head
        return {"state": self.state, "written": written,
                "overwritten": min(written, self._oldest()),
                "dropped": self._load(_format.DROPPED),
                "spilled": max(0, spill_end - written) if spill_end < _format.FREE else 0,
                "waits": self._load(_format.WAITS),
                "wakes": self._load(_format.WAKES), "demotions": self._load(_format.DEMOTIONS),
                "aborted": self._load(_format.ABORTED), "producers": self.facts.producers or 1,
                "epoch": self.epoch, "producer_pid": self._load(_format.PRODUCER_PID)}

    def escapes(self):
        """How many values of each delta column did not fit since the ring was created, a dict; many
        of them mean that the column's bits, or its step, were not well chosen."""
        if self._memory is None:
            self._not_open()
        return self._deltas.escapes() if self._deltas else {}

    def stored_bytes(self):
        """What a row of a ring with delta columns takes, with its part of the bases and of the
        pages that the escape plane has; and how many pages those are."""
        facts, pages = self.facts, self._deltas.pages()
        bases = 8 * facts.delta_count / facts.block_rows
        return facts.stride + bases + 4096 * pages / facts.capacity, pages

    def readers(self):
        """The registered readers, a list of cbuf.Reader: name, cursor (None: it does not read), lag
        (rows), lost, waits, pid, gate, demoted, started_ns, active_ns. Observers like this one are
        not among them. Raises Error if NAME.readers may not be read."""
        facts = self.facts
        head = self._head()
        size = _format.READERS_BYTES + _format.SLOT_BYTES * facts.max_readers
        gates = self._memory[facts.gates_offset:facts.gates_offset + 8 * facts.max_readers]
        path = self.path + ".readers"
        fd = _open_file(path)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise FormatError("%s: not a regular file" % path)
            return _format.parse_readers(os.pread(fd, size, 0), gates, facts, head, path)
        finally:
            os.close(fd)

    def producers(self):
        """Those who have the ring, or had it when they were killed, a list of cbuf.Producer: pid,
        alive (by the kernel's word; None if this process may not look), started_ns, begin and end
        of the rows that it has claimed and not yet published (none if equal), and behind: how many
        rows are published behind these, which nobody can read before."""
        if not self._many:
            alive = self.producer_alive()
            if not alive and self.state != "open":
                return []
            head = self._head()
            return [_format.Producer(self._load(_format.PRODUCER_PID), alive,
                                     self._load(_format.PRODUCER_STARTED), head, head, 0)]
        pens = [self._producer(k) for k in range(self.facts.producers)]
        return [pen for pen in pens if pen]

    def _producer(self, index):
        at = index * (_format.PEN_BYTES // 8)
        claim = self._claim()
        begin, end, owned, pid, started_ns = (self._pen(at + k) for k in range(5))
        if not owned:
            return None
        end = min(end, claim)
        begin = self._first_pending(max(begin, claim - self.capacity, 0), end)
        if begin >= end:
            begin = end = claim
        behind = int(np.count_nonzero(~self._pending(end, claim)))
        alive = self.producer_alive(1 + index)
        return _format.Producer(pid, alive, started_ns, begin, end, behind)

    def producer_alive(self, byte=0):
        """Whether a producer has the ring now, by the kernel's word: it holds a lock on NAME.lock.
        None if this process may not look. (`byte`: of all of them, or of pen byte - 1.)"""
        try:
            fd = _open_file(self.path + ".lock")
        except NotFound:
            return False
        except Error:
            return None
        try:
            query = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query)
            return struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK
        except OSError:
            return None
        finally:
            os.close(fd)

    # ---- copies ----

    def _oldest(self):
        """The oldest row that may be trusted: those below may be under the pen. Never negative; may
        be above a head that was loaded before."""
        return max(0, self._load(_format.RESERVE) - self.capacity)

    def _copy(self, first, n, dtype=None):
        """The bytes of n <= capacity rows from `first` on, whatever they are."""
        rows = np.empty(n, dtype or self.dtype)
        to, size = rows.view(np.uint8), n * self._stride
        start = first % self.capacity * self._stride
        until_end = min(size, len(self._bytes) - start)
        to[:until_end] = self._bytes[start:start + until_end]
        if until_end < size:
            to[until_end:] = self._bytes[:size - until_end]
        return rows

    def _take(self, first, end):
        """Copies the published rows from `first` up to `end`. -> them, and the first whole one's
        number: those before it may be torn, all from it on are not."""
        if self._deltas:
            return self._take_deltas(first, end)
        rows = self._copy(first, end - first)
        return rows, min(max(first, self._oldest()), end)  # in this order: first copy, then look

    def _take_deltas(self, first, end):
        """The same where rows have to be decoded. Only those that were whole when they and their
        bases had been copied are; the page of an escape that never was may not be there. Escapes
        that were looked up are good if their rows still are."""
        stored = self._copy(first, end - first, self._deltas.dtype)
        bases = self._deltas.bases(first, end)
        whole = min(max(first, self._oldest()), end)
        rows = np.empty(end - first, self.dtype)
        if self._deltas.decode(rows[whole - first:], stored[whole - first:], whole, bases):
            whole = min(max(whole, self._oldest()), end)
        return rows, whole

    def last(self, n=None):
        """A copy of the last n rows (None: of all that are there), oldest first: Rows.

        Fewer if there are fewer, or if the producer overwrites the oldest of them meanwhile; `lost`
        of the result tells how many of the last n rows ever written are missing."""
        if n is None:
            return self._slice(slice(None))
        asked = _count(n, "n")
        while asked:
            rows = self._slice(slice(-asked, None))
            if not rows.skipped or len(rows) >= n or rows.lost or asked > self.capacity:
                return rows[-n:] if len(rows) > n else rows
            asked += n - len(rows)  # as many more as were given up
        return self._slice(slice(0, 0))

    def __getitem__(self, key):
        if isinstance(key, slice):
            if key.step not in (None, 1):
                raise ValueError("rows come with step 1: ring[a:b][::%s]" % key.step)
            return self._slice(key)
        try:
            index = operator.index(key)
        except TypeError:
            raise TypeError("a ring is indexed by sequence numbers, as in ring[-1] and ring[a:b]; "
                            "a column is ring.last(n)[%r]" % (key,)) from None
        return self._row(index)

    __iter__ = None  # by sequence numbers it would start at row 0, which may be gone: use follow()

    def _row(self, index):
        if self._many and index < 0:  # from the newest back, without those that were given up
            rows = self.last(-index)
            if len(rows) == -index:
                return rows[0]
        for _ in range(_TRIES):
            head = self._head()
            sequence = index if index >= 0 else head + index
            if not 0 <= sequence < head:
                raise IndexError("%s: there is no row %d, the head is %d"
                                 % (self.path, index, head))
            oldest = max(self._oldest(), head - self.capacity)
            if oldest <= sequence:
                rows, whole = self._take(sequence, sequence + 1)
                if whole == sequence and not len(self._rows(rows, sequence, 0)):
                    raise IndexError("%s: row %d was given up by its producer"
                                     % (self.path, sequence))
                if whole == sequence:
                    return rows[0]
                oldest = self._oldest()
            if index >= 0:
                break
        raise Lapped("%s: row %d is overwritten, the oldest one is %d"
                     % (self.path, sequence, oldest), oldest)

    def _slice(self, key):
        """Rows of a slice of sequence numbers; without a start it begins at the oldest row. One
        that ends at the head is tried again where not one row survived the copying."""
        for _ in range(_TRIES):
            head = self._head()
            first, end, _step = key.indices(head)
            end = max(first, end)
            begin = min(max(first, self._oldest(), head - self.capacity), end)
            if key.start is None:
                first = begin
            rows, whole = self._take(begin, end)
            if whole < end or first == end or end < head:
                break
        return self._rows(rows[whole - begin:], whole, whole - first)

    def to_numpy(self, n=None):
        """last(n) as a plain structured array."""
        return np.asarray(self.last(n))

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.to_numpy(), dtype)

    def to_pandas(self, n=None):
        """last(n) as a pandas.DataFrame with the sequence numbers as its index; the rows that are
        missing are counted in its attrs["lost"]. Needs pandas."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas needs pandas, which is not installed; to_numpy "
                              "does not") from None
        rows = self.last(n)
        index = pandas.RangeIndex(rows.first, rows.first + len(rows), name="sequence")
        if rows.skipped:
            index = pandas.Index(rows.sequence, name="sequence")
        frame = pandas.DataFrame({name: rows[name] for name in rows.dtype.names}, index=index)
        frame.attrs["lost"] = rows.lost
        return frame

    # ---- in place ----

    def view(self, n=None):
        """The last n rows (None: all that are there) in place, to be checked after use: View. Not
        where there are delta columns: such rows must be decoded, as last() does."""
        if self._deltas:
            raise Error("%s: has delta columns, whose rows cannot be viewed in place: use last()"
                        % self.path)
        head = self._head()
        asked = 0 if n is None else max(0, head - _count(n, "n"))
        first = min(max(asked, self._oldest(), head - self.capacity), head)
        lost = 0 if n is None else first - asked
        if not self._many:
            return View(self, self._parts(first, head), first, lost, 0)
        numbers = self._numbers[np.arange(first, head) % self.capacity]
        gone = np.flatnonzero(self._given_up(numbers, first)) + first
        ends = [first - 1] + gone.tolist() + [head]  # the rows between these
        runs = [(a + 1, b) for a, b in zip(ends, ends[1:]) if a + 1 < b] or [(head, head)]
        parts = tuple(part for run in runs for part in self._parts(*run))
        return View(self, parts, runs[0][0], lost, len(gone))

    def _parts(self, first, end):
        """Rows in place: one array, or two if they go round the ring's end."""
        rows = self._bytes.view(self.dtype)
        start, size = first % self.capacity, end - first
        parts = rows[start:start + size], rows[:max(0, start + size - self.capacity)]
        return parts if len(parts[1]) else parts[:1]

    # ---- all rows as they come ----

    def follow(self, start="oldest", batch=65536, timeout=None, poll=0.001):
        """Yields the rows from `start` on as they come, as Rows of at most `batch`.

        start    "oldest", "newest" (the next one to be written), or a sequence number; a negative
                 one counts from the head
        timeout  seconds to wait for more rows before it ends; None: without limit; 0: it reads what
                 is there and ends
        poll     the longest sleep between two looks, in seconds

        Each row is delivered once or counted once: the rows lost just before a batch are its
        `lost`, and those that were given up before and in it its `skipped`, so that rows + lost +
        skipped = head - start at any moment. If it ends with such rows and none to follow, the last
        batch is empty and carries their number.

        Ends when the producer has closed the ring and all is read. Raises Retired, after the last
        row, when the ring was removed or replaced: open it again by its name. (A file that was
        removed by hand is noticed after a second without rows.) Waits for the next producer if one
        dies without closing.
        """
        if operator.index(batch) < 1:
            raise ValueError("batch is %d, must be at least 1" % batch)
        cursor = self._start(start)
        return self._follow(cursor, min(batch, self.capacity), _Idle(self, timeout, poll))

    def watch(self, start="oldest", batch=65536):
        """follow() for an asyncio event loop: `async for rows in ring.watch():`. The loop's other
        tasks run meanwhile; it is woken by the producer where it may write NAME.readers, and looks
        every millisecond otherwise. A producer that was killed wakes nobody, and is not noticed."""
        if operator.index(batch) < 1:
            raise ValueError("batch is %d, must be at least 1" % batch)
        return _watch.watch(self, self._start(start), min(batch, self.capacity))

    def _start(self, start):
        head = self._head()
        if start == "oldest":
            return min(head, max(self._oldest(), head - self.capacity))
        if start == "newest":
            return head
        if isinstance(start, str):
            raise ValueError('start is %r, must be "oldest", "newest" or a sequence number' % start)
        start = operator.index(start)
        return start if start >= 0 else max(0, head + start)

    def _follow(self, cursor, batch, idle):
        lost = skipped = misses = 0
        while True:
            state = self._load(_format.STATE)  # before head: no row comes after the closing
            head = self._head()
            if head > cursor:
                first, end = self._next(cursor, head, batch, misses)
                rows, whole = self._take(first, end)
                lost += whole - cursor
                cursor = end
                misses = 0 if whole < end else min(misses + 1, 32)
                kept = self._rows(rows[whole - first:], whole, lost, skipped)
                skipped = kept.skipped
                if len(kept):
                    yield kept
                    lost = skipped = 0
                if whole < end:
                    idle.over()
            elif state == 0 and idle.wait():
                if idle.asynchronous:
                    idle.head = head
                    yield None
            else:
                break
        if lost or skipped:
            yield Rows._of(np.empty(0, self.dtype), cursor, lost, skipped)
        if state == 2 or idle.fate:
            raise Retired("%s: was %s; all %d rows up to its end are read: open it again"
                          % (self.path, idle.fate or "retired", cursor))

    def _next(self, cursor, head, batch, misses):
        """The next rows to copy. After batches that were overwritten whole (a small ring, a fast
        producer) it starts further and further from the pen."""
        oldest = max(self._oldest(), head - self.capacity)
        if oldest > cursor:
            cursor = min(oldest + self.capacity // 64 * misses, head)
        return cursor, min(head, cursor + batch)


class _Idle:
    """The waiting of follow(): longer and longer sleeps, as it may not ask to be woken."""

    asynchronous = False

    def __init__(self, ring, timeout, poll):
        self.ring, self.timeout, self.poll, self.fate = ring, timeout, poll, None
        self.over()

    def over(self):
        self.since, self.nap = None, min(_SHORTEST_NAP, self.poll)

    def wait(self):
        """Sleeps a little; False when it is no use to wait any longer."""
        now = time.monotonic()
        if self.since is None:
            self.since, self.look_at = now, now + 1.0
        left = self.poll if self.timeout is None else self.since + self.timeout - now
        if left <= 0 and self.timeout is not None:
            return False
        if now >= self.look_at:
            self.look_at = now + 1.0
            self.fate = self.ring._fate()
            if self.fate:
                return False
        time.sleep(min(self.nap, left))
        self.nap = min(2 * self.nap, self.poll)
        return True


def path_of(name):
    """The file of a ring: "ticks" is /dev/shm/ticks; an absolute path is itself."""
    name = os.fsdecode(os.fspath(name))
    if name[:1] == "/" and "\0" not in name:
        return name
    if name[:1] in ("", ".") or "/" in name or "\0" in name:
        raise Error("%r: must be a name without '/' and not begin with '.', or an absolute path"
                    % name)
    return os.path.join(SHM, name)


def _open_file(path):
    """Opens a file to read, and whatever stands in its place harmlessly. -> a descriptor."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound("%s: there is no such file" % path) from None
    except PermissionError:
        raise NotPermitted("%s: this user may not read it" % path) from None
    except OSError as error:
        raise Error("%s: cannot be opened: %s" % (path, error.strerror)) from None


def _check_file(path, status, any_owner):
    if not stat.S_ISREG(status.st_mode):
        raise FormatError("%s: not a regular file" % path)
    if not any_owner and status.st_uid not in (0, os.geteuid()):
        raise NotPermitted("%s: belongs to user %d, must be %d or root; say any_owner=True to "
                           "trust it" % (path, status.st_uid, os.geteuid()))


def _require_ordered_loads():
    bits = 64 if sys.maxsize > 1 << 32 else 32
    if platform.machine() not in ("x86_64", "AMD64") or bits != 64:
        raise ProcessorError(
            "cbuf for Python needs an x86-64 processor and a 64-bit Python, this is %s with %d "
            "bits: elsewhere an acquire fence must stand between copying rows and checking them, "
            "and Python has no way to issue one" % (platform.machine(), bits))


def _count(n, what):
    n = operator.index(n)
    if n < 0:
        raise ValueError("%s is %d, must not be negative" % (what, n))
    return n
