"""HTTP transport over real sockets: connections, origins, a given session, size caps, secrets, and errors of aiohttp."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import pickle
import socket
import ssl
import traceback
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import client_exceptions
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from pika_async import (
    AccountStopped,
    ConfigurationError,
    FixedInterval,
    GenerationRequest,
    JobStatus,
    PikaClient,
    PikaError,
)
from pika_async._http.addresses import is_loopback
from pika_async._http.failures import classify_exception
from pika_async._http.transport import AiohttpTransport, fail_on_connection_lost, origin_of
from pika_async.providers._abilities import Authorization
from pika_async.providers._wire import (
    MAX_BODY,
    MAX_FEED_BODY,
    Credential,
    HttpRequest,
    HttpResponse,
    SendPhase,
    TransportFailure,
)
from tests.fakes.raw_server import TASK, Act, RawServer, answer, free_port, receipt
from tests.fakes.requirements import require_module
from tests.http.transports import KEY, opened


def _post(url: str) -> HttpRequest:
    return HttpRequest(method="POST", url=f"{url}/pika/generate", body=b"{}", paid=True)


def _get(url: str) -> HttpRequest:
    return HttpRequest(method="GET", url=f"{url}/pika/feed/{TASK}")


async def _answered(transport: AiohttpTransport, request: HttpRequest) -> HttpResponse:
    outcome = await transport.send(request)
    assert isinstance(outcome, HttpResponse), outcome
    return outcome


# -- connections ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_submissions_share_no_connection_and_polls_do() -> None:
    """Each submission has a connection of its own; the polls between them share one."""
    async with RawServer() as server, opened(server.url) as transport:
        for _ in range(3):
            await _answered(transport, _post(server.url))
            await _answered(transport, _get(server.url))
        assert len({seen.connection for seen in server.submissions}) == 3
        assert len({seen.connection for seen in server.polls}) == 1
        assert server.connections == 4


@pytest.mark.anyio
async def test_a_server_that_closes_its_connections_loses_no_submission() -> None:
    """A server that closes each connection after its answer puts no submission in doubt."""
    async with RawServer() as server, opened(server.url) as transport:
        server.acts.extend([Act(answer(200, receipt("gptge")), "fin")] * 20)
        statuses = [(await _answered(transport, _post(server.url))).status for _ in range(20)]
        assert (statuses, server.connections) == ([200] * 20, 20)


@pytest.mark.anyio
async def test_many_submissions_run_concurrently() -> None:
    """Fifty submissions are all sent before the first is answered."""
    go = asyncio.Event()
    async with RawServer() as server, opened(server.url) as transport:
        server.acts.extend([Act(answer(200, receipt("gptge")), when=go)] * 50)
        sends = [asyncio.create_task(transport.send(_post(server.url))) for _ in range(50)]
        await server.until_received(50)
        go.set()
        assert {200} == {
            outcome.status for outcome in await asyncio.gather(*sends) if isinstance(outcome, HttpResponse)
        }


# -- the credential ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_each_request_carries_the_key() -> None:
    """Submissions and polls send the bearer token and ask for plain JSON; cookies set by a gateway are not sent back."""
    async with (
        RawServer() as server,
        opened(f"http://localhost:{server.port}") as transport,
    ):  # an IP address gets no cookies
        for acts in (server.acts, server.poll_acts):
            acts.append(Act(answer(200, receipt("gptge"), {"Set-Cookie": "session=1; Path=/"})))
        for ask in (_post, _post, _get, _get):
            await _answered(transport, ask(f"http://localhost:{server.port}"))
        for seen in server.received:
            asked = [seen.headers.get(name) for name in ("authorization", "accept", "accept-encoding", "cookie")]
            assert [f"Bearer {KEY}", "application/json", "identity", None] == asked
        types = [seen.headers.get("content-type") for seen in server.received]
        assert types == ["application/json", "application/json", None, None]


@pytest.mark.anyio
async def test_the_key_is_in_the_providers_own_header() -> None:
    """A provider's header and scheme carry the key; headers of a request come beside it and replace none."""
    key_header = Authorization(header="X-API-Key", scheme="")
    async with RawServer() as server, opened(server.url, authorization=key_header) as transport:
        own = {"Idempotency-Key": "k1", "user-agent": "other", "Content-Type": "text/plain"}
        await _answered(transport, attrs.evolve(_post(server.url), headers=own))
        headers = server.received[0].headers
        assert [headers.get(name) for name in ("x-api-key", "authorization")] == [KEY, None]
        assert (headers["idempotency-key"], headers["content-type"]) == ("k1", "application/json")
        assert headers["user-agent"].startswith("pika_async/")
    async with RawServer() as server, opened(server.url, authorization=Authorization(scheme="Key")) as transport:
        await _answered(transport, _get(server.url))
        assert server.received[0].headers["authorization"] == f"Key {KEY}"


