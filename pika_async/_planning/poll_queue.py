"""Priority queue of polls for accepted jobs. Pure: polls nothing.

One heap entry per job. Due jobs are polled in descending order of expected undetected delay. Times are the caller's
monotonic seconds; `u` is a uniform random number in [0, 1).
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from pika_async._planning.actions import ActiveJob, PollResult
from pika_async._planning.backoff import backoff_delay
from pika_async._planning.callback_tracker import CallbackTracker
from pika_async._planning.due_queue import DueQueue
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_grid import align
from pika_async.models import Snapshot
from pika_async.polling.durations import DurationSample

__all__ = ["PollQueue"]

#: The first polls of resumed jobs, and polls that are moved forward, are spread over this many seconds.
RESUME_SPREAD_S: Final = 1.0
#: Multiples of this modulo 1 are spread evenly over [0, 1), whatever their number.
GOLDEN_RATIO: Final = 0.618034


@attrs.define
class PollQueue:
    """Priority queue of the next polls of one client's accepted jobs.

    :param adapter: the polling policy, and the callbacks of the client.
    """

    adapter: PolicyAdapter
    callbacks: CallbackTracker = attrs.field(init=False)
    _waiting: list[tuple[float, ActiveJob]] = attrs.field(factory=list, init=False)
    _due: DueQueue[ActiveJob] = attrs.field(init=False)
    _overdue: deque[ActiveJob] = attrs.field(factory=deque, init=False)
    #: The earliest deadline of the due jobs, or a time before.
    _expires_at: float = attrs.field(default=math.inf, init=False)
    #: Seconds until the next poll that the provider last asked for; 0 without such a hint.
    _provider_delay: float = attrs.field(default=0.0, init=False)
    #: Evenly spread in [0, 1), for polls that are postponed.
    _u: float = attrs.field(default=0.0, init=False)
    #: Heap entries whose job has an earlier one.
    _stale: int = attrs.field(default=0, init=False)

    @callbacks.default
    def _callbacks_of_adapter(self) -> CallbackTracker:
        return self.adapter.callbacks

    @_due.default
    def _empty_due_queue(self) -> DueQueue[ActiveJob]:
        return DueQueue(self.adapter.expected_delay)

    # --- taking the next job ----------------------------------------------------------------------------------------

    def ready_at(self, now: float) -> float:
        """Return when a job is due or a callback counts as lost; `now` if a job is due already."""
        if self.callbacks.ready_at <= now:
            self.callbacks.expire_grace(now)
            self._update_loss_rate(now, self._u)
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
        if self._can_postpone(active, now):
            earliest = self._next_poll_time(active, 0.0)
            if earliest is not None and earliest > now:  # more was learned since this poll was planned
                self._u = (self._u + GOLDEN_RATIO) % 1.0
                due = max(earliest, self._next_poll_time(active, self._u) or earliest)
                self.push(active, min(self._aligned(active, due, earliest), active.deadline_at))
                return
        active.next_poll_at = -math.inf
        self._due.push(active, now)
        self._expires_at = min(self._expires_at, active.deadline_at)

    def pop(self, now: float) -> ActiveJob:
        """Pop an overdue job if there is one, otherwise the one with the highest expected undetected delay.

        :raises IndexError: if no job is due.
        """
        self._collect_overdue(now)
        return self._overdue.popleft() if self._overdue else self._due.pop(now)

    def pop_expired(self, now: float) -> ActiveJob | None:
        """Pop a due job that is past its deadline and was polled before; a job without a poll does not expire."""
        self._collect_overdue(now)
        return self._overdue.popleft() if self._overdue and self._overdue[0].polls else None

    def _collect_overdue(self, now: float) -> None:
        if now < self._expires_at:
            return
        overdue = self._due.drop(lambda active: active.deadline_at <= now)
        self._overdue.extendleft(active for active in overdue if active.polls)
        self._overdue.extend(active for active in overdue if not active.polls)
        self._expires_at = min((active.deadline_at for active in self._due), default=math.inf)

    @property
    def due_count(self) -> int:
        """Number of jobs that are due."""
        return len(self._due) + len(self._overdue)

    @property
    def expires_at(self) -> float:
        """The earliest time at which `pop_expired` can return another job."""
        return self._expires_at

    def clear(self) -> list[ActiveJob]:
        """Remove every job and return them."""
        active_jobs = list(self)
        self._waiting.clear()
        self._stale = 0
        self._overdue.clear()
        self._due = self._empty_due_queue()
        self._expires_at = math.inf
        return active_jobs

    def __iter__(self) -> Iterator[ActiveJob]:
        """Iterate over every job in the queue, due or not."""
        yield from dict.fromkeys(active for due, active in self._waiting if due == active.next_poll_at)
        yield from self._due
        yield from self._overdue

    # --- planning polls ---------------------------------------------------------------------------------------------

    def push(self, active: ActiveJob, due: float) -> None:
        """Plan the next poll of a job for `due`."""
        active.next_poll_at = due
        heapq.heappush(self._waiting, (due, active))

    def resume(self, active: ActiveJob, now: float, u: float) -> None:
        """Plan an early poll of a job from an earlier process."""
        self.push(active, now + u * RESUME_SPREAD_S)

    def schedule(self, active: ActiveJob, now: float, u: float, result: PollResult | None = None) -> None:
        """Plan the next poll of a job that was accepted, or that a poll with `result` found unsettled.

        It is not planned before the time that the provider asks for, nor after the deadline of the job.
        """
        if active.failed_polls:
            delay = backoff_delay(active.failed_polls - 1, u, first=1.0, cap=60.0)
        else:
            delay = self.adapter.next_delay(active, now, u, result)
        self._provider_delay = (result and result.retry_after) or 0.0
        planned, earliest = max(delay, self._provider_delay), max(delay / 2, self._provider_delay)
        due = min(self._aligned(active, now + planned, now + earliest), self.callbacks.on_unsettled(active, now))
        if due > active.deadline_at > now:
            due = active.deadline_at  # the answer of the very last poll counts
        self.push(active, due)

    def on_callback(self, active: ActiveJob, now: float) -> None:
        """Move the next poll of a job forward to now, or to `MIN_POLL_SPACING_S` after the last callback's poll."""
        self._move_forward(active, self.callbacks.on_callback(active, now))

    def _move_forward(self, active: ActiveJob, due: float) -> None:
        """Plan the next poll for `due` if that is earlier; the old heap entry becomes stale."""
        if due >= active.next_poll_at:
            return
        self._stale += 1
        self.push(active, due)
        if self._stale > max(64, len(self._waiting) // 2):
            self._waiting = [item for item in dict.fromkeys(self._waiting) if item[0] == item[1].next_poll_at]
            heapq.heapify(self._waiting)
            self._stale = 0

    # --- learning ---------------------------------------------------------------------------------------------------

    def record_settled(self, active: ActiveJob, snapshot: Snapshot, now: float, u: float) -> None:
        """Record that a poll found a job settled, and replan the others if its stratum has become quicker."""
        if active.rare.resumed:  # its age comes from a wall clock that may have been moved
            self.callbacks.forget(active)
            return
        quicker = self.adapter.record_settled(active, snapshot, now, self, len(self._waiting))
        if self.callbacks.enabled:
            self.callbacks.on_settled(active, now)
            self._poll_sample(now, u)
            self._update_loss_rate(now, u)
        if quicker:
            self._replan(active.stratum, now, u)

    def record_censored(self, active: ActiveJob) -> None:
        """Record that a job is no longer polled, and was still unsettled."""
        self.callbacks.forget(active)
        self.adapter.record_censored(active)

    def load_history(self, samples: Iterable[DurationSample]) -> None:
        """Pass the samples of earlier processes to the policy."""
        self.adapter.load_history(samples)

    @property
    def _silent_count(self) -> int:
        return len(self._waiting) - self._stale

    def _poll_sample(self, now: float, u: float) -> None:
        """Poll one random job without a callback now, if it is time to measure how many callbacks are lost."""
        if not self._silent_count or not self.callbacks.loss.is_sample_due(self._silent_count):
            return
        due, active = self._waiting[int(u * len(self._waiting))]
        if due == active.next_poll_at and not active.failed_polls and not self.callbacks.needs_poll(active):
            self.callbacks.force_poll(active)
            self._move_forward(active, now)

    def _update_loss_rate(self, now: float, u: float) -> None:
        """Replan every poll if the estimated callback loss has changed notably."""
        if self.callbacks.loss.update(self._silent_count):
            self._replan(None, now, u)

    # --- replanning -------------------------------------------------------------------------------------------------

    def _replan(self, stratum: str | None, now: float, u: float) -> None:
        """Move the waiting polls of `stratum` forward to when they are best by now, spread over a second.

        :param stratum: the stratum that has become quicker; None, if callback loss has changed: then polls of every
            stratum may also be postponed.
        """
        waiting = []
        for due, active in dict.fromkeys(self._waiting):  # a job may have two entries for the same time
            if due != active.next_poll_at:
                continue
            new_due = due
            if stratum in {None, active.stratum} and due > now and self._is_planned_by_policy(active):
                u = (u + GOLDEN_RATIO) % 1.0
                best = self._next_poll_time(active, u)
                if best is not None:
                    latest = active.deadline_at if stratum is None and self._can_postpone(active, now) else due
                    best = max(best, now + u * RESUME_SPREAD_S)
                    new_due = min(self._aligned(active, best, now), latest)
            active.next_poll_at = new_due
            waiting.append((new_due, active))
        heapq.heapify(waiting)
        self._waiting, self._stale = waiting, 0

    @staticmethod
    def _aligned(active: ActiveJob, due: float, earliest: float) -> float:
        """Return the tick near `due` at which the polls of several jobs leave together; see `align`."""
        return align(due, due - active.accepted_at, earliest)

    def _is_planned_by_policy(self, active: ActiveJob) -> bool:
        """Return whether neither a failed poll nor a callback decides when the job is polled next."""
        return not active.failed_polls and not self.callbacks.needs_poll(active)

    def _can_postpone(self, active: ActiveJob, now: float) -> bool:
        """Return whether a planned poll of a job may be postponed, because callbacks have become more reliable."""
        return (
            self.callbacks.enabled
            and self._is_planned_by_policy(active)
            and active.deadline_at > now
            and not (active.rare.resumed and not active.polls)
        )

    def _next_poll_time(self, active: ActiveJob, u: float) -> float | None:
        """Return the time at which the next poll of a job is best by now; None if the policy keeps the planned one."""
        delay = self.adapter.replan_delay(active, u)
        return None if delay is None else active.last_seen_unsettled_at + max(self._provider_delay, delay)
