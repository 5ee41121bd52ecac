"""Where a batch stands: the counts, the pace, the time left, and how they are shown on a terminal and elsewhere."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pika_async import GenerationRequest, Job, JobStatus
from pika_async.cli.batch import ProviderBatch
from pika_async.cli.progress import CallbackCounts, JobCounts, Pace, ProgressDisplay, duration, tally, told
from pika_async.cli.terminal import Terminal
from pika_async.jobs import utc_from_timestamp


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


def test_every_status_is_counted_where_it_belongs() -> None:
    """What is at rest is settled; what will have no video is failed."""
    assert tally(JOBS, 20) == JobCounts(total=20, submitted=7, running=2, settled=6, downloaded=1, failed=4)


def test_a_doubt_that_is_waited_for_is_not_at_rest() -> None:
    """It is neither settled nor failed until then; where nothing else is left no time is promised."""
    now = tally(JOBS, 20, waiting=1)
    assert now == JobCounts(total=20, submitted=7, running=2, settled=5, downloaded=1, failed=3, waiting=1)
    assert not now.only_waits
    pace = Pace()
    pace.see(0.0, 0)
    pace.see(60.0, 5)
    assert "left" in told(now, pace, download=False)
    assert "left" not in told(tally(JOBS, 6, waiting=1), pace, download=False)
    assert tally(JOBS, 6, waiting=1).only_waits


def test_a_doubt_is_in_view_until_it_has_its_line() -> None:
    """At rest, as it is; found again, as it goes on."""
    [doubt] = [job for job in JOBS if job.status is JobStatus.UNKNOWN]
    active_jobs: list[Job] = []
    client: Any = SimpleNamespace(active_jobs=lambda: active_jobs)
    nothing: Any = None
    batch = ProviderBatch(client, [], nothing, Terminal())
    batch._in_doubt[doubt.key] = doubt
    assert asyncio.run(batch.current_jobs()) == [doubt]
    active_jobs.append(job(8, JobStatus.RUNNING))
    assert asyncio.run(batch.current_jobs()) == active_jobs


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        (CallbackCounts(), "no callback yet"),
        (CallbackCounts(received=1), "1 callback came"),
        (CallbackCounts(received=7, waiting=2), "7 callbacks came; 2 in doubt, waiting for their callbacks"),
        (CallbackCounts(lost_to="h:1"), "no callback yet; does the public address lead to h:1?"),
    ],
)
def test_what_callbacks_told(heard: CallbackCounts, words: str) -> None:
    assert str(heard) == words


def test_the_pace_is_learned_from_the_recent_past() -> None:
    """What was done two minutes ago no longer counts."""
    pace = Pace()
    assert (pace.per_minute(), duration(pace.seconds_left(10) if pace.per_minute() else float("inf"))) == (
        0.0,
        "not known yet",
    )
    for second in range(0, 601, 10):
        pace.see(float(second), second // 10)
    assert (pace.per_minute(), pace.seconds_left(90)) == (6.0, 300.0)
    for second in range(610, 801, 10):
        pace.see(float(second), 60)
    assert pace.per_minute() == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2.0 h"), (float("inf"), "not known yet")],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    """In the unit that fits."""
    assert duration(seconds) == words


def test_a_line_says_it_all() -> None:
    """Counts, failures if there are, rate and time left."""
    pace = Pace()
    pace.see(0.0, 0)
    pace.see(60.0, 6)
    assert told(tally(JOBS, 20), pace, download=True) == (
        "6 of 20 settled (7 submitted, 2 running, 1 downloaded, 4 failed), 6 a minute, about 2 min left"
    )


def follow(terminal: Terminal, *, silent: bool = False, total: int = 9, heard: CallbackCounts | None = None) -> None:
    async def look() -> list[Job]:
        return JOBS

    async def work() -> None:
        async with ProgressDisplay(terminal, look, total, silent=silent, hear=None if heard is None else lambda: heard):
            await asyncio.sleep(0.05)

    asyncio.run(work())


def test_a_terminal_gets_a_display(capsys: pytest.CaptureFixture[str]) -> None:
    """With every count; it is gone at the end, and nothing goes to standard output."""
    terminal, shown = Terminal(), io.StringIO()
    terminal.err = Console(file=shown, force_terminal=True, width=120, color_system=None)
    follow(terminal)
    for words in ("5 of 9", "7 submitted", "2 running", "6 settled", "1 downloaded", "4 failed", "a minute"):
        assert words in shown.getvalue()
    assert capsys.readouterr().out == ""


def test_elsewhere_it_is_lines_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """No control characters in a file; silent with --json."""
    follow(Terminal())
    assert capsys.readouterr().err == "6 of 9 settled (7 submitted, 2 running, 1 downloaded, 4 failed)\n"
    follow(Terminal(), silent=True)
    assert capsys.readouterr() == ("", "")


def test_callbacks_have_a_row_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal; elsewhere they are told with the counts, and silently only that nothing else is waited for."""
    heard = CallbackCounts(received=3, waiting=1)
    terminal, shown = Terminal(), io.StringIO()
    terminal.err = Console(file=shown, force_terminal=True, width=80, color_system=None)
    follow(terminal, heard=heard)
    assert "\n3 callbacks came; 1 in doubt, waiting for their callbacks" in shown.getvalue().replace("\r", "")
    follow(Terminal(), heard=heard)
    assert "(7 submitted, 2 running, 1 downloaded, 3 failed); 3 callbacks came; 1 in doubt" in capsys.readouterr().err
    follow(Terminal(), heard=heard, silent=True)
    assert capsys.readouterr().err == ""
    follow(Terminal(), heard=heard, silent=True, total=6)
    assert capsys.readouterr().err.startswith("5 of 6 settled ")


def test_a_display_that_fails_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The batch is worth more than its display."""

    async def look() -> list[Job]:
        raise ValueError("broken")

    async def work() -> str:
        async with ProgressDisplay(Terminal(), look, 9):
            await asyncio.sleep(0.01)
        return "done"

    assert asyncio.run(work()) == "done"
    assert "the progress display failed" in capsys.readouterr().err
