"""What each start loads: modules are counted, because times depend on the machine."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

import pika_async

PACKAGE: Final = Path(pika_async.__file__)
PROLOGUE: Final = "import sys; before = set(sys.modules)"
EPILOGUE: Final = "print(sorted(sys.modules.keys() - before), file=sys.stderr)"
#: The libraries that the help text of all commands may load, by the first part of their names.
HELP_LIBRARIES: Final = frozenset({
    "attr", "attrs", "cyclopts", "docstring_parser", "markdown_it", "mdurl", "pygments", "rich", "rich_rst",
    "typing_extensions",
})  # fmt: skip
#: The same for our own modules.
HELP_MODULES: Final = frozenset({
    "pika_async", "pika_async.__main__", "pika_async.cli", "pika_async.cli.help_groups", "pika_async.cli.overview",
    "pika_async.cli.streams",
})  # fmt: skip
#: The libraries that a client may load: the five dependencies, what these need, and what they use where it is installed.
CLIENT_LIBRARIES: Final = frozenset({
    "_brotli", "_cffi_backend", "aiodns", "aiohappyeyeballs", "aiohttp", "aiosignal", "anyio", "attr", "attrs", "backoff",
    "backports", "brotli", "brotlicffi", "cattr", "cattrs", "exceptiongroup", "frozenlist", "idna", "multidict",
    "propcache", "pycares", "sniffio", "typing_extensions", "yarl",
})  # fmt: skip
#: Our modules that a client without a journal, callbacks, an estimate and a board has no use for.
UNUSED_BY_MOST: Final = frozenset({
    "pika_async._http.callback_server", "pika_async._http.s3", "pika_async._http.stores",
    "pika_async._journal.queries", "pika_async._journal.sqlite", "pika_async._runtime.stored_results",
    "pika_async._planning.makespan", "pika_async._runtime.callback_signatures", "pika_async._runtime.estimation",
    "pika_async._runtime.telemetry.otel", "pika_async._runtime.uploads", "pika_async.cli", "pika_async.emulator",
    "pika_async.models.sweep", "pika_async.providers.fal", "pika_async.providers.pika", "pika_async.report.board",
})  # fmt: skip
#: What a command without a board, a configuration file, an emulator and posters has no use for.
UNUSED_BY_COMMANDS: Final = frozenset({
    "PIL", "aiohttp.web", "rich.markdown", "av", "jinja2", "opentelemetry", "pika_async._http.callback_server", "pika_async.emulator",
    "pika_async.report.board", "pika_async.report.board_servers", "pika_async.report.board_source", "tomllib", "uvloop",
})  # fmt: skip
#: Modules of ours that a client may load; each takes about a millisecond.
MAX_CLIENT_MODULES: Final = 152
#: Parts of the standard library that take long to load, and that the help text has no use for.
HEAVY: Final = frozenset({"asyncio", "concurrent", "http", "multiprocessing", "sqlite3", "ssl", "unittest", "xml"})


def loaded(code: str, *argv: str) -> list[str]:
    """Return the modules that a fresh Python loads for `code`, beside those that it loads for itself."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{PROLOGUE}\n{code}\n{EPILOGUE}", *argv], capture_output=True, text=True, check=True
    )
    names: list[str] = ast.literal_eval(ran.stderr.splitlines()[-1])
    return names


def command(*argv: str) -> list[str]:
    """Return what the command line loads for some arguments."""
    return loaded("from pika_async.__main__ import main; assert main(sys.argv[1:]) == 0", *argv)


