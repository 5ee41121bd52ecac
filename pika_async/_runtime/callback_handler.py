"""What callbacks do for the jobs of one client: a look at once, or a way out of doubt. They settle nothing."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import attrs

from pika_async._planning.backoff import ladder
from pika_async._planning.callback_tracker import CALL_SECONDS
from pika_async._runtime.gateway import Exchange
from pika_async._runtime.job_table import now
from pika_async._runtime.scheduler import Scheduler
from pika_async.errors import ClientClosed, JournalUnusable, printable
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job
from pika_async.providers._verdicts import PollVerdict

__all__ = ["Hearing"]

_log = logging.getLogger("pika_async.hearing")

#: A task that a callback named is asked for so many times, unless another callback comes; and so many tasks at once.
TRIES: Final = 6
AT_ONCE: Final = 4


@attrs.frozen(eq=False)
class _Named:
    """The task that one callback named."""

    task_id: str


class Hearing:
    """The `Listener` of one open client."""

    def __init__(self, scheduler: Scheduler, exchange: Exchange, here: tuple[str, str]) -> None:
        self._scheduler = scheduler
        self._desk = scheduler.desk
        self._exchange = exchange
        #: The provider and the base URL: a job of another is not ours to ask for.
        self._here = here
        # All by the SHA-256 of a token: a job may get another key, or be sent again under another token, and what was
        # said to the old one is not for the new one.
        #: Those that a task of ours sees to.
        self._attended: set[str] = set()
        #: What the latest callback named, of a job without a task id.
        self._named: dict[str, _Named] = {}
        #: When a look that was no matter of the agenda was last caused, the oldest first; none is older than it counts.
        self._asked_at: dict[str, float] = {}
        self._room = anyio.CapacityLimiter(AT_ONCE)

    def knows(self, token_sha256: str) -> bool:
        """See `Listener`."""
        return self._addressed(token_sha256) is not None

    def heard(self, token_sha256: str, body: bytes) -> None:
        """See `Listener`."""
        job = self._addressed(token_sha256)
        if job is None:
            return
        if job.is_final:
            self._desk.agenda.heard_late(job.key)
            return
        log_job(_log, logging.DEBUG, job, "a callback came while it was %s", job.status.value)
        entry = self._desk.active.get(job.key)
        if job.is_in_flight and entry is not None:
            self._desk.agenda.heard(entry, now())
            self._desk.nudge()
        elif job.task_id is not None:
            self._attend(token_sha256, job, self._take_up)
        elif job.status in {JobStatus.SUBMITTING, JobStatus.UNKNOWN}:
            named = self._exchange.named(body)
            if named is not None:
                self._named[token_sha256] = _Named(named)
                self._attend(token_sha256, job, self._confirm)
                self._desk.nudge()

    def _addressed(self, token: str) -> Job | None:
        try:
            job = self._desk.journal.addressed(token)
        except JournalUnusable as error:
            _log.error("%s", error)
            return None
        if job is None or (job.provider, job.base_url) != self._here:
            return None
        entry = self._desk.active.get(job.key)
        return job if entry is None else entry.job

    def _attend(self, token: str, job: Job, attend: Callable[[str], Awaitable[None]]) -> None:
        if token in self._attended:
            return
        try:
            self._scheduler.spawn(self._guarded, token, job.key, attend, name=f"pika_async callback of {job.key}")
        except ClientClosed:
            self._named.pop(token, None)
            return
        self._attended.add(token)

    async def _guarded(self, token: str, key: str, attend: Callable[[str], Awaitable[None]]) -> None:
        """Whatever a callback leads to harms no scheduler."""
        try:
            await attend(token)
        except ClientClosed:
            pass  # it is in the journal as it was, and so is its token
        except Exception:
            _log.exception("job %s: its callback could not be seen to", printable(key))
        finally:
            self._attended.discard(token)
            self._named.pop(token, None)

    async def _take_up(self, token: str) -> None:
        """A job that was accepted in an earlier process, or has timed out, or is parked: nobody looks at it."""
        await self._stands(token, lambda job: job.is_in_flight)
        await self._interval(token)
        job = self._addressed(token)
        if job is None or job.task_id is None or job.is_final:
            return
        if job.key not in self._desk.active:
            self._asks(token)
            await self._desk.plan(job, _nobody, kept=True)
        entry = self._desk.active.get(job.key)
        if entry is not None:
            self._desk.agenda.heard(entry, now())
            self._desk.nudge()

    async def _stands(self, token: str, stands: Callable[[Job], bool]) -> None:
        """Wait until `stands` says that the job is as it is going to be for a while, or it is at rest."""
        job = self._addressed(token)
        entry = None if job is None else self._desk.active.get(job.key)
        if job is not None and entry is not None:
            key = job.key
            await self._desk.until(lambda: self._desk.active.get(key) is not entry or stands(entry.job))

    async def _interval(self, token: str) -> None:
        """Wait until another look may be caused."""
        await anyio.sleep(max(0.0, self._asked_at.get(token, -math.inf) + CALL_SECONDS - now()))

    def _asks(self, token: str) -> None:
        """A look is being caused."""
        self._asked_at.pop(token, None)
        self._asked_at[token] = at = now()
        while self._asked_at[oldest := next(iter(self._asked_at))] <= at - CALL_SECONDS:
            del self._asked_at[oldest]

    # --- doubt ------------------------------------------------------------------------------------------------------

    async def _confirm(self, token: str) -> None:
        """One look at the task that a callback named, more if it brings no answer: if there is one, it is the job's."""
        await self._stands(token, lambda job: job.status is not JobStatus.SUBMITTING)  # the callback may be the quicker
        tried, named = 0, None
        while tried < TRIES or self._named[token] is not named:
            await self._interval(token)
            job = self._addressed(token)
            if job is None or job.status is not JobStatus.UNKNOWN:
                break
            tried = tried + 1 if self._named[token] is named else 1
            named = self._named[token]
            if await self._exists(token, job.key, named.task_id):
                await self._accept(token, named.task_id)
                return
            with anyio.move_on_after(ladder(tried - 1, random.random(), first=CALL_SECONDS, cap=60.0)):
                await self._another(token, named)
        job = self._addressed(token)
        if job is not None and job.is_in_flight:  # its answer came after all
            await self._take_up(token)

    async def _another(self, token: str, named: _Named) -> None:
        """Wait for another callback."""
        await self._desk.until(lambda: self._named[token] is not named)

    async def _exists(self, token: str, key: str, task_id: str) -> bool:
        """Whether a look at the task says so, and names it itself."""
        rate, breaker = self._desk.agenda.poll_rate, self._desk.agenda.breaker
        async with self._room:
            while (at := max(rate.ready_at(now()), breaker.ready_at(now()))) > now():  # noqa: ASYNC110 - a clock's event
                await anyio.sleep(min(at - now(), 1.0))  # others may be first
            rate.take(now())
            self._asks(token)
            look = await self._exchange.poll(task_id, self._desk.active.get(key))
        if look.verdict is PollVerdict.READ and look.snapshot is not None:
            return self._exchange.names(look.snapshot, task_id)
        return False

    async def _accept(self, token: str, task_id: str) -> None:
        job = self._addressed(token)
        if job is None or job.status is not JobStatus.UNKNOWN:
            return  # meanwhile a person has said what became of it
        holder = self._desk.journal.holder(job.provider, job.base_url, task_id)
        if holder is not None:
            log_job(_log, logging.WARNING, job, "its callback names the task of job %s", holder)
            return
        job = job.accepted(task_id, time.time())
        job = attrs.evolve(job, polls=job.polls + 1)
        entry = self._desk.active.get(job.key)
        if entry is not None:
            entry.job = job
        await self._desk.keep(job)
        self._asked_at.pop(token, None)
        log_job(_log, logging.INFO, job, "accepted, as its callback told")
        self._desk.telemetry.judged(job)
        if entry is None:
            await self._take_up(token)
        else:
            self._desk.go_on(entry)
            self._desk.agenda.heard(entry, now())
            self._desk.nudge()


def _nobody(job: Job, at_rest: bool) -> None:
    """Nobody waits for it."""
