"""The gateways that speak the envelope or the videos dialect: their hosts run the same software and share its habits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pika_async.providers import ENVELOPE, PROVIDERS, VIDEOS, Provider
from pika_async.providers._abilities import BEARER

__all__ = ["GATEWAYS", "credential_headers"]

GATEWAYS: Final[Mapping[str, Provider]] = {
    name: provider for name, provider in PROVIDERS.items() if provider.dialect in (ENVELOPE, VIDEOS)
}


def credential_headers(name: str, key: str) -> dict[str, str]:
    """Return the header with the key of a provider, by lower-case name; that of a bearer token for any other name."""
    authorization = PROVIDERS[name].authorization if name in PROVIDERS else BEARER
    return {authorization.header.lower(): authorization.value(key)}
