"""Rows that triggers of PostgreSQL write during a storm: take-overs of jobs, and writes after the end of a lease."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, Final

import attrs
import psycopg

__all__ = ["StormRows", "TakeOver"]

#: A lease ends when it expires, or earlier if its worker closes. An extension is recorded with its time; a job that
#: passes from one worker to another with the time since the end of the lease, and the number of extensions of the new
#: worker since. A breach is whatever a worker writes whose lease has ended.
_TRIGGERS: Final = """
CREATE TABLE storm_beats (worker text, at float8);
CREATE TABLE storm_take_overs (worker text, reason text, seconds float8, beats bigint);
CREATE TABLE storm_breaches (worker text, written text);

CREATE FUNCTION storm_beat() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.ended_at IS NOT NULL THEN
        INSERT INTO storm_breaches VALUES (NEW.id, 'its lease');
    END IF;
    INSERT INTO storm_beats VALUES (NEW.id, extract(epoch FROM clock_timestamp()));
    RETURN NULL;
END $$;
CREATE TRIGGER storm_beat AFTER UPDATE OF expires_at ON pika_workers FOR EACH ROW EXECUTE FUNCTION storm_beat();

CREATE FUNCTION storm_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storm_breaches SELECT id, NEW.key FROM pika_workers
        WHERE id = coalesce(NEW.owner, OLD.owner) AND ended_at IS NOT NULL;
    IF OLD.owner <> NEW.owner THEN
        INSERT INTO storm_take_overs
            SELECT w.id, w.reason, extract(epoch FROM clock_timestamp()) - w.over_at,
                (SELECT count(*) FROM storm_beats b WHERE b.worker = NEW.owner AND b.at > w.over_at)
            FROM (SELECT *, least(ended_at, expires_at) AS over_at FROM pika_workers) w WHERE w.id = OLD.owner;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER storm_write AFTER UPDATE ON pika_jobs FOR EACH ROW EXECUTE FUNCTION storm_write();
"""
#: The process of each worker whose lease holds, its id and the number of its jobs that are being generated.
_LIVE: Final = """
    SELECT w.pid, w.id, count(j.key) FROM pika_workers w
    LEFT JOIN pika_jobs j ON j.owner = w.id AND j.status IN ('submitting', 'queued', 'running')
    WHERE w.ended_at IS NULL AND w.expires_at > extract(epoch FROM clock_timestamp()) GROUP BY w.id
"""


@attrs.frozen
class TakeOver:
    """The take-over of all jobs of a worker, up to the last one."""

    #: Why its lease ended: "expired" or "closed".
    reason: str
    jobs: int
    seconds: float
    #: The most extensions that a new owner made of its lease between the end of the earlier one and its taking a job.
    beats: int


@attrs.define
class StormRows:
    """Rows of one database, whose triggers are made by `create`."""

    url: str

    async def create(self) -> None:
        await self._run(_TRIGGERS)

    async def live(self) -> dict[int, tuple[str, int]]:
        """Return the id of each worker whose lease holds, and how many jobs it has in flight, by its process id."""
        return {pid: (worker, jobs) for pid, worker, jobs in await self._run(_LIVE)}

    async def unfinished(self) -> int:
        """Return the number of jobs that wait or that a worker has."""
        ((number,),) = await self._run("SELECT count(*) FROM pika_jobs WHERE queued OR owner IS NOT NULL")
        return int(number)

    async def is_taken_over(self, worker: str) -> bool:
        """Return whether the lease of a worker has ended and it has no job any more."""
        return bool(
            await self._run(
                "SELECT id FROM pika_workers w WHERE id = %s AND ended_at IS NOT NULL"
                " AND NOT EXISTS (SELECT FROM pika_jobs WHERE owner = w.id)",
                worker,
            )
        )

    async def breaches(self) -> list[tuple[str, str]]:
        """Return the workers that wrote after the end of their lease, each with what it wrote."""
        return await self._run("SELECT * FROM storm_breaches")

    async def take_overs(self) -> list[TakeOver]:
        """Return one for each worker of which a job was taken over."""
        found = defaultdict(list)
        for worker, reason, seconds, beats in await self._run("SELECT * FROM storm_take_overs"):
            found[worker].append((reason, float(seconds), int(beats)))
        return [
            TakeOver(rows[0][0], len(rows), max(row[1] for row in rows), max(row[2] for row in rows))
            for rows in found.values()
        ]

    async def _run(self, statement: str, *values: str) -> list[Any]:
        return await asyncio.to_thread(self._run_blocking, statement, values)

    def _run_blocking(self, statement: str, values: tuple[str, ...]) -> list[Any]:
        with psycopg.connect(self.url, connect_timeout=10) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return [] if cursor.description is None else cursor.fetchall()
