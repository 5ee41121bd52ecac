"""Polling policies: when to poll a slow task again. Reads no clock, draws no random numbers, does no I/O.

A *stratum* is a group of tasks with alike durations: those of one provider, model, kind (text, image, video) and with
or without an effect. Durations are estimated per stratum, as in a stratified survival estimate: several narrow
distributions predict better than one wide one.

Write a policy of your own as a subclass of `PollingPolicy`.
"""

from pika_async.polling.adaptive import AdaptivePolling, DurationForecast, DurationForecasts
from pika_async.polling.distribution import Distribution
from pika_async.polling.durations import DurationEstimator, DurationSample
from pika_async.polling.policy import FixedInterval, PollContext, PollingPolicy
from pika_async.polling.schedule import Schedule

__all__ = [
    "AdaptivePolling",
    "Distribution",
    "DurationEstimator",
    "DurationForecast",
    "DurationForecasts",
    "DurationSample",
    "FixedInterval",
    "PollContext",
    "PollingPolicy",
    "Schedule",
]
