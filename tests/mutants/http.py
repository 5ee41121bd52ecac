"""Mutants of HTTP."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

MUTANTS: Final = (
    Mutant(
        "redirects-followed",
        "_http/transport.py",
        "allow_redirects=False",
        "allow_redirects=True",
        "a 307 re-posts the paid body elsewhere",
        ("tests/http/test_transport.py",),
        "redirects_are_answers",
    ),
    Mutant(
        "force-close-off",
        "_http/transport.py",
        "aiohttp.TCPConnector(force_close=True, limit=0)",
        "aiohttp.TCPConnector(limit=0)",
        "a kept connection that the server closes loses submissions",
        ("tests/http/test_transport.py",),
        "submissions_share_no_connection",
    ),
    Mutant(
        "key-to-another-origin",
        "_http/transport.py",
        "if not self._has_our_origin(request.url):",
        "if False:",
        "the credential is sent to a stranger",
        ("tests/http/test_transport.py",),
        "another_origin_gets_nothing",
    ),
    Mutant(
        "length-not-checked",
        "_http/download_state.py",
        "if self.total is not None and self.size != self.total:",
        "if False:",
        "a video that is cut is kept as whole",
        ("tests/http/test_downloads.py",),
    ),
)
