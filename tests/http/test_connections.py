"""Connections that misbehave: long header lines, an end before the answer, kept ones that a server has closed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from pika_async import FixedInterval, PikaClient
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
