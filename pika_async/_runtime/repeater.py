"""Repetition of submissions in doubt at gateways with idempotency keys: asks again for an answer that was lost.

Sends no submission that was not journalled with its key, and none at any other gateway.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from datetime import UTC, datetime

import anyio
import attrs

from pika_async._http.transport import InterruptedAnswer
from pika_async._journal.protocol import Intent, Journal
from pika_async._planning.actions import ActiveJob
from pika_async._planning.repeats import is_within_window, repeat_delay, repeatable_text, request_from_text
from pika_async._runtime.gateway import GatewayClient
from pika_async._runtime.open_accounts import OpenAccounts
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job
from pika_async.providers._provider import Provider
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict
from pika_async.providers._wire import HttpRequest

__all__ = ["InterruptedSubmission", "Repeater", "send_until_told"]

_log = logging.getLogger("pika_async.repeater")


async def send_until_told(
    gateway: GatewayClient,
    provider: Provider,
    request: HttpRequest,
    active: ActiveJob,
    sent_at: datetime,
    *,
    repeated: bool = False,
) -> SubmitOutcome:
    """Send a submission; repeat it while its answer is lost, where the gateway recognises it.

    The doubt about the first one stays whatever a repetition is answered with, but for an acceptance.

    :param sent_at: when it was first sent, UTC: the machine may sleep for longer than the gateway recognises it.
    :param repeated: whether it was sent before.
    """
    outcome = await _send(gateway, request, active, repeated=repeated)
    is_doubt = repeated or outcome.verdict is SubmitVerdict.UNKNOWN
    if not is_doubt or repeatable_text(provider, request, "") is None:
        return outcome
    latest, repeats = outcome, 0
    while (delay := repeat_delay(latest, repeats, random.random())) is not None:
        await asyncio.sleep(delay)
        if not is_within_window(provider, sent_at, datetime.now(UTC)):
            break
        latest = await _send(gateway, request, active, repeated=True)
        repeats += 1
    return latest if latest.verdict is SubmitVerdict.ACCEPTED else _still_in_doubt(outcome, latest)


async def _send(gateway: GatewayClient, request: HttpRequest, active: ActiveJob, *, repeated: bool) -> SubmitOutcome:
    try:
        return await gateway.submit(request, active, repeated=repeated)
    except InterruptedAnswer as error:  # the part that came may hold the task id
        outcome = gateway.judge(error.response, repeated=repeated)
        if not repeated or outcome.verdict is SubmitVerdict.ACCEPTED:
            raise InterruptedSubmission(*error.args, outcome=outcome) from error
        raise


class InterruptedSubmission(asyncio.CancelledError):
    """Cancellation within the answer to a submission.

    :param outcome: by the part that had been read; an acceptance, if it is that of a repetition.
    """

    def __init__(self, *args: object, outcome: SubmitOutcome) -> None:
        super().__init__(*args)
        self.outcome = outcome


def _still_in_doubt(first: SubmitOutcome, latest: SubmitOutcome) -> SubmitOutcome:
    outcome = first if first.verdict is SubmitVerdict.UNKNOWN else latest
    return attrs.evolve(
        outcome, verdict=SubmitVerdict.UNKNOWN, task_id=None, handle=None, fingerprint="", retry_after=None, local=False
    )


class Repeater:
    """Asks again for the answers to submissions that an earlier process, or an earlier try, left in doubt.

    :param accounts: send the repetitions, each that of its jobs.
    :param journal: has the submissions.
    """

    def __init__(self, accounts: OpenAccounts, journal: Journal) -> None:
        self._accounts = accounts
        self._journal = journal
        self._limiter = anyio.CapacityLimiter(8)
        self._under_way: dict[str, anyio.Event] = {}

    async def settle(self, job: Job) -> Job:
        """Return a job in doubt as accepted if its gateway tells so; else as it is.

        :raises JournalFailed: if an acceptance could not be saved.
        """
        other = self._under_way.get(job.key)
        if other is not None:
            await other.wait()
            return self._journal.get(job.key) or job
        intent = self._journal.intent(job.key)
        request = None if intent is None else self._request_of(job, intent)
        if intent is None or request is None:
            return job
        ended = self._under_way[job.key] = anyio.Event()
        try:
            async with self._limiter:
                return await self._settle(job, request, intent.at)
        finally:
            del self._under_way[job.key]
            ended.set()

    def _request_of(self, job: Job, intent: Intent) -> HttpRequest | None:
        """Return the submission of a job in doubt; None if its gateway does not recognise it any more."""
        account = self._accounts.find(job)
        if job.status is not JobStatus.UNKNOWN or account is None or account.provider.idempotency is None:
            return None
        if intent.repeatable is None or not is_within_window(account.provider, intent.at, datetime.now(UTC)):
            return None
        try:
            return request_from_text(intent.repeatable, account.digest)
        except Exception:
            log_job(_log, logging.ERROR, job, "its submission cannot be read", exc_info=True)
            return None

    async def _settle(self, job: Job, request: HttpRequest, sent_at: datetime) -> Job:
        account = self._accounts.of(job)
        active = ActiveJob(job, job.stratum)
        try:
            outcome = await send_until_told(
                account.gateway, account.provider, request, active, sent_at, repeated=True
            )  # fmt: skip
        except InterruptedSubmission as error:
            with anyio.CancelScope(shield=True):
                await self._accept(job, error.outcome)
            raise
        current = self._journal.get(job.key) or job  # a person may have resolved it meanwhile
        if outcome.task_id is None or current.status is not JobStatus.UNKNOWN:
            log_job(_log, logging.INFO, job, "still in doubt: its gateway was asked again")
            return current
        return await self._accept(current, outcome)

    async def _accept(self, job: Job, outcome: SubmitOutcome) -> Job:
        task_id = outcome.task_id or ""
        holder = self._journal.key_for_task(job.provider, job.base_url, task_id)
        if holder not in {None, job.key}:
            log_job(_log, logging.WARNING, job, "its gateway answers with the task of job %s", holder)
            return job
        accepted = job.accepted(task_id, time.time(), outcome.handle)
        await self._journal.save(accepted)
        log_job(_log, logging.INFO, accepted, "accepted, as its gateway tells when asked again")
        return accepted
