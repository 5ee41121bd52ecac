"""Failures in the body of an answer to a submission: codes and words, and what the outcome says about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import find_provider
from pika_async.models import Receipt
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict, classify_response
from pika_async.providers._wire import HttpResponse
from tests.providers.status_table import expected_verdict

R, S, W, U, A = (
    SubmitVerdict.REJECTED,
    SubmitVerdict.STOP,
    SubmitVerdict.WAIT,
    SubmitVerdict.UNKNOWN,
    SubmitVerdict.ACCEPTED,
)
DIALECTS = ("cometapi", "gptge")


def outcome_of(body: Any, provider: str = "gptge", status: int = 200) -> SubmitOutcome:
    """Return the outcome of a submission that was answered with `body`: a text as it is, anything else as JSON."""
    data = body if isinstance(body, str) else json.dumps(body)
    response = HttpResponse(status=status, body=data.encode())
    return classify_response(response, find_provider(provider).decode_receipt(response))


def error(code: Any, message: str = "m", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "gateway_error", "code": code, **more}}


# --- numbers and words ---------------------------------------------------------------------------------------------------

#: Where the number of a failure may stand.
PLACES: dict[str, Callable[[int], Any]] = {
    "code": lambda number: {"code": number, "data": None},
    "code as text": lambda number: {"code": str(number), "msg": "no", "data": None},
    "status": lambda number: {"status": number, "message": "no"},
    "error.code": error,
    "error.code as text": lambda number: error(str(number)),
    "error.status": lambda number: {"error": {"status": number, "message": "no"}},
    "data.code": lambda number: {"code": 200, "data": {"code": number}},
    "error.error.code": lambda number: {"error": error(number)},
    "data.error.code": lambda number: {"data": error(number)},
    "result.status": lambda number: {"result": {"status": str(number)}},
}
NUMBERS = (-1, *range(1, 200), *range(300, 1000), 1001, 50_000)


def _expected(number: int) -> SubmitVerdict:
    if number == 503:
        return W
    return U if number < 0 or 300 <= number < 400 else expected_verdict(number)


@pytest.mark.parametrize("provider", DIALECTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_number_in_the_body_of_a_success_is_judged_as_that_status(place: str, provider: str) -> None:
    """A 2xx whose body has a number for a code has the verdict of that HTTP status, wherever the number stands."""
    numbers = [number for number in NUMBERS if "status" not in place or number == -1 or 400 <= number < 600]
    outcomes = {number: outcome_of(PLACES[place](number), provider) for number in numbers}
    assert {number: outcome.verdict for number, outcome in outcomes.items()} == {
        number: _expected(number) for number in numbers
    }
    assert {outcome.code for outcome in outcomes.values()} == {str(number) for number in numbers}


WORDS = {
    **dict.fromkeys(("invalid_request", "invalid_request_error", "content_policy_violation", "prompt_blocked"), R),
    **dict.fromkeys(
        (
            "insufficient_user_quota", "insufficient_quota", "insufficient_balance", "quota_not_enough",
            "user_quota_is_not_enough", "User quota is not enough", "invalid_api_key", "token is invalid",
            "token_expired",
        ),
        S,
    ),
    **dict.fromkeys(("rate_limit_exceeded", "too_many_requests"), W),
    **dict.fromkeys(
        (
            "error", "fail", "internal_error", "do_request_failed", "bad_response_status_code", "upstream_timeout",
            "invalid_response", "9" * 40, "0x1f4", "五百",
        ),
        U,
    ),
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_word_in_the_body_of_a_success_is_judged_by_its_kind(word: str) -> None:
    """A word on the request rejects it, one on key or balance stops; one that leaves the cause open is in doubt."""
    assert {outcome_of(body).verdict for body in ({"code": word}, error(word), {"data": error(word)})} == {WORDS[word]}


@pytest.mark.parametrize("code", [200, 0, "200", "0", "success", "SUCCESS", "ok", 200.0, 201, "", None])
def test_a_code_of_success_is_not_a_failure(code: Any) -> None:
    """The codes that mean success neither refuse a submission nor hide its task id."""
    outcome = outcome_of({"code": code, "data": None})
    assert (outcome.verdict, outcome.code, outcome.unreadable) == (U, None, True)
    for provider in DIALECTS:
        assert outcome_of({"code": code, "id": "t", "data": {"task_id": "t"}}, provider).task_id == "t"


@pytest.mark.parametrize(
    "empty", [None, "", {}, [], False, {"code": "", "message": ""}, {"code": None, "message": None}]
)
def test_an_empty_error_is_not_a_failure(empty: Any) -> None:
    """An `error` that says nothing neither refuses a submission nor hides its task id."""
    assert outcome_of({"error": empty}).code is None
    assert outcome_of({"id": "t", "error": empty}).task_id == "t"


@pytest.mark.parametrize("code", [1, 22, 10000, "SUBMITTED", "queued"])
def test_a_code_that_may_mean_anything_does_not_hide_a_task_id(code: Any) -> None:
    """Some gateways use 1 for success: beside a task id in its documented place such a code is not a failure."""
    for provider in DIALECTS:
        assert outcome_of({"code": code, "id": "t", "data": {"task_id": "t"}}, provider).task_id == "t"


@pytest.mark.parametrize("status", [-1, 0, 2, 99, "2", "failed", "error"])
def test_the_status_of_a_task_does_not_hide_its_id(status: Any) -> None:
    """A task that has failed at once was accepted: its poll gives the reason."""
    for provider in DIALECTS:
        assert outcome_of({"id": "t", "data": {"task_id": "t", "status": status}}, provider).verdict is A


FAILURES: list[dict[str, Any]] = [
    {"code": 400}, {"code": "-1"}, {"code": 524}, {"code": "invalid_request"}, {"code": "fail"}, error("x"),
    {"error": "no"}, {"status": 500}, {"success": False},
]  # fmt: skip


@pytest.mark.parametrize("provider", DIALECTS)
@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_a_body_that_names_a_task_and_says_failure_is_in_doubt(provider: str, failure: dict[str, Any]) -> None:
    """A task id in its documented place beside a failure is neither followed nor dropped: the doubt shows it."""
    outcome = outcome_of({**failure, "id": "task-7", "data": {"task_id": "task-7"}}, provider)
    assert (outcome.verdict, outcome.task_id, outcome.unreadable) == (U, None, False)
    assert "task-7" in outcome.reason


def test_a_code_of_a_third_partys_receipt_is_judged_too() -> None:
    """A receipt that a third party's provider made has its failure as a code alone."""
    expected = {"400": R, "401": S, "403": S, "429": W, "503": W, "500": U, "-1": U, "invalid_request": R, "x": U}
    answer = HttpResponse(status=200, body=b"{}")
    verdicts = {code: classify_response(answer, Receipt(failure_code=code)).verdict for code in expected}
    assert verdicts == expected


