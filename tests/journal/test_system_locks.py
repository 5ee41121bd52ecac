"""The lock of SQLite, which stands in for `flock` on Windows, and the calls that differ there."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pika_async._journal import system_calls, system_locks
from pika_async._journal.sqlite import SqliteJournal
from pika_async._journal.system_locks import DatabaseLock, OpenFileLock, create_lock
from pika_async.errors import JournalInUse, JournalUnusable
from tests.journal.builders import accepted, create_journal

#: Prints whether another process gets the lock of argument 1.
ACQUIRE = """
import sys
from pathlib import Path
from pika_async._journal.system_locks import DatabaseLock
try: DatabaseLock(Path(sys.argv[1])).acquire(-1)
except BlockingIOError: print("held")
else: print("acquired")
"""


def acquire_elsewhere(path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", ACQUIRE, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_the_lock_of_sqlite_excludes_other_processes_until_it_is_released(tmp_path: Path) -> None:
    """Nothing is written; a second acquisition by the owner changes nothing; a release may be repeated."""
    path = tmp_path / "j.db.owner"
    lock = DatabaseLock(path)
    lock.acquire(-1)
    lock.acquire(-1)
    assert acquire_elsewhere(path) == "held"
    with pytest.raises(BlockingIOError):
        DatabaseLock(path).acquire(-1)
    lock.release(-1)
    lock.release(-1)
    lock.close()
    assert acquire_elsewhere(path) == "acquired"
    assert [(file.name, file.stat().st_size) for file in tmp_path.iterdir()] == [("j.db.owner", 0)]


def test_a_file_that_is_not_a_database_cannot_be_locked(tmp_path: Path) -> None:
    """The error is that of a lock file that cannot be locked, and the file stays as it is."""
    path = tmp_path / "j.db.owner"
    path.write_text("my notes, of which there are many" * 40, encoding="utf-8")
    with pytest.raises(OSError, match="file is not a database") as caught:
        DatabaseLock(path).acquire(-1)
    assert not isinstance(caught.value, BlockingIOError)
    assert path.read_text(encoding="utf-8").startswith("my notes")


def test_the_lock_is_chosen_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`flock` where Python has `fcntl`, SQLite where it does not."""
    assert isinstance(create_lock(tmp_path / "j.db"), OpenFileLock)
    monkeypatch.setattr(system_locks, "fcntl", None)
    assert isinstance(create_lock(tmp_path / "j.db"), DatabaseLock)


@pytest.mark.anyio
async def test_a_journal_is_owned_and_kept_without_fcntl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second client is refused with the number of the owner, and after a close the next one has every job."""
    monkeypatch.setattr(system_locks, "fcntl", None)
    monkeypatch.setattr(system_locks, "SET_LOCK", None)
    path = tmp_path / "j.db"
    await create_journal(path)
    journal = SqliteJournal(path)
    await journal.open()
    with pytest.raises(JournalInUse, match="another client of this process"):
        await SqliteJournal(path).open()
    await journal.close()
    assert list(journal.all()) == [accepted()]
    with closing(sqlite3.connect(f"{path}.owner", timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(JournalInUse, match=f"in use by process {os.getpid()}|in use by another"):
            await SqliteJournal(path).open()
    Path(f"{path}.owner").write_bytes(b"not a database" * 100)
    with pytest.raises(JournalUnusable, match="cannot be made or locked"):
        await SqliteJournal(path).open()


def test_bytes_are_read_and_written_at_their_place_without_pread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `pread` and `pwrite`; bytes beyond the end are none."""
    descriptor = system_calls.open_file(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    for name in ("pread", "pwrite", "fchmod", "geteuid"):
        monkeypatch.delattr(os, name)
    assert system_calls.write_at(descriptor, b"hello world", 0) == 11
    assert system_calls.write_at(descriptor, memoryview(b"W"), 6) == 1
    assert system_calls.read_at(descriptor, 5, 6) == b"World"
    assert system_calls.read_at(descriptor, 5, 11) == b""
    system_calls.set_mode(descriptor, 0o400)
    os.close(descriptor)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert system_calls.user_id() == 0


def test_a_folder_that_cannot_be_opened_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows nothing is done; elsewhere a missing folder is an error."""
    with pytest.raises(FileNotFoundError):
        system_calls.sync_folder(tmp_path / "missing")
    monkeypatch.setattr(system_calls, "_FOLDER_FLAG", None)
    system_calls.sync_folder(tmp_path / "missing")
