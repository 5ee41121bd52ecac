"""Active jobs of an open client as its planner has them, for displays. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pika_async._planning.actions import ActiveJob
from pika_async.client import PikaClient
from pika_async.engines.protocol import BatchClient
from pika_async.jobs import Job

__all__ = ["active_jobs", "unsettled_ages"]


def active_jobs(client: BatchClient) -> Iterable[Job]:
    """Return the active jobs; none of a client that is not open.

    Unlike `PikaClient.active_jobs` this copies no job: polls that are not in its record yet are missing there.
    """
    if isinstance(client, PikaClient):
        return (active.job for active in _records(client))
    return client.active_jobs()


def _records(client: BatchClient) -> Iterator[ActiveJob]:
    table = client._table if isinstance(client, PikaClient) else None  # noqa: SLF001 - its public view copies each job
    yield from () if table is None else list(table.jobs.values())


def unsettled_ages(client: BatchClient) -> dict[str, float]:
    """Return, by key, the age at which each accepted job was last seen unsettled, in seconds."""
    return {
        active.job.key: max(0.0, active.last_seen_unsettled_at - active.accepted_at)
        for active in _records(client)
        if active.job.is_in_flight
    }
