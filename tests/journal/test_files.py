"""Files of a journal: one owner, private permissions, and no change to a file that is not an intact journal."""

from __future__ import annotations

import os
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import JournalInUse, JournalUnusable
from tests.journal.builders import a_job, accepted, assert_refused, create_journal, run_child

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.sqlite"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


async def test_no_file_is_created_before_opening(path: Path) -> None:
    SqliteJournal(path)
    assert list(path.parent.iterdir()) == []


async def test_only_the_user_can_read_the_files(path: Path) -> None:
    """This holds under any umask; only the lock file remains after a close."""
    before = os.umask(0)
    try:
        journal = SqliteJournal(path)
        await journal.open()
        await journal.save(a_job())
        made = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    names = ["j.sqlite", "j.sqlite-shm", "j.sqlite-wal", "j.sqlite.lock", "j.sqlite.fallback"]
    assert made == dict.fromkeys(names, 0o600)
    await journal.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["j.sqlite", "j.sqlite.lock"]


async def test_a_journal_has_one_owner(path: Path) -> None:
    """A second opening in this process, also through a link, fails and names the owner; a close frees the journal."""
    first, second = SqliteJournal(path), SqliteJournal(path)
    await first.open()
    link = path.with_name("link")
    link.symlink_to(path)
    for other in (second, first, SqliteJournal(link)):
        with pytest.raises(JournalInUse, match=r"in use by another client of this process; share that one"):
            await other.open()
    await first.save(a_job())
    assert list(second.keys()) == ["a"]
    await first.close()
    await second.open()
    assert list(second.keys()) == ["a"]
    await second.close()


async def test_another_process_can_read_but_not_open(path: Path) -> None:
    """It sees the committed records while the owner continues."""
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save(accepted())
    done = run_child(
        """
try: asyncio.run(journal.open())
except JournalInUse as error: print(error.reason)
print(list(journal.keys()), journal.charges(), journal.get("a") == accepted())
""",
        path,
    )
    assert done.stdout.splitlines()[1:] == ["['a'] 1 True"], done.stderr
    assert f"in use by process {os.getpid()}" in done.stdout
    await journal.save(a_job("b"))
    assert list(journal.keys()) == ["a", "b"]
    await journal.close()


