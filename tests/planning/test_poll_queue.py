"""The poll queue: when accepted jobs are polled, in which order, and which samples the policy gets."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from decimal import Decimal
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import AdaptivePolling, FixedInterval, GenerationRequest, Job, JobStatus, Snapshot, TaskState
from pika_async._planning.actions import RESUMED, ActiveJob, PollResult
from pika_async._planning.callback_tracker import CallbackTracker
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_queue import PollQueue
from pika_async._planning.provider_clock import ProviderTimestamps
from pika_async.polling import DurationSample, PollContext, PollingPolicy
from pika_async.providers._verdicts import PollVerdict

NUMBERS = itertools.count()


@attrs.define
class Recording(PollingPolicy):
    """Policy that records its contexts and samples; the expected delay of stratum `n` is n seconds."""

    contexts: list[PollContext] = attrs.Factory(list)
    samples: list[DurationSample] = attrs.Factory(list)

    def next_delay(self, context: PollContext, u: float) -> float:
        self.contexts.append(context)
        return 10.0

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> Any:
        self.samples.append(sample)

    def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
        return float(stratum)


def accepted_job(poll_queue: PollQueue, now: float, stratum: str = "s", u: float = 0.5, **facts: Any) -> ActiveJob:
    key = f"k{next(NUMBERS)}"
    job = Job(
        key=key, request=GenerationRequest("a"), provider="p", base_url="https://x.example", status=JobStatus.QUEUED,
        task_id=f"t-{key}",
    )  # fmt: skip
    active = ActiveJob(job, stratum, accepted_at=now, last_seen_unsettled_at=now, deadline_at=now + 1000.0, **facts)
    poll_queue.schedule(active, now, u)
    return active


def poll_unsettled(
    poll_queue: PollQueue,
    active: ActiveJob,
    now: float,
    state: TaskState,
    *,
    percent: int | None = None,
    u: float = 0.5,
) -> None:
    """Poll a job and find it unsettled."""
    active.polls += 1
    snapshot = Snapshot(task_id=str(active.job.task_id), state=state, progress=percent)
    active.job = active.job.with_snapshot(snapshot, now)
    poll_queue.schedule(active, now, u, PollResult(verdict=PollVerdict.READ, snapshot=snapshot))


def poll_settled(poll_queue: PollQueue, active: ActiveJob, now: float, **times: Any) -> None:
    poll_queue.record_settled(active, Snapshot(task_id="t", state=TaskState.SUCCEEDED, **times), now, 0.5)


# --- the next job ------------------------------------------------------------------------------------------------------


def test_the_due_job_with_the_largest_expected_delay_is_first() -> None:
    """In any order of acceptance."""
    poll_queue = PollQueue(PolicyAdapter(policy=Recording()))
    for stratum in ("3", "1", "5", "2", "4"):
        accepted_job(poll_queue, 0.0, stratum)
    assert poll_queue.ready_at(9.0) == 10.0
    assert poll_queue.ready_at(10.0) == 10.0
    popped = [poll_queue.pop(10.0).stratum for _ in range(5)]
    assert popped == ["5", "4", "3", "2", "1"]
    assert poll_queue.ready_at(10.0) == math.inf


def test_the_adaptive_policy_prefers_likely_settled_tasks_to_older_ones() -> None:
    """Of tasks that usually take a minute, one that is two minutes old is polled before an older one that takes an hour."""
    policy = AdaptivePolling()
    random = Random(3)
    for stratum, median in (("minute", 60.0), ("hour", 3600.0)):
        for _ in range(64):
            seconds = median * math.exp(0.2 * random.gauss(0, 1))
            policy.observe(DurationSample(stratum, 0.97 * seconds, 1.03 * seconds))
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    old, young = accepted_job(poll_queue, 0.0, "hour"), accepted_job(poll_queue, 500.0, "minute")
    poll_queue.clear()
    for active in (old, young):
        poll_queue.push(active, 600.0)
    poll_queue.ready_at(620.0)
    assert [poll_queue.pop(620.0), poll_queue.pop(620.0)] == [young, old]


@pytest.mark.parametrize("policy", [FixedInterval(10.0), pytest.param(None, id="raises")])
def test_without_a_usable_expected_delay_the_earliest_polled_job_is_first(
    policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A policy does not have to return one, and no job is lost when it raises."""

    class Raises(Recording):
        def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
            raise KeyError(stratum)

    poll_queue = PollQueue(PolicyAdapter(policy=policy or Raises()))
    active_jobs = [accepted_job(poll_queue, at) for at in (2.0, 0.0, 1.0)]
    poll_queue.ready_at(20.0)
    assert [poll_queue.pop(20.0) for _ in range(3)] == [active_jobs[1], active_jobs[2], active_jobs[0]]
    assert len(caplog.records) == (policy is None)


