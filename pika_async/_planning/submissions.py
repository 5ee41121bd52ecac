"""Submissions of one account: which planned job is sent next, and what follows from each answer. Pure: sends nothing.

Times are the caller's monotonic seconds; `u` is a uniform random number in [0, 1).
"""

from __future__ import annotations

import logging
import math
from typing import Final

import attrs

from pika_async._planning.actions import (
    NEVER,
    Action,
    ActiveJob,
    Park,
    Reject,
    StopSubmitting,
    Submit,
    SubmitTimedOut,
    WaitUntil,
)
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.cooldowns import Cooldowns
from pika_async._planning.fuses import Fuses, Trip
from pika_async._planning.limits import Limits, RateMeter, SubmitThrottle, TokenBucket
from pika_async._planning.money import Spending, correct_cost, money_text
from pika_async._planning.outcomes import blames_account, is_suspicious, rejection, stop_error
from pika_async._planning.prices import AccountPrices
from pika_async._planning.refused_jobs import RefusedJobs
from pika_async._planning.shared_bounds import SharedBounds
from pika_async._planning.submit_queue import SubmitQueue
from pika_async.errors import NoAccountLeft, ProviderUnreachable, SubmissionsStopped, WrongBaseUrl
from pika_async.jobs import Job
from pika_async.models import GenerationRequest
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict

__all__ = ["Submissions"]

_log = logging.getLogger("pika_async.submissions")

#: Seconds without a job to send after which a refusal is judged although a batch has not ended.
QUIET_S: Final = 1.0


