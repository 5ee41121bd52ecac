"""Opening of a journal's files, in the order in which nothing is written before everything has been checked."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import attrs

from pika_async._journal import queries
from pika_async._journal.fallback_file import FallbackFile
from pika_async._journal.lock import FileLock, Progress, require_unheld
from pika_async._journal.marks import identify, mark_open
from pika_async._journal.recovery import Recovery
from pika_async._journal.schema import FileState, create_file, inspect_file, open_writer, unusable
from pika_async._journal.side_files import check_side_files

__all__ = ["OpenFiles", "open_files", "require_none_due"]


@attrs.frozen
class OpenFiles:
    """Files of a journal that is open for writing."""

    lock: FileLock
    connection: sqlite3.Connection
    #: The random number of the journal in hex digits.
    journal: str
    #: The number of the latest change.
    revision: int


def open_files(path: Path, folder: Path, fallback: FallbackFile, resources: contextlib.ExitStack) -> OpenFiles:
    """Lock, check and open the journal at `path`; make it if it is missing; import its fallback file.

    :param folder: the folder that files of jobs are relative to.
    :param resources: gets what closes the files, the lock last.
    :raises JournalInUse: if another client has it open.
    :raises JournalUnusable: if it cannot be used as it is.
    """
    check_side_files(path)
    recovery = Recovery.read(path, fallback)
    try:
        lock, state = _lock_file(path, recovery, resources)
    except OSError as error:
        raise unusable(path, f"cannot be made or locked: {error.strerror}; mend that or give another file") from None
    connection = open_writer(path, state=state, previous=lock.previous)
    resources.enter_context(contextlib.closing(connection))
    revision = queries.latest_revision(connection)
    recovery.require_journal(connection, identify(connection), revision)
    try:
        # Before the mark, so that a journal that is marked as open has numbers at every moment.
        lock.record(Progress(revision, revision))
        journal = mark_open(connection, path, lock.database_status)
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, f"cannot be written: {error}; mend that, then open it again") from None
    if journal is None:
        raise unusable(path, "is being read by another program; wait for that one, then open it again")
    return OpenFiles(lock, connection, journal, recovery.apply(connection, folder, revision))


def require_none_due(path: Path, recovery: Recovery, previous: Progress | None) -> None:
    """Require that a new journal may be made at `path`, where there is none.

    :param recovery: the lines of its fallback file.
    :param previous: the numbers in its lock file.
    :raises JournalUnusable: if there must be one, which was moved or removed while it was open.
    """
    recovery.require_journal(None, None, 0)
    if previous is not None and previous.begun:
        way_out = f"put it back; to pay for its jobs again, remove {path}.lock"
        raise unusable(path, f"is missing, although its last owner did not close it: {way_out}")


def _lock_file(path: Path, recovery: Recovery, resources: contextlib.ExitStack) -> tuple[FileLock, FileState]:
    """Lock the file, which is made if it is missing and none is due; return its state."""
    require_unheld(path)
    if not FileLock.exists(path):
        inspect_file(path)  # first, so that no lock file is made beside a file that is not ours
    lock = FileLock(path)
    resources.callback(lock.release)
    state = inspect_file(path)
    if state is FileState.MISSING:
        require_none_due(path, recovery, lock.previous)
        create_file(path)
    lock.lock_database()
    return lock, state
