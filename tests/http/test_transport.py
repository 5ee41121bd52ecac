"""The transport over real sockets: connections, origins, the user's session, caps, secrets, and aiohttp's errors."""

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
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
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
from pika_async._http.transport import AiohttpTransport, classify_exception, is_loopback, origin_of
from pika_async.providers._wire import MAX_BODY, Credential, HttpRequest, HttpResponse, SendPhase, TransportFailure
from tests.fakes.raw_server import TASK, Act, RawServer, answer, free_port, receipt

KEY = "sk-canary/0123456789-abcdef"


def _post(url: str) -> HttpRequest:
    return HttpRequest(method="POST", url=f"{url}/pika/generate", body=b"{}", paid=True)


def _get(url: str) -> HttpRequest:
    return HttpRequest(method="GET", url=f"{url}/pika/feed/{TASK}")


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport(url, Credential(KEY), **options)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


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
async def test_a_kept_connection_that_the_server_closes_loses_no_submission() -> None:
    """A server that closes behind every answer makes no submission doubtful."""
    async with RawServer() as server, opened(server.url) as transport:
        server.acts.extend([Act(answer(200, receipt("gptge")), "fin")] * 20)
        statuses = [(await _answered(transport, _post(server.url))).status for _ in range(20)]
        assert (statuses, server.connections) == ([200] * 20, 20)


@pytest.mark.anyio
async def test_many_submissions_run_side_by_side() -> None:
    """Fifty submissions are all on their way before the first is answered."""
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
async def test_the_key_goes_with_each_request() -> None:
    """Submissions and polls carry the bearer and ask for plain JSON; no cookie that a gateway sets comes back."""
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
@pytest.mark.parametrize("paid", [True, False])
async def test_another_origin_gets_nothing(paid: bool) -> None:
    """Another scheme, host or port, or no address at all, is not asked and never gets the key."""
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
    """A `~/.netrc` that knows the host changes nothing."""
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
    """A redirect of a poll or a submission is handed over as it is; nobody is asked a second time."""
    async with RawServer() as server, RawServer() as elsewhere, opened(server.url) as transport:
        moved = Act(answer(status, "", {"Location": f"{elsewhere.url}/pika/feed/{TASK}"}))
        server.acts.append(moved)
        server.poll_acts.append(moved)
        got = [(await _answered(transport, ask(server.url))).status for ask in (_post, _get)]
        assert ([status] * 2, 2, 0) == (got, len(server.received), elsewhere.connections)


# -- the user's session --------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_users_session_is_used_and_left_as_it_was() -> None:
    """A given session carries every call, stays open, and has its own trace configurations back."""
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
    for session in (closed, own, _session_with_auth()):
        with pytest.raises(ConfigurationError, match="session"):
            async with PikaClient("gptge", api_key=KEY, base_url="http://127.0.0.1:1", session=session):
                pass
        assert session.trace_configs == []
        await session.close()


def _session_with_auth() -> aiohttp.ClientSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # going away, but as long as it is there to be refused
        return aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))


@pytest.mark.anyio
async def test_a_session_closed_under_way_sends_nothing() -> None:
    """A session that its owner closes is no crash: what it was asked to carry was not sent."""
    async with RawServer() as server:
        session = aiohttp.ClientSession()
        async with opened(server.url, session=session) as transport:
            await session.close()
            outcome = await transport.send(_post(server.url))
        assert isinstance(outcome, TransportFailure)
        assert (outcome.phase, server.connections) == (SendPhase.UNSENT, 0)


@pytest.mark.anyio
async def test_a_sessions_own_wishes_do_not_send_twice() -> None:
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
async def test_a_hook_of_the_user_that_fails_is_judged_by_the_marker() -> None:
    """A trace hook that raises anything before sending means not sent, after sending it means sent."""

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
    """At most a megabyte of an answer is kept, packed or not, and said to be incomplete; memory stays bounded."""
    makes: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}
    make = makes[coding]
    raw = answer(200, _bomb(64 << 20, make), {"Content-Encoding": coding})
    async with RawServer() as server:
        session = aiohttp.ClientSession() if given else None
        async with opened(server.url, session=session) as transport:
            server.poll_acts.append(Act(raw, "fin"))
            await _answered(transport, _get(server.url))  # once before, so that what is imported does not count
            server.poll_acts.append(Act(raw, "fin"))
            tracemalloc.start()
            got = await _answered(transport, _get(server.url))
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        if session is not None:
            await session.close()
        assert (got.complete, len(got.body)) == (False, MAX_BODY)
        assert peak < 16 << 20 or coding == "identity"  # the server's own buffers hold a plain body


