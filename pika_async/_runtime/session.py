"""The parts of an open client, opened together and closed together. Schedules nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self
from weakref import WeakSet

import anyio
import attrs

from pika_async._http.addresses import is_loopback
from pika_async._http.downloads import Downloader
from pika_async._planning.callback_tracker import CallbackTracker
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.limits import MAX_IN_FLIGHT, TokenBucket
from pika_async._planning.planner import Planner
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_queue import PollQueue
from pika_async._planning.submissions import Submissions
from pika_async._runtime.admission import BatchAdmission, JobAdmission
from pika_async._runtime.adoption import TaskAdoption
from pika_async._runtime.batch import BatchRun
from pika_async._runtime.callback_handler import JobCallbackHandler
from pika_async._runtime.event_stream import EventStream, Hook
from pika_async._runtime.gateway import GatewayClient
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.pacing import paced
from pika_async._runtime.request_source import Requests, stream
from pika_async._runtime.resolution import recover_interrupted
from pika_async._runtime.results import FolderDownload, ResultDownloader, route_refusal
from pika_async._runtime.scheduler import Scheduler
from pika_async._runtime.stats import Stats
from pika_async._runtime.submitter import Submitter
from pika_async._runtime.tasks import require_loop
from pika_async._runtime.telemetry import NullTelemetry, create_telemetry
from pika_async._runtime.uploads import uploads_for
from pika_async.config import ClientConfig
from pika_async.jobs import JobStatus
from pika_async.polling.durations import DurationSample

__all__ = ["Session", "build_stats", "new_planner"]


@attrs.frozen(kw_only=True)
class Session:
    """The parts of an open client, in the event loop in which it was opened."""

    config: ClientConfig
    table: JobTable
    scheduler: Scheduler
    gateway: GatewayClient
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
        journal, here = config.journal, (config.provider.name, config.base_url)
        telemetry = create_telemetry(config.provider, config.base_url)
        uploads = uploads_for(
            config.provider, config.base_url, uploader=config.uploader, lifetime=config.upload_lifetime,
            journal=journal, transport=config.transport, proxy=config.proxy,
        )  # fmt: skip
        gateway = GatewayClient(
            config.provider, config.base_url, config.transport, lenient=config.lenient, telemetry=telemetry,
            is_task_id=lambda task_id: journal.key_for_task(*here, task_id) is not None,
            upload=None if uploads is None else uploads.url_for, proxy=config.proxy,
        )  # fmt: skip
        downloader = Downloader(loopback=is_loopback(config.base_url), allow=config.allow_results, proxy=config.proxy)
        await journal.open()
        stack.push_async_callback(journal.close)
        table = JobTable(new_planner(config, telemetry), journal, telemetry)
        await recover_interrupted(journal, telemetry)
        scheduler = Scheduler(table, gateway, Submitter(table, gateway, config.concurrency_key, config.callbacks))
        admission = JobAdmission(config.provider, config.base_url, table, can_upload=config.uploader is not None)
        session = cls(
            config=config,
            table=table,
            scheduler=scheduler,
            gateway=gateway,
            admission=admission,
            adoption=TaskAdoption(table, admission.adopt, gateway, here),
            results=ResultDownloader(gateway, downloader, journal),
            callback_handler=JobCallbackHandler(table, gateway, scheduler.spawn, here),
            events=EventStream(journal, scheduler.stop),
            loop=asyncio.get_running_loop(),
            stack=stack,
        )
        await session._start(downloader, hooks, load_history)
        return session

    async def _start(self, downloader: Downloader, hooks: Iterable[Hook], load_history: bool) -> None:
        config, stack = self.config, self._stack
        stack.push_async_callback(self._close_events)
        stack.push_async_callback(config.transport.close)  # also closes a transport that failed to open
        await config.transport.open()
        await stack.enter_async_context(downloader)
        if config.callbacks is not None:
            # Detached after the scheduler has stopped: while it waits for responses, a callback may bring a task id.
            stack.push_async_callback(config.callbacks.detach, self.callback_handler)
        stack.push_async_callback(self.scheduler.stop)
        await self.scheduler.start()
        if config.callbacks is not None:
            await config.callbacks.attach(self.callback_handler)
        for hook in hooks:
            self.events.add_hook(hook)
        if load_history:
            async for sample in paced(config.journal.samples()):
                self.table.planner.poll_queue.load_history([sample])

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
        :param download_to: the folder for KEY.mp4; None: nothing is downloaded.
        :param keep_rest: whether to read the rest of the requests after a stop.
        :param is_known: whether all of `requests` are known already, as those of a sequence are.
        :raises InvalidRequest: if `requests` cannot be iterated.
        """
        source = stream(requests)
        self.table.intake.allow_submitting()
        admission = BatchAdmission(self.admission, self.table)
        if is_known or isinstance(requests, Sequence):
            self.admissions.add(admission)
        has_file, is_whole = self.config.journal.path is not None, isinstance(requests, Sequence)
        if has_file and isinstance(requests, Sequence):
            source = await admission.enroll(requests)
        download = None if download_to is None else FolderDownload(self.results, Path.cwd() / download_to)
        config, downloading = self.config, self.config.limits.downloading
        refusal = None
        if download is not None:
            refusal = await route_refusal(config.base_url, allow=config.allow_results, proxy=config.proxy)
        batch = BatchRun(
            self.table, self.scheduler.spawn, admission.admit, download, downloading, keep_rest=keep_rest,
            read_ahead=has_file and not (is_whole or is_known),
        )  # fmt: skip
        batch.stop_if_refused(refusal)
        batch.start(source)
        return batch, admission

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


def new_planner(config: ClientConfig, telemetry: NullTelemetry) -> Planner:
    """Create a planner with the charges and the concurrency limit that the journal has for this account."""

    def on_sample(sample: DurationSample, age: float) -> None:
        config.journal.add_sample(sample)
        telemetry.duration_observed(sample, age)

    learned = config.journal.get_setting(config.concurrency_key) or {}
    poll_rates = (config.limits.polls_per_second, config.policy.max_polls_per_second)
    return Planner(
        provider=config.provider.name,
        base_url=config.base_url,
        limits=config.limits,
        deadline=config.deadline,
        submissions=Submissions(
            provider=config.provider.name,
            base_url=config.base_url,
            limits=config.limits,
            concurrency=AdaptiveConcurrency(ceiling=config.limits.max_in_flight or MAX_IN_FLIGHT, **learned),
            rate=TokenBucket(config.limits.submits_per_second),
            charges=config.journal.charges(),
            budget=config.budget,
        ),
        poll_queue=PollQueue(
            PolicyAdapter(
                policy=config.policy,
                on_sample=on_sample,
                callbacks=CallbackTracker(enabled=config.callbacks is not None),
            )
        ),
        poll_rate=TokenBucket(min((rate for rate in poll_rates if rate is not None), default=None)),
    )


def build_stats(config: ClientConfig, session: Session | None) -> Stats:
    """Return the `Stats` of a client that is open with `session`, or is not open."""
    planner = new_planner(config, NullTelemetry()) if session is None else session.table.planner
    return Stats.of(
        planner,
        time.monotonic() if session is None else session.loop.time(),
        is_open=session is not None and session.table.intake.is_open,
        parked=(config.journal.count(JobStatus.UNKNOWN), config.journal.count(JobStatus.TIMED_OUT)),
        mismatched_answers=0 if session is None else session.gateway.mismatched_answers,
        medians=config.policy.medians(),
    )
