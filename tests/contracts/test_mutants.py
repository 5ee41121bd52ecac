"""The runner of the mutants: which outcomes count as killed, and that its forks see the mutant and nothing of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import pytest

from tests.mutants import __main__ as runner
from tests.mutants.catalog import Mutant, load_mutants
from tests.mutants.forked_pytest import ROOT, TIMED_OUT, Copies, Outcome, Run
from tests.mutants.killers import load_killers

FAILED, PASSED, HANGS = runner.TESTS_FAILED, 0, TIMED_OUT
MUTANT = load_mutants()[0]
TEST = f"{MUTANT.tests[0]}::test_of_it"


@attrs.define
class ScriptedCopies(Copies):
    """Copies in which nothing is run: each run ends with the next of the given codes."""

    codes: list[int] = attrs.field(factory=list)

    def run_all(self, runs: Iterable[Run]) -> Iterator[tuple[Run, Outcome]]:
        for run in runs:
            code = self.codes.pop(0)
            failed, passed = ((TEST,), {}) if code == FAILED else ((), {TEST: 1.0})
            yield run, Outcome(code, 1.0, failed, passed, TEST if code == HANGS else "")


def run_scripted(codes: tuple[int, ...], *, known: bool = True, exists: bool = True) -> int:
    """Run the first mutant of the catalog; no code is left over."""
    copies = ScriptedCopies([Path()], frozenset({TEST} if exists else ()), list(codes))
    code = runner.run([MUTANT], {MUTANT.name: TEST} if known else {}, copies)
    assert copies.codes == []
    return code


@pytest.mark.parametrize(
    "codes, exit_code, words",
    [
        ((PASSED, FAILED), 0, ["killed"]),
        ((PASSED, PASSED, PASSED), 1, ["SURVIVED", "SURVIVED"]),
        ((PASSED, PASSED, FAILED), 1, ["SURVIVED", "stale", f"{MUTANT.name}:"]),
        ((PASSED, PASSED, HANGS), 1, ["SURVIVED", "stale"]),
        ((PASSED, HANGS, HANGS), 0, ["hangs", "killed"]),
        ((PASSED, HANGS, PASSED), 1, ["hangs", "SURVIVED"]),
        ((PASSED, HANGS, FAILED), 0, ["hangs", "killed"]),
        ((PASSED, 5), 1, ["BROKEN"]),
        ((HANGS,), 1, ["this"]),
        ((FAILED,), 1, ["this"]),
    ],
    ids=str,
)
def test_a_mutant_is_killed_by_its_known_test(
    capsys: pytest.CaptureFixture[str], codes: tuple[int, ...], exit_code: int, words: list[str]
) -> None:
    """The codes are those of the unchanged package, of the known test, then of all tests, or once more after a hang."""
    assert run_scripted(codes) == exit_code
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[: len(words)]] == words


@pytest.mark.parametrize("code, exit_code, word", [(FAILED, 1, "stale"), (PASSED, 1, "SURVIVED"), (HANGS, 1, "stale")])
def test_a_known_test_that_is_gone_is_reported(
    capsys: pytest.CaptureFixture[str], code: int, exit_code: int, word: str
) -> None:
    """All tests of the mutant are run in its place, which does not count as killed."""
    assert run_scripted((code,), exists=False) == exit_code
    assert capsys.readouterr().out.split()[0] == word


@pytest.mark.parametrize(
    "codes, exit_code", [((FAILED,), 0), ((PASSED,), 1), ((HANGS, HANGS), 0), ((HANGS, PASSED), 1)]
)
def test_a_mutant_without_a_known_test_is_run_against_all(codes: tuple[int, ...], exit_code: int) -> None:
    """A new mutant needs no record."""
    assert run_scripted(codes, known=False) == exit_code


def test_a_record_has_the_first_test_that_fails_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant with a known test is not run again."""
    saved: list[dict[str, str]] = []
    monkeypatch.setattr(runner, "save_killers", lambda killers: saved.append(dict(killers)))
    assert runner.record([MUTANT], {}, ScriptedCopies([Path()], codes=[FAILED])) == 0
    assert runner.record([MUTANT], {}, ScriptedCopies([Path()], codes=[HANGS])) == 0
    assert runner.record([MUTANT], {}, ScriptedCopies([Path()], codes=[PASSED])) == 1
    assert runner.record([MUTANT], {MUTANT.name: TEST}, ScriptedCopies([Path()])) == 0
    assert saved == [{MUTANT.name: TEST}] * 2


def test_a_slow_test_gets_a_longer_time_limit() -> None:
    """The limit is five times what the test takes without a mutant, at least 10."""
    assert [runner.time_limit(seconds) for seconds in (1.0, 2.0, 100.0)] == [10.0, 10.0, 500.0]


def test_an_invalid_mutant_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A mutant whose text does not occur exactly once, one that exists twice, and the test of one that does not exist."""
    mutant = Mutant("none", "jobs.py", "this text occurs nowhere", "", "nothing", ("tests/test_jobs.py",))
    problems = runner.check([mutant, MUTANT, MUTANT], {"gone": TEST})
    assert problems == [
        ("none", "the text occurs 0 times in jobs.py"),
        (MUTANT.name, "2 mutants have this name"),
        ("gone", "killers.json names a mutant that does not exist"),
    ]
    assert capsys.readouterr().out.count("\n") == 3


def test_a_known_test_is_one_of_its_mutants() -> None:
    """It stands in one of the files that the mutant names."""
    tests = {mutant.name: mutant.tests for mutant in load_mutants()}
    wrong = {name: test for name, test in load_killers().items() if test.partition("::")[0] not in tests[name]}
    assert wrong == {}


CLEAN_RUN = """
import json, sys, tempfile
from pathlib import Path
from tests.mutants.catalog import load_mutants
from tests.mutants.forked_pytest import Copies, Run
mutant = next(mutant for mutant in load_mutants() if mutant.name == "backoff-without-cap")
with tempfile.TemporaryDirectory() as folder:
    copies = Copies.create(Path(folder), 1)
    copies.warm_up(mutant.tests)
    runs = [Run(mutant.tests, 100.0, applied) for applied in (None, mutant, None, mutant)]
    print([(outcome.code, len(outcome.failed)) for _, outcome in copies.run_all(runs)])
    Path(folder, "0", "copy", *mutant.tests).write_text("def test_endless():\\n    while True: pass")
    print([(outcome.code, outcome.hanging) for _, outcome in copies.run_all([Run(mutant.tests, 8.0)])])
    print([name for name in sys.modules if name.startswith("pika_async")])
"""

HANGING = "[(-1, 'tests/planning/test_backoff.py::test_endless')]"


def test_a_fork_sees_the_mutant_and_the_next_one_does_not() -> None:
    """Its module is not the compiled one, nor is it compiled for later runs; nothing of the package is imported before."""
    done = subprocess.run([sys.executable, "-c", CLEAN_RUN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[(0, 0), (1, 1), (0, 0), (1, 1)]", HANGING, "[]"], done.stderr
