"""Classes of IP addresses and hosts: public, or the word for why not. Resolves no name."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

__all__ = ["NUMERIC_HOST_PATTERN", "classify_host", "classify_ip", "is_ip", "unreachable_kind"]

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
#: Ends of names that only a private network resolves, by RFC 6762, RFC 8375 and ICANN's resolution of 2024.
PRIVATE_ENDINGS: Final = (".local", ".home.arpa", ".internal")


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


def is_ip(host: str) -> bool:
    """Whether `host` is an IP address in its plain form."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def classify_host(host: str) -> str:
    """Return the class of a host: of an IP address as `classify_ip`; of `localhost` and names below it `"loopback"`.

    `"numeric"` is an IP address in a form such as `127.1`, and `"private name"` a name that only a private network
    resolves. Every other name counts as `"public"`, since only its owner decides where it leads.
    """
    name = host.rstrip(".").lower()
    if is_ip(host):
        return classify_ip(host)
    if name == "localhost" or name.endswith(".localhost"):
        return "loopback"
    if NUMERIC_HOST_PATTERN.fullmatch(host):
        return "numeric"
    return "private name" if "." not in name or name.endswith(PRIVATE_ENDINGS) else "public"


def unreachable_kind(url: str, base_url: str) -> str | None:
    """Return the class of the host of `url` if a gateway at `base_url` cannot fetch from it; None if it may.

    Only a gateway on the public internet is known not to reach `localhost` and IP addresses that are not public.
    """
    kind = classify_host(urlsplit(url).hostname or "")
    if kind in {"public", "private name"} or classify_host(urlsplit(base_url).hostname or "") != "public":
        return None
    return kind
