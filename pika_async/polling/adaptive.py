"""Adaptive polling policy: learns the durations of each stratum and polls by the optimal schedule for them.

A schedule is kept until enough has been learned since: a quarter more settled tasks, or many polls that found their
task unsettled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from copy import deepcopy

import attrs

from pika_async.polling.distribution import Distribution
from pika_async.polling.durations import WINDOW, DurationEstimator, DurationSample
from pika_async.polling.policy import PollContext, PollingPolicy, above_zero
from pika_async.polling.progress import ProgressForecaster, calibrated
from pika_async.polling.schedule import FLOOR_SECONDS, Schedule, max_delay

__all__ = ["AdaptivePolling", "DurationForecast", "DurationForecasts", "seconds"]

#: Seconds that a task is expected to take before any task of its stratum has settled.
EXPECTED_SECONDS = 60.0
#: Polls that cost as much as a delay of one median duration. At a fixed interval: 10 polls a task and 5 % delay.
DELAY_WEIGHT = 200.0
#: A schedule is recomputed after this many newly settled tasks, as a share of the tasks that it was computed from...
RENEW_SHARE = 0.25
#: ...but not before one task in this many of those in flight has settled.
IN_FLIGHT_PER_SETTLED = 100
#: It is also recomputed after this many unsettled polls for each of these tasks: they carry information as well.
POLLS_PER_SETTLED = 16
#: Planned polls are planned again when the first poll moves to less than this share of its age.
REPLAN_SHARE = 0.95
#: First polls of a stratum are spread over this share of the distance to the second poll...
SPREAD_SHARE = 0.2
#: ...and over this much more of it when many tasks are in flight...
EXTRA_SPREAD_SHARE = 1.0
#: ...which this many are.
MANY_IN_FLIGHT = 1000


def _figure(value: float) -> str:
    return f"{value:.{2 if value < 1 else 1 if value < 10 else 0}f}"


def seconds(value: float) -> str:
    """Format a duration with two significant digits."""
    return f"{_figure(value)} s"


@attrs.frozen(kw_only=True)
class DurationForecast:
    """Forecast of the durations of one stratum; `str()` formats it for people."""

    #: Tasks that have settled, in this process and in earlier ones.
    settled: int
    #: Tasks that are in flight.
    in_flight: int
    #: Median duration in seconds.
    median: float
    #: 10 % and 90 % quantile of the durations, in seconds.
    spread: tuple[float, float]
    #: Ages, in seconds, of the next polls of a task that is accepted now, if its progress predicts nothing.
    polls: tuple[float, ...]
    #: Progress in percent, the lower end of each band, from which the forecast by progress is used.
    trusted_from: tuple[int, ...]
    #: Reasons, separated by semicolons.
    why: str

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.settled} settled, {self.in_flight} in flight",
                f"half take less than {seconds(self.median)}, four in five {' to '.join(map(seconds, self.spread))}",
                f"next polls {', '.join(map(seconds, self.polls))} after acceptance",
                f"why: {self.why}",
            ]
        )


class DurationForecasts(dict[str, DurationForecast]):
    """Forecasts by stratum; `str()` formats them for people."""

    def __str__(self) -> str:
        blocks = [f"{stratum}\n{forecast}".replace("\n", "\n  ") for stratum, forecast in self.items()]
        return "\n".join(blocks) or "no task yet"


@attrs.define
class _Stratum:
    """Durations of one stratum, and the schedule computed from them."""

    durations: DurationEstimator
    distribution: Distribution = attrs.field(init=False)
    schedule: Schedule = attrs.field(init=False)
    #: Fraction of completions without a callback.
    callback_loss: float = attrs.field(default=1.0, init=False)
    #: Polls that cost as much as one second of delay.
    weight: float = attrs.field(init=False)
    progress: ProgressForecaster = attrs.field(init=False)
    #: Age of the optimal first poll, in seconds, and the distance from it to the second.
    first: float = attrs.field(init=False)
    first_gap: float = attrs.field(init=False)
    #: Settled tasks with a progress reading.
    samples: deque[DurationSample] = attrs.field(factory=lambda: deque(maxlen=WINDOW), init=False)
    in_flight: int = attrs.field(default=0, init=False)
    #: Settled tasks and unsettled polls since the schedule was computed.
    settled: int = attrs.field(default=0, init=False)
    polls: int = attrs.field(default=0, init=False)
    #: Settled tasks after which the schedule is recomputed.
    enough_settled: float = attrs.field(default=0.0, init=False)

    def renew(self, delay_weight: float) -> None:
        """Recompute the distribution and the schedule."""
        self.distribution = self.durations.estimate()
        self.weight = self.callback_loss * delay_weight / self.distribution.quantile(0.5)
        self.schedule = Schedule.of(self.distribution, self.weight)
        self.progress = calibrated(self.samples, self.distribution, queued=self.durations.count > self.in_flight)
        self.first = self.schedule.after(0.0)
        self.first_gap = min(self.schedule.after(self.first) - self.first, max_delay(self.first), self.first)
        self.settled = self.polls = 0
        self.enough_settled = max(
            1.0, RENEW_SHARE * min(WINDOW, self.durations.count), self.in_flight / IN_FLIGHT_PER_SETTLED
        )

    @property
    def stale(self) -> bool:
        """Whether enough was learned since the schedule was computed."""
        return self.settled >= self.enough_settled or self.polls > POLLS_PER_SETTLED * self.enough_settled

    def first_poll(self, u: float) -> float:
        """Return the age of a first poll; `u` in [0, 1) spreads the polls of tasks that were accepted together."""
        return self.first + self.first_gap * (
            SPREAD_SHARE + EXTRA_SPREAD_SHARE * min(1.0, self.in_flight / MANY_IN_FLIGHT)
        ) * (u - 0.5)

    def forecast(self) -> DurationForecast:
        """Return the forecast of the stratum."""
        return DurationForecast(
            settled=self.durations.count,
            in_flight=self.in_flight,
            median=self.distribution.quantile(0.5),
            spread=(self.distribution.quantile(0.1), self.distribution.quantile(0.9)),
            polls=tuple(self.schedule.polls(5)),
            trusted_from=self.progress.trusted(),
            why="; ".join(self._reasons()),
        )

    def _reasons(self) -> Iterator[str]:
        count = self.durations.count
        yield f"learned from {count} settled" if count else f"{seconds(self.durations.prior_median)} was expected"
        if self.durations.drifts:
            yield f"older ones forgotten {self.durations.drifts} x, as durations changed"
        if trusted := self.progress.trusted():
            yield f"progress used from {', '.join(map(str, trusted))} %"
        if self.callback_loss < 1:
            yield f"about {100 * self.callback_loss:.2g} % of completions come without a callback"
        yield f"1 s of delay costs as much as {_figure(self.weight)} polls"


@attrs.define
class AdaptivePolling(PollingPolicy):
    """Polls where tasks settle: seldom before the first could have, often where most do, never rarely after that.

    The schedule minimizes polls + weight x delay for the durations learned of each stratum (see `Schedule`). No delay
    is shorter than 0.05 s, and after the first poll none is longer than (0.35 x age + 2 s) / callback_loss.

    :param expected_seconds: how long a task takes before any has settled, in seconds, above 0; default 60.
    :param delay_weight: polls that cost as much as a delay of one median duration, above 0; default 200, about 5 % of
        delay. A larger value polls more often.
    :param max_polls_per_second: polls per second over all tasks, above 0; None, the default: no limit.
    :raises ConfigurationError: for a value that is not above 0.
    """

    expected_seconds: float | None = attrs.field(default=None, validator=above_zero)
    delay_weight: float = attrs.field(default=DELAY_WEIGHT, validator=above_zero)
    max_polls_per_second: float | None = attrs.field(default=None, validator=above_zero)
    _strata: dict[str, _Stratum] = attrs.field(factory=dict, init=False, repr=False)

    def _get(self, name: str) -> _Stratum:
        stratum = self._strata.get(name)
        if stratum is None:
            stratum = self._strata[name] = _Stratum(
                DurationEstimator(prior_median=self.expected_seconds or EXPECTED_SECONDS)
            )
            stratum.renew(self.delay_weight)
        return stratum

    def _renew(self, stratum: _Stratum, context: PollContext) -> None:
        stratum.callback_loss = context.callback_loss
        stratum.renew(self.delay_weight)

    def next_delay(self, context: PollContext, u: float) -> float:
        """Return the seconds until the next poll. First polls are spread, so that a batch is not polled all at once."""
        stratum = self._get(context.stratum)
        if not context.polls:
            stratum.in_flight += 1
        if context.last_unsettled_age is not None:
            stratum.durations.add_exposure(context.last_unsettled_age, context.age)
            stratum.polls += 1
        if stratum.stale:
            self._renew(stratum, context)
        return self.replan_delay(context, u)

    def replan_delay(self, context: PollContext, u: float) -> float:
        """Return the same as `next_delay`, for a task that was not polled since; learns nothing from it."""
        stratum, age = self._get(context.stratum), context.age
        if context.callback_loss != stratum.callback_loss:
            self._renew(stratum, context)
        if not context.polls:
            first = stratum.first_poll(u)
            return max(FLOOR_SECONDS, (first if first > age else stratum.schedule.after(age)) - age)
        next_age = None
        if context.progress is not None:
            progress_age = age if context.progress_age is None else min(age, context.progress_age)
            next_age = stratum.progress.next_poll(age, context.progress, progress_age, stratum.weight)
        if next_age is None:
            next_age = stratum.schedule.after(age)
        return max(FLOOR_SECONDS, min(next_age - age, max_delay(age) / context.callback_loss))

    def observe_unsettled(self, stratum: str, last_unsettled_age: float, age: float) -> None:
        """Learn that a task is still unsettled at `age`: no callback has come for it."""
        self._get(stratum).durations.add_exposure(last_unsettled_age, age)

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> bool:
        """Learn from one task.

        Return True if tasks of its stratum have become quicker, so that planned polls are worth planning again.
        """
        stratum = self._get(sample.stratum)
        drifts = stratum.durations.drifts
        stratum.durations.add(sample, last_unsettled_age)
        stratum.settled += 1
        if last_unsettled_age is not None:
            stratum.in_flight -= 1
        if sample.progress is not None:
            stratum.samples.append(sample)
        if stratum.durations.drifts == drifts:
            return False
        first = stratum.first
        stratum.renew(self.delay_weight)
        return stratum.first < REPLAN_SHARE * first

    def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
        """Return the expected seconds since a task settled, given that it was unsettled at `last_unsettled_age`."""
        return self._get(stratum).distribution.expected_delay(last_unsettled_age, age)

    def medians(self) -> dict[str, float]:
        """Return the median duration, in seconds, of each stratum of which a task has settled."""
        strata = list(self._strata.items())  # another thread may call this
        learned = ((name, stratum) for name, stratum in strata if stratum.durations.count)
        return {name: stratum.distribution.quantile(0.5) for name, stratum in learned}

    def describe(self) -> DurationForecasts:
        """Return the forecast of each stratum from all that was learned so far; `str()` formats it for people.

        The call changes no decision. Polls may still follow the schedule before: see `RENEW_SHARE`.
        """
        return DurationForecasts((name, self._renewed(each).forecast()) for name, each in self._strata.items())

    def _renewed(self, stratum: _Stratum) -> _Stratum:
        copy = deepcopy(stratum)
        if copy.settled or copy.polls:
            copy.renew(self.delay_weight)
        return copy
