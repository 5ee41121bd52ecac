"""The tables of errors in the documents, read as data: each row is what the code does, and together they are all of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest

from pika_async import errors
from pika_async.errors import ErrorKind, PikaError
from pika_async.providers._kinds import CODES, PHRASES, STATUSES, kind_of_failure
from tests.contracts.document_tables import table

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
ERRORS = {row[0].strip("`"): row[1:] for row in table(PAGE, "| error | charged | retryable | kind |")}
WORDS = table(PAGE, "| code or words | kind | source |")
KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
Answers = dict[str, list[tuple[dict[str, Any], bool | None]]]
#: Facts that change what an error answers -> the cell that describes it.
CHARGES: Answers = {
    "by the points, else None": [({}, None), ({"refunded": True}, False), ({"refunded": False}, True)],
    "False; None if it was in doubt": [({}, False), ({"in_doubt": True}, None)],
    "False; True if a poll was refused": [({}, False), ({"task_id": "t"}, True)],
    "None; True with a task id": [({}, None), ({"task_id": "t"}, True)],
}
RETRIES: dict[str, set[str]] = {
    "True": set(KINDS),
    "False": set(),
    "where the kind is `provider` or `timeout`": {"provider", "timeout"},
    "where the kind is `provider`, `timeout` or `network`": {"provider", "timeout", "network"},
}


def build(name: str, **facts: Any) -> PikaError:
    """Return an error of the class `name`, with text in every fact that has no default."""
    kind = getattr(errors, name)
    needed = {field.name: "x" for field in attrs.fields(kind) if field.default is attrs.NOTHING}
    error: PikaError = kind(**needed | facts)
    return error


def test_the_table_has_every_error() -> None:
    """Each class of the tree has its row, and no row is of another; the root itself is above the table."""
    assert sorted(ERRORS) == sorted(set(errors.__all__) - {"PikaError"})


@pytest.mark.parametrize("name", ERRORS)
def test_a_row_is_what_the_error_answers(name: str) -> None:
    """`charged`, `retryable` and `kind` of an error are those of its row."""
    charged, retryable, kind = ERRORS[name]
    simple: Answers = {str(value): [({}, value)] for value in (True, False, None)}
    for facts, answer in (simple | CHARGES)[charged]:
        assert build(name, **facts).charged is answer, facts
    for each in KINDS:
        assert build(name, kind=each).retryable is (each in RETRIES[retryable]), each
    assert build(name).kind == (kind if kind in KINDS else "other")
    assert kind in KINDS or kind.startswith("by the ")


def test_what_may_be_paid_already_is_never_retried_by_itself() -> None:
    """No error of which it is not known whether it was charged asks for a second submission."""
    for name, kind in itertools.product(set(ERRORS) - {"GenerationFailed"}, KINDS):
        error = build(name, kind=kind)
        free = name in {"ExchangeFailed", "DownloadFailed"}  # of calls that never cost
        assert error.charged is False or free or not error.retryable, error


def test_the_words_are_those_of_the_code() -> None:
    """Each code and phrase has its row with its kind and its source."""
    documented = [(word.strip('`"'), kind, source) for word, kind, source in WORDS]
    known = [
        (word, kind, source) for by_kind in (CODES, PHRASES) for kind, words in by_kind.items()
        for word, source in words.items()
    ]  # fmt: skip
    assert documented == known


@pytest.mark.parametrize(["word", "kind", "source"], WORDS, ids=lambda text: text)
def test_each_word_decides_its_kind(word: str, kind: str, source: str) -> None:
    """A code decides in its field and in a message, words in a message, against the status; each names its source."""
    bare = word.strip('`"')
    if word.startswith("`"):
        assert kind_of_failure(bare, "", 500) == kind
        assert kind_of_failure(bare.upper(), "nothing more", 418) == kind
    if "_" in bare or not word.startswith("`"):
        assert kind_of_failure(None, f"Sorry: {bare.replace('_', ' ')}!", 418) == kind
        assert kind_of_failure("error", f"({bare})", 418) == kind
    assert f"*{source}*" in PAGE


def test_the_statuses_are_those_of_the_code() -> None:
    """The table of HTTP statuses is the code's, and every other status is of no kind."""
    rows = table(PAGE, "| HTTP status | kind |")
    assert {int(number): kind for numbers, kind in rows for number in numbers.split(", ")} == STATUSES
    for status in set(range(100, 600)) | {0, -1}:
        assert kind_of_failure(None, "", status) == STATUSES.get(status, "other")


@pytest.mark.parametrize(
    "message",
    [
        "",
        "sorry",
        "task 40250200 failed",
        "internal",
        "an internal matter",
        "precontent moderations",
        "the timed outing",
    ],
)
def test_other_words_are_of_no_kind(message: str) -> None:
    """Numbers in a message, a single common word and parts of longer words decide nothing."""
    assert kind_of_failure(None, message) == "other"
