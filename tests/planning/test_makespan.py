"""Range of a batch's makespan, against a simulation of list scheduling."""

from __future__ import annotations

import heapq
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pika_async._planning.learned_durations import MIN_SAMPLES, learned_durations
from pika_async._planning.makespan import Workload, makespan, mixture
from pika_async.polling import Distribution, DurationSample

MANY = 10**9
LONGEST = 1800.0


def simulated(jobs: int, rooms: int, sigma: float, random: Random, rate: float | None) -> float:
    """Return the makespan of one batch: each job takes the first room that becomes free."""
    busy: list[float] = []
    end = 0.0
    for number in range(jobs):
        begin = number / rate if rate else 0.0
        if len(busy) >= rooms:
            begin = max(begin, heapq.heappop(busy))
        settled = begin + min(LONGEST, 60 * math.exp(random.gauss(0, sigma)))
        heapq.heappush(busy, settled)
        end = max(end, settled)
    return end


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(
    ("jobs", "rooms", "rate"),
    [
        (1, 10, None), (50, 1000, None), (101, 100, None), (130, 100, None), (300, 200, None), (300, 100, None),
        (300, 20, None), (100, 1, None), (200, 1000, 1.0), (200, 50, 0.5),
    ],
)  # fmt: skip
def test_batches_end_in_the_range(jobs: int, rooms: int, rate: float | None, sigma: float) -> None:
    """With known durations, at least 95 % of simulated batches do, and the range is hardly wider than they need."""
    random = Random(7)
    durations = mixture([(jobs, Distribution.lognormal(60, sigma), MANY)], LONGEST)
    load = Workload(jobs=jobs, rooms=rooms, per_second=rate, detection=0.0)
    low, high = makespan(load, durations)
    ends = sorted(simulated(jobs, rooms, sigma, random, rate) for _ in range(200))
    assert sum(low <= end <= high for end in ends) >= 190
    assert high - low <= 2.5 * (ends[-2] - ends[1])


def test_nothing_to_do_takes_no_time() -> None:
    """Without jobs and without tasks in flight the range is 0 to 0."""
    durations = mixture([(1, Distribution.lognormal(60, 0.5), MANY)], LONGEST)
    assert makespan(Workload(jobs=0, rooms=10), durations) == (0.0, 0.0)


def test_a_task_in_flight_takes_the_rest_of_its_time() -> None:
    """A task of an age of 59 s of 60 s ends in about a second, and one job more takes its whole time."""
    durations = mixture([(1, Distribution.lognormal(60, 0.02), MANY)], LONGEST)
    old = makespan(Workload(jobs=0, ages=[59.0], rooms=10, detection=0.0), durations)
    both = makespan(Workload(jobs=1, ages=[59.0], rooms=10, detection=0.0), durations)
    assert 0 < old[0] < 1 < old[1] < 5
    assert 55 < both[0] < 60 < both[1] < 65


def test_no_task_is_waited_for_beyond_its_deadline() -> None:
    """Durations are cut off there: a heavy tail does not make a single round longer."""
    durations = mixture([(500, Distribution.lognormal(60, 1.2), MANY)], 100.0)
    assert makespan(Workload(jobs=500, rooms=500, detection=0.0), durations)[1] <= 100.1


@settings(max_examples=25)
@given(st.integers(1, 400), st.integers(1, 200), st.integers(0, 300))
def test_fewer_samples_make_no_narrower_range(jobs: int, rooms: int, samples: int) -> None:
    """What was learned from fewer tasks is known less."""
    law = Distribution.lognormal(60, 0.5)
    load = Workload(jobs=jobs, rooms=rooms)
    few = makespan(load, mixture([(jobs, law, samples)], LONGEST))
    many = makespan(load, mixture([(jobs, law, samples + 50)], LONGEST))
    assert few[0] <= many[0] <= many[1] <= few[1]


def test_strata_count_by_their_jobs() -> None:
    """A mixture of two strata has the mean of its jobs, and its variance is that between them too."""
    parts = [(3, Distribution.lognormal(30, 0.1), 100), (1, Distribution.lognormal(120, 0.1), 100)]
    durations = mixture(parts, LONGEST)
    assert durations.mean == pytest.approx(0.75 * 30 + 0.25 * 120, rel=0.02)
    assert math.sqrt(durations.variance) == pytest.approx(39.2, rel=0.1)


def test_learned_durations_are_those_of_the_samples() -> None:
    """The body of the distribution is theirs, and the tail is that of a lognormal distribution, not of outliers."""
    random = Random(3)
    values = [60 * math.exp(random.gauss(0, 0.5)) for _ in range(200)]
    learned = learned_durations([DurationSample("s", 0.98 * value, 1.02 * value) for value in values], expected=999)
    assert learned.quantile(0.5) == pytest.approx(sorted(values)[100], rel=0.05)
    assert 60 * math.exp(0.5 * 2.4) < learned.quantile(0.999) < 60 * math.exp(0.5 * 4.5)


@pytest.mark.parametrize("count", [0, 1, MIN_SAMPLES - 1])
def test_few_samples_leave_the_expected_duration_its_weight(count: int) -> None:
    """Before 16 tasks have settled the expectation counts as well."""
    samples = [DurationSample("s", 29, 31)] * count
    assert 29 < learned_durations(samples, expected=60).quantile(0.5) < 90


def test_equal_durations_are_learned() -> None:
    """Samples without any spread give a distribution around them."""
    learned = learned_durations([DurationSample("s", 60, 60)] * 40, expected=10)
    assert 55 < learned.quantile(0.1) < learned.quantile(0.99) < 66
