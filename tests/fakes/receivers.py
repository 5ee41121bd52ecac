"""Receivers on real sockets, in each of the ways that they are served, and a listener that remembers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import attrs
import uvicorn
from aiohttp import web
from starlette.applications import Starlette
from starlette.routing import Mount

from pika_async import CallbackReceiver

#: Its own server, mounted in an aiohttp application, mounted under Starlette and served by uvicorn.
WAYS = ("own", "aiohttp", "asgi")
PUBLIC = "http://127.0.0.1:1/hooks"
#: What an answer says besides the time of day.
_DATE = re.compile(rb"(?i)date: [^\r]*\r\n")


@attrs.define(eq=False)
class Ear:
    """A listener that knows the tokens that it was given."""

    known: set[str] = attrs.field(factory=set)
    calls: list[tuple[str, bytes]] = attrs.field(factory=list)
    asked: int = 0

    def accepts(self, token_sha256: str) -> bool:
        self.asked += 1
        return token_sha256 in self.known

    def handle(self, token_sha256: str, body: bytes) -> None:
        self.calls.append((token_sha256, body))

    def expect(self, receiver: CallbackReceiver) -> str:
        """The path of a new address, whose callback this one waits for."""
        address, digest = receiver.issue()
        self.known.add(digest)
        return urlsplit(address).path

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body in self.calls]


@contextlib.asynccontextmanager
async def served(way: str, ear: Ear) -> AsyncIterator[tuple[CallbackReceiver, int]]:
    """A receiver with `ear` attached, and its port; it is mounted under `/hooks`, as `PUBLIC` says."""
    receiver = CallbackReceiver(PUBLIC, port=0 if way == "own" else None)
    await receiver.attach(ear)
    try:
        if way == "own":
            assert receiver.port is not None
            yield receiver, receiver.port
        elif way == "aiohttp":
            async with _in_aiohttp(receiver) as port:
                yield receiver, port
        else:
            async with under_uvicorn(Starlette(routes=[Mount("/hooks", receiver.asgi)])) as port:
                yield receiver, port
    finally:
        await receiver.detach(ear)


@contextlib.asynccontextmanager
async def _in_aiohttp(receiver: CallbackReceiver) -> AsyncIterator[int]:
    app = web.Application()
    app.add_subapp("/hooks", receiver.app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, lingering_time=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class _Server(uvicorn.Server):
    """Leaves the signals to the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def under_uvicorn(app: object, **options: object) -> AsyncIterator[int]:
    """`app` served by uvicorn on a free port."""
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        host="127.0.0.1",
        port=0,
        log_config=None,
        access_log=False,
        ws="none",
        http="h11",
        timeout_graceful_shutdown=1,
        **options,  # type: ignore[arg-type]
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@contextlib.contextmanager
def served_in_a_thread(way: str, ear: Ear) -> Iterator[tuple[CallbackReceiver, int]]:
    """The same for synchronous senders."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        stack = contextlib.AsyncExitStack()
        entered = runner.run(stack.enter_async_context(served(way, ear)))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield entered
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            runner.run(stack.aclose())


def post(path: str, body: bytes = b"{}", *fields: str, method: str = "POST") -> bytes:
    """A whole request, with its length unless `fields` tell it."""
    told = any(field.lower().startswith(("content-length", "transfer-encoding")) for field in fields)
    lines = [f"{method} {path} HTTP/1.1", "Host: h", *fields, *([] if told else [f"Content-Length: {len(body)}"])]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


async def say(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send `pieces` on a new connection and read to its end: the answer, or nothing if it was cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await tell(reader, writer, *pieces, pause=pause)
    finally:
        await leave(writer)


async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *pieces: bytes, pause: float = 0.0) -> bytes:
    """The same on a connection that is there."""
    with contextlib.suppress(ConnectionError, RuntimeError):  # the latter is uvloop's word for one that is gone
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    heard = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            heard += piece
    return heard


async def leave(writer: asyncio.StreamWriter) -> None:
    """Close a connection, however it stands."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def status_of(answer: bytes) -> int | None:
    """The last status of an answer; None if there was no answer."""
    statuses = re.findall(rb"HTTP/\d\.\d (\d+)", answer)
    return int(statuses[-1]) if statuses else None


def undated(answer: bytes) -> bytes:
    """An answer without its date."""
    return _DATE.sub(b"", answer)
