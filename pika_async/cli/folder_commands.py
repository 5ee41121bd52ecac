"""Commands on the folder of a batch: `batch`, `resume`, `retry` and `status`."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from pika_async.cli.accounts import AccountOptions, read_accounts
from pika_async.cli.batch import BatchOutcome, summarize
from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.board import BoardOptions, board_beside
from pika_async.cli.callback_options import CallbackListener, CallbackOptions
from pika_async.cli.cluster_commands import refuse_worker_options, resume_shared, retry_shared, status_shared
from pika_async.cli.cluster_folder import ClusterFolder
from pika_async.cli.database import DatabaseOption, keys_with, required_folder
from pika_async.cli.exits import ExitCode, UsageError
from pika_async.cli.keys import unquoted
from pika_async.cli.loop import run_in_loop
from pika_async.cli.options import (
    AmbiguousMode,
    CommonOptions,
    CredentialOptions,
    Integer,
    JsonFlag,
    OpenFlag,
    ProviderOptions,
    UserPath,
    create_client,
)
from pika_async.cli.polling import show_polling
from pika_async.cli.preview import MoneyOptions, Offer, SpendOptions, confirm
from pika_async.cli.provider_runs import ProviderRun, RunMaker, offers_of, resume_runs, retry_runs
from pika_async.cli.requests import InputRequest, assign_keys, check_rows, input_notes, read_input
from pika_async.cli.retries import exception_lines, select_jobs
from pika_async.cli.runner import BatchRunner
from pika_async.cli.status import show_status
from pika_async.cli.sweeps import SweepOptions
from pika_async.cli.terminal import Terminal, logging_to
from pika_async.cli.video_options import VideoOptions, check_videos, other_folder
from pika_async.cli.worker import only_account
from pika_async.engines.protocol import BatchClient
from pika_async.jobs import Job, JobStatus
from pika_async.providers import find_provider

__all__ = ["batch", "resume", "retry", "status"]


def batch(
    input: Annotated[str, Parameter(allow_leading_hyphen=True)],  # noqa: A002 - the name in the help
    /,
    *,
    account: ProviderOptions = ProviderOptions(),  # noqa: B008 - frozen
    several: AccountOptions = AccountOptions(),  # noqa: B008 - frozen
    out: UserPath = Path("pika-out"),
    max_in_flight: Integer | None = None,
    max_charges: Integer | None = None,
    deadline: float | None = None,
    expected_seconds: float | None = None,
    download: Annotated[bool, Parameter(negative="--no-download")] = True,
    place: VideoOptions = VideoOptions(),  # noqa: B008 - frozen
    again: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    ambiguous: AmbiguousMode = "strict",
    grace: float | None = None,
    sweep: SweepOptions = SweepOptions(),  # noqa: B008 - frozen
    callbacks: CallbackOptions = CallbackOptions(),  # noqa: B008 - frozen
    spend: SpendOptions = SpendOptions(),  # noqa: B008 - frozen
    live: BoardOptions = BoardOptions(),  # noqa: B008 - frozen
    database: DatabaseOption = DatabaseOption(),  # noqa: B008 - frozen
    open_page: OpenFlag = False,
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    r"""Generate every request of a file, many at once, into a folder with results and videos.

    Example: `pika-async batch prompts.csv --provider cometapi --out clips --max-charges 300`

    The whole input is checked before anything is sent. Run the same command again to continue a batch, however it
    ended: a row is recognized by its key or else by its content, and is not paid for again.

    Exit codes: 0 all succeeded, 1 some did not, 2 usage or input error and nothing sent, 3 stopped because of the
    account, the gateway, or the same refusal for every row, 130 interrupted.

    :param input: .csv, .tsv or .xlsx (the first row names columns: the fields of GenerationRequest; other columns are
        kept as metadata), .jsonl or .json (objects with these fields), .txt (one prompt per line; lines that begin with
        \# are comments), or - for standard input, whose format is recognized.
    :param out: Folder for journal.db, results.jsonl, results.csv, index.html and videos/KEY.mp4.
    :param max_in_flight: Most generations at once. [default: as many as the account takes, at most 10,000]
    :param max_charges: Most accepted submissions, counted over all commands that ever ran in the folder; later commands
        keep the limit unless they give another one. [default: no limit]
    :param deadline: Seconds from a job's acceptance to its end. [default: 1800]
    :param expected_seconds: Expected duration of a generation in seconds. [default: 60]
    :param download: Download the videos.
    :param again: Key of a job to pay for once more; may be given several times. The earlier job is kept as KEY~1.
    :param ambiguous: What to do after a bare 503, which usually but not certainly means "not accepted": lenient sends
        again, strict leaves the job in doubt.
    :param grace: Seconds that Ctrl-C or SIGTERM waits for the receipts of submissions under way; those without one are
        then in doubt. [default: 6]
    :param open_page: Open the gallery in the browser at the end.
    :param json: Print only the lines of results.jsonl on standard output.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        control = live.new_control(terminal)
        again = tuple(map(unquoted, again))
        plan = sweep.plan
        table = read_input(input, plan.template_columns)
        for note in input_notes(table):
            terminal.note(note)
        folder = BatchFolder(out)
        if database.database is not None:
            refuse_worker_options(
                max_in_flight=max_in_flight, max_charges=max_charges, budget=spend.budget, deadline=deadline,
                grace=grace, callbacks=callbacks.callbacks, listen=callbacks.listen, board=live.board is not None,
                quotes=spend.quotes, videos=place.videos,
            )  # fmt: skip
            folder = ClusterFolder(out, database=database.required("batch"))
        if not spend.dry_run:
            run_in_loop(folder.recover())
        elif folder.is_new:
            folder.journal.require_none_due()
        saved = folder.options()
        options = BatchOptions(
            max_in_flight=max_in_flight, max_charges=saved.max_charges if max_charges is None else max_charges,
            deadline=deadline, expected_seconds=expected_seconds, download=download, ambiguous=ambiguous, grace=grace,
            callbacks=callbacks.callbacks, listen=callbacks.listen,
            price=saved.price, budget=saved.budget, accounts=saved.accounts, routing=saved.routing,
            videos=saved.videos,
        )  # fmt: skip
        options = place.applied_to(options)
        options = several.chosen(spend.applied_to(options), account, spend)
        accounts = read_accounts(options)
        providers = [one.provider for one in accounts] or [find_provider(account.provider)]
        inputs = check_rows(table, *providers, plan=plan, can_upload=account.uploader is not None)
        listener = CallbackListener.from_options(options)
        receiver = None if listener is None else listener.receiver
        client: BatchClient
        if isinstance(folder, ClusterFolder):
            options = attrs.evolve(options, download=False)  # which the workers do
            client = folder.connect(accounts or [only_account(account, options)], options, terminal)
            run_in_loop(folder.read([one.request for one in inputs]))
        else:
            client = create_client(account, accounts, journal=folder.journal, options=options, callbacks=receiver)
        kept = attrs.evolve(options, accounts=options.accounts or saved.accounts)

        async def load_inputs() -> list[InputRequest]:
            keyed = await assign_keys(inputs, folder.journal, again)
            if unknown := set(again) - {one.key for one in keyed}:
                raise UsageError(f"--again: {min(unknown)} must be the key of a row of this input; nothing was sent")
            return keyed

        async def estimate_all() -> tuple[list[InputRequest], Offer]:
            with folder.journal.reading():
                keyed = await load_inputs()
                estimated = await client.estimate([one.request for one in keyed], again=again, quotes=spend.asks_prices)
            return keyed, Offer(client=client, estimate=estimated, places=[one.location for one in keyed])

        keyed, offer = run_in_loop(estimate_all())
        new_keys = [one.key for one in keyed] if folder.is_new and download else []
        elsewhere = other_folder(options)
        folder.check(new_keys if options.videos is None or elsewhere is not None else [], elsewhere)
        if (code := confirm([offer], terminal, spend, as_json=json)) is not None:
            return code
        run_in_loop(check_videos(options, new_keys))
        folder.create(new_keys if options.videos is None else [])
        runner = BatchRunner(folder, kept, terminal, quiet=json, listener=listener, control=control)
        title = f"{', '.join(client.accounts)}: {out.absolute().name}"
        return _run_and_summarize(
            runner, [ProviderRun(client, load_inputs, again)], title, live=live, open_page=open_page
        )


def _run_and_summarize(
    runner: BatchRunner,
    runs: Sequence[ProviderRun],
    title: str,
    done: Sequence[Job] = (),
    *,
    live: BoardOptions,
    open_page: bool,
) -> ExitCode:
    """Run `runs` and print the summary, to standard error if it is not that of a success; return the exit code.

    :param live: whether to serve the board meanwhile.
    :param open_page: whether to open the page in the browser then.
    """

    async def run() -> tuple[BatchOutcome, Path | None]:
        async with board_beside(runner.folder, live, runner.terminal, runner.control, runner.options.price):
            return await runner.run(runs, title=title, done=done)

    outcome, page = run_in_loop(run())
    for line in summarize(outcome, runner.folder, page):
        runner.terminal.show(line, to_error=runner.quiet or outcome.code is not ExitCode.OK)
    if open_page and page is not None and not webbrowser.open(page.absolute().as_uri()):
        runner.terminal.note(f"no browser was found; open {page} in one")
    return outcome.code


def resume(
    folder: UserPath | None = None,
    /,
    *,
    credentials: CredentialOptions = CredentialOptions(),  # noqa: B008 - frozen
    several: AccountOptions = AccountOptions(),  # noqa: B008 - frozen
    max_in_flight: Integer | None = None,
    max_charges: Integer | None = None,
    deadline: float | None = None,
    expected_seconds: float | None = None,
    download: Annotated[bool | None, Parameter(negative="--no-download")] = None,
    place: VideoOptions = VideoOptions(),  # noqa: B008 - frozen
    ambiguous: AmbiguousMode | None = None,
    grace: float | None = None,
    callbacks: CallbackOptions = CallbackOptions(),  # noqa: B008 - frozen
    money: MoneyOptions = MoneyOptions(),  # noqa: B008 - frozen
    live: BoardOptions = BoardOptions(),  # noqa: B008 - frozen
    database: DatabaseOption = DatabaseOption(),  # noqa: B008 - frozen
    open_page: OpenFlag = False,
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Continue every unfinished job of a folder: submit, poll and download.

    Example: `pika-async resume clips`

    Each job is polled at the provider and address that accepted it. Jobs in doubt stay in doubt; see `pika-async
    status`. The options of the batch apply unless they are given again. Exit codes are those of batch. With --database
    the jobs that no worker has are queued again for the workers, those too whose result could not be downloaded, and
    the command ends.

    :param folder: The --out folder of a batch, in place of --database.
    :param max_in_flight: Most generations at once.
    :param max_charges: Most accepted submissions, counted over all commands that ever ran in the folder.
    :param deadline: Seconds to a job's end, counted from now or, if that is later, from its acceptance.
    :param expected_seconds: Expected duration of a generation in seconds.
    :param download: Download the videos.
    :param ambiguous: What to do after a bare 503: lenient sends again, strict leaves the job in doubt.
    :param grace: Seconds that Ctrl-C or SIGTERM waits for the receipts of submissions under way; those without one are
        then in doubt.
    :param open_page: Open the gallery in the browser at the end.
    :param json: Print only the lines of results.jsonl on standard output.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        if database.database is not None:
            refuse_worker_options(
                max_in_flight=max_in_flight, max_charges=max_charges, budget=money.budget, deadline=deadline,
                expected_seconds=expected_seconds, grace=grace, callbacks=callbacks.callbacks, listen=callbacks.listen,
                board=live.board is not None,
            )  # fmt: skip
            return resume_shared(database.place("resume", folder), terminal)
        control = live.new_control(terminal)
        batch_folder = BatchFolder(required_folder("resume", folder))
        batch_folder.require_existing()
        run_in_loop(batch_folder.recover())
        given: dict[str, Any] = {
            "max_in_flight": max_in_flight, "max_charges": max_charges, "deadline": deadline,
            "expected_seconds": expected_seconds, "download": download, "ambiguous": ambiguous, "grace": grace,
            "callbacks": callbacks.callbacks, "listen": callbacks.listen,
        }  # fmt: skip
        options = attrs.evolve(
            batch_folder.options(), **{name: value for name, value in given.items() if value is not None}
        )
        options = several.chosen(money.applied_to(place.applied_to(options)), credentials, money)
        listener = CallbackListener.from_options(options)
        maker = RunMaker(
            folder=batch_folder, options=options, credentials=credentials, listener=listener,
            accounts=read_accounts(options),
        )  # fmt: skip
        runs, done = resume_runs(maker)
        if not any(run.takes_callback for run in runs):
            if runs and callbacks.callbacks is not None:
                raise UsageError(
                    f"--callbacks: {runs[0].client.provider.title} sends no callbacks; leave the option out"
                )
            listener = None
        if runs:
            run_in_loop(check_videos(options))
        runner = BatchRunner(batch_folder, options, terminal, quiet=json, listener=listener, control=control)
        return _run_and_summarize(runner, runs, batch_folder.root.absolute().name, done, live=live, open_page=open_page)


def retry(
    folder: UserPath | None = None,
    /,
    *keys: str,
    rejected: Annotated[bool, Parameter(negative=())] = False,
    failed: Annotated[bool, Parameter(negative=())] = False,
    new_seed: Annotated[bool, Parameter(negative=())] = False,
    credentials: CredentialOptions = CredentialOptions(),  # noqa: B008 - frozen
    several: AccountOptions = AccountOptions(),  # noqa: B008 - frozen
    max_charges: Integer | None = None,
    spend: SpendOptions = SpendOptions(),  # noqa: B008 - frozen
    live: BoardOptions = BoardOptions(),  # noqa: B008 - frozen
    database: DatabaseOption = DatabaseOption(),  # noqa: B008 - frozen
    open_page: OpenFlag = False,
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Pay again, on purpose, for jobs of a folder that ended without a video.

    Example: `pika-async retry clips --failed --new-seed`

    A rejected job was not charged; once the cause is mended (balance, model, settings of the account), this sends all
    of them again. A failed one may have been charged. The earlier record is kept as KEY~1. The same command again
    continues what an interrupted one began, and pays for nothing twice. Exit codes as of batch. With --database the
    jobs are queued for the workers, and the command ends.

    :param folder: The --out folder of a batch; left out with --database.
    :param keys: Keys of jobs, or beginnings that only one key has, besides those that the options choose.
    :param rejected: Send every rejected job again.
    :param failed: Send every failed job again.
    :param new_seed: Give each of them another seed, which is recorded.
    :param max_charges: Most accepted submissions, counted over all commands that ever ran in the folder.
    :param open_page: Open the gallery in the browser at the end.
    :param json: Print only the lines of results.jsonl on standard output.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        control = live.new_control(terminal)
        if database.database is not None:
            keys = keys_with(folder, keys)
        else:
            batch_folder = BatchFolder(required_folder("retry", folder))
            batch_folder.require_existing()
        chosen_statuses = {JobStatus.REJECTED: rejected, JobStatus.FAILED: failed}
        statuses = {status for status, is_chosen in chosen_statuses.items() if is_chosen}
        if not keys and not statuses:
            raise UsageError("retry needs --rejected, --failed or keys; nothing was sent")
        if database.database is not None:
            refuse_worker_options(max_charges=max_charges, budget=spend.budget, board=live.board is not None)
            options = several.chosen(spend.applied_to(BatchOptions()), credentials, spend)
            return retry_shared(
                database.required("retry"),
                keys,
                statuses,
                terminal,
                spend,
                options=options,
                new_seed=new_seed,
                json=json,
            )
        if not spend.dry_run:
            run_in_loop(batch_folder.recover())
        options = several.chosen(spend.applied_to(batch_folder.options()), credentials, spend)
        options = options if max_charges is None else attrs.evolve(options, max_charges=max_charges)
        listener = CallbackListener.from_options(options)
        chosen = select_jobs(batch_folder, keys, statuses)
        maker = RunMaker(
            folder=batch_folder, options=options, credentials=credentials, listener=listener,
            accounts=read_accounts(options),
        )  # fmt: skip
        for line in exception_lines(chosen, batch_folder, maker.accounts):
            terminal.note(line)
        runs, done = retry_runs(maker, chosen, new_seed=new_seed)
        if not any(run.takes_callback for run in runs):
            listener = None
        if not runs:
            terminal.show("0 new charges: no such job is left to pay for again", to_error=not spend.dry_run)
        offers = run_in_loop(offers_of(runs, quotes=spend.asks_prices))
        if (code := confirm(offers, terminal, spend, as_json=json)) is not None:
            return code
        if runs:
            run_in_loop(check_videos(options))
        runner = BatchRunner(batch_folder, options, terminal, quiet=json, listener=listener, control=control)
        return _run_and_summarize(runner, runs, batch_folder.root.absolute().name, done, live=live, open_page=open_page)


def status(
    folder: UserPath | None = None,
    /,
    *,
    database: DatabaseOption = DatabaseOption(),  # noqa: B008 - frozen
    polling: Annotated[bool, Parameter(negative=())] = False,
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Show the jobs of a folder by status, and how to resolve those in doubt.

    Example: `pika-async status clips`

    It also works while a batch runs there.

    :param folder: The --out folder of a batch, in place of --database.
    :param polling: Show instead when a command that starts now would poll, and the durations that it learned from.
    :param json: Print a line of JSON for each job, as in results.jsonl, and with several accounts a last one of their
        sums; with --polling, one for each stratum.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        show = show_polling if polling else show_status
        if database.database is not None:
            return status_shared(database.place("status", folder), terminal, show, as_json=json)
        return show(BatchFolder(required_folder("status", folder)), terminal, as_json=json)
