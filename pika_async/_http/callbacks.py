"""Receiver of gateway callbacks: finds the submission that a callback is for. Does not trust what a callback says.

The callback URL of a submission ends in a token of 32 random bytes. Only the SHA-256 of the token is stored, and the
SHA-256 of a received token is looked up: a sender cannot steer the hash of a guess towards a stored one, so the time of
the lookup reveals nothing, and there is no stored secret to compare in constant time. Every request that is not
accepted gets the same 404.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import anyio
from yarl import URL

from pika_async._http.addresses import is_loopback
from pika_async._http.callback_document import callback_document
from pika_async.errors import ConfigurationError, shorten

if TYPE_CHECKING:
    from aiohttp import web

    from pika_async._http.callback_server import CallbackServer

__all__ = ["BODY_TIMEOUT_S", "MAX_BODY_BYTES", "CallbackHandler", "CallbackReceiver"]

_log = logging.getLogger("pika_async.callbacks")

#: The longest accepted body, in bytes; the documented ones are under 2 KiB.
MAX_BODY_BYTES: Final = 1 << 16
#: The longest time from the headers to the end of the body, in seconds.
BODY_TIMEOUT_S: Final = 5.0
#: The end of the path, behind any prefix of a proxy or a mount.
_PATH_END: Final = re.compile(r"/callbacks/([A-Za-z0-9_-]{43})/?\Z")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
#: An ASGI 3 application.
Asgi: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class CallbackHandler(Protocol):
    """Handles the callbacks of one open client."""

    async def accepts(self, token_sha256: str) -> bool:
        """Return whether a submission of the client carried the token with this SHA-256, in hexadecimal."""
        ...

    async def is_authentic(self, token_sha256: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether the gateway of that submission sent a callback, as far as it signs its callbacks.

        :param token_sha256: an accepted token's SHA-256, in hexadecimal.
        :param headers: by lower-case name.
        """
        ...

    def handle(self, token_sha256: str, body: bytes) -> None:
        """Handle a callback for that submission.

        :param token_sha256: an accepted token's SHA-256, in hexadecimal.
        :param body: the whole body, any bytes, at most `MAX_BODY_BYTES`.
        """


