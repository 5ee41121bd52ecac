"""The next look at a task, from what was learned of its kind; see `PollingPolicy` for the seam."""

from __future__ import annotations

import math
from typing import Any, Protocol

import attrs

from pika_async.errors import ConfigurationError
from pika_async.polling.durations import Durations

__all__ = ["AdaptivePolling", "FixedInterval", "PollingPolicy", "Waiting"]

#: The default expectation of a task nothing is known of, in seconds.
EXPECTED = 60.0
#: No wait is shorter, in seconds, however short the tasks are said to be.
FLOOR = 0.05
#: After the first look no wait is longer than this share of the age, plus `CAP_SECONDS`: removes the tail of
#: tasks far beyond every one seen so far.
CAP_SHARE, CAP_SECONDS = 0.35, 2.0


@attrs.frozen
class Waiting:
    """One unsettled task as a policy sees it. Ages are seconds since it was accepted."""

    #: Tasks of one stratum are alike in what makes them slow: provider, model, kind.
    stratum: str
    age: float
    #: How often it was looked at.
    looks: int
    #: Percent, where the provider tells.
    progress: int | None = None


class PollingPolicy(Protocol):
    """What the scheduler asks. Both methods are pure but for what they remember of settled tasks."""

    def wait(self, waiting: Waiting, u: float) -> float:
        """Seconds until the next look, above 0 and finite; `u` in [0, 1) is the chance to use."""

    def settled(self, stratum: str, after: float, before: float) -> None:
        """A task of `stratum` settled at an age between `after` and `before` seconds."""


def _seconds(_instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    ok = value is None or (not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < math.inf)
    if not ok:
        raise ConfigurationError(setting=attribute.name, reason=f"{value!r} is no number of seconds above 0")


@attrs.frozen
class FixedInterval:
    """A look every `seconds`, the first after as long."""

    seconds: float = attrs.field(validator=_seconds)

    def wait(self, waiting: Waiting, u: float) -> float:  # noqa: ARG002 - the protocol's
        """Always `seconds`."""
        return self.seconds

    def settled(self, stratum: str, after: float, before: float) -> None:
        """Nothing is learned."""


@attrs.define
class AdaptivePolling:
    """First look when the quickest tenth of such tasks has settled, then at a pace of the learned spread.

    `expected_seconds` is what a task is thought to take before any has settled (60 s). A wait is never under a 20th of
    the expectation (at most 1 s, at least 0.05 s) nor, after the first look, over 0.35 x age + 2 s.

    :raises ConfigurationError: if `expected_seconds` is not above 0.
    """

    expected_seconds: float | None = attrs.field(default=None, validator=_seconds)
    _strata: dict[str, Durations] = attrs.field(factory=dict, init=False, repr=False)

    def _durations(self, stratum: str) -> Durations:
        found = self._strata.get(stratum)
        if found is None:
            found = self._strata[stratum] = Durations(prior_median=self.expected_seconds or EXPECTED)
        return found

    def wait(self, waiting: Waiting, u: float) -> float:
        """Seconds until the next look; jittered, so that tasks accepted together are not asked together."""
        durations = self._durations(waiting.stratum)
        median = durations.quantile(0.5)
        floor = max(FLOOR, min(1.0, median / 20))
        early, late = durations.quantile(0.1), durations.quantile(0.9)
        if waiting.age < early:
            step = early - waiting.age
        elif waiting.age <= late:
            step = max(0.04 * median, (late - early) / 8)
        else:
            step = 0.1 * waiting.age
        if waiting.looks:
            step = min(step, CAP_SHARE * waiting.age + CAP_SECONDS)
        jitter = 0.1 if waiting.looks else 0.2
        return max(floor, step * (1 - jitter / 2 + jitter * u))

    def settled(self, stratum: str, after: float, before: float) -> None:
        """Learn from one settled task."""
        self._durations(stratum).add((after + before) / 2)
