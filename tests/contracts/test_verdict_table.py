"""What became of a submission, cell by cell: a real socket does what the table says, and the verdict must be the table's."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import attrs
import pytest

from pika_async import (
    AccountStopped,
    FixedInterval,
    GenerationRequest,
    JobStatus,
    Limits,
    PikaClient,
    ProviderBusy,
    ProviderUnreachable,
    SubmissionInDoubt,
    SubmissionRejected,
    WrongBaseUrl,
    find_provider,
)
from pika_async._http.transport import AiohttpTransport
from pika_async._runtime import scheduler as _scheduler
from pika_async._runtime.gateway import GatewayClient
from pika_async.providers._verdicts import PollVerdict, SubmitOutcome, SubmitVerdict
from pika_async.providers._wire import Credential, HttpRequest, HttpResponse, SendPhase, TransportFailure
from tests.fakes import memory_gateway as memory
from tests.fakes.raw_server import PROVIDERS, TASK, Act, Raw, answer, deaf, free_port, receipt, trusting_context

pytestmark = pytest.mark.anyio

KEY = "sk-verdicts-0123456789"
DATE = "Fri, 02 Jan 2026 10:00:00 GMT"
NINE_SECONDS_LATER = "Fri, 02 Jan 2026 10:00:09 GMT"
HTML = "<!DOCTYPE html><html><body>Hello</body></html>"
PAGE = {"Content-Type": "text/html; charset=utf-8"}
PATIENT = aiohttp.ClientTimeout(total=10)
SILENCE = aiohttp.ClientTimeout(total=10, sock_read=0.2)
TOTAL = aiohttp.ClientTimeout(total=0.2)
#: One provider of each dialect.
DIALECTS = ("cometapi", "gptge")


@pytest.fixture(autouse=True)
def _shortest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scheduler, "random", SimpleNamespace(random=lambda: 0.0))


# -- the rows ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Row:
    """One cell of the table: what the server does, and what must be concluded."""

    name: str
    verdict: SubmitVerdict
    act: Callable[[str], Act]
    retry_after: float | None = None
    timeout: aiohttp.ClientTimeout = PATIENT


Body = str | bytes | Callable[[str], str | bytes]


def _raw(raw: bytes | Callable[[str], bytes], then: Any = "keep") -> Callable[[str], Act]:
    return lambda provider: Act(raw(provider) if callable(raw) else raw, then)


def _said(status: int | str, body: Body = b"", headers: dict[str, str] | None = None) -> Callable[[str], Act]:
    return lambda provider: Act(answer(status, body(provider) if callable(body) else body, headers))


def _failure(code: str, message: str = "no") -> Callable[[str], str]:
    """An explicit failure as each dialect puts it."""

    def body(provider: str) -> str:
        if provider == "cometapi":
            return json.dumps({"code": code, "msg": message, "data": None})
        return json.dumps({"error": {"message": message, "type": "gateway_error", "param": "", "code": code}})

    return body


def _bytes(provider: str) -> bytes:
    return receipt(provider).encode()


def _torn(provider: str) -> bytes:
    """An answer that promises more than what stands here, the id whole."""
    return answer(200, b"", {"Content-Length": "4096"}) + _bytes(provider)[:-1] + b","


def _torn_before_id(_provider: str) -> bytes:
    return answer(200, b"", {"Content-Length": "4096"}) + b'{"code":200,"msg":"success"'


def _torn_within_id(provider: str) -> bytes:
    held, _, _ = _bytes(provider).partition(TASK.encode())
    return answer(200, b"", {"Content-Length": "4096"}) + held + TASK[:4].encode()


def _chunked(*chunks: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def _whole_chunks(provider: str) -> bytes:
    body = _bytes(provider)
    return _chunked(body[:9], body[9:]) + b"0\r\n\r\n"


def _until_the_end(provider: str) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + _bytes(provider)


def _after_interim(provider: str) -> bytes:
    return b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" + answer(200, _bytes(provider))


def _gzip_cut(provider: str) -> bytes:
    packed = gzip.compress(_bytes(provider)[:-1] + b',"more":"' + hashlib.sha512(b"noise").hexdigest().encode() * 9)
    return answer(200, b"", {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}) + packed[:-20]


A, R, S, W, U, X = (
    SubmitVerdict.ACCEPTED,
    SubmitVerdict.REJECTED,
    SubmitVerdict.STOP,
    SubmitVerdict.WAIT,
    SubmitVerdict.UNKNOWN,
    SubmitVerdict.WRONG_URL,
)

LOST = [
    Row("no reply in time, by silence", U, _raw(b"", "stall"), timeout=SILENCE),
    Row("no reply in time, in all", U, _raw(b"", "stall"), timeout=TOTAL),
    Row("FIN before the reply", U, _raw(b"", "fin")),
    Row("RST before the reply", U, _raw(b"", "rst")),
    Row("no HTTP", U, _raw(b"SSH-2.0-OpenSSH_9.6\r\n", "fin")),
    Row("bad status line", U, _raw(b"HTTP/1.1 OK 200\r\nContent-Length: 0\r\n\r\n")),
    Row("oversized header", U, _raw(answer(200, receipt("gptge"), {"X-Long": "x" * 20_000}))),
    Row("oversized header of a refusal", U, _raw(answer(400, "{}", {"X-Long": "x" * 20_000}))),
    Row("bad chunk", U, _raw(_chunked() + b"what\r\n{}\r\n", "fin")),
    Row("bad chunk with the headers", U, _raw(lambda provider: _chunked(_bytes(provider)) + b"what\r\n", "fin")),
    Row("bad chunk later, id held", A, lambda name: Act(_chunked(_bytes(name)), "fin", later=b"what\r\n")),
    Row("bad chunk later before the id", U, lambda _: Act(_chunked(b'{"code":200,'), "fin", later=b"what\r\n")),
    Row("two lengths", U, _raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "fin")),
    Row("cut in the status line, FIN", U, _raw(b"HTTP/1.1 2", "fin")),
    Row("cut in the headers, FIN", U, _raw(b"HTTP/1.1 200 OK\r\nContent-Ty", "fin")),
    Row("cut in the headers, RST", U, _raw(b"HTTP/1.1 200 OK\r\nContent-Ty", "rst")),
    Row("cut in the headers of a refusal", U, _raw(b"HTTP/1.1 400 Bad Request\r\nContent-Ty", "fin")),
    Row("stall in the headers", U, _raw(b"HTTP/1.1 200 OK\r\nContent-Ty", "stall"), timeout=SILENCE),
    Row("cut in the body, id held", A, _raw(_torn, "fin")),
    Row("cut in the body before the id", U, _raw(_torn_before_id, "fin")),
    Row("cut in the body within the id", U, _raw(_torn_within_id, "fin")),
    Row("cut in a chunk, id held", A, _raw(lambda provider: _chunked(_bytes(provider)) + b"40\r\n{", "fin")),
    Row("body stalls, id held", A, _raw(_torn, "stall"), timeout=SILENCE),
    Row("body stalls in all, id held", A, _raw(_torn, "stall"), timeout=TOTAL),
    Row("body stalls before the id", U, _raw(_torn_before_id, "stall"), timeout=SILENCE),
    Row("body stalls within the id", U, _raw(_torn_within_id, "stall"), timeout=TOTAL),
    Row("gzip cut, id held", A, _raw(_gzip_cut, "fin")),
]

ACCEPTED = [
    Row("200", A, _said(200, receipt)),
    Row("201", A, _said(201, receipt)),
    Row("202", A, _said(202, receipt)),
    Row("299", A, _said(299, receipt)),
    Row("text/plain", A, _said(200, receipt, {"Content-Type": "text/plain"})),
    Row("text/html", A, _said(200, receipt, PAGE)),
    Row("octet-stream", A, _said(200, receipt, {"Content-Type": "application/octet-stream"})),
    Row("another charset", A, _said(200, receipt, {"Content-Type": "application/json; charset=gbk"})),
    Row("a broken content type", A, _said(200, receipt, {"Content-Type": ";;=/"})),
    Row("no content type", A, _said(200, receipt, {"Content-Type": ""})),
    Row("BOM", A, _said(200, lambda provider: b"\xef\xbb\xbf" + _bytes(provider))),
    Row("white space around", A, _said(200, lambda provider: b"\r\n \t" + _bytes(provider) + b"\n\n")),
    Row("garbage behind", A, _said(200, lambda provider: _bytes(provider) + b"<!-- 3 ms -->")),
    Row("no UTF-8", A, _said(200, lambda provider: _bytes(provider)[:-1] + b',"tip":"\xd6\xd0"}')),
    Row("half a character", A, _said(200, lambda provider: _bytes(provider)[:-1] + b',"tip":"\\ud83d"}')),
    Row("chunks", A, _raw(_whole_chunks)),
    Row("HTTP/1.0 without a length", A, _raw(_until_the_end, "fin")),
    Row("an interim answer first", A, _raw(_after_interim)),
    Row("gzip", A, _said(200, lambda provider: gzip.compress(_bytes(provider)), {"Content-Encoding": "gzip"})),
    Row("plain, called gzip", A, _said(200, receipt, {"Content-Encoding": "gzip"})),
    Row("plain, called br", A, _said(200, receipt, {"Content-Encoding": "br"})),
]
REFUSED_IN_BODY = [
    Row("2xx with a failure code", R, _said(200, _failure("400", "prompt is not allowed"))),
    Row("2xx with a failure word", R, _said(200, _failure("invalid_request"))),
    Row("2xx with a failure code as HTML", R, _said(200, _failure("400"), PAGE)),
    Row(
        "2xx with BOM and a failure code", R, _said(200, lambda name: b"\xef\xbb\xbf" + _failure("400")(name).encode())
    ),
    Row("2xx without quota", S, _said(200, _failure("insufficient_user_quota"))),
]
NOTHING_SAID = [
    Row("2xx page", U, _said(200, HTML, PAGE)),
    Row("2xx page, called JSON", U, _said(200, HTML)),
    Row("2xx page with an id in its script", U, _said(200, '<html><script>{"id": "app", "task_id": "x"}</script>')),
    Row(
        "2xx markup with an id, cut",
        U,
        _raw(answer(200, '<!-- {"id": "x", "task_id": "x"}', {"Content-Length": "99"}), "fin"),
    ),
    Row("2xx empty", U, _said(200)),
    Row("204", U, _raw(b"HTTP/1.1 204 No Content\r\n\r\n")),
    Row("2xx white space", U, _said(200, b" \r\n")),
    Row("2xx unknown JSON", U, _said(200, '{"hello": "world"}')),
    Row("2xx list", U, _said(200, "[]")),
    Row("2xx null", U, _said(200, "null")),
    Row("2xx text", U, _said(200, '"ok"')),
    Row("2xx null id", U, _said(200, '{"code": 200, "data": {"task_id": null}, "id": null}')),
    Row("2xx empty id", U, _said(200, '{"code": 200, "data": {"task_id": ""}, "id": ""}')),
    Row("2xx id of another type", U, _said(200, '{"code": 200, "data": {"task_id": []}, "id": true}')),
    Row("2xx success without data", U, _said(200, '{"code": 200, "msg": "success"}')),
    Row("2xx binary", U, _said(200, bytes(range(256)))),
    Row("2xx of a coding unknown", U, _said(200, b"\x0b\x02\x80\x03", {"Content-Encoding": "br"})),
]
REJECTED = [
    *(Row(str(status), R, _said(status, _failure("bad"))) for status in (400, 404, 405, 409, 413, 415, 422)),
    Row("400 page", R, _said(400, HTML, PAGE)),
    Row("400 empty", R, _said(400)),
    Row("400 cut", R, _raw(answer(400, b"", {"Content-Length": "999"}) + b'{"error":', "fin")),
    Row("400 with an id", R, _said(400, receipt)),
    Row("500 invalid_request", R, _said(500, '{"error": {"message": "", "type": "x", "code": "invalid_request"}}')),
]
WRONG_URL = [
    Row("404 page", X, _said(404, HTML, PAGE)),
    Row("404 page in capitals", X, _said(404, "<H1>No</H1>", {"Content-Type": "Text/HTML"})),
    Row("404 page, called JSON", X, _said(404, HTML)),
]
STOPPED = [
    *(Row(str(status), S, _said(status, _failure("no"))) for status in (401, 402, 403, 407)),
    *(Row(f"{status} page", S, _said(status, HTML, PAGE)) for status in (401, 403)),
    *(
        Row(f"{status} without quota", S, _said(status, _failure("insufficient_user_quota")))
        for status in (400, 403, 429, 500, 503)
    ),
    Row("429 without quota, Retry-After", S, _said(429, _failure("insufficient_user_quota"), {"Retry-After": "1"})),
]
WAITED = [
    *(Row(str(status), W, _said(status, _failure("later"))) for status in (421, 425, 429, 521, 523, 525, 526, 530)),
    Row("521 page", W, _said(521, HTML, PAGE)),
    Row("429 empty", W, _said(429)),
    Row("429 at once", W, _said(429, "{}", {"Retry-After": "0"}), 0.0),
    Row("429 in 7 s", W, _said(429, "{}", {"Retry-After": "7"}), 7.0),
    Row("429 in a day", W, _said(429, "{}", {"Retry-After": "86400"}), 300.0),
    Row("429 at a date", W, _said(429, "{}", {"Date": DATE, "Retry-After": NINE_SECONDS_LATER}), 9.0),
    Row("429 at a date that is now", W, _said(429, "{}", {"Date": DATE, "Retry-After": DATE}), 0.0),
    Row("429 at a date gone by", W, _said(429, "{}", {"Date": NINE_SECONDS_LATER, "Retry-After": DATE}), 0.0),
    Row("429 with garbage", W, _said(429, "{}", {"Retry-After": "soon; maybe"})),
    Row("503 with Retry-After", W, _said(503, "{}", {"Retry-After": "0"}), 0.0),
    Row("503 with Retry-After, a page", W, _said(503, HTML, {**PAGE, "Retry-After": "0"}), 0.0),
    Row("503 without a channel", W, _said(503, _failure("x", "No available channel for model pika (request id: 1)"))),
    Row("503 without a channel, in Chinese", W, _said(503, _failure("x", "当前分组下无可用渠道"))),
]
DOUBTED = [
    *(
        Row(str(status), U, _said(status, _failure("oops")))
        for status in (408, 500, 501, 502, 503, 504, 505, 520, 522, 524, 599)
    ),
    *(Row(f"{status} page", U, _said(status, HTML, PAGE)) for status in (500, 502, 503, 504, 524)),
    Row("500 with a substring", U, _said(500, _failure("x", "no available channel, invalid_request, quota"))),
    Row("504 invalid_request", U, _said(504, _failure("invalid_request"))),
    Row("a status that no row names", U, _said(418, _failure("teapot"))),
]
ANSWERED = [
    *ACCEPTED, *REFUSED_IN_BODY, *NOTHING_SAID, *REJECTED, *WRONG_URL, *STOPPED, *WAITED, *DOUBTED,
]  # fmt: skip
ROWS = [*LOST, *ANSWERED]


def _cells(rows: list[Row], providers: tuple[str, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "row, provider",
        [pytest.param(row, name, id=f"{row.name}-{name}") for row in rows for name in providers],
    )


# -- what runs them ------------------------------------------------------------------------------------------------


def _transport(url: str, **options: Any) -> AiohttpTransport:
    options.setdefault("paid_timeout", PATIENT)
    return AiohttpTransport(url, Credential(KEY), **options)


async def _judge(provider: str, url: str, **options: Any) -> SubmitOutcome:
    """One submission through the exchange."""
    transport = _transport(url, **options)
    await transport.open()
    try:
        exchange = GatewayClient(find_provider(provider), url, transport)
        return await memory.submitted(exchange, GenerationRequest("a cat"))
    finally:
        await transport.close()


def _client(provider: str, url: str, *, limits: Limits | None = None, **options: Any) -> PikaClient:
    transport = options.pop("transport", None) or _transport(url, **options)
    return PikaClient(provider, base_url=url, transport=transport, polling=FixedInterval(0.01), limits=limits)


class Healing:
    """A transport whose trouble ends right after its first call."""

    def __init__(self, inner: AiohttpTransport, heal: Callable[[], Any]) -> None:
        self.inner = inner
        self.outcomes: list[HttpResponse | TransportFailure] = []
        self._heal = heal

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        outcome = await self.inner.send(request)
        if not self.outcomes:
            await self._heal()
        self.outcomes.append(outcome)
        return outcome


# -- the verdict on each row ---------------------------------------------------------------------------------------


@_cells(LOST, DIALECTS)
async def test_what_was_sent_and_lost(row: Row, provider: str) -> None:
    """A submission that left this machine is accepted if its id was held when the answer broke, else in doubt."""
    await _check_judgement(row, provider)


@_cells(ANSWERED, PROVIDERS)
async def test_what_was_answered(row: Row, provider: str) -> None:
    """Each answer gets the verdict of its row, whichever gateway gives it."""
    await _check_judgement(row, provider)


async def _check_judgement(row: Row, provider: str) -> None:
    async with Raw(provider) as server:
        server.acts.append(row.act(provider))
        outcome = await _judge(provider, server.url, paid_timeout=row.timeout)
        task_id = TASK if row.verdict is SubmitVerdict.ACCEPTED else None
        expected = (row.verdict, task_id, row.retry_after, 1)
        assert expected == (outcome.verdict, outcome.task_id, outcome.retry_after, len(server.seen)), outcome


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_redirects_are_never_followed(status: int, provider: str) -> None:
    """A redirect of a submission, at home or away, stops the batch; exactly one request was sent in all."""
    async with Raw(provider) as server, Raw(provider) as elsewhere:
        for target in (f"{server.url}/other/generate", f"{elsewhere.url}/pika/generate", "/pika/generate", ""):
            before = len(server.seen)
            server.acts.append(Act(answer(status, "", {"Location": target})))
            outcome = await _judge(provider, server.url)
            assert (X, before + 1, 0) == (outcome.verdict, len(server.seen), elsewhere.connections)
            assert (outcome.http_status, outcome.reason.split(",")[0]) == (status, "a redirect")


# -- the same rows, end to end -------------------------------------------------------------------------------------

_ENDS = {
    SubmitVerdict.ACCEPTED: (JobStatus.SUCCEEDED, None, 1),
    SubmitVerdict.REJECTED: (JobStatus.REJECTED, SubmissionRejected, 1),
    SubmitVerdict.WRONG_URL: (JobStatus.REJECTED, SubmissionRejected, 1),
    SubmitVerdict.STOP: (JobStatus.PLANNED, AccountStopped, 1),
    SubmitVerdict.UNKNOWN: (JobStatus.UNKNOWN, SubmissionInDoubt, 1),
    SubmitVerdict.WAIT: (JobStatus.SUCCEEDED, None, 2),
}


def _end_to_end() -> pytest.MarkDecorator:
    cells = []
    for number, row in enumerate(ROWS):
        if row.retry_after:
            continue  # its wait is long; the judgement has been checked above
        # Whoever waits takes a quarter of a second: one dialect each, in turn.
        providers = DIALECTS if row.verdict is not SubmitVerdict.WAIT else (PROVIDERS[number % 4],)
        cells += [pytest.param(row, name, id=f"{row.name}-{name}") for name in providers]
    return pytest.mark.parametrize("row, provider", cells)


@_end_to_end()
async def test_what_becomes_of_the_job(row: Row, provider: str) -> None:
    """In doubt, rejected or stopped: one POST. Told to wait: a second one is accepted. Accepted: one, and a video."""
    status, error, posts = _ENDS[row.verdict]
    async with Raw(provider) as server:
        server.acts.append(row.act(provider))
        async with _client(provider, server.url, paid_timeout=row.timeout) as pika:
            if error is None:
                await pika.wait(await pika.submit("a cat"))
            else:
                with pytest.raises(error):
                    await pika.submit("a cat")
            [job] = await pika.jobs()
        assert (status, posts, posts) == (job.status, job.attempts, len(server.submissions))
        assert (job.task_id == TASK) == (status is JobStatus.SUCCEEDED)
        assert error is None or isinstance(job.error, error)


# -- nothing left this machine -------------------------------------------------------------------------------------

Trouble = Callable[[pytest.MonkeyPatch], Any]


@asynccontextmanager
async def _refused(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    yield f"http://127.0.0.1:{free_port()}", {}


@asynccontextmanager
async def _no_such_host(patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    patch.setattr(socket, "getaddrinfo", unknown)
    patch.setattr("pika_async._http.transport.getproxies", dict)
    yield "http://gateway.invalid", {}


@asynccontextmanager
async def _unreachable(patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    patch.setattr("pika_async._http.transport.getproxies", dict)
    yield "http://255.255.255.255", {}


@asynccontextmanager
async def _nobody_accepts(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    async with deaf() as url:
        yield url, {"paid_timeout": aiohttp.ClientTimeout(total=10, sock_connect=0.2)}


@asynccontextmanager
async def _nobody_accepts_in_all(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    async with deaf() as url:
        yield url, {"paid_timeout": TOTAL}


def _handshake(how: Any) -> Trouble:
    @asynccontextmanager
    async def trouble(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        async with Raw() as server:
            server.greetings.append(how)
            yield (
                server.url.replace("http:", "https:"),
                {"paid_timeout": aiohttp.ClientTimeout(total=10, sock_connect=0.2 if how == "stall" else 5)},
            )
            assert server.seen == []

    return trouble


@asynccontextmanager
async def _no_tls(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\nThis is an HTTP server")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", {}


@asynccontextmanager
async def _no_proxy(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    yield "http://gateway.invalid", {"proxy": f"http://127.0.0.1:{free_port()}"}


def _tunnel_refused(status: int) -> Trouble:
    @asynccontextmanager
    async def trouble(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        async with Raw() as proxy:
            proxy.connect_acts.append(Act(answer(status), "fin"))
            yield "https://gateway.invalid", {"proxy": proxy.url}
            assert [seen.method for seen in proxy.seen] == ["CONNECT"]
            assert KEY not in str(proxy.seen)

    return trouble


NOT_SENT: dict[str, tuple[Trouble, str]] = {
    "refused": (_refused, "connect"),
    "no such host": (_no_such_host, "dns"),
    "unreachable": (_unreachable, "connect"),
    "connect timeout": (_nobody_accepts, "timeout"),
    "connect timeout, in all": (_nobody_accepts_in_all, "timeout"),
    "TLS handshake reset": (_handshake("rst"), "connect"),
    "TLS handshake ended": (_handshake("fin"), "connect"),
    "TLS handshake stalls": (_handshake("stall"), "timeout"),
    "no TLS": (_no_tls, "tls"),
    "proxy refused": (_no_proxy, "proxy"),
    "proxy has no way": (_tunnel_refused(502), "proxy"),
    "proxy wants a password": (_tunnel_refused(407), "proxy"),
}


@pytest.mark.parametrize("name", NOT_SENT)
async def test_what_was_not_sent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that never stood sent nothing: the submission may be sent again."""
    trouble, kind = NOT_SENT[name]
    async with trouble(monkeypatch) as (url, options):
        transport = _transport(url, **options)
        await transport.open()
        answer = await transport.send(HttpRequest(method="POST", url=f"{url}/pika/generate", body=b"{}", paid=True))
        await transport.close()
        assert isinstance(answer, TransportFailure)
        assert (SendPhase.UNSENT, kind) == (answer.phase, answer.kind), answer
        outcome = await _judge("gptge", url, **options) if "TLS" not in name and "proxy" not in name else None
        assert outcome is None or outcome.verdict is SubmitVerdict.NOT_SENT


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_port_that_opens_later_is_sent_to_once(provider: str) -> None:
    """A refused submission is sent again and accepted once the gateway listens; the gateway saw one POST."""
    port = free_port()
    server = Raw(provider, port=port)
    transport = Healing(_transport(f"http://127.0.0.1:{port}"), server.__aenter__)
    try:
        await _check_healed(transport, server, provider, server.url)
    finally:
        await server.__aexit__()


