"""Listening socket of one origin of the emulator, which can refuse connections for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

__all__ = ["Listener"]

#: Turns of the loop from the acceptance of a connection to its handler.
_TURNS = 4

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Listener:
    """HTTP server on one port of a loopback address.

    :param host: address to bind.
    :param handler: answers the requests. It is cancelled when its client disconnects, so a stalled answer ends with
        its connection.
    """

    def __init__(self, host: str, handler: Handler) -> None:
        self._host = host
        self._server = web.Server(handler, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        self._site: web.TCPSite | None = None
        #: The end of the site that listened before.
        self._stopping: asyncio.Task[None] | None = None
        self._port = 0

    async def open(self, port: int = 0) -> str:
        """Listen and return the origin; *port* 0 is any free port.

        :raises OSError: if the port is in use.
        """
        await self._runner.setup()
        await self._listen(port)
        self._port = self._runner.addresses[0][1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def _listen(self, port: int) -> None:
        self._site = web.TCPSite(self._runner, self._host, port, backlog=1024)
        await self._site.start()

    @property
    def is_listening(self) -> bool:
        """Whether connections are accepted."""
        return self._site is not None

    async def refuse(self) -> None:
        """Refuse connections and reset those that are open."""
        self._stop_listening(resets=True)
        self._reset_connections()

    async def accept(self) -> None:
        """Accept connections again, at the same port."""
        await self._wait_until_stopped()
        await self._listen(self._port)

    async def close(self) -> None:
        """Stop listening and end the handlers."""
        self._stop_listening(resets=False)
        await self._wait_until_stopped()
        await self._runner.cleanup()

    def _stop_listening(self, *, resets: bool) -> None:
        """Accept nothing from now on, and close the sockets some turns later.

        Python would leave a connection open for ever that it has accepted in the turns before its server is closed.
        """
        site, self._site = self._site, None
        if site is not None:
            server = site._server  # noqa: SLF001 - aiohttp does not give its sockets
            for listening in [] if server is None else server.sockets:  # type: ignore[attr-defined]
                asyncio.get_running_loop().remove_reader(listening.fileno())
            self._stopping = asyncio.create_task(self._stop(site, resets), name="pika-emulator-stop")

    async def _stop(self, site: web.TCPSite, resets: bool) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        await site.stop()
        if resets:
            self._reset_connections()

    async def _wait_until_stopped(self) -> None:
        if self._stopping is not None:
            await asyncio.shield(self._stopping)

    def _reset_connections(self) -> None:
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
