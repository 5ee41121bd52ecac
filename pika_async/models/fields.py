"""Fields of a generation request: their types, their ranges and their checks. Holds no record and does no I/O.

The ranges are those of the gateways' own pages as they stood in November 2026.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from pathlib import PurePath
from typing import Final, Literal, TypedDict, get_args
from urllib.parse import urlsplit

from pika_async.errors.base import InvalidRequest
from pika_async.models.spelling import did_you_mean

__all__ = [
    "ASPECT_RATIO_RANGE",
    "AXES",
    "EFFECTS",
    "FRAME_RATE_RANGE",
    "GUIDANCE_SCALE_RANGE",
    "INGREDIENTS_MODES",
    "MAX_DURATION",
    "MOTION_RANGE",
    "RESOLUTIONS",
    "SEED_RANGE",
    "CameraMoves",
    "Effect",
    "IngredientsMode",
    "Media",
    "Resolution",
    "check_choice",
    "check_duration",
    "check_flag",
    "check_integer",
    "check_key",
    "check_media",
    "check_metadata",
    "check_text",
    "has_host",
    "invalid",
    "is_url",
    "parse_ratio",
]

#: The effects that a gateway documents: gpt.ge's and YEScale's pages list the first ten, CometAPI's the first 13. The
#: last three are in the picker of the web client of the native shape's vendor.
Effect = Literal[
    "Inflate", "Melt", "Explode", "Squish", "Crush", "Cake-ify", "Ta-da", "Deflate", "Crumble", "Dissolve",
    "Levitate", "Decapitate", "Eye-pop",
    "Peel", "Poke", "Tear",
]  # fmt: skip
EFFECTS: Final[tuple[Effect, ...]] = get_args(Effect)

#: The sizes that a gateway documents for any of its models.
Resolution = Literal["480p", "720p", "768p", "1080p", "2k", "4k"]
RESOLUTIONS: Final[tuple[Resolution, ...]] = get_args(Resolution)

IngredientsMode = Literal["precise", "creative"]
INGREDIENTS_MODES: Final[tuple[IngredientsMode, ...]] = get_args(IngredientsMode)

#: A URL, a path of this machine, or the bytes themselves.
Media = str | PurePath | bytes


class CameraMoves(TypedDict, total=False):
    """Camera moves as a mapping; the same axes as `Camera`."""

    pan: Literal["left", "right"] | None
    tilt: Literal["up", "down"] | None
    rotate: Literal["cw", "ccw"] | None
    zoom: Literal["in", "out"] | None


#: The directions of each camera axis, as the wires spell them.
AXES: Final[Mapping[str, tuple[str, ...]]] = {
    "pan": ("left", "right"),
    "tilt": ("up", "down"),
    "rotate": ("cw", "ccw"),
    "zoom": ("in", "out"),
}

#: Frames a second, inclusive; both wires.
FRAME_RATE_RANGE: Final = (8, 24)
#: Inclusive; the videos wire documents the range, the envelope wire a bare integer.
GUIDANCE_SCALE_RANGE: Final = (5, 25)
#: Inclusive; the videos wire documents the range, the envelope wire a bare integer.
MOTION_RANGE: Final = (0, 4)
#: Inclusive. No page gives a range: this one fits a signed 64-bit integer of any gateway.
SEED_RANGE: Final = (0, 2**63 - 1)
#: The longest video in seconds, inclusive: a day. No page takes more than 15.
MAX_DURATION: Final = 86_400
#: Width by height, inclusive; the videos wire documents the range, the envelope wire none.
ASPECT_RATIO_RANGE: Final = (0.4, 2.5)
#: The largest numerator and denominator of a ratio: finer than a pixel of any video.
MAX_RATIO_TERM: Final = 3999
#: A ratio within this share of one of small numbers (21:9 and below) is taken as that one.
RATIO_TOLERANCE: Final = 1e-3

KEY_PATTERN: Final = re.compile(r"[\w][\w.@=+-]*(~[0-9]+)?")
#: Names of devices on Windows, in any case and with any ending; a file of that name cannot be made there.
DEVICE_NAME: Final = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\..*)?", re.IGNORECASE)
#: Bytes of a key in UTF-8: a key names a file, and file systems stop at 255 bytes with the suffix.
MAX_KEY_BYTES: Final = 200


def is_url(media: object) -> bool:
    """Return whether `media` is an http or https URL rather than a path or bytes."""
    return isinstance(media, str) and media.lower().startswith(("http://", "https://"))


def has_host(url: str) -> bool:
    """Return whether `url` names a host and, if it names a port, one that `urllib` accepts and that is not 0."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def invalid(field: str, value: object, reason: str) -> InvalidRequest:
    """Return the error for one field of a request."""
    return InvalidRequest(field=field, value=value, reason=reason)


def check_text(field: str, value: object, *, may_be_empty: bool = False) -> None:
    """Refuse a value that is not Unicode text without NUL characters.

    :param may_be_empty: whether blank text is accepted (default False).
    :raises InvalidRequest: names the field and the way out, as for every check here.
    """
    if not isinstance(value, str):
        raise invalid(field, value, f"must be text, not {type(value).__name__}")
    if not may_be_empty and not value.strip():
        raise invalid(field, value, "must not be empty; give some text")
    try:
        value.encode()
    except UnicodeEncodeError:
        reason = "must be valid Unicode; remove the lone surrogate (half of a character)"
        raise invalid(field, value, reason) from None
    if "\0" in value:
        raise invalid(field, value, "must not hold a NUL character; remove it")


