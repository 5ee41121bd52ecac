"""The parts of an open client, opened together and closed together. Schedules nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

import anyio
import attrs

from pika_async._http.addresses import is_loopback
from pika_async._runtime.admission import BatchAdmission, JobAdmission
from pika_async._runtime.adoption import TaskAdoption
from pika_async._runtime.batch import BatchRun
from pika_async._runtime.callback_handler import JobCallbackHandler
from pika_async._runtime.event_stream import EventStream, Hook
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.new_accounts import new_accounts
from pika_async._runtime.new_planner import new_planner
from pika_async._runtime.open_accounts import OpenAccounts
from pika_async._runtime.pacing import paced
from pika_async._runtime.repeater import Repeater
from pika_async._runtime.request_source import Requests, stream
from pika_async._runtime.resolution import recover_interrupted
from pika_async._runtime.results import (
    BatchDownload,
    Downloaders,
    FolderDownload,
    ResultDownloader,
    is_url,
    route_refusal,
)
from pika_async._runtime.scheduler import Scheduler
from pika_async._runtime.stats import Stats
from pika_async._runtime.submitter import Submitter
from pika_async._runtime.tasks import require_loop
from pika_async._runtime.telemetry import NullTelemetry, create_telemetry
from pika_async.config.client import ClientConfig
from pika_async.errors import strip_control
from pika_async.jobs import JobStatus

if TYPE_CHECKING:
    from pika_async._runtime.stored_results import StoredResults

__all__ = ["Session", "build_stats"]

_log = logging.getLogger("pika_async.session")


@attrs.frozen(kw_only=True)
class Session:
    """The parts of an open client, in the event loop in which it was opened."""

    config: ClientConfig
    table: JobTable
    scheduler: Scheduler
    accounts: OpenAccounts
    admission: JobAdmission
    adoption: TaskAdoption
    results: ResultDownloader
    callback_handler: JobCallbackHandler
    events: EventStream
    loop: asyncio.AbstractEventLoop
    #: Admissions of the batches whose requests are all known.
    admissions: WeakSet[BatchAdmission] = attrs.field(factory=WeakSet)
    #: Closes the parts, the last opened first.
    _stack: AsyncExitStack = attrs.field(alias="stack")

    @classmethod
    async def open(cls, config: ClientConfig, *, hooks: Iterable[Hook], load_history: bool) -> Self:
        """Open every part, or none.

        :param config: the validated arguments of the client.
        :param hooks: called with each job that settles.
        :param load_history: whether to teach the polling policy the durations in the journal.
        :raises ConfigurationError: if the journal (`JournalInUse`, `JournalUnusable`) or the user's session cannot be
            used.
        :raises JournalFailed: if the jobs that an earlier process left in doubt could not be saved.
        """
        stack = AsyncExitStack()
        try:
            return await cls._open(config, stack, hooks, load_history)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stack.aclose()
            raise

    @classmethod
    async def _open(
        cls, config: ClientConfig, stack: AsyncExitStack, hooks: Iterable[Hook], load_history: bool
    ) -> Self:
        journal, telemetry = config.journal, create_telemetry(config.accounts[0].provider, config.accounts[0].base_url)
        accounts = new_accounts(config, telemetry)
        downloaders = Downloaders(config)
        await journal.open()
        stack.push_async_callback(journal.close)
        table = JobTable(new_planner(config, telemetry), journal, telemetry)
        await recover_interrupted(journal, telemetry)
        scheduler = Scheduler(table, accounts, Submitter(table, accounts, config.callbacks))
        admission = JobAdmission(config, table, Repeater(accounts, journal))
        session = cls(
            config=config,
            table=table,
            scheduler=scheduler,
            accounts=accounts,
            admission=admission,
            adoption=TaskAdoption(table, admission.adopt, accounts),
            results=ResultDownloader(accounts, downloaders, journal),
            callback_handler=JobCallbackHandler(table, accounts, scheduler.spawn),
            events=EventStream(journal, scheduler.stop),
            loop=asyncio.get_running_loop(),
            stack=stack,
        )
        await session._start(downloaders, hooks, load_history)
        return session

    async def _start(self, downloaders: Downloaders, hooks: Iterable[Hook], load_history: bool) -> None:
        config, stack = self.config, self._stack
        stack.push_async_callback(self._close_events)
        for account in config.accounts:
            stack.push_async_callback(account.transport.close)  # also closes a transport that failed to open
            await account.transport.open()
        await stack.enter_async_context(downloaders)
        if config.callbacks is not None:
            # Detached after the scheduler has stopped: while it waits for responses, a callback may bring a task id.
            stack.push_async_callback(config.callbacks.detach, self.callback_handler)
        stack.push_async_callback(self.scheduler.stop)
        await self.scheduler.start()
        if config.callbacks is not None:
            await config.callbacks.attach(self.callback_handler)
        for hook in hooks:
            self.events.add_hook(hook)
        for name, jobs in jobs_elsewhere(config).items():
            text = "%d jobs wait for the account %s, which this client does not have: give it to follow them"
            _log.info(text, jobs, strip_control(name))
        if load_history:
            async for sample in paced(config.journal.samples()):
                self.table.planner.load_history([sample])

    def require_open(self, *, accepting: bool = False) -> None:
        """Require that the client is open, in the running loop.

        :param accepting: whether to require also that new jobs are accepted.
        :raises ClientClosed: if the client was closed, or is being drained and `accepting` is true.
        :raises WrongEventLoop: if another loop is running.
        :raises RuntimeError: if the scheduler failed.
        """
        require_loop(self.loop)
        if accepting:
            self.table.intake.require_accepting()
        else:
            self.table.intake.require_open()

    async def start_batch(
        self,
        requests: Requests,
        download_to: str | os.PathLike[str] | None,
        *,
        keep_rest: bool = False,
        is_known: bool = False,
    ) -> tuple[BatchRun, BatchAdmission]:
        """Start a batch.

        With a journal file, the requests of a sequence are saved as planned before the first is sent.

        :param requests: an iterable or async iterable of requests or prompts.
        :param download_to: the folder or `s3://BUCKET/PREFIX` for KEY.mp4; None: nothing is downloaded.
        :param keep_rest: whether to read the rest of the requests after a stop.
        :param is_known: whether all of `requests` are known already, as those of a sequence are.
        :raises InvalidRequest: if `requests` cannot be iterated.
        :raises ConfigurationError: if results cannot be stored there.
        """
        download = await self.downloads_to(download_to)
        source = stream(requests)
        self.table.intake.allow_submitting()
        admission = BatchAdmission(self.admission, self.table)
        if is_known or isinstance(requests, Sequence):
            self.admissions.add(admission)
        has_file, is_whole = self.config.journal.path is not None, isinstance(requests, Sequence)
        if has_file and isinstance(requests, Sequence):
            source = await admission.enroll(requests)
        config, downloading = self.config, self.config.limits.downloading
        refusal = None
        if download is not None:
            urls = sorted((account.base_url for account in config.accounts), key=is_loopback)  # the strictest first
            refusal = await route_refusal(urls[0], allow=config.allow_results, proxy=config.proxy)
        batch = BatchRun(
            self.table, self.scheduler.spawn, admission.admit, download, downloading, keep_rest=keep_rest,
            read_ahead=has_file and not (is_whole or is_known),
        )  # fmt: skip
        batch.stop_if_refused(refusal)
        batch.start(source)
        return batch, admission

    async def downloads_to(self, target: str | os.PathLike[str] | None) -> BatchDownload | None:
        """Return the downloads to a folder, or to a store once it would take them; None for no target.

        :raises ConfigurationError: if results cannot be stored there.
        """
        if target is None:
            return None
        return await self.stored.batch(target) if is_url(target) else FolderDownload(self.results, Path.cwd() / target)

    @property
    def stored(self) -> StoredResults:
        """The results in a store, which most clients do not have: loaded with the first."""
        return self._stored

    @cached_property
    def _stored(self) -> StoredResults:
        from pika_async._http.s3 import S3Store  # noqa: PLC0415
        from pika_async._http.stores import spool_folder  # noqa: PLC0415
        from pika_async._runtime.stored_results import StoredResults  # noqa: PLC0415

        store, journal = S3Store(), self.config.journal
        self._stack.push_async_callback(store.close)
        return StoredResults(self.results, store, journal, spool_folder(journal.path))

    @property
    def owns_current_task(self) -> bool:
        """Whether `close`, called from the running task, would wait for that task."""
        return self.scheduler.owns_current_task or self.events.owns_current_task

    async def drain(self, seconds: float) -> None:
        """Accept and submit nothing more; wait until every job is finished and every file of a batch is downloaded.

        :param seconds: the longest wait.
        """
        intake = self.table.intake
        intake.close()
        self.table.wake()
        with anyio.move_on_after(seconds):
            await self.table.wait_for(lambda: not intake.is_open or self.table.is_empty)

    async def _close_events(self) -> None:
        await self.events.close(self.scheduler.close_by)

    async def close(self) -> None:
        """Close every part, the scheduler first: it waits for the responses of submissions, at most `Limits.grace`.

        The hooks get what has settled by then, and have the rest of that time.
        """
        await self._stack.aclose()


def jobs_elsewhere(config: ClientConfig) -> dict[str, int]:
    """Return the number of jobs that wait for accounts which this client does not have, by account."""
    names = {account.name for account in config.accounts}
    waiting = config.journal.unfinished_by_account()
    return {name: jobs for name, jobs in waiting.items() if name not in names}


def build_stats(config: ClientConfig, session: Session | None) -> Stats:
    """Return the `Stats` of a client that is open with `session`, or is not open."""
    mismatched = 0 if session is None else sum(each.gateway.poller.mismatched_answers for each in session.accounts)
    planner = new_planner(config, NullTelemetry()) if session is None else session.table.planner
    return Stats.of(
        planner,
        time.monotonic() if session is None else session.loop.time(),
        is_open=session is not None and session.table.intake.is_open,
        parked=(config.journal.count(JobStatus.UNKNOWN), config.journal.count(JobStatus.TIMED_OUT)),
        mismatched_answers=mismatched,
        elsewhere=jobs_elsewhere(config),
        medians=config.policy.medians(),
    )
