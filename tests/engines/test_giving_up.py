"""A database that does not answer while a worker closes: it is given up within a bound, and nothing is claimed to be saved."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from pika_async.emulator import Emulator
from pika_async.engines import database as database_module
from pika_async.engines import shared_statements, statements, worker
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.database import Database
from pika_async.errors import JournalFailed
from pika_async.jobs import JobStatus
from tests.engines.postgres import PostgresServer, new_database
from tests.engines.rows import accepted, sent
from tests.engines.worker_process import account, opened, recorded
from tests.journal.builders import INTENT, a_job
from tests.journal.kinds import new_lease

pytestmark = pytest.mark.anyio


class Unanswered:
    """Statements that the database does not answer until they are released; the number of tries."""

    def __init__(self, *, fails: bool = False) -> None:
        self.tries = 0
        self.began = asyncio.Event()
        self.released = threading.Event()
        self._fails = fails
        self._loop = asyncio.get_running_loop()

    def __call__(self, _: sa.Connection) -> None:
        self.tries += 1
        self._loop.call_soon_threadsafe(self.began.set)
        if self._fails:
            busy = sqlite3.OperationalError("busy")
            busy.sqlite_errorname = "SQLITE_BUSY"
            raise sa.exc.OperationalError("", {}, busy)
        self.released.wait(10)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/c.db")
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_ends_when_the_database_is_given_up_and_later_ones_are_not_tried(
    database: Database, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Whether it waits for an answer or for the time to try again."""
    monkeypatch.setattr(database_module, "RETRY_WAITS_S", (10_000.0,))
    unanswered = Unanswered(fails=fails)
    calls = [asyncio.create_task(database.run(unanswered)), asyncio.create_task(database.run_once(unanswered))]
    await unanswered.began.wait()
    database.give_up()
    for call in calls:
        with pytest.raises(JournalFailed):
            await asyncio.wait_for(call, 20)
    tries = unanswered.tries
    unanswered.released.set()
    with pytest.raises(JournalFailed, match="is given up: it did not answer"):
        await database.run(unanswered)
    assert unanswered.tries == tries


async def test_patience_ends_with_the_seconds_of_the_call_that_waits_longest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from its start, but not from before the patience began."""
    clock, unanswered = [100.0], Unanswered()
    monkeypatch.setattr(database_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    call = asyncio.create_task(database.run(unanswered))
    await unanswered.began.wait()
    clock[0] = 500.0
    for seconds, at in ((0.0, 500.0), (0.001, 500.0005)):
        assert not database.is_given_up
        with database.patience(seconds + 0.001):
            clock[0] = at
            await asyncio.sleep(0.01)
    assert not database.is_given_up, "the clock stood still"
    with database.patience(0.001):
        clock[0] = 501.0
        with pytest.raises(JournalFailed):
            await call
    unanswered.released.set()


async def test_a_database_that_is_asked_nothing_is_not_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(database_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with database.patience(0.001):
        clock[0] = 500.0
        await asyncio.sleep(0.05)
        assert await database.run(shared_statements.count_live) == 0
    assert not database.is_given_up


async def test_a_cancelled_call_stays_one(database: Database) -> None:
    unanswered = Unanswered()
    call = asyncio.create_task(database.run(unanswered))
    await unanswered.began.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    unanswered.released.set()


async def test_a_server_that_is_given_up_keeps_no_thread(postgres: PostgresServer) -> None:
    """Its answer is not waited for: the connection is closed here."""
    database = Database(new_database(postgres))
    await database.open()
    began, loop, finished = asyncio.Event(), asyncio.get_running_loop(), list[bool]()

    def sleep(connection: sa.Connection) -> None:
        loop.call_soon_threadsafe(began.set)
        connection.exec_driver_sql("SELECT pg_sleep(10)")
        finished.append(True)

    call = asyncio.create_task(database.run(sleep))
    await began.wait()
    database.give_up()
    with pytest.raises(JournalFailed):
        await call
    await asyncio.to_thread(database._threads.shutdown)
    assert finished == []
    await database.close()


async def test_a_journal_whose_database_is_given_up_ends_its_lease_and_logs_the_task_ids(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be saved is neither waited for nor taken for saved."""
    journal = ClusterJournal(database, await new_lease(database, "w"))
    await database.run(shared_statements.upsert_accounts, [{"name": "main"}, {"name": ""}])
    await database.run(statements.insert_jobs, [a_job("a")])
    assert await journal.claim("a") is not None
    await journal.record_intent(sent("a"), INTENT)
    database.give_up()
    await asyncio.wait_for(journal.save(accepted("a")), 10)
    assert journal._lease.ended == "the database did not answer"
    assert "its task id task-a could not be saved" in caplog.text


async def test_a_worker_that_is_stopped_during_an_outage_ends_without_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its jobs stay its own until its lease expires, and the next worker goes on with the task that was paid for."""
    monkeypatch.setattr(worker, "CLOSING_S", 0.2)
    url, path = f"sqlite:///{tmp_path}/cluster.db", tmp_path / "cluster.db"
    options: dict[str, Any] = {"durations": "constant:3600", "video_seconds": 1, "render": False}
    async with Emulator(**options) as emulator:
        async with opened(url, account(emulator)) as cluster:
            await cluster.submit_many(["a cat"])
            task = asyncio.create_task(cluster.run_worker(lease_ttl=30.0))
            await recorded(cluster, 1)
            with closing(sqlite3.connect(path, isolation_level=None)) as other, caplog.at_level(logging.ERROR):
                other.execute("BEGIN IMMEDIATE")
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(task, 120)
            for thread in threading.enumerate():
                if thread.name == "pika_async queue ends":  # the engine of the next test would be ended by it
                    await asyncio.to_thread(thread.join)
        assert "is given up: it does not answer" in caplog.text
        async with opened(url, account(emulator)) as cluster:
            assert [(each.jobs, each.ended) for each in await cluster.workers()] == [(1, None)]
            assert [job.status async for job in cluster.jobs()] == [JobStatus.QUEUED]
