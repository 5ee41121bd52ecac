"""The envelope dialect `{code, msg, data}`: CometAPI. Fields and words after its public pages and its twin's."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import attrs

from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState, Video
from pika_async.providers._fields import Address, Number, Record, Text, as_text, as_url, converter, rename
from pika_async.providers._provider import Dialect, Provider, inline
from pika_async.providers._wire import DecodeError, HttpRequest

__all__ = ["ENVELOPE"]

#: What each word of `status` and `state` means. Numbers come as text; words as in the drifted shapes (b) and (c).
_WORDS: Final = {
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
        # The video operation lists `sfx` as required; without a wish there is no sound.
        sfx=False if request.sfx is None and request.kind == "video" else request.sfx,
        image=inline(request.image) if request.image is not None else None,
        video=inline(request.video) if request.video is not None else None,
        model=float(model) if model else None,
        options=options if options != _Options() else None,
    )
    made: dict[str, Any] = _converter.unstructure(body)
    return made


def _receipt(body: Any) -> Receipt:
    data = body.get("data") if isinstance(body, dict) else None
    holder = data if isinstance(data, dict) else body if isinstance(body, dict) else {}
    # One drift of the twin puts the bare id where the object was.
    task_id = as_text(data if isinstance(data, str) else holder.get("task_id"))
    return Receipt(task_id=task_id or None, raw=body)


def _poll(base_url: str, task_id: str) -> HttpRequest:
    body = json.dumps({"task_id": task_id}).encode()
    return HttpRequest(method="POST", url=f"{base_url}/pika/feed", body=body)


def _snapshot(body: Any, asked: str) -> Snapshot:
    data = body.get("data")
    flat = "task_id" in body or not isinstance(data, dict)  # shape (c) has no wrapper
    task = _converter.structure(body if flat else data, _Task)
    if flat and task.task_id is None and "status" in body:
        raise DecodeError("a status, but of no task")
    inner = _converter.structure(task.data, _Task)
    said = [word.strip().lower() for word in (task.status, task.state) if word is not None]
    words = [word for word in said if word] or said  # an empty word beside a real one says nothing
    word = next((word for word in words if word in _WORDS), words[0] if words else "")
    state = _WORDS.get(word, TaskState.RUNNING)
    url = task.video_url or task.result_url or inner.video_url or inner.result_url
    if state is TaskState.SUCCEEDED and url is None:
        # Shape (b): an older task carries its address where the reason of a failure stands.
        url = as_url(task.fail_reason)
        state = TaskState.SUCCEEDED if url else TaskState.SUCCEEDED_WITHOUT_URL
    task_id = task.task_id or asked
    points, refunded = _account(task.point, task.refund)
    video = None
    if state is TaskState.SUCCEEDED and url is not None:
        video = Video(
            url=url, task_id=task_id, poster=task.poster or inner.poster, last_frame=task.last_frame or inner.last_frame
        )
    return Snapshot(
        task_id=task_id,
        state=state,
        word=word,
        known_word=word in _WORDS and bool(words),
        video=video,
        progress=None if task.progress is None else min(100, max(0, int(task.progress))),
        reason=(task.msg or task.fail_reason or "") if state is TaskState.FAILED else "",
        created_at=task.create_time or task.submit_time or None,
        updated_at=task.update_time or task.finish_time or None,
        points=points,
        refunded=refunded,
        raw=body,
    )


def _account(point: float | None, refund: float | None) -> tuple[float | None, float | None]:
    """What stays charged and what was given back. `refund`: a flag at one gateway (1: all), an amount at another."""
    if point is None or point < 0:
        return None, None
    if refund is None or refund < 0:
        return point, None
    back = point if refund == 1 else min(point, refund)
    return point - back, back


ENVELOPE: Final = Dialect(
    name="envelope",
    create_path="/pika/pro/generate",
    create_body=_create_body,
    receipt=_receipt,
    poll=_poll,
    snapshot=_snapshot,
    torn_id=re.compile(rb'"task_id"\s*:\s*"((?:[^"\\]|\\.){1,256})"'),
)
