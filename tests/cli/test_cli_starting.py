"""Commands on a folder whose batch is just starting, or runs, in another process."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from pika_async._journal.lock import find_owner
from pika_async._journal.sqlite import SqliteJournal
from tests.cli.command_line import CommandLine, serving

ROOT: Final = Path(__file__).parents[2]
#: Steps in which a client makes its journal; a process stops after one of them until its input ends.
STEPS: Final = ("locked", "made", "held", "header", "tables")
HOLDER: Final = """
import sqlite3, sys
from pathlib import Path
from pika_async._journal.lock import FileLock
from pika_async._journal.schema import create_file, open_writer
path, last = Path(sys.argv[1]).resolve(), sys.argv[2]
kept = lock = FileLock(path)
if last != "locked":
    create_file(path)
if last not in ("locked", "made"):
    lock.lock_database()
if last == "header":
    kept = sqlite3.connect(path)
    kept.execute("PRAGMA journal_mode=WAL")
if last == "tables":
    kept = open_writer(path)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def starting(folder: Path, step: str) -> Iterator[int]:
    """Yield the id of a process that has come as far as `step` in the making of a journal in `folder`."""
    folder.mkdir()
    argv = [sys.executable, "-c", HOLDER, str(folder / "journal.db"), step]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("step", STEPS)
def test_reading_commands_say_that_a_batch_starts(cli: CommandLine, step: str) -> None:
    """Exit code 0, the process by its number, no advice to restore a copy; as JSON no line."""
    with starting(cli.folder / "d", step) as process:
        said = f"d: a batch is starting here (process {process}); no jobs yet\n"
        ran = cli("status", "d")
        assert (ran.code, ran.out, ran.err) == (0, said, "")
        polling = cli("status", "d", "--polling")
        assert (polling.code, polling.err, polling.out) == (
            (0, "", said) if step != "tables" else (0, "", "d: no durations recorded yet, and no job is in flight\n")
        )
        for more in ((), ("--polling",)):
            ran = cli("status", "d", "--json", *more)
            assert (ran.code, ran.out, ran.err) == (0, "", "")


@pytest.mark.parametrize("step", STEPS)
def test_a_preview_works_beside_a_starting_batch(cli: CommandLine, step: str) -> None:
    """Nothing is known there yet: both rows are new."""
    cli.write("b.txt", "a\nb")
    with starting(cli.folder / "d", step):
        for argv in (("estimate", "b.txt", "--out", "d"), ("batch", "b.txt", "--out", "d", "--dry-run")):
            ran = cli(*argv, "--provider", "cometapi")
            assert (argv, ran.code, "2 new charges" in ran.out + ran.err) == (argv, 0, True)


#: Commands that need what a batch has written.
NEEDY: Final = (
    ("export", "d", "copy.db"), ("resume", "d"), ("resolve", "d", "--all", "--abandon"),
    ("retry", "d", "--failed", "--dry-run"), ("board", "d"),
)  # fmt: skip


@pytest.mark.parametrize("step", STEPS[:3])
def test_other_commands_ask_to_wait(cli: CommandLine, step: str) -> None:
    """There is nothing to copy, continue or show yet: exit code 2 and a sentence that is true a moment later."""
    with starting(cli.folder / "d", step) as process:
        ran = {argv: cli(*argv) for argv in NEEDY}
    said = f"error: d: a batch is starting here (process {process}); no jobs yet; wait a moment, then run this again\n"
    assert {argv: (result.code, result.out, result.err) for argv, result in ran.items()} == dict.fromkeys(
        NEEDY, (2, "", said)
    )
    assert not (cli.folder / "copy.db").exists()


@pytest.mark.parametrize("step", STEPS[1:3])
def test_an_empty_journal_of_a_dead_process_is_refused(cli: CommandLine, step: str) -> None:
    """Once the process is gone, a person must say whether a copy belongs there."""
    with starting(cli.folder / "d", step):
        pass
    ran = cli("status", "d")
    assert (ran.code, ran.out) == (2, "")
    assert "error: d/journal.db is empty and holds no jobs; restore it from a copy" in ran.err


@pytest.mark.parametrize("step", STEPS)
def test_the_owner_of_a_journal_is_found_while_it_runs(tmp_path: Path, step: str) -> None:
    """From the lock file on to the death of its process; its tests lock nothing."""
    path = tmp_path / "d" / "journal.db"
    assert find_owner(path) is None
    with starting(tmp_path / "d", step) as process:
        assert [find_owner(path), find_owner(path)] == [process, process]
    assert find_owner(path) is None


def test_a_closed_journal_has_no_owner(tmp_path: Path) -> None:
    """Also while the process that had it open goes on."""

    async def open_and_close() -> None:
        journal = SqliteJournal(tmp_path / "journal.db")
        await journal.open()
        assert find_owner(tmp_path / "journal.db") == os.getpid()
        await journal.close()

    asyncio.run(open_and_close())
    assert find_owner(tmp_path / "journal.db") is None


def test_status_beside_a_running_batch_says_to_wait(cli: CommandLine) -> None:
    """It names the process, and does not advise `resume`, which would be refused; once that is killed it does."""
    with serving(durations="constant:60") as emulator:
        argv = ["batch", cli.write("b.txt", "a\nb"), "--provider", "native", "--base-url", emulator.base_url("native")]
        with subprocess.Popen(
            [sys.executable, "-m", "pika_async", *argv], cwd=cli.folder, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process:  # fmt: skip
            try:
                shown = ""
                while not re.search(r"^ (queued|running)", shown, re.MULTILINE):
                    assert process.poll() is None
                    ran = cli("status", "pika-out") if (cli.folder / "pika-out").exists() else None
                    shown = "" if ran is None or ran.code else ran.out
                assert f"a command runs here (process {process.pid}): wait for it, or press Ctrl-C there" in shown
                assert "to continue" not in shown
            finally:
                process.kill()
        assert "to continue: pika-async resume pika-out" in cli("status", "pika-out").out
