"""Every sentence in which the journal speaks to its database, over a connection that it is given."""
# ruff: noqa: S608 - sentences are put together from constants of this file, values are bound

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from pika_async._journal.protocol import MAX_CHANGES, Intent
from pika_async._journal.schema import SAMPLES_PER_STRATUM
from pika_async._journal.serialization import JOB_COLUMNS, job_to_row, request_to_json
from pika_async.jobs import FINAL, Job, JobStatus
from pika_async.polling.durations import DurationSample

__all__ = [
    "count_charges",
    "count_status",
    "insert_sample",
    "insert_setting",
    "latest_revision",
    "latest_samples",
    "rename_job",
    "select_changes",
    "select_existing_keys",
    "select_job",
    "select_key_for_token",
    "select_keys",
    "select_keys_for_task",
    "select_page",
    "select_samples",
    "select_setting",
    "transaction",
    "upsert_job",
]  # fmt: skip

#: Jobs that are read at once while all of them are walked.
PAGE_ROWS: Final = 500
#: Characters of requests after which no further change is read at once: whoever follows shares the loop.
MAX_CHANGES_CHARS: Final = 1 << 20

_ASSIGNMENTS: Final = ", ".join(f"{name} = :{name}" for name in JOB_COLUMNS)
#: An intent replaces the one before as a whole: the token of a submission that was not the latest names no job.
_INTENT_COLUMNS: Final = ("intended_at", "body_sha256", "callback_sha256")
#: The number that it has where this is no change, else the next; see `is_change`.
_NEXT_REVISION: Final = (
    "iif(status = :status AND (progress IS :progress AND error IS :error OR status IN "
    f"({', '.join(repr(str(it)) for it in sorted(FINAL))})), revision, :revision)"
)
_UPDATE_JOB: Final = f"UPDATE jobs SET {_ASSIGNMENTS}, revision = {_NEXT_REVISION} WHERE key = :key RETURNING revision"
_UPDATE_WITH_INTENT: Final = _UPDATE_JOB.replace(
    "SET", f"SET {', '.join(f'{name} = :{name}' for name in _INTENT_COLUMNS)},"
)
_ALL_COLUMNS: Final = ("key", *JOB_COLUMNS, *_INTENT_COLUMNS, "revision")
_INSERT_JOB: Final = (
    f"INSERT INTO jobs ({', '.join(_ALL_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _ALL_COLUMNS)})"
)
#: A record whose request is gone is read all the same, so that the job can be named.
_SELECT_JOBS: Final = "SELECT jobs.*, request FROM jobs LEFT JOIN requests USING (position)"
_SAMPLE_COLUMNS: Final = "stratum, lower, upper, progress_age, progress, accepted_at"
#: What `Job.may_be_charged` says.
_MAY_BE_CHARGED: Final = "(task_id IS NOT NULL OR submitted_at IS NOT NULL OR status = 'submitting')"


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing. IMMEDIATE: a transaction that begins to write later may find that it cannot any more."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


def upsert_job(connection: sqlite3.Connection, job: Job, intent: Intent | None, folder: Path, revision: int) -> int:
    """Write a job: a new one at the end, a known one without its request, which stays.

    `number` is that of the latest change; the one after this.
    """
    values = job_to_row(job, intent, folder) | {"revision": revision + 1}
    updated = connection.execute(_UPDATE_JOB if intent is None else _UPDATE_WITH_INTENT, values).fetchall()
    if not updated:
        position = connection.execute(_INSERT_JOB, values).lastrowid
        connection.execute("INSERT INTO requests VALUES (?, ?)", (position, request_to_json(job.request)))
        return revision + 1
    return max(revision, int(updated[0][0]))


def rename_job(connection: sqlite3.Connection, previous_key: str, key: str) -> None:
    """Give the job `previous_key` another key and the last position."""
    found = connection.execute("SELECT position FROM jobs WHERE key = ?", (previous_key,)).fetchone()
    if found is not None:
        (last,) = connection.execute("SELECT max(position) FROM jobs").fetchone()
        connection.execute("UPDATE jobs SET key = ?, position = ? WHERE key = ?", (key, last + 1, previous_key))
        connection.execute("UPDATE requests SET position = ? WHERE position = ?", (last + 1, found[0]))


