"""Delivery of callbacks from a `Gateway` in memory to a receiver, on the running loop's clock."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import pytest

from pika_async import CallbackReceiver
from pika_async.emulator import Gateway
from tests.fakes.raw_server import free_port

PUBLIC = "http://127.0.0.1:2/pika"


def receiver() -> CallbackReceiver:
    """Return a mounted receiver, which runs no server of its own."""
    return CallbackReceiver(PUBLIC)


async def post(to: CallbackReceiver, url: str, body: bytes) -> int:
    """Post a callback to a receiver, and return the status of its response."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": urlsplit(url).path, "headers": []}
    await to.asgi(scope, receive, send)
    return int(sent[0]["status"])


@contextlib.asynccontextmanager
async def delivering_callbacks(
    gateway: Gateway, to: CallbackReceiver, *, latency: float = 0.02
) -> AsyncIterator[list[int]]:
    """Deliver the gateway's callbacks inside the block; the yielded list gets the statuses of the responses."""
    statuses: list[int] = []

    async def pump() -> None:
        while True:
            await asyncio.sleep(latency)
            due = gateway.due_callbacks(asyncio.get_running_loop().time())
            statuses.extend([await post(to, callback.url, callback.body) for callback in due])

    pumping = asyncio.create_task(pump())
    try:
        yield statuses
    finally:
        pumping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pumping


def callback_urls(gateway: Gateway) -> dict[str, str]:
    """Return the callback URL of each accepted task, by prompt."""
    return {task.prompt: task.callback_url or "" for task in gateway.tasks.values()}


def canary_receiver(provider: str, monkeypatch: pytest.MonkeyPatch) -> CallbackReceiver | None:
    """Return a receiver with its own port and tokens that begin with CANARY; None if the gateway sends no callbacks."""
    if provider != "cometapi":
        return None
    tokens = secrets.token_urlsafe
    monkeypatch.setattr("pika_async._http.callbacks.secrets.token_urlsafe", lambda size: "CANARY" + tokens(size)[6:])
    port = free_port()
    return CallbackReceiver(f"http://127.0.0.1:{port}", port=port)
