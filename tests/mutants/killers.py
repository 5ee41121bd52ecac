"""The test that is known to find each mutant, so that the others need not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

__all__ = ["load_killers", "save_killers"]

_FILE: Final = Path(__file__).with_name("killers.json")


def load_killers() -> dict[str, str]:
    """Return the test by the name of its mutant."""
    killers: dict[str, str] = json.loads(_FILE.read_text(encoding="utf-8"))
    return killers


def save_killers(killers: dict[str, str]) -> None:
    """Write the test of each mutant, one to a line."""
    _FILE.write_text(json.dumps(killers, indent=0, sort_keys=True) + "\n", encoding="utf-8")
