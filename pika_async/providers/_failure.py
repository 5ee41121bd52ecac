"""The error forms that all four gateways share: which code and which words an answer carries."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["Failure", "read_failure"]

#: What `code` says when all is well (the envelope's pages; shape (b) spells it as a word).
_FINE = frozenset({"200", "0", "success", "ok", "none", ""})


@attrs.frozen
class Failure:
    """An explicit failure of an answer's body: `code` as text ("400", "task_not_exist", ...) and its message."""

    code: str | None
    message: str


def _words(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _code(value: Any) -> str:
    """A code as text; "" for what is none, such as a list, whose `str` may nest deeper than the interpreter takes."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if isinstance(value, bool) or not isinstance(value, str | int | float) else str(value)


def read_failure(body: Any) -> Failure:
    """Read `{"error": {message, type, param, code}}`, `{"error": "..."}` or `{code, message | msg}`."""
    if not isinstance(body, dict):
        return Failure(None, "")
    error = body.get("error")
    if isinstance(error, dict):
        code = _code(error.get("code")) or _code(error.get("type")) or "error"
        return Failure(code, _words(error.get("message")))
    if isinstance(error, str) and error:
        return Failure(_code(body.get("code")) or "error", error)
    message = _words(body.get("message")) or _words(body.get("msg"))
    explicit = _code(body.get("code"))
    return Failure(None if explicit.lower() in _FINE else explicit, message)
