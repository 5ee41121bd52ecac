"""fal: what each request is sent as, and what its statuses, results, errors and cancellations mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pika_async import EFFECTS, GenerationRequest, InvalidRequest
from pika_async.models import Receipt, Snapshot, TaskState
from pika_async.providers._abilities import CancelOutcome
from pika_async.providers._kinds import kind_of_failure
from pika_async.providers._verdicts import SubmitVerdict, classify_response
from pika_async.providers._wire import NO_CALLBACK_URL, DecodeError, HttpResponse
from pika_async.providers.fal import FAL

BASE = "https://queue.fal.run"
APP = f"{BASE}/fal-ai/pika"
PNG, OTHER = "https://x.example/a.png", "https://x.example/b.png"
LINKS = {
    "status_url": f"{APP}/requests/r-1/status?v=2",
    "response_url": f"{APP}/requests/r-1/response",
    "cancel_url": "https://queue.falrun.com/fal-ai/pika/requests/r-1/cancel",
}
RECEIPT = {"request_id": "r-1", "queue_position": 0, **LINKS}
COMPLETED = Snapshot(
    task_id="r-1", state=TaskState.SUCCEEDED_WITHOUT_URL, word="completed", raw={"status": "COMPLETED"}
)
VIDEO = {"video": {"url": "https://v3.fal.media/files/cat.mp4", "content_type": "video/mp4"}}


def answer(status: int, body: object, **headers: str) -> HttpResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status=status, headers=named, body=json.dumps(body).encode())


def outcome(response: HttpResponse) -> Any:
    return classify_response(response, FAL.decode_receipt(response))


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path", "body"),
    [
        ({}, "v2.2/text-to-video", {}),
        (
            {
                "duration": 10,
                "resolution": "720P",
                "aspect_ratio": 1.25,
                "seed": 7,
                "negative_prompt": "dogs",
                "model": 2.2,
            },
            "v2.2/text-to-video",
            {"duration": 10, "resolution": "720p", "aspect_ratio": "5:4", "seed": 7, "negative_prompt": "dogs"},
        ),
        ({"image": PNG, "duration": 5.0}, "v2.2/image-to-video", {"image_url": PNG, "duration": 5}),
        (
            {"ingredients": [PNG, OTHER], "ingredients_mode": "creative", "aspect_ratio": "2:3"},
            "v2.2/pikascenes",
            {"image_urls": [PNG, OTHER], "ingredients_mode": "creative", "aspect_ratio": "2:3"},
        ),
        (
            {"image": PNG, "effect": "melt", "seed": 0, "model": "1.5"},
            "v1.5/pikaffects",
            {"image_url": PNG, "pikaffect": "Melt", "seed": 0},
        ),
        ({"video": OTHER, "seed": 3}, "v2/pikaswaps", {"video_url": OTHER, "seed": 3}),
        ({"resolution": "8K", "strict": False}, "v2.2/text-to-video", {"resolution": "8K"}),
    ],
)
def test_each_operation_has_its_path_and_its_fields(fields: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    """A field that is not given is not sent: the page has the default."""
    request = GenerationRequest("a cat", **fields)
    FAL.check(request)
    call = FAL.encode_submission(request, BASE, NO_CALLBACK_URL)
    assert (call.method, call.url, call.paid) == ("POST", f"{APP}/{path}", True)
    assert json.loads(call.body or b"") == {"prompt": "a cat", **body}


def test_a_callback_is_asked_for_in_the_query() -> None:
    """Its URL is quoted whole, so that nothing of it is a parameter of the submission."""
    hook = "https://hooks.example/callbacks/a_b-c?x=1&y=ü"
    call = FAL.encode_submission(GenerationRequest("a cat"), BASE, hook)
    quoted = "https%3A%2F%2Fhooks.example%2Fcallbacks%2Fa_b-c%3Fx%3D1%26y%3D%C3%BC"
    assert call.url == f"{APP}/v2.2/text-to-video?fal_webhook={quoted}"


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"video": PNG, "duration": 5}, "duration", "must be left out with a video at fal, whose page documents none"),
        ({"video": PNG, "aspect_ratio": "16:9"}, "aspect_ratio", "must be left out with a video at fal"),
        ({"video": PNG, "effect": "Melt"}, "effect", "must come with an image at fal"),
        ({"video": b"mp4"}, "video", "'3 bytes' must be a URL at fal"),
        ({"video": PNG, "model": "2.2"}, "model", "must be 2.0 with video input at fal"),
        ({"image": PNG, "last_image": OTHER}, "last_image", "its pages document no last image"),
        ({"motion": 2}, "motion", "its pages document no motion"),
        ({"sfx": True}, "sfx", "its pages document no switch for sound"),
        ({"effect": "Melt"}, "effect", "must come with an image at fal; give one"),
        ({"effect": "Melt", "ingredients": [PNG]}, "effect", "must come with an image at fal"),
        ({"effect": "Melt", "image": PNG, "duration": 5}, "duration", "must be left out with an effect at fal"),
        ({"effect": "Melt", "image": PNG, "resolution": "720p"}, "resolution", "must be left out with an effect"),
        ({"effect": "Melt", "image": PNG, "model": "2.2"}, "model", "must be 1.5 with an effect at fal; give that"),
        ({"model": "1.5"}, "model", "must be 2.2 with text input at fal; give that or leave it out"),
        ({"model": "turbo", "strict": False}, "model", "must be 2.2 with text input at fal"),
        ({"image": PNG, "aspect_ratio": "1:1"}, "aspect_ratio", "must be left out with image input at fal"),
        ({"aspect_ratio": "21:9"}, "aspect_ratio", "must be one of 16:9, 9:16, 1:1, 4:5, 5:4, 3:2, 2:3 at fal"),
        ({"resolution": "4k"}, "resolution", "must be 720p or 1080p at fal; strict=False"),
        ({"duration": 6}, "duration", "must be 5 or 10 seconds at fal"),
        ({"duration": 7.5, "strict": False}, "duration", "must be 5 or 10 seconds at fal"),
        ({"image": b"png"}, "image", "'3 bytes' must be a URL at fal"),
        ({"ingredients": [PNG, b"png"]}, "ingredients[1]", "'3 bytes' must be a URL at fal"),
    ],
)
def test_what_no_operation_takes_is_refused_by_name(fields: dict[str, Any], field: str, words: str) -> None:
    """Before it costs, with the way out."""
    with pytest.raises(InvalidRequest) as caught:
        FAL.check(GenerationRequest("a cat", **fields))
    assert caught.value.field == field
    assert words in str(caught.value)


def test_the_page_lists_all_effects() -> None:
    """The sixteen of its picker."""
    assert set(FAL.effects) == set(EFFECTS)


# --- receipts ---------------------------------------------------------------------------------------------------------


def test_a_receipt_carries_its_addresses() -> None:
    """They are the handle of the task, and those of the gateway's two origins may be used."""
    receipt = FAL.decode_receipt(answer(200, RECEIPT))
    assert (receipt.task_id, json.loads(receipt.handle or "")) == ("r-1", LINKS)
    assert FAL.handle_refusal(receipt.handle, BASE) is None
    found = outcome(answer(200, RECEIPT))
    assert (found.verdict, found.task_id, found.handle) == (SubmitVerdict.ACCEPTED, "r-1", receipt.handle)


