"""Submission of planned jobs: journal the intent, send, journal the verdict.

Does not decide which jobs are sent, or when.
"""

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

from pika_async._http.callbacks import CallbackReceiver
from pika_async._journal.protocol import Intent, SubmissionHeldError
from pika_async._planning.actions import ActiveJob
from pika_async._planning.outcomes import apply_verdict
from pika_async._planning.repeats import repeatable_text
from pika_async._runtime.job_table import JobTable, now
from pika_async._runtime.open_accounts import OpenAccount, OpenAccounts
from pika_async._runtime.repeater import InterruptedSubmission, send_until_told
from pika_async._runtime.trial_notes import TrialNotes
from pika_async.errors import JournalFailed
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.logs import log_job
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict
from pika_async.providers._wire import NO_CALLBACK_URL, HttpRequest

__all__ = ["Submitter"]

#: Relative change of the estimated concurrency limit, as a fraction, from which it is saved again.
MIN_LIMIT_CHANGE: Final = 0.1

_log = logging.getLogger("pika_async.submitter")


class Submitter:
    """The submissions of one client that await a response.

    :param table: gets every change of the submitted jobs.
    :param accounts: the open accounts, which send them.
    :param callbacks: issues the callback URLs; None if there is no receiver.
    """

    def __init__(self, table: JobTable, accounts: OpenAccounts, callbacks: CallbackReceiver | None) -> None:
        self._table = table
        self._accounts = accounts
        self._callbacks = callbacks
        #: The estimated concurrency limit that the journal has of each account.
        self._saved_limits = {
            name: account.submissions.concurrency.estimated_limit for name, account in table.planner.accounts.items()
        }
        self._trial_notes = TrialNotes(table.journal, table.planner)
        #: One shielded scope per submission, so that cancelling the task group does not cancel it.
        self._scopes: set[anyio.CancelScope] = set()

    def cancel(self) -> None:
        """Stop waiting for responses. Submissions without one are in doubt."""
        for scope in self._scopes:
            scope.cancel()

    def set_deadline(self, seconds: float) -> None:
        """Wait at most *seconds* from now for the responses that are outstanding."""
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, now() + seconds)

    async def submit(self, active: ActiveJob) -> None:
        """Submit one job: journal the intent, send, journal the verdict.

        The order proves after a crash which jobs may have been charged. The send is shielded from cancellation, so that
        a task id that was read is never lost.
        """
        planned, was_observed = active.job, bool(active.observers)
        account = self._accounts.of(planned)
        gateway = account.gateway
        sent_at = held = None
        outcome = SubmitOutcome(
            verdict=SubmitVerdict.UNKNOWN, reason="the client was closed before the response arrived"
        )
        scope = anyio.CancelScope(shield=True)  # bounded by `cancel` and `set_deadline`, not by sibling tasks
        self._scopes.add(scope)
        try:
            with scope:
                callback_url, token_sha256 = self._issue_callback(account)
                encoded = await gateway.encode(planned.request, callback_url)
                if self._is_unwanted(active, was_observed=was_observed):
                    pass
                elif isinstance(encoded, HttpRequest):
                    intended_at = await self._journal_intent(active, encoded, token_sha256)
                    sent_at = now()
                    try:
                        outcome = await send_until_told(gateway, account.provider, encoded, active, intended_at)
                    except InterruptedSubmission as error:
                        outcome = error.outcome
                        raise
                else:
                    outcome = encoded
        except SubmissionHeldError as error:
            active.job, held = planned, error
        except JournalFailed as error:
            active.job = planned
            self._table.intake.stop_submitting(attrs.evolve(error, provider=self._table.planner.provider))
        except Exception as error:  # a defect; the request may have been sent
            log_job(_log, logging.ERROR, planned, "the submission failed", exc_info=True)
            outcome = SubmitOutcome(verdict=SubmitVerdict.UNKNOWN, reason=f"the submission failed: {error!r}")
        finally:
            self._scopes.discard(scope)
            with anyio.CancelScope(shield=True):
                if sent_at is None and outcome.verdict is SubmitVerdict.UNKNOWN:
                    await self._roll_back(active, held)
                else:
                    await self._apply_verdict(account, active, outcome, now() if sent_at is None else sent_at)

    def _is_unwanted(self, active: ActiveJob, *, was_observed: bool) -> bool:
        """Whether a job must not be sent any more, after the minutes that an upload may have taken.

        :param was_observed: whether the job had observers before: one that has lost them was withdrawn.
        """
        planner = self._table.planner
        is_held = planner.account_of(active).stop_reason is not None or planner.is_paused
        return planner.closing or is_held or active in self._table.canceled or (was_observed and not active.observers)

    def _issue_callback(self, account: OpenAccount) -> tuple[str, str | None]:
        if self._callbacks is None or not account.provider.takes_callback:
            return NO_CALLBACK_URL, None
        return self._callbacks.issue()

    async def _journal_intent(self, active: ActiveJob, request: HttpRequest, token_sha256: str | None) -> datetime:
        """Save the job as being sent, and return when."""
        body = sha256(request.body or b"").hexdigest()
        account = self._accounts.of(active.job)
        repeatable = repeatable_text(account.provider, request, account.digest)
        price = self._table.planner.account_of(active).submissions.reserved[active]
        active.job = active.job.submitting(price)
        intent = Intent(at=datetime.now(UTC), body_sha256=body, callback_sha256=token_sha256, repeatable=repeatable)
        await self._table.journal.record_intent(active.job, intent)
        self._table.notify(active, finished=False)
        return intent.at

    async def _roll_back(self, active: ActiveJob, held: SubmissionHeldError | None) -> None:
        """Put a job that was not sent back into the queue, and delete its intent if one was saved.

        :param held: why it was not sent, if that is because of what other processes send.
        """
        if active.job.status is JobStatus.SUBMITTING:
            active.job = active.job.requeued()
            await self._table.save(active.job)
        self._table.planner.on_rolled_back(active)
        if held is not None:
            self._table.planner.hold(active, now() + held.seconds)
            if held.stop is not None:
                self._table.intake.stop_submitting(held.stop, self._accounts.of(active.job).name)
        if active in self._table.canceled:
            self._table.planner.remove_unsent(active)
            await self._table.cancel([active])
        elif not active.observers:
            await self._table.drop(active)
        self._stop_again(active)
        self._table.wake()

    def _stop_again(self, active: ActiveJob) -> None:
        """Park a planned job that came back after its account had stopped, unless another account takes it."""
        account = self._table.planner.account_of(active)
        if account.stop_reason is not None:
            self._table.intake.stop_submitting(account.stop_reason, account.name)

    async def _apply_verdict(
        self, account: OpenAccount, active: ActiveJob, outcome: SubmitOutcome, sent_at: float
    ) -> None:
        job, task_id = active.job, outcome.task_id
        holder = None if task_id is None else await self._find_task(job, task_id)
        if holder is not None and holder != job.key:
            reason = f"the provider answered with task {task_id}, which belongs to job {holder}"
            outcome = attrs.evolve(outcome, verdict=SubmitVerdict.UNKNOWN, reason=reason, task_id=None)
        at = time.time()
        active.job = apply_verdict(job, outcome, at, utc_from_timestamp(at - (now() - sent_at)))
        await self._table.save(active.job)
        self._log_verdict(active, outcome)
        stop = self._table.planner.on_submit_finished(active, outcome, sent_at, now(), random.random())
        in_doubt = active.job.status is JobStatus.UNKNOWN
        if active.job.status is JobStatus.REJECTED or (
            in_doubt and not self._table.planner.account_of(active).await_callback(active, now())
        ):
            self._table.remove(active)
        else:
            self._table.notify(active, finished=False)
        await self._save_concurrency(account)
        if stop is not None:
            self._table.intake.stop_submitting(stop.error, stop.account)
        elif active.job.status is JobStatus.PLANNED:
            self._stop_again(active)
        if stop is not None or self._trial_notes:
            await self._trial_notes.update(account.name, now())
        self._table.wake()

    def _log_verdict(self, active: ActiveJob, outcome: SubmitOutcome) -> None:
        """Log a verdict that has been saved, and report it to telemetry."""
        if active.job.is_in_flight:
            log_job(_log, logging.INFO, active.job, "accepted")
        else:  # not the gateway's or the rejection's text: it may contain the prompt or other fields of the request
            why = "" if outcome.verdict is SubmitVerdict.REJECTED else f", {outcome.reason}"
            why = why if outcome.http_status is None else f", HTTP {outcome.http_status}"
            log_job(_log, logging.DEBUG, active.job, "%s%s", outcome.verdict.value, why)
        self._table.telemetry.submission_finished(active.job, now() - active.last_seen_unsettled_at)

    async def _save_concurrency(self, account: OpenAccount) -> None:
        """Save the estimated concurrency limit of an account for the next process if it has changed enough."""
        name = account.name
        concurrency, saved = self._table.planner.accounts[name].submissions.concurrency, self._saved_limits[name]
        if concurrency.estimated_limit is None or (
            saved is not None and abs(concurrency.estimated_limit - saved) <= MIN_LIMIT_CHANGE * saved
        ):
            return
        self._saved_limits[name] = concurrency.estimated_limit
        with contextlib.suppress(JournalFailed):  # only a hint; a failing journal stops submitting with the next job
            await self._table.journal.set_setting(
                account.concurrency_key,
                {"estimated_limit": concurrency.estimated_limit, "probe_interval": concurrency.probe_interval},
            )

    async def _find_task(self, job: Job, task_id: str) -> str | None:
        try:
            return await self._table.journal.find_task(job.provider, job.base_url, task_id)
        except Exception as error:  # the task id must be saved even if this check cannot be made
            log_job(_log, logging.ERROR, job, "the journal could not be asked for its task id: %s", str(error))
            return None
