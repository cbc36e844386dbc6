"""The Python reader against rings made by hand; see ring_file.py. No C, no threads, no sleeps."""
import copy
import itertools
import json
import os
import pickle
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import cbuf
from cbuf import _ring
from cbuf.__main__ import main
from ring_file import (DROPPED, EPOCH, HEAD, LAYOUTS, PID, RESERVE, SPILL_END, STATE, RingFile, value,
                       whole)

every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture
def file(tmp_path):
    """Makes ring files; each takes the place of the one before."""
    return lambda *types, **options: RingFile(tmp_path / "ring", types or ("int64", "int64"), **options)


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    """For hypothesis, which calls a test many times."""
    return tmp_path_factory.mktemp("hypothesis") / "ring"


def filled(file, rows, **options):
    made = file(**options)
    made.write_to(rows)
    return made, cbuf.open(made.path)


# ---- what a ring says of itself ----

@every_layout
def test_an_opened_ring_tells_its_schema_and_geometry(file, layout):
    made, ring = filled(file, 11, layout=layout)
    assert ring.path == made.path and ring.capacity == 8 and ring.offset == made.rows_offset
    assert ring.schema == made.schema()
    assert ring.dtype.names == ("a", "b") and ring.dtype.itemsize == made.stride
    assert (ring.head, ring.oldest, len(ring), ring.state, ring.epoch) == (11, 3, 8, "open", 0)
    assert made.path in repr(ring) and "head 11" in repr(ring)
    made.put(EPOCH, 5)
    made.close()
    assert (ring.state, ring.epoch) == ("closed", 5)
    made.retire()
    assert ring.state == "retired"


@every_layout
def test_memmap_with_the_rings_dtype_and_offset_sees_the_same_rows(file, layout):
    _, ring = filled(file, 11, layout=layout)
    mapped = np.memmap(ring.path, dtype=ring.dtype, mode="r", offset=ring.offset, shape=ring.capacity)
    for i in range(3, 11):
        assert mapped[i % 8] == ring[i]


def test_an_empty_ring_has_no_rows_and_is_true(file):
    _, ring = filled(file, 0)
    assert len(ring) == 0 and ring and ring.oldest == 0
    assert len(ring.last(5)) == len(ring.last()) == len(ring[:]) == len(ring.view(3)) == 0
    with pytest.raises(IndexError):
        ring[-1]


def test_a_reserve_beyond_the_head_makes_rows_old_before_they_are_overwritten(file):
    made, ring = filled(file, 9, step=4)
    assert (made.reserve, ring.head, ring.oldest, len(ring)) == (12, 9, 4, 5)
    assert ring.last().first == 4


VALUES = {
    "int8": st.integers(-2**7, 2**7 - 1), "int16": st.integers(-2**15, 2**15 - 1),
    "int32": st.integers(-2**31, 2**31 - 1), "int64": st.integers(-2**63, 2**63 - 1),
    "uint8": st.integers(0, 2**8 - 1), "uint16": st.integers(0, 2**16 - 1),
    "uint32": st.integers(0, 2**32 - 1), "uint64": st.integers(0, 2**64 - 1),
    "float32": st.floats(width=32), "float64": st.floats(), "bool": st.booleans(),
    "timestamp[ns]": st.integers(-2**63 + 1, 2**63 - 1), "ref": st.integers(0, 2**64 - 1),
    "S1": st.binary(max_size=1), "S5": st.binary(max_size=5), "S16": st.binary(max_size=16)}
CODES = {"int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I",
         "uint64": "Q", "float32": "f", "float64": "d", "bool": "?", "timestamp[ns]": "q", "ref": "Q"}


@pytest.mark.parametrize("type_name", VALUES)
@every_layout
@given(data=st.data())
@settings(max_examples=20)
def test_every_type_comes_back_as_it_was_written(path, layout, type_name, data):
    made = RingFile(path, ("uint8", type_name), layout, capacity=2)
    put = data.draw(VALUES[type_name])
    row = bytearray(made.stride)
    struct.pack_into("<" + CODES.get(type_name, type_name[1:] + "s"), row, made.columns[1]["offset"], put)
    made.write([bytes(row)])
    with cbuf.open(path) as ring:
        got = ring.last()["b"][0]
    if type_name[0] == "S":
        assert got == put.rstrip(b"\0")
    elif type_name == "timestamp[ns]":
        assert got.dtype == "datetime64[ns]" and got.astype("int64") == put
    else:
        assert got.dtype == np.dtype("uint64" if type_name == "ref" else type_name) and (got == put or (got != got and put != put))


# ---- copies: sequence numbers, the ring's end, laps ----

@every_layout
@given(written=st.integers(0, 30), n=st.integers(0, 40), step=st.integers(1, 4))
def test_last_gives_the_last_rows_and_counts_the_missing(path, layout, written, n, step):
    made = RingFile(path, ("int64",) * 2, layout, 8, step)
    made.write_to(written)
    with cbuf.open(path) as ring:
        rows = ring.last(n)
        there = written - max(0, made.reserve - 8)
        assert len(rows) == min(n, there) and rows.lost == min(n, written) - len(rows)
        assert not len(rows) or (rows.first + len(rows) == written and whole(rows, rows.first))
        assert len(ring.last()) == len(ring) == there and ring.last().lost == 0
        assert np.array_equal(ring.to_numpy(n), rows) and type(ring.to_numpy(n)) is np.ndarray
        assert np.array_equal(np.asarray(ring), ring.last())


