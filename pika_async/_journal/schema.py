"""The database of a journal: what it looks like, how it is told from any other file, and how it is opened.

A file that is no sound journal of this version or an earlier one is refused before anything is written to it.
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

#: "PIKA": the file is a journal of pika_async, and `file` and the like can tell.
APPLICATION_ID: Final = 0x50494B41
SQLITE_MAGIC: Final = b"SQLite format 3\0"
#: Observations that are kept of each stratum.
SAMPLES_PER_STRATUM: Final = 256

#: What takes a file from version n to version n + 1, each in one transaction with its number. Never edit one that was
#: released: add another.
MIGRATIONS: Final = (
    # The requests are apart: they are written once and may hold whole images, while a job changes many times.
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

CONNECTION_PRAGMAS: Final = (
    "PRAGMA trusted_schema=OFF",  # a file that someone prepared calls no function from its schema
    "PRAGMA cell_size_check=ON",  # a damaged page is noticed when it is read
)
WRITER_PRAGMAS: Final = (
    "PRAGMA synchronous=FULL",  # NORMAL may lose the last commits when the power fails, and so pay twice
    "PRAGMA fullfsync=ON",  # on macOS an fsync alone stops at the drive's cache
    "PRAGMA busy_timeout=5000",  # milliseconds; nobody else writes, but a backup or a shell may look
    "PRAGMA wal_autocheckpoint=1000",  # pages: the log stays near 4 MB
)


def unusable(path: Path, reason: str) -> JournalUnusable:
    """The error that `path` cannot be the journal for `reason`, which holds the way out."""
    return JournalUnusable(setting="journal", reason=f"{path} {reason}")


def _foreign_file(path: Path) -> JournalUnusable:
    return unusable(path, "is no journal of pika_async; it is left as it is: give another file")


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
    """Whether there is a file at `path`; only reads it, and knows a foreign one by its first bytes.

    Not while this process has it open: that a file is closed frees all of the locks that SQLite holds on it here.

    :raises JournalUnusable: if it is no file, no database, not ours, newer, or cannot be read.
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
            raise unusable(path, "is no plain file; give a file")
        header = os.read(file, 100)
    except OSError as error:
        raise unusable(path, f"cannot be read: {error.strerror}; mend that or give another file") from None
    finally:
        os.close(file)
    if not header:
        return True  # made, and never filled: by us, or by `touch`
    if len(header) < 100 or not header.startswith(SQLITE_MAGIC):
        raise _foreign_file(path)
    version, application = (int.from_bytes(header[at : at + 4], "big") for at in (60, 68))
    if application not in {0, APPLICATION_ID} or (application == 0 and _has_tables(path)):
        raise _foreign_file(path)
    if version > len(migrations):
        raise _newer_version(path, version)
    return True


def create_file(path: Path) -> None:
    """An empty file that only its owner can read; its name is on the disk when this returns.

    :raises OSError: if it cannot be made, or is there already.
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
    """Whether the file alone, without its log, has a table; what it does not touch it does not change."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(path, "immutable=1")) as connection:
        return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    return False


def _read_version(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> int:
    """The version of the file, 0 for an empty one; see `look`."""
    connection.execute("BEGIN")  # all of one moment: its owner may be filling it
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
    """A connection after `prepare`, or none that is left open."""
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
    """The connection of the owner, to a sound file of the latest version; an empty one is filled.

    :raises JournalUnusable: if it is not ours, newer, damaged, or cannot be written.
    """

    def inspect(connection: sqlite3.Connection) -> None:
        _read_version(connection, path, migrations)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged_file(path, verdict)
        (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        if not log and pages * size > path.stat().st_size:  # SQLite takes what a last page lacks for zeros
            raise _damaged_file(path, "its end is missing")

    def prepare(connection: sqlite3.Connection) -> None:
        # Readers never wait for the writer, and a commit is one fsync.
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise unusable(path, "is on a file system that has no shared memory; give a file on a local disk")
        for pragma in WRITER_PRAGMAS:
            connection.execute(pragma)
        migrate(connection, _read_version(connection, path, migrations), migrations)
        prune_samples(connection)

    # By a connection that cannot write, for one that can also folds a foreign log into its file. Even that makes files
    # beside it, but where there is no log: nobody else writes now.
    log = _has_wal(path)
    _open_prepared(path, "mode=ro" if log else "immutable=1", inspect).close()
    return _open_prepared(path, "mode=rw", prepare)


def migrate(connection: sqlite3.Connection, version: int, migrations: Sequence[str]) -> None:
    """Bring a file of `version` to the latest, one transaction a step: a crash leaves a whole version."""
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
    """Forget all but the latest accepted observations of each stratum."""
    connection.execute(
        "DELETE FROM samples WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER "
        "(PARTITION BY stratum ORDER BY accepted_at DESC, id DESC) AS age FROM samples) WHERE age > ?)",
        (SAMPLES_PER_STRATUM,),
    )


def _is_creation_interrupted(path: Path) -> bool:
    """Whether a crash while it was made left a journal for SQLite to roll back, which a reader may not; there is none
    while a process owns it.
    """
    if not Path(f"{path}-journal").exists():
        return False
    with path.open("rb") as file:
        header = file.read(100)
    return header[60:64] == header[68:72] == bytes(4)


def open_reader(path: Path, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection | None:
    """A connection that only reads, also while another process owns the file; None if there is nothing yet.

    :raises JournalUnusable: if it is not ours, newer, damaged, or cannot be read.
    """
    versions: list[int] = []

    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA busy_timeout=5000")
        versions.append(_read_version(connection, path, migrations))

    if not path.exists():
        return None
    try:
        connection = _open_prepared(path, "mode=ro", prepare)
    except JournalUnusable:
        if _is_creation_interrupted(path):
            return None
        # On a read-only folder the shared memory of a log cannot be made: without a log none is needed.
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
