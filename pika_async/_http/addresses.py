"""SSRF guard: which addresses a download may connect to. Resolves no name and opens no socket.

The address of a video comes from a gateway. An address inside the user's network, or with a user name and password,
would let a gateway reach services there, such as the metadata service of a cloud host.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from yarl import URL

from pika_async.models.urls import strip_userinfo

__all__ = [
    "ALLOWABLE_RESULTS",
    "URL_PATTERN",
    "allowable_kind",
    "classify_ip",
    "forbidden_reason",
    "forbidden_url_reason",
    "is_loopback",
    "redact_text",
    "redact_url",
]

_V4 = ipaddress.IPv4Network
_V6 = ipaddress.IPv6Network

#: IPv4 networks outside the public internet, by the IANA special-purpose registry of 2024. Listed here because
#: `ipaddress.is_global` has changed between patch releases of one Python version.
SPECIAL_V4: Final = (
    (_V4("0.0.0.0/8"), "unspecified"),
    (_V4("10.0.0.0/8"), "private"),
    (_V4("100.64.0.0/10"), "carrier-grade NAT"),
    (_V4("127.0.0.0/8"), "loopback"),
    (_V4("169.254.0.0/16"), "link-local"),
    (_V4("172.16.0.0/12"), "private"),
    (_V4("192.0.0.0/24"), "reserved"),
    (_V4("192.0.2.0/24"), "reserved"),
    (_V4("192.88.99.0/24"), "reserved"),
    (_V4("192.168.0.0/16"), "private"),
    (_V4("198.18.0.0/15"), "tunnel"),  # for benchmarks, by the registry; TUN proxies resolve every name to it
    (_V4("198.51.100.0/24"), "reserved"),
    (_V4("203.0.113.0/24"), "reserved"),
    (_V4("224.0.0.0/4"), "multicast"),
    (_V4("240.0.0.0/4"), "reserved"),
)
#: The same for IPv6. An address in neither this list nor `GLOBAL_V6` is reserved.
SPECIAL_V6: Final = (
    (_V6("::/128"), "unspecified"),
    (_V6("::1/128"), "loopback"),
    (_V6("fc00::/18"), "tunnel"),  # the same for IPv6, by sing-box; the registry leaves all of fc00::/8 unused
    (_V6("fc00::/7"), "private"),
    (_V6("fe80::/10"), "link-local"),
    (_V6("fec0::/10"), "private"),
    (_V6("ff00::/8"), "multicast"),
    (_V6("2001::/23"), "reserved"),  # IETF protocols, among them Teredo, which embeds an IPv4 address
    (_V6("2001:db8::/32"), "reserved"),
    (_V6("2002::/16"), "reserved"),  # 6to4, deprecated by RFC 7526, which embeds an IPv4 address too
    (_V6("3fff::/20"), "reserved"),
)
#: The IPv6 network of global unicast addresses.
GLOBAL_V6: Final = _V6("2000::/3")
#: IPv6 networks whose last 32 bits are an IPv4 address.
IPV4_MAPPED: Final = _V6("::ffff:0:0/96")
NAT64: Final = _V6("64:ff9b::/96")

#: A host whose last label is a number: a resolver reads `127.1`, `0x7f000001` and `2130706433` as loopback addresses.
NUMERIC_HOST_PATTERN: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE)
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


def classify_ip(address: str) -> str:
    """Return `"public"`, `"loopback"`, or another word for why an IP address is not on the public internet.

    An IPv4 address embedded in an IPv6 one (mapped, NAT64) is classified as itself, since that is where the connection
    goes. A zone such as `%eth0` is allowed and ignored.

    :raises ValueError: if `address` is not an IP address.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return next((word for network, word in SPECIAL_V4 if ip in network), "public")
    plain = ipaddress.IPv6Address(int(ip))
    if plain in IPV4_MAPPED or plain in NAT64:
        inner = classify_ip(str(ipaddress.IPv4Address(int(plain) & 0xFFFFFFFF)))
        return inner if plain in IPV4_MAPPED or inner == "public" else f"embedded {inner}"
    special = next((word for network, word in SPECIAL_V6 if plain in network), None)
    return special or ("public" if plain in GLOBAL_V6 else "reserved")


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
    local = _is_local(host)
    if local and not loopback:
        return f"{host} is a loopback address; only public ones are dialled"
    if _is_ip(host):
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


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost") or (_is_ip(host) and classify_ip(host) == "loopback")
