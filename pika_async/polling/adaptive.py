"""The policy that needs no tuning: durations learned of each stratum, the best schedule for them. Pure.

A schedule is kept until enough has been learned: a quarter more settles, or many looks that found nothing settled.
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
from pika_async.polling.schedule import FLOOR, Schedule, max_delay

__all__ = ["AdaptivePolling", "DurationForecast", "DurationForecasts", "seconds"]

#: The default expectation of a task nothing is known of, in seconds.
EXPECTED = 60.0
#: Looks that are as dear as one usual duration of delay: 10 looks a task and 5 % delay at a fixed interval.
DELAY_WEIGHT = 200.0
#: A schedule is made anew after so many settles: a share of those it was made from, one of so many that wait.
RENEW, CROWD = 0.25, 100
#: Or after so many looks for each of them: tasks that do not settle tell something as well.
SURVIVALS = 16
#: Looks that wait are asked for again when first looks come so much earlier.
QUICKER = 0.95
#: First looks at alike tasks are spread over this share of the way to the second, and more if so many wait.
SPREAD, MORE, MANY = 0.2, 1.0, 1000


def _figure(value: float) -> str:
    return f"{value:.{2 if value < 1 else 1 if value < 10 else 0}f}"


def seconds(value: float) -> str:
    """A duration, as exactly as people care."""
    return f"{_figure(value)} s"


@attrs.frozen(kw_only=True)
class DurationForecast:
    """What is believed of one stratum; its `str` is for people."""

    #: Tasks that have settled, now and before; tasks that wait.
    settled: int
    in_flight: int
    #: Seconds: half the tasks take less; four in five are between these.
    median: float
    spread: tuple[float, float]
    #: Ages, in seconds, of the next looks at a task that is accepted now, if its progress says nothing.
    polls: tuple[float, ...]
    #: Percents of progress, the first of each band, at which the forecast made from progress is used.
    trusted_from: tuple[int, ...]
    why: str

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.settled} settled, {self.in_flight} waiting",
                f"half take less than {seconds(self.median)}, four in five {' to '.join(map(seconds, self.spread))}",
                f"next looks {', '.join(map(seconds, self.polls))} after acceptance",
                f"why: {self.why}",
            ]
        )


class DurationForecasts(dict[str, DurationForecast]):
    """By stratum; a dict that prints for people."""

    def __str__(self) -> str:
        told = [f"{stratum}\n{belief}".replace("\n", "\n  ") for stratum, belief in self.items()]
        return "\n".join(told) or "no task yet"


@attrs.define
class _Stratum:
    """What is believed of one stratum, and the schedule made of it."""

    durations: DurationEstimator
    distribution: Distribution = attrs.field(init=False)
    schedule: Schedule = attrs.field(init=False)
    #: The share of settles that nobody tells of.
    callback_loss: float = attrs.field(default=1.0, init=False)
    #: Looks that a second of delay is worth.
    weight: float = attrs.field(init=False)
    progress: ProgressForecaster = attrs.field(init=False)
    #: The best first look, and how far from it to the second.
    first: float = attrs.field(init=False)
    room: float = attrs.field(init=False)
    samples: deque[DurationSample] = attrs.field(factory=lambda: deque(maxlen=WINDOW), init=False)
    waiting: int = attrs.field(default=0, init=False)
    #: Since the schedule was made: settles, looks; and how many settles are enough for the next.
    settles: int = attrs.field(default=0, init=False)
    polls: int = attrs.field(default=0, init=False)
    enough_polls: float = attrs.field(default=0.0, init=False)

    def renew(self, delay_weight: float) -> None:
        """A schedule of all that is known."""
        self.distribution = self.durations.estimate()
        self.weight = self.callback_loss * delay_weight / self.distribution.quantile(0.5)
        self.schedule = Schedule.of(self.distribution, self.weight)
        self.progress = calibrated(self.samples, self.distribution, queued=self.durations.count > self.waiting)
        self.first = self.schedule.after(0.0)
        self.room = min(self.schedule.after(self.first) - self.first, max_delay(self.first), self.first)
        self.settles = self.polls = 0
        self.enough_polls = max(1.0, RENEW * min(WINDOW, self.durations.count), self.waiting / CROWD)

    @property
    def stale(self) -> bool:
        """Whether enough was learned since the schedule was made."""
        return self.settles >= self.enough_polls or self.polls > SURVIVALS * self.enough_polls

    def first_poll(self, u: float) -> float:
        """The age of a first look."""
        return self.first + self.room * (SPREAD + MORE * min(1.0, self.waiting / MANY)) * (u - 0.5)

    def forecast(self) -> DurationForecast:
        """The view of it."""
        return DurationForecast(
            settled=self.durations.count,
            in_flight=self.waiting,
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
            yield f"progress believed from {', '.join(map(str, trusted))} %"
        if self.callback_loss < 1:
            yield f"{100 * self.callback_loss:.2g} % of settles are thought to be told by nobody"
        yield f"1 s of delay counts as much as {_figure(self.weight)} looks"


@attrs.define
class AdaptivePolling(PollingPolicy):
    """Looks where tasks settle: few before the first could have, dense where most do, never rare after that.

    `expected_seconds`: what a task is thought to take before any has settled (60 s). `delay_weight`: how many looks one
    whole usual duration of delay is worth (200: about 5 % delay); more looks closer. `max_polls_per_second`: over all
    tasks; None is no limit. No wait is under 0.05 s nor, after the first look, over 0.35 x age + 2 s
    (as many times more as settles are told of).

    :raises ConfigurationError: for a value that is not above 0.
    """

    expected_seconds: float | None = attrs.field(default=None, validator=above_zero)
    delay_weight: float = attrs.field(default=DELAY_WEIGHT, validator=above_zero)
    max_polls_per_second: float | None = attrs.field(default=None, validator=above_zero)
    _strata: dict[str, _Stratum] = attrs.field(factory=dict, init=False, repr=False)

    def _of(self, stratum: str) -> _Stratum:
        found = self._strata.get(stratum)
        if found is None:
            found = self._strata[stratum] = _Stratum(DurationEstimator(prior_median=self.expected_seconds or EXPECTED))
            found.renew(self.delay_weight)
        return found

    def _renew(self, found: _Stratum, waiting: PollContext) -> None:
        found.callback_loss = waiting.callback_loss
        found.renew(self.delay_weight)

    def next_delay(self, waiting: PollContext, u: float) -> float:
        """Seconds until the next look; first looks are spread: tasks accepted together are not asked together."""
        found = self._of(waiting.stratum)
        if not waiting.polls:
            found.waiting += 1
        if waiting.last_unsettled_age is not None:
            found.durations.add_exposure(waiting.last_unsettled_age, waiting.age)
            found.polls += 1
        if found.stale:
            self._renew(found, waiting)
        return self.replan_delay(waiting, u)

    def replan_delay(self, waiting: PollContext, u: float) -> float:
        """The same for a task that `wait` was asked of already, and nothing was seen of it since."""
        found, age = self._of(waiting.stratum), waiting.age
        if waiting.callback_loss != found.callback_loss:
            self._renew(found, waiting)
        if not waiting.polls:
            first = found.first_poll(u)
            return max(FLOOR, (first if first > age else found.schedule.after(age)) - age)
        look = None
        if waiting.progress is not None:
            told_age = age if waiting.progress_age is None else min(age, waiting.progress_age)
            look = found.progress.next_poll(age, waiting.progress, told_age, found.weight)
        if look is None:
            look = found.schedule.after(age)
        return max(FLOOR, min(look - age, max_delay(age) / waiting.callback_loss))

    def observe_unsettled(self, stratum: str, looked: float, age: float) -> None:
        """A task that was unsettled at age `looked` is so at `age`, as far as is known, though nobody has looked."""
        self._of(stratum).durations.add_exposure(looked, age)

    def observe(self, seen: DurationSample, looked: float | None = None) -> bool:
        """Learn from one task; `looked`: its age when `wait` last heard of it, None if it never did.

        True if tasks of its stratum have become quicker: the looks at all that wait are worth asking for `again`.
        """
        found = self._of(seen.stratum)
        drifts = found.durations.drifts
        found.durations.add(seen, looked)
        found.settles += 1
        if looked is not None:
            found.waiting -= 1
        if seen.progress is not None:
            found.samples.append(seen)
        if found.durations.drifts == drifts:
            return False
        first = found.first
        found.renew(self.delay_weight)
        return found.first < QUICKER * first

    def expected_delay(self, stratum: str, looked: float, age: float) -> float:
        """The expected seconds that a task of `age`, unsettled at age `looked`, has been settled; see `Budget`."""
        return self._of(stratum).distribution.undetected(looked, age)

    def medians(self) -> dict[str, float]:
        """Of each stratum of which a task has settled: half take less than so many seconds."""
        strata = list(self._strata.items())  # another thread may ask
        known = ((stratum, found) for stratum, found in strata if found.durations.count)
        return {stratum: found.distribution.quantile(0.5) for stratum, found in known}

    def describe(self) -> DurationForecasts:
        """What is believed of each stratum, by all that was learned so far; printed, it is for people.

        It changes nothing of what is decided. Looks may still follow the schedule before: see `RENEW`.
        """
        return DurationForecasts((stratum, self._renewed(found).forecast()) for stratum, found in self._strata.items())

    def _renewed(self, found: _Stratum) -> _Stratum:
        copy = deepcopy(found)
        if copy.settles or copy.polls:
            copy.renew(self.delay_weight)
        return copy
