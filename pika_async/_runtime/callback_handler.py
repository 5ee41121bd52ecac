"""Handler of gateway callbacks for the jobs of one client.

A callback triggers an immediate poll of its job, or confirms a submission whose response was lost. Its body is never
trusted: it settles nothing.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio
import attrs

from pika_async._planning.backoff import backoff_delay
from pika_async._planning.callback_tracker import MIN_POLL_SPACING_S
from pika_async._runtime.job_table import JobTable, now
from pika_async._runtime.open_accounts import OpenAccounts
from pika_async._runtime.tasks import Spawn
from pika_async.errors import ClientClosed, JournalUnusable, strip_control
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job
from pika_async.providers._verdicts import PollVerdict

__all__ = ["JobCallbackHandler"]

_log = logging.getLogger("pika_async.callback_handler")

#: Polls of a task that a callback named; the next callback of the same job starts the count again.
CONFIRM_POLLS: Final = 6
#: Confirmations that poll at the same time.
MAX_CONFIRMATIONS: Final = 4


@attrs.frozen(eq=False)
class _NamedTask:
    """The task that one callback named. Compared by identity: two callbacks may name one task."""

    task_id: str


class JobCallbackHandler:
    """The `CallbackHandler` of one open client.

    Its state is keyed by the SHA-256 of a token, not by the key of a job: a job may be archived under another key, or
    be submitted again with another token, and a callback for the earlier token must not affect the later submission.

    :param table: the active jobs.
    :param accounts: poll tasks; jobs of other accounts are not handled.
    :param spawn: starts a task beside the scheduler.
    """

    def __init__(self, table: JobTable, accounts: OpenAccounts, spawn: Spawn) -> None:
        self._table = table
        self._spawn = spawn
        self._accounts = accounts
        #: The tokens with a running task.
        self._running: set[str] = set()
        #: The task that the latest callback of a job without a task id named.
        self._named: dict[str, _NamedTask] = {}
        #: When this handler last caused a poll, the oldest first; entries older than `MIN_POLL_SPACING_S` are dropped.
        self._polled_at: dict[str, float] = {}
        self._confirmations = anyio.CapacityLimiter(MAX_CONFIRMATIONS)

    async def accepts(self, token_sha256: str) -> bool:
        """See `CallbackHandler`. Reads no job: `handle` reads it, and ignores a job of another provider or base URL."""
        return self._key_for_token(token_sha256) is not None

    async def is_authentic(self, token_sha256: str, headers: Mapping[str, str], body: bytes) -> bool:
        """See `CallbackHandler`."""
        if not any(account.gateway.signatures for account in self._accounts):
            return True
        job = self._job_for_token(token_sha256)
        if job is None:
            return False
        signatures = self._accounts.of(job).gateway.signatures
        return signatures is None or await signatures.is_authentic(headers, body)

    def handle(self, token_sha256: str, body: bytes) -> None:
        """See `CallbackHandler`."""
        job = self._job_for_token(token_sha256)
        if job is None:
            return
        if job.is_final:
            self._table.planner.account_for(job).on_late_callback(job.key)
            return
        log_job(_log, logging.DEBUG, job, "a callback came while it was %s", job.status.value)
        active = self._table.jobs.get(job.key)
        if job.is_in_flight and active is not None:
            self._table.planner.account_of(active).on_callback(active, now())
            self._table.wake()
        elif job.task_id is not None:
            self._start_task(token_sha256, job, self._resume_and_poll)
        elif job.status in {JobStatus.SUBMITTING, JobStatus.UNKNOWN}:
            named = self._accounts.of(job).gateway.callback_task_id(body)
            if named is not None:
                self._named[token_sha256] = _NamedTask(named)
                self._start_task(token_sha256, job, self._confirm)
                self._table.wake()

    def is_handling(self, token_sha256: str) -> bool:
        """Whether a callback with that token still polls, or waits to."""
        return token_sha256 in self._running

    def _job_for_token(self, token: str) -> Job | None:
        """Return the job of this client whose latest submission carried `token`. Only an inactive job is read."""
        key = self._key_for_token(token)
        if key is None:
            return None
        active = self._table.jobs.get(key)
        try:
            job = self._table.journal.get(key) if active is None else active.job
        except JournalUnusable as error:
            _log.error("%s", error)
            return None
        return job if job is not None and self._accounts.is_here(job) else None

    def _key_for_token(self, token: str) -> str | None:
        try:
            return self._table.journal.key_for_token(token)
        except JournalUnusable as error:
            _log.error("%s", error)
            return None

    def _start_task(self, token: str, job: Job, handle: Callable[[str], Awaitable[None]]) -> None:
        if token in self._running:
            return
        try:
            self._spawn(self._guarded, token, job.key, handle, name=f"pika_async callback of {job.key}")
        except ClientClosed:
            self._named.pop(token, None)
            return
        self._running.add(token)

    async def _guarded(self, token: str, key: str, handle: Callable[[str], Awaitable[None]]) -> None:
        """Run `handle(token)`; log its exception, which must not end the scheduler."""
        try:
            await handle(token)
        except ClientClosed:
            pass  # the job and its token are still in the journal
        except Exception:
            _log.exception("job %s: its callback could not be handled", strip_control(key))
        finally:
            self._running.discard(token)
            self._named.pop(token, None)

    async def _resume_and_poll(self, token: str) -> None:
        """Resume and poll an accepted job that is not polled: of an earlier process, timed out, or parked."""
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
            self._table.planner.account_of(active).on_callback(active, now())
            self._table.wake()

    async def _wait_until(self, token: str, condition: Callable[[Job], bool]) -> None:
        """Wait until `condition(job)` is true or the job is not active."""
        job = self._job_for_token(token)
        active = None if job is None else self._table.jobs.get(job.key)
        if job is not None and active is not None:
            key = job.key
            await self._table.wait_for(lambda: self._table.jobs.get(key) is not active or condition(active.job))

    async def _wait_for_spacing(self, token: str) -> None:
        """Wait until this handler may cause another poll."""
        await anyio.sleep(max(0.0, self._polled_at.get(token, -math.inf) + MIN_POLL_SPACING_S - now()))

    def _record_poll(self, token: str) -> None:
        """Record that this handler causes a poll now."""
        self._polled_at.pop(token, None)
        self._polled_at[token] = at = now()
        while self._polled_at[oldest := next(iter(self._polled_at))] <= at - MIN_POLL_SPACING_S:
            del self._polled_at[oldest]

    # --- jobs in doubt ----------------------------------------------------------------------------------------------

    async def _confirm(self, token: str) -> None:
        """Poll the task that a callback named, again after failures; if the task exists, it is the job's."""
        # The callback may arrive before the response of the submission.
        await self._wait_until(token, lambda job: job.status is not JobStatus.SUBMITTING)
        tried, named = 0, None
        while tried < CONFIRM_POLLS or self._named[token] is not named:
            await self._wait_for_spacing(token)
            job = self._job_for_token(token)
            if job is None or job.status is not JobStatus.UNKNOWN:
                break
            tried = tried + 1 if self._named[token] is named else 1
            named = self._named[token]
            if await self._task_exists(token, job, named.task_id):
                await self._accept(token, named.task_id)
                return
            with anyio.move_on_after(backoff_delay(tried - 1, random.random(), first=MIN_POLL_SPACING_S, cap=60.0)):
                await self._wait_for_next_callback(token, named)
        job = self._job_for_token(token)
        if job is not None and job.is_in_flight:  # the response of its submission came after all
            await self._resume_and_poll(token)

    async def _wait_for_next_callback(self, token: str, named: _NamedTask) -> None:
        """Wait until a callback other than the one that named `named` has come."""
        await self._table.wait_for(lambda: self._named[token] is not named)

    async def _task_exists(self, token: str, job: Job, task_id: str) -> bool:
        """Poll the task; return whether it exists and the answer names it."""
        planner, gateway = self._table.planner.account_for(job), self._accounts.of(job).gateway
        rate, breaker = planner.poll_rate, planner.breaker
        async with self._confirmations:
            while (at := max(rate.ready_at(now()), breaker.ready_at(now()))) > now():  # noqa: ASYNC110 - a clock's event
                await anyio.sleep(min(at - now(), 1.0))  # other polls may take the rate first
            rate.take(now())
            self._record_poll(token)
            result = await gateway.poller.poll(task_id, self._table.jobs.get(job.key))
        if result.verdict is PollVerdict.READ and result.snapshot is not None:
            return gateway.poller.is_about(result.snapshot, task_id)
        return False

    async def _accept(self, token: str, task_id: str) -> None:
        job = self._job_for_token(token)
        if job is None or job.status is not JobStatus.UNKNOWN:
            return  # it was resolved meanwhile
        other_key = self._table.journal.key_for_task(job.provider, job.base_url, task_id)
        if other_key is not None:
            log_job(_log, logging.WARNING, job, "its callback names the task of job %s", other_key)
            return
        job = job.accepted(task_id, time.time())
        job = attrs.evolve(job, polls=job.polls + 1)
        active = self._table.jobs.get(job.key)
        if active is not None:
            active.job = job
        await self._table.save(job)
        self._polled_at.pop(token, None)
        log_job(_log, logging.INFO, job, "accepted, confirmed by a callback")
        self._table.telemetry.submission_finished(job)
        if active is None:
            await self._resume_and_poll(token)
        else:
            self._table.activate(active)
            self._table.planner.account_of(active).on_callback(active, now())
            self._table.wake()


def _ignore(job: Job, finished: bool) -> None:
    """Observe nothing: no caller waits for a job that a callback resumes."""
