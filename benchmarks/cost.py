"""CPU time of a settled job at equal delay: the SDK beside the usual hand-written loop, interleaved.

    python benchmarks/cost.py [JOBS] [ROUNDS] [SECONDS] [LATENCY]

The peer is `asyncio.gather` over a `Semaphore(100)`, a POST, then one GET per second until "finished"; with downloads
it reads each result and writes it to a file. Each side runs in a process of its own against a gateway that is never
the bottleneck; CPU time is that of the client after its imports, user and system together. Every side gets the same
durations: lognormal with sigma 0.5, SECONDS in the median. The detection delay is the gateway's own measurement: a
client that polls less is not cheaper if it finds its results later. Polls are answered after LATENCY seconds in the
mean (default 0: at once, which favours clients whose polls leave together).
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from lean_gateway import run_lean_server

from pika_async import AdaptivePolling, JobStatus, Limits, PikaClient

SIDES = ("peer", "peer, downloads", "alone", "journal", "downloads", "both")


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


async def peer(url: str, count: int, folder: Path, *, downloads: bool) -> None:
    """Run the batch with `gather`, a semaphore and one poll per second."""
    headers = {"Authorization": "Bearer sk-benchmark-00000000"}

    async def run_job(session: aiohttp.ClientSession, semaphore: asyncio.Semaphore, prompt: str) -> None:
        body = {"promptText": prompt, "model": "1.5", "options": {"parameters": {}, "extend": False}}
        async with semaphore:
            async with session.post(f"{url}/pika/generate", json=body, headers=headers) as answer:
                task_id = (await answer.json())["id"]
            while True:
                await asyncio.sleep(1)
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


async def run_side(side: str, url: str, count: int) -> float:
    """Run one side; return its CPU seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.process_time()
        if side.startswith("peer"):
            await peer(url, count, folder, downloads="downloads" in side)
        else:
            await sdk(url, count, folder, journal=side in {"journal", "both"}, downloads=side in {"downloads", "both"})
        return time.process_time() - began


def measure(side: str, count: int, seconds: float, seed: int, latency: float = 0.0) -> dict[str, float]:
    """Run one side in a new process, against a gateway of its own."""
    with run_lean_server(seconds, seed=seed, latency=latency) as server:
        command = [sys.executable, __file__, side, server.url, str(count)]
        cpu = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        figures = server.figures()
    assert figures["tasks"] == count, figures
    return {"cpu": cpu * 1e3 / count, **figures}


def main(count: int, rounds: int, seconds: float, latency: float) -> None:
    """Measure every side in turn; print the medians, and the ratios to the peer."""
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES:
            results[side].append(measure(side, count, seconds, number, latency))
    print(f"{count:,} jobs of {seconds:g} s in the median, {rounds} rounds")
    for side, rows in results.items():
        cpu, polls, delay = (statistics.median(row[name] for row in rows) for name in ("cpu", "polls", "delay"))
        ratio = statistics.median(row["cpu"] / base["cpu"] for row, base in zip(rows, results["peer"], strict=True))
        print(f"{side:16} {cpu:6.2f} ms CPU a job, {ratio:5.2f} of the peer; {polls:5.2f} polls, delay {delay:.3f} s")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        print(asyncio.run(run_side(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    else:
        values = [float(argument) for argument in sys.argv[1:]]
        values += [500, 3, 9, 0][len(values) :]
        main(int(values[0]), int(values[1]), values[2], values[3])
