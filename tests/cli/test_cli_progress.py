"""Progress of a batch: counts, pace and time left, as a live display on a terminal and as lines elsewhere."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import attrs
import pytest
from rich.console import Console

from pika_async import Account, GenerationRequest, Job, JobStatus, Limits, PikaClient
from pika_async._planning.time_left import Stratum
from pika_async.cli.batch import ProviderBatch
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.forecast import Forecast, MergedForecast, remaining
from pika_async.cli.job_counts import CurrentJobs, JobCounts, JobTally, SettleRate
from pika_async.cli.progress import (
    CallbackCounts,
    ProgressDisplay,
    ProgressFacts,
    forecast_interval,
    is_informative,
    is_line_due,
    live_rows,
    progress_line,
)
from pika_async.cli.spending import Before
from pika_async.cli.terminal import Terminal
from pika_async.errors import AccountStopped
from pika_async.jobs import utc_from_timestamp
from tests.fakes.memory_gateway import MemoryTransport, gateway, prompts


def job(number: int, status: JobStatus, *, file: bool = False) -> Job:
    return Job(
        key=str(number), request=GenerationRequest("\x1b[31m[red]"), provider="native", base_url="http://h",
        status=status, file=Path("f") if file else None,
        submitted_at=None if status in {JobStatus.PLANNED, JobStatus.REJECTED} else utc_from_timestamp(0.0),
    )  # fmt: skip


JOBS = [
    job(1, JobStatus.PLANNED), job(2, JobStatus.QUEUED), job(3, JobStatus.RUNNING), job(4, JobStatus.SUCCEEDED),
    job(5, JobStatus.SUCCEEDED, file=True), job(6, JobStatus.FAILED), job(7, JobStatus.REJECTED),
    job(8, JobStatus.UNKNOWN), job(9, JobStatus.TIMED_OUT),
]  # fmt: skip


def counted_jobs(
    jobs: Sequence[Job], total: int, *, awaiting_callback: int = 0, since: datetime | None = None
) -> JobCounts:
    """Count `jobs` as open ones, as ended ones, and half of them as each, which must be the same."""
    found = []
    for split in (0, len(jobs), len(jobs) // 2):
        tally = JobTally(total, since)
        asyncio.run(tally.count(CurrentJobs(jobs[: split // 2]), awaiting_callback))
        found.append(asyncio.run(tally.count(CurrentJobs(jobs[:split], jobs[split:]), awaiting_callback)))
    assert found[0] == found[1] == found[2]
    return found[0]


def test_every_status_is_counted_where_it_belongs() -> None:
    """Settled and parked jobs are finished; finished jobs without a video are failed."""
    assert counted_jobs(JOBS, 20) == JobCounts(
        total=20, submitted=7, running=2, finished=6, downloaded=1, failed=3, in_doubt=1
    )


def test_a_job_in_doubt_that_awaits_its_callback_is_not_finished() -> None:
    """It is neither finished nor failed until the batch stops waiting for the callback."""
    counts = counted_jobs(JOBS, 20, awaiting_callback=1)
    assert counts == JobCounts(
        total=20, submitted=7, running=2, finished=5, downloaded=1, failed=3, awaiting_callback=1
    )  # fmt: skip
    assert not counts.only_awaits_callbacks
    assert counted_jobs(JOBS, 6, awaiting_callback=1).only_awaits_callbacks


def test_a_job_in_doubt_is_current_until_its_line_is_written() -> None:
    """It is reported as parked, and once it is found again, with its new status."""
    [in_doubt] = [job for job in JOBS if job.status is JobStatus.UNKNOWN]
    active: list[Job] = []
    client: Any = SimpleNamespace(active_jobs=lambda: active)
    nothing: Any = None
    batch = ProviderBatch(client, [], nothing, nothing, Terminal(), nothing)
    batch._in_doubt[in_doubt.key] = in_doubt
    assert asyncio.run(batch.current_jobs()) == CurrentJobs([], [in_doubt])
    running = job(8, JobStatus.RUNNING)
    active.append(running)
    assert asyncio.run(batch.current_jobs()) == CurrentJobs([], [running])


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (CallbackCounts(), "no callback yet"),
        (CallbackCounts(received=1), "1 callback received"),
        (CallbackCounts(received=7, awaiting=2), "7 callbacks received; 2 in doubt, waiting for their callbacks"),
        (CallbackCounts(unreached_address="h:1"), "no callback yet; does the public address forward to h:1?"),
    ],
)
def test_callback_counts_read_as_a_sentence(counts: CallbackCounts, text: str) -> None:
    assert str(counts) == text


COUNTS: Final = JobCounts(total=20, submitted=7, running=2, finished=6, downloaded=1, failed=3, in_doubt=1)
FACTS: Final = ProgressFacts(elapsed=125.9, per_second=0.1, left=(140.0, 380.0), cost="1.68")


def test_a_line_holds_counts_pace_times_and_cost() -> None:
    assert progress_line(COUNTS, FACTS, download=True) == (
        "6 of 20 finished (7 submitted, 2 running, 1 downloaded, 3 failed, 1 in doubt), 6.0 a minute, 0:02:05 elapsed, "
        "2 to 6.5 min left, cost 1.68 so far"
    )


def test_a_line_of_which_nothing_is_known_holds_the_counts() -> None:
    """Until a task has settled, and once all have, no time is promised."""
    line = progress_line(COUNTS, ProgressFacts(), download=False)
    assert line == "6 of 20 finished (7 submitted, 2 running, 3 failed, 1 in doubt), 0:00:00 elapsed"
    assert ProgressFacts(left=(0.0, 0.0)).left_text == ""


def test_the_pace_is_that_of_the_last_two_minutes() -> None:
    """What settled before counts no more, and a batch that stands still has none."""
    pace = SettleRate()
    pace.add(0.5, 2)
    assert pace.per_second == 0, "two that were refused at once are no pace"
    for second in range(0, 601, 10):
        pace.add(float(second), min(second, 300))
        if second == 300:
            assert pace.per_second == 1.0
    assert pace.per_second == 0.0


def test_only_what_settled_in_this_run_counts_for_its_pace() -> None:
    """A job of an earlier run is finished at once, and says nothing about the others."""
    began = utc_from_timestamp(1000.0)
    settled = [attrs.evolve(JOBS[4], settled_at=utc_from_timestamp(at)) for at in (10.0, 999.0, 1000.0, 1010.0)]
    assert counted_jobs(settled, 4, since=began).settled_here == 2
    assert counted_jobs(settled, 4).settled_here == 0


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_word_of_the_display_is_broken(width: int) -> None:
    """Each text stays on one line, whatever the width."""
    written = io.StringIO()
    console = Console(file=written, width=width, color_system=None)
    console.print(live_rows(COUNTS, FACTS, None, download=True, width=width))
    lines = written.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    for text in ("5 of 20", "0:02:05 elapsed", "2 to 6.5 min left", "cost 1.68 so far", "1 in doubt", "3 failed"):
        assert sum(text in line for line in lines) == 1


def test_the_bar_has_no_color_of_an_error() -> None:
    """Red is for failures."""
    written = io.StringIO()
    console = Console(file=written, width=80, force_terminal=True, color_system="standard")
    calm = attrs.evolve(COUNTS, failed=0, in_doubt=0)
    console.print(live_rows(calm, FACTS, None, download=True, width=80))
    assert "\x1b[36m━" in written.getvalue()
    assert re.search("\x1b\\[[0-9;]*(31|91|38)", written.getvalue()) is None


def test_lines_are_due_early_and_then_less_often() -> None:
    """The first after ten seconds; later ones after half of the time that has passed, at most five minutes."""
    printed, times = 0.0, []
    for second in range(4000):
        if is_line_due(float(second), printed):
            printed = float(second)
            times.append(second)
    assert times[:5] == [10, 20, 30, 45, 68]
    assert times[-1] - times[-2] == 300


class Clock:
    """Clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Known:
    """Forecast that says the same each time, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def seconds(self, jobs: Sequence[Job]) -> tuple[float, float] | None:
        self.asked += 1
        return 100.0, 200.0

    def cost(self, jobs: Sequence[Job]) -> str:
        return "0.28"


def test_a_forecast_is_made_now_and_then_and_runs_down_between() -> None:
    clock, known = Clock(), Known()
    display = ProgressDisplay(Terminal(), _jobs, 9, forecast=known, clock=clock)
    for now, asked, left in ((0.0, 1, (100.0, 200.0)), (1.0, 1, (99.0, 199.0)), (5.0, 2, (100.0, 200.0))):
        clock.now = now
        _, facts, _ = asyncio.run(display._measure())
        assert (known.asked, facts.left, facts.cost) == (asked, left, "0.28")


@pytest.mark.parametrize(
    ("left", "interval"), [(None, 1.0), ((0.0, 3.0), 1.0), ((9.0, 40.0), 2.0), ((9.0, 900.0), 5.0)]
)
def test_forecasts_are_rare_where_much_is_left(left: tuple[float, float] | None, interval: float) -> None:
    """A batch of seconds has a time left too, and one of an hour pays little for it."""
    assert forecast_interval(left) == interval


@pytest.mark.parametrize(
    ("left", "informative"), [(None, False), ((0.0, 60.0), True), ((0.0, 1080.0), False), ((150.0, 1080.0), True)]
)
def test_a_range_that_says_nothing_is_not_shown(left: tuple[float, float] | None, *, informative: bool) -> None:
    """After the first settled task of many, anything from no time to half an hour may be left."""
    assert is_informative(left) is informative


class Part(Known):
    """Forecast of one of several batches."""

    def __init__(self, gateway: tuple[str, str], left: tuple[float, float] | None) -> None:
        super().__init__()
        self.gateway, self.left, self.jobs = gateway, left, list[Job]()

    async def seconds(self, jobs: Sequence[Job]) -> tuple[float, float] | None:
        self.jobs = list(jobs)
        return self.left


def test_batches_beside_each_other_end_with_the_last_one() -> None:
    """Each forecast gets the jobs of its own gateway; while one is not known, neither is the whole."""
    here, there = Part(("native", "http://h"), (0.0, 0.0)), Part(("yescale", "http://h"), (20.0, 90.0))
    parts: Any = [here, there]
    merged = MergedForecast(parts)
    other = attrs.evolve(JOBS[0], provider="yescale")
    assert asyncio.run(merged.seconds([*JOBS, other])) == (20.0, 90.0)
    assert (here.jobs, there.jobs, merged.cost(JOBS)) == (JOBS, [other], "")
    here.left = (30.0, 40.0)
    assert asyncio.run(merged.seconds(JOBS)) == (30.0, 90.0)
    there.left = None
    assert asyncio.run(merged.seconds(JOBS)) is None
    assert asyncio.run(MergedForecast().seconds(JOBS)) is None


def test_the_rest_of_a_batch_is_what_has_not_settled() -> None:
    """Its time comes from what settled in this run; earlier durations count only until there is enough of that."""
    now = utc_from_timestamp(1000.0)
    sent = attrs.evolve(JOBS[1], submitted_at=utc_from_timestamp(960.0))
    here = attrs.evolve(JOBS[4], submitted_at=utc_from_timestamp(900.0), settled_at=utc_from_timestamp(930.0))
    before = attrs.evolve(here, settled_at=utc_from_timestamp(899.0))
    name = sent.stratum

    def rest(*jobs: Job, **more: Any) -> Stratum:
        arguments: dict[str, Any] = {"since": utc_from_timestamp(900.0), "now": now, **more}
        return asyncio.run(remaining(jobs, {name: 20}, {name: [7.0, 8.0]}, **arguments))[name]

    assert rest(JOBS[0], sent, here, before) == Stratum(settled=[7.0, 8.0, 30.0], ages=[40.0], planned=17)
    assert rest(*[here] * 8) == Stratum(settled=[30.0] * 8, planned=12)
    assert rest(here, allowed=5).planned == 5
    assert rest(sent, unsettled={sent.key: 25.0}).ages == [25.0], "it may have settled since its last poll"


def show_progress(
    terminal: Terminal, *, silent: bool = False, total: int = 9, callbacks: CallbackCounts | None = None
) -> None:
    """Show the progress of `JOBS` for a moment."""

    async def current_jobs() -> CurrentJobs:
        return CurrentJobs([], JOBS)

    async def work() -> None:
        counts = None if callbacks is None else lambda: callbacks
        async with ProgressDisplay(terminal, current_jobs, total, silent=silent, callbacks=counts):
            await asyncio.sleep(0.05)

    asyncio.run(work())


def live_terminal(width: int) -> tuple[Terminal, io.StringIO]:
    """A terminal of `width` columns and what is written to it."""
    terminal, written = Terminal(), io.StringIO()
    terminal.err = Console(file=written, force_terminal=True, width=width, color_system=None)
    return terminal, written


def test_a_terminal_gets_a_live_display(capsys: pytest.CaptureFixture[str]) -> None:
    """It shows every count, fits 80 columns, and writes nothing to standard output."""
    terminal, written = live_terminal(80)
    show_progress(terminal)
    for text in (
        "5 of 9", "0:00:00 elapsed", "7 submitted", "2 running", "6 finished", "1 downloaded", "1 in doubt", "3 failed",
    ):  # fmt: skip
        assert text in written.getvalue()
    assert capsys.readouterr().out == ""


def test_an_empty_batch_has_a_display() -> None:
    terminal, written = live_terminal(80)
    show_progress(terminal, total=0)
    assert "6 finished" in written.getvalue()


def test_without_a_terminal_progress_is_lines_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A line has no control characters; with --json there is none."""
    show_progress(Terminal())
    expected = "6 of 9 finished (7 submitted, 2 running, 1 downloaded, 3 failed, 1 in doubt), 0:00:00 elapsed\n"
    assert capsys.readouterr().err == expected
    show_progress(Terminal(), silent=True)
    assert capsys.readouterr() == ("", "")


