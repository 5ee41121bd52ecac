"""Journal in memory, for a client without a file. Nothing survives the process.

The latest settled jobs are kept, as small records; older ones are forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import attrs

from pika_async._journal.change_signal import ChangeSignal
from pika_async._journal.protocol import MAX_CHANGES, Intent, Upload
from pika_async._journal.samples import SAMPLES_PER_STRATUM, latest_samples
from pika_async._journal.serialization import is_change
from pika_async._journal.settled import SettledOrder, pack_settled, status_of, unpack_settled
from pika_async._planning.limits import SETTLED_JOBS
from pika_async._planning.resolution import archive_key
from pika_async.jobs import SENT_UNFINISHED, Job, JobStatus
from pika_async.polling.durations import DurationSample

__all__ = ["MemoryJournal"]

#: Numbers of replaced changes that a reader passes before other tasks get a turn.
MAX_SKIPPED_CHANGES: Final = 4096
#: Latest settled jobs that stay objects, since they are read and saved again soon.
UNPACKED_JOBS: Final = 256

_log = logging.getLogger("pika_async.journal")


class MemoryJournal:
    """Jobs in a dict; see `Journal` for the calls.

    :param settled: maximum number of settled jobs, >= 1; beyond it, the one that settled first is forgotten, and its
        key is that of a new job. Forgotten are neither jobs that have not settled, nor doubts, nor results whose
        download has failed or not ended. Default: 100,000.
    """

    path: Path | None = None

    def __init__(self, *, settled: int = SETTLED_JOBS) -> None:
        self._max_settled = settled
        #: Jobs by key; the records of settled ones.
        self._jobs: dict[str, Job | bytes] = {}
        self._settled = SettledOrder()
        #: Keys that are not forgotten, as they are at any moment.
        self._retained: Container[str] = ()
        self._has_forgotten = False
        #: Jobs of each status, so that `count` takes the same time for any number of jobs.
        self._counts: Counter[JobStatus] = Counter()
        self._intents: dict[str, Intent] = {}
        #: Keys by task id, for each provider and base URL.
        self._task_keys: dict[tuple[str, str], dict[str, str]] = {}
        #: The SHA-256 of a job's callback token by its key, and the key by the SHA-256.
        self._token_by_key: dict[str, str] = {}
        self._key_by_token: dict[str, str] = {}
        self._settings: dict[str, Any] = {}
        self._uploads: dict[str, Upload] = {}
        #: Number of jobs that may be charged, by account and cost.
        self._costs: Counter[tuple[str, float | None]] = Counter()
        self._samples: list[DurationSample] = []
        #: Number of samples that the last selection of the latest ones has kept.
        self._kept_samples = SAMPLES_PER_STRATUM
        #: The keys of the changed jobs by their latest revision, from 1. Empty until a reader asks, because numbering
        #: costs time that most clients need not spend.
        self._changed: dict[int, str] = {}
        self._revision = 0
        #: The latest revision of each job.
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

    async def save(self, *jobs: Job, linger: bool = False) -> None:  # noqa: ARG002 - nothing is committed
        """See `Journal`."""
        for job in jobs:
            self._store(job)

    def save_later(self, job: Job) -> None:
        """See `Journal`."""
        self._store(job)

    def retain(self, keys: Container[str]) -> None:
        """See `Journal`."""
        self._retained = keys

    def _store(self, job: Job) -> None:
        stored = self._jobs.get(job.key)
        before = unpack_settled(stored) if isinstance(stored, bytes) else stored
        if self._revisions is not None:
            self._assign_revision(self._revisions, before, job)
        if before is not None:
            self._counts[before.status] -= 1
            self._count_cost(before, -1)
        self._counts[job.status] += 1
        if not (self._has_forgotten and before is None and job.is_final):  # a forgotten job has been counted
            self._count_cost(job, 1)
        self._jobs[job.key] = pack_settled(job) if isinstance(stored, bytes) and job.is_final else job
        if job.task_id is not None:
            self._task_keys.setdefault((job.provider, job.base_url), {})[job.task_id] = job.key
        if job.status is not JobStatus.SUBMITTING and job.key in self._intents:
            self._end_intent(job)
        was_settled = before is not None and before.settled_at is not None
        if was_settled or job.settled_at is not None:  # set exactly when a job is final
            self._place(job, was_settled=was_settled)

    def _end_intent(self, job: Job) -> None:
        """Forget the intent of a job whose submission has ended; one in doubt keeps what can be sent again."""
        if job.status is not JobStatus.UNKNOWN or self._intents[job.key].repeatable is None:
            del self._intents[job.key]

    def _count_cost(self, job: Job, step: int) -> None:
        if not job.may_be_charged:
            return
        account_and_cost = job.account_and_cost
        self._costs[account_and_cost] += step
        if not self._costs[account_and_cost]:
            del self._costs[account_and_cost]

    def _place(self, job: Job, *, was_settled: bool) -> None:
        """Place `job` in the order of the settled ones; pack and forget the older ones."""
        if was_settled and not job.is_final:
            self._settled.discard(job.key)
        elif was_settled and self._settled.is_kept(job.key) and not _is_wanted(job):
            self._settled.discard(job.key)
            self._settled.add(job.key)
        elif not was_settled:
            self._settled.add(job.key)
        key = self._settled.before_latest(UNPACKED_JOBS)
        older = None if key is None else self._jobs.get(key)
        if key is not None and isinstance(older, Job) and older.is_final:
            self._jobs[key] = pack_settled(older)
        while len(self._settled) > self._max_settled:
            self._forget(self._settled.pop())

    def _forget(self, key: str) -> None:
        """Forget a settled job, unless its result is still wanted."""
        job = unpack_settled(self._jobs[key])
        if key in self._retained or _is_wanted(job):
            self._settled.keep(key)
            return
        if not self._has_forgotten:
            self._has_forgotten = True
            text = "more than %s jobs have settled: the oldest are forgotten from now on, and their keys are new ones; "
            _log.warning(text + "a journal file forgets none", f"{self._max_settled:,}")
        self._drop(job)

    def _drop(self, job: Job) -> None:
        """Remove all that is kept of a job, but its cost and its place in the order of the settled ones."""
        key = job.key
        del self._jobs[key]
        self._counts[job.status] -= 1
        self._set_token(key, None)
        keys = self._task_keys.get((job.provider, job.base_url), {})
        if job.task_id is not None and keys.get(job.task_id) == key:
            del keys[job.task_id]
        if self._revisions is not None:
            self._changed.pop(self._revisions.pop(key, 0), None)

    def _assign_revision(self, revisions: dict[str, int], before: Job | None, job: Job) -> None:
        if before is None or is_change(job, before):
            self._changed.pop(revisions.get(job.key, 0), None)
            self._revision += 1
            self._changed[self._revision] = job.key
            revisions[job.key] = self._revision
            self._change_signal.notify()

    @property
    def revision(self) -> int:
        """See `Journal`. The first call numbers the existing jobs, in their order."""
        if self._revisions is None:
            self._changed = dict(enumerate(self._jobs, 1))
            self._revisions = {key: revision for revision, key in self._changed.items()}
            self._revision = len(self._changed)
        return self._revision

    async def changes(self, after: int) -> list[tuple[int, Job]]:
        """See `Journal`."""
        found: list[tuple[int, Job]] = []
        with self._change_signal.subscribe() as changed:
            while True:
                await asyncio.sleep(0)
                latest = min(self.revision, after + MAX_SKIPPED_CHANGES)
                revisions = range(after + 1, latest + 1)
                keys = ((revision, self._changed.get(revision)) for revision in revisions)
                found += itertools.islice(
                    ((revision, unpack_settled(self._jobs[key])) for revision, key in keys if key is not None),
                    MAX_CHANGES,
                )
                if found:
                    return found
                after = latest
                if after == self.revision:
                    if not self._is_open:
                        return []
                    changed.clear()
                    await changed.wait()

    def _set_token(self, key: str, token: str | None) -> str | None:
        """Replace the token of the job `key`; return the previous one."""
        before = self._token_by_key.pop(key, None)
        if before is not None:
            del self._key_by_token[before]
        if token is not None:
            self._token_by_key[key], self._key_by_token[token] = token, key
        return before

    def add_sample(self, sample: DurationSample) -> None:
        """See `Journal`."""
        self._samples.append(sample)
        if len(self._samples) >= 2 * self._kept_samples:
            self._samples = latest_samples(self._samples)
            self._kept_samples = max(SAMPLES_PER_STRATUM, len(self._samples))

    async def archive(self, job: Job) -> Job:
        """See `Journal`."""
        archived = attrs.evolve(job, key=archive_key(job.key, self._jobs))
        self._rename(job, archived)
        return archived

    def _rename(self, job: Job, archived: Job) -> None:
        """Save `job` under the key of `archived`."""
        self._jobs[archived.key] = self._jobs.pop(job.key)
        if job.settled_at is not None:  # as `_place` has it
            self._settled.discard(job.key)
            self._settled.add(archived.key)
        if self._revisions is not None:
            self._revisions[archived.key] = revision = self._revisions.pop(job.key)
            self._changed[revision] = archived.key
        self._intents.pop(job.key, None)
        self._set_token(archived.key, self._set_token(job.key, None))
        self._store(archived)

    async def set_setting(self, name: str, value: Any) -> None:
        """See `Journal`."""
        self._settings[name] = value

    def reading(self) -> AbstractContextManager[None]:
        """See `Journal`. Nothing has to be opened."""
        return contextlib.nullcontext()

    def get_setting(self, name: str) -> Any:
        """See `Journal`."""
        return self._settings.get(name)

    async def save_upload(self, upload: Upload) -> None:
        """See `Journal`."""
        self._uploads.pop(upload.sha256, None)  # the latest is the last
        self._uploads[upload.sha256] = upload
        if len(self._uploads) > self._max_settled:
            del self._uploads[next(iter(self._uploads))]

    def get_upload(self, sha256: str) -> Upload | None:
        """See `Journal`."""
        return self._uploads.get(sha256)

    def get(self, key: str) -> Job | None:
        """See `Journal`."""
        stored = self._jobs.get(key)
        return None if stored is None else unpack_settled(stored)

    def key_for_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        """See `Journal`."""
        return self._task_keys.get((provider, base_url), {}).get(task_id)

    async def find_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        """See `Journal`. No other process has jobs."""
        return self.key_for_task(provider, base_url, task_id)

    def key_for_token(self, callback_sha256: str) -> str | None:
        """See `Journal`."""
        return self._key_by_token.get(callback_sha256)

    def __contains__(self, key: object) -> bool:
        return key in self._jobs

    def keys(self) -> Iterator[str]:
        """See `Journal`. Those of the moment of the call."""
        return iter(list(self._jobs))

    def all(self, *statuses: JobStatus) -> Iterator[Job]:
        """See `Journal`."""
        wanted = frozenset(statuses or JobStatus)
        found = (stored for key in list(self._jobs) if (stored := self._jobs.get(key)) is not None)
        return (unpack_settled(stored) for stored in found if status_of(stored) in wanted)

    def intent(self, key: str) -> Intent | None:
        """See `Journal`."""
        return self._intents.get(key)

    def interrupted_jobs(self) -> list[tuple[Job, Intent]]:
        """See `Journal`."""
        found = ((unpack_settled(self._jobs[key]), intent) for key, intent in self._intents.items())
        return [(job, intent) for job, intent in found if job.status is JobStatus.SUBMITTING]

    def count(self, status: JobStatus) -> int:
        """See `Journal`."""
        return self._counts[status]

    def unfinished_by_account(self) -> Counter[str]:
        """See `Journal`."""
        return Counter(job.account_and_cost[0] for job in self.all(*SENT_UNFINISHED))

    def charges(self) -> int:
        """See `Journal`."""
        return self._costs.total()

    def costs(self) -> Counter[tuple[str, float | None]]:
        """See `Journal`."""
        return self._costs.copy()

    def samples(self) -> list[DurationSample]:
        """See `Journal`."""
        return latest_samples(self._samples)


def _is_wanted(job: Job) -> bool:
    """Whether the result of `job` was to be downloaded, and can still be."""
    return job.status is JobStatus.SUCCEEDED and not job.is_downloaded and job.error is not None
