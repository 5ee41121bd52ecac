"""Pika's own API: what each request is sent as, and what its jobs, results, errors, bills and uploads mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pika_async import EFFECTS, GenerationRequest, InvalidRequest
from pika_async._planning.media_routes import fields_to_upload
from pika_async.models import Snapshot, TaskState
from pika_async.models.media import MAX_MEDIA_BYTES
from pika_async.providers._kinds import kind_of_failure
from pika_async.providers._verdicts import SubmitVerdict, classify_response
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse
from pika_async.providers.native import NATIVE
from pika_async.providers.pika import PIKA

BASE = "https://api.dev.pika.art"
MEDIA = f"{BASE}/v1/media"
PNG, OTHER, MP4 = "https://x.example/a.png", "https://x.example/b.png", "https://x.example/a.mp4"
DONE = Snapshot(task_id="j-1", state=TaskState.SUCCEEDED_WITHOUT_URL, word="completed")


def job(status: str, **fields: object) -> dict[str, object]:
    return {"id": "j-1", "status": status, "error": None, "output": None} | fields


def answer(status: int, body: object, **headers: str) -> HttpResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status=status, headers=named, body=json.dumps(body).encode())


def outcome(response: HttpResponse, *, repeated: bool = False) -> Any:
    receipt = PIKA.decode_receipt(response)
    return classify_response(
        response, receipt, own_verdict=PIKA.own_verdict(response, receipt, repeated=repeated), now=0.0
    )


def snapshot(body: object) -> Snapshot:
    return PIKA.decode_snapshot(answer(200, body), "j-1")


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path", "body"),
    [
        ({}, "pika-2.5/text-to-video", {"prompt": "a cat"}),
        (
            {"duration": 5.0, "resolution": "1080P", "negative_prompt": "dogs", "seed": 0, "model": 2.5},
            "pika-2.5/text-to-video",
            {"prompt": "a cat", "duration_s": 5, "resolution": "1080p", "negative_prompt": "dogs", "seed": 0},
        ),
        (
            {"image": PNG, "duration": 10},
            "pika-2.5/image-to-video",
            {"prompt": "a cat", "image": PNG, "duration_s": 10},
        ),
        (
            {"image": PNG, "last_image": OTHER, "duration": 3, "seed": 7},
            "pikaframes/image-to-video",
            {"prompt": "a cat", "images": [PNG, OTHER], "transition_duration_s": 3, "seed": 7},
        ),
        ({"video": MP4, "resolution": "720p"}, "pikadditions/video-to-video",
         {"prompt": "a cat", "video": MP4, "resolution": "720p"}),
        ({"image": PNG, "effect": "melt", "seed": 1}, "pikaffects/image-to-video",
         {"image": PNG, "pikaffect": "Melt", "prompt_override": "a cat", "seed": 1}),
        (
            {"model": "h3-flex", "aspect_ratio": 1.5, "duration": 15, "resolution": "4k"},
            "pika-h3-flex/text-to-video",
            {"prompt": "a cat", "aspect_ratio": "3:2", "duration": 15, "resolution": "4k"},
        ),
        ({"model": "h3-flex", "image": PNG}, "pika-h3-flex/image-to-video", {"prompt": "a cat", "image": PNG}),
        ({"model": "2.6", "strict": False}, "pika-2.6/text-to-video", {"prompt": "a cat"}),
    ],
)  # fmt: skip
def test_a_request_is_an_operation_of_its_own(fields: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    """The inputs decide the operation; only fields that it has are sent, and nothing that was not given."""
    request = GenerationRequest("a cat", **fields)
    PIKA.check(request)
    call = PIKA.encode_submission(request, BASE, "https://callback.invalid/", idempotency_key="k-1")
    assert (call.method, call.url, call.paid) == ("POST", f"{MEDIA}/pika/{path}", True)
    assert call.headers == {"Idempotency-Key": "k-1"}
    assert json.loads(call.body or b"") == body


def test_a_model_cannot_lead_to_another_path() -> None:
    """A model of any text, as it may be without `strict`, is one part of the path."""
    request = GenerationRequest("a cat", model="../../jobs?x=", strict=False)
    PIKA.check(request)
    assert PIKA.encode_submission(request, BASE, "").url == f"{MEDIA}/pika/pika-..%2F..%2Fjobs%3Fx%3D/text-to-video"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"effect": "Melt"}, "effect: 'Melt' must come with an image at Pika"),
        ({"effect": "Melt", "video": MP4}, "effect: 'Melt' must come with an image at Pika"),
        ({"effect": "Melt", "image": PNG, "negative_prompt": "x"}, "negative_prompt: 'x' must be left out with an eff"),
        ({"effect": "Melt", "image": PNG, "resolution": "720p"}, "resolution: '720p' must be left out with an effect"),
        ({"effect": "Melt", "image": PNG, "duration": 5}, "duration: 5 must be left out with an effect"),
        ({"effect": "Melt", "image": PNG, "last_image": OTHER}, "must be left out with an effect at Pika"),
        ({"effect": "Melt", "image": PNG, "model": "2.5"}, "model: '2.5' must be left out with an effect at Pika"),
        ({"last_image": OTHER}, "must come with an image at Pika; give the first frame too"),
        (
            {"image": PNG, "last_image": OTHER, "model": "h3-flex"},
            "model: 'h3-flex' must be 2.5 with the field last_im",
        ),
        ({"video": MP4, "model": "h3-flex"}, "model: 'h3-flex' must be 2.5 with the field video"),
        ({"model": "1.5"}, "model: '1.5' must be 2.5 or h3-flex at Pika; strict=False"),
        ({"model": "h2-flex"}, "model: 'h2-flex' must be a version; give 2.5 or h3-flex"),
        ({"aspect_ratio": "16:9"}, "aspect_ratio: '16:9' must be left out at Pika, or needs the model h3-flex"),
        (
            {"model": "h3-flex", "negative_prompt": "x"},
            "negative_prompt: 'x' must be left out at Pika, or needs another",
        ),
        ({"duration": 10}, "duration: 10 must be one of 5 for this request"),
        ({"image": PNG, "duration": 7}, "duration: 7 must be one of 5, 10 for this request"),
        (
            {"image": PNG, "last_image": OTHER, "duration": 11},
            "duration: 11 must be one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
        ),
        ({"image": PNG, "last_image": OTHER, "duration": 1.5}, "duration: 1.5 must be one of 1, 2, 3"),
        ({"model": "h3-flex", "duration": 4}, "duration: 4 must be one of 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15"),
        ({"resolution": "4k"}, "resolution: '4k' must be one of 720p, 1080p"),
        ({"model": "h3-flex", "resolution": "720p"}, "resolution: '720p' must be one of 480p, 768p, 1080p, 2k, 4k"),
        ({"image": "http://x.example/a.png"}, "image: 'http://x.example/a.png' must be an https URL at Pika"),
        ({"video": "HTTP://x.example/a.mp4"}, "must be an https URL at Pika"),
        ({"image": PNG, "last_image": "http://x.example/a"}, "last_image: 'http://x.example/a' must be an https URL"),
        ({"ingredients": [PNG]}, "must be left out at Pika: its wire has no ingredients"),
        ({"camera": {"pan": "left"}}, "must be left out at Pika: its wire has no camera moves"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(fields: dict[str, Any], reason: str) -> None:
    """A field that an operation does not have is refused with its value before anything is sent."""
    with pytest.raises(InvalidRequest) as caught:
        PIKA.check(GenerationRequest("a cat", **fields))
    assert reason in str(caught.value)


def test_another_resolution_passes_without_strict() -> None:
    """A resolution that Pika may document later can be sent with `strict=False`."""
    PIKA.check(GenerationRequest("a cat", resolution="8k", strict=False))


def test_the_effects_are_those_with_a_name() -> None:
    """The effects of the SDK are among those of Pika; another one of its effects can be sent with `strict=False`."""
    assert PIKA.effects == EFFECTS
    request = GenerationRequest("a cat", image=PNG, effect="Zen Me", strict=False)
    PIKA.check(request)
    assert json.loads(PIKA.encode_submission(request, BASE, "").body or b"")["pikaffect"] == "Zen Me"


def test_pika_and_native_share_no_key() -> None:
    """The key of Pika's own API is read from another variable than that of the native shape, and sent in its own header."""
    assert (PIKA.api_key_env, NATIVE.api_key_env) == ("PIKA_DEV_API_KEY", "PIKA_API_KEY")
    assert (PIKA.authorization.header, PIKA.authorization.value("k")) == ("X-API-Key", "k")
    assert (PIKA.verified, NATIVE.verified) == (False, True)


