"""Counter of work that does not depend on the clock: calls, SQL statements, commits and syncs."""

from __future__ import annotations

import gc
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import attrs

import pika_async

__all__ = ["WorkCounter"]

#: Beginnings of the file names of the package's code: its own files, and the methods that attrs writes for its classes.
OWN_CODE = (str(Path(pika_async.__file__).parent), "<attrs generated methods pika_async.")


@attrs.define
class WorkCounter:
    """Work of this thread while `counting` is open and `paused` is not."""

    #: Calls of functions, in Python and in C; a coroutine is called again each time it goes on.
    calls: int = 0
    #: Those that are functions of the package, or are called by them directly from C.
    own_calls: int = 0
    statements: int = 0
    commits: int = 0
    #: Syncs of files and folders, without those that SQLite does in a commit.
    syncs: int = 0
    is_counting: bool = False

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what happens in the context."""
        gc.collect()
        gc.disable()  # finalizers run at times of their own
        previous = sys.getprofile()
        self._set(True)
        try:
            yield
        finally:
            self._set(False)
            sys.setprofile(previous)
            gc.enable()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens in the context."""
        was_counting, self.is_counting = self.is_counting, False
        sys.setprofile(None)
        try:
            yield
        finally:
            self._set(was_counting)

    def _set(self, is_counting: bool) -> None:
        self.is_counting = is_counting
        sys.setprofile(self._on_event if is_counting else None)

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        if event in {"call", "c_call"}:
            self.calls += 1
            self.own_calls += frame.f_code.co_filename.startswith(OWN_CODE)

    @contextmanager
    def watching_files(self) -> Iterator[None]:
        """Count the statements of connections that are opened in the context, and its syncs."""
        connect, fsync = sqlite3.connect, os.fsync

        def connect_watched(*args: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **options)
            connection.set_trace_callback(self._on_statement)
            return connection

        def fsync_watched(descriptor: Any) -> None:
            self.syncs += self.is_counting
            fsync(descriptor)

        with (
            mock.patch.object(sqlite3, "connect", connect_watched),
            mock.patch.object(os, "fsync", fsync_watched),
            mock.patch.object(os, "fdatasync", fsync_watched, create=True),
        ):
            yield

    def _on_statement(self, statement: str) -> None:
        self.statements += self.is_counting
        self.commits += self.is_counting and statement.upper().startswith("COMMIT")
