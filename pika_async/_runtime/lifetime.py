"""Opening and closing of a client: at most one session at a time, also in one event loop after another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from pika_async._runtime.tasks import require_asyncio, require_loop, wait_uncancelled
from pika_async.config.client import drain_seconds
from pika_async.errors import ClientNotOpen

__all__ = ["ClientLifetime"]


class _Session(Protocol):
    """The part of `Session` that opening and closing need."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def owns_current_task(self) -> bool: ...
    def require_open(self, *, accepting: bool = False) -> None: ...
    async def drain(self, seconds: float) -> None: ...
    async def close(self) -> None: ...


S = TypeVar("S", bound=_Session)


class ClientLifetime(Generic[S]):
    """The session of a client while it is open, and the task that closes the last one."""

    def __init__(self) -> None:
        self.session: S | None = None
        self.closing: asyncio.Task[None] | None = None
        self._opening = self._history_loaded = False

    async def open(self, open_session: Callable[[bool], Awaitable[S]]) -> None:
        """Open a session; see `PikaClient.open`.

        :param open_session: called with whether to teach the polling policy the durations in the journal.
        """
        require_asyncio()
        await self._wait_closed()
        if self.session is not None:
            require_loop(self.session.loop)
        if self.session is not None or self._opening:
            raise RuntimeError("the client is open already")
        self._opening = True
        try:  # the history is loaded once: the policy outlives every session
            self.session = await open_session(not self._history_loaded)
            self._history_loaded = True
        finally:
            self._opening = False

    async def close(self, drain: bool | float) -> None:
        """Close the session if there is one; see `PikaClient.aclose`."""
        seconds = drain_seconds(drain)
        session = self.session
        if session is not None:
            require_loop(session.loop)
            if session.owns_current_task:
                raise RuntimeError("the client cannot be closed by the iterable that it reads, or by its own hook")
            try:
                if seconds:
                    await session.drain(seconds)
            finally:
                if self.session is session:  # no other call has begun to close it
                    self.session = None
                    self.closing = asyncio.create_task(session.close(), name="pika_async closing")
                await self._wait_closed()
        await self._wait_closed()

    async def _wait_closed(self) -> None:
        if self.closing is not None and not self.closing.done():
            require_loop(self.closing.get_loop())
            await wait_uncancelled(self.closing)

    def require_session(self, *, accepting: bool) -> S:
        """Return the session: the one check of a public call that the client is open, or also accepts jobs."""
        if self.session is None:
            raise ClientNotOpen
        self.session.require_open(accepting=accepting)
        return self.session
