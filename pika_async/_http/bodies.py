"""Bodies of answers, read within bounds of memory. Parses nothing.

Every answer may have `MAX_BODY` bytes. A feed may have `MAX_FEED_BODY`, because some gateways repeat the image of the
request in it; only a few bodies of more than `MAX_BODY` are read at once, and the others wait meanwhile. A feed that is
whole although its length says otherwise is not waited for until the timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import aiohttp

from pika_async.providers._wire import MAX_BODY, HttpRequest

__all__ = ["BodyReader"]

#: Bytes of a body read at once.
CHUNK_BYTES: Final = 1 << 16
#: Bodies of more than `MAX_BODY` bytes that one client reads at once.
MAX_LARGE_BODIES: Final = 2
#: Seconds for which the rest of an answer to a poll is waited for after a part that may be the end of its JSON.
MAX_PAUSE_S: Final = 2.0


class BodyReader:
    """Reader of the bodies of one client's answers, in one event loop."""

    def __init__(self) -> None:
        self._large = asyncio.Semaphore(MAX_LARGE_BODIES)

    @staticmethod
    def read_at_once(response: aiohttp.ClientResponse, request: HttpRequest) -> bytes | None:
        """Return the body of `response` if all of it has come, and few bytes of it; None otherwise."""
        content = response.content
        if (
            content.is_eof()
            and content.exception() is None
            and content.total_bytes <= min(request.max_answer, MAX_BODY)
        ):
            return content.read_nowait()
        return None

    async def read(
        self, response: aiohttp.ClientResponse, request: HttpRequest, body: bytearray, on_chunk: Callable[[], None]
    ) -> bool:
        """Append the body of `response` to `body`, up to the limit of `request`; return whether all of it came.

        :param on_chunk: called after each part that came.
        :raises Exception: of aiohttp, or TimeoutError, if the body ends early; `body` then has what came.
        """
        content = response.content
        async with AsyncExitStack() as stack:
            is_large = False
            while True:
                if not content.is_eof() and not request.paid and body.endswith((b"}", b"]")):  # perhaps whole already
                    async with asyncio.timeout(MAX_PAUSE_S):
                        chunk = await content.read(CHUNK_BYTES)
                else:
                    chunk = await content.read(CHUNK_BYTES)
                if not chunk:
                    return True
                on_chunk()
                body += chunk
                if len(body) > request.max_answer:
                    del body[request.max_answer :]
                    return False
                if len(body) > MAX_BODY and not is_large:
                    is_large = True
                    await stack.enter_async_context(self._large)
