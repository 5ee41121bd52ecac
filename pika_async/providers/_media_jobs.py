"""Dialect of Pika's own API, jobs at `/v1/media`. Encodes and decodes; judges only where a code goes before a status.

Pika's pages could not be read when this was written (November 2026). Its facts are from what other vendors and public
clients of it document; `doctor` compares them with the live service.

Printed word for word by another vendor: the document of a job, `{id, status, error, output}` with its four words, the
codes of its errors, the path of a poll, and that a submission may be answered with a job that has failed. Agreed on by
several clients: the header of the key, the paths and fields of the operations, the idempotency key, `/content`, the
bill, the uploads, and that inputs must be https URLs.

Doubtful, so sent strictly and read leniently:
- The operation of `pika-h3-flex` is named as those of the other models are, and the field of its last image is not
  known, so that a last image goes to `pikaframes`.
- A quote has no documented field for the request's options (one client posts them), so it is asked for the defaults
  alone. The names in an answer with a balance are not known.
- How long an idempotency key and the URL of an upload live is not known: a day and an hour are assumed.
- The 12 aspect ratios of H3 and the 62 effects for pictures are not listed there; a ratio is sent as given, and the
  effects are those of the native shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import attrs

from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState, Video
from pika_async.providers._abilities import UploadPlace
from pika_async.providers._capabilities import inline
from pika_async.providers._failure import Failure, read_refusal
from pika_async.providers._feeds import read_feed
from pika_async.providers._fields import as_number, as_text, as_url
from pika_async.providers._provider import Dialect, Provider
from pika_async.providers._verdicts import SubmitVerdict
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse, parse_json

__all__ = ["H3", "MEDIA_JOBS", "create_upload", "read_upload"]

#: The model whose fields differ from those of the numbered ones.
H3: Final = "h3-flex"
_STATES: Final = {
    "queued": TaskState.QUEUED,
    "running": TaskState.RUNNING,
    "completed": TaskState.SUCCEEDED,
    "failed": TaskState.FAILED,
}
#: Codes of refusals for the account's sake: no other request of it would be taken either.
_ACCOUNT_CODES: Final = frozenset({
    "insufficient_balance", "membership_required", "cycle_limit_exceeded", "admission_suspended",
    "usage_limit_exceeded", "caller_plan_required",
})  # fmt: skip
#: Codes of refusals for the request's sake, also under a status that would blame the account.
_REQUEST_CODES: Final = frozenset({"invalid_input", "content_moderation"})
#: HTTP statuses of a result that is not there yet.
_TOO_EARLY: Final = frozenset({404, 409})
_MICRO: Final = 1_000_000
#: Characters that no document shows in the name of an uploaded file, and the longest name that is sent.
_NOT_IN_NAMES: Final = re.compile(r"[^\w.-]+", re.ASCII)
MAX_NAME_LENGTH: Final = 200


def operation(request: GenerationRequest, default_model: str | None) -> str:
    """Return the model and the operation that a request means, as the path and the catalog spell them."""
    model = request.model or default_model or ""
    if request.video is not None:
        return "pika/pikadditions/video-to-video"
    if request.effect is not None:
        return "pika/pikaffects/image-to-video"
    if request.last_image is not None:
        return "pika/pikaframes/image-to-video"
    return f"pika/pika-{quote(model, safe='')}/{'text' if request.image is None else 'image'}-to-video"


def _create_path(provider: Provider, request: GenerationRequest, _callback_url: str) -> str:
    return f"/v1/media/{operation(request, provider.default_model)}"


def _create_body(provider: Provider, request: GenerationRequest, _callback_url: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": request.prompt,
        "image": request.image and inline(request.image),
        "video": request.video and inline(request.video),
        "negative_prompt": request.negative_prompt,
        "resolution": request.resolution,
        "seed": request.seed,
    }
    ratio = request.ratio
    if request.effect is not None:
        body |= {"prompt": None, "prompt_override": request.prompt, "pikaffect": request.effect}
    elif request.last_image is not None:
        frames = [inline(frame) for frame in (request.image, request.last_image) if frame is not None]
        body |= {"image": None, "images": frames, "transition_duration_s": request.duration}
    elif (request.model or provider.default_model) == H3:
        body |= {"duration": request.duration, "aspect_ratio": ratio and f"{ratio.numerator}:{ratio.denominator}"}
    else:
        body |= {"duration_s": request.duration}
    return {name: value for name, value in body.items() if value is not None}


def _is_job(body: Any) -> bool:
    return isinstance(body, dict) and bool(as_text(body.get("id"))) and as_text(body.get("status")) in _STATES


def _receipt(body: Any) -> Receipt:
    found = body if isinstance(body, dict) else {}
    return Receipt(task_id=as_text(found.get("id")) or None, raw=body)


def _failure(response: HttpResponse, body: Any) -> Failure:
    """Return the failure of a request. That of a job is not one: its submission was accepted.

    A job that has failed at once for the account's sake was refused: failing every job of a batch like this would leave
    nothing to resume.
    """
    if not 200 <= response.status < 300 or not _is_job(body):
        return read_refusal(body)
    error = body.get("error")
    code = as_text(error.get("code")) if isinstance(error, dict) else None
    if body["status"] == "failed" and code in _ACCOUNT_CODES and not _cost(body):
        return Failure(code, as_text(error.get("message")) or "")
    return Failure(None, "")


def _judge(response: HttpResponse, receipt: Receipt, _repeated: bool) -> SubmitVerdict | None:
    """Return the verdict where a code decides, and not the status. Within a 5xx a code proves nothing."""
    if response.status >= 500:
        return None
    if receipt.failure_code in _ACCOUNT_CODES:
        return SubmitVerdict.STOP
    is_refused = receipt.failure_code in _REQUEST_CODES and receipt.task_id is None
    return SubmitVerdict.REJECTED if is_refused else None


def _job_url(base_url: str, task_id: str) -> str:
    return f"{base_url}/v1/media/jobs/{quote(task_id, safe='')}"


def _poll(base_url: str, task_id: str) -> HttpRequest:
    return HttpRequest(method="GET", url=_job_url(base_url, task_id))


def _snapshot(body: Any, requested_id: str) -> Snapshot:
    return attrs.evolve(read_feed(body, requested_id, _STATES), cost=_cost(body))


def _cost(body: Any) -> float | None:
    """Return the charge of a job in US dollars once it is settled."""
    billing = body.get("billing") if isinstance(body, dict) else None
    if not isinstance(billing, dict) or billing.get("state") != "settled":
        return None
    return _dollars(billing.get("charge_micro_usd"))


def _dollars(micro: Any) -> float | None:
    number = as_number(micro)
    return None if number is None or number < 0 else number / _MICRO


def _result(base_url: str, _handle: str | None, snapshot: Snapshot) -> HttpRequest:
    return HttpRequest(method="GET", url=f"{_job_url(base_url, snapshot.task_id)}/content")


def _read_result(response: HttpResponse, snapshot: Snapshot) -> Snapshot | None:
    if response.status in _TOO_EARLY:
        return snapshot
    if not 200 <= response.status < 300:
        return None
    body = parse_json(response.body)
    url = as_url(body.get("url")) if isinstance(body, dict) else None
    if url is None:
        raise DecodeError("the answer must have the URL of the video")
    video = Video(url=url, task_id=snapshot.task_id)
    return attrs.evolve(snapshot, state=TaskState.SUCCEEDED, video=video, url=url)


def _quote(provider: Provider, request: GenerationRequest, base_url: str) -> HttpRequest | None:
    if request.duration is not None or request.resolution is not None:
        return None
    api_id = quote(operation(request, provider.default_model), safe="")
    return HttpRequest(method="GET", url=f"{base_url}/catalog/apis/{api_id}/quote")


def _balance(base_url: str) -> HttpRequest:
    return HttpRequest(method="GET", url=f"{base_url}/billing/balance")


def _read_amount(body: Any) -> float | None:
    """Return the amount in US dollars under the first name that ends in its unit; a balance may be negative."""
    amounts = list(_amounts(body))
    for unit, divisor in (("micro_usd", _MICRO), ("usd", 1)):
        for name, value in amounts:
            number = as_number(value)
            if name.endswith(unit) and number is not None:
                return number / divisor
    return None


def _amounts(body: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of an object and of the objects in it."""
    for name, value in body.items() if isinstance(body, dict) else ():
        if isinstance(value, dict):
            yield from value.items()
        else:
            yield name, value


