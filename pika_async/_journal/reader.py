"""What an SQLite journal says: read where it is asked for, over a connection that never waits for whoever writes.

Every read sees what waits to be written, but that of changes, which tells only of what is committed. Writes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pika_async._journal import queries
from pika_async._journal.protocol import Intent
from pika_async._journal.schema import open_reader, unusable
from pika_async._journal.serialization import intent_from_row, job_from_row
from pika_async._journal.write_buffer import WriteBuffer
from pika_async.errors import shorten
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.polling.durations import DurationSample

__all__ = ["Reader"]


class Reader:
    """The reads of the journal at `path`; see `Journal` for the calls.

    Each raises `JournalUnusable` for a file that is no sound journal, and for a record that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        #: The file, absolute. A job's `file` in its folder is stored relative to that, so that the folder can be moved.
        self.path: Path | None = Path(os.path.abspath(path))  # noqa: PTH100 - pathlib would follow links first
        self._folder = self.path.parent
        #: The same whatever the link: what is locked, and what the side files are named after.
        self._real_path = Path(os.path.realpath(path))
        self._buffer = WriteBuffer()
        self._read_connection: sqlite3.Connection | None = None
        self._read_lock = threading.Lock()

    def get_setting(self, name: str) -> Any:
        """See `Journal`."""
        text = self._buffer.setting(name)
        if text is None:
            with self._connection() as connection:
                text = None if connection is None else queries.select_setting(connection, name)
        return None if text is None else json.loads(text)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def get(self, key: str) -> Job | None:
        """See `Journal`."""
        pending, job = self._buffer.find_job(key)
        if pending:
            return job
        with self._connection() as connection:
            row = None if connection is None else queries.select_job(connection, key)
        return None if row is None else self._decode(row)

    def key_for_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        """See `Journal`."""
        view = self._buffer.view()
        wanted = (provider, base_url, task_id)
        for job in reversed([job for job in view.jobs.values() if job is not None]):
            if (job.provider, job.base_url, job.task_id) == wanted:
                return job.key
        with self._connection() as connection:
            keys = [] if connection is None else queries.select_keys_for_task(connection, *wanted)
        return next((key for key in keys if key not in view.stale_keys), None)

    def job_for_token(self, callback_sha256: str) -> Job | None:
        """See `Journal`."""
        follow = self._buffer.token_resolver(callback_sha256)
        with self._connection() as connection:
            stored = None if connection is None else queries.select_key_for_token(connection, callback_sha256)
        key = follow(stored)
        return None if key is None else self.get(key)

    def keys(self) -> list[str]:
        """See `Journal`."""
        view = self._buffer.view()
        with self._connection() as connection:
            stored = [] if connection is None else queries.select_keys(connection)
        kept = dict.fromkeys(key for key in stored if key not in view.previous_keys)
        return list(kept | dict.fromkeys(key for key, job in view.jobs.items() if job is not None))

    def all(self, status: JobStatus | None = None) -> Iterator[Job]:
        """See `Journal`. Jobs are read some hundreds at a time: one that is kept meanwhile is given as it then is."""
        for job, _ in self._iterate(status):
            yield job

    def interrupted_jobs(self) -> list[tuple[Job, Intent]]:
        """See `Journal`."""
        none = Intent(at=utc_from_timestamp(0), body_sha256="")
        found = self._iterate(JobStatus.SUBMITTING)
        return [(job, self._buffer.intent(job.key) or intent or none) for job, intent in found]

    def _iterate(self, status: JobStatus | None) -> Iterator[tuple[Job, Intent | None]]:
        position = 0
        while True:
            view = self._buffer.view()
            with self._connection() as connection:
                rows = [] if connection is None else queries.select_page(connection, position, status, view.jobs)
                if not rows:
                    stored = (
                        set() if connection is None else queries.select_existing_keys(connection, view.jobs, position)
                    )
                    break
            for row in rows:
                if row["key"] not in view.previous_keys:
                    job = view.jobs.get(row["key"]) or self._decode(row)
                    if status is None or job.status is status:
                        yield job, intent_from_row(row)
            position = rows[-1]["position"]
        for key, waiting in view.jobs.items():
            if waiting is not None and key not in stored - view.previous_keys and status in {None, waiting.status}:
                yield waiting, None

    def count(self, status: JobStatus) -> int:
        """See `Journal`."""
        view = self._buffer.view()
        with self._connection() as connection:
            stored = 0 if connection is None else queries.count_status(connection, status, view.stale_keys)
        return stored + sum(job.status is status for job in view.jobs.values() if job is not None)

    def charges(self) -> int:
        """See `Journal`."""
        view = self._buffer.view()
        with self._connection() as connection:
            stored = 0 if connection is None else queries.count_charges(connection, view.stale_keys)
        return stored + sum(job.may_be_charged for job in view.jobs.values() if job is not None)

    def samples(self) -> list[DurationSample]:
        """See `Journal`."""
        waiting = self._buffer.samples()
        with self._connection() as connection:
            stored = [] if connection is None else queries.select_samples(connection)
        return queries.latest_samples(stored + waiting)

    @property
    def revision(self) -> int:
        """See `Journal`."""
        with self._connection() as connection:
            return 0 if connection is None else queries.latest_revision(connection)

    def _committed_changes(self, after: int) -> list[tuple[int, Job]]:
        """The next changes that are committed; see `Journal.changes`."""
        with self._connection() as connection:
            rows = [] if connection is None else queries.select_changes(connection, after)
        return [(row["revision"], self._decode(row)) for row in rows]

    def _decode(self, row: dict[str, Any]) -> Job:
        try:
            return job_from_row(row, self._folder)
        except Exception as error:  # whatever was written over it
            reason = (
                f"holds a record of job {shorten(row['key'])} that cannot be read ({type(error).__name__}: {error})"
            )
            raise unusable(self._real_path, f"{reason}; restore a copy of it") from None

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection | None]:
        """The reader, or one for this moment; None where there is no journal yet."""
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
