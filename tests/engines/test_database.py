"""Transactions of a cluster's database: tried again where that helps, and refused at once where it does not."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from pika_async import Account, Cluster, ClusterUnusable
from pika_async.engines import database as database_module
from pika_async.engines import shared_statements
from pika_async.engines.database import Database, StatementRefused, checked_url
from pika_async.errors import JournalFailed
from tests.engines.postgres import PostgresServer, new_database

pytestmark = pytest.mark.anyio

SECRET = "p4ss-CANARY"


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that the test may stop."""
    made = PostgresServer.create()
    yield made
    made.remove()


async def opened(url: str) -> Database:
    database = Database(url)
    await database.open()
    return database


def count(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT count(*) FROM pika_settings").scalar_one())


async def test_a_transaction_outlives_a_restart_of_the_server(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped in its middle, and started again only after it was tried in vain; it is committed once.

    That it is away is logged once as a warning, and that it is back.
    """
    database = await opened(server.url("postgres").replace("pika@", f"pika:{SECRET}@"))
    began, tries, loop = asyncio.Event(), 0, asyncio.get_running_loop()

    def write(connection: sa.Connection) -> None:
        nonlocal tries
        tries += 1
        connection.exec_driver_sql("INSERT INTO pika_settings VALUES ('x', '1')")
        if tries == 1:
            loop.call_soon_threadsafe(began.set)
            connection.exec_driver_sql("SELECT pg_sleep(60)")

    with caplog.at_level(logging.DEBUG, "pika_async.database"):
        writing = asyncio.create_task(database.run(write))
        await began.wait()
        await asyncio.to_thread(server.stop, "immediate")
        while sum("trying again" in record.getMessage() for record in caplog.records) < 2:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.start)
        await writing
    assert tries == 2
    assert await database.run(count) == 1
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text.partition(",")[0] for text in warnings] == [
        "the database does not answer",
        "the database answers again",
    ]
    assert SECRET not in caplog.text
    await database.close()


async def test_a_server_that_stays_away_is_named_without_its_password(
    server: PostgresServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "RETRY_WAITS_S", (0.01, 0.01))
    url = server.url("postgres").replace("pika@", f"pika:{SECRET}@") + f"?passfile=/{SECRET}"
    database = await opened(url)
    await asyncio.to_thread(server.stop, "fast")
    with caplog.at_level(logging.DEBUG), pytest.raises(JournalFailed, match="postgres cannot be written") as failed:
        await database.run(count)
    assert not isinstance(failed.value, StatementRefused)
    with pytest.raises(ClusterUnusable, match=r"pika:\*\*\*@127.0.0.1:\d+/postgres cannot be used") as refused:
        await Database(url).open()
    assert str(refused.value).endswith("Connection refused; check the host and the port, and that it is running")
    for text in (str(failed.value), repr(failed.value), str(refused.value), repr(refused.value), caplog.text):
        assert SECRET not in text
    assert sum("trying again" in record.getMessage() for record in caplog.records) == 2
    await database.close()


async def test_what_helps_is_said(server: PostgresServer) -> None:
    """Where the database or its password is missing; a server that refuses a password is not one that is away."""
    with pytest.raises(ClusterUnusable, match='"nothere" does not exist; check its name, or make it with createdb'):
        await Database(server.url("nothere")).open()
    access = server.folder / "data" / "pg_hba.conf"
    access.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    await asyncio.to_thread(server.stop, "fast")
    await asyncio.to_thread(server.start)
    for url in (server.url("postgres"), server.url("postgres").replace("pika@", f"pika:{SECRET}@")):
        with pytest.raises(ClusterUnusable, match=r"check the user, and give the password in PGPASSWORD or ~/.pgpass"):
            await Database(url).open()


async def test_a_password_is_shown_nowhere() -> None:
    """Not in what an address is refused with, wherever the password stands in it, nor in a representation."""
    account = Account("native", base_url="http://127.0.0.1:9")
    for url in (
        f"postgresql:/pika:{SECRET}@host/x",
        f"postgresql://pika:{SECRET}@host:port/x",
        f"postgresql://pika:a@{SECRET}@host/x",
        f"mysql://pika:{SECRET}@host/x",
        f"sqlite://pika:{SECRET}@/x",
    ):
        with pytest.raises(ClusterUnusable) as error:
            Cluster(url, [account])
        assert SECRET not in str(error.value) + repr(error.value)
        assert error.value.setting == "database"
        assert error.value.__cause__ is None
    for url in (f"postgresql://pika:{SECRET}@host/x", f"postgresql://host/x?user=pika&password={SECRET}"):
        assert SECRET not in repr(Cluster(url, [account])) + Database(url).text


def test_the_drivers_are_ours() -> None:
    """An address for another driver of the same database is one for ours."""
    for given, driver in (
        ("postgres://pika@host/x", "postgresql+psycopg"),
        ("postgresql+asyncpg://pika@host/x", "postgresql+psycopg"),
        ("sqlite+aiosqlite:////x.db", "sqlite"),
    ):
        assert checked_url(given).drivername == driver


async def test_a_wrong_statement_fails_at_once_and_by_its_reason(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its text and its values, which may be a prompt, are not shown."""
    database, tries = await opened(database_url), 0

    def run(connection: sa.Connection, statement: str) -> None:
        nonlocal tries
        tries += 1
        connection.execute(sa.text(statement), {"x": "PROMPT"})

    for statement, reason in (
        ("SELECT nothing_like_it FROM pika_jobs WHERE key = :x", "nothing_like_it"),
        ("SELECT 1 FROM no_such_table WHERE key = :x", "no_such_table"),
        ("INSERT INTO pika_settings (name) VALUES (:x)", "pika_settings"),
    ):
        with pytest.raises(StatementRefused, match=reason) as error:
            await database.run(run, statement)
        assert "PROMPT" not in str(error.value) + caplog.text
        assert error.value.__cause__ is None
    assert (tries, caplog.records) == (3, [])
    await database.close()


async def test_a_transaction_that_another_displaced_is_tried_again(postgres: PostgresServer) -> None:
    """A serialization failure: what it read has changed, so it reads it anew."""
    database = await opened(new_database(postgres))
    other = await opened(database.url.render_as_string())
    await database.run(shared_statements.set_setting, "x", "1")
    other_writes = iter(["10"])
    seen: list[str] = []

    def add_one(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        value = shared_statements.select_settings(connection)["x"]
        seen.append(value)
        for written in other_writes:
            with other.engine.begin() as second:
                shared_statements.set_setting(second, "x", written)
        shared_statements.set_setting(connection, "x", str(int(value) + 1))

    await database.run(add_one)
    assert (seen, await database.run(shared_statements.select_settings)) == (["1", "10"], {"x": "11"})
    await database.close()
    await other.close()


async def test_what_fails_undoes_its_transaction(database_url: str) -> None:
    database = await opened(database_url)

    def fail(connection: sa.Connection) -> None:
        shared_statements.set_setting(connection, "x", "1")
        raise LookupError("ours")

    with pytest.raises(LookupError, match="ours"):
        await database.run(fail)
    assert await database.run(count) == 0
    await database.close()


async def test_a_lock_of_another_process_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "SQLITE_BUSY_MS", 20)
    database = await opened(f"sqlite:///{tmp_path}/c.db")
    with closing(sqlite3.connect(tmp_path / "c.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(database.run(shared_statements.set_setting, "x", "1"))
        done, _ = await asyncio.wait([writing], timeout=0.3)
        assert not done
    await writing
    assert await database.run(count) == 1
    await database.close()


async def test_postgresql_ends_the_transaction_of_a_process_that_was_stopped(postgres: PostgresServer) -> None:
    """Its locks would keep all other workers waiting for as long as it is stopped."""
    database = await opened(new_database(postgres))
    shown = "SHOW idle_in_transaction_session_timeout"
    assert await database.run(lambda connection: connection.exec_driver_sql(shown).scalar_one()) == "3s"
    await database.close()
