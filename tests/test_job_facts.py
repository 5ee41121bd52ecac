"""Facts of jobs that transitions keep, replace or drop: times, points, errors, attempts, charges."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from pika_async import GenerationFailed, GenerationRequest, Job, JobCanceled, Snapshot, TaskState, Video
from pika_async._planning.outcomes import apply_verdict
from pika_async._planning.resolution import apply_resolution, mark_interrupted
from pika_async.errors import DownloadFailed, SubmissionInDoubt
from pika_async.jobs import JobParked, JobStatus, event_of
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict

S = JobStatus
SENT_AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
LATER = SENT_AT.timestamp() + 300
ERROR = JobCanceled(key="k", provider="p")


def job(status: JobStatus, **facts: Any) -> Job:
    if status in {S.QUEUED, S.RUNNING, S.TIMED_OUT, S.SUCCEEDED, S.FAILED}:
        facts.setdefault("task_id", "t")
    facts.setdefault("key", "k")
    return Job(request=GenerationRequest("a"), provider="p", base_url="https://x.example", status=status, **facts)


def doubt(**facts: Any) -> Job:
    return job(S.SUBMITTING, attempts=2, **facts).in_doubt(ERROR, SENT_AT)


def snapshot(state: TaskState, **facts: Any) -> Snapshot:
    video = Video(url="https://x.example/v.mp4", task_id="t") if state is TaskState.SUCCEEDED else None
    return Snapshot(task_id="t", state=state, video=video, **facts)


def test_a_doubt_carries_the_time_of_its_sending() -> None:
    """The answer came five minutes later; both the job and its error have the time at which the request was sent."""
    outcome = SubmitOutcome(verdict=SubmitVerdict.UNKNOWN, reason="no answer")
    found = apply_verdict(job(S.SUBMITTING, attempts=3), outcome, LATER, SENT_AT)
    assert isinstance(found.error, SubmissionInDoubt)
    assert (found.submitted_at, found.error.at, found.error.attempt) == (SENT_AT, SENT_AT, 3)


def test_an_interrupted_submission_carries_its_time_and_its_attempt() -> None:
    """The next process takes both from the intent."""
    found = mark_interrupted(job(S.SUBMITTING, attempts=3), SENT_AT)
    assert isinstance(found.error, SubmissionInDoubt)
    assert (found.submitted_at, found.error.at, found.error.attempt) == (SENT_AT, SENT_AT, 3)


def test_a_doubt_that_is_accepted_keeps_the_time_of_its_sending() -> None:
    """Its task id was found later, but the task has run since then."""
    assert doubt().accepted("t", LATER).submitted_at == SENT_AT


def test_a_doubt_that_is_abandoned_may_still_be_charged() -> None:
    """It counts towards the limit of charges; a job that was withdrawn before it was sent does not."""
    assert doubt().canceled(ERROR, LATER).may_be_charged
    assert not job(S.PLANNED).canceled(ERROR, LATER).may_be_charged
    assert not doubt().requeued().may_be_charged


@pytest.mark.parametrize("state", [TaskState.SUCCEEDED, TaskState.FAILED])
@pytest.mark.parametrize(
    "before, news, after",
    [
        ((5.0, None), (0.0, 5.0), (0.0, 5.0)),
        ((5.0, 3.0), (2.0, 0.0), (2.0, 0.0)),
        ((5.0, 3.0), (None, None), (5.0, 3.0)),
        ((None, None), (0.0, None), (0.0, None)),
    ],
)
def test_points_of_zero_are_points(
    state: TaskState, before: tuple[float, float], news: tuple[float, float], after: tuple[float, float]
) -> None:
    """A settled job has the charge and the refund of its last answer, zero included; a missing one changes nothing."""
    running = job(S.RUNNING, points=before[0], refunded=before[1])
    failure = GenerationFailed(key="k", provider="p", task_id="t", reason="r")
    settled = running.with_snapshot(snapshot(state, points=news[0], refunded=news[1]), LATER, failure=failure)
    assert (settled.points, settled.refunded) == after


@pytest.mark.parametrize("progress", [None, 0, 99])
def test_a_success_is_at_100_percent(progress: int | None) -> None:
    """Whatever the last answer says."""
    assert (
        job(S.RUNNING, progress=40).with_snapshot(snapshot(TaskState.SUCCEEDED, progress=progress), 1.0).progress == 100
    )


def test_a_reopened_job_has_no_error() -> None:
    """Its timeout is over."""
    assert job(S.QUEUED).timed_out(ERROR).reopened().error is None


def test_a_task_id_of_a_person_is_stripped() -> None:
    """Spaces and line breaks around it come from the clipboard."""
    assert apply_resolution(doubt(), LATER, task_id=" t-1\n", charged=None, abandon=False).task_id == "t-1"


def test_an_archived_doubt_that_was_not_charged_is_not_sent_again() -> None:
    """Another job has taken its place; a doubt under its own key is planned."""
    found = [
        apply_resolution(doubt(key=key), LATER, task_id=None, charged=False, abandon=False).status
        for key in ("k~1", "k")
    ]
    assert found == [S.CANCELED, S.PLANNED]


def test_a_planned_job_is_an_event_only_with_a_reason() -> None:
    """A stop parks it; without a reason it is about to be sent."""
    assert event_of(1, job(S.PLANNED)) is None
    assert isinstance(event_of(1, job(S.PLANNED, error=ERROR)), JobParked)


def test_jobs_are_equal_if_their_errors_say_the_same() -> None:
    """Errors have no equality of their own; a job that was read twice is equal to itself."""
    one, other = (DownloadFailed(url=f"https://{host}.example/v.mp4", reason="r") for host in "xy")
    done = job(S.SUCCEEDED, error=one)
    assert done == attrs.evolve(done, error=one.copy())
    assert done not in (attrs.evolve(done, error=None), attrs.evolve(done, error=other))
    assert len({done, attrs.evolve(done, error=one.copy())}) == 1
