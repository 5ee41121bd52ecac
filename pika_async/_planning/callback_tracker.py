"""What callbacks have said of the jobs that wait, which look is to answer which, and how many are lost. Pure.

A callback says that a job is worth a look, and nothing else. Times are the caller's monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from pika_async._planning.actions import Entry
from pika_async._planning.callback_loss import Untold

__all__ = ["CALL_SECONDS", "PROMPT", "Calls"]

#: Callbacks cause at most one look at a job in so many seconds.
CALL_SECONDS: Final = 5.0
#: A callback comes at most so many seconds after a look has found its task settled, or this share of the task's age, if
#: it is to count as one that told.
PROMPT, PROMPTLY = 2.0, 0.1


@attrs.define
class _Call:
    """The callbacks of one job."""

    #: When the first came that no look has answered; and the first of those that the present look answers.
    at: float | None = None
    answered: float | None = None
    #: When the last look began that was to answer one.
    looked_at: float = -math.inf


@attrs.define(kw_only=True)
class Calls:
    """The callbacks of one client; where nobody listens none ever comes, and every settle is untold."""

    listens: bool = False
    untold: Untold = attrs.field(factory=Untold, init=False)
    _calls: dict[Entry, _Call] = attrs.field(factory=dict, init=False)
    #: The jobs that looks have found settled, until when a callback may be under way, and whether it was by chance.
    _found: dict[str, tuple[float, bool]] = attrs.field(factory=dict, init=False)
    #: The jobs that are looked at by chance.
    _sampled: set[Entry] = attrs.field(factory=set, init=False)

    @property
    def share(self) -> float:
        """The share of settles that nobody tells of."""
        return self.untold.share if self.listens else 1.0

    def call(self, entry: Entry, now: float) -> float:
        """A callback has come for `entry`; when it wants a look."""
        call = self._calls.setdefault(entry, _Call())
        if call.at is None:
            call.at = now
        return max(now, call.looked_at + CALL_SECONDS)

    def waits(self, entry: Entry) -> bool:
        """Whether a callback of `entry`, or chance, wants a look that has not begun."""
        call = self._calls.get(entry)
        return entry in self._sampled or (call is not None and call.at is not None)

    def begin(self, entry: Entry, now: float) -> None:
        """`entry` is being looked at."""
        call = self._calls.get(entry)
        if call is not None and call.at is not None:
            call.at, call.answered, call.looked_at = None, call.at, now

    def unsettled(self, entry: Entry, now: float) -> float:
        """A look brought no settling; when a callback that came meanwhile wants another look."""
        call = self._calls.get(entry)
        if not entry.misses and entry in self._sampled:
            self._sampled.discard(entry)
            self.untold.sampled(settled=False)
        if call is None:
            return math.inf
        if entry.misses:  # it brought nothing at all: the next one answers the callback, when that may be
            call.at = call.answered if call.at is None else call.at
            return math.inf
        call.answered = None
        return math.inf if call.at is None else max(now, call.looked_at + CALL_SECONDS)

    def told_at(self, entry: Entry) -> float | None:
        """When the callback came that told of the settling of `entry`, if one did."""
        call = self._calls.get(entry)
        return None if call is None else call.at if call.answered is None else call.answered

    def sample(self, entry: Entry) -> None:
        """`entry` is to be looked at by chance."""
        self._sampled.add(entry)

    def settled(self, entry: Entry, now: float) -> None:
        """A look has found `entry` settled. One that nobody told of may be told of in a moment: both were as quick."""
        told, sampled = self.told_at(entry) is not None, entry in self._sampled
        self.forget(entry)
        if not told:
            self._found[entry.job.key] = now + min(PROMPT, PROMPTLY * (now - entry.accepted_at)), sampled
        else:
            self.untold.add(told=True)
            if sampled:
                self.untold.sampled(settled=False)

    @property
    def ready_at(self) -> float:
        """When no callback is under way any more for the first of those that looks have found settled."""
        return next(iter(self._found.values()))[0] if self._found else math.inf

    def give_up(self, now: float) -> None:
        """Those of which nobody has told in time were untold."""
        while self.ready_at <= now:
            key = next(iter(self._found))
            _, sampled = self._found.pop(key)
            self.untold.add(told=False)
            if sampled:
                self.untold.sampled(settled=True)

    def late(self, key: str) -> None:
        """A callback has come for a job that has settled."""
        if self._found.pop(key, None) is not None:
            self.untold.add(told=True)

    def forget(self, entry: Entry) -> None:
        """`entry` waits no more."""
        self._calls.pop(entry, None)
        self._sampled.discard(entry)