def insert_sample(connection: sqlite3.Connection, seen: DurationSample) -> None:
    """Add a duration."""
    row = (seen.stratum, seen.lower, seen.upper, seen.progress_age, seen.progress, seen.accepted_at)
    connection.execute(f"INSERT INTO samples ({_SAMPLE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)


def select_samples(connection: sqlite3.Connection) -> list[DurationSample]:
    """All that are kept, in the order of settling."""
    rows = connection.execute(f"SELECT {_SAMPLE_COLUMNS} FROM samples ORDER BY id")
    return [DurationSample(**dict(zip(_SAMPLE_COLUMNS.split(", "), row, strict=True))) for row in rows]


def latest_samples(observations: list[DurationSample]) -> list[DurationSample]:
    """At most `WINDOW` of each stratum, the latest accepted, in that order."""
    counts: Counter[str] = Counter()
    kept = []
    for seen in sorted(observations, key=lambda seen: seen.accepted_at)[::-1]:
        counts[seen.stratum] += 1
        if counts[seen.stratum] <= SAMPLES_PER_STRATUM:
            kept.append(seen)
    return kept[::-1]


def insert_setting(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Set a fact, in place of what it was."""
    connection.execute(
        "INSERT INTO settings VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value)
    )


def select_setting(connection: sqlite3.Connection, name: str) -> str | None:
    """The JSON of a fact."""
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def _rows(cursor: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def _all_rows(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    return list(_rows(cursor))


def select_job(connection: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    """The row of a job."""
    rows = _all_rows(connection.execute(f"{_SELECT_JOBS} WHERE key = ?", (key,)))
    return rows[0] if rows else None


def select_keys_for_task(connection: sqlite3.Connection, provider: str, base_url: str, task_id: str) -> list[str]:
    """The keys that have a task id, the latest first."""
    where = "WHERE provider = ? AND base_url = ? AND task_id = ?"
    rows = connection.execute(f"SELECT key FROM jobs {where} ORDER BY position DESC", (provider, base_url, task_id))
    return [key for (key,) in rows]


def select_key_for_token(connection: sqlite3.Connection, callback_sha256: str) -> str | None:
    """The key of the job whose latest submission carried that token."""
    rows = connection.execute("SELECT key FROM jobs WHERE callback_sha256 = ?", (callback_sha256,))
    return next((key for (key,) in rows), None)


def latest_revision(connection: sqlite3.Connection) -> int:
    """The number of the latest change; 0 if there is none."""
    (number,) = connection.execute("SELECT coalesce(max(revision), 0) FROM jobs").fetchone()
    return int(number)


def select_changes(connection: sqlite3.Connection, after: int) -> list[dict[str, Any]]:
    """The next rows behind a change, in the order of changes; fewer where their requests hold whole images."""
    found, size = [], 0
    sentence = f"{_SELECT_JOBS} WHERE revision > ? ORDER BY revision LIMIT {MAX_CHANGES}"
    with contextlib.closing(connection.execute(sentence, (after,))) as rows:
        for row in _rows(rows):
            found.append(row)
            size += len(row["request"] or "")
            if size >= MAX_CHANGES_CHARS:
                break
    return found


def select_keys(connection: sqlite3.Connection) -> list[str]:
    """Every key in the order of positions."""
    return [key for (key,) in connection.execute("SELECT key FROM jobs ORDER BY position")]


def select_page(
    connection: sqlite3.Connection, after: int, status: JobStatus | None, also: Collection[str]
) -> list[dict[str, Any]]:
    """The next rows behind a position: of a status, and those of the keys `also`, or all."""
    if status is None:
        return _all_rows(
            connection.execute(f"{_SELECT_JOBS} WHERE position > ? ORDER BY position LIMIT {PAGE_ROWS}", (after,))
        )
    where = "position > ? AND (status = ? OR key IN (SELECT value FROM json_each(?)))"
    values = (after, status.value, json.dumps(list(also)))
    return _all_rows(connection.execute(f"{_SELECT_JOBS} WHERE {where} ORDER BY position LIMIT {PAGE_ROWS}", values))


def select_existing_keys(connection: sqlite3.Connection, keys: Collection[str], until: int) -> set[str]:
    """Those of `keys` that have a row up to a position."""
    if not keys:
        return set()
    where = "position <= ? AND key IN (SELECT value FROM json_each(?))"
    return {k for (k,) in connection.execute(f"SELECT key FROM jobs WHERE {where}", (until, json.dumps(list(keys))))}


def count_status(connection: sqlite3.Connection, status: JobStatus, besides: Collection[str]) -> int:
    """How many jobs are of a status, those of the keys `besides` apart."""
    where = "status = ? AND key NOT IN (SELECT value FROM json_each(?))"
    values = (status.value, json.dumps(list(besides)))
    (count,) = connection.execute(f"SELECT count(*) FROM jobs WHERE {where}", values).fetchone()
    return int(count)


def count_charges(connection: sqlite3.Connection, besides: Collection[str]) -> int:
    """How many jobs may be charged, those of the keys `besides` apart."""
    where = f"{_MAY_BE_CHARGED} AND key NOT IN (SELECT value FROM json_each(?))"
    (count,) = connection.execute(f"SELECT count(*) FROM jobs WHERE {where}", (json.dumps(list(besides)),)).fetchone()
    return int(count)
