"""Files beside a journal: where they are, and whether it may use those that are there already."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from pika_async._journal.system_calls import user_id
from pika_async.errors import JournalUnusable

__all__ = ["check_regular", "check_side_files", "numbered", "side_paths"]

#: Files beside the database: three of SQLite, and the fallback file.
SUFFIXES: Final = ("-wal", "-shm", "-journal", ".fallback")


def side_paths(journal: Path, suffix: str) -> list[Path]:
    """Return the paths to try for a file of `journal`: beside it, then in the temporary folder, if there is one."""
    beside = Path(f"{journal}{suffix}")
    name = hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]
    with contextlib.suppress(OSError):
        return [beside, Path(tempfile.gettempdir(), f"pika_async-{name}{suffix}")]
    return [beside]


def numbered(path: Path) -> Path:
    """Return `path`, or `path` with the first number behind it that is not taken."""
    names = (Path(f"{path}{number or ''}") for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def check_regular(journal: Path, file: Path) -> None:
    """Check that `file` is missing, or a regular file of this user or of the owner of its folder.

    In a folder where everybody may write, such as the temporary one, any other file may be somebody's trap: a link that
    leads the writes elsewhere, or a lock that is never released. Linux's `fs.protected_regular` has the same rule.

    :param journal: the journal that the error names.
    :raises JournalUnusable: if it is anything else.
    """
    try:
        status = file.lstat()
        owners = {user_id(), file.parent.stat().st_uid}
    except OSError:
        return  # missing; what cannot be inspected cannot be opened either, and that has its own error
    if stat.S_ISLNK(status.st_mode):
        reason = "is a link"
    elif not stat.S_ISREG(status.st_mode):
        reason = "is not a regular file"
    elif status.st_uid not in owners:
        reason = f"belongs to another user ({status.st_uid})"
    else:
        return
    text = f"{journal} cannot be used: {file} {reason}; remove that, or give a journal in a folder of your own"
    raise JournalUnusable(setting="journal", reason=text)


def check_side_files(journal: Path) -> None:
    """Check the files that are opened beside the database at `journal`, except its lock file.

    :raises JournalUnusable: see `check_regular`.
    """
    for suffix in SUFFIXES:
        check_regular(journal, Path(f"{journal}{suffix}"))
