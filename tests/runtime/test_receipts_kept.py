"""A receipt in hand is kept: whatever fails between the bytes of an answer and the record of its task id."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import attrs
import pytest
from aiohttp import StreamReader

from pika_async import GenerationRequest, JobStatus, find_provider
from pika_async._http import transport as transport_module
from pika_async._http.transport import AiohttpTransport, InterruptedAnswer
from pika_async._journal.memory import MemoryJournal
from pika_async._runtime import gateway as gateway_module
from pika_async._runtime.gateway import GatewayClient
from pika_async.models import Receipt
from pika_async.providers import PROVIDERS, Provider
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict
from pika_async.providers._wire import Credential, HttpRequest, HttpResponse, TransportFailure
from tests.fakes import memory_gateway, virtual_clock
from tests.fakes.family import GATEWAYS
from tests.fakes.raw_server import TASK, Act, RawServer, answer, receipt

KEY = "sk-receipts-0123456789"
#: What a machine in trouble, a codec that is imported on first use, or a defect may raise.
FAILURES: list[Exception] = [
    OSError(24, "Too many open files"), RecursionError("maximum recursion depth exceeded"), MemoryError(),
    LookupError("unknown encoding: utf-8-sig"), ImportError("no codec"), KeyError("task_id"), AssertionError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), ZeroDivisionError(), StopIteration(),
]  # fmt: skip


def failing(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


class OneAnswer:
    """Transport that returns one answer, at once."""

    def __init__(self, answer: HttpResponse) -> None:
        self.answer = answer

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        return self.answer


def submitted(provider: Provider, response: HttpResponse) -> SubmitOutcome:
    """Return the outcome of a submission that was answered with `response`."""
    client = GatewayClient(provider, "http://gateway.example", OneAnswer(response))
    return asyncio.run(memory_gateway.submit_once(client, GenerationRequest("a cat")))


def with_receipt(provider: str, read: Any) -> Provider:
    """Return a provider whose dialect reads receipts with `read`."""
    found = find_provider(provider)
    return attrs.evolve(found, dialect=attrs.evolve(found.dialect, receipt=read))


# --- decoding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", GATEWAYS)
@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_a_receipt_that_fails_to_decode_has_its_task_id(error: Exception, provider: str) -> None:
    """Whatever a decoder raises, the task id is found in the bytes and the submission is accepted."""
    response = HttpResponse(status=200, body=receipt(provider).encode())
    outcome = submitted(with_receipt(provider, failing(error)), response)
    assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.ACCEPTED, TASK)


@pytest.mark.parametrize("provider", GATEWAYS)
@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_an_answer_that_fails_to_decode_is_in_doubt_with_its_beginning(error: Exception, provider: str) -> None:
    """Without a task id in the bytes the submission is in doubt, and their beginning is in the reason."""
    response = HttpResponse(status=200, body=b'{"code":200,"data":{"taskNo":"no-4711"}}')
    outcome = submitted(with_receipt(provider, failing(error)), response)
    assert (outcome.verdict, outcome.unreadable) == (SubmitVerdict.UNKNOWN, False)  # the wire may be a known one
    assert "no-4711" in outcome.reason


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_a_failure_that_fails_to_decode_is_not_accepted(error: Exception) -> None:
    """The id of an error is not followed because a decoder failed, and a status that refuses still does."""
    body = b'{"error":{"id":"e1","task_id":"e1","message":"no"}}'
    for status, verdict in ((200, SubmitVerdict.UNKNOWN), (400, SubmitVerdict.REJECTED), (401, SubmitVerdict.STOP)):
        outcome = submitted(with_receipt("gptge", failing(error)), HttpResponse(status=status, body=body))
        assert (outcome.verdict, outcome.task_id) == (verdict, None)


@pytest.mark.parametrize("value", [None, "t1", {"task_id": "t1"}, 7])
def test_a_decoder_that_returns_something_else_loses_nothing(value: object) -> None:
    """A third party's decoder that returns no receipt is treated like one that raises."""

    class Odd(Provider):
        def decode_receipt(self, response: HttpResponse) -> Receipt:
            return value  # type: ignore[return-value]

    odd = Odd(**{field.name: getattr(PROVIDERS["gptge"], field.name) for field in attrs.fields(Provider)})
    outcome = submitted(odd, HttpResponse(status=200, body=receipt("gptge").encode()))
    assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.ACCEPTED, TASK)