def check_integer(field: str, value: object, limits: tuple[int, int]) -> None:
    """Refuse a value that is not an integer within `limits`, both ends included."""
    low, high = limits
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise invalid(field, value, f"must be an integer from {low} to {high}")


def check_duration(field: str, value: object) -> None:
    """Refuse a value that is not a number of seconds above 0 and at most `MAX_DURATION`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= MAX_DURATION:  # type: ignore[operator]
        raise invalid(field, value, f"must be a number of seconds above 0 and at most {MAX_DURATION:,}")


def check_flag(field: str, value: object) -> None:
    """Refuse a value that is not a boolean."""
    if not isinstance(value, bool):
        raise invalid(field, value, "must be true or false")


def check_choice(field: str, value: object, choices: Iterable[str], way_out: str = "") -> None:
    """Refuse a value that is not one of `choices`; the message ends with the closest one and `way_out`."""
    names = tuple(choices)
    if value not in names:
        raise invalid(field, value, f"must be one of {', '.join(names)}{did_you_mean(value, names)}{way_out}")


def check_media(field: str, value: object) -> None:
    """Refuse a value that is not a URL, a path or bytes, or that is empty."""
    if isinstance(value, bytes):
        if not value:
            raise invalid(field, value, "must not be empty; give bytes, a path or a URL, or leave it out")
    elif isinstance(value, str):
        check_text(field, value)
        if is_url(value):
            check_url(field, value)
        elif "://" in value or value.lower().startswith("data:"):
            raise invalid(field, value, "must be an http(s) URL; give one, or a path, or bytes")
    elif not isinstance(value, PurePath):
        kind = type(value).__name__
        raise invalid(field, value, f"must be a URL, a path, bytes, an open file or a PIL image, not {kind}")


def check_url(field: str, value: object) -> None:
    """Refuse a value that is not an http or https URL with a host and without white space."""
    check_text(field, value)
    if not is_url(value) or not isinstance(value, str):
        raise invalid(field, value, "must be an http(s) URL")
    if not has_host(value) or re.search(r"\s", value):
        raise invalid(field, value, "must be a complete URL, with a host and without white space")


def check_key(key: object) -> None:
    """Refuse a key that cannot name a job and its file."""
    check_text("key", key)
    if not isinstance(key, str) or not KEY_PATTERN.fullmatch(key) or ".." in key:
        reason = "must begin with a letter, digit or _ and hold only letters, digits and . _ - @ = +, without .. in it"
        raise invalid("key", key, reason)
    if DEVICE_NAME.fullmatch(key):
        raise invalid("key", key, "names a device on Windows, where no file can have that name; give another one")
    if len(key.encode()) > MAX_KEY_BYTES:
        reason = f"must be at most {MAX_KEY_BYTES} bytes long in UTF-8, not {len(key.encode())}; give a shorter one"
        raise invalid("key", key, reason)


def check_metadata(metadata: object) -> None:
    """Refuse metadata that is not a mapping, or that cannot be written as JSON."""
    if not isinstance(metadata, Mapping):
        raise invalid("metadata", metadata, "must be a mapping; give a dict")
    try:
        json.dumps(dict(metadata), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid("metadata", metadata, f"must hold only what can be written as JSON ({error})") from None


def parse_ratio(value: object) -> Fraction:
    """Return width by height of `"16:9"`, `"1.78"` or 1.7777 as an exact fraction.

    A number within 0.1 % of a ratio of small numbers is taken as that ratio.

    :raises InvalidRequest: unless `value` is a ratio from 0.4 to 2.5.
    """
    return _parse_ratio_text(value) if type(value) is str else _parse_ratio(value)


def _parse_ratio(value: object) -> Fraction:
    ratio = _read_ratio(value)
    if ratio is None:
        reason = 'must be a ratio; give "16:9" or width by height as a number, from 0.4 to 2.5'
        raise invalid("aspect_ratio", value, reason)
    if not ASPECT_RATIO_RANGE[0] <= float(ratio) <= ASPECT_RATIO_RANGE[1]:
        raise invalid("aspect_ratio", value, "must be from 0.4 to 2.5 (width by height)")
    small = ratio.limit_denominator(21)
    is_near = abs(float(small) / float(ratio) - 1) < RATIO_TOLERANCE
    return small if is_near else ratio.limit_denominator(MAX_RATIO_TERM)


#: A batch has few ratios and many requests.
_parse_ratio_text = lru_cache(256)(_parse_ratio)


def _read_ratio(value: object) -> Fraction | None:
    match value:
        case bool():
            return None
        case int() | float():
            # A huge number is refused before a fraction is made of it: the fraction takes time that grows with it.
            return Fraction(value) if abs(value) < 1e6 else None
        case str() if found := re.fullmatch(r"\s*([0-9]{1,5})\s*[:/x]\s*([0-9]{1,5})\s*", value):
            return Fraction(int(found[1]), int(found[2])) if int(found[2]) else None
        case str() if re.fullmatch(r"\s*[0-9]{1,5}(\.[0-9]{1,20})?\s*", value):
            return Fraction(value.strip())
        case _:
            return None
