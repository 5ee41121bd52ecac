"""Receives the callbacks of gateways and says which submission each is for; believes nothing of what they say.

A submission's address ends in a token of 32 random bytes. Only its SHA-256 is kept, and the SHA-256 of what comes is
looked up: nobody can steer the hash of a guess towards a known one, so the time that a look-up takes tells nothing, and
there is no secret left that would have to be compared in constant time. Whatever is wrong gets one and the same 404.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Final, Protocol, TypeAlias

import anyio
from aiohttp import web
from yarl import URL

from pika_async._http.callback_server import CallbackServer
from pika_async._http.transport import is_loopback
from pika_async.errors import ConfigurationError, shorten

__all__ = ["BODY_LIMIT", "BODY_SECONDS", "CallbackHandler", "CallbackReceiver"]

_log = logging.getLogger("pika_async.callbacks")

#: The longest body that is taken, in bytes; the documented ones are under 2 KiB.
BODY_LIMIT: Final = 1 << 16
#: How long a body may take after its headers, in seconds.
BODY_SECONDS: Final = 5.0
#: How a path ends, whatever a proxy or a mount puts before it.
_TAIL: Final = re.compile(r"/callbacks/([A-Za-z0-9_-]{43})/?\Z")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
#: An ASGI 3 application.
Asgi: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class CallbackHandler(Protocol):
    """One open client that waits for callbacks."""

    def accepts(self, token_sha256: str) -> bool:
        """Whether one of its submissions was given the token with this SHA-256, in hexadecimal."""

    def handle(self, token_sha256: str, body: bytes) -> None:
        """A callback for that submission is in: its whole body, any bytes, at most `BODY_LIMIT`."""


class CallbackReceiver:
    """Takes in callbacks for the clients that it is given to: `PikaClient(..., callbacks=receiver)`.

    `public_url` is where the gateway reaches it: an http or https address, which may have a path. Over http the tokens
    travel in plain text. With `port` (and `host`, 127.0.0.1 unless given) it listens there itself while a client is
    open: without TLS, so for a proxy in front of it; one request a connection, 10 s for all of it, at most 256
    connections, the oldest of which is cut for one more. Without, mount `app` in an aiohttp application or `asgi` in
    any other, under any prefix: slow headers and the number of connections are then for your own server to limit.
    A body may have 64 KiB and take 5 s, wherever it comes in.

    `received`, `refused`, `cut`: how many requests were answered with 202 and with 404, and how many connections of its
    own server ended without an answer (too slow, one too many, or the sender left), since it was made.

    Serves many clients, of one event loop at a time, and may be used in another one after they were closed.

    :raises ConfigurationError: if an argument cannot work.
    """

    def __init__(self, public_url: str, *, host: str | None = None, port: int | None = None) -> None:
        #: Without a slash at its end.
        self.public_url = _checked_url(public_url)
        self.received = 0
        self.refused = 0
        self.cut = 0
        self._place = _checked_place(host, port)
        self._listeners: list[CallbackHandler] = []
        self._server: CallbackServer | None = None
        self._last: CallbackServer | None = None
        self._port: int | None = None
        self._starting = anyio.Lock()
        self._complaints: set[str] = set()

    def __repr__(self) -> str:
        return f"<CallbackReceiver at {self.public_url}>"

    @property
    def port(self) -> int | None:
        """The port that its own server listens on; None while it does not."""
        return self._port

    def issue(self) -> tuple[str, str]:
        """A new address to give to a gateway, for one submission, and the SHA-256 of its token in hexadecimal."""
        token = secrets.token_urlsafe(32)
        return f"{self.public_url}/callbacks/{token}", _digest(token)

    async def attach(self, listener: CallbackHandler) -> None:
        """Ask `listener` too, from now on; the first one starts the own server. Once is enough.

        :raises ConfigurationError: if its own server cannot listen; `listener` is then not attached.
        """
        async with self._starting:
            if self._server is not None and self._server.is_lost:
                self._server.close()
                self._server, self._port, self._listeners = None, None, []
            if self._place is not None and self._server is None:
                if self._last is not None:
                    await self._last.stopped.wait()  # the port is free then
                self._last = server = CallbackServer(self._answer, self._refuse, self._was_cut)
                self._port = await server.start(*self._place)
                self._server = server
            if all(each is not listener for each in self._listeners):
                self._listeners.append(listener)

    async def detach(self, listener: CallbackHandler) -> None:
        """Ask `listener` no more; the last one stops the own server, in a second at most. Once is enough."""
        self._listeners = [each for each in self._listeners if each is not listener]
        if not self._listeners and self._server is not None:
            server, self._server, self._port = self._server, None, None
            server.close()  # before anything is awaited: a cancellation here leaves nothing open
            await server.closed()

    # --- where it is mounted ----------------------------------------------------------------------------------------

    @property
    def app(self) -> web.Application:
        """A new aiohttp application, to be mounted with `add_subapp`."""
        app = web.Application()
        app.router.add_route("*", "/{tail:(?s:.*)}", self._answer, expect_handler=_expect_nothing)
        return app

    @property
    def asgi(self) -> Asgi:
        """An ASGI 3 application, to be mounted in FastAPI, Starlette and their like, or to be served alone."""

        async def asgi(scope: _Message, receive: _Receive, send: _Send) -> None:
            await self._serve_asgi(scope, receive, send)

        return asgi  # a function: uvicorn takes a bound method for an application of ASGI 2

    @staticmethod
    def openapi() -> dict[str, Any]:
        """The OpenAPI 3.1 document of what it serves, below `public_url`."""
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Callbacks",
                "version": version("pika_async"),
                "description": "Notifications of settled tasks. A body is a hint: the task is asked for.",
            },
            "paths": {
                "/callbacks/{token}": {
                    "parameters": [
                        {
                            "name": "token",
                            "in": "path",
                            "required": True,
                            "description": "The secret of one submission: 32 random bytes in base64url.",
                            "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
                        }
                    ],
                    "post": {
                        "operationId": "receiveCallback",
                        "summary": "Notify of one task",
                        "security": [],
                        "requestBody": {
                            "description": f"Whatever the gateway says, at most {BODY_LIMIT} bytes.",
                            "required": False,
                            "content": {"application/json": {"schema": {"type": "object"}}, "*/*": {"schema": {}}},
                        },
                        "responses": {
                            "202": {"description": "The token is known, and the callback is taken in. No body."},
                            "404": {"description": "Anything else, without a reason. No body."},
                        },
                    },
                }
            },
        }

    # --- one request ------------------------------------------------------------------------------------------------

    async def _judge(self, method: str, path: str, read: Callable[[], Awaitable[bytes]]) -> int:
        """The status for one request, 202 or 404; `read` gives its body piece by piece, and at its end nothing."""
        found = _TAIL.search(path) if method == "POST" else None
        if found is not None and self._listener(digest := _digest(found[1])) is not None:
            body = await _whole(read)
            listener = self._listener(digest)  # once more: it may have left meanwhile
            if body is not None and listener is not None:
                try:
                    listener.handle(digest, body)
                except Exception as error:
                    self._complain(error)
                self.received += 1
                return 202
        self.refused += 1
        return 404

    def _listener(self, digest: str) -> CallbackHandler | None:
        for listener in self._listeners:
            try:
                if listener.accepts(digest):
                    return listener
            except Exception as error:
                self._complain(error)
        return None

    def _complain(self, error: Exception) -> None:
        """Log a listener's defect: once a place, or strangers fill the log; without its words, which may be theirs."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        defect = f"{type(error).__name__} in {frame.filename}, line {frame.lineno}"
        if defect not in self._complaints:
            self._complaints.add(defect)
            _log.error("a listener failed on a callback: %s", defect)

    def _was_cut(self) -> None:
        self.cut += 1

    def _refuse(self) -> web.Response:
        self.refused += 1
        return _response(404)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        waits = request.headers.get("Expect", "").lower() == "100-continue"

        async def read() -> bytes:
            nonlocal waits
            if (request.content_length or 0) > BODY_LIMIT:
                raise ValueError("too long")
            if waits:
                waits = False
                await request.writer.write(_CONTINUE)
                request.writer.output_size = 0  # the answer has not begun
            return await request.content.readany()

        return _response(await self._judge(request.method, request.path, read))

    async def _serve_asgi(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            more = True

            async def read() -> bytes:
                nonlocal more
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ConnectionError("the sender left")
                    more = message.get("more_body", False)
                    if body := message.get("body", b""):
                        return bytes(body)
                return b""

            # A mount at `/callbacks` may have moved that part of the path to `root_path`.
            status = await self._judge(scope["method"], scope.get("root_path", "") + scope["path"], read)
            with contextlib.suppress(OSError):  # what servers raise for a sender that left
                await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})


