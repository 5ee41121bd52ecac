"""Connections that misbehave: long header lines, an end before the answer, bytes behind it, kept ones that are cut."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from pika_async import FixedInterval, PikaClient, providers
from pika_async._http.connector import on_connected
from pika_async.providers._wire import HttpRequest, HttpResponse, SendPhase, TransportFailure
from tests.fakes.raw_server import PROVIDERS, TASK, Act, RawServer, answer, finished, receipt
from tests.http.transports import KEY, opened


def _post(url: str) -> HttpRequest:
    return HttpRequest(method="POST", url=f"{url}/pika/generate", body=b"{}", paid=True)


def _poll(url: str, method: str = "GET") -> HttpRequest:
    body = f'{{"task_id": "{TASK}"}}'.encode() if method == "POST" else None
    return HttpRequest(method=method, url=f"{url}/pika/feed/{TASK}", body=body)


# -- long header lines -----------------------------------------------------------------------------------------------

#: A line of exactly 64 KiB.
LONGEST_LINE = {"Content-Security-Policy": "x" * (65536 - len("Content-Security-Policy: "))}


@pytest.mark.anyio
@pytest.mark.parametrize("own_session", [False, True], ids=["ours", "the user's session"])
@pytest.mark.parametrize(
    "headers", [LONGEST_LINE, {"Set-Cookie": f"a={'y' * 9000}; Path=/"}], ids=["64 KiB", "a cookie"]
)
async def test_a_line_of_64_kib_in_the_headers_is_read(headers: dict[str, str], own_session: bool) -> None:
    """A receipt and a poll under a long policy or cookie are answers, also over a session with narrower bounds."""
    async with (
        RawServer() as server,
        aiohttp.ClientSession() as users,
        opened(server.url, session=users if own_session else None) as transport,
    ):
        server.acts.append(Act(answer(200, receipt("gptge"), headers)))
        server.poll_acts.append(Act(answer(200, finished("gptge"), headers)))
        for request in (_post(server.url), _poll(server.url)):
            response = await transport.send(request)
            assert isinstance(response, HttpResponse), response
            assert response.status == 200


@pytest.mark.anyio
async def test_a_line_above_64_kib_ends_the_answer() -> None:
    """The memory for one line is bounded; such a submission counts as sent."""
    async with RawServer() as server, opened(server.url) as transport:
        server.acts.append(Act(answer(200, receipt("gptge"), {"X-Long": "x" * 70_000})))
        failure = await transport.send(_post(server.url))
        assert isinstance(failure, TransportFailure)
        assert (failure.phase, failure.kind) == (SendPhase.SENT, "malformed")


# -- an end before the answer ----------------------------------------------------------------------------------------


@asynccontextmanager
async def nothing_printed() -> AsyncIterator[None]:
    """Fail if the event loop reports an error, such as an exception that was never retrieved."""
    reported: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: reported.append(context))
    try:
        yield
        for _ in range(3):  # the connection is lost in a later iteration of the loop
            await asyncio.sleep(0)
            gc.collect()
        assert reported == []
    finally:
        loop.set_exception_handler(None)


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["rst", "fin"])
@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 O"], ids=["no byte", "half a line"])
@pytest.mark.parametrize("ask", [_post, _poll], ids=["submission", "poll"])
async def test_a_connection_that_ends_before_its_answer_prints_no_traceback(ask: Any, start: bytes, end: Any) -> None:
    """The failure is returned, and asyncio reports no exception that was never retrieved."""
    async with nothing_printed(), RawServer() as server, opened(server.url) as transport:
        server.acts.append(Act(start, end))
        server.poll_acts.extend([Act(start, end)] * 3)
        failure = await transport.send(ask(server.url))
        assert isinstance(failure, TransportFailure)
        del failure


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["rst", "fin"])
async def test_a_kept_connection_that_ends_with_an_error_prints_no_traceback(end: Any) -> None:
    """An answer that was read leaves nothing behind that would be reported when its connection ends later."""
    async with nothing_printed(), RawServer() as server, opened(server.url) as transport:
        head, _, body = answer(200, finished("gptge")).partition(b"\r\n\r\n")
        in_two_segments = Act(head + b"\r\n\r\n", later=body)  # the body is awaited, and so is its connection's end
        server.poll_acts.extend([in_two_segments, *[Act(b"", end)] * 3])
        assert isinstance(await transport.send(_poll(server.url)), HttpResponse)
        await transport.send(_poll(server.url))


# -- bytes that are not HTTP behind an answer --------------------------------------------------------------------------


def _in_parts(head: bytes, rest: bytes, split: int | None) -> Act:
    """Return an answer that comes at once, or the rest of it and the last `split` bytes of its head later."""
    if split is None:
        return Act(head + rest)
    raw, at = head + rest, len(head) - split
    return Act(raw[:at], later=raw[at:])


@pytest.mark.anyio
@pytest.mark.parametrize("split", [None, 0, 1, 2, 3], ids=lambda split: "at once" if split is None else f"{split} late")
@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=["", "after a 103"])
@pytest.mark.parametrize("framing", ["length", "length, then close", "chunks", "bare line feeds"])
async def test_bytes_behind_an_answer_do_not_hide_it(framing: str, first: bytes, split: int | None) -> None:
    """A receipt and a feed are read up to their stated end; the connection is not used again."""
    async with nothing_printed(), RawServer() as server, opened(server.url) as transport:
        for request, acts, body in (
            (_post(server.url), server.acts, receipt("gptge").encode()),
            (_poll(server.url), server.poll_acts, finished("gptge").encode()),
        ):
            length = {"Content-Length": str(len(body))}
            if framing == "chunks":
                head = first + answer(200, b"", {"Content-Length": "", "Transfer-Encoding": "chunked"})
                rest = b"%x\r\n%s\r\n0\r\n\r\n<!-- cached -->" % (len(body), body)
            else:
                head = first + answer(200, b"", length | ({"Connection": "close"} if "close" in framing else {}))
                head = head.replace(b"\r\n", b"\n") if framing == "bare line feeds" else head
                rest = body + b"<!-- cached -->"
            acts.append(_in_parts(head, rest, split))
            response = await transport.send(request)
            assert isinstance(response, HttpResponse), response
            assert (response.status, response.body, response.complete) == (200, body, True)
            connections = server.connections
            assert isinstance(await transport.send(_poll(server.url)), HttpResponse)
            assert server.connections == connections + 1


@pytest.mark.anyio
@pytest.mark.parametrize("split", [None, 0], ids=["at once", "body late"])
async def test_a_chunk_that_is_none_does_not_hide_those_before_it(split: int | None) -> None:
    """Chunks that came are read; the answer counts as cut, at once."""
    body = receipt("gptge").encode()
    head = answer(200, b"", {"Content-Length": "", "Transfer-Encoding": "chunked"})
    async with nothing_printed(), RawServer() as server, opened(server.url) as transport:
        server.acts.append(_in_parts(head, b"%x\r\n%s\r\nzz\r\n" % (len(body), body), split))
        async with asyncio.timeout(5):
            response = await transport.send(_post(server.url))
        assert isinstance(response, HttpResponse), response
        assert (response.body, response.complete) == (body, False)


@pytest.mark.anyio
@pytest.mark.parametrize("split", [None, 0], ids=["at once", "body late"])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_length_that_is_too_short_does_not_hide_a_task_id(provider: str, split: int | None) -> None:
    """Of a receipt whose end lies behind its stated length the task id is read; a feed counts as cut, and is free."""
    async with RawServer(provider) as server, opened(server.url) as transport:
        body = receipt(provider).encode()
        head = answer(200, b"", {"Content-Length": str(len(body) - 1)})
        server.acts.append(_in_parts(head, body, split))
        response = await transport.send(_post(server.url))
        assert isinstance(response, HttpResponse), response
        assert providers.PROVIDERS[provider].decode_receipt(response).task_id == TASK


# -- kept connections that a server cuts -----------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("end", ["rst", "fin"])
async def test_a_poll_on_a_cut_connection_is_sent_again_on_a_fresh_one(end: Any, method: str) -> None:
    """Each kept connection ends at its second request; every poll gets its answer from one more request."""
    async with RawServer() as server, opened(server.url) as transport:
        whole, cut = Act(answer(200, finished("gptge"))), Act(b"", end)
        for _ in range(2):  # two kept connections
            server.poll_acts.append(whole)
        first = [asyncio.create_task(transport.send(_poll(server.url, method))) for _ in range(2)]
        assert all(isinstance(response, HttpResponse) for response in await asyncio.gather(*first))
        served = server.connections
        assert served == 2
        server.poll_acts.extend([cut, cut, whole] if method == "GET" else [cut, whole])
        response = await transport.send(_poll(server.url, method))
        assert isinstance(response, HttpResponse), response
        assert server.polls[-1].connection > served


@pytest.mark.anyio
async def test_a_request_leaves_nothing_in_the_context_of_its_task() -> None:
    """The task may be the user's: what it does next over a connector of ours is not reported to an earlier request."""
    async with RawServer() as server, opened(server.url) as transport:
        for act in (Act(answer(200, finished("gptge"))), Act(b"", "rst")):
            server.poll_acts.append(act)
            await transport.send(_poll(server.url, "POST"))
            assert on_connected.get() is None


