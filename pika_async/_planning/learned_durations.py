"""Durations of one stratum for an estimate: the settled tasks themselves, with a fitted tail. Pure.

`DurationEstimator` answers another question, when to poll a task, for which a tail that is too heavy costs little. The
end of a batch is the maximum of many durations: here the tail decides. So the body of the cdf is that of the samples,
and beyond the longest of them it falls as that of the lognormal distribution with their mean and deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

from pika_async.polling.distribution import Distribution
from pika_async.polling.durations import MIN_FIT_SIGMA, DurationEstimator, DurationSample

__all__ = ["MIN_SAMPLES", "learned_durations"]

#: Settled tasks from which on the samples are used by themselves; before, the expected duration counts as well.
MIN_SAMPLES: Final = 16
#: Points of the tail for each standard deviation, and how many deviations it is long.
TAIL_POINTS_PER_SIGMA: Final = 4
TAIL_SIGMAS: Final = 4

_NORMAL = NormalDist()


def learned_durations(samples: Sequence[DurationSample], expected: float) -> Distribution:
    """Return the distribution of the durations of a stratum, in seconds.

    :param samples: settled tasks, the oldest first.
    :param expected: the median that is expected before any task has settled, in seconds, above 0.
    """
    if len(samples) < MIN_SAMPLES:
        estimator = DurationEstimator(prior_median=expected)
        for sample in samples:
            estimator.add(sample)
        return estimator.estimate()
    logs = sorted(math.log(sample.middle) for sample in samples)
    count = len(logs)
    mean = math.fsum(logs) / count
    sigma = max(MIN_FIT_SIGMA, math.sqrt(math.fsum((value - mean) ** 2 for value in logs) / (count - 1)))
    points = {0.0: 0.0, math.exp(logs[0] - sigma / 2): 0.0}
    points |= {math.exp(value): number / (count + 1) for number, value in enumerate(logs, 1)}  # the last of equal ones
    longest = (logs[-1] - mean) / sigma
    for step in range(1, TAIL_POINTS_PER_SIGMA * TAIL_SIGMAS + 1):
        z = longest + step / TAIL_POINTS_PER_SIGMA
        left = _NORMAL.cdf(-z) / _NORMAL.cdf(-longest) / (count + 1)
        points[math.exp(mean + sigma * z)] = 1 - left
    return Distribution([*points], [*points.values()])
