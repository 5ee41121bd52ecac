"""fal over sockets: signed webhooks cause polls and settle doubts, forged ones do neither."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest

from pika_async import CallbackReceiver, FixedInterval, GenerationRequest, JobStatus, PikaClient, SubmissionInDoubt
from pika_async.emulator import Emulator, Scenario
from pika_async.providers.fal import FAL
from tests.fakes.callback_delivery import callback_urls
from tests.fakes.raw_server import free_port

pytestmark = pytest.mark.anyio
#: So long that only a webhook can cause a poll.
NEVER_S = 3600.0


@contextlib.asynccontextmanager
async def connected(
    script: list[dict[str, Any]], *, durations: str = "constant:0.3", **options: Any
) -> AsyncIterator[tuple[PikaClient, Emulator, CallbackReceiver]]:
    """Yield a client of an emulated fal that calls its receiver back."""
    port = free_port()
    receiver = CallbackReceiver(f"http://127.0.0.1:{port}/fal", port=port)
    scenario = Scenario.of(script) if script else None
    async with (
        Emulator(render=False, durations=durations, scenario=scenario) as emulator,
        PikaClient(
            FAL, api_key=emulator.api_key, base_url=emulator.base_url("fal"), callbacks=receiver,
            polling=FixedInterval(NEVER_S), **options,
        ) as pika,
    ):  # fmt: skip
        yield pika, emulator, receiver


async def test_a_signed_webhook_brings_the_video() -> None:
    """Nothing else polls: the keys were fetched below the base URL, and the signature fits."""
    async with connected([]) as (pika, emulator, receiver):
        with anyio.fail_after(30):
            report = await pika.run(["a cat", "a dog"])
        assert report.counts == {JobStatus.SUCCEEDED: 2}
        assert (receiver.received, receiver.refused) == (2, 0)
        assert [job.handle is not None for job in report.jobs] == [True, True]
        keys = [request for request in emulator.requests if request.path.endswith("jwks.json")]
        assert len(keys) <= 1


async def test_a_webhook_settles_a_lost_receipt() -> None:
    """The submission was charged once, and is not sent again: its webhook names the task, which a poll confirms."""
    async with connected([{"on": "create", "do": "drop"}]) as (pika, emulator, _):
        with pytest.raises(SubmissionInDoubt):
            await pika.submit(GenerationRequest("a cat", key="k"))
        with anyio.fail_after(30):
            job = await pika.wait("k")
            while job.status is JobStatus.UNKNOWN:
                await anyio.sleep(0.05)
                job = await pika.wait("k")
        assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 1)
        assert [charge.task_id for charge in emulator.ledger] == [job.task_id]


async def test_a_forged_webhook_does_nothing() -> None:
    """It gets the 404 of a stranger, whatever task it names; the true one still comes."""
    async with connected([{"on": "create", "do": "drop"}], durations="constant:2") as (pika, emulator, receiver):
        with pytest.raises(SubmissionInDoubt):
            await pika.submit(GenerationRequest("a cat", key="k"))
        url = callback_urls(emulator.gateway)["a cat"]
        body = json.dumps({"request_id": emulator.ledger[0].task_id, "status": "OK"}).encode()
        async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
            assert answer.status == 404
        job = await pika.job("k")
        assert job is not None
        assert (job.status, receiver.refused) == (JobStatus.UNKNOWN, 1)
