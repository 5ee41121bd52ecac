"""The commands that work in a batch's folder: run it, go on with it, see how it stands, settle its doubts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from pika_async._runtime.resolution import recover_interrupted
from pika_async._runtime.resolution import resolve as resolve_job
from pika_async.cli.batch import summarize
from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.callback_options import CallbackListener, CallbackOptions
from pika_async.cli.exits import ExitCode, UsageError
from pika_async.cli.loop import run_in_loop
from pika_async.cli.options import (
    AmbiguousMode,
    CommonOptions,
    CredentialOptions,
    JsonFlag,
    ProviderOptions,
    WholeNumber,
    create_client,
)
from pika_async.cli.polling import show_polling
from pika_async.cli.requests import InputRequest, assign_keys, check_rows, read_input
from pika_async.cli.runner import BatchRunner, ProviderRun, resume_runs
from pika_async.cli.status import show_resolved, show_status
from pika_async.cli.terminal import Terminal, logging_to
from pika_async.jobs import Job
from pika_async.providers import find_provider

__all__ = ["batch", "resolve", "resume", "status"]


def batch(
    input: Annotated[str, Parameter(allow_leading_hyphen=True)],  # noqa: A002 - the name in the help
    /,
    *,
    account: ProviderOptions,
    out: Path = Path("pika-out"),
    max_in_flight: WholeNumber | None = None,
    max_charges: WholeNumber | None = None,
    deadline: float | None = None,
    expected_seconds: float | None = None,
    download: Annotated[bool, Parameter(negative="--no-download")] = True,
    again: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    ambiguous: AmbiguousMode = "strict",
    callbacks: CallbackOptions = CallbackOptions(),  # noqa: B008 - frozen
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Generate every request of a file, many at once; DIR/results.jsonl gets a line for each as it ends.

    Everything is checked before anything is sent. The same command again goes on where the first one ended, however
    it ended: rows are known by their key, else by their content, and none that is known is paid for again. Exit code
    0: all succeeded; 1: some did not; 2: usage or input error, nothing sent; 3: the account is stopped; 130:
    interrupted.

    Parameters
    ----------
    input
        A .jsonl file (an object a line, fields as in GenerationRequest), a .csv file (a header with those fields;
        camera.pan or camera as pan=left;zoom=in; ingredients with | between them; an empty cell is not given), a .txt
        file (a prompt a line; blank lines and lines that begin with # are left out), or - for standard input (JSON
        lines if the first line begins with {, else text).
    out
        The folder for journal.db, results.jsonl, index.html and videos/KEY.mp4.
    max_in_flight
        How many generations may run at once; else as many as the account takes, at most 10,000.
    max_charges
        Never have more submissions accepted than this, of all the commands that ever ran in DIR; later ones hold to it
        until another number is said.
    deadline
        Seconds from a job's acceptance to its end; 1800 unless given.
    expected_seconds
        How long a generation is thought to take.
    download
        Fetch the videos.
    again
        Pay for the job of this key once more, each time that it is said; give it once for each. The earlier one stays
        known as KEY~1.
    ambiguous
        lenient sends again after a bare 503, which most gateways mean by it but none documents; strict leaves the job
        in doubt.
    json
        Print the lines of results.jsonl on standard output, and nothing else there.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        planned = check_rows(*read_input(input), find_provider(account.provider))
        folder = BatchFolder(out)
        run_in_loop(folder.recover())
        limit = folder.options().max_charges if max_charges is None else max_charges
        terms = BatchOptions(
            max_in_flight=max_in_flight, max_charges=limit, deadline=deadline, expected_seconds=expected_seconds,
            download=download, ambiguous=ambiguous, callbacks=callbacks.callbacks, listen=callbacks.listen,
        )  # fmt: skip
        listening = CallbackListener.from_options(terms)
        receiver = None if listening is None else listening.receiver
        client = create_client(account, journal=folder.journal, options=terms, callbacks=receiver)

        def keyed() -> list[InputRequest]:
            named = assign_keys(planned, folder.journal, again)
            if unknown := set(again) - {one.key for one in named}:
                raise UsageError(f"--again: {min(unknown)} is the key of no row of this input; nothing was sent")
            return named

        folder.create([one.key for one in keyed()] if folder.is_new and download else [])
        work = BatchRunner(folder, terms, terminal, quiet=json, listener=listening)
        ending, page = run_in_loop(
            work.run([ProviderRun(client, keyed, again)], title=f"{account.provider}: {out.absolute().name}")
        )
        for line in summarize(ending, folder, page):
            terminal.show(line, to_error=json or ending.code is not ExitCode.OK)
        return ending.code


def resume(
    folder: Path,
    /,
    *,
    credentials: CredentialOptions = CredentialOptions(),  # noqa: B008 - frozen
    max_in_flight: WholeNumber | None = None,
    max_charges: WholeNumber | None = None,
    deadline: float | None = None,
    expected_seconds: float | None = None,
    download: Annotated[bool | None, Parameter(negative="--no-download")] = None,
    ambiguous: AmbiguousMode | None = None,
    callbacks: CallbackOptions = CallbackOptions(),  # noqa: B008 - frozen
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Go on with every job of a batch's folder: send what was not sent, follow what was accepted, fetch what is ready.

    Each job is asked for at the provider and the address that accepted it. Jobs in doubt stay so: see status. What was
    said to the batch (its limits and the like) holds unless it is said anew. Exit codes are those of batch.

    Parameters
    ----------
    folder
        The --out folder of a batch.
    max_in_flight
        How many generations may run at once.
    max_charges
        Never have more submissions accepted than this, of all the commands that ever ran in the folder.
    deadline
        Seconds from now, or from a job's acceptance, to its end.
    expected_seconds
        How long a generation is thought to take.
    download
        Fetch the videos.
    ambiguous
        lenient sends again after a bare 503; strict leaves the job in doubt.
    json
        Print the lines of results.jsonl on standard output, and nothing else there.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        place = BatchFolder(folder)
        place.require_existing()
        run_in_loop(place.recover())
        said: dict[str, Any] = {
            "max_in_flight": max_in_flight, "max_charges": max_charges, "deadline": deadline,
            "expected_seconds": expected_seconds, "download": download, "ambiguous": ambiguous,
            "callbacks": callbacks.callbacks, "listen": callbacks.listen,
        }  # fmt: skip
        terms = attrs.evolve(place.options(), **{name: value for name, value in said.items() if value is not None})
        listening = CallbackListener.from_options(terms)
        steps, done = resume_runs(place, credentials, terms, listening)
        if not any(step.client.provider.takes_callback for step in steps):
            if steps and callbacks.callbacks is not None:
                raise UsageError(f"--callbacks: {steps[0].client.provider.title} calls nobody back; leave it out")
            listening = None
        work = BatchRunner(place, terms, terminal, quiet=json, listener=listening)
        ending, page = run_in_loop(work.run(steps, title=folder.absolute().name, done=done))
        for line in summarize(ending, place, page):
            terminal.show(line, to_error=json or ending.code is not ExitCode.OK)
        return ending.code


def status(
    folder: Path,
    /,
    *,
    polling: Annotated[bool, Parameter(negative=())] = False,
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Show where every job of a batch's folder stands, those in doubt with the commands that settle each.

    It may be asked while the batch runs.

    Parameters
    ----------
    folder
        The --out folder of a batch.
    polling
        Show instead what was learned of how long jobs take, when a command that starts now would look, and why.
    json
        Print a line of JSON for each job, as in results.jsonl; with --polling, for each kind of job.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        show = show_polling if polling else show_status
        return show(BatchFolder(folder), terminal, as_json=json)


def resolve(
    folder: Path,
    key: str,
    /,
    *,
    task_id: str | None = None,
    not_charged: Annotated[bool, Parameter(negative=())] = False,
    abandon: Annotated[bool, Parameter(negative=())] = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Say what became of a job in doubt, after you have looked it up at the provider. Sends nothing.

    Parameters
    ----------
    folder
        The --out folder of a batch.
    key
        The job's key.
    task_id
        It was accepted, as this task.
    not_charged
        It was not accepted: it may be sent again.
    abandon
        Give it up, whatever became of it.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        place = BatchFolder(folder)
        place.require_existing()

        async def settle() -> Job:
            await place.journal.open()
            try:
                await recover_interrupted(place.journal)
                charged = False if not_charged else None
                return await resolve_job(place.journal, key, task_id=task_id, charged=charged, abandon=abandon)
            finally:
                await place.journal.close()

        if [task_id is not None, not_charged, abandon].count(True) != 1:
            raise UsageError("resolve needs exactly one of --task-id ID, --not-charged, --abandon")
        show_resolved(place, run_in_loop(settle()), terminal)
        return ExitCode.OK
