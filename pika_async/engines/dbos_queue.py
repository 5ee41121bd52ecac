"""Queue of jobs on DBOS Transact: who runs which job, and what is run again after a crash. All of DBOS stands here.

A workflow is one run of one job, with the job's key as its only argument. What a run has done is in the job's row, so
that a run which is started again, here or elsewhere, continues from there and never sends twice.

Decisions, each against a trap of the engine (dbos 3.4, read in its source):

- the id of an executor is that of a worker, never used again: by default, "local", machines take each other's jobs;
- the version of the application is pinned: the default, a hash of the code, strands every job at an upgrade;
- the serializer is JSON: the default, pickle, runs code that the database holds;
- the number of threads is bounded: without a bound 2,000 workflows had 700 of them.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, Serializer

from pika_async.engines import shared_statements, statements
from pika_async.engines.database import IDLE_TRANSACTION_S, Database

__all__ = ["JobQueue", "RunningQueue"]

#: The name of the application, of its queue and of its workflow. Changing one strands the jobs that are queued.
APPLICATION: Final = "pika_async"
QUEUE: Final = "pika_async_jobs"
WORKFLOW: Final = "pika_async_job"
#: The version of the workflow; another one only if this release could not continue a run of an earlier one.
WORKFLOW_VERSION: Final = "1"
#: The name of the logger of DBOS.
DBOS_LOGGER: Final = "dbos"
#: Threads in which DBOS talks to its database, and connections that they share: by default it opens 20, of the 100
#: that a server of PostgreSQL takes by default.
DBOS_THREADS: Final = 16
DBOS_CONNECTIONS: Final = 4
#: Seconds between two readings of the queue.
QUEUE_INTERVAL_S: Final = 0.5
#: Seconds for which a closing queue waits for calls of DBOS: what is launched after it was destroyed runs for ever.
CALLS_S: Final = 10.0
#: Seconds between two checks whether a call of DBOS is still worth waiting for.
GIVEN_UP_CHECK_S: Final = 0.5
#: Runs whose history is deleted at once; once a minute, so that a worker alone keeps up with seven million jobs a day.
PRUNED_AT_ONCE: Final = 5_000

#: It warns of every run that a closing worker leaves, which is what a hand-over is.
_dbos_log = logging.getLogger(DBOS_LOGGER)

Run = Callable[[str], Awaitable[None]]
R = TypeVar("R")


class JsonSerializer(Serializer):
    """Arguments and results as JSON."""

    def serialize(self, data: Any) -> str:
        """Return `data` as text; of an error, its type and message."""
        return json.dumps(data, default=lambda value: {"error": type(value).__name__, "message": str(value)})

    def deserialize(self, serialized_data: str) -> Any:
        """Return what `serialize` was given."""
        return json.loads(serialized_data)

    def name(self) -> str:
        """Return the name under which the engine keeps the format."""
        return "pika_async_json"


class JobQueue:
    """The queue as any process sees it that enqueues jobs.

    :param database: an open database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._client: DBOSClient | None = None

    async def open(self) -> None:
        """Make the tables of DBOS, or bring them to this version."""
        _dbos_log.setLevel(logging.ERROR)
        url = self._database.url.render_as_string(hide_password=False)
        await asyncio.to_thread(DBOS.migrate, url)
        self._client = DBOSClient(
            system_database_url=url,
            serializer=JsonSerializer(),
            application_name=APPLICATION,
            lazy=True,
            system_database_pool_size=1,
        )

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await asyncio.to_thread(self._client.destroy)

    def enqueue(self, connection: sa.Connection, keys: Sequence[str]) -> None:
        """Enqueue a run of each job, in the transaction of `connection`: with what else it writes, or not at all."""
        assert self._client is not None, "the queue is not open"  # noqa: S101
        for key, run in statements.take_run(connection, keys):
            self._client.enqueue_in_transaction(
                connection,
                {"workflow_name": WORKFLOW, "queue_name": QUEUE, "workflow_id": run, "app_version": WORKFLOW_VERSION},
                key,
            )


