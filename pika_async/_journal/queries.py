"""SQL statements of the journal, each a function of a connection. Opens no connection and commits nothing by itself."""
# ruff: noqa: S608 - statements are built from constants of this file, values are bound

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pika_async._journal.contents import add_contents, insert_contents, row_size
from pika_async._journal.migrations import MAY_BE_CHARGED
from pika_async._journal.protocol import MAX_CHANGES, MAX_STATES, Intent, Upload
from pika_async._journal.serialization import JOB_COLUMNS, job_to_row, request_to_json
from pika_async._journal.write_buffer import WriteOp
from pika_async.jobs import FINAL, SENT_UNFINISHED, Job, JobStatus
from pika_async.polling.durations import DurationSample

__all__ = [
    "count_charges",
    "count_costs",
    "count_status",
    "count_unfinished",
    "execute",
    "has_key",
    "insert_sample",
    "insert_setting",
    "insert_upload",
    "iterate_rows",
    "latest_revision",
    "rename_job",
    "select_changes",
    "select_downloads",
    "select_existing_keys",
    "select_intent",
    "select_job",
    "select_key_for_token",
    "select_key_page",
    "select_keys_for_task",
    "select_rows",
    "select_samples",
    "select_setting",
    "select_states",
    "select_upload",
    "transaction",
    "upsert_job",
]  # fmt: skip

#: Keys read at once while jobs are iterated.
PAGE_KEYS: Final = 500
#: Jobs read at once while jobs are iterated.
ROWS_AT_ONCE: Final = 64
#: Characters and bytes of requests after which a read stops: it runs in the event loop, and a request may hold images.
MAX_CHARS: Final = 1 << 20

_ASSIGNMENTS: Final = ", ".join(f"{name} = :{name}" for name in JOB_COLUMNS)
#: An intent replaces all of the previous one, so that only the token of the latest submission finds the job.
_INTENT_COLUMNS: Final = ("intended_at", "body_sha256", "callback_sha256", "repeatable")
_INTENT_ASSIGNMENTS: Final = ", ".join(f"{name} = :{name}" for name in _INTENT_COLUMNS)
#: The row's own revision if the update is not a change, else the next one; the condition is that of `is_change`.
_NEXT_REVISION: Final = (
    "iif(status = :status AND (progress IS :progress AND error IS :error OR status IN "
    f"({', '.join(repr(str(it)) for it in sorted(FINAL))})), revision, :revision)"
)
_UPDATE_WITH_INTENT: Final = (
    f"UPDATE jobs SET {_INTENT_ASSIGNMENTS}, {_ASSIGNMENTS}, revision = {_NEXT_REVISION} "
    "WHERE key = :key RETURNING revision"
)
#: A submission is kept for a repetition only while it is not known what came of it.
_KEEP_REPEATABLE: Final = "repeatable = iif(:status IN ('submitting', 'unknown'), repeatable, NULL)"
_UPDATE_JOB: Final = _UPDATE_WITH_INTENT.replace(_INTENT_ASSIGNMENTS, _KEEP_REPEATABLE)
_ALL_COLUMNS: Final = ("key", *JOB_COLUMNS, *_INTENT_COLUMNS, "revision")
_PLACEHOLDERS: Final = ", ".join(f":{name}" for name in _ALL_COLUMNS)
_INSERT_JOB: Final = f"INSERT INTO jobs ({', '.join(_ALL_COLUMNS)}) VALUES ({_PLACEHOLDERS})"
#: A row without its request is returned too, so that the error about it can name the job.
_SELECT_JOBS: Final = "SELECT jobs.*, request FROM jobs LEFT JOIN requests USING (position)"
_SAMPLE_COLUMNS: Final = "stratum, lower, upper, progress_age, progress, accepted_at"


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commit all statements of the block, or none of them if it raises.

    IMMEDIATE, because a deferred transaction takes its write lock only at its first write, where taking it may fail.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite rolls back by itself when the disk is full
            connection.execute("ROLLBACK")
        raise


