"""What callbacks have said of the jobs that wait, which look is to answer which, and how many are lost. Pure.

A callback says that a job is worth a look, and nothing else. Times are the caller's monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from pika_async._planning.actions import ActiveJob
from pika_async._planning.callback_loss import CallbackLossEstimator

__all__ = ["GRACE_SECONDS", "MIN_POLL_SPACING_S", "CallbackTracker"]

#: Callbacks cause at most one look at a job in so many seconds.
MIN_POLL_SPACING_S: Final = 5.0
#: A callback comes at most so many seconds after a look has found its task settled, or this share of the task's age, if
#: it is to count as one that told.
GRACE_SECONDS, GRACE_SHARE = 2.0, 0.1


@attrs.define
class _PendingCallback:
    """The callbacks of one job."""

    #: When the first came that no look has answered; and the first of those that the present look answers.
    at: float | None = None
    answered: float | None = None
    #: When the last look began that was to answer one.
    polled_at: float = -math.inf


@attrs.define(kw_only=True)
class CallbackTracker:
    """The callbacks of one client; where nobody listens none ever comes, and every settle is untold."""

    enabled: bool = False
    loss: CallbackLossEstimator = attrs.field(factory=CallbackLossEstimator, init=False)
    _pending: dict[ActiveJob, _PendingCallback] = attrs.field(factory=dict, init=False)
    #: The jobs that looks have found settled, until when a callback may be under way, and whether it was by chance.
    _grace: dict[str, tuple[float, bool]] = attrs.field(factory=dict, init=False)
    #: The jobs that are looked at by chance.
    _sampled: set[ActiveJob] = attrs.field(factory=set, init=False)

    @property
    def loss_rate(self) -> float:
        """The share of settles that nobody tells of."""
        return self.loss.loss_rate if self.enabled else 1.0

    def on_callback(self, active: ActiveJob, now: float) -> float:
        """A callback has come for `entry`; when it wants a look."""
        call = self._pending.setdefault(active, _PendingCallback())
        if call.at is None:
            call.at = now
        return max(now, call.polled_at + MIN_POLL_SPACING_S)

    def needs_poll(self, active: ActiveJob) -> bool:
        """Whether a callback of `entry`, or chance, wants a look that has not begun."""
        call = self._pending.get(active)
        return active in self._sampled or (call is not None and call.at is not None)

    def on_poll_started(self, active: ActiveJob, now: float) -> None:
        """`entry` is being looked at."""
        call = self._pending.get(active)
        if call is not None and call.at is not None:
            call.at, call.answered, call.polled_at = None, call.at, now

    def on_unsettled(self, active: ActiveJob, now: float) -> float:
        """A look brought no settling; when a callback that came meanwhile wants another look."""
        call = self._pending.get(active)
        if not active.failed_polls and active in self._sampled:
            self._sampled.discard(active)
            self.loss.sampled(settled=False)
        if call is None:
            return math.inf
        if active.failed_polls:  # it brought nothing at all: the next one answers the callback, when that may be
            call.at = call.answered if call.at is None else call.at
            return math.inf
        call.answered = None
        return math.inf if call.at is None else max(now, call.polled_at + MIN_POLL_SPACING_S)

    def notified_at(self, active: ActiveJob) -> float | None:
        """When the callback came that told of the settling of `entry`, if one did."""
        call = self._pending.get(active)
        return None if call is None else call.at if call.answered is None else call.answered

    def force_poll(self, active: ActiveJob) -> None:
        """`entry` is to be looked at by chance."""
        self._sampled.add(active)

    def on_settled(self, active: ActiveJob, now: float) -> None:
        """A look has found `entry` settled. One that nobody told of may be told of in a moment: both were as quick."""
        told, sampled = self.notified_at(active) is not None, active in self._sampled
        self.forget(active)
        if not told:
            self._grace[active.job.key] = now + min(GRACE_SECONDS, GRACE_SHARE * (now - active.accepted_at)), sampled
        else:
            self.loss.add(notified=True)
            if sampled:
                self.loss.sampled(settled=False)

    @property
    def ready_at(self) -> float:
        """When no callback is under way any more for the first of those that looks have found settled."""
        return next(iter(self._grace.values()))[0] if self._grace else math.inf

    def expire_grace(self, now: float) -> None:
        """Those of which nobody has told in time were untold."""
        while self.ready_at <= now:
            key = next(iter(self._grace))
            _, sampled = self._grace.pop(key)
            self.loss.add(notified=False)
            if sampled:
                self.loss.sampled(settled=True)

    def on_late_callback(self, key: str) -> None:
        """A callback has come for a job that has settled."""
        if self._grace.pop(key, None) is not None:
            self.loss.add(notified=True)

    def forget(self, active: ActiveJob) -> None:
        """`entry` waits no more."""
        self._pending.pop(active, None)
        self._sampled.discard(active)
