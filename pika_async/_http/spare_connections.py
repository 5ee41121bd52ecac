"""Connections opened ahead of submissions and used once. Sends nothing.

A connection is taken only while nothing was written to it and nothing was read from it, so that the proof of "not sent"
is that of a connection opened for one request. A server may drop a connection on which no request comes: one older than
`MAX_AGE_S` is closed, and after a server has ended one of them, no more are opened.
"""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import attrs
from aiohttp.connector import Connection

__all__ = ["MAX_AGE_S", "MAX_SPARES", "SpareConnections"]

_log = logging.getLogger("pika_async.spare_connections")
#: Seconds after which a connection that was opened ahead is not used.
MAX_AGE_S: Final = 2.0
#: Maximum number of connections opened ahead, those being opened included.
MAX_SPARES: Final = 64
#: Number of connections that may be opened ahead before any has proved useful.
INITIAL_CREDIT: Final = 8.0
#: Credit for a submission that found no connection: after eight of them one more is tried.
MISS_CREDIT: Final = 1 / 8


def _read_clocks() -> tuple[float, float]:
    """Return the monotonic and the wall clock: the first stands still while the machine sleeps."""
    return time.monotonic(), time.time()


@attrs.frozen(eq=False)
class _Spare:
    connection: Connection
    opened_at: tuple[float, float]


class SpareConnections:
    """Connections of one connector that are opened ahead of submissions, all to one origin.

    Their number has a credit, so that at most about one connection in eight is opened in vain: it grows by one with
    each that is used, and shrinks by one with each that becomes too old.

    :param open_connection: opens one connection and writes no request to it.
    :param clocks: the monotonic and the wall clock, in seconds.
    """

    def __init__(
        self,
        open_connection: Callable[[], Awaitable[Connection]],
        *,
        clocks: Callable[[], tuple[float, float]] = _read_clocks,
    ) -> None:
        self._open_connection = open_connection
        self._clocks = clocks
        #: With the timer that closes it, the oldest first.
        self._spares: dict[_Spare, asyncio.TimerHandle] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._credit = INITIAL_CREDIT
        self._is_off = False

    def __len__(self) -> int:
        return len(self._spares) + len(self._opening)

    def prepare(self, wanted: int) -> None:
        """Open connections until there are `wanted`, or as many as the credit allows. Closes none that can be used."""
        self._sort_out()
        if self._is_off:
            return
        for _ in range(min(wanted, int(self._credit)) - len(self)):
            task = asyncio.create_task(self._open(), name="pika_async connection opened ahead")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            connection = await self._open_connection()
        except Exception:  # a submission will meet the cause, and report it
            self._credit = 0.0
            return
        if self._is_off:
            _discard(connection)
            return
        spare = _Spare(connection, self._clocks())
        self._spares[spare] = asyncio.get_running_loop().call_later(MAX_AGE_S, self._drop, spare)

    def take(self) -> Connection | None:
        """Remove and return the oldest connection that can be used for a request; None if there is none."""
        self._sort_out()
        for spare in self._spares:
            if not _has_unread(spare.connection):  # a session ticket, or an end: the loop is about to read it
                self._remove(spare)
                self._earn(1.0)
                return spare.connection
        return None

    def on_opened(self) -> None:
        """Record that a submission found no connection and has opened its own."""
        self._earn(MISS_CREDIT)

    def _earn(self, credit: float) -> None:
        self._credit = min(self._credit + credit, float(MAX_SPARES))

    async def close(self) -> None:
        """Close every connection and wait for those that are being opened."""
        self._turn_off()
        if self._opening:
            await asyncio.wait(self._opening)

    def _sort_out(self) -> None:
        """Close what is too old to be used, and everything if the server has ended one."""
        monotonic, wall = self._clocks()
        for spare in list(self._spares):
            if not _is_intact(spare.connection):
                self._turn_off()
                return
            if max(monotonic - spare.opened_at[0], abs(wall - spare.opened_at[1])) >= MAX_AGE_S:
                self._drop(spare)

    def _drop(self, spare: _Spare) -> None:
        if not _is_intact(spare.connection):  # the server does not wait that long
            self._turn_off()
            return
        self._remove(spare)
        _discard(spare.connection)
        self._credit = max(self._credit - 1, 0.0)

    def _remove(self, spare: _Spare) -> None:
        self._spares.pop(spare).cancel()

    def _turn_off(self) -> None:
        self._is_off = True
        for task in self._opening:
            task.cancel()
        for spare in list(self._spares):
            self._remove(spare)
            _discard(spare.connection)


def _is_intact(connection: Connection) -> bool:
    """Return whether neither a request was written to a connection nor anything was read from it, its end included."""
    protocol = cast("Any", connection.protocol)
    try:
        return protocol is not None and not (protocol.was_used or protocol.should_close or not protocol.is_connected())
    except AttributeError:  # another aiohttp than those that were tested: every submission opens its connection
        _log.warning("connections can no longer be opened ahead", exc_info=True)
        return False


def _has_unread(connection: Connection) -> bool:
    """Return whether the system has bytes or an end of a connection that the event loop has not read yet."""
    transport = connection.transport
    descriptor = -1 if transport is None else transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):  # Windows
        return any(select.select([descriptor], [], [descriptor], 0))
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _discard(connection: Connection) -> None:
    """Close a connection at once: there is no request whose end TLS would have to prove."""
    if connection.transport is not None:
        connection.transport.abort()
    connection.close()
