"""Ownership of a journal: one owner at a time, whatever happens to its files, and none in a forked child."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import signal
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async._journal import marks, schema, system_locks
from pika_async._journal.lock import FileLock
from pika_async._journal.migrations import APPLICATION_ID
from pika_async._journal.schema import FileState, inspect_file
from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import JournalFailed, JournalInUse, JournalUnusable
from pika_async.jobs import Job, JobStatus
from tests.journal.builders import (
    INTENT,
    FailingConnection,
    a_job,
    accepted,
    create_journal,
    open_broken_journal,
    run_child,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "j.sqlite"


async def open_with_receipt(path: Path) -> SqliteJournal:
    """Open a journal with the accepted job `a`, and `b`, which is being sent."""
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save(accepted())
    await journal.record_intent(a_job("b").submitting(), INTENT)
    return journal


async def open_and_read(path: Path) -> list[Job]:
    journal = SqliteJournal(path)
    await journal.open()
    try:
        return list(journal.all())
    finally:
        await journal.close()


def lines_beside(path: Path) -> list[bytes]:
    return Path(f"{path}.fallback").read_bytes().partition(b"\0")[0].splitlines()


# --- the lock -------------------------------------------------------------------------------------------------------

OPEN_AND_PRINT = """
async def main():
    try: await journal.open()
    except JournalInUse as error: print(error.reason)
    else: print("opened"); await journal.close()
asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_removed_lock_file_admits_no_second_owner(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The database is locked too; the owner makes the lock file again before its next intent, with one warning."""
    journal = await open_with_receipt(path)
    lock = Path(f"{path}.lock")
    lock.unlink()
    assert "is in use by another process" in run_child(OPEN_AND_PRINT, path).stdout
    with pytest.raises(JournalInUse, match="another client of this process"):
        await SqliteJournal(path).open()
    lock.unlink()  # the other process has made one
    await journal.record_intent(a_job("c").submitting(), INTENT)
    await journal.record_intent(a_job("d").submitting(), INTENT)
    assert [record.message for record in caplog.records] == [
        f"the lock file {lock} was removed while the journal was open; it is made again"
    ]
    assert lock.read_text().split() == [str(os.getpid()), "4", "4"]
    assert f"is in use by process {os.getpid()}" in run_child(OPEN_AND_PRINT, path).stdout
    await journal.close()
    assert run_child(OPEN_AND_PRINT, path).stdout == "opened\n"


async def test_a_lock_file_that_another_process_has_made_and_locked_ends_the_sending(path: Path) -> None:
    """Where the database cannot be locked, two processes may hold a lock; then neither the intent nor a second owner."""
    journal = await open_with_receipt(path)
    lock = Path(f"{path}.lock")
    lock.unlink()
    with lock.open("w") as other:
        lock.chmod(0o600)
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(JournalFailed, match="lost its lock file, which cannot be made again"):
            await journal.record_intent(a_job("c").submitting(), INTENT)
        states = [journal.is_saved]
    await journal.record_intent(a_job("c").submitting(), INTENT)
    states.append(journal.is_saved)
    assert states == [False, True]
    await journal.close()


async def test_the_lock_of_the_database_leaves_those_of_sqlite_alone(path: Path) -> None:
    """Other programs read and write the database while it is locked; a refused opening drops no lock of SQLite."""
    journal = await open_with_receipt(path)
    Path(f"{path}.lock").unlink()
    with pytest.raises(JournalInUse):
        await SqliteJournal(path).open()
    script = """
import sqlite3
other = sqlite3.connect(path, isolation_level=None)
print(other.execute("SELECT count(*) FROM jobs").fetchone())
other.execute("INSERT INTO settings VALUES ('other', '1')")
other.close()
"""
    assert run_child(script, path).stdout == "(2,)\n"
    assert Path(f"{path}-wal").exists()  # SQLite removes it when the last connection of all processes is closed
    assert journal.get_setting("other") == 1
    await journal.close()


async def test_a_close_releases_the_locks_of_inherited_descriptors_too(path: Path) -> None:
    """A child that was forked past Python's hooks keeps the open files, but not the locks on them."""
    journal = await open_with_receipt(path)
    assert journal._lock._database is not None
    inherited = [os.dup(journal._lock._descriptor), os.dup(journal._lock._database)]
    await journal.close()
    assert run_child(OPEN_AND_PRINT, path).stdout == "opened\n"
    for descriptor in inherited:
        os.close(descriptor)


async def test_a_system_without_locks_of_open_files_has_the_lock_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_locks, "SET_LOCK", None)
    journal = await open_with_receipt(path)
    assert f"is in use by process {os.getpid()}" in run_child(OPEN_AND_PRINT, path).stdout
    await journal.close()


