"""Memory of a waiting job, beside one task per job, and of a settled job of a long service; then a whole SDK batch.

    python benchmarks/memory.py [JOBS]

Each side runs in a process of its own against the same emulator, itself a separate process. The memory of a waiting
job is the current tracemalloc total with all jobs in flight, minus the total before the first, divided by the number
of jobs. The bound is 1 KiB. The peer is the usual hand-written loop: one coroutine per job that submits, sleeps and
polls. The memory of a settled job is what each of a fifth as many more leaves behind in a client that has settled a
tenth before: without a journal file, with one, and beyond the bound of `Limits(settled=...)`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import aiohttp
from gateway import serve

from pika_async import AdaptivePolling, FixedInterval, JobStatus, Limits, PikaClient

BOUND_BYTES = 1024
MEDIAN_S = 60


def prompts(count: int) -> list[str]:
    """Build the prompts before the measurement starts, like the input of a user."""
    return [f"prompt number {number} of a long list of prompts" for number in range(count)]


async def sdk(url: str, key: str, count: int) -> dict[str, float]:
    """Measure the SDK with all jobs in flight in one client."""
    batch_prompts = prompts(count)
    limits = Limits(max_in_flight=count + 1, submitting=64)  # one more for the warm-up
    async with PikaClient("native", api_key=key, base_url=url, polling=FixedInterval(600), limits=limits) as pika:
        await pika.submit("warm up")
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        batch = pika.as_settled(batch_prompts)
        first = asyncio.ensure_future(anext(batch))
        while len(await pika.jobs(JobStatus.QUEUED)) < count + 1:
            await asyncio.sleep(0.5)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        first.cancel()
    return {"bytes": held / count}


async def peer(url: str, key: str, count: int) -> dict[str, float]:
    """Measure one asyncio task per job, as in a hand-written loop."""
    batch_prompts = prompts(count)
    headers = {"Authorization": f"Bearer {key}"}
    accepted = 0

    async def wait_for_job(session: aiohttp.ClientSession, semaphore: asyncio.Semaphore, prompt: str) -> None:
        nonlocal accepted
        body = {"promptText": prompt, "model": "1.5", "options": {"parameters": {}, "extend": False}}
        async with semaphore, session.post(f"{url}/pika/generate", json=body, headers=headers) as answer:
            task_id = (await answer.json())["id"]
        accepted += 1
        while True:
            await asyncio.sleep(600)
            async with session.get(f"{url}/pika/feed/{task_id}", headers=headers) as answer:
                await answer.json()

    async with aiohttp.ClientSession() as session:
        semaphore = asyncio.Semaphore(64)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [asyncio.create_task(wait_for_job(session, semaphore, prompt)) for prompt in batch_prompts]
        while accepted < count:
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {"bytes": held / count}


async def settled(url: str, key: str, count: int, **options: Any) -> dict[str, float]:
    """Measure what a settled job leaves in a client that generates one video after another in 50 tasks."""
    limits = options.pop("limits", Limits(submitting=50))
    async with PikaClient(
        "native", api_key=key, base_url=url, polling=FixedInterval(0.2), limits=limits, **options
    ) as pika:

        async def serve(numbers: range) -> None:
            for number in numbers:
                await pika.generate(f"prompt number {number} of a long list of prompts")

        async def generate(first: int, last: int) -> int:
            await asyncio.gather(*(serve(range(first + task, last, 50)) for task in range(50)))
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        first = count // 10
        before = await generate(0, first)
        return {"bytes": (await generate(first, first + count // 5) - before) / (count // 5)}


async def settled_with_journal(url: str, key: str, count: int) -> dict[str, float]:
    """Measure a settled job of a client with a journal file."""
    with tempfile.TemporaryDirectory() as folder:
        return await settled(url, key, count, journal=Path(folder) / "journal.db")


async def settled_beyond_bound(url: str, key: str, count: int) -> dict[str, float]:
    """Measure a settled job of a client that forgets an older one for it."""
    return await settled(url, key, count, limits=Limits(submitting=50, settled=count // 20))


async def whole_batch(url: str, key: str, count: int) -> dict[str, float]:
    """Measure a whole SDK batch, settled without downloads."""
    limits = Limits(max_in_flight=count, submitting=64)
    began, cpu = time.perf_counter(), time.process_time()
    policy = AdaptivePolling(expected_seconds=MEDIAN_S * 0.05)
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


SETTLED = {
    "without a journal file": settled,
    "beyond the bound": settled_beyond_bound,
    "with a journal file": settled_with_journal,
}
SIDES = {"sdk": sdk, "peer": peer, "whole_batch": whole_batch} | SETTLED


def measure(side: str, server: dict[str, str], count: int) -> dict[str, float]:
    """Run one side in a new process; return its result."""
    command = [sys.executable, __file__, side, server["url"], server["key"], str(count)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def main(count: int) -> None:
    """Measure two interleaved rounds of both sides, then the whole batch."""
    with serve(durations="constant:3600", seed=1) as server:
        rounds = [(measure("sdk", server, count), measure("peer", server, count)) for _ in range(2)]
    for sdk_result, peer_result in rounds:
        sdk_bytes, peer_bytes = sdk_result["bytes"], peer_result["bytes"]
        print(
            f"{count:,} jobs in flight: SDK {sdk_bytes:,.0f} B per job, one task per job {peer_bytes:,.0f} B; "
            f"ratio {sdk_bytes / peer_bytes:.2f}, bound {BOUND_BYTES} B: {sdk_bytes / BOUND_BYTES:.2f}"
        )
    with serve(durations="constant:0.1", seed=1) as server:
        for name in SETTLED:
            print(f"a settled job {name}: {measure(name, server, count)['bytes']:,.0f} B")
    with serve(durations=f"lognormal:{MEDIAN_S},0.5", time_scale=0.05, seed=1) as server:
        whole = measure("whole_batch", server, count)
    print(
        f"{count:,} prompts without downloads: {whole['succeeded']:,.0f} succeeded in {whole['seconds']:.1f} s, "
        f"{whole['polls']:.1f} polls per job, {whole['cpu'] / count * 1e3:.2f} ms CPU per job, "
        f"peak RSS {whole['rss']:.0f} MiB"
    )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        if sys.argv[1] != "whole_batch":
            tracemalloc.start()
        print(json.dumps(asyncio.run(SIDES[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4])))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 10_000)
