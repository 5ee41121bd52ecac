"""Preview of what a command would be charged, and the question before it is. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import attrs
from cyclopts import Parameter

from pika_async._planning.estimate import Estimate
from pika_async._planning.money import money_text
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.exits import ExitCode, Interrupted, UsageError
from pika_async.cli.help_groups import MONEY
from pika_async.cli.results import json_line
from pika_async.cli.terminal import Terminal
from pika_async.cli.words import NEW_CHARGES, counted, range_words
from pika_async.engines.protocol import BatchClient

__all__ = ["MoneyOptions", "Offer", "SpendOptions", "amount", "confirm", "count_words"]

#: Refused rows, and groups of equal rows, that are named one by one.
MAX_NAMED: Final = 10
#: Equal rows of one group that are named.
MAX_EQUAL: Final = 5


@Parameter(name="*", group=MONEY)
@attrs.frozen(kw_only=True)
class MoneyOptions:
    """Price of a generation, and the money for all of them."""

    price: float | None = None
    "Price of one generation, in any unit of money. [default: unknown; the points of settled jobs are shown]"
    budget: float | None = None
    """Most money for all accepted submissions, counted over all commands that ever ran in the folder, in the unit of
    --price, which it needs. [default: no limit]"""

    def applied_to(self, options: BatchOptions) -> BatchOptions:
        """Return `options` with the price and the budget that were given."""
        given = {name: getattr(self, name) for name in ("price", "budget") if getattr(self, name) is not None}
        return attrs.evolve(options, **given)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class SpendOptions(MoneyOptions):
    """Price, money, and consent to spending it."""

    dry_run: Annotated[bool, Parameter(negative=())] = False
    "Print what would be charged and how long it would take; send nothing."
    yes: Annotated[bool, Parameter(negative=())] = False
    "Do not ask. Without a terminal nothing is asked in any case."
    quotes: bool | None = None
    """Ask the provider for its prices, which is free, where no price is given. [default: --quotes; --no-quotes with
    --dry-run]"""

    @property
    def asks_prices(self) -> bool:
        """Whether the provider is asked for its prices."""
        return not self.dry_run if self.quotes is None else self.quotes


@attrs.frozen(kw_only=True)
class Offer:
    """Estimate of one client's share of a command.

    :param places: name of each request by position, such as `prompts.csv:7`.
    :param candidates: accounts that can take the one request; default: all of the client.
    """

    client: BatchClient
    estimate: Estimate
    places: Sequence[str]
    candidates: Sequence[str] | None = None

    @property
    def recipient(self) -> str:
        """Title of the provider, and its base URL if that is not the provider's own; the names of several accounts."""
        if self.has_several:
            chosen = [(name, self.client.accounts[name][0]) for name in self.candidates or self.client.accounts]
            names = [name if name == provider.name else f"{name} ({provider.title})" for name, provider in chosen]
            is_choice = self.candidates is not None and len(names) > 1
            return f"{'one of ' if is_choice else ''}{', '.join(names)}"
        provider, base_url = self.client.provider, self.client.base_url
        return provider.title if base_url == provider.base_url else f"{provider.title} at {base_url}"

    @property
    def has_several(self) -> bool:
        """Whether the client has several accounts."""
        return len(self.client.accounts) > 1


def confirm(offers: Sequence[Offer], terminal: Terminal, spend: SpendOptions, *, as_json: bool) -> ExitCode | None:
    """Print what `offers` would be charged, and ask a person whether to send them.

    Nothing is asked without a terminal, with --yes, or if nothing would be charged.

    :param as_json: print the preview of a dry run as a line of JSON for each offer.
    :return: None to go on; else the exit code of the command, which sends nothing.
    :raises Interrupted: by Ctrl-C at the question.
    :raises UsageError: at the end of the input, without an answer.
    """
    if spend.dry_run and as_json:
        for offer in offers:
            terminal.write(json_line(_record(offer), ascii_only=True))
        return ExitCode.OK
    for offer in offers:
        terminal.show(f"{offer.recipient}: {count_words(offer.estimate)}", to_error=not spend.dry_run)
        terminal.fields(list(_fields(offer)), to_error=not spend.dry_run)
    if spend.dry_run:
        return ExitCode.OK
    offers = [offer for offer in offers if offer.estimate.new_charges]
    if not offers or spend.yes or not terminal.can_ask:
        return None
    return _ask(offers, terminal)


def _ask(offers: Sequence[Offer], terminal: Terminal) -> ExitCode | None:
    question = "; ".join(
        f"{counted(one.new_charges, 'new charge')} to {offer.recipient}, {_cost(one)}, {_time(one)}"
        for offer in offers
        for one in [offer.estimate]
    )
    try:
        answer = terminal.ask(f"Send {question}? [y/N]")
    except KeyboardInterrupt:
        terminal.note("")
        raise Interrupted("interrupted: nothing was sent") from None
    if answer is None:
        terminal.note("")
        raise UsageError("no answer, so nothing was sent; --yes sends without asking")
    if answer.casefold() in {"y", "yes"}:
        return None
    terminal.note("nothing was sent")
    return ExitCode.INCOMPLETE


