"""The planner: its next action for given jobs, limits and times."""

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


def new_planner(*, policy: PollingPolicy | None = None, deadline: float = 1000.0, **limits: Any) -> Planner:
    chosen = Limits(**limits)
    return Planner(
        provider="p",
        base_url="https://x.example",
        limits=chosen,
        deadline=deadline,
        concurrency=AdaptiveConcurrency(ceiling=chosen.max_in_flight or MAX_IN_FLIGHT),
        poll_queue=PollQueue(PolicyAdapter(policy=policy or FixedInterval(10.0))),
        submit_rate=TokenBucket(chosen.submits_per_second),
        poll_rate=TokenBucket(chosen.polls_per_second),
    )


def queued_job(planner: Planner) -> ActiveJob:
    job = Job(key=f"k{next(NUMBERS)}", request=GenerationRequest("a"), provider="p", base_url="https://x.example")
    active = ActiveJob(job, "s")
    planner.queue(active, 0.0)
    return active


def start_submit(planner: Planner, now: float) -> ActiveJob:
    action = planner.next_action(now)
    assert isinstance(action, Submit)
    planner.on_submit_started(action.active, now)
    action.active.job = action.active.job.submitting()
    return action.active


def finish_submit(
    planner: Planner, active: ActiveJob, verdict: SubmitVerdict, now: float, **facts: Any
) -> StopSubmitting | None:
    outcome = SubmitOutcome(
        verdict=verdict, task_id=f"t-{active.job.key}" if verdict is SubmitVerdict.ACCEPTED else None, **facts
    )
    active.job = apply_verdict(active.job, outcome, now)
    return planner.on_submit_finished(active, outcome, now - 0.1, now, 0.5)


def accepted_job(planner: Planner, now: float) -> ActiveJob:
    queued_job(planner)
    active = start_submit(planner, now)
    finish_submit(planner, active, SubmitVerdict.ACCEPTED, now)
    return active


def start_poll(planner: Planner, now: float) -> ActiveJob:
    action = planner.next_action(now)
    assert isinstance(action, Poll)
    planner.on_poll_started(action.active, now)
    return action.active


def poll(
    planner: Planner, now: float, state: TaskState | None, verdict: PollVerdict = PollVerdict.READ, **facts: Any
) -> Job:
    """Poll the job that is due at `now`, with an immediate result."""
    return finish_poll(planner, start_poll(planner, now), now, state, verdict, **facts)


def finish_poll(
    planner: Planner,
    active: ActiveJob,
    now: float,
    state: TaskState | None,
    verdict: PollVerdict = PollVerdict.READ,
    **facts: Any,
) -> Job:
    snapshot = None
    if state is not None:
        video = Video(url="https://x.example/v.mp4") if state is TaskState.SUCCEEDED else None
        snapshot = Snapshot(task_id=str(active.job.task_id), state=state, video=video)
    return planner.on_poll_finished(active, PollResult(verdict=verdict, snapshot=snapshot, **facts), now, now, 0.5)


def next_time(planner: Planner, now: float) -> float:
    """Return when the next action is due."""
    action = planner.next_action(now)
    assert isinstance(action, WaitUntil)
    return action.until


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
        planner.poll_queue.push(active, 30.0)
    assert planner.poll_queue._waiting[0][1] is older


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
        (SubmitVerdict.WRONG_URL, JobStatus.REJECTED, False, 0),
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
    assert (active in planner.submit_queue, planner.charges, planner.submitting) == (back, charges, 0)


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
        pauses.append(planner.throttle.ready_at(now) - now)
        now += pauses[-1]
    assert pauses[0] < pauses[1] < pauses[2]
    assert (planner.concurrency.estimated_limit, planner.submit_queue[0]) == (None, active)


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
        assert planner.concurrency.estimated_limit == 1
        planner.poll_queue.clear()  # only submissions matter here
        again = next_time(planner, now + 0.1)
        assert 0.0 < again - now < 120.1
        now = again
    assert now > 60.0
    assert planner.submit_queue[0] is active


