"""The house: rows, purity and direction of imports, read from the source; absolute and type-only imports included."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pika_async"

#: Room -> row. A room imports from lower rows, and from its own row as long as there is no circle.
ROWS = {
    "errors": 0,
    "models": 1, "wire": 1, "mp4": 1, "addresses": 1,
    "lifecycle": 2, "polling": 2, "limits": 2, "slots": 2, "retrying": 2, "_fetching": 2,
    "providers": 3, "_keys": 3, "events": 3,
    "decisions": 4, "calls": 4, "lookout": 4, "agenda": 4,
    "_transport": 5, "_journal": 5, "_callback_server": 5, "logs": 5, "_telemetry": 5,
    "_exchange": 6, "_downloads": 6,
    "_settings": 6, "_crew": 6, "callbacks": 6, "stats": 6,
    "_desk": 7, "_submissions": 7, "_scheduler": 7, "_admission": 7, "_resolving": 7, "_hearing": 7, "_collector": 7,
    "_batch": 7, "_events": 7, "_running": 7,
    "_life": 8, "client": 8,
    "cli": 9, "report": 9, "testing": 9, "__init__": 9, "__main__": 9,
}  # fmt: skip
PURE_ROWS = range(5)
#: What a pure room does not know: sockets, loops, clocks, chance, files.
IMPURE = {"aiohttp", "anyio", "asyncio", "sqlite3", "time", "random", "os", "socket", "ssl", "threading", "subprocess"}
#: The only rooms that know aiohttp's client, with the parameter of the public client that takes a session.
CLIENT_ROOMS = {"_transport", "_downloads", "_life"}
#: The only rooms that know aiohttp's server, and what of aiohttp is its server; whatever else is counts as the client.
SERVER_ROOMS = {"_callback_server", "callbacks"}
SERVER = {"aiohttp.web", "aiohttp.abc", "aiohttp.http", "aiohttp.streams"}


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(file: Path) -> set[str]:
    """Every module that a file imports, wherever in the file, as absolute names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively"
            assert node.module is not None
            names |= _imported(node.module, [alias.name for alias in node.names])
    return names


def _imported(module: str, names: list[str]) -> set[str]:
    """`from package import room` imports the room, `from room import name` the room as well."""
    folder = PACKAGE.parent / module.replace(".", "/")
    rooms = {f"{module}.{name}" for name in names if (folder / f"{name}.py").exists() or (folder / name).is_dir()}
    return rooms if len(rooms) == len(names) else rooms | {module}


FILES = sorted(PACKAGE.rglob("*.py"))
SDK = [file for file in FILES if room_of(file) != "emulator"]


def rooms_imported(file: Path) -> set[str]:
    parts = [name.split(".") for name in imports_of(file) if name.split(".")[0] == "pika_async" and "." in name]
    return {part[1] for part in parts if part[1] in ROWS or part[1] == "emulator"}


def test_every_room_has_a_row() -> None:
    """A new room is given its row here before it is used."""
    assert {room_of(file) for file in SDK} == set(ROWS)


@pytest.mark.parametrize("file", SDK, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_one_way(file: Path) -> None:
    """No room imports from a higher row."""
    own = ROWS[room_of(file)]
    assert [room for room in rooms_imported(file) if room in ROWS and ROWS[room] > own] == []


@pytest.mark.parametrize(
    "file", [f for f in SDK if ROWS[room_of(f)] in PURE_ROWS], ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_pure_rooms_know_no_clock_no_chance_and_no_io(file: Path) -> None:
    """Decisions are apart from what carries them out."""
    assert {name.split(".")[0] for name in imports_of(file)} & IMPURE == set()


def test_there_is_no_circle() -> None:
    """Rooms of one row may know one another in one direction only; so may the files inside a room."""
    graph: dict[str, set[str]] = {}
    for file in FILES:
        own = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        graph[own.removesuffix(".__init__")] = {name for name in imports_of(file) if name.startswith("pika_async.")}
    TopologicalSorter(graph).prepare()


def aiohttp_imports() -> set[tuple[str, str]]:
    """Each room with what it imports of aiohttp; `from aiohttp import web` is `aiohttp.web`."""
    found: set[tuple[str, str]] = set()
    for file in SDK:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.web" if alias.name == "web" else str(node.module) for alias in node.names]
            else:
                continue
            found |= {(room_of(file), name) for name in names if name.split(".")[0] == "aiohttp"}
    return found


def test_only_three_rooms_know_aiohttps_client() -> None:
    """The transport and the downloads speak HTTP; the client only names the type of a session."""
    assert {room for room, name in aiohttp_imports() if name not in SERVER} <= CLIENT_ROOMS


def test_only_two_rooms_know_aiohttps_server() -> None:
    """Callbacks are received in two rooms; no other serves anybody."""
    assert {room for room, name in aiohttp_imports() if name in SERVER} <= SERVER_ROOMS


def test_only_one_room_knows_opentelemetry() -> None:
    """It is an extra, and what it raises is caught there."""
    assert {room_of(file) for file in SDK if any(name.startswith("opentelemetry") for name in imports_of(file))} == {
        "_telemetry"
    }


def test_the_emulator_learns_nothing_from_the_sdk() -> None:
    """The emulator imports only itself, or the suite would learn from what it checks."""
    for file in FILES:
        if room_of(file) == "emulator":
            ours = {name for name in imports_of(file) if name.split(".")[0] == "pika_async"}
            assert {name for name in ours if not name.startswith("pika_async.emulator")} == set()


def test_the_sdk_does_without_the_emulator() -> None:
    """Only the command line and the plugin start an emulator."""
    users = {room_of(file) for file in SDK if any("pika_async.emulator" in name for name in imports_of(file))}
    assert users <= {"cli", "testing"}


def test_rooms_are_small() -> None:
    """A room of more than 400 lines is two nouns."""
    assert {str(f.relative_to(PACKAGE)): n for f in FILES if (n := len(f.read_text().splitlines())) > 400} == {}
