"""Runs of pytest in processes forked from one that has imported all that is not under test.

Each run takes place in a copy of the package and its tests, one copy per concurrent run. Modules of the copy are compiled
once, by runs without a mutant. The process that forks must have no threads.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import sysconfig
import time
import traceback
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.mutants.catalog import Mutant

__all__ = ["PACKAGE", "ROOT", "TIMED_OUT", "Copies", "Outcome", "Run"]

ROOT: Final = Path(__file__).resolve().parents[2]
#: The package as it is installed: in a clone its source. It is found and not imported, because each fork imports its own.
PACKAGE: Final = Path(next(iter(importlib.util.find_spec("pika_async").submodule_search_locations)))  # type: ignore[union-attr, arg-type]
#: Returned in place of pytest's exit codes, 0 to 5, if the time limit was exceeded.
TIMED_OUT: Final = -1
#: Seconds after which it is checked again whether runs have ended.
POLL_S: Final = 0.01
#: A single test has no time limit: it would count a hang as a failure. Modules that are imported before pytest knows its
#: plugins are not rewritten; none of them asserts. A native traceback costs nothing.
OPTIONS: Final = (
    "-x", "-q", "-p", "no:cacheprovider", "--timeout", "0", "--hypothesis-profile", "repeatable", "--tb", "native",
    "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning", "--disable-plugin-autoload",
)  # fmt: skip
#: The plugins, given by name: to find them, each run would read the metadata of all that is installed.
PLUGINS: Final = ("anyio.pytest_plugin", "_hypothesis_pytestplugin", "pytest_timeout", "xdist.plugin")
OWN_PLUGIN: Final = "pika_async.emulator.pytest_plugin"
_OURS: Final = frozenset({"pika_async", "tests"})


@attrs.frozen
class Run:
    """Arguments of pytest, the seconds after which it hangs, and the mutant that is applied; None for none."""

    arguments: tuple[str, ...]
    limit: float
    mutant: Mutant | None = None


@attrs.frozen
class Outcome:
    """Exit code of a run, how many seconds it took, its tests that failed, and the seconds of those that passed."""

    code: int
    seconds: float
    failed: tuple[str, ...] = ()
    passed: dict[str, float] = attrs.field(factory=dict)
    #: The test that did not end within the time limit.
    hanging: str = ""


@attrs.define
class _Started:
    run: Run
    copy: Path
    pid: int
    begun: float
    restore: tuple[Path, bytes, os.stat_result] | None


@attrs.define
class Copies:
    """Copies of the package, its tests and what these read, below a folder."""

    folders: list[Path]
    #: The tests that exist, by pytest's name for them.
    collected: frozenset[str] = frozenset()

    @classmethod
    def create(cls, root: Path, count: int) -> Copies:
        """Make *count* copies in the empty folder *root*."""
        folders = [root / str(number) / "copy" for number in range(count)]
        for folder in folders:
            for source in (PACKAGE, ROOT / "tests", ROOT / "benchmarks", ROOT / "docs"):
                shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", folder)
        return cls(folders)

    def warm_up(self, files: Sequence[str]) -> None:
        """Import whatever the tests in *files* import and is not under test; the tests are compiled in each copy."""
        runs = [Run((*files, "--collect-only"), 600.0) for _ in self.folders]
        list(self.run_all(runs))
        collected = json.loads((self.folders[0].parent / "collected.json").read_text())
        self.collected = frozenset(collected["tests"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in collected["modules"]:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        gc.collect()
        gc.freeze()  # no fork traverses what all of them share

    def run_all(self, runs: Iterable[Run]) -> Iterator[tuple[Run, Outcome]]:
        """Run each, as many at a time as there are copies, and yield each when it has ended."""
        waiting, running = deque(runs), list[_Started]()
        free = list(self.folders)
        try:
            while waiting or running:
                while waiting and free:
                    running.append(_start(waiting.popleft(), free.pop()))
                time.sleep(POLL_S)
                for started in list(running):
                    outcome = _outcome_of(started)
                    if outcome is not None:
                        running.remove(started)
                        free.append(started.copy)
                        yield started.run, outcome
        finally:
            for started in running:
                _kill(started.pid)


def _start(run: Run, copy: Path) -> _Started:
    restore = None if run.mutant is None else _apply(run.mutant, copy)
    gc.disable()  # a collection in the fork would copy what it traverses
    pid = os.fork()
    if not pid:
        _run_pytest(run, copy)
    gc.enable()
    return _Started(run, copy, pid, time.monotonic(), restore)


def _apply(mutant: Mutant, copy: Path) -> tuple[Path, bytes, os.stat_result]:
    file = copy / "pika_async" / mutant.file
    before, found = file.read_bytes(), file.stat()
    file.write_text(before.decode().replace(mutant.old, mutant.new), encoding="utf-8")
    os.utime(file, (found.st_atime, found.st_mtime + 10))  # else the module as it was compiled might be taken for it
    return file, before, found


def _outcome_of(started: _Started) -> Outcome | None:
    """Return the outcome of a run that has ended or takes too long, with the mutant undone; None while it runs."""
    seconds = time.monotonic() - started.begun
    pid, status = os.waitpid(started.pid, os.WNOHANG)
    if not pid and seconds < started.run.limit:
        return None
    code = os.waitstatus_to_exitcode(status) if pid else TIMED_OUT
    _kill(started.pid, is_running=not pid)
    if started.restore is not None:
        file, before, found = started.restore
        file.write_bytes(before)
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    reports = [json.loads(line) for line in (started.copy.parent / "reports.jsonl").read_text().splitlines()]
    failed = tuple(dict.fromkeys(report["test"] for report in reports if report["outcome"] == "failed"))
    passed = {report["test"]: report["seconds"] for report in reports if report["outcome"] == "passed"}
    hanging = reports[-1]["test"] if code == TIMED_OUT and reports and reports[-1]["outcome"] == "started" else ""
    return Outcome(code, seconds, failed, passed, hanging)


def _kill(pid: int, *, is_running: bool = True) -> None:
    """Kill a run and the processes that it has started; it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if is_running:
        os.waitpid(pid, 0)


