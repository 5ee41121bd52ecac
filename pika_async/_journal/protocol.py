"""What a client asks of its journal. The order of the calls is what makes a payment provable.

`intend` returns before anything is sent, `keep` returns before anything else sees what came back.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import attrs

from pika_async.jobs import Job, JobStatus
from pika_async.polling.durations import DurationSample

__all__ = ["MAX_CHANGES", "Intent", "Journal"]

#: Changes that are read at once: as much as a reader of changes holds.
MAX_CHANGES: Final = 64


@attrs.frozen(kw_only=True)
class Intent:
    """What is about to be sent, and when: 64 hex digits of the SHA-256 of its body, and of the token in the address at
    which the gateway may tell of it, where it is given one. The token itself is kept nowhere.
    """

    at: datetime
    body_sha256: str
    callback_sha256: str | None = None


class Journal(Protocol):
    """Where jobs are remembered, by key.

    Reading is not awaited: between a look and what follows from it nothing else can happen. Every read sees every
    write whose call has begun.
    """

    #: The file; None if there is none.
    path: Path | None

    @property
    def revision(self) -> int:
        """The number of the latest change that is committed; 0 if there is none.

        Changes are numbered in the order in which they are committed, over the life of the journal. A change is a new
        job, or another status, progress or error of one; of a final job only another status. What becomes of its file
        is none, and so is another key.
        """

    async def changes(self, after: int) -> list[tuple[int, Job]]:
        """Wait for a change behind the number `after`; the next jobs that have changed, each with its latest number.

        At most `CHANGES`, in the order of numbers, each as it is committed at that moment: who reads on behind the last
        number is told of everything, of a job that changed often only the latest. None once the journal is closed and
        has no more. While anybody waits here, what is noted is written soon.
        """

    async def open(self) -> None:
        """Make it ready to be written.

        :raises JournalInUse: if another client has it open.
        :raises JournalUnusable: if it is no journal, is damaged, is from a newer version, or cannot be opened.
        """

    async def close(self) -> None:
        """Write what is left, and let go of it; reading goes on."""

    async def record_intent(self, job: Job, intent: Intent) -> None:
        """Keep that `job` is about to be sent.

        :raises JournalFailed: if it could not be kept: it must not be sent.
        """

    async def save(self, *jobs: Job) -> None:
        """Keep `jobs` as they now stand, all or none; each is there once this returns, also after a power cut.

        :raises JournalFailed: if they could not be kept; they are rescued as well as can be, and still read back.
        """

    def save_later(self, job: Job) -> None:
        """Keep `job` when something else is kept: for what a crash may lose, such as its progress."""

    def add_sample(self, sample: DurationSample) -> None:
        """Keep how long a task took, when something else is kept."""

    async def archive(self, job: Job) -> Job:
        """Give the record `job` another key, which is made from its own and no request can have; its key is free then.

        :raises JournalFailed: if it could not be kept.
        """

    async def set_setting(self, name: str, value: Any) -> None:
        """Keep a value of JSON under a name.

        :raises JournalFailed: if it could not be kept.
        """

    def get_setting(self, name: str) -> Any:
        """The value of that name; None if there is none."""

    def get(self, key: str) -> Job | None:
        """The job of that key."""

    def key_for_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        """The key of the job that has this task id there."""

    def job_for_token(self, callback_sha256: str) -> Job | None:
        """The job whose latest submission carried the token with that SHA-256, as it now stands, archived or not."""

    def keys(self) -> list[str]:
        """The key of every job, in the order in which they were first kept."""

    def all(self, status: JobStatus | None = None) -> Iterator[Job]:
        """Every job, or every one of a status, in the order in which they were first kept."""

    def interrupted_jobs(self) -> list[tuple[Job, Intent]]:
        """The jobs that were about to be sent, and nothing was kept of what became of that."""

    def count(self, status: JobStatus) -> int:
        """How many jobs are of a status."""

    def charges(self) -> int:
        """How many submissions were accepted, or may have been."""

    def samples(self) -> list[DurationSample]:
        """How long tasks took: of each stratum the 256 that were accepted last, in the order of acceptance.

        Not of settling: of many that began at once those that settle last are the slow ones.
        """
