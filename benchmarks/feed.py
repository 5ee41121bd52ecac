"""CPU of one look: the whole SDK beside a bare aiohttp GET and its decoding, at the same rate, interleaved.

    python benchmarks/feed.py [LOOKS A SECOND] [SECONDS] [ROUNDS]

Ours: tasks that do not settle, each looked at every 2 s, through scheduler, transport, verdict, decoder, snapshot and
journal in memory. The peer: as many GETs a second of the same feeds, evenly, by as many workers, over one session, with
`json.loads`. Both run in processes of their own against one emulator (another process); CPU is the client's, without
what comes before the first look.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time

import aiohttp
from gateway import serving

from pika_async import FixedInterval, JobStatus, Limits, PikaClient

INTERVAL = 2.0
WORKERS = 32


async def ours(url: str, key: str, rate: int, seconds: float) -> dict[str, float]:
    """`rate` looks a second by the scheduler."""
    tasks = int(rate * INTERVAL)
    limits = Limits(submits_per_second=rate, polling=WORKERS)  # they come evenly, and so do the looks
    async with PikaClient("native", api_key=key, base_url=url, polling=FixedInterval(INTERVAL), limits=limits) as pika:
        batch = pika.as_settled(f"prompt {number}" for number in range(tasks))
        first = asyncio.ensure_future(anext(batch))
        while len(await pika.jobs(JobStatus.PLANNED)) or len(pika.active_jobs()) < tasks:
            await asyncio.sleep(0.1)
        await asyncio.sleep(INTERVAL)
        before, cpu = sum(job.polls for job in pika.active_jobs()), time.process_time()
        await asyncio.sleep(seconds)
        looks = sum(job.polls for job in pika.active_jobs()) - before
        cpu = time.process_time() - cpu
        first.cancel()
    return {"looks": looks, "cpu": cpu / looks}


async def peer(url: str, key: str, rate: int, seconds: float) -> dict[str, float]:
    """`rate` GETs a second by workers."""
    headers = {"Authorization": f"Bearer {key}"}
    looks = 0
    async with aiohttp.ClientSession() as session:
        body = {"promptText": "a", "model": "1.5", "options": {"parameters": {}, "extend": False}}
        async with session.post(f"{url}/pika/generate", json=body, headers=headers) as answer:
            task_id = (await answer.json())["id"]
        queue: asyncio.Queue[None] = asyncio.Queue()

        async def worker() -> None:
            nonlocal looks
            while True:
                await queue.get()
                async with session.get(f"{url}/pika/feed/{task_id}", headers=headers) as answer:
                    json.loads(await answer.read())["videos"]
                looks += 1

        workers = [asyncio.create_task(worker()) for _ in range(WORKERS)]
        due = began = time.monotonic()
        cpu = time.process_time()
        while due < began + seconds:
            due += 1 / rate
            await asyncio.sleep(due - time.monotonic())
            queue.put_nowait(None)
        cpu = time.process_time() - cpu
        for task in workers:
            task.cancel()
    return {"looks": looks, "cpu": cpu / looks}


SIDES = {"ours": ours, "peer": peer}


def measure(side: str, server: dict[str, str], rate: int, seconds: int) -> dict[str, float]:
    """One side in a fresh process."""
    command = [sys.executable, __file__, side, server["url"], server["key"], str(rate), str(seconds)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main(rate: int, seconds: int, rounds: int) -> None:
    """Both sides in turn; the median of the ratios."""
    with serving(durations="constant:100000", seed=1) as server:
        pairs = [
            (measure("ours", server, rate, seconds), measure("peer", server, rate, seconds)) for _ in range(rounds)
        ]
    mine, others = (1e3 * statistics.median(pair[side]["cpu"] for pair in pairs) for side in (0, 1))
    ratio = statistics.median(pair[0]["cpu"] / pair[1]["cpu"] for pair in pairs)
    print(
        f"{rate} looks a second, {rounds} rounds: ours {mine:.3f} ms CPU a look, bare aiohttp {others:.3f}; "
        f"ratio {ratio:.2f}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        side, url, key, *numbers = sys.argv[1:]
        print(json.dumps(asyncio.run(SIDES[side](url, key, *map(int, numbers)))))
    else:
        given = [int(argument) for argument in sys.argv[1:]]
        main(*(given + [300, 10, 5][len(given) :]))
