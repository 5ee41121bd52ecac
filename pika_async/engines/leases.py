"""Lease of one worker: how long it may send, by the clock of this machine. Talks to no database."""

from __future__ import annotations

import asyncio
import math
import secrets
import socket
import time
from typing import Final

import attrs

__all__ = ["DEFAULT_TTL_S", "MIN_TTL_S", "Lease", "new_worker_id"]

#: Seconds that a lease lasts without being extended.
DEFAULT_TTL_S: Final = 30.0
#: Shortest lease, in seconds.
MIN_TTL_S: Final = 2.0
#: Extensions in the time of one lease: two may be lost.
BEATS: Final = 3


def new_worker_id() -> str:
    """Return the id of a worker, which no other has, had or will have."""
    return f"{socket.gethostname()}-{secrets.token_hex(6)}"


@attrs.define
class Lease:
    """A lease as its worker sees it: it sends only while the database cannot have given the lease up.

    :param worker: the id of the worker.
    :param ttl: seconds that an extension lasts.
    """

    worker: str
    ttl: float
    #: When it may end, on the monotonic clock, which goes on while the process is stopped.
    valid_until: float = -1.0
    #: Since when every extension has succeeded, on the monotonic clock.
    unbroken_since: float = math.inf
    #: Why it has ended; None while it may hold.
    ended: str | None = None
    #: Set once the worker must end.
    over: asyncio.Event = attrs.field(factory=asyncio.Event)

    @property
    def interval(self) -> float:
        """Seconds between two extensions."""
        return self.ttl / BEATS

    @property
    def is_valid(self) -> bool:
        """Whether nothing can have ended it yet."""
        return self.ended is None and time.monotonic() < self.valid_until

    @property
    def may_end_others(self) -> bool:
        """Whether the database was there for as long as any lease lasts: those that have expired were not extended.

        After an outage every lease has expired, and every worker first has the time to extend its own.
        """
        return self.is_valid and time.monotonic() - self.unbroken_since >= self.ttl

    def on_extended(self, asked_at: float) -> None:
        """Record an extension that was asked for at `asked_at`, on the monotonic clock."""
        at = time.monotonic()
        if asked_at > self.valid_until or at - asked_at > self.interval or self.unbroken_since == math.inf:
            self.unbroken_since = at
        self.valid_until = asked_at + self.ttl

    def on_missed(self) -> None:
        """Record that the database did not answer: other workers could not extend their leases either."""
        self.unbroken_since = math.inf

    def end(self, reason: str) -> None:
        """Record that it has ended, for good."""
        self.ended = self.ended or reason
        self.over.set()
