"""Stories of callbacks that come after a poll has found their task settled."""

from __future__ import annotations

import asyncio
import json

import pytest

from pika_async import FixedInterval
from tests.fakes import virtual_clock
from tests.fakes.callback_delivery import callback_urls, post, receiver
from tests.fakes.memory_gateway import client, gateway
from tests.fakes.only_account import only


@pytest.mark.parametrize(("seconds", "counts"), [(0.5, (1, 0)), (9.0, (0, 1))])
def test_a_late_callback_counts_as_on_time_within_its_grace(seconds: float, counts: tuple[int, int]) -> None:
    """A poll may be quicker than the callback; only one that is later than 2 s counts as lost."""
    at = gateway(durations="constant:30")

    async def main() -> None:
        to = receiver()
        async with client(at, callbacks=to, polling=FixedInterval(1.0)) as pika:
            job = await pika.wait(await pika.submit("a"))
            await asyncio.sleep(seconds)
            body = json.dumps({"task_id": job.task_id, "status": "3"}).encode()
            assert await post(to, callback_urls(at)["a"], body) == 202
            await asyncio.sleep(10)
            assert pika._session is not None
            loss = only(pika._session.table.planner).poll_queue.callbacks.loss
            assert (loss.notified, loss.missed) == counts

    virtual_clock.run(main())
