"""Mutants of bounds that the documents name, and of the margins of what is learned."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

__all__ = ["MUTANTS"]

_MARGINS: Final = ("tests/polling/test_margins.py",)
_BOUNDS: Final = ("tests/planning/test_bounds.py",)

MUTANTS: Final = (
    Mutant(
        "progress-without-margin",
        "polling/progress.py",
        "gain - 2 / count - GAIN_STANDARD_ERRORS * error",
        "gain - 2 / count",
        "progress that seemed right by luck decides when to poll",
        _MARGINS,
        "lucky",
    ),
    Mutant(
        "few-readings-trusted",
        "polling/progress.py",
        "MIN_READINGS = 8",
        "MIN_READINGS = 4",
        "a handful of readings decides when to poll",
        _MARGINS,
        "informative",
    ),
    Mutant(
        "forgets-only-on-drift",
        "polling/durations.py",
        "keeps = math.exp(-passing / WINDOW)",
        "keeps = 1.0",
        "durations that change slowly are never learned",
        _MARGINS,
        "fade",
    ),
    Mutant(
        "not-found-for-nine-minutes",
        "_planning/account_planner.py",
        "MIN_NOT_FOUND_S: Final = 600.0",
        "MIN_NOT_FOUND_S: Final = 540.0",
        "a task is given up before the ten minutes that the documents name",
        _BOUNDS,
    ),
    Mutant(
        "not-found-for-eleven-minutes",
        "_planning/account_planner.py",
        "MIN_NOT_FOUND_S: Final = 600.0",
        "MIN_NOT_FOUND_S: Final = 660.0",
        "a task is given up after the ten minutes that the documents name",
        _BOUNDS,
    ),
    Mutant(
        "not-found-four-times",
        "_planning/account_planner.py",
        "MIN_NOT_FOUND_COUNT: Final = 5",
        "MIN_NOT_FOUND_COUNT: Final = 4",
        "few answers give a task up",
        _BOUNDS,
    ),
    Mutant(
        "denials-add-up",
        "_planning/account_planner.py",
        "active.rare = attrs.evolve(active.rare, not_found_count=0)",
        "pass",
        "a task that is denied now and then is given up",
        _BOUNDS,
        "anew",
    ),
    Mutant(
        "failed-polls-add-up",
        "_planning/account_planner.py",
        "        active.failed_polls = 0\n",
        "",
        "after one failed poll every later one comes late",
        _BOUNDS,
        "resets_the_wait_of_failed",
    ),
    Mutant(
        "throttle-waits-add-up",
        "_planning/limits.py",
        "self._unsent = self._waits = 0",
        "self._unsent = 0",
        "a refusal of an hour ago makes the next pause long",
        _BOUNDS,
        "resets_the_wait_of_submissions",
    ),
    Mutant(
        "hint-of-an-hour",
        "providers/_verdicts.py",
        "RETRY_AFTER_CAP: Final = 300.0",
        "RETRY_AFTER_CAP: Final = 3600.0",
        "a server's wrong clock stops a batch for an hour",
        _BOUNDS,
    ),
    Mutant(
        "hint-for-good",
        "_planning/poll_queue.py",
        "self._provider_delay = (result and result.retry_after) or 0.0",
        "self._provider_delay = (result and result.retry_after) or self._provider_delay",
        "one hint of a server slows every later poll",
        _BOUNDS,
        "one_poll",
    ),
    Mutant(
        "shorter-hint-ends-the-pause",
        "_planning/limits.py",
        "self._paused_until = max(self._paused_until, now + pause)",
        "self._paused_until = now + pause",
        "a shorter hint ends the pause that a longer one asked for",
        _BOUNDS,
        "all_submissions",
    ),
)