def upsert_job(connection: sqlite3.Connection, job: Job, intent: Intent | None, folder: Path, revision: int) -> int:
    """Insert `job` at the last position, or update its row; an update leaves the request as it is.

    :param folder: the journal's folder; files inside it are stored relative to it.
    :param revision: the number of the latest change; returned, or the next number if this is a change.
    """
    row = job_to_row(job, intent, folder) | {"revision": revision + 1}
    updated = connection.execute(_UPDATE_JOB if intent is None else _UPDATE_WITH_INTENT, row).fetchall()
    if not updated:
        position = connection.execute(_INSERT_JOB, row).lastrowid
        connection.execute("INSERT INTO requests VALUES (?, ?)", (position, request_to_json(job.request)))
        insert_contents(connection, job.request)
        return revision + 1
    return max(revision, int(updated[0][0]))


def rename_job(connection: sqlite3.Connection, previous_key: str, key: str) -> None:
    """Give the job `previous_key`, if it exists, the key `key` and the last position."""
    found = connection.execute("SELECT position FROM jobs WHERE key = ?", (previous_key,)).fetchone()
    if found is not None:
        (last,) = connection.execute("SELECT max(position) FROM jobs").fetchone()
        connection.execute("UPDATE jobs SET key = ?, position = ? WHERE key = ?", (key, last + 1, previous_key))
        connection.execute("UPDATE requests SET position = ? WHERE position = ?", (last + 1, found[0]))


def execute(connection: sqlite3.Connection, operation: WriteOp, folder: Path, revision: int) -> int:
    """Execute the statements of `operation`; return the number of the latest change.

    :param folder: the folder that files of jobs are relative to.
    :param revision: the number of the latest change before.
    """
    for job in operation.jobs_to_write:
        if operation.previous_key is not None:
            rename_job(connection, operation.previous_key, job.key)
        revision = upsert_job(connection, job, operation.intent, folder, revision)
    if operation.setting is not None:
        insert_setting(connection, *operation.setting)
    if operation.upload is not None:
        insert_upload(connection, operation.upload)
    if operation.sample is not None:
        insert_sample(connection, operation.sample)
    return revision


