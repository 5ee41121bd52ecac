"""Estimator of callback loss: the fraction of completions without a callback. Pure: polls nothing.

A task that settled without a callback is only found by a poll, and polls are rare while most callbacks arrive. So a few
silent tasks, picked at random, are polled early: the fraction of these samples that have settled stands for all of the
silent tasks.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

__all__ = ["CallbackLossEstimator"]

#: Weight of the assumption that a provider that was asked for callbacks mostly sends them: completions with a callback.
PRIOR_NOTIFIED: Final = 4.9
#: The same: completions without one.
PRIOR_MISSED: Final = 0.1
#: Number of completions that are remembered; the weight of older ones decays.
MEMORY_TASKS: Final = 400.0
#: Number of samples that are remembered; the weight of older ones decays.
MEMORY_SAMPLES: Final = 20.0
#: Number of samples while all the waiting tasks settle.
SAMPLES_PER_RUN: Final = 48
#: Minimum number of callbacks between two samples.
MIN_SAMPLE_INTERVAL: Final = 8
#: A larger loss counts as 1, as if callbacks were off: an error in it would cost more than the polls that it saves.
MAX_USABLE_LOSS: Final = 0.2
#: `loss_rate` changes only when the estimate has changed by this factor: delays depend on its square root.
NOTABLE_CHANGE_FACTOR: Final = 1.5
#: Number of latest completions that are checked for a sudden loss of callbacks.
RECENT_TASKS: Final = 5
#: When at least this many of them had no callback, older completions are forgotten.
RECENT_MISSES: Final = 3
#: With a larger loss, callbacks are not worth waiting for.
UNRELIABLE_LOSS: Final = 0.5


@attrs.define
class CallbackLossEstimator:
    """Estimator of the fraction of completions without a callback."""

    #: The estimate when it last changed notably; 1 when callbacks are not reliable enough to poll less.
    loss_rate: float = attrs.field(default=PRIOR_MISSED / (PRIOR_NOTIFIED + PRIOR_MISSED), init=False)
    #: Number of completions with a callback; the weight of older ones decays.
    notified: float = attrs.field(default=0.0, init=False)
    #: Number of completions without a callback; the weight of older ones decays.
    missed: float = attrs.field(default=0.0, init=False)
    #: Number of polls of random silent tasks; the weight of older ones decays.
    samples: float = attrs.field(default=0.0, init=False)
    #: Number of the samples that found a task settled.
    settled_samples: float = attrs.field(default=0.0, init=False)
    _recent: deque[bool] = attrs.field(factory=lambda: deque(maxlen=RECENT_TASKS), init=False)
    _notified_total: int = attrs.field(default=0, init=False)
    _notified_since_sample: int = attrs.field(default=0, init=False)

    def add(self, *, notified: bool) -> None:
        """Record that a task has settled, with or without a callback."""
        self._notified_total += notified
        self._notified_since_sample += notified
        self._recent.append(notified)
        if self._recent.count(False) >= RECENT_MISSES and self.estimate(0) < MAX_USABLE_LOSS:
            self.notified, self.missed = float(self._recent.count(True)), float(self._recent.count(False))
            return
        decay = min(1.0, (MEMORY_TASKS - 1) / max(1.0, self.notified + self.missed))
        self.notified = decay * self.notified + notified
        self.missed = decay * self.missed + (not notified)

    def is_sample_due(self, silent: int) -> bool:
        """Return whether a random one of `silent` tasks should be polled now; if so, begin the next interval."""
        if self._notified_since_sample < max(MIN_SAMPLE_INTERVAL, (self._notified_total + silent) / SAMPLES_PER_RUN):
            return False
        self._notified_since_sample = 0
        return True

    def add_sample(self, *, settled: bool) -> None:
        """Record whether a random silent task was found settled without a callback."""
        decay = min(1.0, (MEMORY_SAMPLES - 1) / max(1.0, self.samples))
        self.samples = decay * self.samples + 1
        self.settled_samples = decay * self.settled_samples + settled

    def estimate(self, silent: int) -> float:
        """Return the estimated loss by now, 0 to 1, while `silent` tasks wait without a callback."""
        silent_missed = silent * self.settled_samples / self.samples if self.settled_samples else 0.0
        missed = self.missed + PRIOR_MISSED + silent_missed
        return missed / (missed + self.notified + PRIOR_NOTIFIED)

    def update(self, silent: int) -> bool:
        """Set `loss_rate` if the estimate has changed notably, and return whether it has.

        :param silent: number of tasks that wait without a callback.
        """
        estimate = self.estimate(silent)
        if estimate > MAX_USABLE_LOSS:
            estimate = 1.0
        if 1 / NOTABLE_CHANGE_FACTOR < estimate / self.loss_rate < NOTABLE_CHANGE_FACTOR:
            return False
        self.loss_rate = estimate
        return True

    @property
    def is_unreliable(self) -> bool:
        """Whether callbacks are too unreliable to wait for."""
        return self.estimate(0) > UNRELIABLE_LOSS
