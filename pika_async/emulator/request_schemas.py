"""Schemas of create requests, checked as strictly as each gateway's page documents them. Contains no replies.

Sources: CometAPI "PIKA reference text generation" (its image and video pages are not published with it, so those two
operations follow the related pages), YEScale "Create Video by Pika", gpt.ge "Task: Generate Video", and the
native shape's page "Pika Video".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from pika_async.emulator.checks import (
    Body,
    Check,
    Field,
    Problem,
    boolean,
    check_object,
    integer,
    non_empty_text,
    number,
    one_of,
    plain_object,
    text,
    url,
    urls,
)
from pika_async.emulator.records import GenerationSpec

__all__ = ["ALL_EFFECTS", "NATIVE_EFFECTS", "SCHEMAS", "check_create", "parse_create"]

# The ten effects of the pages of YEScale and gpt.ge, the thirteen of CometAPI's and the native page, and the three more
# in the web client of the native shape's vendor.
COMMON_EFFECTS = (
    "Ta-da",
    "Deflate",
    "Crumble",
    "Dissolve",
    "Squish",
    "Inflate",
    "Melt",
    "Crush",
    "Cake-ify",
    "Explode",
)
ALL_EFFECTS = (*COMMON_EFFECTS, "Levitate", "Decapitate", "Eye-pop")
NATIVE_EFFECTS = (*ALL_EFFECTS, "Peel", "Poke", "Tear")


def _media(value: object) -> str | None:
    """Check for a URL or plain base64 ("Base64 or image URL"); a ``data:`` URI is neither."""
    if not isinstance(value, str):
        return "must be a string"
    if not value:
        return "must contain a value if present"
    if value.startswith(("http://", "https://")):
        return url(value)
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return "must be an http or https URL, or valid base64"
    return None


def _media_or_empty(value: object) -> str | None:
    # The native page's own sample sends "image": "".
    return None if value == "" else _media(value)


_frame_rate = integer(8, 24)


def _frame_rate_or_text(value: object) -> str | None:
    # YEScale's page types frameRate as a string; its own example sends the number 24.
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= len("24") else value
    return _frame_rate(value)


def _ratio(value: object) -> str | None:
    if not isinstance(value, str):
        return 'must be a string such as "16:9"'
    return None if re.fullmatch(r"[1-9]\d{0,3}:[1-9]\d{0,3}", value) else 'must be of the form "16:9"'


def _version(value: object) -> str | None:
    if not isinstance(value, str):
        return 'must be a string such as "1.5"'
    return None if re.fullmatch(r"\d{1,3}(\.\d{1,3})?", value) else 'must be a version such as "1.5"'


_CAMERA = Field(
    plain_object,
    inner={
        "pan": Field(one_of("left", "right")),
        "tilt": Field(one_of("up", "down")),
        "rotate": Field(one_of("cw", "ccw")),
        "zoom": Field(one_of("in", "out")),
    },
)
_SEED = Field(integer(0, 2**63 - 1))


def _parameters(*, required: bool, ranged: bool) -> Field:
    guidance = integer(5, 25) if ranged else integer()
    motion = integer(0, 4) if ranged else integer()
    return Field(
        plain_object,
        required,
        {"guidanceScale": Field(guidance), "motion": Field(motion), "negativePrompt": Field(text), "seed": _SEED},
    )


def _comet(operation: str) -> dict[str, Field]:
    video = operation == "video"
    fields = {
        "callback_url": Field(url, required=True),
        "prompt": Field(non_empty_text, required=True),
        "style": Field(one_of(*ALL_EFFECTS), required=video),
        "sfx": Field(boolean, required=video),
        "options": Field(
            plain_object,
            inner={
                "frameRate": Field(_frame_rate),
                "camera": _CAMERA,
                # CometAPI's page gives no range for guidanceScale and motion.
                "parameters": _parameters(required=False, ranged=False),
            },
        ),
    }
    if not video:
        fields["model"] = Field(number(0.1, 100))
    if operation == "text":
        fields["ratio"] = Field(_ratio, required=True)
    else:
        fields[operation] = Field(url, required=True)
    return fields


def _videos(*, required: bool, frame_rate: Check = _frame_rate) -> dict[str, Field]:
    return {
        "aspectRatio": Field(number(0.4, 2.5)),
        "frameRate": Field(frame_rate),
        "camera": _CAMERA,
        "parameters": _parameters(required=required, ranged=True),
        "extend": Field(boolean, required=required),
    }


_COMET = {operation: _comet(operation) for operation in ("text", "image", "video")}
_YESCALE = {
    "promptText": Field(non_empty_text, required=True),
    "model": Field(_version, required=True),
    "options": Field(plain_object, inner=_videos(required=True, frame_rate=_frame_rate_or_text)),
    "image": Field(_media),
    "pikaffect": Field(one_of(*COMMON_EFFECTS)),
}
_GPTGE = {
    "promptText": Field(non_empty_text, required=True),
    "model": Field(_version),
    "options": Field(plain_object, required=True, inner=_videos(required=True)),
    "image": Field(_media),
    "video": Field(_media),
    "pikaffect": Field(one_of(*COMMON_EFFECTS)),
}
_NATIVE = {
    "promptText": Field(non_empty_text, required=True),
    "model": Field(_version),
    # The native page marks no field as required; its samples send all of them.
    "options": Field(
        plain_object, inner={**_videos(required=False), "ingredients-mode": Field(one_of("precise", "creative"))}
    ),
    "image": Field(_media_or_empty),
    "pikaffect": Field(one_of("", *NATIVE_EFFECTS)),
    "ingredient": Field(urls),
}

#: The schema of each page. CometAPI has one for each operation.
SCHEMAS: dict[str, Mapping[str, Field]] = {
    "cometapi": _COMET["text"],
    "cometapi image": _COMET["image"],
    "cometapi video": _COMET["video"],
    "yescale": _YESCALE,
    "gptge": _GPTGE,
    "native": _NATIVE,
}


def check_create(provider: str, body: object) -> Problem | None:
    """Return the first problem of a create body by a provider's page, or ``None``."""
    if not isinstance(body, dict):
        return Problem("", "the body must be a JSON object")
    if provider == "cometapi":
        return _check_comet(body)
    if provider == "native":
        return check_object(body, _NATIVE, "") or _check_ingredients(body)
    return check_object(body, _YESCALE if provider == "yescale" else _GPTGE, "")