AMBIGUOUS = (-1, 408, 418, 500, 501, 502, 504, 520, 522, 524, 599, 1001)
others = st.dictionaries(
    st.sampled_from(["message", "msg", "status", "success", "type", "data", "request_id", "model", "code"]),
    st.sampled_from(["no available channel for model x", "余额不足", "invalid token", "failed", "queued", 400, 401, 429, 503, None, False]),
    max_size=4,
)  # fmt: skip
words = st.sampled_from(
    ["rate_limit_exceeded", "invalid_api_key", "insufficient_quota", "content_policy_violation", "x", "", 400, "401", 429, 503, None]
)  # fmt: skip


@given(st.sampled_from(AMBIGUOUS), words, others, st.sampled_from(DIALECTS), st.integers(0, 3))
def test_an_ambiguous_number_is_in_doubt_whatever_stands_beside_it(
    number: int, word: Any, more: dict[str, Any], provider: str, place: int
) -> None:
    """Beside a number that leaves it open whether the request was accepted, no other field makes it repeatable."""
    inner: dict[str, Any] = {**more, "code": number}
    body: dict[str, Any] = [
        {**inner, "error": {"code": word, "message": "no"}},
        {"code": 200, "data": {**inner, "error": {"code": word}}},
        {**more, "code": word, "error": {**more, "code": str(number)}},
        {"error": {"error": {**more, "code": number}}, "code": word},
    ][place]
    outcome = outcome_of(body, provider)
    if number == -1 and outcome.verdict in {S, W}:  # a failure without a number: its words count
        return
    assert outcome.verdict is U, (body, outcome)


# --- key and balance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["invalid_api_key", "insufficient_quota", "insufficient_balance", "token is invalid"])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 524])
def test_a_code_inside_a_5xx_never_stops(status: int, code: str) -> None:
    """A word on the key or the balance in a 5xx proves nothing, as a status or as a number in the body."""
    body = error(code, "user quota is not enough, 余额不足")
    assert outcome_of(body, status=status).verdict is U
    if status != 503:
        assert outcome_of({**body, "code": status}).verdict is U


def test_a_code_on_key_or_balance_stops_beside_every_4xx() -> None:
    """A word on the key or the balance in a 4xx stops the account, also beside 429, which some gateways send with it."""
    for word in (word for word, verdict in WORDS.items() if verdict is S):
        assert {outcome_of(error(word), status=status).verdict for status in (400, 401, 403, 404, 422, 429)} == {S}, (
            word
        )


