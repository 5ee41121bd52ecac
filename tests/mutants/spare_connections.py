"""Mutants of connections that are opened ahead of submissions."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_HTTP_TESTS: Final = ("tests/http/test_spare_connections.py",)
_PLANNING_TESTS: Final = ("tests/planning/test_submissions.py",)

MUTANTS: Final = (
    Mutant(
        "spare-written-to-before-taken",
        "_http/spare_connections.py",
        "protocol.was_used or ",
        "",
        "a submission follows a request on a connection that its server may be closing",
        _HTTP_TESTS,
        "a_connection_that_was_written_to",
    ),
    Mutant(
        "spare-too-old-taken",
        "_http/spare_connections.py",
        ">= MAX_AGE_S:",
        ">= 100 * MAX_AGE_S:",
        "a submission is written to a connection that its server is about to drop",
        _HTTP_TESTS,
        "old_connection_is_not_taken",
    ),
    Mutant(
        "spare-age-stands-still-in-sleep",
        "_http/spare_connections.py",
        "max(monotonic - spare.opened_at[0], abs(wall - spare.opened_at[1]))",
        "(monotonic - spare.opened_at[0])",
        "after a sleep of the machine a submission is written to a connection that nobody answers",
        _HTTP_TESTS,
        "old_connection_is_not_taken",
    ),
    Mutant(
        "spare-unread-end-taken",
        "_http/spare_connections.py",
        "if not _has_unread(spare.connection):",
        "if True:",
        "a submission is written to a connection whose end has arrived, and is in doubt",
        _HTTP_TESTS,
        "event_loop_has_not_read",
    ),
    Mutant(
        "spare-answer-without-request-taken",
        "_http/spare_connections.py",
        "protocol.should_close or ",
        "",
        "the 408 of an idle connection is read as the answer to a submission",
        _HTTP_TESTS,
        "after_an_early_end",
    ),
    Mutant(
        "spares-after-an-early-end",
        "_http/spare_connections.py",
        "        self._is_off = True",
        "        self._is_off = False",
        "connections are opened ahead at a gateway that drops them",
        _HTTP_TESTS,
        "after_an_early_end",
    ),
    Mutant(
        "spares-storm",
        "_http/spare_connections.py",
        "self._credit = 0.0",
        "self._credit -= 0.0",
        "a gateway that is down gets connections without end",
        _HTTP_TESTS,
        "meets_no_storm",
    ),
    Mutant(
        "spares-without-bound",
        "_http/spare_connections.py",
        "min(self._credit + credit, float(MAX_SPARES))",
        "self._credit + credit",
        "hundreds of connections are opened for submissions that nobody sends",
        _HTTP_TESTS,
        "follows_the_demand",
    ),
    Mutant(
        "spares-wasted",
        "_http/spare_connections.py",
        "max(self._credit - 1, 0.0)",
        "max(self._credit - 0, 0.0)",
        "each submission to a slow gateway opens a second connection in vain",
        _HTTP_TESTS,
        "slow_gateway",
    ),
    Mutant(
        "spares-left-open",
        "_http/connector.py",
        "        await self._spares.close()\n",
        "",
        "connections stay open, or are being opened, after the client was closed",
        _HTTP_TESTS,
        "closing_leaves_no or never_ends",
    ),
    Mutant(
        "spares-through-a-proxy",
        "_http/transport.py",
        " and self._proxy is None and ",
        " and ",
        "connections are opened past the proxy",
        _HTTP_TESTS,
        "none_is_opened_for",
    ),
    Mutant(
        "next-before-the-first-acceptance",
        "_planning/submissions.py",
        " or not self.fuses.is_proven\n",
        "\n",
        "connections are opened ahead to an address that has accepted nothing",
        _PLANNING_TESTS,
    ),
    Mutant(
        "next-although-held-up",
        "_planning/submissions.py",
        "if self._ready_at(now) > now or self.queue.ready_at(now) > now:",
        "if False:",
        "connections are opened ahead of submissions that wait for a rate, and expire",
        _PLANNING_TESTS,
    ),
    Mutant(
        "next-beyond-the-room",
        "_planning/submissions.py",
        "self.window, left)))",
        "math.inf, left)))",
        "more connections are opened ahead than submissions may begin",
        _PLANNING_TESTS,
    ),
)
