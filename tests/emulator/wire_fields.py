"""Fields of submissions to Pika's own API and to fal, as their documents give them: the strictness required of the emulator.

Written from the documents alone, not from the emulator or the providers.
"""

from __future__ import annotations

from typing import Any, Final

from tests.emulator.page_fields import (
    NOT_A_BOOLEAN,
    NOT_A_STRING,
    NOT_AN_INTEGER,
    Page,
    PageField,
)

__all__ = ["FAL_PAGES", "PIKA_PAGES"]

PNG: Final = "https://a.example/b.png"
MP4: Final = "https://a.example/b.mp4"
NOT_HTTPS: Final[tuple[Any, ...]] = (
    *NOT_A_STRING, "", "soon", "http://a.example/b.png", "https://", "ftp://a.example/b", "data:image/png;base64,iVBORw0KGgo=",
    "iVBORw0KGgo=",
)  # fmt: skip
NOT_A_FILE: Final[tuple[Any, ...]] = (*NOT_A_STRING, "", "soon", "https://", "ftp://a.example/b", "iVBORw0KGgo=")
FILES: Final = (PNG, "http://a.example/b.png", "data:image/png;base64,iVBORw0KGgo=")

PROMPT: Final = PageField("prompt", ("a cat", "x" * 2000), (*NOT_A_STRING, "", "  "), is_required=True)
ANY_PROMPT: Final = PageField("prompt", ("a cat", ""), NOT_A_STRING)
SEED: Final = PageField("seed", (0, 144124, 2**40), (*NOT_AN_INTEGER, -1, 1.0))
NEGATIVE: Final = PageField("negative_prompt", ("", "ugly"), NOT_A_STRING)
RESOLUTION: Final = PageField("resolution", ("720p", "1080p"), (*NOT_A_STRING, "", "720", "480p", "4k", "1080P"))

#: Names of the other wires for the same things.
FOREIGN: Final = ("promptText", "options", "callback_url", "style", "ratio", "aspectRatio", "frameRate", "sfx")


def _seconds(*allowed: int) -> PageField:
    wrong = tuple(number for number in (0, 4, 6, 10, 15) if number not in allowed)
    return PageField("duration_s", allowed, (*NOT_AN_INTEGER, *wrong, "5", 5.0))


def _pika(body: dict[str, Any], *fields: PageField, foreign: tuple[str, ...] = ()) -> Page:
    return Page("pika", body, fields, (*FOREIGN, *foreign))


_IMAGE: Final = PageField("image", (PNG,), NOT_HTTPS, is_required=True)
_ANY_IMAGE: Final = PageField("image", (PNG,), NOT_HTTPS)
_VIDEO: Final = PageField("video", (MP4,), NOT_HTTPS, is_required=True)
_EDITED: Final = (_VIDEO, PROMPT, _ANY_IMAGE, RESOLUTION, NEGATIVE, SEED, _seconds(5, 10))
_H3: Final = (
    PROMPT,
    PageField("aspect_ratio", ("auto", "16:9", "9:16", "1:1"), (*NOT_A_STRING, "", "16/9", "7:5")),
    PageField("duration", tuple(range(5, 16)), (*NOT_AN_INTEGER, 4, 16, 5.0)),
    PageField("resolution", ("480p", "768p", "1080p", "2k", "4k"), (*NOT_A_STRING, "", "720p", "4K")),
    PageField("rewrite", (True, False), NOT_A_BOOLEAN),
    SEED,
)