class CallbackReceiver:
    """A receiver of callbacks for the clients that it is given to: `PikaClient(..., callbacks=receiver)`.

    With `port` it runs its own HTTP server while a client is open: without TLS, for use behind a proxy; one request per
    connection, 10 s for all of it, at most 256 connections (one more closes the oldest). Without `port`, mount `app` in
    an aiohttp application or `asgi` in any other, under any prefix; slow headers and the number of connections are then
    for that server to limit. A body may have 64 KiB and take 5 s in every case.

    `received` and `refused` count the requests that got 202 and 404, `cut` the connections to its own server that ended
    without a response: too slow, one too many, or closed by the sender.

    A receiver serves any number of clients in one event loop at a time, and may be used in another loop after they were
    closed.

    :param public_url: the http or https URL at which the gateway reaches this receiver, with or without a path. Over
        http the tokens travel in plain text.
    :param host: the local address of its own server, with `port`; default: 127.0.0.1.
    :param port: the local port of its own server, 1 to 65535, or 0 for any free port; default: no server.
    :raises ConfigurationError: if an argument cannot work.
    """

    def __init__(self, public_url: str, *, host: str | None = None, port: int | None = None) -> None:
        # The server half of aiohttp is loaded for services with callbacks alone, and not while their loop runs.
        from pika_async._http.callback_server import CallbackServer  # noqa: PLC0415

        #: The public URL, without a slash at its end.
        self.public_url = _checked_url(public_url)
        self.received = 0
        self.refused = 0
        self.cut = 0
        self._bind_address = _checked_bind_address(host, port)
        self._handlers: list[CallbackHandler] = []
        self._new_server = partial(CallbackServer, self._answer, self._refuse, self._count_cut)
        self._server: CallbackServer | None = None
        self._last_server: CallbackServer | None = None
        self._port: int | None = None
        self._starting = anyio.Lock()
        self._logged_defects: set[str] = set()

    def __repr__(self) -> str:
        return f"<CallbackReceiver at {self.public_url}>"

    @property
    def port(self) -> int | None:
        """The port of its own server; None while the server is not running."""
        return self._port

    def issue(self) -> tuple[str, str]:
        """Return a new callback URL for one submission, and the SHA-256 of its token in hexadecimal."""
        token = secrets.token_urlsafe(32)
        return f"{self.public_url}/callbacks/{token}", _digest(token)

    async def attach(self, handler: CallbackHandler) -> None:
        """Pass callbacks to `handler` too; the first handler starts the server. Attaching twice changes nothing.

        :raises ConfigurationError: if the server cannot listen; `handler` is then not attached.
        """
        async with self._starting:
            if self._server is not None and self._server.is_lost:
                self._server.close()
                self._server, self._port, self._handlers = None, None, []
            if self._bind_address is not None and self._server is None:
                if self._last_server is not None:
                    await self._last_server.stopped.wait()  # it still holds the port
                self._last_server = server = self._new_server()
                self._port = await server.start(*self._bind_address)
                self._server = server
            if all(each is not handler for each in self._handlers):
                self._handlers.append(handler)

    async def detach(self, handler: CallbackHandler) -> None:
        """Pass callbacks to `handler` no more; the last handler stops the server, within a second.

        Detaching twice changes nothing.
        """
        self._handlers = [each for each in self._handlers if each is not handler]
        if not self._handlers and self._server is not None:
            server, self._server, self._port = self._server, None, None
            server.close()  # before the first await: a cancellation here leaves nothing open
            await server.closed()

    # --- mounting ---------------------------------------------------------------------------------------------------

    @property
    def app(self) -> web.Application:
        """A new aiohttp application, for `add_subapp`."""
        from aiohttp import web  # noqa: PLC0415 - loaded with the server

        app = web.Application()
        app.router.add_route("*", "/{tail:(?s:.*)}", self._answer, expect_handler=_expect_nothing)
        return app

    @property
    def asgi(self) -> Asgi:
        """An ASGI 3 application, to mount in FastAPI, Starlette and the like, or to serve alone."""

        async def asgi(scope: _Message, receive: _Receive, send: _Send) -> None:
            await self._serve_asgi(scope, receive, send)

        return asgi  # a function: uvicorn mistakes a bound method for an ASGI 2 application

    @staticmethod
    def openapi() -> dict[str, Any]:
        """Return the OpenAPI 3.1 document of the receiver, relative to `public_url`."""
        return callback_document(MAX_BODY_BYTES)

    # --- one request ------------------------------------------------------------------------------------------------

    async def _process(
        self, method: str, path: str, headers: Mapping[str, str], read: Callable[[], Awaitable[bytes]]
    ) -> int:
        """Process one request and return its status, 202 or 404.

        :param headers: by lower-case name.
        :param read: returns the next chunk of the body, b"" at its end.
        """
        found = _PATH_END.search(path) if method == "POST" else None
        digest = "" if found is None else _digest(found[1])
        handler = None if found is None else await self._handler_for(digest)
        if handler is not None:
            body = await _read_body(read)
            is_taken = body is not None and await self._is_authentic(handler, digest, headers, body)
            if handler not in self._handlers:  # its client was closed meanwhile
                handler = await self._handler_for(digest)
            if body is not None and is_taken and handler is not None:
                try:
                    handler.handle(digest, body)
                except Exception as error:
                    self._log_defect(error)
                self.received += 1
                return 202
        self.refused += 1
        return 404

    async def _is_authentic(
        self, handler: CallbackHandler, digest: str, headers: Mapping[str, str], body: bytes
    ) -> bool:
        try:
            return await handler.is_authentic(digest, headers, body)
        except Exception as error:
            self._log_defect(error)
            return False

    async def _handler_for(self, digest: str) -> CallbackHandler | None:
        for handler in self._handlers:
            try:
                if await handler.accepts(digest):
                    return handler
            except Exception as error:
                self._log_defect(error)
        return None

    def _log_defect(self, error: Exception) -> None:
        """Log a handler's defect once per line of code, without its message: a sender may have chosen both."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        defect = f"{type(error).__name__} in {frame.filename}, line {frame.lineno}"
        if defect not in self._logged_defects:
            self._logged_defects.add(defect)
            _log.error("a handler failed on a callback: %s", defect)

    def _count_cut(self) -> None:
        self.cut += 1

    def _refuse(self) -> web.Response:
        self.refused += 1
        return _response(404)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        waits = request.headers.get("Expect", "").lower() == "100-continue"

        async def read() -> bytes:
            nonlocal waits
            if (request.content_length or 0) > MAX_BODY_BYTES:
                raise ValueError("too long")
            if waits:
                waits = False
                await request.writer.write(_CONTINUE)
                request.writer.output_size = 0  # the response has not begun
            return await request.content.readany()

        headers = {name.lower(): value for name, value in request.headers.items()}
        return _response(await self._process(request.method, request.path, headers, read))

    async def _serve_asgi(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _serve_lifespan(receive, send)
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

            # A mount at `/callbacks` moves that part of the path to `root_path`.
            path = scope.get("root_path", "") + scope["path"]
            headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", ())
            }
            status = await self._process(scope["method"], path, headers, read)
            with contextlib.suppress(OSError):  # raised by servers when the sender has left
                await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})


async def _read_body(read: Callable[[], Awaitable[bytes]]) -> bytes | None:
    """Return the body, or None if it is too long, too slow, cut or malformed."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while chunk := await read():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return None
    except Exception:
        return None
    return bytes(body)


