"""The journal of a batch: unusable, missing, in use, read-only and shared; checked by charges."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from pika_async.emulator import Charge
from tests.cli.batches import charged, jsonl, statuses
from tests.cli.command_line import CommandLine, serving

# --- the journal ------------------------------------------------------------------------------------------------------


def _text(journal: Path) -> None:
    journal.write_text("not a journal, but a file of somebody else\n" * 20)


def _newer(journal: Path) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _torn(journal: Path) -> None:
    content = journal.read_bytes()
    journal.write_bytes(content[: len(content) // 2])


def _record(journal: Path) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("UPDATE requests SET request = 'nonsense'")


def _options(journal: Path) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("UPDATE settings SET value = '{\"ambiguous\": \"some other way\"}' WHERE name = 'terms'")


def _folder(journal: Path) -> None:
    journal.unlink()
    journal.mkdir()


def _content(journal: Path) -> bytes | list[str] | None:
    """Return the content of the tables, without where the journal was opened last; the bytes of any other file."""
    if not journal.is_file():
        return None
    with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        try:
            return [line for line in connection.iterdump() if "pika_async.place" not in line]
        except sqlite3.DatabaseError:
            return journal.read_bytes()


DAMAGES: Final[dict[str, tuple[Callable[[Path], None], str, bool]]] = {
    "text": (_text, "is not a journal of pika_async", True),
    "newer": (_newer, "newer pika_async", True),
    "torn": (_torn, "damaged", True),
    "a-record": (_record, "holds a record of job 'a' that cannot be read", True),
    "options": (_options, "holds options that cannot be read", False),
    "folder": (_folder, "journal.db", True),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unusable_journal_is_refused(cli: CommandLine, damage: str) -> None:
    """Exit code 2 and a sentence; nothing is sent, and nothing in the file is changed but where it was opened last."""
    damage_file, text, stops_batch = DAMAGES[damage]
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        cli.batch(emulator, source, "--no-download")
        journal = cli.folder / "pika-out" / "journal.db"
        damage_file(journal)
        before = _content(journal)
        calls = len(emulator.requests)
        rans = [cli("resume", "pika-out"), cli("status", "pika-out")]
        if stops_batch:
            rans += [cli.batch(emulator, source, "--no-download"), cli("resolve", "pika-out", "a", "--abandon")]
        assert [ran.code for ran in rans] == [2] * len(rans)
        assert all(ran.err.startswith("error: ") and "journal.db" in ran.err for ran in rans)
        assert sum(text in ran.err for ran in rans) >= len(rans) - 1
        assert len(emulator.requests) == calls
        assert _content(journal) == before


def test_a_missing_journal_is_not_replaced_over_paid_results(cli: CommandLine) -> None:
    """Results without a journal: exit code 2, nothing is sent or overwritten."""
    with serving() as emulator:
        source = cli.write("b.txt", "a")
        cli.batch(emulator, source)
        (cli.folder / "pika-out" / "journal.db").unlink()
        before = cli.results()
        ran = cli.batch(emulator, source)
        assert (ran.code, "exists and is never overwritten" in ran.err) == (2, True)
        assert (cli.results(), charged(emulator)) == (before, Counter("a"))


def test_a_folder_in_use_is_refused(cli: CommandLine) -> None:
    """Exit code 2 with the number of the other process, nothing sent; `status` works."""
    with serving() as emulator:
        source = cli.write("b.txt", "a\nb")
        cli.batch(emulator, source, "--max-charges", "1", "--no-download")
        calls = len(emulator.requests)
        lock = os.open(cli.folder / "pika-out" / "journal.db.lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"4711\n", 0)
            before = cli.results()
            for ran in (
                cli.batch(emulator, source, "--no-download"), cli("resume", "pika-out"),
                cli("resolve", "pika-out", "a", "--not-charged"),
            ):  # fmt: skip
                assert (ran.code, "is in use by process 4711" in ran.err) == (2, True)
            assert cli("status", "pika-out").code == 0
            assert (len(emulator.requests), cli.results()) == (calls, before)
        finally:
            os.close(lock)
        assert cli("resume", "pika-out", "--max-charges", "9").code == 0
        assert charged(emulator) == Counter("ab")


READ_ONLY: Final = """
import os, sys
from pathlib import Path
from pika_async.__main__ import main
folder = Path(sys.argv[1])
main(["status", str(folder)])  # imports the rest: the next user may not read the files
for path in folder.iterdir():
    path.chmod(0o444)
