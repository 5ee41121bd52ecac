"""Progress of a batch: counts, pace and time left, as a live display on a terminal and as lines elsewhere."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress, Task

from pika_async import GenerationRequest, Job, JobStatus
from pika_async.cli.batch import ProviderBatch
from pika_async.cli.progress import CallbackCounts, JobCounts, ProgressDisplay, count_jobs, progress_line
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
    """Settled and parked jobs are finished; finished jobs without a video are failed."""
    assert asyncio.run(count_jobs(JOBS, 20)) == JobCounts(
        total=20, submitted=7, running=2, finished=6, downloaded=1, failed=4
    )


def test_a_job_in_doubt_that_awaits_its_callback_is_not_finished() -> None:
    """It is neither finished nor failed until the batch stops waiting for the callback."""
    counts = asyncio.run(count_jobs(JOBS, 20, awaiting_callback=1))
    assert counts == JobCounts(
        total=20, submitted=7, running=2, finished=5, downloaded=1, failed=3, awaiting_callback=1
    )  # fmt: skip
    assert not counts.only_awaits_callbacks
    assert asyncio.run(count_jobs(JOBS, 6, awaiting_callback=1)).only_awaits_callbacks


def test_a_job_in_doubt_is_current_until_its_line_is_written() -> None:
    """It is reported as parked, and once it is found again, with its new status."""
    [in_doubt] = [job for job in JOBS if job.status is JobStatus.UNKNOWN]
    active_jobs: list[Job] = []
    client: Any = SimpleNamespace(active_jobs=lambda: active_jobs)
    nothing: Any = None
    batch = ProviderBatch(client, [], nothing, nothing, Terminal())
    batch._in_doubt[in_doubt.key] = in_doubt
    assert asyncio.run(batch.current_jobs()) == [in_doubt]
    active_jobs.append(job(8, JobStatus.RUNNING))
    assert asyncio.run(batch.current_jobs()) == active_jobs


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


def task_at(seconds: float, completed: int) -> Task:
    """A task of 20 jobs, `completed` of them evenly over `seconds`."""
    now = 0.0
    progress = Progress(get_time=lambda: now, speed_estimate_period=120)
    task_id = progress.add_task("jobs", total=20)
    for number in range(1, completed + 1):
        now = seconds * number / completed
        progress.update(task_id, completed=number)
    return progress.tasks[0]


def test_a_line_holds_counts_pace_and_time_left() -> None:
    assert progress_line(asyncio.run(count_jobs(JOBS, 20)), task_at(60.0, 6), download=True) == (
        "6 of 20 finished (7 submitted, 2 running, 1 downloaded, 4 failed), 6 a minute, about 0:02:20 left"
    )


def test_a_line_without_a_pace_holds_the_counts() -> None:
    """Until two jobs have finished at different times, and once all have, no time is promised."""
    counts = "6 of 20 finished (7 submitted, 2 running, 4 failed)"
    assert progress_line(asyncio.run(count_jobs(JOBS, 20)), task_at(60.0, 1), download=False) == counts
    assert "left" not in progress_line(asyncio.run(count_jobs(JOBS, 20)), task_at(60.0, 20), download=False)


def show_progress(
    terminal: Terminal, *, silent: bool = False, total: int = 9, callbacks: CallbackCounts | None = None
) -> None:
    """Show the progress of `JOBS` for a moment."""

    async def current_jobs() -> list[Job]:
        return JOBS

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
    for text in ("5 of 9", "-:--:-- left", "7 submitted", "2 running", "6 finished", "1 downloaded", "4 failed"):
        assert text in written.getvalue()
    assert "0 a minute" in written.getvalue()
    assert capsys.readouterr().out == ""


def test_an_empty_batch_has_a_display() -> None:
    terminal, written = live_terminal(80)
    show_progress(terminal, total=0)
    assert "6 finished" in written.getvalue()


def test_without_a_terminal_progress_is_lines_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A line has no control characters; with --json there is none."""
    show_progress(Terminal())
    assert capsys.readouterr().err == "6 of 9 finished (7 submitted, 2 running, 1 downloaded, 4 failed)\n"
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
    assert "(7 submitted, 2 running, 1 downloaded, 3 failed); 3 callbacks received; 1 in doubt" in line
    show_progress(Terminal(), callbacks=callbacks, silent=True)
    assert capsys.readouterr().err == ""
    show_progress(Terminal(), callbacks=callbacks, silent=True, total=6)
    assert capsys.readouterr().err.startswith("5 of 6 finished ")


def test_no_time_is_promised_while_only_callbacks_are_awaited() -> None:
    """The pace of the other jobs says nothing about when a callback arrives."""
    display = ProgressDisplay(Terminal(), _jobs, 6, download=False, callbacks=lambda: CallbackCounts(awaiting=1))
    display._progress.get_time = iter(range(100)).__next__
    for completed in (1, 2, 3):
        display._progress.update(display._task.id, completed=completed)
    assert display._task.time_remaining == 3
    asyncio.run(display._measure())
    assert display._task.time_remaining is None


async def _jobs() -> list[Job]:
    return JOBS


def test_a_display_that_fails_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The batch continues, and the failure is printed."""

    async def current_jobs() -> list[Job]:
        raise ValueError("broken")

    async def work() -> str:
        async with ProgressDisplay(Terminal(), current_jobs, 9):
            await asyncio.sleep(0.01)
        return "done"

    assert asyncio.run(work()) == "done"
    assert "the progress display failed" in capsys.readouterr().err
