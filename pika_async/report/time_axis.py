"""Axis of time for a drawing, without the long stretches in which nothing happened. Draws nothing.

A batch that is resumed days later is two short runs: without a cut, each of them would be a line.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Final

import attrs

from pika_async.report import svg

__all__ = ["CLOCK_WIDTH", "Cut", "TimeAxis", "long_waits"]

#: Most stretches that are cut out; the longest ones.
MAX_CUTS: Final = 5
#: A stretch is cut out if it is at least as long as this, and longer than this share of what is left of the axis.
MIN_CUT_S: Final = 30.0
CUT_SHARE: Final = 0.2
#: The same for a stretch in which tasks were in flight: a few tasks that take minutes give no reason to cut.
MIN_BUSY_CUT_S: Final = 3600.0
BUSY_CUT_SHARE: Final = 0.5
#: Shares of the width: of a cut, and of the shortest part between two.
CUT_WIDTH: Final = 0.05
MIN_PART_WIDTH: Final = 0.1
#: Room that the clock time at the beginning of a part takes, as a share of the width at 320 px.
CLOCK_WIDTH: Final = 0.3
#: Shortest span of the axis in seconds.
MIN_SPAN_S: Final = 1.0


@attrs.frozen
class Cut:
    """Place of a stretch that is cut out.

    :param left: where it begins, as a share of the width.
    :param right: where it ends.
    :param seconds: how long the stretch is.
    """

    left: float
    right: float
    seconds: float


def long_waits(
    times: Sequence[float], in_flight: Sequence[int], states: Sequence[Hashable]
) -> list[tuple[float, float]]:
    """Return the stretches to cut out, each from the last change to the next one, in the order of time.

    :param times: times of changes in unix seconds, rising.
    :param in_flight: tasks in flight at each time.
    :param states: state at each time; nothing has happened between two times with the same one.
    """
    left = times[-1] - times[0] if times else 0.0
    stretches = [
        (end - start, start, end, busy)
        for (start, end), (before, after), busy in zip(pairwise(times), pairwise(states), in_flight, strict=False)
        if before == after
    ]
    found = []
    for length, start, end, busy in sorted(stretches, reverse=True)[:MAX_CUTS]:
        least, share = (MIN_BUSY_CUT_S, BUSY_CUT_SHARE) if busy else (MIN_CUT_S, CUT_SHARE)
        if length >= least and length > share * left:
            left -= length
            found.append((start, end))
    return sorted(found)


@attrs.frozen
class TimeAxis:
    """Map from times to shares of the width.

    :param parts: what is drawn, from a time to a time, in their order.
    """

    parts: Sequence[tuple[float, float]]

    @classmethod
    def of(cls, start: float, end: float, waits: Sequence[tuple[float, float]] = ()) -> TimeAxis:
        """Return the axis from `start` to `end` without `waits`, which lie between them and do not overlap."""
        borders = [start, *(time for wait in waits for time in wait), max(end, start + MIN_SPAN_S)]
        return cls(list(zip(borders[::2], borders[1::2], strict=True)))

    @property
    def _widths(self) -> list[float]:
        room = 1 - CUT_WIDTH * (len(self.parts) - 1)
        least = MIN_PART_WIDTH if len(self.parts) > 1 else 0.0
        lengths = [end - start for start, end in self.parts]
        if not sum(lengths):
            return [room / len(lengths)] * len(lengths)
        flexible = room - least * len(lengths)
        return [least + flexible * length / sum(lengths) for length in lengths]

    @property
    def places(self) -> list[tuple[float, float]]:
        """Where each part begins and ends, as shares of the width."""
        found, left = [], 0.0
        for width in self._widths:
            found.append((left, left + width))
            left += width + CUT_WIDTH
        return found

    @property
    def cuts(self) -> list[Cut]:
        """What is cut out."""
        around = zip(pairwise(self.places), pairwise(self.parts), strict=True)
        return [Cut(before[1], after[0], there[0] - here[1]) for (before, after), (here, there) in around]

    def x(self, at: float) -> float:
        """Return a time as a share of the width; one within a cut lies within its place."""
        knots = [
            knot
            for (start, end), (left, right) in zip(self.parts, self.places, strict=True)
            for knot in ((start, left), (end, right))
        ]
        for (start, left), (end, right) in pairwise(knots):
            if at <= end:
                return left + (right - left) * max(0.0, at - start) / (end - start) if end > start else left
        return 1.0

    def ticks(self) -> list[tuple[float, str]]:
        """Return the labels: ages; on an axis with cuts, the clock time in UTC where a part begins, and ages in it."""
        if len(self.parts) == 1:
            [(start, end)] = self.parts
            return [(age / (end - start), label) for age, label in svg.time_ticks(end - start)]
        found = []
        for (start, end), (left, right) in zip(self.parts, self.places, strict=True):
            found.append((left, svg.clock(start, "%m-%d %H:%M")))
            labels = int((right - left) * svg.TIME_LABELS)
            if end > start and labels:
                ages = [
                    (left + (right - left) * age / (end - start), name)
                    for age, name in svg.time_ticks(end - start, labels)
                ]
                found += [(at, name) for at, name in ages if at > left + CLOCK_WIDTH]
        return found
