"""Recorded exchanges: encoders write the recorded requests, decoders read the recorded answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pika_async import TaskState
from pika_async.providers import PROVIDERS, Provider
from pika_async.providers._failure import read_failure
from pika_async.providers._verdicts import PollVerdict, SubmitVerdict, classify_poll, classify_response
from pika_async.providers._wire import DecodeError, parse_json
from tests import samples

CALLBACK = "http://baidu.com"
WAITING = {TaskState.QUEUED, TaskState.RUNNING}


def cases(*kinds: str) -> list[Any]:
    return [
        pytest.param(PROVIDERS[name], sample, id=f"{name}-{sample['name']}")
        for name in samples.PROVIDERS
        for sample in samples.load(name, *kinds)
    ]


def leaves(value: Any, path: str = "") -> set[str]:
    """Return the dotted paths of a body, those of objects included."""
    if not isinstance(value, dict):
        return {path}
    found = {path} if path else set()
    for name, inner in value.items():
        found |= leaves(inner, f"{path}.{name}" if path else name)
    return found


def without_empties(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without the optional texts that documented examples send empty and the encoder leaves out."""
    return {name: value for name, value in body.items() if not (name in {"pikaffect", "image"} and value == "")}


@pytest.mark.parametrize(("provider", "sample"), cases("create"))
def test_encoded_request_equals_the_recorded_one(provider: Provider, sample: dict[str, Any]) -> None:
    """The encoded body equals the recorded one, types included; a shorter recorded one is a part of it."""
    request = samples.generation_request_of(sample)
    provider.check(request)
    call = provider.encode_submission(request, "https://gateway.example", sample.get("callback_url", CALLBACK))
    recorded = sample["request"]
    assert (call.method, call.url) == (recorded["method"], "https://gateway.example" + recorded["path"])
    assert call.body is not None
    sent, expected = json.loads(call.body), without_empties(recorded["body"])
    if sample["name"] == "create-minimal":
        assert leaves(sent) >= leaves(expected)
        assert sent["promptText"] == expected["promptText"]
    else:
        assert json.dumps(sent, sort_keys=True) == json.dumps(expected, sort_keys=True)


@pytest.mark.parametrize(("provider", "sample"), cases("create"))
def test_recorded_receipt_has_its_task_id(provider: Provider, sample: dict[str, Any]) -> None:
    """The answer to every recorded submission is accepted with the recorded id."""
    response = samples.response_of(sample)
    outcome = classify_response(response, provider.decode_receipt(response))
    assert (outcome.verdict, outcome.task_id) == (SubmitVerdict.ACCEPTED, sample["means"]["task_id"])


@pytest.mark.parametrize(("provider", "sample"), cases("feed", "callback"))
def test_recorded_snapshot_is_decoded(provider: Provider, sample: dict[str, Any]) -> None:
    """The status, the URL and every detail of a recorded poll are read; an unlisted status word means running."""
    means = sample["means"]
    response = samples.response_of(sample) if "response" in sample else None
    if response is None:  # a callback: the feed's bare data object
        snapshot = provider.dialect.snapshot(sample["request"]["body"], means["task_id"])
    else:
        snapshot = provider.decode_snapshot(response, means["task_id"])
    assert snapshot.task_id == means["task_id"]
    done = TaskState.SUCCEEDED if means.get("url") else TaskState.SUCCEEDED_WITHOUT_URL
    expected = {"succeeded": {done}, "failed": {TaskState.FAILED}, "waiting": WAITING}
    assert snapshot.state in expected[means["status"]]
    video = snapshot.video
    for name in ("url", "poster", "thumbnail", "share_url", "last_frame", "seed", "duration"):
        if means.get(name) is not None:
            assert getattr(video, name) == means[name]
    if means.get("progress") is not None:
        assert snapshot.progress == means["progress"]
    if means.get("error") is not None:
        assert snapshot.reason == means["error"]
    if "points" in means and not means.get("refunded"):
        assert snapshot.points == means["points"]
    if means.get("refunded"):
        assert snapshot.points == 0
    for name in ("created_at", "updated_at"):
        if means.get(name) is not None:
            assert getattr(snapshot, name) == means[name]
    if "seconds" in means:
        assert snapshot.created_at is not None
        assert snapshot.updated_at is not None
        assert snapshot.updated_at - snapshot.created_at == means["seconds"]


@pytest.mark.parametrize(("provider", "sample"), cases("error"))
def test_recorded_error_gets_its_verdict(provider: Provider, sample: dict[str, Any]) -> None:
    """A recorded error has the recorded verdict, as an answer to a submission and as an answer to a poll."""
    response, means = samples.response_of(sample), sample["means"]
    if "verdict" in means:
        outcome = classify_response(response, provider.decode_receipt(response))
        words = {SubmitVerdict.WRONG_URL: "rejected"}
        assert words.get(outcome.verdict, outcome.verdict.value) == means["verdict"]
        if "retry_after" in means:
            assert outcome.retry_after == means["retry_after"]
    if "poll" in means:
        try:
            code = read_failure(parse_json(response.body)).code
        except DecodeError:
            code = None
        verdict = classify_poll(response, code)
        if verdict is PollVerdict.READ:
            try:
                snapshot = provider.decode_snapshot(response, "any")
                verdict = PollVerdict.MISSING if snapshot.state is TaskState.MISSING else verdict
            except DecodeError:
                verdict = PollVerdict.AGAIN
        assert {"again": "try-again"}.get(verdict.value, verdict.value) == means["poll"]


@pytest.mark.parametrize("name", samples.PROVIDERS)
def test_every_documented_request_field_is_sent_or_refused_with_a_reason(name: str) -> None:
    """Every documented request field is sent by some sample, or the capability table has the reason why not."""
    sent: set[str] = set()
    for sample in samples.load(name, "create"):
        call = PROVIDERS[name].encode_submission(
            samples.generation_request_of(sample), "https://gateway.example", CALLBACK
        )
        assert call.body is not None
        sent |= leaves(json.loads(call.body))
    unsupported = {field for field, can in PROVIDERS[name].capabilities.items() if not can.supported and can.note}
    documented = set(samples.fields(name)["request"])
    assert documented - sent - unsupported == set()


@pytest.mark.parametrize("name", samples.PROVIDERS)
def test_no_undocumented_request_field_is_sent(name: str) -> None:
    """Every field that is sent is documented by the gateway, or by its twin for operations that only the twin documents."""
    twin = {"image", "video"} if name == "cometapi" else {"options.parameters.seed", "image", "options.camera"}
    axes = {f"options.camera.{axis}" for axis in ("pan", "tilt", "rotate", "zoom")}
    documented = set(samples.fields(name)["request"]) | twin | axes
    for sample in samples.load(name, "create"):
        call = PROVIDERS[name].encode_submission(
            samples.generation_request_of(sample), "https://gateway.example", CALLBACK
        )
        assert call.body is not None
        assert leaves(json.loads(call.body)) <= documented
