"""Callbacks and looks in any order: no accepted job is lost, none is looked at twice at once, nothing is kept for ever."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pika_async import AdaptivePolling, FixedInterval, GenerationRequest, Job, JobStatus, Snapshot, TaskState
from pika_async._planning.actions import ActiveJob, PollResult
from pika_async._planning.callback_loss import MEMORY_SAMPLES, MEMORY_TASKS, CallbackLossEstimator
from pika_async._planning.callback_tracker import GRACE_S, MIN_POLL_SPACING_S, CallbackTracker
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_queue import PollQueue
from pika_async.polling import DurationSample, PollContext, PollingPolicy
from pika_async.providers._verdicts import PollVerdict

NUMBERS = itertools.count()
UNSETTLED = Snapshot(task_id="t", state=TaskState.RUNNING)
SETTLED = Snapshot(task_id="t", state=TaskState.SUCCEEDED)
DEADLINE = 300.0


def entry_at(now: float, stratum: str = "s") -> ActiveJob:
    job = Job(
        key=f"k{next(NUMBERS)}", request=GenerationRequest("a"), provider="p", base_url="https://x.example",
        status=JobStatus.QUEUED, task_id="t",
    )  # fmt: skip
    return ActiveJob(job, stratum, accepted_at=now, last_seen_unsettled_at=now, deadline_at=now + DEADLINE)


class Awkward(PollingPolicy):
    """A policy whose every method fails now and then, or gives a number of an odd kind."""

    def __init__(self) -> None:
        self.answers = itertools.cycle([1.0, math.nan, 60, -1, math.inf, 1e300, True, "7", None, 1e-300])

    def _answer(self) -> Any:
        answer = next(self.answers)
        if answer is None:
            raise ZeroDivisionError
        return answer

    def next_delay(self, context: PollContext, u: float) -> float:
        return self._answer()  # type: ignore[no-any-return]

    replan_delay = next_delay

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> Any:
        return self._answer()

    def observe_unsettled(self, stratum: str, last_unsettled_age: float, age: float) -> None:
        self._answer()

    def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
        return self._answer()  # type: ignore[no-any-return]


class Lookouts(RuleBasedStateMachine):
    """A lookout whose jobs are accepted, called, looked at, settled, expired, parked; and what must be of them."""

    @initialize(policy=st.sampled_from([AdaptivePolling, lambda: FixedInterval(7.0), Awkward]))
    def begin(self, policy: Any) -> None:
        self.now = 1e6
        self.poll_queue = PollQueue(PolicyAdapter(policy=policy(), callbacks=CallbackTracker(enabled=True)))
        self.waiting: list[ActiveJob] = []
        self.looking: list[ActiveJob] = []
        self.gone: list[ActiveJob] = []
        #: When a look that a callback had caused last began.
        self.called_at: dict[ActiveJob, float] = {}

    @rule(count=st.integers(1, 20), u=st.floats(0, 0.999), stratum=st.sampled_from("ab"), old=st.booleans())
    def accept(self, count: int, u: float, stratum: str, old: bool) -> None:
        for _ in range(count):
            entry = entry_at(self.now, stratum)
            if old:
                entry.resumed = True
                self.poll_queue.resume(entry, self.now, u)
            else:
                self.poll_queue.schedule(entry, self.now, u)
            self.waiting.append(entry)

    @rule(seconds=st.one_of(st.sampled_from([0.0, MIN_POLL_SPACING_S, GRACE_S, 60.0]), st.floats(0, 20)))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.poll_queue.ready_at(self.now)

    @rule(which=st.integers(0, 1000), share=st.sampled_from([1, 1, 3]))
    def call(self, which: int, share: int) -> None:
        everybody = self.waiting + self.looking
        for entry in everybody[which % max(1, len(everybody)) :: share * 5]:
            self.poll_queue.on_callback(entry, self.now)
            if entry in self.waiting and entry.next_poll_at > -math.inf:
                assert entry.next_poll_at <= max(self.now, self.called_at.get(entry, -math.inf) + MIN_POLL_SPACING_S)

    @rule(which=st.integers(0, 1000))
    def call_late(self, which: int) -> None:
        if self.gone:
            self.poll_queue.callbacks.on_late_callback(self.gone[which % len(self.gone)].job.key)

    @rule(count=st.integers(1, 10))
    def look(self, count: int) -> None:
        for _ in range(count):
            if self.poll_queue.ready_at(self.now) > self.now:
                return
            entry = self.poll_queue.pop(self.now)
            self.waiting.remove(entry)
            self.looking.append(entry)
            entry.polls += 1
            called = self.poll_queue.callbacks.notified_at(entry) is not None
            self.poll_queue.callbacks.on_poll_started(entry, self.now)
            if called:
                self.called_at[entry] = self.now

    @precondition(lambda self: self.looking)
    @rule(which=st.integers(0, 1000), how=st.sampled_from(["settled", "unsettled", "unsettled", "missed", "denied"]))
    def answer(self, which: int, how: str) -> None:
        entry = self.looking.pop(which % len(self.looking))
        entry.failed_polls = entry.failed_polls + 1 if how == "missed" else 0
        if how == "settled":
            self.poll_queue.record_settled(entry, SETTLED, self.now, 0.5)
            self.gone.append(entry)
        elif self.now >= entry.deadline_at:
            self.poll_queue.record_censored(entry)
            self.gone.append(entry)
        else:
            verdict = {"missed": PollVerdict.AGAIN, "denied": PollVerdict.MISSING}.get(how, PollVerdict.READ)
            snapshot = UNSETTLED if verdict is PollVerdict.READ else None
            self.poll_queue.schedule(entry, self.now, 0.3, PollResult(verdict=verdict, snapshot=snapshot))
            self.waiting.append(entry)

    @rule()
    def expire(self) -> None:
        self.poll_queue.ready_at(self.now)
        entry = self.poll_queue.pop_expired(self.now)
        if entry is not None:
            assert entry.deadline_at <= self.now
            self.waiting.remove(entry)
            self.poll_queue.record_censored(entry)
            self.gone.append(entry)

    @rule(often=st.sampled_from([False, False, False, True]))
    def park(self, often: bool) -> None:
        if often:
            parked = self.poll_queue.clear()
            assert sorted(map(id, parked)) == sorted(map(id, self.waiting))
            for entry in parked:
                self.poll_queue.record_censored(entry)
            self.waiting.clear()
            self.gone += parked

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        there = list(self.poll_queue)
        assert sorted(map(id, there)) == sorted(map(id, self.waiting))

    @invariant()
    def what_is_stale_is_counted(self) -> None:
        places = self.poll_queue._waiting
        live = {entry for due, entry in places if due == entry.next_poll_at}
        assert self.poll_queue._stale == len(places) - len(live)
        assert self.poll_queue._silent_count == len(live)
        assert len(places) <= 2 * len(live) + 66
        assert not any(place < places[(number - 1) // 2] for number, place in enumerate(places) if number)

    @invariant()
    def nothing_is_kept_of_who_is_gone(self) -> None:
        calls, alive = self.poll_queue.callbacks, {*self.waiting, *self.looking}
        assert calls._pending.keys() <= alive
        assert calls._sampled <= alive
        self.poll_queue.ready_at(self.now)
        assert all(until <= self.now + GRACE_S for until, _ in calls._grace.values())

    def teardown(self) -> None:
        """Whatever was before, each job that waits is looked at by its deadline."""
        self.now += DEADLINE
        waiting = [*self.waiting]
        while self.poll_queue.ready_at(self.now) <= self.now:
            self.waiting.remove(self.poll_queue.pop(self.now))
        assert self.waiting == [], len(waiting)


Lookouts.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestLookouts = pytest.mark.slow(Lookouts.TestCase)


@given(st.lists(st.tuples(st.floats(0, 8), st.sampled_from(["call", "look", "answer", "miss"])), max_size=60))
def test_called_looks_begin_an_interval_apart(steps: list[tuple[float, str]]) -> None:
    """However callbacks come: between two looks that they cause are 5 s, and each is answered by one that begins after."""
    calls, entry, now = CallbackTracker(enabled=True), entry_at(0.0), 100.0
    due, begun, last_call = math.inf, -math.inf, None
    looking = False
    for seconds, step in steps:
        now += seconds
        if step == "call":
            wanted = calls.on_callback(entry, now)
            due, last_call = (due if looking else min(due, wanted)), now
        elif step == "look" and not looking and due <= now:
            assert now >= begun + MIN_POLL_SPACING_S
            begun, due, looking, last_call = now, math.inf, True, None
            calls.on_poll_started(entry, now)
            assert not calls.needs_poll(entry)
        elif step == "answer" and looking:
            looking, entry.failed_polls = False, 0
            due = calls.on_unsettled(entry, now)
            assert (due < math.inf) == (last_call is not None) == calls.needs_poll(entry)
        elif step == "miss" and looking:
            looking, entry.failed_polls = False, entry.failed_polls + 1
            assert calls.on_unsettled(entry, now) == math.inf
            assert calls.needs_poll(entry)  # the next look, when that may be, is the answer
            due = begun + MIN_POLL_SPACING_S
    calls.forget(entry)
    assert (calls._pending, calls._sampled) == ({}, set())


@given(st.lists(st.one_of(st.booleans(), st.integers(0, 10_000)), max_size=2000))
def test_the_share_that_nobody_tells_of_is_one(steps: list[bool | int]) -> None:
    """Always above 0 and at most 1, and told of so many only as are remembered."""
    untold = CallbackLossEstimator()
    for step in steps:
        if isinstance(step, bool):
            untold.add(notified=step)
        elif untold.is_sample_due(step):
            untold.add_sample(settled=step % 2 == 0)
        untold.update(step if not isinstance(step, bool) else 0)
        assert 0 < untold.loss_rate <= 1
        assert untold.notified + untold.missed <= MEMORY_TASKS
        assert 0 <= untold.settled_samples <= untold.samples <= MEMORY_SAMPLES


@pytest.mark.parametrize("told", [True, False])
def test_a_thousand_alike_are_believed(told: bool) -> None:
    """All are told of: next to none is looked at; none is: it is as if nobody listened."""
    untold = CallbackLossEstimator()
    for _ in range(1000):
        untold.add(notified=told)
        untold.update(0)
    assert untold.loss_rate < 0.01 if told else untold.loss_rate == 1.0
    assert untold.is_unreliable is not told


def test_two_places_of_one_time_are_one_job() -> None:
    """A look that a callback had brought forward is put back to where it was, and then all are put anew."""

    class Late(Awkward):
        def next_delay(self, context: PollContext, u: float) -> float:
            return 1e9

        replan_delay = next_delay

    poll_queue = PollQueue(PolicyAdapter(policy=Late(), callbacks=CallbackTracker(enabled=True)))
    other, entry = entry_at(-100.0), entry_at(0.0)
    poll_queue.schedule(other, 0.0, 0.5)
    poll_queue.schedule(entry, 0.0, 0.5)
    poll_queue.on_callback(entry, 10.0)
    assert poll_queue.ready_at(10.0) == 10.0
    assert poll_queue.pop(10.0) is entry
    entry.polls += 1
    poll_queue.callbacks.on_poll_started(entry, 10.0)
    poll_queue.schedule(entry, 11.0, 0.5, PollResult(verdict=PollVerdict.READ, snapshot=UNSETTLED))
    poll_queue._replan(None, 12.0, 0.5)
    assert (list(poll_queue), poll_queue._silent_count, poll_queue._stale) == ([other, entry], 2, 0)
    assert poll_queue.ready_at(DEADLINE) == DEADLINE
    assert {poll_queue.pop(DEADLINE), poll_queue.pop(DEADLINE)} == {other, entry}
    assert (list(poll_queue), poll_queue._silent_count, poll_queue._stale) == ([], 0, 0)


def test_where_nobody_listens_every_settle_is_untold() -> None:
    """Silence then says nothing, however long it lasts: the policy is asked for looks as ever."""
    calls, asked = CallbackTracker(), []

    class Watching(Awkward):
        def next_delay(self, context: PollContext, u: float) -> float:
            asked.append(context.callback_loss)
            return 10.0

        def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> Any:
            pass

        def observe_unsettled(self, stratum: str, last_unsettled_age: float, age: float) -> None:
            raise AssertionError("silence was heard")

    poll_queue = PollQueue(PolicyAdapter(policy=Watching(), callbacks=calls))
    for number in range(50):
        entry = entry_at(float(number))
        poll_queue.schedule(entry, float(number), 0.5)
        poll_queue.schedule(entry_at(float(number)), float(number), 0.5)
        poll_queue.record_settled(entry, SETTLED, number + 9.0, 0.5)
    assert set(asked) == {calls.loss_rate} == {1.0}
    assert poll_queue.adapter._silence_at == -math.inf
