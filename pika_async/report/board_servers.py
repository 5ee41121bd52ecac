"""The board as an aiohttp application, as an ASGI application, and as a server of its own."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeAlias, cast

import anyio
from aiohttp import web

from pika_async._http.callbacks import Asgi
from pika_async.errors import ConfigurationError, shorten
from pika_async.report.board import Board, BoardReply, BoardRequest

__all__ = ["Asgi", "aiohttp_board", "asgi_board", "serving"]

#: Seconds that open streams have at the end.
STREAM_END_TIMEOUT_S: Final = 1.0

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]


def aiohttp_board(board: Board) -> web.Application:
    """Return a new aiohttp application, for `add_subapp` or to be served alone."""

    async def answer(request: web.Request) -> web.StreamResponse:
        async def read(limit: int) -> bytes:
            body = bytearray()
            while len(body) <= limit and (chunk := await request.content.readany()):
                body += chunk
            return bytes(body)

        tail = request.match_info["tail"]
        prefix = request.path.removesuffix(f"/{tail}")
        headers = _joined(request.headers.items())
        reply = await board.handle(
            BoardRequest(
                method=request.method, path=f"/{tail}", prefix=prefix, query=request.query_string, headers=headers,
                read=read,
            )
        )  # fmt: skip
        if isinstance(reply.body, bytes):
            return web.Response(status=reply.status, headers=reply.headers, body=reply.body)
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        with contextlib.suppress(ConnectionResetError):  # the reader has gone
            await response.prepare(request)
            if request.method != "HEAD":
                async with aclosing(cast("Any", reply.body)) as parts:
                    async for part in parts:
                        await response.write(part)
            await response.write_eof()
        return response

    async def end_streams(_: web.Application) -> None:
        board.close()

    app = web.Application()
    app.router.add_route("*", "/{tail:(?s:.*)}", answer)
    app.on_shutdown.append(end_streams)
    return app


def asgi_board(board: Board) -> Asgi:
    """Return an ASGI 3 application, to mount in FastAPI, Starlette and the like, or to serve alone."""

    async def asgi(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _serve_lifespan(board, receive, send)
        elif scope["type"] == "http":
            reply = await board.handle(_asgi_request(scope, receive))
            await _send_until_gone(reply, receive, send, head_only=scope["method"] == "HEAD")

    return asgi  # a function: uvicorn mistakes a bound method for an ASGI 2 application


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by their names in lower case; one that occurs twice has both values, so that no `Host` passes."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        separator = "; " if key == "cookie" else ", "
        found[key] = f"{found[key]}{separator}{value}" if key in found else value
    return found


def _asgi_request(scope: _Message, receive: _Receive) -> BoardRequest:
    async def read(limit: int) -> bytes:
        body = bytearray()
        while len(body) <= limit:
            part = await receive()
            body += part.get("body", b"")
            if part["type"] != "http.request" or not part.get("more_body"):
                break
        return bytes(body)

    prefix = scope.get("root_path", "").rstrip("/")
    headers = _joined((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    return BoardRequest(
        method=scope["method"], path=scope["path"].removeprefix(prefix), prefix=prefix,
        query=scope["query_string"].decode("latin-1"), headers=headers, read=read,
    )  # fmt: skip


async def _send_until_gone(reply: BoardReply, receive: _Receive, send: _Send, *, head_only: bool) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if isinstance(reply.body, bytes):
        await send({"type": "http.response.body", "body": b"" if head_only else reply.body})
        return
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch, name="pika_async board reader")
        if not head_only:
            async with aclosing(cast("Any", reply.body)) as parts:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        group.cancel_scope.cancel()


async def _serve_lifespan(board: Board, receive: _Receive, send: _Send) -> None:
    while True:
        event = (await receive())["type"]
        if event == "lifespan.shutdown":
            board.close()
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


@asynccontextmanager
async def serving(board: Board, host: str, port: int) -> AsyncIterator[str]:
    """Serve `board` while the body runs; yield the URL with the token.

    :param host: address of this machine.
    :param port: 1 to 65535, or 0 for any free port.
    :raises ConfigurationError: if `host` is not an address of this machine, or `port` is taken.
    """
    runner = web.AppRunner(
        aiohttp_board(board), access_log=None, shutdown_timeout=STREAM_END_TIMEOUT_S
    )  # it has tokens
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None) or 0  # below 0: the name of the host is not known
            place = f"{shorten(host)}:{port} cannot be listened on ({error})"
            if number > 0 and number != errno.EADDRNOTAVAIL:
                raise ConfigurationError(
                    setting="port", reason=f"{place}; give another, or 0 for any free port"
                ) from None
            raise ConfigurationError(setting="host", reason=f"{place}; give an address of this machine") from None
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{runner.addresses[0][1]}/?token={board.access.token}"
    finally:
        board.close()
        await runner.cleanup()
