"""One batch: pulls requests, downloads results and returns jobs as they finish.

Does not decide when jobs are sent or polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Iterator
from typing import Final, Protocol

import anyio
import anyio.lowlevel
import attrs
from anyio.streams.memory import MemoryObjectReceiveStream

from pika_async._http.addresses import allowable_kind, redact_text, redact_url
from pika_async._journal.packed import PackedList
from pika_async._planning.actions import JobObserver
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.pacing import Pace
from pika_async._runtime.request_source import Source
from pika_async._runtime.results import BatchDownload
from pika_async._runtime.tasks import Spawn, was_cancelled
from pika_async.errors import (
    AcceptedElsewhere,
    ClientClosed,
    DownloadFailed,
    InvalidRequest,
    NoAccountLeft,
    SubmissionsStopped,
)
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest

__all__ = ["BatchRun"]

#: Number of finished jobs that the caller has not received yet at which no further request is pulled.
MAX_UNDELIVERED: Final = 256


class Admit(Protocol):
    """`BatchAdmission.admit`: plans the item at *index* of a batch, or returns the job that exists for it."""

    async def __call__(self, item: GenerationRequest | str, index: int, observer: JobObserver) -> Job: ...


class BatchRun:
    """One `as_settled` or `run`: pulls requests as room allows and returns each job once it is finished and downloaded.

    :param table: gets the jobs of the batch.
    :param spawn: starts tasks that end with the client.
    :param admit: plans each request.
    :param download: downloads the result of a job; None to download nothing.
    :param downloading: number of downloads at a time of each account: one whose host is slow holds up no other.
    :param keep_rest: whether to read the rest of the source into `rest` after submitting has stopped (default: no).
    :param read_ahead: whether to pull further requests while earlier ones are admitted, so that those which were pulled
        meanwhile share a commit (default: no).
    """

    def __init__(
        self,
        table: JobTable,
        spawn: Spawn,
        admit: Admit,
        download: BatchDownload | None,
        downloading: int,
        *,
        keep_rest: bool = False,
        read_ahead: bool = False,
    ) -> None:
        self._table = table
        self._spawn = spawn
        self._admit = admit
        self._download = download
        self._has_files = False
        self._downloading = downloading
        self._keep_rest = keep_rest
        self._read_ahead = read_ahead
        #: Requests that were pulled and wait for their admission, each with its index.
        self._pulled: list[tuple[GenerationRequest | str, int]] = []
        self._has_pulled = asyncio.Event()
        #: Number of requests that were pulled and are not admitted yet.
        self._admitting = 0
        self._results, self._results_out = anyio.create_memory_object_stream[Job](math.inf)
        #: The downloads of each account.
        self._downloads = {
            name: anyio.create_memory_object_stream[Job](math.inf) for name in table.planner.accounts if download
        }
        self._observer: JobObserver = self._on_change  # one bound method, shared by all jobs of the batch
        self._unsent: set[str] = set()
        self._unfinished = 0
        self._undelivered = 0
        self._source_ended = False
        self._closed = False
        self._downloaders = 0
        self._scopes: list[anyio.CancelScope] = []
        self._error: BaseException | None = None
        #: Whether a request was not admitted for a reason that holds for the next one too.
        self._is_broken = False
        self._stopped: SubmissionsStopped | None = None
        #: Why some jobs were not sent while others were.
        self._partly_stopped: NoAccountLeft | None = None
        #: The key of each pulled request; None until its job is admitted, and for ever if it belongs to no job.
        self._keys: list[str | None] = []
        #: The requests that were not admitted because submitting had stopped; read with `keep_rest` only.
        self.rest = PackedList[GenerationRequest | str]()

    def start(self, source: Source) -> None:
        """Start pulling requests and downloading results.

        :raises ClientClosed: if the scheduler has ended meanwhile.
        """
        try:
            self._start_tasks(source)
        except BaseException:
            self._close_streams()
            raise
        finally:
            for _, downloads in self._downloads.values():
                downloads.close()

    def _start_tasks(self, source: Source) -> None:
        self._spawn(self._pull_all, source, name="pika_async requests")
        if self._read_ahead:
            self._spawn(self._admit_pulled, name="pika_async admission")
        for _, downloads in self._downloads.values():
            for number in range(self._downloading):
                self._spawn(self._download_worker, downloads.clone(), name=f"pika_async download {number}")

    @property
    def keys(self) -> Iterator[str]:
        """The keys of the admitted jobs, in the order of their requests."""
        return (key for key in self._keys if key is not None)

    async def results(self) -> AsyncGenerator[Job, None]:
        """Yield each job once it is finished and its result, if wanted, is downloaded.

        :raises InvalidRequest: after the last job, if an item was not a request or two requests with one key differ.
        :raises SubmissionsStopped: after the last job, if some requests could not be sent.
        """
        async for job in self._results_out:
            self._undelivered -= 1
            self._table.wake()
            yield job
        self._table.intake.require_sound()
        if self._error is not None:
            raise self._error
        stopped = self._stopped or self._partly_stopped
        if stopped is not None:
            raise stopped.copy()

    async def aclose(self) -> None:
        """Stop pulling requests and downloading results, and wait until no file is being written.

        Submitted jobs keep running; unsent ones are not sent.
        """
        self._closed = True
        for scope in self._scopes:
            scope.cancel()
        for key in list(self._unsent):
            self._table.release(key, self._observer)
        self._close_streams()
        with anyio.CancelScope(shield=True):
            await self._table.wait_for(lambda: not self._downloaders)

    def _close_streams(self) -> None:
        self._results.close()
        self._results_out.close()
        self._close_downloads()

    def _close_downloads(self) -> None:
        for downloads, _ in self._downloads.values():
            downloads.close()

    def _new_scope(self) -> anyio.CancelScope:
        scope = anyio.CancelScope()
        self._scopes.append(scope)
        return scope

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _pull_all(self, source: Source) -> None:
        shared = self._table.planner.shared
        shared.sources += 1
        try:
            with self._new_scope():
                await self._pull(source)
        except asyncio.CancelledError as error:
            if was_cancelled(error):  # the client is closing
                self._stopped = self._stopped or ClientClosed(provider=self._table.planner.provider)
                raise
            self._error = RuntimeError("the iterable of requests was cancelled")
            self._error.__cause__ = error
        except Exception as error:  # the caller's iterable failed; `results` raises the error
            self._error = error
        finally:
            shared.sources -= 1
            self._source_ended = True
            self._has_pulled.set()
            self._close_if_done()
            self._table.wake()

    async def _pull(self, source: Source) -> None:
        pace = Pace()  # many items need no waiting: existing jobs, and items that are refused
        planner = self._table.planner
        while True:
            await pace.step()
            await self._table.wait_for(lambda: planner.stop_reason is not None or self._is_broken or self._has_room())
            if self._is_broken:
                return
            self._stopped = self._stopped or planner.stop_reason
            if self._stopped is not None:
                if self._keep_rest and not isinstance(self._stopped, ClientClosed):
                    # In this task, because a generator may have entered cancel scopes here.
                    async for request in source:
                        self.rest.append(request)
                        await pace.step()
                return
            try:
                request = await anext(source)
            except StopAsyncIteration:
                return
            index = len(self._keys)
            self._keys.append(None)
            self._admitting += 1
            self._unfinished += 1
            if not self._read_ahead:
                await self._admit_next(request, index)
                continue
            self._pulled.append((request, index))
            if len(self._pulled) == 1:  # nothing is read before the first is on its way
                self._has_pulled.set()
                await anyio.lowlevel.checkpoint()

    async def _admit_pulled(self) -> None:
        """Admit the requests that were pulled, all that wait at once: the journal saves their jobs in one commit."""
        shared = self._table.planner.shared
        shared.sources += 1
        try:
            with self._new_scope():
                while self._pulled or not self._source_ended:
                    self._has_pulled.clear()
                    page, self._pulled = self._pulled, []
                    if len(page) == 1:
                        await self._admit_next(*page[0])
                    elif page:
                        async with anyio.create_task_group() as group:
                            for request, index in page:
                                group.start_soon(self._admit_next, request, index)
                    if not self._pulled and not self._source_ended:
                        await self._has_pulled.wait()
        finally:
            shared.sources -= 1
            self._unfinished -= len(self._pulled)  # the client or the batch is closing
            self._pulled.clear()
            self._close_if_done()

    async def _admit_next(self, request: GenerationRequest | str, index: int) -> None:
        try:
            job = await self._admit(request, index, self._observer)
        except BaseException as error:
            self._unfinished -= 1
            if not isinstance(error, Exception):
                raise
            # An invalid request belongs to no job, and others go on; `results` raises its error after the last one.
            self._error = self._error or error
            self._is_broken |= not isinstance(error, InvalidRequest)
            self._close_if_done()
            return
        finally:
            self._admitting -= 1
            if self._read_ahead:
                self._table.wake()  # there may be room now
        self._keys[index] = job.key
        if job.status is JobStatus.PLANNED and job.key in self._table.jobs:
            self._unsent.add(job.key)
            if self._closed:  # while the job was being admitted
                self._table.release(job.key, self._observer)

    def _has_room(self) -> bool:
        unsent = len(self._unsent) + self._admitting
        return self._undelivered < MAX_UNDELIVERED and self._table.planner.needs_more(unsent)

    # --- results ----------------------------------------------------------------------------------------------------

    def _on_change(self, job: Job, finished: bool) -> None:
        """Observe a job of the batch: queue its download, or deliver it, once it is finished."""
        if job.status is not JobStatus.PLANNED or finished:
            self._unsent.discard(job.key)
        if not finished:
            return
        self._undelivered += 1
        if isinstance(job.error, NoAccountLeft):  # other jobs may still be sent
            self._partly_stopped = job.error
        elif isinstance(job.error, SubmissionsStopped):
            self._stopped = job.error
        elif job.is_in_flight and job.error is None:
            self._stopped = self._stopped or ClientClosed(provider=job.provider)
        self._has_files |= job.is_downloaded
        elsewhere = isinstance(job.error, AcceptedElsewhere)
        if elsewhere and job.status is JobStatus.SUCCEEDED and self._download is None:
            job = attrs.evolve(job, error=None)  # only its file would need the account
        if self._download is not None and job.status is JobStatus.SUCCEEDED and not job.is_downloaded and not elsewhere:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._downloads[self._table.planner.account_for(job).name][0].send_nowait(job)
                self._table.start_fetching(job.key)
                self.stop_if_refused(self._download.refusal(job))
                return
        self._deliver(job)

    def stop_if_refused(self, reason: str | None) -> None:
        """Submit nothing more if a result is refused for a reason that the next one would have too.

        One file of this batch shows that not every result is refused.
        """
        if reason is not None and allowable_kind(reason) is not None and not self._has_files:
            text = f"results cannot be fetched from here, so nothing more is paid for: {reason}"
            self._table.intake.stop_submitting(SubmissionsStopped(provider=self._table.planner.provider, reason=text))

    def _on_downloaded(self, job: Job) -> None:
        self._table.end_fetching(job.key)
        self._deliver(job)
        self._table.wake()

    def _deliver(self, job: Job) -> None:
        self._unfinished -= 1
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the caller has left the batch
            self._results.send_nowait(job)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._source_ended and not self._unfinished:
            self._results.close()
            self._close_downloads()

    @contextlib.contextmanager
    def _drain(self, downloads: MemoryObjectReceiveStream[Job]) -> Iterator[None]:
        """Deliver the jobs that are still queued on leaving, without their files."""
        try:
            yield
        finally:
            with contextlib.suppress(anyio.WouldBlock, anyio.EndOfStream, anyio.ClosedResourceError):
                while True:
                    self._on_downloaded(downloads.receive_nowait())

    async def _download_worker(self, downloads: MemoryObjectReceiveStream[Job]) -> None:
        self._downloaders += 1
        try:
            with downloads, self._drain(downloads), self._new_scope():
                async for job in downloads:
                    await self._download_one(job)
        finally:
            self._downloaders -= 1
            self._table.wake()

    async def _download_one(self, job: Job) -> None:
        assert self._download is not None  # noqa: S101 - without it nothing is queued
        downloaded = job
        try:
            downloaded = await self._download.fetch(job)
        except Exception as error:  # fails this job only, not the scheduler
            url = job.video.url if job.video is not None else ""
            failure = DownloadFailed(url=redact_url(url), reason=redact_text(repr(error)))
            downloaded = job.with_download_error(failure)
        finally:
            self._has_files |= downloaded.is_downloaded
            if isinstance(downloaded.error, DownloadFailed):
                self.stop_if_refused(downloaded.error.reason)
            self._on_downloaded(downloaded)
