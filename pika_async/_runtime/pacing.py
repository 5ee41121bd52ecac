"""Turns that long work in the event loop gives to other tasks. Starts no task and no thread."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable
from typing import Final, TypeVar

import anyio.lowlevel

__all__ = ["Pace", "paced"]

T = TypeVar("T")

#: Items that are handled between two turns of other tasks, at most.
ITEMS_PER_TURN: Final = 64
#: Seconds after which other tasks get a turn, however few items were handled: an item may hold an image.
SECONDS_PER_TURN: Final = 0.01


class Pace:
    """Counter of the items that one piece of work has handled since other tasks had a turn.

    :param seconds: the longest time between two turns; default: `SECONDS_PER_TURN`.
    """

    def __init__(self, seconds: float = SECONDS_PER_TURN) -> None:
        self._seconds = seconds
        self._items = 0
        self._began = time.monotonic()

    async def step(self) -> None:
        """Count an item; let other tasks run if that many were handled, or for that long."""
        self._items += 1
        if self._items >= ITEMS_PER_TURN or time.monotonic() - self._began >= self._seconds:
            await anyio.lowlevel.checkpoint()
            self._items, self._began = 0, time.monotonic()


async def paced(items: Iterable[T]) -> AsyncGenerator[T, None]:
    """Yield *items*, with turns of other tasks between them."""
    pace = Pace()
    for item in items:
        yield item
        await pace.step()
