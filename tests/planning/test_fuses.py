"""Fuses: trouble that is not a request's own pauses or stops submissions, burns no job, and blocks no other model."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pika_async import AccountStopped, GatewayInTrouble, RefusedAlike, WrongBaseUrl
from pika_async._planning.actions import ActiveJob, Reject, StopSubmitting, Submit, SubmitTimedOut, WaitUntil
from pika_async._planning.fuses import (
    MAX_DOUBTS,
    MAX_PROBES,
    MAX_REFUSALS,
    MAX_UNREADABLE,
    PROBE_WAITS_S,
    Fuses,
    Trip,
)
from pika_async._planning.refused_jobs import MAX_HELD
from pika_async._planning.submit_queue import MAX_GATED
from pika_async.errors import SubmissionsStopped
from pika_async.providers._verdicts import SubmitVerdict
from tests.fakes.only_account import only
from tests.planning.account_steps import ACCEPTED, BLAMED, DOUBT, NO_CHANNEL, REFUSED, UNREADABLE, Account
from tests.planning.planner_steps import new_planner

V = SubmitVerdict


def stop_of(facts: dict[str, Any], *, submitting: int, jobs: int = 200) -> tuple[Account, SubmissionsStopped, int]:
    """Answer every submission of a batch alike, the one that was sent first; return the account, the stop, the sends."""
    account, sends = Account(submitting=submitting), 0
    for _ in range(jobs):
        account.queue()
    while account.stopped is None:
        sends += len(account.send_all())
        if account.sent:
            account.answer(next(iter(account.sent)), facts)
        else:
            account.wait()
    for active in list(account.sent):
        account.answer(active, facts)
    assert account.stopped is not None
    return account, account.stopped, sends


# --- the number of submissions side by side -----------------------------------------------------------------------------


@pytest.mark.parametrize("submitting", [1, 3, 8, 100])
def test_until_the_first_acceptance_at_most_three_submissions_run_side_by_side(submitting: int) -> None:
    """The bound holds however many submissions are allowed; each acceptance then adds one."""
    account = Account(submitting=submitting)
    for _ in range(300):
        account.queue()
    first = account.send_all()
    assert len(first) == min(submitting, MAX_UNREADABLE)
    account.answer(first[0], ACCEPTED)
    account.send_all()
    assert len(account.sent) == min(submitting, MAX_UNREADABLE + 1)
    for _ in range(100):
        account.answer(next(iter(account.sent)), ACCEPTED)
        account.send_all()
    assert len(account.sent) == submitting


@pytest.mark.parametrize(
    ("facts", "error", "bound"),
    [
        (UNREADABLE, WrongBaseUrl, MAX_UNREADABLE),
        (REFUSED, RefusedAlike, MAX_REFUSALS),
        (DOUBT, GatewayInTrouble, MAX_DOUBTS + MAX_PROBES),
        (BLAMED, AccountStopped, MAX_UNREADABLE),
    ],
    ids=["unreadable", "refused", "doubt", "blamed"],
)
@pytest.mark.parametrize("submitting", [1, 8, 100])
def test_a_fuse_trips_before_more_than_its_number_is_sent(
    submitting: int, facts: dict[str, Any], error: type[SubmissionsStopped], bound: int
) -> None:
    """Of 200 jobs exactly that many are sent (fewer where one answer is enough), with 1 or with 100 side by side."""
    account, stopped, sends = stop_of(facts, submitting=submitting)
    assert isinstance(stopped, error)
    assert sends <= bound
    assert sends == bound or facts is BLAMED
    doubts = sends if facts["verdict"] is V.UNKNOWN else 0
    assert len(account.parked) == 200 - doubts


def test_an_outage_later_costs_what_is_under_way_and_the_probes() -> None:
    """With 20 submissions under way when it begins, 20 are in doubt, and then one for each probe."""
    account = Account(submitting=20)
    for _ in range(40):
        account.accept_one()
    for _ in range(200):
        account.queue()
    sends = len(account.send_all())
    assert sends == 20
    account.now = 1.0
    while account.stopped is None:
        account.answer(next(iter(account.sent)), DOUBT)
        sends += len(account.send_all())
        if not account.sent and account.stopped is None:
            account.wait()
            sends += len(account.send_all())
    assert sends == 20 + MAX_PROBES


# --- ambiguous answers --------------------------------------------------------------------------------------------------


def test_after_eight_doubts_single_submissions_probe_with_growing_waits() -> None:
    """The waits are 2, 5, 15 and 30 s, give or take a quarter; the fourth doubt stops."""
    account = Account()
    for _ in range(50):
        account.queue()
    for _ in range(MAX_DOUBTS):
        assert account.answer(account.send(), DOUBT) is None
    waits = []
    for number in range(MAX_PROBES):
        waits.append(account.wait())
        probe = account.send()
        assert isinstance(account.next(), WaitUntil)  # one at a time
        stop = account.answer(probe, DOUBT)
        assert (stop is None) == (number < MAX_PROBES - 1)
    assert waits == list(PROBE_WAITS_S)
    assert "12 answers in a row" in str(account.stopped)
    assert len(account.parked) == 50 - 12


def test_an_accepted_probe_ends_the_pause() -> None:
    """Submissions go on, a few side by side as at the beginning, and a count starts anew."""
    account = Account(submitting=50)
    for _ in range(100):
        account.queue()
    for _ in range(MAX_DOUBTS):
        account.answer(account.send(), DOUBT)
    account.wait()
    account.answer(account.send(), ACCEPTED)
    assert len(account.send_all()) == MAX_UNREADABLE + 1
    for active in list(account.sent):
        assert account.answer(active, DOUBT) is None


def test_a_single_acceptance_between_doubts_resets_their_count() -> None:
    """Seven doubts, an acceptance and seven doubts pause nothing."""
    account = Account()
    for _ in range(30):
        account.queue()
    for facts in [DOUBT] * 7 + [ACCEPTED] + [DOUBT] * 7:
        account.answer(account.send(), facts)
    assert isinstance(account.next(), Submit)


def test_a_gateway_in_trouble_gets_one_probe_after_each_stop() -> None:
    """A caller that submits again after the stop pays with one doubt at most, not with twelve."""
    account, _, _ = stop_of(DOUBT, submitting=8)
    account.stopped = None
    account.submissions.allow()
    for _ in range(20):
        account.queue()
    assert account.wait() == PROBE_WAITS_S[-1]
    assert isinstance(account.answer(account.send(), DOUBT), GatewayInTrouble)


def test_late_answers_from_before_the_pause_are_not_probes() -> None:
    """Submissions that were under way when the pause began do not use up the probes."""
    fuses = Fuses()
    for _ in range(MAX_DOUBTS):
        fuses.on_doubt(0.0, 1.0, 0.5)
    assert [fuses.on_doubt(0.5, 1.5, 0.5) for _ in range(20)] == [None] * 20
    assert fuses.ready_at(1.5) == 1.0 + PROBE_WAITS_S[0]


# --- unreadable receipts ------------------------------------------------------------------------------------------------


def test_unreadable_receipts_after_a_real_one_are_doubts_like_others() -> None:
    """The base URL and the wire are proven by one receipt, so three pages stop nothing."""
    account = Account()
    account.accept_one()
    for _ in range(20):
        account.queue()
    for _ in range(MAX_DOUBTS - 1):
        assert account.answer(account.send(), UNREADABLE) is None
    assert account.stopped is None


# --- refusals -----------------------------------------------------------------------------------------------------------


def test_refusals_that_differ_stop_nothing() -> None:
    """Twenty refusals of which no five are alike belong to their jobs, once nothing else is left to be sent."""
    account = Account(submitting=1)
    jobs = [account.queue() for _ in range(20)]
    for number in range(20):
        assert account.answer(account.send(), REFUSED, fingerprint=f"400 {number // 4}") is None
    assert account.reject_own() == jobs


def test_the_same_content_refused_many_times_counts_once() -> None:
    """A prompt that is repeated twenty times says nothing about other requests."""
    account = Account(submitting=1)
    for _ in range(30):
        account.queue(prompt="the same")
    rejected = []
    for _ in range(30):
        assert account.answer(account.send(), REFUSED) is None
        rejected += account.reject_own()
    assert len(rejected) == 30
    assert account.stopped is None


def test_a_refusal_is_the_jobs_own_once_a_later_submission_is_accepted() -> None:
    """An acceptance of a submission that was under way already proves nothing; a later one does."""
    account = Account(submitting=2)
    account.accept_one()
    refused, earlier, later = (account.queue() for _ in range(3))
    account.send_all()
    account.now = 1.0
    account.answer(refused, REFUSED)
    account.answer(earlier, ACCEPTED)
    assert not account.reject_own()
    account.now = 2.0
    assert account.send() is later
    account.answer(later, ACCEPTED)
    assert account.reject_own() == [refused]
    assert str(refused.job.error).count("HTTP 400, no") == 1


def test_refused_jobs_are_planned_again_when_the_same_refusal_stops() -> None:
    """All five are parked with the others, and the message has the words."""
    account, stopped, _ = stop_of(REFUSED, submitting=8)
    assert "5 different requests were refused alike, not charged: HTTP 400: no" in str(stopped)
    assert {str(active.job.status) for active in account.parked} == {"planned"}


def test_the_number_of_held_refusals_is_bounded() -> None:
    """Beyond 20 the oldest refusal is its job's own."""
    account = Account(submitting=1)
    jobs = [account.queue() for _ in range(MAX_HELD + 3)]
    for number in range(MAX_HELD + 2):
        account.answer(account.send(), REFUSED, fingerprint=str(number))
        account.reject_own()
    assert [str(active.job.status) for active in jobs[:3]] == ["rejected", "rejected", "planned"]


