"""Parsers of a batch's input: JSON lines, CSV or text to rows of fields with line numbers. Checks no field values."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from pika_async.cli.exits import InputErrors
from pika_async.models import GenerationRequest
from pika_async.models.spelling import did_you_mean
from pika_async.providers._wire import DecodeError, parse_json

__all__ = [
    "CAMERA_AXES",
    "REQUEST_FIELDS",
    "Row",
    "parse_camera",
    "parse_csv",
    "parse_jsonl",
    "parse_text",
    "parse_unnamed",
]

REQUEST_FIELDS: Final = tuple(field.name for field in attrs.fields(GenerationRequest))
CAMERA_AXES: Final = ("pan", "tilt", "rotate", "zoom")
_COLUMNS: Final = (*REQUEST_FIELDS, *(f"camera.{axis}" for axis in CAMERA_AXES))
_INTEGER_FIELDS: Final = frozenset({"frame_rate", "guidance_scale", "motion", "seed"})
_BOOLEAN_FIELDS: Final = frozenset({"sfx", "extend", "strict"})
_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@attrs.frozen
class Row:
    """One row of the input: the line it begins on, and its fields or what is wrong with it."""

    line: int
    fields: Mapping[str, Any] = attrs.field(factory=dict)
    problem: str | None = None


def _decode(name: str, data: bytes) -> str:
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise InputErrors([f"{name}:{line}: {wrong}"]) from None


def _lines(name: str, data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank with their numbers. Only LF, CR LF and CR end a line."""
    for number, line in enumerate(re.split(r"\r\n|\n|\r", _decode(name, data)), 1):
        if line.strip():
            yield number, line


# --- text ----------------------------------------------------------------------------------------------------------


def parse_text(name: str, data: bytes) -> list[Row]:
    """Parse one prompt per line, skipping blank lines and lines that begin with `#`.

    :raises InputErrors: if `data` is not UTF-8.
    """
    return [Row(number, {"prompt": line.strip()}) for number, line in _lines(name, data) if line.strip()[0] != "#"]


def parse_unnamed(name: str, data: bytes) -> list[Row]:
    """Parse standard input: JSON lines if the first line that is not blank begins with `{`, otherwise text.

    :raises InputErrors: if `data` is not UTF-8.
    """
    head = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    return parse_jsonl(name, data) if head.startswith(b"{") else parse_text(name, data)


# --- JSON lines ----------------------------------------------------------------------------------------------------


class _DuplicateField(ValueError):  # noqa: N818 - carries a field name out of the JSON hook
    pass


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in pairs:
        if name in record:
            raise _DuplicateField(name)
        record[name] = value
    return record


def parse_jsonl(name: str, data: bytes) -> list[Row]:
    """Parse one JSON object per line, with the fields of `GenerationRequest`; skip blank lines.

    :raises InputErrors: if `data` is not UTF-8.
    """
    return [_json_row(number, line) for number, line in _lines(name, data)]


def _json_row(number: int, line: str) -> Row:
    line = line.lstrip("\ufeff")  # files that were joined
    try:
        parse_json(line.encode())
        record = json.loads(line, object_pairs_hook=_reject_duplicates)
    except _DuplicateField as duplicate:
        return Row(number, problem=f"{_quote(str(duplicate))}: must be given once")
    except DecodeError as error:
        return Row(number, problem=f"must be JSON: {_reason(str(error))}")
    if not isinstance(record, dict):
        return Row(number, problem=f'must be a JSON object, not {_kind(record)}; write {{"prompt": "..."}}')
    unknown = [field for field in record if field not in REQUEST_FIELDS]
    if unknown:
        return Row(number, problem=_unknown(unknown[0], REQUEST_FIELDS, "field"))
    return Row(number, {field: value for field, value in record.items() if value is not None})


def _reason(text: str) -> str:
    if "surrogates" in text:
        return "it holds a lone surrogate, which is half a character"
    return re.sub(r": line 1 (column \d+) \(char \d+\)", r" at \1", text)


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _quote(text: str) -> str:
    return json.dumps(text[:60])