def test_unsent_submissions_between_answers_do_not_add_up() -> None:
    """Submissions that make no connection stop the client only if they are consecutive; a 429 between them resets them."""
    planner = new_planner()
    accepted_job(planner, 0.0)
    queued_job(planner)
    now = 1.0
    for _ in range(20):
        for verdict in (SubmitVerdict.NOT_SENT, SubmitVerdict.WAIT):
            planner.poll_queue.clear()
            now = max(planner.throttle.ready_at(now), planner.concurrency.ready_at(now))
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
        now = planner.throttle.ready_at(now)
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
    assert (active.job.status, len(planner.submit_queue)) == (JobStatus.PLANNED, 0)


# --- polls --------------------------------------------------------------------------------------------------------------


def test_the_result_of_the_last_poll_counts() -> None:
    """A poll is due at the deadline itself, and its success settles the job."""
    planner = new_planner(deadline=25.0)
    active = accepted_job(planner, 0.0)
    for at in (10.0, 20.0):
        assert next_time(planner, at - 5) == at
        poll(planner, at, TaskState.RUNNING)
    assert next_time(planner, 21.0) == 25.0
    assert start_poll(planner, 25.0) is active
    assert finish_poll(planner, active, 25.4, TaskState.SUCCEEDED).status is JobStatus.SUCCEEDED


def test_without_a_last_answer_the_deadline_parks_with_the_task_id() -> None:
    """A job that the last poll does not find settled times out, with its task id and the seconds."""
    for state, verdict in ((TaskState.RUNNING, PollVerdict.READ), (None, PollVerdict.AGAIN)):
        planner = new_planner(deadline=25.0)
        active = accepted_job(planner, 0.0)
        poll(planner, 10.0, TaskState.RUNNING)
        poll(planner, 20.0, TaskState.RUNNING)
        job = poll(planner, 25.0, state, verdict)
        assert (job.status, job.task_id) == (JobStatus.TIMED_OUT, f"t-{active.job.key}")
        assert isinstance(job.error, DeadlineExceeded)
        assert (job.error.seconds, job.polls, planner.in_flight) == (25.0, 3, 0)
        assert planner.next_action(99.0) == WaitUntil(math.inf)


def test_a_timed_out_job_that_is_resumed_may_time_out_again() -> None:
    """It is in flight again, also without an answer, until its new deadline parks it."""
    planner = new_planner(deadline=25.0)
    first = accepted_job(planner, 0.0)
    planner.drain_accepted()
    active = ActiveJob(first.job.timed_out(DeadlineExceeded(key="k", provider="p")).reopened(), "s")
    planner.resume(active, 0.0, 100.0, 0.5)
    assert (active.job.status, active.job.task_id) == (JobStatus.QUEUED, first.job.task_id)
    assert poll(planner, 110.0, None, PollVerdict.MISSING).is_in_flight
    assert poll(planner, 120.0, None, PollVerdict.AGAIN).is_in_flight
    assert poll(planner, 125.0, None, PollVerdict.AGAIN).status is JobStatus.TIMED_OUT
    assert (active.job.status, planner.in_flight) == (JobStatus.TIMED_OUT, 0)
    assert isinstance(active.job.error, DeadlineExceeded)


def test_a_failed_poll_does_not_settle_a_job_and_a_failed_generation_does() -> None:
    """Without a usable answer the job stays as it is; an explicit failure settles it, with the text of the provider."""
    planner = new_planner()
    active = accepted_job(planner, 0.0)
    assert poll(planner, 10.0, None, PollVerdict.AGAIN).status is JobStatus.QUEUED
    action = planner.next_action(12.0)
    assert isinstance(action, Poll)
    planner.on_poll_started(active, 12.0)
    snapshot = Snapshot(task_id="t", state=TaskState.FAILED, reason="moderated")
    job = planner.on_poll_finished(active, PollResult(verdict=PollVerdict.READ, snapshot=snapshot), 12.0, 12.0, 0.5)
    assert job.status is JobStatus.FAILED
    assert isinstance(job.error, GenerationFailed)
    assert (job.error.reason, job.polls) == ("moderated", 2)