# --- the answer to a submission ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "task_id"),
    [
        (job("queued"), "j-1"),
        (job("running"), "j-1"),
        (job("failed", error={"code": "content_moderation", "message": "no"}), "j-1"),
        (job("failed", error={"code": "provider_error", "message": "no"}), "j-1"),
        (job("completed", output={"video": {"url": "https://cdn.pika.art/1.mp4"}}), "j-1"),
        ({"id": "j-1"}, "j-1"),
        (job("failed", error={"code": "insufficient_balance", "message": "no"},
             billing={"state": "settled", "charge_micro_usd": 1}), "j-1"),
    ],
)  # fmt: skip
def test_a_job_is_a_receipt_whatever_became_of_it(body: dict[str, object], task_id: str) -> None:
    """A job that has failed at once was accepted too: its poll says why."""
    found = outcome(answer(200, body))
    assert (found.verdict, found.task_id) == (SubmitVerdict.ACCEPTED, task_id)


@pytest.mark.parametrize("code", ["insufficient_balance", "membership_required", "cycle_limit_exceeded"])
def test_a_job_that_failed_for_the_accounts_sake_stops_the_account(code: str) -> None:
    """Not every job of a batch fails because the balance is empty: they wait for it."""
    found = outcome(answer(200, job("failed", error={"code": code, "message": "top up"})))
    assert (found.verdict, found.task_id, found.reason) == (SubmitVerdict.STOP, None, f"{code}: top up")
    assert found.kind == "balance"