folder.chmod(0o555)
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
print("code", main(["status", str(folder)]))
print("code", main(["resume", str(folder)]))
to = ["--provider", "native", "--base-url", "http://127.0.0.1:9", "--out", str(folder)]
print("code", main(["batch", sys.argv[2], *to]))
"""


def test_a_read_only_folder(cli: CommandLine) -> None:
    """`status` works; commands that would send give an error and send nothing."""
    with serving() as emulator, tempfile.TemporaryDirectory() as public:
        source = cli.write("b.txt", "a\nb")
        cli.batch(emulator, source, "--max-charges", "1", "--max-in-flight", "1", "--no-download")
        calls = len(emulator.requests)
        Path(public).chmod(0o755)
        folder = Path(public) / "out"
        shutil.copytree(cli.folder / "pika-out", folder)
        shutil.copy(cli.folder / source, public)
        ran = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(folder), str(Path(public) / source)],
            capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        folder.chmod(0o755)
        assert re.findall("^code (.)", ran.stdout, re.MULTILINE) == ["0", "2", "2"], ran.stderr
        assert "charges: 1 accepted or possibly accepted, of 1 allowed" in ran.stdout
        assert ran.stderr.count("error: ") == 2
        assert "Traceback" not in ran.stderr
        assert len(emulator.requests) == calls


def test_two_commands_agree_on_the_charges(cli: CommandLine) -> None:
    """After several commands, the task ids in the results are those in the ledger."""
    with serving({"on": "create", "nth": 2, "do": "drop"}, {"on": "create", "nth": 3, "do": "fails"}) as emulator:
        source = cli.write("b.txt", "a\nb\nc\nd")
        for limit in ("1", "3", "9"):
            cli.batch(emulator, source, "--no-download", "--max-charges", limit, "--max-in-flight", "1")
        receipts = {record["task_id"] for record in cli.results()} - {None}
        lost: list[Charge] = [charge for charge in emulator.ledger if charge.task_id not in receipts]
        assert (len(emulator.ledger), len(lost)) == (4, 1)
        assert Counter(statuses(cli).values()) == {"succeeded": 2, "unknown": 1, "failed": 1}


@pytest.mark.parametrize("kind", ["empty", "tableless"])
@pytest.mark.parametrize(
    "argv",
    [
        ("status", "d"), ("status", "d", "--json"), ("status", "d", "--polling"), ("resume", "d"),
        ("retry", "d", "--failed"), ("resolve", "d", "--all", "--abandon"), ("export", "d", "copy.db"),
    ],
)  # fmt: skip
def test_an_empty_file_in_place_of_the_journal_is_a_sentence(
    cli: CommandLine, kind: str, argv: tuple[str, ...]
) -> None:
    """It is not a folder without jobs: the sentence says which file it is and what to do, and nothing is written."""
    (cli.folder / "d").mkdir()
    path = cli.folder / "d" / "journal.db"
    if kind == "empty":
        path.touch()
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 0")
            connection.execute("VACUUM")
    before = path.read_bytes()
    ran = cli(*argv)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "error: d/journal.db is empty and holds no jobs; restore it from a copy" in ran.err
    assert (path.read_bytes(), list(path.parent.iterdir())) == (before, [path])
    assert not (cli.folder / "copy.db").exists()
