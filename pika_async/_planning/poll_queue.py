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

from pika_async._planning.actions import Entry, Look, Reading
from pika_async._planning.backoff import ladder
from pika_async._planning.callback_tracker import Calls
from pika_async._planning.due_queue import Budget
from pika_async._planning.provider_clock import Stamps
from pika_async.models import Snapshot, TaskState
from pika_async.polling import Observation, PollingPolicy, Waiting
from pika_async.polling.schedule import cap
from pika_async.providers._verdicts import PollVerdict

__all__ = ["Lookout"]

_log = logging.getLogger("pika_async.lookout")

#: The first looks at jobs that are resumed are spread over this many seconds.
RESUME_SECONDS: Final = 1.0
#: A look that is due counts at least this share of the seconds since the last: no stratum is put off for ever.
UNSEEN: Final = 0.02
#: Steps of this share of 1 are spread evenly, however many.
GOLDEN: Final = 0.618034
#: While callbacks can be relied upon, a task of which nobody tells counts as seen unsettled: all that wait do, once for
#: so many settles as a share of them, or of those that have settled.
CROWD, EARLY = 0.01, 0.25
#: A task of which a callback told is taken to have settled at most so many seconds before, or this share of its age.
LATENCY, LATENCY_SHARE = 0.5, 0.05


