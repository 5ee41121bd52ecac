"""Copy of a journal as one whole file, also while a client has it open."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from pika_async._journal.displacement import copy_database
from pika_async._journal.fallback_file import FallbackFile
from pika_async._journal.schema import open_reader, unusable
from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import JournalInUse

__all__ = ["export_journal"]


async def export_journal(path: Path, target: Path, *, without_log: bool = False) -> None:
    """Copy the journal at `path` into the new file `target`, marked as closed; a client may have it open meanwhile.

    A journal that no client has open is opened for it, so that it is checked and completed with its fallback file.

    :param without_log: copy what the file holds even if it was not closed cleanly and its log is missing.
    :raises JournalUnusable: if there is no journal, or it is not whole.
    :raises OSError: if `target` exists or cannot be written.
    :raises sqlite3.Error: if the copy failed.
    """
    journal = SqliteJournal(path)
    real_path = await asyncio.to_thread(_find, journal, path)
    async with contextlib.AsyncExitStack() as stack:
        if not without_log:
            try:
                await journal.open()
                stack.push_async_callback(journal.close)
            except JournalInUse:
                if files := FallbackFile(real_path).files:
                    raise unusable(path, f"lacks what is in {files[0]}: close its client first") from None
        await asyncio.to_thread(_copy, real_path, target)


def _find(journal: SqliteJournal, path: Path) -> Path:
    """Return the file behind all links."""
    if not path.exists():
        journal.require_none_due()
        raise unusable(path, "does not exist; give that of a batch or a client")
    return Path(os.path.realpath(path))


def _copy(path: Path, target: Path) -> None:
    connection = open_reader(path)
    if connection is None:
        raise unusable(path, "holds nothing yet")
    with contextlib.closing(connection):
        copy_database(connection, target)