def test_retry_after_of_a_poll_is_honoured() -> None:
    """A refused poll is not repeated before the time that the answer asks for."""
    planner = new_planner()
    accepted_job(planner, 0.0)
    poll(planner, 10.0, None, PollVerdict.AGAIN, retry_after=33.0)
    assert next_time(planner, 10.0) == 43.0


def test_failed_polls_are_repeated_with_exponential_backoff() -> None:
    """Polls without an answer are repeated soon, then less and less often, with at most a minute between them."""
    planner = new_planner(deadline=1e6)
    active = accepted_job(planner, 0.0)
    now, delays = 10.0, []
    for _ in range(12):
        planner.breaker.succeed()  # the breaker has tests of its own
        poll(planner, now, None, PollVerdict.AGAIN)
        planner.breaker.succeed()
        next_at = next_time(planner, now)
        delays.append(next_at - now)
        now = next_at
    assert delays == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30])
    assert active.failed_polls == 12


def test_a_new_task_that_is_not_found_is_polled_again() -> None:
    """Any number of such answers within ten minutes does not park a job; another answer resets the count."""
    planner = new_planner(deadline=1e6)
    accepted_job(planner, 0.0)
    for number in range(1, 60):
        assert poll(planner, 10.0 * number, None, PollVerdict.MISSING).is_in_flight
    assert poll(planner, 600.0, TaskState.RUNNING).status is JobStatus.RUNNING
    assert poll(planner, 700.0, None, PollVerdict.MISSING).is_in_flight


def test_a_task_is_parked_when_it_is_not_found_five_times_over_ten_minutes() -> None:
    """The fifth such answer, ten minutes or more after the first, parks the job; the fourth does not."""
    planner = new_planner(deadline=1e6)
    active = accepted_job(planner, 0.0)
    for at in (100.0, 400.0, 800.0, 1200.0):
        assert poll(planner, at, None, PollVerdict.MISSING).is_in_flight
    job = poll(planner, 1300.0, None, PollVerdict.MISSING, reason="task_not_exist")
    assert (job.status, job.task_id) == (JobStatus.TIMED_OUT, f"t-{active.job.key}")
    assert isinstance(job.error, TaskNotFound)
    assert "not found 5 times over 1200 s" in str(job.error)


def test_a_success_without_url_has_a_deadline_of_its_own() -> None:
    """From the first such answer the job is polled for ten minutes more, past its own deadline, and then parked."""
    planner = new_planner(deadline=30.0)
    active = accepted_job(planner, 0.0)
    for at in (10.0, 20.0):
        poll(planner, at, TaskState.RUNNING)
    assert poll(planner, 30.0, TaskState.SUCCEEDED_WITHOUT_URL).is_in_flight
    now = 30.0
    while active.job.is_in_flight:
        now = next_time(planner, now)
        poll(planner, now, TaskState.SUCCEEDED_WITHOUT_URL)
    assert (active.job.status, now) == (JobStatus.TIMED_OUT, 630.0)


def test_a_late_url_settles_a_job() -> None:
    """A job succeeds once its URL is there."""
    planner = new_planner(deadline=30.0)
    accepted_job(planner, 0.0)
    for at in (10.0, 20.0):
        poll(planner, at, TaskState.RUNNING)
    poll(planner, 30.0, TaskState.SUCCEEDED_WITHOUT_URL)
    assert poll(planner, next_time(planner, 30.0), TaskState.SUCCEEDED).status is JobStatus.SUCCEEDED


# --- the breaker --------------------------------------------------------------------------------------------------------


def with_open_breaker(jobs: int, deadline: float = 1000.0) -> tuple[Planner, list[ActiveJob]]:
    """Return a planner whose breaker has opened at 10.0, and its `jobs` accepted jobs."""
    planner = new_planner(deadline=deadline, max_in_flight=jobs)
    active_jobs = [accepted_job(planner, 0.0) for _ in range(jobs)]
    polled = [start_poll(planner, 10.0) for _ in range(8)]
    for active in polled:
        finish_poll(planner, active, 10.0, None, PollVerdict.AGAIN)
    assert planner.breaker.is_open
    return planner, active_jobs


