"""What the journal costs: the same jobs with it (on disk, every commit synced) and in memory only, interleaved.

    python benchmarks/journal.py [JOBS] [ROUNDS]

Both run in processes of their own against one emulator (another process), each job with the same duration on both
sides. First how many jobs a second are accepted, with tasks that do not end and nothing else to wait for; then how long
the whole batch takes, with tasks of 10 s in the median (lognormal, sigma 0.3). The journal lies in the folder that
`TMPDIR` names, which should be on a disk; the time of one `fdatasync` there is printed too.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gateway import serving

from pika_async import AdaptivePolling, GenerationRequest, JobStatus, Limits, PikaClient

MEDIAN = 10.0


def requests(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"prompt {number}") for number in range(count)]


def client(url: str, key: str, journal: Path | None, count: int) -> PikaClient:
    limits = Limits(max_in_flight=count)
    policy = AdaptivePolling(expected_seconds=MEDIAN)
    return PikaClient("native", api_key=key, base_url=url, polling=policy, limits=limits, journal=journal)


async def accept(url: str, key: str, journal: Path | None, count: int) -> dict[str, float]:
    """Until every job is accepted."""
    async with client(url, key, journal, count) as pika:
        began = time.perf_counter()
        batch = asyncio.create_task(pika.run(requests(count)))
        while len(pika.active_jobs()) < count or any(job.task_id is None for job in pika.active_jobs()):
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - began
        batch.cancel()
        await asyncio.wait({batch})
    return {"seconds": seconds}


async def settle(url: str, key: str, journal: Path | None, count: int) -> dict[str, float]:
    """Until every job is settled."""
    async with client(url, key, journal, count) as pika:
        began = time.perf_counter()
        report = await pika.run(requests(count))
        seconds = time.perf_counter() - began
    assert report.counts == {JobStatus.SUCCEEDED: count}
    return {"seconds": seconds}


WORK = {"accept": accept, "settle": settle}


def measure(work: str, durable: bool, server: dict[str, str], count: int) -> float:
    """One side in a fresh process; its seconds."""
    command = [sys.executable, __file__, work, str(int(durable)), server["url"], server["key"], str(count)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found["seconds"]


def sync_ms() -> float:
    """The median time of one page written and synced, in ms."""
    times = []
    with tempfile.TemporaryFile() as file:
        for number in range(200):
            began = time.perf_counter()
            os.pwrite(file.fileno(), bytes(4096), number * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def main(count: int, rounds: int) -> None:
    """Both sides in turn, and the other way round; the medians of the ratios."""
    print(f"one page written and synced: {sync_ms():.2f} ms")
    for work, durations in (("accept", "constant:3600"), ("settle", f"lognormal:{MEDIAN},0.3")):
        pairs = []
        for number in range(rounds):
            sides = {}
            for durable in (True, False) if number % 2 else (False, True):
                with serving(durations=durations, seed=number) as server:
                    sides[durable] = measure(work, durable, server, count)
            pairs.append((sides[True], sides[False]))
        with_it, without = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(durable / memory for durable, memory in pairs)
        if work == "accept":
            told = f"accepted {count / with_it:.0f} a second with the journal, {count / without:.0f} in memory"
        else:
            told = f"all settled after {with_it:.2f} s with the journal, {without:.2f} s in memory"
        print(f"{count:,} jobs, {rounds} rounds: {told}; time ratio {ratio:.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WORK:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "journal.db" if int(sys.argv[2]) else None
            print(json.dumps(asyncio.run(WORK[sys.argv[1]](sys.argv[3], sys.argv[4], file, int(sys.argv[5])))))
    else:
        given = [int(argument) for argument in sys.argv[1:]]
        main(*(given + [500, 5][len(given) :]))
