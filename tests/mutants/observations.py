"""Mutants of what is recorded of tasks between their acceptance and their end."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_STATUS: Final = ("tests/cli/test_cli_last_seen.py",)
_RUNNING: Final = "unsettled_job"

MUTANTS: Final = (
    Mutant(
        "unknown-word-in-memory",
        "_planning/account_planner.py",
        "last_seen=None if snapshot.known_word else active.last_seen",
        "last_seen=None",
        "a kill loses the URL that stood beside an unknown word",
        _STATUS,
        _RUNNING,
    ),
    Mutant(
        "known-word-as-unknown",
        "_planning/account_planner.py",
        "last_seen=None if snapshot.known_word else active.last_seen",
        "last_seen=active.last_seen",
        "every poll with another word writes its job, and `status` calls documented words unknown",
        ("tests/planning/test_planner_polls.py",),
        "unknown_word",
    ),
    Mutant(
        "deferred-until-another-write",
        "_journal/write_schedule.py",
        "        if self._late_timer is None:",
        "        if False:",
        "what was seen of a quiet batch is on disk only at its end",
        ("tests/journal/test_durability.py",),
        "five_seconds",
    ),
    Mutant(
        "deferred-once",
        "_journal/write_schedule.py",
        "        timer, self._late_timer = self._late_timer, None\n",
        "        timer = self._late_timer\n",
        "only the first facts of a quiet batch are on disk before its end",
        ("tests/journal/test_durability.py",),
        "five_seconds",
    ),
    Mutant(
        "lingering-alone",
        "_journal/write_schedule.py",
        "        if self._lingering >= MAX_LINGERING:",
        "        if True:",
        "every result has a commit of its own",
        ("tests/journal/test_durability.py",),
        "lingering",
    ),
    Mutant(
        "lingering-for-ever",
        "_journal/write_schedule.py",
        "call_later(COMMIT_LINGER_S, self.write)",
        "call_later(COMMIT_LINGER_S, self.cancel)",
        "the last results of a batch are not handed over",
        ("tests/journal/test_durability.py",),
        "lingering",
    ),
    Mutant(
        "late-before-its-intent",
        "_journal/write_buffer.py",
        "            if job is None or operation.intent is not None or operation.previous_key is not None:\n",
        "            if False:\n",
        "a state that an intent does not replace is lost when the intent fails",
        ("tests/journal/test_fallback_order.py",),
        "deferred_state_survives",
    ),
    Mutant(
        "unknown-word-after-its-end",
        "jobs.py",
        "settled_at=utc_from_timestamp(at), error=None, last_seen=None,",
        "settled_at=utc_from_timestamp(at), error=None,",
        "a finished video is listed with the word of an earlier answer",
        ("tests/test_jobs.py",),
        "unknown_word",
    ),
    Mutant(
        "empty-journal-is-a-folder",
        "cli/batch_folder.py",
        "if is_blank(self.journal_file):",
        "if False:",
        "a folder whose journal is an empty file counts as one without jobs",
        ("tests/cli/test_cli_journal.py",),
        only="empty_file_in_place",
    ),
    Mutant(
        "people-read-unknown",
        "jobs.py",
        'return "in doubt" if self is JobStatus.UNKNOWN else',
        "return",
        "the summary and `status` say unknown for a job in doubt",
        ("tests/cli/test_cli_resolve.py",),
        only="people_read",
    ),
    Mutant(
        "unknown-word-not-listed",
        "cli/status.py",
        "    yield from _unknown_word_lines(jobs)\n",
        "",
        "`status` counts a job under an unknown word as running and says no more",
        _STATUS,
        _RUNNING,
    ),
)
