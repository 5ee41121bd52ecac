"""A job makes the moves that its docstrings allow and no other, and what is final stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import DownloadFailed, GenerationFailed, GenerationRequest, Job, JobCanceled, Snapshot, TaskState, Video
from pika_async.jobs import FINAL, JobStatus, utc_from_timestamp

S = JobStatus
ERROR = JobCanceled(key="k", provider="p")
VIDEO = Video(url="https://x.example/v.mp4", task_id="t")


def job(status: JobStatus, **facts: Any) -> Job:
    if status in {S.QUEUED, S.RUNNING, S.TIMED_OUT, S.SUCCEEDED, S.FAILED}:
        facts.setdefault("task_id", "t")
    return Job(
        key="k", request=GenerationRequest("a"), provider="p", base_url="https://x.example", status=status, **facts
    )


def snapshot(state: TaskState, **facts: Any) -> Snapshot:
    video = VIDEO if state is TaskState.SUCCEEDED else None
    return Snapshot(task_id="t", state=state, video=video, **facts)


MOVES: dict[str, Callable[[Job], Job]] = {
    "submitting": lambda job: job.submitting(),
    "returned": lambda job: job.requeued(),
    "accepted": lambda job: job.accepted("t", 1.0),
    "rejected": lambda job: job.rejected(ERROR, 1.0),
    "doubted": lambda job: job.in_doubt(ERROR, 1.0),
    "canceled": lambda job: job.canceled(ERROR, 1.0),
    "timed_out": lambda job: job.timed_out(ERROR),
    "reopened": lambda job: job.reopened(),
}
ALLOWED: dict[str, dict[JobStatus, JobStatus]] = {
    "submitting": {S.PLANNED: S.SUBMITTING},
    "returned": {S.SUBMITTING: S.PLANNED, S.UNKNOWN: S.PLANNED},
    "accepted": {S.SUBMITTING: S.QUEUED, S.UNKNOWN: S.QUEUED},
    "rejected": {S.PLANNED: S.REJECTED, S.SUBMITTING: S.REJECTED},
    "doubted": {S.SUBMITTING: S.UNKNOWN},
    "canceled": {S.PLANNED: S.CANCELED, S.UNKNOWN: S.CANCELED},
    "reopened": {S.TIMED_OUT: S.QUEUED},
    "timed_out": {S.QUEUED: S.TIMED_OUT, S.RUNNING: S.TIMED_OUT},
}
SEEN: dict[TaskState, dict[JobStatus, JobStatus]] = {
    TaskState.QUEUED: {S.QUEUED: S.QUEUED, S.RUNNING: S.RUNNING, S.TIMED_OUT: S.QUEUED},
    TaskState.RUNNING: dict.fromkeys((S.QUEUED, S.RUNNING, S.TIMED_OUT), S.RUNNING),
    TaskState.SUCCEEDED_WITHOUT_URL: dict.fromkeys((S.QUEUED, S.RUNNING, S.TIMED_OUT), S.RUNNING),
    TaskState.SUCCEEDED: dict.fromkeys((S.QUEUED, S.RUNNING, S.TIMED_OUT), S.SUCCEEDED),
    TaskState.FAILED: dict.fromkeys((S.QUEUED, S.RUNNING, S.TIMED_OUT), S.FAILED),
    TaskState.MISSING: {status: status for status in (S.QUEUED, S.RUNNING, S.TIMED_OUT)},
}


@pytest.mark.parametrize("status", S)
@pytest.mark.parametrize("move", MOVES)
def test_every_move_is_made_exactly_where_it_is_allowed(move: str, status: JobStatus) -> None:
    """A move from a status that allows it gives the status that it should, and any other raises and changes nothing."""
    before = job(status)
    if status in ALLOWED[move]:
        assert MOVES[move](before).status is ALLOWED[move][status]
    else:
        with pytest.raises(ValueError, match=f"job k: no transition from {status}"):
            MOVES[move](before)
    assert before == job(status)


@pytest.mark.parametrize("status", S)
@pytest.mark.parametrize("state", TaskState)
def test_every_snapshot_moves_a_job_where_it_should(state: TaskState, status: JobStatus) -> None:
    """Of accepted jobs a snapshot makes what it says; of final ones nothing; of what was never accepted it is an error."""
    before = job(status)
    if status in FINAL:
        assert before.with_snapshot(snapshot(state), 9.0) is before
    elif status in SEEN[state]:
        assert before.with_snapshot(snapshot(state), 9.0).status is SEEN[state][status]
    else:
        with pytest.raises(ValueError, match="no transition from"):
            before.with_snapshot(snapshot(state), 9.0)


snapshots = st.builds(
    snapshot,
    st.sampled_from(TaskState),
    progress=st.none() | st.integers(0, 100),
    points=st.none() | st.floats(0, 999),
    reason=st.text(max_size=5),
)


@given(st.lists(snapshots, max_size=12))
def test_final_is_a_latch(history: list[Snapshot]) -> None:
    """Whatever polls say in whatever order: the first that settles a job is the last that changes it."""
    now = job(S.QUEUED, task_id="t", submitted_at=utc_from_timestamp(0))
    settled: Job | None = None
    for at, seen in enumerate(history, 1):
        now = now.with_snapshot(seen, at, failure=GenerationFailed(key="k", provider="p", reason="r"))
        assert now.task_id == "t"
        assert now.submitted_at == utc_from_timestamp(0)
        if settled is not None:
            assert now is settled
        elif now.is_final:
            settled = now
            assert now.settled_at == utc_from_timestamp(at)
            assert now.status is (S.SUCCEEDED if seen.state is TaskState.SUCCEEDED else S.FAILED)
            assert (now.video == VIDEO) == (now.status is S.SUCCEEDED)
            assert (now.error is None) == (now.status is S.SUCCEEDED)
        else:
            assert now.settled_at is None
            assert now.video is None
    assert now.is_final == any(seen.state in {TaskState.SUCCEEDED, TaskState.FAILED} for seen in history)


@given(st.lists(snapshots.filter(lambda s: s.state not in {TaskState.SUCCEEDED, TaskState.FAILED}), max_size=8))
def test_running_does_not_go_back_to_queued(history: list[Snapshot]) -> None:
    """Once a task was seen running, a poll that says "queued" does not take that back; progress and points are kept."""
    now = job(S.QUEUED, task_id="t")
    ran = False
    for seen in history:
        now = now.with_snapshot(seen, 1.0)
        ran = ran or seen.state in {TaskState.RUNNING, TaskState.SUCCEEDED_WITHOUT_URL}
        assert now.status is (S.RUNNING if ran else S.QUEUED)
        if seen.state is not TaskState.MISSING:
            assert seen.progress in {None, now.progress}
            assert seen.points in {None, now.points}


def test_a_look_that_says_nothing_new_gives_the_same_job() -> None:
    """A second look with the same words is the same object, so that nothing is written for it."""
    first = job(S.QUEUED, task_id="t").with_snapshot(snapshot(TaskState.RUNNING, progress=10), 1.0)
    assert first.with_snapshot(snapshot(TaskState.RUNNING, progress=10), 2.0) is first
    assert first.with_snapshot(snapshot(TaskState.RUNNING), 3.0) is first


def test_final_and_in_flight_do_not_overlap() -> None:
    """Each status is at most one of them."""
    in_flight = {status for status in S if job(status).is_in_flight}
    assert in_flight == {S.QUEUED, S.RUNNING}
    assert {status for status in S if job(status).is_final} == FINAL
    assert not in_flight & FINAL
    assert set(S) - FINAL - in_flight == {S.PLANNED, S.SUBMITTING, S.UNKNOWN, S.TIMED_OUT}


def test_attempts_count_what_was_sent() -> None:
    """Each intent to send counts once, whatever became of it, and clears the last error."""
    now = job(S.PLANNED, error=ERROR)
    for attempt in (1, 2, 3):
        now = now.submitting()
        assert (now.attempts, now.error) == (attempt, None)
        now = now.requeued()
    assert now.attempts == 3


def test_what_is_proven_unsent_has_no_time_of_submission() -> None:
    """A doubt that a person resolved as not charged leaves no trace of a charge."""
    doubted = job(S.SUBMITTING, attempts=1).in_doubt(ERROR, 5.0)
    assert doubted.submitted_at == utc_from_timestamp(5)
    assert doubted.requeued().submitted_at is None


def test_a_file_or_its_failure_never_changes_the_status() -> None:
    """Fetched or not, a job stays succeeded; the failure of a download is its `error`."""
    done = job(S.SUCCEEDED, video=VIDEO)
    failed = done.with_download_error(DownloadFailed(url=VIDEO.url, reason="short"))
    assert (failed.status, failed.file, isinstance(failed.error, DownloadFailed)) == (S.SUCCEEDED, None, True)
    got = failed.with_file(Path("k.mp4"), "ab")
    assert (got.status, got.file, got.sha256, got.error) == (S.SUCCEEDED, Path("k.mp4"), "ab", None)


def test_a_job_is_frozen() -> None:
    """No field of a job can be set."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        job(S.PLANNED).status = S.QUEUED  # type: ignore[misc]


@given(st.floats(0, 4e9))
def test_instants_are_utc_and_to_the_millisecond(seconds: float) -> None:
    """A time is never later than it was, by less than a millisecond and what a float holds."""
    at = utc_from_timestamp(seconds)
    assert at.tzinfo is UTC
    assert at.microsecond % 1000 == 0
    assert 0 <= seconds - at.timestamp() + 1e-6 < 1.1e-3
    assert at >= datetime(1970, 1, 1, tzinfo=UTC)
