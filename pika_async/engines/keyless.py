"""Configuration of a process that drives no jobs: what it needs to check and to estimate requests, without any key."""

from __future__ import annotations

from collections.abc import Iterable

from pika_async._http.transport import Transport
from pika_async._journal.protocol import Journal
from pika_async._planning.limits import Limits
from pika_async.config.accounts import Account, Routing
from pika_async.config.client import ClientConfig
from pika_async.models.media import Uploader
from pika_async.polling import PollingPolicy
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure

__all__ = ["keyless_config"]


class _NoTransport:
    """A transport of a process that sends nothing."""

    async def open(self) -> None:
        """See `Transport`."""

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        """Fail: nothing may be sent without a key."""
        raise AssertionError(f"{request.url} must be sent by a worker")

    async def close(self) -> None:
        """See `Transport`."""


def keyless_config(
    accounts: Iterable[Account],
    journal: Journal,
    *,
    limits: Limits | None = None,
    routing: Routing | None = None,
    polling: PollingPolicy | None = None,
    deadline: float | None = None,
    budget: float | None = None,
    uploader: Uploader | None = None,
) -> ClientConfig:
    """Return the configuration of a client that has `accounts` but reads no key, and so cannot send.

    :param journal: the jobs that are known.
    :raises ConfigurationError: names the argument that cannot work and the way out.
    """
    transport: Transport = _NoTransport()
    return ClientConfig.create(
        accounts, api_key=None, api_key_file=None, base_url=None, callbacks=None, new_journal=lambda _limits: journal,
        ambiguous="strict", session=None, allow_results=(), proxy=None, transport=transport, uploader=uploader,
        upload_lifetime=None, price=None, limits=limits, routing=routing, polling=polling, deadline=deadline,
        budget=budget,
    )  # fmt: skip
