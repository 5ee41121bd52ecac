"""`resolve`: what became of jobs in doubt, given for some or all of them, or asked for one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Final

import attrs
from cyclopts import Parameter

from pika_async.cli.batch import is_unfinished
from pika_async.cli.batch_folder import BatchFolder
from pika_async.cli.cluster_folder import database_jobs
from pika_async.cli.database import DatabaseOption, keys_with, required_folder
from pika_async.cli.doubts import doubt_facts
from pika_async.cli.exits import ExitCode, UsageError
from pika_async.cli.keys import find_keys, unquoted
from pika_async.cli.loop import run_in_loop
from pika_async.cli.options import CommonOptions, UserPath
from pika_async.cli.results import ResultsWriter
from pika_async.cli.results_table import finish_results
from pika_async.cli.status import resolution_text
from pika_async.cli.terminal import Terminal, logging_to
from pika_async.errors import ConfigurationError, InvalidRequest
from pika_async.jobs import Job, JobStatus
from pika_async.providers import find_provider

__all__ = ["resolve"]

#: The question about one job in doubt.
QUESTION: Final = "  [t] accepted, as a task  [n] not charged  [a] abandon  [s] skip  [q] quit:"


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a job in doubt; exactly one is given."""

    task_id: str | None = None
    not_charged: bool = False
    abandon: bool = False

    @property
    def number_given(self) -> int:
        """Number of outcomes that were given."""
        return [self.task_id is not None, self.not_charged, self.abandon].count(True)


