#!/usr/bin/env python3
"""Follows a ring with NumPy, from its oldest row until its producer closes it, and prints one line.

    PYTHONPATH=python python3 examples/numpy_reader.py ticks

Exit status: 0; 1 after an error or if rows were lost; 77 if this machine is not one that cbuf for
Python works on.

SPDX-License-Identifier: MIT
"""
import sys

import cbuf


def follow(name):
    rows = lost = batches = 0
    sums = {}
    with cbuf.open(name) as ring:
        numbers = [column for column in ring.dtype.names if ring.dtype[column].kind == "f"]
        try:
            for batch in ring.follow("oldest"):
                rows, lost, batches = rows + len(batch), lost + batch.lost, batches + 1
                for column in numbers:
                    sums[column] = sums.get(column, 0.0) + batch[column].sum()
        except cbuf.Retired:
            pass  # removed, after its last row was read
    means = ", ".join("mean %s %.4g" % (column, sums[column] / rows) for column in sums if rows)
    print("{:,} rows in {:,} batches, {:,} lost; {}".format(
        rows, batches, lost, means or "no float columns"))
    return 1 if lost else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: numpy_reader.py NAME-OR-PATH")
    try:
        sys.exit(follow(sys.argv[1]))
    except cbuf.ProcessorError as error:
        print("not run: %s" % error)
        sys.exit(77)
    except cbuf.Error as error:
        sys.exit("numpy_reader: %s" % error)
    except KeyboardInterrupt:
        sys.exit(130)
