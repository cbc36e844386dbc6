"""The Python reader of rings with many producers, in C, in another process."""
import os
import re
import subprocess
import threading
import uuid

import numpy as np
import pytest

import cbuf
from cbuf.__main__ import main

HERE = os.path.dirname(os.path.abspath(__file__))
INCLUDE = os.path.join(HERE, "..", "..", "include")
OVERWRITE, BLOCK = 0, 1


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("writer") / "many_writer")
    subprocess.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-I", INCLUDE,
                    os.path.join(HERE, "many_writer.c"), "-o", path], check=True)
    return path


class Producers:
    """A process with two producers, and more for a while; see many_writer.c."""

    def __init__(self, program, path, capacity, producers, on_full):
        self.process = subprocess.Popen([program, path, str(capacity), str(producers), str(on_full)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == 0

    def _answer(self):
        return int(self.process.stdout.readline())

    def begin(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def do(self, command):
        self.begin(command)
        return self._answer()

    def write(self, k, n):
        assert self.do("w %d %d" % (k, n)) == n

    def claim(self, k, n):
        assert self.do("c %d %d" % (k, n)) == n

    def publish(self, k, n):
        assert self.do("p %d %d" % (k, n)) == n

    def give_up(self, k, n):
        self.claim(k, n)
        self.publish(k, 0)

    def close(self):
        self.process.communicate("q\n", timeout=60)
        assert self.process.returncode == 0

    def kill(self):
        self.process.kill()
        self.process.communicate(timeout=60)


@pytest.fixture
def producers(program):
    """Starts processes that produce into one ring in /dev/shm, which is gone after the test."""
    name = "cbuf-test-%s" % uuid.uuid4().hex
    processes = []

    def start(capacity=16, producers=4, on_full=OVERWRITE):
        processes.append(Producers(program, "/dev/shm/" + name, capacity, producers, on_full))
        return name, processes[-1]

    yield start
    for each in processes:
        if each.process.poll() is None:
            each.kill()
        each.process.stdin.close()
        each.process.stdout.close()
    for suffix in ("", ".readers", ".lock"):
        if os.path.exists("/dev/shm/" + name + suffix):
            os.unlink("/dev/shm/" + name + suffix)


def whole(rows):
    """Whether each row is one that its producer wrote; see next_row in many_writer.c."""
    mixed = (rows["n"] * np.uint64(256) + rows["producer"] + np.uint64(1)) * np.uint64(0x9e3779b97f4a7c15)
    return bool((rows["mixed"] == mixed).all() and (rows["time"].astype(np.uint64) == rows["n"] * np.uint64(1000)).all())


def names(rows):
    """Which rows these are: (producer, number)."""
    assert whole(rows)
    return list(zip(rows["producer"].tolist(), rows["n"].tolist()))


def test_the_schema_names_what_belongs_to_many_producers(producers):
    name, process = producers()
    with cbuf.open(name) as ring:
        assert ring.schema["producers"] == 4 == ring.facts.producers == ring.stats()["producers"]
        assert ring.schema["claim_offset"] == 768
        assert ring.schema["pens_offset"] % 128 == 0 and ring.schema["pens_offset"] < ring.offset
        assert (ring.head, len(ring), ring.epoch) == (0, 0, 2)
        process.write(0, 3)
        process.write(1, 2)
        assert ring.head == 5 and names(ring.last()) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


@pytest.mark.parametrize("laps", [0, 1, 3])
def test_head_stops_at_the_first_row_that_is_not_published(producers, laps):
    name, process = producers()
    with cbuf.open(name) as ring:
        process.write(1, 16 * laps + 2)
        at = 16 * laps + 2
        process.claim(0, 2)
        process.write(1, 3)
        assert ring.head == at
        assert next(ring.follow(at, timeout=0), None) is None
        process.publish(0, 2)
        assert ring.head == at + 5
        assert names(ring[at:]) == [(0, 0), (0, 1)] + [(1, at + k) for k in range(3)]


def test_rows_given_up_are_left_out_and_counted(producers):
    name, process = producers(capacity=64)
    with cbuf.open(name) as ring:
        process.give_up(0, 2)                                # 0, 1
        process.write(1, 2)                                  # 2, 3
        process.claim(0, 4)                                  # 4 to 7
        process.publish(0, 1)
        process.write(1, 1)                                  # 8
        process.give_up(0, 2)                                # 9, 10
        assert ring.head == 11 and ring.stats()["aborted"] == 7
        everything = ring.last()
        assert names(everything) == [(1, 0), (1, 1), (0, 2), (1, 2)]
        assert everything.sequence.tolist() == [2, 3, 4, 8] and everything.first == 2
        assert (everything.lost, everything.skipped) == (0, 7)
        assert names(ring.last(3)) == [(1, 1), (0, 2), (1, 2)]
        assert names(ring.last(1)) == [(1, 2)] and ring.last(1).sequence.tolist() == [8]
        assert len(ring.last(0)) == 0 and names(ring.last(50)) == names(everything)
        assert ring[-1]["n"] == 2 and ring[-2]["producer"] == 0 and ring[8]["producer"] == 1
        with pytest.raises(IndexError, match="row 5 was given up"):
            ring[5]
        with pytest.raises(IndexError):
            ring[-5]
        part = everything[1:3]
        assert part.first == 3 and part.sequence.tolist() == [3, 4] and part.skipped == 0
        assert everything[2:].sequence.tolist() == [4, 8] and everything[2:].skipped == 3
        assert names(ring[3:9]) == [(1, 1), (0, 2), (1, 2)] and ring[3:9].skipped == 3
        got = list(ring.follow(timeout=0))
        assert sum(len(rows) for rows in got) == 4 and sum(rows.skipped for rows in got) == 7
        got = list(ring.follow(timeout=0, batch=1))
        assert [rows.first for rows in got] == [2, 3, 4, 8, 11] and [rows.skipped for rows in got] == [2, 0, 0, 3, 2]
        view = ring.view()
        assert sum((names(rows) for rows in view.parts), []) == names(everything)
        assert (view.first, len(view), view.skipped, view.valid()) == (2, 4, 7, True)


def test_a_lapped_follower_counts_what_it_lost(producers):
    name, process = producers()
    with cbuf.open(name) as ring:
        following = ring.follow(timeout=0.01)
        process.write(0, 2)
        assert names(next(following)) == [(0, 0), (0, 1)]
        process.give_up(1, 2)
        process.write(0, 40)
        rows = next(following)
        assert rows.first == 2 + rows.lost + rows.skipped and names(rows)[-1] == (0, 41)


@pytest.mark.parametrize("on_full", [OVERWRITE, BLOCK])
@pytest.mark.parametrize("capacity", [16, 4096, 65536])
def test_rows_read_lost_and_skipped_are_the_rows_claimed_and_none_is_torn(producers, capacity, on_full):
    name, process = producers(capacity, 6, on_full)
    with cbuf.open(name) as ring:
        following = ring.follow(batch=2048, poll=0.0001)
        process.begin("r 4 300000")
        ended = []
        thread = threading.Thread(target=lambda: (ended.append(process._answer()), process.close()))
        thread.start()
        at = read = 0
        newest = {}
        for rows in following:
            assert whole(rows)
            for producer in range(2, 6):
                mine = rows["n"][rows["producer"] == producer].astype(np.int64)
                if len(mine):
                    assert mine[0] > newest.get(producer, -1) and (np.diff(mine) > 0).all()
                    newest[producer] = mine[-1]
            if len(rows):
                assert len(rows.sequence) == len(rows) and rows.sequence[0] == rows.first
            assert (np.diff(rows.sequence) > 0).all()
            at += rows.lost + rows.skipped + len(rows)
            read += len(rows)
        thread.join()
        assert at == ended[0] == ring.head and read > 0 and ring.state == "closed"


def test_copies_and_views_of_a_ring_in_full_motion_are_whole(producers):
    name, process = producers(8192, 6)
    looks = valid = 0
    with cbuf.open(name) as ring:
        process.begin("r 4 3000000")
        thread = threading.Thread(target=process._answer)
        thread.start()
        while thread.is_alive() or not looks:
            for rows in (ring.last(1), ring.last(100), ring.last(), ring[-4000:-3900]):
                assert whole(rows) and (np.diff(rows.sequence) > 0).all()
                looks += len(rows) > 0
            view = ring.view(500)
            copies = [np.array(part) for part in view.parts]
            if view.valid():
                valid += len(view) > 0
                assert all(whole(rows) for rows in copies)
        thread.join()
        process.close()
    assert looks and valid


def test_a_producer_that_holds_readers_up_is_named(producers, capsys):
    name, process = producers()
    with cbuf.open(name) as ring:
        process.write(1, 1)
        process.claim(0, 2)
        process.write(1, 5)
        first, second = ring.producers()
        assert first.pid == second.pid == process.process.pid and first.alive and second.alive
        assert (first.begin, first.end, first.behind) == (1, 3, 5)
        assert second.begin == second.end and second.behind == 0
        for command in ("info", "stats"):
            main([command, name])
            text = capsys.readouterr().out
            assert "readers wait for rows 1 to 2 of producer %d\n" % first.pid in text
            assert re.search(r"rows in the pen +published behind", text)
        process.publish(0, 2)
        main(["info", name])
        assert "readers wait" not in capsys.readouterr().out
        process.claim(0, 2)
        process.write(1, 1)
        process.kill()
        assert [pen.alive for pen in ring.producers()] == [False, False] and ring.producer_alive() is False
        main(["info", name])
        assert "of producer %d, which is dead" % first.pid in capsys.readouterr().out
        following = ring.follow(ring.head, timeout=10)
        _, heir = producers()  # who sweeps up
        rows = next(following)
        assert (len(rows), rows.skipped) == (1, 2) and names(rows) == [(1, 6)]
        assert [pen.alive for pen in ring.producers()] == [True, True]
        heir.close()
        assert ring.producers() == []


def test_one_producer_is_listed_too(producers):
    name, process = producers()
    process.close()
    with cbuf.open(name) as ring:
        assert ring.producers() == [] and ring.state == "closed" and ring.producer_alive() is False


def test_damaged_facts_of_many_producers_are_refused(producers, tmp_path):
    name, process = producers()
    process.close()
    with open("/dev/shm/" + name, "rb") as file:
        good = file.read()
    path = str(tmp_path / "damaged")

    def opens(changes):
        bad = bytearray(good)
        for offset, value, size in changes:
            bad[offset:offset + size] = value.to_bytes(size, "little")
        with open(path, "wb") as file:
            file.write(bad)
        cbuf.open(path).close()

    opens([])
    for producers_, features in ((0, 16), (1, 16), (257, 16), (1 << 31, 16), (4, 0), (4, 16 | 1), (4, 16 | 4)):
        with pytest.raises(cbuf.FormatError):
            opens([(100, producers_, 4), (16, features, 8)])
    with pytest.raises(cbuf.FormatError, match="pens"):
        opens([(100, 256, 4)])
    text = good.index(b'"pens_offset":')
    with pytest.raises(cbuf.SchemaError, match="pens_offset"):
        opens([(text + 14, ord("9"), 1)])
