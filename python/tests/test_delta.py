"""Delta columns as NumPy sees them, against rows that cbuf.h wrote: bit for bit, also while they are overwritten."""
import ctypes
import os
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import cbuf
from cbuf import _advise, _deltas, _format
from cbuf.__main__ import main

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PLAIN = np.dtype([("time", "M8[ns]"), ("i64", "i8"), ("u64", "u8"), ("price", "f8"), ("text", "S5"), ("i8", "i1"),
                  ("u8", "u1"), ("i16", "i2"), ("u16", "u2"), ("i32", "i4"), ("u32", "u4"), ("small", "f4"),
                  ("other", "f8")], align=True)
CAPACITY = 64


def compiled(folder, *flags):
    compiler = shutil.which(os.environ.get("CC", "cc").split()[0])
    if not compiler:
        pytest.skip("no C compiler")
    path = str(folder / "delta_ring.so")
    subprocess.run([compiler, "-shared", "-fPIC", *flags, "-I" + os.path.join(ROOT, "include"),
                    os.path.join(HERE, "delta_ring.c"), "-o", path], check=True)
    return path


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    made = ctypes.CDLL(compiled(tmp_path_factory.mktemp("library"), "-O1"))
    made.make_ring.restype = ctypes.c_void_p
    made.write_rows.restype = ctypes.c_int64
    made.write_rows.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]
    made.end_ring.argtypes = [ctypes.c_void_p]
    return made


class Writer:
    """A ring and all rows that were written to it."""

    def __init__(self, library, path, dense=0, block=4, bits=8, capacity=CAPACITY):
        self.library, self.path, self.rows = library, str(path), np.zeros(0, PLAIN)
        self.ring = library.make_ring(self.path.encode(), dense, capacity, block, bits)
        assert self.ring

    def write(self, rows):
        rows = np.ascontiguousarray(rows)
        assert self.library.write_rows(self.ring, rows.ctypes.data, len(rows)) == len(rows)
        self.rows = np.concatenate([self.rows, rows])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.library.end_ring(self.ring)


def same(rows, wanted):
    """Whether all columns have the same bytes."""
    return len(rows) == len(wanted) and all(
        np.ascontiguousarray(rows[name]).tobytes() == np.ascontiguousarray(wanted[name]).tobytes()
        for name in PLAIN.names)


def rows_of(seed, n, wild):
    """n rows that walk, of which the part `wild` jumps anywhere."""
    random = np.random.default_rng(seed)
    rows = np.frombuffer(random.bytes(n * PLAIN.itemsize), PLAIN).copy()
    for name in PLAIN.names:
        kind, size = PLAIN[name].kind, PLAIN[name].itemsize
        calm = random.random(n) >= wild
        if kind == "f":
            step = 100 if name == "price" else 2
            walk = (np.cumsum(random.integers(-3, 4, n)) / step).astype(PLAIN[name])
        elif kind == "S":
            continue
        else:
            start = np.frombuffer(random.bytes(8), "i8")
            walk = (start + np.cumsum(random.integers(-3, 4, n))).astype("i%d" % size).view(PLAIN[name])
        rows[name][calm] = walk[calm]
    special = np.array([-0.0, np.nan, np.inf, -np.inf, 5e-324, 1e300, 0.1 + 0.2])
    at = random.random(n) < wild / 4
    rows["price"][at] = random.choice(special, at.sum())
    return rows


cases = st.fixed_dictionaries({
    "seed": st.integers(0, 2**32), "wild": st.sampled_from([0, 0.01, 0.3, 1]), "dense": st.integers(0, 2),
    "block": st.sampled_from([1, 2, 4, 32]), "bits": st.sampled_from([8, 16, 32]),
    "part": st.sampled_from([1, 8, _deltas._PART_ROWS]), "batches": st.lists(st.integers(1, 100), min_size=1, max_size=6)})


