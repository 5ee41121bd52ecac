"""How long tasks of one kind take, as seen so far: settled ones, those still waiting, and a prior. Decides nothing.

Each bin of a logarithmic grid counts the tasks that went through it unsettled and those that settled in it; the hazard
there is the mean of a beta process (Hjort, 1990): (c h0 + deaths) / (c + at risk), h0 that of a lognormal fitted to the
same counts. Without the prior that is the estimator of Kaplan and Meier (1958). A task counts in a bin when it is seen
to have passed it, so those still waiting count as far as they came, and one that came into sight late counts from there
on: right-censoring and left truncation need no words of their own. A settle seen between two looks is spread over the
bins between by self-consistency (Turnbull, 1976). A bin forgets as new tasks pass it, not as time does.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist

import attrs

from pika_async.polling.distribution import Distribution

__all__ = ["WINDOW", "Durations", "Observation"]

#: A bin remembers about so many tasks; where more than these pass at once, all of them.
WINDOW = 256
#: The ratio of two edges of the grid is exp(STEP).
STEP = 0.04
#: The shortest and the longest age that is told apart, in seconds.
SHORTEST, LONGEST = 1e-3, 1e7
#: The prior: tasks it is worth, standard deviation of the logarithm of their durations.
WORTH, PRIOR_SIGMA = 4.0, 1.2
#: What it is worth in a fit to many; how many times `WORTH` a lognormal is worth that fits well, and one that does not.
FIT_WORTH, FITS, LOOSE = 1.0, 15.0, 0.1
#: Edges on both sides of an exact duration over which it is spread.
BLUR = 2
#: Settles after which they are put to the old ones, asked or not: what is replayed at once counts as what was lived.
FRESH = 64
#: Rounds of spreading settles over the bins of their intervals, once their lognormal is fitted.
ROUNDS = 2
#: How far the grid goes beyond what was seen, in standard deviations of the lognormal; the least of these.
REACH, LEAST_SIGMA = 3.5, 0.02
#: What is new and what is old are so many standard deviations apart when durations have drifted; tried each time that
#: so many have settled.
APART, TRIED = 4.5, 8
#: Survival that the grid ends with.
LEFT = 1e-5

_NORMAL = NormalDist()


@attrs.frozen
class Observation:
    """A task of `stratum` settled at an age between `after` and `before` seconds since it was accepted.

    Equal ages: known exactly. `before` infinite: it left unsettled. `since`: the age from which it was watched; had it
    settled sooner, nothing would be known of it. `told` percent at age `told_age`: one of the progress readings of a
    task that had several, picked by chance. `accepted_at`: when, by any clock. Those that are kept for a later start
    are the latest accepted, in that order: the latest settled of many that began at once are the slow ones.
    """

    stratum: str
    after: float
    before: float
    since: float = 0.0
    told_age: float | None = None
    told: int | None = None
    accepted_at: float = 0.0

    @property
    def middle(self) -> float:
        """One duration for it: the geometric middle of its interval, or half its end."""
        return max(SHORTEST, math.sqrt(max(self.after, self.before / 4) * self.before))


def edge(age: float) -> int:
    """The edge of the grid that is nearest to `age`, counted from the shortest."""
    return round(math.log(age) / STEP) - _START if SHORTEST < age < LONGEST else 0 if age <= SHORTEST else EDGES


_START = round(math.log(SHORTEST) / STEP)
#: How many edges the grid has.
EDGES = round(math.log(LONGEST) / STEP) - _START


def _zeros() -> list[float]:
    return [0.0] * (EDGES + 1)


@attrs.define
class Durations:
    """The durations of one stratum, in seconds."""

    prior_median: float
    #: Settled tasks, those of the prior aside.
    count: int = attrs.field(default=0, init=False)
    #: Of each bin: tasks that were at risk in it, tasks that settled in it, and the hazard believed so far.
    _at_risk: list[float] = attrs.field(factory=_zeros, init=False)
    _deaths: list[float] = attrs.field(factory=_zeros, init=False)
    _hazards: list[float] | None = attrs.field(default=None, init=False)
    #: Since the last estimate: how many more were at risk from each edge on, and between which edges so many settled.
    _moves: list[int] = attrs.field(factory=lambda: [0] * (EDGES + 1), init=False)
    _within: Counter[tuple[int, int]] = attrs.field(factory=Counter, init=False)
    _fresh: int = attrs.field(default=0, init=False)
    #: How often durations have drifted.
    drifts: int = attrs.field(default=0, init=False)
    #: The logarithms of the newest durations.
    _logs: deque[float] = attrs.field(factory=lambda: deque(maxlen=WINDOW), init=False)

    def pass_by(self, looked: float, age: float) -> None:
        """A task that was unsettled at age `looked` is so at `age`."""
        self._moves[edge(looked)] += 1
        self._moves[edge(age)] -= 1

    def add(self, seen: Observation, looked: float | None = None) -> None:
        """A task has settled, or left; what `pass_by` heard of it goes as far as `looked`, None if it heard nothing."""
        low, high = edge(seen.after), edge(seen.before)
        came = edge(seen.since if looked is None else looked)
        if math.isinf(seen.before):
            if came < low:
                self._moves[came] += 1
                self._moves[low] -= 1
            return
        if high <= low:
            low, high = max(0, low - BLUR), min(EDGES, low + BLUR)
        self._moves[min(came, low)] += 1  # until it settles
        if came > low:  # its blurred end reaches to where it was not at risk
            low = min(came, high - 1)
        self._within[low, high] += 1
        self._logs.append(math.log(seen.middle))
        self.count += 1
        self._fresh += 1
        if self.count % TRIED == 0:
            self._forget_if_drifted()
        if self._fresh >= FRESH:
            self.estimate()

    def estimate(self) -> Estimate:
        """What is believed now. Calling it again changes nothing."""
        prior = math.log(self.prior_median)
        mean, sigma = _moments(self._logs, prior)
        first, last = self._grid(mean, sigma)
        hazards = self._hazards
        if hazards is None:
            hazards = _lognormal_hazards(mean, sigma, 0, EDGES + 1)
        plain = _lognormal_hazards(mean, sigma, first, last)
        counts = self._counts(hazards, first, last)
        hazards = _posterior(hazards, counts, plain, FIT_WORTH, first)
        # Settles alone are the quick ones while most still wait: the second fit is to what the hazards say of all.
        mean, sigma, apart = _fit(hazards, counts[1], first, last, prior)
        plain = _lognormal_hazards(mean, sigma, first, last)
        worth = WORTH * max(LOOSE, FITS / (1 + apart**3))
        for _ in range(ROUNDS):
            counts = self._counts(hazards, first, last)
            hazards = _posterior(hazards, counts, plain, worth, first)
        self._hazards = hazards
        self._at_risk, self._deaths = counts
        self._moves = [0] * (EDGES + 1)
        self._within.clear()
        self._fresh = 0
        return Estimate(_drawn(hazards, first, last), mean, sigma)

    def _grid(self, mean: float, sigma: float) -> tuple[int, int]:
        first = max(0, min(EDGES - 2, round((mean - REACH * sigma) / STEP) - _START))
        last = max(first + 2, min(EDGES, round((mean + REACH * sigma) / STEP) - _START))
        seen = [i for i, risk in enumerate(self._at_risk) if risk > 0]
        lows = [low for low, _ in self._within if low > 0] + [i for i in seen[:1] if self._deaths[i] > 0]
        highs = [high for _, high in self._within] + [i + 1 for i in seen[-1:]]
        highs += [i for i, move in enumerate(self._moves) if move < 0][-1:]
        return min([first, *lows]), max([last, *highs])

    def _fresh_counts(self, hazards: Sequence[float], first: int, last: int) -> tuple[list[float], list[float]]:
        """At risk and deaths of the bins from `first` to `last`, of what came since the last estimate."""
        shares, left = _zeros(), 1.0
        for i in range(first, last):
            left *= 1 - hazards[i]
            shares[i + 1] = 1 - left
        rate = _zeros()
        for (low, high), count in self._within.items():
            begin = min(last - 1, max(first, low))
            end = max(begin + 1, high)
            each = count / max(1e-9, shares[end] - shares[begin])
            rate[begin] += each
            rate[end] -= each
        at_risk, deaths = [], []
        now, here = float(sum(self._moves[:first])), 0.0
        for i in range(first, last):
            now += self._moves[i]
            here += rate[i]
            died = here * (shares[i + 1] - shares[i]) if here > 1e-12 else 0.0
            at_risk.append(max(0.0, now, died))
            deaths.append(died)
            now -= died
        return at_risk, deaths

    def _counts(self, hazards: Sequence[float], first: int, last: int) -> tuple[list[float], list[float]]:
        """At risk and deaths of each bin, the old ones as far as the new ones have not taken their place."""
        at_risk, deaths = self._at_risk[:], self._deaths[:]
        for i, (passing, died) in enumerate(zip(*self._fresh_counts(hazards, first, last), strict=True), first):
            if passing > 0:
                keeps = math.exp(-passing / WINDOW)
                at_risk[i] = at_risk[i] * keeps + passing
                deaths[i] = deaths[i] * keeps + died
        return at_risk, deaths

    def _forget_if_drifted(self) -> None:
        """The log-rank test (Mantel, 1966) of what came since the last estimate against the old; if it fails, forget.

        No more than the prior's worth of the old is kept. Who is still at risk counts on both sides, so a batch whose
        quick tasks settle first is no drift.
        """
        if self._hazards is None or not self._within:
            return
        first, last = max(0, min(low for low, _ in self._within)), EDGES
        while last > first + 1 and not self._at_risk[last - 1]:
            last -= 1
        last = max(last, *(high for _, high in self._within))
        apart = variance = 0.0
        fresh = self._fresh_counts(self._hazards, first, last)
        for n, o, y, d in zip(*fresh, self._at_risk[first:last], self._deaths[first:last], strict=True):
            if n > 0 and y > 0:
                share = n / (n + y)
                apart += o - (o + d) * share
                variance += (o + d) * share * (1 - share)
        if abs(apart) - 1 > APART * math.sqrt(variance + 1):
            self.drifts += 1
            keeps = WORTH / max(WORTH, *self._at_risk)
            self._at_risk = [keeps * each for each in self._at_risk]
            self._deaths = [keeps * each for each in self._deaths]
            self._logs.clear()


@attrs.frozen
class Estimate:
    """What is believed of the durations."""

    distribution: Distribution
    #: Of the logarithm of the durations.
    mean: float
    sigma: float


def _moments(logs: Sequence[float], prior: float) -> tuple[float, float]:
    """Mean and standard deviation, the prior among them."""
    worth = WORTH if len(logs) < WORTH else FIT_WORTH
    mean = (worth * prior + sum(logs)) / (worth + len(logs))
    spread = worth * PRIOR_SIGMA**2 + sum((x - mean) ** 2 for x in logs)
    return mean, math.sqrt(spread / (worth + len(logs)))


def _fit(
    hazards: Sequence[float], deaths: Sequence[float], first: int, last: int, prior: float
) -> tuple[float, float, float]:
    """The lognormal nearest to the hazards, and how far it is: Kolmogorov's sqrt(n) D.

    The line through the points of a normal probability plot, each worth its deaths; the prior is two points more.
    """
    worth = max(FIT_WORTH, WORTH - sum(deaths)) / 2
    points = [(-1.0, prior - PRIOR_SIGMA, worth), (1.0, prior + PRIOR_SIGMA, worth)]
    left = 1.0
    for i in range(first, last):
        share = 1 - left * (1 - hazards[i] / 2)
        left *= 1 - hazards[i]
        if deaths[i] > 0.01 and LEFT < share < 1 - LEFT:
            points.append((_NORMAL.inv_cdf(share), (_START + i + 0.5) * STEP, deaths[i]))
    total = sum(w for _, _, w in points)
    z_mean = sum(w * z for z, _, w in points) / total
    mean = sum(w * x for _, x, w in points) / total
    sigma = sum(w * (z - z_mean) * (x - mean) for z, x, w in points)
    sigma = max(LEAST_SIGMA, sigma / sum(w * (z - z_mean) ** 2 for z, _, w in points))
    mean -= sigma * z_mean
    apart = max((abs(_NORMAL.cdf(z) - _NORMAL.cdf((x - mean) / sigma)) for z, x, _ in points[2:]), default=0.0)
    return mean, sigma, apart * math.sqrt(total)


def _posterior(
    hazards: Sequence[float], counts: tuple[list[float], list[float]], prior: Sequence[float], worth: float, first: int
) -> list[float]:
    """`hazards`, from `first` on as far as `prior` goes in the light of at risk and deaths."""
    at_risk, deaths = counts
    found = list(hazards)
    for i, expected in enumerate(prior, first):
        found[i] = min(0.999, (worth * expected + deaths[i]) / (worth + at_risk[i]))
    return found


def _lognormal_hazards(mean: float, sigma: float, first: int, last: int) -> list[float]:
    scale = 1 / (sigma * math.sqrt(2))
    left = [math.erfc(((_START + i) * STEP - mean) * scale) for i in range(first, last + 1)]
    left[0] = 2.0
    return [min(0.999, 1 - b / a) if a > 0 else 0.999 for a, b in pairwise(left)]


def _drawn(hazards: Sequence[float], first: int, last: int) -> Distribution:
    ages, cdf, left = [0.0, math.exp((_START + first) * STEP)], [0.0, 0.0], 1.0
    for i in range(first, last):
        left *= 1 - hazards[i]
        ages.append(math.exp((_START + i + 1) * STEP))
        cdf.append(1 - left)
        if left < LEFT:
            break
    return Distribution(ages, cdf)
