"""`PikaClient`: one provider and one account, awaited, in batches or from a service. The only room that users need."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar, Unpack

import anyio
import attrs

from pika_async._life import Life
from pika_async._planning.keys import single_key
from pika_async._runtime.admission import BatchAdmission, request_of
from pika_async._runtime.batch import BatchRun, Requests, stream
from pika_async._runtime.event_stream import Hook
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.resolution import resolve, resubmit
from pika_async._runtime.results import needs_download
from pika_async._runtime.session import build_stats, require_loop
from pika_async._runtime.stats import Stats
from pika_async.errors import ClientClosed, ConfigurationError, JobCanceled, SubmissionsStopped
from pika_async.jobs import BatchReport, Job, JobEvent, JobStatus
from pika_async.models import GenerationRequest, RequestFields, Snapshot, Video

__all__ = ["PikaClient"]

H = TypeVar("H", bound=Hook)


class PikaClient(Life):
    """A client of one provider and one account.

    `provider`: a name (`cometapi`, `yescale`, `gptge`, `native`, or one that a package registers) or a `Provider`.
    `api_key`: else from `api_key_file`, else from the provider's environment variable. `base_url`: else the provider's
    own; native has none. `journal`: a file that remembers jobs, made with mode 0600 if it is missing; without one they
    are remembered as long as the client lives. `polling`: a policy; `AdaptivePolling()` unless given. `callbacks`: a
    `CallbackReceiver`, where the gateway calls back. `deadline`: seconds from acceptance, or from when it is
    resumed, to settling (1800). `ambiguous`: "lenient" counts a bare 503 as a refusal and sends again, which most
    gateways mean by it but none documents; "strict" leaves the job in doubt. `session`: your own
    `aiohttp.ClientSession`. `proxy`: an address; else the environment's. `transport`: replaces the network, for tests.

    Open it with `async with`; it may be opened again later, also in another event loop, and keeps its jobs. While it is
    open it is for every task of that loop; in another it raises `RuntimeError`. Opening raises `JournalInUse` while
    another client has the journal open, `JournalUnusable` if the file is no journal, is damaged or of a newer version,
    `JournalFailed` if it cannot be written.

    :raises ConfigurationError: names the argument that cannot work and the way out.
    """

    # --- one --------------------------------------------------------------------------------------------------------

    async def generate(self, request: GenerationRequest | str, **fields: Unpack[RequestFields]) -> Video:
        """Submit one request and wait for its video. A prompt with fields is a request.

        Cancelling it withdraws the request if it was not sent; what was sent goes on until the client is closed.

        :raises InvalidRequest: the request cannot be sent as it is; nothing was sent.
        :raises SubmissionRejected: the provider refused it; not charged.
        :raises SubmissionInDoubt: it may have been accepted; it is not sent again.
        :raises GenerationFailed: the provider settled it as failed.
        :raises DeadlineExceeded: not settled in time; the error holds the task id.
        :raises TaskNotFound: the provider denies the task; the error holds the task id.
        :raises ProviderBusy: refused with "wait" for too long; nothing was accepted.
        :raises SubmissionsStopped: the account or the address is at fault (`AccountStopped`, `ProviderUnreachable`,
            `WrongBaseUrl`, `ChargeLimitReached`); nothing was accepted, or an accepted task could not be asked for.
        """
        table = self._require_session().table
        job = await self._submitted(request_of(request, fields))
        if job.task_id is not None or job.status is JobStatus.UNKNOWN:
            job = await self._rested(table, job)
        if job.status is JobStatus.SUCCEEDED and job.video is not None:
            return job.video
        raise job.to_exception()

    async def submit(self, request: GenerationRequest | str, **fields: Unpack[RequestFields]) -> Job:
        """Submit one request; returns once it is accepted and its task id is kept, on disk if there is a journal.

        A request whose key and content are known already is not paid again. A job in doubt raises at once; where a
        callback may tell what became of it, `wait` waits for that.

        :raises InvalidRequest: also if its key belongs to another content already.
        :raises SubmissionRejected: and the other errors of `generate` up to acceptance.
        """
        job = await self._submitted(request_of(request, fields))
        if job.task_id is None:
            raise job.to_exception()
        return job

    async def _submitted(self, asked: GenerationRequest) -> Job:
        """The job once it is accepted, in doubt or at rest."""
        table = self._require_session().table
        judged: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

        def watch(job: Job, finished: bool) -> None:
            if not judged.done() and (finished or job.task_id is not None or job.status is JobStatus.UNKNOWN):
                judged.set_result(job)

        key = single_key(asked)
        table.allow_submitting()
        try:
            await self._require_session().admission.admit(attrs.evolve(asked, key=key), key, None, watch)
            job = await judged
        except asyncio.CancelledError:
            table.unsubscribe(key, watch)
            with anyio.CancelScope(shield=True):
                await table.withdraw(key, JobCanceled(key=key, provider=self.provider.name))
            raise
        finally:
            table.unsubscribe(key, watch)
        if job.task_id is None:
            table.check_failure()
        return job

    async def wait(self, job: Job, *, timeout: float | None = None) -> Job:  # noqa: ASYNC109 - the contract's name
        """Wait until `job` is at rest: settled, in doubt, or parked. A job that timed out gets a new deadline.

        :raises TimeoutError: after `timeout` seconds; this stops the waiting, not the job.
        :raises KeyError: if this client has no such job.
        """
        async with asyncio.timeout(timeout):
            return await self._rested(self._require_session().table, job)

    async def _rested(self, table: JobTable, job: Job) -> Job:
        table.check_failure()
        known = self._journal.get(job.key)
        if known is None:
            raise KeyError(f"{self!r} has no job {job.key!r}")
        rest: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

        def watch(now: Job, finished: bool) -> None:
            if finished and not rest.done():
                rest.set_result(now)

        if not table.subscribe(job.key, watch):
            if known.status is not JobStatus.TIMED_OUT and not known.is_in_flight:
                return known
            await self._require_session().admission.adopt(known, watch)
        try:
            now = await rest
        finally:
            table.unsubscribe(job.key, watch)
        if not now.is_final:
            table.check_failure()
        return now

    async def poll(self, job: Job) -> Snapshot:
        """Ask the provider about `job` once, now; free.

        :raises ExchangeFailed: no usable answer came; ask again.
        :raises TaskNotFound: the provider says that it knows no such task (also right after a create).
        :raises AccountStopped: the credential was refused.
        :raises InvalidRequest: if the job has no task id.
        """
        return await self._require_session().gateway.poll_job(job)

    async def download(self, video: Video | Job, path: str | os.PathLike[str]) -> Path:
        """Fetch a result to `path`, whole and verified. An address that has expired is asked for anew once.

        :raises DownloadFailed: says what was wrong; the generation stands and can be fetched again. An existing file
            is never overwritten.
        :raises InvalidRequest: if the job has no video.
        """
        results = self._require_session().results
        if isinstance(video, Job):
            done = await results.collect(video, Path(path))
            if done.file is None:
                raise done.to_exception()
            return done.file
        return (await results.fetch(video, Path(path)))[0].file

    # --- many -------------------------------------------------------------------------------------------------------

    async def as_settled(
        self, requests: Requests, *, download_to: str | os.PathLike[str] | None = None
    ) -> AsyncGenerator[Job, None]:
        """Each job as it comes to rest, downloaded to `download_to`/KEY.mp4 if given.

        Pulls from `requests` (any iterable or async iterable) only as room allows. One job's failure raises nothing: it
        is that job's `status` and `error`. A request whose key and content are known already is not paid again. A
        request without a key gets one from its position and content.

        :raises SubmissionsStopped: after the last job, if not everything could be sent.
        :raises InvalidRequest: after the last job, if an item is no request, or two share a key and differ.
        """
        batch, _ = await self._batch(requests, download_to)
        try:
            async with aclosing(batch.results()) as results:
                async for job in results:
                    yield job
        finally:
            await batch.aclose()

    async def run(self, requests: Requests, *, download_to: str | os.PathLike[str] | None = None) -> BatchReport:
        """The same, all at once. After a stop the rest of `requests` is read and reported as planned.

        :raises ClientClosed: if the client is closed meanwhile.
        """
        batch, intake = await self._batch(requests, download_to, keep_rest=True)
        began = time.monotonic()
        done: dict[str, Job] = {}
        stopped = None
        try:
            async with aclosing(batch.results()) as results:
                async for job in results:
                    done[job.key] = job
        except ClientClosed:
            raise  # the rest of the requests was not read: there is no whole report
        except SubmissionsStopped as error:
            stopped = error
        finally:
            await batch.aclose()
        jobs = [done[key] for key in batch.keys]
        if stopped is not None:
            for request in batch.rest:
                jobs.append(intake.refused(request, len(jobs), stopped))
        counts = Counter(job.status for job in jobs)
        return BatchReport(jobs=jobs, counts=counts, seconds=time.monotonic() - began, stopped=stopped)

    async def resume(self, *, download_to: str | os.PathLike[str] | None = None) -> BatchReport:
        """Take up every job of this provider and address that is not final; jobs in doubt stay so, and are reported.

        With `download_to`, what succeeded and is not on disk is fetched too, again where the file is gone.
        """
        here = (self.provider.name, self.base_url)
        left = [
            attrs.evolve(job.request, key=job.key)
            for job in self._journal.all()
            if (job.provider, job.base_url) == here
            and (not job.is_final or (download_to is not None and needs_download(job)))
        ]
        return await self.run(left, download_to=download_to)

    async def _batch(
        self, requests: Requests, download_to: str | os.PathLike[str] | None, *, keep_rest: bool = False
    ) -> tuple[BatchRun, BatchAdmission]:
        session = self._require_session()
        source = stream(requests)
        session.table.allow_submitting()
        intake = BatchAdmission(session.admission, session.table)
        if self._journal.path is not None and isinstance(requests, Sequence):
            source = stream(await intake.enroll(requests))
        fetch = None if download_to is None else session.results.into(Path.cwd() / download_to)
        batch = BatchRun(session.scheduler, intake.admit, fetch, self._config.limits.downloading, keep_rest=keep_rest)
        batch.start(source)
        return batch, intake

    # --- told -------------------------------------------------------------------------------------------------------

    def events(self, after: int | None = None) -> AsyncGenerator[JobEvent, None]:
        """What becomes of the jobs: `JobAccepted`, `JobRunning`, `JobSettled`, `JobParked`, in order, from now on.

        Nothing is kept for a reader: it reads the journal on behind the last number at its own pace, and is told of a
        job that changed often only how it stands; that it settled, always, and once. `after`: the number of an event,
        behind which to go on, also one of an earlier process with the same journal; 0 for all jobs that are known.
        Ends when the client is closed, after all that there was; and, as every generator, when its waiting is cancelled
        (`asyncio.timeout`, `wait_for`): `after` goes on behind what was read.

        :raises InvalidRequest: if `after` is no number that this journal has given.
        :raises RuntimeError: if the client is not open.
        """
        return self._require_session().events.stream(after)

    def on_settled(self, hook: H) -> H:
        """Call `hook(job)` for each job that settles while the client is open; what it returns is awaited if it can be.

        One call at a time, in the order of settling; a slow one delays no job, but one that blocks the loop does. An
        exception is logged (`pika_async.jobs`) and stops nothing. Given back, so that it serves as a decorator; from
        now on, and in each later opening.

        :raises ConfigurationError: if it cannot be called.
        :raises RuntimeError: in another event loop than the one in which the client is open.
        """
        if not callable(hook):
            raise ConfigurationError(setting="on_settled", reason=f"{hook!r} cannot be called; give a function")
        if self._session is not None:
            require_loop(self._session.loop)
            self._session.events.add_hook(hook)
        self._hooks.append(hook)
        return hook

    # --- views and ways out -----------------------------------------------------------------------------------------

    async def job(self, key: str) -> Job | None:
        """The job of this key as it stands, also one of an earlier process with the same journal; None if unknown."""
        table = None if self._session is None else self._session.table
        known = self._journal.get(key)
        return known if known is None or table is None else table.with_pending_polls(known)

    async def jobs(self, status: JobStatus | str | None = None) -> list[Job]:
        """Every job of this client, or those of one status, in the order in which they were planned.

        :raises ValueError: if there is no such status.
        """
        table = None if self._session is None else self._session.table
        known = self._journal.all(None if status is None else JobStatus(status))
        return [job if table is None else table.with_pending_polls(job) for job in known]

    def active_jobs(self) -> list[Job]:
        """The jobs that are not at rest: waiting to be sent, being sent, accepted and not settled."""
        table = None if self._session is None else self._session.table
        return [] if table is None else [table.with_pending_polls(active.job) for active in list(table.jobs.values())]

    def stats(self) -> Stats:
        """How this client stands now, for a health check: whether it is open or not, and from any thread; waits for
        nothing.
        """
        return build_stats(self._config, self._session)

    async def resolve(
        self, key: str, *, task_id: str | None = None, charged: bool | None = None, abandon: bool = False
    ) -> Job:
        """Say what became of a job in doubt: its `task_id`, or `charged=False` (it may be sent again), or `abandon`.

        `resume()` takes up what was resolved.

        :raises InvalidRequest: unless exactly one of the three is said, or if the job is not in doubt, or if another
            job has that task id.
        :raises JournalFailed: if it could not be kept.
        """
        table = self._require_session().table
        job = await resolve(self._journal, key, task_id=task_id, charged=charged, abandon=abandon)
        if not job.may_be_charged:
            table.planner.charges -= 1
        table.resolved(job)
        return job

    async def resubmit(self, key: str) -> Job:
        """Let the next request of this key be a new one, which is paid for. The earlier job, which is given back, stays
        known by another key, with its task id and its file.

        :raises InvalidRequest: if there is no such job, or it is under way, or its file cannot be moved aside.
        :raises JournalFailed: if it could not be kept.
        """
        return await resubmit(self._require_session().table, key)
