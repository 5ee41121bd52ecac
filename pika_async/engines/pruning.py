"""Deletion of the records of jobs that were settled long ago, and of the contents that no other job has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

from pika_async._journal.contents import REFERENCE_PATTERN
from pika_async.engines.database import Database
from pika_async.engines.statements import pages
from pika_async.engines.tables import contents, jobs
from pika_async.jobs import FINAL

__all__ = ["delete_settled"]

#: Records that are deleted in one transaction.
DELETED_AT_ONCE: Final = 1_000


async def delete_settled(database: Database, *, before: float, dry_run: bool) -> int:
    """Delete the records of idle jobs that were settled before a time, in seconds since 1970; return their number.

    :param dry_run: count them only.
    """
    text = datetime.fromtimestamp(before, UTC).isoformat()
    if dry_run:
        return await database.run(_count, text)
    number = 0
    while deleted := await database.run(_delete, text, DELETED_AT_ONCE):
        number += deleted
    if number:
        await database.run(_delete_unused_contents)
    return number


def _is_old(before: str) -> sa.ColumnElement[bool]:
    is_idle = jobs.c.owner.is_(None) & ~jobs.c.queued
    return is_idle & jobs.c.status.in_([status.value for status in FINAL]) & (jobs.c.settled_at < before)


def _count(connection: sa.Connection, before: str) -> int:
    return int(connection.execute(sa.select(sa.func.count()).where(_is_old(before))).scalar_one())


def _delete(connection: sa.Connection, before: str, limit: int) -> int:
    some = sa.select(jobs.c.position).where(_is_old(before)).limit(limit)
    # What another process has queued meanwhile is not deleted: the condition holds for the row as it is by then.
    return connection.execute(sa.delete(jobs).where(jobs.c.position.in_(some), _is_old(before))).rowcount


def _delete_unused_contents(connection: sa.Connection) -> None:
    """Delete the bytes to which no job refers."""
    if connection.dialect.name == "postgresql":
        # A process that inserts a job with one of them waits, and inserts it anew; one that has done so is awaited.
        connection.exec_driver_sql(f"LOCK TABLE {contents.name} IN SHARE ROW EXCLUSIVE MODE")
    unused = set(connection.execute(sa.select(contents.c.sha256)).scalars())
    if unused:
        referring = sa.select(jobs.c.request).where(jobs.c.request.contains('"sha256"', autoescape=True))
        for request in connection.execute(referring).scalars():
            unused.difference_update(REFERENCE_PATTERN.findall(request))
    for page in pages(unused):
        connection.execute(sa.delete(contents).where(contents.c.sha256.in_(page)))