@pytest.mark.anyio
async def test_a_further_origin_of_the_gateway_gets_the_key() -> None:
    """An origin that the provider lists is asked with the key; one that it does not list is not asked."""
    async with RawServer() as server, RawServer() as second, RawServer() as foreign:
        async with opened(server.url, origins=[second.url]) as transport:
            await _answered(transport, _get(second.url))
            outcome = await transport.send(_get(foreign.url))
        assert second.received[0].headers["authorization"] == f"Bearer {KEY}"
        assert (isinstance(outcome, TransportFailure), foreign.connections) == (True, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("paid", [True, False])
async def test_another_origin_gets_nothing(paid: bool) -> None:
    """A URL with another scheme, host or port, or an invalid one, is not requested and never gets the key."""
    async with RawServer() as server, RawServer() as other, opened(server.url) as transport:
        for url in (
            other.url,
            server.url.replace("http:", "https:"),
            server.url.replace("127.0.0.1", "localhost"),
            server.url.replace("//", "//user:password@") + "9",
            "/pika/generate",
            "http://[",
        ):
            outcome = await transport.send(HttpRequest(method="POST", url=url, body=b"{}", paid=paid))
            assert isinstance(outcome, TransportFailure)
            assert (outcome.phase, outcome.kind) == (SendPhase.UNSENT, "url")
        assert (server.connections, other.connections) == (0, 0)


@pytest.mark.anyio
async def test_netrc_does_not_replace_the_key(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `~/.netrc` with an entry for the host changes nothing."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with RawServer() as server, opened(server.url) as transport:
        await _answered(transport, _post(server.url))
        assert f"Bearer {KEY}" == server.received[0].headers["authorization"]


# -- redirects -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_answers(status: int) -> None:
    """A redirect of a poll or a submission is returned as it is; no second request is sent."""
    async with RawServer() as server, RawServer() as elsewhere, opened(server.url) as transport:
        moved = Act(answer(status, "", {"Location": f"{elsewhere.url}/pika/feed/{TASK}"}))
        server.acts.append(moved)
        server.poll_acts.append(moved)
        got = [(await _answered(transport, ask(server.url))).status for ask in (_post, _get)]
        assert ([status] * 2, 2, 0) == (got, len(server.received), elsewhere.connections)


# -- the user's session --------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_users_session_is_used_and_left_as_it_was() -> None:
    """A given session carries every call, stays open, and gets its own trace configurations back."""
    own = aiohttp.TraceConfig()
    async with RawServer() as server, aiohttp.ClientSession(trace_configs=[own], headers={"X-Mine": "yes"}) as session:
        async with opened(server.url, session=session) as transport:
            assert len(session.trace_configs) == 2
            await _answered(transport, _post(server.url))
            await _answered(transport, _get(server.url))
        assert ([own], False) == (session.trace_configs, session.closed)
        assert [seen.headers.get("x-mine") for seen in server.received] == ["yes", "yes"]
        assert [f"Bearer {KEY}"] * 2 == [seen.headers.get("authorization") for seen in server.received]
        async with session.get(f"{server.url}/pika/feed/x") as response:
            assert response.status == 200
        assert "authorization" not in server.received[-1].headers


@pytest.mark.anyio
async def test_the_users_session_tells_sent_from_unsent() -> None:
    """The marker works in a given session: what was lost after sending says so, also beside another transport's."""
    async with RawServer() as server, aiohttp.ClientSession() as session:
        async with opened(server.url, session=session) as transport, opened(server.url, session=session):
            server.acts.append(Act(b"", "rst"))
            outcome = await transport.send(_post(server.url))
        assert isinstance(outcome, TransportFailure)
        assert SendPhase.SENT is outcome.phase
        assert session.trace_configs == []


@pytest.mark.anyio
async def test_a_session_that_cannot_work_is_refused() -> None:
    """A closed session, and one with a credential of its own, are refused when the client is opened."""
    closed = aiohttp.ClientSession()
    await closed.close()
    own = aiohttp.ClientSession(headers={"authorization": "Bearer other"})
    session = aiohttp.ClientSession(headers={"x-api-key": "other"})
    with pytest.raises(ConfigurationError, match="must not add a credential"):
        async with opened("http://127.0.0.1:1", session=session, authorization=Authorization(header="X-API-Key")):
            pass
    await session.close()
    for session in (closed, own, _session_with_auth()):
        with pytest.raises(ConfigurationError, match="session"):
            async with PikaClient("gptge", api_key=KEY, base_url="http://127.0.0.1:1", session=session):
                pass
        assert session.trace_configs == []
        await session.close()


def _session_with_auth() -> aiohttp.ClientSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated, but refused as long as it exists
        return aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))


