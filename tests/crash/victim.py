"""The command line, with a hook that kills the process at a named point: `python -m tests.crash.victim batch ...`.

Environment: `PIKA_CRASH_AT=POINT[:N]` kills at the N-th passing of a point; `PIKA_CRASH_FAIL_FROM=POINT[:N]` lets every
transaction of the journal fail from there on; `PIKA_CRASH_CLOCK=SECONDS` moves the clock; `PIKA_CRASH_NEWER=1` adds a
migration; `PIKA_CRASH_ONE_BY_ONE=1` lets no two submissions and no two downloads overlap; `PIKA_CRASH_WITNESS=FILE` is
told what was done.
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

from pika_async.__main__ import main
from pika_async._http.partial_file import PartialFile
from pika_async._http.transport import AiohttpTransport
from pika_async._journal import fallback_file, schema
from pika_async._journal import sqlite as journal
from pika_async._journal.protocol import Intent
from pika_async._journal.sqlite import SqliteJournal
from pika_async._planning.actions import ActiveJob
from pika_async._runtime import results as _collector
from pika_async._runtime import submitter as _submissions
from pika_async.cli import batch, results
from pika_async.errors import JournalFailed
from pika_async.jobs import Job, JobStatus
from pika_async.providers._wire import HttpRequest
from tests.crash.witness import Witness

__all__ = ["NEWER", "POINTS", "teach"]

#: Seconds after which a victim ends by itself, whatever has become of its test.
LIFETIME: Final = 120
#: Seconds after the request was handed to its connection; answers that are held back take longer.
MIDST: Final = 0.1
#: The points, in the order in which a job passes them.
POINTS: Final = (
    "create-after",  # the journal's file is there, and empty
    "migrate-inside",  # its tables are made, and not committed
    "plan-before", "plan-after",
    "intent-before", "intent-after",
    "send-before", "send-during", "send-after",
    "id-before", "id-after",
    "settle-before", "settle-after",
    "download-half",  # half of the bytes are in the hidden file
    "hash-before", "hash-after",
    "link-before", "link-after",  # after: it has both names
    "named-before", "named-after",
    "line-half",  # half a line is in results.jsonl
    "fallback-read", "fallback-clear",
    "archive-before", "archive-after",
)  # fmt: skip
#: A migration of the future.
NEWER: Final = "ALTER TABLE jobs ADD COLUMN later TEXT"


def teach(migrations: Sequence[str]) -> Sequence[str]:
    """Let the journal know other migrations; returns those that it knew."""
    before: Sequence[str] = schema.MIGRATIONS
    for function in (schema.inspect_file, schema.open_writer, schema.open_reader):
        assert function.__defaults__ is not None
        (before,) = function.__defaults__
        function.__defaults__ = (tuple(migrations),)
    return before


class Points:
    """Counts what is passed, and what is to happen there."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness
        self.failing = False
        self._passed: Counter[str] = Counter()
        self._deaths = self._aim("PIKA_CRASH_AT")
        self._failure = self._aim("PIKA_CRASH_FAIL_FROM")

    @staticmethod
    def _aim(variable: str) -> tuple[str, int]:
        point, _, number = os.environ.get(variable, "").partition(":")
        if point and point not in POINTS:
            raise SystemExit(f"{variable}: {point} is no point; one of {', '.join(POINTS)}")
        return point, int(number or 1)

    def due(self, point: str) -> bool:
        """Whether the next passing of `point` is the one that kills."""
        return self._deaths == (point, self._passed[point] + 1)

    def reach(self, point: str) -> None:
        """Pass `point`; does not return where this is the one."""
        self._passed[point] += 1
        if self._failure == (point, self._passed[point]):
            self.failing = True
        if self._deaths == (point, self._passed[point]):
            self.witness.tell("died", point)
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # a signal to oneself may come a moment later

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` with a point before and one after it."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"{name}-before")
            result = function(*args, **kwargs)
            self.reach(f"{name}-after")
            return result

        return wrapped


def _kind(job: Job) -> str:
    """What the journal is asked to keep of `job`, as the first half of a point's name."""
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


def watch_journal(points: Points) -> None:
    """Intents, records, archives."""
    intend, keep, archive = SqliteJournal.record_intent, SqliteJournal.save, SqliteJournal.archive
    tell = points.witness.tell

    async def watched_intend(self: SqliteJournal, job: Job, intent: Intent) -> None:
        points.reach("intent-before")
        tell("intending", job.key)
        try:
            await intend(self, job, intent)
        except JournalFailed:
            tell("refused", job.key, job.status)
            raise
        tell("intended", job.key)
        points.reach("intent-after")

    async def watched_keep(self: SqliteJournal, *jobs: Job) -> None:
        kinds = list(dict.fromkeys(map(_kind, jobs)))
        for kind in kinds:
            if kind != "other":
                points.reach(f"{kind}-before")
        for job in jobs:
            tell("keeping", job.key, job.status, job.task_id)
        try:
            await keep(self, *jobs)
        except JournalFailed:
            for job in jobs:
                tell("refused", job.key, job.status, job.task_id)
            raise
        for job in jobs:
            tell("kept", job.key, job.status, job.task_id)
        for kind in kinds:
            if kind != "other":
                points.reach(f"{kind}-after")

    async def watched_archive(self: SqliteJournal, job: Job) -> Job:
        points.reach("archive-before")
        archived = await archive(self, job)
        points.reach("archive-after")
        return archived

    setattr(SqliteJournal, "record_intent", watched_intend)  # noqa: B010 - mypy holds that a method is no variable
    setattr(SqliteJournal, "save", watched_keep)  # noqa: B010
    setattr(SqliteJournal, "archive", watched_archive)  # noqa: B010


def watch_database(points: Points) -> None:
    """Creation, migration, commits that fail, what was rescued."""

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if points.failing and sql == "BEGIN IMMEDIATE":
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *args)

        def executescript(self, script: str) -> sqlite3.Cursor:
            if points.due("migrate-inside"):
                head, mark, _ = script.partition("PRAGMA application_id")
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

    def watched_connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(*args, **{"factory": Watched} | kwargs)
        return made

    def watched_create(path: Path) -> None:
        create(path)
        points.reach("create-after")

    def watched_read(self: fallback_file.FallbackFile) -> list[bytes]:
        lines = read(self)
        if lines:
            points.reach("fallback-read")
        return lines

    def watched_clear(self: fallback_file.FallbackFile) -> None:
        if read(self):
            points.reach("fallback-clear")
        clear(self)

    setattr(sqlite3, "connect", watched_connect)  # noqa: B010
    setattr(journal, "create_file", watched_create)  # noqa: B010
    setattr(fallback_file.FallbackFile, "read_lines", watched_read)  # noqa: B010
    setattr(fallback_file.FallbackFile, "clear", watched_clear)  # noqa: B010
    if os.environ.get("PIKA_CRASH_NEWER"):
        teach((*schema.MIGRATIONS, NEWER))


def _prompt_of(body: bytes) -> str:
    fields = json.loads(body)
    return str(fields.get("prompt") or fields["promptText"])


def watch_sends(points: Points) -> None:
    """Submissions; polls pass."""
    send = AiohttpTransport.send
    tell = points.witness.tell

    async def watched_send(self: AiohttpTransport, request: HttpRequest) -> Any:
        if not request.paid:
            return await send(self, request)
        prompt = _prompt_of(request.body or b"")
        points.reach("send-before")
        tell("sending", prompt)
        asyncio.get_running_loop().call_later(MIDST, points.reach, "send-during")
        answer = await send(self, request)
        tell("answered", prompt)
        points.reach("send-after")
        return answer

    setattr(AiohttpTransport, "send", watched_send)  # noqa: B010


def watch_files(points: Points) -> None:
    """Downloads, and the lines of the results."""
    partial = PartialFile
    write, record = partial.write, results.ResultsWriter.write

    def watched_write(self: PartialFile) -> None:
        if points.due("download-half"):
            del self._pending[len(self._pending) // 2 :]
            write(self)
        points.reach("download-half")
        write(self)

    def watched_record(self: results.ResultsWriter, job: Job) -> Any:
        if points.due("line-half"):
            line = results.json_line(results.result_row(job, self.root)).encode()
            self._file.write(line[: len(line) // 2])
        points.reach("line-half")
        return record(self, job)

    setattr(batch, "draw_posters", lambda *_: 0)  # noqa: B010 - they take a quarter of a short life
    setattr(partial, "write", watched_write)  # noqa: B010
    setattr(os, "link", points.around("link", os.link))  # noqa: B010
    setattr(results.ResultsWriter, "write", watched_record)  # noqa: B010


def one_by_one() -> None:
    """So that a death hits one submission, or one download, and what it costs can be told exactly."""
    submit, collect = _submissions.Submitter.submit, _collector.ResultDownloader.collect
    submitting, collecting = asyncio.Lock(), asyncio.Lock()

    async def alone_submit(self: _submissions.Submitter, entry: ActiveJob) -> None:
        async with submitting:
            await submit(self, entry)

    async def alone_collect(self: _collector.ResultDownloader, job: Job, target: Path) -> Job:
        async with collecting:
            return await collect(self, job, target)

    setattr(_submissions.Submitter, "submit", alone_submit)  # noqa: B010
    setattr(_collector.ResultDownloader, "collect", alone_collect)  # noqa: B010


def move_clock(seconds: float) -> None:
    """Let every clock on the wall be wrong by `seconds`; those that only count are right."""
    real = time.time
    setattr(time, "time", lambda: real() + seconds)  # noqa: B010

    class Moved(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Moved:
            return cls.fromtimestamp(time.time(), tz)

    setattr(_submissions, "datetime", Moved)  # noqa: B010


def run(argv: Sequence[str]) -> int:
    """Install the hook, then be the command line."""
    signal.alarm(LIFETIME)
    # What the suite itself was started to ignore, by nohup say, the command would ignore as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    points = Points(Witness(Path(os.environ["PIKA_CRASH_WITNESS"])))
    watch_journal(points)
    watch_database(points)
    watch_sends(points)
    watch_files(points)
    if moved := os.environ.get("PIKA_CRASH_CLOCK"):
        move_clock(float(moved))
    if os.environ.get("PIKA_CRASH_ONE_BY_ONE"):
        one_by_one()
    points.witness.tell("ready")
    return main(argv)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
