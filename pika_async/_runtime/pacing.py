"""Turns that long work in the event loop gives to other tasks. Starts no task and no thread."""

from __future__ import annotations

import asyncio
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

    Time is the event loop's, so that a run in virtual time can be repeated.
    """

    def __init__(self) -> None:
        self._items = 0
        self._time = asyncio.get_running_loop().time
        self._began = self._time()

    async def step(self) -> None:
        """Count an item; let other tasks run if that many were handled, or for that long."""
        self._items += 1
        if self._items >= ITEMS_PER_TURN or self._time() - self._began >= SECONDS_PER_TURN:
            await anyio.lowlevel.checkpoint()
            self._items, self._began = 0, self._time()


async def paced(items: Iterable[T]) -> AsyncGenerator[T, None]:
    """Yield *items*, with turns of other tasks between them."""
    pace = Pace()
    for item in items:
        yield item
        await pace.step()
