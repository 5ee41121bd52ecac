"""CPU, polls and delay of a settled job: the released SDKs of other services beside ours, interleaved.

    python benchmarks/peers.py [JOBS] [ROUNDS] [SIDES]

Every side settles the same jobs: tasks of 9 s in the median (lognormal, sigma 0.5), 100 at once, against a gateway in a
process of its own that answers in the words of the side's service and is never the bottleneck. Each SDK polls as often
as it does by default. All end with a file of 40 KB per job in a folder:

- pika_async: `PikaClient.run` with a journal, every commit synced, and downloads that are checked, synced and renamed;
  `expected_seconds` is the median. The side "pika_async, no median" leaves it at its default of 60 s.
- openai: `videos.create_and_poll`, every 1 s, then `videos.download_content`.
- replicate: `async_run` with `wait=False`, every 0.5 s, then its `FileOutput`. By default one request is held for up to
  60 s before the first poll, which would leave nothing to compare for tasks that are this short.
- runwayml: `text_to_video.create`, then `wait_for_task_output`, every 6 s, 1.5 s more or less. It downloads nothing;
  httpx fetches the file.
- fal-client: `subscribe`, every 0.1 s. It downloads nothing; httpx fetches the file.
- httpx: a loop by hand on native Pika's wire, every 1 s.

None of the peers has a journal: a process that ends loses the ids of its tasks. Their files are written as they are.
CPU time is that of the client's process, user and system together, after a batch of two quick jobs has imported and
built what is made at first use. The delay is the gateway's own measurement. CPU and delay belong together: who polls
more rarely is cheaper and later.
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
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import cost
import httpx
from lean_gateway import run_lean_server

from pika_async import JobStatus, Limits, PikaClient

MEDIAN_S = 9.0
IN_FLIGHT = 100
#: The CPU of a side over ours that the aims ask for at least.
AIMS = {"openai": 3.0, "replicate": 8.0, "runwayml": 8.0}
KEY = "sk-benchmark-00000000"

Job = Callable[[str], Awaitable[bytes]]


async def _run_jobs(count: int, folder: Path, job: Job) -> None:
    """Run jobs, `IN_FLIGHT` at once, and write what each returns to a file."""
    semaphore = asyncio.Semaphore(IN_FLIGHT)

    async def run_job(number: int) -> None:
        async with semaphore:
            content = await job(f"prompt {number}")
        (folder / f"{number}.mp4").write_bytes(content)

    await asyncio.gather(*(run_job(number) for number in range(count)))


async def ours(url: str, count: int, folder: Path) -> None:
    await cost.sdk(url, count, folder, journal=True, downloads=True)


async def ours_without_median(url: str, count: int, folder: Path) -> None:
    async with PikaClient(
        "native", api_key=KEY, base_url=url, limits=Limits(max_in_flight=IN_FLIGHT), journal=folder / "journal.db",
        allow_results=["http"],
    ) as pika:  # fmt: skip
        report = await pika.run([f"prompt {number}" for number in range(count)], download_to=folder)
    assert report.counts[JobStatus.SUCCEEDED] == count


async def openai_sdk(url: str, count: int, folder: Path) -> None:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1") as client:

        async def job(prompt: str) -> bytes:
            video = await client.videos.create_and_poll(prompt=prompt, model="sora-2")
            assert video.status == "completed"
            return (await client.videos.download_content(video.id)).content

        await _run_jobs(count, folder, job)


async def replicate_sdk(url: str, count: int, folder: Path) -> None:
    from replicate.client import Client
    from replicate.helpers import FileOutput

    client = Client(api_token=KEY, base_url=url)

    async def job(prompt: str) -> bytes:
        address = await client.async_run("bench/video", input={"prompt": prompt}, wait=False)
        return await FileOutput(str(address), client).aread()  # which it makes itself of https addresses

    await _run_jobs(count, folder, job)


async def runway_sdk(url: str, count: int, folder: Path) -> None:
    from runwayml import AsyncRunwayML

    async with AsyncRunwayML(api_key=KEY, base_url=url) as client, httpx.AsyncClient() as downloads:

        async def job(prompt: str) -> bytes:
            task = await client.text_to_video.create(model="veo3.1_fast", prompt_text=prompt, ratio="1280:720")
            details: Any = await task.wait_for_task_output()
            return (await downloads.get(details.output[0])).content

        await _run_jobs(count, folder, job)


async def fal_sdk(url: str, count: int, folder: Path) -> None:
    from fal_client import client as fal

    fal.QUEUE_URL_FORMAT = f"{url}/"  # the client has no setting for its address
    client = fal.AsyncClient(key=KEY)
    async with httpx.AsyncClient() as downloads:

        async def job(prompt: str) -> bytes:
            result = await client.subscribe("bench/video", {"prompt": prompt})
            return (await downloads.get(result["video"]["url"])).content

        await _run_jobs(count, folder, job)


async def httpx_loop(url: str, count: int, folder: Path) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as client:

        async def job(prompt: str) -> bytes:
            body = {"promptText": prompt, "model": "1.5", "options": {"parameters": {}, "extend": False}}
            task_id = (await client.post(f"{url}/pika/generate", json=body)).json()["id"]
            while True:
                await asyncio.sleep(1)
                video = (await client.get(f"{url}/pika/feed/{task_id}")).json()["videos"][0]
                if video["status"] == "finished":
                    return (await client.get(video["resultUrl"])).content

        await _run_jobs(count, folder, job)


SIDES: dict[str, Callable[[str, int, Path], Awaitable[None]]] = {
    "pika_async": ours,
    "pika_async, no median": ours_without_median,
    "openai": openai_sdk,
    "replicate": replicate_sdk,
    "runwayml": runway_sdk,
    "fal-client": fal_sdk,
    "httpx": httpx_loop,
}


async def run_side(side: str, warm_up_url: str, url: str, count: int) -> dict[str, float]:
    """Run one side; return its CPU seconds, and its seconds."""
    with tempfile.TemporaryDirectory() as warm_up, tempfile.TemporaryDirectory() as folder:
        await SIDES[side](warm_up_url, 2, Path(warm_up))
        began, cpu = time.monotonic(), time.process_time()
        await SIDES[side](url, count, Path(folder))
        return {"cpu": time.process_time() - cpu, "seconds": time.monotonic() - began}


def measure(side: str, count: int, seed: int) -> dict[str, float]:
    """Run one side in a new process, against a gateway of its own."""
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with run_lean_server(0.01) as warm_up, run_lean_server(MEDIAN_S, seed=seed) as server:
        command = [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            __file__,
            "--side",
            side,
            warm_up.url,
            server.url,
            str(count),
        ]
        result: dict[str, float] = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout
        )
        figures = server.figures()
    assert figures["tasks"] == count, figures
    return figures | {"cpu": 1e3 * result["cpu"] / count, "load": result["cpu"] / result["seconds"]}


def _released(side: str) -> str:
    try:
        return f"{side} {version(side)}"
    except PackageNotFoundError:
        return side


def main(count: int, rounds: int, sides: list[str]) -> None:
    """Measure the sides in turn; print the medians, and each peer's CPU over ours."""
    results: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for seed in range(rounds):
        for side in sides:
            results[side].append(figures := measure(side, count, seed))
            print(f"round {seed + 1}: {side}, {figures['cpu']:.2f} ms CPU a job", flush=True)
    print(f"{count} jobs of {MEDIAN_S:g} s in the median, {IN_FLIGHT} at once, {rounds} rounds; medians")
    print(f"{'':24}{'CPU a job':>11}{'over ours':>11}{'polls':>8}{'delay':>9}{'load':>7}{'gateway':>9}  aim")
    for side, rows in results.items():
        cpu, polls, delay, load, busy = (
            statistics.median(row[name] for row in rows) for name in ("cpu", "polls", "delay", "load", "busy")
        )
        ratio = statistics.median(row["cpu"] / own["cpu"] for row, own in zip(rows, results[sides[0]], strict=True))
        aim = AIMS.get(side)
        verdict = "" if aim is None else f"{aim:g}, {'met' if ratio >= aim else 'missed'}"
        print(
            f"{_released(side):24}{cpu:8.2f} ms{ratio:11.2f}{polls:8.2f}{delay:7.2f} s{load:7.0%}{busy:9.0%}  {verdict}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        sys.modules["opentelemetry"] = cast("Any", None)  # an extra; an import of it fails
        side, warm_up_url, url, jobs = sys.argv[2:]
        print(json.dumps(asyncio.run(run_side(side, warm_up_url, url, int(jobs)))))
    else:
        numbers = [int(argument) for argument in sys.argv[1:3]]
        count, rounds = numbers + [100, 2][len(numbers) :]
        main(count, rounds, sys.argv[3:] or [*SIDES])