# --- answers that blame the account -------------------------------------------------------------------------------------


def test_an_answer_that_blames_the_account_twice_is_the_jobs_own_if_others_pass() -> None:
    """The job is sent again after another was accepted; the same answer then rejects it and stops nothing."""
    account = Account(submitting=1)
    account.accept_one()
    odd, _, _ = (account.queue() for _ in range(3))
    assert account.answer(account.send(), BLAMED) is None
    account.now = 1.0
    account.answer(account.send(), ACCEPTED)
    assert account.send() is odd
    assert account.answer(odd, BLAMED) is None
    assert account.reject_own() == [odd]
    account.answer(account.send(), ACCEPTED)
    assert account.stopped is None


def test_two_jobs_that_blame_the_account_stop_it() -> None:
    """A balance that ends in the middle of a batch stops at the second job, and both stay planned."""
    account = Account(submitting=1)
    account.accept_one()
    jobs = [account.queue() for _ in range(10)]
    assert account.answer(account.send(), BLAMED) is None
    assert isinstance(account.answer(account.send(), BLAMED), AccountStopped)
    assert sorted(active.job.key for active in account.parked) == sorted(active.job.key for active in jobs)


def test_the_last_job_is_not_burnt_by_an_empty_balance() -> None:
    """Without an acceptance between its two answers the account is stopped, and the job stays planned."""
    account = Account(submitting=1)
    account.accept_one()
    last = account.queue()
    assert account.answer(account.send(), BLAMED) is None
    assert account.send() is last
    assert isinstance(account.answer(last, BLAMED), AccountStopped)
    assert account.parked == [last]


