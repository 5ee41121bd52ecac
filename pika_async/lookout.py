"""When each accepted job is looked at next, and what is learned of it: the policy asked, guarded and taught. Pure.

One heap holds the next look at every accepted job; a job that waits costs its record and one entry of the heap. Those
that are due are taken in the order that pays most.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from pika_async.decisions import Entry, Look, Reading
from pika_async.models import Snapshot, TaskState
from pika_async.polling import Budget, Observation, PollingPolicy, Stamps, Waiting
from pika_async.polling.schedule import cap
from pika_async.retrying import PollVerdict, ladder

__all__ = ["Lookout"]

_log = logging.getLogger("pika_async.lookout")

#: The first looks at jobs that are resumed are spread over this many seconds.
RESUME_SECONDS: Final = 1.0
#: A look that is due counts at least this share of the seconds since the last: no stratum is put off for ever.
UNSEEN: Final = 0.02
#: Steps of this share of 1 are spread evenly, however many.
GOLDEN: Final = 0.618034


@attrs.define(kw_only=True)
class Lookout:
    """The accepted jobs of one client. Times are the caller's monotonic seconds."""

    policy: PollingPolicy
    #: Told of every duration that was learned.
    learned: Callable[[Observation], None] = lambda _: None
    _waiting: list[tuple[float, Entry]] = attrs.field(factory=list, init=False)
    _due: Budget[Entry] = attrs.field(init=False)
    _past: deque[Entry] = attrs.field(factory=deque, init=False)
    #: No job that is due has its deadline before.
    _expires_at: float = attrs.field(default=math.inf, init=False)
    #: How many seconds the provider last wanted between two looks, where it said.
    _wish: float = attrs.field(default=0.0, init=False)
    _stamps: Stamps = attrs.field(factory=Stamps, init=False)
    _complained: bool = attrs.field(default=False, init=False)

    @_due.default
    def _by_undetected(self) -> Budget[Entry]:
        return Budget(self._undetected)

    # --- which is next ----------------------------------------------------------------------------------------------

    def ready_at(self, now: float) -> float:
        """When a job is due; `now` if one is."""
        while self._waiting and self._waiting[0][0] <= now:
            entry = heapq.heappop(self._waiting)[1]
            self._due.push(entry, now)
            self._expires_at = min(self._expires_at, entry.deadline_at)
        if self._due or self._past:
            return now
        return self._waiting[0][0] if self._waiting else math.inf

    def take(self, now: float) -> Entry:
        """A due job past its deadline, if there is one; else the one whose look ends most delay, as far as is known.

        :raises IndexError: if none is due.
        """
        self._sort_out(now)
        return self._past.popleft() if self._past else self._due.pop(now)

    def expired(self, now: float) -> Entry | None:
        """A due job past its deadline that was looked at before: no job is given up unseen."""
        self._sort_out(now)
        return self._past.popleft() if self._past and self._past[0].polls else None

    def _sort_out(self, now: float) -> None:
        if now < self._expires_at:
            return
        past = self._due.drop(lambda entry: entry.deadline_at <= now)
        self._past.extendleft(entry for entry in past if entry.polls)
        self._past.extend(entry for entry in past if not entry.polls)
        self._expires_at = min((entry.deadline_at for entry in self._due), default=math.inf)

    @property
    def expires_at(self) -> float:
        """When `expired` is worth asking again."""
        return self._expires_at

    def push(self, entry: Entry, due: float) -> None:
        """Look at `entry` at `due`."""
        heapq.heappush(self._waiting, (due, entry))

    def clear(self) -> list[Entry]:
        """Take every job off."""
        entries = list(self)
        self._waiting.clear()
        self._past.clear()
        self._due = self._by_undetected()
        self._expires_at = math.inf
        return entries

    def __iter__(self) -> Iterator[Entry]:
        """Every job that waits for a look."""
        yield from (entry for _, entry in self._waiting)
        yield from self._due
        yield from self._past

    def _undetected(self, entry: Entry, now: float) -> float:
        looked, age = entry.looked_at - entry.accepted_at, now - entry.accepted_at
        index = getattr(self.policy, "undetected", None)
        if index is not None:
            try:
                value = float(index(entry.stratum, looked, age))
                if 0 <= value < math.inf:
                    return max(value, UNSEEN * (age - looked))
                self._complain(f"gave {value!r} s undetected")
            except Exception as error:
                self._complain(f"raised {error!r}")
        return age - looked

    # --- when -------------------------------------------------------------------------------------------------------

    def resume(self, entry: Entry, now: float, u: float) -> None:
        """Look soon at a job of an earlier process."""
        self.push(entry, now + u * RESUME_SECONDS)

    def schedule(self, entry: Entry, now: float, u: float, look: Look | None = None) -> None:
        """`entry` was accepted, or `look` found it unsettled: when to look again; not before the provider wants it."""
        if entry.misses:
            wait = ladder(entry.misses - 1, u, first=1.0, cap=60.0)
        else:
            wait = self._asked(self._told(entry, now, u, look), u)
        self._wish = (look and look.retry_after) or 0.0
        due = now + max(wait, self._wish)
        if due > entry.deadline_at > now:
            due = entry.deadline_at  # the answer of the very last look counts
        self.push(entry, due)

    def _told(self, entry: Entry, now: float, u: float, look: Look | None) -> Waiting:
        """`entry` as the policy is told of it; an answer that denies the task tells nothing."""
        looked = entry.looked_at - entry.accepted_at if entry.polls and not entry.resumed else None
        if look is not None and look.verdict is not PollVerdict.READ:
            return self._as_waiting(entry, now, None)
        entry.looked_at = now
        if look is not None and look.snapshot is not None:
            self._read(entry, look.snapshot, now - entry.accepted_at, u)
        return self._as_waiting(entry, now, looked)

    @staticmethod
    def _read(entry: Entry, snapshot: Snapshot, age: float, u: float) -> None:
        percent = 0 if snapshot.state is TaskState.QUEUED else snapshot.progress
        if percent is None:
            if entry.reading is not None and not entry.reading.percent:  # queued then, and waited for from then on
                entry.kept = entry.reading
            return
        entry.reading = Reading(age, percent)
        entry.readings += 1
        if u * entry.readings < 1:  # each is kept with the same chance
            entry.kept = entry.reading

    @staticmethod
    def _as_waiting(entry: Entry, now: float, looked: float | None) -> Waiting:
        age, told = now - entry.accepted_at, entry.reading
        if told is None:
            return Waiting(entry.stratum, age, entry.polls, None, looked)
        return Waiting(entry.stratum, age, entry.polls, told.percent, looked, told.age)

    # A policy is somebody else's code: what it gets wrong costs no paid job, and is said once.

    def _asked(self, waiting: Waiting, u: float, ask: Callable[[Waiting, float], float] | None = None) -> float:
        try:
            wait = float((ask or self.policy.wait)(waiting, u))
            if 0 < wait < math.inf:
                return wait
            self._complain(f"gave a wait of {wait!r} s")
        except Exception as error:
            self._complain(f"raised {error!r}")
        return cap(waiting.age)

    def _complain(self, of: str) -> None:
        if not self._complained:
            _log.error("the polling policy %r %s; looks go on at a pace of our own", self.policy, of)
        self._complained = True

    # --- what is learned --------------------------------------------------------------------------------------------

    def learn(self, entry: Entry, snapshot: Snapshot, now: float, u: float) -> None:
        """`entry` has settled, and `snapshot` is what said so."""
        if entry.resumed:  # its age is that of a clock that may have been moved
            return
        looked = entry.looked_at - entry.accepted_at
        after, before = self._stamps.narrowed(looked, now - entry.accepted_at, _told_duration(snapshot))
        submitted_at = entry.job.submitted_at
        seen = Observation(entry.stratum, after, before, accepted_at=submitted_at.timestamp() if submitted_at else 0.0)
        if entry.kept is not None:
            seen = attrs.evolve(seen, told_age=entry.kept.age, told=entry.kept.percent)
        self.learned(seen)
        if self._teach(seen, looked):
            self._ask_again(entry.stratum, now, u)

    def forget(self, entry: Entry) -> None:
        """`entry` is not waited for any more, and unsettled."""
        if not entry.resumed:
            looked = entry.looked_at - entry.accepted_at
            self._teach(Observation(entry.stratum, looked, math.inf), looked)

    def teach(self, observations: Iterable[Observation]) -> None:
        """What was learned in earlier processes, for the policy."""
        for seen in observations:
            self._teach(seen, None)

    def _teach(self, seen: Observation, looked: float | None) -> bool:
        try:
            return self.policy.settled(seen, looked) is True
        except Exception as error:
            self._complain(f"raised {error!r}")
            return False

    def _ask_again(self, stratum: str, now: float, u: float) -> None:
        """Tasks of `stratum` have become quicker: looks that were put too late come sooner, and not all at once."""
        again = getattr(self.policy, "again", None)
        if again is None:
            return
        waiting = []
        for due, entry in self._waiting:
            sooner = due
            if entry.stratum == stratum and not entry.misses and due > now:
                u = (u + GOLDEN) % 1.0
                wait = max(self._wish, self._asked(self._as_waiting(entry, entry.looked_at, None), u, again))
                sooner = min(due, max(entry.looked_at + wait, now + u * RESUME_SECONDS))
            waiting.append((sooner, entry))
        heapq.heapify(waiting)
        self._waiting = waiting


def _told_duration(snapshot: Snapshot) -> float | None:
    """How long the task took by its provider's own times, if it tells any; a third party's may be anything."""
    if snapshot.created_at is None or snapshot.updated_at is None:
        return None
    try:
        return float(snapshot.updated_at) - float(snapshot.created_at)
    except (TypeError, ValueError, OverflowError):
        return None
