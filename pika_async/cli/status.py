"""`status`: the jobs of a folder by status, and the commands that resolve those in doubt. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeGuard

from rich.table import Table

from pika_async._planning.resolution import mark_interrupted
from pika_async.cli.account_sums import (
    AccountSum,
    account_records,
    missing_account_lines,
    stop_reasons,
    stopping_answers,
    sums_by_account,
    trial_lines,
)
from pika_async.cli.accounts import read_accounts
from pika_async.cli.batch import has_more_to_do
from pika_async.cli.batch_folder import BatchFolder, starting_text
from pika_async.cli.doubts import doubt_details
from pika_async.cli.exits import ExitCode, UsageError
from pika_async.cli.results import json_line, result_row
from pika_async.cli.retries import failure_lines, is_archived, rejection_lines, trouble_lines
from pika_async.cli.spending import reached_limit_lines
from pika_async.cli.terminal import Terminal, plain, table
from pika_async.cli.words import counted
from pika_async.errors import ClientClosed, NoAccountLeft, PikaError, SubmissionsStopped
from pika_async.jobs import Job, JobStatus

__all__ = ["resolution_text", "show_status"]

#: Jobs with one unknown status word that are listed.
MAX_JOBS_OF_A_WORD: Final = 5


def show_status(folder: BatchFolder, terminal: Terminal, *, as_json: bool) -> ExitCode:
    """Print the number of jobs of `folder` by status, and what to do next.

    :param as_json: print the current line of `results.jsonl` for each job instead, then one of the accounts if the
        folder has several.
    :raises UsageError: if no batch ran there.
    :raises JournalUnusable: if its journal cannot be read.
    """
    if (starting := folder.starting_process()) is not None:
        jobs = []
    else:
        folder.require_existing()
        jobs = list(folder.journal.all())
    if as_json:
        for record in _records(folder, jobs, terminal):
            terminal.write(json_line(record, ascii_only=True))
        return ExitCode.OK
    running = folder.running_process() if starting is None else starting
    if running is not None and not jobs:
        terminal.show(starting_text(folder, running))
        return ExitCode.OK
    shown = _status_table(folder, jobs, terminal)
    terminal.show(shown)
    if (by_account := _account_table(folder, jobs)) is not None:
        terminal.show(by_account)
    for line in _lines(folder, jobs, running):
        terminal.show(line)
    return ExitCode.OK


def _status_table(folder: BatchFolder, jobs: Sequence[Job], terminal: Terminal) -> Table:
    """Return the number of jobs by status; print the title before it if it is an address, wider than the table."""
    current = [job for job in jobs if not is_archived(job)]
    title = f"{folder.title}: {counted(len(current), 'job')}"
    if folder.is_shared:  # an address is wider than the table
        terminal.show(title)
    place = "stored" if any(job.object_url is not None for job in current) else "on disk"
    shown = table("" if folder.is_shared else title, "status", "jobs", place, "points", "refunded", right=1)
    for status in JobStatus:
        if matching := [job for job in current if job.status is status]:
            shown.add_row(*map(plain, _figures(status.label, matching)))
    if len(current) < len(jobs):
        shown.add_row(*map(plain, _figures("paid for again", [job for job in jobs if is_archived(job)])))
    return shown


def _account_table(folder: BatchFolder, jobs: Sequence[Job]) -> Table | None:
    """Return the sums of each account; None where one provider has all jobs."""
    sums = sums_by_account(jobs)
    if not _has_accounts(folder, sums):
        return None
    shown = table("by account", "account", "jobs", "charges", "money", right=2)
    for each in sums:
        shown.add_row(*map(plain, (each.name or "(none yet)", each.words, each.charges, each.money)))
    return shown


def _has_accounts(folder: BatchFolder, sums: Sequence[AccountSum]) -> bool:
    """Return whether a folder has a file of accounts, or jobs of several."""
    return folder.options().accounts is not None or len({each.name for each in sums} - {None}) > 1


def _records(folder: BatchFolder, jobs: Sequence[Job], terminal: Terminal) -> Iterator[dict[str, Any]]:
    """Yield the record of each job, then that of several accounts; print why their file cannot be read."""
    for job in jobs:
        yield result_row(job, folder.root)
    if not jobs or not _has_accounts(folder, sums_by_account(jobs)):
        return
    try:
        accounts = read_accounts(folder.options()) or None
    except UsageError as error:
        terminal.note(error)
        accounts = None
    yield {"accounts": account_records(jobs, accounts)}


def _account_lines(folder: BatchFolder, jobs: Sequence[Job], running: int | None) -> Iterator[str]:
    """Yield which accounts are tried again, and which jobs wait for one that the folder's file lacks.

    If the file cannot be read, that and why.
    """
    try:
        accounts = read_accounts(folder.options())
    except UsageError as error:
        yield f"{error}; to continue with another file: {folder.command('resume', '--accounts', 'FILE')}"
        return
    if running is not None:
        yield from trial_lines(folder, accounts)
    if accounts:
        yield from missing_account_lines(folder, accounts, jobs)


def _figures(name: str, jobs: Sequence[Job]) -> tuple[str, ...]:
    files = sum(job.is_downloaded for job in jobs)
    points = [job.points for job in jobs if job.points is not None]
    refunds = [job.refunded for job in jobs if job.refunded is not None]
    return (
        name,
        str(len(jobs)),
        str(files) if files else "-",
        f"{sum(points):g}" if points else "-",
        f"{sum(refunds):g}" if refunds else "-",
    )


def _lines(folder: BatchFolder, jobs: Sequence[Job], running: int | None) -> Iterator[str]:
    charged = sum(job.may_be_charged for job in jobs)
    limit = folder.options().max_charges
    yield f"charges: {charged} accepted or possibly accepted{f', of {limit} allowed' if limit else ''}"
    answers = stopping_answers(jobs)
    for name, reason in stop_reasons(jobs).items():
        yield f"account {name}{', stopped' if answers.get(name) == reason else ''}: {reason}"
    yield from _account_lines(folder, jobs, running)
    stops = {job.error.message for job in jobs if _is_stop(job.error) and not isinstance(job.error, NoAccountLeft)}
    yield from sorted(stops)
    yield from rejection_lines(folder, jobs)
    yield from failure_lines(folder, jobs)
    sending = [mark_interrupted(job, intent.at) for job, intent in folder.journal.interrupted_jobs()]
    if sending and running is not None:
        yield f"{len(sending)} being submitted now"
    yield from doubt_details(folder, jobs, sending if running is None else ())
    yield from trouble_lines(jobs)
    yield from _unknown_word_lines(jobs)
    beyond_limit = list(reached_limit_lines(jobs, folder))
    yield from beyond_limit
    if running is not None:
        yield f"a command runs here (process {running}): wait for it, or press Ctrl-C there to stop it"
    elif has_more_to_do(jobs, download=folder.options().download, at_limit=bool(beyond_limit)):
        yield f"to continue: {folder.command('resume')}"


def _is_stop(error: PikaError | None) -> TypeGuard[SubmissionsStopped]:
    """Return whether `error` is a stop that a person must know; an interrupt is not one."""
    return isinstance(error, SubmissionsStopped) and not isinstance(error, ClientClosed)


def _unknown_word_lines(jobs: Sequence[Job]) -> Iterator[str]:
    """Yield each unknown status word of unsettled jobs, how many have it, and what was last seen of the first ones."""
    by_word: dict[str, list[Job]] = {}
    for job in jobs:
        if job.is_in_flight and job.last_seen is not None:
            by_word.setdefault(job.last_seen.status, []).append(job)
    for word, matching in by_word.items():
        yield f"{len(matching)} with the unknown status word {word!r}, which counts as running:"
        for job in matching[:MAX_JOBS_OF_A_WORD]:
            yield f"  {job.key} (task {job.task_id}): last seen: {job.last_seen}"
        if len(matching) > MAX_JOBS_OF_A_WORD:
            yield f"  ... and {len(matching) - MAX_JOBS_OF_A_WORD} more"


def resolution_text(job: Job) -> str:
    """Return what a job that was in doubt is now."""
    outcome = {
        JobStatus.QUEUED: f"is accepted as task {job.task_id}",
        JobStatus.PLANNED: "was not charged and will be sent again",
    }.get(job.status, "is abandoned" + ("; it still counts as possibly charged" if job.may_be_charged else ""))
    return f"job {job.key} {outcome}"
