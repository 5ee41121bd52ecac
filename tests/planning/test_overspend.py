"""Providers that charge more than the price given: what is reserved afterwards, and how far a budget is exceeded."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import GenerationRequest, Job, JobStatus, Limits
from pika_async._planning.actions import ActiveJob, StopSubmitting, Submit
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.limits import TokenBucket
from pika_async._planning.money import Spending, exact
from pika_async._planning.outcomes import apply_verdict
from pika_async._planning.prices import AccountPrices, Prices
from pika_async._planning.submissions import Submissions
from pika_async.errors import BudgetReached
from pika_async.providers._verdicts import SubmitOutcome
from tests.planning.account_steps import ACCEPTED, DOUBT, NO_CHANNEL, NUMBERS

CAT = GenerationRequest("a cat")
MELTING = GenerationRequest("a cat", effect="Melt")
TABLE = ({"price": 0.3}, {"price": 0.5, "effect": True})


class Paid:
    """Submissions of one account with a budget, whose provider gives the cost of what it has accepted."""

    def __init__(self, budget: float, prices: Any = TABLE) -> None:
        self.submissions = Submissions(
            name="pika",
            base_url="https://x.example",
            limits=Limits(submitting=100),
            concurrency=AdaptiveConcurrency(),
            rate=TokenBucket(None),
            prices=AccountPrices(Prices.create(prices)),
            spending=Spending(budget=budget),
        )
        self.under_way: list[ActiveJob] = []
        self.charged: list[Job] = []
        self.billed: list[Job] = []

    def start(self, request: GenerationRequest = CAT) -> ActiveJob | None:
        """Begin a submission if it may be paid for."""
        job = Job(key=f"k{next(NUMBERS)}", request=request, provider="pika", base_url="https://x.example")
        active = ActiveJob(job, "s")
        if math.isinf(self.submissions.can_send_at(active, "s", 0.0, 0)):
            return None
        self.submissions.on_started(active, 0.0)
        active.job = job.submitting(self.submissions.reserved[active])
        self.under_way.append(active)
        return active

    def end(self, active: ActiveJob, facts: Mapping[str, Any] = ACCEPTED) -> Job:
        """End a submission."""
        outcome = SubmitOutcome(**facts)
        self.under_way.remove(active)
        active.job = apply_verdict(active.job, outcome, 0.0)
        self.submissions.on_finished(active, outcome, 0.0, 0.0, 0.5, in_flight=0)
        self.submissions.queue.clear()
        if active.job.may_be_charged:
            self.charged.append(active.job)
        return active.job

    def bill(self, job: Job, cost: float) -> None:
        """Settle a job at the provider's own figure."""
        after = attrs.evolve(job, cost=cost)
        self.submissions.correct_cost(job, after)
        self.charged.remove(job)
        self.billed.append(after)

    def pay(self, request: GenerationRequest, cost: float) -> None:
        active = self.start(request)
        assert active is not None
        self.bill(self.end(active), cost)


def test_a_dearer_charge_raises_the_price_of_the_requests_that_share_its_row() -> None:
    """The largest cost so far counts; others keep their price; a cheaper one changes nothing."""
    account = Paid(100.0)
    for cost in (0.2, 0.45, 0.4):
        account.pay(CAT, cost)
    prices = account.submissions.prices
    assert (prices.price_of(CAT), prices.price_of(MELTING), prices.lowest) == (0.45, 0.5, 0.45)
    account.pay(CAT, 0.7)
    assert (prices.price_of(CAT), prices.price_of(MELTING), prices.lowest) == (0.7, 0.5, 0.5)
    assert account.submissions.spending.spent == Fraction("1.75")


def test_one_warning_names_the_account_the_price_and_the_cost(caplog: pytest.LogCaptureFixture) -> None:
    """It is written for the first dearer charge of a row, not for each."""
    account = Paid(100.0)
    with caplog.at_level(logging.WARNING):
        for cost in (0.3, 0.45, 0.45, 0.6):
            account.pay(CAT, cost)
    assert [record.getMessage() for record in caplog.records] == [
        "pika charged 0.45 for a request at the price of 0.30; as much is reserved for each like it from now on"
    ]


