"""Planner of several accounts under test, with the steps that the scheduler takes and the charges that follow."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final

import attrs

from pika_async import FixedInterval, GenerationRequest, Job, Limits, Snapshot, SubmissionsStopped, TaskState, Video
from pika_async._planning.account_planner import AccountPlanner
from pika_async._planning.actions import (
    Action,
    ActiveJob,
    Park,
    Poll,
    PollResult,
    Reject,
    StopSubmitting,
    Submit,
    SubmitTimedOut,
    WaitUntil,
)
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.limits import MAX_IN_FLIGHT, TokenBucket
from pika_async._planning.money import Spending, exact
from pika_async._planning.outcomes import apply_verdict
from pika_async._planning.planner import Planner
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_queue import PollQueue
from pika_async._planning.prices import AccountPrices, Prices
from pika_async._planning.reopenings import REOPEN_WAITS_S, passes_by_itself
from pika_async._planning.router import Router
from pika_async._planning.shared_bounds import SharedBounds
from pika_async._planning.submissions import Submissions
from pika_async.jobs import JobStatus
from pika_async.providers._verdicts import PollVerdict, SubmitOutcome, SubmitVerdict

V = SubmitVerdict
#: What an account answers to a submission, by a short name.
ANSWERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "accepted": {"verdict": V.ACCEPTED},
    "doubt": {"verdict": V.UNKNOWN, "http_status": 502, "reason": "HTTP 502"},
    "unsent": {"verdict": V.NOT_SENT, "reason": "refused"},
    "full": {"verdict": V.WAIT, "http_status": 429, "reason": "full"},
    "no channel": {"verdict": V.WAIT, "http_status": 503, "model": "m", "reason": "no channel"},
    "broke": {"verdict": V.STOP, "http_status": 402, "fingerprint": "402", "reason": "no balance"},
    "bad": {"verdict": V.REJECTED, "http_status": 400, "fingerprint": "400", "reason": "no"},
}
_numbers = itertools.count()


@attrs.frozen
class UnderWay:
    """A submission that awaits its answer."""

    active: ActiveJob
    account: str
    price: Fraction
    sent_at: float


@attrs.define(repr=False)
class Fleet:
    """Accounts, their planner, and what has happened."""

    planner: Planner
    #: Returns the name of an answer of `ANSWERS`, by account and job.
    answer: Callable[[str, ActiveJob], str] = lambda _account, _active: "accepted"
    now: float = 0.0
    jobs: list[ActiveJob] = attrs.field(factory=list)
    under_way: list[UnderWay] = attrs.field(factory=list)
    #: Accounts that charged each job, or may have.
    charges: dict[ActiveJob, list[str]] = attrs.field(factory=dict)
    #: Accounts that each job was sent to, with their answers and, after the latest answer, their stop.
    tries: dict[ActiveJob, list[tuple[str, str]]] = attrs.field(factory=dict)
    spent: Counter[str] = attrs.field(factory=Counter)
    money: dict[str, Fraction] = attrs.field(factory=dict)
    finished: dict[ActiveJob, object] = attrs.field(factory=dict)
    stops: list[str | None] = attrs.field(factory=list)
    #: Why and when each account has stopped that no call has opened since.
    stopped: dict[str, tuple[SubmissionsStopped, float]] = attrs.field(factory=dict)
    #: Accounts that a trial has begun of, with its time.
    trials: list[tuple[str, float]] = attrs.field(factory=list)

    @classmethod
    def of(cls, accounts: Mapping[str, Mapping[str, Any]], *, strategy: str = "capacity", **shared: Any) -> Fleet:
        """Return accounts with the given facts.

        :param accounts: for each name any of `max_in_flight`, `max_charges`, `budget`, `price` and `weight`.
        :param shared: of the client: `budget` and the fields of `Limits`.
        """
        budget = shared.pop("budget", None)
        limits = Limits(**shared)
        bounds = SharedBounds(
            name="client",
            max_in_flight=limits.max_in_flight or MAX_IN_FLIGHT,
            submitting_limit=limits.submitting,
            polling_limit=limits.polling,
            submit_rate=TokenBucket(limits.submits_per_second),
            spending=Spending(budget=budget, max_charges=limits.max_charges),
        )
        planners = {name: _account(name, limits, **facts) for name, facts in accounts.items()}
        return cls(Planner(router=Router(accounts=planners, shared=bounds, strategy=strategy), limits=limits))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.planner.accounts)

    def queue(self, *options: str, kind: str = "m", duration: float | None = None) -> ActiveJob:
        """Queue a job that the accounts named can take; default: all of them."""
        options = options or self.names
        request = GenerationRequest(f"p{next(_numbers)}", duration=duration)
        job = Job(key=request.prompt, request=request, provider=options[0], base_url=f"https://{options[0]}.example")
        active = ActiveJob(job, f"{options[0]}/{kind}", options=options)
        self.jobs.append(active)
        self.planner.queue(active, self.now)
        return active

    # --- steps ------------------------------------------------------------------------------------------------------

    def step(self) -> Action | WaitUntil:
        """Carry out the next action; the answer of a submission is awaited."""
        action = self.planner.next_action(self.now)
        match action:
            case Submit(active):
                self._start(active)
            case Poll(active):
                self._poll(active)
            case Park(active, error):
                self.planner.on_stopped(active)
                self._finish(active, error)
            case Reject(active, error):
                active.job = active.job.rejected(error, self.now)
                self._finish(active, error)
            case SubmitTimedOut(active):
                self._finish(active, "timed out")
            case StopSubmitting(error, account):
                self.stops.append(account)
                self.stop(error, account)
            case _:
                assert isinstance(action, WaitUntil), action
        return action

    def _start(self, active: ActiveJob) -> None:
        account = self.planner.account_of(active)
        price = account.submissions.price_of(active.job.request)
        self.under_way.append(UnderWay(active, account.name, Fraction() if price is None else exact(price), self.now))
        if account.submissions.on_trial:
            self.trials.append((account.name, self.now))
        self.planner.on_submit_started(active, self.now)
        active.job = active.job.submitting(price)
        self.check()

    def _poll(self, active: ActiveJob) -> None:
        self.planner.on_poll_started(active, self.now)
        task_id = str(active.job.task_id)
        snapshot = Snapshot(task_id=task_id, state=TaskState.SUCCEEDED, video=Video(url="https://x.example/v.mp4"))
        result = PollResult(verdict=PollVerdict.READ, snapshot=snapshot)
        self.planner.on_poll_finished(active, result, self.now, self.now, 0.5)
        self._finish(active, "succeeded")

    def _finish(self, active: ActiveJob, how: object) -> None:
        assert active not in self.finished, active.job.key
        assert all(sent.active is not active for sent in self.under_way)
        self.finished[active] = how

    def receive(self, position: int = 0, answer: str | None = None) -> str:
        """Receive the answer of a submission under way, and carry out the stop that follows from it."""
        sent = self.under_way.pop(position)
        active = sent.active
        answer = answer or self.answer(sent.account, active)
        task_id = f"t-{active.job.key}" if answer == "accepted" else None
        outcome = SubmitOutcome(task_id=task_id, **ANSWERS[answer])
        active.job = apply_verdict(active.job, outcome, self.now)
        self.tries.setdefault(active, []).append((sent.account, answer))
        if answer in {"accepted", "doubt"}:
            self.charges.setdefault(active, []).append(sent.account)
            self.spent[sent.account] += 1
            self.money[sent.account] = self.money.get(sent.account, Fraction()) + sent.price
        stop = self.planner.on_submit_finished(active, outcome, sent.sent_at, self.now, 0.5)
        if active.job.status is JobStatus.UNKNOWN:
            self._finish(active, "doubt")
        if stop is not None:
            self.stops.append(stop.account)
            self.stop(stop.error, stop.account)
        elif active.job.status is JobStatus.PLANNED:  # as `Submitter._stop_again`
            account = self.planner.account_of(active)
            if account.stop_reason is not None:
                self.stop(account.stop_reason, account.name)
        return answer

    def stop(self, reason: SubmissionsStopped, account: str | None = None) -> None:
        """Stop submitting to an account, or to every one: what it refused may be sent elsewhere from now on."""
        for tries in self.tries.values():
            if account in {None, tries[-1][0]}:
                tries.append((tries[-1][0], "stopped"))
        for name in self.names if account is None else [account]:
            if not self.planner.has_stopped(name) or not passes_by_itself(reason):
                self.stopped[name] = (reason, self.now)
        self.planner.stop_submitting(reason, account)

    def allow(self) -> None:
        """Open every account, as the next batch does."""
        self.stopped.clear()
        self.planner.allow_submitting()

    def drain(self) -> None:
        """Carry out every action that is due now."""
        while not isinstance(self.step(), WaitUntil):
            pass

    def send_all(self) -> list[tuple[str, ActiveJob]]:
        """Carry out every action that is due now, and return the submissions under way."""
        self.drain()
        return [(sent.account, sent.active) for sent in self.under_way]

    def run(self, choose: Callable[[int], int] = lambda _count: 0, latency: float = 0.1) -> None:
        """Let every job finish: while nothing is due, the answer of a submission is received, or time passes.

        :param choose: returns the position of the submission that is answered next, among so many.
        """
        for _ in range(50_000):
            action = self.step()
            if not isinstance(action, WaitUntil):
                continue
            if self.under_way:
                self.now += latency
                self.receive(choose(len(self.under_way)))
            elif action.until < math.inf:
                assert action.until > self.now, "the planner turns without an action"
                self.now = action.until
            else:
                break
        else:
            raise AssertionError("the jobs do not finish")
        self.check_finished()

    # --- what must hold ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check the promises of sending, after a submission has begun."""
        sent = self.under_way[-1]
        active = sent.active
        assert sent.account in active.options
        assert sum(each.active is active for each in self.under_way) == 1, "two submissions of one job"
        assert active not in self.finished
        assert active not in self.charges, f"sent again after {self.tries[active]}"
        tried = self.tries.get(active, [])
        if tried and tried[-1][1] == "bad" and tried[-1][0] != sent.account:
            raise AssertionError(f"sent elsewhere although its request was refused: {tried}")
        assert not self.planner.has_stopped(sent.account)
        self._check_trial(sent.account)
        self._check_bounds()

    def _check_trial(self, name: str) -> None:
        if name in self.stopped:
            reason, at = self.stopped[name]
            assert passes_by_itself(reason), f"tried again after {reason}"
            assert self.now >= at + 0.75 * REOPEN_WAITS_S[0], "tried again at once"
        if self.planner.accounts[name].submissions.on_trial:
            assert sum(each.account == name for each in self.under_way) == 1, "more than one job of a trial"

    def _check_bounds(self) -> None:
        shared, limits = self.planner.shared, self.planner.limits
        running = Counter(each.account for each in self.under_way)
        in_flight = {name: account.in_flight for name, account in self.planner.accounts.items()}
        assert sum(in_flight.values()) + running.total() <= (limits.max_in_flight or math.inf)
        assert running.total() <= limits.submitting
        money = [self._check_account(name, running, in_flight) for name in self.names]
        if shared.spending.budget is not None:
            assert sum(money) <= exact(shared.spending.budget)
        assert self.spent.total() + running.total() <= (shared.spending.max_charges or math.inf)

    def _check_account(self, name: str, running: Counter[str], in_flight: Mapping[str, int]) -> Fraction:
        account = self.planner.accounts[name]
        spending = account.submissions.spending
        money = self.money.get(name, Fraction()) + sum(each.price for each in self.under_way if each.account == name)
        assert in_flight[name] + running[name] <= (account.max_in_flight or math.inf)
        assert self.spent[name] + running[name] <= (spending.max_charges or math.inf)
        assert spending.budget is None or money <= exact(spending.budget)
        return money

    def check_finished(self) -> None:
        """Check that every job has finished, that every count is 0 and every charge is counted."""
        left = [active.job.key for active in self.jobs if active not in self.finished]
        assert not left, f"left for ever: {left}"
        shared = self.planner.shared
        assert (shared.in_flight, shared.submitting, shared.polling, shared.waiting) == (0, 0, 0, 0)
        assert (shared.spending.submitting, shared.spending.reserved) == (0, Fraction())
        assert shared.spending.charges == self.spent.total()
        assert shared.spending.spent == sum(self.money.values())
        assert all(len(accounts) == 1 for accounts in self.charges.values())

    def outcomes(self) -> Counter[str]:
        """Count how the jobs finished."""
        return Counter(how if isinstance(how, str) else type(how).__name__ for how in self.finished.values())


def _account(
    name: str, client: Limits, *, max_in_flight: int | None = None, max_charges: int | None = None,
    budget: float | None = None, price: Any = None, weight: float = 1.0,
) -> AccountPlanner:  # fmt: skip
    ceiling = min(each for each in (max_in_flight, client.max_in_flight, MAX_IN_FLIGHT) if each is not None)
    base_url = f"https://{name}.example"
    return AccountPlanner(
        name=name,
        provider=name,
        base_url=base_url,
        limits=client,
        deadline=1000.0,
        submissions=Submissions(
            name=name,
            base_url=base_url,
            limits=client,
            concurrency=AdaptiveConcurrency(ceiling=ceiling),
            rate=TokenBucket(None),
            prices=AccountPrices(Prices.create(price)),
            spending=Spending(budget=budget, max_charges=max_charges),
        ),
        poll_queue=PollQueue(PolicyAdapter(policy=FixedInterval(10.0))),
        poll_rate=TokenBucket(None),
        max_in_flight=max_in_flight,
        weight=weight,
    )
