"""Mutants of what the answer to a submission means: codes in bodies, receipts, key and balance."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

__all__ = ["MUTANTS"]

_CODES: Final = ("tests/providers/test_body_codes.py",)
_RECEIPTS: Final = ("tests/providers/test_receipts.py",)

MUTANTS: Final = (
    Mutant(
        "body-number-rejects",
        "providers/_verdicts.py",
        "    if number is None or number < 0:\n",
        "    if number is not None and not 400 <= number < 500 and number != 503:\n"
        "        return SubmitVerdict.REJECTED\n"
        "    if number is None or number < 0:\n",
        "a gateway's 500 inside a 200 counts as not charged",
        _CODES,
        "judged_as_that_status",
    ),
    Mutant(
        "body-number-as-text-only",
        "providers/_failure.py",
        '"" if isinstance(value, bool) or not isinstance(value, str | int | float) else str(value)',
        'value if isinstance(value, str) else ""',
        "a failure whose code is a number is taken for an unreadable receipt",
        _CODES,
        "judged_as_that_status",
    ),
    Mutant(
        "nested-code-unread",
        "providers/_failure.py",
        "    return own if found is None else",
        "    return own if True else",
        "a failure inside an object of the answer is not read",
        _CODES,
        "judged_as_that_status",
    ),
    Mutant(
        "account-code-inside-5xx-stops",
        "providers/_verdicts.py",
        "(400 <= status < 500 and is_account_code(code))",
        "is_account_code(code)",
        "a 5xx with a code on the key is sent again",
        _CODES,
        "inside_a_5xx",
    ),
    Mutant(
        "account-phrase-inside-5xx-stops",
        "providers/_verdicts.py",
        "    if status in _REJECTED and is_account_phrase(receipt.message):",
        "    if is_account_phrase(receipt.message):",
        "a 5xx with words on the balance is sent again",
        _CODES,
        "5xx or refusal",
    ),
    Mutant(
        "contradiction-accepted",
        "providers/_provider.py",
        "if receipt.task_id is not None and (failure.code is None or not failure.is_explicit):",
        "if receipt.task_id is not None:",
        "the id in a failure is followed as a task",
        _CODES,
        "says_failure",
    ),
    Mutant(
        "contradiction-judged-by-code",
        "providers/_verdicts.py",
        "return SubmitVerdict.UNKNOWN if receipt.task_id else _judge_body(",
        "return _judge_body(",
        "a task id beside a failure is dropped as rejected",
        _CODES,
        "says_failure",
    ),
    Mutant(
        "beginning-of-a-receipt-dropped",
        "providers/_verdicts.py",
        "text = response.excerpt(EXCERPT_LIMIT) if response.status < 300 else",
        "text = receipt.message or response.excerpt() if response.status < 300 else",
        "of a receipt that cannot be read only its message is kept",
        _CODES,
        "beginning",
    ),
    Mutant(
        "cut-answer-unreadable",
        "providers/_verdicts.py",
        "unreadable=silent and (response.complete or response.is_html)",
        "unreadable=silent",
        "a broken line counts as a wire that nobody can read",
        _CODES,
        "cut_answer",
    ),
    Mutant(
        "fingerprint-with-ids",
        "providers/_codes.py",
        'words = _VARIABLE.sub("", message.lower()[: 4 * _COMPARED])',
        "words = message.lower()[: 4 * _COMPARED]",
        "equal refusals differ by the id of the request",
        _CODES,
        "fingerprints",
    ),
    Mutant(
        "family-receipts-unread",
        "providers/_provider.py",
        "attrs.evolve(receipt, task_id=find_task_id(body))",
        "receipt",
        "a paid task whose id stands elsewhere is never followed",
        _RECEIPTS,
        "wider_family",
    ),
    Mutant(
        "id-of-a-failure-followed",
        "providers/_receipts.py",
        "    if any(says_failure(holder) for _, holder in holders):\n        return None\n",
        "",
        "the id beside a failure within is followed as a task",
        _RECEIPTS,
        "without_a_task_id or stands_where",
    ),
    Mutant(
        "request-alone-followed",
        "providers/_receipts.py",
        "if _is_queued(holder) and (it := _id",
        "if (it := _id",
        "the id of a request is polled as a task",
        _RECEIPTS,
        "without_a_task_id",
    ),
    Mutant(
        "one-of-two-tasks-followed",
        "providers/_failure.py",
        "return value[0] if isinstance(value, list) and len(value) == 1 else value",
        "return value[0] if isinstance(value, list) and value else value",
        "of two tasks in a receipt one is followed",
        _RECEIPTS,
        "without_a_task_id",
    ),
    Mutant(
        "text-followed",
        "providers/_receipts.py",
        "if isinstance(value, str) and _BARE_ID.fullmatch(value):",
        "if isinstance(value, str) and value:",
        "a word of success is polled as a task",
        _RECEIPTS,
        "without_a_task_id",
    ),
    Mutant(
        "id-of-a-torn-failure-followed",
        "providers/_receipts.py",
        "    if _TORN_FAILURE.search(response.body) is None:\n",
        "    if True:\n",
        "the id of an error that was cut is polled as a task",
        _RECEIPTS,
        "torn_failure",
    ),
)