@attrs.define(kw_only=True)
class Submissions:
    """The planned jobs of one account, and the limits and fuses that decide when each is sent."""

    #: The name of the account.
    name: str
    base_url: str
    limits: Limits
    concurrency: AdaptiveConcurrency
    rate: TokenBucket
    prices: AccountPrices = attrs.field(factory=AccountPrices)
    #: Charges and money of this account.
    spending: Spending = attrs.field(factory=Spending)
    #: What all accounts of the client have together.
    shared: SharedBounds = attrs.field(factory=SharedBounds)
    throttle: SubmitThrottle = attrs.field(factory=SubmitThrottle)
    fuses: Fuses = attrs.field(factory=Fuses)
    queue: SubmitQueue = attrs.field(factory=SubmitQueue)
    #: Refused jobs whose cause is not known yet.
    refused: RefusedJobs = attrs.field(factory=RefusedJobs)
    #: Number of submissions under way.
    submitting: int = 0
    #: The price that is reserved for each of them; None where unknown.
    reserved: dict[ActiveJob, float | None] = attrs.field(factory=dict)
    meter: RateMeter = attrs.field(factory=RateMeter)
    #: When a kind of job for which the gateway had no channel may be sent again, by stratum.
    cooldowns: Cooldowns = attrs.field(factory=Cooldowns)
    #: Whether the account has stopped, is tried again, and has accepted nothing since.
    on_trial: bool = False
    #: Since when a person has paused submitting; None while it is not paused.
    paused_at: float | None = None
    #: When the last job left the queue and the last submission ended; None while there are any.
    _quiet_since: float | None = None

    # --- deciding ---------------------------------------------------------------------------------------------------

    def next_action(self, now: float, in_flight: int) -> Action | WaitUntil:
        """Return the next action at `now`, with `in_flight` accepted jobs."""
        if self.throttle.stop is not None or not (self.queue or self.refused or self.shared.waiting):
            return NEVER
        short = self._short_of(self.prices.lowest)
        held = self._next_refused(now, is_limit_reached=short is not None) if self.refused else NEVER
        if not isinstance(held, WaitUntil):
            return held
        is_needed = self.queue or (short is not None and self.shared.waiting)
        if not is_needed or self.paused_at is not None:
            return held
        expired = self.queue.pop_expired(now)
        if expired is not None:
            return SubmitTimedOut(expired)
        if short is not None:
            return NEVER if short.submitting else self._stop_at_limit(short)
        return self._next_submit(now, in_flight)

    def _next_refused(self, now: float, *, is_limit_reached: bool) -> StopSubmitting | Reject | WaitUntil:
        """Return the next action at `now` for the refused jobs that are held, or until when they are held."""
        quiet_at = self._quiet_at(now, is_limit_reached=is_limit_reached)
        if quiet_at <= now and (stop := self._on_quiet()) is not None:
            return stop
        for active in reversed(self.refused.pop_again()):
            self.queue.appendleft(active)
        own = self.refused.pop_own()
        if own is None:
            return WaitUntil(quiet_at)
        active, outcome = own
        return Reject(active, rejection(active.job, outcome))

    def _on_quiet(self) -> StopSubmitting | None:
        """Judge the held refusals when nothing else is left to be sent; return an action if they are not the jobs'."""
        alike = None if self.fuses.is_proven else self.refused.common_refusal()
        if alike is not None:  # fewer than the fuse takes, but nothing shows that any request is accepted
            error = stop_error(self.name, self.base_url, alike, Trip.REFUSED_ALIKE, len(self.refused))
            return StopSubmitting(error, self.name)
        self.refused.on_quiet()
        if not self.shared.sources:
            self.fuses.on_quiet()
        return None

    def price_of(self, request: GenerationRequest) -> float | None:
        """Return the price of a request at this account; None where unknown."""
        return self.prices.price_of(request)

    def _short_of(self, price: float | None) -> Spending | None:
        """Return whose limit does not allow one more charge beside those under way: the account's or the client's."""
        if not self.spending.allows(price):
            return self.spending
        return None if self.shared.spending.allows(price) else self.shared.spending

    def _limit_error(self, short: Spending, price: float | None) -> SubmissionsStopped:
        return short.to_error(self.name if short is self.spending else self.shared.name, price)

    def _stop_at_limit(self, short: Spending) -> StopSubmitting:
        error = self._limit_error(short, self.prices.lowest)
        return StopSubmitting(error, self.name if short is self.spending else None)

    def _quiet_at(self, now: float, *, is_limit_reached: bool) -> float:
        """Return from when on nothing else than what is held is left to be sent; infinity if there is something."""
        is_waiting = (self.queue or self.shared.waiting) and not is_limit_reached
        if self.submitting or is_waiting:
            self._quiet_since = None
            return math.inf
        self._quiet_since = now if self._quiet_since is None else self._quiet_since
        return self._quiet_since + (QUIET_S if self.shared.sources and not is_limit_reached else 0.0)

    def _next_submit(self, now: float, in_flight: int) -> Submit | Park | WaitUntil:
        if not self._has_room(in_flight):
            return WaitUntil(self.queue.expires_at if self.queue.gated else math.inf)
        ready_at = max(self._ready_at(now), self.queue.ready_at(now))
        if ready_at > now:
            return WaitUntil(min(ready_at, self.queue.expires_at))
        active = self.queue.pop(now)
        price = self.price_of(active.job.request)
        short = self._short_of(price)
        if short is None:
            return Submit(active)
        if not short.submitting:  # a cheaper job may still be sent
            self.queue.return_probe(active)
            reasons = {self.name: self._limit_error(short, price).message}
            return Park(active, NoAccountLeft(provider=self.name, reasons=reasons))
        self._queue_again(active)
        return NEVER

    def _has_room(self, in_flight: int) -> bool:
        is_free = self.submitting < self.window and self.shared.has_room
        return is_free and self.concurrency.has_capacity(in_flight, self.submitting)

    def can_send_at(self, active: ActiveJob, stratum: str, now: float, in_flight: int) -> float:
        """Return when a job that is in no queue may be sent here; infinity if that depends on what happens first.

        :param stratum: its stratum at this account.
        """
        is_held = self.throttle.stop is not None or self.paused_at is not None or self.queue.precedes(active, stratum)
        if is_held or not self._has_room(in_flight) or self._short_of(self.price_of(active.job.request)) is not None:
            return math.inf
        return max(self._ready_at(now), self.cooldowns.ready_at(stratum, now))

    def limit_of(self, request: GenerationRequest) -> SubmissionsStopped | None:
        """Return why a request cannot be paid for, even if nothing that is under way is charged; None if it can be."""
        price = self.price_of(request)
        short = next((each for each in (self.spending, self.shared.spending) if each.is_exhausted(price)), None)
        return None if short is None else self._limit_error(short, price)

    @property
    def window(self) -> float:
        """Maximum number of submissions under way."""
        return min(self.limits.submitting, self.fuses.window)

    def _ready_at(self, now: float) -> float:
        """Return when the next submission may begin, if there is room for it."""
        return max(
            self.rate.ready_at(now),
            self.throttle.ready_at(now),
            self.concurrency.ready_at(now),
            self.fuses.ready_at(now),
            self.shared.submit_rate.ready_at(now),
        )

    def count_next(self, now: float, in_flight: int) -> int:
        """Return how many queued jobs wait for nothing but the end of submissions under way, at most the room.

        None before the first acceptance, and none while anything else holds them up: a rate, a pause, a full account.
        """
        if not self.submitting:
            return 0
        held = self.throttle.stop is not None or self.paused_at is not None or not self.fuses.is_proven
        if held or not self.queue or self.submitting < self.window:
            return 0
        if not self.concurrency.has_capacity(in_flight, self.submitting):
            return 0
        if self._ready_at(now) > now or self.queue.ready_at(now) > now:
            return 0
        left = min(each.charges_left(self.prices.lowest) for each in (self.spending, self.shared.spending))
        return int(max(0, min(len(self.queue) - self.queue.gated, self.window, left)))

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
        self.throttle.stop, self.on_trial = reason, False
        return self.queue.clear() + self.refused.clear()

    def allow(self) -> None:
        """Allow submissions after a stop."""
        if self.throttle.stop is not None:
            self.throttle = SubmitThrottle()
            self.fuses.reset()

    def begin_trial(self, now: float) -> None:
        """Allow one submission at a time after a stop; one that is not sent or is in doubt stops the account again."""
        self.allow()
        self.fuses.begin_trial(now)
        self.on_trial = True

    def remove(self, active: ActiveJob) -> bool:
        """Remove a job that is not under way and return True; False if it is being sent or was sent already."""
        return self.queue.remove(active) or self.refused.remove(active)

    # --- what happened ----------------------------------------------------------------------------------------------

    def on_started(self, active: ActiveJob, now: float) -> None:
        """Record that a job is being sent."""
        self.submitting += 1
        self.shared.submitting += 1
        self._quiet_since = None
        price = self.reserved[active] = self.price_of(active.job.request)
        self.spending.reserve(price)
        self.shared.spending.reserve(price)
        self.meter.add(now)
        self.rate.take(now)
        self.shared.submit_rate.take(now)
        self.concurrency.on_submit_started(now)
        if math.isinf(active.deadline_at):
            active.deadline_at = now + self.limits.patience

    def on_rolled_back(self, active: ActiveJob) -> None:
        """Queue a job again that was not sent after all."""
        self._on_ended(active, is_charged=False)
        self._queue_again(active)

    def _on_ended(self, active: ActiveJob, *, is_charged: bool) -> None:
        self.submitting -= 1
        self.shared.submitting -= 1
        price = self.reserved.pop(active)
        for spending in (self.spending, self.shared.spending):
            spending.confirm(price) if is_charged else spending.release(price)

    def correct_cost(self, before: Job, after: Job) -> None:
        """Record that a charge costs something else by now, or that a doubt was found not to be charged.

        From a charge above its price on, as much is reserved for each request that has the same price.
        """
        correct_cost(before, after, self.spending, self.shared.spending)
        if after.cost is None or after.cost == before.cost or not before.may_be_charged:
            return
        given = self.prices.learn(after.request, after.cost)
        if given is not None:
            _log.warning(
                "%s charged %s for a request at the price of %s; as much is reserved for each like it from now on",
                self.name, money_text(after.cost), money_text(given),
            )  # fmt: skip

    def on_finished(
        self, active: ActiveJob, outcome: SubmitOutcome, sent_at: float, now: float, u: float, *, in_flight: int
    ) -> StopSubmitting | None:
        """Record the outcome of a submission that has been saved; return an action if submitting should stop."""
        is_charged = outcome.verdict in {SubmitVerdict.ACCEPTED, SubmitVerdict.UNKNOWN}
        self._on_ended(active, is_charged=is_charged)
        match outcome.verdict:
            case SubmitVerdict.ACCEPTED:
                self.cooldowns.reset(active.stratum)
                self.throttle.reset()
                self.on_trial = False
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
                error = WrongBaseUrl(provider=self.name, reason=outcome.reason, base_url=self.base_url)
                return StopSubmitting(error, self.name)
            case SubmitVerdict.UNKNOWN:
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
        is_failed_trial = self.on_trial and not outcome.local
        if not self.throttle.record_unreachable(now, u) and not outcome.lasting and not is_failed_trial:
            return None
        attempts = self.throttle.unsent
        if not outcome.local:
            reason = outcome.reason
            error = ProviderUnreachable(provider=self.name, reason=reason, attempts=attempts)
            return StopSubmitting(error, self.name)
        reason = (
            f"this machine could not make a request ({attempts} attempt{'s' * (attempts > 1)}): {outcome.reason}; "
            "mend that, then run the same again"
        )
        return StopSubmitting(SubmissionsStopped(provider=self.name, reason=reason), self.name)

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
        in_flight += self.concurrency.others
        if outcome.is_rate_limited and in_flight:  # known jobs hold slots, and will free them
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
        error = stop_error(self.name, self.base_url, outcome, trip, self.fuses.count_of(trip))
        return StopSubmitting(error, self.name)
