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
from pika_async._journal.schema import create_file, inspect_file, open_reader, open_writer, unusable
from pika_async._journal.serialization import is_later, job_from_line, job_to_line
from pika_async._journal.write_buffer import WriteOp
from pika_async.errors import JournalFailed, strip_control
from pika_async.jobs import Job, archive_key
from pika_async.logs import about, log_job
from pika_async.polling.durations import DurationSample

__all__ = ["SqliteJournal"]

T = TypeVar("T")

_log = logging.getLogger("pika_async.journal")


class SqliteJournal(Reader):
    """Jobs in the file `path`, of one owner at a time; see `Journal` for the calls, and `Reader` for its reads.

    Nothing is opened before `open`; a journal that is not open can be read, also while another process owns it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._fallback = FallbackFile(self._real_path)
        self._executor: ThreadPoolExecutor | None = None
        self._closing: Future[None] | None = None
        self._is_write_scheduled = False
        self._resources = contextlib.ExitStack()
        self._change_signal = ChangeSignal()
        self._write_connection: sqlite3.Connection
        #: The number of the latest change that is committed; of the thread.
        self._revision = 0

    async def open(self) -> None:
        """See `Journal`."""
        thread = ThreadPoolExecutor(1, "pika_async-journal")
        opening = thread.submit(self._open_files)
        try:
            held = await _result_of(opening)
        except asyncio.CancelledError:
            # Left early, the thread may still succeed: then it lets go again, and only then may another try.
            await _result_of(thread.submit(lambda: None if opening.exception() else opening.result().close()))
            raise
        finally:
            if not opening.done() or opening.exception():
                thread.shutdown(wait=False)
        self._resources, self._executor, self._closing = held, thread, None

    async def close(self) -> None:
        """See `Journal`. What cannot be written is rescued and logged, not raised."""
        if self._executor is not None:
            thread, self._executor = self._executor, None
            self._closing = thread.submit(self._close_files)
            self._closing.add_done_callback(lambda _: self._change_signal.notify())
            thread.shutdown(wait=False)
        if self._closing is not None:
            await _result_of(self._closing)

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; whether all that was asked for is committed. Not a coroutine: for an exit."""
        if self._executor is None:
            return not self._buffer.has_failed_writes
        try:
            self._executor.submit(self._write_pending).result(timeout)
        except TimeoutError:
            return False
        return not self._buffer.has_failed_writes

    @property
    def is_saved(self) -> bool:
        """Whether everything that it was told is committed, as far as was tried."""
        return not self._buffer.has_failed_writes

    async def record_intent(self, job: Job, intent: Intent) -> None:
        """See `Journal`."""
        await self._write_and_wait(WriteOp(jobs={job.key: job}, intent=intent))

    async def save(self, *jobs: Job) -> None:
        """See `Journal`."""
        await self._write_and_wait(WriteOp(jobs={job.key: job for job in jobs}))

    def save_later(self, job: Job) -> None:
        """See `Journal`."""
        if self._executor is not None:
            self._buffer.save_later(job)
            if self._change_signal.has_waiters:
                self._schedule_write()

    def add_sample(self, sample: DurationSample) -> None:
        """See `Journal`."""
        if self._executor is not None:
            self._buffer.add(WriteOp(sample=sample))

    async def archive(self, job: Job) -> Job:
        """See `Journal`."""
        archived = attrs.evolve(job, key=archive_key(job.key, self))
        await self._write_and_wait(WriteOp(jobs={job.key: None, archived.key: archived}, previous_key=job.key))
        return archived

    async def set_setting(self, name: str, value: Any) -> None:
        """See `Journal`."""
        await self._write_and_wait(WriteOp(setting=(name, json.dumps(value))))

    async def changes(self, after: int) -> list[tuple[int, Job]]:
        """See `Journal`."""
        await asyncio.sleep(0)  # however much there is, others have their turn
        with self._change_signal.subscribe() as rung:
            while True:
                rung.clear()
                is_over = self._executor is None and (self._closing is None or self._closing.done())
                found = self._committed_changes(after)
                if found or is_over:
                    return found
                self._schedule_write()  # what was noted while nobody listened
                await rung.wait()

    def _schedule_write(self) -> None:
        """See that what is pending is written."""
        if self._executor is not None and not self._is_write_scheduled:
            self._is_write_scheduled = True
            self._executor.submit(self._write_pending)

    async def _write_and_wait(self, operation: WriteOp) -> None:
        """Queue it, see that it is written, and wait for that."""
        if self._executor is None:
            self._log_unsaved(operation, "it is not open")  # nor is it ours: nothing is written beside it
            raise self._journal_failed(operation, "it is not open")
        self._buffer.add(operation)
        self._schedule_write()
        await _result_of(operation.done)

    def _journal_failed(self, operation: WriteOp, reason: str) -> JournalFailed:
        provider = next((job.provider for job in operation.jobs_to_write), "")
        return JournalFailed(
            provider=provider, reason=reason, path=str(self.path), fallback_file=operation.fallback_file
        )

    # What follows runs in the thread.

    def _open_files(self) -> contextlib.ExitStack:
        """Take the file and open it; what was taken is let go again where that fails."""
        held = contextlib.ExitStack()
        try:
            self._lock_file(held)
            self._write_connection = held.enter_context(contextlib.closing(open_writer(self._real_path)))
            self._revision = queries.latest_revision(self._write_connection)
            self._recover_records()
            self._buffer.discard_fallback_copies()
            self._read_connection = open_reader(self._real_path)
            held.callback(self._close_reader)
        except BaseException:
            held.close()
            raise
        return held

    def _lock_file(self, held: contextlib.ExitStack) -> None:
        try:
            if not FileLock.exists(self._real_path):
                inspect_file(self._real_path)  # a file of someone else gets no lock beside it
            held.callback(FileLock(self._real_path).release)
            if not inspect_file(self._real_path):
                create_file(self._real_path)
        except OSError as error:
            reason = f"cannot be made or locked: {error.strerror}; mend that or give another file"
            raise unusable(self._real_path, reason) from None

    def _close_reader(self) -> None:
        with self._read_lock:
            reader, self._read_connection = self._read_connection, None
            if reader is not None:
                reader.close()

    def _close_files(self) -> None:
        try:
            self._write_pending()
            if not self._buffer.has_failed_writes:
                self._fallback.remove()
        finally:
            self._resources.close()

    def _write_pending(self) -> None:
        """Write all that waits; never raises."""
        self._is_write_scheduled = False
        group = self._buffer.take_all()
        if group:
            self._write_group(group)

    def _write_group(self, group: list[WriteOp]) -> None:
        try:
            self._commit(group)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, (OSError, sqlite3.OperationalError)):
                for operation in group:  # a value that no column can hold fails alone
                    self._write_group([operation])
            else:
                self._on_commit_failed(group, error)
            return
        self._buffer.on_committed(group)
        self._change_signal.notify()
        if any(operation.fallback_file for operation in group) and not self._buffer.has_failed_writes:
            self._fallback.clear()
        for operation in group:
            if not operation.done.done():
                operation.done.set_result(None)

    def _commit(self, group: list[WriteOp]) -> None:
        with queries.transaction(self._write_connection) as connection:
            number = self._revision
            for operation in group:
                number = self._execute(connection, operation, number)
        self._revision = number  # only now: what was rolled back has taken no number

    def _execute(self, connection: sqlite3.Connection, operation: WriteOp, number: int) -> int:
        for job in operation.jobs_to_write:
            if operation.previous_key is not None:
                queries.rename_job(connection, operation.previous_key, job.key)
            number = queries.upsert_job(connection, job, operation.intent, self._folder, number)
        if operation.setting is not None:
            queries.insert_setting(connection, *operation.setting)
        if operation.sample is not None:
            queries.insert_sample(connection, operation.sample)
        return number

    def _on_commit_failed(self, group: list[WriteOp], error: Exception) -> None:
        """Save what can be saved elsewhere, and tell whoever waits; what was told before is only kept."""
        fresh = [operation for operation in group if not operation.done.done()]
        lost = [operation for operation in fresh if operation.intent is None and operation.jobs_to_write]
        lines = [
            job_to_line(job, operation.previous_key, self._folder)
            for operation in lost
            for job in operation.jobs_to_write
        ]
        place = self._fallback.append(lines) if lines else None
        for operation in lost:
            operation.fallback_file = None if place is None else str(place)
            self._log_unsaved(operation, error)
        self._buffer.on_commit_failed(group)
        for operation in fresh:
            operation.done.set_exception(self._journal_failed(operation, str(error)))

    def _log_unsaved(self, operation: WriteOp, reason: object) -> None:
        for job in operation.jobs_to_write:
            words = (strip_control(job.key), job.status, strip_control(job.task_id or "-"), self._real_path, reason)
            where = f"it is in {operation.fallback_file}" if operation.fallback_file else "it is nowhere else"
            _log.critical("job %s (%s, task %s) is not in the journal %s: %s; %s", *words, where, extra=about(job))

    def _recover_records(self) -> None:
        """Take in what was rescued before: each record that is later than what is stored."""
        broken, number = False, self._revision
        try:
            with queries.transaction(self._write_connection) as connection:
                for line in self._fallback.read_lines():
                    try:
                        job, previous_key = job_from_line(line, self._folder)
                    except Exception:  # torn, or of a stranger
                        broken = True
                    else:
                        number = self._recover_record(connection, job, previous_key, number)
            self._revision = number
            if not broken or self._fallback.set_aside():
                self._fallback.clear()
        except (sqlite3.Error, OSError) as error:
            reason = f"cannot take in {self._fallback.path}: {error}; mend that, then open it again"
            raise unusable(self._real_path, reason) from None

    def _recover_record(self, connection: sqlite3.Connection, job: Job, previous_key: str | None, number: int) -> int:
        stored = queries.select_job(connection, job.key)
        if previous_key is not None and stored is None:
            queries.rename_job(connection, previous_key, job.key)
            stored = queries.select_job(connection, job.key)
        if stored is None or is_later(job, self._decode(stored)):
            number = queries.upsert_job(connection, job, None, self._folder, number)
            log_job(_log, logging.WARNING, job, "taken in from what was rescued")
        return number


async def _result_of(work: Future[T]) -> T:
    """The result of `work` of the thread; whoever leaves early leaves it alone."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(told.set)

    work.add_done_callback(tell)
    await told.wait()
    return work.result()
