"""Carries the callbacks of a `Gateway` in memory to a receiver, on the running loop's clock; and posts any others."""

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
    """One that is mounted somewhere: it serves nothing itself."""
    return CallbackReceiver(PUBLIC)


async def post(to: CallbackReceiver, url: str, body: bytes) -> int:
    """The status of the answer to a callback."""
    said: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": urlsplit(url).path, "headers": []}
    await to.asgi(scope, receive, send)
    return int(said[0]["status"])


@contextlib.asynccontextmanager
async def notifying(gateway: Gateway, to: CallbackReceiver, *, latency: float = 0.02) -> AsyncIterator[list[int]]:
    """While this is open the gateway's callbacks reach the receiver; gives the statuses of its answers."""
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


def addresses(gateway: Gateway) -> dict[str, str]:
    """The callback address of each accepted task, by its prompt."""
    return {task.prompt: task.callback_url or "" for task in gateway.tasks.values()}


def listening(provider: str, monkeypatch: pytest.MonkeyPatch) -> CallbackReceiver | None:
    """A receiver on a port of its own whose tokens all begin with CANARY; None where a gateway calls nobody back."""
    if provider != "cometapi":
        return None
    tokens = secrets.token_urlsafe
    monkeypatch.setattr("pika_async.callbacks.secrets.token_urlsafe", lambda size: "CANARY" + tokens(size)[6:])
    port = free_port()
    return CallbackReceiver(f"http://127.0.0.1:{port}", port=port)
