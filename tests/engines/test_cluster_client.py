"""A cluster as a batch uses it: no key, nothing saved that no account can do, and a stop only when it is sure."""

from __future__ import annotations

import asyncio
import os

import pytest

from pika_async import Account, GenerationRequest, InvalidRequest, NoAccountLeft
from pika_async.engines import shared_statements
from pika_async.engines.cluster_client import ClusterClient
from tests.engines.rows import Rows

pytestmark = pytest.mark.anyio

NATIVE = Account("native", base_url="http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no key in the environment."""
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)


def client_of(database_url: str, notes: list[str] | None = None) -> ClusterClient:
    return ClusterClient(database_url, [NATIVE], notify=(notes if notes is not None else []).append)


async def test_a_batch_needs_no_key(database_url: str) -> None:
    """It estimates and queues requests; the keys are the workers'."""
    async with client_of(database_url) as client:
        estimate = await client.estimate([GenerationRequest("a cat")])
        keys = await client._required().submit_many(["a cat"])
        assert (estimate.new_charges, len(keys)) == (1, 1)


async def test_a_request_that_no_account_can_fulfil_is_refused_before_any_is_saved(database_url: str) -> None:
    async with client_of(database_url) as client:
        with pytest.raises(InvalidRequest, match="duration"):
            await client._required().submit_many(["a cat", GenerationRequest("a dog", duration=5)])
        assert [job async for job in client._required().jobs()] == []


async def test_a_batch_ends_when_three_checks_in_a_row_find_every_account_stopped(
    rows: Rows, database_url: str
) -> None:
    """A worker tries a stopped account again now and then, so that one check may see what is over already."""
    await asyncio.to_thread(rows.add_worker, "w")
    await asyncio.to_thread(rows.add_account, "native")
    async with client_of(database_url) as client:
        cluster = client._required()
        keys = await cluster.submit_many(["a cat"])
        for reason in ("native: no money", "native: no money", None, "native: no money", "native: no money"):
            await asyncio.to_thread(rows.run, shared_statements.set_stop, "native", reason, None)
            await client._check(cluster, keys)
        with pytest.raises(NoAccountLeft, match="no money"):
            await client._check(cluster, keys)
        assert client.stopped_accounts == {"native": "native: no money"}


async def test_no_stop_ends_a_batch_while_no_worker_is_alive(rows: Rows, database_url: str) -> None:
    """What a worker that has ended left as the reason may be over; that none is running is said once."""
    await asyncio.to_thread(rows.add_account, "native")
    await asyncio.to_thread(rows.run, shared_statements.set_stop, "native", "native: no money", None)
    notes: list[str] = []
    async with client_of(database_url, notes) as client:
        cluster = client._required()
        keys = await cluster.submit_many(["a cat"])
        for _ in range(4):
            await client._check(cluster, keys)
    assert notes == ["no worker is running, so nothing is sent or polled: 1 job waits for one"]
