"""Ownership of a journal: a lock file beside it and a lock on the database itself. Both die with their owner.

Does not read the database.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

import attrs

from pika_async._journal.side_files import check_regular
from pika_async._journal.system_calls import is_process_alive, open_file, read_at, write_at
from pika_async._journal.system_locks import create_lock, is_database_locked, lock_database, unlock_database
from pika_async.errors import ConfigurationError, JournalInUse

__all__ = [
    "FileDisplacedError", "FileLock", "Progress", "find_owner", "is_owner_alive", "read_progress", "require_unheld",
]  # fmt: skip

#: Length of each number in the lock file.
NUMBER_WIDTH: Final = 20
#: Length of the lock file: the owner's process id, and the two numbers of `Progress`.
LOCK_FILE_BYTES: Final = 3 * (NUMBER_WIDTH + 1)

_log = logging.getLogger("pika_async.journal")


class FileDisplacedError(OSError):
    """The database is no longer the file at its path: it was moved, removed or replaced."""


@attrs.frozen
class Progress:
    """Numbers of the changes that the last owner had recorded when it died; a clean close removes them."""

    #: The latest change whose commit had returned.
    committed: int
    #: The latest change whose commit had begun.
    begun: int


def _parse_progress(content: bytes) -> Progress | None:
    numbers = content.decode(errors="replace").split("\n")[1:3]
    committed, begun = (int(it) if it.strip().isdecimal() else None for it in (*numbers, "", "")[:2])
    return None if committed is None or begun is None else Progress(committed, begun)


def read_progress(path: Path) -> Progress | None:
    """Return the numbers in the lock file of the journal at `path` without locking it; None if there are none."""
    try:
        descriptor = open_file(Path(f"{path}.lock"), os.O_RDONLY)
    except OSError:
        return None
    with open(descriptor, "rb") as file, contextlib.suppress(OSError):  # noqa: PTH123 - a descriptor, not a path
        return _parse_progress(file.read(LOCK_FILE_BYTES))
    return None


def _living_process(path: Path) -> int | None:
    """Return the process that last opened the journal at `path`, if it still runs."""
    try:
        descriptor = open_file(Path(f"{path}.lock"), os.O_RDONLY)
    except OSError:
        return None
    try:
        owner = read_at(descriptor, NUMBER_WIDTH, 0).decode(errors="replace").strip()
    finally:
        os.close(descriptor)
    return int(owner) if owner.isdecimal() and is_process_alive(int(owner)) else None


def is_owner_alive(path: Path) -> bool:
    """Return whether the process that last opened the journal at `path` still runs; locks nothing.

    A process that has closed the journal and goes on counts too. For the process that has the journal open itself, in
    which `find_owner` must not open and close the database: that would drop SQLite's own locks on it (POSIX).
    """
    return _living_process(path) is not None


def find_owner(path: Path) -> int | None:
    """Return the id of the process that has the journal at `path` open, or is about to make it; locks nothing.

    :return: None if no process has it open, as far as the system tells.
    """
    owner = _living_process(path)
    if owner is None or any(lock.path == path for lock in list(_held)):
        return owner
    try:
        descriptor = open_file(path, os.O_RDONLY)
    except OSError:
        return None if owner == os.getpid() else owner
    try:
        if not os.fstat(descriptor).st_size:  # made a moment ago: its lock is set next
            return None if owner == os.getpid() else owner
        is_locked = is_database_locked(descriptor)
    finally:
        os.close(descriptor)
    is_open = read_progress(path) is not None if is_locked is None else is_locked
    return owner if is_open else None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _in_use(path: Path, owner: int | None) -> JournalInUse:
    if owner == os.getpid():
        reason = "another client of this process; share that one among your tasks, or close it first"
    else:
        name = "another process" if owner is None else f"process {owner}"
        reason = f"{name}; wait for it or stop it, or give each process a file and one client of its own"
    return JournalInUse(setting="journal", reason=f"{path} is in use by {reason}")


class FileLock:
    """Lock on `<path>.lock`, and on one byte of the database once that exists, until `release`.

    The lock file alone would not do: when it is removed, the next process makes another and locks that. The database
    alone would not do either: it may not exist yet, and closing a second descriptor of it would drop SQLite's locks.
    """

    def __init__(self, path: Path) -> None:
        """Acquire the lock file without waiting.

        :param path: the journal, after links are resolved.
        :raises JournalInUse: if it is held, by another client of this process or by another process.
        :raises JournalUnusable: if the lock file is a link, not a regular file, or another user's.
        :raises OSError: if the lock file cannot be made or locked.
        """
        self.path = path
        self._file = Path(f"{path}.lock")
        self._system_lock = create_lock(path)
        self._database: int | None = None
        require_unheld(path)
        self._descriptor = self._acquire()
        #: See `Progress`; None after a clean close.
        self.previous = _parse_progress(read_at(self._descriptor, LOCK_FILE_BYTES, 0))
        self._progress: Progress | None = None
        #: Whether the database was closed with everything in it; then `release` removes the numbers of `record`.
        self.is_clean = False
        write_at(self._descriptor, f"{os.getpid():<{NUMBER_WIDTH}}\n".encode(), 0)
        _held.add(self)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether `path` has a lock file, so that a journal of ours was opened there before."""
        return Path(f"{path}.lock").exists()

    def _acquire(self) -> int:
        check_regular(self.path, self._file)
        descriptor = open_file(self._file, os.O_RDWR | os.O_CREAT)
        try:
            self._system_lock.acquire(descriptor)
        except BlockingIOError:
            pid = read_at(descriptor, NUMBER_WIDTH, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise _in_use(self.path, int(pid) if pid.isdecimal() else None) from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def lock_database(self) -> None:
        """Lock the database, which exists now.

        :raises JournalInUse: if another process has it, whose lock file was removed.
        :raises OSError: if it cannot be opened or locked.
        """
        self._database = open_file(self.path, os.O_RDWR)
        try:
            lock_database(self._database)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            raise _in_use(self.path, None) from None

    def is_on(self, status: os.stat_result) -> bool:
        """Whether the locked database is the file that has this status."""
        return self._database is not None and _identity(os.fstat(self._database)) == _identity(status)

    @property
    def database_status(self) -> os.stat_result:
        """The status of the locked database, wherever it is now; without links if it was removed."""
        assert self._database is not None  # noqa: S101 - `lock_database` opened it
        return os.fstat(self._database)

    def check(self) -> None:
        """Check that the database is still the file at its path; make a removed lock file again.

        :raises FileDisplacedError: if it is not, or if another process has made and locked a lock file meanwhile.
        """
        try:
            is_same = self.is_on(self.path.stat())
        except FileNotFoundError:
            raise FileDisplacedError("was moved or removed while it was open") from None
        except OSError as error:
            raise FileDisplacedError(f"cannot be found any more: {error.strerror}") from None
        if not is_same:
            raise FileDisplacedError("was replaced by another file while it was open")
        self._restore_lock_file()

    def _restore_lock_file(self) -> None:
        with contextlib.suppress(OSError):
            if _identity(self._file.stat()) == _identity(os.fstat(self._descriptor)):
                return
        try:
            descriptor = self._acquire()
        except (OSError, ConfigurationError) as error:
            raise FileDisplacedError(f"lost its lock file, which cannot be made again: {error}") from None
        os.close(self._descriptor)
        self._descriptor = descriptor
        write_at(descriptor, f"{os.getpid():<{NUMBER_WIDTH}}\n".encode(), 0)
        if self._progress is not None:
            self.record(self._progress)
        _log.warning("the lock file %s was removed while the journal was open; it is made again", self._file)

    def record(self, progress: Progress) -> None:
        """Write the numbers of the latest changes, so that the next owner can find out whether any are missing.

        They are not synced: they must survive this process, and after a power cut smaller ones do no harm.
        """
        self._progress = progress
        numbers = f"{progress.committed:<{NUMBER_WIDTH}}\n{progress.begun:<{NUMBER_WIDTH}}\n"
        write_at(self._descriptor, numbers.encode(), NUMBER_WIDTH + 1)

    def release(self) -> None:
        """Release both locks, for forked children as well, which share the open files.

        Must be called after SQLite has closed the database: closing a descriptor drops the locks of SQLite.
        """
        if self not in _held:
            return  # released before, or in a forked child
        _held.discard(self)
        with contextlib.suppress(OSError):
            if self.is_clean:
                os.ftruncate(self._descriptor, NUMBER_WIDTH + 1)
            if self._database is not None:
                unlock_database(self._database)
            self._system_lock.release(self._descriptor)
        self.close()

    def close(self) -> None:
        """Close the descriptors without releasing what another process holds through them."""
        database, self._database = self._database, None
        for descriptor in (self._descriptor, database):
            if descriptor is not None:
                os.close(descriptor)
        self._system_lock.close()


def require_unheld(path: Path) -> None:
    """Require that this process does not have the journal at `path` open.

    Must be called before a descriptor of it is opened and closed, which would drop the locks of SQLite.

    :raises JournalInUse: if another client of this process has it.
    """
    try:
        status = path.stat()
    except OSError:
        status = None
    if any(lock.path == path or (status is not None and lock.is_on(status)) for lock in list(_held)):
        raise _in_use(path, os.getpid())


#: The locks of this process.
_held: set[FileLock] = set()


def _close_inherited() -> None:
    """Close the locks that a forked child inherits: it would hold them on after the death of their owner."""
    for lock in list(_held):
        lock.close()
    _held.clear()


if hasattr(os, "register_at_fork"):  # Windows forks no process
    os.register_at_fork(after_in_child=_close_inherited)
