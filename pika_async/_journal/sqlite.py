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
import weakref
from collections.abc import Container
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import attrs

from pika_async._journal import queries
from pika_async._journal.change_signal import ChangeSignal
from pika_async._journal.displacement import Notice, rescue_database
from pika_async._journal.fallback_file import FallbackFile
from pika_async._journal.lock import FileDisplacedError, FileLock, Progress, read_progress
from pika_async._journal.marks import mark_closed
from pika_async._journal.opening import open_files, require_none_due
from pika_async._journal.protocol import Intent, Upload
from pika_async._journal.reader import Reader
from pika_async._journal.recovery import Recovery
from pika_async._journal.schema import open_reader
from pika_async._journal.serialization import job_to_line
from pika_async._journal.write_buffer import WriteOp
from pika_async._journal.write_schedule import WriteSchedule
from pika_async._planning.resolution import archive_key
from pika_async.errors import JournalFailed, strip_control
from pika_async.jobs import Job
from pika_async.logs import about
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
        self._schedule = WriteSchedule(self._submit_write)
        self._resources = contextlib.ExitStack()
        self._change_signal = ChangeSignal()
        # The fields below are used in the writer thread.
        self._write_connection: sqlite3.Connection
        self._lock: FileLock
        #: The random number of the journal.
        self._journal_id = ""
        #: The number of the latest committed change.
        self._revision = 0
        #: Whether the database file has everything that was planned before the first intent.
        self._is_checkpointed = False
        #: Number of operations of a failed group that are still to be written one by one.
        self._unwritten = 0
        #: Whether the file was found moved, removed or replaced.
        self._is_displaced = False

    async def open(self) -> None:
        """See `Journal`."""
        self._require_own_process()
        self._schedule.cancel()  # timers of an earlier loop
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
        self._opened_by = os.getpid()

    async def close(self) -> None:
        """See `Journal`. Jobs that cannot be written go to the fallback file and are logged; nothing is raised.

        In a forked child nothing is done: the files belong to the process that opened them.
        """
        if self._is_forked:
            return
        self._schedule.cancel()
        if self._executor is not None:
            executor, self._executor = self._executor, None
            self._closing = executor.submit(self._close_files)
            self._closing.add_done_callback(lambda _: self._change_signal.notify())
            executor.shutdown(wait=False)
        if self._closing is not None:
            await _result_of(self._closing)
            self._opened_by = None

    def require_none_due(self) -> None:
        """Require that a new journal may be made where there is none. Blocks for the time of reading two small files.

        :raises JournalUnusable: if there must be one, which was moved or removed while it was open.
        """
        path = self._real_path
        if path.parent.is_dir() and not path.exists():
            require_none_due(path, Recovery.read(path, self._fallback), read_progress(path))

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the queued writes; return whether all of them are committed.

        Blocks the thread: for use at the exit of the process, after the event loop has ended.
        """
        self._require_own_process()
        if self._executor is None:
            return self.is_saved
        try:
            self._executor.submit(self._write_all).result(timeout)
        except TimeoutError:
            return False
        return self.is_saved

    @property
    def is_displaced(self) -> bool:
        """Whether the file was found moved, removed or replaced when it was last written."""
        return self._is_displaced

    @property
    def is_saved(self) -> bool:
        """Whether every write that was attempted so far has been committed, to the file at the journal's path."""
        return not self._buffer.has_failed_writes and not self._unwritten and not self._is_displaced

    async def record_intent(self, job: Job, intent: Intent) -> None:
        """See `Journal`."""
        await self._write_and_wait(WriteOp(jobs={job.key: job}, intent=intent))

    async def save(self, *jobs: Job, linger: bool = False) -> None:
        """See `Journal`."""
        await self._write_and_wait(WriteOp(jobs={job.key: job for job in jobs}), linger=linger)

    def save_later(self, job: Job) -> None:
        """See `Journal`."""
        self._require_own_process()
        if self._executor is not None:
            self._buffer.save_later(job)
            if self._change_signal.has_waiters:
                self._schedule.write_all()
            else:
                self._schedule.write_late()

    def retain(self, keys: Container[str]) -> None:
        """See `Journal`. Nothing is forgotten."""

    def add_sample(self, sample: DurationSample) -> None:
        """See `Journal`."""
        self._require_own_process()
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

    async def save_upload(self, upload: Upload) -> None:
        """See `Journal`."""
        await self._write_and_wait(WriteOp(upload=upload))

    async def changes(self, after: int) -> list[tuple[int, Job]]:
        """See `Journal`."""
        await asyncio.sleep(0)  # other tasks get a turn between two pages, however many changes there are
        with self._change_signal.subscribe() as changed:
            while True:
                changed.clear()
                is_over = self._executor is None and (self._closing is None or self._closing.done())
                found = self.committed_changes(after)
                if found or is_over:
                    return found
                self._schedule.write_all()  # `save_later` schedules a write only while a reader waits
                await changed.wait()

    def _submit_write(self) -> None:
        if self._executor is not None:
            self._executor.submit(self._write_pending)

    async def _write_and_wait(self, operation: WriteOp, *, linger: bool = False) -> None:
        """Queue `operation` and wait until it is committed.

        :param linger: see `Journal.save`.
        :raises JournalFailed: if it could not be committed, or the journal is not open.
        """
        if self._executor is None or self._is_forked:
            # Without the lock the fallback file must not be written either: it may belong to another client.
            reason = self._forked_reason if self._is_forked else "it is not open"
            self._log_unsaved(operation, reason)
            raise self._journal_failed(operation, reason)
        self._buffer.add(operation)
        if linger:
            self._schedule.linger()
        else:
            self._schedule.write()
        await _result_of(operation.done)

    def _journal_failed(self, operation: WriteOp, reason: str) -> JournalFailed:
        provider = next((job.provider for job in operation.jobs_to_write), "")
        path, fallback = str(self.path), operation.fallback_file
        return JournalFailed(provider=provider, reason=reason, path=path, fallback_file=fallback)

    # The methods below run in the writer thread.

    def _open_files(self) -> contextlib.ExitStack:
        """Open the files; return what closes them. If a step fails, undo those before it."""
        resources = contextlib.ExitStack()
        try:
            files = open_files(self._real_path, self._folder, self._fallback, resources)
            self._lock, self._write_connection, self._journal_id = files.lock, files.connection, files.journal
            self._revision = files.revision
            self._is_checkpointed = self._is_displaced = False
            self._close_reader()  # of a displaced file
            self._buffer.discard_fallback_copies()
            self._read_connection = open_reader(self._real_path)
            resources.callback(self._close_reader)
        except BaseException:
            resources.close()
            raise
        return resources

    def _close_reader(self) -> None:
        """Close the connection of reads, unless only that still leads to the journal."""
        if self._is_displaced and self._read_connection is not None:
            weakref.finalize(self, self._read_connection.close)
            return
        with self._read_lock:
            connection, self._read_connection = self._read_connection, None
            if connection is not None:
                connection.close()

    def _close_files(self) -> None:
        try:
            self._write_all()
            self._write_group([])  # notice a displaced file, even if nothing was left to write
            if self.is_saved:
                self._fallback.remove()
            if self.is_saved or self._is_displaced:
                with contextlib.suppress(sqlite3.Error):
                    self._lock.is_clean = mark_closed(self._write_connection) and not self._is_displaced
        finally:
            self._resources.close()

    def _write_pending(self) -> None:
        """Write what is due; never raises."""
        self._write_taken(late=self._schedule.take())

    def _write_all(self) -> None:
        """Write everything in the buffer; never raises."""
        self._schedule.take()
        self._write_taken(late=True)

    def _write_taken(self, *, late: bool) -> None:
        group = self._buffer.take(late=late)
        if group:
            self._write_group(group)

    def _write_group(self, group: list[WriteOp]) -> None:
        try:
            self._lock.check()
            self._is_displaced = False  # it may have been put back
            self._commit(group)
        except FileDisplacedError as error:
            self._on_displaced(group, error)
            return
        except Exception as error:
            if len(group) > 1 and not isinstance(error, (OSError, sqlite3.OperationalError)):
                for self._unwritten, operation in zip(range(len(group))[::-1], group, strict=True):
                    self._write_group([operation])  # one by one, so that a value no column can hold fails alone
            else:
                self._on_commit_failed(group, error)
            return
        self._buffer.on_committed(group)
        self._change_signal.notify()
        if any(operation.fallback_file for operation in group) and self.is_saved:
            self._fallback.clear()
        for operation in group:
            if not operation.done.done():
                operation.done.set_result(None)

    def _commit(self, group: list[WriteOp]) -> None:
        if not group:
            return
        if not self._is_checkpointed and any(operation.intent is not None for operation in group):
            # What was planned is in the database file before the first submission, also if the log is lost.
            self._write_connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._is_checkpointed = True
        try:
            with queries.transaction(self._write_connection) as connection:
                revision = self._revision
                for operation in group:
                    revision = queries.execute(connection, operation, self._folder, revision)
                self._lock.record(Progress(self._revision, revision))  # before the commit: see `Progress`
            self._revision = revision  # only after the commit, so that a rolled back write uses no number
        finally:
            self._lock.record(Progress(self._revision, self._revision))

    def _on_commit_failed(self, group: list[WriteOp], error: Exception) -> None:
        """Write the jobs to the fallback file and fail the waiting calls.

        Operations whose failure was reported before are only kept for the next attempt.
        """
        new = [operation for operation in group if not operation.done.done()]
        unsaved = [operation for operation in new if operation.intent is None and operation.jobs_to_write]
        lines = [
            job_to_line(job, operation.previous_key, self._folder, self._journal_id)
            for operation in unsaved
            for job in operation.jobs_to_write
            if _was_sent(job)
        ]
        file = self._fallback.append(lines) if lines else None
        for operation in unsaved:
            operation.fallback_file = None if file is None else str(file)
            self._log_unsaved(operation, error)
        self._buffer.on_commit_failed(group)
        for operation in new:
            operation.done.set_exception(self._journal_failed(operation, str(error)))

    def _on_displaced(self, group: list[WriteOp], error: FileDisplacedError) -> None:
        """Keep what can be kept: in the file that is still open, and in the fallback file. Intents are dropped.

        The first time a notice is written, so that the path is not opened without this journal.
        """
        held = [operation for operation in group if operation.intent is None]
        with contextlib.suppress(Exception):  # a value that no column can hold fails in any way
            self._commit(held)
        if not self._is_displaced:
            self._is_displaced = True
            is_removed = not self._lock.database_status.st_nlink
            copy = rescue_database(self._write_connection, self._real_path) if is_removed else None
            notice = Notice(
                journal=self._journal_id, revision=self._revision, displaced=str(error), pid=os.getpid(),
                copy=None if copy is None else str(copy),
            )  # fmt: skip
            file = self._fallback.append([notice.to_line()])
            saved = "" if copy is None else f"; a whole copy is {copy}"
            noted = "" if file is None else f"; see {file}"
            _log.critical("the journal %s %s%s; nothing more is sent%s", self._real_path, error, saved, noted)
        self._on_commit_failed(group, error)

    def _log_unsaved(self, operation: WriteOp, reason: object) -> None:
        for job in filter(_was_sent, operation.jobs_to_write):
            task_id = strip_control(job.task_id or "-")
            words = (strip_control(job.key), job.status, task_id, self._real_path, reason)
            where = f"it is in {operation.fallback_file}" if operation.fallback_file else "it is nowhere else"
            _log.critical("job %s (%s, task %s) is not in the journal %s: %s; %s", *words, where, extra=about(job))


def _was_sent(job: Job) -> bool:
    """Whether a record of `job` matters without its request: one that was never sent is sent by the next run."""
    return job.attempts > 0 or job.may_be_charged


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
