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
from pika_async._planning.actions import Entry, Look
from pika_async._planning.callback_loss import SAMPLES, SETTLES, Untold
from pika_async._planning.callback_tracker import CALL_SECONDS, PROMPT, Calls
from pika_async._planning.poll_queue import Lookout
from pika_async.polling import Observation, Waiting
from pika_async.providers._verdicts import PollVerdict

NUMBERS = itertools.count()
UNSETTLED = Snapshot(task_id="t", state=TaskState.RUNNING)
SETTLED = Snapshot(task_id="t", state=TaskState.SUCCEEDED)
DEADLINE = 300.0


def entry_at(now: float, stratum: str = "s") -> Entry:
    job = Job(
        key=f"k{next(NUMBERS)}", request=GenerationRequest("a"), provider="p", base_url="https://x.example",
        status=JobStatus.QUEUED, task_id="t",
    )  # fmt: skip
    return Entry(job, stratum, accepted_at=now, looked_at=now, deadline_at=now + DEADLINE)


class Awkward:
    """A policy whose every method fails now and then, or gives a number of an odd kind."""

    def __init__(self) -> None:
        self.answers = itertools.cycle([1.0, math.nan, 60, -1, math.inf, 1e300, True, "7", None, 1e-300])

    def _answer(self) -> Any:
        answer = next(self.answers)
        if answer is None:
            raise ZeroDivisionError
        return answer

    def wait(self, waiting: Waiting, u: float) -> float:
        return self._answer()  # type: ignore[no-any-return]

    again = wait

    def settled(self, seen: Observation, looked: float | None = None) -> Any:
        return self._answer()

    def passed(self, stratum: str, looked: float, age: float) -> None:
        self._answer()

    def undetected(self, stratum: str, looked: float, age: float) -> float:
        return self._answer()  # type: ignore[no-any-return]


