"""Many requests through one scheduler, as they settle: feeding, downloading, handing over. Decides nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from pika_async._scheduler import Scheduler
from pika_async.agenda import Watcher
from pika_async.errors import InvalidRequest, SubmissionsStopped
from pika_async.lifecycle import Job, JobStatus
from pika_async.models import GenerationRequest

__all__ = ["Batch", "Requests", "stream"]

#: What a batch takes: requests, or bare prompts.
Requests = Iterable[GenerationRequest | str] | AsyncIterable[GenerationRequest | str]
#: Jobs that are at rest and that nobody took yet; with more, nothing new is planned.
BEHIND: Final = 256


class Admit(Protocol):
    """Plans a request as the job at `index`, or finds the one that it is already."""

    async def __call__(self, request: GenerationRequest | str, index: int, watcher: Watcher) -> Job: ...


class Batch:
    """One `as_settled`: pulls requests as room allows, gives each job once it is at rest and, if wanted, on disk."""

    def __init__(
        self, scheduler: Scheduler, admit: Admit, fetch: Callable[[Job], Awaitable[Job]] | None, downloading: int
    ) -> None:
        self._scheduler = scheduler
        self._admit = admit
        self._fetch = fetch
        self._downloading = downloading
        self._results, self._taken = anyio.create_memory_object_stream[Job](math.inf)
        self._to_fetch, self._fetches = anyio.create_memory_object_stream[Job](math.inf)
        self._unsent: set[str] = set()
        self._open = 0
        self._waiting = 0
        self._fed = False
        self._scopes: list[anyio.CancelScope] = []
        self._error: BaseException | None = None
        self._stopped = False
        #: The key of each request that was pulled, by position.
        self.keys: list[str] = []

    def start(self, source: AsyncIterator[GenerationRequest | str]) -> None:
        """Begin to pull."""
        self._scheduler.spawn(self._feed, source, name="pika_async feed")
        if self._fetch is not None:
            for number in range(self._downloading):
                self._scheduler.spawn(self._download, self._fetches.clone(), name=f"pika_async download {number}")
        self._fetches.close()

    async def results(self) -> AsyncGenerator[Job, None]:
        """Each job once it is at rest.

        :raises SubmissionsStopped: after the last job, if not everything could be sent.
        """
        async for job in self._taken:
            self._waiting -= 1
            self._scheduler.nudge()
            yield job
        if self._error is not None:
            raise self._error
        stop = self._scheduler.agenda.gate.stop
        if self._stopped and stop is not None:
            raise stop.fresh()

    def close(self) -> None:
        """Nobody takes any more: stop pulling and downloading. What was submitted goes on."""
        for scope in self._scopes:
            scope.cancel()
        for stream in (self._results, self._taken, self._to_fetch):
            stream.close()

    # --- feeding ----------------------------------------------------------------------------------------------------

    async def _feed(self, source: AsyncIterator[GenerationRequest | str]) -> None:
        try:
            with self._scoped():
                await self._pull(source)
        except asyncio.CancelledError:
            self._stopped = True  # the client is closing
            raise
        except Exception as error:
            self._error = error
        finally:
            self._fed = True
            self._finish()

    def _scoped(self) -> anyio.CancelScope:
        scope = anyio.CancelScope()
        self._scopes.append(scope)
        return scope

    async def _pull(self, source: AsyncIterator[GenerationRequest | str]) -> None:
        index = 0
        agenda = self._scheduler.agenda
        while True:
            await self._scheduler.until(lambda: agenda.gate.stop is not None or self._has_room())
            if agenda.gate.stop is not None:
                self._stopped = True
                return
            try:
                request = await anext(source)
            except StopAsyncIteration:
                return
            self._open += 1
            try:
                job = await self._admit(request, index, self._watch)
            except BaseException:
                self._open -= 1
                raise
            self.keys.append(job.key)
            if job.status is JobStatus.PLANNED and job.key in self._scheduler.active:
                self._unsent.add(job.key)
            index += 1

    def _has_room(self) -> bool:
        return self._waiting < BEHIND and self._scheduler.agenda.wants_more(len(self._unsent))

    # --- results ----------------------------------------------------------------------------------------------------

    def _watch(self, job: Job, at_rest: bool) -> None:
        if job.status is not JobStatus.PLANNED or at_rest:
            self._unsent.discard(job.key)
        if not at_rest:
            return
        if isinstance(job.error, SubmissionsStopped) or (job.is_in_flight and job.error is None):
            self._stopped = True
        if self._fetch is not None and job.status is JobStatus.SUCCEEDED and job.file is None:
            try:
                self._to_fetch.send_nowait(job)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._hand_over(job)  # the client is closing: the result stays to be fetched
        else:
            self._hand_over(job)

    def _hand_over(self, job: Job) -> None:
        self._waiting += 1
        self._open -= 1
        try:
            self._results.send_nowait(job)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # nobody takes results any more
        self._finish()

    def _finish(self) -> None:
        if self._fed and not self._open:
            self._results.close()
            self._to_fetch.close()

    async def _download(self, fetches: MemoryObjectReceiveStream[Job]) -> None:
        assert self._fetch is not None  # noqa: S101 - started only then
        with self._scoped(), fetches:
            async for job in fetches:
                done = job
                try:
                    done = await self._fetch(job)
                finally:
                    self._hand_over(done)


def stream(requests: Requests) -> AsyncIterator[GenerationRequest | str]:
    """Any iterable or async iterable of requests, as an async iterator.

    :raises InvalidRequest: if it is a single prompt or request, or cannot be iterated.
    """
    if isinstance(requests, AsyncIterable):
        return aiter(requests)
    if isinstance(requests, str | GenerationRequest) or not isinstance(requests, Iterable):
        raise InvalidRequest(field="requests", value=requests, reason="is no iterable of requests; give a list")
    return _steps(requests)


async def _steps(requests: Iterable[GenerationRequest | str]) -> AsyncIterator[GenerationRequest | str]:
    for request in requests:
        yield request
