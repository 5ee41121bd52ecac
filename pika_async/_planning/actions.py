"""Inputs and actions of the planner: active jobs, poll results, the one thing to do next. Decides nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs

from pika_async.errors import ErrorKind, PikaError, SubmissionRejected, SubmissionsStopped
from pika_async.jobs import Job
from pika_async.models import LastSeen, Snapshot
from pika_async.providers._verdicts import PollVerdict

__all__ = [
    "NEVER",
    "RESUMED",
    "Action",
    "ActiveJob",
    "CallbackTimedOut",
    "DeadlinePassed",
    "JobObserver",
    "Park",
    "Poll",
    "PollResult",
    "ProgressSample",
    "RareFacts",
    "Reject",
    "StopSubmitting",
    "Submit",
    "SubmitTimedOut",
    "WaitUntil",
]

#: Called after every saved change of a job, with the job and whether it is finished (settled or parked).
JobObserver = Callable[[Job, bool], None]
#: Before the first answer about a task.
NOTHING_SEEN: Final = LastSeen()


@attrs.frozen
class ProgressSample:
    """Progress of a task, as reported by the provider: the age in seconds, and the percent; 0 while it is queued."""

    age: float
    percent: int


@attrs.frozen(kw_only=True, weakref_slot=False)
class RareFacts:
    """Facts of an active job that few jobs have. All others share one object, which makes a waiting job smaller."""

    #: Answers in a row that there is no such task, and the time of the first in the caller's monotonic seconds.
    not_found_count: int = 0
    first_not_found_at: float = 0.0
    #: Whether the task has succeeded but its video has no URL yet.
    awaits_url: bool = False
    #: Whether an earlier process, or an earlier opening of this client, has submitted the job.
    resumed: bool = False
    #: Why the job is canceled if it is not sent: its request was withdrawn while a file of it was being uploaded.
    withdrawal: PikaError | None = None


#: No job but a few has others.
USUAL: Final = RareFacts()
#: Those of a job that was submitted earlier.
RESUMED: Final = RareFacts(resumed=True)


@attrs.define(eq=False, weakref_slot=False)
class ActiveJob:
    """State of a job that is not finished, for the planner. Times are the caller's monotonic seconds."""

    job: Job
    stratum: str
    observers: tuple[JobObserver, ...] = ()
    #: The names of the accounts that can take the job.
    options: tuple[str, ...] = ()
    accepted_at: float = 0.0
    #: Before acceptance: end of the job's patience, from its first attempt. After it: when an unsettled job is parked.
    deadline_at: float = math.inf
    #: When the job was last known to be unsettled; until it is accepted: when it was queued.
    last_seen_unsettled_at: float = 0.0
    #: When the job is polled next; minus infinity while it is due or being polled.
    next_poll_at: float = -math.inf
    #: The latest progress that the provider reported.
    progress: ProgressSample | None = None
    #: One reported progress, picked at random from all of them.
    sampled_progress: ProgressSample | None = None
    progress_count: int = 0
    #: Polls that are not yet counted in `job`.
    polls: int = 0
    #: Consecutive polls without a usable answer.
    failed_polls: int = 0
    last_seen: LastSeen = NOTHING_SEEN
    #: Whether an answer to a poll has named the task by its own id, or by none.
    is_named: bool = False
    rare: RareFacts = USUAL

    def __lt__(self, other: ActiveJob) -> bool:
        """Order polls that are due at the same instant: the task that was accepted first is polled first."""
        return self.accepted_at < other.accepted_at


@attrs.frozen
class Submit:
    """Action: submit a job."""

    active: ActiveJob


@attrs.frozen
class Poll:
    """Action: poll a job."""

    active: ActiveJob


@attrs.frozen
class DeadlinePassed:
    """Action: park a job whose deadline has passed while no poll is possible."""

    active: ActiveJob


@attrs.frozen
class SubmitTimedOut:
    """Action: give up a queued job whose account has asked to retry later for longer than its patience."""

    active: ActiveJob


@attrs.frozen
class Reject:
    """Action: settle a planned job as refused, for a cause that is its own."""

    active: ActiveJob
    error: SubmissionRejected


@attrs.frozen
class Park:
    """Action: park a job because of a stop. Until then it is neither sent nor polled."""

    active: ActiveJob
    error: SubmissionsStopped


@attrs.frozen
class CallbackTimedOut:
    """Action: park a job in doubt for which no callback has come in time."""

    active: ActiveJob


@attrs.frozen
class StopSubmitting:
    """Action: stop submitting to an account; None: to every account."""

    error: SubmissionsStopped
    account: str | None = None


@attrs.frozen
class WaitUntil:
    """Action: do nothing until a time, or until something changes."""

    until: float


#: Wait for a change, with no time limit.
NEVER: Final = WaitUntil(math.inf)

Action = Submit | Poll | DeadlinePassed | SubmitTimedOut | Reject | Park | CallbackTimedOut | StopSubmitting


@attrs.frozen(kw_only=True)
class PollResult:
    """Result of one poll: a verdict, and a snapshot if the verdict is `READ`."""

    verdict: PollVerdict
    snapshot: Snapshot | None = None
    reason: str = ""
    http_status: int | None = None
    #: Seconds until the next poll that the provider asked for; None if it did not.
    retry_after: float | None = None
    #: The failure in people's terms, where there is one.
    kind: ErrorKind = "other"
