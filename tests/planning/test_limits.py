"""Token buckets, the circuit breaker and the submit throttle keep their guarantees under any history."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pika_async import AccountStopped
from pika_async._planning.backoff import backoff_delay
from pika_async._planning.limits import CircuitBreaker, SubmitThrottle, TokenBucket

fractions = st.floats(0, 1, exclude_max=True)
gaps = st.floats(0, 100)


# --- token bucket ---------------------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 1000), st.lists(st.floats(0, 20), max_size=60), st.floats(0, 1e7))
def test_a_rate_is_never_exceeded_over_any_window(per_second: float, pauses: list[float], start: float) -> None:
    """In every window of any length, calls begin at most as often as one second's worth (or one) plus the rate."""
    bucket = TokenBucket(per_second)
    now = start
    begun = []
    for pause in pauses:
        now += pause
        now = max(now, bucket.ready_at(now))
        bucket.take(now)
        begun.append(now)
    burst = max(1.0, per_second)
    for first in range(len(begun)):
        for last in range(first, len(begun)):
            window = begun[last] - begun[first]
            assert last - first + 1 <= burst + per_second * window + 1e-3 * max(1.0, window)


@given(st.floats(0.01, 1000), st.integers(1, 50), st.floats(0, 1e7))
def test_a_rate_is_reached(per_second: float, calls: int, start: float) -> None:
    """Calls that always wait for `ready_at` reach the full rate, and no delay is longer than necessary."""
    bucket = TokenBucket(per_second)
    now = start
    for _ in range(calls):
        ready = bucket.ready_at(now)
        assert now <= ready <= now + 1 / per_second + 1e-6
        now = ready
        assert bucket.ready_at(now) <= now + 1e-6  # the call may begin, within the rounding error of the time
        bucket.take(now)
    assert now - start <= calls / per_second + 1e-3


def test_without_a_rate_calls_are_not_limited() -> None:
    """A bucket without a rate lets every call begin at once."""
    bucket = TokenBucket(None)
    for _ in range(1000):
        assert bucket.ready_at(5.0) == 5.0
        bucket.take(5.0)


# --- breaker ------------------------------------------------------------------------------------------------------------


def is_open(breaker: CircuitBreaker) -> bool:
    """Return the state; type checkers assume that a property is constant, but not a call."""
    return breaker.is_open


def test_the_breaker_opens_after_its_threshold_and_not_before() -> None:
    """The eighth consecutive failure opens it, the seventh does not; an answer in between resets the count."""
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


def test_failures_of_earlier_polls_are_ignored_while_open() -> None:
    """Polls that began before the breaker opened neither lengthen its pause nor count as the probe."""
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


@given(st.lists(st.tuples(st.sampled_from(["begin", "fail", "succeed"]), gaps, fractions), max_size=120))
def test_the_breaker_admits_one_probe_at_a_time(history: list[tuple[str, float, float]]) -> None:
    """While it is open, at most one probe is sent at a time; its pauses are above 0 and at most 60 s."""
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


# --- submit throttle ---------------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from(["wait", "retry after", "unreachable", "answered"]), gaps, fractions), max_size=80
    )
)
def test_pauses_of_the_throttle_are_bounded_and_never_shortened(history: list[tuple[str, float, float]]) -> None:
    """After any refusal the pause ends within 30 s, or at the time of `Retry-After`; nothing ends it sooner."""
    throttle = SubmitThrottle()
    now = 0.0
    for what, gap, u in history:
        now += gap
        before = throttle.ready_at(now)
        if what == "answered":
            throttle.reset()
            assert throttle.ready_at(now) == before
        elif what == "retry after":
            retry_after = 1 + 299 * u
            throttle.pause(now, u, retry_after)
            assert throttle.ready_at(now) == max(before, now + retry_after)
        else:
            if what == "wait":
                throttle.pause(now, u, None)
            else:
                throttle.record_unreachable(now, u)
            assert throttle.ready_at(now) >= before
            assert throttle.ready_at(now) == before or now + 0.25 <= throttle.ready_at(now) <= now + 30.0


def test_a_retry_after_of_0_backs_off() -> None:
    """An account that refuses with `Retry-After: 0` is tried less and less often, as without the header."""
    throttle = SubmitThrottle()
    now, pauses = 0.0, []
    for _ in range(6):
        throttle.pause(now, 0.5, 0.0)
        pauses.append(throttle.ready_at(now) - now)
        now = throttle.ready_at(now)
    assert pauses == sorted(pauses)
    assert pauses[-1] > 5


def test_the_throttle_gives_up_after_six_consecutive_attempts() -> None:
    """The sixth consecutive submission that could not be sent returns True; failures during a pause are not counted."""
    throttle = SubmitThrottle()
    now = 0.0
    gave_up = []
    for _ in range(6):
        gave_up.append(throttle.record_unreachable(now, 0.5))
        assert throttle.record_unreachable(now, 0.5) is False  # sent before the pause began
        now = throttle.ready_at(now)
    assert gave_up == [False] * 5 + [True]
    assert throttle.unsent == 6


def test_an_answer_resets_the_count_of_the_throttle() -> None:
    """Any answer proves that the provider can be reached."""
    throttle = SubmitThrottle()
    now = 0.0
    for _ in range(5):
        assert throttle.record_unreachable(now, 0.5) is False
        now = throttle.ready_at(now)
    throttle.reset()
    assert throttle.record_unreachable(now, 0.5) is False
    assert throttle.unsent == 1


def test_a_stopped_throttle_allows_no_submission() -> None:
    """Once stopped, `ready_at` is infinite."""
    throttle = SubmitThrottle(stop=AccountStopped(provider="p"))
    assert throttle.ready_at(0.0) == math.inf


# --- backoff ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**9), fractions, st.floats(0.01, 10), st.floats(10, 1000))
def test_the_backoff_is_bounded_at_every_step(step: int, u: float, first: float, cap: float) -> None:
    """The delay before any try, the billionth included, is at least half of `first` and at most the cap."""
    assert first / 2 <= backoff_delay(step, u, first=first, cap=cap) <= max(cap, first / 2)


def test_the_backoff_doubles_up_to_its_cap() -> None:
    """The longest delays are 1, 2, 4 ... and then the cap."""
    delays = [backoff_delay(step, 1.0, first=1.0, cap=60.0) for step in range(9)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
