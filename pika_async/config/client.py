"""The configuration of a client: its arguments, validated. Opens nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Self, cast

import aiohttp
import attrs

from pika_async._http.addresses import ALLOWABLE_RESULTS
from pika_async._http.callbacks import CallbackReceiver
from pika_async._http.proxies import check_environment_proxies, proxy_url
from pika_async._http.transport import AiohttpTransport, Transport, origin_of
from pika_async._journal.protocol import Journal
from pika_async._planning.limits import Limits
from pika_async._planning.money import Spending, checked_amount, spending_of
from pika_async._planning.prices import Prices
from pika_async.config.accounts import Account, Routing, checked_accounts
from pika_async.errors import ConfigurationError, shorten
from pika_async.jobs import Job
from pika_async.models import GenerationRequest
from pika_async.models.media import Uploader
from pika_async.polling.adaptive import AdaptivePolling
from pika_async.polling.policy import PollingPolicy
from pika_async.providers import Provider
from pika_async.providers._wire import Credential

__all__ = ["AccountConfig", "ClientConfig", "drain_seconds"]

#: Default time from acceptance to settling, in seconds; the documented example took 232 s.
DEFAULT_DEADLINE_S: Final = 1800.0
#: Default time for which the address of an uploaded file is used again, in seconds.
DEFAULT_UPLOAD_LIFETIME_S: Final = 86_400.0
#: Upper bound of a drain, in seconds: the deadlines of the jobs end it long before.
MAX_DRAIN_S: Final = 1e9


@attrs.frozen(kw_only=True)
class AccountConfig:
    """One account of a client, validated. It outlives every event loop in which the client is opened."""

    name: str
    provider: Provider
    base_url: str
    #: Those of the client, with the bounds of the account.
    limits: Limits
    transport: Transport
    #: Distinguishes one API key from another.
    digest: str
    #: Price of each charge; None where unknown.
    prices: Prices | None
    #: Limits of the account's own, over the life of the journal.
    max_charges: int | None
    budget: float | None
    max_in_flight: int | None
    weight: float

    @property
    def concurrency_key(self) -> str:
        """The journal setting that holds the learned concurrency limit of this account."""
        return f"slots {self.provider.name} {self.base_url} {self.digest}"

    def is_at(self, provider: str, base_url: str) -> bool:
        """Whether the account is at that provider and base URL."""
        return (provider, base_url) == (self.provider.name, self.base_url)

    def price_of(self, request: GenerationRequest) -> float | None:
        """Return the price of a request; None where unknown."""
        return None if self.prices is None else self.prices.price_of(request, self.provider.default_model)

    def new_spending(self, costs: Mapping[tuple[str, float | None], int]) -> Spending:
        """Return what the account has spent, by the charges of a journal. One of unknown cost counts as the dearest."""
        own = [(cost, jobs) for (name, cost), jobs in costs.items() if name == self.name]
        return spending_of(own, self.highest_price, budget=self.budget, max_charges=self.max_charges)

    @property
    def highest_price(self) -> float | None:
        """The price of the dearest charge; None where unknown."""
        return None if self.prices is None else self.prices.highest


@attrs.frozen(kw_only=True)
class ClientConfig:
    """The validated arguments of a client. A configuration outlives every event loop in which the client is opened."""

    #: At least one, with different names.
    accounts: tuple[AccountConfig, ...]
    routing: Routing
    #: Those of the client over all accounts.
    limits: Limits
    #: Seconds from acceptance to settling.
    deadline: float
    policy: PollingPolicy
    callbacks: CallbackReceiver | None
    #: Kinds of results to fetch that are refused otherwise.
    allow_results: frozenset[str]
    proxy: str | None
    journal: Journal
    #: Whether a bare 503 counts as a refusal.
    lenient: bool
    #: Uploads local files that do not fit into a request; None if there is no uploader.
    uploader: Uploader | None
    #: Seconds for which the address of an uploaded file is used again.
    upload_lifetime: float
    #: Money for all charges in the journal; None: no limit.
    budget: float | None

    @classmethod
    def create(
        cls,
        provider: str | Provider | Account | Iterable[Account],
        *,
        api_key: str | None,
        api_key_file: str | os.PathLike[str] | None,
        base_url: str | None,
        new_journal: Callable[[Limits], Journal],
        polling: PollingPolicy | None,
        limits: Limits | None,
        callbacks: CallbackReceiver | None,
        deadline: float | None,
        ambiguous: str,
        session: aiohttp.ClientSession | None,
        allow_results: Collection[str],
        proxy: str | None,
        transport: Transport | None,
        uploader: Uploader | None,
        upload_lifetime: float | None,
        price: float | Sequence[Mapping[str, Any]] | None,
        budget: float | None,
        routing: Routing | None,
    ) -> Self:
        """Validate the arguments of `PikaClient`, which documents them.

        :param new_journal: returns the journal of a client with the given limits.

        :raises ConfigurationError: names the argument that cannot work and the way out.
        """
        own = {"api_key": api_key, "api_key_file": api_key_file, "base_url": base_url, "price": price}
        accounts = _given_accounts(provider, own)
        limits = _checked_limits(limits)
        proxy = None if proxy is None else proxy_url(proxy)
        money = checked_amount("budget", budget)
        if money is not None and any(account.price is None for account in accounts):
            raise ConfigurationError(setting="budget", reason="needs the price of one charge; give price")
        return cls(
            accounts=tuple(
                _configured(account, limits, session=session, proxy=proxy, transport=transport) for account in accounts
            ),
            routing=_checked_routing(routing),
            limits=limits,
            deadline=_checked_seconds("deadline", deadline, DEFAULT_DEADLINE_S),
            policy=_checked_policy(polling),
            callbacks=_checked_callbacks(callbacks, [account.provider for account in accounts]),
            allow_results=_checked_allowances(allow_results),
            proxy=proxy,
            journal=new_journal(limits),
            lenient=_is_lenient(ambiguous),
            uploader=_checked_uploader(uploader),
            upload_lifetime=_checked_seconds("upload_lifetime", upload_lifetime, DEFAULT_UPLOAD_LIFETIME_S),
            budget=money,
        )

    @property
    def name(self) -> str:
        """The provider of the only account; the names of several."""
        return ", ".join(account.name for account in self.accounts)

    def account_of(self, job: Job) -> AccountConfig | None:
        """Return the account of a job; None if this client does not have it."""
        found = (each for each in self.accounts if each.is_at(job.provider, job.base_url))
        return next((each for each in found if job.account in {None, each.name}), None)

    def new_spending(self, costs: Mapping[tuple[str, float | None], int]) -> Spending:
        """Return what the client has spent over all accounts, by the charges of a journal.

        One of unknown cost counts as the dearest of its account, or of all if this client does not have that account.
        """
        highest = {account.name: account.highest_price for account in self.accounts}
        dearest = max((price for price in highest.values() if price is not None), default=None)
        charges = [(highest.get(name, dearest) if cost is None else cost, jobs) for (name, cost), jobs in costs.items()]
        return spending_of(charges, None, budget=self.budget, max_charges=self.limits.max_charges)


def _given_accounts(
    provider: str | Provider | Account | Iterable[Account], own: Mapping[str, Any]
) -> tuple[Account, ...]:
    """Return the accounts of a client.

    :param own: arguments of the client that a single provider has; several accounts have their own.
    """
    given: Any = provider
    given = [given] if isinstance(given, Account) else given
    if isinstance(given, str | Provider) or not isinstance(given, Iterable):  # which `Account` refuses
        return (Account(given, **own),)
    accounts = checked_accounts(given)
    misplaced = next((name for name, value in own.items() if value is not None), None)
    if misplaced is not None:
        raise ConfigurationError(setting=misplaced, reason="must be given to each account; give Account(PROVIDER, ...)")
    return accounts


def _configured(
    account: Account,
    limits: Limits,
    *,
    session: aiohttp.ClientSession | None,
    proxy: str | None,
    transport: Transport | None,
) -> AccountConfig:
    provider, url = account.provider, _resolve_base_url(account)
    if proxy is None and transport is None:
        check_environment_proxies(url)
    credential = Credential("") if transport else account.read_credential()
    own = {name: getattr(account, name) for name in ("max_in_flight", "submits_per_second", "polls_per_second")}
    return AccountConfig(
        name=account.name,
        provider=provider,
        base_url=url,
        limits=attrs.evolve(limits, **{name: value for name, value in own.items() if value is not None}),
        transport=transport
        or AiohttpTransport(
            url,
            credential,
            authorization=provider.authorization,
            origins=provider.trusted_origins(url),
            session=session,
            proxy=proxy,
            connections=int(limits.polling),
        ),
        digest=credential.account(),
        prices=account.price,
        max_charges=account.max_charges,
        budget=account.budget,
        max_in_flight=account.max_in_flight,
        weight=account.weight,
    )


def drain_seconds(value: bool | float) -> float:
    """Return how long a drain may take: 0 for False, `MAX_DRAIN_S` for True.

    :raises ConfigurationError: unless `value` is a bool or a number of seconds >= 0.
    """
    if isinstance(value, bool):
        return MAX_DRAIN_S if value else 0.0
    if not isinstance(value, int | float) or not value >= 0:
        raise ConfigurationError(setting="drain", reason=f"{value!r} must be True, False or a number of seconds >= 0")
    return float(min(value, MAX_DRAIN_S))


def _resolve_base_url(account: Account) -> str:
    """Return the address of an account, without a slash at its end."""
    origin_of(account.base_url or account.provider.base_url or "")
    return account.address


def _checked_routing(routing: object) -> Routing:
    if routing is None:
        return Routing()
    if not isinstance(routing, Routing):
        reason = f'must be a Routing, not {shorten(routing)}; give Routing("capacity"), "cheapest" or "fastest"'
        raise ConfigurationError(setting="routing", reason=reason)
    return routing


def _checked_allowances(allow_results: Collection[str]) -> frozenset[str]:
    words = ", ".join(f'"{kind}"' for kind in ALLOWABLE_RESULTS)
    if isinstance(allow_results, str) or not isinstance(allow_results, Collection):
        raise ConfigurationError(setting="allow_results", reason=f"must be a list of {words}, not {allow_results!r}")
    if unknown := [kind for kind in allow_results if kind not in ALLOWABLE_RESULTS]:
        raise ConfigurationError(setting="allow_results", reason=f"{unknown[0]!r} must be one of {words}")
    return frozenset(allow_results)


def _checked_callbacks(callbacks: object, providers: Sequence[Provider]) -> CallbackReceiver | None:
    if callbacks is None:
        return None
    if not isinstance(callbacks, CallbackReceiver):
        reason = f"{shorten(callbacks)} must be a CallbackReceiver; give CallbackReceiver(public_url=...)"
        raise ConfigurationError(setting="callbacks", reason=reason)
    if not any(provider.takes_callback for provider in providers):
        titles = ", ".join(provider.title for provider in providers)
        polled = "its feed is polled" if len(providers) == 1 else "their feeds are polled"
        reason = f"{titles} sends no callbacks, {polled}; leave callbacks out"
        raise ConfigurationError(setting="callbacks", reason=reason)
    for provider in providers:
        if provider.callback_signature is not None:
            provider.callback_signature.check_installed(provider.title)
    return callbacks


def _checked_policy(polling: object) -> PollingPolicy:
    if polling is None:
        return AdaptivePolling()
    if not isinstance(polling, PollingPolicy):
        reason = f"must be an instance of PollingPolicy, not {polling!r}; give AdaptivePolling(...), or subclass it"
        raise ConfigurationError(setting="polling", reason=reason)
    return polling


def _checked_limits(limits: Limits | None) -> Limits:
    if limits is None:
        return Limits()
    if not isinstance(limits, Limits):
        raise ConfigurationError(setting="limits", reason=f"{limits!r} must be a Limits; give Limits(...)")
    return limits


def _is_lenient(ambiguous: str) -> bool:
    if ambiguous not in {"strict", "lenient"}:
        raise ConfigurationError(setting="ambiguous", reason=f'{ambiguous!r} must be "strict" or "lenient"')
    return ambiguous == "lenient"


def _checked_uploader(uploader: Any) -> Uploader | None:
    if uploader is None:
        return None
    if not callable(uploader):
        reason = f"{uploader!r} must be an async function of (bytes, name, content type) that returns a URL"
        raise ConfigurationError(setting="uploader", reason=reason)
    return cast("Uploader", uploader)


def _checked_seconds(setting: str, value: float | None, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(setting=setting, reason=f"{value!r} must be a number of seconds above 0")
    return float(value)