ENDS = st.none() | st.integers(-40, 40)


@every_layout
@given(written=st.integers(0, 30), start=ENDS, stop=ENDS)
def test_a_slice_is_pythons_by_sequence_numbers_less_the_overwritten(path, layout, written, start, stop):
    made = RingFile(path, ("int64",) * 2, layout, 8)
    made.write_to(written)
    oldest = max(0, written - 8)
    asked = range(written)[start:stop]
    there = [i for i in asked if i >= oldest]
    with cbuf.open(path) as ring:
        rows = ring[start:stop]
    assert list(rows.sequence) == there and whole(rows, rows.first)
    assert rows.lost == (0 if start is None else len(asked) - len(there))


@every_layout
@given(written=st.integers(0, 30), i=st.integers(-40, 40))
def test_an_index_is_a_row_or_lapped_or_not_there(path, layout, written, i):
    made = RingFile(path, ("int64",) * 2, layout, 8)
    made.write_to(written)
    sequence, oldest = i if i >= 0 else written + i, max(0, written - 8)
    with cbuf.open(path) as ring:
        if oldest <= sequence < written:
            assert ring[i].tolist() == (value(sequence, 0), value(sequence, 1))
        else:
            with pytest.raises(IndexError) as caught:
                ring[i]
            lapped = 0 <= sequence < oldest
            assert isinstance(caught.value, cbuf.Lapped) == lapped
            assert not lapped or (caught.value.oldest == oldest and str(oldest) in str(caught.value))


def test_what_cannot_index_a_ring_is_refused_with_advice(file):
    _, ring = filled(file, 3)
    with pytest.raises(TypeError, match=r"ring.last\(n\)\['a'\]"):
        ring["a"]
    with pytest.raises(ValueError, match=r"\[::2\]"):
        ring[::2]
    with pytest.raises(TypeError):
        iter(ring)
    with pytest.raises(ValueError):
        ring.last(-1)


def test_rows_know_their_numbers_through_slices_copies_of_processes_and_nothing_else(file):
    _, ring = filled(file, 11)
    rows = ring.last(20)
    assert (rows.first, rows.lost) == (3, 3)
    part = rows[2:5]
    assert (part.first, part.lost, list(part.sequence)) == (5, 0, [5, 6, 7]) and whole(part, 5)
    assert (rows[:2].first, rows[:2].lost) == (3, 3)
    again = pickle.loads(pickle.dumps(rows))
    assert (again.first, again.lost) == (3, 3) and whole(again, 3)
    for other in (rows[::2], rows[::-1], rows["a"], rows[rows["a"] > 0], rows[["a", "b"]]):
        assert type(other) is np.ndarray
    assert rows[::-1][0] == rows[-1] and copy.copy(rows).shape == rows.shape


def test_rows_are_the_callers_own(file):
    made, ring = filled(file, 8)
    rows = ring.last()
    made.write_to(16)
    assert whole(rows, 0)
    rows["a"] = 0
    assert whole(ring.last(), 8)


# ---- laps, at a place of the reader that the test chooses ----

def between_copy_and_check(ring, action):
    """Runs action() once, after the rows were copied and before `reserve` is looked at."""
    plain, pending = ring._copy, [action]

    def copy_rows(first, n):
        rows = plain(first, n)
        if pending:
            pending.pop()()
        return rows

    ring._copy = copy_rows


@every_layout
def test_last_keeps_the_tail_that_was_not_overwritten_meanwhile(file, layout):
    made, ring = filled(file, 8, layout=layout)
    between_copy_and_check(ring, lambda: made.write_to(11))
    rows = ring.last()
    assert (rows.first, rows.lost, len(rows)) == (3, 3, 5) and whole(rows, 3)


@every_layout
@pytest.mark.parametrize("moved, kept", [(8, 8), (9, 7), (11, 5), (15, 1), (16, 0), (1000, 0), (2**64 - 1, 0)])
def test_a_moved_reserve_alone_condemns_exactly_the_rows_below_it(file, layout, moved, kept):
    made, ring = filled(file, 8, layout=layout)
    between_copy_and_check(ring, lambda: made.put(RESERVE, moved))
    made.close()
    batches = list(ring.follow(timeout=0))
    assert sum(map(len, batches)) == kept and sum(rows.lost for rows in batches) == 8 - kept
    assert all(whole(rows, rows.first) for rows in batches)


def test_rows_overwritten_as_a_whole_are_looked_for_again_where_the_newest_are_asked_for(file):
    made, ring = filled(file, 8)
    between_copy_and_check(ring, lambda: made.write_to(100))
    rows = ring.last(3)
    assert len(rows) == 3 and whole(rows, 97)
    between_copy_and_check(ring, lambda: made.write_to(200))
    assert ring[-1].tolist() == (value(199, 0), value(199, 1))


def test_a_row_overwritten_while_it_is_copied_raises_lapped_with_the_oldest(file):
    made, ring = filled(file, 8)
    between_copy_and_check(ring, lambda: made.write_to(20))
    with pytest.raises(cbuf.Lapped) as caught:
        ring[5]
    assert caught.value.oldest == 12