@pytest.mark.parametrize("now", [1e3, 1e6, 3e6, 2e9])
def test_tiny_expected_delays_do_not_loop_for_ever(now: float) -> None:
    """They are less than the rounding error of a clock that has run for months, so their comparison must have a tolerance."""

    class Tiny(Recording):
        def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
            return 1e-10 * float(stratum)

    poll_queue = PollQueue(PolicyAdapter(policy=Tiny()))
    for number in range(50):
        active = accepted_job(poll_queue, now, str(number + 1))
        active.accepted_at = active.last_seen_unsettled_at = now + 10.0
    poll_queue.ready_at(now + 10.0)
    assert len({id(poll_queue.pop(now + 10.0)) for _ in range(50)}) == 50


def test_no_stratum_starves() -> None:
    """A task with an expected delay of 0 is polled after some time, although others are due all the time."""

    class Slow(Recording):
        def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
            return 0.0 if stratum == "slow" else 5.0

    poll_queue = PollQueue(PolicyAdapter(policy=Slow()))
    active = accepted_job(poll_queue, 0.0, "slow")
    now = 10.0
    while True:
        accepted_job(poll_queue, now - 10.0, "quick")
        poll_queue.ready_at(now)
        if poll_queue.pop(now) is active:
            break
        now += 1.0
        assert now < 300.0
    assert now > 200.0


def test_only_jobs_that_were_polled_expire() -> None:
    """At any position among the due jobs; those past their deadline without a poll are then polled first."""
    poll_queue = PollQueue(PolicyAdapter(policy=FixedInterval(10.0)))
    active_jobs = [accepted_job(poll_queue, float(n), polls=n % 2) for n in range(10)]
    for active, deadline in zip(active_jobs, [20, 20, 30, 30, 99, 99, 20, 20, 30, 99], strict=True):
        active.deadline_at = float(deadline)
    assert poll_queue.ready_at(19.0) == 19.0
    assert (poll_queue.expires_at, poll_queue.pop_expired(19.0)) == (20.0, None)
    assert poll_queue.ready_at(25.0) == 25.0
    assert {poll_queue.pop_expired(25.0), poll_queue.pop_expired(25.0)} == {active_jobs[1], active_jobs[7]}
    assert (poll_queue.pop_expired(25.0), poll_queue.expires_at) == (None, 30.0)
    left = [active for active in active_jobs if active not in {active_jobs[1], active_jobs[7]}]
    assert sorted(poll_queue, key=active_jobs.index) == left
    late = [active_jobs[0], active_jobs[6]]
    assert [poll_queue.pop(25.0) for _ in left] == late + [active for active in left if active not in late]
    assert list(poll_queue) == []


