"""Tracker of callbacks: when each causes a poll, which poll answers it, and how many are lost. Pure: polls nothing.

A callback only makes a job worth a poll. Times are the caller's monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from pika_async._planning.actions import ActiveJob
from pika_async._planning.callback_loss import CallbackLossEstimator

__all__ = ["GRACE_S", "MIN_POLL_SPACING_S", "CallbackTracker"]

#: Minimum seconds between two polls of one job that callbacks cause.
MIN_POLL_SPACING_S: Final = 5.0
#: A callback that comes after a poll found its task settled counts as on time for at most this many seconds...
GRACE_S: Final = 2.0
#: ... and for at most this share of the task's age.
GRACE_SHARE: Final = 0.1


@attrs.define
class _PendingCallback:
    """State of the callbacks of one job."""

    #: When the first callback came that no poll has answered yet.
    at: float | None = None
    #: When the first callback came that the current poll answers.
    answered: float | None = None
    #: When the last poll began that was caused by a callback.
    polled_at: float = -math.inf


@attrs.define(kw_only=True)
class CallbackTracker:
    """Tracker of the callbacks of one client.

    :param enabled: whether the client receives callbacks; False by default: then every completion counts as one
        without a callback.
    """

    enabled: bool = False
    loss: CallbackLossEstimator = attrs.field(factory=CallbackLossEstimator, init=False)
    _pending: dict[ActiveJob, _PendingCallback] = attrs.field(factory=dict, init=False)
    #: Keys of jobs that polls found settled, with the end of the grace period for a callback, and whether the poll was
    #: a sample.
    _grace: dict[str, tuple[float, bool]] = attrs.field(factory=dict, init=False)
    #: The jobs that are polled as random samples.
    _sampled: set[ActiveJob] = attrs.field(factory=set, init=False)

    @property
    def loss_rate(self) -> float:
        """Fraction of completions without a callback, 0 to 1; 1 when callbacks are off."""
        return self.loss.loss_rate if self.enabled else 1.0

    def on_callback(self, active: ActiveJob, now: float) -> float:
        """Record a callback for a job and return the earliest time to poll it."""
        pending = self._pending.setdefault(active, _PendingCallback())
        if pending.at is None:
            pending.at = now
        return max(now, pending.polled_at + MIN_POLL_SPACING_S)

    def needs_poll(self, active: ActiveJob) -> bool:
        """Return whether a callback or a random sample requires a poll of the job that has not begun."""
        pending = self._pending.get(active)
        return active in self._sampled or (pending is not None and pending.at is not None)

    def on_poll_started(self, active: ActiveJob, now: float) -> None:
        """Record that a poll of the job has begun: it answers the callbacks that came before."""
        pending = self._pending.get(active)
        if pending is not None and pending.at is not None:
            pending.at, pending.answered, pending.polled_at = None, pending.at, now

    def on_unsettled(self, active: ActiveJob, now: float) -> float:
        """Record that a poll did not find the job settled.

        Return the earliest time of the next poll if a callback has come since the poll began; infinity if none has.
        """
        pending = self._pending.get(active)
        if not active.failed_polls and active in self._sampled:
            self._sampled.discard(active)
            self.loss.add_sample(settled=False)
        if pending is None:
            return math.inf
        if active.failed_polls:  # without a usable answer: the next poll, whenever it is, answers the callback
            pending.at = pending.answered if pending.at is None else pending.at
            return math.inf
        pending.answered = None
        return math.inf if pending.at is None else max(now, pending.polled_at + MIN_POLL_SPACING_S)

    def notified_at(self, active: ActiveJob) -> float | None:
        """Return when the callback came that announced that the job settled; None without one."""
        pending = self._pending.get(active)
        if pending is None:
            return None
        return pending.at if pending.answered is None else pending.answered

    def force_poll(self, active: ActiveJob) -> None:
        """Require a poll of the job as a random sample."""
        self._sampled.add(active)

    def on_settled(self, active: ActiveJob, now: float) -> None:
        """Record that a poll found the job settled; without a callback, grant one a grace period to arrive."""
        notified, sampled = self.notified_at(active) is not None, active in self._sampled
        self.forget(active)
        if not notified:
            grace = min(GRACE_S, GRACE_SHARE * (now - active.accepted_at))
            self._grace[active.job.key] = now + grace, sampled
        else:
            self.loss.add(notified=True)
            if sampled:
                self.loss.add_sample(settled=False)

    @property
    def ready_at(self) -> float:
        """When the first grace period ends; infinity if none is running."""
        return next(iter(self._grace.values()))[0] if self._grace else math.inf

    def expire_grace(self, now: float) -> None:
        """Record the callbacks whose grace period has ended as lost."""
        while self.ready_at <= now:
            key = next(iter(self._grace))
            _, sampled = self._grace.pop(key)
            self.loss.add(notified=False)
            if sampled:
                self.loss.add_sample(settled=True)

    def on_late_callback(self, key: str) -> None:
        """Record a callback for a job that has settled already."""
        if self._grace.pop(key, None) is not None:
            self.loss.add(notified=True)

    def forget(self, active: ActiveJob) -> None:
        """Forget a job that is no longer waiting."""
        self._pending.pop(active, None)
        self._sampled.discard(active)
