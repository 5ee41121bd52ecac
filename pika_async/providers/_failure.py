"""Error forms that all four gateways share. Reads the code and the message of an answer; judges nothing."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["Failure", "read_failure"]

#: Values of `code` that mean success (the envelope's pages; its shape (b) has a word).
_SUCCESS_CODES = frozenset({"200", "0", "success", "ok", "none", ""})


@attrs.frozen
class Failure:
    """Error code and message of an answer's body."""

    #: The code as text ("400", "task_not_exist", ...); None if the body does not explicitly fail.
    code: str | None
    message: str


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _code(value: Any) -> str:
    """Return a code as text, "" for a value of another type: `str` of a list may exceed the recursion limit."""
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
        return Failure(code, _text(error.get("message")))
    if isinstance(error, str) and error:
        return Failure(_code(body.get("code")) or "error", error)
    message = _text(body.get("message")) or _text(body.get("msg"))
    explicit = _code(body.get("code"))
    return Failure(None if explicit.lower() in _SUCCESS_CODES else explicit, message)
