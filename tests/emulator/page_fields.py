"""Fields of create requests as the gateways' pages document them: the strictness that is required of the emulator.

Written from the pages alone, not from the emulator or the providers: CometAPI "PIKA reference text generation" with its
related pages for images and videos, gpt.ge "Task: Generate Video", YEScale "Create Video by Pika", and the native shape's
"Pika Video".
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final

import attrs

IMAGE: Final = "https://a.example/b.png"
MOVIE: Final = "https://a.example/b.mp4"

#: Values of JSON that are not of a documented type.
NOT_A_STRING: Final[tuple[Any, ...]] = (1, 1.5, True, False, None, [], {}, ["a"])
NOT_A_BOOLEAN: Final[tuple[Any, ...]] = (0, 1, "true", "false", "", None, [], {})
NOT_AN_INTEGER: Final[tuple[Any, ...]] = (True, False, "12", "", 12.5, None, [], {})
NOT_A_NUMBER: Final[tuple[Any, ...]] = (True, False, "1.5", "", None, [], {})
NOT_AN_OBJECT: Final[tuple[Any, ...]] = (1, True, False, "", "{}", None, [], [{}])
NOT_A_URL: Final[tuple[Any, ...]] = (
    *NOT_A_STRING,
    "",
    "soon",
    "http://",
    "ftp://a.example/b",
    "//a.example/b",
    "a.example/b",
)
NOT_MEDIA: Final[tuple[Any, ...]] = (*NOT_A_STRING, "", "http://", "not base64!", "data:image/png;base64,iVBORw0KGgo=")

EFFECTS_10: Final = (
    "Ta-da", "Deflate", "Crumble", "Dissolve", "Squish", "Inflate", "Melt", "Crush", "Cake-ify", "Explode",
)  # fmt: skip
EFFECTS_3: Final = ("Levitate", "Decapitate", "Eye-pop")


@attrs.frozen
class PageField:
    """One field of a page: its dotted path, values that are documented, and values that must be refused."""

    path: str
    accepted: tuple[Any, ...]
    refused: tuple[Any, ...]
    is_required: bool = False


@attrs.frozen
class Page:
    """One page, or one operation of it."""

    provider: str
    #: A documented body with every required field.
    body: dict[str, Any]
    fields: Sequence[PageField]
    #: Names that another page of the family has for the same things, and this one has not.
    foreign: tuple[str, ...]


def _camera(path: str = "options.camera") -> list[PageField]:
    words = {"pan": ("left", "right"), "tilt": ("up", "down"), "rotate": ("cw", "ccw"), "zoom": ("in", "out")}
    wrong = (*NOT_A_STRING, "", "sideways", "LEFT")
    return [
        PageField(
            path, ({}, {"pan": "right", "tilt": "up", "rotate": "cw", "zoom": "in"}), (*NOT_AN_OBJECT, {"roll": 1})
        ),
        *(PageField(f"{path}.{name}", good, wrong) for name, good in words.items()),
    ]


def _parameters(*, is_ranged: bool) -> list[PageField]:
    """Return the parameters of a generation; only the pages of the videos wire document their ranges."""
    path = "options.parameters"
    guidance_range, motion_range = ((4, 26, -1), (-1, 5)) if is_ranged else ((), ())
    return [
        PageField(f"{path}.guidanceScale", (5, 12, 25), (*NOT_AN_INTEGER, *guidance_range)),
        PageField(f"{path}.motion", (0, 1, 4), (*NOT_AN_INTEGER, *motion_range)),
        PageField(f"{path}.negativePrompt", ("", "ugly"), NOT_A_STRING),
        PageField(f"{path}.seed", (0, 144124, 3183047765, 2**40), (*NOT_AN_INTEGER, -1)),
    ]


FRAME_RATE: Final = PageField("options.frameRate", (8, 20, 24), (*NOT_AN_INTEGER, 7, 25, 24.0, -24, 0))
#: YEScale types it as a string, and its example has a number.
FRAME_RATE_OR_TEXT: Final = PageField(
    "options.frameRate", (8, 24, "8", "24"), (True, False, "", "7", "25", "24.0", " 24", "024", "²4", 7, 25, 24.0, None, [], {})
)  # fmt: skip
ASPECT_RATIO: Final = PageField(
    "options.aspectRatio", (0.4, 1, 1.7777777777777777, 2.5), (*NOT_A_NUMBER, "16:9", 0.39, 2.51, 0, -1.78)
)


def _comet(operation: str) -> Page:
    is_video = operation == "video"
    body: dict[str, Any] = {"callback_url": "http://baidu.com", "prompt": "a cat"}
    references: dict[str, dict[str, Any]] = {
        "text": {"ratio": "16:9"},
        "image": {"image": IMAGE},
        "video": {"video": MOVIE, "style": "Melt", "sfx": True},
    }
    body |= references[operation]
    fields = [
        PageField("callback_url", ("http://baidu.com", "https://a.example/x?y=1"), NOT_A_URL, is_required=True),
        PageField("prompt", ("cat", "x" * 2000), (*NOT_A_STRING, "", "  "), is_required=True),
        PageField("style", (*EFFECTS_10, *EFFECTS_3), (*NOT_A_STRING, "", "inflate", "Peel"), is_required=is_video),
        PageField("sfx", (True, False), NOT_A_BOOLEAN, is_required=is_video),
        PageField("options", ({}, {"frameRate": 20}), (*NOT_AN_OBJECT, {"aspectRatio": 1.78}, {"extend": False})),
        FRAME_RATE,
        *_camera(),
        PageField("options.parameters", ({}, {"seed": 1}), (*NOT_AN_OBJECT, {"seeds": 1})),
        *_parameters(is_ranged=False),
    ]
    foreign = ["promptText", "pikaffect", "ingredient", "extend", "aspectRatio"]
    if operation == "text":
        fields.append(
            PageField(
                "ratio",
                ("16:9", "9:16", "1:1"),
                (*NOT_A_STRING, "", "wide", "16/9", "0:1", "16:", "-1:1"),
                is_required=True,
            )
        )
    else:
        fields.append(PageField(operation, (IMAGE,), NOT_A_URL, is_required=True))
        foreign.append("ratio")
    if is_video:
        foreign.append("model")
    else:
        fields.append(PageField("model", (1.5, 2), (*NOT_A_NUMBER, 0, -1.5)))
    return Page("cometapi", body, fields, tuple(foreign))


_OPTIONS: Final[dict[str, Any]] = {
    "aspectRatio": 1.7777777777777777, "frameRate": 24, "camera": {},
    "parameters": {"guidanceScale": 12, "motion": 1, "negativePrompt": ""}, "extend": False,
}  # fmt: skip


def _videos(
    provider: str, *, effects: tuple[str, ...], not_effects: tuple[str, ...], frame_rate: PageField, model_is_required: bool,
    options_are_required: bool, inner_are_required: bool, foreign: tuple[str, ...],
) -> Page:  # fmt: skip
    media = ("iVBORw0KGgo=", IMAGE)
    image = (("", *media), NOT_MEDIA[:-4] + NOT_MEDIA[-3:]) if provider == "native" else (media, NOT_MEDIA)
    fields = [
        PageField("promptText", ("moving", "x" * 2000), (*NOT_A_STRING, "", "  "), is_required=True),
        PageField(
            "model", ("1.5", "2.0"), (1.5, 2, True, None, [], {}, "", "new", "1.5.0"), is_required=model_is_required
        ),
        PageField("pikaffect", effects, (*NOT_A_STRING, *not_effects, "dissolve")),
        PageField("image", *image),
        PageField(
            "options", (_OPTIONS,), (*NOT_AN_OBJECT, {**_OPTIONS, "ratio": "16:9"}), is_required=options_are_required
        ),
        ASPECT_RATIO,
        frame_rate,
        *_camera(),
        PageField(
            "options.parameters", ({}, {"seed": 1}), (*NOT_AN_OBJECT, {"seeds": 1}), is_required=inner_are_required
        ),
        *_parameters(is_ranged=True),
        PageField("options.extend", (True, False), NOT_A_BOOLEAN, is_required=inner_are_required),
    ]
    body = {"promptText": "moving", "model": "1.5", "options": _OPTIONS}
    common = ("prompt", "style", "sfx", "ratio", "callback_url", "seed")
    return Page(provider, copy.deepcopy(body), fields, (*common, *foreign))


#: The page of each gateway; CometAPI has one for each operation.
PAGES: Final[dict[str, Page]] = {
    **{f"cometapi {operation}": _comet(operation) for operation in ("text", "image", "video")},
    "yescale": _videos(
        "yescale", effects=EFFECTS_10, not_effects=("", *EFFECTS_3), frame_rate=FRAME_RATE_OR_TEXT, model_is_required=True,
        options_are_required=False, inner_are_required=True, foreign=("video", "ingredient"),
    ),
    "gptge": _videos(
        "gptge", effects=EFFECTS_10, not_effects=("", *EFFECTS_3), frame_rate=FRAME_RATE, model_is_required=False,
        options_are_required=True, inner_are_required=True, foreign=("ingredient",),
    ),
    "native": _videos(
        "native", effects=("", *EFFECTS_10, *EFFECTS_3), not_effects=("Inflated",), frame_rate=FRAME_RATE,
        model_is_required=False, options_are_required=False, inner_are_required=False, foreign=("video",),
    ),
}  # fmt: skip

#: Content types that are JSON, and that are not.
JSON_TYPES: Final = (
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON",
    "application/json ;charset=UTF-8",
)
OTHER_TYPES: Final[tuple[str | None, ...]] = (
    None, "", "json", "text/json", "text/plain", "application/jsonl", "application/x-json", "application/json+x",
    "application/ld+json", "application/problem+json", "application/javascript", "application/jsonp",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=application/json", "*/*",
)  # fmt: skip


def with_value(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of *body* with *value* at the dotted *path*; objects on the way are created."""
    changed = copy.deepcopy(body)
    *parents, name = path.split(".")
    target = changed
    for parent in parents:
        target = target.setdefault(parent, {})
    target[name] = value
    return changed


def without_field(body: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a copy of *body* without the field at the dotted *path*."""
    changed = copy.deepcopy(body)
    *parents, name = path.split(".")
    target = changed
    for parent in parents:
        target = target.get(parent, {})
    target.pop(name, None)
    return changed
