"""Batches whose journal is moved, removed, replaced or carried away under them, and copies of it; checked by charges."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async.emulator import Emulator
from pika_async.jobs import Job, JobStatus
from tests.cli.batches import charged
from tests.cli.command_line import CommandLine, CommandResult, serving
from tests.journal.builders import run_child

COUNT = 24
#: Receipts after which the files are displaced.
PAID = 6


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    line = CommandLine(tmp_path, capsys, monkeypatch)
    line.write("b.txt", "\n".join(f"prompt {number}" for number in range(COUNT)))
    return line


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with serving() as running:
        yield running


def run(cli: CommandLine, emulator: Emulator, out: str = "out") -> CommandResult:
    return cli.batch(emulator, "b.txt", "--out", out, "--no-download", "--max-in-flight", "2")


def displace_after_receipts(cli: CommandLine, displace: Callable[[Path], None]) -> Callable[[], None]:
    """Call *displace* with the folder after the sixth receipt was saved; return what undoes the hook."""
    save = SqliteJournal.save
    receipts: list[Job] = []

    async def hooked(self: SqliteJournal, *jobs: Job, linger: bool = False) -> None:
        await save(self, *jobs, linger=linger)
        receipts.extend(job for job in jobs if job.status is JobStatus.QUEUED)
        if len(receipts) >= PAID and displace not in done:
            done.append(displace)
            await asyncio.to_thread(displace, cli.folder / "out")

    done: list[Callable[[Path], None]] = []
    cli.monkeypatch.setattr(SqliteJournal, "save", hooked)
    return lambda: cli.monkeypatch.setattr(SqliteJournal, "save", save)


def move_folder(out: Path) -> None:
    out.rename(out.with_name("moved"))


def move_journal(out: Path) -> None:
    (out / "journal.db").rename(out.with_name("moved.db"))


def remove_folder(out: Path) -> None:
    shutil.rmtree(out)


def remove_journal(out: Path) -> None:
    (out / "journal.db").unlink()


def replace_journal(out: Path) -> None:
    with contextlib.closing(sqlite3.connect(out / "new.db")) as connection:
        connection.execute("CREATE TABLE photos (a)")
    (out / "new.db").replace(out / "journal.db")


@pytest.mark.parametrize("displace", [move_folder, move_journal, remove_folder, remove_journal, replace_journal])
def test_a_displaced_journal_stops_the_batch_and_the_next(
    cli: CommandLine, emulator: Emulator, displace: Callable[[Path], None]
) -> None:
    """The batch ends with exit code 1 after what was under way, the same command is refused, and nothing is paid twice."""
    restore = displace_after_receipts(cli, displace)
    stopped = run(cli, emulator)
    restore()
    assert stopped.code == 1, stopped.err
    assert "put it back first (see above for a copy)" in stopped.err
    if displace not in {move_folder, remove_folder}:  # the results are there, and agree with what was paid
        accepted = [record for record in cli.results("out") if record["task_id"] is not None]
        assert len(accepted) == len(charged(emulator))
    paid = charged(emulator)
    assert PAID <= len(paid) <= PAID + 4
    for refused in (run(cli, emulator), cli("resume", "out")):
        assert (refused.code, charged(emulator)) == (2, paid), refused.err
        assert "is not the journal that was here" in refused.err or "is not a journal of pika_async" in refused.err
    put_back(cli.folder)
    done = run(cli, emulator)
    assert done.code in {0, 1}, done.err
    assert max(charged(emulator).values()) == 1
    assert len(charged(emulator)) == COUNT
    in_doubt = [record for record in cli.results("out") if record["status"] == "unknown"]
    assert in_doubt == []


def put_back(folder: Path) -> None:
    """Put the journal back from where it was moved to, or from the copy that was made of it."""
    out = folder / "out"
    if (folder / "moved").exists():
        shutil.rmtree(out, ignore_errors=True)
        (folder / "moved").rename(out)
        return
    out.mkdir(exist_ok=True)
    copies = [*folder.glob("moved.db"), *out.glob("*.rescued"), *(folder / "temporary").glob("*.rescued")]
    [copy] = copies
    shutil.copyfile(copy, out / "journal.db")


def test_a_removed_lock_file_does_not_stop_the_batch(cli: CommandLine, emulator: Emulator) -> None:
    """One warning, and every prompt is paid once."""
    restore = displace_after_receipts(cli, lambda out: (out / "journal.db.lock").unlink())
    done = run(cli, emulator)
    restore()
    assert done.code == 0, done.err
    assert done.err.count("journal.db.lock was removed while the journal was open; it is made again") == 1
    assert set(charged(emulator).values()) == {1}


def test_a_journal_without_its_log_is_refused_by_name(cli: CommandLine, emulator: Emulator) -> None:
    """Carried elsewhere after a kill, it is not paid for again; what it holds can still be shown and copied on purpose."""
    script = """