async def test_a_name_that_resolves_later_is_sent_to_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission whose host was not found is sent again and accepted once it is."""
    real = socket.getaddrinfo
    known = False

    def lookup(host: Any, *args: Any, **options: Any) -> Any:
        if not known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real("127.0.0.1", *args, **options)

    async def heal() -> None:
        nonlocal known
        known = True

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr("pika_async._http.transport.getproxies", dict)
    async with Raw() as server:
        url = f"http://gateway.invalid:{server.port}"
        await _check_healed(Healing(_transport(url), heal), server, "gptge", url)


async def test_a_reset_handshake_is_sent_again_once() -> None:
    """A submission whose TLS handshake was reset is sent again and accepted once the handshake succeeds."""
    async with Raw() as broken:
        broken.greetings.append("rst")
        server = Raw(tls=True, port=broken.port)

        async def heal() -> None:
            await broken.__aexit__()
            await server.__aenter__()

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting_context())) as session:
            transport = Healing(_transport(server.url, session=session), heal)
            try:
                await _check_healed(transport, server, "gptge", server.url)
            finally:
                await server.__aexit__()


async def test_a_proxy_that_comes_up_later_is_used_once() -> None:
    """A submission whose proxy was down is sent again and accepted through the proxy once it is up."""
    proxy = Raw(port=free_port())
    url = "http://gateway.invalid"
    transport = Healing(_transport(url, proxy=proxy.url), proxy.__aenter__)
    try:
        await _check_healed(transport, proxy, "gptge", url)
        assert proxy.submissions[0].target == f"{url}/pika/generate"
    finally:
        await proxy.__aexit__()


async def _check_healed(transport: Healing, server: Raw, provider: str, url: str) -> None:
    async with _client(provider, url, transport=transport) as pika:
        job = await pika.wait(await pika.submit("a cat"))
    first = transport.outcomes[0]
    assert isinstance(first, TransportFailure)
    assert first.phase is SendPhase.UNSENT
    assert (job.status, job.attempts, len(server.submissions)) == (JobStatus.SUCCEEDED, 2, 1)


async def test_a_gateway_that_stays_away_stops_the_batch() -> None:
    """After six refused connections in a row the batch stops as unreachable, and every job stays planned."""
    async with _client("gptge", f"http://127.0.0.1:{free_port()}", limits=Limits(submitting=1)) as pika:
        report = await pika.run(["one", "two"])
    assert [job.status for job in report.jobs] == [JobStatus.PLANNED] * 2
    assert isinstance(report.stopped, ProviderUnreachable)
    assert (report.stopped.attempts, report.jobs[0].attempts) == (6, 6)


# -- certificates --------------------------------------------------------------------------------------------------


#: The address that is asked, and what its certificate is held against; it names localhost and 127.0.0.1.
_CERTIFICATES: dict[str, tuple[str, Callable[[], ssl.SSLContext | aiohttp.Fingerprint]]] = {
    "nobody vouches": ("127.0.0.1", ssl.create_default_context),
    "another name": ("gateway.invalid", trusting_context),
    "another fingerprint": ("127.0.0.1", lambda: aiohttp.Fingerprint(hashlib.sha256(b"another").digest())),
}


@pytest.mark.parametrize("case", _CERTIFICATES)
async def test_a_certificate_that_is_not_right_stops_the_account(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot prove its name gets nothing; the account stops, the job stays planned."""
    monkeypatch.setattr("pika_async._http.transport.getproxies", dict)
    host, trust = _CERTIFICATES[case]
    async with Raw(tls=True) as server:
        connector = aiohttp.TCPConnector(ssl=trust(), resolver=_Everywhere())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            _client("gptge", f"https://{host}:{server.port}", session=session) as pika,
        ):
            with pytest.raises(AccountStopped, match="certificate"):
                await pika.submit("a cat")
            [job] = await pika.jobs()
        assert (job.status, server.seen) == (JobStatus.PLANNED, [])


