"""A job from planned to settled: the record and the moves it may make. Decides nothing and sends nothing."""

from __future__ import annotations

import enum
import itertools
import math
import sys
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs

from pika_async.errors import (
    ClientClosed,
    InvalidRequest,
    JobCanceled,
    PikaError,
    SubmissionInDoubt,
    SubmissionsStopped,
)
from pika_async.models import GenerationRequest, Snapshot, TaskState, Video

__all__ = [
    "FINAL",
    "BatchReport",
    "Job",
    "JobAccepted",
    "JobEvent",
    "JobParked",
    "JobRunning",
    "JobSettled",
    "JobStatus",
    "apply_resolution",
    "archive_key",
    "event_of",
    "mark_interrupted",
    "mark_superseded",
    "utc_from_timestamp",
]


class JobStatus(enum.StrEnum):
    """Where a job stands. `succeeded`, `failed`, `rejected` and `canceled` are final."""

    #: Not sent, or proven not accepted.
    PLANNED = "planned"
    #: The request is on its way; an answer is awaited.
    SUBMITTING = "submitting"
    #: Accepted: the provider gave a task id.
    QUEUED = "queued"
    #: The provider is generating.
    RUNNING = "running"
    #: Done; whether the file is on disk is a separate fact of the job.
    SUCCEEDED = "succeeded"
    #: The provider settled it as failed.
    FAILED = "failed"
    #: Refused before anything was accepted.
    REJECTED = "rejected"
    #: Withdrawn before anything was sent.
    CANCELED = "canceled"
    #: Sent, no receipt: perhaps accepted and charged. Waits for a person or a callback, never for time.
    UNKNOWN = "unknown"
    #: The deadline passed, or the provider denies the task. The task id is kept and may be asked again.
    TIMED_OUT = "timed_out"


_S = JobStatus
FINAL: Final = frozenset({_S.SUCCEEDED, _S.FAILED, _S.REJECTED, _S.CANCELED})