async def test_a_killed_owner_releases_the_journal(path: Path) -> None:
    """All saved records are there."""
    done = run_child(
        """
async def main():
    await journal.open()
    await journal.save(accepted())
    die()
asyncio.run(main())
""",
        path,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    journal = SqliteJournal(path)
    assert journal.get("a") == accepted()
    await journal.open()
    assert journal.get("a") == accepted()
    await journal.close()


def foreign(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


async def test_a_file_that_is_not_a_journal_is_not_changed(path: Path) -> None:
    """Text, another program's database with or without an application id, and half of a header are all rejected."""
    for data in (b"SQLite", b"a text\n" * 100, b"SQLite format 3\0"):
        path.write_bytes(data)
        await assert_refused(path, "is not a journal of pika_async")
    path.unlink()
    foreign(path, "CREATE TABLE photos (a)")
    await assert_refused(path, "is not a journal of pika_async")
    path.unlink()
    foreign(path, "PRAGMA journal_mode=WAL", "CREATE TABLE photos (a)")
    await assert_refused(path, "is not a journal of pika_async")
    path.unlink()
    foreign(path, "PRAGMA application_id=7", "CREATE TABLE photos (a)")
    await assert_refused(path, "is not a journal of pika_async")
    with pytest.raises(JournalUnusable, match="is not a journal of pika_async"):
        list(SqliteJournal(path).keys())


async def test_a_foreign_log_is_not_checkpointed(path: Path) -> None:
    """A killed program's database whose tables are only in its log stays as it is."""
    made = path.with_name("made")
    with closing(sqlite3.connect(made)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE photos (a)")
        connection.commit()
        files = {name: made.with_name(f"made{name}").read_bytes() for name in ("", "-wal")}
    for name, data in files.items():
        path.with_name(f"j.sqlite{name}").write_bytes(data)
    with pytest.raises(JournalUnusable, match="is not a journal of pika_async"):
        await SqliteJournal(path).open()
    assert {name: path.with_name(f"j.sqlite{name}").read_bytes() for name in files} == files


async def test_a_newer_file_is_not_changed(path: Path) -> None:
    await create_journal(path)
    foreign(path, "PRAGMA user_version=99")
    await assert_refused(path, "was written by a newer pika_async (version 99 of the file): upgrade pika_async")
    with pytest.raises(JournalUnusable, match="newer"):
        SqliteJournal(path).charges()


async def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    """A crash at the first start leaves a file of zero bytes, or a database without tables."""
    path.touch(0o600)
    await create_journal(path)
    assert list(SqliteJournal(path).keys()) == ["a"]
    path.unlink()
    foreign(path, "PRAGMA journal_mode=WAL")
    assert list(SqliteJournal(path).keys()) == []
    await create_journal(path)
    assert list(SqliteJournal(path).keys()) == ["a"]


@pytest.mark.parametrize("left", [99, 100, 101, 4095, 4096, 4097, 8192, -1, -4096, -5000])
async def test_a_truncated_file_is_not_changed(path: Path, left: int) -> None:
    await create_journal(path)
    os.truncate(path, left if left > 0 else path.stat().st_size + left)
    await assert_refused(path, "is ")


async def test_a_damaged_page_is_detected(path: Path) -> None:
    """Each page in turn is overwritten, and each damage is detected."""
    await create_journal(path)
    sound = path.read_bytes()
    for start in range(4096, len(sound), 4096):
        path.write_bytes(sound[:start] + b"\xa5" * 1000 + sound[start + 1000 :])
        await assert_refused(path, "is damaged")


@pytest.mark.parametrize(
    "damage",
    ["error = '{'", "status = 'lost'", "submitted_at = 'noon'", 'video = \'{"url": 1, "and": 2}\''],
)
async def test_a_broken_record_is_named(path: Path, damage: str) -> None:
    """The other records can be read."""
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save(accepted(), a_job("b"))
    await journal.close()
    foreign(path, f"UPDATE jobs SET {damage} WHERE key = 'a'")  # noqa: S608
    with pytest.raises(JournalUnusable, match="holds a record of job 'a' that cannot be read") as caught:
        journal.get("a")
    assert "Error" not in str(caught.value)
    assert journal.get("b") == a_job("b")
    foreign(path, "DELETE FROM requests")
    with pytest.raises(JournalUnusable, match="holds a record of job 'b' that cannot be read"):
        journal.get("b")


async def test_paths_that_cannot_be_a_journal(path: Path) -> None:
    """A folder, a pipe, a loop of links and a missing folder each have their own error text."""
    folder = path.with_name("folder")
    folder.mkdir()
    await assert_refused(folder, "must be a regular file")
    pipe = path.with_name("pipe")
    os.mkfifo(pipe)
    await assert_refused(pipe, "must be a regular file")
    one, other = path.with_name("one"), path.with_name("other")
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(JournalUnusable, match="cannot be opened: Too many levels of symbolic links"):
        await SqliteJournal(one).open()
    await assert_refused(path.parent / "nowhere" / "j.sqlite", "its folder does not exist; make the folder first")
    assert list(SqliteJournal(path.parent / "nowhere" / "j.sqlite").keys()) == []


def test_files_that_may_not_be_read_or_written(public: Path) -> None:
    """A file of mode 0400, a file of mode 0 and a folder without write permission each fail with a clear error."""
    path = public / "j.sqlite"
    script = """
import asyncio
drop()
async def attempt(path):
    try: await SqliteJournal(path).open()
    except JournalUnusable as error: print(error.reason)
    else: print("opened")
async def main():
    await journal.open(); await journal.save(accepted()); await journal.close()
    path.chmod(0o400); await attempt(path)
    path.chmod(0); await attempt(path)
    path.chmod(0o600)
    folder = path.parent / "closed"
    folder.mkdir(); folder.chmod(0o500)
    await attempt(folder / "j.sqlite")
    print(list(journal.keys()))
asyncio.run(main())
"""
    lines = run_child(script, path)
    assert [line.replace(str(public), "") for line in lines.stdout.splitlines()] == [
        "/j.sqlite cannot be made or locked: Permission denied; mend that or give another file",
        "/j.sqlite cannot be opened: Permission denied; mend that or give another file",
        "/closed/j.sqlite cannot be made or locked: Permission denied; mend that or give another file",
        "['a']",
    ], lines.stderr


def test_a_journal_in_a_read_only_folder_can_be_read(public: Path) -> None:
    """After a clean close all records are read; a log that needs a writer is an error, so that no record is left out."""
    path = public / "in" / "j.sqlite"
    path.parent.mkdir(0o777)
    path.parent.chmod(0o777)
    script = """
drop()
async def main():
    await journal.open(); await journal.save(accepted()); await journal.close()
    path.parent.chmod(0o555)
    print(list(journal.keys()), journal.get("a") == accepted())
    path.parent.chmod(0o755)
    await journal.open(); await journal.save(a_job("b"))
    log, shared = (Path(f"{path}{it}") for it in ("-wal", "-shm"))
    original = log.read_bytes(), path.read_bytes()
    await journal.close()
    log.write_bytes(original[0]); path.write_bytes(original[1])
    path.parent.chmod(0o555)
    try: print(list(journal.keys()))
    except JournalUnusable as error: print("unusable")
    path.parent.chmod(0o777)
    print(list(journal.keys()))
    path.parent.chmod(0o777)
asyncio.run(main())
"""
    path.parent.rmdir()
    script = script.replace("drop()\n", "drop()\npath.parent.mkdir(0o755)\n", 1)
    done = run_child(script, path)
    assert done.stdout.splitlines() == ["['a'] True", "unusable", "['a', 'b']"], done.stderr


async def test_a_moved_folder_keeps_its_files(tmp_path: Path) -> None:
    """A result inside the folder is found at its new place, one outside at its old place."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    journal = SqliteJournal(here / "j.sqlite")
    await journal.open()
    inside = attrs.evolve(accepted(), file=here / "videos" / "a.mp4")
    outside = attrs.evolve(accepted("b", "t-2"), file=tmp_path / "b.mp4")
    await journal.save(inside, outside)
    assert journal.get("a") == inside
    await journal.close()
    here.rename(there)
    moved = SqliteJournal(there / "j.sqlite")
    assert [job.file for job in moved.all()] == [there / "videos" / "a.mp4", tmp_path / "b.mp4"]


async def test_a_relative_path_is_resolved_on_construction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of the working directory changes nothing."""
    monkeypatch.chdir(tmp_path)
    journal = SqliteJournal("j.sqlite")
    monkeypatch.chdir("/")
    await journal.open()
    await journal.close()
    assert (journal.path, (tmp_path / "j.sqlite").exists()) == (tmp_path / "j.sqlite", True)


async def test_unusual_file_names_are_allowed(tmp_path: Path) -> None:
    """Characters with a meaning in a URI, and bytes that are not text, are allowed."""
    for name in ("a?mode=memory", "a#b", "50% off", "ü", os.fsdecode(b"\xff")):
        await create_journal(tmp_path / name)
        assert {file.name for file in tmp_path.iterdir()} == {name, f"{name}.lock"}
        assert list(SqliteJournal(tmp_path / name).keys()) == ["a"]
        for file in tmp_path.iterdir():
            file.unlink()


async def test_a_column_that_a_development_version_lacked_is_named(path: Path) -> None:
    """The sentence is about the version, not about damage, and has no exception's name."""
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save(a_job("a"))
    await journal.close()
    foreign(path, "ALTER TABLE jobs DROP COLUMN downloaded_at")
    with pytest.raises(JournalUnusable, match="has no downloaded_at for job 'a', as a development version") as caught:
        journal.get("a")
    assert "Error" not in str(caught.value)
