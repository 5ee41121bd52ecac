"""The one next thing to do, decided from the jobs, the time and the room; time and chance are arguments here."""

from __future__ import annotations

import itertools
import math
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pika_async import (
    AccountStopped,
    ChargeLimitReached,
    DeadlineExceeded,
    FixedInterval,
    GenerationFailed,
    GenerationRequest,
    Job,
    JobStatus,
    Limits,
    ProviderUnreachable,
    Snapshot,
    SubmissionInDoubt,
    SubmissionRejected,
    TaskNotFound,
    TaskState,
    Video,
    WrongBaseUrl,
)
from pika_async._planning.actions import (
    ActiveJob,
    DeadlinePassed,
    Poll,
    PollResult,
    StopSubmitting,
    Submit,
    SubmitTimedOut,
    WaitUntil,
)
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.limits import MAX_IN_FLIGHT, TokenBucket
from pika_async._planning.planner import Planner, apply_verdict
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_queue import PollQueue
from pika_async.polling import PollingPolicy
from pika_async.providers._verdicts import PollVerdict, SubmitOutcome, SubmitVerdict

NUMBERS = itertools.count()


def planner(*, policy: PollingPolicy | None = None, deadline: float = 1000.0, **limits: Any) -> Planner:
    made = Limits(**limits)
    return Planner(
        provider="p",
        base_url="https://x.example",
        limits=made,
        deadline=deadline,
        concurrency=AdaptiveConcurrency(ceiling=made.max_in_flight or MAX_IN_FLIGHT),
        poll_queue=PollQueue(PolicyAdapter(policy=policy or FixedInterval(10.0))),
        submit_rate=TokenBucket(made.submits_per_second),
        poll_rate=TokenBucket(made.polls_per_second),
    )


def planned(on: Planner) -> ActiveJob:
    job = Job(key=f"k{next(NUMBERS)}", request=GenerationRequest("a"), provider="p", base_url="https://x.example")
    entry = ActiveJob(job, "s")
    on.queue(entry, 0.0)
    return entry


def submit(on: Planner, now: float) -> ActiveJob:
    decision = on.next_action(now)
    assert isinstance(decision, Submit)
    on.on_submit_started(decision.active, now)
    decision.active.job = decision.active.job.submitting()
    return decision.active


def answer(on: Planner, entry: ActiveJob, verdict: SubmitVerdict, now: float, **facts: Any) -> StopSubmitting | None:
    outcome = SubmitOutcome(
        verdict=verdict, task_id=f"t-{entry.job.key}" if verdict is SubmitVerdict.ACCEPTED else None, **facts
    )
    entry.job = apply_verdict(entry.job, outcome, now)
    return on.on_submit_finished(entry, outcome, now - 0.1, now, 0.5)


def accepted(on: Planner, now: float) -> ActiveJob:
    planned(on)
    entry = submit(on, now)
    answer(on, entry, SubmitVerdict.ACCEPTED, now)
    return entry


def poll(on: Planner, now: float) -> ActiveJob:
    decision = on.next_action(now)
    assert isinstance(decision, Poll)
    on.on_poll_started(decision.active, now)
    return decision.active


def look(
    on: Planner, now: float, state: TaskState | None, verdict: PollVerdict = PollVerdict.READ, **facts: Any
) -> Job:
    """Look at whatever is due at `now`, and take in what came at once."""
    return seen(on, poll(on, now), now, state, verdict, **facts)


def seen(
    on: Planner,
    entry: ActiveJob,
    now: float,
    state: TaskState | None,
    verdict: PollVerdict = PollVerdict.READ,
    **facts: Any,
) -> Job:
    snapshot = None
    if state is not None:
        video = Video(url="https://x.example/v.mp4") if state is TaskState.SUCCEEDED else None
        snapshot = Snapshot(task_id=str(entry.job.task_id), state=state, video=video)
    return on.on_poll_finished(entry, PollResult(verdict=verdict, snapshot=snapshot, **facts), now, now, 0.5)


def due(on: Planner, now: float) -> float:
    """When something will have to be done next."""
    decision = on.next_action(now)
    assert isinstance(decision, WaitUntil)
    return decision.until


# --- deciding -----------------------------------------------------------------------------------------------------------


def test_with_nothing_to_do_it_sleeps_for_ever() -> None:
    """An empty agenda waits for a nudge, whatever the time."""
    assert planner().next_action(5.0) == WaitUntil(math.inf)


