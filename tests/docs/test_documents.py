"""The README and the pages in docs/: every example in them is run, against the emulator, as it is written."""

from __future__ import annotations

import ast
import asyncio
import csv
import inspect
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pika_async import Stats
from pika_async.__main__ import main
from pika_async.cli.commands import app
from pika_async.cli.exits import ExitCode
from tests.fakes.object_stores import StoreProxy
from tests.fakes.raw_server import free_port
from tests.fakes.stepped_emulator import SteppedEmulator

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "WHY.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"python", "console", "csv", "jsonl", "json", "text", "toml"}
#: Loses the receipt of each first submission of these prompts, after the charge.
LOST = {"scenario": [{"on": "create", "prompt": "a lighthouse, storm", "do": "drop"}]}
#: Commands that are checked and not run: they serve until they are ended, or need an address on the internet.
NOT_RUN = ("pika-async emulate", "https://hooks.example.com")


@attrs.frozen
class Block:
    """One fenced block: `name` is the file that a reader saves it as."""

    page: Path
    number: int
    language: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.stem}-{self.number}"


def blocks_of(page: Path) -> Iterator[Block]:
    for number, (language, name, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")), 1):
        yield Block(page, number, language, name, text)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


# --- the README -----------------------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    """A newcomer reads at most 130 lines, and each fits a terminal of 125 columns, tables and links aside."""
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 125 and not line.startswith("|")] == []


def test_the_readme_begins_with_the_two_commands() -> None:
    """The commands that a newcomer runs first come first, word for word."""
    text = README.read_text(encoding="utf-8")
    demo = 'python -m pip install -e ".[cli,emulator]" && pika-async demo'
    tests = "python -m pip install nox && python -m nox -s tests"
    assert 0 < text.index(demo) < text.index(tests) < text.index("## Keys")


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "promises.md"], ids=lambda page: page.stem)
def test_the_promise_is_stated(page: Path) -> None:
    """The promise is in the README and on its own page, word for word."""
    promise = (
        "at most one paid submission per job unless it is proven unsent; never a silent loss; every doubt is listed"
    )
    assert promise in " ".join(page.read_text(encoding="utf-8").split()).lower()


# --- all pages ------------------------------------------------------------------------------------------------------


def test_every_page_is_linked_from_the_readme() -> None:
    """The README leads to each page of docs/."""
    text = README.read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in text] == []


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_a_page_begins_with_its_readers(page: Path) -> None:
    """The first sentence below the title says for whom the page is."""
    title, _, first = page.read_text(encoding="utf-8").split("\n")[:3]
    assert title.startswith("# ")
    assert first.startswith("For ")


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is a file, and every anchor a heading of it."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pictures_are_small() -> None:
    """No picture of the pages is larger than 150 KB."""
    sizes = {file.name: file.stat().st_size for file in (ROOT / "docs" / "images").iterdir()}
    assert sizes
    assert {name: size for name, size in sizes.items() if size > 150_000} == {}


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """No example escapes the tests below by its language."""
    assert {block.language for block in BLOCKS} <= LANGUAGES


