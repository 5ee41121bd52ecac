"""Rescue of a journal whose file was moved, removed or replaced while it was open: a notice, and a copy."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from pika_async._journal.migrations import APPLICATION_ID
from pika_async._journal.side_files import numbered, side_paths
from pika_async._journal.system_calls import open_file, sync_folder

__all__ = ["Notice", "copy_database", "rescue_database"]


@attrs.frozen(kw_only=True)
class Notice:
    """Line of the fallback file: the journal that was here was displaced, and must be back before the next opening."""

    #: Random number of the journal in hex digits.
    journal: str
    #: The number of its latest change.
    revision: int
    #: What happened to the file.
    displaced: str
    pid: int
    #: A whole copy of a file that was removed; None if the file exists elsewhere, or could not be copied.
    copy: str | None

    def to_line(self) -> bytes:
        """Return the line."""
        return json.dumps(attrs.asdict(self)).encode() + b"\n"

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Notice | None:
        """Return the notice of a line; None if the line is something else."""
        return cls(**values) if "displaced" in values else None

    def is_satisfied_by(self, journal: str | None, revision: int) -> bool:
        """Whether the journal with this random number and latest change is the displaced one, whole."""
        return journal == self.journal and revision >= self.revision


def copy_database(source: sqlite3.Connection, target: Path) -> None:
    """Copy a journal into the new file `target`: one whole file, marked as closed, readable for its user only.

    :raises OSError: if `target` exists or cannot be written; nothing is left behind.
    :raises sqlite3.Error: if the copy failed; nothing is left behind.
    """
    os.close(open_file(target, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    try:
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            copy.execute(f"PRAGMA application_id={APPLICATION_ID}")
        sync_folder(target.parent)
    except BaseException:
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{target}{suffix}").unlink(missing_ok=True)
        raise


def rescue_database(connection: sqlite3.Connection, path: Path) -> Path | None:
    """Copy a removed journal, which only this process still has, beside `path` or into the temporary folder."""
    for candidate in side_paths(path, ".rescued"):
        with contextlib.suppress(OSError, sqlite3.Error):
            target = numbered(candidate)
            copy_database(connection, target)
            return target
    return None
