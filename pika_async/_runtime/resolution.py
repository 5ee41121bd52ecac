"""What a person says of a job: what became of a doubt, or that it is to be paid for once more. Sends nothing."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import anyio
import attrs

from pika_async._journal.protocol import Journal
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.telemetry import NullTelemetry
from pika_async.errors import InvalidRequest
from pika_async.jobs import Job, apply_resolution, archive_key, mark_interrupted, mark_superseded
from pika_async.logs import log_job

__all__ = ["recover_interrupted", "resolve", "resubmit"]

_log = logging.getLogger("pika_async.resolution")


async def recover_interrupted(journal: Journal, telemetry: NullTelemetry | None = None) -> None:
    """What an earlier owner was about to send, and nothing was kept of what became of that, is in doubt.

    :raises JournalFailed: if that could not be kept.
    """
    doubts = [mark_interrupted(job, intent.at) for job, intent in journal.interrupted_jobs()]
    if doubts:
        await journal.save(*doubts)
    for job in doubts:
        log_job(_log, logging.WARNING, job, "in doubt: an earlier process ended before its answer was kept")
        if telemetry is not None:
            telemetry.submission_finished(job)


def _known(journal: Journal, key: str) -> Job:
    job = journal.get(key)
    if job is None:
        raise InvalidRequest(field="key", value=key, reason="is no job that is known here")
    return job


async def resolve(journal: Journal, key: str, *, task_id: str | None, charged: bool | None, abandon: bool) -> Job:
    """See `PikaClient.resolve`."""
    known = _known(journal, key)
    job = apply_resolution(known, time.time(), task_id=task_id, charged=charged, abandon=abandon)
    holder = None if job.task_id is None else journal.key_for_task(job.provider, job.base_url, job.task_id)
    if holder is not None:
        raise InvalidRequest(field="task_id", value=task_id, reason=f"is job {holder}'s; look it up at the provider")
    await journal.save(job)
    log_job(_log, logging.INFO, job, "no longer in doubt: %s", job.status.value)
    return job


async def resubmit(table: JobTable, key: str) -> Job:
    """See `PikaClient.pay_again`."""
    journal = table.journal
    job = _known(journal, key)
    if key in table.jobs or job.is_in_flight:
        raise InvalidRequest(field="key", value=key, reason="is under way; wait for it, it is not paid again")
    job = mark_superseded(job, time.time())
    if job.file is None:
        return await journal.archive(job)
    new = job.file.with_name(f"{archive_key(key, journal.keys())}{job.file.suffix}")
    linked = await anyio.to_thread.run_sync(_put_aside, job.file, new)
    archived = await journal.archive(attrs.evolve(job, file=new))
    if linked:
        await anyio.Path(job.file).unlink(missing_ok=True)
    else:
        await anyio.to_thread.run_sync(os.replace, job.file, new)
    return archived


def _put_aside(old: Path, new: Path) -> bool:
    """Give the file its other name too: a crash leaves it under both. False where there are no hard links.

    :raises InvalidRequest: if another file has that name.
    """
    try:
        new.hardlink_to(old)
    except FileNotFoundError:
        pass  # it is gone, and not missed
    except FileExistsError:
        if not new.samefile(old):
            reason = f"cannot be moved aside: {new} is there already; remove one of them"
            raise InvalidRequest(field="file", value=str(old), reason=reason) from None
    except OSError:
        return False
    return True
