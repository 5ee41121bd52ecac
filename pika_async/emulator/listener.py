"""Listening socket of one origin of the emulator, which can refuse connections for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

__all__ = ["Listener"]

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
        site, self._site = self._site, None
        if site is not None:
            await site.stop()
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def accept(self) -> None:
        """Accept connections again, at the same port."""
        await self._listen(self._port)

    async def close(self) -> None:
        """Stop listening and end the handlers."""
        await self._runner.cleanup()
