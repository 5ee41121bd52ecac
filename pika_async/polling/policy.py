"""Interface of polling policies, and the simplest policy. Reads no clock, draws no random numbers, does no I/O."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

import attrs

from pika_async.errors import ConfigurationError
from pika_async.polling.durations import DurationSample

__all__ = ["FixedInterval", "PollContext", "PollingPolicy", "above_zero"]


@attrs.frozen
class PollContext:
    """One unsettled task as a policy sees it. Ages are seconds since the task was accepted."""

    #: The stratum of the task; see `pika_async.polling`.
    stratum: str
    age: float
    #: Number of polls so far.
    polls: int
    #: Percent, where the provider reports it; 0 also while the provider only reports the task as queued.
    progress: int | None = None
    #: Age at the previous poll that found the task unsettled. None on the first call, and when the task's ages are
    #: uncertain: then nothing can be learned from it.
    last_unsettled_age: float | None = None
    #: Age at which `progress` was reported; None: now. A task that was queued at that age and now runs without a
    #: reported percent keeps a `progress` of 0 and that age.
    progress_age: float | None = None
    #: Fraction of completions without a callback, 0 to 1; 1 when callbacks are off. Only these have to be found by
    #: polling.
    callback_loss: float = 1.0


class PollingPolicy(abc.ABC):
    """Base class of polling policies. `next_delay` and `observe` must be written, the rest has defaults.

    Methods must not block. They are called from the event loop of the client; `medians` and `describe` may be called
    from other threads. A method that raises, or returns a value that is not usable, is logged once and replaced by a
    default; no job is lost.
    """

    __slots__ = ()

    #: Polls per second over all tasks; None: no limit.
    max_polls_per_second: float | None = None
    #: Seconds that a task is expected to take before any has settled; None: 60. Used for estimates only.
    expected_seconds: float | None = None

    @abc.abstractmethod
    def next_delay(self, context: PollContext, u: float) -> float:
        """Return the seconds until the next poll, above 0 and finite.

        Called when a task is accepted or resumed, and after each poll that found it unsettled.

        :param context: the task.
        :param u: a uniform random number in [0, 1), to spread polls.
        """

    @abc.abstractmethod
    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> bool | None:
        """Learn from one task that has settled or is no longer polled, now or in an earlier process.

        Return True if tasks of its stratum have become quicker: `replan_delay` is then called for all that are waiting.

        :param sample: the interval in which the task settled.
        :param last_unsettled_age: the last age at which this policy was informed that the task was unsettled, in
            seconds; None if it was never informed.
        """

    def replan_delay(self, context: PollContext, u: float) -> float | None:  # noqa: ARG002 - for subclasses
        """Return the delay, from the last poll, for a task that was not polled since `next_delay` was called.

        None, the default: keep the planned poll.

        :param context: the task as it was at its last poll.
        :param u: a uniform random number in [0, 1), to spread polls.
        """
        return None

    def observe_unsettled(self, stratum: str, last_unsettled_age: float, age: float) -> bool | None:  # noqa: ARG002 - for subclasses
        """Learn that a task is probably still unsettled at `age`, because no callback has come for it.

        Return False, the default, if the policy does not use this.

        :param stratum: the stratum of the task.
        :param last_unsettled_age: the last age, in seconds, at which this policy was informed that it was unsettled.
        :param age: its age now, in seconds.
        """
        return False

    def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float | None:  # noqa: ARG002 - for subclasses
        """Return the expected seconds since a task settled, given that it was unsettled at `last_unsettled_age`.

        Among tasks that are due, the one with the largest value is polled first. None, the default: the one that was
        polled the longest time ago.

        :param stratum: the stratum of the task.
        :param last_unsettled_age: its age, in seconds, when it was last found unsettled.
        :param age: its age now, in seconds.
        """
        return None

    def medians(self) -> Mapping[str, float]:
        """Return the median duration of each stratum, in seconds; empty by default."""
        return {}

    def describe(self) -> Mapping[str, Any]:
        """Return what was learned of each stratum, in a form that prints well; empty by default."""
        return {}


def above_zero(_instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validate seconds, rates and weights; None is allowed.

    :raises ConfigurationError: with the name and the value.
    """
    ok = value is None or (not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < math.inf)
    if not ok:
        raise ConfigurationError(setting=attribute.name, reason=f"must be a number above 0, not {value!r}")


@attrs.frozen
class FixedInterval(PollingPolicy):
    """One poll every `seconds`, the first after as long; `seconds` / sqrt(callback_loss) where callbacks arrive.

    That interval minimizes polls + weight x delay when only completions without a callback are delayed: the number of
    polls is proportional to 1 / t, the delay to callback_loss x t / 2.

    :param seconds: the interval in seconds, above 0.
    :raises ConfigurationError: for a value that is not above 0.
    """

    seconds: float = attrs.field(validator=above_zero)

    def next_delay(self, context: PollContext, u: float) -> float:  # noqa: ARG002 - the base class's
        """Return `seconds` / sqrt(callback_loss)."""
        return self.seconds / math.sqrt(context.callback_loss)

    def replan_delay(self, context: PollContext, u: float) -> float:
        """Return the same as `next_delay`."""
        return self.next_delay(context, u)

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
        """Learn nothing."""
