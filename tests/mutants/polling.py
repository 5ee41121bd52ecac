"""Mutants of the polling policy."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

MUTANTS: Final = (
    Mutant(
        "progress-trusted",
        "polling/progress.py",
        "return self.readings >= MIN_READINGS and self.gain > MIN_GAIN_NATS",
        "return True",
        "progress that is stuck or faked decides when to poll",
        ("tests/polling/test_adaptive.py",),
    ),
    Mutant(
        "drift-unnoticed",
        "polling/durations.py",
        "        if distance < DRIFT_SIGMAS:",
        "        if distance < math.inf:",
        "durations that have doubled are learned only as slowly as the old ones are forgotten",
        ("tests/polling/test_adaptive.py",),
    ),
    Mutant(
        "no-cap",
        "polling/adaptive.py",
        "min(next_age - age, max_delay(age) / context.callback_loss)",
        "next_age - age",
        "a task that takes much longer than all before is found late",
        ("tests/polling/test_adaptive.py",),
    ),
    Mutant(
        "first-polls-in-a-burst",
        "polling/adaptive.py",
        "* (u - 0.5)",
        "* 0.0",
        "tasks accepted together are polled together",
        ("tests/polling/test_adaptive.py",),
    ),
)