@pytest.mark.anyio
async def test_a_session_closed_during_use_sends_nothing() -> None:
    """After its owner has closed the session, a request fails as not sent."""
    async with RawServer() as server:
        session = aiohttp.ClientSession()
        async with opened(server.url, session=session) as transport:
            await session.close()
            outcome = await transport.send(_post(server.url))
        assert isinstance(outcome, TransportFailure)
        assert (outcome.phase, server.connections) == (SendPhase.UNSENT, 0)


@pytest.mark.anyio
async def test_a_sessions_own_options_do_not_send_twice() -> None:
    """`raise_for_status`, decompression and a retrying middleware of a given session change no verdict."""

    async def again(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        await handler(request)
        return await handler(request)

    async with RawServer() as server:
        server.acts.append(Act(answer(500, gzip.compress(b'{"id": "x"}'), {"Content-Encoding": "gzip"})))
        async with (
            aiohttp.ClientSession(raise_for_status=True, middlewares=(again,)) as session,
            opened(server.url, session=session) as transport,
        ):
            got = await _answered(transport, _post(server.url))
        assert (got.status, got.body, got.complete, len(server.received)) == (500, b'{"id": "x"}', True, 1)


@pytest.mark.anyio
async def test_a_failing_trace_hook_is_classified_by_the_send_marker() -> None:
    """A trace hook that raises before sending means not sent, after sending it means sent."""

    async def fail(*_: Any) -> None:
        raise LookupError("the user's own defect")

    for signal, phase in (("on_request_start", SendPhase.UNSENT), ("on_request_chunk_sent", SendPhase.SENT)):
        trace = aiohttp.TraceConfig()
        getattr(trace, signal).append(fail)
        async with (
            RawServer() as server,
            aiohttp.ClientSession(trace_configs=[trace]) as session,
            opened(server.url, session=session) as transport,
        ):
            outcome = await transport.send(_post(server.url))
            assert isinstance(outcome, TransportFailure)
            assert phase is outcome.phase


# -- bodies --------------------------------------------------------------------------------------------------------


def _bomb(size: int, make: Callable[[bytes], bytes]) -> bytes:
    return make(b'{"id": "' + b" " * size + b'"}')


@pytest.mark.anyio
@pytest.mark.parametrize("given", [False, True], ids=["own session", "user's session"])
@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate"])
async def test_a_body_beyond_the_cap_is_cut(coding: str, given: bool) -> None:
    """At most 4 MiB of a feed, compressed or not, are returned and marked incomplete; memory stays bounded."""
    makes: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}
    make = makes[coding]
    raw = answer(200, _bomb(64 << 20, make), {"Content-Encoding": coding})
    async with RawServer() as server:
        session = aiohttp.ClientSession() if given else None
        async with opened(server.url, session=session) as transport:
            server.poll_acts.append(Act(raw, "fin"))
            await _answered(transport, _get(server.url))  # a first request, so that imports are not measured
            server.poll_acts.append(Act(raw, "fin"))
            tracemalloc.start()
            got = await _answered(transport, _get(server.url))
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        if session is not None:
            await session.close()
        assert (got.complete, len(got.body)) == (False, MAX_FEED_BODY)
        assert peak < 32 << 20 or coding == "identity"  # the server's own buffers hold a plain body


