"""Schemas and prices of the operations of Pika's own API, as others document them.

The lists of effects and the names of the operations are those on which several public clients agree. The path and the
field of the last frame of ``pika-h3-flex`` are inferred.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from pika_async.emulator.checks import (
    Body,
    Check,
    Field,
    Problem,
    boolean,
    check_object,
    integer,
    non_empty_text,
    one_of,
    text,
    url,
)
from pika_async.emulator.records import GenerationSpec

__all__ = ["OPERATIONS", "Operation", "check_submission", "check_upload", "parse_submission", "price_of"]

#: Prices of the emulator in millionths of a dollar: of a second by resolution, and of an effect.
SECOND_PRICES = {"480p": 20_000, "720p": 40_000, "768p": 50_000, "1080p": 90_000, "2k": 160_000, "4k": 300_000}
EFFECT_PRICE = 465_000

IMAGE_EFFECTS = (
    "90s Me", "Action Me", "Arcade Winner", "Baby Me", "Bald Me", "Balloonify it", "CCTV Me", "Cake-ify", "Captain Me",
    "Choco Me", "Classy Me", "Clown Fit", "Crazy in Love", "Crumble", "Crush", "Cupid Strike", "Decapitate", "Deflate",
    "Dissolve", "Doom Stroll", "Eat a Rat", "Epic Me", "Everythings Bonsai", "Explode", "Eye-pop", "Eyes Zoom in",
    "Fairytale Me", "Goth Dream", "Hazmat Fit", "Hearts Bouquet", "Hero Me", "Human Pet", "Inflate", "Jungle Me",
    "Labubu Style", "Leprechaun Me", "Levitate", "Lo-Fi Me", "Looong Hair", "Love Bomb", "Magic Polaroid",
    "Make it Real", "Melt", "Mona Me", "Mrs Me", "Museum Me", "Peel", "Pick Me", "Poke", "Princess Me", "Proposal",
    "Puppy Me", "Rose", "Royal Me", "Squish", "Ta-da", "Tarot", "Transform", "Tear", "VIP Me", "Warrior Me",
    "Yarn Charm", "Zen Me",
)  # fmt: skip
VIDEO_EFFECTS = (
    "Anime Cat", "Cute Shroom", "Duplicate it", "Happy Asteroid", "Its Alive", "Its Computer", "Pink Hair", "Swan Head",
    "Wizard Cat",
)  # fmt: skip
H3_RATIOS = {
    "auto": 16 / 9, "1:1": 1.0, "16:9": 16 / 9, "9:16": 9 / 16, "4:3": 4 / 3, "3:4": 3 / 4, "3:2": 3 / 2, "2:3": 2 / 3,
    "5:4": 5 / 4, "4:5": 4 / 5, "21:9": 21 / 9, "9:21": 9 / 21, "2:1": 2.0,
}  # fmt: skip


def _https(value: object) -> str | None:
    if isinstance(value, str) and value.startswith(("data:", "http:")):
        return "must be an https URL: data: and http: are refused"
    return url(value)


def _frames(value: object) -> str | None:
    if not isinstance(value, list) or not 2 <= len(value) <= 5:
        return "must be a list of 2 to 5 URLs"
    return next((f"[{i}] {problem}" for i, item in enumerate(value) if (problem := _https(item))), None)


def _seconds(*allowed: int) -> Check:
    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be an integer"
        return None if value in allowed else f"must be one of {', '.join(map(str, allowed))}"

    return check


@attrs.frozen
class Operation:
    """One operation: the schema of its body, how many seconds a body asks for, and its usual resolution.

    ``media`` names the fields that hold the addresses of pictures and videos.
    """

    fields: Mapping[str, Field]
    seconds: Callable[[Body], int]
    resolution: str = "1080p"
    media: tuple[str, ...] = ()
    is_effect: bool = False


_PROMPT = Field(non_empty_text, required=True)
_SEED = Field(integer(0, 2**63 - 1))
_COMMON = {
    "resolution": Field(one_of("720p", "1080p")),
    "negative_prompt": Field(text),
    "seed": _SEED,
}
_URL = Field(_https)
_REQUIRED_URL = Field(_https, required=True)


def _duration_s(body: Body) -> int:
    return int(body.get("duration_s", 5))


def _transitions(body: Body) -> int:
    return int(body.get("transition_duration_s", 5)) * (len(body.get("images", ())) - 1)


def _h3(**media: Field) -> Operation:
    fields = {
        "prompt": _PROMPT,
        **media,
        "aspect_ratio": Field(one_of(*H3_RATIOS)),
        "duration": Field(integer(5, 15)),
        "resolution": Field(one_of("480p", "768p", "1080p", "2k", "4k")),
        "rewrite": Field(boolean),
        "seed": _SEED,
    }
    return Operation(fields, lambda body: int(body.get("duration", 5)), "768p", tuple(media))


#: The operations by their path, which is also the id of the API in the catalog.
OPERATIONS: dict[str, Operation] = {
    "pika/pika-2.5/text-to-video": Operation(
        {"prompt": _PROMPT, "duration_s": Field(_seconds(5)), **_COMMON}, _duration_s
    ),
    "pika/pika-2.5/image-to-video": Operation(
        {"image": _REQUIRED_URL, "prompt": Field(text), "duration_s": Field(_seconds(5, 10)), **_COMMON},
        _duration_s,
        media=("image",),
    ),
    "pika/pikaframes/image-to-video": Operation(
        {
            "images": Field(_frames, required=True),
            "prompt": Field(text),
            "transition_duration_s": Field(integer(1, 10)),
            **_COMMON,
        },
        _transitions,
        media=("images",),
    ),
    "pika/pikadditions/video-to-video": Operation(
        {"video": _REQUIRED_URL, "prompt": _PROMPT, "image": _URL, "duration_s": Field(_seconds(5, 10)), **_COMMON},
        _duration_s,
        media=("video", "image"),
    ),
    "pika/pikaswaps/video-to-video": Operation(
        {
            "video": _REQUIRED_URL,
            "prompt": _PROMPT,
            "image": _URL,
            "modify_region_roi": Field(non_empty_text),
            "modify_region_mask": _URL,
            "duration_s": Field(_seconds(5, 10)),
            **_COMMON,
        },
        _duration_s,
        media=("video", "image", "modify_region_mask"),
    ),
    "pika/pikaffects/image-to-video": Operation(
        {
            "pikaffect": Field(one_of(*IMAGE_EFFECTS), required=True),
            "image": _REQUIRED_URL,
            "prompt_override": Field(text),
            "seed": _SEED,
        },
        lambda _: 5,
        media=("image",),
        is_effect=True,
    ),
    "pika/pikaffects/video-to-video": Operation(
        {"pikaffect": Field(one_of(*VIDEO_EFFECTS), required=True), "video": _REQUIRED_URL, "seed": _SEED},
        lambda _: 5,
        media=("video",),
        is_effect=True,
    ),
    "pika/pika-h3-flex/text-to-video": _h3(),
    "pika/pika-h3-flex/image-to-video": _h3(image=_REQUIRED_URL, last_frame_image=_URL),
}


def check_submission(name: str, body: object) -> Problem | None:
    """Return the first problem of a body by the page of the operation *name*, or ``None``."""
    if not isinstance(body, dict):
        return Problem("", "the body must be a JSON object")
    problem = check_object(body, OPERATIONS[name].fields, "")
    if problem is None and name == "pika/pikaswaps/video-to-video":
        regions = [field for field in ("modify_region_roi", "modify_region_mask") if field in body]
        if len(regions) != 1:
            return Problem("modify_region_roi", "exactly one of modify_region_roi and modify_region_mask must be given")
    return problem


def price_of(name: str, body: Body) -> int:
    """Return the price of a valid body in millionths of a dollar."""
    operation = OPERATIONS[name]
    if operation.is_effect:
        return EFFECT_PRICE
    return SECOND_PRICES[body.get("resolution", operation.resolution)] * max(1, operation.seconds(body))


def parse_submission(name: str, body: dict[str, Any]) -> GenerationSpec:
    """Return the values of a body that passed :func:`check_submission`."""
    return GenerationSpec(
        prompt=body.get("prompt") or body.get("prompt_override") or "",
        seed=body.get("seed"),
        aspect_ratio=H3_RATIOS[body.get("aspect_ratio", "auto")],
        frame_rate=24,
        callback_url=None,
        operation=name,
        micro_usd=price_of(name, body),
    )


def check_upload(body: object, largest: Mapping[str, int]) -> Problem | None:
    """Return the first problem of the announcement of an upload, or ``None``.

    :param largest: number of bytes that a file may have, by the first part of its content type.
    """
    if not isinstance(body, dict):
        return Problem("", "the body must be a JSON object")
    problem = check_object(body, _UPLOAD, "")
    if problem is not None:
        return problem
    limit = largest.get(body["content_type"].partition("/")[0])
    if limit is None:
        return Problem("content_type", "must be of a picture, a sound or a video")
    return None if body["size_bytes"] <= limit else Problem("size_bytes", f"must be at most {limit}")


def _file_name(value: object) -> str | None:
    is_plain = isinstance(value, str) and re.fullmatch(r"[\w.-]{1,200}", value, re.ASCII) is not None
    return None if is_plain else "must be 1 to 200 letters, digits, dots and hyphens"


_UPLOAD = {
    "content_type": Field(non_empty_text, required=True),
    "size_bytes": Field(integer(1), required=True),
    "filename": Field(_file_name),
}
