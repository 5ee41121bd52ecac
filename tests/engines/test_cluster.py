"""A cluster: what is submitted is driven by a worker, once, within the bounds of the accounts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pika_async import (
    Account,
    Cluster,
    ClusterUnusable,
    ConfigurationError,
    FixedInterval,
    GenerationRequest,
    InvalidRequest,
    UnknownJob,
)
from pika_async.emulator import Emulator
from pika_async.engines.database import CONNECTIONS
from pika_async.jobs import JobStatus
from tests.engines.clusters import finished, working
from tests.engines.postgres import PostgresServer, new_database
from tests.fakes.object_stores import BUCKET, StoreProxy

pytestmark = pytest.mark.anyio

OPTIONS: dict[str, Any] = {"durations": "constant:0.3", "video_seconds": 1}


def opened(database_url: str, *accounts: Account, **options: Any) -> Cluster:
    """Return a cluster whose jobs are polled often."""
    return Cluster(database_url, accounts, polling=FixedInterval(0.2), **options)


def account(emulator: Emulator, **options: Any) -> Account:
    return Account("native", api_key=emulator.api_key, base_url=emulator.url, **options)


async def test_results_go_into_a_store_that_all_machines_read(database_url: str, store: StoreProxy) -> None:
    """Each job has the URL of its object, also where another process asks for it."""
    async with Emulator(**OPTIONS) as emulator:
        async with opened(database_url, account(emulator)) as cluster, opened(database_url, account(emulator)) as other:
            keys = await cluster.submit_many(["a cat", "a heron"])
            async with working(cluster, download_to=f"s3://{BUCKET}/clips"):
                jobs = await finished(other, keys)
        assert {job.object_url for job in jobs.values()} == {f"s3://{BUCKET}/clips/{key}.mp4" for key in keys}
        assert sorted(store.object_keys()) == sorted(f"clips/{key}.mp4" for key in keys)
        assert len(emulator.gateway.ledger) == 2


async def test_a_worker_whose_store_refuses_takes_no_job(database_url: str, store: StoreProxy) -> None:
    """It ends with the reason, and nothing was sent."""
    async with Emulator(**OPTIONS) as emulator, opened(database_url, account(emulator)) as cluster:
        await cluster.submit_many(["a cat"])
        with pytest.raises(ConfigurationError, match="there is no such bucket"):
            await cluster.run_worker(download_to="s3://missing/clips")
        assert emulator.gateway.ledger == []
        assert store.object_keys() == []


async def test_what_is_submitted_is_generated_once_and_downloaded(database_url: str, tmp_path: Path) -> None:
    """Submitted twice, in two processes' way: the keys and the jobs are the same."""
    prompts = [f"a cat, take {number}" for number in range(12)]
    async with Emulator(**OPTIONS) as emulator:
        given = [account(emulator, max_in_flight=5, price=0.3)]
        async with opened(database_url, *given) as cluster, opened(database_url, *given) as other:
            keys = await cluster.submit_many(prompts)
            assert await other.submit_many([GenerationRequest(prompt) for prompt in prompts]) == keys
            async with working(cluster, download_to=tmp_path / "videos"):
                jobs = await finished(other, keys)
            assert {job.status for job in jobs.values()} == {JobStatus.SUCCEEDED}
            files = [job.file for job in jobs.values() if job.file is not None]
            assert sorted(files) == [tmp_path / "videos" / f"{key}.mp4" for key in sorted(keys)]
            assert all(file.read_bytes()[4:8] == b"ftyp" for file in files)
            stats = await other.stats()
            assert stats.counts == {"succeeded": 12}
            used = stats.accounts["native"]
            assert (used.in_flight, used.charges, used.spent) == (0, 12, 3.6)
            assert [(worker.jobs, worker.ended) for worker in stats.workers] == [(0, "closed")]
            assert await other.submit_many(prompts) == keys
        charged = [task.prompt for task in emulator.gateway.ledger]
    assert sorted(charged) == sorted(prompts)


async def test_a_budget_holds_over_all_workers_and_its_end_is_named(database_url: str) -> None:
    async with (
        Emulator(**OPTIONS) as emulator,
        opened(database_url, account(emulator, price=0.3), budget=1.0) as cluster,
    ):
        await cluster.submit_many([f"a dog {number}" for number in range(6)])
        async with working(cluster), asyncio.timeout(100):
            while (stats := await cluster.stats()).counts != {"planned": 3, "succeeded": 3}:
                await asyncio.sleep(0.1)
            while (stats := await cluster.stats()).accounts["native"].stopped is None:
                await asyncio.sleep(0.1)
        assert stats.accounts["native"].spent == 0.9
        assert "the budget of 1.0 is reached" in (stats.accounts["native"].stopped or "")
        assert len(emulator.gateway.ledger) == 3


