"""Mutants of the order in which records that the database refused are kept and retried."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_TESTS: Final = ("tests/journal/test_fallback_order.py",)

MUTANTS: Final = (
    Mutant(
        "rest-of-the-group-forgotten",
        "_journal/sqlite.py",
        "not self._buffer.has_failed_writes and not self._unwritten and",
        "not self._buffer.has_failed_writes and",
        "the fallback file is cleared before the last record of its group is written",
        _TESTS,
    ),
    Mutant(
        "resolution-not-rescued",
        "_journal/sqlite.py",
        "return job.attempts > 0 or job.may_be_charged",
        "return job.may_be_charged",
        "a doubt that was resolved as not charged is in doubt again",
        _TESTS,
    ),
    Mutant(
        "failures-written-last",
        "_journal/write_buffer.py",
        "group = self._failed + self._queue",
        "group = self._queue + self._failed",
        "an earlier state of a job overwrites a later one",
        _TESTS,
    ),
    Mutant(
        "first-state-uncovered",
        "_journal/write_buffer.py",
        "self._by_key[key] = others[-1]",
        "self._by_key[key] = others[0]",
        "after a failed intent an outdated state of the job is read",
        _TESTS,
    ),
    Mutant(
        "deferred-over-intent",
        "_journal/write_buffer.py",
        "                and queued.intent is None\n",
        "",
        "an intent is committed with another state of its job",
        _TESTS,
    ),
    Mutant(
        "strangers-receipts",
        "_journal/fallback_file.py",
        "(file != self.path and status.st_uid != user_id())",
        "False",
        "a file that anybody put into the temporary folder is imported",
        _TESTS,
    ),
    Mutant(
        "half-a-line-kept",
        "_journal/fallback_file.py",
        "            write_at(descriptor, bytes(end - start), start)",
        "            pass",
        "a line that the full disk cut makes the fallback file unreadable",
        _TESTS,
    ),
)
