"""Mutants of the facts that errors answer: whether something was charged, whether to try again, and the kind."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_FACTS: Final = ("tests/stories/test_error_facts.py",)
_TABLES: Final = ("tests/contracts/test_error_documents.py",)

MUTANTS: Final = (
    Mutant(
        "doubt-retryable",
        "errors/jobs.py",
        "    request_id: str | None = None\n",
        "    request_id: str | None = None\n\n    @property\n    def retryable(self) -> bool:\n        return True\n",
        "a program sends a request in doubt again, and may pay twice",
        _TABLES,
    ),
    Mutant(
        "job-outcome-free",
        "errors/jobs.py",
        "    def charged(self) -> bool | None:\n        return None\n\n    def _text",
        "    def charged(self) -> bool | None:\n        return False\n\n    def _text",
        "a doubt is reported as not charged",
        _FACTS,
    ),
    Mutant(
        "abandoned-doubt-free",
        "_planning/resolution.py",
        "reason=reason, in_doubt=True)",
        "reason=reason)",
        "a doubt that a person gave up is reported as not charged",
        _FACTS,
    ),
    Mutant(
        "refused-poll-free",
        "_runtime/task_poller.py",
        "kind=result.kind, task_id=job.task_id, **facts",
        "kind=result.kind, **facts",
        "an accepted task whose poll was refused is reported as not charged",
        _FACTS,
    ),
    Mutant(
        "failure-always-refunded",
        "_planning/account_planner.py",
        "refunded=None if snapshot.points is None else snapshot.points == 0",
        "refunded=True",
        "a failed generation is reported as refunded where the wire does not say so",
        _FACTS,
    ),
    Mutant(
        "moderation-tried-again",
        "errors/jobs.py",
        'return self.kind in {"provider", "timeout"}',
        'return self.kind in {"provider", "timeout", "moderation"}',
        "a program pays again for a prompt that is refused each time",
        (*_FACTS, *_TABLES),
    ),
    Mutant(
        "kind-by-part-of-a-word",
        "providers/_kinds.py",
        'rf"(?<![^\\W_]){re.escape(code)}(?![^\\W_])"',
        "re.escape(code)",
        "a part of a longer word decides the kind",
        _TABLES,
    ),
    Mutant(
        "single-word-in-prose",
        "providers/_kinds.py",
        '        if "_" in code\n',
        "",
        "a common word in a message decides the kind",
        _TABLES,
    ),
    Mutant(
        "kind-from-the-status-first",
        "providers/_kinds.py",
        "    kind = _KIND_BY_CODE.get(",
        "    if status in STATUSES:\n        return STATUSES[status]\n    kind = _KIND_BY_CODE.get(",
        "the words of a refusal count less than its status",
        (*_FACTS, *_TABLES),
    ),
    Mutant(
        "end-of-a-value-cut",
        "errors/base.py",
        'f"{text[:half]}…{text[-half:]}"',
        'text[: 2 * half] + "…"',
        "the size of a file in a deep folder is cut out of the sentence that refuses it",
        ("tests/test_models.py", "tests/providers/test_providers.py"),
        "keeps_its_beginning or deep_folder",
    ),
)
