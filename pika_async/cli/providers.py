"""`providers` and `effects`: the capabilities and effects in each provider's record. Sends nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from pika_async.cli.exits import UsageError
from pika_async.cli.provider_keys import has_key, loadable_providers
from pika_async.cli.terminal import Terminal, plain, table
from pika_async.errors import ConfigurationError
from pika_async.models.fields import EFFECTS
from pika_async.providers import Provider, find_provider

__all__ = ["show_effects", "show_providers"]

#: Providers side by side in one table, so that it fits 80 columns.
MAX_COLUMNS: Final = 4


def load_providers(terminal: Terminal) -> list[Provider]:
    """Return every provider that loads; print an error for one of another package that does not."""
    providers, errors = loadable_providers()
    for error in errors:
        terminal.error(error.message)
    return providers


def show_providers(terminal: Terminal, name: str | None = None, *, as_json: bool) -> None:
    """Print what each provider can do, or all about the one with that name.

    :raises ConfigurationError: if there is no such provider.
    """
    try:
        providers = load_providers(terminal) if name is None else [find_provider(name)]
    except ConfigurationError as error:
        raise UsageError(f"NAME: {error.reason}") from None
    if as_json:
        terminal.write(json.dumps([_record(provider) for provider in providers], indent=2) + "\n")
        return
    if name is not None:
        _show_one(terminal, providers[0])
        return
    fields = list(dict.fromkeys(field for provider in providers for field in provider.capabilities))
    for some in _columns(providers):
        shown = table("What each provider can do", "field", *(provider.name for provider in some))
        for field in fields:
            shown.add_row(plain(field, "bold"), *(_mark(_can(provider, field)) for provider in some))
        shown.add_row(plain("effects", "bold"), *(plain(len(provider.effects)) for provider in some))
        shown.add_row(plain("callbacks", "bold"), *(_mark(provider.takes_callback) for provider in some))
        shown.add_section()
        shown.add_row(plain("its key is set", "bold"), *(_mark(has_key(provider)) for provider in some))
        terminal.show(shown)
    terminal.show("\n".join(["keys come from the environment:", *map(_key_line, providers)]))
    terminal.show(f"more: pika-async providers {providers[0].name}, pika-async effects")


def show_effects(terminal: Terminal, name: str | None = None, *, as_json: bool) -> None:
    """Print the effects and who documents each, or those of the provider with that name.

    :raises ConfigurationError: if there is no such provider.
    """
    providers = load_providers(terminal) if name is None else [find_provider(name)]
    if as_json:
        terminal.write(json.dumps({provider.name: list(provider.effects) for provider in providers}) + "\n")
        return
    if name is not None:
        terminal.show("\n".join(providers[0].effects))
        return
    effects = list(dict.fromkeys([*EFFECTS, *(effect for provider in providers for effect in provider.effects)]))
    for some in _columns(providers):
        shown = table("Effects, and who documents each", "effect", *(provider.name for provider in some))
        for effect in effects:
            shown.add_row(plain(effect, "bold"), *(_mark(effect in provider.effects) for provider in some))
        terminal.show(shown)


def _columns(providers: Sequence[Provider]) -> Iterator[Sequence[Provider]]:
    return (providers[first : first + MAX_COLUMNS] for first in range(0, len(providers), MAX_COLUMNS))


def _can(provider: Provider, field: str) -> bool:
    capability = provider.capabilities.get(field)
    return capability is not None and capability.supported


def _mark(yes: bool) -> Any:
    return plain("yes", "green") if yes else plain("-", "dim")


def _key_line(provider: Provider) -> str:
    return f"  {provider.name}: {provider.api_key_env} ({'set' if has_key(provider) else 'not set'})"


def _show_one(terminal: Terminal, provider: Provider) -> None:
    facts = table(provider.title, "provider", provider.name)
    for label, value in (
        ("base URL", provider.base_url or "none; give --base-url"),
        ("key from", f"{provider.api_key_env} ({'set' if has_key(provider) else 'not set'})"),
        ("dialect", provider.dialect.name),
        ("models", ", ".join(provider.models)),
        ("callbacks", "yes" if provider.takes_callback else "no"),
        ("effects", ", ".join(provider.effects)),
    ):
        facts.add_row(plain(label, "bold"), plain(value))
    terminal.show(facts)
    shown = table("Fields", "field", "its own spelling", "limits")
    shown.columns[1].no_wrap = True
    for field, capability in provider.capabilities.items():
        wire = capability.wire if capability.wire is not None else "not supported"
        shown.add_row(plain(field, "bold"), plain(wire, "" if capability.supported else "dim"), plain(capability.note))
    terminal.show(shown)


def _record(provider: Provider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "title": provider.title,
        "dialect": provider.dialect.name,
        "base_url": provider.base_url,
        "api_key_env": provider.api_key_env,
        "key_is_set": has_key(provider),
        "documentation": provider.documentation,
        "effects": list(provider.effects),
        "models": list(provider.models),
        "inline_limit": provider.inline_limit,
        "takes_callback": provider.takes_callback,
        "capabilities": {
            field: {**attrs.asdict(capability), "supported": capability.supported}
            for field, capability in provider.capabilities.items()
        },
    }
