"""The receiver's own server against senders that are slow, endless, malformed, too many, or gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator

import pytest

from pika_async import CallbackReceiver
from pika_async._http import callback_server as _callback_server
from pika_async._http import callbacks
from tests.fakes.memory_gateway import until
from tests.fakes.raw_server import free_port, trusting_context
from tests.fakes.receivers import (
    PUBLIC,
    RecordingHandler,
    close_writer,
    post,
    send_on,
    send_raw,
    served,
    status_of,
    without_date,
)
from tests.fakes.requirements import require_module

pytestmark = pytest.mark.anyio

#: What stands for the 10 s of a connection here, in seconds.
DEADLINE = 1.0
#: Seconds that nothing takes, however busy the machine is.
LONG = 20.0


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops that the package is used with: they accept and close in ways of their own."""
    if request.param == "uvloop":
        require_module("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def handler() -> RecordingHandler:
    return RecordingHandler()


@pytest.fixture
async def receiver(
    handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[CallbackReceiver]:
    """One that serves, with short deadlines; afterwards no task, no connection and no line of a log is left."""
    monkeypatch.setattr(_callback_server, "CONNECTION_TIMEOUT_S", DEADLINE)
    monkeypatch.setitem(_callback_server._OPTIONS, "lingering_time", 0.05)
    caplog.set_level(logging.DEBUG)
    before = asyncio.all_tasks()
    receiver = CallbackReceiver(PUBLIC, port=0)
    await receiver.attach(handler)
    server = receiver._server
    assert server is not None
    yield receiver
    begun = time.monotonic()
    await receiver.detach(handler)
    assert time.monotonic() - begun < LONG
    assert len(server._connections) == 0
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() - before if "callback" in task.get_name()} == set()
    assert server.tasks == set()
    assert [record for record in caplog.records if record.name != "asyncio" or record.levelno > logging.DEBUG] == []
    gc.collect()


def port_of(receiver: CallbackReceiver) -> int:
    assert receiver.port is not None
    return receiver.port


async def drip(port: int, *pieces: bytes, pause: float = 0.02) -> tuple[bytes, float]:
    """Send the last of `pieces` again and again until the connection ends; return the response and the elapsed seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begun = time.monotonic()
    sending = asyncio.create_task(send_on(reader, writer))
    for piece in pieces[:-1]:
        writer.write(piece)
    while not sending.done():
        with contextlib.suppress(RuntimeError):  # uvloop's, where the connection has just ended
            writer.write(pieces[-1])
        await asyncio.wait([sending], timeout=pause)
    lasted = time.monotonic() - begun
    await close_writer(writer)
    return sending.result(), lasted


SLOW = {
    "nothing": [b"", b""],
    "headers, a byte at a time": [b"POST /hooks/callbacks/x HTTP/1.1\r\nA: ", b"a"],
    "headers, a line at a time": [b"POST /hooks/callbacks/x HTTP/1.1\r\n", b"A: b\r\n"],
    "blank lines": [b"", b"\r\n"],
}


@pytest.mark.parametrize("name", SLOW)
async def test_slow_headers_are_cut(name: str, receiver: CallbackReceiver, handler: RecordingHandler) -> None:
    """Nothing but the deadline ends them; a callback that comes meanwhile is answered at once."""
    slow = asyncio.create_task(drip(port_of(receiver), *SLOW[name]))
    await asyncio.sleep(0.05)
    assert status_of(await send_raw(port_of(receiver), post(handler.issue_path(receiver)))) == 202
    response, lasted = await slow
    assert response == b"" or status_of(response) == 404  # too many lines are refused before they are too slow
    assert lasted < LONG
    assert (receiver.received, receiver.refused + receiver.cut) == (1, 1)


async def test_a_slow_body_is_refused_like_everything(
    receiver: CallbackReceiver, handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a time of its own, so that its sender gets the 404; at the latest the connection's deadline cuts it."""
    path = handler.issue_path(receiver)
    request = post(path, b"", "Content-Length: 1000")
    response, lasted = await drip(port_of(receiver), request, b"x")
    assert response == b""
    assert DEADLINE - 0.05 < lasted < LONG
    assert (receiver.refused, receiver.cut) == (0, 1)
    monkeypatch.setattr(callbacks, "BODY_TIMEOUT_S", 0.1)
    response, lasted = await drip(port_of(receiver), request, b"x")
    assert status_of(response) == 404
    assert (receiver.refused, receiver.cut, handler.calls) == (1, 1, [])


@pytest.mark.parametrize("known", [True, False])
async def test_an_endless_body_is_refused(known: bool, receiver: CallbackReceiver, handler: RecordingHandler) -> None:
    """Chunks without end are read as far as the cap, and not for long after the answer."""
    path = handler.issue_path(receiver) if known else f"/hooks/callbacks/{'A' * 43}"
    head = post(path, b"", "Transfer-Encoding: chunked")
    response, lasted = await drip(port_of(receiver), head, b"8000\r\n" + b"x" * 0x8000 + b"\r\n", pause=0.001)
    assert response == b"" or status_of(response) == 404  # a reset may overtake the answer
    assert lasted < LONG
    assert (receiver.received, receiver.refused, handler.calls) == (0, 1, [])


GARBAGE = {
    "no http": b"hello\r\n\r\n",
    "bytes": bytes(range(256)) * 8,
    "a header of 100 KB": post("/hooks/callbacks/x", b"", "A: " + "a" * 100_000),
    "a path of 100 KB": post("/" + "a" * 100_000),
    "1000 headers": post("/hooks", b"", *["A: b"] * 1000),
    "two lengths": post("/hooks", b"", "Content-Length: 1", "Content-Length: 2"),
    "a negative length": post("/hooks", b"", "Content-Length: -1"),
    "a length in words": post("/hooks", b"", "Content-Length: many"),
    "length and chunks": post("/hooks", b"", "Content-Length: 1", "Transfer-Encoding: chunked"),
    "no such coding": post("/hooks", b"", "Transfer-Encoding: rot13"),
    "no such version": b"POST / HTTP/9.9\r\nHost: h\r\n\r\n",
    "old": b"POST /hooks HTTP/1.0\r\n\r\n",
    "ancient": b"GET /\r\n\r\n",
    "no path": b"POST  HTTP/1.1\r\nHost: h\r\n\r\n",
    "star": b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "connect": b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
    "connect to nothing": b"CONNECT / HTTP/1.1\r\n\r\n",
    "a header with a break": b"POST /hooks HTTP/1.1\r\nA: b\rc\x00\r\n\r\n",
    "a folded header": b"POST /hooks HTTP/1.1\r\nA: b\r\n  c\r\n\r\n",
    "an address that is none": b"POST http://[::1/hooks HTTP/1.1\r\n\r\n",
    "bad escapes": post("/hooks/%zz/%ff/%c3%28/\u00e9"),
    "an upgrade": post("/hooks", b"", "Connection: Upgrade", "Upgrade: websocket"),
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an expectation": post("/hooks", b"", "Expect: the unexpected"),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 512,
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_other_requests_get_the_404(name: str, receiver: CallbackReceiver) -> None:
    """Malformed HTTP is answered, byte for byte, like an unknown token, or cut."""
    plain = without_date(await send_raw(port_of(receiver), post(f"/hooks/callbacks/{'A' * 43}")))
    response = await send_raw(port_of(receiver), GARBAGE[name])
    assert without_date(response) in {plain, b""}
    assert receiver.refused + receiver.cut == 2
    assert receiver.received == 0


@pytest.mark.parametrize("way", ["aiohttp", "asgi"])
async def test_no_garbage_gets_a_5xx_where_it_is_mounted(
    way: str, handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the user's server makes of it, and when it closes, is its own; what reaches the receiver is answered."""
    monkeypatch.setattr(callbacks, "BODY_TIMEOUT_S", 0.1)
    async with served(way, handler) as (receiver, port):
        path = handler.issue_path(receiver).encode()
        for name, garbage in GARBAGE.items():
            if name == "an address that is none":  # aiohttp 3.14.3 fails on it before any application is asked
                continue
            for request in (garbage, garbage.replace(b"/hooks", path)):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request + b"\r\n\r\n")
                response = b""
                with contextlib.suppress(TimeoutError, ConnectionError):
                    response = await asyncio.wait_for(reader.read(1 << 16), 0.3)
                assert response == b"" or 200 <= (status_of(response) or 0) < 500
                await close_writer(writer)


@pytest.mark.slow
async def test_a_broken_chunk_is_refused(receiver: CallbackReceiver, handler: RecordingHandler) -> None:
    """An incomplete body is not handled; aiohttp says nothing of some of these, and the deadlines end them."""
    head = post(handler.issue_path(receiver), b"", "Transfer-Encoding: chunked")
    for bad in (b"zz\r\n", b"-1\r\n", b"ffffffffffffffffffff\r\n", b"2\r\nabc\r\n"):
        assert status_of(await send_raw(port_of(receiver), head, bad, pause=0.01)) in {404, None}
    assert (receiver.received, handler.calls) == (0, [])


async def test_a_compressed_body_is_handled_as_it_came(receiver: CallbackReceiver, handler: RecordingHandler) -> None:
    """Nothing is inflated: a bomb stays as small as it was sent."""
    assert (
        status_of(
            await send_raw(port_of(receiver), post(handler.issue_path(receiver), b"junk", "Content-Encoding: gzip"))
        )
        == 202
    )
    assert handler.bodies == [b"junk"]


async def test_one_connection_carries_one_request(receiver: CallbackReceiver, handler: RecordingHandler) -> None:
    """Requests that are pipelined behind the first are not processed."""
    request = post(handler.issue_path(receiver)).replace(b"Connection: close", b"Connection: keep-alive")
    response = await send_raw(port_of(receiver), request * 50)
    assert response.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in response
    assert len(handler.calls) <= 1
    response = await send_raw(port_of(receiver), request, b"garbage\r\n\r\n", request, pause=0.01)
    assert response.count(b"HTTP/1.1 ") <= 1  # a reset may overtake the answer
    assert len(handler.calls) <= 2


async def test_tls_on_the_plain_port_ends_at_once(receiver: CallbackReceiver) -> None:
    """A sender uses https although the server speaks http."""
    import ssl

    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection(
            "127.0.0.1", port_of(receiver), ssl=trusting_context(), server_hostname="localhost"
        )
    assert receiver.refused + receiver.cut == 1


@pytest.mark.parametrize("how", ["fin", "half", "rst"])
async def test_a_sender_that_leaves_is_forgotten(
    how: str, receiver: CallbackReceiver, handler: RecordingHandler
) -> None:
    """Before, within and after its headers; its callback is not handled, and the connection is counted."""
    whole = post(handler.issue_path(receiver), b"{}")
    parts = (0, 10, len(whole) - 1)
    for part in parts:
        with socket.create_connection(("127.0.0.1", port_of(receiver))) as sender:
            sender.sendall(whole[:part])
            await asyncio.sleep(0.02)
            if how == "rst":
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif how == "half":
                sender.shutdown(socket.SHUT_WR)
                await asyncio.sleep(0.05)
    await until(lambda: receiver.cut == len(parts))
    assert (receiver.received, handler.calls) == (0, [])


async def test_slow_senders_cannot_lock_others_out(
    receiver: CallbackReceiver, handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the cap the oldest connection is cut for a new one; never are more than 256 held."""
    monkeypatch.setattr(_callback_server, "CONNECTION_TIMEOUT_S", 60)
    server = receiver._server
    assert server is not None
    senders = []
    for _ in range(300):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(receiver))
        writer.write(b"POST /")
        senders.append((reader, writer))
        assert len(server._connections) <= _callback_server.MAX_CONNECTIONS
    assert await senders[0][0].read() == b""
    for _ in range(20):
        assert status_of(await send_raw(port_of(receiver), post(handler.issue_path(receiver)))) == 202
    assert (receiver.received, receiver.cut) == (20, 300 - 256 + 1)  # each of the 20 is gone when the next one comes
    assert not senders[-1][0].at_eof()
    for _, writer in senders:
        await close_writer(writer)


async def test_of_a_flood_of_forgeries_none_is_handled(
    receiver: CallbackReceiver, handler: RecordingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 forged posts, 50 at a time, and a real one among them, which is."""
    monkeypatch.setattr(_callback_server, "CONNECTION_TIMEOUT_S", 60)
    path = handler.issue_path(receiver)

    async def forge(number: int) -> None:
        for n in range(20):
            forged = f"/hooks/callbacks/{number:03}{n:040}"
            assert status_of(await send_raw(port_of(receiver), post(forged))) == 404

    flood = [asyncio.create_task(forge(number)) for number in range(50)]
    assert status_of(await send_raw(port_of(receiver), post(path))) == 202
    await asyncio.gather(*flood)
    assert (receiver.refused, len(handler.calls)) == (1000, 1)


async def test_closing_does_not_wait_for_senders(receiver: CallbackReceiver, handler: RecordingHandler) -> None:
    """Silent ones, ones within their headers and ones within their body are cut."""
    path = handler.issue_path(receiver)
    openings = [b"", b"POST /", post(path, b"{")[:-1], post(path, b"", "Transfer-Encoding: chunked")]
    senders = [await asyncio.open_connection("127.0.0.1", port_of(receiver)) for _ in range(40)]
    for number, (_, writer) in enumerate(senders):
        writer.write(openings[number % 4])
    server = receiver._server
    assert server is not None
    await until(lambda: len(server._connections) == len(senders))
    begun = time.monotonic()
    await receiver.detach(handler)
    assert time.monotonic() - begun < LONG
    for reader, writer in senders:
        assert await send_on(reader, writer) == b""
        await close_writer(writer)
    assert (receiver.cut, handler.calls) == (40, [])


async def test_a_cancelled_closing_leaves_nothing_open(handler: RecordingHandler) -> None:
    """However it is cancelled, the server does not listen any more, and the connections end by themselves."""
    receiver = CallbackReceiver(PUBLIC, port=0)
    await receiver.attach(handler)
    port = port_of(receiver)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(receiver.detach(handler))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert await send_on(reader, writer) == b""
    await close_writer(writer)
    with pytest.raises(ConnectionRefusedError):
        await send_raw(port, b"")


async def test_a_cancelled_start_leaves_nothing_open(handler: RecordingHandler) -> None:
    """Cancelled at any of its steps, attaching can be done again on the same port."""
    receiver = CallbackReceiver(PUBLIC, port=0)
    for steps in range(12):
        starting = asyncio.create_task(receiver.attach(handler))
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled():
            break
        assert (receiver.port, receiver._handlers) == (None, [])
    await receiver.attach(handler)
    assert status_of(await send_raw(port_of(receiver), post(handler.issue_path(receiver)))) == 202
    await receiver.detach(handler)
    gc.collect()


@pytest.mark.parametrize("rounds", range(5))
async def test_a_sender_that_comes_while_it_closes_is_let_go(rounds: int, handler: RecordingHandler) -> None:
    """Whether its connection was accepted, handed over or still waiting when the last listener left."""
    receiver = CallbackReceiver(PUBLIC, port=0)
    await receiver.attach(handler)
    with socket.socket() as sender:
        sender.connect(("127.0.0.1", port_of(receiver)))
        for _ in range(rounds):
            await asyncio.sleep(0)
        await receiver.detach(handler)
        sender.setblocking(False)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sender, 1), LONG) == b""


async def test_one_may_leave_while_another_comes(handler: RecordingHandler) -> None:
    """On one port: the last of the old ones stops the server and the first of the new ones starts it again."""
    receiver = CallbackReceiver(PUBLIC, port=free_port())
    await receiver.attach(handler)
    port = receiver.port
    for _ in range(20):
        after = RecordingHandler()
        await asyncio.gather(receiver.detach(handler), receiver.attach(after))
        handler = after
        assert receiver.port == port
        assert status_of(await send_raw(port_of(receiver), post(handler.issue_path(receiver)))) == 202
    await receiver.detach(handler)


async def test_opening_and_closing_under_a_flood(handler: RecordingHandler) -> None:
    """Attached and detached again and again while senders come: each is answered, refused or cut; nothing is left."""
    receiver = CallbackReceiver(PUBLIC, port=0)
    await receiver.attach(handler)
    port, over = port_of(receiver), asyncio.Event()
    receiver._bind_address = ("127.0.0.1", port)
    path = handler.issue_path(receiver)
    seen: set[int | None] = set()

    async def send() -> None:
        while not over.is_set():
            try:
                seen.add(status_of(await send_raw(port, post(path))))
            except ConnectionError:  # refused, or reset while it waited to be accepted
                await asyncio.sleep(0.001)

    senders = [asyncio.create_task(send()) for _ in range(8)]
    for _ in range(100):
        await asyncio.sleep(0.004)
        await receiver.detach(handler)
        await receiver.attach(handler)
    over.set()
    await asyncio.gather(*senders)
    await receiver.detach(handler)
    assert seen <= {202, 404, None}
    assert 202 in seen
    assert receiver.received == len(handler.calls)
    gc.collect()
