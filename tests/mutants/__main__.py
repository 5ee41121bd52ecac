"""Runner of the mutants: `python -m tests.mutants [NAME ...]`, or `--check` to verify the catalog without running tests.

The catalog is every `MUTANTS` of a module in this folder. Each mutant breaks one promise in a copy of the package; its tests must then fail. Prints one line for each mutant. The
exit code is 1 if a mutant survived or its text does not occur exactly once, and 2 for an unknown name.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tests.mutants
from tests.mutants.catalog import Mutant

ROOT = Path(__file__).resolve().parents[2]
#: Number of mutants that run concurrently.
WORKERS = 2
#: Time limit of one mutant in seconds. A mutant that makes its tests hang counts as killed.
TIMEOUT_S = 120
#: Exit code of pytest if tests failed. Other codes except 0 (usage error, no tests collected) are errors of the catalog.
TESTS_FAILED = 1
#: Returned in place of pytest's exit codes, 0 to 5, if the time limit was exceeded.
TIMED_OUT = -1


def load_mutants() -> tuple[Mutant, ...]:
    """Return the mutants of every module beside this one, in the order of the modules' names."""
    names = [module.name for module in pkgutil.iter_modules(tests.mutants.__path__) if module.name != "__main__"]
    modules = [importlib.import_module(f"tests.mutants.{name}") for name in names]
    return tuple(mutant for module in modules for mutant in module.MUTANTS)


def main(arguments: list[str]) -> int:
    """Run the named mutants, or all of them, and return the exit code. With `--check` only verify the catalog."""
    names = [argument for argument in arguments if argument != "--check"]
    mutants = load_mutants()
    unknown = set(names) - {mutant.name for mutant in mutants}
    if unknown:
        print(f"no such mutant: {', '.join(sorted(unknown))}")
        return 2
    selected = [mutant for mutant in mutants if not names or mutant.name in names]
    return check(selected) if "--check" in arguments else run(selected)


def check(mutants: list[Mutant]) -> int:
    """Print each mutant whose text does not occur exactly once or whose tests do not exist."""
    problems = [(mutant.name, problem) for mutant in mutants for problem in _problems(mutant)]
    counts = Counter(mutant.name for mutant in mutants)
    problems += [(name, f"{count} mutants have this name") for name, count in counts.items() if count > 1]
    for name, problem in problems:
        print(f"{name}: {problem}")
    print(f"{len(mutants) - len({name for name, _ in problems})} of {len(mutants)} are valid")
    return 1 if problems else 0


def run(mutants: list[Mutant]) -> int:
    """Run the tests of the mutants on the unchanged package, then each mutant."""
    started = time.monotonic()
    suites = sorted({(mutant.tests, mutant.only) for mutant in mutants})
    with ThreadPoolExecutor(WORKERS) as workers:
        passes = dict(zip(suites, workers.map(_passes, suites), strict=True))
        failing = [suite for suite, passed in passes.items() if not passed]
        for tests, only in failing:
            print(f"these tests fail without a mutant: {' '.join(tests)}{f' -k {only!r}' if only else ''}")
        if failing:
            return 1
        outcomes = list(workers.map(_run_and_print, mutants))
    killed = sum(outcome == "killed" for outcome in outcomes)
    print(f"{killed} of {len(outcomes)} killed in {time.monotonic() - started:.0f} s")
    return 0 if killed == len(outcomes) else 1


def _problems(mutant: Mutant) -> list[str]:
    file = ROOT / "pika_async" / mutant.file
    if not file.is_file():
        return [f"{mutant.file} does not exist"]
    count = file.read_text(encoding="utf-8").count(mutant.old)
    problems = [] if count == 1 else [f"the text occurs {count} times in {mutant.file}"]
    missing = [test for test in mutant.tests if not (ROOT / test).is_file()]
    if missing:
        return [*problems, *(f"{test} does not exist" for test in missing)]
    # pytest's `-k` matches names of tests and files without regard to case.
    searched = " ".join([*mutant.tests, *((ROOT / test).read_text(encoding="utf-8") for test in mutant.tests)]).lower()
    words = set(re.findall(r"[\w-]+", mutant.only.lower())) - {"and", "or", "not"}
    return [*problems, *(f"no test is named {word!r}" for word in sorted(words) if word not in searched)]


def _run_and_print(mutant: Mutant) -> str:
    started = time.monotonic()
    outcome = _outcome(mutant)
    print(f"{outcome:9} {mutant.name:28} {time.monotonic() - started:5.1f} s  {mutant.breaks}", flush=True)
    return outcome


def _outcome(mutant: Mutant) -> str:
    problems = _problems(mutant)
    if problems:
        return f"INVALID ({'; '.join(problems)})"
    code = _run_pytest(mutant.tests, mutant.only, mutant)
    if code in {TESTS_FAILED, TIMED_OUT}:
        return "killed"
    return "SURVIVED" if code == 0 else f"BROKEN (pytest's exit code is {code})"


def _passes(suite: tuple[tuple[str, ...], str]) -> bool:
    return _run_pytest(*suite) == 0


def _run_pytest(tests: tuple[str, ...], only: str, mutant: Mutant | None = None) -> int:
    """Run tests on a copy of the package, with *mutant* applied to it, and return pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix="pika-mutant-") as folder:
        copy = Path(folder)
        for name in ("pika_async", "tests", "benchmarks"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant is not None:
            file = copy / "pika_async" / mutant.file
            file.write_text(file.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        if only:
            command += ["-k", only]
        # The copy comes first on the path, so that it is imported instead of the installed package.
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            return subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return TIMED_OUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
