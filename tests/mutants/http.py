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
        "_http/connector.py",
        "super().__init__(force_close=True, limit=0)",
        "super().__init__(limit=0)",
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
    Mutant(
        "answer-lost-with-the-bytes-behind-it",
        "_http/connector.py",
        "while not self._has_head and (found := ",
        "while self._has_head and (found := ",
        "a receipt is dropped that came in one read with bytes that are not HTTP",
        ("tests/http/test_connections.py",),
        "bytes_behind or chunk_that_is_none or too_short",
    ),
    Mutant(
        "head-in-two-reads-not-recognized",
        "_http/connector.py",
        r"\A(?:\r?\n)+|\n\r?\n",
        r"\n\r?\n",
        "a receipt is dropped if a read ended within the blank line before it",
        ("tests/http/test_connections.py",),
        "bytes_behind",
    ),
    Mutant(
        "early-hints-count-as-the-answer",
        "_http/connector.py",
        "message.code >= 200",
        "message.code >= 100",
        "a receipt behind early hints is dropped with the bytes behind it",
        ("tests/http/test_connections.py",),
        "bytes_behind",
    ),
    Mutant(
        "small-file-lost-with-the-bytes-behind-it",
        "_http/downloads.py",
        "connector=Connector(",
        "connector=aiohttp.TCPConnector(",
        "a small file is refused whose stated length is too short",
        ("tests/http/test_odd_results.py",),
        "goes_wrong_behind",
    ),
)
