"""Which addresses a download may dial, and how an address is shown; resolves no name and opens no socket."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

__all__ = ["classify_ip", "forbidden_reason", "redact_url", "url_refusal"]

_V4 = ipaddress.IPv4Network
_V6 = ipaddress.IPv6Network

#: What is not the public internet, by the IANA special-purpose registry of 2024. Written out, because what
#: `ipaddress` calls global has changed between the releases of one Python version.
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
    (_V4("198.18.0.0/15"), "reserved"),
    (_V4("198.51.100.0/24"), "reserved"),
    (_V4("203.0.113.0/24"), "reserved"),
    (_V4("224.0.0.0/4"), "multicast"),
    (_V4("240.0.0.0/4"), "reserved"),
)
#: The same for IPv6. What is neither here nor in `GLOBAL_V6` is reserved.
SPECIAL_V6: Final = (
    (_V6("::/128"), "unspecified"),
    (_V6("::1/128"), "loopback"),
    (_V6("fc00::/7"), "private"),
    (_V6("fe80::/10"), "link-local"),
    (_V6("fec0::/10"), "private"),
    (_V6("ff00::/8"), "multicast"),
    (_V6("2001::/23"), "reserved"),  # IETF protocols; Teredo, which hides an IPv4 address, is among them
    (_V6("2001:db8::/32"), "reserved"),
    (_V6("2002::/16"), "reserved"),  # 6to4, withdrawn by RFC 7526; it hides an IPv4 address too
    (_V6("3fff::/20"), "reserved"),
)
GLOBAL_V6: Final = _V6("2000::/3")
#: Prefixes that hide an IPv4 address, and how many bits stand behind it.
MAPPED: Final = _V6("::ffff:0:0/96")
NAT64: Final = _V6("64:ff9b::/96")

#: A last label that a resolver reads as a number: `127.1`, `0x7f000001`, `2130706433` are all loopback to it.
NUMERIC_HOST: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE)
#: How many characters of an address a message shows.
SHOWN_LIMIT: Final = 200


def classify_ip(address: str) -> str:
    """`"public"`, `"loopback"`, or the word for why an IP address is not on the public internet.

    An IPv4 address inside an IPv6 one (mapped, NAT64) is judged by itself.

    :raises ValueError: if `address` is no IP address; a zone (`%eth0`) is one's own business and allowed.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return next((word for network, word in SPECIAL_V4 if ip in network), "public")
    plain = ipaddress.IPv6Address(int(ip))
    if plain in MAPPED or plain in NAT64:
        inner = classify_ip(str(ipaddress.IPv4Address(int(plain) & 0xFFFFFFFF)))
        return inner if plain in MAPPED or inner == "public" else f"embedded {inner}"
    special = next((word for network, word in SPECIAL_V6 if plain in network), None)
    return special or ("public" if plain in GLOBAL_V6 else "reserved")


def forbidden_reason(address: str, *, loopback: bool) -> str | None:
    """Why the IP `address` may not be dialled, or None. `loopback` allows 127.0.0.0/8 and ::1 besides public ones."""
    try:
        kind = classify_ip(address)
    except ValueError:
        return "is no IP address"
    if kind == "public" or (kind == "loopback" and loopback):
        return None
    return f"is a {kind} address; only public ones are dialled"


def url_refusal(scheme: str, host: str | None, *, userinfo: bool, loopback: bool) -> str | None:
    """Why an address of these parts may not be asked, or None; a host that is a name is judged again when dialled.

    https only; with `loopback` also http, to `localhost` or a loopback IP address and nowhere else.
    """
    if not host:
        return "the address has no host"
    if userinfo:
        return "the address holds a user name or a password"
    local = _is_local(host)
    if scheme != "https" and not (scheme == "http" and loopback and local):
        return f"the address begins with {scheme}://, not with https://" if scheme else "the address has no https://"
    if local and not loopback:
        return f"{host} is a loopback address; only public ones are dialled"
    if _is_ip(host):
        reason = forbidden_reason(host, loopback=loopback)
        return reason and f"{host} {reason}"
    return f"{host} is no plain IP address" if NUMERIC_HOST.fullmatch(host) else None


def redact_url(url: str) -> str:
    """`url` as a message may show it: no query and no user information, since signed addresses are secrets."""
    bare = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*:)?//[^/]*@", r"\1//", re.split(r"[?#]", url, maxsplit=1)[0])
    return bare if len(bare) <= SHOWN_LIMIT else bare[:SHOWN_LIMIT] + "…"


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost") or (_is_ip(host) and classify_ip(host) == "loopback")
