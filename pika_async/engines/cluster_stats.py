"""State of a cluster in plain values, for a health check or a dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import attrs

from pika_async.engines.bounds import StopKind, money_of
from pika_async.engines.shared_concurrency import concurrency_of

__all__ = ["ClusterAccount", "ClusterOrphan", "ClusterStats", "ClusterWorker"]


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
    #: Whether it is stopped by a number of charges or a budget of the user's own, not by the provider.
    is_at_limit: bool = False
    #: Maximum number of charges, and money for them; None: no limit.
    max_charges: int | None
    budget: float | None
    #: Number of jobs in flight at which the account refuses one more, as all workers have learned it; None: it has not.
    estimated_limit: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return what a row of the database says."""
        concurrency = concurrency_of(row)
        return cls(
            in_flight=row["in_flight"], max_in_flight=row["max_in_flight"], charges=row["charges"],
            spent=money_of(row["spent"]), stopped=row["stop_reason"], max_charges=row["max_charges"],
            is_at_limit=row["stop_kind"] == StopKind.OWN_LIMIT,
            budget=None if row["budget"] is None else money_of(row["budget"]),
            estimated_limit=None if concurrency is None else concurrency.estimated_limit,
        )  # fmt: skip


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

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return what a row of the database says, which has the time there as `now`."""
        return cls(
            id=row["id"], host=row["host"], pid=row["pid"], version=row["version"], jobs=row["jobs"],
            age=row["now"] - row["started_at"], ended=row["reason"],
            expires_in=None if row["ended_at"] is not None else row["expires_at"] - row["now"],
        )  # fmt: skip

    @property
    def is_alive(self) -> bool:
        """Whether its lease holds."""
        return self.expires_in is not None and self.expires_in > 0


@attrs.frozen(kw_only=True)
class ClusterOrphan:
    """Task id that a worker read when another had the job already."""

    #: The key of the job.
    key: str
    account: str | None
    provider: str
    task_id: str
    #: The id of the worker that read it.
    worker: str
    #: Seconds since then.
    age: float


@attrs.frozen(kw_only=True)
class ClusterStats:
    """State of a cluster at one moment. `attrs.asdict` of it can be written as JSON."""

    #: The number of jobs by status.
    counts: dict[str, int]
    accounts: dict[str, ClusterAccount]
    workers: list[ClusterWorker]

    @classmethod
    def of(
        cls,
        counted: Mapping[tuple[str | None, str], int],
        accounts: Mapping[str, Mapping[str, Any]],
        workers: list[ClusterWorker],
    ) -> Self:
        """Return the state that the database has.

        :param counted: the number of jobs by account and status.
        :param accounts: the rows of the accounts by name; that of all together has the name "".
        """
        counts: dict[str, int] = {}
        for (_, status), number in counted.items():
            counts[status] = counts.get(status, 0) + number
        named = {name: ClusterAccount.of(row) for name, row in accounts.items() if name}
        return cls(counts=counts, accounts=named, workers=workers)

    def stop_of(self, name: str) -> str | None:
        """Return why nothing is submitted to an account; None while submissions are allowed, or it is not known."""
        account = self.accounts.get(name)
        return None if account is None else account.stopped