class _Everywhere(aiohttp.abc.AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


async def test_our_own_trust_refuses_a_stranger() -> None:
    """Without a session of the user's, a self-signed certificate stops the account."""
    async with Raw(tls=True) as server:
        outcome = await _judge("gptge", server.url)
        assert (outcome.verdict, server.seen) == (SubmitVerdict.STOP, [])


# -- in a batch ----------------------------------------------------------------------------------------------------


async def _batch(provider: str, first: Act, **limits: Any) -> tuple[Any, Raw]:
    """Three requests one after the other; the first meets `first`."""
    async with Raw(provider) as server:
        server.acts.append(first)
        async with _client(provider, server.url, limits=Limits(submitting=1, **limits)) as pika:
            return await pika.run(["one", "two", "three"]), server


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_stopped_account_parks_the_batch(provider: str) -> None:
    """A 401 fails no job: all three stay planned, one POST was sent, and the report says why."""
    report, server = await _batch(provider, Act(answer(401, _failure("no")(provider))))
    assert ([job.status for job in report.jobs], len(server.submissions)) == ([JobStatus.PLANNED] * 3, 1)
    assert isinstance(report.stopped, AccountStopped)
    assert report.stopped.http_status == 401


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_redirect_stops_the_batch_with_a_hint(provider: str) -> None:
    """A redirect rejects its own job; the others stay planned, one POST was sent, and the base URL is named."""
    report, server = await _batch(provider, Act(answer(308, "", {"Location": "https://elsewhere.example/"})))
    expected = [JobStatus.REJECTED, JobStatus.PLANNED, JobStatus.PLANNED]
    assert (expected, 1) == ([job.status for job in report.jobs], len(server.submissions))
    assert isinstance(report.stopped, WrongBaseUrl)
    assert server.url in str(report.stopped)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "first, status", [("rejected", JobStatus.REJECTED), ("lost", JobStatus.UNKNOWN)], ids=["rejected", "lost"]
)
async def test_one_jobs_trouble_stops_no_other(first: str, status: JobStatus, provider: str) -> None:
    """A rejected or doubted first job leaves the second and third to succeed: three POSTs for three jobs."""
    act = Act(b"", "fin") if first == "lost" else Act(answer(422, _failure("bad")(provider)))
    report, server = await _batch(provider, act)
    expected = [status, JobStatus.SUCCEEDED, JobStatus.SUCCEEDED]
    assert (expected, 3) == ([job.status for job in report.jobs], len(server.submissions))
    assert report.stopped is None


