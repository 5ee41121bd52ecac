"""Tables: records with named columns to rows with fields of requests and metadata. Checks no field values."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from pika_async.cli.cells import parse_cell, quote
from pika_async.cli.columns import CAMERA_AXES, column_names, field_of, nearest_column
from pika_async.cli.exits import InputErrors
from pika_async.cli.faults import InputFault
from pika_async.cli.words import counted
from pika_async.cli.workbooks import Sheet
from pika_async.errors import strip_control
from pika_async.models.spelling import letters_of

__all__ = ["Row", "Table", "read_csv", "rows_of_records", "rows_of_sheet"]

_DELIMITERS: Final = ",;\t"
#: The first line with which a spreadsheet passes its delimiter on.
_DELIMITER_LINE: Final = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_WAY_OUT: Final = (
    f"It must be one of {column_names()}, or a name that is not near one of them, which is kept as metadata"
)
#: What to do about cells beyond the header, in a text and in a sheet.
_TEXT_ADVICE: Final = "quote cells that hold the separator"
_SHEET_ADVICE: Final = "name every column, and delete the rows above the names of the columns"
#: Objects of the wires whose fields stand in a JSON object of their own.
_WIRE_OBJECTS: Final = frozenset({"options", "parameters"})


@attrs.frozen
class Row:
    """One row of the input.

    :param number: its number, as a person sees it.
    :param fields: fields of `GenerationRequest`; columns that are none of them are in the metadata.
    """

    number: int
    fields: Mapping[str, Any] = attrs.field(factory=dict)
    faults: Sequence[InputFault] = ()


@attrs.frozen
class Table:
    """The rows of an input.

    :param columns: names of all columns that were read: fields, and those of the metadata as they are written.
    :param faults: faults of the whole, such as a column that may be mistyped.
    :param notes: what was guessed or left out, for the user.
    :param header: number of the row with the names of the columns; 0 without one.
    :param mistyped: the fields that columns may be meant as, by the names as they are written.
    """

    name: str
    rows: Sequence[Row] = ()
    columns: Sequence[str] = ()
    faults: Sequence[InputFault] = ()
    notes: Sequence[str] = ()
    header: int = 0
    mistyped: Mapping[str, str] = attrs.field(factory=dict)


# --- records: JSON objects and lines of text --------------------------------------------------------------------------


def rows_of_records(name: str, records: Iterable[tuple[int, Any]], template_columns: frozenset[str]) -> Table:
    """Return the table of JSON values with their numbers; an error in place of a value is a fault of its row."""
    columns: dict[str, None] = {}
    rows = []
    for number, record in records:
        location = f"{name}:{number}"
        if isinstance(record, Exception):
            rows.append(Row(number, faults=[InputFault(location, strip_control(str(record)))]))
        elif not isinstance(record, dict):
            reason = f'must be a JSON object, not {_kind(record)}; write {{"prompt": "..."}}'
            rows.append(Row(number, faults=[InputFault(location, reason)]))
        else:
            row = _row_of_record(number, location, record, template_columns)
            columns.update(dict.fromkeys(_columns_of(row.fields)))
            rows.append(row)
    return Table(name, rows, list(columns))


def _columns_of(fields: Mapping[str, Any]) -> list[str]:
    metadata = fields.get("metadata")
    return [*fields, *(metadata if isinstance(metadata, Mapping) else ())]


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _row_of_record(number: int, location: str, record: dict[str, Any], template_columns: frozenset[str]) -> Row:
    fields: dict[str, Any] = {}
    more: dict[str, Any] = {}
    faults = []
    for name, value in _flattened(record):
        field = field_of(name)
        place, at = (more, name) if field is None else (fields, field)
        if field is None and (problem := _near(name, template_columns, "field")):
            faults.append(InputFault(location, problem))
        elif at in place:
            faults.append(InputFault(location, f"{quote(name)}: must be given once, but {at} is given too"))
        else:
            place[at] = value
    given = {name: value for name, value in fields.items() if value is not None}
    fields, problems = _joined(given, more)
    return Row(number, fields, [*faults, *(InputFault(location, problem) for problem in problems)])


def _flattened(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if letters_of(name) in _WIRE_OBJECTS and isinstance(value, Mapping):
            yield from _flattened(value)
        else:
            yield name, value


def _joined(fields: Mapping[str, Any], more: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields with the axes of the camera in one and with `more` in the metadata, and what is wrong."""
    joined = dict(fields)
    problems = []
    camera = {axis: joined.pop(f"camera.{axis}") for axis in CAMERA_AXES if f"camera.{axis}" in joined}
    if camera and "camera" in joined:
        problems.append("camera: must be given either as a whole or by its axes")
    elif camera:
        joined["camera"] = camera
    metadata = joined.get("metadata", {})
    if more and isinstance(metadata, Mapping):  # the check of the field refuses other metadata
        twice = [name for name in more if name in metadata]
        problems += [f"metadata: {quote(name)} must be given once, but is given beside it too" for name in twice]
        joined["metadata"] = {**metadata, **more}
    return joined, problems


def _near(name: str, template_columns: frozenset[str], what: str) -> str | None:
    """Return what is wrong with a name that may be a mistyped field; None if it is metadata."""
    nearest = None if letters_of(name) in template_columns else nearest_column(name)
    if nearest is None:
        return None
    return f"{quote(strip_control(name))}: unknown {what}; did you mean {nearest}? {_WAY_OUT}"


# --- grids: CSV and sheets --------------------------------------------------------------------------------------------


