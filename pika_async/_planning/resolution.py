"""Jobs in doubt: how they are marked and resolved; the keys under which earlier jobs are kept. Pure: sends nothing."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator
from datetime import datetime

from pika_async.errors import InvalidRequest, JobCanceled, SubmissionInDoubt
from pika_async.jobs import Job, JobStatus

__all__ = ["apply_resolution", "archive_key", "archive_keys", "mark_interrupted", "mark_superseded"]


def mark_interrupted(job: Job, sent_at: datetime) -> Job:
    """Return a job in doubt: its process ended after `sent_at` without recording the outcome of the submission."""
    reason = "the process ended before the answer was recorded"
    error = SubmissionInDoubt(key=job.key, provider=job.provider, reason=reason, at=sent_at, attempt=job.attempts)
    return job.in_doubt(error, sent_at)


def apply_resolution(job: Job, at: float, *, task_id: str | None, charged: bool | None, abandon: bool) -> Job:
    """Return a job in doubt after a person has resolved it at `at` (unix seconds).

    :param task_id: the task id that the person found; None if it was not found.
    :param charged: False if the person found that the job was not charged.
    :param abandon: whether the person gives the job up.
    :raises InvalidRequest: unless exactly one of the three is given, or if the job is not in doubt.
    """
    if job.status is not JobStatus.UNKNOWN:
        reason = f"must be in doubt to be resolved, but is {job.status.label}"
        raise InvalidRequest(field="key", value=job.key, reason=reason)
    if charged or [task_id is not None, charged is False, abandon].count(True) != 1:
        reason = "must be resolved by exactly one of task_id=..., charged=False, abandon=True"
        raise InvalidRequest(field="resolve", value=job.key, reason=reason)
    if task_id is not None:
        if not isinstance(task_id, str) or not task_id.strip():
            raise InvalidRequest(field="task_id", value=task_id, reason="must be the provider's task id, as text")
        return job.accepted(task_id.strip(), at)
    if abandon:
        reason = "abandoned by a person; it may have been accepted and charged"
        return job.canceled(JobCanceled(key=job.key, provider=job.provider, reason=reason, in_doubt=True), at)
    return mark_superseded(job.requeued(), at) if "~" in job.key else job.requeued()


def mark_superseded(job: Job, at: float) -> Job:
    """Return a job whose place another job has taken: canceled if it was planned, otherwise unchanged."""
    if job.status is not JobStatus.PLANNED:
        return job
    reason = "another job took its place before it was sent"
    return job.canceled(JobCanceled(key=job.key, provider=job.provider, reason=reason), at)


def archive_keys(key: str) -> Iterator[str]:
    """Yield the keys under which earlier jobs of `key` are kept, oldest first: `KEY~1`, `KEY~2`, ..."""
    return (f"{key}~{number}" for number in itertools.count(1))


def archive_key(key: str, taken: Container[str]) -> str:
    """Return the key under which the next earlier job of `key` is kept: the first that is not taken."""
    return next(name for name in archive_keys(key) if name not in taken)
