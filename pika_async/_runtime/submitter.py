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

from pika_async._journal import Intent
from pika_async._planning.actions import Entry
from pika_async._planning.planner import judged
from pika_async._runtime.gateway import Exchange
from pika_async._runtime.job_table import Desk, now
from pika_async.callbacks import CallbackReceiver
from pika_async.errors import JournalFailed, JournalUnusable
from pika_async.jobs import Job, JobStatus, instant
from pika_async.logs import log_job
from pika_async.providers._verdicts import Judgement, Verdict
from pika_async.providers._wire import HttpRequest

__all__ = ["Submissions"]

#: What CometAPI, which lists `callback_url` as required, is told when nobody listens. The name is reserved (RFC 2606)
#: and resolves nowhere, so that no stranger is told of a video; the example of its page is a stranger's address.
NO_CALLBACK: Final = "https://callback.invalid/"
#: The share by which an account's size has to change before it is kept anew.
NOTABLE: Final = 0.1

_log = logging.getLogger("pika_async.submissions")


class Submissions:
    """The submissions of one client that are on their way."""

    def __init__(self, desk: Desk, exchange: Exchange, slots_name: str, callbacks: CallbackReceiver | None) -> None:
        self._desk = desk
        self._exchange = exchange
        self._callbacks = callbacks
        self._slots_name = slots_name
        self._slots_size = desk.agenda.slots.size
        #: One for each: what ends the task group does not end it.
        self._scopes: set[anyio.CancelScope] = set()

    def cancel(self) -> None:
        """Wait for their answers no longer: what was sent is in doubt."""
        for scope in self._scopes:
            scope.cancel()

    def end_within(self, seconds: float) -> None:
        """Wait for their answers that long at most."""
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, now() + seconds)

    async def submit(self, entry: Entry) -> None:
        """Intent, send, verdict, in the order that makes a payment provable; a cancelled send keeps what it learned."""
        planned = entry.job
        sent = None
        judgement = Judgement(verdict=Verdict.UNKNOWN, reason="left before the answer came")
        scope = anyio.CancelScope(shield=True)  # `stop` and `_main` bound it; a sibling's end does not end it
        self._scopes.add(scope)
        try:
            with scope:
                address, token_sha256 = self._callbacks.issue() if self._callbacks else (NO_CALLBACK, None)
                call = await self._exchange.encode(planned.request, address)
                if isinstance(call, HttpRequest):
                    await self._intend(entry, call, token_sha256)
                    sent = now()
                    call = await self._exchange.submit(call, entry)
                judgement = call
        except JournalFailed as error:
            entry.job = planned
            self._desk.halt(attrs.evolve(error, provider=self._desk.agenda.provider))
        except Exception as error:  # a defect: whether it was sent is not known
            log_job(_log, logging.ERROR, planned, "the submission failed", exc_info=True)
            judgement = Judgement(verdict=Verdict.UNKNOWN, reason=f"the submission failed: {error!r}")
        finally:
            self._scopes.discard(scope)
            with anyio.CancelScope(shield=True):
                if sent is None and judgement.verdict is Verdict.UNKNOWN:
                    await self._not_sent(entry)
                else:
                    await self._judged(entry, judgement, now() if sent is None else sent)

    async def _intend(self, entry: Entry, call: HttpRequest, token_sha256: str | None) -> None:
        body = sha256(call.body or b"").hexdigest()
        entry.job = entry.job.submitting()
        intent = Intent(at=datetime.now(UTC), body_sha256=body, callback_sha256=token_sha256)
        await self._desk.journal.intend(entry.job, intent)
        self._desk.tell(entry, at_rest=False)

    async def _not_sent(self, entry: Entry) -> None:
        """It came to no sending: the intent is taken back, if there is one."""
        if entry.job.status is JobStatus.SUBMITTING:
            entry.job = entry.job.returned()
            await self._desk.keep(entry.job)
        self._desk.agenda.submit_withdrawn(entry)
        if self._desk.agenda.gate.stop is not None:
            self._desk.halt(self._desk.agenda.gate.stop)
        self._desk.nudge()

    async def _judged(self, entry: Entry, judgement: Judgement, sent_at: float) -> None:
        job, task_id = entry.job, judgement.task_id
        holder = None if task_id is None else self._holder(job, task_id)
        if holder is not None and holder != job.key:
            reason = f"the provider answered with task {task_id}, which is job {holder}'s"
            judgement = attrs.evolve(judgement, verdict=Verdict.UNKNOWN, reason=reason, task_id=None)
        at = time.time()
        entry.job = judged(job, judgement, at, instant(at - (now() - sent_at)))
        await self._desk.keep(entry.job)
        self._tell(entry, judgement)
        stop = self._desk.agenda.submit_ends(entry, judgement, sent_at, now(), random.random())
        in_doubt = entry.job.status is JobStatus.UNKNOWN
        if entry.job.status is JobStatus.REJECTED or (in_doubt and not self._desk.agenda.doubt(entry, now())):
            self._desk.rest(entry)
        else:
            self._desk.tell(entry, at_rest=False)
        await self._remember_slots()
        if stop is not None:
            self._desk.halt(stop.error)
        elif self._desk.agenda.gate.stop is not None and entry.job.status is JobStatus.PLANNED:
            self._desk.halt(self._desk.agenda.gate.stop)
        self._desk.nudge()

    def _tell(self, entry: Entry, judgement: Judgement) -> None:
        """Who watches from outside hears of a verdict once it is kept."""
        if entry.job.is_in_flight:
            log_job(_log, logging.INFO, entry.job, "accepted")
        else:  # what a gateway said may repeat the prompt, and what is wrong with a request its values
            why = "" if judgement.verdict is Verdict.REJECTED else f", {judgement.reason}"
            why = why if judgement.http_status is None else f", HTTP {judgement.http_status}"
            log_job(_log, logging.DEBUG, entry.job, "%s%s", judgement.verdict.value, why)
        self._desk.telemetry.judged(entry.job, now() - entry.looked_at)

    async def _remember_slots(self) -> None:
        """Keep how many tasks the account holds, where that was learned anew, for the next process."""
        slots, known = self._desk.agenda.slots, self._slots_size
        if slots.size is None or (known is not None and abs(slots.size - known) <= NOTABLE * known):
            return
        self._slots_size = slots.size
        with contextlib.suppress(JournalFailed):  # a hint; the next record that fails stops the submissions
            await self._desk.journal.remember(self._slots_name, {"size": slots.size, "gap": slots.gap})

    def _holder(self, job: Job, task_id: str) -> str | None:
        try:
            return self._desk.journal.holder(job.provider, job.base_url, task_id)
        except JournalUnusable as error:  # the receipt is worth more than the question
            _log.error("%s", error)
            return None
