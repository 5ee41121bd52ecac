"""Journals of every kind whose writes take virtual time: the SQLite writer thread is replaced by the running loop.

`PIKA_REAL_JOURNAL=1`, which `nox -s crash` sets, keeps the thread and the waits for the disk; virtual time stands still
while the thread works.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import pytest

from pika_async._journal import schema
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Journal
from pika_async._journal.sqlite import SqliteJournal
from tests.fakes.memory_gateway import SlowJournal
from tests.fakes.virtual_clock import AwaitedThread

JOURNAL_KINDS: Final = ["in memory", "slow", "on disk", "slow on disk"]
JournalFactory = Callable[[], Journal]


class LoopExecutor:
    """Replaces the journal's writer thread: runs each piece of work in the loop, `seconds` after it was submitted."""

    seconds = 0.0

    def __init__(self, *_: object) -> None:
        self._waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        loop = asyncio.get_running_loop()
        while self._loop is not loop and self._waiting:  # a real thread outlives the loop that submitted the work
            self._work()
        self._loop = loop
        done: Future[Any] = Future()
        self._waiting.append((work, done))
        loop.call_later(self.seconds, self._work)
        return done

    def _work(self) -> None:
        if self._waiting:
            work, done = self._waiting.popleft()
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

    def shutdown(self, *, wait: bool) -> None:
        """Leave the submitted work to the loop, which still runs it."""


class SlowLoopExecutor(LoopExecutor):
    """A `LoopExecutor` whose work takes 10 ms."""

    seconds = 0.01


def write_in_loop_time(monkeypatch: pytest.MonkeyPatch, executor: type[LoopExecutor] = LoopExecutor) -> None:
    """Let SQLite journals write in the loop's time and without waiting for the disk; see `PIKA_REAL_JOURNAL`."""
    if os.environ.get("PIKA_REAL_JOURNAL"):
        monkeypatch.setattr("pika_async._journal.sqlite.ThreadPoolExecutor", AwaitedThread)
        return
    monkeypatch.setattr("pika_async._journal.sqlite.ThreadPoolExecutor", executor)
    quick = [pragma.replace("synchronous=FULL", "synchronous=OFF") for pragma in schema.WRITER_PRAGMAS]
    monkeypatch.setattr(schema, "WRITER_PRAGMAS", quick)


def journal_factory(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> JournalFactory:
    """Return a function that makes new journals of `kind`, one of `JOURNAL_KINDS`; files are created in `folder`."""
    numbers = itertools.count()
    write_in_loop_time(monkeypatch, SlowLoopExecutor if "slow" in kind else LoopExecutor)
    if "disk" in kind:
        return lambda: SqliteJournal(folder / f"{next(numbers)}.db")
    return SlowJournal if kind == "slow" else MemoryJournal