def test_submissions_begin_in_the_order_of_planning() -> None:
    """Jobs are sent first come, first served, at once, up to the number of calls side by side."""
    on = planner(submitting=3)
    entries = [planned(on) for _ in range(5)]
    assert [submit(on, 0.0) for _ in range(3)] == entries[:3]
    assert on.next_action(0.0) == WaitUntil(math.inf)
    answer(on, entries[0], SubmitVerdict.ACCEPTED, 1.0)
    assert submit(on, 1.0) is entries[3]


def test_room_holds_submissions_back() -> None:
    """No submission begins while accepted and submitting jobs fill the room; a settled one makes place."""
    on = planner(max_in_flight=2)
    first, second = accepted(on, 0.0), accepted(on, 1.0)
    planned(on)
    assert due(on, 1.0) == 10.0  # the first look, not a submission
    assert look(on, 10.0, TaskState.SUCCEEDED) is first.job
    assert submit(on, 10.0).job.status is JobStatus.SUBMITTING
    assert second.job.is_in_flight


def test_looks_go_before_submissions() -> None:
    """With a look due and a job planned, the look comes first, since it makes room."""
    on = planner()
    entry = accepted(on, 0.0)
    planned(on)
    assert on.next_action(10.0) == Poll(entry)


def test_looks_are_in_the_order_in_which_they_are_due() -> None:
    """The task that was accepted first is looked at first, and of two that are due together the older."""
    on = planner()
    entries = [accepted(on, at) for at in (0.0, 1.0, 1.5, 2.0)]
    assert [poll(on, 20.0) for _ in range(4)] == entries
    older, younger = ActiveJob(entries[0].job, "s", accepted_at=1.0), ActiveJob(entries[1].job, "s", accepted_at=2.0)
    for entry in (younger, older):
        on.poll_queue.push(entry, 30.0)
    assert on.poll_queue._waiting[0][1] is older


def test_polls_are_at_most_as_many_as_workers() -> None:
    """With all poll workers busy no further look is given out, and one that ends makes place."""
    on = planner(polling=2)
    for _ in range(3):
        accepted(on, 0.0)
    first, _ = poll(on, 10.0), poll(on, 10.0)
    assert on.next_action(10.0) == WaitUntil(math.inf)
    seen(on, first, 11.0, TaskState.RUNNING)
    assert isinstance(on.next_action(11.0), Poll)


def test_rates_hold_calls_back_until_a_token_is_there() -> None:
    """With one submission and one look a second, the next of each is a second later to the dot."""
    on = planner(submits_per_second=1, polls_per_second=1)
    planned(on), planned(on)
    for at in (0.0, 1.0):
        answer(on, submit(on, at), SubmitVerdict.ACCEPTED, at)
        if at == 0.0:
            assert due(on, 0.0) == pytest.approx(1.0)
    poll(on, 20.0)
    assert due(on, 20.0) == pytest.approx(21.0)


def test_closing_sends_nothing_more() -> None:
    """A closing agenda still looks but submits no more."""
    on = planner()
    planned(on)
    on.closing = True
    assert on.next_action(0.0) == WaitUntil(math.inf)


# --- verdicts on submissions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "status", "back", "charges"),
    [
        (SubmitVerdict.ACCEPTED, JobStatus.QUEUED, False, 1),
        (SubmitVerdict.UNKNOWN, JobStatus.UNKNOWN, False, 1),
        (SubmitVerdict.REJECTED, JobStatus.REJECTED, False, 0),
        (SubmitVerdict.WRONG_URL, JobStatus.REJECTED, False, 0),
        (SubmitVerdict.WAIT, JobStatus.PLANNED, True, 0),
        (SubmitVerdict.NOT_SENT, JobStatus.PLANNED, True, 0),
        (SubmitVerdict.STOP, JobStatus.PLANNED, True, 0),
    ],
)
def test_each_verdict_does_what_it_says(verdict: SubmitVerdict, status: JobStatus, back: bool, charges: int) -> None:
    """Only what is proven not accepted is planned again; what may have been accepted counts as a charge."""
    on = planner()
    planned(on)
    entry = submit(on, 0.0)
    answer(on, entry, verdict, 1.0)
    assert entry.job.status is status
    assert (entry in on.submit_queue, on.charges, on.submitting) == (back, charges, 0)


