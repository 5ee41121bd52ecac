"""Statements about workers, accounts and what all workers share; see `statements`. Commits nothing by itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pika_async._journal.protocol import Upload
from pika_async._journal.samples import SAMPLES_PER_STRATUM
from pika_async.engines.shared_concurrency import SlotAnswer, answered_text
from pika_async.engines.tables import accounts, jobs, orphans, samples, settings, uploads, workers
from pika_async.jobs import JobStatus
from pika_async.polling.durations import DurationSample


class LeaseEndedError(Exception):
    """The lease of a worker has ended: it may write nothing more."""


def now(connection: sa.Connection) -> float:
    """Return the time on the database's clock, in seconds since 1970."""
    if connection.dialect.name == "sqlite":
        return float(connection.exec_driver_sql("SELECT (julianday('now') - 2440587.5) * 86400.0").scalar_one())
    return float(connection.execute(sa.select(sa.extract("epoch", sa.func.clock_timestamp()))).scalar_one())


def insert(connection: sa.Connection, table: sa.Table) -> Any:
    """Return an INSERT that may say what happens to rows that exist."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


# --- leases -----------------------------------------------------------------------------------------------------------


#: Kept from being ended until the transaction has ended.
_SELECT_LEASE: Final = (
    sa.select(workers.c.id)
    .where(workers.c.id == sa.bindparam("worker"), workers.c.ended_at.is_(None))
    .with_for_update(read=True)
)


def require_lease(connection: sa.Connection, worker: str) -> None:
    """Require that a worker's lease holds, and keep it from being ended until this transaction has ended.

    :raises LeaseEndedError: if it does not.
    """
    if connection.execute(_SELECT_LEASE, {"worker": worker}).first() is None:
        raise LeaseEndedError


def insert_worker(connection: sa.Connection, row: Mapping[str, Any]) -> None:
    """Insert a worker, with a lease of `ttl` seconds from now on."""
    at = now(connection)
    connection.execute(sa.insert(workers).values(**row, started_at=at, expires_at=at + row["ttl"]))


def beat(connection: sa.Connection, worker: str) -> bool:
    """Extend the lease of a worker; return False if it has ended."""
    at = now(connection)
    extended = (
        sa.update(workers)
        .where(workers.c.id == worker, workers.c.ended_at.is_(None))
        .values(expires_at=at + workers.c.ttl)
    )
    return connection.execute(extended).rowcount > 0


def end_lease(connection: sa.Connection, worker: str, reason: str) -> None:
    """End a lease that holds."""
    ended = sa.update(workers).where(workers.c.id == worker, workers.c.ended_at.is_(None))
    if connection.execute(ended.values(ended_at=now(connection), reason=reason)).rowcount:
        _forget_stops(connection)


def end_expired(connection: sa.Connection) -> list[str]:
    """End the leases that have expired, for good; return their workers."""
    at = now(connection)
    late = sa.update(workers).where(workers.c.ended_at.is_(None), workers.c.expires_at < at)
    ended = connection.execute(late.values(ended_at=at, reason="expired").returning(workers.c.id)).scalars().all()
    if ended:
        _forget_stops(connection)
    return list(ended)


def _forget_stops(connection: sa.Connection) -> None:
    """Delete why accounts are stopped: it may be the reason of the worker that ended, and the others save theirs."""
    connection.execute(sa.update(accounts).values(stop_reason=None, stop_kind=None))


def live_workers(connection: sa.Connection) -> set[str]:
    """Return the workers whose lease has not ended."""
    return set(connection.execute(sa.select(workers.c.id).where(workers.c.ended_at.is_(None))).scalars())


def delete_ended(connection: sa.Connection, age: float) -> None:
    """Delete the workers whose lease ended longer than `age` seconds ago and that own no job."""
    owns = sa.exists().where(jobs.c.owner == workers.c.id)
    connection.execute(sa.delete(workers).where(workers.c.ended_at < now(connection) - age, ~owns))


def select_workers(connection: sa.Connection) -> list[dict[str, Any]]:
    """Return the rows of all workers, the first started first, each with the number of its jobs and the time."""
    owned = sa.select(sa.func.count()).where(jobs.c.owner == workers.c.id).scalar_subquery()
    rows = connection.execute(sa.select(workers, owned.label("jobs")).order_by(workers.c.started_at)).mappings()
    at = now(connection)
    return [dict(row) | {"now": at} for row in rows]


def count_live(connection: sa.Connection) -> int:
    """Return the number of workers whose lease holds."""
    return int(connection.execute(sa.select(sa.func.count()).where(workers.c.ended_at.is_(None))).scalar_one())


def select_orphans(connection: sa.Connection) -> list[dict[str, Any]]:
    """Return the task ids that came too late, the first found first, each with its age in seconds."""
    columns = [orphans.c[name] for name in ("key", "account", "provider", "task_id", "worker")]
    age = sa.literal(now(connection)) - orphans.c.found_at
    rows = connection.execute(sa.select(*columns, age.label("age")).order_by(orphans.c.id)).mappings()
    return [dict(row) for row in rows]


# --- accounts, settings, samples --------------------------------------------------------------------------------------


def upsert_accounts(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the bounds of accounts, or replace those of the same name; what is used of them stays."""
    bounds = ("max_in_flight", "submits_per_second", "max_charges", "budget")
    for row in sorted(rows, key=lambda each: str(each["name"])):
        statement = insert(connection, accounts).values(**row)
        new = {column: getattr(statement.excluded, column) for column in bounds if column in row}
        connection.execute(
            statement.on_conflict_do_update(index_elements=["name"], set_=new) if new
            else statement.on_conflict_do_nothing()
        )  # fmt: skip


