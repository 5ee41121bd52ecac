"""`results.csv`: the rows of `results.jsonl` as a flat table for spreadsheets. Depends on no client."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from pika_async.cli.results import COLUMNS, ResultsWriter
from pika_async.cli.terminal import Terminal

__all__ = ["finish_results", "write_results_table"]

#: The fields of an error, each a column of its own.
_ERROR_FIELDS: Final = ("type", "kind", "message")
#: Columns before those of the metadata.
_FIXED: Final = tuple(
    column
    for name in COLUMNS
    if name != "metadata"
    for column in ([f"error_{field}" for field in _ERROR_FIELDS] if name == "error" else [name])
)
#: A text that a spreadsheet would take for a formula, also in the wide letters of East Asia.
_FORMULA: Final = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?")


async def finish_results(results: ResultsWriter, file: Path, terminal: Terminal) -> None:
    """Finish `results.jsonl` and write `results.csv` to `file`, in a thread; print an error for each that fails."""
    writes = {results.path: results.finish, file: lambda: write_results_table(results.rows, file)}
    for path, write in writes.items():
        try:
            await anyio.to_thread.run_sync(write)
        except OSError as error:
            terminal.error(f"{path} cannot be written: {error.strerror}")


def write_results_table(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Write the table of `rows` in their order, once whole.

    It has a byte order mark, without which Excel takes UTF-8 for another encoding, and a column for each name of the
    metadata. A text that a spreadsheet would run as a formula begins with an apostrophe.

    :param rows: rows of `results.jsonl`, which are iterated twice.
    :raises OSError: if it cannot be written; the earlier file is then as it was.
    """
    names = _metadata_names(row["metadata"] or {} for row in rows)
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("w", encoding="utf-8-sig", newline="") as target:
            writer = csv.writer(target)
            writer.writerow([*_FIXED, *(_cell(f"metadata.{name}" if name in _FIXED else name) for name in names)])
            writer.writerows(map(_cell, [*_fixed_values(row), *_metadata_values(row, names)]) for row in rows)
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _metadata_names(metadata_of_rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return every name of all metadata; a name that a row adds stands behind the one before it in that row."""
    names: list[str] = []
    seen: set[str] = set()
    for metadata in metadata_of_rows:
        at = 0
        for name in metadata:
            if name in seen:
                at = names.index(name) + 1
            else:
                seen.add(name)
                names.insert(at, name)
                at += 1
    return names


def _fixed_values(row: Mapping[str, Any]) -> Iterator[Any]:
    error = row["error"] or {}
    for name in COLUMNS:
        if name == "error":
            yield from (error.get(field) for field in _ERROR_FIELDS)
        elif name != "metadata":
            yield row[name]


def _metadata_values(row: Mapping[str, Any], names: Sequence[str]) -> Iterator[Any]:
    metadata = row["metadata"] or {}
    return (metadata.get(name) for name in names)


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            text = "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else "\ufffd" for c in value)
            return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text.strip()) else text
        case _:
            return json.dumps(value, ensure_ascii=False)
