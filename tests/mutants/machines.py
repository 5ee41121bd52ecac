"""Mutants of what a machine does to a run: proxies, descriptors, signals, sleep and long headers."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        "proxy-needs-a-scheme",
        "_http/proxies.py",
        'text if separator else f"http://{text}"',
        "text",
        "HTTPS_PROXY=host:3128 is refused",
        ("tests/http/test_proxies.py",),
    ),
    Mutant(
        "all-proxy-ignored",
        "_http/proxies.py",
        'for name in (scheme, "all"):',
        "for name in (scheme,):",
        "ALL_PROXY is ignored",
        ("tests/http/test_proxies.py",),
    ),
    Mutant(
        "socks-variable-unchecked",
        "config.py",
        "            check_environment_proxies(url)\n",
        "            pass\n",
        "a proxy that only the downloads would use is refused after the batch is paid",
        ("tests/http/test_proxies.py",),
        "variable_that_it_cannot_use",
    ),
    Mutant(
        "no-proxy-without-networks",
        "_http/proxies.py",
        " or _is_in_network(url.host, excluded)",
        "",
        "NO_PROXY=10.0.0.0/8 excludes no address",
        ("tests/http/test_proxies.py",),
    ),
)