@pytest.mark.anyio
async def test_an_endless_body_is_abandoned() -> None:
    """An endless body is abandoned at the cap, and its connection is closed."""
    async with RawServer() as server, opened(server.url) as transport:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
        server.poll_acts.append(Act(head + b" " * (MAX_FEED_BODY + (1 << 20)), "stall"))
        got = await _answered(transport, _get(server.url))
        assert (got.complete, len(got.body)) == (False, MAX_FEED_BODY)
        server.acts.append(Act(head + b" " * (MAX_BODY + (1 << 20)), "stall"))
        receipt = await _answered(transport, _post(server.url))
        assert (receipt.complete, len(receipt.body)) == (False, MAX_BODY)
        await _answered(transport, _get(server.url))
        assert server.connections == 3


@pytest.mark.anyio
@pytest.mark.parametrize("then", ["fin", "rst", "stall"])
async def test_a_malformed_later_chunk_ends_the_reading(then: Any) -> None:
    """A malformed later chunk ends the answer at once, whatever the server does next; earlier bytes are returned."""
    head = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"id":"t"\r\n'
    async with RawServer() as server, opened(server.url) as transport:
        server.acts.append(Act(head, then, later=b"what\r\n"))
        async with asyncio.timeout(5):
            got = await _answered(transport, _post(server.url))
        assert (got.body, got.complete) == (b'{"id":"t"', False)


@pytest.mark.anyio
async def test_a_read_that_finds_its_connection_lost_fails_as_one_that_waits_for_it() -> None:
    """aiohttp raises RuntimeError where a read begins between the loss of a connection and the news of it."""
    lost = asyncio.get_running_loop().create_future()
    protocol: Any = SimpleNamespace(connected=False, closed=lost)
    content = aiohttp.StreamReader(protocol, 1 << 16, loop=asyncio.get_running_loop())
    response: Any = SimpleNamespace(content=content, connection=SimpleNamespace(protocol=protocol))
    for error in (RuntimeError, aiohttp.ClientPayloadError):
        with pytest.raises(error), fail_on_connection_lost(response):
            await content.readany()
        if not lost.done():
            lost.set_result(None)