def count_words(estimate: Estimate) -> str:
    """Return the numbers of new charges, known and refused requests in words."""
    return f"{estimate.new_charges} {NEW_CHARGES}, {estimate.known} known, {len(estimate.refused)} refused"


def _fields(offer: Offer) -> Iterator[tuple[str, str]]:
    estimate, places = offer.estimate, offer.places
    if estimate.new_charges:
        yield "cost", _cost(estimate).removeprefix("cost ") + _cost_source(offer)
    if any(estimate.seconds):
        yield "time", _time(estimate) + _time_source(estimate)
    yield from _limits(estimate)
    for positions in estimate.equal[:MAX_NAMED]:
        rows = ", ".join(places[position] for position in positions[:MAX_EQUAL])
        more = f" and {len(positions) - MAX_EQUAL} more" if len(positions) > MAX_EQUAL else ""
        yield "equal", f"{rows}{more} have the same content; each row is charged by itself"
    if len(estimate.equal) > MAX_NAMED:
        yield "equal", f"... and {counted(len(estimate.equal) - MAX_NAMED, 'more group')}"
    if estimate.unlisted:
        lists = "none of them lists" if offer.has_several else f"{offer.client.provider.title} does not list"
        yield "note", f"{lists} {', '.join(estimate.unlisted)}"
    for position, reason in list(estimate.refused.items())[:MAX_NAMED]:
        yield "refused", f"{places[position]}: {reason}"
    if len(estimate.refused) > MAX_NAMED:
        yield "refused", f"... and {len(estimate.refused) - MAX_NAMED} more"


def _limits(estimate: Estimate) -> Iterator[tuple[str, str]]:
    held_back = f"; {estimate.held_back} left planned" if estimate.held_back else ""
    if estimate.max_charges is not None:
        yield "limit", f"--max-charges {estimate.max_charges}, {estimate.charged} used{held_back}"
    if estimate.budget is not None:
        used = amount(estimate.spent, "price")
        yield "limit", f"--budget {amount(estimate.budget, 'price')}, {used} used{held_back}"


def amount(money: float, unit: str | None) -> str:
    """Format money: points as a whole number, a price as `money_text` does, a quote with its currency."""
    if unit == "points":
        return f"{money:,.0f} points"
    return f"{money_text(money)} US dollars" if unit == "quote" else money_text(money)


def _cost(estimate: Estimate) -> str:
    if estimate.money is None:
        return "cost unknown"
    return ("about " if estimate.unit == "points" else "") + amount(estimate.money, estimate.unit)


def _cost_source(offer: Offer) -> str:
    estimate = offer.estimate
    if estimate.money is None:
        return "; give each account its price" if offer.has_several else "; give --price, the price of one"
    if estimate.unit == "quote" and not offer.has_several:
        return f", as quoted by {offer.client.provider.title}"
    if estimate.unit in {"price", "quote"} and estimate.price is None:
        kind = "price" if estimate.unit == "price" else "quote"
        choice = "lowest" if offer.client.routing.strategy == "cheapest" else "highest"
        each = "each at " if estimate.new_charges > 1 else ""
        more = "; more while that one is full" if choice == "lowest" else ""
        return f", {each}the {choice} {kind} of the accounts that can take it{more}" if offer.has_several else ""
    each = amount(estimate.money / estimate.new_charges, estimate.unit)
    return f" ({each} each{', the mean of settled jobs here' if estimate.unit == 'points' else ''})"


def _time(estimate: Estimate) -> str:
    return range_words(estimate.seconds)


def _time_source(estimate: Estimate) -> str:
    if estimate.learned_from:
        return f", learned from {counted(estimate.learned_from, 'generation')}"
    return ", a guess: no generation has settled here yet"


def _record(offer: Offer) -> dict[str, Any]:
    """Return the fields of an estimate for JSON; rows are named as in the text."""
    estimate, places = offer.estimate, offer.places
    return {
        "provider": offer.client.provider.name,
        "base_url": offer.client.base_url,
        "accounts": list(offer.client.accounts),
        "new_charges": estimate.new_charges,
        "known": estimate.known,
        "refused": [{"row": places[position], "reason": reason} for position, reason in estimate.refused.items()],
        "equal": [[places[position] for position in positions] for positions in estimate.equal],
        "price": estimate.price,
        "money": estimate.money,
        "unit": estimate.unit,
        "seconds": list(estimate.seconds),
        "learned_from": estimate.learned_from,
        "held_back": estimate.held_back,
        "charged": estimate.charged,
        "spent": estimate.spent,
        "max_charges": estimate.max_charges,
        "budget": estimate.budget,
        "unlisted": list(estimate.unlisted),
    }
