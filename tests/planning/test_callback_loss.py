"""Looks where somebody tells of most settles: rarer, as the square root of what nobody tells of, and as well placed."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import AdaptivePolling, DurationSample, FixedInterval, PollContext
from pika_async.polling.schedule import FLOOR_SECONDS

SHARES = st.floats(1e-4, 1.0)


def taught(count: int = 200, sigma: float = 0.5) -> AdaptivePolling:
    """A policy that has seen so many tasks of about a minute."""
    policy, random = AdaptivePolling(), Random(5)
    for _ in range(count):
        took = 60 * math.exp(sigma * random.gauss(0, 1))
        policy.observe(DurationSample("s", took * 0.97, took))
    return policy


def looks_at(policy: AdaptivePolling, settles: float, untold: float) -> tuple[int, float]:
    """How many looks find a task unsettled that nobody tells of, and how late the next one is."""
    age, looks = 0.0, 0
    while True:
        age += policy.replan_delay(PollContext("s", age, looks, callback_loss=untold), 0.5)
        if age >= settles:
            return looks, age - settles
        looks += 1


def test_the_fewer_are_untold_the_rarer_are_looks() -> None:
    """And the later is the one that finds what nobody told of: each share is its own best bargain."""
    policy, random = taught(), Random(7)
    ages = [60 * math.exp(0.5 * random.gauss(0, 1)) for _ in range(300)]
    found = {share: [looks_at(policy, age, share) for age in ages] for share in (1.0, 0.1, 0.01, 0.001)}
    looks = [sum(count for count, _ in each) / 300 for each in found.values()]
    delays = [sum(delay for _, delay in each) / 300 for each in found.values()]
    assert looks == sorted(looks, reverse=True)
    assert delays == sorted(delays)
    assert looks[0] > 5
    assert looks[-1] < 0.2
    assert delays[1] * 0.1 < delays[0]  # of all tasks, with the told ones at once
    for share, mine in zip(found, range(4), strict=True):
        cost = [count + share * 200 / 60 * delay for count, delay in zip(looks, delays, strict=True)]
        assert min(cost) > 0.9 * cost[mine]


@given(SHARES, st.floats(0, 1e5), st.integers(0, 50), st.floats(0, 0.999))
def test_every_wait_is_a_time(share: float, age: float, looks: int, u: float) -> None:
    for policy in (AdaptivePolling(), FixedInterval(3.0)):
        for ask in (policy.next_delay, policy.replan_delay):
            wait = ask(PollContext("s", age, looks, callback_loss=share), u)
            assert FLOOR_SECONDS <= wait < math.inf


@given(SHARES)
def test_a_fixed_interval_grows_as_the_square_root(share: float) -> None:
    assert FixedInterval(2.0).next_delay(PollContext("s", 0.0, 0, callback_loss=share), 0.5) == pytest.approx(
        2.0 / math.sqrt(share)
    )


def test_silence_teaches_what_a_look_would() -> None:
    """That nobody has told of a task at some age counts as a look that found it unsettled."""
    seen, silent = AdaptivePolling(), AdaptivePolling()
    for policy in (seen, silent):
        for _ in range(100):
            policy.next_delay(PollContext("s", 0.0, 0), 0.5)
        for _ in range(10):
            policy.observe(DurationSample("s", 9.0, 10.0), 0.0)
    for _ in range(90):
        seen.next_delay(PollContext("s", 12.0, 1, last_unsettled_age=0.0), 0.5)
        silent.observe_unsettled("s", 0.0, 12.0)
    assert seen.describe()["s"].median == silent.describe()["s"].median > 12


def test_what_is_told_by_nobody_is_a_reason() -> None:
    policy = taught(20)
    policy.next_delay(PollContext("s", 0.0, 0, callback_loss=0.02), 0.5)
    assert "2 % of completions come without a callback" in policy.describe()["s"].why
    assert policy.medians() == {"s": pytest.approx(60, rel=0.3)}
    assert AdaptivePolling().medians() == {}