@pytest.mark.parametrize(
    "url", ["https://evil.example/status", "http://queue.fal.run/s", "https://queue.fal.run:8443/s"]
)
def test_an_address_elsewhere_is_not_trusted(url: str) -> None:
    """The key would go there."""
    receipt = FAL.decode_receipt(answer(200, RECEIPT | {"cancel_url": url}))
    assert "is not at an origin of the gateway" in (FAL.handle_refusal(receipt.handle, BASE) or "")


def test_the_addresses_of_an_emulator_are_those_of_its_base_url() -> None:
    """Where the base URL is another host, the gateway's own origins are not trusted with its key."""
    base = "http://127.0.0.1:8080"
    own = FAL.decode_receipt(answer(200, {"request_id": "r", "status_url": f"{base}/s"})).handle
    assert FAL.handle_refusal(own, base) is None
    assert FAL.handle_refusal(FAL.decode_receipt(answer(200, RECEIPT)).handle, base) is not None


def test_a_handle_is_used_for_every_address() -> None:
    """Status, result and cancellation go where the receipt says."""
    handle = json.dumps(LINKS)
    result = FAL.encode_result(COMPLETED, BASE, handle)
    assert FAL.dialect.cancel is not None
    cancel = FAL.dialect.cancel(BASE, "r-1", handle)
    assert FAL.encode_poll("r-1", BASE, handle).url == LINKS["status_url"]
    assert result is not None
    assert (result.method, result.url) == ("GET", LINKS["response_url"])
    assert (cancel.method, cancel.url, cancel.paid) == ("PUT", LINKS["cancel_url"], False)


