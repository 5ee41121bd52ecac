"""Samples of Pika's own API, which another hand has made from the same sources, against the adapter."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pika_async import GenerationRequest, TaskState
from pika_async.models import Snapshot
from pika_async.providers._verdicts import PollVerdict, classify_poll, classify_response
from pika_async.providers._wire import DecodeError
from pika_async.providers.pika import PIKA
from tests import samples

BASE = "https://gateway.example"
STATES = {
    "waiting": {TaskState.QUEUED, TaskState.RUNNING},
    "succeeded": {TaskState.SUCCEEDED, TaskState.SUCCEEDED_WITHOUT_URL},
    "failed": {TaskState.FAILED},
}


def cases(*kinds: str) -> list[Any]:
    return [pytest.param(sample, id=sample["name"]) for sample in samples.load("pika", *kinds)]


@pytest.mark.parametrize("sample", cases("create"))
def test_a_wanted_request_is_sent_as_the_sample_has_it(sample: dict[str, Any]) -> None:
    """The path, the header of the key and the body, types included."""
    request = samples.generation_request_of(sample)
    assert isinstance(request, GenerationRequest)
    PIKA.check(request)
    recorded = sample["request"]
    key = recorded["headers"]["Idempotency-Key"]
    call = PIKA.encode_submission(request, BASE, "https://callback.invalid/", idempotency_key=key)
    assert (call.method, call.url) == (recorded["method"], BASE + recorded["path"])
    assert call.headers == {"Idempotency-Key": key}
    sent, body = json.loads(call.body or b""), recorded["body"]
    if sample.get("exact", True) and "effect" not in sample["wanted"]:
        assert json.dumps(sent, sort_keys=True) == json.dumps(body, sort_keys=True)
    else:  # an effect is sent with the prompt too, which a request always has
        assert {name: sent[name] for name in body} == body


@pytest.mark.parametrize("sample", cases("create", "operation", "error"))
def test_an_answer_to_a_submission_has_its_verdict(sample: dict[str, Any]) -> None:
    """Accepted with its id, also a job that has failed at once; errors by their code and status."""
    means, response = sample["means"], samples.response_of(sample)
    if "verdict" in means:
        receipt = PIKA.decode_receipt(response)
        own = PIKA.own_verdict(response, receipt, repeated=False)
        outcome = classify_response(response, receipt, own_verdict=own)
        assert (outcome.verdict.value, outcome.task_id) == (means["verdict"], means.get("task_id"))
        assert outcome.retry_after == means.get("retry_after")
    if "poll" in means:
        failure = PIKA.read_failure(response)
        verdict = classify_poll(response, None if failure is None else failure.code)
        expected = {"try-again": PollVerdict.AGAIN, "stop": PollVerdict.STOP, "missing": PollVerdict.MISSING}
        assert verdict is expected[means["poll"]]


@pytest.mark.parametrize("sample", cases("feed"))
def test_a_job_is_read_as_the_sample_means_it(sample: dict[str, Any]) -> None:
    """The state, the URL, the code of a failure, and the charge once it is settled."""
    means = sample["means"]
    found = PIKA.decode_snapshot(samples.response_of(sample), means["task_id"])
    assert found.task_id == means["task_id"]
    assert found.state in STATES[means["status"]]
    assert (found.video and found.video.url) == means.get("url")
    assert found.failure_code == means.get("code")
    micro_usd = means.get("micro_usd")
    assert found.cost == (None if micro_usd is None else micro_usd / 1e6)


@pytest.mark.parametrize("sample", cases("result"))
def test_a_result_is_read_as_the_sample_means_it(sample: dict[str, Any]) -> None:
    """The URL where it is ready; the job as it was where it is too early."""
    done = Snapshot(task_id="j", state=TaskState.SUCCEEDED_WITHOUT_URL, word="completed")
    found = PIKA.decode_result(samples.response_of(sample), done)
    assert found is not None
    assert (found.video and found.video.url) == sample["means"].get("url")
    assert (found is done) is ("url" not in sample["means"])


@pytest.mark.parametrize("sample", cases("account"))
def test_money_is_read_as_the_sample_means_it(sample: dict[str, Any]) -> None:
    """A price and a balance are in millionths of a dollar there, and in dollars here."""
    body = samples.response_of(sample).body
    for read in (PIKA.dialect.read_quote, PIKA.dialect.read_balance):
        assert read is not None
        assert read(json.loads(body)) == sample["means"]["micro_usd"] / 1e6


@pytest.mark.parametrize("sample", cases("upload"))
def test_a_place_is_read_as_the_sample_means_it(sample: dict[str, Any]) -> None:
    """The announced place of a file; an answer of the storage itself is not one."""
    assert PIKA.uploads is not None
    response = samples.response_of(sample)
    if "url" not in sample["means"]:
        with pytest.raises(DecodeError):
            PIKA.uploads.read(response)
        return
    place, body = PIKA.uploads.read(response), sample["response"]["body"]
    assert (place.url, place.put_url, place.headers) == (sample["means"]["url"], body["upload_url"], body["headers"])
