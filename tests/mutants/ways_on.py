"""Mutants of the ways on after a run: adopted tasks, repetitions, replaced files."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

RETRIES: Final = ("tests/cli/test_cli_retry.py",)
RESOLUTIONS: Final = ("tests/cli/test_cli_resolve.py",)
ADOPTION: Final = ("tests/stories/test_adoption.py",)

MUTANTS: Final = (
    Mutant(
        "adopted-counts-as-charge",
        "jobs.py",
        "return is_sent and not self.is_adopted",
        "return is_sent",
        "an adopted task uses up the limit of charges",
        (*ADOPTION, "tests/journal/test_journal.py"),
        "counts_neither",
    ),
    Mutant(
        "adopted-counted-by-triggers",
        "_journal/migrations.py",
        "            AND (new.task_id IS NULL OR new.attempts > 0), 1\n        ) ON CONFLICT DO UPDATE SET jobs = jobs + 1;\n"
        "    END;\n    CREATE TRIGGER count_updated",
        "            , 1\n        ) ON CONFLICT DO UPDATE SET jobs = jobs + 1;\n    END;\n    CREATE TRIGGER count_updated",
        "the journal counts an adopted task as a charge after it was opened again",
        ADOPTION,
        "counts_neither",
    ),
    Mutant(
        "adopted-paid-again",
        "_runtime/resolution.py",
        "    if job.is_adopted:\n",
        "    if False:\n",
        "the id of an adopted task is paid for as if it were a prompt",
        ADOPTION,
        "cannot_be_paid_again",
    ),
    Mutant(
        "adopted-twice",
        "_runtime/adoption.py",
        "        existing = self._existing(task_id, key)  # another caller may have adopted the task meanwhile\n",
        "        existing = None\n",
        "two callers make two jobs of one task",
        ADOPTION,
        "however_many_callers",
    ),
    Mutant(
        "denied-at-once",
        "_planning/adoption.py",
        "return FirstPoll.DENIED if denials >= MAX_DENIALS else FirstPoll.AGAIN",
        "return FirstPoll.DENIED",
        "a task that the gateway lists a moment late is refused",
        ADOPTION,
        "appears_late",
    ),
    Mutant(
        "same-seed-again",
        "_planning/repetition.py",
        "        seed = (seed + 1) % SEEDS\n",
        "        pass\n",
        "a new seed is the old one, so that the same failure is paid for again",
        ADOPTION,
        "another_seed",
    ),
    Mutant(
        "half-repetition-lost",
        "_runtime/resolution.py",
        "archived = _half_resubmitted(journal, key) if new_seed else None",
        "archived = None",
        "a repetition that was cut in half cannot be completed",
        ADOPTION,
        "cut_in_half",
    ),
    Mutant(
        "overwritten-in-two-steps",
        "_http/partial_file.py",
        "            self._temporary.replace(self.target)\n        else:\n",
        "            self.target.unlink(missing_ok=True)\n            self._temporary.replace(self.target)\n        else:\n",
        "for a moment a replaced file does not exist",
        ("tests/http/test_overwriting.py",),
        "old_bytes_or_the_new",
    ),
    Mutant(
        "always-overwrites",
        "_http/partial_file.py",
        "        if self._overwrite:\n",
        "        if True:\n",
        "a download replaces a file of somebody else without being asked to",
        ("tests/http/test_overwriting.py",),
        "only_on_request",
    ),
    Mutant(
        "begun-paid-again",
        "cli/retries.py",
        "again=[job for key, job in chosen.items() if key not in begun and not job.is_adopted],",
        "again=[job for key, job in chosen.items() if not job.is_adopted],",
        "a key whose repetition is under way is paid for a third time",
        RETRIES,
        "begun_by_name",
    ),
    Mutant(
        "begun-forgotten",
        "cli/retries.py",
        "begun=[current[key] for key in begun if key in named or _earlier(current[key], by_key) in statuses],",
        "begun=[],",
        "the same retry again leaves what an interrupted one had begun",
        RETRIES,
        "goes_on_with_the_same_command",
    ),
    Mutant(
        "first-of-several-keys",
        "cli/keys.py",
        "        if len(matches) > 1:\n",
        "        if False:\n",
        "a beginning that several keys have pays for the first of them",
        (*RETRIES, *RESOLUTIONS),
        "beginning or cannot_be_meant",
    ),
    Mutant(
        "one-task-for-all",
        "cli/resolving.py",
        "    if outcome.task_id is not None and len(jobs) > 1:\n",
        "    if False:\n",
        "one task id is given to the first of several doubts",
        RESOLUTIONS,
        "cannot_be_meant",
    ),
    Mutant(
        "resolved-before-checked",
        "cli/resolving.py",
        "        if key not in in_doubt and job is not None:\n            raise UsageError(",
        "        if False:\n            raise UsageError(",
        "a job that is not in doubt breaks off a resolution of several in the middle",
        RESOLUTIONS,
        "cannot_be_meant",
    ),
    Mutant(
        "paid-by-two-terminals",
        "cli/runner.py",
        "if one.key in chosen and job is not None and job.status is not chosen[one.key].status:",
        "if False:",
        "a video that another command has paid for while the question stood is paid for again",
        RETRIES,
        "meanwhile",
    ),
)
