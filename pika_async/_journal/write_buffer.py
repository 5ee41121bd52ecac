"""Queue of writes that are not in the database yet; reads come here first (write-behind, read-your-writes).

Writes nothing itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

import attrs

from pika_async._journal.protocol import Intent, Upload
from pika_async.jobs import Job
from pika_async.polling.durations import DurationSample

__all__ = ["PendingView", "WriteBuffer", "WriteOp"]


@attrs.define(eq=False, kw_only=True)
class WriteOp:
    """Write of one call to the journal, committed as a whole or not at all."""

    #: Jobs by key; None frees the key.
    jobs: dict[str, Job | None] = attrs.Factory(dict)
    intent: Intent | None = None
    #: The key that an archived job had before.
    previous_key: str | None = None
    #: Name and JSON text.
    setting: tuple[str, str] | None = None
    sample: DurationSample | None = None
    upload: Upload | None = None
    #: Set by the writer thread after the first attempt. A failed write is attempted again, but reported once.
    done: Future[None] = attrs.Factory(Future)
    #: The file that its jobs were written to after a failed commit; None if there is none.
    fallback_file: str | None = None
    #: Whether the writer thread has taken it, so that `jobs` must not change any more.
    is_being_written: bool = False

    @property
    def jobs_to_write(self) -> list[Job]:
        """The jobs without the freed keys."""
        return [job for job in self.jobs.values() if job is not None]


@attrs.frozen
class PendingView:
    """Copy of the pending jobs at one moment."""

    #: Jobs by key; None means that the key is free.
    jobs: dict[str, Job | None]
    #: Keys whose row in the database belongs to a job that has another key now.
    previous_keys: frozenset[str]

    @property
    def stale_keys(self) -> set[str]:
        """Every key whose row in the database is out of date."""
        return {*self.jobs, *self.previous_keys}


class WriteBuffer:
    """Queue of operations, indexed by what they write.

    May be used from any thread and from a signal handler: its lock is reentrant.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queue: list[WriteOp] = []
        #: States that may be lost, by key: a later write of the same job takes their place.
        self._late: dict[str, WriteOp] = {}
        #: Operations whose commit failed; they are attempted again before the queue.
        self._failed: list[WriteOp] = []
        #: The latest operation for each key.
        self._by_key: dict[str, WriteOp] = {}
        self._by_previous_key: dict[str, WriteOp] = {}
        self._by_setting: dict[str, WriteOp] = {}
        self._by_upload: dict[str, WriteOp] = {}
        self._with_sample: list[WriteOp] = []
        #: Operations that change which job a callback token belongs to, in order; a dict as an ordered set.
        self._with_token: dict[WriteOp, None] = {}

    def add(self, operation: WriteOp) -> None:
        """Queue `operation`; reads see it from now on."""
        with self._lock:
            self._replace_late(operation)
            self._queue.append(operation)
            self._index(operation)

    def _replace_late(self, operation: WriteOp) -> None:
        """Drop the late writes that `operation` replaces; queue those that it does not replace as a whole."""
        for key, job in operation.jobs.items():
            late = self._late.pop(key, None)
            if late is None:
                continue
            if job is None or operation.intent is not None or operation.previous_key is not None:
                self._queue.append(late)

    def _index(self, operation: WriteOp) -> None:
        for key in operation.jobs:
            before = self._by_key.get(key)
            if before is not None and before.jobs[key] is None:
                del self._by_key[key]  # the key was free, so its new job comes last
            self._by_key[key] = operation
        if operation.previous_key is not None:
            self._by_previous_key[operation.previous_key] = operation
        if operation.previous_key is not None or operation.intent is not None:
            self._with_token[operation] = None
        if operation.setting is not None:
            self._by_setting[operation.setting[0]] = operation
        if operation.upload is not None:
            self._by_upload[operation.upload.sha256] = operation
        if operation.sample is not None:
            self._with_sample.append(operation)

    def save_later(self, job: Job) -> None:
        """Hold `job` until late writes are due, or replace a queued earlier state of it."""
        with self._lock:
            queued = self._by_key.get(job.key)
            if (
                queued is not None
                and not queued.is_being_written
                and list(queued.jobs) == [job.key]
                and queued.intent is None
            ):
                queued.jobs[job.key] = job
            else:
                self._late[job.key] = operation = WriteOp(jobs={job.key: job})
                self._index(operation)

    def take(self, *, late: bool) -> list[WriteOp]:
        """Take what is to be written, earlier failures first.

        The caller must pass the operations to `on_committed` or `on_commit_failed`.

        :param late: whether late writes are to be written as well.
        """
        with self._lock:
            group = self._failed + self._queue
            self._failed, self._queue = [], []
            if late:
                group += self._late.values()
                self._late = {}
            for operation in group:
                operation.is_being_written = True
            return group

    def on_committed(self, group: list[WriteOp]) -> None:
        """Forget operations that are in the database now."""
        with self._lock:
            for operation in group:
                self._discard(operation)

    def on_commit_failed(self, group: list[WriteOp]) -> None:
        """Drop the intents of a failed commit, since nothing was sent for them; keep every other write to retry it."""
        with self._lock:
            self._failed += [operation for operation in group if operation.intent is None]
            for operation in group:
                if operation.intent is not None:
                    undone = [key for key in operation.jobs if self._by_key.get(key) is operation]
                    self._discard(operation)
                    for key in undone:
                        kept = (*self._failed, *self._queue, *self._late.values())
                        others = [other for other in kept if key in other.jobs]
                        if others:
                            self._by_key[key] = others[-1]

    def _discard(self, operation: WriteOp) -> None:
        """Remove `operation` from every index."""
        for key in operation.jobs:
            if self._by_key.get(key) is operation:
                del self._by_key[key]
        if operation.previous_key is not None and self._by_previous_key.get(operation.previous_key) is operation:
            del self._by_previous_key[operation.previous_key]
        self._with_token.pop(operation, None)
        if operation.setting is not None and self._by_setting.get(operation.setting[0]) is operation:
            del self._by_setting[operation.setting[0]]
        if operation.upload is not None and self._by_upload.get(operation.upload.sha256) is operation:
            del self._by_upload[operation.upload.sha256]
        if operation.sample is not None:
            self._with_sample.remove(operation)

    def discard_fallback_copies(self) -> None:
        """Drop failed writes that are in the fallback file: they are recovered from there, and may be outdated here."""
        with self._lock:
            recovered = [operation for operation in self._failed if operation.fallback_file]
            self._failed = [operation for operation in self._failed if not operation.fallback_file]
            for operation in recovered:
                self._discard(operation)

    @property
    def has_failed_writes(self) -> bool:
        """Whether a failed write is still to be attempted again."""
        return bool(self._failed)

    def find_job(self, key: str) -> tuple[bool, Job | None]:
        """Return whether a write of `key` is pending, and the job that it will hold."""
        with self._lock:
            latest = self._by_key.get(key)
            return (False, None) if latest is None else (True, latest.jobs[key])

    def intent(self, key: str) -> Intent | None:
        """Return the pending intent of `key`; None if there is none."""
        with self._lock:
            latest = self._by_key.get(key)
            return None if latest is None else latest.intent

    def token_resolver(self, callback_sha256: str) -> Callable[[str | None], str | None]:
        """Return a function that applies the pending writes to the stored owner of a callback token.

        It takes the key that the database has for the token, and returns the key after all pending writes.
        """
        with self._lock:
            writes = [
                (operation.intent, operation.previous_key, next(reversed(operation.jobs)))
                for operation in self._with_token
            ]

        def resolve(owner: str | None) -> str | None:
            for intent, previous_key, key in writes:
                if intent is not None and intent.callback_sha256 == callback_sha256:
                    owner = key
                elif owner is not None and owner in {previous_key, key}:
                    owner = key if previous_key else None  # archived under `key`, or submitted again with another token
            return owner

        return resolve

    def view(self) -> PendingView:
        """Return all pending jobs, in the order in which their keys were first queued."""
        with self._lock:
            jobs = {key: operation.jobs[key] for key, operation in self._by_key.items()}
            return PendingView(jobs, frozenset(self._by_previous_key))

    def setting(self, name: str) -> str | None:
        """Return the pending JSON text of a setting; None if there is none."""
        with self._lock:
            latest = self._by_setting.get(name)
            return None if latest is None or latest.setting is None else latest.setting[1]

    def upload(self, sha256: str) -> Upload | None:
        """Return the pending address of a content; None if there is none."""
        with self._lock:
            latest = self._by_upload.get(sha256)
            return None if latest is None else latest.upload

    def samples(self) -> list[DurationSample]:
        """Return the pending samples, oldest first."""
        with self._lock:
            return [operation.sample for operation in self._with_sample if operation.sample is not None]
