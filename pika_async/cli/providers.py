"""`providers` and `effects`: the capabilities and effects in each provider's record. Sends nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs
from rich.text import Text

from pika_async.cli.exits import UsageError
from pika_async.cli.provider_keys import has_key, loadable_providers
from pika_async.cli.terminal import Terminal, fits, plain, table
from pika_async.errors import ConfigurationError
from pika_async.models.fields import EFFECTS
from pika_async.providers import Provider, find_provider

__all__ = ["show_effects", "show_providers"]


#: The state of a wire that its adapter has from others.
UNTRIED: Final = "documented by others, not tried against the live service"


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
    fields = dict.fromkeys(field for provider in providers for field in provider.capabilities)
    facts: dict[str, Callable[[Provider], Text]] = {field: partial(_can, field) for field in fields}
    facts |= {
        "effects": lambda provider: plain(len(provider.effects)),
        "callbacks": lambda provider: _mark(provider.takes_callback),
        "cancels": lambda provider: _mark(provider.dialect.cancel is not None),
        "idempotency": lambda provider: _mark(provider.idempotency is not None),
        "own storage": lambda provider: _mark(provider.uploads is not None),
        "its key is set": lambda provider: _mark(has_key(provider)),
    }
    _show_matrix(terminal, "What each provider can do", "field", facts, providers)
    terminal.show("\n".join(["keys come from the environment:", *map(_key_line, providers)]))
    untried = [provider.name for provider in providers if not provider.verified]
    if untried:
        terminal.show(f"{', '.join(untried)}: {UNTRIED}")
    terminal.show(f"more: pika-async providers {providers[0].name}\nmore: pika-async effects")


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
    facts = {effect: partial(_documents, effect) for effect in effects}
    _show_matrix(terminal, "Effects, and who documents each", "effect", facts, providers)


def _show_matrix(
    terminal: Terminal,
    title: str,
    label: str,
    facts: Mapping[str, Callable[[Provider], Text]],
    providers: Sequence[Provider],
) -> None:
    """Print a row for each of `facts` with a column for each provider, in as many tables as the width demands."""
    rest = list(providers)
    while rest:
        for count in range(len(rest), 0, -1):
            shown = table(title, label, *(provider.name for provider in rest[:count]))
            for name, fact in facts.items():
                shown.add_row(plain(name, "bold"), *(fact(provider) for provider in rest[:count]))
            if fits(shown, terminal.out.width):
                break
        terminal.show(shown)
        del rest[:count]


def _can(field: str, provider: Provider) -> Text:
    capability = provider.capabilities.get(field)
    return _mark(capability is not None and capability.supported)


def _documents(effect: str, provider: Provider) -> Text:
    return _mark(effect in provider.effects)


def _mark(yes: bool) -> Text:
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
        ("wire", "documented by the gateway itself" if provider.verified else UNTRIED),
        ("callbacks", "yes" if provider.takes_callback else "no"),
        ("cancels", "yes" if provider.dialect.cancel is not None else "no"),
        ("idempotency", "no" if provider.idempotency is None else f"keys, for {provider.idempotency.window:,g} s"),
        ("own storage", "no" if provider.uploads is None else _limits(provider.uploads.max_bytes)),
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


def _limits(max_bytes: Mapping[str, int]) -> str:
    """Return the largest files of a storage in words."""
    return ", ".join(f"{kind} up to {size // 1_000_000} MB" for kind, size in max_bytes.items())


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
        "can_cancel": provider.dialect.cancel is not None,
        "idempotency": None if provider.idempotency is None else attrs.asdict(provider.idempotency),
        "max_upload_bytes": None if provider.uploads is None else dict(provider.uploads.max_bytes),
        "verified": provider.verified,
        "capabilities": {
            field: {**attrs.asdict(capability), "supported": capability.supported}
            for field, capability in provider.capabilities.items()
        },
    }
