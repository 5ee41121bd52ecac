"""When to look, if the distribution of durations is known: the least of polls + weight x delay. Pure; learns nothing.

The schedule is a dynamic programme (Barlow, Hunter and Proschan, "Optimum checking procedures", 1963):
W(l) = min over a > l of S(l) + weight x (A(a) - A(l) - F(l) (a - l)) + W(a), with F the share settled, S = 1 - F and A
the integral of F. Its density form, n(t) = sqrt(weight x hazard(t) / 2) looks a second (Keller, 1974), is the clock in
which the programme's grid is even; so a grid of a hundred points is as good as thousands of seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise

import attrs

from pika_async.polling.distribution import LEAST, Distribution

__all__ = ["CAP_SECONDS", "CAP_SHARE", "FLOOR", "Schedule", "max_delay"]

#: No wait is shorter, in seconds, however short the tasks are said to be.
FLOOR = 0.05
#: After the first look no wait is longer than this share of the age, plus `CAP_SECONDS`: removes the tail of
#: tasks far beyond every one seen so far.
CAP_SHARE, CAP_SECONDS = 0.35, 2.0
#: Points of the grid for one look of the density form; in all; for one look at the least; and in all at the most.
FINE, POINTS, LEAST_FINE, MOST_POINTS = 6, 200, 2, 4000
#: Points of the grid for the longest wait that is allowed.
COARSE = 4
#: The grid ends where so few are left.
LEFT = 1e-3


def max_delay(age: float) -> float:
    """The longest wait after a look at `age`, in seconds."""
    return CAP_SHARE * age + CAP_SECONDS


@attrs.frozen(eq=False)
class Schedule:
    """Looks at one task: `following[i]` is the age of the best look after one at `ages[i]`; ages begin at 0."""

    ages: list[float]
    following: list[float]
    #: The wait past the last age, where it is sqrt(age / last age) longer.
    last: float

    @classmethod
    def of(cls, durations: Distribution, weight: float) -> Schedule:
        """The best schedule where a second of delay costs as much as `weight` looks."""
        ages = _grid(durations, weight)
        end = len(ages) - 1
        share, area = durations.table(ages)
        tail = _tail_step(ages, share, weight)
        # W; past the end a look every `tail` seconds. `later` is what of a choice does not depend on the look before.
        cost = [0.0] * end + [(1 - share[end]) * (1 + ages[end] / 2 / tail + weight * tail / 2)]
        later = [0.0] * end + [weight * area[end] + cost[end]]
        best = [end] * (end + 1)
        reach = end + 1
        for i in range(end - 1, -1, -1):
            at, low = ages[i], weight * share[i]
            # The delay term is Monge, so the best next look never moves later as `at` moves earlier.
            limit = min(reach, max(i + 2, bisect_right(ages, at + max_delay(at)))) if i else end + 1
            choices = [later[j] - low * ages[j] for j in range(i + 1, limit)]
            least = min(choices)
            best[i] = i + 1 + choices.index(least)
            reach = best[i] + 1
            cost[i] = 1 - share[i] + least - weight * area[i] + low * at
            later[i] = weight * area[i] + cost[i]
        return cls(ages, [ages[j] for j in best[:end]] + [ages[end] + tail], tail)

    def after(self, age: float) -> float:
        """The age of the look that follows one at `age`; after 0, of the first."""
        ages, following = self.ages, self.following
        if age >= ages[-1]:
            return age + self.last * math.sqrt(age / ages[-1])
        i = bisect_right(ages, age)
        if i == 1:
            return following[0] if following[0] > age else following[1]
        share = (age - ages[i - 1]) / (ages[i] - ages[i - 1])
        return following[i - 1] + share * (following[i] - following[i - 1])

    def polls(self, count: int) -> list[float]:
        """The ages of the first `count` looks."""
        ages = [self.after(0.0)]
        while len(ages) < count:
            ages.append(max(ages[-1] + FLOOR, min(self.after(ages[-1]), ages[-1] + max_delay(ages[-1]))))
        return ages


def _tail_step(ages: list[float], share: list[float], weight: float) -> float:
    """The wait past the end, in the density form: where the hazard is that of the last looks, or 1 / age."""
    before = max(0, len(ages) - 1 - FINE)
    left = 1 - (share[-1] + share[before]) / 2
    hazard = max(1 / ages[-1], (share[-1] - share[before]) / (ages[-1] - ages[before]) / max(LEAST, left))
    return max(FLOOR, min(max_delay(ages[-1]), math.sqrt(2 / (weight * hazard))))


def _grid(durations: Distribution, weight: float) -> list[float]:
    """Ages that are even in the density form's count of looks, and nowhere sparser than the cap asks for."""
    ages, cdf = durations.ages, durations.cdf
    end = durations.quantile(1 - LEFT)
    clock, total = [0.0], 0.0
    for i in range(1, len(ages)):
        width, mass = ages[i] - ages[i - 1], cdf[i] - cdf[i - 1]
        total += math.sqrt(weight / 2 * width * max(0.0, mass) / max(LEAST, 1.0 - (cdf[i] + cdf[i - 1]) / 2))
        clock.append(total)
        if ages[i] >= end:
            break
    step = max(1 / FINE, min(1 / LEAST_FINE, total / POINTS), total / MOST_POINTS)
    start = next((i - 1 for i in range(1, len(clock)) if clock[i] > 0), 0)
    grid = [0.0] if start == 0 else [0.0, ages[start]]
    due = step
    for (low, high), (left, right) in zip(pairwise(clock), pairwise(ages), strict=False):
        while due < high:
            _fill(grid, left + (right - left) * (due - low) / (high - low))
            due += step
    _fill(grid, max(end, grid[-1] * 1.01, FLOOR))
    return grid


def _fill(grid: list[float], age: float) -> None:
    """Append `age`, and before it points between, so that no gap is over a part of the cap."""
    if len(grid) > 1:
        while grid[-1] + max_delay(grid[-1]) / COARSE < age:
            grid.append(grid[-1] + max_delay(grid[-1]) / COARSE)
    if age > grid[-1]:
        grid.append(age)