async def test_another_sites_pages_stop_the_batch() -> None:
    """Where every submission is answered 200 with a web page, three are in doubt and the others are not sent."""
    async with Raw() as server:
        server.acts.extend([Act(answer(200, "<!DOCTYPE html><html>Welcome</html>"))] * 10)
        async with _client("gptge", server.url, limits=Limits(submitting=1)) as pika:
            report = await pika.run([f"prompt {number}" for number in range(10)])
        assert report.counts == {JobStatus.UNKNOWN: 3, JobStatus.PLANNED: 7}
        assert (type(report.stopped), len(server.submissions)) == (WrongBaseUrl, 3)
        assert "is the base URL right?" in str(report.jobs[0].error)


async def test_a_page_among_answers_stops_nothing() -> None:
    """A web page now and then, between real answers, is one job's doubt."""
    async with Raw() as server:
        for _ in range(4):
            server.acts.append(Act(answer(200, "<html>busy</html>")))
            server.acts.append(Act(answer(422, '{"error": {"message": "no", "code": "bad"}}')))
        async with _client("gptge", server.url, limits=Limits(submitting=1)) as pika:
            report = await pika.run([f"prompt {number}" for number in range(8)])
        assert report.counts == {JobStatus.UNKNOWN: 4, JobStatus.REJECTED: 4}
        assert report.stopped is None


