"""Bounds of the accounts over all workers: what a job uses of them, and whether one more fits. Pure.

Money is counted in billionths of a dollar, so that sums in the database are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import attrs

from pika_async._planning.money import exact
from pika_async.engines.shared_concurrency import concurrency_of
from pika_async.errors import BudgetReached, ChargeLimitReached, SubmissionsStopped
from pika_async.jobs import Job, JobStatus

__all__ = [
    "ALL_ACCOUNTS", "Held", "StopKind", "Usage", "hold_of", "kind_of_stop", "money_of", "others_of", "rate_share",
    "to_money", "usage_of", "window_share",
]  # fmt: skip

#: The row that holds the bounds of all accounts together.
ALL_ACCOUNTS: Final = ""
#: Parts of a dollar in which money is counted.
MONEY_PARTS: Final = 10**9
#: Seconds after which a submission that found no room is tried again.
RETRY_S: Final = 0.5
_IN_FLIGHT: Final = frozenset({JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING})


class StopKind(StrEnum):
    """Kind of the reason why nothing is submitted to an account."""

    #: A number of charges or a budget of the user's own.
    OWN_LIMIT = "own_limit"
    #: All that an account, its provider or the way to it may be.
    ACCOUNT = "account"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class PriceMissing(SubmissionsStopped):
    """A stop before a request without a price: no budget is enough for it."""


def kind_of_stop(error: SubmissionsStopped) -> StopKind:
    """Return the kind of the reason of a stop."""
    is_own = isinstance(error, ChargeLimitReached | BudgetReached | PriceMissing)
    return StopKind.OWN_LIMIT if is_own else StopKind.ACCOUNT


def to_money(amount: float | None) -> int | None:
    """Return an amount in billionths, rounded up."""
    return None if amount is None else math.ceil(exact(amount) * MONEY_PARTS)


def money_of(parts: int) -> float:
    """Return billionths as an amount."""
    return parts / MONEY_PARTS


@attrs.frozen
class Usage:
    """What one job uses of the bounds of its account."""

    account: str | None = None
    in_flight: int = 0
    charges: int = 0
    spent: int = 0


def usage_of(job: Job) -> Usage:
    """Return what a job uses: a place while it is sent or in flight, and its price once it may be charged."""
    if job.account is None and not job.may_be_charged:
        return Usage()
    charges = int(job.may_be_charged)
    spent = (to_money(job.cost) or 0) if charges else 0
    return Usage(job.account_and_cost[0], int(job.status in _IN_FLIGHT), charges, spent)


@attrs.frozen
class Held:
    """A submission that must not be sent now."""

    #: Seconds after which it may be tried again.
    seconds: float
    reason: str
    #: The stop of the account that follows from it; None if it only has to wait.
    stop: SubmissionsStopped | None = None
    #: Whether it is the account that has no room, not all accounts together.
    is_full: bool = False


def others_of(
    in_flight: int, submitting: int, *, own_in_flight: int, own_submitting: int, ceiling: int
) -> tuple[int, int]:
    """Return how many tasks the other workers have in flight at an account, and how many submissions under way.

    One place fewer than there are at most, so that a worker without a job there may always ask for one: what it knows
    of the others may be a second old.

    :param in_flight: the jobs of all workers that use a place, those that are being sent included.
    :param submitting: those of them that are being sent.
    :param own_in_flight: the accepted jobs of this worker.
    :param own_submitting: those that it is sending.
    :param ceiling: maximum number of jobs of all workers.
    """
    others = min(max(0, in_flight - own_in_flight - own_submitting), ceiling - 1)
    sending = min(max(0, submitting - own_submitting), others)
    return others - sending, sending


def rate_share(rate: float | None, workers: int) -> float | None:
    """Return the part of a rate that each of `workers` has; None: no limit."""
    return None if rate is None else rate / workers


def window_share(window: float, workers: int) -> float:
    """Return how many of the submissions under way at once each of `workers` has, one at least."""
    return max(1.0, window // workers)


def hold_of(row: Mapping[str, Any], price: float | None, now: float, submitting: int = 0) -> Held | None:
    """Return why one more submission does not fit into the bounds of a row of accounts; None if it fits.

    What is being sent counts as charged until its answer says otherwise, so that no sum ever exceeds its bound.

    :param row: the row of an account, or of all accounts together.
    :param price: the price of the submission; None where unknown.
    :param now: seconds on the database's clock.
    :param submitting: number of submissions of all workers that are under way; of use where the account refuses some.
    """
    name = row["name"] or "all accounts"
    if row["max_in_flight"] is not None and row["in_flight"] >= row["max_in_flight"]:
        return Held(RETRY_S, f"{name} has {row['in_flight']} jobs in flight, its maximum", is_full=bool(row["name"]))
    concurrency = concurrency_of(row)
    if concurrency is not None:
        wait = concurrency.ready_at(now) - now
        if wait > 0 or not concurrency.has_capacity(row["in_flight"] - submitting, submitting):
            reason = f"{name} has refused more than {concurrency.estimated_limit:.0f} jobs at a time"
            return Held(min(wait, RETRY_S) if wait > 0 else RETRY_S, reason, is_full=True)
    if row["next_submit_at"] > now:
        return Held(row["next_submit_at"] - now, f"{name} paces its submissions")
    if row["max_charges"] is not None and row["charges"] >= row["max_charges"]:
        error = ChargeLimitReached(provider=name, limit=row["max_charges"])
        return Held(RETRY_S, error.message, stop=error)
    if row["budget"] is None:
        return None
    needed = row["spent"] + (to_money(price) or 0)
    if price is not None and needed <= row["budget"]:
        return None
    if price is None:
        reason = "the budget needs the price of each request; add a row for all to the prices"
        error_: SubmissionsStopped = PriceMissing(provider=name, reason=reason)
    else:
        budget, spent = money_of(row["budget"]), money_of(row["spent"])
        error_ = BudgetReached(provider=name, budget=budget, spent=spent, needed=money_of(needed))
    return Held(RETRY_S, error_.message, stop=error_)
