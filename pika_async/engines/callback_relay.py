"""Relay of callbacks between workers: any worker may receive one, and the worker that has the job polls at once.

The database has the hash of each token alone. A callback is a hint, as in a single process: its body settles nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

import anyio
import psycopg
import sqlalchemy as sa

from pika_async._runtime.callback_handler import JobCallbackHandler
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.open_accounts import OpenAccounts
from pika_async._runtime.tasks import Spawn
from pika_async.engines import job_reads, statements
from pika_async.engines.database import Database
from pika_async.engines.dbos_queue import JobQueue
from pika_async.engines.shared_statements import insert
from pika_async.engines.tables import callbacks, jobs, workers
from pika_async.errors import ClientClosed, JournalFailed
from pika_async.jobs import Job, JobStatus

__all__ = ["CallbackRelay"]

#: The channel on which PostgreSQL wakes the workers.
CHANNEL: Final = "pika_callbacks"
#: Seconds between two readings of the callbacks where nothing wakes the worker, as with SQLite.
RELAY_S: Final = 1.0
#: Seconds after which a lost connection for notifications is made again, on average.
RECONNECT_S: Final = 5.0
#: Callbacks whose token is looked up at the same time: a flood of made-up tokens leaves the database to the jobs.
MAX_LOOKUPS: Final = 2

_log = logging.getLogger("pika_async.callback_relay")


class CallbackRelay:
    """The `CallbackHandler` of one worker for the jobs that it does not have, and its receiver of those that it has.

    :param database: an open database.
    :param queue: enqueues jobs that no worker has: those in doubt, which a callback may confirm, and timed out ones.
    :param table: the jobs of the worker.
    :param accounts: check signatures.
    :param handler: handles the callbacks for the jobs of the worker.
    :param spawn: starts a task beside the scheduler.
    :param worker: the id of the worker.
    """

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        *,
        table: JobTable,
        accounts: OpenAccounts,
        handler: JobCallbackHandler,
        spawn: Spawn,
        worker: str,
    ) -> None:
        self._database = database
        self._queue = queue
        self._table = table
        self._accounts = accounts
        self._handler = handler
        self._spawn = spawn
        self._worker = worker
        self._lookups = anyio.CapacityLimiter(MAX_LOOKUPS)
        self._notified = asyncio.Event()

    # --- what this worker receives ----------------------------------------------------------------------------------

    async def accepts(self, token_sha256: str) -> bool:
        """See `CallbackHandler`. The jobs of this worker have a handler of their own, which is asked first."""
        return await self._job_of(token_sha256) is not None

    async def is_authentic(self, token_sha256: str, headers: Mapping[str, str], body: bytes) -> bool:
        """See `CallbackHandler`."""
        job = await self._job_of(token_sha256)
        account = None if job is None else self._accounts.find(job)
        if account is None:
            return False
        signatures = account.gateway.signatures
        return signatures is None or await signatures.is_authentic(headers, body)

    async def _job_of(self, token_sha256: str) -> Job | None:
        try:
            async with self._lookups:
                found = await self._database.run(job_reads.key_for_token, token_sha256)
                return None if found is None else await self._database.run(statements.select_job, found[0])
        except JournalFailed as error:
            _log.warning("a callback could not be looked up: %s", error)
            return None

    def handle(self, token_sha256: str, body: bytes) -> None:
        """See `CallbackHandler`."""
        with contextlib.suppress(ClientClosed):
            self._spawn(self._relay, token_sha256, body, name="pika_async callback of another worker")

    async def _relay(self, token_sha256: str, body: bytes) -> None:
        try:
            await self._database.run(_save_callback, self._queue, token_sha256, body, time.time())
        except JournalFailed as error:  # the job is polled all the same
            _log.warning("a callback could not be passed on: %s", error)

    # --- what others have received ----------------------------------------------------------------------------------

    async def keep_receiving(self) -> None:
        """Handle what other workers have received for the jobs of this one, until cancelled."""
        async with anyio.create_task_group() as tasks:
            if not self._database.is_sqlite:
                tasks.start_soon(self._keep_listening)
            while True:
                with anyio.move_on_after(RELAY_S):
                    await self._notified.wait()
                self._notified.clear()
                try:
                    for token_sha256, body in await self._database.run(_take_callbacks, self._worker):
                        self._handler.handle(token_sha256, body)
                except JournalFailed as error:
                    _log.warning("callbacks could not be read: %s", error)

    async def _keep_listening(self) -> None:
        url = self._database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        while True:
            with contextlib.suppress(psycopg.Error):
                async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}".encode())
                    async for _ in connection.notifies():
                        self._notified.set()
            await asyncio.sleep(RECONNECT_S * (0.5 + random.random()))  # not all workers at once

    async def confirmed(self, job: Job) -> Job:
        """Return a job in doubt as it is after the callback that has come for it, if any, has been followed up."""
        for token_sha256, body in await self._database.run(_take_callbacks, self._worker, job.key):
            self._handler.handle(token_sha256, body)
            await self._table.wait_for(partial(self._has_ended, token_sha256))
        return self._table.journal.get(job.key) or job

    def _has_ended(self, token_sha256: str) -> bool:
        return not self._table.intake.is_open or not self._handler.is_handling(token_sha256)


def _save_callback(
    connection: sa.Connection, queue: JobQueue, token_sha256: str, body: bytes, received_at: float
) -> None:
    """Save a callback for the worker that has its job, and wake it; enqueue a job that no worker has."""
    found = job_reads.key_for_token(connection, token_sha256)
    if found is None:
        return
    key, owner = found
    row = {"key": key, "token_sha256": token_sha256, "body": body, "received_at": received_at}
    connection.execute(
        insert(connection, callbacks).values(**row).on_conflict_do_update(index_elements=["key"], set_=row)
    )
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))
    if owner is None:
        queue.enqueue(connection, job_reads.idle_keys(connection, _WAITING, key))


#: Statuses of jobs that no worker has and for which a callback may bring something new.
_WAITING: Final = (JobStatus.UNKNOWN, JobStatus.TIMED_OUT)


def _take_callbacks(connection: sa.Connection, worker: str, key: str | None = None) -> list[tuple[str, bytes]]:
    """Remove and return the callbacks for the jobs that `worker` has, or for one of them: token hash and body."""
    owned = sa.select(jobs.c.key).where(jobs.c.owner == worker)
    owned = owned if key is None else owned.where(jobs.c.key == key)
    holds = sa.exists().where(workers.c.id == worker, workers.c.ended_at.is_(None))
    taken = sa.delete(callbacks).where(callbacks.c.key.in_(owned), holds)
    rows = connection.execute(taken.returning(callbacks.c.token_sha256, callbacks.c.body)).mappings()
    return [(row["token_sha256"], bytes(row["body"])) for row in rows]