async def test_as_settled_raises_the_stop_after_the_last_job() -> None:
    """`as_settled` gives the planned job first and then says that the account is stopped."""
    async with Raw() as server:
        server.acts.append(Act(answer(403)))
        given = []
        async with _client("gptge", server.url, limits=Limits(submitting=1)) as pika:
            settled = pika.as_settled(["one", "two"])
            given.append((await anext(settled)).status)
            with pytest.raises(AccountStopped):
                await anext(settled)
        assert (given, len(server.submissions)) == ([JobStatus.PLANNED], 1)


async def test_after_a_stop_the_same_batch_is_paid_once() -> None:
    """A batch that a 402 stopped is run again and accepted: each job was accepted by one POST."""
    async with Raw() as server:
        server.acts.append(Act(answer(402)))
        async with _client("gptge", server.url, limits=Limits(submitting=1)) as pika:
            await pika.run(["one", "two"])
            report = await pika.run(["one", "two"])
        assert (dict(report.counts), len(server.submissions)) == ({JobStatus.SUCCEEDED: 2}, 3)


async def test_a_doubt_is_not_sent_again_by_the_same_batch() -> None:
    """A job in doubt stays so when its batch is run again: still one POST."""
    async with Raw() as server:
        server.acts.append(Act(b"", "rst"))
        async with _client("gptge", server.url) as pika:
            for _ in range(2):
                report = await pika.run(["one"])
                assert dict(report.counts) == {JobStatus.UNKNOWN: 1}
            await pika.resume()
        assert len(server.submissions) == 1


