"""Statements that change jobs, and what is used of their accounts; see `statements`. Commits nothing by itself.

A transaction takes its locks in one order - the lease, the jobs by their keys, the accounts by their names - so that
none waits for another in a circle. What it changes is worked out in memory, over the rows that are locked, and then
written in a few statements, however many jobs there are: executing a statement costs more than what it does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, Self

import attrs
import sqlalchemy as sa

from pika_async._journal.protocol import Intent
from pika_async._journal.serialization import job_from_row, job_to_row
from pika_async.engines.bounds import ALL_ACCOUNTS, Held, Usage, hold_of, usage_of
from pika_async.engines.shared_concurrency import started_text
from pika_async.engines.shared_statements import LeaseEndedError, count_submitting, require_lease
from pika_async.engines.statements import ROOT, intent_of, pages, revision, with_contents
from pika_async.engines.tables import accounts, jobs, workers
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest

__all__ = ["Write", "archive_owned", "claim_all", "save_free", "write_all"]

#: Of an intent; they are kept until the next one, but for what can be sent again.
_INTENT_COLUMNS: Final = ("intended_at", "body_sha256", "callback_sha256", "repeatable")
#: Columns of a job from which follows who may change it, what it uses, and whether an intent is saved already.
_LOCKED_COLUMNS: Final = (
    "key", "owner", "account", "provider", "status", "cost", "task_id", "submitted_at", "attempts", *_INTENT_COLUMNS,
)  # fmt: skip


@attrs.frozen
class Write:
    """What a worker writes in one piece about jobs that it owns."""

    #: Jobs to be saved together.
    jobs: Sequence[Job]
    #: The intent of the only job, which is about to be sent; None: it is not.
    intent: Intent | None = None
    #: The key of a job that is given up after that; None: none is.
    released: str | None = None


def claim_all(connection: sa.Connection, keys: Collection[str], worker: str) -> dict[str, tuple[Job, Intent | None]]:
    """Make those jobs that no other live worker owns some of `worker`; return them with their latest intents, by key.

    :raises LeaseEndedError: if the lease of `worker` has ended.
    """
    require_lease(connection, worker)
    claimed: dict[str, tuple[Job, Intent | None]] = {}
    for page in pages(keys):
        for row in connection.execute(_CLAIM, {"keys": page, "claimed_by": worker}).mappings().all():
            claimed[row["key"]] = job_from_row(with_contents(connection, row), ROOT), intent_of(row)
    return claimed


_LIVE_OTHERS: Final = sa.select(workers.c.id).where(
    workers.c.ended_at.is_(None), workers.c.id != sa.bindparam("claimed_by")
)
_CLAIM: Final = (
    sa.update(jobs)
    .where(
        jobs.c.key.in_(sa.bindparam("keys", expanding=True)),
        jobs.c.owner.is_(None) | jobs.c.owner.not_in(_LIVE_OTHERS),
    )
    .values(owner=sa.bindparam("claimed_by"), queued=False)
    .returning(*jobs.columns)
)


def write_all(connection: sa.Connection, worker: str, writes: Sequence[Write]) -> list[Held | list[Job] | None]:
    """Write about jobs that `worker` owns, in order; a job that is released is one that no worker drives any more.

    :return: for each of `writes` the jobs that `worker` does not own any more, of which nothing was saved; for one with
        an intent, why it must not be sent now, or None.
    :raises LeaseEndedError: if the lease of `worker` has ended, or it does not own a job that is being sent.
    """
    number, at = _require_lease_at(connection, worker)
    names = {write.jobs[0].account_and_cost[0] for write in writes if write.intent is not None}
    changes = _Changes.lock(connection, number, {job.key for write in writes for job in write.jobs}, names)
    results: list[Held | list[Job] | None] = []
    for write in writes:
        if write.intent is None:
            results.append(changes.save(write.jobs, owner=worker))
        else:
            results.append(changes.intend(write.jobs[0], write.intent, worker, at))
    changes.execute(connection)
    released = [write.released for write in writes if write.released is not None]
    for page in pages(released):
        connection.execute(_RELEASE, {"keys": page, "owned_by": worker, "number": number})
    return results


#: Who follows the jobs sees that as a change.
_RELEASE: Final = (
    sa.update(jobs)
    .where(jobs.c.key.in_(sa.bindparam("keys", expanding=True)), jobs.c.owner == sa.bindparam("owned_by"))
    .values(owner=None, revision=sa.bindparam("number"))
)


def _require_lease_at(connection: sa.Connection, worker: str) -> tuple[int, float]:
    """Require a lease as `require_lease` does; return the number of the changes, and the time on the database's clock.

    :raises LeaseEndedError: if it has ended.
    """
    found = connection.execute(_select_lease_at(connection.dialect.name), {"worker": worker}).first()
    if found is None:
        raise LeaseEndedError
    return int(found[0]), float(found[1])


@cache
def _select_lease_at(dialect: str) -> sa.Select[Any]:
    """Return the statement that locks a lease and reads what `revision` and `now` read: one instead of three."""
    number: sa.ColumnElement[int]
    if dialect == "sqlite":
        number = sa.select(sa.func.coalesce(sa.func.max(jobs.c.revision), 0) + 1).scalar_subquery()
        at = sa.literal_column("(julianday('now') - 2440587.5) * 86400.0", sa.Float)
    else:
        number = sa.literal_column("pg_current_xact_id()::text::bigint", sa.BigInteger)
        at = sa.literal_column("extract(epoch FROM clock_timestamp())::float8", sa.Float)
    holds = (workers.c.id == sa.bindparam("worker")) & workers.c.ended_at.is_(None)
    return sa.select(number, at).select_from(workers).where(holds).with_for_update(read=True)


def save_free(connection: sa.Connection, changed: Sequence[Job], status: JobStatus) -> list[Job]:
    """Save jobs that no worker owns and that have `status`; return those of which nothing was saved."""
    changes = _Changes.lock(connection, revision(connection), {job.key for job in changed})
    lost = changes.save(changed, owner=None, status=status)
    changes.execute(connection)
    return lost


def archive_owned(connection: sa.Connection, worker: str, key: str, archived: Job) -> None:
    """Give a job that `worker` owns the key of `archived`, and save it so.

    :raises LeaseEndedError: if the lease of `worker` has ended, or it does not own the job.
    """
    require_lease(connection, worker)
    renamed = sa.update(jobs).where(jobs.c.key == key, jobs.c.owner == worker).values(key=archived.key)
    if not connection.execute(renamed).rowcount:
        raise LeaseEndedError
    changes = _Changes.lock(connection, revision(connection), {archived.key})
    changes.save([archived], owner=worker)
    changes.execute(connection)


# --- changes ----------------------------------------------------------------------------------------------------------


@attrs.define
class _Changes:
    """Changes of jobs and of what is used of their accounts, over rows that this transaction has locked."""

    #: The number of the changes.
    number: int
    #: The rows of the jobs as they will be, by key; only the columns that are needed here.
    jobs: dict[str, dict[str, Any]]
    #: The rows of the accounts as they will be, by name; only of those whose bounds are checked.
    accounts: dict[str, dict[str, Any]]
    #: The columns to write, by the key of the job.
    rows: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    #: What more is used of an account, by its name.
    more: dict[str, Usage] = attrs.field(factory=dict)
    #: When the next submission may be sent to an account, by its name.
    next_at: dict[str, float] = attrs.field(factory=dict)
    #: What was learned of an account that refuses submissions, by its name.
    learned: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def lock(cls, connection: sa.Connection, number: int, keys: Collection[str], names: Collection[str] = ()) -> Self:
        """Lock jobs, and the accounts of `names` with all together."""
        found: list[Mapping[Any, Any]] = []
        for page in pages(sorted(keys)):
            found += connection.execute(_LOCK_JOBS, {"keys": page}).mappings().all()
        bounds: Sequence[Mapping[Any, Any]] = ()
        if names:
            bounds = connection.execute(_LOCK_ACCOUNTS, {"names": [ALL_ACCOUNTS, *names]}).mappings().all()
        refusing = any(row["concurrency"] is not None for row in bounds)
        submitting = count_submitting(connection) if refusing else {}
        return cls(
            number,
            {row["key"]: dict(row) for row in found},
            {row["name"]: {**row, "submitting": submitting.get(row["name"], 0)} for row in bounds},
        )

    def save(
        self,
        changed: Sequence[Job],
        *,
        owner: str | None,
        status: JobStatus | None = None,
        intent: Intent | None = None,
    ) -> list[Job]:
        """Change jobs that `owner` owns and that have `status`, if that is given; return the others."""
        lost = []
        for job in changed:
            before = self.jobs.get(job.key)
            if before is None or before["owner"] != owner or (status is not None and before["status"] != status):
                lost.append(job)
                continue
            row = job_to_row(job, intent, ROOT) | {"revision": self.number}
            if intent is None:
                row = {name: value for name, value in row.items() if name not in _INTENT_COLUMNS}
                if job.status not in {JobStatus.SUBMITTING, JobStatus.UNKNOWN}:
                    row["repeatable"] = None
            self._count(_stored_usage(before), -1)
            self._count(usage_of(job), 1)
            bounds = self.accounts.get(job.account_and_cost[0])
            if bounds is not None:
                was_sending, is_sending = before["status"] == JobStatus.SUBMITTING, job.status is JobStatus.SUBMITTING
                bounds["submitting"] += is_sending - was_sending
            before |= {name: value for name, value in row.items() if name in before}
            self.rows[job.key] = self.rows.get(job.key, {}) | row
        return lost

    def intend(self, job: Job, intent: Intent, worker: str, at: float) -> Held | None:
        """Change a job to one that is being sent, if that fits into the bounds; return why it does not, else None.

        :raises LeaseEndedError: if `worker` does not own it.
        """
        saved = self.jobs.get(job.key)
        is_saved = saved is not None and (saved["owner"], saved["status"]) == (worker, JobStatus.SUBMITTING)
        if saved is not None and is_saved and intent_of(saved) == intent:
            return None  # the answer to the commit of an earlier try was lost
        bounds = [self.accounts[name] for name in (ALL_ACCOUNTS, job.account_and_cost[0]) if name in self.accounts]
        for row in bounds:
            held = hold_of(row, job.cost, at, row["submitting"])
            if held is not None:
                return held
        if self.save([job], owner=worker, intent=intent):
            raise LeaseEndedError
        for row in bounds:
            if row["submits_per_second"] is not None:
                row["next_submit_at"] = self.next_at[row["name"]] = at + 1.0 / row["submits_per_second"]
            if (learned := started_text(row, at)) is not None:
                row["concurrency"] = self.learned[row["name"]] = learned
        return None

    def _count(self, usage: Usage, sign: int) -> None:
        for name in () if usage.account is None else (ALL_ACCOUNTS, usage.account):
            old = self.more.get(name, Usage(name))
            self.more[name] = Usage(
                name, old.in_flight + sign * usage.in_flight, old.charges + sign * usage.charges,
                old.spent + sign * usage.spent,
            )  # fmt: skip
            row = self.accounts.get(name)
            if row is not None:
                row["in_flight"] += sign * usage.in_flight
                row["charges"] += sign * usage.charges
                row["spent"] += sign * usage.spent

    def execute(self, connection: sa.Connection) -> None:
        """Write the changes."""
        alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for key, row in self.rows.items():
            alike.setdefault(tuple(row), []).append(row | {"key_before": key})
        for columns, rows in alike.items():
            connection.execute(_update_job(columns), rows)
        used = [
            {
                "counted": name, "more_in_flight": more.in_flight, "more_charges": more.charges,
                "more_spent": more.spent, "next_at": self.next_at.get(name, 0.0),
            }
            for name, more in sorted(self.more.items())
            if more != Usage(name)
        ]  # fmt: skip
        if used:
            connection.execute(_COUNT_USAGE, used)
        if self.learned:
            learned = [{"learned_of": name, "learned": text} for name, text in sorted(self.learned.items())]
            connection.execute(_LEARN, learned)


_LOCK_JOBS: Final = (
    sa.select(*(jobs.c[name] for name in _LOCKED_COLUMNS))
    .where(jobs.c.key.in_(sa.bindparam("keys", expanding=True)))
    .order_by(jobs.c.key)
    .with_for_update()
)
_LOCK_ACCOUNTS: Final = (
    sa.select(accounts)
    .where(accounts.c.name.in_(sa.bindparam("names", expanding=True)))
    .order_by(accounts.c.name)
    .with_for_update()
)
#: What all workers learn of an account that refuses submissions; see `shared_concurrency`.
_LEARN: Final = (
    sa.update(accounts).where(accounts.c.name == sa.bindparam("learned_of")).values(concurrency=sa.bindparam("learned"))
)
#: What the jobs of an account use of it; changes are added. A time of the next submission is never put back.
_COUNT_USAGE: Final = (
    sa.update(accounts)
    .where(accounts.c.name == sa.bindparam("counted"))
    .values(
        {name: accounts.c[name] + sa.bindparam(f"more_{name}") for name in ("in_flight", "charges", "spent")}
        | {"next_submit_at": sa.case(
            (accounts.c.next_submit_at > sa.bindparam("next_at", type_=sa.Float), accounts.c.next_submit_at),
            else_=sa.bindparam("next_at", type_=sa.Float),
        )}
    )
)  # fmt: skip


@cache
def _update_job(columns: tuple[str, ...]) -> sa.Update:
    """Return the statement that saves `columns` of a job; made once, because that takes longer than to execute it."""
    values: dict[str, Any] = {name: sa.bindparam(name) for name in columns}
    return sa.update(jobs).where(jobs.c.key == sa.bindparam("key_before")).values(values)


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
