"""What is told of a job as it goes on: accepted, running, settled, parked. Tells nobody itself."""

from __future__ import annotations

import attrs

from pika_async.lifecycle import Job, JobStatus

__all__ = ["JobAccepted", "JobEvent", "JobParked", "JobRunning", "JobSettled", "event_of"]


@attrs.frozen
class JobEvent:
    """A job has changed, and stands as `job` says.

    `number` is that of the change, above those of all before: with a journal in a file also over restarts, so that
    `events(after=number)` goes on behind it.
    """

    number: int
    job: Job


@attrs.frozen
class JobAccepted(JobEvent):
    """The provider took it; its task id is safe in the journal. Given again when one that timed out is taken up."""


@attrs.frozen
class JobRunning(JobEvent):
    """The provider works on it; given again when it tells another percentage."""


@attrs.frozen
class JobSettled(JobEvent):
    """It has come to its end: succeeded, failed, rejected or canceled. Its file, if one is wanted, may still be on its
    way.
    """


@attrs.frozen
class JobParked(JobEvent):
    """It is put aside and `job.error` says why: in doubt, timed out, or planned and not sent after all."""


_KINDS = {
    JobStatus.SUBMITTING: None,
    JobStatus.QUEUED: JobAccepted,
    JobStatus.RUNNING: JobRunning,
    JobStatus.UNKNOWN: JobParked,
    JobStatus.TIMED_OUT: JobParked,
}


def event_of(number: int, job: Job) -> JobEvent | None:
    """The event that a change is; None for one of a job that is about to be sent."""
    if job.status is JobStatus.PLANNED:
        return None if job.error is None else JobParked(number, job)
    kind = _KINDS.get(job.status, JobSettled)
    return None if kind is None else kind(number, job)
