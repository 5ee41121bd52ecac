"""Providers whose key is set in the environment. Shows the names of variables, never a key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pika_async.cli.exits import UsageError
from pika_async.errors import ConfigurationError
from pika_async.providers import Provider, find_provider, provider_names

__all__ = ["has_key", "loadable_providers", "only_provider", "providers_to_check", "providers_with_key"]


class ProviderChoice(Protocol):
    """The options that belong to one provider alone."""

    @property
    def api_key_file(self) -> Path | None: ...
    @property
    def base_url(self) -> str | None: ...


def has_key(provider: Provider, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the variable of a provider's key is set to more than blanks."""
    return bool(environment.get(provider.api_key_env, "").strip())


def loadable_providers() -> tuple[list[Provider], list[ConfigurationError]]:
    """Return every provider that loads, and an error for each one of another package that does not."""
    providers, errors = [], []
    for name in provider_names():
        try:
            providers.append(find_provider(name))
        except ConfigurationError as error:
            errors.append(error)
    return providers, errors


def providers_with_key() -> list[Provider]:
    """Return the providers whose key is set."""
    return [provider for provider in loadable_providers()[0] if has_key(provider)]


def only_provider(*, has_key_file: bool = False) -> str:
    """Return the name of the only provider whose key is set.

    :param has_key_file: whether the key comes from a file instead, which does not say whose it is.
    :raises UsageError: names the providers whose keys are set if there are several, or the variables if none is.
    """
    found = providers_with_key()
    if has_key_file:
        raise UsageError(
            "--provider: must be given with --api-key-file, because a file does not say whose key it holds"
        )
    if len(found) == 1:
        return found[0].name
    if found:
        names = ", ".join(f"{provider.name} ({provider.api_key_env})" for provider in found)
        raise UsageError(f"--provider: must be given, because several keys are set: {names}")
    raise UsageError(_no_key_text())


def providers_to_check(account: ProviderChoice) -> list[str]:
    """Return the names of the providers whose key is set, for a command that can take several.

    :raises UsageError: if no key is set, or an option is given that belongs to one provider alone.
    """
    names = [provider.name for provider in providers_with_key()]
    if account.api_key_file is not None or not names:
        return [only_provider(has_key_file=account.api_key_file is not None)]
    if account.base_url is not None and len(names) > 1:
        raise UsageError(f"--base-url: belongs to one provider; give --provider, one of {', '.join(names)}")
    return names


def _no_key_text() -> str:
    """Return the way out where no key is set."""
    variables = ", ".join(f"{provider.api_key_env} ({provider.name})" for provider in loadable_providers()[0])
    return f"--provider: no key is set; set the variable of one, as in export COMETAPI_API_KEY=...: {variables}"
