"""Resolution of jobs in doubt, and archiving of jobs whose request is to be paid for again.

Sends nothing.
"""

from __future__ import annotations

import abc
import logging
import os
import random
import time
from pathlib import Path
from typing import Protocol

import anyio
import attrs

from pika_async._journal.protocol import Journal
from pika_async._planning.repetition import ADOPTED_REASON, latest_archived, repetition, with_new_seed
from pika_async._planning.resolution import apply_resolution, archive_key, mark_interrupted, mark_superseded
from pika_async._runtime.job_files import find_job
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.telemetry.null import NullTelemetry
from pika_async.errors import InvalidRequest
from pika_async.jobs import Job
from pika_async.logs import log_job

__all__ = ["JobResolution", "recover_interrupted", "resolve", "resubmit"]

_log = logging.getLogger("pika_async.resolution")


async def recover_interrupted(journal: Journal, telemetry: NullTelemetry | None = None) -> None:
    """Mark submissions that a previous process started but never resolved as in doubt.

    :raises JournalFailed: if the jobs could not be saved.
    """
    interrupted = [mark_interrupted(job, intent.at) for job, intent in journal.interrupted_jobs()]
    if interrupted:
        await journal.save(*interrupted)
    for job in interrupted:
        log_job(_log, logging.WARNING, job, "in doubt: an earlier process ended before it saved the response")
        if telemetry is not None:
            telemetry.submission_finished(job)


async def resolve(journal: Journal, key: str, *, task_id: str | None, charged: bool | None, abandon: bool) -> Job:
    """Resolve a job in doubt, see `PikaClient.resolve`."""
    existing = find_job(journal, key)
    job = apply_resolution(existing, time.time(), task_id=task_id, charged=charged, abandon=abandon)
    holder = None if job.task_id is None else journal.key_for_task(job.provider, job.base_url, job.task_id)
    if holder is not None:
        raise InvalidRequest(
            field="task_id", value=task_id, reason=f"belongs to job {holder}; look up this one's at the provider"
        )
    await journal.save(job)
    log_job(_log, logging.INFO, job, "no longer in doubt: %s", job.status.value)
    return job


async def resubmit(table: JobTable, stored: ObjectArchive, key: str, *, new_seed: bool = False) -> Job:
    """Archive a job under another key, so that a new request may use its key; see `PikaClient.resubmit`."""
    journal = table.journal
    archived = _half_resubmitted(journal, key) if new_seed else None
    if archived is None:
        archived = await _archive(table, stored, find_job(journal, key))
    if new_seed:
        await journal.save(repetition(archived, key, with_new_seed(archived.request, random.random())))
    return archived


def _half_resubmitted(journal: Journal, key: str) -> Job | None:
    """Return the archived job of *key* if a process ended before it planned the repetition; else None."""
    return None if key in journal else latest_archived(journal, key)


async def _archive(table: JobTable, stored: ObjectArchive, job: Job) -> Job:
    """Save *job* under an archive key, and its file or object under a name of that key."""
    journal, key = table.journal, job.key
    if key in table.jobs or job.is_in_flight:
        raise InvalidRequest(field="key", value=key, reason="must be finished before it is paid again; wait for it")
    if job.is_adopted:
        raise InvalidRequest(field="key", value=key, reason=f"cannot be paid again: {ADOPTED_REASON}")
    job = mark_superseded(job, time.time())
    if job.object_url is not None:
        return await stored.archive(job)
    if job.file is None:
        return await journal.archive(job)
    archived_file = job.file.with_name(f"{archive_key(key, journal)}{job.file.suffix}")
    linked = await anyio.to_thread.run_sync(_link_archived, job.file, archived_file)
    archived = await journal.archive(attrs.evolve(job, file=archived_file))
    if linked:
        await anyio.Path(job.file).unlink(missing_ok=True)
    else:
        await anyio.to_thread.run_sync(os.replace, job.file, archived_file)
    return archived


def _link_archived(file: Path, archived: Path) -> bool:
    """Link *file* to its archive name as well, so that it has a name at every moment.

    :return: False if the file system has no hard links.
    :raises InvalidRequest: if another file has the archive name.
    """
    try:
        archived.hardlink_to(file)
    except FileNotFoundError:
        pass  # the file was deleted; there is nothing to archive
    except FileExistsError:
        if not archived.samefile(file):
            reason = f"cannot be moved to {archived}, which exists already; remove one of them"
            raise InvalidRequest(field="file", value=str(file), reason=reason) from None
    except OSError:
        return False
    return True


class ObjectArchive(Protocol):
    """The part of `StoredResults` that archives a job; see there."""

    async def archive(self, job: Job) -> Job: ...


class SessionWithTable(Protocol):
    """The part of `Session` that resolutions use; see there."""

    @property
    def table(self) -> JobTable: ...

    @property
    def stored(self) -> ObjectArchive: ...


class JobResolution(abc.ABC):
    """The ways out of doubt of a client, and paying again on purpose, while it is open."""

    _journal: Journal

    @abc.abstractmethod
    def _require_session(self, *, accepting: bool = False) -> SessionWithTable: ...

    async def resolve(
        self, key: str, *, task_id: str | None = None, charged: bool | None = None, abandon: bool = False
    ) -> Job:
        """Resolve a job in doubt by exactly one of its three outcomes. `resume()` then runs the job.

        :param key: the key of the job.
        :param task_id: its task id, if it was accepted.
        :param charged: False, if it was not accepted: it may be sent again.
        :param abandon: True, to give the job up.
        :raises InvalidRequest: unless exactly one outcome is given, or if the job is not in doubt, or if another job
            has that task id.
        :raises JournalFailed: if it could not be saved.
        """
        table, before = self._require_session().table, find_job(self._journal, key)
        job = await resolve(self._journal, key, task_id=task_id, charged=charged, abandon=abandon)
        table.on_resolved(before, job)
        return job

    async def resubmit(self, key: str, *, new_seed: bool = False) -> Job:
        """Make the next request of this key a new one, which is charged; return the earlier job.

        The earlier job stays in the journal as `KEY~1`, with its task id and its file or object. `submit` with the same
        request, a batch that holds it, or, with a new seed, `resume()` then pays.

        :param key: the key of the job.
        :param new_seed: whether to plan the next request at once, equal but for another seed than the earlier one;
            default: False. `(await pika.job(key)).request` is that request.
        :raises UnknownJob: if there is no such job.
        :raises InvalidRequest: if the job is active or was adopted, or its file or object cannot be moved aside.
        :raises JournalFailed: if it could not be saved.
        """
        session = self._require_session()
        return await resubmit(session.table, session.stored, key, new_seed=new_seed)
