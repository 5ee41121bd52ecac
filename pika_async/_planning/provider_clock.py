"""A provider's own times of a task: when it settled, to the second, as far as they have proved to mean that. Pure."""

from __future__ import annotations

import math
from typing import Final

import attrs

__all__ = ["ProviderTimestamps"]

#: Both times are whole seconds, so their difference is off by less than this.
ROUNDING: Final = 1.0
#: Only an interval this many seconds wide tells a time of settling from the time of the look.
WIDE: Final = 8.0
#: So many are put to the test before any is used; at twice as many the old ones count half.
ENOUGH: Final = 6


@attrs.define
class ProviderTimestamps:
    """Whether "updated" minus "created" is how long tasks take at this provider.

    Both are read from one clock, so how far it is from ours does not matter. What would: an "updated" that is the time
    of the look (then every settle seems to fall on a look, and a policy that learns that never looks sooner), or a
    "created" that is not the acceptance. Both show where two looks lie far apart: the first as settles at the very end
    of the interval, the second as settles outside of it.
    """

    _tried: float = attrs.field(default=0.0, init=False)
    _odd: float = attrs.field(default=0.0, init=False)

    def narrowed(self, after: float, before: float, told: float | None) -> tuple[float, float]:
        """The interval of ages in which a task settled, narrowed by `told` seconds from "created" to "updated"."""
        if told is None or not math.isfinite(told):
            return after, before
        low, high = max(after, told - ROUNDING), min(before, told + ROUNDING)
        if before - after >= WIDE:
            if self._tried >= 2 * ENOUGH:
                self._tried, self._odd = self._tried / 2, self._odd / 2
            self._tried += 1
            self._odd += low >= high or before - told < 2 * ROUNDING
        trusted = self._tried >= ENOUGH and self._odd <= self._tried / 2
        return (low, high) if trusted and low < high else (after, before)
