# SPDX-License-Identifier: MIT
"""The command line: python3 -m cbuf ls | info | tail | stats | log | pool | advise."""
import argparse
import itertools
import os
import sys
import time

import numpy as np

from . import Error, Retired, _advise as _advise_module, open as open_ring, read_log
from ._format import HEADER_BYTES, MAGIC, printable
from ._pool import Pool
from ._ring import SHM


def main(arguments=None):
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        print(end="", flush=True)
    except Error as error:
        sys.exit("cbuf: %s" % error)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `| head` has seen enough
        _drop_output()
    except OSError as error:  # of what is written, or of a directory
        where = "cbuf: %s: " % error.filename if error.filename else "cbuf: "
        print(where + error.strerror, file=sys.stderr)
        try:
            print(end="", flush=True)
        except OSError:
            _drop_output()
        sys.exit(1)


def _drop_output():
    """Nothing can be printed any longer, nor fail at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser():
    parser = argparse.ArgumentParser(prog="python3 -m cbuf", description="Looks at cbuf rings.")
    commands = parser.add_subparsers(metavar="command", required=True)
    command = commands.add_parser("ls", help="list the rings in a directory")
    command.add_argument("directory", nargs="?", default=SHM, help="default: %(default)s")
    command.set_defaults(run=_ls)
    command = commands.add_parser("advise", help="propose delta columns from a sample of rows")
    command.add_argument("source", help="a ring's name, or FILE.npy (structured), or FILE.csv whose "
                         "first line names the columns")
    command.set_defaults(run=_advise)
    for run, text in ((_info, "print a ring's columns and geometry"),
                      (_tail, "print a ring's last rows"),
                      (_stats, "print a ring's counters and its registered readers"),
                      (_pool, "print a pool's classes, and who holds what")):
        command = commands.add_parser(run.__name__[1:], help=text)
        command.add_argument("name", help="name in %s, or an absolute path" % SHM)
        command.add_argument("--any-owner", action="store_true",
                             help="accept a file of a user other than this one and root")
        command.set_defaults(run=run)
        if run is _tail:
            command.add_argument("-n", type=_rows, default=10,
                                 help="how many; default: %(default)s")
            command.add_argument("-f", action="store_true", help="go on as more rows come")
    command = commands.add_parser(
        "log", help="check the file of a spill or of a log of every row",
        description="Tells what is in it. Exit status 1 if it does not end with a whole record.")
    command.add_argument("file")
    command.add_argument("--npy", metavar="TO", help="write the rows to a file of NumPy's")
    command.add_argument("--any-owner", action="store_true",
                         help="accept a file of a user other than this one and root")
    command.set_defaults(run=_log)
    return parser


def _rows(text):
    if not text.isdigit():
        raise argparse.ArgumentTypeError("must be 0 or more")
    return int(text)


def _table(rows):
    """Prints rows of cells in columns, numbers to the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    right = [all(row[k].lstrip("-").isdigit() for row in rows[1:]) for k in range(len(widths))]
    for row in rows:
        print("  ".join(cell.rjust(width) if to_right else cell.ljust(width)
                        for cell, width, to_right in zip(row, widths, right)).rstrip())


def _producer(ring):
    """In a word, how a ring's producer is."""
    alive = ring.producer_alive()
    if alive:
        return "alive"
    if ring.state != "open":
        return "-"
    return "unknown" if alive is None else "dead"


def _producers(ring):
    """The table of many producers, and whom readers wait for."""
    producers = ring.producers()
    _table([("producer", "alive", "since", "rows in the pen", "published behind them")] + [
        (pen.pid, "unknown" if pen.alive is None else "yes" if pen.alive else "no",
         _time(pen.started_ns), pen.end - pen.begin, pen.behind) for pen in producers])
    waited_for = [pen for pen in producers if pen.behind and pen.begin < pen.end]
    if waited_for:
        pen = min(waited_for, key=lambda pen: pen.begin)
        print("readers wait for rows %d to %d of producer %d%s" % (
            pen.begin, pen.end - 1, pen.pid, ", which is dead" if pen.alive is False else ""))


def _ls(options):
    lines = [("name", "layout", "capacity", "stride", "head", "state", "producer")]
    broken = []
    for name in sorted(os.listdir(options.directory)):
        path = os.path.join(os.path.abspath(options.directory), name)
        if not _starts_like_a_ring(path):
            continue
        try:
            with open_ring(path, any_owner=True) as ring:
                lines.append((printable(os.fsencode(name)), ring.schema["layout"], ring.capacity,
                              ring.facts.stride, ring.head, ring.state, _producer(ring)))
        except Error as error:
            broken.append(error)
    _table(lines)
    for error in broken:
        print("broken: %s" % printable(os.fsencode(str(error))))


def _starts_like_a_ring(path):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.read(fd, HEADER_BYTES)[:len(MAGIC)] == MAGIC
    except OSError:
        return False
    finally:
        os.close(fd)


def _info(options):
    with open_ring(options.name, options.any_owner) as ring:
        facts = ring.facts
        _table([("path", ring.path), ("format", "%d.%d" % (facts.major, facts.minor)),
                ("layout", ring.schema["layout"]), ("capacity", "%d rows" % ring.capacity),
                ("row", "%d bytes, %d apart" % (facts.row_bytes, facts.stride)),
                *_sizes(ring),
                ("rows at", "byte %d of %d" % (ring.offset, facts.file_bytes)),
                ("when full", ("overwrite", "block", "drop newest", "spill")[facts.on_full]),
                ("created", _time(facts.created_ns)), ("state", ring.state),
                ("producer", _producer(ring)), ("producers", "%d at most" % (facts.producers or 1)),
                ("head", "row %d" % ring.head)])
        print()
        if facts.producers > 1:
            _producers(ring)
            print()
        escapes = ring.escapes()
        lines = [("column", "type", "offset", "delta", "step", "escapes")]
        for column in ring.schema["columns"]:
            step = column.get("step")
            lines.append((column["name"], column["type"], column["offset"],
                          "%d bits" % column["delta"] if "delta" in column else "-",
                          "%g" % (step[0] / step[1]) if step else "-",
                          _rate(escapes.get(column["name"]), ring.head)))
        _table(lines if escapes else [line[:3] for line in lines])


