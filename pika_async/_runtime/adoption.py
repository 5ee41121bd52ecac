"""Adoption of tasks that were submitted elsewhere, by their ids alone. Submits nothing, so that nothing is charged."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from pika_async._planning.actions import JobObserver, PollResult
from pika_async._planning.adoption import FirstPoll, checked_task_id, judge_first_poll, key_of_task
from pika_async._planning.backoff import backoff_delay
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.open_accounts import OpenAccount, OpenAccounts
from pika_async.errors import AccountStopped, ExchangeFailed, GenerationFailed, InvalidRequest, TaskNotFound
from pika_async.jobs import Job, JobStatus, adopted_job
from pika_async.logs import log_job
from pika_async.models import TaskState
from pika_async.models.fields import check_key
from pika_async.providers._verdicts import PollVerdict

__all__ = ["TaskAdoption"]

#: The longest wait between two of the first polls, in seconds.
MAX_DELAY_S: Final = 20.0

#: Continues an existing job, with an observer of its changes.
ContinueJob = Callable[[Job, JobObserver], Awaitable[Job]]

_log = logging.getLogger("pika_async.adoption")


def _ignore(_job: Job, _finished: bool) -> None:
    """Observe nothing: a caller that waits for the job subscribes by itself."""


class TaskAdoption:
    """Adoption of tasks by one client.

    :param table: gets each adopted job that has not settled.
    :param continue_job: polls a job that exists, see `JobAdmission.adopt`.
    :param accounts: poll.
    """

    def __init__(self, table: JobTable, continue_job: ContinueJob, accounts: OpenAccounts) -> None:
        self._table = table
        self._continue_job = continue_job
        self._accounts = accounts

    async def adopt(self, task_id: str, key: str | None, name: str | None) -> Job:
        """Return the job of a task, new or existing; see `PikaClient.adopt`."""
        task_id = checked_task_id(task_id)
        if key is not None:
            check_key(key)
        account = self._accounts.named(name)
        existing = self._existing(account, task_id, key)
        if existing is not None:
            return await self._continue(existing)
        result = await self._first_poll(account, task_id)
        existing = self._existing(account, task_id, key)  # another caller may have adopted the task meanwhile
        if existing is not None:
            return await self._continue(existing)
        job = self._new_job(account, task_id, key, result)
        if job.is_final:
            await self._table.journal.save(job)
        else:
            await self._table.add(job, _ignore)
        log_job(_log, logging.INFO, job, "adopted")
        return job

    def _existing(self, account: OpenAccount, task_id: str, key: str | None) -> Job | None:
        """Return the job of the task; None if there is none.

        :raises InvalidRequest: if the task has a job with another key, or the key another job.
        """
        journal = self._table.journal
        holder = journal.key_for_task(account.provider.name, account.base_url, task_id)
        if holder is None:
            other = None if key is None else journal.get(key)
            if other is not None:
                in_doubt = other.status is JobStatus.UNKNOWN
                way_out = "resolve that job with this task id" if in_doubt else "give another key, or none"
                raise InvalidRequest(field="key", value=key, reason=f"belongs to job {other.key} already; {way_out}")
            return None
        if key not in {None, holder}:
            raise InvalidRequest(field="key", value=key, reason=f"must be left out: task {task_id} is job {holder}")
        return journal.get(holder)

    async def _continue(self, job: Job) -> Job:
        """Poll an existing job again that is accepted and not settled."""
        if job.is_in_flight or job.status is JobStatus.TIMED_OUT:
            job = await self._continue_job(job, _ignore)
        active = self._table.jobs.get(job.key)
        return self._table.with_pending_polls(job if active is None else active.job)

    async def _first_poll(self, account: OpenAccount, task_id: str) -> PollResult:
        """Poll a task until it is found.

        :raises TaskNotFound: if the gateway denies it, several times.
        :raises AccountStopped: if the credential was refused.
        :raises ExchangeFailed: if no usable answer came, several times.
        """
        denials = failures = 0
        while True:
            result = await account.gateway.poller.poll(task_id)
            denials += result.verdict is PollVerdict.MISSING
            failures += result.verdict is PollVerdict.AGAIN
            provider, reason = account.provider.name, result.reason
            match judge_first_poll(result, denials, failures):
                case FirstPoll.FOUND:
                    return result
                case FirstPoll.DENIED:
                    raise TaskNotFound(key="", provider=provider, task_id=task_id, reason=reason)
                case FirstPoll.STOPPED:
                    raise AccountStopped(provider=provider, reason=reason, http_status=result.http_status)
                case FirstPoll.UNANSWERED:
                    raise ExchangeFailed(provider=provider, reason=reason, http_status=result.http_status)
            delay = result.retry_after or backoff_delay(denials + failures - 1, random.random())
            await asyncio.sleep(min(delay, MAX_DELAY_S))

    def _new_job(self, account: OpenAccount, task_id: str, key: str | None, result: PollResult) -> Job:
        provider, base_url = account.provider.name, account.base_url
        key = key_of_task(task_id, self._table.journal) if key is None else key
        job = adopted_job(key, provider=provider, base_url=base_url, account=account.name, task_id=task_id)
        snapshot = result.snapshot
        if snapshot is None:
            return job
        failure = None
        if snapshot.state is TaskState.FAILED:
            failure = GenerationFailed(key=key, provider=provider, task_id=task_id, reason=snapshot.reason)
        return job.with_snapshot(snapshot, time.time(), failure=failure)