async def main():
    await journal.open()
    await journal.save(a_job())
    await journal.record_intent(a_job().submitting(), INTENT)
    await journal.save(accepted())
    die()
asyncio.run(main())
"""
    killed = cli.folder / "killed" / "journal.db"
    killed.parent.mkdir()
    run_child(script, killed)
    (cli.folder / "out").mkdir()
    shutil.copyfile(killed, cli.folder / "out" / "journal.db")
    for refused in (run(cli, emulator), cli("resume", "out"), cli("export", "out", "new.db")):
        assert refused.code == 2
        assert "was not closed cleanly and its log (journal.db-wal) is missing" in refused.err
    assert charged(emulator) == {}
    assert cli("status", "out").code == 0
    assert not (cli.folder / "new.db").exists()
    assert cli("export", "out", "new.db", "--without-log").code == 0
    assert list(SqliteJournal(cli.folder / "new.db").keys()) == ["a"]
    assert cli("export", "killed", "whole.db").code == 0
    copied = SqliteJournal(cli.folder / "whole.db").get("a")
    assert copied is not None
    assert copied.task_id == "t-1"


# --- export -----------------------------------------------------------------------------------------------------------


def test_an_exported_journal_continues_elsewhere(cli: CommandLine, emulator: Emulator) -> None:
    """It is one file of this user; the batch goes on with it and pays nothing twice, after one line with where it was."""
    assert run(cli, emulator).code == 0
    done = cli("export", "out", "copy.db")
    assert (done.code, done.out) == (0, "copy.db: a whole copy of out/journal.db; continue in one place only\n")
    assert stat.S_IMODE((cli.folder / "copy.db").stat().st_mode) == 0o600
    assert not list(cli.folder.glob("copy.db?*"))
    (cli.folder / "other").mkdir()
    (cli.folder / "copy.db").rename(cli.folder / "other" / "journal.db")
    paid = charged(emulator)
    again = run(cli, emulator, "other")
    assert (again.code, charged(emulator)) == (0, paid)
    where = f"was last opened as {cli.folder / 'out' / 'journal.db'} on {os.uname().nodename}"
    assert again.err.count(where) == 1
    assert len(cli.results("other")) == COUNT


def test_an_export_works_while_a_batch_runs(cli: CommandLine, emulator: Emulator) -> None:
    """It has every receipt up to then, although they are only in the log."""
    made: list[Path] = []

    def export(out: Path) -> None:
        code = run_child(
            "from pika_async.__main__ import main\nsys.exit(main(['export', str(path.parent), str(path)+'.copy']))",
            out / "journal.db",
        ).returncode
        assert code == 0
        made.append(out / "journal.db.copy")

    restore = displace_after_receipts(cli, export)
    assert run(cli, emulator).code == 0
    restore()
    assert len([job for job in SqliteJournal(made[0]).all() if job.task_id]) >= PAID
    assert set(charged(emulator).values()) == {1}


def test_an_export_overwrites_nothing(cli: CommandLine, emulator: Emulator) -> None:
    """Existing files, folders and links stay as they are, and a folder without a journal is named."""
    run(cli, emulator)
    cli.write("there.db", "mine")
    (cli.folder / "link.db").symlink_to("nowhere")
    for target, words in {
        "there.db": "exists and is never overwritten",
        "link.db": "exists and is never overwritten",
        "temporary": "exists and is never overwritten",
        "nowhere/x.db": "cannot be written: No such file or directory",
    }.items():
        refused = cli("export", "out", target)
        assert (refused.code, words in refused.err) == (2, True), refused.err
    assert (cli.folder / "there.db").read_text() == "mine"
    assert not (cli.folder / "nowhere").exists()
    empty = cli("export", "temporary", "x.db")
    assert (empty.code, "must hold a journal.db" in empty.err) == (2, True)
