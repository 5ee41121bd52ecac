"""Tables of a cluster's database, and their versions. Reads and writes no rows but those of the version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from pika_async._journal.migrations import APPLICATION_IDS
from pika_async._journal.serialization import JOB_COLUMNS
from pika_async.errors import ClusterUnusable

__all__ = ["TABLES_VERSION", "accounts", "contents", "jobs", "migrate", "orphans", "samples", "settings", "workers"]

#: Held while the tables are made or changed, so that two processes do not do it at once; a number of our own.
MIGRATION_LOCK: Final = 7_452_110_933

metadata: Final = sa.MetaData()

#: Types of the columns of a job, but for text.
_TYPES: Final[dict[str, Any]] = {
    "idx": sa.BigInteger,
    "polls": sa.BigInteger,
    "attempts": sa.BigInteger,
    "progress": sa.Integer,
    "points": sa.Float,
    "refunded": sa.Float,
    "cost": sa.Float,
}  # fmt: skip
_serial: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts rows up in an INTEGER alone

jobs: Final = sa.Table(
    "pika_jobs",
    metadata,
    sa.Column("position", _serial, primary_key=True, autoincrement=True),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False, index=True),
    *(sa.Column(name, _TYPES.get(name, sa.Text)()) for name in JOB_COLUMNS),
    sa.Column("intended_at", sa.Text),
    sa.Column("body_sha256", sa.Text),
    sa.Column("callback_sha256", sa.Text, index=True),
    sa.Column("repeatable", sa.Text),
    # The worker that drives the job; NULL while none does.
    sa.Column("owner", sa.Text, index=True),
    # Whether a run of the job waits in the queue.
    sa.Column("queued", sa.Boolean, nullable=False, server_default=sa.false()),
    # Number of times that the job was enqueued.
    sa.Column("runs", sa.Integer, nullable=False, server_default="0"),
    # The transaction of the latest change.
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
    sa.Index("pika_jobs_task", "provider", "base_url", "task_id"),
    sa.Index("pika_jobs_status", "status", "position"),
)
contents: Final = sa.Table(
    "pika_contents",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
#: A row for each account, and one named "" for all of them together. Money is in billionths, so that sums are exact.
accounts: Final = sa.Table(
    "pika_accounts",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("max_in_flight", sa.Integer),
    sa.Column("submits_per_second", sa.Float),
    sa.Column("max_charges", sa.BigInteger),
    sa.Column("budget", sa.BigInteger),
    sa.Column("in_flight", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("charges", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("spent", sa.BigInteger, nullable=False, server_default="0"),
    # When the next submission may be sent, in seconds on the database's clock.
    sa.Column("next_submit_at", sa.Float, nullable=False, server_default="0"),
    # Why nothing is submitted, as the latest worker to stop has it, and which kind of reason that is: see `StopKind`.
    sa.Column("stop_reason", sa.Text),
    sa.Column("stop_kind", sa.Text),
    # What all workers have learned of how many jobs the account runs at a time, as JSON; see `shared_concurrency`. NULL
    # until it refuses one for that.
    sa.Column("concurrency", sa.Text),
)
workers: Final = sa.Table(
    "pika_workers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("max_jobs", sa.Integer, nullable=False),
    sa.Column("ttl", sa.Float, nullable=False),
    # Seconds on the database's clock.
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    # When its lease ended, which is final; NULL while it holds.
    sa.Column("ended_at", sa.Float),
    sa.Column("reason", sa.Text),
)
settings: Final = sa.Table(
    "pika_settings", metadata, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)
uploads: Final = sa.Table(
    "pika_uploads",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("uploaded_at", sa.Text, nullable=False),
)
samples: Final = sa.Table(
    "pika_samples",
    metadata,
    sa.Column("id", _serial, primary_key=True, autoincrement=True),
    sa.Column("stratum", sa.Text, nullable=False),
    sa.Column("lower", sa.Float, nullable=False),
    sa.Column("upper", sa.Float, nullable=False),
    sa.Column("progress_age", sa.Float),
    sa.Column("progress", sa.Integer),
    sa.Column("accepted_at", sa.Float),
    # The worker that saved it.
    sa.Column("worker", sa.Text),
)
#: Callbacks that a worker received for a job that another has, or none; the latest of each job.
callbacks: Final = sa.Table(
    "pika_callbacks",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("token_sha256", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
)
#: Task ids that a worker read after its lease had ended, when another worker had the job already. Each was paid for, so
#: none is ever pruned: they stay until a person has resolved their jobs.
orphans: Final = sa.Table(
    "pika_orphans",
    metadata,
    sa.Column("id", _serial, primary_key=True, autoincrement=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("account", sa.Text),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("base_url", sa.Text, nullable=False),
    sa.Column("task_id", sa.Text, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("found_at", sa.Float, nullable=False),
)
_version: Final = sa.Table("pika_version", metadata, sa.Column("version", sa.Integer, primary_key=True))

Migration = Callable[[sa.Connection], object]


def _add_columns(*columns: sa.Column[Any]) -> Migration:
    """Return the step that adds columns; tables that the first step has just made have them already."""

    def add(connection: sa.Connection) -> None:
        for column in columns:
            name = column.table.name
            existing = {each["name"] for each in sa.inspect(connection).get_columns(name)}
            if column.name not in existing:
                definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {definition}")

    return add


#: Steps from each version of the tables to the next.
TABLE_MIGRATIONS: Final[Sequence[Migration]] = (
    metadata.create_all,
    _add_columns(accounts.c.stop_kind, accounts.c.concurrency, samples.c.worker),
)
#: The version of the tables that this release reads and writes.
TABLES_VERSION: Final = len(TABLE_MIGRATIONS)


def migrate(connection: sa.Connection, migrations: Sequence[Migration] = TABLE_MIGRATIONS) -> None:
    """Make the tables, or bring those of an earlier version to this one.

    :raises ClusterUnusable: if they are of a later version, which this release cannot read, or if the database is
        another program's.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    version = stored_version(connection)
    if version > len(migrations):
        raise ClusterUnusable(
            setting="database",
            reason=f"has tables of version {version}, made by a newer pika_async (this one knows version "
            f"{len(migrations)}): upgrade pika_async here",
        )
    if version == len(migrations):
        return
    if not version:
        _require_unused(connection)
    for step in migrations[version:]:
        step(connection)
    _version.create(connection, checkfirst=True)
    connection.execute(sa.delete(_version))
    connection.execute(sa.insert(_version).values(version=len(migrations)))


def stored_version(connection: sa.Connection) -> int:
    """Return the version of the tables; 0 if there are none."""
    if not sa.inspect(connection).has_table(_version.name):
        return 0
    return int(connection.execute(sa.select(_version.c.version)).scalar_one_or_none() or 0)


def _require_unused(connection: sa.Connection) -> None:
    """Require that no other program has made this file, or tables of these names."""
    if connection.dialect.name == "sqlite":
        application = int(connection.exec_driver_sql("PRAGMA application_id").scalar_one())
        if application in APPLICATION_IDS:
            reason = "is the journal of a batch, not a database of a cluster: give another file"
            raise ClusterUnusable(setting="database", reason=reason)
        if application:
            raise ClusterUnusable(setting="database", reason="is a file of another program: give another one")
    existing = sorted(metadata.tables.keys() & set(sa.inspect(connection).get_table_names()))
    if existing:
        reason = f"has a table {existing[0]} that pika_async did not make: give a database of its own"
        raise ClusterUnusable(setting="database", reason=reason)
