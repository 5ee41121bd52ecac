"""Mutants of what a client without a journal file remembers of settled jobs, and of what a long service leaves."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

__all__ = ["MUTANTS"]

_SETTLED: Final = ("tests/journal/test_settled.py",)
_SERVICE: Final = ("tests/stories/test_long_service.py",)

MUTANTS: Final = (
    Mutant(
        "doubt-forgotten",
        "_journal/memory.py",
        "if was_settled or job.settled_at is not None:",
        "if was_settled or job.settled_at is not None or job.status is JobStatus.UNKNOWN:",
        "a doubt that is old enough is forgotten, and its key is paid again",
        _SETTLED,
        "never_forgotten",
    ),
    Mutant(
        "settled-without-a-bound",
        "_journal/memory.py",
        "while len(self._settled) > self._max_settled:",
        "while False:",
        "a service without a journal file keeps every settled job for ever",
        _SETTLED,
        "bound",
    ),
    Mutant(
        "waiting-download-forgotten",
        "_journal/memory.py",
        "if key in self._retained or _is_wanted(job):",
        "if _is_wanted(job):",
        "a job is forgotten, and paid again, while its result waits for its download",
        _SERVICE,
        "wait_for_their_download",
    ),
    Mutant(
        "failed-download-forgotten",
        "_journal/memory.py",
        "if key in self._retained or _is_wanted(job):",
        "if key in self._retained:",
        "a paid result whose download has failed is forgotten with its address",
        _SETTLED,
        "still_wanted",
    ),
    Mutant(
        "forgotten-charged-twice",
        "_journal/memory.py",
        "if not (self._has_forgotten and before is None and job.is_final):",
        "if True:",
        "a job that was forgotten while its file was written counts as two charges",
        _SETTLED,
        "charged_again",
    ),
    Mutant(
        "settled-never-packed",
        "_journal/memory.py",
        "            self._jobs[key] = pack_settled(older)\n",
        "            pass\n",
        "a settled job takes 1.7 KiB for as long as it is remembered",
        _SETTLED,
        "older_settled",
    ),
    Mutant(
        "stale-place-counts",
        "_journal/settled.py",
        "while self._is_stale(key := self._keys.popleft()):",
        "while self._is_stale((key := self._keys.popleft()) + '~'):",
        "a job that was planned again is forgotten by its earlier end, before older ones",
        _SETTLED,
        "order_is_that or planned_again",
    ),
    Mutant(
        "replaced-changes-kept",
        "_journal/memory.py",
        "self._changed.pop(revisions.get(job.key, 0), None)",
        "pass",
        "each change of a job takes memory for ever",
        _SETTLED,
        "replaced_changes",
    ),
)
