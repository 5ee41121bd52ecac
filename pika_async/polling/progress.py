"""Forecasts from a provider's progress, calibrated on settled tasks and used only where they predict better.

Progress p at age a predicts a duration of 100 a / p seconds. Progress 0, such as that of a queued task, predicts
nothing from the elapsed time but may predict the remaining time. One reading of each settled task, picked at random,
shows the error of that prediction; the readings of one band of percents share the median and the spread of the error.
Band by band the forecast competes with the durations alone by the probability that each gave to what happened (Dawid's
prequential principle, 1984).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache

import attrs

from pika_async.polling.distribution import MIN_POSITIVE_SURVIVAL, Distribution
from pika_async.polling.durations import SHORTEST_SECONDS, DurationSample
from pika_async.polling.schedule import Schedule

__all__ = ["ProgressBand", "ProgressForecaster", "calibrated"]

#: Percents at which a new band begins.
BANDS = (1, 10, 25, 50, 75, 90, 97)
#: Readings that a band needs before its forecast is used.
MIN_READINGS = 8
#: How much better than the durations alone its forecast must be, in nats a task.
MIN_GAIN_NATS = 0.1
#: The same for readings of 0, which are biased: where a task never reports anything else, the reading that was picked
#: is more often one of its last.
MIN_READINGS_QUEUED = 64
MIN_GAIN_NATS_QUEUED = 0.5
#: Standard errors that are subtracted from the estimated gain of a forecast.
GAIN_STANDARD_ERRORS = 2.0
#: Largest gain or loss that one task may contribute, in nats.
MAX_TASK_NATS = 3.0
#: An exact duration counts as an interval of this share on both sides.
EXACT_SHARE = 0.02
#: Smallest spread of an error, and the ratio of two neighbouring spreads for which a schedule is cached.
MIN_SPREAD = 0.008
SPREAD_STEP = 1.25
#: The same ratio for the weight of a second, after a forecast has been scaled to 1 second.
WEIGHT_STEP = 1.7


@attrs.frozen
class ProgressBand:
    """Error of the forecasts of one band: the logarithm of a duration over its prediction.

    In the band of readings of 0 it is the logarithm of the remaining seconds.
    """

    #: Median of the error.
    offset: float
    #: Spread of the error.
    spread: float
    #: Number of readings.
    readings: int
    #: Lower bound of how much better than the durations alone the forecast is, in nats a task.
    gain: float
    #: Whether this is the band of readings of 0.
    queued: bool = False

    @property
    def trusted(self) -> bool:
        """Whether the forecast of this band is used."""
        if self.queued:
            return self.readings >= MIN_READINGS_QUEUED and self.gain > MIN_GAIN_NATS_QUEUED
        return self.readings >= MIN_READINGS and self.gain > MIN_GAIN_NATS


@attrs.frozen
class ProgressForecaster:
    """Bands of one stratum, by number; a band without readings is absent."""

    bands: dict[int, ProgressBand] = attrs.field(factory=dict)

    def next_poll(self, age: float, percent: int, progress_age: float, weight: float) -> float | None:
        """Return the age of the next poll of a task that was at `percent` at `progress_age`; None without a band."""
        band = self.bands.get(bisect_right(BANDS, percent))
        if band is None or not band.trusted:
            return None
        since, scale = _predicted(percent, progress_age)
        left = scale * math.exp(band.offset)
        spread = round(math.log(band.spread / MIN_SPREAD) / math.log(SPREAD_STEP))
        schedule = _schedule(spread, round(math.log(weight * left) / math.log(WEIGHT_STEP)))
        return since + left * schedule.after((age - since) / left)

    def trusted(self) -> tuple[int, ...]:
        """Return the first percent of each band whose forecast is used."""
        return tuple(([0, *BANDS])[number] for number, band in sorted(self.bands.items()) if band.trusted)


@lru_cache(maxsize=2048)
def _schedule(spread: int, weight: int) -> Schedule:
    """Return the schedule for a median duration of 1; it is shared by all tasks, whatever their stratum."""
    return Schedule.of(Distribution.lognormal(1.0, MIN_SPREAD * SPREAD_STEP**spread), WEIGHT_STEP**weight)


def calibrated(
    samples: Iterable[DurationSample], durations: Distribution, *, queued: bool = True
) -> ProgressForecaster:
    """Return the forecaster that the readings of settled tasks support, compared with `durations` alone.

    :param samples: settled tasks, in any order.
    :param durations: the distribution of durations of the stratum.
    :param queued: whether readings of 0 count. While few tasks have settled, these are the quick ones, and a reading of
        0 seems to predict a short remaining time.
    """
    bands: dict[int, list[DurationSample]] = {}
    for row in samples:
        if row.progress is None or row.progress_age is None or math.isinf(row.upper):
            continue
        if row.progress or queued:
            bands.setdefault(bisect_right(BANDS, row.progress), []).append(row)
    return ProgressForecaster({number: _band(rows, durations) for number, rows in bands.items()})


def _predicted(percent: int, age: float) -> tuple[float, float]:
    """Return the age from which a reading predicts, and the seconds that it predicts before its band's correction."""
    return (0.0, max(SHORTEST_SECONDS, age * 100 / percent)) if percent else (age, 1.0)


