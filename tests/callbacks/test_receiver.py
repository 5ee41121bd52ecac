"""The receiver of callbacks: its arguments, its handlers, and one response to everything wrong, however it is served."""

from __future__ import annotations

import asyncio
import logging
import re
from hashlib import sha256
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from pika_async import CallbackReceiver, ConfigurationError
from pika_async._http import callback_server as _callback_server
from pika_async._http import callbacks
from tests.fakes.raw_server import free_port
from tests.fakes.receivers import (
    PUBLIC,
    SERVING_MODES,
    RecordingHandler,
    post,
    send_raw,
    served,
    status_of,
    under_uvicorn,
    without_date,
)
from tests.fakes.requirements import require_module

pytestmark = pytest.mark.anyio

#: A token that was never issued.
STRANGER = "A" * 43


@pytest.fixture(params=SERVING_MODES)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, kept",
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com/", "https://example.com"),
        ("https://example.com/hooks/", "https://example.com/hooks"),
        ("https://example.com:8443/a/b", "https://example.com:8443/a/b"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://[::1]:9000/x/", "http://[::1]:9000/x"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_a_public_address_is_kept_without_a_slash_at_its_end(given: str, kept: str) -> None:
    """A callback URL begins with the given public URL."""
    receiver = CallbackReceiver(given)
    assert receiver.public_url == kept
    assert receiver.issue()[0].startswith(f"{kept}/callbacks/")


@pytest.mark.parametrize(
    "given",
    [
        "", "example.com", "ftp://example.com", "https://", "https:///hooks", "https://h/?", "https://h/?a=b",
        "https://h/#", "https://h/a b", "https://h/a\tb", "https://h\n", " https://h", "https://h:0", "https://h:99999",
        "https://[::1", None, 7, b"https://h", "https://h/\x1b[31m", "https://h/\ud800", "/hooks",
    ],
)  # fmt: skip
def test_an_address_that_no_gateway_can_call_is_refused(given: Any) -> None:
    """The error names the setting and the way out, and is printable."""
    with pytest.raises(ConfigurationError, match=r"public_url: .* give the URL") as caught:
        CallbackReceiver(given)
    assert caught.value.setting == "public_url"
    assert caught.value.message.isprintable()


def test_a_credential_in_the_address_is_refused_and_not_shown() -> None:
    """No error repeats a password."""
    with pytest.raises(ConfigurationError, match="public_url: must not hold a user") as caught:
        CallbackReceiver("https://me:hunter2@example.com")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address, warned",
    [
        ("http://example.com/hooks", True),
        ("http://10.0.0.1", True),
        ("http://localhost:9000", False),
        ("http://127.0.0.2", False),
        ("https://example.com", False),
    ],
)
def test_plain_text_is_warned_of_once(address: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Anyone who sees a token may forge a callback: http is only for loopback."""
    receiver = CallbackReceiver(address)
    receiver.issue()
    warnings = [record for record in caplog.records if record.name == "pika_async.callbacks"]
    assert [record.levelno for record in warnings] == [logging.WARNING] * warned
    assert all("plain text" in record.message for record in warnings)


@pytest.mark.parametrize(
    "place, setting",
    [
        ({"host": "127.0.0.1"}, "host"),
        ({"port": -1}, "port"),
        ({"port": 65_536}, "port"),
        ({"port": True}, "port"),
        ({"port": "8080"}, "port"),
        ({"port": 8080.0}, "port"),
        ({"port": 0, "host": ""}, "host"),
        ({"port": 0, "host": "a b"}, "host"),
        ({"port": 0, "host": "a\n"}, "host"),
        ({"port": 0, "host": 1}, "host"),
    ],
)
def test_a_place_that_cannot_be_listened_at_is_refused(place: Any, setting: str) -> None:
    """The error names the argument and the way out."""
    with pytest.raises(ConfigurationError, match="give") as caught:
        CallbackReceiver(PUBLIC, **place)
    assert caught.value.setting == setting


async def test_a_taken_port_is_named() -> None:
    """The error of the second receiver names the port; it is not attached, and the first one continues."""
    port, handler = free_port(), RecordingHandler()
    first, second = CallbackReceiver(PUBLIC, port=port), CallbackReceiver(PUBLIC, port=port)
    await first.attach(handler)
    with pytest.raises(ConfigurationError, match=f"port: {port} at 127.0.0.1 is taken") as caught:
        await second.attach(RecordingHandler())
    assert caught.value.__cause__ is None
    assert (first.port, second.port) == (port, None)
    assert status_of(await send_raw(port, post(handler.issue_path(first)))) == 202
    await first.detach(handler)
    await second.attach(handler)
    assert (first.port, second.port) == (None, port)
    await second.detach(handler)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.invalid", "a" * 300, "\u00fc" * 99])
async def test_an_address_of_another_machine_is_named(host: str) -> None:
    """What cannot be bound is a mistake in `host`, not a traceback."""
    with pytest.raises(ConfigurationError, match="must be an address of this machine") as caught:
        await CallbackReceiver(PUBLIC, host=host, port=0).attach(RecordingHandler())
    assert caught.value.setting == "host"


def test_every_submission_gets_a_token_of_its_own() -> None:
    """A token has 32 random bytes; beside the URL only its SHA-256 is returned."""
    receiver = CallbackReceiver("https://example.com")
    issued = [receiver.issue() for _ in range(1000)]
    assert len({address for address, _ in issued}) == 1000
    for address, digest in issued:
        token = address.rpartition("/")[2]
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
        assert digest == sha256(token.encode()).hexdigest()
    assert repr(receiver) == "<CallbackReceiver at https://example.com>"


# --- one request, however it is served ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"{}", b"", b"no json", b"\x00\xff\x1b[31m", b"x" * (1 << 16), '{"ключ": "значение"}'.encode()]
)
async def test_a_known_token_is_accepted_whatever_the_body(way: str, body: bytes) -> None:
    """202 with no body, and the handler is passed every byte."""
    handler = RecordingHandler()
    async with served(way, handler) as (receiver, port):
        answer = await send_raw(port, post(handler.issue_path(receiver), body))
        assert status_of(answer) == 202
        assert answer.endswith(b"\r\n\r\n")
        assert handler.bodies == [body]
        assert (receiver.received, receiver.refused) == (1, 0)


async def test_a_body_may_come_in_pieces(way: str) -> None:
    """Chunked, and segment by segment."""
    handler = RecordingHandler()
    chunks = [b"3\r\nabc\r\n", b"4\r\ndefg\r\n", b"0\r\n\r\n"]
    async with served(way, handler) as (receiver, port):
        head = post(handler.issue_path(receiver), b"", "Transfer-Encoding: chunked")
        assert status_of(await send_raw(port, head[:20], head[20:], *chunks, pause=0.01)) == 202
        assert handler.bodies == [b"abcdefg"]


async def test_a_sender_that_waits_for_leave_to_send_gets_it(way: str) -> None:
    """`Expect: 100-continue`, as curl sends it, costs no delay."""
    handler = RecordingHandler()
    async with served(way, handler) as (receiver, port):
        head = post(handler.issue_path(receiver), b"", "Expect: 100-continue", "Content-Length: 2")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)).startswith(b"HTTP/1.1 100 ")
        writer.write(b"{}")
        assert status_of(await reader.read()) == 202
        writer.close()
        await writer.wait_closed()


async def test_everything_wrong_gets_the_same_answer(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One 404, byte for byte: method, path, token, size and slowness get the same response, and no handler is called."""
    monkeypatch.setattr(callbacks, "BODY_TIMEOUT_S", 0.2)
    monkeypatch.setitem(_callback_server._OPTIONS, "lingering_time", 0.1)
    handler = RecordingHandler()
    async with served(way, handler) as (receiver, port):
        good = handler.issue_path(receiver)
        wrong = {
            "unknown token": post(f"/hooks/callbacks/{STRANGER}"),
            "short token": post("/hooks/callbacks/abc"),
            "long token": post(f"{good}A"),
            "bad token": post(f"/hooks/callbacks/{'%00' * 43}"),
            "newline": post(f"{good}%0A"),
            "no token": post("/hooks/callbacks/"),
            "more path": post(f"{good}/x"),
            "other path": post("/hooks/else"),
            "get": post(good, b"", method="GET"),
            "put": post(good, method="PUT"),
            "delete": post(good, method="DELETE"),
            "options": post(good, b"", method="OPTIONS"),
            "trace": post(good, b"", method="TRACE"),
            "own method": post(good, b"", method="FROB"),
            "expectation": post(f"/hooks/callbacks/{STRANGER}", b"{}", "Expect: the-best"),
            "oversized": post(good, b"x" * ((1 << 16) + 1)),
            "oversized unsent": post(good, b"", "Content-Length: 999999999999"),
            "slow": post(good, b"{", "Content-Length: 2"),
            "websocket": post(good, b"", "Upgrade: websocket", "Connection: Upgrade", method="GET"),
        }
        if way == "aiohttp":  # its parser refuses the method before any application is asked
            del wrong["own method"]
        answers = {name: without_date(await send_raw(port, request)) for name, request in wrong.items()}
        answers["head"] = without_date(await send_raw(port, post(good, b"", method="HEAD")))
        assert set(answers.values()) == {answers["unknown token"]}
        assert status_of(answers["unknown token"]) == 404
        assert answers["unknown token"].endswith(b"\r\n\r\n")
        assert handler.calls == []
        assert (receiver.received, receiver.refused) == (0, len(answers))


async def test_a_path_is_known_by_its_tail() -> None:
    """Whether a proxy keeps its prefix or strips it, or adds a slash or a query."""
    handler = RecordingHandler()
    async with served("own", handler) as (receiver, port):
        tail = handler.issue_path(receiver).removeprefix("/hooks")
        for path in (tail, f"/hooks{tail}", f"/a/b/c{tail}", f"{tail}/", f"{tail}?x=1", f"http://h.example/p{tail}"):
            assert status_of(await send_raw(port, post(path))) == 202, path
        assert status_of(await send_raw(port, post(f"/x{tail[1:]}"))) == 404


async def test_a_callback_may_come_twice() -> None:
    """A repeated callback is passed on again; the handler decides what it means."""
    handler = RecordingHandler()
    async with served("own", handler) as (receiver, port):
        path = handler.issue_path(receiver)
        assert [status_of(await send_raw(port, post(path))) for _ in range(3)] == [202] * 3
        assert (len(handler.calls), receiver.received) == (3, 3)


# --- who is asked ---------------------------------------------------------------------------------------------------


async def test_without_a_handler_every_token_is_unknown() -> None:
    """In a mount that is served before a client is open, or after it was closed."""
    receiver, handler = CallbackReceiver(PUBLIC), RecordingHandler()
    path = handler.issue_path(receiver)
    async with under_uvicorn(receiver.asgi) as port:
        assert status_of(await send_raw(port, post(path))) == 404
        await receiver.attach(handler)
        assert status_of(await send_raw(port, post(path))) == 202
        await receiver.detach(handler)
        assert status_of(await send_raw(port, post(path))) == 404
    assert len(handler.calls) == 1


async def test_handlers_are_asked_in_turn() -> None:
    """Each callback reaches the one that knows its token; the server lives as long as the last of them."""
    first, second = RecordingHandler(), RecordingHandler()
    receiver = CallbackReceiver(PUBLIC, port=0)
    await asyncio.gather(receiver.attach(first), receiver.attach(second), receiver.attach(first))
    port = receiver.port
    assert port is not None
    assert status_of(await send_raw(port, post(first.issue_path(receiver), b"1"))) == 202
    assert status_of(await send_raw(port, post(second.issue_path(receiver), b"2"))) == 202
    await receiver.detach(first)
    assert status_of(await send_raw(port, post(second.issue_path(receiver), b"3"))) == 202
    assert (first.bodies, second.bodies) == ([b"1"], [b"2", b"3"])
    await receiver.detach(second)
    await receiver.detach(second)
    assert receiver.port is None
    with pytest.raises(ConnectionRefusedError):
        await send_raw(port, b"")


async def test_a_handler_that_is_detached_during_a_body_is_not_called() -> None:
    """Its client was closed: the callback gets the 404 of an unknown token."""
    gone, stays = RecordingHandler(), RecordingHandler()
    async with served("own", gone) as (receiver, port):
        await receiver.attach(stays)
        request = post(gone.issue_path(receiver), b"{}")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request[:-1])
        while not gone.lookups:
            await asyncio.sleep(0.01)
        await receiver.detach(gone)
        writer.write(request[-1:])
        assert status_of(await reader.read()) == 404
        writer.close()
        await writer.wait_closed()
        assert gone.calls == []
        await receiver.detach(stays)


