"""The slots of an account are found by asking, at a pace that is learned, and are never asked for beyond the ceiling."""

from __future__ import annotations

import math

import pytest
from accounts import fill, list_schedule
from hypothesis import given
from hypothesis import strategies as st
from shapes import SHAPES

from pika_async._planning.concurrency import AdaptiveConcurrency


def test_an_account_that_never_refuses_is_never_waited_for() -> None:
    """All that may be sent side by side is sent at once."""
    slots = AdaptiveConcurrency()
    for sent in range(1000):
        assert slots.has_capacity(sent, 7)
        assert slots.ready_at(5.0) == 5.0
        slots.on_submit_started(5.0)
        slots.on_accepted(5.0)


def test_the_ceiling_is_never_exceeded() -> None:
    """What is in flight and what is being sent are both counted."""
    slots = AdaptiveConcurrency(ceiling=10)
    assert slots.has_capacity(7, 2)
    assert not slots.has_capacity(7, 3)


def test_a_full_account_is_asked_by_one_submission_after_a_gap() -> None:
    """After a refusal: one at a time, and none before the gap is over."""
    slots = AdaptiveConcurrency(probe_interval=2.0)
    slots.on_rejected(5, sent_at=100.0, now=100.3)
    assert slots.has_capacity(5, 0)
    assert not slots.has_capacity(5, 1)
    slots.on_rejected(5, sent_at=100.1, now=100.4)
    slots.on_rejected(5, sent_at=99.9, now=100.5)
    assert slots.ready_at(100.5) == pytest.approx(102.1, abs=0.8)
    assert slots.estimated_limit == 5


def test_until_something_is_accepted_the_gap_doubles_and_then_moves_by_a_tenth() -> None:
    """Tries that were under way together move it by a tenth each."""
    slots = AdaptiveConcurrency(probe_interval=1.0)
    for sent_at, steps in ((0.0, 0.1), (0.0, 0.1), (10.0, math.log(2)), (10.0, 0.1), (20.0, math.log(2))):
        gap = slots.probe_interval
        slots.on_rejected(5, sent_at, sent_at + 0.2)
        assert slots.probe_interval == pytest.approx(gap * math.exp(steps))
    gap = slots.probe_interval
    slots.on_accepted(30.0)
    assert slots.probe_interval == pytest.approx(gap * math.exp(-0.1))
    slots.on_rejected(5, 30.3, 30.5)
    assert slots.probe_interval == pytest.approx(gap)


def test_an_acceptance_is_followed_at_once() -> None:
    """Where one slot was free there may be more."""
    slots = AdaptiveConcurrency()
    slots.on_rejected(5, 100.0, 100.3)
    slots.on_submit_started(103.0)
    slots.on_accepted(103.3)
    assert slots.ready_at(103.3) == 103.3
    assert slots.has_capacity(6, 1)


def test_what_says_nothing_of_slots_is_followed_at_once() -> None:
    """A request that is refused for its content leaves its turn to the next."""
    slots = AdaptiveConcurrency(probe_interval=60.0)
    slots.on_rejected(5, 100.0, 100.3)
    slots.on_submit_started(170.0)
    slots.on_other_answer(170.2)
    assert slots.ready_at(170.2) == 170.2


def test_a_settle_since_the_refusal_is_followed_at_once_and_an_older_one_is_not() -> None:
    """A slot that got free before the account was last full has been found already."""
    slots = AdaptiveConcurrency(probe_interval=60.0)
    slots.on_rejected(5, 100.0, 100.3)
    slots.on_settled(90.0, 105.0)
    assert slots.ready_at(105.0) > 105.0
    slots.on_settled(101.0, 106.0)
    assert slots.ready_at(106.0) == 106.0


def test_retry_after_is_obeyed() -> None:
    """Whatever settles meanwhile."""
    slots = AdaptiveConcurrency()
    slots.on_rejected(5, 100.0, 100.3, retry_after=30.0)
    slots.on_settled(110.0, 111.0)
    assert slots.ready_at(111.0) == pytest.approx(130.3)


@given(st.lists(st.sampled_from(["accept", "refuse", "settle"]), max_size=200))
def test_the_next_try_is_never_further_than_two_minutes(answers: list[str]) -> None:
    """Whatever the account answers, and the room for one is never lost."""
    slots, now = AdaptiveConcurrency(), 0.0
    for answer in answers:
        now = slots.ready_at(now) + 0.1
        slots.on_submit_started(now)
        if answer == "accept":
            slots.on_accepted(now)
        elif answer == "refuse":
            slots.on_rejected(3, now, now)
        else:
            slots.on_settled(now - 1, now)
        assert now <= slots.ready_at(now) <= now + 120.0
        assert slots.has_capacity(3, 0)
        assert slots.estimated_limit is None or slots.estimated_limit >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lognormal 0.25", "lognormal 0.5", "lognormal 1.0"])
def test_an_account_of_200_slots_is_kept_full(name: str) -> None:
    """2,000 jobs: within 1.5 % of list scheduling, which knows when each slot gets free, at one refusal a job at most."""
    filled = fill(SHAPES[name], jobs=2000, room=200)
    assert filled.ratio <= 1.015
    assert filled.refusals <= 1.0


def test_list_scheduling_is_the_bound_it_is_taken_for() -> None:
    """Three jobs over two slots; and as many slots as jobs."""
    assert list_schedule([3.0, 1.0, 1.0], 2) == 3.0
    assert list_schedule([3.0, 1.0], math.inf) == 3.0
