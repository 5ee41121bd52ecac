"""Where a batch stands while it runs: counts, pace and the time left, as a display or as plain lines. Sends nothing."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self

import attrs
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pika_async.cli.terminal import Terminal, plain
from pika_async.jobs import Job, JobStatus

__all__ = ["CallbackCounts", "JobCounts", "Pace", "ProgressDisplay", "duration", "tally", "told"]

#: Seconds between two looks at the jobs, and at least between two plain lines.
_LIVE: Final = 0.5
_PLAIN: Final = 2.0
#: Seconds of the recent past that the pace is taken from.
_WINDOW: Final = 120.0


@attrs.frozen(kw_only=True)
class JobCounts:
    """How many jobs of `total` stand where; `settled` counts everything at rest, `failed` what will have no video,
    `waiting` the jobs in doubt whose callbacks are waited for.
    """

    total: int
    submitted: int = 0
    running: int = 0
    settled: int = 0
    downloaded: int = 0
    failed: int = 0
    waiting: int = 0

    @property
    def only_waits(self) -> bool:
        """Whether callbacks of jobs in doubt are all that is left: how long that takes, no pace tells."""
        return 0 < self.waiting >= self.total - self.settled


@attrs.frozen(kw_only=True)
class CallbackCounts:
    """What callbacks have told: how many came, how many jobs in doubt wait for theirs; `lost_to`: where none arrives
    though they should.
    """

    received: int = 0
    waiting: int = 0
    lost_to: str | None = None

    def __str__(self) -> str:
        came = (
            f"{self.received} callback{'' if self.received == 1 else 's'} came" if self.received else "no callback yet"
        )
        lost = "" if self.lost_to is None else f"; does the public address lead to {self.lost_to}?"
        waits = f"; {self.waiting} in doubt, waiting for their callbacks" if self.waiting else ""
        return f"{came}{waits}{lost}"


def tally(jobs: Sequence[Job], total: int, waiting: int = 0) -> JobCounts:
    """The counts of `jobs`, of a batch of `total`; so many in doubt wait for a callback, and are not at rest."""
    counts = Counter(job.status for job in jobs)
    counts[JobStatus.UNKNOWN] -= waiting
    failed = sum(counts[status] for status in (JobStatus.FAILED, JobStatus.REJECTED, JobStatus.UNKNOWN))
    parked = counts[JobStatus.TIMED_OUT] + counts[JobStatus.CANCELED]
    return JobCounts(
        total=total,
        submitted=sum(job.submitted_at is not None for job in jobs),
        running=counts[JobStatus.QUEUED] + counts[JobStatus.RUNNING],
        settled=counts[JobStatus.SUCCEEDED] + failed + parked,
        downloaded=sum(job.file is not None for job in jobs),
        failed=failed + parked + sum(job.status is JobStatus.SUCCEEDED and job.error is not None for job in jobs),
        waiting=waiting,
    )


@attrs.define
class Pace:
    """How many jobs come to their end in a minute, learned from the recent past."""

    _seen: deque[tuple[float, int]] = attrs.field(factory=deque)

    def see(self, now: float, done: int) -> None:
        """`done` jobs are done at `now` (seconds)."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()

    def per_minute(self) -> float:
        """Jobs a minute; 0 until one was done."""
        if len(self._seen) < 2 or self._seen[-1][0] <= self._seen[0][0]:
            return 0.0
        (since, before), (now, done) = self._seen[0], self._seen[-1]
        return 60.0 * (done - before) / (now - since)

    def seconds_left(self, total: int) -> float:
        """Until `total` are done at this pace; infinite until one was done."""
        rate = self.per_minute()
        return 60.0 * (total - self._seen[-1][1]) / rate if rate else math.inf


def duration(seconds: float) -> str:
    """`seconds` as people say it."""
    if not math.isfinite(seconds):
        return "not known yet"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole / 3600:.1f} h"


