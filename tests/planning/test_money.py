"""Prices and budgets, exact in decimals."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import BudgetReached, ConfigurationError
from pika_async._planning.estimate import mean_cost
from pika_async._planning.money import Budget, checked_price, cost, money_text


def test_money_is_exact_in_decimals() -> None:
    """0.3 pays for 3 charges at 0.1, and these cost 0.3, although the binary fractions say otherwise."""
    assert Budget(amount=0.3, price=0.1).charges == 3
    assert Budget(amount=0.29, price=0.1).charges == 2
    assert cost(0.1, 3) == 0.3


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_budget_pays_for_as_many_charges_as_fit(cents: int, price_cents: int) -> None:
    """One more charge would exceed it."""
    amount, price = float(Decimal(cents) / 100), float(Decimal(price_cents) / 100)
    charges = Budget(amount=amount, price=price).charges
    assert charges == cents // price_cents


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "0.28"])
def test_a_price_or_budget_that_is_not_an_amount_is_refused(value: object) -> None:
    """The error names the argument and the value."""
    with pytest.raises(ConfigurationError, match=r"price.*must be a number above 0"):
        checked_price(value)
    with pytest.raises(ConfigurationError, match=r"budget.*must be a number above 0"):
        Budget.create(value, 0.28)


def test_a_budget_needs_a_price() -> None:
    """Without the price of a charge, money cannot be counted."""
    with pytest.raises(ConfigurationError, match="price of one charge; give price"):
        Budget.create(25, None)
    assert Budget.create(None, None) is None


def test_the_reason_of_the_stop_names_a_budget_that_is_enough() -> None:
    """It names what was used and the least budget that pays for one more."""
    error = Budget(amount=25.0, price=0.28).to_error("cometapi", 89)
    assert isinstance(error, BudgetReached)
    assert (error.spent, error.needed) == (24.92, 25.2)
    assert "at least 25.2 " in error.message


def test_points_are_unknown_where_one_stratum_has_none() -> None:
    """A guess for part of the jobs would be too low for all of them."""
    assert mean_cost({"a": 2, "b": 1}, {"a": (800, 2), "b": (100, 1)}) == 900
    assert mean_cost({"a": 2, "b": 1}, {"a": (800, 2)}) is None


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0.00"), (15.4, "15.40"), (0.28, "0.28"), (0.125, "0.125"), (1e-7, "0.00"), (1234567.891, "1,234,567.891")],
)
def test_money_has_two_decimals_or_as_many_as_count(amount: float, text: str) -> None:
    """It is read as money, also where a charge costs less than a cent."""
    assert money_text(amount) == text
