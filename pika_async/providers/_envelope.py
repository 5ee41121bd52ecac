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
from functools import cache
from typing import Any, Final

import attrs
from cattrs import Converter

from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState
from pika_async.providers._capabilities import inline
from pika_async.providers._feeds import read_feed
from pika_async.providers._fields import as_text, converter, rename
from pika_async.providers._provider import Dialect, Provider
from pika_async.providers._receipts import is_one_word
from pika_async.providers._wire import HttpRequest

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


@cache
def _converter() -> Converter:
    """Return the converter, made for the first request: most processes use one dialect."""
    result = converter()
    rename(result, _Parameters, guidance_scale="guidanceScale", negative_prompt="negativePrompt")
    rename(result, _Options, frame_rate="frameRate")
    return result


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
    encoded: dict[str, Any] = _converter().unstructure(body)
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
    return read_feed(body, requested_id, _STATES)


ENVELOPE: Final = Dialect(
    name="envelope",
    create_path="/pika/pro/generate",
    create_body=_create_body,
    receipt=_receipt,
    poll=_poll,
    snapshot=_snapshot,
    torn_id=re.compile(rb'"task_id"\s*:\s*"((?:[^"\\]|\\.){1,256})"'),
)
