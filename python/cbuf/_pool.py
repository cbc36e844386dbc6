# SPDX-License-Identifier: MIT
"""Pool: a pool of payloads (include/cbuf_pool.h), whose refs stand in columns of type ref.

HOW A COPY IS KNOWN TO BE WHOLE. A slot is written only by who allocated it, and allocating raises
the generation in its state first. So: load the state; copy; load the state again; if the generation
is the ref's both times, all that was copied is its payload. Plain loads serve for this where
Ring's do.

HOW A PAYLOAD IS HELD. A holder's bit is set and cleared in the slot's state by a compare-exchange,
which Python has not. libatomic, a library of gcc's that most systems have, has it as a function.
Where it is missing payloads can be copied, and not held.

A view is an array on a read-only mapping. NumPy keeps an array alive while other arrays look at its
memory, so the payload is given back when the last of them is gone, and not before.
"""
import collections
import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys
import threading
import time
import weakref

import numpy as np

from . import _format
from ._format import Error, FormatError, NotFound, NotOpen, NotPermitted, Stale
from ._ring import _check_file, _open_file, _require_ordered_loads, path_of

MAGIC = b"cbufpool"
FACTS = struct.Struct("=8sIHHQQQQIIqII")
REGION = struct.Struct("=QQII")
CLASSES = ("XS", "S", "M", "L", "XL", "XXL")
XXL = 5
FACTS_BYTES, FILE_BYTES, HOLDER_BYTES, SLOT_BYTES, STATE = 216, 512, 256, 64, 256
MAX_HOLDERS, MAX_XXL, MAX_SLOTS, MAX_SLOT_BYTES = 31, 64, 1 << 24, 1 << 30
HOLDERS, GOING = 0x7fffffff, 0x80000000
NOBODY, PROCESS, RING, RING_OF_MANY = 0, 1, 2, 3
OWNED = 3  # the step of an owner of a payload that is in nobody's hands
_FLOCK = "hhqqi4x"

Facts = collections.namedtuple("Facts", (
    "magic byte_order major minor features file_bytes holders_offset counts_offset max_holders "
    "slots created_ns in_memory unused regions"))
Region = collections.namedtuple("Region", "offset bytes count stride")
Class = collections.namedtuple("Class", "name bytes count free held")
Holder = collections.namedtuple("Holder", "index name pid ring alive slots bytes started_ns")
Held = collections.namedtuple("Held", "ref kind index length type holders")


def parse_facts(header, file_bytes, path):
    """Checks a pool's first bytes against the file's size; -> Facts. After this every slot lies
    inside the file."""
    if len(header) < FACTS_BYTES or file_bytes < FILE_BYTES:
        raise FormatError("%s: has %d bytes, a pool has at least %d"
                          % (path, file_bytes, FILE_BYTES))
    regions = tuple(Region._make(REGION.unpack_from(header, FACTS.size + REGION.size * k))
                    for k in range(len(CLASSES)))
    facts = Facts._make(FACTS.unpack_from(header) + (regions,))
    if facts.magic != MAGIC:
        raise FormatError("%s: does not start like a pool (%r, not %r)"
                          % (path, facts.magic, MAGIC))
    if facts.byte_order != _format.BYTE_ORDER:
        raise _format.ByteOrderError("%s: not written on a %s-endian machine, as this one is"
                                     % (path, sys.byteorder))
    if facts.major != _format.MAJOR:
        raise _format.VersionError("%s: written in format %d.%d, this package knows %d"
                                   % (path, facts.major, facts.minor, _format.MAJOR))
    if facts.features:
        raise _format.FeatureError("%s: uses features %#x, this package knows none"
                                   % (path, facts.features))
    if facts.file_bytes != file_bytes or facts.in_memory:
        raise FormatError("%s: has %d bytes, its header says %d%s" % (
            path, file_bytes, facts.file_bytes, ", in memory" if facts.in_memory else ""))
    _check_regions(facts, path)
    return facts


