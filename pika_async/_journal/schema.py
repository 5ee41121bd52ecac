"""Database of the journal: how it is opened, and the checks of a file before that.

Writes nothing to a file that is not a sound journal of this version or an earlier one.
"""

from __future__ import annotations

import contextlib
import enum
import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pika_async._journal.lock import Progress
from pika_async._journal.migrations import APPLICATION_IDS, MIGRATIONS, OPEN_APPLICATION_ID, migrate, prune_samples
from pika_async._journal.system_calls import open_file, sync_folder
from pika_async.errors import JournalUnusable

__all__ = ["FileState", "create_file", "inspect_file", "is_blank", "open_reader", "open_writer", "unusable"]

#: The first bytes of every SQLite database.
SQLITE_MAGIC: Final = b"SQLite format 3\0"
#: Length of the database header (https://sqlite.org/fileformat.html#the_database_header) in bytes.
HEADER_BYTES: Final = 100
#: Offset of `user_version` in the header, a big-endian 32-bit integer.
USER_VERSION_OFFSET: Final = 60
#: Offset of `application_id` in the header, a big-endian 32-bit integer.
APPLICATION_ID_OFFSET: Final = 68
#: Executed on every connection.
CONNECTION_PRAGMAS: Final = (
    # Do not run functions that are named in the schema of a manipulated file.
    "PRAGMA trusted_schema=OFF",
    # Notice a damaged page when it is read.
    "PRAGMA cell_size_check=ON",
)
#: Executed on the connection that writes.
WRITER_PRAGMAS: Final = (
    # Sync the log at each commit. NORMAL may lose the last commits at a power cut, and a lost receipt is paid twice.
    "PRAGMA synchronous=FULL",
    # On macOS, sync to the disk; a plain fsync stops at the cache of the drive.
    "PRAGMA fullfsync=ON",
    # Wait up to 5,000 ms for a lock. No other client writes, but a backup or a shell may hold a lock for a moment.
    "PRAGMA busy_timeout=5000",
    # Copy the log into the database every 1,000 pages, which keeps the log near 4 MB.
    "PRAGMA wal_autocheckpoint=1000",
)
#: Executed on a connection that only reads.
READER_PRAGMAS: Final = (
    # Fail instead of writing, whatever statement is executed.
    "PRAGMA query_only=ON",
    # Wait up to 5,000 ms while the writer opens or closes the log.
    "PRAGMA busy_timeout=5000",
)


class FileState(enum.Enum):
    """State of the file of a journal, by its header alone."""

    MISSING = enum.auto()
    #: Closed cleanly, or never opened.
    CLOSED = enum.auto()
    #: Open, or left open by a process that died.
    OPEN = enum.auto()


def unusable(path: Path, reason: str) -> JournalUnusable:
    """Return the error that `path` cannot be used as the journal; `reason` includes the way out."""
    return JournalUnusable(setting="journal", reason=f"{path} {reason}")


def _foreign_file(path: Path) -> JournalUnusable:
    return unusable(path, "is not a journal of pika_async; it is left as it is: give another file")


def _newer_version(path: Path, version: int) -> JournalUnusable:
    reason = f"was written by a newer pika_async (version {version} of the file): upgrade pika_async"
    return unusable(path, reason)


