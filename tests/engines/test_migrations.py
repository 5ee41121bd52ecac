"""Tables of a cluster's database: made once, brought forward, and never made in what is another program's."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from pika_async import Account, Cluster, ClusterUnusable
from pika_async._journal.sqlite import SqliteJournal
from pika_async.engines import shared_statements, statements, tables
from pika_async.engines.database import Database
from pika_async.engines.tables import TABLE_MIGRATIONS, TABLES_VERSION, migrate, stored_version
from pika_async.errors import ConfigurationError
from pika_async.polling import DurationSample
from tests.engines.postgres import PostgresServer, new_database
from tests.engines.rows import Rows, accepted
from tests.fakes.canary import CANARY
from tests.journal.builders import a_job

pytestmark = pytest.mark.anyio


def add_rank(connection: sa.Connection) -> None:
    """The step to a version 2 that there may be one day."""
    connection.exec_driver_sql("ALTER TABLE pika_jobs ADD COLUMN rank INTEGER")


async def test_the_tables_of_an_empty_database_are_made_and_kept(database_url: str) -> None:
    for expected in ([], ["a"]):
        database = Database(database_url)
        await database.open()
        assert await database.run(stored_version) == TABLES_VERSION
        assert [key for key in await database.run(statements.insert_jobs, [a_job("a")]) if expected] == []
        assert await database.run(statements.select_job, "a") == a_job("a")
        await database.close()


def test_rows_of_an_earlier_version_are_kept(rows: Rows) -> None:
    """Only the steps that it lacks are done."""
    rows.add_account("", max_charges=5)
    rows.add_worker("w")
    rows.add_jobs("a", "b", owner="w")
    rows.save("w", accepted("a"))
    before = rows.jobs()
    rows.run(migrate, (*TABLE_MIGRATIONS, add_rank))
    assert rows.run(stored_version) == TABLES_VERSION + 1
    assert rows.jobs() == before
    assert rows.used() == (1, 1, 0)
    names = rows.run(lambda connection: [column["name"] for column in sa.inspect(connection).get_columns("pika_jobs")])
    assert "rank" in names
    rows.run(migrate, (*TABLE_MIGRATIONS, add_rank, lambda _: None))  # no step is done again
    assert rows.run(stored_version) == TABLES_VERSION + 2


def test_tables_of_version_1_get_the_columns_that_came_later(rows: Rows) -> None:
    """With what is in them; a worker of that version may still write, as none of the new columns is required."""
    rows.add_account("main", max_charges=5)
    for column in (tables.accounts.c.stop_kind, tables.accounts.c.concurrency, tables.samples.c.worker):
        rows.run(
            lambda connection, it: connection.execute(sa.text(f"ALTER TABLE {it.table} DROP COLUMN {it.name}")), column
        )
    rows.run(lambda connection: connection.execute(sa.text("UPDATE pika_version SET version = 1")))
    rows.run(migrate)
    assert rows.run(stored_version) == TABLES_VERSION
    row = rows.run(shared_statements.select_accounts)["main"]
    assert (row["max_charges"], row["stop_kind"], row["concurrency"]) == (5, None, None)
    rows.run(shared_statements.insert_samples, "w", [DurationSample("x", lower=1.0, upper=2.0)])
    assert rows.run(shared_statements.select_new_samples, "v", 0, 9)[1] == [DurationSample("x", lower=1.0, upper=2.0)]


async def test_a_later_version_is_refused_by_name_and_left_alone(database_url: str) -> None:
    rows = await asyncio.to_thread(Rows.create, database_url)
    await asyncio.to_thread(rows.run, migrate, (*TABLE_MIGRATIONS, add_rank))
    cluster = Cluster(database_url, [Account("native", api_key="k", base_url="http://127.0.0.1:9")])
    with pytest.raises(
        ClusterUnusable, match=rf"of version {TABLES_VERSION + 1}, .* newer pika_async .* upgrade"
    ) as error:
        await cluster.open()
    assert error.value.setting == "database"
    assert await asyncio.to_thread(rows.run, stored_version) == TABLES_VERSION + 1
    rows.engine.dispose()


def test_a_step_that_fails_leaves_nothing_behind(rows: Rows) -> None:
    def fail(connection: sa.Connection) -> None:
        add_rank(connection)
        raise ConfigurationError(setting="x", reason="y")

    with pytest.raises(ConfigurationError):
        rows.run(migrate, (*TABLE_MIGRATIONS, fail))
    assert rows.run(stored_version) == TABLES_VERSION
    rows.run(migrate, (*TABLE_MIGRATIONS, add_rank))


async def test_several_that_open_an_empty_database_at_once_all_succeed(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(5)]
    await asyncio.gather(*(database.open() for database in databases))
    await asyncio.gather(*(database.run(statements.insert_jobs, [a_job("a")]) for database in databases))
    assert await databases[0].run(statements.select_job, "a") == a_job("a")
    await asyncio.gather(*(database.close() for database in databases))


async def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A journal is one; what it holds is paid for."""
    journal = SqliteJournal(tmp_path / "journal.db")
    await journal.open()
    await journal.close()
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("PRAGMA application_id=77")
    (tmp_path / "text.db").write_text("not a database " * 100)
    (tmp_path / "folder.db").mkdir()
    for name, reason in (
        ("journal.db", "is the journal of a batch, not a database of a cluster: give another file"),
        ("other.db", "is a file of another program"),
        ("text.db", "cannot be used: file is not a database"),
        ("folder.db", "cannot be used: unable to open database file"),
        ("missing/x.db", "cannot be used: unable to open database file"),
    ):
        with pytest.raises(ClusterUnusable, match=reason):
            await Database(f"sqlite:///{tmp_path / name}").open()
    again = SqliteJournal(tmp_path / "journal.db")
    await again.open()
    await again.close()


