"""Stories of a gateway that answers nothing for minutes, beside one that is sound."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pika_async import Account, FixedInterval, JobStatus, Limits, PikaClient
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, gateway, requests

S = JobStatus
#: Longer than a client waits for any answer.
STALL: dict[str, Any] = {"fault": "stall", "seconds": 300}


@pytest.mark.parametrize(
    ("on", "limits"), [("create", Limits(submitting=4)), ("feed", Limits(polling=4))], ids=["submissions", "polls"]
)
def test_a_gateway_without_answers_leaves_room_to_the_others(on: str, limits: Limits) -> None:
    """The jobs of the sound one end as soon as its room allows, before the first unanswered request is given up."""
    at = gateway([{"on": on, "provider": "native", "after": 3, "do": STALL}], durations="constant:10")
    accounts = [
        Account("native", base_url=f"{ORIGIN}/native", max_in_flight=20, max_charges=20),
        Account("gptge", base_url=f"{ORIGIN}/gptge", max_in_flight=5, max_charges=20),
    ]

    async def story() -> None:
        transport = MemoryTransport(at)
        async with PikaClient(
            accounts, transport=transport, polling=FixedInterval(1.0), limits=limits, deadline=500
        ) as pika:
            ended = 0
            async for job in pika.as_settled(requests(40)):
                assert job.status is S.SUCCEEDED
                ended += job.account == "gptge"
                if ended == 20:
                    break
            assert asyncio.get_running_loop().time() < 120

    virtual_clock.run(story())