class Lookouts(RuleBasedStateMachine):
    """A lookout whose jobs are accepted, called, looked at, settled, expired, parked; and what must be of them."""

    @initialize(policy=st.sampled_from([AdaptivePolling, lambda: FixedInterval(7.0), Awkward]))
    def begin(self, policy: Any) -> None:
        self.now = 1e6
        self.lookout = Lookout(policy=policy(), calls=Calls(listens=True))
        self.waiting: list[Entry] = []
        self.looking: list[Entry] = []
        self.gone: list[Entry] = []
        #: When a look that a callback had caused last began.
        self.called_at: dict[Entry, float] = {}

    @rule(count=st.integers(1, 20), u=st.floats(0, 0.999), stratum=st.sampled_from("ab"), old=st.booleans())
    def accept(self, count: int, u: float, stratum: str, old: bool) -> None:
        for _ in range(count):
            entry = entry_at(self.now, stratum)
            if old:
                entry.resumed = True
                self.lookout.resume(entry, self.now, u)
            else:
                self.lookout.schedule(entry, self.now, u)
            self.waiting.append(entry)

    @rule(seconds=st.one_of(st.sampled_from([0.0, CALL_SECONDS, PROMPT, 60.0]), st.floats(0, 20)))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.lookout.ready_at(self.now)

    @rule(which=st.integers(0, 1000), share=st.sampled_from([1, 1, 3]))
    def call(self, which: int, share: int) -> None:
        everybody = self.waiting + self.looking
        for entry in everybody[which % max(1, len(everybody)) :: share * 5]:
            self.lookout.call(entry, self.now)
            if entry in self.waiting and entry.due > -math.inf:
                assert entry.due <= max(self.now, self.called_at.get(entry, -math.inf) + CALL_SECONDS)

    @rule(which=st.integers(0, 1000))
    def call_late(self, which: int) -> None:
        if self.gone:
            self.lookout.calls.late(self.gone[which % len(self.gone)].job.key)

    @rule(count=st.integers(1, 10))
    def look(self, count: int) -> None:
        for _ in range(count):
            if self.lookout.ready_at(self.now) > self.now:
                return
            entry = self.lookout.take(self.now)
            self.waiting.remove(entry)
            self.looking.append(entry)
            entry.polls += 1
            called = self.lookout.calls.told_at(entry) is not None
            self.lookout.calls.begin(entry, self.now)
            if called:
                self.called_at[entry] = self.now

    @precondition(lambda self: self.looking)
    @rule(which=st.integers(0, 1000), how=st.sampled_from(["settled", "unsettled", "unsettled", "missed", "denied"]))
    def answer(self, which: int, how: str) -> None:
        entry = self.looking.pop(which % len(self.looking))
        entry.misses = entry.misses + 1 if how == "missed" else 0
        if how == "settled":
            self.lookout.learn(entry, SETTLED, self.now, 0.5)
            self.gone.append(entry)
        elif self.now >= entry.deadline_at:
            self.lookout.forget(entry)
            self.gone.append(entry)
        else:
            verdict = {"missed": PollVerdict.AGAIN, "denied": PollVerdict.MISSING}.get(how, PollVerdict.READ)
            snapshot = UNSETTLED if verdict is PollVerdict.READ else None
            self.lookout.schedule(entry, self.now, 0.3, Look(verdict=verdict, snapshot=snapshot))
            self.waiting.append(entry)

    @rule()
    def expire(self) -> None:
        self.lookout.ready_at(self.now)
        entry = self.lookout.expired(self.now)
        if entry is not None:
            assert entry.deadline_at <= self.now
            self.waiting.remove(entry)
            self.lookout.forget(entry)
            self.gone.append(entry)

    @rule(often=st.sampled_from([False, False, False, True]))
    def park(self, often: bool) -> None:
        if often:
            parked = self.lookout.clear()
            assert sorted(map(id, parked)) == sorted(map(id, self.waiting))
            for entry in parked:
                self.lookout.forget(entry)
            self.waiting.clear()
            self.gone += parked

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        there = list(self.lookout)
        assert sorted(map(id, there)) == sorted(map(id, self.waiting))

    @invariant()
    def what_is_stale_is_counted(self) -> None:
        places = self.lookout._waiting
        live = {entry for due, entry in places if due == entry.due}
        assert self.lookout._stale == len(places) - len(live)
        assert self.lookout._silent == len(live)
        assert len(places) <= 2 * len(live) + 66
        assert not any(place < places[(number - 1) // 2] for number, place in enumerate(places) if number)

    @invariant()
    def nothing_is_kept_of_who_is_gone(self) -> None:
        calls, alive = self.lookout.calls, {*self.waiting, *self.looking}
        assert calls._calls.keys() <= alive
        assert calls._sampled <= alive
        self.lookout.ready_at(self.now)
        assert all(until <= self.now + PROMPT for until, _ in calls._found.values())

    def teardown(self) -> None:
        """Whatever was before, each job that waits is looked at by its deadline."""
        self.now += DEADLINE
        waiting = [*self.waiting]
        while self.lookout.ready_at(self.now) <= self.now:
            self.waiting.remove(self.lookout.take(self.now))
        assert self.waiting == [], len(waiting)


Lookouts.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestLookouts = pytest.mark.slow(Lookouts.TestCase)


@given(st.lists(st.tuples(st.floats(0, 8), st.sampled_from(["call", "look", "answer", "miss"])), max_size=60))
def test_called_looks_begin_an_interval_apart(steps: list[tuple[float, str]]) -> None:
    """However callbacks come: between two looks that they cause are 5 s, and each is answered by one that begins after."""
    calls, entry, now = Calls(listens=True), entry_at(0.0), 100.0
    due, begun, last_call = math.inf, -math.inf, None
    looking = False
    for seconds, step in steps:
        now += seconds
        if step == "call":
            wanted = calls.call(entry, now)
            due, last_call = (due if looking else min(due, wanted)), now
        elif step == "look" and not looking and due <= now:
            assert now >= begun + CALL_SECONDS
            begun, due, looking, last_call = now, math.inf, True, None
            calls.begin(entry, now)
            assert not calls.waits(entry)
        elif step == "answer" and looking:
            looking, entry.misses = False, 0
            due = calls.unsettled(entry, now)
            assert (due < math.inf) == (last_call is not None) == calls.waits(entry)
        elif step == "miss" and looking:
            looking, entry.misses = False, entry.misses + 1
            assert calls.unsettled(entry, now) == math.inf
            assert calls.waits(entry)  # the next look, when that may be, is the answer
            due = begun + CALL_SECONDS
    calls.forget(entry)
    assert (calls._calls, calls._sampled) == ({}, set())


@given(st.lists(st.one_of(st.booleans(), st.integers(0, 10_000)), max_size=2000))
def test_the_share_that_nobody_tells_of_is_one(steps: list[bool | int]) -> None:
    """Always above 0 and at most 1, and told of so many only as are remembered."""
    untold = Untold()
    for step in steps:
        if isinstance(step, bool):
            untold.add(told=step)
        elif untold.wants_sample(step):
            untold.sampled(settled=step % 2 == 0)
        untold.renew(step if not isinstance(step, bool) else 0)
        assert 0 < untold.share <= 1
        assert untold.told + untold.untold <= SETTLES
        assert 0 <= untold.found <= untold.samples <= SAMPLES


@pytest.mark.parametrize("told", [True, False])
def test_a_thousand_alike_are_believed(told: bool) -> None:
    """All are told of: next to none is looked at; none is: it is as if nobody listened."""
    untold = Untold()
    for _ in range(1000):
        untold.add(told=told)
        untold.renew(0)
    assert untold.share < 0.01 if told else untold.share == 1.0
    assert untold.is_deaf is not told


def test_two_places_of_one_time_are_one_job() -> None:
    """A look that a callback had brought forward is put back to where it was, and then all are put anew."""

    class Late(Awkward):
        def wait(self, waiting: Waiting, u: float) -> float:
            return 1e9

        again = wait

    lookout = Lookout(policy=Late(), calls=Calls(listens=True))
    other, entry = entry_at(-100.0), entry_at(0.0)
    lookout.schedule(other, 0.0, 0.5)
    lookout.schedule(entry, 0.0, 0.5)
    lookout.call(entry, 10.0)
    assert lookout.ready_at(10.0) == 10.0
    assert lookout.take(10.0) is entry
    entry.polls += 1
    lookout.calls.begin(entry, 10.0)
    lookout.schedule(entry, 11.0, 0.5, Look(verdict=PollVerdict.READ, snapshot=UNSETTLED))
    lookout._ask_again(None, 12.0, 0.5)
    assert (list(lookout), lookout._silent, lookout._stale) == ([other, entry], 2, 0)
    assert lookout.ready_at(DEADLINE) == DEADLINE
    assert {lookout.take(DEADLINE), lookout.take(DEADLINE)} == {other, entry}
    assert (list(lookout), lookout._silent, lookout._stale) == ([], 0, 0)


def test_where_nobody_listens_every_settle_is_untold() -> None:
    """Silence then says nothing, however long it lasts: the policy is asked for looks as ever."""
    calls, asked = Calls(), []

    class Watching(Awkward):
        def wait(self, waiting: Waiting, u: float) -> float:
            asked.append(waiting.untold)
            return 10.0

        def settled(self, seen: Observation, looked: float | None = None) -> Any:
            pass

        def passed(self, stratum: str, looked: float, age: float) -> None:
            raise AssertionError("silence was heard")

    lookout = Lookout(policy=Watching(), calls=calls)
    for number in range(50):
        entry = entry_at(float(number))
        lookout.schedule(entry, float(number), 0.5)
        lookout.schedule(entry_at(float(number)), float(number), 0.5)
        lookout.learn(entry, SETTLED, number + 9.0, 0.5)
    assert set(asked) == {calls.share} == {1.0}
    assert lookout._silent_at == -math.inf
