"""Adaptive concurrency limit of an account that rejects submissions beyond an unknown number of tasks. Pure.

A gateway does not announce a free slot, and a poll of each task discovers it late. A submission that may be rejected
asks for all slots at once. So while the account is full, submissions are sent at an interval that is learned:

- Each acceptance shortens the logarithm of the interval by a step, each rejection lengthens it by the same step. In the
  long run there is one rejection for each acceptance (Robbins and Monro, 1951), however often slots become free.
- An accepted submission is followed by another at once, and the number of concurrent ones grows by one. A rejection
  resets this number to one (Chiu and Jain, 1989: additive increase, here with a fall to one).
"""

from __future__ import annotations

import math
from typing import Any, Final

import attrs

__all__ = ["AdaptiveConcurrency"]

#: Change of the logarithm of the probe interval by one answer.
INTERVAL_LOG_STEP: Final = 0.1
#: Change by one rejection before the first acceptance: the interval doubles.
SEARCH_LOG_STEP: Final = math.log(2)
#: Weight of one rejection in the moving average of the estimated limit.
LIMIT_LEARNING_RATE: Final = 0.1
#: Minimum of the probe interval, in seconds.
MIN_PROBE_INTERVAL_S: Final = 0.02
#: Maximum of the probe interval, in seconds.
MAX_PROBE_INTERVAL_S: Final = 120.0
#: The attributes that are times, and all that are learned.
_TIMES: Final = ("_next_at", "_full_at", "_forced_until", "_rejected_at")
_LEARNED: Final = ("estimated_limit", "probe_interval", "_window", "_paced", *_TIMES)


@attrs.define(kw_only=True)
class AdaptiveConcurrency:
    """Adaptive concurrency limit of one account.

    :param ceiling: maximum number of tasks in flight, even if the account accepts more; infinite by default.
    :param estimated_limit: as learned by an earlier process; None by default.
    :param probe_interval: as learned by an earlier process, in seconds; 1 by default.
    """

    ceiling: float = math.inf
    #: Tasks that other processes have in flight at the account.
    others: int = 0
    #: Submissions of other processes that are under way there.
    others_submitting: int = 0
    #: Number of tasks in flight when the account rejects one, a moving average; None before the first rejection.
    estimated_limit: float | None = None
    #: Seconds between two submissions while the account is full.
    probe_interval: float = 1.0
    #: Maximum number of concurrent submissions; infinite until the first rejection.
    _window: float = math.inf
    _next_at: float = -math.inf
    #: When the last rejected submission was sent: the account was full then.
    _full_at: float = -math.inf
    #: End of the last `Retry-After`.
    _forced_until: float = -math.inf
    #: When the last rejection was received.
    _rejected_at: float = math.inf
    #: Whether `probe_interval` has been learned from an acceptance.
    _paced: bool = False

    def __attrs_post_init__(self) -> None:
        if self.estimated_limit is not None and self._window == math.inf:
            self._window = max(1.0, self.estimated_limit)
            self._paced = True

    def has_capacity(self, in_flight: int, submitting: int) -> bool:
        """Return whether the counts allow one more submission; `ready_at` returns when."""
        submitting += self.others_submitting
        return in_flight + self.others + submitting < self.ceiling and submitting < self._window

    @property
    def has_refused(self) -> bool:
        """Whether the account has refused a submission, so that there is something to learn from its answers."""
        return self._full_at > -math.inf

    def learned(self, shift: float = 0.0) -> dict[str, Any]:
        """Return what was learned, as arguments of this class; what is infinite or None, as by default, is left out.

        :param shift: seconds by which another clock is ahead: all times are on that one.
        """
        values = {name: getattr(self, name) for name in _LEARNED}
        moved = {
            name.removeprefix("_"): value + shift if name in _TIMES else value
            for name, value in values.items()
            if value is not None
        }
        return {name: value for name, value in moved.items() if math.isfinite(value)}

    def restore(self, other: AdaptiveConcurrency) -> None:
        """Take over what `other` has learned."""
        for name in _LEARNED:
            setattr(self, name, getattr(other, name))

    def ready_at(self, now: float) -> float:
        """Return when the next submission may begin; `now` if at once."""
        return max(now, self._next_at, self._forced_until)

    def on_submit_started(self, now: float) -> None:
        """Record that a submission has begun."""
        if self.has_refused:
            self._next_at = now + self.probe_interval

    def on_accepted(self, now: float) -> None:
        """Record an acceptance: the next submission may follow at once."""
        if not self.has_refused:
            return
        self._paced = True
        self.probe_interval = max(MIN_PROBE_INTERVAL_S, self.probe_interval * math.exp(-INTERVAL_LOG_STEP))
        self._window += 1
        self._next_at = now

    def on_rejected(self, in_flight: int, sent_at: float, now: float, retry_after: float | None = None) -> None:
        """Record that a submission was rejected because all slots are busy.

        :param in_flight: number of accepted tasks of all processes that are not known to have settled.
        :param sent_at: when the submission was sent.
        :param retry_after: seconds until the next submission, if the gateway asked for them.
        """
        if self.estimated_limit is None:
            self.estimated_limit = float(in_flight)
        else:
            self.estimated_limit += LIMIT_LEARNING_RATE * (in_flight - self.estimated_limit)
        # Of concurrent submissions that are rejected before the first acceptance, only one doubles the interval.
        searching = not self._paced and sent_at >= self._rejected_at
        step = SEARCH_LOG_STEP if searching else INTERVAL_LOG_STEP
        self.probe_interval = min(MAX_PROBE_INTERVAL_S, self.probe_interval * math.exp(step))
        self._rejected_at = now
        self._full_at = max(self._full_at, sent_at)
        self._next_at = max(self._next_at, sent_at + self.probe_interval)
        self._window = 1.0
        if retry_after is not None:
            self._forced_until = max(self._forced_until, now + retry_after)

    def on_other_answer(self, now: float) -> None:
        """Record an answer that is unrelated to slots: the next submission does not wait for the probe interval."""
        self._next_at = min(self._next_at, now)

    def on_settled(self, last_unsettled_at: float, now: float) -> None:
        """Record that a task was found settled: its slot is free, unless a later submission was rejected.

        :param last_unsettled_at: when the task was last known to be unsettled.
        """
        if (last_unsettled_at + now) / 2 > self._full_at:
            self._next_at = min(self._next_at, now)
