"""Time left of a running batch: its range, against simulated batches."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from random import Random

import attrs
import pytest

from pika_async._planning.time_left import Remaining, Stratum, running_durations, time_left

#: Factor by which a range may be missed once a tenth of the jobs has settled.
MOST = 2.0


def rest(stratum: Stratum, *, rooms: float = 50, expected: float = 60.0) -> Remaining:
    return Remaining(strata={"a": stratum}, rooms=rooms, expected=expected, longest=1800.0)


def states(jobs: int, rooms: int, seed: int) -> Iterator[tuple[Stratum, float, float]]:
    """Run a batch of lognormal durations; yield what is known at some settles, the time left and the share of it."""
    random = Random(seed)
    durations = [60 * math.exp(random.gauss(0, 0.5)) for _ in range(jobs)]
    running = [(durations[number], 0.0) for number in range(rooms)]
    heapq.heapify(running)
    begun, settled, seen = rooms, [], []
    now = 0.0
    while running:
        now, accepted = heapq.heappop(running)
        settled.append(now - accepted)
        if begun < jobs:
            heapq.heappush(running, (now + durations[begun], now))
            begun += 1
        seen.append((now, len(settled), [now - at for _, at in running], jobs - begun))
    for at, count, ages, planned in seen[jobs // 10 - 1 : -1 : max(1, jobs // 8)]:
        yield Stratum(settled=settled[:count], ages=ages, planned=planned), now - at, (now - at) / now


@pytest.mark.parametrize(("jobs", "rooms"), [(40, 40), (200, 200), (60, 6), (200, 20), (300, 100)])
def test_a_range_is_never_missed_by_a_factor_of_two(jobs: int, rooms: int) -> None:
    """From a tenth of the jobs on, whatever was expected, while more than a twentieth of the time is left."""
    for seed in range(3):
        for known, real, share in states(jobs, rooms, seed):
            for expected in (20.0, 180.0):
                low, high = time_left(rest(known, rooms=rooms, expected=expected))
                assert 0 < low < high
                assert share < 0.05 or low / MOST < real < high * MOST, (seed, low, real, high)


def test_nothing_left_takes_no_time() -> None:
    assert time_left(rest(Stratum(settled=[50.0] * 20))) == (0.0, 0.0)
    assert time_left(attrs.evolve(rest(Stratum()), strata={})) == (0.0, 0.0)


def test_tasks_in_flight_count_as_slow_as_they_are() -> None:
    """Ten fast ones of a hundred do not promise that the others are fast."""
    fast = [20.0 + number for number in range(10)]
    alone, _ = running_durations(Stratum(settled=fast), 60.0)
    beside, fit = running_durations(Stratum(settled=fast, ages=[30.0] * 90), 60.0)
    assert alone.quantile(0.5) < 26
    assert beside.quantile(0.5) > 35
    assert fit.middle < -1


def test_the_more_have_settled_the_narrower_is_the_range() -> None:
    few, many = (
        time_left(rest(Stratum(settled=[40.0, 60.0, 90.0] * count, planned=200), rooms=20)) for count in (1, 50)
    )
    assert many[1] / many[0] < few[1] / few[0]


def test_a_stratum_of_which_few_have_settled_is_expected_to_take_what_others_do() -> None:
    """That of a stratum with enough settled tasks of its own is not."""
    fast = Stratum(settled=[5.0 + number / 10 for number in range(20)])
    unknown = attrs.evolve(rest(fast), strata={"fast": fast, "new": Stratum(planned=10)})
    slow = Stratum(settled=[100.0 + number for number in range(8)], planned=10)
    assert time_left(unknown)[1] < 30
    assert time_left(attrs.evolve(unknown, strata={"fast": fast, "slow": slow}))[0] > 70


def test_thousands_of_tasks_are_thinned_out() -> None:
    """A distribution has so many points that it is made in milliseconds."""
    random = Random(1)
    settled = [60 * math.exp(random.gauss(0, 0.5)) for _ in range(20_000)]
    distribution, fit = running_durations(Stratum(settled=settled), 60.0)
    assert len(distribution.ages) < 1100
    assert fit.sigma == pytest.approx(0.5, abs=0.05)
    assert distribution.quantile(0.5) == pytest.approx(60, rel=0.1)


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e6])
def test_odd_durations_have_a_range(value: float) -> None:
    """Equal, vanishing and endless ones give numbers."""
    low, high = time_left(rest(Stratum(settled=[value] * 9, ages=[value] * 9, planned=9)))
    assert 0 <= low <= high < math.inf
