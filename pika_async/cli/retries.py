"""Jobs that ended without a video: which of them to pay for again, and why they ended. Sends nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import attrs

from pika_async._planning.repetition import ADOPTED_REASON, is_archived, latest_archived
from pika_async._runtime.admission import may_be_sent
from pika_async._runtime.job_files import needs_download
from pika_async.cli.accounts import account_of, by_missing_account
from pika_async.cli.batch_folder import BatchFolder
from pika_async.cli.doubts import reason_groups, way_out_of_doubt
from pika_async.cli.exits import UsageError
from pika_async.cli.keys import find_keys
from pika_async.cli.words import counted
from pika_async.config.accounts import Account
from pika_async.errors import SubmissionsStopped
from pika_async.jobs import Job, JobStatus

__all__ = [
    "Repetitions", "exception_lines", "failure_lines", "is_archived", "rejection_lines", "select_jobs", "trouble_lines",
]  # fmt: skip

#: Reasons that are listed, the most frequent first.
MAX_LISTED_REASONS: Final = 10
#: Keys that are named behind a reason; `results.jsonl` holds all.
MAX_LISTED_KEYS: Final = 5
#: Words for jobs without a file of other statuses, where the status alone does not say it.
_TROUBLES: Final = {
    JobStatus.TIMED_OUT: "timed out, the task ids are kept",
    JobStatus.SUCCEEDED: "not downloaded",
}
#: The statuses of jobs that can be paid for again by name.
_WITHOUT_VIDEO: Final = (JobStatus.REJECTED, JobStatus.FAILED, JobStatus.CANCELED)


@attrs.frozen
class Repetitions:
    """Jobs that `retry` works on, each in the order of its folder."""

    #: To pay for again.
    again: Sequence[Job]
    #: Repetitions that an earlier `retry` began and did not finish; they go on, and a planned one is sent.
    begun: Sequence[Job] = ()
    #: Repetitions that an earlier `retry` began and that are in doubt: they are not paid for again.
    in_doubt: Sequence[Job] = ()
    #: Adopted jobs of the chosen statuses, whose prompts are not known.
    adopted: Sequence[Job] = ()


def select_jobs(folder: BatchFolder, keys: Sequence[str], statuses: Collection[JobStatus]) -> Repetitions:
    """Return the jobs to pay for again: those of `keys`, and all of `statuses`; and the repetitions begun for such.

    A job whose earlier record was archived by a command that was killed before it planned the new one is the same job.

    :param keys: keys, or beginnings that only one key has.
    :raises UsageError: if a key is not that of a job that ended without a video.
    """
    by_key, download = {job.key: job for job in folder.journal.all()}, folder.options().download
    current = {key: job for key, job in by_key.items() if not is_archived(job)}
    for job in by_key.values():
        key = job.key.rpartition("~")[0]
        if is_archived(job) and key not in current:
            current[key] = attrs.evolve(latest_archived(by_key, key) or job, key=key)
    named = find_keys(keys, current, command="retry")
    begun = [key for key, job in current.items() if _is_begun(job, by_key, download=download)]
    for key in named:
        if key not in begun:
            _require_without_video(current[key], folder)
    chosen = {key: job for key, job in current.items() if key in named or job.status in statuses}
    return Repetitions(
        again=[job for key, job in chosen.items() if key not in begun and not job.is_adopted],
        begun=[current[key] for key in begun if key in named or _earlier(current[key], by_key) in statuses],
        in_doubt=[
            job
            for job in current.values()
            if job.status is JobStatus.UNKNOWN and job.key in by_key and _earlier(job, by_key) in statuses
        ],
        adopted=[job for job in chosen.values() if job.is_adopted],
    )


def _earlier(job: Job, by_key: Mapping[str, Job]) -> JobStatus | None:
    """Return the status of the job that was archived to make room for `job`; None if there was none."""
    earlier = latest_archived(by_key, job.key)
    return None if earlier is None else earlier.status


def _is_begun(job: Job, by_key: Mapping[str, Job], *, download: bool) -> bool:
    """Return whether `job` is the unfinished repetition of one that ended without a video."""
    is_unfinished = (download and needs_download(job)) or not (job.is_final or job.status is JobStatus.UNKNOWN)
    return is_unfinished and job.key in by_key and _earlier(job, by_key) in _WITHOUT_VIDEO


def _require_without_video(job: Job, folder: BatchFolder) -> None:
    if job.status is JobStatus.UNKNOWN:
        reason = f"is in doubt and may be charged already; {way_out_of_doubt(folder, job)}"
        raise UsageError(f"retry: {job.key} {reason}; nothing was sent")
    if job.is_adopted:
        raise UsageError(f"retry: {job.key} cannot be paid for again: {ADOPTED_REASON}; nothing was sent")
    if job.status not in _WITHOUT_VIDEO:
        reason = f"is {job.status.label}; give keys of jobs that ended without a video"
        raise UsageError(f"retry: {job.key} {reason}; nothing was sent")


def exception_lines(chosen: Repetitions, folder: BatchFolder, accounts: Sequence[Account]) -> Iterator[str]:
    """Yield which jobs `retry` leaves out, and which it pays for at another account than before, with the reasons.

    :param accounts: those of the command; none where it has no file of accounts.
    """
    for job in chosen.adopted:
        yield f"job {job.key} is left out: {ADOPTED_REASON}"
    for job in chosen.in_doubt:
        way_out = way_out_of_doubt(folder, job)
        yield f"job {job.key} is left out: it was sent again already, and is in doubt; {way_out}"
    if not accounts:
        return
    for job in chosen.begun:
        if not may_be_sent(job) and account_of(accounts, job) is None:
            place = f"{job.account or job.provider} ({job.provider} at {job.base_url})"
            yield f"job {job.key} is left out: it was sent again already, and waits for the account {place}"
    for (name, provider, url), keys in by_missing_account(accounts, chosen.again).items():
        were = "was" if len(keys) == 1 else "were"
        yield (
            f"{counted(len(keys), 'job')} {were} sent to the account {name} ({provider} at {url}), which is missing; "
            f"another one is paid: {', '.join(keys[:MAX_LISTED_KEYS])}"
            f"{f' and {len(keys) - MAX_LISTED_KEYS} more' if len(keys) > MAX_LISTED_KEYS else ''}"
        )


def rejection_lines(folder: BatchFolder, jobs: Sequence[Job]) -> Iterator[str]:
    """Yield how many of `jobs` were rejected, the reasons, and the command that sends them again."""
    rejected = [job for job in jobs if job.status is JobStatus.REJECTED and not is_archived(job)]
    if rejected:
        yield f"rejected, not charged: {len(rejected)}"
        yield from _reasons(rejected)
        yield f"to send them again once the cause is mended: {folder.command('retry', '--rejected')}"


def failure_lines(folder: BatchFolder, jobs: Sequence[Job]) -> Iterator[str]:
    """Yield how many of `jobs` failed, the reasons, and the command that pays for them again."""
    failed = [job for job in jobs if job.status is JobStatus.FAILED and not is_archived(job)]
    if failed:
        yield f"failed at the provider: {len(failed)}"
        yield from _reasons(failed)
    if any(not job.is_adopted for job in failed):
        yield f"to pay for them again, with other seeds: {folder.command('retry', '--failed', '--new-seed')}"


def trouble_lines(jobs: Sequence[Job]) -> Iterator[str]:
    """Yield how many other jobs have no file, and why: they timed out, were canceled, or are not downloaded."""
    said = (JobStatus.UNKNOWN, JobStatus.REJECTED, JobStatus.FAILED)
    for status in JobStatus:
        matching = [job for job in jobs if job.status is status and job.error and status not in said]
        matching = [job for job in matching if not isinstance(job.error, SubmissionsStopped)]
        if matching:
            yield f"{_TROUBLES.get(status, status.label)}: {len(matching)}"
            yield from _reasons(matching)


def _reasons(jobs: Sequence[Job]) -> Iterator[str]:
    groups = reason_groups(jobs)
    for reason, alike in groups[:MAX_LISTED_REASONS]:
        more = f" and {len(alike) - MAX_LISTED_KEYS} more" if len(alike) > MAX_LISTED_KEYS else ""
        yield f"  {len(alike)} x {reason}: {', '.join(job.key for job in alike[:MAX_LISTED_KEYS])}{more}"
    if len(groups) > MAX_LISTED_REASONS:
        yield f"  ... and {counted(len(groups) - MAX_LISTED_REASONS, 'more reason')}"
