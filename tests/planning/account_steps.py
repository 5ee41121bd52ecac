"""Submissions of one account under test, with the steps that the scheduler takes."""

from __future__ import annotations

import itertools
import math
from typing import Any

from pika_async import GenerationRequest, Job, Limits
from pika_async._planning.actions import Action, ActiveJob, Reject, StopSubmitting, Submit, WaitUntil
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.limits import TokenBucket
from pika_async._planning.money import Spending
from pika_async._planning.outcomes import apply_verdict
from pika_async._planning.submissions import Submissions
from pika_async.errors import SubmissionsStopped
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict

V = SubmitVerdict
NUMBERS = itertools.count()
REFUSED: dict[str, Any] = {"verdict": V.REJECTED, "http_status": 400, "fingerprint": "400 no", "reason": "no"}
BLAMED: dict[str, Any] = {"verdict": V.STOP, "http_status": 403, "fingerprint": "403 no", "reason": "not yours"}
NO_CHANNEL: dict[str, Any] = {"verdict": V.WAIT, "http_status": 503, "model": "m", "fingerprint": "503 m"}
DOUBT: dict[str, Any] = {"verdict": V.UNKNOWN, "http_status": 502, "reason": "HTTP 502"}
UNREADABLE: dict[str, Any] = {"verdict": V.UNKNOWN, "http_status": 200, "unreadable": True, "reason": "HTTP 200: {}"}
ACCEPTED: dict[str, Any] = {"verdict": V.ACCEPTED, "task_id": "t"}


class Account:
    """Submissions of one account, with the steps that the scheduler takes."""

    def __init__(self, **limits: Any) -> None:
        chosen = Limits(**limits)
        self.submissions = Submissions(
            name="p",
            base_url="https://x.example",
            limits=chosen,
            concurrency=AdaptiveConcurrency(),
            rate=TokenBucket(None),
            spending=Spending(max_charges=chosen.max_charges),
        )
        self.now = 0.0
        self.sent: dict[ActiveJob, float] = {}
        self.stopped: SubmissionsStopped | None = None
        self.parked: list[ActiveJob] = []

    def queue(self, stratum: str = "s", prompt: str = "") -> ActiveJob:
        key = f"k{next(NUMBERS)}"
        job = Job(key=key, request=GenerationRequest(prompt or key), provider="p", base_url="https://x.example")
        active = ActiveJob(job, stratum)
        self.submissions.queue.append(active)
        return active

    def next(self) -> Action | WaitUntil:
        return self.submissions.next_action(self.now, 0)

    def send(self) -> ActiveJob:
        action = self.next()
        assert isinstance(action, Submit), action
        return self.start(action.active)

    def start(self, active: ActiveJob) -> ActiveJob:
        self.submissions.on_started(active, self.now)
        active.job = active.job.submitting()
        self.sent[active] = self.now
        return active

    def send_all(self) -> list[ActiveJob]:
        """Send as many jobs as may be sent now."""
        sent = []
        while isinstance(action := self.next(), Submit):
            sent.append(self.start(action.active))
        return sent

    def answer(self, active: ActiveJob, facts: dict[str, Any], **more: Any) -> SubmissionsStopped | None:
        """Answer a submission, and stop as the scheduler does."""
        outcome = SubmitOutcome(**{**facts, **more})
        sent_at = self.sent.pop(active)
        active.job = active.job.requeued() if outcome.local else apply_verdict(active.job, outcome, self.now)
        stop = self.submissions.on_finished(active, outcome, sent_at, self.now, 0.5, in_flight=0)
        reason = stop.error if stop is not None else self.submissions.throttle.stop
        if reason is not None:
            self.stopped = reason
            self.parked += self.submissions.stop(reason)
        return None if stop is None else stop.error

    def reject_own(self) -> list[ActiveJob]:
        """Reject every job whose refusal is its own by now."""
        rejected = []
        while isinstance(action := self.next(), Reject):
            action.active.job = action.active.job.rejected(action.error, self.now)
            rejected.append(action.active)
        self.undo(action)
        return rejected

    def undo(self, action: object) -> None:
        """Queue the job of an action again that is not carried out."""
        if isinstance(action, Submit):
            self.submissions.queue.return_probe(action.active)
            self.submissions.queue.appendleft(action.active)

    def wait(self) -> float:
        """Let time pass until the next action is due, and return the seconds."""
        action = self.next()
        assert isinstance(action, WaitUntil), action
        assert math.isfinite(action.until)
        before, self.now = self.now, action.until
        return self.now - before

    def wait_for_probe(self) -> None:
        """Let time pass until a job that is queued for the moment may be sent."""
        active = self.queue()
        self.wait()
        assert self.submissions.remove(active)

    def stop_now(self) -> SubmissionsStopped:
        """Require that the next action stops the account, and carry it out."""
        action = self.next()
        assert isinstance(action, StopSubmitting), action
        return self.stop(action)

    def stop(self, action: StopSubmitting) -> SubmissionsStopped:
        """Carry out a stop."""
        self.stopped = action.error
        self.parked += self.submissions.stop(action.error)
        return action.error

    def accept_one(self) -> None:
        active = self.queue()
        assert self.send() is active
        self.answer(active, ACCEPTED)
