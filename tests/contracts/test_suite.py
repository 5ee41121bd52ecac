"""The suite's own law: test modules share by helper modules, and each test has a time limit."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

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
