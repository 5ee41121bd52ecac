"""What an open client runs on, in the loop that it was opened in: made together, closed together. Schedules nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Self

import anyio
import attrs

from pika_async._http.downloads import Downloader
from pika_async._http.transport import Transport, is_loopback
from pika_async._journal import Journal
from pika_async._planning.callback_tracker import Calls
from pika_async._planning.concurrency import Slots
from pika_async._planning.limits import MAX_IN_FLIGHT, Limits, Rate
from pika_async._planning.planner import Agenda
from pika_async._planning.poll_queue import Lookout
from pika_async._runtime.admission import Admission
from pika_async._runtime.callback_handler import Hearing
from pika_async._runtime.event_stream import Events
from pika_async._runtime.gateway import Exchange
from pika_async._runtime.job_table import Desk
from pika_async._runtime.resolution import take_over
from pika_async._runtime.results import Collector
from pika_async._runtime.scheduler import Scheduler
from pika_async._runtime.stats import Stats
from pika_async._runtime.submitter import Submissions
from pika_async._runtime.telemetry import Silent, watching
from pika_async.callbacks import CallbackReceiver
from pika_async.jobs import JobStatus
from pika_async.polling import Observation, PollingPolicy
from pika_async.providers import Provider

__all__ = ["Running", "Terms", "check_loop", "stats_of", "to_the_end"]


@attrs.frozen(kw_only=True)
class Terms:
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
    account: str
    #: Whether a bare 503 counts as a refusal.
    lenient: bool

    @property
    def slots_name(self) -> str:
        """The name by which the journal remembers how much this account holds."""
        return f"slots {self.provider.name} {self.base_url} {self.account}"

    def agenda(self, telemetry: Silent) -> Agenda:
        """An agenda that knows what this account was charged before, and how much it holds."""

        def learned(seen: Observation, age: float) -> None:
            self.journal.observe(seen)
            telemetry.learned(seen, age)

        known = self.journal.recall(self.slots_name) or {}
        poll_rates = (self.limits.polls_per_second, getattr(self.policy, "max_polls_per_second", None))
        return Agenda(
            provider=self.provider.name,
            base_url=self.base_url,
            limits=self.limits,
            deadline=self.deadline,
            slots=Slots(ceiling=self.limits.max_in_flight or MAX_IN_FLIGHT, **known),
            lookout=Lookout(policy=self.policy, learned=learned, calls=Calls(listens=self.callbacks is not None)),
            submit_rate=Rate(self.limits.submits_per_second),
            poll_rate=Rate(min((rate for rate in poll_rates if rate is not None), default=None)),
            charges=self.journal.charges(),
        )


@attrs.frozen
class Running:
    """The parts of an open client."""

    desk: Desk
    scheduler: Scheduler
    exchange: Exchange
    downloader: Downloader
    admission: Admission
    collector: Collector
    hearing: Hearing
    callbacks: CallbackReceiver | None
    transport: Transport
    journal: Journal
    events: Events
    #: Where all of these live.
    loop: asyncio.AbstractEventLoop

    @classmethod
    async def open(cls, terms: Terms) -> Self:
        """Open every part, or none.

        :raises ConfigurationError: if the journal (`JournalInUse`, `JournalUnusable`) or the user's session cannot be
            used.
        :raises JournalFailed: if what an earlier process left in doubt could not be kept.
        """
        telemetry = watching(terms.provider, terms.base_url)
        exchange = Exchange(terms.provider, terms.base_url, terms.transport, lenient=terms.lenient, telemetry=telemetry)
        downloader = Downloader(loopback=is_loopback(terms.base_url), proxy=terms.proxy)
        await terms.journal.open()
        try:
            desk = Desk(terms.agenda(telemetry), terms.journal, telemetry)
            await take_over(terms.journal, telemetry)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await terms.journal.close()
            raise
        submissions = Submissions(desk, exchange, terms.slots_name, terms.callbacks)
        scheduler = Scheduler(desk, exchange, submissions)
        hearing = Hearing(scheduler, exchange, (terms.provider.name, terms.base_url))
        admission = Admission(terms.provider, terms.base_url, desk)
        collector = Collector(exchange, downloader, terms.journal)
        running = cls(
            desk, scheduler, exchange, downloader, admission, collector, hearing, terms.callbacks, terms.transport,
            terms.journal, Events(terms.journal), asyncio.get_running_loop(),
        )  # fmt: skip
        try:
            await terms.transport.open()
            await downloader.__aenter__()
            await scheduler.start()
            if terms.callbacks is not None:
                await terms.callbacks.attach(hearing)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await running.close()
            raise
        return running

    @property
    def is_here(self) -> bool:
        """Whether the running task is one that `close` would wait for in vain."""
        return self.scheduler.is_here or self.events.is_here

    async def drain(self, seconds: float) -> None:
        """Take in and send nothing more, and wait at most `seconds` until every job is at rest, and on disk where a
        batch that is under way wants that.
        """
        self.desk.shut()
        with anyio.move_on_after(seconds):
            await self.desk.until(lambda: not self.desk.is_open or self.desk.is_empty)

    async def close(self) -> None:
        """Close every part, the scheduler first: it waits for the answers that are on their way, at most 20 s.

        What has settled by then is given to the hooks, which have another 20 s.
        """
        try:
            await self.scheduler.stop()
        finally:
            try:
                if self.callbacks is not None:
                    await self.callbacks.detach(self.hearing)
                await self.downloader.__aexit__(None, None, None)
                await self.transport.close()
            finally:
                try:
                    await self.events.close()
                finally:
                    await self.journal.close()


def stats_of(terms: Terms, running: Running | None) -> Stats:
    """See `PikaClient.stats`."""
    agenda = terms.agenda(Silent()) if running is None else running.desk.agenda
    medians = getattr(terms.policy, "medians", dict)
    return Stats.of(
        agenda,
        time.monotonic() if running is None else running.loop.time(),
        is_open=running is not None and running.desk.is_open,
        parked=(terms.journal.count(JobStatus.UNKNOWN), terms.journal.count(JobStatus.TIMED_OUT)),
        strays=0 if running is None else running.exchange.strays,
        medians=medians(),
    )


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """:raises RuntimeError: if it is not `loop`, which goes on, that runs here: its parts are of no use in another."""
    if loop is not asyncio.get_running_loop() and not loop.is_closed():
        raise RuntimeError(
            "the client is open in another event loop: call it there (from another thread with "
            "`asyncio.run_coroutine_threadsafe(..., loop)`), close it there first, or use another client here"
        )


async def to_the_end(task: asyncio.Task[None]) -> None:
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
