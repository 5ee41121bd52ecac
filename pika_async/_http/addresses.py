"""SSRF guard: which addresses a download may connect to. Resolves no name and opens no socket.

The address of a video comes from a gateway. An address inside the user's network, or with a user name and password,
would let a gateway reach services there, such as the metadata service of a cloud host.
"""

from __future__ import annotations

import re
from typing import Final

from yarl import URL

from pika_async.models.addresses import NUMERIC_HOST_PATTERN, classify_host, classify_ip, is_ip
from pika_async.models.urls import strip_userinfo

__all__ = [
    "ALLOWABLE_RESULTS",
    "URL_PATTERN",
    "allowable_kind",
    "forbidden_reason",
    "forbidden_url_reason",
    "is_loopback",
    "redact_text",
    "redact_url",
]

#: An address inside a text: two slashes, a scheme and one slash, or `USER:PASSWORD@`.
URL_PATTERN: Final = re.compile(
    r"""(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]{2}[^\s"'<>]+"""
    r"""|[A-Za-z][A-Za-z0-9+.-]*:[/\\][^\s"'<>]+"""
    r"""|[^\s"'<>/\\@:]+:[^\s"'<>@]*@[^\s"'<>]+"""
)
#: Kinds of results that are refused unless the user allows them: over http, and at the addresses of a tunnel.
ALLOWABLE_RESULTS: Final = ("http", "tunnel")
#: Characters of an address that an error text shows.
MAX_SHOWN_CHARS: Final = 200


def is_loopback(url: URL | str) -> bool:
    """Whether the host of `url` is this machine: `localhost` or a loopback IP address."""
    host = URL(url).host or ""
    try:
        return host == "localhost" or classify_ip(host) == "loopback"
    except ValueError:  # a host name such as `127.0.0.1.example.com` may resolve to any address
        return False


def _way_out(kind: str) -> str:
    return f'allow them with allow_results=["{kind}"] or --allow-results {kind}'


def allowable_kind(reason: str) -> str | None:
    """Return the kind of results whose refusal `reason` is, of `ALLOWABLE_RESULTS`; None if they cannot be allowed."""
    return next((kind for kind in ALLOWABLE_RESULTS if _way_out(kind) in reason), None)


def forbidden_reason(address: str, *, loopback: bool, tunnel: bool = False) -> str | None:
    """Return why no connection to the IP address may be made; None if it may.

    :param loopback: whether 127.0.0.0/8 and ::1 are allowed besides public addresses.
    :param tunnel: whether the addresses to which TUN proxies resolve names are allowed too (default: no).
    """
    try:
        kind = classify_ip(address)
    except ValueError:
        return "must be an IP address"
    if kind == "public" or (kind == "loopback" and loopback) or (kind == "tunnel" and tunnel):
        return None
    if kind == "tunnel":
        return f"is the address of a tunnel: if a TUN proxy (Clash, sing-box) runs here, {_way_out('tunnel')}"
    return f"is a {kind} address; only public ones are dialled"


def forbidden_url_reason(
    scheme: str, host: str | None, *, userinfo: bool, loopback: bool, tunnel: bool = False, http: bool = False
) -> str | None:
    """Return why a URL with these parts may not be requested; None if it may.

    Only https is allowed by default: over http anyone on the way could replace the file. A user name and a password are
    refused because a gateway has no reason to send a secret along. A host name is checked again once it is resolved, at
    the moment of the connection, since its owner decides where it leads.

    :param userinfo: whether the URL holds a user name or a password.
    :param loopback: whether `localhost` and loopback IP addresses are allowed too, these also over http.
    :param tunnel: see `forbidden_reason`.
    :param http: whether http is allowed to every host (default: no).
    """
    if not host:
        return "the address has no host"
    if userinfo:
        return "the address holds a user name or a password"
    if scheme not in {"http", "https"}:
        return f"the address begins with {scheme}://, not with https://" if scheme else "the address has no https://"
    local = classify_host(host) == "loopback"
    if local and not loopback:
        return f"{host} is a loopback address; only public ones are dialled"
    if is_ip(host):
        reason = forbidden_reason(host, loopback=loopback, tunnel=tunnel)
        if reason is not None:
            return f"{host} {reason}"
    elif NUMERIC_HOST_PATTERN.fullmatch(host):
        return f"{host} must be a host name or a plain IP address"
    if scheme == "https" or http or local:
        return None
    return f"the address begins with http://, not with https://, so its file could be replaced: {_way_out('http')}"


def redact_url(url: str) -> str:
    """Return `url` for an error text: without query and user information, since a signed address is a secret."""
    bare = re.split(r"[?#]", strip_userinfo(url), maxsplit=1)[0]
    return bare if len(bare) <= MAX_SHOWN_CHARS else bare[:MAX_SHOWN_CHARS] + "…"


def redact_text(text: str) -> str:
    """Return `text` with each address in it redacted; see `redact_url`."""
    return URL_PATTERN.sub(lambda found: redact_url(found[0]), text)
