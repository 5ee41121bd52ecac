"""A cluster: many processes and machines that share accounts, jobs and budgets through one database."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final, Self

import attrs
import sqlalchemy as sa

from pika_async._http.callbacks import CallbackReceiver
from pika_async._planning.limits import Limits
from pika_async._planning.repetition import ADOPTED_REASON, repetition, with_new_seed
from pika_async._planning.resolution import apply_resolution, archive_keys, mark_superseded
from pika_async._runtime.request_checks import capable_accounts, request_of
from pika_async.config.accounts import Account, Routing, checked_accounts
from pika_async.config.client import ClientConfig
from pika_async.engines import job_reads, job_writes, shared_statements, statements
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.cluster_stats import ClusterOrphan, ClusterStats, ClusterWorker
from pika_async.engines.cluster_view import ClusterView, read_view
from pika_async.engines.database import Database
from pika_async.engines.dbos_queue import JobQueue
from pika_async.engines.keyless import keyless_config
from pika_async.engines.leases import DEFAULT_TTL_S, Lease, new_worker_id
from pika_async.engines.new_keys import with_keys
from pika_async.engines.pruning import delete_settled
from pika_async.engines.worker import Worker
from pika_async.engines.worker_bounds import without_bounds
from pika_async.engines.worker_errors import check_worker, plain_errors
from pika_async.errors import ConfigurationError, InvalidRequest, UnknownJob
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from pika_async.models.media import Uploader
from pika_async.polling import PollingPolicy

__all__ = ["Cluster"]

#: Requests that are saved and queued in one transaction.
ENQUEUED_AT_ONCE: Final = 500
#: Changes that are read at once.
CHANGES_AT_ONCE: Final = 1_000
#: Seconds between two readings of the changes while jobs are followed.
FOLLOW_S: Final = 0.5

_log = logging.getLogger("pika_async.cluster")


class Cluster:
    """Jobs in a database that any process may fill and follow, and workers on any number of machines that drive them.

    Inputs name the accounts; their keys are in the environment of the workers alone, never in the database.

    ::

        async with Cluster("postgresql://pika@db/pika", accounts=load_accounts("accounts.toml")) as cluster:
            keys = await cluster.submit_many(requests)
            async for job in cluster.as_settled(keys):
                print(job.key, job.status, job.file or job.error)

    and on each machine `pika-async worker --database postgresql://pika@db/pika --accounts accounts.toml`.

    :param database_url: `postgresql://USER@HOST/DATABASE`; for several processes of one machine also `sqlite:///` and
        an absolute path.
    :param accounts: the accounts, the same in every process (default: none, for one that neither submits requests nor
        drives jobs).
    :param limits: bounds over all accounts and all workers; default: `Limits()`.
    :param routing: how an account is chosen for a job; default: `Routing()`.
    :param polling: the polling policy of a worker; default: `AdaptivePolling()`.
    :param deadline: seconds from acceptance to settling, above 0; default: 1800.
    :param budget: money for all charges of all workers, above 0; default: no limit. Every account needs its price.
    :raises ClusterUnusable: if `database_url` is not the address of such a database.
    :raises ConfigurationError: names another argument that cannot work and the way out.
    """

    def __init__(
        self,
        database_url: str,
        accounts: Iterable[Account] = (),
        *,
        limits: Limits | None = None,
        routing: Routing | None = None,
        polling: PollingPolicy | None = None,
        deadline: float | None = None,
        budget: float | None = None,
    ) -> None:
        self._database_url = database_url
        self._accounts = checked_accounts(given) if (given := tuple(accounts)) else ()
        self._limits, self._routing, self._polling = limits, routing, polling
        self._deadline, self._budget = deadline, budget
        self._database = Database(database_url)
        self._queue = JobQueue(self._database)
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Cluster {self.database}>"

    @property
    def database(self) -> str:
        """The address of the database without its password."""
        return self._database.text

    async def open(self) -> Self:
        """Connect, as `async with` does, and make the tables where there are none.

        :raises ClusterUnusable: if the database cannot be reached, or has tables of a later version.
        """
        await self._database.open()
        self._stack.push_async_callback(self._database.close)
        await self._queue.open()
        self._stack.push_async_callback(self._queue.close)
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection. Jobs and workers go on."""
        await self._stack.aclose()

    # --- jobs -------------------------------------------------------------------------------------------------------

    async def submit_many(self, requests: Iterable[GenerationRequest | str]) -> list[str]:
        """Save each request as a planned job and queue it; return the keys in the order of the requests.

        A request whose key and content exist already is not paid again. What was saved stays saved if this fails in the
        middle: call it again with the same requests.

        :param requests: requests or prompts. One without a key gets one from its position and content.
        :raises InvalidRequest: if one is not a request, no account can fulfil it, or its key belongs to another
            content; nothing is saved.
        :raises JournalFailed: if the database cannot be reached.
        """
        given = [request_of(each, {}) for each in requests]
        config = keyless_config(self._required_accounts(), ClusterView(), limits=self._limits, budget=self._budget)
        for each in given:
            await capable_accounts(config, each)
        keyed = await with_keys(self._database, given)
        for start in range(0, len(keyed), ENQUEUED_AT_ONCE):
            await self._database.run(self._enqueue_new, keyed[start : start + ENQUEUED_AT_ONCE], start)
        return [request.key or "" for request in keyed]

    def _enqueue_new(self, connection: sa.Connection, requests: Sequence[GenerationRequest], start: int) -> None:
        first = self._accounts[0]
        account = first.name if len(self._accounts) == 1 else None
        planned = {
            request.key: Job(
                key=request.key or "", index=index, request=request, provider=first.provider.name,
                base_url=first.address, account=account,
            )
            for index, request in enumerate(requests, start)
        }  # fmt: skip
        self._queue.enqueue(connection, statements.insert_jobs(connection, list(planned.values())))

    async def as_settled(self, keys: Collection[str]) -> AsyncGenerator[Job, None]:
        """Yield each job once it is finished: settled, and downloaded if the workers do that, or parked.

        :param keys: the keys of jobs.
        :raises UnknownJob: if one has no job.
        """
        waiting = set(keys)
        async with aclosing(self.changes(keys)) as pages:
            async for page in pages:
                for job, is_finished in page:
                    if is_finished and job.key in waiting:
                        waiting.discard(job.key)
                        yield job
                if not waiting:
                    return

    async def changes(self, keys: Collection[str]) -> AsyncGenerator[list[tuple[Job, bool]], None]:
        """Yield the jobs as they are now, then those that change, each with whether it is finished.

        It does not end by itself. A list may be empty: there is one each half second at least.

        :param keys: the keys of jobs.
        :raises UnknownJob: if one has no job.
        """
        wanted = frozenset(keys)
        after = await self._database.run(statements.visible_revision) - 1
        found = await self._database.run(job_reads.select_jobs, wanted)
        if unknown := wanted - {job.key for job, _ in found}:
            raise UnknownJob(value=min(unknown))
        yield found
        while True:
            page = await self._database.run(job_reads.select_changed, after, CHANGES_AT_ONCE)
            after = page[-1][0] if page else after
            yield [(job, is_finished) for _, job, is_finished in page if job.key in wanted]
            if len(page) < CHANGES_AT_ONCE:
                await asyncio.sleep(FOLLOW_S)

    async def view(self, requests: Iterable[GenerationRequest] | None = None) -> ClusterView:
        """Return a copy in memory of the jobs of some requests, by their keys or contents; default: of all jobs.

        It has the charges of all jobs and the durations that were learned, as an estimate needs them.
        """
        return await read_view(self._database, None if requests is None else list(requests))

    async def job(self, key: str) -> Job:
        """Return the job of that key.

        :raises UnknownJob: if there is none.
        """
        job = await self._database.run(statements.select_job, key)
        if job is None:
            raise UnknownJob(value=key)
        return job

    async def jobs(self, status: JobStatus | None = None) -> AsyncGenerator[Job, None]:
        """Iterate over all jobs, or those with `status`, in the order in which they were first saved."""
        after, statuses = 0, () if status is None else (status,)
        while page := await self._database.run(job_reads.select_page, after, CHANGES_AT_ONCE, statuses):
            for after, job in page:  # noqa: B007 - the position of the last one
                yield job

    async def resume(self, keys: Collection[str] | None = None) -> list[str]:
        """Queue every job again that is not final or in doubt and that no worker has; return their keys.

        So are those whose result could not be downloaded, which costs nothing.

        :param keys: the keys of the jobs that are meant; default: all.
        """

        def resume(connection: sa.Connection) -> list[str]:
            idle = job_reads.resumable_keys(connection)
            wanted = None if keys is None else frozenset(keys)
            queued = [key for key in idle if wanted is None or key in wanted]
            self._queue.enqueue(connection, queued)
            return queued

        return await self._database.run(resume)

    async def prune(self, *, older_than: float, dry_run: bool = False) -> int:
        """Delete the records of jobs that were settled more than `older_than` seconds ago; return their number.

        Files stay, and what was charged stays counted in limits and budgets. But the task ids and the addresses of
        the results are forgotten, and a request that is submitted once more is paid for once more.

        :param older_than: seconds, >= 0.
        :param dry_run: True, to delete nothing.
        :raises ConfigurationError: if `older_than` is below 0 or not a number.
        """
        if not older_than >= 0:
            raise ConfigurationError(setting="older_than", reason=f"must be seconds >= 0, not {older_than!r}")
        return await delete_settled(self._database, before=time.time() - older_than, dry_run=dry_run)

    async def resolve(
        self, key: str, *, task_id: str | None = None, charged: bool | None = None, abandon: bool = False
    ) -> Job:
        """Resolve a job in doubt by exactly one of its three outcomes, and queue it unless it is settled by that.

        :param key: the key of the job.
        :param task_id: its task id, if it was accepted.
        :param charged: False, if it was not accepted: it is sent again.
        :param abandon: True, to give the job up.
        :raises UnknownJob: if there is no such job.
        :raises InvalidRequest: unless exactly one outcome is given, or if the job is not in doubt, or if another job
            has that task id.
        """

        def resolve(connection: sa.Connection, at: float) -> Job:
            before = _required(statements.select_job(connection, key), key)
            job = apply_resolution(before, at, task_id=task_id, charged=charged, abandon=abandon)
            if job.task_id is not None:
                task = (job.provider, job.base_url, job.task_id)
                holder = job_reads.keys_for_tasks(connection, [task]).get(task)
                if holder is not None:
                    reason = f"belongs to job {holder}; look up this one's at the provider"
                    raise InvalidRequest(field="task_id", value=task_id, reason=reason)
            if job_writes.save_free(connection, [job], JobStatus.UNKNOWN):
                raise InvalidRequest(field="key", value=key, reason="a worker has it at this moment; try again")
            if not job.is_final:
                self._queue.enqueue(connection, [key])
            return job

        return await self._database.run(resolve, time.time())

    async def resubmit(self, key: str, *, new_seed: bool = False, random: float = 0.5) -> Job:
        """Pay for the request of a finished job once more: queue a new job of this key; return the earlier one.

        The earlier job stays as `KEY~1`, with its task id and its file.

        :param key: the key of the job.
        :param new_seed: whether the new request has another seed; default: False.
        :param random: a number in [0, 1) from which that seed is made.
        :raises UnknownJob: if there is no such job.
        :raises InvalidRequest: if a worker has the job, or it was adopted.
        """

        def resubmit(connection: sa.Connection, at: float) -> Job:
            found = job_reads.select_jobs(connection, [key])
            job, is_idle = found[0] if found else (None, False)
            job = _required(job, key)
            if not is_idle:
                reason = "must be finished before it is paid again; wait for it"
                raise InvalidRequest(field="key", value=key, reason=reason)
            if job.is_adopted:
                raise InvalidRequest(field="key", value=key, reason=f"cannot be paid again: {ADOPTED_REASON}")
            taken = job_reads.keys_like(connection, f"{key}~")
            archived = attrs.evolve(mark_superseded(job, at), key=next(k for k in archive_keys(key) if k not in taken))
            statements.rename(connection, key, archived.key)
            job_writes.save_free(connection, [archived], job.status)
            request = with_new_seed(job.request, random) if new_seed else job.request
            self._queue.enqueue(connection, statements.insert_jobs(connection, [repetition(archived, key, request)]))
            return archived

        return await self._database.run(resubmit, time.time())

    # --- workers ----------------------------------------------------------------------------------------------------

    async def run_worker(
        self,
        *,
        max_jobs: int = 5000,
        download_to: str | os.PathLike[str] | None = None,
        lease_ttl: float = DEFAULT_TTL_S,
        callbacks: CallbackReceiver | None = None,
        allow_results: Collection[str] = (),
        proxy: str | None = None,
        uploader: Uploader | None = None,
        upload_lifetime: float | None = None,
        on_start: Callable[[Worker], object] = lambda _worker: None,
    ) -> None:
        """Drive jobs in this process until the call is cancelled; then hand them over to other workers at once.

        The API keys are read here. There is one worker in a process at most.

        :param max_jobs: maximum number of jobs that a worker has at once, >= 1; the latest to start sets it for all.
        :param download_to: the folder for KEY.mp4, which all machines should share, or `s3://BUCKET/PREFIX`; default:
            nothing is downloaded.
        :param callbacks: receives the callbacks of gateways that send any; whichever worker gets one, the one that has
            the job polls at once. `public_url` is the same for all workers, as of a load balancer. Default: none.
        :param lease_ttl: seconds after which other workers take its jobs over if it dies, >= 2; default: 30.
        :param allow_results, proxy, uploader, upload_lifetime: as of `PikaClient`.
        :param on_start: called with the worker, for its `id` and the number of jobs that are `running`, once it has its
            lease; default: nothing is called.
        :raises ConfigurationError: if an argument or a key cannot work, or results cannot be stored.
        :raises LeaseEnded, JournalFailed: if the lease could not be extended in time, or the start lost the database.
        """
        check_worker(max_jobs, lease_ttl)
        lease = Lease(new_worker_id(), lease_ttl)
        journal = ClusterJournal(self._database, lease)
        given = ClientConfig.create(
            self._required_accounts(), api_key=None, api_key_file=None, base_url=None, callbacks=callbacks,
            new_journal=lambda _limits: journal, ambiguous="strict", session=None, allow_results=allow_results,
            proxy=proxy, transport=None,
            uploader=uploader, upload_lifetime=upload_lifetime, price=None, limits=self._limits, routing=self._routing,
            polling=self._polling, deadline=self._deadline, budget=self._budget,
        )  # fmt: skip
        worker = Worker(
            without_bounds(given), given, self._database, journal, lease, max_jobs=max_jobs, download_to=download_to,
            jobs=self._queue,
        )  # fmt: skip
        with plain_errors(lease):
            async with worker.open():
                on_start(worker)
                await asyncio.Event().wait()

    def _required_accounts(self) -> tuple[Account, ...]:
        if self._accounts:
            return self._accounts
        raise ConfigurationError(setting="accounts", reason="must be given; give accounts=[...]")

    async def stats(self) -> ClusterStats:
        """Return the counts of the jobs, what is used of each account, and the workers."""
        counted = await self._database.run(job_reads.count_jobs)
        rows = await self._database.run(shared_statements.select_accounts)
        return ClusterStats.of(counted, rows, await self.workers())

    async def workers(self) -> list[ClusterWorker]:
        """Return the workers, the first started first, those included whose lease has ended."""
        return [ClusterWorker.of(row) for row in await self._database.run(shared_statements.select_workers)]

    async def orphans(self) -> list[ClusterOrphan]:
        """Return the task ids that workers read too late; `resolve(key, task_id=...)` lets a worker follow one."""
        return [ClusterOrphan(**row) for row in await self._database.run(shared_statements.select_orphans)]


def _required(job: Job | None, key: str) -> Job:
    if job is None:
        raise UnknownJob(value=key)
    return job
