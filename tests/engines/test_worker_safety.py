"""Rules of a worker that need no second process: its lease, its journal after the lease, defects, and what it forgets."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pika_async import Cluster, GenerationRequest, JobStatus
from pika_async._journal.protocol import Intent, SubmissionHeldError
from pika_async._runtime.scheduler import Scheduler
from pika_async.emulator import Emulator
from pika_async.engines import shared_statements, statements
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.database import Database
from pika_async.engines.leases import Lease
from pika_async.jobs import Job
from tests.engines.worker_process import account, opened, settled

pytestmark = pytest.mark.anyio

OPTIONS: dict[str, Any] = {"durations": "constant:0.3", "video_seconds": 1, "render": False}
INTENT = Intent(at=datetime(2026, 1, 1, tzinfo=UTC), body_sha256="", callback_sha256=None, repeatable=None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time that leases see, in a list of one."""
    at = [1000.0]
    monkeypatch.setattr("pika_async.engines.leases.time", SimpleNamespace(monotonic=lambda: at[0]))
    return at


def test_a_lease_holds_for_its_seconds_after_the_question_not_the_answer(clock: list[float]) -> None:
    lease = Lease("one", 6.0)
    seen = [lease.is_valid]
    clock[0] = 1003.0
    lease.on_extended(1000.0)
    for at in (1005.9, 1006.0):
        clock[0] = at
        seen.append(lease.is_valid)
    assert seen == [False, True, False]


def test_a_worker_ends_others_only_after_the_database_was_there_for_a_whole_lease(clock: list[float]) -> None:
    """After an outage all leases have expired; each worker first has the time to extend its own."""
    lease = Lease("one", 6.0)
    seen: list[bool] = []
    for at in (1000.0, 1002.0, 1004.0, 1006.0):
        clock[0] = at
        lease.on_extended(at)
        seen.append(lease.may_end_others)
    lease.on_missed()
    seen.append(lease.may_end_others)
    for at in (1008.0, 1013.0, 1014.0):
        clock[0] = at
        lease.on_extended(at)
        seen.append(lease.may_end_others)
    assert seen == [False, False, False, True, False, False, False, True]


def test_an_answer_that_took_long_counts_as_an_outage(clock: list[float]) -> None:
    lease = Lease("one", 6.0)
    lease.on_extended(1000.0)
    clock[0] = 1005.5
    lease.on_extended(1002.0)
    clock[0] = 1007.0
    assert lease.is_valid
    assert not lease.may_end_others


@contextlib.asynccontextmanager
async def one_job(tmp_path: Path) -> AsyncIterator[tuple[Database, Lease, ClusterJournal, Job]]:
    """Yield the journal of a worker that has one job."""
    database = Database(f"sqlite:///{tmp_path}/cluster.db")
    await database.open()
    try:
        lease = Lease("one", 6.0)
        row = {"id": "one", "host": "h", "pid": 1, "version": "1", "max_jobs": 1, "ttl": 6.0}
        await database.run(shared_statements.insert_worker, row)
        lease.on_extended(time.monotonic())
        request = GenerationRequest("a cat", key="cat")
        job = Job(key="cat", request=request, provider="native", base_url="http://127.0.0.1:9", account="native")
        await database.run(shared_statements.upsert_accounts, [{"name": "native"}, {"name": ""}])
        await database.run(statements.insert_jobs, [job])
        journal = ClusterJournal(database, lease)
        claimed = await journal.claim("cat")
        assert claimed is not None
        yield database, lease, journal, claimed
    finally:
        await database.close()


@pytest.mark.parametrize("is_known", [False, True])
async def test_an_id_after_the_end_of_the_lease_is_kept_once_and_nothing_else_is_written(
    tmp_path: Path, is_known: bool
) -> None:
    """Whether the worker has noticed the end of its lease or not."""
    async with one_job(tmp_path) as (database, lease, journal, job):
        sending = job.submitting(None)
        await journal.record_intent(sending, INTENT)
        await database.run(shared_statements.end_lease, "one", "expired")
        if is_known:
            lease.end("it was not extended in time")
        accepted = sending.accepted("task-1", 1_800_000_000.0)
        await journal.save(accepted)
        await journal.save(accepted)
        assert lease.over.is_set()
        rows = await database.run(shared_statements.select_orphans)
        assert [(row["key"], row["task_id"], row["worker"]) for row in rows] == [("cat", "task-1", "one")]
        saved = await database.run(statements.select_row, "cat")
        assert saved is not None
        assert (saved["status"], saved["task_id"], saved["owner"]) == ("submitting", None, "one")