@pytest.mark.parametrize(
    ("verdict", "error"), [(SubmitVerdict.STOP, AccountStopped), (SubmitVerdict.WRONG_URL, WrongBaseUrl)]
)
def test_account_and_address_stop_at_once(verdict: SubmitVerdict, error: type[Exception]) -> None:
    """One refusal of the credential or the address is enough to say stop, with its reason."""
    on = planner()
    planned(on)
    stop = answer(on, submit(on, 0.0), verdict, 1.0, reason="no such key")
    assert stop is not None
    assert isinstance(stop.error, error)
    assert "no such key" in str(stop.error)


def test_errors_of_verdicts_name_the_job() -> None:
    """A rejected and a doubted job carry the error of their kind with the provider's words."""
    for verdict, kind in ((SubmitVerdict.REJECTED, SubmissionRejected), (SubmitVerdict.UNKNOWN, SubmissionInDoubt)):
        on = planner()
        planned(on)
        entry = submit(on, 0.0)
        answer(on, entry, verdict, 1.0, reason="because", http_status=500)
        assert isinstance(entry.job.error, kind)
        assert (entry.job.error.key, entry.job.error.http_status) == (entry.job.key, 500)


def test_a_refused_job_is_the_next_to_be_sent() -> None:
    """A job that the account answered with "wait" goes before those that were planned after it, after the pause."""
    on = planner()
    first, second = planned(on), planned(on)
    assert submit(on, 0.0) is first
    answer(on, first, SubmitVerdict.WAIT, 1.0, http_status=429, retry_after=7.0)
    assert due(on, 1.0) == 8.0
    assert submit(on, 8.0) is first
    assert submit(on, 8.0) is second


@pytest.mark.parametrize(("status", "tasks"), [(503, 1), (429, 0), (503, 0)])
def test_a_wait_that_says_nothing_of_slots_pauses_all_ever_longer(status: int, tasks: int) -> None:
    """Of an account that is refused although it holds none of ours, or for another reason, no number is learned."""
    on = planner()
    for _ in range(tasks):
        accepted(on, 0.0)
    entry, now, pauses = planned(on), 1.0, []
    for _ in range(3):
        answer(on, submit(on, now), SubmitVerdict.WAIT, now, http_status=status)
        pauses.append(on.throttle.ready_at(now) - now)
        now += pauses[-1]
    assert pauses[0] < pauses[1] < pauses[2]
    assert (on.concurrency.estimated_limit, on.submit_queue[0]) == (None, entry)


def test_a_429_beside_a_task_of_ours_is_tried_again_at_a_pace() -> None:
    """One of the slots will get free: tries go on at the pace that the slots say, one at a time, and use up no patience."""
    on = planner(patience=60.0)
    accepted(on, 0.0)
    planned(on)
    planned(on)
    now = 1.0
    for _ in range(20):
        entry = submit(on, now)
        answer(on, entry, SubmitVerdict.WAIT, now + 0.1, http_status=429)
        assert on.concurrency.estimated_limit == 1
        on.poll_queue.clear()  # only submissions matter here
        again = due(on, now + 0.1)
        assert 0.0 < again - now < 120.1
        now = again
    assert now > 60.0
    assert on.submit_queue[0] is entry


def test_unsent_ones_between_answers_do_not_add_up() -> None:
    """Six submissions that make no connection stop everything only if nothing was answered between them, a 429 included."""
    on = planner()
    accepted(on, 0.0)
    planned(on)
    now = 1.0
    for _ in range(20):
        for verdict in (SubmitVerdict.NOT_SENT, SubmitVerdict.WAIT):
            on.poll_queue.clear()
            now = max(on.throttle.ready_at(now), on.concurrency.ready_at(now))
            assert answer(on, submit(on, now), verdict, now, http_status=429) is None


def test_retry_after_of_a_429_is_honoured_beside_tasks_of_ours_too() -> None:
    """Seven seconds are seven, whatever the pace would be."""
    on = planner()
    accepted(on, 0.0)
    planned(on)
    answer(on, submit(on, 1.0), SubmitVerdict.WAIT, 1.0, http_status=429, retry_after=7.0)
    assert due(on, 1.0) == 8.0


