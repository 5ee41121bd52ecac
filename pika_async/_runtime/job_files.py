"""Jobs by what callers have of them, and whether their results are still to be downloaded. Downloads nothing."""

from __future__ import annotations

from pika_async._journal.protocol import Journal
from pika_async.errors import UnknownJob
from pika_async.jobs import Job, JobStatus

__all__ = ["find_job", "key_of", "needs_download"]


def key_of(job: Job | str) -> str:
    """Return the key of a job that was given as itself or by its key."""
    return job.key if isinstance(job, Job) else job


def find_job(journal: Journal, job: Job | str) -> Job:
    """Return a job that was given as itself or by its key.

    :raises UnknownJob: if no job has that key.
    """
    found = job if isinstance(job, Job) else journal.get(job)
    if found is None:
        raise UnknownJob(value=job)
    return found


def needs_download(job: Job) -> bool:
    """Whether *job* succeeded and its result was not downloaded, or its file no longer exists.

    A store is not asked: an object that its journal has counts as there.
    """
    has_file = job.file is not None and job.file.exists()
    return job.status is JobStatus.SUCCEEDED and not has_file and job.object_url is None
