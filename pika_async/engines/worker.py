"""Worker of a cluster: one scheduler, as in a single process, over the jobs that its queue gives it.

The database decides who has a job and what still fits into the bounds of the accounts; everything else - when to send,
when to poll, what an answer means - is the scheduler's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Final

import anyio

from pika_async import __version__
from pika_async._runtime.session import Session
from pika_async.config.client import ClientConfig
from pika_async.engines import shared_statements
from pika_async.engines.account_sharing import AccountSharing
from pika_async.engines.callback_relay import CallbackRelay
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.database import Database
from pika_async.engines.dbos_queue import JobQueue, RunningQueue
from pika_async.engines.job_driver import JobDriver
from pika_async.engines.lease_keeper import LeaseKeeper
from pika_async.engines.leases import Lease
from pika_async.engines.worker_bounds import account_rows, max_claimed
from pika_async.errors import JournalFailed, LeaseEnded, PikaError

__all__ = ["Worker"]

#: Seconds between two readings of what the other workers use.
SYNC_S: Final = 1.0
#: Age in seconds at which the history of a run is deleted, and the time between two deletions.
HISTORY_S: Final = 86_400.0
PRUNE_S: Final = 60.0
#: Seconds for which a worker that closes tries to reach a database that does not answer.
CLOSING_S: Final = 5.0

_log = logging.getLogger("pika_async.worker")


class Worker:
    """One worker: opens and closes what drives its jobs, keeps its lease, and keeps it in step with the others.

    :param config: the arguments of a client, whose journal is `journal`, without what the database keeps.
    :param given: the same, with the bounds that the database keeps for all workers.
    :param database: an open database.
    :param journal: the journal of the worker.
    :param lease: its lease.
    :param max_jobs: maximum number of jobs that it has at once.
    :param jobs: enqueues the jobs for which another worker receives a callback.
    :param download_to: the folder or `s3://BUCKET/PREFIX` for KEY.mp4; None: nothing is downloaded.
    """

    def __init__(
        self,
        config: ClientConfig,
        given: ClientConfig,
        database: Database,
        journal: ClusterJournal,
        lease: Lease,
        *,
        max_jobs: int,
        download_to: str | os.PathLike[str] | None,
        jobs: JobQueue,
    ) -> None:
        self._config = config
        self._given = given
        self._database = database
        self._journal = journal
        self._lease = lease
        self._leases = LeaseKeeper(database, lease)
        self._max_jobs = max_jobs
        self._download_to = download_to
        self._jobs = jobs
        self._driver: JobDriver | None = None
        self._pruned_at = time.monotonic()
        self._is_closing = False

    @property
    def id(self) -> str:
        """The id of the worker, which no other has, had or will have."""
        return self._lease.worker

    @property
    def running(self) -> int:
        """Number of runs that are being driven."""
        return 0 if self._driver is None else self._driver.running

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take a lease and drive jobs until the block is left."""
        max_jobs = max_claimed(self._config, self._max_jobs)
        queue = RunningQueue(self._database, self._lease.worker, max_jobs=max_jobs)
        await self._register()
        await self._journal.load()
        async with anyio.create_task_group() as tasks:
            session = await Session.open(self._config, hooks=(), load_history=True)
            relay = None
            try:
                downloads = await session.downloads_to(self._download_to)
                sharing = AccountSharing(self._database, session.table.planner, self._journal)
                self._driver = driver = JobDriver(
                    session.admission, session.table.intake, self._journal, self._lease,
                    downloads=downloads, downloading=self._config.limits.downloading,
                )  # fmt: skip
                await sharing.sync()
                await queue.start(driver.drive)
                tasks.start_soon(self._require_sound, driver)
                tasks.start_soon(self._leases.keep)
                tasks.start_soon(self._keep_in_step, session, sharing, driver, queue)
                tasks.start_soon(sharing.keep_reporting)
                relay = await self._attached_relay(session)
                if relay is not None:
                    driver.confirm = relay.confirmed
                    tasks.start_soon(relay.keep_receiving)
                yield
            finally:
                self._is_closing = True
                with anyio.CancelScope(shield=True):
                    await self._close(session, queue, relay)
                tasks.cancel_scope.cancel()

    async def _register(self) -> None:
        await self._database.run(shared_statements.upsert_accounts, account_rows(self._given))
        row = {"host": socket.gethostname(), "pid": os.getpid(), "version": __version__, "max_jobs": self._max_jobs}
        await self._leases.begin(row)

    async def _attached_relay(self, session: Session) -> CallbackRelay | None:
        """Receive callbacks for the jobs of every worker, if there is a receiver."""
        receiver = self._config.callbacks
        if receiver is None:
            return None
        relay = CallbackRelay(
            self._database, self._jobs, table=session.table, accounts=session.accounts,
            handler=session.callback_handler, spawn=session.scheduler.spawn, worker=self._lease.worker,
        )  # fmt: skip
        await receiver.attach(relay)
        return relay

    async def _close(self, session: Session, queue: RunningQueue, relay: CallbackRelay | None) -> None:
        """Await the answers that are outstanding, save what is known, and hand the jobs over.

        A database that does not answer is given up after `CLOSING_S`. Others then take the jobs over once the lease has
        expired: what was sent without a saved answer is in doubt, and its task id is in the log.
        """
        with self._database.patience(CLOSING_S):
            # Notices an outage also where nothing is left to be saved.
            asked = asyncio.ensure_future(self._database.run(shared_statements.count_live))
            if self._driver is not None:
                self._driver.close()
            if relay is not None and self._config.callbacks is not None:
                await self._config.callbacks.detach(relay)
            await session.close()
            with contextlib.suppress(PikaError):
                await self._journal.flush()
            await queue.stop()
            await self._leases.end()
            await asyncio.wait({asked})
            asked.exception()

    async def _require_sound(self, driver: JobDriver) -> None:
        """Wait until the worker must end, and raise why; one that closes ends anyway."""
        await self._lease.over.wait()
        if not self._is_closing:
            raise driver.defect or LeaseEnded(provider="", reason=self._lease.ended or "")

    async def _keep_in_step(
        self, session: Session, sharing: AccountSharing, driver: JobDriver, queue: RunningQueue
    ) -> None:
        while True:
            await asyncio.sleep(SYNC_S)
            session.table.intake.require_sound()
            try:
                await self._journal.flush()
                await sharing.sync()
                driver.try_stopped()
                session.table.wake()
                await self._leases.end_expired()
                await queue.take_over()
                await self._prune(queue)
            except (JournalFailed, LeaseEnded) as error:
                _log.warning("%s", error)

    async def _prune(self, queue: RunningQueue) -> None:
        if time.monotonic() - self._pruned_at >= PRUNE_S:
            self._pruned_at = time.monotonic()
            await queue.prune(HISTORY_S)
            await self._database.run(shared_statements.delete_ended, HISTORY_S)
            await self._database.run(shared_statements.delete_samples)
