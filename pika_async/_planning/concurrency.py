"""When to submit to an account that holds so many tasks at once and says "too many" beyond. Pure; sends nothing.

Nobody says when a slot gets free, and a look at each task finds out late: but a submission that may be refused asks
"is any slot free?" for all of them. So while the account is full, submissions are tried at a pace. The pace is learned:
an answer of either kind moves the logarithm of the gap by a step, so that in the long run there is one refusal for each
acceptance (Robbins and Monro, 1951), however fast slots get free. What is accepted is followed at once by another, one
more side by side for each, and a refusal ends that (Chiu and Jain, 1989: increase by one, fall to one).
"""

from __future__ import annotations

import math

import attrs

__all__ = ["AdaptiveConcurrency"]

#: How far one refusal moves the logarithm of the gap; before the first acceptance, when nothing is known of the pace.
STEP, SEARCH = 0.1, math.log(2)
#: How much one refusal weighs in the size of the account.
LEARN = 0.1
#: The shortest and the longest gap, in seconds.
SHORTEST, LONGEST = 0.02, 120.0


@attrs.define(kw_only=True)
class AdaptiveConcurrency:
    """One account's room for tasks. `size` and `gap` are worth keeping for its next start.

    `ceiling`: tasks in flight that are never exceeded, whatever the account would take.
    """

    ceiling: float = math.inf
    #: Tasks that were in flight when the account said "too many", on average of late; None: it never did.
    estimated_limit: float | None = None
    #: Seconds between two tries while it is full.
    probe_interval: float = 1.0
    #: How many submissions may be under way at once; the account is full while it is finite.
    _window: float = math.inf
    _next_at: float = -math.inf
    _full_at: float = -math.inf
    _forced_until: float = -math.inf
    #: When it was last refused, by the answer.
    _told_at: float = math.inf
    #: Whether `gap` comes from an answer of either kind.
    _paced: bool = False

    def __attrs_post_init__(self) -> None:
        if self.estimated_limit is not None:
            self._window = max(1.0, self.estimated_limit)
            self._paced = True

    def has_capacity(self, in_flight: int, submitting: int) -> bool:
        """Whether one more may be sent, as far as counts go; `ready_at` says when."""
        return in_flight + submitting < self.ceiling and submitting < self._window

    def ready_at(self, now: float) -> float:
        """When the next submission may begin; `now` if at once."""
        return max(now, self._next_at, self._forced_until)

    def on_submit_started(self, now: float) -> None:
        """A submission begins."""
        if self._full_at > -math.inf:
            self._next_at = now + self.probe_interval

    def on_accepted(self, now: float) -> None:
        """It was accepted: there may be room for more at once."""
        if self._full_at == -math.inf:
            return
        self._paced = True
        self.probe_interval = max(SHORTEST, self.probe_interval * math.exp(-STEP))
        self._window += 1
        self._next_at = now

    def on_rejected(self, in_flight: int, sent_at: float, now: float, retry_after: float | None = None) -> None:
        """A submission sent at `sent_at` was answered "too many" while `in_flight` tasks were not seen settled."""
        self.estimated_limit = (
            float(in_flight)
            if self.estimated_limit is None
            else self.estimated_limit + LEARN * (in_flight - self.estimated_limit)
        )
        searching = not self._paced and sent_at >= self._told_at  # of those that went out side by side one counts
        self.probe_interval = min(LONGEST, self.probe_interval * math.exp(SEARCH if searching else STEP))
        self._told_at = now
        self._full_at = max(self._full_at, sent_at)
        self._next_at = max(self._next_at, sent_at + self.probe_interval)
        self._window = 1.0
        if retry_after is not None:
            self._forced_until = max(self._forced_until, now + retry_after)

    def on_other_answer(self, now: float) -> None:
        """A submission's answer said nothing of slots: the next one need not wait for its gap."""
        self._next_at = min(self._next_at, now)

    def on_settled(self, between: float, now: float) -> None:
        """A task settled between the times `between` and `now`: a slot is free, unless it was found already."""
        if (between + now) / 2 > self._full_at:
            self._next_at = min(self._next_at, now)
