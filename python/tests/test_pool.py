"""Pools, made and written by a C program in another process."""
import gc
import os
import signal
import struct
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest

import cbuf
from cbuf import _pool
from cbuf.__main__ import main

HERE = os.path.dirname(os.path.abspath(__file__))
INCLUDE = os.path.join(HERE, "..", "..", "include")


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("pool") / "pool_writer")
    subprocess.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-I", INCLUDE,
                    os.path.join(HERE, "pool_writer.c"), "-o", path], check=True)
    return path


class Writer:
    def __init__(self, program, producers=1):
        self.pool = "cbuf-test-%s" % uuid.uuid4().hex
        self.ring = self.pool + "-rows"
        self.path = "/dev/shm/" + self.pool
        self.process = subprocess.Popen([program, self.pool, self.ring, str(producers)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def order(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def write(self, length, kind=7):
        return self.order("w %d %d" % (length, kind))

    def held(self):
        return self.order("h")

    def end(self):
        if self.process.poll() is None:
            self.process.communicate("q\n", timeout=60)
        for name in os.listdir("/dev/shm"):
            if name.startswith(self.pool):
                os.unlink("/dev/shm/" + name)


@pytest.fixture
def writer(program):
    made = Writer(program)
    yield made
    made.end()


@pytest.fixture
def writers(program):
    made = Writer(program, producers=2)
    yield made
    made.end()


def content(length, kind):
    return (np.arange(length) + kind).astype(np.uint8)


def test_payloads_named_by_rows_are_copied_whole(writer):
    lengths = (0, 1, 64, 65, 16384, 16385, 100000)
    with cbuf.Pool.attach(writer.pool) as pool, cbuf.open(writer.ring) as ring:
        for kind, length in enumerate(lengths):
            ref = writer.write(length, kind)
            row = ring[-1]
            assert row["payload"] == ref and ring.dtype["payload"] == np.uint64
            copy = pool.payload(row["payload"])
            assert copy.dtype == np.uint8 and np.array_equal(copy, content(length, kind))
            assert pool.type(ref) == kind
            copy += 1  # it is the caller's own
        assert pool.holders()[0].name == "camera"


def test_a_copy_is_of_a_class_that_is_unchanged_by_later_rows(writer):
    with cbuf.Pool.attach(writer.pool) as pool:
        for length in (10, 20000):
            refs = [writer.write(length, 1) for _ in range(3)]
            first = pool.payload(refs[0])
            for _ in range(8):
                writer.write(5, 9)
            with pytest.raises(cbuf.Stale, match="gone"):
                pool.payload(refs[0])
            with pytest.raises(cbuf.Stale):
                pool.retain(refs[0])
            with pytest.raises(cbuf.Stale):
                pool.type(refs[0])
            assert np.array_equal(first, content(length, 1))


@pytest.mark.parametrize("length", [40, 20000, 0])
def test_a_retained_payload_stays_while_it_is_retained(writer, length):
    with cbuf.Pool.attach(writer.pool, holder="researcher") as pool:
        ref = writer.write(length, 3)
        with pool.retain(ref) as payload:
            assert (payload.length, payload.type, len(payload)) == (length, 3, length)
            for _ in range(9):
                writer.write(5, 9)  # its row is overwritten, again and again
            assert np.array_equal(payload.data, content(length, 3))
            assert writer.held() == 5
            with pool.retain(ref) as again:
                assert np.array_equal(again.data, content(length, 3))
            assert writer.held() == 5
            mine, = [h for h in pool.holders() if h.name == "researcher"]
            assert mine.alive and mine.pid == os.getpid() and mine.slots == 1 and not mine.ring
            assert [h.ref for h in pool.held() if mine.index in h.holders] == [ref]
        assert writer.held() == 4
        with pytest.raises(cbuf.NotOpen):
            payload.data
        with pytest.raises(cbuf.Stale):
            pool.retain(ref)


def test_a_view_is_read_only_and_keeps_its_payload_for_as_long_as_it_lives(writer):
    with cbuf.Pool.attach(writer.pool) as pool:
        with pool.retain(writer.write(64, 3)) as payload:
            part = payload.data[8:16].view(np.uint64)
            with pytest.raises(ValueError):
                payload.data[0] = 1
            with pytest.raises(ValueError):
                payload.data.flags.writeable = True
        for _ in range(5):
            writer.write(5, 9)
        assert part[0] == content(16, 3)[8:].view(np.uint64)[0]
        assert writer.held() == 5
        del part
        gc.collect()
        assert writer.held() == 4


def test_garbage_collected_while_its_payload_is_retained_again_takes_nothing_away(writer):
    class Held(dict):
        def get(self, *arguments):
            count = super().get(*arguments)
            gc.collect()
            return count

    with cbuf.Pool.attach(writer.pool) as pool:
        ref = writer.write(40)
        garbage = [pool.retain(ref)]
        garbage.append(garbage)
        pool._held = Held(pool._held)
        gc.disable()
        try:
            del garbage
            payload = pool.retain(ref)
        finally:
            gc.enable()
        for _ in range(5):
            writer.write(1)
        assert (payload.data == content(40, 7)).all()
        assert (pool.payload(ref) == content(40, 7)).all()  # it is held, and not only not used again


def test_a_forked_child_takes_no_entry_of_the_pool(writer):
    with cbuf.Pool.attach(writer.pool) as pool:
        ref = writer.write(40)
        child = os.fork()
        if not child:
            try:
                pool.retain(ref)
            except cbuf.NotOpen:
                os._exit(0 if pool._entry is None else 2)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_closed_pool_leaves_no_holder_behind(writer):
    pool = cbuf.Pool.attach(writer.pool)
    payload = pool.retain(writer.write(10))
    assert len(pool.holders()) == 3
    pool.close()
    for call in (pool.classes, pool.held, pool.holders, lambda: pool.retain(1)):
        with pytest.raises((cbuf.NotOpen, cbuf.FormatError)):
            call()
    assert payload.data[0] == 7  # an array still looks at it
    payload.release()
    with cbuf.Pool.attach(writer.pool) as other:
        assert sorted(h.name for h in other.holders()) == [
            "/dev/shm/" + writer.ring, "camera"]
        assert other.holders()[1].ring


def test_what_a_killed_python_held_is_given_back(writer):
    ref = writer.write(10)
    code = ("import cbuf, sys; pool = cbuf.Pool.attach(%r); payload = pool.retain(%d); "
            "print('held', flush=True); sys.stdin.read()" % (writer.pool, ref))
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": os.path.join(HERE, "..")})
    assert child.stdout.readline() == "held\n"
    for _ in range(4):
        writer.write(5)
    with cbuf.Pool.attach(writer.pool) as pool:
        assert [h.alive for h in pool.holders()] == [True, True, True]
        assert writer.held() == 5
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert [h.alive for h in pool.holders()] == [True, True, False]
        with pool.retain(writer.write(5)):  # takes a free entry, and leaves the dead one alone
            assert writer.held() == 5
        assert writer.order("r") == 1
        assert writer.held() == 4


def test_a_joining_python_sweeps_the_dead_where_no_entry_is_free(writer):
    ref = writer.write(10)
    code = ("import cbuf, sys; pool = cbuf.Pool.attach(%r); payload = pool.retain(%d); "
            "print('held', flush=True); sys.stdin.read()" % (writer.pool, ref))
    for _ in range(3):  # two entries, then one again
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True,
                                 env={**os.environ, "PYTHONPATH": os.path.join(HERE, "..")})
        assert child.stdout.readline() == "held\n"
        child.kill()
        child.communicate()
    with cbuf.Pool.attach(writer.pool) as pool, pool.retain(ref):
        assert [h.alive for h in pool.holders()] == [True, True, True, False]


@pytest.mark.parametrize("length", [40, 20000])
def test_a_payload_of_a_row_of_several_producers_is_seen_in_place(writers, length):
    with cbuf.Pool.attach(writers.pool, holder="viewer") as pool, \
            cbuf.open(writers.ring) as ring:
        refs = [writers.write(length if k == 1 else 5, k) for k in range(4)]
        rows = ring[0:4]
        assert rows["payload"].tolist() == refs
        with pool.retain(rows["payload"][1]) as payload:
            with pytest.raises(ValueError, match="read-only"):
                payload.data[0] = 1
            for k in range(9):
                writers.write(5, 9)  # by both of them, over its row
            assert np.array_equal(payload.data, content(length, 1))
            assert writers.held() == 5
        assert writers.held() == 4
        for ref in refs:
            with pytest.raises(cbuf.Stale):
                pool.retain(ref)
        rings = [h for h in pool.holders() if h.ring]
        assert [(h.name, h.slots) for h in rings] == [("/dev/shm/" + writers.ring, 4)]


def test_what_a_dead_one_of_several_producers_had_in_hand_is_left_to_the_others(writers):
    ref = writers.write(10, 3)
    with cbuf.Pool.attach(writers.pool) as pool, cbuf.Pool.attach(writers.pool) as other:
        dead = writers.order("d")
        with pool.retain(ref):
            assert [h.alive for h in pool.holders()].count(False) == 1
            with pytest.raises(cbuf.Error, match="entries are taken"):
                other.retain(ref)
            assert writers.held() == 2
            assert writers.order("r") == 1
            assert writers.held() == 1
            with other.retain(ref) as payload:
                assert np.array_equal(payload.data, content(10, 3))
                assert [h.index for h in other.holders() if h.name == "python"] == [dead, 4]


def test_without_libatomic_payloads_can_be_copied_only(writer, monkeypatch):
    monkeypatch.setattr(_pool, "_compare_exchange", lambda: None)
    with cbuf.Pool.attach(writer.pool) as pool:
        ref = writer.write(10, 4)
        assert np.array_equal(pool.payload(ref), content(10, 4))
        with pytest.raises(cbuf.Error, match="libatomic"):
            pool.retain(ref)
        assert writer.held() == 1


def test_numbers_that_are_no_refs_are_errors(writer):
    random = np.random.default_rng(5)
    with cbuf.Pool.attach(writer.pool) as pool:
        for ref in (0, -1, 1 << 64, 0x0700000000, 0x01000008, 0x03000000, 0x06000003):
            for call in (pool.payload, pool.retain, pool.type):
                with pytest.raises(cbuf.FormatError):
                    call(ref)
        for ref in random.integers(0, 1 << 64, 2000, np.uint64):
            with pytest.raises((cbuf.FormatError, cbuf.Stale)):
                pool.payload(ref)


def test_damaged_pools_are_refused_with_the_file_named(writer, tmp_path):
    whole = open(writer.path, "rb").read()
    path = tmp_path / "pool"
    random = np.random.default_rng(6)
    refused = 0
    for k in range(1500):
        bytes_ = bytearray(whole)
        at = int(random.integers(_pool.FACTS_BYTES))
        bytes_[at] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes_ if k % 10 else bytes_[:int(random.integers(len(whole)))])
        try:
            with cbuf.Pool.attach(path) as pool:
                pool.classes(), pool.held(), pool.holders()
        except cbuf.Error as error:
            assert str(path) in str(error)
            refused += 1
    assert 1000 < refused < 1500
    path.write_bytes(whole[:8])
    with pytest.raises(cbuf.FormatError, match="at least"):
        cbuf.Pool.attach(path)
    with pytest.raises(cbuf.FormatError):
        cbuf.Pool.attach(writer.ring)
    with pytest.raises(cbuf.NotFound):
        cbuf.Pool.attach(writer.pool + "-none")


def test_a_pool_of_no_whole_number_of_words_is_read(writer, tmp_path):
    ref = writer.write(10)
    bytes_ = bytearray(open(writer.path, "rb").read() + b"odd")
    struct.pack_into("=Q", bytes_, 24, len(bytes_))
    path = tmp_path / "pool"
    path.write_bytes(bytes_)
    with cbuf.Pool.attach(path) as pool:
        assert np.array_equal(pool.payload(ref), content(10, 7))
        with pool.retain(ref) as payload:
            assert len(payload) == 10


def test_a_length_that_was_tampered_with_stays_inside(writer, tmp_path):
    ref = writer.write(10)
    bytes_ = bytearray(open(writer.path, "rb").read())
    with cbuf.Pool.attach(writer.pool) as pool:
        place = pool._slot(ref)[2]
    struct.pack_into("=Q", bytes_, place + 8, 1 << 40)
    path = tmp_path / "pool"
    path.write_bytes(bytes_)
    with cbuf.Pool.attach(path) as pool:
        assert len(pool.payload(ref)) == 64


def test_the_command_line_lists_who_holds_what(writer, capsys):
    ref = writer.write(10, 42)
    writer.write(20000, 43)
    with cbuf.Pool.attach(writer.pool, holder="looker") as pool, pool.retain(ref):
        main(["pool", writer.pool])
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines]
    assert ["XS", "64", "8", "7", "1"] in table
    assert any(row[1:4] == ["camera", "process", str(writer.process.pid)] for row in table if row)
    assert any(row[1:3] == ["/dev/shm/" + writer.ring, "ring"] and row[-2:] == ["2", "20010"]
               for row in table if len(row) > 2)
    assert ["%016x" % ref, "XS", "0", "10", "42", "1,2"] in [
        [row[0], row[1], "0", *row[3:]] for row in table if len(row) == 6 and len(row[0]) == 16]
    with pytest.raises(SystemExit, match="no such file"):
        main(["pool", writer.pool + "-none"])


