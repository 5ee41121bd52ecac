"""The interface of a journal. The order of its calls is what makes a payment provable.

`record_intent` returns before a submission is sent; `save` returns before the answer is shown to anything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import attrs

from pika_async.errors import SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.polling.durations import DurationSample

__all__ = ["MAX_CHANGES", "MAX_STATES", "Intent", "JobState", "Journal", "SubmissionHeldError", "Upload"]

#: Changes returned by one call of `changes`, at most; it bounds what a reader of changes holds in memory.
MAX_CHANGES: Final = 64
#: States of changed jobs that are read at once, at most.
MAX_STATES: Final = 1_000


@attrs.frozen
class JobState:
    """State of a job, without its request and its outcome."""

    key: str
    status: JobStatus
    #: When its latest submission was accepted; None before.
    submitted_at: datetime | None


@attrs.frozen(kw_only=True)
class Intent:
    """A submission that is about to be sent.

    Hashes are SHA-256 in 64 hex digits. The callback token itself is never stored.
    """

    #: When it is sent.
    at: datetime
    #: The hash of its body.
    body_sha256: str
    #: The hash of the token in its callback address; None if it asks for no callback.
    callback_sha256: str | None = None
    #: The submission as text, if the provider recognises it when it is sent again as it was; else None. Kept while the
    #: job is being sent or in doubt.
    repeatable: str | None = None


@attrs.frozen(kw_only=True)
class Upload:
    """The address of a content that was uploaded."""

    #: The hash of the content, in 64 hex digits.
    sha256: str
    url: str
    #: When the upload began.
    at: datetime


class SubmissionHeldError(Exception):
    """A submission that must not be sent now, because of what other processes send at the same accounts.

    :param seconds: after which it may be tried again, above 0.
    :param reason: why.
    :param stop: the stop of the account that follows from it; None if it only has to wait.
    """

    def __init__(self, seconds: float, reason: str, stop: SubmissionsStopped | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds
        self.reason = reason
        self.stop = stop


class Journal(Protocol):
    """Store of jobs by key, of settings by name, and of duration samples.

    Reads are not awaited, so that no other task runs between a read and what follows from it. Every read sees every
    write whose call has begun.
    """

    #: The file; None if there is none.
    path: Path | None

    @property
    def revision(self) -> int:
        """The number of the latest committed change; 0 if there is none.

        Changes are numbered in the order of their commits, over the life of the journal. A new job is a change, and so
        is another status, progress or error of a job. Of a final job only another status is a change: neither its file
        nor another key.
        """

    async def changes(self, after: int) -> list[tuple[int, Job]]:
        """Wait for a change with a number above `after`; return the next changed jobs, each with its latest number.

        At most `MAX_CHANGES` jobs are returned, in the order of their numbers and as they are committed at that moment.
        A reader that passes the last number it got misses no job, but of several changes of one job it may get only the
        latest. An empty list means that the journal is closed and has no more changes. While a reader waits, jobs that
        were passed to `save_later` are written soon.
        """

    async def open(self) -> None:
        """Make the journal ready to be written.

        :raises JournalInUse: if another client has it open.
        :raises JournalUnusable: if the file is not a journal, is damaged, is of a newer version, or cannot be opened.
        """

    async def close(self) -> None:
        """Write everything that is pending and release the file; reads still work afterwards."""

    async def record_intent(self, job: Job, intent: Intent) -> None:
        """Save that `job` is about to be sent.

        :raises JournalFailed: if it could not be saved; then the job must not be sent.
        :raises SubmissionHeldError: if it must not be sent now, for what other processes send; nothing is saved.
        """

    async def save(self, *jobs: Job, linger: bool = False) -> None:
        """Save all of `jobs` or none; once this returns, they survive a crash and a power cut.

        :param linger: whether the write may wait up to 0.08 s for others that share its commit: for facts that a crash
            before the commit only makes the next process learn again, such as a result.
        :raises JournalFailed: if they could not be saved. They are written to the fallback file where possible, and
            reads still return them.
        """

    def save_later(self, job: Job) -> None:
        """Save a later state of a saved `job` within 5 s, unless `save` gets one that is later still.

        For facts that a crash may lose because they are learned again, such as its progress.
        """

    def retain(self, keys: Container[str]) -> None:
        """Forget no job whose key is in `keys` at that moment, whatever the journal forgets otherwise.

        A journal in memory forgets the oldest settled jobs beyond its bound; a file forgets none.
        """

    def add_sample(self, sample: DurationSample) -> None:
        """Save `sample` together with the next write."""

    async def archive(self, job: Job) -> Job:
        """Free the key of `job`: save it under a new key made from the old one, which no request can have.

        :raises JournalFailed: if it could not be saved.
        """

    async def set_setting(self, name: str, value: Any) -> None:
        """Save a JSON value under `name`.

        :raises JournalFailed: if it could not be saved.
        """

    def reading(self) -> AbstractContextManager[None]:
        """Return a context for many reads of a journal that may not be open, which are slow one by one.

        The journal may be opened and closed meanwhile.

        :raises JournalUnusable: on entering, if the file is not a sound journal.
        """

    def get_setting(self, name: str) -> Any:
        """Return the value saved under `name`; None if there is none."""

    async def save_upload(self, upload: Upload) -> None:
        """Save an address; it replaces an earlier one of the same content.

        :raises JournalFailed: if it could not be saved.
        """

    def get_upload(self, sha256: str) -> Upload | None:
        """Return the latest address of the content with that hash; None if there is none."""

    def get(self, key: str) -> Job | None:
        """Return the job with that key."""

    def key_for_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        """Return the key of the job that has this task id at that gateway."""

    async def find_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        """Return the key of the job that has this task id at that gateway, also one that another process has."""

    def key_for_token(self, callback_sha256: str) -> str | None:
        """Return the key of the job, archived or not, whose latest submission carried the token with that SHA-256."""

    def __contains__(self, key: object) -> bool:
        """Whether a job has that key."""

    def keys(self) -> Iterator[str]:
        """Iterate over the keys of all jobs, in the order in which they were first saved."""

    def all(self, *statuses: JobStatus) -> Iterator[Job]:
        """Iterate over all jobs, or those with one of `statuses`, in the order in which they were first saved.

        Jobs are read while they are iterated, each as it is then; one step takes the same time in any journal. Between
        two steps jobs may change: one that gets or loses its status meanwhile may be missing.
        """

    def intent(self, key: str) -> Intent | None:
        """Return the latest intent of the job with that key, which is being sent or in doubt; None if there is none."""

    def interrupted_jobs(self) -> list[tuple[Job, Intent]]:
        """Return the jobs with a saved intent for whose submission no result was saved."""

    def count(self, status: JobStatus) -> int:
        """Return the number of jobs with `status`."""

    def unfinished_by_account(self) -> Counter[str]:
        """Return the number of jobs that were sent and are not final, by account, those in doubt included."""

    def charges(self) -> int:
        """Return the number of submissions that were accepted, or may have been."""

    def costs(self) -> Counter[tuple[str, float | None]]:
        """Return the number of submissions that were accepted, or may have been, by account and cost.

        A cost is None where neither a price nor the provider's own figure is known.
        """

    def samples(self) -> list[DurationSample]:
        """Return the 256 most recently accepted samples of each stratum, in the order of acceptance.

        Selecting by the time of settling would be biased: of many tasks that began together, the slow ones settle last.
        """