def test_a_torn_answer_has_its_id() -> None:
    """The id is read from the part of an answer that came."""
    torn = HttpResponse(status=200, body=b'{"id":"j-1","status":"queued","err', complete=False)
    assert outcome(torn).task_id == "j-1"


@pytest.mark.parametrize(
    ("status", "code", "verdict", "kind"),
    [
        (422, "invalid_input", SubmitVerdict.REJECTED, "invalid"),
        (403, "content_moderation", SubmitVerdict.REJECTED, "moderation"),
        (400, "content_moderation", SubmitVerdict.REJECTED, "moderation"),
        (429, "rate_limited", SubmitVerdict.WAIT, "provider"),
        (429, "usage_limit_exceeded", SubmitVerdict.STOP, "balance"),
        (402, "insufficient_balance", SubmitVerdict.STOP, "balance"),
        (400, "admission_suspended", SubmitVerdict.STOP, "invalid"),
        (403, "caller_plan_required", SubmitVerdict.STOP, "other"),
        (401, "unauthorized", SubmitVerdict.STOP, "invalid"),
        (409, "conflict", SubmitVerdict.REJECTED, "other"),
        (503, "provider_unavailable", SubmitVerdict.UNKNOWN, "provider"),
        (500, "internal", SubmitVerdict.UNKNOWN, "provider"),
        (500, "insufficient_balance", SubmitVerdict.UNKNOWN, "balance"),
        (504, "timed_out", SubmitVerdict.UNKNOWN, "timeout"),
    ],
)
def test_an_error_gets_its_verdict(status: int, code: str, verdict: SubmitVerdict, kind: str) -> None:
    """The code decides between account and request where the status does not; within a 5xx it proves nothing."""
    found = outcome(answer(status, {"error": {"code": code, "message": "why"}}))
    assert (found.verdict, found.kind, found.code) == (verdict, kind, code)


def test_a_message_alone_is_an_error_too() -> None:
    """An inactive key comes as `{"message"}`; `Retry-After` and the request id are read."""
    assert outcome(answer(403, {"message": "key is inactive"})).verdict is SubmitVerdict.STOP
    busy = outcome(answer(429, {"message": "slow down"}, retry_after="7", x_request_id="req-7"))
    assert (busy.verdict, busy.retry_after, busy.request_id) == (SubmitVerdict.WAIT, 7.0, "req-7")


def test_a_conflict_of_a_repeated_key_is_a_doubt() -> None:
    """409 to a key that was sent before leaves open what became of the first submission."""
    assert outcome(answer(409, {"message": "another body"}), repeated=True).verdict is SubmitVerdict.UNKNOWN


# --- polls ------------------------------------------------------------------------------------------------------------


