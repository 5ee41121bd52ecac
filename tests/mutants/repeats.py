"""Mutants of repetitions at gateways with idempotency keys."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_STORIES: Final = ("tests/stories/test_repeats.py",)

MUTANTS: Final = (
    Mutant(
        "repeated-with-another-key",
        "_runtime/repeater.py",
        "latest = await _send(gateway, request, active, repeated=True)",
        'latest = await _send(gateway, attrs.evolve(request, headers={"Idempotency-Key": str(repeats)}), active, repeated=True)',
        "an answer that was lost is asked for under another key, and the job is charged again",
        _STORIES,
    ),
    Mutant(
        "refused-repetition-ends-the-doubt",
        "_runtime/repeater.py",
        "return latest if latest.verdict is SubmitVerdict.ACCEPTED else _still_in_doubt(outcome, latest)",
        "return latest",
        "a job that may have been accepted is sent anew because a repetition was refused",
        _STORIES,
    ),
    Mutant(
        "repeated-beyond-the-window",
        "_planning/repeats.py",
        "-MAX_CLOCK_STEP_S <= age < provider.idempotency.window - WINDOW_MARGIN_S",
        "-MAX_CLOCK_STEP_S <= age",
        "a gateway that has forgotten a key charges a second job under it",
        _STORIES,
    ),
    Mutant(
        "repeated-by-a-clock-that-was-set-back",
        "_planning/repeats.py",
        "-MAX_CLOCK_STEP_S <= age <",
        "age <",
        "a submission of any age is repeated, and charged again, because the clock shows an earlier time",
        _STORIES,
    ),
    Mutant(
        "repeated-after-a-sleep",
        "_runtime/repeater.py",
        "if not is_within_window(provider, sent_at, datetime.now(UTC)):",
        "if False:",
        "a machine that slept for a day goes on to repeat, and the gateway charges a second job",
        _STORIES,
    ),
    Mutant(
        "repeated-with-another-credential",
        "_planning/repeats.py",
        'if facts["digest"] != digest:',
        "if False:",
        "another customer's key makes the repetition a new job, which is charged",
        _STORIES,
    ),
    Mutant(
        "submission-not-kept",
        "_runtime/submitter.py",
        "callback_sha256=token_sha256, repeatable=repeatable)",
        "callback_sha256=token_sha256)",
        "after a crash nothing can be asked again, and every interrupted job is a doubt",
        _STORIES,
    ),
    Mutant(
        "doubts-never-asked-again",
        "_runtime/admission.py",
        "existing = await self._repeater.settle(existing)",
        "pass",
        "a doubt of an earlier run stays one although the gateway could tell",
        _STORIES,
    ),
    Mutant(
        "repeated-for-every-gateway",
        "_planning/repeats.py",
        "if idempotency is None or idempotency.header not in request.headers or request.body is None:",
        "if request.body is None:",
        "a lost answer is paid for twice at a gateway without idempotency keys",
        _STORIES,
    ),
)
