"""The configuration of a client: its arguments, validated. Opens nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, Self, cast

import aiohttp
import attrs

from pika_async._http.addresses import ALLOWABLE_RESULTS
from pika_async._http.proxies import check_environment_proxies, proxy_url
from pika_async._http.transport import AiohttpTransport, Transport, origin_of
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Journal
from pika_async._planning.limits import Limits
from pika_async._planning.money import Budget, checked_price
from pika_async.callbacks import CallbackReceiver
from pika_async.errors import ConfigurationError, shorten
from pika_async.models.media import Uploader
from pika_async.polling.adaptive import AdaptivePolling
from pika_async.polling.policy import PollingPolicy
from pika_async.providers import Provider, find_provider
from pika_async.providers._wire import Credential

__all__ = ["ClientConfig", "drain_seconds", "read_credential"]

#: Default time from acceptance to settling, in seconds; the documented example took 232 s.
DEFAULT_DEADLINE_S: Final = 1800.0
#: Default time for which the address of an uploaded file is used again, in seconds.
DEFAULT_UPLOAD_LIFETIME_S: Final = 86_400.0
#: Upper bound of a drain, in seconds: the deadlines of the jobs end it long before.
MAX_DRAIN_S: Final = 1e9


@attrs.frozen(kw_only=True)
class ClientConfig:
    """The validated arguments of a client. A configuration outlives every event loop in which the client is opened."""

    provider: Provider
    base_url: str
    limits: Limits
    #: Seconds from acceptance to settling.
    deadline: float
    policy: PollingPolicy
    callbacks: CallbackReceiver | None
    #: Kinds of results to fetch that are refused otherwise.
    allow_results: frozenset[str]
    proxy: str | None
    transport: Transport
    journal: Journal
    #: Distinguishes one API key from another.
    account_digest: str
    #: Whether a bare 503 counts as a refusal.
    lenient: bool
    #: Uploads local files that do not fit into a request; None if there is no uploader.
    uploader: Uploader | None
    #: Seconds for which the address of an uploaded file is used again.
    upload_lifetime: float
    #: The price of one charge, in a unit of the user's; None where unknown.
    price: float | None
    #: Money for all charges in the journal; None: no limit.
    budget: Budget | None

    @classmethod
    def create(
        cls,
        provider: str | Provider,
        *,
        api_key: str | None,
        api_key_file: str | os.PathLike[str] | None,
        base_url: str | None,
        journal: str | os.PathLike[str] | Journal | None,
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
        price: float | None,
        budget: float | None,
    ) -> Self:
        """Validate the arguments of `PikaClient`, which documents them.

        :raises ConfigurationError: names the argument that cannot work and the way out.
        """
        provider = provider if isinstance(provider, Provider) else find_provider(provider)
        url = _resolve_base_url(provider, base_url)
        if proxy is not None:
            proxy = proxy_url(proxy)
        elif transport is None:
            check_environment_proxies(url)
        credential = Credential("") if transport else read_credential(provider, api_key, api_key_file)
        limits = _checked_limits(limits)
        return cls(
            provider=provider,
            base_url=url,
            limits=limits,
            deadline=_checked_seconds("deadline", deadline, DEFAULT_DEADLINE_S),
            policy=_checked_policy(polling),
            callbacks=_checked_callbacks(callbacks, provider),
            allow_results=_checked_allowances(allow_results),
            proxy=proxy,
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
            journal=_create_journal(journal, limits),
            account_digest=credential.account(),
            lenient=_is_lenient(ambiguous),
            uploader=_checked_uploader(uploader),
            upload_lifetime=_checked_seconds("upload_lifetime", upload_lifetime, DEFAULT_UPLOAD_LIFETIME_S),
            price=checked_price(price),
            budget=Budget.create(budget, price),
        )

    @property
    def concurrency_key(self) -> str:
        """The journal setting that holds the learned concurrency limit of this account."""
        return f"slots {self.provider.name} {self.base_url} {self.account_digest}"


def read_credential(
    provider: Provider, api_key: str | None = None, api_key_file: str | os.PathLike[str] | None = None
) -> Credential:
    """Return the key from the argument, else from the file, else from the provider's environment variable.

    :param provider: its `api_key_env` names the environment variable.
    :param api_key: the key itself; default: read from `api_key_file`.
    :param api_key_file: a text file that holds the key alone; default: read from the environment.
    :raises ConfigurationError: if there is no key, or it holds what a header cannot hold. The key is not shown.
    """
    setting, key = "api_key", api_key
    if key is None and api_key_file is not None:
        setting = "api_key_file"
        try:
            key = Path(api_key_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = f"{os.fspath(api_key_file)} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}"
            raise ConfigurationError(setting=setting, reason=reason) from None
    if key is None:
        setting, key = provider.api_key_env, os.environ.get(provider.api_key_env, "")
        if not key.strip():
            raise ConfigurationError(
                setting="api_key", reason=f"no key for {provider.title}; set {setting}, or give api_key or api_key_file"
            )
    if not isinstance(key, str) or not key.strip():
        raise ConfigurationError(setting=setting, reason="is empty; give the provider's key")
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            setting=setting, reason="holds white space, control or non-ASCII characters; copy it anew"
        )
    return Credential(key)


def drain_seconds(value: bool | float) -> float:
    """Return how long a drain may take: 0 for False, `MAX_DRAIN_S` for True.

    :raises ConfigurationError: unless `value` is a bool or a number of seconds >= 0.
    """
    if isinstance(value, bool):
        return MAX_DRAIN_S if value else 0.0
    if not isinstance(value, int | float) or not value >= 0:
        raise ConfigurationError(setting="drain", reason=f"{value!r} must be True, False or a number of seconds >= 0")
    return float(min(value, MAX_DRAIN_S))


def _resolve_base_url(provider: Provider, base_url: str | None) -> str:
    """Return `base_url`, else the provider's own, without a slash at its end."""
    url = base_url if base_url is not None else provider.base_url
    if url is None:
        raise ConfigurationError(
            setting="base_url", reason=f"{provider.title} has no address of its own; give the host that serves it"
        )
    origin_of(url)
    return url.rstrip("/")


