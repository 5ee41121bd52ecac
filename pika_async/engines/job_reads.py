"""Statements that read jobs and change nothing; see `statements`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

import sqlalchemy as sa

from pika_async._journal.protocol import JobState
from pika_async._journal.serialization import job_from_row, state_from_row
from pika_async.engines.statements import ROOT, pages, visible_revision, with_contents
from pika_async.engines.tables import jobs
from pika_async.jobs import Job, JobStatus


def select_page(
    connection: sa.Connection, after: int, limit: int, statuses: Collection[JobStatus] = ()
) -> list[tuple[int, Job]]:
    """Return the next jobs with a position above `after`, or those with one of `statuses`, with their positions."""
    found = sa.select(jobs).where(jobs.c.position > after).order_by(jobs.c.position).limit(limit)
    if statuses:
        found = found.where(jobs.c.status.in_([status.value for status in statuses]))
    rows = connection.execute(found).mappings().all()
    return [(row["position"], job_from_row(with_contents(connection, row), ROOT)) for row in rows]


def select_changed(connection: sa.Connection, after: int, limit: int) -> list[tuple[int, Job, bool]]:
    """Return the jobs that changed after the revision `after`, the earliest first, each with its revision.

    The third value is whether the job is idle: no worker drives it, and no run of it is queued.

    :param limit: number of changes, about: all of one revision are returned.
    """
    last = _last_revision(connection, after, limit)
    if last is None:
        return []
    found = sa.select(jobs).where(jobs.c.revision.between(after + 1, last)).order_by(jobs.c.revision, jobs.c.key)
    return [(row["revision"], *_with_idle(connection, row)) for row in connection.execute(found).mappings().all()]


def _last_revision(connection: sa.Connection, after: int, limit: int) -> int | None:
    """Return the last revision of the next `limit` changes after the revision `after`; None if there are none."""
    below = visible_revision(connection)
    window = jobs.c.revision.between(after + 1, below - 1)
    numbers = sa.select(jobs.c.revision).where(window).order_by(jobs.c.revision).limit(limit)
    last: int | None = connection.execute(sa.select(sa.func.max(numbers.subquery().c.revision))).scalar_one()
    return last


def select_states(connection: sa.Connection, after: int, limit: int) -> list[tuple[int, JobState]]:
    """Return the states of the jobs that changed after the revision `after`, as `select_changed` does for jobs."""
    last = _last_revision(connection, after, limit)
    if last is None:
        return []
    found = (
        sa.select(jobs.c.revision, jobs.c.key, jobs.c.status, jobs.c.submitted_at)
        .where(jobs.c.revision.between(after + 1, last))
        .order_by(jobs.c.revision, jobs.c.key)
    )
    return [(number, state_from_row(key, status, at)) for number, key, status, at in connection.execute(found)]


def select_jobs(connection: sa.Connection, keys: Collection[str]) -> list[tuple[Job, bool]]:
    """Return the jobs of those keys that exist, each with whether it is idle."""
    found: list[tuple[Job, bool]] = []
    for page in pages(keys):
        rows = connection.execute(sa.select(jobs).where(jobs.c.key.in_(page))).mappings().all()
        found += [_with_idle(connection, row) for row in rows]
    return found


def _with_idle(connection: sa.Connection, row: Mapping[Any, Any]) -> tuple[Job, bool]:
    return job_from_row(with_contents(connection, row), ROOT), row["owner"] is None and not row["queued"]


def idle_keys(connection: sa.Connection, statuses: Collection[JobStatus], key: str) -> list[str]:
    """Return the key of a job if it has one of `statuses`, no worker drives it, and no run of it is queued."""
    is_idle = jobs.c.owner.is_(None) & ~jobs.c.queued & jobs.c.status.in_([status.value for status in statuses])
    return list(connection.execute(sa.select(jobs.c.key).where(is_idle & (jobs.c.key == key))).scalars())


#: Statuses of the jobs that `resume` runs on.
_UNFINISHED: Final = (
    JobStatus.PLANNED, JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.TIMED_OUT,
)  # fmt: skip


def resumable_keys(connection: sa.Connection) -> list[str]:
    """Return the keys of the jobs that no worker has and a worker can do something for, if only a download."""
    is_idle = jobs.c.owner.is_(None) & ~jobs.c.queued
    is_unfinished = jobs.c.status.in_([status.value for status in _UNFINISHED])
    lacks_file = (jobs.c.status == JobStatus.SUCCEEDED.value) & jobs.c.file.is_(None) & jobs.c.error.is_not(None)
    found = sa.select(jobs.c.key).where(is_idle & (is_unfinished | lacks_file)).order_by(jobs.c.position)
    return list(connection.execute(found).scalars())


def keys_of_contents(connection: sa.Connection, fingerprints: Collection[str]) -> dict[str, str]:
    """Return the fingerprints of the jobs whose request has one of `fingerprints`, by key."""
    found: dict[str, str] = {}
    for page in pages(fingerprints):
        rows = connection.execute(sa.select(jobs.c.key, jobs.c.fingerprint).where(jobs.c.fingerprint.in_(page)))
        found |= {row["key"]: row["fingerprint"] for row in rows.mappings()}
    return found


def count_jobs(connection: sa.Connection) -> dict[tuple[str | None, str], int]:
    """Return the number of jobs by account and status."""
    found = sa.select(jobs.c.account, jobs.c.status, sa.func.count()).group_by(jobs.c.account, jobs.c.status)
    return {(account, status): count for account, status, count in connection.execute(found)}


def contents_of(connection: sa.Connection, keys: Collection[str]) -> dict[str, str]:
    """Return the fingerprints of the requests of those jobs that exist, by key."""
    found: dict[str, str] = {}
    for page in pages(keys):
        rows = connection.execute(sa.select(jobs.c.key, jobs.c.fingerprint).where(jobs.c.key.in_(page)))
        found |= {row["key"]: row["fingerprint"] for row in rows.mappings()}
    return found


def keys_for_tasks(
    connection: sa.Connection, tasks: Collection[tuple[str, str, str]]
) -> dict[tuple[str, str, str], str]:
    """Return the key of the latest job that has a task, by the provider, the base URL and the id of the task."""
    found: dict[tuple[str, str, str], str] = {}
    for page in pages(tasks):
        for provider, base_url, task_id, key in connection.execute(_SELECT_KEYS_FOR_TASKS, {"tasks": page}):
            found[provider, base_url, task_id] = key
    return found


_TASK_COLUMNS: Final = (jobs.c.provider, jobs.c.base_url, jobs.c.task_id)
_SELECT_KEYS_FOR_TASKS: Final = (
    sa.select(*_TASK_COLUMNS, jobs.c.key)
    .where(sa.tuple_(*_TASK_COLUMNS).in_(sa.bindparam("tasks", expanding=True)))
    .order_by(jobs.c.position)
)


def key_for_token(connection: sa.Connection, callback_sha256: str) -> tuple[str, str | None] | None:
    """Return the key of the job whose latest submission carried the token with that SHA-256, and its owner."""
    found = sa.select(jobs.c.key, jobs.c.owner).where(jobs.c.callback_sha256 == callback_sha256)
    row = connection.execute(found).first()
    return None if row is None else (row[0], row[1])


def keys_like(connection: sa.Connection, prefix: str) -> set[str]:
    """Return the keys that begin with `prefix`."""
    found = sa.select(jobs.c.key).where(jobs.c.key.startswith(prefix, autoescape=True))
    return set(connection.execute(found).scalars())


def select_known(connection: sa.Connection, keys: Collection[str], contents: Collection[str]) -> list[Job]:
    """Return the jobs with one of `keys`, and those whose request has one of the fingerprints `contents`."""
    same = keys_of_contents(connection, contents)
    found = select_jobs(connection, dict.fromkeys([*keys, *same]))
    return [job for job, _ in found]


def select_costs(connection: sa.Connection) -> Counter[tuple[str, float | None]]:
    """Return the number of submissions that were accepted, or may have been, by account and cost."""
    is_sent = jobs.c.task_id.is_not(None) | jobs.c.submitted_at.is_not(None)
    is_adopted = jobs.c.task_id.is_not(None) & (jobs.c.attempts == 0)
    may_be_charged = (is_sent | (jobs.c.status == JobStatus.SUBMITTING.value)) & ~is_adopted
    name = sa.func.coalesce(jobs.c.account, jobs.c.provider)
    found = sa.select(name, jobs.c.cost, sa.func.count()).where(may_be_charged).group_by(name, jobs.c.cost)
    return Counter({(account, cost): count for account, cost, count in connection.execute(found)})