def told(now: JobCounts, pace: Pace, *, download: bool) -> str:
    """The counts, the pace and the time left as one line."""
    done = f", {now.downloaded} downloaded" if download else ""
    failed = f", {now.failed} failed" if now.failed else ""
    left = (
        "" if now.settled >= now.total or now.only_waits else f", about {duration(pace.seconds_left(now.total))} left"
    )
    rate = f", {pace.per_minute():.0f} a minute" if pace.per_minute() else ""
    return (
        f"{now.settled} of {now.total} settled ({now.submitted} submitted, {now.running} running{done}{failed}){rate}"
        f"{left if rate else ''}"
    )


Look = Callable[[], Awaitable[Sequence[Job]]]
Hear = Callable[[], CallbackCounts]


@attrs.define
class ProgressDisplay:
    """Shows where the jobs of `look` stand, of `total`: a display on a terminal, lines elsewhere, nothing if `silent`.

    `hear` says what callbacks have told; then even if `silent` a line says that only they are waited for, or that they
    seem to be lost.

    Use it with `async with`; `end` ends the display early.
    """

    terminal: Terminal
    look: Look
    total: int
    download: bool = True
    silent: bool = False
    hear: Hear | None = None
    _live: Live | None = attrs.field(default=None, init=False)
    _task: asyncio.Task[None] | None = attrs.field(default=None, init=False)

    async def __aenter__(self) -> Self:
        if self.silent and self.hear is None:
            return self
        if self.terminal.err.is_terminal and not self.silent:
            self._live = Live(console=self.terminal.err, auto_refresh=False, transient=True)
            self._live.start()
            shows = self._show_live(self._live)
        else:
            shows = self._show_lines()
        self._task = asyncio.get_running_loop().create_task(shows, name="pika_async progress")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if self._task is None:
            return
        await asyncio.wait({self._task})
        if not self._task.cancelled() and (failure := self._task.exception()) is not None:
            self.terminal.note(f"the progress display failed: {failure!r}")

    def end(self) -> None:
        """Show no more."""
        if self._task is not None:
            self._task.cancel()
        if self._live is not None:
            self._live.stop()

    async def _count(self) -> tuple[JobCounts, CallbackCounts | None]:
        heard = None if self.hear is None else self.hear()
        return tally(await self.look(), self.total, 0 if heard is None else heard.waiting), heard

    async def _show_lines(self) -> None:
        pace, shown = Pace(), (0, False, False)
        while True:
            now, heard = await self._count()
            pace.see(time.monotonic(), now.settled)
            tenth = 0 if self.silent else now.settled * 10 // max(1, self.total)
            news = (tenth, now.only_waits, heard is not None and heard.lost_to is not None)
            if news > shown:
                shown = news
                heard_of = "" if heard is None else f"; {heard}"
                self.terminal.note(f"{told(now, pace, download=self.download)}{heard_of}")
            await asyncio.sleep(_PLAIN)

    async def _show_live(self, live: Live) -> None:
        pace = Pace()
        while True:
            now, heard = await self._count()
            pace.see(time.monotonic(), now.downloaded + now.failed if self.download else now.settled)
            live.update(_display(now, heard, pace, self.download), refresh=True)
            await asyncio.sleep(_LIVE)


def _display(now: JobCounts, heard: CallbackCounts | None, pace: Pace, download: bool) -> Group:
    done = now.downloaded + now.failed if download else now.settled
    bar = Table.grid(padding=(0, 2))
    left = f"about {duration(pace.seconds_left(now.total))} left" if pace.per_minute() else "learning how long it takes"
    left = "" if now.only_waits else left
    bar.add_row(
        ProgressBar(total=max(1, now.total), completed=done, width=40), plain(f"{done} of {now.total}"), plain(left)
    )
    counts = Text("  ").join(
        [
            plain(f"{now.submitted} submitted"),
            plain(f"{now.running} running", "cyan"),
            plain(f"{now.settled} settled", "green"),
            *([plain(f"{now.downloaded} downloaded", "green")] if download else []),
            plain(f"{now.failed} failed", "red" if now.failed else "dim"),
            plain(f"{pace.per_minute():.0f} a minute", "dim"),
        ]
    )
    return Group(bar, counts) if heard is None else Group(bar, counts, plain(heard))
