"""Delays, deadlines and counts of the planner, as numbers: patience, waits, breakers, and how long a hint holds."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from pika_async import DeadlineExceeded, JobStatus, Limits, TaskState
from pika_async._planning.actions import (
    RESUMED,
    ActiveJob,
    CallbackTimedOut,
    Poll,
    PollResult,
    SubmitTimedOut,
    WaitUntil,
)
from pika_async._planning.backoff import backoff_delay
from pika_async._planning.callback_tracker import CallbackTracker
from pika_async._planning.limits import CircuitBreaker, SubmitThrottle
from pika_async._planning.planner import Planner
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_queue import PollQueue
from pika_async.polling import FixedInterval
from pika_async.providers._verdicts import PollVerdict, SubmitVerdict
from tests.fakes.only_account import only
from tests.planning.planner_steps import (
    accepted_job,
    finish_poll,
    finish_submit,
    new_planner,
    next_time,
    poll,
    queued_job,
    start_poll,
    start_submit,
)  # fmt: skip

LAST = 1 - 1e-12  # the longest of a jittered delay


def test_a_job_is_submitted_for_15_minutes_from_its_first_attempt() -> None:
    """Neither an attempt nor a pause in between begins them anew; at 900 s it is given up."""
    assert Limits().patience == 900.0
    planner = new_planner()
    active = queued_job(planner)
    now = 100.0
    while now < 1000.0:
        assert start_submit(planner, now) is active
        finish_submit(planner, active, SubmitVerdict.WAIT, now, http_status=429, retry_after=90.0)
        now = next_time(planner, now)
    assert now == 1000.0
    action = planner.next_action(now)
    assert isinstance(action, SubmitTimedOut)
    assert action.active is active


def planner_with_callbacks(deadline: float = 3600.0) -> Planner:
    planner = new_planner(deadline=deadline)
    adapter = PolicyAdapter(policy=FixedInterval(10.0), callbacks=CallbackTracker(enabled=True))
    only(planner).poll_queue = PollQueue(adapter)
    return planner


@pytest.mark.parametrize("longest, waits", [(0.0, 600.0), (50.0, 100.0), (1000.0, 2000.0), (5000.0, 3600.0)])
def test_a_doubt_waits_for_its_callback_for_10_minutes_or_twice_the_longest_duration(
    longest: float, waits: float
) -> None:
    """Never longer than the deadline of a job."""
    planner = planner_with_callbacks()
    only(planner).poll_queue.adapter.longest = longest
    queued_job(planner)
    active = start_submit(planner, 10.0)
    finish_submit(planner, active, SubmitVerdict.UNKNOWN, 10.0)
    assert only(planner).await_callback(active, 10.0)
    assert next_time(planner, 10.0) == 10.0 + waits
    assert isinstance(planner.next_action(10.0 + waits), CallbackTimedOut)


def test_a_second_doubt_of_a_job_waits_as_long_as_the_first() -> None:
    """Its time begins with the second one, behind the doubts that came before."""
    planner = planner_with_callbacks()
    for _ in range(2):
        queued_job(planner)
    first, second = start_submit(planner, 0.0), start_submit(planner, 0.0)
    for active in (first, second):
        finish_submit(planner, active, SubmitVerdict.UNKNOWN, 0.0)
    assert only(planner).await_callback(first, 0.0)
    assert only(planner).await_callback(second, 50.0)
    assert only(planner).await_callback(first, 100.0)
    assert next_time(planner, 100.0) == 650.0


def test_the_breaker_waits_at_most_a_minute() -> None:
    """Its pauses double from 1 s to 60 s."""
    breaker = CircuitBreaker()
    now, pauses = 0.0, []
    for _ in range(8):
        breaker.fail(now, LAST)
    for _ in range(9):
        pauses.append(round(breaker.ready_at(now) - now, 6))
        now = breaker.ready_at(now)
        assert breaker.begin()
        breaker.fail(now, LAST, probe=True)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_throttle_waits_at_most_30_seconds_by_itself() -> None:
    """Its pauses double from 0.5 s to 30 s, and from 0.5 s again after an answer of another kind."""
    throttle = SubmitThrottle()
    now, pauses = 0.0, []
    for step in range(9):
        if step == 8:
            throttle.reset()
        throttle.pause(now, LAST, None)
        pauses.append(round(throttle.ready_at(now) - now, 6))
        now = throttle.ready_at(now)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 0.5]
    throttle.pause(now, LAST, 250.0)
    assert throttle.ready_at(now) == now + 250.0


def test_polls_of_one_job_that_fail_are_at_most_a_minute_apart() -> None:
    """The delays double from 1 s to 60 s; a good answer ends them."""
    planner = new_planner(deadline=10_000.0)
    only(planner).breaker.threshold = 100
    accepted_job(planner, 0.0)
    now, delays = 10.0, []
    for _ in range(9):
        active = start_poll(planner, now)
        planner.on_poll_finished(active, PollResult(verdict=PollVerdict.AGAIN), now, now, LAST)
        delays.append(round(next_time(planner, now) - now, 6))
        now = next_time(planner, now)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    poll(planner, now, TaskState.RUNNING)
    assert next_time(planner, now) == now + 10.0


def test_a_refused_credential_on_polls_opens_the_breaker() -> None:
    """Answers of 401, 402 and 403 count as failures of the provider; after eight in a row no poll is due at once."""
    planner = new_planner()
    for _ in range(9):
        accepted_job(planner, 0.0)
    for count in range(8):
        assert not only(planner).breaker.is_open, count
        poll(planner, 10.0, None, PollVerdict.STOP)
    assert only(planner).breaker.is_open
    assert isinstance(planner.next_action(10.0), WaitUntil)


def test_a_resumed_job_has_a_whole_deadline() -> None:
    """However old it is: it is polled by its age, at most that of a job at its deadline, and parked a deadline later."""
    for age in (-50.0, 0.0, 500.0, 86_400.0):
        planner = new_planner(deadline=1000.0)
        active = ActiveJob(queued_job(new_planner()).job.submitting().accepted("t", 0.0), "s")
        planner.resume(active, age, 5000.0, 0.5)
        assert (active.accepted_at, active.deadline_at) == (5000.0 - min(max(age, 0.0), 1000.0), 6000.0), age
        now = 5001.0
        while active.job.is_in_flight:
            assert now <= 6000.0
            poll(planner, now, TaskState.RUNNING)
            now = next_time(planner, now) if active.job.is_in_flight else now
        assert (now, active.job.status, type(active.job.error)) == (6000.0, JobStatus.TIMED_OUT, DeadlineExceeded)


def test_polls_are_counted_over_processes_and_once() -> None:
    """The polls of this process are added to those in the journal; a second call adds nothing."""
    planner = new_planner()
    active = accepted_job(planner, 0.0)
    active.job = attrs.evolve(active.job, polls=7)
    for now in (10.0, 20.0):
        poll(planner, now, TaskState.RUNNING)
    assert [only(planner).with_poll_count(active).polls for _ in range(2)] == [9, 9]
    assert poll(planner, 30.0, TaskState.SUCCEEDED).polls == 10


def test_a_charge_that_was_none_is_given_back() -> None:
    """With a limit of one charge, the next job is sent after the doubt was resolved as not charged."""
    planner = new_planner(max_charges=1)
    queued_job(planner)
    active = start_submit(planner, 0.0)
    finish_submit(planner, active, SubmitVerdict.UNKNOWN, 0.0)
    queued_job(planner)
    planner.on_cost(active.job, active.job.requeued())
    assert start_submit(planner, 1.0)


def test_the_hint_of_a_server_holds_for_one_poll() -> None:
    """The delay that an answer asks for is not kept for the next answer, which asks for none."""
    planner = new_planner()
    accepted_job(planner, 0.0)
    poll(planner, 10.0, TaskState.RUNNING, retry_after=120.0)
    assert next_time(planner, 10.0) == 130.0
    poll(planner, 130.0, TaskState.RUNNING)
    assert next_time(planner, 130.0) == 140.0
    assert only(planner).poll_queue._provider_delay == 0.0


def test_a_failed_poll_is_not_replanned_when_tasks_become_quicker() -> None:
    """Its backoff holds: the gateway has trouble, and the policy knows nothing of it."""

    class Quick(FixedInterval):
        def observe(self, sample: Any, last_unsettled_age: float | None = None) -> Any:
            return True

        def replan_delay(self, context: Any, u: float) -> float:
            return 0.1

    planner = new_planner(policy=Quick(10.0))
    failing, other = accepted_job(planner, 0.0), accepted_job(planner, 0.0)
    for active in (start_poll(planner, 10.0), start_poll(planner, 10.0)):
        if active is failing:
            active.failed_polls = 6
            finish_poll(planner, active, 10.0, None, PollVerdict.AGAIN)
        else:
            finish_poll(planner, active, 10.0, TaskState.RUNNING)
    planned = failing.next_poll_at
    assert planned == 10.0 + backoff_delay(6, 0.5, first=1.0, cap=60.0)
    action = planner.next_action(20.0)
    assert isinstance(action, Poll)
    assert action.active is other
    planner.on_poll_started(other, 20.0)
    finish_poll(planner, other, 20.0, TaskState.SUCCEEDED)
    assert failing.next_poll_at == planned


def test_callbacks_of_one_job_cause_a_poll_every_five_seconds_at_most() -> None:
    """The first causes a poll at once, one a second later is answered five seconds after that poll."""
    tracker, active = CallbackTracker(enabled=True), _accepted()
    assert tracker.on_callback(active, 100.0) == 100.0
    tracker.on_poll_started(active, 100.0)
    assert tracker.on_callback(active, 101.0) == 105.0


@pytest.mark.parametrize("age, grace", [(5.0, 0.5), (20.0, 2.0), (500.0, 2.0)])
def test_a_late_callback_has_two_seconds_or_a_tenth_of_the_age(age: float, grace: float) -> None:
    """The shorter of the two, counted from the poll that found the task settled; then it counts as lost."""
    tracker, active = CallbackTracker(enabled=True), _accepted()
    tracker.on_settled(active, active.accepted_at + age)
    assert tracker.ready_at == pytest.approx(active.accepted_at + age + grace)


def _accepted() -> ActiveJob:
    return accepted_job(new_planner(), 50.0)


def test_a_resumed_job_that_settles_leaves_no_callback_behind() -> None:
    """Its callbacks are forgotten with it, although its duration is not learned."""
    planner = planner_with_callbacks()
    active = accepted_job(planner, 0.0)
    active.rare = RESUMED
    only(planner).on_callback(active, 5.0)
    poll(planner, 5.0, TaskState.SUCCEEDED)
    assert only(planner).poll_queue.callbacks._pending == {}
