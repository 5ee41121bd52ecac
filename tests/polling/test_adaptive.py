"""When to poll next: every delay is finite, above 0 and within its caps, and the durations seen decide it."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import PROGRESS, SHAPES, bimodal, lognormal
from waiting import Costs, Outcome, best_fixed, follow, known_in_full, run

from pika_async import AdaptivePolling, ConfigurationError, FixedInterval, PollingPolicy
from pika_async.polling import Distribution, DurationEstimator, DurationSample, PollContext, Schedule

chances = st.floats(0, 1, exclude_max=True)
ages = st.floats(0, 1e6) | st.sampled_from([0.0, 1e-9, 1e9])
percents = st.none() | st.integers(0, 100)


@st.composite
def observations(draw: st.DrawFn) -> DurationSample:
    """Draw any sample that may come: exact, of an interval, right-censored, left-truncated, with progress or without."""
    since, after, before = sorted(draw(st.tuples(ages, ages, ages)))
    before = draw(st.sampled_from([before, after, math.inf]))
    progress = draw(percents)
    return DurationSample(
        draw(st.sampled_from(["a", "b"])), after, before, since, after if progress is not None else None, progress
    )


waitings = st.builds(
    lambda stratum, early, late, polls, progress, progress_age, resumed: PollContext(
        stratum, max(early, late), polls, progress, min(early, late) if polls and not resumed else None, progress_age
    ),
    st.sampled_from(["a", "c"]), ages, ages, st.integers(0, 10_000), percents, st.none() | ages, st.booleans(),
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.none() | st.floats(1e-3, 1e5),
    st.none() | st.floats(1e-3, 1e5),
    st.lists(observations() | waitings, max_size=30),
    waitings,
    chances,
)
def test_every_delay_is_finite_above_zero_and_within_its_cap(
    expected: float | None,
    weight: float | None,
    history: list[DurationSample | PollContext],
    waiting: PollContext,
    u: float,
) -> None:
    """After any history, at any age and progress: at least 0.05 s, and after the first poll at most 0.35 x age + 2 s."""
    policy = AdaptivePolling(expected_seconds=expected, **({} if weight is None else {"delay_weight": weight}))
    for each in history:
        if isinstance(each, PollContext):
            policy.next_delay(each, u)
        else:
            policy.observe(each)
    delay = policy.next_delay(waiting, u)
    assert math.isfinite(delay)
    assert delay >= 0.05
    if waiting.polls:
        assert delay <= 0.35 * waiting.age + 2.0 + 1e-9


def test_delays_after_a_progress_of_zero_are_finite_at_any_age() -> None:
    """Once a progress of 0 is trusted: read now, long ago, at a later age, and with a clock that stands still."""
    policy = policy_with_queue_times(300)
    assert policy.describe()["a"].trusted_from == (0,)
    for age in (0.0, 1e-9, 1.0, 60.0, 1e9):
        for progress_age in (None, 0.0, 1e-9, 30.0, 1e9):
            delay = policy.next_delay(PollContext("a", age, 3, 0, age, progress_age), 0.5)
            assert 0.05 <= delay <= 0.35 * age + 2.0 + 1e-9


def policy_with_queue_times(count: int, seed: int = 5) -> AdaptivePolling:
    """Return a policy that has observed *count* tasks, each queued up to some age and settled 55 to 65 s later."""
    policy, random = AdaptivePolling(), Random(seed)
    for _ in range(count):
        queued = random.expovariate(1 / 100)
        settled = queued + random.uniform(55, 65)
        policy.observe(DurationSample("a", settled, settled, progress_age=queued, progress=0))
    return policy


def test_a_queued_task_is_polled_a_generation_after_it_left_the_queue() -> None:
    """If tasks take a minute from the queue on, a poll comes near 60 s after the queue, not after the acceptance."""
    policy = policy_with_queue_times(300)
    for queued in (50.0, 150.0, 400.0):
        age = queued + 45.0
        poll_age = age + policy.next_delay(PollContext("a", age, 3, 0, None, queued), 0.5)
        assert queued + 53 <= poll_age <= queued + 60


def test_a_progress_of_zero_that_predicts_nothing_is_not_trusted() -> None:
    """A provider reports 0 at any share of the duration: the forecast is not used."""
    policy, random = AdaptivePolling(), Random(6)
    for _ in range(300):
        settled = 60 * math.exp(0.5 * random.gauss(0, 1))
        progress_age = settled * random.random()
        policy.observe(DurationSample("a", settled, settled, progress_age=progress_age, progress=0))
    assert policy.describe()["a"].trusted_from == ()


def test_an_earlier_percent_forecasts_the_same_settle_time() -> None:
    """Half done at 30 s is settled at 60 s, whether the percent is from this poll at 30 s or kept until 50 s."""
    policy, random = AdaptivePolling(), Random(7)
    for _ in range(100):
        settled = 60 * math.exp(0.5 * random.gauss(0, 1))
        share = random.uniform(0.5, 0.7)
        policy.observe(DurationSample("a", settled, settled, progress_age=share * settled, progress=int(100 * share)))
    assert policy.describe()["a"].trusted_from == (50,)
    poll_age = 50.0 + policy.next_delay(PollContext("a", 50.0, 3, 50, None, 30.0), 0.5)
    assert poll_age == pytest.approx(60.0, rel=0.05)


@settings(max_examples=50)
@given(st.lists(st.tuples(ages, st.integers(1, 9), percents), max_size=30))
def test_resumed_tasks_change_no_decision(resumed: list[tuple[float, int, int | None]]) -> None:
    """Contexts without the age at which the task was last seen: the same decisions after as before."""
    policy, other = policy_with_queue_times(70), policy_with_queue_times(70)
    for age, polls, progress in resumed:
        policy.next_delay(PollContext("a", age, polls, progress), 0.5)
    assert policy.describe() == other.describe()
    assert decisions(policy) == decisions(other)


@given(st.floats(1e-3, 1e6), ages, st.integers(0, 9), chances)
def test_a_fixed_interval_is_fixed(seconds: float, age: float, polls: int, u: float) -> None:
    """The delay is the interval for every task, whatever was observed."""
    policy = FixedInterval(seconds)
    policy.observe(DurationSample("a", 1.0, 2.0))
    assert policy.next_delay(PollContext("a", age, polls), u) == seconds


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, math.inf, -math.inf, "5", True, [5]])
def test_bad_seconds_are_refused_by_name(seconds: Any) -> None:
    """Anything but a number above 0 raises an error that shows the value."""
    with pytest.raises(ConfigurationError, match=r"seconds: must be a number above 0, not "):
        FixedInterval(seconds)
    for name in ("expected_seconds", "delay_weight", "max_polls_per_second"):
        with pytest.raises(ConfigurationError, match=f"{name}: must be a number above 0, not "):
            AdaptivePolling(**{name: seconds})


def test_the_policies_follow_the_protocol() -> None:
    """Both policies are of the public base class and return a delay above 0."""
    policies: list[PollingPolicy] = [AdaptivePolling(), FixedInterval(1)]
    assert [policy.next_delay(PollContext("a", 0.0, 0), 0.5) > 0 for policy in policies] == [True, True]


def first_poll_age(policy: PollingPolicy, stratum: str = "a", u: float = 0.5) -> float:
    return policy.next_delay(PollContext(stratum, 0.0, 0), u)


@pytest.mark.parametrize("seconds", [5.0, 20.0, 200.0, 1000.0])
def test_the_first_poll_moves_to_the_durations_that_were_seen(seconds: float) -> None:
    """After a hundred tasks of about *seconds*, the first poll comes near it, whatever was expected before."""
    policy = AdaptivePolling(expected_seconds=60)
    random = Random(7)
    for _ in range(100):
        duration = seconds * random.uniform(0.95, 1.05)
        policy.observe(DurationSample("a", duration, duration))
    assert 0.85 * seconds <= first_poll_age(policy) <= 1.1 * seconds


def test_strata_are_learned_apart() -> None:
    """Durations of one kind of task do not move the polls of another."""
    policy = AdaptivePolling()
    before = first_poll_age(policy, "b")
    for _ in range(50):
        policy.observe(DurationSample("a", 5.0, 5.0))
    assert first_poll_age(policy, "b") == before
    assert first_poll_age(policy, "a") < before / 2


def test_old_durations_are_forgotten() -> None:
    """When tasks become ten times slower, the first poll has followed after one window of them."""
    policy = AdaptivePolling()
    for seconds in [10.0] * 300 + [100.0] * 200:
        policy.observe(DurationSample("a", seconds, seconds))
    assert first_poll_age(policy) == pytest.approx(100.0, rel=0.06)


@pytest.mark.parametrize("policy", [AdaptivePolling(), AdaptivePolling(expected_seconds=30)])
def test_a_burst_of_tasks_is_not_polled_in_a_burst(policy: AdaptivePolling) -> None:
    """Of 10,000 tasks accepted in one second, no second holds more than a third of the first polls."""
    random = Random(11)
    polls = Counter(
        int(accepted + policy.next_delay(PollContext("a", 0.0, 0), random.random()))
        for accepted in (random.random() for _ in range(10_000))
    )
    assert sum(polls.values()) == 10_000
    assert max(polls.values()) <= 3_333
    assert len(polls) >= 4


@pytest.mark.slow
def test_polls_of_a_burst_stay_spread_until_it_has_settled() -> None:
    """10,000 tasks accepted in one second: no second holds more than 4 times the mean of the middle nine tenths of the polls."""
    policy, random = policy_with_durations(256), Random(12)
    polls: Counter[int] = Counter()
    for _ in range(10_000):
        policy.next_delay(PollContext("a", 0.0, 0), random.random())
    for _ in range(10_000):
        accepted, length, age, count = random.random(), 60 * math.exp(0.5 * random.gauss(0, 1)), 0.0, 0
        while age < length:
            age += policy.replan_delay(PollContext("a", age, count), random.random())
            count += 1
            polls[int(accepted + age)] += 1
    at = sorted(polls.elements())
    middle = 0.9 * len(at) / (at[int(0.95 * len(at))] - at[int(0.05 * len(at))] + 1)
    assert max(polls.values()) <= 4 * middle


def policy_with_durations(count: int) -> AdaptivePolling:
    policy = AdaptivePolling()
    for seen in settles(count):
        policy.observe(seen)
    return policy


@given(st.floats(5, 500), st.floats(0, 3))
@settings(max_examples=60)
def test_a_settled_task_is_found_soon(expected: float, share: float) -> None:
    """A task of any length up to three times the expectation is found within 0.4 x its age + 3 s, in few polls."""
    policy = AdaptivePolling(expected_seconds=expected)
    settles_at = share * expected
    age, polls = 0.0, 0
    while True:
        age += policy.next_delay(PollContext("a", age, polls), 0.5)
        polls += 1
        if age >= settles_at:
            break
    assert age <= max(0.75 * expected, 1.4 * settles_at + 3.0)
    assert polls <= 40


# --- estimates and trust ----------------------------------------------------------------------------------------------


def settles(count: int, sigma: float = 0.5, seed: int = 3) -> list[DurationSample]:
    """Return lognormal durations around 60 s as polls 7 s apart find them."""
    random = Random(seed)
    lengths = [60 * math.exp(sigma * random.gauss(0, 1)) for _ in range(count)]
    return [DurationSample("a", 7 * (x // 7), 7 * (x // 7) + 7) for x in lengths]


def decisions(policy: AdaptivePolling) -> list[float]:
    fresh = [policy.next_delay(PollContext("a", 0.0, 0), u) for u in (0.0, 0.5, 0.9)]
    return fresh + [policy.next_delay(PollContext("a", float(age), 3), 0.5) for age in range(5, 200, 13)]


@settings(max_examples=25)
@given(st.lists(observations().map(lambda seen: attrs.evolve(seen, stratum="a")), max_size=20), st.randoms())
def test_the_order_of_observations_does_not_matter(seen: list[DurationSample], random: Any) -> None:
    """The same tasks in another order lead to the same delays, up to rounding."""
    shuffled = list(seen)
    random.shuffle(shuffled)
    policies = AdaptivePolling(), AdaptivePolling()
    for policy, rows in zip(policies, (seen, shuffled), strict=True):
        for row in rows:
            policy.observe(row)
    assert decisions(policies[0]) == pytest.approx(decisions(policies[1]), rel=1e-6)


def test_a_restored_policy_decides_the_same() -> None:
    """A policy that is given the last 256 samples, through JSON, decides as the one that observed them."""
    lived = AdaptivePolling()
    for seen in settles(256):
        lived.observe(seen)
        lived.next_delay(PollContext("a", 0.0, 0), 0.5)
    restored = [AdaptivePolling(), AdaptivePolling()]
    for policy in restored:
        for seen in settles(256):
            policy.observe(DurationSample(**json.loads(json.dumps(attrs.asdict(seen)))))
    assert decisions(restored[0]) == decisions(restored[1])
    truth = known_in_full(lognormal(60, 0.5))
    jobs = [Outcome(truth.quantile((i + 0.5) / 2000)) for i in range(2000)]
    costs = []
    for policy in (lived, restored[0]):
        assert policy.describe()["a"].settled == 256
        found = policy._strata["a"]
        polls, delay = follow(jobs, found.schedule.after)
        costs.append(polls + delay * 200 / 60)
    assert costs[0] == pytest.approx(costs[1], rel=0.05)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(observations() | waitings, max_size=30), st.lists(observations() | waitings, max_size=8), chances)
def test_to_describe_changes_no_decision(
    history: list[DurationSample | PollContext], more: list[DurationSample | PollContext], u: float
) -> None:
    """After any history `describe` raises nothing, prints, and leaves every later delay as in a policy never described."""
    described, untouched = AdaptivePolling(), AdaptivePolling()
    for policy in (described, untouched):
        for each in history:
            policy.next_delay(each, u) if isinstance(each, PollContext) else policy.observe(each)
    forecasts = described.describe()
    assert forecasts == described.describe()
    assert set(forecasts) == {each.stratum for each in history}
    assert str(forecasts)
    for forecast in forecasts.values():
        low, high = forecast.spread
        assert 0 <= low <= forecast.median <= high < math.inf
        assert list(forecast.polls) == sorted(forecast.polls)
    for each in more:
        if isinstance(each, PollContext):
            assert described.next_delay(each, u) == untouched.next_delay(each, u)
        else:
            assert described.observe(each) == untouched.observe(each)
        described.describe()


def test_the_described_polls_are_the_polls() -> None:
    """After samples of earlier processes the first two polls that `describe` lists are the first two polls."""
    policy = AdaptivePolling()
    for seen in settles(100):
        policy.observe(seen)
    first, second, *_ = policy.describe()["a"].polls
    assert policy.next_delay(PollContext("a", 0.0, 0), 0.5) == pytest.approx(first)
    assert policy.next_delay(PollContext("a", first, 1, None, 0.0), 0.5) == pytest.approx(second - first)


def test_forecasts_are_printed_for_people() -> None:
    """One line for the durations, one for the polls, one for the reason; a short text without any task."""
    assert str(AdaptivePolling().describe()) == "no task yet"
    policy = AdaptivePolling(expected_seconds=20)
    policy.next_delay(PollContext("native/-/text/plain", 0.0, 0), 0.5)
    name, counts, durations, polls, why = str(policy.describe()).splitlines()
    assert (name, counts) == ("native/-/text/plain", "  0 settled, 1 in flight")
    assert durations == "  half take less than 20 s, four in five 4.3 s to 93 s"
    assert polls.startswith("  next polls ")
    assert why == "  why: 20 s was expected; 1 s of delay costs as much as 10.0 polls"
    assert FixedInterval(5).describe() == {}


def test_the_reason_names_drifts_and_trusted_progress() -> None:
    """Durations that have drifted, and the bands of progress that are trusted."""
    policy = AdaptivePolling()
    random = Random(2)
    for _ in range(100):
        seconds = 60 * math.exp(0.5 * random.gauss(0, 1))
        policy.observe(DurationSample("a", seconds, seconds, progress_age=seconds * 0.6, progress=60))
    policy._strata["a"].durations.drifts = 2
    forecast = policy.describe()["a"]
    assert forecast.trusted_from == (50,)
    assert forecast.why.startswith(
        "learned from 100 settled; older ones forgotten 2 x, as durations changed; progress used from 50 %; 1 s of"
    )


def test_unsettled_tasks_count_in_the_estimate() -> None:
    """Of a hundred tasks ten settle before 20 s and ninety are seen unsettled at 100: the median is beyond that."""
    policy = AdaptivePolling(expected_seconds=20)
    for _ in range(100):
        policy.next_delay(PollContext("a", 0.0, 0), 0.5)
    for i in range(10):
        policy.observe(DurationSample("a", 10.0 + i, 11.0 + i), 0.0)
    for _ in range(90):
        policy.next_delay(PollContext("a", 100.0, 1, None, 0.0), 0.5)
    policy.observe(DurationSample("a", 100.0, 101.0), 100.0)
    assert policy.describe()["a"].median > 95
    assert policy.describe()["a"].in_flight == 89


def test_left_truncated_samples_do_not_bias_the_estimate() -> None:
    """A hundred tasks take 10 or 100 s, half and half; another hundred are watched from 50 s on: half still settle by 50."""
    durations = DurationEstimator(prior_median=60)
    for seconds in [10.0, 100.0] * 50:
        durations.add(DurationSample("a", seconds, seconds))
        durations.add(DurationSample("a", 100.0, 100.0, since=50.0))
    assert durations.estimate().share(50.0) == pytest.approx(0.5, abs=0.05)


def test_doubled_durations_move_the_median_after_two_dozen() -> None:
    """After 256 tasks of a minute, 24 of two minutes: the median is beyond 100 s."""
    random = Random(4)
    durations = DurationEstimator(prior_median=60)
    for i in range(280):
        seconds = (60 if i < 256 else 120) * math.exp(0.2 * random.gauss(0, 1))
        durations.add(DurationSample("a", seconds, seconds))
        if i % 20 == 0:
            durations.estimate()
    assert durations.estimate().quantile(0.5) > 100


@pytest.mark.parametrize("before", [200, 211, 256, 300])
@pytest.mark.parametrize("then", [30, 120])
def test_the_estimate_does_not_depend_on_how_often_it_is_read(before: int, then: int) -> None:
    """Durations change: read after each settle, after each twenty or never, the estimate is the same 48 settles later."""
    found = []
    for every in (1, 20, 10_000):
        random = Random(4)
        durations = DurationEstimator(prior_median=60)
        for i in range(before + 48):
            seconds = (60 if i < before else then) * math.exp(0.2 * random.gauss(0, 1))
            durations.add(DurationSample("a", seconds, seconds))
            if i % every == 0:
                durations.estimate()
        found.append(durations.estimate().quantile(0.5))
    assert found[0] == found[1] == found[2] == pytest.approx(then, rel=0.15)


def test_durations_that_stay_do_not_drift() -> None:
    """No drift is found in ten strata of 2,000 tasks."""
    for seed in range(10):
        random = Random(seed)
        durations = DurationEstimator(prior_median=60)
        for _ in range(2000):
            seconds = 60 * math.exp(0.5 * random.gauss(0, 1))
            durations.add(DurationSample("a", seconds, seconds))
        assert durations.drifts == 0


@given(
    st.floats(0.5, 5000), st.floats(0.05, 2.0), st.floats(0, 1, exclude_max=True), st.floats(0.01, 5), st.floats(0, 5)
)
def test_undetected_delay_grows_with_age_by_a_second_a_second_at_most(
    median: float, sigma: float, share: float, seen: float, more: float
) -> None:
    """The expected delay is between 0 and the time since the last poll, and its slope between 0 and 1."""
    truth = Distribution.lognormal(median, sigma)
    at, age = seen * median, (seen + more) * median
    first, then = truth.expected_delay(at, age), truth.expected_delay(at, age + share * median)
    assert -1e-6 <= first <= age - at + 1e-6 * median
    assert first - 1e-6 * median <= then <= first + share * median * (1 + 1e-6) + 1e-6 * median


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "constant"])
def test_a_schedule_for_known_durations_matches_the_best_fixed_interval(name: str) -> None:
    """Polls at equal mean delay, 3,000 tasks: at most 1.06 of the best interval's, whatever the distribution."""
    random = Random(5)
    jobs = [Outcome(SHAPES[name](i, random)) for i in range(3000)]
    schedule = Schedule.of(known_in_full(SHAPES[name]), 200 / 60)
    polls, delay = follow(jobs, schedule.after)
    assert polls <= 1.06 * best_fixed(jobs, delay)


