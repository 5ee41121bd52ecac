"""Envelope dialect, `{code, msg, data}`: CometAPI. Encodes and decodes; judges nothing and sends nothing.

Fields and status words are from CometAPI's public pages and, where those are silent, from the pages of a gateway with
the same wire ("the twin"), read in November 2026. A feed has been documented in three shapes, and all are read:
(a) `{code: 200, data: {task_id, status: "1", state: "running", ...}}`,
(b) `{code: "success", data: {task_id, status: "IN_PROGRESS", progress: "50%", data: {...}}}`,
(c) `{task_id, status, progress, video_url, ...}` without a wrapper.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import attrs

from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState, Video
from pika_async.providers._fields import Address, Number, Record, Text, as_text, as_url, converter, percent, rename
from pika_async.providers._provider import Dialect, Provider, inline
from pika_async.providers._receipts import is_one_word
from pika_async.providers._wire import DecodeError, HttpRequest

__all__ = ["ENVELOPE"]

#: State for each word of `status` and `state`. Shape (a) has numbers, as text; shapes (b) and (c) have words.
_STATES: Final = {
    "0": TaskState.QUEUED, "": TaskState.QUEUED, "pending": TaskState.QUEUED, "not_start": TaskState.QUEUED,
    "submitted": TaskState.QUEUED, "queued": TaskState.QUEUED,
    "1": TaskState.RUNNING, "running": TaskState.RUNNING, "in_progress": TaskState.RUNNING,
    "unknown": TaskState.RUNNING,
    "2": TaskState.FAILED, "error": TaskState.FAILED, "failed": TaskState.FAILED, "failure": TaskState.FAILED,
    "3": TaskState.SUCCEEDED, "succeeded": TaskState.SUCCEEDED, "success": TaskState.SUCCEEDED,
}  # fmt: skip


@attrs.frozen(kw_only=True)
class _Parameters:
    guidance_scale: int | None = None
    motion: int | None = None
    negative_prompt: str | None = None
    seed: int | None = None


@attrs.frozen(kw_only=True)
class _Options:
    frame_rate: int | None = None
    camera: dict[str, str] | None = None
    parameters: _Parameters | None = None


@attrs.frozen(kw_only=True)
class _Create:
    prompt: str
    callback_url: str
    ratio: str | None = None
    style: str | None = None
    sfx: bool | None = None
    image: str | None = None
    video: str | None = None
    model: float | None = None
    options: _Options | None = None


@attrs.frozen(kw_only=True)
class _Task:
    """A task of any of the three shapes."""

    task_id: Text | None = None
    state: Text | None = None
    status: Text | None = None
    video_url: Address | None = None
    result_url: Address | None = None
    poster: Address | None = None
    last_frame: Address | None = None
    msg: Text | None = None
    fail_reason: Text | None = None
    progress: Number | None = None
    point: Number | None = None
    refund: Number | None = None
    create_time: Number | None = None
    update_time: Number | None = None
    submit_time: Number | None = None
    finish_time: Number | None = None
    data: Record = attrs.field(factory=lambda: Record({}))


_converter = converter()
rename(_converter, _Parameters, guidance_scale="guidanceScale", negative_prompt="negativePrompt")
rename(_converter, _Options, frame_rate="frameRate")


def _create_body(provider: Provider, request: GenerationRequest, callback_url: str) -> dict[str, Any]:
    parameters = _Parameters(
        guidance_scale=request.guidance_scale,
        motion=request.motion,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
    )
    options = _Options(
        frame_rate=request.frame_rate,
        camera=(request.camera.moves or None) if request.camera else None,
        parameters=parameters if parameters != _Parameters() else None,
    )
    ratio = request.ratio
    model = request.model or provider.default_model
    body = _Create(
        prompt=request.prompt,
        callback_url=callback_url,
        ratio=(f"{ratio.numerator}:{ratio.denominator}" if ratio else "16:9") if request.kind == "text" else None,
        style=request.effect,
        # The twin's page lists `sfx` as required for a video.
        sfx=False if request.sfx is None and request.kind == "video" else request.sfx,
        image=inline(request.image) if request.image is not None else None,
        video=inline(request.video) if request.video is not None else None,
        model=float(model) if model else None,
        options=options if options != _Options() else None,
    )
    encoded: dict[str, Any] = _converter.unstructure(body)
    return encoded


def _receipt(body: Any) -> Receipt:
    data = body.get("data") if isinstance(body, dict) else None
    holder = data if isinstance(data, dict) else body if isinstance(body, dict) else {}
    # The twin has also put the bare id where the object was.
    task_id = as_text((data if is_one_word(data) else None) if isinstance(data, str) else holder.get("task_id"))
    return Receipt(task_id=task_id or None, raw=body)


def _poll(base_url: str, task_id: str) -> HttpRequest:
    body = json.dumps({"task_id": task_id}).encode()
    return HttpRequest(method="POST", url=f"{base_url}/pika/feed", body=body)


def _snapshot(body: Any, requested_id: str) -> Snapshot:
    task = _task_in(body)
    inner = _converter.structure(task.data, _Task)
    word, known_word = _status_word(task)
    state = _STATES.get(word, TaskState.RUNNING)
    task_id = task.task_id or requested_id
    video = _video(task, inner, task_id) if state is TaskState.SUCCEEDED else None
    if state is TaskState.SUCCEEDED and video is None:
        state = TaskState.SUCCEEDED_WITHOUT_URL
    points, refunded = _account(task.point, task.refund)
    return Snapshot(
        task_id=task_id,
        state=state,
        word=word,
        known_word=known_word,
        video=video,
        progress=percent(task.progress),
        reason=(task.msg or task.fail_reason or "") if state is TaskState.FAILED else "",
        created_at=task.create_time or task.submit_time or None,
        updated_at=task.update_time or task.finish_time or None,
        points=points,
        refunded=refunded,
        raw=body,
    )


def _task_in(body: dict[str, Any]) -> _Task:
    """Return the task of an answer: its `data`, or the answer itself in shape (c).

    :raises DecodeError: if the answer has a status, but no task that it belongs to.
    """
    data = body.get("data")
    if "task_id" not in body and isinstance(data, dict):
        return _converter.structure(data, _Task)
    task = _converter.structure(body, _Task)
    if task.task_id is None and "status" in body:
        raise DecodeError("the answer must name a task beside its status")
    return task


def _status_word(task: _Task) -> tuple[str, bool]:
    """Return the status word of a task in lower case, and whether it is documented.

    Of `status` and `state` a documented word is preferred, and an empty one counts only where there is no other.
    """
    given = [word.strip().lower() for word in (task.status, task.state) if word is not None]
    words = [word for word in given if word] or given
    word = next((word for word in words if word in _STATES), words[0] if words else "")
    return word, bool(words) and word in _STATES


def _video(task: _Task, inner: _Task, task_id: str) -> Video | None:
    """Return the video of a task that has succeeded, None if no URL is given. `inner` is the task's own `data`."""
    url = task.video_url or task.result_url or inner.video_url or inner.result_url
    # In shape (b) an older task has its URL in the field for the reason of a failure.
    url = url or as_url(task.fail_reason)
    if url is None:
        return None
    poster, last_frame = task.poster or inner.poster, task.last_frame or inner.last_frame
    return Video(url=url, task_id=task_id, poster=poster, last_frame=last_frame)


def _account(point: float | None, refund: float | None) -> tuple[float | None, float | None]:
    """Return the points that stay charged and those that were given back.

    `refund` is a flag at one gateway (1: all were given back) and an amount at another.
    """
    if point is None or point < 0:
        return None, None
    if refund is None or refund < 0:
        return point, None
    returned = point if refund == 1 else min(point, refund)
    return point - returned, returned


ENVELOPE: Final = Dialect(
    name="envelope",
    create_path="/pika/pro/generate",
    create_body=_create_body,
    receipt=_receipt,
    poll=_poll,
    snapshot=_snapshot,
    torn_id=re.compile(rb'"task_id"\s*:\s*"((?:[^"\\]|\\.){1,256})"'),
)
