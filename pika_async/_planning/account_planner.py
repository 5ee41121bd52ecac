"""Planner of one account: its submissions, its polls, and what follows from their answers. Pure: carries out nothing.

Times are the caller's monotonic seconds, `at` is in unix seconds; `u` is a uniform random number in [0, 1).
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from pika_async._planning.actions import (
    NEVER,
    RESUMED,
    Action,
    ActiveJob,
    CallbackTimedOut,
    DeadlinePassed,
    Poll,
    PollResult,
    StopSubmitting,
    WaitUntil,
)
from pika_async._planning.last_seen import deadline_exceeded, last_seen_after, task_not_found
from pika_async._planning.limits import MAX_IN_FLIGHT, CircuitBreaker, Limits, RateMeter, TokenBucket
from pika_async._planning.poll_queue import PollQueue
from pika_async._planning.shared_bounds import SharedBounds
from pika_async._planning.submissions import Submissions
from pika_async.errors import GenerationFailed, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.models import TaskState
from pika_async.providers._kinds import kind_of_failure
from pika_async.providers._verdicts import PollVerdict, SubmitOutcome, SubmitVerdict

__all__ = ["AccountPlanner"]

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
class AccountPlanner:
    """State of the jobs of one account, and the choice of its next action."""

    #: The name of the account.
    name: str
    provider: str
    base_url: str
    limits: Limits
    #: Seconds after acceptance at which an unsettled job is parked.
    deadline: float
    submissions: Submissions
    poll_queue: PollQueue
    poll_rate: TokenBucket
    breaker: CircuitBreaker = attrs.field(factory=CircuitBreaker)
    #: What all accounts of the client have together.
    shared: SharedBounds = attrs.field(factory=SharedBounds)
    #: Share of the jobs beside other accounts with as much room.
    weight: float = 1.0
    #: Maximum number of accepted jobs of this account; None: that of the client.
    max_in_flight: int | None = None
    in_flight: int = 0
    polling: int = 0
    poll_meter: RateMeter = attrs.field(factory=RateMeter)
    #: The job whose poll was the latest probe of an open breaker.
    _probe: ActiveJob | None = None
    #: Jobs in doubt that wait for a callback, and since when.
    unconfirmed: dict[ActiveJob, float] = attrs.field(factory=dict)

    # --- deciding ---------------------------------------------------------------------------------------------------

    def next_unconfirmed(self, now: float) -> CallbackTimedOut | WaitUntil:
        """Return the next job in doubt whose callback has not come in time."""
        while self.unconfirmed:
            active, since = next(iter(self.unconfirmed.items()))
            until = since + min(
                self.deadline, CALLBACK_WAIT_FACTOR * self.poll_queue.adapter.longest or CALLBACK_WAIT_S
            )
            if active.job.status is JobStatus.UNKNOWN and until > now:
                return WaitUntil(until)
            del self.unconfirmed[active]
            if active.job.status is JobStatus.UNKNOWN:
                return CallbackTimedOut(active)
        return NEVER

    def next_poll(self, now: float) -> Poll | DeadlinePassed | WaitUntil:
        """Return the next poll at `now`, or a job whose deadline has passed while none is possible."""
        due_at = self.poll_queue.ready_at(now)
        if due_at > now:
            return WaitUntil(due_at)
        breaker_ready_at = self.breaker.ready_at(now)
        if breaker_ready_at > now:
            active = self.poll_queue.pop_expired(now)
            if active is not None:
                return DeadlinePassed(active)
        if self.polling >= self.limits.polling or self.shared.polling >= self.shared.polling_limit:
            return WaitUntil(math.inf)
        if breaker_ready_at > now:
            return WaitUntil(min(breaker_ready_at, self.poll_queue.expires_at))
        ready_at = max(self.poll_rate.ready_at(now), self.shared.poll_rate.ready_at(now))
        return Poll(self.poll_queue.pop(now)) if ready_at <= now else WaitUntil(ready_at)

    def next_submit(self, now: float) -> Action | WaitUntil:
        """Return the next action at `now` for the planned jobs that are in the queue of this account."""
        return self.submissions.next_action(now, self.in_flight)

    @property
    def room(self) -> float:
        """Number of tasks that the account is known to run at a time; `MAX_IN_FLIGHT` or more where it is not known."""
        concurrency = self.submissions.concurrency
        return min(concurrency.ceiling, concurrency.estimated_limit or math.inf)

    def load(self, default_room: float) -> float:
        """Return the share of the room that would be in use with one more job, by the weight of the account.

        Jobs of other processes count as well.

        :param default_room: the room where it is not known.
        """
        room = default_room if self.room >= MAX_IN_FLIGHT else max(1.0, self.room)
        concurrency = self.submissions.concurrency
        others = concurrency.others + concurrency.others_submitting
        return (self.in_flight + self.submissions.submitting + others + 1) / (room * self.weight)

    @property
    def is_idle(self) -> bool:
        """Whether the account has room and no job of its own that waits for it."""
        submissions = self.submissions
        if submissions.queue or submissions.submitting >= submissions.window:
            return False
        return submissions.concurrency.has_capacity(self.in_flight, submissions.submitting)

    def set_max_in_flight(self, jobs: int) -> None:
        """Replace the maximum number of accepted jobs of the client; the account keeps a lower one of its own."""
        own = self.max_in_flight
        self.submissions.concurrency.ceiling = jobs if own is None else min(own, jobs)

    def count_next(self, now: float) -> int:
        """Return how many jobs are sent next, each as soon as a submission under way has ended."""
        return self.submissions.count_next(now, self.in_flight)

    # --- stopping ---------------------------------------------------------------------------------------------------

    @property
    def stop_reason(self) -> SubmissionsStopped | None:
        """Why nothing is submitted; None if submissions are allowed."""
        return self.submissions.throttle.stop

    def stop_submitting(self, reason: SubmissionsStopped) -> list[ActiveJob]:
        """Stop submitting. Return the jobs that were queued, which are no longer in any queue."""
        return self.submissions.stop(reason)

    def stop_polling(self) -> list[ActiveJob]:
        """Stop polling, and waiting for callbacks: the account no longer answers polls. Return the accepted jobs."""
        accepted = self.poll_queue.clear()
        for active in accepted:
            active.next_poll_at = -math.inf  # no callback puts it back into the queue
        self.unconfirmed = dict.fromkeys(self.unconfirmed, -math.inf)
        return accepted

    def on_stopped(self, active: ActiveJob) -> Job:
        """Return the job of an action `Park`, which was accepted and is no longer polled."""
        self.poll_queue.record_censored(active)
        return self._leave(active, active.job)

    # --- what happened ----------------------------------------------------------------------------------------------

    def queue(self, active: ActiveJob, now: float) -> None:
        """Queue a job for submission, with the full patience of a new one."""
        self.forget_doubt(active)
        active.last_seen_unsettled_at, active.deadline_at = now, math.inf
        self.submissions.queue.append(active)

    def forget_doubt(self, active: ActiveJob) -> None:
        """Wait for no callback of a job any more."""
        self.unconfirmed.pop(active, None)

    def resume(self, active: ActiveJob, age: float, now: float, u: float) -> None:
        """Plan an early poll of a job that was accepted `age` seconds ago, by a wall clock that may have been moved.

        Its deadline begins anew. Polls are planned by its age, but at most by that of a job at its deadline.
        """
        self._mark_accepted(active, now - min(max(age, 0.0), self.deadline), now)
        active.rare = RESUMED
        self.poll_queue.resume(active, now, u)

    def _mark_accepted(self, active: ActiveJob, accepted_at: float, now: float) -> None:
        self.in_flight += 1
        self.shared.in_flight += 1
        self.unconfirmed.pop(active, None)
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
        self.unconfirmed.pop(active, None)  # the job may be in doubt for the second time
        self.unconfirmed[active] = now
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
        self.shared.polling += 1
        active.polls += 1
        self.poll_queue.callbacks.on_poll_started(active, now)
        self.poll_meter.add(now)
        self.poll_rate.take(now)
        self.shared.poll_rate.take(now)
        if self.breaker.begin():
            self._probe = active

    def on_poll_finished(self, active: ActiveJob, result: PollResult, now: float, at: float, u: float) -> Job:
        """Apply the result of a poll and return the job; plan its next poll unless it is settled or parked."""
        self.polling -= 1
        self.shared.polling -= 1
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
        before = job
        job = job.with_snapshot(
            snapshot, at, failure=failure, last_seen=None if snapshot.known_word else active.last_seen
        )
        if job.cost != before.cost:
            self.submissions.correct_cost(before, job)
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
        self.shared.in_flight -= 1
        active.job = job
        return self.with_poll_count(active)

    def with_poll_count(self, active: ActiveJob) -> Job:
        """Add the polls since the last call to the job, and return it."""
        active.job = attrs.evolve(active.job, polls=active.job.polls + active.polls)
        active.polls = 0
        return active.job
