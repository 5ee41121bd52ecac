"""Bounds that the documents name, as numbers of seconds: patience, the reset of waits, a server's hint."""

from __future__ import annotations

import pytest

from pika_async import FixedInterval, TaskNotFound, TaskState
from pika_async._planning.limits import SubmitThrottle
from pika_async._planning.planner import Planner
from pika_async.jobs import JobStatus
from pika_async.providers._verdicts import RETRY_AFTER_CAP, PollVerdict, poll_after, retry_after
from tests.planning.planner_steps import accepted_job, finish_poll, new_planner, next_time, poll

MISSING, READ, AGAIN = PollVerdict.MISSING, PollVerdict.READ, PollVerdict.AGAIN
#: The middle of the jitter.
U = 0.5


def planner_every(seconds: float = 10.0) -> Planner:
    return new_planner(policy=FixedInterval(seconds), deadline=1e6)


# --- a task that is not found -----------------------------------------------------------------------------------------


def test_a_task_is_not_found_for_600_s_before_it_is_given_up() -> None:
    """However many answers deny it, a task is polled until 600 s have passed since the first of them, not a second less."""
    planner = planner_every()
    active = accepted_job(planner, 0.0)
    for at in [100.0, *range(110, 699, 10), 699.9]:
        assert finish_poll(planner, active, at, None, MISSING).status is JobStatus.QUEUED
    job = finish_poll(planner, active, 700.0, None, MISSING)
    assert job.status is JobStatus.TIMED_OUT
    assert isinstance(job.error, TaskNotFound)
    assert "over 600 s" in job.error.message


def test_a_task_is_denied_five_times_before_it_is_given_up() -> None:
    """However long it takes, four answers are not enough."""
    planner = planner_every()
    active = accepted_job(planner, 0.0)
    for number in range(4):
        assert finish_poll(planner, active, 5_000.0 * (number + 1), None, MISSING).status is JobStatus.QUEUED
    assert finish_poll(planner, active, 25_000.0, None, MISSING).status is JobStatus.TIMED_OUT


def test_an_answer_about_the_task_begins_the_600_s_anew() -> None:
    """A task that is found in between needs five denials and 600 s again."""
    planner = planner_every()
    active = accepted_job(planner, 0.0)
    for at in range(100, 700, 100):
        finish_poll(planner, active, float(at), None, MISSING)
    finish_poll(planner, active, 690.0, TaskState.RUNNING)
    for at in [*range(700, 1300, 100), 1299.9]:
        assert finish_poll(planner, active, float(at), None, MISSING).status is JobStatus.RUNNING
    assert finish_poll(planner, active, 1300.0, None, MISSING).status is JobStatus.TIMED_OUT


# --- waits ------------------------------------------------------------------------------------------------------------


def waits_of_failed_polls(planner: Planner, now: float, count: int) -> tuple[list[float], float]:
    """Let polls fail one after the other; return the waits between them and the time of the last."""
    waits = []
    for _ in range(count):
        poll(planner, now, None, AGAIN)
        due = next_time(planner, now)
        waits.append(due - now)
        now = due
    return waits, now


def test_a_usable_answer_resets_the_wait_of_failed_polls() -> None:
    """The waits double from failure to failure, and begin at the first one again after one usable answer."""
    planner = planner_every()
    accepted_job(planner, 0.0)
    first, now = waits_of_failed_polls(planner, 10.0, 4)
    assert first == pytest.approx([first[0] * 2**number for number in range(4)])
    poll(planner, now, TaskState.RUNNING)
    now = next_time(planner, now)
    again, _ = waits_of_failed_polls(planner, now, 4)
    assert again == pytest.approx(first)


def test_an_answer_resets_the_wait_of_submissions() -> None:
    """The pauses of "retry later" double up to 30 s; any other answer begins them anew."""
    throttle, now = SubmitThrottle(), 0.0

    def pauses(count: int) -> list[float]:
        nonlocal now
        found = []
        for _ in range(count):
            throttle.pause(now, U, None)
            found.append(throttle.ready_at(now) - now)
            now += found[-1]
        return found

    first = pauses(9)
    assert first[:3] == pytest.approx([first[0], first[0] * 2, first[0] * 4])
    assert max(first) <= 30.0
    throttle.reset()
    assert pauses(3) == pytest.approx(first[:3])


# --- the hint of a server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "held"), [("120", 120.0), ("299.5", 299.5), ("300", 300.0), ("86400", 300.0), ("0", 0.0)]
)
def test_a_hint_is_at_most_300_s(asked: str, held: float) -> None:
    """`Retry-After` in seconds, as a date, and the hint in milliseconds are obeyed up to 300 s."""
    assert RETRY_AFTER_CAP == 300.0
    assert retry_after({"retry-after": asked}, 0.0) == held
    assert poll_after({"openai-poll-after-ms": str(float(asked) * 1000)}, 0.0) == held
    dates = {"date": "Sat, 28 Nov 2026 12:00:00 GMT", "retry-after": "Sat, 28 Nov 2026 12:02:00 GMT"}
    assert retry_after(dates, 1e12) == 120.0


def test_a_hint_holds_for_one_poll() -> None:
    """After an answer with a hint the next poll comes when the hint ends; the one after that has the policy's interval."""
    planner = planner_every(10.0)
    accepted_job(planner, 0.0)
    poll(planner, 10.0, TaskState.RUNNING, retry_after=120.0)
    assert next_time(planner, 10.0) == 130.0
    poll(planner, 130.0, TaskState.RUNNING)
    assert next_time(planner, 130.0) == 140.0
    poll(planner, 140.0, TaskState.RUNNING, retry_after=3.0)
    assert next_time(planner, 140.0) == 150.0  # a hint shorter than the interval changes nothing


def test_a_hint_of_a_submission_holds_for_all_submissions() -> None:
    """A pause lasts as long as the longest hint that came, and a later shorter one does not end it."""
    throttle = SubmitThrottle()
    throttle.pause(0.0, U, 120.0)
    assert throttle.ready_at(0.0) == 120.0
    throttle.pause(1.0, U, 30.0)
    throttle.pause(2.0, U, None)
    assert throttle.ready_at(2.0) == 120.0
    throttle.pause(2.0, U, 200.0)
    assert throttle.ready_at(3.0) == 202.0
