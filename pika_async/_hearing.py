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

from pika_async._desk import now
from pika_async._exchange import Exchange
from pika_async._scheduler import Scheduler
from pika_async.calls import CALL_SECONDS
from pika_async.errors import ClientClosed, JournalUnusable, printable
from pika_async.lifecycle import Job, JobStatus
from pika_async.logs import log_job
from pika_async.retrying import PollVerdict, ladder

__all__ = ["Hearing"]

_log = logging.getLogger("pika_async.hearing")

#: A task that a callback named is asked for so many times, unless another callback comes; and so many tasks at once.
TRIES: Final = 6
AT_ONCE: Final = 4


class Hearing:
    """The `Listener` of one open client."""

    def __init__(self, scheduler: Scheduler, exchange: Exchange, here: tuple[str, str]) -> None:
        self._scheduler = scheduler
        self._desk = scheduler.desk
        self._exchange = exchange
        #: The provider and the base URL: a job of another is not ours to ask for.
        self._here = here
        #: The jobs that a task of ours sees to.
        self._attended: set[str] = set()
        #: What the latest callback named, of a job without a task id; and when such a task was last asked for.
        self._named: dict[str, str] = {}
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
        if job.task_id is not None and entry is not None:
            self._desk.agenda.heard(entry, now())
            self._desk.nudge()
        elif job.task_id is not None:
            self._attend(job.key, self._take_up)
        elif job.status in {JobStatus.SUBMITTING, JobStatus.UNKNOWN}:
            named = self._exchange.named(body)
            if named is not None:
                self._named[job.key] = named
                self._attend(job.key, self._confirm)

    def _addressed(self, token_sha256: str) -> Job | None:
        try:
            job = self._desk.journal.addressed(token_sha256)
        except JournalUnusable as error:
            _log.error("%s", error)
            return None
        if job is None or (job.provider, job.base_url) != self._here:
            return None
        entry = self._desk.active.get(job.key)
        return job if entry is None else entry.job

    def _current(self, key: str) -> Job | None:
        entry = self._desk.active.get(key)
        return self._desk.journal.get(key) if entry is None else entry.job

    def _attend(self, key: str, attend: Callable[[str], Awaitable[None]]) -> None:
        if key in self._attended:
            return
        try:
            self._scheduler.spawn(self._guarded, key, attend, name=f"pika_async callback of {key}")
        except ClientClosed:
            return
        self._attended.add(key)

    async def _guarded(self, key: str, attend: Callable[[str], Awaitable[None]]) -> None:
        """Whatever a callback leads to harms no scheduler."""
        try:
            await attend(key)
        except ClientClosed:
            pass  # it is in the journal as it was, and so is its token
        except Exception:
            _log.exception("job %s: its callback could not be seen to", printable(key))
        finally:
            self._attended.discard(key)
            self._named.pop(key, None)

    async def _take_up(self, key: str) -> None:
        """A job that was accepted in an earlier process, or has timed out: nobody looks at it."""
        job = self._current(key)
        if job is None or job.task_id is None or job.is_final:
            return
        if key not in self._desk.active:
            await self._desk.plan(job, _nobody, kept=True)
        entry = self._desk.active.get(key)
        if entry is not None:
            self._desk.agenda.heard(entry, now())
            self._desk.nudge()

    # --- doubt ------------------------------------------------------------------------------------------------------

    async def _confirm(self, key: str) -> None:
        """One look at the task that a callback named, more if it brings no answer: if there is one, it is the job's."""
        await self._desk.until(lambda: not self._is(key, JobStatus.SUBMITTING))  # the callback may be the quicker
        for number in range(TRIES):
            await anyio.sleep(max(0.0, self._asked_at.get(key, -math.inf) + CALL_SECONDS - now()))
            if not self._is(key, JobStatus.UNKNOWN):
                break
            named = self._named[key]
            if await self._exists(key, named):
                await self._accept(key, named)
                return
            await anyio.sleep(ladder(number, random.random(), first=CALL_SECONDS, cap=60.0))
        job = self._current(key)
        if job is not None and job.is_in_flight:  # its answer came after all
            await self._take_up(key)

    def _is(self, key: str, status: JobStatus) -> bool:
        job = self._current(key)
        return job is not None and job.status is status

    async def _exists(self, key: str, task_id: str) -> bool:
        """Whether a look at the task says so, and names it itself."""
        rate = self._desk.agenda.poll_rate
        async with self._room:
            await anyio.sleep(max(0.0, rate.ready_at(now()) - now()))
            rate.take(now())
            self._asked_at[key] = now()
            look = await self._exchange.poll(task_id, self._desk.active.get(key))
        if look.verdict is PollVerdict.READ and look.snapshot is not None:
            return self._exchange.names(look.snapshot, task_id)
        return False

    async def _accept(self, key: str, task_id: str) -> None:
        job = self._current(key)
        if job is None or job.status is not JobStatus.UNKNOWN:
            return  # meanwhile a person has said what became of it
        holder = self._desk.journal.holder(job.provider, job.base_url, task_id)
        if holder is not None:
            log_job(_log, logging.WARNING, job, "its callback names the task of job %s", holder)
            return
        job = job.accepted(task_id, time.time())
        job = attrs.evolve(job, polls=job.polls + 1)
        entry = self._desk.active.get(key)
        if entry is not None:
            entry.job = job
        await self._desk.keep(job)
        self._asked_at.pop(key, None)
        log_job(_log, logging.INFO, job, "accepted, as its callback told")
        self._desk.telemetry.judged(job)
        if entry is None:
            await self._take_up(key)
        else:
            self._desk.go_on(entry)
            self._desk.agenda.heard(entry, now())
            self._desk.nudge()


def _nobody(job: Job, at_rest: bool) -> None:
    """Nobody waits for it."""