def select_accounts(connection: sa.Connection) -> dict[str, dict[str, Any]]:
    """Return the rows of all accounts by name, and that of all together by `ALL_ACCOUNTS`."""
    return {row["name"]: dict(row) for row in connection.execute(sa.select(accounts)).mappings()}


@attrs.frozen(kw_only=True)
class Sharing:
    """What the workers share of their accounts at one moment."""

    #: The rows of all accounts by name, and that of all together.
    rows: dict[str, dict[str, Any]]
    #: Number of submissions under way, by account.
    submitting: dict[str, int]
    #: Number of workers whose lease holds, this one at least.
    live: int
    #: Seconds by which the database's clock is ahead of this machine's monotonic one.
    ahead: float


def select_sharing(connection: sa.Connection) -> Sharing:
    """Return what the workers share of their accounts."""
    return Sharing(
        rows=select_accounts(connection), submitting=count_submitting(connection),
        live=max(1, count_live(connection)), ahead=now(connection) - time.monotonic(),
    )  # fmt: skip


def count_submitting(connection: sa.Connection) -> dict[str, int]:
    """Return how many jobs are being sent to each account that any are sent to."""
    name = sa.func.coalesce(jobs.c.account, jobs.c.provider)
    counted = sa.select(name, sa.func.count()).where(jobs.c.status == JobStatus.SUBMITTING.value).group_by(name)
    return {account: number for account, number in connection.execute(counted).all()}  # noqa: C416 - rows


def record_answers(connection: sa.Connection, name: str, answers: Sequence[SlotAnswer]) -> None:
    """Let all workers learn from what one has seen of the places of an account."""
    found = sa.select(accounts).where(accounts.c.name == name).with_for_update()
    row = connection.execute(found).mappings().first()
    if row is not None:
        accepted = row["in_flight"] - count_submitting(connection).get(name, 0)
        learned = answered_text(dict(row), answers, accepted, now(connection) - time.monotonic())
        connection.execute(sa.update(accounts).where(accounts.c.name == name).values(concurrency=learned))


def set_stop(connection: sa.Connection, name: str, reason: str | None, kind: str | None) -> None:
    """Save why nothing is submitted to an account, and the kind of that reason; None: submissions are allowed."""
    stopped = sa.update(accounts).where(accounts.c.name == name)
    connection.execute(stopped.values(stop_reason=reason, stop_kind=kind))


