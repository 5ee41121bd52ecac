"""Cells of a table: text, as a spreadsheet or a CSV file holds it, to values of request fields. Checks no range."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from pika_async.cli.columns import CAMERA_AXES
from pika_async.providers._wire import DecodeError, parse_json

__all__ = ["json_reason", "parse_camera", "parse_cell", "quote"]

_INTEGER_FIELDS: Final = frozenset({"frame_rate", "guidance_scale", "motion", "seed"})
_BOOLEAN_FIELDS: Final = frozenset({"sfx", "extend", "strict"})
#: Spreadsheets write booleans in the language of their user.
_BOOLEANS: Final = {
    "true": True, "1": True, "yes": True, "wahr": True, "ja": True, "vrai": True, "oui": True, "verdadero": True,
    "false": False, "0": False, "no": False, "falsch": False, "nein": False, "faux": False, "non": False,
    "falso": False,
}  # fmt: skip
#: An integer, also as spreadsheets write it: `42.0` or `42,00`. Three zeros may be thousands, and are refused.
_INTEGER: Final = re.compile(r"([+-]?[0-9]{1,30})([.,]0{1,2})?")
#: Seconds, also with a decimal comma or a unit: `5`, `7,5`, `5 s`. Three decimals may be thousands, and are refused.
_SECONDS: Final = re.compile(r"([0-9]{1,9})(?:[.,]([0-9]{1,2}))? *s?", re.IGNORECASE)
#: A ratio that a spreadsheet took for a time of day: `16:09:00`.
_TIME: Final = re.compile(r"0?([0-9]{1,2}):0?([0-9]{1,2})(:00)?")
_DECIMAL_COMMA: Final = re.compile(r"[0-9]+,[0-9]+")


def parse_cell(field: str, cell: str) -> Any:
    """Return the value of a cell that is not blank. What cannot be parsed is returned as text, for the field's check.

    :param field: a field of `GenerationRequest`.
    :raises ValueError: says how a camera or metadata must be written.
    """
    text = cell.strip()
    if field == "prompt":
        return cell
    if field in _INTEGER_FIELDS:
        found = _INTEGER.fullmatch(text)
        return int(found[1]) if found else text
    if field == "duration":
        found = _SECONDS.fullmatch(text)
        return float(f"{found[1]}.{found[2] or 0}") if found else text
    if field in _BOOLEAN_FIELDS:
        return _BOOLEANS.get(text.lower(), text)
    if field == "aspect_ratio":
        return _ratio(text)
    if field == "model":
        number = text.replace(",", ".", 1) if _DECIMAL_COMMA.fullmatch(text) else text
        return f"{number}.0" if number.isdecimal() else number
    if field == "ingredients":
        return [part.strip() for part in text.split("|")]
    if field == "camera":
        return parse_camera(text)
    return _metadata(text) if field == "metadata" else text


def _ratio(text: str) -> str:
    if _DECIMAL_COMMA.fullmatch(text):
        return text.replace(",", ".")
    found = _TIME.fullmatch(text)
    return f"{found[1]}:{found[2]}" if found else text


def _metadata(text: str) -> Any:
    try:
        return parse_json(text.encode())
    except DecodeError as error:
        raise ValueError(f"{quote(text)} must be JSON: {json_reason(str(error))}") from None


def parse_camera(text: str) -> dict[str, str]:
    """Parse `pan=left;zoom=in`, or the same with commas, to directions by axis.

    :raises ValueError: says how a camera is written.
    """
    moves: dict[str, str] = {}
    for part in re.split("[;,]", text):
        axis, equals, direction = (piece.strip() for piece in part.partition("="))
        if not equals or axis not in CAMERA_AXES or axis in moves:
            wrong = "must name each axis once" if axis in moves else "must be a camera"
            axes = ", ".join(CAMERA_AXES)
            raise ValueError(f'camera: {quote(text)} {wrong}; write "pan=left;zoom=in" (axes: {axes})')
        moves[axis] = direction
    return moves


def json_reason(text: str) -> str:
    """Return the reason of a JSON error in words for one line."""
    if "surrogates" in text:
        return "it holds a lone surrogate, which is half a character"
    return re.sub(r": line 1 (column \d+) \(char \d+\)", r" at \1", text)


def quote(text: str) -> str:
    """Return the beginning of `text` in double quotes, for a message."""
    return json.dumps(text[:60], ensure_ascii=False)
