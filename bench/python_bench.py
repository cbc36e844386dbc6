#!/usr/bin/env python3
"""The Python cases of bench/run: `python_bench.py PROGRAM CASE ... ms N` makes one run and prints "metric,value" lines.

Programs: py-memmap, a plain numpy.memmap of the same file, nothing checked (the limit); py-cbuf, the NumPy reader in python/;
py-queue, multiprocessing.Queue. Rows are 4 float64. Cases:

copy    the last 65,536 rows as an array of the caller's: us, median
follow  every row from another process, M rows/s. py-cbuf: a C producer runs free, and the reader delivers or counts; py-queue:
        a Python producer sends arrays of 256 rows, pickled, and row by row (rows_Mrows_per_s)
"""
import multiprocessing
import os
import statistics
import subprocess
import sys
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "python"))
FEED = os.path.join(os.path.dirname(HERE), "build", "bench", "feed.0")
ROWS = 65536
NOT_FOR_ME = 77


def report(metric, value):
    print("%s,%.6g" % (metric, value))


class Feed:
    """A C producer with a full ring, in another process, on the second processor."""

    def __init__(self, capacity, milliseconds=0):
        cpus = sorted(os.sched_getaffinity(0))
        self.name = "cbuf_bench_%d_0" % os.getpid()
        self.process = subprocess.Popen(
            [FEED, self.name, str(capacity), str(milliseconds)], text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpus[1 % len(cpus)]}))
        self.rows = self.written()
        os.sched_setaffinity(0, {cpus[0]})

    def go(self):
        self.process.stdin.write("\n")

    def written(self):
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def copy(program, milliseconds):
    import cbuf
    feed = Feed(2 * ROWS)
    with cbuf.open(feed.name) as ring:
        if program == "py-memmap":
            start = (ring.head - ROWS) % ring.capacity
            rows = np.memmap(ring.path, np.float64, "r", ring.offset, (ring.capacity, 4))
            take = lambda: np.array(rows[start:start + ROWS])
        elif program == "py-cbuf":
            take = lambda: ring.last(ROWS)
        else:
            feed.close()
            sys.exit(NOT_FOR_ME)
        assert len(take()) == ROWS
        times, end = [], time.perf_counter() + milliseconds / 1e3
        while len(times) < 20 or time.perf_counter() < end:
            begin = time.perf_counter()
            take()
            times.append(time.perf_counter() - begin)
    feed.close()
    report("copy_us", 1e6 * statistics.median(times))


def follow_ring(milliseconds):
    import cbuf
    feed, got, lost = Feed(1 << 20, milliseconds), 0, 0
    with cbuf.open(feed.name) as ring:
        rows = ring.follow("newest", timeout=0.05)
        feed.go()
        begin = end = time.perf_counter()
        for part in rows:
            got += len(part)
            lost += part.lost
            end = time.perf_counter()
        total = feed.written() - feed.rows
        assert got + lost == total, "read + lost is not what was written"
    feed.close()
    report("Mrows_per_s", got / (end - begin) / 1e6)
    report("delivered_percent", 100 * got / total)


def send(queue, item, until, pace):
    pace.wait()
    while time.time() < until.value:
        queue.put(item)
    queue.put(None)


def queue_rate(item, rows, milliseconds):
    context = multiprocessing.get_context("fork")
    queue, pace = context.Queue(64), context.Barrier(2)
    until = context.Value("d", time.time() + milliseconds / 1e3)
    child = context.Process(target=send, args=(queue, item, until, pace))
    child.start()
    pace.wait()
    begin, got = time.perf_counter(), 0
    while queue.get() is not None:
        got += rows
    rate = got / (time.perf_counter() - begin) / 1e6
    child.join()
    return rate


def follow_queue(milliseconds):
    report("Mrows_per_s", queue_rate(np.zeros((256, 4)), 256, 4 * milliseconds))
    report("rows_Mrows_per_s", queue_rate((0.0, 0.0, 0.0, 0.0), 1, 4 * milliseconds))


def main():
    program, case = sys.argv[1:3]
    options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
    milliseconds = int(options.get("ms", 30))
    if case == "copy":
        copy(program, milliseconds)
    elif program == "py-cbuf":
        follow_ring(milliseconds)
    elif program == "py-queue":
        follow_queue(milliseconds)
    else:
        sys.exit(NOT_FOR_ME)


if __name__ == "__main__":
    main()