@given(st.lists(st.tuples(st.floats(0, 50), st.booleans()), max_size=30), st.floats(0, 60))
def test_no_job_is_lost_or_popped_twice(jobs: list[tuple[float, bool]], now: float) -> None:
    """Each job is waiting, due, expired or popped, and only one of these."""
    poll_queue = PollQueue(PolicyAdapter(policy=Recording()))
    active_jobs = []
    for at, was_polled in jobs:
        active = accepted_job(poll_queue, at, "1", polls=int(was_polled))
        active.deadline_at = at + 20.0
        active_jobs.append(active)
    removed = []
    while (expired := poll_queue.pop_expired(now)) is not None:
        removed.append(expired)
    while poll_queue.ready_at(now) <= now:
        removed.append(poll_queue.pop(now))
        if (expired := poll_queue.pop_expired(now)) is not None:
            removed.append(expired)
    assert Counter(map(id, [*removed, *poll_queue])) == Counter(map(id, active_jobs))
    assert all(active.accepted_at + 10.0 > now for active in poll_queue)


# --- the time of a poll ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_after", "due"), [(None, 20.0), (3.0, 20.0), (10.0, 20.0), (45.0, 55.0), (5000.0, 1000.0)]
)
def test_a_provider_may_delay_a_poll_but_not_advance_it(retry_after: float | None, due: float) -> None:
    """The delay ends at the deadline, at which there is a poll."""
    poll_queue = PollQueue(PolicyAdapter(policy=Recording()))
    active = accepted_job(poll_queue, 0.0)
    poll_queue.clear()
    active.polls = 1
    poll_queue.schedule(active, 10.0, 0.5, PollResult(verdict=PollVerdict.READ, retry_after=retry_after))
    assert poll_queue.ready_at(10.0) == due


def test_the_delay_of_a_provider_holds_when_tasks_become_quicker() -> None:
    """Polls that are planned again are not sooner than the provider asked for."""

    class Quicker(Recording):
        def replan_delay(self, context: PollContext, u: float) -> float:
            return 10.0

        def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> Any:
            return True

    poll_queue = PollQueue(PolicyAdapter(policy=Quicker()))
    waiting, done = accepted_job(poll_queue, 0.0), accepted_job(poll_queue, 0.0)
    poll_queue.clear()
    waiting.polls = 1
    poll_queue.schedule(waiting, 100.0, 0.5, PollResult(verdict=PollVerdict.READ, retry_after=300.0))
    poll_settled(poll_queue, done, 110.0)
    assert poll_queue.ready_at(110.0) == 400.0


@pytest.mark.parametrize(
    ("delay", "due"),
    [(Decimal(5), 5.0), (True, 1.0), ("7", 7.0), *((w, 2.0) for w in (10**400, [5.0], "soon", None, 5j))],
)
def test_any_value_of_a_policy_gives_a_finite_time(delay: Any, due: float) -> None:
    """A number of another type is converted; any other value is replaced by the default delay."""

    class Odd(Recording):
        def next_delay(self, context: PollContext, u: float) -> Any:
            return delay

    poll_queue = PollQueue(PolicyAdapter(policy=Odd()))
    accepted_job(poll_queue, 0.0)
    assert (type(poll_queue.ready_at(0.0)), poll_queue.ready_at(0.0)) == (float, due)


def test_a_not_found_answer_changes_neither_age_nor_progress() -> None:
    """A gateway that does not find the task yet reports neither that it is unsettled nor its progress."""
    policy = Recording()
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    active = accepted_job(poll_queue, 0.0)
    poll_unsettled(poll_queue, active, 10.0, TaskState.RUNNING, percent=50)
    active.polls += 1
    poll_queue.schedule(active, 30.0, 0.5, PollResult(verdict=PollVerdict.MISSING))
    assert policy.contexts[-1] == PollContext("s", 30.0, 2, 50, None, 10.0)
    assert (active.last_seen_unsettled_at, active.progress_count) == (10.0, 1)


