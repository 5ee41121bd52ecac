"""Worker threads that write the files of downloads. Files that are due together share a turn and a sync.

Does no network I/O, and decides nothing about a download.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import anyio
import attrs

from pika_async._http.download_state import AbortDownload
from pika_async._http.partial_file import Download, PartialFile, TargetFolders

__all__ = ["FileThreads"]

T = TypeVar("T")

#: More would not make a disk faster.
MAX_THREADS: Final = 4
#: Most files in one turn: each of them is open at once.
MAX_GROUP: Final = 16


@attrs.define(eq=False)
class _LastSteps:
    """The end of one file: its sync, its name, or both."""

    partial: PartialFile
    finish: bool
    publish: bool
    done: asyncio.Future[None]
    error: Exception | None = None

    def take(self, step: Callable[[], object]) -> None:
        """Take a step, unless an earlier one has failed; keep its error."""
        if self.error is None:
            try:
                step()
            except Exception as error:
                self.error = error

    def report(self) -> None:
        """Report the end of the steps to their task."""
        if self.error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(self.error)


class FileThreads:
    """Pool of threads of its own, which leaves asyncio's threads to name resolution.

    :param folders: what is known of the folders of the files.
    """

    def __init__(self, folders: TargetFolders) -> None:
        self._folders = folders
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="pika-download")
        #: The write of each file that is being written.
        self._writes: dict[PartialFile, asyncio.Future[None]] = {}
        self._due: list[_LastSteps] = []
        #: Number of turns with last steps that run.
        self._turns = 0
        self._is_scheduled = False

    def close(self) -> None:
        """End the threads. Who started a call must have waited for it."""
        self._pool.shutdown(wait=False)

    async def write(self, partial: PartialFile) -> None:
        """Begin to write what `partial` has buffered, as soon as its previous write has ended.

        :raises AbortDownload: if the previous write failed.
        """
        await self._written(partial)
        self._writes[partial] = self._call(functools.partial(partial.write, partial.take()))

    async def finish(self, partial: PartialFile) -> str:
        """Write the rest of the file and sync it; return its SHA-256.

        :raises AbortDownload: if it cannot be written.
        """
        await self._written(partial)
        await self._take(partial, finish=True, publish=False)
        return partial.sha256

    async def publish(self, partial: PartialFile, *, finish: bool = False) -> Download:
        """Give the file its name, and sync the folder.

        :param finish: whether to finish it first, in the same turn.
        :raises AbortDownload: if it cannot be written, or if another file has its name.
        """
        await self._written(partial)
        await self._take(partial, finish=finish, publish=True)
        return partial.download

    async def discard(self, partial: PartialFile) -> None:
        """Remove the partial file, if there is one, after its last write has ended."""
        canceled: asyncio.CancelledError | None = None
        try:
            await self._written(partial)
        except asyncio.CancelledError as error:  # the file is removed first
            canceled = error
        except Exception:  # noqa: S110 - the download has failed already
            pass
        self._writes.pop(partial, None)
        if partial.is_created:
            await _ended(self._call(partial.discard))
        if canceled is not None:
            raise canceled

    async def _written(self, partial: PartialFile) -> None:
        write = self._writes.get(partial)
        if write is not None:
            await _ended(write)
            del self._writes[partial]

    def _call(self, call: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def _take(self, partial: PartialFile, *, finish: bool, publish: bool) -> None:
        loop = asyncio.get_running_loop()
        steps = _LastSteps(partial, finish, publish, loop.create_future())
        self._due.append(steps)
        if not self._is_scheduled:  # those that come due in one turn of the loop go together
            self._is_scheduled = True
            loop.call_soon(self._start)
        await _ended(steps.done)

    def _start(self) -> None:
        """Pass on what is due, unless every thread has last steps; then it shares the turn of the first that ends."""
        self._is_scheduled = False
        loop = asyncio.get_running_loop()
        while self._due and self._turns < MAX_THREADS:
            group, self._due = self._due[:MAX_GROUP], self._due[MAX_GROUP:]
            self._turns += 1
            self._pool.submit(self._run, group, functools.partial(loop.call_soon_threadsafe, self._end, group))

    def _end(self, group: list[_LastSteps]) -> None:
        self._turns -= 1
        for steps in group:
            steps.report()
        self._start()

    def _run(self, group: list[_LastSteps], end: Callable[[], object]) -> None:
        """Take the steps of `group`, then sync each folder once: before the end of its files is reported."""
        finishing = [steps for steps in group if steps.finish]
        for steps in finishing:
            steps.take(steps.partial.complete)
        if len(finishing) > 1:  # the disk writes all of them at once, where each sync would write one and wait for it
            for steps in finishing:
                steps.take(steps.partial.start_flush)
        for steps in finishing:
            steps.take(steps.partial.sync)
        publishing = [steps for steps in group if steps.publish]
        for steps in publishing:
            steps.take(steps.partial.publish)
        named = [steps for steps in publishing if steps.error is None]
        for folder in {steps.partial.target.parent for steps in named}:
            self._sync(folder, named)
        end()

    def _sync(self, folder: Path, named: list[_LastSteps]) -> None:
        try:
            self._folders.sync(folder)
        except Exception as error:
            for steps in named:
                if steps.partial.target.parent == folder:
                    steps.error = error


async def _ended(work: asyncio.Future[T]) -> T:
    """Wait until `work` has ended in its thread, and return its result.

    A cancellation is raised only then; otherwise the thread could create a file after the clean-up.

    :raises AbortDownload: if `work` raises an OSError.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError as error:
        canceled = error
        with anyio.CancelScope(shield=True):
            while not work.done():
                try:
                    await asyncio.wait([work])
                except asyncio.CancelledError as again:
                    canceled = again
        work.exception()  # mark as retrieved, or asyncio would log it
        raise canceled from None
    except OSError as error:
        raise AbortDownload(f"the file cannot be written: {error.strerror or error}") from None
