"""The runner of the mutants: which outcomes count as killed."""

from __future__ import annotations

import pytest

from tests.mutants import __main__ as runner
from tests.mutants.catalog import Mutant, load_mutants

FAILED, PASSED, HANGS = runner.TESTS_FAILED, 0, runner.TIMED_OUT


@pytest.mark.parametrize(
    "codes, exit_code, words",
    [
        ((PASSED, FAILED), 0, ["killed"]),
        ((PASSED, PASSED), 1, ["SURVIVED"]),
        ((PASSED, HANGS, HANGS), 0, ["hangs", "killed"]),
        ((PASSED, HANGS, PASSED), 1, ["hangs", "SURVIVED"]),
        ((PASSED, HANGS, FAILED), 0, ["hangs", "killed"]),
        ((PASSED, 5), 1, ["BROKEN"]),
        ((HANGS,), 1, ["these"]),
        ((FAILED,), 1, ["these"]),
    ],
    ids=str,
)
def test_a_hang_counts_only_if_it_is_repeated_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    codes: tuple[int, ...],
    exit_code: int,
    words: list[str],
) -> None:
    """The first code of pytest is that of the unchanged package, the next one the mutant's, the last one its rerun's."""
    left = list(codes)
    monkeypatch.setattr(runner, "_run_pytest", lambda *_: left.pop(0))
    assert runner.run([load_mutants()[0]]) == exit_code
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[: len(words)]] == words
    assert left == []


def test_a_slow_selection_gets_a_longer_time_limit() -> None:
    """The limit is five times what the tests take without a mutant, at least two minutes."""
    assert [runner.time_limit(seconds) for seconds in (1.0, 24.0, 100.0)] == [120.0, 120.0, 500.0]


def test_an_invalid_mutant_is_not_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A mutant whose text does not occur exactly once is reported, and the exit code is 1."""
    monkeypatch.setattr(runner, "_run_pytest", lambda *_: 0)
    mutant = Mutant("none", "jobs.py", "this text occurs nowhere", "", "nothing", ("tests/test_jobs.py",))
    assert (runner.run([mutant]), runner.check([mutant])) == (1, 1)
    assert "the text occurs 0 times in jobs.py" in capsys.readouterr().out
