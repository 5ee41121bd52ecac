"""Tables and texts on terminals of any width: no word is broken, and no line is wider than the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from pika_async.cli.terminal import Terminal, fits, table
from pika_async.providers import PROVIDERS
from tests.cli.command_line import CommandLine, on_a_terminal, serving, without_codes

WIDTHS = (40, 60, 80, 200)


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, capsys, monkeypatch)


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, cli: CommandLine) -> int:
    on_a_terminal(cli.monkeypatch, request.param)
    return int(request.param)


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in without_codes(text).splitlines()]


def check(text: str, width: int, words: set[str]) -> None:
    """Assert that lines without a command fit, and that `words` are whole."""
    lines = lines_of(text)
    assert [line for line in lines if len(line) > width and "pika-async " not in line and " " in line.strip()] == []
    assert words <= set(re.findall(r"[\w-]+", " ".join(lines)))


def test_the_matrices_break_no_name(cli: CommandLine, width: int) -> None:
    """Where not all providers fit side by side, the others follow in a table of their own; each is there once."""
    shown = cli("providers").out
    names = {field for provider in PROVIDERS.values() for field in provider.capabilities}
    check(shown, width, names | set(PROVIDERS))
    headers = [word for line in lines_of(shown) if line.split()[:1] == ["field"] for word in line.split()[1:]]
    assert headers == list(PROVIDERS)
    check(cli("effects").out, width, {effect for provider in PROVIDERS.values() for effect in provider.effects})
    for name, provider in PROVIDERS.items():
        check(cli("providers", name).out, width, set(provider.capabilities))


def test_the_tables_of_a_folder_break_no_word(cli: CommandLine, width: int) -> None:
    """The summary, `status` and `status --polling`; a reason that takes several lines is indented."""
    answer = {"fault": "answer", "status": 400, "body": "reason " * 20}
    with serving({"on": "create", "nth": 1, "do": answer}) as emulator:
        source = cli.write("b.csv", "key,prompt\na,a cat\nb,a dog\n")
        ran = cli.batch(emulator, source, "--no-download", "--max-in-flight", "1")
    for text in (ran.err, cli("status", "pika-out").out):
        check(text, width, {"rejected", "succeeded"})
        lines = lines_of(text)
        at = next(number for number, line in enumerate(lines) if line.startswith("  1 x HTTP 400"))
        more = lines[at + 1 : at + 3]
        assert width == 200 or all(line.startswith("    reason") for line in more[:1]), more
    check(cli("status", "pika-out", "--polling").out, width, {"settled", "median"})


@pytest.mark.parametrize("columns", range(8, 60))
def test_a_table_that_fits_has_whole_words(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the width, each word is whole; a table that is too wide becomes lines with the names of its columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    shown = table("Title", "name", "two words", "number", right=2)
    rows = [("ingredients_mode", "some more words that wrap", "17"), ("a", "b", "1,000")]
    for row in rows:
        shown.add_row(*row)
    is_table = fits(shown, columns)
    Terminal().show(shown)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert all(word in out.getvalue().split() for row in rows for cell in row for word in cell.split())
    assert not is_table or max(map(len, lines)) <= columns
    assert is_table or " ingredients_mode" in lines
