# SPDX-License-Identifier: MIT
"""Ring.watch: the rows of a ring as they come, in an asyncio event loop, without polling.

The producer looks, at no cost, whether anybody wishes to be woken, and then changes the times of the
ring's file if somebody watches it: an inotify(7) descriptor in the loop tells. cbuf_poll.h does the
same in C. Here is what Python can do of it: it cannot compare and exchange, so that it wishes for
the very next row (a plain store of 0, below every other wish), and cannot count itself in, so that
it says that somebody watches and never takes that back. The barrier that lets the producer go
without a fence is membarrier(2); where it, or the right to write NAME.readers, is missing, watch()
looks every millisecond.
"""
import asyncio
import ctypes
import mmap
import os
import struct

import numpy as np

from . import _format

_SYS_MEMBARRIER, _GLOBAL_EXPEDITED = 324, 1 << 1  # of x86-64, the only processor this package is for
_IN_ATTRIB = 4
_WANTED, _WATCHED = 128 // 8, 144 // 8  # words of NAME.readers: the event of the rows
_LONGEST_SLEEP, _SHORT_SLEEP = 1.0, 0.001


class _Event:
    """The ring's event of new rows, and a descriptor that tells of it."""

    def __init__(self, ring):
        self._ring, self.fd, self._table = ring, -1, None
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._open()
        except OSError:
            self.close()

    def _open(self):
        table = os.open(self._ring.path + ".readers", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            memory = mmap.mmap(table, _format.READERS_BYTES)
        finally:
            os.close(table)
        magic, ring_id = struct.unpack_from("=8sQ", memory)
        if magic != _format.READERS_MAGIC or ring_id != self._ring.facts.ring_id:
            raise OSError("not this ring's table of readers")
        self._table = np.frombuffer(memory, np.uint64)
        self._barrier()
        self.fd = self._call(self._libc.inotify_init1, os.O_NONBLOCK | os.O_CLOEXEC)
        self._call(self._libc.inotify_add_watch, self.fd, os.fsencode(self._ring.path), _IN_ATTRIB)
        self._table[_WATCHED] = 1

    def _call(self, function, *arguments):
        result = function(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def _barrier(self):
        self._call(self._libc.syscall, _SYS_MEMBARRIER, _GLOBAL_EXPEDITED, 0, 0)

    def arm(self):
        """Wishes to be woken by the next publication. What came before must be looked at after."""
        try:
            while os.read(self.fd, 4096):
                pass
        except BlockingIOError:
            pass
        self._table[_WANTED] = 0
        self._barrier()

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self._table = -1, None


class _Waiting:
    """The waiting of _follow(), which then says None instead of sleeping."""

    asynchronous = True

    def __init__(self, ring):
        self.ring, self.fate, self.head = ring, None, 0

    def over(self):
        pass

    def wait(self):
        return self.fate is None


async def watch(ring, cursor, batch):
    event, waiting, loop = _Event(ring), _Waiting(ring), asyncio.get_running_loop()
    try:
        for rows in ring._follow(cursor, batch, waiting):
            if rows is not None:
                yield rows
                await asyncio.sleep(0)  # a fast producer leaves the loop's other tasks their turn
            elif event.fd < 0:
                await asyncio.sleep(_SHORT_SLEEP)
                waiting.fate = ring._fate()
            else:
                event.arm()
                if ring._head() > waiting.head or ring._load(_format.STATE):
                    continue  # the second look
                came = loop.create_future()
                loop.add_reader(event.fd, lambda: came.done() or came.set_result(True))
                try:
                    await asyncio.wait_for(came, _LONGEST_SLEEP)
                except asyncio.TimeoutError:
                    waiting.fate = ring._fate()
                finally:
                    loop.remove_reader(event.fd)
    finally:
        event.close()
