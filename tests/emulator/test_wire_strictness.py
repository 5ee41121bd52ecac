"""What the emulated Pika API and fal refuse and accept, field by field, over sockets, against a table of their documents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from pika_async.emulator import Emulator
from tests.emulator.page_fields import JSON_TYPES, OTHER_TYPES, Page, with_value, without_field
from tests.emulator.wire_client import Reply, WireClient
from tests.emulator.wire_fields import FAL_PAGES, PIKA_PAGES

pytestmark = pytest.mark.anyio

PAGES: dict[str, Page] = {**PIKA_PAGES, **FAL_PAGES}


@pytest.fixture
async def client(session: aiohttp.ClientSession) -> AsyncIterator[WireClient]:
    """Return a client of an emulator whose tasks do not settle during a test."""
    async with Emulator(durations="constant:3600", render=False) as served:
        yield WireClient(session, served)


async def send(client: WireClient, name: str, body: Any, **headers: str | None) -> Reply:
    """Submit a body to the page *name*."""
    if name in PIKA_PAGES:
        return await client.pika_submit(body, operation=name, **headers)
    return await client.fal("POST", f"/{name}", body, **headers)


def named_field(name: str, reply: Reply) -> str:
    """Return the field that a refusal names."""
    if name in PIKA_PAGES:
        assert reply.json()["error"]["code"] == "invalid_input"
        return str(reply.json()["error"]["message"]).partition(":")[0]
    (problem,) = reply.json()["detail"]
    return ".".join(problem["loc"][1:])


async def refused_field(client: WireClient, name: str, body: Any) -> str:
    """Submit a body that must be refused and not be charged, and return the field that the refusal names."""
    charges = len(client.emulator.ledger)
    reply = await send(client, name, body)
    assert (reply.status, len(client.emulator.ledger)) == (422, charges), body
    return named_field(name, reply)


@pytest.mark.parametrize("name", PAGES)
async def test_documented_values_are_accepted_and_charged(client: WireClient, name: str) -> None:
    """The page's own body, and each documented value of each field in it."""
    page = PAGES[name]
    bodies = [
        page.body,
        *(with_value(page.body, field.path, value) for field in page.fields for value in field.accepted),
    ]
    for body in bodies:
        assert (await send(client, name, body)).status == 200, body
    assert [charge.body for charge in client.emulator.ledger] == bodies
    assert client.emulator.refusals == []


@pytest.mark.parametrize(
    "name, path", [(name, field.path) for name, page in PAGES.items() for field in page.fields], ids=str
)
async def test_a_value_of_another_type_or_range_is_refused(client: WireClient, name: str, path: str) -> None:
    """Each such value is answered with a 422 that names its field, and nothing is charged."""
    page = PAGES[name]
    field = next(field for field in page.fields if field.path == path)
    assert field.refused
    for value in field.refused:
        assert await refused_field(client, name, with_value(page.body, path, value)) == path, value


@pytest.mark.parametrize("name", PAGES)
async def test_a_missing_field_is_refused_exactly_if_it_is_required(client: WireClient, name: str) -> None:
    """A required field is named; without any other field the submission is accepted."""
    page = PAGES[name]
    for field in page.fields:
        body = without_field(page.body, field.path)
        if field.is_required:
            assert await refused_field(client, name, body) == field.path
        else:
            assert (await send(client, name, body)).status == 200, field.path


@pytest.mark.parametrize("name", PAGES)
async def test_a_field_of_another_page_is_refused(client: WireClient, name: str) -> None:
    """A name of another operation or wire, and a name of none, beside a complete body."""
    page = PAGES[name]
    for foreign in (*page.foreign, "n", "prompt2"):
        assert await refused_field(client, name, {**page.body, foreign: "1"}) == foreign


@pytest.mark.parametrize("name", PAGES)
async def test_only_json_is_read(client: WireClient, name: str) -> None:
    """A JSON object with a type of JSON is accepted; another type, another value and no JSON are refused."""
    page = PAGES[name]
    for content_type in JSON_TYPES:
        assert (await send(client, name, page.body, Content_Type=content_type)).status == 200, content_type
    charges = len(client.emulator.ledger)
    for other in OTHER_TYPES:
        assert (await send(client, name, page.body, Content_Type=other)).status == 400, other
        assert client.emulator.refusals[-1].field == "Content-Type"
    for body in (b"", b"{", b'{"prompt": NaN}', b"\xef\xbb\xbf{}", b'{"prompt": "\xff"}', b"prompt=a"):
        assert (await send(client, name, body)).status == 400, body
    for value in (None, True, 1, "a cat", [], [page.body]):
        assert (await send(client, name, json.dumps(value).encode())).status == 422, value
    assert (await send(client, name, b" " * 1_000_001)).status == 413
    assert len(client.emulator.ledger) == charges


async def test_a_swap_names_exactly_one_region(client: WireClient) -> None:
    """A text or a mask: not both, and not neither."""
    name = "pika/pikaswaps/video-to-video"
    body = PIKA_PAGES[name].body
    mask = "https://a.example/mask.png"
    assert await refused_field(client, name, {**body, "modify_region_mask": mask}) == "modify_region_roi"
    masked = {**without_field(body, "modify_region_roi"), "modify_region_mask": mask}
    assert (await send(client, name, masked)).status == 200
    assert (
        await refused_field(client, name, {**masked, "modify_region_mask": "http://a.example/x"})
        == "modify_region_mask"
    )
