"""A distribution of durations as a piecewise linear cdf: all that a schedule and a budget ask of it. Learns nothing."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import attrs

__all__ = ["Distribution"]

#: Past the last edge survival falls as a power of the age: a tail that thins more slowly than any seen.
TAIL = 3.0
#: The least survival that is told apart from none.
LEAST = 1e-12
#: How far a lognormal is drawn, in standard deviations, and with how many edges for one of them.
REACH, EDGES = 4.0, 12


@attrs.frozen(eq=False)
class Distribution:
    """`cdf[i]` is the share that settles within `ages[i]` seconds; ages rise from 0, and the last share is below 1."""

    ages: Sequence[float]
    cdf: Sequence[float]
    #: The integral of the cdf from 0 to each of the ages: how long before it a task of that age settled, on average.
    area: Sequence[float] = attrs.field(init=False)

    @area.default
    def _areas(self) -> list[float]:
        areas, total = [0.0], 0.0
        ages, cdf = self.ages, self.cdf
        for i in range(1, len(ages)):
            total += (ages[i] - ages[i - 1]) * (cdf[i] + cdf[i - 1]) / 2
            areas.append(total)
        return areas

    @classmethod
    def lognormal(cls, median: float, sigma: float) -> Distribution:
        """The lognormal with that median, in seconds, and that standard deviation of the logarithm."""
        steps = [i / EDGES for i in range(-int(REACH * EDGES), int(REACH * EDGES) + 1)]
        ages = [median * math.exp(sigma * z) for z in steps]
        return cls([0.0, *ages], [0.0, 0.0, *(0.5 * math.erfc(-z / math.sqrt(2)) for z in steps[1:])])

    def share(self, age: float) -> float:
        """The share of tasks that settle within `age` seconds."""
        ages, cdf = self.ages, self.cdf
        if age >= ages[-1]:
            return float(1.0 - (1.0 - cdf[-1]) * (ages[-1] / age) ** TAIL)
        i = bisect_right(ages, age)
        left, low = ages[i - 1], cdf[i - 1]
        return low + (cdf[i] - low) * (age - left) / (ages[i] - left)

    def settled_for(self, age: float) -> float:
        """The integral of `share` up to `age`: seconds since settling, averaged over all, 0 for the unsettled."""
        ages, cdf = self.ages, self.cdf
        if age >= ages[-1]:
            end, left = ages[-1], 1.0 - cdf[-1]
            return float(self.area[-1] + (age - end) - left * end / (TAIL - 1) * (1 - (end / age) ** (TAIL - 1)))
        i = bisect_right(ages, age) - 1
        past = age - ages[i]
        slope = (cdf[i + 1] - cdf[i]) / (ages[i + 1] - ages[i])
        return self.area[i] + past * (cdf[i] + slope * past / 2)

    def table(self, ages: Sequence[float]) -> tuple[list[float], list[float]]:
        """`share` and `settled_for` of many ages that rise, at the price of one pass."""
        shares, areas = [], []
        edges, cdf, area, i, end = self.ages, self.cdf, self.area, 0, len(self.ages) - 1
        for age in ages:
            if age >= edges[end]:
                shares.append(self.share(age))
                areas.append(self.settled_for(age))
                continue
            while edges[i + 1] <= age:
                i += 1
            past, low = age - edges[i], cdf[i]
            more = (cdf[i + 1] - low) / (edges[i + 1] - edges[i]) * past
            shares.append(low + more)
            areas.append(area[i] + past * (low + more / 2))
        return shares, areas

    def undetected(self, looked: float, age: float) -> float:
        """The expected seconds that a task of `age` has been settled unseen, given that at age `looked` it was not.

        v = (A(age) - A(looked) - F(looked) (age - looked)) / S(looked), A the integral of the cdf F, S = 1 - F.
        """
        before = self.share(looked)
        gained = self.settled_for(age) - self.settled_for(looked) - before * (age - looked)
        return max(0.0, gained / max(LEAST, 1.0 - before))

    def quantile(self, share: float) -> float:
        """The age within which `share` of the tasks settle, at most the last age."""
        cdf, ages = self.cdf, self.ages
        if share >= cdf[-1]:
            return ages[-1]
        i = bisect_right(cdf, share)
        return ages[i - 1] + (ages[i] - ages[i - 1]) * (share - cdf[i - 1]) / (cdf[i] - cdf[i - 1])