def test_a_slice_overwritten_while_it_is_copied_is_counted(file):
    made, ring = filled(file, 8)
    between_copy_and_check(ring, lambda: made.write_to(20))
    rows = ring[2:6]
    assert (len(rows), rows.lost) == (0, 4)


class Race:
    """A reader and a writer that take turns: before each load of the reader and each word that it
    copies, the writer makes as many stores as the schedule says next."""

    def __init__(self, ring, made, batch, schedule):
        self.ring, self.made, self.schedule = ring, made, iter(schedule)
        self.writer = made.endless(batch)
        self.plain_load = ring._load
        ring._load, ring._copy = self.load, self.copy

    def turn(self):
        for _ in range(next(self.schedule, 0)):
            next(self.writer)

    def load(self, index):
        self.turn()
        return self.plain_load(index)

    def copy(self, first, n):
        rows = np.empty(n, self.ring.dtype)
        words, ring = rows.view(np.uint64), self.ring._bytes.view(np.uint64)
        for k in range(len(words)):
            self.turn()
            words[k] = ring[(first * self.made.stride // 8 + k) % len(ring)]
        return rows

    def over(self):
        """The writer ends its batch and closes the ring."""
        head = self.made.head
        while self.made.head == head:
            next(self.writer)
        self.made.close()


@st.composite
def races(draw):
    capacity = draw(st.sampled_from([2, 4, 8, 16]))
    turns = st.integers(0, 3) | st.integers(0, 30) | st.integers(0, 150)
    return dict(layout=draw(st.sampled_from(LAYOUTS)), capacity=capacity,
                step=draw(st.integers(1, capacity // 2)), batch=draw(st.integers(1, max(1, capacity // 4))),
                before=draw(st.integers(0, 3 * capacity)), turns=draw(st.lists(turns, max_size=80)))


def race_of(path, plan):
    made = RingFile(path, ("int64",) * 2, plan["layout"], plan["capacity"], plan["step"])
    made.write_to(plan["before"])
    return made, cbuf.open(path)


@given(plan=races(), most=st.integers(1, 20), start=st.sampled_from(["oldest", "newest", 0, -3]))
@settings(max_examples=600)
def test_whatever_the_interleaving_follow_delivers_whole_rows_once_and_counts_the_others(
        path, plan, most, start):
    made, ring = race_of(path, plan)
    first = {"oldest": ring.oldest, "newest": ring.head, 0: 0, -3: max(0, ring.head - 3)}[start]
    following = ring.follow(start, batch=most, timeout=0)
    race = Race(ring, made, plan["batch"], plan["turns"])
    at, ended = first, False
    while True:
        for rows in following:
            assert len(rows) <= most and whole(rows, rows.first)
            assert rows.first == at + rows.lost, "a row neither delivered nor counted"
            assert not rows.lost or rows.first <= made.reserve - made.capacity, "a good row given up"
            at = rows.first + len(rows)
        if ended:
            break
        race.over()
        ended, following = True, ring.follow(at, batch=most)
    assert at == made.head


@given(plan=races(), n=st.integers(0, 20))
@settings(max_examples=600)
def test_whatever_the_interleaving_copies_are_whole_and_consecutive(path, plan, n):
    made, ring = race_of(path, plan)
    Race(ring, made, plan["batch"], plan["turns"])
    for rows in (ring.last(n), ring.last(), ring[-n:], ring[3:n], ring[:]):
        assert whole(rows, rows.first) and rows.lost >= 0
    try:
        row = ring[-1]
        i = int(row["a"]) // value(0, 0) - 1
        assert row.tolist() == (value(i, 0), value(i, 1))
    except IndexError:
        pass


@given(plan=races(), n=st.integers(0, 20))
@settings(max_examples=600)
def test_whatever_the_interleaving_a_valid_view_was_whole(path, plan, n):
    made, ring = race_of(path, plan)
    race = Race(ring, made, plan["batch"], plan["turns"])
    view = ring.view(n)
    seen = []
    for part in view.parts:
        for row in part:
            race.turn()
            seen.append(row.tolist())
    if view.valid():
        assert seen == [(value(i, 0), value(i, 1)) for i in range(view.first, view.first + len(view))]


# ---- follow ----

def test_follow_ends_when_the_producer_closed_and_all_is_read(file):
    made, ring = filled(file, 20)
    made.close()
    batches = list(ring.follow(0, batch=3))
    assert [len(rows) for rows in batches] == [3, 3, 2] and [rows.lost for rows in batches] == [12, 0, 0]


@pytest.mark.parametrize("word", [HEAD, STATE])
def test_follow_delivers_rows_written_and_closed_behind_while_it_looks_for_them(file, word):
    made, ring = filled(file, 2)
    following, plain = ring.follow("newest"), ring._load

    def load(index):
        found = plain(index)
        if index == word // 8 and made.head == 2:
            made.write_to(5)
            made.close()
        return found

    ring._load = load
    assert [whole(rows, 2) and len(rows) for rows in following] == [3]


def test_follow_starts_where_it_is_told_when_it_is_told(file):
    made, ring = filled(file, 12)
    followings = {start: ring.follow(start, timeout=0) for start in ("oldest", "newest", 7, -2, 14)}
    made.write_to(16)
    got = {start: [(rows.first, len(rows), rows.lost) for rows in f] for start, f in followings.items()}
    assert got == {"oldest": [(8, 8, 4)], "newest": [(12, 4, 0)], 7: [(8, 8, 1)], -2: [(10, 6, 0)],
                   14: [(14, 2, 0)]}
    for start in ("first", 1.5, None):
        with pytest.raises((ValueError, TypeError)):
            ring.follow(start)
    with pytest.raises(ValueError):
        ring.follow(batch=0)


def test_follow_sleeps_ever_longer_up_to_the_poll_time_and_gives_up_after_the_timeout(file, monkeypatch):
    made, ring = filled(file, 4)
    now, naps = [100.0], []

    def sleep(seconds):
        naps.append(seconds)
        now[0] += seconds
        if len(naps) == 20:
            made.write_to(6)

    monkeypatch.setattr(_ring.time, "sleep", sleep)
    monkeypatch.setattr(_ring.time, "monotonic", lambda: now[0])
    batches = list(ring.follow(timeout=0.25, poll=0.01))
    assert [len(rows) for rows in batches] == [4, 2]
    assert naps[:3] == [50e-6, 100e-6, 200e-6] and max(naps) == 0.01 and naps[20] == 50e-6
    assert sum(naps[20:]) == pytest.approx(0.25)


def test_follow_raises_retired_after_the_last_row(file):
    made, ring = filled(file, 4)
    made.retire()
    following = ring.follow()
    assert len(next(following)) == 4
    with pytest.raises(cbuf.Retired, match="open it again"):
        next(following)


def test_follow_notices_that_the_file_was_removed_or_replaced_without_a_mark(file, monkeypatch):
    made, ring = filled(file, 4)
    now = itertools.count(0, 0.3)
    monkeypatch.setattr(_ring.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(_ring.time, "monotonic", lambda: next(now))
    os.unlink(made.path)
    with pytest.raises(cbuf.Retired, match="removed"):
        list(ring.follow("newest"))
    file()
    with pytest.raises(cbuf.Retired, match="replaced"):
        list(ring.follow("newest"))


def test_a_loss_with_no_row_behind_it_comes_as_an_empty_batch(file):
    made, ring = filled(file, 8)
    between_copy_and_check(ring, lambda: made.put(RESERVE, 100))
    made.close()
    assert [(len(rows), rows.first, rows.lost) for rows in ring.follow()] == [(0, 8, 8)]


def test_a_follower_lapped_again_and_again_starts_further_from_the_pen(file):
    made, ring = filled(file, 256, capacity=256)
    plain, starts = ring._copy, []

    def copy_rows(first, n):
        starts.append(first - (made.head - 256))
        rows = plain(first, n)
        if len(starts) < 6:
            made.write_to(made.head + 20)
        return rows

    ring._copy = copy_rows
    rows = next(ring.follow(batch=8))
    assert starts[:4] == [0, 4, 8, 12] and rows.lost == rows.first and whole(rows, rows.first)


# ---- in place ----

def test_a_view_shows_the_rings_own_memory_in_one_or_two_parts(file):
    made, ring = filled(file, 11)
    with ring.view(2) as view:
        assert len(view.parts) == 1 and whole(view.parts[0], 9) and (view.first, view.lost) == (9, 0)
    with ring.view(20) as view:
        assert [len(part) for part in view.parts] == [5, 3] and len(view) == 8
        assert (view.first, view.lost) == (3, 3)
        assert whole(view.parts[0], 3) and whole(view.parts[1], 8)
        assert not view.parts[0].flags.writeable
        made.write_to(12)
        assert not view.valid() and view.parts[0][0]["a"] == value(11, 0)
    assert ring.view().lost == 0


def test_leaving_a_lapped_view_raises_unless_the_question_was_asked(file):
    made, ring = filled(file, 8)
    with pytest.raises(cbuf.Lapped) as caught:
        with ring.view() as view:
            made.write_to(9)
    assert caught.value.oldest == 1
    with ring.view() as view:
        assert view.valid()
        made.write_to(10)
    with pytest.raises(KeyError):
        with ring.view() as view:
            made.write_to(11)
            raise KeyError


def test_arrays_outlive_the_ring_and_a_closed_ring_says_so(file):
    made, ring = filled(file, 8)
    following, view = ring.follow(batch=2), ring.view()
    next(following)
    with ring:
        pass
    assert whole(view.parts[0], 0) and "not open" in repr(ring)
    for use in (ring.last, ring.view, ring.follow, ring.stats, ring.readers, ring.to_pandas, view.valid,
                lambda: ring[0], lambda: ring.head, lambda: ring.state, lambda: len(ring),
                lambda: next(following)):
        with pytest.raises(cbuf.NotOpen):
            use()
    del view
    ring.close()


# ---- pandas ----

def test_to_pandas_has_the_columns_and_the_sequence_numbers(file):
    made = file("timestamp[ns]", "float64", "S4", "bool")
    for i in range(11):
        made.write([struct.pack("<qd4s?", i, i / 2, b"ab", i % 2)])
    frame = cbuf.open(made.path).to_pandas(9)
    assert list(frame.columns) == ["a", "b", "c", "d"] and list(frame.index) == list(range(3, 11))
    assert frame.index.name == "sequence" and frame.attrs["lost"] == 1
    assert frame["a"].dtype == "datetime64[ns]" and frame["b"].sum() == sum(range(3, 11)) / 2
    assert frame["c"].tolist() == [b"ab"] * 8 and frame["d"].dtype == bool


def test_to_pandas_without_pandas_says_what_is_missing(file, monkeypatch):
    _, ring = filled(file, 3)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="needs pandas"):
        ring.to_pandas()


def test_the_package_itself_does_not_import_pandas():
    code = "import sys, cbuf; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.path.dirname(os.path.dirname(_ring.__file__)))


# ---- files that are not as they should be ----

FORMAT, SCHEMA = cbuf.FormatError, cbuf.SchemaError
BAD_FACTS = {
    "magic": [(b"\0" * 8, FORMAT), (b"cbufrdr\0", FORMAT), (b"cbuf\r\n\x1a\1", FORMAT)],
    "byte_order": [(0, FORMAT), (0x01020305, FORMAT), (0x04030201, cbuf.ByteOrderError)],
    "major": [(0, FORMAT), (2, cbuf.VersionError), (65535, cbuf.VersionError)],
    "features": [(1 << 20, cbuf.FeatureError), (8, FORMAT), (1 << 63, cbuf.FeatureError), (3, FORMAT), (1, SCHEMA), (2, FORMAT)],
    "file_bytes": [(0, FORMAT), (4096, FORMAT), (2**64 - 1, FORMAT)],
    "rows_offset": [(n, FORMAT) for n in (0, 1023, 1024, 2072, 6145, 8008, 2**64 - 8)] + [(6152, SCHEMA)],
    "capacity": [(n, FORMAT) for n in (0, 1, 3, 7, 9, 1024, 2**32, 2**63, 2**64 - 1)] + [(4, SCHEMA)],
    "readers_offset": [(n, FORMAT) for n in (8, 1024, 8192, 12288, 2**64 - 8)],
    "row_bytes": [(n, FORMAT) for n in (0, 21, 2**20 + 1, 2**32 - 1)] + [(8, SCHEMA), (20, SCHEMA)],
    "stride": [(n, FORMAT) for n in (0, 8, 16, 23, 25, 2**20, 2**32 - 8)] + [(32, SCHEMA)],
    "schema_offset": [(n, FORMAT) for n in (0, 1023, 2**32 - 1)] + [(1025, SCHEMA)],
    "schema_bytes": [(n, FORMAT) for n in (0, 1, 65537, 2**32 - 1)] + [(2, SCHEMA), (100, SCHEMA)],
    "gates_offset": [(n, FORMAT) for n in (0, 1024, 2052, 6120, 2**32 - 8)],
    "max_readers": [(n, FORMAT) for n in (0, 1025, 2**32 - 1)],
    "reserve_step": [(n, FORMAT) for n in (0, 5, 2**32 - 1)],
    "column_count": [(n, FORMAT) for n in (0, 513, 2**32 - 1)] + [(1, SCHEMA), (3, SCHEMA)],
    "on_full": [(4, FORMAT), (2**32 - 1, FORMAT)]}
# What the text speaks of, where that is not the field's name.
SPEAKS_OF = {"magic": "start like a ring", "byte_order": "byte order|endian", "major": "format",
             "features": "features|layout|delta", "file_bytes": "header says", "rows_offset": "rows",
             "capacity": "capacity|size of the rows", "readers_offset": "readers' table",
             "row_bytes": "row_bytes|stride", "stride": "stride|size of the rows", "schema_offset": "schema", "schema_bytes": "schema",
             "gates_offset": "gates|place of the rows", "column_count": "column"}


@pytest.mark.parametrize("field, wrong, error", [
    (field, wrong, error) for field, cases in BAD_FACTS.items() for wrong, error in cases])
def test_each_wrong_fact_is_refused_by_name(file, field, wrong, error):
    made = file(facts={field: wrong})
    with pytest.raises(error) as caught:
        cbuf.open(made.path)
    assert type(caught.value) is error and made.path in str(caught.value)
    assert re.search(SPEAKS_OF.get(field, field), str(caught.value)[len(made.path):])


def test_a_newer_minor_version_with_more_in_its_unused_places_opens(file):
    made = file(facts=dict(minor=7), schema=lambda s: dict(s, format="cbuf 1.7", more={"x": [1, None]}))
    made.put(1000, 1)
    assert cbuf.open(made.path).capacity == 8


def columns(*them):
    return lambda schema: dict(schema, columns=list(them))


A = {"name": "a", "type": "int64", "offset": 0}
B = {"name": "b", "type": "int64", "offset": 8}
BAD_SCHEMAS = [
    lambda s: b"", lambda s: b"{}", lambda s: b"[]", lambda s: b"null", lambda s: b"[" * 60000,
    lambda s: b'{"capacity":' * 5000, lambda s: b"\xff" * 50, lambda s: json.dumps(s).encode()[:-1],
    lambda s: json.dumps(s).encode() + b"x", lambda s: json.dumps(s).encode() + b"\0",
    lambda s: json.dumps(s).encode().replace(b'"capacity"', b'"capacity":8,"capacity"'),
    lambda s: dict(s, more=float("nan")), lambda s: {k: v for k, v in s.items() if k != "columns"},
    lambda s: dict(s, capacity=json.loads("[" * 500 + "]" * 500)), lambda s: dict(s, capacity=10**4000),
    columns(), columns(A), columns(A, B, dict(B, name="c", offset=16)), columns(A, [B]), columns(A, None),
    columns(A, dict(B, name="a")), columns(A, dict(B, name="")), columns(A, dict(B, name="x" * 48)),
    columns(A, dict(B, name='"')), columns(A, dict(B, name="\\")), columns(A, dict(B, name="\u00fc")),
    columns(A, dict(B, name="\n")), columns(A, dict(B, name=3)), columns(A, {"name": "b", "offset": 8}),
    columns(A, {"name": "b", "type": "int64"}), columns(A, {"type": "int64", "offset": 8}),
    columns(A, dict(B, offset=-8)), columns(A, dict(B, offset=7)), columns(A, dict(B, offset=9)),
    columns(A, dict(B, offset=8.0)), columns(A, dict(B, offset="8")), columns(A, dict(B, offset=2**64)),
    columns(dict(A, offset=False), B), columns(B, A)] + [
    columns(A, dict(B, type=t)) for t in (
        "int128", "", "Int64", "float16", "complex128", "timestamp[us]", "timestamp", "S", "S0", "S08", "S9",
        "S-1", "S+1", "S 1", "S1_0", "S\u0661", "S" + "9" * 5000, "object", "O", "refs", "ref8", "V8", None, 8, [], {})] + [
    lambda s, k=k, v=v: dict(s, **{k: v}) for k, v in (
        ("format", "cbuf 2.0"), ("format", "cbuf 1"), ("format", "cbuf 1.x"), ("format", None), ("format", 1.0),
        ("layout", "dense"), ("layout", None), ("capacity", 16), ("capacity", 8.0), ("capacity", True),
        ("row_bytes", 8), ("stride", 16), ("rows_offset", 0), ("head_offset", 0), ("reserve_offset", 256))] + [
    lambda s, k=k: {key: v for key, v in s.items() if key != k} for k in (
        "format", "layout", "capacity", "row_bytes", "stride", "rows_offset", "head_offset", "reserve_offset")]


@pytest.mark.parametrize("number", range(len(BAD_SCHEMAS)))
def test_each_wrong_schema_is_refused(file, number):
    made = file(schema=BAD_SCHEMAS[number], room=70000)
    with pytest.raises(cbuf.FormatError) as caught:
        cbuf.open(made.path)
    assert made.path in str(caught.value) and len(str(caught.value)) < len(made.path) + 300


def test_a_schema_may_be_long_and_have_what_nobody_knows(file):
    made = file(room=70000, schema=lambda s: dict(s, more="x" * 60000, columns=[
        dict(A, unit="m", more=[1, {}]), B]))
    assert cbuf.open(made.path).dtype.names == ("a", "b")


def test_a_shared_tail_keeps_columns_out_of_the_numbers_place(file):
    made = file("int64", "int32", layout="shared")
    assert cbuf.open(made.path).dtype.itemsize == 16
    made = file("int64", "int32", layout="shared", schema=lambda s: dict(s, columns=[
        A, {"name": "b", "type": "int64", "offset": 8}]))
    with pytest.raises(cbuf.SchemaError, match="end by 12"):
        cbuf.open(made.path)


def test_a_file_cut_off_anywhere_is_refused(file, tmp_path):
    made = file(capacity=2)
    text = open(made.path, "rb").read()
    cut = tmp_path / "cut"
    for size in itertools.chain(range(1300), range(1300, len(text), 97), [len(text) - 1]):
        cut.write_bytes(text[:size])
        with pytest.raises(cbuf.FormatError):
            cbuf.open(cut)


def test_a_file_cut_off_while_it_is_opened_is_refused(file, monkeypatch):
    made = file()
    whole_size = os.stat(made.path)
    os.truncate(made.path, 2000)
    monkeypatch.setattr(_ring.os, "fstat", lambda fd: whole_size)
    with pytest.raises(cbuf.Error):
        cbuf.open(made.path)
    os.truncate(made.path, 1100)
    with pytest.raises(cbuf.FormatError, match="truncated"):
        cbuf.open(made.path)


def opens_or_is_an_error(path):
    try:
        with cbuf.open(path) as ring:
            ring.last(), ring.view(), len(ring), ring.oldest, repr(ring), list(ring.follow(timeout=0))
    except cbuf.Error:
        pass


@given(data=st.data())
@settings(max_examples=500)
def test_random_bytes_anywhere_give_an_error_or_a_ring_and_nothing_else(path, data):
    made = RingFile(path, ("int64", "S3"), data.draw(st.sampled_from(LAYOUTS)))
    made.write([b"x" * 11] * 5)
    end = data.draw(st.sampled_from([112, 600, 1024 + made.facts["schema_bytes"]]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, end - 1))
        noise = data.draw(st.binary(min_size=1, max_size=9))
        made.memory[at:at + len(noise)] = noise
    opens_or_is_an_error(path)


@given(text=st.binary(max_size=3000), magic=st.booleans())
def test_a_file_of_random_bytes_is_refused(path, text, magic):
    path.write_bytes((b"cbuf\r\n\x1a\0" if magic else b"") + text)
    with pytest.raises(cbuf.FormatError):
        cbuf.open(path)


@given(head=st.integers(0, 2**64 - 1), reserve=st.integers(0, 2**64 - 1), state=st.integers(0, 2**64 - 1))
def test_counters_of_any_value_read_no_row_that_is_not_there(path, head, reserve, state):
    made = RingFile(path, ("int64",))
    made.put(HEAD, head), made.put(RESERVE, reserve), made.put(STATE, state)
    with cbuf.open(path) as ring:
        assert 0 <= len(ring) <= 8 and ring.oldest <= head
        assert len(ring.last()) <= 8 and len(ring.last(5)) <= 5 and len(ring.view()) <= 8
        with pytest.raises(IndexError):
            ring[head - 9 if head >= 9 else head]
        try:
            assert sum(len(rows) + rows.lost for rows in ring.follow(0, timeout=0)) == head
        except cbuf.Retired:
            assert state == 2


def test_what_is_no_ring_at_all_is_refused_with_its_reason(tmp_path):
    with pytest.raises(cbuf.NotFound):
        cbuf.open(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        cbuf.open("no-such-ring-for-tests")
    os.mkfifo(tmp_path / "fifo")
    os.symlink("fifo", tmp_path / "link")
    for name, reason in (("", "regular"), ("fifo", "regular"), ("link", "cannot be opened")):
        with pytest.raises(cbuf.Error, match=reason):
            cbuf.open(tmp_path / name)
    for name in ("", ".", "..", "a/b", "./a", "a\0b", "/a\0b"):
        with pytest.raises(cbuf.Error, match="name"):
            cbuf.open(name)
    with pytest.raises(TypeError):
        cbuf.open(3)


def test_a_link_to_a_ring_is_refused(file, tmp_path):
    made = file()
    os.symlink(made.path, tmp_path / "link")
    with pytest.raises(cbuf.Error):
        cbuf.open(tmp_path / "link")


def test_a_strangers_ring_is_refused_unless_trusted(file, monkeypatch):
    made = file()
    owner = os.stat(made.path).st_uid
    monkeypatch.setattr(_ring.os, "geteuid", lambda: owner + 1)
    if owner != 0:
        with pytest.raises(cbuf.NotPermitted):
            cbuf.open(made.path)
    else:
        assert cbuf.open(made.path).capacity == 8  # root's are everybody's
        os.chown(made.path, 12345, -1)
        with pytest.raises(PermissionError, match="belongs to user 12345"):
            cbuf.open(made.path)
    assert cbuf.open(made.path, any_owner=True).capacity == 8


def test_an_unreadable_ring_is_refused(file, monkeypatch):
    made = file()

    def refuse(path, flags):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_ring.os, "open", refuse)
    with pytest.raises(cbuf.NotPermitted):
        cbuf.open(made.path)


def test_a_name_is_a_file_in_dev_shm():
    assert _ring.path_of("ticks") == "/dev/shm/ticks" and _ring.path_of("/a/b") == "/a/b"


def test_opening_and_failing_to_open_leave_no_descriptor_behind(file, tmp_path):
    made = file()
    bad = RingFile(tmp_path / "bad", facts=dict(on_full=9))
    before = len(os.listdir("/proc/self/fd"))
    cbuf.open(made.path).close()
    with pytest.raises(cbuf.Error):
        cbuf.open(bad.path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_processor_that_reorders_loads_is_refused_with_the_reason(file, monkeypatch):
    made = file()
    monkeypatch.setattr(_ring.platform, "machine", lambda: "aarch64")
    with pytest.raises(cbuf.ProcessorError, match="aarch64.*acquire fence"):
        cbuf.open(made.path)


# ---- readers, producers and the command line ----

def readers_file(made, **edits):
    """Writes NAME.readers with one gate, one lossy reader, and free slots."""
    facts = dict(magic=b"cbufrdr\0", ring_id=77, max_readers=4)
    facts.update(edits)
    text = bytearray(640 + 4 * 256)
    struct.pack_into("<8sQQ", text, 0, facts["magic"], facts["ring_id"], facts["max_readers"])
    for k, (cursor, lost, gate, name) in enumerate([(5, 2, 1, b"risk"), (2**64 - 1, 0, 0, b"\x1b[31m")]):
        struct.pack_into("<QQqQQQQ", text, 640 + 256 * k, cursor, lost, 1, 3, gate, 9, 1)
        struct.pack_into("<Qq48s", text, 640 + 256 * k + 128, 1000 + k, 1, name)
    with open(made.path + ".readers", "wb") as out:
        out.write(text)


def test_registered_readers_are_listed_with_lag_and_loss(file):
    made, ring = filled(file, 11)
    with pytest.raises(cbuf.NotFound):
        ring.readers()
    readers_file(made)
    risk, other = ring.readers()
    assert (risk.name, risk.cursor, risk.lag, risk.lost, risk.waits, risk.pid) == ("risk", 5, 6, 2, 3, 1000)
    assert risk.gate and not risk.demoted and not other.gate
    assert (other.cursor, other.lag, other.name) == (None, None, "\\x1b[31m")
    made.put(made.gates_offset, 9)
    assert ring.readers()[0].demoted
    for edits in (dict(magic=b"cbuf\r\n\x1a\0"), dict(ring_id=78), dict(max_readers=5)):
        readers_file(made, **edits)
        with pytest.raises(cbuf.FormatError):
            ring.readers()
    os.truncate(made.path + ".readers", 1000)
    with pytest.raises(cbuf.FormatError):
        ring.readers()


def test_the_producer_is_alive_while_another_process_holds_its_lock(file):
    made, ring = filled(file, 1)
    assert ring.producer_alive() is False
    open(made.path + ".lock", "w").close()
    assert ring.producer_alive() is False
    hold = ("import fcntl, struct, sys; f = open(sys.argv[1], 'w');"
            "fcntl.fcntl(f, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 1, 0));"
            "print(); sys.stdin.read()")
    holder = subprocess.Popen([sys.executable, "-c", hold, made.path + ".lock"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    assert ring.producer_alive() is True
    holder.communicate()
    assert ring.producer_alive() is False


def test_stats_are_the_counters(file):
    made, ring = filled(file, 11)
    made.put(DROPPED, 4), made.put(PID, 99)
    stats = ring.stats()
    assert (stats["written"], stats["overwritten"], stats["dropped"]) == (11, 3, 4)
    assert (stats["producer_pid"], stats["state"], stats["waits"]) == (99, "open", 0)
    for end, spilled in (0, 0), (11, 0), (15, 4), (2**64 - 1, 0):  # the last: nothing is in it yet
        made.put(SPILL_END, end)
        assert ring.stats()["spilled"] == spilled


def test_ls_lists_rings_and_only_rings_and_tells_stale_ones(file, tmp_path, capsys):
    made, _ = filled(file, 11)
    closed = RingFile(tmp_path / "closed")
    closed.close()
    RingFile(tmp_path / "odd\x1b", facts=dict(on_full=9))
    readers_file(made)
    (tmp_path / "other").write_bytes(b"no ring")
    os.mkfifo(tmp_path / "fifo")
    main(["ls", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["name", "layout", "capacity", "stride", "head", "state", "producer"],
        ["closed", "numbered", "8", "16", "0", "closed", "-"],
        ["ring", "numbered", "8", "24", "11", "open", "dead"]]
    assert len(lines) == 4 and "odd\\x1b" in lines[3] and "on_full is 9" in lines[3]


def test_info_and_stats_print_what_there_is(file, capsys):
    made, _ = filled(file, 11)
    main(["info", made.path])
    out = capsys.readouterr().out
    assert "8 rows" in out and "overwrite" in out and ["b", "int64", "8"] in map(str.split, out.splitlines())
    main(["stats", made.path])
    assert "readers: unknown" in capsys.readouterr().out
    readers_file(made)
    main(["stats", made.path])
    out = list(map(str.split, capsys.readouterr().out.splitlines()))
    assert ["written", "11"] in out and ["risk", "1000", "5", "6", "2", "yes", "1970-01-01T00:00:00Z"] in out


def test_tail_prints_rows_with_their_numbers_and_follows_to_the_end(file, capsys):
    made = file("timestamp[ns]", "float64", "S4", "bool", "int8")
    for i in range(5):
        made.write([struct.pack("<qd4s?b", i * 10**9, i / 4, b"a\t" + bytes([i]), i % 2, -i)])
    made.close()
    main(["tail", "-n", "2", made.path])
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "sequence\ta\tb\tc\td\te",
        "3\t1970-01-01T00:00:03.000000000\t0.75\ta\\x09\\x03\tTrue\t-3",
        "4\t1970-01-01T00:00:04.000000000\t1.0\ta\\x09\\x04\tFalse\t-4"]
    main(["tail", "-f", "-n", "2", made.path])
    assert capsys.readouterr().out == captured.out
    main(["tail", "-f", "-n", "0", made.path])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_tail_tells_of_lost_rows_and_of_a_retired_ring(file, capsys):
    made, _ = filled(file, 11)
    made.retire()
    main(["tail", "-f", "-n", "10", made.path])
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 9
    assert "# 2 rows lost" in captured.err and "retired" in captured.err


def test_the_command_line_fails_with_one_line(file, tmp_path):
    run = subprocess.run([sys.executable, "-m", "cbuf", "info", str(tmp_path / "none")], capture_output=True,
                         text=True, cwd=os.path.dirname(os.path.dirname(_ring.__file__)))
    assert run.returncode == 1 and run.stderr.count("\n") == 1 and "no such file" in run.stderr


@pytest.mark.parametrize("arguments, told", [
    (["ls", "/none"], "/none: No such file"), (["ls", "/etc/passwd"], "/etc/passwd: Not a directory"),
    (["log", "/tmp"], "/tmp: not a regular file"), (["log", "/proc/self/mem"], "cannot be read"),
    (["pool", "/proc/self/mem"], "cannot be read"), (["info", "/proc/self/mem"], "cannot be read"),
    (["ls", "/"], "No space left")])
def test_what_the_system_refuses_is_told_in_one_line(arguments, told):
    with open("/dev/full", "w") as full:
        run = subprocess.run([sys.executable, "-m", "cbuf", *arguments], stdout=full, stderr=subprocess.PIPE, text=True,
                             cwd=os.path.dirname(os.path.dirname(_ring.__file__)))
    assert run.returncode == 1 and run.stderr.count("\n") == 1 and told in run.stderr, run.stderr
