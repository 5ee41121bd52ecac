"""The input of a batch, as one async iterator. Checks no request."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable

from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest

__all__ = ["Requests", "Source", "stream"]

#: The input of a batch: requests or prompts.
Requests = Iterable[GenerationRequest | str] | AsyncIterable[GenerationRequest | str]
Source = AsyncIterator[GenerationRequest | str]


def stream(requests: Requests) -> Source:
    """Return an async iterator over any iterable or async iterable of requests.

    :raises InvalidRequest: if *requests* is a single prompt or request, or cannot be iterated.
    """
    if isinstance(requests, AsyncIterable):
        return aiter(requests)
    if isinstance(requests, str | GenerationRequest) or not isinstance(requests, Iterable):
        raise InvalidRequest(field="requests", value=requests, reason="must be an iterable of requests; give a list")
    return _iterate(requests)


async def _iterate(requests: Iterable[GenerationRequest | str]) -> Source:
    for request in requests:
        yield request
