"""Turns of several sources of actions, so that none of them is always the last to be considered. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from pika_async._planning.actions import Action, WaitUntil

__all__ = ["in_turns"]

#: Returns the next action at a time in the caller's monotonic seconds, or until when to wait.
Source: TypeAlias = Callable[[float], Action | WaitUntil]


def in_turns(sources: Sequence[Source]) -> Source:
    """Return one source for several, which have their turns; a single one is returned as it is."""
    return sources[0] if len(sources) == 1 else _Turns(sources).next_action


@attrs.define
class _Turns:
    """Sources of actions, considered from the one behind the last that had an action."""

    sources: Sequence[Source]
    #: The position of the source that is considered first.
    _first: int = 0

    def next_action(self, now: float) -> Action | WaitUntil:
        """Return the action of the first source that has one; else the earliest time until which one waits."""
        until, count = math.inf, len(self.sources)
        for position in range(self._first, self._first + count):
            action = self.sources[position % count](now)
            if not isinstance(action, WaitUntil):
                self._first = (position + 1) % count
                return action
            until = min(until, action.until)
        return WaitUntil(until)
