"""Runner of the mutants: `python -m tests.mutants [NAME ...]`, or `--check` to verify the catalog without running tests.

Each mutant breaks one promise in a copy of the package; its tests must then fail. A mutant whose tests hang is run again
alone, and is killed only if they hang again. Prints one line for each mutant. The exit code is 1 if a mutant survived or
its text does not occur exactly once, and 2 for an unknown name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pika_async
from tests.mutants.catalog import Mutant, load_mutants

ROOT = Path(__file__).resolve().parents[2]
#: The package as it is installed: in a clone its source.
PACKAGE = Path(pika_async.__file__).parent
#: Number of mutants that run concurrently.
WORKERS = 2
#: Least time limit of one mutant in seconds.
MIN_TIMEOUT_S = 120.0
#: Time limit of one mutant, relative to the time that its tests take on the unchanged package in the same session.
TIMEOUT_FACTOR = 5.0
#: Time limit of tests on the unchanged package in seconds.
BASELINE_TIMEOUT_S = 900.0
#: Exit code of pytest if tests failed. Other codes except 0 (usage error, no tests collected) are errors of the catalog.
TESTS_FAILED = 1
#: Returned in place of pytest's exit codes, 0 to 5, if the time limit was exceeded.
TIMED_OUT = -1


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
    """Run the tests of all mutants on the unchanged package, then each mutant."""
    started = time.monotonic()
    selections = _selections(mutants)
    with ThreadPoolExecutor(WORKERS) as workers:
        seconds = dict(zip(selections, workers.map(_time_unchanged, selections.items()), strict=True))
        failing = [tests for tests in selections if seconds[tests] is None]
        for tests in failing:
            only = selections[tests]
            print(f"these tests fail without a mutant: {' '.join(tests)}{f' -k {only!r}' if only else ''}")
        if failing:
            return 1
        limits = [time_limit(seconds[mutant.tests] or 0.0) for mutant in mutants]
        outcomes = list(workers.map(_run_and_print, mutants, limits))
    for index, (mutant, limit) in enumerate(zip(mutants, limits, strict=True)):
        if outcomes[index] == "hangs":
            outcomes[index] = _run_and_print(mutant, limit, alone=True)
    killed = sum(outcome == "killed" for outcome in outcomes)
    print(f"{killed} of {len(outcomes)} killed in {time.monotonic() - started:.0f} s")
    return 0 if killed == len(outcomes) else 1


def _selections(mutants: list[Mutant]) -> dict[tuple[str, ...], str]:
    """Return, for each set of test files, one `-k` for all of its mutants; "" for all of its tests."""
    only: dict[tuple[str, ...], list[str]] = {}
    for mutant in mutants:
        only.setdefault(mutant.tests, []).append(mutant.only)
    return {
        tests: "" if "" in parts else " or ".join(f"({part})" for part in dict.fromkeys(parts))
        for tests, parts in sorted(only.items())
    }


def time_limit(unchanged_seconds: float) -> float:
    """Return the seconds after which tests hang that take *unchanged_seconds* without a mutant."""
    return max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * unchanged_seconds)


def _problems(mutant: Mutant) -> list[str]:
    file = PACKAGE / mutant.file
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


def _run_and_print(mutant: Mutant, limit: float, *, alone: bool = False) -> str:
    started = time.monotonic()
    outcome = _outcome(mutant, limit, alone=alone)
    print(f"{outcome:9} {mutant.name:28} {time.monotonic() - started:5.1f} s  {mutant.breaks}", flush=True)
    return outcome


def _outcome(mutant: Mutant, limit: float, *, alone: bool) -> str:
    """Run one mutant. Beside others, tests that exceed *limit* only hang; *alone*, the mutant is killed by that."""
    problems = _problems(mutant)
    if problems:
        return f"INVALID ({'; '.join(problems)})"
    code = _run_pytest(mutant.tests, mutant.only, limit, mutant)
    if code == TIMED_OUT:
        return "killed" if alone else "hangs"
    if code == TESTS_FAILED:
        return "killed"
    return "SURVIVED" if code == 0 else f"BROKEN (pytest's exit code is {code})"


def _time_unchanged(selection: tuple[tuple[str, ...], str]) -> float | None:
    """Return the seconds that tests take on the unchanged package, or None if they fail."""
    started = time.monotonic()
    return time.monotonic() - started if _run_pytest(*selection, BASELINE_TIMEOUT_S) == 0 else None


def _run_pytest(tests: tuple[str, ...], only: str, limit: float, mutant: Mutant | None = None) -> int:
    """Run tests on a copy of the package, with *mutant* applied to it, and return pytest's exit code.

    A single test has no time limit: it would count a hang as a failure.
    """
    with tempfile.TemporaryDirectory(prefix="pika-mutant-") as folder:
        copy = Path(folder)
        for source in (PACKAGE, ROOT / "tests", ROOT / "benchmarks", ROOT / "docs"):
            shutil.copytree(source, copy / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant is not None:
            file = copy / "pika_async" / mutant.file
            file.write_text(file.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "--timeout",
            "0",
            "--hypothesis-profile",
            "repeatable",
            *tests,
        ]
        if only:
            command += ["-k", only]
        # The copy comes first on the path, so that it is imported instead of the installed package.
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            return subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, timeout=limit, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return TIMED_OUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
