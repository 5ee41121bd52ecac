"""Jobs: the transitions that are allowed, and the facts that each one records."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import (
    DownloadFailed,
    GenerationFailed,
    GenerationRequest,
    Job,
    JobCanceled,
    LastSeen,
    Snapshot,
    TaskState,
    Video,
)
from pika_async.jobs import FINAL, JobStatus, utc_from_timestamp

S = JobStatus
ERROR = JobCanceled(key="k", provider="p")
SENT_AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
VIDEO = Video(url="https://x.example/v.mp4", task_id="t")


def test_the_stratum_has_the_length_and_the_resolution_where_given() -> None:
    """Tasks without them stay in the stratum that journals know."""
    plain = Job(key="k", request=GenerationRequest("a"), provider="p", base_url="https://x.example")
    long = attrs.evolve(plain, request=GenerationRequest("a", duration=10, resolution="1080p"))
    assert (plain.stratum, long.stratum) == ("p/-/text/plain", "p/-/text/plain/10s/1080p")


def job(status: JobStatus, **facts: Any) -> Job:
    if status in {S.QUEUED, S.RUNNING, S.TIMED_OUT, S.SUCCEEDED, S.FAILED}:
        facts.setdefault("task_id", "t")
    return Job(
        key="k", request=GenerationRequest("a"), provider="p", base_url="https://x.example", status=status, **facts
    )


def snapshot(state: TaskState, **facts: Any) -> Snapshot:
    video = VIDEO if state is TaskState.SUCCEEDED else None
    return Snapshot(task_id="t", state=state, video=video, **facts)


TRANSITIONS: dict[str, Callable[[Job], Job]] = {
    "submitting": lambda job: job.submitting(),
    "requeued": lambda job: job.requeued(),
    "accepted": lambda job: job.accepted("t", 1.0),
    "rejected": lambda job: job.rejected(ERROR, 1.0),
    "in_doubt": lambda job: job.in_doubt(ERROR, SENT_AT),
    "canceled": lambda job: job.canceled(ERROR, 1.0),
    "timed_out": lambda job: job.timed_out(ERROR),
    "reopened": lambda job: job.reopened(),
}
ALLOWED: dict[str, dict[JobStatus, JobStatus]] = {
    "submitting": {S.PLANNED: S.SUBMITTING},
    "requeued": {S.SUBMITTING: S.PLANNED, S.UNKNOWN: S.PLANNED},
    "accepted": {S.SUBMITTING: S.QUEUED, S.UNKNOWN: S.QUEUED},
    "rejected": {S.PLANNED: S.REJECTED, S.SUBMITTING: S.REJECTED},
    "in_doubt": {S.SUBMITTING: S.UNKNOWN},
    "canceled": {S.PLANNED: S.CANCELED, S.UNKNOWN: S.CANCELED},
    "reopened": {S.TIMED_OUT: S.QUEUED},
    "timed_out": {S.QUEUED: S.TIMED_OUT, S.RUNNING: S.TIMED_OUT},
}
AFTER_POLL: dict[TaskState, dict[JobStatus, JobStatus]] = {
    TaskState.QUEUED: {S.QUEUED: S.QUEUED, S.RUNNING: S.RUNNING, S.TIMED_OUT: S.QUEUED},
    TaskState.RUNNING: dict.fromkeys((S.QUEUED, S.RUNNING, S.TIMED_OUT), S.RUNNING),
    TaskState.SUCCEEDED_WITHOUT_URL: dict.fromkeys((S.QUEUED, S.RUNNING, S.TIMED_OUT), S.RUNNING),
    TaskState.SUCCEEDED: dict.fromkeys((S.QUEUED, S.RUNNING, S.TIMED_OUT), S.SUCCEEDED),
    TaskState.FAILED: dict.fromkeys((S.QUEUED, S.RUNNING, S.TIMED_OUT), S.FAILED),
    TaskState.MISSING: {status: status for status in (S.QUEUED, S.RUNNING, S.TIMED_OUT)},
}


@pytest.mark.parametrize("status", S)
@pytest.mark.parametrize("transition", TRANSITIONS)
def test_transitions_are_made_exactly_where_they_are_allowed(transition: str, status: JobStatus) -> None:
    """A transition from a status that allows it gives the expected status; from any other it raises and changes nothing."""
    before = job(status)
    if status in ALLOWED[transition]:
        assert TRANSITIONS[transition](before).status is ALLOWED[transition][status]
    else:
        with pytest.raises(ValueError, match=f"job k: no transition from {status}"):
            TRANSITIONS[transition](before)
    assert before == job(status)


@pytest.mark.parametrize("status", S)
@pytest.mark.parametrize("state", TaskState)
def test_each_snapshot_gives_a_job_the_expected_status(state: TaskState, status: JobStatus) -> None:
    """A snapshot changes accepted jobs, leaves final ones unchanged, and raises for jobs that were never accepted."""
    before = job(status)
    if status in FINAL:
        assert before.with_snapshot(snapshot(state), 9.0) is before
    elif status in AFTER_POLL[state]:
        assert before.with_snapshot(snapshot(state), 9.0).status is AFTER_POLL[state][status]
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
def test_a_final_job_does_not_change(history: list[Snapshot]) -> None:
    """In any sequence of snapshots, the first one that settles a job is the last one that changes it."""
    now = job(S.QUEUED, task_id="t", submitted_at=utc_from_timestamp(0))
    settled: Job | None = None
    for at, sample in enumerate(history, 1):
        now = now.with_snapshot(sample, at, failure=GenerationFailed(key="k", provider="p", reason="r"))
        assert now.task_id == "t"
        assert now.submitted_at == utc_from_timestamp(0)
        if settled is not None:
            assert now is settled
        elif now.is_final:
            settled = now
            assert now.settled_at == utc_from_timestamp(at)
            assert now.status is (S.SUCCEEDED if sample.state is TaskState.SUCCEEDED else S.FAILED)
            assert (now.video == VIDEO) == (now.status is S.SUCCEEDED)
            assert (now.error is None) == (now.status is S.SUCCEEDED)
        else:
            assert now.settled_at is None
            assert now.video is None
    assert now.is_final == any(sample.state in {TaskState.SUCCEEDED, TaskState.FAILED} for sample in history)


@given(st.lists(snapshots.filter(lambda s: s.state not in {TaskState.SUCCEEDED, TaskState.FAILED}), max_size=8))
def test_a_running_job_does_not_become_queued(history: list[Snapshot]) -> None:
    """After a running snapshot a queued one does not change the status; progress and points are the latest given."""
    now = job(S.QUEUED, task_id="t")
    ran = False
    for sample in history:
        now = now.with_snapshot(sample, 1.0)
        ran = ran or sample.state in {TaskState.RUNNING, TaskState.SUCCEEDED_WITHOUT_URL}
        assert now.status is (S.RUNNING if ran else S.QUEUED)
        if sample.state is not TaskState.MISSING:
            assert sample.progress in {None, now.progress}
            assert sample.points in {None, now.points}


def test_a_poll_without_news_returns_the_same_job() -> None:
    """A second poll with the same facts returns the same object, so that nothing is written for it."""
    first = job(S.QUEUED, task_id="t").with_snapshot(snapshot(TaskState.RUNNING, progress=10), 1.0)
    assert first.with_snapshot(snapshot(TaskState.RUNNING, progress=10), 2.0) is first
    assert first.with_snapshot(snapshot(TaskState.RUNNING), 3.0) is first


def test_an_unknown_word_is_kept_until_an_answer_is_understood() -> None:
    """The facts beside an unknown word are in the record, also after a poll without news, and end with that word."""
    seen = LastSeen("archived", "kept for 3 days", "https://x.example/v.mp4")
    unknown = job(S.QUEUED).with_snapshot(snapshot(TaskState.RUNNING), 1.0, last_seen=seen)
    assert (unknown.status, unknown.last_seen) == (S.RUNNING, seen)
    assert unknown.with_snapshot(snapshot(TaskState.RUNNING), 2.0, last_seen=seen) is unknown
    assert unknown.with_snapshot(snapshot(TaskState.MISSING), 2.0).last_seen == seen
    for state in (TaskState.RUNNING, TaskState.SUCCEEDED, TaskState.FAILED):
        assert unknown.with_snapshot(snapshot(state), 2.0, failure=ERROR).last_seen is None
    assert unknown.timed_out(ERROR).last_seen is None


@pytest.mark.parametrize("state", [TaskState.RUNNING, TaskState.SUCCEEDED, TaskState.FAILED])
def test_a_zero_of_a_poll_replaces_an_earlier_number(state: TaskState) -> None:
    """Points of 0, as after a refund, count as a value; only a missing number leaves the earlier one."""
    before = job(S.RUNNING, points=400.0, refunded=7.0, progress=50)
    after = before.with_snapshot(snapshot(state, points=0.0, refunded=0.0, progress=0), 1.0, failure=ERROR)
    assert after.points == 0.0
    assert after.refunded == (7.0 if state is TaskState.RUNNING else 0.0)
    assert after.progress == {TaskState.RUNNING: 0, TaskState.SUCCEEDED: 100, TaskState.FAILED: 50}[state]
    missing = before.with_snapshot(snapshot(state), 1.0, failure=ERROR)
    assert (missing.points, missing.refunded) == (400.0, 7.0)


def test_final_and_in_flight_do_not_overlap() -> None:
    """No status is both final and in flight."""
    in_flight = {status for status in S if job(status).is_in_flight}
    assert in_flight == {S.QUEUED, S.RUNNING}
    assert {status for status in S if job(status).is_final} == FINAL
    assert not in_flight & FINAL
    assert set(S) - FINAL - in_flight == {S.PLANNED, S.SUBMITTING, S.UNKNOWN, S.TIMED_OUT}


def test_attempts_count_submissions() -> None:
    """Each submission counts once, whatever its outcome, and clears the last error."""
    now = job(S.PLANNED, error=ERROR)
    for attempt in (1, 2, 3):
        now = now.submitting()
        assert (now.attempts, now.error) == (attempt, None)
        now = now.requeued()
    assert now.attempts == 3


def test_a_requeued_job_has_no_time_of_submission() -> None:
    """A job in doubt that was resolved as not charged is not counted as charged."""
    unconfirmed = job(S.SUBMITTING, attempts=1).in_doubt(ERROR, SENT_AT)
    assert unconfirmed.submitted_at == SENT_AT
    assert unconfirmed.requeued().submitted_at is None


def test_a_download_does_not_change_the_status() -> None:
    """A job stays succeeded whether its download works or not; the failure of a download is its `error`."""
    done = job(S.SUCCEEDED, video=VIDEO)
    failed = done.with_download_error(DownloadFailed(url=VIDEO.url, reason="short"))
    assert (failed.status, failed.file, isinstance(failed.error, DownloadFailed)) == (S.SUCCEEDED, None, True)
    fetched = failed.with_file(Path("k.mp4"), "ab")
    assert (fetched.status, fetched.file, fetched.sha256, fetched.error) == (S.SUCCEEDED, Path("k.mp4"), "ab", None)


def test_the_time_of_download_is_when_the_file_was_there_first() -> None:
    """A file that is found again later keeps its time; one whose time is unknown has none."""
    done = job(S.SUCCEEDED, video=VIDEO)
    fetched = done.with_file(Path("k.mp4"), "ab", utc_from_timestamp(10.0))
    assert fetched.downloaded_at == utc_from_timestamp(10.0)
    assert fetched.with_file(Path("k.mp4"), "ab", utc_from_timestamp(20.0)).downloaded_at == utc_from_timestamp(10.0)
    assert done.with_file(Path("k.mp4"), "ab").downloaded_at is None


def test_a_job_is_frozen() -> None:
    """No field of a job can be set."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        job(S.PLANNED).status = S.QUEUED  # type: ignore[misc]


@given(st.floats(0, 4e9))
def test_times_are_utc_and_rounded_down_to_the_millisecond(seconds: float) -> None:
    """A time is at most a millisecond, and the precision of a float, earlier than the timestamp."""
    at = utc_from_timestamp(seconds)
    assert at.tzinfo is UTC
    assert at.microsecond % 1000 == 0
    assert 0 <= seconds - at.timestamp() + 1e-6 < 1.1e-3
    assert at >= datetime(1970, 1, 1, tzinfo=UTC)
