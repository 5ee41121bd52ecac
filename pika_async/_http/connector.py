"""Connections whose answers are kept up to the first bytes that are not HTTP. Parses nothing itself.

A request can learn which connection it gets without aiohttp's tracing, which costs a tenth of a poll's CPU.

aiohttp (3.14.5) parses everything that one read has brought at once, and drops all of it where the last of it is not
HTTP: a receipt would be lost whose stated length is a byte too short.
"""

from __future__ import annotations

import errno
import functools
import re
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from pika_async._http.addresses import forbidden_reason
from pika_async._http.spare_connections import SpareConnections

__all__ = ["Connector", "SubmissionConnector", "on_connected", "open_socket"]

#: In seconds.
_SPARE_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=15, sock_connect=15)

#: End of a head, also where an earlier read has ended within it.
HEAD_END_PATTERN: Final = re.compile(rb"\A(?:\r?\n)+|\n\r?\n")
#: Called when the request of this task gets its connection, with whether an earlier one used it.
on_connected: ContextVar[Callable[[bool], object] | None] = ContextVar("on_connected", default=None)


def open_socket(info: Any, *, loopback: bool, tunnel: bool = False) -> socket.socket:
    """Create the socket for a resolved address, unless the address is forbidden.

    The check is here and not in a resolver, because aiohttp does not resolve a host that is an IP address, and because
    a second resolution of a name could return another address than the one checked.

    :param loopback: see `forbidden_reason`.
    :param tunnel: see `forbidden_reason`.
    :raises OSError: if it is forbidden; aiohttp then tries the next address of the host.
    """
    reason = forbidden_reason(str(info[4][0]), loopback=loopback, tunnel=tunnel)
    if reason is not None:
        raise OSError(errno.EACCES, f"{info[4][0]} {reason}")
    return socket.socket(*info[:3])


class _AnswerProtocol(ResponseHandler):
    """A connection that passes the head of an answer on before it parses the body."""

    _has_head = True
    #: Whether a request was sent over it.
    was_used = False

    def set_response_params(self, **params: Any) -> None:
        self._has_head, self.was_used = False, True
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        message, _ = data
        self._has_head = message.code >= 200  # an informational answer precedes the final one
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        start = 0
        while not self._has_head and (found := HEAD_END_PATTERN.search(data, start)) is not None:
            super().data_received(data[start : found.end()])
            start = found.end()
            if self.exception() is not None:  # and the connection is closed
                return
        if start < len(data) or not data:  # without data the parser continues after a pause
            super().data_received(data[start:])


class Connector(aiohttp.TCPConnector):
    """Connector of aiohttp with such connections; takes the same options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(cast("type[ResponseHandler]", _AnswerProtocol), loop=self._loop)

    async def connect(self, *args: Any, **options: Any) -> Connection:
        """Return a connection for a request; see aiohttp."""
        connection = await super().connect(*args, **options)
        callback, protocol = on_connected.get(), connection.protocol
        if callback is not None:
            callback(isinstance(protocol, _AnswerProtocol) and protocol.was_used)
        return connection


class SubmissionConnector(Connector):
    """Connector whose connections serve one request each. They may be opened ahead.

    :param origin: where the connections lead that are opened ahead.
    """

    def __init__(self, origin: URL) -> None:
        super().__init__(force_close=True, limit=0)
        self._origin = origin
        self._spare_request: aiohttp.ClientRequest | None = None
        self._spares = SpareConnections(self._open_spare)

    def prepare(self, wanted: int) -> None:
        """Open connections ahead for that many requests; see `SpareConnections`."""
        self._spares.prepare(wanted)

    async def _open_spare(self) -> Connection:
        if self._spare_request is None:
            self._spare_request = aiohttp.ClientRequest("GET", self._origin, loop=self._loop)  # and is not sent
        return await super().connect(self._spare_request, [], _SPARE_TIMEOUT)

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **options: Any) -> Connection:
        """Return a connection to which nothing was written, opened ahead or now."""
        if self._spare_request is None:  # none was ever opened ahead
            return await super().connect(req, *args, **options)
        spare = self._spares.take() if self._spare_request.connection_key == req.connection_key else None
        if spare is not None:
            return spare
        connection = await super().connect(req, *args, **options)
        self._spares.on_opened()
        return connection

    async def close(self, **options: Any) -> None:
        """Close every connection; see aiohttp."""
        await self._spares.close()
        await super().close(**options)
