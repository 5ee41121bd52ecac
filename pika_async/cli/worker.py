"""`worker` and `workers`: drive the jobs of a database that many processes share, and show who does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import attrs
from cyclopts import Parameter, validators
from rich.live import Live

from pika_async._planning.limits import Limits
from pika_async._runtime.results import is_url
from pika_async.cli.accounts import OneJobAccountOptions, choose_accounts, read_accounts
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.callback_options import CallbackListener, CallbackOptions
from pika_async.cli.database import DatabaseOption, open_cluster, start_command
from pika_async.cli.exits import ExitCode, Interrupted, UsageError
from pika_async.cli.loop import run_in_loop
from pika_async.cli.options import CommonOptions, Integer, JsonFlag, PositiveInteger, ProviderOptions
from pika_async.cli.options import create_client as check_options
from pika_async.cli.paths import expand_home
from pika_async.cli.preview import MoneyOptions
from pika_async.cli.progress import is_line_due
from pika_async.cli.results import json_line
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal, logging_to, plain, table
from pika_async.cli.uploaders import load_uploader
from pika_async.cli.words import counted
from pika_async.config.accounts import Account, Routing
from pika_async.errors import PikaError

if TYPE_CHECKING:
    from pika_async.engines.cluster import Cluster
    from pika_async.engines.cluster_stats import ClusterStats, ClusterWorker
    from pika_async.engines.worker import Worker

__all__ = ["lease_words", "only_account", "worker", "workers"]

#: Seconds between two updates of the line, and between two readings of the whole cluster for it.
_LINE_S: Final = 1.0
_STATS_S: Final = 5.0
LeaseSeconds = Annotated[float, Parameter(validator=validators.Number(gte=2.0))]


def worker(
    *,
    database: DatabaseOption = DatabaseOption(),  # noqa: B008 - frozen
    account: ProviderOptions = ProviderOptions(),  # noqa: B008 - frozen
    several: OneJobAccountOptions = OneJobAccountOptions(),  # noqa: B008 - frozen
    lease_ttl: LeaseSeconds = 30.0,
    max_jobs: PositiveInteger = 5000,
    download_to: str | None = None,
    max_in_flight: Integer | None = None,
    max_charges: Integer | None = None,
    deadline: float | None = None,
    expected_seconds: float | None = None,
    callbacks: CallbackOptions = CallbackOptions(),  # noqa: B008 - frozen
    money: MoneyOptions = MoneyOptions(),  # noqa: B008 - frozen
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Drive the jobs of a database until Ctrl-C, beside any number of other workers on other machines.

    Example: `pika-async worker --database postgresql://pika@db/pika --accounts accounts.toml --download-to /mnt/videos`

    It submits, polls and downloads what `batch --database` and `Cluster.submit_many` queue. The keys of the accounts
    are read here, and are never in the database. The bounds of accounts and those given here hold over all workers
    together: give each worker the same. Ctrl-C and SIGTERM hand its jobs over to the others at once. --callbacks is the
    same for all workers too: whichever receives one, the worker that has the job polls at once.

    Exit codes: 0 it was stopped, 1 its lease has ended, so that others have its jobs: start it again, 2 usage error.

    :param lease_ttl: Seconds after which other workers take its jobs over if it dies or loses the database, at least 2.
    :param max_jobs: Most jobs that a worker has at once. The latest worker to start sets it for all of them.
    :param download_to: Folder for KEY.mp4, which every machine reaches under the same path, or s3://BUCKET/PREFIX.
        [default: no downloads]
    :param max_in_flight: Most generations at once, of all workers together. [default: as many as the accounts take]
    :param max_charges: Most accepted submissions of all workers together, over the life of the database. [default: no
        limit]
    :param deadline: Seconds from a job's acceptance to its end. [default: 1800]
    :param expected_seconds: Expected duration of a generation in seconds. [default: 60]
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        url = database.required("worker")
        options = BatchOptions(
            max_in_flight=max_in_flight, max_charges=max_charges, deadline=deadline, expected_seconds=expected_seconds,
            callbacks=callbacks.callbacks, listen=callbacks.listen,
        )  # fmt: skip
        options = choose_accounts(
            money.applied_to(options), account, several.accounts, routing=several.routing, price=money.price
        )
        accounts = read_accounts(options)
        listener = CallbackListener.from_options(options)
        receiver = None if listener is None else listener.receiver
        check_options(account, accounts, options=options, callbacks=receiver)  # every value and key, before all else
        if download_to is not None and not is_url(download_to):
            download_to = str(_made_folder(expand_home(Path(download_to)).absolute()))
        used = accounts or [only_account(account, options)]
        cluster = open_cluster(url, used, **cluster_options(options))
        names = ", ".join(each.name for each in used)
        working = _work(
            cluster, terminal, names, listener, lease_ttl=lease_ttl, max_jobs=max_jobs, download_to=download_to,
            allow_results=account.allow_results, proxy=account.proxy, upload_lifetime=account.upload_lifetime,
            uploader=None if account.uploader is None else load_uploader(account.uploader),
        )  # fmt: skip
        return run_in_loop(working)


def cluster_options(options: BatchOptions) -> dict[str, Any]:
    """Return the arguments of a `Cluster` that the options of a batch give."""
    return {
        "limits": Limits(max_in_flight=options.max_in_flight, max_charges=options.max_charges),
        "routing": Routing(options.routing or "capacity"),
        "polling": options.polling,
        "deadline": options.deadline,
        "budget": options.budget,
    }


def only_account(account: ProviderOptions, options: BatchOptions) -> Account:
    """Return the account of a command without a file of accounts."""
    return Account(account.provider, base_url=account.base_url, api_key_file=account.api_key_file, price=options.price)


def _made_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--download-to: {folder} must be a folder: {error.strerror}; nothing was started") from None
    return folder


async def _work(
    cluster: Cluster, terminal: Terminal, names: str, listener: CallbackListener | None, **options: Any
) -> ExitCode:
    async def work() -> None:
        started: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()

        def on_start(own: Worker) -> None:
            terminal.note(f"worker {own.id} on {cluster.database}, accounts: {names}; Ctrl-C hands its jobs over")
            if listener is not None:
                terminal.note(listener.announcement)
            started.set_result(own)

        async with cluster, _showing(cluster, terminal, started):
            receiver = None if listener is None else listener.receiver
            await cluster.run_worker(**options, callbacks=receiver, on_start=on_start)

    note = "stopping: its jobs are handed over to the other workers (Ctrl-C again exits at once)"
    with contextlib.suppress(Interrupted):
        await interruptible(
            work(), lambda: terminal.note(note), lost="its jobs go to other workers once its lease has expired"
        )
    if listener is not None:
        terminal.note(f"callbacks: {listener.receiver.received or 'none'} received")
    return ExitCode.OK


@asynccontextmanager
async def _showing(cluster: Cluster, terminal: Terminal, started: asyncio.Future[Worker]) -> AsyncIterator[None]:
    """Show what the worker has while the body runs: a live line on a terminal, elsewhere a line now and then."""
    showing = asyncio.get_running_loop().create_task(_show(cluster, terminal, started), name="pika_async worker line")
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait({showing})


async def _show(cluster: Cluster, terminal: Terminal, started: asyncio.Future[Worker]) -> None:
    own = await started
    begun = time.monotonic()
    stats, read_at, printed = None, 0.0, 0.0
    with contextlib.ExitStack() as stack:
        live = None
        if terminal.err.is_terminal:
            live = stack.enter_context(Live(console=terminal.err, auto_refresh=False, transient=True))
        while True:
            elapsed = time.monotonic() - begun
            if stats is None or elapsed - read_at >= _STATS_S:
                with contextlib.suppress(PikaError):  # it is logged where it matters
                    stats = await cluster.stats()
                read_at = elapsed
            line = worker_line(own.running, stats)
            if live is not None:
                live.update(plain(f"{line}; {timedelta(seconds=int(elapsed))} elapsed"), refresh=True)
            elif is_line_due(elapsed, printed):
                printed = elapsed
                terminal.note(line)
            await asyncio.sleep(_LINE_S)


def worker_line(running: int, stats: ClusterStats | None) -> str:
    """Return what a worker has, and what the cluster has, as one line.

    :param running: number of jobs that the worker has.
    :param stats: None while they are not known.
    """
    line = f"{counted(running, 'job')} here"
    if stats is None:
        return line
    alive = sum(one.is_alive for one in stats.workers)
    counts = ", ".join(f"{count} {name}" for name, count in stats.counts.items())
    stopped = [f"{name} is stopped" for name, one in stats.accounts.items() if one.stopped is not None]
    return "; ".join([line, f"{counted(alive, 'worker')}: {counts or 'no jobs'}", *stopped])


def workers(
    *,
    database: DatabaseOption = DatabaseOption(),  # noqa: B008 - frozen
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Show the workers of a database and the jobs that each has.

    Example: `pika-async workers --database postgresql://pika@db/pika`

    :param json: Print a line of JSON for each worker.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        cluster = open_cluster(database.required("workers"))
        found = run_in_loop(_workers(cluster))
        if json:
            for one in found:
                terminal.write(json_line(attrs.asdict(one), ascii_only=True))
            return ExitCode.OK
        if not found:
            terminal.show(f"{cluster.database}: no worker has ever run; start one: {start_command()}")
            return ExitCode.OK
        alive = sum(one.is_alive for one in found)
        terminal.show(f"{cluster.database}: {counted(alive, 'worker')}")
        shown = table("", *_COLUMNS, right=4)
        for one in found:
            shown.add_row(*map(plain, _row(one)))
        terminal.show(shown)
        if not alive:
            terminal.show(f"no worker is running; start one: {start_command()}")
    return ExitCode.OK


_COLUMNS: Final = ("worker", "pid", "version", "lease", "jobs", "age")


def _row(one: ClusterWorker) -> Iterator[str]:
    yield one.id
    yield str(one.pid)
    yield one.version
    yield lease_words(one)
    yield str(one.jobs)
    yield str(timedelta(seconds=int(one.age)))


def lease_words(one: ClusterWorker) -> str:
    """Return until when a lease holds, or why it has ended."""
    if one.expires_in is None:
        return one.ended or "ended"
    if one.expires_in <= 0:
        return f"overdue since {-one.expires_in:.0f} s"
    return f"for {one.expires_in:.0f} s more"


async def _workers(cluster: Cluster) -> list[ClusterWorker]:
    async with cluster:
        return await cluster.workers()