def test_callbacks_have_a_row_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal they follow the counts; if silent, only once nothing else is left to wait for."""
    callbacks = CallbackCounts(received=3, awaiting=1)
    terminal, written = live_terminal(80)
    show_progress(terminal, callbacks=callbacks)
    text = written.getvalue().replace("\r", "")
    assert "\n3 callbacks received; 1 in doubt, waiting for their callbacks" in text
    show_progress(Terminal(), callbacks=callbacks)
    line = capsys.readouterr().err
    assert "(7 submitted, 2 running, 1 downloaded, 3 failed), 0:00:00 elapsed; 3 callbacks received; 1 in doubt" in line
    show_progress(Terminal(), callbacks=callbacks, silent=True)
    assert capsys.readouterr().err == ""
    show_progress(Terminal(), callbacks=callbacks, silent=True, total=6)
    assert capsys.readouterr().err.startswith("5 of 6 finished ")


def test_no_time_is_promised_while_only_callbacks_are_awaited() -> None:
    """The pace of the other jobs says nothing about when a callback arrives."""
    for awaiting, left in ((0, (100.0, 200.0)), (1, None)):
        counts = CallbackCounts(awaiting=awaiting)
        display = ProgressDisplay(
            Terminal(), _jobs, 6, download=False, callbacks=partial(_same, counts), forecast=Known(), clock=Clock()
        )
        _, facts, _ = asyncio.run(display._measure())
        assert facts.left == left


def _same(counts: CallbackCounts) -> CallbackCounts:
    return counts


async def _jobs() -> CurrentJobs:
    return CurrentJobs([], JOBS)


def test_a_display_that_fails_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The batch continues, and the failure is printed."""

    async def current_jobs() -> CurrentJobs:
        raise ValueError("broken")

    async def work() -> str:
        async with ProgressDisplay(Terminal(), current_jobs, 9):
            await asyncio.sleep(0.01)
        return "done"

    assert asyncio.run(work()) == "done"
    assert "the progress display failed" in capsys.readouterr().err


