"""Rates, breaker and gate under any history: what they promise holds at every step."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pika_async import AccountStopped
from pika_async._planning.backoff import backoff_delay
from pika_async._planning.limits import CircuitBreaker, SubmitThrottle, TokenBucket

chances = st.floats(0, 1, exclude_max=True)
gaps = st.floats(0, 100)


# --- rate ---------------------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 1000), st.lists(st.floats(0, 20), max_size=60), st.floats(0, 1e7))
def test_a_rate_is_never_exceeded_over_any_window(per_second: float, pauses: list[float], start: float) -> None:
    """In every window of any length, calls begin at most as often as one second's worth (or one) plus the rate."""
    rate = TokenBucket(per_second)
    now = start
    begun = []
    for pause in pauses:
        now += pause
        now = max(now, rate.ready_at(now))
        rate.take(now)
        begun.append(now)
    burst = max(1.0, per_second)
    for first in range(len(begun)):
        for last in range(first, len(begun)):
            window = begun[last] - begun[first]
            assert last - first + 1 <= burst + per_second * window + 1e-3 * max(1.0, window)


@given(st.floats(0.01, 1000), st.integers(1, 50), st.floats(0, 1e7))
def test_a_rate_is_reached(per_second: float, calls: int, start: float) -> None:
    """One who always waits exactly as long as told gets the full rate, and is never told to wait for nothing."""
    rate = TokenBucket(per_second)
    now = start
    for _ in range(calls):
        ready = rate.ready_at(now)
        assert now <= ready <= now + 1 / per_second + 1e-6
        now = ready
        assert rate.ready_at(now) <= now + 1e-6  # what was promised holds, but for what a float holds of the time
        rate.take(now)
    assert now - start <= calls / per_second + 1e-3


def test_no_rate_is_no_limit() -> None:
    """Without a number every call may begin at once."""
    rate = TokenBucket(None)
    for _ in range(1000):
        assert rate.ready_at(5.0) == 5.0
        rate.take(5.0)


# --- breaker ------------------------------------------------------------------------------------------------------------


def is_open(breaker: CircuitBreaker) -> bool:
    """Read anew each time: a type checker takes a property for constant."""
    return breaker.is_open


def test_the_breaker_opens_after_its_threshold_and_not_before() -> None:
    """Seven failures in a row hold nothing back, the eighth does; one answer in between starts the count again."""
    breaker = CircuitBreaker()
    for _ in range(7):
        breaker.fail(0.0, 0.5)
    assert not is_open(breaker)
    breaker.succeed()
    for _ in range(7):
        breaker.fail(0.0, 0.5)
    assert not is_open(breaker)
    breaker.fail(0.0, 0.5)
    assert is_open(breaker)
    assert 0.5 <= breaker.ready_at(0.0) <= 1.0


def test_polls_from_before_the_opening_say_nothing_new() -> None:
    """Failures of polls that were under way neither lengthen the pause nor count as the probe's."""
    breaker = CircuitBreaker()
    for _ in range(8):
        breaker.fail(0.0, 0.5)
    opens = breaker.ready_at(0.0)
    for _ in range(24):
        breaker.fail(0.1, 0.999)
    assert breaker.ready_at(0.1) == opens
    assert breaker.begin() is True
    for _ in range(24):
        breaker.fail(opens, 0.999)
        assert breaker.ready_at(opens) == math.inf
    breaker.fail(opens + 1, 0.999, probe=True)
    assert breaker.ready_at(opens + 1) <= opens + 1 + 2.0


