"""Reply bodies of fal's queue, as its documentation and its client give them. Pure: does not handle connections."""

from __future__ import annotations

from typing import Any

from pika_async.emulator.records import Answer, Task
from pika_async.emulator.replies import QUEUED_SHARE, FeedView, json_answer

__all__ = [
    "addresses",
    "cancel_answer",
    "host_error",
    "model_error",
    "receipt_answer",
    "refusal",
    "result_answer",
    "status_answer",
    "unknown_request",
    "webhook_body",
]

#: Owner and app: the part of an endpoint's path under which its requests live.
OWNER_AND_APP = "fal-ai/pika"

_HOST_REFUSALS = {
    "rate": (429, "rate_limited", "too many requests, please try again later"),
    "quota": (403, "user_locked", "User is locked. Reason: Exhausted balance."),
    "key": (401, "unauthorized", "No user found for the key"),
    "forbidden": (403, "forbidden", "the key may not use this application"),
    "no-channel": (503, "runner_scheduling_failure", "no available channel for this model"),
}
#: Statuses of a failed request's result by the kind of failure; any other is 500.
_FAILURE_STATUSES = {
    "content_policy_violation": 422,
    "content_moderation": 422,
    "invalid_input": 422,
    "client_cancelled": 499,
    "request_timeout": 504,
    "timed_out": 504,
}


def host_error(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    """Return an error of the host: a text and its type."""
    return json_answer(status, {"detail": message, "error_type": kind}, {"X-Fal-Error-Type": kind, **(headers or {})})


def model_error(field: str, message: str, kind: str, headers: dict[str, str] | None = None) -> Answer:
    """Return an error of the model: a list of problems with their places."""
    detail = [{"loc": ["body", *filter(None, field.split("."))], "msg": message, "type": kind}]
    return json_answer(422, {"detail": detail}, headers)


def refusal(reason: str, headers: dict[str, str]) -> Answer:
    """Return the answer of the fault ``refuse``."""
    match reason:
        case "task":
            return unknown_request()
        case "envelope":
            return model_error("prompt", "the prompt is not allowed", "content_policy_violation", headers)
        case "invalid":
            return model_error("prompt", "the input is invalid", "value_error", headers)
        case _:
            return host_error(*_HOST_REFUSALS[reason], headers)


def unknown_request() -> Answer:
    """Return the answer for a request that does not exist."""
    return json_answer(404, {"status": "NOT_FOUND"})


def addresses(origin: str, task_id: str) -> dict[str, str]:
    """Return the three addresses of a request."""
    root = f"{origin}/{OWNER_AND_APP}/requests/{task_id}"
    return {"response_url": root, "status_url": f"{root}/status", "cancel_url": f"{root}/cancel"}


def receipt_answer(origin: str, task: Task, position: int) -> Answer:
    """Return the reply to an accepted submission."""
    receipt = {"request_id": task.id, **addresses(origin, task.id), "queue_position": position}
    return json_answer(200, receipt, {"x-fal-request-id": task.id})


def _is_queued(task: Task, view: FeedView) -> bool:
    return view.now < task.starts_at or view.share < QUEUED_SHARE


def status_answer(task: Task, view: FeedView, origin: str) -> Answer:
    """Return the reply to a poll: 202 until the request is completed, then 200."""
    done = view.share >= 1.0
    word = "COMPLETED" if done else "IN_QUEUE" if _is_queued(task, view) else "IN_PROGRESS"
    reply: dict[str, Any] = {
        "status": word if view.word is None else view.word,
        "request_id": task.id,
        **addresses(origin, task.id),
    }
    match word:
        case "IN_QUEUE":
            reply["queue_position"] = view.queue_position
        case "IN_PROGRESS":
            reply["logs"] = None
        case _:
            reply |= {"logs": None, "metrics": {"inference_time": round(task.settles_at - task.created_at, 3)}}
            if task.failure is not None:
                reply |= {"error": task.failure, "error_type": _failure_kind(task)}
    if view.word == "":
        del reply["status"]
    return json_answer(200 if done else 202, reply, {"x-fal-request-id": task.id})


def _failure_kind(task: Task) -> str:
    return "content_policy_violation" if task.failure_code == "content_moderation" else task.failure_code


def result_answer(task: Task, view: FeedView) -> Answer:
    """Return the result of a request: the video, the failure with its own status, or 400 while it is in progress."""
    headers = {"x-fal-request-id": task.id}
    if view.share < 1.0:
        return host_error(400, "request_in_progress", "Request is still in progress", headers)
    if task.failure is None:
        billed = {**headers, "X-Fal-Billable-Units": "1"}
        return json_answer(200, _result(task, view), billed)
    status = _FAILURE_STATUSES.get(task.failure_code, 500)
    kind = _failure_kind(task)
    final = {**headers, "X-Fal-Error-Type": kind, "X-Fal-No-Retry": "1", "X-Fal-Billable-Units": "0"}
    if status == 422:
        return model_error("prompt", task.failure, kind, final)
    return host_error(status, kind, task.failure, final)


def _result(task: Task, view: FeedView) -> dict[str, Any]:
    if not view.urls:
        return {"video": None}
    name = view.files["video"].partition("?")[0].rsplit("/", 1)[-1]
    return {"video": {"url": view.files["video"], "content_type": "video/mp4", "file_name": name}, "seed": task.seed}


def cancel_answer(*, is_done: bool) -> Answer:
    """Return the reply to a cancellation of an existing request."""
    if is_done:
        return json_answer(400, {"status": "ALREADY_COMPLETED"})
    return json_answer(202, {"status": "CANCELLATION_REQUESTED"})


def webhook_body(task: Task, view: FeedView) -> dict[str, Any]:
    """Return the body of the webhook of a settled request."""
    common = {"request_id": task.id, "gateway_request_id": task.id}
    payload = result_answer(task, view).json()
    if task.failure is None:
        return {**common, "status": "OK", "payload": payload, "error": None}
    return {**common, "status": "ERROR", "payload": payload, "error": task.failure}