def _error(row: DurationSample) -> float:
    since, scale = _predicted(row.progress or 0, row.progress_age or 0.0)
    lower, upper = row.lower - since, row.upper - since
    return math.log(max(SHORTEST_SECONDS, math.sqrt(max(0.0, lower, upper / 4) * max(0.0, upper))) / scale)


def _band(rows: list[DurationSample], durations: Distribution) -> ProgressBand:
    errors = sorted(_error(row) for row in rows)
    count = len(errors)
    offset = errors[count // 2]
    # The wider of the two usual spreads: a tail of errors costs more than a narrow middle gains. Small samples get a
    # wider one still.
    middle = (errors[(count * 5) // 6] - errors[count // 6]) / 2
    spread = math.sqrt(sum((each - offset) ** 2 for each in errors) / count)
    spread = max(MIN_SPREAD, middle, spread) * (1 + 2 / count)
    gains = [_gain(row, offset, spread, durations) for row in rows]
    gain = sum(gains) / count
    error = math.sqrt(sum((each - gain) ** 2 for each in gains)) / count
    # The forecast was fitted to the same tasks: each of its two parameters overstates the gain by about 1 / count.
    return ProgressBand(
        offset, spread, count, gain - 2 / count - GAIN_STANDARD_ERRORS * error, queued=not rows[0].progress
    )


def _gain(row: DurationSample, offset: float, spread: float, durations: Distribution) -> float:
    """Return the log ratio of the probabilities that the forecast and the durations gave to what happened."""
    age = row.progress_age or 0.0
    exact = row.lower == row.upper
    low = max(age, row.lower * (1 - EXACT_SHARE) if exact else row.lower)
    high = max(low, row.upper * (1 + EXACT_SHARE) if exact else row.upper)
    since, predicted = _predicted(row.progress or 0, age)
    scale = 1 / (spread * math.sqrt(2))
    center = math.log(predicted) + offset
    left = [math.erfc((math.log(max(SHORTEST_SECONDS, each - since)) - center) * scale) for each in (age, low, high)]
    by_forecast = (left[1] - left[2]) / left[0] if left[0] > 0 else 0.0
    shares = [1 - durations.share(each) for each in (age, low, high)]
    by_durations = (shares[1] - shares[2]) / max(MIN_POSITIVE_SURVIVAL, shares[0])
    ratio = math.log(max(1e-6, by_forecast) / max(1e-6, by_durations))
    return max(-MAX_TASK_NATS, min(MAX_TASK_NATS, ratio))
