"""Live board of a large batch: how far the page is behind the journal, and the CPU of the board over the batch's.

    python benchmarks/board.py [JOBS] [SETTLES PER SECOND] [JOBS OF A BATCH] [ROUNDS]

First a journal gets JOBS settled jobs (default 10,000) at an even rate (default 200 a second), all with one clip.
`pika-async board` serves it from a process of its own, and the installed Chromium shows the page. Ten times a second
the page notes how many cards it has; its lag is the age of the job that comes next. Then a real batch (default 2,000
jobs) runs against an emulator, with a board and a page beside it. The CPU is that of the process of the board, with and
without its start, over that of the process of the batch. At last such batches run with `--board` in their own process,
in turn without a board, with one that no page reads, and with one that a page reads, ROUNDS times (default 3). The
bounds are 2 s of lag and 3 % of the CPU.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from gallery import write_input
from gateway import run_server
from playwright.sync_api import Browser, Page, sync_playwright

from pika_async import GenerationRequest, Job, JobStatus, Video
from pika_async._journal.sqlite import SqliteJournal
from pika_async.emulator.render import Picture, render_video

BOUND_LAG_S = 2.0
BOUND_SHARE = 0.03
#: Seconds between two writes of settled jobs.
WRITE_INTERVAL_S = 0.05
#: Notes the time and the number of cards, and the length of each task beyond 50 ms.
WATCH = """
window.samples = []; window.tasks = [];
new PerformanceObserver((list) => { for (const one of list.getEntries()) tasks.push(one.duration); })
  .observe({ entryTypes: ["longtask"] });
