"""Sends planned jobs: intent, send, id, verdict, in the order that makes a payment provable. Decides nothing."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import anyio
import attrs

from pika_async._journal.protocol import Intent
from pika_async._planning.actions import ActiveJob
from pika_async._planning.planner import apply_verdict
from pika_async._runtime.gateway import GatewayClient
from pika_async._runtime.job_table import JobTable, now
from pika_async.callbacks import CallbackReceiver
from pika_async.errors import JournalFailed, JournalUnusable
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.logs import log_job
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict
from pika_async.providers._wire import HttpRequest

__all__ = ["Submitter"]

#: What CometAPI, which lists `callback_url` as required, is told when nobody listens. The name is reserved (RFC 2606)
#: and resolves nowhere, so that no stranger is told of a video; the example of its page is a stranger's address.
NO_CALLBACK: Final = "https://callback.invalid/"
#: The share by which an account's size has to change before it is kept anew.
NOTABLE: Final = 0.1

_log = logging.getLogger("pika_async.submitter")


class Submitter:
    """The submissions of one client that are on their way."""

    def __init__(
        self, table: JobTable, gateway: GatewayClient, slots_name: str, callbacks: CallbackReceiver | None
    ) -> None:
        self._table = table
        self._gateway = gateway
        self._callbacks = callbacks
        self._concurrency_key = slots_name
        self._saved_limit = table.planner.concurrency.estimated_limit
        #: One for each: what ends the task group does not end it.
        self._scopes: set[anyio.CancelScope] = set()

    def cancel(self) -> None:
        """Wait for their answers no longer: what was sent is in doubt."""
        for scope in self._scopes:
            scope.cancel()

    def set_deadline(self, seconds: float) -> None:
        """Wait for their answers that long at most."""
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, now() + seconds)

    async def submit(self, active: ActiveJob) -> None:
        """Intent, send, verdict, in the order that makes a payment provable; a cancelled send keeps what it learned."""
        planned = active.job
        sent = None
        outcome = SubmitOutcome(verdict=SubmitVerdict.UNKNOWN, reason="left before the answer came")
        scope = anyio.CancelScope(shield=True)  # `stop` and `_main` bound it; a sibling's end does not end it
        self._scopes.add(scope)
        try:
            with scope:
                address, token_sha256 = self._callbacks.issue() if self._callbacks else (NO_CALLBACK, None)
                call = await self._gateway.encode(planned.request, address)
                if isinstance(call, HttpRequest):
                    await self._journal_intent(active, call, token_sha256)
                    sent = now()
                    call = await self._gateway.submit(call, active)
                outcome = call
        except JournalFailed as error:
            active.job = planned
            self._table.intake.stop_submitting(attrs.evolve(error, provider=self._table.planner.provider))
        except Exception as error:  # a defect: whether it was sent is not known
            log_job(_log, logging.ERROR, planned, "the submission failed", exc_info=True)
            outcome = SubmitOutcome(verdict=SubmitVerdict.UNKNOWN, reason=f"the submission failed: {error!r}")
        finally:
            self._scopes.discard(scope)
            with anyio.CancelScope(shield=True):
                if sent is None and outcome.verdict is SubmitVerdict.UNKNOWN:
                    await self._roll_back(active)
                else:
                    await self._apply_verdict(active, outcome, now() if sent is None else sent)

    async def _journal_intent(self, active: ActiveJob, call: HttpRequest, token_sha256: str | None) -> None:
        body = sha256(call.body or b"").hexdigest()
        active.job = active.job.submitting()
        intent = Intent(at=datetime.now(UTC), body_sha256=body, callback_sha256=token_sha256)
        await self._table.journal.record_intent(active.job, intent)
        self._table.notify(active, finished=False)

    async def _roll_back(self, active: ActiveJob) -> None:
        """It came to no sending: the intent is taken back, if there is one."""
        if active.job.status is JobStatus.SUBMITTING:
            active.job = active.job.requeued()
            await self._table.save(active.job)
        self._table.planner.on_submit_rolled_back(active)
        stopped = self._table.planner.stop_reason
        if stopped is not None:
            self._table.intake.stop_submitting(stopped)
        self._table.wake()

    async def _apply_verdict(self, active: ActiveJob, outcome: SubmitOutcome, sent_at: float) -> None:
        job, task_id = active.job, outcome.task_id
        holder = None if task_id is None else self._key_for_task(job, task_id)
        if holder is not None and holder != job.key:
            reason = f"the provider answered with task {task_id}, which is job {holder}'s"
            outcome = attrs.evolve(outcome, verdict=SubmitVerdict.UNKNOWN, reason=reason, task_id=None)
        at = time.time()
        active.job = apply_verdict(job, outcome, at, utc_from_timestamp(at - (now() - sent_at)))
        await self._table.save(active.job)
        self._log_verdict(active, outcome)
        stop = self._table.planner.on_submit_finished(active, outcome, sent_at, now(), random.random())
        in_doubt = active.job.status is JobStatus.UNKNOWN
        if active.job.status is JobStatus.REJECTED or (
            in_doubt and not self._table.planner.await_callback(active, now())
        ):
            self._table.remove(active)
        else:
            self._table.notify(active, finished=False)
        await self._save_concurrency()
        stopped = self._table.planner.stop_reason
        if stop is not None:
            self._table.intake.stop_submitting(stop.error)
        elif stopped is not None and active.job.status is JobStatus.PLANNED:
            self._table.intake.stop_submitting(stopped)
        self._table.wake()

    def _log_verdict(self, active: ActiveJob, outcome: SubmitOutcome) -> None:
        """Who watches from outside hears of a verdict once it is kept."""
        if active.job.is_in_flight:
            log_job(_log, logging.INFO, active.job, "accepted")
        else:  # what a gateway said may repeat the prompt, and what is wrong with a request its values
            why = "" if outcome.verdict is SubmitVerdict.REJECTED else f", {outcome.reason}"
            why = why if outcome.http_status is None else f", HTTP {outcome.http_status}"
            log_job(_log, logging.DEBUG, active.job, "%s%s", outcome.verdict.value, why)
        self._table.telemetry.submission_finished(active.job, now() - active.last_seen_unsettled_at)

    async def _save_concurrency(self) -> None:
        """Keep how many tasks the account holds, where that was learned anew, for the next process."""
        concurrency, known = self._table.planner.concurrency, self._saved_limit
        if concurrency.estimated_limit is None or (
            known is not None and abs(concurrency.estimated_limit - known) <= NOTABLE * known
        ):
            return
        self._saved_limit = concurrency.estimated_limit
        with contextlib.suppress(JournalFailed):  # a hint; the next record that fails stops the submissions
            await self._table.journal.set_setting(
                self._concurrency_key,
                {"estimated_limit": concurrency.estimated_limit, "probe_interval": concurrency.probe_interval},
            )

    def _key_for_task(self, job: Job, task_id: str) -> str | None:
        try:
            return self._table.journal.key_for_task(job.provider, job.base_url, task_id)
        except JournalUnusable as error:  # the receipt is worth more than the question
            _log.error("%s", error)
            return None
