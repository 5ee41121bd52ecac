"""Planner of one client: from its jobs, the time and the limits to the next action. Pure: carries out no action.

Times are the caller's monotonic seconds, `at` is in unix seconds; `u` is a uniform random number in [0, 1).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import attrs

from pika_async._planning.account_planner import AccountPlanner
from pika_async._planning.actions import (
    Action,
    ActiveJob,
    Park,
    PollResult,
    StopSubmitting,
    SubmitTimedOut,
    WaitUntil,
)
from pika_async._planning.limits import Limits
from pika_async._planning.money import correct_cost
from pika_async._planning.reopenings import Reopenings, passes_by_itself
from pika_async._planning.router import Router, bind
from pika_async._planning.shared_bounds import SharedBounds
from pika_async._planning.submit_queue import MAX_GATED
from pika_async._planning.turns import Source, in_turns
from pika_async.errors import NoAccountLeft, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.polling.durations import DurationSample
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict

__all__ = ["Planner"]

#: Submissions in a row that an account could not send before the job goes to another account.
MOVE_AFTER_UNSENT: Final = 2
#: Verdicts of which each proves that an account did not accept the job, and that another may.
MOVABLE: Final = frozenset({SubmitVerdict.NOT_SENT, SubmitVerdict.WAIT, SubmitVerdict.STOP})


@attrs.define(kw_only=True)
class Planner:
    """State of the jobs of one client, and the choice of its next action.

    :param router: the accounts, and the jobs that wait for several of them.
    :param limits: those of the client.
    """

    router: Router
    limits: Limits
    #: Those of the router, by name: read several times for each action.
    accounts: dict[str, AccountPlanner] = attrs.field(init=False)
    #: What the accounts have together.
    shared: SharedBounds = attrs.field(init=False)
    closing: bool = False
    #: When accounts that have stopped by themselves are tried again.
    reopenings: Reopenings = attrs.field(factory=Reopenings)
    #: Jobs that a stop has taken out of every queue and that are parked one by one, since there may be many.
    _stopped: OrderedDict[ActiveJob, SubmissionsStopped] = attrs.field(factory=OrderedDict)
    #: The polls of the accounts.
    _next_poll: Source = attrs.field(init=False)
    #: The backlog and the queues of the accounts; a single account has no backlog.
    _next_submit: Source = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.accounts, self.shared = self.router.accounts, self.router.shared
        accounts = self.accounts.values()
        for account in accounts:
            account.shared = account.submissions.shared = self.shared
        backlog = [self.router.next_action] if len(accounts) > 1 else []
        self._next_poll = in_turns([account.next_poll for account in accounts])
        self._next_submit = in_turns([*backlog, *(account.next_submit for account in accounts)])

    @property
    def provider(self) -> str:
        """The name of the provider, or of the client's accounts together, for messages."""
        return self.shared.name

    def account_of(self, active: ActiveJob) -> AccountPlanner:
        """Return the account that a job is for."""
        return self.accounts.get(active.job.account or "") or self.account_for(active.job)

    def account_for(self, job: Job) -> AccountPlanner:
        """Return the account of the record of a job, which must be one of this client."""
        account = self.accounts.get(job.account or "")
        if account is None:  # it was accepted before jobs had accounts
            here = (job.provider, job.base_url)
            account = next(each for each in self.accounts.values() if (each.provider, each.base_url) == here)
        return account

    # --- deciding ---------------------------------------------------------------------------------------------------

    def next_action(self, now: float) -> Action | WaitUntil:
        """Return the next action at `now`; polls have priority, because they free capacity."""
        if self._stopped:
            return Park(*self._stopped.popitem(last=False))
        action = self._next_poll(now)
        if not isinstance(action, WaitUntil):
            return action
        until = action.until
        if not self.closing:
            action = self._next_unsent(now)
            if not isinstance(action, WaitUntil):
                return action
            until = min(until, action.until)
        for account in self.accounts.values():
            if account.unconfirmed:
                action = account.next_unconfirmed(now)
                if not isinstance(action, WaitUntil):
                    return action
                until = min(until, action.until)
        return WaitUntil(until)

    def _next_unsent(self, now: float) -> Action | WaitUntil:
        """Return the next action for the jobs that are not sent, after the trials that are due have begun."""
        if self.reopenings.next_at <= now:
            for name in self.reopenings.begin(now):
                self.accounts[name].submissions.begin_trial(now)
        until = self.reopenings.next_at
        if self.shared.waiting and not self.is_paused:
            until = min(until, self.router.backlog.expires_at)
            if until <= now and (expired := self.router.pop_expired(now)) is not None:
                return SubmitTimedOut(expired)
        action = self._next_submit(now)
        return WaitUntil(until) if isinstance(action, WaitUntil) and action.until > until else action

    def needs_more(self, unsent: int) -> bool:
        """Return whether a caller with `unsent` queued jobs should queue another: enough to submit concurrently.

        Jobs that wait for a model without a channel, or for accounts that are full while another is idle, do not count,
        up to a number.
        """
        if self.stop_reason is not None:
            return False
        gated = sum(account.submissions.queue.gated for account in self.accounts.values())
        if unsent - min(gated, MAX_GATED) < self.limits.submitting:
            return True
        return unsent < MAX_GATED and len(self.accounts) > 1 and self.router.has_idle_account()

    def count_next(self, account: str, now: float) -> int:
        """Return how many jobs an account is sent next, each as soon as a submission under way has ended."""
        return 0 if self.closing else self.accounts[account].count_next(now)

    # --- pausing ----------------------------------------------------------------------------------------------------

    @property
    def is_paused(self) -> bool:
        """Whether `pause` has paused submitting."""
        return any(account.submissions.paused_at is not None for account in self.accounts.values())

    def pause(self, now: float) -> None:
        """Start no submission until `unpause`; what waits goes on to wait."""
        for account in self.accounts.values():
            account.submissions.pause(now)

    def unpause(self, now: float) -> None:
        """Submit again after `pause`. The time of the pause costs no job any of its patience."""
        since = next((account.submissions.paused_at for account in self.accounts.values()), None)
        if since is not None:
            self.router.backlog.postpone(now - since)
        for account in self.accounts.values():
            account.submissions.resume(now)

    def set_max_in_flight(self, jobs: int) -> None:
        """Replace the maximum number of accepted jobs; an account keeps a lower one of its own."""
        self.shared.max_in_flight = jobs
        for account in self.accounts.values():
            account.set_max_in_flight(jobs)

    # --- stopping ---------------------------------------------------------------------------------------------------

    @property
    def stop_reason(self) -> SubmissionsStopped | None:
        """Why nothing is submitted to any account; None if submissions to one are allowed."""
        stopped: list[SubmissionsStopped] = []
        for account in self.accounts.values():
            stop = account.submissions.throttle.stop
            if stop is None:
                return None
            stopped.append(stop)
        if all(reason is stopped[0] for reason in stopped):
            return stopped[0]
        return self._no_account_left(self.accounts)

    def has_stopped(self, account: str | None = None) -> bool:
        """Whether nothing is submitted to an account, or to any."""
        stop = self.stop_reason if account is None else self.accounts[account].stop_reason
        return stop is not None

    def stop_submitting(self, reason: SubmissionsStopped, account: str | None = None) -> None:
        """Stop submitting to an account, or to every one.

        Its queued jobs go to other accounts that can take them. The rest is parked by the next actions. An account is
        not tried again if `reason` does not pass by itself, and none is once all of them have stopped.
        """
        names = [*self.accounts] if account is None else [account]
        if account is not None and not passes_by_itself(reason):
            self.reopenings.cancel(account)
        queued = [active for name in names for active in self.accounts[name].stop_submitting(reason)]
        unmoved = [active for active in reversed(queued) if not self.router.move(active)]
        stop = self.stop_reason
        unmoved.reverse()
        if stop is not None:
            self.reopenings.clear()
            self._stopped.update(dict.fromkeys(unmoved, stop))
            self._stopped.update(dict.fromkeys(self.router.clear(), stop))
            return
        errors = {options: self._no_account_left(options) for options in {active.options for active in unmoved}}
        self._stopped.update((active, errors[active.options]) for active in unmoved)

    def _no_account_left(self, names: Iterable[str]) -> NoAccountLeft:
        return NoAccountLeft(provider=self.provider, reasons=self._reasons(names))

    def _reasons(self, names: Iterable[str]) -> dict[str, str]:
        reasons = {name: self.accounts[name].stop_reason for name in names}
        return {name: reason.message for name, reason in reasons.items() if reason is not None}

    def stop_for(self, active: ActiveJob) -> SubmissionsStopped | None:
        """Return why a job cannot be sent to any of its accounts; None if it can be sent to one."""
        if self.router.open_options(active):
            return None
        return self.stop_reason or self._no_account_left(active.options)

    def stop_polling(self, account: str, error: SubmissionsStopped) -> None:
        """Stop polling the tasks of an account, and waiting for its callbacks: it no longer answers polls.

        The jobs that are accepted are parked by the next actions with `error`, those in doubt with the error they have.
        """
        self._stopped.update(dict.fromkeys(self.accounts[account].stop_polling(), error))

    def next_stopped(self) -> Park | None:
        """Remove and return the next job that a stop parks; None if there is none."""
        return Park(*self._stopped.popitem(last=False)) if self._stopped else None

    def remove_unsent(self, active: ActiveJob) -> bool:
        """Remove a job that is not under way and return True; False if it is being sent or was sent already."""
        account = self.accounts.get(active.job.account or "")
        if (account is not None and account.submissions.remove(active)) or self.router.take_out(active):
            return True
        return active.job.status is JobStatus.PLANNED and self._stopped.pop(active, None) is not None

    def on_stopped(self, active: ActiveJob) -> Job:
        """Return the job of an action `Park`; one that was accepted is no longer polled."""
        return self.account_of(active).on_stopped(active) if active.job.is_in_flight else active.job

    def detached(self, active: ActiveJob) -> Job:
        """Return a job that leaves the client as it is, with its polls; its task is not polled any more."""
        if active.job.is_in_flight:
            account = self.account_of(active)
            account.with_poll_count(active)
            account.poll_queue.record_censored(active)
        return active.job

    def allow_submitting(self) -> None:
        """Allow submissions to every account after a stop."""
        self.reopenings.clear()
        for account in self.accounts.values():
            account.submissions.allow()

    def close(self) -> None:
        """Start no more submissions."""
        self.closing = True

    # --- what happened ----------------------------------------------------------------------------------------------

    def queue(self, active: ActiveJob, now: float) -> None:
        """Queue a job for submission, with the full patience of a new one."""
        if len(active.options) > 1:
            active.last_seen_unsettled_at, active.deadline_at = now, math.inf
            self.router.append(active)
            return
        account = self.accounts[active.options[0]]
        bind(active, account)
        account.queue(active, now)

    def load_history(self, samples: Iterable[DurationSample]) -> None:
        """Teach the polling policy, which all accounts share, the durations of earlier processes."""
        next(iter(self.accounts.values())).poll_queue.load_history(samples)

    def resume(self, active: ActiveJob, age: float, now: float, u: float) -> None:
        """Plan an early poll of an accepted job; see `AccountPlanner.resume`."""
        self.account_of(active).resume(active, age, now, u)

    def on_submit_started(self, active: ActiveJob, now: float) -> None:
        """Record that a job is being sent."""
        self.account_of(active).on_submit_started(active, now)

    def on_submit_finished(
        self, active: ActiveJob, outcome: SubmitOutcome, sent_at: float, now: float, u: float
    ) -> StopSubmitting | None:
        """Record the outcome of a submission that has been saved; return an action if submitting should stop.

        A job that the account provably did not accept goes to the backlog, if another account can take it.
        """
        account = self.account_of(active)
        stop = account.on_submit_finished(active, outcome, sent_at, now, u)
        if outcome.verdict is SubmitVerdict.ACCEPTED:
            self.router.backlog.on_accepted(active)
            if account.stop_reason is None:
                self.reopenings.cancel(account.name)
        elif stop is not None and account.stop_reason is None and passes_by_itself(stop.error):
            self.reopenings.plan(account.name, now, u)
        others = [name for name in self.router.open_options(active) if name != account.name]
        if stop is not None or not others or outcome.verdict not in MOVABLE or outcome.local:
            return stop
        if outcome.verdict is SubmitVerdict.NOT_SENT and account.submissions.throttle.unsent < MOVE_AFTER_UNSENT:
            return stop
        if outcome.verdict is SubmitVerdict.WAIT and outcome.model is not None:
            account.submissions.cooldowns.refuse(active.stratum, now, u, outcome.retry_after)
        if account.submissions.remove(active):
            if outcome.verdict is SubmitVerdict.STOP:  # what the account has against this job, it has for good
                active.options = tuple(others)
            self.router.move(active)
        return stop

    def on_rolled_back(self, active: ActiveJob) -> None:
        """Queue a job again that was not sent after all."""
        self.account_of(active).submissions.on_rolled_back(active)

    def hold(self, active: ActiveJob, until: float) -> None:
        """Send nothing to the account of a job before `until`, for what other processes send there.

        The job, which was rolled back, may go to another account, and loses none of its patience.
        """
        account = self.account_of(active)
        account.submissions.throttle.hold(until)
        active.deadline_at = math.inf
        others = [name for name in self.router.open_options(active) if name != account.name]
        if others and account.submissions.remove(active):
            self.router.move(active)

    def on_cost(self, before: Job, after: Job) -> None:
        """Record that a charge costs something else by now, or that a doubt was found not to be charged."""
        account = self.accounts.get(before.account_and_cost[0])
        if account is not None:
            account.submissions.correct_cost(before, after)
        else:  # an account that this client does not have: its charges count for the client all the same
            correct_cost(before, after, self.shared.spending)

    def on_poll_started(self, active: ActiveJob, now: float) -> None:
        """Record that a job is being polled."""
        self.account_of(active).on_poll_started(active, now)

    def on_poll_finished(self, active: ActiveJob, result: PollResult, now: float, at: float, u: float) -> Job:
        """Apply the result of a poll and return the job; plan its next poll unless it is settled or parked."""
        return self.account_of(active).on_poll_finished(active, result, now, at, u)

    def expire(self, active: ActiveJob) -> Job:
        """Park a job that is past its deadline, with its task id, and return it."""
        return self.account_of(active).expire(active)
