"""What to do next: the jobs that are not at rest, the time, the limits -> one decision. Pure: another room acts."""

from __future__ import annotations

import math
from collections import deque
from datetime import datetime
from typing import Final

import attrs

from pika_async._planning.actions import (
    Action,
    ActiveJob,
    CallbackTimedOut,
    DeadlinePassed,
    Poll,
    PollResult,
    StopSubmitting,
    Submit,
    SubmitTimedOut,
    WaitUntil,
)
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.limits import CircuitBreaker, Limits, RateMeter, SubmitThrottle, TokenBucket
from pika_async._planning.poll_queue import PollQueue
from pika_async.errors import (
    AccountStopped,
    ChargeLimitReached,
    DeadlineExceeded,
    GenerationFailed,
    ProviderUnreachable,
    SubmissionInDoubt,
    SubmissionRejected,
    SubmissionsStopped,
    TaskNotFound,
    WrongBaseUrl,
)
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.models import TaskState
from pika_async.providers._verdicts import PollVerdict, SubmitOutcome, SubmitVerdict

__all__ = ["Planner", "apply_verdict"]

#: A task that was accepted and then denied is given up after this many denials over this many seconds.
MISSING_ANSWERS: Final = 5
MISSING_SECONDS: Final = 600.0
#: A task that is finished but has no address yet is asked for this many seconds more.
URL_SECONDS: Final = 600.0
#: The callback of a job in doubt is waited for this many times as long as the longest task has taken; while none has
#: settled, so many seconds: the documented example took 232 s.
DOUBT_SHARE, DOUBT_SECONDS = 2.0, 600.0