def _check_comet(body: Body) -> Problem | None:
    if "image" in body and "video" in body:
        return Problem("video", "image and video must not both be given")
    operation = "image" if "image" in body else "video" if "video" in body else "text"
    if operation != "text" and "ratio" in body:
        return Problem("ratio", f"must not be given: {operation} generation has no such field")
    return check_object(body, _COMET[operation], "")


def _check_ingredients(body: Body) -> Problem | None:
    mode = body.get("options", {}).get("ingredients-mode")
    if "ingredient" in body:
        if body.get("model") != "2.0":
            return Problem("ingredient", 'needs "model": "2.0"')
        if mode is None:
            return Problem("options.ingredients-mode", "is required together with ingredient")
    elif mode is not None:
        return Problem("options.ingredients-mode", "must not be given without ingredient")
    return None


def parse_create(provider: str, body: Body) -> GenerationSpec:
    """Return the values of a body that passed :func:`check_create`."""
    options = body.get("options") or {}
    if provider == "cometapi":
        width, _, height = str(body.get("ratio", "16:9")).partition(":")
        ratio = int(width) / int(height)
    else:
        ratio = float(options.get("aspectRatio", 16 / 9))
    return GenerationSpec(
        prompt=body["prompt" if provider == "cometapi" else "promptText"],
        seed=(options.get("parameters") or {}).get("seed"),
        aspect_ratio=ratio,
        frame_rate=int(options.get("frameRate", 24)),
        callback_url=body.get("callback_url"),
    )
