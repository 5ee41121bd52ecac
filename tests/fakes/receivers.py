"""Callback receivers on real sockets, in each mode of serving, and a handler that records."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from urllib.parse import urlsplit

import attrs
import uvicorn
from aiohttp import web
from starlette.applications import Starlette
from starlette.routing import Mount

from pika_async import CallbackReceiver

#: Its own server, mounted in an aiohttp application, mounted under Starlette and served by uvicorn.
SERVING_MODES = ("own", "aiohttp", "asgi")
PUBLIC = "http://127.0.0.1:1/hooks"
#: The header whose value changes from response to response.
_DATE = re.compile(rb"(?i)date: [^\r]*\r\n")


@attrs.define(eq=False)
class RecordingHandler:
    """Callback handler that accepts its own tokens and records every callback."""

    tokens: set[str] = attrs.field(factory=set)
    calls: list[tuple[str, bytes]] = attrs.field(factory=list)
    lookups: int = 0

    async def accepts(self, token_sha256: str) -> bool:
        self.lookups += 1
        return token_sha256 in self.tokens

    async def is_authentic(self, token_sha256: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Take every callback."""
        return True

    def handle(self, token_sha256: str, body: bytes) -> None:
        self.calls.append((token_sha256, body))

    def issue_path(self, receiver: CallbackReceiver) -> str:
        """Return the path of a new callback URL whose token this handler accepts."""
        address, digest = receiver.issue()
        self.tokens.add(digest)
        return urlsplit(address).path

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body in self.calls]


@contextlib.asynccontextmanager
async def served(way: str, handler: RecordingHandler) -> AsyncIterator[tuple[CallbackReceiver, int]]:
    """Yield a receiver with `handler` attached, and its port; it is mounted under `/hooks`, as in `PUBLIC`."""
    receiver = CallbackReceiver(PUBLIC, port=0 if way == "own" else None)
    await receiver.attach(handler)
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
        await receiver.detach(handler)


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
    """Uvicorn server that installs no signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def under_uvicorn(app: object, **options: object) -> AsyncIterator[int]:
    """Serve `app` by uvicorn on a free port, and yield the port."""
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
def served_in_a_thread(way: str, handler: RecordingHandler) -> Iterator[tuple[CallbackReceiver, int]]:
    """Serve like `served`, in a thread, for synchronous tests."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        stack = contextlib.AsyncExitStack()
        entered = runner.run(stack.enter_async_context(served(way, handler)))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield entered
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            runner.run(stack.aclose())


def post(path: str, body: bytes = b"{}", *fields: str, method: str = "POST") -> bytes:
    """Return a complete request, with its length unless `fields` has it."""
    has_length = any(field.lower().startswith(("content-length", "transfer-encoding")) for field in fields)
    lines = [f"{method} {path} HTTP/1.1", "Host: h", *fields, *([] if has_length else [f"Content-Length: {len(body)}"])]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


async def send_raw(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send `pieces` on a new connection and return the response, empty if the connection was cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await send_on(reader, writer, *pieces, pause=pause)
    finally:
        await close_writer(writer)


async def send_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *pieces: bytes, pause: float = 0.0
) -> bytes:
    """Send `pieces` on an open connection and return the response."""
    with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop raises the latter for a closed connection
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    response = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            response += piece
    return response


async def close_writer(writer: asyncio.StreamWriter) -> None:
    """Close a connection in any state."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def status_of(answer: bytes) -> int | None:
    """Return the last status of a response; None if there was none."""
    statuses = re.findall(rb"HTTP/\d\.\d (\d+)", answer)
    return int(statuses[-1]) if statuses else None


def without_date(answer: bytes) -> bytes:
    """Return a response without its date."""
    return _DATE.sub(b"", answer)
