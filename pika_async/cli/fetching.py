"""`fetch`: tasks that were submitted elsewhere, followed by their bare ids to their ends. Submits nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from pika_async._http.media import MEDIA_SUFFIXES
from pika_async._journal.protocol import Journal
from pika_async._planning.adoption import checked_task_id, key_of_task
from pika_async.cli.accounts import NamedAccountOptions, account_named, account_of, choose_accounts, read_accounts
from pika_async.cli.batch import BatchOutcome, summarize
from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.exits import ExitCode, Interrupted, UsageError
from pika_async.cli.fetch_hint import fetch_command
from pika_async.cli.generate import check_target, report, save_video
from pika_async.cli.keys import parse_task_ids
from pika_async.cli.loop import run_in_loop
from pika_async.cli.options import CommonOptions, JsonFlag, ProviderOptions, UserPath, create_client
from pika_async.cli.provider_runs import ProviderRun
from pika_async.cli.requests import InputRequest
from pika_async.cli.runner import BatchRunner
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal, logging_to
from pika_async.client import PikaClient
from pika_async.config.accounts import Account
from pika_async.errors import ExchangeFailed, PikaError, TaskNotFound, strip_control
from pika_async.jobs import Job, JobStatus, adopted_job
from pika_async.models import evolve_unchecked

__all__ = ["fetch"]

#: Errors of one task that do not concern the others.
TASK_ERRORS: Final = (TaskNotFound, ExchangeFailed)


def fetch(
    task_id: str,
    /,
    *more: str,
    account: ProviderOptions = ProviderOptions(),  # noqa: B008 - frozen
    several: NamedAccountOptions = NamedAccountOptions(),  # noqa: B008 - frozen
    out: UserPath | None = None,
    deadline: float | None = None,
    expected_seconds: float | None = None,
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Follow tasks to their ends by their bare ids, and download their videos; costs nothing.

    Example: `pika-async fetch 64d8d683-56c2-533b-c7c8-b78f1faa3438 --provider cometapi --out cat.mp4`

    For tasks that an interrupted command, another program or another machine submitted. The same command again is as
    good as the first. Exit codes: 0 every task succeeded, 1 some did not, 2 usage error, or no task has such an id.

    :param task_id: The provider's id of a task; also the line of `pika-async` that names it.
    :param more: Ids of further tasks.
    :param out: New file for the video of one task, such as cat.mp4; or a folder, new or of a batch, that gets a
        journal, results.jsonl, index.html and videos/ID.mp4. [default: print the URLs]
    :param deadline: Seconds from now to the end of each task. [default: 1800]
    :param expected_seconds: Expected duration of a generation in seconds. [default: 60]
    :param json: Print each job as one line of JSON.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        ids = [checked_task_id(one) for one in parse_task_ids([task_id, *more])]
        options = BatchOptions(deadline=deadline, expected_seconds=expected_seconds)
        if out is not None and _is_folder(out):
            return _fetch_into_folder(
                ids, account, several, BatchFolder(out), given=options, terminal=terminal, as_json=json
            )
        if out is not None:
            if len(ids) > 1:
                raise UsageError(f"--out: {out} must be a folder for {len(ids)} tasks; nothing was fetched")
            check_target(out)
        options = _chosen(options, account, several)
        owners = _owners(ids, read_accounts(options), several.name, options.accounts)
        client = create_client(account, _distinct(owners), options=options)
        task = _Task(client, account, options.accounts, terminal)
        return run_in_loop(_fetch_each(task, ids, owners, out, as_json=json))


def _is_folder(out: Path) -> bool:
    return out.is_dir() or (not out.exists() and out.suffix.lower() not in MEDIA_SUFFIXES)


# --- accounts --------------------------------------------------------------------------------------------------------


def _chosen(options: BatchOptions, account: ProviderOptions, several: NamedAccountOptions) -> BatchOptions:
    """Return `options` with the file of accounts that is used.

    :raises UsageError: if options exclude each other, or an account is named without a file.
    """
    chosen = choose_accounts(options, account, several.accounts)
    if several.name is not None and chosen.accounts is None:
        raise UsageError("--account: must be given with --accounts FILE, which lists it; nothing was fetched")
    return chosen


def _owners(
    ids: Sequence[str],
    accounts: Sequence[Account],
    name: str | None,
    file: str | None,
    journal: Journal | None = None,
) -> dict[str, Account]:
    """Return the account of each task; empty without a file of accounts.

    :param name: the account of the tasks that `journal` does not have; None: the only one of the file.
    :param journal: that of a folder; default None.
    :raises UsageError: if an account is not known, or not in the file.
    """
    owners = {}
    for one in ids if file is not None else ():
        known = None if journal is None else _known_owner(one, accounts, journal)
        owners[one] = known or account_named(accounts, name, file or "")
    return owners


def _known_owner(task_id: str, accounts: Sequence[Account], journal: Journal) -> Account | None:
    """Return the account whose task a job of the journal is; None if there is none, or it is not in the file."""
    for account in accounts:
        key = journal.key_for_task(account.provider.name, account.address, task_id)
        job = None if key is None else journal.get(key)
        if job is not None:
            return account_of(accounts, job)
    return None


def _distinct(owners: Mapping[str, Account]) -> list[Account]:
    """Return each account once: the keys of the others in the file need not be set."""
    return list({account.name: account for account in owners.values()}.values())


# --- into a file, or nowhere -----------------------------------------------------------------------------------------


@attrs.frozen
class _Task:
    """The client of a command, and what the command that follows a task again needs."""

    client: PikaClient
    account: ProviderOptions
    file: str | None
    terminal: Terminal

    def again(self, job: Job, out: Path | None) -> str:
        """Return the line with the command that follows a task again."""
        return f"to follow it again: {fetch_command(job, out, self.account, accounts=self.file)}"


async def _fetch_each(
    task: _Task, ids: Sequence[str], owners: Mapping[str, Account], out: Path | None, *, as_json: bool
) -> ExitCode:
    """Adopt every task, then wait for each and print or save its result, in the order of `ids`."""
    client, terminal = task.client, task.terminal

    async def work() -> ExitCode:
        async with client:
            jobs, errors = await _adopt_all(client, ids, owners, terminal)
            codes = [ExitCode.INCOMPLETE] * len(errors)
            for adopted in jobs:
                job = await client.wait(adopted)
                if out is not None and job.status is JobStatus.SUCCEEDED:
                    job = await save_video(client, job, out, terminal)
                codes.append(report(job, terminal, as_json=as_json))
                if job.status is JobStatus.TIMED_OUT:
                    terminal.note(task.again(job, out))
            return max(codes)

    try:
        return await interruptible(work(), lambda: terminal.note("stopping: the tasks continue at the provider"))
    except Interrupted:
        commands = []
        for one in ids:
            name = owners[one].name if one in owners else None
            provider, url = client.accounts[name or next(iter(client.accounts))]
            job = adopted_job(key_of_task(one, ()), provider=provider.name, base_url=url, task_id=one)
            commands.append(task.again(attrs.evolve(job, account=name), out))
        raise Interrupted("\n".join(["interrupted: nothing is lost", *commands])) from None


async def _adopt_all(
    client: PikaClient, ids: Sequence[str], owners: Mapping[str, Account], terminal: Terminal
) -> tuple[list[Job], list[PikaError]]:
    """Return the jobs of the tasks that were found, and the errors of the others, which are printed.

    :raises UsageError: if none was found.
    """
    jobs, errors = list[Job](), list[PikaError]()
    for one in ids:
        try:
            jobs.append(await client.adopt(one, account=owners[one].name if one in owners else None))
        except TASK_ERRORS as error:
            errors.append(error)
            if len(ids) > 1:
                terminal.error(error.message)
    if errors and not jobs:
        if all(isinstance(error, TaskNotFound) for error in errors):
            raise UsageError(errors[0].message if len(ids) == 1 else f"none of {len(ids)} tasks was found")
        raise errors[0]
    for job in jobs:
        terminal.note(f"task {job.task_id} at {job.account or job.provider} is {job.status.label}")
    return jobs, errors


# --- into a folder ---------------------------------------------------------------------------------------------------


def _fetch_into_folder(
    ids: Sequence[str], account: ProviderOptions, several: NamedAccountOptions, folder: BatchFolder, *,
    given: BatchOptions, terminal: Terminal, as_json: bool,
) -> ExitCode:  # fmt: skip
    """Adopt the tasks in the journal of `folder`, and run them there as `resume` would."""
    is_new = folder.is_new
    run_in_loop(folder.recover())
    changed = {name: value for name in ("deadline", "expected_seconds") if (value := getattr(given, name)) is not None}
    saved = given if is_new else attrs.evolve(folder.options(), **changed)
    options = _chosen(saved, account, several)
    journal = None if is_new else folder.journal
    owners = _owners(ids, read_accounts(options), several.name, options.accounts, journal)
    unpaid = attrs.evolve(options, price=None, budget=None)  # the folder may have accounts with prices
    client = create_client(account, _distinct(owners), journal=folder.journal, options=unpaid)
    folder.create([key_of_task(one, ()) for one in ids] if is_new else [])
    errors: list[PikaError] = []

    async def load_inputs() -> list[InputRequest]:
        jobs, missing = await _adopt_all(client, ids, owners, terminal)
        errors.extend(missing)
        return [InputRequest(evolve_unchecked(job.request, key=job.key), job.index, "journal.db") for job in jobs]

    runner = BatchRunner(folder, options if is_new else saved, terminal, quiet=as_json)
    title = f"{', '.join(client.accounts)}: {strip_control(folder.root.absolute().name)}"
    outcome, page = run_in_loop(runner.run([ProviderRun(client, load_inputs)], title=title))
    code = _code(outcome, errors)
    for line in summarize(outcome, folder, page):
        terminal.show(line, to_error=as_json or code is not ExitCode.OK)
    return code


def _code(outcome: BatchOutcome, errors: Sequence[PikaError]) -> ExitCode:
    return ExitCode.INCOMPLETE if errors and outcome.code is ExitCode.OK else outcome.code
