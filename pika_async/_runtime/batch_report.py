"""Report of a batch that is run to its end. Starts nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing
from fractions import Fraction

from pika_async._journal.packed import PackedList
from pika_async._planning.money import exact
from pika_async._runtime.admission import BatchAdmission
from pika_async._runtime.batch import BatchRun
from pika_async._runtime.pacing import paced
from pika_async.errors import ClientClosed, SubmissionsStopped
from pika_async.jobs import BatchReport, Job, JobStatus

__all__ = ["collect_report"]


async def collect_report(batch: BatchRun, admission: BatchAdmission) -> BatchReport:
    """Consume the results of `batch`, close it, and return its jobs by position, with the unsent ones after a stop.

    :raises ClientClosed: if the client is closed meanwhile.
    :raises InvalidRequest: after the last job, if an item is not a request, or two share a key and differ.
    """
    started_at = time.monotonic()
    finished = _FinishedJobs()
    stopped = None
    try:
        async with aclosing(batch.results()) as results:
            async for job in results:
                finished.add(job)
    except ClientClosed:
        raise  # the rest of the requests was not read, so the report would be incomplete
    except SubmissionsStopped as error:
        stopped = error
    finally:
        await batch.aclose()
    positions: list[int] = []
    counts: Counter[JobStatus] = Counter()
    async for key in paced(batch.keys):
        positions.append(finished.positions[key])
        counts[finished.statuses[positions[-1]]] += 1
    jobs = finished.jobs.select(positions)
    if stopped is not None:
        async for request in paced(batch.rest):
            job = await admission.unsent_job(request, len(jobs), stopped)
            jobs.append(job)
            counts[job.status] += 1
    ok = set(counts) <= {JobStatus.SUCCEEDED} and not finished.not_downloaded
    costs = {
        account: float(sum(map(exact, costs), Fraction())) for account, costs in finished.costs_at(positions).items()
    }
    seconds = time.monotonic() - started_at
    return BatchReport(jobs=jobs, counts=counts, seconds=seconds, ok=ok, costs=costs, stopped=stopped)


class _FinishedJobs:
    """The finished jobs of a batch in the order in which they came, the latest of each key by position."""

    def __init__(self) -> None:
        self.jobs = PackedList[Job]()
        self.statuses: list[JobStatus] = []
        self.positions: dict[str, int] = {}
        #: The keys of the jobs that succeeded with an error: without a file, though one was wanted.
        self.not_downloaded: set[str] = set()
        #: Account and cost of the charged jobs of which the cost is known, by position.
        self._costs: dict[int, tuple[str, float]] = {}

    def add(self, job: Job) -> None:
        self.positions[job.key] = len(self.jobs)
        account, cost = job.account_and_cost
        if cost is not None and job.may_be_charged:
            self._costs[len(self.jobs)] = account, cost
        self.jobs.append(job)
        self.statuses.append(job.status)
        if job.error is None:
            self.not_downloaded.discard(job.key)
        elif job.status is JobStatus.SUCCEEDED:
            self.not_downloaded.add(job.key)

    def costs_at(self, positions: Iterable[int]) -> dict[str, list[float]]:
        """Return the known costs of the jobs at these positions, by account."""
        found: dict[str, list[float]] = {}
        for account, cost in (self._costs[at] for at in positions if at in self._costs):
            found.setdefault(account, []).append(cost)
        return found
