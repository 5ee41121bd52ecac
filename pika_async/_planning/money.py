"""Prices, budgets and what they pay for, exact in decimals. Pure."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Self

import attrs

from pika_async.errors import BudgetReached, ConfigurationError

__all__ = ["Budget", "allowed_charges", "checked_price", "cost", "money_text"]


def cost(price: float, charges: int) -> float:
    """Return the price of a number of charges, without the rounding of binary fractions: 3 at 0.1 are 0.3."""
    return float(Fraction(repr(price)) * charges)


def money_text(money: float) -> str:
    """Format money with two decimals, or as many as it has up to six; the script of the page does the same."""
    text = f"{money:,.6f}".rstrip("0")
    decimals = len(text.partition(".")[2])
    return text + "0" * max(0, 2 - decimals)


def allowed_charges(wanted: int, used: int, max_charges: int | None, budget: Budget | None) -> int:
    """Return how many of the `wanted` charges the limits allow after `used` ones; a limit that is None allows all."""
    limits = (max_charges, None if budget is None else budget.charges)
    return max(0, min([wanted, *(limit - used for limit in limits if limit is not None)]))


def checked_price(price: Any) -> float | None:
    """Return the price of one charge, or None.

    :raises ConfigurationError: unless it is None or a finite number above 0.
    """
    return _checked_amount("price", price)


@attrs.frozen(kw_only=True)
class Budget:
    """Money for all charges of one journal.

    :param amount: the money, above 0.
    :param price: the price of one charge, above 0.
    """

    amount: float
    price: float
    #: Number of charges that the money pays for: 0.3 pays for 3 at 0.1.
    charges: int = attrs.field(init=False)

    @charges.default
    def _count_charges(self) -> int:
        return Fraction(repr(self.amount)) // Fraction(repr(self.price))

    @classmethod
    def create(cls, amount: Any, price: float | None) -> Self | None:
        """Return a budget; None if `amount` is None.

        :param price: the price of one charge; None where unknown.
        :raises ConfigurationError: if `amount` is not a finite number above 0, or the price is unknown.
        """
        checked = _checked_amount("budget", amount)
        if checked is None:
            return None
        if price is None:
            raise ConfigurationError(setting="budget", reason="needs the price of one charge; give price")
        return cls(amount=checked, price=price)

    def to_error(self, provider: str, charged: int) -> BudgetReached:
        """Return the reason for a stop after a number of charges."""
        return BudgetReached(
            provider=provider,
            budget=self.amount,
            spent=cost(self.price, charged),
            needed=cost(self.price, charged + 1),
        )


def _checked_amount(setting: str, value: Any) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ConfigurationError(setting=setting, reason=f"must be a number above 0, not {value!r}")
    return float(value)
