"""Driving of the jobs of a worker: each is submitted, polled and downloaded, and then given up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from pika_async._planning.resolution import mark_interrupted
from pika_async._runtime.admission import JobAdmission
from pika_async._runtime.job_table import Intake
from pika_async._runtime.results import BatchDownload
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.leases import Lease
from pika_async.errors import AccountStopped, JournalFailed
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job
from pika_async.models import evolve_unchecked

__all__ = ["JobDriver"]

#: Seconds after which a stopped account is tried again.
STOPPED_S: Final = 60.0
#: Seconds after which what the database did not answer is asked again.
ASK_AGAIN_S: Final = 1.0

_log = logging.getLogger("pika_async.job_driver")


class JobDriver:
    """The runs of one worker.

    :param admission: admits the jobs that are to be driven.
    :param intake: allows submissions again after a stop.
    :param journal: the journal of the worker, which claims and releases them.
    :param lease: the lease of the worker, which a defect ends.
    :param downloads: stores the results; None: nothing is downloaded.
    :param downloading: maximum number of concurrent downloads.
    """

    def __init__(
        self,
        admission: JobAdmission,
        intake: Intake,
        journal: ClusterJournal,
        lease: Lease,
        *,
        downloads: BatchDownload | None,
        downloading: int,
    ) -> None:
        self._admission = admission
        self._intake = intake
        self._journal = journal
        self._lease = lease
        self._downloads = downloads
        self._downloading = anyio.CapacityLimiter(downloading)
        #: Those of the downloads under way and waiting, which end when the worker closes.
        self._scopes: set[anyio.CancelScope] = set()
        #: Set when stopped accounts are tried again.
        self._allowed = asyncio.Event()
        self._stopped_at: float | None = None
        self._is_closing = False
        #: Follows up the callback for a job in doubt, if one came; None if there is no receiver of callbacks.
        self.confirm: Callable[[Job], Awaitable[Job]] | None = None
        #: The defect that ends the worker, if there was one.
        self.defect: Exception | None = None
        #: Number of runs that are being driven.
        self.running = 0

    async def drive(self, key: str) -> None:
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
                self.defect = error
                self._lease.over.set()
        finally:
            self.running -= 1
        await asyncio.Event().wait()

    @property
    def _is_over(self) -> bool:
        return self._is_closing or self._lease.over.is_set()

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
        if job.status is JobStatus.UNKNOWN and self.confirm is not None:
            job = await self.confirm(job)
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
        finished: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

        def on_change(changed: Job, is_finished: bool) -> None:
            if is_finished and not finished.done():
                finished.set_result(changed)

        request = evolve_unchecked(job.request, key=job.key)
        await self._admission.admit(request, job.key, job.index, on_change)
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
        # While the worker closes, a download that begins fails at once: another worker has it to do.
        return not (scope.cancelled_caught or self._is_over)

    def try_stopped(self) -> None:
        """Submit again to stopped accounts once they have been stopped for `STOPPED_S`."""
        if self._stopped_at is not None and time.monotonic() - self._stopped_at >= STOPPED_S:
            self._stopped_at = None
            self._intake.allow_submitting()
            self._allowed.set()
            self._allowed = asyncio.Event()

    def close(self) -> None:
        """Take on nothing more, and end the downloads; every run is left as it is."""
        self._is_closing = True
        for scope in list(self._scopes):
            scope.cancel()


def _is_at_rest(job: Job) -> bool:
    """Return whether there is nothing to be done for a job but a download: it is settled or parked.

    What a stop of its account put back is tried again.
    """
    return job.status is not JobStatus.PLANNED and not (
        job.is_in_flight and (job.error is None or isinstance(job.error, AccountStopped))
    )