def test_unsent_submissions_stop_after_six_attempts() -> None:
    """The sixth time in a row that no connection can be made says stop; what was planned stays planned."""
    on = planner()
    entry = planned(on)
    now, stop = 0.0, None
    for attempt in range(6):
        assert stop is None, attempt
        now = on.throttle.ready_at(now)
        stop = answer(on, submit(on, now), SubmitVerdict.NOT_SENT, now)
    assert stop is not None
    assert isinstance(stop.error, ProviderUnreachable)
    assert stop.error.attempts == 6
    assert entry.job.status is JobStatus.PLANNED
    assert entry.job.attempts == 6


def test_patience_ends() -> None:
    """A job that is told to wait for longer than the patience is given up, still planned and sent no more."""
    on = planner(patience=60.0)
    entry = planned(on)
    answer(on, submit(on, 0.0), SubmitVerdict.WAIT, 0.0, http_status=429, retry_after=300.0)
    assert due(on, 1.0) == 60.0
    assert on.next_action(60.0) == SubmitTimedOut(entry)
    assert (entry.job.status, len(on.submit_queue)) == (JobStatus.PLANNED, 0)


# --- looks --------------------------------------------------------------------------------------------------------------


def test_the_answer_of_the_last_look_counts() -> None:
    """A look is due at the deadline itself, and a success that it brings settles the job."""
    on = planner(deadline=25.0)
    entry = accepted(on, 0.0)
    for at in (10.0, 20.0):
        assert due(on, at - 5) == at
        look(on, at, TaskState.RUNNING)
    assert due(on, 21.0) == 25.0
    assert poll(on, 25.0) is entry
    assert seen(on, entry, 25.4, TaskState.SUCCEEDED).status is JobStatus.SUCCEEDED


def test_without_a_last_answer_the_deadline_parks_with_the_task_id() -> None:
    """A last look that brings no settling parks the job: timed out, id kept, the seconds told."""
    for state, verdict in ((TaskState.RUNNING, PollVerdict.READ), (None, PollVerdict.AGAIN)):
        on = planner(deadline=25.0)
        entry = accepted(on, 0.0)
        look(on, 10.0, TaskState.RUNNING)
        look(on, 20.0, TaskState.RUNNING)
        job = look(on, 25.0, state, verdict)
        assert (job.status, job.task_id) == (JobStatus.TIMED_OUT, f"t-{entry.job.key}")
        assert isinstance(job.error, DeadlineExceeded)
        assert (job.error.seconds, job.polls, on.in_flight) == (25.0, 3, 0)
        assert on.next_action(99.0) == WaitUntil(math.inf)


def test_a_timed_out_job_that_is_taken_up_again_may_time_out_again() -> None:
    """Adopted anew it is in flight again, also while nothing is answered, until the new deadline parks it once more."""
    on = planner(deadline=25.0)
    first = accepted(on, 0.0)
    on.drain_accepted()
    entry = ActiveJob(first.job.timed_out(DeadlineExceeded(key="k", provider="p")).reopened(), "s")
    on.resume(entry, 0.0, 100.0, 0.5)
    assert (entry.job.status, entry.job.task_id) == (JobStatus.QUEUED, first.job.task_id)
    assert look(on, 110.0, None, PollVerdict.MISSING).is_in_flight
    assert look(on, 120.0, None, PollVerdict.AGAIN).is_in_flight
    assert look(on, 125.0, None, PollVerdict.AGAIN).status is JobStatus.TIMED_OUT
    assert (entry.job.status, on.in_flight) == (JobStatus.TIMED_OUT, 0)
    assert isinstance(entry.job.error, DeadlineExceeded)


def test_a_failed_look_does_not_settle_and_a_failed_generation_does() -> None:
    """No usable answer leaves the job as it is; an explicit failure ends it with the provider's words."""
    on = planner()
    entry = accepted(on, 0.0)
    assert look(on, 10.0, None, PollVerdict.AGAIN).status is JobStatus.QUEUED
    decision = on.next_action(12.0)
    assert isinstance(decision, Poll)
    on.on_poll_started(entry, 12.0)
    snapshot = Snapshot(task_id="t", state=TaskState.FAILED, reason="moderated")
    job = on.on_poll_finished(entry, PollResult(verdict=PollVerdict.READ, snapshot=snapshot), 12.0, 12.0, 0.5)
    assert job.status is JobStatus.FAILED
    assert isinstance(job.error, GenerationFailed)
    assert (job.error.reason, job.polls) == ("moderated", 2)


