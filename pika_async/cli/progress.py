"""Progress of a running batch: job counts, pace, time left and cost, as a live display or as lines. Sends nothing."""

from __future__ import annotations

import asyncio
import time
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

from pika_async.cli.job_counts import CurrentJobs, JobCounts, JobTally, SettleRate
from pika_async.cli.terminal import Terminal, plain
from pika_async.cli.words import counted, range_words
from pika_async.jobs import Job

__all__ = [
    "CallbackCounts",
    "ProgressDisplay",
    "ProgressFacts",
    "progress_line",
]

#: Seconds between two updates of the live display.
_LIVE_INTERVAL_S: Final = 1.0
#: Seconds between two checks whether a plain line is due.
_LINE_INTERVAL_S: Final = 2.0
#: Most seconds between two forecasts, and their number in the time left; between two of them it runs down.
_FORECAST_INTERVAL_S: Final = 5.0
_FORECASTS: Final = 20
#: A forecast is followed by at least so many times as long as it took, while other tasks ran; one that says nothing
#: by fewer.
_FORECAST_WAIT_FACTOR: Final = 20
_UNKNOWN_WAIT_FACTOR: Final = 4
#: An update is followed by so many times as long as it took, but at most by the seconds below.
_WAIT_FACTOR: Final = 100
_MAX_LIVE_INTERVAL_S: Final = 2.0
#: A range with a higher end than this, in seconds, is shown if its end is at most so many times its beginning.
_MAX_WIDE_S: Final = 60.0
_MAX_WIDTH: Final = 8.0
#: Shortest and longest time between two plain lines while no tenth of the jobs has finished, and the share of the
#: elapsed time in between.
_MIN_SILENCE_S: Final = 10.0
_MAX_SILENCE_S: Final = 300.0
_SILENCE_SHARE: Final = 0.5
_BAR_WIDTH: Final = 40
#: Cells of the narrowest bar beside its numbers, and between two texts.
_MIN_BAR_WIDTH: Final = 8
_GAP: Final = "  "


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


def forecast_interval(left: tuple[float, float] | None) -> float:
    """Return the seconds between two forecasts: fewer towards the end, and while nothing is known.

    :param left: seconds left, low and high; None where unknown.
    """
    return _LIVE_INTERVAL_S if left is None else max(_LIVE_INTERVAL_S, min(_FORECAST_INTERVAL_S, left[1] / _FORECASTS))


def is_informative(left: tuple[float, float] | None) -> bool:
    """Return whether a range of seconds left says anything: not after the first few of many jobs."""
    return left is not None and left[1] <= max(_MAX_WIDE_S, _MAX_WIDTH * left[0])


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
    jobs: Callable[[], Awaitable[CurrentJobs]]
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
    _tally: JobTally = attrs.field(init=False)
    _left: tuple[float, float] | None = attrs.field(default=None, init=False)
    _cost: str = attrs.field(default="", init=False)
    #: When the last forecast was made, and when the next one is due; seconds since the beginning.
    _forecast_at: float = attrs.field(default=0.0, init=False)
    _forecast_due: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._tally = JobTally(self.total, datetime.now(UTC))

    async def __aenter__(self) -> Self:
        if self.silent and self.callbacks is None:
            return self
        self._started, self._tally.since = self.clock(), datetime.now(UTC)
        if self.terminal.err.is_terminal and not self.silent:
            self._live = Live(console=self.terminal.err, auto_refresh=False, transient=True)
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
        counts = await self._tally.count(jobs, awaiting)
        elapsed = self.clock() - self._started
        self._pace.add(elapsed, counts.settled_here)
        if self.forecast is not None and elapsed >= self._forecast_due:
            every_job = jobs.all
            left = await self.forecast.seconds(every_job)
            self._cost = await asyncio.to_thread(self.forecast.cost, every_job)
            self._left = left if is_informative(left) else None
            self._forecast_at = elapsed
            took = self.clock() - self._started - elapsed
            factor = _UNKNOWN_WAIT_FACTOR if self._left is None else _FORECAST_WAIT_FACTOR
            self._forecast_due = elapsed + max(forecast_interval(self._left), factor * took)
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
            rows = live_rows(counts, facts, callbacks, download=self.download, width=width)
            live.update(rows, refresh=live.is_started)
            live.start(refresh=True)  # with the first rows: before, it would leave an empty line
            took = self.clock() - began
            await asyncio.sleep(min(_MAX_LIVE_INTERVAL_S, max(_LIVE_INTERVAL_S, _WAIT_FACTOR * took)))
