"""Reply bodies of the four gateways, as their pages document them. Pure: does not handle connections.

Sources: CometAPI "PIKA reference text generation" and "pika feed" (envelope dialect); YEScale "Create Video by Pika",
gpt.ge "Task: Generate Video" and the native page "Pika Video" (videos dialect).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Literal, get_args

import attrs

from pika_async.emulator.records import Answer, Task

__all__ = [
    "QUEUED_SHARE",
    "Envelope",
    "FeedView",
    "create_answer",
    "error_answer",
    "feed_answer",
    "feed_data",
    "json_answer",
    "not_found",
]

#: The documented shapes of an envelope feed: ``a`` is today's page; ``b`` has a word as its code; ``b-old`` carries
#: the result URL in ``fail_reason``; ``c`` is flat with ``video_url``; ``c-result`` is flat with ``result_url``.
Envelope = Literal["a", "b", "b-old", "c", "c-result"]
ENVELOPES: tuple[str, ...] = get_args(Envelope)

# Shares of a generation until which a task is reported as fresh (no state yet) and as queued.
_FRESH_SHARE = 0.05
QUEUED_SHARE = 0.15


@attrs.frozen(kw_only=True)
class FeedView:
    """Values of one feed answer: the task's elapsed share and files, and the changes that a fault makes to them.

    ``epoch`` is the unix time at which the gateway's clock is 0. ``files`` maps ``video share poster thumbnail`` to
    URLs. ``word`` replaces the status word (``None``: unchanged, ``""``: omitted). ``progress`` replaces the number.
    """

    now: float
    epoch: float
    share: float
    duration: float
    files: dict[str, str]
    word: str | None = None
    progress: Any = None
    urls: bool = True
    #: Shape of the output of Pika's own API, and the number of requests before this one in fal's queue.
    output: str = "video"
    queue_position: int = 0


def json_answer(status: int, value: object, headers: dict[str, str] | None = None) -> Answer:
    """Return a JSON answer. Text outside ASCII is escaped, which preserves lone surrogates."""
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())


def not_found() -> Answer:
    """Return the HTML page that a gateway's web server sends for an unknown path."""
    page = "<!DOCTYPE html><html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1></body></html>"
    return Answer(404, {"Content-Type": "text/html; charset=utf-8"}, page.encode())


def error_answer(
    provider: str, status: int, code: str, message: str, *, field: str = "", headers: dict[str, str] | None = None
) -> Answer:
    """Return an error in the dialect's form: code, message and data for CometAPI's tasks, else an ``error`` object."""
    if provider == "cometapi" and code == "task_not_exist":
        return json_answer(status, {"code": code, "message": message, "data": None}, headers)
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "api_error"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "rate_limit_error"
    error = {"message": message, "type": kind, "param": field or None, "code": code}
    return json_answer(status, {"error": error}, headers)


def create_answer(provider: str, task_id: str) -> Answer:
    """Return the reply to an accepted create."""
    if provider == "cometapi":
        data = {"task_id": task_id}
        return json_answer(200, {"code": 200, "msg": "success", "ip": "127.0.0.1", "exec_time": 0, "data": data})
    if provider == "yescale":
        return json_answer(200, {"id": task_id, "message": "YEScale - Pika Video Generation - Submit"})
    return json_answer(200, {"id": task_id})


def feed_answer(task: Task, view: FeedView, envelope: Envelope) -> Answer:
    """Return the reply to a poll of an existing task."""
    if task.provider != "cometapi":
        return json_answer(200, _videos_feed(task, view))
    return json_answer(200, _ENVELOPES[envelope](task, view))


def feed_data(task: Task, view: FeedView) -> dict[str, Any]:
    """Return the ``data`` object of CometAPI's feed, which is also the body of its callbacks."""
    status, state = _comet_status(task, view)
    fresh = view.share < _FRESH_SHARE
    done = status == "3"
    files = view.files if done and view.urls else {}
    created = int(view.epoch + task.created_at)
    updated = int(view.epoch + min(view.now, task.settles_at))
    failed = status == "2"
    data = {
        "task_id": task.id,
        "state": state,
        "status": status,
        "prompt": task.prompt,
        "prompt_en": None,
        "video_url": files.get("video"),
        "poster": files.get("poster"),
        "last_frame": None,
        "msg": task.failure if failed else None,
        "point": "400",
        "refund": "1" if failed else "0",
        "create_time": "0" if fresh else str(created),
        "update_time": "0" if fresh else str(updated),
    }
    if view.word is not None:
        data["state"] = data["status"] = view.word
        if not view.word:
            del data["state"], data["status"]
    return data


