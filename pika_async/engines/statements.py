"""Statements of a cluster's database, each a function of a connection in a transaction. Commits nothing by itself.

Every statement that a worker's jobs depend on asks first whether the worker's lease still holds; a lease that has ended
never holds again, so a worker that was given up writes nothing more, whenever it wakes up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs
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
#: Columns of a job that are written when it is inserted, and then never again.
_FIXED: Final = ("key", "request", "fingerprint")
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
    """Give up jobs that `worker` owns: no worker drives them any more, and who follows them sees that as a change."""
    number = revision(connection)
    for page in _pages(keys):
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
    owned = jobs.c.owner == worker
    results: list[Held | list[Job] | None] = []
    for changed, intent in writes:
        if intent is None:
            results.append(_save(connection, changed, None, owned))
        else:
            results.append(_record_intent(connection, worker, changed[0], intent))
    return results


def _record_intent(connection: sa.Connection, worker: str, job: Job, intent: Intent) -> Held | None:
    saved = select_row(connection, job.key)
    if saved is not None and saved["owner"] == worker and intent_of(saved) == intent:
        return None  # the answer to the commit of an earlier try was lost
    name, at = job.account_and_cost[0], now(connection)
    for row in _locked_accounts(connection, (ALL_ACCOUNTS, name)):
        held = hold_of(row, job.cost, at)
        if held is not None:
            return held
    if _save(connection, [job], intent, jobs.c.owner == worker):
        raise LeaseEndedError
    next_at = sa.func.coalesce(1.0 / accounts.c.submits_per_second, 0.0) + at
    connection.execute(
        sa.update(accounts)
        .where(accounts.c.name.in_((ALL_ACCOUNTS, name)), accounts.c.submits_per_second.is_not(None))
        .values(next_submit_at=next_at)
    )
    return None


def _locked_accounts(connection: sa.Connection, names: Collection[str]) -> list[Mapping[str, Any]]:
    """Return rows of accounts in one order for all transactions, so that none waits for another in a circle."""
    found = sa.select(accounts).where(accounts.c.name.in_(names)).order_by(accounts.c.name)
    return [dict(row) for row in connection.execute(found.with_for_update()).mappings()]


def save_free(connection: sa.Connection, changed: Sequence[Job], status: JobStatus) -> list[Job]:
    """Save jobs that no worker owns and that have `status`; return those of which nothing was saved."""
    return _save(connection, changed, None, jobs.c.owner.is_(None) & (jobs.c.status == status.value))


def _save(
    connection: sa.Connection, changed: Sequence[Job], intent: Intent | None, condition: sa.ColumnElement[bool]
) -> list[Job]:
    number, lost = revision(connection), []
    before = _locked_usages(connection, [job.key for job in changed])
    deltas: dict[str, Usage] = {}
    for job in changed:
        row = job_to_row(job, intent, ROOT)
        if intent is None:
            row = {name: value for name, value in row.items() if name not in _INTENT_COLUMNS}
            if job.status not in {JobStatus.SUBMITTING, JobStatus.UNKNOWN}:
                row["repeatable"] = None
        statement = sa.update(jobs).where(jobs.c.key == job.key, condition).values(**row, revision=number)
        if connection.execute(statement).rowcount:
            _add(deltas, before[job.key], -1)
            _add(deltas, usage_of(job), 1)
        else:
            lost.append(job)
    _apply(connection, deltas)
    return lost


def _locked_usages(connection: sa.Connection, keys: Sequence[str]) -> dict[str, Usage]:
    columns = [jobs.c.key, *(jobs.c[name] for name in ("account", "provider", "status", "cost"))]
    columns += [jobs.c[name] for name in ("task_id", "submitted_at", "attempts")]
    found: dict[str, Usage] = {}
    for page in _pages(keys):
        rows = connection.execute(
            sa.select(*columns).where(jobs.c.key.in_(page)).order_by(jobs.c.key).with_for_update()
        )
        found |= {row["key"]: _stored_usage(dict(row)) for row in rows.mappings()}
    return found


def _stored_usage(row: Mapping[str, Any]) -> Usage:
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
        deltas[name] = attrs.evolve(
            old,
            in_flight=old.in_flight + sign * usage.in_flight,
            charges=old.charges + sign * usage.charges,
            spent=old.spent + sign * usage.spent,
        )


def _apply(connection: sa.Connection, deltas: Mapping[str, Usage]) -> None:
    for name in sorted(deltas):  # in one order for all transactions
        delta = deltas[name]
        values = {
            column: accounts.c[column] + change
            for column in ("in_flight", "charges", "spent")
            if (change := getattr(delta, column))
        }
        if values:
            connection.execute(sa.update(accounts).where(accounts.c.name == name).values(**values))


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


def select_row(connection: sa.Connection, key: str) -> dict[str, Any] | None:
    """Return the row of a job, with the bytes in its request as `contents`; None if there is none."""
    row = connection.execute(sa.select(jobs).where(jobs.c.key == key)).mappings().first()
    return None if row is None else _with_contents(connection, row)


def _with_contents(connection: sa.Connection, row: Mapping[Any, Any]) -> dict[str, Any]:
    digests = set(REFERENCE_PATTERN.findall(row["request"]))
    found = connection.execute(sa.select(contents).where(contents.c.sha256.in_(digests))) if digests else ()
    return {str(name): value for name, value in row.items()} | {"contents": dict(found)}


def intent_of(row: Mapping[str, Any]) -> Intent | None:
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


def select_page(
    connection: sa.Connection, after: int, limit: int, statuses: Collection[JobStatus] = ()
) -> list[tuple[int, Job]]:
    """Return the next jobs with a position above `after`, or those with one of `statuses`, with their positions."""
    found = sa.select(jobs).where(jobs.c.position > after).order_by(jobs.c.position).limit(limit)
    if statuses:
        found = found.where(jobs.c.status.in_([status.value for status in statuses]))
    rows = connection.execute(found).mappings().all()
    return [(row["position"], job_from_row(_with_contents(connection, row), ROOT)) for row in rows]


def select_changed(connection: sa.Connection, after: int, limit: int) -> list[tuple[int, Job, bool]]:
    """Return the jobs that changed after the revision `after`, the earliest first, each with its revision.

    The third value is whether the job is idle: no worker drives it, and no run of it is queued.

    :param limit: number of changes, about: all of one revision are returned.
    """
    below = visible_revision(connection)
    window = jobs.c.revision.between(after + 1, below - 1)
    numbers = sa.select(jobs.c.revision).where(window).order_by(jobs.c.revision).limit(limit)
    last = connection.execute(sa.select(sa.func.max(numbers.subquery().c.revision))).scalar_one()
    if last is None:
        return []
    found = sa.select(jobs).where(jobs.c.revision.between(after + 1, last)).order_by(jobs.c.revision, jobs.c.key)
    return [(row["revision"], *_with_idle(connection, row)) for row in connection.execute(found).mappings().all()]


def select_jobs(connection: sa.Connection, keys: Collection[str]) -> list[tuple[Job, bool]]:
    """Return the jobs of those keys that exist, each with whether it is idle."""
    found: list[tuple[Job, bool]] = []
    for page in _pages(keys):
        rows = connection.execute(sa.select(jobs).where(jobs.c.key.in_(page))).mappings().all()
        found += [_with_idle(connection, row) for row in rows]
    return found


def _with_idle(connection: sa.Connection, row: Mapping[Any, Any]) -> tuple[Job, bool]:
    return job_from_row(_with_contents(connection, row), ROOT), row["owner"] is None and not row["queued"]


def idle_keys(connection: sa.Connection, statuses: Collection[JobStatus]) -> list[str]:
    """Return the keys of the jobs with one of `statuses` that no worker drives and of which no run is queued."""
    is_idle = jobs.c.owner.is_(None) & ~jobs.c.queued & jobs.c.status.in_([status.value for status in statuses])
    return list(connection.execute(sa.select(jobs.c.key).where(is_idle).order_by(jobs.c.position)).scalars())


def keys_of_contents(connection: sa.Connection, fingerprints: Collection[str]) -> dict[str, str]:
    """Return the fingerprints of the jobs whose request has one of `fingerprints`, by key."""
    found: dict[str, str] = {}
    for page in _pages(fingerprints):
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
    for page in _pages(keys):
        rows = connection.execute(sa.select(jobs.c.key, jobs.c.fingerprint).where(jobs.c.key.in_(page)))
        found |= {row["key"]: row["fingerprint"] for row in rows.mappings()}
    return found


def key_for_task(connection: sa.Connection, provider: str, base_url: str, task_id: str) -> str | None:
    """Return the key of the latest job that has this task id at that gateway."""
    same = (jobs.c.provider == provider) & (jobs.c.base_url == base_url) & (jobs.c.task_id == task_id)
    return connection.execute(sa.select(jobs.c.key).where(same).order_by(jobs.c.position.desc()).limit(1)).scalar()


def key_for_token(connection: sa.Connection, callback_sha256: str) -> tuple[str, str | None] | None:
    """Return the key of the job whose latest submission carried the token with that SHA-256, and its owner."""
    found = sa.select(jobs.c.key, jobs.c.owner).where(jobs.c.callback_sha256 == callback_sha256)
    row = connection.execute(found).first()
    return None if row is None else (row[0], row[1])


def take_run(connection: sa.Connection, keys: Collection[str]) -> list[tuple[str, str]]:
    """Count another run of each job; return the keys, each with the id of the run."""
    runs: list[tuple[str, str]] = []
    for page in _pages(keys):
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
    if not connection.execute(renamed).rowcount or _save(connection, [archived], None, jobs.c.owner == worker):
        raise LeaseEndedError


def keys_like(connection: sa.Connection, prefix: str) -> set[str]:
    """Return the keys that begin with `prefix`."""
    found = sa.select(jobs.c.key).where(jobs.c.key.startswith(prefix, autoescape=True))
    return set(connection.execute(found).scalars())


def _pages(keys: Collection[str]) -> Iterable[list[str]]:
    given = list(keys)
    return (given[start : start + KEYS_AT_ONCE] for start in range(0, len(given), KEYS_AT_ONCE))
