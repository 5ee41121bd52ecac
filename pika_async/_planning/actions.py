"""What the agenda is told and what it says: a job's entry, what a look brought, the one thing to do next."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from pika_async.errors import SubmissionsStopped
from pika_async.jobs import Job
from pika_async.models import Snapshot
from pika_async.providers._verdicts import PollVerdict

__all__ = [
    "Action",
    "ActiveJob",
    "CallbackTimedOut",
    "DeadlinePassed",
    "JobObserver",
    "Poll",
    "PollResult",
    "ProgressSample",
    "StopSubmitting",
    "Submit",
    "SubmitTimedOut",
    "WaitUntil",
]

#: Told of every change that others may see: the job, and whether it is at rest (settled or parked).
JobObserver = Callable[[Job, bool], None]


@attrs.frozen
class ProgressSample:
    """What the provider said of a task's progress at an age, in percent; 0 while it says that the task is queued."""

    age: float
    percent: int


@attrs.define(eq=False, weakref_slot=False)
class ActiveJob:
    """A job that is not at rest, and what the agenda knows of it. Times are the caller's monotonic seconds."""

    job: Job
    stratum: str
    observers: tuple[JobObserver, ...] = ()
    accepted_at: float = 0.0
    #: Until when it is waited for: after the first attempt, while the account says "wait"; once accepted, to settle.
    deadline_at: float = math.inf
    #: When it was last known to be unsettled; when it was planned, until it is accepted.
    last_seen_unsettled_at: float = 0.0
    #: When it is to be looked at next; past all bounds while it is due, or being looked at.
    next_poll_at: float = -math.inf
    #: The latest of what the provider said of its progress, one picked by chance, and how many there were.
    progress: ProgressSample | None = None
    sampled_progress: ProgressSample | None = None
    progress_count: int = 0
    polls: int = 0
    #: Looks in a row that brought no usable answer.
    failed_polls: int = 0
    not_found_count: int = 0
    first_not_found_at: float = 0.0
    awaits_url: bool = False
    #: Whether an earlier process, or an earlier opening, has sent it.
    resumed: bool = False

    def __lt__(self, other: ActiveJob) -> bool:
        """Of two looks that are due at the same instant, the older task's is first."""
        return self.accepted_at < other.accepted_at


@attrs.frozen
class Submit:
    """Send it."""

    active: ActiveJob


@attrs.frozen
class Poll:
    """Look at it."""

    active: ActiveJob


@attrs.frozen
class DeadlinePassed:
    """Its deadline has passed and no look is possible."""

    active: ActiveJob


@attrs.frozen
class SubmitTimedOut:
    """The account has said "wait" for too long."""

    active: ActiveJob


@attrs.frozen
class CallbackTimedOut:
    """It is in doubt, and no callback has told of it for too long."""

    active: ActiveJob


@attrs.frozen
class StopSubmitting:
    """Send no more."""

    error: SubmissionsStopped


@attrs.frozen
class WaitUntil:
    """Nothing to do until then, or until something changes."""

    until: float


Action = Submit | Poll | DeadlinePassed | SubmitTimedOut | CallbackTimedOut | StopSubmitting | WaitUntil


@attrs.frozen(kw_only=True)
class PollResult:
    """What one poll brought: a verdict, and a snapshot when the verdict is "read"."""

    verdict: PollVerdict
    snapshot: Snapshot | None = None
    reason: str = ""
    http_status: int | None = None
    #: Seconds before which the provider wants no other look, where it says.
    retry_after: float | None = None
