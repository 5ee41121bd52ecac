"""The board over real sockets: who is answered, what a reader gets, and what is served of the folder."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web

from pika_async import PikaClient
from pika_async.errors import ConfigurationError
from pika_async.report.board import BoardReply, BoardRequest, byte_range
from pika_async.report.board_servers import aiohttp_board, asgi_board
from tests.report.board_reader import TOKEN, board_of, reading
from tests.report.jobs import failed, succeeded


@pytest.mark.anyio
async def test_everything_is_forbidden_without_the_token(tmp_path: Path) -> None:
    """Whatever exists behind it, and whatever else is tried."""
    async with reading(tmp_path) as reader:
        for path in ("/", "/events", "/healthz", "/timeline", "/assets/board.js", "/journal.db", "/?token=wrong"):
            status, headers, body = await reader.get(path)
            assert (status, "Set-Cookie" in headers, TOKEN.encode() in body) == (403, False, False), path


@pytest.mark.anyio
async def test_a_browser_gets_a_cookie_and_the_address_without_the_token(tmp_path: Path) -> None:
    """The page then has a policy that runs no foreign script, and stands in no frame."""
    async with reading(tmp_path) as reader:
        status, headers, _ = await reader.get(f"/?token={TOKEN}", Accept="text/html")
        assert (status, headers["Location"]) == (303, "/")
        assert headers["Set-Cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")
        status, headers, body = await reader.get("/")
        assert (status, headers["Cache-Control"], headers["Referrer-Policy"]) == (200, "no-store", "no-referrer")
        policy = headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert TOKEN.encode() not in body
        assert (await reader.get("/assets/board.js"))[0] == 200


@pytest.mark.anyio
async def test_another_host_or_origin_is_forbidden_with_the_cookie_too(tmp_path: Path) -> None:
    """So a site whose name points to this machine reads nothing."""
    async with reading(tmp_path) as reader:
        await reader.enter()
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            for path in ("/", "/events", "/healthz", f"/?token={TOKEN}"):
                assert (await reader.get(path, **headers))[0] == 403
        assert (await reader.get("/healthz", Origin=reader.url))[0] == 200


@pytest.mark.anyio
async def test_a_reader_who_comes_back_gets_what_it_missed(tmp_path: Path) -> None:
    """By the id of its last event, which is the revision of the journal."""
    async with reading(tmp_path) as reader:
        await reader.enter()
        for number in range(3):
            await reader.journal.save(failed(f"k{number}", "no", index=number))
        assert [key for _, key in await reader.cards(count=3)] == ["k0", "k1", "k2"]
        await reader.journal.save(failed("k3", "no", index=3))
        missed = await reader.cards(count=2, Last_Event_ID="3")
        assert ([key for _, key in missed], missed[-1][0]) == (["k2", "k3"], "4")
        status, _, body = await reader.get("/healthz")
        assert (status, json.loads(body)["revision"]) == (200, reader.journal.revision)


@pytest.mark.anyio
async def test_a_page_gets_only_what_changes_after_it(tmp_path: Path) -> None:
    """It names the number that it has; the cards of the page are not sent again."""
    async with reading(tmp_path) as reader:
        await reader.enter()
        await reader.journal.save(failed("k0", "no"))
        await reader.cards(count=1)
        _, _, body = await reader.get("/")
        data = json.loads(body.decode().partition('type="application/json">')[2].partition("</script>")[0])
        head = data["head"]
        assert [card["key"] for card in data["cards"]] == ["k0"]
        await reader.journal.save(failed("k1", "no", index=1))
        query = f"?after={head['revision']}&epoch={head['epoch']}&seen={head['number']}"
        assert await reader.cards(query, count=1) == [("2", "k1")]


@pytest.mark.anyio
@pytest.mark.parametrize("last", ["x", "-1", "1e3", "9" * 30, "1\t2"])
async def test_an_id_must_be_a_number(tmp_path: Path, last: str) -> None:
    """It came from elsewhere."""
    async with reading(tmp_path) as reader:
        await reader.enter()
        assert (await reader.get("/events", Last_Event_ID=last))[0] == 400


@pytest.mark.anyio
async def test_a_download_is_shown_although_it_has_no_revision(tmp_path: Path) -> None:
    """Readers get its card with the file, and the file by its link, also in parts."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(bytes(range(100)))
    async with reading(tmp_path) as reader:
        await reader.enter()
        job = succeeded("a")
        await reader.journal.save(job)
        assert await reader.cards(count=1) == [("1", "a")]
        assert (await reader.get("/videos/a.mp4"))[0] == 404
        await reader.journal.save(attrs.evolve(job, file=tmp_path / "videos" / "a.mp4"))
        async for _, name, data in reader.events():
            if name == "cards" and "file" in data[0]:
                break
        status, headers, body = await reader.get("/videos/a.mp4")
        assert (status, headers["Content-Type"], body) == (200, "video/mp4", bytes(range(100)))
        status, headers, body = await reader.get("/videos/a.mp4", Range="bytes=10-19")
        assert (status, headers["Content-Range"], body) == (206, "bytes 10-19/100", bytes(range(10, 20)))