@pytest.mark.anyio
async def test_a_reused_connection_holds_one_watcher() -> None:
    """However many answers arrived in parts over one connection, one watcher waits for its end."""
    async with (
        RawServer() as server,
        aiohttp.ClientSession() as session,
        opened(server.url, session=session) as transport,
    ):
        for _ in range(3):
            server.poll_acts.append(Act(answer(200, b"", {"Content-Length": "4"}) + b"nu", later=b"ll"))
            await _answered(transport, _get(server.url))
        assert session.connector is not None
        [(protocol, _)] = next(iter(session.connector._conns.values()))
        observers: Any = protocol.closed
        assert (server.connections, len(observers._callbacks)) == (1, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("given", [False, True], ids=["own session", "user's session"])
@pytest.mark.parametrize(
    "coding, make",
    [("gzip", gzip.compress), ("GZip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)],
)
async def test_compressed_answers_are_decompressed(coding: str, make: Callable[[bytes], bytes], given: bool) -> None:
    """An unrequested compression is decoded, also with a given session."""
    async with RawServer() as server:
        session = aiohttp.ClientSession() if given else None
        server.acts.append(Act(answer(200, make(b'{"id": "t"}'), {"Content-Encoding": coding})))
        async with opened(server.url, session=session) as transport:
            got = await _answered(transport, _post(server.url))
        if session is not None:
            await session.close()
        assert (got.body, got.complete) == (b'{"id": "t"}', True)


@pytest.mark.anyio
async def test_an_undecodable_coding_leaves_the_bytes() -> None:
    """The bytes of an unknown or broken coding are returned as they are and marked incomplete."""
    async with RawServer() as server, opened(server.url) as transport:
        for coding in ("br", "zstd", "gzip"):
            server.acts.append(Act(answer(200, b'{"id": "t"}', {"Content-Encoding": coding})))
            got = await _answered(transport, _post(server.url))
            assert (got.body, got.complete) == (b'{"id": "t"}', False)


# -- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_key_in_a_header_is_replaced() -> None:
    """Headers have the key replaced wherever it is, and are left as they are without it."""
    async with RawServer() as server, opened(server.url) as transport:
        for value, kept in ((f"a {KEY} b {KEY}", "a [key] b [key]"), ("plain \u00e4", "plain \u00e4")):
            server.poll_acts.append(Act(answer(200, "{}", {"X-One": "1", "X-Echo": value})))
            got = await _answered(transport, _get(server.url))
            assert (got.headers["x-echo"], got.headers["x-one"]) == (kept, "1")


@pytest.mark.anyio
@pytest.mark.parametrize("provider", ["cometapi", "gptge"])
async def test_a_key_that_is_repeated_by_a_gateway_is_never_shown(
    provider: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No error, log, repr or pickle contains the key, even if gateways, broken answers or closed connections repeat it."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0  # asyncio logs every step
    leaking_body = f'{{"error": {{"message": "bad key {KEY} of {KEY}", "code": "bad", "type": "Bearer {KEY}"}}}}'
    escaped = leaking_body.replace("/", "\\/")
    page = f"<html>Authorization: Bearer {KEY}</html>"
    found: list[str] = []
    for act in (
        *(Act(answer(status, leaking_body, {"Set-Cookie": f"{KEY}={KEY}"})) for status in (200, 400, 401, 500)),
        *(Act(answer(status, escaped)) for status in (200, 422, 403, 502)),
        Act(answer(404, page, {"Content-Type": "text/html", "X-Key": KEY})),
        Act(answer(307, page, {"Location": f"http://elsewhere.example/?key={KEY}"})),
        Act(answer(400, gzip.compress(leaking_body.encode()), {"Content-Encoding": "gzip"})),
        Act(answer(200, leaking_body, {"Content-Encoding": "br"})),
        Act(f"HTTP/1.1 {KEY}\r\n\r\n".encode(), "fin"),
        Act(answer(f"200 {KEY}", leaking_body, {"X-Long": KEY * 3000})),
        Act(answer(200, leaking_body, {"Content-Length": "9999"}), "fin"),
        Act(answer(200, leaking_body, {"Content-Length": "9999"}), "rst"),
        Act(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + KEY.encode(), "fin"),
        Act(b"", "rst"),
    ):
        async with RawServer(provider) as server:
            server.acts.append(act)
            server.poll_acts.append(act)
            async with PikaClient(provider, api_key=KEY, base_url=server.url, polling=FixedInterval(0.01)) as pika:
                found.append(repr(pika))
                try:
                    job = await pika.submit("a cat")
                    await pika.poll(job)
                except PikaError as error:
                    found += _everything(error)
                for job in await pika.jobs():
                    found += [repr(job), *(_everything(job.error) if job.error else [])]
    gc.collect()
    loop.set_debug(False)
    found += [str(record.__dict__) + record.getMessage() for record in caplog.records]
    assert len(found) > 20
    for spelling in (KEY, KEY.replace("/", "\\/"), KEY[:14]):
        assert [text for text in found if spelling in text] == []


def _everything(error: BaseException) -> list[str]:
    """Return every text form of an error."""
    chain = [error.__cause__, error.__context__]
    return [
        repr(error),
        str(error),
        str(vars(error)),
        "".join(traceback.format_exception(error)),
        pickle.dumps(error).decode("latin-1"),
        *(repr(link) for link in chain if link is not None),
    ]


@pytest.mark.anyio
async def test_no_foreign_error_is_chained() -> None:
    """An error of this package never chains one of aiohttp's, whose `repr` contains the bearer token."""
    async with RawServer() as server:
        for act, kind in (
            (Act(answer(400, "{}", {"X-Long": "x" * 70_000})), PikaError),
            (Act(answer(401)), AccountStopped),
        ):
            server.acts.append(act)
            async with PikaClient("gptge", api_key=KEY, base_url=server.url) as pika:
                with pytest.raises(kind) as caught:
                    await pika.submit("a cat")
            assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_an_object_with_the_key_does_not_show_it() -> None:
    """The `repr` of a credential, a transport and a client omits the key, and a credential cannot be pickled."""
    credential = Credential(KEY)
    for thing in (
        credential,
        AiohttpTransport(
            "https://gateway.example", credential, proxy=f"http://user:{KEY.replace('/', '%2F')}@proxy.example"
        ),
        PikaClient("gptge", api_key=KEY),
        HttpRequest(method="POST", url="https://gateway.example", body=KEY.encode()),
        HttpResponse(status=200, headers={"x": KEY}, body=KEY.encode()),
    ):
        assert KEY[-12:] not in f"{thing!r} {thing!s}"
    with pytest.raises(TypeError, match="must not be pickled"):
        pickle.dumps(credential)


# -- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, expected",
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.9.9.9", True),
        ("http://localhost", True),
        ("http://LOCALHOST:1", True),
        ("http://[::1]:1", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://127.evil.example", False),
        ("http://localhost.example", False),
        ("http://10.0.0.1", False),
        ("http://gateway.example", False),
    ],
)
def test_loopback_is_this_machine_only(url: str, expected: bool) -> None:
    """A name is not loopback merely because of its prefix."""
    assert expected == is_loopback(url)


@pytest.mark.parametrize(
    "base_url",
    ["", "gateway.example", "ftp://gateway.example", "https://", "https://u:p@gateway.example", "https://g.example/?a=1",
     "https://g.example/#a", "http://[", "http://g.example:port"],
)  # fmt: skip
def test_an_invalid_base_url_is_refused(base_url: str) -> None:
    """A base URL must have a scheme and a host, and no user, query or fragment."""
    with pytest.raises(ConfigurationError, match="base_url"):
        origin_of(base_url)


@pytest.mark.parametrize("proxy", ["", "socks5://proxy.example", f"http//user:{KEY}@proxy"])
def test_an_invalid_proxy_is_refused(proxy: str) -> None:
    """A proxy that is not an http(s) URL is refused when the client is created, and the error does not repeat it."""
    with pytest.raises(ConfigurationError, match="proxy") as caught:
        PikaClient("gptge", api_key="sk-anything-else", proxy=proxy)
    assert KEY not in str(caught.value)


# -- aiohttp's errors ----------------------------------------------------------------------------------------------

SENT, UNSENT = SendPhase.SENT, SendPhase.UNSENT
_CONN = ConnectionKey("gateway.example", 443, True, True, None, None, None)
_REQUEST = aiohttp.RequestInfo(URL("https://g.example"), "POST", {"Authorization": KEY}, URL("https://g.example"))  # type: ignore[arg-type]
_REFUSED = OSError(111, "Connection refused")

#: Each class: an instance, its phase when the marker did not fire, its kind. With the marker fired it is always SENT.
_TABLE: list[tuple[BaseException, SendPhase, str]] = [
    (aiohttp.ClientError(), UNSENT, "other"),
    (aiohttp.ClientConnectionError(), UNSENT, "other"),
    (aiohttp.ClientConnectionResetError(), UNSENT, "disconnected"),
    (aiohttp.ClientOSError(104, "Connection reset by peer"), UNSENT, "disconnected"),
    (aiohttp.ClientConnectorError(_CONN, _REFUSED), UNSENT, "connect"),
    (aiohttp.ClientConnectorDNSError(_CONN, _REFUSED), UNSENT, "dns"),
    (aiohttp.ClientProxyConnectionError(_CONN, _REFUSED), UNSENT, "proxy"),
    (client_exceptions.UnixClientConnectorError("/run/x", _CONN, _REFUSED), UNSENT, "connect"),
    (aiohttp.ClientSSLError(_CONN, _REFUSED), UNSENT, "tls"),
    (aiohttp.ClientConnectorSSLError(_CONN, ssl.SSLError(1, "bad")), UNSENT, "tls"),
    (aiohttp.ClientConnectorCertificateError(_CONN, ssl.SSLCertVerificationError(1, "bad")), UNSENT, "certificate"),
    (aiohttp.ServerConnectionError(), UNSENT, "other"),
    (aiohttp.ServerTimeoutError(), UNSENT, "timeout"),
    (aiohttp.ConnectionTimeoutError(), UNSENT, "timeout"),
    (aiohttp.SocketTimeoutError(), SENT, "timeout"),
    (aiohttp.ServerDisconnectedError(), SENT, "disconnected"),
    (aiohttp.ServerFingerprintMismatch(b"a", b"b", "g.example", 443), UNSENT, "certificate"),
    (aiohttp.ClientResponseError(_REQUEST, (), status=400, message=KEY), SENT, "malformed"),
    (aiohttp.ContentTypeError(_REQUEST, ()), SENT, "malformed"),
    (aiohttp.WSServerHandshakeError(_REQUEST, ()), SENT, "malformed"),
    (aiohttp.TooManyRedirects(_REQUEST, ()), SENT, "malformed"),
    (aiohttp.ClientHttpProxyError(_REQUEST, (), status=502), UNSENT, "proxy"),
    (aiohttp.ClientPayloadError(), SENT, "cut"),
    *(
        (kind(), UNSENT, "other") for kind in (getattr(client_exceptions, "UploadAbortedError", None),) if kind
    ),  # 3.14.4
    (aiohttp.InvalidURL("http://["), UNSENT, "url"),
    (aiohttp.InvalidUrlClientError("http://["), UNSENT, "url"),
    (aiohttp.InvalidUrlRedirectClientError("http://["), UNSENT, "url"),
    (aiohttp.RedirectClientError(), UNSENT, "other"),
    (aiohttp.NonHttpUrlClientError("ftp://x"), UNSENT, "url"),
    (aiohttp.NonHttpUrlRedirectClientError("ftp://x"), UNSENT, "url"),
    (aiohttp.WSMessageTypeError(), UNSENT, "other"),
]
MAP = {type(row[0]): row for row in _TABLE}


def _classes() -> set[type[BaseException]]:
    named = {each for each in vars(client_exceptions).values() if isinstance(each, type)}
    found = {each for each in named if issubclass(each, BaseException) and each.__module__.startswith("aiohttp")}
    waiting = list(found)
    while waiting:
        for child in waiting.pop().__subclasses__():
            if child.__module__.startswith("aiohttp") and child not in found:
                found.add(child)
                waiting.append(child)
    return found


def test_every_error_of_aiohttp_is_mapped() -> None:
    """A new exception class of aiohttp, or a new subclass of one, makes this test fail until it is mapped."""
    assert set(MAP) == _classes()


@pytest.mark.parametrize("kind", MAP, ids=lambda kind: kind.__name__)
def test_an_error_is_classified(kind: type[BaseException]) -> None:
    """Each class has its phase and kind; a send marker of "sent" takes precedence; the bearer token is not repeated."""
    error, phase, word = MAP[kind]
    unmarked, marked = classify_exception(error, sent=False), classify_exception(error, sent=True)
    assert (phase, word) == (unmarked.phase, unmarked.kind)
    assert (SENT, word) == (marked.phase, marked.kind)
    assert KEY not in f"{unmarked!r} {marked!r}"
    assert unmarked.detail.isprintable()


@pytest.mark.parametrize(
    "error, kind",
    [
        (TimeoutError(), "timeout"),
        (ConnectionResetError(104, "Connection reset by peer"), "disconnected"),
        (BrokenPipeError(32, "Broken pipe"), "disconnected"),
        (socket.gaierror(-2, "Name or service not known"), "disconnected"),
        (ValueError("a header with a line break"), "other"),
        (RuntimeError("Session is closed"), "other"),
    ],
)
def test_an_unmapped_error_is_classified_by_the_send_marker(error: BaseException, kind: str) -> None:
    """An error without a phase of its own is classified by the send marker alone."""
    assert [(UNSENT, kind), (SENT, kind)] == [
        (got.phase, got.kind) for got in (classify_exception(error, sent=False), classify_exception(error, sent=True))
    ]


# -- event loops --------------------------------------------------------------------------------------------------------


def _runners() -> list[Any]:
    return [pytest.param(asyncio.run, id="asyncio"), pytest.param(_uvloop, id="uvloop")]


def _uvloop(main: Any) -> Any:
    uvloop = require_module("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@pytest.mark.parametrize("run", _runners())
def test_one_client_works_in_two_event_loops_in_turn(run: Any) -> None:
    """A client reopened in a new event loop keeps its jobs, sends none twice and accepts new ones."""

    async def first(pika: PikaClient, server: RawServer) -> None:
        async with server, pika:
            await pika.wait(await pika.submit(GenerationRequest("one", key="one")))

    async def second(pika: PikaClient, server: RawServer) -> None:
        async with server, pika:
            report = await pika.run([GenerationRequest(each, key=each) for each in ("one", "two")])
            assert [job.status for job in report.jobs] == [JobStatus.SUCCEEDED] * 2

    port = free_port()
    before, after = RawServer(port=port), RawServer(port=port, task_id="task-77aa")
    pika = PikaClient("gptge", api_key=KEY, base_url=before.url, polling=FixedInterval(0.01))
    run(first(pika, before))
    run(second(pika, after))
    assert (len(before.submissions), len(after.submissions)) == (1, 1)


@pytest.mark.parametrize("run", _runners())
def test_faults_are_classified_alike_in_every_event_loop(run: Any) -> None:
    """A refused connection is not sent, and one that is reset or closed after sending is sent, under every event loop."""

    async def main() -> list[tuple[SendPhase, str]]:
        closed_url = f"http://127.0.0.1:{free_port()}"
        async with opened(closed_url) as transport:
            outcomes = [await transport.send(_post(closed_url))]
        async with RawServer() as server, opened(server.url) as transport:
            for act in (Act(b"", "rst"), Act(b"", "fin")):
                server.acts.append(act)
                outcomes.append(await transport.send(_post(server.url)))
        assert all(isinstance(outcome, TransportFailure) for outcome in outcomes)
        return [(outcome.phase, outcome.kind) for outcome in outcomes if isinstance(outcome, TransportFailure)]

    assert run(main()) == [(UNSENT, "connect"), (SENT, "disconnected"), (SENT, "disconnected")]


@pytest.mark.anyio
async def test_a_closed_transport_raises_a_programming_error() -> None:
    """Sending through a closed transport is a programming error, and the transport can be reopened."""
    async with RawServer() as server:
        transport = AiohttpTransport(server.url, Credential(KEY))
        with pytest.raises(RuntimeError, match="not open"):
            await transport.send(_post(server.url))
        for _ in range(2):
            await transport.open()
            await _answered(transport, _post(server.url))
            await transport.close()
            await transport.close()


@pytest.mark.anyio
async def test_cancelling_a_send_propagates() -> None:
    """The cancellation propagates and leaves no connection behind."""
    async with RawServer() as server, opened(server.url) as transport:
        server.acts.append(Act(b"", "stall"))
        sending = asyncio.create_task(transport.send(_post(server.url)))
        await server.until_received(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
