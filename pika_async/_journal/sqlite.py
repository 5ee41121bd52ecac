"""The journal in an SQLite file: what it says is kept survives the process and the power; decides nothing about jobs.

One thread writes, and what was asked for while it wrote goes into one commit. Reads take place where they are asked
for, over a connection of their own that never waits for the writer, and see what waits to be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import attrs

from pika_async._journal import queries
from pika_async._journal.change_signal import ChangeSignal
from pika_async._journal.fallback_file import FallbackFile
from pika_async._journal.lock import FileLock
from pika_async._journal.protocol import Intent
from pika_async._journal.reader import Reader
from pika_async._journal.schema import create, inspect_file, open_reader, open_writer, unusable
from pika_async._journal.serialization import is_later, line_of, record_of
from pika_async._journal.write_buffer import WriteOp
from pika_async.errors import JournalFailed, strip_control
from pika_async.jobs import Job, archive_key
from pika_async.logs import about, log_job
from pika_async.polling import DurationSample

__all__ = ["SqliteJournal"]

T = TypeVar("T")

_log = logging.getLogger("pika_async.journal")


class SqliteJournal(Reader):
    """Jobs in the file `path`, of one owner at a time; see `Journal` for the calls, and `Reader` for its reads.

    Nothing is opened before `open`; a journal that is not open can be read, also while another process owns it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._rescue = FallbackFile(self._real)
        self._thread: ThreadPoolExecutor | None = None
        self._closing: Future[None] | None = None
        self._scheduled = False
        self._held = contextlib.ExitStack()
        self._bell = ChangeSignal()
        self._writer: sqlite3.Connection
        #: The number of the latest change that is committed; of the thread.
        self._number = 0

    async def open(self) -> None:
        """See `Journal`."""
        thread = ThreadPoolExecutor(1, "pika_async-journal")
        opening = thread.submit(self._acquire)
        try:
            held = await _outcome(opening)
        except asyncio.CancelledError:
            # Left early, the thread may still succeed: then it lets go again, and only then may another try.
            await _outcome(thread.submit(lambda: None if opening.exception() else opening.result().close()))
            raise
        finally:
            if not opening.done() or opening.exception():
                thread.shutdown(wait=False)
        self._held, self._thread, self._closing = held, thread, None

    async def close(self) -> None:
        """See `Journal`. What cannot be written is rescued and logged, not raised."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._closing = thread.submit(self._release)
            self._closing.add_done_callback(lambda _: self._bell.set())
            thread.shutdown(wait=False)
        if self._closing is not None:
            await _outcome(self._closing)

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; whether all that was asked for is committed. Not a coroutine: for an exit."""
        if self._thread is None:
            return not self._pending.unsaved
        try:
            self._thread.submit(self._drain).result(timeout)
        except TimeoutError:
            return False
        return not self._pending.unsaved

    @property
    def is_whole(self) -> bool:
        """Whether everything that it was told is committed, as far as was tried."""
        return not self._pending.unsaved

    async def record_intent(self, job: Job, intent: Intent) -> None:
        """See `Journal`."""
        await self._add(WriteOp(jobs={job.key: job}, intent=intent))

    async def save(self, *jobs: Job) -> None:
        """See `Journal`."""
        await self._add(WriteOp(jobs={job.key: job for job in jobs}))

    def save_later(self, job: Job) -> None:
        """See `Journal`."""
        if self._thread is not None:
            self._pending.save_later(job)
            if self._bell.has_waiters:
                self._schedule()

    def add_sample(self, observation: DurationSample) -> None:
        """See `Journal`."""
        if self._thread is not None:
            self._pending.add(WriteOp(sample=observation))

    async def archive(self, job: Job) -> Job:
        """See `Journal`."""
        archived = attrs.evolve(job, key=archive_key(job.key, self))
        await self._add(WriteOp(jobs={job.key: None, archived.key: archived}, moved=job.key))
        return archived

    async def set_setting(self, name: str, value: Any) -> None:
        """See `Journal`."""
        await self._add(WriteOp(setting=(name, json.dumps(value))))

    async def changes(self, after: int) -> list[tuple[int, Job]]:
        """See `Journal`."""
        await asyncio.sleep(0)  # however much there is, others have their turn
        with self._bell.subscribe() as rung:
            while True:
                rung.clear()
                is_over = self._thread is None and (self._closing is None or self._closing.done())
                found = self._changes_behind(after)
                if found or is_over:
                    return found
                self._schedule()  # what was noted while nobody listened
                await rung.wait()

    def _schedule(self) -> None:
        """See that what is pending is written."""
        if self._thread is not None and not self._scheduled:
            self._scheduled = True
            self._thread.submit(self._drain)

    async def _add(self, operation: WriteOp) -> None:
        """Queue it, see that it is written, and wait for that."""
        if self._thread is None:
            self._log_lost(operation, "it is not open")  # nor is it ours: nothing is written beside it
            raise self._failure(operation, "it is not open")
        self._pending.add(operation)
        self._schedule()
        await _outcome(operation.done)

    def _failure(self, operation: WriteOp, reason: str) -> JournalFailed:
        provider = next((job.provider for job in operation.written), "")
        return JournalFailed(provider=provider, reason=reason, path=str(self.path), rescued=operation.rescued)

    # What follows runs in the thread.

    def _acquire(self) -> contextlib.ExitStack:
        """Take the file and open it; what was taken is let go again where that fails."""
        held = contextlib.ExitStack()
        try:
            self._own(held)
            self._writer = held.enter_context(contextlib.closing(open_writer(self._real)))
            self._number = queries.newest_revision(self._writer)
            self._take_in()
            self._pending.forget_rescued()
            self._reader = open_reader(self._real)
            held.callback(self._stop_reading)
        except BaseException:
            held.close()
            raise
        return held

    def _own(self, held: contextlib.ExitStack) -> None:
        try:
            if not FileLock.was_here(self._real):
                inspect_file(self._real)  # a file of someone else gets no lock beside it
            held.callback(FileLock(self._real).close)
            if not inspect_file(self._real):
                create(self._real)
        except OSError as error:
            reason = f"cannot be made or locked: {error.strerror}; mend that or give another file"
            raise unusable(self._real, reason) from None

    def _stop_reading(self) -> None:
        with self._reading:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    def _release(self) -> None:
        try:
            self._drain()
            if not self._pending.unsaved:
                self._rescue.remove()
        finally:
            self._held.close()

    def _drain(self) -> None:
        """Write all that waits; never raises."""
        self._scheduled = False
        group = self._pending.take()
        if group:
            self._store(group)

    def _store(self, group: list[WriteOp]) -> None:
        try:
            self._commit(group)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, (OSError, sqlite3.OperationalError)):
                for operation in group:  # a value that no column can hold fails alone
                    self._store([operation])
            else:
                self._refuse(group, error)
            return
        self._pending.saved(group)
        self._bell.set()
        if any(operation.rescued for operation in group) and not self._pending.unsaved:
            self._rescue.clear()
        for operation in group:
            if not operation.done.done():
                operation.done.set_result(None)

    def _commit(self, group: list[WriteOp]) -> None:
        with queries.transaction(self._writer) as connection:
            number = self._number
            for operation in group:
                number = self._write(connection, operation, number)
        self._number = number  # only now: what was rolled back has taken no number

    def _write(self, connection: sqlite3.Connection, operation: WriteOp, number: int) -> int:
        for job in operation.written:
            if operation.moved is not None:
                queries.move(connection, operation.moved, job.key)
            number = queries.put(connection, job, operation.intent, self._folder, number)
        if operation.setting is not None:
            queries.insert_setting(connection, *operation.setting)
        if operation.sample is not None:
            queries.insert_sample(connection, operation.sample)
        return number

    def _refuse(self, group: list[WriteOp], error: Exception) -> None:
        """Save what can be saved elsewhere, and tell whoever waits; what was told before is only kept."""
        fresh = [operation for operation in group if not operation.done.done()]
        lost = [operation for operation in fresh if operation.intent is None and operation.written]
        lines = [line_of(job, operation.moved, self._folder) for operation in lost for job in operation.written]
        place = self._rescue.add(lines) if lines else None
        for operation in lost:
            operation.rescued = None if place is None else str(place)
            self._log_lost(operation, error)
        self._pending.refused(group)
        for operation in fresh:
            operation.done.set_exception(self._failure(operation, str(error)))

    def _log_lost(self, operation: WriteOp, reason: object) -> None:
        for job in operation.written:
            words = (strip_control(job.key), job.status, strip_control(job.task_id or "-"), self._real, reason)
            where = f"it is in {operation.rescued}" if operation.rescued else "it is nowhere else"
            _log.critical("job %s (%s, task %s) is not in the journal %s: %s; %s", *words, where, extra=about(job))

    def _take_in(self) -> None:
        """Take in what was rescued before: each record that is later than what is stored."""
        broken, number = False, self._number
        try:
            with queries.transaction(self._writer) as connection:
                for line in self._rescue.read():
                    try:
                        job, was = record_of(line, self._folder)
                    except Exception:  # torn, or of a stranger
                        broken = True
                    else:
                        number = self._accept(connection, job, was, number)
            self._number = number
            if not broken or self._rescue.set_aside():
                self._rescue.clear()
        except (sqlite3.Error, OSError) as error:
            reason = f"cannot take in {self._rescue.path}: {error}; mend that, then open it again"
            raise unusable(self._real, reason) from None

    def _accept(self, connection: sqlite3.Connection, job: Job, was: str | None, number: int) -> int:
        stored = queries.select_job(connection, job.key)
        if was is not None and stored is None:
            queries.move(connection, was, job.key)
            stored = queries.select_job(connection, job.key)
        if stored is None or is_later(job, self._job(stored)):
            number = queries.put(connection, job, None, self._folder, number)
            log_job(_log, logging.WARNING, job, "taken in from what was rescued")
        return number


async def _outcome(work: Future[T]) -> T:
    """The result of `work` of the thread; whoever leaves early leaves it alone."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(told.set)

    work.add_done_callback(tell)
    await told.wait()
    return work.result()
