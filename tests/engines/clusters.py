"""Workers in the process of a test, and the jobs that they finish."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pika_async import Cluster, Job


@contextlib.asynccontextmanager
async def working(cluster: Cluster, **options: Any) -> AsyncIterator[None]:
    """Run a worker in this process meanwhile; its error ends the block."""
    async with asyncio.TaskGroup() as tasks:
        worker = tasks.create_task(cluster.run_worker(**options))
        yield
        worker.cancel()


async def finished(cluster: Cluster, keys: list[str]) -> dict[str, Job]:
    async with asyncio.timeout(100):
        return {job.key: job async for job in cluster.as_settled(keys)}
