"""Command line with a hook that kills the process at a named point: `python -m tests.crash.victim_process batch ...`.

Environment variables:

* `PIKA_CRASH_AT=POINT[:N]` kills the process when it reaches the point for the N-th time.
* `PIKA_CRASH_FAIL_FROM=POINT[:N]` makes every transaction of the journal fail from there on.
* `PIKA_CRASH_CLOCK=SECONDS` shifts the wall clock.
* `PIKA_CRASH_NEWER=1` adds a migration.
* `PIKA_CRASH_ONE_BY_ONE=1` serializes submissions, and downloads.
* `PIKA_CRASH_POLL_AFTER=COUNT` holds every poll until that many task ids are saved.
* `PIKA_CRASH_TIMEOUT=SECONDS` is how long a submission waits for its answer.
* `PIKA_CRASH_EVENT_LOG=FILE` is the file to which events are recorded.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from pika_async.__main__ import main
from pika_async._http.partial_file import Batch, PartialFile
from pika_async._http.transport import AiohttpTransport
from pika_async._journal import fallback_file, marks, opening, schema
from pika_async._journal import sqlite as sqlite_journal
from pika_async._journal.migrations import MIGRATIONS
from pika_async._journal.protocol import Intent
from pika_async._journal.sqlite import SqliteJournal
from pika_async._planning.actions import ActiveJob
from pika_async._runtime import results as runtime_results
from pika_async._runtime import submitter
from pika_async.cli import results
from pika_async.errors import JournalFailed
from pika_async.jobs import Job, JobStatus
from pika_async.providers._wire import HttpRequest
from pika_async.report import writer
from tests.crash.event_log import EventLog

__all__ = ["NEWER", "POINTS", "use_migrations"]

#: Seconds after which the process is ended by an alarm, even if its test is gone.
LIFETIME_S: Final = 120
#: The points, in the order in which a job passes them.
POINTS: Final = (
    "create-after",  # the journal file exists and is empty
    "migrate-inside",  # the tables are created but not committed
    "plan-before", "plan-after",
    "intent-before", "intent-after",
    "send-before", "send-after",
    "id-before", "id-after",
    "settle-before", "settle-after",
    "download-half",  # half of the bytes are in the hidden file
    "hash-before", "hash-after",
    "link-before", "link-after",  # after: the file has both names
    "named-before", "named-after",
    "line-half",  # half a line is in results.jsonl
    "fallback-read", "fallback-clear",
    "archive-before", "archive-after",
    "mark-before", "mark-after",  # the journal is marked as open
    "close-before", "close-copied", "close-after",  # copied: the log is in the database, which is still marked as open
)  # fmt: skip
#: A migration that this version does not have.
NEWER: Final = "ALTER TABLE jobs ADD COLUMN later TEXT"


def use_migrations(migrations: Sequence[str]) -> Sequence[str]:
    """Replace the migrations of the journal; return the previous ones."""
    before: Sequence[str] = MIGRATIONS
    for function in (schema.inspect_file, schema.open_writer, schema.open_reader):
        assert function.__defaults__ is not None
        (before,) = function.__defaults__
        function.__defaults__ = (tuple(migrations),)
    return before


class Points:
    """Counter of the points reached, which kills the process or breaks the journal at a chosen one."""

    def __init__(self, event_log: EventLog) -> None:
        self.event_log = event_log
        self.failing = False
        self.saved_task_ids: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._kill_at = self._read_target("PIKA_CRASH_AT")
        self._fail_from = self._read_target("PIKA_CRASH_FAIL_FROM")

    @staticmethod
    def _read_target(variable: str) -> tuple[str, int]:
        point, _, number = os.environ.get(variable, "").partition(":")
        if point and point not in POINTS:
            raise SystemExit(f"{variable}: {point} must be one of {', '.join(POINTS)}")
        return point, int(number or 1)

    def due(self, point: str) -> bool:
        """Return whether the process is to be killed when it next reaches *point*."""
        return self._kill_at == (point, self._counts[point] + 1)

    def reach(self, point: str) -> None:
        """Count *point*; kill the process if it is the chosen one."""
        self._counts[point] += 1
        if self._fail_from == (point, self._counts[point]):
            self.failing = True
        if self._kill_at == (point, self._counts[point]):
            self.event_log.record("died", point)
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # a signal to oneself may come a moment later

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap *function* with a point before and a point after it."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"{name}-before")
            result = function(*args, **kwargs)
            self.reach(f"{name}-after")
            return result

        return wrapped


def _kind(job: Job) -> str:
    """Return the first half of the name of the point at which *job* is saved."""
    match job:
        case Job(status=JobStatus.PLANNED):
            return "plan"
        case Job(status=JobStatus.QUEUED):
            return "id"
        case Job(status=JobStatus.SUCCEEDED, sha256=None, file=None):
            return "settle"
        case Job(status=JobStatus.SUCCEEDED, file=None):
            return "hash"
        case Job(status=JobStatus.SUCCEEDED):
            return "named"
        case _:
            return "other"


def hook_journal(points: Points) -> None:
    """Hook the intents, records and archives of the journal."""
    record_intent, save, archive = SqliteJournal.record_intent, SqliteJournal.save, SqliteJournal.archive
    record_event = points.event_log.record

    async def hooked_record_intent(self: SqliteJournal, job: Job, intent: Intent) -> None:
        points.reach("intent-before")
        record_event("intending", job.key)
        try:
            await record_intent(self, job, intent)
        except JournalFailed:
            record_event("refused", job.key, job.status)
            raise
        record_event("intended", job.key)
        points.reach("intent-after")

    async def hooked_save(self: SqliteJournal, *jobs: Job, linger: bool = False) -> None:
        kinds = list(dict.fromkeys(map(_kind, jobs)))
        for kind in kinds:
            if kind != "other":
                points.reach(f"{kind}-before")
        for job in jobs:
            record_event("saving", job.key, job.status, job.task_id)
        try:
            await save(self, *jobs, linger=linger)
        except JournalFailed:
            for job in jobs:
                record_event("refused", job.key, job.status, job.task_id)
            raise
        for job in jobs:
            record_event("saved", job.key, job.status, job.task_id)
        points.saved_task_ids.update(job.task_id for job in jobs if job.task_id is not None)
        for kind in kinds:
            if kind != "other":
                points.reach(f"{kind}-after")

    async def hooked_archive(self: SqliteJournal, job: Job) -> Job:
        points.reach("archive-before")
        archived = await archive(self, job)
        points.reach("archive-after")
        return archived

    setattr(SqliteJournal, "record_intent", hooked_record_intent)  # noqa: B010 - mypy does not allow assignment to a method
    setattr(SqliteJournal, "save", hooked_save)  # noqa: B010
    setattr(SqliteJournal, "archive", hooked_archive)  # noqa: B010


def hook_database(points: Points) -> None:
    """Hook creation, migration, commits and the fallback file of the database."""

    class HookedConnection(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if points.failing:
                super().execute("PRAGMA query_only=ON")  # whatever statement writes fails from here on
            return super().execute(sql, *args)

        def executescript(self, script: str) -> sqlite3.Cursor:
            if points.due("migrate-inside"):
                head, mark, _ = script.partition("PRAGMA user_version")
                if mark:
                    super().executescript(head)
                    points.reach("migrate-inside")
            return super().executescript(script)

    connect, create, read, clear = (
        sqlite3.connect,
        schema.create_file,
        fallback_file.FallbackFile.read_lines,
        fallback_file.FallbackFile.clear,
    )

    def hooked_connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(*args, **{"factory": HookedConnection} | kwargs)
        return made

    def hooked_create(path: Path) -> None:
        create(path)
        points.reach("create-after")

    def hooked_read(self: fallback_file.FallbackFile) -> list[bytes]:
        lines = read(self)
        if lines:
            points.reach("fallback-read")
        return lines

    def hooked_clear(self: fallback_file.FallbackFile) -> None:
        if read(self):
            points.reach("fallback-clear")
        clear(self)

    setattr(sqlite3, "connect", hooked_connect)  # noqa: B010
    setattr(opening, "create_file", hooked_create)  # noqa: B010
    setattr(fallback_file.FallbackFile, "read_lines", hooked_read)  # noqa: B010
    setattr(fallback_file.FallbackFile, "clear", hooked_clear)  # noqa: B010
    if os.environ.get("PIKA_CRASH_NEWER"):
        use_migrations((*MIGRATIONS, NEWER))


def hook_marks(points: Points) -> None:
    """Hook the marks of the journal's file as open and as closed."""
    checkpoint = marks.checkpoint
    closing = marks.mark_closed

    def hooked_closing(connection: sqlite3.Connection) -> bool:
        points.reach("close-before")

        def hooked_checkpoint(connection: sqlite3.Connection) -> bool:
            result = checkpoint(connection)
            setattr(marks, "checkpoint", checkpoint)  # noqa: B010
            points.reach("close-copied")
            return result

        setattr(marks, "checkpoint", hooked_checkpoint)  # noqa: B010
        result = closing(connection)
        points.reach("close-after")
        return result

    setattr(opening, "mark_open", points.around("mark", marks.mark_open))  # noqa: B010
    setattr(sqlite_journal, "mark_closed", hooked_closing)  # noqa: B010


