"""HTTP server for callbacks from the internet, with a time limit per connection. Does not decide the responses.

A connection carries one request. aiohttp's own server limits neither the time for headers nor the number of
connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader

from pika_async.errors import ConfigurationError, shorten

__all__ = ["CLOSE_TIMEOUT_S", "CONNECTION_TIMEOUT_S", "MAX_CONNECTIONS", "CallbackServer"]

_log = logging.getLogger("pika_async.callback_server")

#: The longest time from accept until the response is written, in seconds; then the connection is cut.
CONNECTION_TIMEOUT_S: Final = 10.0
#: The number of open connections; one more cuts the oldest, so that slow senders do not lock others out.
MAX_CONNECTIONS: Final = 256
#: How long the rest of a body is read after the response, in seconds, so that its sender can read the response.
LINGER_S: Final = 1.0
#: The longest wait for the end of connections that were cut, in seconds.
CLOSE_TIMEOUT_S: Final = 1.0
#: Options of aiohttp's connections: at most 64 header fields of 4 KiB; a body is never decompressed.
_OPTIONS: Final[dict[str, Any]] = {
    "access_log": None,  # it would hold the tokens
    "auto_decompress": False,
    "keepalive_timeout": 0,
    "lingering_time": LINGER_S,
    "max_field_size": 4096,
    "max_headers": 64,
    "max_line_size": 4096,
}


class CallbackServer:
    """An HTTP server in the event loop in which it is started.

    :param answer: returns the response to a request.
    :param refuse: returns the response to a request that is not HTTP.
    :param cut: called for each connection that ends without a response.
    """

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.Response]],
        refuse: Callable[[], web.Response],
        cut: Callable[[], None],
    ) -> None:
        self.refuse = refuse
        self.cut = cut
        self.tasks: set[asyncio.Task[None]] = set()
        #: Set while the server does not listen.
        self.stopped = asyncio.Event()
        self.stopped.set()
        self.http = web.Server(answer, request_factory=_request, handler_cancellation=True)
        self._connections: dict[_Connection, None] = {}  # an ordered set, the oldest first
        self._listening: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port.

        :param host: an address of this machine.
        :param port: 1 to 65535, or 0 for any free port.
        :raises ConfigurationError: if `host` is not an address of this machine, or `port` is taken or not allowed.
        """
        loop = asyncio.get_running_loop()
        try:
            listening = await loop.create_server(
                lambda: _Connection(self, loop), host, port, backlog=MAX_CONNECTIONS, start_serving=False
            )
        except (OSError, ValueError) as error:
            raise _unusable(host, port, error) from None
        self._listening = listening
        self.stopped.clear()
        bound: int = listening.sockets[0].getsockname()[1]
        try:
            await listening.start_serving()
        except BaseException:
            self.close()
            raise
        return bound

    @property
    def is_lost(self) -> bool:
        """Whether the event loop of the server was closed while it listened."""
        return self._listening is not None and self._listening.get_loop().is_closed()

    def close(self) -> None:
        """Accept no connection any more and cut the open ones; `closed` waits until they have ended.

        Listening ends one iteration of the loop later, when `stopped` is set: asyncio would lose a socket that it has
        accepted and not yet passed on (its `Server._attach` asserts that the server is open).
        """
        is_lost = self.is_lost
        listening, self._listening = self._listening, None
        if is_lost and listening is not None:  # its connections and their tasks are lost too
            self._connections.clear()
            self.tasks.clear()
            self._stop(listening)
        elif listening is not None:
            loop = asyncio.get_running_loop()
            for listener in listening.sockets:
                with contextlib.suppress(NotImplementedError):  # Windows' loop has no readers, and loses no socket
                    loop.remove_reader(listener.fileno())
            loop.call_soon(self._stop, listening)
        for connection in list(self._connections):
            connection.abort()

    def _stop(self, listening: asyncio.Server) -> None:
        listening.close()
        self.stopped.set()

    async def closed(self) -> None:
        """Wait until the connections have ended, at most `CLOSE_TIMEOUT_S`."""
        await self.stopped.wait()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=CLOSE_TIMEOUT_S)

    def admit(self, connection: _Connection) -> None:
        """Add a connection; cut the oldest if there are too many."""
        self._connections[connection] = None
        if self._listening is None:
            connection.abort()
        elif len(self._connections) > MAX_CONNECTIONS:
            next(iter(self._connections)).abort()

    def release(self, connection: _Connection) -> None:
        """Remove a connection."""
        self._connections.pop(connection, None)


class _Connection(web.RequestHandler):
    """An aiohttp connection with a time limit, whose log lines hold nothing that a sender wrote."""

    def __init__(self, server: CallbackServer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server.http, loop=loop, **_OPTIONS)
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._answered = False

    def abort(self) -> None:
        """Cut the connection at once."""
        self._server.release(self)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport is not a subclass
        self._deadline = self._loop.call_later(CONNECTION_TIMEOUT_S, self.abort)
        self._server.admit(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception:  # aiohttp 3.14.3 raises for a bad URL, and asyncio would log it whole
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._server.release(self)
        if not self._answered:
            self._server.cut()
        super().connection_lost(exc)

    async def start(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            task.set_name("pika_async callback")
            self._server.tasks.add(task)
            task.add_done_callback(self._server.tasks.discard)
        await super().start()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        response, lost = await super().finish_response(request, resp, start_time)
        self._answered = not lost
        return response, lost

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 - aiohttp's signature
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002 - aiohttp would send it
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("a response has begun")
        return self._server.refuse()

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ARG002
        _log.error("a connection failed: %s", type(kw.get("exc_info")).__name__)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    connection: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    """Create a request of HTTP/1.1: aiohttp treats other input as HTTP/1.0, and would answer it differently."""
    return web.BaseRequest(
        message._replace(version=HttpVersion11), payload, connection, writer, task, asyncio.get_running_loop()
    )


def _unusable(host: str, port: int, error: OSError | ValueError) -> ConfigurationError:
    # Since Python 3.13 the error of an address that cannot be bound has no errno.
    if isinstance(error, socket.gaierror | ValueError) or error.errno in {errno.EADDRNOTAVAIL, None}:
        reason = f"{shorten(host)} must be an address of this machine; give one, such as 127.0.0.1"
        return ConfigurationError(setting="host", reason=reason)
    why = {errno.EADDRINUSE: "is taken", errno.EACCES: "is not allowed to this user"}.get(
        error.errno or 0, f"cannot be used ({error.strerror})"
    )
    return ConfigurationError(setting="port", reason=f"{port} at {host} {why}; give another, or 0 for any free one")