def resolve(
    folder: UserPath | None = None,
    /,
    *keys: str,
    every: Annotated[bool, Parameter(name="--all", negative=())] = False,
    task_id: str | None = None,
    not_charged: Annotated[bool, Parameter(negative=())] = False,
    abandon: Annotated[bool, Parameter(negative=())] = False,
    database: DatabaseOption = DatabaseOption(),  # noqa: B008 - frozen
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Record what became of jobs in doubt, after checking at the provider. Sends nothing.

    Example: `pika-async resolve clips 00017 --not-charged`

    Without keys and options it shows each doubt on the terminal and asks.

    :param folder: The --out folder of a batch; left out with --database.
    :param keys: Keys of jobs in doubt, or beginnings that only one of them has.
    :param every: All jobs in doubt.
    :param task_id: The submission was accepted, as this task; for one job.
    :param not_charged: The submissions were not accepted: they may be sent again.
    :param abandon: Abandon the jobs, whether they were accepted or not.
    """
    terminal = Terminal()
    outcome = Outcome(task_id=task_id, not_charged=not_charged, abandon=abandon)
    with logging_to(terminal, common.log_level):
        batch_folder: BatchFolder
        if database.database is not None:
            batch_folder, keys = database_jobs(database.required("resolve")), keys_with(folder, keys)
        else:
            batch_folder = BatchFolder(required_folder("resolve", folder))
        batch_folder.require_existing()
        is_walk = not (keys or every or outcome.number_given)
        if is_walk and not terminal.can_ask:
            raise UsageError("resolve needs keys or --all and what became of them; it asks only on a terminal")
        if not is_walk:
            _require_one_outcome(keys, outcome, every=every)
        try:
            run_in_loop(batch_folder.open())
            with _keeping_results(batch_folder, terminal) as resolved:
                if is_walk:
                    _walk(batch_folder, terminal, resolved)
                else:
                    chosen = _chosen(batch_folder, keys, every=every)
                    _resolve_all(batch_folder, chosen, outcome, terminal, resolved)
        finally:
            run_in_loop(batch_folder.close())
        download = batch_folder.options().download
        if not batch_folder.is_shared and any(
            is_unfinished(job, download=download) for job in batch_folder.journal.all()
        ):
            terminal.show(f"to continue: {batch_folder.command('resume')}")
        return ExitCode.OK


@contextmanager
def _keeping_results(folder: BatchFolder, terminal: Terminal) -> Iterator[list[Job]]:
    """Yield a list for the jobs that are resolved; then give them their lines in `results.jsonl` and `results.csv`."""
    resolved: list[Job] = []
    try:
        yield resolved
    finally:
        if resolved and folder.has_results:
            try:
                with ResultsWriter(folder.results_file, continues=True) as results:
                    results.replace(resolved)
                    run_in_loop(finish_results(results, folder.table_file, terminal))
            except OSError as error:
                terminal.error(f"{folder.results_file} cannot be written: {error.strerror}")


def _require_one_outcome(keys: Sequence[str], outcome: Outcome, *, every: bool) -> None:
    if outcome.number_given != 1:
        raise UsageError("resolve needs exactly one of --task-id ID, --not-charged, --abandon")
    if not (keys or every):
        raise UsageError("resolve needs keys of jobs in doubt, or --all")
    if keys and every:
        raise UsageError("resolve takes keys or --all, not both")


def _chosen(folder: BatchFolder, keys: Sequence[str], *, every: bool) -> list[Job]:
    """Return the jobs in doubt that are meant.

    :raises UsageError: if a key is not that of one job in doubt.
    """
    in_doubt = {job.key: job for job in folder.journal.all(JobStatus.UNKNOWN)}
    if every:
        return list(in_doubt.values())
    others = [key for key in folder.journal.keys() if key not in in_doubt]  # noqa: SIM118 - a method, not a dict's
    chosen = find_keys(keys, in_doubt, command="resolve", others=others)
    for key in chosen:
        job = folder.journal.get(key)
        if key not in in_doubt and job is not None:
            reason = f"must be in doubt to be resolved, but is {job.status.label}"
            raise UsageError(f"key: {key!r} {reason}; nothing was changed")
    return [in_doubt[key] for key in chosen]


def _resolve_all(
    folder: BatchFolder, jobs: Sequence[Job], outcome: Outcome, terminal: Terminal, resolved: list[Job]
) -> None:
    if outcome.task_id is not None and len(jobs) > 1:
        raise UsageError(f"--task-id is the task of one job, but {len(jobs)} were given; nothing was changed")
    for job in jobs:
        resolved.append(_record(folder, job, outcome))
        terminal.show(resolution_text(resolved[-1]))
    if not jobs:
        terminal.show(f"{folder.title}: no job is in doubt")


def _record(folder: BatchFolder, job: Job, outcome: Outcome) -> Job:
    task_id = None if outcome.task_id is None else unquoted(outcome.task_id)
    charged = False if outcome.not_charged else None
    return run_in_loop(folder.resolve(job.key, task_id=task_id, charged=charged, abandon=outcome.abandon))


# --- one after the other ----------------------------------------------------------------------------------------------


def _walk(folder: BatchFolder, terminal: Terminal, resolved: list[Job]) -> None:
    """Show each job in doubt and ask what became of it. Each answer is saved before the next question."""
    jobs = list(folder.journal.all(JobStatus.UNKNOWN))
    terminal.show(f"{folder.title}: {len(jobs)} in doubt" if jobs else f"{folder.title}: no job is in doubt")
    for number, job in enumerate(jobs, 1):
        for line in _facts(job, f"{number} of {len(jobs)}"):
            terminal.show(line)
        if not _ask_until_answered(partial(_record, folder, job), terminal, resolved):
            return


def _facts(job: Job, position: str) -> Iterator[str]:
    yield f"{position}: job {job.key} at {job.provider}: {job.request.prompt!r}"
    yield from doubt_facts(job)
    try:
        provider = find_provider(job.provider)
    except ConfigurationError:  # of a package that is not installed here
        return
    yield f"  your account, to find the submission: {provider.account_page or job.base_url}"


def _ask_until_answered(record: Callable[[Outcome], Job], terminal: Terminal, resolved: list[Job]) -> bool:
    """Ask about one job until it is resolved or skipped; return False to ask about no further one."""
    while True:
        answer = terminal.ask(QUESTION)
        match (answer or "q").casefold():
            case "q" | "quit":
                return False
            case "s" | "skip":
                return True
            case "t" | "task":
                task_id = terminal.ask("  task id:")
                outcome = Outcome(task_id=task_id or "")
            case "n":
                outcome = Outcome(not_charged=True)
            case "a" | "abandon":
                outcome = Outcome(abandon=True)
            case _:
                continue
        try:
            resolved.append(record(outcome))
            terminal.show(f"  {resolution_text(resolved[-1])}")
        except InvalidRequest as error:
            terminal.error(error.message)
        else:
            return True