def test_a_reader_that_is_lapped_all_the_time_gets_whole_payloads_or_stale(program):
    """Copies against a producer in C that uses the same slots again and again."""
    writer = Writer(program)
    try:
        orders = "".join("w %d %d\n" % (64 if k % 2 else 200, k % 200) for k in range(20000))
        whole = stale = 0
        with cbuf.Pool.attach(writer.pool) as pool, cbuf.open(writer.ring) as ring:
            writer.process.stdin.write("w 8 1\n")
            writer.process.stdin.flush()
            reading = os.fork()
            if reading == 0:  # it takes what the writer says, and gives the orders
                try:
                    os.dup2(writer.process.stdout.fileno(), 0)
                    feeder = os.fork()
                    if feeder == 0:
                        writer.process.stdin.write(orders)
                        writer.process.stdin.flush()
                        os._exit(0)
                    got = 0
                    while got < 20001:
                        got += os.read(0, 65536).count(b"\n")
                finally:
                    os._exit(0)
            deadline = time.monotonic() + 20
            while ring.head < 20001 and time.monotonic() < deadline:
                try:
                    row = ring[-1]
                    copy = pool.payload(row["payload"])
                    with pool.retain(row["payload"]) as payload:
                        assert np.array_equal(payload.data, copy)
                except (cbuf.Stale, IndexError):
                    stale += 1
                    continue
                assert np.array_equal(copy, content(len(copy), int(copy[0])))
                assert len(copy) in (8, 64, 200)
                whole += 1
            os.waitpid(reading, 0)
            assert ring.head == 20001 and whole > 0
            print("%d whole, %d stale" % (whole, stale))
        assert writer.held() == 4
    finally:
        writer.end()
