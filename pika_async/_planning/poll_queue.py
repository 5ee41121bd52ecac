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

from pika_async._planning.actions import ActiveJob, PollResult, ProgressSample
from pika_async._planning.backoff import backoff_delay
from pika_async._planning.callback_tracker import CallbackTracker
from pika_async._planning.due_queue import DueQueue
from pika_async._planning.provider_clock import ProviderTimestamps
from pika_async.models import Snapshot, TaskState
from pika_async.polling import DurationSample, PollContext, PollingPolicy
from pika_async.polling.schedule import cap
from pika_async.providers._verdicts import PollVerdict

__all__ = ["PollQueue"]

_log = logging.getLogger("pika_async.poll_queue")

#: The first looks at jobs that are resumed are spread over this many seconds.
RESUME_SECONDS: Final = 1.0
#: A look that is due counts at least this share of the seconds since the last: no stratum is put off for ever.
MIN_PRIORITY_SHARE: Final = 0.02
#: Steps of this share of 1 are spread evenly, however many.
GOLDEN: Final = 0.618034
#: While callbacks can be relied upon, a task of which nobody tells counts as seen unsettled: all that wait do, once for
#: so many settles as a share of them, or of those that have settled.
SILENCE_SHARE, SILENCE_MIN_SHARE = 0.01, 0.25
#: A task of which a callback told is taken to have settled at most so many seconds before, or this share of its age.
CALLBACK_LATENCY, CALLBACK_LATENCY_SHARE = 0.5, 0.05