async def test_an_id_that_the_job_has_already_is_not_an_orphan(tmp_path: Path) -> None:
    """After the end of the lease a snapshot of the task could not be saved, but its id had been."""
    async with one_job(tmp_path) as (database, lease, journal, job):
        sending = job.submitting(None)
        await journal.record_intent(sending, INTENT)
        accepted = sending.accepted("task-1", 1_800_000_000.0)
        await journal.save(accepted)
        await database.run(shared_statements.end_lease, "one", "expired")
        await journal.save(accepted)
        assert lease.over.is_set()
        assert await database.run(shared_statements.select_orphans) == []


async def test_nothing_is_sent_with_a_lease_that_was_not_extended_and_the_job_stays_planned(tmp_path: Path) -> None:
    async with one_job(tmp_path) as (database, lease, journal, job):
        lease.valid_until = time.monotonic()
        with pytest.raises(SubmissionHeldError, match="has not been extended in time"):
            await journal.record_intent(job.submitting(None), INTENT)
        saved = await database.run(statements.select_row, "cat")
        assert saved is not None
        assert saved["status"] == "planned"
        used = await database.run(shared_statements.select_accounts)
        assert (used["native"]["in_flight"], used["native"]["charges"]) == (0, 0)
        assert not lease.over.is_set()


async def test_a_worker_forgets_what_it_has_given_up(tmp_path: Path) -> None:
    async with one_job(tmp_path) as (_, _, journal, job):
        await journal.record_intent(job.submitting(None), INTENT)
        accepted = job.submitting(None).accepted("task-1", 1_800_000_000.0)
        await journal.save(accepted)
        await journal.release("cat")
        assert journal.get("cat") is None
        assert journal.count(JobStatus.QUEUED) == 0
        assert await journal.claim("cat") == accepted


async def fail(*_: Any) -> None:
    raise ValueError("a defect")


async def test_a_defect_of_the_scheduler_ends_the_worker_and_loses_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next worker goes on with the task."""
    url = f"sqlite:///{tmp_path}/cluster.db"
    async with Emulator(**OPTIONS) as emulator, opened(url, account(emulator)) as cluster:
        keys = await cluster.submit_many(["a cat"])
        with monkeypatch.context() as patched:
            patched.setattr(Scheduler, "on_poll_result", fail)
            patched.setattr("pika_async.engines.worker.SYNC_S", 0.1)
            with pytest.raises(BaseExceptionGroup) as caught:
                await asyncio.wait_for(cluster.run_worker(lease_ttl=3.0), 60)
        assert caught.group_contains(RuntimeError, match="the scheduler failed")
        await finished_by_another(cluster, keys)
        assert len(emulator.ledger) == 1


async def test_a_defect_in_a_run_ends_the_worker_and_loses_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that failed would never be run again: its job would be planned for ever."""
    url = f"sqlite:///{tmp_path}/cluster.db"
    async with Emulator(**OPTIONS) as emulator, opened(url, account(emulator)) as cluster:
        keys = await cluster.submit_many(["a cat"])
        with monkeypatch.context() as patched:
            patched.setattr(ClusterJournal, "claim", fail)
            with pytest.raises(BaseExceptionGroup) as caught:
                await asyncio.wait_for(cluster.run_worker(lease_ttl=3.0), 60)
        assert caught.group_contains(ValueError, match="a defect")
        with contextlib.closing(sqlite3.connect(tmp_path / "cluster.db")) as connection:
            assert connection.execute("SELECT status FROM workflow_status").fetchall() == [("PENDING",)]
        await finished_by_another(cluster, keys)


async def finished_by_another(cluster: Cluster, keys: list[str]) -> None:
    worker = asyncio.create_task(cluster.run_worker(lease_ttl=3.0))
    try:
        (job,) = await settled(cluster, keys)
        assert job.status is JobStatus.SUCCEEDED
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
