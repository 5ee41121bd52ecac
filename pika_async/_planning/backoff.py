"""Exponential backoff with full jitter for failed and refused calls."""

from __future__ import annotations

from itertools import islice

from backoff import expo

__all__ = ["backoff_delay"]


def backoff_delay(step: int, u: float, *, first: float = 0.5, cap: float = 60.0) -> float:
    """Seconds to wait before try `step` (0, 1, ...): exponential with full jitter, `u` in [0, 1), at least `first` / 2.

    The right tool for a call that failed or was refused, and the wrong one for waiting on a task.
    """
    steps = expo(factor=first, max_value=cap)
    next(steps)  # the generator's own start-up value
    height = next(islice(steps, min(step, 64), None))
    return max(first / 2, u * height)
