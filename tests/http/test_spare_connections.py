"""Connections opened ahead of submissions: used once and untouched, few, closed in time, and never in the way."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp.connector import Connection
from yarl import URL

from pika_async import FixedInterval, Limits, PikaClient
from pika_async._http.connector import SubmissionConnector, _AnswerProtocol
from pika_async._http.spare_connections import INITIAL_CREDIT, MAX_AGE_S, MAX_SPARES, SpareConnections, _has_unread
from pika_async._http.transport import AiohttpTransport
from pika_async.providers._wire import HttpRequest, HttpResponse, SendPhase, TransportFailure
from tests.fakes.raw_server import Act, RawServer, answer, receipt, trusting_context
from tests.fakes.requirements import require_module
from tests.http.transports import KEY, opened


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the certificate of the servers of this file."""
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting_context())


def _post(url: str) -> HttpRequest:
    return HttpRequest(method="POST", url=f"{url}/pika/generate", body=b"{}", paid=True)


def _spares(transport: AiohttpTransport) -> SpareConnections:
    assert transport._paid_session is not None
    connector = transport._paid_session.connector
    assert isinstance(connector, SubmissionConnector)
    return connector._spares


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def _prepared(transport: AiohttpTransport, server: RawServer, count: int) -> SpareConnections:
    """Prepare `count` submissions and return their connections once both sides have ended the handshake."""
    spares, before = _spares(transport), server.connections
    transport.prepare(count)
    await _until(lambda: not spares._opening and server.connections == before + count)
    await _until(lambda: not any(_has_unread(spare.connection) for spare in spares._spares))  # its tickets
    return spares


@attrs.define
class Clocks:
    """A monotonic and a wall clock that stand still."""

    monotonic: float = 100.0
    wall: float = 1_000_000.0

    def __call__(self) -> tuple[float, float]:
        return self.monotonic, self.wall


# -- used once ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_each_submission_takes_another_connection_that_was_opened_ahead() -> None:
    """Three submissions use the three connections that were opened ahead, each its own; a fourth opens one."""
    async with RawServer(tls=True) as server, opened(server.url) as transport:
        assert len(await _prepared(transport, server, 3)) == 3
        for connections in (3, 3, 3, 4):
            assert isinstance(await transport.send(_post(server.url)), HttpResponse)
            assert server.connections == connections
        assert sorted(seen.connection for seen in server.submissions) == [1, 2, 3, 4]


