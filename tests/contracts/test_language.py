"""The words of the project: plain terms of the field in docstrings, comments, messages and pages; one name, one meaning."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import pika_async

ROOT = Path(__file__).parents[2]
PACKAGE = Path(pika_async.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
#: Code beside the package. This file holds the markers themselves.
BESIDE = sorted(
    file
    for folder in ("tests", "benchmarks", "examples")
    for file in (ROOT / folder).rglob("*.py")
    if file != Path(__file__).resolve()
)
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]

#: Words that stand for "passed", "notified", "recorded", "missing", "parked", "finished" or "poll" in no other codebase.
MARKERS = re.compile(
    r"\b(told|untold|hears?|heard|nobody|whoever|put down|puts down|at rest|is no|are no|"
    r"look(?:s|ed|ing)?(?! up\b)(?! like\b))\b",
    re.IGNORECASE,
)
#: Sentences in which a marker has its everyday meaning.
ALLOWED = (
    "there is no ",
    "There is no ",
    "there are no ",
    "is no longer ",
    "are no longer ",
    "is no worse ",
)


def texts_of(file: Path) -> Iterator[tuple[int, str]]:
    """Yield each comment and each text of a source file, with its line; names and keys of data are not texts."""
    source = file.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def descriptions_of(file: Path) -> Iterator[tuple[int, str]]:
    """Yield each comment, docstring and name of a source file, with its line; other texts are data there."""
    source = file.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        elif token.type == tokenize.NAME:
            yield token.start[0], token.string.replace("_", " ") + " "
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""


def markers_in(text: str) -> list[str]:
    """Return the markers of a text, without those that stand in an allowed sentence."""
    for phrase in ALLOWED:
        text = text.replace(phrase, "")
    return MARKERS.findall(text)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_sources_use_plain_terms(file: Path) -> None:
    """Docstrings, comments, error texts and help texts hold no private metaphor."""
    assert [(line, found) for line, text in texts_of(file) if (found := markers_in(text))] == []


@pytest.mark.parametrize("file", BESIDE, ids=lambda file: str(file.relative_to(ROOT)))
def test_code_beside_the_package_uses_plain_terms(file: Path) -> None:
    """Docstrings, comments and names of the tests, the benchmarks and the examples hold no private metaphor."""
    assert sorted({(line, *found) for line, text in descriptions_of(file) if (found := markers_in(text))}) == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_pages_use_plain_terms(file: Path) -> None:
    """Pages hold no private metaphor; names of code, which the changelog has old ones of, are left out."""
    lines = re.sub(r"`[^`\n]+`", "", file.read_text(encoding="utf-8")).splitlines()
    assert [(number, found) for number, line in enumerate(lines, 1) if (found := markers_in(line))] == []


def test_the_check_finds_a_marker() -> None:
    """A sentence in the old words is found, the everyday meaning passes."""
    assert markers_in("Whoever waits is told when the next look is due.") == ["Whoever", "told", "look"]
    assert markers_in("There is no file; look up the key.") == []


def test_the_check_reads_names_and_docstrings(tmp_path: Path) -> None:
    """A marker in a name, in a comment or in a docstring is found with its line; one in data is not."""
    file = tmp_path / "sample.py"
    file.write_text('''def first_look(told: int) -> str:\n    """Nobody waits."""\n    return "heard"  # at rest\n''')
    found = [(line, *markers) for line, text in descriptions_of(file) if (markers := markers_in(text))]
    assert sorted(found) == [(1, "Nobody"), (1, "look"), (1, "told"), (3, "at rest")]


def definitions() -> Iterator[tuple[str, Path]]:
    """Yield the public classes and constants that stand at the top level of a module."""
    for file in SOURCES:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                yield node.name, file
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name) and target.id.isupper() and len(target.id) > 1:
                        yield target.id, file


def test_one_name_means_one_thing() -> None:
    """No class and no public constant has the name of another in a second module."""
    places: defaultdict[str, set[str]] = defaultdict(set)
    for name, file in definitions():
        if not name.startswith("_"):
            places[name].add(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def constants_in_tuples() -> Iterator[str]:
    for file in SOURCES:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if isinstance(target, ast.Tuple):
                    yield f"{file.relative_to(PACKAGE)}:{node.lineno}"


def test_constants_stand_one_to_a_line() -> None:
    """No assignment at the top level of a module unpacks two constants."""
    assert list(constants_in_tuples()) == []