# --- python ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_python_example_runs(
    block: Block,
    everywhere: SteppedEmulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Each runs to its end as it stands; what it downloads is there, and no content is charged twice."""
    store: StoreProxy | None = request.getfixturevalue("store") if "s3://" in block.text else None
    if "\nasync def test_" in block.text:
        run_as_test(block, tmp_path)
        return
    monkeypatch.setattr(web, "run_app", serve_two_orders)
    code = compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, object] = {"__name__": "__main__"}
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(types.FunctionType(code, names)())
    else:
        types.FunctionType(code, names)()
    if "cat.mp4" in block.text:
        assert (tmp_path / "cat.mp4").stat().st_size > 1000
    if store is not None:
        assert len(store.object_keys()) == 6
    elif "range(5)" in block.text:
        assert len(list((tmp_path / "videos").glob("*.mp4"))) == 5
    bodies = [json.dumps({**charge.body, "callback_url": None}, sort_keys=True) for charge in everywhere.ledger]
    assert len(bodies) == len(set(bodies))


def run_as_test(block: Block, folder: Path) -> None:
    """Run an example that is itself a test, as its reader would."""
    file = folder / "test_example.py"
    file.write_text(block.text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def serve_two_orders(application: web.Application, **_: object) -> None:
    """Stands in for `web.run_app`: the service gets the same order twice."""

    async def drive() -> None:
        async with TestClient(TestServer(application)) as client:
            answers = []
            for _ in range(2):
                response = await client.post("/videos", json={"prompt": "a cat", "key": "order-17"})
                assert response.status == 202
                answers.append(await response.json())
            assert answers[0]["task_id"] == answers[1]["task_id"]

    asyncio.run(drive())


# --- the command line -----------------------------------------------------------------------------------------------


@attrs.frozen
class Command:
    """One command of a console block, and the lines that are shown below it."""

    line: str
    code: int
    shown: tuple[str, ...]


def commands_of(page: Path) -> list[Command]:
    """Every command of a page, in order; a comment may name its exit code."""
    found = []
    for block in blocks_of(page):
        if block.language == "console":
            for part in re.split(r"^\$ ", block.text.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
                line, *shown = part.rstrip("\n").split("\n")
                code = re.search(r"# exit code (\d+)$", line)
                found.append(Command(line, int(code[1]) if code else 0, tuple(shown)))
    return found


WITH_COMMANDS = [page for page in PAGES if commands_of(page)]


@pytest.mark.parametrize("everywhere", [LOST], indirect=True)
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(
    page: Path,
    everywhere: SteppedEmulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One after another, in a folder with the files that the page shows, they end and print as the page says."""
    monkeypatch.setenv("COLUMNS", "100")
    for block in blocks_of(page):
        if block.name:
            (tmp_path / block.name).write_text(block.text, encoding="utf-8")
    port = free_port()
    for command in commands_of(page):
        words = shlex.split(local(command.line, everywhere, port), comments=True)
        while "=" in words[0]:
            words.pop(0)  # the key, which the fixture has set
        if words[0] == "export":
            continue
        assert words[0] == "pika-async", command.line
        if any(part in command.line for part in NOT_RUN):
            app.parse_args(words[1:], exit_on_error=False, print_error=False)
            continue
        assert main(words[1:]) == command.code, (command.line, capsys.readouterr())
        output = capsys.readouterr()
        lines = {pattern(line) for line in (output.out + output.err).split("\n")}
        for line in command.shown:
            assert pattern(line) in lines, (command.line, line, output)


def local(line: str, emulator: SteppedEmulator, port: int) -> str:
    """The command of a reader, with the addresses and the receipt of this test."""
    line = line.replace("http://127.0.0.1:8765", emulator.url)
    line = line.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{port}")
    if "TASK_ID" in line:
        line = line.replace("TASK_ID", emulator.ledger[0].task_id)
    return line


def pattern(line: str) -> str:
    """A line without its numbers, times and widths."""
    return re.sub(r"[\s─]+", " ", re.sub(r"\d[\d.,:TZ-]*", "0", line)).strip()


# --- data -----------------------------------------------------------------------------------------------------------

PARSERS: dict[str, Callable[[str], Any]] = {
    "csv": lambda text: list(csv.DictReader(io.StringIO(text), strict=True)),
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    "text": str.splitlines,
    "toml": tomllib.loads,
}


@pytest.mark.parametrize("block", blocks(*PARSERS), ids=str)
def test_data_can_be_parsed(block: Block) -> None:
    """Tables, JSON and TOML are well formed, and no row of a table has too many cells."""
    data = PARSERS[block.language](block.text)
    assert data
    if block.language == "csv":
        assert [row for row in data if None in row] == []


def test_the_scenario_of_faults_can_be_played() -> None:
    """The emulator takes the lists of faults that the page on testing shows."""
    from pika_async.emulator import Scenario

    page = ROOT / "docs" / "testing-your-app.md"
    shown = [block.text for block in blocks_of(page) if block.language == "json"]
    assert [len(Scenario.of(json.loads(text)).rules) for text in shown] == [5, 4]


def test_the_documented_exit_codes_are_those_of_the_command_line() -> None:
    """The page lists every exit code by number, and the order in which several reasons count."""
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert [int(row) for row in rows if row.isdigit()] == sorted(ExitCode)
    assert "130, then 3, then 1" in " ".join(page.split())


def test_every_field_of_the_statistics_has_a_row() -> None:
    """The table of `Stats` has each field in the order of the class, its unit, its meaning, and when it is None."""
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    section = page.partition("## State of a client")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert rows[0][0] == "field"
    fields = {f"`{field.name}`": "None" in str(field.type) for field in attrs.fields(Stats)}
    assert [row[0] for row in rows[2:]] == [*fields]
    for name, unit, none_while, meaning in rows[2:]:
        assert unit, name
        assert meaning, name
        assert (none_while.split(";")[0] != "never") is fields[name], name
