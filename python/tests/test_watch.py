"""Ring.watch: rows in an asyncio event loop, against a producer in C in another process."""
import asyncio

import numpy as np
import pytest

import cbuf
from cbuf import _watch
from test_live import every_layout, program, writer  # noqa: F401 (fixtures)


async def collect(name, go, start="oldest", **options):
    """All rows from `start` on: their sequence numbers, how many were lost, how many batches."""
    sequences, lost, batches = [], 0, 0
    with cbuf.open(name) as ring:
        go()
        async for rows in ring.watch(start, **options):
            assert np.array_equal(rows["time"].astype(np.int64), rows.sequence * 1000)
            sequences.append(rows.sequence)
            lost, batches = lost + rows.lost, batches + 1
    return np.concatenate(sequences), lost, batches


@pytest.fixture
def woken_only(monkeypatch):
    """Whoever sleeps here is woken by the producer, or never."""
    monkeypatch.setattr(_watch, "_LONGEST_SLEEP", 3600)
    monkeypatch.setattr(_watch, "_SHORT_SLEEP", 3600)


@every_layout
def test_every_row_comes_to_an_event_loop_that_only_the_producer_wakes(writer, layout, woken_only):
    name, producer = writer(layout, 1 << 17, 1, 100000)
    sequences, lost, _ = asyncio.run(collect(name, producer.go))
    assert producer.written() == 100000
    assert lost == 0 and np.array_equal(sequences, np.arange(100000))


def test_a_lapped_watcher_counts_what_it_lost(writer, woken_only):
    name, producer = writer("numbered", 64, 16, 300000)
    sequences, lost, _ = asyncio.run(collect(name, producer.go, start=0))
    assert len(sequences) + lost == producer.written() == 300000
    assert np.all(np.diff(sequences) > 0)


def test_the_loops_other_tasks_run_meanwhile(writer, woken_only):
    name, producer = writer("shared", 4096, 1, 50000)
    turns = 0

    async def both():
        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)
        task = asyncio.create_task(other())
        try:
            return await collect(name, producer.go, batch=64)
        finally:
            task.cancel()
    _, _, batches = asyncio.run(both())
    assert turns >= batches


def test_who_may_not_write_the_readers_file_looks_now_and_then(writer, monkeypatch):
    monkeypatch.setattr(_watch._Event, "_open", lambda self: (_ for _ in ()).throw(OSError("no")))
    name, producer = writer("shared", 1 << 15, 7, 20000)
    sequences, lost, _ = asyncio.run(collect(name, producer.go, start=0))
    assert len(sequences) + lost == 20000


def test_a_batch_of_no_rows_is_refused(writer):
    name, producer = writer("shared", 64, 1, 10)
    with cbuf.open(name) as ring, pytest.raises(ValueError):
        ring.watch(batch=0)
    producer.go()
    producer.written()
