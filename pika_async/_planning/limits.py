"""How much at once and how fast: rates, the breaker and the gate. Pure: time is an argument."""

from __future__ import annotations

import enum
import math
from typing import Any, Final

import attrs

from pika_async._planning.backoff import backoff_delay
from pika_async.errors import ConfigurationError, SubmissionsStopped

__all__ = ["MAX_IN_FLIGHT", "CircuitBreaker", "Limits", "RateMeter", "SubmitThrottle", "TokenBucket"]

#: Accepted jobs that are waited for at once, unless a number is given: what an endless source may cost unseen.
MAX_IN_FLIGHT: Final = 10_000
#: Seconds over which a rate is measured.
RATE_WINDOW_S: Final = 60


def _positive(_instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    bad_type = isinstance(value, bool) or not isinstance(value, int | float)
    if value is not None and (bad_type or not value > 0 or not math.isfinite(value)):
        raise ConfigurationError(setting=f"limits.{attribute.name}", reason=f"{value!r} is not above 0")


def _count(_instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigurationError(setting=f"limits.{attribute.name}", reason=f"{value!r} is no whole number from 1 up")


@attrs.frozen(kw_only=True)
class Limits:
    """What one client may do at once.

    `max_in_flight`: accepted jobs that are waited for, never exceeded (one that timed out is not any more); None is
    10,000. Fewer are in flight where the account answers 429: how many it holds is learned, and kept in the journal.
    `submits_per_second`, `polls_per_second`: None is no limit. The three counts are how many calls run side by side.
    `patience`: seconds that one job keeps trying while the account answers "wait"; a 429 while it holds tasks of ours
    begins them anew. `max_charges`: accepted submissions of this client, never exceeded.

    :raises ConfigurationError: for a value that is not above 0, or a count that is not whole.
    """

    max_in_flight: int | None = attrs.field(default=None, validator=_count)
    submits_per_second: float | None = attrs.field(default=None, validator=_positive)
    polls_per_second: float | None = attrs.field(default=None, validator=_positive)
    submitting: int = attrs.field(default=8, validator=_count)
    polling: int = attrs.field(default=32, validator=_count)
    downloading: int = attrs.field(default=4, validator=_count)
    patience: float = attrs.field(default=900.0, validator=_positive)
    max_charges: int | None = attrs.field(default=None, validator=_count)


@attrs.define
class TokenBucket:
    """A token bucket: `per_second` calls on average, at most one second's worth at once. None: no limit."""

    per_second: float | None
    _tokens: float = 1.0
    _at: float = -math.inf

    def ready_at(self, now: float) -> float:
        """When the next call may begin; `now` if at once."""
        if self.per_second is None:
            return now
        self._refill(now)
        return now if self._tokens >= 1.0 else now + (1.0 - self._tokens) / self.per_second

    def take(self, now: float) -> None:
        """One call begins."""
        if self.per_second is not None:
            self._refill(now)
            self._tokens -= 1.0

    def _refill(self, now: float) -> None:
        if self.per_second is None:
            return
        burst = max(1.0, self.per_second)
        if now > self._at:
            # The epsilon keeps a wait of exactly 1 / rate from ending a rounding error too early.
            gained = (now - self._at) * self.per_second
            self._tokens = min(burst, self._tokens + gained + 1e-9)
            self._at = now


@attrs.define
class RateMeter:
    """Counts events by the second, and forgets those of more than a minute ago."""

    _counts: list[int] = attrs.field(factory=lambda: [0] * RATE_WINDOW_S, init=False)
    _began: int | None = attrs.field(default=None, init=False)
    _at: int = attrs.field(default=0, init=False)

    def add(self, now: float) -> None:
        """One more, at `now`."""
        self._turn(int(now))
        self._counts[self._at % RATE_WINDOW_S] += 1

    def per_second(self, now: float) -> float:
        """Events a second over the last minute, or since the first one."""
        if self._began is None:
            return 0.0
        second = int(now)
        counted = range(second - RATE_WINDOW_S + 1, self._at + 1)  # changes nothing: another thread may ask
        return sum(self._counts[passed % RATE_WINDOW_S] for passed in counted) / min(
            RATE_WINDOW_S, second - self._began + 1
        )

    def _turn(self, second: int) -> None:
        if self._began is None:
            self._began = self._at = second
        for passed in range(self._at + 1, min(second, self._at + RATE_WINDOW_S) + 1):
            self._counts[passed % RATE_WINDOW_S] = 0
        self._at = max(self._at, second)


class _Switch(enum.Enum):
    CLOSED = enum.auto()
    OPEN = enum.auto()
    PROBING = enum.auto()


@attrs.define
class CircuitBreaker:
    """One for all polls: after `threshold` failures in a row every job waits, and one probe at a time is sent."""

    threshold: int = 8
    _failures: int = 0
    _state: _Switch = _Switch.CLOSED
    _until: float = -math.inf

    @property
    def is_open(self) -> bool:
        """Whether polls are held back."""
        return self._state is not _Switch.CLOSED

    def ready_at(self, now: float) -> float:
        """When a poll may begin; infinite while a probe is out."""
        if self._state is _Switch.CLOSED:
            return now
        return math.inf if self._state is _Switch.PROBING else max(now, self._until)

    def begin(self) -> bool:
        """A poll begins; True if it is the probe of an open breaker."""
        if self._state is not _Switch.OPEN:
            return False
        self._state = _Switch.PROBING
        return True

    def succeed(self) -> None:
        """An answer was read, whatever it said."""
        self._failures, self._state = 0, _Switch.CLOSED

    def fail(self, now: float, u: float, *, probe: bool = False) -> None:
        """A poll got no usable answer; of those that began before the breaker opened nothing new is learned."""
        was_probe = probe and self._state is _Switch.PROBING
        if not was_probe and self._state is not _Switch.CLOSED:
            return
        self._failures += 1
        if self._failures >= self.threshold:
            self._state = _Switch.OPEN
            self._until = now + backoff_delay(self._failures - self.threshold, u, first=1.0, cap=60.0)


@attrs.define
class SubmitThrottle:
    """One for all submissions of an account: pauses while it says "wait", stops when sending on is pointless."""

    attempts: int = 6
    #: So many web pages in a row, before anything else was answered, are another site's.
    max_html_pages: int = 3
    stop: SubmissionsStopped | None = None
    _paused_until: float = -math.inf
    _unsent: int = 0
    _waits: int = 0
    _html_pages: int = 0

    @property
    def unsent(self) -> int:
        """How many submissions in a row could not be sent at all."""
        return self._unsent

    def ready_at(self, now: float) -> float:
        """When a submission may begin; infinite once stopped."""
        return math.inf if self.stop is not None else max(now, self._paused_until)

    def reset(self) -> None:
        """The provider answered something other than "wait"."""
        self._unsent = self._waits = self._html_pages = 0

    def record_html_page(self) -> bool:
        """A web page came with a status of success; True when that happened `pages` times in a row."""
        self._html_pages += 1
        return self._html_pages >= self.max_html_pages

    def pause(self, now: float, u: float, retry_after: float | None) -> None:
        """The provider said "wait", perhaps for `retry_after` seconds; none is no wish, for just now it refused."""
        self._unsent = 0
        retry_after = retry_after or None
        if now < self._paused_until and retry_after is None:
            return  # a refusal of a call that was under way before the pause says nothing new
        pause = backoff_delay(self._waits, u, first=0.5, cap=30.0) if retry_after is None else retry_after
        self._waits += 1
        self._paused_until = max(self._paused_until, now + pause)

    def record_unreachable(self, now: float, u: float) -> bool:
        """A submission could not be sent; True when that happened `attempts` times in a row."""
        if now < self._paused_until:
            return False
        self._unsent += 1
        self._paused_until = now + backoff_delay(self._unsent - 1, u, first=0.5, cap=30.0)
        return self._unsent >= self.attempts
