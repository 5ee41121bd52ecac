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
    Mutant(
        "grace-of-20-seconds",
        "_planning/limits.py",
        "default=6.0",
        "default=20.0",
        "docker kills a client that waits for its receipts",
        ("tests/stories/test_scheduling.py",),
        "within_the_grace",
    ),
    Mutant(
        "hooks-wait-after-the-grace",
        "_runtime/event_stream.py",
        "grace = max(end - asyncio.get_running_loop().time(), MIN_HOOKS_GRACE_S)",
        "grace = 6.0",
        "hooks have all of the grace again after the submissions",
        ("tests/stories/test_events.py",),
        "rest_of_the_grace",
    ),
    Mutant(
        "grace-option-dropped",
        "cli/options.py",
        "attrs.evolve(limits, grace=options.grace)",
        "limits",
        "--grace changes nothing",
        ("tests/cli/test_cli_machine.py",),
        "grace",
    ),
    Mutant(
        "header-lines-of-8-kib",
        "_http/transport.py",
        "max_field_size=MAX_LINE_BYTES",
        "max_field_size=8190",
        "a receipt under a long policy or cookie is a doubt",
        ("tests/http/test_connections.py",),
        "64_kib",
    ),
    Mutant(
        "download-header-lines-of-8-kib",
        "_http/downloads.py",
        "max_field_size=MAX_LINE_BYTES",
        "max_field_size=8190",
        "a video under a long policy or cookie is not fetched",
        ("tests/http/test_downloads.py",),
        "64_kib",
    ),
    Mutant(
        "end-of-connection-unretrieved",
        "_http/transport.py",
        "        closed.add_done_callback(_mark_retrieved)\n",
        "",
        "a kept connection that is reset later prints a traceback of asyncio",
        ("tests/http/test_connections.py",),
        "prints_no_traceback",
    ),
    Mutant(
        "stale-connection-fails-a-poll",
        "_http/transport.py",
        'outcome.kind == "disconnected" and marker.reused',
        'outcome.kind == "disconnected" and not marker.reused',
        "a poll on a connection that the server has closed counts as a failed poll",
        ("tests/http/test_connections.py",),
        "cut_connection or fresh_connection or breaker",
    ),
    Mutant(
        "stale-connection-resends-a-payment",
        "_http/transport.py",
        "        if request.paid:\n            return",
        "        if request.paid and fresh_session is not session:\n            return",
        "a submission that met the end of a kept connection is sent again",
        ("tests/http/test_connections.py",),
        "never_sent_again",
    ),
    Mutant(
        "poll-sent-again-on-a-kept-connection",
        "_http/transport.py",
        "outcome = await self._send_over(fresh_session, request, _SendMarker())",
        "outcome = await self._send_over(session, request, _SendMarker())",
        "a poll that is sent again meets the next closed connection",
        ("tests/http/test_connections.py",),
        "cut_connection or breaker",
    ),
)
