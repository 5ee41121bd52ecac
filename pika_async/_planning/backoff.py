"""Exponential backoff with full jitter for failed and refused calls."""

from __future__ import annotations

from itertools import islice

from backoff import expo

__all__ = ["backoff_delay"]


def backoff_delay(step: int, u: float, *, first: float = 0.5, cap: float = 60.0) -> float:
    """Return the delay in seconds before a call is repeated: exponential with full jitter, at least `first` / 2.

    Meant for calls that failed or were refused; the wait for a task is the polling policy's.

    :param step: number of delays before this one.
    :param u: a uniform random number in [0, 1).
    :param first: upper bound of the first delay, in seconds.
    :param cap: upper bound of every delay, in seconds.
    """
    steps = expo(factor=first, max_value=cap)
    next(steps)  # the generator's own start-up value
    longest = next(islice(steps, min(step, 64), None))
    return max(first / 2, u * longest)
