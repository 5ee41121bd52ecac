"""What a person says of a job: what became of a doubt, or that it is to be paid for once more. Sends nothing."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import anyio
import attrs

from pika_async._desk import Desk
from pika_async._journal import Journal
from pika_async.errors import InvalidRequest
from pika_async.lifecycle import Job, archive_key, resolved

__all__ = ["pay_again", "resolve"]


def _known(journal: Journal, key: str) -> Job:
    job = journal.get(key)
    if job is None:
        raise InvalidRequest(field="key", value=key, reason="is no job that is known here")
    return job


async def resolve(journal: Journal, key: str, *, task_id: str | None, charged: bool | None, abandon: bool) -> Job:
    """See `PikaClient.resolve`."""
    known = _known(journal, key)
    job = resolved(known, time.time(), task_id=task_id, charged=charged, abandon=abandon)
    holder = None if job.task_id is None else journal.holder(job.provider, job.base_url, job.task_id)
    if holder is not None:
        raise InvalidRequest(field="task_id", value=task_id, reason=f"is job {holder}'s; look it up at the provider")
    await journal.keep(job)
    return job


async def pay_again(desk: Desk, key: str) -> Job:
    """See `PikaClient.pay_again`."""
    journal = desk.journal
    job = _known(journal, key)
    if key in desk.active or job.is_in_flight:
        raise InvalidRequest(field="key", value=key, reason="is under way; wait for it, it is not paid again")
    if job.file is None:
        return await journal.archive(job)
    # The earlier file makes room for the new one; a crash between leaves it under both names.
    old = anyio.Path(job.file)
    new = Path(job.file).with_name(f"{archive_key(key, journal.keys())}{job.file.suffix}")
    with contextlib.suppress(FileNotFoundError):
        await anyio.to_thread.run_sync(new.hardlink_to, job.file)
    archived = await journal.archive(attrs.evolve(job, file=new))
    await old.unlink(missing_ok=True)
    return archived
