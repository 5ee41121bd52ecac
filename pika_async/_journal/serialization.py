"""Conversion of jobs, requests and errors to column values and JSON, and back. Reads no file and no database."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Final

import attrs
import cattrs

from pika_async import errors
from pika_async._journal.contents import digest_of
from pika_async._journal.protocol import Intent, JobState
from pika_async.errors import JobError, PikaError, shorten
from pika_async.jobs import FINAL, Job, JobStatus
from pika_async.models import GenerationRequest, LastSeen, Video
from pika_async.models.fields import Media
from pika_async.models.results import RouteStep

__all__ = [
    "JOB_COLUMNS",
    "ColumnValue",
    "download_from_row",
    "intent_from_row",
    "is_change",
    "is_later",
    "job_from_row",
    "job_to_line",
    "job_to_row",
    "place_from_text",
    "request_to_json",
    "state_from_row",
]

#: Value of a database column.
ColumnValue = str | int | float | None

#: The columns of a job that are updated; its key and its request never change.
JOB_COLUMNS: Final = (
    "idx", "status", "provider", "base_url", "account", "task_id", "handle", "video", "file", "sha256", "error",
    "progress", "last_seen", "polls", "attempts", "submitted_at", "settled_at", "downloaded_at", "points", "refunded",
    "cost", "earlier_steps", "repeats",
)  # fmt: skip
#: Names of the job's fields by column, where they differ (`index` is an SQL keyword).
FIELD_NAMES: Final = {"idx": "index"}
#: Fields of a request that hold one picture or video; the last is younger than the first journals.
MEDIA_FIELDS: Final = frozenset({"image", "video", "last_image"})
#: Part of the URL of an object, and of no path.
_OBJECT_MARK: Final = "://"
#: Error classes by name.
ERROR_CLASSES: Final = {name: getattr(errors, name) for name in errors.__all__}
#: Order of the statuses within one attempt, for `is_later`. A rejected submission leaves its job planned, so planned is
#: later than unknown; final statuses are last.
STATUS_RANKS: Final = {
    JobStatus.SUBMITTING: 0,
    JobStatus.UNKNOWN: 1,
    JobStatus.PLANNED: 2,
    JobStatus.QUEUED: 3,
    JobStatus.RUNNING: 4,
    JobStatus.TIMED_OUT: 5,
} | dict.fromkeys(FINAL, 6)


@cache
def _converter() -> cattrs.Converter:
    result = cattrs.Converter(forbid_extra_keys=True)
    result.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    return result


def _media_to_json(value: Media | None) -> object:
    match value:
        case bytes():
            return {"sha256": digest_of(value)}
        case PurePath():
            return {"path": str(value)}
        case _:
            return value


def _media_from_json(value: Any, contents: Mapping[str, bytes]) -> Any:
    match value:
        case {"sha256": digest}:
            return contents[digest]
        case {"base64": text}:  # version 1 of the file
            return base64.b64decode(text, validate=True)
        case {"path": text}:
            return Path(text)
        case _:
            return value


def _dump_json(value: object) -> str:
    """Return `value` as JSON text, with a shortened repr in place of what JSON cannot express.

    ASCII only, because SQLite rejects text with a lone surrogate.
    """
    try:
        return json.dumps(value, default=_json_default)
    except (TypeError, ValueError, RecursionError):  # keys that are not text, a reference to itself, too deep
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
    """Return a request as JSON, with the hash of bytes in their place; see `contents.insert_contents`.

    Every field is written, so that a later version's defaults change no stored request.
    """
    facts = attrs.asdict(request, recurse=False)
    facts |= {field: _media_to_json(facts[field]) for field in MEDIA_FIELDS}
    facts["ingredients"] = [_media_to_json(ingredient) for ingredient in request.ingredients]
    facts["camera"] = request.camera and attrs.asdict(request.camera)
    facts["metadata"] = None if request.metadata is None else json.loads(_dump_json(dict(request.metadata)))
    return _dump_json(facts)


def _request_from_json(text: str, contents: Mapping[str, bytes]) -> GenerationRequest:
    facts = json.loads(text)
    facts |= {field: _media_from_json(facts[field], contents) for field in MEDIA_FIELDS & facts.keys()}
    facts["ingredients"] = [_media_from_json(ingredient, contents) for ingredient in facts["ingredients"]]
    if facts["metadata"] is not None and not isinstance(facts["metadata"], dict):
        # Metadata that was mutated after its validation, and could not be written as JSON, was stored as text.
        facts["metadata"] = {"text": facts["metadata"]}
    return GenerationRequest(**facts)


def _error_to_json(error: PikaError) -> str:
    facts = {field.name: json.loads(_dump_json(getattr(error, field.name))) for field in attrs.fields(type(error))}
    return _dump_json({"type": error.type, "facts": facts, "message": error.message})


def _error_from_json(text: str, key: str, provider: str) -> PikaError:
    """Return the stored error; a `JobError` with its message if this version cannot construct it."""
    stored = json.loads(text)
    try:
        error: PikaError = _converter().structure(stored["facts"], ERROR_CLASSES[stored["type"]])
    except Exception:  # a class or field of another version: cattrs raises groups, and each class its own errors
        return JobError(key=key, provider=provider, reason=str(stored["message"]))
    return error


def _time_to_text(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat()


def _time_from_text(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _steps_to_json(steps: tuple[RouteStep, ...]) -> str | None:
    if not steps:
        return None
    return _dump_json([[step.account, step.verdict, _time_to_text(step.at), step.reason] for step in steps])


def _steps_from_json(text: str | None) -> tuple[RouteStep, ...]:
    if text is None:
        return ()
    return tuple(
        RouteStep(account, verdict, _time_from_text(at), reason) for account, verdict, at, reason in json.loads(text)
    )


def _place_to_text(job: Job, folder: Path) -> str | None:
    """Return the URL of the object of a job, or the path of its file, relative to `folder` if the file is inside it, so
    that the folder can be moved.
    """
    file = job.file
    if file is None:
        return job.object_url
    file = file.absolute()
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()


def job_to_row(job: Job, intent: Intent | None, folder: Path) -> dict[str, ColumnValue]:
    """Return the columns of `job` and `intent`, without the request; `folder` is the journal's folder."""
    values: dict[str, Any] = {name: getattr(job, FIELD_NAMES.get(name, name)) for name in JOB_COLUMNS}
    return values | {
        "key": job.key,
        "status": job.status.value,
        "video": None if job.video is None else _dump_json(attrs.asdict(job.video)),
        "file": _place_to_text(job, folder),
        "error": None if job.error is None else _error_to_json(job.error),
        "last_seen": None if job.last_seen is None else _dump_json(attrs.asdict(job.last_seen)),
        "earlier_steps": _steps_to_json(job.earlier_steps),
        "submitted_at": _time_to_text(job.submitted_at),
        "settled_at": _time_to_text(job.settled_at),
        "downloaded_at": _time_to_text(job.downloaded_at),
        "intended_at": None if intent is None else _time_to_text(intent.at),
        "body_sha256": None if intent is None else intent.body_sha256,
        "callback_sha256": None if intent is None else intent.callback_sha256,
        "repeatable": None if intent is None else intent.repeatable,
    }