def test_with_the_breaker_open_all_jobs_wait() -> None:
    """After eight consecutive failures no job is polled until the probe, and then only one."""
    planner, _ = with_open_breaker(20)
    probe_at = next_time(planner, 10.0)
    assert 10.5 <= probe_at <= 11.0
    start_poll(planner, probe_at)
    assert next_time(planner, probe_at + 5) == 1000.0  # the deadline of those that were polled


def test_a_failed_probe_is_repeated_and_a_good_one_closes_the_breaker() -> None:
    """After a probe that fails, another is sent later; after one with an answer, every due poll may begin."""
    planner, _ = with_open_breaker(20)
    probe_at = next_time(planner, 10.0)
    poll(planner, probe_at, None, PollVerdict.AGAIN)
    second = next_time(planner, probe_at)
    assert second > probe_at
    poll(planner, second, TaskState.RUNNING)
    assert len([start_poll(planner, second) for _ in range(12)]) == 12


def test_jobs_expire_while_the_breaker_is_open() -> None:
    """A job past its deadline that was polled before is parked at once, without another poll."""
    planner, active_jobs = with_open_breaker(8, deadline=10.2)
    actions = [planner.next_action(10.3) for _ in range(8)]
    assert sorted(d.active.job.key for d in actions if isinstance(d, DeadlinePassed)) == sorted(
        e.job.key for e in active_jobs
    )
    for active in active_jobs:
        assert planner.expire(active).status is JobStatus.TIMED_OUT
    assert planner.in_flight == 0


def test_a_deadline_is_an_action_while_the_breaker_is_open() -> None:
    """The planner does not wait for the next probe beyond the deadline of a job."""
    planner, _ = with_open_breaker(8, deadline=11.0)
    planner.breaker._until = 500.0
    assert next_time(planner, 10.6) == 11.0
    assert isinstance(planner.next_action(11.0), DeadlinePassed)


def test_a_job_does_not_expire_before_its_first_poll() -> None:
    """With the breaker open, a job is polled once before its deadline may park it."""
    planner, active_jobs = with_open_breaker(9, deadline=10.2)
    never = next(active for active in active_jobs if not active.polls)
    probed = []
    now = 10.3
    while never.job.is_in_flight:
        action = planner.next_action(now)
        if isinstance(action, WaitUntil):
            now = action.until
        elif isinstance(action, DeadlinePassed):
            assert action.active is not never
            planner.expire(action.active)
        else:
            assert isinstance(action, Poll)
            planner.on_poll_started(action.active, now)
            probed.append(action.active)
            finish_poll(planner, action.active, now, TaskState.SUCCEEDED)
    assert probed == [never]


# --- misbehaving policies -----------------------------------------------------------------------------------------------


@attrs.define
class Odd(PollingPolicy):
    """Policy that returns or raises a given value."""

    answer: Any

    def next_delay(self, context: object, u: float) -> float:
        if isinstance(self.answer, Exception):
            raise self.answer
        value: float = self.answer
        return value

    def observe(self, sample: object, last_unsettled_age: float | None = None) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer


