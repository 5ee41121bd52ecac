"""Values of `results.jsonl` and the exit codes of a command."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import GenerationRequest
from pika_async._journal import queries
from pika_async._journal.serialization import job_from_row, job_to_row, request_to_json
from pika_async._journal.write_buffer import WriteOp
from pika_async.cli.batch import BatchOutcome
from pika_async.cli.exits import ExitCode
from pika_async.cli.results import COLUMNS, ResultsWriter, read_results, result_row
from pika_async.cli.status import _figures
from pika_async.errors import AccountStopped, DownloadFailed, GenerationFailed, SubmissionsStopped, WrongBaseUrl
from pika_async.jobs import Job, JobStatus
from pika_async.models import Video
from tests.cli.command_line import CommandLine, serving

SUCCEEDED = Job(
    key="k", request=GenerationRequest("a cat"), provider="gptge", base_url="https://gateway.example", index=3,
    status=JobStatus.SUCCEEDED, task_id="t-1", video=Video(url="https://cdn.example/v.mp4"), file=Path("out/k.mp4"),
    sha256="ab" * 32, polls=17, attempts=4, points=400.0, submitted_at=datetime(2026, 11, 28, 12, tzinfo=UTC),
    settled_at=datetime(2026, 11, 28, 12, 4, tzinfo=UTC),
)  # fmt: skip


def test_each_field_of_a_line_has_the_value_of_its_name() -> None:
    """Every column has its own field of the job, none that of another."""
    assert result_row(attrs.evolve(SUCCEEDED, account="second", cost=0.3), Path("out")) == {
        "key": "k", "index": 3, "status": "succeeded", "provider": "gptge", "account": "second", "task_id": "t-1", "prompt": "a cat",
        "video_url": "https://cdn.example/v.mp4", "file": "k.mp4", "sha256": "ab" * 32, "error": None, "polls": 17,
        "submitted_at": "2026-11-28T12:00:00.000Z", "settled_at": "2026-11-28T12:04:00.000Z", "points": 400.0,
        "cost": 0.3, "metadata": None,
    }  # fmt: skip
    assert tuple(result_row(SUCCEEDED, Path("out"))) == COLUMNS


def test_a_zero_is_a_value(tmp_path: Path) -> None:
    """A number that is 0 is written as 0, and only what has no value as null."""
    zero = attrs.evolve(SUCCEEDED, index=0, polls=0, points=0.0)
    with ResultsWriter(tmp_path / "results.jsonl") as results:
        results.write(zero)
    [record] = read_results(tmp_path / "results.jsonl")
    assert (record["index"], record["polls"], record["points"]) == (0, 0, 0)
    assert '"points": 0.0' in (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    bare = Job(key="n", request=GenerationRequest("a"), provider="gptge", base_url="https://gateway.example")
    absent = {name for name, value in result_row(bare, tmp_path).items() if value is None}
    assert absent == {
        "task_id",
        "video_url",
        "file",
        "sha256",
        "error",
        "submitted_at",
        "settled_at",
        "points",
        "account",
        "cost",
        "metadata",
    }


def test_a_sum_of_zero_is_shown_as_zero() -> None:
    """`status` shows 0 where the provider said 0, and a dash where it said nothing."""
    zero = attrs.evolve(SUCCEEDED, points=0.0, refunded=0.0, file=None)
    assert _figures("failed", [zero, zero]) == ("failed", "2", "-", "0", "0")
    assert _figures("failed", [attrs.evolve(zero, points=None, refunded=None)]) == ("failed", "1", "-", "-", "-")


# --- exit codes -------------------------------------------------------------------------------------------------------

FAILED = attrs.evolve(
    SUCCEEDED, key="f", status=JobStatus.FAILED, video=None, file=None,
    error=GenerationFailed(key="f", provider="gptge", reason="moderation"),
)  # fmt: skip
NOT_DOWNLOADED = attrs.evolve(SUCCEEDED, file=None, error=DownloadFailed(url="https://cdn.example/v.mp4", reason="cut"))
STOPS: dict[str, SubmissionsStopped | None] = {
    "": None,
    "account": AccountStopped(provider="gptge", reason="no balance"),
    "address": WrongBaseUrl(provider="gptge", reason="a page", base_url="https://gateway.example"),
}
JOBS: dict[str, Sequence[Job]] = {"all": [SUCCEEDED], "failed": [SUCCEEDED, FAILED], "not downloaded": [NOT_DOWNLOADED]}
#: Reasons of an exit code in the order in which they count, and the code of each; without any of them it is 0.
PRECEDENCE: list[tuple[str, ExitCode]] = [
    ("interrupted", ExitCode.INTERRUPTED),
    ("account", ExitCode.ACCOUNT_STOPPED),
    ("failed", ExitCode.INCOMPLETE),
    ("not downloaded", ExitCode.INCOMPLETE),
    ("lines missing", ExitCode.INCOMPLETE),
    ("journal missing", ExitCode.INCOMPLETE),
]


@pytest.mark.parametrize("jobs", JOBS)
@pytest.mark.parametrize("stop", STOPS)
def test_of_several_reasons_the_first_decides_the_exit_code(stop: str, jobs: str) -> None:
    """Interrupted precedes a stopped account, and that precedes every other reason; each alone prevents code 0."""
    for interrupted, lines, journal in itertools.product([False, True], repeat=3):
        outcome = BatchOutcome(
            jobs=JOBS[jobs], stopped=STOPS[stop], interrupted=interrupted, results_complete=not lines,
            journal_complete=not journal,
        )  # fmt: skip
        given = {"interrupted": interrupted, "lines missing": lines, "journal missing": journal}
        reasons = {stop, jobs} | {reason for reason, holds in given.items() if holds}
        expected = next((code for reason, code in PRECEDENCE if reason in reasons), ExitCode.OK)
        assert outcome.code is expected, reasons


def test_a_journal_that_lacks_a_result_prevents_a_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every video is on disk but the journal refused its record, the command exits with 1 and says so."""
    execute = queries.execute

    def fail_for_files(connection: Any, operation: WriteOp, folder: Path, revision: int) -> int:
        if any(job.sha256 for job in operation.jobs_to_write):
            raise sqlite3.OperationalError("disk I/O error")
        return execute(connection, operation, folder, revision)

    monkeypatch.setattr(queries, "execute", fail_for_files)
    cli = CommandLine(tmp_path, capsys, monkeypatch)
    with serving() as emulator:
        ran = cli.batch(emulator, cli.write("b.txt", "a cat"))
    assert [(record["status"], record["file"] is None) for record in cli.results()] == [("succeeded", False)]
    assert ran.code == 1
    assert "the journal could not be written" in ran.out + ran.err


def test_zeros_survive_the_journal() -> None:
    """Seed, duration, progress and points of 0 are kept by the row of a job."""
    job = attrs.evolve(
        SUCCEEDED, progress=0, points=0.0, refunded=0.0, polls=0,
        video=Video(url="https://cdn.example/v.mp4", seed=0, duration=0.0),
    )  # fmt: skip
    row = job_to_row(job, None, Path("out").absolute()) | {"request": request_to_json(job.request)}
    assert (row["progress"], row["points"], row["refunded"]) == (0, 0.0, 0.0)
    again = job_from_row(row, Path("out").absolute())
    assert (again.progress, again.points, again.refunded, again.polls) == (0, 0.0, 0.0, 0)
    assert again.video is not None
    assert (again.video.seed, again.video.duration) == (0, 0.0)