def _comet_status(task: Task, view: FeedView) -> tuple[str, str]:
    if view.share >= 1.0:
        return ("2", "error") if task.failure else ("3", "succeeded")
    if view.share < _FRESH_SHARE:
        return "0", ""
    return ("0", "pending") if view.share < QUEUED_SHARE else ("1", "running")


def _envelope_a(task: Task, view: FeedView) -> dict[str, Any]:
    return {"code": 200, "msg": "成功", "data": feed_data(task, view), "exec_time": 0}


def _envelope_status(task: Task, view: FeedView) -> str:
    if view.word is not None:
        return view.word
    if view.share >= 1.0:
        return "FAILURE" if task.failure else "SUCCESS"
    if view.share < _FRESH_SHARE:
        return "SUBMITTED"
    return "QUEUED" if view.share < QUEUED_SHARE else "IN_PROGRESS"


def _percent(view: FeedView) -> str:
    progress = view.progress if view.progress is not None else int(view.share * 100)
    return f"{progress}%"


def _envelope_b(task: Task, view: FeedView, *, old: bool = False) -> dict[str, Any]:
    word = _envelope_status(task, view)
    done = view.share >= 1.0
    reason = task.failure or "" if done else ""
    if old and done and not task.failure and view.urls:
        reason = view.files["video"]
    data = {
        "task_id": task.id,
        "status": word,
        "fail_reason": reason,
        "submit_time": int(view.epoch + task.created_at),
        "start_time": int(view.epoch + task.created_at) if view.share >= QUEUED_SHARE else 0,
        "finish_time": int(view.epoch + task.settles_at) if done else 0,
        "progress": _percent(view),
        "data": None if old else feed_data(task, view),
    }
    if not word:
        del data["status"]
    return {"code": "success", "message": "", "data": data}


def _envelope_b_old(task: Task, view: FeedView) -> dict[str, Any]:
    return _envelope_b(task, view, old=True)


def _envelope_c(task: Task, view: FeedView, *, name: str = "video_url") -> dict[str, Any]:
    done = view.share >= 1.0
    word = _envelope_status(task, view)
    reply: dict[str, Any] = {"task_id": task.id, "progress": _percent(view)}
    if word:
        reply["status"] = word
    reply[name] = view.files["video"] if done and not task.failure and view.urls else ""
    reply["fail_reason"] = task.failure or "" if done else ""
    return reply


def _envelope_c_result(task: Task, view: FeedView) -> dict[str, Any]:
    return _envelope_c(task, view, name="result_url")


_ENVELOPES: dict[str, Callable[[Task, FeedView], dict[str, Any]]] = {
    "a": _envelope_a,
    "b": _envelope_b,
    "b-old": _envelope_b_old,
    "c": _envelope_c,
    "c-result": _envelope_c_result,
}


def _videos_feed(task: Task, view: FeedView) -> dict[str, Any]:
    reply: dict[str, Any] = {"id": task.id, "promptText": task.prompt, "videos": []}
    if view.share >= _FRESH_SHARE or view.word is not None:
        reply["videos"].append(_one_video(task, view))
    return reply


def _one_video(task: Task, view: FeedView) -> dict[str, Any]:
    done = view.share >= 1.0
    word = "queued" if view.share < QUEUED_SHARE else "pending"
    if done:
        word = "error" if task.failure else "finished"
    files = view.files if word == "finished" and view.urls else {}
    progress = view.progress
    if progress is None:
        # A failed task keeps the progress it had reached.
        progress = 100 if word == "finished" else min(99, int(view.share * 100))
    video = {
        "id": task.id,
        "status": view.word if view.word is not None else word,
        "seed": task.seed if done or task.seed_requested else None,
        "resultUrl": files.get("video"),
        "sharingUrl": files.get("share"),
        "videoPoster": files.get("poster"),
        "imageThumb": files.get("thumbnail"),
        "duration": int(view.duration) if view.duration == int(view.duration) else view.duration,
        "error": task.failure or "" if done else "",
        "progress": progress,
    }
    if not video["status"]:
        del video["status"]
    return video


def slug(prompt: str) -> str:
    """Return a prompt as the gateways write it in file names: ``Plane fly`` becomes ``Plane_fly``."""
    return re.sub(r"[^A-Za-z0-9]+", "_", prompt[:60]).strip("_") or "video"
