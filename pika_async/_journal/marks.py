"""Marks in the database: whether it is open, which journal it is, and where it was opened last. Opens no file."""

from __future__ import annotations

import json
import logging
import os
import platform
import sqlite3
from pathlib import Path
from typing import Final

import attrs

from pika_async._journal import queries
from pika_async._journal.migrations import APPLICATION_ID, OPEN_APPLICATION_ID

__all__ = ["checkpoint", "identify", "mark_closed", "mark_open"]

#: Name of the setting with the `_Place` of the last opening.
PLACE_SETTING: Final = "pika_async.place"
#: Bytes of the random number that identifies a journal.
IDENTITY_BYTES: Final = 8

_log = logging.getLogger("pika_async.journal")


@attrs.frozen
class _Place:
    """Where a journal was opened. The device is not compared, because its number may change when a machine starts."""

    #: Random number of the journal in hex digits, the same for all copies.
    journal: str
    path: str
    host: str
    device: int
    inode: int

    def is_at(self, other: _Place) -> bool:
        return (self.path, self.host, self.inode) == (other.path, other.host, other.inode)


def _stored_place(connection: sqlite3.Connection) -> _Place | None:
    text = queries.select_setting(connection, PLACE_SETTING)
    try:
        return None if text is None else _Place(**json.loads(text))
    except (TypeError, ValueError):  # a damaged value; it is replaced
        return None


def identify(connection: sqlite3.Connection) -> str | None:
    """Return the random number of a journal in hex digits; None if it was never opened."""
    place = _stored_place(connection)
    return None if place is None else place.journal


def checkpoint(connection: sqlite3.Connection) -> bool:
    """Copy the whole log into the database and empty the log; return False if a reader was in the way for long."""
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def mark_open(connection: sqlite3.Connection, path: Path, status: os.stat_result) -> str | None:
    """Mark the journal as open at `path`, also in the database file without its log; return its random number.

    None means that a reader was in the way for long, so that nothing may be written yet.
    """
    before = _stored_place(connection)
    journal = os.urandom(IDENTITY_BYTES).hex() if before is None else before.journal
    place = _Place(journal, os.fsdecode(path), platform.node(), status.st_dev, status.st_ino)
    if before is not None and not before.is_at(place):
        where = "as another file of this path" if before.path == place.path else f"as {before.path}"
        text = "the journal %s was last opened %s on %s: if that one is used as well, both pay for the same jobs"
        _log.warning(text, path, where, before.host)
    with queries.transaction(connection):
        connection.execute(f"PRAGMA application_id={OPEN_APPLICATION_ID}")
        queries.insert_setting(connection, PLACE_SETTING, json.dumps(attrs.asdict(place)))
    return journal if checkpoint(connection) else None


def mark_closed(connection: sqlite3.Connection) -> bool:
    """Copy the log into the database, then mark the database as closed; return whether both are done.

    In this order, since a checkpoint that is interrupted may have copied the mark and not yet the rest.
    """
    if not checkpoint(connection):
        return False
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    return checkpoint(connection)
