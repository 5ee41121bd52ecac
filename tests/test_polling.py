"""When to look again: every wait is finite, above 0 and within its caps, and what was learned is used."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pika_async import AdaptivePolling, ConfigurationError, FixedInterval, PollingPolicy
from pika_async.polling import Durations, Waiting

chances = st.floats(0, 1, exclude_max=True)
ages = st.floats(0, 1e6)
settles = st.tuples(st.sampled_from(["a", "b"]), ages, ages).map(lambda s: (s[0], min(s[1:]), max(s[1:])))


@settings(max_examples=300)
@given(
    st.none() | st.floats(1e-3, 1e5),
    st.lists(settles, max_size=30),
    st.builds(Waiting, st.sampled_from(["a", "c"]), ages, st.integers(0, 10_000), st.none() | st.integers(0, 100)),
    chances,
)
def test_every_wait_is_finite_above_zero_and_within_its_cap(
    expected: float | None,
    history: list[tuple[str, float, float]],
    waiting: Waiting,
    u: float,
) -> None:
    """After any history, at any age and progress: at least 0.05 s, and after the first look at most 0.35 x age + 2 s."""
    policy = AdaptivePolling(expected_seconds=expected)
    for settled in history:
        policy.settled(*settled)
    wait = policy.wait(waiting, u)
    assert math.isfinite(wait)
    assert wait >= 0.05
    if waiting.looks:
        assert wait <= (0.35 * waiting.age + 2.0) * 1.05 + 1e-9


@given(st.floats(1e-3, 1e6), ages, st.integers(0, 9), chances)
def test_a_fixed_interval_is_fixed(seconds: float, age: float, looks: int, u: float) -> None:
    """The wait is the interval, whatever the task, and nothing is learned."""
    policy = FixedInterval(seconds)
    policy.settled("a", 1.0, 2.0)
    assert policy.wait(Waiting("a", age, looks), u) == seconds


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, math.inf, -math.inf, "5", True, [5]])
def test_bad_seconds_are_refused_by_name(seconds: Any) -> None:
    """What is no number of seconds above 0 raises, with the value."""
    with pytest.raises(ConfigurationError, match=r"seconds: .* is no number of seconds above 0"):
        FixedInterval(seconds)
    with pytest.raises(ConfigurationError, match=r"expected_seconds: .* is no number of seconds above 0"):
        AdaptivePolling(expected_seconds=seconds)


def test_the_policies_follow_the_protocol() -> None:
    """Both policies can stand where the protocol is asked for."""
    policies: list[PollingPolicy] = [AdaptivePolling(), FixedInterval(1)]
    assert [policy.wait(Waiting("a", 0.0, 0), 0.5) > 0 for policy in policies] == [True, True]


def first_look(policy: PollingPolicy, stratum: str = "a", u: float = 0.5) -> float:
    return policy.wait(Waiting(stratum, 0.0, 0), u)


@pytest.mark.parametrize("seconds", [5.0, 20.0, 200.0, 1000.0])
def test_learning_moves_the_first_look_to_the_durations_that_were_seen(seconds: float) -> None:
    """After a hundred tasks of about `seconds`, the first look comes near it, whatever was expected before."""
    policy = AdaptivePolling(expected_seconds=60)
    random = Random(7)
    for _ in range(100):
        duration = seconds * random.uniform(0.95, 1.05)
        policy.settled("a", duration, duration)
    assert 0.85 * seconds <= first_look(policy) <= 1.1 * seconds


def test_strata_are_learned_apart() -> None:
    """What is learned of one kind of task does not move the looks at another."""
    policy = AdaptivePolling()
    before = first_look(policy, "b")
    for _ in range(50):
        policy.settled("a", 5.0, 5.0)
    assert first_look(policy, "b") == before
    assert first_look(policy, "a") < before / 5


def test_old_durations_are_forgotten() -> None:
    """When tasks become ten times slower, the first look has followed after one window of them."""
    policy = AdaptivePolling()
    for seconds in [10.0] * 300 + [100.0] * 200:
        policy.settled("a", seconds, seconds)
    assert first_look(policy) == pytest.approx(100.0, rel=0.06)


@pytest.mark.parametrize("policy", [AdaptivePolling(), AdaptivePolling(expected_seconds=30)])
def test_a_burst_of_tasks_is_not_looked_at_in_a_burst(policy: AdaptivePolling) -> None:
    """Of 10,000 tasks accepted in one second, no second holds more than a third of the first looks."""
    random = Random(11)
    looks = Counter(
        int(accepted + policy.wait(Waiting("a", 0.0, 0), random.random()))
        for accepted in (random.random() for _ in range(10_000))
    )
    assert sum(looks.values()) == 10_000
    assert max(looks.values()) <= 3_333
    assert len(looks) >= 4


@given(st.floats(5, 500), st.floats(0, 3))
@settings(max_examples=60)
def test_a_task_is_found_out_soon_after_it_settles(expected: float, share: float) -> None:
    """A task of any length up to three times the expectation is seen within 0.4 x its age + 3 s, in few looks."""
    policy = AdaptivePolling(expected_seconds=expected)
    settles_at = share * expected
    age, looks = 0.0, 0
    while True:
        age += policy.wait(Waiting("a", age, looks), 0.5)
        looks += 1
        if age >= settles_at:
            break
    assert age <= max(0.75 * expected, 1.4 * settles_at + 3.0)
    assert looks <= 40


@given(st.lists(st.floats(0, 1e6), max_size=300), st.floats(0, 1))
def test_quantiles_are_of_what_was_seen(seconds: list[float], q: float) -> None:
    """Once enough have settled, every quantile is one of the last 200 durations, and they rise with q."""
    durations = Durations(prior_median=60.0)
    for each in seconds:
        durations.add(each)
    assert len(durations) == min(200, len(seconds))
    value = durations.quantile(q)
    if len(seconds) >= 4:
        assert value in seconds[-200:]
    assert durations.quantile(0.0) <= value <= durations.quantile(1.0)
