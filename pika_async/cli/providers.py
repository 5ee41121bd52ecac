"""`providers`: the capabilities in each provider's record. Sends nothing."""

from __future__ import annotations

import json
from typing import Any

import attrs

from pika_async.cli.terminal import Terminal, plain, table
from pika_async.errors import ConfigurationError
from pika_async.providers import Provider, find_provider, provider_names

__all__ = ["load_providers", "show_providers"]


def load_providers(terminal: Terminal) -> list[Provider]:
    """Return every provider that loads; print an error for one of another package that does not."""
    providers = []
    for name in provider_names():
        try:
            providers.append(find_provider(name))
        except ConfigurationError as error:
            terminal.error(error.message)
    return providers


def show_providers(terminal: Terminal, *, as_json: bool) -> None:
    """Print the table of capabilities, then why the missing ones are not supported."""
    providers = load_providers(terminal)
    if as_json:
        terminal.write(json.dumps([_record(provider) for provider in providers], indent=2) + "\n")
        return
    fields = list(dict.fromkeys(field for provider in providers for field in provider.capabilities))
    shown = table("What each provider supports (its own spelling, limits)", "field", *(p.name for p in providers))
    for label, values in _header_rows(providers):
        shown.add_row(plain(label, "bold"), *(plain(value) for value in values))
    shown.add_section()
    for field in fields:
        shown.add_row(plain(field, "bold"), *(plain(*_cell(provider, field)) for provider in providers))
    terminal.show(shown)
    reasons = [
        f"  {provider.name}: {field}: {capability.note}"
        for provider in providers
        for field, capability in provider.capabilities.items()
        if not capability.supported
    ]
    terminal.show("\n".join(["not supported, and refused before anything is sent:", *reasons]))


def _header_rows(providers: list[Provider]) -> list[tuple[str, list[str]]]:
    return [
        ("base URL", [provider.base_url or "give --base-url" for provider in providers]),
        ("key from", [provider.api_key_env for provider in providers]),
        ("dialect", [provider.dialect.name for provider in providers]),
        ("models", [", ".join(provider.models) for provider in providers]),
    ]


def _cell(provider: Provider, field: str) -> tuple[str, str]:
    capability = provider.capabilities.get(field)
    if capability is None or capability.wire is None:
        return "no", "dim"
    return capability.wire + (f"\n{capability.note}" if capability.note else ""), ""


def _record(provider: Provider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "title": provider.title,
        "dialect": provider.dialect.name,
        "base_url": provider.base_url,
        "api_key_env": provider.api_key_env,
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
