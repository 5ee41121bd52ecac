"""The options that several commands share, as records that the parser fills; `client` makes a client of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
from cyclopts import Parameter

from pika_async.client import PikaClient
from pika_async.limits import Limits
from pika_async.polling import AdaptivePolling

__all__ = ["Account", "Common", "Json", "Level", "open_client"]

Level = Literal["debug", "info", "warning", "error"]
Json = Annotated[bool, Parameter(name="--json", negative=())]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Common:
    """What every command takes."""

    log_level: Level = "warning"
    "What is logged to standard error."


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Account:
    """Which gateway, at which address, with whose key. No option takes the key itself: others see a command line."""

    provider: str
    "cometapi, yescale, gptge, native, or a registered one (see: pika-async providers)."
    base_url: str | None = None
    "The gateway's address, instead of the provider's own."
    api_key_file: Path | None = None
    "A file that holds the key; otherwise the provider's environment variable."
    proxy: str | None = None
    "A proxy's address; otherwise the environment's."


def open_client(
    account: Account, *, limits: Limits | None = None, deadline: float | None = None, expected: float | None = None,
    **more: Any,
) -> PikaClient:  # fmt: skip
    """The client of `account`, not yet open.

    :raises ConfigurationError: names the option that cannot work.
    """
    return PikaClient(
        account.provider,
        base_url=account.base_url,
        api_key_file=account.api_key_file,
        proxy=account.proxy,
        limits=limits,
        deadline=deadline,
        polling=AdaptivePolling(expected_seconds=expected),
        **more,
    )