def _checked_allowances(allow_results: Collection[str]) -> frozenset[str]:
    words = ", ".join(f'"{kind}"' for kind in ALLOWABLE_RESULTS)
    if isinstance(allow_results, str) or not isinstance(allow_results, Collection):
        raise ConfigurationError(setting="allow_results", reason=f"must be a list of {words}, not {allow_results!r}")
    if unknown := [kind for kind in allow_results if kind not in ALLOWABLE_RESULTS]:
        raise ConfigurationError(setting="allow_results", reason=f"{unknown[0]!r} must be one of {words}")
    return frozenset(allow_results)


def _checked_callbacks(callbacks: object, provider: Provider) -> CallbackReceiver | None:
    if callbacks is None:
        return None
    if not isinstance(callbacks, CallbackReceiver):
        reason = f"{shorten(callbacks)} must be a CallbackReceiver; give CallbackReceiver(public_url=...)"
        raise ConfigurationError(setting="callbacks", reason=reason)
    if not provider.takes_callback:
        reason = f"{provider.title} sends no callbacks, its feed is polled; leave callbacks out"
        raise ConfigurationError(setting="callbacks", reason=reason)
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


def _create_journal(journal: str | os.PathLike[str] | Journal | None, limits: Limits) -> Journal:
    """Return `journal` itself if it is one, a journal in the file of that path, or one in memory for None."""
    if journal is None:
        return MemoryJournal(settled=limits.settled)
    if isinstance(journal, str | os.PathLike):
        if journal != "":
            from pika_async._journal.sqlite import SqliteJournal  # noqa: PLC0415 - not for a client without a file

            return SqliteJournal(journal)
    elif hasattr(journal, "record_intent"):
        return journal
    raise ConfigurationError(setting="journal", reason=f"{journal!r} must be a path; give the path of a file")


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
