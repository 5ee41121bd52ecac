"""Schemas and prices of fal's endpoints for Pika, as its documentation gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pika_async.emulator.checks import Check, Field, Problem, check_object, integer, non_empty_text, one_of, text, url
from pika_async.emulator.records import GenerationSpec
from pika_async.emulator.request_schemas import NATIVE_EFFECTS

__all__ = ["ENDPOINTS", "check_submission", "parse_submission", "price_of"]

RATIOS = ("16:9", "9:16", "1:1", "4:5", "5:4", "3:2", "2:3")
#: Prices in millionths of a dollar: of 5 seconds by resolution, and of an edited video or an effect.
FIVE_SECONDS_PRICES = {"720p": 200_000, "1080p": 450_000}
EDIT_PRICE = 465_000


def _file(value: object) -> str | None:
    """Check for a URL or a data URI, which fal takes wherever it takes the URL of a file."""
    return None if isinstance(value, str) and value.startswith("data:") and ";base64," in value else url(value)


def _files(value: object) -> str | None:
    if not isinstance(value, list) or not value:
        return "must be a list of at least one URL"
    return next((f"[{i}] {problem}" for i, item in enumerate(value) if (problem := _file(item))), None)


def _five_or_ten(value: object) -> str | None:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return None if is_integer and value in (5, 10) else "must be 5 or 10"


def _fields(**own: tuple[Check, bool] | Check) -> dict[str, Field]:
    """Return the fields of an endpoint: its own, with whether each is required, and those that all endpoints have."""
    fields = {name: Field(*check) if isinstance(check, tuple) else Field(check) for name, check in own.items()}
    return {**fields, "negative_prompt": Field(text), "seed": Field(integer(0, 2**63 - 1))}


_SIZE: dict[str, Check] = {"resolution": one_of("720p", "1080p"), "duration": _five_or_ten}
_PROMPT = (non_empty_text, True)

#: The fields of each endpoint by its path.
ENDPOINTS: dict[str, Mapping[str, Field]] = {
    "fal-ai/pika/v2.2/text-to-video": _fields(prompt=_PROMPT, aspect_ratio=one_of(*RATIOS), **_SIZE),
    "fal-ai/pika/v2.2/image-to-video": _fields(image_url=(_file, True), prompt=_PROMPT, **_SIZE),
    "fal-ai/pika/v2.2/pikascenes": _fields(
        image_urls=(_files, True),
        prompt=_PROMPT,
        aspect_ratio=one_of(*RATIOS),
        ingredients_mode=one_of("precise", "creative"),
        **_SIZE,
    ),
    "fal-ai/pika/v2/pikadditions": _fields(video_url=(_file, True), image_url=(_file, True), prompt=text),
    "fal-ai/pika/v2/pikaswaps": _fields(video_url=(_file, True), image_url=_file, modify_region=text, prompt=text),
    "fal-ai/pika/v1.5/pikaffects": _fields(
        image_url=(_file, True), pikaffect=(one_of(*NATIVE_EFFECTS), True), prompt=text
    ),
}


def check_submission(endpoint: str, body: object) -> Problem | None:
    """Return the first problem of a body by the page of *endpoint*, or ``None``."""
    if not isinstance(body, dict):
        return Problem("", "the body must be a JSON object")
    return check_object(body, ENDPOINTS[endpoint], "")


def price_of(endpoint: str, body: Mapping[str, Any]) -> int:
    """Return the price of a valid body in millionths of a dollar."""
    if "resolution" not in ENDPOINTS[endpoint]:
        return EDIT_PRICE
    return FIVE_SECONDS_PRICES[body.get("resolution", "720p")] * int(body.get("duration", 5)) // 5


def parse_submission(endpoint: str, body: Mapping[str, Any], webhook: str | None) -> GenerationSpec:
    """Return the values of a body that passed :func:`check_submission`."""
    width, _, height = str(body.get("aspect_ratio", "16:9")).partition(":")
    return GenerationSpec(
        prompt=body.get("prompt", ""),
        seed=body.get("seed"),
        aspect_ratio=int(width) / int(height),
        frame_rate=24,
        callback_url=webhook,
        operation=endpoint,
        micro_usd=price_of(endpoint, body),
    )
