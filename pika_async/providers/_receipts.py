"""Task ids in receipts that no page of a gateway shows, and in receipts that are not whole. Judges nothing.

The hosts of this family, and the software that they run, name a task in other places for other models. A paid task
whose id is not read is never followed, so these places are read where the documented one is empty. Not read are the id
of an error, the id of a request alone, and any id beside a failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pika_async.models.results import Receipt
from pika_async.providers._failure import only_item, says_failure
from pika_async.providers._wire import DecodeError, HttpResponse, parse_json

__all__ = ["find_task_id", "is_one_word", "json_text", "salvage_receipt"]

#: Objects that wrap a task or its id, and how many of them may stand within one another.
_WRAPPERS: Final = ("data", "result", "output", "response", "task", "job", "video", "generation")
_MAX_DEPTH: Final = 3
#: The wrappers that name what their `id` is the id of.
_NAMED: Final = frozenset({"task", "job", "video", "generation"})
#: Names of a task id, wherever they stand.
_TASK_NAMES: Final = ("task_id", "taskId", "video_id", "videoId", "job_id", "generation_id")
#: Words of a status that may be that of the call alone.
_CALL_WORDS: Final = frozenset({"", "success", "successful", "succeeded", "ok", "done", "true"})
#: Words that a gateway may put where a task would stand.
_STATUS_WORDS: Final = _CALL_WORDS | {
    "accepted",
    "created",
    "error",
    "failed",
    "null",
    "pending",
    "queued",
    "submitted",
}
#: A bare text that can be an id: one word with a digit. A word of a status, a sentence or an address cannot.
_BARE_ID: Final = re.compile(r"(?=.*[0-9])[\w.:+=@-]{1,256}", re.ASCII)
_MAX_ID_LENGTH: Final = 256
#: A failure in a body that is not valid JSON: an error that is not empty, or a code of failure.
_TORN_FAILURE: Final = re.compile(
    rb'"error"\s*:\s*(?:\{\s*"|"[^"]|true)|"(?:code|status)"\s*:\s*"?(?:-\d|[45]\d\d\b)|"success"\s*:\s*false'
)
#: Names of a task id that are searched for in a torn body after the documented ones.
_TORN_NAMES: Final = re.compile(rb'"(?:task_id|taskId|video_id)"\s*:\s*"((?:[^"\\]|\\.){1,256})"')


def find_task_id(body: Any) -> str | None:
    """Return the task id of a receipt that does not fail, wherever receipts of the wider family have it."""
    holders = list(_holders(body, "", 0))
    if any(says_failure(holder) for _, holder in holders):
        return None
    found = next((it for name in _TASK_NAMES for _, holder in holders if (it := _id(holder.get(name)))), None)
    if found is not None:
        return found
    for wrapper, holder in sorted(holders, key=lambda pair: pair[0] not in _NAMED):
        if (found := _id(holder.get("id"))) and (wrapper or _is_task(holder)):
            return found
    for value in _bare_values(body):
        if isinstance(value, str) and _BARE_ID.fullmatch(value):
            return value
    return next((it for _, holder in holders if _is_queued(holder) and (it := _id(holder.get("request_id")))), None)


def _holders(value: Any, wrapper: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects in which a task id may stand, outer ones first, each with the name that wraps it."""
    value = only_item(value)
    if not isinstance(value, dict):
        return
    yield wrapper, value
    if depth < _MAX_DEPTH:
        for name in _WRAPPERS:
            yield from _holders(value.get(name), name, depth + 1)


def is_one_word(text: str) -> bool:
    """Whether a text that stands where a task or its id would can be an id: one word, and not that of a status."""
    return not any(map(str.isspace, text)) and "://" not in text and text.lower() not in _STATUS_WORDS


def _bare_values(body: Any) -> Iterator[Any]:
    """Yield the values that stand where the object with the id would stand: `{"data": "t1"}`."""
    if isinstance(body, dict):
        yield from (only_item(body.get(name)) for name in ("data", "result"))


def _id(value: Any) -> str | None:
    """Return an id as text: a text of one word, or a positive integer."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return str(value)
    if not isinstance(value, str) or not value.isprintable():
        return None
    return value if 0 < len(value) <= _MAX_ID_LENGTH and is_one_word(value) else None


def _status_word(holder: dict[str, Any]) -> str:
    """Return the status of an object in lower case, "" for a number or none: such a status may be that of the call."""
    words = (holder.get(name) for name in ("status", "state", "task_status"))
    word = next((word.strip().lower() for word in words if isinstance(word, str) and word.strip()), "")
    return "" if word.lstrip("-").isdecimal() else word


def _is_task(holder: dict[str, Any]) -> bool:
    """Whether the `id` of an object at the top level is that of a task: it has a type or a status beside it."""
    return bool(_status_word(holder)) or (isinstance(holder.get("object"), str) and bool(holder["object"]))


def _is_queued(holder: dict[str, Any]) -> bool:
    """Whether the status of an object is that of a task, so that the id of its request stands for the task."""
    return _status_word(holder) not in _CALL_WORDS


def salvage_receipt(response: HttpResponse, documented: re.Pattern[bytes] | None, detail: str = "") -> Receipt:
    """Search a body that could not be decoded for a whole task id. A body that says failure has none.

    :param documented: matches the id where the gateway documents it; group 1 is the id, still escaped. None: no such.
    :param detail: why it could not be decoded, for a body without any text.
    """
    if _TORN_FAILURE.search(response.body) is None:
        for pattern in (documented, _TORN_NAMES):
            torn = None if pattern is None else pattern.search(response.body)
            task_id = None if torn is None else json_text(torn[1])
            if task_id is not None:
                return Receipt(task_id=task_id)
    return Receipt(message=response.excerpt() or detail)


def json_text(escaped: bytes) -> str | None:
    """Return the text of a JSON string without its quotes; None if it is broken or empty."""
    try:
        text = parse_json(b'"' + escaped + b'"')
    except DecodeError:
        return None
    return text or None
