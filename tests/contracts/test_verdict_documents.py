"""The tables of verdicts in the documents, read as data: each says what the code does, and together they say all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict, classify_response
from pika_async.providers._wire import HttpResponse
from tests.contracts.document_tables import table
from tests.contracts.verdict_rows import HTML, HTML_HEADERS
from tests.fakes.family import GATEWAYS

ROOT = Path(__file__).parents[2]
PROMISES = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
R, S, W, U, A, X = (
    SubmitVerdict.REJECTED,
    SubmitVerdict.STOP,
    SubmitVerdict.WAIT,
    SubmitVerdict.UNKNOWN,
    SubmitVerdict.ACCEPTED,
    SubmitVerdict.WRONG_URL,
)
#: How a cell on the job begins -> the verdict that it describes.
BEGINNINGS = {
    "`queued`": A, "`rejected`": R, "stays `planned`, and the batch stops: the base URL": X, "stays `planned`": S,
    "waits": W, "in doubt": U,
}  # fmt: skip


def verdict_of(cell: str) -> SubmitVerdict:
    return next(verdict for beginning, verdict in BEGINNINGS.items() if cell.startswith(beginning))


def outcomes(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> list[SubmitOutcome]:
    """Return the outcome of one answer at every gateway."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = HttpResponse(status=status, body=data, headers=headers or {})
    return [classify_response(response, provider.decode_receipt(response)) for provider in GATEWAYS.values()]


