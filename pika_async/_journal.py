"""Remembers every job of a client. This one lives as long as the process; the calls are those of a durable one.

The order of the calls is what makes a payment provable: `intend` before anything is sent, `keep` before anything else
sees what came back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pika_async.lifecycle import Job

__all__ = ["Journal", "MemoryJournal"]


class Journal(Protocol):
    """Where jobs are remembered, by key."""

    async def intend(self, job: Job) -> None:
        """Remember that `job` is about to be sent; if this raises, it is not sent."""

    async def keep(self, job: Job) -> None:
        """Remember `job` as it now stands."""

    def get(self, key: str) -> Job | None:
        """The job of that key, as last kept."""

    def holder(self, task_id: str) -> str | None:
        """The key of the job that has this task id."""

    def all(self) -> Iterable[Job]:
        """Every job, in the order in which they were first kept."""


class MemoryJournal:
    """Jobs in a dict: gone with the process."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._holders: dict[str, str] = {}

    async def intend(self, job: Job) -> None:
        """See `Journal`."""
        self._jobs[job.key] = job

    async def keep(self, job: Job) -> None:
        """See `Journal`."""
        self._jobs[job.key] = job
        if job.task_id is not None:
            self._holders[job.task_id] = job.key

    def get(self, key: str) -> Job | None:
        """See `Journal`."""
        return self._jobs.get(key)

    def holder(self, task_id: str) -> str | None:
        """See `Journal`."""
        return self._holders.get(task_id)

    def all(self) -> Iterable[Job]:
        """See `Journal`."""
        return self._jobs.values()
