"""Workbooks for tests: written by two libraries, and by hand as office programs write them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

import openpyxl
import xlsxwriter  # type: ignore[import-untyped]

__all__ = ["by_hand", "by_openpyxl", "by_xlsxwriter"]

Rows = Sequence[Sequence[Any]]
_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006"
_PARTS: Final = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" ContentType="application/vnd.'
    'openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxml'
    'formats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" Type="{_OFFICE}/officeDocument" '
    'Target="xl/workbook.xml"/></Relationships>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
    f'Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets><sheet name="S" sheetId="1" r:id="rId1"/>'
    "</sheets></workbook>",
}  # fmt: skip


def by_openpyxl(rows: Rows, **sheets: Rows) -> bytes:
    """Return a workbook with shared strings; formulas have no values."""
    book = openpyxl.Workbook()
    first = book.active
    assert first is not None
    for row in rows:
        first.append(list(row))
    for title, more in sheets.items():
        sheet = book.create_sheet(title)
        for row in more:
            sheet.append(list(row))
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def by_xlsxwriter(rows: Rows) -> bytes:
    """Return a workbook whose texts are texts, whatever they begin with; blank texts are blank cells."""
    data = io.BytesIO()
    with xlsxwriter.Workbook(data, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate(rows):
            for column, value in enumerate(row):
                sheet.write(number, column, value)
    return data.getvalue()


def by_hand(cells: str) -> bytes:
    """Return a workbook with these rows of XML, and a dimension that is wrong, as some programs leave it."""
    sheet = f'<worksheet xmlns="{_MAIN}"><dimension ref="A1"/><sheetData>{cells}</sheetData></worksheet>'
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**_PARTS, "xl/worksheets/sheet1.xml": sheet}.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return data.getvalue()


def inline(reference: str, *runs: str) -> str:
    """Return a cell with an inline text in several runs."""
    texts = "".join(f'<r><t xml:space="preserve">{escape(run)}</t></r>' for run in runs)
    return f'<c r="{reference}" t="inlineStr"><is>{texts}</is></c>'
