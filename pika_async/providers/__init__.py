"""The gateways by name: the four that come along, and those that other packages register as entry points.

A package registers a `Provider` under the entry-point group `pika_async.providers`; the entry's name is the
provider's name. A name that comes along cannot be taken over.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from pika_async.errors import ConfigurationError
from pika_async.providers._envelope import ENVELOPE
from pika_async.providers._provider import Capability, Dialect, Provider
from pika_async.providers._videos import VIDEOS
from pika_async.providers.cometapi import COMETAPI
from pika_async.providers.gptge import GPTGE
from pika_async.providers.native import NATIVE
from pika_async.providers.yescale import YESCALE

__all__ = [
    "COMETAPI",
    "ENVELOPE",
    "GPTGE",
    "NATIVE",
    "PROVIDERS",
    "VIDEOS",
    "YESCALE",
    "Capability",
    "Dialect",
    "Provider",
    "find_provider",
    "provider_names",
]

ENTRY_POINTS: Final = "pika_async.providers"
PROVIDERS: Final = {provider.name: provider for provider in (COMETAPI, YESCALE, GPTGE, NATIVE)}


def provider_names() -> list[str]:
    """Every name that `find_provider` knows, the four first."""
    return [*PROVIDERS, *sorted({entry.name for entry in entry_points(group=ENTRY_POINTS)} - set(PROVIDERS))]


def find_provider(name: str) -> Provider:
    """The provider of that name.

    :raises ConfigurationError: if there is none, or the package that registered it gives no `Provider`.
    """
    if not isinstance(name, str):
        raise ConfigurationError(setting="provider", reason=f"{name!r} is no name and no Provider")
    if name in PROVIDERS:
        return PROVIDERS[name]
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        try:
            found = entry.load()
        except Exception as error:
            raise ConfigurationError(
                setting="provider", reason=f"{name!r} is registered by {entry.value}, which fails to load: {error!r}"
            ) from error
        if not isinstance(found, Provider):
            raise ConfigurationError(setting="provider", reason=f"{entry.value} is no pika_async Provider")
        return found
    raise ConfigurationError(
        setting="provider", reason=f"{name!r} is not known; choose one of {', '.join(provider_names())}"
    )
