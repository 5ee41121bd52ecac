"""Batches that end in one of their first turns leave nothing open."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pika_async import PikaClient
from tests.fakes.memory_gateway import client, gateway

#: Turns of the loop in which a batch starts, and some more.
TURNS = range(40)


async def cancel(_: PikaClient, batch: asyncio.Task[Any]) -> None:
    batch.cancel()


async def close(pika: PikaClient, _: asyncio.Task[Any]) -> None:
    await pika.aclose()


async def stop_the_scheduler(pika: PikaClient, _: asyncio.Task[Any]) -> None:
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "pika_async scheduler"]
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize("end", [cancel, close, stop_the_scheduler], ids=lambda it: it.__name__)
@pytest.mark.parametrize("has_journal", [False, True], ids=["in memory", "journal"])
def test_a_batch_that_ends_early_closes_its_streams(
    end: Callable[[PikaClient, asyncio.Task[Any]], Awaitable[None]], has_journal: bool, tmp_path: Path
) -> None:
    """A batch that is canceled, or whose client is closed or fails, in any of its first turns leaves no open stream."""

    async def main(turns: int) -> None:
        options = {"journal": tmp_path / f"{turns}.db"} if has_journal else {}
        pika = await client(gateway([]), "native", **options).open()
        batch = asyncio.create_task(pika.run(["a", "b"], download_to=tmp_path))
        for _ in range(turns):
            await asyncio.sleep(0)
        await end(pika, batch)
        await asyncio.gather(batch, return_exceptions=True)
        await pika.aclose()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for turns in TURNS:
            asyncio.run(main(turns))
        gc.collect()
    assert [str(warning.message) for warning in caught if warning.category is ResourceWarning] == []
