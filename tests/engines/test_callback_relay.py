"""Callbacks in a cluster: one that reaches another worker than the one that has the job makes that one poll at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pika_async import Account, CallbackReceiver, Cluster, FixedInterval, PikaClient
from pika_async.emulator import Emulator
from pika_async.engines.callback_relay import CallbackRelay
from pika_async.jobs import Job, JobStatus
from tests.engines.clusters import finished, working
from tests.fakes.raw_server import free_port
from tests.fakes.receivers import post, send_raw, status_of

pytestmark = pytest.mark.anyio

OPTIONS: dict[str, Any] = {"durations": "constant:0.3", "render": False}


@contextlib.asynccontextmanager
async def relaying(cluster: Cluster, account: Account) -> AsyncIterator[CallbackReceiver]:
    """Another worker of the cluster that drives no job and receives all callbacks."""
    port = free_port()
    receiver = CallbackReceiver(f"http://127.0.0.1:{port}", port=port)
    async with PikaClient([account]) as other:
        session = other._require_session()
        relay = CallbackRelay(
            cluster._database, cluster._queue, table=session.table, accounts=session.accounts,
            handler=session.callback_handler, spawn=session.scheduler.spawn, worker="another worker",
        )  # fmt: skip
        await receiver.attach(relay)
        try:
            yield receiver
        finally:
            await receiver.detach(relay)


def account_at(emulator: Emulator) -> Account:
    return Account("cometapi", api_key=emulator.api_key, base_url=emulator.base_url("cometapi"))


def never_polling(database_url: str, account: Account) -> Cluster:
    """Return a cluster whose jobs settle by callbacks alone."""
    return Cluster(database_url, [account], polling=FixedInterval(3600.0))


async def test_a_callback_that_another_worker_receives_settles_the_job(database_url: str) -> None:
    async with Emulator(**OPTIONS) as emulator, never_polling(database_url, account_at(emulator)) as cluster:
        async with relaying(cluster, account_at(emulator)) as receiver:
            keys = await cluster.submit_many(["a cat", "a dog"])
            async with working(cluster, callbacks=CallbackReceiver(receiver.public_url)):
                jobs = await finished(cluster, keys)
            unknown = await send_raw(receiver.port or 0, post(f"/callbacks/{'A' * 43}"))
        assert {job.status for job in jobs.values()} == {JobStatus.SUCCEEDED}
        assert [status_of(unknown), receiver.received] == [404, 2]


async def test_a_callback_confirms_a_job_in_doubt_that_no_worker_has(database_url: str) -> None:
    """Its worker had ended before the answer came; the next one follows the callback up, and pays nothing."""
    script: list[dict[str, Any]] = [{"on": "create", "do": {"fault": "drop", "when": "before-reply"}}]
    async with Emulator(scenario=script, **OPTIONS | {"durations": "constant:4"}) as emulator:
        account = account_at(emulator)
        async with never_polling(database_url, account) as cluster, relaying(cluster, account) as receiver:
            keys = await cluster.submit_many(["a cat"])
            async with working(cluster, callbacks=CallbackReceiver(receiver.public_url)):
                async with asyncio.timeout(60):
                    while not emulator.gateway.ledger:
                        await asyncio.sleep(0.05)
            doubt = await cluster.job(keys[0])
            assert doubt.status is JobStatus.UNKNOWN
            async with working(cluster, callbacks=CallbackReceiver(receiver.public_url)), asyncio.timeout(60):
                job = await settled(cluster, keys[0])
        assert (job.status, len(emulator.gateway.ledger)) == (JobStatus.SUCCEEDED, 1)


async def settled(cluster: Cluster, key: str) -> Job:
    while not (job := await cluster.job(key)).is_final:
        await asyncio.sleep(0.1)
    return job
