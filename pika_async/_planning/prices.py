"""Prices of requests at one account. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Self, TypeAlias, get_args

import attrs

from pika_async._planning.money import is_amount
from pika_async.errors import ConfigurationError, shorten
from pika_async.models import GenerationRequest
from pika_async.models.spelling import did_you_mean

__all__ = ["AccountPrices", "PriceRow", "Prices"]

#: The input that a generation starts from, see `GenerationRequest.kind`.
InputKind: TypeAlias = Literal["text", "image", "video", "ingredients"]
KINDS: Final = get_args(InputKind)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and value.isprintable()


def _is_model(value: Any) -> bool:
    return _is_text(value) or is_amount(value)


def _is_kind(value: Any) -> bool:
    return value in KINDS


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


#: The columns of a price table: the check of a value, and what it must be.
PRICE_COLUMNS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "price": (is_amount, "a number above 0"),
    "model": (_is_model, 'the name of a model, such as "2.0"'),
    "duration": (is_amount, "a number of seconds above 0"),
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
        if is_amount(value):
            return cls((PriceRow(price=float(value)),))
        if isinstance(value, int | float):
            raise ConfigurationError(setting=setting, reason=f"must be a number above 0, not {shorten(value)}")
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
        row = self.row_of(request, default_model)
        return None if row is None else row.price

    def row_of(self, request: GenerationRequest, default_model: str | None = None) -> PriceRow | None:
        """Return the row that counts for a request; None where no row fits.

        :param default_model: see `price_of`.
        """
        model = request.model or default_model
        return next((row for row in self.rows if row.fits(request, model)), None)

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


@attrs.define
class AccountPrices:
    """Prices that are reserved at one account: as given, but for what its provider has charged more for.

    :param given: the prices that the user gave; default None: unknown.
    :param default_model: the provider's model for a request that names none; default None.
    """

    given: Prices | None = None
    default_model: str | None = None
    #: The lowest price of a charge; None where unknown.
    lowest: float | None = attrs.field(init=False)
    #: The largest cost of requests that were charged more than the price in their row.
    _raised: dict[PriceRow, float] = attrs.field(factory=dict, init=False)

    @lowest.default
    def _lowest_given(self) -> float | None:
        return None if self.given is None else self.given.lowest

    def _row_of(self, request: GenerationRequest) -> PriceRow | None:
        return None if self.given is None else self.given.row_of(request, self.default_model)

    def price_of(self, request: GenerationRequest) -> float | None:
        """Return the price of a request; None where unknown."""
        row = self._row_of(request)
        return None if row is None else self._raised.get(row, row.price)

    def learn(self, request: GenerationRequest, cost: float) -> float | None:
        """Raise the price of the requests that have the same row, if one of them has cost more.

        :param request: the one whose cost its provider has given.
        :return: the price that the user gave, at the first cost above it; else None.
        """
        row = self._row_of(request)
        if self.given is None or row is None or cost <= self._raised.get(row, row.price):
            return None
        is_first = row not in self._raised
        self._raised[row] = cost
        self.lowest = min(self._raised.get(each, each.price) for each in self.given.rows)
        return row.price if is_first else None


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
