"""What a client is told, checked before anything opens: the key, the addresses, the times. Keeps nothing."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pika_async._transport import origin_of
from pika_async.errors import ConfigurationError
from pika_async.providers import Provider
from pika_async.wire import Credential

__all__ = ["NO_CALLBACK", "address_of", "callback_of", "read_credential", "seconds"]

#: What CometAPI, which lists `callback_url` as required, is told when nobody listens. The name is reserved (RFC 2606)
#: and resolves nowhere, so that no stranger is told of a video; the example of its page is a stranger's address.
NO_CALLBACK: Final = "https://callback.invalid/"


def read_credential(
    provider: Provider, api_key: str | None = None, api_key_file: str | os.PathLike[str] | None = None
) -> Credential:
    """The key from the argument, else from the file, else from the provider's environment variable.

    :raises ConfigurationError: if there is none, or it holds what no header may hold; the key itself is not shown.
    """
    setting, key = "api_key", api_key
    if key is None and api_key_file is not None:
        setting = "api_key_file"
        try:
            key = Path(api_key_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = f"{os.fspath(api_key_file)} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}"
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


def address_of(provider: Provider, base_url: str | None) -> str:
    url = base_url if base_url is not None else provider.base_url
    if url is None:
        raise ConfigurationError(
            setting="base_url", reason=f"{provider.title} has no address of its own; give the host that serves it"
        )
    origin_of(url)
    return url.rstrip("/")


def callback_of(callbacks: str | None) -> str:
    if callbacks is None:
        return NO_CALLBACK
    if not isinstance(callbacks, str) or urlsplit(callbacks).scheme not in {"http", "https"}:
        raise ConfigurationError(setting="callbacks", reason=f"{callbacks!r} is no http or https address")
    return callbacks


def seconds(setting: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(setting=setting, reason=f"{value!r} is no number of seconds above 0")
    return float(value)