@pytest.mark.parametrize("handle", [None, "{}", "not JSON", "[]", '{"status_url": 1}'])
def test_without_an_address_it_is_built_below_the_app(handle: str | None) -> None:
    """A torn receipt, an adopted task and a webhook have the id alone."""
    result = FAL.encode_result(COMPLETED, BASE, handle)
    assert FAL.dialect.cancel is not None
    assert FAL.encode_poll("r/1", BASE, handle).url == f"{APP}/requests/r%2F1/status"
    assert result is not None
    assert result.url == f"{APP}/requests/r-1"
    assert FAL.dialect.cancel(BASE, "r-1", handle).url == f"{APP}/requests/r-1/cancel"


def test_a_torn_receipt_keeps_its_task() -> None:
    """The id is read from a body that was cut."""
    torn = HttpResponse(status=200, body=json.dumps(RECEIPT).encode()[:40], complete=False)
    assert FAL.decode_receipt(torn) == Receipt(task_id="r-1")


@pytest.mark.parametrize(
    ("response", "verdict", "kind"),
    [
        (answer(401, {"detail": "Authentication is required"}), SubmitVerdict.STOP, "invalid"),
        (answer(403, {"detail": "User is locked. Reason: Exhausted balance."}), SubmitVerdict.STOP, "balance"),
        (answer(422, {"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "missing"}]}), SubmitVerdict.REJECTED, "invalid"),
        (
            answer(422, {"detail": [{"loc": ["body"], "msg": "x", "type": "content_policy_violation"}]}),
            SubmitVerdict.REJECTED, "moderation",
        ),
        (answer(404, {"detail": "Application not found"}), SubmitVerdict.REJECTED, "other"),
        (answer(504, {"detail": "late", "error_type": "request_timeout"}), SubmitVerdict.UNKNOWN, "timeout"),
        (answer(500, {"detail": "oh"}, x_fal_error_type="internal_error"), SubmitVerdict.UNKNOWN, "provider"),
        (answer(503, {"detail": "busy", "error_type": "runner_scheduling_failure"}), SubmitVerdict.UNKNOWN, "provider"),
        (answer(200, {"status": "IN_QUEUE"}), SubmitVerdict.UNKNOWN, "other"),
    ],
)  # fmt: skip
def test_a_refused_submission_is_judged(response: HttpResponse, verdict: SubmitVerdict, kind: str) -> None:
    """A 5xx may have been accepted, whatever type of error it names."""
    found = outcome(response)
    assert (found.verdict, found.kind) == (verdict, kind)


def test_errors_of_models_are_sentences() -> None:
    """Each with the field that it is about; the first type is the code."""
    detail = [
        {"loc": ["body", "image_url"], "msg": "could not be fetched", "type": "file_download_error"},
        {"loc": [], "msg": "bad", "type": "value_error"}, "odd",
    ]  # fmt: skip
    found = outcome(answer(422, {"detail": detail}, x_fal_request_id="q-7"))
    assert found.reason == "file_download_error: image_url: could not be fetched; bad"
    assert (found.code, found.request_id) == ("file_download_error", "q-7")


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "state", "word", "known"),
    [
        ({"status": "IN_QUEUE", "queue_position": 3}, TaskState.QUEUED, "in_queue", True),
        ({"status": "IN_PROGRESS", "logs": None}, TaskState.RUNNING, "in_progress", True),
        ({"status": "COMPLETED"}, TaskState.SUCCEEDED_WITHOUT_URL, "completed", True),
        (
            {"status": "COMPLETED", "error": "bad", "error_type": "x"},
            TaskState.SUCCEEDED_WITHOUT_URL,
            "completed",
            True,
        ),
        ({"status": "NOT_FOUND"}, TaskState.MISSING, "not_found", True),
        ({"status": "CANCELLED"}, TaskState.RUNNING, "cancelled", False),
        ({}, TaskState.RUNNING, "", False),
    ],
)
def test_a_status_is_read(body: dict[str, Any], state: TaskState, word: str, known: bool) -> None:
    """An unknown word means that the task runs; how a completed one ended stands with its result."""
    found = FAL.decode_snapshot(answer(202, body), "r-1")
    assert (found.task_id, found.state, found.word, found.known_word) == ("r-1", state, word, known)


def test_a_status_of_another_request_is_not_this_one() -> None:
    """A status need not name its request; one that names another is about that."""
    assert FAL.decode_snapshot(answer(200, {"status": "IN_QUEUE", "request_id": "r-2"}), "r-1").task_id == "r-2"


# --- results ----------------------------------------------------------------------------------------------------------


def completed(**facts: object) -> Snapshot:
    return FAL.decode_snapshot(answer(200, {"status": "COMPLETED", **facts}), "r-1")


@pytest.mark.parametrize(
    "body",
    [VIDEO, {"video": VIDEO["video"]["url"]}, {"videos": [VIDEO["video"]]}],
    ids=["documented", "bare URL", "list"],
)
def test_a_result_is_the_video(body: dict[str, Any]) -> None:
    """Also in shapes near the documented one; its units are the points of the job."""
    found = FAL.decode_result(answer(200, body | {"seed": 7}, x_fal_billable_units="1.5"), COMPLETED)
    assert found is not None
    assert found.video is not None
    assert (found.state, found.video.url, found.video.task_id) == (TaskState.SUCCEEDED, VIDEO["video"]["url"], "r-1")
    assert (found.url, found.video.seed, found.points) == (found.video.url, 7, 1.5)


def test_a_video_beside_an_error_is_a_video() -> None:
    """It was paid for."""
    found = FAL.decode_result(answer(200, VIDEO), completed(error="odd", error_type="internal_error"))
    assert found is not None
    assert found.state is TaskState.SUCCEEDED


POLICY = [{"loc": ["body", "prompt"], "msg": "flagged", "type": "content_policy_violation"}]


@pytest.mark.parametrize(
    ("response", "status", "code", "reason"),
    [
        (answer(422, {"detail": POLICY}), {}, "content_policy_violation", "prompt: flagged"),
        (answer(400, {"detail": POLICY}), {}, "content_policy_violation", "prompt: flagged"),
        (answer(500, {"detail": POLICY}), {}, "content_policy_violation", "prompt: flagged"),
        (answer(422, {"detail": POLICY}), {"error": "HTTP 422"}, "content_policy_violation", "prompt: flagged"),
        (answer(410, {"detail": "gone", "error_type": "client_cancelled"}), {}, "client_cancelled", "gone"),
        (answer(503, {"detail": "lost"}, x_fal_error_type="runner_disconnected"), {}, "runner_disconnected", "lost"),
        (answer(504, {"detail": "late", "error_type": "startup_timeout"}), {}, "startup_timeout", "late"),
        (answer(500, {"detail": "no"}, x_fal_no_retry="1"), {}, "error", "no"),
        (answer(500, {"detail": "oh"}), {"error": "the run failed", "error_type": "x"}, "x", "the run failed"),
        (answer(404, {"status": "NOT_FOUND"}), {"error": "the run failed"}, "error", "the run failed"),
        (answer(400, {"detail": "in progress"}), {"error_type": "request_timeout"}, "request_timeout", ""),
        (answer(200, {}), {"error": {"why": 1}}, "error", '{"why": 1}'),
    ],
)
def test_a_failure_is_that_of_the_task(response: HttpResponse, status: dict[str, Any], code: str, reason: str) -> None:
    """A model answers for itself; of the host's errors only those of a run, or those that the status has, are final."""
    found = FAL.decode_result(response, completed(**status))
    assert found is not None
    assert (found.state, found.failure_code, found.reason) == (TaskState.FAILED, code, reason)
    assert (found.task_id, found.video) == ("r-1", None)


@pytest.mark.parametrize(
    "response",
    [
        answer(500, {"detail": "oh", "error_type": "internal_error"}),
        answer(504, {"detail": "late"}, x_fal_error_type="request_timeout"),
        answer(502, {}),
        HttpResponse(status=502, body=b"<html>Bad Gateway</html>"),
        answer(404, {"status": "NOT_FOUND"}),
        answer(429, {"detail": "slow down"}),
        answer(408, {"detail": "late"}),
    ],
)
def test_what_may_be_the_queues_own_trouble_is_asked_again(response: HttpResponse) -> None:
    """A paid video is not given up because an answer about it failed."""
    assert FAL.decode_result(response, COMPLETED) is None


def test_too_early_is_not_an_end() -> None:
    """The result of a task that still runs answers 400."""
    assert FAL.decode_result(answer(400, {"detail": "Request is still in progress"}), COMPLETED) == COMPLETED


@pytest.mark.parametrize("body", [{}, {"video": {"url": "file:///etc"}}, {"video": None}, []])
def test_a_result_without_a_video_is_asked_again(body: object) -> None:
    """It is not a failure, and not a video."""
    with pytest.raises(DecodeError, match="must have a video"):
        FAL.decode_result(answer(200, body), COMPLETED)


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (202, CancelOutcome.REQUESTED), (200, CancelOutcome.REQUESTED), (400, CancelOutcome.TOO_LATE),
        (404, CancelOutcome.MISSING), (401, CancelOutcome.REFUSED), (403, CancelOutcome.REFUSED),
        (429, CancelOutcome.UNCLEAR), (500, CancelOutcome.UNCLEAR), (302, CancelOutcome.UNCLEAR),
    ],
)  # fmt: skip
def test_a_cancellation_is_read(status: int, found: CancelOutcome) -> None:
    """Only a poll shows whether the task has ended."""
    assert FAL.dialect.read_cancel is not None
    assert FAL.dialect.read_cancel(answer(status, {})) is found


def test_a_webhook_names_its_request() -> None:
    """Also one of a failure: it is polled, and not believed."""
    for status in ("OK", "ERROR"):
        body = {"request_id": "r-1", "gateway_request_id": "g-2", "status": status, "payload": VIDEO, "error": None}
        assert FAL.decode_callback(json.dumps(body).encode()) == "r-1"
    assert FAL.decode_callback(b'{"status": "OK"}') is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("content_policy_violation", "moderation"), ("runner_disconnected", "provider"), ("request_timeout", "timeout"),
        ("startup_timeout", "timeout"), ("internal_error", "provider"), ("runner_connection_timeout", "timeout"),
    ],
)  # fmt: skip
def test_codes_have_kinds(code: str, kind: str) -> None:
    """A person reads what was at fault."""
    assert kind_of_failure(code, "") == kind
