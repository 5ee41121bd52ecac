"""Journal in memory, for a client without a file. Nothing survives the process."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from pika_async._journal.change_signal import ChangeSignal
from pika_async._journal.protocol import MAX_CHANGES, Intent
from pika_async._journal.serialization import is_change
from pika_async.jobs import Job, JobStatus, archive_key
from pika_async.polling.durations import DurationSample

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """Jobs in a dict; see `Journal` for the calls."""

    path: Path | None = None

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        #: Jobs of each status, so that `count` takes the same time for any number of jobs.
        self._counts: Counter[JobStatus] = Counter()
        self._intents: dict[str, Intent] = {}
        #: Keys by task id, for each provider and base URL.
        self._task_keys: dict[tuple[str, str], dict[str, str]] = {}
        #: The SHA-256 of a job's callback token by its key, and the key by the SHA-256.
        self._token_by_key: dict[str, str] = {}
        self._key_by_token: dict[str, str] = {}
        self._settings: dict[str, Any] = {}
        #: The latest revision of each job, in ascending order. None until a reader asks, because numbering costs time
        #: that most clients need not spend.
        self._revisions: dict[str, int] | None = None
        self._change_signal = ChangeSignal()
        self._is_open = False

    async def open(self) -> None:
        """See `Journal`."""
        self._is_open = True

    async def close(self) -> None:
        """See `Journal`. Nothing has to be written."""
        self._is_open = False
        self._change_signal.notify()

    async def record_intent(self, job: Job, intent: Intent) -> None:
        """See `Journal`."""
        self._intents[job.key] = intent
        self._set_token(job.key, intent.callback_sha256)
        self._store(job)

    async def save(self, *jobs: Job) -> None:
        """See `Journal`."""
        for job in jobs:
            self._store(job)

    def save_later(self, job: Job) -> None:
        """See `Journal`."""
        self._store(job)

    def _store(self, job: Job) -> None:
        before = self._jobs.get(job.key)
        if self._revisions is not None:
            self._assign_revision(self._revisions, before, job)
        if before is not None:
            self._counts[before.status] -= 1
        self._counts[job.status] += 1
        self._jobs[job.key] = job
        if job.task_id is not None:
            self._task_keys.setdefault((job.provider, job.base_url), {})[job.task_id] = job.key
        if job.status is not JobStatus.SUBMITTING:
            self._intents.pop(job.key, None)

    def _assign_revision(self, revisions: dict[str, int], before: Job | None, job: Job) -> None:
        if before is None or is_change(job, before):
            revision = self.revision + 1
            revisions.pop(job.key, None)  # so that the latest change comes last
            revisions[job.key] = revision
            self._change_signal.notify()

    @property
    def revision(self) -> int:
        """See `Journal`. The first call numbers the existing jobs, in their order."""
        if self._revisions is None:
            self._revisions = {key: revision for revision, key in enumerate(self._jobs, 1)}
        return next(reversed(self._revisions.values()), 0)

    async def changes(self, after: int) -> list[tuple[int, Job]]:
        """See `Journal`."""
        await asyncio.sleep(0)
        with self._change_signal.subscribe() as changed:
            while self.revision <= after and self._is_open:
                changed.clear()
                await changed.wait()
        revisions = self._revisions or {}
        newest_first = list(itertools.takewhile(lambda key: revisions[key] > after, reversed(revisions)))
        return [(revisions[key], self._jobs[key]) for key in newest_first[: -MAX_CHANGES - 1 : -1]]

    def _set_token(self, key: str, token: str | None) -> str | None:
        """Replace the token of the job `key`; return the previous one."""
        before = self._token_by_key.pop(key, None)
        if before is not None:
            del self._key_by_token[before]
        if token is not None:
            self._token_by_key[key], self._key_by_token[token] = token, key
        return before

    def add_sample(self, sample: DurationSample) -> None:
        """See `Journal`. Discards `sample`: the policy of this process has it already."""

    async def archive(self, job: Job) -> Job:
        """See `Journal`."""
        archived = attrs.evolve(job, key=archive_key(job.key, self._jobs))
        self._jobs[archived.key] = self._jobs.pop(job.key)
        if self._revisions is not None:
            self._revisions = {
                archived.key if key == job.key else key: revision for key, revision in self._revisions.items()
            }
        self._intents.pop(job.key, None)
        self._set_token(archived.key, self._set_token(job.key, None))
        self._store(archived)
        return archived

    async def set_setting(self, name: str, value: Any) -> None:
        """See `Journal`."""
        self._settings[name] = value

    def get_setting(self, name: str) -> Any:
        """See `Journal`."""
        return self._settings.get(name)

    def get(self, key: str) -> Job | None:
        """See `Journal`."""
        return self._jobs.get(key)

    def key_for_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        """See `Journal`."""
        return self._task_keys.get((provider, base_url), {}).get(task_id)

    def key_for_token(self, callback_sha256: str) -> str | None:
        """See `Journal`."""
        return self._key_by_token.get(callback_sha256)

    def keys(self) -> list[str]:
        """See `Journal`."""
        return list(self._jobs)

    def all(self, status: JobStatus | None = None) -> Iterator[Job]:
        """See `Journal`."""
        return iter([job for job in self._jobs.values() if status is None or job.status is status])

    def interrupted_jobs(self) -> list[tuple[Job, Intent]]:
        """See `Journal`."""
        return [(self._jobs[key], intent) for key, intent in self._intents.items()]

    def count(self, status: JobStatus) -> int:
        """See `Journal`."""
        return self._counts[status]

    def charges(self) -> int:
        """See `Journal`."""
        return sum(job.may_be_charged for job in self._jobs.values())

    def samples(self) -> list[DurationSample]:
        """See `Journal`. There are none; see `add_sample`."""
        return []
