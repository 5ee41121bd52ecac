"""Results at another address, handles, cancellations and money, by a gateway client over a transport with a script."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from pika_async import GenerationRequest, InvalidRequest, find_provider
from pika_async._planning.actions import ActiveJob
from pika_async._runtime.gateway import GatewayClient
from pika_async.jobs import Job
from pika_async.models import TaskState
from pika_async.providers import Provider
from pika_async.providers._abilities import CancelOutcome
from pika_async.providers._verdicts import PollVerdict, SubmitVerdict
from pika_async.providers._wire import HttpRequest, HttpResponse, SendPhase, TransportFailure
from tests.fakes.handled_wire import ACME, BASE, HANDLED, OTHER_ORIGIN
from tests.fakes.memory_gateway import submit_once

pytestmark = pytest.mark.anyio
LINKS = {"status": f"{BASE}/t/1", "video": f"{OTHER_ORIGIN}/t/1/video"}
HANDLE = json.dumps(LINKS)
LOST = TransportFailure(phase=SendPhase.SENT, kind="timeout", detail="no answer in time")
DONE = (200, {"now": "done"})
Answer = tuple[int, object] | TransportFailure


class Script:
    """Transport with an answer for each address; other addresses are answered with 500."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = answers
        self.sent: list[HttpRequest] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        self.sent.append(request)
        given = self.answers.get(request.url, (500, {}))
        if isinstance(given, TransportFailure):
            return given
        return HttpResponse(status=given[0], body=json.dumps(given[1]).encode())


def client(answers: Mapping[str, Answer], provider: Provider = ACME) -> tuple[GatewayClient, Script]:
    script = Script(answers)
    return GatewayClient(provider, BASE, script), script


def with_dialect(**changes: Any) -> Provider:
    return attrs.evolve(ACME, dialect=attrs.evolve(HANDLED, **changes))


def fail(*_: object) -> Any:
    raise ZeroDivisionError


async def test_the_result_is_fetched_within_the_same_poll() -> None:
    """A success whose result stands elsewhere takes one more free request, at the address of the handle."""
    gateway, script = client({LINKS["status"]: DONE, LINKS["video"]: (200, {"url": "https://cdn.example/1.mp4"})})
    result = await gateway.poller.poll("1", handle=HANDLE)
    assert result.snapshot is not None
    assert result.snapshot.video is not None
    assert result.snapshot.video.url == "https://cdn.example/1.mp4"
    assert [(sent.url, sent.paid) for sent in script.sent] == [(LINKS["status"], False), (LINKS["video"], False)]


async def test_an_unsettled_task_has_no_second_request() -> None:
    """While a task is queued nothing but its status is asked for."""
    gateway, script = client({f"{BASE}/tickets/1": (200, {"now": "wait"})})
    result = await gateway.poller.poll("1")
    assert result.snapshot is not None
    assert (result.snapshot.state, len(script.sent)) == (TaskState.QUEUED, 1)


@pytest.mark.parametrize(
    ("answer", "verdict", "state"),
    [
        ((409, {}), PollVerdict.READ, TaskState.SUCCEEDED_WITHOUT_URL),
        ((422, {}), PollVerdict.READ, TaskState.FAILED),
        ((401, {"why": "no key"}), PollVerdict.STOP, None),
        ((402, {}), PollVerdict.STOP, None),
        ((503, {}), PollVerdict.AGAIN, None),
        ((200, {}), PollVerdict.AGAIN, None),
        (LOST, PollVerdict.AGAIN, None),
    ],
)
async def test_a_failed_result_is_judged(answer: Answer, verdict: PollVerdict, state: TaskState | None) -> None:
    """Too early is polled again, the model's own refusal fails, a refused key stops; all else is polled again."""
    gateway, _ = client({LINKS["status"]: DONE, LINKS["video"]: answer})
    result = await gateway.poller.poll("1", handle=HANDLE)
    assert (result.verdict, result.snapshot and result.snapshot.state) == (verdict, state)


@pytest.mark.parametrize("part", ["result", "read_result"])
async def test_a_provider_that_fails_on_a_result_is_polled_again(part: str) -> None:
    """Whatever a third party's functions raise, the poll ends without a verdict on the task."""
    answers: dict[str, Answer] = {f"{BASE}/tickets/1": DONE, f"{BASE}/tickets/1/video": (200, {"url": "https://a.b/c"})}
    gateway, _ = client(answers, with_dialect(**{part: fail}))
    result = await gateway.poller.poll("1")
    assert (result.verdict, result.snapshot) == (PollVerdict.AGAIN, None)
    assert "ZeroDivisionError" in result.reason


async def test_a_job_is_polled_by_its_handle() -> None:
    """The handle of an active job is used for its own task, and for no other."""
    job = Job(key="k", request=GenerationRequest("a cat"), provider="acme", base_url=BASE, task_id="1", handle=HANDLE)
    gateway, script = client({})
    active = ActiveJob(job, job.stratum)
    await gateway.poller.poll("1", active)
    await gateway.poller.poll("2", active)
    assert [sent.url for sent in script.sent] == [LINKS["status"], f"{BASE}/tickets/2"]


