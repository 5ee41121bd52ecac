"""Progress of a running batch: job counts, pace and time left, as a live display or as plain lines. Sends nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

import attrs
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from pika_async._runtime.pacing import paced
from pika_async.cli.terminal import Terminal, plain
from pika_async.jobs import Job, JobStatus

__all__ = ["CallbackCounts", "JobCounts", "ProgressDisplay", "count_jobs", "progress_line"]

#: Seconds between two updates of the live display.
_LIVE_INTERVAL_S: Final = 0.5
#: Shortest time between two plain lines, in seconds.
_LINE_INTERVAL_S: Final = 2.0
#: Seconds of the recent past that the pace is estimated from.
_PACE_WINDOW_S: Final = 120.0
_BAR_WIDTH: Final = 40


@attrs.frozen(kw_only=True)
class JobCounts:
    """Number of jobs by progress."""

    total: int
    submitted: int = 0
    running: int = 0
    #: Settled or parked.
    finished: int = 0
    downloaded: int = 0
    #: Finished without a video, or with one that could not be downloaded.
    failed: int = 0
    #: In doubt, while the batch still waits for the callback that may resolve them; not finished.
    awaiting_callback: int = 0

    @property
    def only_awaits_callbacks(self) -> bool:
        """Whether every unfinished job waits for a callback; the pace then says nothing about the time left."""
        return 0 < self.awaiting_callback >= self.total - self.finished


@attrs.frozen(kw_only=True)
class CallbackCounts:
    """Number of callbacks received, and of jobs in doubt that still wait for one."""

    received: int = 0
    awaiting: int = 0
    #: Set if callbacks seem to be lost: the address that the public one should forward to.
    unreached_address: str | None = None

    def __str__(self) -> str:
        plural = "" if self.received == 1 else "s"
        received = f"{self.received} callback{plural} received" if self.received else "no callback yet"
        awaiting = f"; {self.awaiting} in doubt, waiting for their callbacks" if self.awaiting else ""
        address = self.unreached_address
        hint = "" if address is None else f"; does the public address forward to {address}?"
        return f"{received}{awaiting}{hint}"


async def count_jobs(jobs: Sequence[Job], total: int, awaiting_callback: int = 0) -> JobCounts:
    """Count `jobs` by progress; let other tasks run meanwhile.

    :param total: number of jobs of the whole batch.
    :param awaiting_callback: number of jobs in doubt that still wait for a callback and are not finished.
    """
    counts: Counter[JobStatus] = Counter()
    submitted = downloaded = not_downloaded = 0
    async for job in paced(jobs):
        counts[job.status] += 1
        submitted += job.submitted_at is not None
        downloaded += job.file is not None
        not_downloaded += job.status is JobStatus.SUCCEEDED and job.error is not None
    counts[JobStatus.UNKNOWN] -= awaiting_callback
    failed = sum(counts[status] for status in (JobStatus.FAILED, JobStatus.REJECTED, JobStatus.UNKNOWN))
    failed += counts[JobStatus.TIMED_OUT] + counts[JobStatus.CANCELED]
    return JobCounts(
        total=total,
        submitted=submitted,
        running=counts[JobStatus.QUEUED] + counts[JobStatus.RUNNING],
        finished=counts[JobStatus.SUCCEEDED] + failed,
        downloaded=downloaded,
        failed=failed + not_downloaded,
        awaiting_callback=awaiting_callback,
    )


def progress_line(counts: JobCounts, task: Task, *, download: bool) -> str:
    """Return the counts, the pace and the time left as one line.

    :param task: Rich's record of the batch, which estimates pace and time left.
    :param download: whether finished videos are downloaded.
    """
    downloaded = f", {counts.downloaded} downloaded" if download else ""
    failed = f", {counts.failed} failed" if counts.failed else ""
    pace = f", {60 * task.speed:.0f} a minute" if task.speed else ""
    left = f", about {timedelta(seconds=int(task.time_remaining))} left" if task.time_remaining else ""
    return (
        f"{counts.finished} of {counts.total} finished ({counts.submitted} submitted, {counts.running} running"
        f"{downloaded}{failed}){pace}{left}"
    )


@attrs.define
class ProgressDisplay:
    """Progress of a batch on standard error, for as long as its `async with` block runs.

    A live display on a terminal; elsewhere a line for every tenth of the jobs.

    :param jobs: returns the jobs that the batch has taken in so far.
    :param total: number of jobs of the whole batch.
    :param download: whether finished videos are downloaded; default True.
    :param silent: show only a line when nothing but callbacks is left to wait for, or when callbacks seem to be lost;
        default False.
    :param callbacks: returns the callback counts; None, the default, without a listener.
    """

    terminal: Terminal
    jobs: Callable[[], Awaitable[Sequence[Job]]]
    total: int
    download: bool = True
    silent: bool = False
    callbacks: Callable[[], CallbackCounts] | None = None
    _live: Live | None = attrs.field(default=None, init=False)
    _updates: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    _progress: Progress = attrs.field(init=False)
    _task: Task = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._progress = Progress(
            BarColumn(bar_width=_BAR_WIDTH),
            MofNCompleteColumn(separator=" of "),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.terminal.err,
            speed_estimate_period=_PACE_WINDOW_S,
        )
        self._progress.add_task("jobs", total=self.total)
        [self._task] = self._progress.tasks

    async def __aenter__(self) -> Self:
        if self.silent and self.callbacks is None:
            return self
        if self.terminal.err.is_terminal and not self.silent:
            self._live = Live(console=self.terminal.err, auto_refresh=False, transient=True)
            self._live.start()
            updates = self._update_live(self._live)
        else:
            updates = self._print_lines()
        self._updates = asyncio.get_running_loop().create_task(updates, name="pika_async progress")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._updates is None:
            return
        await asyncio.wait({self._updates})
        if not self._updates.cancelled() and (failure := self._updates.exception()) is not None:
            self.terminal.note(f"the progress display failed: {failure!r}")

    def stop(self) -> None:
        """Remove the display and print no more lines."""
        if self._updates is not None:
            self._updates.cancel()
        if self._live is not None:
            self._live.stop()

    async def _measure(self) -> tuple[JobCounts, CallbackCounts | None]:
        callbacks = None if self.callbacks is None else self.callbacks()
        awaiting = 0 if callbacks is None else callbacks.awaiting
        counts = await count_jobs(await self.jobs(), self.total, awaiting)
        completed = counts.downloaded + counts.failed if self.download else counts.finished
        if counts.only_awaits_callbacks:  # without samples Rich estimates no time
            self._progress.reset(self._task.id, completed=completed)
        else:
            self._progress.update(self._task.id, completed=completed)
        return counts, callbacks

    async def _print_lines(self) -> None:
        printed = (0, False, False)
        while True:
            counts, callbacks = await self._measure()
            tenth = 0 if self.silent else counts.finished * 10 // max(1, self.total)
            callbacks_lost = callbacks is not None and callbacks.unreached_address is not None
            current = (tenth, counts.only_awaits_callbacks, callbacks_lost)
            if current > printed:
                printed = current
                suffix = "" if callbacks is None else f"; {callbacks}"
                self.terminal.note(f"{progress_line(counts, self._task, download=self.download)}{suffix}")
            await asyncio.sleep(_LINE_INTERVAL_S)

    async def _update_live(self, live: Live) -> None:
        while True:
            counts, callbacks = await self._measure()
            rows: list[RenderableType] = [self._progress, self._counts_text(counts)]
            if callbacks is not None:
                rows.append(plain(callbacks))
            live.update(Group(*rows), refresh=True)
            await asyncio.sleep(_LIVE_INTERVAL_S)

    def _counts_text(self, counts: JobCounts) -> Text:
        parts = [
            plain(f"{counts.submitted} submitted"),
            plain(f"{counts.running} running", "cyan"),
            plain(f"{counts.finished} finished", "green"),
            *([plain(f"{counts.downloaded} downloaded", "green")] if self.download else []),
            plain(f"{counts.failed} failed", "red" if counts.failed else "dim"),
            plain(f"{60 * (self._task.speed or 0):.0f} a minute", "dim"),
        ]
        return Text("  ").join(parts)
