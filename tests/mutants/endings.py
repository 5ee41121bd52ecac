"""Mutants of how commands end."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_HANGING: Final = ("tests/cli/test_cli_hanging_names.py",)

MUTANTS: Final = (
    Mutant(
        "resolver-awaited-by-the-loop",
        "cli/loop.py",
        "super().shutdown(wait=False, cancel_futures=True)",
        "super().shutdown(wait=True)",
        "a hanging resolver keeps a command alive until it is killed",
        _HANGING,
    ),
    Mutant(
        "resolver-awaited-at-exit",
        "__main__.py",
        "            exit_despite_threads(code)\n",
        "            pass\n",
        "the interpreter waits for a hanging resolver",
        _HANGING,
    ),
)
