"""Statements of a cluster's database, each a function of a connection in a transaction. Commits nothing by itself.

Every statement that a worker's jobs depend on asks first whether the worker's lease still holds; a lease that has ended
never holds again, so a worker that was given up writes nothing more, whenever it wakes up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from pika_async._journal.contents import REFERENCE_PATTERN, digest_of
from pika_async._journal.protocol import Intent
from pika_async._journal.serialization import job_from_row, job_to_row, request_to_json
from pika_async.engines.bounds import ALL_ACCOUNTS, Held, Usage, hold_of, usage_of
from pika_async.engines.shared_statements import LeaseEndedError, insert, now, require_lease
from pika_async.engines.tables import accounts, contents, jobs, orphans, workers
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest

#: Files of jobs are stored with their whole path: workers on other machines have no common folder.
ROOT: Final = Path("/")
#: Of an intent; they are kept until the next one, but for what can be sent again.
_INTENT_COLUMNS: Final = ("intended_at", "body_sha256", "callback_sha256", "repeatable")
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


def claim(connection: sa.Connection, key: str, worker: str) -> tuple[Job, Intent | None] | None:
    """Make a job that no live worker owns one of `worker`; return it with its latest intent, None if it cannot be had.

    :raises LeaseEndedError: if the lease of `worker` has ended.
    """
    require_lease(connection, worker)
    live = sa.select(workers.c.id).where(workers.c.ended_at.is_(None), workers.c.id != worker)
    is_free = jobs.c.owner.is_(None) | jobs.c.owner.not_in(live)
    taken = sa.update(jobs).where(jobs.c.key == key, is_free).values(owner=worker, queued=False)
    if not connection.execute(taken).rowcount:
        return None
    row = select_row(connection, key)
    if row is None:
        return None
    return job_from_row(row, ROOT), intent_of(row)


def release(connection: sa.Connection, keys: Collection[str], worker: str) -> None:
    """Give up jobs that `worker` owns: no worker drives them any more, and who follows them sees that as a change.

    :raises LeaseEndedError: if the lease of `worker` has ended: what it knows of them may not be saved.
    """
    require_lease(connection, worker)
    number = revision(connection)
    for page in pages(keys):
        owned = sa.update(jobs).where(jobs.c.key.in_(page), jobs.c.owner == worker)
        connection.execute(owned.values(owner=None, revision=number))


def write_all(
    connection: sa.Connection, worker: str, writes: Sequence[tuple[Sequence[Job], Intent | None]]
) -> list[Held | list[Job] | None]:
    """Write jobs that `worker` owns, in order: save them or, with an intent, save that the only one is being sent.

    :return: for each of `writes` the jobs that `worker` does not own any more, of which nothing was saved; for one with
        an intent, why it must not be sent now, or None.
    :raises LeaseEndedError: if the lease of `worker` has ended, or it does not own a job that is being sent.
    """
    require_lease(connection, worker)
    owned = {"owned_by": worker}
    results: list[Held | list[Job] | None] = []
    for changed, intent in writes:
        if intent is None:
            results.append(_save(connection, changed, None, owned))
        else:
            results.append(_record_intent(connection, worker, changed[0], intent))
    return results


_SELECT_INTENT: Final = sa.select(jobs.c.owner, jobs.c.status, *(jobs.c[name] for name in _INTENT_COLUMNS)).where(
    jobs.c.key == sa.bindparam("key_before")
)


def _record_intent(connection: sa.Connection, worker: str, job: Job, intent: Intent) -> Held | None:
    saved = connection.execute(_SELECT_INTENT, {"key_before": job.key}).mappings().first()
    is_saved = saved is not None and (saved["owner"], saved["status"]) == (worker, JobStatus.SUBMITTING)
    if saved is not None and is_saved and intent_of(saved) == intent:
        return None  # the answer to the commit of an earlier try was lost
    name, at = job.account_and_cost[0], now(connection)
    rows = _locked_accounts(connection, [ALL_ACCOUNTS, name])
    for row in rows:
        held = hold_of(row, job.cost, at)
        if held is not None:
            return held
    if _save(connection, [job], intent, {"owned_by": worker}):
        raise LeaseEndedError
    for row in rows:
        if row["submits_per_second"] is not None:
            next_at = at + 1.0 / row["submits_per_second"]
            connection.execute(_PACE, {"paced": row["name"], "next_at": next_at})
    return None


#: In one order for all transactions, so that none waits for another in a circle.
_SELECT_ACCOUNTS: Final = (
    sa.select(accounts)
    .where(accounts.c.name.in_(sa.bindparam("names", expanding=True)))
    .order_by(accounts.c.name)
    .with_for_update()
)
_PACE: Final = (
    sa.update(accounts).where(accounts.c.name == sa.bindparam("paced")).values(next_submit_at=sa.bindparam("next_at"))
)


def _locked_accounts(connection: sa.Connection, names: list[str]) -> list[Mapping[str, Any]]:
    return [dict(row) for row in connection.execute(_SELECT_ACCOUNTS, {"names": names}).mappings()]


def save_free(connection: sa.Connection, changed: Sequence[Job], status: JobStatus) -> list[Job]:
    """Save jobs that no worker owns and that have `status`; return those of which nothing was saved."""
    return _save(connection, changed, None, {"owned_by": None, "status_before": status.value})


@cache
def _update_job(columns: tuple[str, ...], *, is_free: bool) -> sa.Update:
    """Return the statement that saves `columns` of a job; made once, because that takes longer than to execute it."""
    owner = jobs.c.owner.is_(None) & (jobs.c.status == sa.bindparam("status_before"))
    condition = owner if is_free else jobs.c.owner == sa.bindparam("owned_by")
    return (
        sa.update(jobs)
        .where(jobs.c.key == sa.bindparam("key_before"), condition)
        .values({name: sa.bindparam(name) for name in columns})
    )


def _save(
    connection: sa.Connection, changed: Sequence[Job], intent: Intent | None, condition: Mapping[str, str | None]
) -> list[Job]:
    """Save jobs if they are as `condition` says, and count what they use; return those that are not."""
    number, lost = revision(connection), []
    before = _locked_usages(connection, [job.key for job in changed])
    deltas: dict[str, Usage] = {}
    for job in changed:
        row = job_to_row(job, intent, ROOT) | {"revision": number}
        if intent is None:
            row = {name: value for name, value in row.items() if name not in _INTENT_COLUMNS}
            if job.status not in {JobStatus.SUBMITTING, JobStatus.UNKNOWN}:
                row["repeatable"] = None
        statement = _update_job(tuple(row), is_free=condition["owned_by"] is None)
        if connection.execute(statement, {**row, **condition, "key_before": job.key}).rowcount:
            _add(deltas, before[job.key], -1)
            _add(deltas, usage_of(job), 1)
        else:
            lost.append(job)
    _apply(connection, deltas)
    return lost


#: Columns of a job from which follows what it uses.
_USAGE_COLUMNS: Final = ("key", "account", "provider", "status", "cost", "task_id", "submitted_at", "attempts")
_SELECT_USAGES: Final = (
    sa.select(*(jobs.c[name] for name in _USAGE_COLUMNS))
    .where(jobs.c.key.in_(sa.bindparam("keys", expanding=True)))
    .order_by(jobs.c.key)
    .with_for_update()
)


def _locked_usages(connection: sa.Connection, keys: Sequence[str]) -> dict[str, Usage]:
    found: dict[str, Usage] = {}
    for page in pages(keys):
        rows = connection.execute(_SELECT_USAGES, {"keys": page})
        found |= {row["key"]: _stored_usage(row) for row in rows.mappings()}
    return found


def _stored_usage(row: Mapping[Any, Any]) -> Usage:
    """Return what a stored job uses; see `usage_of`."""
    submitted = row["submitted_at"] and datetime.fromisoformat(row["submitted_at"])
    return usage_of(
        Job(
            key=row["key"], request=_ANY_REQUEST, provider=row["provider"], account=row["account"], base_url="",
            status=JobStatus(row["status"]), task_id=row["task_id"], cost=row["cost"], attempts=row["attempts"],
            submitted_at=submitted,
        )
    )  # fmt: skip


_ANY_REQUEST: Final = GenerationRequest("any")


def _add(deltas: dict[str, Usage], usage: Usage, sign: int) -> None:
    for name in () if usage.account is None else (ALL_ACCOUNTS, usage.account):
        old = deltas.get(name, Usage(name))
        deltas[name] = Usage(
            name, old.in_flight + sign * usage.in_flight, old.charges + sign * usage.charges,
            old.spent + sign * usage.spent,
        )  # fmt: skip


#: What the jobs of an account use of it; changes are added.
_COUNT_USAGE: Final = (
    sa.update(accounts)
    .where(accounts.c.name == sa.bindparam("counted"))
    .values({name: accounts.c[name] + sa.bindparam(f"more_{name}") for name in ("in_flight", "charges", "spent")})
)


def _apply(connection: sa.Connection, deltas: Mapping[str, Usage]) -> None:
    for name in sorted(deltas):  # in one order for all transactions
        delta = deltas[name]
        more = {"more_in_flight": delta.in_flight, "more_charges": delta.charges, "more_spent": delta.spent}
        if any(more.values()):
            connection.execute(_COUNT_USAGE, {"counted": name, **more})


def insert_orphans(connection: sa.Connection, worker: str, lost: Iterable[Job]) -> None:
    """Insert the task ids of jobs that `worker` could not save, because another has them by now."""
    at = now(connection)
    for job in lost:
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


def archive_owned(connection: sa.Connection, worker: str, key: str, archived: Job) -> None:
    """Give a job that `worker` owns the key of `archived`, and save it so.

    :raises LeaseEndedError: if the lease of `worker` has ended, or it does not own the job.
    """
    require_lease(connection, worker)
    renamed = sa.update(jobs).where(jobs.c.key == key, jobs.c.owner == worker).values(key=archived.key)
    if not connection.execute(renamed).rowcount or _save(connection, [archived], None, {"owned_by": worker}):
        raise LeaseEndedError


def pages(keys: Collection[str]) -> Iterable[list[str]]:
    given = list(keys)
    return (given[start : start + KEYS_AT_ONCE] for start in range(0, len(given), KEYS_AT_ONCE))
