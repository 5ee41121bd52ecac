"""fal through a gateway client: a poll of two steps, handles, cancellation, and the task of a webhook."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from pika_async import GenerationRequest
from pika_async._runtime.gateway import GatewayClient
from pika_async.models import TaskState
from pika_async.providers._abilities import CancelOutcome
from pika_async.providers._verdicts import PollVerdict, SubmitVerdict
from pika_async.providers._wire import NO_CALLBACK_URL, HttpRequest, HttpResponse
from pika_async.providers.fal import FAL

pytestmark = pytest.mark.anyio
BASE = "https://queue.fal.run"
APP = f"{BASE}/fal-ai/pika"
STATUS, RESULT, CANCEL = f"{APP}/requests/r/status", f"{APP}/requests/r", f"{APP}/requests/r/cancel"
#: Addresses that cannot be built.
LINKS = {"status_url": f"{BASE}/s/1", "response_url": f"{BASE}/r/1", "cancel_url": "https://queue.falrun.com/c/1"}
VIDEO = {"video": {"url": "https://v3.fal.media/cat.mp4"}}
DONE = (200, {"status": "COMPLETED"})


class Queue:
    """Transport with an answer for each address; others are answered with 404."""

    def __init__(self, answers: Mapping[str, tuple[int, object]]) -> None:
        self.answers = answers
        self.sent: list[HttpRequest] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.sent.append(request)
        status, body = self.answers.get(request.url, (404, {"status": "NOT_FOUND"}))
        return HttpResponse(status=status, body=json.dumps(body).encode())


def client(answers: Mapping[str, tuple[int, object]]) -> tuple[GatewayClient, Queue]:
    queue = Queue(answers)
    return GatewayClient(FAL, BASE, queue), queue


async def test_a_poll_goes_to_the_addresses_of_the_receipt() -> None:
    """Status, result and cancellation; none of them is built."""
    answers = {
        f"{APP}/v2.2/text-to-video": (200, {"request_id": "r", "queue_position": 0, **LINKS}),
        LINKS["status_url"]: DONE, LINKS["response_url"]: (200, VIDEO), LINKS["cancel_url"]: (400, {}),
    }  # fmt: skip
    gateway, queue = client(answers)
    encoded = await gateway.encode(GenerationRequest("a cat"), NO_CALLBACK_URL)
    assert isinstance(encoded, HttpRequest)
    outcome = await gateway.submit(encoded)
    assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.ACCEPTED, "r")
    result = await gateway.poller.poll("r", handle=outcome.handle)
    assert result.snapshot is not None
    assert result.snapshot.state is TaskState.SUCCEEDED
    assert await gateway.free.cancel("r", outcome.handle) is CancelOutcome.TOO_LATE
    assert [request.url for request in queue.sent[1:]] == [*LINKS.values()]


async def test_a_foreign_address_costs_the_handle_and_not_the_receipt(caplog: pytest.LogCaptureFixture) -> None:
    """The task is polled at the address below the app, and the key goes nowhere else."""
    links = LINKS | {"response_url": "https://evil.example/r"}
    gateway, queue = client({
        f"{APP}/v2.2/text-to-video": (200, {"request_id": "r", **links}), STATUS: DONE, RESULT: (200, VIDEO),
    })  # fmt: skip
    encoded = await gateway.encode(GenerationRequest("a cat"), NO_CALLBACK_URL)
    assert isinstance(encoded, HttpRequest)
    outcome = await gateway.submit(encoded)
    assert (outcome.verdict, outcome.handle) == (SubmitVerdict.ACCEPTED, None)
    result = await gateway.poller.poll("r")
    assert result.snapshot is not None
    assert result.snapshot.state is TaskState.SUCCEEDED
    assert [request.url for request in queue.sent[1:]] == [STATUS, RESULT]
    assert "is not at an origin of the gateway" in caplog.text


@pytest.mark.parametrize(
    ("answers", "verdict", "state"),
    [
        ({STATUS: (202, {"status": "IN_QUEUE", "queue_position": 7})}, PollVerdict.READ, TaskState.QUEUED),
        ({STATUS: DONE, RESULT: (400, {"detail": "in progress"})}, PollVerdict.READ, TaskState.SUCCEEDED_WITHOUT_URL),
        ({STATUS: DONE, RESULT: (502, {})}, PollVerdict.AGAIN, None),
        ({STATUS: DONE, RESULT: (200, {})}, PollVerdict.AGAIN, None),
        ({STATUS: DONE, RESULT: (403, {"detail": "locked"})}, PollVerdict.STOP, None),
        ({STATUS: DONE, RESULT: (422, {"detail": [{"type": "x"}]})}, PollVerdict.READ, TaskState.FAILED),
        ({STATUS: (401, {"detail": "no"})}, PollVerdict.STOP, None),
        ({STATUS: (500, {"detail": "oh"})}, PollVerdict.AGAIN, None),
        ({}, PollVerdict.MISSING, None),
    ],
)
async def test_a_poll_of_two_steps_has_one_verdict(
    answers: dict[str, tuple[int, object]], verdict: PollVerdict, state: TaskState | None
) -> None:
    """That of the step that did not go on."""
    gateway, _ = client(answers)
    result = await gateway.poller.poll("r")
    assert (result.verdict, result.snapshot and result.snapshot.state) == (verdict, state)


async def test_a_signed_webhook_names_the_task_of_its_poll() -> None:
    """Neither a status nor a result need name the request; one that names another is not about it."""
    gateway, _ = client({STATUS: DONE, RESULT: (200, VIDEO)})
    assert gateway.callback_task_id(b'{"request_id": "r", "status": "OK", "payload": {}}') == "r"
    found = (await gateway.poller.poll("r")).snapshot
    assert found is not None
    assert gateway.poller.is_about(found, "r")
    assert not gateway.poller.is_about(found, "other")


async def test_a_status_of_another_request_is_discarded() -> None:
    """It is counted, and its result is not asked for."""
    gateway, queue = client({STATUS: (200, {"status": "COMPLETED", "request_id": "other"})})
    assert (await gateway.poller.poll("r")).verdict is PollVerdict.MISMATCH
    assert [request.url for request in queue.sent] == [STATUS]
