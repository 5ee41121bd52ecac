"""The seam: what a scheduler asks a polling policy, and the simplest one. No clock, no chance, no I/O of its own."""

from __future__ import annotations

import math
from typing import Any, Protocol

import attrs

from pika_async.errors import ConfigurationError
from pika_async.polling.durations import DurationSample

__all__ = ["FixedInterval", "PollContext", "PollingPolicy", "above_zero"]


@attrs.frozen
class PollContext:
    """One unsettled task as a policy sees it. Ages are seconds since it was accepted."""

    #: Tasks of one stratum are alike in what makes them slow: provider, model, kind.
    stratum: str
    age: float
    #: How often it was looked at.
    polls: int
    #: Percent, where the provider tells; 0 also where it only tells that a task is queued.
    progress: int | None = None
    #: The age at which it was last seen unsettled, before this time; None the first time, and where no age of it is
    #: certain: nothing is learned of it then.
    last_unsettled_age: float | None = None
    #: The age at which `progress` was told; None: now. A task that was last seen queued at that age and now runs, where
    #: no percent is told, has a progress of 0 that was told then.
    progress_age: float | None = None
    #: The share of tasks of which nobody tells when they settle, 1 where nobody ever does: only those need a look.
    callback_loss: float = 1.0


class PollingPolicy(Protocol):
    """What the scheduler asks. The methods are pure but for what they remember of tasks.

    A policy may have more, which is asked for where it is there. `again(waiting, u)`: like `wait`, for a task that was
    not seen since. `passed(stratum, looked, age)`: a task that was unsettled at one age is so at another, for nobody
    has told of it. `undetected(stratum, looked, age)`: the expected seconds that such a task has been settled.
    `medians()`: half the tasks of a stratum take less, in seconds.
    """

    def next_delay(self, waiting: PollContext, u: float) -> float:
        """Seconds until the next look, above 0 and finite; `u` in [0, 1) is the chance to use.

        Asked once when a task is accepted or comes into sight, and after each look that found it unsettled.
        """

    def observe(self, seen: DurationSample, looked: float | None = None) -> bool | None:
        """A task has settled, now or in an earlier process; `looked`: its age when `wait` last heard of it, if it did.

        True if the looks at all that wait are worth asking for anew: of a policy with a method `again`, like `wait`.
        """


def above_zero(_instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validates seconds, rates and weights.

    :raises ConfigurationError: with the name and the value.
    """
    ok = value is None or (not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < math.inf)
    if not ok:
        raise ConfigurationError(setting=attribute.name, reason=f"{value!r} is no number above 0")


@attrs.frozen
class FixedInterval:
    """A look every `seconds`, the first after as long; where most settles are told of, 1 / sqrt(untold) as rarely.

    That is the interval of the least looks + weight x delay, if delay is that of the untold alone: polls go as 1 / t,
    delay as `untold` x t / 2.
    """

    seconds: float = attrs.field(validator=above_zero)

    def next_delay(self, waiting: PollContext, u: float) -> float:  # noqa: ARG002 - the protocol's
        """Always `seconds`, or as many times more."""
        return self.seconds / math.sqrt(waiting.callback_loss)

    def replan_delay(self, waiting: PollContext, u: float) -> float:
        """The same."""
        return self.next_delay(waiting, u)

    def observe(self, seen: DurationSample, looked: float | None = None) -> None:
        """Nothing is learned."""

    def describe(self) -> dict[str, Any]:
        """Empty: nothing is believed of any stratum."""
        return {}