def forecasts_of(*rooms: int | None, most: int | None = None, stopped: int = 0) -> list[tuple[float, float]]:
    """Return the estimate and the time left of a batch over accounts of such rooms, after 12 tasks of a minute each.

    :param most: the limit of the client over all of them.
    :param stopped: number of accounts that take no more jobs.
    """

    async def main() -> list[tuple[float, float]]:
        accounts = [
            Account("gptge", name=f"a{number}", base_url="http://h", max_in_flight=each)
            for number, each in enumerate(rooms)
        ]
        at, limits = MemoryTransport(gateway()), Limits(max_in_flight=most)
        async with PikaClient(accounts, transport=at, limits=limits) as pika:
            assert pika._table is not None
            requests = [GenerationRequest(prompt) for prompt in prompts(200)]
            estimated = (await pika.estimate(requests)).seconds
            for number in range(stopped):
                refused = AccountStopped(provider="gptge", reason="no balance", http_status=402)
                pika._table.planner.accounts[f"a{number}"].submissions.throttle.stop = refused
            forecast = Forecast(
                client=pika, requests=requests, before=Before(), journal=pika._journal, options=BatchOptions()
            )
            sent = datetime.now(UTC)
            settled = [
                Job(
                    key=str(number), request=request, provider="gptge", base_url="http://h", submitted_at=sent,
                    settled_at=sent + timedelta(seconds=60), status=JobStatus.SUCCEEDED,
                )
                for number, request in enumerate(requests[:12])
            ]  # fmt: skip
            left = await forecast.seconds(settled)
            assert left is not None
            return [estimated, left]

    return asyncio.run(main())


def test_accounts_have_the_rooms_of_all_together() -> None:
    """Two of 2 and 20 take as long as one of 22, and as one of 2 once the other is stopped; the client's limit is above."""
    together = forecasts_of(22)
    assert forecasts_of(2, 20) == together
    assert forecasts_of(2, 200, most=22) == together
    assert forecasts_of(None, 7, most=22) == together
    assert forecasts_of(200, 2, stopped=1)[1] == forecasts_of(2)[1]
    (_, estimated), (_, left) = together
    assert estimated > left > 188 / 22 * 60
