"""Emulator whose clock a test can advance, so that a task of a minute settles at once."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from pika_async.emulator import Emulator


class SteppedEmulator(Emulator):
    """Emulator that runs in real time and can be advanced."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ahead = 0.0
        self._loop: asyncio.AbstractEventLoop

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return await super().__aenter__()

    @property
    def now(self) -> float:
        return super().now + self._ahead

    def advance(self, seconds: float) -> None:
        """Advance the clock; callbacks that become due are sent."""
        self._ahead += seconds
        self._loop.call_soon_threadsafe(self._callback_planned.set)