async def test_an_accepted_submission_has_its_handle() -> None:
    """The handle of a receipt comes with its task id."""
    url = f"{BASE}/make/text?hook=https://callback.invalid/"
    gateway, _ = client({url: (200, {"ticket": "1", "links": LINKS})})
    outcome = await submit_once(gateway, GenerationRequest("a cat"))
    assert (outcome.verdict, outcome.task_id, outcome.handle) == (SubmitVerdict.ACCEPTED, "1", HANDLE)


@pytest.mark.parametrize("addresses", [HANDLED.addresses, fail])
async def test_a_handle_that_leads_elsewhere_is_dropped(addresses: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The task id of a receipt counts although its handle names another host; the handle is dropped, with a warning."""
    url = f"{BASE}/make/text?hook=https://callback.invalid/"
    links = LINKS | {"status": "https://evil.example/t/1"}
    gateway, _ = client({url: (200, {"ticket": "1", "links": links})}, with_dialect(addresses=addresses))
    with caplog.at_level(logging.WARNING, "pika_async.free_requests"):
        outcome = await submit_once(gateway, GenerationRequest("a cat"))
    assert (outcome.verdict, outcome.task_id, outcome.handle) == (SubmitVerdict.ACCEPTED, "1", None)
    assert "the handle of task 1 is not used" in caplog.text


async def test_a_repeated_submission_in_conflict_is_in_doubt() -> None:
    """409 to a repeated idempotency key is a doubt, and a refusal to a new one."""
    gateway, script = client({f"{BASE}/make/text?hook=": (409, {})})
    encoded = await gateway.encode(GenerationRequest("a cat"), "", idempotency_key="k1")
    assert isinstance(encoded, HttpRequest)
    assert (await gateway.submit(encoded)).verdict is SubmitVerdict.REJECTED
    assert (await gateway.submit(encoded, repeated=True)).verdict is SubmitVerdict.UNKNOWN
    assert [sent.headers for sent in script.sent] == [{"Idempotency-Key": "k1"}] * 2


async def test_each_submission_has_a_key_of_its_own() -> None:
    """Without a key from the caller a new one is made, where the provider has such keys."""
    gateway, script = client({})
    for _ in range(2):
        await submit_once(gateway, GenerationRequest("a cat"))
    keys = [sent.headers["Idempotency-Key"] for sent in script.sent]
    assert len(set(keys)) == 2
    assert all(32 <= len(key) <= 64 and key.isalnum() for key in keys)
    gateway, script = client({}, find_provider("gptge"))
    await submit_once(gateway, GenerationRequest("a cat"))
    assert script.sent[0].headers == {}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((202, {}), CancelOutcome.REQUESTED),
        ((409, {}), CancelOutcome.TOO_LATE),
        ((404, {}), CancelOutcome.MISSING),
        ((400, {}), CancelOutcome.REFUSED),
        (LOST, CancelOutcome.UNCLEAR),
    ],
)
async def test_a_cancellation_is_judged(answer: Answer, outcome: CancelOutcome) -> None:
    """A cancellation is sent to the address of the handle, and its answer is read by the dialect."""
    gateway, script = client({LINKS["status"]: answer})
    assert await gateway.free.cancel("1", HANDLE) is outcome
    assert [(sent.method, sent.url) for sent in script.sent] == [("DELETE", LINKS["status"])]


async def test_a_provider_without_cancellation_refuses_it() -> None:
    """Where the wire has no way to cancel, nothing is sent; a dialect that fails leaves the outcome open."""
    gateway, script = client({}, find_provider("gptge"))
    with pytest.raises(InvalidRequest, match="cannot cancel a task"):
        await gateway.free.cancel("1")
    assert script.sent == []
    gateway, _ = client({}, with_dialect(read_cancel=fail))
    assert await gateway.free.cancel("1") is CancelOutcome.UNCLEAR


@pytest.mark.parametrize(
    ("answer", "amount"),
    [
        ((200, {"micro": 250_000}), 0.25),
        ((200, {}), None),
        ((200, "text"), None),
        ((500, {"micro": 1}), None),
        (LOST, None),
    ],
)
async def test_prices_and_balances_are_returned_or_unknown(answer: Answer, amount: float | None) -> None:
    """An amount is in US dollars; where the answer has none, and where none came, it is unknown."""
    gateway, _ = client({f"{BASE}/price/text": answer, f"{BASE}/balance": answer})
    assert await gateway.free.quote(GenerationRequest("a cat")) == amount
    assert await gateway.free.balance() == amount


async def test_a_provider_without_money_sends_nothing() -> None:
    """Where the wire has no price and no balance, none is asked for."""
    gateway, script = client({}, find_provider("gptge"))
    assert await gateway.free.quote(GenerationRequest("a cat")) is None
    assert await gateway.free.balance() is None
    assert script.sent == []


async def test_a_defect_in_money_leaves_it_unknown() -> None:
    """Whatever a third party's reader raises, the amount is unknown."""
    gateway, _ = client({f"{BASE}/balance": (200, {"micro": 1})}, with_dialect(read_balance=fail))
    assert await gateway.free.balance() is None
