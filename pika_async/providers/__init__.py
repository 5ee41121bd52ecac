"""Registry of gateways by name: six built in, others registered as entry points. Sends nothing.

A package registers a `Provider` under the entry-point group `pika_async.providers`; the entry's name is the
provider's name. The names and titles of the built-in ones cannot be replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pika_async.errors import ConfigurationError, shorten
from pika_async.models.spelling import did_you_mean
from pika_async.providers._capabilities import Capability
from pika_async.providers._envelope import ENVELOPE
from pika_async.providers._provider import Dialect, Provider
from pika_async.providers._videos import VIDEOS
from pika_async.providers.cometapi import COMETAPI
from pika_async.providers.fal import FAL
from pika_async.providers.gptge import GPTGE
from pika_async.providers.native import NATIVE
from pika_async.providers.pika import PIKA
from pika_async.providers.yescale import YESCALE

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "COMETAPI",
    "ENVELOPE",
    "FAL",
    "GPTGE",
    "NATIVE",
    "PIKA",
    "PROVIDERS",
    "VIDEOS",
    "YESCALE",
    "Capability",
    "Dialect",
    "Provider",
    "ProviderName",
    "find_provider",
    "provider_names",
]

#: The names of the built-in providers, for editors and type checkers; `find_provider` takes others too.
ProviderName = Literal["cometapi", "yescale", "gptge", "native", "pika", "fal"]

ENTRY_POINT_GROUP: Final = "pika_async.providers"
PROVIDERS: Final = {provider.name: provider for provider in (COMETAPI, YESCALE, GPTGE, NATIVE, PIKA, FAL)}


def provider_names() -> list[str]:
    """Return the names that `find_provider` accepts, the built-in ones first."""
    return [*PROVIDERS, *sorted(set(_registered()))]


def find_provider(name: ProviderName | str) -> Provider:
    """Return the provider with that name or title.

    :param name: a name or a title (`"gptge"`, `"gpt.ge"`), in any letter case and with blanks around it.
    :raises ConfigurationError: if there is no such provider, or if the package that registered it does not load or
        does not hold a `Provider`.
    """
    if not isinstance(name, str):
        raise _refused(f"{shorten(name)} must be a name or a Provider; choose one of {', '.join(provider_names())}")
    wanted = name.strip().casefold()
    for provider in PROVIDERS.values():
        if wanted in {provider.name, provider.title.casefold()}:
            return provider
    for registered, entry in _registered().items():
        if wanted == registered.casefold():
            return _load(registered, entry)
    names = provider_names()
    raise _refused(f"{shorten(name)} must be one of {', '.join(names)}{did_you_mean(name, names)}")


def _registered() -> dict[str, EntryPoint]:
    """Return the entry points of other packages by name; names and titles of the built-in providers are left out."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - most clients have a built-in provider

    taken = {text.casefold() for provider in PROVIDERS.values() for text in (provider.name, provider.title)}
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name.casefold() not in taken}


def _load(name: str, entry: EntryPoint) -> Provider:
    try:
        found = entry.load()
    except Exception as error:
        raise _refused(
            f"{shorten(name)} is registered by {entry.value}, which fails to load: {error!r}; "
            "repair or uninstall that package"
        ) from error
    if not isinstance(found, Provider):
        raise _refused(f"{entry.value} must be a pika_async Provider; repair or uninstall its package")
    return found


def _refused(reason: str) -> ConfigurationError:
    return ConfigurationError(setting="provider", reason=reason)
