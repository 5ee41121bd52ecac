"""Limits: token buckets, the circuit breaker, the submit throttle. Pure: reads no clock, delays nothing itself."""

from __future__ import annotations

import enum
import math
from typing import Any, Final

import attrs

from pika_async._planning.backoff import backoff_delay
from pika_async.errors import ConfigurationError, SubmissionsStopped, shorten

__all__ = [
    "MAX_IN_FLIGHT", "SETTLED_JOBS", "CircuitBreaker", "Limits", "RateMeter", "SubmitThrottle", "TokenBucket",
    "checked_max_in_flight",
]  # fmt: skip

#: Default maximum number of accepted jobs: the most that an endless source of requests may cost before a result.
MAX_IN_FLIGHT: Final = 10_000
#: Default maximum number of settled jobs that a client without a journal file keeps; about 50 MiB.
SETTLED_JOBS: Final = 100_000
#: Length of the window over which a rate is measured, in seconds.
RATE_WINDOW_S: Final = 60


def _positive(_instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    bad_type = isinstance(value, bool) or not isinstance(value, int | float)
    if value is not None and (bad_type or not value > 0 or not math.isfinite(value)):
        raise ConfigurationError(setting=f"limits.{attribute.name}", reason=f"must be a number above 0, not {value!r}")


def _count(_instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigurationError(setting=f"limits.{attribute.name}", reason=f"must be an integer >= 1, not {value!r}")


@attrs.frozen(kw_only=True)
class Limits:
    """Limits of one client. None: not limited, but for `max_in_flight`.

    :param max_in_flight: maximum number of accepted jobs that are polled; None: 10,000. A job that timed out no longer
        counts. While the account answers 429, fewer are in flight: its limit is learned, and saved in the journal.
    :param submits_per_second: maximum rate of submissions; None by default.
    :param polls_per_second: maximum rate of polls; None by default.
    :param submitting: maximum number of concurrent submissions, 8 by default. Each of several accounts leaves one to
        each other.
    :param polling: maximum number of concurrent polls, 32 by default. Each of several accounts leaves one to each
        other.
    :param downloading: maximum number of concurrent downloads of each account, 4 by default.
    :param patience: seconds for which one job is submitted again while the account asks to retry later, 900 by default.
        They begin anew after a 429 while the account holds accepted jobs of this client.
    :param max_charges: maximum number of accepted submissions of this client; None by default.
    :param grace: seconds that closing waits for the responses of submissions under way, and then for the hooks, which
        have 1 s in any case; 6 by default. A submission without a response by then is in doubt. Docker kills 10 s after
        SIGTERM, Kubernetes after 30 s, and what is killed is in doubt as well.
    :param settled: maximum number of settled jobs that a client without a journal file keeps, 100,000 by default. Then
        the one that settled first is forgotten: its key is unknown, and a request of this key is a new job, which is
        paid. Never forgotten are jobs in doubt, jobs that have not settled, and results whose download has failed or
        not ended. A reader of `events` that is further behind misses the forgotten ones. A journal file forgets none.
    :raises ConfigurationError: for a number that is not above 0, or a count that is not an integer.
    """

    max_in_flight: int | None = attrs.field(default=None, validator=_count)
    submits_per_second: float | None = attrs.field(default=None, validator=_positive)
    polls_per_second: float | None = attrs.field(default=None, validator=_positive)
    submitting: int = attrs.field(default=8, validator=_count)
    polling: int = attrs.field(default=32, validator=_count)
    downloading: int = attrs.field(default=4, validator=_count)
    patience: float = attrs.field(default=900.0, validator=_positive)
    max_charges: int | None = attrs.field(default=None, validator=_count)
    grace: float = attrs.field(default=6.0, validator=_positive)
    settled: int = attrs.field(default=SETTLED_JOBS, validator=_count)


def checked_max_in_flight(value: object, given: int | None) -> int:
    """Return a new maximum number of accepted jobs.

    :param given: the one that the client was given; None: the default.
    :raises ConfigurationError: if it is not an integer from 1 to the default or, if that is more, the given one.
    """
    most = max(MAX_IN_FLIGHT, given or 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        reason = f"must be an integer from 1 to {most}, not {shorten(value)}; to send nothing, pause"
        raise ConfigurationError(setting="max_in_flight", reason=reason)
    return value


@attrs.define
class TokenBucket:
    """Token bucket whose burst is one second's worth of calls.

    :param per_second: average rate of calls; None: no limit.
    """

    per_second: float | None
    _tokens: float = 1.0
    _at: float = -math.inf

    def ready_at(self, now: float) -> float:
        """Return when the next call may begin; `now` if at once."""
        if self.per_second is None:
            return now
        self._refill(now)
        return now if self._tokens >= 1.0 else now + (1.0 - self._tokens) / self.per_second

    def take(self, now: float) -> None:
        """Record that a call has begun."""
        if self.per_second is not None:
            self._refill(now)
            self._tokens -= 1.0

    def _refill(self, now: float) -> None:
        if self.per_second is None:
            return
        burst = max(1.0, self.per_second)
        if now > self._at:
            # Without the epsilon, a wait of exactly 1 / rate could end a rounding error too early.
            gained = (now - self._at) * self.per_second
            self._tokens = min(burst, self._tokens + gained + 1e-9)
            self._at = now


@attrs.define
class RateMeter:
    """Rate of events over the last minute, counted by the second."""

    _counts: list[int] = attrs.field(factory=lambda: [0] * RATE_WINDOW_S, init=False)
    _began: int | None = attrs.field(default=None, init=False)
    _at: int = attrs.field(default=0, init=False)

    def add(self, now: float) -> None:
        """Count an event at `now`."""
        self._advance(int(now))
        self._counts[self._at % RATE_WINDOW_S] += 1

    def per_second(self, now: float) -> float:
        """Return the events per second over the last minute, or since the first event."""
        if self._began is None:
            return 0.0
        second = int(now)
        counted = range(second - RATE_WINDOW_S + 1, self._at + 1)  # read only: may be called from another thread
        span = min(RATE_WINDOW_S, second - self._began + 1)
        return sum(self._counts[each % RATE_WINDOW_S] for each in counted) / span

    def _advance(self, second: int) -> None:
        if self._began is None:
            self._began = self._at = second
        for skipped in range(self._at + 1, min(second, self._at + RATE_WINDOW_S) + 1):
            self._counts[skipped % RATE_WINDOW_S] = 0
        self._at = max(self._at, second)


class _Switch(enum.Enum):
    CLOSED = enum.auto()
    OPEN = enum.auto()
    PROBING = enum.auto()


@attrs.define
class CircuitBreaker:
    """Circuit breaker of all polls of one client. While it is open, one poll at a time is sent as a probe.

    :param threshold: number of consecutive failures that open it, 8 by default.
    """

    threshold: int = 8
    _failures: int = 0
    _state: _Switch = _Switch.CLOSED
    _until: float = -math.inf

    @property
    def is_open(self) -> bool:
        """Whether polls are delayed."""
        return self._state is not _Switch.CLOSED

    def ready_at(self, now: float) -> float:
        """Return when a poll may begin; infinity while the result of a probe is awaited."""
        if self._state is _Switch.CLOSED:
            return now
        return math.inf if self._state is _Switch.PROBING else max(now, self._until)

    def begin(self) -> bool:
        """Record that a poll has begun, and return whether it is the probe of an open breaker."""
        if self._state is not _Switch.OPEN:
            return False
        self._state = _Switch.PROBING
        return True

    def succeed(self) -> None:
        """Record a usable answer, and close the breaker."""
        self._failures, self._state = 0, _Switch.CLOSED

    def fail(self, now: float, u: float, *, probe: bool = False) -> None:
        """Record a poll without a usable answer. Polls that began before the breaker opened are ignored.

        :param u: a uniform random number in [0, 1), for the jitter of the pause.
        :param probe: whether the poll was the latest probe.
        """
        was_probe = probe and self._state is _Switch.PROBING
        if not was_probe and self._state is not _Switch.CLOSED:
            return
        self._failures += 1
        if self._failures >= self.threshold:
            self._state = _Switch.OPEN
            self._until = now + backoff_delay(self._failures - self.threshold, u, first=1.0, cap=60.0)


@attrs.define
class SubmitThrottle:
    """Throttle for all submissions of one account. Pauses on "retry later" answers and stops on permanent failures.

    :param attempts: number of consecutive submissions that could not be sent before submitting stops, 6 by default.
    :param stop: why nothing is submitted; None by default.
    """

    attempts: int = 6
    stop: SubmissionsStopped | None = None
    _paused_until: float = -math.inf
    _unsent: int = 0
    _waits: int = 0

    @property
    def unsent(self) -> int:
        """Number of consecutive submissions that could not be sent."""
        return self._unsent

    def ready_at(self, now: float) -> float:
        """Return when a submission may begin; infinity once stopped."""
        return math.inf if self.stop is not None else max(now, self._paused_until)

    def reset(self) -> None:
        """Reset all counts, after an answer other than "retry later"."""
        self._unsent = self._waits = 0

    def pause(self, now: float, u: float, retry_after: float | None) -> None:
        """Pause for `retry_after` seconds, or back off exponentially when it is missing or 0.

        :param u: a uniform random number in [0, 1), for the jitter of the backoff.
        """
        self._unsent = 0
        retry_after = retry_after or None
        if now < self._paused_until and retry_after is None:
            return  # the call was sent before the pause began, for the same reason
        pause = backoff_delay(self._waits, u, first=0.5, cap=30.0) if retry_after is None else retry_after
        self._waits += 1
        self._paused_until = max(self._paused_until, now + pause)

    def hold(self, until: float) -> None:
        """Pause until `until`, for another reason than an answer."""
        self._paused_until = max(self._paused_until, until)

    def record_unreachable(self, now: float, u: float) -> bool:
        """Record a submission that could not be sent, and back off; return True after `attempts` consecutive ones."""
        if now < self._paused_until:
            return False
        self._unsent += 1
        self._paused_until = now + backoff_delay(self._unsent - 1, u, first=0.5, cap=30.0)
        return self._unsent >= self.attempts
