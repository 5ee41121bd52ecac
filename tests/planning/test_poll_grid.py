"""Common ticks of polls: how long they are, and which one a poll gets."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import FixedInterval, GenerationRequest, Job
from pika_async._planning.actions import ActiveJob
from pika_async._planning.callback_tracker import CallbackTracker
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_grid import MAX_TICK_S, MAX_TICK_SHARE, align, tick
from pika_async._planning.poll_queue import PollQueue
from pika_async.models import TaskState
from pika_async.polling.durations import DurationSample
from pika_async.polling.policy import PollContext, PollingPolicy
from tests.planning.planner_steps import accepted_job, new_planner, next_time, poll

ages = st.floats(0.001, 1e6)


@given(ages)
def test_a_tick_is_short_beside_the_age(age: float) -> None:
    """It is a power of two, at most a quarter of a second and 2 % of the age, and more than half of the lesser."""
    longest = min(MAX_TICK_S, MAX_TICK_SHARE * age)
    assert longest / 2 < tick(age) <= longest
    assert math.frexp(tick(age))[0] == 0.5


@given(ages, ages)
def test_tasks_of_every_age_meet(one: float, other: float) -> None:
    """Each tick of the older task is one of the younger task as well."""
    assert (tick(max(one, other)) / tick(min(one, other))).is_integer()


@given(st.floats(0, 1e6), ages, st.floats(0, 100))
def test_a_poll_gets_the_nearest_tick_from_its_earliest_time_on(now: float, age: float, delay: float) -> None:
    """It moves by half a tick at most; where that would be too early, it gets the first tick after."""
    due, step = now + delay, tick(age)
    moved = align(due, age, now)
    assert moved >= now
    assert (moved / step).is_integer()
    assert abs(moved - due) <= step / 2 or (moved - now <= step and now > due - step / 2)


def test_polls_are_as_often_early_as_late() -> None:
    """The mean delay that the policy planned for holds."""
    dues = [random.Random(number).uniform(100, 110) for number in range(2000)]
    moved = [align(due, 60.0, 0.0) for due in dues]
    assert abs(sum(moved) - sum(dues)) / len(dues) < 0.01
    assert len(set(moved)) <= 41, "the polls of ten seconds must leave at their 41 ticks"


def test_a_time_without_an_end_and_a_task_without_an_age_have_no_tick() -> None:
    """Infinity stays, and a task that was accepted this moment is polled when it is due."""
    assert (align(math.inf, math.inf, 0.0), align(3.3, 0.0, 0.0), tick(0.0)) == (math.inf, 3.3, 0.0)


def test_a_provider_is_not_polled_before_it_asks_to_be() -> None:
    """The time of a `Retry-After` is an earliest time: the poll gets the tick after it, not the nearest."""
    planner = new_planner(max_in_flight=1)
    accepted_job(planner, 0.0)
    poll(planner, 100.0, TaskState.RUNNING, retry_after=60.03)
    assert next_time(planner, 100.0) == 160.25


def test_a_short_delay_stays_a_delay() -> None:
    """A policy that polls an old task every 0.05 s waits at least half of that between two polls."""

    class Eager(PollingPolicy):
        def next_delay(self, context: PollContext, u: float) -> float:
            return 0.05

        def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
            pass

    planner = new_planner(policy=Eager(), max_in_flight=1)
    accepted_job(planner, 0.0)
    now = next_time(planner, 0.0)
    for _ in range(200):
        poll(planner, now, TaskState.RUNNING)
        later = next_time(planner, now)
        assert later - now >= 0.025
        now = later


def test_a_postponed_poll_leaves_later_than_now() -> None:
    """Where a poll is postponed by less than half a tick, the next tick is taken, not the one of this moment."""

    calls = itertools.count()

    class Postponing(FixedInterval):
        def replan_delay(self, context: PollContext, u: float) -> float:
            if next(calls) > 10:
                pytest.fail("the poll is postponed to this moment, again and again")
            return 10.05

    callbacks = CallbackTracker(enabled=True)
    poll_queue = PollQueue(PolicyAdapter(policy=Postponing(10.0), callbacks=callbacks))
    job = Job(key="k", request=GenerationRequest("a"), provider="p", base_url="https://x.example", task_id="t")
    active = ActiveJob(job, "s", accepted_at=0.0, last_seen_unsettled_at=0.0, deadline_at=300.0)
    poll_queue.push(active, 10.0)
    assert poll_queue.ready_at(10.0) == 10.125