def test_another_answer_the_second_time_is_judged_anew() -> None:
    """A job that got 403 and then 402 is not rejected: the balance may have ended meanwhile."""
    account = Account(submitting=1)
    account.accept_one()
    odd, _, _ = (account.queue() for _ in range(3))
    account.answer(account.send(), BLAMED)
    account.now = 1.0
    account.answer(account.send(), ACCEPTED)
    account.answer(account.send(), BLAMED, http_status=402, fingerprint="402 empty")
    assert account.reject_own() == []
    assert str(odd.job.status) == "planned"


@pytest.mark.parametrize("facts", [{"http_status": None, "fingerprint": ""}, {"http_status": 407}])
def test_a_certificate_and_a_proxy_stop_at_once(facts: dict[str, Any]) -> None:
    """They are the same for every job, also after an acceptance."""
    account = Account()
    account.accept_one()
    account.queue()
    assert isinstance(account.answer(account.send(), BLAMED, **facts), AccountStopped)


# --- a gate for one model -----------------------------------------------------------------------------------------------


def test_jobs_of_a_model_without_a_channel_block_no_other() -> None:
    """They wait behind a gate, jobs of other models pass, and one job at a time probes the gate."""
    account = Account(submitting=4)
    account.accept_one()
    gated = [account.queue("m") for _ in range(3)]
    others = [account.queue("other") for _ in range(3)]
    assert account.send() is gated[0]
    account.answer(gated[0], NO_CHANNEL)
    assert account.send_all() == others
    for active in others:
        account.answer(active, ACCEPTED)
    assert account.wait() > 0
    assert account.send_all() == [gated[0]]
    account.answer(gated[0], ACCEPTED)
    assert account.send_all() == gated[1:]


