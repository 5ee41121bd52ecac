"""Callbacks and polls in any order: each accepted job is polled, by one poll at a time, and finished jobs are forgotten."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pika_async import AdaptivePolling, FixedInterval, GenerationRequest, Job, JobStatus, Snapshot, TaskState
from pika_async._planning.actions import RESUMED, ActiveJob, PollResult
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


def active_at(now: float, stratum: str = "s") -> ActiveJob:
    job = Job(
        key=f"k{next(NUMBERS)}", request=GenerationRequest("a"), provider="p", base_url="https://x.example",
        status=JobStatus.QUEUED, task_id="t",
    )  # fmt: skip
    return ActiveJob(job, stratum, accepted_at=now, last_seen_unsettled_at=now, deadline_at=now + DEADLINE)


class Awkward(PollingPolicy):
    """Policy whose methods sometimes raise, and sometimes return an unusual number."""

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


class PollQueues(RuleBasedStateMachine):
    """Poll queue whose jobs are accepted, polled, settled, expired and parked, with callbacks at any time."""

    @initialize(policy=st.sampled_from([AdaptivePolling, lambda: FixedInterval(7.0), Awkward]))
    def start(self, policy: Any) -> None:
        self.now = 1e6
        self.poll_queue = PollQueue(PolicyAdapter(policy=policy(), callbacks=CallbackTracker(enabled=True)))
        self.waiting: list[ActiveJob] = []
        self.polling: list[ActiveJob] = []
        self.finished: list[ActiveJob] = []
        #: When the last poll began that a callback had caused.
        self.callback_poll_at: dict[ActiveJob, float] = {}

    @rule(count=st.integers(1, 20), u=st.floats(0, 0.999), stratum=st.sampled_from("ab"), resumed=st.booleans())
    def accept(self, count: int, u: float, stratum: str, resumed: bool) -> None:
        for _ in range(count):
            active = active_at(self.now, stratum)
            if resumed:
                active.rare = RESUMED
                self.poll_queue.resume(active, self.now, u)
            else:
                self.poll_queue.schedule(active, self.now, u)
            self.waiting.append(active)

    @rule(seconds=st.one_of(st.sampled_from([0.0, MIN_POLL_SPACING_S, GRACE_S, 60.0]), st.floats(0, 20)))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.poll_queue.ready_at(self.now)

    @rule(index=st.integers(0, 1000), step=st.sampled_from([5, 5, 15]))
    def callbacks(self, index: int, step: int) -> None:
        unsettled = self.waiting + self.polling
        for active in unsettled[index % max(1, len(unsettled)) :: step]:
            self.poll_queue.on_callback(active, self.now)
            if active in self.waiting and active.next_poll_at > -math.inf:
                assert active.next_poll_at <= max(
                    self.now, self.callback_poll_at.get(active, -math.inf) + MIN_POLL_SPACING_S
                )

    @rule(index=st.integers(0, 1000))
    def late_callback(self, index: int) -> None:
        if self.finished:
            self.poll_queue.callbacks.on_late_callback(self.finished[index % len(self.finished)].job.key)

    @rule(count=st.integers(1, 10))
    def poll(self, count: int) -> None:
        for _ in range(count):
            if self.poll_queue.ready_at(self.now) > self.now:
                return
            active = self.poll_queue.pop(self.now)
            self.waiting.remove(active)
            self.polling.append(active)
            active.polls += 1
            notified = self.poll_queue.callbacks.notified_at(active) is not None
            self.poll_queue.callbacks.on_poll_started(active, self.now)
            if notified:
                self.callback_poll_at[active] = self.now

    @precondition(lambda self: self.polling)
    @rule(
        index=st.integers(0, 1000),
        result=st.sampled_from(["settled", "unsettled", "unsettled", "failed", "not found"]),
    )
    def poll_result(self, index: int, result: str) -> None:
        active = self.polling.pop(index % len(self.polling))
        active.failed_polls = active.failed_polls + 1 if result == "failed" else 0
        if result == "settled":
            self.poll_queue.record_settled(active, SETTLED, self.now, 0.5)
            self.finished.append(active)
        elif self.now >= active.deadline_at:
            self.poll_queue.record_censored(active)
            self.finished.append(active)
        else:
            verdict = {"failed": PollVerdict.AGAIN, "not found": PollVerdict.MISSING}.get(result, PollVerdict.READ)
            snapshot = UNSETTLED if verdict is PollVerdict.READ else None
            self.poll_queue.schedule(active, self.now, 0.3, PollResult(verdict=verdict, snapshot=snapshot))
            self.waiting.append(active)

    @rule()
    def expire(self) -> None:
        self.poll_queue.ready_at(self.now)
        active = self.poll_queue.pop_expired(self.now)
        if active is not None:
            assert active.deadline_at <= self.now
            self.waiting.remove(active)
            self.poll_queue.record_censored(active)
            self.finished.append(active)

    @rule(stop=st.sampled_from([False, False, False, True]))
    def park_all(self, stop: bool) -> None:
        if stop:
            parked = self.poll_queue.clear()
            assert sorted(map(id, parked)) == sorted(map(id, self.waiting))
            for active in parked:
                self.poll_queue.record_censored(active)
            self.waiting.clear()
            self.finished += parked

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        queued = list(self.poll_queue)
        assert sorted(map(id, queued)) == sorted(map(id, self.waiting))

    @invariant()
    def stale_heap_entries_are_counted(self) -> None:
        heap = self.poll_queue._waiting
        live = {active for due, active in heap if due == active.next_poll_at}
        assert self.poll_queue._stale == len(heap) - len(live)
        assert self.poll_queue._silent_count == len(live)
        assert len(heap) <= 2 * len(live) + 66
        assert not any(item < heap[(number - 1) // 2] for number, item in enumerate(heap) if number)

    @invariant()
    def finished_jobs_are_forgotten(self) -> None:
        tracker, unsettled = self.poll_queue.callbacks, {*self.waiting, *self.polling}
        assert tracker._pending.keys() <= unsettled
        assert tracker._sampled <= unsettled
        self.poll_queue.ready_at(self.now)
        assert all(until <= self.now + GRACE_S for until, _ in tracker._grace.values())

    def teardown(self) -> None:
        """Each waiting job is polled by its deadline, after any history."""
        self.now += DEADLINE
        waiting = [*self.waiting]
        while self.poll_queue.ready_at(self.now) <= self.now:
            self.waiting.remove(self.poll_queue.pop(self.now))
        assert self.waiting == [], len(waiting)


PollQueues.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
TestPollQueues = pytest.mark.slow(PollQueues.TestCase)


@given(st.lists(st.tuples(st.floats(0, 8), st.sampled_from(["callback", "poll", "answer", "fail"])), max_size=60))
def test_polls_caused_by_callbacks_begin_an_interval_apart(steps: list[tuple[float, str]]) -> None:
    """At least 5 s are between two of them, and each callback is answered by a poll that begins after it."""
    tracker, active, now = CallbackTracker(enabled=True), active_at(0.0), 100.0
    due, started_at, last_callback_at = math.inf, -math.inf, None
    polling = False
    for seconds, step in steps:
        now += seconds
        if step == "callback":
            earliest = tracker.on_callback(active, now)
            due, last_callback_at = (due if polling else min(due, earliest)), now
        elif step == "poll" and not polling and due <= now:
            assert now >= started_at + MIN_POLL_SPACING_S
            started_at, due, polling, last_callback_at = now, math.inf, True, None
            tracker.on_poll_started(active, now)
            assert not tracker.needs_poll(active)
        elif step == "answer" and polling:
            polling, active.failed_polls = False, 0
            due = tracker.on_unsettled(active, now)
            assert (due < math.inf) == (last_callback_at is not None) == tracker.needs_poll(active)
        elif step == "fail" and polling:
            polling, active.failed_polls = False, active.failed_polls + 1
            assert tracker.on_unsettled(active, now) == math.inf
            assert tracker.needs_poll(active)  # the next poll, whenever it is, answers the callback
            due = started_at + MIN_POLL_SPACING_S
    tracker.forget(active)
    assert (tracker._pending, tracker._sampled) == ({}, set())


@given(st.lists(st.one_of(st.booleans(), st.integers(0, 10_000)), max_size=2000))
def test_the_loss_rate_is_a_fraction(steps: list[bool | int]) -> None:
    """The loss rate is above 0 and at most 1; the counts stay within the memory of the estimator."""
    estimator = CallbackLossEstimator()
    for step in steps:
        if isinstance(step, bool):
            estimator.add(notified=step)
        elif estimator.is_sample_due(step):
            estimator.add_sample(settled=step % 2 == 0)
        estimator.update(step if not isinstance(step, bool) else 0)
        assert 0 < estimator.loss_rate <= 1
        assert estimator.notified + estimator.missed <= MEMORY_TASKS
        assert 0 <= estimator.settled_samples <= estimator.samples <= MEMORY_SAMPLES


@pytest.mark.parametrize("notified", [True, False])
def test_a_thousand_equal_completions_decide_the_loss_rate(notified: bool) -> None:
    """With a callback for each, the loss rate is below 1 %; without any, it is 1, as if callbacks were off."""
    estimator = CallbackLossEstimator()
    for _ in range(1000):
        estimator.add(notified=notified)
        estimator.update(0)
    assert estimator.loss_rate < 0.01 if notified else estimator.loss_rate == 1.0
    assert estimator.is_unreliable is not notified


def test_two_heap_entries_for_one_time_are_one_job() -> None:
    """After a poll that a callback moved forward, the next one is planned for the original time; replanning drops one."""

    class Late(Awkward):
        def next_delay(self, context: PollContext, u: float) -> float:
            return 1e9

        replan_delay = next_delay

    poll_queue = PollQueue(PolicyAdapter(policy=Late(), callbacks=CallbackTracker(enabled=True)))
    other, active = active_at(-100.0), active_at(0.0)
    poll_queue.schedule(other, 0.0, 0.5)
    poll_queue.schedule(active, 0.0, 0.5)
    poll_queue.on_callback(active, 10.0)
    assert poll_queue.ready_at(10.0) == 10.0
    assert poll_queue.pop(10.0) is active
    active.polls += 1
    poll_queue.callbacks.on_poll_started(active, 10.0)
    poll_queue.schedule(active, 11.0, 0.5, PollResult(verdict=PollVerdict.READ, snapshot=UNSETTLED))
    poll_queue._replan(None, 12.0, 0.5)
    assert (list(poll_queue), poll_queue._silent_count, poll_queue._stale) == ([other, active], 2, 0)
    assert poll_queue.ready_at(DEADLINE) == DEADLINE
    assert {poll_queue.pop(DEADLINE), poll_queue.pop(DEADLINE)} == {other, active}
    assert (list(poll_queue), poll_queue._silent_count, poll_queue._stale) == ([], 0, 0)


def test_with_callbacks_off_the_loss_rate_is_1() -> None:
    """Silence is then not passed to the policy, and every delay is requested for a loss of 1."""
    tracker, losses = CallbackTracker(), []

    class Recording(Awkward):
        def next_delay(self, context: PollContext, u: float) -> float:
            losses.append(context.callback_loss)
            return 10.0

        def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> Any:
            pass

        def observe_unsettled(self, stratum: str, last_unsettled_age: float, age: float) -> None:
            raise AssertionError("silence was passed to the policy")

    poll_queue = PollQueue(PolicyAdapter(policy=Recording(), callbacks=tracker))
    for number in range(50):
        active = active_at(float(number))
        poll_queue.schedule(active, float(number), 0.5)
        poll_queue.schedule(active_at(float(number)), float(number), 0.5)
        poll_queue.record_settled(active, SETTLED, number + 9.0, 0.5)
    assert set(losses) == {tracker.loss_rate} == {1.0}
    assert poll_queue.adapter._silence_at == -math.inf
