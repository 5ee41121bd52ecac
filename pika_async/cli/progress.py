"""Progress of a running batch: job counts, pace, time left and cost, as a live display or as lines. Sends nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Protocol, Self

import attrs
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pika_async._runtime.pacing import paced
from pika_async.cli.terminal import Terminal, plain
from pika_async.cli.words import counted, range_words
from pika_async.jobs import Job, JobStatus

__all__ = [
    "CallbackCounts",
    "JobCounts",
    "ProgressDisplay",
    "ProgressFacts",
    "SettleRate",
    "count_jobs",
    "progress_line",
]

#: Seconds between two updates of the live display.
_LIVE_INTERVAL_S: Final = 0.5
#: Seconds between two checks whether a plain line is due.
_LINE_INTERVAL_S: Final = 2.0
#: Seconds between two forecasts.
_FORECAST_INTERVAL_S: Final = 2.0
#: The display waits at least as many times as long as it took to make it: it costs at most one in fifty seconds.
_WAIT_FACTOR: Final = 50
#: Shortest and longest time between two plain lines while no tenth of the jobs has finished, and the share of the
#: elapsed time in between.
_MIN_SILENCE_S: Final = 10.0
_MAX_SILENCE_S: Final = 300.0
_SILENCE_SHARE: Final = 0.5
#: Seconds of the recent past that the pace is estimated from.
_PACE_WINDOW_S: Final = 120.0
#: Settled jobs below which there is no pace: the first to end were refused at once.
_MIN_PACE_JOBS: Final = 3
_BAR_WIDTH: Final = 40
#: Cells of the narrowest bar beside its numbers, and between two texts.
_MIN_BAR_WIDTH: Final = 8
_GAP: Final = "  "


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
    #: In doubt, and finished.
    in_doubt: int = 0
    #: In doubt, while the batch still waits for the callback that may resolve them; not finished.
    awaiting_callback: int = 0
    #: Settled in this run.
    settled_here: int = 0

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
        received = f"{counted(self.received, 'callback')} received" if self.received else "no callback yet"
        awaiting = f"; {self.awaiting} in doubt, waiting for their callbacks" if self.awaiting else ""
        address = self.unreached_address
        hint = "" if address is None else f"; does the public address forward to {address}?"
        return f"{received}{awaiting}{hint}"


async def count_jobs(
    jobs: Sequence[Job], total: int, awaiting_callback: int = 0, since: datetime | None = None
) -> JobCounts:
    """Count `jobs` by progress; let other tasks run meanwhile.

    :param total: number of jobs of the whole batch.
    :param awaiting_callback: number of jobs in doubt that still wait for a callback and are not finished.
    :param since: when this run began; a job that settled before counts for no pace.
    """
    counts: Counter[JobStatus] = Counter()
    submitted = downloaded = not_downloaded = settled_here = 0
    async for job in paced(jobs):
        counts[job.status] += 1
        submitted += job.submitted_at is not None
        downloaded += job.file is not None
        not_downloaded += job.status is JobStatus.SUCCEEDED and job.error is not None
        settled_here += since is not None and job.settled_at is not None and job.settled_at >= since
    in_doubt = counts[JobStatus.UNKNOWN] - awaiting_callback
    failed = sum(counts[status] for status in (JobStatus.FAILED, JobStatus.REJECTED))
    failed += counts[JobStatus.TIMED_OUT] + counts[JobStatus.CANCELED]
    return JobCounts(
        total=total,
        submitted=submitted,
        running=counts[JobStatus.QUEUED] + counts[JobStatus.RUNNING],
        finished=counts[JobStatus.SUCCEEDED] + failed + in_doubt,
        downloaded=downloaded,
        failed=failed + not_downloaded,
        in_doubt=in_doubt,
        awaiting_callback=awaiting_callback,
        settled_here=settled_here,
    )


@attrs.define
class SettleRate:
    """Settled jobs per second over the last two minutes of a run."""

    _seen: deque[tuple[float, int]] = attrs.field(factory=lambda: deque([(0.0, 0)]), init=False)

    def add(self, elapsed: float, settled: int) -> None:
        """Record the number of jobs that have settled in this run.

        :param elapsed: seconds since it began.
        """
        self._seen.append((elapsed, settled))
        while len(self._seen) > 2 and self._seen[1][0] <= elapsed - _PACE_WINDOW_S:
            self._seen.popleft()

    @property
    def per_second(self) -> float:
        """Jobs per second; 0 before `_MIN_PACE_JOBS` have settled in that time."""
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        return (after - before) / (last - first) if after - before >= _MIN_PACE_JOBS else 0.0


@attrs.frozen(kw_only=True)
class ProgressFacts:
    """What a display shows beside the counts.

    :param elapsed: seconds since the run began.
    :param per_second: jobs that settle in a second; 0 where unknown.
    :param left: seconds left, low and high; None where unknown.
    :param cost: cost of the run so far; "" where unknown.
    """

    elapsed: float = 0.0
    per_second: float = 0.0
    left: tuple[float, float] | None = None
    cost: str = ""
    #: Whether nothing more is sent until a person resumes on the board.
    paused: bool = False

    @property
    def pause_words(self) -> str:
        """What a pause means; "" without one."""
        return "paused from the board; nothing more is sent" if self.paused else ""

    @property
    def elapsed_text(self) -> str:
        """Hours, minutes and seconds that have passed."""
        return f"{timedelta(seconds=int(self.elapsed))} elapsed"

    @property
    def left_text(self) -> str:
        """The time left as a range; "" where unknown, and at the end."""
        return (
            f"{range_words(self.left)} left" if not self.paused and self.left is not None and self.left[1] > 0 else ""
        )

    @property
    def pace_text(self) -> str:
        """Jobs a minute; "" where unknown."""
        per_minute = 60 * self.per_second
        return f"{per_minute:.{1 if per_minute < 10 else 0}f} a minute" if per_minute else ""

    @property
    def cost_text(self) -> str:
        """The cost; "" where unknown."""
        return f"cost {self.cost} so far" if self.cost else ""


def progress_line(counts: JobCounts, facts: ProgressFacts, *, download: bool) -> str:
    """Return the counts, the pace, the time left and the cost as one line.

    :param download: whether finished videos are downloaded.
    """
    downloaded = f", {counts.downloaded} downloaded" if download else ""
    failed = f", {counts.failed} failed" if counts.failed else ""
    in_doubt = f", {counts.in_doubt} in doubt" if counts.in_doubt else ""
    kinds = f"{counts.submitted} submitted, {counts.running} running{downloaded}{failed}{in_doubt}"
    more = filter(None, (facts.pause_words, facts.pace_text, facts.elapsed_text, facts.left_text, facts.cost_text))
    return ", ".join((f"{counts.finished} of {counts.total} finished ({kinds})", *more))


def packed(texts: Sequence[Text], width: int) -> list[Text]:
    """Return lines of at most `width` cells with as many whole texts as fit; a wider one has its own line."""
    lines: list[Text] = []
    for text in texts:
        if lines and cell_len(lines[-1].plain) + len(_GAP) + cell_len(text.plain) <= width:
            lines[-1] = lines[-1] + _GAP + text
        else:
            lines.append(text)
    return lines


def live_rows(
    counts: JobCounts, facts: ProgressFacts, callbacks: CallbackCounts | None, *, download: bool, width: int
) -> Group:
    """Return the live display: a bar with its numbers, times and cost, counts, and callbacks.

    :param width: cells of a line of the terminal.
    """
    done = min(counts.total, counts.downloaded + counts.failed + counts.in_doubt if download else counts.finished)
    numbers = plain(f"{done} of {counts.total}")
    bar_width = min(_BAR_WIDTH, width - cell_len(numbers.plain) - len(_GAP) - 1)
    bar = ProgressBar(
        total=max(1, counts.total), completed=done, width=max(_MIN_BAR_WIDTH, bar_width),
        complete_style="cyan", finished_style="green",
    )  # fmt: skip
    head = Table.grid(padding=(0, len(_GAP), 0, 0))
    head.add_row(bar, numbers)
    times = [
        plain(facts.pause_words, "bold yellow"),
        plain(facts.elapsed_text),
        plain(facts.left_text, "bold"),
        plain(facts.pace_text),
        plain(facts.cost_text),
    ]
    shown = [
        plain(f"{counts.submitted} submitted"),
        plain(f"{counts.running} running", "cyan"),
        plain(f"{counts.finished} finished", "green"),
        *([plain(f"{counts.downloaded} downloaded", "green")] if download else []),
        *([plain(f"{counts.in_doubt} in doubt", "yellow")] if counts.in_doubt else []),
        *([plain(f"{counts.failed} failed", "red")] if counts.failed else []),
    ]
    rows: list[RenderableType] = [head]
    rows += packed([text for text in times if text.plain], width - 1)
    rows += packed(shown, width - 1)
    return Group(*rows, *([] if callbacks is None else [plain(callbacks)]))


class _Forecast(Protocol):
    async def seconds(self, jobs: Sequence[Job]) -> tuple[float, float] | None: ...

    def cost(self, jobs: Sequence[Job]) -> str: ...


def is_line_due(elapsed: float, printed: float) -> bool:
    """Return whether a plain line is due although no further tenth of the jobs has finished.

    :param elapsed: seconds since the run began.
    :param printed: seconds after which the last line was printed.
    """
    return elapsed - printed >= min(_MAX_SILENCE_S, max(_MIN_SILENCE_S, _SILENCE_SHARE * printed))


@attrs.define
class ProgressDisplay:
    """Progress of a batch on standard error, for as long as its `async with` block runs.

    A live display on a terminal; elsewhere a line at the beginning, for every tenth of the jobs, and after a while.

    :param jobs: returns the jobs that the batch has taken in so far.
    :param total: number of jobs of the whole batch.
    :param download: whether finished videos are downloaded; default True.
    :param silent: show only a line when nothing but callbacks is left to wait for, or when callbacks seem to be lost;
        default False.
    :param callbacks: returns the callback counts; None, the default, without a listener.
    :param forecast: returns the time left and the cost so far; None, the default: neither is shown.
    :param clock: returns the seconds of a monotonic clock.
    :param is_paused: returns whether the board has paused the batch; default: it never has.
    """

    terminal: Terminal
    jobs: Callable[[], Awaitable[Sequence[Job]]]
    total: int
    download: bool = True
    silent: bool = False
    callbacks: Callable[[], CallbackCounts] | None = None
    forecast: _Forecast | None = None
    clock: Callable[[], float] = time.monotonic
    is_paused: Callable[[], bool] = lambda: False
    _live: Live | None = attrs.field(default=None, init=False)
    _updates: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    _pace: SettleRate = attrs.field(factory=SettleRate, init=False)
    _started: float = attrs.field(default=0.0, init=False)
    _started_at: datetime = attrs.field(factory=lambda: datetime.now(UTC), init=False)
    _left: tuple[float, float] | None = attrs.field(default=None, init=False)
    _cost: str = attrs.field(default="", init=False)
    #: When the last forecast was made, and when the next one is due; seconds since the beginning.
    _forecast_at: float = attrs.field(default=0.0, init=False)
    _forecast_due: float = attrs.field(default=0.0, init=False)

    async def __aenter__(self) -> Self:
        if self.silent and self.callbacks is None:
            return self
        self._started, self._started_at = self.clock(), datetime.now(UTC)
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

    async def _measure(self) -> tuple[JobCounts, ProgressFacts, CallbackCounts | None]:
        callbacks = None if self.callbacks is None else self.callbacks()
        awaiting = 0 if callbacks is None else callbacks.awaiting
        jobs = await self.jobs()
        counts = await count_jobs(jobs, self.total, awaiting, self._started_at)
        elapsed = self.clock() - self._started
        self._pace.add(elapsed, counts.settled_here)
        if self.forecast is not None and elapsed >= self._forecast_due:
            self._cost, self._left = self.forecast.cost(jobs), await self.forecast.seconds(jobs)
            self._forecast_at = elapsed
            took = self.clock() - self._started - elapsed
            self._forecast_due = elapsed + max(_FORECAST_INTERVAL_S, _WAIT_FACTOR * took)
        left = self._left
        if left is not None:
            low, high = (max(0.0, value - (elapsed - self._forecast_at)) for value in left)
            left = None if counts.only_awaits_callbacks else (low, high)
        facts = ProgressFacts(
            elapsed=elapsed, per_second=self._pace.per_second, left=left, cost=self._cost,
            paused=self.is_paused(),
        )  # fmt: skip
        return counts, facts, callbacks

    async def _print_lines(self) -> None:
        printed, printed_at = (-1, False, False), 0.0
        if self.silent:
            printed = (0, False, False)
        while True:
            counts, facts, callbacks = await self._measure()
            tenth = 0 if self.silent else counts.finished * 10 // max(1, self.total)
            callbacks_lost = callbacks is not None and callbacks.unreached_address is not None
            current = (tenth, counts.only_awaits_callbacks, callbacks_lost)
            if current > printed or (not self.silent and is_line_due(facts.elapsed, printed_at)):
                printed, printed_at = max(printed, current), facts.elapsed
                suffix = "" if callbacks is None else f"; {callbacks}"
                self.terminal.note(f"{progress_line(counts, facts, download=self.download)}{suffix}")
            await asyncio.sleep(_LINE_INTERVAL_S)

    async def _update_live(self, live: Live) -> None:
        while True:
            began = self.clock()
            counts, facts, callbacks = await self._measure()
            width = self.terminal.err.width
            live.update(live_rows(counts, facts, callbacks, download=self.download, width=width), refresh=True)
            await asyncio.sleep(max(_LIVE_INTERVAL_S, _WAIT_FACTOR * min(1.0, self.clock() - began) / 2))
