"""Videos dialect, `{id, ..., videos: [...]}`: gpt.ge, YEScale and every host that serves the native shape.

Encodes and decodes; judges nothing and sends nothing.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final
from urllib.parse import quote

import attrs
from cattrs import Converter

from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState
from pika_async.providers._capabilities import inline
from pika_async.providers._feeds import read_feed
from pika_async.providers._fields import Record, Text, converter, rename
from pika_async.providers._provider import Dialect, Provider
from pika_async.providers._wire import HttpRequest

__all__ = ["VIDEOS"]

#: State for each documented word of `status`.
_STATES: Final = {
    "queued": TaskState.QUEUED,
    "pending": TaskState.QUEUED,
    "finished": TaskState.SUCCEEDED,
    "error": TaskState.FAILED,
}
# Defaults of the gateways' pages. Their examples send all of them, and gpt.ge lists the objects as required.
#: Frames a second.
_DEFAULT_FRAME_RATE: Final = 24
_DEFAULT_GUIDANCE_SCALE: Final = 12
_DEFAULT_MOTION: Final = 1
#: Width by height.
_DEFAULT_RATIO: Final = 16 / 9


@attrs.frozen(kw_only=True)
class _Parameters:
    guidance_scale: int
    motion: int
    negative_prompt: str
    seed: int | None = None


@attrs.frozen(kw_only=True)
class _Options:
    frame_rate: int
    camera: dict[str, str]
    parameters: _Parameters
    extend: bool
    aspect_ratio: float | None = None
    ingredients_mode: str | None = None


@attrs.frozen(kw_only=True)
class _Create:
    prompt_text: str
    options: _Options
    model: str | None = None
    effect: str | None = None
    image: str | None = None
    video: str | None = None
    ingredient: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class _Submitted:
    id: Text | None = None
    task_id: Text | None = None
    data: Record = attrs.field(factory=lambda: Record({}))


@cache
def _converter() -> Converter:
    """Return the converter, made for the first request: most processes use one dialect."""
    result = converter()
    rename(result, _Parameters, guidance_scale="guidanceScale", negative_prompt="negativePrompt")
    rename(
        result, _Options,
        aspect_ratio="aspectRatio", frame_rate="frameRate", ingredients_mode="ingredients-mode",
    )  # fmt: skip
    rename(result, _Create, prompt_text="promptText", effect="pikaffect")
    return result


def _aspect_ratio(request: GenerationRequest) -> float | None:
    if request.ratio is not None:
        return float(request.ratio)
    # The pages ask to leave the field out with a picture or a clip, whose own ratio is used.
    return None if request.kind in {"image", "video"} else _DEFAULT_RATIO


def _create_body(provider: Provider, request: GenerationRequest, _callback_url: str) -> dict[str, Any]:
    model = request.model or ("2.0" if request.ingredients else provider.default_model)
    body = _Create(
        prompt_text=request.prompt,
        model=model,
        effect=request.effect,
        image=inline(request.image) if request.image is not None else None,
        video=inline(request.video) if request.video is not None else None,
        ingredient=tuple(inline(ingredient) for ingredient in request.ingredients),
        options=_Options(
            aspect_ratio=_aspect_ratio(request),
            frame_rate=_DEFAULT_FRAME_RATE if request.frame_rate is None else request.frame_rate,
            camera=request.camera.moves if request.camera else {},
            parameters=_Parameters(
                guidance_scale=_DEFAULT_GUIDANCE_SCALE if request.guidance_scale is None else request.guidance_scale,
                motion=_DEFAULT_MOTION if request.motion is None else request.motion,
                negative_prompt=request.negative_prompt or "",
                seed=request.seed,
            ),
            extend=request.extend,
            ingredients_mode=(request.ingredients_mode or "precise") if request.ingredients else None,
        ),
    )
    encoded: dict[str, Any] = _converter().unstructure(body)
    return encoded


def _receipt(body: Any) -> Receipt:
    answer = _converter().structure(body if isinstance(body, dict) else {}, _Submitted)
    nested = _converter().structure(answer.data, _Submitted)
    return Receipt(task_id=answer.id or nested.task_id or answer.task_id or nested.id or None, raw=body)


def _poll(base_url: str, task_id: str) -> HttpRequest:
    return HttpRequest(method="GET", url=f"{base_url}/pika/feed/{quote(task_id, safe='')}")


def _snapshot(body: Any, requested_id: str) -> Snapshot:
    return read_feed(body, requested_id, _STATES)


VIDEOS: Final = Dialect(
    name="videos",
    create_path="/pika/generate",
    create_body=_create_body,
    receipt=_receipt,
    poll=_poll,
    snapshot=_snapshot,
    torn_id=re.compile(rb'"(?:id|task_id)"\s*:\s*"((?:[^"\\]|\\.){1,256})"'),
)