def test_retry_after_of_a_look_is_honoured() -> None:
    """A look that was refused with a wish is repeated no sooner than wished."""
    on = planner()
    accepted(on, 0.0)
    look(on, 10.0, None, PollVerdict.AGAIN, retry_after=33.0)
    assert due(on, 10.0) == 43.0


def test_misses_are_repeated_on_a_ladder_of_their_own() -> None:
    """Looks without an answer come again soon, then less and less often, at most every minute."""
    on = planner(deadline=1e6)
    entry = accepted(on, 0.0)
    now, waits = 10.0, []
    for _ in range(12):
        on.breaker.succeed()  # apart from the breaker, which has a test of its own
        look(on, now, None, PollVerdict.AGAIN)
        on.breaker.succeed()
        after = due(on, now)
        waits.append(after - now)
        now = after
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30])
    assert entry.failed_polls == 12


def test_a_denied_young_task_is_asked_again() -> None:
    """Denials within ten minutes never park a job, however many; an answer in between starts the count again."""
    on = planner(deadline=1e6)
    accepted(on, 0.0)
    for number in range(1, 60):
        assert look(on, 10.0 * number, None, PollVerdict.MISSING).is_in_flight
    assert look(on, 600.0, TaskState.RUNNING).status is JobStatus.RUNNING
    assert look(on, 700.0, None, PollVerdict.MISSING).is_in_flight


def test_a_denied_old_task_is_parked_after_five_denials_over_ten_minutes() -> None:
    """The fifth denial, ten minutes or more after the first, parks the job as not found; the fourth does not."""
    on = planner(deadline=1e6)
    entry = accepted(on, 0.0)
    for at in (100.0, 400.0, 800.0, 1200.0):
        assert look(on, at, None, PollVerdict.MISSING).is_in_flight
    job = look(on, 1300.0, None, PollVerdict.MISSING, reason="task_not_exist")
    assert (job.status, job.task_id) == (JobStatus.TIMED_OUT, f"t-{entry.job.key}")
    assert isinstance(job.error, TaskNotFound)
    assert "not found 5 times over 1200 s" in str(job.error)


def test_a_success_without_address_has_a_deadline_of_its_own() -> None:
    """From the first such answer it is asked for ten minutes more, past the job's own deadline, and then parked."""
    on = planner(deadline=30.0)
    entry = accepted(on, 0.0)
    for at in (10.0, 20.0):
        look(on, at, TaskState.RUNNING)
    assert look(on, 30.0, TaskState.SUCCEEDED_WITHOUT_URL).is_in_flight
    now = 30.0
    while entry.job.is_in_flight:
        now = due(on, now)
        look(on, now, TaskState.SUCCEEDED_WITHOUT_URL)
    assert (entry.job.status, now) == (JobStatus.TIMED_OUT, 630.0)


def test_an_address_that_comes_late_settles() -> None:
    """Once the address is there the job succeeds, however late."""
    on = planner(deadline=30.0)
    accepted(on, 0.0)
    for at in (10.0, 20.0):
        look(on, at, TaskState.RUNNING)
    look(on, 30.0, TaskState.SUCCEEDED_WITHOUT_URL)
    assert look(on, due(on, 30.0), TaskState.SUCCEEDED).status is JobStatus.SUCCEEDED


# --- the breaker --------------------------------------------------------------------------------------------------------


def opened(jobs: int, deadline: float = 1000.0) -> tuple[Planner, list[ActiveJob]]:
    """An agenda of `jobs` accepted ones whose breaker has just opened at 10.0."""
    on = planner(deadline=deadline, max_in_flight=jobs)
    entries = [accepted(on, 0.0) for _ in range(jobs)]
    active_jobs = [poll(on, 10.0) for _ in range(8)]
    for entry in active_jobs:
        seen(on, entry, 10.0, None, PollVerdict.AGAIN)
    assert on.breaker.is_open
    return on, entries


def test_with_the_breaker_open_all_jobs_wait_together() -> None:
    """After eight failures in a row nobody is looked at until the probe, and then one only."""
    on, _ = opened(20)
    probe_at = due(on, 10.0)
    assert 10.5 <= probe_at <= 11.0
    poll(on, probe_at)
    assert due(on, probe_at + 5) == 1000.0  # the deadline of those that were looked at


