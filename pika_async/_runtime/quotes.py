"""Prices that providers quote, for the requests of one estimate: each is asked for once. Free; pays for nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import anyio

from pika_async._http.transport import Transport
from pika_async._planning.actions import ActiveJob
from pika_async._runtime.free_requests import FreeRequests
from pika_async._runtime.open_accounts import OpenAccounts
from pika_async.config.client import ClientConfig
from pika_async.models import GenerationRequest
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure

__all__ = ["Quotes", "open_quotes"]

#: The longest time for all quotes of an estimate, in seconds: the prices without an answer by then are unknown.
QUOTES_TIMEOUT_S: Final = 10.0


class Quotes:
    """Quotes of the accounts of a client, in US dollars.

    :param free: the free requests of each account whose provider quotes prices, by name.
    """

    def __init__(self, free: Mapping[str, FreeRequests]) -> None:
        self._free = free
        self._known: dict[tuple[str, str, bytes | None], float | None] = {}
        self._until = anyio.current_time() + QUOTES_TIMEOUT_S

    async def price_of(self, account: str, request: GenerationRequest) -> float | None:
        """Return the price of a request at an account; None where unknown. Raises nothing.

        Requests of the same price cause one request to the gateway.
        """
        free = self._free.get(account)
        question = None if free is None else free.quote_request(request)
        if free is None or question is None:
            return None
        name = account, question.url, question.body
        if name not in self._known:
            self._known[name] = None
            with anyio.CancelScope(deadline=self._until):
                self._known[name] = await free.answer_to(question)
        return self._known[name]


@asynccontextmanager
async def open_quotes(config: ClientConfig, accounts: OpenAccounts | None) -> AsyncGenerator[Quotes | None, None]:
    """Provide the quotes of a client; None if it was given a price, whose unit is the user's own.

    :param accounts: those of the client while it is open; None: the transports are opened, and closed again.
    :raises ConfigurationError: if a transport cannot be opened.
    """
    if any(account.prices is not None for account in config.accounts):
        yield None
        return
    free: dict[str, FreeRequests] = {}
    async with AsyncExitStack() as stack:
        for account in config.accounts:
            if account.provider.dialect.quote is None:
                continue
            if accounts is not None:
                free[account.name] = accounts[account.name].gateway.free
                continue
            stack.push_async_callback(account.transport.close)
            await account.transport.open()
            send = partial(_send, account.transport)
            free[account.name] = FreeRequests(account.provider, account.base_url, send)
        yield Quotes(free)


async def _send(
    transport: Transport, request: HttpRequest, _active: ActiveJob | None
) -> HttpResponse | TransportFailure:
    return await transport.send(request)
