"""Turns what is remembered into plain values and back: text, numbers, JSON. Knows no file and no database."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, Final

import attrs
import cattrs

from pika_async import errors
from pika_async._journal.protocol import Intent
from pika_async.errors import JobError, PikaError, shorten
from pika_async.fields import Media
from pika_async.jobs import FINAL, Job, JobStatus
from pika_async.models import GenerationRequest, Video

__all__ = [
    "JOB_COLUMNS",
    "ColumnValue",
    "intent_from_row",
    "is_change",
    "is_later",
    "job_from_line",
    "job_from_row",
    "job_to_line",
    "job_to_row",
    "request_to_json",
]

#: What a column can hold.
ColumnValue = str | int | float | None

#: The columns of a job that change; its key and its request do not.
JOB_COLUMNS: Final = (
    "idx", "status", "provider", "base_url", "task_id", "video", "file", "sha256", "error", "progress", "polls",
    "attempts", "submitted_at", "settled_at", "points", "refunded",
)  # fmt: skip
#: The names of columns that are not those of the job's fields.
FIELD_NAMES: Final = {"idx": "index"}
ERROR_CLASSES: Final = {name: getattr(errors, name) for name in errors.__all__}
#: How far a job is on its way after as many attempts: planned is what a refusal leaves of one; final is furthest.
STATUS_RANKS: Final = {
    JobStatus.SUBMITTING: 0,
    JobStatus.UNKNOWN: 1,
    JobStatus.PLANNED: 2,
    JobStatus.QUEUED: 3,
    JobStatus.RUNNING: 4,
    JobStatus.TIMED_OUT: 5,
} | dict.fromkeys(FINAL, 6)

_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))


def _media_to_json(value: Media | None) -> object:
    match value:
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case PurePath():
            return {"path": str(value)}
        case _:
            return value


def _media_from_json(value: Any) -> Any:
    match value:
        case {"base64": text}:
            return base64.b64decode(text, validate=True)
        case {"path": text}:
            return Path(text)
        case _:
            return value


def _dump_json(value: object) -> str:
    """`value` as JSON of ASCII only, so that half a character breaks no column; what JSON cannot hold becomes text."""
    try:
        return json.dumps(value, default=_json_default)
    except (TypeError, ValueError, RecursionError):  # a key that is no text, a circle, too deep
        return json.dumps(shorten(value))


def _json_default(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case Mapping():
            return dict(value)
        case _:
            return shorten(value)


def request_to_json(request: GenerationRequest) -> str:
    """A request as JSON. Every field is written, so that a default of a later version changes no request."""
    facts = attrs.asdict(request, recurse=False)
    facts |= {"image": _media_to_json(request.image), "video": _media_to_json(request.video)}
    facts["ingredients"] = [_media_to_json(ingredient) for ingredient in request.ingredients]
    facts["camera"] = request.camera and attrs.asdict(request.camera)
    facts["metadata"] = None if request.metadata is None else json.loads(_dump_json(dict(request.metadata)))
    return _dump_json(facts)


def _request_from_json(text: str) -> GenerationRequest:
    facts = json.loads(text)
    facts |= {"image": _media_from_json(facts["image"]), "video": _media_from_json(facts["video"])}
    facts["ingredients"] = [_media_from_json(ingredient) for ingredient in facts["ingredients"]]
    if facts["metadata"] is not None and not isinstance(facts["metadata"], dict):
        facts["metadata"] = {"text": facts["metadata"]}  # it was changed after it was checked, and could not be written
    return GenerationRequest(**facts)


def _error_to_json(error: PikaError) -> str:
    facts = {field.name: json.loads(_dump_json(getattr(error, field.name))) for field in attrs.fields(type(error))}
    return _dump_json({"type": error.type, "facts": facts, "message": error.message})


def _error_from_json(text: str, key: str, provider: str) -> PikaError:
    """An error as it was; one that this version cannot make any more is told by its message."""
    stored = json.loads(text)
    try:
        error: PikaError = _converter.structure(stored["facts"], ERROR_CLASSES[stored["type"]])
    except Exception:  # a class or a fact of another version: cattrs raises groups, a class its own
        return JobError(key=key, provider=provider, reason=str(stored["message"]))
    return error


def _time_to_text(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat()


def _time_from_text(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _path_to_text(file: Path | None, folder: Path) -> str | None:
    """The path from `folder` where the file lies inside it, so that the folder can be moved."""
    if file is None:
        return None
    file = file.absolute()
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def job_to_row(job: Job, intent: Intent | None, folder: Path) -> dict[str, ColumnValue]:
    """The columns of `job`, but its request; `folder` is where the journal lies."""
    values: dict[str, Any] = {name: getattr(job, FIELD_NAMES.get(name, name)) for name in JOB_COLUMNS}
    return values | {
        "key": job.key,
        "status": job.status.value,
        "video": None if job.video is None else _dump_json(attrs.asdict(job.video)),
        "file": _path_to_text(job.file, folder),
        "error": None if job.error is None else _error_to_json(job.error),
        "submitted_at": _time_to_text(job.submitted_at),
        "settled_at": _time_to_text(job.settled_at),
        "intended_at": None if intent is None else _time_to_text(intent.at),
        "body_sha256": None if intent is None else intent.body_sha256,
        "callback_sha256": None if intent is None else intent.callback_sha256,
    }


def job_from_row(row: Mapping[str, Any], folder: Path) -> Job:
    """The job of a row of columns, `request` included.

    :raises Exception: of any kind, if the values were not made by `values_of` and `written_request`.
    """
    return Job(
        **{FIELD_NAMES.get(name, name): row[name] for name in JOB_COLUMNS}
        | {
            "key": row["key"],
            "request": _request_from_json(row["request"]),
            "status": JobStatus(row["status"]),
            "video": row["video"] and _converter.structure(json.loads(row["video"]), Video),
            "file": row["file"] and folder / row["file"],
            "error": row["error"] and _error_from_json(row["error"], row["key"], row["provider"]),
            "submitted_at": _time_from_text(row["submitted_at"]),
            "settled_at": _time_from_text(row["settled_at"]),
        }
    )


def intent_from_row(row: Mapping[str, Any]) -> Intent | None:
    """The intent of a row of columns, where one was kept."""
    at = _time_from_text(row["intended_at"])
    if at is None:
        return None
    return Intent(at=at, body_sha256=row["body_sha256"] or "", callback_sha256=row["callback_sha256"])


def job_to_line(job: Job, previous_key: str | None, folder: Path) -> bytes:
    """The whole record as one line; `previous_key` is the key that it had in the database, if another."""
    values = job_to_row(job, None, folder)
    return json.dumps(values | {"request": request_to_json(job.request), "previous_key": previous_key}).encode() + b"\n"


def job_from_line(line: bytes, folder: Path) -> tuple[Job, str | None]:
    """What `line_of` wrote.

    :raises Exception: of any kind, if it did not.
    """
    values = json.loads(line)
    return job_from_row(values, folder), values["previous_key"]


def is_change(job: Job, before: Job) -> bool:
    """Whether `job` is news to whoever knows `before`, an earlier record of it; see `Journal.revision`."""
    if job.status is not before.status or job.is_final:
        return job.status is not before.status
    one, other = (None if it.error is None else _error_to_json(it.error) for it in (job, before))
    return (job.progress, one) != (before.progress, other)


def is_later(job: Job, than: Job) -> bool:
    """Whether `job` is further on its way than an earlier or later record of the same key."""
    one, other = ((it.attempts, STATUS_RANKS[it.status], it.file is not None) for it in (job, than))
    return one > other
