"""Queue dialect of fal: receipts with addresses, statuses, results at an address of their own. Sends nothing.

Source: fal's documentation of its queue and webhooks, and its released client, read in November 2026. Statuses, results
and cancellations stand under the owner and the app, without the rest of the model's path, and the documentation asks to
take their addresses from the receipt. Only without those (a torn receipt, a bare task id, a callback) is the address
built. Not documented, and read leniently: whether a status names its request, and where else a result may have its URL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

import attrs

from pika_async.models import Receipt, Snapshot, TaskState, Video
from pika_async.providers._abilities import CancelOutcome
from pika_async.providers._failure import Failure, read_failure
from pika_async.providers._fields import as_number, as_text, as_url, as_whole
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse, parse_json

__all__ = [
    "TORN_ID", "addresses", "cancel", "poll", "poll_handle", "read_cancel", "read_errors", "read_receipt",
    "read_result", "read_status", "result",
]  # fmt: skip

#: The owner and the app of every Pika model, below which the requests of all of them stand.
APP: Final = "fal-ai/pika"
#: Names of the addresses in a receipt, which are kept as the handle of the task.
ADDRESSES: Final = ("status_url", "response_url", "cancel_url")
TORN_ID: Final = re.compile(rb'"request_id"\s*:\s*"((?:[^"\\]|\\.){1,256})"')
_STATES: Final = {
    "in_queue": TaskState.QUEUED, "in_progress": TaskState.RUNNING, "completed": TaskState.SUCCEEDED_WITHOUT_URL,
    "not_found": TaskState.MISSING,
}  # fmt: skip
#: Statuses of a result that say nothing of the task: a key, an address or a limit is at fault, or it is too early.
_NOT_OF_THE_TASK: Final = frozenset({400, 401, 402, 403, 404, 405, 407, 408, 425, 429})
#: Beginnings of the error types that only a run has. Others, beside a 5xx, may be those of the queue itself, while it
#: answers for a task that has succeeded.
_RUN_ERRORS: Final = ("runner_", "startup_")
_MAX_REASON_LENGTH: Final = 2000
_CANCEL_OUTCOMES: Final = {
    200: CancelOutcome.REQUESTED, 202: CancelOutcome.REQUESTED, 400: CancelOutcome.TOO_LATE, 404: CancelOutcome.MISSING,
}  # fmt: skip


def read_receipt(body: Any) -> Receipt:
    """Return the receipt in the answer to a submission, its addresses as the handle."""
    found = body if isinstance(body, dict) else {}
    links = {name: url for name in ADDRESSES if (url := as_url(found.get(name))) is not None}
    return Receipt(
        task_id=as_text(found.get("request_id")) or None, handle=json.dumps(links) if links else None, raw=body
    )


def addresses(handle: str) -> Iterable[str]:
    """Return the addresses in a handle."""
    return _links(handle).values()


def _links(handle: str | None) -> Mapping[str, str]:
    """Return the addresses in a handle by name; none if it is not one of this dialect."""
    try:
        found = parse_json((handle or "{}").encode())
    except DecodeError:
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def _address(base_url: str, task_id: str, handle: str | None, name: str, ending: str) -> str:
    """Return the address `name` of a handle; without it, the one below owner and app."""
    return _links(handle).get(name) or f"{base_url}/{APP}/requests/{quote(task_id, safe='')}{ending}"


def poll(base_url: str, task_id: str) -> HttpRequest:
    """Return the request for a status by the task id alone."""
    return HttpRequest(method="GET", url=_address(base_url, task_id, None, "status_url", "/status"))


def poll_handle(base_url: str, task_id: str, handle: str) -> HttpRequest:
    """Return the request for a status at the address of the receipt."""
    return HttpRequest(method="GET", url=_address(base_url, task_id, handle, "status_url", "/status"))


def result(base_url: str, handle: str | None, snapshot: Snapshot) -> HttpRequest:
    """Return the request for the result of a completed task, or for the reason why it has none."""
    return HttpRequest(method="GET", url=_address(base_url, snapshot.task_id, handle, "response_url", ""))


def cancel(base_url: str, task_id: str, handle: str | None) -> HttpRequest:
    """Return the request that cancels a task."""
    return HttpRequest(method="PUT", url=_address(base_url, task_id, handle, "cancel_url", "/cancel"))


def read_cancel(response: HttpResponse) -> CancelOutcome:
    """Return the outcome of a request to cancel."""
    if response.status in _CANCEL_OUTCOMES:
        return _CANCEL_OUTCOMES[response.status]
    is_refused = 400 < response.status < 500 and response.status not in {408, 425, 429}
    return CancelOutcome.REFUSED if is_refused else CancelOutcome.UNCLEAR


def read_status(body: Any, requested_id: str) -> Snapshot:
    """Return the snapshot of a task in a status.

    A completed task is one without a URL here, whether it has succeeded or failed: its result, or the whole reason of
    its failure, stands at another address.
    """
    found = body if isinstance(body, dict) else {}
    word = (as_text(found.get("status")) or "").strip().lower()
    return Snapshot(
        task_id=as_text(found.get("request_id")) or requested_id,
        state=_STATES.get(word, TaskState.RUNNING),
        word=word,
        known_word=word in _STATES,
        raw=body,
    )


def read_errors(response: HttpResponse, body: Any) -> Failure:
    """Return the failure in an answer: that of a model (`detail` is a list) or of the host (`detail` is a text)."""
    code = (response.headers.get("x-fal-error-type") or "").strip() or None
    detail = body.get("detail") if isinstance(body, dict) else None
    if isinstance(detail, list):
        errors = [error for error in detail if isinstance(error, dict)]
        types = [kind for error in errors if (kind := as_text(error.get("type")))]
        message = "; ".join(filter(None, map(_sentence, errors)))
        return Failure(types[0] if types else code or "error", message[:_MAX_REASON_LENGTH])
    code = code or (as_text(body.get("error_type")) if isinstance(body, dict) else None)
    if isinstance(detail, str) and detail:
        return Failure(code or "error", detail[:_MAX_REASON_LENGTH])
    failure = read_failure(body)
    return Failure(code or failure.code, failure.message[:_MAX_REASON_LENGTH])


def _sentence(error: Mapping[str, Any]) -> str:
    """Return the message of one error of a model behind the field that it is about."""
    place, message = error.get("loc"), as_text(error.get("msg")) or ""
    steps = [text for step in place if (text := as_text(step)) and text != "body"] if isinstance(place, list) else []
    return f"{'.'.join(steps)}: {message}" if steps and message else message


def read_result(response: HttpResponse, snapshot: Snapshot) -> Snapshot | None:
    """Return the snapshot of a completed task with its video, or with the reason why it has none.

    A failure is final, so it must be that of the task beyond doubt: its status has an error, the model answers
    for itself, or the host has a type of error that only a run has.

    :raises DecodeError: if the answer is a success without a video; ask again later.
    """
    body = _json(response)
    if 200 <= response.status < 300:
        video = _video(body, snapshot.task_id)
        if video is not None:
            units = as_number(response.headers.get("x-fal-billable-units"))
            return attrs.evolve(snapshot, state=TaskState.SUCCEEDED, video=video, url=video.url, points=units, raw=body)
    failure = read_errors(response, body)
    if response.status >= 300 and _is_of_the_task(response, body, failure):
        return _failed(snapshot, failure, body)
    failure_of_status = _error_of_status(snapshot.raw)
    if failure_of_status is not None:
        return _failed(snapshot, failure_of_status, snapshot.raw)
    if response.status == 400:  # still in progress
        return snapshot
    if response.status < 300:
        raise DecodeError(f"the result must have a video, not {response.excerpt()}")
    return None


def _is_of_the_task(response: HttpResponse, body: Any, failure: Failure) -> bool:
    if isinstance(body, dict) and isinstance(body.get("detail"), list):
        return True
    if response.status in _NOT_OF_THE_TASK or failure.code is None:
        return False
    return response.status < 500 or "x-fal-no-retry" in response.headers or failure.code.startswith(_RUN_ERRORS)


def _failed(snapshot: Snapshot, failure: Failure, raw: Any) -> Snapshot:
    return attrs.evolve(snapshot, state=TaskState.FAILED, reason=failure.message, failure_code=failure.code, raw=raw)


def _error_of_status(status: Any) -> Failure | None:
    """Return the error that a status names, None if it names none."""
    found = status if isinstance(status, dict) else {}
    error, code = found.get("error"), as_text(found.get("error_type"))
    message = as_text(error) or (json.dumps(error)[:_MAX_REASON_LENGTH] if error else "")
    return Failure(code or "error", message[:_MAX_REASON_LENGTH]) if message or code else None


def _json(response: HttpResponse) -> Any:
    try:
        return parse_json(response.body) if response.complete else None
    except DecodeError:
        return None


def _video(body: Any, task_id: str) -> Video | None:
    """Return the video of a result: `{"video": {"url": ...}}`, or its URL where the object was."""
    found = body if isinstance(body, dict) else {}
    rows = found.get("videos")
    holder = found.get("video") or (rows[0] if isinstance(rows, list) and rows else None)
    url = as_url(holder.get("url") if isinstance(holder, dict) else holder)
    if url is None:
        return None
    seconds = as_number(holder.get("duration")) if isinstance(holder, dict) else None
    return Video(url=url, task_id=task_id, seed=as_whole(found.get("seed")), duration=seconds)
