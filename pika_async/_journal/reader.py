"""Reads of an SQLite journal, over a connection that never waits for the writer. Writes nothing.

Every read sees the pending writes of the buffer, except the read of changes, which returns committed jobs only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pika_async._journal import queries
from pika_async._journal.protocol import Intent, JobState, Upload
from pika_async._journal.samples import latest_samples
from pika_async._journal.schema import open_reader, unusable
from pika_async._journal.serialization import (
    JOB_COLUMNS,
    download_from_row,
    intent_from_row,
    job_from_row,
    state_from_row,
)
from pika_async._journal.write_buffer import WriteBuffer
from pika_async.errors import shorten
from pika_async.jobs import SENT_UNFINISHED, Job, JobStatus, utc_from_timestamp
from pika_async.polling.durations import DurationSample

__all__ = ["Reader"]


class Reader:
    """Read half of `SqliteJournal`; see `Journal` for the calls.

    :raises JournalUnusable: from each read, if the file is not a sound journal or a record cannot be decoded.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        #: The file, absolute. A job's `file` in its folder is stored relative to that, so that the folder can be moved.
        self.path: Path | None = Path(os.path.abspath(path))  # noqa: PTH100 - pathlib would follow links first
        self._folder = self.path.parent
        #: The file behind all links, which is locked and whose name the side files share: two links are one journal.
        self._real_path = Path(os.path.realpath(path))
        self._buffer = WriteBuffer()
        self._read_connection: sqlite3.Connection | None = None
        self._read_lock = threading.Lock()
        #: The process that has the journal open; None while it is not open.
        self._opened_by: int | None = None

    @property
    def _is_forked(self) -> bool:
        """Whether this process was forked from the one that has the journal open."""
        return self._opened_by not in {None, os.getpid()}

    @property
    def _forked_reason(self) -> str:
        way_out = "make a client in each process, with a journal of its own"
        return f"it was opened in process {self._opened_by}, before this one was forked; {way_out}"

    def _require_own_process(self) -> None:
        """Require that this process has not inherited an open journal.

        :raises JournalUnusable: if it has.
        """
        if self._is_forked:
            raise unusable(self._real_path, f"cannot be used here: {self._forked_reason}")

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """See `Journal`. The connection is idle between two reads, so that it is in no writer's way."""
        self._require_own_process()
        kept = None
        with self._read_lock:
            if self._read_connection is None:
                try:
                    kept = self._read_connection = open_reader(self._real_path)
                except sqlite3.Error as error:
                    raise unusable(self._real_path, f"cannot be read: {error}; restore a copy of it") from None
        try:
            yield
        finally:
            with self._read_lock:
                if kept is not None and self._read_connection is kept:  # else it was opened meanwhile
                    self._read_connection = None
                    kept.close()

    def get_setting(self, name: str) -> Any:
        """See `Journal`."""
        text = self._buffer.setting(name)
        if text is None:
            with self._connection() as connection:
                text = None if connection is None else queries.select_setting(connection, name)
        return None if text is None else json.loads(text)

    def get_upload(self, sha256: str) -> Upload | None:
        """See `Journal`."""
        pending = self._buffer.upload(sha256)
        if pending is not None:
            return pending
        with self._connection() as connection:
            return None if connection is None else queries.select_upload(connection, sha256)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        is_pending, job = self._buffer.find_job(key)
        if is_pending:
            return job is not None
        with self._connection() as connection:
            return connection is not None and queries.has_key(connection, key)

    def get(self, key: str) -> Job | None:
        """See `Journal`."""
        is_pending, job = self._buffer.find_job(key)
        if is_pending:
            return job
        with self._connection() as connection:
            row = None if connection is None else queries.select_job(connection, key)
        return None if row is None else self._decode(row)

    def key_for_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        """See `Journal`."""
        pending = self._buffer.view()
        task = (provider, base_url, task_id)
        for job in reversed([job for job in pending.jobs.values() if job is not None]):
            if (job.provider, job.base_url, job.task_id) == task:
                return job.key
        with self._connection() as connection:
            keys = [] if connection is None else queries.select_keys_for_task(connection, *task)
        return next((key for key in keys if key not in pending.stale_keys), None)

    async def find_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        """See `Journal`. No other process has jobs."""
        return self.key_for_task(provider, base_url, task_id)

    def key_for_token(self, callback_sha256: str) -> str | None:
        """See `Journal`."""
        resolve = self._buffer.token_resolver(callback_sha256)
        with self._connection() as connection:
            stored = None if connection is None else queries.select_key_for_token(connection, callback_sha256)
        return resolve(stored)

    def keys(self) -> Iterator[str]:
        """See `Journal`."""
        return (key for page in self._pages(()) for _, key in page)

    def all(self, *statuses: JobStatus) -> Iterator[Job]:
        """See `Journal`. A job is returned as it was at most `ROWS_AT_ONCE` jobs earlier, or as it is to be written."""
        for page in self._pages(statuses):
            rest = page
            while rest:
                with self._connection() as connection:
                    rows = [None] if connection is None else queries.select_rows(connection, rest)
                for (_, key), row in zip(rest, rows, strict=False):
                    is_pending, job = self._buffer.find_job(key)
                    if not is_pending and row is not None:
                        job = self._decode(row)
                    if job is not None and (not statuses or job.status in statuses):
                        yield job
                rest = rest[len(rows) :]

    def _pages(self, statuses: Sequence[JobStatus]) -> Iterator[list[tuple[int | None, str]]]:
        """Iterate over the positions and keys of the stored jobs, a page at a time, then of those without a row yet."""
        position = 0
        while True:
            pending = self._buffer.view()
            keys = [key for key, job in pending.jobs.items() if job and (not statuses or job.status in statuses)]
            with self._connection() as connection:
                page = [] if connection is None else queries.select_key_page(connection, position, statuses, keys)
                if not page:
                    stored = set() if connection is None else queries.select_existing_keys(connection, keys, position)
                    break
            yield [(at, key) for at, key in page if key not in pending.previous_keys]
            position = page[-1][0]
        yield [(None, key) for key in keys if key not in stored - pending.previous_keys]

    def interrupted_jobs(self) -> list[tuple[Job, Intent]]:
        """See `Journal`."""
        unrecorded = Intent(at=utc_from_timestamp(0), body_sha256="")
        return [(job, self.intent(job.key) or unrecorded) for job in self.all(JobStatus.SUBMITTING)]

    def intent(self, key: str) -> Intent | None:
        """See `Journal`."""
        pending = self._buffer.intent(key)
        if pending is not None:
            return pending
        with self._connection() as connection:
            row = None if connection is None else queries.select_intent(connection, key)
        return None if row is None else intent_from_row(row)

    def count(self, status: JobStatus) -> int:
        """See `Journal`."""
        pending = self._buffer.view()
        with self._connection() as connection:
            stored = 0 if connection is None else queries.count_status(connection, status, pending.stale_keys)
        return stored + sum(job.status is status for job in pending.jobs.values() if job is not None)

    def unfinished_by_account(self) -> Counter[str]:
        """See `Journal`."""
        pending = self._buffer.view()
        with self._connection() as connection:
            found: Counter[str] = Counter()
            if connection is not None:
                found = queries.count_unfinished(connection, pending.stale_keys)
        jobs = (job for job in pending.jobs.values() if job is not None and job.status in SENT_UNFINISHED)
        found.update(job.account_and_cost[0] for job in jobs)
        return found

    def charges(self) -> int:
        """See `Journal`."""
        pending = self._buffer.view()
        with self._connection() as connection:
            stored = 0 if connection is None else queries.count_charges(connection, pending.stale_keys)
        return stored + sum(job.may_be_charged for job in pending.jobs.values() if job is not None)

    def costs(self) -> Counter[tuple[str, float | None]]:
        """See `Journal`."""
        pending = self._buffer.view()
        with self._connection() as connection:
            found = Counter() if connection is None else queries.count_costs(connection, pending.stale_keys)
        found.update(job.account_and_cost for job in pending.jobs.values() if job is not None and job.may_be_charged)
        return found

    def samples(self) -> list[DurationSample]:
        """See `Journal`."""
        pending = self._buffer.samples()
        with self._connection() as connection:
            stored = [] if connection is None else queries.select_samples(connection)
        return latest_samples(stored + pending)

    @property
    def revision(self) -> int:
        """See `Journal`."""
        with self._connection() as connection:
            return 0 if connection is None else queries.latest_revision(connection)

    def committed_changes(self, after: int) -> list[tuple[int, Job]]:
        """Return the next committed changes without waiting; see `Journal.changes`."""
        with self._connection() as connection:
            rows = [] if connection is None else queries.select_changes(connection, after)
        return [(row["revision"], self._decode(row)) for row in rows]

    def committed_states(self, after: int) -> list[tuple[int, JobState]]:
        """Return the states of the jobs with the next committed changes, as `committed_changes` does for whole jobs."""
        with self._connection() as connection:
            rows = [] if connection is None else queries.select_states(connection, after)
        return [(revision, state_from_row(key, status, at)) for revision, key, status, at in rows]

    def committed_jobs(self, keys: Collection[str]) -> Iterator[Job]:
        """Iterate over the committed jobs with `keys`, in any order. Reads no pending write; see `reading`."""
        with self._connection() as connection:
            for row in () if connection is None else queries.iterate_rows(connection, keys):
                yield self._decode(row)

    def committed_downloads(self, keys: Collection[str]) -> dict[str, tuple[Path | str, datetime | None] | None]:
        """Return those of `keys` whose committed job has a file or an error.

        :return: the file, or the URL of the object, and the time of the download by key; None for a job with an error.
        """
        with self._connection() as connection:
            rows = [] if connection is None else queries.select_downloads(connection, keys)
        return {
            key: None if has_error or file is None else download_from_row(file, at, self._folder)
            for key, file, at, has_error in rows
        }

    def _decode(self, row: dict[str, Any]) -> Job:
        try:
            return job_from_row(row, self._folder)
        except Exception as error:  # a damaged value may fail in any way
            raise unusable(self._real_path, _unreadable(row, error)) from None

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection | None]:
        """Yield the open connection, or a new one that is closed after the block; None if there is no journal yet."""
        self._require_own_process()
        try:
            with self._read_lock:
                if self._read_connection is not None:
                    yield self._read_connection
                    return
            connection = open_reader(self._real_path)
            with contextlib.nullcontext() if connection is None else contextlib.closing(connection):
                yield connection
        except sqlite3.Error as error:
            raise unusable(self._real_path, f"cannot be read: {error}; restore a copy of it") from None


def _unreadable(row: Mapping[str, Any], error: Exception) -> str:
    """Return that the record of a job cannot be read, and the way out."""
    key = shorten(row["key"])
    if missing := [name for name in JOB_COLUMNS if name not in row]:
        lacks = f"has no {missing[0]} for job {key}, as a development version of pika_async left it"
        return f"{lacks}: finish it with that version, or start a new folder"
    cause = f" ({shorten(str(error))})" if type(error) is ValueError else ""
    return f"holds a record of job {key} that cannot be read{cause}; restore a copy of it"