def test_waits_before_the_probes_of_a_gate_grow_or_follow_retry_after() -> None:
    """Without a hint they grow to a minute; with one they are what the gateway asks for."""
    account = Account(submitting=4, patience=1e6)
    account.queue("m")
    waits = []
    for _ in range(10):
        account.answer(account.send(), NO_CHANNEL)
        waits.append(account.wait())
    assert waits[:3] == sorted(waits[:3])
    assert waits[-1] == 30.0
    account.answer(account.send(), NO_CHANNEL, retry_after=77.0)
    assert account.wait() == 77.0


def test_jobs_behind_a_gate_are_given_up_together_when_patience_ends() -> None:
    """The first that was refused and those that were never sent, 900 s after the gate was closed."""
    account = Account(submitting=4)
    jobs = [account.queue("m") for _ in range(3)]
    while account.now < 900:
        account.answer(account.send(), NO_CHANNEL)
        account.wait()
    assert account.now == 900.0
    given_up = []
    while isinstance(action := account.next(), SubmitTimedOut):
        given_up.append(action.active)
    assert given_up == jobs
    account.queue("m")
    account.send()  # the next one is sent at once


def test_a_batch_goes_on_pulling_past_gated_jobs_up_to_a_number() -> None:
    """Jobs behind a gate do not count as queued, so that those behind them in the input are found."""
    account = Account(submitting=4)
    planner = new_planner(submitting=4)
    only(planner).submissions = account.submissions
    for _ in range(5):
        account.queue("m")
    active = account.send()
    assert not planner.needs_more(4)
    account.answer(active, NO_CHANNEL)
    assert planner.needs_more(4)
    for _ in range(MAX_GATED + 10):
        account.queue("m")
    assert not planner.needs_more(MAX_GATED + 14)


# --- any history --------------------------------------------------------------------------------------------------------