async def _whole(read: Callable[[], Awaitable[bytes]]) -> bytes | None:
    """The body, or None if it was too long, too slow, cut or malformed."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while piece := await read():
                body += piece
                if len(body) > BODY_LIMIT:
                    return None
    except Exception:
        return None
    return bytes(body)


async def _live(receive: _Receive, send: _Send) -> None:
    while True:
        stage = (await receive())["type"]
        await send({"type": f"{stage}.complete"})
        if stage == "lifespan.shutdown":
            return


async def _expect_nothing(_request: web.Request) -> None:
    """Leave `Expect` to the answer: aiohttp would refuse what it does not know with a 417."""


def _response(status: int) -> web.Response:
    response = web.Response(
        status=status, headers={"Content-Length": "0", "Server": "-"}
    )  # or aiohttp tells its version
    response.force_close()
    return response


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _checked_url(public_url: object) -> str:
    way_out = 'give the address at which the gateway reaches this receiver, such as "https://example.com/hooks"'
    if isinstance(public_url, str) and "@" in public_url:  # not shown: what stands before it is somebody's credential
        raise _bad("public_url", f"holds a user; {way_out}")
    if (
        not isinstance(public_url, str)
        or not public_url.isprintable()
        or any(mark.isspace() or mark in "?#" for mark in public_url)
    ):
        raise _bad("public_url", f"{shorten(public_url)} holds white space, a query or a fragment; {way_out}")
    try:
        url = URL(public_url)
        complete = url.scheme in {"http", "https"} and bool(url.host) and url.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise _bad("public_url", f"{shorten(public_url)} is no http or https address; {way_out}")
    if url.scheme == "http" and not is_loopback(url):
        _log.warning("callbacks to %s travel in plain text, and their tokens with them; use https", url)
    return str(url).rstrip("/")


def _checked_place(host: object, port: object) -> tuple[str, int] | None:
    if port is None and host is None:
        return None
    if port is None:
        raise _bad("host", f"{shorten(host)} needs a port; give one, or neither and mount `app` or `asgi`")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65_535:
        raise _bad("port", f"{shorten(port)} is no port; give one from 1 to 65535, or 0 for any free one")
    if host is None:
        host = "127.0.0.1"
    if not isinstance(host, str) or not host.isprintable() or not host or " " in host:
        raise _bad("host", f"{shorten(host)} is no address to listen on; give one such as 127.0.0.1 or 0.0.0.0")
    return host, port


def _bad(setting: str, reason: str) -> ConfigurationError:
    return ConfigurationError(setting=setting, reason=reason)
