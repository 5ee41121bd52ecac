"""Files of jobs: whether a result is still to be downloaded. Downloads nothing."""

from __future__ import annotations

from pika_async.jobs import Job, JobStatus

__all__ = ["needs_download"]


def needs_download(job: Job) -> bool:
    """Whether *job* succeeded and its file was not downloaded or no longer exists."""
    return job.status is JobStatus.SUCCEEDED and (job.file is None or not job.file.exists())
