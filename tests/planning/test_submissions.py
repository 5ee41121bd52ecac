"""Submissions that are next: how many wait for nothing but the end of those under way."""

from __future__ import annotations

import pytest

from pika_async._planning.limits import TokenBucket
from pika_async._planning.money import Spending
from tests.fakes.only_account import only
from tests.planning.account_steps import ACCEPTED, DOUBT, NO_CHANNEL, Account
from tests.planning.planner_steps import new_planner


def _busy(waiting: int, *, room: int = 4, **limits: int) -> Account:
    """Return an account that accepts submissions, whose room is full, with `waiting` jobs behind it."""
    account = Account(submitting=room, **limits)
    for _ in range(5):
        account.accept_one()
    for _ in range(room + waiting):
        account.queue()
    assert len(account.send_all()) == room
    return account


def _count(account: Account) -> int:
    return account.submissions.count_next(account.now, 0)


@pytest.mark.parametrize("waiting, counted", [(0, 0), (1, 1), (4, 4), (9, 4)])
def test_jobs_behind_a_full_room_are_next_up_to_the_room(waiting: int, counted: int) -> None:
    """As many as are queued, at most as many as there is room for."""
    assert _count(_busy(waiting)) == counted


def test_no_job_is_next_before_the_first_acceptance() -> None:
    """An address that has accepted nothing may be wrong."""
    account = Account(submitting=2)
    for _ in range(6):
        account.queue()
    assert len(account.send_all()) == 2
    assert _count(account) == 0
    account.answer(next(iter(account.sent)), ACCEPTED)
    account.send_all()
    assert _count(account) == 2


def test_no_job_is_next_while_none_is_under_way() -> None:
    """Queued jobs that can be sent at once are sent, and do not wait."""
    account = _busy(0)
    for active in list(account.sent):
        account.answer(active, ACCEPTED)
    account.queue()
    assert _count(account) == 0


def test_jobs_that_wait_for_something_else_are_not_next() -> None:
    """A pause, a rate, a full account, a gate, a stop and doubts each hold jobs up for longer than a submission."""
    paused = _busy(3)
    paused.submissions.pause(paused.now)
    slow = _busy(3)
    slow.submissions.rate = TokenBucket(0.5, tokens=0.0, at=0.0)
    full = _busy(3)
    full.submissions.concurrency.ceiling = 4
    gated = _busy(0)
    first = next(iter(gated.sent))
    gated.queue()
    gated.answer(first, NO_CHANNEL)
    gated.send_all()
    doubtful = _busy(9)
    for active in list(doubtful.sent):
        doubtful.answer(active, DOUBT)
    stopped = _busy(3)
    stopped.submissions.spending = Spending(max_charges=10_000, charges=10_000)
    for account in (paused, slow, full, gated, doubtful, stopped):
        assert _count(account) == 0


def test_a_limit_of_charges_bounds_the_jobs_that_are_next() -> None:
    """With 5 charges so far, 4 under way and a limit of 11, 2 more can be sent."""
    assert _count(_busy(4, max_charges=11)) == 2


def test_no_job_is_next_once_the_client_closes() -> None:
    """A client that closes submits nothing more."""
    planner = new_planner()
    only(planner).submissions = _busy(3).submissions
    assert planner.count_next("p", 0.0) == 3
    planner.close()
    assert planner.count_next("p", 0.0) == 0
