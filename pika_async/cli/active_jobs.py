"""Active jobs of an open client as its planner has them, for displays. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from pika_async._planning.actions import ActiveJob
from pika_async.client import PikaClient

__all__ = ["active_records", "unsettled_ages"]


def active_records(client: PikaClient) -> Iterator[ActiveJob]:
    """Yield the active jobs; none of a client that is not open.

    Unlike `PikaClient.active_jobs` this copies no job: polls that are not in its record yet are missing there.
    """
    table = client._table  # noqa: SLF001 - its public view copies each job
    yield from () if table is None else list(table.jobs.values())


def unsettled_ages(client: PikaClient) -> dict[str, float]:
    """Return, by key, the age at which each accepted job was last seen unsettled, in seconds."""
    return {
        active.job.key: max(0.0, active.last_seen_unsettled_at - active.accepted_at)
        for active in active_records(client)
        if active.job.is_in_flight
    }
