"""Journal in an SQLite file: what a call has saved survives a crash and a power cut. Makes no decisions about jobs.

One thread writes; everything queued while it wrote goes into its next commit. Reads run in the calling thread, over a
connection of their own that never waits for the writer, and see the queued writes.
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
    """Jobs in the file `path`, opened by one client at a time; see `Journal` for the calls, `Reader` for the reads.

    Nothing is opened or created before `open`. A journal that is not open can be read, also while another process has
    it open.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._fallback = FallbackFile(self._real_path)
        #: The writer thread; None while the journal is not open.
        self._executor: ThreadPoolExecutor | None = None
        self._closing: Future[None] | None = None
        self._is_write_scheduled = False
        self._resources = contextlib.ExitStack()
        self._change_signal = ChangeSignal()
        #: Used only in the writer thread.
        self._write_connection: sqlite3.Connection
        #: The number of the latest committed change. Used only in the writer thread.
        self._revision = 0

    async def open(self) -> None:
        """See `Journal`."""
        executor = ThreadPoolExecutor(1, "pika_async-journal")
        opening = executor.submit(self._open_files)
        try:
            resources = await _result_of(opening)
        except asyncio.CancelledError:
            # The thread may still succeed. Then it closes the files again, before another client may open them.
            await _result_of(executor.submit(lambda: None if opening.exception() else opening.result().close()))
            raise
        finally:
            if not opening.done() or opening.exception():
                executor.shutdown(wait=False)
        self._resources, self._executor, self._closing = resources, executor, None

    async def close(self) -> None:
        """See `Journal`. Jobs that cannot be written go to the fallback file and are logged; nothing is raised."""
        if self._executor is not None:
            executor, self._executor = self._executor, None
            self._closing = executor.submit(self._close_files)
            self._closing.add_done_callback(lambda _: self._change_signal.notify())
            executor.shutdown(wait=False)
        if self._closing is not None:
            await _result_of(self._closing)

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the queued writes; return whether all of them are committed.

        Blocks the thread: for use at the exit of the process, after the event loop has ended.
        """
        if self._executor is None:
            return not self._buffer.has_failed_writes
        try:
            self._executor.submit(self._write_pending).result(timeout)
        except TimeoutError:
            return False
        return not self._buffer.has_failed_writes

    @property
    def is_saved(self) -> bool:
        """Whether every write that was attempted so far has been committed."""
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
        await asyncio.sleep(0)  # other tasks get a turn between two pages, however many changes there are
        with self._change_signal.subscribe() as changed:
            while True:
                changed.clear()
                is_over = self._executor is None and (self._closing is None or self._closing.done())
                found = self._committed_changes(after)
                if found or is_over:
                    return found
                self._schedule_write()  # `save_later` schedules a write only while a reader waits
                await changed.wait()

    def _schedule_write(self) -> None:
        """Let the writer thread commit the buffer, unless that is scheduled already."""
        if self._executor is not None and not self._is_write_scheduled:
            self._is_write_scheduled = True
            self._executor.submit(self._write_pending)

    async def _write_and_wait(self, operation: WriteOp) -> None:
        """Queue `operation` and wait until it is committed.

        :raises JournalFailed: if it could not be committed, or the journal is not open.
        """
        if self._executor is None:
            # Without the lock the fallback file must not be written either: it may belong to another client.
            self._log_unsaved(operation, "it is not open")
            raise self._journal_failed(operation, "it is not open")
        self._buffer.add(operation)
        self._schedule_write()
        await _result_of(operation.done)

    def _journal_failed(self, operation: WriteOp, reason: str) -> JournalFailed:
        provider = next((job.provider for job in operation.jobs_to_write), "")
        path, fallback = str(self.path), operation.fallback_file
        return JournalFailed(provider=provider, reason=reason, path=path, fallback_file=fallback)

    # The methods below run in the writer thread.

    def _open_files(self) -> contextlib.ExitStack:
        """Lock and open the file; return what closes it. If a step fails, undo those before it."""
        resources = contextlib.ExitStack()
        try:
            self._lock_file(resources)
            self._write_connection = resources.enter_context(contextlib.closing(open_writer(self._real_path)))
            self._revision = queries.latest_revision(self._write_connection)
            self._recover_records()
            self._buffer.discard_fallback_copies()
            self._read_connection = open_reader(self._real_path)
            resources.callback(self._close_reader)
        except BaseException:
            resources.close()
            raise
        return resources

    def _lock_file(self, resources: contextlib.ExitStack) -> None:
        try:
            if not FileLock.exists(self._real_path):
                inspect_file(self._real_path)  # first, so that no lock file is made beside a file that is not ours
            resources.callback(FileLock(self._real_path).release)
            if not inspect_file(self._real_path):
                create_file(self._real_path)
        except OSError as error:
            reason = f"cannot be made or locked: {error.strerror}; mend that or give another file"
            raise unusable(self._real_path, reason) from None

    def _close_reader(self) -> None:
        with self._read_lock:
            connection, self._read_connection = self._read_connection, None
            if connection is not None:
                connection.close()

    def _close_files(self) -> None:
        try:
            self._write_pending()
            if not self._buffer.has_failed_writes:
                self._fallback.remove()
        finally:
            self._resources.close()

    def _write_pending(self) -> None:
        """Write everything in the buffer; never raises."""
        self._is_write_scheduled = False
        group = self._buffer.take_all()
        if group:
            self._write_group(group)

    def _write_group(self, group: list[WriteOp]) -> None:
        try:
            self._commit(group)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, (OSError, sqlite3.OperationalError)):
                for operation in group:  # one by one, so that a value no column can hold fails alone
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
            revision = self._revision
            for operation in group:
                revision = self._execute(connection, operation, revision)
        self._revision = revision  # only after the commit, so that a rolled back write uses no number

    def _execute(self, connection: sqlite3.Connection, operation: WriteOp, revision: int) -> int:
        """Execute the statements of `operation`; return the number of the latest change."""
        for job in operation.jobs_to_write:
            if operation.previous_key is not None:
                queries.rename_job(connection, operation.previous_key, job.key)
            revision = queries.upsert_job(connection, job, operation.intent, self._folder, revision)
        if operation.setting is not None:
            queries.insert_setting(connection, *operation.setting)
        if operation.sample is not None:
            queries.insert_sample(connection, operation.sample)
        return revision

    def _on_commit_failed(self, group: list[WriteOp], error: Exception) -> None:
        """Write the jobs to the fallback file and fail the waiting calls.

        Operations whose failure was reported before are only kept for the next attempt.
        """
        new = [operation for operation in group if not operation.done.done()]
        unsaved = [operation for operation in new if operation.intent is None and operation.jobs_to_write]
        lines = [
            job_to_line(job, operation.previous_key, self._folder)
            for operation in unsaved
            for job in operation.jobs_to_write
        ]
        file = self._fallback.append(lines) if lines else None
        for operation in unsaved:
            operation.fallback_file = None if file is None else str(file)
            self._log_unsaved(operation, error)
        self._buffer.on_commit_failed(group)
        for operation in new:
            operation.done.set_exception(self._journal_failed(operation, str(error)))

    def _log_unsaved(self, operation: WriteOp, reason: object) -> None:
        for job in operation.jobs_to_write:
            task_id = strip_control(job.task_id or "-")
            words = (strip_control(job.key), job.status, task_id, self._real_path, reason)
            where = f"it is in {operation.fallback_file}" if operation.fallback_file else "it is nowhere else"
            _log.critical("job %s (%s, task %s) is not in the journal %s: %s; %s", *words, where, extra=about(job))

    def _recover_records(self) -> None:
        """Save each record of the fallback file that is later than the stored one, and clear that file.

        :raises JournalUnusable: if the file cannot be read, or a record cannot be saved.
        """
        has_bad_lines, revision = False, self._revision
        try:
            with queries.transaction(self._write_connection) as connection:
                for line in self._fallback.read_lines():
                    try:
                        job, previous_key = job_from_line(line, self._folder)
                    except Exception:  # incomplete, or not written by a journal
                        has_bad_lines = True
                    else:
                        revision = self._recover_record(connection, job, previous_key, revision)
            self._revision = revision
            if not has_bad_lines or self._fallback.set_aside():
                self._fallback.clear()
        except (sqlite3.Error, OSError) as error:
            reason = (
                f"cannot be completed with the records in {self._fallback.path}: {error}; mend that, then open it again"
            )
            raise unusable(self._real_path, reason) from None

    def _recover_record(self, connection: sqlite3.Connection, job: Job, previous_key: str | None, revision: int) -> int:
        stored = queries.select_job(connection, job.key)
        if previous_key is not None and stored is None:
            queries.rename_job(connection, previous_key, job.key)
            stored = queries.select_job(connection, job.key)
        if stored is None or is_later(job, self._decode(stored)):
            revision = queries.upsert_job(connection, job, None, self._folder, revision)
            log_job(_log, logging.WARNING, job, "recovered from the fallback file")
        return revision


async def _result_of(work: Future[T]) -> T:
    """Wait for `work` of the writer thread and return its result; cancelling the wait does not cancel the work."""
    loop = asyncio.get_running_loop()
    finished = asyncio.Event()

    def notify(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so this call has ended
            loop.call_soon_threadsafe(finished.set)

    work.add_done_callback(notify)
    await finished.wait()
    return work.result()
