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
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import attrs

from pika_async._journal import statements
from pika_async._journal.owner import Owner
from pika_async._journal.pending import Operation, Pending
from pika_async._journal.protocol import Intent
from pika_async._journal.records import intent_of, is_later, job_of, line_of, record_of
from pika_async._journal.rescue import Rescue
from pika_async._journal.schema import create, look, open_reader, open_writer, unusable
from pika_async.errors import JournalFailed, printable, quote
from pika_async.lifecycle import Job, JobStatus, archive_key, instant
from pika_async.logs import about, log_job
from pika_async.polling import Observation

__all__ = ["SqliteJournal"]

T = TypeVar("T")

_log = logging.getLogger("pika_async.journal")


class SqliteJournal:
    """Jobs in the file `path`, of one owner at a time; see `Journal` for the calls.

    Nothing is opened before `open`; a journal that is not open can be read, also while another process owns it. Every
    read raises `JournalUnusable` for a file that is no sound journal, and for a record that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        #: The file, absolute. A job's `file` in its folder is stored relative to that, so that the folder can be moved.
        self.path: Path | None = Path(os.path.abspath(path))  # noqa: PTH100 - pathlib would follow links first
        self._folder = self.path.parent
        #: The same whatever the link: what is locked, and what the side files are named after.
        self._real = Path(os.path.realpath(path))
        self._pending = Pending()
        self._rescue = Rescue(self._real)
        self._thread: ThreadPoolExecutor | None = None
        self._closing: Future[None] | None = None
        self._scheduled = False
        self._held = contextlib.ExitStack()
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()

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

    async def intend(self, job: Job, intent: Intent) -> None:
        """See `Journal`."""
        await self._add(Operation(jobs={job.key: job}, intent=intent))

    async def keep(self, *jobs: Job) -> None:
        """See `Journal`."""
        await self._add(Operation(jobs={job.key: job for job in jobs}))

    def note(self, job: Job) -> None:
        """See `Journal`."""
        if self._thread is not None:
            self._pending.note(job)

    def observe(self, observation: Observation) -> None:
        """See `Journal`."""
        if self._thread is not None:
            self._pending.add(Operation(observation=observation))

    async def archive(self, job: Job) -> Job:
        """See `Journal`."""
        archived = attrs.evolve(job, key=archive_key(job.key, self))
        await self._add(Operation(jobs={job.key: None, archived.key: archived}, moved=job.key))
        return archived

    async def remember(self, name: str, value: Any) -> None:
        """See `Journal`."""
        await self._add(Operation(fact=(name, json.dumps(value))))

    def recall(self, name: str) -> Any:
        """See `Journal`."""
        text = self._pending.fact(name)
        if text is None:
            with self._connection() as connection:
                text = None if connection is None else statements.select_fact(connection, name)
        return None if text is None else json.loads(text)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def get(self, key: str) -> Job | None:
        """See `Journal`."""
        pending, job = self._pending.job(key)
        if pending:
            return job
        with self._connection() as connection:
            row = None if connection is None else statements.select_job(connection, key)
        return None if row is None else self._job(row)

    def holder(self, provider: str, base_url: str, task_id: str) -> str | None:
        """See `Journal`."""
        view = self._pending.view()
        wanted = (provider, base_url, task_id)
        for job in reversed([job for job in view.jobs.values() if job is not None]):
            if (job.provider, job.base_url, job.task_id) == wanted:
                return job.key
        with self._connection() as connection:
            keys = [] if connection is None else statements.select_holder(connection, *wanted)
        return next((key for key in keys if key not in view.keys), None)

    def addressed(self, callback_sha256: str) -> Job | None:
        """See `Journal`."""
        follow = self._pending.addressed(callback_sha256)
        with self._connection() as connection:
            stored = None if connection is None else statements.select_addressed(connection, callback_sha256)
        key = follow(stored)
        return None if key is None else self.get(key)

    def keys(self) -> list[str]:
        """See `Journal`."""
        view = self._pending.view()
        with self._connection() as connection:
            stored = [] if connection is None else statements.select_keys(connection)
        kept = dict.fromkeys(key for key in stored if key not in view.moved)
        return list(kept | dict.fromkeys(key for key, job in view.jobs.items() if job is not None))

    def all(self, status: JobStatus | None = None) -> Iterator[Job]:
        """See `Journal`. Jobs are read some hundreds at a time: one that is kept meanwhile is given as it then is."""
        for job, _ in self._walk(status):
            yield job

    def interrupted(self) -> list[tuple[Job, Intent]]:
        """See `Journal`."""
        none = Intent(at=instant(0), body_sha256="")
        found = self._walk(JobStatus.SUBMITTING)
        return [(job, self._pending.intent(job.key) or intent or none) for job, intent in found]

    def _walk(self, status: JobStatus | None) -> Iterator[tuple[Job, Intent | None]]:
        position = 0
        while True:
            view = self._pending.view()
            with self._connection() as connection:
                rows = [] if connection is None else statements.select_page(connection, position, status, view.jobs)
                if not rows:
                    stored = set() if connection is None else statements.select_stored(connection, view.jobs, position)
                    break
            for row in rows:
                if row["key"] not in view.moved:
                    job = view.jobs.get(row["key"]) or self._job(row)
                    if status is None or job.status is status:
                        yield job, intent_of(row)
            position = rows[-1]["position"]
        for key, waiting in view.jobs.items():
            if waiting is not None and key not in stored - view.moved and status in {None, waiting.status}:
                yield waiting, None

    def charges(self) -> int:
        """See `Journal`."""
        view = self._pending.view()
        with self._connection() as connection:
            stored = 0 if connection is None else statements.count_charges(connection, view.keys)
        return stored + sum(job.may_be_charged for job in view.jobs.values() if job is not None)

    def observations(self) -> list[Observation]:
        """See `Journal`."""
        waiting = self._pending.observations()
        with self._connection() as connection:
            stored = [] if connection is None else statements.select_observations(connection)
        return statements.newest(stored + waiting)

    def _job(self, row: dict[str, Any]) -> Job:
        try:
            return job_of(row, self._folder)
        except Exception as error:  # whatever was written over it
            reason = f"holds a record of job {quote(row['key'])} that cannot be read ({type(error).__name__}: {error})"
            raise unusable(self._real, f"{reason}; restore a copy of it") from None

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection | None]:
        """The reader, or one for this moment; None where there is no journal yet."""
        try:
            with self._reading:
                if self._reader is not None:
                    yield self._reader
                    return
            connection = open_reader(self._real)
            with contextlib.nullcontext() if connection is None else contextlib.closing(connection):
                yield connection
        except sqlite3.Error as error:
            raise unusable(self._real, f"cannot be read: {error}; restore a copy of it") from None

    async def _add(self, operation: Operation) -> None:
        """Queue it, see that it is written, and wait for that."""
        if self._thread is None:
            self._log_lost(operation, "it is not open")  # nor is it ours: nothing is written beside it
            raise self._failure(operation, "it is not open")
        self._pending.add(operation)
        if not self._scheduled:
            self._scheduled = True
            self._thread.submit(self._drain)
        await _outcome(operation.done)

    def _failure(self, operation: Operation, reason: str) -> JournalFailed:
        provider = next((job.provider for job in operation.written), "")
        return JournalFailed(provider=provider, reason=reason, path=str(self.path), rescued=operation.rescued)

    # What follows runs in the thread.

    def _acquire(self) -> contextlib.ExitStack:
        """Take the file and open it; what was taken is let go again where that fails."""
        held = contextlib.ExitStack()
        try:
            self._own(held)
            self._writer = held.enter_context(contextlib.closing(open_writer(self._real)))
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
            if not Owner.was_here(self._real):
                look(self._real)  # a file of someone else gets no lock beside it
            held.callback(Owner(self._real).close)
            if not look(self._real):
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

    def _store(self, group: list[Operation]) -> None:
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
        if any(operation.rescued for operation in group) and not self._pending.unsaved:
            self._rescue.clear()
        for operation in group:
            if not operation.done.done():
                operation.done.set_result(None)

    def _commit(self, group: list[Operation]) -> None:
        with statements.transaction(self._writer) as connection:
            for operation in group:
                self._write(connection, operation)

    def _write(self, connection: sqlite3.Connection, operation: Operation) -> None:
        for job in operation.written:
            if operation.moved is not None:
                statements.move(connection, operation.moved, job.key)
            statements.put(connection, job, operation.intent, self._folder)
        if operation.fact is not None:
            statements.insert_fact(connection, *operation.fact)
        if operation.observation is not None:
            statements.insert_observation(connection, operation.observation)

    def _refuse(self, group: list[Operation], error: Exception) -> None:
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

    def _log_lost(self, operation: Operation, reason: object) -> None:
        for job in operation.written:
            words = (printable(job.key), job.status, printable(job.task_id or "-"), self._real, reason)
            where = f"it is in {operation.rescued}" if operation.rescued else "it is nowhere else"
            _log.critical("job %s (%s, task %s) is not in the journal %s: %s; %s", *words, where, extra=about(job))

    def _take_in(self) -> None:
        """Take in what was rescued before: each record that is later than what is stored."""
        broken = False
        try:
            with statements.transaction(self._writer) as connection:
                for line in self._rescue.read():
                    try:
                        job, was = record_of(line, self._folder)
                    except Exception:  # torn, or of a stranger
                        broken = True
                    else:
                        self._accept(connection, job, was)
            if not broken or self._rescue.set_aside():
                self._rescue.clear()
        except (sqlite3.Error, OSError) as error:
            reason = f"cannot take in {self._rescue.path}: {error}; mend that, then open it again"
            raise unusable(self._real, reason) from None

    def _accept(self, connection: sqlite3.Connection, job: Job, was: str | None) -> None:
        stored = statements.select_job(connection, job.key)
        if was is not None and stored is None:
            statements.move(connection, was, job.key)
            stored = statements.select_job(connection, job.key)
        if stored is None or is_later(job, self._job(stored)):
            statements.put(connection, job, None, self._folder)
            log_job(_log, logging.WARNING, job, "taken in from what was rescued")


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
