"""Runner of the mutants: `python -m tests.mutants [NAME ...]`.

`--check` verifies the catalog without running tests; `--record` finds the tests of mutants whose test is not known.

Each mutant breaks one promise in a copy of the package; a test must then fail. `killers.json` names that test, so that
only it is run, without the mutant and with it. A mutant that its test does not find is run against all of its tests, and is
then `stale`, if these find it, or has `SURVIVED`. A mutant whose test hangs is run again with twice the time, and is
killed only if it hangs again. Prints one line for each mutant. The exit code is 1 if a mutant is not killed by its test or its text does not
occur exactly once, and 2 for an unknown name.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from tests.mutants.catalog import Mutant, load_mutants
from tests.mutants.forked_pytest import PACKAGE, ROOT, TIMED_OUT, Copies, Outcome, Run
from tests.mutants.killers import load_killers, save_killers

#: Number of mutants that run concurrently: three for two cores, as some tests wait.
WORKERS: Final = 3
#: Least time limit of one test in seconds. A test that exceeds it has twice as long again.
MIN_TIMEOUT_S: Final = 10.0
#: Time limit of one mutant, relative to the time that its test takes on the unchanged package in the same session.
TIMEOUT_FACTOR: Final = 5.0
#: Time limit of many tests on the unchanged package, and of all tests of a mutant, in seconds.
MANY_TIMEOUT_S: Final = 900.0
#: Exit code of pytest if tests failed. Other codes except 0 (usage error, no tests collected) are errors of the catalog.
TESTS_FAILED: Final = 1


def main(arguments: list[str]) -> int:
    """Run the named mutants, or all of them, and return the exit code."""
    names = [argument for argument in arguments if argument not in ("--check", "--record")]
    mutants = load_mutants()
    unknown = set(names) - {mutant.name for mutant in mutants}
    if unknown:
        print(f"no such mutant: {', '.join(sorted(unknown))}")
        return 2
    selected = [mutant for mutant in mutants if not names or mutant.name in names]
    killers = load_killers()
    problems = check(selected, killers if not names else {})
    if "--check" in arguments:
        print(f"{len(selected) - len({name for name, _ in problems})} of {len(selected)} are valid")
        return 1 if problems else 0
    invalid = {name for name, _ in problems}
    selected = [mutant for mutant in selected if mutant.name not in invalid]
    with tempfile.TemporaryDirectory(prefix="pika-mutants-") as folder:
        copies = Copies.create(Path(folder), WORKERS)
        copies.warm_up(sorted({test for mutant in selected for test in mutant.tests}))
        if "--record" in arguments:
            return max(record(selected, killers, copies), bool(problems))
        return max(run(selected, killers, copies), bool(problems))


def check(mutants: list[Mutant], killers: dict[str, str]) -> list[tuple[str, str]]:
    """Print and return the problems: a text that does not occur exactly once, tests that do not exist, a name used twice."""
    problems = [(mutant.name, problem) for mutant in mutants for problem in _problems(mutant)]
    counts = Counter(mutant.name for mutant in mutants)
    problems += [(name, f"{count} mutants have this name") for name, count in counts.items() if count > 1]
    problems += [(name, "killers.json names a mutant that does not exist") for name in killers.keys() - counts.keys()]
    for name, problem in problems:
        print(f"{name}: {problem}")
    return problems


def run(mutants: list[Mutant], killers: dict[str, str], copies: Copies) -> int:
    """Run the known tests on the unchanged package, then each mutant."""
    started = time.monotonic()
    known = {mutant.name: killers[mutant.name] for mutant in mutants if killers.get(mutant.name) in copies.collected}
    seconds, failed = _run_unchanged(sorted(set(known.values())), copies)
    for test in failed:
        print(f"this test fails without a mutant: {test}")
    if failed:
        return 1
    first = [
        Run((known[mutant.name],), time_limit(seconds[known[mutant.name]]), mutant)
        for mutant in mutants
        if mutant.name in known
    ]
    states = _run_and_print(first, copies, "killed", "hangs")
    missed = [mutant for mutant in mutants if mutant.name in killers and states.get(mutant.name) in (None, "SURVIVED")]
    states |= _run_and_print([_whole(mutant) for mutant in missed], copies, "stale", "stale")
    unknown = [_whole(mutant) for mutant in mutants if mutant.name not in killers]
    states |= _run_and_print(unknown, copies, "killed", "hangs")
    hanging = [
        attrs.evolve(ran, limit=2.0 * ran.limit)
        for ran in (*first, *unknown)
        if ran.mutant is not None and states[ran.mutant.name] == "hangs"
    ]
    states |= _run_and_print(hanging, copies, "killed", "killed")
    for name in [name for name, state in states.items() if state == "stale"]:
        print(f"{name}: {killers[name]} does not find it any more; remove its line from killers.json and --record it")
    killed = sum(state == "killed" for state in states.values())
    print(f"{killed} of {len(states)} killed in {time.monotonic() - started:.0f} s")
    return 0 if killed == len(states) else 1


def record(mutants: list[Mutant], killers: dict[str, str], copies: Copies) -> int:
    """Run all tests of each mutant whose test is not known, and record the first one that fails or hangs."""
    runs = [_whole(mutant) for mutant in mutants if mutant.name not in killers]
    found = 0
    for ran, outcome in copies.run_all(runs):
        assert ran.mutant is not None
        _print(ran, outcome, "killed", "hangs")
        test = outcome.failed[0] if outcome.failed else outcome.hanging
        if test:
            found += 1
            killers[ran.mutant.name] = test
            save_killers(killers)
    print(f"recorded {found} of {len(runs)}")
    return 0 if found == len(runs) else 1


def _run_unchanged(tests: list[str], copies: Copies) -> tuple[dict[str, float], list[str]]:
    """Return the seconds that each test takes on the unchanged package, and the tests that fail there."""
    seconds: dict[str, float] = {}
    failed: list[str] = []
    left = [tests[number :: len(copies.folders)] for number in range(len(copies.folders))]
    for _, outcome in copies.run_all([Run((*part, "--maxfail", "1000"), MANY_TIMEOUT_S) for part in left if part]):
        seconds |= outcome.passed
        failed += outcome.failed
        if outcome.code not in (0, TESTS_FAILED):
            failed.append(f"(pytest's exit code is {outcome.code})")
    return seconds, failed


def _whole(mutant: Mutant) -> Run:
    """Return a run of all tests of a mutant."""
    return Run((*mutant.tests, *(("-k", mutant.only) if mutant.only else ())), MANY_TIMEOUT_S, mutant)


def time_limit(unchanged_seconds: float) -> float:
    """Return the seconds after which a test hangs that takes *unchanged_seconds* without a mutant."""
    return max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * unchanged_seconds)


def _run_and_print(runs: list[Run], copies: Copies, found: str, hanging: str) -> dict[str, str]:
    """Run mutants, print a line for each, and return their states by their names."""
    return {
        ran.mutant.name: _print(ran, outcome, found, hanging)
        for ran, outcome in copies.run_all(runs)
        if ran.mutant is not None
    }


def _print(ran: Run, outcome: Outcome, found: str, hanging: str) -> str:
    """Print and return the state of a mutant: *found* if tests failed, *hanging* if they took too long."""
    states = {0: "SURVIVED", TESTS_FAILED: found, TIMED_OUT: hanging}
    state = states.get(outcome.code, f"BROKEN (pytest's exit code is {outcome.code})")
    assert ran.mutant is not None
    print(f"{state:9} {ran.mutant.name:28} {outcome.seconds:5.1f} s  {ran.mutant.breaks}", flush=True)
    return state


def _problems(mutant: Mutant) -> Iterable[str]:
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


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # so that runs are killed and copies removed
    sys.exit(main(sys.argv[1:]))
