"""One job outside a batch: its submission, and the wait until it is finished. Sends nothing itself."""

from __future__ import annotations

import asyncio

import anyio

from pika_async._planning.keys import single_key
from pika_async._runtime.admission import JobAdmission
from pika_async._runtime.job_table import JobTable
from pika_async.errors import JobCanceled, UnknownJob
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest, evolve_unchecked

__all__ = ["submit_job", "wait_finished"]


async def submit_job(table: JobTable, admission: JobAdmission, request: GenerationRequest) -> Job:
    """Submit `request`; return its job once the job is accepted, in doubt or finished.

    Cancellation withdraws the request if it has not been sent.

    :raises InvalidRequest: if the request cannot be sent as it is, or its key belongs to another content.
    :raises RuntimeError: if the scheduler failed.
    """
    decided: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

    def on_change(job: Job, finished: bool) -> None:
        if not decided.done() and (finished or job.task_id is not None or job.status is JobStatus.UNKNOWN):
            decided.set_result(job)

    key = single_key(request)
    table.intake.allow_submitting()
    try:
        await admission.admit(evolve_unchecked(request, key=key), key, None, on_change)
        job = await decided
    except asyncio.CancelledError:
        table.unsubscribe(key, on_change)
        with anyio.CancelScope(shield=True):
            await table.withdraw(key, JobCanceled(key=key, provider=table.planner.provider))
        raise
    finally:
        table.unsubscribe(key, on_change)
    if job.task_id is None:
        table.intake.require_sound()
    return job


async def wait_finished(table: JobTable, admission: JobAdmission, key: str) -> Job:
    """Wait until the job `key` is settled or parked; a job that timed out gets a new deadline.

    :raises UnknownJob: if the journal has no such job.
    :raises ClientClosed: if the job timed out and the client is closed or is being drained.
    :raises RuntimeError: if the scheduler failed.
    """
    finished_job: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

    def on_change(changed: Job, finished: bool) -> None:
        if finished and not finished_job.done():
            finished_job.set_result(changed)

    if not table.subscribe(key, on_change):
        job = table.journal.get(key)
        if job is None:
            raise UnknownJob(value=key)
        if job.status is not JobStatus.TIMED_OUT and not job.is_in_flight:
            return job
        await admission.adopt(job, on_change)
    try:
        result = await finished_job
    finally:
        table.unsubscribe(key, on_change)
    if not result.is_final:
        table.intake.require_sound()
    return result