setInterval(() => { if (typeof cards !== "undefined") samples.push([Date.now() / 1000, cards.length]); }, 100);
"""


@attrs.define
class Command:
    """Process of `pika-async` and, after its end, the seconds of CPU that it took."""

    process: subprocess.Popen[str]
    cpu: float = 0.0
    #: What it took until it had printed its address.
    start_cpu: float = 0.0

    @classmethod
    def start(cls, *argv: str) -> Command:
        command = [sys.executable, "-m", "pika_async", *argv]
        return cls(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))

    def read_address(self) -> str:
        """Wait for the address of a board, and keep the CPU until then."""
        assert self.process.stderr is not None
        url = next(line for line in self.process.stderr if "token=" in line).partition("board: ")[2].strip()
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        self.start_cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return url

    def wait(self) -> None:
        """Wait for the end, and keep the CPU that the system says."""
        _, _, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        self.cpu = usage.ru_utime + usage.ru_stime


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Command, str]]:
    """Serve the board of `folder` from a process of its own; yield it and its address."""
    board = Command.start("board", str(folder))
    try:
        yield board, board.read_address()
    finally:
        board.process.send_signal(signal.SIGINT)
        board.wait()


def settled(key: str, number: int, file: Path) -> Job:
    """Return a job as a batch leaves it."""
    prompt = f"take {number}: an old lighthouse in heavy rain, lit by lanterns, seen from above, in slow motion"
    now = datetime.now(UTC)
    return Job(
        key=key, request=GenerationRequest(prompt, seed=number), provider="native", base_url="http://h", index=number,
        status=JobStatus.SUCCEEDED, video=Video(url="https://cdn.example/v.mp4"), attempts=1, task_id=key, file=file,
        submitted_at=now, settled_at=now,
    )  # fmt: skip


async def write_settles(journal: SqliteJournal, jobs: int, rate: float, file: Path) -> list[float]:
    """Write settled jobs at an even rate; return the time of each write, job by job."""
    times: list[float] = []
    started = time.monotonic()
    while len(times) < jobs:
        due = min(int((time.monotonic() - started) * rate), jobs) - len(times)
        if due:
            await journal.save(*(settled(f"job-{n:05}", n, file) for n in range(len(times), len(times) + due)))
            times += [time.time()] * due
        await asyncio.sleep(WRITE_INTERVAL_S)
    return times


def opened(page: Page, url: str) -> None:
    page.add_init_script(WATCH)
    page.goto(url)


def wait_cards(page: Page, count: int) -> None:
    page.wait_for_function("count => cards.length >= count", arg=count, timeout=120_000)


def print_lags(written: Sequence[float], samples: Sequence[Sequence[float]], tasks: Sequence[float]) -> None:
    """Print how far the page was behind, from samples of its cards and the times of the writes."""
    lags = sorted(
        max(at - written[int(count)], 0.0) for at, count in samples if count < len(written) and at >= written[0]
    )
    span = written[-1] - written[0]
    print(f"| settles | {len(written):,} in {span:.0f} s, {len(written) / span:.0f} a second |")
    print(f"| lag of the page | median {lags[len(lags) // 2]:.2f} s, 95 % {lags[len(lags) * 95 // 100]:.2f} s, "
          f"at most {lags[-1]:.2f} s, ratio to the bound {lags[-1] / BOUND_LAG_S:.2f} |")  # fmt: skip
    print(f"| tasks of the page beyond 50 ms | {len(tasks)}, the longest {max(tasks, default=0):.0f} ms, "
          f"{sum(tasks) / 1e3 / span:.1%} of the time |")  # fmt: skip


async def write(folder: Path, jobs: int, rate: float) -> None:
    """Write settles once the page is open, and print the time of each as JSON."""
    journal = SqliteJournal(folder / "journal.db")
    await journal.open()
    try:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(json.dumps(await write_settles(journal, jobs, rate, folder / "videos" / "clip.mp4")))
    finally:
        await journal.close()


def keep_up(page: Page, folder: Path, jobs: int, rate: float) -> None:
    """Write to a journal and print how the page keeps up."""
    (folder / "videos").mkdir(parents=True)
    (folder / "videos" / "clip.mp4").write_bytes(render_video(Picture(prompt="a lighthouse", seed=1, seconds=1.0)))
    command = [sys.executable, __file__, "--write", str(folder), str(jobs), str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdout.readline()
        with serving(folder) as (board, url):
            opened(page, url)
            writer.stdin.write("\n")
            writer.stdin.flush()
            written = json.loads(writer.stdout.readline())
            wait_cards(page, jobs)
            samples: Any = page.evaluate("() => [samples, tasks]")
    print_lags(written, *samples)
    print(f"| CPU of the board | {board.cpu:.1f} s, {1e3 * board.cpu / jobs:.2f} ms a settle |")


@contextmanager
def started_batch(folder: Path, jobs: int, *more: str) -> Iterator[Command]:
    """Start a batch on an emulator of its own, in `folder`/out."""
    folder.mkdir()
    write_input(folder / "input.jsonl", jobs)
    with run_server(durations="lognormal:3,0.5", video_seconds=1.0) as server:
        os.environ["PIKA_API_KEY"] = server.key
        target = ("--provider", "native", "--base-url", server.url, "--expected-seconds", "3", *more)
        yield Command.start("batch", str(folder / "input.jsonl"), "--out", str(folder / "out"), *target)


def with_its_board(browser: Browser, folder: Path, jobs: int, rounds: int) -> None:
    """Run batches without a board, with one that no page reads, and with one that a page reads; print the CPU."""
    variants = {"without a board": (), "with a board, no page": ("--board",), "with a board and a page": ("--board",)}
    cpu: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for place, (name, more) in enumerate(variants.items()):
            with started_batch(folder / f"{number}-{place}", jobs, *more) as batch:
                url = batch.read_address() if more else ""
                page = browser.new_page()
                if "and a page" in name:
                    page.goto(url)
                for _ in batch.process.stderr or ():
                    pass  # until it ends
                batch.wait()
                page.close()
            cpu[name].append(batch.cpu)
    for name, seconds in cpu.items():
        shares = [mine / base - 1 for mine, base in zip(seconds, cpu["without a board"], strict=True)]
        share = statistics.median(shares)
        print(f"| batch of {jobs:,} jobs {name} | CPU {statistics.median(seconds):.1f} s, {share:+.1%} "
              f"({min(shares):+.1%} to {max(shares):+.1%}), ratio {share / BOUND_SHARE:.2f} |")  # fmt: skip


def beside_a_batch(page: Page, folder: Path, jobs: int) -> None:
    """Run a batch with a board beside it and print the CPU of both."""
    with started_batch(folder, jobs) as batch:
        while not (folder / "out" / "journal.db").exists():
            time.sleep(0.1)
        with serving(folder / "out") as (board, url):
            opened(page, url)
            for _ in batch.process.stderr or ():
                pass  # until it ends
            batch.wait()
            wait_cards(page, jobs)
    share = (board.cpu - board.start_cpu) / batch.cpu
    print(f"| batch of {jobs:,} jobs | CPU {batch.cpu:.1f} s |")
    print(f"| CPU of the board beside it, over the batch's | {board.cpu - board.start_cpu:.2f} s, {share:.1%}, "
          f"ratio to the bound {share / BOUND_SHARE:.2f} |")  # fmt: skip
    print(f"| CPU of the start of that process | {board.start_cpu:.1f} s, all together {board.cpu / batch.cpu:.1%} |")


def main(jobs: int, rate: float, batch_jobs: int, rounds: int) -> None:
    """Run all parts in one browser."""
    program = shutil.which("chromium")
    assert program, "needs chromium: apt-get install chromium"
    with tempfile.TemporaryDirectory() as made, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        keep_up(browser.new_page(), Path(made) / "journal", jobs, rate)
        beside_a_batch(browser.new_page(), Path(made) / "batch", batch_jobs)
        with_its_board(browser, Path(made), batch_jobs, rounds)
        browser.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        asyncio.run(write(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
    else:
        given = [float(text) for text in sys.argv[1:]] + [10_000, 200, 2_000, 3][len(sys.argv) - 1 :]
        main(int(given[0]), given[1], int(given[2]), int(given[3]))
