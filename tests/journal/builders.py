"""Builders of jobs, journals and child processes shared by the tests of the journal."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import strategies as st

from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Intent, Journal
from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import JournalUnusable
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.models import GenerationRequest

INTENT = Intent(at=utc_from_timestamp(1_700_000_000.123), body_sha256="ab" * 32)


def a_job(key: str = "a", **changes: Any) -> Job:
    return Job(key=key, request=GenerationRequest("a cat", key=key), provider="p", base_url="https://x.test", **changes)


def accepted(key: str = "a", task_id: str = "t-1") -> Job:
    return a_job(key).submitting().accepted(task_id, 1_700_000_001.5)


def job_for_token(journal: Journal, callback_sha256: str) -> Job | None:
    key = journal.key_for_token(callback_sha256)
    return None if key is None else journal.get(key)


def with_token(token: str | None) -> Intent:
    return attrs.evolve(INTENT, callback_sha256=token)


KEYS = ["a", "b", "c"]


STATES = [status for status in JobStatus if status is not JobStatus.SUBMITTING]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("intend"), st.tuples(st.sampled_from(KEYS), st.booleans())),
        st.tuples(st.just("save"), st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(STATES)), max_size=3)),
        st.tuples(st.just("save_later"), st.tuples(st.sampled_from(KEYS), st.sampled_from(STATES))),
        st.tuples(st.just("archive"), st.sampled_from(KEYS)),
        st.tuples(st.just("remember"), st.integers(0, 3)),
        st.sampled_from([("reopen", None), ("stall", None), ("release", None), ("flush", None)]),
    ),
    max_size=25,
)


class JournalPair:
    """The two journals, given the same calls; calls to a stalled SQLite journal are not awaited."""

    def __init__(self, path: Path) -> None:
        self.memory, self.sqlite = MemoryJournal(), SqliteJournal(path)
        self.generation = dict.fromkeys(KEYS, 0)
        self.tasks: list[asyncio.Future[Any]] = []
        self.stalled: threading.Event | None = None
        self.number = 0

    def job(self, key: str, status: JobStatus) -> Job:
        """Return the next state of the job with *key*; its request and its task id do not change."""
        self.number += 1
        existing = self.memory.get(key)
        name = f"{key}{self.generation[key]}"
        base = existing or attrs.evolve(a_job(key), request=GenerationRequest(name, key=key))
        accepted = base.task_id or (name if status in {JobStatus.QUEUED, JobStatus.SUCCEEDED} else None)
        at = base.submitted_at or (utc_from_timestamp(self.number) if accepted or status is JobStatus.UNKNOWN else None)
        return attrs.evolve(
            base, status=status, task_id=accepted, submitted_at=at, polls=self.number, attempts=self.number % 2
        )

    async def both(self, memory: Awaitable[Any], sqlite: Any) -> None:
        expected = await memory
        task = asyncio.ensure_future(sqlite)
        if self.stalled is None:
            assert await task == expected
        else:
            await asyncio.sleep(0)
            self.tasks.append(task)

    async def release(self) -> None:
        if self.stalled is not None:
            self.stalled.set()
            await asyncio.gather(*self.tasks)
            self.stalled, self.tasks = None, []

    async def step(self, name: str, what: Any) -> None:
        match name:
            case "intend":
                job = self.job(what[0], JobStatus.SUBMITTING)
                intent = with_token(f"t{self.number}" if what[1] else None)
                await self.both(self.memory.record_intent(job, intent), self.sqlite.record_intent(job, intent))
            case "save":
                jobs = [self.job(key, status) for key, status in dict(what).items()]
                await self.both(self.memory.save(*jobs), self.sqlite.save(*jobs))
            case "save_later" if what[0] in self.memory:
                job = self.job(*what)
                self.memory.save_later(job)
                self.sqlite.save_later(job)
            case "archive":
                existing = self.memory.get(what)
                if existing is not None and existing.status is not JobStatus.SUBMITTING:
                    self.generation[what] += 1
                    await self.both(self.memory.archive(existing), self.sqlite.archive(existing))
            case "remember":
                await self.both(self.memory.set_setting("x", what), self.sqlite.set_setting("x", what))
            case "stall" if self.stalled is None and self.sqlite._executor is not None:
                self.stalled = threading.Event()
                self.sqlite._executor.submit(self.stalled.wait)
            case "flush" if self.stalled is None:
                assert self.sqlite.flush(10)
            case "release":
                await self.release()
            case "reopen":
                await self.release()
                await self.sqlite.close()
                self.compare()
                await self.sqlite.open()

    def compare(self) -> None:
        one, other = self.memory, self.sqlite
        assert list(other.keys()) == list(one.keys())
        assert list(other.all()) == list(one.all())
        for status in JobStatus:
            assert list(other.all(status)) == list(one.all(status))
        for key in [*list(one.keys()), *KEYS]:
            assert other.get(key) == one.get(key)
        for job in one.all():
            if job.task_id is not None:
                assert other.key_for_task("p", job.base_url, job.task_id) == one.key_for_task(
                    "p", job.base_url, job.task_id
                )
        assert other.charges() == one.charges() == sum(job.may_be_charged for job in one.all())
        assert sorted(job.key for job, _ in other.interrupted_jobs()) == sorted(
            job.key for job, _ in one.interrupted_jobs()
        )
        assert dict(_keyed(other.interrupted_jobs())) == dict(_keyed(one.interrupted_jobs()))
        for number in range(self.number + 1):
            assert job_for_token(other, f"t{number}") == job_for_token(one, f"t{number}")
        assert other.get_setting("x") == one.get_setting("x")


@contextmanager
def stalled(journal: SqliteJournal) -> Iterator[None]:
    """Block the writer thread while the context is open."""
    event = threading.Event()
    assert journal._executor is not None
    journal._executor.submit(event.wait)
    try:
        yield
    finally:
        event.set()


PRELUDE = """
import asyncio, json, os, signal, sys
from pathlib import Path
from pika_async._journal.protocol import Intent
from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import JournalFailed, JournalInUse, JournalUnusable
from pika_async.jobs import JobStatus, utc_from_timestamp
from tests.journal.builders import INTENT, a_job, accepted
import encodings.idna, tempfile, resource
path = Path(sys.argv[1])
journal = SqliteJournal(path)
def die(): os.kill(os.getpid(), signal.SIGKILL)
def drop():
    if os.geteuid() == 0:
        os.setgid(65534), os.setuid(65534)