@attrs.define(kw_only=True)
class Planner:
    """The decisions of one client: one provider, one account."""

    provider: str
    base_url: str
    limits: Limits
    #: Seconds from acceptance to settling, for each job.
    deadline: float
    concurrency: AdaptiveConcurrency
    poll_queue: PollQueue
    submit_rate: TokenBucket
    poll_rate: TokenBucket
    throttle: SubmitThrottle = attrs.field(factory=SubmitThrottle)
    breaker: CircuitBreaker = attrs.field(factory=CircuitBreaker)
    closing: bool = False
    submit_queue: deque[ActiveJob] = attrs.field(factory=deque)
    submitting: int = 0
    in_flight: int = 0
    polling: int = 0
    charges: int = 0
    submit_meter: RateMeter = attrs.field(factory=RateMeter)
    poll_meter: RateMeter = attrs.field(factory=RateMeter)
    #: Whose look was the latest probe of an open breaker.
    _probe: ActiveJob | None = None
    #: The jobs in doubt whose callbacks are waited for, and since when.
    _unconfirmed: dict[ActiveJob, float] = attrs.field(factory=dict)

    # --- deciding ---------------------------------------------------------------------------------------------------

    def next_action(self, now: float) -> Action:
        """The one thing to do at `now`; looks go first, because they make room."""
        poll = self._next_poll(now)
        if isinstance(poll, Poll | DeadlinePassed):
            return poll
        submit = self._next_submit(now)
        if not isinstance(submit, WaitUntil):
            return submit
        doubt = self._next_unconfirmed(now)
        return doubt if isinstance(doubt, CallbackTimedOut) else WaitUntil(min(poll.until, submit.until, doubt.until))

    def _next_unconfirmed(self, now: float) -> CallbackTimedOut | WaitUntil:
        while self._unconfirmed:
            active, since = next(iter(self._unconfirmed.items()))
            until = since + min(self.deadline, DOUBT_SHARE * self.poll_queue.adapter.longest or DOUBT_SECONDS)
            if active.job.status is JobStatus.UNKNOWN and until > now:
                return WaitUntil(until)
            del self._unconfirmed[active]
            if active.job.status is JobStatus.UNKNOWN:
                return CallbackTimedOut(active)
        return WaitUntil(math.inf)

    def _next_poll(self, now: float) -> Poll | DeadlinePassed | WaitUntil:
        due = self.poll_queue.ready_at(now)
        if due > now:
            return WaitUntil(due)
        held_until = self.breaker.ready_at(now)
        if held_until > now:
            active = self.poll_queue.pop_expired(now)
            if active is not None:
                return DeadlinePassed(active)
        if self.polling >= self.limits.polling:
            return WaitUntil(math.inf)
        if held_until > now:
            return WaitUntil(min(held_until, self.poll_queue.expires_at))
        can_begin = self.poll_rate.ready_at(now)
        return Poll(self.poll_queue.pop(now)) if can_begin <= now else WaitUntil(can_begin)

    def _next_submit(self, now: float) -> Submit | SubmitTimedOut | StopSubmitting | WaitUntil:
        if not self.submit_queue or self.closing or self.throttle.stop is not None:
            return WaitUntil(math.inf)
        if now >= self.submit_queue[0].deadline_at:
            return SubmitTimedOut(self.submit_queue.popleft())
        if self.limits.max_charges is not None and self.charges + self.submitting >= self.limits.max_charges:
            if self.submitting:
                return WaitUntil(math.inf)
            return StopSubmitting(ChargeLimitReached(provider=self.provider, limit=self.limits.max_charges))
        if self.submitting >= self.limits.submitting or not self.concurrency.has_capacity(
            self.in_flight, self.submitting
        ):
            return WaitUntil(math.inf)
        can_begin = max(self.submit_rate.ready_at(now), self.throttle.ready_at(now), self.concurrency.ready_at(now))
        if can_begin > now:
            return WaitUntil(min(can_begin, self.submit_queue[0].deadline_at))
        return Submit(self.submit_queue.popleft())

    def wants_more(self, planned_by_caller: int) -> bool:
        """Whether a caller with so many unsent jobs should plan another: as many as can be sent side by side."""
        return self.throttle.stop is None and planned_by_caller < self.limits.submitting

    # --- stopping ---------------------------------------------------------------------------------------------------

    @property
    def stop_reason(self) -> SubmissionsStopped | None:
        """Why nothing is submitted, if so."""
        return self.throttle.stop

    def stop_submitting(self, reason: SubmissionsStopped) -> list[ActiveJob]:
        """Submit nothing more; return the jobs that were queued."""
        self.throttle.stop = reason
        queued = list(self.submit_queue)
        self.submit_queue.clear()
        return queued

    def allow_submitting(self) -> None:
        """Submit again after a stop."""
        if self.throttle.stop is not None:
            self.throttle = SubmitThrottle()

    def close(self) -> None:
        """Start no submission any more."""
        self.closing = True

    def on_uncharged(self) -> None:
        """Take back the charge of a submission that a person found not to be charged."""
        self.charges -= 1

    # --- what happened ----------------------------------------------------------------------------------------------

    def queue(self, active: ActiveJob, now: float) -> None:
        """Queue a job for submission, with the patience of a new one."""
        self._unconfirmed.pop(active, None)
        active.last_seen_unsettled_at, active.deadline_at = now, math.inf
        self.submit_queue.append(active)

    def resume(self, active: ActiveJob, age: float, now: float, u: float) -> None:
        """A job that was accepted `age` seconds ago, by a clock that may have been moved: look at it soon.

        Its deadline begins anew. Looks follow its age, but never as if it were older than a deadline.
        """
        self._mark_accepted(active, now - min(max(age, 0.0), self.deadline), now)
        active.resumed = True
        self.poll_queue.resume(active, now, u)

    def _mark_accepted(self, active: ActiveJob, accepted_at: float, now: float) -> None:
        self.in_flight += 1
        self._unconfirmed.pop(active, None)
        active.accepted_at = active.last_seen_unsettled_at = accepted_at
        active.deadline_at = now + self.deadline

    def on_submit_started(self, active: ActiveJob, now: float) -> None:
        """`entry` is being sent."""
        self.submitting += 1
        self.submit_meter.add(now)
        self.submit_rate.take(now)
        self.concurrency.on_submit_started(now)
        if math.isinf(active.deadline_at):
            active.deadline_at = now + self.limits.patience

    def on_submit_finished(
        self, active: ActiveJob, outcome: SubmitOutcome, sent_at: float, now: float, u: float
    ) -> StopSubmitting | None:
        """`entry` was judged; its job has been changed and kept already. Says so if sending should stop."""
        self.submitting -= 1
        match outcome.verdict:
            case SubmitVerdict.ACCEPTED:
                self.charges += 1
                self.throttle.reset()
                self._mark_accepted(active, now, now)
                self.concurrency.on_accepted(now)
                self.poll_queue.schedule(active, now, u)
            case SubmitVerdict.NOT_SENT:
                self.submit_queue.appendleft(active)
                if self.throttle.record_unreachable(now, u):
                    return self._stop(ProviderUnreachable, outcome, attempts=self.throttle.unsent)
            case SubmitVerdict.WAIT:
                self.submit_queue.appendleft(active)
                self._back_off(active, outcome, sent_at, now, u)
            case SubmitVerdict.STOP:
                self.submit_queue.appendleft(active)
                return self._stop(AccountStopped, outcome, http_status=outcome.http_status)
            case SubmitVerdict.WRONG_URL:
                return self._stop(WrongBaseUrl, outcome, base_url=self.base_url)
            case SubmitVerdict.UNKNOWN:
                self.charges += 1
                if outcome.page and self.throttle.record_html_page():
                    return self._stop(WrongBaseUrl, outcome, base_url=self.base_url)
            case SubmitVerdict.REJECTED:
                self.throttle.reset()
                self.concurrency.on_other_answer(now)
        return None

    def await_callback(self, active: ActiveJob, now: float) -> bool:
        """`entry` is in doubt; whether a callback is worth waiting for: there may be one, and most do come.

        It is waited for twice as long as the longest task has taken, at most a deadline; ten minutes if none is known.
        """
        calls = self.poll_queue.callbacks
        if not calls.enabled or calls.loss.is_unreliable:
            return False
        self._unconfirmed.pop(active, None)  # it may have been in doubt before, and have been sent again
        self._unconfirmed[active] = now
        return True

    def on_callback(self, active: ActiveJob, now: float) -> None:
        """A callback has come for `entry`, which was accepted."""
        self.poll_queue.on_callback(active, now)

    def on_late_callback(self, key: str) -> None:
        """A callback has come for a job that has settled."""
        self.poll_queue.callbacks.on_late_callback(key)

    def drain_unconfirmed(self) -> list[ActiveJob]:
        """The jobs in doubt whose callbacks are waited for; they are not any more."""
        active_jobs = [active for active in self._unconfirmed if active.job.status is JobStatus.UNKNOWN]
        self._unconfirmed.clear()
        return active_jobs

    def on_submit_rolled_back(self, active: ActiveJob) -> None:
        """`entry` was not sent after all."""
        self.submitting -= 1
        self.submit_queue.appendleft(active)

    def _back_off(self, active: ActiveJob, outcome: SubmitOutcome, sent_at: float, now: float, u: float) -> None:
        if outcome.http_status == 429 and self.in_flight:  # all slots busy, ours among them: one will get free
            self.throttle.reset()
            self.concurrency.on_rejected(self.in_flight, sent_at, now, outcome.retry_after)
            active.deadline_at = math.inf
        else:
            self.throttle.pause(now, u, outcome.retry_after)

    def _stop(self, kind: type[SubmissionsStopped], outcome: SubmitOutcome, **facts: object) -> StopSubmitting:
        return StopSubmitting(kind(provider=self.provider, reason=outcome.reason, **facts))

    def on_poll_started(self, active: ActiveJob, now: float) -> None:
        """`entry` is being looked at."""
        self.polling += 1
        active.polls += 1
        self.poll_queue.callbacks.on_poll_started(active, now)
        self.poll_meter.add(now)
        self.poll_rate.take(now)
        if self.breaker.begin():
            self._probe = active

    def on_poll_finished(self, active: ActiveJob, look: PollResult, now: float, at: float, u: float) -> Job:
        """What a look brought -> the job as it stands; at rest if it is settled or parked, else scheduled again."""
        self.polling -= 1
        if look.verdict is PollVerdict.AGAIN or look.verdict is PollVerdict.STOP:
            self.breaker.fail(now, u, probe=active is self._probe)
        else:
            self.breaker.succeed()
        match look.verdict:
            case PollVerdict.READ if look.snapshot is not None:
                return self._on_snapshot(active, look, now, at, u)
            case PollVerdict.MISSING:
                return self._on_not_found(active, look, now, u)
            case _:
                active.failed_polls += 1
                return self._poll_again(active, now, u, look)

    def _on_snapshot(self, active: ActiveJob, look: PollResult, now: float, at: float, u: float) -> Job:
        job, snapshot = active.job, look.snapshot
        assert snapshot is not None  # noqa: S101 - `poll_ends` has seen it
        failure = GenerationFailed(
            key=job.key, provider=job.provider, task_id=job.task_id, reason=snapshot.reason
        ) if snapshot.state is TaskState.FAILED else None  # fmt: skip
        seen = job.with_snapshot(snapshot, at, failure=failure)
        active.failed_polls = active.not_found_count = 0
        if snapshot.state is TaskState.SUCCEEDED_WITHOUT_URL and not active.awaits_url:
            active.awaits_url = True
            active.deadline_at = now + URL_SECONDS
        if seen.is_final:
            self.concurrency.on_settled(active.last_seen_unsettled_at, now)
            self.poll_queue.record_settled(active, snapshot, now, u)
            return self._leave(active, seen)
        active.job = seen
        return self._poll_again(active, now, u, look)

    def _on_not_found(self, active: ActiveJob, look: PollResult, now: float, u: float) -> Job:
        active.not_found_count += 1
        if active.not_found_count == 1:
            active.first_not_found_at = now
        if active.not_found_count >= MISSING_ANSWERS and now - active.first_not_found_at >= MISSING_SECONDS:
            job = active.job
            error = TaskNotFound(
                key=job.key, provider=job.provider, task_id=job.task_id,
                reason=f"{active.not_found_count} denials over {now - active.first_not_found_at:.0f} s: {look.reason}",
            )  # fmt: skip
            self.poll_queue.record_censored(active)
            return self._leave(active, job.timed_out(error))
        return self._poll_again(active, now, u, look)

    def _poll_again(self, active: ActiveJob, now: float, u: float, look: PollResult) -> Job:
        if now >= active.deadline_at:
            return self.expire(active)
        self.poll_queue.schedule(active, now, u, look)
        return active.job

    def expire(self, active: ActiveJob) -> Job:
        """`entry` is past its deadline: parked with its task id."""
        job = active.job
        seconds = active.deadline_at - active.accepted_at
        error = DeadlineExceeded(key=job.key, provider=job.provider, task_id=job.task_id, seconds=seconds)
        self.poll_queue.record_censored(active)
        return self._leave(active, job.timed_out(error))

    def cancel_queued(self, active: ActiveJob) -> bool:
        """Take `entry` back if it has not been sent; False if it is too late for that."""
        try:
            self.submit_queue.remove(active)
        except ValueError:
            return False
        return True

    def drain_accepted(self) -> list[ActiveJob]:
        """Take every accepted job off the heap: the account is stopped and looks are pointless."""
        active_jobs = self.poll_queue.clear()
        for active in active_jobs:
            self.poll_queue.record_censored(active)
        self.in_flight -= len(active_jobs)
        return active_jobs

    def _leave(self, active: ActiveJob, job: Job) -> Job:
        self.in_flight -= 1
        active.job = attrs.evolve(job, polls=job.polls + active.polls)
        active.polls = 0
        return active.job

    def with_poll_count(self, active: ActiveJob) -> Job:
        """The job of `entry` with its looks."""
        active.job = attrs.evolve(active.job, polls=active.job.polls + active.polls)
        active.polls = 0
        return active.job


def apply_verdict(job: Job, outcome: SubmitOutcome, at: float, sent_at: datetime | None = None) -> Job:
    """`job` after its submission of `sent_at` was judged at `at` (unix seconds)."""
    facts = {"key": job.key, "provider": job.provider, "reason": outcome.reason}
    match outcome.verdict:
        case SubmitVerdict.ACCEPTED if outcome.task_id is not None:
            return job.accepted(outcome.task_id, at)
        case SubmitVerdict.NOT_SENT | SubmitVerdict.WAIT | SubmitVerdict.STOP:
            return job.requeued()
        case SubmitVerdict.REJECTED:
            return job.rejected(SubmissionRejected(**facts, http_status=outcome.http_status), at)
        case SubmitVerdict.WRONG_URL:
            status, advice = outcome.http_status, "check the base URL"
            return job.rejected(SubmissionRejected(**facts, http_status=status, advice=advice), at)
        case _:
            error = SubmissionInDoubt(
                **facts, http_status=outcome.http_status, request_id=outcome.request_id,
                at=sent_at or utc_from_timestamp(at), attempt=job.attempts,
            )  # fmt: skip
            return job.in_doubt(error, at)