@attrs.define(kw_only=True)
class PollQueue:
    """The accepted jobs of one client. Times are the caller's monotonic seconds."""

    policy: PollingPolicy
    callbacks: CallbackTracker = attrs.field(factory=CallbackTracker)
    #: The longest that a task took, in seconds.
    longest: float = attrs.field(default=0.0, init=False)
    #: Told of every duration that was learned, and of the age at which a look found it.
    on_sample: Callable[[DurationSample, float], None] = lambda _seen, _age: None
    _waiting: list[tuple[float, ActiveJob]] = attrs.field(factory=list, init=False)
    _due: DueQueue[ActiveJob] = attrs.field(init=False)
    _overdue: deque[ActiveJob] = attrs.field(factory=deque, init=False)
    #: No job that is due has its deadline before.
    _expires_at: float = attrs.field(default=math.inf, init=False)
    #: How many seconds the provider last wanted between two looks, where it said.
    _provider_delay: float = attrs.field(default=0.0, init=False)
    _timestamps: ProviderTimestamps = attrs.field(factory=ProviderTimestamps, init=False)
    _policy_error_logged: bool = attrs.field(default=False, init=False)
    #: When silence was last heard, of all that wait; and how many have settled since.
    _silent_at: float = attrs.field(default=-math.inf, init=False)
    _since_silence: int = attrs.field(default=0, init=False)
    #: Evenly spread, for looks that are put off.
    _chance: float = attrs.field(default=0.0, init=False)
    #: Places in the heap whose job has got an earlier one.
    _stale: int = attrs.field(default=0, init=False)

    @_due.default
    def _by_undetected(self) -> DueQueue[ActiveJob]:
        return DueQueue(self._expected_delay)

    # --- which is next ----------------------------------------------------------------------------------------------

    def ready_at(self, now: float) -> float:
        """When a job is due, or something is learned; `now` if one is due."""
        if self.callbacks.ready_at <= now:
            self.callbacks.expire_grace(now)
            self._update_loss_rate(now, self._chance)
        while self._waiting:
            due, active = self._waiting[0]
            if due != active.next_poll_at:
                self._stale -= 1
            elif due > now:
                break
            heapq.heappop(self._waiting)
            if due == active.next_poll_at:
                self._move_to_due(active, now)
        if self._due or self._overdue:
            return now
        return min(self._waiting[0][0] if self._waiting else math.inf, self.callbacks.ready_at)

    def _move_to_due(self, active: ActiveJob, now: float) -> None:
        later = self._next_poll_time(active, 0.0) if self._can_replan(active, now) else now
        if later > now:  # whatever the chance: since it was put here, more was learned
            self._chance = (self._chance + GOLDEN) % 1.0
            self.push(active, min(max(later, self._next_poll_time(active, self._chance)), active.deadline_at))
            return
        active.next_poll_at = -math.inf
        self._due.push(active, now)
        self._expires_at = min(self._expires_at, active.deadline_at)

    def pop(self, now: float) -> ActiveJob:
        """A due job past its deadline, if there is one; else the one whose look ends most delay, as far as is known.

        :raises IndexError: if none is due.
        """
        self._collect_overdue(now)
        return self._overdue.popleft() if self._overdue else self._due.pop(now)

    def expired(self, now: float) -> ActiveJob | None:
        """A due job past its deadline that was looked at before: no job is given up unseen."""
        self._collect_overdue(now)
        return self._overdue.popleft() if self._overdue and self._overdue[0].polls else None

    def _collect_overdue(self, now: float) -> None:
        if now < self._expires_at:
            return
        past = self._due.drop(lambda active: active.deadline_at <= now)
        self._overdue.extendleft(active for active in past if active.polls)
        self._overdue.extend(active for active in past if not active.polls)
        self._expires_at = min((active.deadline_at for active in self._due), default=math.inf)

    @property
    def due(self) -> int:
        """How many jobs are due."""
        return len(self._due) + len(self._overdue)

    @property
    def expires_at(self) -> float:
        """When `expired` is worth asking again."""
        return self._expires_at

    def push(self, active: ActiveJob, due: float) -> None:
        """Look at `entry` at `due`."""
        active.next_poll_at = due
        heapq.heappush(self._waiting, (due, active))

    def clear(self) -> list[ActiveJob]:
        """Take every job off."""
        active_jobs = list(self)
        self._waiting.clear()
        self._stale = 0
        self._overdue.clear()
        self._due = self._by_undetected()
        self._expires_at = math.inf
        return active_jobs

    def __iter__(self) -> Iterator[ActiveJob]:
        """Every job that waits for a look."""
        yield from dict.fromkeys(active for due, active in self._waiting if due == active.next_poll_at)
        yield from self._due
        yield from self._overdue

    def _expected_delay(self, active: ActiveJob, now: float) -> float:
        looked, age = active.last_seen_unsettled_at - active.accepted_at, now - active.accepted_at
        index = getattr(self.policy, "expected_delay", None)
        if index is not None and not self.callbacks.needs_poll(active):
            try:
                value = float(index(active.stratum, looked, age))
                if 0 <= value < math.inf:
                    return max(value, MIN_PRIORITY_SHARE * (age - looked))
                self._log_policy_error_once(f"gave {value!r} s undetected")
            except Exception as error:
                self._log_policy_error_once(f"raised {error!r}")
        return age - looked

    def on_callback(self, active: ActiveJob, now: float) -> None:
        """A callback has come for `entry`: look at it at once, if none has caused a look just before."""
        self._move_forward(active, self.callbacks.on_callback(active, now))

    def _move_forward(self, active: ActiveJob, due: float) -> None:
        """Look at `entry` at `due`, if that is sooner."""
        if due >= active.next_poll_at:
            return
        self._stale += 1
        self.push(active, due)
        if self._stale > max(64, len(self._waiting) // 2):
            self._waiting = [place for place in dict.fromkeys(self._waiting) if place[0] == place[1].next_poll_at]
            heapq.heapify(self._waiting)
            self._stale = 0

    # --- when -------------------------------------------------------------------------------------------------------

    def resume(self, active: ActiveJob, now: float, u: float) -> None:
        """Look soon at a job of an earlier process."""
        self.push(active, now + u * RESUME_SECONDS)

    def schedule(self, active: ActiveJob, now: float, u: float, look: PollResult | None = None) -> None:
        """`entry` was accepted, or `look` found it unsettled: when to look again; not before the provider wants it."""
        if active.failed_polls:
            wait = backoff_delay(active.failed_polls - 1, u, first=1.0, cap=60.0)
        else:
            wait = self._ask_policy(self._context_after(active, now, u, look), u)
        self._provider_delay = (look and look.retry_after) or 0.0
        due = min(now + max(wait, self._provider_delay), self.callbacks.on_unsettled(active, now))
        if due > active.deadline_at > now:
            due = active.deadline_at  # the answer of the very last look counts
        self.push(active, due)

    def _context_after(self, active: ActiveJob, now: float, u: float, look: PollResult | None) -> PollContext:
        """`entry` as the policy is told of it; an answer that denies the task tells nothing."""
        looked = self._last_unsettled_age(active) if active.polls and not active.resumed else None
        if look is not None and look.verdict is not PollVerdict.READ:
            return self._context(active, now, None)
        active.last_seen_unsettled_at = now
        if look is not None and look.snapshot is not None:
            self._record_progress(active, look.snapshot, now - active.accepted_at, u)
        return self._context(active, now, looked)

    @staticmethod
    def _record_progress(active: ActiveJob, snapshot: Snapshot, age: float, u: float) -> None:
        percent = 0 if snapshot.state is TaskState.QUEUED else snapshot.progress
        if percent is None:
            if active.progress is not None and not active.progress.percent:  # queued then, and waited for from then on
                active.sampled_progress = active.progress
            return
        active.progress = ProgressSample(age, percent)
        active.progress_count += 1
        if u * active.progress_count < 1:  # each is kept with the same chance
            active.sampled_progress = active.progress

    def _context(self, active: ActiveJob, now: float, looked: float | None) -> PollContext:
        age, told = now - active.accepted_at, active.progress
        if told is None:
            return PollContext(active.stratum, age, active.polls, None, looked, None, self.callbacks.loss_rate)
        return PollContext(active.stratum, age, active.polls, told.percent, looked, told.age, self.callbacks.loss_rate)

    # A policy is somebody else's code: what it gets wrong costs no paid job, and is said once.

    def _ask_policy(
        self, waiting: PollContext, u: float, ask: Callable[[PollContext, float], float] | None = None
    ) -> float:
        try:
            wait = float((ask or self.policy.next_delay)(waiting, u))
            if 0 < wait < math.inf:
                return wait
            self._log_policy_error_once(f"gave a wait of {wait!r} s")
        except Exception as error:
            self._log_policy_error_once(f"raised {error!r}")
        return cap(waiting.age)

    def _log_policy_error_once(self, of: str) -> None:
        if not self._policy_error_logged:
            _log.error("the polling policy %r %s; looks go on at a pace of our own", self.policy, of)
        self._policy_error_logged = True

    # --- what is learned --------------------------------------------------------------------------------------------

    def record_settled(self, active: ActiveJob, snapshot: Snapshot, now: float, u: float) -> None:
        """`entry` has settled, and `snapshot` is what said so."""
        told_at = self.callbacks.notified_at(active)
        if active.resumed:  # its age is that of a clock that may have been moved
            self.callbacks.forget(active)
            return
        looked, age = active.last_seen_unsettled_at - active.accepted_at, now - active.accepted_at
        self.longest = max(self.longest, age)
        told = age if told_at is None else told_at - active.accepted_at
        if looked < told < age:
            after, before = max(looked, told - min(CALLBACK_LATENCY, CALLBACK_LATENCY_SHARE * told)), told
        else:
            after, before = self._timestamps.narrowed(looked, age, _told_duration(snapshot))
        submitted_at = active.job.submitted_at
        seen = DurationSample(
            active.stratum, after, before, accepted_at=submitted_at.timestamp() if submitted_at else 0.0
        )
        if active.sampled_progress is not None:
            seen = attrs.evolve(
                seen, progress_age=active.sampled_progress.age, progress=active.sampled_progress.percent
            )
        known = max(looked, min(age, self._last_unsettled_age(active)))
        if told_at is not None:
            self._observe_silence(now)
        self.on_sample(seen, age)
        quicker = self._observe(seen, known)
        if self.callbacks.enabled:
            self.callbacks.on_settled(active, now)
            self._sample(now, u)
            self._update_loss_rate(now, u)
        if quicker:
            self._replan(active.stratum, now, u)

    # --- silence ----------------------------------------------------------------------------------------------------

    @property
    def _silent_count(self) -> int:
        return len(self._waiting) - self._stale

    def _sample(self, now: float, u: float) -> None:
        """Look at one of the silent, picked by chance, if it is time for that."""
        if not self._silent_count or not self.callbacks.loss.wants_sample(self._silent_count):
            return
        due, picked = self._waiting[int(u * len(self._waiting))]
        if due == picked.next_poll_at and not picked.failed_polls and not self.callbacks.needs_poll(picked):
            self.callbacks.force_poll(picked)
            self._move_forward(picked, now)

    def _update_loss_rate(self, now: float, u: float) -> None:
        """Put every look anew if more settles are told of than before, or fewer."""
        if self.callbacks.loss.update(self._silent_count):
            self._replan(None, now, u)

    def _observe_silence(self, now: float) -> None:
        """A task has settled; of those that wait nobody tells, and so they have not, nearly all."""
        passed, untold = getattr(self.policy, "observe_unsettled", None), self.callbacks.loss
        if passed is None or self.callbacks.loss_rate >= 1.0:
            return
        self._since_silence += 1
        if self._since_silence < min(
            SILENCE_SHARE * len(self._waiting), SILENCE_MIN_SHARE * (untold.notified + untold.missed)
        ):
            return
        self._since_silence = 0
        try:
            for active in self:
                if not active.resumed:
                    passed(active.stratum, self._last_unsettled_age(active), now - active.accepted_at)
        except Exception as error:
            self._log_policy_error_once(f"raised {error!r}")
        self._silent_at = now

    def _last_unsettled_age(self, active: ActiveJob) -> float:
        """The age up to which the policy has heard of `entry` that it was unsettled, by a look or by silence."""
        return max(active.last_seen_unsettled_at, self._silent_at) - active.accepted_at

    def record_censored(self, active: ActiveJob) -> None:
        """`entry` is not waited for any more, and unsettled."""
        self.callbacks.forget(active)
        if not active.resumed:
            known = self._last_unsettled_age(active)
            self._observe(DurationSample(active.stratum, known, math.inf), known)

    def load_history(self, observations: Iterable[DurationSample]) -> None:
        """What was learned in earlier processes, for the policy."""
        for seen in observations:
            self.longest = max(self.longest, seen.upper if seen.upper < math.inf else 0.0)
            self._observe(seen, None)

    def _observe(self, seen: DurationSample, looked: float | None) -> bool:
        try:
            return self.policy.observe(seen, looked) is True
        except Exception as error:
            self._log_policy_error_once(f"raised {error!r}")
            return False

    def _replan(self, stratum: str | None, now: float, u: float) -> None:
        """Tasks of `stratum` have become quicker: looks that were put too late come sooner, and not all at once.

        None: more settles are told of, or fewer: every look is put anew, sooner or later.
        """
        if not hasattr(self.policy, "replan_delay"):
            return
        waiting = []
        for due, active in dict.fromkeys(self._waiting):  # one may have two places of the same time
            if due != active.next_poll_at:
                continue
            put = due
            if (
                stratum in {None, active.stratum}
                and due > now
                and not active.failed_polls
                and not self.callbacks.needs_poll(active)
            ):
                u = (u + GOLDEN) % 1.0
                sooner = max(self._next_poll_time(active, u), now + u * RESUME_SECONDS)
                later = stratum is None and self._can_replan(active, now)
                put = min(sooner, active.deadline_at if later else due)
            active.next_poll_at = put
            waiting.append((put, active))
        heapq.heapify(waiting)
        self._waiting, self._stale = waiting, 0

    def _can_replan(self, active: ActiveJob, now: float) -> bool:
        """Whether a look at `entry` may be put off by what was learned since it was put: of callbacks, mostly."""
        if not self.callbacks.enabled or active.failed_polls or self.callbacks.needs_poll(active):
            return False
        return (
            active.deadline_at > now
            and not (active.resumed and not active.polls)
            and hasattr(self.policy, "replan_delay")
        )

    def _next_poll_time(self, active: ActiveJob, u: float) -> float:
        """When the next look at `entry` is best, counted from the last."""
        wait = self._ask_policy(self._context(active, active.last_seen_unsettled_at, None), u, self.policy.replan_delay)  # type: ignore[attr-defined]
        return active.last_seen_unsettled_at + max(self._provider_delay, wait)


def _told_duration(snapshot: Snapshot) -> float | None:
    """How long the task took by its provider's own times, if it tells any; a third party's may be anything."""
    if snapshot.created_at is None or snapshot.updated_at is None:
        return None
    try:
        return float(snapshot.updated_at) - float(snapshot.created_at)
    except (TypeError, ValueError, OverflowError):
        return None
