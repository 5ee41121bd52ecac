"""Changes through the board over real sockets: from the page itself, on purpose, and from nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pika_async.errors import ConfigurationError
from tests.report.board_reader import TOKEN, Reader, reading

pytestmark = pytest.mark.anyio


def state() -> dict[str, Any]:
    return {"open": True, "paused": False, "room": 7}


class Changes:
    """The control under test: it records what it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.made: list[tuple[str, Mapping[str, Any]]] = []
        self.error = error

    async def __call__(self, name: str, arguments: Mapping[str, Any]) -> str:
        if self.error is not None:
            raise self.error
        self.made.append((name, arguments))
        return f"done: {name}"


async def head_of(reader: Reader) -> Any:
    _, _, body = await reader.get("/")
    return json.loads(body.decode().partition('type="application/json">')[2].partition("</script>")[0])["head"]


async def post(
    reader: Reader, *, body: str = "{}", method: str = "POST", omit: str = "", path: str = "/control/pause", **more: str
) -> tuple[int, str]:
    headers = {
        "Origin": reader.url, "Content-Type": "application/json", "X-Board-Token": reader.board.access.control_token,
    }  # fmt: skip
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    headers.pop(omit, None)
    async with reader.session.request(method, f"{reader.url}{path}", data=body, headers=headers) as response:
        return response.status, await response.text()


async def test_a_change_from_the_page_is_carried_out(tmp_path: Path) -> None:
    """The page has its token and the state of the batch; the reply says what was done."""
    changes = Changes()
    async with reading(tmp_path, control=changes, state=state) as reader:
        await reader.enter()
        head = await head_of(reader)
        assert head["control"] == reader.board.access.control_token
        assert head["control"] not in {TOKEN, reader.board.access.cookie_value}
        assert head["batch"] == state()
        status, body = await post(reader, path="/control/room", body='{"jobs": 5}')
        assert (status, json.loads(body)) == (200, {"done": "done: room"})
        assert changes.made == [("room", {"jobs": 5})]


@pytest.mark.parametrize(
    "wrong",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"omit": "Origin"},
        {"Host": "evil.example"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"omit": "X-Board-Token"},
        {"X_Board_Token": TOKEN},
        {"method": "GET"},
        {"method": "PUT"},
    ],
    ids=str,
)
async def test_a_change_from_elsewhere_is_forbidden(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """A form, a script or a name of another site changes nothing, although the browser has the cookie."""
    changes = Changes()
    async with reading(tmp_path, control=changes, state=state) as reader:
        await reader.enter()
        assert (await post(reader, **wrong))[0] == 403
        reader.session.cookie_jar.clear()
        assert (await post(reader))[0] == 403
        assert (await post(reader, path=f"/control/pause?token={TOKEN}"))[0] == 403
    assert changes.made == []


async def test_a_board_that_only_reads_changes_nothing(tmp_path: Path) -> None:
    """Its page has no token of changes."""
    async with reading(tmp_path) as reader:
        await reader.enter()
        assert "control" not in await head_of(reader)
        assert (await post(reader))[0] == 403


@pytest.mark.parametrize("error", [ConfigurationError(setting="max_in_flight", reason="must be"), LookupError("none")])
async def test_a_change_that_cannot_be_made_is_explained(tmp_path: Path, error: Exception) -> None:
    """The reply has the reason as text."""
    async with reading(tmp_path, control=Changes(error), state=state) as reader:
        await reader.enter()
        status, body = await post(reader)
        assert (status, json.loads(body)) == (409, {"error": str(error)})


async def test_another_state_is_sent_at_once(tmp_path: Path) -> None:
    """Every page shows a pause, also the one that did not ask for it."""
    now = {"paused": False}
    async with reading(tmp_path, control=Changes(), state=lambda: dict(now)) as reader:
        await reader.enter()
        seen = []
        async for _, name, data in reader.events():
            if name == "head":
                seen.append(data["batch"]["paused"])
                now["paused"] = True
            if len(seen) == 2:
                break
        assert seen == [False, True]
