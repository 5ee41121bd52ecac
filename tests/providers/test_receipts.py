"""Receipts: every place in which a task id may stand, those in which none may, and bodies that cannot be decoded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.models import Receipt
from pika_async.providers._receipts import find_task_id, salvage_receipt
from pika_async.providers._verdicts import SubmitVerdict, classify_response
from pika_async.providers._wire import HttpResponse
from tests import samples
from tests.fakes.family import GATEWAYS

#: From the table of the wider family's shapes: the body of a receipt whose task is `t1`.
FAMILY: dict[str, Any] = {
    "id beside object and status": {"id": "t1", "object": "video", "status": "queued"},
    "id beside a status": {"id": "t1", "status": "in_progress", "error": None},
    "data.id": {"code": 200, "message": "success", "data": {"id": "t1"}},
    "data.job.id": {"code": 0, "data": {"job": {"id": "t1", "status": "pending"}}},
    "a bare text": {"code": "success", "message": "", "data": "t1"},
    "a list of one": {"code": "200", "data": [{"task_id": "t1"}]},
    "a list of one text": {"data": ["t1"]},
    "video_id": {"video_id": "t1", "code": "ok"},
    "data.video_id": {"data": {"video_id": "t1", "request_id": "r1"}},
    "request_id beside a status": {"request_id": "t1", "status": "IN_QUEUE", "queue_position": 3},
    "task.id": {"task": {"id": "t1"}},
    "result.task_id": {"result": {"task_id": "t1"}},
    "three wrappers": {"data": {"result": {"task": {"id": "t1"}}}},
    "the task's id before the request's": {"request_id": "r1", "status": "queued", "data": {"id": "t1"}},
    "the task's id before the answer's": {"id": "r1", "object": "answer", "status": "ok", "task": {"id": "t1"}},
    "a number": {"data": {"task_id": 81}, "id": None, "means": "81"},
}
#: Bodies in which no task id stands that may be followed.
NO_RECEIPT: dict[str, Any] = {
    "a request alone": {"request_id": "r1"},
    "a request in data": {"code": 200, "data": {"request_id": "r1"}},
    "a request that went well": {"request_id": "r1", "status": "success"},
    "a request beside an HTTP status": {"request_id": "r1", "status": 200},
    "a request beside a status as text": {"request_id": "r1", "status": "200", "message": "success"},
    "an error's request": {"error": {"message": "no", "request_id": "r1"}, "request_id": "r1", "status": "queued"},
    "an error's id": {"error": {"id": "e1", "task_id": "e1", "message": "no"}},
    "a failure's id": {"code": 400, "message": "no", "data": {"job": {"id": "t1"}}},
    "a failure's video": {"code": -1, "video_id": "t1"},
    "a failed task": {"data": {"job": {"id": "t1", "status": "failed"}}},
    "a failure in a list": {"data": [{"video_id": "t1", "error": "no"}]},
    "a failure within": {"data": {"job": {"id": "t1", "error": {"message": "no"}}}},
    "no success": {"success": False, "result": {"video_id": "t1"}},
    "two tasks": {"data": [{"task_id": "t1"}, {"task_id": "t2"}]},
    "a word": {"code": 200, "data": "success"},
    "a sentence": {"code": 200, "data": "task 7 was submitted"},
    "an address": {"code": 200, "data": "https://gateway.example/v1"},
    "an empty text": {"data": {"id": " "}, "task": {"id": ""}},
    "other types": {"data": {"id": True, "task_id": [], "video_id": 0}, "task": {"id": -3}},
    "a user": {"data": {"user": {"id": "u1"}}},
    "four wrappers": {"data": {"result": {"output": {"task": {"id": "t1"}}}}},
}


def decoded(provider: str, body: Any, *, complete: bool = True) -> Receipt:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return GATEWAYS[provider].decode_receipt(HttpResponse(status=200, body=data, complete=complete))


@pytest.mark.parametrize("provider", GATEWAYS)
@pytest.mark.parametrize("shape", FAMILY)
def test_a_receipt_of_the_wider_family_is_read(shape: str, provider: str) -> None:
    """A receipt in a shape that the same hosts use for other models has its task id, at every gateway."""
    body = dict(FAMILY[shape])
    expected = body.pop("means", "t1")
    if shape.startswith("the task's id before the answer's") and GATEWAYS[provider].dialect.name == "videos":
        expected = "r1"  # the documented place comes first
    receipt = decoded(provider, body)
    assert (receipt.task_id, receipt.failure_code) == (expected, None)
    answer = HttpResponse(status=200, body=json.dumps(body).encode())
    assert classify_response(answer, receipt).verdict is SubmitVerdict.ACCEPTED


@pytest.mark.parametrize(
    "body", [{"id": "r1"}, {"id": "r1", "message": "accepted"}, {"id": "r1", "status": 200}, {"id": "r1", "code": 0}]
)
def test_an_id_without_a_task_beside_it_is_not_read(body: dict[str, Any]) -> None:
    """It may be that of the request; the same id beside a status or a type is the task's."""
    assert find_task_id(body) is None
    assert find_task_id(body | {"status": "queued"}) == find_task_id(body | {"object": "video"}) == "r1"


@pytest.mark.parametrize("provider", GATEWAYS)
@pytest.mark.parametrize("shape", NO_RECEIPT)
def test_a_body_without_a_task_id_has_no_receipt(shape: str, provider: str) -> None:
    """Neither an error's id, nor a request's alone, nor an id beside a failure is followed as a task."""
    receipt = decoded(provider, NO_RECEIPT[shape])
    answer = HttpResponse(status=200, body=json.dumps(NO_RECEIPT[shape]).encode())
    assert receipt.task_id is None
    assert classify_response(answer, receipt).verdict is not SubmitVerdict.ACCEPTED


