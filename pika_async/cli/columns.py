"""Names of columns: the fields that they mean, in the spellings of people and of the wires."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from pika_async.models import GenerationRequest
from pika_async.models.spelling import abbreviates, letters_of

__all__ = ["CAMERA_AXES", "REQUEST_FIELDS", "column_names", "field_of", "nearest_column"]

REQUEST_FIELDS: Final = tuple(field.name for field in attrs.fields(GenerationRequest))
CAMERA_AXES: Final = ("pan", "tilt", "rotate", "zoom")
#: Every field and axis by the letters of its name.
_BY_LETTERS: Final[Mapping[str, str]] = {
    letters_of(name): name for name in (*REQUEST_FIELDS, *(f"camera.{axis}" for axis in CAMERA_AXES))
}
#: The spellings of the wires that differ in more than case and punctuation.
_WIRE_NAMES: Final[Mapping[str, str]] = {
    "prompttext": "prompt",
    "pikaffect": "effect",
    "style": "effect",
    "ratio": "aspect_ratio",
    "imageurl": "image",
    "ingredient": "ingredients",
    "durations": "duration",  # duration_s
    "imagetail": "last_image",
    "lastimageurl": "last_image",
}
#: Words for a field, or for what sets it apart from another, in a column that is not its name.
_TELLING_WORDS: Final[Mapping[str, str]] = {
    "neg": "negative_prompt",
    "negative": "negative_prompt",
    "fps": "frame_rate",
    "cfg": "guidance_scale",
    "img": "image",
    "photo": "image",
    "picture": "image",
    "vid": "video",
    "cam": "camera",
    "seed": "seed",
    "seconds": "duration",
    "tail": "last_image",
    "sfx": "sfx",
    "sound": "sfx",
}
#: Where a capital letter begins a word.
_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
#: Objects of the wires that hold fields, such as `options.parameters.seed`.
_WIRE_PREFIXES: Final = ("optionsparameters", "options", "parameters")
#: From how many letters on a name within another counts as near.
MIN_NAME_PART_LENGTH: Final = 5
#: Longest name that is near another only if they differ in one letter.
SHORT_NAME_LENGTH: Final = 5


def column_names() -> str:
    """Return the names of all fields, for an error text."""
    return ", ".join(REQUEST_FIELDS)


def field_of(column: str) -> str | None:
    """Return the field, or `camera.AXIS`, that a column means; None if it means none.

    Letter case, blanks and punctuation do not count.
    """
    letters = _letters(column)
    for prefix in ("", *_WIRE_PREFIXES):
        rest = letters.removeprefix(prefix)
        if letters.startswith(prefix) and (found := _BY_LETTERS.get(rest) or _WIRE_NAMES.get(rest)):
            return found
    return None


def nearest_column(column: str) -> str | None:
    """Return the field for which a column may be mistaken; None if it resembles none."""
    words = [letters_of(word) for word in re.split(r"[\W_]+", _CAPITAL.sub(" ", _normal(column)))]
    letters = "".join(words)
    if not letters:
        return None
    if letters in CAMERA_AXES:
        return f"camera.{letters}"
    if (found := _made_of(words)) is not None:
        return found
    if telling := [_TELLING_WORDS[word] for word in words if word in _TELLING_WORDS]:
        return telling[0]
    known = {**_BY_LETTERS, **_WIRE_NAMES}
    best = min(known, key=lambda name: _distance(letters, name))
    if _distance(letters, best) <= (1 if len(best) <= SHORT_NAME_LENGTH else 2):
        return known[best]
    for name in sorted(known, key=len, reverse=True):
        part, whole = sorted((letters, name), key=len)
        if len(part) >= MIN_NAME_PART_LENGTH and part in whole:
            return known[name]
    return None


def _made_of(words: Sequence[str]) -> str | None:
    """Return the field whose name, or its abbreviation, the words are in either order, or hold."""
    for spelling in ("".join(words), "".join(reversed(words))):  # such as "Prompt (negative)"
        for name in REQUEST_FIELDS:
            if spelling == letters_of(name) or abbreviates(spelling, name):
                return name
    several = [name for name in REQUEST_FIELDS if "_" in name and set(name.split("_")) <= set(words)]
    return several[0] if several else None  # such as "My image (last)"


def _letters(column: str) -> str:
    return letters_of(_normal(column))


def _normal(column: str) -> str:
    return unicodedata.normalize("NFKC", column[:120])


def _distance(one: str, other: str) -> int:
    """Return the number of letters to insert, remove, change or swap with the next to make `other` of `one`."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, target in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != target))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == target:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
