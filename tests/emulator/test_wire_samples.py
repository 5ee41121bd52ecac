"""Samples of Pika's own API and of fal: well formed, accepted by the emulator, and of the same form as its answers."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pika_async.emulator import Answer, Gateway

FOLDER = Path(__file__).parents[1] / "samples"
KINDS = {"create", "operation", "feed", "error", "result", "account", "upload", "cancel", "webhook"}
CERTAINTIES = {"printed", "agreed", "documented", "assumed"}
#: Codes of a failed job, as the reference of another vendor lists them.
CODES = {
    "invalid_input", "content_moderation", "provider_error", "provider_timeout", "provider_unavailable", "rate_limited",
    "insufficient_balance", "membership_required", "cycle_limit_exceeded", "admission_suspended", "usage_limit_exceeded",
    "timed_out", "internal",
}  # fmt: skip


def load(provider: str, *kinds: str) -> list[dict[str, Any]]:
    files = [file for file in sorted((FOLDER / provider).glob("*.json")) if file.name != "fields.json"]
    samples = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    assert [sample["name"] for sample in samples] == [file.stem for file in files]
    return [sample for sample in samples if not kinds or sample["kind"] in kinds]


def cases(*kinds: str) -> list[Any]:
    return [
        pytest.param(provider, sample, id=f"{provider}-{sample['name']}")
        for provider in ("pika", "fal")
        for sample in load(provider, *kinds)
    ]


def send(gateway: Gateway, provider: str, request: dict[str, Any], now: float = 0.0) -> Answer:
    """Send the request of a sample to the emulator, with its key."""
    credential = {"X-API-Key": "emulator-key"} if provider == "pika" else {"Authorization": "Key emulator-key"}
    body = json.dumps(request["body"]).encode() if "body" in request else b""
    path = f"/{provider}{request['path']}"
    return gateway.handle(request["method"], path, {**request["headers"], **credential}, body, now)


def settled(provider: str, **fault: Any) -> tuple[Gateway, str]:
    """Return a gateway with a task that settles at 100 s, and the id of the task."""
    rules = [{"on": "create", "do": {"fault": "fails", **fault}}] if fault else []
    gateway = Gateway(durations="constant:100", scenario=rules)
    send(gateway, provider, load(provider, "create")[0]["request"])
    return gateway, gateway.ledger[0].task_id


def types_of(value: Any, path: str = "") -> set[tuple[str, str]]:
    """Return the dotted path and the type of every value in a body."""
    if isinstance(value, dict):
        return {found for name, inner in value.items() for found in types_of(inner, f"{path}.{name}")}
    if isinstance(value, list):
        return {found for inner in value for found in types_of(inner, f"{path}[]")}
    kind = "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
    return {(path, kind)}


def sample_named(provider: str, name: str) -> Any:
    return next(sample for sample in load(provider) if sample["name"] == name)["response"]["body"]


@pytest.mark.parametrize(("provider", "sample"), cases())
def test_a_sample_says_what_it_is_and_how_sure(provider: str, sample: dict[str, Any]) -> None:
    """It has a kind, a source, a certainty and a request; each but a webhook has an answer; none has a credential."""
    assert sample["kind"] in KINDS
    assert sample["certainty"] in CERTAINTIES
    assert sample["source"]
    assert ("wanted" in sample) == (sample["kind"] == "create")
    assert ("response" in sample) == (sample["kind"] != "webhook")
    assert sample["request"]["method"] in {"GET", "POST", "PUT"}
    assert {"authorization", "x-api-key"} & {name.lower() for name in sample["request"]["headers"]} == set()


@pytest.mark.parametrize(("provider", "sample"), cases("create", "operation"))
def test_every_submission_of_the_samples_is_accepted(provider: str, sample: dict[str, Any]) -> None:
    """The emulator takes it, charges it once, and answers with the fields of the sample's own answer at least."""
    gateway = Gateway()
    answer = send(gateway, provider, sample["request"])
    assert answer.status == 200, answer.body
    assert [charge.body for charge in gateway.ledger] == [sample["request"]["body"]]
    receipt = sample_named(provider, "create-documented")
    assert set(answer.json()) - {"billing"} == set(receipt)
    assert {found for found in types_of(answer.json()) if ".billing" not in found[0]} == types_of(receipt)


