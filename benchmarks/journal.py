"""Cost of the journal: the same jobs with a journal on disk, every commit synced, and with one in memory, interleaved.

    python benchmarks/journal.py [JOBS] [ROUNDS]

Both sides run in processes of their own against one emulator, itself a separate process. Each job has the same
duration on both sides. The first measurement is the number of jobs accepted per second, with tasks that do not end.
The second is the time of the whole batch, with a median task duration of 10 s (lognormal, sigma 0.3). The journal is
created in the folder named by `TMPDIR`, which should be on a disk; the time of one `fdatasync` there is printed as
well.
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

from gateway import serve

from pika_async import AdaptivePolling, GenerationRequest, JobStatus, Limits, PikaClient

MEDIAN_S = 10.0


def requests(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"prompt {number}") for number in range(count)]


def client(url: str, key: str, journal: Path | None, count: int) -> PikaClient:
    limits = Limits(max_in_flight=count)
    policy = AdaptivePolling(expected_seconds=MEDIAN_S)
    return PikaClient("native", api_key=key, base_url=url, polling=policy, limits=limits, journal=journal)


async def accept(url: str, key: str, journal: Path | None, count: int) -> dict[str, float]:
    """Run until every job is accepted; return the elapsed seconds."""
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
    """Run until every job is settled; return the elapsed seconds."""
    async with client(url, key, journal, count) as pika:
        began = time.perf_counter()
        report = await pika.run(requests(count))
        seconds = time.perf_counter() - began
    assert report.counts == {JobStatus.SUCCEEDED: count}
    return {"seconds": seconds}


MEASUREMENTS = {"accept": accept, "settle": settle}


def measure(name: str, durable: bool, server: dict[str, str], count: int) -> float:
    """Run one side in a new process; return its elapsed seconds."""
    command = [sys.executable, __file__, name, str(int(durable)), server["url"], server["key"], str(count)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result["seconds"]


def sync_ms() -> float:
    """Measure the median time of writing and syncing one page, in ms."""
    times = []
    with tempfile.TemporaryFile() as file:
        for number in range(200):
            began = time.perf_counter()
            os.pwrite(file.fileno(), bytes(4096), number * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def main(count: int, rounds: int) -> None:
    """Measure both sides in alternating order; print the medians of the times and of their ratios."""
    print(f"one page written and synced: {sync_ms():.2f} ms")
    for name, durations in (("accept", "constant:3600"), ("settle", f"lognormal:{MEDIAN_S},0.3")):
        pairs = []
        for number in range(rounds):
            sides = {}
            for durable in (True, False) if number % 2 else (False, True):
                with serve(durations=durations, seed=number) as server:
                    sides[durable] = measure(name, durable, server, count)
            pairs.append((sides[True], sides[False]))
        durable_s, memory_s = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(durable / memory for durable, memory in pairs)
        if name == "accept":
            summary = f"accepted {count / durable_s:.0f} a second with the journal, {count / memory_s:.0f} in memory"
        else:
            summary = f"all settled after {durable_s:.2f} s with the journal, {memory_s:.2f} s in memory"
        print(f"{count:,} jobs, {rounds} rounds: {summary}; time ratio {ratio:.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in MEASUREMENTS:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "journal.db" if int(sys.argv[2]) else None
            print(json.dumps(asyncio.run(MEASUREMENTS[sys.argv[1]](sys.argv[3], sys.argv[4], file, int(sys.argv[5])))))
    else:
        arguments = [int(argument) for argument in sys.argv[1:]]
        main(*(arguments + [500, 5][len(arguments) :]))