def test_a_queued_task_has_a_progress_of_0_until_another_is_reported() -> None:
    """Before the first poll it has none; while it runs without a percent, it keeps the last age at which it was queued."""
    policy = Recording()
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    active = accepted_job(poll_queue, 0.0)
    poll_unsettled(poll_queue, active, 10.0, TaskState.QUEUED)
    poll_unsettled(poll_queue, active, 20.0, TaskState.QUEUED)
    poll_unsettled(poll_queue, active, 35.0, TaskState.RUNNING)
    poll_unsettled(poll_queue, active, 40.0, TaskState.RUNNING, percent=25)
    contexts = [(c.age, c.polls, c.last_unsettled_age, c.progress, c.progress_age) for c in policy.contexts]
    assert contexts == [
        (0.0, 0, None, None, None),
        (10.0, 1, 0.0, 0, 10.0),
        (20.0, 2, 10.0, 0, 20.0),
        (35.0, 3, 20.0, 0, 20.0),
        (40.0, 4, 35.0, 25, 40.0),
    ]


def test_the_last_queued_progress_is_sampled_once_the_task_runs() -> None:
    """While the task is still queued, one of its progress values is sampled at random, as any other."""
    for states, kept in ((3 * [TaskState.QUEUED], 10.0), ([*2 * [TaskState.QUEUED], TaskState.RUNNING], 20.0)):
        policy = Recording()
        poll_queue = PollQueue(PolicyAdapter(policy=policy))
        active = accepted_job(poll_queue, 0.0)
        for number, state in enumerate(states, 1):
            poll_unsettled(poll_queue, active, 10.0 * number, state, u=0.9)
        poll_settled(poll_queue, active, 50.0)
        assert (policy.samples[0].progress, policy.samples[0].progress_age) == (0, kept)


def test_each_progress_of_a_task_is_sampled_with_the_same_probability() -> None:
    """Each of four in about a quarter of the cases."""
    kept: Counter[tuple[float | None, int | None]] = Counter()
    random = Random(8)
    for _ in range(2000):
        policy = Recording()
        poll_queue = PollQueue(PolicyAdapter(policy=policy))
        active = accepted_job(poll_queue, 0.0)
        for number in range(1, 5):
            poll_unsettled(poll_queue, active, 10.0 * number, TaskState.RUNNING, percent=20 * number, u=random.random())
        poll_settled(poll_queue, active, 50.0)
        kept[policy.samples[0].progress_age, policy.samples[0].progress] += 1
    assert set(kept) == {(10.0, 20), (20.0, 40), (30.0, 60), (40.0, 80)}
    assert all(400 < count < 600 for count in kept.values())


# --- samples ----------------------------------------------------------------------------------------------------


def test_a_sample_lies_between_the_poll_that_found_it_settled_and_the_one_before() -> None:
    """Its bounds are the ages of the job at these two polls."""
    policy = Recording()
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    active = accepted_job(poll_queue, 100.0)
    poll_unsettled(poll_queue, active, 130.0, TaskState.RUNNING)
    poll_settled(poll_queue, active, 142.0)
    assert policy.samples == [DurationSample("s", 30.0, 42.0)]


def test_a_job_of_an_earlier_process_gives_no_sample() -> None:
    """Its age comes from a clock that may have been moved; it is still the age in its contexts."""
    policy = Recording()
    learned: list[DurationSample] = []
    poll_queue = PollQueue(PolicyAdapter(policy=policy, on_sample=lambda sample, _: learned.append(sample)))
    active = accepted_job(poll_queue, 0.0, rare=RESUMED)
    for now in (10.0, 20.0, 30.0):
        poll_unsettled(poll_queue, active, now, TaskState.RUNNING)
    poll_settled(poll_queue, active, 40.0)
    poll_queue.record_censored(active)
    assert ([context.last_unsettled_age for context in policy.contexts], policy.samples, learned) == (
        [None] * 4,
        [],
        [],
    )


