"""Views of the jobs in a journal, read while they are iterated. Changes nothing."""

from __future__ import annotations

import abc
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from typing import Any, Final

from pika_async._journal.packed import PackedList
from pika_async._journal.protocol import Journal
from pika_async._runtime.job_files import needs_download
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.pacing import Pace, paced
from pika_async._runtime.request_source import Source
from pika_async.config.client import ClientConfig
from pika_async.errors import strip_control
from pika_async.jobs import FINAL, Job, JobStatus
from pika_async.models import evolve_unchecked
from pika_async.polling.policy import PollingPolicy

__all__ = ["JobListing", "JobViews", "unfinished_requests"]

_log = logging.getLogger("pika_async.journal_views")

UNFINISHED: Final = tuple(status for status in JobStatus if status not in FINAL)


class JobListing:
    """Jobs of a journal in the order in which they were planned; see `PikaClient.jobs`.

    `async for` reads one job after the other. `await` returns all of them, each decoded when it is accessed.

    :param journal: holds the jobs.
    :param table: knows polls that the journal does not have yet; None while the client is not open.
    :param status: only jobs of this status; None: all.
    """

    def __init__(self, journal: Journal, table: JobTable | None, status: JobStatus | None) -> None:
        self._journal = journal
        self._table = table
        self._statuses = () if status is None else (status,)

    def __aiter__(self) -> AsyncIterator[Job]:
        return self._iterate()

    def __await__(self) -> Generator[Any, Any, Sequence[Job]]:
        return self._collect().__await__()

    async def _iterate(self) -> AsyncGenerator[Job, None]:
        async for job in paced(self._journal.all(*self._statuses)):
            yield job if self._table is None else self._table.with_pending_polls(job)

    async def _collect(self) -> Sequence[Job]:
        jobs = PackedList[Job]()
        async for job in self:
            jobs.append(job)
        return jobs


class JobViews(abc.ABC):
    """The views of a client on its jobs, while it is open and while it is not."""

    _config: ClientConfig
    _journal: Journal

    @property
    def polling(self) -> PollingPolicy:
        """The polling policy; see `PollingPolicy.describe`."""
        return self._config.policy

    @property
    @abc.abstractmethod
    def _table(self) -> JobTable | None:
        """The active jobs; None while the client is not open."""

    async def job(self, key: str) -> Job | None:
        """Return the job of this key as it is now, also one of an earlier process with the same journal, else None."""
        job = self._journal.get(key)
        return job if job is None or self._table is None else self._table.with_pending_polls(job)

    def jobs(self, status: JobStatus | str | None = None) -> JobListing:
        """Return the jobs of this client in the order in which they were planned, for `async for` or `await`.

        `async for job in pika.jobs()` reads the journal while it iterates, each job as it is then, and lets other tasks
        run between jobs. `await pika.jobs()` returns a sequence of all, which takes about 1 KiB of memory for each job
        and decodes a job each time it is accessed.

        :param status: only jobs of this status; default: all.
        :raises ValueError: if there is no such status.
        """
        return JobListing(self._journal, self._table, None if status is None else JobStatus(status))

    def active_jobs(self) -> list[Job]:
        """Return the jobs that are not finished: queued, being sent, or accepted and not settled."""
        table = self._table
        return [] if table is None else [table.with_pending_polls(active.job) for active in list(table.jobs.values())]


async def unfinished_requests(config: ClientConfig, *, with_downloads: bool) -> Source:
    """Yield the requests of the jobs that are not final now, each read when it is asked for.

    Jobs of accounts that the client does not have are left out, unless they are planned and another account may be
    chosen for them: one that has no account yet, and each one for a client of several.

    :param config: the client.
    :param with_downloads: whether jobs that succeeded without a file are included.
    """
    statuses = (*UNFINISHED, JobStatus.SUCCEEDED) if with_downloads else UNFINISHED
    journal = config.journal
    keys: dict[str, None] = {}
    left_out: Counter[tuple[str, str]] = Counter()
    async for job in paced(journal.all(*statuses)):
        if job.is_final and not needs_download(job):
            continue
        is_free = job.status is JobStatus.PLANNED and (job.account is None or len(config.accounts) > 1)
        if is_free or config.account_of(job) is not None:
            keys[job.key] = None
        else:
            left_out[job.account or job.provider, job.base_url] += 1
    for (account, base_url), jobs in left_out.items():
        text = "%d jobs are left as they are: this client does not have their account %s at %s; give it to follow them"
        _log.info(text, jobs, strip_control(account), strip_control(base_url))
    pace = Pace()
    for key in keys:
        await pace.step()
        current = journal.get(key)
        if current is not None:
            yield evolve_unchecked(current.request, key=key)
