"""Prices, budgets and spending, exact in decimals."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import BudgetReached, ChargeLimitReached, ConfigurationError, GenerationRequest
from pika_async._planning.estimate import mean_cost
from pika_async._planning.money import Spending, checked_amount, cost, money_text, spending_of
from pika_async._planning.prices import Prices


def test_money_is_exact_in_decimals() -> None:
    """0.3 pays for 3 charges at 0.1, and these cost 0.3, although the binary fractions say otherwise."""
    assert Spending(budget=0.3).charges_left(0.1) == 3
    assert Spending(budget=0.29).charges_left(0.1) == 2
    assert cost(0.1, 3) == 0.3


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_budget_pays_for_as_many_charges_as_fit(cents: int, price_cents: int) -> None:
    """One more charge would exceed it."""
    amount, price = float(Decimal(cents) / 100), float(Decimal(price_cents) / 100)
    assert Spending(budget=amount).charges_left(price) == cents // price_cents


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, 10**400])
def test_a_price_or_budget_that_is_not_an_amount_is_refused(value: object) -> None:
    """The error names the argument and the value."""
    with pytest.raises(ConfigurationError, match=r"price.*must be a number above 0, not"):
        Prices.create(value)
    with pytest.raises(ConfigurationError, match=r"budget.*must be a number above 0, not"):
        checked_amount("budget", value)


def test_the_reason_of_the_stop_names_a_budget_that_is_enough() -> None:
    """It names what was used and the least budget that pays for one more."""
    spending = spending_of([(0.28, 80), (None, 9)], 0.28, budget=25.0, max_charges=None)
    error = spending.to_error("cometapi", 0.28)
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


# --- prices ---------------------------------------------------------------------------------------------------------

TABLE: list[dict[str, Any]] = [
    {"price": 0.2},
    {"price": 0.3, "model": "2.2"},
    {"price": 0.6, "model": "2.2", "duration": 10},
    {"price": 0.9, "model": "2.2", "resolution": "1080P"},
    {"price": 0.5, "effect": True},
    {"price": 0.7, "kind": "ingredients"},
]


def table(*rows: dict[str, Any]) -> Prices:
    prices = Prices.create(rows)
    assert prices is not None
    return prices


def test_one_price_is_that_of_every_request() -> None:
    """A number is a table with one row."""
    prices = Prices.create(2)
    assert prices is not None
    assert prices.price_of(GenerationRequest("a cat", model="9", effect="Melt")) == 2.0
    assert (prices.lowest, prices.single, prices.highest) == (2.0, 2.0, 2.0)
    assert Prices.create(prices) is prices
    assert Prices.create(None) is None


@pytest.mark.parametrize(
    ("fields", "price"),
    [
        ({}, 0.2),
        ({"model": "2.2"}, 0.3),
        ({"model": 2.2, "duration": 10}, 0.6),
        ({"model": "2.2", "duration": 5}, 0.3),
        ({"model": "2.2", "resolution": "1080p"}, 0.9),
        ({"model": "2.2", "duration": 10, "resolution": "1080p"}, 0.6),
        ({"effect": "Melt"}, 0.5),
        ({"model": "2.2", "effect": "Melt"}, 0.3),
        ({"ingredients": ["https://pika.example/1.png"]}, 0.7),
        ({"image": "https://pika.example/1.png", "duration": 10}, 0.2),
    ],
)
def test_the_row_with_most_facts_counts(fields: Any, price: float) -> None:
    """Of several rows that fit a request the one with most facts is taken, of equally many the first in the table."""
    assert table(*TABLE).price_of(GenerationRequest("a cat", **fields)) == price
    assert table(*TABLE[::-1]).price_of(GenerationRequest("a cat")) == 0.2


def test_a_request_without_a_model_has_the_price_of_the_default_model() -> None:
    """A model that was given as a number is the one that a request spells as text."""
    prices = table({"price": 0.3, "model": 2}, {"price": 0.4, "model": "1.5"})
    assert prices.price_of(GenerationRequest("a cat"), "2.0") == 0.3
    assert prices.price_of(GenerationRequest("a cat", model="1.5"), "2.0") == 0.4
    assert prices.price_of(GenerationRequest("a cat")) is None


def test_a_price_is_unknown_where_no_row_fits() -> None:
    """A table without a row for all requests has no price for the others, and so not a single price."""
    prices = table({"price": 0.3, "effect": False})
    assert prices.price_of(GenerationRequest("a cat")) == 0.3
    assert prices.price_of(GenerationRequest("a cat", effect="Melt")) is None
    assert prices.single is None


def test_a_table_names_its_lowest_and_highest_price() -> None:
    """Rows that all cost the same have a single price where one of them is for all requests."""
    prices = table(*TABLE)
    assert (prices.lowest, prices.single, prices.highest) == (0.2, None, 0.9)
    assert table({"price": 0.3}, {"price": 0.3, "effect": True}).single == 0.3


def test_all_faults_of_a_table_are_named_at_once() -> None:
    """Each has the number of its row, the column, the value and a way out."""
    rows = [
        {"price": 0, "kind": "sound"},
        {"effect": "yes", "duration": -5},
        {"price": 0.1, "modell": "2.0"},
        {"price": 0.1, "model": " ", "resolution": 720},
        0.28,
    ]
    with pytest.raises(ConfigurationError) as caught:
        Prices.create(rows, "account.price")
    assert caught.value.setting == "account.price"
    assert caught.value.reason.split("; row ") == [
        "row 1: price must be a number above 0, not 0",
        "1: kind must be one of text, image, video, ingredients, not 'sound'",
        "2 must have a price; give price = NUMBER",
        "2: effect must be true (with an effect) or false (without), not 'yes'",
        "2: duration must be a number of seconds above 0, not -5",
        "3: 'modell' must be one of price, model, duration, resolution, effect, kind; did you mean model?",
        "4: model must be the name of a model, such as \"2.0\", not ' '",
        '4: resolution must be a resolution, such as "720p", not 720',
        "5 must be a table of price, model, duration, resolution, effect, kind, not 0.28",
    ]


@pytest.mark.parametrize("value", ["0.28", [], {"price": 1}])
def test_prices_that_are_neither_an_amount_nor_a_table_are_refused(value: object) -> None:
    """The error shows both forms and the value."""
    with pytest.raises(ConfigurationError, match=r"price: must be a number above 0, or a list of rows.*; not "):
        Prices.create(value)


# --- spending -------------------------------------------------------------------------------------------------------


def test_three_charges_of_a_tenth_fit_three_tenths() -> None:
    """Sums are those of the decimal numbers."""
    spending = Spending(0.3, None)
    for _ in range(3):
        assert spending.allows(0.1)
        spending.reserve(0.1)
        spending.confirm(0.1)
    assert (spending.spent, spending.charges) == (Fraction(3, 10), 3)
    assert not spending.allows(0.0000001)


def test_a_reservation_counts_until_it_is_released() -> None:
    """Submissions under way may all be charged, so that their money and their number are not given out again."""
    spending = Spending(1.0, 3)
    spending.reserve(0.6)
    assert not spending.allows(0.6)
    assert not spending.is_exhausted(0.6)
    assert spending.charges_left(0.2) == 2
    spending.release(0.6)
    assert spending == Spending(1.0, 3)
    assert spending.allows(0.6)


def test_the_number_of_charges_is_limited_whatever_they_cost() -> None:
    """A charge without a known price counts too; it fits wherever no money is limited."""
    spending = Spending(max_charges=2)
    assert spending.charges_left(None) == 2
    spending.reserve(None)
    spending.confirm(None)
    spending.reserve(0.5)
    assert (spending.allows(None), spending.is_exhausted(None)) == (False, False)
    spending.confirm(0.5)
    assert (spending.charges, spending.spent, spending.is_exhausted(None)) == (2, Fraction(1, 2), True)
    assert Spending().charges_left(None) == math.inf


def test_a_charge_without_a_price_does_not_fit_a_budget() -> None:
    """What it costs cannot be counted."""
    assert not Spending(1000.0).allows(None)
    assert Spending(1000.0).is_exhausted(None)


def test_the_cheapest_charge_decides_whether_a_budget_is_exhausted() -> None:
    """A charge may be too dear for the rest of a budget that pays for another."""
    spending = Spending(1.0, None, Fraction("0.8"), 2)
    assert (spending.allows(0.3), spending.is_exhausted(0.2), spending.is_exhausted(0.3)) == (False, False, True)


def test_a_correction_replaces_the_price_of_a_charge() -> None:
    """The provider's own figure counts, also 0 after a refund; a charge that was none is not counted."""
    spending = Spending(1.0, 2)
    spending.reserve(0.6)
    spending.confirm(0.6)
    spending.reserve(None)
    spending.confirm(None)
    spending.correct(0.6, 0.45)
    spending.correct(None, 0.125)
    assert (spending.spent, spending.charges) == (Fraction("0.575"), 2)
    spending.correct(0.45, 0.0)
    assert (spending.spent, spending.charges) == (Fraction("0.125"), 2)
    spending.correct(0.125, None)
    assert (spending.spent, spending.charges) == (Fraction(0), 1)


