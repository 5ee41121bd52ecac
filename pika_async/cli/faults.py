"""Faults of an input: each names a row, a field and the way out. Equal faults of several rows are one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from pika_async.cli.words import counted
from pika_async.errors import InvalidRequest, shorten, strip_control

__all__ = ["InputFault", "fault_lines"]

#: Rows that are named behind a fault that they share; the others are counted.
MAX_NAMED_ROWS: Final = 8
#: Lines of faults that are shown; the others are counted.
MAX_LINES: Final = 60


@attrs.frozen
class InputFault:
    """Something wrong in one row.

    :param location: `FILE:ROW`.
    :param reason: what must hold, and the way out; equal for all rows with the same fault.
    :param field: field or column; default "", the whole row.
    :param value: the value as it is shown; default "", none.
    """

    location: str
    reason: str
    field: str = ""
    value: str = ""

    @classmethod
    def of(cls, location: str, error: InvalidRequest) -> InputFault:
        """Return the fault of a field that was refused."""
        value = "" if error.value is None else shorten(error.value)
        return cls(location, strip_control(error.reason), strip_control(error.field), strip_control(value))

    def __str__(self) -> str:
        field = f" {self.field}:" if self.field else ""
        value = f" {self.value}" if self.value else ""
        return f"{self.location}:{field}{value} {self.reason}"


def fault_lines(faults: Sequence[InputFault]) -> Iterator[str]:
    """Yield a line for each fault, in the order in which they occur first; equal ones of several rows share a line."""
    groups: dict[tuple[str, str], dict[str, InputFault]] = {}
    for fault in faults:
        groups.setdefault((fault.field, fault.reason), {}).setdefault(fault.location, fault)
    for number, ((field, reason), by_row) in enumerate(groups.items()):
        if number == MAX_LINES:
            yield f"... and {counted(len(groups) - MAX_LINES, 'more fault')}"
            return
        rows = list(by_row.values())
        if len(rows) == 1:
            yield str(rows[0])
            continue
        named = [fault.location + (f" ({fault.value})" if fault.value else "") for fault in rows[:MAX_NAMED_ROWS]]
        more = f" and {len(rows) - MAX_NAMED_ROWS} more" if len(rows) > MAX_NAMED_ROWS else ""
        yield f"{len(rows)} rows: {f'{field} ' if field else ''}{reason}: {', '.join(named)}{more}"