def test_what_was_reserved_is_what_is_given_back() -> None:
    """The price may rise while a submission is under way; it is then confirmed, or released, as it was reserved."""
    account = Paid(100.0)
    first, second = account.start(), account.start()
    assert first is not None
    assert second is not None
    account.pay(CAT, 0.45)
    job = account.end(first)
    account.end(second, NO_CHANNEL)
    spending = account.submissions.spending
    assert (job.cost, spending.reserved, spending.spent) == (0.3, Fraction(), Fraction("0.75"))
    assert not account.submissions.reserved


def test_submitting_stops_at_the_raised_price() -> None:
    """The error names a budget that is enough for one more charge as it is by now."""
    account = Paid(1.0, 0.3)
    account.pay(CAT, 0.45)
    for _ in range(2):
        job = Job(key=f"k{next(NUMBERS)}", request=CAT, provider="pika", base_url="https://x.example")
        account.submissions.queue.append(ActiveJob(job, "s"))
    action = account.submissions.next_action(0.0, 0)
    assert isinstance(action, Submit)
    account.submissions.on_started(action.active, 0.0)
    action.active.job = action.active.job.submitting(0.45)
    account.under_way.append(action.active)
    job = apply_verdict(action.active.job, SubmitOutcome(**ACCEPTED), 0.0)
    account.submissions.on_finished(action.active, SubmitOutcome(**ACCEPTED), 0.0, 0.0, 0.5, in_flight=0)
    assert job.cost == 0.45
    stop = account.submissions.next_action(0.0, 1)
    assert isinstance(stop, StopSubmitting)
    assert isinstance(stop.error, BudgetReached)
    assert (stop.error.spent, stop.error.needed) == (0.9, 1.35)


def test_a_task_that_was_not_paid_for_here_raises_no_price() -> None:
    """The request of an adopted task is not known."""
    account = Paid(100.0)
    adopted = Job(key="a", request=CAT, provider="pika", base_url="https://x.example", task_id="t")
    adopted = attrs.evolve(adopted, status=JobStatus.RUNNING)
    account.submissions.correct_cost(adopted, attrs.evolve(adopted, cost=9.0))
    assert account.submissions.prices.price_of(CAT) == 0.3


@given(
    st.integers(10, 1500),
    st.tuples(st.integers(10, 150), st.integers(10, 150)),
    st.lists(st.tuples(st.sampled_from(["cat", "melt", "accept", "doubt", "refuse", "bill"]), st.integers(0, 9))),
)
def test_the_excess_over_a_budget_is_bounded(cents: int, cost_cents: tuple[int, int], steps: list[Any]) -> None:
    """It is at most the difference to the price, for each charge that had no cost yet when the first dearer one came."""
    budget, costs = cents / 100, {None: cost_cents[0] / 100, "Melt": cost_cents[1] / 100}
    prices = {None: 0.3, "Melt": 0.5}
    account, open_at_first = Paid(budget), dict.fromkeys(prices, 0)

    def bill(number: int) -> None:
        job = account.charged[number % len(account.charged)]
        effect = job.request.effect
        if costs[effect] > prices[effect] and not open_at_first[effect]:
            unsettled = [*(active.job for active in account.under_way), *account.charged]
            open_at_first[effect] = sum(each.request.effect == effect for each in unsettled)
        account.bill(job, costs[effect])

    for step, number in steps:
        if step in {"cat", "melt"}:
            account.start(CAT if step == "cat" else MELTING)
        elif step == "bill" and account.charged:
            bill(number)
        elif step != "bill" and account.under_way:
            facts = {"accept": ACCEPTED, "doubt": DOUBT, "refuse": NO_CHANNEL}[step]
            account.end(account.under_way[number % len(account.under_way)], facts)
    for active in list(account.under_way):
        account.end(active)
    while account.charged:
        bill(0)
    charged = sum((exact(job.cost or 0.0) for job in account.billed), Fraction())
    excess = sum((exact(costs[each]) - exact(prices[each])) * open_at_first[each] for each in prices)
    assert charged == account.submissions.spending.spent
    assert charged <= exact(budget) + excess
