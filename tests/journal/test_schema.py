"""Schema of the file: its version, and migrations that are applied completely or not at all."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pika_async._journal import schema
from pika_async._journal.migrations import APPLICATION_ID, MIGRATIONS, migrate
from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import JournalUnusable
from tests.journal.builders import assert_refused, create_journal, run_child

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.sqlite"


SECOND = "ALTER TABLE jobs ADD COLUMN note TEXT; UPDATE jobs SET note = 'new'"


def test_an_earlier_file_is_migrated_with_its_jobs(path: Path) -> None:
    """Before the migration, a reader says what to do."""
    asyncio.run(create_journal(path))
    with pytest.raises(JournalUnusable, match="open it once with a client"):
        schema.open_reader(path, (*MIGRATIONS, SECOND))
    with closing(schema.open_writer(path, (*MIGRATIONS, SECOND))) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert connection.execute("SELECT key, note FROM jobs").fetchall() == [("a", "new")]
    asyncio.run(assert_refused(path, "newer"))


@pytest.mark.parametrize("at", ["PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_schema"])
def test_a_reader_of_a_new_file_sees_no_table_or_all(path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """A commit of the owner between two queries of the reader does not make the file seem foreign."""
    schema.create_file(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("PRAGMA journal_mode=WAL")
        connect = schema._connect

        def connected(path: Path, mode: str) -> sqlite3.Connection:
            connection = connect(path, mode)
            connection.set_trace_callback(lambda asked: fill() if asked == at else None)
            return connection

        def fill() -> None:
            monkeypatch.setattr(schema, "_connect", connect)
            migrate(owner, 0, MIGRATIONS)

        monkeypatch.setattr(schema, "_connect", connected)
        reader = schema.open_reader(path)
        if reader is not None:
            reader.close()
        assert owner.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        with closing(schema.open_reader(path) or connect(path, "mode=ro")) as reader:
            assert reader.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_a_failed_migration_leaves_the_earlier_version(path: Path) -> None:
    """The file still opens with all of its jobs."""
    asyncio.run(create_journal(path))
    with pytest.raises(JournalUnusable, match="no such table: nowhere"):
        schema.open_writer(path, (*MIGRATIONS, SECOND + "; DROP TABLE nowhere"))

    async def keys() -> list[str]:
        journal = SqliteJournal(path)
        await journal.open()
        try:
            return list(journal.keys())
        finally:
            await journal.close()

    assert asyncio.run(keys()) == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(16))
def test_a_kill_during_a_migration_leaves_one_of_the_two_versions(path: Path, number: int) -> None:
    """The creation of a new file is also complete or absent."""
    script = f"""
import sqlite3
from contextlib import closing
from pika_async._journal import schema
from tests.journal.builders import run_child, create_journal, assert_refused
number = {number}
class Killed(sqlite3.Connection):
    def executescript(self, script):
        seen = []
        def trace(statement):
            seen.append(statement)
            if len(seen) > number: die()
        self.set_trace_callback(trace)
        return super().executescript(script)
connect = sqlite3.connect
sqlite3.connect = lambda *a, **k: connect(*a, **k, factory=Killed)
path.touch(0o600)
schema.open_writer(path).close()
"""
    done = run_child(script, path)
    assert done.returncode in {-signal.SIGKILL, 0}, done.stderr
    with closing(sqlite3.connect(path)) as connection:
        facts = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")]
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    versions = range(1, len(MIGRATIONS) + 1)
    assert (facts, tables > 0) in [*(([version, APPLICATION_ID], True) for version in versions), ([0, 0], False)]
    assert tables or done.returncode
    schema.open_writer(path).close()


async def test_the_file_declares_its_format(path: Path) -> None:
    """Its application id, its version and its journal mode are set, as are the pragmas of its connection."""
    journal = SqliteJournal(path)
    await journal.open()
    facts: dict[str, Any] = {
        name: journal._write_connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version", "journal_mode", "synchronous", "trusted_schema", "fullfsync")
    }
    assert facts == {
        "application_id": int.from_bytes(b"PIKO", "big"), "user_version": len(MIGRATIONS), "journal_mode": "wal", "synchronous": 2,
        "trusted_schema": 0, "fullfsync": 1,
    }  # fmt: skip
    await journal.close()
