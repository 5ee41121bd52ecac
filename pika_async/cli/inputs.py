"""Parsers of a batch's input: bytes of each format to rows of fields. Checks no field values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from pika_async.cli.cells import json_reason, quote
from pika_async.cli.columns import field_of
from pika_async.cli.exits import InputErrors, UsageError
from pika_async.cli.faults import InputFault
from pika_async.cli.tables import Table, read_csv, rows_of_records, rows_of_sheet
from pika_async.cli.text_encoding import decode_text
from pika_async.cli.workbooks import read_sheet
from pika_async.providers._wire import DecodeError, parse_json

__all__ = ["INPUT_SUFFIXES", "parse_input"]

_Parser = Callable[[str, bytes, frozenset[str]], Table]
#: The beginning of every .xlsx file, which is a ZIP archive.
_ZIP_MARK: Final = b"PK\x03\x04"


def parse_input(name: str, suffix: str, data: bytes, template_columns: frozenset[str] = frozenset()) -> Table:
    """Return the rows of an input.

    :param name: name of the input in notes and errors.
    :param suffix: one of `INPUT_SUFFIXES`, or "" for standard input, whose format is recognized.
    :param template_columns: letters of the columns that a template names; they may have any name.
    :raises InputErrors: if the encoding or the format is wrong.
    :raises UsageError: if it is a workbook that cannot be read.
    """
    if data.startswith(_ZIP_MARK) and _PARSERS[suffix] not in {_parse_workbook, _parse_unnamed}:
        raise UsageError(
            f"{name}: is an .xlsx workbook under another name; rename it to end in .xlsx; nothing was sent"
        )
    return _PARSERS[suffix](name, data, template_columns)


# --- text ----------------------------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank with their numbers. Only LF, CR LF and CR end a line."""
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip():
            yield number, line


def _parse_text(name: str, data: bytes, template_columns: frozenset[str]) -> Table:
    r"""Parse one prompt per line. A line that begins with `#` is a comment; `\#` begins a prompt with `#`.

    A file whose first line is a header with a column of prompts, as spreadsheets export "Unicode text", is a table.
    """
    decoded = decode_text(name, data)
    notes = [] if decoded.note is None else [decoded.note]
    lines = list(_lines(decoded.text))
    if lines and "\t" in lines[0][1] and any(field_of(cell) == "prompt" for cell in lines[0][1].split("\t")):
        notes.append(f"{name}: read as a table, for its first line names columns")
        return attrs.evolve(read_csv(name, decoded.text, template_columns), notes=notes)
    comments = [number for number, line in lines if line.lstrip().startswith("#")]
    if comments:
        shown = ", ".join(map(str, comments[:8])) + (", ..." if len(comments) > 8 else "")
        notes.append(
            f"{name}: lines that begin with # are comments, and are not sent: {len(comments)} ({shown}); "
            r"write \# to begin a prompt with #"
        )
    records = [
        (number, {"prompt": _unescape(line.strip())}) for number, line in lines if not line.lstrip().startswith("#")
    ]
    return attrs.evolve(rows_of_records(name, records, template_columns), notes=notes)


def _unescape(prompt: str) -> str:
    return prompt[1:] if prompt.startswith("\\#") else prompt


# --- JSON ----------------------------------------------------------------------------------------------------------


class _DuplicateField(ValueError):  # noqa: N818 - carries a field name out of the JSON hook
    pass


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in pairs:
        if name in record:
            raise _DuplicateField(name)
        record[name] = value
    return record


def _load(text: str) -> Any:
    """Return the value of a JSON text.

    :raises ValueError: says what is wrong.
    """
    try:
        parse_json(text.encode())
        return json.loads(text, object_pairs_hook=_reject_duplicates)
    except _DuplicateField as duplicate:
        raise ValueError(f"{quote(str(duplicate))}: must be given once") from None
    except DecodeError as error:
        raise ValueError(f"must be JSON: {json_reason(str(error))}") from None


def _parse_jsonl(name: str, data: bytes, template_columns: frozenset[str]) -> Table:
    """Parse one JSON object per line; skip blank lines."""
    decoded = decode_text(name, data)
    records: list[tuple[int, Any]] = []
    for number, line in _lines(decoded.text):
        try:
            records.append((number, _load(line.lstrip("\ufeff"))))  # a mark within: files that were joined
        except ValueError as error:
            records.append((number, error))
    table = rows_of_records(name, records, template_columns)
    return table if decoded.note is None else attrs.evolve(table, notes=[decoded.note])


def _parse_json_file(name: str, data: bytes, template_columns: frozenset[str]) -> Table:
    """Parse a list of JSON objects or prompts, or one object; rows are counted from 1."""
    decoded = decode_text(name, data)
    text = decoded.text
    if not text.strip():
        return Table(name)
    try:
        value = _load(text)
    except ValueError as error:
        raise InputErrors([InputFault(f"{name}:{_line_of(error)}", str(error))]) from None
    items = value if isinstance(value, list) else [value]
    records = [(number, {"prompt": one} if isinstance(one, str) else one) for number, one in enumerate(items, 1)]
    table = rows_of_records(name, records, template_columns)
    return table if decoded.note is None else attrs.evolve(table, notes=[decoded.note])


def _line_of(error: ValueError) -> str:
    _, found, rest = str(error).partition("line ")
    return rest.split(" ")[0] if found and rest.split(" ")[0].isdecimal() else "1"


# --- tables --------------------------------------------------------------------------------------------------------


def _parse_csv(name: str, data: bytes, template_columns: frozenset[str]) -> Table:
    decoded = decode_text(name, data)
    table = read_csv(name, decoded.text, template_columns)
    return table if decoded.note is None else attrs.evolve(table, notes=[decoded.note, *table.notes])


def _parse_workbook(name: str, data: bytes, template_columns: frozenset[str]) -> Table:
    return rows_of_sheet(name, read_sheet(name, data), template_columns)


def _parse_unnamed(name: str, data: bytes, template_columns: frozenset[str]) -> Table:
    """Parse standard input: a workbook, JSON lines, a list in JSON, a table whose header names prompts, or text."""
    if data.startswith(_ZIP_MARK):
        return _parse_workbook(name, data, template_columns)
    text = decode_text(name, data).text.lstrip()
    if text.startswith("{"):
        return _parse_jsonl(name, data, template_columns)
    if text.startswith("["):
        try:
            _load(text)
        except ValueError:
            pass
        else:
            return _parse_json_file(name, data, template_columns)
    first = text.split("\n", 1)[0]
    for delimiter in ",;\t":
        if any(field_of(cell.strip().strip('"')) == "prompt" for cell in first.split(delimiter)):
            return _parse_csv(name, data, template_columns)
    return _parse_text(name, data, template_columns)


_PARSERS: Final[Mapping[str, _Parser]] = {
    ".jsonl": _parse_jsonl,
    ".json": _parse_json_file,
    ".csv": _parse_csv,
    ".tsv": _parse_csv,
    ".xlsx": _parse_workbook,
    ".xlsm": _parse_workbook,
    ".txt": _parse_text,
    "": _parse_unnamed,
}
#: Endings of the files that can be read.
INPUT_SUFFIXES: Final = tuple(suffix for suffix in _PARSERS if suffix not in {"", ".xlsm"})