@pytest.mark.anyio
async def test_only_linked_files_are_served(tmp_path: Path) -> None:
    """Not the journal, not a neighbour, not a path that leads out."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "other.mp4").write_bytes(b"other")
    async with reading(tmp_path) as reader:
        await reader.enter()
        for path in (
            "/journal.db",
            "/videos/other.mp4",
            "/videos/%2e%2e/journal.db",
            "/assets/../page.py",
            "//etc/passwd",
        ):
            assert (await reader.get(path))[0] == 404, path


@pytest.mark.anyio
async def test_no_log_holds_the_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at debug."""
    with caplog.at_level(logging.DEBUG):
        async with reading(tmp_path) as reader:
            await reader.enter()
    assert TOKEN not in caplog.text


@pytest.mark.anyio
async def test_changes_are_forbidden_unless_allowed(tmp_path: Path) -> None:
    """A board that may control takes the page's own request alone."""
    done: list[tuple[str, Mapping[str, Any]]] = []

    async def control(name: str, arguments: Mapping[str, Any]) -> str:
        done.append((name, arguments))
        return "paused"

    async with reading(tmp_path) as reader:
        await reader.enter()
        headers = {"Origin": reader.url, "X-Board-Token": reader.board.access.control_token}
        async with reader.session.post(f"{reader.url}/control/pause", json={}, headers=headers) as response:
            assert response.status == 403
    async with reading(tmp_path, control=control) as reader:
        await reader.enter()
        headers = {"Origin": reader.url, "X-Board-Token": reader.board.access.control_token}
        for wrong in ({}, {"Origin": reader.url}, {**headers, "Origin": "http://evil.example"}):
            async with reader.session.post(f"{reader.url}/control/pause", json={}, headers=wrong) as response:
                assert response.status == 403
        async with reader.session.post(f"{reader.url}/control/pause", json=[], headers=headers) as response:
            assert response.status == 400
        assert done == []
        async with reader.session.post(f"{reader.url}/control/pause", json={"a": 1}, headers=headers) as response:
            assert (response.status, await response.json()) == (200, {"done": "paused"})
    assert done == [("pause", {"a": 1})]


@pytest.mark.anyio
async def test_a_mounted_board_keeps_to_its_place(tmp_path: Path) -> None:
    """As a sub-application of aiohttp: the cookie is sent to no other path."""
    board = board_of(tmp_path)
    app = web.Application()
    app.add_subapp("/board", aiohttp_board(board))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            entering = session.get(
                f"{url}/board/?token={TOKEN}", headers={"Accept": "text/html"}, allow_redirects=False
            )
            async with entering as response:
                assert (response.status, response.headers["Location"]) == (303, "/board/")
                assert "; Path=/board/;" in response.headers["Set-Cookie"]
            async with session.get(f"{url}/board/healthz") as response:
                assert response.status == 200
    finally:
        await runner.cleanup()


