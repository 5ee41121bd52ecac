"""Delays of the exponential backoff."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async._planning.backoff import backoff_delay


@given(st.integers(0, 10**9), st.floats(0, 1, exclude_max=True))
def test_a_delay_is_within_its_bounds(step: int, u: float) -> None:
    """No delay is shorter than half of the first one or longer than the cap, after any number of tries."""
    for first, cap in ((0.5, 30.0), (0.5, 60.0), (1.0, 60.0)):
        delay = backoff_delay(step, u, first=first, cap=cap)
        assert first / 2 <= delay <= cap
        assert math.isfinite(delay)


@pytest.mark.parametrize("step, bound", [(0, 0.5), (1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (64, 60.0), (10**9, 60.0)])
def test_delays_double_up_to_their_cap(step: int, bound: float) -> None:
    """The upper bound of each delay is twice the one before, with full jitter below it."""
    assert bound / 2 == backoff_delay(step, 0.5, first=0.5, cap=60.0) or step == 0
    assert pytest.approx(bound, rel=1e-9) == backoff_delay(step, 1 - 1e-12, first=0.5, cap=60.0)


@given(st.integers(0, 10**9), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_delays_do_not_fall(step: int, u: float, v: float) -> None:
    """A larger random number or more tries never give a shorter delay."""
    assert backoff_delay(step, min(u, v)) <= backoff_delay(step, max(u, v)) <= backoff_delay(step + 1, max(u, v))