def test_timestamps_narrow_samples_after_they_pass_the_tests() -> None:
    """When a provider sends both, and tasks settle at random times between the polls."""
    policy = Recording()
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    random = Random(5)
    for _ in range(40):
        active = accepted_job(poll_queue, 0.0)
        poll_unsettled(poll_queue, active, 50.0, TaskState.RUNNING)
        duration = random.uniform(50.0, 70.0)
        created = random.uniform(1e9, 2e9)
        poll_settled(
            poll_queue, active, 70.0, created_at=math.floor(created), updated_at=math.floor(created + duration)
        )
        assert policy.samples[-1].lower <= duration <= policy.samples[-1].upper
    widths = [one.upper - one.lower for one in policy.samples]
    assert widths[:5] == [20.0] * 5
    assert all(width <= 2.0 for width in widths[12:])


@pytest.mark.parametrize("odd", ["soon", math.nan, math.inf, 10**400, [], {}])
def test_timestamps_of_a_third_party_provider_may_have_any_type(odd: Any) -> None:
    """A value that is not a time is ignored, and no job is lost."""
    policy = Recording()
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    for times in ({"created_at": odd, "updated_at": 7.0}, {"created_at": 7.0, "updated_at": odd}):
        active = accepted_job(poll_queue, 0.0)
        poll_settled(poll_queue, active, 40.0, **times)
    assert policy.samples == [DurationSample("s", 0.0, 40.0)] * 2


# --- provider timestamps -----------------------------------------------------------------------------------------------

ages = st.floats(0, 1e5)


@given(st.lists(st.tuples(ages, ages, st.none() | st.floats(-1e9, 1e9)), max_size=60))
def test_any_duration_only_narrows_the_interval(
    rows: list[tuple[float, float, float | None]],
) -> None:
    """The result lies within the ages of the two polls."""
    timestamps = ProviderTimestamps()
    for one, other, duration in rows:
        lower, upper = min(one, other), max(one, other)
        low, high = timestamps.narrowed(lower, upper, duration)
        assert lower <= low <= high <= upper
        assert (low, high) == (lower, upper) or low < high <= low + 2.0


@pytest.mark.parametrize("duration_of", [lambda _, upper: upper, lambda _, upper: upper - 60.0, lambda *_: 0.0])
def test_timestamps_with_another_meaning_are_never_used(duration_of: Any) -> None:
    """When "updated" is the time of the poll, "created" the start of a late generation, or both are equal."""
    timestamps = ProviderTimestamps()
    random = Random(2)
    for _ in range(100):
        lower = random.uniform(10, 100)
        upper = lower + random.uniform(0.5, 40)
        assert timestamps.narrowed(lower, upper, duration_of(lower, upper)) == (lower, upper)


def test_timestamps_are_no_longer_used_when_their_meaning_changes() -> None:
    """A dozen bad ones are enough after a hundred good ones."""
    timestamps = ProviderTimestamps()
    random = Random(2)
    for _ in range(100):
        timestamps.narrowed(40.0, 60.0, random.uniform(41, 57))
    assert timestamps.narrowed(40.0, 60.0, 50.0) == (49.0, 51.0)
    for _ in range(12):
        timestamps.narrowed(40.0, 60.0, 60.0)
    assert timestamps.narrowed(40.0, 60.0, 60.0) == (40.0, 60.0)


def test_the_first_poll_of_a_resumed_job_is_not_postponed() -> None:
    """Its callback may have come while no process was there, so that silence says nothing about it."""
    callbacks = CallbackTracker(enabled=True)
    queue = PollQueue(PolicyAdapter(policy=AdaptivePolling(expected_seconds=600.0), callbacks=callbacks))
    active = accepted_job(queue, 990.0)
    queue.clear()
    active.rare = RESUMED
    queue.resume(active, 1000.0, 0.5)
    assert queue.ready_at(1000.0) == 1000.5
    for _ in range(100):
        callbacks.loss.add(notified=True)
    assert queue.ready_at(1000.5) == 1000.5
    assert queue.pop(1000.5) is active