@given(case=cases, data=st.data())
@settings(max_examples=60)
def test_rows_come_back_bit_for_bit_however_they_are_asked_for(library, tmp_path_factory, case, data):
    path = tmp_path_factory.getbasetemp() / "delta"
    with Writer(library, path, case["dense"], case["block"], case["bits"]) as writer, \
            mock.patch.object(_deltas, "_PART_ROWS", case["part"]), cbuf.open(path) as ring:
        follower = ring.follow("oldest", timeout=0)
        for k, n in enumerate(case["batches"]):
            writer.write(rows_of(case["seed"] + k, n, case["wild"]))
            head, oldest = len(writer.rows), ring.oldest
            assert ring.head == head and ring.dtype.itemsize == PLAIN.itemsize
            got = ring.last()
            assert got.first == oldest and same(got, writer.rows[oldest:])
            start = data.draw(st.integers(0, head))
            got = ring[start:data.draw(st.integers(start, head))]
            assert same(got, writer.rows[got.first:got.first + len(got)])
            index = data.draw(st.integers(oldest, head - 1))
            assert same(np.array([ring[index]]), writer.rows[index:index + 1])
        got = list(follower)
        assert got[-1].first + len(got[-1]) == len(writer.rows)
        for rows in got:
            assert same(rows, writer.rows[rows.first:rows.first + len(rows)])


@pytest.mark.parametrize("dense, bits, stride", [(0, 8, 32), (0, 16, 40), (1, 8, 24), (1, 16, 33), (1, 32, 47), (2, 16, 64)])
def test_only_dense_rows_that_are_no_whole_words_are_said_to_be_packed(library, tmp_path, dense, bits, stride):
    with Writer(library, tmp_path / "ring", dense, bits=bits) as writer:
        writer.write(rows_of(4, 100, 0.1))
        with cbuf.open(writer.path) as ring:
            assert ring.facts.stride == stride and bool(ring.facts.features & _format.PACKED) == (stride % 8 > 0)
            assert same(ring.last(), writer.rows[ring.oldest:])
        file = bytearray(open(writer.path, "rb").read())
    at = dict(features=16, stride=68)  # in the header
    for features in _format.PACKED, _format.DENSE | _format.PACKED if dense else _format.PACKED:
        damaged = bytearray(file)
        damaged[at["features"]] ^= features
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(cbuf.FormatError, match="packed|do not go with each other"):
            cbuf.open(str(tmp_path / "damaged"))
    file[at["stride"]] += -1 if stride % 8 == 0 else 8 - stride % 8
    (tmp_path / "damaged").write_bytes(file)
    with pytest.raises(cbuf.FormatError, match="stride"):
        cbuf.open(str(tmp_path / "damaged"))
    file[at["features"]] |= _format.PACKED
    if not dense:
        (tmp_path / "damaged").write_bytes(file)
        with pytest.raises(cbuf.FormatError, match="only dense rows"):
            cbuf.open(str(tmp_path / "damaged"))


class Plane:
    """An escape plane that is looked at after something was done."""

    def __init__(self, plane):
        self.plane = plane

    def look(self, key):
        return self.plane[key]

    def __getitem__(self, key):
        return self.look(key)


@pytest.mark.parametrize("dense", [0, 1])
@pytest.mark.parametrize("where", ["copy", "bases", "decode", "plane"])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 40, 100])
@pytest.mark.parametrize("wild", [0, 0.3])  # no escapes, or many
def test_what_is_overwritten_in_the_middle_is_lost_and_never_decoded_with_another_base(
        library, tmp_path, monkeypatch, dense, where, before, rows, wild):
    with Writer(library, tmp_path / "ring", dense, bits=8 if wild else 32) as writer, cbuf.open(writer.path) as ring:
        writer.write(rows_of(1, 130, wild))
        if not wild:
            where = "bases" if where == "plane" else where
        ring._deltas._plane = Plane(ring._deltas._plane)
        owner, name = {"copy": (ring, "_copy"), "bases": (ring._deltas, "bases"), "decode": (ring._deltas, "decode"),
                       "plane": (ring._deltas._plane, "look")}[where]
        original, done = getattr(owner, name), []

        def disturbed(*arguments):
            if before and not done:
                done.append(writer.write(rows_of(2, rows, wild)))
            result = original(*arguments)
            if not before and not done:
                done.append(writer.write(rows_of(2, rows, wild)))
            return result
        monkeypatch.setattr(owner, name, disturbed)
        got = ring[130 - CAPACITY:130]
        assert done and got.first + len(got) == 130
        assert same(got, writer.rows[got.first:130])


