"""Counter of the objects of a batch that a full collection of garbage traverses, which holds the loop for each of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs


@attrs.define
class ContainerMeter:
    """The most objects of the package's types that existed at any turn of the event loop, without those of before."""

    objects: int = 0

    @asynccontextmanager
    async def measure(self) -> AsyncIterator[None]:
        """Count during the `async with` block."""
        gc.collect()
        gc.freeze()  # objects of before are not listed
        turns = asyncio.create_task(self._take_turns())
        try:
            yield
            self.count()
        finally:
            turns.cancel()  # what is frozen stays so, as it is in every other test

    async def _take_turns(self) -> None:
        while True:
            self.count()
            await asyncio.sleep(0)

    def count(self) -> None:
        """Count now."""
        found = sum(type(value).__module__.startswith("pika_async.") for value in gc.get_objects())
        self.objects = max(self.objects, found)
