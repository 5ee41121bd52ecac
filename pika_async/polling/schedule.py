"""Optimal schedule of polls for a known distribution of durations. Learns nothing.

It minimizes polls + weight x delay by a dynamic programme (Barlow, Hunter and Proschan, "Optimum checking procedures",
1963): W(l) = min over a > l of S(l) + weight x (A(a) - A(l) - F(l) (a - l)) + W(a), with F the cdf of the durations, S
= 1 - F and A the integral of F. Its density form, n(t) = sqrt(weight x hazard(t) / 2) polls a second (Keller, 1974),
gives the grid: points are even in the number of polls that it counts, so that a hundred of them serve for thousands of
seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise

import attrs

from pika_async.polling.distribution import MIN_POSITIVE_SURVIVAL, Distribution

__all__ = ["CAP_SECONDS", "CAP_SHARE", "FLOOR_SECONDS", "Schedule", "max_delay"]

#: Shortest delay between two polls, in seconds.
FLOOR_SECONDS = 0.05
#: Longest delay after the first poll: this share of the age plus `CAP_SECONDS`. It bounds the detection delay of tasks
#: that take much longer than all before.
CAP_SHARE = 0.35
CAP_SECONDS = 2.0
#: Grid points for one poll of the density form...
POINTS_PER_POLL = 6
#: ...at least, where the total would be exceeded.
MIN_POINTS_PER_POLL = 2
#: Grid points in total, as a target and at most.
TARGET_POINTS = 200
MAX_POINTS = 4000
#: Grid points within the longest delay that is allowed.
POINTS_PER_CAP = 4
#: Survival at which the grid ends.
GRID_END_SURVIVAL = 1e-3


def max_delay(age: float) -> float:
    """Return the longest delay after a poll at `age`, both in seconds."""
    return CAP_SHARE * age + CAP_SECONDS


@attrs.frozen(eq=False)
class Schedule:
    """Optimal polls of one task: after a poll at `ages[i]` the next one is at `following[i]`; ages begin at 0."""

    ages: list[float]
    following: list[float]
    #: Delay at the last age; beyond it the delay grows by sqrt(age / last age).
    last: float

    @classmethod
    def of(cls, durations: Distribution, weight: float) -> Schedule:
        """Return the optimal schedule.

        :param durations: the distribution of durations.
        :param weight: polls that cost as much as one second of delay.
        """
        ages = _grid(durations, weight)
        end = len(ages) - 1
        share, area = durations.table(ages)
        tail = _tail_step(ages, share, weight)
        # `cost` is W; beyond the end there is a poll every `tail` seconds. `later` is the part of a choice's cost that
        # does not depend on the poll before.
        cost = [0.0] * end + [(1 - share[end]) * (1 + ages[end] / 2 / tail + weight * tail / 2)]
        later = [0.0] * end + [weight * area[end] + cost[end]]
        best = [end] * (end + 1)
        reach = end + 1
        for i in range(end - 1, -1, -1):
            at, low = ages[i], weight * share[i]
            # The delay term is Monge, so the best next poll never moves later as `at` moves earlier.
            limit = min(reach, max(i + 2, bisect_right(ages, at + max_delay(at)))) if i else end + 1
            choices = [later[j] - low * ages[j] for j in range(i + 1, limit)]
            least = min(choices)
            best[i] = i + 1 + choices.index(least)
            reach = best[i] + 1
            cost[i] = 1 - share[i] + least - weight * area[i] + low * at
            later[i] = weight * area[i] + cost[i]
        return cls(ages, [ages[j] for j in best[:end]] + [ages[end] + tail], tail)

    def after(self, age: float) -> float:
        """Return the age of the poll that follows a poll at `age`; for 0 the age of the first poll."""
        ages, following = self.ages, self.following
        if age >= ages[-1]:
            return age + self.last * math.sqrt(age / ages[-1])
        i = bisect_right(ages, age)
        if i == 1:
            return following[0] if following[0] > age else following[1]
        share = (age - ages[i - 1]) / (ages[i] - ages[i - 1])
        return following[i - 1] + share * (following[i] - following[i - 1])

    def polls(self, count: int) -> list[float]:
        """Return the ages of the first `count` polls."""
        ages = [self.after(0.0)]
        while len(ages) < count:
            ages.append(max(ages[-1] + FLOOR_SECONDS, min(self.after(ages[-1]), ages[-1] + max_delay(ages[-1]))))
        return ages


def _tail_step(ages: list[float], share: list[float], weight: float) -> float:
    """Return the delay beyond the grid by the density form, with the hazard of its last polls, or 1 / age."""
    before = max(0, len(ages) - 1 - POINTS_PER_POLL)
    left = 1 - (share[-1] + share[before]) / 2
    hazard = max(
        1 / ages[-1], (share[-1] - share[before]) / (ages[-1] - ages[before]) / max(MIN_POSITIVE_SURVIVAL, left)
    )
    return max(FLOOR_SECONDS, min(max_delay(ages[-1]), math.sqrt(2 / (weight * hazard))))


def _grid(durations: Distribution, weight: float) -> list[float]:
    """Return ages that are even in the density form's count of polls, and nowhere sparser than the cap requires."""
    ages, cdf = durations.ages, durations.cdf
    end = durations.quantile(1 - GRID_END_SURVIVAL)
    clock, total = [0.0], 0.0
    for i in range(1, len(ages)):
        width, mass = ages[i] - ages[i - 1], cdf[i] - cdf[i - 1]
        total += math.sqrt(
            weight / 2 * width * max(0.0, mass) / max(MIN_POSITIVE_SURVIVAL, 1.0 - (cdf[i] + cdf[i - 1]) / 2)
        )
        clock.append(total)
        if ages[i] >= end:
            break
    step = max(1 / POINTS_PER_POLL, min(1 / MIN_POINTS_PER_POLL, total / TARGET_POINTS), total / MAX_POINTS)
    start = next((i - 1 for i in range(1, len(clock)) if clock[i] > 0), 0)
    grid = [0.0] if start == 0 else [0.0, ages[start]]
    due = step
    for (low, high), (left, right) in zip(pairwise(clock), pairwise(ages), strict=False):
        while due < high:
            _fill(grid, left + (right - left) * (due - low) / (high - low))
            due += step
    _fill(grid, max(end, grid[-1] * 1.01, FLOOR_SECONDS))
    return grid


def _fill(grid: list[float], age: float) -> None:
    """Append `age`, and points before it, so that no gap exceeds the cap / POINTS_PER_CAP."""
    if len(grid) > 1:
        while grid[-1] + max_delay(grid[-1]) / POINTS_PER_CAP < age:
            grid.append(grid[-1] + max_delay(grid[-1]) / POINTS_PER_CAP)
    if age > grid[-1]:
        grid.append(age)