def _check_regions(facts, path):
    for kind, region in enumerate(facts.regions):
        most, size = (MAX_XXL, 0) if kind == XXL else (MAX_SLOTS, MAX_SLOT_BYTES)
        end = region.offset + region.count * region.stride
        if (region.count > most or region.bytes > size or region.bytes % 64
                or region.stride != SLOT_BYTES + region.bytes or region.offset % 64
                or region.offset < facts.regions[XXL].offset or end > facts.file_bytes):
            raise FormatError("%s: class %s has %d slots of %d bytes, %d apart, from byte %d on, "
                              "which does not go together" % (
                                  (path, CLASSES[kind], region.count, region.bytes, region.stride,
                                   region.offset)))
    _format._within(path, "max_holders", facts.max_holders, 1, MAX_HOLDERS)
    slots = sum(region.count for region in facts.regions)
    counts = FILE_BYTES + HOLDER_BYTES * facts.max_holders
    if (facts.slots != slots or facts.holders_offset != FILE_BYTES or facts.counts_offset != counts
            or counts + 8 * facts.max_holders * slots > facts.regions[XXL].offset):
        raise FormatError("%s: the place or number of its holders does not go with %d slots"
                          % (path, slots))


def _compare_exchange():
    """libatomic's, or None."""
    try:
        function = getattr(ctypes.CDLL("libatomic.so.1"), "__atomic_compare_exchange_8")
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int,
                         ctypes.c_int]
    function.restype = ctypes.c_bool
    return function


class Payload:
    """A payload that this Pool holds: what Pool.retain gives. A context manager.

    data    its bytes in place, a read-only array of uint8; .view(dtype) makes others of it
    ref, length, type

    release() (or the end of the `with` block) ends the use of this object. The payload itself is
    given back when no array looks at it any longer.
    """

    def __init__(self, root, ref, kind):
        self._root, self.ref, self.length, self.type = root, ref, len(root), kind

    @property
    def data(self):
        if self._root is None:
            raise NotOpen("the payload %#x was released" % self.ref)
        return self._root[:]

    def release(self):
        self._root = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.release()

    def __len__(self):
        return self.length


