"""Reader of feeds in every shape of the family: rows, a flat task, either of them wrapped. Judges and sends nothing.

The pages document `{code, data: {task}}`, a flat task, and `{id, videos: [row]}`. The same hosts, or the software that
they run, wrap these for other models, name them otherwise and use other words. A wrong failure or a wrong success would
be final, so a task without any name must be wrapped, and a word that no page of the gateway lists means success only
beside a URL.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pika_async.models import Snapshot, TaskState, Video
from pika_async.providers._failure import read_failure
from pika_async.providers._fields import as_number, as_rows, as_text, as_url, as_whole, percent
from pika_async.providers._wire import DecodeError

__all__ = ["names_task", "read_feed"]

#: Objects inside one another that are read: the documented wrapper, the task and its own data, and three wrappers more.
MAX_LEVELS: Final = 6
#: Names under which the next object is wrapped.
_WRAPPERS: Final = ("data", "result", "output", "response", "task", "job", "video", "generation")
_WRAPPER_NAMES: Final = frozenset(_WRAPPERS)
#: Names of a task's id, in lower case without underscores; the first one present is its id.
_ID_NAMES: Final = ("taskid", "id", "videoid", "jobid")
#: A name that may hold the task id or the id of the poll itself: it can confirm a task, not contradict it.
_REQUEST_ID_NAME: Final = "requestid"
#: The longest of these names with its underscores, in characters; longer ones need not be compared.
_ID_NAME_LENGTH: Final = 10
#: Words that mean success beside a URL and nothing without one, where the gateway's own page does not list them.
_SUCCESS_WORDS: Final = frozenset({"completed", "finished", "succeeded", "success"})
#: Words that mean failure, where the gateway's own page does not list them.
_FAILURE_WORDS: Final = frozenset({"error", "fail", "failed", "failure"})
#: Places of the URL of a result: a name, or the names and numbers on the way to it.
_URL_PLACES: Final[tuple[tuple[str | int, ...], ...]] = (
    ("video_url",), ("result_url",), ("resultUrl",), ("url",), ("urls", 0), ("output", "video", "url"),
    ("content", "video_url"),
)  # fmt: skip
#: Places of the provider's words on a task.
_REASON_NAMES: Final = ("msg", "fail_reason", "error", "message")

#: How much of the provider's words is kept, in characters.
MAX_REASON_LENGTH: Final = 2000

_Object = dict[str, Any]


def read_feed(body: Any, requested_id: str, states: Mapping[str, TaskState]) -> Snapshot:
    """Return the snapshot of the task in an answer; one of an unknown word if nothing in it is recognised.

    :param body: the parsed answer, not changed.
    :param requested_id: the task id of the poll. An answer that names no task is about that one.
    :param states: the state for each status word that the gateway documents, in lower case.
    :raises DecodeError: if the answer itself has a status, and names no task that the status belongs to.
    """
    levels = _levels(body, requested_id)
    depth = _task_depth(levels, requested_id)
    unrecognised = Snapshot(task_id=requested_id, state=TaskState.RUNNING, known_word=False, raw=body)
    if depth is None:
        return unrecognised
    task, rows = levels[depth], as_rows(levels[depth].get("videos"))
    is_ours = any(_names(each, requested_id) for each in (task, *rows, *levels))
    given_id = None if is_ours else _id_of(task)
    if not is_ours and given_id is None:
        if depth == 0 and not rows and as_text(task.get("task_id")) is None:
            raise DecodeError("the answer must name a task beside its status")
        if read_failure(body).code is not None:  # the status may be that of the failure
            return unrecognised
    sources = [*rows[:1], task, *_inner(levels[depth + 1 :])]
    return _snapshot(body, given_id or requested_id, sources, states, is_row=bool(rows))


def names_task(answer: Any, task_id: str) -> bool:
    """Whether an answer, or the levels of one, names a task; the letter case of the id does not count."""
    return any(_names(level, task_id) for level in _levels(answer, task_id))


def _snapshot(
    body: Any, task_id: str, sources: Sequence[_Object], states: Mapping[str, TaskState], *, is_row: bool
) -> Snapshot:
    """Return the snapshot of a task.

    :param sources: the objects that describe the task, the first one first: its row, itself, its own data.
    :param is_row: whether the first of `sources` is a row.
    """
    task = sources[1] if is_row else sources[0]
    word = _status_word(sources[0], states) or _status_word(task, states)
    progress = _first(sources[: 1 + is_row], as_number, "progress")
    has_status = is_row or _has_status(task)
    url = _first_url(sources)
    if has_status:
        state = _state(word, states, has_url=url is not None)
    else:  # without a URL: just after a submission
        state = TaskState.RUNNING if url else TaskState.QUEUED
    if state is TaskState.SUCCEEDED and url is None:
        # An older shape has the URL in the field for the reason of a failure.
        url = _first(sources, as_url, "fail_reason")
        state = state if url else TaskState.SUCCEEDED_WITHOUT_URL
    if is_row and state is TaskState.QUEUED and percent(progress):
        state = TaskState.RUNNING
    known_word = (has_status and word in states) or state is not TaskState.RUNNING
    video = _video(sources, url, task_id) if url and state is TaskState.SUCCEEDED else None
    points, refunded = _points(as_number(task.get("point")), as_number(task.get("refund")))
    return Snapshot(
        task_id=task_id,
        state=state,
        word=word,
        known_word=known_word,
        video=video,
        progress=percent(progress),
        reason=_reason(sources) if state is TaskState.FAILED or not known_word else "",
        failure_code=_failure_code(sources) if state is TaskState.FAILED else None,
        url=url if video or not known_word else None,
        created_at=as_number(task.get("create_time")) or as_number(task.get("submit_time")) or None,
        updated_at=as_number(task.get("update_time")) or as_number(task.get("finish_time")) or None,
        points=points,
        refunded=refunded,
        raw=body,
    )


# --- finding the task -------------------------------------------------------------------------------------------------


def _levels(body: Any, task_id: str) -> list[_Object]:
    """Return the objects of an answer, each wrapped in the one before it."""
    levels: list[_Object] = []
    value = body
    while len(levels) < MAX_LEVELS:
        value = _only_item(value, task_id) if isinstance(value, list) else value
        if not isinstance(value, dict):
            break
        levels.append(value)
        if _WRAPPER_NAMES.isdisjoint(value):  # as of most answers
            break
        value = next((value[name] for name in _WRAPPERS if isinstance(value.get(name), dict | list)), None)
    return levels


def _only_item(items: list[Any], task_id: str) -> _Object | None:
    """Return the object of a list that is about a task: the one that names it, or the first if all name the same."""
    found = as_rows(items)
    named = next((item for item in found if _names(item, task_id)), None)
    if named is None and len({_id_of(item) for item in found}) == 1:
        return found[0]
    return named


def _task_depth(levels: Sequence[_Object], task_id: str) -> int | None:
    """Return which level is the task: the outermost with rows or a status that names it; None if nothing is recognised.

    A status beside another id, or beside none, may be that of the answer: the first level below it is preferred. Where
    no level has a status, one with an id is the task.
    """
    depths = [depth for depth, level in enumerate(levels) if _has_status(level) or as_rows(level.get("videos"))]
    depths = depths or [depth for depth, level in enumerate(levels) if _id_of(level) is not None][::-1]
    named = next((depth for depth in depths if _names(levels[depth], task_id)), None)
    if named is not None or not depths:
        return named
    is_of_answer = depths[0] == 0 and len(depths) > 1 and not as_rows(levels[0].get("videos"))
    return depths[1] if is_of_answer else depths[0]


def _has_status(level: _Object) -> bool:
    return as_text(level.get("status")) is not None or as_text(level.get("state")) is not None


def _ids(level: _Object) -> dict[str, str]:
    """Return the ids of an object by their names in lower case without underscores."""
    ids = (
        (name.replace("_", "").lower(), as_text(value)) for name, value in level.items() if len(name) <= _ID_NAME_LENGTH
    )
    return {name: value for name, value in ids if value and (name in _ID_NAMES or name == _REQUEST_ID_NAME)}


def _id_of(level: _Object) -> str | None:
    ids = _ids(level)
    return next((ids[name] for name in _ID_NAMES if name in ids), None)


def _names(level: _Object, task_id: str) -> bool:
    if task_id in (level.get("task_id"), level.get("id")):  # as nearly always
        return True
    return task_id.casefold() in (value.casefold() for value in _ids(level).values())


def _inner(levels: Sequence[_Object]) -> Iterator[_Object]:
    """Iterate over the objects that describe a task further: what it wraps, and the first row in that."""
    for level in levels:
        yield from as_rows(level.get("videos"))[:1]
        yield level


# --- reading the task -------------------------------------------------------------------------------------------------


def _status_word(source: _Object, states: Mapping[str, TaskState]) -> str:
    """Return the status word in lower case: a documented one if there is one, else one of the family, else the first.

    An empty word counts only where there is no other.
    """
    texts = (as_text(source.get("status")), as_text(source.get("state")))
    words = [word for text in texts if text is not None and (word := text.strip().lower())]
    if words and words[0] in states:
        return words[0]
    for known in (states, _SUCCESS_WORDS, _FAILURE_WORDS):
        found = next((word for word in words if word in known), None)
        if found is not None:
            return found
    return words[0] if words else ""


def _state(word: str, states: Mapping[str, TaskState], *, has_url: bool) -> TaskState:
    """Return the state that a word means: an unknown word means that the task is running."""
    if word in states:
        return states[word]
    if word in _FAILURE_WORDS:
        return TaskState.FAILED
    return TaskState.SUCCEEDED if word in _SUCCESS_WORDS and has_url else TaskState.RUNNING


def _first(sources: Sequence[_Object], read: Any, *names: str) -> Any:
    """Return the first value that `read` accepts; None without one."""
    values = (read(source.get(name)) for source in sources for name in names)
    return next((value for value in values if value is not None), None)


def _first_url(sources: Sequence[_Object]) -> str | None:
    urls = (as_url(_at(source, place)) for source in sources for place in _URL_PLACES if place[0] in source)
    return next((url for url in urls if url is not None), None)


def _at(value: Any, place: Sequence[str | int]) -> Any:
    for step in place:
        if isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _reason(sources: Sequence[_Object]) -> str:
    """Return the provider's words on a task; of an error that is an object, its message."""
    for source in sources:
        for name in _REASON_NAMES:
            value = source.get(name)
            text = as_text(value.get("message") if isinstance(value, dict) else value)
            if text:
                return text[:MAX_REASON_LENGTH]
    return ""


def _failure_code(sources: Sequence[_Object]) -> str | None:
    """Return the code of a failed task: that of an error that is an object, or `error_type` beside its text."""
    for source in sources:
        error = source.get("error")
        code = as_text(error.get("code")) if isinstance(error, dict) else as_text(source.get("error_type"))
        if code:
            return code[:MAX_REASON_LENGTH]
    return None


def _video(sources: Sequence[_Object], url: str, task_id: str) -> Video:
    return Video(
        url=url,
        task_id=task_id,
        poster=_first(sources, as_url, "poster", "videoPoster"),
        thumbnail=_first(sources, as_url, "imageThumb"),
        share_url=_first(sources, as_url, "sharingUrl"),
        last_frame=_first(sources, as_url, "last_frame"),
        seed=_first(sources, as_whole, "seed"),
        duration=_first(sources, as_number, "duration"),
    )


def _points(point: float | None, refund: float | None) -> tuple[float | None, float | None]:
    """Return the points that stay charged and those that were given back.

    `refund` is a flag at one gateway (1: all were given back) and an amount at another.
    """
    if point is None or point < 0:
        return None, None
    if refund is None or refund < 0:
        return point, None
    returned = point if refund == 1 else min(point, refund)
    return point - returned, returned
