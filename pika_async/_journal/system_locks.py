"""Locks between processes, which die with their owner: of a lock file, and of one byte of a database.

Where Python has `fcntl`, the lock of an open file. Elsewhere, as on Windows, a lock of SQLite, which has one for each
system.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
from pathlib import Path
from typing import Final, Protocol

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["SystemLock", "create_lock", "is_database_locked", "lock_database", "unlock_database"]

#: Byte of the database that its owner locks: behind the 512 bytes from 0x40000000 on that SQLite locks.
LOCKED_BYTE: Final = 0x4000_0400
#: Lock that belongs to an open file, not to a process as SQLite's do; None where the system has none.
SET_LOCK: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)
#: Question whether a lock could be set; None where the system has none.
GET_LOCK: Final[int | None] = getattr(fcntl, "F_OFD_GETLK", None)
#: `struct flock` of Linux.
LOCK_FORMAT: Final = "hhqqi"


class SystemLock(Protocol):
    """Lock of one lock file."""

    def acquire(self, descriptor: int) -> None:
        """Lock the file that is open as `descriptor`, without waiting; may be repeated for a file made anew.

        :raises BlockingIOError: if another process has the lock.
        :raises OSError: if it cannot be locked.
        """

    def release(self, descriptor: int) -> None:
        """Release the lock, also where forked children share the open file."""

    def close(self) -> None:
        """Close what the lock has open beside the descriptor."""


class OpenFileLock:
    """Lock of an open file by `flock`."""

    def acquire(self, descriptor: int) -> None:
        """See `SystemLock`."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self, descriptor: int) -> None:
        """See `SystemLock`."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """See `SystemLock`."""


class DatabaseLock:
    """Exclusive transaction on an empty database, in which nothing is ever written.

    :param path: the database, which is made if it is missing and stays. It is not the lock file: on Windows the locked
        part of a file cannot be read by others, who want the number of its owner.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def acquire(self, descriptor: int) -> None:  # noqa: ARG002 - the database is locked instead
        """See `SystemLock`."""
        if self._connection is not None:
            return
        try:
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(self._path)) from None
            raise OSError(errno.ENOLCK, str(error), str(self._path)) from None
        self._connection = connection

    def release(self, descriptor: int) -> None:  # noqa: ARG002 - the database is locked instead
        """See `SystemLock`."""
        self.close()

    def close(self) -> None:
        """See `SystemLock`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def create_lock(path: Path) -> SystemLock:
    """Return the lock of this system for the journal at `path`; it is not acquired."""
    return DatabaseLock(Path(f"{path}.owner")) if fcntl is None else OpenFileLock()


def lock_database(descriptor: int) -> None:
    """Lock the database that is open as `descriptor`, without waiting.

    Does nothing where the system has no lock of open files; nor is it needed on Windows, where an open database cannot
    be moved, removed or replaced, and its lock file neither.

    :raises BlockingIOError: if another process has the lock; on some systems `PermissionError`.
    :raises OSError: if it cannot be locked.
    """
    _set_database_lock(descriptor, "F_WRLCK")


def unlock_database(descriptor: int) -> None:
    """Release the lock of the database, also where forked children share the open file."""
    _set_database_lock(descriptor, "F_UNLCK")


def is_database_locked(descriptor: int) -> bool | None:
    """Return whether the database that is open as `descriptor` is locked through another descriptor; lock nothing.

    :return: None where the system does not tell.
    """
    if GET_LOCK is None:
        return None
    asked = struct.pack(LOCK_FORMAT, fcntl.F_RDLCK, os.SEEK_SET, LOCKED_BYTE, 1, 0)
    try:
        answer = fcntl.fcntl(descriptor, GET_LOCK, asked)
    except OSError:  # a kernel without these locks, such as a sandbox
        return None
    return bool(struct.unpack(LOCK_FORMAT, answer)[0] != fcntl.F_UNLCK)


def _set_database_lock(descriptor: int, kind: str) -> None:
    if SET_LOCK is None:
        return
    lock = struct.pack(LOCK_FORMAT, getattr(fcntl, kind), os.SEEK_SET, LOCKED_BYTE, 1, 0)
    try:
        fcntl.fcntl(descriptor, SET_LOCK, lock)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel without these locks, such as a sandbox
            raise
