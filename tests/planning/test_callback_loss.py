"""Polls while most callbacks arrive: fewer, in proportion to the square root of the loss, and at the right times."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import AdaptivePolling, DurationSample, FixedInterval, PollContext
from pika_async.polling.schedule import FLOOR_SECONDS

LOSSES = st.floats(1e-4, 1.0)


def trained_policy(count: int = 200, sigma: float = 0.5) -> AdaptivePolling:
    """Return a policy that has learned `count` durations of about a minute."""
    policy, random = AdaptivePolling(), Random(5)
    for _ in range(count):
        duration = 60 * math.exp(sigma * random.gauss(0, 1))
        policy.observe(DurationSample("s", duration * 0.97, duration))
    return policy


def polls_of(policy: AdaptivePolling, duration: float, loss: float) -> tuple[int, float]:
    """Return the number of polls that find a task unsettled, and the delay of the poll that finds it settled."""
    age, polls = 0.0, 0
    while True:
        age += policy.replan_delay(PollContext("s", age, polls, callback_loss=loss), 0.5)
        if age >= duration:
            return polls, age - duration
        polls += 1


def test_a_lower_loss_causes_fewer_polls() -> None:
    """Completions without a callback are then found later; for each loss its own schedule has the lowest cost."""
    policy, random = trained_policy(), Random(7)
    durations = [60 * math.exp(0.5 * random.gauss(0, 1)) for _ in range(300)]
    found = {loss: [polls_of(policy, each, loss) for each in durations] for loss in (1.0, 0.1, 0.01, 0.001)}
    polls = [sum(count for count, _ in each) / 300 for each in found.values()]
    delays = [sum(delay for _, delay in each) / 300 for each in found.values()]
    assert polls == sorted(polls, reverse=True)
    assert delays == sorted(delays)
    assert polls[0] > 5
    assert polls[-1] < 0.2
    assert delays[1] * 0.1 < delays[0]  # averaged over all tasks, those with a callback included
    for loss, own in zip(found, range(4), strict=True):
        cost = [count + loss * 200 / 60 * delay for count, delay in zip(polls, delays, strict=True)]
        assert min(cost) > 0.9 * cost[own]


@given(LOSSES, st.floats(0, 1e5), st.integers(0, 50), st.floats(0, 0.999))
def test_every_delay_is_finite_and_above_the_minimum(loss: float, age: float, polls: int, u: float) -> None:
    """For any loss, age and number of polls."""
    for policy in (AdaptivePolling(), FixedInterval(3.0)):
        for ask in (policy.next_delay, policy.replan_delay):
            delay = ask(PollContext("s", age, polls, callback_loss=loss), u)
            assert FLOOR_SECONDS <= delay < math.inf


@given(LOSSES)
def test_a_fixed_interval_is_divided_by_the_square_root_of_the_loss(loss: float) -> None:
    """With callbacks, the interval is longer."""
    context = PollContext("s", 0.0, 0, callback_loss=loss)
    assert FixedInterval(2.0).next_delay(context, 0.5) == pytest.approx(2.0 / math.sqrt(loss))


def test_silence_counts_as_a_poll_that_found_a_task_unsettled() -> None:
    """Without a callback for a task by some age, the policy learns the same as from a poll at that age."""
    polled, silent = AdaptivePolling(), AdaptivePolling()
    for policy in (polled, silent):
        for _ in range(100):
            policy.next_delay(PollContext("s", 0.0, 0), 0.5)
        for _ in range(10):
            policy.observe(DurationSample("s", 9.0, 10.0), 0.0)
    for _ in range(90):
        polled.next_delay(PollContext("s", 12.0, 1, last_unsettled_age=0.0), 0.5)
        silent.observe_unsettled("s", 0.0, 12.0)
    assert polled.describe()["s"].median == silent.describe()["s"].median > 12


def test_the_loss_is_part_of_the_description() -> None:
    """`describe` gives the callback loss as a reason for the delays; `medians` is empty before the first sample."""
    policy = trained_policy(20)
    policy.next_delay(PollContext("s", 0.0, 0, callback_loss=0.02), 0.5)
    assert "2 % of completions come without a callback" in policy.describe()["s"].why
    assert policy.medians() == {"s": pytest.approx(60, rel=0.3)}
    assert AdaptivePolling().medians() == {}
