"""Field types of answers, read leniently: a value of another type is None, never an error.

Holds nothing of a single provider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NewType, TypeVar, cast

import cattrs
from cattrs.gen import make_dict_structure_fn, override

from pika_async.models.fields import has_host, is_url

__all__ = [
    "Record",
    "Text",
    "as_number",
    "as_rows",
    "as_text",
    "as_url",
    "as_whole",
    "converter",
    "percent",
    "rename",
]

Text = NewType("Text", str)
#: A JSON object, unchanged.
Record = NewType("Record", dict[str, Any])

_T = TypeVar("_T")


def as_text(value: Any, _: Any = None) -> Text | None:
    """Return text, or an integer as text; None for everything else."""
    if value is None:  # as of most names, which an answer does not have
        return None
    is_text = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    return Text(str(value)) if is_text else None


def as_url(value: Any, _: Any = None) -> str | None:
    """Return an http or https URL with a host; None for everything else."""
    found = value.strip() if isinstance(value, str) else None
    return found if found and is_url(found) and has_host(found) else None


def as_number(value: Any, _: Any = None) -> float | None:
    """Return a finite number, also one that is written as text or with a percent sign: gateways send all three."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value.strip().removesuffix("%") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_whole(value: Any, _: Any = None) -> int | None:
    """Return an integer, or the whole part of a number; None for everything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = as_number(value)
    return None if number is None else int(number)


def _record(value: Any, _: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_rows(value: Any, _: Any = None) -> list[dict[str, Any]]:
    """Return the objects of a list; an empty list for everything else."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def percent(progress: float | None) -> int | None:
    """Return a progress as a whole number from 0 to 100; None if there is none."""
    return None if progress is None else min(100, max(0, int(progress)))


def converter() -> cattrs.Converter:
    """Return a converter for one dialect: lenient in what it structures, exact in what it unstructures."""
    result = cattrs.Converter(omit_if_default=True, detailed_validation=False)
    hooks: Mapping[Any, Callable[[Any, Any], Any]] = {
        Text: as_text, Record: _record,
    }  # fmt: skip
    for kind, hook in hooks.items():
        result.register_structure_hook(kind, hook)
        result.register_structure_hook(kind | None, hook)
    return result


def rename(target: cattrs.Converter, kind: type[_T], **spellings: str) -> None:
    """Make a converter read and write the fields of `kind` under the wire's own spellings."""
    names = {field: override(rename=wire) for field, wire in spellings.items()}
    target.register_structure_hook(kind, make_dict_structure_fn(kind, target, **cast("Any", names)))
    target.register_unstructure_hook(
        kind,
        cattrs.gen.make_dict_unstructure_fn(kind, target, _cattrs_omit_if_default=True, **cast("Any", names)),
    )