async def test_patience_ends() -> None:
    """An account that says "wait" for longer than the patience leaves the job planned, proven not accepted."""
    async with Raw() as server:
        server.acts.extend([Act(answer(429))] * 9)
        async with _client("gptge", server.url, limits=Limits(patience=0.4)) as pika:
            with pytest.raises(ProviderBusy):
                await pika.submit("a cat")
            [job] = await pika.jobs()
        assert job.status == JobStatus.PLANNED
        assert len(server.submissions) == job.attempts < 9


# -- cancelled -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_closing_keeps_an_id_that_is_on_its_way(provider: str) -> None:
    """A client closed while an answer is out waits for it: the id is in the record, one POST was sent."""
    go = asyncio.Event()
    async with Raw(provider) as server:
        server.acts.append(Act(answer(200, receipt(provider)), when=go))
        pika = await _client(provider, server.url).__aenter__()
        submitting = asyncio.create_task(pika.submit("a cat"))
        await server.until_seen(1)
        closing = asyncio.create_task(pika.aclose())
        await asyncio.sleep(0.05)  # no event tells that it waits
        assert not closing.done()
        go.set()
        await closing
        job = await submitting
        [kept] = await pika.jobs()
        assert (job.task_id, kept.status, kept.task_id) == (TASK, JobStatus.QUEUED, TASK)
        assert len(server.submissions) == 1