def own(names: Sequence[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "pika_async"}


def libraries(names: Sequence[str]) -> set[str]:
    """Return the roots of the modules that are neither ours nor of the standard library, nor made by Cython."""
    roots = {name.split(".")[0] for name in names} - {*sys.stdlib_module_names, "pika_async"}
    return {root for root in roots if "cython" not in root}


def test_the_package_alone_loads_nothing() -> None:
    """`import pika_async` loads one module of ours, and none of anyone else."""
    assert loaded("import pika_async") == ["pika_async"]


@pytest.mark.parametrize("name", ["PikaError", "GenerationRequest", "Job", "FixedInterval", "sweep", "Provider"])
def test_a_record_loads_neither_sockets_nor_the_runtime(name: str) -> None:
    """A name that does no I/O is imported without the client, aiohttp, and SQLite."""
    names = loaded(f"from pika_async import {name}")
    assert {name.split(".")[1] for name in own(names) if "." in name} <= {
        "errors", "jobs", "models", "polling", "providers",
    }  # fmt: skip
    assert {"aiohttp", "anyio", "asyncio", "sqlite3"}.isdisjoint(names)


def test_a_client_loads_what_every_client_uses() -> None:
    """SQLite, the receiver's server, the board, telemetry, uvloop and package metadata are left to those who use them."""
    made = "pika_async.PikaClient('native', api_key='k', base_url='http://127.0.0.1:1')"
    names = loaded(f"import pika_async; {made}")
    assert libraries(names) <= CLIENT_LIBRARIES
    assert own(names) & UNUSED_BY_MOST == set()
    assert {"aiohttp.web", "importlib.metadata", "sqlite3"}.isdisjoint(names)
    assert len(own(names)) <= MAX_CLIENT_MODULES
    journal = made.replace(")", ", journal='no-such-folder/j.db')")
    assert "pika_async._journal.sqlite" in loaded(f"import pika_async; {journal}")


def test_the_version_loads_no_library() -> None:
    """`--version` needs the package and its entry point."""
    names = command("--version")
    assert own(names) == {"pika_async", "pika_async.__main__"}
    assert libraries(names) == set()


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",)], ids=str)
def test_the_help_text_loads_no_command(argv: tuple[str, ...]) -> None:
    """The help text of all commands needs the parser, and nothing that a command needs."""
    names = command(*argv)
    assert own(names) <= HELP_MODULES
    assert libraries(names) <= HELP_LIBRARIES
    assert HEAVY.isdisjoint(names)


def test_a_command_without_a_board_loads_none() -> None:
    """A command loads neither the board, nor a server, nor what reads a configuration file that does not exist."""
    names = loaded("from pika_async.__main__ import main; assert main(['status', 'no-such-folder']) == 2")
    assert {name for name in names if name.split(".")[0] in UNUSED_BY_COMMANDS or name in UNUSED_BY_COMMANDS} == set()


def test_every_public_name_is_found_first() -> None:
    """Whichever public name of a module is used first, no import of another one has to come before it."""
    code = """
import os, pika_async
for module, names in pika_async._NAMES.items():
    if (child := os.fork()) == 0:
        for name in names:
            getattr(pika_async, name)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, module
"""
    assert own(loaded(code)) == {"pika_async"}


def test_public_names_are_listed_alike() -> None:
    """Type checkers, `from pika_async import *` and the first use of a name have the same names and modules."""
    tree = ast.parse(PACKAGE.read_text(encoding="utf-8"))
    typed = {
        node.module: [alias.name for alias in node.names]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pika_async.")
    }
    assert {f"pika_async.{module}": list(names) for module, names in pika_async._NAMES.items()} == typed
    names = sorted([*pika_async.__all__, *pika_async._EXTRAS])
    assert names == sorted(name for names in typed.values() for name in names)
    assert {*names, *pika_async._PARTS} <= set(dir(pika_async))
    parts = {path.stem for path in PACKAGE.parent.iterdir() if not path.name.startswith(("_", "."))}
    assert parts - {"cli", "emulator", "py", "report"} == pika_async._PARTS


def test_a_name_is_kept_for_its_next_use() -> None:
    """The second use of a public name finds it in the package."""
    code = "import pika_async; pika_async.PikaError; assert 'PikaError' in vars(pika_async)"
    assert "pika_async.errors" in loaded(code)


def test_a_name_without_its_extra_says_how_to_get_it() -> None:
    """It is an `ImportError` that names the extra; `from pika_async import *` goes without."""
    code = "import sys; sys.modules['dbos'] = None; from pika_async import *; from pika_async import Cluster"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'ImportError: Cluster needs the extra dbos: pip install "pika_async[dbos]"' in ran.stderr


def test_a_misspelt_name_is_named() -> None:
    """A name that does not exist is an `AttributeError`, and an `ImportError` where it is imported."""
    with pytest.raises(AttributeError, match=r"module 'pika_async' has no attribute 'PikaClent'"):
        getattr(pika_async, "PikaClent")  # noqa: B009 - a type checker would refuse it
    ran = subprocess.run(
        [sys.executable, "-c", "from pika_async import PikaClent"], capture_output=True, text=True, check=False
    )
    assert "ImportError: cannot import name 'PikaClent' from 'pika_async'" in ran.stderr


def test_parts_of_the_package_are_its_attributes() -> None:
    """`pika_async.errors` is found without an import of its own, as for code that was written before."""
    assert loaded("import pika_async; pika_async.errors.PikaError; pika_async.polling.Schedule") != []


def test_threads_may_use_a_name_first() -> None:
    """Threads that use names for the first time, at the same moment, all get the one object."""
    code = """
import threading, pika_async
names = ["PikaClient", "Job", "PikaError", "CallbackReceiver"] * 4
barrier, found, sys_interval = threading.Barrier(len(names)), [], sys.setswitchinterval(1e-6)
def use(name):
    barrier.wait(60)
    found.append((name, getattr(pika_async, name)))
threads = [threading.Thread(target=use, args=(name,)) for name in names]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(found) == len(names) and len(set(found)) == 4, found
"""
    assert "pika_async.client" in loaded(code)


def test_a_pickled_value_is_read_where_nothing_was_imported() -> None:
    """A pickled error is read by a process that has not imported the package."""
    error = pickle.dumps(pika_async.InvalidRequest(field="key", value="", reason="is empty"))
    names = loaded(f"import pickle; assert pickle.loads({error!r}).field == 'key'")
    assert "pika_async.client" not in names
