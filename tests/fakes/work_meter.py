"""Counter of the work between two turns of the event loop: independent of the machine and of what else it runs."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from pika_async._journal import reader, schema

#: Instructions of SQLite's virtual machine that count as one.
INSTRUCTIONS_PER_COUNT = 5

#: Turns that are waited for first: tasks that were just started take some.
IDLE_TURNS = 10


@attrs.define
class WorkMeter:
    """The most function calls, and the most work of SQLite, that the loop's thread did between two of its turns."""

    calls: int = 0
    instructions: int = 0
    _calls_in_turn: int = 0
    _instructions_in_turn: int = 0

    def _count_call(self, _frame: object, event: str, _arg: object) -> None:
        self._calls_in_turn += event == "call"

    def _count_instructions(self) -> int:
        self._instructions_in_turn += 1
        return 0

    def watch_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count the instructions of every connection that a journal opens for its reads from now on."""
        open_reader = schema.open_reader

        def watched(path: Path) -> sqlite3.Connection | None:
            connection = open_reader(path)
            if connection is not None:
                connection.set_progress_handler(self._count_instructions, INSTRUCTIONS_PER_COUNT)
            return connection

        monkeypatch.setattr(reader, "open_reader", watched)
        monkeypatch.setattr("pika_async._journal.sqlite.open_reader", watched)

    @asynccontextmanager
    async def measure(self) -> AsyncIterator[None]:
        """Count what happens in the `async with` block."""
        for _ in range(IDLE_TURNS):
            await asyncio.sleep(0)
        self._begin_turn()
        self.calls = self.instructions = 0
        turns = asyncio.create_task(self._take_turns())
        previous = sys.getprofile()
        gc.collect()
        gc.disable()  # the finalizers of what other tests left are not the work of this turn
        sys.setprofile(self._count_call)
        try:
            yield
            await asyncio.sleep(0)
        finally:
            sys.setprofile(previous)
            gc.enable()
            turns.cancel()

    async def _take_turns(self) -> None:
        while True:
            self._begin_turn()
            await asyncio.sleep(0)

    def _begin_turn(self) -> None:
        self.calls = max(self.calls, self._calls_in_turn)
        self.instructions = max(self.instructions, self._instructions_in_turn)
        self._calls_in_turn = self._instructions_in_turn = 0