def test_a_poll_is_built_from_the_id() -> None:
    """The path of a job; an id with other characters stays one part of it."""
    assert PIKA.encode_poll("j/1?", BASE) == HttpRequest(method="GET", url=f"{MEDIA}/jobs/j%2F1%3F")


@pytest.mark.parametrize(
    ("body", "state", "url"),
    [
        (job("queued"), TaskState.QUEUED, None),
        (job("running"), TaskState.RUNNING, None),
        (job("completed"), TaskState.SUCCEEDED_WITHOUT_URL, None),
        (job("completed", output={"media_type": "images", "images": [{"url": "https://c/1.png"}]}),
         TaskState.SUCCEEDED_WITHOUT_URL, None),
        (job("completed", output={"media_type": "video", "video": {"url": "https://c/1.mp4"}}),
         TaskState.SUCCEEDED, "https://c/1.mp4"),
        (job("completed", output={"media_type": "videos", "videos": [{"url": "https://c/1.mp4"}, {"url": "https://c/2"}]}),
         TaskState.SUCCEEDED, "https://c/1.mp4"),
        (job("paused"), TaskState.RUNNING, None),
    ],
)  # fmt: skip
def test_a_job_is_read(body: dict[str, object], state: TaskState, url: str | None) -> None:
    """The four words, and the first video of an output; another word is running."""
    found = snapshot(body)
    assert (found.state, found.video and found.video.url, found.task_id) == (state, url, "j-1")
    assert found.known_word is (body["status"] != "paused")


def test_a_failed_job_says_why() -> None:
    """The code and the message of the error, and the kind of it."""
    found = snapshot(job("failed", error={"code": "content_moderation", "message": "no cats"}))
    assert (found.state, found.failure_code, found.reason) == (TaskState.FAILED, "content_moderation", "no cats")
    assert kind_of_failure(found.failure_code, found.reason) == "moderation"


@pytest.mark.parametrize(
    ("billing", "cost"),
    [
        ({"state": "settled", "charge_micro_usd": 450_000}, 0.45),
        ({"state": "settled", "charge_micro_usd": "450000"}, 0.45),
        ({"state": "settled", "charge_micro_usd": 0}, 0.0),
        ({"state": "pending", "charge_micro_usd": 450_000}, None),
        ({"state": "settled"}, None),
        ({"state": "settled", "charge_micro_usd": -1}, None),
        (None, None),
        ([], None),
    ],
)
def test_a_bill_counts_once_it_is_settled(billing: object, cost: float | None) -> None:
    """The charge is in US dollars; a pending one, and none, is unknown."""
    assert snapshot(job("running", billing=billing)).cost == cost


# --- the result -------------------------------------------------------------------------------------------------------


def test_a_result_without_a_url_is_asked_for_apart() -> None:
    """A completed job without a video in it has its content at another address."""
    assert PIKA.encode_result(DONE, BASE) == HttpRequest(method="GET", url=f"{MEDIA}/jobs/j-1/content")
    found = PIKA.decode_result(answer(200, {"url": "https://cdn.pika.art/1.mp4"}), DONE)
    assert found is not None
    assert found.video is not None
    assert (found.state, found.video.url, found.video.task_id) == (
        TaskState.SUCCEEDED, "https://cdn.pika.art/1.mp4", "j-1",
    )  # fmt: skip


@pytest.mark.parametrize("status", [404, 409])
def test_a_result_may_come_later(status: int) -> None:
    """404 and 409 mean that it is too early: the job is as it was."""
    assert PIKA.decode_result(answer(status, {"message": "not yet"}), DONE) is DONE


def test_a_result_that_cannot_be_read_is_asked_for_again() -> None:
    """Neither a failing status nor an answer without a URL says anything about the job."""
    assert PIKA.decode_result(answer(500, {}), DONE) is None
    bodies: list[object] = [{}, {"url": None}, [], {"url": "/1.mp4"}]
    for body in bodies:
        with pytest.raises(DecodeError, match="must have the URL"):
            PIKA.decode_result(answer(200, body), DONE)


# --- money ------------------------------------------------------------------------------------------------------------


