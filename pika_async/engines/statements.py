"""Statements of a cluster's database, each a function of a connection in a transaction. Commits nothing by itself.

Here are those that add jobs, queue and read them; what is written about a job that exists is in `job_writes`. Every
statement that a worker's jobs depend on asks first whether the worker's lease still holds; a lease that has ended
never holds again, so a worker that was given up writes nothing more, whenever it wakes up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from pika_async._journal.contents import REFERENCE_PATTERN, digest_of
from pika_async._journal.protocol import Intent
from pika_async._journal.serialization import job_from_row, job_to_row, request_to_json
from pika_async.engines.shared_statements import insert, now
from pika_async.engines.tables import contents, jobs, orphans
from pika_async.jobs import Job
from pika_async.models import GenerationRequest

#: Files of jobs are stored with their whole path: workers on other machines have no common folder.
ROOT: Final = Path("/")
T = TypeVar("T")

#: Keys in one IN clause; SQLite allows 32,766 values in a statement.
KEYS_AT_ONCE: Final = 1_000


def revision(connection: sa.Connection) -> int:
    """Return the number that all changes of this transaction get.

    On PostgreSQL it is the transaction's own, which is not the order of the commits; see `visible_revision`.
    """
    if connection.dialect.name == "sqlite":  # one transaction at a time
        latest = connection.execute(sa.select(sa.func.coalesce(sa.func.max(jobs.c.revision), 0))).scalar_one()
        return int(latest) + 1
    return int(connection.exec_driver_sql("SELECT pg_current_xact_id()::text::bigint").scalar_one())


def visible_revision(connection: sa.Connection) -> int:
    """Return the number below which no change is still to be committed: a reader that stops there misses none."""
    if connection.dialect.name == "sqlite":
        return revision(connection)
    return int(connection.exec_driver_sql("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").scalar_one())


# --- jobs -------------------------------------------------------------------------------------------------------------


def insert_jobs(connection: sa.Connection, new: Sequence[Job]) -> list[str]:
    """Insert planned jobs; return the keys of those that did not exist."""
    if not new:
        return []
    number = revision(connection)
    rows = [_new_row(job) | {"revision": number} for job in new]
    _insert_contents(connection, [job.request for job in new])
    statement = insert(connection, jobs).on_conflict_do_nothing(index_elements=["key"])
    inserted = connection.execute(statement.returning(jobs.c.key), rows)
    return [key for (key,) in inserted]


def _new_row(job: Job) -> dict[str, Any]:
    return job_to_row(job, None, ROOT) | {
        "request": request_to_json(job.request),
        "fingerprint": job.request.fingerprint(),
    }


def _insert_contents(connection: sa.Connection, requests: Iterable[GenerationRequest]) -> None:
    for request in requests:
        for media in (request.image, request.video, request.last_image, *request.ingredients):
            if isinstance(media, bytes):
                statement = insert(connection, contents).on_conflict_do_nothing()
                connection.execute(statement, {"sha256": digest_of(media), "content": media})


def insert_orphans(connection: sa.Connection, worker: str, lost: Iterable[Job]) -> None:
    """Insert the task ids of jobs that `worker` could not save, because another has them by now.

    Those that the jobs have are left out: a snapshot came too late, not an id.
    """
    at = now(connection)
    for job in lost:
        known = sa.select(jobs.c.key).where(jobs.c.key == job.key, jobs.c.task_id == job.task_id)
        if connection.execute(known).first() is not None:
            continue
        connection.execute(
            sa.insert(orphans).values(
                key=job.key, account=job.account, provider=job.provider, base_url=job.base_url, task_id=job.task_id,
                worker=worker, found_at=at,
            )
        )  # fmt: skip


_SELECT_JOB: Final = sa.select(jobs).where(jobs.c.key == sa.bindparam("key_before"))


def select_row(connection: sa.Connection, key: str) -> dict[str, Any] | None:
    """Return the row of a job, with the bytes in its request as `contents`; None if there is none."""
    row = connection.execute(_SELECT_JOB, {"key_before": key}).mappings().first()
    return None if row is None else with_contents(connection, row)


def with_contents(connection: sa.Connection, row: Mapping[Any, Any]) -> dict[str, Any]:
    digests = set(REFERENCE_PATTERN.findall(row["request"]))
    found = connection.execute(sa.select(contents).where(contents.c.sha256.in_(digests))).all() if digests else ()
    return {str(name): value for name, value in row.items()} | {"contents": {it.sha256: it.content for it in found}}


def intent_of(row: Mapping[Any, Any]) -> Intent | None:
    """Return the intent of a row; None if none was saved."""
    if row["intended_at"] is None:
        return None
    return Intent(
        at=datetime.fromisoformat(row["intended_at"]),
        body_sha256=row["body_sha256"] or "",
        callback_sha256=row["callback_sha256"],
        repeatable=row["repeatable"],
    )


def select_job(connection: sa.Connection, key: str) -> Job | None:
    """Return the job of that key; None if there is none."""
    row = select_row(connection, key)
    return None if row is None else job_from_row(row, ROOT)


def take_run(connection: sa.Connection, keys: Collection[str]) -> list[tuple[str, str]]:
    """Count another run of each job; return the keys, each with the id of the run."""
    runs: list[tuple[str, str]] = []
    for page in pages(keys):
        statement = sa.update(jobs).where(jobs.c.key.in_(page)).values(runs=jobs.c.runs + 1, queued=True)
        rows = connection.execute(statement.returning(jobs.c.position, jobs.c.key, jobs.c.runs))
        runs += [(key, f"{key} {position}.{number}") for position, key, number in sorted(map(tuple, rows))]
    return runs


def rename(connection: sa.Connection, key: str, archived: str) -> bool:
    """Give a job that no worker owns another key; return False if there is none."""
    renamed = sa.update(jobs).where(jobs.c.key == key, jobs.c.owner.is_(None))
    return connection.execute(renamed.values(key=archived, revision=revision(connection))).rowcount > 0


def pages(keys: Collection[T]) -> Iterable[list[T]]:
    """Split what is asked for into lists that one statement takes."""
    given = list(keys)
    return (given[start : start + KEYS_AT_ONCE] for start in range(0, len(given), KEYS_AT_ONCE))
