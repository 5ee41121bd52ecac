"""Longest time that one operation holds the event loop, with a journal of many jobs and with one of few.

    python benchmarks/responsiveness.py [JOBS] [FEWER]

A journal is filled with JOBS jobs (default 100,000): half of them succeeded, the others in doubt, one in a hundred
accepted. Then every operation of a client runs on it, in one process, while a task beside it wakes every millisecond
and records the longest delay between two of its turns. Meanwhile no poll, callback or health check would have been
served. The bound is 50 ms, collections of garbage included. The longest CPU time of the loop's thread between two turns
is printed as well, since other work on the machine delays both. The same with FEWER jobs (default a tenth) shows
whether the delay grows with the journal. The gateway is a function in the process, so no response is waited for.

Then the command line works on a folder with that journal: twice the same batch, with results.jsonl, results.csv and the
gallery, and the last write of the two files alone, after a command that changed nothing and one that changed one job.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from attrs import Factory, define, evolve

from pika_async import GenerationRequest, Job, JobStatus, Limits, PikaClient, Video
from pika_async._journal.sqlite import SqliteJournal
from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.pauses import short_pauses
from pika_async.cli.provider_runs import ProviderRun
from pika_async.cli.requests import InputRequest
from pika_async.cli.results import ResultsWriter, read_results
from pika_async.cli.results_table import finish_results
from pika_async.cli.runner import BatchRunner
from pika_async.cli.terminal import Terminal
from pika_async.errors import SubmissionInDoubt
from pika_async.jobs import utc_from_timestamp
from pika_async.providers._wire import HttpRequest, HttpResponse

BOUND_MS = 50
BASE_URL = "http://127.0.0.1:9"
#: Milliseconds between two turns of the task that measures.
BEAT_MS = 1


class FinishingTransport:
    """Gateway on which every task has finished."""

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def send(self, request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        task_id = request.url.rpartition("/")[2]
        video = {"id": task_id, "status": "finished", "resultUrl": f"{BASE_URL}/{task_id}.mp4", "progress": 100}
        body = json.dumps({"id": task_id, "promptText": "", "videos": [video]}).encode()
        return HttpResponse(status=200, headers={"content-type": "application/json"}, body=body)


@define
class LoopMonitor:
    """Longest delay of a task that wakes every millisecond, and the CPU time of its thread meanwhile, by operation."""

    delays_ms: dict[str, float] = Factory(dict)
    cpu_ms: dict[str, float] = Factory(dict)
    seconds: dict[str, float] = Factory(dict)

    @asynccontextmanager
    async def measure(self, operation: str) -> AsyncIterator[None]:
        """Measure the body of the `async with` block as *operation*."""
        longest = longest_cpu = 0.0

        async def beat() -> None:
            nonlocal longest, longest_cpu
            last, last_cpu = time.perf_counter(), time.thread_time()
            while True:
                await asyncio.sleep(BEAT_MS / 1e3)
                now, cpu = time.perf_counter(), time.thread_time()
                longest, last = max(longest, now - last - BEAT_MS / 1e3), now
                longest_cpu, last_cpu = max(longest_cpu, cpu - last_cpu), cpu

        gc.collect()
        task = asyncio.create_task(beat())
        await asyncio.sleep(5 * BEAT_MS / 1e3)
        longest, longest_cpu, began = 0.0, 0.0, time.perf_counter()
        try:
            yield
            self.seconds[operation] = time.perf_counter() - began
            await asyncio.sleep(5 * BEAT_MS / 1e3)
        finally:
            task.cancel()
            await asyncio.wait({task})
        self.delays_ms[operation], self.cpu_ms[operation] = longest * 1e3, longest_cpu * 1e3
        print(f"  {operation}: {longest * 1e3:.1f} ms, CPU {longest_cpu * 1e3:.1f} ms", file=sys.stderr, flush=True)


def known_jobs(count: int) -> Iterator[Job]:
    """Yield the jobs of the journal, with the keys that a batch of the same prompts gets."""
    began = time.time() - 600
    for number in range(count):
        request = GenerationRequest(prompt(number))
        key = f"{number + 1:05d}-{request.fingerprint()[:8]}"
        job = Job(key=key, request=request, provider="native", base_url=BASE_URL, index=number).submitting()
        video = Video(url=f"{BASE_URL}/{key}.mp4", task_id=f"task-{number}")
        if number % 100 == 1:
            yield job.accepted(f"task-{number}", began)
        elif number % 2:
            yield job.in_doubt(
                SubmissionInDoubt(key=key, provider="native", reason="no answer"), utc_from_timestamp(began)
            )
        else:
            done = job.accepted(f"task-{number}", began)
            yield evolve(
                done, status=JobStatus.SUCCEEDED, video=video, progress=100, settled_at=utc_from_timestamp(began + 60)
            )


def prompt(number: int) -> str:
    return f"prompt number {number} of a long list of prompts"


async def fill(path: Path, count: int) -> None:
    """Save the jobs of the journal at *path*."""
    journal = SqliteJournal(path)
    await journal.open()
    page: list[Job] = []
    for job in known_jobs(count):
        page.append(job)
        if len(page) == 1000:
            await journal.save(*page)
            page.clear()
    await journal.save(*page)
    await journal.close()


def client(path: Path | None, limits: Limits | None = None) -> PikaClient:
    return PikaClient(
        "native", api_key="none", base_url=BASE_URL, journal=path, limits=limits, transport=FinishingTransport()
    )


async def measure_known(monitor: LoopMonitor, path: Path, count: int) -> None:
    """Measure each operation on a journal that holds the jobs already."""
    pika = client(path)
    async with monitor.measure("stats() before opening"):
        pika.stats()
    async with monitor.measure("open()"):
        await pika.open()
    async with monitor.measure("stats()"):
        pika.stats()
    async with monitor.measure('jobs("unknown")'):
        found = sum([1 async for _ in pika.jobs("unknown")])
    assert found == count // 2 - count // 100
    async with monitor.measure("jobs()"):
        found = sum([1 async for _ in pika.jobs()])
    assert found == count
    async with monitor.measure("events(after=0)"), aclosing(pika.events(after=0)) as events:
        for _ in range(count):
            await anext(events)
    async with monitor.measure("as_settled() of one request"), aclosing(pika.as_settled([prompt(0)])) as jobs:
        assert [job.index async for job in jobs] == [0]
    async with monitor.measure("resume()"):
        report = await pika.resume()
    assert report.counts == {JobStatus.UNKNOWN: count // 2 - count // 100, JobStatus.SUCCEEDED: count // 100}
    del report
    requests = [prompt(number) for number in range(count)]
    async with monitor.measure("run() of the same list"):
        report = await pika.run(requests)
    assert len(report.jobs) == count
    del report
    async with monitor.measure("aclose()"):
        await pika.aclose()


async def measure_new(monitor: LoopMonitor, path: Path, count: int) -> None:
    """Measure a batch of which nothing may be sent: it is planned, then reported."""
    async with client(path, Limits(max_charges=1)) as pika:
        await pika.submit("the only charge")
        async with monitor.measure("run() of a new list, stopped"):
            report = await pika.run([prompt(number) for number in range(count)])
        assert report.counts == {JobStatus.PLANNED: count}


async def measure_commands(monitor: LoopMonitor, root: Path, count: int) -> None:
    """Measure a command on the folder *root*, whose journal holds the jobs already."""
    inputs = [InputRequest(evolve(job.request, key=job.key), job.index, "input") for job in known_jobs(count)]

    async def load_inputs() -> Sequence[InputRequest]:
        return inputs

    for name in ("a batch with results and gallery", "the same batch again"):
        folder, options = BatchFolder(root), BatchOptions(download=False)
        pika = PikaClient(
            "native", api_key="none", base_url=BASE_URL, journal=folder.journal, transport=FinishingTransport()
        )
        runner = BatchRunner(folder, options, Terminal(), quiet=False)
        async with monitor.measure(name):
            outcome, page = await runner.run([ProviderRun(pika, load_inputs)], "title")
        assert page is not None
        assert len(read_results(folder.results_file)) == len(outcome.jobs) == count
        del outcome, runner
    for name, changed in (("last write of results after no change", ()), ("the same after one change", (0,))):
        results = ResultsWriter(folder.results_file, continues=True)
        with results, short_pauses():
            for job in folder.journal.all():
                results.write(evolve(job, polls=job.polls + 1) if job.index in changed else job)
            async with monitor.measure(name):
                await finish_results(results, folder.table_file, Terminal())


async def measure(count: int, folder: Path) -> LoopMonitor:
    """Measure every operation with *count* jobs."""
    monitor = LoopMonitor()
    await fill(folder / "journal.db", count)
    await measure_commands(monitor, folder, count)
    await fill(folder / "known.db", count)
    await measure_known(monitor, folder / "known.db", count)
    await measure_new(monitor, folder / "new.db", count)
    return monitor


def main(count: int, fewer: int) -> None:
    """Measure with both sizes; print the longest delays and their ratios."""
    results = []
    for size in (fewer, count):
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
            results.append(asyncio.run(measure(size, Path(folder))))
    few, many = results
    for operation, delay in many.delays_ms.items():
        cpu, few_cpu = many.cpu_ms[operation], few.cpu_ms[operation]
        print(
            f"{operation}: loop held for {delay:.1f} ms (CPU {cpu:.1f} ms) with {count:,} jobs, "
            f"{few.delays_ms[operation]:.1f} ms (CPU {few_cpu:.1f} ms) with {fewer:,}; "
            f"bound {BOUND_MS} ms: {delay / BOUND_MS:.2f}, CPU {cpu / BOUND_MS:.2f}; "
            f"took {many.seconds[operation]:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    main(*(arguments + [100_000, arguments[0] // 10 if arguments else 10_000][len(arguments) :]))
