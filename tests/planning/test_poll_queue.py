"""When accepted jobs are looked at, in which order, and what is learned of them; time and chance are arguments here."""

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
from pika_async._planning.actions import ActiveJob, PollResult
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_queue import PollQueue
from pika_async._planning.provider_clock import ProviderTimestamps
from pika_async.polling import DurationSample, PollContext, PollingPolicy
from pika_async.providers._verdicts import PollVerdict

NUMBERS = itertools.count()


@attrs.define
class Recording(PollingPolicy):
    """Writes down what it is asked and told; the look at stratum `n` is worth n seconds."""

    asked: list[PollContext] = attrs.Factory(list)
    told: list[DurationSample] = attrs.Factory(list)

    def next_delay(self, context: PollContext, u: float) -> float:
        self.asked.append(context)
        return 10.0

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> Any:
        self.told.append(sample)

    def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
        return float(stratum)


def accepted(poll_queue: PollQueue, now: float, stratum: str = "s", u: float = 0.5, **facts: Any) -> ActiveJob:
    key = f"k{next(NUMBERS)}"
    job = Job(
        key=key, request=GenerationRequest("a"), provider="p", base_url="https://x.example", status=JobStatus.QUEUED,
        task_id=f"t-{key}",
    )  # fmt: skip
    entry = ActiveJob(job, stratum, accepted_at=now, last_seen_unsettled_at=now, deadline_at=now + 1000.0, **facts)
    poll_queue.schedule(entry, now, u)
    return entry


def seen(
    poll_queue: PollQueue, entry: ActiveJob, now: float, state: TaskState, *, percent: int | None = None, u: float = 0.5
) -> None:
    """A look found `entry` unsettled."""
    entry.polls += 1
    snapshot = Snapshot(task_id=str(entry.job.task_id), state=state, progress=percent)
    entry.job = entry.job.with_snapshot(snapshot, now)
    poll_queue.schedule(entry, now, u, PollResult(verdict=PollVerdict.READ, snapshot=snapshot))


def settled(poll_queue: PollQueue, entry: ActiveJob, now: float, **times: Any) -> None:
    poll_queue.record_settled(entry, Snapshot(task_id="t", state=TaskState.SUCCEEDED, **times), now, 0.5)


# --- which is next ------------------------------------------------------------------------------------------------------


def test_the_look_that_ends_most_delay_is_first() -> None:
    """Of all that are due, in whichever order they became so."""
    poll_queue = PollQueue(PolicyAdapter(policy=Recording()))
    for stratum in ("3", "1", "5", "2", "4"):
        accepted(poll_queue, 0.0, stratum)
    assert poll_queue.ready_at(9.0) == 10.0
    assert poll_queue.ready_at(10.0) == 10.0
    taken = [poll_queue.pop(10.0).stratum for _ in range(5)]
    assert taken == ["5", "4", "3", "2", "1"]
    assert poll_queue.ready_at(10.0) == math.inf


def test_the_adaptive_policy_puts_the_likely_settled_before_the_old() -> None:
    """A task of a minute that is two minutes old goes before one of an hour that is older."""
    policy = AdaptivePolling()
    random = Random(3)
    for stratum, median in (("minute", 60.0), ("hour", 3600.0)):
        for _ in range(64):
            seconds = median * math.exp(0.2 * random.gauss(0, 1))
            policy.observe(DurationSample(stratum, 0.97 * seconds, 1.03 * seconds))
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    old, young = accepted(poll_queue, 0.0, "hour"), accepted(poll_queue, 500.0, "minute")
    poll_queue.clear()
    for entry in (old, young):
        poll_queue.push(entry, 600.0)
    poll_queue.ready_at(620.0)
    assert [poll_queue.pop(620.0), poll_queue.pop(620.0)] == [young, old]


