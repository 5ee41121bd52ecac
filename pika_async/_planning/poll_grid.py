"""Common ticks of polls, so that several leave in one turn of the event loop. Pure.

A poll that wakes the process alone costs two to three times the CPU of one that leaves beside others: its code runs
with cold caches. The ticks of older tasks are multiples of those of younger ones, so that tasks of every age meet.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["align", "tick"]

#: The longest tick, in seconds.
MAX_TICK_S: Final = 0.25
#: The longest tick as a share of the age of the task at its poll.
MAX_TICK_SHARE: Final = 0.02


def tick(age: float) -> float:
    """Return the tick for a poll at this age in seconds: a power of two, at most 0.25 s and at most 2 % of the age.

    It is 0 for a task without an age.
    """
    longest = min(MAX_TICK_S, MAX_TICK_SHARE * age)
    return math.ldexp(1.0, math.frexp(longest)[1] - 1) if longest > 0 else 0.0


def align(due: float, age: float, earliest: float) -> float:
    """Return the tick that is nearest to `due`, or the first one from `earliest` on.

    The nearest, so that polls are as often early as late, and the delay that the policy planned for holds in the mean.

    :param age: age of the task at `due`, in seconds.
    :param earliest: at most `due`.
    """
    step = tick(age)
    if step == 0.0 or not math.isfinite(due):
        return due
    nearest = math.floor(due / step + 0.5) * step
    return nearest if nearest >= earliest else math.ceil(earliest / step) * step