"""


def run_child(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run *script* in another process, with `journal` at *path*."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + script, str(path)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}  # the test may have changed the folder
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of *folder* except locks."""
    files = [it for it in folder.glob("*") if it.is_file() and it.suffix != ".lock"]
    return {it.name: it.read_bytes() for it in files}


async def create_journal(path: Path) -> None:
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save(accepted())
    await journal.close()


async def assert_refused(path: Path, words: str) -> None:
    """Check that opening fails with *words* in the error and changes nothing in the folder."""
    before = read_files(path.parent)
    journal = SqliteJournal(path)
    with pytest.raises(JournalUnusable) as opening:
        await journal.open()
    assert words in str(opening.value)
    assert str(path) in str(opening.value)
    assert opening.value.setting == "journal"
    assert read_files(path.parent) == before


class FailingConnection:
    """Connection whose commits raise `error` until it is set to None."""

    def __init__(self, connection: sqlite3.Connection, error: Exception) -> None:
        self.connection = connection
        self.error: Exception | None = error

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT" and self.error is not None:
            raise self.error
        return self.connection.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


async def open_broken_journal(path: Path, *intended: str) -> tuple[SqliteJournal, FailingConnection]:
    """Open a journal that holds the accepted job `a` and the intents of *intended*, and cannot be written any more."""
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save(accepted())
    for key in intended:
        await journal.record_intent(a_job(key).submitting(), INTENT)
    double = FailingConnection(journal._write_connection, sqlite3.OperationalError("disk I/O error"))
    journal._write_connection = double  # type: ignore[assignment]
    return journal, double


def _keyed(interrupted: list[tuple[Job, Intent]]) -> list[tuple[str, Intent]]:
    return [(job.key, intent) for job, intent in interrupted]