def create_upload(base_url: str, name: str, content_type: str, size: int) -> HttpRequest:
    """Return the free request for a place of a file."""
    filename = _NOT_IN_NAMES.sub("-", name)[-MAX_NAME_LENGTH:]
    body = {"content_type": content_type, "size_bytes": size, "filename": filename}
    return HttpRequest(method="POST", url=f"{base_url}/v1/media/uploads", body=json.dumps(body).encode())


def read_upload(response: HttpResponse) -> UploadPlace:
    """Return the place of a file.

    :raises DecodeError: if the answer has none.
    """
    body = parse_json(response.body) if 200 <= response.status < 300 else None
    found = body if isinstance(body, dict) else {}
    put_url, url, headers = as_url(found.get("upload_url")), as_url(found.get("url")), found.get("headers") or {}
    if put_url is None or url is None or not isinstance(headers, dict):
        raise DecodeError("the answer must have an upload_url, headers and a url")
    return UploadPlace(put_url=put_url, url=url, headers={name: str(value) for name, value in headers.items()})


MEDIA_JOBS: Final = Dialect(
    name="media jobs",
    create_path=_create_path,
    create_body=_create_body,
    receipt=_receipt,
    poll=_poll,
    snapshot=_snapshot,
    torn_id=re.compile(rb'"id"\s*:\s*"((?:[^"\\]|\\.){1,256})"'),
    failure=_failure,
    judge=_judge,
    result=_result,
    read_result=_read_result,
    quote=_quote,
    read_quote=_read_amount,
    balance=_balance,
    read_balance=_read_amount,
)
