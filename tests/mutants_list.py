"""The named mutants: one promise broken each, and the tests that must notice."""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["MUTANTS", "Mutant"]


@attrs.frozen
class Mutant:
    """`old` occurs once in `file` (below the package) and becomes `new`; one of `tests` must then fail."""

    name: str
    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]
    #: A pytest `-k` expression where a whole file would take long.
    only: str = ""


MUTANTS: Final = (
    Mutant(
        "unknown-as-unsent",
        "retrying.py",
        "if failure.phase is Phase.SENT:\n        verdict = Verdict.UNKNOWN",
        "if failure.phase is Phase.SENT:\n        verdict = Verdict.NOT_SENT",
        "a submission that may have arrived is sent again",
        ("tests/test_retrying.py", "tests/test_decoders.py"),
        "never_judged_unsent or retrying",
    ),
    Mutant(
        "empty-answer-rejects",
        "retrying.py",
        "    if code is None:\n        return Verdict.UNKNOWN",
        "    if code is None:\n        return Verdict.REJECTED",
        "a 2xx without an id counts as not charged",
        ("tests/test_samples.py", "tests/test_retrying.py"),
    ),
    Mutant(
        "ladder-without-cap",
        "retrying.py",
        "steps = expo(factor=first, max_value=cap)",
        "steps = expo(factor=first)",
        "a wait grows for ever",
        ("tests/test_limits.py",),
    ),
    Mutant(
        "redirects-followed",
        "_transport.py",
        "allow_redirects=False",
        "allow_redirects=True",
        "a 307 re-posts the paid body elsewhere",
        ("tests/test_transport.py",),
        "redirects_are_answers",
    ),
    Mutant(
        "force-close-off",
        "_transport.py",
        "aiohttp.TCPConnector(force_close=True, limit=0)",
        "aiohttp.TCPConnector(limit=0)",
        "a kept connection that the server closes loses submissions",
        ("tests/test_transport.py",),
        "submissions_share_no_connection",
    ),
    Mutant(
        "key-to-another-origin",
        "_transport.py",
        "if not self._is_ours(request.url):",
        "if False:",
        "the credential is sent to a stranger",
        ("tests/test_transport.py",),
        "another_origin_gets_nothing",
    ),
    Mutant(
        "key-not-redacted",
        "wire.py",
        'data = data.replace(spelling, b"[key]")',
        "pass",
        "a key that a gateway repeats is shown",
        ("tests/test_transport.py",),
        "key_that_is_repeated",
    ),
    Mutant(
        "latch-removed",
        "lifecycle.py",
        "        if self.is_final:\n            return self\n",
        "",
        "a later poll changes a settled job",
        ("tests/test_lifecycle.py",),
    ),
    Mutant(
        "id-overwritten",
        "lifecycle.py",
        "        if self.task_id is not None:\n            raise ValueError",
        "        if False:\n            raise ValueError",
        "a second receipt replaces a paid task's id",
        ("tests/test_lifecycle.py",),
    ),
    Mutant(
        "last-look-not-counted",
        "agenda.py",
        "        if due > entry.deadline_at > now:\n",
        "        if False:\n",
        "a result that comes with the last look is thrown away",
        ("tests/test_agenda.py",),
    ),
    Mutant(
        "wait-requeues-last",
        "agenda.py",
        "                self.ready.appendleft(entry)\n                self.gate.wait(",
        "                self.ready.append(entry)\n                self.gate.wait(",
        "a refused job waits behind all that came later",
        ("tests/test_agenda.py",),
    ),
    Mutant(
        "wait-requeues-twice",
        "agenda.py",
        "                self.ready.appendleft(entry)\n                self.gate.wait(",
        "                self.ready.extendleft((entry, entry))\n                self.gate.wait(",
        "a refused job is sent twice",
        ("tests/test_agenda.py", "tests/test_scheduler.py"),
        "AnyInterleaving or refused or 429",
    ),
    Mutant(
        "limit-ignores-submitting",
        "agenda.py",
        "self.charges + self.submitting >= self.limits.max_charges",
        "self.charges >= self.limits.max_charges",
        "more is charged than the user allows",
        ("tests/test_agenda.py",),
    ),
    Mutant(
        "doubt-costs-nothing",
        "agenda.py",
        "            case Verdict.UNKNOWN:\n                self.charges += 1",
        "            case Verdict.UNKNOWN:\n                pass",
        "submissions in doubt do not count towards the limit of charges",
        ("tests/test_agenda.py",),
    ),
    Mutant(
        "young-denial-parks",
        "agenda.py",
        "entry.denials >= MISSING_ANSWERS and now - entry.denied_at >= MISSING_SECONDS",
        "entry.denials >= MISSING_ANSWERS",
        "a fresh task that is not known yet is given up",
        ("tests/test_agenda.py",),
    ),
    Mutant(
        "policy-trusted",
        "agenda.py",
        "            if 0 < wait < math.inf:\n",
        "            if True:\n",
        "a policy that gives nan or less than 0 polls in a rage",
        ("tests/test_agenda.py",),
    ),
    Mutant(
        "cut-per-refusal",
        "limits.py",
        "        if sent_at <= self._cut_at:\n            return\n",
        "",
        "one round of refusals empties the room",
        ("tests/test_limits.py",),
    ),
    Mutant(
        "breaker-never-opens",
        "limits.py",
        "        if self._failures >= self.threshold:\n",
        "        if False:\n",
        "a provider that is down is asked by every job all the time",
        ("tests/test_limits.py",),
    ),
    Mutant(
        "two-probes",
        "limits.py",
        "was_probe = probe and self._state is _Switch.PROBING",
        "was_probe = self._state is _Switch.PROBING",
        "a late failure lets a second probe out",
        ("tests/test_limits.py",),
    ),
    Mutant(
        "new-word-fails",
        "providers/_envelope.py",
        "state = _WORDS.get(word, TaskState.RUNNING)",
        "state = _WORDS.get(word, TaskState.FAILED)",
        "a status word that nobody knows yet fails a paid task",
        ("tests/test_decoders.py",),
        "new_word",
    ),
    Mutant(
        "success-without-address",
        "providers/_envelope.py",
        "state = TaskState.SUCCEEDED if url else TaskState.SUCCEEDED_WITHOUT_URL",
        "state = TaskState.SUCCEEDED",
        "a task settles with no address of its video",
        ("tests/test_samples.py",),
    ),
    Mutant(
        "model-as-text",
        "providers/_envelope.py",
        "model=float(model) if model else None",
        "model=model",
        "CometAPI gets text where its page has a number",
        ("tests/test_samples.py",),
    ),
    Mutant(
        "ratio-as-text",
        "providers/_videos.py",
        "return float(request.ratio)",
        "return str(float(request.ratio))",
        "the videos wire gets text where its page has a number",
        ("tests/test_samples.py",),
    ),
    Mutant(
        "seed-misspelt",
        "providers/_videos.py",
        'rename(_converter, _Create, prompt_text="promptText", effect="pikaffect")',
        'rename(_converter, _Create, prompt_text="promptText", effect="pikaEffect")',
        "a request field is sent under a name that no page has",
        ("tests/test_samples.py",),
    ),
    Mutant(
        "another-tasks-answer",
        "_exchange.py",
        "if snapshot.task_id != task_id:",
        "if False:",
        "a job settles with the video of another",
        ("tests/test_scheduler.py",),
        "another_tasks_answer",
    ),
    Mutant(
        "duplicate-keys-accepted",
        "_admission.py",
        "if known.request.fingerprint() != asked.fingerprint():",
        "if False:",
        "another content is given the result of the first",
        ("tests/test_bad_requests.py",),
        "another_content or two_contents",
    ),
    Mutant(
        "bad-request-stops-siblings",
        "_admission.py",
        "            if index is None:\n                raise\n            job = job.rejected(",
        "            if index is not None:\n                raise\n            job = job.rejected(",
        "one bad request ends a batch",
        ("tests/test_bad_requests.py",),
        "what_a_provider_cannot_do",
    ),
    Mutant(
        "backpressure-off",
        "_batch.py",
        "return self._behind < BEHIND and ",
        "return ",
        "a slow consumer pays for the whole input at once",
        ("tests/test_scheduler.py",),
        "slow_consumer",
    ),
    Mutant(
        "id-lost-on-close",
        "_scheduler.py",
        "await self.until(lambda: not self.agenda.submitting or self._group is None)",
        "pass",
        "closing drops the receipts that are on their way",
        ("tests/test_scheduler.py",),
        "closing_keeps or within_the_grace",
    ),
    Mutant(
        "length-not-checked",
        "_fetching.py",
        "if self.total is not None and self.size != self.total:",
        "if False:",
        "a video that is cut is kept as whole",
        ("tests/test_downloads.py",),
    ),
)
