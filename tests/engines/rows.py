"""Rows of a cluster's database, written and read by its statements, one transaction each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import attrs
import sqlalchemy as sa

from pika_async._journal.protocol import Intent
from pika_async.engines import job_reads, job_writes, shared_statements, statements, tables
from pika_async.engines.bounds import Held, to_money
from pika_async.engines.database import Database
from pika_async.engines.job_writes import Write
from pika_async.jobs import Job
from tests.journal.builders import INTENT, a_job

P = ParamSpec("P")
R = TypeVar("R")


@attrs.define
class Rows:
    """A database whose statements are run one after the other, or by threads."""

    engine: sa.Engine

    @classmethod
    def create(cls, url: str) -> Self:
        """Make the tables in an empty database."""
        rows = cls(Database(url).engine)
        if rows.is_sqlite:
            sa.event.listen(rows.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous=OFF"))
        else:  # a test may hold a transaction open for as long as it takes
            sa.event.listen(rows.engine, "connect", _wait_for_tests)
        rows.run(tables.migrate)
        return rows

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def run(self, function: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run statements in one transaction."""
        with self.engine.begin() as connection:
            return function(connection, *args, **kwargs)

    def execute(self, statement: sa.Update) -> None:
        self.run(lambda connection: connection.execute(statement))

    def add_worker(self, name: str, ttl: float = 1_000.0) -> None:
        row = {"id": name, "host": "h", "pid": 1, "version": "1", "max_jobs": 9, "ttl": ttl}
        self.run(shared_statements.insert_worker, row)

    def add_account(self, name: str, **bounds: Any) -> None:
        """Insert an account, or all together by the name ""; a budget is in dollars."""
        given = {"max_in_flight": None, "submits_per_second": None, "max_charges": None, "budget": None} | bounds
        given["budget"] = to_money(given["budget"])
        self.run(shared_statements.upsert_accounts, [{"name": name, **given}])

    def add_jobs(self, *keys: str, owner: str | None = None) -> None:
        """Insert planned jobs; `owner` claims them."""
        self.run(statements.insert_jobs, [a_job(key) for key in keys])
        if owner:
            assert self.run(job_writes.claim_all, keys, owner).keys() == set(keys)

    def claim(self, worker: str, key: str) -> tuple[Job, Intent | None] | None:
        """Let a worker claim a job; return it with its intent, or None."""
        return self.run(job_writes.claim_all, [key], worker).get(key)

    def release(self, worker: str, key: str) -> None:
        self.run(job_writes.write_all, worker, [Write((), released=key)])

    def expire(self, worker: str) -> None:
        """Let the lease of a worker run out, without ending it."""
        late = sa.update(tables.workers).where(tables.workers.c.id == worker).values(expires_at=1.0)
        self.execute(late)

    def intend(self, worker: str, job: Job, intent: Intent = INTENT) -> Held | None:
        """Save that a job is being sent; return why it must not be."""
        (result,) = self.run(job_writes.write_all, worker, [Write([job], intent)])
        assert not isinstance(result, list)
        return result

    def save(self, worker: str, *jobs: Job) -> list[Job]:
        """Save jobs; return those that the worker does not own."""
        (result,) = self.run(job_writes.write_all, worker, [Write(jobs)])
        assert isinstance(result, list)
        return result

    def job(self, key: str) -> Job:
        found = self.run(statements.select_job, key)
        assert found is not None
        return found

    def jobs(self) -> dict[str, Job]:
        return {job.key: job for _, job in self.run(job_reads.select_page, 0, 10_000)}

    def owners(self) -> dict[str, str | None]:
        found = sa.select(tables.jobs.c.key, tables.jobs.c.owner)
        return dict(self.run(lambda connection: [(key, owner) for key, owner in connection.execute(found)]))

    def used(self, name: str = "") -> tuple[int, int, int]:
        """Return what is counted of an account: in flight, charges, billionths spent."""
        row = self.run(shared_statements.select_accounts)[name]
        return row["in_flight"], row["charges"], row["spent"]

    def waits_for_lock(self, call: Future[Any]) -> bool:
        """Return, once one of both holds, whether a transaction of this PostgreSQL database waits or `call` has ended."""
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        deadline = time.monotonic() + 60
        while not self.run(lambda connection: connection.exec_driver_sql(waiting).scalar_one()):
            assert time.monotonic() < deadline
            if call.done():
                return False
        return True


def _wait_for_tests(connection: Any, _: object) -> None:
    connection.execute("SET idle_in_transaction_session_timeout = 0")
    connection.commit()


def race(*calls: Callable[[], R]) -> list[R]:
    """Run calls at the same time, each in its thread; return their results."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], R]) -> R:
        barrier.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def sent(key: str, price: float | None = None, account: str = "main") -> Job:
    """Return a job that is being sent."""
    return attrs.evolve(a_job(key), account=account).submitting(price)


def accepted(key: str, price: float | None = None, account: str = "main") -> Job:
    return sent(key, price, account).accepted(f"task-{key}", 1_700_000_001.5)


def reasons(results: Sequence[Held | None]) -> list[bool]:
    """Return, sorted, for each submission whether it may be sent."""
    return sorted(result is None for result in results)