def test_a_quote_is_for_the_defaults_of_an_operation() -> None:
    """The catalog names an operation by its path; options that change the price cannot be asked about."""
    quote, read = PIKA.dialect.quote, PIKA.dialect.read_quote
    assert quote is not None
    assert read is not None
    plain = quote(PIKA, GenerationRequest("a cat"), BASE)
    assert plain == HttpRequest(method="GET", url=f"{BASE}/catalog/apis/pika%2Fpika-2.5%2Ftext-to-video/quote")
    assert quote(PIKA, GenerationRequest("a cat", duration=5), BASE) is None
    assert quote(PIKA, GenerationRequest("a cat", resolution="1080p"), BASE) is None
    assert read({"micro_usd": 12_500, "sell_usd": "0.0125"}) == 0.0125
    assert read({"sell_usd": "0.02"}) == 0.02


@pytest.mark.parametrize(
    ("body", "amount"),
    [
        ({"balance_micro_usd": 2_500_000}, 2.5),
        ({"balance": {"available_micro_usd": -1_000_000}}, -1.0),
        ({"balance_usd": "3.50"}, 3.5),
        ({"balance": 7}, None),
        ({"micro_usd": "many"}, None),
        ([], None),
        ("text", None),
    ],
)
def test_a_balance_is_read_where_its_unit_is_named(body: object, amount: float | None) -> None:
    """A number without a unit in its name is not an amount of dollars."""
    request, read = PIKA.dialect.balance, PIKA.dialect.read_balance
    assert request is not None
    assert read is not None
    assert request(BASE) == HttpRequest(method="GET", url=f"{BASE}/billing/balance")
    assert read(body) == amount


# --- uploads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sent"),
    [("cat 1.png", "cat-1.png"), ("кот/é.png", "-.png"), ("x" * 300 + ".png", "x" * 196 + ".png"), ("a_b-c.png",) * 2],
)
def test_the_name_of_a_file_is_plain(name: str, sent: str) -> None:
    """Blanks, other letters and slashes of a local name become hyphens; of a long one the end is kept."""
    assert PIKA.uploads is not None
    assert json.loads(PIKA.uploads.create(BASE, name, "image/png", 1).body or b"")["filename"] == sent


def test_an_upload_has_a_place() -> None:
    """Type and size are sent before; the answer names where the file goes, with which headers, and its URL."""
    uploads = PIKA.uploads
    assert uploads is not None
    call = uploads.create(BASE, "cat.png", "image/png", 12)
    assert (call.method, call.url, call.paid) == ("POST", f"{MEDIA}/uploads", False)
    assert json.loads(call.body or b"") == {"content_type": "image/png", "size_bytes": 12, "filename": "cat.png"}
    place = uploads.read(answer(200, {"upload_url": "https://s3/x", "headers": {"x-a": 1}, "url": "https://cdn/x"}))
    assert (place.put_url, place.headers, place.url) == ("https://s3/x", {"x-a": "1"}, "https://cdn/x")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"upload_url": "https://s3/x"}), (200, {"url": "https://cdn/x"}), (200, []), (200, {}),
        (200, {"upload_url": "https://s3/x", "headers": ["x"], "url": "https://cdn/x"}),
        (413, {"upload_url": "https://s3/x", "headers": {}, "url": "https://cdn/x"}),
    ],
)  # fmt: skip
def test_an_answer_without_a_place_is_refused(status: int, body: object) -> None:
    """An answer that lacks a part of the place, or fails, is not one."""
    assert PIKA.uploads is not None
    with pytest.raises(DecodeError):
        PIKA.uploads.read(answer(status, body))


@pytest.mark.parametrize(
    ("field", "more", "limit"),
    [("image", {}, 20_000_000), ("last_image", {"image": PNG}, 20_000_000), ("video", {}, 50_000_000)],
)
def test_a_file_that_is_too_large_is_refused_before_it_costs(field: str, more: dict[str, Any], limit: int) -> None:
    """Local files go to Pika's own storage up to its limit; the user's uploader has none of its own."""
    request = GenerationRequest("a cat", **{field: Path("/a"), **more})
    assert fields_to_upload(PIKA, request, {field: limit}, can_upload=False) == {field}
    with pytest.raises(InvalidRequest, match=f"must be at most {limit:,} bytes to be uploaded to Pika"):
        fields_to_upload(PIKA, request, {field: limit + 1}, can_upload=False)
    assert fields_to_upload(PIKA, request, {field: MAX_MEDIA_BYTES}, can_upload=True) == {field}
