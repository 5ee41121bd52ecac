"""The scheduler's timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pika_async import FixedInterval, JobStatus
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway


@asynccontextmanager
async def coarse_clock(resolution: float) -> AsyncIterator[None]:
    """Let every timer of the running loop fire up to *resolution* seconds early, as loops do by a clock's step."""
    loop = asyncio.get_running_loop()
    assert hasattr(loop, "_clock_resolution")
    loop._clock_resolution = resolution

    async def wake_often() -> None:
        while True:
            await asyncio.sleep(resolution * 1.01)

    waking = asyncio.create_task(wake_often())
    try:
        yield
    finally:
        waking.cancel()


def test_a_timer_that_fires_early_is_set_again() -> None:
    """A loop that wakes the scheduler a moment before a poll is due wakes it again when it is."""
    at = gateway([], durations="constant:60")

    async def main() -> list[JobStatus]:
        async with coarse_clock(0.2), client(at, "native", polling=FixedInterval(7)) as pika, asyncio.timeout(600):
            report = await pika.run(["a", "b", "c"])
            return [job.status for job in report.jobs]

    assert virtual_clock.run(main()) == [JobStatus.SUCCEEDED] * 3