def _prompt_of(body: bytes) -> str:
    fields = json.loads(body)
    return str(fields.get("prompt") or fields["promptText"])


def hook_sends(points: Points) -> None:
    """Hook submissions, and hold polls."""
    send = AiohttpTransport.send
    record_event = points.event_log.record
    poll_after = int(os.environ.get("PIKA_CRASH_POLL_AFTER", "0"))

    async def hooked_send(self: AiohttpTransport, request: HttpRequest) -> Any:
        if not request.paid:
            while len(points.saved_task_ids) < poll_after:
                await asyncio.sleep(0.01)
            return await send(self, request)
        prompt = _prompt_of(request.body or b"")
        points.reach("send-before")
        record_event("sending", prompt)
        answer = await send(self, request)
        record_event("answered", prompt)
        points.reach("send-after")
        return answer

    setattr(AiohttpTransport, "send", hooked_send)  # noqa: B010


def hook_files(points: Points) -> None:
    """Hook downloads and the lines of the results file."""
    partial = PartialFile
    write, record = partial.write, results.ResultsWriter.write

    def hooked_write(self: PartialFile, batch: Batch) -> None:
        if points.due("download-half"):
            data = b"".join(batch.chunks)
            write(self, Batch([data[: len(data) // 2]], batch.starts_again))
        points.reach("download-half")
        write(self, batch)

    def hooked_record(self: results.ResultsWriter, job: Job) -> Any:
        if points.due("line-half"):
            line = results.json_line(results.result_row(job, self.root)).encode()
            self._file.write(line[: len(line) // 2])
        points.reach("line-half")
        return record(self, job)

    setattr(writer, "draw_posters", lambda *_: 0)  # noqa: B010 - they take a quarter of a short run
    setattr(partial, "write", hooked_write)  # noqa: B010
    setattr(os, "link", points.around("link", os.link))  # noqa: B010
    setattr(results.ResultsWriter, "write", hooked_record)  # noqa: B010


def serialize_work() -> None:
    """Serialize submissions, and downloads, so that a kill affects exactly one of them."""
    submit, collect = submitter.Submitter.submit, runtime_results.ResultDownloader.collect
    submit_lock, collect_lock = asyncio.Lock(), asyncio.Lock()

    async def serialized_submit(self: submitter.Submitter, entry: ActiveJob) -> None:
        async with submit_lock:
            await submit(self, entry)

    async def serialized_collect(self: runtime_results.ResultDownloader, job: Job, target: Path) -> Job:
        async with collect_lock:
            return await collect(self, job, target)

    setattr(submitter.Submitter, "submit", serialized_submit)  # noqa: B010
    setattr(runtime_results.ResultDownloader, "collect", serialized_collect)  # noqa: B010


def shift_clock(seconds: float) -> None:
    """Shift every wall clock by *seconds*; monotonic clocks stay correct."""
    real = time.time
    setattr(time, "time", lambda: real() + seconds)  # noqa: B010

    class ShiftedDatetime(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> ShiftedDatetime:
            return cls.fromtimestamp(time.time(), tz)

    setattr(submitter, "datetime", ShiftedDatetime)  # noqa: B010


def shorten_timeout(seconds: float) -> None:
    """Let every submission wait *seconds* for its answer."""
    defaults = AiohttpTransport.__init__.__kwdefaults__
    assert defaults is not None
    defaults["paid_timeout"] = aiohttp.ClientTimeout(total=seconds, sock_read=seconds)


def run(argv: Sequence[str]) -> int:
    """Install the hooks and run the command line."""
    signal.alarm(int(os.environ.get("PIKA_CRASH_LIFETIME", LIFETIME_S)))
    # A signal that the test suite ignores, because of nohup for example, would be ignored here as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    points = Points(EventLog(Path(os.environ["PIKA_CRASH_EVENT_LOG"])))
    hook_journal(points)
    hook_database(points)
    hook_marks(points)
    hook_sends(points)
    hook_files(points)
    if shift := os.environ.get("PIKA_CRASH_CLOCK"):
        shift_clock(float(shift))
    if os.environ.get("PIKA_CRASH_ONE_BY_ONE"):
        serialize_work()
    if timeout := os.environ.get("PIKA_CRASH_TIMEOUT"):
        shorten_timeout(float(timeout))
    points.event_log.record("ready")
    return main(argv)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
