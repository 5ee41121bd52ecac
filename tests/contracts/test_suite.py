"""The suite's own law: shared helper modules, time limits, one place that skips, one place that configures Hypothesis."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from _pytest.outcomes import Failed, Skipped
from hypothesis import settings

from tests.fakes import requirements
from tests.once import ONCE, is_once

TESTS = Path(__file__).parents[1]


def test_no_test_module_imports_another() -> None:
    """What two test modules need stands in a helper module, so that each can be read and moved alone."""
    found: list[str] = []
    for file in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("tests"):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
                if any(name.startswith("test_") for name in names):
                    found.append(f"{file.relative_to(TESTS)}:{node.lineno}")
    assert found == []


def test_every_test_has_a_time_limit(pytestconfig: pytest.Config) -> None:
    """A test that hangs fails by itself: pytest-timeout is configured, and at most some minutes."""
    assert 0 < float(pytestconfig.getini("timeout")) <= 300


def files_with(matches: Callable[[ast.AST], bool]) -> set[str]:
    """Return the files of the tests with a matching node in their syntax tree."""
    return {
        str(file.relative_to(TESTS))
        for file in TESTS.rglob("*.py")
        if any(matches(node) for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    }


def skips(node: ast.AST) -> bool:
    names = {"skip", "skipif", "importorskip", "xfail"}
    return isinstance(node, ast.Attribute) and node.attr in names


def sets_a_deadline(node: ast.AST) -> bool:
    """Return whether a node is a call of Hypothesis' `settings` with a deadline."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "settings"
        and any(keyword.arg == "deadline" for keyword in node.keywords)
    )


def test_only_one_helper_skips() -> None:
    """A test that skips by itself would ignore `PIKA_SKIP_NOTHING`."""
    assert files_with(skips) == {"fakes/requirements.py"}


def test_a_missing_requirement_fails_where_nothing_may_be_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere it skips; what is there is returned."""
    for require in (requirements.require_module, requirements.require_program):
        monkeypatch.delenv("PIKA_SKIP_NOTHING", raising=False)
        with pytest.raises(Skipped, match="needs no_such_thing"):
            require("no_such_thing")
        monkeypatch.setenv("PIKA_SKIP_NOTHING", "1")
        with pytest.raises(Failed, match="needs no_such_thing"):
            require("no_such_thing")
    assert requirements.require_module("ast") is ast
    assert requirements.require_program("sh").endswith("/sh")


def test_property_tests_have_no_deadline_and_print_how_to_repeat_them(pytestconfig: pytest.Config) -> None:
    """The profile of `conftest.py` says so for all of them, and the seed is drawn before the tests are."""
    assert files_with(sets_a_deadline) == set()
    for profile in (settings.get_profile(settings.get_current_profile_name()), settings.get_profile("repeatable")):
        assert (profile.deadline, profile.print_blob) == (None, True)
    assert settings.get_profile("repeatable").derandomize
    assert int(pytestconfig.option.hypothesis_seed) >= 0


def test_what_is_run_once_exists() -> None:
    """A module that was renamed would be run everywhere again."""
    paths = [path for paths in ONCE.values() for path in paths]
    assert [path for path in paths if not (TESTS / path).exists()] == []
    assert [is_once(PurePosixPath(path)) for path in ("planning/test_keys.py", "http/test_s3.py")] == [True, False]
