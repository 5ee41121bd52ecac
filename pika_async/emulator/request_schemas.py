"""Schemas of create requests, checked as strictly as each gateway's page documents them. Contains no replies.

Sources: CometAPI "PIKA reference text generation" (its image and video pages are not published with it, so those two
operations follow the related pages), YEScale "Create Video by Pika", gpt.ge "Task: Generate Video", and the
native shape's page "Pika Video".
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

__all__ = ["SCHEMAS", "GenerationSpec", "Problem", "check_create", "parse_create"]

Body = Mapping[str, Any]
#: A function that returns what is wrong with a value, or ``None``.
Check = Callable[[object], str | None]

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


@attrs.frozen
class Problem:
    """Invalid field, and what is wrong with it."""

    field: str
    text: str


@attrs.frozen(kw_only=True)
class GenerationSpec:
    """Values of a valid create body that affect the emulated task."""

    prompt: str
    seed: int | None
    aspect_ratio: float
    frame_rate: int
    callback_url: str | None


@attrs.frozen
class Field:
    """Schema of one field: one row of a page's table. ``inner`` is the schema of an object's fields."""

    check: Check
    required: bool = False
    inner: Mapping[str, Field] | None = None


def _text(value: object) -> str | None:
    return None if isinstance(value, str) else "must be a string"


def _non_empty_text(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    return None if value.strip() else "must not be empty"


def _boolean(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _object(value: object) -> str | None:
    return None if isinstance(value, dict) else "must be an object"


def _integer(low: float = -math.inf, high: float = math.inf) -> Check:
    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be an integer"
        return None if low <= value <= high else f"must be between {low} and {high}"

    return check


def _number(low: float, high: float) -> Check:
    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return "must be a number"
        return None if low <= value <= high else f"must be between {low} and {high}"

    return check


def _one_of(*words: str) -> Check:
    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return "must be a string"
        return None if value in words else f"must be one of {', '.join(word or repr(word) for word in words)}"

    return check


def _url(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    return None if valid else "must be an http or https URL"


def _media(value: object) -> str | None:
    """Check for a URL or plain base64 ("Base64 or image URL"); a ``data:`` URI is neither."""
    if not isinstance(value, str):
        return "must be a string"
    if not value:
        return "must contain a value if present"
    if value.startswith(("http://", "https://")):
        return _url(value)
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return "must be an http or https URL, or valid base64"
    return None


def _media_or_empty(value: object) -> str | None:
    # The native page's own sample sends "image": "".
    return None if value == "" else _media(value)


def _urls(value: object) -> str | None:
    if not isinstance(value, list) or not value:
        return "must be a list of at least one URL"
    return next((f"[{i}] {problem}" for i, item in enumerate(value) if (problem := _url(item))), None)


_frame_rate = _integer(8, 24)


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
    _object,
    inner={
        "pan": Field(_one_of("left", "right")),
        "tilt": Field(_one_of("up", "down")),
        "rotate": Field(_one_of("cw", "ccw")),
        "zoom": Field(_one_of("in", "out")),
    },
)
_SEED = Field(_integer(0, 2**63 - 1))


def _parameters(*, required: bool, ranged: bool) -> Field:
    guidance = _integer(5, 25) if ranged else _integer()
    motion = _integer(0, 4) if ranged else _integer()
    return Field(
        _object,
        required,
        {"guidanceScale": Field(guidance), "motion": Field(motion), "negativePrompt": Field(_text), "seed": _SEED},
    )


def _comet(operation: str) -> dict[str, Field]:
    video = operation == "video"
    fields = {
        "callback_url": Field(_url, required=True),
        "prompt": Field(_non_empty_text, required=True),
        "style": Field(_one_of(*ALL_EFFECTS), required=video),
        "sfx": Field(_boolean, required=video),
        "options": Field(
            _object,
            inner={
                "frameRate": Field(_frame_rate),
                "camera": _CAMERA,
                # CometAPI's page gives no range for guidanceScale and motion.
                "parameters": _parameters(required=False, ranged=False),
            },
        ),
    }
    if not video:
        fields["model"] = Field(_number(0.1, 100))
    if operation == "text":
        fields["ratio"] = Field(_ratio, required=True)
    else:
        fields[operation] = Field(_url, required=True)
    return fields


def _videos(*, required: bool, frame_rate: Check = _frame_rate) -> dict[str, Field]:
    return {
        "aspectRatio": Field(_number(0.4, 2.5)),
        "frameRate": Field(frame_rate),
        "camera": _CAMERA,
        "parameters": _parameters(required=required, ranged=True),
        "extend": Field(_boolean, required=required),
    }


_COMET = {operation: _comet(operation) for operation in ("text", "image", "video")}
_YESCALE = {
    "promptText": Field(_non_empty_text, required=True),
    "model": Field(_version, required=True),
    "options": Field(_object, inner=_videos(required=True, frame_rate=_frame_rate_or_text)),
    "image": Field(_media),
    "pikaffect": Field(_one_of(*COMMON_EFFECTS)),
}
_GPTGE = {
    "promptText": Field(_non_empty_text, required=True),
    "model": Field(_version),
    "options": Field(_object, required=True, inner=_videos(required=True)),
    "image": Field(_media),
    "video": Field(_media),
    "pikaffect": Field(_one_of(*COMMON_EFFECTS)),
}
_NATIVE = {
    "promptText": Field(_non_empty_text, required=True),
    "model": Field(_version),
    # The native page marks no field as required; its samples send all of them.
    "options": Field(
        _object, inner={**_videos(required=False), "ingredients-mode": Field(_one_of("precise", "creative"))}
    ),
    "image": Field(_media_or_empty),
    "pikaffect": Field(_one_of("", *NATIVE_EFFECTS)),
    "ingredient": Field(_urls),
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
        return _check_object(body, _NATIVE, "") or _check_ingredients(body)
    return _check_object(body, _YESCALE if provider == "yescale" else _GPTGE, "")


def _check_comet(body: Body) -> Problem | None:
    if "image" in body and "video" in body:
        return Problem("video", "image and video must not both be given")
    operation = "image" if "image" in body else "video" if "video" in body else "text"
    if operation != "text" and "ratio" in body:
        return Problem("ratio", f"must not be given: {operation} generation has no such field")
    return _check_object(body, _COMET[operation], "")


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


def _check_object(value: Body, fields: Mapping[str, Field], path: str) -> Problem | None:
    for name in value:
        if name not in fields:
            return Problem(path + name, "must not be given: this page has no such field")
    for name, field in fields.items():
        if name not in value:
            if field.required:
                return Problem(path + name, "is required")
            continue
        text = field.check(value[name])
        if text:
            return Problem(path + name, text)
        if field.inner is not None:
            problem = _check_object(value[name], field.inner, f"{path}{name}.")
            if problem:
                return problem
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
