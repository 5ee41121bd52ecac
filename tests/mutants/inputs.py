"""Mutants of inputs: keys that are made, and tables that become requests."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        "key-without-words-unknown",
        "_planning/keys.py",
        "|([0-9a-f]{4})[0-9a-f]{4})",
        "|([0-9a-f]{4})[g-z]{4})",
        "a folder whose keys hold no words is paid for again",
        ("tests/planning/test_keys.py", "tests/cli/test_cli_keys.py"),
        "without_words",
    ),
    Mutant(
        "slug-keeps-paths",
        "_planning/keys.py",
        "        if len(longer) > MAX_SLUG_LENGTH:\n            break\n",
        "",
        "a long prompt makes a name that no file system takes",
        ("tests/planning/test_keys.py",),
        "folded_to_ascii",
    ),
)
