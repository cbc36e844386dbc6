"""Follows the ring /dev/shm/ticks in an asyncio event loop, beside another task. Start producer first.

    PYTHONPATH=python python3 examples/asyncio_reader.py

The loop sleeps until the producer wakes it: nothing polls.
"""
import asyncio

import cbuf


async def follow(ring, counts):
    async for rows in ring.watch("oldest"):
        counts["rows"] += len(rows)
        counts["lost"] += rows.lost
        counts["bid"] = rows["bid"][-1]


async def tell(counts):
    while True:
        await asyncio.sleep(1)
        print("%(rows)d rows, %(lost)d lost, bid %(bid).2f" % counts, flush=True)


async def main():
    counts = {"rows": 0, "lost": 0, "bid": 0.0}
    with cbuf.open("ticks") as ring:
        telling = asyncio.create_task(tell(counts))
        try:
            await follow(ring, counts)  # until the producer closes the ring
        except cbuf.Retired:
            pass  # it was removed then, as producer does
        telling.cancel()
    print("%(rows)d rows, %(lost)d lost; the producer is done" % counts)


asyncio.run(main())
