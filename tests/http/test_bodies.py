"""Bodies of answers: large feeds within bounds of memory, and whole JSON under a wrong length."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pika_async import TaskState
from pika_async._http import bodies
from pika_async._http.transport import AiohttpTransport
from pika_async.providers._wire import MAX_BODY, MAX_FEED_BODY, Credential, DecodeError, HttpRequest, HttpResponse
from tests.fakes.family import GATEWAYS
from tests.fakes.raw_server import RESULT, TASK, Act, RawServer, answer, finished, receipt

#: Polls at once, the default limit of a client.
POLLS = 32


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport(url, Credential("sk-canary/0123456789-abcdef"))
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


def poll_of(provider: str, url: str) -> HttpRequest:
    return GATEWAYS[provider].encode_poll(TASK, url)


async def answered(transport: AiohttpTransport, request: HttpRequest) -> HttpResponse:
    outcome = await transport.send(request)
    assert isinstance(outcome, HttpResponse), outcome
    return outcome


def with_image(provider: str, size: int) -> bytes:
    """Return the answer to a poll of a succeeded task that repeats an image of `size` bytes, slashes escaped."""
    body: dict[str, Any] = json.loads(finished(provider))
    body["request"] = {"image": "data:image/png;base64," + "iVBORw0KGgo/" * (size // 12)}
    return json.dumps(body).replace("/", "\\/").encode()


# --- large feeds ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("provider", GATEWAYS)
async def test_a_feed_that_repeats_an_image_is_read(provider: str) -> None:
    """A feed of more than a megabyte, up to 4 MiB, is read whole and decoded."""
    async with RawServer(provider) as server, opened(server.url) as transport:
        for size in (MAX_BODY, 2 * MAX_BODY, 3 * MAX_BODY):
            body = with_image(provider, size)
            assert MAX_BODY < len(body) <= MAX_FEED_BODY
            server.poll_acts.append(Act(answer(200, body)))
            response = await answered(transport, poll_of(provider, server.url))
            assert (response.complete, len(response.body)) == (True, len(body))
            snapshot = GATEWAYS[provider].decode_snapshot(response, TASK)
            assert snapshot.state is TaskState.SUCCEEDED
            assert snapshot.video is not None
            assert snapshot.video.url == RESULT


@pytest.mark.anyio
async def test_the_slow_end_of_a_large_feed_delays_no_small_one() -> None:
    """While as many large bodies as are allowed are not at their end, small answers are read, and so are receipts."""
    large = b'{"id": "' + b" " * (MAX_BODY + 200_000)
    async with RawServer("gptge") as server, opened(server.url) as transport:
        head = answer(200, b"", {"Content-Length": str(2 * MAX_BODY)})
        server.poll_acts.extend([Act(head + large, "stall")] * bodies.MAX_LARGE_BODIES)
        slow = [asyncio.create_task(transport.send(poll_of("gptge", server.url))) for _ in range(2)]
        while len(server.polls) < bodies.MAX_LARGE_BODIES:
            await asyncio.sleep(0)
        assert (await answered(transport, poll_of("gptge", server.url))).complete
        post = HttpRequest(method="POST", url=f"{server.url}/pika/generate", body=b"{}", paid=True)
        assert (await answered(transport, post)).complete
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)


class EndlessContent:
    """Content of an endless answer, in parts of 64 KiB; `note` is called before each part."""

    def __init__(self, note: Callable[[], None]) -> None:
        self.note = note

    @property
    def content(self) -> Any:
        return self

    def is_eof(self) -> bool:
        return False

    async def read(self, size: int) -> bytes:
        self.note()
        await asyncio.sleep(0)
        return bytes(size)


@pytest.mark.anyio
async def test_at_most_two_bodies_grow_beyond_a_megabyte_at_once() -> None:
    """However many endless answers come together, two are larger than 1 MiB and a part at any time; all end."""
    reader, every_body = bodies.BodyReader(), [bytearray() for _ in range(POLLS)]
    reading = set(range(POLLS))
    most = 0

    def note() -> None:
        nonlocal most
        sizes = [len(every_body[number]) for number in reading]
        most = max(most, sum(size > MAX_BODY + bodies.CHUNK_BYTES for size in sizes))

    async def read(number: int) -> None:
        response: Any = EndlessContent(note)
        request = poll_of("gptge", "http://gateway.example")
        assert not await reader.read(response, request, every_body[number], note)
        assert len(every_body[number]) == MAX_FEED_BODY
        reading.discard(number)
        every_body[number].clear()

    await asyncio.gather(*map(read, range(POLLS)))
    assert (most, reading) == (2, set())


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request with an endless body."""
    with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
        part = b" " * 16_384
        while True:
            writer.write(part)
            await writer.drain()
    writer.close()