@attrs.define(kw_only=True)
class Lookout:
    """The accepted jobs of one client. Times are the caller's monotonic seconds."""

    policy: PollingPolicy
    calls: Calls = attrs.field(factory=Calls)
    #: The longest that a task took, in seconds.
    longest: float = attrs.field(default=0.0, init=False)
    #: Told of every duration that was learned, and of the age at which a look found it.
    learned: Callable[[Observation, float], None] = lambda _seen, _age: None
    _waiting: list[tuple[float, Entry]] = attrs.field(factory=list, init=False)
    _due: Budget[Entry] = attrs.field(init=False)
    _past: deque[Entry] = attrs.field(factory=deque, init=False)
    #: No job that is due has its deadline before.
    _expires_at: float = attrs.field(default=math.inf, init=False)
    #: How many seconds the provider last wanted between two looks, where it said.
    _wish: float = attrs.field(default=0.0, init=False)
    _stamps: Stamps = attrs.field(factory=Stamps, init=False)
    _complained: bool = attrs.field(default=False, init=False)
    #: When silence was last heard, of all that wait; and how many have settled since.
    _silent_at: float = attrs.field(default=-math.inf, init=False)
    _since_silence: int = attrs.field(default=0, init=False)
    #: Evenly spread, for looks that are put off.
    _chance: float = attrs.field(default=0.0, init=False)
    #: Places in the heap whose job has got an earlier one.
    _stale: int = attrs.field(default=0, init=False)

    @_due.default
    def _by_undetected(self) -> Budget[Entry]:
        return Budget(self._undetected)

    # --- which is next ----------------------------------------------------------------------------------------------

    def ready_at(self, now: float) -> float:
        """When a job is due, or something is learned; `now` if one is due."""
        if self.calls.ready_at <= now:
            self.calls.give_up(now)
            self._renew(now, self._chance)
        while self._waiting:
            due, entry = self._waiting[0]
            if due != entry.due:
                self._stale -= 1
            elif due > now:
                break
            heapq.heappop(self._waiting)
            if due == entry.due:
                self._is_due(entry, now)
        if self._due or self._past:
            return now
        return min(self._waiting[0][0] if self._waiting else math.inf, self.calls.ready_at)

    def _is_due(self, entry: Entry, now: float) -> None:
        later = self._put(entry, 0.0) if self._may_be_put(entry, now) else now
        if later > now:  # whatever the chance: since it was put here, more was learned
            self._chance = (self._chance + GOLDEN) % 1.0
            self.push(entry, min(max(later, self._put(entry, self._chance)), entry.deadline_at))
            return
        entry.due = -math.inf
        self._due.push(entry, now)
        self._expires_at = min(self._expires_at, entry.deadline_at)

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
    def due(self) -> int:
        """How many jobs are due."""
        return len(self._due) + len(self._past)

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
        if index is not None and not self.calls.waits(entry):
            try:
                value = float(index(entry.stratum, looked, age))
                if 0 <= value < math.inf:
                    return max(value, UNSEEN * (age - looked))
                self._complain(f"gave {value!r} s undetected")
            except Exception as error:
                self._complain(f"raised {error!r}")
        return age - looked

    def call(self, entry: Entry, now: float) -> None:
        """A callback has come for `entry`: look at it at once, if none has caused a look just before."""
        self._pull(entry, self.calls.call(entry, now))

    def _pull(self, entry: Entry, due: float) -> None:
        """Look at `entry` at `due`, if that is sooner."""
        if due >= entry.due:
            return
        self._stale += 1
        self.push(entry, due)
        if self._stale > max(64, len(self._waiting) // 2):
            self._waiting = [place for place in dict.fromkeys(self._waiting) if place[0] == place[1].due]
            heapq.heapify(self._waiting)
            self._stale = 0

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
        due = min(now + max(wait, self._wish), self.calls.unsettled(entry, now))
        if due > entry.deadline_at > now:
            due = entry.deadline_at  # the answer of the very last look counts
        self.push(entry, due)

    def _told(self, entry: Entry, now: float, u: float, look: Look | None) -> Waiting:
        """`entry` as the policy is told of it; an answer that denies the task tells nothing."""
        looked = self._known(entry) if entry.polls and not entry.resumed else None
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
        if told is None:
            return Waiting(entry.stratum, age, entry.polls, None, looked, None, self.calls.share)
        return Waiting(entry.stratum, age, entry.polls, told.percent, looked, told.age, self.calls.share)

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
        told_at = self.calls.told_at(entry)
        if entry.resumed:  # its age is that of a clock that may have been moved
            self.calls.forget(entry)
            return
        looked, age = entry.looked_at - entry.accepted_at, now - entry.accepted_at
        self.longest = max(self.longest, age)
        told = age if told_at is None else told_at - entry.accepted_at
        if looked < told < age:
            after, before = max(looked, told - min(LATENCY, LATENCY_SHARE * told)), told
        else:
            after, before = self._stamps.narrowed(looked, age, _told_duration(snapshot))
        submitted_at = entry.job.submitted_at
        seen = Observation(entry.stratum, after, before, accepted_at=submitted_at.timestamp() if submitted_at else 0.0)
        if entry.kept is not None:
            seen = attrs.evolve(seen, told_age=entry.kept.age, told=entry.kept.percent)
        known = max(looked, min(age, self._known(entry)))
        if told_at is not None:
            self._hear_silence(now)
        self.learned(seen, age)
        quicker = self._teach(seen, known)
        if self.calls.listens:
            self.calls.settled(entry, now)
            self._sample(now, u)
            self._renew(now, u)
        if quicker:
            self._ask_again(entry.stratum, now, u)

    # --- silence ----------------------------------------------------------------------------------------------------

    @property
    def _silent(self) -> int:
        return len(self._waiting) - self._stale

    def _sample(self, now: float, u: float) -> None:
        """Look at one of the silent, picked by chance, if it is time for that."""
        if not self._silent or not self.calls.untold.wants_sample(self._silent):
            return
        due, picked = self._waiting[int(u * len(self._waiting))]
        if due == picked.due and not picked.misses and not self.calls.waits(picked):
            self.calls.sample(picked)
            self._pull(picked, now)

    def _renew(self, now: float, u: float) -> None:
        """Put every look anew if more settles are told of than before, or fewer."""
        if self.calls.untold.renew(self._silent):
            self._ask_again(None, now, u)

    def _hear_silence(self, now: float) -> None:
        """A task has settled; of those that wait nobody tells, and so they have not, nearly all."""
        passed, untold = getattr(self.policy, "passed", None), self.calls.untold
        if passed is None or self.calls.share >= 1.0:
            return
        self._since_silence += 1
        if self._since_silence < min(CROWD * len(self._waiting), EARLY * (untold.told + untold.untold)):
            return
        self._since_silence = 0
        try:
            for entry in self:
                if not entry.resumed:
                    passed(entry.stratum, self._known(entry), now - entry.accepted_at)
        except Exception as error:
            self._complain(f"raised {error!r}")
        self._silent_at = now

    def _known(self, entry: Entry) -> float:
        """The age up to which the policy has heard of `entry` that it was unsettled, by a look or by silence."""
        return max(entry.looked_at, self._silent_at) - entry.accepted_at

    def forget(self, entry: Entry) -> None:
        """`entry` is not waited for any more, and unsettled."""
        self.calls.forget(entry)
        if not entry.resumed:
            known = self._known(entry)
            self._teach(Observation(entry.stratum, known, math.inf), known)

    def teach(self, observations: Iterable[Observation]) -> None:
        """What was learned in earlier processes, for the policy."""
        for seen in observations:
            self.longest = max(self.longest, seen.before if seen.before < math.inf else 0.0)
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
        if not hasattr(self.policy, "again"):
            return
        waiting = []
        for due, entry in dict.fromkeys(self._waiting):  # one may have two places of the same time
            if due != entry.due:
                continue
            put = due
            if stratum in {None, entry.stratum} and due > now and not entry.misses and not self.calls.waits(entry):
                u = (u + GOLDEN) % 1.0
                sooner = max(self._put(entry, u), now + u * RESUME_SECONDS)
                later = stratum is None and self._may_be_put(entry, now)
                put = min(sooner, entry.deadline_at if later else due)
            entry.due = put
            waiting.append((put, entry))
        heapq.heapify(waiting)
        self._waiting, self._stale = waiting, 0

    def _may_be_put(self, entry: Entry, now: float) -> bool:
        """Whether a look at `entry` may be put off by what was learned since it was put: of callbacks, mostly."""
        if not self.calls.listens or entry.misses or self.calls.waits(entry):
            return False
        return entry.deadline_at > now and not (entry.resumed and not entry.polls) and hasattr(self.policy, "again")

    def _put(self, entry: Entry, u: float) -> float:
        """When the next look at `entry` is best, counted from the last."""
        wait = self._asked(self._as_waiting(entry, entry.looked_at, None), u, self.policy.again)  # type: ignore[attr-defined]
        return entry.looked_at + max(self._wish, wait)


def _told_duration(snapshot: Snapshot) -> float | None:
    """How long the task took by its provider's own times, if it tells any; a third party's may be anything."""
    if snapshot.created_at is None or snapshot.updated_at is None:
        return None
    try:
        return float(snapshot.updated_at) - float(snapshot.created_at)
    except (TypeError, ValueError, OverflowError):
        return None