@pytest.mark.anyio
async def test_the_asgi_application_answers_as_the_other(tmp_path: Path) -> None:
    """A request below its mount, two values of one header, and a stream whose reader leaves."""
    asgi = asgi_board(board_of(tmp_path))

    async def call(path: str, query: str, *headers: tuple[bytes, bytes], leaves: bool = False) -> list[Any]:
        sent: list[Any] = []
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if leaves and message.get("body"):
                gone.set()

        scope = {
            "type": "http", "method": "GET", "path": f"/mounted{path}", "root_path": "/mounted",
            "query_string": query.encode(), "headers": headers,
        }  # fmt: skip
        await asgi(scope, receive, send)
        return sent

    host = (b"Host", b"localhost")
    assert (await call("/healthz", "", host))[0]["status"] == 403
    start, body = await call("/healthz", f"token={TOKEN}", host)
    cookie = dict(start["headers"])[b"set-cookie"]
    assert start["status"] == 200
    assert b"; Path=/mounted/;" in cookie
    assert json.loads(body["body"])["ok"]
    assert (await call("/healthz", f"token={TOKEN}", host, (b"host", b"evil.example")))[0]["status"] == 403
    start, first, *_ = await call("/events", f"token={TOKEN}", host, leaves=True)
    assert start["status"] == 200
    assert b"event: hello" in first["body"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, None), ("bytes=0-9", (0, 10)), ("bytes=90-", (90, 100)), ("bytes=-5", (95, 100)),
        ("bytes=50-500", (50, 100)), ("bytes=100-", None), ("bytes=9-1", None), ("bytes=", None), ("lines=0-1", None),
        ("bytes=0-1,5-6", None), ("bytes=-500", (0, 100)), ("bytes=x-1", None),
    ],
)  # fmt: skip
def test_ranges(wanted: str | None, expected: tuple[int, int] | None) -> None:
    """One range is served in part; any other header gets the whole file."""
    assert byte_range(wanted, 100) == expected


@pytest.mark.anyio
async def test_a_journal_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The board goes on, and tells on its page and in its health."""
    (tmp_path / "journal.db").write_bytes(b"no database" * 100)
    board = board_of(tmp_path)
    await board.source.refresh()

    async def read(_: int) -> bytes:
        return b""

    request = BoardRequest(
        method="GET", path="/healthz", query=f"token={TOKEN}", headers={"host": "localhost"}, read=read
    )
    reply: BoardReply = await board.handle(request)
    assert isinstance(reply.body, bytes)
    assert (reply.status, json.loads(reply.body)["ok"]) == (503, False)


@pytest.mark.anyio
async def test_a_client_has_a_board(tmp_path: Path) -> None:
    """It is mounted under the names that the service has, and shows whether the client is open."""
    client = PikaClient("cometapi", api_key="k", journal=tmp_path / "journal.db")
    app = web.Application()
    app.add_subapp("/board", client.board.app(hosts=["Videos.example"]))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/board/healthz"
        async with client, aiohttp.ClientSession() as session:
            for host, status in (("videos.example", 200), ("other.example", 403)):
                headers = {"Host": host}
                async with session.get(f"{url}?token={client.board.token}", headers=headers) as response:
                    assert response.status == status
                    assert status != 200 or (await response.json())["running"]
    finally:
        await runner.cleanup()
    assert client.board.token not in repr(client.board)
    assert client.board is client.board
    assert client.board.asgi() is not None


def test_a_client_without_a_file_has_no_board() -> None:
    """The board reads the file."""
    with pytest.raises(ConfigurationError, match="journal"):
        _ = PikaClient("cometapi", api_key="k").board