@pytest.mark.parametrize("error", FAILURES, ids=repr)
@pytest.mark.parametrize("function", ["classify_response", "salvage_receipt"])
def test_a_verdict_that_fails_loses_no_task_id(
    function: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails after decoding, a task id that was read is accepted, and other bytes are in doubt."""
    monkeypatch.setattr(gateway_module, function, failing(error))
    outcome = submitted(PROVIDERS["gptge"], HttpResponse(status=200, body=receipt("gptge").encode()))
    assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.ACCEPTED, TASK)
    outcome = submitted(with_receipt("gptge", failing(error)), HttpResponse(status=200, body=b'{"no": "no-4711"}'))
    assert outcome.verdict is SubmitVerdict.UNKNOWN
    assert "no-4711" in outcome.reason
    page = HttpResponse(status=200, body=b'<script>{"id": "app"}</script>')
    assert submitted(PROVIDERS["gptge"], page).verdict is SubmitVerdict.UNKNOWN


@pytest.fixture
def _failing_log() -> Iterator[None]:
    """Let every line of the gateway's log raise, as a filter of the application may."""
    log = logging.getLogger("pika_async.gateway")
    record_filter = failing(OSError(28, "No space left on device"))
    log.addFilter(record_filter)
    yield
    log.removeFilter(record_filter)


@pytest.mark.usefixtures("_failing_log")
def test_a_log_that_fails_loses_no_task_id() -> None:
    """A failing filter of the application's own log does not come between the bytes and the task id."""
    response = HttpResponse(status=200, body=receipt("gptge").encode())
    assert submitted(with_receipt("gptge", failing(MemoryError())), response).task_id == TASK


WITHOUT_DESCRIPTORS = """
import os, resource
from pika_async.providers import PROVIDERS
from pika_async.providers._wire import HttpResponse
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError:
    pass
for name, body in (("gptge", b'\\xef\\xbb\\xbf{"id": "t1"}'), ("cometapi", b'{"code": 200, "data": {"task_id": "t1"}}')):
    os.write(1, str(PROVIDERS[name].decode_receipt(HttpResponse(status=200, body=body)).task_id).encode() + b"\\n")
"""


def test_a_receipt_is_decoded_without_a_free_descriptor() -> None:
    """With every descriptor in use, nothing that decoding needs is still to be imported."""
    child = subprocess.run([sys.executable, "-c", WITHOUT_DESCRIPTORS], capture_output=True, check=False, timeout=60)
    assert (child.stdout.split(), child.returncode) == ([b"t1", b"t1"], 0), child.stderr.decode()


# --- the transport -------------------------------------------------------------------------------------------------------


async def _sent(server: RawServer) -> SubmitOutcome:
    transport = AiohttpTransport(server.url, Credential(KEY))
    await transport.open()
    try:
        client = GatewayClient(find_provider("gptge"), server.url, transport)
        return await memory_gateway.submit_once(client, GenerationRequest("a cat"))
    finally:
        await transport.close()


@pytest.mark.anyio
@pytest.mark.parametrize("error", FAILURES, ids=repr)
async def test_bytes_that_fail_to_be_prepared_are_kept(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails once the bytes are read (the coding, the release of the connection), they are still searched."""
    async with RawServer("gptge") as server:
        monkeypatch.setattr(transport_module, "inflate", failing(error))
        outcome = await _sent(server)
        assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.ACCEPTED, TASK)
        monkeypatch.undo()
        monkeypatch.setattr("aiohttp.ClientResponse.release", failing(error))
        outcome = await _sent(server)
        assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.ACCEPTED, f"{TASK}-2")
        whole = answer(200, '{"id": "in-parts"}')
        server.acts.append(Act(whole[:-3], later=whole[-3:]))
        outcome = await _sent(server)
        assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.ACCEPTED, "in-parts")


@pytest.mark.anyio
@pytest.mark.parametrize("error", FAILURES, ids=repr)
async def test_bytes_that_cannot_be_redacted_show_no_key(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the key cannot be replaced, the task id is read and the rest of the answer is not shown."""
    monkeypatch.setattr(Credential, "redact", failing(error))
    async with RawServer("gptge") as server:
        outcome = await _sent(server)
        assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.ACCEPTED, TASK)
        server.acts.append(Act(answer(200, f'{{"message": "{KEY}"}}', {"X-Request-Id": KEY})))
        outcome = await _sent(server)
        assert outcome.verdict is SubmitVerdict.UNKNOWN
        assert KEY not in repr(outcome)


@pytest.mark.anyio
@pytest.mark.parametrize("paid", [True, False])
async def test_a_send_that_is_cancelled_within_the_body_has_what_came(
    paid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission that is cancelled within the body carries the part that had been read; a poll is only cancelled."""
    held = asyncio.Event()
    read = StreamReader.read
    chunks: list[bytes] = []

    async def noted(reader: StreamReader, size: int = -1) -> bytes:
        if chunks:
            held.set()  # the first chunk has been taken, and the next one is wanted
        chunks.append(await read(reader, size))
        return chunks[-1]

    monkeypatch.setattr(StreamReader, "read", noted)
    async with RawServer("gptge") as server:
        part = receipt("gptge").encode()[:-1] + b","
        server.acts.append(Act(answer(200, b"", {"Content-Length": "999"}) + part, "stall"))
        transport = AiohttpTransport(server.url, Credential(KEY))
        await transport.open()
        request = HttpRequest(method="POST", url=f"{server.url}/pika/generate", body=b"{}", paid=paid)
        sending = asyncio.create_task(transport.send(request))
        await held.wait()
        sending.cancel("enough")
        with pytest.raises(asyncio.CancelledError) as caught:
            await sending
        await transport.close()
    assert isinstance(caught.value, InterruptedAnswer) == paid
    if isinstance(caught.value, InterruptedAnswer):
        response = caught.value.response
        assert (response.status, response.body, response.complete) == (200, part, False)
        assert caught.value.args == ("enough",)


# --- the journal ---------------------------------------------------------------------------------------------------------


class BlindJournal(MemoryJournal):
    """Journal that cannot be asked which job a task belongs to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def key_for_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        raise self.error


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_a_question_to_the_journal_that_fails_loses_no_task_id(error: Exception) -> None:
    """A task id is recorded also where the journal cannot be asked whether another job has it."""

    async def story() -> None:
        at = memory_gateway.gateway()
        pika = memory_gateway.with_journal(memory_gateway.client(at), BlindJournal(error))
        async with pika:
            job = await pika.submit("a cat")
            assert (job.status, job.task_id) == (JobStatus.QUEUED, at.ledger[0].task_id)

    virtual_clock.run(story())


class InterruptedTransport(memory_gateway.MemoryTransport):
    """Transport whose answers stop in the middle: a cancelled send has the part that came."""

    async def _handle(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        response = await super()._handle(request)
        if not request.paid or not isinstance(response, HttpResponse):
            return response
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError as error:
            part = attrs.evolve(response, body=response.body[:-1], complete=False)
            raise InterruptedAnswer(*error.args, response=part) from None
        return response


@pytest.mark.parametrize("provider", ["cometapi", "gptge"])
def test_closing_within_the_body_of_a_receipt_keeps_its_task_id(provider: str) -> None:
    """If the client is closed while the body of a receipt stalls, the task id in the part that came is recorded."""

    async def story() -> None:
        at = memory_gateway.gateway()
        pika = memory_gateway.client(at, provider, transport=InterruptedTransport(at))
        async with pika:
            submitting = asyncio.create_task(pika.submit(GenerationRequest("a cat", key="a")))
            await memory_gateway.until(lambda: bool(at.ledger))
        await asyncio.gather(submitting, return_exceptions=True)
        async with pika:
            job = await pika.job("a")
            assert job is not None
            assert (job.status, job.task_id) == (JobStatus.QUEUED, at.ledger[0].task_id)

    virtual_clock.run(story())
