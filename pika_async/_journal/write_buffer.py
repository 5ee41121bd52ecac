"""What was asked to be kept and is not in the database yet; every read looks here first. Writes nothing itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import attrs

from pika_async._journal.protocol import Intent
from pika_async.jobs import Job
from pika_async.polling.durations import DurationSample

__all__ = ["PendingView", "WriteBuffer", "WriteOp"]


@attrs.define(eq=False, kw_only=True)
class WriteOp:
    """One call that changes the journal, committed whole or not at all.

    `jobs` is by key; None says that the key is free again. `moved` is the key that an archived job had.
    """

    jobs: dict[str, Job | None] = attrs.Factory(dict)
    intent: Intent | None = None
    previous_key: str | None = None
    #: Name and JSON.
    setting: tuple[str, str] | None = None
    sample: DurationSample | None = None
    #: For the thread's answer; a failure is told once, though it is tried again.
    done: Future[None] = attrs.Factory(Future)
    #: Where it was rescued to; None if it was not.
    fallback_file: str | None = None
    #: Whether the thread has it: then it does not change any more.
    is_being_written: bool = False

    @property
    def jobs_to_write(self) -> list[Job]:
        """The jobs that it writes."""
        return [job for job in self.jobs.values() if job is not None]


@attrs.frozen
class PendingView:
    """What is pending at one moment: jobs by key (None: that key is free), and the keys whose row is another's."""

    jobs: dict[str, Job | None]
    previous_keys: frozenset[str]

    @property
    def stale_keys(self) -> set[str]:
        """Every key of which the database does not tell the truth."""
        return {*self.jobs, *self.previous_keys}


class WriteBuffer:
    """A queue of operations, and the latest of each key. Safe to use from any thread, and from a signal handler."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queue: list[WriteOp] = []
        self._failed: list[WriteOp] = []
        self._by_key: dict[str, WriteOp] = {}
        self._by_previous_key: dict[str, WriteOp] = {}
        self._by_setting: dict[str, WriteOp] = {}
        self._with_sample: list[WriteOp] = []
        #: Those that say whose a token is, in order.
        self._with_token: dict[WriteOp, None] = {}

    def add(self, operation: WriteOp) -> None:
        """Queue it; reads see it from now on."""
        with self._lock:
            self._queue.append(operation)
            for key in operation.jobs:
                before = self._by_key.get(key)
                if before is not None and before.jobs[key] is None:
                    del self._by_key[key]  # the key was free: its new job comes last
                self._by_key[key] = operation
            if operation.previous_key is not None:
                self._by_previous_key[operation.previous_key] = operation
            if operation.previous_key is not None or operation.intent is not None:
                self._with_token[operation] = None
            if operation.setting is not None:
                self._by_setting[operation.setting[0]] = operation
            if operation.sample is not None:
                self._with_sample.append(operation)

    def save_later(self, job: Job) -> None:
        """Queue `job`, in the place of what still waits for it."""
        with self._lock:
            waiting = self._by_key.get(job.key)
            if (
                waiting is not None
                and not waiting.is_being_written
                and list(waiting.jobs) == [job.key]
                and waiting.intent is None
            ):
                waiting.jobs[job.key] = job
            else:
                self.add(WriteOp(jobs={job.key: job}))

    def take_all(self) -> list[WriteOp]:
        """All that waits, what was refused before first; it is the caller's to tell what became of it."""
        with self._lock:
            group = self._failed + self._queue
            self._failed, self._queue = [], []
            for operation in group:
                operation.is_being_written = True
            return group

    def on_committed(self, group: list[WriteOp]) -> None:
        """It is in the database."""
        with self._lock:
            for operation in group:
                self._discard(operation)

    def on_commit_failed(self, group: list[WriteOp]) -> None:
        """The database would not have it: an intent is undone, all else is kept and taken again."""
        with self._lock:
            self._failed += [operation for operation in group if operation.intent is None]
            for operation in group:
                if operation.intent is not None:
                    undone = [key for key in operation.jobs if self._by_key.get(key) is operation]
                    self._discard(operation)
                    for key in undone:
                        others = [it for it in self._failed + self._queue if key in it.jobs]
                        if others:
                            self._by_key[key] = others[-1]

    def _discard(self, operation: WriteOp) -> None:
        for key in operation.jobs:
            if self._by_key.get(key) is operation:
                del self._by_key[key]
        if operation.previous_key is not None and self._by_previous_key.get(operation.previous_key) is operation:
            del self._by_previous_key[operation.previous_key]
        self._with_token.pop(operation, None)
        if operation.setting is not None and self._by_setting.get(operation.setting[0]) is operation:
            del self._by_setting[operation.setting[0]]
        if operation.sample is not None:
            self._with_sample.remove(operation)

    def discard_fallback_copies(self) -> None:
        """What was rescued is read from there: let go of it here."""
        with self._lock:
            rescued = [operation for operation in self._failed if operation.fallback_file]
            self._failed = [operation for operation in self._failed if not operation.fallback_file]
            for operation in rescued:
                self._discard(operation)

    @property
    def has_failed_writes(self) -> bool:
        """Whether anything was refused and is still wanted."""
        return bool(self._failed)

    def find_job(self, key: str) -> tuple[bool, Job | None]:
        """Whether `key` is pending, and as what."""
        with self._lock:
            latest = self._by_key.get(key)
            return (False, None) if latest is None else (True, latest.jobs[key])

    def intent(self, key: str) -> Intent | None:
        """The intent that is pending for `key`."""
        with self._lock:
            latest = self._by_key.get(key)
            return None if latest is None else latest.intent

    def token_resolver(self, callback_sha256: str) -> Callable[[str | None], str | None]:
        """What makes of the key that the database has for a token the one that it will have."""
        with self._lock:
            steps = [(it.intent, it.previous_key, next(reversed(it.jobs))) for it in self._with_token]

        def follow(key: str | None) -> str | None:
            for intent, moved, name in steps:
                if intent is not None and intent.callback_sha256 == callback_sha256:
                    key = name
                elif key is not None and key in {moved, name}:
                    key = name if moved else None
            return key

        return follow

    def view(self) -> PendingView:
        """All jobs that are pending, in the order in which their keys came."""
        with self._lock:
            return PendingView(
                {key: it.jobs[key] for key, it in self._by_key.items()}, frozenset(self._by_previous_key)
            )

    def setting(self, name: str) -> Any:
        """The JSON that is pending for a name; None if there is none."""
        with self._lock:
            latest = self._by_setting.get(name)
            return None if latest is None or latest.setting is None else latest.setting[1]

    def samples(self) -> list[DurationSample]:
        """The observations that are pending, oldest first."""
        with self._lock:
            return [it.sample for it in self._with_sample if it.sample is not None]
