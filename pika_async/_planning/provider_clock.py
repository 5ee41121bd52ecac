"""Settle times from the timestamps of a provider, once they have proved to be settle times. Pure: reads no clock."""

from __future__ import annotations

import math
from typing import Final

import attrs

__all__ = ["ProviderTimestamps"]

#: Both timestamps are whole seconds, so the error of their difference is less than this, in seconds.
ROUNDING_ERROR_S: Final = 1.0
#: Minimum width, in seconds, of an interval in which a settle time can be distinguished from the time of the poll.
MIN_TEST_WIDTH_S: Final = 8.0
#: Number of tests before timestamps are used; at twice this number the weight of the earlier tests is halved.
MIN_TEST_COUNT: Final = 6


@attrs.define
class ProviderTimestamps:
    """Test of whether "updated" minus "created" is the duration of a task at this provider.

    Both timestamps are read from one clock, so its offset from the local clock does not matter. Two faults would:

    - "updated" is the time of the poll. Then every task seems to settle just when it is polled, and a policy that
      learns this never polls sooner. Such a duration lies at the very end of a wide interval.
    - "created" is not the time of acceptance. Such a duration often lies outside the interval.
    """

    _tested: float = attrs.field(default=0.0, init=False)
    _failed: float = attrs.field(default=0.0, init=False)

    def narrowed(self, lower: float, upper: float, duration: float | None) -> tuple[float, float]:
        """Return the interval of ages in which a task settled, narrowed by the provider's timestamps if they are good.

        :param lower: the age at the last poll that found the task unsettled, in seconds.
        :param upper: the age at the poll that found it settled, in seconds.
        :param duration: the seconds from "created" to "updated"; None if the provider does not send both.
        """
        if duration is None or not math.isfinite(duration):
            return lower, upper
        low, high = max(lower, duration - ROUNDING_ERROR_S), min(upper, duration + ROUNDING_ERROR_S)
        if upper - lower >= MIN_TEST_WIDTH_S:
            if self._tested >= 2 * MIN_TEST_COUNT:
                self._tested, self._failed = self._tested / 2, self._failed / 2
            self._tested += 1
            self._failed += low >= high or upper - duration < 2 * ROUNDING_ERROR_S
        trusted = self._tested >= MIN_TEST_COUNT and self._failed <= self._tested / 2
        return (low, high) if trusted and low < high else (lower, upper)