def test_a_row_that_is_not_whole_does_not_make_the_reader_touch_the_escape_plane(library, tmp_path, monkeypatch):
    with Writer(library, tmp_path / "ring", block=2) as writer, cbuf.open(writer.path) as ring:
        writer.write(np.zeros(CAPACITY, PLAIN))
        original = ring._copy

        def disturbed(*arguments):
            writer.write(rows_of(3, 20, 1))
            return original(*arguments)  # torn, as far as the reader can know: head was loaded before
        monkeypatch.setattr(ring, "_copy", disturbed)
        touched = []
        plane = ring._deltas._plane

        class Watched:
            def __getitem__(self, key):
                touched.append(key)
                return plane[key]
        ring._deltas._plane = Watched()
        got = ring[CAPACITY - 30:CAPACITY]
        assert len(got) and same(got, writer.rows[got.first:CAPACITY]) and not touched


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("head", [2**63 - 64, 2**63 + 5, 2**64 - 1])
def test_whatever_the_head_says_rows_are_decoded(library, tmp_path, block, head):
    with Writer(library, tmp_path / "ring", block=block) as writer:
        writer.write(rows_of(5, CAPACITY, 1))
        file = bytearray(open(writer.path, "rb").read())
    for word in _format.HEAD, _format.RESERVE:
        file[8 * word:8 * word + 8] = head.to_bytes(8, sys.byteorder)
    (tmp_path / "damaged").write_bytes(file)
    with cbuf.open(str(tmp_path / "damaged")) as ring:
        rows = ring.last()
        assert rows.first == head - CAPACITY
        assert same(rows, np.roll(writer.rows, -(head % CAPACITY)))


@pytest.mark.parametrize("flags", ["-ffast-math", "-funsafe-math-optimizations",
                                   "-fassociative-math -fno-signed-zeros -fno-trapping-math"])
