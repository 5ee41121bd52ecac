"""Field types of answers, read leniently: a mistyped or odd value is `None`, never an error. Knows no provider."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NewType, TypeVar, cast

import cattrs
from cattrs.gen import make_dict_structure_fn, override

from pika_async.fields import has_host, is_url

__all__ = ["Address", "Number", "Record", "Rows", "Text", "Whole", "as_text", "as_url", "converter", "rename"]

Text = NewType("Text", str)
Address = NewType("Address", str)
Number = NewType("Number", float)
Whole = NewType("Whole", int)
#: A JSON object, kept as it came.
Record = NewType("Record", dict[str, Any])
#: The objects of a JSON list; whatever else it holds is passed over.
Rows = NewType("Rows", list[dict[str, Any]])

_T = TypeVar("_T")


def as_text(value: Any, _: Any = None) -> Text | None:
    """Return text, or an integer as text; None for everything else."""
    is_text = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    return Text(str(value)) if is_text else None


def as_url(value: Any, _: Any = None) -> Address | None:
    """Return an http or https URL with a host; None for everything else."""
    found = value.strip() if isinstance(value, str) else None
    return Address(found) if found and is_url(found) and has_host(found) else None


def _number(value: Any, _: Any) -> float | None:
    """A finite number, also written as text, also with a percent sign: all three are seen in the wild."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value.strip().removesuffix("%") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any, kind: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _number(value, kind)
    return None if number is None else int(number)


def _record(value: Any, _: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any, _: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def converter() -> cattrs.Converter:
    """A converter of one dialect: lenient in what it structures, exact in what it unstructures."""
    made = cattrs.Converter(omit_if_default=True, detailed_validation=False)
    hooks: Mapping[Any, Callable[[Any, Any], Any]] = {
        Text: as_text, Address: as_url, Number: _number, Whole: _whole, Record: _record, Rows: _rows,
    }  # fmt: skip
    for kind, hook in hooks.items():
        made.register_structure_hook(kind, hook)
        made.register_structure_hook(kind | None, hook)
    return made


def rename(made: cattrs.Converter, kind: type[_T], **spellings: str) -> None:
    """Let `made` read and write the fields of `kind` under the wire's own spellings."""
    names = {field: override(rename=wire) for field, wire in spellings.items()}
    made.register_structure_hook(kind, make_dict_structure_fn(kind, made, **cast("Any", names)))
    made.register_unstructure_hook(
        kind,
        cattrs.gen.make_dict_unstructure_fn(kind, made, _cattrs_omit_if_default=True, **cast("Any", names)),
    )
