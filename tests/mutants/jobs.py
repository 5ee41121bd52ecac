"""Mutants of jobs and logs."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

MUTANTS: Final = (
    Mutant(
        "latch-removed",
        "jobs.py",
        "        if self.is_final:\n            return self\n",
        "",
        "a later poll changes a settled job",
        ("tests/test_jobs.py",),
    ),
    Mutant(
        "id-overwritten",
        "jobs.py",
        "        if self.task_id is not None:\n            raise self._no_transition",
        "        if False:\n            raise self._no_transition",
        "a second receipt replaces a paid task's id",
        ("tests/test_jobs.py",),
    ),
    Mutant(
        "interrupted-is-sent-again",
        "_planning/resolution.py",
        "    return job.in_doubt(error, sent_at)\n",
        "    return job.requeued(error)\n",
        "a submission in progress when the process was killed is paid twice",
        ("tests/stories/test_resuming.py",),
    ),
    Mutant(
        "log-handler-ends-jobs",
        "logs.py",
        "    with contextlib.suppress(Exception):\n",
        "    with contextlib.suppress(KeyError):\n",
        "a log handler that fails ends jobs that are paid for",
        ("tests/test_logs.py",),
        "affects_no_job",
    ),
)
