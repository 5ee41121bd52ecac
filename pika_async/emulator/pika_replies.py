"""Reply bodies of Pika's own API, as others document them. Pure: does not handle connections."""

from __future__ import annotations

from typing import Any

from pika_async.emulator.records import Answer, Task
from pika_async.emulator.replies import QUEUED_SHARE, FeedView, json_answer

__all__ = ["coded_error", "content_answer", "error", "job_answer", "money", "refusal", "unknown_job"]

_REFUSALS = {
    "rate": (429, "rate_limited", "too many jobs, please try again later"),
    "quota": (402, "insufficient_balance", "the balance is not enough for this job"),
    "envelope": (422, "content_moderation", "the prompt is not allowed"),
    "invalid": (422, "invalid_input", "the input is invalid"),
    "no-channel": (503, "provider_unavailable", "no available channel for this model"),
}


def error(status: int, message: str, headers: dict[str, str] | None = None) -> Answer:
    """Return an error in the form that has a message alone."""
    return json_answer(status, {"message": message}, headers)


def coded_error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    """Return an error in the form that has a code and a message."""
    return json_answer(status, {"error": {"code": code, "message": message}}, headers)


def refusal(reason: str, headers: dict[str, str]) -> Answer:
    """Return the answer of the fault ``refuse``."""
    match reason:
        case "key":
            return error(401, "the API key is unknown", headers)
        case "forbidden":
            return error(403, "the API key is not active", headers)
        case "task":
            return unknown_job()
        case _:
            return coded_error(*_REFUSALS[reason], headers)


def unknown_job() -> Answer:
    """Return the answer to a poll of a job that does not exist."""
    return error(404, "the job does not exist")


def _status(task: Task, view: FeedView) -> str:
    if view.share >= 1.0:
        return "completed" if task.failure is None else "failed"
    return "queued" if view.share < QUEUED_SHARE else "running"


def job_answer(task: Task, view: FeedView) -> Answer:
    """Return the job: the reply to a submission and to a poll."""
    status = _status(task, view)
    job: dict[str, Any] = {
        "id": task.id,
        "status": status if view.word is None else view.word,
        "error": {"code": task.failure_code, "message": task.failure} if status == "failed" else None,
        "output": _output(view) if status == "completed" else None,
        "billing": _billing(task, status),
    }
    if view.word == "":
        del job["status"]
    return json_answer(200, job)


def _output(view: FeedView) -> dict[str, Any] | None:
    if not view.urls:
        return None
    file = {"url": view.files["video"], "content_type": "video/mp4"}
    match view.output:
        case "videos":
            return {"media_type": "videos", "videos": [file]}
        case "images":
            return {
                "media_type": "images",
                "images": [{**file, "url": view.files["poster"], "content_type": "image/jpeg"}],
            }
        case "content":
            return {"media_type": "video"}
        case _:
            return {"media_type": "video", "video": file}


def _billing(task: Task, status: str) -> dict[str, Any]:
    if status in ("completed", "failed"):
        return {"state": "settled", "charge_micro_usd": task.micro_usd if status == "completed" else 0}
    return {"state": "pending", "charge_micro_usd": None}


def content_answer(task: Task, view: FeedView) -> Answer:
    """Return the address of a job's file, or 404 or 409 as long as there is none."""
    status = _status(task, view)
    if status == "queued":
        return error(404, "the job has no content yet")
    if status != "completed" or not view.urls:
        return error(409, f"the job is {status}")
    return json_answer(200, {"url": view.files["video"]})


def money(micro_usd: int) -> str:
    """Return an amount of millionths of a dollar as a decimal number of dollars: ``0.45``."""
    text = f"{micro_usd / 1_000_000:.6f}".rstrip("0")
    return text + "00"[: max(0, 2 - len(text.partition(".")[2]))]
