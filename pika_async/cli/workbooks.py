"""Workbooks (.xlsx): the first sheet with cells as rows of text, as a spreadsheet shows them. Computes no formula."""

from __future__ import annotations

import datetime as dt
import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import attrs

from pika_async.cli.exits import UsageError
from pika_async.cli.faults import InputFault

if TYPE_CHECKING:
    from openpyxl.cell.read_only import ReadOnlyCell
    from openpyxl.workbook import Workbook

__all__ = ["Sheet", "read_sheet"]

#: Most bytes of a workbook's parts, unpacked.
MAX_UNPACKED_BYTES: Final = 400_000_000
#: Most cells of a sheet, the blank ones before the last of a row included.
MAX_CELLS: Final = 10_000_000


@attrs.frozen
class Sheet:
    """Rows of a sheet with their numbers, without blank rows and trailing blank cells.

    :param note: names the sheet where the workbook has several.
    """

    rows: Sequence[tuple[int, list[str]]]
    faults: Sequence[InputFault] = ()
    note: str | None = None


def read_sheet(name: str, data: bytes) -> Sheet:
    """Return the first visible sheet of a workbook that has cells.

    :param name: name of the workbook in the note and in errors.
    :raises UsageError: if it is not a workbook that can be read.
    """
    import openpyxl  # noqa: PLC0415 - loaded where it is used: it takes a tenth of a second

    try:
        _check_size(name, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # styles and extensions that openpyxl does not know
            # Formulas are read for the one thing that their values do not say: that they were never computed.
            with (
                closing(openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)) as values,
                closing(openpyxl.load_workbook(io.BytesIO(data), read_only=True)) as formulas,
            ):
                return _first_sheet(name, values, formulas)
    except UsageError:
        raise
    except Exception as error:  # a damaged workbook may fail in any way
        reason = str(error) or "damaged"
        if data.startswith(b"\xd0\xcf\x11\xe0"):
            reason = "it is encrypted or an older .xls"
        elif not data.startswith(b"PK"):
            reason = "it holds text or something else"
        raise UsageError(f"{name}: cannot be read as .xlsx: {reason}; save it again, or as CSV UTF-8") from None


def _check_size(name: str, data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(part.file_size for part in archive.infolist()) > MAX_UNPACKED_BYTES:
            raise UsageError(f"{name}: must unpack to at most {MAX_UNPACKED_BYTES // 10**6} MB; split it")


def _first_sheet(name: str, values: Workbook, formulas: Workbook) -> Sheet:
    visible = [sheet for sheet in values.worksheets if sheet.sheet_state == "visible"] or values.worksheets
    for sheet in visible:
        # A wrong dimension, as some writers leave it, would cut the sheet.
        sheet.reset_dimensions()
        twin = formulas[sheet.title]
        twin.reset_dimensions()
        faults: list[InputFault] = []
        rows = [(number, cells) for number, cells in _rows(name, sheet, twin, faults) if any(map(str.strip, cells))]
        if rows or faults:
            note = f"{name}: sheet {sheet.title!r} is read, and no other" if len(values.worksheets) > 1 else None
            return Sheet(rows, faults, note)
    return Sheet([])


def _rows(name: str, sheet: Any, formulas: Any, faults: list[InputFault]) -> Iterator[tuple[int, list[str]]]:
    count = 0
    for row, twins in zip(sheet.iter_rows(), formulas.iter_rows(), strict=False):
        filled = [(cell, twin) for cell, twin in zip(row, twins, strict=False) if twin.value is not None]
        if not filled:
            continue
        number, width = filled[0][1].row, filled[-1][1].column
        count += width
        if count > MAX_CELLS:
            raise UsageError(f"{name}: must hold at most {MAX_CELLS:,} cells; split it")
        cells = [""] * width
        for cell, twin in filled:
            try:
                cells[twin.column - 1] = _cell_text(cell)
            except ValueError as error:
                faults.append(InputFault(f"{name}:{number}", str(error), f"cell {twin.column_letter}{number}"))
        yield number, cells


def _cell_text(cell: ReadOnlyCell) -> str:
    """Return the value of a cell as text.

    :raises ValueError: if it holds an error, or a formula without a value.
    """
    from openpyxl.utils.escape import unescape  # noqa: PLC0415

    match cell.value:
        case None if cell.data_type == "str":  # a formula whose value is an empty text
            return ""
        case None:
            raise ValueError("holds a formula that was never computed; open the file in a spreadsheet and save it")
        case str() as text if cell.data_type == "e":
            raise ValueError(f"holds the error {text}; mend its formula")
        case str() as text:
            return unescape(text)
        case bool() as flag:
            return str(flag).lower()
        case int() | float() as number:
            return str(int(number)) if float(number).is_integer() else f"{number:.15g}"
        case dt.datetime() as moment if moment.time() == dt.time():
            return moment.date().isoformat()
        case dt.time() as time:
            return f"{time:%H:%M}" if not time.second else f"{time:%H:%M:%S}"
        case dt.date() as date:
            return date.isoformat()
        case value:
            return str(value)