def test_a_program_that_rounds_in_other_ways_is_refused_floats_with_steps(tmp_path, flags):
    path = compiled(tmp_path, "-O2", *flags.split())  # which changes how the process that loads it rounds
    make = "import ctypes, sys; sys.exit(bool(ctypes.CDLL(%r).make_ring(%r, 0, 64, 4, 8)))" % (
        path, str(tmp_path / "ring").encode())
    done = subprocess.run([sys.executable, "-c", make], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and "-ffast-math" in done.stderr


def test_escapes_are_counted_and_sizes_and_choices_are_told(library, tmp_path, capsys):
    with Writer(library, tmp_path / "ring", block=32) as writer, cbuf.open(writer.path) as ring:
        rows = np.zeros(1000, PLAIN)
        rows["price"][100::50] = 0.005
        writer.write(rows)
        assert ring.escapes() == {**{name: 0 for name in PLAIN.names if name not in ("text", "other")}, "price": 18}
        with pytest.raises(cbuf.Error, match="last"):
            ring.view()
        main(["info", writer.path])
        told = capsys.readouterr().out
        assert "%d bytes, 32 apart" % PLAIN.itemsize in told and "18 (1.8 %)" in told and "0.01" in told
        assert "1 pages of escapes" in told
        main(["ls", str(tmp_path)])
        assert " 32 " in capsys.readouterr().out


@given(seed=st.integers(0, 1000), step=st.sampled_from([0.01, 0.05, 0.25, 1.0, 1e-5]))
@settings(max_examples=20)
def test_advice_finds_the_step_and_narrow_columns(seed, step):
    random = np.random.default_rng(seed)
    rows = np.zeros(2000, [("time", "M8[ns]"), ("price", "f8"), ("size", "i4"), ("noise", "f8")])
    rows["time"] = 1700000000000000000 + np.cumsum(random.integers(0, 10**6, 2000))
    scale = round(1 / step) if step < 1 else 1
    rows["price"] = (100 * scale + np.cumsum(random.integers(-2, 3, 2000))) / scale
    rows["size"] = random.integers(0, 100, 2000)
    rows["noise"] = random.random(2000)
    advice = _advise.advise(rows)
    chosen = {column.name: column for column in advice.columns}
    assert chosen["price"].bits in (8, 16) and chosen["price"].step == step
    assert chosen["time"].bits in (0, 32) and chosen["noise"].bits == 0 and advice.worth
    assert advice.bytes < 0.8 * 32


@pytest.mark.parametrize("gap, last, deltas", [(0, 1, 32), (3, 1, 0), (0, 4000, 0)])
def test_advice_is_never_a_ring_that_is_refused(gap, last, deltas):
    kinds = ["i8"] * 70 + ["?"] * 69 + ["S%d" % last]
    offsets = np.cumsum([0] + [np.dtype(kind).itemsize + gap for kind in kinds])
    rows = np.zeros(20, {"names": ["c%d" % k for k in range(140)], "formats": kinds, "offsets": offsets[:-1],
                         "itemsize": offsets[-1]})
    advice = _advise.advise(rows)
    assert sum(column.bits > 0 for column in advice.columns) == deltas and advice.worth == (deltas > 0)


def test_advice_leaves_columns_of_arrays_as_they_are(tmp_path, capsys):
    rows = np.zeros(100, [("array", "i8", 3), ("time", "i8")])
    np.save(tmp_path / "rows.npy", rows)
    main(["advise", str(tmp_path / "rows.npy")])
    assert '{ "time", 8, 0 }' in capsys.readouterr().out


def test_advice_from_files_and_rings(library, tmp_path, capsys):
    rows = rows_of(1, 500, 0)
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "rows.csv").write_text("t,price\n" + "".join("%d,%.2f\n" % (i, 100 + i / 100) for i in range(500)))
    with Writer(library, tmp_path / "ring", capacity=512) as writer:
        writer.write(rows)
        for source in "rows.npy", "rows.csv", "ring":
            main(["advise", str(tmp_path / source)])
            told = capsys.readouterr().out
            assert "cbuf_delta deltas[]" in told and '"price", 8, 0.01' in told or '"price", 16, 0.01' in told
    for bad, text in ("bad.npy", "x"), ("bad.csv", "a\n1\n"), ("none", None):
        if text:
            (tmp_path / bad).write_text(text)
        with pytest.raises(SystemExit):
            main(["advise", str(tmp_path / bad)])


def test_advice_for_columns_that_are_no_numbers_is_to_leave_them(tmp_path, capsys):
    np.save(tmp_path / "rows.npy", np.zeros(100, [("pair", "i4", 2), ("inner", [("x", "f4")])]))
    main(["advise", str(tmp_path / "rows.npy")])
    told = capsys.readouterr().out
    assert "plain rows are best" in told and "deltas[]" not in told


def test_files_that_are_no_tables_get_one_line(tmp_path):
    np.savez(tmp_path / "z", np.zeros(3))
    os.rename(tmp_path / "z.npz", tmp_path / "archive.npy")
    for name in "empty.npy", "empty.csv":
        (tmp_path / name).touch()
    os.mkdir(tmp_path / "directory.npy")
    for name in os.listdir(tmp_path):
        with pytest.raises(SystemExit, match="^cbuf: .*%s: [^\n]*$" % name):
            main(["advise", str(tmp_path / name)])