# --- the file -------------------------------------------------------------------------------------------------------


def move_folder(path: Path) -> Path:
    path.parent.rename(path.parent.with_name("elsewhere"))
    return path.parent.with_name("elsewhere") / path.name


def move_file(path: Path) -> Path:
    return path.rename(path.parent.with_name("elsewhere.sqlite"))


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def remove_file(path: Path) -> None:
    path.unlink()


def replace_file(path: Path) -> None:
    made = path.with_name("made")
    with closing(sqlite3.connect(made)) as connection:
        connection.execute("CREATE TABLE photos (a)")
    made.replace(path)


@pytest.mark.parametrize("displace", [move_folder, move_file, remove_folder, remove_file, replace_file])
async def test_a_displaced_file_ends_the_sending(path: Path, displace: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The next intent fails, a receipt is kept, and the path is not opened without the journal.

    Put back, or opened where it is now, the journal has every receipt.
    """
    journal = await open_with_receipt(path)
    place = displace(path)
    with pytest.raises(JournalFailed, match=r"(removed|replaced by another file) while it was open"):
        await journal.record_intent(a_job("c").submitting(), INTENT)
    with pytest.raises(JournalFailed, match="while it was open"):
        await journal.save(accepted("b", "t-2"))
    assert not journal.is_saved
    assert "job b (queued, task t-2) is not in the journal" in caplog.text
    await journal.close()
    assert (journal.is_saved, journal.get("b")) == (False, accepted("b", "t-2"))

    path.parent.mkdir(exist_ok=True)
    with pytest.raises(
        JournalUnusable, match=r"(is not the journal that was here|is not a journal of pika_async)"
    ) as e:
        await SqliteJournal(path).open()
    assert not path.exists() or displace is replace_file
    if displace is replace_file:
        path.unlink()
        with pytest.raises(JournalUnusable, match="is not the journal that was here") as e:
            await SqliteJournal(path).open()
    if place is None:
        [rescued] = [*path.parent.glob("*.rescued"), *Path(tempfile.gettempdir()).glob("*.rescued")]
        assert f"put it back (a whole copy is {rescued})" in e.value.reason
        place = rescued
    else:
        assert await open_and_read(place) == [accepted(), accepted("b", "t-2")]
    shutil.copyfile(place, path)
    assert await open_and_read(path) == [accepted(), accepted("b", "t-2")]
    assert await open_and_read(path) == [accepted(), accepted("b", "t-2")]


async def test_an_older_copy_in_the_place_of_a_displaced_file_is_refused(path: Path) -> None:
    """It is the same journal, but lacks what was paid since."""
    await create_journal(path)
    backup = path.with_name("backup")
    shutil.copyfile(path, backup)
    journal = await open_with_receipt(path)
    backup.replace(path)
    with pytest.raises(JournalFailed, match="was replaced by another file while it was open"):
        await journal.record_intent(a_job("c").submitting(), INTENT)
    await journal.close()
    with pytest.raises(
        JournalUnusable, match=r"is not the journal that was here.*a whole copy is .*j\.sqlite\.rescued"
    ):
        await SqliteJournal(path).open()
    Path(f"{path}.rescued").replace(path)
    assert [job.key for job in await open_and_read(path)] == ["a", "b"]


async def test_a_file_that_is_put_back_is_used_again(path: Path) -> None:
    """Nothing is lost if the folder is only away for a moment."""
    journal = await open_with_receipt(path)
    place = move_folder(path)
    with pytest.raises(JournalFailed):
        await journal.save(accepted("b", "t-2"))
    place.parent.rename(path.parent)
    await journal.save(a_job("c"))
    assert journal.is_saved
    await journal.close()
    assert [job.key for job in await open_and_read(path)] == ["a", "b", "c"]


async def test_a_displaced_file_is_noticed_at_the_close_at_the_latest(path: Path) -> None:
    """Even if nothing was left to write, the copy of a removed journal is made, and the journal counts as not saved."""
    journal = await open_with_receipt(path)
    await journal.save(accepted("b", "t-2"))
    path.unlink()
    states = [journal.is_saved]
    await journal.close()
    states.append(journal.is_saved)
    assert states == [True, False]
    with pytest.raises(JournalUnusable, match="is not the journal that was here"):
        await SqliteJournal(path).open()


async def test_a_record_that_cannot_be_stored_hinders_no_other_of_a_displaced_file(path: Path) -> None:
    """Each call gets its error, and what can be kept is kept."""
    journal = await open_with_receipt(path)
    place = move_file(path)
    for task_id in ("t-\ud800", "t-2"):
        with pytest.raises(JournalFailed, match="while it was open"):
            await journal.save(accepted("b", task_id))
    await journal.close()
    assert len(lines_beside(path)) == 3  # the notice, and both records
    assert [job.key for job in await open_and_read(place)] == ["a", "b"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), sqlite3.OperationalError("disk is full")])
async def test_a_disk_that_is_full_at_the_opening_is_a_named_error(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Neither the numbers nor the mark can be written; with space again the journal is as it was."""
    await create_journal(path)

    def fail(*_: object) -> None:
        raise error

    if isinstance(error, OSError):
        monkeypatch.setattr(FileLock, "record", fail)
    else:
        monkeypatch.setattr(marks, "checkpoint", fail)
    with pytest.raises(JournalUnusable, match=rf"cannot be written: .*{error.args[-1]}; mend that, then open it again"):
        await SqliteJournal(path).open()
    monkeypatch.undo()
    assert await open_and_read(path) == [accepted()]


@pytest.mark.slow
async def test_a_journal_that_is_being_read_for_long_is_not_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark of an open journal cannot get into the file while another program reads an earlier state of it."""
    journal = await open_with_receipt(path)
    await journal.close()
    monkeypatch.setattr(schema, "WRITER_PRAGMAS", [it for it in schema.WRITER_PRAGMAS if "busy_timeout" not in it])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM jobs").fetchall()
        with pytest.raises(JournalUnusable, match="is being read by another program; wait for that one"):
            await SqliteJournal(path).open()
        other.execute("COMMIT")
    assert len(await open_and_read(path)) == 2


async def test_a_missing_file_whose_owner_was_killed_is_not_made_anew(path: Path) -> None:
    """The lock file shows that there was one; after a clean close a removed journal is made anew."""
    await create_journal(path)
    path.unlink()
    await create_journal(path)
    script = (
        "async def main(): await journal.open(); await journal.save(accepted('b', 't-2')); die()\nasyncio.run(main())"
    )
    assert run_child(script, path).returncode == -signal.SIGKILL
    kept = path.rename(path.with_name("kept"))
    with pytest.raises(JournalUnusable, match=r"is missing, although its last owner did not close it: put it back"):
        await SqliteJournal(path).open()
    assert not path.exists()
    kept.rename(path)
    assert [job.key for job in await open_and_read(path)] == ["a", "b"]


# --- a clean close --------------------------------------------------------------------------------------------------


async def test_a_file_that_was_not_closed_is_refused_without_its_log(path: Path, tmp_path: Path) -> None:
    """Carried elsewhere without its log, or beside a removed log, it is refused by name and changed by nothing."""
    script = """
async def main():
    await journal.open()
    await journal.save(a_job("a"), a_job("b"))
    await journal.record_intent(a_job("a").submitting(), INTENT)
    await journal.save(accepted("a", "t-1"))
    die()
asyncio.run(main())
"""
    assert run_child(script, path).returncode == -signal.SIGKILL
    alone = tmp_path / "alone" / "j.sqlite"
    alone.parent.mkdir()
    shutil.copyfile(path, alone)
    assert [job.key for job in SqliteJournal(alone).all()] == ["a", "b"]  # the plan is in the file itself
    for _ in range(2):  # a reader, and a refused opening, leave an empty log behind
        with pytest.raises(JournalUnusable, match=r"was not closed cleanly and its log \(j.sqlite-wal\) is missing"):
            await SqliteJournal(alone).open()
    shutil.copyfile(f"{path}-wal", f"{alone}-wal")
    assert [job.status for job in await open_and_read(alone)] == [JobStatus.QUEUED, JobStatus.PLANNED]
    Path(f"{path}-wal").unlink()
    with pytest.raises(JournalUnusable, match=r"was not closed cleanly and its log \(j.sqlite-wal\) is missing"):
        await SqliteJournal(path).open()


@pytest.mark.slow
async def test_a_log_that_another_program_has_checkpointed_is_not_missing(path: Path) -> None:
    """A shell that reads a journal after a crash copies the log into the database and removes it."""
    script = "async def main(): await journal.open(); await journal.save(accepted()); die()\nasyncio.run(main())"
    assert run_child(script, path).returncode == -signal.SIGKILL
    assert (
        run_child("import sqlite3; sqlite3.connect(path).execute('SELECT 1 FROM jobs').fetchall()", path).stdout == ""
    )
    assert not Path(f"{path}-wal").exists()
    assert await open_and_read(path) == [accepted()]


async def test_a_file_is_whole_before_it_is_marked_as_closed(path: Path, tmp_path: Path) -> None:
    """A kill between the two leaves a file that is marked as open; only then the mark follows."""
    journal = SqliteJournal(path)
    await journal.open()
    assert inspect_file(Path(shutil.copyfile(path, tmp_path / "opened.sqlite"))) is FileState.OPEN
    await journal.save(accepted(), a_job("b"))
    copies: list[Path] = []

    def copy(statement: str) -> None:
        if statement == f"PRAGMA application_id={APPLICATION_ID}":
            copies.append(Path(shutil.copyfile(path, tmp_path / "copy.sqlite")))

    journal._write_connection.set_trace_callback(copy)
    await journal.close()
    [whole] = copies
    assert inspect_file(whole) is FileState.OPEN
    assert [job.key for job in SqliteJournal(whole).all()] == ["a", "b"]
    assert inspect_file(path) is FileState.CLOSED


async def test_the_lock_file_has_the_number_of_a_commit_before_it(path: Path) -> None:
    """A kill inside the commit leaves the number of the change that may be in the log; a failed commit takes it back."""
    journal = await open_with_receipt(path)
    seen: list[list[str]] = []

    class Watching(FailingConnection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement == "COMMIT":
                seen.append(Path(f"{path}.lock").read_text().split()[1:])
            return super().execute(statement, *values)

    double = Watching(journal._write_connection, sqlite3.OperationalError("disk I/O error"))
    journal._write_connection = double  # type: ignore[assignment]
    with pytest.raises(JournalFailed):
        await journal.save(accepted("b", "t-2"))
    assert (seen, Path(f"{path}.lock").read_text().split()[1:]) == ([["2", "3"]], ["2", "2"])
    double.error = None
    await journal.save(a_job("c"))
    assert Path(f"{path}.lock").read_text().split()[1:] == ["4", "4"]
    await journal.close()


async def test_a_closed_file_is_whole_by_itself(path: Path, tmp_path: Path) -> None:
    """Nothing beside it is needed."""
    journal = await open_with_receipt(path)
    await journal.close()
    copy = tmp_path / "copy.sqlite"
    shutil.copyfile(path, copy)
    assert [job.key for job in await open_and_read(copy)] == ["a", "b"]


async def test_a_journal_with_unsaved_records_is_not_marked_as_closed(path: Path, tmp_path: Path) -> None:
    """Without its fallback file it would lack a receipt."""
    journal, _ = await open_broken_journal(path, "b")
    with pytest.raises(JournalFailed):
        await journal.save(accepted("b", "t-2"))
    await journal.close()
    copy = tmp_path / "copy.sqlite"
    shutil.copyfile(path, copy)
    with pytest.raises(JournalUnusable, match="was not closed cleanly"):
        await SqliteJournal(copy).open()
    assert await open_and_read(path) == [accepted(), accepted("b", "t-2")]


async def test_a_journal_that_is_opened_elsewhere_says_where_it_was(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for a copy at another path, for another file at the same path, and on another machine; else none."""
    host = platform.node()
    await create_journal(path)
    await create_journal(path)
    assert caplog.messages == []
    copy = tmp_path / "copy.sqlite"
    shutil.copyfile(path, copy)
    await create_journal(copy)
    way_out = "if that one is used as well, both pay for the same jobs"
    assert caplog.messages == [f"the journal {copy} was last opened as {path} on {host}: {way_out}"]
    caplog.clear()
    copy.replace(path)
    await create_journal(path)
    assert caplog.messages == [f"the journal {path} was last opened as {copy} on {host}: {way_out}"]
    caplog.clear()
    shutil.copyfile(path, copy)
    copy.replace(path)
    await create_journal(path)
    assert caplog.messages == [f"the journal {path} was last opened as another file of this path on {host}: {way_out}"]
    caplog.clear()
    monkeypatch.setattr(platform, "node", lambda: "laptop")
    await create_journal(path)
    assert caplog.messages == [f"the journal {path} was last opened as another file of this path on {host}: {way_out}"]


# --- forked children ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["close", "kill"])
async def test_a_forked_child_holds_no_lock(path: Path, tmp_path: Path, ending: str) -> None:
    """Neither after its parent has closed the journal nor after the parent was killed, while the child lives on."""
    done_file = tmp_path / "the test is over"
    script = f"""
import time
async def main():
    await journal.open()
    await journal.save(accepted())
    child = os.fork()
    if not child:
        for stream in (0, 1, 2): os.close(stream)
        for _ in range(3000):          # at most a minute
            if os.path.exists({str(done_file)!r}): os._exit(0)
            time.sleep(0.02)
        os._exit(1)
    print(child, flush=True)
    if {ending!r} == "close":
        await journal.close()
        print(await opened(path), flush=True)
    die()
async def opened(path):
    other = SqliteJournal(path)
    await other.open()
    await other.close()
    return "opened"
asyncio.run(main())
"""
    try:
        done = run_child(script, path)
        assert done.returncode == -signal.SIGKILL, done.stderr
        child, *lines = done.stdout.splitlines()
        assert lines == (["opened"] if ending == "close" else []), done.stderr
        os.kill(int(child), 0)  # it is alive
        assert await open_and_read(path) == [accepted()]
    finally:
        done_file.touch()


async def test_a_journal_in_a_forked_child_is_a_named_error(path: Path) -> None:
    """Reads and writes are refused with the way out; closing it does nothing, so that the parent continues."""
    script = """
async def use():
    errors = []
    for call in (lambda: list(journal.keys()), lambda: journal.get("a"), lambda: journal.save_later(a_job()), lambda: journal.flush(1)):
        try: call()
        except JournalUnusable as error: errors.append(error.reason)
    for call in (journal.open, lambda: journal.changes(0)):
        try: await call()
        except JournalUnusable as error: errors.append(error.reason)
    for call in (lambda: journal.save(a_job()), lambda: journal.record_intent(a_job().submitting(), INTENT)):
        try: await call()
        except JournalFailed as error: errors.append(error.reason)
    await journal.close()
    print(len(errors), *sorted(set(errors)), sep="\\n", flush=True)
async def main():
    await journal.open()
    await journal.save(accepted())
    sys.stdout.flush()
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
child = os.fork()
if not child:
    asyncio.run(use())
    os._exit(0)
os.waitpid(child, 0)
async def finish():
    await journal.record_intent(a_job("b").submitting(), INTENT)
    await journal.close()
    print(list(journal.keys()), os.getpid())
loop.run_until_complete(finish())
loop.close()
"""
    done = run_child(script, path)
    *words, last = done.stdout.splitlines()
    pid = last.split()[-1]
    reason = (
        f"it was opened in process {pid}, before this one was forked; "
        "make a client in each process, with a journal of its own"
    )
    assert words == ["8", f"{path} cannot be used here: {reason}", reason], done.stderr
    assert last == f"['a', 'b'] {pid}"


async def test_a_child_that_closes_and_ends_leaves_the_parents_log(path: Path) -> None:
    """The garbage collector of a child may close SQLite's connections; the parent still has its locks and its log."""
    script = """
import gc
async def main():
    await journal.open()
    await journal.save(accepted())
    child = os.fork()
    if not child:
        del journal._write_connection, journal._read_connection
        journal._resources.pop_all()
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    await journal.save(accepted("b", "t-2"))
    die()
asyncio.run(main())
"""
    done = run_child(script, path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert await open_and_read(path) == [accepted(), accepted("b", "t-2")]


# --- files that somebody else has put there -------------------------------------------------------------------------

SIDE_FILES = [".lock", ".fallback", "-wal", "-shm", "-journal"]


@pytest.mark.parametrize("suffix", SIDE_FILES)
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
async def test_a_side_file_that_is_not_a_regular_file_is_refused_by_name(path: Path, suffix: str, kind: str) -> None:
    """It is neither followed nor opened, and stays as it is."""
    await create_journal(path)
    Path(f"{path}.lock").unlink()
    other, side = path.with_name("precious"), Path(f"{path}{suffix}")
    other.write_bytes(b"precious")
    match kind:
        case "link":
            side.symlink_to(other)
        case "folder":
            side.mkdir()
        case _:
            os.mkfifo(side)
    word = "a link" if kind == "link" else "not a regular file"
    with pytest.raises(
        JournalUnusable, match=rf"{side} is {word}; remove that, or give a journal in a folder of your own"
    ):
        await SqliteJournal(path).open()
    assert other.read_bytes() == b"precious"
    assert stat.S_IFMT(side.lstat().st_mode) == {"link": stat.S_IFLNK, "folder": stat.S_IFDIR}.get(kind, stat.S_IFIFO)


@pytest.mark.parametrize("suffix", SIDE_FILES)
async def test_a_side_file_of_another_user_is_refused_by_name(
    path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder where everybody may write; the owner of the folder may have put it there."""
    await create_journal(path)
    side = Path(f"{path}{suffix}")
    side.unlink(missing_ok=True)
    side.touch()
    real = Path.lstat

    def lstat(self: Path) -> os.stat_result:
        found = list(real(self))
        if self == side:
            found[stat.ST_UID] = 12345
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", lstat)
    with pytest.raises(JournalUnusable, match=rf"{side} belongs to another user \(12345\); remove that"):
        await SqliteJournal(path).open()
    monkeypatch.undo()
    side.unlink()
    await create_journal(path)


async def test_a_foreign_fallback_file_in_the_temporary_folder_is_not_read(path: Path) -> None:
    """Its name can be computed by anybody, so it must be a regular file of this user; a line of another journal is refused."""
    await create_journal(path)
    journal = SqliteJournal(path)
    name = journal._fallback._candidates()[1]
    line = {"key": "a", "status": "planned", "previous_key": None, "journal": "f" * 16, "task_id": "t-9"}
    other = path.with_name("lines")
    other.write_text(json.dumps(line) + "\n")
    name.symlink_to(other)
    assert await open_and_read(path) == [accepted()]
    assert name.is_symlink()
    name.unlink()
    other.replace(name)
    with pytest.raises(JournalUnusable, match=rf"does not have the jobs whose records are in {name} \(a\)"):
        await SqliteJournal(path).open()


@pytest.mark.slow
def test_the_lock_files_numbers_survive_a_kill(path: Path) -> None:
    """They are of the last commit; a clean close removes them."""
    script = """
async def main():
    await journal.open()
    for number in range(3): await journal.save(a_job(f"k{number}"))
    print(os.getpid(), flush=True)
    die()
asyncio.run(main())
"""
    pid = run_child(script, path).stdout.strip()
    assert Path(f"{path}.lock").read_text().split() == [pid, "3", "3"]
    run_child(OPEN_AND_PRINT, path)
    assert len(Path(f"{path}.lock").read_text().split()) == 1


async def test_a_later_state_of_a_held_job_is_kept_with_its_file(path: Path) -> None:
    """A job whose record is in the fallback file keeps its request, which is in the database only."""
    journal = await open_with_receipt(path)
    journal._write_connection.execute("PRAGMA query_only=ON")
    with pytest.raises(JournalFailed):
        await journal.save(attrs.evolve(accepted("b", "t-2"), file=path.parent / "b.mp4"))
    await journal.close()
    [_, job] = await open_and_read(path)
    assert (job.request, job.file) == (a_job("b").request, path.parent / "b.mp4")
