"""CPU time of one poll: the whole SDK beside a bare aiohttp GET with JSON decoding, at the same rate, interleaved.

    python benchmarks/feed.py [POLLS PER SECOND] [SECONDS] [ROUNDS]

The SDK polls unsettled tasks every 2 s, through scheduler, transport, verdict, decoder, snapshot and in-memory
journal. The peer sends the same number of GETs per second of the same feeds, evenly spaced, from as many workers over
one session, and decodes with `json.loads`. Both run in processes of their own against one emulator, itself a separate
process. CPU time is that of the client, without the time before the first poll.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time

import aiohttp
from gateway import serve

from pika_async import FixedInterval, JobStatus, Limits, PikaClient

INTERVAL_S = 2.0
WORKERS = 32


async def sdk(url: str, key: str, rate: int, seconds: float) -> dict[str, float]:
    """Poll *rate* times per second with the SDK."""
    tasks = int(rate * INTERVAL_S)
    limits = Limits(submits_per_second=rate, polling=WORKERS)  # even submissions lead to even polls
    async with PikaClient(
        "native", api_key=key, base_url=url, polling=FixedInterval(INTERVAL_S), limits=limits
    ) as pika:
        batch = pika.as_settled(f"prompt {number}" for number in range(tasks))
        first = asyncio.ensure_future(anext(batch))
        while len(await pika.jobs(JobStatus.PLANNED)) or len(pika.active_jobs()) < tasks:
            await asyncio.sleep(0.1)
        await asyncio.sleep(INTERVAL_S)
        before, cpu = sum(job.polls for job in pika.active_jobs()), time.process_time()
        await asyncio.sleep(seconds)
        polls = sum(job.polls for job in pika.active_jobs()) - before
        cpu = time.process_time() - cpu
        first.cancel()
    return {"polls": polls, "cpu": cpu / polls}


async def peer(url: str, key: str, rate: int, seconds: float) -> dict[str, float]:
    """Send *rate* GETs per second from workers."""
    headers = {"Authorization": f"Bearer {key}"}
    polls = 0
    async with aiohttp.ClientSession() as session:
        body = {"promptText": "a", "model": "1.5", "options": {"parameters": {}, "extend": False}}
        async with session.post(f"{url}/pika/generate", json=body, headers=headers) as answer:
            task_id = (await answer.json())["id"]
        queue: asyncio.Queue[None] = asyncio.Queue()

        async def worker() -> None:
            nonlocal polls
            while True:
                await queue.get()
                async with session.get(f"{url}/pika/feed/{task_id}", headers=headers) as answer:
                    json.loads(await answer.read())["videos"]
                polls += 1

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
    return {"polls": polls, "cpu": cpu / polls}


SIDES = {"sdk": sdk, "peer": peer}


def measure(side: str, server: dict[str, str], rate: int, seconds: int) -> dict[str, float]:
    """Run one side in a new process; return its result."""
    command = [sys.executable, __file__, side, server["url"], server["key"], str(rate), str(seconds)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def main(rate: int, seconds: int, rounds: int) -> None:
    """Measure both sides in turn; print the median of the ratios."""
    with serve(durations="constant:100000", seed=1) as server:
        pairs = [(measure("sdk", server, rate, seconds), measure("peer", server, rate, seconds)) for _ in range(rounds)]
    sdk_ms, peer_ms = (1e3 * statistics.median(pair[side]["cpu"] for pair in pairs) for side in (0, 1))
    ratio = statistics.median(pair[0]["cpu"] / pair[1]["cpu"] for pair in pairs)
    print(
        f"{rate} polls per second, {rounds} rounds: SDK {sdk_ms:.3f} ms CPU per poll, bare aiohttp {peer_ms:.3f}; "
        f"ratio {ratio:.2f}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        side, url, key, *numbers = sys.argv[1:]
        print(json.dumps(asyncio.run(SIDES[side](url, key, *map(int, numbers)))))
    else:
        arguments = [int(argument) for argument in sys.argv[1:]]
        main(*(arguments + [300, 10, 5][len(arguments) :]))
