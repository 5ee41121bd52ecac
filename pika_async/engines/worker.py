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
from typing import Any, Final

import anyio
import attrs
from anyio.abc import TaskGroup

from pika_async import __version__
from pika_async._planning.limits import MAX_IN_FLIGHT
from pika_async._planning.resolution import mark_interrupted
from pika_async._runtime.results import BatchDownload
from pika_async._runtime.session import Session
from pika_async.config.client import ClientConfig
from pika_async.engines import shared_statements
from pika_async.engines.bounds import ALL_ACCOUNTS, kind_of_stop, to_money
from pika_async.engines.callback_relay import CallbackRelay
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.database import Database
from pika_async.engines.dbos_queue import JobQueue, RunningQueue
from pika_async.engines.leases import Lease
from pika_async.errors import AccountStopped, JournalFailed, LeaseEnded, PikaError
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job
from pika_async.models import evolve_unchecked

__all__ = ["Worker", "without_bounds"]

#: Seconds between two readings of what the other workers use.
SYNC_S: Final = 1.0
#: Seconds after which a stopped account is tried again.
STOPPED_S: Final = 60.0
#: Jobs that are claimed beyond those that have room, so that a free place is taken at once.
SPARE_JOBS: Final = 32
#: Seconds after which what the database did not answer is asked again.
ASK_AGAIN_S: Final = 1.0
#: Age in seconds at which the history of a run is deleted, and the time between two deletions.
HISTORY_S: Final = 86_400.0
PRUNE_S: Final = 60.0

_log = logging.getLogger("pika_async.worker")