class _Broken(RecordingHandler):
    """Fails as a listener with a defect would, with what a stranger sent in its words."""

    async def accepts(self, token_sha256: str) -> bool:
        raise RuntimeError(f"\x1b[31m {token_sha256}")


class _Choking(RecordingHandler):
    def handle(self, token_sha256: str, body: bytes) -> None:
        raise ValueError(body.decode())


async def test_a_handler_that_fails_harms_no_other(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its defect is logged once, in our own words; the others are asked, and a sender gets no 5xx."""
    choking = _Choking()
    async with served(way, choking) as (receiver, port):
        broken, handler = _Broken(), RecordingHandler()
        receiver._handlers = [broken, choking]
        await receiver.attach(handler)
        for _ in range(5):
            assert status_of(await send_raw(port, post(f"/hooks/callbacks/{STRANGER}"))) == 404
            assert status_of(await send_raw(port, post(handler.issue_path(receiver)))) == 202
            assert status_of(await send_raw(port, post(choking.issue_path(receiver), b"\x1b[31m red"))) == 202
        await receiver.detach(handler)
        await receiver.detach(broken)
    lines = [record.getMessage() for record in caplog.records if record.name == "pika_async.callbacks"]
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert ["RuntimeError" in line for line in lines] == [True, False]
    assert receiver.received == 10


def test_it_serves_in_one_loop_after_another() -> None:
    """Attached and detached twice in each of two loops, on the same port."""
    receiver, handler = CallbackReceiver(PUBLIC, port=free_port()), RecordingHandler()

    async def use() -> None:
        for _ in range(2):
            await receiver.attach(handler)
            assert receiver.port is not None
            assert status_of(await send_raw(receiver.port, post(handler.issue_path(receiver)))) == 202
            await receiver.detach(handler)

    asyncio.run(use())
    asyncio.run(use())
    uvloop = require_module("uvloop")
    uvloop.run(use())
    asyncio.run(use())
    assert len(handler.calls) == 8


def test_it_serves_again_after_a_loop_that_ended_under_it() -> None:
    """A receiver that was left attached to a closed loop works in the next one."""
    receiver, lost, handler = CallbackReceiver(PUBLIC, port=free_port()), RecordingHandler(), RecordingHandler()

    async def leave() -> None:
        await receiver.attach(lost)

    async def use() -> None:
        await receiver.attach(handler)
        assert receiver.port is not None
        assert status_of(await send_raw(receiver.port, post(handler.issue_path(receiver)))) == 202
        assert status_of(await send_raw(receiver.port, post(lost.issue_path(receiver)))) == 404
        await receiver.detach(lost)
        await receiver.detach(handler)

    async def put_away() -> None:
        await receiver.detach(lost)
        await use()

    asyncio.run(leave())
    asyncio.run(use())
    asyncio.run(leave())
    asyncio.run(put_away())
    assert (len(handler.calls), lost.calls) == (2, [])


# --- mounted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mount", ["/hooks", "/a/b", "/callbacks"])
@pytest.mark.parametrize("root_path", ["", "/behind/a/proxy"])
async def test_it_may_be_mounted_in_fastapi_under_any_prefix(mount: str, root_path: str) -> None:
    """With and without a root path; its neighbours are untouched."""
    app = FastAPI()
    receiver, handler = CallbackReceiver("https://example.com"), RecordingHandler()

    @app.get("/health")
    async def health() -> str:
        return "well"

    app.mount(mount, receiver.asgi)
    await receiver.attach(handler)
    tail = handler.issue_path(receiver)
    path = mount + (tail.removeprefix("/callbacks") if mount == "/callbacks" else tail)
    async with under_uvicorn(app, root_path=root_path) as port:
        assert status_of(await send_raw(port, post(path))) == 202
        assert status_of(await send_raw(port, post(path[:-1]))) == 404
        assert status_of(await send_raw(port, post("/health", b"", method="GET"))) == 200
    await receiver.detach(handler)
    assert handler.bodies == [b"{}"]


async def test_it_may_be_served_alone_by_an_asgi_server() -> None:
    """Its lifespan is answered, so that uvicorn starts and stops with `lifespan="on"`."""
    receiver, handler = CallbackReceiver("https://example.com"), RecordingHandler()
    await receiver.attach(handler)
    async with under_uvicorn(receiver.asgi, lifespan="on") as port:
        assert status_of(await send_raw(port, post(handler.issue_path(receiver)))) == 202
    await receiver.detach(handler)


async def test_one_receiver_may_be_mounted_twice() -> None:
    """Each `app` is a new one; both pass callbacks to the same handlers."""
    receiver = CallbackReceiver("https://example.com")
    assert receiver.app is not receiver.app
    Starlette(routes=[Mount("/a", receiver.asgi), Mount("/b", receiver.asgi)])


async def _asgi(receiver: CallbackReceiver, scope: dict[str, Any], *messages: dict[str, Any]) -> list[Any]:
    waiting, sent = list(messages), []

    async def receive() -> Any:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await receiver.asgi(scope, receive, send)
    return sent


async def test_a_websocket_is_closed() -> None:
    """It speaks HTTP alone."""
    sent = await _asgi(CallbackReceiver(PUBLIC), {"type": "websocket", "path": "/"}, {"type": "websocket.connect"})
    assert sent == [{"type": "websocket.close"}]


async def test_an_asgi_sender_may_leave_within_its_body() -> None:
    """A callback that was cut reaches no handler, and the server's error about the answer ends here."""
    receiver, handler = CallbackReceiver(PUBLIC), RecordingHandler()
    await receiver.attach(handler)
    scope = {"type": "http", "method": "POST", "path": handler.issue_path(receiver)}
    begun = {"type": "http.request", "body": b"{", "more_body": True}

    async def send(_message: Any) -> None:
        raise OSError("gone")

    async def receive() -> Any:
        return left.pop(0)

    left = [begun, {"type": "http.disconnect"}]
    await receiver.asgi(scope, receive, send)
    assert (handler.calls, receiver.refused) == ([], 1)


async def test_an_asgi_body_may_come_in_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty ones included; an endless or a silent one gets the 404."""
    monkeypatch.setattr(callbacks, "BODY_TIMEOUT_S", 0.1)
    receiver, handler = CallbackReceiver(PUBLIC), RecordingHandler()
    await receiver.attach(handler)
    scope = {"type": "http", "method": "POST", "path": handler.issue_path(receiver), "root_path": ""}
    more = [{"type": "http.request", "body": body, "more_body": True} for body in (b"a", b"", b"b")]
    assert (await _asgi(receiver, scope, *more, {"type": "http.request"}))[0]["status"] == 202
    assert handler.bodies == [b"ab"]
    assert (await _asgi(receiver, scope, *more))[0]["status"] == 404
    endless = [{"type": "http.request", "body": b"x" * 1024, "more_body": True}] * 65
    assert (await _asgi(receiver, scope, *endless))[0]["status"] == 404
    assert len(handler.calls) == 1
