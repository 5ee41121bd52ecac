"""CPU time of a settled job: the SDK beside the usual hand-written loop, interleaved.

    python benchmarks/loop.py [JOBS] [ROUNDS] [SECONDS]

The peer is the common pattern: `asyncio.gather` over a `Semaphore(100)`, a POST, then one GET per second until
"finished". It saves nothing, classifies no errors and reuses connections for its submissions; the SDK deliberately
opens one for each. Both run in processes of their own against one emulator, itself a separate process, with the same
durations. CPU time is that of the client. The median task duration is SECONDS (lognormal, sigma 0.5), which is not
passed to the SDK.
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

from pika_async import JobStatus, Limits, PikaClient


async def sdk(url: str, key: str, count: int) -> dict[str, float]:
    """Run the batch with the SDK."""
    limits = Limits(max_in_flight=100)
    async with PikaClient("native", api_key=key, base_url=url, limits=limits) as pika:
        report = await pika.run(f"prompt {number}" for number in range(count))
    assert report.counts[JobStatus.SUCCEEDED] == count
    return {"polls": sum(job.polls for job in report.jobs) / count}


async def peer(url: str, key: str, count: int) -> dict[str, float]:
    """Run the batch with `gather`, a semaphore and one poll per second."""
    polls = 0
    headers = {"Authorization": f"Bearer {key}"}

    async def run_job(session: aiohttp.ClientSession, semaphore: asyncio.Semaphore, prompt: str) -> str:
        nonlocal polls
        body = {"promptText": prompt, "model": "1.5", "options": {"parameters": {}, "extend": False}}
        async with semaphore:
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
        semaphore = asyncio.Semaphore(100)
        await asyncio.gather(*(run_job(session, semaphore, f"prompt {number}") for number in range(count)))
    return {"polls": polls / count}


SIDES = {"sdk": sdk, "peer": peer}


def measure(side: str, server: dict[str, str], count: int) -> dict[str, float]:
    """Run one side in a new process; return its result."""
    command = [sys.executable, __file__, side, server["url"], server["key"], str(count)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def main(count: int, rounds: int, seconds: int) -> None:
    """Measure both sides in turn; print the medians of the ratios."""
    with serve(durations=f"lognormal:{seconds},0.5", seed=1) as server:
        pairs = [(measure("sdk", server, count), measure("peer", server, count)) for _ in range(rounds)]
    for name, unit, scale in (
        ("cpu", "ms CPU per job", 1e3 / count),
        ("polls", "polls per job", 1),
        ("seconds", "s", 1),
    ):
        sdk_value, peer_value = (statistics.median(pair[side][name] for pair in pairs) * scale for side in (0, 1))
        ratio = statistics.median(pair[0][name] / pair[1][name] for pair in pairs)
        print(
            f"{count:,} jobs of {seconds} s, {rounds} rounds: SDK {sdk_value:.2f} {unit}, "
            f"hand-written loop {peer_value:.2f}; ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        began, cpu = time.perf_counter(), time.process_time()
        result = asyncio.run(SIDES[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4])))
        result |= {"cpu": time.process_time() - cpu, "seconds": time.perf_counter() - began}
        print(json.dumps(result))
    else:
        arguments = [int(argument) for argument in sys.argv[1:]]
        main(*(arguments + [300, 3, 30][len(arguments) :]))
