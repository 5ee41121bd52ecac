"""A small HTTP server for the open internet: one request a connection, a deadline and a cap; decides no answer.

aiohttp's own server gives a connection all the time it wants for its headers, and has no cap on connections.
"""

from __future__ import annotations

import asyncio
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

__all__ = ["CLOSING_SECONDS", "CONNECTIONS", "CONNECTION_SECONDS", "CallbackServer"]

_log = logging.getLogger("pika_async.callback_server")

#: From accept until the answer is written, in seconds; then the connection is cut.
CONNECTION_SECONDS: Final = 10.0
#: How many connections are held; one more cuts the oldest, so that slow senders lock nobody out.
CONNECTIONS: Final = 256
#: How long a body that nobody wants is still taken in after the answer, so that its sender gets to read the answer.
LINGER_SECONDS: Final = 1.0
#: How long closing waits for connections that were cut, in seconds.
CLOSING_SECONDS: Final = 1.0
#: Of aiohttp's connections. A head is at most 64 fields of 4 KiB; bodies come as they were sent, never inflated.
_OPTIONS: Final[dict[str, Any]] = {
    "access_log": None,  # its lines would hold the tokens
    "auto_decompress": False,
    "keepalive_timeout": 0,
    "lingering_time": LINGER_SECONDS,
    "max_field_size": 4096,
    "max_headers": 64,
    "max_line_size": 4096,
}


class CallbackServer:
    """Gives every request to `answer`, and what is no HTTP to `refuse`; calls `cut` for an end without an answer.

    Of the loop that it is started in.
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
        #: Set while nothing is listened on.
        self.stopped = asyncio.Event()
        self.stopped.set()
        self.http = web.Server(answer, request_factory=_request, handler_cancellation=True)
        self._connections: dict[_Connection, None] = {}  # the oldest first
        self._listening: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and tell the port: the one given, or the free one that 0 became.

        :raises ConfigurationError: if `host` is not this machine's, or `port` is taken or not allowed.
        """
        loop = asyncio.get_running_loop()
        try:
            listening = await loop.create_server(
                lambda: _Connection(self, loop), host, port, backlog=CONNECTIONS, start_serving=False
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
        """Whether the loop that it listens in has ended under it."""
        return self._listening is not None and self._listening.get_loop().is_closed()

    def close(self) -> None:
        """Take no connection any more and cut every one; `closed` waits until they are gone.

        The listening itself ends a round of the loop later, when `stopped` is set: asyncio would lose a socket that it
        has accepted and not yet given to us (its `Server._attach` asserts that the server is open).
        """
        is_lost = self.is_lost
        listening, self._listening = self._listening, None
        if is_lost and listening is not None:  # and so are its connections and their tasks
            self._connections.clear()
            self.tasks.clear()
            self._stop(listening)
        elif listening is not None:
            loop = asyncio.get_running_loop()
            for each in listening.sockets:
                loop.remove_reader(each.fileno())
            loop.call_soon(self._stop, listening)
        for connection in list(self._connections):
            connection.abort()

    def _stop(self, listening: asyncio.Server) -> None:
        listening.close()
        self.stopped.set()

    async def closed(self) -> None:
        """Wait until the connections have ended, at most `CLOSING_SECONDS`."""
        await self.stopped.wait()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=CLOSING_SECONDS)

    def admit(self, connection: _Connection) -> None:
        """Hold a new connection, at the cost of the oldest where there are too many."""
        self._connections[connection] = None
        if self._listening is None:
            connection.abort()
        elif len(self._connections) > CONNECTIONS:
            next(iter(self._connections)).abort()

    def release(self, connection: _Connection) -> None:
        """Hold a connection no more."""
        self._connections.pop(connection, None)


class _Connection(web.RequestHandler):
    """One accepted connection: aiohttp's, with a deadline, and with nothing of what was sent in a log line."""

    def __init__(self, server: CallbackServer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server.http, loop=loop, **_OPTIONS)
        self._server = server
        self._wire: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._answered = False

    def abort(self) -> None:
        """Cut the connection, whatever is under way on it."""
        self._server.release(self)
        if self._wire is not None:
            self._wire.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)  # uvloop's own is none by class
        self._deadline = self._loop.call_later(CONNECTION_SECONDS, self.abort)
        self._server.admit(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception:  # aiohttp 3.14.3 lets errors of an address through, and asyncio would log them in full
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
            raise ConnectionError("an answer has begun")
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
    """Every request as one of HTTP/1.1: aiohttp takes what is no HTTP for 1.0, and its answer would look different."""
    return web.BaseRequest(
        message._replace(version=HttpVersion11), payload, connection, writer, task, asyncio.get_running_loop()
    )


def _unusable(host: str, port: int, error: OSError | ValueError) -> ConfigurationError:
    # Since Python 3.13 an address that is not there has no number: none of the host's addresses could be bound.
    if isinstance(error, socket.gaierror | ValueError) or error.errno in {errno.EADDRNOTAVAIL, None}:
        reason = f"{shorten(host)} is no address of this machine; give one that is, such as 127.0.0.1"
        return ConfigurationError(setting="host", reason=reason)
    why = {errno.EADDRINUSE: "is taken", errno.EACCES: "is not allowed to this user"}.get(
        error.errno or 0, f"cannot be listened on ({error.strerror})"
    )
    return ConfigurationError(setting="port", reason=f"{port} at {host} {why}; give another, or 0 for any free one")