def test_each_code_of_a_failed_job_has_a_sample() -> None:
    """The emulator reports such a job in the form of its sample."""
    samples = {sample["means"]["code"]: sample for sample in load("pika", "feed") if "code" in sample["means"]}
    assert set(samples) == CODES | {"weather"}
    for code in CODES:
        gateway, job_id = settled("pika", code=code, reason=samples[code]["response"]["body"]["error"]["message"])
        answer = send(gateway, "pika", {"method": "GET", "path": f"/v1/media/jobs/{job_id}", "headers": {}}, 100.0)
        assert answer.json() == {**samples[code]["response"]["body"], "id": job_id}


@pytest.mark.parametrize(
    ("name", "now"), [("feed-queued", 0.0), ("feed-billing-pending", 50.0), ("feed-documented", 100.0)]
)
def test_polls_of_pika_have_the_form_of_the_samples(name: str, now: float) -> None:
    """The same fields with values of the same types, at each state."""
    gateway, job_id = settled("pika")
    answer = send(gateway, "pika", {"method": "GET", "path": f"/v1/media/jobs/{job_id}", "headers": {}}, now)
    expected = types_of(sample_named("pika", name))
    found = types_of(answer.json())
    assert (found if name != "feed-queued" else {item for item in found if ".billing" not in item[0]}) == expected


@pytest.mark.parametrize(
    ("name", "now", "path", "fault"),
    [
        ("feed-queued", 0.0, "/status", {}),
        ("feed-running", 50.0, "/status", {}),
        ("feed-documented", 100.0, "/status", {}),
        ("result-early", 50.0, "", {}),
        ("result-failed-policy", 100.0, "", {"code": "content_policy_violation"}),
        ("result-failed-timeout", 100.0, "", {"code": "request_timeout"}),
    ],
)
def test_answers_of_fal_have_the_form_of_the_samples(name: str, now: float, path: str, fault: dict[str, str]) -> None:
    """The same status and the same fields with values of the same types; an error may have its type beside it."""
    gateway, task_id = settled("fal", **fault)
    request = {"method": "GET", "path": f"/fal-ai/pika/requests/{task_id}{path}", "headers": {}}
    answer = send(gateway, "fal", request, now)
    sample = next(sample for sample in load("fal") if sample["name"] == name)["response"]
    assert answer.status == sample["status"]
    assert types_of(answer.json()) - types_of(sample["body"]) <= {(".error_type", "str")}
    assert types_of(sample["body"]) <= types_of(answer.json())
    assert {header.lower() for header in sample["headers"]} <= {header.lower() for header in answer.headers}


@pytest.mark.parametrize(("provider", "sample"), cases("webhook"))
def test_a_webhook_of_the_samples_is_signed_as_it_says(provider: str, sample: dict[str, Any]) -> None:
    """A genuine one is signed by the key of the sample over its text as it stands; a forged one is not."""
    headers, raw = sample["request"]["headers"], sample["request"]["text"].encode()
    parts = [headers[f"X-Fal-Webhook-{name}"] for name in ("Request-Id", "User-Id", "Timestamp")]
    message = "\n".join([*parts, hashlib.sha256(raw).hexdigest()]).encode()
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(sample["keys"]["keys"][0]["x"] + "="))
    try:
        key.verify(bytes.fromhex(headers["X-Fal-Webhook-Signature"]), message)
        genuine = True
    except InvalidSignature:
        genuine = False
    assert genuine == sample["means"]["genuine"]
    assert json.loads(raw)["request_id"] == headers["X-Fal-Webhook-Request-Id"]
