"""Cancellation of one job: withdrawn before it is sent, else asked of its gateway. Settles no job that was sent."""

from __future__ import annotations

import time
from typing import Final

import attrs

from pika_async._planning.actions import ActiveJob
from pika_async._runtime.gateway import GatewayClient
from pika_async._runtime.job_table import JobTable, now
from pika_async.errors import ExchangeFailed, InvalidRequest, JobCanceled, TaskNotFound
from pika_async.jobs import Job, JobStatus
from pika_async.providers._abilities import CancelOutcome

__all__ = ["cancel_sent", "cancel_unsent"]

#: Statuses of a job that has no answer yet.
_UNANSWERED: Final = frozenset({JobStatus.PLANNED, JobStatus.SUBMITTING})


async def cancel_unsent(table: JobTable, job: Job) -> Job:
    """Cancel a job that was not sent, and return it; any other one is returned as it is.

    A job that is being sent is waited for: only its answer shows what it is.

    :raises JournalFailed: if the job could not be saved.
    """
    active = table.jobs.get(job.key)
    if active is not None:
        if active.job.status is JobStatus.PLANNED and table.planner.remove_unsent(active):
            await table.cancel([active])
        elif active.job.status is JobStatus.PLANNED:  # its file is being read or uploaded
            table.canceled.add(active)
        await table.wait_for(lambda: table.jobs.get(job.key) is not active or active.job.status not in _UNANSWERED)
        return active.job
    found = table.journal.get(job.key) or job
    if found.status is not JobStatus.PLANNED:
        return found
    found = found.canceled(JobCanceled(key=found.key, provider=found.provider), time.time())
    await table.save(found)
    return found


async def cancel_sent(table: JobTable, gateway: GatewayClient, job: Job) -> Job:
    """Ask the gateway to cancel the task of a job, which is polled at once; return the job as it is known then.

    :raises InvalidRequest: if the job is in doubt, or the gateway cannot cancel it.
    :raises TaskNotFound: if the gateway denies the task.
    :raises ExchangeFailed: if no usable answer came.
    """
    if job.task_id is None:
        reason = f"must have a task id, and is {job.status.label}; resolve it first"
        raise InvalidRequest(field="job", value=job.key, reason=reason)
    outcome = await gateway.free.cancel(job.task_id, job.handle)
    if outcome is CancelOutcome.MISSING:
        reason = "it is not there to cancel"
        raise TaskNotFound(key=job.key, provider=job.provider, task_id=job.task_id, reason=reason)
    if outcome is CancelOutcome.REFUSED:
        reason = f"must be left to end: {job.provider} refused to cancel it"
        raise InvalidRequest(field="job", value=job.key, reason=reason)
    if outcome is CancelOutcome.UNCLEAR:
        reason = "no usable answer to the cancellation came; cancel it again"
        raise ExchangeFailed(provider=job.provider, reason=reason)
    active = table.jobs.get(job.key)
    if active is None:
        return table.journal.get(job.key) or job
    _poll_soon(table, active)
    return active.job


def _poll_soon(table: JobTable, active: ActiveJob) -> None:
    # Nothing is learned from a task that does not end by itself, nor of callbacks from this poll.
    active.rare = attrs.evolve(active.rare, resumed=True)
    table.planner.account_of(active).on_callback(active, now())
    table.wake()
