"""`results.jsonl`: a line of JSON for each finished job. Depends on no client."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import attrs

from pika_async.errors import DeadlineExceeded, PikaError
from pika_async.jobs import Job

__all__ = ["COLUMNS", "ResultRows", "ResultsWriter", "json_line", "read_results", "result_row"]

#: Names of the fields of every line, in this order.
COLUMNS: Final = (
    "key", "index", "status", "provider", "account", "task_id", "prompt", "video_url", "file", "sha256", "error",
    "polls", "submitted_at", "settled_at", "points", "cost", "metadata",
)  # fmt: skip


def result_row(job: Job, root: Path) -> dict[str, Any]:
    """Return the fields of `job` for `results.jsonl`; its file is relative to `root` if inside, or an `s3://` URL."""
    return {
        "key": job.key,
        "index": job.index,
        "status": job.status.value,
        "provider": job.provider,
        "account": job.account,
        "task_id": job.task_id,
        "prompt": job.request.prompt,
        "video_url": _video_url(job),
        "file": job.object_url if job.file is None else _relative_path(job.file, root),
        "sha256": job.sha256,
        "error": None if job.error is None else error_fields(job.error),
        "polls": job.polls,
        "submitted_at": _format_time(job.submitted_at),
        "settled_at": _format_time(job.settled_at),
        "points": job.points,
        "cost": job.cost,
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


class ResultRows:
    """Fields of the lines of a command in the order of its input, decoded each time they are iterated."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(json.loads, self._lines)


class ResultsWriter:
    """Writer of `results.jsonl`: at most one line for each key, appended at once unless the file has it already.

    The file of an earlier command is continued. A line of it that is not true any more stays until `finish`; until
    then, of two lines with one key the later one counts.

    :param path: a new file.
    :param continues: whether it may be that of an earlier command, of which an incomplete last line is removed; this
        blocks for as long as reading it takes. Default False.
    :raises FileExistsError: if it exists and is not to be continued.
    :raises OSError: if it cannot be created, read or written.
    """

    def __init__(self, path: Path, *, continues: bool = False) -> None:
        self.root = path.parent
        self.path = path
        #: Line of each key in the order of the file, encoded: a collection of garbage has nothing to visit.
        self._lines, self._is_exact = _earlier_lines(path) if continues else ({}, True)
        #: Index of each key of this command.
        self._indices: dict[str, int] = {}
        # Unbuffered: after a failed write, closing the file must not try again.
        self._file: RawIOBase = path.open("ab" if continues else "xb", buffering=0)
        self._size = self._file.seek(0, io.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and leave it as it is."""
        self._file.close()

    @property
    def rows(self) -> ResultRows:
        """The rows of this command, those included whose lines could not be written."""
        keys: dict[int, list[str]] = {}
        for key, index in self._indices.items():
            keys.setdefault(index, []).append(key)
        # Numbers alone are sorted at once: a sort lets no other thread run.
        return ResultRows([self._lines[key] for index in sorted(keys) for key in sorted(keys[index])])

    def write(self, job: Job) -> dict[str, Any] | None:
        """Write the line of `job` and return its fields; return None if the key has one of this command.

        The key counts as written even if the write fails.
        """
        if job.key in self._indices:
            return None
        record = result_row(job, self.root)
        line = json_line(record).encode()
        self._indices[job.key] = job.index
        earlier = self._lines.get(job.key)
        if earlier == line:
            return record
        if earlier is not None:
            self._is_exact = False
            del self._lines[job.key]
        self._lines[job.key] = line
        self._append(memoryview(line))
        return record

    def replace(self, jobs: Iterable[Job]) -> None:
        """Write the line of each of `jobs` that has one, with the index of that one, and keep the lines of all others.

        For a command on some jobs of a folder, which knows no input.
        """
        changed = {job.key: job for job in jobs}
        for key, line in list(self._lines.items()):
            record = json.loads(line)
            if not record.keys() >= set(COLUMNS) or not isinstance(record["index"], int):
                continue  # a line of somebody else's
            if key in changed:
                self.write(attrs.evolve(changed[key], index=record["index"]))
            else:
                self._indices[key] = record["index"]

    def _append(self, line: memoryview) -> None:
        size = self._size + len(line)
        try:
            while line:
                line = line[self._file.write(line) or 0 :]
            self._size = size
        except OSError:
            with contextlib.suppress(OSError):  # half a line would not be JSON
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise

    def finish(self) -> None:
        """Close the file; if it has lines that are not those of this command, replace it by one without them.

        It is replaced in one step, and keeps the order of its lines. Blocks: in an event loop, use a thread.

        :raises OSError: if it cannot be written; the file is then as it was.
        """
        self.close()  # Windows renames no open file
        if self._is_exact and len(self._lines) == len(self._indices):
            return
        part = self.path.with_name(f".{self.path.name}.part")
        try:
            part.unlink(missing_ok=True)
            with part.open("xb") as file:
                file.writelines(line for key, line in self._lines.items() if key in self._indices)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def _earlier_lines(path: Path) -> tuple[dict[str, bytes], bool]:
    """Return the lines of a file by key, and whether it has no others; remove an incomplete last line from it."""
    lines: dict[str, bytes] = {}
    is_exact = True
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            path.unlink()  # a link leads to another file
            return lines, is_exact
        with path.open("rb") as file:
            size = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                key = _key_of(line)
                if key is None or lines.pop(key, None) is not None:
                    is_exact = False
                if key is not None:
                    lines[key] = line
            else:
                return lines, is_exact
        os.truncate(path, size)
    except FileNotFoundError:
        pass
    return lines, is_exact


def _key_of(line: bytes) -> str | None:
    """Return the key in a line; None if the line is not one of a `results.jsonl`."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    key = record.get("key") if isinstance(record, dict) else None
    return key if isinstance(key, str) else None


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
