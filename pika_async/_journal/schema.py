"""Database schema of the journal: migrations, pragmas, and the checks of a file before it is opened.

Writes nothing to a file that is not a sound journal of this version or an earlier one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pika_async.errors import JournalUnusable

__all__ = ["MIGRATIONS", "SAMPLES_PER_STRATUM", "create_file", "inspect_file", "open_reader", "open_writer", "unusable"]

#: "PIKA" in the header marks a file as a journal of pika_async; tools such as `file` can show it.
APPLICATION_ID: Final = 0x50494B41
#: The first bytes of every SQLite database.
SQLITE_MAGIC: Final = b"SQLite format 3\0"
#: Length of the database header (https://sqlite.org/fileformat.html#the_database_header) in bytes.
HEADER_BYTES: Final = 100
#: Offset of `user_version` in the header, a big-endian 32-bit integer.
USER_VERSION_OFFSET: Final = 60
#: Offset of `application_id` in the header, a big-endian 32-bit integer.
APPLICATION_ID_OFFSET: Final = 68
#: Duration samples kept for each stratum.
SAMPLES_PER_STRATUM: Final = 256

#: Item n migrates a file from version n to n + 1, in one transaction with the new version number. Never edit a released
#: migration; append another.
MIGRATIONS: Final = (
    # Requests have a table of their own: they are written once and may hold images, while a job is updated many times.
    """
    CREATE TABLE jobs (
        position INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        idx INTEGER NOT NULL,
        status TEXT NOT NULL,
        provider TEXT NOT NULL,
        base_url TEXT NOT NULL,
        task_id TEXT,
        video TEXT,
        file TEXT,
        sha256 TEXT,
        error TEXT,
        progress INTEGER,
        polls INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        submitted_at TEXT,
        settled_at TEXT,
        points REAL,
        refunded REAL,
        intended_at TEXT,
        body_sha256 TEXT,
        callback_sha256 TEXT,
        revision INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX jobs_by_status ON jobs (status);
    CREATE INDEX jobs_by_task ON jobs (provider, base_url, task_id) WHERE task_id IS NOT NULL;
    CREATE INDEX jobs_by_callback ON jobs (callback_sha256) WHERE callback_sha256 IS NOT NULL;
    CREATE INDEX jobs_by_revision ON jobs (revision);
    CREATE TABLE requests (position INTEGER PRIMARY KEY, request TEXT NOT NULL) STRICT;
    CREATE TABLE samples (
        id INTEGER PRIMARY KEY, stratum TEXT NOT NULL, lower REAL NOT NULL, upper REAL NOT NULL,
        progress_age REAL, progress INTEGER, accepted_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX samples_by_stratum ON samples (stratum, accepted_at, id);
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    """,
)

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


def inspect_file(path: Path, migrations: Sequence[str] = MIGRATIONS) -> bool:
    """Check the header of the file at `path` without writing to it; return whether the file exists.

    Must not be called while this process has the database open: closing any descriptor of a file releases all POSIX
    locks that the process holds on it, those of SQLite included.

    :raises JournalUnusable: if it is not a regular file, not a journal, of a newer version, or cannot be read.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise unusable(path, "cannot be made: its folder does not exist; make the folder first") from None
        return False
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
        return True  # empty: a crash followed its creation, or `touch` made it
    if len(header) < HEADER_BYTES or not header.startswith(SQLITE_MAGIC):
        raise _foreign_file(path)
    version = int.from_bytes(header[USER_VERSION_OFFSET:][:4], "big")
    application = int.from_bytes(header[APPLICATION_ID_OFFSET:][:4], "big")
    if application not in {0, APPLICATION_ID} or (application == 0 and _has_tables(path)):
        raise _foreign_file(path)
    if version > len(migrations):
        raise _newer_version(path, version)
    return True


def create_file(path: Path) -> None:
    """Create an empty file that only its user can read and write, and sync its folder to the disk.

    :raises OSError: if it cannot be made, or exists already.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
    if application != APPLICATION_ID:
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


def open_writer(path: Path, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection:
    """Open the connection that writes; check the file, and migrate it to the latest version.

    The caller must hold the `FileLock`.

    :raises JournalUnusable: if it is not a journal, of a newer version, damaged, or cannot be written.
    """

    def inspect(connection: sqlite3.Connection) -> None:
        _read_version(connection, path, migrations)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged_file(path, verdict)
        (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        if not log and pages * size > path.stat().st_size:  # SQLite reads the missing part of the last page as zeros
            raise _damaged_file(path, "its end is missing")

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


def migrate(connection: sqlite3.Connection, version: int, migrations: Sequence[str]) -> None:
    """Migrate a database of `version` to the latest, one transaction a step, so that a crash leaves a whole version."""
    for number, script in enumerate(migrations[version:], version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA application_id={APPLICATION_ID}; "
                f"PRAGMA user_version={number}; COMMIT;"
            )
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def prune_samples(connection: sqlite3.Connection) -> None:
    """Delete all but the last accepted `SAMPLES_PER_STRATUM` samples of each stratum."""
    connection.execute(
        "DELETE FROM samples WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER "
        "(PARTITION BY stratum ORDER BY accepted_at DESC, id DESC) AS age FROM samples) WHERE age > ?)",
        (SAMPLES_PER_STRATUM,),
    )


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