class Pool:
    """A pool opened by name or path: Pool.attach("frames"). A context manager.

        with cbuf.Pool.attach("frames") as pool:
            frame = pool.payload(row["frame"])              # a copy, in an array of uint8
            with pool.retain(row["frame"]) as payload:      # in place
                print(payload.type, payload.data[:100].mean())

    Both raise Stale if the payload is gone: all who held it gave it back. To copy takes read
    permission only; to retain makes this process one of the pool's holders, and takes write
    permission. Several threads may use a Pool. It does not survive a fork.
    """

    def __init__(self, name, any_owner=False, holder="python"):
        _require_ordered_loads()
        self.path = path_of(name)
        self._any_owner, self._holder, self._pid = any_owner, holder, os.getpid()
        self._mutex, self._fd, self._entry, self._held = threading.RLock(), None, None, {}
        self._retaining, self._dropped = False, []
        fd = _open_file(self.path)
        try:
            status = os.fstat(fd)
            _check_file(self.path, status, any_owner)
            self._identity = status.st_dev, status.st_ino
            self.facts = parse_facts(os.pread(fd, FACTS_BYTES, 0), status.st_size, self.path)
            self._memory = self._map(fd, self.facts.file_bytes, mmap.PROT_READ)
        except Error:
            raise
        except OSError as error:
            raise Error("%s: cannot be read: %s" % (self.path, error.strerror)) from None
        finally:
            os.close(fd)
        self._load = np.frombuffer(self._memory, np.uint64, self.facts.file_bytes // 8).item

    attach = classmethod(lambda cls, name, **options: cls(name, **options))

    def _map(self, fd, size, protection):
        try:
            return mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=protection)
        except (OSError, ValueError) as error:
            raise Error("%s: cannot be mapped: %s" % (self.path, error)) from None

    def close(self):
        """Gives back what no array looks at any longer, and ends the use of the Pool. What arrays
        still look at is given back with the last of them."""
        with self._mutex:
            self._load = self._not_open
            if self._entry is not None and not self._held:
                self._leave()

    def __del__(self):
        if hasattr(self, "_load"):
            self.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    def _not_open(self, *arguments):
        raise NotOpen("%s: this Pool was closed" % self.path)

    # ---- slots ----

    def _slot(self, ref):
        """-> class, index and the place in the file of a ref, which may be any number."""
        ref = int(ref)
        kind, index = (ref >> 24 & 255) - 1, ref & 0xffffff
        if not 0 <= ref < 1 << 64 or not 0 <= kind <= XXL:
            raise FormatError("%s: %#x is no ref" % (self.path, ref))
        region = self.facts.regions[kind]
        if index >= region.count:
            raise FormatError("%s: the ref %#x says slot %d of class %s, which has %d"
                              % (self.path, ref, index, CLASSES[kind], region.count))
        return kind, index, region.offset + index * region.stride

    def _check_alive(self, ref, state):
        if state >> 32 != int(ref) >> 32 or not state & HOLDERS or state & GOING:
            raise Stale("%s: the payload of %#x is gone: all who held it gave it back"
                        % (self.path, ref))

    def _bytes_of(self, kind, index, place, length):
        """The payload's bytes in place, as an array on a read-only mapping."""
        region = self.facts.regions[kind]
        if kind != XXL:
            return np.frombuffer(self._memory, np.uint8, min(length, region.bytes),
                                 place + SLOT_BYTES)
        path = "%s.xxl%d" % (self.path, index)
        fd = _open_file(path)
        try:
            status = os.fstat(fd)
            _check_file(path, status, self._any_owner)
            if not length <= status.st_size:
                raise FormatError("%s: has %d bytes, its slot says %d"
                                  % (path, status.st_size, length))
            if not length:
                return np.empty(0, np.uint8)
            return np.frombuffer(self._map(fd, length, mmap.PROT_READ), np.uint8)
        finally:
            os.close(fd)

    def payload(self, ref):
        """A copy of a payload, an array of uint8; raises Stale if it is gone."""
        kind, index, place = self._slot(ref)
        self._check_alive(ref, self._load(place // 8))
        try:
            copy = self._bytes_of(kind, index, place, self._load(place // 8 + 1)).copy()
        except (NotFound, FormatError):
            self._check_alive(ref, self._load(place // 8))
            raise
        state = self._load(place // 8)  # in this order: first copy, then look
        if kind == XXL:  # a file's name may be the next payload's already
            self._check_alive(ref, state)
        elif state >> 32 != int(ref) >> 32:
            self._check_alive(ref, state)
        return copy

    def type(self, ref):
        """The number that its producer gave the payload for a type; raises Stale."""
        kind, index, place = self._slot(ref)
        number = self._load(place // 8 + 2)
        self._check_alive(ref, self._load(place // 8))
        return number & 0xffffffff

    def retain(self, ref):
        """Holds a payload: Payload, in place. Raises Stale if it is gone."""
        kind, index, place = self._slot(ref)
        with self._mutex:
            self._load(0)  # or it was closed
            if os.getpid() != self._pid:
                raise NotOpen("%s: this Pool belongs to the parent process" % self.path)
            if self._entry is None:
                self._join()
            self._retaining = True
            try:
                return self._hold(int(ref), kind, index, place)
            finally:
                self._retaining = False
                while self._dropped:
                    self._give_back(self._dropped.pop())

    def _hold(self, ref, kind, index, place):
        if not self._held.get(ref):
            while True:
                state = self._load(place // 8)
                self._check_alive(ref, state)
                if self._exchange(place, state, state | self._bit):
                    break
        self._held[ref] = self._held.get(ref, 0) + 1
        try:
            root = self._bytes_of(kind, index, place, self._load(place // 8 + 1))
        except Error:
            self._dropped.append(ref)
            raise
        weakref.finalize(root, self._give_back, ref).atexit = False
        return Payload(root, ref, self._load(place // 8 + 2) & 0xffffffff)

    # ---- as a holder ----

    def _exchange(self, place, expected, desired):
        """Whether the word at that place was as expected, and is as desired now."""
        word = ctypes.c_uint64(expected)
        return self._atomic(self._address + place, ctypes.byref(word), desired, 4, 0)  # acq_rel

    def _give_back(self, ref):
        with self._mutex:
            if self._retaining:  # the garbage collector ran in the middle of it
                self._dropped.append(ref)
                return
            if os.getpid() != self._pid or not self._held.get(ref):
                return
            self._held[ref] -= 1
            if not self._held[ref]:
                del self._held[ref]
                kind, index, place = self._slot(ref)
                self._clear(kind, index, place, self._bit)
            if not self._held and self._load == self._not_open:
                self._leave()

    def _clear(self, kind, index, place, bit):
        """Takes a holder's bit away."""
        while True:
            state = int(self._words[place // 8])
            if not state & bit:
                return
            left = state & ~bit
            last = kind == XXL and not left & HOLDERS
            if self._exchange(place, state, state | GOING if last else left):
                break
        if last:
            try:
                os.unlink("%s.xxl%d" % (self.path, index))
            except OSError:
                pass
            self._exchange(place, state | GOING, state >> 32 << 32)

    def _lock(self, entry, kind):
        """Locks an entry's byte of the file: whether nobody else has."""
        query = struct.pack(_FLOCK, kind, os.SEEK_SET, entry, 1, 0)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, query)
            return True
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise Error("%s: cannot be locked: %s" % (self.path, error.strerror)) from None

    def _kind(self, entry):
        word = (FILE_BYTES + HOLDER_BYTES * entry) // 8
        return int(self._words[word + 1]) if int(self._words[word]) else NOBODY

    def _join(self):
        """Becomes a holder, as cbuf__join does."""
        self._atomic = _compare_exchange()
        if self._atomic is None:
            raise Error("%s: payloads can only be copied here, as there is no libatomic.so.1 "
                        "(Debian: libatomic1)" % self.path)
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise NotPermitted("%s: to retain takes permission to write: %s"
                               % (self.path, error.strerror)) from None
        status = os.fstat(self._fd)
        if (status.st_dev, status.st_ino) != self._identity:
            os.close(self._fd)
            raise _format.Retired("%s: was replaced: attach again" % self.path)
        shared = self._map(self._fd, self.facts.file_bytes, mmap.PROT_READ | mmap.PROT_WRITE)
        self._words = np.frombuffer(shared, np.uint64, self.facts.file_bytes // 8)
        self._address = self._words.ctypes.data
        for wanted in (NOBODY, PROCESS):
            for entry in range(self.facts.max_holders):
                if self._kind(entry) != wanted or not self._lock(entry, fcntl.F_WRLCK):
                    continue
                if (self._kind(entry) == wanted and not int(self._words[STATE // 8])
                        and not self._has_in_hand(entry)):
                    return self._enter(entry, wanted)
                self._lock(entry, fcntl.F_UNLCK)
        os.close(self._fd)
        raise Error("%s: all %d holders' entries are taken" % (self.path, self.facts.max_holders))

    def _has_in_hand(self, entry):
        """Whether a dead producer left something to be settled in a ring of several. That is for
        who writes such rings, see [pool-rows] of cbuf_pool.h."""
        first, slots = self.facts.counts_offset // 8, self.facts.slots
        for ring in range(self.facts.max_holders):
            if self._kind(ring) == RING_OF_MANY:
                owners = self._words[first + slots * ring:first + slots * (ring + 1)].copy()
                steps, holders = owners >> np.uint64(35) & np.uint64(7), owners >> np.uint64(30)
                mine = holders & np.uint64(31) == entry
                if np.any(mine & (steps != 0) & (steps != OWNED)):
                    return True
        return False

    def _enter(self, entry, was):
        word = (FILE_BYTES + HOLDER_BYTES * entry) // 8
        self._bit, self._entry = 1 << entry, entry
        if was == PROCESS:  # a dead one's
            self._sweep()
            self._words[word] = 0
        name = self._holder.encode("utf-8", "replace")[:191]
        self._words[word + 8:word + 32] = np.frombuffer(name.ljust(192, b"\0"), np.uint64)
        self._words[word + 2] = self._pid
        self._words[word + 3] = time.time_ns()
        self._words[word + 1] = PROCESS
        self._words[word] = 1

    def _sweep(self):
        for kind, region in enumerate(self.facts.regions):
            for index in np.nonzero(self._states(kind) & np.uint64(self._bit))[0].tolist():
                self._clear(kind, index, region.offset + index * region.stride, self._bit)

    def _leave(self):
        word = (FILE_BYTES + HOLDER_BYTES * self._entry) // 8
        if os.getpid() == self._pid:
            self._sweep()
            self._words[word + 1] = NOBODY
            self._words[word] = 0
        os.close(self._fd)
        self._fd = self._entry = None

    # ---- observing ----

    def _states(self, kind):
        """The states of a class's slots, a copy."""
        region = self.facts.regions[kind]
        if not region.count:
            return np.empty(0, np.uint64)
        return np.ndarray(region.count, np.uint64, self._memory, region.offset,
                          (region.stride,)).copy()

    def classes(self):
        """A list of Class: name, bytes, count, free, held; free + held = count."""
        self._load(0)
        held = [int(np.count_nonzero(self._states(kind) & np.uint64(0xffffffff)))
                for kind in range(len(CLASSES))]
        return [Class(CLASSES[kind], region.bytes, region.count, region.count - held[kind],
                      held[kind]) for kind, region in enumerate(self.facts.regions)]

    def held(self):
        """All payloads that somebody holds, a list of Held: ref, kind (its class), index, length,
        type, holders (their indices)."""
        self._load(0)
        found = []
        for kind, region in enumerate(self.facts.regions):
            states = self._states(kind)
            for index in np.nonzero(states & np.uint64(HOLDERS))[0].tolist():
                state = int(states[index])
                word = (region.offset + index * region.stride) // 8
                found.append(Held(state >> 32 << 32 | kind + 1 << 24 | index, CLASSES[kind], index,
                                  self._load(word + 1), self._load(word + 2) & 0xffffffff,
                                  [k for k in range(MAX_HOLDERS) if state >> k & 1]))
        return found

    def holders(self):
        """The holders, a list of Holder: index, name, pid, ring (it is a ring's rows), alive (by
        the kernel's word; None: this process may not look), slots and bytes that it holds."""
        held, found = self.held(), []
        for entry in range(self.facts.max_holders):
            word = (FILE_BYTES + HOLDER_BYTES * entry) // 8
            if not self._load(word):
                continue
            name = bytes(self._memory[8 * word + 64:8 * word + HOLDER_BYTES]).split(b"\0")[0]
            mine = [each for each in held if entry in each.holders]
            found.append(Holder(
                entry, _format.printable(name), self._load(word + 2), self._load(word + 1) >= RING,
                self._alive(entry), len(mine), sum(each.length for each in mine),
                self._load(word + 3)))
        return found

    def _alive(self, entry):
        if entry == self._entry:
            return True
        try:
            fd = _open_file(self.path)
        except Error:
            return None
        try:
            query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, entry, 1, 0)
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query)
            return struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK
        except OSError:
            return None
        finally:
            os.close(fd)