@pytest.mark.parametrize(
    "answer", [math.nan, 0, -5.0, -math.inf, math.inf, None, "soon", ZeroDivisionError("oops"), KeyError("s")], ids=repr
)
def test_a_policy_that_misbehaves_costs_no_job(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """For any value that a policy returns or raises, each job is polled after a bounded time, and it is logged once."""
    planner = new_planner(policy=Odd(answer), max_in_flight=3)
    for _ in range(3):
        accepted_job(planner, 0.0)
    assert next_time(planner, 0.0) == 2.0
    for _ in range(3):
        poll(planner, 2.0, TaskState.RUNNING)
    assert next_time(planner, 2.0) == pytest.approx(2.0 + 2.0 + 0.35 * 2.0)
    for _ in range(3):
        assert poll(planner, 5.0, TaskState.SUCCEEDED).status is JobStatus.SUCCEEDED
    records = [record for record in caplog.records if "polling policy" in record.getMessage()]
    assert len(records) == 1


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
    assert planner.cancel_queued(second) is True
    assert planner.cancel_queued(first) is False
    assert planner.cancel_queued(second) is False
    assert len(planner.submit_queue) == 0


def test_draining_accepted_jobs_empties_the_poll_queue() -> None:
    """Every waiting job is removed from the queue, and from the number in flight."""
    planner = new_planner(max_in_flight=4)
    active_jobs = [accepted_job(planner, 0.0) for _ in range(4)]
    assert sorted(e.job.key for e in planner.drain_accepted()) == sorted(e.job.key for e in active_jobs)
    assert (planner.in_flight, planner.next_action(99.0)) == (0, WaitUntil(math.inf))


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
            case StopSubmitting(error):
                assert isinstance(error, ChargeLimitReached)
                assert self.charged == self.limit
                for active in self.planner.submit_queue:
                    self.all.remove(active)
                self.planner.submit_queue.clear()
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
        heap = list(self.planner.poll_queue)
        waiting = [e for e in self.all if e.job.is_in_flight and e not in self.polled]
        assert sorted(e.job.key for e in heap) == sorted(e.job.key for e in waiting)
        assert self.planner.in_flight == len(waiting) + sum(e.job.is_in_flight for e in self.polled)
        assert self.planner.submitting == len(self.sent)
        assert self.planner.polling == len(self.polled)

    @invariant()
    def no_job_is_in_two_places(self) -> None:
        ready = [e for e in self.all if e.job.status is JobStatus.PLANNED]
        assert sorted(e.job.key for e in self.planner.submit_queue) == sorted(e.job.key for e in ready)


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=60, stateful_step_count=40)


# --- what a policy learns -----------------------------------------------------------------------------------------------


@attrs.define
class Recording(PollingPolicy):
    """Policy that polls every 100 s, and every 10 s once it reports that tasks have become quicker."""

    samples: list[tuple[Any, float | None]] = attrs.field(factory=list)
    contexts: list[Any] = attrs.field(factory=list)
    quicker: bool = False

    def next_delay(self, context: Any, u: float) -> float:
        self.contexts.append(context)
        return 100.0

    def replan_delay(self, context: Any, u: float) -> float:
        return 10.0

    def observe(self, sample: Any, last_unsettled_age: float | None = None) -> bool:
        self.samples.append((sample, last_unsettled_age))
        return self.quicker


def test_a_policy_is_passed_the_age_at_which_each_task_was_last_unsettled() -> None:
    """After a poll, that of the poll before; None at acceptance. A sample has both ends, infinity for an unsettled task."""
    policy = Recording()
    planner = new_planner(policy=policy, max_in_flight=2)
    accepted_job(planner, 0.0)
    poll(planner, 100.0, TaskState.RUNNING)
    poll(planner, 200.0, TaskState.RUNNING)
    poll(planner, 300.0, TaskState.SUCCEEDED)
    assert [(context.age, context.last_unsettled_age) for context in policy.contexts] == [
        (0.0, None),
        (100.0, 0.0),
        (200.0, 100.0),
    ]
    assert [(sample.lower, sample.upper, age) for sample, age in policy.samples] == [(200.0, 300.0, 200.0)]
    accepted_job(planner, 400.0)
    planner.drain_accepted()
    assert [(sample.upper, age) for sample, age in policy.samples[1:]] == [(math.inf, 0.0)]


def test_when_tasks_become_quicker_waiting_polls_are_moved_forward() -> None:
    """Three jobs are due in 70 s when another settles: they are then due within a second, and not all at once."""
    policy = Recording(quicker=True)
    planner = new_planner(policy=policy, max_in_flight=4)
    for _ in range(4):
        accepted_job(planner, 0.0)
    first = start_poll(planner, 100.0)
    others = [start_poll(planner, 100.0) for _ in range(3)]
    for active in others:
        finish_poll(planner, active, 100.0, TaskState.RUNNING)
    finish_poll(planner, first, 130.0, TaskState.SUCCEEDED)
    times = sorted(when for when, _ in planner.poll_queue._waiting)
    assert 130.0 <= times[0] < times[1] < times[2] <= 131.0
