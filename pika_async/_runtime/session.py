"""What an open client runs on, in the loop that it was opened in: made together, closed together. Schedules nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Self

import anyio
import attrs

from pika_async._http.downloads import Downloader
from pika_async._http.transport import Transport, is_loopback
from pika_async._journal.protocol import Journal
from pika_async._planning.callback_tracker import CallbackTracker
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.limits import MAX_IN_FLIGHT, Limits, TokenBucket
from pika_async._planning.planner import Planner
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_queue import PollQueue
from pika_async._runtime.admission import JobAdmission
from pika_async._runtime.callback_handler import JobCallbackHandler
from pika_async._runtime.event_stream import EventStream
from pika_async._runtime.gateway import GatewayClient
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.resolution import recover_interrupted
from pika_async._runtime.results import ResultDownloader
from pika_async._runtime.scheduler import Scheduler
from pika_async._runtime.stats import Stats
from pika_async._runtime.submitter import Submitter
from pika_async._runtime.telemetry import NullTelemetry, create_telemetry
from pika_async.callbacks import CallbackReceiver
from pika_async.jobs import JobStatus
from pika_async.polling import DurationSample, PollingPolicy
from pika_async.providers import Provider

__all__ = ["ClientConfig", "Session", "build_stats", "require_loop", "wait_uncancelled"]


@attrs.frozen(kw_only=True)
class ClientConfig:
    """What a client was told, checked: these outlive every loop that it is opened in."""

    provider: Provider
    base_url: str
    limits: Limits
    #: Seconds from acceptance to settling.
    deadline: float
    policy: PollingPolicy
    callbacks: CallbackReceiver | None
    proxy: str | None
    transport: Transport
    journal: Journal
    #: Tells one key from another.
    account_digest: str
    #: Whether a bare 503 counts as a refusal.
    lenient: bool

    @property
    def concurrency_key(self) -> str:
        """The name by which the journal remembers how much this account holds."""
        return f"slots {self.provider.name} {self.base_url} {self.account_digest}"

    def planner(self, telemetry: NullTelemetry) -> Planner:
        """An agenda that knows what this account was charged before, and how much it holds."""

        def learned(seen: DurationSample, age: float) -> None:
            self.journal.add_sample(seen)
            telemetry.duration_observed(seen, age)

        known = self.journal.get_setting(self.concurrency_key) or {}
        poll_rates = (self.limits.polls_per_second, self.policy.max_polls_per_second)
        return Planner(
            provider=self.provider.name,
            base_url=self.base_url,
            limits=self.limits,
            deadline=self.deadline,
            concurrency=AdaptiveConcurrency(ceiling=self.limits.max_in_flight or MAX_IN_FLIGHT, **known),
            poll_queue=PollQueue(
                PolicyAdapter(
                    policy=self.policy, on_sample=learned, callbacks=CallbackTracker(enabled=self.callbacks is not None)
                )
            ),
            submit_rate=TokenBucket(self.limits.submits_per_second),
            poll_rate=TokenBucket(min((rate for rate in poll_rates if rate is not None), default=None)),
            charges=self.journal.charges(),
        )


@attrs.frozen
class Session:
    """The parts of an open client."""

    table: JobTable
    scheduler: Scheduler
    gateway: GatewayClient
    downloader: Downloader
    admission: JobAdmission
    results: ResultDownloader
    callback_handler: JobCallbackHandler
    callbacks: CallbackReceiver | None
    transport: Transport
    journal: Journal
    events: EventStream
    #: Where all of these live.
    loop: asyncio.AbstractEventLoop

    @classmethod
    async def open(cls, config: ClientConfig) -> Self:
        """Open every part, or none.

        :raises ConfigurationError: if the journal (`JournalInUse`, `JournalUnusable`) or the user's session cannot be
            used.
        :raises JournalFailed: if what an earlier process left in doubt could not be kept.
        """
        telemetry = create_telemetry(config.provider, config.base_url)
        gateway = GatewayClient(
            config.provider, config.base_url, config.transport, lenient=config.lenient, telemetry=telemetry
        )
        downloader = Downloader(loopback=is_loopback(config.base_url), proxy=config.proxy)
        await config.journal.open()
        try:
            table = JobTable(config.planner(telemetry), config.journal, telemetry)
            await recover_interrupted(config.journal, telemetry)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await config.journal.close()
            raise
        submitter = Submitter(table, gateway, config.concurrency_key, config.callbacks)
        scheduler = Scheduler(table, gateway, submitter)
        callback_handler = JobCallbackHandler(scheduler, gateway, (config.provider.name, config.base_url))
        admission = JobAdmission(config.provider, config.base_url, table)
        results = ResultDownloader(gateway, downloader, config.journal)
        session = cls(
            table, scheduler, gateway, downloader, admission, results, callback_handler, config.callbacks,
            config.transport,
            config.journal, EventStream(config.journal), asyncio.get_running_loop(),
        )  # fmt: skip
        try:
            await config.transport.open()
            await downloader.__aenter__()
            await scheduler.start()
            if config.callbacks is not None:
                await config.callbacks.attach(callback_handler)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await session.close()
            raise
        return session

    @property
    def owns_current_task(self) -> bool:
        """Whether the running task is one that `close` would wait for in vain."""
        return self.scheduler.owns_current_task or self.events.owns_current_task

    async def drain(self, seconds: float) -> None:
        """Take in and send nothing more, and wait at most `seconds` until every job is at rest, and on disk where a
        batch that is under way wants that.
        """
        self.table.close_intake()
        with anyio.move_on_after(seconds):
            await self.table.wait_for(lambda: not self.table.is_open or self.table.is_empty)

    async def close(self) -> None:
        """Close every part, the scheduler first: it waits for the answers that are on their way, at most 20 s.

        What has settled by then is given to the hooks, which have another 20 s.
        """
        try:
            await self.scheduler.stop()
        finally:
            try:
                if self.callbacks is not None:
                    await self.callbacks.detach(self.callback_handler)
                await self.downloader.__aexit__(None, None, None)
                await self.transport.close()
            finally:
                try:
                    await self.events.close()
                finally:
                    await self.journal.close()


def build_stats(config: ClientConfig, session: Session | None) -> Stats:
    """See `PikaClient.stats`."""
    planner = config.planner(NullTelemetry()) if session is None else session.table.planner
    return Stats.of(
        planner,
        time.monotonic() if session is None else session.loop.time(),
        is_open=session is not None and session.table.is_open,
        parked=(config.journal.count(JobStatus.UNKNOWN), config.journal.count(JobStatus.TIMED_OUT)),
        strays=0 if session is None else session.gateway.mismatched_answers,
        medians=config.policy.medians(),
    )


def require_loop(loop: asyncio.AbstractEventLoop) -> None:
    """:raises RuntimeError: if it is not `loop`, which goes on, that runs here: its parts are of no use in another."""
    if loop is not asyncio.get_running_loop() and not loop.is_closed():
        raise RuntimeError(
            "the client is open in another event loop: call it there (from another thread with "
            "`asyncio.run_coroutine_threadsafe(..., loop)`), close it there first, or use another client here"
        )


async def wait_uncancelled(task: asyncio.Task[None]) -> None:
    """Wait for `task` to its end; a cancellation of the waiting is passed on only then.

    A cancel scope shields from other scopes, not from `Task.cancel`, which is what `asyncio.timeout` does.
    """
    canceled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                canceled = error
    if canceled is not None:
        raise canceled
    task.result()
