"""Learned durations of each stratum, and their polls, as figures. Counts nothing of a batch and has no style."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from pika_async.polling.adaptive import DELAY_WEIGHT
from pika_async.polling.distribution import Distribution
from pika_async.polling.durations import DurationEstimator, DurationSample
from pika_async.polling.schedule import Schedule
from pika_async.report import svg

__all__ = ["DurationCharts", "durations_figure"]

#: Most strata that are drawn; those with the most settled tasks.
MAX_STRATA: Final = 12
#: Bins of the polls of one stratum.
POLL_BINS: Final = 60
#: Points of a curve.
CURVE_POINTS: Final = 120
#: Most polls of a schedule that are drawn.
MAX_POLLS: Final = 40
#: The axis ends where this share of the tasks has settled, or at the last poll that found one settled.
SHOWN_SHARE: Final = 0.99
SPAN_FACTOR: Final = 1.03
SHORTEST_SPAN_S: Final = 1e-3
#: Heights in px: above the curve, the curve, the polls made, the polls to come.
CURVE_TOP: Final = 8.0
CURVE_HEIGHT: Final = 110.0
POLLS_HEIGHT: Final = 44.0
SCHEDULE_HEIGHT: Final = 9.0


@attrs.frozen
class StratumDurations:
    """Learned durations of one stratum.

    :param ages: the age at each poll of the samples that found a task unsettled last, and that found it settled.
    :param schedule: ages of the polls of a task that is accepted now.
    """

    name: str
    settled: int
    distribution: Distribution
    unsettled_ages: Sequence[float]
    settled_ages: Sequence[float]
    schedule: Sequence[float]


@attrs.define
class DurationCharts:
    """Figures of the learned durations, drawn again only for a stratum of which more has settled.

    :param expected_seconds: how long a task takes before any has settled, in seconds, above 0.
    """

    expected_seconds: float = 60.0
    _drawn: dict[str, tuple[tuple[DurationSample, ...], str]] = attrs.field(factory=dict, init=False)

    def draw(self, samples: Iterable[DurationSample]) -> str:
        """Return the figures of the strata of `samples` as HTML; an empty text without any."""
        by_stratum: dict[str, list[DurationSample]] = {}
        for sample in samples:
            if math.isfinite(sample.upper) and sample.upper >= 0:
                by_stratum.setdefault(sample.stratum, []).append(sample)
        shown = sorted(by_stratum, key=lambda name: (-len(by_stratum[name]), name))
        figures = []
        for name in shown[:MAX_STRATA]:
            given = tuple(by_stratum[name])
            known = self._drawn.get(name)
            if known is None or known[0] != given:
                known = self._drawn[name] = (given, durations_figure(learned(name, given, self.expected_seconds)))
            figures.append(known[1])
        if not figures:
            return ""
        rest = len(shown) - len(figures)
        more = f'<p class="chart-note">{rest} more kinds of tasks are not drawn.</p>' if rest else ""
        return f'<div class="chart-grid-of">{"".join(figures)}</div>{more}'


def learned(name: str, samples: Sequence[DurationSample], expected_seconds: float) -> StratumDurations:
    """Return what the samples of one stratum teach, as `AdaptivePolling` learns it."""
    estimator = DurationEstimator(prior_median=expected_seconds)
    for sample in samples:
        estimator.add(sample)
    distribution = estimator.estimate()
    schedule = Schedule.of(distribution, DELAY_WEIGHT / distribution.quantile(0.5))
    return StratumDurations(
        name=name,
        settled=len(samples),
        distribution=distribution,
        unsettled_ages=[sample.lower for sample in samples if 0 < sample.lower < sample.upper],
        settled_ages=[sample.upper for sample in samples],
        schedule=schedule.polls(MAX_POLLS),
    )


def durations_figure(stratum: StratumDurations) -> str:
    """Return the figure of one stratum as HTML: share of settled tasks by age, the polls made, and those to come."""
    distribution = stratum.distribution
    span = max(SHORTEST_SPAN_S, distribution.quantile(SHOWN_SHARE), *stratum.settled_ages) * SPAN_FACTOR
    y = CURVE_TOP
    parts = [svg.plot(y, CURVE_HEIGHT, _curve(distribution, span))]
    for share in (0.5, 1.0):
        height = y + CURVE_HEIGHT * (1 - share)
        parts += [svg.grid_line(height), svg.text(0, height + 14, f"{share:.0%}", "chart-label chart-over")]
    y += CURVE_HEIGHT
    parts += [svg.grid_line(y, "chart-base"), svg.plot(y + 4, POLLS_HEIGHT, _polls_made(stratum, span))]
    y += 4 + POLLS_HEIGHT
    parts += [svg.grid_line(y, "chart-base"), svg.plot(y + 3, SCHEDULE_HEIGHT, [_schedule(stratum, span)])]
    y += 3 + SCHEDULE_HEIGHT
    for age, label in svg.time_ticks(span):
        parts.append(svg.text(age / span, y + 16, label, "chart-label"))
    y += svg.AXIS_HEIGHT
    low, middle, high = (svg.seconds(distribution.quantile(share)) for share in (0.1, 0.5, 0.9))
    note = f"Half settle within {middle}, four in five between {low} and {high}."
    polls = ", ".join(svg.seconds(age) for age in stratum.schedule[:3])
    known = f"Learned from {stratum.settled:,} settled tasks. The next task is polled {polls} after its acceptance."
    key = [
        ("s-downloaded", "polls that found a task settled", len(stratum.settled_ages)),
        ("s-flight", "the last ones before these", len(stratum.unsettled_ages)),
        ("s-poll", "when a new task is polled", None),
    ]
    return svg.figure(
        f"Durations of {stratum.name}", f"{note} {known}", y, parts, heading=stratum.name, key=key,
        note=f"{note} {known}",
    )  # fmt: skip


def _curve(distribution: Distribution, span: float) -> list[str]:
    ages = [span * index / CURVE_POINTS for index in range(CURVE_POINTS + 1)]
    upper = [(svg.UNITS * age / span, svg.UNITS * (1 - distribution.share(age))) for age in ages]
    lower = [(x, svg.UNITS) for x, _ in upper]
    return [svg.area(upper, lower, "s-planned"), svg.line(upper, "l-durations")]


def _polls_made(stratum: StratumDurations, span: float) -> list[str]:
    """Return bars of the polls by age, those that found a task unsettled below the others."""
    unsettled, settled = (
        Counter(min(POLL_BINS - 1, int(age / span * POLL_BINS)) for age in ages)
        for ages in (stratum.unsettled_ages, stratum.settled_ages)
    )
    most = max(1, *(unsettled[number] + settled[number] for number in range(POLL_BINS)))
    below = [unsettled[number] / most for number in range(POLL_BINS)]
    above = [(unsettled[number] + settled[number]) / most for number in range(POLL_BINS)]
    return [svg.bars(below, [0.0] * POLL_BINS, "s-flight"), svg.bars(above, below, "s-downloaded")]


def _schedule(stratum: StratumDurations, span: float) -> str:
    return svg.ticks([age / span for age in stratum.schedule if age <= span], "l-poll")