#: The page of each operation of Pika's own API by its path.
PIKA_PAGES: Final[dict[str, Page]] = {
    "pika/pika-2.5/text-to-video": _pika(
        {"prompt": "a cat"}, PROMPT, RESOLUTION, NEGATIVE, SEED, _seconds(5),
        foreign=("image", "duration", "aspect_ratio", "pikaffect"),
    ),
    "pika/pika-2.5/image-to-video": _pika(
        {"image": PNG}, _IMAGE, ANY_PROMPT, RESOLUTION, NEGATIVE, SEED, _seconds(5, 10),
        foreign=("images", "image_url", "duration", "aspect_ratio"),
    ),
    "pika/pikaframes/image-to-video": _pika(
        {"images": [PNG, PNG]},
        PageField(
            "images", ([PNG] * 2, [PNG] * 5), (PNG, None, {}, [], [PNG], [PNG] * 6, [PNG, 1], [PNG, "http://a.example/b"]),
            is_required=True,
        ),
        ANY_PROMPT, RESOLUTION, NEGATIVE, SEED,
        PageField("transition_duration_s", (1, 5, 10), (*NOT_AN_INTEGER, 0, 11, 2.5)),
        foreign=("image", "duration_s"),
    ),
    "pika/pikadditions/video-to-video": _pika(
        {"video": MP4, "prompt": "a hat"}, *_EDITED, foreign=("modify_region_roi", "duration")
    ),
    "pika/pikaswaps/video-to-video": _pika(
        {"video": MP4, "prompt": "a hat", "modify_region_roi": "the cat"}, *_EDITED,
        PageField("modify_region_roi", ("the cat",), (*NOT_A_STRING, "", " "), is_required=True),
        foreign=("modify_region", "duration"),
    ),
    "pika/pikaffects/image-to-video": _pika(
        {"image": PNG, "pikaffect": "Melt"}, _IMAGE,
        PageField("pikaffect", ("Melt", "Cake-ify", "Ta-da", "Tear"), (*NOT_A_STRING, "", "melt", "Wizard Cat"), is_required=True),
        PageField("prompt_override", ("", "melt it"), NOT_A_STRING), SEED,
        foreign=("prompt", "duration_s", "resolution", "video"),
    ),
    "pika/pikaffects/video-to-video": _pika(
        {"video": MP4, "pikaffect": "Wizard Cat"}, _VIDEO,
        PageField("pikaffect", ("Wizard Cat", "Pink Hair"), (*NOT_A_STRING, "", "Melt"), is_required=True), SEED,
        foreign=("prompt", "prompt_override", "image"),
    ),
    "pika/pika-h3-flex/text-to-video": _pika({"prompt": "a cat"}, *_H3, foreign=("duration_s", "negative_prompt", "image")),
    "pika/pika-h3-flex/image-to-video": _pika(
        {"prompt": "a cat", "image": PNG}, *_H3, _IMAGE, PageField("last_frame_image", (PNG,), NOT_HTTPS),
        foreign=("duration_s", "negative_prompt"),
    ),
}  # fmt: skip

_RATIO: Final = PageField(
    "aspect_ratio", ("16:9", "9:16", "1:1", "4:5", "5:4", "3:2", "2:3"), (*NOT_A_STRING, "", "21:9", "auto", "16/9")
)
_DURATION: Final = PageField("duration", (5, 10), (*NOT_AN_INTEGER, 0, 6, 15, "5", 5.0))
_SIZE: Final = (RESOLUTION, _DURATION)
_COMMON: Final = (NEGATIVE, SEED)
_IMAGE_URL: Final = PageField("image_url", FILES, NOT_A_FILE, is_required=True)
_VIDEO_URL: Final = PageField("video_url", FILES, NOT_A_FILE, is_required=True)


def _fal(body: dict[str, Any], *fields: PageField, foreign: tuple[str, ...] = ()) -> Page:
    return Page("fal", body, (*fields, *_COMMON), (*FOREIGN, "duration_s", "image", *foreign))


#: The page of each endpoint of fal by its path.
FAL_PAGES: Final[dict[str, Page]] = {
    "fal-ai/pika/v2.2/text-to-video": _fal({"prompt": "a cat"}, PROMPT, _RATIO, *_SIZE, foreign=("image_url",)),
    "fal-ai/pika/v2.2/image-to-video": _fal(
        {"prompt": "a cat", "image_url": PNG}, PROMPT, _IMAGE_URL, *_SIZE, foreign=("aspect_ratio",)
    ),
    "fal-ai/pika/v2.2/pikascenes": _fal(
        {"prompt": "a cat", "image_urls": [PNG]}, PROMPT, _RATIO, *_SIZE,
        PageField("image_urls", ([PNG], [PNG, MP4]), (PNG, None, {}, [], [1], [""]), is_required=True),
        PageField("ingredients_mode", ("precise", "creative"), (*NOT_A_STRING, "", "Precise")), foreign=("image_url",),
    ),
    "fal-ai/pika/v2/pikadditions": _fal(
        {"video_url": MP4, "image_url": PNG}, _VIDEO_URL, _IMAGE_URL, ANY_PROMPT, foreign=("duration", "resolution")
    ),
    "fal-ai/pika/v2/pikaswaps": _fal(
        {"video_url": MP4}, _VIDEO_URL, PageField("image_url", FILES, NOT_A_FILE), ANY_PROMPT,
        PageField("modify_region", ("", "the cat"), NOT_A_STRING), foreign=("modify_region_roi", "duration"),
    ),
    "fal-ai/pika/v1.5/pikaffects": _fal(
        {"image_url": PNG, "pikaffect": "Melt"}, _IMAGE_URL, ANY_PROMPT,
        PageField("pikaffect", ("Melt", "Cake-ify", "Peel", "Tear"), (*NOT_A_STRING, "", "melt", "Zen Me"), is_required=True),
        foreign=("duration", "resolution", "aspect_ratio"),
    ),
}  # fmt: skip