def test_connections_are_opened_ahead_in_uvloop_too() -> None:
    """Its sockets are others, and show what has not been read as well."""
    uvloop = require_module("uvloop")

    async def main() -> None:
        async with RawServer(tls=True) as server, opened(server.url) as transport:
            await _prepared(transport, server, 2)
            for _ in range(2):
                assert isinstance(await transport.send(_post(server.url)), HttpResponse)
            assert server.connections == 2
        for data in (b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"):
            async with peer_of_a_spare() as (spares, peer):
                peer.send(data) if data else peer.shutdown(socket.SHUT_WR)
                assert spares.take() is None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.anyio
async def test_a_request_over_one_that_is_lost_counts_as_sent_and_is_not_repeated() -> None:
    """A connection opened ahead proves no more than another: once the request is written, its loss is a doubt."""
    async with RawServer(tls=True) as server, opened(server.url) as transport:
        await _prepared(transport, server, 2)
        for end in ("rst", "fin"):
            server.acts.append(Act(b"", end))
            failure = await transport.send(_post(server.url))
            assert isinstance(failure, TransportFailure)
            assert failure.phase is SendPhase.SENT
        assert len(server.submissions) == 2


@pytest.mark.anyio
async def test_a_connection_that_was_written_to_is_not_taken() -> None:
    """Whatever has used one, no submission follows on it."""
    async with RawServer(tls=True) as server, opened(server.url) as transport:
        spares = await _prepared(transport, server, 1)
        (spare,) = spares._spares
        protocol: Any = spare.connection.protocol
        protocol.set_response_params()  # which aiohttp calls for each request
        assert isinstance(await transport.send(_post(server.url)), HttpResponse)
        assert server.submissions[0].connection == 2


# -- an end, or bytes, before the request ------------------------------------------------------------------------------


@asynccontextmanager
async def peer_of_a_spare() -> AsyncIterator[tuple[SpareConnections, socket.socket]]:
    """Yield one connection opened ahead over plain TCP, and the server's end of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        connector = SubmissionConnector(URL(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        connector.prepare(1)
        peer, _ = await asyncio.get_running_loop().sock_accept(listener)
        await _until(lambda: not connector._spares._opening)
        try:
            with peer:
                yield connector._spares, peer
        finally:
            await connector.close()


@pytest.mark.anyio
@pytest.mark.parametrize("ended", [False, True], ids=["bytes", "end"])
async def test_what_the_event_loop_has_not_read_yet_is_seen(ended: bool) -> None:
    """A connection whose end has arrived is not taken, although the event loop has not run since."""
    async with peer_of_a_spare() as (spares, peer):
        if ended:
            peer.shutdown(socket.SHUT_WR)
        else:
            peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        assert spares.take() is None


@pytest.mark.anyio
@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"], ids=["end", "answer without request"])
async def test_after_an_early_end_none_is_opened_ahead(data: bytes) -> None:
    """An end or an answer that came first is not the request's: it is not taken, and no more are opened ahead."""
    async with peer_of_a_spare() as (spares, peer):
        peer.send(data)
        if not data:
            peer.shutdown(socket.SHUT_WR)
        (spare,) = spares._spares
        protocol: Any = spare.connection.protocol
        await _until(lambda: protocol.should_close)
        assert spares.take() is None
        spares.prepare(8)
        assert len(spares) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_a_gateway_that_ends_idle_connections_loses_no_submission(end: Any) -> None:
    """Each submission of a run is accepted over a connection that it opened itself."""
    async with RawServer(tls=True) as server, opened(server.url) as transport:
        server.connection_acts.append(end)
        transport.prepare(1)
        spares = _spares(transport)
        await _until(lambda: not spares._opening)
        await _until(lambda: all(spare.connection.closed for spare in spares._spares))
        for _ in range(3):
            transport.prepare(8)
            assert isinstance(await transport.send(_post(server.url)), HttpResponse)
        assert (len(server.submissions), server.connections) == (3, 4)


# -- age ---------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    "monotonic, wall, taken",
    [(0.0, 0.0, True), (1.9, 1.9, True), (2.0, 2.0, False), (0.5, 3600.0, False), (0.5, -3600.0, False)],
    ids=["new", "1.9 s", "2 s", "after a sleep of the machine", "wall clock set back"],
)
async def test_an_old_connection_is_not_taken(monotonic: float, wall: float, taken: bool) -> None:
    """Two seconds by either clock are too old: the monotonic one stands still while a machine sleeps."""
    async with peer_of_a_spare() as (spares, _):
        (spare,) = spares._spares
        before = spare.opened_at
        spares._clocks = Clocks(before[0] + monotonic, before[1] + wall)
        connection = spares.take()
        assert (connection is not None) is taken
        assert len(spares) == 0
        if connection is not None:
            connection.close()


@pytest.mark.anyio
async def test_an_unused_connection_is_closed_by_itself() -> None:
    """Without another call, the timer of each connection closes it, and the server sees its end."""
    async with peer_of_a_spare() as (spares, peer):
        (timer,) = spares._spares.values()
        assert timer.when() <= asyncio.get_running_loop().time() + MAX_AGE_S
        peer.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        assert len(spares) == 0


# -- their number ------------------------------------------------------------------------------------------------------


class FakeOpener:
    """Opens connections that have no socket: counts them, and fails with `error` if there is one."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.opened = 0
        self.error = error

    async def __call__(self) -> Connection:
        self.opened += 1
        if self.error is not None:
            raise self.error
        return FakeConnection()


class FakeConnection(Connection):
    def __init__(self) -> None:
        self._protocol: Any = self
        self.should_close = self.was_used = False

    def is_connected(self) -> bool:
        return True

    def abort(self) -> None:
        pass

    def close(self) -> None:
        self._protocol = None

    @property
    def transport(self) -> Any:
        return None


@pytest.fixture
def nothing_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pika_async._http.spare_connections._has_unread", lambda _: False)


async def _turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_unread")
async def test_their_number_follows_the_demand_and_has_a_bound() -> None:
    """Eight at first, more only after some were used, never more than the bound, and none that is not wanted."""
    opener = FakeOpener()
    spares = SpareConnections(opener, clocks=Clocks())
    spares.prepare(0)
    spares.prepare(3)
    spares.prepare(3)
    assert len(spares) == 3
    most = 0
    for _ in range(200):
        spares.prepare(1000)
        await _turn()
        most = max(most, len(spares))
        connection = spares.take()
        assert connection is not None
        connection.close()
    assert (most, opener.opened) == (MAX_SPARES, 199 + MAX_SPARES)
    await spares.close()


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_unread")
async def test_of_a_slow_gateway_few_connections_are_wasted() -> None:
    """If each gets too old before a submission comes, one in eight submissions opens another in vain."""
    clocks, opener = Clocks(), FakeOpener()
    spares = SpareConnections(opener, clocks=clocks)
    for _ in range(800):
        spares.prepare(8)
        await _turn()
        clocks.monotonic += MAX_AGE_S
        assert spares.take() is None
        spares.on_opened()
    assert opener.opened <= INITIAL_CREDIT + 800 / 8
    await spares.close()


@pytest.mark.anyio
async def test_a_gateway_that_is_down_meets_no_storm() -> None:
    """After the first failures none is tried until submissions have opened connections themselves."""
    opener = FakeOpener(error=aiohttp.ClientConnectionError())
    spares = SpareConnections(opener)
    for _ in range(100):
        spares.prepare(8)
        await _turn()
    assert opener.opened == 8
    for _ in range(8):
        spares.on_opened()
    spares.prepare(8)
    await _turn()
    assert opener.opened == 9


@pytest.mark.anyio
async def test_a_handshake_that_never_ends_holds_nothing_up() -> None:
    """A server that accepts TCP and is silent has at most as many connections as were wanted; closing ends them."""
    peers: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.setblocking(False)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        async with opened(url) as transport:
            spares = _spares(transport)
            for _ in range(5):
                transport.prepare(4)
                await _turn()
            loop = asyncio.get_running_loop()
            peers.extend([(await loop.sock_accept(listener))[0] for _ in range(4)])
            assert (len(spares), spares.take()) == (4, None)
        assert len(spares) == 0
        with pytest.raises(BlockingIOError):
            listener.accept()
    for peer in peers:
        peer.close()


@pytest.mark.anyio
async def test_closing_leaves_no_connection() -> None:
    """Those that are open and those being opened are closed, without a warning; opening again starts anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with RawServer(tls=True) as server:
            transport: AiohttpTransport
            async with opened(server.url) as transport:
                spares = await _prepared(transport, server, 3)
                transport.prepare(6)
                assert len(spares) == 6
            assert (len(spares), spares._opening) == (0, set())
            await _until(lambda: not server._tasks)
            spares.prepare(3)
            assert len(spares) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["plain http", "proxy", "user's session"])
