"""Estimate of a run before it costs: charges, money and time. Pure: reads no journal and sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from pika_async._planning.money import Spending, cost, exact

__all__ = ["Estimate", "mean_cost"]


@attrs.frozen(kw_only=True)
class Estimate:
    """Estimate of what a run of some requests would be charged and how long it would take; see `PikaClient.estimate`.

    Every request is counted once: `new_charges + known + len(refused) + held_back` is their number.
    """

    #: Number of submissions that the run would pay for, as far as `max_charges` and `budget` allow.
    new_charges: int
    #: Number of requests whose job the journal has, or an earlier row with the same key: they are not paid again.
    known: int
    #: Why requests cannot be sent, by position from 0.
    refused: Mapping[int, str] = attrs.field(factory=dict)
    #: Positions, from 0, of requests with equal content; each of a group with a key of its own is paid for.
    equal: tuple[tuple[int, ...], ...] = ()
    #: The client's price of one charge; None where unknown.
    price: float | None = None
    #: The cost of the new charges in `unit`; None where unknown.
    money: float | None = None
    #: "price": in the unit of `PikaClient(price=...)`; "quote": in US dollars, by the quotes of the providers;
    #: "points": in the provider's points, from the mean of the settled jobs of the same stratum in the journal; None
    #: where unknown.
    unit: Literal["price", "quote", "points"] | None = None
    #: Seconds until every job has ended, low and high: at least 9 of 10 runs end between them. Downloads and outages
    #: are not included.
    seconds: tuple[float, float] = (0.0, 0.0)
    #: Number of settled tasks that `seconds` was learned from; 0: from the expected duration.
    learned_from: int = 0
    #: Number of requests that would stay planned because of `max_charges` or `budget`.
    held_back: int = 0
    #: Number of charges that the journal has already.
    charged: int = 0
    #: Money for these charges, in the unit of the price; 0 where unknown.
    spent: float = 0.0
    #: The client's `Limits.max_charges`, which counts these as well; None: no limit.
    max_charges: int | None = None
    #: The client's budget, which pays for these as well; None: no limit.
    budget: float | None = None
    #: Models and effects of the requests that the provider does not document, such as "effect Melt".
    unlisted: tuple[str, ...] = ()

    def after(self, others: int) -> Estimate:
        """Return this estimate for a run that comes after other charges to the same journal: they use up its limits.

        :param others: number of these charges.
        """
        if not self.new_charges:
            return self
        price = self.money / self.new_charges if self.money is not None and self.unit == "price" else None
        spent = exact(self.spent) + (0 if price is None else exact(price) * others)
        spending = Spending(
            budget=self.budget, max_charges=self.max_charges, spent=spent, charges=self.charged + others
        )  # fmt: skip
        allowed = int(min(self.new_charges, spending.charges_left(self.price or price)))
        if allowed == self.new_charges:
            return self
        money = None if self.money is None else self.money * allowed / self.new_charges
        return attrs.evolve(
            self,
            new_charges=allowed,
            held_back=self.held_back + self.new_charges - allowed,
            money=money if self.price is None else cost(self.price, allowed),
        )


def mean_cost(counts: Mapping[str, int], points: Mapping[str, tuple[float, int]]) -> float | None:
    """Return the points that jobs are expected to cost; None if that is unknown for any of them.

    :param counts: number of jobs by stratum.
    :param points: the sum of the points of settled jobs and the number of these, by stratum.
    """
    if any(stratum not in points for stratum in counts):
        return None
    return sum(count * points[stratum][0] / points[stratum][1] for stratum, count in counts.items())
