"""A transport under test, opened and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pika_async._http.transport import AiohttpTransport
from pika_async.providers._wire import Credential

KEY = "sk-canary/0123456789-abcdef"


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport(url, Credential(KEY), **options)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()
