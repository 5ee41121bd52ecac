"""Accounts that have stopped by themselves are tried again with one job, while others go on."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pika_async import (
    AccountStopped,
    GatewayInTrouble,
    NoAccountLeft,
    ProviderUnreachable,
    RefusedAlike,
    SubmissionsStopped,
    WrongBaseUrl,
)
from pika_async._planning.actions import ActiveJob, WaitUntil
from pika_async._planning.reopenings import REOPEN_WAITS_S, Reopenings, passes_by_itself
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict
from tests.planning.fleet import Fleet

# --- when -------------------------------------------------------------------------------------------------------------


def test_the_wait_grows_with_each_failed_trial_and_stays_at_the_longest() -> None:
    reopenings, now, waits = Reopenings(), 1000.0, []
    for _ in range(6):
        reopenings.plan("a", now, 0.5)
        waits.append(reopenings.next_at - now)
        now = reopenings.next_at
        assert reopenings.begin(now) == ["a"]
    assert waits == [60.0, 120.0, 300.0, 600.0, 600.0, 600.0]


@pytest.mark.parametrize(("u", "wait"), [(0.0, 45.0), (0.5, 60.0), (1.0, 75.0)])
def test_the_jitter_is_a_quarter_of_the_wait(u: float, wait: float) -> None:
    reopenings = Reopenings()
    reopenings.plan("a", 0.0, u)
    assert reopenings.next_at == wait


def test_answers_that_come_after_the_stop_do_not_move_the_trial() -> None:
    reopenings = Reopenings()
    reopenings.plan("a", 0.0, 0.5)
    reopenings.plan("a", 30.0, 0.5)
    assert reopenings.next_at == 60.0


def test_the_earliest_trial_of_all_accounts_is_the_next() -> None:
    reopenings = Reopenings()
    for name, at in (("a", 10.0), ("b", 0.0), ("c", 5.0)):
        reopenings.plan(name, at, 0.5)
    assert (reopenings.begin(59.0), reopenings.next_at) == ([], 60.0)
    assert (reopenings.begin(66.0), reopenings.next_at) == (["b", "c"], 70.0)
    assert [reopenings.seconds_until(name, 66.0) for name in "abcd"] == [4.0, 0.0, 0.0, None]


def test_a_canceled_trial_begins_no_more_and_its_account_starts_anew() -> None:
    reopenings = Reopenings()
    reopenings.plan("a", 0.0, 0.5)
    reopenings.begin(60.0)
    reopenings.cancel("a")
    reopenings.cancel("unknown")
    assert (reopenings.next_at, reopenings.seconds_until("a", 60.0)) == (math.inf, None)
    reopenings.plan("a", 60.0, 0.5)
    assert reopenings.next_at == 120.0
    reopenings.clear()
    assert (reopenings.begin(1e9), reopenings.next_at) == ([], math.inf)


def test_only_stops_of_a_gateway_that_is_down_pass_by_themselves() -> None:
    passing: list[SubmissionsStopped] = [ProviderUnreachable(provider="a"), GatewayInTrouble(provider="a")]
    lasting: list[SubmissionsStopped] = [
        AccountStopped(provider="a"),
        RefusedAlike(provider="a"),
        WrongBaseUrl(provider="a", base_url="https://a.example"),
        NoAccountLeft(provider="a"),
        SubmissionsStopped(provider="a", reason="this machine could not make a request"),
    ]
    assert [passes_by_itself(reason) for reason in (*passing, *lasting)] == [True] * 2 + [False] * 5


# --- what -------------------------------------------------------------------------------------------------------------


def down(answer: str, until: float, names: str = "a") -> Callable[[Fleet], Callable[[str, ActiveJob], str]]:
    """Return the answers of a fleet of which the accounts named answer otherwise until a time."""
    return lambda fleet: lambda name, _active: answer if name in names and fleet.now < until else "accepted"


def fleet_of(answers: Callable[[Fleet], Callable[[str, ActiveJob], str]], jobs: int, names: str = "ab") -> Fleet:
    """Return accounts of which one job at a time is sent, each of which runs for 10 s."""
    fleet = Fleet.of({name: {"max_in_flight": 1} for name in names}, submitting=4)
    fleet.answer = answers(fleet)
    for _ in range(jobs):
        fleet.queue()
    return fleet


@pytest.mark.parametrize("answer", ["unsent", "doubt"])
def test_an_account_that_was_down_for_minutes_is_opened_by_one_job(answer: str) -> None:
    fleet = fleet_of(down(answer, 150.0), 120)
    fleet.run()
    assert fleet.stops[0] == "a"
    first, *others = [at for name, at in fleet.trials if name == "a"]
    assert first < 150.0, "the first trial fails"
    assert len(others) == 1, "the second is accepted, and ends the trials"
    assert fleet.spent["a"] > 20
    assert fleet.planner.accounts["a"].submissions.on_trial is False
    assert fleet.planner.reopenings.seconds_until("a", fleet.now) is None
    doubts = {"unsent": 0, "doubt": 13}[answer]
    assert fleet.outcomes() == Counter(succeeded=120 - doubts, doubt=doubts)


def test_a_trial_at_a_gateway_in_trouble_costs_one_doubt_each() -> None:
    fleet = fleet_of(down("doubt", math.inf), 400)
    fleet.run()
    trials = [at for name, at in fleet.trials if name == "a"]
    before = fleet.outcomes()["doubt"] - len(trials)
    assert len(trials) >= 4
    assert before == 12, "eight, and four probes before the stop"
    waits = [later - earlier for earlier, later in itertools.pairwise(trials)]
    assert [round(wait / 60) for wait in waits[:3]] == [2, 5, 10]


def test_an_account_with_a_wrong_key_is_not_tried_again() -> None:
    fleet = fleet_of(down("broke", 1.0), 60)
    fleet.run()
    assert fleet.stops == ["a"]
    assert fleet.trials == []
    assert fleet.spent["b"] == 60


def test_a_lasting_stop_ends_the_plan_of_a_trial() -> None:
    """A key that is refused by a late answer is wrong, although the account had stopped for another reason."""
    fleet = Fleet.of({"a": {}, "b": {}})
    fleet.planner.reopenings.plan("a", 0.0, 0.5)
    fleet.stop(ProviderUnreachable(provider="a"), "a")
    assert fleet.planner.reopenings.next_at == 60.0
    fleet.stop(AccountStopped(provider="a"), "a")
    assert fleet.planner.next_action(0.0) == WaitUntil(math.inf)


def test_an_account_that_stopped_for_its_key_is_not_planned_by_a_late_answer() -> None:
    fleet = Fleet.of({"a": {}, "b": {}})
    jobs = [fleet.queue("a") for _ in range(3)]
    fleet.drain()
    fleet.receive(answer="broke")
    assert fleet.planner.has_stopped("a")
    fleet.planner.accounts["a"].submissions.throttle.attempts = 1
    for _ in jobs[1:]:
        fleet.receive(answer="unsent")
    assert fleet.planner.reopenings.next_at == math.inf


@pytest.mark.parametrize("answer", ["unsent", "doubt"])
@pytest.mark.parametrize("names", ["a", "ab"])
def test_nothing_is_tried_again_once_all_accounts_have_stopped(answer: str, names: str) -> None:
    """A batch ends with its stop, and a single account is never tried again by itself."""
    fleet = fleet_of(down(answer, math.inf, names), 100, names)
    fleet.run()
    assert fleet.planner.stop_reason is not None
    assert fleet.planner.next_action(fleet.now) == WaitUntil(math.inf)
    assert [name for name, _ in fleet.trials if names == "a"] == []


def test_a_call_opens_an_account_before_its_trial() -> None:
    fleet = Fleet.of({"a": {}, "b": {}})
    fleet.planner.reopenings.plan("a", 0.0, 0.5)
    fleet.stop(ProviderUnreachable(provider="a"), "a")
    fleet.allow()
    assert fleet.planner.reopenings.next_at == math.inf
    assert not fleet.planner.has_stopped("a")
    assert not fleet.planner.accounts["a"].submissions.on_trial


def trial_of(name: str = "a") -> Fleet:
    """Return two accounts, the first of which is on trial with one job under way."""
    fleet = Fleet.of({name: {}, "z": {"max_in_flight": 1}})
    fleet.planner.reopenings.plan(name, 0.0, 0.5)
    fleet.stop(ProviderUnreachable(provider=name, reason="down"), name)
    fleet.now = 60.0
    for _ in range(5):
        fleet.queue("z", name)
    fleet.planner.accounts["z"].submissions.pause(60.0)
    fleet.drain()
    assert [each.account for each in fleet.under_way] == [name]
    return fleet


@pytest.mark.parametrize("answer", ["unsent", "doubt"])
def test_a_failed_trial_stops_the_account_at_once_and_its_job_waits_for_others(answer: str) -> None:
    fleet = trial_of()
    fleet.receive(answer=answer)
    fleet.drain()
    assert fleet.planner.has_stopped("a")
    assert fleet.under_way == []
    assert fleet.planner.reopenings.next_at == 180.0
    assert len(fleet.planner.router.backlog) == (5 if answer == "unsent" else 4)


@pytest.mark.parametrize("answer", ["bad", "full", "no channel"])
def test_an_answer_that_shows_a_gateway_up_leaves_the_account_on_trial(answer: str) -> None:
    """One job at a time goes on, until one is accepted."""
    fleet = trial_of()
    fleet.receive(answer=answer)
    for _ in range(3):
        fleet.queue("a", "z", kind="other")
    for _ in range(20):
        fleet.now += 5.0
        fleet.drain()
        assert len(fleet.under_way) <= 1
        if fleet.under_way:
            break
    assert not fleet.planner.has_stopped("a")
    fleet.receive(answer="accepted")
    fleet.drain()
    assert len(fleet.under_way) > 1


def test_a_trial_begins_while_nothing_waits_and_takes_the_next_job() -> None:
    fleet = Fleet.of({"a": {}, "b": {"max_in_flight": 1}})
    fleet.planner.reopenings.plan("a", 0.0, 0.5)
    fleet.stop(ProviderUnreachable(provider="a"), "a")
    assert fleet.planner.next_action(0.0) == WaitUntil(60.0)
    fleet.now = 60.0
    assert fleet.planner.next_action(60.0) == WaitUntil(math.inf)
    account = fleet.planner.accounts["a"]
    assert account.is_idle, "a batch pulls a job for it"
    active = fleet.queue("a")
    fleet.drain()
    assert [(each.account, each.active) for each in fleet.under_way] == [("a", active)]
    assert not account.is_idle, "a batch pulls only one"


def test_no_trial_begins_while_the_client_closes() -> None:
    fleet = Fleet.of({"a": {}, "b": {}})
    fleet.planner.reopenings.plan("a", 0.0, 0.5)
    fleet.stop(ProviderUnreachable(provider="a"), "a")
    fleet.planner.close()
    assert fleet.planner.next_action(100.0) == WaitUntil(math.inf)
    assert fleet.planner.has_stopped("a")


def test_a_trial_whose_job_this_machine_could_not_make_goes_on() -> None:
    """It shows nothing about the gateway."""
    fleet = trial_of()
    account = fleet.planner.accounts["a"]
    active = fleet.under_way.pop().active
    active.job = active.job.requeued()
    outcome = SubmitOutcome(verdict=SubmitVerdict.NOT_SENT, local=True, reason="no file descriptor")
    assert fleet.planner.on_submit_finished(active, outcome, 60.0, 60.0, 0.5) is None
    fleet.now = 61.0
    fleet.drain()
    assert not fleet.planner.has_stopped("a")
    assert account.submissions.on_trial
    assert len(fleet.under_way) == 1


def test_the_waits_grow() -> None:
    assert list(REOPEN_WAITS_S) == sorted(REOPEN_WAITS_S)


# --- whatever happens -------------------------------------------------------------------------------------------------

OUTAGES = st.lists(
    st.tuples(st.floats(0, 1500), st.floats(10, 900), st.sampled_from(["unsent", "doubt", "unsent"])),
    min_size=1,
    max_size=3,
)
#: What a gateway answers between two outages.
MOODS = st.lists(st.sampled_from(["accepted"] * 5 + ["full", "no channel", "bad", "broke", "doubt"]), min_size=1)


@st.composite
def _failing_fleets(draw: st.DrawFn) -> Fleet:
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    fleet = Fleet.of({"z": {"max_in_flight": 2}} | {name: {"max_in_flight": 3} for name in names}, submitting=6)
    outages = {name: draw(OUTAGES) for name in names}
    moods, random = {name: draw(MOODS) for name in names}, Random(draw(st.integers(0, 2**32)))

    def answer(name: str, _active: ActiveJob) -> str:
        down = [how for start, length, how in outages.get(name, ()) if start <= fleet.now < start + length]
        return down[0] if down else random.choice(moods.get(name, ["accepted"]))

    fleet.answer = answer
    for _ in range(draw(st.integers(50, 400))):
        fleet.queue(*sorted({"z", *draw(st.sets(st.sampled_from(names), max_size=3))}))
    return fleet


@settings(max_examples=40)
@given(_failing_fleets(), st.integers(0, 2**32))
def test_every_job_finishes_and_no_promise_is_broken_while_gateways_come_and_go(fleet: Fleet, seed: int) -> None:
    """`Fleet.check` holds at every submission: one job at a time in a trial, none at a wrong key, none at once."""
    fleet.run(Random(seed).randrange)
    for name in fleet.names:
        if fleet.planner.accounts[name].submissions.on_trial:
            assert fleet.planner.reopenings.seconds_until(name, fleet.now) == 0.0
        if fleet.planner.has_stopped(name):
            assert fleet.planner.reopenings.seconds_until(name, fleet.now) is None, "it would still be tried again"