def rows_of_sheet(name: str, sheet: Sheet, template_columns: frozenset[str]) -> Table:
    """Return the table of a sheet."""
    table = _rows_of_grid(name, sheet.rows, template_columns, _SHEET_ADVICE)
    notes = [] if sheet.note is None else [sheet.note]
    return attrs.evolve(table, faults=[*table.faults, *sheet.faults], notes=[*notes, *table.notes])


def read_csv(name: str, text: str, template_columns: frozenset[str]) -> Table:
    """Return the table of a CSV text with a header. Commas, semicolons or tabs separate its cells.

    :raises InputErrors: if the header cannot be read.
    """
    given = _DELIMITER_LINE.match(text)
    text = text[given.end() :] if given else text
    delimiter = given[1] if given else _delimiter_of(text, template_columns)
    records = list(_records(text, delimiter))
    if records and isinstance(records[0][1], csv.Error):
        number, error = records[0]
        raise InputErrors([InputFault(f"{name}:{number}", f"must be CSV: {error}")])
    return _rows_of_grid(name, records, template_columns, _TEXT_ADVICE)


def _delimiter_of(text: str, template_columns: frozenset[str]) -> str:
    """Return the delimiter under which the header has most known columns, or else most columns."""

    def score(delimiter: str) -> tuple[int, int]:
        _, cells = next(_records(text, delimiter), (0, []))
        names = [] if isinstance(cells, csv.Error) else [cell for cell in cells if cell.strip()]
        known = sum(field_of(cell) is not None or letters_of(cell) in template_columns for cell in names)
        return known, len(names)

    return max(_DELIMITERS, key=score)


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield the records that are not blank, with the row that a spreadsheet shows them in; the last may be an error."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        for number, record in enumerate(reader, 1):
            if any(cell.strip() for cell in record):
                yield number, record
    except csv.Error as error:
        yield number + 1, error


@attrs.frozen
class _Header:
    """Columns by position: the name as it is written, and the field that it means, None for metadata."""

    columns: Mapping[int, tuple[str, str | None]]
    #: The fields that columns may be meant as, by the names as they are written.
    mistyped: Mapping[str, str]


def _rows_of_grid(
    name: str, grid: Sequence[tuple[int, list[str] | csv.Error]], template_columns: frozenset[str], advice: str
) -> Table:
    if not grid:
        return Table(name)
    first, names = grid[0]
    assert not isinstance(names, csv.Error)  # noqa: S101 - the caller has raised it
    header, faults = _read_header(f"{name}:{first}", names, template_columns)
    rows = []
    for number, cells in grid[1:]:
        location = f"{name}:{number}"
        if isinstance(cells, csv.Error):
            way_out = 'close each quoted cell, and write " within one as ""'
            reason = f"must be CSV; cannot be read from here on: {cells}; {way_out}"
            rows.append(Row(number, faults=[InputFault(location, reason)]))
        else:
            rows.append(_row_of_cells(number, location, header, cells, advice))
    known = {written if field is None else field.partition(".")[0]: None for written, field in header.columns.values()}
    return Table(name, rows, list(known), faults, header=first, mistyped=header.mistyped)


def _read_header(
    location: str, names: Sequence[str], template_columns: frozenset[str]
) -> tuple[_Header, list[InputFault]]:
    columns: dict[int, tuple[str, str | None]] = {}
    seen: set[str] = set()
    mistyped: dict[str, str] = {}
    faults = []
    for position, cell in enumerate(names):
        written = strip_control(cell.removeprefix("\ufeff")).strip()
        if not written:
            continue
        field = field_of(written)
        if field is None and (problem := _near(written, template_columns, "column")):
            faults.append(InputFault(location, problem.removesuffix(f" {_WAY_OUT}") if mistyped else problem))
            mistyped[written] = nearest_column(written) or ""
        elif (field or written) in seen:
            other = next(name for name, meant in columns.values() if (meant or name) == (field or written))
            is_same = other == written
            also = "occurs twice" if is_same else f"{quote(other)} means {field} as well"
            faults.append(InputFault(location, f"{quote(written)}: must be one column, but {also}"))
        else:
            seen.add(field or written)
        columns[position] = (written, field)
    return _Header(columns, mistyped), faults


def _row_of_cells(number: int, location: str, header: _Header, cells: Sequence[str], advice: str) -> Row:
    faults = []
    fields: dict[str, Any] = {}
    more: dict[str, str] = {name: "" for name, field in header.columns.values() if field is None}
    beyond = [position for position, cell in enumerate(cells) if cell.strip() and position not in header.columns]
    if beyond:
        width = max(header.columns, default=-1) + 1
        reason = (
            f"must have {counted(width, 'cell')} like the header, not {len(cells)}; {advice}"
            if max(beyond) >= width
            else "must be empty, for the column has no name; name it"
        )
        faults.append(
            InputFault(location, reason, "" if max(beyond) >= width else f"column {_column_letter(beyond[0])}")
        )
    for position, (written, field) in header.columns.items():
        cell = cells[position] if position < len(cells) else ""
        if field is None:
            more[written] = cell.strip()
        elif cell.strip():
            try:
                fields[field] = parse_cell(field, cell)
            except ValueError as error:
                faults.append(InputFault(location, strip_control(str(error).removeprefix(f"{field}: ")), field))
    fields, problems = _joined(fields, more)
    return Row(number, fields, [*faults, *(InputFault(location, problem) for problem in problems)])


def _column_letter(position: int) -> str:
    letters = ""
    number = position + 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
