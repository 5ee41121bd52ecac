"""Reads of a cluster for its live board, over connections of its own. Writes nothing and takes no lock."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import attrs
import sqlalchemy as sa

from pika_async._http.media import MEDIA_SUFFIXES
from pika_async._journal.protocol import MAX_STATES, JobState
from pika_async.engines import job_reads, shared_statements
from pika_async.engines.cluster_stats import ClusterAccount, ClusterWorker
from pika_async.engines.database import Database
from pika_async.errors import ClusterUnusable
from pika_async.jobs import Job
from pika_async.polling.durations import DurationSample

__all__ = ["ClusterReader"]

#: Seconds between two reads of the workers and the accounts.
OVERVIEW_S: Final = 2.0


class ClusterReader:
    """Reader of the jobs of a cluster by their changes; see `ChangeReader` of the board for the calls.

    Only what has changed is read again. Each call blocks: in an event loop, use a thread.

    :param database_url: the address of the database, which must have its tables already.
    :raises ClusterUnusable: if `database_url` cannot be one; from each call, if it cannot be read at this moment.
    """

    def __init__(self, database_url: str) -> None:
        self._database = Database(database_url)  # for its address and its errors: it never connects
        self._engine = _reading_engine(self._database.url)
        #: The workers and the accounts as they were last read.
        self.workers: list[ClusterWorker] = []
        self.accounts: dict[str, ClusterAccount] = {}
        self._overview_at: float | None = None
        #: Connection of the read under way.
        self._connection: sa.Connection | None = None

    @property
    def text(self) -> str:
        """The address of the database without its password."""
        return self._database.text

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep one connection for the reads of the block; read the workers and the accounts if that is due."""
        with self._connected() as connection:
            self._connection = connection
            try:
                if self._overview_at is None or time.monotonic() - self._overview_at >= OVERVIEW_S:
                    self.workers = [ClusterWorker.of(row) for row in shared_statements.select_workers(connection)]
                    rows = shared_statements.select_accounts(connection)
                    self.accounts = {name: ClusterAccount.of(row) for name, row in rows.items() if name}
                    self._overview_at = time.monotonic()
                yield
            finally:
                self._connection = None

    def committed_states(self, after: int) -> list[tuple[int, JobState]]:
        """Return the states of the jobs that changed after the revision `after`, the earliest first."""
        return job_reads.select_states(self._current, after, MAX_STATES)

    def committed_jobs(self, keys: Collection[str]) -> Iterator[Job]:
        """Iterate over the jobs with `keys`. A file that is not on this machine is one that is stored elsewhere."""
        for job, _ in job_reads.select_jobs(self._current, keys):
            yield job if job.file is None or _is_here(job.file) else _elsewhere(job)

    def committed_downloads(self, keys: Collection[str]) -> Mapping[str, tuple[Path | str, datetime | None] | None]:  # noqa: ARG002
        """Return nothing: a download is a change of its job here."""
        return {}

    def samples(self) -> list[DurationSample]:
        """Return the last accepted duration samples of each stratum."""
        with self._connected() as connection:
            return shared_statements.select_samples(connection)[1]

    @property
    def _current(self) -> sa.Connection:
        assert self._connection is not None, "see `reading`"  # noqa: S101
        return self._connection

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            reason = f"{self.text} cannot be read: {self._database.failure(error).reason}"
            raise ClusterUnusable(setting="database", reason=reason) from None


def _is_here(file: Path) -> bool:
    """Return whether `file` can be shown: no row of a database makes the board serve a file of another kind."""
    with contextlib.suppress(OSError):
        return file.suffix in MEDIA_SUFFIXES and file.is_file()
    return False


def _elsewhere(job: Job) -> Job:
    return attrs.evolve(job, file=None, object_url=str(job.file))


def _reading_engine(url: sa.URL) -> sa.Engine:
    """Return an engine whose statements are transactions of their own, so that none waits for another's."""
    if url.get_backend_name() != "sqlite":
        options = {"application_name": "pika_async board", "connect_timeout": 10}
        return sa.create_engine(
            url, pool_size=1, max_overflow=-1, pool_pre_ping=True, isolation_level="AUTOCOMMIT",
            connect_args=options,
        )  # fmt: skip
    address = f"file:{quote(url.database or '')}?mode=ro"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=30.0)

    return sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool)
