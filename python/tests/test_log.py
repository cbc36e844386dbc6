"""The reader of logs against logs that C wrote."""
import os
import subprocess

import numpy as np
import pytest
from hypothesis import given, strategies as st

import cbuf
from cbuf import _log
from cbuf.__main__ import main

HERE = os.path.dirname(os.path.abspath(__file__))
INCLUDE = os.path.join(HERE, "..", "..", "include")
HEADER = 8192  # and the marks
ENDS = [0]  # how many rows whole records end with: 1, 2 ... 7 rows each, over and over
while ENDS[-1] < 100:
    ENDS.append(ENDS[-1] + (len(ENDS) - 1) % 7 + 1)
ENDS[-1] = 100


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """-> the bytes of a log of 100 rows, and a path to put others at."""
    place = tmp_path_factory.mktemp("log")
    program = str(place / "log_writer")
    spill = str(place / "spill")
    subprocess.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-I", INCLUDE,
                    os.path.join(HERE, "log_writer.c"), "-o", program], check=True)
    subprocess.run([program, str(place / "log"), "100"], check=True)
    subprocess.run([program, spill, "3000", "spill"], check=True)
    return (place / "log").read_bytes(), place / "other"


def place_of(rows):
    """Where the record ends that ends with so many rows."""
    return HEADER + rows * 29 + 24 * ENDS.index(rows)


def check(log, rows):
    numbers = np.arange(rows)
    assert len(log.rows) == rows and (log.sequences == numbers).all()
    assert (log.rows["time"].astype(np.int64) == numbers).all()
    assert (log.rows["price"] == numbers / 4).all()
    assert log.rows["text"].tolist() == [b"row %d" % k for k in numbers]


@pytest.fixture(params=["numpy", "xxhash"])
def how(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(_log, "_xxh64", None)
    elif _log._xxh64 is None:
        pytest.skip("xxhash is not installed")


def test_the_checksum_is_xxh64(how):
    """As in tests/test_log.c: made with xxhash 0.8.1 over the bytes (7 i + 3) mod 256."""
    text = np.array([(7 * i + 3) % 256 for i in range(101)], np.uint8)
    known = {0: 0xAC75FDA2929B17EF, 1: 0x79CF94F5ACE37FE1, 3: 0x96D2A5E583DDD738,
             4: 0x4A862FBB4B73776E, 7: 0xDDC5CF71D37A6368, 8: 0xC6E75E2CBD8E07EE,
             14: 0x51341A138B098941, 31: 0x381822F33376D6B6, 32: 0x9ABD315470AC276A,
             33: 0x72CDD3262F467933, 63: 0x634DA7D265979E61, 64: 0xBCB3847D70525180,
             101: 0x6C892CEEBBC660AA}
    for size, wanted in known.items():
        both = np.stack([text[:size], text[:size]])
        assert [int(h) for h in _log.xxh64(both, np.array([0x9E3779B1] * 2, np.uint64))] \
            == [wanted] * 2


def test_a_whole_log_is_read(made, how):
    data, path = made
    path.write_bytes(data)
    log = cbuf.read_log(str(path))
    check(log, 100)
    assert (log.cut, log.why, log.every_row, log.records) == (0, None, True, len(ENDS) - 1)
    assert log.bytes == len(data) - HEADER


@given(data=st.data())
def test_truncated_anywhere_the_whole_records_before_are_read(made, data):
    whole, path = made
    size = data.draw(st.integers(HEADER, len(whole)))
    path.write_bytes(whole[:size])
    log = cbuf.read_log(str(path))
    rows = max(end for end in ENDS if place_of(end) <= size)
    check(log, rows)
    assert log.cut == size - place_of(rows) and bool(log.why) == bool(log.cut)


@given(data=st.data())
def test_with_any_byte_changed_the_records_before_that_are_read(made, data):
    whole, path = made
    at, mask = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    changed = bytearray(whole)
    changed[at] ^= mask
    path.write_bytes(changed)
    if HEADER - 4096 <= at < HEADER:  # where marks would be
        return check(cbuf.read_log(str(path)), 100)
    if at < HEADER:
        with pytest.raises(cbuf.FormatError, match=str(path)):
            cbuf.read_log(str(path))
        return
    log = cbuf.read_log(str(path))
    check(log, max(end for end in ENDS if place_of(end) <= at))
    assert log.cut and log.why


@pytest.mark.parametrize("damage", [None, 0, 9, 31, 512, 512 + 9, 512 + 31])
def test_a_spill_is_read_from_its_marks_on(made, damage):
    """Of 3,000 rows 200 and a few are left in it, whichever mark is damaged."""
    _, path = made
    data = bytearray((path.parent / "spill").read_bytes())
    assert any(data[4096:4096 + 32]) and any(data[4096 + 512:4096 + 544])
    if damage is not None:
        data[4096 + damage] ^= 0x20
    path.write_bytes(data)
    log = cbuf.read_log(str(path))
    assert (log.every_row, log.cut) == (False, 0)
    assert 130 < len(log.rows) < 800
    assert (log.sequences == np.arange(3000 - len(log.rows), 3000)).all()
    assert (log.rows["time"].astype(np.int64) == log.sequences).all()
    assert (log.rows["price"] == log.sequences / 4).all()


def test_what_is_no_log_is_refused(made, tmp_path):
    with pytest.raises(cbuf.NotFound):
        cbuf.read_log(str(tmp_path / "none"))
    (tmp_path / "text").write_bytes(b"x" * 5000)
    with pytest.raises(cbuf.FormatError):
        cbuf.read_log(str(tmp_path / "text"))
    for size in 0, 7, 64, HEADER - 1:
        (tmp_path / "short").write_bytes(made[0][:size])
        with pytest.raises(cbuf.FormatError):
            cbuf.read_log(str(tmp_path / "short"))


def test_the_command_tells_what_is_in_it_and_exports_it(made, tmp_path, capsys):
    data, path = made
    path.write_bytes(data)
    main(["log", str(path), "--npy", str(tmp_path / "rows.npy")])
    out = capsys.readouterr().out
    assert "0 to 99" in out and "time price text" in out and "nothing" in out
    rows = np.load(tmp_path / "rows.npy")
    assert (rows["price"] == np.arange(100) / 4).all()
    path.write_bytes(data[:-1])
    with pytest.raises(SystemExit) as end:
        main(["log", str(path)])
    assert end.value.code == 1 and "torn" in capsys.readouterr().out
