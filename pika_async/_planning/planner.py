"""Planner of one client: from its jobs, the time and the limits to the next action. Pure: carries out no action.

Times are the caller's monotonic seconds, `at` is in unix seconds; `u` is a uniform random number in [0, 1).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

import attrs

from pika_async._planning.actions import (
    RESUMED,
    Action,
    ActiveJob,
    CallbackTimedOut,
    DeadlinePassed,
    Park,
    Poll,
    PollResult,
    StopSubmitting,
    WaitUntil,
)
from pika_async._planning.last_seen import deadline_exceeded, last_seen_after, task_not_found
from pika_async._planning.limits import CircuitBreaker, Limits, RateMeter, TokenBucket
from pika_async._planning.poll_queue import PollQueue
from pika_async._planning.submissions import Submissions
from pika_async.errors import GenerationFailed, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.models import TaskState
from pika_async.providers._kinds import kind_of_failure
from pika_async.providers._verdicts import PollVerdict, SubmitOutcome, SubmitVerdict

__all__ = ["Planner"]

#: An accepted task that the provider does not find is given up after at least this many such answers...
MIN_NOT_FOUND_COUNT: Final = 5
#: ... over at least this many seconds.
MIN_NOT_FOUND_S: Final = 600.0
#: Seconds for which a task is polled that has succeeded but has no URL yet.
URL_WAIT_S: Final = 600.0
#: A job in doubt waits for its callback for this many times the longest duration so far, at most for `deadline`...
CALLBACK_WAIT_FACTOR: Final = 2.0
#: ... or for this many seconds while no task has settled: the documented example took 232 s.
CALLBACK_WAIT_S: Final = 600.0


@attrs.define(kw_only=True)
class Planner:
    """State of the jobs of one client, with one provider and one account, and the choice of its next action."""

    provider: str
    base_url: str
    limits: Limits
    #: Seconds after acceptance at which an unsettled job is parked.
    deadline: float
    submissions: Submissions
    poll_queue: PollQueue
    poll_rate: TokenBucket
    breaker: CircuitBreaker = attrs.field(factory=CircuitBreaker)
    closing: bool = False
    in_flight: int = 0
    polling: int = 0
    poll_meter: RateMeter = attrs.field(factory=RateMeter)
    #: The job whose poll was the latest probe of an open breaker.
    _probe: ActiveJob | None = None
    #: Jobs in doubt that wait for a callback, and since when.
    _unconfirmed: dict[ActiveJob, float] = attrs.field(factory=dict)
    #: Jobs that a stop has taken out of every queue and that are parked one by one, since there may be many.
    _stopped: OrderedDict[ActiveJob, SubmissionsStopped] = attrs.field(factory=OrderedDict)

    # --- deciding ---------------------------------------------------------------------------------------------------

    def next_action(self, now: float) -> Action | WaitUntil:
        """Return the next action at `now`; polls have priority, because they free capacity."""
        park = self.next_stopped()
        if park is not None:
            return park
        poll = self._next_poll(now)
        if isinstance(poll, Poll | DeadlinePassed):
            return poll
        submit = WaitUntil(math.inf) if self.closing else self.submissions.next_action(now, self.in_flight)
        if not isinstance(submit, WaitUntil):
            return submit
        doubt = self._next_unconfirmed(now)
        return doubt if isinstance(doubt, CallbackTimedOut) else WaitUntil(min(poll.until, submit.until, doubt.until))

    def _next_unconfirmed(self, now: float) -> CallbackTimedOut | WaitUntil:
        while self._unconfirmed:
            active, since = next(iter(self._unconfirmed.items()))
            until = since + min(
                self.deadline, CALLBACK_WAIT_FACTOR * self.poll_queue.adapter.longest or CALLBACK_WAIT_S
            )
            if active.job.status is JobStatus.UNKNOWN and until > now:
                return WaitUntil(until)
            del self._unconfirmed[active]
            if active.job.status is JobStatus.UNKNOWN:
                return CallbackTimedOut(active)
        return WaitUntil(math.inf)

    def _next_poll(self, now: float) -> Poll | DeadlinePassed | WaitUntil:
        due_at = self.poll_queue.ready_at(now)
        if due_at > now:
            return WaitUntil(due_at)
        breaker_ready_at = self.breaker.ready_at(now)
        if breaker_ready_at > now:
            active = self.poll_queue.pop_expired(now)
            if active is not None:
                return DeadlinePassed(active)
        if self.polling >= self.limits.polling:
            return WaitUntil(math.inf)
        if breaker_ready_at > now:
            return WaitUntil(min(breaker_ready_at, self.poll_queue.expires_at))
        ready_at = self.poll_rate.ready_at(now)
        return Poll(self.poll_queue.pop(now)) if ready_at <= now else WaitUntil(ready_at)

    def needs_more(self, unsent: int) -> bool:
        """Return whether a caller with `unsent` queued jobs should queue another: enough to submit concurrently."""
        return self.submissions.needs_more(unsent)

    def count_next(self, now: float) -> int:
        """Return how many jobs are sent next, each as soon as a submission under way has ended."""
        return 0 if self.closing else self.submissions.count_next(now, self.in_flight)

    # --- stopping ---------------------------------------------------------------------------------------------------

    @property
    def stop_reason(self) -> SubmissionsStopped | None:
        """Why nothing is submitted; None if submissions are allowed."""
        return self.submissions.throttle.stop

    def stop_submitting(self, reason: SubmissionsStopped) -> None:
        """Stop submitting. The jobs that are queued are parked by the next actions, with `reason` as their error."""
        self._stopped.update(dict.fromkeys(self.submissions.stop(reason), reason))

    def stop_polling(self, error: SubmissionsStopped) -> None:
        """Stop polling, and waiting for callbacks: the account no longer answers polls.

        The jobs that are accepted are parked by the next actions with `error`, those in doubt with the error they have.
        """
        for active in self.poll_queue.clear():
            active.next_poll_at = -math.inf  # no callback puts it back into the queue
            self._stopped[active] = error
        self._unconfirmed = dict.fromkeys(self._unconfirmed, -math.inf)

    def next_stopped(self) -> Park | None:
        """Remove and return the next job that a stop parks; None if there is none."""
        return Park(*self._stopped.popitem(last=False)) if self._stopped else None

    def remove_unsent(self, active: ActiveJob) -> bool:
        """Remove a job that is not under way and return True; False if it is being sent or was sent already."""
        if self.submissions.remove(active):
            return True
        return active.job.status is JobStatus.PLANNED and self._stopped.pop(active, None) is not None

    def on_stopped(self, active: ActiveJob) -> Job:
        """Return the job of an action `Park`; one that was accepted is no longer polled."""
        if not active.job.is_in_flight:
            return active.job
        self.poll_queue.record_censored(active)
        return self._leave(active, active.job)

    def allow_submitting(self) -> None:
        """Allow submissions after a stop."""
        self.submissions.allow()

    def close(self) -> None:
        """Start no more submissions."""
        self.closing = True

    # --- what happened ----------------------------------------------------------------------------------------------

    def queue(self, active: ActiveJob, now: float) -> None:
        """Queue a job for submission, with the full patience of a new one."""
        self._unconfirmed.pop(active, None)
        active.last_seen_unsettled_at, active.deadline_at = now, math.inf
        self.submissions.queue.append(active)

    def resume(self, active: ActiveJob, age: float, now: float, u: float) -> None:
        """Plan an early poll of a job that was accepted `age` seconds ago, by a wall clock that may have been moved.

        Its deadline begins anew. Polls are planned by its age, but at most by that of a job at its deadline.
        """
        self._mark_accepted(active, now - min(max(age, 0.0), self.deadline), now)
        active.rare = RESUMED
        self.poll_queue.resume(active, now, u)

    def _mark_accepted(self, active: ActiveJob, accepted_at: float, now: float) -> None:
        self.in_flight += 1
        self._unconfirmed.pop(active, None)
        active.accepted_at = active.last_seen_unsettled_at = accepted_at
        active.deadline_at = now + self.deadline

    def on_submit_started(self, active: ActiveJob, now: float) -> None:
        """Record that a job is being sent."""
        self.submissions.on_started(active, now)

    def on_submit_finished(
        self, active: ActiveJob, outcome: SubmitOutcome, sent_at: float, now: float, u: float
    ) -> StopSubmitting | None:
        """Record the outcome of a submission that has been saved; return an action if submitting should stop."""
        stop = self.submissions.on_finished(active, outcome, sent_at, now, u, in_flight=self.in_flight)
        if outcome.verdict is SubmitVerdict.ACCEPTED:
            self._mark_accepted(active, now, now)
            self.poll_queue.schedule(active, now, u)
        return stop

    def await_callback(self, active: ActiveJob, now: float) -> bool:
        """Wait for the callback of a job in doubt; return False if callbacks are off or unreliable."""
        callbacks = self.poll_queue.callbacks
        if not callbacks.enabled or callbacks.loss.is_unreliable:
            return False
        self._unconfirmed.pop(active, None)  # the job may be in doubt for the second time
        self._unconfirmed[active] = now
        return True

    def on_callback(self, active: ActiveJob, now: float) -> None:
        """Plan an immediate poll of an accepted job for which a callback has come."""
        self.poll_queue.on_callback(active, now)

    def on_late_callback(self, key: str) -> None:
        """Record a callback for a job that has settled already."""
        self.poll_queue.callbacks.on_late_callback(key)

    def on_poll_started(self, active: ActiveJob, now: float) -> None:
        """Record that a job is being polled."""
        self.polling += 1
        active.polls += 1
        self.poll_queue.callbacks.on_poll_started(active, now)
        self.poll_meter.add(now)
        self.poll_rate.take(now)
        if self.breaker.begin():
            self._probe = active

    def on_poll_finished(self, active: ActiveJob, result: PollResult, now: float, at: float, u: float) -> Job:
        """Apply the result of a poll and return the job; plan its next poll unless it is settled or parked."""
        self.polling -= 1
        if result.verdict is not PollVerdict.MISSING:
            active.last_seen = last_seen_after(active.last_seen, result)
        if result.verdict is PollVerdict.AGAIN or result.verdict is PollVerdict.STOP:
            self.breaker.fail(now, u, probe=active is self._probe)
        else:
            self.breaker.succeed()
        match result.verdict:
            case PollVerdict.READ if result.snapshot is not None:
                return self._on_snapshot(active, result, now, at, u)
            case PollVerdict.MISSING:
                return self._on_not_found(active, result, now, u)
            case _:
                active.failed_polls += 1
                return self._poll_again(active, now, u, result)

    def _on_snapshot(self, active: ActiveJob, result: PollResult, now: float, at: float, u: float) -> Job:
        job, snapshot = active.job, result.snapshot
        assert snapshot is not None  # noqa: S101 - checked by `on_poll_finished`
        failure = GenerationFailed(
            key=job.key, provider=job.provider, task_id=job.task_id, reason=snapshot.reason,
            kind=kind_of_failure(snapshot.failure_code, snapshot.reason),
            refunded=None if snapshot.points is None else snapshot.points == 0,
        ) if snapshot.state is TaskState.FAILED else None  # fmt: skip
        job = job.with_snapshot(
            snapshot, at, failure=failure, last_seen=None if snapshot.known_word else active.last_seen
        )
        active.failed_polls = 0
        if active.rare.not_found_count:
            active.rare = attrs.evolve(active.rare, not_found_count=0)
        if snapshot.state is TaskState.SUCCEEDED_WITHOUT_URL and not active.rare.awaits_url:
            active.rare = attrs.evolve(active.rare, awaits_url=True)
            active.deadline_at = now + URL_WAIT_S
        if job.is_final:
            self.submissions.concurrency.on_settled(active.last_seen_unsettled_at, now)
            self.poll_queue.record_settled(active, snapshot, now, u)
            return self._leave(active, job)
        active.job = job
        return self._poll_again(active, now, u, result)

    def _on_not_found(self, active: ActiveJob, result: PollResult, now: float, u: float) -> Job:
        rare = active.rare
        first_at = rare.first_not_found_at if rare.not_found_count else now
        active.rare = attrs.evolve(rare, not_found_count=rare.not_found_count + 1, first_not_found_at=first_at)
        job, seconds = active.job, now - first_at
        if active.rare.not_found_count >= MIN_NOT_FOUND_COUNT and seconds >= MIN_NOT_FOUND_S:
            error = task_not_found(active, seconds, result.reason)
            self.poll_queue.record_censored(active)
            return self._leave(active, job.timed_out(error))
        return self._poll_again(active, now, u, result)

    def _poll_again(self, active: ActiveJob, now: float, u: float, result: PollResult) -> Job:
        if now >= active.deadline_at:
            return self.expire(active)
        self.poll_queue.schedule(active, now, u, result)
        return active.job

    def expire(self, active: ActiveJob) -> Job:
        """Park a job that is past its deadline, with its task id, and return it."""
        error = deadline_exceeded(active)
        self.poll_queue.record_censored(active)
        return self._leave(active, active.job.timed_out(error))

    def _leave(self, active: ActiveJob, job: Job) -> Job:
        self.in_flight -= 1
        active.job = job
        return self.with_poll_count(active)

    def with_poll_count(self, active: ActiveJob) -> Job:
        """Add the polls since the last call to the job, and return it."""
        active.job = attrs.evolve(active.job, polls=active.job.polls + active.polls)
        active.polls = 0
        return active.job
