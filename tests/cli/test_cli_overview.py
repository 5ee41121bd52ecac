"""Version, and help text of all commands: printed without the commands, the same as with them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pika_async import __version__
from pika_async.cli.commands import app
from pika_async.cli.overview import SUMMARIES
from tests.cli.command_line import CommandLine

TERMINAL = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
BOTH = """
import sys
from pika_async.cli import commands, run
run(sys.argv[1:])
print("--- with the commands ---")
sys.stdout.flush()
commands.run(sys.argv[1:])
"""


#: The words of the request, the width, and whether it is a terminal: all of them for one spelling of the words.
SHOWN = [
    *((("--help",), columns, is_terminal) for columns in (40, 80, 200) for is_terminal in (False, True)),
    ((), 80, False),
    (("-h",), 40, True),
]


@pytest.mark.parametrize(("argv", "columns", "is_terminal"), SHOWN, ids=str)
def test_the_help_text_is_that_of_the_commands(argv: tuple[str, ...], columns: int, is_terminal: bool) -> None:
    """It is, byte for byte, what the parser makes of the commands themselves."""
    environment = {**os.environ, "COLUMNS": str(columns), **(TERMINAL if is_terminal else {})}
    printed = subprocess.run(
        [sys.executable, "-c", BOTH, *argv], env=environment, capture_output=True, check=True
    ).stdout
    without, _, with_commands = printed.partition(b"--- with the commands ---\n")
    assert without == with_commands != b""


def test_every_command_has_a_summary() -> None:
    """A command that is added gets its line, in the order of the commands."""
    assert [name for name in app if not name.startswith("-")] == list(SUMMARIES)


def test_the_version_is_that_of_the_parser(cli: CommandLine) -> None:
    """`--version` prints what the parser would print."""
    printed = cli("--version").out
    app.version_print()
    assert printed == cli.capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_full_disk_is_reported(option: str) -> None:
    """The version and the help text end like every command whose output cannot be written: one line, exit code 1."""
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        argv = [sys.executable, "-m", "pika_async", option]
        ran = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert ran.stderr.startswith("error: standard output cannot be written: ")
