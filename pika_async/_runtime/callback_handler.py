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

from pika_async._planning.backoff import backoff_delay
from pika_async._planning.callback_tracker import MIN_POLL_SPACING_S
from pika_async._runtime.gateway import GatewayClient
from pika_async._runtime.job_table import JobTable, now
from pika_async._runtime.tasks import Spawn
from pika_async.errors import ClientClosed, JournalUnusable, strip_control
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job
from pika_async.providers._verdicts import PollVerdict

__all__ = ["JobCallbackHandler"]

_log = logging.getLogger("pika_async.callback_handler")

#: A task that a callback named is asked for so many times, unless another callback comes; and so many tasks at once.
CONFIRM_POLLS: Final = 6
MAX_CONFIRMATIONS: Final = 4


@attrs.frozen(eq=False)
class _Named:
    """The task that one callback named."""

    task_id: str


class JobCallbackHandler:
    """The `Listener` of one open client."""

    def __init__(self, table: JobTable, gateway: GatewayClient, spawn: Spawn, here: tuple[str, str]) -> None:
        self._table = table
        self._spawn = spawn
        self._gateway = gateway
        #: The provider and the base URL: a job of another is not ours to ask for.
        self._here = here
        # All by the SHA-256 of a token: a job may get another key, or be sent again under another token, and what was
        # said to the old one is not for the new one.
        #: Those that a task of ours sees to.
        self._running: set[str] = set()
        #: What the latest callback named, of a job without a task id.
        self._named: dict[str, _Named] = {}
        #: When a look that was no matter of the agenda was last caused, the oldest first; none is older than it counts.
        self._polled_at: dict[str, float] = {}
        self._confirmations = anyio.CapacityLimiter(MAX_CONFIRMATIONS)

    def accepts(self, token_sha256: str) -> bool:
        """See `Listener`."""
        return self._job_for_token(token_sha256) is not None

    def handle(self, token_sha256: str, body: bytes) -> None:
        """See `Listener`."""
        job = self._job_for_token(token_sha256)
        if job is None:
            return
        if job.is_final:
            self._table.planner.on_late_callback(job.key)
            return
        log_job(_log, logging.DEBUG, job, "a callback came while it was %s", job.status.value)
        active = self._table.jobs.get(job.key)
        if job.is_in_flight and active is not None:
            self._table.planner.on_callback(active, now())
            self._table.wake()
        elif job.task_id is not None:
            self._start_task(token_sha256, job, self._resume_and_poll)
        elif job.status in {JobStatus.SUBMITTING, JobStatus.UNKNOWN}:
            named = self._gateway.callback_task_id(body)
            if named is not None:
                self._named[token_sha256] = _Named(named)
                self._start_task(token_sha256, job, self._confirm)
                self._table.wake()

    def _job_for_token(self, token: str) -> Job | None:
        try:
            job = self._table.journal.job_for_token(token)
        except JournalUnusable as error:
            _log.error("%s", error)
            return None
        if job is None or (job.provider, job.base_url) != self._here:
            return None
        active = self._table.jobs.get(job.key)
        return job if active is None else active.job

    def _start_task(self, token: str, job: Job, attend: Callable[[str], Awaitable[None]]) -> None:
        if token in self._running:
            return
        try:
            self._spawn(self._guarded, token, job.key, attend, name=f"pika_async callback of {job.key}")
        except ClientClosed:
            self._named.pop(token, None)
            return
        self._running.add(token)

    async def _guarded(self, token: str, key: str, attend: Callable[[str], Awaitable[None]]) -> None:
        """Whatever a callback leads to harms no scheduler."""
        try:
            await attend(token)
        except ClientClosed:
            pass  # it is in the journal as it was, and so is its token
        except Exception:
            _log.exception("job %s: its callback could not be seen to", strip_control(key))
        finally:
            self._running.discard(token)
            self._named.pop(token, None)

    async def _resume_and_poll(self, token: str) -> None:
        """A job that was accepted in an earlier process, or has timed out, or is parked: nobody looks at it."""
        await self._wait_until(token, lambda job: job.is_in_flight)
        await self._wait_for_spacing(token)
        job = self._job_for_token(token)
        if job is None or job.task_id is None or job.is_final:
            return
        if job.key not in self._table.jobs:
            self._record_poll(token)
            await self._table.add(job, _ignore, saved=True)
        active = self._table.jobs.get(job.key)
        if active is not None:
            self._table.planner.on_callback(active, now())
            self._table.wake()

    async def _wait_until(self, token: str, stands: Callable[[Job], bool]) -> None:
        """Wait until `stands` says that the job is as it is going to be for a while, or it is at rest."""
        job = self._job_for_token(token)
        active = None if job is None else self._table.jobs.get(job.key)
        if job is not None and active is not None:
            key = job.key
            await self._table.wait_for(lambda: self._table.jobs.get(key) is not active or stands(active.job))

    async def _wait_for_spacing(self, token: str) -> None:
        """Wait until another look may be caused."""
        await anyio.sleep(max(0.0, self._polled_at.get(token, -math.inf) + MIN_POLL_SPACING_S - now()))

    def _record_poll(self, token: str) -> None:
        """A look is being caused."""
        self._polled_at.pop(token, None)
        self._polled_at[token] = at = now()
        while self._polled_at[oldest := next(iter(self._polled_at))] <= at - MIN_POLL_SPACING_S:
            del self._polled_at[oldest]

    # --- doubt ------------------------------------------------------------------------------------------------------

    async def _confirm(self, token: str) -> None:
        """One look at the task that a callback named, more if it brings no answer: if there is one, it is the job's."""
        await self._wait_until(
            token, lambda job: job.status is not JobStatus.SUBMITTING
        )  # the callback may be the quicker
        tried, named = 0, None
        while tried < CONFIRM_POLLS or self._named[token] is not named:
            await self._wait_for_spacing(token)
            job = self._job_for_token(token)
            if job is None or job.status is not JobStatus.UNKNOWN:
                break
            tried = tried + 1 if self._named[token] is named else 1
            named = self._named[token]
            if await self._task_exists(token, job.key, named.task_id):
                await self._accept(token, named.task_id)
                return
            with anyio.move_on_after(backoff_delay(tried - 1, random.random(), first=MIN_POLL_SPACING_S, cap=60.0)):
                await self._wait_for_next_callback(token, named)
        job = self._job_for_token(token)
        if job is not None and job.is_in_flight:  # its answer came after all
            await self._resume_and_poll(token)

    async def _wait_for_next_callback(self, token: str, named: _Named) -> None:
        """Wait for another callback."""
        await self._table.wait_for(lambda: self._named[token] is not named)

    async def _task_exists(self, token: str, key: str, task_id: str) -> bool:
        """Whether a look at the task says so, and names it itself."""
        rate, breaker = self._table.planner.poll_rate, self._table.planner.breaker
        async with self._confirmations:
            while (at := max(rate.ready_at(now()), breaker.ready_at(now()))) > now():  # noqa: ASYNC110 - a clock's event
                await anyio.sleep(min(at - now(), 1.0))  # others may be first
            rate.take(now())
            self._record_poll(token)
            look = await self._gateway.poll(task_id, self._table.jobs.get(key))
        if look.verdict is PollVerdict.READ and look.snapshot is not None:
            return self._gateway.is_about(look.snapshot, task_id)
        return False

    async def _accept(self, token: str, task_id: str) -> None:
        job = self._job_for_token(token)
        if job is None or job.status is not JobStatus.UNKNOWN:
            return  # meanwhile a person has said what became of it
        holder = self._table.journal.key_for_task(job.provider, job.base_url, task_id)
        if holder is not None:
            log_job(_log, logging.WARNING, job, "its callback names the task of job %s", holder)
            return
        job = job.accepted(task_id, time.time())
        job = attrs.evolve(job, polls=job.polls + 1)
        active = self._table.jobs.get(job.key)
        if active is not None:
            active.job = job
        await self._table.save(job)
        self._polled_at.pop(token, None)
        log_job(_log, logging.INFO, job, "accepted, as its callback told")
        self._table.telemetry.submission_finished(job)
        if active is None:
            await self._resume_and_poll(token)
        else:
            self._table.activate(active)
            self._table.planner.on_callback(active, now())
            self._table.wake()


def _ignore(job: Job, finished: bool) -> None:
    """Nobody waits for it."""
