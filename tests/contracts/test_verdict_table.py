"""Verdicts on submissions, row by row: a real socket behaves as its row says, and the verdict must be the row's."""

from __future__ import annotations

import asyncio
import hashlib
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
from tests.contracts.verdict_rows import (
    ALL_ROWS,
    ANSWERED,
    HTML,
    HTML_HEADERS,
    LONG_TIMEOUT,
    LOST_ANSWERS,
    SHORT_TOTAL_TIMEOUT,
    VerdictRow,
    failure_body,
)
from tests.fakes import memory_gateway
from tests.fakes.raw_server import (
    PROVIDERS,
    TASK,
    Act,
    RawServer,
    answer,
    free_port,
    receipt,
    trusting_context,
    unresponsive_server,
)

pytestmark = pytest.mark.anyio

KEY = "sk-verdicts-0123456789"
#: One provider of each dialect.
DIALECTS = ("cometapi", "gptge")


@pytest.fixture(autouse=True)
def _shortest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scheduler, "random", SimpleNamespace(random=lambda: 0.0))


def _cells(rows: list[VerdictRow], providers: tuple[str, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "row, provider",
        [pytest.param(row, name, id=f"{row.name}-{name}") for row in rows for name in providers],
    )


# -- running a row ------------------------------------------------------------------------------------------------


def _transport(url: str, **options: Any) -> AiohttpTransport:
    options.setdefault("paid_timeout", LONG_TIMEOUT)
    return AiohttpTransport(url, Credential(KEY), **options)


async def _submit(provider: str, url: str, **options: Any) -> SubmitOutcome:
    """Submit one request through a `GatewayClient`, and return its outcome."""
    transport = _transport(url, **options)
    await transport.open()
    try:
        gateway_client = GatewayClient(find_provider(provider), url, transport)
        return await memory_gateway.submit_once(gateway_client, GenerationRequest("a cat"))
    finally:
        await transport.close()


def _client(provider: str, url: str, *, limits: Limits | None = None, **options: Any) -> PikaClient:
    transport = options.pop("transport", None) or _transport(url, **options)
    return PikaClient(provider, base_url=url, transport=transport, polling=FixedInterval(0.01), limits=limits)


class RecoveringTransport:
    """Transport whose fault ends after its first request."""

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


@_cells(LOST_ANSWERS, DIALECTS)
async def test_a_lost_answer_has_the_verdict_of_its_row(row: VerdictRow, provider: str) -> None:
    """A submission that was sent is accepted if the task id arrived before the connection broke, else in doubt."""
    await _check_verdict(row, provider)


@_cells(ANSWERED, PROVIDERS)
async def test_an_answer_has_the_verdict_of_its_row(row: VerdictRow, provider: str) -> None:
    """Each response has the verdict of its row at every gateway."""
    await _check_verdict(row, provider)


async def _check_verdict(row: VerdictRow, provider: str) -> None:
    async with RawServer(provider) as server:
        server.acts.append(row.act(provider))
        outcome = await _submit(provider, server.url, paid_timeout=row.timeout)
        task_id = TASK if row.verdict is SubmitVerdict.ACCEPTED else None
        expected = (row.verdict, task_id, row.retry_after, 1)
        assert expected == (outcome.verdict, outcome.task_id, outcome.retry_after, len(server.received)), outcome


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_redirects_are_never_followed(status: int, provider: str) -> None:
    """A redirect of a submission, to this host or another, stops the batch; exactly one request is sent."""
    async with RawServer(provider) as server, RawServer(provider) as elsewhere:
        for target in (f"{server.url}/other/generate", f"{elsewhere.url}/pika/generate", "/pika/generate", ""):
            before = len(server.received)
            server.acts.append(Act(answer(status, "", {"Location": target})))
            outcome = await _submit(provider, server.url)
            assert (SubmitVerdict.WRONG_URL, before + 1, 0) == (
                outcome.verdict,
                len(server.received),
                elsewhere.connections,
            )
            assert (outcome.http_status, outcome.reason.split(",")[0]) == (status, "a redirect")


# -- the same rows, end to end -------------------------------------------------------------------------------------

_ENDS = {
    SubmitVerdict.ACCEPTED: (JobStatus.SUCCEEDED, None, 1),
    SubmitVerdict.REJECTED: (JobStatus.REJECTED, SubmissionRejected, 1),
    SubmitVerdict.WRONG_URL: (JobStatus.PLANNED, WrongBaseUrl, 1),
    SubmitVerdict.STOP: (JobStatus.PLANNED, AccountStopped, 1),
    SubmitVerdict.UNKNOWN: (JobStatus.UNKNOWN, SubmissionInDoubt, 1),
    SubmitVerdict.WAIT: (JobStatus.SUCCEEDED, None, 2),
}


def _end_to_end() -> pytest.MarkDecorator:
    cells = []
    for number, row in enumerate(ALL_ROWS):
        if row.retry_after:
            continue  # its wait is long; the verdict has been checked above
        # Each wait takes a quarter of a second, so each row runs at one provider, in turn.
        providers = DIALECTS if row.verdict is not SubmitVerdict.WAIT else (PROVIDERS[number % 4],)
        cells += [pytest.param(row, name, id=f"{row.name}-{name}") for name in providers]
    return pytest.mark.parametrize("row, provider", cells)


@_end_to_end()
async def test_a_job_has_the_outcome_of_its_row(row: VerdictRow, provider: str) -> None:
    """In doubt, rejected or stopped: one POST. "Wait": two POSTs. Accepted: one POST and a video."""
    status, error, posts = _ENDS[row.verdict]
    async with RawServer(provider) as server:
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


# -- nothing was sent -------------------------------------------------------------------------------------------------

Trouble = Callable[[pytest.MonkeyPatch], Any]


@asynccontextmanager
async def _refused(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    yield f"http://127.0.0.1:{free_port()}", {}


@asynccontextmanager
async def _no_such_host(patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    patch.setattr(socket, "getaddrinfo", unknown)
    patch.setattr("pika_async._http.proxies.getproxies", dict)
    yield "http://gateway.invalid", {}


@asynccontextmanager
async def _unreachable(patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    patch.setattr("pika_async._http.proxies.getproxies", dict)
    yield "http://255.255.255.255", {}


@asynccontextmanager
async def _connect_timeout(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    async with unresponsive_server() as url:
        yield url, {"paid_timeout": aiohttp.ClientTimeout(total=10, sock_connect=0.2)}


@asynccontextmanager
async def _total_timeout(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    async with unresponsive_server() as url:
        yield url, {"paid_timeout": SHORT_TOTAL_TIMEOUT}


def _handshake(how: Any) -> Trouble:
    @asynccontextmanager
    async def trouble(_patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        async with RawServer() as server:
            server.connection_acts.append(how)
            yield (
                server.url.replace("http:", "https:"),
                {"paid_timeout": aiohttp.ClientTimeout(total=10, sock_connect=0.2 if how == "stall" else 5)},
            )
            assert server.received == []

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
        async with RawServer() as proxy:
            proxy.connect_acts.append(Act(answer(status), "fin"))
            yield "https://gateway.invalid", {"proxy": proxy.url}
            assert [seen.method for seen in proxy.received] == ["CONNECT"]
            assert KEY not in str(proxy.received)

    return trouble


NOT_SENT: dict[str, tuple[Trouble, str]] = {
    "refused": (_refused, "connect"),
    "no such host": (_no_such_host, "dns"),
    "unreachable": (_unreachable, "connect"),
    "connect timeout": (_connect_timeout, "timeout"),
    "connect timeout, in all": (_total_timeout, "timeout"),
    "TLS handshake reset": (_handshake("rst"), "connect"),
    "TLS handshake ended": (_handshake("fin"), "connect"),
    "TLS handshake stalls": (_handshake("stall"), "timeout"),
    "no TLS": (_no_tls, "tls"),
    "proxy refused": (_no_proxy, "proxy"),
    "proxy has no way": (_tunnel_refused(502), "proxy"),
    "proxy wants a password": (_tunnel_refused(407), "proxy"),
}


@pytest.mark.parametrize("name", NOT_SENT)
async def test_a_failed_connection_counts_as_not_sent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission whose connection failed before the request may be sent again."""
    trouble, kind = NOT_SENT[name]
    async with trouble(monkeypatch) as (url, options):
        transport = _transport(url, **options)
        await transport.open()
        answer = await transport.send(HttpRequest(method="POST", url=f"{url}/pika/generate", body=b"{}", paid=True))
        await transport.close()
        assert isinstance(answer, TransportFailure)
        assert (SendPhase.UNSENT, kind) == (answer.phase, answer.kind), answer
        outcome = await _submit("gptge", url, **options) if "TLS" not in name and "proxy" not in name else None
        assert outcome is None or outcome.verdict is SubmitVerdict.NOT_SENT


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_port_that_opens_later_gets_one_submission(provider: str) -> None:
    """A refused submission is sent again and accepted once the gateway listens; the gateway gets one POST."""
    port = free_port()
    server = RawServer(provider, port=port)
    transport = RecoveringTransport(_transport(f"http://127.0.0.1:{port}"), server.__aenter__)
    try:
        await _check_recovered(transport, server, provider, server.url)
    finally:
        await server.__aexit__()


async def test_a_name_that_resolves_later_gets_one_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission whose host was not found is sent again and accepted once the name resolves."""
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
    monkeypatch.setattr("pika_async._http.proxies.getproxies", dict)
    async with RawServer() as server:
        url = f"http://gateway.invalid:{server.port}"
        await _check_recovered(RecoveringTransport(_transport(url), heal), server, "gptge", url)


async def test_a_reset_handshake_is_sent_again_once() -> None:
    """A submission whose TLS handshake was reset is sent again and accepted once the handshake succeeds."""
    async with RawServer() as broken:
        broken.connection_acts.append("rst")
        server = RawServer(tls=True, port=broken.port)

        async def heal() -> None:
            await broken.__aexit__()
            await server.__aenter__()

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting_context())) as session:
            transport = RecoveringTransport(_transport(server.url, session=session), heal)
            try:
                await _check_recovered(transport, server, "gptge", server.url)
            finally:
                await server.__aexit__()


async def test_a_proxy_that_starts_later_gets_one_submission() -> None:
    """A submission whose proxy was down is sent again and accepted through the proxy once that is up."""
    proxy = RawServer(port=free_port())
    url = "http://gateway.invalid"
    transport = RecoveringTransport(_transport(url, proxy=proxy.url), proxy.__aenter__)
    try:
        await _check_recovered(transport, proxy, "gptge", url)
        assert proxy.submissions[0].target == f"{url}/pika/generate"
    finally:
        await proxy.__aexit__()


async def _check_recovered(transport: RecoveringTransport, server: RawServer, provider: str, url: str) -> None:
    async with _client(provider, url, transport=transport) as pika:
        job = await pika.wait(await pika.submit("a cat"))
    first = transport.outcomes[0]
    assert isinstance(first, TransportFailure)
    assert first.phase is SendPhase.UNSENT
    assert (job.status, job.attempts, len(server.submissions)) == (JobStatus.SUCCEEDED, 2, 1)


@pytest.mark.slow
async def test_an_unreachable_gateway_stops_the_batch() -> None:
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
async def test_an_invalid_certificate_stops_the_account(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with an invalid certificate gets no request; the account stops and the job stays planned."""
    monkeypatch.setattr("pika_async._http.proxies.getproxies", dict)
    host, trust = _CERTIFICATES[case]
    async with RawServer(tls=True) as server:
        connector = aiohttp.TCPConnector(ssl=trust(), resolver=_LocalResolver())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            _client("gptge", f"https://{host}:{server.port}", session=session) as pika,
        ):
            with pytest.raises(AccountStopped, match="certificate"):
                await pika.submit("a cat")
            [job] = await pika.jobs()
        assert (job.status, server.received) == (JobStatus.PLANNED, [])


class _LocalResolver(aiohttp.abc.AbstractResolver):
    """Resolver that maps every name to this machine."""

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


async def test_a_self_signed_certificate_is_refused_by_default() -> None:
    """Without a session of the caller, a self-signed certificate stops the account."""
    async with RawServer(tls=True) as server:
        outcome = await _submit("gptge", server.url)
        assert (outcome.verdict, server.received) == (SubmitVerdict.STOP, [])


# -- in a batch ----------------------------------------------------------------------------------------------------


async def _batch(provider: str, first: Act, **limits: Any) -> tuple[Any, RawServer]:
    """Run three requests one after the other; the first gets *first* as its response."""
    async with RawServer(provider) as server:
        server.acts.append(first)
        async with _client(provider, server.url, limits=Limits(submitting=1, **limits)) as pika:
            return await pika.run(["one", "two", "three"]), server


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_stopped_account_parks_the_batch(provider: str) -> None:
    """HTTP 401 fails no job: all three stay planned, one POST is sent, and the report has the reason."""
    report, server = await _batch(provider, Act(answer(401, failure_body("no")(provider))))
    assert ([job.status for job in report.jobs], len(server.submissions)) == ([JobStatus.PLANNED] * 3, 1)
    assert isinstance(report.stopped, AccountStopped)
    assert report.stopped.http_status == 401


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_redirect_stops_the_batch_with_a_hint(provider: str) -> None:
    """A redirect leaves every job planned; one POST is sent, and the error names `base_url`."""
    report, server = await _batch(provider, Act(answer(308, "", {"Location": "https://elsewhere.example/"})))
    expected = [JobStatus.PLANNED] * 3
    assert (expected, 1) == ([job.status for job in report.jobs], len(server.submissions))
    assert isinstance(report.stopped, WrongBaseUrl)
    assert server.url in str(report.stopped)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "first, status", [("rejected", JobStatus.REJECTED), ("lost", JobStatus.UNKNOWN)], ids=["rejected", "lost"]
)
async def test_one_failing_job_stops_no_other(first: str, status: JobStatus, provider: str) -> None:
    """If the first job is rejected or in doubt, the second and third succeed: three POSTs for three jobs."""
    act = Act(b"", "fin") if first == "lost" else Act(answer(422, failure_body("bad")(provider)))
    report, server = await _batch(provider, act)
    expected = [status, JobStatus.SUCCEEDED, JobStatus.SUCCEEDED]
    assert (expected, 3) == ([job.status for job in report.jobs], len(server.submissions))
    assert report.stopped is None


async def test_web_pages_stop_the_batch() -> None:
    """If every submission gets HTTP 200 with a web page, three are in doubt and the others are not sent."""
    async with RawServer() as server:
        server.acts.extend([Act(answer(200, "<!DOCTYPE html><html>Welcome</html>"))] * 10)
        async with _client("gptge", server.url, limits=Limits(submitting=1)) as pika:
            report = await pika.run([f"prompt {number}" for number in range(10)])
        assert report.counts == {JobStatus.UNKNOWN: 3, JobStatus.PLANNED: 7}
        assert (type(report.stopped), len(server.submissions)) == (WrongBaseUrl, 3)
        assert "is the base URL right?" in str(report.jobs[0].error)


async def test_a_single_web_page_stops_nothing() -> None:
    """A web page between usable responses leaves one job in doubt."""
    async with RawServer() as server:
        for word in ("short", "long", "rude", "odd"):
            server.acts.append(Act(answer(200, "<html>busy</html>")))
            server.acts.append(Act(answer(422, f'{{"error": {{"message": "too {word}", "code": "{word}"}}}}')))
        async with _client("gptge", server.url, limits=Limits(submitting=1)) as pika:
            report = await pika.run([f"prompt {number}" for number in range(8)])
        assert report.counts == {JobStatus.UNKNOWN: 4, JobStatus.REJECTED: 4}
        assert report.stopped is None


async def test_as_settled_raises_the_stop_after_the_last_job() -> None:
    """`as_settled` yields the planned job first and then raises AccountStopped."""
    async with RawServer() as server:
        server.acts.append(Act(answer(403)))
        given = []
        async with _client("gptge", server.url, limits=Limits(submitting=1)) as pika:
            settled = pika.as_settled(["one", "two"])
            given.append((await anext(settled)).status)
            with pytest.raises(AccountStopped):
                await anext(settled)
        assert (given, len(server.submissions)) == ([JobStatus.PLANNED], 1)


async def test_after_a_stop_the_same_batch_is_paid_once() -> None:
    """A batch that HTTP 402 stopped is run again and accepted: one POST per job is accepted."""
    async with RawServer() as server:
        server.acts.append(Act(answer(402)))
        async with _client("gptge", server.url, limits=Limits(submitting=1)) as pika:
            await pika.run(["one", "two"])
            report = await pika.run(["one", "two"])
        assert (dict(report.counts), len(server.submissions)) == ({JobStatus.SUCCEEDED: 2}, 3)


async def test_a_job_in_doubt_is_not_sent_again_by_the_same_batch() -> None:
    """A job in doubt stays in doubt when its batch is run again: there is one POST."""
    async with RawServer() as server:
        server.acts.append(Act(b"", "rst"))
        async with _client("gptge", server.url) as pika:
            for _ in range(2):
                report = await pika.run(["one"])
                assert dict(report.counts) == {JobStatus.UNKNOWN: 1}
            await pika.resume()
        assert len(server.submissions) == 1


async def test_a_job_is_given_up_after_the_patience() -> None:
    """An account that answers "wait" for longer than `patience` leaves the job planned: it was not accepted."""
    async with RawServer() as server:
        server.acts.extend([Act(answer(429))] * 9)
        async with _client("gptge", server.url, limits=Limits(patience=0.4)) as pika:
            with pytest.raises(ProviderBusy):
                await pika.submit("a cat")
            [job] = await pika.jobs()
        assert job.status == JobStatus.PLANNED
        assert len(server.submissions) == job.attempts < 9


# -- cancelled -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_closing_waits_for_the_response_of_a_submission(provider: str) -> None:
    """A client that is closed during a submission waits for the response: the task id is saved after one POST."""
    go = asyncio.Event()
    async with RawServer(provider) as server:
        server.acts.append(Act(answer(200, receipt(provider)), when=go))
        pika = await _client(provider, server.url).__aenter__()
        submitting = asyncio.create_task(pika.submit("a cat"))
        await server.until_received(1)
        closing = asyncio.create_task(pika.aclose())
        await asyncio.sleep(0.05)  # no event shows that it waits
        assert not closing.done()
        go.set()
        await closing
        job = await submitting
        [kept] = await pika.jobs()
        assert (job.task_id, kept.status, kept.task_id) == (TASK, JobStatus.QUEUED, TASK)
        assert len(server.submissions) == 1


async def test_closing_waits_for_a_limited_time() -> None:
    """A submission without a response within the grace period is in doubt."""
    async with RawServer() as server:
        server.acts.append(Act(b"", "stall"))
        pika = await _client("gptge", server.url, limits=Limits(grace=0.1)).__aenter__()
        submitting = asyncio.create_task(pika.submit("a cat"))
        await server.until_received(1)
        await pika.aclose()
        with pytest.raises(SubmissionInDoubt):
            await submitting
        [kept] = await pika.jobs()
        assert (kept.status, len(server.submissions)) == (JobStatus.UNKNOWN, 1)


async def test_a_submission_that_is_cancelled_while_planned_is_withdrawn() -> None:
    """A submission that is cancelled before its turn is canceled, and nothing of it is sent."""
    go = asyncio.Event()
    async with RawServer() as server:
        server.acts.append(Act(answer(200, receipt("gptge")), when=go))
        async with _client("gptge", server.url, limits=Limits(submitting=1)) as pika:
            first = asyncio.create_task(pika.submit(GenerationRequest("one", key="one")))
            await server.until_received(1)
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
async def test_a_submission_that_is_cancelled_while_sent_continues(provider: str) -> None:
    """A submission that is cancelled after it was sent keeps its task id, succeeds, and is sent once."""
    go = asyncio.Event()
    async with RawServer(provider) as server:
        server.acts.append(Act(answer(200, receipt(provider)), when=go))
        async with _client(provider, server.url) as pika:
            submitting = asyncio.create_task(pika.submit(GenerationRequest("a cat", key="one")))
            await server.until_received(1)
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            [job] = await pika.jobs()
            assert job.status is JobStatus.SUBMITTING
            go.set()
            job = await pika.wait(job)
        assert (job.status, job.task_id, len(server.submissions)) == (JobStatus.SUCCEEDED, TASK, 1)


# -- third-party providers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("defect", ["raises", "asks another origin", "is no address"])
async def test_a_defect_of_a_provider_fails_one_request(defect: str) -> None:
    """A provider that fails to encode, or encodes another host, sends nothing; the job is rejected, a poll repeated."""

    def raising(*_: object) -> Any:
        raise LookupError("the provider's own defect")

    base_url = {"raises": "", "asks another origin": "http://127.0.0.2:1", "is no address": "http://["}[defect]
    gptge = find_provider("gptge")
    broken = attrs.evolve(gptge.dialect, create_body=raising, poll=raising)
    async with RawServer() as server:
        transport = _transport(server.url)
        await transport.open()
        provider = attrs.evolve(gptge, dialect=broken) if defect == "raises" else gptge
        gateway_client = GatewayClient(provider, base_url or server.url, transport)
        outcome, poll = (
            await memory_gateway.submit_once(gateway_client, GenerationRequest("a cat")),
            await gateway_client.poller.poll(TASK),
        )
        await transport.close()
        expected = SubmitVerdict.REJECTED if defect == "raises" else SubmitVerdict.WRONG_URL
        assert (expected, PollVerdict.AGAIN) == (outcome.verdict, poll.verdict)
        assert server.connections == 0


# -- proxies -------------------------------------------------------------------------------------------------------


async def test_a_proxy_gets_a_submission_once() -> None:
    """With `proxy` the absolute URL is sent to the proxy, which gets one POST."""
    async with RawServer() as proxy:
        outcome = await _submit("gptge", "http://gateway.invalid", proxy=proxy.url)
        targets = [seen.target for seen in proxy.received]
        assert (outcome.verdict, targets) == (SubmitVerdict.ACCEPTED, ["http://gateway.invalid/pika/generate"])


async def test_a_tunnel_carries_a_submission_once() -> None:
    """Through a CONNECT tunnel the submission arrives once, and the proxy never gets the API key."""
    async with RawServer() as proxy, RawServer(tls=True) as server:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting_context())) as session:
            outcome = await _submit("gptge", server.url, proxy=proxy.url, session=session)
        assert (outcome.verdict, len(server.submissions)) == (SubmitVerdict.ACCEPTED, 1)
        assert [seen.method for seen in proxy.received] == ["CONNECT"]
        assert KEY not in str(proxy.received)


@pytest.mark.parametrize(
    "status, verdict", [(407, SubmitVerdict.STOP), (502, SubmitVerdict.UNKNOWN), (504, SubmitVerdict.UNKNOWN)]
)
async def test_a_response_of_a_proxy_has_the_verdict_of_a_gateways(status: int, verdict: SubmitVerdict) -> None:
    """A response of a forwarding proxy has the verdict of a gateway's: 407 stops, 502 and 504 are in doubt."""
    async with RawServer() as proxy:
        proxy.acts.append(Act(answer(status, HTML, HTML_HEADERS)))
        outcome = await _submit("gptge", "http://gateway.invalid", proxy=proxy.url)
        assert (verdict, 1) == (outcome.verdict, len(proxy.received))


async def test_the_environments_proxy_is_used_but_not_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTP_PROXY` is used for other hosts and not for this machine."""
    async with RawServer() as proxy, RawServer() as server:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        near = await _submit("gptge", server.url)
        assert (near.verdict, len(server.received), proxy.connections) == (SubmitVerdict.ACCEPTED, 1, 0)
        far = await _submit("gptge", "http://gateway.invalid")
        assert (far.verdict, len(proxy.received)) == (SubmitVerdict.ACCEPTED, 1)
        monkeypatch.setenv("no_proxy", "gateway.invalid")
        monkeypatch.setattr(socket, "getaddrinfo", _nothing_found)
        none = await _submit("gptge", "http://gateway.invalid")
        assert (none.verdict, len(proxy.received)) == (SubmitVerdict.NOT_SENT, 1)


def _nothing_found(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
