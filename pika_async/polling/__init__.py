"""When to look again at a slow task: pure policies behind one small protocol. No clock, no chance, no I/O of its own.

Bring your own by writing the two methods of `PollingPolicy`.
"""

from pika_async.polling.durations import Durations, Observation
from pika_async.polling.schedule import AdaptivePolling, FixedInterval, PollingPolicy, Waiting

__all__ = ["AdaptivePolling", "Durations", "FixedInterval", "Observation", "PollingPolicy", "Waiting"]