@given(st.lists(st.tuples(st.sampled_from(["begin", "fail", "succeed"]), gaps, chances), max_size=120))
def test_the_breaker_admits_one_probe_at_a_time(history: list[tuple[str, float, float]]) -> None:
    """While it is open, at most one poll is out as the probe; its pauses are above 0 and at most 60 s."""
    breaker = CircuitBreaker()
    under_way: list[bool] = []
    now = 0.0
    for what, gap, u in history:
        now += gap
        if what == "begin" and breaker.ready_at(now) <= now:
            was_open = is_open(breaker)
            under_way.append(breaker.begin())
            assert under_way[-1] == was_open
        elif what == "fail" and under_way:
            probe = under_way.pop(0)
            was_open = is_open(breaker)
            breaker.fail(now, u, probe=probe)
            if is_open(breaker) and (probe or not was_open):
                assert now + 0.5 <= breaker.ready_at(now) <= now + 60.0
        elif what == "succeed" and under_way:
            under_way.pop()
            breaker.succeed()
            assert not is_open(breaker)
            assert breaker.ready_at(now) == now
        if is_open(breaker) and breaker.ready_at(now) != math.inf:
            assert breaker.ready_at(now) <= now + 60.0
        if is_open(breaker) and math.isinf(breaker.ready_at(now)):
            assert sum(under_way) >= 1


# --- gate ---------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["wait", "told", "unreachable", "answered"]), gaps, chances), max_size=80))
def test_the_gates_pauses_are_bounded_and_never_shortened(history: list[tuple[str, float, float]]) -> None:
    """After any refusal the pause ends, at most 30 s from now or when the provider said; nothing ends it sooner."""
    gate = SubmitThrottle()
    now = 0.0
    for what, gap, u in history:
        now += gap
        before = gate.ready_at(now)
        if what == "answered":
            gate.reset()
            assert gate.ready_at(now) == before
        elif what == "told":
            wish = 1 + 299 * u
            gate.pause(now, u, wish)
            assert gate.ready_at(now) == max(before, now + wish)
        else:
            if what == "wait":
                gate.pause(now, u, None)
            else:
                gate.record_unreachable(now, u)
            assert gate.ready_at(now) >= before
            assert gate.ready_at(now) == before or now + 0.25 <= gate.ready_at(now) <= now + 30.0


def test_at_once_is_no_time_to_wait_for() -> None:
    """An account that refuses and says `Retry-After: 0` is asked ever more seldom all the same."""
    gate = SubmitThrottle()
    now, pauses = 0.0, []
    for _ in range(6):
        gate.pause(now, 0.5, 0.0)
        pauses.append(gate.ready_at(now) - now)
        now = gate.ready_at(now)
    assert pauses == sorted(pauses)
    assert pauses[-1] > 5


def test_the_gate_gives_up_after_six_attempts_in_a_row() -> None:
    """The sixth submission in a row that could not be sent says so; refusals during a pause are not counted."""
    gate = SubmitThrottle()
    now = 0.0
    told = []
    for _ in range(6):
        told.append(gate.record_unreachable(now, 0.5))
        assert gate.record_unreachable(now, 0.5) is False  # it was under way when the pause began
        now = gate.ready_at(now)
    assert told == [False] * 5 + [True]
    assert gate.unsent == 6


def test_an_answer_starts_the_gates_count_again() -> None:
    """Any answer proves that the provider can be reached."""
    gate = SubmitThrottle()
    now = 0.0
    for _ in range(5):
        assert gate.record_unreachable(now, 0.5) is False
        now = gate.ready_at(now)
    gate.reset()
    assert gate.record_unreachable(now, 0.5) is False
    assert gate.unsent == 1


def test_a_stopped_gate_never_opens() -> None:
    """Once stopped, no time is early enough."""
    gate = SubmitThrottle(stop=AccountStopped(provider="p"))
    assert gate.ready_at(0.0) == math.inf


# --- the ladder ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**9), chances, st.floats(0.01, 10), st.floats(10, 1000))
def test_the_ladder_is_bounded_at_every_step(step: int, u: float, first: float, cap: float) -> None:
    """The wait before any try, the billionth included, is at least half the first rung and at most the cap."""
    assert first / 2 <= backoff_delay(step, u, first=first, cap=cap) <= max(cap, first / 2)


def test_the_ladder_doubles_up_to_its_cap() -> None:
    """With the greatest chance the rungs are 1, 2, 4 ... and then the cap."""
    heights = [backoff_delay(step, 1.0, first=1.0, cap=60.0) for step in range(9)]
    assert heights == [1, 2, 4, 8, 16, 32, 60, 60, 60]
