"""What the emulator refuses and accepts, field by field, against a table written from the gateways' pages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pika_async.emulator import Gateway
from tests.emulator.page_fields import JSON_TYPES, OTHER_TYPES, PAGES, Page, with_value, without_field

AUTHORIZATION = {"Authorization": "Bearer emulator-key"}
HEADERS = {**AUTHORIZATION, "Content-Type": "application/json"}


def send(page: Page, body: Any, headers: dict[str, str] = HEADERS) -> tuple[Gateway, int, str]:
    """Send a create and return the gateway, the status and the field that its answer names ("" without one)."""
    gateway = Gateway()
    path = "/cometapi/pika/pro/generate" if page.provider == "cometapi" else f"/{page.provider}/pika/generate"
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = gateway.handle("POST", path, headers, raw, 0.0)
    return gateway, answer.status, (answer.json().get("error") or {}).get("param") or ""


@pytest.mark.parametrize("name", PAGES)
def test_documented_values_are_accepted_and_charged(name: str) -> None:
    """The page's own body, and each documented value of each field in it."""
    page = PAGES[name]
    bodies = [
        page.body,
        *(with_value(page.body, field.path, value) for field in page.fields for value in field.accepted),
    ]
    for body in bodies:
        gateway, status, named = send(page, body)
        assert (status, named, len(gateway.ledger)) == (200, "", 1), body


@pytest.mark.parametrize(
    "name, path", [(name, field.path) for name, page in PAGES.items() for field in page.fields], ids=str
)
def test_a_value_of_another_type_or_range_is_refused(name: str, path: str) -> None:
    """Each such value is answered with a 400 that names its field, and nothing is charged."""
    page = PAGES[name]
    field = next(field for field in page.fields if field.path == path)
    assert field.refused
    for value in field.refused:
        gateway, status, named = send(page, with_value(page.body, path, value))
        assert (status, gateway.ledger) == (400, []), value
        assert named == path or named.startswith(f"{path}."), value


@pytest.mark.parametrize("name", PAGES)
def test_a_missing_field_is_refused_exactly_if_it_is_required(name: str) -> None:
    """A required field is named; without any other field the request is accepted."""
    page = PAGES[name]
    for field in page.fields:
        gateway, status, named = send(page, without_field(page.body, field.path))
        if field.is_required and name.startswith("cometapi") and field.path in {"image", "video"}:
            # Without its reference it is a request of text, which requires a ratio.
            assert (status, gateway.ledger) == (400, []), field.path
        elif field.is_required:
            assert (status, named, gateway.ledger) == (400, field.path, []), field.path
        else:
            assert (status, named, len(gateway.ledger)) == (200, "", 1), field.path


@pytest.mark.parametrize("name", PAGES)
def test_a_field_of_another_page_is_refused(name: str) -> None:
    """The name of a sister's page, and a name of no page, beside a complete body."""
    page = PAGES[name]
    for foreign in (*page.foreign, "n", "options2"):
        gateway, status, named = send(page, {**page.body, foreign: "1"})
        assert (status, named, gateway.ledger) == (400, foreign, []), foreign


@pytest.mark.parametrize("name", PAGES)
def test_only_json_is_read_as_json(name: str) -> None:
    """Each JSON type is accepted with or without a charset; a type that only resembles it is refused."""
    page = PAGES[name]
    for content_type in JSON_TYPES:
        assert send(page, page.body, {**AUTHORIZATION, "Content-Type": content_type})[1] == 200, content_type
    for other in OTHER_TYPES:
        headers = AUTHORIZATION if other is None else {**AUTHORIZATION, "Content-Type": other}
        gateway, status, named = send(page, page.body, headers)
        assert (status, named, gateway.ledger) == (400, "Content-Type", []), other


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"true", b"1", b'"a cat"', b"[]", b"[{}]", b"{", b"{}{}", b"{'a': 1}", b'{"a": NaN}', b'{"a": Infinity}',
        b'{"a": -Infinity}', b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b'{"a": "\xff"}', b"a=1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", PAGES)
def test_a_body_that_is_not_a_json_object_is_refused(name: str, body: bytes) -> None:
    """Nothing is charged for it."""
    gateway, status, _ = send(PAGES[name], body)
    assert (status, gateway.ledger) == (400, [])


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, "task_id"), ({"task_id": None}, "task_id"), ({"task_id": 5}, "task_id"), ({"task_id": True}, "task_id"),
        ({"task_id": ["t"]}, "task_id"), ({"id": "t"}, "task_id"), ({"task_id": "t", "action": "FETCH"}, "action"),
    ],
)  # fmt: skip
def test_a_feed_of_cometapi_takes_one_string(body: dict[str, Any], field: str) -> None:
    """Anything but `{"task_id": "..."}` is refused by name."""
    answer = Gateway().handle("POST", "/cometapi/pika/feed", HEADERS, json.dumps(body).encode(), 0.0)
    assert (answer.status, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize("value", ["", "emulator-key", "bearer emulator-key", "Bearer  emulator-key", "Bearer emulator-key ",
                                   "Bearer other", "Basic emulator-key", "Token emulator-key"])  # fmt: skip
def test_only_the_exact_bearer_key_is_accepted(value: str) -> None:
    """Every other value is answered with 401, and nothing is charged."""
    for page in PAGES.values():
        gateway, status, _ = send(page, page.body, {"Authorization": value, "Content-Type": "application/json"})
        assert (status, gateway.ledger) == (401, [])