def insert_sample(connection: sqlite3.Connection, sample: DurationSample) -> None:
    """Insert a duration sample."""
    row = (
        sample.stratum, sample.lower, sample.upper, sample.progress_age, sample.progress, sample.accepted_at,
    )  # fmt: skip
    connection.execute(f"INSERT INTO samples ({_SAMPLE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)


def select_samples(connection: sqlite3.Connection) -> list[DurationSample]:
    """Return all samples, in the order of settling."""
    rows = connection.execute(f"SELECT {_SAMPLE_COLUMNS} FROM samples ORDER BY id")
    return [DurationSample(**dict(zip(_SAMPLE_COLUMNS.split(", "), row, strict=True))) for row in rows]


def insert_setting(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Insert or replace the JSON text of a setting."""
    connection.execute(
        "INSERT INTO settings VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value)
    )


def select_setting(connection: sqlite3.Connection, name: str) -> str | None:
    """Return the JSON text of a setting; None if it is not set."""
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def insert_upload(connection: sqlite3.Connection, upload: Upload) -> None:
    """Insert or replace the address of a content."""
    connection.execute(
        "INSERT INTO uploads VALUES (?, ?, ?) "
        "ON CONFLICT DO UPDATE SET url = excluded.url, uploaded_at = excluded.uploaded_at",
        (upload.sha256, upload.url, upload.at.isoformat()),
    )


def select_upload(connection: sqlite3.Connection, sha256: str) -> Upload | None:
    """Return the address of a content; None if there is none."""
    row = connection.execute("SELECT url, uploaded_at FROM uploads WHERE sha256 = ?", (sha256,)).fetchone()
    return None if row is None else Upload(sha256=sha256, url=row[0], at=datetime.fromisoformat(row[1]))


def _rows(cursor: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def _all_rows(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    return list(_rows(cursor))


def select_job(connection: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    """Return the row of a job; None if there is none."""
    rows = _all_rows(connection.execute(f"{_SELECT_JOBS} WHERE key = ?", (key,)))
    return add_contents(connection, rows[0]) if rows else None


def has_key(connection: sqlite3.Connection, key: str) -> bool:
    """Return whether a job has that key."""
    return connection.execute("SELECT 1 FROM jobs WHERE key = ?", (key,)).fetchone() is not None


def select_rows(connection: sqlite3.Connection, page: Sequence[tuple[int | None, str]]) -> list[dict[str, Any] | None]:
    """Return the rows of the first jobs of `page`, each given by its position, None for any, and its key.

    At most `ROWS_AT_ONCE` rows; fewer once their requests hold `MAX_CHARS` characters and bytes. A row is None if the
    job has left that position.
    """
    found: list[dict[str, Any] | None] = []
    size = 0
    for position, key in page[:ROWS_AT_ONCE]:
        where = "key = :key AND position = coalesce(:position, position)"
        rows = _all_rows(connection.execute(f"{_SELECT_JOBS} WHERE {where}", {"key": key, "position": position}))
        row = add_contents(connection, rows[0]) if rows else None
        found.append(row)
        size += 0 if row is None else row_size(row)
        if size >= MAX_CHARS:
            break
    return found


def select_intent(connection: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    """Return the columns of a job's intent; None if there is no such job."""
    rows = _all_rows(connection.execute(f"SELECT {', '.join(_INTENT_COLUMNS)} FROM jobs WHERE key = ?", (key,)))
    return rows[0] if rows else None


def select_keys_for_task(connection: sqlite3.Connection, provider: str, base_url: str, task_id: str) -> list[str]:
    """Return the keys of the jobs with that task id, the last position first."""
    where = "WHERE provider = ? AND base_url = ? AND task_id = ?"
    rows = connection.execute(f"SELECT key FROM jobs {where} ORDER BY position DESC", (provider, base_url, task_id))
    return [key for (key,) in rows]


def select_key_for_token(connection: sqlite3.Connection, callback_sha256: str) -> str | None:
    """Return the key of the job whose latest submission carried the token with that SHA-256."""
    rows = connection.execute("SELECT key FROM jobs WHERE callback_sha256 = ?", (callback_sha256,))
    return next((key for (key,) in rows), None)


def latest_revision(connection: sqlite3.Connection) -> int:
    """Return the number of the latest change; 0 if there is none."""
    (revision,) = connection.execute("SELECT coalesce(max(revision), 0) FROM jobs").fetchone()
    return int(revision)


def select_changes(connection: sqlite3.Connection, after: int) -> list[dict[str, Any]]:
    """Return the next rows with a revision above `after`, in ascending order.

    At most `MAX_CHANGES` rows; fewer once their requests hold `MAX_CHARS` characters and bytes.
    """
    found, size = [], 0
    sql = f"{_SELECT_JOBS} WHERE revision > ? ORDER BY revision LIMIT {MAX_CHANGES}"
    with contextlib.closing(connection.execute(sql, (after,))) as cursor:
        for row in _rows(cursor):
            found.append(add_contents(connection, row))
            size += row_size(found[-1])
            if size >= MAX_CHARS:
                break
    return found


def select_states(connection: sqlite3.Connection, after: int) -> list[tuple[int, str, str, str | None]]:
    """Return the next revisions above `after` in ascending order, each with the key, status and time of submission of
    its job. At most `MAX_STATES`.
    """
    columns = "revision, key, status, submitted_at"
    sql = f"SELECT {columns} FROM jobs WHERE revision > ? ORDER BY revision LIMIT {MAX_STATES}"
    return connection.execute(sql, (after,)).fetchall()


def iterate_rows(connection: sqlite3.Connection, keys: Collection[str]) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of the jobs with `keys`, in one read; those that do not exist are left out."""
    sql = f"{_SELECT_JOBS} WHERE key IN (SELECT value FROM json_each(?))"
    with contextlib.closing(connection.execute(sql, (json.dumps(list(keys)),))) as cursor:
        for row in _rows(cursor):
            yield add_contents(connection, row)


def select_downloads(
    connection: sqlite3.Connection, keys: Collection[str]
) -> list[tuple[str, str | None, str | None, bool]]:
    """Return those of `keys` whose job has a file or an error, each with its file, the time of that, and whether it has
    an error.
    """
    where = "key IN (SELECT value FROM json_each(?)) AND (file IS NOT NULL OR error IS NOT NULL)"
    columns = "key, file, downloaded_at, error IS NOT NULL"
    return connection.execute(f"SELECT {columns} FROM jobs WHERE {where}", (json.dumps(list(keys)),)).fetchall()


def select_key_page(
    connection: sqlite3.Connection, after: int, statuses: Sequence[JobStatus], also: Collection[str]
) -> list[tuple[int, str]]:
    """Return the positions and keys of the next `PAGE_KEYS` jobs with a position above `after`, in that order.

    Reads nothing but these: every part of the statement is in the order of positions by itself.

    :param statuses: return only jobs with one of them; empty for all jobs.
    :param also: keys that are returned whatever their status.
    """
    page = f"ORDER BY position LIMIT {PAGE_KEYS}"
    if not statuses:
        return connection.execute(f"SELECT position, key FROM jobs WHERE position > ? {page}", (after,)).fetchall()
    parts = ["SELECT position, key FROM jobs WHERE status = ? AND position > ?"] * len(statuses)
    values: list[Any] = [value for status in statuses for value in (status.value, after)]
    if also:
        parts.append("SELECT position, key FROM jobs WHERE key IN (SELECT value FROM json_each(?)) AND position > ?")
        values += [json.dumps(list(also)), after]
    return connection.execute(f"{' UNION '.join(parts)} {page}", values).fetchall()


def select_existing_keys(connection: sqlite3.Connection, keys: Collection[str], last_position: int) -> set[str]:
    """Return those of `keys` whose row has a position up to `last_position`."""
    if not keys:
        return set()
    sql = "SELECT key FROM jobs WHERE position <= ? AND key IN (SELECT value FROM json_each(?))"
    return {key for (key,) in connection.execute(sql, (last_position, json.dumps(list(keys))))}


def count_status(connection: sqlite3.Connection, status: JobStatus, excluded: Collection[str]) -> int:
    """Count the jobs with `status`, without those whose keys are in `excluded`; reads none of the others."""
    return _count(connection, "status = :status", excluded, status=status.value)


def count_charges(connection: sqlite3.Connection, excluded: Collection[str]) -> int:
    """Count the jobs that may be charged, without those whose keys are in `excluded`; reads none of the others."""
    return _count(connection, "may_be_charged", excluded)


def count_costs(connection: sqlite3.Connection, excluded: Collection[str]) -> Counter[tuple[str, float | None]]:
    """Count the jobs that may be charged by account and cost, without those whose keys are in `excluded`."""
    sql = f"""
        SELECT account, cost, sum(jobs) FROM (
            SELECT account, cost, jobs FROM counts WHERE may_be_charged
            UNION ALL
            SELECT ifnull(account, provider), ifnull(cost, -1.0), -1 FROM jobs
            WHERE key IN (SELECT value FROM json_each(?)) AND {MAY_BE_CHARGED}
        ) GROUP BY account, cost HAVING sum(jobs)
    """
    rows = connection.execute(sql, (json.dumps(list(excluded)),))
    return Counter({(account, None if cost < 0 else cost): jobs for account, cost, jobs in rows})


def count_unfinished(connection: sqlite3.Connection, excluded: Collection[str]) -> Counter[str]:
    """Count the jobs that were sent and are not final by account, without those whose keys are in `excluded`."""
    statuses = ", ".join(repr(str(status)) for status in SENT_UNFINISHED)
    sql = f"""
        SELECT account, sum(jobs) FROM (
            SELECT account, jobs FROM counts WHERE status IN ({statuses})
            UNION ALL
            SELECT ifnull(account, provider), -1 FROM jobs
            WHERE key IN (SELECT value FROM json_each(?)) AND +status IN ({statuses})
        ) GROUP BY account HAVING sum(jobs)
    """
    return Counter(dict(connection.execute(sql, (json.dumps(list(excluded)),))))


def _count(connection: sqlite3.Connection, condition: str, excluded: Collection[str], **values: str) -> int:
    """Count by the table that the triggers keep; one statement, so that both its parts are of one moment."""
    kept = f"SELECT coalesce(sum(jobs), 0) FROM counts WHERE {condition}"
    rows = f"SELECT key, +status AS status, {MAY_BE_CHARGED} AS may_be_charged FROM jobs"  # +: find them by key
    stale = f"SELECT count(*) FROM ({rows} WHERE key IN (SELECT value FROM json_each(:excluded))) WHERE {condition}"
    bound = values | {"excluded": json.dumps(list(excluded))}
    (count,) = connection.execute(f"SELECT ({kept}) - ({stale})", bound).fetchone()
    return int(count)
