"""`batch`, `resume`, `retry` and `status` on a database that workers share: what differs from those on a folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pika_async.cli.accounts import read_accounts
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.cluster_folder import database_jobs
from pika_async.cli.database import start_command
from pika_async.cli.exits import ExitCode, UsageError
from pika_async.cli.loop import run_in_loop
from pika_async.cli.preview import Offer, SpendOptions, confirm
from pika_async.cli.retries import exception_lines, select_jobs
from pika_async.cli.terminal import Terminal
from pika_async.cli.words import counted
from pika_async.cli.worker import lease_words
from pika_async.config.accounts import Account
from pika_async.jobs import Job, JobStatus
from pika_async.models import evolve_unchecked
from pika_async.providers import find_provider

if TYPE_CHECKING:
    from pika_async.engines.cluster_stats import ClusterStats

__all__ = ["refuse_worker_options", "resume_shared", "retry_shared", "status_shared"]

#: Jobs of which a worker has still to do something are named up to this number.
MAX_WORKERS_SHOWN: Final = 5


def refuse_worker_options(**options: object) -> None:
    """Refuse options of a batch that its workers have instead.

    :param options: the options by name, each None, False or empty unless it was given.
    :raises UsageError: names the first one that was given.
    """
    for name, value in options.items():
        if value:
            raise UsageError(f"--{name.replace('_', '-')}: must be given to the workers, not beside --database here")


def resume_shared(database: str, terminal: Terminal) -> ExitCode:
    """Queue every job again that is not finished and that no worker has."""
    folder = database_jobs(database)

    async def resume() -> tuple[list[str], ClusterStats]:
        async with folder.cluster as cluster:
            return await cluster.resume(), await cluster.stats()

    keys, stats = run_in_loop(resume())
    terminal.show(f"{folder.title}: {counted(len(keys), 'job')} queued again for the workers")
    for line in shared_lines(stats):
        terminal.show(line)
    terminal.show(f"to see how they stand: {folder.command('status')}")
    return ExitCode.OK


def shared_lines(stats: ClusterStats) -> Iterator[str]:
    """Yield which accounts are stopped, and which workers are alive."""
    for name, account in stats.accounts.items():
        if account.stopped is not None:
            yield f"account {name}, stopped: {account.stopped.removeprefix(f'{name}: ')}"
    alive = [worker for worker in stats.workers if worker.is_alive]
    if not alive:
        yield f"no worker is running; start one: {start_command()}"
    for worker in alive[:MAX_WORKERS_SHOWN]:
        yield f"worker {worker.id}: {counted(worker.jobs, 'job')}, lease {lease_words(worker)}"
    if len(alive) > MAX_WORKERS_SHOWN:
        yield f"... and {counted(len(alive) - MAX_WORKERS_SHOWN, 'more worker')}"


def status_shared(database: str, terminal: Terminal, show: Callable[..., ExitCode], *, as_json: bool) -> ExitCode:
    """Show the jobs of a database, what stops its accounts, and its workers.

    :param show: shows the jobs as those of a folder.
    """
    folder = database_jobs(database)

    async def read() -> ClusterStats:
        try:
            await folder.open()
            return await folder.cluster.stats()
        finally:
            await folder.close()

    stats = run_in_loop(read())
    code = show(folder, terminal, as_json=as_json)
    for line in () if as_json else shared_lines(stats):
        terminal.show(line)
    return code


def retry_shared(
    database: str, keys: Sequence[str], statuses: Collection[JobStatus], terminal: Terminal, spend: SpendOptions, *,
    options: BatchOptions, new_seed: bool, json: bool,
) -> ExitCode:  # fmt: skip
    """Preview what paying again for jobs of a database costs, ask, and queue them; see `select_jobs`."""
    folder = database_jobs(database)

    async def read() -> None:
        try:
            await folder.open()
        finally:
            await folder.close()

    run_in_loop(read())
    chosen = select_jobs(folder, keys, statuses)
    for line in exception_lines(chosen, folder, ()):
        terminal.note(line)
    again = [job.key for job in chosen.again]
    if not again and not chosen.begun:
        terminal.show("0 new charges: no such job is left to pay for again", to_error=not spend.dry_run)
        return ExitCode.OK
    accounts = read_accounts(options) or list(_accounts_of([*chosen.again, *chosen.begun]))
    client = folder.connect(accounts, options, terminal)
    client.use(folder.view)
    requests = [evolve_unchecked(job.request, key=job.key) for job in chosen.again]
    estimated = run_in_loop(client.estimate(requests, again=again))
    offer = Offer(client=client, estimate=estimated, places=[f"job {key}" for key in again])
    if (code := confirm([offer] if again else [], terminal, spend, as_json=json)) is not None:
        return code

    async def repeat() -> None:
        async with client:
            for key in again:
                await client.resubmit(key, new_seed=new_seed)
            await client.resume([job.key for job in chosen.begun])

    run_in_loop(repeat())
    if again:
        terminal.show(
            f"{counted(len(again), 'job')} queued for the workers and paid for again; each earlier one is KEY~1"
        )
    if chosen.begun:
        terminal.show(f"{counted(len(chosen.begun), 'job')} of an earlier retry left to the workers")
    terminal.show(f"to see how they stand: {folder.command('status')}")
    return ExitCode.OK


def _accounts_of(jobs: Sequence[Job]) -> Iterator[Account]:
    """Yield the accounts that have jobs, as far as the jobs know them; their prices are not known."""
    found: dict[str, Any] = {}
    for job in jobs:
        name = job.account or job.provider
        found.setdefault(name, partial(Account, find_provider(job.provider), name=name, base_url=job.base_url))
    for make in found.values():
        yield make()
