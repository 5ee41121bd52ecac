"""Tests that are run once: what they check depends neither on the Python nor on the versions of the dependencies.

`nox -s tests` runs them on the first Python, the other Pythons and `nox -s wheel` leave them out.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

__all__ = ["is_once"]

#: Folders and modules below `tests/`, by the reason.
ONCE: Final[dict[str, tuple[str, ...]]] = {
    "decisions without a clock, I/O or a library but attrs": ("planning", "polling", "providers"),
    "texts of this project": (
        "contracts/test_architecture.py", "contracts/test_counts.py", "contracts/test_error_documents.py",
        "contracts/test_language.py", "contracts/test_mutants.py", "contracts/test_suite.py",
        "contracts/test_verdict_documents.py",
    ),
    "the command line's own words and decisions; the commands are run everywhere by the other modules of the folder": (
        "cli/test_cli_canceled.py", "cli/test_cli_displaced.py", "cli/test_cli_doubt.py", "cli/test_cli_edits.py",
        "cli/test_cli_overview.py", "cli/test_cli_places.py", "cli/test_cli_polling.py", "cli/test_cli_preview.py",
        "cli/test_cli_resolve.py", "cli/test_cli_results.py", "cli/test_cli_resume.py", "cli/test_cli_retry.py",
        "cli/test_cli_retry_accounts.py", "cli/test_cli_retry_providers.py", "cli/test_cli_sweeps.py",
        "cli/test_cli_ways_on.py", "cli/test_words.py",
    ),
    "the rows of contracts/test_verdict_table.py, which is run everywhere, through commands": (
        "cli/test_cli_secrets.py", "cli/test_cli_verdicts.py",
    ),
    "how the work grows with the number of jobs": ("stories/test_responsiveness.py",),
}  # fmt: skip
_PATHS: Final = frozenset(path for paths in ONCE.values() for path in paths)


def is_once(path: PurePosixPath) -> bool:
    """Return whether the tests of a module, by its path below `tests/`, are run once."""
    return not _PATHS.isdisjoint({str(path), path.parts[0]})
