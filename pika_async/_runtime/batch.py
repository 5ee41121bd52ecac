"""Many requests through one scheduler, as they settle: feeding, downloading, handing over. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Final, Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from pika_async._planning.actions import JobObserver
from pika_async._runtime.gateway import was_cancelled
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.tasks import Spawn
from pika_async.errors import AcceptedElsewhere, ClientClosed, DownloadFailed, InvalidRequest, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest

__all__ = ["BatchRun", "Requests", "Source", "stream"]

#: What a batch takes: requests, or bare prompts.
Requests = Iterable[GenerationRequest | str] | AsyncIterable[GenerationRequest | str]
Source = AsyncIterator[GenerationRequest | str]
#: Jobs that are at rest and not handed over, or handed over and not taken; with more, nothing new is planned.
BEHIND: Final = 256


class Admit(Protocol):
    """Plans a request as the job at `index`, or finds the one that it is already."""

    async def __call__(self, item: GenerationRequest | str, index: int, observer: JobObserver) -> Job: ...


class BatchRun:
    """One `as_settled`: pulls requests as room allows, gives each job once it is at rest and, if wanted, on disk.

    After a stop nothing more is taken in; with `keep_rest` the rest of the source is read all the same.
    """

    def __init__(
        self,
        table: JobTable,
        spawn: Spawn,
        admit: Admit,
        fetch: Callable[[Job], Awaitable[Job]] | None,
        downloading: int,
        *,
        keep_rest: bool = False,
    ) -> None:
        self._table = table
        self._spawn = spawn
        self._admit = admit
        self._fetch = fetch
        self._downloading = downloading
        self._keep_rest = keep_rest
        self._results, self._taken = anyio.create_memory_object_stream[Job](math.inf)
        self._to_fetch, self._fetches = anyio.create_memory_object_stream[Job](math.inf)
        self._watcher: JobObserver = self._watch  # one bound method for all jobs, not one a job
        self._unsent: set[str] = set()
        self._open = 0
        self._behind = 0
        self._fed = False
        self._left = False
        self._downloaders = 0
        self._scopes: list[anyio.CancelScope] = []
        self._error: BaseException | None = None
        self._stop: SubmissionsStopped | None = None
        #: The key of each request that was pulled, by position.
        self.keys: list[str] = []
        #: After a stop, the requests that were not taken in.
        self.rest: list[GenerationRequest | str] = []

    def start(self, source: Source) -> None:
        """Begin to pull."""
        self._spawn(self._feed, source, name="pika_async feed")
        if self._fetch is not None:
            for number in range(self._downloading):
                self._spawn(self._download, self._fetches.clone(), name=f"pika_async download {number}")
        self._fetches.close()

    async def results(self) -> AsyncGenerator[Job, None]:
        """Each job once it is at rest.

        :raises InvalidRequest: after the last job, if an item was no request, or two share a key and differ.
        :raises SubmissionsStopped: after the last job, if not everything could be sent.
        """
        async for job in self._taken:
            self._behind -= 1
            self._table.wake()
            yield job
        self._table.intake.require_sound()
        if self._error is not None:
            raise self._error
        if self._stop is not None:
            raise self._stop.copy()

    async def aclose(self) -> None:
        """Nobody takes any more: stop pulling and downloading. What was submitted goes on, what was not is not.

        When it returns, nothing is written any more.
        """
        self._left = True
        for scope in self._scopes:
            scope.cancel()
        for key in list(self._unsent):
            self._table.release(key, self._watcher)
        for stream in (self._results, self._taken, self._to_fetch):
            stream.close()
        with anyio.CancelScope(shield=True):
            await self._table.wait_for(lambda: not self._downloaders)

    def _scoped(self) -> anyio.CancelScope:
        scope = anyio.CancelScope()
        self._scopes.append(scope)
        return scope

    # --- feeding ----------------------------------------------------------------------------------------------------

    async def _feed(self, source: Source) -> None:
        try:
            with self._scoped():
                await self._pull(source)
        except asyncio.CancelledError as error:
            if was_cancelled(error):  # the client is closing
                self._stop = self._stop or ClientClosed(provider=self._table.planner.provider)
                raise
            self._error = RuntimeError("the iterable of requests was cancelled")
            self._error.__cause__ = error
        except Exception as error:  # the user's own iterable failed: the user hears of it
            self._error = error
        finally:
            self._fed = True
            self._finish()

    async def _pull(self, source: Source) -> None:
        index = 0
        planner = self._table.planner
        while True:
            await self._table.wait_for(lambda: planner.stop_reason is not None or self._has_room())
            self._stop = self._stop or planner.stop_reason
            if self._stop is not None:
                if self._keep_rest and not isinstance(self._stop, ClientClosed):
                    # In this very task: a generator may hold scopes.
                    self.rest = [request async for request in source]
                return
            try:
                request = await anext(source)
            except StopAsyncIteration:
                return
            try:
                await self._take_in(request, index)
            except InvalidRequest as error:  # of no job: said at the end, so that it stops no other
                self._error = self._error or error
            index += 1

    async def _take_in(self, request: GenerationRequest | str, index: int) -> None:
        self._open += 1
        try:
            job = await self._admit(request, index, self._watcher)
        except BaseException:
            self._open -= 1
            raise
        self.keys.append(job.key)
        if job.status is JobStatus.PLANNED and job.key in self._table.jobs:
            self._unsent.add(job.key)
            if self._left:  # meanwhile
                self._table.release(job.key, self._watcher)
        elif not index % BEHIND:
            await asyncio.sleep(0)  # thousands that are known already must not hold the loop

    def _has_room(self) -> bool:
        return self._behind < BEHIND and self._table.planner.wants_more(len(self._unsent))

    # --- results ----------------------------------------------------------------------------------------------------

    def _watch(self, job: Job, finished: bool) -> None:
        if job.status is not JobStatus.PLANNED or finished:
            self._unsent.discard(job.key)
        if not finished:
            return
        self._behind += 1
        if isinstance(job.error, SubmissionsStopped):
            self._stop = job.error
        elif job.is_in_flight and job.error is None:
            self._stop = self._stop or ClientClosed(provider=job.provider)
        elsewhere = isinstance(job.error, AcceptedElsewhere)
        if self._fetch is not None and job.status is JobStatus.SUCCEEDED and job.file is None and not elsewhere:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._to_fetch.send_nowait(job)
                self._table.fetching += 1
                return
        self._hand_over(job)

    def _fetched(self, job: Job) -> None:
        self._table.fetching -= 1
        self._hand_over(job)
        self._table.wake()

    def _hand_over(self, job: Job) -> None:
        self._open -= 1
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # nobody takes them any more
            self._results.send_nowait(job)
        self._finish()

    def _finish(self) -> None:
        if self._fed and not self._open:
            self._results.close()
            self._to_fetch.close()

    @contextlib.contextmanager
    def _passed_on(self, fetches: MemoryObjectReceiveStream[Job]) -> Iterator[None]:
        """What nobody will fetch any more is handed over as it is."""
        try:
            yield
        finally:
            with contextlib.suppress(anyio.WouldBlock, anyio.EndOfStream, anyio.ClosedResourceError):
                while True:
                    self._fetched(fetches.receive_nowait())

    async def _download(self, fetches: MemoryObjectReceiveStream[Job]) -> None:
        self._downloaders += 1
        try:
            with fetches, self._passed_on(fetches), self._scoped():
                async for job in fetches:
                    await self._bring(job)
        finally:
            self._downloaders -= 1
            self._table.wake()

    async def _bring(self, job: Job) -> None:
        assert self._fetch is not None  # noqa: S101 - called only then
        done = job
        try:
            done = await self._fetch(job)
        except Exception as error:  # a defect or an odd path: this job's, never the scheduler's
            url = job.video.url if job.video is not None else ""
            done = job.with_download_error(DownloadFailed(url=url, reason=repr(error)))
        finally:
            self._fetched(done)


def stream(requests: Requests) -> Source:
    """Any iterable or async iterable of requests, as an async iterator.

    :raises InvalidRequest: if it is a single prompt or request, or cannot be iterated.
    """
    if isinstance(requests, AsyncIterable):
        return aiter(requests)
    if isinstance(requests, str | GenerationRequest) or not isinstance(requests, Iterable):
        raise InvalidRequest(field="requests", value=requests, reason="is no iterable of requests; give a list")
    return _steps(requests)


async def _steps(requests: Iterable[GenerationRequest | str]) -> Source:
    for request in requests:
        yield request
