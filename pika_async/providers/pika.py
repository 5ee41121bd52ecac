"""Pika's own API: Pika 2.5 and H3 from text and pictures, frames, additions to a video, effects; with idempotency keys.

Sources: see `_media_jobs`. Not to be confused with `native`, any host of the shape that others call Pika's: neither
reads the key of the other.
"""

from __future__ import annotations

from typing import Final

from pika_async.models import GenerationRequest
from pika_async.models.addresses import unreachable_kind
from pika_async.models.fields import EFFECTS, is_url
from pika_async.providers._abilities import Authorization, FileUploads, Idempotency
from pika_async.providers._capabilities import Capability
from pika_async.providers._media_jobs import H3, MEDIA_JOBS, create_upload, read_upload
from pika_async.providers._provider import Provider

__all__ = ["PIKA"]

PIKA_URL: Final = "https://api.dev.pika.art"
#: Seconds.
_TEXT_DURATIONS: Final[tuple[int, ...]] = (5,)
_DURATIONS: Final[tuple[int, ...]] = (5, 10)
_TRANSITIONS: Final = tuple(range(1, 11))
_H3_DURATIONS: Final = tuple(range(5, 16))
_RESOLUTIONS: Final = ("720p", "1080p")
_H3_RESOLUTIONS: Final = ("480p", "768p", "1080p", "2k", "4k")
#: Fields that an effect does not take.
_NOT_WITH_EFFECTS: Final = ("negative_prompt", "resolution", "duration", "last_image", "model")


def _inputs_are_https(provider: Provider, request: GenerationRequest) -> None:
    for field in ("image", "last_image", "video"):
        media = getattr(request, field)
        if media is None or not is_url(media) or str(media).lower().startswith("https://"):
            continue
        if unreachable_kind(str(media), PIKA_URL) is None:  # else it is refused for that
            raise provider.refusal(field, media, f"must be an https URL at {provider.title}; give one, or a local file")


def _model_fits(provider: Provider, request: GenerationRequest) -> None:
    if request.strict and request.model not in {None, *provider.models}:
        reason = (
            f"must be {' or '.join(provider.models)} at {provider.title}; strict=False (--no-strict) sends any text"
        )
        raise provider.refusal("model", request.model, reason)
    is_other = request.model not in {None, provider.default_model}
    if is_other and (request.video is not None or request.last_image is not None):
        field = "video" if request.video is not None else "last_image"
        raise provider.refusal(
            "model", request.model,
            f"must be {provider.default_model} with the field {field} at {provider.title}; leave it out",
        )  # fmt: skip
    if request.last_image is not None and request.image is None:
        raise provider.refusal(
            "last_image", request.last_image, f"must come with an image at {provider.title}; give the first frame too"
        )


def _effect_takes_a_picture(provider: Provider, request: GenerationRequest) -> None:
    if request.effect is None:
        return
    if request.image is None:
        raise provider.refusal(
            "effect", request.effect,
            f"must come with an image at {provider.title}, whose effects for videos take no prompt; give an image",
        )  # fmt: skip
    for field in _NOT_WITH_EFFECTS:
        if getattr(request, field) is not None:
            raise provider.refusal(
                field, getattr(request, field), f"must be left out with an effect at {provider.title}"
            )


def _h3_alone(provider: Provider, request: GenerationRequest) -> None:
    is_h3 = request.model == H3
    field, needs = ("negative_prompt", f"another model than {H3}") if is_h3 else ("aspect_ratio", f"the model {H3}")
    if getattr(request, field) is not None:
        raise provider.refusal(
            field, getattr(request, field), f"must be left out at {provider.title}, or needs {needs}"
        )


def _size_is_documented(provider: Provider, request: GenerationRequest) -> None:
    is_h3 = request.model == H3
    durations = _TEXT_DURATIONS if request.kind == "text" else _DURATIONS
    durations = _H3_DURATIONS if is_h3 else durations if request.last_image is None else _TRANSITIONS
    choices: dict[str, tuple[object, ...]] = {
        "duration": durations,
        "resolution": _H3_RESOLUTIONS if is_h3 else _RESOLUTIONS,
    }
    for field, allowed in choices.items():
        value = getattr(request, field)
        if value is not None and value not in allowed and (request.strict or field == "duration"):
            raise provider.refusal(
                field, value, f"must be one of {', '.join(map(str, allowed))} for this request at {provider.title}"
            )


PIKA: Final = Provider(
    name="pika",
    title="Pika",
    dialect=MEDIA_JOBS,
    base_url=PIKA_URL,
    api_key_env="PIKA_DEV_API_KEY",
    documentation="https://dev.pika.art, as others describe it",
    account_page="https://dev.pika.art",
    capabilities={
        "image": Capability("image", "an https URL, or a local file up to 20 MB"),
        "video": Capability("video", "to add to (Pikadditions): an https URL, or a local file up to 50 MB"),
        "ingredients": Capability(None, "its wire has no ingredients"),
        "ingredients_mode": Capability(None, "its wire has no ingredients"),
        "effect": Capability("pikaffect", "with an image; the prompt replaces that of the effect"),
        "aspect_ratio": Capability("aspect_ratio", f"text; model {H3} only"),
        "frame_rate": Capability(None, "its wire has no frame rate"),
        "camera": Capability(None, "its wire has no camera moves; describe them in the prompt"),
        "guidance_scale": Capability(None, "its wire has no guidance scale"),
        "motion": Capability(None, "its wire has no strength of motion"),
        "negative_prompt": Capability("negative_prompt", f"not with an effect, nor with model {H3}"),
        "seed": Capability("seed"),
        "sfx": Capability(None, "its wire has no switch for sound"),
        "extend": Capability(None, "its wire has no extension of a video"),
        "model": Capability("in the path", f"2.5 (default) or {H3}"),
        "duration": Capability(
            "duration_s", f"5; 5 or 10 with an image or a video; 1 to 10 between two images; 5 to 15 with {H3}"
        ),
        "resolution": Capability("resolution", f"720p or 1080p; with {H3} 480p, 768p, 1080p, 2k or 4k"),
        "last_image": Capability("images", "with an image (Pikaframes)"),
    },
    effects=EFFECTS,
    models=("2.5", H3),
    default_model="2.5",
    rules=(_effect_takes_a_picture, _model_fits, _h3_alone, _size_is_documented, _inputs_are_https),
    authorization=Authorization(header="X-API-Key", scheme=""),
    idempotency=Idempotency(window=86_400),
    uploads=FileUploads(
        create=create_upload, read=read_upload, max_bytes={"image": 20_000_000, "video": 50_000_000}, lifetime=3600
    ),
    verified=False,
)
