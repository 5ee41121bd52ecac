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
    "Decision",
    "Entry",
    "Expire",
    "GiveUp",
    "Look",
    "Poll",
    "Reading",
    "Sleep",
    "Stop",
    "Submit",
    "Unheard",
    "Watcher",
]

#: Told of every change that others may see: the job, and whether it is at rest (settled or parked).
Watcher = Callable[[Job, bool], None]


@attrs.frozen
class Reading:
    """What the provider said of a task's progress at an age, in percent; 0 while it says that the task is queued."""

    age: float
    percent: int


@attrs.define(eq=False, weakref_slot=False)
class Entry:
    """A job that is not at rest, and what the agenda knows of it. Times are the caller's monotonic seconds."""

    job: Job
    stratum: str
    watchers: tuple[Watcher, ...] = ()
    accepted_at: float = 0.0
    #: Until when it is waited for: after the first attempt, while the account says "wait"; once accepted, to settle.
    deadline_at: float = math.inf
    #: When it was last known to be unsettled; when it was planned, until it is accepted.
    looked_at: float = 0.0
    #: When it is to be looked at next; past all bounds while it is due, or being looked at.
    due: float = -math.inf
    #: The latest of what the provider said of its progress, one picked by chance, and how many there were.
    reading: Reading | None = None
    kept: Reading | None = None
    readings: int = 0
    polls: int = 0
    #: Looks in a row that brought no usable answer.
    misses: int = 0
    denials: int = 0
    denied_at: float = 0.0
    awaits_url: bool = False
    #: Whether an earlier process, or an earlier opening, has sent it.
    resumed: bool = False

    def __lt__(self, other: Entry) -> bool:
        """Of two looks that are due at the same instant, the older task's is first."""
        return self.accepted_at < other.accepted_at


@attrs.frozen
class Submit:
    """Send it."""

    entry: Entry


@attrs.frozen
class Poll:
    """Look at it."""

    entry: Entry


@attrs.frozen
class Expire:
    """Its deadline has passed and no look is possible."""

    entry: Entry


@attrs.frozen
class GiveUp:
    """The account has said "wait" for too long."""

    entry: Entry


@attrs.frozen
class Unheard:
    """It is in doubt, and no callback has told of it for too long."""

    entry: Entry


@attrs.frozen
class Stop:
    """Send no more."""

    error: SubmissionsStopped


@attrs.frozen
class Sleep:
    """Nothing to do until then, or until something changes."""

    until: float


Decision = Submit | Poll | Expire | GiveUp | Unheard | Stop | Sleep


@attrs.frozen(kw_only=True)
class Look:
    """What one poll brought: a verdict, and a snapshot when the verdict is "read"."""

    verdict: PollVerdict
    snapshot: Snapshot | None = None
    reason: str = ""
    http_status: int | None = None
    #: Seconds before which the provider wants no other look, where it says.
    retry_after: float | None = None
