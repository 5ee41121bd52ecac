"""The planner: its next action for given jobs, limits and times; submissions and charges."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pika_async import (
    AccountStopped,
    ChargeLimitReached,
    JobStatus,
    ProviderUnreachable,
    SubmissionInDoubt,
    SubmissionRejected,
    TaskState,
    WrongBaseUrl,
)
from pika_async._planning.actions import (
    ActiveJob,
    CallbackTimedOut,
    DeadlinePassed,
    Park,
    Poll,
    Reject,
    StopSubmitting,
    Submit,
    SubmitTimedOut,
    WaitUntil,
)
from pika_async._planning.submit_queue import SubmitQueue
from pika_async.providers._verdicts import PollVerdict, SubmitVerdict
from tests.fakes.only_account import only
from tests.planning.planner_steps import (
    accepted_job,
    finish_poll,
    finish_submit,
    new_planner,
    next_time,
    poll,
    queued_job,
    reject_own,
    start_poll,
    start_submit,
    stop_account,
)

# --- deciding -----------------------------------------------------------------------------------------------------------


def test_without_jobs_it_waits_for_ever() -> None:
    """The planner of no job returns an infinite time, at any time."""
    assert new_planner().next_action(5.0) == WaitUntil(math.inf)


def test_submissions_begin_in_the_order_of_the_queue() -> None:
    """Jobs are sent at once, first come, first served, up to the maximum number of concurrent submissions."""
    planner = new_planner(submitting=3)
    active_jobs = [queued_job(planner) for _ in range(5)]
    assert [start_submit(planner, 0.0) for _ in range(3)] == active_jobs[:3]
    assert planner.next_action(0.0) == WaitUntil(math.inf)
    finish_submit(planner, active_jobs[0], SubmitVerdict.ACCEPTED, 1.0)
    assert start_submit(planner, 1.0) is active_jobs[3]


def test_the_limit_in_flight_delays_submissions() -> None:
    """No submission begins while accepted and submitting jobs reach the limit; a settled job makes room."""
    planner = new_planner(max_in_flight=2)
    first, second = accepted_job(planner, 0.0), accepted_job(planner, 1.0)
    queued_job(planner)
    assert next_time(planner, 1.0) == 10.0  # the first poll, not a submission
    assert poll(planner, 10.0, TaskState.SUCCEEDED) is first.job
    assert start_submit(planner, 10.0).job.status is JobStatus.SUBMITTING
    assert second.job.is_in_flight


def test_polls_go_before_submissions() -> None:
    """When both are possible, the poll comes first, since it may make room."""
    planner = new_planner()
    active = accepted_job(planner, 0.0)
    queued_job(planner)
    assert planner.next_action(10.0) == Poll(active)


def test_polls_are_in_the_order_in_which_they_are_due() -> None:
    """The task that was accepted first is polled first, and of two that are due together the older one."""
    planner = new_planner()
    active_jobs = [accepted_job(planner, at) for at in (0.0, 1.0, 1.5, 2.0)]
    assert [start_poll(planner, 20.0) for _ in range(4)] == active_jobs
    older, younger = (
        ActiveJob(active_jobs[0].job, "s", accepted_at=1.0),
        ActiveJob(active_jobs[1].job, "s", accepted_at=2.0),
    )
    for active in (younger, older):
        only(planner).poll_queue.push(active, 30.0)
    assert only(planner).poll_queue._waiting[0][1] is older


def test_the_number_of_concurrent_polls_is_limited() -> None:
    """At the limit no further poll begins; one that finishes makes room."""
    planner = new_planner(polling=2)
    for _ in range(3):
        accepted_job(planner, 0.0)
    first, _ = start_poll(planner, 10.0), start_poll(planner, 10.0)
    assert planner.next_action(10.0) == WaitUntil(math.inf)
    finish_poll(planner, first, 11.0, TaskState.RUNNING)
    assert isinstance(planner.next_action(11.0), Poll)


def test_rates_delay_calls_until_there_is_a_token() -> None:
    """At one submission and one poll a second, the next of each is exactly a second later."""
    planner = new_planner(submits_per_second=1, polls_per_second=1)
    queued_job(planner), queued_job(planner)
    for at in (0.0, 1.0):
        finish_submit(planner, start_submit(planner, at), SubmitVerdict.ACCEPTED, at)
        if at == 0.0:
            assert next_time(planner, 0.0) == pytest.approx(1.0)
    start_poll(planner, 20.0)
    assert next_time(planner, 20.0) == pytest.approx(21.0)


def test_closing_ends_submissions() -> None:
    """A closing planner starts no submission."""
    planner = new_planner()
    queued_job(planner)
    planner.closing = True
    assert planner.next_action(0.0) == WaitUntil(math.inf)


# --- verdicts on submissions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "status", "back", "charges"),
    [
        (SubmitVerdict.ACCEPTED, JobStatus.QUEUED, False, 1),
        (SubmitVerdict.UNKNOWN, JobStatus.UNKNOWN, False, 1),
        (SubmitVerdict.REJECTED, JobStatus.REJECTED, False, 0),
        (SubmitVerdict.WRONG_URL, JobStatus.PLANNED, True, 0),
        (SubmitVerdict.WAIT, JobStatus.PLANNED, True, 0),
        (SubmitVerdict.NOT_SENT, JobStatus.PLANNED, True, 0),
        (SubmitVerdict.STOP, JobStatus.PLANNED, True, 0),
    ],
)
def test_each_verdict_does_what_it_says(verdict: SubmitVerdict, status: JobStatus, back: bool, charges: int) -> None:
    """A job is queued again only if it was certainly not accepted; one that may have been accepted counts as a charge."""
    planner = new_planner()
    queued_job(planner)
    active = start_submit(planner, 0.0)
    finish_submit(planner, active, verdict, 1.0)
    assert active.job.status is status
    submissions = only(planner).submissions
    waits = active in submissions.queue or active in submissions.refused
    assert (waits, submissions.spending.charges, submissions.submitting) == (back, charges, 0)


@pytest.mark.parametrize(
    ("verdict", "error"), [(SubmitVerdict.STOP, AccountStopped), (SubmitVerdict.WRONG_URL, WrongBaseUrl)]
)
def test_a_refused_account_and_a_wrong_url_stop_at_once(verdict: SubmitVerdict, error: type[Exception]) -> None:
    """One such answer is enough to stop submitting, with its reason."""
    planner = new_planner()
    queued_job(planner)
    stop = finish_submit(planner, start_submit(planner, 0.0), verdict, 1.0, reason="no such key")
    assert stop is not None
    assert isinstance(stop.error, error)
    assert "no such key" in str(stop.error)


def test_errors_of_verdicts_name_the_job() -> None:
    """A rejected job and one in doubt carry the error of their kind, with the text of the provider."""
    for verdict, kind in ((SubmitVerdict.REJECTED, SubmissionRejected), (SubmitVerdict.UNKNOWN, SubmissionInDoubt)):
        planner = new_planner()
        queued_job(planner)
        active = start_submit(planner, 0.0)
        finish_submit(planner, active, verdict, 1.0, reason="because", http_status=500)
        reject_own(planner, 1.0)
        assert isinstance(active.job.error, kind)
        assert (active.job.error.key, active.job.error.http_status) == (active.job.key, 500)


def test_a_refused_job_is_the_next_to_be_sent() -> None:
    """After the pause, a job that was asked to retry later goes before those that were queued after it."""
    planner = new_planner()
    first, second = queued_job(planner), queued_job(planner)
    assert start_submit(planner, 0.0) is first
    finish_submit(planner, first, SubmitVerdict.WAIT, 1.0, http_status=429, retry_after=7.0)
    assert next_time(planner, 1.0) == 8.0
    assert start_submit(planner, 8.0) is first
    assert start_submit(planner, 8.0) is second


@pytest.mark.parametrize(("status", "tasks"), [(503, 1), (429, 0), (503, 0)])
def test_a_refusal_unrelated_to_slots_backs_off(status: int, tasks: int) -> None:
    """Without a task of this client in flight, or with another status, no concurrency limit is learned."""
    planner = new_planner()
    for _ in range(tasks):
        accepted_job(planner, 0.0)
    active, now, pauses = queued_job(planner), 1.0, []
    for _ in range(3):
        finish_submit(planner, start_submit(planner, now), SubmitVerdict.WAIT, now, http_status=status)
        pauses.append(only(planner).submissions.throttle.ready_at(now) - now)
        now += pauses[-1]
    assert pauses[0] < pauses[1] < pauses[2]
    assert (only(planner).submissions.concurrency.estimated_limit, next(iter(only(planner).submissions.queue))) == (
        None,
        active,
    )


def test_a_429_while_a_task_is_in_flight_is_repeated_at_the_probe_interval() -> None:
    """A slot will become free, so submissions are repeated one at a time, and do not use up patience."""
    planner = new_planner(patience=60.0)
    accepted_job(planner, 0.0)
    queued_job(planner)
    queued_job(planner)
    now = 1.0
    for _ in range(20):
        active = start_submit(planner, now)
        finish_submit(planner, active, SubmitVerdict.WAIT, now + 0.1, http_status=429)
        assert only(planner).submissions.concurrency.estimated_limit == 1
        only(planner).poll_queue.clear()  # only submissions matter here
        again = next_time(planner, now + 0.1)
        assert 0.0 < again - now < 120.1
        now = again
    assert now > 60.0
    assert next(iter(only(planner).submissions.queue)) is active


def test_unsent_submissions_between_answers_do_not_add_up() -> None:
    """Submissions that make no connection stop the client only if they are consecutive; a 429 between them resets them."""
    planner = new_planner()
    accepted_job(planner, 0.0)
    queued_job(planner)
    now = 1.0
    for _ in range(20):
        for verdict in (SubmitVerdict.NOT_SENT, SubmitVerdict.WAIT):
            only(planner).poll_queue.clear()
            now = max(
                only(planner).submissions.throttle.ready_at(now), only(planner).submissions.concurrency.ready_at(now)
            )
            assert finish_submit(planner, start_submit(planner, now), verdict, now, http_status=429) is None


def test_retry_after_of_a_429_is_honoured_while_a_task_is_in_flight() -> None:
    """The next submission waits for these seconds, even if the probe interval is shorter."""
    planner = new_planner()
    accepted_job(planner, 0.0)
    queued_job(planner)
    finish_submit(planner, start_submit(planner, 1.0), SubmitVerdict.WAIT, 1.0, http_status=429, retry_after=7.0)
    assert next_time(planner, 1.0) == 8.0


def test_unsent_submissions_stop_after_six_attempts() -> None:
    """The sixth consecutive submission without a connection stops submitting; the job stays planned."""
    planner = new_planner()
    active = queued_job(planner)
    now, stop = 0.0, None
    for attempt in range(6):
        assert stop is None, attempt
        now = only(planner).submissions.throttle.ready_at(now)
        stop = finish_submit(planner, start_submit(planner, now), SubmitVerdict.NOT_SENT, now)
    assert stop is not None
    assert isinstance(stop.error, ProviderUnreachable)
    assert stop.error.attempts == 6
    assert active.job.status is JobStatus.PLANNED
    assert active.job.attempts == 6


def test_patience_ends() -> None:
    """A job that is refused for longer than its patience is given up: it stays planned, and is removed from the queue."""
    planner = new_planner(patience=60.0)
    active = queued_job(planner)
    finish_submit(planner, start_submit(planner, 0.0), SubmitVerdict.WAIT, 0.0, http_status=429, retry_after=300.0)
    assert next_time(planner, 1.0) == 60.0
    assert planner.next_action(60.0) == SubmitTimedOut(active)
    assert (active.job.status, len(only(planner).submissions.queue)) == (JobStatus.PLANNED, 0)


# --- charges ------------------------------------------------------------------------------------------------------------


def test_the_limit_of_charges_stops_submitting_once_it_is_reached() -> None:
    """With one charge left and one submission being sent, the planner waits; it stops once that is accepted or in doubt."""
    for verdict in (SubmitVerdict.ACCEPTED, SubmitVerdict.UNKNOWN):
        planner = new_planner(max_charges=1)
        queued_job(planner), queued_job(planner)
        active = start_submit(planner, 0.0)
        assert planner.next_action(0.0) == WaitUntil(math.inf)
        finish_submit(planner, active, verdict, 1.0)
        action = planner.next_action(1.0)
        assert isinstance(action, StopSubmitting)
        assert isinstance(action.error, ChargeLimitReached)
        assert action.error.limit == 1


def test_a_rejected_submission_does_not_count_as_a_charge() -> None:
    """It costs nothing, so the next one may be sent within the limit."""
    planner = new_planner(max_charges=1)
    queued_job(planner)
    second = queued_job(planner)
    finish_submit(planner, start_submit(planner, 0.0), SubmitVerdict.REJECTED, 1.0)
    assert start_submit(planner, 1.0) is second


def test_a_caller_needs_as_many_jobs_as_can_be_sent_concurrently() -> None:
    """More are needed while fewer are unsent than submissions may be concurrent, and none after a stop."""
    planner = new_planner(submitting=3)
    assert [planner.needs_more(unsent) for unsent in range(5)] == [True, True, True, False, False]
    planner.stop_submitting(AccountStopped(provider="p"))
    assert not planner.needs_more(0)


def test_only_a_queued_job_can_be_cancelled() -> None:
    """A queued job is removed; one that is being sent is not."""
    planner = new_planner()
    first, second = queued_job(planner), queued_job(planner)
    assert start_submit(planner, 0.0) is first
    assert only(planner).submissions.remove(second) is True
    assert only(planner).submissions.remove(first) is False
    assert only(planner).submissions.remove(second) is False
    assert len(only(planner).submissions.queue) == 0


def test_a_stopped_account_parks_every_job() -> None:
    """Each is an action of its own: first those that were not sent; no more are in flight then, and none is polled."""
    planner = new_planner(max_in_flight=4)
    active_jobs = [accepted_job(planner, 0.0) for _ in range(4)]
    unsent = [queued_job(planner) for _ in range(3)]
    parked = stop_account(planner)
    assert parked[:3] == unsent
    assert sorted(e.job.key for e in parked[3:]) == sorted(e.job.key for e in active_jobs)
    assert (only(planner).in_flight, planner.next_action(99.0)) == (0, WaitUntil(math.inf))


def test_what_a_stop_takes_out_of_the_queues_is_neither_sent_nor_polled() -> None:
    """Also if submitting is allowed again, or a callback comes, before the job has been parked."""
    planner = new_planner()
    accepted, unsent = accepted_job(planner, 0.0), queued_job(planner)
    error = AccountStopped(provider="p")
    planner.stop_submitting(error)
    planner.stop_polling("p", error)
    planner.allow_submitting()
    only(planner).on_callback(accepted, 5.0)
    assert [planner.next_action(99.0) for _ in range(2)] == [Park(unsent, error), Park(accepted, error)]
    assert isinstance(planner.next_action(99.0), WaitUntil)


def test_a_job_that_a_stop_is_about_to_park_can_be_withdrawn() -> None:
    """It was not sent; one that was accepted is parked."""
    planner = new_planner()
    accepted, unsent = accepted_job(planner, 0.0), queued_job(planner)
    planner.stop_submitting(AccountStopped(provider="p"))
    planner.stop_polling("p", AccountStopped(provider="p"))
    assert planner.remove_unsent(unsent)
    assert not planner.remove_unsent(unsent)
    assert not planner.remove_unsent(accepted)
    park = planner.next_stopped()
    assert park is not None
    assert park.active is accepted
    assert planner.next_stopped() is None


def test_withdrawing_every_job_compares_none_with_another() -> None:
    """However many are queued, each is found at once."""
    compared = 0

    class CountedJob(ActiveJob):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += self is not other
            return self is other

        __hash__ = ActiveJob.__hash__

    queue = SubmitQueue()
    template = queued_job(new_planner()).job
    jobs = [CountedJob(template, "s") for _ in range(50)]
    for active in jobs:
        queue.append(active)
    assert all(queue.remove(active) for active in reversed(jobs))
    assert (len(queue), compared) == (0, 0)


def test_a_stopped_account_ends_the_waiting_for_callbacks() -> None:
    """Each job in doubt is parked as it is, unless its callback has come before its turn."""
    planner = new_planner()
    only(planner).poll_queue.callbacks.enabled = True
    doubts = []
    for _ in range(3):
        queued_job(planner)
        active = start_submit(planner, 0.0)
        finish_submit(planner, active, SubmitVerdict.UNKNOWN, 1.0)
        assert only(planner).await_callback(active, 1.0)
        doubts.append(active)
    planner.stop_polling("p", AccountStopped(provider="p"))
    doubts[1].job = doubts[1].job.accepted("t", 2.0)
    found = [planner.next_action(2.0) for _ in range(2)]
    assert found == [CallbackTimedOut(doubts[0]), CallbackTimedOut(doubts[2])]


class AnyInterleaving(RuleBasedStateMachine):
    """Jobs that are queued, sent, polled and settled in any order that the planner's own actions allow."""

    @initialize(
        charges=st.none() | st.integers(1, 6), in_flight=st.none() | st.integers(1, 6), submitting=st.integers(1, 4),
        polling=st.integers(1, 3),
    )  # fmt: skip
    def begin(self, charges: int | None, in_flight: int | None, submitting: int, polling: int) -> None:
        self.now = 0.0
        self.limit = charges
        self.ceiling = in_flight
        self.planner = new_planner(
            max_charges=charges, max_in_flight=in_flight, submitting=submitting, polling=polling, deadline=200.0
        )
        self.all: list[ActiveJob] = []
        self.sent: list[ActiveJob] = []
        self.polled: list[ActiveJob] = []
        self.stopped: list[ActiveJob] = []
        self.charged = 0

    @rule()
    def plan(self) -> None:
        self.all.append(queued_job(self.planner))

    @rule(seconds=st.floats(0.01, 60))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def decide(self) -> None:
        action = self.planner.next_action(self.now)
        match action:
            case Submit(active):
                assert active not in self.stopped
                self.planner.on_submit_started(active, self.now)
                active.job = active.job.submitting()
                self.sent.append(active)
            case Poll(active):
                self.planner.on_poll_started(active, self.now)
                self.polled.append(active)
            case DeadlinePassed(active):
                assert self.now >= active.deadline_at
                assert self.planner.expire(active).task_id is not None
            case SubmitTimedOut(active):
                assert self.now >= active.deadline_at
                self.all.remove(active)
            case Reject(active, refusal):
                active.job = active.job.rejected(refusal, self.now)
            case StopSubmitting(error):
                assert isinstance(error, ChargeLimitReached)
                assert self.charged == self.limit
                self.stopped += [*only(self.planner).submissions.queue, *only(self.planner).submissions.refused]
                self.planner.stop_submitting(error)
                self.planner.allow_submitting()
            case Park(active):
                assert active is self.stopped.pop(0)
                self.planner.on_stopped(active)
                self.all.remove(active)
            case WaitUntil(until):
                assert until > self.now

    @precondition(lambda self: self.sent)
    @rule(
        verdict=st.sampled_from([SubmitVerdict.ACCEPTED, SubmitVerdict.ACCEPTED, SubmitVerdict.WAIT, SubmitVerdict.NOT_SENT, SubmitVerdict.REJECTED, SubmitVerdict.UNKNOWN]),
        which=st.integers(0, 9), status=st.sampled_from([429, 503]),
    )  # fmt: skip
    def a_submission_is_answered(self, verdict: SubmitVerdict, which: int, status: int) -> None:
        active = self.sent.pop(which % len(self.sent))
        finish_submit(self.planner, active, verdict, self.now, http_status=status)
        self.charged += verdict in {SubmitVerdict.ACCEPTED, SubmitVerdict.UNKNOWN}

    @precondition(lambda self: self.polled)
    @rule(
        state=st.sampled_from([None, *TaskState]), which=st.integers(0, 9),
        verdict=st.sampled_from([PollVerdict.READ, PollVerdict.AGAIN, PollVerdict.MISSING]),
    )  # fmt: skip
    def a_poll_is_answered(self, state: TaskState | None, which: int, verdict: PollVerdict) -> None:
        active = self.polled.pop(which % len(self.polled))
        finish_poll(self.planner, active, self.now, state if verdict is PollVerdict.READ else None, verdict)

    @invariant()
    def charges_stay_within_their_limit(self) -> None:
        if self.limit is not None:
            assert self.charged + len(self.sent) <= self.limit

    @invariant()
    def jobs_in_flight_stay_within_the_ceiling(self) -> None:
        if self.ceiling is not None:
            in_flight = sum(active.job.is_in_flight for active in self.all)
            assert in_flight + len(self.sent) <= self.ceiling

    @invariant()
    def the_heap_holds_one_entry_for_each_waiting_job(self) -> None:
        heap = list(only(self.planner).poll_queue)
        waiting = [e for e in self.all if e.job.is_in_flight and e not in self.polled]
        assert sorted(e.job.key for e in heap) == sorted(e.job.key for e in waiting)
        assert only(self.planner).in_flight == len(waiting) + sum(e.job.is_in_flight for e in self.polled)
        assert only(self.planner).submissions.submitting == len(self.sent)
        assert only(self.planner).polling == len(self.polled)

    @invariant()
    def no_job_is_in_two_places(self) -> None:
        ready = [e for e in self.all if e.job.status is JobStatus.PLANNED]
        waiting = [*only(self.planner).submissions.queue, *only(self.planner).submissions.refused, *self.stopped]
        assert sorted(e.job.key for e in waiting) == sorted(e.job.key for e in ready)


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=60, stateful_step_count=40)
