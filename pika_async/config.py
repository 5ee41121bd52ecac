"""What a client is told, checked before anything opens: the key, the addresses, the times. Keeps nothing."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

from pika_async._http.transport import origin_of
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Journal
from pika_async._journal.sqlite import SqliteJournal
from pika_async._planning.limits import Limits
from pika_async.callbacks import CallbackReceiver
from pika_async.errors import ConfigurationError, shorten
from pika_async.polling import AdaptivePolling, PollingPolicy
from pika_async.providers import Provider
from pika_async.providers._wire import Credential

__all__ = [
    "address_of",
    "deadline_of",
    "is_lenient",
    "journal_of",
    "limits_of",
    "policy_of",
    "read_credential",
    "receiver_of",
]

#: Seconds from acceptance to settling; the documented example took 232 s.
DEADLINE: Final = 1800.0
#: Seconds.
AS_LONG_AS_IT_TAKES: Final = 1e9


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
    """The address that was given, or the provider's own, without a slash at its end.

    :raises ConfigurationError: if there is none, or it is no http or https address.
    """
    url = base_url if base_url is not None else provider.base_url
    if url is None:
        raise ConfigurationError(
            setting="base_url", reason=f"{provider.title} has no address of its own; give the host that serves it"
        )
    origin_of(url)
    return url.rstrip("/")


def receiver_of(callbacks: object, provider: Provider) -> CallbackReceiver | None:
    """The receiver that was given.

    :raises ConfigurationError: if it is none, or the provider tells nobody.
    """
    if callbacks is None:
        return None
    if not isinstance(callbacks, CallbackReceiver):
        reason = f"{shorten(callbacks)} is no receiver; give CallbackReceiver(public_url=...)"
        raise ConfigurationError(setting="callbacks", reason=reason)
    if not provider.takes_callback:
        reason = f"{provider.title} calls nobody back, its feed is asked; leave callbacks out"
        raise ConfigurationError(setting="callbacks", reason=reason)
    return callbacks


def policy_of(polling: object) -> PollingPolicy:
    """Return the given policy, or an `AdaptivePolling` by default.

    :raises ConfigurationError: unless it is an instance of `PollingPolicy`.
    """
    if polling is None:
        return AdaptivePolling()
    if not isinstance(polling, PollingPolicy):
        reason = f"must be an instance of PollingPolicy, not {polling!r}; give AdaptivePolling(...), or subclass it"
        raise ConfigurationError(setting="polling", reason=reason)
    return polling


def journal_of(journal: str | os.PathLike[str] | Journal | None) -> Journal:
    """A journal in the file that was given, or one in memory, or the one that was given.

    :raises ConfigurationError: if it is no path.
    """
    if journal is None:
        return MemoryJournal()
    if isinstance(journal, str | os.PathLike):
        if journal != "":
            return SqliteJournal(journal)
    elif hasattr(journal, "record_intent"):
        return journal
    raise ConfigurationError(setting="journal", reason=f"{journal!r} is no path; give the path of a file")


def limits_of(limits: Limits | None) -> Limits:
    """The limits that were given, or the usual ones.

    :raises ConfigurationError: if they are none.
    """
    if limits is None:
        return Limits()
    if not isinstance(limits, Limits):
        raise ConfigurationError(setting="limits", reason=f"{limits!r} are none; give Limits(...)")
    return limits


def drain_of(value: bool | float) -> float:
    """Seconds that a closing waits for what was accepted, 0 to 1e9: True is as long as it takes.

    :raises ConfigurationError: unless it is True, False, or a number from 0.
    """
    if isinstance(value, bool):
        return AS_LONG_AS_IT_TAKES if value else 0.0
    if not isinstance(value, int | float) or not value >= 0:
        raise ConfigurationError(setting="drain", reason=f"{value!r} is neither True nor a number of seconds from 0")
    return float(min(value, AS_LONG_AS_IT_TAKES))


def is_lenient(ambiguous: str) -> bool:
    """Whether a bare 503 counts as a refusal.

    :raises ConfigurationError: if it is neither "strict" nor "lenient".
    """
    if ambiguous not in {"strict", "lenient"}:
        raise ConfigurationError(setting="ambiguous", reason=f'{ambiguous!r} is neither "strict" nor "lenient"')
    return ambiguous == "lenient"


def deadline_of(value: float | None) -> float:
    """Seconds from acceptance to settling.

    :raises ConfigurationError: unless it is a finite number above 0.
    """
    if value is None:
        return DEADLINE
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(setting="deadline", reason=f"{value!r} is no number of seconds above 0")
    return float(value)