def test_a_failed_probe_is_followed_by_one_and_a_good_one_frees_all() -> None:
    """A probe that fails leaves one more to be sent later; one that is answered lets every due look begin."""
    on, _ = opened(20)
    probe_at = due(on, 10.0)
    look(on, probe_at, None, PollVerdict.AGAIN)
    second = due(on, probe_at)
    assert second > probe_at
    look(on, second, TaskState.RUNNING)
    assert len([poll(on, second) for _ in range(12)]) == 12


def test_jobs_expire_while_the_breaker_is_open() -> None:
    """A job past its deadline that was looked at before is parked at once, with no look."""
    on, entries = opened(8, deadline=10.2)
    decisions = [on.next_action(10.3) for _ in range(8)]
    assert sorted(d.active.job.key for d in decisions if isinstance(d, DeadlinePassed)) == sorted(
        e.job.key for e in entries
    )
    for entry in entries:
        assert on.expire(entry).status is JobStatus.TIMED_OUT
    assert on.in_flight == 0


def test_a_deadline_wakes_an_agenda_whose_breaker_is_open() -> None:
    """The sleep until the next probe is cut short by the deadline of the job that waits for it."""
    on, _ = opened(8, deadline=11.0)
    on.breaker._until = 500.0
    assert due(on, 10.6) == 11.0
    assert isinstance(on.next_action(11.0), DeadlinePassed)


def test_a_job_that_was_never_looked_at_does_not_expire_unseen() -> None:
    """With the breaker open, a job gets one look before its deadline may park it."""
    on, entries = opened(9, deadline=10.2)
    never = next(entry for entry in entries if not entry.polls)
    probed = []
    now = 10.3
    while never.job.is_in_flight:
        decision = on.next_action(now)
        if isinstance(decision, WaitUntil):
            now = decision.until
        elif isinstance(decision, DeadlinePassed):
            assert decision.active is not never
            on.expire(decision.active)
        else:
            assert isinstance(decision, Poll)
            on.on_poll_started(decision.active, now)
            probed.append(decision.active)
            seen(on, decision.active, now, TaskState.SUCCEEDED)
    assert probed == [never]


# --- misbehaving policies -----------------------------------------------------------------------------------------------


@attrs.define
class Odd(PollingPolicy):
    """A policy that gives what no policy should."""

    gives: Any

    def next_delay(self, context: object, u: float) -> float:
        if isinstance(self.gives, Exception):
            raise self.gives
        value: float = self.gives
        return value

    def observe(self, sample: object, last_unsettled_age: float | None = None) -> None:
        if isinstance(self.gives, Exception):
            raise self.gives


