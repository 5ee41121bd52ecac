"""Refusals of a journal that cannot be used: each is provoked with real files, and has its sentence and its way out."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from pika_async._journal import schema
from pika_async._journal.displacement import Notice
from pika_async._journal.lock import Progress
from pika_async._journal.marks import identify
from pika_async._journal.migrations import MIGRATIONS
from pika_async._journal.schema import FileState, open_reader, open_writer
from pika_async._journal.serialization import job_to_line
from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import JournalUnusable
from tests.journal.builders import accepted, create_journal, read_files

FOREIGN: Final = "is not a journal of pika_async; it is left as it is: give another file"
DAMAGED: Final = "it is left as it is: restore a copy of it, or recover it with sqlite3's .recover"
LOG_LOST: Final = (
    "so jobs might be paid for twice: put all files of its folder beside it again; to go on without what is missing, "
    "copy it with `pika-async export FOLDER FILE --without-log`"
)


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def kept_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file but the shared memory, which SQLite makes also for a reader."""
    return {name: content for name, content in read_files(folder).items() if not name.endswith("-shm")}


def write_fallback(path: Path, *lines: bytes) -> None:
    Path(f"{path}.fallback").write_bytes(b"".join(lines))


def number_of(path: Path) -> str:
    """Return the random number of the journal at `path`."""
    with closing(sqlite3.connect(path)) as connection:
        return str(identify(connection))


def lines_of(path: Path, *keys: str) -> list[bytes]:
    return [job_to_line(accepted(key, f"t-{key}"), None, path.parent, number_of(path)) for key in keys]


def notice(path: Path, copy: str | None) -> bytes:
    return Notice(
        journal="f" * 16, revision=1, displaced="was moved or removed while it was open", pid=7, copy=copy
    ).to_line()


