"""Estimate of the durations of one stratum from settled and unsettled tasks, and a prior. Plans no polls.

Each bin of a logarithmic grid counts the tasks that passed it unsettled and those that settled in it. The hazard of a
bin is the mean of a beta process (Hjort, 1990): (c h0 + events) / (c + at risk), with h0 the hazard of the lognormal or
the Weibull distribution, whichever is nearer to the same counts. Without the prior this is the estimator of Kaplan and
Meier (1958). A task counts in a bin once a poll has seen it pass the bin: unsettled tasks count as far as they came
(right-censoring), and a task that is first polled late counts from there on (left truncation). A task that settled
between two polls is spread over the bins between them by self-consistency (Turnbull, 1976). A bin forgets as new tasks
pass it, not as time passes; all old counts are dropped when the newest tasks differ from them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from operator import mul
from statistics import NormalDist

import attrs

from pika_async.polling.distribution import Distribution

__all__ = ["WINDOW", "DurationEstimator", "DurationSample"]

#: Tasks that a bin remembers, about; all of them where more pass at once.
WINDOW = 256
#: The ratio of two neighbouring edges of the grid is exp(LOG_STEP).
LOG_STEP = 0.04
#: Shortest and longest age that the grid distinguishes, in seconds.
SHORTEST_SECONDS = 1e-3
LONGEST_SECONDS = 1e7
#: Number of tasks that the prior counts as.
PRIOR_WEIGHT = 4.0
#: Standard deviation of the logarithm of the prior's durations.
PRIOR_SIGMA = 1.2
#: Number of tasks that the prior counts as in a fit to many tasks.
FIT_PRIOR_WEIGHT = 1.0
#: A good fit counts as this many times `PRIOR_WEIGHT`, a bad one as the second.
GOOD_FIT_FACTOR = 15.0
BAD_FIT_FACTOR = 0.1
#: Fraction of tasks that a fit does not describe; these are spread as widely as the prior.
OUTLIER_SHARE = 0.02
#: Settled tasks of a block.
BLOCK_SIZE = 16
#: Number of recent blocks that are compared with the old counts before they are added to them...
MAX_RECENT_BLOCKS = 6
#: ...and that stay recent afterwards, and are compared by themselves each time that a block is full.
NEWEST_BLOCKS = 2
#: Rounds of self-consistency after the fit.
SELF_CONSISTENCY_ROUNDS = 1
#: Smallest standard deviation of a fit.
MIN_FIT_SIGMA = 0.02
#: Tail probability, on each side of the fit, at which the grid ends.
GRID_TAIL = 2e-4
#: Durations have drifted when recent and old tasks differ by this many standard deviations.
DRIFT_SIGMAS = 4.5
#: Smallest weight of a bin, so that a task that settled where none was expected is counted.
MIN_BIN_WEIGHT = 1e-9
#: A bin with fewer tasks than this counts as empty.
MIN_COUNT = 1e-2
#: Survival at which the distribution ends.
MIN_SURVIVAL = 1e-5
#: Largest hazard of a bin.
MAX_HAZARD = 0.999

_NORMAL = NormalDist()


@attrs.frozen
class DurationSample:
    """Interval-censored duration of one task: it settled between two ages, in seconds since it was accepted.

    Samples are kept for later processes in the order of `accepted_at`, the latest ones: of many tasks that began
    together the last to settle are the slow ones, and would bias an estimate.
    """

    #: The stratum of the task; see `pika_async.polling`.
    stratum: str
    #: The last age at which the task was found unsettled.
    lower: float
    #: The first age at which the task was found settled; equal to `lower` where the duration is known exactly, infinite
    #: where polling ended before the task settled.
    upper: float
    #: The age at which polling began (left truncation): a task that settled sooner would not have been sampled.
    since: float = 0.0
    #: The age of the progress reading.
    progress_age: float | None = None
    #: One progress reading in percent, picked at random from those of the task.
    progress: int | None = None
    #: When the task was accepted, in seconds of any clock.
    accepted_at: float = 0.0

    @property
    def middle(self) -> float:
        """Geometric middle of the interval, or half its upper end, in seconds."""
        return max(SHORTEST_SECONDS, math.sqrt(max(self.lower, self.upper / 4) * self.upper))


def edge(age: float) -> int:
    """Return the number of the grid edge nearest to `age`, counted from the shortest age."""
    if age <= SHORTEST_SECONDS:
        return 0
    return round(math.log(age) / LOG_STEP) - _START if age < LONGEST_SECONDS else EDGES


_START = round(math.log(SHORTEST_SECONDS) / LOG_STEP)
#: Number of edges of the grid.
EDGES = round(math.log(LONGEST_SECONDS) / LOG_STEP) - _START


def _zeros() -> list[float]:
    return [0.0] * (EDGES + 1)


@attrs.define
class _Block:
    """Counts of consecutive tasks."""

    #: Change of the number at risk at each edge.
    moves: list[int] = attrs.field(factory=lambda: [0] * (EDGES + 1))
    #: Number of tasks that settled between two edges.
    within: Counter[tuple[int, int]] = attrs.field(factory=Counter)
    settled: int = 0

    @classmethod
    def of(cls, blocks: Sequence[_Block]) -> _Block:
        """Return the sum of `blocks`."""
        within: Counter[tuple[int, int]] = Counter()
        for block in blocks:
            within.update(block.within)
        moves = map(sum, zip(*(block.moves for block in blocks), strict=True))
        return cls(list(moves), within, sum(block.settled for block in blocks))


@attrs.define
class DurationEstimator:
    """Survival estimate of the durations of one stratum, in seconds."""

    #: Median of the prior, in seconds.
    prior_median: float
    #: Settled tasks, without those that the prior counts as.
    count: int = attrs.field(default=0, init=False)
    #: Number of times that durations have drifted.
    drifts: int = attrs.field(default=0, init=False)
    #: Old counts of each bin: tasks at risk in it, tasks that settled in it; and the hazard estimated from them.
    _at_risk: list[float] = attrs.field(factory=_zeros, init=False)
    _events: list[float] = attrs.field(factory=_zeros, init=False)
    _hazards: list[float] | None = attrs.field(default=None, init=False)
    #: Recent blocks, the newest last.
    _recent: list[_Block] = attrs.field(factory=lambda: [_Block()], init=False)

    def add_exposure(self, last_unsettled_age: float, age: float) -> None:
        """Count a task that was unsettled at the earlier age and still is at `age`."""
        moves = self._recent[-1].moves
        moves[edge(last_unsettled_age)] += 1
        moves[edge(age)] -= 1

    def add(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
        """Count a task that has settled, or is no longer polled.

        :param sample: the interval in which the task settled.
        :param last_unsettled_age: the age up to which `add_exposure` has counted the task; None if it has not.
        """
        low, high = edge(sample.lower), edge(sample.upper)
        counted = edge(sample.since if last_unsettled_age is None else last_unsettled_age)
        new = self._recent[-1]
        if math.isinf(sample.upper):
            if counted < low:
                new.moves[counted] += 1
                new.moves[low] -= 1
            return
        low = min(max(low, counted), EDGES - 1)
        new.moves[min(counted, low)] += 1  # until it settles
        new.within[low, max(low + 1, high)] += 1
        new.settled += 1
        self.count += 1
        if new.settled >= BLOCK_SIZE:
            self._forget_if_drifted()
            if len(self._recent) >= MAX_RECENT_BLOCKS:
                self._merge_into_old(MAX_RECENT_BLOCKS - NEWEST_BLOCKS)
            self._recent.append(_Block())

    def estimate(self) -> Distribution:
        """Return the estimated distribution. The call changes nothing, however often it is made."""
        hazards, _, first, last = self._estimate_hazards()
        return _to_distribution(hazards, first, last)

    def _merge_into_old(self, count: int) -> None:
        """Add the `count` oldest recent blocks to the old counts."""
        self._hazards = self._estimate_hazards()[0]
        past = _Block.of(self._recent[:count])
        self._at_risk, self._events = self._counts(past, self._hazards, 0, self._range(past)[1])
        del self._recent[:count]

    def _estimate_hazards(self) -> tuple[list[float], tuple[list[float], list[float]], int, int]:
        """Return the hazards, the counts that they are estimated from, and the first and last edge of these."""
        prior = math.log(self.prior_median)
        recent = _Block.of(self._recent)
        first, last = self._range(recent)
        hazards = self._hazards
        if hazards is None:
            hazards = _hazards_of(_NORMAL_LAW, prior, PRIOR_SIGMA, 0, EDGES)
        counts = self._counts(recent, hazards, first, last)
        # While most tasks are unsettled, the settled ones are the quick ones: fit to the hazards of all, not to them.
        posterior = _posterior(hazards, counts, FIT_PRIOR_WEIGHT, first, last)
        law, mean, sigma, distance = _fit(posterior, counts[1], first, last, prior)
        low, high = (
            round((mean + sigma * law.quantile(share)) / LOG_STEP) - _START for share in (GRID_TAIL, 1 - GRID_TAIL)
        )
        first, last = max(0, min(first, low)), min(EDGES, max(last, high))
        first = min(first, EDGES - 2)
        last = max(last, first + 2)
        fitted = hazards[:first] + _hazards_of(law, mean, sigma, first, last) + hazards[last:]
        weight = PRIOR_WEIGHT * max(BAD_FIT_FACTOR, GOOD_FIT_FACTOR / (1 + distance**3))
        hazards = _posterior(fitted, counts, weight, first, last)
        for _ in range(SELF_CONSISTENCY_ROUNDS):
            counts = self._counts(recent, hazards, first, last)
            hazards = _posterior(fitted, counts, weight, first, last)
        return hazards, counts, first, last

    def _range(self, recent: _Block) -> tuple[int, int]:
        """Return the first and the last edge between which tasks are counted."""
        lows = [next((i for i, settled in enumerate(self._events) if settled > MIN_COUNT), EDGES)]
        highs = [next((i + 1 for i in range(EDGES, -1, -1) if self._at_risk[i] > MIN_COUNT), 0)]
        lows += [low for low, _ in recent.within]
        highs += [high for _, high in recent.within]
        highs += [next((i for i in range(EDGES, -1, -1) if recent.moves[i] < 0), 0)]
        first = min(*lows, EDGES - 1)
        return first, max(first + 1, *highs)

    def _counts(
        self, recent: _Block, hazards: Sequence[float], first: int, last: int
    ) -> tuple[list[float], list[float]]:
        """Return tasks at risk and events of each bin: the recent ones, and the old ones that are remembered."""
        at_risk, events = self._at_risk[:], self._events[:]
        for i, (passing, settled) in enumerate(zip(*_recent_counts(recent, hazards, first, last), strict=True), first):
            if passing > 0:
                keeps = math.exp(-passing / WINDOW)
                at_risk[i] = at_risk[i] * keeps + passing
                events[i] = events[i] * keeps + settled
        return at_risk, events

    def _forget_if_drifted(self) -> None:
        """Drop the old counts if the newest blocks, or all recent ones, differ from them.

        The blocks that differ most stay, without the first of them, in which durations changed.
        """
        count = len(self._recent)
        distance = max(self._distance(NEWEST_BLOCKS), self._distance(count) if count >= MAX_RECENT_BLOCKS else 0.0)
        if distance < DRIFT_SIGMAS:
            return
        newest = max(range(1, count + 1), key=self._distance)
        del self._recent[: -max(1, newest - 1)]
        self._at_risk, self._events = _zeros(), _zeros()
        self.drifts += 1

    def _distance(self, newest: int) -> float:
        """Return by how many standard deviations the newest blocks differ from the old (log-rank test, Mantel, 1966).

        Unsettled tasks are at risk on both sides, so a batch whose quick tasks settle first does not count as a drift.
        """
        if self._hazards is None:
            return 0.0
        recent = _Block.of(self._recent[-newest:])
        first, last = self._range(recent)
        excess = variance = 0.0
        counts = _recent_counts(recent, self._hazards, first, last)
        for n, o, y, d in zip(*counts, self._at_risk[first:last], self._events[first:last], strict=True):
            if n > 0 and y > 0:
                share = n / (n + y)
                excess += o - (o + d) * share
                variance += (o + d) * share * (1 - share)
        return (abs(excess) - 1) / math.sqrt(variance + 1)


def _recent_counts(recent: _Block, hazards: Sequence[float], first: int, last: int) -> tuple[list[float], list[float]]:
    """Return tasks at risk and events of the bins from `first` to `last`, from a recent block."""
    left = list(accumulate((1 - hazard for hazard in hazards[first:last]), mul, initial=1.0))
    weights = [left_before - left_after + MIN_BIN_WEIGHT for left_before, left_after in pairwise(left)]
    until = list(accumulate(weights, initial=0.0))
    rate = [0.0] * len(until)
    for (low, high), count in recent.within.items():
        each = count / (until[high - first] - until[low - first])
        rate[low - first] += each
        rate[high - first] -= each
    at_risk, events = [], []
    now, here = float(sum(recent.moves[:first])), 0.0
    for move, more, weight in zip(recent.moves[first:last], rate, weights, strict=False):
        now += move
        here += more
        settled = here * weight
        at_risk.append(max(now, settled))
        events.append(settled)
        now -= settled
    return at_risk, events


@attrs.frozen
class _Law:
    """Standard distribution of the logarithm of durations, before location and scale."""

    quantile: Callable[[float], float]
    #: The survival at each of some values.
    survivals: Callable[[Iterable[float]], list[float]]


_SQRT_HALF = math.sqrt(0.5)
_NORMAL_LAW = _Law(_NORMAL.inv_cdf, lambda zs: [0.5 * math.erfc(z * _SQRT_HALF) for z in zs])
#: For Weibull durations, exponential ones included.
_WEIBULL_LAW = _Law(
    lambda share: math.log(-math.log1p(-share)), lambda zs: [math.exp(-math.exp(min(9.0, z))) for z in zs]
)


def _fit(
    hazards: Sequence[float], events: Sequence[float], first: int, last: int, prior: float
) -> tuple[_Law, float, float, float]:
    """Return the law nearest to the hazards, its location and scale, and its distance, Kolmogorov's sqrt(n) D.

    It is the line through the points of a probability plot, weighted by their events; the prior adds two points.
    """
    weight = max(FIT_PRIOR_WEIGHT, PRIOR_WEIGHT - sum(events)) / 2
    points = [(_NORMAL.cdf(z), prior + z * PRIOR_SIGMA, weight) for z in (-1.0, 1.0)]
    left = 1.0
    for i in range(first, last):
        settled = left * hazards[i]
        if events[i] > MIN_COUNT:
            # Two points a bin: where all durations fall into one bin, it still has to show a spread.
            for part in (0.25, 0.75):
                share = 1 - left + part * settled
                if MIN_SURVIVAL < share < 1 - MIN_SURVIVAL:
                    points.append((share, (_START + i + part) * LOG_STEP, events[i] / 2))
        left -= settled
    return min((_line(law, points) for law in (_NORMAL_LAW, _WEIBULL_LAW)), key=lambda fit: fit[3])


def _line(law: _Law, points: Sequence[tuple[float, float, float]]) -> tuple[_Law, float, float, float]:
    zs = [law.quantile(share) for share, _, _ in points]
    total = sum([w for _, _, w in points])
    z_mean = sum([w * z for z, (_, _, w) in zip(zs, points, strict=True)]) / total
    mean = sum([w * x for _, x, w in points]) / total
    sigma = sum([w * (z - z_mean) * (x - mean) for z, (_, x, w) in zip(zs, points, strict=True)])
    sigma = max(MIN_FIT_SIGMA, sigma / sum([w * (z - z_mean) ** 2 for z, (_, _, w) in zip(zs, points, strict=True)]))
    mean -= sigma * z_mean
    left = law.survivals([(x - mean) / sigma for _, x, _ in points[2:]])
    distance = max(
        [abs(1 - share - survival) for (share, _, _), survival in zip(points[2:], left, strict=True)], default=0.0
    )
    return law, mean, sigma, distance * math.sqrt(total)


def _posterior(
    prior: Sequence[float], counts: tuple[list[float], list[float]], weight: float, first: int, last: int
) -> list[float]:
    """Return the hazards `prior`, updated from `first` to `last` by tasks at risk and events."""
    hazards = list(prior)
    at_risk, events = (_smooth(each, first, last) for each in counts)
    for i, (risk, settled) in enumerate(zip(at_risk, events, strict=True), first):
        hazards[i] = min(MAX_HAZARD, (weight * prior[i] + settled) / (weight + risk))
    return hazards


def _smooth(counts: Sequence[float], first: int, last: int) -> list[float]:
    """Return the counts from `first` to `last`, smoothed over neighbouring bins with weights 1 2 3 2 1."""
    around = [0.0, 0.0, *counts[first:last], 0.0, 0.0]
    for _ in range(2):
        around = [(a + b + c) / 3 for a, b, c in zip(around, around[1:], around[2:], strict=False)]
    return around


def _hazards_of(law: _Law, mean: float, sigma: float, first: int, last: int) -> list[float]:
    """Return the hazards of a law in the bins from `first` to `last`, with a few outliers as wide as the prior."""
    away = [(_START + i) * LOG_STEP - mean for i in range(first, last + 1)]
    fitted, wide = (
        law.survivals([each / sigma for each in away]),
        _NORMAL_LAW.survivals([each / PRIOR_SIGMA for each in away]),
    )
    left = [(1 - OUTLIER_SHARE) * a + OUTLIER_SHARE * b for a, b in zip(fitted, wide, strict=True)]
    left[0] = 1.0
    return [min(MAX_HAZARD, 1 - b / a) if a > 0 else MAX_HAZARD for a, b in pairwise(left)]


def _to_distribution(hazards: Sequence[float], first: int, last: int) -> Distribution:
    ages, cdf, left = [0.0, math.exp((_START + first) * LOG_STEP)], [0.0, 0.0], 1.0
    for i in range(first, last):
        left *= 1 - hazards[i]
        ages.append(math.exp((_START + i + 1) * LOG_STEP))
        cdf.append(1 - left)
        if left < MIN_SURVIVAL:
            break
    return Distribution(ages, cdf)
