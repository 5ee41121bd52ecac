"""Time until a running batch has ended, as a range: from settled tasks, and the ages of the others. Pure.

The first tasks to settle are the fast ones: while others of the same age still run, their durations alone would promise
too short a time. So each task in flight counts as far as it came (right-censoring; Kaplan and Meier, 1958). Beyond the
longest settled task the cdf falls as that of the lognormal distribution with the greatest likelihood, found by
expectation and maximization (Dempster, Laird and Rubin, 1977).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Final

import attrs

from pika_async._planning.makespan import Workload, makespan, mixture
from pika_async.polling.distribution import Distribution
from pika_async.polling.durations import MIN_FIT_SIGMA, SHORTEST_SECONDS, DurationEstimator

__all__ = ["Remaining", "Stratum", "running_durations", "time_left"]

#: Part of the logarithm of `makespan`'s range, which holds 98 % of batches, that a display has.
RANGE_SHARE: Final = 0.8
#: Settled tasks of a stratum from which on they are used without those of other strata.
MIN_SETTLED: Final = 8
#: Settled tasks that the expected median counts as once one has settled.
MEDIAN_WEIGHT: Final = 0.25
#: Deviation of the logarithm before any task has settled, and the settled tasks that it counts as.
EXPECTED_SIGMA: Final = 0.5
SIGMA_WEIGHT: Final = 3.0
#: Tasks from which a distribution is made; of more, every second one, every third...
MAX_FITTED_TASKS: Final = 1000
#: Ages that a fit distinguishes.
MAX_AGES: Final = 40
#: Rounds of the fit, and the change at which it ends.
MAX_ROUNDS: Final = 300
FIT_TOLERANCE: Final = 1e-4
#: Points of the tail for each standard deviation, and how many deviations it is long.
POINTS_PER_DEVIATION: Final = 4
TAIL_DEVIATIONS: Final = 8
#: Smallest probability that is divided by.
MIN_TAIL: Final = 1e-12

_NORMAL = NormalDist()


@attrs.frozen(kw_only=True)
class Stratum:
    """Tasks with similar durations.

    :param settled: durations of tasks that settled, in seconds.
    :param ages: seconds since each task was accepted that is in flight.
    :param planned: number of jobs that are still to be sent, >= 0.
    """

    settled: Sequence[float] = ()
    ages: Sequence[float] = ()
    planned: int = 0


@attrs.frozen(kw_only=True)
class Remaining:
    """The rest of a batch and the room for it.

    :param strata: its tasks, by stratum.
    :param rooms: number of tasks in flight at a time, >= 1.
    :param expected: median duration that is expected before any task has settled, in seconds.
    :param longest: seconds after which a task is given up.
    :param per_second: submissions per second; None, the default: no limit.
    """

    strata: Mapping[str, Stratum]
    rooms: float
    expected: float
    longest: float
    per_second: float | None = None


@attrs.frozen
class Fit:
    """Lognormal distribution of durations.

    :param mean: mean of the logarithms.
    :param sigma: their standard deviation.
    :param middle: mean of the standardized logarithms of those that settled; below 0 while slow ones still run.
    """

    mean: float
    sigma: float
    middle: float = 0.0


def time_left(rest: Remaining) -> tuple[float, float]:
    """Return the seconds until every task has settled, low and high; 0 and 0 where none is left."""
    left = {name: one for name, one in rest.strata.items() if one.planned or one.ages}
    if not left:
        return 0.0, 0.0
    pooled = Stratum(
        settled=[value for one in rest.strata.values() for value in one.settled],
        ages=[age for one in rest.strata.values() for age in one.ages],
    )
    parts = []
    error = 0.0
    total = sum(one.planned + len(one.ages) for one in left.values())
    for one in left.values():
        known = one if len(one.settled) >= MIN_SETTLED else pooled
        distribution, fit = running_durations(known, rest.expected)
        count = one.planned + len(one.ages)
        parts.append((count, distribution, len(known.settled)))
        error += (count / total) * _error(fit, len(known.settled), total)
    durations = attrs.evolve(mixture(parts, rest.longest), error=error)
    load = Workload(
        jobs=sum(one.planned for one in left.values()),
        rooms=max(1.0, rest.rooms),
        ages=[age for one in left.values() for age in one.ages],
        per_second=rest.per_second,
    )
    low, high = makespan(load, durations)
    middle = math.sqrt(low * high)
    return middle * (low / middle) ** RANGE_SHARE, middle * (high / middle) ** RANGE_SHARE


def _error(fit: Fit, settled: int, left: int) -> float:
    """Return the standard deviation of the logarithm of the slowest of `left` tasks, as far as it is known.

    The fit is sure of the durations that it has seen, and less so of longer ones, as a regression line is.
    """
    slowest = _NORMAL.inv_cdf(left / (left + 1))
    return fit.sigma * math.sqrt((1 + (slowest - fit.middle) ** 2 / 2) / (settled + SIGMA_WEIGHT))


def running_durations(known: Stratum, expected: float) -> tuple[Distribution, Fit]:
    """Return the distribution of the durations of a stratum in seconds, and the fit of its tail.

    :param expected: the median that is expected before any task has settled, in seconds, above 0.
    """
    if not known.settled:
        return DurationEstimator(prior_median=expected).estimate(), Fit(math.log(expected), EXPECTED_SIGMA)
    step = max(1, math.ceil((len(known.settled) + len(known.ages)) / MAX_FITTED_TASKS))
    logs = sorted(math.log(max(SHORTEST_SECONDS, value)) for value in known.settled[::step])
    ages = sorted(math.log(max(SHORTEST_SECONDS, age)) for age in known.ages[::step])
    fit = _fit(logs, ages, math.log(expected))
    points = {0.0: 0.0, math.exp(logs[0] - fit.sigma / 2): 0.0}
    survival, at_risk, passed = 1.0, len(logs) + len(ages) + 1, 0
    for value in logs:
        while passed < len(ages) and ages[passed] < value:
            passed, at_risk = passed + 1, at_risk - 1
        survival *= 1 - 1 / at_risk
        at_risk -= 1
        points[math.exp(value)] = 1 - survival  # the last of equal ones
    longest = (logs[-1] - fit.mean) / fit.sigma
    beyond = max(MIN_TAIL, _NORMAL.cdf(-longest))
    for step in range(1, POINTS_PER_DEVIATION * TAIL_DEVIATIONS + 1):
        z = longest + step / POINTS_PER_DEVIATION
        points[math.exp(fit.mean + fit.sigma * z)] = 1 - survival * _NORMAL.cdf(-z) / beyond
    return Distribution([*points], [*points.values()]), fit


def _fit(logs: Sequence[float], ages: Sequence[float], expected: float) -> Fit:
    """Return the lognormal distribution with the greatest likelihood, with a weak prior, by its logarithms."""
    groups = list(_grouped(ages))
    count = len(logs) + len(ages)
    settled, squares = math.fsum(logs), math.fsum(value * value for value in logs)
    mean = settled / len(logs)
    sigma = EXPECTED_SIGMA
    for _ in range(MAX_ROUNDS):
        first, second = settled, squares
        for age, number in groups:
            z = (age - mean) / sigma
            hazard = _hazard(z)
            first += number * (mean + sigma * hazard)
            second += number * (mean * mean + 2 * mean * sigma * hazard + sigma * sigma * (1 + z * hazard))
        new_mean = (first + MEDIAN_WEIGHT * expected) / (count + MEDIAN_WEIGHT)
        spread = second - 2 * new_mean * first + count * new_mean * new_mean
        new_sigma = math.sqrt(max(0.0, spread + SIGMA_WEIGHT * EXPECTED_SIGMA**2) / (count + SIGMA_WEIGHT))
        new_sigma = max(MIN_FIT_SIGMA, new_sigma)
        change = abs(new_mean - mean) + abs(new_sigma - sigma)
        mean, sigma = new_mean, new_sigma
        if change < FIT_TOLERANCE:
            break
    return Fit(mean, sigma, (settled / len(logs) - mean) / sigma)


def _hazard(z: float) -> float:
    """Return the hazard of the standard normal distribution."""
    if z > 8:  # the asymptote, where both parts are too small to be divided
        return z + 1 / z
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / (0.5 * math.erfc(z / math.sqrt(2)))


def _grouped(values: Sequence[float]) -> Iterable[tuple[float, int]]:
    size = max(1, math.ceil(len(values) / MAX_AGES))
    for start in range(0, len(values), size):
        group = values[start : start + size]
        yield group[len(group) // 2], len(group)
