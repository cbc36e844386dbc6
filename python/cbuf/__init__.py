# SPDX-License-Identifier: MIT
"""Reads cbuf rings, typed rows in shared memory, as NumPy arrays. Pure Python; needs NumPy.

    import cbuf
    ring = cbuf.open("ticks")               # /dev/shm/ticks; or an absolute path
    rows = ring.last(1000)                  # a structured array: rows["bid"].mean()
    print(rows.first, rows.lost)            # the first row's sequence number; how many are missing
    for rows in ring.follow("newest"):      # all rows from now on, each delivered or counted
        print(len(rows), rows.lost, rows["bid"].max())
    async for rows in ring.watch():         # the same in an asyncio event loop, woken, not polled
        ...

A Ring observes: it maps the file read-only, takes no reader slot and holds nobody up. Every copy is
checked against the producer's marks after it was made: a row is delivered whole or not at all, and
what was overwritten is counted exactly, as `lost`; what one of many producers has given up, as
`skipped`. Rows are known by their sequence numbers, from 0 on since the ring was created.

    ring[i], ring[-1]      one row, a copy; raises Lapped if it is overwritten
    ring[a:b], ring[-n:]   Rows: those that are still there of the ones asked for; .first, .lost
    ring.view(n)           the last n rows in place, no copy, to be checked after use
    ring.to_pandas(n)      a DataFrame, with the sequence numbers as its index
    ring.schema, ring.dtype, ring.offset, ring.capacity      what numpy.memmap needs, see Ring
    ring.head, ring.oldest, ring.state, ring.epoch, ring.stats(), ring.readers(), ring.producers(),
    ring.escapes()

Rows with delta columns come decoded, with the dtype of plain rows; only view() is not for them.

    cbuf.read_log(path)    the rows of a spill's file or of a log of every row, checked

Payloads of a pool (include/cbuf_pool.h), which rows name in columns of type ref:

    pool = cbuf.Pool.attach("frames")
    frame = pool.payload(row["frame"])      # a copy, or
    with pool.retain(row["frame"]) as payload: ...      # payload.data: in place, read-only

On the command line: python3 -m cbuf ls | info NAME | tail [-f] NAME | stats NAME | log FILE |
pool NAME | advise NAME or FILE.npy or FILE.csv


WHAT IT CANNOT DO. It needs an x86-64 processor, whose loads stay in order; on others it refuses,
for Python cannot issue the fence that they need. A follower polls: it sees rows up to a
millisecond late, and is lapped where it is slower than the producer for longer than the ring is
long. It cannot give up what a dead one of many producers had claimed: it waits for a reader in C or
the next producer to do that. The owner of a file can truncate it under a reader, who then gets
SIGBUS.
"""
from ._format import (ByteOrderError, Error, FeatureError, FormatError, Lapped, NotFound,
                      NotOpen, NotPermitted, ProcessorError, Producer, Reader, Retired,
                      SchemaError, Stale, VersionError)
from ._log import Log, read_log
from ._pool import Payload, Pool
from ._ring import Ring, Rows, View

__version__ = "1.0.0"
__all__ = ["ByteOrderError", "Error", "FeatureError", "FormatError", "Lapped", "Log", "NotFound",
           "NotOpen", "NotPermitted", "Payload", "Pool", "ProcessorError", "Producer", "Reader",
           "Retired", "Ring", "Rows", "SchemaError", "Stale", "VersionError", "View", "open", "read_log"]


def open(name, any_owner=False):
    """Opens a ring to read, by the name or path that it was created with: "ticks" is
    /dev/shm/ticks. -> Ring, which is a context manager.

    The file must be a regular one and belong to this user or to root; any_owner=True accepts
    others'. Everything in it is checked before it is used; what is wrong raises an Error (NotFound,
    NotPermitted, FormatError and its kinds), whose text names file, value and limit.
    """
    return Ring(name, any_owner)
