"""`results.jsonl`: a line of JSON for each finished job. Depends on no client."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterable, Mapping
from datetime import datetime
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pika_async.errors import DeadlineExceeded, PikaError
from pika_async.jobs import Job

__all__ = ["COLUMNS", "ResultsWriter", "json_line", "read_results", "result_row"]

#: Names of the fields of every line, in this order.
COLUMNS: Final = (
    "key", "index", "status", "provider", "task_id", "prompt", "video_url", "file", "sha256", "error", "polls",
    "submitted_at", "settled_at", "points", "metadata",
)  # fmt: skip


def result_row(job: Job, root: Path) -> dict[str, Any]:
    """Return the fields of `job` for `results.jsonl`; its file is relative to `root` if it is inside."""
    return {
        "key": job.key,
        "index": job.index,
        "status": job.status.value,
        "provider": job.provider,
        "task_id": job.task_id,
        "prompt": job.request.prompt,
        "video_url": _video_url(job),
        "file": None if job.file is None else _relative_path(job.file, root),
        "sha256": job.sha256,
        "error": None if job.error is None else error_fields(job.error),
        "polls": job.polls,
        "submitted_at": _format_time(job.submitted_at),
        "settled_at": _format_time(job.settled_at),
        "points": job.points,
        "metadata": None if job.request.metadata is None else dict(job.request.metadata),
    }


def error_fields(error: PikaError) -> dict[str, str]:
    """Return the fields of an error, as every JSON of the command line has them."""
    return {"type": error.type, "kind": error.kind, "message": error.message}


def _video_url(job: Job) -> str | None:
    """Return the URL of the video, or the one that was last seen beside an unknown status word, for a person."""
    if job.video is not None:
        return job.video.url
    if isinstance(job.error, DeadlineExceeded):
        return job.error.last_url
    return None if job.last_seen is None else job.last_seen.url


def _relative_path(file: Path, root: Path) -> str:
    for base in (root, root.absolute(), root.resolve()):
        if file.is_relative_to(base):
            return file.relative_to(base).as_posix()
    return file.as_posix()


def _format_time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_line(record: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """Return `record` as one line of JSON with its line end.

    Every character that is not printable is escaped, so that no reader splits the line and no terminal obeys it.

    :param ascii_only: escape every character outside ASCII too; default False.
    """
    text = json.dumps(record, ensure_ascii=ascii_only, allow_nan=False)
    safe = text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)
    return safe + "\n"


def _escape(character: str) -> str:
    escaped = json.dumps(character)[1:-1]
    return escaped if escaped != character else f"\\u{ord(character):04x}"


class ResultsWriter:
    """Writer of a new `results.jsonl`: at most one line for each key, written at once.

    :raises FileExistsError: if the file exists; see `replacing`.
    :raises OSError: if it cannot be created or written.
    """

    def __init__(self, path: Path) -> None:
        self.root = path.parent
        self.rows: dict[str, dict[str, Any]] = {}
        # Unbuffered: after a failed write, closing the file must not try again.
        self._file: RawIOBase = path.open("xb", buffering=0)

    @classmethod
    async def replacing(cls, path: Path, jobs: AsyncIterable[Job]) -> Self:
        """Replace the file at `path` by one with the lines of `jobs`, once all of them are written."""
        part = path.with_name(f".{path.name}.part")
        part.unlink(missing_ok=True)
        writer = cls(part)
        try:
            async for job in jobs:
                writer.write(job)
            writer._file.close()  # Windows renames no open file
            part.replace(path)
            writer._file = path.open("ab", buffering=0)
        except BaseException:
            writer._file.close()
            part.unlink(missing_ok=True)
            raise
        return writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, job: Job) -> dict[str, Any] | None:
        """Write the line of `job` and return its fields; return None if the key has a line already.

        The key counts as written even if the write fails.
        """
        if job.key in self.rows:
            return None
        record = self.rows[job.key] = result_row(job, self.root)
        start = self._file.tell()
        line = memoryview(json_line(record).encode())
        try:
            while line:
                line = line[self._file.write(line) or 0 :]
        except OSError:
            with contextlib.suppress(OSError):  # half a line would not be JSON
                self._file.truncate(start)
                self._file.seek(start)
            raise
        return record


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `results.jsonl`.

    :raises ValueError: if a line is not a JSON object; names the line.
    :raises OSError: if it cannot be read.
    """
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: must be JSON ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}:{number}: must be a JSON object")  # noqa: TRY004 - the content is wrong, not a type
        records.append(record)
    return records
