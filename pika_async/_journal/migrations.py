"""Tables of the journal, and the migrations that make them. Opens no file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from pika_async._journal.samples import SAMPLES_PER_STRATUM

__all__ = [
    "APPLICATION_ID",
    "APPLICATION_IDS",
    "MAY_BE_CHARGED",
    "MIGRATIONS",
    "OPEN_APPLICATION_ID",
    "migrate",
    "prune_samples",
]

#: "PIKA" in the header marks a file as a journal of pika_async; tools such as `file` can show it.
APPLICATION_ID: Final = 0x50494B41
#: "PIKO" in its place while a client has the journal open: then the database may lack what is in its log.
OPEN_APPLICATION_ID: Final = 0x50494B4F
APPLICATION_IDS: Final = frozenset({APPLICATION_ID, OPEN_APPLICATION_ID})

#: The condition of `Job.may_be_charged` on a row of `jobs`.
MAY_BE_CHARGED: Final = (
    "((task_id IS NOT NULL OR submitted_at IS NOT NULL OR status = 'submitting') AND (task_id IS NULL OR attempts > 0))"
)

#: Item n migrates a file from version n to n + 1, in one transaction with the new version number. Never edit a released
#: migration; append another.
MIGRATIONS: Final = (
    # Requests have a table of their own: they are written once and may hold images, while a job is updated many times.
    # Bytes in requests are in `contents` by their hash, so that many requests may share one picture; `uploads` has the
    # addresses of uploaded files. The triggers count the jobs, so that opening a journal and reading its state do not
    # take longer with every job; in `counts` a cost of -1 is an unknown one. `repeatable` is a submission that may be
    # sent again as it was, for a provider that recognises it by its key.
    """
    CREATE TABLE jobs (
        position INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        idx INTEGER NOT NULL,
        status TEXT NOT NULL,
        provider TEXT NOT NULL,
        base_url TEXT NOT NULL,
        account TEXT,
        task_id TEXT,
        handle TEXT,
        video TEXT,
        file TEXT,
        sha256 TEXT,
        error TEXT,
        progress INTEGER,
        last_seen TEXT,
        polls INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        submitted_at TEXT,
        settled_at TEXT,
        downloaded_at TEXT,
        points REAL,
        refunded REAL,
        cost REAL,
        earlier_steps TEXT,
        repeats TEXT,
        intended_at TEXT,
        body_sha256 TEXT,
        callback_sha256 TEXT,
        repeatable TEXT,
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
    CREATE TABLE counts (
        status TEXT NOT NULL, may_be_charged INTEGER NOT NULL, account TEXT NOT NULL, cost REAL NOT NULL,
        jobs INTEGER NOT NULL, PRIMARY KEY (status, may_be_charged, account, cost)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER count_inserted AFTER INSERT ON jobs BEGIN
        INSERT INTO counts VALUES (
            new.status, (new.task_id IS NOT NULL OR new.submitted_at IS NOT NULL OR new.status = 'submitting')
            AND (new.task_id IS NULL OR new.attempts > 0), ifnull(new.account, new.provider), ifnull(new.cost, -1.0), 1
        ) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    END;
    CREATE TRIGGER count_updated AFTER UPDATE OF status, task_id, submitted_at, attempts, account, cost ON jobs
    WHEN old.status IS NOT new.status OR old.task_id IS NOT new.task_id OR old.submitted_at IS NOT new.submitted_at
        OR old.attempts IS NOT new.attempts OR old.account IS NOT new.account OR old.cost IS NOT new.cost
    BEGIN
        UPDATE counts SET jobs = jobs - 1 WHERE status = old.status AND may_be_charged
            = ((old.task_id IS NOT NULL OR old.submitted_at IS NOT NULL OR old.status = 'submitting')
            AND (old.task_id IS NULL OR old.attempts > 0))
            AND account = ifnull(old.account, old.provider) AND cost = ifnull(old.cost, -1.0);
        INSERT INTO counts VALUES (
            new.status, (new.task_id IS NOT NULL OR new.submitted_at IS NOT NULL OR new.status = 'submitting')
            AND (new.task_id IS NULL OR new.attempts > 0), ifnull(new.account, new.provider), ifnull(new.cost, -1.0), 1
        ) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    END;
    CREATE TABLE contents (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT;
    CREATE TABLE uploads (
        sha256 TEXT PRIMARY KEY, url TEXT NOT NULL, uploaded_at TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
)


def migrate(connection: sqlite3.Connection, version: int, migrations: Sequence[str]) -> None:
    """Migrate a database of `version` to the latest, one transaction a step, so that a crash leaves a whole version."""
    mark = f"PRAGMA application_id={APPLICATION_ID};"  # later ones must leave a file that is marked as open so
    for number, script in enumerate(migrations[version:], version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {script}; {mark if number == 1 else ''} PRAGMA user_version={number}; COMMIT;"
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
