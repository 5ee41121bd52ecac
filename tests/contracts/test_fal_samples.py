"""Samples of fal, which another hand has written from the documentation: encoded, decoded and judged as they say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pika_async.models import Snapshot, TaskState
from pika_async.providers._abilities import CancelOutcome
from pika_async.providers._fal_webhooks import check_signature, read_keys
from pika_async.providers._signatures import SignatureVerdict
from pika_async.providers._verdicts import PollVerdict, SubmitVerdict, classify_poll, classify_response
from pika_async.providers._wire import NO_CALLBACK_URL, DecodeError, HttpResponse
from pika_async.providers.fal import FAL
from tests import samples

BASE = "https://queue.fal.run"
NOT_FOUND = HttpResponse(status=404, body=b'{"status": "NOT_FOUND"}')
WAITING = {TaskState.QUEUED, TaskState.RUNNING}


def cases(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("sample", [pytest.param(it, id=it["name"]) for it in samples.load("fal", *kinds)])


@cases("create")
def test_a_request_is_sent_as_recorded(sample: dict[str, Any]) -> None:
    """Path, query and body, types included."""
    request = samples.generation_request_of(sample)
    FAL.check(request)
    call = FAL.encode_submission(request, BASE, sample["callback_url"] or NO_CALLBACK_URL)
    assert (call.method, call.url.removeprefix(BASE)) == (sample["request"]["method"], sample["request"]["path"])
    assert json.dumps(json.loads(call.body or b""), sort_keys=True) == json.dumps(
        sample["request"]["body"], sort_keys=True
    )


@cases("create", "operation")
def test_a_receipt_has_its_task_and_its_addresses(sample: dict[str, Any]) -> None:
    """Whatever operation it is of, and whatever stands beside them."""
    response, means = samples.response_of(sample), sample["means"]
    outcome = classify_response(response, FAL.decode_receipt(response))
    assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.ACCEPTED, means["task_id"])
    names = ("status_url", "response_url", "cancel_url")
    assert json.loads(outcome.handle or "") == {name: means[name] for name in names}
    assert FAL.handle_refusal(outcome.handle, BASE) is None


@cases("error")
def test_an_error_is_judged(sample: dict[str, Any]) -> None:
    """As an answer to a submission, or to a poll."""
    response, means = samples.response_of(sample), sample["means"]
    if "verdict" in means:
        outcome = classify_response(response, FAL.decode_receipt(response))
        assert outcome.verdict.value == means["verdict"]
        assert outcome.retry_after == means.get("retry_after")
    if "poll" in means:
        failure = FAL.read_failure(response)
        verdict = classify_poll(response, None if failure is None else failure.code)
        expected = {"missing": PollVerdict.MISSING, "stop": PollVerdict.STOP, "try-again": PollVerdict.AGAIN}
        assert verdict is expected[means["poll"]]


@cases("feed")
def test_a_status_is_read(sample: dict[str, Any]) -> None:
    """A failed task keeps its reason, also where its result answers nothing; a succeeded one has a result to ask for."""
    means = sample["means"]
    snapshot = FAL.decode_snapshot(samples.response_of(sample), means["task_id"])
    assert snapshot.task_id == means["task_id"]
    if means["status"] == "waiting":
        assert snapshot.state in WAITING
        return
    assert FAL.encode_result(snapshot, BASE) is not None
    found = FAL.decode_result(NOT_FOUND, snapshot)
    if means["status"] == "succeeded":
        assert found is None
        return
    assert found is not None
    assert (found.state, found.reason, found.failure_code) == (TaskState.FAILED, means["error"], means["code"])


@cases("result")
def test_a_result_is_read(sample: dict[str, Any]) -> None:
    """A 5xx of the host is the failure of the task where its status has an error, as it has where a task failed."""
    response, means = samples.response_of(sample), sample["means"]
    error = {"error": "failed", "error_type": means["code"]} if means["status"] == "failed" else {}
    raw = {"status": "COMPLETED", **error}
    completed = Snapshot(task_id=means["task_id"], state=TaskState.SUCCEEDED_WITHOUT_URL, word="completed", raw=raw)
    if means["status"] == "succeeded" and "url" not in means:
        with pytest.raises(DecodeError, match="must have a video"):
            FAL.decode_result(response, completed)
        return
    found = FAL.decode_result(response, completed)
    assert found is not None
    if means["status"] == "waiting":
        assert found == completed
    elif means["status"] == "failed":
        assert (found.state, found.failure_code) == (TaskState.FAILED, means["code"])
    else:
        assert found.video is not None
        assert (found.state, found.video.url) == (TaskState.SUCCEEDED, means["url"])


@cases("cancel")
def test_a_cancellation_is_read(sample: dict[str, Any]) -> None:
    """It is asked for at the recorded address."""
    assert FAL.dialect.cancel is not None
    assert FAL.dialect.read_cancel is not None
    task_id = sample["request"]["path"].split("/")[-2]
    call = FAL.dialect.cancel(BASE, task_id, None)
    assert (call.method, call.url.removeprefix(BASE)) == (sample["request"]["method"], sample["request"]["path"])
    outcome = FAL.dialect.read_cancel(samples.response_of(sample))
    assert (outcome is CancelOutcome.REQUESTED) == sample["means"]["canceled"]


@cases("webhook")
def test_a_webhook_is_checked(sample: dict[str, Any]) -> None:
    """The text as it stands is signed; a genuine one names its task."""
    headers = {name.lower(): value for name, value in sample["request"]["headers"].items()}
    body, keys = sample["request"]["text"].encode(), read_keys(sample["keys"])
    now = float(headers["x-fal-webhook-timestamp"])
    genuine = check_signature(headers, body, now + 299, keys) is SignatureVerdict.VALID
    assert genuine == sample["means"]["genuine"]
    assert FAL.decode_callback(body) == sample["means"]["task_id"]