@pytest.mark.anyio
async def test_a_poll_that_fails_on_a_fresh_connection_is_not_sent_again() -> None:
    """Only a kept connection may be stale; the schedule decides about everything else."""
    async with RawServer() as server, opened(server.url) as transport:
        server.poll_acts.append(Act(b"", "rst"))
        assert isinstance(await transport.send(_poll(server.url, "POST")), TransportFailure)
        assert len(server.polls) == 1


@pytest.mark.anyio
async def test_a_submission_on_a_cut_connection_is_never_sent_again() -> None:
    """Over a user's own session, which keeps connections, a paid request whose connection ends is sent once."""
    async with (
        RawServer() as server,
        aiohttp.ClientSession() as session,
        opened(server.url, session=session) as transport,
    ):
        server.acts.append(Act(answer(200, receipt("gptge"))))
        server.acts.append(Act(b"", "rst"))
        assert isinstance(await transport.send(_post(server.url)), HttpResponse)
        failure = await transport.send(_post(server.url))
        assert isinstance(failure, TransportFailure)
        assert failure.phase is SendPhase.SENT
        assert [request.connection for request in server.submissions] == [1, 1]


@pytest.mark.anyio
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_server_that_cuts_every_second_request_opens_no_breaker(provider: str) -> None:
    """No poll fails, so that no job waits for the circuit breaker."""
    async with CuttingServer(provider) as server:
        client = PikaClient(provider, api_key=KEY, base_url=server.url, polling=FixedInterval(0.01))
        async with client as pika:
            report = await pika.run([f"cat {number}" for number in range(6)])
        assert [job.status.value for job in report.jobs] == ["succeeded"] * 6
        assert server.cut > 0
        assert [job.polls for job in report.jobs] == [3] * 6


class CuttingServer(RawServer):
    """Server that resets each connection at its second request; a task is finished at its third answered poll."""

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self.cut = 0
        self._seen: dict[int, int] = {}
        self._answered: dict[str, int] = {}

    def _next(self, request: Any) -> Act | None:
        self._seen[request.connection] = self._seen.get(request.connection, 0) + 1
        if self._seen[request.connection] > 1:
            self.cut += 1
            return Act(b"", "rst")
        if "/feed" in request.path:
            polled = request.path + request.body.decode()
            self._answered[polled] = self._answered.get(polled, 0) + 1
            if self._answered[polled] < 3:
                return Act(answer(200, "{}"))
        return super()._next(request)
