"""`fetch`: tasks that were submitted elsewhere, followed by their bare ids to their ends. Submits nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from pika_async._http.media import MEDIA_SUFFIXES
from pika_async._planning.adoption import checked_task_id, key_of_task
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
            return _fetch_into_folder(ids, account, BatchFolder(out), options, terminal, as_json=json)
        if out is not None:
            if len(ids) > 1:
                raise UsageError(f"--out: {out} must be a folder for {len(ids)} tasks; nothing was fetched")
            check_target(out)
        client = create_client(account, options=options)
        return run_in_loop(_fetch_each(client, ids, account, out, terminal, as_json=json))


def _is_folder(out: Path) -> bool:
    return out.is_dir() or (not out.exists() and out.suffix.lower() not in MEDIA_SUFFIXES)


# --- into a file, or nowhere -----------------------------------------------------------------------------------------


async def _fetch_each(
    client: PikaClient,
    ids: Sequence[str],
    account: ProviderOptions,
    out: Path | None,
    terminal: Terminal,
    *,
    as_json: bool,
) -> ExitCode:
    """Adopt every task, then wait for each and print or save its result, in the order of `ids`."""

    async def work() -> ExitCode:
        async with client:
            jobs, errors = await _adopt_all(client, ids, terminal)
            codes = [ExitCode.INCOMPLETE] * len(errors)
            for adopted in jobs:
                job = await client.wait(adopted)
                if out is not None and job.status is JobStatus.SUCCEEDED:
                    job = await save_video(client, job, out, terminal)
                codes.append(report(job, terminal, as_json=as_json))
                if job.status is JobStatus.TIMED_OUT:
                    terminal.note(f"to follow it again: {fetch_command(job, out, account)}")
            return max(codes)

    try:
        return await interruptible(work(), lambda: terminal.note("stopping: the tasks continue at the provider"))
    except Interrupted:
        jobs = [
            adopted_job(key_of_task(one, ()), provider=client.provider.name, base_url=client.base_url, task_id=one)
            for one in ids
        ]
        commands = "\n".join(f"to follow it again: {fetch_command(job, out, account)}" for job in jobs)
        raise Interrupted(f"interrupted: nothing is lost\n{commands}") from None


async def _adopt_all(client: PikaClient, ids: Sequence[str], terminal: Terminal) -> tuple[list[Job], list[PikaError]]:
    """Return the jobs of the tasks that were found, and the errors of the others, which are printed.

    :raises UsageError: if none was found.
    """
    jobs, errors = list[Job](), list[PikaError]()
    for one in ids:
        try:
            jobs.append(await client.adopt(one))
        except TASK_ERRORS as error:
            errors.append(error)
            if len(ids) > 1:
                terminal.error(error.message)
    if errors and not jobs:
        if all(isinstance(error, TaskNotFound) for error in errors):
            raise UsageError(errors[0].message if len(ids) == 1 else f"none of {len(ids)} tasks was found")
        raise errors[0]
    for job in jobs:
        terminal.note(f"task {job.task_id} at {job.provider} is {job.status.label}")
    return jobs, errors


# --- into a folder ---------------------------------------------------------------------------------------------------


def _fetch_into_folder(
    ids: Sequence[str], account: ProviderOptions, folder: BatchFolder, given: BatchOptions, terminal: Terminal, *,
    as_json: bool,
) -> ExitCode:  # fmt: skip
    """Adopt the tasks in the journal of `folder`, and run them there as `resume` would."""
    is_new = folder.is_new
    run_in_loop(folder.recover())
    options = given if is_new else folder.options()
    changed = {name: value for name in ("deadline", "expected_seconds") if (value := getattr(given, name)) is not None}
    options = attrs.evolve(options, **changed)
    unpaid = attrs.evolve(options, price=None, budget=None)  # the folder may have accounts with prices
    client = create_client(account, journal=folder.journal, options=unpaid)
    folder.create([key_of_task(one, ()) for one in ids] if is_new else [])
    errors: list[PikaError] = []

    async def load_inputs() -> list[InputRequest]:
        jobs, missing = await _adopt_all(client, ids, terminal)
        errors.extend(missing)
        return [InputRequest(evolve_unchecked(job.request, key=job.key), job.index, "journal.db") for job in jobs]

    runner = BatchRunner(folder, options, terminal, quiet=as_json)
    title = f"{account.provider}: {strip_control(folder.root.absolute().name)}"
    outcome, page = run_in_loop(runner.run([ProviderRun(client, load_inputs)], title=title))
    code = _code(outcome, errors)
    for line in summarize(outcome, folder, page):
        terminal.show(line, to_error=as_json or code is not ExitCode.OK)
    return code


def _code(outcome: BatchOutcome, errors: Sequence[PikaError]) -> ExitCode:
    return ExitCode.INCOMPLETE if errors and outcome.code is ExitCode.OK else outcome.code