async def test_a_job_is_paid_again_only_on_purpose(database_url: str) -> None:
    async with Emulator(**OPTIONS) as emulator, opened(database_url, account(emulator)) as cluster:
        (key,) = await cluster.submit_many(["a bird"])
        async with working(cluster):
            await finished(cluster, [key])
            earlier = await cluster.resubmit(key)
            again = await finished(cluster, [key])
        assert earlier.key == f"{key}~1"
        assert again[key].status is JobStatus.SUCCEEDED
        assert [job.key async for job in cluster.jobs(JobStatus.SUCCEEDED)] == [f"{key}~1", key]
        assert len({job.task_id async for job in cluster.jobs()}) == len(emulator.gateway.ledger) == 2


async def test_a_result_that_was_not_downloaded_is_fetched_by_resume(database_url: str, tmp_path: Path) -> None:
    """Queued again for a worker, and not paid again; a job that has its file stays as it is."""
    gone = {"on": "cdn", "first": 2, "do": {"fault": "answer", "status": 410}}  # asked for twice: once by a new address
    async with Emulator(scenario=[gone], **OPTIONS) as emulator, opened(database_url, account(emulator)) as cluster:
        (key,) = await cluster.submit_many(["a cat"])
        async with working(cluster, download_to=tmp_path):
            before = (await finished(cluster, [key]))[key]
            (whole,) = await cluster.submit_many(["a dog"])
            await finished(cluster, [whole])
            assert (before.status, before.file, before.error is None) == (JobStatus.SUCCEEDED, None, False)
            assert await cluster.resume() == [key]
            after = (await finished(cluster, [key]))[key]
        assert (after.file, after.error) == (tmp_path / f"{key}.mp4", None)
        assert await cluster.resume() == []
        assert len(emulator.gateway.ledger) == 2


async def test_a_key_of_another_content_is_refused_before_anything_is_saved(database_url: str) -> None:
    async with Cluster(database_url, [Account("native", api_key="k", base_url="http://127.0.0.1:9")]) as cluster:
        await cluster.submit_many([GenerationRequest("a cat", key="one")])
        with pytest.raises(InvalidRequest, match="belongs to a job with another content"):
            await cluster.submit_many(["a bird", GenerationRequest("a dog", key="one")])
        assert [job.request.prompt async for job in cluster.jobs()] == ["a cat"]
        with pytest.raises(UnknownJob):
            await cluster.job("two")
        with pytest.raises(InvalidRequest, match="must be in doubt"):
            await cluster.resolve("one", charged=False)
        with pytest.raises(InvalidRequest, match="must be finished before it is paid again"):
            await cluster.resubmit("one")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://host/x", "'mysql' is not a database that is supported; give postgresql://"),
        ("sqlite:///cluster.db", "must have an absolute path"),
        ("cluster.db", "is not the address of one"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_by_name(url: str, reason: str) -> None:
    with pytest.raises(ClusterUnusable, match=reason) as caught:
        Cluster(url, [Account("native", api_key="k", base_url="http://127.0.0.1:9")])
    assert caught.value.setting == "database"


async def test_a_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    cluster = Cluster("postgresql://pika:secret@127.0.0.1:9/x", [Account("native", base_url="http://127.0.0.1:9")])
    with pytest.raises(ClusterUnusable, match=r"pika:\*\*\*@127.0.0.1:9/x cannot be used") as caught:
        await cluster.open()
    assert "secret" not in str(caught.value)


async def test_an_argument_of_a_worker_that_cannot_work_is_refused(tmp_path: Path) -> None:
    async with Cluster(f"sqlite:///{tmp_path}/c.db", [Account("native", base_url="http://127.0.0.1:9")]) as cluster:
        for options, setting in (({"max_jobs": 0}, "max_jobs"), ({"lease_ttl": 1.0}, "lease_ttl"), ({}, "api_key")):
            with pytest.raises(ConfigurationError) as caught:
                await cluster.run_worker(**options)
            assert caught.value.setting == setting


async def test_a_worker_has_few_connections(postgres: PostgresServer) -> None:
    """A server takes 100 by default: ten workers, and the processes that follow jobs."""
    url = new_database(postgres)
    async with Emulator(**OPTIONS) as emulator, opened(url, account(emulator)) as cluster:
        keys = await cluster.submit_many([f"take {number}" for number in range(40)])
        async with working(cluster):
            await finished(cluster, keys)
            count = await cluster._database.run(
                lambda connection: connection.exec_driver_sql(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                ).scalar_one()
            )
    assert CONNECTIONS < count <= 10
