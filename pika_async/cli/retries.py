"""Jobs that ended without a video: which of them to pay for again, and why they ended. Sends nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

import attrs

from pika_async.cli.batch_folder import BatchFolder
from pika_async.cli.exits import UsageError
from pika_async.errors import PikaError, SubmissionRejected
from pika_async.jobs import Job, JobStatus

__all__ = ["is_archived", "rejection_lines", "select_jobs"]

#: Reasons of rejections that are listed, the most frequent first.
MAX_LISTED_REASONS: Final = 5
#: The statuses of jobs that can be paid for again by name.
_WITHOUT_VIDEO: Final = (JobStatus.REJECTED, JobStatus.FAILED, JobStatus.CANCELED)


def is_archived(job: Job) -> bool:
    """Return whether `job` is kept as history: another job has its place."""
    return "~" in job.key


def select_jobs(jobs: Iterable[Job], keys: Collection[str], statuses: Collection[JobStatus]) -> list[Job]:
    """Return the jobs to pay for again, in their order: those of `keys`, and all of `statuses`.

    A job whose earlier record was archived by a command that was killed before it planned the new one is the same job.

    :raises UsageError: if a key is not that of a job that ended without a video.
    """
    by_key: dict[str, Job] = {}
    for job in jobs:
        if not is_archived(job):
            by_key[job.key] = job
    for job in jobs:
        key = job.key.rpartition("~")[0]
        if is_archived(job) and key not in by_key:
            by_key[key] = attrs.evolve(job, key=key)
    for key in keys:
        status = by_key[key].status if key in by_key else None
        if status not in _WITHOUT_VIDEO:
            problem = "is not the key of a job in this folder" if status is None else f"is {status.replace('_', ' ')}"
            raise UsageError(f"retry: {key} {problem}; give keys of jobs that ended without a video; nothing was sent")
    return [job for key, job in by_key.items() if key in keys or job.status in statuses]


def rejection_lines(folder: BatchFolder, jobs: Sequence[Job]) -> Iterator[str]:
    """Yield how many of `jobs` were rejected, the reasons, and the command that sends them again."""
    rejected = [job for job in jobs if job.status is JobStatus.REJECTED and not is_archived(job)]
    if not rejected:
        return
    yield f"rejected, not charged: {len(rejected)}"
    reasons = Counter(_reason(job.error) for job in rejected).most_common()
    for reason, count in reasons[:MAX_LISTED_REASONS]:
        yield f"  {count} x {reason}"
    if len(reasons) > MAX_LISTED_REASONS:
        yield f"  ... and {len(reasons) - MAX_LISTED_REASONS} more reasons"
    yield f"to send them again once the cause is mended: {folder.command('retry', '--rejected')}"


def _reason(error: PikaError | None) -> str:
    if isinstance(error, SubmissionRejected):
        return f"HTTP {error.http_status}: {error.reason}" if error.http_status else error.reason
    return "" if error is None else error.message