@pytest.mark.parametrize("policy", [FixedInterval(10.0), pytest.param(None, id="raises")])
def test_without_a_usable_index_the_longest_unseen_is_first(policy: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A policy need not give one, and one that raises costs no job."""

    class Raises(Recording):
        def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
            raise KeyError(stratum)

    poll_queue = PollQueue(PolicyAdapter(policy=policy or Raises()))
    entries = [accepted(poll_queue, at) for at in (2.0, 0.0, 1.0)]
    poll_queue.ready_at(20.0)
    assert [poll_queue.pop(20.0) for _ in range(3)] == [entries[1], entries[2], entries[0]]
    assert len(caplog.records) == (policy is None)


@pytest.mark.parametrize("now", [1e3, 1e6, 3e6, 2e9])
def test_tasks_that_surely_have_just_settled_end_no_loop(now: float) -> None:
    """On a machine that runs for months its clock rounds away such delays: they must not be weighed for ever."""

    class Tiny(Recording):
        def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
            return 1e-10 * float(stratum)

    poll_queue = PollQueue(PolicyAdapter(policy=Tiny()))
    for number in range(50):
        entry = accepted(poll_queue, now, str(number + 1))
        entry.accepted_at = entry.last_seen_unsettled_at = now + 10.0
    poll_queue.ready_at(now + 10.0)
    assert len({id(poll_queue.pop(now + 10.0)) for _ in range(50)}) == 50


def test_no_stratum_is_put_off_for_ever() -> None:
    """A task that is believed to be slow is looked at while others are due all the time, and long before its belief."""

    class Slow(Recording):
        def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
            return 0.0 if stratum == "slow" else 5.0

    poll_queue = PollQueue(PolicyAdapter(policy=Slow()))
    entry = accepted(poll_queue, 0.0, "slow")
    now = 10.0
    while True:
        accepted(poll_queue, now - 10.0, "quick")
        poll_queue.ready_at(now)
        if poll_queue.pop(now) is entry:
            break
        now += 1.0
        assert now < 300.0
    assert now > 200.0


def test_expired_are_those_that_were_seen_and_are_past_their_deadline() -> None:
    """Wherever they stand among the due; of the others those past their deadline are looked at first."""
    poll_queue = PollQueue(PolicyAdapter(policy=FixedInterval(10.0)))
    entries = [accepted(poll_queue, float(n), polls=n % 2) for n in range(10)]
    for entry, deadline in zip(entries, [20, 20, 30, 30, 99, 99, 20, 20, 30, 99], strict=True):
        entry.deadline_at = float(deadline)
    assert poll_queue.ready_at(19.0) == 19.0
    assert (poll_queue.expires_at, poll_queue.pop_expired(19.0)) == (20.0, None)
    assert poll_queue.ready_at(25.0) == 25.0
    assert {poll_queue.pop_expired(25.0), poll_queue.pop_expired(25.0)} == {entries[1], entries[7]}
    assert (poll_queue.pop_expired(25.0), poll_queue.expires_at) == (None, 30.0)
    left = [entry for entry in entries if entry not in {entries[1], entries[7]}]
    assert sorted(poll_queue, key=entries.index) == left
    late = [entries[0], entries[6]]
    assert [poll_queue.pop(25.0) for _ in left] == late + [entry for entry in left if entry not in late]
    assert list(poll_queue) == []


@given(st.lists(st.tuples(st.floats(0, 50), st.booleans()), max_size=30), st.floats(0, 60))
def test_no_job_is_lost_or_taken_twice(jobs: list[tuple[float, bool]], now: float) -> None:
    """PollContext, due, expired or taken: each is in one of these, once."""
    poll_queue = PollQueue(PolicyAdapter(policy=Recording()))
    entries = []
    for at, was_seen in jobs:
        entry = accepted(poll_queue, at, "1", polls=int(was_seen))
        entry.deadline_at = at + 20.0
        entries.append(entry)
    out = []
    while (past := poll_queue.pop_expired(now)) is not None:
        out.append(past)
    while poll_queue.ready_at(now) <= now:
        out.append(poll_queue.pop(now))
        if (past := poll_queue.pop_expired(now)) is not None:
            out.append(past)
    assert Counter(map(id, [*out, *poll_queue])) == Counter(map(id, entries))
    assert all(entry.accepted_at + 10.0 > now for entry in poll_queue)


# --- when ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "due"), [(None, 20.0), (3.0, 20.0), (10.0, 20.0), (45.0, 55.0), (5000.0, 1000.0)])
def test_a_provider_may_ask_for_a_later_look_and_for_no_sooner_one(asked: float | None, due: float) -> None:
    """Never beyond the deadline, which gets its look."""
    poll_queue = PollQueue(PolicyAdapter(policy=Recording()))
    entry = accepted(poll_queue, 0.0)
    poll_queue.clear()
    entry.polls = 1
    poll_queue.schedule(entry, 10.0, 0.5, PollResult(verdict=PollVerdict.READ, retry_after=asked))
    assert poll_queue.ready_at(10.0) == due


def test_what_a_provider_asked_for_holds_when_tasks_become_quicker() -> None:
    """Looks that are asked for anew come no sooner than it wants them."""

    class Quicker(Recording):
        def replan_delay(self, context: PollContext, u: float) -> float:
            return 10.0

        def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> Any:
            return True

    poll_queue = PollQueue(PolicyAdapter(policy=Quicker()))
    waiting, done = accepted(poll_queue, 0.0), accepted(poll_queue, 0.0)
    poll_queue.clear()
    waiting.polls = 1
    poll_queue.schedule(waiting, 100.0, 0.5, PollResult(verdict=PollVerdict.READ, retry_after=300.0))
    settled(poll_queue, done, 110.0)
    assert poll_queue.ready_at(110.0) == 400.0


@pytest.mark.parametrize(
    ("wait", "due"),
    [(Decimal(5), 5.0), (True, 1.0), ("7", 7.0), *((w, 2.0) for w in (10**400, [5.0], "soon", None, 5j))],
)
def test_whatever_a_policy_gives_the_next_look_is_a_time(wait: Any, due: float) -> None:
    """A number of another kind is taken for what it is worth, what is no number for a pace of our own."""

    class Odd(Recording):
        def next_delay(self, context: PollContext, u: float) -> Any:
            return wait

    poll_queue = PollQueue(PolicyAdapter(policy=Odd()))
    accepted(poll_queue, 0.0)
    assert (type(poll_queue.ready_at(0.0)), poll_queue.ready_at(0.0)) == (float, due)


def test_a_denial_is_no_reading_and_no_sighting() -> None:
    """A gateway that does not know the task yet says nothing of whether it has settled, nor how far it is."""
    policy = Recording()
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    entry = accepted(poll_queue, 0.0)
    seen(poll_queue, entry, 10.0, TaskState.RUNNING, percent=50)
    entry.polls += 1
    poll_queue.schedule(entry, 30.0, 0.5, PollResult(verdict=PollVerdict.MISSING))
    assert policy.asked[-1] == PollContext("s", 30.0, 2, 50, None, 10.0)
    assert (entry.last_seen_unsettled_at, entry.progress_count) == (10.0, 1)


def test_queued_is_a_reading_of_nothing_and_is_told_on_until_another_comes() -> None:
    """At acceptance nothing was read yet; while it runs without a percent the age at which it was queued last is known."""
    policy = Recording()
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    entry = accepted(poll_queue, 0.0)
    seen(poll_queue, entry, 10.0, TaskState.QUEUED)
    seen(poll_queue, entry, 20.0, TaskState.QUEUED)
    seen(poll_queue, entry, 35.0, TaskState.RUNNING)
    seen(poll_queue, entry, 40.0, TaskState.RUNNING, percent=25)
    asked = [(w.age, w.polls, w.last_unsettled_age, w.progress, w.progress_age) for w in policy.asked]
    assert asked == [
        (0.0, 0, None, None, None),
        (10.0, 1, 0.0, 0, 10.0),
        (20.0, 2, 10.0, 0, 20.0),
        (35.0, 3, 20.0, 0, 20.0),
        (40.0, 4, 35.0, 25, 40.0),
    ]


def test_of_a_queue_the_last_reading_is_kept_once_the_task_runs() -> None:
    """From there on it is waited for; while it is queued, one of its readings is picked by chance as any other."""
    for states, kept in ((3 * [TaskState.QUEUED], 10.0), ([*2 * [TaskState.QUEUED], TaskState.RUNNING], 20.0)):
        policy = Recording()
        poll_queue = PollQueue(PolicyAdapter(policy=policy))
        entry = accepted(poll_queue, 0.0)
        for number, state in enumerate(states, 1):
            seen(poll_queue, entry, 10.0 * number, state, u=0.9)
        settled(poll_queue, entry, 50.0)
        assert (policy.told[0].progress, policy.told[0].progress_age) == (0, kept)


def test_each_reading_of_a_task_is_kept_with_the_same_chance() -> None:
    """Of four, whichever chance says, each in about a quarter of the cases."""
    kept: Counter[tuple[float | None, int | None]] = Counter()
    random = Random(8)
    for _ in range(2000):
        policy = Recording()
        poll_queue = PollQueue(PolicyAdapter(policy=policy))
        entry = accepted(poll_queue, 0.0)
        for number in range(1, 5):
            seen(poll_queue, entry, 10.0 * number, TaskState.RUNNING, percent=20 * number, u=random.random())
        settled(poll_queue, entry, 50.0)
        kept[policy.told[0].progress_age, policy.told[0].progress] += 1
    assert set(kept) == {(10.0, 20), (20.0, 40), (30.0, 60), (40.0, 80)}
    assert all(400 < count < 600 for count in kept.values())


# --- what is learned ----------------------------------------------------------------------------------------------------


def test_a_settle_lies_between_the_look_that_found_it_and_the_one_before() -> None:
    policy = Recording()
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    entry = accepted(poll_queue, 100.0)
    seen(poll_queue, entry, 130.0, TaskState.RUNNING)
    settled(poll_queue, entry, 142.0)
    assert policy.told == [DurationSample("s", 30.0, 42.0)]


def test_of_a_job_of_an_earlier_process_nothing_is_learned() -> None:
    """Its age is that of a clock that may have been moved; looks follow it all the same."""
    policy = Recording()
    learned: list[DurationSample] = []
    poll_queue = PollQueue(PolicyAdapter(policy=policy, on_sample=lambda seen, _: learned.append(seen)))
    entry = accepted(poll_queue, 0.0, resumed=True)
    for now in (10.0, 20.0, 30.0):
        seen(poll_queue, entry, now, TaskState.RUNNING)
    settled(poll_queue, entry, 40.0)
    poll_queue.record_censored(entry)
    assert ([waiting.last_unsettled_age for waiting in policy.asked], policy.told, learned) == ([None] * 4, [], [])


def test_exact_times_narrow_what_is_learned_once_they_have_proved_themselves() -> None:
    """Where a provider tells both, to the second, and settles fall all over the intervals between looks."""
    policy = Recording()
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    random = Random(5)
    for _ in range(40):
        entry = accepted(poll_queue, 0.0)
        seen(poll_queue, entry, 50.0, TaskState.RUNNING)
        duration = random.uniform(50.0, 70.0)
        created = random.uniform(1e9, 2e9)
        settled(poll_queue, entry, 70.0, created_at=math.floor(created), updated_at=math.floor(created + duration))
        assert policy.told[-1].lower <= duration <= policy.told[-1].upper
    widths = [one.upper - one.lower for one in policy.told]
    assert widths[:5] == [20.0] * 5
    assert all(width <= 2.0 for width in widths[12:])


@pytest.mark.parametrize("odd", ["soon", math.nan, math.inf, 10**400, [], {}])
def test_times_of_a_third_partys_provider_may_be_anything(odd: Any) -> None:
    """What is no time says nothing, and costs no job."""
    policy = Recording()
    poll_queue = PollQueue(PolicyAdapter(policy=policy))
    for times in ({"created_at": odd, "updated_at": 7.0}, {"created_at": 7.0, "updated_at": odd}):
        entry = accepted(poll_queue, 0.0)
        settled(poll_queue, entry, 40.0, **times)
    assert policy.told == [DurationSample("s", 0.0, 40.0)] * 2


# --- the provider's times -----------------------------------------------------------------------------------------------

ages = st.floats(0, 1e5)


@given(st.lists(st.tuples(ages, ages, st.none() | st.floats(-1e9, 1e9)), max_size=60))
def test_whatever_is_told_the_interval_is_narrowed_and_never_moved(
    rows: list[tuple[float, float, float | None]],
) -> None:
    """The looks are proof; what a provider says only adds to it."""
    stamps = ProviderTimestamps()
    for one, other, told in rows:
        after, before = min(one, other), max(one, other)
        low, high = stamps.narrowed(after, before, told)
        assert after <= low <= high <= before
        assert (low, high) == (after, before) or low < high <= low + 2.0


@pytest.mark.parametrize("told", [lambda after, before: before, lambda after, before: before - 60.0, lambda *_: 0.0])
def test_times_that_mean_something_else_are_never_used(told: Any) -> None:
    """An "updated" that is the time of the look; a "created" that is the start of a late generation; one and the same."""
    stamps = ProviderTimestamps()
    random = Random(2)
    for _ in range(100):
        after = random.uniform(10, 100)
        before = after + random.uniform(0.5, 40)
        assert stamps.narrowed(after, before, told(after, before)) == (after, before)


def test_times_are_doubted_again_when_they_change_their_meaning() -> None:
    """After a hundred good ones a dozen bad ones are enough."""
    stamps = ProviderTimestamps()
    random = Random(2)
    for _ in range(100):
        stamps.narrowed(40.0, 60.0, random.uniform(41, 57))
    assert stamps.narrowed(40.0, 60.0, 50.0) == (49.0, 51.0)
    for _ in range(12):
        stamps.narrowed(40.0, 60.0, 60.0)
    assert stamps.narrowed(40.0, 60.0, 60.0) == (40.0, 60.0)
