"""Prices, budgets and what they pay for, exact in decimals. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, Literal, Self, TypeAlias, get_args

import attrs

from pika_async.errors import BudgetReached, ChargeLimitReached, ConfigurationError, SubmissionsStopped, shorten
from pika_async.models import GenerationRequest
from pika_async.models.spelling import did_you_mean

__all__ = [
    "Budget",
    "PriceRow",
    "Prices",
    "Spending",
    "allowed_charges",
    "checked_amount",
    "checked_price",
    "cost",
    "exact",
    "money_text",
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


def allowed_charges(wanted: int, used: int, max_charges: int | None, budget: Budget | None) -> int:
    """Return how many of the `wanted` charges the limits allow after `used` ones; a limit that is None allows all."""
    limits = (max_charges, None if budget is None else budget.charges)
    return max(0, min([wanted, *(limit - used for limit in limits if limit is not None)]))


def checked_price(price: Any) -> float | None:
    """Return the price of one charge, or None.

    :raises ConfigurationError: unless it is None or a finite number above 0.
    """
    return checked_amount("price", price)


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
        return exact(self.amount) // exact(self.price)

    @classmethod
    def create(cls, amount: Any, price: float | None) -> Self | None:
        """Return a budget; None if `amount` is None.

        :param price: the price of one charge; None where unknown.
        :raises ConfigurationError: if `amount` is not a finite number above 0, or the price is unknown.
        """
        checked = checked_amount("budget", amount)
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


def checked_amount(setting: str, value: Any) -> float | None:
    """Return an amount of money, or None.

    :raises ConfigurationError: unless it is None or a finite number above 0.
    """
    if value is None:
        return None
    if not _is_amount(value):
        raise ConfigurationError(setting=setting, reason=f"must be a number above 0, not {shorten(value)}")
    return float(value)


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


# --- prices ---------------------------------------------------------------------------------------------------------

#: The input that a generation starts from, see `GenerationRequest.kind`.
InputKind: TypeAlias = Literal["text", "image", "video", "ingredients"]
KINDS: Final = get_args(InputKind)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and value.isprintable()


def _is_model(value: Any) -> bool:
    return _is_text(value) or _is_amount(value)


def _is_kind(value: Any) -> bool:
    return value in KINDS


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


#: The columns of a price table: the check of a value, and what it must be.
PRICE_COLUMNS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "price": (_is_amount, "a number above 0"),
    "model": (_is_model, 'the name of a model, such as "2.0"'),
    "duration": (_is_amount, "a number of seconds above 0"),
    "resolution": (_is_text, 'a resolution, such as "720p"'),
    "effect": (_is_flag, "true (with an effect) or false (without)"),
    "kind": (_is_kind, f"one of {', '.join(KINDS)}"),
}


@attrs.frozen(kw_only=True)
class PriceRow:
    """Price of the requests that have all of the given facts. A fact that is None does not count.

    :param price: the price of one charge, above 0.
    :param model: the model, that of the provider for a request without one.
    :param duration: length of the video in seconds.
    :param resolution: such as "720p", in lower case.
    :param effect: whether the request has an effect.
    :param kind: the input that the generation starts from.
    """

    price: float
    model: str | None = None
    duration: float | None = None
    resolution: str | None = None
    effect: bool | None = None
    kind: InputKind | None = None

    @classmethod
    def create(cls, row: Mapping[str, Any]) -> Self:
        """Return a row of valid facts, each in its one spelling."""
        facts = dict(row)
        if not isinstance(facts.get("model", ""), str):
            facts["model"] = str(float(facts["model"]))  # as a request has it: 2 is "2.0"
        if "resolution" in facts:
            facts["resolution"] = facts["resolution"].strip().lower()
        return cls(**facts)

    @property
    def facts(self) -> int:
        """Number of facts that count: a row with more of them comes first."""
        return sum(value is not None for value in attrs.astuple(self)[1:])

    def fits(self, request: GenerationRequest, model: str | None) -> bool:
        """Return whether a request has all facts of this row.

        :param model: the model that the request is sent with.
        """
        return (
            self.model in {None, model}
            and self.duration in {None, request.duration}
            and self.resolution in {None, (request.resolution or "").lower()}
            and self.effect in {None, request.effect is not None}
            and self.kind in {None, request.kind}
        )


@attrs.frozen
class Prices:
    """Price of each request at one account: one for all, or a table.

    :param rows: those with more facts first; of equally many, in the order in which they were given.
    """

    rows: tuple[PriceRow, ...]

    @classmethod
    def create(cls, value: Any, setting: str = "price") -> Self | None:
        """Return the prices of a number, or of a sequence of mappings with the columns of `PriceRow`; None for None.

        :param setting: the name of the argument, for the error.
        :raises ConfigurationError: names each row and column that is not valid.
        """
        if value is None or isinstance(value, cls):
            return value
        if _is_amount(value):
            return cls((PriceRow(price=float(value)),))
        if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
            columns = ", ".join([*PRICE_COLUMNS][1:])
            reason = f"must be a number above 0, or a list of rows, each with price and any of {columns}"
            raise ConfigurationError(setting=setting, reason=f"{reason}; not {shorten(value)}")
        faults = [fault for number, row in enumerate(value, 1) for fault in _faults_of(number, row)]
        if faults:
            raise ConfigurationError(setting=setting, reason="; ".join(faults))
        return cls(tuple(sorted(map(PriceRow.create, value), key=lambda row: -row.facts)))

    def price_of(self, request: GenerationRequest, default_model: str | None = None) -> float | None:
        """Return the price of a request: that of the row with most facts that fits it; None where no row fits.

        :param default_model: the provider's model for a request that names none.
        """
        model = request.model or default_model
        return next((row.price for row in self.rows if row.fits(request, model)), None)

    @property
    def highest(self) -> float:
        """The highest price in the table."""
        return max(row.price for row in self.rows)

    @property
    def lowest(self) -> float:
        """The lowest price in the table."""
        return min(row.price for row in self.rows)

    @property
    def single(self) -> float | None:
        """The price that every request has; None where it depends on the request."""
        return self.highest if self.highest == self.lowest and not self.rows[-1].facts else None


def _faults_of(number: int, row: Any) -> Iterator[str]:
    """Yield what is not valid in a row of a price table.

    :param number: its position, counted from 1.
    """
    columns = ", ".join(PRICE_COLUMNS)
    if not isinstance(row, Mapping):
        yield f"row {number} must be a table of {columns}, not {shorten(row)}"
        return
    if "price" not in row:
        yield f"row {number} must have a price; give price = NUMBER"
    for name, value in row.items():
        if name not in PRICE_COLUMNS:
            yield f"row {number}: {shorten(name)} must be one of {columns}{did_you_mean(name, PRICE_COLUMNS)}"
        elif not PRICE_COLUMNS[name][0](value):
            yield f"row {number}: {name} must be {PRICE_COLUMNS[name][1]}, not {shorten(value)}"


# --- spending -------------------------------------------------------------------------------------------------------


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

    def fitting(self, prices: Iterable[float | None]) -> Iterator[bool]:
        """Yield for each of several charges whether it fits beside those before it that do. Nothing is recorded.

        :param prices: the price of each, in the order in which they would be sent.
        """
        other = attrs.evolve(self)
        for price in prices:
            is_allowed = other.allows(price)
            if is_allowed:
                other.reserve(price)
            yield is_allowed

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


def _money(price: float | None) -> Fraction:
    return Fraction() if price is None else exact(price)
