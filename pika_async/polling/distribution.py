"""Distribution of durations as a piecewise linear cdf. Learns nothing."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import attrs

__all__ = ["Distribution"]

#: Beyond the last age survival falls as this power of the age: a heavier tail than any that was measured.
TAIL_EXPONENT = 3.0
#: Smallest survival that is distinguished from 0.
MIN_POSITIVE_SURVIVAL = 1e-12
#: Range in which a lognormal is tabulated, in standard deviations on each side.
LOGNORMAL_SIGMAS = 4.0
#: Points for each of these standard deviations.
POINTS_PER_SIGMA = 12


@attrs.frozen(eq=False)
class Distribution:
    """Piecewise linear cdf of durations in seconds.

    :param ages: ages in seconds, rising from 0.
    :param cdf: the fraction of tasks that settle within each age; the last one is below 1.
    """

    ages: Sequence[float]
    cdf: Sequence[float]
    #: Integral of the cdf from 0 to each age: the mean seconds since settling, over all tasks of that age.
    area: Sequence[float] = attrs.field(init=False)

    @area.default
    def _integrate(self) -> list[float]:
        areas, total = [0.0], 0.0
        ages, cdf = self.ages, self.cdf
        for i in range(1, len(ages)):
            total += (ages[i] - ages[i - 1]) * (cdf[i] + cdf[i - 1]) / 2
            areas.append(total)
        return areas

    @classmethod
    def lognormal(cls, median: float, sigma: float) -> Distribution:
        """Return the lognormal distribution.

        :param median: in seconds.
        :param sigma: standard deviation of the logarithm.
        """
        reach = int(LOGNORMAL_SIGMAS * POINTS_PER_SIGMA)
        steps = [i / POINTS_PER_SIGMA for i in range(-reach, reach + 1)]
        ages = [median * math.exp(sigma * z) for z in steps]
        return cls([0.0, *ages], [0.0, 0.0, *(0.5 * math.erfc(-z / math.sqrt(2)) for z in steps[1:])])

    def share(self, age: float) -> float:
        """Return the fraction of tasks that settle within `age` seconds, 0 to 1."""
        ages, cdf = self.ages, self.cdf
        if age >= ages[-1]:
            return float(1.0 - (1.0 - cdf[-1]) * (ages[-1] / age) ** TAIL_EXPONENT)
        i = bisect_right(ages, age)
        left, low = ages[i - 1], cdf[i - 1]
        return low + (cdf[i] - low) * (age - left) / (ages[i] - left)

    def mean_settled_seconds(self, age: float) -> float:
        """Return the integral of `share` up to `age`: the mean seconds since settling, 0 for an unsettled task."""
        ages, cdf = self.ages, self.cdf
        if age >= ages[-1]:
            end, left, slope = ages[-1], 1.0 - cdf[-1], TAIL_EXPONENT - 1
            return float(self.area[-1] + (age - end) - left * end / slope * (1 - (end / age) ** slope))
        i = bisect_right(ages, age) - 1
        past = age - ages[i]
        slope = (cdf[i + 1] - cdf[i]) / (ages[i + 1] - ages[i])
        return self.area[i] + past * (cdf[i] + slope * past / 2)

    def table(self, ages: Sequence[float]) -> tuple[list[float], list[float]]:
        """Return `share` and `mean_settled_seconds` of rising ages, in one pass."""
        shares, areas = [], []
        edges, cdf, area, i, end = self.ages, self.cdf, self.area, 0, len(self.ages) - 1
        for age in ages:
            if age >= edges[end]:
                shares.append(self.share(age))
                areas.append(self.mean_settled_seconds(age))
                continue
            while edges[i + 1] <= age:
                i += 1
            past, low = age - edges[i], cdf[i]
            more = (cdf[i + 1] - low) / (edges[i + 1] - edges[i]) * past
            shares.append(low + more)
            areas.append(area[i] + past * (low + more / 2))
        return shares, areas

    def expected_delay(self, last_unsettled_age: float, age: float) -> float:
        """Return the expected seconds since a task of `age` settled, given that it was unsettled at the earlier age.

        With l the earlier age, F the cdf, S = 1 - F and A the integral of F:
        (A(age) - A(l) - F(l) (age - l)) / S(l).
        """
        low = self.share(last_unsettled_age)
        area = self.mean_settled_seconds(age) - self.mean_settled_seconds(last_unsettled_age)
        area -= low * (age - last_unsettled_age)
        return max(0.0, area / max(MIN_POSITIVE_SURVIVAL, 1.0 - low))

    def quantile(self, share: float) -> float:
        """Return the age, in seconds, within which the fraction `share` of the tasks settles; at most the last age."""
        cdf, ages = self.cdf, self.ages
        if share >= cdf[-1]:
            return ages[-1]
        i = bisect_right(cdf, share)
        return ages[i - 1] + (ages[i] - ages[i - 1]) * (share - cdf[i - 1]) / (cdf[i] - cdf[i - 1])