@pytest.mark.anyio
async def test_an_endless_body_is_left() -> None:
    """A body that never ends is left at the cap, and its connection is closed."""
    async with RawServer() as server, opened(server.url) as transport:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
        server.poll_acts.append(Act(head + b" " * (MAX_BODY + (1 << 20)), "stall"))
        got = await _answered(transport, _get(server.url))
        assert (got.complete, len(got.body)) == (False, MAX_BODY)
        await _answered(transport, _get(server.url))
        assert server.connections == 2


@pytest.mark.anyio
@pytest.mark.parametrize("then", ["fin", "rst", "stall"])
async def test_a_malformed_later_chunk_ends_the_reading(then: Any) -> None:
    """A chunk that is none, after others, ends the answer at once, whatever the server does next; what came is kept."""
    head = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"id":"t"\r\n'
    async with RawServer() as server, opened(server.url) as transport:
        server.acts.append(Act(head, then, later=b"what\r\n"))
        async with asyncio.timeout(5):
            got = await _answered(transport, _post(server.url))
        assert (got.body, got.complete) == (b'{"id":"t"', False)


@pytest.mark.anyio
async def test_a_kept_connection_keeps_nothing_of_its_answers() -> None:
    """Answers that came in parts over one connection leave no watcher of its end behind."""
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
        assert (server.connections, observers._callbacks or []) == (1, [])


