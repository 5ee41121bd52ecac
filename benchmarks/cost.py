"""CPU time of a settled job at equal delay: the SDK beside the usual hand-written loop, interleaved.

    python benchmarks/cost.py [JOBS] [ROUNDS] [SECONDS] [LATENCY]

The peer is `asyncio.gather` over a `Semaphore(100)`, a POST, then one GET per interval until "finished"; with downloads
it reads each result and writes it to a file. Its interval is twice the mean delay that the SDK had in the same round:
a loop with a fixed interval is late by half of it in the mean, so both find their results equally late. The delay is
the gateway's own measurement.

Each side runs in a process of its own against a gateway that is never the bottleneck; CPU time is that of the client
after its imports, user and system together. OpenTelemetry, an extra, is hidden from it. Every side gets the same
durations, lognormal with sigma 0.5 and SECONDS in the median, and progress in percent, as native Pika reports it. Polls
are answered after LATENCY seconds in the mean (default 0: at once, which favours clients whose polls leave together).
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import aiohttp
from lean_gateway import run_lean_server

from pika_async import AdaptivePolling, JobStatus, Limits, PikaClient

SIDES = ("alone", "journal", "downloads", "both", "peer", "peer, downloads")


async def sdk(url: str, count: int, folder: Path, *, journal: bool, downloads: bool) -> None:
    """Run the batch with the SDK."""
    options: dict[str, Any] = {"limits": Limits(max_in_flight=100), "base_url": url, "api_key": "sk-benchmark-00000000"}
    options["polling"] = AdaptivePolling(expected_seconds=9.0)
    if journal:
        options["journal"] = folder / "journal.db"
    if downloads:
        options["allow_results"] = ["http"]
    async with PikaClient("native", **options) as pika:
        requests = [f"prompt {number}" for number in range(count)]
        report = await pika.run(requests, download_to=folder / "videos" if downloads else None)
    assert report.counts[JobStatus.SUCCEEDED] == count


async def peer(url: str, count: int, folder: Path, *, interval: float, downloads: bool) -> None:
    """Run the batch with `gather`, a semaphore and one poll per interval."""
    headers = {"Authorization": "Bearer sk-benchmark-00000000"}

    async def run_job(session: aiohttp.ClientSession, semaphore: asyncio.Semaphore, prompt: str) -> None:
        body = {"promptText": prompt, "model": "1.5", "options": {"parameters": {}, "extend": False}}
        async with semaphore:
            async with session.post(f"{url}/pika/generate", json=body, headers=headers) as answer:
                task_id = (await answer.json())["id"]
            while True:
                await asyncio.sleep(interval)
                async with session.get(f"{url}/pika/feed/{task_id}", headers=headers) as answer:
                    videos = (await answer.json())["videos"]
                if videos and videos[0]["status"] == "finished":
                    break
        if downloads:
            async with session.get(videos[0]["resultUrl"]) as answer:
                (folder / f"{task_id}.mp4").write_bytes(await answer.read())

    async with aiohttp.ClientSession() as session:
        semaphore = asyncio.Semaphore(100)
        await asyncio.gather(*(run_job(session, semaphore, f"prompt {number}") for number in range(count)))


async def run_side(side: str, url: str, count: int, interval: float) -> float:
    """Run one side; return its CPU seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.process_time()
        if side.startswith("peer"):
            await peer(url, count, folder, interval=interval, downloads="downloads" in side)
        else:
            await sdk(url, count, folder, journal=side in {"journal", "both"}, downloads=side in {"downloads", "both"})
        return time.process_time() - began


def measure(side: str, count: int, tasks: tuple[float, int, float], interval: float) -> dict[str, float]:
    """Run one side in a new process, against a gateway of its own.

    :param tasks: median seconds of a task, seed, latency of a poll.
    :param interval: seconds between two polls of a peer.
    """
    seconds, seed, latency = tasks
    with run_lean_server(seconds, seed=seed, latency=latency) as server:
        command = [sys.executable, __file__, side, server.url, str(count), str(interval)]
        cpu = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        figures = server.figures()
    assert figures["tasks"] == count, figures
    return {"cpu": cpu * 1e3 / count, **figures}


def main(count: int, rounds: int, seconds: float, latency: float) -> None:
    """Measure every side in turn; print the medians, and the ratios to the peer that does the same."""
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        interval = 1.0
        for side in SIDES:
            results[side].append(figures := measure(side, count, (seconds, number, latency), interval))
            if side == "alone":
                interval = 2 * figures["delay"]
    print(f"{count:,} jobs of {seconds:g} s in the median, {rounds} rounds")
    for side, rows in results.items():
        cpu, polls, delay = (statistics.median(row[name] for row in rows) for name in ("cpu", "polls", "delay"))
        peers = results["peer, downloads" if side in {"downloads", "both", "peer, downloads"} else "peer"]
        ratio = statistics.median(row["cpu"] / base["cpu"] for row, base in zip(rows, peers, strict=True))
        print(f"{side:16} {cpu:6.2f} ms CPU a job, {ratio:5.2f} of the peer's; {polls:5.2f} polls, delay {delay:.3f} s")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        sys.modules["opentelemetry"] = cast("Any", None)  # an import of it fails
        print(asyncio.run(run_side(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
    else:
        values = [float(argument) for argument in sys.argv[1:]]
        values += [500, 2, 9, 0][len(values) :]
        main(int(values[0]), int(values[1]), values[2], values[3])
