"""The law of the package: which folder may import which, and which outside roots; read from the source.

Imports are read wherever they stand in a file, those for types alone included.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pika_async

PACKAGE = Path(pika_async.__file__).parent
EMULATOR = "emulator"

#: Folder or module at the top level -> its row. It imports from lower rows, or from its own.
ROWS = {
    "errors": 0,
    "models": 1, "polling": 1,
    "jobs": 2, "providers": 2,
    "_planning": 3, "logs": 3,
    "_http": 4, "_journal": 4,
    "config": 6,
    "_runtime": 7,
    "client": 8, "engines": 8, "report": 8,
    "__init__": 9,
    "cli": 10,
    "__main__": 11,
}  # fmt: skip
PURE = ("errors", "models", "polling", "jobs", "providers", "_planning")
#: What a pure folder may not import: sockets, event loops, clocks, randomness, files, processes.
IMPURE = {
    "aiohttp", "anyio", "asyncio", "concurrent", "fcntl", "opentelemetry", "os", "random", "secrets", "signal", "socket",
    "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip
#: The impure roots that each other part of the SDK may import.
ALLOWED = {
    "_journal": {"asyncio", "concurrent", "fcntl", "os", "sqlite3", "tempfile", "threading"},
    "_http": {
        "aiohttp",
        "anyio",
        "asyncio",
        "concurrent",
        "os",
        "random",
        "secrets",
        "socket",
        "ssl",
        "tempfile",
        "time",
    },
    "_runtime": {"anyio", "asyncio", "opentelemetry", "os", "random", "time"},
    "config": {"aiohttp", "os"},
    "client": {"aiohttp", "anyio", "asyncio", "os", "time"},
    "engines": {"anyio", "asyncio", "concurrent", "os", "random", "secrets", "socket", "sqlite3", "threading", "time"},
    "report": {"aiohttp", "anyio", "secrets", "threading", "time"},
    "logs": set(),
    "__init__": set(),
}
#: The longest chain of imports from `pika_async/__init__.py`, file by file.
LONGEST_CHAIN = 17
#: Entries of the package's top level, without `__init__`, `__main__` and `py.typed`.
MAX_ENTRIES = 16
MAX_LINES = 400

FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(file: Path) -> str:
    """Return the top-level folder or module that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


SDK = [file for file in FILES if part_of(file) != EMULATOR]


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file) for file in FILES}


def imports_of(file: Path) -> set[str]:
    """Return every module that a file imports, as absolute names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively"
            assert node.module is not None
            # The version is a constant of the package, bound before a file of it is imported.
            found = {f"{node.module}.{alias.name}" for alias in node.names if alias.name != "__version__"}
            names |= {name if name in MODULES else node.module for name in found}
    return names


GRAPH = {name_of(file): {name for name in imports_of(file) if name in MODULES} - {name_of(file)} for file in FILES}


def parts_imported(file: Path) -> set[str]:
    """Return the other top-level parts of the package that a file imports."""
    names = {name for name in imports_of(file) if name.split(".")[0] == "pika_async"}
    return {name.split(".")[1] if "." in name else "__init__" for name in names} - {part_of(file)}


def relative(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_every_part_has_a_row() -> None:
    """A new folder or module at the top level is given its row here before it is used."""
    assert {part_of(file) for file in SDK} == set(ROWS)


@pytest.mark.parametrize("file", SDK, ids=relative)
def test_imports_run_one_way(file: Path) -> None:
    """A file imports from lower rows only; the emulator is imported by the command line alone."""
    own = ROWS[part_of(file)]
    parts = parts_imported(file)
    assert [part for part in parts if part in ROWS and ROWS[part] > own] == []
    assert EMULATOR not in parts or part_of(file) == "cli"


@pytest.mark.parametrize("file", [file for file in SDK if part_of(file) in PURE], ids=relative)
def test_pure_parts_import_nothing_impure(file: Path) -> None:
    """Decisions are apart from what carries them out: no clock, no randomness, no I/O."""
    assert {name.split(".")[0] for name in imports_of(file)} & IMPURE == set()


@pytest.mark.parametrize("file", [file for file in SDK if part_of(file) in ALLOWED], ids=relative)
def test_each_part_imports_only_its_own_outside_roots(file: Path) -> None:
    """SQLite stands in the journal, sockets in `_http`, OpenTelemetry in the runtime, and nowhere else."""
    assert ({name.split(".")[0] for name in imports_of(file)} & IMPURE) - ALLOWED[part_of(file)] == set()


def test_opentelemetry_stands_in_one_folder() -> None:
    """OpenTelemetry is an extra, and what it raises is caught in the folder that imports it."""
    users = {file.parent.name for file in SDK if any(name.startswith("opentelemetry") for name in imports_of(file))}
    assert users == {"telemetry"}


def test_the_library_of_the_store_stands_in_one_file() -> None:
    """It is an extra, slow to import, and wanted by few: it is imported where the first result is stored."""
    roots = {"aiobotocore", "boto3", "botocore", "fsspec", "s3fs"}
    users = {relative(file) for file in SDK if {name.split(".")[0] for name in imports_of(file)} & roots}
    assert users == {"_http/s3.py"}


def test_there_is_no_import_cycle() -> None:
    """Files import one another in one direction, imports for types included."""
    TopologicalSorter(GRAPH).prepare()


def test_the_longest_chain_of_imports_is_short() -> None:
    """From `pika_async/__init__.py` no chain of imports, file by file, is longer than the limit."""
    depth: dict[str, int] = {}
    for name in TopologicalSorter(GRAPH).static_order():
        depth[name] = 1 + max((depth[other] for other in GRAPH[name]), default=0)
    assert depth["pika_async"] <= LONGEST_CHAIN


def test_the_top_level_is_small() -> None:
    """The package's folder shows at most 16 entries."""
    entries = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


def test_the_emulator_imports_only_itself() -> None:
    """The emulator encodes and decodes by itself, or the suite would learn from what it checks."""
    foreign = {relative(file): parts_imported(file) for file in FILES if part_of(file) == EMULATOR}
    assert {file: parts for file, parts in foreign.items() if parts} == {}


def test_files_are_small() -> None:
    """A file of more than 400 lines holds two nouns."""
    assert {relative(f): n for f in FILES if (n := len(f.read_text().splitlines())) > MAX_LINES} == {}