_MOVES: Final[dict[JobStatus, frozenset[JobStatus]]] = {
    _S.PLANNED: frozenset({_S.SUBMITTING, _S.REJECTED, _S.CANCELED}),
    _S.SUBMITTING: frozenset({_S.PLANNED, _S.QUEUED, _S.REJECTED, _S.UNKNOWN}),
    _S.QUEUED: frozenset({_S.QUEUED, _S.RUNNING, _S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT}),
    _S.RUNNING: frozenset({_S.RUNNING, _S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT}),
    _S.TIMED_OUT: frozenset({_S.QUEUED, _S.RUNNING, _S.SUCCEEDED, _S.FAILED}),
    _S.UNKNOWN: frozenset({_S.QUEUED, _S.PLANNED, _S.CANCELED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.REJECTED: frozenset(),
    _S.CANCELED: frozenset(),
}


def utc_from_timestamp(seconds: float) -> datetime:
    """`seconds` since 1970 as a UTC time, to the millisecond."""
    return datetime.fromtimestamp(math.floor(seconds * 1000) / 1000, UTC)


@attrs.frozen(kw_only=True, weakref_slot=False)  # a job that waits is to cost 1 KiB with all that is kept of it
class Job:
    """Our record of one request. A value: every change gives a new one.

    `attempts` counts how often it was sent, `polls` how often it was asked for. `error` says why a job is not a
    success, or why a success has no `file`. `sha256` without a `file` is that of the file that was about to be named.
    `points` is what the provider says stays charged, `refunded` what it says it gave back.
    """

    key: str
    request: GenerationRequest
    provider: str
    base_url: str
    index: int = 0
    status: JobStatus = JobStatus.PLANNED
    task_id: str | None = None
    video: Video | None = None
    file: Path | None = None
    sha256: str | None = None
    error: PikaError | None = None
    progress: int | None = None
    polls: int = 0
    attempts: int = 0
    submitted_at: datetime | None = None
    settled_at: datetime | None = None
    points: float | None = None
    refunded: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether the generation has come to its end, good or bad."""
        return self.status in FINAL

    @property
    def is_in_flight(self) -> bool:
        """Whether the provider is working on it as far as is known."""
        return self.status in {JobStatus.QUEUED, JobStatus.RUNNING}

    @property
    def may_be_charged(self) -> bool:
        """Whether its submission was accepted, or may have been; a doubt that was given up stays one."""
        return self.task_id is not None or self.submitted_at is not None or self.status is JobStatus.SUBMITTING

    @property
    def stratum(self) -> str:
        """What makes tasks alike in how long they take: the provider, the model, the kind, an effect or none."""
        wanted = self.request
        effect = "effect" if wanted.effect else "plain"
        return sys.intern(f"{self.provider}/{wanted.model or '-'}/{wanted.kind}/{effect}")

    def to_exception(self) -> PikaError:
        """Why it is no success: an error to raise."""
        if self.error is not None:
            return self.error.copy()
        return ClientClosed(provider=self.provider, reason=f"job {self.key} was {self.status}, task {self.task_id}")

    def _to(self, status: JobStatus, **changes: Any) -> Job:
        if status not in _MOVES[self.status]:
            raise ValueError(f"job {self.key}: no move from {self.status} to {status}")
        return attrs.evolve(self, status=status, **changes)

    def submitting(self) -> Job:
        """The intent to send, once more."""
        return self._to(JobStatus.SUBMITTING, attempts=self.attempts + 1, error=None)

    def requeued(self, error: PikaError | None = None) -> Job:
        """Proven not accepted: back to planned."""
        return self._to(JobStatus.PLANNED, error=error, submitted_at=None)

    def accepted(self, task_id: str, at: float) -> Job:
        """A receipt was read at `at` (unix seconds); a job never changes its task id."""
        if self.task_id is not None:
            raise ValueError(f"job {self.key}: no move from {self.status} to accepted: it has a task id")
        return self._to(
            JobStatus.QUEUED, task_id=task_id, submitted_at=self.submitted_at or utc_from_timestamp(at), error=None
        )

    def rejected(self, error: PikaError, at: float) -> Job:
        """Refused for what it is: final, not charged."""
        return self._to(JobStatus.REJECTED, error=error, settled_at=utc_from_timestamp(at))

    def in_doubt(self, error: PikaError, at: float) -> Job:
        """Sent, and no receipt: parked until a person or a callback tells."""
        return self._to(JobStatus.UNKNOWN, error=error, submitted_at=utc_from_timestamp(at))

    def canceled(self, error: PikaError, at: float) -> Job:
        """Withdrawn before it was sent, or a doubt that a person gave up."""
        return self._to(JobStatus.CANCELED, error=error, settled_at=utc_from_timestamp(at))

    def timed_out(self, error: PikaError) -> Job:
        """Parked with its task id."""
        return self._to(JobStatus.TIMED_OUT, error=error)

    def reopened(self) -> Job:
        """Timed out, and asked for again."""
        if self.status is not JobStatus.TIMED_OUT:
            raise ValueError(f"job {self.key}: no move from {self.status} to asked for again")
        return self._to(JobStatus.QUEUED, error=None)

    def with_snapshot(self, snapshot: Snapshot, at: float, *, failure: PikaError | None = None) -> Job:
        """What a poll at `at` said. A final job is a latch: nothing that a later poll says changes it."""
        if self.is_final:
            return self
        if not self.is_in_flight and self.status is not JobStatus.TIMED_OUT:
            raise ValueError(f"job {self.key}: no move from {self.status} by a look: it was never accepted")
        points = self.points if snapshot.points is None else snapshot.points
        refunded = self.refunded if snapshot.refunded is None else snapshot.refunded
        match snapshot.state:
            case TaskState.SUCCEEDED:
                return self._to(
                    JobStatus.SUCCEEDED, video=snapshot.video, progress=100, points=points, refunded=refunded,
                    settled_at=utc_from_timestamp(at), error=None,
                )  # fmt: skip
            case TaskState.FAILED:
                return self._to(
                    JobStatus.FAILED, error=failure, points=points, refunded=refunded, settled_at=utc_from_timestamp(at)
                )
            case TaskState.QUEUED if self.status is not JobStatus.RUNNING:
                return self._as(JobStatus.QUEUED, snapshot.progress, points)
            case TaskState.MISSING:
                return self
            case _:
                return self._as(JobStatus.RUNNING, snapshot.progress, points)

    def _as(self, status: JobStatus, progress: int | None, points: float | None) -> Job:
        progress = self.progress if progress is None else progress
        if (status, progress, points) == (self.status, self.progress, self.points):
            return self
        return self._to(status, progress=progress, points=points, error=None)

    def with_pending_file(self, sha256: str) -> Job:
        """The result is on disk, whole and verified, and gets its name next."""
        return attrs.evolve(self, sha256=sha256)

    def with_file(self, file: Path, sha256: str) -> Job:
        """The result is on disk, whole and verified."""
        return attrs.evolve(self, file=file, sha256=sha256, error=None)

    def with_download_error(self, error: PikaError) -> Job:
        """The result could not be fetched; the job stays succeeded."""
        return attrs.evolve(self, error=error)


def archive_key(key: str, taken: Container[str]) -> str:
    """The key for an earlier job of `key`, whose place another takes."""
    return next(name for number in itertools.count(1) if (name := f"{key}~{number}") not in taken)


def mark_interrupted(job: Job, sent_at: datetime) -> Job:
    """`job`, which was about to be sent at `sent_at`, and nothing is known of what became of that."""
    reason = "this process ended before what came back was kept"
    error = SubmissionInDoubt(key=job.key, provider=job.provider, reason=reason, at=sent_at, attempt=job.attempts)
    return job.in_doubt(error, sent_at.timestamp())


def apply_resolution(job: Job, at: float, *, task_id: str | None, charged: bool | None, abandon: bool) -> Job:
    """A job in doubt, after a person has said at `at` (unix seconds) what became of it.

    :raises InvalidRequest: unless exactly one of the three is said, or if the job is not in doubt.
    """
    if job.status is not JobStatus.UNKNOWN:
        raise InvalidRequest(field="key", value=job.key, reason=f"is {job.status}, not in doubt; nothing to resolve")
    if charged or [task_id is not None, charged is False, abandon].count(True) != 1:
        reason = "needs exactly one of task_id=..., charged=False, abandon=True"
        raise InvalidRequest(field="resolve", value=job.key, reason=reason)
    if task_id is not None:
        if not isinstance(task_id, str) or not task_id.strip():
            raise InvalidRequest(field="task_id", value=task_id, reason="is no task id; give the provider's text")
        return job.accepted(task_id.strip(), at)
    if abandon:
        reason = "given up by a person; it may have been accepted and charged"
        return job.canceled(JobCanceled(key=job.key, provider=job.provider, reason=reason), at)
    return mark_superseded(job.requeued(), at) if "~" in job.key else job.requeued()


def mark_superseded(job: Job, at: float) -> Job:
    """`job`, in whose place another was or is paid for: one that was not sent is not sent any more."""
    if job.status is not JobStatus.PLANNED:
        return job
    return job.canceled(JobCanceled(key=job.key, provider=job.provider, reason="another took its place unsent"), at)


@attrs.frozen(kw_only=True)
class BatchReport:
    """What became of a batch: the jobs in the order of the input, how many there are of each status, the time it took.

    `stopped` says why the rest was not sent, if so; those jobs are `planned`.
    """

    jobs: list[Job]
    counts: Mapping[JobStatus, int]
    seconds: float
    stopped: SubmissionsStopped | None = None

    @property
    def ok(self) -> bool:
        """Whether every job succeeded, and is on disk where that was asked for."""
        return all(job.status is JobStatus.SUCCEEDED and job.error is None for job in self.jobs)


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
