"""What a provider's percent is worth, learned from tasks that have settled: used only where it has proved itself.

A reading p at age a says "all in all 100 a / p seconds". Of each settled task one reading, picked by chance, shows how
far off that was; readings of one band share the error's median and spread. Band by band the forecast competes with the
durations alone by the probability that each gave to what happened (Dawid's prequential principle, 1984).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache

import attrs

from pika_async.polling.distribution import LEAST, Distribution
from pika_async.polling.durations import Observation
from pika_async.polling.schedule import Schedule

__all__ = ["Band", "Progress", "calibrated"]

#: Percents at which a new band begins.
BANDS = (1, 10, 25, 50, 75, 90, 97)
#: Readings that a band needs; how much better, in nats a task, its forecast must be.
ENOUGH, MARGIN = 8, 0.1
#: Standard errors that are taken off what a forecast seems to gain.
DOUBT = 2.0
#: What one task can say for or against, in nats.
MOST = 3.0
#: An exact duration is one of an interval of this share on both sides.
EXACT = 0.02
#: The least spread of an error, and the ratio of one spread to the next for which a schedule is kept.
LEAST_SPREAD, SPREAD_STEP = 0.008, 1.15
#: The same for the weight of a second, once a forecast is scaled to 1 second.
WEIGHT_STEP = 1.3


@attrs.frozen
class Band:
    """The logarithm of a task's duration over what its reading said: median, spread, and how often it was seen."""

    offset: float
    spread: float
    readings: int
    #: Nats a task by which its forecast is better than the durations alone, at the least.
    gain: float

    @property
    def trusted(self) -> bool:
        """Whether its forecast is used."""
        return self.readings >= ENOUGH and self.gain > MARGIN


@attrs.frozen
class Progress:
    """The bands of one stratum, by number; a band without readings is absent."""

    bands: dict[int, Band] = attrs.field(factory=dict)

    def next_look(self, age: float, percent: int, weight: float) -> float | None:
        """The age of the next look at a task that at `age` is at `percent`; None where that says nothing."""
        band = self.bands.get(bisect_right(BANDS, percent))
        if band is None or not band.trusted:
            return None
        forecast = age * 100 / percent * math.exp(band.offset)
        spread = round(math.log(band.spread / LEAST_SPREAD) / math.log(SPREAD_STEP))
        return forecast * _schedule(spread, round(math.log(weight * forecast) / math.log(WEIGHT_STEP))).after(
            age / forecast
        )

    def trusted(self) -> tuple[int, ...]:
        """The first percents of the bands whose forecast is used."""
        return tuple(([0, *BANDS])[number] for number, band in sorted(self.bands.items()) if band.trusted)


@lru_cache(maxsize=2048)
def _schedule(spread: int, weight: int) -> Schedule:
    """For a duration of 1 on median: a schedule that every task shares, whatever its stratum."""
    return Schedule.of(Distribution.lognormal(1.0, LEAST_SPREAD * SPREAD_STEP**spread), WEIGHT_STEP**weight)


def calibrated(rows: Iterable[Observation], durations: Distribution) -> Progress:
    """What the readings of these tasks are worth, beside `durations`; the order does not matter."""
    told: dict[int, list[Observation]] = {}
    for row in rows:
        if row.told is not None and row.told_age and row.told > 0 and math.isfinite(row.before):
            told.setdefault(bisect_right(BANDS, row.told), []).append(row)
    return Progress({number: _band(rows, durations) for number, rows in told.items()})


def _error(row: Observation) -> float:
    return math.log(row.middle * (row.told or 1) / (100 * (row.told_age or 1)))


def _band(rows: list[Observation], durations: Distribution) -> Band:
    errors = sorted(_error(row) for row in rows)
    count = len(errors)
    offset = errors[count // 2]
    # Of the two usual spreads the wider: a tail of errors costs more than the middle gains. Small samples are doubted.
    middle = (errors[(count * 5) // 6] - errors[count // 6]) / 2
    spread = math.sqrt(sum((each - offset) ** 2 for each in errors) / count)
    spread = max(LEAST_SPREAD, middle, spread) * (1 + 2 / count)
    gains = [_gain(row, offset, spread, durations) for row in rows]
    gain = sum(gains) / count
    error = math.sqrt(sum((each - gain) ** 2 for each in gains)) / count
    # Of a forecast that was fitted to the same tasks each of its two parameters flatters it by about 1 / count.
    return Band(offset, spread, count, gain - 2 / count - DOUBT * error)


def _gain(row: Observation, offset: float, spread: float, durations: Distribution) -> float:
    """Log ratio of the probabilities of what happened: by the forecast, by the durations; both given its age."""
    age = row.told_age or 0.0
    exact = row.after == row.before
    low = max(age, row.after * (1 - EXACT) if exact else row.after)
    high = max(low, row.before * (1 + EXACT) if exact else row.before)
    scale = 1 / (spread * math.sqrt(2))
    center = math.log(age * 100 / (row.told or 1)) + offset
    left = [math.erfc((math.log(each) - center) * scale) for each in (age, low, high)]
    by_forecast = (left[1] - left[2]) / left[0] if left[0] > 0 else 0.0
    shares = [1 - durations.share(each) for each in (age, low, high)]
    by_durations = (shares[1] - shares[2]) / max(LEAST, shares[0])
    ratio = math.log(max(1e-6, by_forecast) / max(1e-6, by_durations))
    return max(-MOST, min(MOST, ratio))
