"""Choice of the proxy for an address: the one given, or the environment's. Opens no connection.

aiohttp's `trust_env` is not used: it also reads `~/.netrc`, whose password would replace the key. It ignores
`ALL_PROXY`, and fails at each request if a variable has no scheme.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from pika_async._http.addresses import is_loopback
from pika_async.errors import ConfigurationError

__all__ = ["check_environment_proxies", "environment_proxy", "proxy_url", "select_proxy"]

#: Addresses of results are https.
RESULT_SCHEME: Final = "https"


def environment_proxy(url: URL | str) -> str | None:
    """Return the URL of the proxy that the environment sets for `url`, None for a direct connection.

    :raises ConfigurationError: if the variable that applies to `url` cannot be used; see `proxy_url`.
    """
    url = URL(url)
    if url.host is None or is_loopback(url) or proxy_bypass(url.host):
        return None
    proxies = getproxies()
    excluded = proxies.get("no", "")
    if proxy_bypass(f"{url.host}:{url.port}") or _is_in_network(url.host, excluded):
        return None
    return select_proxy(url.scheme, proxies)


def check_environment_proxies(base_url: str) -> None:
    """Check the variables that apply to the gateway at `base_url` and to its results, before anything is sent.

    Nothing is checked for a gateway on this machine, whose results are on this machine too.

    :raises ConfigurationError: names the variable that cannot be used.
    """
    if not is_loopback(base_url):
        environment_proxy(base_url)
        select_proxy(RESULT_SCHEME, getproxies())


def select_proxy(scheme: str, proxies: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy for addresses of `scheme`, None if there is none.

    :param proxies: values of the variables `*_PROXY` by the lower-case start of their names, as `getproxies` returns
        them. `ALL_PROXY` counts where the variable of the scheme is not set.
    :raises ConfigurationError: names the variable that cannot be used.
    """
    for name in (scheme, "all"):
        value = proxies.get(name, "").strip()
        if value:
            return proxy_url(value, setting=f"{name.upper()}_PROXY")
    return None


def proxy_url(text: str, *, setting: str = "proxy") -> str:
    """Return `text` as the URL of a proxy; without a scheme it is `http://`.

    :param text: `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`, perhaps with `USER:PASSWORD@` before the host.
    :param setting: the name of the argument or variable, for the error.
    :raises ConfigurationError: for anything else. The text is not repeated, because it may hold a password.
    """
    way_out = "give the http:// address of a proxy, such as http://127.0.0.1:3128"
    if not isinstance(text, str):
        raise ConfigurationError(setting=setting, reason=f"must be text; {way_out}")
    scheme, separator, _ = text.partition("://")
    if separator and scheme.lower().startswith("socks"):
        reason = f"SOCKS proxies are not supported; most programs that offer SOCKS offer HTTP too: {way_out}"
        raise ConfigurationError(setting=setting, reason=reason)
    address = text if separator else f"http://{text}"
    try:
        url = URL(address)
        good = url.scheme in {"http", "https"} and bool(url.host) and url.port is not None
        good = good and address.isprintable() and " " not in address and not url.query_string and not url.fragment
        good = good and url.path in {"", "/"}
    except (ValueError, TypeError):
        good = False
    if not good:
        reason = f"must be an http(s) URL or HOST:PORT; {way_out}, with a password's special characters as %XX"
        raise ConfigurationError(setting=setting, reason=reason)
    return address


def _is_in_network(host: str, excluded: str) -> bool:
    """Return whether `host` is an IP address in a network of `NO_PROXY`, such as `10.0.0.0/8`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in excluded.split(","):
        try:
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:  # a name
            continue
    return False
