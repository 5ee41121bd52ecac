"""Checks of the fields of request bodies, from which the schemas of the pages are built."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

__all__ = [
    "Body",
    "Check",
    "Field",
    "Problem",
    "boolean",
    "check_object",
    "integer",
    "non_empty_text",
    "number",
    "one_of",
    "plain_object",
    "text",
    "url",
    "urls",
]

Body = Mapping[str, Any]
#: A function that returns what is wrong with a value, or ``None``.
Check = Callable[[object], str | None]


@attrs.frozen
class Problem:
    """Invalid field, and what is wrong with it."""

    field: str
    text: str


@attrs.frozen
class Field:
    """Schema of one field: one row of a page's table. ``inner`` is the schema of an object's fields."""

    check: Check
    required: bool = False
    inner: Mapping[str, Field] | None = None


def text(value: object) -> str | None:
    return None if isinstance(value, str) else "must be a string"


def non_empty_text(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    return None if value.strip() else "must not be empty"


def boolean(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def plain_object(value: object) -> str | None:
    return None if isinstance(value, dict) else "must be an object"


def integer(low: float = -math.inf, high: float = math.inf) -> Check:
    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be an integer"
        return None if low <= value <= high else f"must be between {low} and {high}"

    return check


def number(low: float, high: float) -> Check:
    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return "must be a number"
        return None if low <= value <= high else f"must be between {low} and {high}"

    return check


def one_of(*words: str) -> Check:
    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return "must be a string"
        return None if value in words else f"must be one of {', '.join(word or repr(word) for word in words)}"

    return check


def url(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    return None if valid else "must be an http or https URL"


def urls(value: object) -> str | None:
    if not isinstance(value, list) or not value:
        return "must be a list of at least one URL"
    return next((f"[{i}] {problem}" for i, item in enumerate(value) if (problem := url(item))), None)


def check_object(value: Body, fields: Mapping[str, Field], path: str) -> Problem | None:
    """Return the first problem of an object by the schema of its *fields*; unknown fields come first."""
    for name in value:
        if name not in fields:
            return Problem(path + name, "must not be given: this page has no such field")
    for name, field in fields.items():
        if name not in value:
            if field.required:
                return Problem(path + name, "is required")
            continue
        wrong = field.check(value[name])
        if wrong:
            return Problem(path + name, wrong)
        if field.inner is not None:
            problem = check_object(value[name], field.inner, f"{path}{name}.")
            if problem:
                return problem
    return None
