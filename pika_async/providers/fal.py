"""fal: Pika's models behind fal's queue, an operation a path, with handles, results of their own and signed webhooks.

Sources: fal's documentation, its released client and the pages of the Pika models on its site, read in November 2026;
never tried against the live service. Not documented, and so not sent: pictures as data URIs, although other pages of
fal take them. A video goes to pikaswaps, whose prompt says what to replace. Its region and its picture, and
pikadditions, which needs a picture, cannot be expressed beside a video. A submission whose answer was lost is a doubt:
no idempotency key is documented; its webhook may settle it.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from pika_async.models import GenerationRequest
from pika_async.models.fields import EFFECTS, is_url
from pika_async.providers import _fal_queue as queue
from pika_async.providers._abilities import Authorization
from pika_async.providers._capabilities import Capability, inline
from pika_async.providers._fal_webhooks import FAL_SIGNATURE
from pika_async.providers._provider import Dialect, Provider
from pika_async.providers._wire import NO_CALLBACK_URL

__all__ = ["FAL", "FAL_QUEUE"]

#: Path of each operation below the owner and the app.
_OPERATIONS: Final = {
    "text": "v2.2/text-to-video", "image": "v2.2/image-to-video", "ingredients": "v2.2/pikascenes",
    "video": "v2/pikaswaps",
}  # fmt: skip
_EFFECT: Final = "v1.5/pikaffects"
#: The model of each operation.
_MODELS: Final = {"text": "2.2", "image": "2.2", "ingredients": "2.2", "video": "2.0"}
#: The effects have a model of their own.
_EFFECT_MODEL: Final = "1.5"
_RATIOS: Final = ("16:9", "9:16", "1:1", "4:5", "5:4", "3:2", "2:3")
_RESOLUTIONS: Final = ("720p", "1080p")
_DURATIONS: Final = (5, 10)


def _path(_provider: Provider, request: GenerationRequest, callback_url: str) -> str:
    path = f"/{queue.APP}/{_OPERATIONS[request.kind] if request.effect is None else _EFFECT}"
    if callback_url in {"", NO_CALLBACK_URL}:
        return path
    return f"{path}?fal_webhook={quote(callback_url, safe='')}"


def _body(_provider: Provider, request: GenerationRequest, _callback_url: str) -> dict[str, Any]:
    ratio = request.ratio
    fields = {
        "prompt": request.prompt,
        "image_url": None if request.image is None else inline(request.image),
        "video_url": None if request.video is None else inline(request.video),
        "image_urls": [inline(ingredient) for ingredient in request.ingredients] or None,
        "ingredients_mode": request.ingredients_mode,
        "pikaffect": request.effect,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "aspect_ratio": None if ratio is None else f"{ratio.numerator}:{ratio.denominator}",
        "resolution": request.resolution,
        "duration": request.duration,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _effects_are_for_images(provider: Provider, request: GenerationRequest) -> None:
    if request.effect is not None and request.kind != "image":
        raise provider.refusal("effect", request.effect, f"must come with an image at {provider.title}; give one")


def _edits_keep_their_size(provider: Provider, request: GenerationRequest) -> None:
    if request.effect is None and request.kind != "video":
        return
    what = "a video" if request.effect is None else "an effect"
    for field in ("aspect_ratio", "resolution", "duration"):
        value = getattr(request, field)
        if value is not None:
            reason = f"must be left out with {what} at {provider.title}, whose page documents none"
            raise provider.refusal(field, value, reason)


def _values_are_documented(provider: Provider, request: GenerationRequest) -> None:
    ratio = request.ratio
    if ratio is not None and request.kind == "image":
        reason = f"must be left out with image input at {provider.title}, which uses the ratio of that input"
        raise provider.refusal("aspect_ratio", request.aspect_ratio, reason)
    if ratio is not None and f"{ratio.numerator}:{ratio.denominator}" not in _RATIOS:
        reason = f"must be one of {', '.join(_RATIOS)} at {provider.title}"
        raise provider.refusal("aspect_ratio", request.aspect_ratio, reason)
    if request.strict and request.resolution not in {None, *_RESOLUTIONS}:
        reason = f"must be {' or '.join(_RESOLUTIONS)} at {provider.title}; strict=False (--no-strict) sends any text"
        raise provider.refusal("resolution", request.resolution, reason)
    if request.duration not in {None, *_DURATIONS}:
        reason = f"must be 5 or 10 seconds at {provider.title}; give one of them or leave it out"
        raise provider.refusal("duration", request.duration, reason)


def _the_path_is_the_model(provider: Provider, request: GenerationRequest) -> None:
    model = _MODELS[request.kind] if request.effect is None else _EFFECT_MODEL
    if request.model not in {None, model}:
        what = f"{request.kind} input" if request.effect is None else "an effect"
        reason = f"must be {model} with {what} at {provider.title}; give that or leave it out"
        raise provider.refusal("model", request.model, reason)


def _ingredients_are_urls(provider: Provider, request: GenerationRequest) -> None:
    for number, ingredient in enumerate(request.ingredients):
        if not is_url(ingredient):
            raise provider.url_only(f"ingredients[{number}]", ingredient)


FAL_QUEUE: Final = Dialect(
    name="fal-queue",
    create_path=_path,
    create_body=_body,
    receipt=queue.read_receipt,
    poll=queue.poll,
    snapshot=queue.read_status,
    torn_id=queue.TORN_ID,
    poll_handle=queue.poll_handle,
    addresses=queue.addresses,
    failure=queue.read_errors,
    result=queue.result,
    read_result=queue.read_result,
    cancel=queue.cancel,
    read_cancel=queue.read_cancel,
)

FAL: Final = Provider(
    name="fal",
    title="fal",
    dialect=FAL_QUEUE,
    base_url="https://queue.fal.run",
    origins=("https://queue.falrun.com",),
    api_key_env="FAL_KEY",
    authorization=Authorization(scheme="Key"),
    documentation="https://docs.fal.ai, Queue and Webhooks; https://fal.ai/models, Pika",
    account_page="https://fal.ai/dashboard",
    capabilities={
        "image": Capability("image_url", "a URL"),
        "video": Capability("video_url", "a URL (pikaswaps); the prompt says what to replace"),
        "ingredients": Capability("image_urls", "URLs (pikascenes)"),
        "ingredients_mode": Capability("ingredients_mode", "precise (default) or creative"),
        "effect": Capability("pikaffect", "16 effects, with an image"),
        "aspect_ratio": Capability("aspect_ratio", "7 ratios, default 16:9; text and ingredients"),
        "frame_rate": Capability(None, "its pages document no frame rate"),
        "camera": Capability(None, "its pages document no camera"),
        "guidance_scale": Capability(None, "its pages document no guidance scale"),
        "motion": Capability(None, "its pages document no motion"),
        "negative_prompt": Capability("negative_prompt"),
        "seed": Capability("seed"),
        "sfx": Capability(None, "its pages document no switch for sound"),
        "extend": Capability(None, "its pages document no extension of a video"),
        "model": Capability("the path", "2.2; 2.0 for a video, 1.5 with an effect"),
        "duration": Capability("duration", "5 or 10 seconds, default 5; not with an effect or a video"),
        "resolution": Capability("resolution", "720p or 1080p; not with an effect or a video"),
        "last_image": Capability(None, "its pages document no last image"),
    },
    effects=EFFECTS,
    models=("2.2", "2.0", "1.5"),
    takes_callback=True,
    rules=(
        _effects_are_for_images,
        _edits_keep_their_size,
        _values_are_documented,
        _the_path_is_the_model,
        _ingredients_are_urls,
    ),
    callback_signature=FAL_SIGNATURE,
    verified=False,
)
