"""Report of a batch that is run to its end. Starts nothing."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import aclosing

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
    finished: dict[str, Job] = {}
    stopped = None
    try:
        async with aclosing(batch.results()) as results:
            async for job in results:
                finished[job.key] = job
    except ClientClosed:
        raise  # the rest of the requests was not read, so the report would be incomplete
    except SubmissionsStopped as error:
        stopped = error
    finally:
        await batch.aclose()
    jobs: list[Job] = []
    counts: Counter[JobStatus] = Counter()
    async for key in paced(batch.keys):
        jobs.append(finished[key])
        counts[finished[key].status] += 1
    if stopped is not None:
        async for request in paced(batch.rest):
            jobs.append(await admission.unsent_job(request, len(jobs), stopped))
            counts[jobs[-1].status] += 1
    return BatchReport(jobs=jobs, counts=counts, seconds=time.monotonic() - started_at, stopped=stopped)
