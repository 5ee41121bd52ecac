"""A pause starts no submission, stops no poll, and costs no job its patience; the room is checked."""

from __future__ import annotations

import math

import pytest

from pika_async._planning.actions import Poll, StopSubmitting, Submit, SubmitTimedOut, WaitUntil
from pika_async._planning.limits import checked_max_in_flight
from pika_async.errors import ConfigurationError
from pika_async.providers._verdicts import SubmitVerdict
from tests.fakes.only_account import only
from tests.planning.planner_steps import accepted_job, finish_submit, new_planner, queued_job, start_submit


def test_a_pause_starts_no_submission_and_goes_on_to_poll() -> None:
    """What was accepted is polled; what is queued is sent after the pause, in its order."""
    planner = new_planner()
    accepted_job(planner, 0.0)
    first, second = queued_job(planner), queued_job(planner)
    only(planner).submissions.pause(1.0)
    assert isinstance(planner.next_action(2.0), WaitUntil)
    assert isinstance(planner.next_action(10.0), Poll)
    only(planner).submissions.resume(11.0)
    assert [start_submit(planner, 11.0), start_submit(planner, 11.0)] == [first, second]


def test_a_pause_costs_no_patience() -> None:
    """A job that the account asked to retry has the rest of its patience afterwards, and a second pause adds nothing."""
    planner = new_planner(patience=100.0)
    queued_job(planner)
    active = start_submit(planner, 0.0)
    finish_submit(planner, active, SubmitVerdict.WAIT, 1.0)
    only(planner).submissions.pause(2.0)
    only(planner).submissions.pause(400.0)
    assert planner.next_action(500.0) == WaitUntil(math.inf)
    only(planner).submissions.resume(1002.0)
    only(planner).submissions.resume(5000.0)
    assert active.deadline_at == 1100.0
    assert isinstance(planner.next_action(1099.0), Submit)


def test_a_pause_costs_no_patience_behind_a_gate() -> None:
    """Nor do the jobs of a model without a channel lose any."""
    planner = new_planner(patience=100.0)
    queued_job(planner)
    active = start_submit(planner, 0.0)
    finish_submit(planner, active, SubmitVerdict.WAIT, 1.0, model="m")
    assert only(planner).submissions.queue.gated == 1
    only(planner).submissions.pause(2.0)
    only(planner).submissions.resume(1002.0)
    assert only(planner).submissions.queue.expires_at == 1101.0
    assert isinstance(planner.next_action(1101.0), SubmitTimedOut)


def test_a_pause_reaches_no_limit() -> None:
    """A batch with planned jobs does not end while it is paused, although nothing more may be charged."""
    planner = new_planner(max_charges=1)
    accepted_job(planner, 0.0)
    queued_job(planner)
    only(planner).submissions.pause(0.0)
    assert isinstance(planner.next_action(1.0), WaitUntil)
    only(planner).submissions.resume(2.0)
    assert isinstance(planner.next_action(2.0), StopSubmitting)


@pytest.mark.parametrize("room", [1, 10_000])
def test_a_room_within_bounds(room: int) -> None:
    """From one job to the default maximum."""
    assert checked_max_in_flight(room, None) == room


def test_a_room_as_it_was_given() -> None:
    """A client that was given more may have that again."""
    assert checked_max_in_flight(20_000, 20_000) == 20_000


@pytest.mark.parametrize("room", [0, -1, 10_001, True, 2.0, "5", None, math.nan])
def test_a_room_out_of_bounds(room: object) -> None:
    """The error names the field, the value and the way out."""
    with pytest.raises(ConfigurationError) as caught:
        checked_max_in_flight(room, 5)
    assert caught.value.setting == "max_in_flight"
    assert "must be an integer from 1 to 10000, not" in caught.value.message
    assert repr(room) in caught.value.message
    assert "pause" in caught.value.message
