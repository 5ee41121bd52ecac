"""Mutants of delays, deadlines and counts of the planner."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_TESTS: Final = ("tests/planning/test_times.py",)

MUTANTS: Final = (
    Mutant(
        "patience-of-ten-minutes",
        "_planning/limits.py",
        "patience: float = attrs.field(default=900.0",
        "patience: float = attrs.field(default=600.0",
        "a busy account is given up after ten minutes",
        _TESTS,
    ),
    Mutant(
        "patience-at-each-attempt",
        "_planning/submissions.py",
        "        if math.isinf(active.deadline_at):\n            active.deadline_at = now + self.limits.patience",
        "        active.deadline_at = now + self.limits.patience",
        "the patience of a job begins anew with each attempt",
        _TESTS,
    ),
    Mutant(
        "callback-wait-nine-minutes",
        "_planning/account_planner.py",
        "CALLBACK_WAIT_S: Final = 600.0",
        "CALLBACK_WAIT_S: Final = 540.0",
        "a doubt waits nine minutes for its callback",
        _TESTS,
    ),
    Mutant(
        "callback-wait-once",
        "_planning/account_planner.py",
        "CALLBACK_WAIT_FACTOR: Final = 2.0",
        "CALLBACK_WAIT_FACTOR: Final = 1.5",
        "a doubt waits less than twice the longest duration for its callback",
        _TESTS,
    ),
    Mutant(
        "breaker-pauses-longer",
        "_planning/limits.py",
        "u, first=1.0, cap=60.0)",
        "u, first=1.0, cap=90.0)",
        "an outage ends up to 90 s before it is noticed",
        _TESTS,
    ),
    Mutant(
        "throttle-pauses-longer",
        "_planning/limits.py",
        "backoff_delay(self._waits, u, first=0.5, cap=30.0)",
        "backoff_delay(self._waits, u, first=0.5, cap=60.0)",
        "a busy account is left alone for a minute",
        _TESTS,
    ),
    Mutant(
        "failed-polls-rarely-repeated",
        "_planning/poll_queue.py",
        "backoff_delay(active.failed_polls - 1, u, first=1.0, cap=60.0)",
        "backoff_delay(active.failed_polls - 1, u, first=1.0, cap=120.0)",
        "a job whose polls fail is polled every two minutes",
        _TESTS,
    ),
    Mutant(
        "resumed-without-deadline",
        "_planning/account_planner.py",
        "active.deadline_at = now + self.deadline",
        "active.deadline_at = accepted_at + self.deadline",
        "a resumed job that is old is parked at once",
        _TESTS,
    ),
    Mutant(
        "resumed-older-than-its-deadline",
        "_planning/account_planner.py",
        "now - min(max(age, 0.0), self.deadline)",
        "now - max(age, 0.0)",
        "a resumed job that is a day old is polled once a day",
        _TESTS,
    ),
    Mutant(
        "polls-of-this-process",
        "_planning/account_planner.py",
        "polls=active.job.polls + active.polls",
        "polls=active.polls",
        "a resumed job loses the polls of earlier processes",
        _TESTS,
    ),
    Mutant(
        "polls-counted-twice",
        "_planning/account_planner.py",
        "        active.polls = 0\n        return active.job",
        "        return active.job",
        "each save adds the same polls again",
        _TESTS,
    ),
    Mutant(
        "hint-for-ever",
        "_planning/poll_queue.py",
        "self._provider_delay = (result and result.retry_after) or 0.0",
        "self._provider_delay = max(self._provider_delay, (result and result.retry_after) or 0.0)",
        "one Retry-After delays every later poll",
        _TESTS,
    ),
    Mutant(
        "backoff-replanned",
        "_planning/poll_queue.py",
        "return not active.failed_polls and not self.callbacks.needs_poll(active)",
        "return not self.callbacks.needs_poll(active)",
        "a gateway in trouble is polled as often as a healthy one",
        _TESTS,
    ),
    Mutant(
        "callbacks-of-settled-kept",
        "_planning/poll_queue.py",
        "            self.callbacks.forget(active)\n            return\n        quicker",
        "            return\n        quicker",
        "callbacks of resumed jobs are kept for ever",
        _TESTS,
    ),
    Mutant(
        "callbacks-every-four-seconds",
        "_planning/callback_tracker.py",
        "MIN_POLL_SPACING_S: Final = 5.0",
        "MIN_POLL_SPACING_S: Final = 4.0",
        "forged callbacks cause a poll every four seconds",
        _TESTS,
    ),
    Mutant(
        "grace-is-the-longer",
        "_planning/callback_tracker.py",
        "min(GRACE_S, GRACE_SHARE *",
        "max(GRACE_S, GRACE_SHARE *",
        "a callback that is late by minutes counts as on time",
        _TESTS,
    ),
)
