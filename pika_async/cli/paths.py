"""Paths as people give them: `--out=~/clips`, which a shell passes on as it is. Touches no file."""

from __future__ import annotations

from pathlib import Path

__all__ = ["expand_home"]


def expand_home(path: Path) -> Path:
    """Return `path` with the home folder in place of a `~` at its beginning; unchanged where no such home is known."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path