def job_from_row(row: Mapping[str, Any], folder: Path) -> Job:
    """Return the job of a row that includes its request, and the bytes in it as `contents`.

    :raises Exception: of any kind, if the row was not made by `job_to_row` and `request_to_json`.
    """
    place = None if row["file"] is None else place_from_text(row["file"], folder)
    return Job(
        **{FIELD_NAMES.get(name, name): row[name] for name in JOB_COLUMNS}
        | {
            "key": row["key"],
            "request": _request_from_json(row["request"], row.get("contents", {})),
            "status": JobStatus(row["status"]),
            "video": row["video"] and _converter().structure(json.loads(row["video"]), Video),
            "file": place if isinstance(place, Path) else None,
            "object_url": place if isinstance(place, str) else None,
            "last_seen": row["last_seen"] and _converter().structure(json.loads(row["last_seen"]), LastSeen),
            "error": row["error"] and _error_from_json(row["error"], row["key"], row["provider"]),
            "earlier_steps": _steps_from_json(row["earlier_steps"]),
            "submitted_at": _time_from_text(row["submitted_at"]),
            "settled_at": _time_from_text(row["settled_at"]),
            "downloaded_at": _time_from_text(row["downloaded_at"]),
        }
    )


def state_from_row(key: str, status: str, submitted_at: str | None) -> JobState:
    """Return the state of a job from its columns."""
    return JobState(key, JobStatus(status), _time_from_text(submitted_at))


def place_from_text(text: str, folder: Path) -> Path | str:
    """Return the file of a job, or the URL of its object, from the column of both: no path has `://` in it."""
    return text if _OBJECT_MARK in text else folder / text


def download_from_row(place: str, downloaded_at: str | None, folder: Path) -> tuple[Path | str, datetime | None]:
    """Return the file of a job, or the URL of its object, and the time of its download from their columns."""
    return place_from_text(place, folder), _time_from_text(downloaded_at)


def intent_from_row(row: Mapping[str, Any]) -> Intent | None:
    """Return the intent of a row; None if none was saved."""
    at = _time_from_text(row["intended_at"])
    if at is None:
        return None
    return Intent(
        at=at,
        body_sha256=row["body_sha256"] or "",
        callback_sha256=row["callback_sha256"],
        repeatable=row["repeatable"],
    )


def job_to_line(job: Job, previous_key: str | None, folder: Path, journal: str) -> bytes:
    """Return a line of JSON with the columns of a job that have a value, without its request, which may hold images.

    :param previous_key: its key in the database, if an archive changed it.
    :param journal: the random number of the journal that has its request.
    """
    values = {name: value for name, value in job_to_row(job, None, folder).items() if value is not None}
    return json.dumps(values | {"previous_key": previous_key, "journal": journal}).encode() + b"\n"


def is_change(job: Job, before: Job) -> bool:
    """Whether `job` differs from `before`, an earlier state of it, by what `Journal.revision` counts as a change."""
    if job.status is not before.status or job.is_final:
        return job.status is not before.status
    one, other = (None if it.error is None else _error_to_json(it.error) for it in (job, before))
    return (job.progress, one) != (before.progress, other)


def is_later(job: Job, than: Job) -> bool:
    """Whether `job` has made more progress than `than`, another state of the same job."""
    one, other = ((it.attempts, STATUS_RANKS[it.status], it.is_downloaded) for it in (job, than))
    return one > other