@pytest.mark.parametrize(
    "gives", [math.nan, 0, -5.0, -math.inf, math.inf, None, "soon", ZeroDivisionError("oops"), KeyError("s")], ids=repr
)
def test_a_policy_that_misbehaves_costs_no_job(gives: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a user's policy gives or raises: every job is looked at again within a bound, and it is logged once."""
    on = planner(policy=Odd(gives), max_in_flight=3)
    for _ in range(3):
        accepted(on, 0.0)
    assert due(on, 0.0) == 2.0
    for _ in range(3):
        look(on, 2.0, TaskState.RUNNING)
    assert due(on, 2.0) == pytest.approx(2.0 + 2.0 + 0.35 * 2.0)
    for _ in range(3):
        assert look(on, 5.0, TaskState.SUCCEEDED).status is JobStatus.SUCCEEDED
    complaints = [record for record in caplog.records if "polling policy" in record.getMessage()]
    assert len(complaints) == 1


# --- charges ------------------------------------------------------------------------------------------------------------


def test_the_limit_of_charges_stops_once_it_is_surely_reached() -> None:
    """With one charge left and one submission out, nothing is sent; only its acceptance or doubt says stop."""
    for verdict in (SubmitVerdict.ACCEPTED, SubmitVerdict.UNKNOWN):
        on = planner(max_charges=1)
        planned(on), planned(on)
        entry = submit(on, 0.0)
        assert on.next_action(0.0) == WaitUntil(math.inf)
        answer(on, entry, verdict, 1.0)
        decision = on.next_action(1.0)
        assert isinstance(decision, StopSubmitting)
        assert isinstance(decision.error, ChargeLimitReached)
        assert decision.error.limit == 1


def test_what_was_refused_leaves_its_charge_to_another() -> None:
    """A rejected submission costs nothing, so the next one may be sent under the limit."""
    on = planner(max_charges=1)
    planned(on)
    second = planned(on)
    answer(on, submit(on, 0.0), SubmitVerdict.REJECTED, 1.0)
    assert submit(on, 1.0) is second


def test_backpressure_asks_for_as_many_as_can_be_sent_side_by_side() -> None:
    """A caller is asked for more while it has fewer unsent jobs than there are submitters, and never after a stop."""
    on = planner(submitting=3)
    assert [on.needs_more(unsent) for unsent in range(5)] == [True, True, True, False, False]
    on.stop_submitting(AccountStopped(provider="p"))
    assert not on.needs_more(0)


def test_withdrawing_takes_back_only_what_was_not_sent() -> None:
    """A planned job is taken off; one that is on its way is not."""
    on = planner()
    first, second = planned(on), planned(on)
    assert submit(on, 0.0) is first
    assert on.cancel_queued(second) is True
    assert on.cancel_queued(first) is False
    assert on.cancel_queued(second) is False
    assert len(on.submit_queue) == 0


def test_parking_all_empties_the_heap() -> None:
    """A stopped account takes every waiting job off the heap and out of the count."""
    on = planner(max_in_flight=4)
    entries = [accepted(on, 0.0) for _ in range(4)]
    assert sorted(e.job.key for e in on.drain_accepted()) == sorted(e.job.key for e in entries)
    assert (on.in_flight, on.next_action(99.0)) == (0, WaitUntil(math.inf))


class AnyInterleaving(RuleBasedStateMachine):
    """Jobs come, are sent, answered, looked at and settle in any order that the agenda's own decisions allow."""

    @initialize(
        charges=st.none() | st.integers(1, 6), in_flight=st.none() | st.integers(1, 6), submitting=st.integers(1, 4),
        polling=st.integers(1, 3),
    )  # fmt: skip
    def begin(self, charges: int | None, in_flight: int | None, submitting: int, polling: int) -> None:
        self.now = 0.0
        self.limit = charges
        self.ceiling = in_flight
        self.planner = planner(
            max_charges=charges, max_in_flight=in_flight, submitting=submitting, polling=polling, deadline=200.0
        )
        self.all: list[ActiveJob] = []
        self.on_the_way: list[ActiveJob] = []
        self.looked_at: list[ActiveJob] = []
        self.charged = 0

    @rule()
    def plan(self) -> None:
        self.all.append(planned(self.planner))

    @rule(seconds=st.floats(0.01, 60))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def decide(self) -> None:
        decision = self.planner.next_action(self.now)
        match decision:
            case Submit(entry):
                self.planner.on_submit_started(entry, self.now)
                entry.job = entry.job.submitting()
                self.on_the_way.append(entry)
            case Poll(entry):
                self.planner.on_poll_started(entry, self.now)
                self.looked_at.append(entry)
            case DeadlinePassed(entry):
                assert self.now >= entry.deadline_at
                assert self.planner.expire(entry).task_id is not None
            case SubmitTimedOut(entry):
                assert self.now >= entry.deadline_at
                self.all.remove(entry)
            case StopSubmitting(error):
                assert isinstance(error, ChargeLimitReached)
                assert self.charged == self.limit
                for entry in self.planner.submit_queue:
                    self.all.remove(entry)
                self.planner.submit_queue.clear()
            case WaitUntil(until):
                assert until > self.now

    @precondition(lambda self: self.on_the_way)
    @rule(
        verdict=st.sampled_from([SubmitVerdict.ACCEPTED, SubmitVerdict.ACCEPTED, SubmitVerdict.WAIT, SubmitVerdict.NOT_SENT, SubmitVerdict.REJECTED, SubmitVerdict.UNKNOWN]),
        which=st.integers(0, 9), status=st.sampled_from([429, 503]),
    )  # fmt: skip
    def a_submission_is_answered(self, verdict: SubmitVerdict, which: int, status: int) -> None:
        entry = self.on_the_way.pop(which % len(self.on_the_way))
        answer(self.planner, entry, verdict, self.now, http_status=status)
        self.charged += verdict in {SubmitVerdict.ACCEPTED, SubmitVerdict.UNKNOWN}

    @precondition(lambda self: self.looked_at)
    @rule(
        state=st.sampled_from([None, *TaskState]), which=st.integers(0, 9),
        verdict=st.sampled_from([PollVerdict.READ, PollVerdict.AGAIN, PollVerdict.MISSING]),
    )  # fmt: skip
    def a_look_is_answered(self, state: TaskState | None, which: int, verdict: PollVerdict) -> None:
        entry = self.looked_at.pop(which % len(self.looked_at))
        seen(self.planner, entry, self.now, state if verdict is PollVerdict.READ else None, verdict)

    @invariant()
    def charges_stay_within_their_limit(self) -> None:
        if hasattr(self, "agenda") and self.limit is not None:
            assert self.charged + len(self.on_the_way) <= self.limit

    @invariant()
    def what_is_in_flight_stays_within_the_ceiling(self) -> None:
        if hasattr(self, "agenda") and self.ceiling is not None:
            in_flight = sum(entry.job.is_in_flight for entry in self.all)
            assert in_flight + len(self.on_the_way) <= self.ceiling

    @invariant()
    def the_heap_holds_one_entry_for_each_waiting_job(self) -> None:
        if hasattr(self, "agenda"):
            heap = list(self.planner.poll_queue)
            waiting = [e for e in self.all if e.job.is_in_flight and e not in self.looked_at]
            assert sorted(e.job.key for e in heap) == sorted(e.job.key for e in waiting)
            assert self.planner.in_flight == len(waiting) + sum(e.job.is_in_flight for e in self.looked_at)
            assert self.planner.submitting == len(self.on_the_way)
            assert self.planner.polling == len(self.looked_at)

    @invariant()
    def no_job_is_in_two_places(self) -> None:
        if hasattr(self, "agenda"):
            ready = [e for e in self.all if e.job.status is JobStatus.PLANNED]
            assert sorted(e.job.key for e in self.planner.submit_queue) == sorted(e.job.key for e in ready)


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=60, stateful_step_count=40)