async def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that does not come within the grace leaves the job in doubt."""
    monkeypatch.setattr(_scheduler, "CLOSE_GRACE", 0.1)
    async with Raw() as server:
        server.acts.append(Act(b"", "stall"))
        pika = await _client("gptge", server.url).__aenter__()
        submitting = asyncio.create_task(pika.submit("a cat"))
        await server.until_seen(1)
        await pika.aclose()
        with pytest.raises(SubmissionInDoubt):
            await submitting
        [kept] = await pika.jobs()
        assert (kept.status, len(server.submissions)) == (JobStatus.UNKNOWN, 1)


async def test_cancelled_while_planned_is_withdrawn() -> None:
    """A submission cancelled before its turn is canceled, and nothing of it was sent."""
    go = asyncio.Event()
    async with Raw() as server:
        server.acts.append(Act(answer(200, receipt("gptge")), when=go))
        async with _client("gptge", server.url, limits=Limits(submitting=1)) as pika:
            first = asyncio.create_task(pika.submit(GenerationRequest("one", key="one")))
            await server.until_seen(1)
            second = asyncio.create_task(pika.submit(GenerationRequest("two", key="two")))
            while len(await pika.jobs()) < 2:
                await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            go.set()
            await pika.wait(await first)
            statuses = {job.key: job.status for job in await pika.jobs()}
        assert statuses == {"one": JobStatus.SUCCEEDED, "two": JobStatus.CANCELED}
        assert len(server.submissions) == 1


@pytest.mark.parametrize("provider", DIALECTS)
async def test_cancelled_while_sent_goes_on(provider: str) -> None:
    """A submission cancelled after it was sent keeps its id, succeeds, and was sent once."""
    go = asyncio.Event()
    async with Raw(provider) as server:
        server.acts.append(Act(answer(200, receipt(provider)), when=go))
        async with _client(provider, server.url) as pika:
            submitting = asyncio.create_task(pika.submit(GenerationRequest("a cat", key="one")))
            await server.until_seen(1)
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            [job] = await pika.jobs()
            assert job.status is JobStatus.SUBMITTING
            go.set()
            job = await pika.wait(job)
        assert (job.status, job.task_id, len(server.submissions)) == (JobStatus.SUCCEEDED, TASK, 1)


# -- a third party's provider -------------------------------------------------------------------------------------


@pytest.mark.parametrize("defect", ["raises", "asks another origin", "is no address"])
async def test_a_providers_defect_is_that_calls_failure(defect: str) -> None:
    """A provider that cannot encode, or leads elsewhere, sends nothing: the job is rejected, the look is tried again."""

    def raising(*_: object) -> Any:
        raise LookupError("the provider's own defect")

    base_url = {"raises": "", "asks another origin": "http://127.0.0.2:1", "is no address": "http://["}[defect]
    gptge = find_provider("gptge")
    broken = attrs.evolve(gptge.dialect, create_body=raising, poll=raising)
    async with Raw() as server:
        transport = _transport(server.url)
        await transport.open()
        provider = attrs.evolve(gptge, dialect=broken) if defect == "raises" else gptge
        exchange = GatewayClient(provider, base_url or server.url, transport)
        judged, looked = await memory.submitted(exchange, GenerationRequest("a cat")), await exchange.poll(TASK)
        await transport.close()
        expected = SubmitVerdict.REJECTED if defect == "raises" else SubmitVerdict.WRONG_URL
        assert (expected, PollVerdict.AGAIN) == (judged.verdict, looked.verdict)
        assert server.connections == 0


# -- proxies -------------------------------------------------------------------------------------------------------


async def test_a_proxy_carries_a_submission_once() -> None:
    """With `proxy` the absolute address goes to the proxy, which sees one POST."""
    async with Raw() as proxy:
        outcome = await _judge("gptge", "http://gateway.invalid", proxy=proxy.url)
        targets = [seen.target for seen in proxy.seen]
        assert (outcome.verdict, targets) == (SubmitVerdict.ACCEPTED, ["http://gateway.invalid/pika/generate"])


async def test_a_tunnel_carries_a_submission_once() -> None:
    """Through a CONNECT tunnel the submission arrives once, and the proxy never sees the key."""
    async with Raw() as proxy, Raw(tls=True) as server:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting_context())) as session:
            outcome = await _judge("gptge", server.url, proxy=proxy.url, session=session)
        assert (outcome.verdict, len(server.submissions)) == (SubmitVerdict.ACCEPTED, 1)
        assert [seen.method for seen in proxy.seen] == ["CONNECT"]
        assert KEY not in str(proxy.seen)


@pytest.mark.parametrize(
    "status, verdict", [(407, SubmitVerdict.STOP), (502, SubmitVerdict.UNKNOWN), (504, SubmitVerdict.UNKNOWN)]
)
async def test_what_a_proxy_answers_is_judged_like_a_gateway(status: int, verdict: SubmitVerdict) -> None:
    """A forwarding proxy's own answer cannot be told from the gateway's: 407 stops, 502 and 504 are in doubt."""
    async with Raw() as proxy:
        proxy.acts.append(Act(answer(status, HTML, PAGE)))
        outcome = await _judge("gptge", "http://gateway.invalid", proxy=proxy.url)
        assert (verdict, 1) == (outcome.verdict, len(proxy.seen))


async def test_the_environments_proxy_is_used_but_not_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTP_PROXY` carries what goes out, and nothing that goes to this machine."""
    async with Raw() as proxy, Raw() as server:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        near = await _judge("gptge", server.url)
        assert (near.verdict, len(server.seen), proxy.connections) == (SubmitVerdict.ACCEPTED, 1, 0)
        far = await _judge("gptge", "http://gateway.invalid")
        assert (far.verdict, len(proxy.seen)) == (SubmitVerdict.ACCEPTED, 1)
        monkeypatch.setenv("no_proxy", "gateway.invalid")
        monkeypatch.setattr(socket, "getaddrinfo", _nothing_found)
        none = await _judge("gptge", "http://gateway.invalid")
        assert (none.verdict, len(proxy.seen)) == (SubmitVerdict.NOT_SENT, 1)


def _nothing_found(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