def set_setting(connection: sa.Connection, name: str, value: str) -> None:
    """Insert or replace the JSON text of a setting."""
    statement = insert(connection, settings).values(name=name, value=value)
    new = {"value": statement.excluded.value}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=new))


def select_settings(connection: sa.Connection) -> dict[str, str]:
    """Return the JSON text of every setting by name."""
    rows = connection.execute(sa.select(settings)).mappings()
    return {row["name"]: row["value"] for row in rows}


def insert_upload(connection: sa.Connection, upload: Upload) -> None:
    """Insert or replace the address of a content."""
    row = {"sha256": upload.sha256, "url": upload.url, "uploaded_at": upload.at.isoformat()}
    statement = insert(connection, uploads).values(**row)
    new = {"url": statement.excluded.url, "uploaded_at": statement.excluded.uploaded_at}
    connection.execute(statement.on_conflict_do_update(index_elements=["sha256"], set_=new))


def select_uploads(connection: sa.Connection, limit: int) -> list[Upload]:
    """Return the latest uploads, the earliest first."""
    found = sa.select(uploads).order_by(uploads.c.uploaded_at.desc()).limit(limit)
    return [
        Upload(sha256=row["sha256"], url=row["url"], at=datetime.fromisoformat(row["uploaded_at"]))
        for row in reversed(connection.execute(found).mappings().all())
    ]


#: The columns of a sample that are fields of it.
_SAMPLE_COLUMNS: Final = [column for column in samples.columns if column.name not in {"id", "worker"}]


def insert_samples(connection: sa.Connection, worker: str, new: Sequence[DurationSample]) -> None:
    """Insert the duration samples of a worker."""
    rows = [{column.name: getattr(sample, column.name) for column in _SAMPLE_COLUMNS} for sample in new]
    connection.execute(sa.insert(samples), [row | {"worker": worker} for row in rows])


def select_samples(connection: sa.Connection) -> tuple[int, list[DurationSample]]:
    """Return the latest id, and of each stratum the `SAMPLES_PER_STRATUM` last accepted samples, in that order."""
    latest = connection.execute(sa.select(sa.func.coalesce(sa.func.max(samples.c.id), 0))).scalar_one()
    kept = sa.select(*_SAMPLE_COLUMNS).where(samples.c.id.in_(_kept_samples())).order_by(samples.c.accepted_at)
    return int(latest), [DurationSample(**row) for row in connection.execute(kept).mappings()]


def select_new_samples(
    connection: sa.Connection, worker: str, after: int, limit: int
) -> tuple[int, list[DurationSample]]:
    """Return the latest id, and the latest samples with an id above `after`, but for those that `worker` saved itself.

    :param limit: maximum number of rows that are read; a sample is a hint, and older ones may be missed.
    """
    found = sa.select(samples).where(samples.c.id > after).order_by(samples.c.id.desc()).limit(limit)
    rows = [dict(row) for row in connection.execute(found).mappings()][::-1]
    new = [{column.name: row[column.name] for column in _SAMPLE_COLUMNS} for row in rows if row["worker"] != worker]
    return (rows[-1]["id"] if rows else after), [DurationSample(**row) for row in new]


def delete_samples(connection: sa.Connection) -> None:
    """Delete all but the last accepted `SAMPLES_PER_STRATUM` samples of each stratum, as a journal does."""
    connection.execute(sa.delete(samples).where(samples.c.id.not_in(_kept_samples())))


def _kept_samples() -> sa.Select[tuple[int]]:
    """Return the ids of the samples that are worth keeping."""
    order = (samples.c.accepted_at.desc(), samples.c.id.desc())
    age = sa.func.row_number().over(partition_by=samples.c.stratum, order_by=order)
    ranked = sa.select(samples.c.id, age.label("age")).subquery()
    return sa.select(ranked.c.id).where(ranked.c.age <= SAMPLES_PER_STRATUM)
