"""When to look again at a slow task: pure policies behind one small protocol. No clock, no chance, no I/O of its own.

Bring your own by writing the two methods of `PollingPolicy`.
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
