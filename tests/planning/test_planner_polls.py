"""The planner: polls, the circuit breaker, deadlines, and the polling policy."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from pika_async import (
    DeadlineExceeded,
    GenerationFailed,
    JobStatus,
    Snapshot,
    TaskNotFound,
    TaskState,
)
from pika_async._planning.actions import (
    ActiveJob,
    DeadlinePassed,
    Poll,
    PollResult,
    WaitUntil,
)
from pika_async._planning.last_seen import last_seen_in
from pika_async._planning.planner import Planner
from pika_async.polling import PollingPolicy
from pika_async.providers._verdicts import PollVerdict
from tests.fakes.only_account import only
from tests.planning.planner_steps import (
    accepted_job,
    finish_poll,
    new_planner,
    next_time,
    poll,
    start_poll,
    stop_account,
)

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
        assert (job.error.seconds, job.polls, only(planner).in_flight) == (25.0, 3, 0)
        assert planner.next_action(99.0) == WaitUntil(math.inf)


def test_a_timed_out_job_that_is_resumed_may_time_out_again() -> None:
    """It is in flight again, also without an answer, until its new deadline parks it."""
    planner = new_planner(deadline=25.0)
    first = accepted_job(planner, 0.0)
    stop_account(planner)
    active = ActiveJob(first.job.timed_out(DeadlineExceeded(key="k", provider="p")).reopened(), "s")
    planner.resume(active, 0.0, 100.0, 0.5)
    assert (active.job.status, active.job.task_id) == (JobStatus.QUEUED, first.job.task_id)
    assert poll(planner, 110.0, None, PollVerdict.MISSING).is_in_flight
    assert poll(planner, 120.0, None, PollVerdict.AGAIN).is_in_flight
    assert poll(planner, 125.0, None, PollVerdict.AGAIN).status is JobStatus.TIMED_OUT
    assert (active.job.status, only(planner).in_flight) == (JobStatus.TIMED_OUT, 0)
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
        only(planner).breaker.succeed()  # the breaker has tests of its own
        poll(planner, now, None, PollVerdict.AGAIN)
        only(planner).breaker.succeed()
        next_at = next_time(planner, now)
        delays.append(next_at - now)
        now = next_at
    assert delays == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30])
    assert active.failed_polls == 12


def test_only_an_unknown_word_is_recorded_with_an_unsettled_job() -> None:
    """A documented word changes nothing in the record; an unknown one is in it until the next documented one."""
    planner = new_planner()
    active = accepted_job(planner, 0.0)
    queued = active.job
    words = [("archived", False), ("archived", False), ("processing", True), ("pending", True)]
    seen = []
    for at, (word, known) in zip((10.0, 20.0, 30.0, 40.0), words, strict=True):
        start_poll(planner, at)
        state = TaskState.QUEUED if known else TaskState.RUNNING
        snapshot = Snapshot(task_id=str(queued.task_id), state=state, word=word, known_word=known)
        result = PollResult(verdict=PollVerdict.READ, snapshot=snapshot)
        job = planner.on_poll_finished(active, result, at, at, 0.5)
        seen.append(job.last_seen and job.last_seen.status)
        assert active.last_seen.status == word
    assert seen == ["archived", "archived", None, None]


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
    assert only(planner).breaker.is_open
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


def test_an_answer_that_blames_the_account_is_a_failed_poll() -> None:
    """Seven polls without a usable answer and one with 401, 402 or 403 open the breaker; a probe with one keeps it open."""
    planner = new_planner()
    active_jobs = [accepted_job(planner, 0.0) for _ in range(only(planner).breaker.threshold + 1)]
    assert len(active_jobs) == 9
    for verdict in [PollVerdict.AGAIN] * 7 + [PollVerdict.STOP]:
        assert not only(planner).breaker.is_open
        poll(planner, 10.0, None, verdict)
    assert only(planner).breaker.is_open
    now = only(planner).breaker.ready_at(10.0)
    poll(planner, now, None, PollVerdict.STOP)
    assert only(planner).breaker.is_open


def test_jobs_expire_while_the_breaker_is_open() -> None:
    """A job past its deadline that was polled before is parked at once, without another poll."""
    planner, active_jobs = with_open_breaker(8, deadline=10.2)
    actions = [planner.next_action(10.3) for _ in range(8)]
    assert sorted(d.active.job.key for d in actions if isinstance(d, DeadlinePassed)) == sorted(
        e.job.key for e in active_jobs
    )
    for active in active_jobs:
        assert planner.expire(active).status is JobStatus.TIMED_OUT
    assert only(planner).in_flight == 0


def test_a_deadline_is_an_action_while_the_breaker_is_open() -> None:
    """The planner does not wait for the next probe beyond the deadline of a job."""
    planner, _ = with_open_breaker(8, deadline=11.0)
    only(planner).breaker._until = 500.0
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
    assert next_time(planner, 2.0) == pytest.approx(2.0 + 2.0 + 0.35 * 2.0, abs=0.0625 / 2)  # the nearest tick
    for _ in range(3):
        assert poll(planner, 5.0, TaskState.SUCCEEDED).status is JobStatus.SUCCEEDED
    records = [record for record in caplog.records if "polling policy" in record.getMessage()]
    assert len(records) == 1


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
    stop_account(planner)
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
    times = sorted(when for when, _ in only(planner).poll_queue._waiting)
    assert 130.0 <= times[0] < times[1] < times[2] <= 131.0


def test_jobs_without_an_answer_share_one_record_of_what_was_last_seen() -> None:
    """A record for each would take as much memory as the reference to it eight times over."""
    own = accepted_job(new_planner(), 0.0).last_seen
    assert last_seen_in(None) is own
    assert last_seen_in(TaskNotFound(key="k", provider="p")) is own
