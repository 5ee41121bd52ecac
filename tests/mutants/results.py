"""Mutants of `results.jsonl` as it is continued by one command after the other, and of what a large batch keeps."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

TESTS: Final = ("tests/cli/test_result_lines.py",)
MUTANTS: Final = (
    Mutant(
        "half-a-line-continued",
        "cli/results.py",
        "        os.truncate(path, size)\n",
        "",
        "the first line after a kill is joined to the half line before it, and neither is JSON",
        TESTS,
    ),
    Mutant(
        "whole-line-removed",
        "cli/results.py",
        "                size += len(line)\n",
        "",
        "a half line at the end takes every line of the file with it",
        TESTS,
    ),
    Mutant(
        "known-lines-again",
        "cli/results.py",
        "        if earlier == line:\n",
        "        if earlier is line:\n",
        "every command appends a line for each job of the folder",
        TESTS,
    ),
    Mutant(
        "old-states-stay",
        "cli/results.py",
        "            self._is_exact = False\n            del self._lines[job.key]\n",
        "            del self._lines[job.key]\n",
        "a job that was retried has two lines once its command has ended",
        TESTS,
    ),
    Mutant(
        "lines-of-others-stay",
        "cli/results.py",
        "        if self._is_exact and len(self._lines) == len(self._indices):\n",
        "        if self._is_exact:\n",
        "jobs that the folder does not have any more keep their lines",
        TESTS,
    ),
    Mutant(
        "always-replaced",
        "cli/results.py",
        "        if self._is_exact and len(self._lines) == len(self._indices):\n",
        "        if False:\n",
        "a command that changes nothing writes a line for each of 100,000 jobs",
        TESTS,
    ),
    Mutant(
        "broken-lines-stay",
        "cli/results.py",
        "if key is None or lines.pop(key, None) is not None:",
        "if lines.pop(key or '', None) is not None:",
        "a line that is not JSON stops every later reader of the file",
        TESTS,
    ),
    Mutant(
        "link-followed",
        "cli/results.py",
        "if not stat.S_ISREG(path.lstat().st_mode):",
        "if False:",
        "lines are appended to another file that a link leads to",
        TESTS,
    ),
    Mutant(
        "table-in-order-of-ending",
        "cli/results.py",
        "for index in sorted(keys) for",
        "for index in keys for",
        "results.csv is not in the order of the input",
        TESTS,
    ),
    Mutant(
        "survivors-visited-again",
        "cli/pauses.py",
        '    if phase == "stop" and info["generation"] == _OLDEST:\n        gc.freeze()',
        '    if phase == "stop" and info["generation"] == _OLDEST:\n        pass',
        "a collection of garbage holds the loop for every job that has ended",
        ("tests/cli/test_pauses.py",),
    ),
    Mutant(
        "resolution-not-in-results",
        "cli/resolving.py",
        "        if resolved and folder.has_results:",
        "        if False:",
        "results.jsonl calls a job doubtful that a person has resolved",
        ("tests/cli/test_cli_resolve.py",),
        "results_at_once",
    ),
    Mutant(
        "resolution-loses-its-row",
        "cli/results.py",
        'self.write(attrs.evolve(changed[key], index=record["index"]))',
        "self.write(changed[key])",
        "a job that was resolved leaves its row of the input",
        TESTS,
        "some_jobs",
    ),
    Mutant(
        "resolution-drops-the-others",
        "cli/results.py",
        '                self._indices[key] = record["index"]',
        "                pass",
        "the jobs that were not resolved lose their lines",
        TESTS,
        "some_jobs",
    ),
)