# --- what a policy learns -----------------------------------------------------------------------------------------------


@attrs.define
class Recording(PollingPolicy):
    """A policy that looks every 100 s, until it says that tasks have become quicker: then every 10."""

    told: list[tuple[Any, float | None]] = attrs.field(factory=list)
    asked: list[Any] = attrs.field(factory=list)
    quicker: bool = False

    def next_delay(self, context: Any, u: float) -> float:
        self.asked.append(context)
        return 100.0

    def replan_delay(self, context: Any, u: float) -> float:
        return 10.0

    def observe(self, sample: Any, last_unsettled_age: float | None = None) -> bool:
        self.told.append((sample, last_unsettled_age))
        return self.quicker


def test_a_policy_hears_when_each_task_was_last_seen_unsettled() -> None:
    """At acceptance nothing; after a look its age at the one before; when it settles, both ends; when it leaves, infinity."""
    policy = Recording()
    on = planner(policy=policy, max_in_flight=2)
    accepted(on, 0.0)
    look(on, 100.0, TaskState.RUNNING)
    look(on, 200.0, TaskState.RUNNING)
    look(on, 300.0, TaskState.SUCCEEDED)
    assert [(waiting.age, waiting.last_unsettled_age) for waiting in policy.asked] == [
        (0.0, None),
        (100.0, 0.0),
        (200.0, 100.0),
    ]
    assert [(seen.lower, seen.upper, looked) for seen, looked in policy.told] == [(200.0, 300.0, 200.0)]
    accepted(on, 400.0)
    on.drain_accepted()
    assert [(seen.upper, looked) for seen, looked in policy.told[1:]] == [(math.inf, 0.0)]


def test_when_tasks_become_quicker_looks_that_wait_come_sooner() -> None:
    """Three tasks are due at 100 s; the first settles and says so: the others are due within a second, and not at once."""
    policy = Recording(quicker=True)
    on = planner(policy=policy, max_in_flight=4)
    for _ in range(4):
        accepted(on, 0.0)
    first = poll(on, 100.0)
    rest = [poll(on, 100.0) for _ in range(3)]
    for entry in rest:
        seen(on, entry, 100.0, TaskState.RUNNING)
    seen(on, first, 130.0, TaskState.SUCCEEDED)
    dues = sorted(when for when, _ in on.poll_queue._waiting)
    assert 130.0 <= dues[0] < dues[1] < dues[2] <= 131.0
