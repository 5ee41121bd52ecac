"""How many settles nobody tells of, where somebody may: learned of those that were told and those not. Pure.

Tasks that settled untold are seen only when they are looked at, and where most are told nobody looks: so a few of the
silent tasks are looked at by chance, and stand for all of them.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

__all__ = ["CallbackLossEstimator"]

#: What the two counts begin with, settles that were told and that were not: who asks to be told mostly is.
PRIOR_NOTIFIED, PRIOR_MISSED = 4.9, 0.1
#: So many settles are remembered, and so many looks by chance; older ones count less and less.
SETTLES, SAMPLES = 400.0, 20.0
#: So many looks by chance while all the tasks that wait settle; and never more than one for so many settles.
SAMPLE_INTERVAL, MIN_SAMPLE_INTERVAL = 48, 8
#: With a larger share it is as if nobody told: being wrong about it would cost more than the looks.
MAX_USABLE_LOSS: Final = 0.2
#: The share is told anew when it has changed by this factor: a schedule follows its square root.
NOTABLE: Final = 1.5
#: When so many of the last few settles were untold, what was before counts no more.
RECENT, RECENT_MISSES = 5, 3
#: With a larger share it is not worth to wait to be told.
UNRELIABLE_LOSS: Final = 0.5


@attrs.define
class CallbackLossEstimator:
    """The share of tasks of whose settling nobody tells."""

    #: As it was when it last changed notably; 1 where being told cannot be relied upon.
    loss_rate: float = attrs.field(default=PRIOR_MISSED / (PRIOR_NOTIFIED + PRIOR_MISSED), init=False)
    #: Settles of which somebody told, and of which nobody did; the older the less they count.
    notified: float = attrs.field(default=0.0, init=False)
    missed: float = attrs.field(default=0.0, init=False)
    #: Looks by chance at silent tasks, and those that found one settled.
    samples: float = attrs.field(default=0.0, init=False)
    found: float = attrs.field(default=0.0, init=False)
    _last: deque[bool] = attrs.field(factory=lambda: deque(maxlen=RECENT), init=False)
    _notified_total: int = attrs.field(default=0, init=False)
    _notified_since_sample: int = attrs.field(default=0, init=False)

    def add(self, *, notified: bool) -> None:
        """A task has settled, and somebody told or not."""
        self._notified_total += notified
        self._notified_since_sample += notified
        self._last.append(notified)
        if self._last.count(False) >= RECENT_MISSES and self.estimate(0) < MAX_USABLE_LOSS:
            self.notified, self.missed = float(self._last.count(True)), float(self._last.count(False))
            return
        kept = min(1.0, (SETTLES - 1) / max(1.0, self.notified + self.missed))
        self.notified = kept * self.notified + notified
        self.missed = kept * self.missed + (not notified)

    def wants_sample(self, silent: int) -> bool:
        """Whether one of so many silent tasks is to be looked at by chance now."""
        if self._notified_since_sample < max(MIN_SAMPLE_INTERVAL, (self._notified_total + silent) / SAMPLE_INTERVAL):
            return False
        self._notified_since_sample = 0
        return True

    def sampled(self, *, settled: bool) -> None:
        """What a look by chance has found."""
        kept = min(1.0, (SAMPLES - 1) / max(1.0, self.samples))
        self.samples = kept * self.samples + 1
        self.found = kept * self.found + settled

    def estimate(self, silent: int) -> float:
        """The share by all that is known, while so many tasks are silent."""
        untold = self.missed + PRIOR_MISSED + (silent * self.found / self.samples if self.found else 0.0)
        return untold / (untold + self.notified + PRIOR_NOTIFIED)

    def update(self, silent: int) -> bool:
        """Whether `share` is another now, while so many tasks are silent."""
        estimate = self.estimate(silent)
        if estimate > MAX_USABLE_LOSS:
            estimate = 1.0
        if 1 / NOTABLE < estimate / self.loss_rate < NOTABLE:
            return False
        self.loss_rate = estimate
        return True

    @property
    def is_unreliable(self) -> bool:
        """Whether hardly anybody tells."""
        return self.estimate(0) > UNRELIABLE_LOSS