class RunningQueue:
    """The queue as a worker sees it, which runs jobs. There is one in a process at most, as DBOS has it.

    :param database: the database of the queue.
    :param worker: the id of the worker.
    :param max_jobs: maximum number of jobs that a worker runs at once. The engine keeps it in the database: the latest
        worker to start sets it for all.
    """

    def __init__(self, database: Database, worker: str, *, max_jobs: int) -> None:
        self._database = database
        self._worker = worker
        self._max_jobs = max_jobs
        #: The tasks of the runs under way.
        self._tasks: set[asyncio.Task[Any]] = set()
        #: Calls of DBOS under way, which go on when their caller is cancelled.
        self._calls: set[asyncio.Future[Any]] = set()

    async def start(self, run: Run) -> None:
        """Run jobs from now on.

        :param run: drives the job of a key until nothing is left to be done for it; called in this event loop.
        """
        loop = asyncio.get_running_loop()
        _dbos_log.setLevel(logging.ERROR)
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._database.url.render_as_string(hide_password=False),
            "executor_id": self._worker,
            "application_version": WORKFLOW_VERSION,
            "serializer": JsonSerializer(),
            "max_executor_threads": DBOS_THREADS,
            "sys_db_pool_size": DBOS_CONNECTIONS,
            "sys_db_idle_transaction_timeout_sec": IDLE_TRANSACTION_S,
            "log_level": "ERROR",
        }
        DBOS(config=config)

        async def run_in_loop(key: str) -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._run(run, key), loop))

        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(run_in_loop)
        await self._in_thread(DBOS.launch)
        await self._in_thread(
            functools.partial(
                DBOS.register_queue,
                QUEUE,
                worker_concurrency=self._max_jobs,
                # With it, workers that read the queue at the same time would fail on each other's rows, and each time
                # wait twice as long, up to two minutes. What runs at once is bounded where it is sent.
                global_concurrency=None,
                polling_interval_sec=QUEUE_INTERVAL_S,
            )
        )

    async def _run(self, run: Run, key: str) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await run(key)

    async def _in_thread(self, function: Callable[[], R]) -> R:
        """Call DBOS in a thread: in an event loop it would replace the executor of the loop by its own.

        :raises JournalFailed: if the database did not answer.
        """
        call = asyncio.ensure_future(asyncio.to_thread(function))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            return await asyncio.shield(call)
        except sa.exc.DBAPIError as error:
            raise self._database.failure(error) from None

    async def take_over(self) -> list[str]:
        """Queue the jobs again that are run by workers whose leases have ended; return these workers.

        What a worker took on before it noticed its end is found as well, however late that was.

        :raises JournalFailed: if the database did not answer.
        """
        running = await self._database.run(_running_workers)
        # Read second: a worker has its lease before it runs anything.
        dead = sorted(running - await self._database.run(shared_statements.live_workers))
        if dead:
            # There is no other call.
            await self._in_thread(functools.partial(DBOS._recover_pending_workflows, dead))  # noqa: SLF001
        return dead

    async def prune(self, age_s: float) -> int:
        """Delete the history of runs that ended longer than `age_s` seconds ago; return their number. Jobs stay."""
        before = datetime.fromtimestamp(time.time() - age_s, UTC).isoformat()
        ended = await self._in_thread(
            functools.partial(
                DBOS.list_workflows,
                status=["SUCCESS", "ERROR", "CANCELLED"],
                end_time=before,
                limit=PRUNED_AT_ONCE,
                load_input=False,
                load_output=False,
            )
        )
        ids = [each.workflow_id for each in ended]
        if ids:
            await self._in_thread(functools.partial(DBOS.delete_workflows, ids))
        return len(ids)

    async def stop(self) -> None:
        """Run nothing more. Jobs that are being run stay with this worker until its lease ends.

        The threads of the engine are left behind if the database is given up: they would wait for it for a minute.
        """
        await self._wait(self._calls, CALLS_S)
        destroyed: Future[None] = Future()
        threading.Thread(target=_destroy, args=(destroyed,), name="pika_async queue ends", daemon=True).start()
        ending = asyncio.wrap_future(destroyed)
        await self._wait({ending}, math.inf)
        if ending.done():
            ending.result()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _wait(self, calls: Collection[asyncio.Future[Any]], seconds: float) -> None:
        """Wait for calls of DBOS, at most for `seconds`, and not once the database is given up."""
        until = time.monotonic() + seconds
        while (waiting := {call for call in calls if not call.done()}) and time.monotonic() < until:
            if self._database.is_given_up:
                return
            await asyncio.wait(waiting, timeout=GIVEN_UP_CHECK_S)


def _destroy(destroyed: Future[None]) -> None:
    try:
        DBOS.destroy(destroy_registry=True)
    except Exception as error:
        destroyed.set_exception(error)
    else:
        destroyed.set_result(None)


def _running_workers(connection: sa.Connection) -> set[str]:
    """Return the workers that run jobs, as the engine has it."""
    table = sa.table(
        "workflow_status",
        *(sa.column(name) for name in ("queue_name", "status", "executor_id")),
        schema=None if connection.dialect.name == "sqlite" else "dbos",
    )
    is_running = (table.c.queue_name == QUEUE) & (table.c.status == "PENDING")
    return set(connection.execute(sa.select(table.c.executor_id).where(is_running).distinct()).scalars())
