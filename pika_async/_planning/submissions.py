"""Submissions of one account: which planned job is sent next, and what follows from each answer. Pure: sends nothing.

Times are the caller's monotonic seconds; `u` is a uniform random number in [0, 1).
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from pika_async._planning.actions import (
    ActiveJob,
    Reject,
    StopSubmitting,
    Submit,
    SubmitTimedOut,
    WaitUntil,
)
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.fuses import Fuses, Trip
from pika_async._planning.limits import Limits, RateMeter, SubmitThrottle, TokenBucket
from pika_async._planning.money import Budget
from pika_async._planning.outcomes import blames_account, is_suspicious, rejection, stop_error
from pika_async._planning.refused_jobs import RefusedJobs
from pika_async._planning.submit_queue import MAX_GATED, SubmitQueue
from pika_async.errors import BudgetReached, ChargeLimitReached, ProviderUnreachable, SubmissionsStopped, WrongBaseUrl
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict

__all__ = ["Submissions"]

#: Seconds without a job to send after which a refusal is judged although a batch has not ended.
QUIET_S: Final = 1.0


@attrs.define(kw_only=True)
class Submissions:
    """The planned jobs of one account, and the limits and fuses that decide when each is sent."""

    provider: str
    base_url: str
    limits: Limits
    concurrency: AdaptiveConcurrency
    rate: TokenBucket
    throttle: SubmitThrottle = attrs.field(factory=SubmitThrottle)
    fuses: Fuses = attrs.field(factory=Fuses)
    queue: SubmitQueue = attrs.field(factory=SubmitQueue)
    #: Refused jobs whose cause is not known yet.
    refused: RefusedJobs = attrs.field(factory=RefusedJobs)
    #: Money for all charges; None: no limit.
    budget: Budget | None = None
    #: Number of submissions under way.
    submitting: int = 0
    #: Number of submissions that were accepted or are in doubt.
    charges: int = 0
    meter: RateMeter = attrs.field(factory=RateMeter)
    #: Number of batches that may queue another job.
    sources: int = 0
    #: Since when a person has paused submitting; None while it is not paused.
    paused_at: float | None = None
    #: When the last job left the queue and the last submission ended; None while there are any.
    _quiet_since: float | None = None

    # --- deciding ---------------------------------------------------------------------------------------------------

    def next_action(self, now: float, in_flight: int) -> Submit | SubmitTimedOut | Reject | StopSubmitting | WaitUntil:
        """Return the next action at `now`, with `in_flight` accepted jobs."""
        if self.throttle.stop is not None:
            return WaitUntil(math.inf)
        is_limit_reached = self.charges + self.submitting >= self._charge_limit
        quiet_at = self._quiet_at(now, is_limit_reached=is_limit_reached)
        if quiet_at <= now and (stop := self._on_quiet()) is not None:
            return stop
        for active in reversed(self.refused.pop_again()):
            self.queue.appendleft(active)
        own = self.refused.pop_own()
        if own is not None:
            active, outcome = own
            return Reject(active, rejection(active.job, outcome))
        if not self.queue or self.paused_at is not None:
            return WaitUntil(quiet_at)
        expired = self.queue.pop_expired(now)
        if expired is not None:
            return SubmitTimedOut(expired)
        if is_limit_reached:
            return WaitUntil(math.inf) if self.submitting else StopSubmitting(self._limit_error())
        return self._next_submit(now, in_flight)

    def _on_quiet(self) -> StopSubmitting | None:
        """Judge the held refusals when nothing else is left to be sent; return an action if they are not the jobs'."""
        alike = None if self.fuses.is_proven else self.refused.common_refusal()
        if alike is not None:  # fewer than the fuse takes, but nothing shows that any request is accepted
            error = stop_error(self.provider, self.base_url, alike, Trip.REFUSED_ALIKE, len(self.refused))
            return StopSubmitting(error)
        self.refused.on_quiet()
        if not self.sources:
            self.fuses.on_quiet()
        return None

    @property
    def _charge_limit(self) -> float:
        """Number of charges that the limit and the budget allow. Each is counted as soon as it is sent."""
        limit = self.limits.max_charges
        return min(math.inf if limit is None else limit, math.inf if self.budget is None else self.budget.charges)

    def _limit_error(self) -> ChargeLimitReached | BudgetReached:
        limit = self.limits.max_charges
        if self.budget is not None and (limit is None or self.budget.charges < limit):
            return self.budget.to_error(self.provider, self.charges)
        return ChargeLimitReached(provider=self.provider, limit=limit or 0)

    def _quiet_at(self, now: float, *, is_limit_reached: bool) -> float:
        """Return from when on nothing else is left to be sent; infinity if there is something, or nothing is held."""
        if self.submitting or not self.refused or (self.queue and not is_limit_reached):
            self._quiet_since = None
            return math.inf
        self._quiet_since = now if self._quiet_since is None else self._quiet_since
        return self._quiet_since + (QUIET_S if self.sources and not is_limit_reached else 0.0)

    def _next_submit(self, now: float, in_flight: int) -> Submit | WaitUntil:
        if self.submitting >= self._room or not self.concurrency.has_capacity(in_flight, self.submitting):
            return WaitUntil(self.queue.expires_at if self.queue.gated else math.inf)
        ready_at = self._ready_at(now)
        if ready_at > now:
            return WaitUntil(min(ready_at, self.queue.expires_at))
        return Submit(self.queue.pop(now))

    @property
    def _room(self) -> float:
        """Maximum number of submissions under way."""
        return min(self.limits.submitting, self.fuses.window)

    def _ready_at(self, now: float) -> float:
        """Return when the next submission may begin, if there is room for it."""
        return max(
            self.rate.ready_at(now),
            self.throttle.ready_at(now),
            self.concurrency.ready_at(now),
            self.fuses.ready_at(now),
            self.queue.ready_at(now),
        )

    def count_next(self, now: float, in_flight: int) -> int:
        """Return how many queued jobs wait for nothing but the end of submissions under way, at most the room.

        None before the first acceptance, and none while anything else holds them up: a rate, a pause, a full account.
        """
        if not self.submitting:
            return 0
        held = self.throttle.stop is not None or self.paused_at is not None or not self.fuses.is_proven
        if held or not self.queue or self.submitting < self._room:
            return 0
        if not self.concurrency.has_capacity(in_flight, self.submitting) or self._ready_at(now) > now:
            return 0
        left = self._charge_limit - self.charges - self.submitting
        return int(max(0, min(len(self.queue) - self.queue.gated, self._room, left)))

    def needs_more(self, unsent: int) -> bool:
        """Return whether a caller with `unsent` queued jobs should queue another: enough to submit concurrently.

        Jobs behind a gate do not count, up to a number.
        """
        waiting = unsent - min(self.queue.gated, MAX_GATED)
        return self.throttle.stop is None and waiting < self.limits.submitting

    # --- pausing ----------------------------------------------------------------------------------------------------

    def pause(self, now: float) -> None:
        """Start no submission until `resume`; what is queued stays queued."""
        if self.paused_at is None:
            self.paused_at = now

    def resume(self, now: float) -> None:
        """Submit again after `pause`. The time of the pause costs no job any of its patience."""
        if self.paused_at is None:
            return
        seconds, self.paused_at = now - self.paused_at, None
        self.queue.postpone(seconds)
        for active in self.refused:
            active.deadline_at += seconds

    # --- stopping ---------------------------------------------------------------------------------------------------

    def stop(self, reason: SubmissionsStopped) -> list[ActiveJob]:
        """Stop submitting, and return the jobs that were not sent or were refused without being at fault."""
        self.throttle.stop = reason
        return self.queue.clear() + self.refused.clear()

    def allow(self) -> None:
        """Allow submissions after a stop."""
        if self.throttle.stop is not None:
            self.throttle = SubmitThrottle()
            self.fuses.reset()

    def remove(self, active: ActiveJob) -> bool:
        """Remove a job that is not under way and return True; False if it is being sent or was sent already."""
        return self.queue.remove(active) or self.refused.remove(active)

    # --- what happened ----------------------------------------------------------------------------------------------

    def on_started(self, active: ActiveJob, now: float) -> None:
        """Record that a job is being sent."""
        self.submitting += 1
        self.meter.add(now)
        self.rate.take(now)
        self.concurrency.on_submit_started(now)
        if math.isinf(active.deadline_at):
            active.deadline_at = now + self.limits.patience

    def on_rolled_back(self, active: ActiveJob) -> None:
        """Queue a job again that was not sent after all."""
        self.submitting -= 1
        self._queue_again(active)

    def on_uncharged(self) -> None:
        """Subtract the charge of a submission in doubt that a person has found not to be charged."""
        self.charges -= 1

    def on_finished(
        self, active: ActiveJob, outcome: SubmitOutcome, sent_at: float, now: float, u: float, *, in_flight: int
    ) -> StopSubmitting | None:
        """Record the outcome of a submission that has been saved; return an action if submitting should stop."""
        self.submitting -= 1
        match outcome.verdict:
            case SubmitVerdict.ACCEPTED:
                self.charges += 1
                self.throttle.reset()
                self.concurrency.on_accepted(now)
                self.queue.open_gate(active)
                self.fuses.on_accepted()
                self.refused.on_accepted(active.job.key, sent_at)
            case SubmitVerdict.NOT_SENT:
                return self._on_unsent(active, outcome, now, u)
            case SubmitVerdict.WAIT:
                self._back_off(active, outcome, sent_at, now, u, in_flight=in_flight)
            case SubmitVerdict.STOP:
                return self._on_account_refusal(active, outcome, now)
            case SubmitVerdict.WRONG_URL:
                self._queue_again(active)
                error = WrongBaseUrl(provider=self.provider, reason=outcome.reason, base_url=self.base_url)
                return StopSubmitting(error)
            case SubmitVerdict.UNKNOWN:
                self.charges += 1
                self.queue.return_probe(active)
                trip = self.fuses.on_doubt(sent_at, now, u, unreadable=outcome.unreadable)
                return self._stop_for(trip, outcome)
            case SubmitVerdict.REJECTED:
                return self._on_refused(active, outcome, now)
        return None

    def _on_unsent(self, active: ActiveJob, outcome: SubmitOutcome, now: float, u: float) -> StopSubmitting | None:
        if outcome.local:  # behind the others, which may not need what failed
            self.queue.return_probe(active)
            self.queue.append(active)
        else:
            self._queue_again(active)
        if not self.throttle.record_unreachable(now, u) and not outcome.lasting:
            return None
        attempts = self.throttle.unsent
        if not outcome.local:
            reason = outcome.reason
            return StopSubmitting(ProviderUnreachable(provider=self.provider, reason=reason, attempts=attempts))
        reason = (
            f"this machine could not make a request ({attempts} attempt{'s' * (attempts > 1)}): {outcome.reason}; "
            "mend that, then run the same again"
        )
        return StopSubmitting(SubmissionsStopped(provider=self.provider, reason=reason))

    def _queue_again(self, active: ActiveJob) -> None:
        self.queue.return_probe(active)
        self.queue.appendleft(active)

    def _back_off(
        self, active: ActiveJob, outcome: SubmitOutcome, sent_at: float, now: float, u: float, *, in_flight: int
    ) -> None:
        if outcome.model is not None:
            self.throttle.reset()
            self.queue.close_gate(active, now, u, outcome.retry_after, self.limits.patience)
            return
        self._queue_again(active)
        if outcome.is_rate_limited and in_flight:  # jobs of this client hold slots, and will free them
            self.throttle.reset()
            self.concurrency.on_rejected(in_flight, sent_at, now, outcome.retry_after)
            active.deadline_at = math.inf
        else:
            self.throttle.pause(now, u, outcome.retry_after)

    def _on_refused(self, active: ActiveJob, outcome: SubmitOutcome, now: float) -> StopSubmitting | None:
        self.throttle.reset()
        self.concurrency.on_other_answer(now)
        self.queue.open_gate(active)
        if not is_suspicious(outcome):
            return None  # refused on this machine
        self.refused.hold(active, outcome, now)
        return self._stop_for(self.fuses.on_refused(outcome.fingerprint, active.job.request.fingerprint()), outcome)

    def _on_account_refusal(self, active: ActiveJob, outcome: SubmitOutcome, now: float) -> StopSubmitting | None:
        self.queue.return_probe(active)
        if blames_account(outcome) and self.refused.is_repeated(active, outcome):
            self.refused.add_own(active, outcome)
            return None
        self.refused.hold(active, outcome, now)
        trip = self.fuses.on_account_refusal(active.job.key) if blames_account(outcome) else Trip.ACCOUNT
        return self._stop_for(trip, outcome)

    def _stop_for(self, trip: Trip | None, outcome: SubmitOutcome) -> StopSubmitting | None:
        if trip is None:
            return None
        error = stop_error(self.provider, self.base_url, outcome, trip, self.fuses.count_of(trip))
        return StopSubmitting(error)