def test_the_reason_of_a_stop_is_the_limit_that_is_reached() -> None:
    """It names what was spent and the least budget that pays for the next charge."""
    spending = Spending(25.0, 90, Fraction("24.92"), 89)
    error = spending.to_error("main", 0.28)
    assert isinstance(error, BudgetReached)
    assert (error.provider, error.budget, error.spent, error.needed) == ("main", 25.0, 24.92, 25.2)
    spending.charges = 90
    stop = spending.to_error("main", 0.28)
    assert isinstance(stop, ChargeLimitReached)
    assert (stop.provider, stop.limit) == ("main", 90)


def test_the_reason_of_a_stop_asks_for_a_price_that_is_missing() -> None:
    """No budget is enough for a charge whose price is unknown; the number of charges is limited without one."""
    error = Spending(25.0, 90).to_error("main", None)
    assert error.type == "SubmissionsStopped"
    assert error.reason == "the budget of 25.0 needs the price of each request; add a row for all to the prices"
    assert isinstance(Spending(None, 1, charges=1).to_error("main", None), ChargeLimitReached)


PRICES = st.sampled_from([0.1, 0.2, 0.28, 0.3, 1.1, 7.77])


@given(
    st.sampled_from([0.3, 1.0, 9.99, 10.0, None]),
    st.sampled_from([1, 5, None]),
    st.lists(st.tuples(PRICES, st.sampled_from(["reserve", "confirm", "release", "uncharged"]), st.integers(0, 99))),
)
def test_the_budget_holds_in_any_order_of_answers(
    budget: float | None, limit: int | None, steps: list[tuple[float, str, int]]
) -> None:
    """Whatever is charged, refused or found uncharged: the sums are those of the decimals, and within both limits."""
    spending = Spending(budget, limit)
    sending: list[float] = []
    charged: list[float] = []
    for price, step, index in steps:
        if step == "reserve" and spending.allows(price):
            spending.reserve(price)
            sending.append(price)
        elif step == "uncharged" and charged:
            spending.correct(charged.pop(index % len(charged)), None)
        elif step in {"confirm", "release"} and sending:
            one = sending.pop(index % len(sending))
            if step == "confirm":
                spending.confirm(one)
                charged.append(one)
            else:
                spending.release(one)
        assert spending.spent == sum(Fraction(Decimal(str(one))) for one in charged)
        assert spending.reserved == sum(Fraction(Decimal(str(one))) for one in sending)
        assert (spending.charges, spending.submitting) == (len(charged), len(sending))
        total = sum(Decimal(str(one)) for one in charged + sending)
        assert budget is None or total <= Decimal(str(budget))
        assert limit is None or len(charged + sending) <= limit
        assert spending.allows(price) == (
            (budget is None or total + Decimal(str(price)) <= Decimal(str(budget)))
            and (limit is None or len(charged + sending) < limit)
        )
