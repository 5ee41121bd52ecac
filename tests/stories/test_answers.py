"""Answers of the wider family, from the emulator to the journal: whole runs in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from pika_async import (
    AccountStopped,
    GenerationRequest,
    JobStatus,
    Limits,
    SubmissionInDoubt,
    SubmissionRejected,
)
from pika_async.providers import PROVIDERS
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure
from tests.fakes import virtual_clock
from tests.fakes.family import GATEWAYS
from tests.fakes.memory_gateway import MemoryTransport, client, gateway, prompts

#: Receipts of the wider family, as the emulator answers with them; `{task_id}` is the charged task's.
RECEIPTS: list[dict[str, Any]] = [
    {"id": "{task_id}", "object": "video", "status": "queued"},
    {"code": 200, "data": {"id": "{task_id}"}},
    {"code": 0, "data": {"job": {"id": "{task_id}"}}},
    {"code": "success", "data": "{task_id}"},
    {"data": [{"task_id": "{task_id}"}]},
    {"video_id": "{task_id}"},
    {"request_id": "{task_id}", "status": "IN_QUEUE"},
    {"task": {"id": "{task_id}"}},
    {"result": {"task_id": "{task_id}"}},
]
#: Failures in the body of a 200 -> whether the gateway charged nevertheless, and how the job stands.
FAILURES: list[tuple[dict[str, Any], bool, JobStatus]] = [
    *(({"code": code, "msg": "oops", "data": None}, True, JobStatus.UNKNOWN) for code in (500, "502", 504, 524, -1)),
    ({"error": {"message": "upstream error", "code": "do_request_failed"}}, True, JobStatus.UNKNOWN),
    ({"code": 500, "error": {"message": "额度不足", "code": "insufficient_quota"}}, True, JobStatus.UNKNOWN),
    ({"code": 500, "msg": "oops", "id": "{task_id}", "data": {"task_id": "{task_id}"}}, True, JobStatus.UNKNOWN),
    ({"code": 200, "msg": "success", "data": {"taskNo": "{task_id}"}}, True, JobStatus.UNKNOWN),
    ({"code": 400, "msg": "the prompt is not allowed", "data": None}, False, JobStatus.REJECTED),
    ({"error": {"message": "no", "code": "422"}}, False, JobStatus.REJECTED),
    ({"code": 401, "msg": "no", "data": None}, False, JobStatus.PLANNED),
    ({"code": "quota_not_enough", "message": "user quota is not enough"}, False, JobStatus.PLANNED),
    ({"success": False, "message": "无效的令牌"}, False, JobStatus.PLANNED),
]
ERRORS = {
    JobStatus.UNKNOWN: SubmissionInDoubt,
    JobStatus.REJECTED: SubmissionRejected,
    JobStatus.PLANNED: AccountStopped,
}


def answer(body: dict[str, Any], *, charge: bool) -> dict[str, Any]:
    return {"on": "create", "nth": 1, "do": {"fault": "answer", "status": 200, "body": body, "charge": charge}}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("body", RECEIPTS, ids=".".join)
def test_a_task_is_followed_whatever_its_receipt(body: dict[str, Any], provider: str) -> None:
    """A receipt in another shape leads to its video; the gateway charged once."""

    async def story() -> None:
        at = gateway([answer(body, charge=True)])
        async with client(at, provider) as pika:
            job = await pika.wait(await pika.submit("a cat"))
        assert [charge.task_id for charge in at.ledger] == [job.task_id]
        assert job.status is JobStatus.SUCCEEDED

    virtual_clock.run(story())


@pytest.mark.parametrize("provider", GATEWAYS)
@pytest.mark.parametrize(
    "body, charge, status", FAILURES, ids=[f"{status.value}-{body}"[:70] for body, _, status in FAILURES]
)
def test_a_failure_in_a_body_loses_and_repeats_nothing(
    body: dict[str, Any], charge: bool, status: JobStatus, provider: str
) -> None:
    """What may have been charged is in doubt and not sent again; a job of a stopped account goes on later, once."""

    async def story() -> None:
        at = gateway([answer(body, charge=charge)])
        async with client(at, provider) as pika:
            with pytest.raises(ERRORS[status]) as caught:
                await pika.submit(GenerationRequest("a cat", key="a"))
            job = await pika.job("a")
            assert job is not None
            assert (job.status, job.task_id, len(at.ledger)) == (status, None, int(charge))
            await pika.resume()
        assert len(at.ledger) == (1 if status is JobStatus.PLANNED else int(charge))
        if "{task_id}" in str(body):
            assert at.ledger[0].task_id in str(caught.value)

    virtual_clock.run(story())


class PoliteTransport(MemoryTransport):
    """Transport to a gateway that says "too many requests" in the body of a 200."""

    refusals = 0

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        response = await super().send(request)
        if isinstance(response, HttpResponse) and response.status == 429:
            self.refusals += 1
            return HttpResponse(status=200, body=b'{"code": 429, "message": "too many requests"}')
        return response


def test_a_limit_in_a_body_is_learned() -> None:
    """A full account that answers 200 with the code 429 gives up no job: its limit is learned as from a status."""

    async def story() -> None:
        at = gateway(in_flight=3, durations="constant:60")
        transport = PoliteTransport(at)
        async with client(at, "gptge", transport=transport, limits=Limits(patience=45)) as pika:
            report = await pika.run(prompts(30))
        assert report.counts == {JobStatus.SUCCEEDED: 30}
        assert len(at.ledger) == 30
        assert transport.refusals > 0

    virtual_clock.run(story())
