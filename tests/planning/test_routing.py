"""Several accounts in one planner: which one gets a job, when a job moves on, and what none of them ever does."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pika_async import AccountStopped, BudgetReached, ChargeLimitReached
from pika_async._planning.actions import ActiveJob, Submit, WaitUntil
from pika_async._planning.routing import STRATEGIES, Candidate, Choice, Refuse, Wait, route
from pika_async.errors import NoAccountLeft
from pika_async.jobs import JobStatus
from tests.planning.fleet import ANSWERS, Fleet

# --- the choice -------------------------------------------------------------------------------------------------------

CANDIDATES = st.builds(
    Candidate,
    account=st.just(""),
    refusal=st.sampled_from([None, None, None, "stopped"]),
    ready_at=st.sampled_from([-math.inf, 0.0, 5.0, 7.0, math.inf]),
    load=st.floats(0, 2),
    price=st.sampled_from([None, 0.1, 0.28, 1.0]),
    seconds=st.floats(1, 100),
)


@given(st.lists(CANDIDATES, min_size=1, max_size=4), st.sampled_from(sorted(STRATEGIES)))
def test_a_job_goes_to_the_best_account_that_can_send_it_now(candidates: list[Candidate], strategy: str) -> None:
    named = [Candidate(**{**_facts(each), "account": str(number)}) for number, each in enumerate(candidates)]
    willing = [each for each in named if each.refusal is None]
    ready = [each for each in willing if each.ready_at <= 0]
    match route(named, strategy, 0.0):
        case Choice(name):
            best = min(STRATEGIES[strategy](each) for each in ready)
            assert STRATEGIES[strategy](named[int(name)]) == best
            assert named[int(name)] in ready
        case Wait(until):
            assert not ready
            assert until == min(each.ready_at for each in willing)
        case Refuse(reasons):
            assert not willing
            assert reasons == {each.account: "stopped" for each in named}


def _facts(candidate: Candidate) -> dict[str, Any]:
    return {name: getattr(candidate, name) for name in ("refusal", "ready_at", "load", "price", "seconds")}


def test_each_strategy_prefers_its_own_account() -> None:
    roomy = Candidate(account="roomy", load=0.1, price=0.3, seconds=60)
    cheap = Candidate(account="cheap", load=0.9, price=0.1, seconds=50)
    fast = Candidate(account="fast", load=0.5, price=None, seconds=20)
    chosen = {strategy: route([roomy, cheap, fast], strategy, 0.0) for strategy in STRATEGIES}
    assert chosen == {"capacity": Choice("roomy"), "cheapest": Choice("cheap"), "fastest": Choice("fast")}


# --- moving on --------------------------------------------------------------------------------------------------------


def sent_to(fleet: Fleet, active: ActiveJob) -> list[str]:
    """Return the accounts that a job was sent to, the one that it is under way to included."""
    tried = [account for account, answer in fleet.tries.get(active, []) if answer != "stopped"]
    return tried + [sent.account for sent in fleet.under_way if sent.active is active]


@pytest.mark.parametrize("answer", ["full", "no channel", "broke"])
def test_a_job_that_an_account_refuses_for_itself_is_sent_to_the_next(answer: str) -> None:
    fleet = Fleet.of({"a": {}, "b": {}})
    active = fleet.queue()
    fleet.drain()
    fleet.receive(answer=answer)
    fleet.drain()
    assert sent_to(fleet, active) == ["a", "b"]


def test_a_job_that_could_not_be_sent_twice_in_a_row_is_sent_to_the_next() -> None:
    fleet = Fleet.of({"a": {}, "b": {}})
    active = fleet.queue()
    fleet.drain()
    fleet.receive(answer="unsent")
    fleet.drain()
    assert sent_to(fleet, active) == ["a"]
    fleet.now = 100.0
    fleet.drain()
    fleet.receive(answer="unsent")
    fleet.drain()
    assert sent_to(fleet, active) == ["a", "a", "b"]


def test_a_job_does_not_return_to_an_account_that_has_blamed_itself_for_it() -> None:
    """The account goes on with other jobs, since it has accepted one."""
    fleet = Fleet.of({"a": {}, "b": {}})
    fleet.queue("a")
    fleet.drain()
    fleet.receive(answer="accepted")
    active = fleet.queue("a", "b")
    fleet.planner.accounts["b"].submissions.pause(0.0)
    fleet.drain()
    fleet.receive(answer="broke")
    fleet.drain()
    assert sent_to(fleet, active) == ["a"]
    fleet.planner.accounts["b"].submissions.resume(0.0)
    fleet.drain()
    assert sent_to(fleet, active) == ["a", "b"]


@pytest.mark.parametrize("answer", ["doubt", "accepted", "bad"])
def test_a_job_that_may_be_charged_or_is_at_fault_is_sent_nowhere_else(answer: str) -> None:
    fleet = Fleet.of({"a": {}, "b": {}}, submitting=1)
    active = fleet.queue()
    fleet.answer = lambda _account, each: answer if each is active else "accepted"
    for _ in range(3):
        fleet.queue()
    fleet.run()
    assert sent_to(fleet, active) == ["a"]
    expected = {"doubt": JobStatus.UNKNOWN, "accepted": JobStatus.SUCCEEDED, "bad": JobStatus.REJECTED}
    assert active.job.status is expected[answer]


def test_a_stop_of_one_account_moves_its_jobs_and_leaves_the_others_going() -> None:
    fleet = Fleet.of({"a": {}, "b": {}, "c": {}})
    own, several = fleet.queue("a"), fleet.queue("a", "b")
    fleet.planner.stop_submitting(AccountStopped(provider="a"), "a")
    other = fleet.queue("c")
    fleet.run()
    assert isinstance(fleet.finished[own], NoAccountLeft)
    assert [sent_to(fleet, each) for each in (several, other)] == [["b"], ["c"]]


def test_a_job_whose_accounts_stop_one_after_the_other_names_the_reason_of_each() -> None:
    """Reasons of accounts that stopped earlier are not lost."""
    fleet = Fleet.of({"a": {}, "b": {}, "c": {}})
    fleet.planner.stop_submitting(AccountStopped(provider="a", reason="no balance"), "a")
    active = fleet.queue("a", "b")
    fleet.planner.stop_submitting(AccountStopped(provider="b", reason="wrong key"), "b")
    fleet.run()
    error = fleet.finished[active]
    assert isinstance(error, NoAccountLeft)
    assert sorted(error.reasons) == ["a", "b"]


def test_a_refused_job_names_the_accounts_that_stopped_before_its_own() -> None:
    """Its refusal is held at one account when that one stops too, while an account that it cannot use goes on."""
    fleet = Fleet.of({"a": {}, "b": {}, "c": {}})
    fleet.stop(AccountStopped(provider="a", reason="no balance"), "a")
    active = fleet.queue("a", "b")
    fleet.queue("c")
    fleet.send_all()
    fleet.receive(next(place for place, sent in enumerate(fleet.under_way) if sent.account == "b"), "bad")
    fleet.stop(AccountStopped(provider="b", reason="wrong key"), "b")
    fleet.drain()
    error = fleet.finished[active]
    assert isinstance(error, NoAccountLeft)
    assert sorted(error.reasons) == ["a", "b"]


def test_all_jobs_are_parked_with_every_reason_once_all_accounts_have_stopped() -> None:
    fleet = Fleet.of({"a": {}, "b": {}})
    jobs = [fleet.queue(), fleet.queue("a"), fleet.queue("b"), fleet.queue(kind="other")]
    for name in fleet.names:
        fleet.planner.stop_submitting(AccountStopped(provider=name, reason=f"{name} is out"), name)
    fleet.run()
    errors = [fleet.finished[job] for job in (jobs[0], jobs[2], jobs[3])]
    assert [sorted(error.reasons) for error in errors if isinstance(error, NoAccountLeft)] == [["a", "b"]] * 3
    only_a = fleet.finished[jobs[1]]
    assert isinstance(only_a, NoAccountLeft)
    assert "a" in only_a.reasons


# --- no job starves ---------------------------------------------------------------------------------------------------


def order_of_sending(fleet: Fleet, jobs: int) -> list[ActiveJob]:
    """Send one job after the other, each accepted and settled before the next."""
    order: list[ActiveJob] = []
    while len(order) < jobs:
        action = fleet.step()
        if isinstance(action, Submit):
            order.append(action.active)
        elif isinstance(action, WaitUntil) and fleet.under_way:
            fleet.receive(answer="accepted")
        elif isinstance(action, WaitUntil):
            fleet.now = action.until
    return order


@pytest.mark.parametrize("bound", [{"max_in_flight": 1}, {"submitting": 1}])
def test_jobs_of_every_queue_have_their_turn_at_a_bound_of_the_client(bound: dict[str, Any]) -> None:
    """The backlog and the queues of single accounts share a bound of the client in equal parts."""
    fleet = Fleet.of({"a": {}, "b": {}}, **bound)
    kinds = {fleet.queue(*options): options for _ in range(6) for options in (("a", "b"), ("a",), ("b",))}
    first = [kinds[active] for active in order_of_sending(fleet, 9)]
    assert Counter(first) == {("a", "b"): 3, ("a",): 3, ("b",): 3}


def test_jobs_of_several_accounts_do_not_wait_for_later_jobs_of_one() -> None:
    """First come, first served holds between the backlog and the queue of an account."""
    fleet = Fleet.of({"a": {"max_in_flight": 1}, "b": {}})
    fleet.planner.stop_submitting(AccountStopped(provider="b"), "b")
    running = fleet.queue("a")
    fleet.drain()
    fleet.planner.allow_submitting()
    early = fleet.queue("a", "b")
    fleet.planner.stop_submitting(AccountStopped(provider="b"), "b")
    fleet.now = 1.0
    later = [fleet.queue("a") for _ in range(5)]
    fleet.receive(answer="accepted")
    assert order_of_sending(fleet, 2)[:2].count(early) == 1
    assert running in fleet.finished
    assert len(later) == 5


def test_jobs_of_several_accounts_do_not_get_stuck_behind_the_gate_of_one() -> None:
    """While a job of account a alone waits for a channel there, jobs like it go to b, and none joins it."""
    fleet = Fleet.of({"a": {}, "b": {"max_in_flight": 1}})
    fleet.queue("a")
    fleet.drain()
    fleet.receive(answer="no channel")
    jobs = [fleet.queue() for _ in range(3)]
    fleet.drain()
    assert [sent_to(fleet, active) for active in jobs] == [["b"], [], []]
    assert len(fleet.planner.router.backlog) == 2


def test_jobs_of_a_model_without_a_channel_are_given_up_together() -> None:
    """The patience of the first one that was refused is that of all like it; others are not affected."""
    fleet = Fleet.of({"a": {}, "b": {}}, submitting=1, patience=100.0)
    jobs = [fleet.queue() for _ in range(20)]
    fleet.answer = lambda _account, _active: "no channel"
    fleet.run()
    assert [fleet.finished[active] for active in jobs] == ["timed out"] * 20
    assert fleet.now < 200.0


def test_an_acceptance_gives_the_jobs_like_it_their_full_patience() -> None:
    fleet = Fleet.of({"a": {}, "b": {}}, submitting=1, max_in_flight=1, patience=15.0)
    first = fleet.queue()
    answers = itertools.chain(["no channel", "no channel", "accepted"], itertools.repeat("accepted"))
    fleet.answer = lambda _account, _active: next(answers)
    rest = [fleet.queue() for _ in range(5)]  # each runs for 10 s
    fleet.run()
    assert [fleet.finished[active] for active in (first, *rest)] == ["succeeded"] * 6
    assert fleet.now > 50.0


# --- pausing and closing ----------------------------------------------------------------------------------------------


def test_a_pause_costs_no_job_of_the_backlog_any_of_its_patience() -> None:
    fleet = Fleet.of({"a": {}, "b": {}}, patience=100.0)
    active = fleet.queue()
    fleet.answer = lambda _account, _active: "no channel"
    fleet.drain()
    fleet.receive()
    fleet.drain()
    fleet.receive()
    assert len(fleet.planner.router.backlog) == 1
    fleet.planner.pause(fleet.now)
    fleet.now = 1000.0
    assert fleet.planner.next_action(fleet.now) == WaitUntil(math.inf)
    fleet.planner.unpause(fleet.now)
    assert active.deadline_at == 1100.0
    action = fleet.planner.next_action(fleet.now)
    assert isinstance(action, Submit)


def test_a_planned_job_can_be_taken_out_of_the_backlog_and_of_a_queue() -> None:
    fleet = Fleet.of({"a": {}, "b": {}})
    jobs = [fleet.queue(), fleet.queue("a"), fleet.queue()]
    assert [fleet.planner.remove_unsent(active) for active in jobs] == [True] * 3
    assert not fleet.planner.remove_unsent(jobs[0])
    assert fleet.planner.next_action(0.0) == WaitUntil(math.inf)
    assert fleet.planner.shared.waiting == 0


def test_closing_sends_nothing_of_the_backlog() -> None:
    fleet = Fleet.of({"a": {}, "b": {}}, submitting=1)
    jobs = [fleet.queue() for _ in range(3)]
    fleet.drain()
    fleet.planner.close()
    fleet.receive(answer="full")
    assert isinstance(fleet.planner.next_action(1000.0), WaitUntil)
    assert [sent_to(fleet, active) for active in jobs] == [["a"], [], []]


# --- money ------------------------------------------------------------------------------------------------------------


def test_a_job_that_no_account_can_pay_for_is_parked_and_cheaper_ones_go_on() -> None:
    table = [{"price": 0.1, "duration": 5}, {"price": 3, "duration": 10}]
    fleet = Fleet.of({"a": {"price": table}, "b": {"price": table}}, budget=0.5)
    dear, cheap = fleet.queue(duration=10), [fleet.queue(duration=5) for _ in range(5)]
    fleet.run()
    error = fleet.finished[dear]
    assert isinstance(error, NoAccountLeft)
    assert sorted(error.reasons) == ["a", "b"]
    assert [fleet.finished[active] for active in cheap] == ["succeeded"] * 5


@pytest.mark.parametrize(
    ("accounts", "shared", "reason"),
    [
        ({"a": {}, "b": {}}, {"max_charges": 3}, ChargeLimitReached),
        ({"a": {"price": 0.5}, "b": {"price": 0.25}}, {"budget": 1.0}, BudgetReached),
        ({"a": {"max_charges": 1}, "b": {"max_charges": 2}}, {}, NoAccountLeft),
    ],
)
def test_a_spent_limit_stops_the_client_so_that_nothing_more_is_pulled(
    accounts: dict[str, Any], shared: dict[str, Any], reason: type[Exception]
) -> None:
    """Else a batch would pull requests for ever, only to park them."""
    fleet = Fleet.of(accounts, **shared)
    for _ in range(10):
        fleet.queue()
    fleet.run()
    assert isinstance(fleet.planner.stop_reason, reason)
    assert not fleet.planner.needs_more(0)


PRICES = st.sampled_from([None, 0.07, 0.1, 0.28, 1.0, 0.333333])
ACCOUNT = st.fixed_dictionaries(
    {"price": PRICES, "weight": st.sampled_from([1, 3])},
    optional={"max_in_flight": st.integers(1, 4), "max_charges": st.integers(1, 6)},
)


@st.composite
def _fleets(draw: st.DrawFn) -> Fleet:
    names = ["a", "b", "c", "d"][: draw(st.integers(2, 4))]
    accounts = {name: draw(ACCOUNT) for name in names}
    shared = draw(
        st.fixed_dictionaries(
            {"patience": st.just(120.0), "submitting": st.integers(1, 8)},
            optional={
                "max_in_flight": st.integers(1, 6),
                "max_charges": st.integers(1, 15),
                "submits_per_second": st.sampled_from([0.02, 0.2, 2]),  # long enough for trials of stopped accounts
            },
        )
    )
    if all(facts["price"] for facts in accounts.values()):
        shared |= draw(st.fixed_dictionaries({}, optional={"budget": st.sampled_from([0.3, 1.0, 2.5])}))
        budgets: Any = st.fixed_dictionaries({}, optional={"budget": st.sampled_from([0.3, 0.7, 1.4])})
        accounts = {name: facts | draw(budgets) for name, facts in accounts.items()}
    fleet = Fleet.of(accounts, strategy=draw(st.sampled_from(sorted(STRATEGIES))), **shared)
    moods = {name: draw(st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=5)) for name in names}
    random = Random(draw(st.integers(0, 2**32)))
    fleet.answer = lambda account, _active: random.choice(moods[account])
    for options in draw(st.lists(st.sets(st.sampled_from(names), min_size=1), min_size=1, max_size=30)):
        fleet.queue(*sorted(options), kind=draw(st.sampled_from(["m", "n"])))
    return fleet


@settings(max_examples=300)
@given(_fleets(), st.integers(0, 2**32))
def test_every_job_finishes_and_no_promise_is_broken(fleet: Fleet, seed: int) -> None:
    """Whatever the accounts answer, `Fleet.check` holds at every submission, and nothing waits for ever."""
    random = Random(seed)
    fleet.run(random.randrange)


@given(_fleets(), st.integers(0, 2**32), st.integers(0, 60))
def test_pauses_stops_and_withdrawals_at_any_moment_break_no_promise(fleet: Fleet, seed: int, steps: int) -> None:
    random = Random(seed)
    for _ in range(steps):
        _disturb(fleet, random)
        fleet.drain()
        fleet.now += random.random()
        if fleet.under_way and random.random() < 0.7:
            fleet.receive(random.randrange(len(fleet.under_way)))
    fleet.planner.unpause(fleet.now)
    fleet.run(random.randrange)


def _disturb(fleet: Fleet, random: Random) -> None:
    match random.randrange(12):
        case 0:
            fleet.planner.pause(fleet.now)
        case 1 | 2:
            fleet.planner.unpause(fleet.now)
        case 3:
            name = random.choice(fleet.names)
            fleet.stop(AccountStopped(provider=name), name)
        case 4:
            fleet.allow()
        case 5:
            active = random.choice(fleet.jobs)
            if active not in fleet.finished and fleet.planner.remove_unsent(active):
                fleet.finished[active] = "withdrawn"


@pytest.mark.parametrize("order", list(itertools.permutations(("a", "b", "c"))))
def test_the_order_of_the_accounts_does_not_change_what_is_charged(order: tuple[str, ...]) -> None:
    facts = {"a": {"price": 0.1, "max_charges": 4}, "b": {"price": 0.2, "max_charges": 3}, "c": {"price": 0.3}}
    fleet = Fleet.of({name: facts[name] for name in order}, strategy="cheapest", submitting=1)
    for _ in range(10):
        fleet.queue()
    fleet.run()
    assert fleet.spent == {"a": 4, "b": 3, "c": 3}
    assert float(fleet.planner.shared.spending.spent) == 1.9
