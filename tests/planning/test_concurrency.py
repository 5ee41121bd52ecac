"""The limit of an account is probed at an interval that is learned, and the ceiling is never exceeded."""

from __future__ import annotations

import math

import pytest
from accounts import fill, list_schedule
from hypothesis import given
from hypothesis import strategies as st
from shapes import SHAPES

from pika_async._planning.concurrency import AdaptiveConcurrency


def test_without_a_rejection_nothing_is_delayed() -> None:
    """As many submissions as may be concurrent are sent at once."""
    limit = AdaptiveConcurrency()
    for sent in range(1000):
        assert limit.has_capacity(sent, 7)
        assert limit.ready_at(5.0) == 5.0
        limit.on_submit_started(5.0)
        limit.on_accepted(5.0)


def test_the_ceiling_is_never_exceeded() -> None:
    """Tasks in flight and submissions that are being sent are both counted."""
    limit = AdaptiveConcurrency(ceiling=10)
    assert limit.has_capacity(7, 2)
    assert not limit.has_capacity(7, 3)


def test_a_full_account_is_probed_by_one_submission_after_an_interval() -> None:
    """After a rejection, submissions are sent one at a time, and none before the interval is over."""
    limit = AdaptiveConcurrency(probe_interval=2.0)
    limit.on_rejected(5, sent_at=100.0, now=100.3)
    assert limit.has_capacity(5, 0)
    assert not limit.has_capacity(5, 1)
    limit.on_rejected(5, sent_at=100.1, now=100.4)
    limit.on_rejected(5, sent_at=99.9, now=100.5)
    assert limit.ready_at(100.5) == pytest.approx(102.1, abs=0.8)
    assert limit.estimated_limit == 5


def test_the_interval_doubles_until_the_first_acceptance_and_then_changes_by_a_tenth() -> None:
    """Further rejections of concurrent submissions change it by a tenth each."""
    limit = AdaptiveConcurrency(probe_interval=1.0)
    for sent_at, steps in ((0.0, 0.1), (0.0, 0.1), (10.0, math.log(2)), (10.0, 0.1), (20.0, math.log(2))):
        interval = limit.probe_interval
        limit.on_rejected(5, sent_at, sent_at + 0.2)
        assert limit.probe_interval == pytest.approx(interval * math.exp(steps))
    interval = limit.probe_interval
    limit.on_accepted(30.0)
    assert limit.probe_interval == pytest.approx(interval * math.exp(-0.1))
    limit.on_rejected(5, 30.3, 30.5)
    assert limit.probe_interval == pytest.approx(interval)


def test_an_acceptance_is_followed_at_once() -> None:
    """Where one slot was free, there may be more."""
    limit = AdaptiveConcurrency()
    limit.on_rejected(5, 100.0, 100.3)
    limit.on_submit_started(103.0)
    limit.on_accepted(103.3)
    assert limit.ready_at(103.3) == 103.3
    assert limit.has_capacity(6, 1)


def test_an_answer_unrelated_to_slots_is_followed_at_once() -> None:
    """After a request that is rejected for its content, the next one is sent without an interval."""
    limit = AdaptiveConcurrency(probe_interval=60.0)
    limit.on_rejected(5, 100.0, 100.3)
    limit.on_submit_started(170.0)
    limit.on_other_answer(170.2)
    assert limit.ready_at(170.2) == 170.2


def test_a_settled_task_is_followed_at_once_unless_it_settled_before_the_rejection() -> None:
    """A slot that became free before the account was last full is in use again."""
    limit = AdaptiveConcurrency(probe_interval=60.0)
    limit.on_rejected(5, 100.0, 100.3)
    limit.on_settled(90.0, 105.0)
    assert limit.ready_at(105.0) > 105.0
    limit.on_settled(101.0, 106.0)
    assert limit.ready_at(106.0) == 106.0


def test_retry_after_is_obeyed() -> None:
    """Even if a task settles meanwhile."""
    limit = AdaptiveConcurrency()
    limit.on_rejected(5, 100.0, 100.3, retry_after=30.0)
    limit.on_settled(110.0, 111.0)
    assert limit.ready_at(111.0) == pytest.approx(130.3)


def test_a_later_rejection_does_not_shorten_retry_after() -> None:
    """The longer hint of two submissions that were under way holds."""
    limit = AdaptiveConcurrency()
    limit.on_rejected(5, 100.0, 100.3, retry_after=30.0)
    limit.on_rejected(5, 100.0, 100.4, retry_after=2.0)
    assert limit.ready_at(111.0) == pytest.approx(130.3)


@given(st.lists(st.sampled_from(["accept", "reject", "settle"]), max_size=200))
def test_the_next_submission_is_at_most_two_minutes_away(answers: list[str]) -> None:
    """After any answers of the account; and one submission is always allowed."""
    limit, now = AdaptiveConcurrency(), 0.0
    for answer in answers:
        now = limit.ready_at(now) + 0.1
        limit.on_submit_started(now)
        if answer == "accept":
            limit.on_accepted(now)
        elif answer == "reject":
            limit.on_rejected(3, now, now)
        else:
            limit.on_settled(now - 1, now)
        assert now <= limit.ready_at(now) <= now + 120.0
        assert limit.has_capacity(3, 0)
        assert limit.estimated_limit is None or limit.estimated_limit >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lognormal 0.25", "lognormal 0.5", "lognormal 1.0"])
def test_an_account_of_200_slots_is_kept_full(name: str) -> None:
    """2,000 jobs take at most 1.5 % longer than list scheduling, with at most one rejection for each job.

    List scheduling is informed when each slot becomes free.
    """
    filled = fill(SHAPES[name], jobs=2000, room=200)
    assert filled.ratio <= 1.015
    assert filled.refusals <= 1.0


def test_list_scheduling_is_a_correct_bound() -> None:
    """For three jobs in two slots, and for as many slots as jobs."""
    assert list_schedule([3.0, 1.0, 1.0], 2) == 3.0
    assert list_schedule([3.0, 1.0], math.inf) == 3.0