async def test_none_is_opened_for_plain_http_a_proxy_or_a_users_session(where: str) -> None:
    """There each submission opens its connection itself, as the session does it."""
    async with (
        RawServer(tls=where != "plain http") as server,
        RawServer() as proxy,
        aiohttp.ClientSession() as session,
        opened(
            server.url,
            session=session if where == "user's session" else None,
            proxy=proxy.url if where == "proxy" else None,
        ) as transport,
    ):
        tasks = asyncio.all_tasks()
        assert not transport.opens_ahead
        transport.prepare(4)
        assert asyncio.all_tasks() == tasks
        assert isinstance(await transport.send(_post(server.url)), HttpResponse)
        assert server.connections == 1


@pytest.mark.anyio
async def test_an_unknown_aiohttp_leaves_submissions_as_they_were(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a connection lacks what is asked of it, each submission opens its own, and a warning is logged once."""
    async with RawServer(tls=True) as server, opened(server.url) as transport:
        spares = await _prepared(transport, server, 2)
        monkeypatch.delattr(_AnswerProtocol, "was_used")
        for _ in range(2):
            assert isinstance(await transport.send(_post(server.url)), HttpResponse)
        assert (len(spares), len(caplog.records)) == (0, 1)


# -- a whole client ----------------------------------------------------------------------------------------------------


class AcceptingServer(RawServer):
    """TLS server that counts the connections it holds, and answers a submission after some turns of the loop."""

    most = 0

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.most = max(self.most, len(self._tasks) + 1)
        await super()._connected(reader, writer)

    def _next(self, request: Any) -> Act | None:
        if not request.path.endswith("/generate"):
            return super()._next(request)
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, event.set)
        return Act(answer(200, receipt("gptge", self._next_id())), when=event)


@pytest.mark.anyio
async def test_a_batch_takes_connections_that_are_ready_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Submissions are sent once each over connections opened ahead; polls alone open none."""
    taken: list[object] = []
    take = SpareConnections.take

    def counted(self: SpareConnections) -> Connection | None:
        connection = take(self)
        if connection is not None:
            taken.append(connection)
        return connection

    monkeypatch.setattr(SpareConnections, "take", counted)
    async with AcceptingServer(tls=True) as server:
        limits = Limits(submitting=4, polling=2)
        client = PikaClient("gptge", api_key=KEY, base_url=server.url, limits=limits, polling=FixedInterval(0.05))
        async with client as pika:
            report = await pika.run([f"cat {number}" for number in range(40)])
            assert len(report.jobs) == len(server.submissions) == 40
            assert len({seen.connection for seen in server.submissions}) == 40
            assert len(taken) > 10
            await asyncio.sleep(0)
            spares = _spares(pika._config.accounts[0].transport)  # type: ignore[arg-type]
            before = server.connections + len(spares._opening)
            await pika.poll(report.jobs[0])
            assert server.connections <= before
        await _until(lambda: not server._tasks)
        assert server.most <= 4 + 4 + 2 + 4  # under way, ahead, polls, and those that the server is about to end
