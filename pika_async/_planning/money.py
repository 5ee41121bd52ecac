"""Prices, budgets and what they pay for, exact in decimals. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import attrs

from pika_async.errors import BudgetReached, ChargeLimitReached, ConfigurationError, SubmissionsStopped, shorten
from pika_async.jobs import Job

__all__ = [
    "Spending",
    "checked_amount",
    "correct_cost",
    "cost",
    "exact",
    "is_amount",
    "money_text",
    "spending_of",
]


@lru_cache(maxsize=1024)
def exact(money: float) -> Fraction:
    """Return the decimal number that an amount is written as: 0.1 is 1/10, not the binary fraction next to it."""
    return Fraction(repr(float(money)))


def cost(price: float, charges: int) -> float:
    """Return the price of a number of charges, without the rounding of binary fractions: 3 at 0.1 are 0.3."""
    return float(exact(price) * charges)


def money_text(money: float) -> str:
    """Format money with two decimals, or as many as it has up to six; the script of the page does the same."""
    text = f"{money:,.6f}".rstrip("0")
    decimals = len(text.partition(".")[2])
    return text + "0" * max(0, 2 - decimals)


def checked_amount(setting: str, value: Any) -> float | None:
    """Return an amount of money, or None.

    :raises ConfigurationError: unless it is None or a finite number above 0.
    """
    if value is None:
        return None
    if not is_amount(value):
        raise ConfigurationError(setting=setting, reason=f"must be a number above 0, not {shorten(value)}")
    return float(value)


def is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


@attrs.define
class Spending:
    """Money and charges of one account, or of a client over all its accounts.

    A charge is reserved before it is sent, and then released or confirmed. A charge that is allowed when it is reserved
    thus never takes the sum of what is spent and reserved above the budget. A copy (`copy.copy`) counts for itself.

    :param budget: money for all charges, above 0; default None: no limit.
    :param max_charges: maximum number of charges; default None: no limit.
    :param spent: sum of the prices of the charges so far, those in doubt included; default 0.
    :param charges: number of these charges; default 0.
    """

    budget: float | None = None
    max_charges: int | None = None
    spent: Fraction = Fraction()
    charges: int = 0
    #: Sum of the prices of the submissions under way.
    reserved: Fraction = Fraction()
    #: Number of the submissions under way.
    submitting: int = 0

    def charges_left(self, price: float | None) -> float:
        """Return how many more charges at `price` fit beside those under way; infinity without limits.

        :param price: the price of each; None where unknown: then none fits a budget.
        """
        return self._count_left(price, self.submitting)

    def allows(self, price: float | None) -> bool:
        """Return whether one more charge fits, even if all submissions under way are charged.

        :param price: its price; None where unknown: then it does not fit a budget.
        """
        if self.max_charges is None and self.budget is None:
            return True
        return self.charges_left(price) >= 1

    def is_exhausted(self, lowest: float | None) -> bool:
        """Return whether no charge fits any more, even if none of the submissions under way is charged.

        :param lowest: the lowest price of a charge; None where unknown.
        """
        return self._count_left(lowest, 0) < 1

    def _count_left(self, price: float | None, submitting: int) -> float:
        """Return how many charges at `price` fit beside those so far and, unless `submitting` is 0, those under way."""
        left = math.inf if self.max_charges is None else self.max_charges - self.charges - submitting
        if self.budget is not None and price is None:
            return 0
        if self.budget is not None and price is not None:
            money = self.spent + self.reserved if submitting else self.spent
            left = min(left, (exact(self.budget) - money) // exact(price))
        return max(0, left)

    # --- what happened ----------------------------------------------------------------------------------------------

    def reserve(self, price: float | None) -> None:
        """Record that a submission begins."""
        self.submitting += 1
        self.reserved += _money(price)

    def release(self, price: float | None) -> None:
        """Record that a submission under way was not charged."""
        self.submitting -= 1
        self.reserved -= _money(price)

    def confirm(self, price: float | None) -> None:
        """Record that a submission under way was charged, or may have been."""
        self.release(price)
        self.charges += 1
        self.spent += _money(price)

    def correct(self, before: float | None, after: float | None) -> None:
        """Replace the price of a charge.

        :param before: the price with which it was confirmed, or the last correction of it.
        :param after: the provider's own figure, >= 0; None if it was not charged after all.
        """
        self.charges -= after is None
        self.spent += _money(after) - _money(before)

    # --- the reason of a stop ---------------------------------------------------------------------------------------

    def to_error(self, provider: str, price: float | None) -> SubmissionsStopped:
        """Return the reason for a stop before the next charge.

        :param provider: the account or provider whose limit it is.
        :param price: the price of that charge; None where no row of a price table fits its request.
        """
        if self.budget is None or (self.max_charges is not None and self.charges >= self.max_charges):
            return ChargeLimitReached(provider=provider, limit=self.max_charges or 0)
        if price is None:  # no budget is enough
            reason = f"the budget of {self.budget} needs the price of each request; add a row for all to the prices"
            return SubmissionsStopped(provider=provider, reason=reason)
        needed = float(self.spent + exact(price))
        return BudgetReached(provider=provider, budget=self.budget, spent=float(self.spent), needed=needed)


def spending_of(
    charges: Iterable[tuple[float | None, int]],
    unknown: float | None,
    *,
    budget: float | None,
    max_charges: int | None,
) -> Spending:
    """Return what was spent by earlier charges.

    :param charges: the costs of charges, each with the number of charges that cost so much; None: of unknown cost.
    :param unknown: what a charge of unknown cost counts as; None: nothing.
    """
    counts = [(unknown if cost is None else cost, number) for cost, number in charges]
    spent = sum((_money(cost) * number for cost, number in counts), Fraction())
    return Spending(budget=budget, max_charges=max_charges, spent=spent, charges=sum(number for _, number in counts))


def _money(price: float | None) -> Fraction:
    return Fraction() if price is None else exact(price)


def correct_cost(before: Job, after: Job, *spendings: Spending) -> None:
    """Record that a charge costs something else by now, or that a doubt was found not to be charged."""
    if not before.may_be_charged or (after.may_be_charged and after.cost == before.cost):
        return
    for spending in spendings:
        spending.correct(before.cost, (after.cost or 0.0) if after.may_be_charged else None)
