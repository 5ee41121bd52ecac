"""Mutants of the facts that jobs carry: times, points, errors, attempts, charges."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_TESTS: Final = ("tests/test_job_facts.py",)

MUTANTS: Final = (
    Mutant(
        "accepted-later-than-sent",
        "jobs.py",
        "submitted_at = self.submitted_at or utc_from_timestamp(at)",
        "submitted_at = utc_from_timestamp(at)",
        "a doubt that is resolved with its task id loses the time at which it was sent",
        _TESTS,
    ),
    Mutant(
        "abandoned-costs-nothing",
        "jobs.py",
        "is_sent = self.task_id is not None or self.submitted_at is not None or",
        "is_sent = self.task_id is not None or",
        "an abandoned doubt does not count as a possible charge",
        _TESTS,
    ),
    Mutant(
        "zero-refund-dropped",
        "jobs.py",
        "refunded = self.refunded if snapshot.refunded is None else snapshot.refunded",
        "refunded = snapshot.refunded or self.refunded",
        "a refund of zero becomes that of an earlier answer",
        _TESTS,
    ),
    Mutant(
        "failed-without-refund",
        "jobs.py",
        "JobStatus.FAILED, error=failure, points=points, refunded=refunded,",
        "JobStatus.FAILED, error=failure, points=points,",
        "the refund of a failed task is lost",
        _TESTS,
    ),
    Mutant(
        "done-at-99",
        "jobs.py",
        "video=snapshot.video, progress=100,",
        "video=snapshot.video, progress=snapshot.progress,",
        "a succeeded job stays at 99 percent",
        _TESTS,
    ),
    Mutant(
        "pasted-id-not-stripped",
        "_planning/resolution.py",
        "job.accepted(task_id.strip(), at)",
        "job.accepted(task_id, at)",
        "a task id with a line break is polled for ever",
        _TESTS,
    ),
    Mutant(
        "archived-doubt-paid-again",
        "_planning/resolution.py",
        'return mark_superseded(job.requeued(), at) if "~" in job.key else job.requeued()',
        "return job.requeued()",
        "a job whose place another has taken is sent again",
        _TESTS,
    ),
    Mutant(
        "parked-in-silence",
        "jobs.py",
        "return None if job.error is None else JobParked(number, job)",
        "return None",
        "a job that a stop parked has no event",
        _TESTS,
    ),
    Mutant(
        "interrupted-first-attempt",
        "_planning/resolution.py",
        "at=sent_at, attempt=job.attempts)",
        "at=sent_at, attempt=1)",
        "an interrupted submission names another attempt",
        _TESTS,
    ),
    Mutant(
        "reopened-with-its-timeout",
        "jobs.py",
        "return self._to(JobStatus.QUEUED, error=None)",
        "return self._to(JobStatus.QUEUED)",
        "a job that is polled again still carries its timeout",
        _TESTS,
    ),
)