class AnyAnswers(RuleBasedStateMachine):
    """Whatever the gateway answers, in whatever order, the promises of the fuses hold."""

    @initialize(submitting=st.sampled_from([1, 3, 8, 40]))
    def open(self, submitting: int) -> None:
        self.account = Account(submitting=submitting)
        self.limit = submitting
        self.gone: set[ActiveJob] = set()
        self.all: list[ActiveJob] = []
        #: When each job was refused, and when the submissions that were accepted had been sent.
        self.refused_at: dict[ActiveJob, float] = {}
        self.last_accepted = -math.inf
        self.doubts = self.unreadable = 0
        self.proven = False

    @rule(count=st.integers(1, 12), stratum=st.sampled_from("ab"), same=st.booleans())
    def queue(self, count: int, stratum: str, same: bool) -> None:
        self.all += [self.account.queue(stratum, "same" if same else "") for _ in range(count)]

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.account.now += seconds

    @rule(times=st.integers(1, 10))
    def decide(self, times: int) -> None:
        account = self.account
        for _ in range(times):
            under_way = len(account.sent)
            window, is_quiet = account.submissions.fuses.window, not (under_way or account.submissions.queue)
            match account.next():
                case Submit(active):
                    assert under_way < min(self.limit, window)
                    account.start(active)
                case Reject(active, error):
                    overflow = len(account.submissions.refused) + 1 >= MAX_HELD
                    assert is_quiet or overflow or self.last_accepted >= self.refused_at[active]
                    active.job = active.job.rejected(error, account.now)
                    self.gone.add(active)
                case SubmitTimedOut(active):
                    self.gone.add(active)
                case StopSubmitting() as action:  # the few that were refused, and all alike
                    assert is_quiet
                    assert not self.proven
                    account.stop(action)
                case action:
                    assert isinstance(action, WaitUntil)
                    assert action.until > account.now

    @precondition(lambda self: self.account.sent)
    @rule(
        facts=st.sampled_from([ACCEPTED, ACCEPTED, DOUBT, UNREADABLE, REFUSED, BLAMED, NO_CHANNEL, {"verdict": V.NOT_SENT}]),
        which=st.integers(0, 40), count=st.integers(1, 6), words=st.sampled_from("xy"),
    )  # fmt: skip
    def answers(self, facts: dict[str, Any], which: int, count: int, words: str) -> None:
        account = self.account
        for _ in range(min(count, len(account.sent))):
            active = list(account.sent)[which % len(account.sent)]
            sent_at = account.sent[active]
            more = {"fingerprint": words} if "fingerprint" in facts else {}
            self.refused_at[active] = account.now
            account.answer(active, facts, **more)
            if facts is ACCEPTED:
                self.last_accepted, self.proven = max(self.last_accepted, sent_at), True
                self.doubts = self.unreadable = 0
            self.doubts += facts["verdict"] is V.UNKNOWN
            self.unreadable += facts is UNREADABLE and not self.proven
            if facts is REFUSED:
                self.unreadable = 0
            if facts["verdict"] in {V.ACCEPTED, V.UNKNOWN}:
                self.gone.add(active)

    @precondition(lambda self: self.account.stopped is not None)
    @rule()
    def run_again(self) -> None:
        account = self.account
        for active in account.sent:
            self.gone.add(active)
        self.gone.update(account.parked)
        account.submissions.submitting = 0
        account.sent, account.parked, account.stopped = {}, [], None
        account.submissions.allow()
        self.proven, self.doubts, self.unreadable = False, 0, 0

    @invariant()
    def no_job_is_lost_or_in_two_places(self) -> None:
        account = self.account
        places = [*account.submissions.queue, *account.submissions.refused, *account.sent, *self.gone, *account.parked]
        assert sorted(active.job.key for active in places) == sorted(active.job.key for active in self.all)

    @invariant()
    def doubts_are_bounded(self) -> None:
        assert self.doubts <= max(MAX_DOUBTS, self.limit) + MAX_PROBES
        assert self.unreadable <= MAX_UNREADABLE

    @invariant()
    def something_that_waits_is_sent_some_time(self) -> None:
        account = self.account
        if account.stopped is None and not account.sent and (account.submissions.queue or account.submissions.refused):
            action = account.next()
            account.undo(action)
            if isinstance(action, Reject | SubmitTimedOut):
                self.gone.add(action.active)
            assert not isinstance(action, WaitUntil) or math.isfinite(action.until)


TestAnyAnswers = AnyAnswers.TestCase
TestAnyAnswers.settings = settings(max_examples=60, stateful_step_count=30)


def test_every_trip_has_a_reason_to_show() -> None:
    """Each fuse that can trip names a stop of its own kind."""
    assert {trip.value for trip in Trip} == {"trouble", "unreadable", "refused_alike", "account"}
