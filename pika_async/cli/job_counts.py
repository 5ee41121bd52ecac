"""Numbers of jobs by progress, and their pace, for the display of a batch. Counts each job that has ended once."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import attrs

from pika_async._runtime.pacing import paced
from pika_async.jobs import Job, JobStatus

__all__ = ["CurrentJobs", "JobCounts", "JobTally", "SettleRate"]

#: Seconds of the recent past that the pace is estimated from.
_PACE_WINDOW_S: Final = 120.0
#: Settled jobs below which there is no pace: the first to end were refused at once.
_MIN_PACE_JOBS: Final = 3
#: Jobs that are counted between two turns of other tasks; they take less than two milliseconds.
_JOBS_AT_ONCE: Final = 5_000


@attrs.frozen(kw_only=True)
class JobCounts:
    """Number of jobs by progress."""

    total: int
    submitted: int = 0
    running: int = 0
    #: Settled or parked.
    finished: int = 0
    downloaded: int = 0
    #: Finished without a video, or with one that could not be downloaded.
    failed: int = 0
    #: In doubt, and finished.
    in_doubt: int = 0
    #: In doubt, while the batch still waits for the callback that may resolve them; not finished.
    awaiting_callback: int = 0
    #: Settled in this run.
    settled_here: int = 0

    @property
    def only_awaits_callbacks(self) -> bool:
        """Whether every unfinished job waits for a callback; the pace then says nothing about the time left."""
        return 0 < self.awaiting_callback >= self.total - self.finished


@attrs.frozen
class CurrentJobs:
    """Jobs that a batch has taken in so far.

    :param ended: those that change no more, in the order in which they ended: the list only grows.
    :param others: the latest state of all others.
    """

    ended: Sequence[Job] = ()
    others: Sequence[Job] = ()

    @property
    def all(self) -> list[Job]:
        """Every job."""
        return [*self.ended, *self.others]


@attrs.define
class JobTally:
    """Counts of the jobs of one batch by progress.

    :param total: number of jobs of the whole batch.
    :param since: when this run began; a job that settled before counts for no pace. None, the default: none does.
    """

    total: int
    since: datetime | None = None
    _ended: Counter[str] = attrs.field(factory=Counter, init=False)
    _seen: int = attrs.field(default=0, init=False)

    async def count(self, jobs: CurrentJobs, awaiting_callback: int = 0) -> JobCounts:
        """Count `jobs`, of those that have ended only the ones since the last call; let other tasks run meanwhile.

        :param jobs: those of the last call, and more.
        :param awaiting_callback: number of jobs in doubt that still wait for a callback and are not finished.
        """
        ended = jobs.ended[self._seen :]
        self._seen += len(ended)
        async for job in paced(ended):
            self._add(self._ended, job)
        counts = self._ended.copy()
        for start in range(0, len(jobs.others), _JOBS_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            self._add_open(counts, jobs.others[start : start + _JOBS_AT_ONCE])
        in_doubt = counts[JobStatus.UNKNOWN.value] - awaiting_callback
        failed = sum(counts[status.value] for status in _FAILED)
        return JobCounts(
            total=self.total,
            submitted=counts["submitted"],
            running=counts[JobStatus.QUEUED.value] + counts[JobStatus.RUNNING.value],
            finished=counts[JobStatus.SUCCEEDED.value] + failed + in_doubt,
            downloaded=counts["downloaded"],
            failed=failed + counts["not downloaded"],
            in_doubt=in_doubt,
            awaiting_callback=awaiting_callback,
            settled_here=counts["settled here"],
        )

    def _add_open(self, counts: Counter[str], jobs: Iterable[Job]) -> None:
        """Add jobs of which most are in flight."""
        in_flight = submitted = 0
        for job in jobs:
            if job.status is JobStatus.RUNNING or job.status is JobStatus.QUEUED:
                in_flight += 1
                submitted += job.submitted_at is not None
            else:
                self._add(counts, job)
        counts[JobStatus.RUNNING.value] += in_flight
        counts["submitted"] += submitted

    def _add(self, counts: Counter[str], job: Job) -> None:
        counts[job.status.value] += 1
        counts["submitted"] += job.submitted_at is not None
        counts["downloaded"] += job.is_downloaded
        counts["not downloaded"] += job.status is JobStatus.SUCCEEDED and job.error is not None
        counts["settled here"] += self.since is not None and job.settled_at is not None and job.settled_at >= self.since


_FAILED: Final = (JobStatus.FAILED, JobStatus.REJECTED, JobStatus.TIMED_OUT, JobStatus.CANCELED)


@attrs.define
class SettleRate:
    """Settled jobs per second over the last two minutes of a run."""

    _seen: deque[tuple[float, int]] = attrs.field(factory=lambda: deque([(0.0, 0)]), init=False)

    def add(self, elapsed: float, settled: int) -> None:
        """Record the number of jobs that have settled in this run.

        :param elapsed: seconds since it began.
        """
        self._seen.append((elapsed, settled))
        while len(self._seen) > 2 and self._seen[1][0] <= elapsed - _PACE_WINDOW_S:
            self._seen.popleft()

    @property
    def per_second(self) -> float:
        """Jobs per second; 0 before `_MIN_PACE_JOBS` have settled in that time."""
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        return (after - before) / (last - first) if after - before >= _MIN_PACE_JOBS else 0.0