def verdicts(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> set[SubmitVerdict]:
    return {outcome.verdict for outcome in outcomes(body, status, headers)}


# --- by status -----------------------------------------------------------------------------------------------------------

STATUS_ROWS = table(PROMISES, "| the answer | what happens to the job |")
TASK: dict[str, Any] = {"id": "t1", "data": {"task_id": "t1"}}
NO_PATH = {"error": {"message": "Invalid URL (POST /v1/pika/generate)", "type": "invalid_request_error", "code": ""}}
CHANNEL = {"error": {"message": "No available channel for model pika", "code": "x"}}
#: What a row names that is not a status alone -> the answers that it means: (body, status, headers).
NAMED: dict[str, list[tuple[Any, int, dict[str, str]]]] = {
    "2xx with a task id, whatever content type it states": [(TASK, 200, {}), (TASK, 202, HTML_HEADERS)],
    "2xx with a failure and a task id": [
        ({**TASK, "code": code}, 200, {}) for code in (400, 401, 429, "500", -1, "fail")
    ],
    "2xx with neither, or a web page": [({}, 200, {}), (b"", 204, {}), (HTML.encode(), 200, HTML_HEADERS)],
    "a web page with 404": [(HTML.encode(), 404, HTML_HEADERS)],
    "404 with the words `Invalid URL (`": [(NO_PATH, 404, {})],
    "any redirect": [(b"", status, {}) for status in range(300, 400)],
    "503 with `Retry-After`": [({}, 503, {"retry-after": "1"})],
    '503 with "no available channel"': [(CHANNEL, 503, {})],
    "500 with the code `invalid_request`": [({"error": {"code": "invalid_request"}}, 500, {})],
    "any other status": [(b"", status, {}) for status in (418, 451, 501, 505, 599, 600)],
}
#: The row that the table of codes explains.
BY_CODE = "2xx with a failure in its body and no task id"


def items_of(cell: str) -> list[str]:
    """Return what a row names: the whole cell if that is a name, else its parts."""
    return [cell] if cell in NAMED or cell == BY_CODE else cell.split(", ")


@pytest.mark.parametrize("row", STATUS_ROWS, ids=lambda row: row[0])
def test_each_answer_of_the_promises_has_its_verdict(row: list[str]) -> None:
    """Every status and every answer that a row of the promises names has the verdict of that row."""
    for item in items_of(row[0]):
        if item == BY_CODE:
            assert row[1].startswith("as the table of codes")
        elif item.isdecimal():
            assert verdicts(b"", int(item)) == {verdict_of(row[1])}, item
        else:
            for body, status, headers in NAMED[item]:
                assert verdicts(body, status, headers) == {verdict_of(row[1])}, (item, body, status)


def test_the_promises_name_every_status_that_is_not_in_doubt() -> None:
    """A status that no row names is in doubt, as the row of all others says; none is named twice."""
    named = [int(item) for row in STATUS_ROWS for item in items_of(row[0]) if item.isdecimal()]
    assert len(named) == len(set(named))
    others = {status: verdicts(b"", status) for status in range(100, 1000) if status not in named}
    assert {status for status, found in others.items() if found != {U}} == set(range(300, 400))


# --- by code -------------------------------------------------------------------------------------------------------------

CODE_ROWS = table(PROMISES, "| the code or the words | beside | what happens to the job |")
#: The statuses of the 4xx, and of the last row: those that leave it open whether the request was accepted.
NUMBERED = {int(item): verdict_of(row[1]) for row in STATUS_ROWS for item in items_of(row[0]) if item.isdecimal()}
PLAIN = [status for status, verdict in NUMBERED.items() if status < 500 and verdict is not U]
OPEN = [status for status, verdict in NUMBERED.items() if verdict is U]
QUOTED = re.compile(r'`([^`]+)`|"([^"]+)"')


def test_numbers_in_a_body_have_the_verdict_of_their_row() -> None:
    """A number in the body of a 2xx has the verdict of its row: that of the same status, but for those that are named."""
    by_number = {row[0]: row[2] for row in CODE_ROWS if re.match(r"-?\d|any other number", row[0])}
    assert list(by_number) == [
        "0, 200 to 299, `success`, `ok`", "503", "any other number from 400 to 599", "-1, any other number",
    ]  # fmt: skip
    assert by_number["any other number from 400 to 599"].startswith("as that HTTP status")
    for number in (0, *range(200, 300)):
        assert {outcome.code for outcome in outcomes({"code": number})} == {None}
    assert verdicts({"code": 503}) == {verdict_of(by_number["503"])}
    for number in range(400, 600):
        if number != 503:
            assert verdicts({"code": number}) == verdicts(b"", number), number
    for number in (-1, -2, *range(1, 200), *range(300, 400), *range(600, 1100), 99_999):
        assert verdicts({"code": number}) == {verdict_of(by_number["-1, any other number"])}, number


def test_the_examples_of_numbers_are_right() -> None:
    """The numbers that the row on statuses gives as examples have the verdicts that it says."""
    row = next(row[2] for row in CODE_ROWS if row[0] == "any other number from 400 to 599")
    said = {"400 is `rejected`": R, "401 stays `planned`": S, "429 waits": W, "500 and 524 are in doubt": U}
    assert row == f"as that HTTP status: {', '.join(said)}"
    for text, verdict in said.items():
        for number in re.findall(r"\d{3}", text):
            assert verdicts({"code": int(number)}) == {verdict}


@pytest.mark.parametrize(
    "row", [row for row in CODE_ROWS if row[0].startswith(("`", '"'))], ids=lambda row: row[0].split(",")[0]
)
def test_words_in_a_body_have_the_verdict_of_their_row(row: list[str]) -> None:
    """A code in backticks or a phrase in quotes has the verdict of its row, beside everything that the row names."""
    cell, beside, means = row
    for code, phrase in QUOTED.findall(cell):
        failures = [{"error": {"code": code or "x", "message": phrase}}, {"code": code or "x", "message": phrase}]
        answers = [(failure, 200) for failure in failures]
        if "every 4xx above but 408" in beside:
            answers += [(failure, status) for failure in failures for status in PLAIN]
        elif beside.startswith("400"):
            answers += [(failures[0], int(status)) for status in re.findall(r"\b4\d\d\b", beside)]
        elif beside == "any status":
            answers += [(failure, status) for failure in failures for status in (400, 403, 429, 500, 502, 503)]
        for body, status in answers:
            assert verdicts(body, status) == {verdict_of(means)}, (body, status)
        if "without a number of the last row above" in beside:
            for status in OPEN:
                assert verdicts(failures[0], status) == {U}, status
                assert status == 503 or verdicts({**failures[0], "code": status}) == {U}, status


# --- the README ----------------------------------------------------------------------------------------------------------


def test_the_table_of_the_readme_agrees() -> None:
    """Every status that the README's short table names has the verdict of its row."""
    rows = table(README, "| what happened to a submission | what happens to the job |")
    named = {int(status): verdict_of(means) for what, means in rows for status in re.findall(r"\b\d{3}\b", what)}
    assert {400, 401, 402, 403, 404, 413, 422, 429, 500, 502, 504} <= set(named)
    assert {status: verdicts(b"", status) for status in named} == {status: {it} for status, it in named.items()}