# --- properties ----------------------------------------------------------------------------------------------------------

NAMES = [
    "id", "task_id", "taskId", "video_id", "request_id", "status", "object", "code", "error", "data", "result", "task",
    "job", "message", "user", "success", "output", "videos",
]  # fmt: skip
leaves = st.sampled_from(["ID", "ID", "ID", "queued", "success", "failed", 200, 0, 400, None, True, False, ""])
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=14,
)


def numbered(value: Any, path: tuple[str, ...] = ()) -> Any:
    """Return a tree whose every `ID` has become a text of its own, which spells its path."""
    if isinstance(value, dict):
        return {name: numbered(inner, (*path, name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [numbered(inner, (*path, str(number))) for number, inner in enumerate(value)]
    return f"1:{':'.join(path)}" if value == "ID" else value


def failing_objects(value: Any) -> Iterator[Any]:
    """Yield every object on the ways to a task that has an error of its own."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, dict):
        if value.get("error") not in (None, "", {}, [], False, 200, 0) or value.get("success") is False:
            yield value
        for name in ("data", "result", "task", "job", "output"):
            yield from failing_objects(value.get(name))


@given(trees)
def test_the_id_that_is_found_stands_where_a_task_has_its_id(tree: Any) -> None:
    """Whatever is found is a value of the body under a name of a task id, outside of errors, and not of a failure."""
    body = numbered(tree)
    found = find_task_id(body)
    if found is None or found in {"200", "400"}:  # a number may be an id
        return
    assert list(failing_objects(body)) == []
    assert found.startswith("1:")
    path = [name for name in found.split(":")[1:] if not name.isdecimal()]
    assert not set(path) & {"error", "message", "user", "videos", "object", "status", "code", "success"}
    assert path[-1] in {"id", "task_id", "taskId", "video_id", "request_id", "data", "result"}
    assert path != ["request_id"] or body["status"] not in {"success", "failed", "", 200, 0, 400}


@pytest.mark.parametrize("provider", GATEWAYS)
def test_a_receipt_in_a_list_of_one_is_read(provider: str) -> None:
    """A whole receipt that is the only item of a list is read as if it stood alone; of two receipts none is."""
    body = {"id": "t1", "code": 200, "data": {"task_id": "t1"}}
    assert decoded(provider, [body]).task_id == "t1"
    assert decoded(provider, [body, body]).task_id is None
    assert decoded(provider, [{**body, "error": "no"}]).failure_code == "error"


@given(st.sampled_from(sorted(GATEWAYS)), trees)
def test_the_documented_place_comes_first(provider: str, tree: Any) -> None:
    """Where the dialect itself finds a task id, no other is read."""
    body = numbered(tree)
    documented = GATEWAYS[provider].dialect.receipt(body).task_id
    assert documented is None or decoded(provider, body).task_id == documented


@pytest.mark.parametrize("provider", samples.PROVIDERS)
def test_a_recorded_receipt_gets_no_other_id(provider: str) -> None:
    """Every recorded receipt is read as its dialect reads it; no recorded error has a task id."""
    for sample in samples.load(provider, "create"):
        body = sample["response"]["body"]
        assert decoded(provider, body).task_id == GATEWAYS[provider].dialect.receipt(body).task_id is not None
    for sample in samples.load(provider, "error"):
        assert GATEWAYS[provider].decode_receipt(samples.response_of(sample)).task_id is None


# --- bodies that cannot be decoded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", GATEWAYS)
def test_a_receipt_that_is_cut_anywhere_has_its_whole_id_or_none(provider: str) -> None:
    """Of a receipt that was cut at any byte the id is read as soon as it is whole, and never a part of it."""
    body = b'{"code":200,"error":null,"success":true,"data":{"task_id":"task-5e1f","id":"task-5e1f"},"more":[{}]}'
    found = [decoded(provider, body[:end], complete=False).task_id for end in range(len(body) + 1)]
    first = found.index("task-5e1f")
    assert set(found[:first]) == {None}
    assert set(found[first:]) == {"task-5e1f"}
    assert first == body.index(b"task-5e1f") + len(b'task-5e1f"')


TORN_FAILURES = [
    b'{"error":{"id":"e1","task_id":"e1","message":"no ch',
    b'{"error":{"message":"no","type":"x","code":"y"},"task_id":"t1","id":"t1",',
    b'{"error": "no", "id":"t1", "data": {"task_id":"t1"},',
    b'{"code": 400, "data":{"task_id":"t1"},"id":"t1",',
    b'{"code":"-1","id":"t1","task_id":"t1",',
    b'{"id":"t1","task_id":"t1","status": 502,',
    b'{"success" : false, "task_id":"t1","id":"t1","m',
]


@pytest.mark.parametrize("provider", GATEWAYS)
@pytest.mark.parametrize("body", TORN_FAILURES, ids=bytes.decode)
def test_a_torn_failure_has_no_task_id(body: bytes, provider: str) -> None:
    """A failure that was cut is in doubt: neither the id of its error nor any other is followed."""
    receipt = decoded(provider, body, complete=False)
    answer = HttpResponse(status=200, body=body, complete=False)
    outcome = classify_response(answer, receipt)
    assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.UNKNOWN, None)
    assert body[:12].decode() in outcome.reason


def test_other_names_are_searched_for_in_a_torn_body() -> None:
    """After the documented name, other names of a task id are searched for; the name of a request is not."""
    torn = [b'{"data":{"video_id":"v1","x', b'{"result":{"taskId":"v1","x', b'{"status":"queued","request_id":"v1","x']
    answers = [HttpResponse(status=200, body=body, complete=False) for body in torn]
    assert [salvage_receipt(answer, None).task_id for answer in answers] == ["v1", "v1", None]
