"""Mutants of the wires and their verdicts."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

MUTANTS: Final = (
    Mutant(
        "unknown-as-unsent",
        "providers/_verdicts.py",
        "if failure.phase is SendPhase.SENT:\n        verdict = SubmitVerdict.UNKNOWN",
        "if failure.phase is SendPhase.SENT:\n        verdict = SubmitVerdict.NOT_SENT",
        "a submission that may have arrived is sent again",
        ("tests/providers/test_verdicts.py", "tests/providers/test_decoders.py"),
        "never_judged_unsent",
    ),
    Mutant(
        "empty-answer-rejects",
        "providers/_verdicts.py",
        "receipt.task_id and not response.is_markup else SubmitVerdict.UNKNOWN",
        "receipt.task_id and not response.is_markup else SubmitVerdict.REJECTED",
        "a 2xx without an id counts as not charged",
        ("tests/contracts/test_samples.py", "tests/providers/test_verdicts.py"),
    ),
    Mutant(
        "key-not-redacted",
        "providers/_wire.py",
        'data = data.replace(key, b"[key]")',
        "pass",
        "a key that a gateway repeats is shown",
        ("tests/http/test_transport.py",),
        "key_that_is_repeated",
    ),
    Mutant(
        "key-left-in-headers",
        "_http/transport.py",
        "        if self._credential.redact_or_drop(text) == text:  # as nearly always\n            return headers\n",
        "        return headers\n",
        "a key that a gateway repeats in a header is shown",
        ("tests/http/test_transport.py",),
        "key_in_a_header",
    ),
    Mutant(
        "escaped-key-not-redacted",
        "providers/_wire.py",
        'data = self._escaped.sub(b"[key]", data)',
        "pass",
        "a key whose characters a gateway escapes is shown",
        ("tests/cli/test_cli_secrets.py",),
        "escaped_key",
    ),
    Mutant(
        "model-as-text",
        "providers/_envelope.py",
        "model=float(model) if model else None",
        "model=model",
        "CometAPI gets text where its page has a number",
        ("tests/contracts/test_samples.py",),
    ),
    Mutant(
        "ratio-as-text",
        "providers/_videos.py",
        "return float(request.ratio)",
        "return str(float(request.ratio))",
        "the videos wire gets text where its page has a number",
        ("tests/contracts/test_samples.py",),
    ),
    Mutant(
        "seed-misspelt",
        "providers/_videos.py",
        'rename(result, _Create, prompt_text="promptText", effect="pikaffect")',
        'rename(result, _Create, prompt_text="promptText", effect="pikaEffect")',
        "a request field is sent under a name that no page has",
        ("tests/contracts/test_samples.py",),
    ),
)