def _sizes(ring):
    """Both sizes of rows with delta columns: what a row takes, bases and made pages of the escape
    plane included, and what it would take as it is."""
    if not ring.escapes():
        return ()
    stored, pages = ring.stored_bytes()
    return (("stored", "%.2f bytes a row with bases and %d pages of escapes, plain %d"
             % (stored, pages, ring.facts.row_bytes)),
            ("blocks", "%d rows" % ring.facts.block_rows))


def _rate(count, rows):
    return "-" if count is None else "%d (%.3g %%)" % (count, 100 * count / max(1, rows))


def _advise(options):
    rows = _advise_module.load(options.source)
    advice = _advise_module.advise(rows)
    _table([("column", "type", "delta", "step", "escapes", "bytes a row")] + [
        (one.name, str(rows.dtype[one.name]), "%d bits" % one.bits if one.bits else "-",
         "%g" % one.step if one.step else "-", "%.3g %%" % (100 * one.escapes) if one.bits else "-",
         "%.2f" % one.bytes) for one in advice.columns])
    print("\nblocks of %d rows; %.1f bytes a row instead of %d%s" % (
        advice.block_rows, advice.bytes, advice.plain,
        ", in the dense layout" if advice.worth else ": plain rows are best"))
    if advice.worth:
        print("static const cbuf_delta deltas[] = { %s };" % ", ".join(
            '{ "%s", %d, %s }' % (one.name, one.bits, repr(one.step) if one.step else "0")
            for one in advice.columns if one.bits))


def _time(ns):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 1000000000))


def _tail(options):
    with open_ring(options.name, options.any_owner) as ring:
        names = ring.dtype.names
        print("\t".join(itertools.chain(("sequence",), names)))
        if not options.f:
            return _print(ring.last(options.n))
        try:
            for rows in ring.follow(-options.n if options.n else "newest"):
                _print(rows)
                print(end="", flush=True)
        except Retired as end:
            print("# %s" % end, file=sys.stderr)


def _print(rows):
    if rows.lost:
        print(end="", flush=True)
        print("# %d rows lost" % rows.lost, file=sys.stderr)
    if rows.skipped:
        print(end="", flush=True)
        print("# %d rows given up by a producer" % rows.skipped, file=sys.stderr)
    columns = [_texts(rows[name]) for name in rows.dtype.names]
    for sequence, cells in zip(rows.sequence.tolist(), zip(*columns)):
        print("\t".join(itertools.chain((str(sequence),), cells)))


def _texts(column):
    if column.dtype.kind == "S":
        return map(printable, column.tolist())
    if column.dtype.kind == "M":
        return map(str, column)
    return map(str, column.tolist())


def _stats(options):
    with open_ring(options.name, options.any_owner) as ring:
        counters = ring.stats()
        counters["producer"] = _producer(ring)
        _table(counters.items())
        if ring.facts.producers > 1:
            print()
            _producers(ring)
        try:
            readers = ring.readers()
        except Error as error:
            return print("readers: unknown (%s)" % error)
        print()
        _table([("reader", "pid", "cursor", "lag", "lost", "gate", "active")] + [
            (reader.name, reader.pid, _or_dash(reader.cursor), _or_dash(reader.lag), reader.lost,
             "demoted" if reader.demoted else "yes" if reader.gate else "no",
             _time(reader.active_ns))
            for reader in readers])


def _log(options):
    log = read_log(options.file, options.any_owner)
    _table([("path", log.path), ("kind", "every row" if log.every_row else "spill"),
            ("created", _time(log.created_ns)), ("rows", len(log.rows)),
            ("sequence", "%d to %d" % (log.sequences[0], log.sequences[-1]) if len(log.rows)
             else "-"),
            ("records", "%d, %d bytes" % (log.records, log.bytes)),
            ("columns", " ".join(log.rows.dtype.names)),
            ("cut off", "%d bytes: %s" % (log.cut, log.why) if log.cut else "nothing")])
    if options.npy:
        np.save(options.npy, log.rows)
    if log.cut:
        print(end="", flush=True)
        sys.exit(1)


def _pool(options):
    with Pool.attach(options.name, any_owner=options.any_owner) as pool:
        _table([("class", "bytes", "slots", "free", "held")] + [
            (each.name, each.bytes or "a file each", each.count, each.free, each.held)
            for each in pool.classes()])
        print()
        _table([("holder", "name", "kind", "pid", "state", "payloads", "bytes")] + [
            (each.index, each.name, "ring" if each.ring else "process", each.pid,
             {True: "alive", False: "no producer" if each.ring else "dead", None: "unknown"}[each.alive],
             each.slots, each.bytes)
            for each in pool.holders()])
        held = pool.held()
        if held:
            print()
            _table([("ref", "class", "slot", "bytes", "type", "holders")] + [
                ("%016x" % each.ref, each.kind, each.index, each.length, each.type,
                 ",".join(map(str, each.holders))) for each in held])


def _or_dash(number):
    return "-" if number is None else number


if __name__ == "__main__":
    main()