@pytest.mark.parametrize(
    "phrase",
    [
        "user quota is not enough", "Your balance is not enough", "账户余额不足", "用户额度不足", "该令牌额度已用尽",
        "The token is invalid", "无效的令牌", "your token expired", "Incorrect API key provided",
    ],
)  # fmt: skip
def test_a_message_on_key_or_balance_stops_beside_a_refusal(phrase: str) -> None:
    """A message on key or balance stops beside 400, 403 or a code in the body, and leaves a 5xx in doubt."""
    bodies: list[Any] = [{"success": False, "message": phrase}, {"code": "x", "msg": phrase}, {"error": phrase}]
    bodies += [{"code": code, "message": phrase} for code in (400, "400", -1)]
    assert {outcome_of(body, name).verdict for body in bodies for name in DIALECTS} == {S}
    assert {outcome_of(error("", phrase), status=status).verdict for status in (400, 403)} == {S}
    assert {outcome_of(error("", phrase), status=status).verdict for status in (500, 502, 503, 504)} == {U}


def test_a_message_alone_decides_nothing() -> None:
    """Without a failure in the body a text on the balance is only a text: a prompt may hold it."""
    assert outcome_of({"message": "your balance is not enough"}).verdict is U
    assert outcome_of({"id": "t", "message": "your balance is not enough"}).verdict is A


# --- what the outcome says about it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, body, model",
    [
        (503, error("x", "No available channel for model pika-1.5 under group default (distributor)"), "pika-1.5"),
        (503, error("x", "当前分组 default 下对于模型 pika-2.0 无可用渠道"), "pika-2.0"),
        (503, error("x", "no available channels for model: `pika`. Try later"), "pika"),
        (429, error("x", 'The model "pika/v2" is overloaded'), "pika/v2"),
        (429, error("x", "slow down", model="pika-2.2"), "pika-2.2"),
        (429, {"message": "slow down", "model": "pika-2.2"}, "pika-2.2"),
        (200, {"code": 503, "message": "No available channel for model pika-1.5"}, "pika-1.5"),
        (200, {"code": 429, "msg": "model pika-1.5: too many requests"}, "pika-1.5"),
        (429, error("x", "this model is overloaded, the model currently has no room"), None),
        (429, error("x", "too many requests"), None),
        (400, error("x", "the model pika-9 does not exist"), None),
        (500, error("x", "No available channel for model pika-1.5"), None),
    ],
)
def test_a_model_without_room_is_named(status: int, body: Any, model: str | None) -> None:
    """The outcome names the model of a "retry later" answer, so that other models may pass; of no other answer."""
    outcome = outcome_of(body, status=status)
    assert outcome.model == model
    assert model is None or outcome.verdict is W


@pytest.mark.parametrize(
    "body, unreadable",
    [
        ({}, True), ([], True), ("", True), ({"code": 200, "msg": "ok"}, True), ("<html>", True), ('<a id="x">', True),
        ({"code": 500}, False), ({"code": -1, "message": "x"}, False), ({"error": "x"}, False),
    ],
)  # fmt: skip
def test_an_unreadable_receipt_differs_from_other_doubts(body: Any, unreadable: bool) -> None:
    """A whole 2xx without a task id and without a failure is unreadable; every other doubt is not."""
    outcome = outcome_of(body)
    assert (outcome.verdict, outcome.unreadable) == (U, unreadable)


@pytest.mark.parametrize(
    "body", [{"code": 429}, {"code": "429", "msg": "slow"}, error("x", status=429), error("rate_limit_exceeded")]
)
def test_a_rate_limit_in_a_body_is_one(body: Any) -> None:
    """A "too many requests" in the body of a success is the same to the limits as the status 429."""
    assert outcome_of(body).is_rate_limited
    assert outcome_of(body, status=429).is_rate_limited
    assert not outcome_of(body, status=503).is_rate_limited
    assert not outcome_of({"code": 503}).is_rate_limited


def test_a_cut_answer_and_a_failing_gateway_are_not_unreadable() -> None:
    """An answer that was cut says nothing about the wire; nor does a 5xx."""
    cut = HttpResponse(status=200, body=b'{"code":200,', complete=False)
    assert not classify_response(cut, find_provider("gptge").decode_receipt(cut)).unreadable
    assert not outcome_of("", status=502).unreadable


def test_the_beginning_of_an_unreadable_receipt_is_kept() -> None:
    """A receipt that cannot be read is shown in the doubt, not only its message: it may hold the task's number."""
    outcome = outcome_of({"code": 200, "msg": "success", "data": {"taskNo": "no-4711"}}, "cometapi")
    assert "no-4711" in outcome.reason


def test_equal_refusals_have_equal_fingerprints() -> None:
    """Ids and numbers do not matter; the status, the code and the words do. Only a refusal has a fingerprint."""

    def fingerprint(message: str, code: str = "bad", status: int = 400) -> str:
        return outcome_of(error(code, message), status=status).fingerprint

    same = {fingerprint(f"Invalid URL (request id: 2026112818{number:08}ab)") for number in range(5)}
    assert len(same) == 1
    others = {fingerprint("No such path"), fingerprint("Invalid URL", "x"), fingerprint("Invalid URL", status=404)}
    assert len(same | others) == 4
    assert {fingerprint("x", status=502), outcome_of({}).fingerprint, outcome_of({"id": "t"}).fingerprint} == {""}
