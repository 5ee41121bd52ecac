"""Jobs in doubt as a person reads of them: how many, by reason, and the commands that resolve them. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from pika_async._planning.repeats import is_within_window
from pika_async.cli.batch_folder import BatchFolder
from pika_async.errors import ConfigurationError, SubmissionInDoubt
from pika_async.jobs import Job, JobStatus
from pika_async.providers import find_provider
from pika_async.report.cards import reason_of

__all__ = [
    "can_be_asked_again", "doubt_details", "doubt_facts", "doubt_lines", "reason_groups", "way_out_of_doubt",
]  # fmt: skip

#: Doubts up to which each is shown with its facts and commands; of more, one of each reason.
MAX_DOUBTS_IN_FULL: Final = 3


def reason_groups(jobs: Iterable[Job]) -> list[tuple[str, list[Job]]]:
    """Return jobs by the reason why they have no video, the largest group first."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault("" if job.error is None else reason_of(job.error), []).append(job)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def doubt_lines(folder: BatchFolder, jobs: Iterable[Job]) -> Iterator[str]:
    """Yield how many of `jobs` are in doubt, the command that lists them, and every reason with all its keys."""
    in_doubt = [job for job in jobs if job.status is JobStatus.UNKNOWN]
    if in_doubt:
        yield f"{_heading(in_doubt)}; to list and resolve them: {folder.command('status')}"
    for reason, alike in reason_groups(in_doubt):
        yield f"  {len(alike)} x {reason}: {_keys(alike)}"


def doubt_details(folder: BatchFolder, jobs: Iterable[Job], interrupted: Sequence[Job] = ()) -> Iterator[str]:
    """Yield how many of `jobs` are in doubt, for each reason the facts and the commands of one, and the other keys.

    Of few doubts, each has its facts and commands.

    :param interrupted: jobs that were being submitted when a command ended; each is shown.
    """
    in_doubt = [job for job in jobs if job.status is JobStatus.UNKNOWN]
    if in_doubt:
        waiting = "; a command running here may still wait for their callbacks"
        yield f"{_heading(in_doubt)}{waiting if folder.options().callbacks is not None else ''}"
    groups = [alike for _, alike in reason_groups(in_doubt)]
    if len(in_doubt) <= MAX_DOUBTS_IN_FULL:
        groups = [[job] for job in in_doubt]
    for job, *others in groups:
        yield from _example(folder, job)
        if others:
            yield f"  {len(others)} more for the same reason: {_keys(others)}"
    if interrupted:
        yield f"{len(interrupted)} being submitted; in doubt unless a command is running here:"
    for job in interrupted:
        yield from _example(folder, job)
    if in_doubt:
        yield f"to be asked about each in turn: {folder.command('resolve')}"


def can_be_asked_again(folder: BatchFolder, job: Job) -> bool:
    """Return whether the gateway of a job in doubt still knows its submission, so that `resume` asks it again, free."""
    intent = folder.journal.intent(job.key) if job.status is JobStatus.UNKNOWN else None
    if intent is None or intent.repeatable is None:
        return False
    try:
        return is_within_window(find_provider(job.provider), intent.at, datetime.now(UTC))
    except ConfigurationError:  # of a package that is not installed here
        return False


def way_out_of_doubt(folder: BatchFolder, job: Job) -> str:
    """Return the command that ends the doubt about a job, after what it does."""
    if can_be_asked_again(folder, job):
        return f"to ask its gateway again, free: {folder.command('resume')}"
    return f"to resolve it: {folder.command('resolve', job.key)}"


def _heading(in_doubt: Sequence[Job]) -> str:
    return f"in doubt, possibly charged: {len(in_doubt)}"


def _keys(jobs: Iterable[Job]) -> str:
    return ", ".join(job.key for job in jobs)


def _example(folder: BatchFolder, job: Job) -> Iterator[str]:
    yield f"in doubt: job {job.key} at {job.provider}: {job.request.prompt!r}"
    yield from doubt_facts(job)
    if can_be_asked_again(folder, job):
        yield f"  ask again, free:     {folder.command('resume')}"
    yield f"  it was accepted:     {folder.command('resolve', job.key, '--task-id', 'ID')}"
    yield f"  it was not charged:  {folder.command('resolve', job.key, '--not-charged')}"
    yield f"  abandon it:          {folder.command('resolve', job.key, '--abandon')}"


def doubt_facts(job: Job) -> Iterator[str]:
    """Yield when a job in doubt was sent, what came back, and the provider's name for the request."""
    error = job.error
    if isinstance(error, SubmissionInDoubt):
        when = "" if error.at is None else f"sent {error.at:%Y-%m-%dT%H:%M:%SZ}, "
        response = "no response" if error.http_status is None else f"response HTTP {error.http_status}"
        request = "" if error.request_id is None else f", request id {error.request_id}"
        yield f"  {when}attempt {error.attempt}; {response}{request}; {error.reason}"
