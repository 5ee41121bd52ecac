"""Registry of gateways by name: six built in, others registered as entry points. Sends nothing.

A record is loaded when it is first used: it is in the module of its name, in capitals.

A package registers a `Provider` under the entry-point group `pika_async.providers`; the entry's name is the
provider's name. The names and titles of the built-in ones cannot be replaced.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal

from pika_async.errors import ConfigurationError, shorten
from pika_async.models.spelling import did_you_mean
from pika_async.providers._capabilities import Capability
from pika_async.providers._envelope import ENVELOPE
from pika_async.providers._provider import Dialect, Provider
from pika_async.providers._videos import VIDEOS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pika_async.providers.cometapi import COMETAPI
    from pika_async.providers.fal import FAL
    from pika_async.providers.gptge import GPTGE
    from pika_async.providers.native import NATIVE
    from pika_async.providers.pika import PIKA
    from pika_async.providers.yescale import YESCALE

    PROVIDERS: dict[str, Provider]

__all__ = [
    "COMETAPI",
    "ENVELOPE",
    "FAL",
    "GPTGE",
    "NATIVE",
    "PIKA",
    "PROVIDERS",
    "TITLES",
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
#: The title of each built-in provider, by its name.
TITLES: Final = {
    "cometapi": "CometAPI", "yescale": "YEScale", "gptge": "gpt.ge", "native": "native Pika", "pika": "Pika",
    "fal": "fal",
}  # fmt: skip
#: The built-in records that are loaded. `PROVIDERS` is the same, with all of them.
_loaded: dict[str, Provider] = {}


def __getattr__(name: str) -> object:
    """Load a built-in record when it is first used, or all of them; keep it for the next use."""
    if name == "PROVIDERS":
        records = {each: _built_in(each) for each in TITLES}
        _loaded.clear()
        _loaded.update(records)  # in the order of the titles
        value: object = _loaded
    elif name.isupper() and name.lower() in TITLES:
        value = _built_in(name.lower())
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _built_in(name: str) -> Provider:
    if name not in _loaded:
        _loaded[name] = getattr(import_module(f"{__name__}.{name}"), name.upper())
    return _loaded[name]


def provider_names() -> list[str]:
    """Return the names that `find_provider` accepts, the built-in ones first."""
    return [*TITLES, *sorted(set(_registered()))]


def find_provider(name: ProviderName | str) -> Provider:
    """Return the provider with that name or title.

    :param name: a name or a title (`"gptge"`, `"gpt.ge"`), in any letter case and with blanks around it.
    :raises ConfigurationError: if there is no such provider, or if the package that registered it does not load or
        does not hold a `Provider`.
    """
    if not isinstance(name, str):
        raise _refused(f"{shorten(name)} must be a name or a Provider; choose one of {', '.join(provider_names())}")
    wanted = name.strip().casefold()
    for built_in, title in TITLES.items():
        if wanted in {built_in, title.casefold()}:
            return _built_in(built_in)
    for registered, entry in _registered().items():
        if wanted == registered.casefold():
            return _load(registered, entry)
    names = provider_names()
    raise _refused(f"{shorten(name)} must be one of {', '.join(names)}{did_you_mean(name, names)}")


def _registered() -> dict[str, EntryPoint]:
    """Return the entry points of other packages by name; names and titles of the built-in providers are left out."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - most clients have a built-in provider

    taken = {text.casefold() for texts in TITLES.items() for text in texts}
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