# --- the forked process -----------------------------------------------------------------------------------------------


class _Reports:
    """Plugin of pytest that writes one line for each test, and what a run that only collects has found."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / "reports.jsonl").open("w")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            found = {"tests": [item.nodeid for item in session.items], "modules": _modules_not_under_test()}
            (self._folder / "collected.json").write_text(json.dumps(found))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(nodeid, "started", 0.0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or report.when == "call":
            self._write(report.nodeid, report.outcome, report.duration)

    def _write(self, test: str, outcome: str, seconds: float) -> None:
        line = {"test": test, "outcome": outcome, "seconds": seconds}
        print(json.dumps(line), file=self._file, flush=True)


def _run_pytest(run: Run, copy: Path) -> None:
    """Run pytest in the forked process. Never returns."""
    code = 3  # pytest's own for an internal error
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        out = os.open(copy.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        _enter(copy, compiles=run.mutant is None)
        gc.enable()
        arguments = [*OPTIONS, "--basetemp", str(copy.parent / "tmp"), *run.arguments]
        plugins = [importlib.import_module(name) for name in (*PLUGINS, OWN_PLUGIN)]
        code = pytest.main(arguments, plugins=[_Reports(copy.parent), *plugins])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _enter(copy: Path, *, compiles: bool) -> None:
    """Let this process and those that it starts import from a copy."""
    os.chdir(copy)
    sys.path.insert(0, str(copy))  # before the installed package
    os.environ["PYTHONPATH"] = str(copy)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "" if compiles else "1"
    sys.dont_write_bytecode = not compiles
    for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _modules_not_under_test() -> list[str]:
    """Return the names of the imported modules that are installed, in the order of their imports."""
    roots = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return [
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in _OURS and _file_of(module).startswith(roots)
    ]


def _file_of(module: Any) -> str:
    return getattr(module, "__file__", None) or ""
