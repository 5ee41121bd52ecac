"""Makespan of tasks that share a number of rooms: how long a batch takes, as a range. Pure: runs nothing.

The rooms are filled as soon as they become free, in the order of the jobs (list scheduling; Graham, 1966). Let D be a
task's duration with the cdf F, the mean mu and the coefficient of variation c, and m the number of rooms.

- The first m jobs begin at once. Job m + j begins when j tasks have settled. After the first round the settled tasks
  are m renewal processes, of which t / mu + (c^2 - 1) / 2 each have settled by t (Smith, 1954; Cox, 1962), so job m + j
  begins at mu (j / m + (1 - c^2) / 2), or at the quantile j / (m + 1) of D if that is sooner, in the first round. If
  tasks are in flight already, the first round takes r instead of mu, the mean of what is left of them, and job m + j
  begins at mu (j / m - (1 + c^2) / 2) + r. With a rate of submissions, job i begins no sooner than i / rate.
- The batch has ended by t if each task has: P(T <= t) = prod F(t - begin_i), and for a task of age a that is in flight
  already (F(a + t) - F(a)) / (1 - F(a)). The last round decides: its slowest task is what is waited for.
- The begin of the last job varies by sigma sqrt(n - m) / m, as the sum of n - m durations over m rooms does; and the
  learned durations are known to a share of c / sqrt(samples). Both are added to the spread of the last round, in
  logarithms and in squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import attrs

from pika_async.polling.distribution import Distribution

__all__ = ["CutDurations", "Workload", "makespan", "mixture", "rooms_of"]

#: Probability of a batch that ends sooner than the range, and of one that ends later.
TAIL: Final = 0.01
#: Standard deviations between the median and either end of the range.
SIGMAS: Final = 2.33
#: Number of settled tasks that the expectation before the first one counts as.
PRIOR_TASKS: Final = 4.0
#: The aim of adaptive polling: a poll finds a task settled later than it has by this share of the duration.
DETECTION_SHARE: Final = 0.05
#: Points of the cdf of a mixture.
TABLE_POINTS: Final = 400
#: Groups of jobs that begin at nearly the same time.
MAX_GROUPS: Final = 200
#: Rounds before the last ones whose tasks have settled long before the end.
ROUNDS: Final = 20
#: Halvings of the interval that holds a quantile.
HALVINGS: Final = 40
#: Smallest probability whose logarithm is taken.
MIN_PROBABILITY: Final = 1e-300


@attrs.frozen(kw_only=True)
class CutDurations:
    """CutDurations of tasks in seconds, cut off at the deadline.

    :param distribution: their distribution.
    :param longest: seconds after which a task is given up.
    :param error: standard deviation of the logarithm of what is known about their length.
    """

    distribution: Distribution
    longest: float
    error: float
    mean: float = attrs.field(init=False)
    variance: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        mean, variance = _moments(self.distribution, self.longest)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "variance", variance)

    def share(self, seconds: float) -> float:
        """Return the fraction of tasks that have ended within `seconds`, 0 to 1."""
        if seconds >= self.longest:
            return 1.0
        return self.distribution.share(seconds) if seconds > 0 else 0.0

    def left(self, age: float) -> float:
        """Return the mean of the seconds until a task ends that is in flight since `age` seconds."""
        ends = max(0.0, self.longest - age)
        settled = self.distribution.mean_settled_seconds
        survival = max(MIN_PROBABILITY, 1 - self.distribution.share(age)) if age > 0 else 1.0
        return min(ends, max(0.0, ends - settled(self.longest) + settled(age)) / survival)

    @property
    def variation(self) -> float:
        """Squared coefficient of variation."""
        return self.variance / self.mean**2


@attrs.frozen(kw_only=True)
class Workload:
    """Jobs to run and the room for them.

    :param jobs: number of jobs to be sent, >= 0.
    :param ages: seconds since each task was accepted that is in flight already and is waited for.
    :param rooms: number of tasks in flight at a time, >= 1.
    :param per_second: submissions per second, above 0; None: no limit.
    :param detection: seconds until a settled task is found settled, as a share of the mean duration, >= 0.
    """

    jobs: int
    rooms: float
    ages: Sequence[float] = ()
    per_second: float | None = None
    detection: float = DETECTION_SHARE


def rooms_of(accounts: Iterable[tuple[float | None, float | None]], most: float) -> float:
    """Return the number of tasks that some accounts run at a time, >= 1.

    :param accounts: the limit that each was given and the one that was learned; None where there is none.
    :param most: the limit over all of them together.
    """
    rooms = sum(min(most if limit is None else limit for limit in limits) for limits in accounts)
    return max(1.0, min(most, rooms))


def mixture(parts: Sequence[tuple[int, Distribution, int]], longest: float) -> CutDurations:
    """Return the durations of jobs of several strata.

    :param parts: for each stratum its number of jobs, above 0, the distribution and the number of settled tasks from
        which that was learned.
    :param longest: seconds after which a task is given up.
    """
    total = sum(jobs for jobs, _, _ in parts)
    error = 0.0
    each = []
    for jobs, distribution, samples in parts:
        mean, variance = _moments(distribution, longest)
        error += (jobs / total * mean) ** 2 * math.log1p(variance / mean**2) / (samples + PRIOR_TASKS)
        each.append((jobs / total, mean))
    mean = sum(share * one for share, one in each)
    distribution = parts[0][1] if len(parts) == 1 else _mixed(parts, total)
    return CutDurations(distribution=distribution, longest=longest, error=math.sqrt(error) / mean)


def _mixed(parts: Sequence[tuple[int, Distribution, int]], total: int) -> Distribution:
    first = min(next(age for age, share in zip(one.ages, one.cdf, strict=True) if share > 0) for _, one, _ in parts)
    last = max(one.ages[-1] for _, one, _ in parts)
    steps = range(TABLE_POINTS)
    ages = [first / 2, *(first * (last / first) ** (step / (TABLE_POINTS - 1)) for step in steps)]
    columns = [(jobs / total, one.table(ages)[0]) for jobs, one, _ in parts]
    cdf = [sum(share * column[i] for share, column in columns) for i in range(len(ages))]
    return Distribution([0.0, *ages], [0.0, *cdf])


def _moments(distribution: Distribution, longest: float) -> tuple[float, float]:
    """Return the mean and the variance of durations that are cut off at `longest`: integrals of the survival."""
    ages, cdf = [*distribution.ages], [*distribution.cdf]
    if ages[-1] < longest:  # what is left settles at the end: the tail is thin
        ages.append(min(longest, 2 * ages[-1]))
        cdf.append(1.0)
    mean = square = 0.0
    for (age, share), (next_age, next_share) in pairwise(zip(ages, cdf, strict=True)):
        if age >= longest:
            break
        end = min(next_age, longest)
        at_end = share + (next_share - share) * (end - age) / (next_age - age)
        width, left, right = end - age, 1 - share, 1 - at_end
        mean += width * (left + right) / 2
        middle = (left + right) / 2 * (age + end) / 2
        square += 2 * width * (age * left + 4 * middle + end * right) / 6  # Simpson's rule is exact here
    return mean, max(0.0, square - mean**2)


def makespan(load: Workload, durations: CutDurations) -> tuple[float, float]:
    """Return the seconds until every job has ended, low and high: about 98 % of batches end between them."""
    if not load.jobs and not load.ages:
        return 0.0, 0.0
    ages = list(_grouped(sorted(load.ages)))
    begins = list(_begins(load, durations, _first_round(load, ages, durations)))
    end = max([begin for begin, _ in begins] or [0.0]) + durations.longest
    low, median, high = (_quantile(share, begins, ages, durations, end) for share in (TAIL, 0.5, 1 - TAIL))
    queued = max(0.0, load.jobs + len(load.ages) - load.rooms)
    spread = math.sqrt(durations.variance * queued) / load.rooms / median
    known = (SIGMAS * spread) ** 2 + (SIGMAS * durations.error) ** 2
    below = math.hypot(math.log(median / low), math.sqrt(known))
    above = math.hypot(math.log(high / median), math.sqrt(known))
    return median * math.exp(-below), (median + load.detection * durations.mean) * math.exp(above)


def begin_of(number: int, load: Workload, durations: CutDurations, first_round: float) -> float:
    """Return when a job begins, in seconds.

    :param number: its position among the jobs to be sent, from 0.
    :param first_round: mean of the seconds until a task of the first round has ended.
    """
    rooms, settled = load.rooms, len(load.ages) + number + 1 - load.rooms
    begin = 0.0
    if settled > 0:
        late = 1 + load.detection  # a room is free once a poll has found its task settled
        begin = late * (durations.mean * (settled / rooms - (1 + durations.variation) / 2) + first_round)
        if settled <= rooms and not load.ages:
            begin = min(begin, durations.distribution.quantile(settled / (rooms + 1)))
    return max(0.0, begin, 0.0 if load.per_second is None else number / load.per_second)


def _first_round(load: Workload, ages: Sequence[tuple[float, int]], durations: CutDurations) -> float:
    """Return the mean of the seconds until a task of the first round has ended; some are in flight already."""
    left = sum(count * durations.left(age) for age, count in ages)
    new = max(0.0, load.rooms - len(load.ages))
    return (left + new * durations.mean) / (len(load.ages) + new)


def _begins(load: Workload, durations: CutDurations, first_round: float) -> Iterator[tuple[float, int]]:
    """Yield when jobs begin, in groups: the middle and the size of each. Those that settle long before are left out."""
    in_first_round = max(0, min(load.jobs, math.floor(load.rooms) - len(load.ages)))
    first = 0
    if load.per_second is None and in_first_round:
        yield 0.0, in_first_round
        first = in_first_round
    in_window = load.rooms if load.per_second is None else load.per_second * durations.mean
    first = max(first, load.jobs - math.ceil(ROUNDS * max(1.0, in_window)))
    size = max(1, math.ceil((load.jobs - first) / MAX_GROUPS))
    for start in range(first, load.jobs, size):
        count = min(size, load.jobs - start)
        yield begin_of(start + (count - 1) // 2, load, durations, first_round), count


def _grouped(ages: Sequence[float]) -> Iterator[tuple[float, int]]:
    size = max(1, math.ceil(len(ages) / MAX_GROUPS))
    for start in range(0, len(ages), size):
        group = ages[start : start + size]
        yield group[len(group) // 2], len(group)


def _quantile(
    share: float,
    begins: Sequence[tuple[float, int]],
    ages: Sequence[tuple[float, int]],
    durations: CutDurations,
    end: float,
) -> float:
    """Return the time by which all tasks have ended with the probability `share`, by halving."""
    target = math.log(share)
    low, high = 0.0, end
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _log_probability(middle, begins, ages, durations, target) < target:
            low = middle
        else:
            high = middle
    return high


def _log_probability(
    time: float,
    begins: Sequence[tuple[float, int]],
    ages: Sequence[tuple[float, int]],
    durations: CutDurations,
    enough: float,
) -> float:
    """Return the logarithm of the probability that all tasks have ended by `time`, or any value below `enough`."""
    total = 0.0
    for begin, count in reversed(begins):
        total += count * math.log(max(MIN_PROBABILITY, durations.share(time - begin)))
        if total < enough:
            return total
    for age, count in ages:
        before = durations.share(age)
        settled = 1.0 if before >= 1 else (durations.share(age + time) - before) / (1 - before)
        total += count * math.log(max(MIN_PROBABILITY, settled))
    return total
