"""How long tasks of one kind take, as seen so far: settled ones, those still waiting, and a prior. Decides nothing.

Each bin of a logarithmic grid counts the tasks that went through it unsettled and those that settled in it; the hazard
there is the mean of a beta process (Hjort, 1990): (c h0 + deaths) / (c + at risk), h0 that of the lognormal or the
Weibull that is nearer to the same counts. Without the prior that is the estimator of Kaplan and Meier (1958). A task
counts in a bin when it is seen to have passed it, so those still waiting count as far as they came, and one that came
into sight late counts from there on: right-censoring and left truncation need no words of their own. A settle seen
between two looks is spread over the bins between by self-consistency (Turnbull, 1976). A bin forgets as new tasks pass
it, not as time does; all that is old is forgotten when the newest are not like it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from operator import mul
from statistics import NormalDist

import attrs

from pika_async.polling.distribution import Distribution

__all__ = ["WINDOW", "DurationEstimator", "DurationSample"]

#: A bin remembers about so many tasks; where more than these pass at once, all of them.
WINDOW = 256
#: The ratio of two edges of the grid is exp(STEP).
STEP = 0.04
#: The shortest and the longest age that is told apart, in seconds.
SHORTEST, LONGEST = 1e-3, 1e7
#: The prior: tasks it is worth, standard deviation of the logarithm of their durations.
PRIOR_WEIGHT, PRIOR_SIGMA = 4.0, 1.2
#: What it is worth in a fit to many; how many times `WORTH` a fit is worth that is good, and one that is not.
FIT_WORTH, FITS, LOOSE = 1.0, 15.0, 0.1
#: The share of tasks that a fit may say nothing of: as wide as the prior.
OUTLIER_SHARE = 0.02
#: Settles of a block; the newest blocks, so many at most, are fresh: held against the old before they are put to it;
#: and so many stay fresh then, and are held against the old by themselves each time that one of them is full.
BLOCK, BLOCKS, NEWEST = 16, 6, 2
#: Rounds of spreading settles over the bins of their intervals, once their law is fitted.
ROUNDS = 1
#: The least standard deviation of a fit; how far the grid goes beyond what was seen, in shares that are left out.
LEAST_SIGMA, BEYOND = 0.02, 2e-4
#: What is new and what is old are so many standard deviations apart when durations have drifted.
DRIFT_SIGMAS = 4.5
#: What is possible even where nothing was thought to settle: a settle seen there is not lost.
UNLIKELY = 1e-9
#: Fewer tasks of a bin than this are none.
MIN_COUNT = 1e-2
#: Survival that the grid ends with, and the largest hazard of a bin.
MIN_SURVIVAL, MAX_HAZARD = 1e-5, 0.999

_NORMAL = NormalDist()


@attrs.frozen
class DurationSample:
    """A task of `stratum` settled at an age between `after` and `before` seconds since it was accepted.

    Equal ages: known exactly. `before` infinite: it left unsettled. `since`: the age from which it was watched; had it
    settled sooner, nothing would be known of it. `told` percent at age `told_age`: one of the progress readings of a
    task that had several, picked by chance. `accepted_at`: when, by any clock. Those that are kept for a later start
    are the latest accepted, in that order: the latest settled of many that began at once are the slow ones.
    """

    stratum: str
    lower: float
    upper: float
    since: float = 0.0
    progress_age: float | None = None
    progress: int | None = None
    accepted_at: float = 0.0

    @property
    def middle(self) -> float:
        """One duration for it: the geometric middle of its interval, or half its end."""
        return max(SHORTEST, math.sqrt(max(self.lower, self.upper / 4) * self.upper))


def edge(age: float) -> int:
    """The edge of the grid that is nearest to `age`, counted from the shortest."""
    return round(math.log(age) / STEP) - _START if SHORTEST < age < LONGEST else 0 if age <= SHORTEST else EDGES


_START = round(math.log(SHORTEST) / STEP)
#: How many edges the grid has.
EDGES = round(math.log(LONGEST) / STEP) - _START


def _zeros() -> list[float]:
    return [0.0] * (EDGES + 1)


@attrs.define
class _Block:
    """Tasks that were seen one after another."""

    #: How many more were at risk from each edge on.
    moves: list[int] = attrs.field(factory=lambda: [0] * (EDGES + 1))
    #: Between which edges so many settled.
    within: Counter[tuple[int, int]] = attrs.field(factory=Counter)
    settled: int = 0

    @classmethod
    def of(cls, blocks: Sequence[_Block]) -> _Block:
        """All of them as one."""
        within: Counter[tuple[int, int]] = Counter()
        for block in blocks:
            within.update(block.within)
        moves = map(sum, zip(*(block.moves for block in blocks), strict=True))
        return cls(list(moves), within, sum(block.settled for block in blocks))


@attrs.define
class DurationEstimator:
    """The durations of one stratum, in seconds."""

    prior_median: float
    #: Settled tasks, those of the prior aside.
    count: int = attrs.field(default=0, init=False)
    #: How often durations have drifted.
    drifts: int = attrs.field(default=0, init=False)
    #: Of each bin: tasks that were at risk in it, tasks that settled in it, and the hazard believed; of the old ones.
    _at_risk: list[float] = attrs.field(factory=_zeros, init=False)
    _events: list[float] = attrs.field(factory=_zeros, init=False)
    _hazards: list[float] | None = attrs.field(default=None, init=False)
    #: The newest last.
    _fresh: list[_Block] = attrs.field(factory=lambda: [_Block()], init=False)

    def add_exposure(self, looked: float, age: float) -> None:
        """A task that was unsettled at age `looked` is so at `age`."""
        moves = self._fresh[-1].moves
        moves[edge(looked)] += 1
        moves[edge(age)] -= 1

    def add(self, seen: DurationSample, looked: float | None = None) -> None:
        """A task has settled, or left; what `pass_by` heard of it goes as far as `looked`, None if it heard nothing."""
        low, high = edge(seen.lower), edge(seen.upper)
        came = edge(seen.since if looked is None else looked)
        new = self._fresh[-1]
        if math.isinf(seen.upper):
            if came < low:
                new.moves[came] += 1
                new.moves[low] -= 1
            return
        low = min(max(low, came), EDGES - 1)
        new.moves[min(came, low)] += 1  # until it settles
        new.within[low, max(low + 1, high)] += 1
        new.settled += 1
        self.count += 1
        if new.settled >= BLOCK:
            self._forget_if_drifted()
            if len(self._fresh) >= BLOCKS:
                self._put_to_old(BLOCKS - NEWEST)
            self._fresh.append(_Block())

    def estimate(self) -> Distribution:
        """What is believed now. It changes nothing: how often it is asked for decides nothing that is believed."""
        hazards, _, first, last = self._believed()
        return _drawn(hazards, first, last)

    def _put_to_old(self, count: int) -> None:
        """So many of the fresh blocks are fresh no more."""
        self._hazards = self._believed()[0]
        past = _Block.of(self._fresh[:count])
        self._at_risk, self._events = self._counts(past, self._hazards, 0, self._seen(past)[1])
        del self._fresh[:count]

    def _believed(self) -> tuple[list[float], tuple[list[float], list[float]], int, int]:
        """Hazards and the counts they are drawn from, and the first and the last edge where they are."""
        prior = math.log(self.prior_median)
        fresh = _Block.of(self._fresh)
        first, last = self._seen(fresh)
        hazards = self._hazards
        if hazards is None:
            hazards = _hazards_of(_NORMAL_LAW, prior, PRIOR_SIGMA, 0, EDGES)
        counts = self._counts(fresh, hazards, first, last)
        # Settles alone are the quick ones while most still wait: the fit is to what the hazards say of all.
        law, mean, sigma, apart = _fit(
            _posterior(hazards, counts, FIT_WORTH, first, last), counts[1], first, last, prior
        )
        low, high = (round((mean + sigma * law.quantile(share)) / STEP) - _START for share in (BEYOND, 1 - BEYOND))
        first, last = max(0, min(first, low)), min(EDGES, max(last, high))
        first = min(first, EDGES - 2)
        last = max(last, first + 2)
        plain = hazards[:first] + _hazards_of(law, mean, sigma, first, last) + hazards[last:]
        worth = PRIOR_WEIGHT * max(LOOSE, FITS / (1 + apart**3))
        hazards = _posterior(plain, counts, worth, first, last)
        for _ in range(ROUNDS):
            counts = self._counts(fresh, hazards, first, last)
            hazards = _posterior(plain, counts, worth, first, last)
        return hazards, counts, first, last

    def _seen(self, fresh: _Block) -> tuple[int, int]:
        """The first edge from which and the last to which anything is known of settles."""
        lows = [next((i for i, died in enumerate(self._events) if died > MIN_COUNT), EDGES)]
        highs = [next((i + 1 for i in range(EDGES, -1, -1) if self._at_risk[i] > MIN_COUNT), 0)]
        lows += [low for low, _ in fresh.within]
        highs += [high for _, high in fresh.within]
        highs += [next((i for i in range(EDGES, -1, -1) if fresh.moves[i] < 0), 0)]
        first = min(*lows, EDGES - 1)
        return first, max(first + 1, *highs)

    def _counts(
        self, fresh: _Block, hazards: Sequence[float], first: int, last: int
    ) -> tuple[list[float], list[float]]:
        """At risk and deaths of each bin, the old ones as far as the fresh ones have not taken their place."""
        at_risk, deaths = self._at_risk[:], self._events[:]
        for i, (passing, died) in enumerate(zip(*_fresh_counts(fresh, hazards, first, last), strict=True), first):
            if passing > 0:
                keeps = math.exp(-passing / WINDOW)
                at_risk[i] = at_risk[i] * keeps + passing
                deaths[i] = deaths[i] * keeps + died
        return at_risk, deaths

    def _forget_if_drifted(self) -> None:
        """If the newest blocks, or all the fresh ones, are not like the old: forget the old.

        Fresh stays what stands out most, but for its first block: in that, durations changed.
        """
        if (
            max(self._apart(NEWEST), self._apart(len(self._fresh)) if len(self._fresh) >= BLOCKS else 0.0)
            < DRIFT_SIGMAS
        ):
            return
        newest = max(range(1, len(self._fresh) + 1), key=self._apart)
        del self._fresh[: -max(1, newest - 1)]
        self._at_risk, self._events = _zeros(), _zeros()
        self.drifts += 1

    def _apart(self, newest: int) -> float:
        """By how many standard deviations the newest blocks differ from the old (log-rank test, Mantel, 1966).

        Who is still at risk counts on both sides, so a batch whose quick tasks settle first is no drift.
        """
        if self._hazards is None:
            return 0.0
        fresh = _Block.of(self._fresh[-newest:])
        first, last = self._seen(fresh)
        apart = variance = 0.0
        counts = _fresh_counts(fresh, self._hazards, first, last)
        for n, o, y, d in zip(*counts, self._at_risk[first:last], self._events[first:last], strict=True):
            if n > 0 and y > 0:
                share = n / (n + y)
                apart += o - (o + d) * share
                variance += (o + d) * share * (1 - share)
        return (abs(apart) - 1) / math.sqrt(variance + 1)


def _fresh_counts(fresh: _Block, hazards: Sequence[float], first: int, last: int) -> tuple[list[float], list[float]]:
    """At risk and deaths of the bins from `first` to `last`, of the fresh ones."""
    left = list(accumulate((1 - hazard for hazard in hazards[first:last]), mul, initial=1.0))
    weights = [before - after + UNLIKELY for before, after in pairwise(left)]
    until = list(accumulate(weights, initial=0.0))
    rate = [0.0] * len(until)
    for (low, high), count in fresh.within.items():
        each = count / (until[high - first] - until[low - first])
        rate[low - first] += each
        rate[high - first] -= each
    at_risk, deaths = [], []
    now, here = float(sum(fresh.moves[:first])), 0.0
    for move, more, weight in zip(fresh.moves[first:last], rate, weights, strict=False):
        now += move
        here += more
        died = here * weight
        at_risk.append(max(now, died))
        deaths.append(died)
        now -= died
    return at_risk, deaths


@attrs.frozen
class _Law:
    """A law of the logarithm of durations, but for its location and scale."""

    quantile: Callable[[float], float]
    survival: Callable[[float], float]


_NORMAL_LAW = _Law(_NORMAL.inv_cdf, lambda z: 0.5 * math.erfc(z * math.sqrt(0.5)))
#: Of Weibull durations; exponential ones are among them.
_WEIBULL_LAW = _Law(lambda share: math.log(-math.log1p(-share)), lambda z: math.exp(-math.exp(min(z, 9.0))))


def _fit(
    hazards: Sequence[float], deaths: Sequence[float], first: int, last: int, prior: float
) -> tuple[_Law, float, float, float]:
    """The law nearest to the hazards, its location and scale, and how far it is: Kolmogorov's sqrt(n) D.

    The line through the points of a probability plot, each worth its deaths; the prior is two points more.
    """
    worth = max(FIT_WORTH, PRIOR_WEIGHT - sum(deaths)) / 2
    points = [(_NORMAL.cdf(z), prior + z * PRIOR_SIGMA, worth) for z in (-1.0, 1.0)]
    left = 1.0
    for i in range(first, last):
        died = left * hazards[i]
        if deaths[i] > MIN_COUNT:
            # Two points a bin: of durations that are all alike one bin has to say how alike.
            for part in (0.25, 0.75):
                share = 1 - left + part * died
                if MIN_SURVIVAL < share < 1 - MIN_SURVIVAL:
                    points.append((share, (_START + i + part) * STEP, deaths[i] / 2))
        left -= died
    return min((_line(law, points) for law in (_NORMAL_LAW, _WEIBULL_LAW)), key=lambda fit: fit[3])


def _line(law: _Law, points: Sequence[tuple[float, float, float]]) -> tuple[_Law, float, float, float]:
    zs = [law.quantile(share) for share, _, _ in points]
    total = sum(w for _, _, w in points)
    z_mean = sum(w * z for z, (_, _, w) in zip(zs, points, strict=True)) / total
    mean = sum(w * x for _, x, w in points) / total
    sigma = sum(w * (z - z_mean) * (x - mean) for z, (_, x, w) in zip(zs, points, strict=True))
    sigma = max(LEAST_SIGMA, sigma / sum(w * (z - z_mean) ** 2 for z, (_, _, w) in zip(zs, points, strict=True)))
    mean -= sigma * z_mean
    apart = max((abs(1 - share - law.survival((x - mean) / sigma)) for share, x, _ in points[2:]), default=0.0)
    return law, mean, sigma, apart * math.sqrt(total)


def _posterior(
    prior: Sequence[float], counts: tuple[list[float], list[float]], worth: float, first: int, last: int
) -> list[float]:
    """The hazards `prior`, from `first` to `last` in the light of at risk and deaths."""
    found = list(prior)
    at_risk, deaths = (_smooth(each, first, last) for each in counts)
    for i, (risk, died) in enumerate(zip(at_risk, deaths, strict=True), first):
        found[i] = min(MAX_HAZARD, (worth * prior[i] + died) / (worth + risk))
    return found


def _smooth(counts: Sequence[float], first: int, last: int) -> list[float]:
    """Of each bin from `first` to `last` the count taken together with its neighbours', with weights 1 2 3 2 1."""
    around = [0.0, 0.0, *counts[first:last], 0.0, 0.0]
    for _ in range(2):
        around = [(a + b + c) / 3 for a, b, c in zip(around, around[1:], around[2:], strict=False)]
    return around


def _hazards_of(law: _Law, mean: float, sigma: float, first: int, last: int) -> list[float]:
    """The hazards of a law in the bins from `first` to `last`, if a few tasks are only as alike as the prior says."""
    left = []
    for i in range(first, last + 1):
        away = (_START + i) * STEP - mean
        left.append(
            (1 - OUTLIER_SHARE) * law.survival(away / sigma) + OUTLIER_SHARE * _NORMAL_LAW.survival(away / PRIOR_SIGMA)
        )
    left[0] = 1.0
    return [min(MAX_HAZARD, 1 - b / a) if a > 0 else MAX_HAZARD for a, b in pairwise(left)]


def _drawn(hazards: Sequence[float], first: int, last: int) -> Distribution:
    ages, cdf, left = [0.0, math.exp((_START + first) * STEP)], [0.0, 0.0], 1.0
    for i in range(first, last):
        left *= 1 - hazards[i]
        ages.append(math.exp((_START + i + 1) * STEP))
        cdf.append(1 - left)
        if left < MIN_SURVIVAL:
            break
    return Distribution(ages, cdf)
