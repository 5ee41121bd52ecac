"""Journals of each kind, for the laws that hold for all: in memory, in a file, and of a worker in either database."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import attrs
import pytest

from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Intent, Journal
from pika_async._journal.sqlite import SqliteJournal
from pika_async.engines import job_reads, job_writes, shared_statements, statements
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.database import Database
from pika_async.engines.leases import Lease, new_worker_id
from pika_async.jobs import Job
from tests.engines.postgres import new_database

KINDS: Final = ("memory", "sqlite", "cluster-sqlite", "cluster-postgresql")


class WorkerJournal(ClusterJournal):
    """The journal of a worker, which also inserts each new job first, as `Cluster.submit_many` does, and claims it."""

    def __init__(self, database: Database, lease: Lease) -> None:
        super().__init__(database, lease)
        self.database = database
        self.lease = lease

    async def record_intent(self, job: Job, intent: Intent) -> None:
        await self._insert(job)
        await super().record_intent(job, intent)

    async def save(self, *jobs: Job, linger: bool = False) -> None:
        await self._insert(*jobs)
        await super().save(*jobs, linger=linger)

    async def _insert(self, *jobs: Job) -> None:
        new = [planned(job) for job in jobs if job.key not in self]
        if new:
            inserted = await self.database.run(statements.insert_jobs, new)
            claimed = await self.database.run(job_writes.claim_all, inserted, self.lease.worker)
            assert claimed.keys() == set(inserted)


def planned(job: Job) -> Job:
    """Return a job as it was before it was sent."""
    return Job(key=job.key, index=job.index, request=job.request, provider=job.provider, base_url=job.base_url)


async def new_lease(database: Database, worker: str | None = None, ttl: float = 1_000.0) -> Lease:
    """Insert a worker, and return its lease."""
    lease = Lease(worker or new_worker_id(), ttl)
    row = {"id": lease.worker, "host": "h", "pid": 1, "version": "1", "max_jobs": 9, "ttl": lease.ttl}
    asked_at = time.monotonic()
    await database.run(shared_statements.insert_worker, row)
    lease.on_extended(asked_at)
    return lease


async def open_worker(database: Database) -> WorkerJournal:
    """Return the journal of a new worker, which has claimed every job that it can."""
    journal = WorkerJournal(database, await new_lease(database))
    await journal.load()
    for _, job in await database.run(job_reads.select_page, 0, 10_000):
        await journal.claim(job.key)
    await journal.open()
    return journal


@attrs.define
class Journals:
    """Opens journals of one kind, one after the other; all but those in memory have the same jobs."""

    kind: str
    request: pytest.FixtureRequest
    folder: Path
    _databases: list[Database] = attrs.field(factory=list)

    async def open(self) -> Journal:
        """Open the first journal."""
        if self.kind.startswith("cluster"):
            self._databases.append(Database(self._url()))
            await self._databases[0].open()
            return await open_worker(self._databases[0])
        journal = MemoryJournal() if self.kind == "memory" else SqliteJournal(self.folder / "j.sqlite")
        await journal.open()
        return journal

    async def reopen(self, journal: Journal) -> Journal:
        """Close a journal, and return it as the next process has it: a worker whose predecessor's lease has ended."""
        await journal.close()
        if isinstance(journal, WorkerJournal):
            await journal.database.run(shared_statements.end_lease, journal.lease.worker, "closed")
            return await open_worker(journal.database)
        again = journal if self.kind == "memory" else SqliteJournal(self.folder / "j.sqlite")
        await again.open()
        return again

    async def close(self) -> None:
        for database in self._databases:
            await database.close()

    def _url(self) -> str:
        if self.kind == "cluster-sqlite":
            return f"sqlite:///{self.folder}/cluster.db"
        return new_database(self.request.getfixturevalue("postgres"))
