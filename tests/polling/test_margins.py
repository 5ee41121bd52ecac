"""Margins of what is learned: progress is trusted only beyond its error, and old durations fade without a drift."""

from __future__ import annotations

import math
from random import Random

import pytest

from pika_async.polling import AdaptivePolling, Distribution, DurationEstimator, DurationSample, PollContext
from pika_async.polling.progress import calibrated

DURATIONS = Distribution.lognormal(60.0, 0.5)


def readings(count: int, noise: float, seed: int) -> list[DurationSample]:
    """Return settled tasks with one reading of 50 to 74 percent each, whose forecast errs by `noise` (log scale)."""
    random, samples = Random(seed), []
    for _ in range(count):
        seconds = 60 * math.exp(random.gauss(0, 0.5))
        percent = random.randint(50, 74)
        age = min(seconds * math.exp(random.gauss(0, noise)) * percent / 100, seconds * 0.98)
        samples.append(DurationSample("s", seconds, seconds, progress_age=age, progress=percent))
    return samples


def trusted(count: int, noise: float, seeds: int = 30) -> int:
    """Return for how many of 30 random batches the forecast of the band is used."""
    return sum(bool(calibrated(readings(count, noise, seed), DURATIONS).trusted()) for seed in range(seeds))


@pytest.mark.parametrize("count", [8, 10, 12, 16, 24])
def test_lucky_readings_are_not_trusted(count: int) -> None:
    """Progress that predicts no better than the durations seems better in some small batches; hardly any trusts it."""
    assert trusted(count, 0.4) <= 1


def test_informative_readings_are_trusted_once_there_are_enough() -> None:
    """Progress that is right within a tenth is used from two dozen readings on, in every batch."""
    assert trusted(24, 0.1) == 30
    assert trusted(7, 0.1) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_old_durations_fade_without_a_drift(seed: int) -> None:
    """While durations grow by a fifth too slowly to count as a drift, the estimate stays within 3 % of them."""
    random, estimator = Random(seed), DurationEstimator(60.0)
    for number in range(4096):
        median = 60 * 1.2 ** min(1, max(0, (number - 1024) / 2048))
        seconds = median * math.exp(random.gauss(0, 0.3))
        estimator.add(DurationSample("s", seconds, seconds))
    assert estimator.drifts == 0
    assert estimator.estimate().quantile(0.5) == pytest.approx(72, rel=0.03)


def test_a_delay_weighs_as_much_as_callbacks_are_lost() -> None:
    """Only completions without a callback wait for a poll: with one in fifty, the first poll is at the median."""
    first = {}
    for loss in (1.0, 0.1, 0.02):
        context = PollContext("s", 0.0, 0, None, None, None, loss)
        first[loss] = AdaptivePolling(expected_seconds=60.0).next_delay(context, 0.5)
    assert first[1.0] < 20 < first[0.1] < 45 < first[0.02] < 75