def test_a_table_of_the_same_name_is_not_taken_for_ours(database_url: str) -> None:
    rows = Rows(Database(database_url).engine)
    rows.run(lambda connection: connection.exec_driver_sql("CREATE TABLE pika_jobs (x INTEGER)"))
    with pytest.raises(ClusterUnusable, match="has a table pika_jobs that pika_async did not make"):
        rows.run(migrate)
    assert rows.run(lambda connection: sa.inspect(connection).get_table_names()) == ["pika_jobs"]
    rows.engine.dispose()


def test_tables_of_others_beside_ours_are_allowed(postgres: PostgresServer) -> None:
    rows = Rows(Database(new_database(postgres)).engine)
    rows.run(lambda connection: connection.exec_driver_sql("CREATE TABLE theirs (x INTEGER)"))
    rows.run(migrate)
    assert rows.run(stored_version) == TABLES_VERSION
    rows.engine.dispose()


async def test_no_key_is_stored(database_url: str) -> None:
    """Of the accounts only their names and bounds are."""
    account = Account("native", api_key=CANARY, base_url="http://127.0.0.1:9", max_charges=3)
    async with Cluster(database_url, [account]) as cluster:
        await cluster.submit_many(["a cat"])
        task = asyncio.create_task(cluster.run_worker(lease_ttl=6.0))
        while not await cluster.workers():
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        stored = await asyncio.to_thread(dump, database_url)
    assert b"native" in stored
    assert b"a cat" in stored
    assert CANARY.encode() not in stored


def dump(database_url: str) -> bytes:
    """Return every value of every table, those of the queue included."""
    engine, parts = Database(database_url).engine, []
    with engine.begin() as connection:
        inspector = sa.inspect(connection)
        for schema in inspector.get_schema_names() if engine.dialect.name == "postgresql" else [None]:
            for name in inspector.get_table_names(schema) if schema != "information_schema" else []:
                table = sa.Table(name, sa.MetaData(), schema=schema, autoload_with=connection)
                parts += [repr(tuple(row)).encode() for row in connection.execute(sa.select(table))]
    engine.dispose()
    return b"\n".join(parts)


def test_every_table_has_its_name_from_us() -> None:
    assert all(name.startswith("pika_") for name in tables.metadata.tables)
