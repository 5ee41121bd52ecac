"""CPU of a settled job: ours beside the usual hand-written loop, interleaved.

    python benchmarks/loop.py [JOBS] [ROUNDS] [SECONDS]

The peer is what people write: `asyncio.gather` over a `Semaphore(100)`, a POST, then a GET a second until "finished".
It keeps nothing, judges nothing and reuses connections for its submissions; ours opens one for each, on purpose. Both
run in processes of their own against one emulator (another process), with the same durations; the CPU time is the
client's. Tasks take SECONDS in the median (lognormal, sigma 0.5); ours is told nothing of that.
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

from pika_async import JobStatus, Limits, PikaClient


async def ours(url: str, key: str, count: int) -> dict[str, float]:
    """One `run`."""
    limits = Limits(max_in_flight=100)
    async with PikaClient("native", api_key=key, base_url=url, limits=limits) as pika:
        report = await pika.run(f"prompt {number}" for number in range(count))
    assert report.counts[JobStatus.SUCCEEDED] == count
    return {"polls": sum(job.polls for job in report.jobs) / count}


async def peer(url: str, key: str, count: int) -> dict[str, float]:
    """Gather, a semaphore, a poll a second."""
    polls = 0
    headers = {"Authorization": f"Bearer {key}"}

    async def one(session: aiohttp.ClientSession, room: asyncio.Semaphore, prompt: str) -> str:
        nonlocal polls
        body = {"promptText": prompt, "model": "1.5", "options": {"parameters": {}, "extend": False}}
        async with room:
            async with session.post(f"{url}/pika/generate", json=body, headers=headers) as answer:
                task_id = (await answer.json())["id"]
            while True:
                await asyncio.sleep(1)
                polls += 1
                async with session.get(f"{url}/pika/feed/{task_id}", headers=headers) as answer:
                    videos = (await answer.json())["videos"]
                if videos and videos[0]["status"] == "finished":
                    return str(videos[0]["resultUrl"])

    async with aiohttp.ClientSession() as session:
        room = asyncio.Semaphore(100)
        await asyncio.gather(*(one(session, room, f"prompt {number}") for number in range(count)))
    return {"polls": polls / count}


SIDES = {"ours": ours, "peer": peer}


def measure(side: str, server: dict[str, str], count: int) -> dict[str, float]:
    """One side in a fresh process."""
    command = [sys.executable, __file__, side, server["url"], server["key"], str(count)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main(count: int, rounds: int, seconds: int) -> None:
    """Both sides in turn; the medians of the ratios."""
    with serving(durations=f"lognormal:{seconds},0.5", seed=1) as server:
        pairs = [(measure("ours", server, count), measure("peer", server, count)) for _ in range(rounds)]
    for name, unit, scale in (("cpu", "ms CPU a job", 1e3 / count), ("polls", "polls a job", 1), ("seconds", "s", 1)):
        mine, others = (statistics.median(pair[side][name] for pair in pairs) * scale for side in (0, 1))
        ratio = statistics.median(pair[0][name] / pair[1][name] for pair in pairs)
        print(
            f"{count:,} jobs of {seconds} s, {rounds} rounds: ours {mine:.2f} {unit}, hand-written loop {others:.2f}; "
            f"ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        began, cpu = time.perf_counter(), time.process_time()
        result = asyncio.run(SIDES[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4])))
        result |= {"cpu": time.process_time() - cpu, "seconds": time.perf_counter() - began}
        print(json.dumps(result))
    else:
        given = [int(argument) for argument in sys.argv[1:]]
        main(*(given + [300, 3, 30][len(given) :]))
