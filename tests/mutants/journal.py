"""Mutants of the journal."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

MUTANTS: Final = (
    Mutant(
        "kept-as-settled",
        "_journal/samples.py",
        "sorted(samples, key=lambda sample: sample.accepted_at)[::-1]",
        "samples[::-1]",
        "a journal teaches that durations grow",
        ("tests/journal/test_journal.py",),
    ),
    Mutant(
        "not-synchronous",
        "_journal/schema.py",
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=OFF",
        "a power cut takes back what was committed",
        ("tests/journal/test_schema.py", "tests/journal/test_files.py", "tests/journal/test_durability.py"),
    ),
    Mutant(
        "tokens-for-ever",
        "_journal/queries.py",
        'Final = ("intended_at", "body_sha256", "callback_sha256", "repeatable")',
        'Final = ("intended_at", "body_sha256", "repeatable")',
        "the callback address of an earlier submission is valid for the latest one",
        ("tests/journal/test_journal.py",),
    ),
    Mutant(
        "no-latch",
        "_journal/queries.py",
        "(progress IS :progress AND error IS :error OR status IN ",
        "(progress IS :progress AND error IS :error AND status NOT IN ",
        "a settled job is reported a second time because of its file",
        ("tests/journal/test_changes.py", "tests/stories/test_events.py"),
    ),
    Mutant(
        "numbers-of-a-rollback",
        "_journal/sqlite.py",
        "                revision = queries.execute(connection, operation, self._folder, revision)\n",
        "                self._revision = revision = queries.execute(connection, operation, self._folder, revision)\n",
        "changes that were rolled back leave gaps in the numbers",
        ("tests/journal/test_changes.py",),
    ),
    Mutant(
        "two-owners",
        "_journal/system_locks.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "two processes pay for one batch",
        ("tests/journal/test_files.py",),
    ),
    Mutant(
        "old-address-kept",
        "_journal/memory.py",
        "            del self._key_by_token[before]\n",
        "            pass\n",
        "a callback for a submission that was given up counts for the next one",
        ("tests/stories/test_callbacks.py",),
        "old_address",
    ),
)
