"""Memory of a waiting job: 10,000 prompts accepted and unsettled, ours beside one task a job, then ours to the end.

    python benchmarks/memory.py [JOBS]

Each side runs in a process of its own against the same emulator (another process). A waiting job's memory is what the
client's process holds with all jobs in flight (tracemalloc, current), less what it held before the first, over the
jobs. The bound is 1 KiB. The peer is the usual hand-written loop: one coroutine a job that submits, sleeps and polls.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
import tracemalloc

import aiohttp
from gateway import serving

from pika_async import AdaptivePolling, FixedInterval, JobStatus, Limits, PikaClient

BOUND = 1024
SECONDS = 60


def prompts(count: int) -> list[str]:
    """Made before the measuring begins, as a user's own input is."""
    return [f"prompt number {number} of a long list of prompts" for number in range(count)]


async def ours(url: str, key: str, count: int) -> dict[str, float]:
    """All jobs in flight in one client."""
    wanted = prompts(count)
    limits = Limits(max_in_flight=count + 1, submitting=64)  # one more for the warm-up
    async with PikaClient("native", api_key=key, base_url=url, polling=FixedInterval(600), limits=limits) as pika:
        await pika.submit("warm up")
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        batch = pika.as_settled(wanted)
        first = asyncio.ensure_future(anext(batch))
        while len(await pika.jobs(JobStatus.QUEUED)) < count + 1:
            await asyncio.sleep(0.5)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        first.cancel()
    return {"bytes": held / count}


async def peer(url: str, key: str, count: int) -> dict[str, float]:
    """One task a job, as hand-written loops do it."""
    wanted = prompts(count)
    headers = {"Authorization": f"Bearer {key}"}
    accepted = 0

    async def one(session: aiohttp.ClientSession, room: asyncio.Semaphore, prompt: str) -> None:
        nonlocal accepted
        body = {"promptText": prompt, "model": "1.5", "options": {"parameters": {}, "extend": False}}
        async with room, session.post(f"{url}/pika/generate", json=body, headers=headers) as answer:
            task_id = (await answer.json())["id"]
        accepted += 1
        while True:
            await asyncio.sleep(600)
            async with session.get(f"{url}/pika/feed/{task_id}", headers=headers) as answer:
                await answer.json()

    async with aiohttp.ClientSession() as session:
        room = asyncio.Semaphore(64)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [asyncio.create_task(one(session, room, prompt)) for prompt in wanted]
        while accepted < count:
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {"bytes": held / count}


async def to_the_end(url: str, key: str, count: int) -> dict[str, float]:
    """The whole batch, settled without downloads."""
    limits = Limits(max_in_flight=count, submitting=64)
    began, cpu = time.perf_counter(), time.process_time()
    policy = AdaptivePolling(expected_seconds=SECONDS * 0.05)
    async with PikaClient("native", api_key=key, base_url=url, polling=policy, limits=limits) as pika:
        report = await pika.run(prompts(count))
    polls = sum(job.polls for job in report.jobs)
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "succeeded": report.counts.get(JobStatus.SUCCEEDED, 0),
        "polls": polls / count,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


SIDES = {"ours": ours, "peer": peer, "to_the_end": to_the_end}


def measure(side: str, server: dict[str, str], count: int) -> dict[str, float]:
    """One side in a fresh process."""
    command = [sys.executable, __file__, side, server["url"], server["key"], str(count)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main(count: int) -> None:
    """Two interleaved rounds of both sides, then the whole batch."""
    with serving(durations="constant:3600", seed=1) as server:
        rounds = [(measure("ours", server, count), measure("peer", server, count)) for _ in range(2)]
    for mine, others in rounds:
        mine_bytes, peer_bytes = mine["bytes"], others["bytes"]
        print(
            f"{count:,} jobs in flight: ours {mine_bytes:,.0f} B a job, one task a job {peer_bytes:,.0f} B; "
            f"ratio {mine_bytes / peer_bytes:.2f}, bound {BOUND} B: {mine_bytes / BOUND:.2f}"
        )
    with serving(durations=f"lognormal:{SECONDS},0.5", time_scale=0.05, seed=1) as server:
        whole = measure("to_the_end", server, count)
    print(
        f"{count:,} prompts without downloads: {whole['succeeded']:,.0f} succeeded in {whole['seconds']:.1f} s, "
        f"{whole['polls']:.1f} polls a job, {whole['cpu'] / count * 1e3:.2f} ms CPU a job, "
        f"peak RSS {whole['rss']:.0f} MiB"
    )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        if sys.argv[1] != "to_the_end":
            tracemalloc.start()
        print(json.dumps(asyncio.run(SIDES[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4])))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 10_000)