def _damaged_file(path: Path, words: object) -> JournalUnusable:
    reason = f"is damaged ({words}); it is left as it is: restore a copy of it, or recover it with sqlite3's .recover"
    return unusable(path, reason)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(path))}?{mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        for guard in CONNECTION_PRAGMAS:
            connection.execute(guard)
    except BaseException:
        connection.close()
        raise
    return connection


def inspect_file(path: Path, migrations: Sequence[str] = MIGRATIONS) -> FileState:
    """Check the header of the file at `path` without writing to it; return its state.

    Must not be called while this process has the database open: closing any descriptor of a file releases all POSIX
    locks that the process holds on it, those of SQLite included.

    :raises JournalUnusable: if it is not a regular file, not a journal, of a newer version, or cannot be read.
    """
    try:
        file = open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise unusable(path, "cannot be made: its folder does not exist; make the folder first") from None
        return FileState.MISSING
    except OSError as error:
        raise unusable(path, f"cannot be opened: {error.strerror}; mend that or give another file") from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise unusable(path, "must be a regular file; give another path")
        header = os.read(file, HEADER_BYTES)
    except OSError as error:
        raise unusable(path, f"cannot be read: {error.strerror}; mend that or give another file") from None
    finally:
        os.close(file)
    if not header:
        return FileState.CLOSED  # empty: a crash followed its creation, or `touch` made it
    if len(header) < HEADER_BYTES or not header.startswith(SQLITE_MAGIC):
        raise _foreign_file(path)
    version = int.from_bytes(header[USER_VERSION_OFFSET:][:4], "big")
    application = int.from_bytes(header[APPLICATION_ID_OFFSET:][:4], "big")
    if application not in {0, *APPLICATION_IDS} or (application == 0 and _has_tables(path)):
        raise _foreign_file(path)
    if version > len(migrations):
        raise _newer_version(path, version)
    return FileState.OPEN if application == OPEN_APPLICATION_ID else FileState.CLOSED


def is_blank(path: Path) -> bool:
    """Return whether the file at `path` holds no journal yet: it is empty, or a database without a table or a log.

    Must not be called while this process has the database open; see `inspect_file`.

    :raises JournalUnusable: as `inspect_file` does.
    """
    inspect_file(path)
    with path.open("rb") as file:
        application = file.read(HEADER_BYTES)[APPLICATION_ID_OFFSET:][:4]
    return not any(application) and not _has_wal(path)


def create_file(path: Path) -> None:
    """Create an empty file that only its user can read and write, and sync its folder to the disk.

    :raises OSError: if it cannot be made, or exists already.
    """
    os.close(open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    sync_folder(path.parent)


def _has_wal(path: Path) -> bool:
    log = Path(f"{path}-wal")
    return log.exists() and log.stat().st_size > 0


def _has_tables(path: Path) -> bool:
    """Whether the database without its log has a table; `immutable` leaves the log and the file unchanged."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(path, "immutable=1")) as connection:
        return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    return False


def _read_version(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> int:
    """Return the version of the database, 0 for an empty one.

    :raises JournalUnusable: if it is not a journal, or of a newer version.
    """
    connection.execute("BEGIN")  # one snapshot for all three reads: another process may be migrating the file
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if (application, version, tables) == (0, 0, 0):
        return 0
    if application not in APPLICATION_IDS:
        raise _foreign_file(path)
    if version > len(migrations):
        raise _newer_version(path, version)
    return int(version)


def _open_prepared(path: Path, mode: str, prepare: Callable[[sqlite3.Connection], object]) -> sqlite3.Connection:
    """Open a connection and pass it to `prepare`; close it again if `prepare` raises.

    :raises JournalUnusable: if the database is not a journal, is damaged, or cannot be opened.
    """
    try:
        connection = _connect(path, mode)
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise _foreign_file(path) from None
        if isinstance(error, sqlite3.OperationalError):
            raise unusable(path, f"cannot be opened: {error}; mend that or give another file") from None
        raise _damaged_file(path, error) from None
    return connection


def _require_whole(connection: sqlite3.Connection, path: Path, previous: Progress | None, *, has_log: bool) -> None:
    """Check that a journal that was not closed cleanly has every change that its last owner recorded.

    Without a log it must have even the last one that was begun: another program may have checkpointed and removed the
    log, which loses nothing, or it was left behind or removed by hand, which does.

    :raises JournalUnusable: if a change is missing, or if that cannot be ruled out.
    """
    (revision,) = connection.execute("SELECT coalesce(max(revision), 0) FROM jobs").fetchone()
    is_whole = has_log if previous is None else revision >= (previous.committed if has_log else previous.begun)
    if not is_whole:
        log = f"its log ({path.name}-wal) is {'not whole' if has_log else 'missing'}"
        reason = (
            f"was not closed cleanly and {log}, so jobs might be paid for twice: put all files of its folder beside it "
            "again; to go on without what is missing, copy it with `pika-async export FOLDER FILE --without-log`"
        )
        raise unusable(path, reason)


def open_writer(
    path: Path,
    migrations: Sequence[str] = MIGRATIONS,
    *,
    state: FileState = FileState.CLOSED,
    previous: Progress | None = None,
) -> sqlite3.Connection:
    """Open the connection that writes; check the file, and migrate it to the latest version.

    The caller must hold the `FileLock`.

    :param state: the state of the file; one that was left open must have everything that was in its log.
    :param previous: the progress of the owner that left it open.
    :raises JournalUnusable: if it is not a journal, of a newer version, damaged, not whole, or cannot be written.
    """

    def inspect(connection: sqlite3.Connection) -> None:
        version = _read_version(connection, path, migrations)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged_file(path, verdict)
        (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        if not log and pages * size > path.stat().st_size:  # SQLite reads the missing part of the last page as zeros
            raise _damaged_file(path, "its end is missing")
        if version and state is FileState.OPEN:
            _require_whole(connection, path, previous, has_log=log)

    def prepare(connection: sqlite3.Connection) -> None:
        # With a write-ahead log readers never wait for the writer, and a commit is one fsync.
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise unusable(path, "is on a file system that has no shared memory; give a file on a local disk")
        for pragma in WRITER_PRAGMAS:
            connection.execute(pragma)
        migrate(connection, _read_version(connection, path, migrations), migrations)
        prune_samples(connection)

    # Check over a read-only connection first: one that can write would copy a foreign log into its database. Even a
    # read-only one makes files beside the database, unless it is opened as immutable; without a log that is correct,
    # since no other process writes now.
    log = _has_wal(path)
    _open_prepared(path, "mode=ro" if log else "immutable=1", inspect).close()
    return _open_prepared(path, "mode=rw", prepare)


def _is_creation_interrupted(path: Path) -> bool:
    """Whether a crash during the first migration left a rollback journal and a database that has no version yet.

    Only a writer may roll that back, so a reader cannot open the database. While a client has the database open, no
    rollback journal exists.
    """
    if not Path(f"{path}-journal").exists():
        return False
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    return header[USER_VERSION_OFFSET:][:4] == header[APPLICATION_ID_OFFSET:][:4] == bytes(4)


def open_reader(path: Path, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection | None:
    """Open a connection that only reads, also while another process writes; return None if there is no journal yet.

    :raises JournalUnusable: if it is not a journal, of another version, damaged, or cannot be read.
    """
    versions: list[int] = []

    def prepare(connection: sqlite3.Connection) -> None:
        for pragma in READER_PRAGMAS:
            connection.execute(pragma)
        versions.append(_read_version(connection, path, migrations))

    if not path.exists():
        return None
    try:
        connection = _open_prepared(path, "mode=ro", prepare)
    except JournalUnusable:
        if _is_creation_interrupted(path):
            return None
        # In a read-only folder SQLite cannot make the shared memory of a log; without a log none is needed.
        if os.access(path.parent, os.W_OK) or _has_wal(path):
            raise
        connection = _open_prepared(path, "immutable=1", prepare)
    if versions[-1] == len(migrations):
        return connection
    connection.close()
    if versions[-1] == 0:
        return None
    raise unusable(
        path, f"is of an earlier version ({versions[-1]}): open it once with a client to bring it up to date"
    )
