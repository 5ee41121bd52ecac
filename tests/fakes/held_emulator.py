"""An emulator whose time a test lets pass: what takes a minute is settled when the test says so, and not before."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from pika_async.emulator import Emulator


class Held(Emulator):
    """The emulator as ever, until `skip`."""

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

    def skip(self, seconds: float) -> None:
        """Let time pass at once; what falls due meanwhile is called back."""
        self._ahead += seconds
        self._loop.call_soon_threadsafe(self._callback_planned.set)
