"""Workers that were given up and wake up, that get SIGTERM, whose database is away, and those of other versions."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pika_async import ClusterUnusable, JobStatus
from pika_async.emulator import Emulator
from pika_async.engines.tables import TABLES_VERSION
from tests.engines.postgres import PostgresServer, new_database
from tests.engines.worker_process import (
    TTL_S,
    account,
    ended,
    eventually,
    opened,
    recorded,
    settled,
    started,
    verify,
    workers,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

OPTIONS: dict[str, Any] = {"durations": "constant:0.3", "video_seconds": 1, "render": False}


async def test_a_worker_that_wakes_after_its_end_keeps_the_id_as_an_orphan_and_exits(
    database_url: str, tmp_path: Path
) -> None:
    """Stopped between the answer and the record; another worker has the job in doubt by the time it goes on."""
    async with Emulator(**OPTIONS) as emulator, opened(database_url, account(emulator)) as cluster:
        keys = await cluster.submit_many(["a cat", "a dog"])
        with workers(tmp_path, database_url, [account(emulator, max_in_flight=1)]) as processes:
            zombie = processes.start(stops_at="id")
            await eventually(lambda: zombie.is_stopped)
            processes.start()
            doubt, _ = sorted(await settled(cluster, keys), key=lambda job: job.status is JobStatus.SUCCEEDED)
            assert doubt.status is JobStatus.UNKNOWN
            before = [job async for job in cluster.jobs()]
            zombie.send(signal.SIGCONT)
            assert await zombie.ended() == 1
            assert "error: the lease of this worker has ended (it was not extended in time)" in zombie.text
            assert "Traceback" not in zombie.text
            assert [job async for job in cluster.jobs()] == before
            (orphan,) = await cluster.orphans()
            charge = next(each for each in emulator.ledger if each.prompt == doubt.request.prompt)
            assert (orphan.key, orphan.task_id, orphan.account) == (doubt.key, charge.task_id, "native")
            assert f"its task id {charge.task_id} could not be saved" in zombie.text
            job = await cluster.resolve(doubt.key, task_id=orphan.task_id)
            (job,) = await settled(cluster, [job.key])
            assert job.status is JobStatus.SUCCEEDED
            assert len(emulator.ledger) == 2


async def test_a_worker_that_was_stopped_before_it_sent_does_not_send(database_url: str, tmp_path: Path) -> None:
    """Its intent is committed, so the job is in doubt, though nothing was sent."""
    async with Emulator(**OPTIONS) as emulator, opened(database_url, account(emulator)) as cluster:
        keys = await cluster.submit_many(["a cat"])
        with workers(tmp_path, database_url, [account(emulator)]) as processes:
            zombie = processes.start(stops_at="intent")
            await eventually(lambda: zombie.is_stopped)
            processes.start()
            (doubt,) = await settled(cluster, keys)
            zombie.send(signal.SIGCONT)
            assert await zombie.ended() == 1
            assert doubt.status is JobStatus.UNKNOWN
            assert await cluster.orphans() == []
            assert list(emulator.ledger) == []
            await cluster.resolve(doubt.key, charged=False)
            (job,) = await settled(cluster, keys)
            assert job.status is JobStatus.SUCCEEDED
            assert len(emulator.ledger) == 1


async def test_a_worker_that_is_stopped_for_a_moment_goes_on(database_url: str, tmp_path: Path) -> None:
    """It was stopped before it sent, but no other worker was there to end its lease."""
    async with Emulator(**OPTIONS) as emulator, opened(database_url, account(emulator)) as cluster:
        keys = await cluster.submit_many(["a cat"])
        with workers(tmp_path, database_url, [account(emulator)], stops_at="intent") as processes:
            worker = processes.start()
            await eventually(lambda: worker.is_stopped)
            await asyncio.sleep(1.2 * TTL_S)
            worker.send(signal.SIGCONT)
            (job,) = await settled(cluster, keys)
            assert job.status is JobStatus.SUCCEEDED
            assert len(emulator.ledger) == 1
            assert await ended(cluster) == []


async def test_a_worker_stopped_within_a_transaction_keeps_no_other_waiting(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """The server ends the transaction, and with it the locks of rows that all workers need."""
    url = new_database(postgres)
    async with Emulator(**OPTIONS) as emulator, opened(url, account(emulator)) as cluster:
        keys = await cluster.submit_many(["a cat", "a dog"])
        with workers(tmp_path, url, [account(emulator)]) as processes:
            zombie = processes.start(stops_at="lock")
            await eventually(lambda: zombie.is_stopped)
            processes.start()
            verify(emulator, await settled(cluster, keys))
            zombie.send(signal.SIGCONT)
            assert await zombie.ended() == 1
            assert len(emulator.ledger) == 2


async def test_a_worker_hands_over_at_once_after_sigterm(database_url: str, tmp_path: Path) -> None:
    """The answers under way are awaited, nothing is in doubt, and the next worker has the jobs long before a TTL."""
    slow = {"on": "create", "do": {"fault": "delay", "seconds": 2.0}}
    options = OPTIONS | {"durations": "constant:6"}
    async with (
        Emulator(**options, scenario=[slow]) as emulator,
        opened(database_url, account(emulator)) as cluster,
    ):
        keys = await cluster.submit_many([f"a cat {number}" for number in range(6)])
        with workers(tmp_path, database_url, [account(emulator, max_in_flight=4)], lease_ttl=60.0) as processes:
            first = processes.start()
            await eventually(lambda: len(emulator.ledger) == 4)
            processes.start()
            await started(cluster, 2)
            first.send(signal.SIGTERM)
            assert await first.ended() == 0
            at = time.monotonic()
            assert await ended(cluster) == ["closed"]
            assert len([job async for job in cluster.jobs() if job.task_id is not None]) >= 4

            async def are_taken() -> bool:
                return next(worker.jobs for worker in await cluster.workers()) == 0

            await eventually(are_taken)
            print(f"taken over {time.monotonic() - at:.1f} s after the end of the process")
            assert time.monotonic() - at < 30.0
            verify(emulator, await settled(cluster, keys))
            assert "Traceback" not in processes.texts
            assert len(emulator.ledger) == 6


@pytest.mark.parametrize("seconds", [5.0, 4 * TTL_S])
async def test_a_database_that_is_away_ends_no_worker_and_loses_no_id(tmp_path: Path, seconds: float) -> None:
    server = PostgresServer.create()
    try:
        url = new_database(server)
        options = OPTIONS | {"durations": "constant:1"}
        async with Emulator(**options) as emulator, opened(url, account(emulator)) as cluster:
            keys = await cluster.submit_many([f"a cat {number}" for number in range(60)])
            with workers(
                tmp_path, url, [account(emulator, max_in_flight=6)], download_to=str(tmp_path / "videos")
            ) as processes:
                both = [processes.start(), processes.start()]
                await started(cluster, 2)
                await recorded(cluster, 10)
                server.stop("immediate")
                sent = len(emulator.ledger)
                await asyncio.sleep(seconds)
                assert len(emulator.ledger) <= sent + 6
                server.start()
                verify(emulator, await settled(cluster, keys, 100))
                assert [process.code for process in both] == [None, None]
                assert [worker.ended for worker in await cluster.workers()] == [None, None]
                assert len(emulator.ledger) == 60
    finally:
        server.remove()


async def test_a_worker_of_a_later_version_takes_over_and_refuses_the_earlier_one(
    database_url: str, tmp_path: Path
) -> None:
    """The tables are brought to the later version while the earlier one still runs, which goes on."""
    options = OPTIONS | {"durations": "constant:4"}
    async with Emulator(**options) as emulator, opened(database_url, account(emulator)) as cluster:
        keys = await cluster.submit_many([f"a cat {number}" for number in range(4)])
        with workers(tmp_path, database_url, [account(emulator)]) as processes:
            old = processes.start(version="0.0.1")
            await recorded(cluster, 4)
            processes.start(version="99.0.0", newer_tables=True)
            await started(cluster, 2)
            assert old.code is None
            old.send(signal.SIGTERM)
            assert await old.ended() == 0
            verify(emulator, await settled(cluster, keys))
            assert [worker.version for worker in await cluster.workers()] == ["0.0.1", "99.0.0"]
            assert len(emulator.ledger) == 4
            refused = processes.start()
            assert await refused.ended() == 1
            versions = (
                f"version {TABLES_VERSION + 1}, made by a newer pika_async (this one knows version {TABLES_VERSION})"
            )
            assert f"has tables of {versions}" in refused.text
        with pytest.raises(ClusterUnusable, match="upgrade pika_async here"):
            await opened(database_url, account(emulator)).open()