@pytest.mark.anyio
@pytest.mark.slow
async def test_a_flood_of_endless_feeds_keeps_memory_bounded() -> None:
    """With 32 endless answers at once, memory holds 1 MiB of each and a few copies of the two that may be larger."""
    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, opened(url) as transport:
        await answered(transport, poll_of("gptge", url))  # a first request, so that imports are not measured
        tracemalloc.start()

        async def length() -> tuple[bool, int]:
            response = await answered(transport, poll_of("gptge", url))
            return response.complete, len(response.body)

        lengths = await asyncio.gather(*(length() for _ in range(POLLS)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert lengths == [(False, MAX_FEED_BODY)] * POLLS
    assert peak < POLLS * MAX_BODY + bodies.MAX_LARGE_BODIES * 8 * MAX_FEED_BODY, f"{peak / MAX_BODY:.0f} MiB"


# --- wrong lengths ----------------------------------------------------------------------------------------------------


def under(framing: str, body: bytes) -> bytes:
    """Return a response whose body is whole and whose framing says otherwise."""
    if framing == "too long":
        return answer(200, b"", {"Content-Length": str(len(body) + 7)}) + body
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    return answer(200, b"", {"Content-Length": "", "Transfer-Encoding": "chunked"}) + chunk


@pytest.mark.anyio
@pytest.mark.parametrize("provider", GATEWAYS)
@pytest.mark.parametrize("then", ["fin", "rst", "stall"])
@pytest.mark.parametrize("framing", ["too long", "no last chunk"])
async def test_a_whole_feed_under_a_wrong_length_is_read(
    framing: str, then: Any, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A length that is too long, or a missing last chunk, does not hide JSON that came whole."""
    monkeypatch.setattr(bodies, "MAX_PAUSE_S", 0.05)
    async with RawServer(provider) as server, opened(server.url) as transport:
        server.poll_acts.append(Act(under(framing, finished(provider).encode()), then))
        response = await answered(transport, poll_of(provider, server.url))
        assert not response.complete
        snapshot = GATEWAYS[provider].decode_snapshot(response, TASK)
        assert (snapshot.state, snapshot.task_id) == (TaskState.SUCCEEDED, TASK)


@pytest.mark.anyio
@pytest.mark.parametrize("cut", [1, 2, 30])
async def test_a_feed_that_is_not_whole_is_not_read(cut: int) -> None:
    """Where the end of the JSON is missing, or a number alone came, the answer counts as cut."""
    async with RawServer("gptge") as server, opened(server.url) as transport:
        body = finished("gptge").encode()
        for part in (body[:-cut], b"12"):
            server.poll_acts.append(Act(under("too long", part), "fin"))
            response = await answered(transport, poll_of("gptge", server.url))
            with pytest.raises(DecodeError, match="the answer was cut"):
                GATEWAYS["gptge"].decode_snapshot(response, TASK)


@pytest.mark.anyio
async def test_a_pause_after_a_bracket_does_not_cut_a_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a poll, which is free, is given up at a pause: a receipt is read to its end."""
    monkeypatch.setattr(bodies, "MAX_PAUSE_S", 0.0)
    async with RawServer("gptge") as server, opened(server.url) as transport:
        whole = receipt("gptge").encode()
        body = whole + b" " * 10
        head = answer(200, b"", {"Content-Length": str(len(body))})
        server.acts.append(Act(head + whole, "keep", later=b" " * 10))
        post = HttpRequest(method="POST", url=f"{server.url}/pika/generate", body=b"{}", paid=True)
        response = await answered(transport, post)
        assert (response.complete, response.body) == (True, body)