# --- polls against the best fixed interval ----------------------------------------------------------------------------------------------


def ratio(name: str, **options: Any) -> float:
    """Return the polls over the best fixed interval's at equal mean delay, once 500 of 2,000 tasks have settled."""
    found = []
    for seed in (1, 20):
        jobs = run(AdaptivePolling(), SHAPES[name], seed=seed, **options)[500:]
        costs = Costs.of(jobs)
        found.append(costs.polls / best_fixed(jobs, costs.delay))
    return sum(found) / len(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, most",
    [
        ("constant", 0.40), ("lognormal 0.25", 0.55), ("lognormal 0.5", 0.85), ("bimodal", 0.50), ("weibull 2", 1.0),
        ("weibull 4", 0.75), ("lognormal 1.0", 1.10), ("exponential", 1.10),
    ],
)  # fmt: skip
def test_learned_durations_beat_the_best_fixed_interval(name: str, most: float) -> None:
    """Learned while the tasks run, from settles found between polls: at most *most* of the polls of the best interval."""
    assert ratio(name) <= most


@pytest.mark.slow
@pytest.mark.parametrize("name", ["honest", "distorted", "late"])
def test_informative_progress_is_used(name: str) -> None:
    """With progress that can be learned: a quarter of the polls that the best fixed interval needs."""
    assert ratio("lognormal 0.5", progress=PROGRESS[name]) <= 0.25


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stuck at 0", "stuck at 99", "faked", "random"])
def test_misleading_progress_is_not_trusted(name: str) -> None:
    """With progress that predicts nothing: as without it, within the noise of two runs."""
    assert ratio("lognormal 0.5", progress=PROGRESS[name]) <= 1.10 * ratio("lognormal 0.5")


def test_the_durations_of_the_simulation_are_what_they_are_called() -> None:
    """Four in five of the bimodal tasks take about 40 s."""
    random = Random(1)
    assert sum(bimodal(i, random) < 80 for i in range(2000)) / 2000 == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_more_weight_on_delay_brings_polls_closer(sigma: float) -> None:
    """Four times the weight halves the delay for about twice the polls; an extreme weight still ends soon."""
    random = Random(5)
    jobs = [Outcome(60 * math.exp(sigma * random.gauss(0, 1))) for _ in range(2000)]
    durations = Distribution.lognormal(60, sigma)
    costs = [follow(jobs, Schedule.of(durations, weight / 60).after) for weight in (200, 800, 3200, 12_800)]
    for (polls, delay), (more, less) in pairwise(costs):
        assert 0.4 * delay < less < 0.6 * delay
        assert 1.7 * polls < more < 2.3 * polls
    assert len(Schedule.of(durations, 1e9).ages) < 5000