async def _serve_lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        stage = (await receive())["type"]
        await send({"type": f"{stage}.complete"})
        if stage == "lifespan.shutdown":
            return


async def _expect_nothing(_request: web.Request) -> None:
    """Leave `Expect` to `_answer`: aiohttp would refuse an unknown expectation with a 417."""


def _response(status: int) -> web.Response:
    from aiohttp import web  # noqa: PLC0415

    headers = {"Content-Length": "0", "Server": "-"}  # without "Server", aiohttp would send its version
    response = web.Response(status=status, headers=headers)
    response.force_close()
    return response


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _checked_url(public_url: object) -> str:
    way_out = 'give the URL at which the gateway reaches this receiver, such as "https://example.com/hooks"'
    if not isinstance(public_url, str):
        raise _bad("public_url", f"{shorten(public_url)} must be an http or https URL; {way_out}")
    if "@" in public_url:  # the URL is not shown: it may hold a credential
        raise _bad("public_url", f"must not hold a user; {way_out}")
    if not public_url.isprintable() or any(mark.isspace() or mark in "?#" for mark in public_url):
        reason = (
            f"{shorten(public_url)} must not hold white space, control characters, a query or a fragment; {way_out}"
        )
        raise _bad("public_url", reason)
    try:
        url = URL(public_url)
        complete = url.scheme in {"http", "https"} and bool(url.host) and url.port != 0
    except ValueError:
        url, complete = URL(), False
    if not complete:
        raise _bad("public_url", f"{shorten(public_url)} must be an http or https URL; {way_out}")
    if url.scheme == "http" and not is_loopback(url):
        _log.warning("callbacks to %s travel in plain text, and their tokens with them; use https", url)
    return str(url).rstrip("/")


def _checked_bind_address(host: object, port: object) -> tuple[str, int] | None:
    if port is None and host is None:
        return None
    if port is None:
        raise _bad("host", f"{shorten(host)} needs a port; give one, or neither and mount `app` or `asgi`")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65_535:
        raise _bad("port", f"{shorten(port)} must be a port; give one from 1 to 65535, or 0 for any free one")
    if host is None:
        host = "127.0.0.1"
    if not isinstance(host, str) or not host.isprintable() or not host or " " in host:
        raise _bad("host", f"{shorten(host)} must be an address to listen on; give one such as 127.0.0.1 or 0.0.0.0")
    return host, port


def _bad(setting: str, reason: str) -> ConfigurationError:
    return ConfigurationError(setting=setting, reason=reason)
