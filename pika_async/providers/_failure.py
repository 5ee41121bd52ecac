"""Error forms that all four gateways share. Reads the code and the message of an answer; judges nothing."""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

from pika_async.providers._codes import PLAIN_REFUSALS, UNREACHED, is_account_code, is_busy_code

__all__ = ["Failure", "as_number", "only_item", "read_failure", "read_refusal", "says_failure"]

#: Values of `code` that mean success (the envelope's pages; its shape (b) has a word).
_SUCCESS_CODES: Final = frozenset({"200", "0", "success", "ok", "none", ""})
#: Words of a status that say that a task has failed.
_FAILED_WORDS: Final = frozenset({"failed", "failure", "error", "fail"})
#: Words of a code that mean failure.
_FAILING: Final = _FAILED_WORDS | {"invalid", "denied", "rejected"}
#: Objects of an answer that may hold its failure.
_WRAPPERS: Final = ("error", "data", "result", "response", "detail")
#: The longest number that may be a code, in digits.
_MAX_CODE_DIGITS: Final = 9


@attrs.frozen
class Failure:
    """Error code and message of an answer's body."""

    #: The code as text ("400", "task_not_exist", ...); None if the body does not explicitly fail.
    code: str | None
    message: str
    #: The number in the body that stands for an HTTP status; None if there is none.
    status: int | None = None
    #: Whether the body fails beyond doubt. The status of a failed task does not: its submission was accepted. Nor does
    #: a code that may mean anything, such as 1.
    is_explicit: bool = True


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _code(value: Any) -> str:
    """Return a code as text, "" for a value of another type: `str` of a list may exceed the recursion limit."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if isinstance(value, bool) or not isinstance(value, str | int | float) else str(value)


def as_number(code: str | None) -> int | None:
    """Return a code as a number; None for a word, for no code, and for a number that is too long for a code."""
    digits = (code or "").strip()
    if not digits.removeprefix("-").isdecimal() or len(digits) > _MAX_CODE_DIGITS:
        return None
    return int(digits)


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


def read_refusal(body: Any) -> Failure:
    """Read the failure in an answer to a submission, its own or that of an object within it.

    Beside the forms of `read_failure` these are a number in `status` that is an HTTP status, `{"success": false}` and
    the status word of a failed task.
    """
    body = only_item(body)
    own = _own_refusal(body)
    if own.code is not None or not isinstance(body, dict):
        return own
    inner = [_own_refusal(only_item(body[name])) for name in _WRAPPERS if name in body]
    found = next((failure for failure in inner if failure.code is not None), None) if inner else None
    return own if found is None else attrs.evolve(found, message=found.message or own.message)


def says_failure(body: dict[str, Any]) -> bool:
    """Whether an object of an answer to a submission fails by a field of its own."""
    return _own_refusal(body).code is not None


def only_item(value: Any) -> Any:
    """Return the item of a list that has just one, anything else as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _own_refusal(body: Any) -> Failure:
    if not isinstance(body, dict):
        return Failure(None, "")
    error = only_item(body.get("error"))
    fields = error if isinstance(error, dict) else {}
    fields = fields["error"] if isinstance(fields.get("error"), dict) else fields
    message = _text(fields.get("message")) or _text(error) or _text(body.get("message")) or _text(body.get("msg"))
    by_code = _failing_codes(fields.get("code"), body.get("code"), None if isinstance(error, str) else error)
    by_status = [code for code in _failing_codes(fields.get("status"), body.get("status")) if _is_http_status(code)]
    words = [code for code in by_code if as_number(code) is None]
    numbers = [number for code in (*by_code, *by_status) if (number := as_number(code)) is not None]
    status = max(numbers, key=_openness, default=None)
    has_error = _says_something(error)
    if words or status is not None:
        explicit = has_error or any(map(_is_failing, by_code)) or any(as_number(code) != -1 for code in by_status)
        return Failure(words[0] if words else str(status), message, status, explicit)
    if has_error or body.get("success") is False:
        return Failure(_code(fields.get("type")) or "error", message)
    word = next((word for name in ("status", "state") if (word := _text(body.get(name)).strip().lower())), "")
    return Failure(word, message, is_explicit=False) if word in _FAILED_WORDS else Failure(None, message)


def _says_something(error: Any) -> bool:
    """Whether the value of `error` is one: an empty object or text, and a number, which is a code, are not."""
    if isinstance(error, dict):
        return any(error.values())
    return error is True or (isinstance(error, str | list) and bool(error.strip() if isinstance(error, str) else error))


def _failing_codes(*values: Any) -> list[str]:
    """Return the codes among `values` that are not a success."""
    codes = [_code(value).strip() for value in values]
    return [code for code in codes if code.lower() not in _SUCCESS_CODES and not 200 <= (as_number(code) or 0) < 300]


def _openness(number: int) -> int:
    """Rank a failing number: of two that contradict each other the one that leaves more open counts."""
    return 0 if number in PLAIN_REFUSALS else 1 if number in UNREACHED else 2


def _is_http_status(code: str) -> bool:
    """Whether a `status` may stand for an HTTP status: the small numbers and the words are states of a task."""
    number = as_number(code)
    return number is not None and (number == -1 or 400 <= number < 600)


def _is_failing(code: str) -> bool:
    """Whether a code means failure, whatever else the gateway uses codes for."""
    number = as_number(code)
    if number is not None:
        return number < 0 or 400 <= number < 600
    return is_account_code(code) or is_busy_code(code) or bool(set(re.findall(r"[a-z]+", code.lower())) & _FAILING)