@pytest.mark.anyio
@pytest.mark.parametrize("given", [False, True], ids=["own session", "user's session"])
@pytest.mark.parametrize(
    "coding, make",
    [("gzip", gzip.compress), ("GZip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)],
)
async def test_packed_answers_are_unpacked(coding: str, make: Callable[[bytes], bytes], given: bool) -> None:
    """A front end that packs although it was asked not to is understood, in the user's session too."""
    async with RawServer() as server:
        session = aiohttp.ClientSession() if given else None
        server.acts.append(Act(answer(200, make(b'{"id": "t"}'), {"Content-Encoding": coding})))
        async with opened(server.url, session=session) as transport:
            got = await _answered(transport, _post(server.url))
        if session is not None:
            await session.close()
        assert (got.body, got.complete) == (b'{"id": "t"}', True)


@pytest.mark.anyio
async def test_a_coding_that_cannot_be_undone_leaves_the_bytes() -> None:
    """Of an unknown or broken coding the bytes are kept and said to be incomplete."""
    async with RawServer() as server, opened(server.url) as transport:
        for coding in ("br", "zstd", "gzip"):
            server.acts.append(Act(answer(200, b'{"id": "t"}', {"Content-Encoding": coding})))
            got = await _answered(transport, _post(server.url))
            assert (got.body, got.complete) == (b'{"id": "t"}', False)


# -- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("provider", ["cometapi", "gptge"])
async def test_a_key_that_is_repeated_to_us_is_found_nowhere(provider: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever gateways, broken answers and dead connections say of the key, no error, log, repr or pickle holds it."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0  # asyncio tells of every step
    said = f'{{"error": {{"message": "bad key {KEY} of {KEY}", "code": "bad", "type": "Bearer {KEY}"}}}}'
    escaped = said.replace("/", "\\/")
    page = f"<html>Authorization: Bearer {KEY}</html>"
    found: list[str] = []
    for act in (
        *(Act(answer(status, said, {"Set-Cookie": f"{KEY}={KEY}"})) for status in (200, 400, 401, 500)),
        *(Act(answer(status, escaped)) for status in (200, 422, 403, 502)),
        Act(answer(404, page, {"Content-Type": "text/html", "X-Key": KEY})),
        Act(answer(307, page, {"Location": f"http://elsewhere.example/?key={KEY}"})),
        Act(answer(400, gzip.compress(said.encode()), {"Content-Encoding": "gzip"})),
        Act(answer(200, said, {"Content-Encoding": "br"})),
        Act(f"HTTP/1.1 {KEY}\r\n\r\n".encode(), "fin"),
        Act(answer(f"200 {KEY}", said, {"X-Long": KEY * 1000})),
        Act(answer(200, said, {"Content-Length": "9999"}), "fin"),
        Act(answer(200, said, {"Content-Length": "9999"}), "rst"),
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
    """All that an error can be made to say."""
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
    """An error of ours never leads to one of aiohttp's, whose `repr` holds the bearer."""
    async with RawServer() as server:
        for act, kind in (
            (Act(answer(400, "{}", {"X-Long": "x" * 9999})), PikaError),
            (Act(answer(401)), AccountStopped),
        ):
            server.acts.append(act)
            async with PikaClient("gptge", api_key=KEY, base_url=server.url) as pika:
                with pytest.raises(kind) as caught:
                    await pika.submit("a cat")
            assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_nothing_that_holds_the_key_shows_it() -> None:
    """The `repr` of a credential, a transport and a client is silent, and a credential cannot be pickled."""
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
    """A name is not loopback for what it begins with."""
    assert expected == is_loopback(url)


@pytest.mark.parametrize(
    "base_url",
    ["", "gateway.example", "ftp://gateway.example", "https://", "https://u:p@gateway.example", "https://g.example/?a=1",
     "https://g.example/#a", "http://[", "http://g.example:port"],
)  # fmt: skip
def test_a_base_url_that_cannot_work_is_refused(base_url: str) -> None:
    """An address without scheme or host, or with a user, a query or a fragment, is no base URL."""
    with pytest.raises(ConfigurationError, match="base_url"):
        origin_of(base_url)


@pytest.mark.parametrize("proxy", ["", "proxy.example:3128", "socks5://proxy.example", f"http//user:{KEY}@proxy"])
def test_a_proxy_that_cannot_work_is_refused(proxy: str) -> None:
    """A proxy that is not an http(s) URL is refused when the client is made, and not repeated."""
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
    """A class that aiohttp gains, or that its classes gain as a child, makes this fail until somebody decides."""
    assert set(MAP) == _classes()


@pytest.mark.parametrize("kind", MAP, ids=lambda kind: kind.__name__)
def test_an_error_is_classified(kind: type[BaseException]) -> None:
    """Each class has its phase and kind; where the marker says "sent", that wins; the bearer is not repeated."""
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
def test_a_bare_error_is_told_by_the_marker(error: BaseException, kind: str) -> None:
    """An error that is nobody's own means both, so the marker alone decides."""
    assert [(UNSENT, kind), (SENT, kind)] == [
        (got.phase, got.kind) for got in (classify_exception(error, sent=False), classify_exception(error, sent=True))
    ]


# -- loops ---------------------------------------------------------------------------------------------------------


def _runners() -> list[Any]:
    return [pytest.param(asyncio.run, id="asyncio"), pytest.param(_uvloop, id="uvloop")]


def _uvloop(main: Any) -> Any:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@pytest.mark.parametrize("run", _runners())
def test_one_client_lives_in_two_loops_one_after_the_other(run: Any) -> None:
    """A client opened again in a new loop keeps its jobs, sends nothing twice and takes new ones."""

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
def test_faults_are_judged_alike_in_every_loop(run: Any) -> None:
    """Refused is not sent, and reset or ended after sending is sent, whatever loop runs it."""

    async def main() -> list[tuple[SendPhase, str]]:
        nobody = f"http://127.0.0.1:{free_port()}"
        async with opened(nobody) as transport:
            outcomes = [await transport.send(_post(nobody))]
        async with RawServer() as server, opened(server.url) as transport:
            for act in (Act(b"", "rst"), Act(b"", "fin")):
                server.acts.append(act)
                outcomes.append(await transport.send(_post(server.url)))
        assert all(isinstance(outcome, TransportFailure) for outcome in outcomes)
        return [(outcome.phase, outcome.kind) for outcome in outcomes if isinstance(outcome, TransportFailure)]

    assert run(main()) == [(UNSENT, "connect"), (SENT, "disconnected"), (SENT, "disconnected")]


@pytest.mark.anyio
async def test_a_closed_transport_says_so() -> None:
    """Sending through a transport that is not open is a programming error, and it can be opened again."""
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
async def test_cancelling_a_send_is_cancelling() -> None:
    """Cancellation is passed on, and leaves no connection behind."""
    async with RawServer() as server, opened(server.url) as transport:
        server.acts.append(Act(b"", "stall"))
        sending = asyncio.create_task(transport.send(_post(server.url)))
        await server.until_received(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
