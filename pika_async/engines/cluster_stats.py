"""State of a cluster in plain values, for a health check or a dashboard."""

from __future__ import annotations

import attrs

__all__ = ["ClusterAccount", "ClusterStats", "ClusterWorker"]


@attrs.frozen(kw_only=True)
class ClusterAccount:
    """What all workers use of one account."""

    in_flight: int
    max_in_flight: int | None
    #: Number of submissions that were or may have been accepted.
    charges: int
    #: Money for them, where it is known.
    spent: float
    #: Why nothing is submitted; None while submissions are allowed.
    stopped: str | None


@attrs.frozen(kw_only=True)
class ClusterWorker:
    """A worker that has a lease, or has had one."""

    id: str
    host: str
    pid: int
    version: str
    #: Number of jobs that it has.
    jobs: int
    #: Seconds since it started.
    age: float
    #: Seconds until its lease expires unless it is extended; None if it has ended.
    expires_in: float | None
    #: Why its lease has ended: "closed" or "expired"; None while it holds.
    ended: str | None


@attrs.frozen(kw_only=True)
class ClusterStats:
    """State of a cluster at one moment. `attrs.asdict` of it can be written as JSON."""

    #: The number of jobs by status.
    counts: dict[str, int]
    accounts: dict[str, ClusterAccount]
    workers: list[ClusterWorker]