class Worker:
    """One worker.

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
        self._max_jobs = max_jobs
        self._download_to = download_to
        self._jobs = jobs
        self._relay: CallbackRelay | None = None
        self._downloads: BatchDownload | None = None
        self._session: Session | None = None
        self._downloading = anyio.CapacityLimiter(config.limits.downloading)
        #: Those of the downloads under way and waiting, which end when the worker closes.
        self._scopes: set[anyio.CancelScope] = set()
        #: Set when stopped accounts are tried again.
        self._allowed = asyncio.Event()
        self._stopped_at: float | None = None
        self._pruned_at = time.monotonic()
        self._closing = False
        #: The defect that ends the worker, if there was one.
        self._defect: Exception | None = None
        #: Number of runs that are being driven.
        self.running = 0

    @property
    def id(self) -> str:
        """The id of the worker, which no other has, had or will have."""
        return self._lease.worker

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take a lease and drive jobs until the block is left."""
        queue = RunningQueue(
            self._database, self._lease.worker, max_jobs=self._max_jobs, max_claimed=_max_claimed(self._config)
        )
        await self._register()
        await self._journal.load()
        async with anyio.create_task_group() as tasks:
            self._session = await Session.open(self._config, hooks=(), load_history=True)
            try:
                self._downloads = await self._session.downloads_to(self._download_to)
                await self._sync()
                await queue.start(self._drive)
                tasks.start_soon(self._require_sound)
                tasks.start_soon(self._keep_lease)
                tasks.start_soon(self._keep_in_step, queue)
                await self._start_relay(tasks)
                yield
            finally:
                self._closing = True
                with anyio.CancelScope(shield=True):
                    await self._close(queue)
                tasks.cancel_scope.cancel()

    async def _start_relay(self, tasks: TaskGroup) -> None:
        """Receive callbacks for the jobs of every worker, if there is a receiver."""
        receiver, session = self._config.callbacks, self._require_session()
        if receiver is not None:
            self._relay = CallbackRelay(
                self._database, self._jobs, table=session.table, accounts=session.accounts,
                handler=session.callback_handler, spawn=session.scheduler.spawn, worker=self._lease.worker,
            )  # fmt: skip
            await receiver.attach(self._relay)
            tasks.start_soon(self._relay.keep_receiving)

    async def _register(self) -> None:
        row = {
            "id": self._lease.worker,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "max_jobs": self._max_jobs,
            "ttl": self._lease.ttl,
        }
        asked_at = time.monotonic()
        await self._database.run(shared_statements.upsert_accounts, _account_rows(self._given))
        await self._database.run(shared_statements.insert_worker, row)
        self._lease.on_extended(asked_at)

    async def _close(self, queue: RunningQueue) -> None:
        """Await the answers that are outstanding, save what is known, and hand the jobs over."""
        for scope in list(self._scopes):
            scope.cancel()
        if self._relay is not None and self._config.callbacks is not None:
            await self._config.callbacks.detach(self._relay)
        if self._session is not None:
            await self._session.close()
        with contextlib.suppress(PikaError):
            await self._journal.flush()
        await queue.stop()
        with contextlib.suppress(PikaError):
            await self._database.run(shared_statements.end_lease, self._lease.worker, "closed")

    # --- jobs -------------------------------------------------------------------------------------------------------

    async def _drive(self, key: str) -> None:
        """Drive one job until it is finished, and downloaded if that is wanted; then give it up.

        Returns only then: a run that returns, or fails, is never run again. Once the worker is closing, its lease has
        ended or a defect ends it, the run is left as it is, for another worker.
        """
        self.running += 1
        try:
            while not self._is_over:
                try:
                    if await self._is_done(key):
                        return
                except JournalFailed as error:
                    _log.warning("job %s: %s; trying again", key, error)
                    await asyncio.sleep(ASK_AGAIN_S)
        except Exception as error:
            if not self._is_over:
                _log.exception("job %s cannot be driven: the worker ends", key)
                self._defect = error
                self._lease.over.set()
        finally:
            self.running -= 1
        await asyncio.Event().wait()

    @property
    def _is_over(self) -> bool:
        return self._closing or self._lease.over.is_set()

    async def _is_done(self, key: str) -> bool:
        """Drive one job; return whether that came to its end, so that the job could be given up."""
        job = await self._journal.claim(key)
        if job is not None:
            if not await self._finish(job):
                return False
            await self._journal.release(key)
        return True

    async def _finish(self, job: Job) -> bool:
        """Drive a job until it is finished and downloaded; return False if the worker is over before."""
        intent = self._journal.intent(job.key)
        if job.status is JobStatus.SUBMITTING and intent is not None:
            job = mark_interrupted(job, intent.at)
            await self._journal.save(job)
            log_job(_log, logging.WARNING, job, "in doubt: an earlier worker ended before it saved the response")
        if job.status is JobStatus.UNKNOWN and self._relay is not None:
            job = await self._relay.confirmed(job)
        while True:
            job = await self._run_once(job)
            if _is_at_rest(job):
                break
            if self._is_over:
                return False
            self._stopped_at = self._stopped_at or time.monotonic()
            await self._allowed.wait()
        if self._downloads is not None and job.status is JobStatus.SUCCEEDED and not job.is_downloaded:
            return await self._download(job, self._downloads)
        return True

    async def _run_once(self, job: Job) -> Job:
        """Drive a job until it is settled, parked, or put back because of a stop."""
        session = self._require_session()
        finished: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

        def on_change(changed: Job, is_finished: bool) -> None:
            if is_finished and not finished.done():
                finished.set_result(changed)

        request = evolve_unchecked(job.request, key=job.key)
        await session.admission.admit(request, job.key, job.index, on_change)
        return await finished

    async def _download(self, job: Job, downloads: BatchDownload) -> bool:
        """Download the result of a job; return False if the worker is over before."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with self._downloading:
                    await downloads.fetch(job)
            finally:
                self._scopes.discard(scope)
        return not scope.cancelled_caught

    def _require_session(self) -> Session:
        assert self._session is not None  # noqa: S101 - the queue is started after it
        return self._session

    # --- the other workers ------------------------------------------------------------------------------------------

    async def _require_sound(self) -> None:
        """Wait until the worker must end, and raise why."""
        await self._lease.over.wait()
        raise self._defect or LeaseEnded(provider="", reason=self._lease.ended or "")

    async def _keep_lease(self) -> None:
        """Extend the lease until it has ended."""
        wait = self._lease.interval
        while True:
            await asyncio.sleep(wait)
            asked_at, wait = time.monotonic(), self._lease.interval
            try:
                if await self._database.run_once(shared_statements.beat, self._lease.worker):
                    self._lease.on_extended(asked_at)
                else:
                    self._lease.end("it was not extended in time")
            except JournalFailed as error:
                _log.warning("the lease could not be extended: %s", error)
                self._lease.on_missed()
                wait = min(wait, ASK_AGAIN_S)

    async def _keep_in_step(self, queue: RunningQueue) -> None:
        while True:
            await asyncio.sleep(SYNC_S)
            self._require_session().table.intake.require_sound()
            try:
                await self._journal.flush()
                await self._sync()
                await self._rescue(queue)
                await self._prune(queue)
            except (JournalFailed, LeaseEnded) as error:
                _log.warning("%s", error)

    async def _sync(self) -> None:
        """Take over what the other workers use and have learned."""
        session = self._require_session()
        planner = session.table.planner
        rows = await self._database.run(shared_statements.select_accounts)
        live = max(1, await self._database.run(shared_statements.count_live))
        for name, account in planner.accounts.items():
            row = rows.get(name)
            if row is None:
                continue
            own = account.in_flight + account.submissions.submitting
            others = max(0, row["in_flight"] - own)
            ceiling = row["max_in_flight"] or MAX_IN_FLIGHT
            account.submissions.concurrency.ceiling = max(own, ceiling - others, 1)
            polls = account.limits.polls_per_second
            account.poll_rate.per_second = None if polls is None else polls / live
            stop = account.stop_reason
            reason, kind = (None, None) if stop is None else (stop.message, kind_of_stop(stop).value)
            if (reason, kind) != (row["stop_reason"], row["stop_kind"]):
                await self._database.run(shared_statements.set_stop, name, reason, kind)
        new = await self._journal.new_samples()
        planner.load_history(new)
        if self._stopped_at is not None and time.monotonic() - self._stopped_at >= STOPPED_S:
            self._stopped_at = None
            session.table.intake.allow_submitting()
            self._allowed.set()
            self._allowed = asyncio.Event()
        session.table.wake()

    async def _rescue(self, queue: RunningQueue) -> None:
        """End the leases that have expired, and queue the jobs of ended workers again."""
        if self._lease.may_end_others:
            for worker in await self._database.run(shared_statements.end_expired):
                _log.warning("the lease of %s has expired: its jobs are taken over", worker)
        await queue.take_over()

    async def _prune(self, queue: RunningQueue) -> None:
        if time.monotonic() - self._pruned_at >= PRUNE_S:
            self._pruned_at = time.monotonic()
            await queue.prune(HISTORY_S)
            await self._database.run(shared_statements.delete_ended, HISTORY_S)
            await self._database.run(shared_statements.delete_samples)


def _is_at_rest(job: Job) -> bool:
    """Return whether there is nothing to be done for a job but a download: it is settled or parked.

    What a stop of its account put back is tried again.
    """
    return job.status is not JobStatus.PLANNED and not (
        job.is_in_flight and (job.error is None or isinstance(job.error, AccountStopped))
    )


def _max_claimed(config: ClientConfig) -> int | None:
    """Return how many jobs all workers may have at once: those that have room, and some that wait for it."""
    rooms = [account.max_in_flight for account in config.accounts]
    if config.limits.max_in_flight is not None:
        rooms = [config.limits.max_in_flight]
    known = [room for room in rooms if room is not None]
    return None if len(known) < len(rooms) else 2 * sum(known) + SPARE_JOBS


def _account_rows(config: ClientConfig) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "name": account.name,
            "max_in_flight": account.max_in_flight,
            "submits_per_second": account.limits.submits_per_second,
            "max_charges": account.max_charges,
            "budget": to_money(account.budget),
        }
        for account in config.accounts
    ]
    limits = config.limits
    shared = {
        "name": ALL_ACCOUNTS,
        "max_in_flight": limits.max_in_flight,
        "submits_per_second": limits.submits_per_second,
        "max_charges": limits.max_charges,
        "budget": to_money(config.budget),
    }
    return [*rows, shared]


def without_bounds(config: ClientConfig) -> ClientConfig:
    """Return the configuration without what the database keeps for all workers: budgets and numbers of charges."""
    accounts = tuple(attrs.evolve(account, budget=None, max_charges=None) for account in config.accounts)
    return attrs.evolve(config, accounts=accounts, budget=None, limits=attrs.evolve(config.limits, max_charges=None))
