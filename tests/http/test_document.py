"""Public documents, such as the keys of a gateway: bounded, without a credential, without redirects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from pika_async._http.document import MAX_DOCUMENT_BYTES, DocumentUnavailable, get_document
from tests.fakes.raw_server import free_port

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server(answer: web.Response) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Yield the URL of a document and the requests for it."""
    requests: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        requests.append(request)
        return answer

    app = web.Application()
    app.router.add_get("/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/keys.json", requests
    finally:
        await runner.cleanup()


async def test_a_document_is_fetched_without_a_credential() -> None:
    """Nothing of the client goes with the request."""
    async with server(web.Response(body=b"{}" * 100)) as (url, requests):
        assert await get_document(url) == b"{}" * 100
    (request,) = requests
    assert not {"Authorization", "X-API-Key", "Cookie"} & set(request.headers)


async def test_a_document_has_a_bound() -> None:
    """A server cannot fill the memory."""
    async with server(web.Response(body=b"x" * MAX_DOCUMENT_BYTES)) as (url, _):
        assert len(await get_document(url)) == MAX_DOCUMENT_BYTES
    async with server(web.Response(body=b"x" * (MAX_DOCUMENT_BYTES + 1))) as (url, _):
        with pytest.raises(DocumentUnavailable, match="is longer than 65,536 bytes"):
            await get_document(url)


@pytest.mark.parametrize("status", [301, 404, 500])
async def test_only_a_success_is_a_document(status: int) -> None:
    """A redirect is not followed."""
    headers = {"Location": "/elsewhere"}
    async with server(web.Response(status=status, headers=headers)) as (url, requests):
        with pytest.raises(DocumentUnavailable, match=f"answers HTTP {status}"):
            await get_document(url)
        assert len(requests) == 1


async def test_what_cannot_be_reached_is_named() -> None:
    """The address is in the text, for the log."""
    url = f"http://127.0.0.1:{free_port()}/keys.json"
    with pytest.raises(DocumentUnavailable, match=url):
        await get_document(url)
