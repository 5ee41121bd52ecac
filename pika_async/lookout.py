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
from pika_async.polling import Budget, Observation, PollingPolicy, Stamps, Untold, Waiting
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
#: Callbacks cause at most one look at a job in so many seconds.
CALL_SECONDS: Final = 5.0
#: A task of which a callback told had settled at most so many seconds before, or this share of its age.
PROMPT, PROMPTLY = 2.0, 0.1


@attrs.define
class _Call:
    """What callbacks have said of a job: nothing but that it is worth a look."""

    #: When the first came that no look has answered; and the first of those that the present look answers.
    at: float | None = None
    answered: float | None = None
    #: When the last look began that was to answer one.
    looked_at: float = -math.inf


@attrs.define(kw_only=True)
class Lookout:
    """The accepted jobs of one client. Times are the caller's monotonic seconds."""

    policy: PollingPolicy
    #: How many settles no callback tells of; None where nobody listens to callbacks.
    untold: Untold | None = None
    #: The longest that a task took, in seconds.
    longest: float = attrs.field(default=0.0, init=False)
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
    _calls: dict[Entry, _Call] = attrs.field(factory=dict, init=False)
    #: Places in the heap whose job has got an earlier one.
    _stale: int = attrs.field(default=0, init=False)

    @_due.default
    def _by_undetected(self) -> Budget[Entry]:
        return Budget(self._undetected)

    # --- which is next ----------------------------------------------------------------------------------------------

    def ready_at(self, now: float) -> float:
        """When a job is due; `now` if one is."""
        while self._waiting:
            due, entry = self._waiting[0]
            if due != entry.due:
                self._stale -= 1
            elif due <= now:
                entry.due = -math.inf
                self._due.push(entry, now)
                self._expires_at = min(self._expires_at, entry.deadline_at)
            else:
                break
            heapq.heappop(self._waiting)
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
        entry.due = due
        heapq.heappush(self._waiting, (due, entry))

    def clear(self) -> list[Entry]:
        """Take every job off."""
        entries = list(self)
        self._waiting.clear()
        self._calls.clear()
        self._stale = 0
        self._past.clear()
        self._due = self._by_undetected()
        self._expires_at = math.inf
        return entries

    def __iter__(self) -> Iterator[Entry]:
        """Every job that waits for a look."""
        yield from dict.fromkeys(entry for due, entry in self._waiting if due == entry.due)
        yield from self._due
        yield from self._past

    def _undetected(self, entry: Entry, now: float) -> float:
        looked, age = entry.looked_at - entry.accepted_at, now - entry.accepted_at
        index = getattr(self.policy, "undetected", None)
        if index is not None and not self._is_called(entry):
            try:
                value = float(index(entry.stratum, looked, age))
                if 0 <= value < math.inf:
                    return max(value, UNSEEN * (age - looked))
                self._complain(f"gave {value!r} s undetected")
            except Exception as error:
                self._complain(f"raised {error!r}")
        return age - looked

    # --- callbacks --------------------------------------------------------------------------------------------------

    def call(self, entry: Entry, now: float) -> None:
        """A callback has come for `entry`: look at it at once, or `CALL_SECONDS` after the last look of that kind."""
        call = self._calls.setdefault(entry, _Call())
        if call.at is None:
            call.at = now
        due = max(now, call.looked_at + CALL_SECONDS)
        if due < entry.due:
            self._stale += 1
            self.push(entry, due)
            if self._stale > max(64, len(self._waiting) // 2):
                self._waiting = [place for place in self._waiting if place[0] == place[1].due]
                heapq.heapify(self._waiting)
                self._stale = 0

    def begin(self, entry: Entry, now: float) -> None:
        """`entry` is being looked at."""
        call = self._calls.get(entry)
        if call is not None and call.at is not None:
            call.at, call.answered, call.looked_at = None, call.at, now

    def _is_called(self, entry: Entry) -> bool:
        call = self._calls.get(entry)
        return call is not None and call.at is not None

    def _call_due(self, entry: Entry, now: float) -> float:
        """When a callback that came while `entry` was looked at wants another look."""
        call = self._calls.get(entry)
        if call is None:
            return math.inf
        if entry.misses:  # that look brought nothing: the next one answers it, when it may
            call.at = call.answered if call.at is None else call.at
            return math.inf
        call.answered = None
        return math.inf if call.at is None else max(now, call.looked_at + CALL_SECONDS)

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
        due = min(now + max(wait, self._wish), self._call_due(entry, now))
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

    def _as_waiting(self, entry: Entry, now: float, looked: float | None) -> Waiting:
        age, told = now - entry.accepted_at, entry.reading
        untold = 1.0 if self.untold is None else self.untold.share
        if told is None:
            return Waiting(entry.stratum, age, entry.polls, None, looked, None, untold)
        return Waiting(entry.stratum, age, entry.polls, told.percent, looked, told.age, untold)

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
        called_at = self._called_at(entry)
        if entry.resumed:  # its age is that of a clock that may have been moved
            return
        looked, age = entry.looked_at - entry.accepted_at, now - entry.accepted_at
        self.longest = max(self.longest, age)
        called = age if called_at is None else called_at - entry.accepted_at
        if looked < called < age:
            after, before = max(looked, called - min(PROMPT, PROMPTLY * called)), called
        else:
            after, before = self._stamps.narrowed(looked, age, _told_duration(snapshot))
        submitted_at = entry.job.submitted_at
        seen = Observation(entry.stratum, after, before, accepted_at=submitted_at.timestamp() if submitted_at else 0.0)
        if entry.kept is not None:
            seen = attrs.evolve(seen, told_age=entry.kept.age, told=entry.kept.percent)
        self.learned(seen)
        quicker = self._teach(seen, looked)
        if self.untold is not None and self.untold.add(told=called_at is not None):
            self._ask_again(None, now, u)
        elif quicker:
            self._ask_again(entry.stratum, now, u)

    def _called_at(self, entry: Entry) -> float | None:
        """When the callback came that told of its settling, if one did."""
        call = self._calls.pop(entry, None)
        return None if call is None else call.at if call.answered is None else call.answered

    def forget(self, entry: Entry) -> None:
        """`entry` is not waited for any more, and unsettled."""
        self._calls.pop(entry, None)
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

    def _ask_again(self, stratum: str | None, now: float, u: float) -> None:
        """Tasks of `stratum` have become quicker: looks that were put too late come sooner, and not all at once.

        None: more settles are told of, or fewer: every look is put anew, sooner or later.
        """
        again = getattr(self.policy, "again", None)
        if again is None:
            return
        waiting = []
        for due, entry in self._waiting:
            if due != entry.due:
                continue
            put = due
            fixed = entry.misses or due <= now or self._is_called(entry) or (entry.resumed and not entry.polls)
            if stratum in {None, entry.stratum} and not fixed:
                u = (u + GOLDEN) % 1.0
                wait = max(self._wish, self._asked(self._as_waiting(entry, entry.looked_at, None), u, again))
                put = max(entry.looked_at + wait, now + u * RESUME_SECONDS)
                put = min(put, entry.deadline_at if stratum is None else due)
            entry.due = put
            waiting.append((put, entry))
        heapq.heapify(waiting)
        self._waiting, self._stale = waiting, 0


def _told_duration(snapshot: Snapshot) -> float | None:
    """How long the task took by its provider's own times, if it tells any; a third party's may be anything."""
    if snapshot.created_at is None or snapshot.updated_at is None:
        return None
    try:
        return float(snapshot.updated_at) - float(snapshot.created_at)
    except (TypeError, ValueError, OverflowError):
        return None
