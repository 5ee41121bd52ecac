"""The life of a client: what it is told, checked; opened and closed, again and again. Asks and sends nothing."""

from __future__ import annotations

import asyncio
import os
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp

from pika_async._http.transport import AiohttpTransport, Transport
from pika_async._journal.protocol import Journal
from pika_async._planning.limits import Limits
from pika_async._runtime.event_stream import Hook
from pika_async._runtime.session import ClientConfig, Session, require_loop, wait_uncancelled
from pika_async.callbacks import CallbackReceiver
from pika_async.config import (
    address_of,
    deadline_of,
    drain_of,
    is_lenient,
    journal_of,
    limits_of,
    policy_of,
    read_credential,
    receiver_of,
)
from pika_async.polling import AdaptivePolling, PollingPolicy
from pika_async.providers import Provider, find_provider
from pika_async.providers._wire import Credential

__all__ = ["Life"]


class Life:
    """The part of `PikaClient` that opens and closes."""

    def __init__(
        self,
        provider: str | Provider,
        *,
        api_key: str | None = None,
        api_key_file: str | os.PathLike[str] | None = None,
        base_url: str | None = None,
        journal: str | os.PathLike[str] | Journal | None = None,
        polling: PollingPolicy | None = None,
        limits: Limits | None = None,
        callbacks: CallbackReceiver | None = None,
        deadline: float | None = None,
        ambiguous: Literal["strict", "lenient"] = "strict",
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.provider = provider if isinstance(provider, Provider) else find_provider(provider)
        self.base_url = address_of(self.provider, base_url)
        credential = Credential("") if transport else read_credential(self.provider, api_key, api_key_file)
        limits = limits_of(limits)
        self._journal = journal_of(journal)
        self._config = ClientConfig(
            provider=self.provider,
            base_url=self.base_url,
            limits=limits,
            deadline=deadline_of(deadline),
            policy=policy_of(polling),
            callbacks=receiver_of(callbacks, self.provider),
            proxy=proxy,
            transport=transport
            or AiohttpTransport(
                self.base_url, credential, session=session, proxy=proxy, connections=int(limits.polling)
            ),
            journal=self._journal,
            account_digest=credential.account(),
            lenient=is_lenient(ambiguous),
        )
        self._hooks: list[Hook] = []
        self._session: Session | None = None
        self._opening = self._history_loaded = False
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<PikaClient {self.provider.name} at {self.base_url}>"

    @property
    def polling(self) -> AdaptivePolling | Any:  # Any: or one's own
        """The policy that it was built with, the adaptive one unless another was given: see its `describe()`."""
        return self._config.policy

    async def __aenter__(self) -> Self:
        await self._closed()
        if self._session is not None:
            require_loop(self._session.loop)
        if self._session is not None or self._opening:
            raise RuntimeError("the client is open already")
        self._opening = True
        try:
            self._session = await Session.open(self._config)
        finally:
            self._opening = False
        try:
            for hook in self._hooks:
                self._session.events.add_hook(hook)
            if not self._history_loaded:  # once: the policy outlives every opening
                self._session.table.planner.poll_queue.load_history(self._journal.samples())
                self._history_loaded = True
        except BaseException:  # the journal cannot be read after all
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self, drain: bool | float = False) -> None:
        """Send nothing more, keep the receipts that are on their way (at most 20 s), free every connection.

        What was accepted and has not settled stays with its task id in `jobs()`, and in the journal. `drain`: first
        wait for it, that many seconds at most (True: until each has settled or met its deadline), while batches and
        whoever else waits go on; what was not sent comes to rest at once, as planned, with `ClientClosed`. Another
        `aclose()`, or cancelling this one, ends the waiting. What has settled by then is given to the hooks (at most
        20 s more).

        :raises ConfigurationError: if `drain` is neither True nor a number of seconds from 0.
        :raises RuntimeError: from a hook, or from the iterable that a batch reads: it would wait for itself; or from
            another event loop.
        """
        seconds = drain_of(drain)
        session = self._session
        if session is not None:
            require_loop(session.loop)
            if session.owns_current_task:
                raise RuntimeError("the client cannot be closed by the iterable that it reads, or by its own hook")
            try:
                if seconds:
                    await session.drain(seconds)
            finally:
                await self._close(session)
        await self._closed()

    async def _close(self, session: Session) -> None:
        if self._session is session:  # nobody else has begun it
            self._session = None
            self._closing = asyncio.create_task(session.close(), name="pika_async closing")
        await self._closed()

    async def _closed(self) -> None:
        if self._closing is not None and not self._closing.done():
            require_loop(self._closing.get_loop())
            await wait_uncancelled(self._closing)

    def _require_session(self) -> Session:
        if self._session is None:
            raise RuntimeError("the client is not open: use it inside `async with`")
        require_loop(self._session.loop)
        self._session.table.require_open()
        return self._session