def with_unfinished_log(path: Path) -> None:
    """Leave `path` with a log whose only change is a newer version."""
    made = path.with_name("made")
    shutil.copy(path, made)
    with closing(sqlite3.connect(made, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA user_version=98")
        for suffix in ("", "-wal"):
            shutil.copy(f"{made}{suffix}", f"{path}{suffix}")
    made.unlink()


def become_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_foreign(path: Path) -> None:
    path.unlink()
    execute(path, "CREATE TABLE photos (a)")


def refuse_a_record(path: Path) -> None:
    """Leave a record that is later than the job, and a trigger that lets no job be changed."""
    execute(path, "UPDATE jobs SET status = 'planned', task_id = NULL, attempts = 0")
    execute(path, "CREATE TRIGGER no BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'no'); END")
    write_fallback(path, *lines_of(path, "a"))


#: What is done to a sound journal, and the sentence behind its path with which it is not opened.
REFUSALS: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "no folder": (
        lambda path: shutil.rmtree(path.parent),
        "cannot be made: its folder does not exist; make the folder first",
    ),
    "a link to itself": (
        become_loop,
        f"cannot be opened: {os.strerror(errno.ELOOP)}; mend that or give another file",
    ),
    "a folder": (become_folder, "must be a regular file; give another path"),
    "a text": (lambda path: path.write_bytes(b"a text\n" * 100), FOREIGN),
    "half a header": (lambda path: path.write_bytes(schema.SQLITE_MAGIC), FOREIGN),
    "another application": (lambda path: execute(path, "PRAGMA application_id=7"), FOREIGN),
    "tables of another program": (become_foreign, FOREIGN),
    "a newer version": (
        lambda path: execute(path, "PRAGMA user_version=99"),
        "was written by a newer pika_async (version 99 of the file): upgrade pika_async",
    ),
    "a newer version in its log": (
        with_unfinished_log,
        "was written by a newer pika_async (version 98 of the file): upgrade pika_async",
    ),
    "a missing end": (
        lambda path: os.truncate(path, path.stat().st_size - 100),
        f"is damaged (its end is missing); {DAMAGED}",
    ),
    "a missing page": (
        lambda path: os.truncate(path, path.stat().st_size - 4096),
        f"is damaged (database disk image is malformed); {DAMAGED}",
    ),
    "a fallback file that is none": (
        lambda path: Path(f"{path}.fallback").mkdir(),
        "cannot be used: {path}.fallback is not a regular file; remove that, or give a journal in a folder of your own",
    ),
    "a notice": (
        lambda path: write_fallback(path, notice(path, None)),
        (
            "is not the journal that was here: that was moved or removed while it was open, in process 7: put it back; "
            "to pay for its jobs again, remove {path}.fallback"
        ),
    ),
    "a notice with a copy": (
        lambda path: write_fallback(path, notice(path, "/copies/j.sqlite")),
        (
            "is not the journal that was here: that was moved or removed while it was open, in process 7: put it back "
            "(a whole copy is /copies/j.sqlite); to pay for its jobs again, remove {path}.fallback"
        ),
    ),
    "records of jobs that it lacks": (
        lambda path: write_fallback(path, *lines_of(path, "a", "b", "c", "b")),
        (
            "does not have the jobs whose records are in {path}.fallback (b, c): put the journal that has them back; "
            "to pay for them again, remove {path}.fallback"
        ),
    ),
    "records of many jobs": (
        lambda path: write_fallback(path, *lines_of(path, *"bcdefg")),
        (
            "does not have the jobs whose records are in {path}.fallback (b, c, d, e, f, ...): put the journal that has "
            "them back; to pay for them again, remove {path}.fallback"
        ),
    ),
    "a record that it refuses": (
        refuse_a_record,
        "cannot be completed with the records in {path}.fallback: no; mend that, then open it again",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_journal_that_cannot_be_used_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    """The sentence is exactly that, with the path in front; no file is changed."""
    path = tmp_path / "folder" / "j.sqlite"
    path.parent.mkdir()
    asyncio.run(create_journal(path))
    spoil, sentence = REFUSALS[name]
    spoil(path)
    before = kept_files(path.parent)
    with pytest.raises(JournalUnusable) as refused:
        asyncio.run(SqliteJournal(path).open())
    assert refused.value.reason == f"{path} {sentence.format(path=path)}"
    if name != "a record that it refuses":  # that is found only when it is open
        assert kept_files(path.parent) == before


def test_a_fallback_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """The error of the system is named, with the way out."""
    path = tmp_path / "j.sqlite"
    asyncio.run(create_journal(path))
    path.unlink()
    Path(f"{path}.fallback").mkdir()
    with pytest.raises(JournalUnusable) as refused:
        SqliteJournal(path).require_none_due()
    words = f"[Errno {errno.EPERM}] {os.strerror(errno.EPERM)}: '{path}.fallback'"
    sentence = f"cannot be completed with the records in {path}.fallback: {words}; mend that, then open it again"
    assert refused.value.reason == f"{path} {sentence}"


def test_a_file_that_cannot_be_read_is_refused() -> None:
    """An I/O error is named, with the way out."""
    path = Path("/proc/self/mem")  # a regular file whose first byte cannot be read
    with pytest.raises(JournalUnusable) as refused:
        schema.inspect_file(path)
    assert refused.value.reason == f"{path} cannot be read: {os.strerror(errno.EIO)}; mend that or give another file"


@pytest.mark.parametrize("has_log", [True, False], ids=["not whole", "missing"])
def test_a_log_that_lacks_changes_is_refused(tmp_path: Path, has_log: bool) -> None:
    """A journal that was left open must have every change that its owner had recorded."""
    path, copy = tmp_path / "j.sqlite", tmp_path / "copy.sqlite"

    async def copy_open() -> None:
        journal = SqliteJournal(path)
        await journal.open()
        await journal.save(accepted())
        shutil.copy(f"{path}-wal", f"{copy}-wal")
        await journal.close()

    asyncio.run(copy_open())
    shutil.copy(path, copy)
    if not has_log:
        Path(f"{copy}-wal").unlink()
    with pytest.raises(JournalUnusable) as refused:
        open_writer(copy, state=FileState.OPEN, previous=Progress(committed=2, begun=2))
    log = "its log (copy.sqlite-wal) is " + ("not whole" if has_log else "missing")
    assert refused.value.reason == f"{copy} was not closed cleanly and {log}, {LOG_LOST}"


def test_a_database_that_sqlite_cannot_open_is_refused(tmp_path: Path) -> None:
    """SQLite's own words are named, to a writer and to a reader."""
    path = tmp_path / "j.sqlite"
    asyncio.run(create_journal(path))
    path.with_name("j.sqlite-wal").mkdir()  # in the place of the log
    for open_database in (open_writer, open_reader):
        with pytest.raises(JournalUnusable) as refused:
            open_database(path)
        sentence = "cannot be opened: unable to open database file; mend that or give another file"
        assert refused.value.reason == f"{path} {sentence}"


def test_a_file_system_without_shared_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite keeps no log there, as with the locks of a share."""
    path = tmp_path / "j.sqlite"
    asyncio.run(create_journal(path))
    execute(path, "PRAGMA journal_mode=DELETE")
    connect = schema._connect
    monkeypatch.setattr(schema, "_connect", lambda path, mode: connect(path, f"{mode}&vfs=unix-none"))
    with pytest.raises(JournalUnusable) as refused:
        open_writer(path)
    sentence = "is on a file system that has no shared memory; give a file on a local disk"
    assert refused.value.reason == f"{path} {sentence}"


def test_a_reader_refuses_an_earlier_version(tmp_path: Path) -> None:
    """Only a client brings a file up to date."""
    path = tmp_path / "j.sqlite"
    asyncio.run(create_journal(path))
    with pytest.raises(JournalUnusable) as refused:
        open_reader(path, (*MIGRATIONS, "SELECT 1"))
    sentence = f"is of an earlier version ({len(MIGRATIONS)}): open it once with a client to bring it up to date"
    assert refused.value.reason == f"{path} {sentence}"
