"""What a provider's percent is worth, learned from tasks that have settled: used only where it has proved itself.

A reading p at age a says "all in all 100 a / p seconds"; a reading of 0, such as that of a task that is queued, says
nothing of what has passed but may of what is left: "so many seconds from now". Of each settled task one reading, picked
by chance, shows how far off that was; readings of one band share the error's median and spread. Band by band the
forecast competes with the durations alone by the probability that each gave to what happened (Dawid's prequential
principle, 1984).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache

import attrs

from pika_async.polling.distribution import LEAST, Distribution
from pika_async.polling.durations import SHORTEST, DurationSample
from pika_async.polling.schedule import Schedule

__all__ = ["ProgressBand", "ProgressForecaster", "calibrated"]

#: Percents at which a new band begins.
BANDS = (1, 10, 25, 50, 75, 90, 97)
#: Readings that a band needs; how much better, in nats a task, its forecast must be.
ENOUGH, MARGIN = 8, 0.1
#: The same for readings of 0. Of a task that is never told anything else the reading that was picked is likelier to be
#: its last than any other reading is, and seems to say "soon".
ENOUGH_QUEUED, MARGIN_QUEUED = 64, 0.5
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
class ProgressBand:
    """The logarithm of a task's duration over what its reading said, or of the seconds left after a reading of 0.

    Median, spread, and how often it was seen.
    """

    offset: float
    spread: float
    readings: int
    #: Nats a task by which its forecast is better than the durations alone, at the least.
    gain: float
    #: Whether it is the band of readings of 0.
    queued: bool = False

    @property
    def trusted(self) -> bool:
        """Whether its forecast is used."""
        enough, margin = (ENOUGH_QUEUED, MARGIN_QUEUED) if self.queued else (ENOUGH, MARGIN)
        return self.readings >= enough and self.gain > margin


@attrs.frozen
class ProgressForecaster:
    """The bands of one stratum, by number; a band without readings is absent."""

    bands: dict[int, ProgressBand] = attrs.field(factory=dict)

    def next_poll(self, age: float, percent: int, told_age: float, weight: float) -> float | None:
        """The age of the next look at a task that was at `percent` at `told_age`; None where that says nothing."""
        band = self.bands.get(bisect_right(BANDS, percent))
        if band is None or not band.trusted:
            return None
        since, scale = _said(percent, told_age)
        left = scale * math.exp(band.offset)
        spread = round(math.log(band.spread / LEAST_SPREAD) / math.log(SPREAD_STEP))
        schedule = _schedule(spread, round(math.log(weight * left) / math.log(WEIGHT_STEP)))
        return since + left * schedule.after((age - since) / left)

    def trusted(self) -> tuple[int, ...]:
        """The first percents of the bands whose forecast is used."""
        return tuple(([0, *BANDS])[number] for number, band in sorted(self.bands.items()) if band.trusted)


@lru_cache(maxsize=2048)
def _schedule(spread: int, weight: int) -> Schedule:
    """For a duration of 1 on median: a schedule that every task shares, whatever its stratum."""
    return Schedule.of(Distribution.lognormal(1.0, LEAST_SPREAD * SPREAD_STEP**spread), WEIGHT_STEP**weight)


def calibrated(rows: Iterable[DurationSample], durations: Distribution, *, queued: bool = True) -> ProgressForecaster:
    """What the readings of these tasks are worth, beside `durations`; the order does not matter.

    `queued`: readings of 0 count. Where few have settled yet, they are the quick ones, and after 0 they were all quick.
    """
    told: dict[int, list[DurationSample]] = {}
    for row in rows:
        if row.progress is None or row.progress_age is None or math.isinf(row.upper):
            continue
        if row.progress or queued:
            told.setdefault(bisect_right(BANDS, row.progress), []).append(row)
    return ProgressForecaster({number: _band(rows, durations) for number, rows in told.items()})


def _said(percent: int, age: float) -> tuple[float, float]:
    """From which age on a reading counts seconds, and how many it says, but for the error of its band."""
    return (0.0, max(SHORTEST, age * 100 / percent)) if percent else (age, 1.0)


def _error(row: DurationSample) -> float:
    since, scale = _said(row.progress or 0, row.progress_age or 0.0)
    after, before = row.lower - since, row.upper - since
    return math.log(max(SHORTEST, math.sqrt(max(0.0, after, before / 4) * max(0.0, before))) / scale)


def _band(rows: list[DurationSample], durations: Distribution) -> ProgressBand:
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
    return ProgressBand(offset, spread, count, gain - 2 / count - DOUBT * error, queued=not rows[0].progress)


def _gain(row: DurationSample, offset: float, spread: float, durations: Distribution) -> float:
    """Log ratio of the probabilities of what happened: by the forecast, by the durations; both given its age."""
    age = row.progress_age or 0.0
    exact = row.lower == row.upper
    low = max(age, row.lower * (1 - EXACT) if exact else row.lower)
    high = max(low, row.upper * (1 + EXACT) if exact else row.upper)
    since, said = _said(row.progress or 0, age)
    scale = 1 / (spread * math.sqrt(2))
    center = math.log(said) + offset
    left = [math.erfc((math.log(max(SHORTEST, each - since)) - center) * scale) for each in (age, low, high)]
    by_forecast = (left[1] - left[2]) / left[0] if left[0] > 0 else 0.0
    shares = [1 - durations.share(each) for each in (age, low, high)]
    by_durations = (shares[1] - shares[2]) / max(LEAST, shares[0])
    ratio = math.log(max(1e-6, by_forecast) / max(1e-6, by_durations))
    return max(-MOST, min(MOST, ratio))
