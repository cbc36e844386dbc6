"""The Python reader against a producer in C, in another process, that does not wait for it."""
import os
import signal
import subprocess
import uuid

import numpy as np
import pytest

import cbuf

HERE = os.path.dirname(os.path.abspath(__file__))
INCLUDE = os.path.join(HERE, "..", "..", "include")
LAYOUTS = ("shared", "numbered", "dense")
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("writer") / "writer")
    subprocess.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-I", INCLUDE,
                    os.path.join(HERE, "writer.c"), "-o", path], check=True)
    return path


class Writer:
    def __init__(self, program, path, layout, capacity, batch, count):
        arguments = [program, path, layout, str(capacity), str(batch), str(count)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def running(self):
        return self.process.poll() is None

    def written(self):
        """Waits for its end; -> how many rows the ring has had."""
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return int(out)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


@pytest.fixture
def writer(program):
    """Starts writers into one ring in /dev/shm, which is gone after the test."""
    name = "cbuf-test-%s" % uuid.uuid4().hex
    writers = []

    def start(layout, capacity, batch, count):
        writers.append(Writer(program, "/dev/shm/" + name, layout, capacity, batch, count))
        return name, writers[-1]

    yield start
    for each in writers:
        if each.running():
            each.kill()
        each.process.stdin.close()
        each.process.stdout.close()
    for suffix in ("", ".readers", ".lock"):
        if os.path.exists("/dev/shm/" + name + suffix):
            os.unlink("/dev/shm/" + name + suffix)


def torn(rows):
    """How many of the rows are not the ones of their sequence numbers; see row_of in writer.c."""
    sequence = rows.sequence.astype(np.uint64)
    mixed = (sequence + np.uint64(1)) * np.uint64(0x9e3779b97f4a7c15)
    good = rows["time"].astype(np.uint64) == sequence * np.uint64(1000)
    good &= rows["price"] == sequence / 4
    good &= rows["mixed"] == mixed
    good &= rows["size"].view(np.uint32) == mixed >> np.uint64(32)
    return int(np.count_nonzero(~good))


@every_layout
def test_a_ring_made_in_c_opens_with_its_schema(writer, layout):
    name, process = writer(layout, 1024, 16, 2000)
    with cbuf.open(name) as ring:
        assert ring.path == "/dev/shm/" + name and ring.capacity == 1024 and ring.head == 0
        assert ring.schema["layout"] == ("dense" if layout == "dense" else "numbered")
        assert [(c["name"], c["type"], c["offset"]) for c in ring.schema["columns"]] == [
            ("time", "timestamp[ns]", 0), ("price", "float64", 8), ("mixed", "uint64", 16), ("size", "int32", 24)]
        assert ring.dtype.itemsize == (40 if layout == "numbered" else 32)
        assert ring.state == "open" and ring.producer_alive() is True and ring.epoch == 1
        assert ring.stats()["producer_pid"] == process.process.pid
        process.go()
        assert process.written() == ring.head == 2000
        assert ring.state == "closed" and ring.producer_alive() is False
        mapped = np.memmap(ring.path, dtype=ring.dtype, mode="r", offset=ring.offset, shape=ring.capacity)
        rows = ring.last()
        assert len(rows) == 2000 - ring.oldest and torn(rows) == 0
        at = rows.sequence % ring.capacity
        assert all(np.array_equal(mapped[at][column], rows[column]) for column in rows.dtype.names)


@every_layout
@pytest.mark.parametrize("capacity, batch, rows", [
    (2, 1, 2_000_000), (64, 1, 10_000_000), (4096, 1, 30_000_000), (65536, 1, 30_000_000),
    (4096, 256, 60_000_000), (65536, 256, 60_000_000), (65536, 20000, 60_000_000)])
def test_rows_read_and_rows_lost_are_the_rows_written_and_none_is_torn(writer, layout, capacity, batch, rows):
    name, process = writer(layout, capacity, batch, rows)
    with cbuf.open(name) as ring:
        following = ring.follow(batch=min(capacity, 8192), poll=0.0001)
        process.go()
        at = lost = 0
        for got in following:
            assert got.first == at + got.lost and torn(got) == 0
            at, lost = got.first + len(got), lost + got.lost
        assert at == rows == process.written()
        print("%s, capacity %d, batch %d: lost %.1f %%" % (layout, capacity, batch, 100 * lost / rows))


@every_layout
def test_a_ring_longer_than_the_run_loses_nothing(writer, layout):
    name, process = writer(layout, 1 << 20, 100, 1_000_000)
    with cbuf.open(name) as ring:
        following = ring.follow()
        process.go()
        assert sum(len(rows) for rows in following if not rows.lost and not torn(rows)) == 1_000_000


@every_layout
@pytest.mark.parametrize("batch", [1, 256])
def test_copies_and_views_of_a_ring_in_full_motion_are_whole(writer, layout, batch):
    name, process = writer(layout, 8192, batch, 40_000_000)
    looks = valid = 0
    with cbuf.open(name) as ring:
        process.go()
        while process.running() or not looks:
            for rows in (ring.last(1), ring.last(100), ring.last(), ring[-4000:-3900]):
                assert torn(rows) == 0
                looks += len(rows) > 0
            try:
                row = ring[-1]
                assert row["time"].astype(np.int64) == row["price"] * 4000
            except IndexError:
                pass
            view = ring.view(500)
            sums = sum(int(part["time"].astype(np.int64).sum()) for part in view.parts)
            if view.valid():
                valid += len(view) > 0
                assert sums == 1000 * sum(range(view.first, view.first + len(view)))
        process.written()
    assert looks and valid


@every_layout
def test_a_follower_goes_on_across_the_death_of_a_producer(writer, layout):
    name, process = writer(layout, 65536, 1, 0)
    with cbuf.open(name) as ring:
        following, at, heir = ring.follow(), 0, None
        process.go()
        for rows in following:
            assert rows.first == at + rows.lost and torn(rows) == 0
            at = rows.first + len(rows)
            if at > 1_000_000 and not heir:
                process.kill()
                assert ring.producer_alive() is False and ring.state == "open"
                _, heir = writer(layout, 65536, 1, 500_000)
                assert ring.epoch == 2
                heir.go()
        assert at == ring.head == heir.written()


def test_a_registered_reader_is_seen_with_its_lag(writer):
    name, process = writer("shared", 1024, 1, 50)
    process.go()
    process.written()
    name, process = writer("shared", 1024, 1, 50)
    with cbuf.open(name) as ring:
        reader, = ring.readers()
        assert (reader.name, reader.cursor, reader.lag, reader.lost) == ("risk", 10, 40, 0)
        assert reader.pid == process.process.pid and not reader.gate
        process.go()
        process.written()
        assert ring.readers() == []