def _unknown(field: str, known: tuple[str, ...], what: str) -> str:
    hint = "; separate columns by commas" if what == "column" and re.search(r"[;\t]", field) else ""
    return f"{_quote(field)}: unknown {what}{hint}; must be one of {', '.join(known)}{did_you_mean(field, known)}"


# --- CSV -----------------------------------------------------------------------------------------------------------


def parse_csv(name: str, data: bytes) -> list[Row]:
    """Parse a header with field names and one request per row.

    Columns may be `camera.pan` or `camera`; ingredients are separated by `|`.

    :raises InputErrors: if `data` is not UTF-8 or the header is wrong.
    """
    records = _records(_decode(name, data))
    first, header = next(records, (1, []))
    if isinstance(header, csv.Error):
        raise InputErrors([f"{name}:{first}: must be CSV: {header}"])
    if not header:
        return []
    problem = _header_problem(header)
    if problem:
        raise InputErrors([f"{name}:{first}: {problem}"])
    return [_csv_row_or_error(line, header, record) for line, record in records]


def _records(text: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield the records that are not blank, each with the line it begins on; the last may be an error."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        yield line, error


def _csv_row_or_error(line: int, header: list[str], record: list[str] | csv.Error) -> Row:
    if isinstance(record, csv.Error):
        return Row(line, problem=f"must be CSV; cannot be read from here on: {record}")
    return _csv_row(line, header, record)


def _header_problem(header: list[str]) -> str | None:
    for column in header:
        if column not in _COLUMNS:
            return _unknown(column, _COLUMNS, "column")
        if header.count(column) > 1:
            return f"{_quote(column)}: must be one column, but occurs twice"
    return None if "prompt" in header else '"prompt": must be a column; every request needs one'


def _csv_row(line: int, header: list[str], record: list[str]) -> Row:
    if len(record) != len(header):
        return Row(
            line,
            problem=f"must have {len(header)} cells like the header, not {len(record)}; quote cells that hold commas",
        )
    cells = {column: cell for column, cell in zip(header, record, strict=True) if cell.strip()}
    camera = {axis: cells.pop(f"camera.{axis}").strip() for axis in CAMERA_AXES if f"camera.{axis}" in cells}
    if camera and "camera" in cells:
        return Row(line, problem="camera: must be given either as a whole or by its axes")
    try:
        fields = {column: _cell(column, cell) for column, cell in cells.items()}
    except ValueError as error:
        return Row(line, problem=str(error))
    return Row(line, {**fields, **({"camera": camera} if camera else {})})


def _cell(column: str, cell: str) -> Any:
    text = cell.strip()
    if column == "prompt":
        return cell
    if column in _INTEGER_FIELDS:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,30}", text) else text
    if column in _BOOLEAN_FIELDS:
        return _BOOLEANS.get(text.lower(), text)
    if column == "ingredients":
        return [part.strip() for part in text.split("|")]
    if column == "camera":
        return parse_camera(text)
    if column == "metadata":
        try:
            return parse_json(text.encode())
        except DecodeError as error:
            raise ValueError(f"metadata: {_quote(text)} must be JSON: {_reason(str(error))}") from None
    return text


def parse_camera(text: str) -> dict[str, str]:
    """Parse `pan=left;zoom=in`, or the same with commas, to directions by axis.

    :raises ValueError: says how a camera is written.
    """
    moves: dict[str, str] = {}
    for part in re.split("[;,]", text):
        axis, equals, direction = (piece.strip() for piece in part.partition("="))
        if not equals or axis not in CAMERA_AXES or axis in moves:
            wrong = "must name each axis once" if axis in moves else "must be a camera"
            raise ValueError(
                f'camera: {_quote(text)} {wrong}; write "pan=left;zoom=in" (axes: {", ".join(CAMERA_AXES)})'
            )
        moves[axis] = direction
    return moves
